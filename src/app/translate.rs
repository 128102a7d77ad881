//! `translate`: a provider's body in, what the client would get out, by the very code that relays: the
//! body is played to an exchange as the answer of its only attempt.

use std::io::Read as _;
use std::sync::Arc;

use crate::app::cli::Stop;
use crate::app::say;
use crate::base::buf::Buf;
use crate::base::tick::{Tick, UnixMs};
use crate::config;
use crate::exchange::answer::Client;
use crate::exchange::ledger::{Ending, Ledger};
use crate::exchange::phase::LaneId;
use crate::exchange::{Cx, Exchange, Input, Job, Output, Side};
use crate::llm::dialects::Dialect;
use crate::llm::providers::Kind;
use crate::llm::request::{Ask, Envelope, Surface};
use crate::net;
use crate::route::{self, Table, Wish};

/// What is translated.
pub struct Order {
    /// The adapter that reads it.
    pub kind: Kind,
    /// The surface that it answers, and with it the client's dialect.
    pub surface: Surface,
    /// The body is a stream.
    pub stream: bool,
    /// The HTTP status that it came with.
    pub status: u16,
}

/// What came of it.
pub struct Translated {
    /// The client's bytes, without the HTTP head.
    pub body: Vec<u8>,
    /// Whether it is a whole answer.
    pub good: bool,
}

/// The adapter and surface of a provider's API, by the names of recorded traffic.
pub fn known(provider: &str, api: &str) -> Option<(Kind, Surface)> {
    match api {
        "openai-chat" if provider == "mistral" => Some((Kind::Mistral, Surface::Chat)),
        // Where both are served, the answer tells whose it is.
        "anthropic-messages" | "gemini-generate" if provider == "vertex" => {
            Some((Kind::Vertex, Surface::Chat))
        }
        "openai-chat" if provider == "azure" => Some((Kind::AZURE, Surface::Chat)),
        "anthropic-messages" => Some((Kind::Anthropic, Surface::Chat)),
        "cohere-v2-chat" => Some((Kind::Cohere, Surface::Chat)),
        "cohere-v1-chat" => Some((Kind::CohereV1, Surface::Chat)),
        "tgi-generate" => Some((Kind::TgiGenerate, Surface::Chat)),
        "ollama-chat" | "ollama-generate" => Some((Kind::Ollama, Surface::Chat)),
        "gemini-generate" => Some((Kind::Gemini, Surface::Chat)),
        "bedrock-converse" => Some((Kind::Bedrock, Surface::Chat)),
        "bedrock-invoke" => Some((Kind::BedrockInvoke, Surface::Chat)),
        "openai-chat" => Some((Kind::Openai, Surface::Chat)),
        "openai-completions" => Some((Kind::Openai, Surface::Completions)),
        "openai-responses" => Some((Kind::Responses, Surface::Chat)),
        _ => None,
    }
}

/// The surface of a client that speaks `to`, for an answer that a chat client would get on `surface`.
pub fn surface_in(surface: Surface, to: Dialect) -> Option<Surface> {
    match (to, surface) {
        (Dialect::Chat, surface) => Some(surface),
        (Dialect::Messages, Surface::Chat | Surface::Completions) => Some(Surface::Messages),
        (Dialect::Responses, Surface::Chat | Surface::Completions) => Some(Surface::Responses),
        (Dialect::Messages | Dialect::Responses, _) => None,
    }
}

/// The API that a provider is usually spoken to by.
pub fn usual_api(provider: &str) -> &'static str {
    match provider {
        "anthropic" => "anthropic-messages",
        "gemini" | "vertex" => "gemini-generate",
        "bedrock" => "bedrock-converse",
        "bedrock-mantle" | "lmstudio" => "openai-responses",
        "cohere" => "cohere-v2-chat",
        "ollama" => "ollama-chat",
        _ => "openai-chat",
    }
}

/// Translates a body that arrives in `pieces`.
pub fn translate<'p>(order: &Order, pieces: impl IntoIterator<Item = &'p [u8]>) -> Translated {
    let Some((table, job)) = prepare(order) else {
        return Translated { body: Vec::new(), good: false };
    };
    let cx = Cx { now: Tick(1), wall: UnixMs(0), table: &table };
    // HTTP/1.0, so that the body has no framing of its own.
    let client = Client {
        minor: 0,
        keep_alive: false,
        patience: crate::base::tick::Ms::MAX.into(),
        to_head: false,
    };
    let mut exchange = Exchange::new(job, client, ledger(order), &cx);
    let mut play = Play { out: Vec::new(), good: false };
    let lane = LaneId::A;
    play.settle(&mut exchange, &cx);
    exchange.step(Input::Dialed { lane, reused: false }, &cx);
    play.settle(&mut exchange, &cx);
    let head = format!("HTTP/1.1 {} X\r\n\r\n", order.status);
    exchange.step(Input::Received { lane, rx: &mut Buf::from(head.as_bytes()) }, &cx);
    play.settle(&mut exchange, &cx);
    for piece in pieces {
        exchange.step(Input::Received { lane, rx: &mut Buf::from(piece) }, &cx);
        play.settle(&mut exchange, &cx);
    }
    exchange.step(Input::Ended { lane }, &cx);
    play.settle(&mut exchange, &cx);
    let end = play.out.windows(4).position(|window| window == b"\r\n\r\n");
    let body = play.out.split_off(end.map_or(play.out.len(), |end| end + 4));
    Translated { body, good: play.good }
}

struct Play {
    out: Vec<u8>,
    good: bool,
}

impl Play {
    fn settle(&mut self, exchange: &mut Exchange, cx: &Cx<'_>) {
        while let Some(output) = exchange.poll() {
            match output {
                Output::Write { side } => {
                    let bytes = exchange.take_write(side);
                    if side == Side::Down {
                        self.out.extend_from_slice(bytes.as_slice());
                    }
                    exchange.step(Input::Wrote { side, done: true }, cx);
                }
                Output::Finish { .. } => {
                    let ledger = exchange.take_ledger();
                    self.good = ledger.is_some_and(|ledger| ledger.ending == Ending::Good);
                }
                Output::Dial { .. }
                | Output::Read { .. }
                | Output::Arm { .. }
                | Output::Hangup { .. }
                | Output::Release { .. }
                | Output::Drain { .. } => {}
            }
        }
    }
}

/// One upstream model that every kind can be asked for.
const CONFIG: &str = "
[providers.p]
kind = \"openai\"
base_url = \"http://127.0.0.1:1/v1\"
[models.model]
targets = [\"p/claude\"]
";

fn prepare(order: &Order) -> Option<(Table, Job)> {
    let mut config = config::load(CONFIG, &|_| Err(String::new())).ok()?;
    for (_, provider) in config.providers.iter_mut() {
        provider.kind = order.kind;
    }
    let table = route::compile(&config, None).ok()?;
    let ask = Ask {
        surface: order.surface,
        model: "model".into(),
        stream: order.stream,
        include_usage: true,
        envelope: Envelope { method: "POST", path: "/x".into(), ..Envelope::default() },
        ..Ask::default()
    };
    let wish = Wish { stream: order.stream, ..net::wish_of(&ask, None) };
    let plan = route::pick(&table, &wish, 0, Tick(1)).ok()?;
    // A request that every adapter can write.
    let body = Buf::from(match order.surface.dialect() {
        Dialect::Chat => &br#"{"model":"model","messages":[{"role":"user","content":"?"}]}"#[..],
        Dialect::Messages => {
            br#"{"model":"model","max_tokens":1,"messages":[{"role":"user","content":"?"}]}"#
        }
        Dialect::Responses => br#"{"model":"model","input":"?"}"#,
    });
    Some((table, Job { ask, body, plan }))
}

fn ledger(order: &Order) -> Ledger {
    Ledger {
        id: Arc::from("translated"),
        caller: None,
        surface: order.surface,
        stream: order.stream,
        model: Arc::from("model"),
        wall: UnixMs(0),
        began: Tick(1),
        committed: None,
        ended: Tick(1),
        status: 0,
        ending: Ending::Error,
        attempts: smallvec::SmallVec::new(),
        winner: None,
        events: 0,
        bytes_in: 0,
        bytes_out: 0,
        usage: None,
        cost_nanos: None,
        wasted: 0,
        budget_spent: false,
        opened: false,
    }
}

/// `firstbyte translate`.
///
/// # Errors
/// See [`Stop`]; an error or a bad end of the body is exit code 1, after its bytes were written.
pub fn run(
    from: &str,
    api: Option<&str>,
    to: Dialect,
    stream: bool,
    status: u16,
) -> Result<(), Stop> {
    let api = api.unwrap_or_else(|| usual_api(from));
    let Some((kind, surface)) = known(from, api) else {
        return Err(Stop::failed(format!("the API {api} of {from} is not in this version")));
    };
    let surface = surface_in(surface, to).ok_or_else(|| {
        let to = to.name();
        Stop::failed(format!("the API {api} is no conversation that a client of {to} could have"))
    })?;
    let mut body = Vec::new();
    std::io::stdin()
        .read_to_end(&mut body)
        .map_err(|error| Stop::failed(format!("standard input can't be read: {error}")))?;
    let translated = translate(&Order { kind, surface, stream, status }, [body.as_slice()]);
    say::bytes(&translated.body);
    if translated.good { Ok(()) } else { Err(Stop::failed("the answer is an error or ends badly")) }
}
