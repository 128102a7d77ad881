//! A stage for an exchange: a table of one model, a request, and a provider that says given bytes. What
//! the client gets is read back by its own, naive reader.

use std::cell::RefCell;
use std::collections::BTreeMap;

use firstbyte::base::buf::Buf;
use firstbyte::base::tick::{Ms, Tick, UnixMs};
use firstbyte::config::{self, Config};
use firstbyte::exchange::answer::Client;
use firstbyte::exchange::ledger::{Ending, Ledger};
use firstbyte::exchange::phase::LaneId;
use firstbyte::exchange::{Cx, Exchange, Input, Job, Output, Side};
use firstbyte::llm::providers::Kind;
use firstbyte::llm::request::{Ask, Envelope, Surface};
use firstbyte::net::wish_of;
use firstbyte::route::{self, Table};

/// What is asked of whom.
pub struct Stage {
    /// The provider's kind.
    pub kind: Kind,
    /// The commit policy.
    pub commit: &'static str,
    /// Where the request came to.
    pub surface: Surface,
    /// A stream is asked for.
    pub stream: bool,
    /// Counts at its end are asked for.
    pub usage: bool,
}

/// A model `m` at one provider of `kind`, which calls it `claude`: a name that every kind takes.
fn table(kind: Kind, commit: &str) -> Table {
    let text = format!(
        "[defaults]\ncommit = \"{commit}\"\n[providers.p]\nkind = \"openai\"\n\
         base_url = \"http://127.0.0.1:1/v1\"\n[models.m]\ntargets = [\"p/claude\"]\n"
    );
    thread_local! {
        static READ: RefCell<BTreeMap<String, Config>> = RefCell::default();
    }
    // Reading it takes longer than most inputs do.
    let mut config = READ.with_borrow_mut(|read| {
        let load = || config::load(&text, &|_| Err(String::new())).unwrap();
        read.entry(text.clone()).or_insert_with(load).clone()
    });
    for (_, provider) in config.providers.iter_mut() {
        provider.kind = kind;
    }
    route::compile(&config, None).unwrap()
}

/// A request that every adapter can write.
fn job(table: &Table, surface: Surface, stream: bool, usage: bool) -> Job {
    let rest = match surface {
        Surface::Messages => {
            "\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]"
        }
        Surface::Responses | Surface::Embeddings => "\"input\":\"?\"",
        Surface::Completions => "\"prompt\":\"?\"",
        _ => "\"messages\":[{\"role\":\"user\",\"content\":\"?\"}]",
    };
    let body = format!(
        "{{\"model\":\"m\",\"stream\":{stream},\"stream_options\":{{\"include_usage\":{usage}}},{rest}}}"
    );
    let mut ask = Ask::read(surface, body.as_bytes()).unwrap();
    let path = if surface == Surface::Other { "/rerank" } else { "/chat/completions" };
    ask.envelope = Envelope { method: "POST", path: path.into(), ..Envelope::default() };
    let plan = route::pick(table, &wish_of(&ask, None), 0, Tick(1)).unwrap();
    Job { ask, body: Buf::from(body.as_bytes()), plan }
}

/// A ledger that has just begun.
pub fn ledger(surface: Surface, stream: bool) -> Ledger {
    Ledger {
        id: "r".into(),
        caller: None,
        surface,
        stream,
        model: "m".into(),
        wall: UnixMs(0),
        began: Tick(1),
        committed: None,
        ended: Tick(1),
        status: 0,
        ending: Ending::Error,
        attempts: Default::default(),
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

/// What a client got, and how it ended.
pub struct Played {
    /// Every byte.
    pub raw: Vec<u8>,
    /// The ledger's word for the end; `None`: the exchange never ended.
    pub ending: Option<Ending>,
    /// Whether the connection carries another request.
    pub keep: bool,
}

/// Plays `bytes`, cut at `cuts`, to an exchange, and then the end of the connection.
pub fn play(stage: &Stage, minor: u8, bytes: &[u8], cuts: &[usize]) -> Played {
    // What an attempt comes to is kept in the table's breakers: each play has its own.
    let table = &table(stage.kind, stage.commit);
    let job = job(table, stage.surface, stage.stream, stage.usage);
    let cx = Cx { now: Tick(1), wall: UnixMs(0), table };
    let client =
        Client { minor, keep_alive: minor == 1, patience: Ms(1000).into(), to_head: false };
    let ledger = ledger(job.ask.surface, job.ask.stream);
    let mut exchange = Exchange::new(job, client, ledger, &cx);
    let mut played = Played { raw: Vec::new(), ending: None, keep: false };
    let lane = LaneId::A;
    played.settle(&mut exchange, &cx);
    exchange.step(Input::Dialed { lane, reused: false }, &cx);
    played.settle(&mut exchange, &cx);
    let mut from = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        if cut > from {
            let mut rx = Buf::from(&bytes[from..cut]);
            exchange.step(Input::Received { lane, rx: &mut rx }, &cx);
            assert!(rx.is_empty(), "received bytes are taken");
            played.settle(&mut exchange, &cx);
        }
        from = cut;
    }
    exchange.step(Input::Ended { lane }, &cx);
    played.settle(&mut exchange, &cx);
    assert!(played.ending.is_some(), "the end of the only attempt ends the exchange");
    played
}

impl Played {
    fn settle(&mut self, exchange: &mut Exchange, cx: &Cx<'_>) {
        while let Some(output) = exchange.poll() {
            match output {
                Output::Write { side } => {
                    let bytes = exchange.take_write(side);
                    if side == Side::Down {
                        assert!(self.ending.is_none(), "a write after the end");
                        self.raw.extend_from_slice(bytes.as_slice());
                    }
                    exchange.step(Input::Wrote { side, done: true }, cx);
                }
                Output::Finish { keep } => {
                    assert!(self.ending.is_none(), "one end");
                    self.ending = exchange.take_ledger().map(|ledger| ledger.ending);
                    self.keep = keep;
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

    /// Whether the ledger says that the answer is whole.
    pub fn good(&self) -> bool {
        self.ending == Some(Ending::Good)
    }

    /// The response, once its framing was undone. Panics where a client could misread it.
    pub fn response(&self) -> Response {
        read(&self.raw, self.keep)
    }
}

/// A response as a naive client reads it.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The fields, names in the case that they came in.
    pub fields: Vec<(String, String)>,
    /// The payload.
    pub body: Vec<u8>,
    /// Its framing told its end, or is the end of the connection.
    pub whole: bool,
}

impl Response {
    /// The one field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} stands twice");
        Some(value)
    }
}

/// What the gateway may say in a head. Nothing of a provider's head but the type of what is passed on.
const FIELDS: &[&str] = &[
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "cache-control",
    "x-accel-buffering",
    "retry-after",
    "allow",
    "date",
    "x-request-id",
    "x-should-retry",
    "request-id",
    "x-firstbyte-provider",
    "x-firstbyte-model",
    "x-firstbyte-attempts",
];

/// Reads a response. Panics where a client could misread it.
pub fn read(raw: &[u8], keep: bool) -> Response {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    // A media type that is passed on may hold any octet above ASCII (RFC 9110 section 5.5).
    let head: String = raw[..end].iter().map(|byte| char::from(*byte)).collect();
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap();
    let status = start.strip_prefix("HTTP/1.1 ").expect("a status line")[..3].parse().unwrap();
    let mut fields = Vec::new();
    for line in lines {
        assert!(line.chars().all(|c| c == '\t' || (c >= ' ' && c != '\u{7f}')), "{line:?}");
        let (name, value) = line.split_once(": ").expect("a field");
        assert!(FIELDS.contains(&name.to_ascii_lowercase().as_str()), "{line}");
        fields.push((name.to_owned(), value.to_owned()));
    }
    let mut response = Response { status, fields, body: Vec::new(), whole: true };
    let rest = &raw[end + 4..];
    let length = response.field("content-length").map(|digits| digits.parse::<usize>().unwrap());
    let chunked = response.field("transfer-encoding").map(|coding| assert_eq!(coding, "chunked"));
    assert!(length.is_none() || chunked.is_none(), "two framings");
    if let Some(length) = length {
        response.whole = rest.len() >= length;
        assert!(rest.len() <= length, "octets behind the end");
        response.body = rest.to_vec();
    } else if chunked.is_some() {
        (response.body, response.whole) = unchunked(rest);
    } else if status == 204 {
        assert!(rest.is_empty());
    } else {
        assert!(!keep, "the end of the connection is the end of the answer");
        response.body = rest.to_vec();
    }
    assert!(response.whole || !keep, "an unfinished answer on a connection that goes on");
    response
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else {
            assert!(rest.is_empty(), "a torn chunk size");
            return (body, false);
        };
        let digits = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(digits, 16).expect("a chunk size");
        assert_eq!(&rest[line + 2 + size..line + 4 + size], b"\r\n");
        if size == 0 {
            assert_eq!(rest.len(), line + 4, "octets behind the end");
            return (body, true);
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}
