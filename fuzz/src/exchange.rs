//! The exchange against up to three providers that do what the input says, in the order that it says:
//! dials, reads, writes and time interleave freely, the client may leave and the process may end.
//!
//! The oracle is a tag in everything that a provider says: what the client reads must be the sayings of
//! one dial, in order, each once, and its end must be the one that this dial came to.

use std::collections::VecDeque;

use firstbyte::base::buf::Buf;
use firstbyte::base::fail::Fault;
use firstbyte::base::tick::{Ms, Tick, UnixMs};
use firstbyte::config;
use firstbyte::exchange::answer::Client;
use firstbyte::exchange::ledger::Ending;
use firstbyte::exchange::phase::LaneId;
use firstbyte::exchange::{Cx, Exchange, Input, Job, Output, Side};
use firstbyte::llm::request::{Ask, Envelope, Surface};
use firstbyte::net::wish_of;
use firstbyte::route::{self, Table};

use crate::{dialect, stage};

/// Checks one input.
pub fn check(data: &[u8]) {
    let mut input = Bytes(data);
    let mut world = World::new(&mut input);
    world.run(&mut input);
}

/// The input, a byte at a time; zeros follow it.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// A piece of what a provider says.
#[derive(Clone, PartialEq, Debug)]
enum Part {
    Head,
    ChunkedHead,
    LengthHead,
    Status(u16),
    Interim,
    Role,
    Content,
    Ping,
    Usage,
    Finish,
    Done,
    Error,
    Malformed,
    Whole,
    Garbage(u8),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Fin,
    Reset,
    Hang,
}

#[derive(Clone, Debug)]
struct Script {
    /// `None`: the dial is refused; `Some(false)`: it never ends.
    dial: Option<bool>,
    parts: Vec<Part>,
    end: End,
    pooled: bool,
}

impl Script {
    fn read(input: &mut Bytes<'_>) -> Script {
        let first = input.next();
        let end = [End::Fin, End::Reset, End::Hang][usize::from(first % 3)];
        let dial = match first >> 5 {
            6 => Some(false),
            7 => None,
            _ => Some(true),
        };
        let mut parts = Vec::new();
        // A usual beginning unless another one is asked for.
        match first >> 3 & 3 {
            0 => parts.push(Part::Head),
            1 => parts.push(Part::ChunkedHead),
            _ => {}
        }
        while parts.len() < 24 {
            let byte = input.next();
            parts.push(match byte % 20 {
                0 => break,
                1..=6 => Part::Content,
                7 => Part::Role,
                8 => Part::Ping,
                9 => Part::Usage,
                10 | 11 => Part::Finish,
                12 | 13 => Part::Done,
                14 => Part::Error,
                15 => Part::Malformed,
                16 => Part::Status([500, 429, 401, 400, 200, 204, 301][usize::from(byte / 20) % 7]),
                17 => [Part::Head, Part::ChunkedHead, Part::LengthHead, Part::Interim]
                    [usize::from(byte / 20) % 4]
                    .clone(),
                18 => Part::Whole,
                _ => Part::Garbage(byte),
            });
        }
        Script { dial, parts, end, pooled: first & 4 != 0 }
    }

    /// What is on the wire, for the dial `tag`.
    fn bytes(&self, tag: usize) -> Vec<u8> {
        const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
        let (mut out, mut chunked, mut said) = (Vec::new(), false, 0);
        let event = |inner: &str| {
            format!(
                "data: {{\"id\":\"d{tag}\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"up\",\"choices\":[{inner}]}}\n\n"
            )
        };
        for part in &self.parts {
            let text = match part {
                Part::Head => format!("{SSE}\r\n"),
                Part::ChunkedHead => format!("{SSE}transfer-encoding: chunked\r\n\r\n"),
                Part::LengthHead => String::from("HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n"),
                Part::Status(status) => format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: 27\r\n\r\n{{\"error\":{{\"message\":\"no!!\"}}}}"
                ),
                Part::Interim => String::from("HTTP/1.1 100 Continue\r\n\r\n"),
                Part::Role => event("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}"),
                Part::Content => {
                    said += 1;
                    event(&format!(
                        "{{\"index\":0,\"delta\":{{\"content\":\"d{tag}-{}\"}},\"finish_reason\":null}}",
                        said - 1
                    ))
                }
                Part::Ping => String::from(": ping\n\n"),
                Part::Usage => event("").replace("}\n", ",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n"),
                Part::Finish => event("{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}"),
                Part::Done => String::from("data: [DONE]\n\n"),
                Part::Error => String::from("data: {\"error\":{\"message\":\"boom\"}}\n\n"),
                Part::Malformed => String::from("data: {\"choices\":[}\n\n"),
                Part::Whole => format!(
                    "{{\"id\":\"d{tag}\",\"object\":\"chat.completion\",\"model\":\"up\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"d{tag}-0\"}},\"finish_reason\":\"stop\"}}]}}"
                ),
                Part::Garbage(byte) => String::from_utf8_lossy(&[*byte, b'\n']).into_owned(),
            };
            let is_head = text.starts_with("HTTP/");
            if chunked && !is_head {
                out.extend(format!("{:x}\r\n{text}\r\n", text.len()).bytes());
                if *part == Part::Done {
                    out.extend(b"0\r\n\r\n");
                }
            } else {
                out.extend(text.bytes());
            }
            chunked |= *part == Part::ChunkedHead;
        }
        out
    }

    /// Whether events are all that it says behind its head: what has no line end of its own swallows
    /// what follows it.
    fn is_plain(&self) -> bool {
        let headed = matches!(self.parts.first(), Some(Part::Head | Part::ChunkedHead));
        let event = |part: &Part| {
            !matches!(
                part,
                Part::Head
                    | Part::ChunkedHead
                    | Part::LengthHead
                    | Part::Status(_)
                    | Part::Interim
                    | Part::Whole
                    | Part::Garbage(_)
            )
        };
        headed && self.parts[1..].iter().all(event)
    }

    /// The sayings that a good end must have, and those that it may have: up to the finish of the choice,
    /// after which nothing of substance is owed, and up to what ends the answer or spoils it. `None`: no
    /// end of it is good.
    fn oracle(&self) -> Option<(usize, usize)> {
        let (mut said, mut finished) = (0, None);
        for part in &self.parts {
            match part {
                Part::Content => said += 1,
                Part::Finish => finished = finished.or(Some(said)),
                Part::Done => return Some((finished.unwrap_or(said), said)),
                Part::Error | Part::Malformed => break,
                _ => {}
            }
        }
        finished.map(|least| (least, said))
    }
}

/// A lane's connection.
struct Socket {
    provider: usize,
    connected: bool,
    reused: bool,
    pending: VecDeque<u8>,
    reading: bool,
    writing: bool,
}

struct World {
    table: Table,
    scripts: Vec<Script>,
    stream: bool,
    now: Tick,
    sockets: [Option<Socket>; 2],
    /// The provider of each dial.
    dials: Vec<usize>,
    raw: Vec<u8>,
    taking: bool,
    armed: Tick,
    interrupted: bool,
}

impl World {
    fn new(input: &mut Bytes<'_>) -> World {
        let (first, second) = (input.next(), input.next());
        let count = 1 + usize::from(first % 3);
        let commit =
            ["first_content", "complete", "headers", "first_event", "tokens=2,within=50ms"]
                [usize::from(first / 3) % 5];
        let open = ["off", "20ms"][usize::from(second & 1)];
        let hedge = ["off", "10ms"][usize::from(second >> 1 & 1)];
        let replay = second & 4 != 0;
        let hold = ["64KiB", "1KiB"][usize::from(second >> 3 & 1)];
        let floor = [0, 50][usize::from(second >> 4 & 1)];
        let mut text = format!(
            "[defaults]\ncommit = \"{commit}\"\nopen_after = \"{open}\"\nhedge_after = \"{hedge}\"\n\
             replay = {replay}\nhold_max = \"{hold}\"\nthroughput_floor = {floor}\n\
             connect_timeout = \"100ms\"\nhead_timeout = \"200ms\"\nfirst_content_timeout = \"300ms\"\n\
             idle_timeout = \"150ms\"\nanswer_timeout = \"400ms\"\nfirst_content_deadline = \"900ms\"\n\
             total_timeout = \"2s\"\n"
        );
        for i in 0..count {
            text += &format!(
                "[providers.p{i}]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n",
                9000 + i
            );
        }
        let targets: Vec<_> = (0..count).map(|i| format!("\"p{i}/up\"")).collect();
        text += &format!("[models.m]\ntargets = [{}]\n", targets.join(", "));
        let config = config::load(&text, &|_| Err(String::new())).unwrap();
        World {
            table: route::compile(&config, None).unwrap(),
            scripts: (0..count).map(|_| Script::read(input)).collect(),
            stream: second & 32 == 0,
            now: Tick(1_000_000),
            sockets: [None, None],
            dials: Vec::new(),
            raw: Vec::new(),
            taking: false,
            armed: Tick::NEVER,
            interrupted: false,
        }
    }

    fn run(&mut self, input: &mut Bytes<'_>) {
        let body = format!("{{\"model\":\"m\",\"messages\":[],\"stream\":{}}}", self.stream);
        let mut ask = Ask::read(Surface::Chat, body.as_bytes()).unwrap();
        let path = String::from("/chat/completions");
        ask.envelope = Envelope { method: "POST", path: path.into(), ..Envelope::default() };
        let plan = route::pick(&self.table, &wish_of(&ask, None), 0, self.now).unwrap();
        let planned = plan.attempts.len();
        let client =
            Client { minor: 1, keep_alive: true, patience: Ms(500).into(), to_head: false };
        let job = Job { ask, body: Buf::from(body.as_bytes()), plan };
        let mut ledger = stage::ledger(Surface::Chat, self.stream);
        ledger.began = self.now;
        let mut exchange = Exchange::new(job, client, ledger, &self.cx());
        for turn in 0.. {
            assert!(turn < 20_000, "the exchange does not come to an end");
            if let Some(keep) = self.outputs(&mut exchange) {
                return self.judge(&mut exchange, keep, planned);
            }
            self.act(&mut exchange, input);
        }
    }

    fn cx(&self) -> Cx<'_> {
        Cx { now: self.now, wall: UnixMs(0), table: &self.table }
    }

    /// Does what the exchange asks for; says how it ended.
    fn outputs(&mut self, exchange: &mut Exchange) -> Option<bool> {
        while let Some(output) = exchange.poll() {
            match output {
                Output::Dial { lane, endpoint, fresh, .. } => {
                    assert!(!exchange.is_committed(), "a dial after the commit");
                    assert!(self.sockets[lane.index()].is_none(), "two dials in a lane");
                    let provider = usize::from(self.table.endpoints[endpoint].port - 9000);
                    let dial = self.dials.len();
                    self.dials.push(provider);
                    let script = &self.scripts[provider];
                    let reused = script.pooled && !fresh;
                    // A connection of the pool is dead, and says so when it is used.
                    let pending = if reused { VecDeque::new() } else { script.bytes(dial).into() };
                    self.sockets[lane.index()] = Some(Socket {
                        provider,
                        connected: false,
                        reused,
                        pending,
                        reading: false,
                        writing: false,
                    });
                }
                Output::Read { lane } => {
                    let socket = self.sockets[lane.index()].as_mut().expect("a read of nothing");
                    assert!(!std::mem::replace(&mut socket.reading, true), "two reads");
                }
                Output::Write { side: Side::Up(lane) } => {
                    let bytes = exchange.take_write(Side::Up(lane));
                    let text = String::from_utf8_lossy(bytes.as_slice()).into_owned();
                    assert!(text.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{text}");
                    assert!(text.contains("\"model\":\"up\""), "{text}");
                    let socket = self.sockets[lane.index()].as_mut().expect("a write to nothing");
                    assert!(!std::mem::replace(&mut socket.writing, true));
                }
                Output::Write { side: Side::Down } => {
                    assert!(!std::mem::replace(&mut self.taking, true), "two writes");
                    let bytes = exchange.take_write(Side::Down);
                    self.raw.extend_from_slice(bytes.as_slice());
                }
                Output::Arm { at } => self.armed = at,
                Output::Hangup { lane } | Output::Release { lane } => {
                    self.sockets[lane.index()] = None;
                }
                Output::Drain { lane } => {
                    assert!(exchange.take_rest().is_some());
                    self.sockets[lane.index()] = None;
                }
                Output::Finish { keep } => {
                    assert!(exchange.poll().is_none(), "nothing follows the end");
                    assert!(self.sockets.iter().all(Option::is_none), "a connection is left");
                    return Some(keep);
                }
            }
        }
        None
    }

    /// One thing happens.
    fn act(&mut self, exchange: &mut Exchange, input: &mut Bytes<'_>) {
        let over = input.is_over();
        let byte = input.next();
        let lane = LaneId::ALL[usize::from(byte & 1)];
        match byte >> 1 & 15 {
            13 if byte > 240 => {
                self.interrupted = true;
                self.taking = false;
                exchange.step(Input::Gone, &self.cx());
            }
            14 if byte > 240 => {
                self.interrupted = true;
                exchange.step(Input::Shutdown, &self.cx());
            }
            10..=12 => self.wait(exchange, u64::from(byte >> 5) * 20_000),
            8 | 9 if self.taking => {
                self.taking = false;
                exchange.step(Input::Wrote { side: Side::Down, done: byte & 32 == 0 }, &self.cx());
                self.taking = byte & 32 != 0;
            }
            _ => {
                let most = if over { usize::MAX } else { 1 << (byte >> 5) };
                if !self.serve(lane, most, exchange) && !self.serve(lane.other(), most, exchange) {
                    self.idle(exchange);
                }
            }
        }
    }

    /// Nothing is ready but the client, or time.
    fn idle(&mut self, exchange: &mut Exchange) {
        if std::mem::take(&mut self.taking) {
            return exchange.step(Input::Wrote { side: Side::Down, done: true }, &self.cx());
        }
        assert_ne!(self.armed, Tick::NEVER, "nothing can ever happen again");
        let left = self.armed.0.saturating_sub(self.now.0);
        self.wait(exchange, left.max(1));
    }

    fn wait(&mut self, exchange: &mut Exchange, micros: u64) {
        self.now.0 += micros;
        if self.armed <= self.now {
            self.armed = Tick::NEVER;
            exchange.step(Input::Alarm, &self.cx());
        }
    }

    /// Lets a lane go on by one step, if it can.
    fn serve(&mut self, lane: LaneId, most: usize, exchange: &mut Exchange) -> bool {
        let cx = Cx { now: self.now, wall: UnixMs(0), table: &self.table };
        let Some(socket) = &mut self.sockets[lane.index()] else { return false };
        let script = &self.scripts[socket.provider];
        if !socket.connected {
            match script.dial {
                Some(true) => {
                    socket.connected = true;
                    let reused = socket.reused;
                    exchange.step(Input::Dialed { lane, reused }, &cx);
                }
                Some(false) => return false,
                None => {
                    self.sockets[lane.index()] = None;
                    let fault = Fault::Refused;
                    exchange.step(Input::Broke { lane, fault, write: false }, &cx);
                }
            }
            return true;
        }
        if std::mem::take(&mut socket.writing) {
            exchange.step(Input::Wrote { side: Side::Up(lane), done: true }, &cx);
            return true;
        }
        if !socket.reading {
            return false;
        }
        let count = socket.pending.len().min(most);
        if count > 0 {
            socket.reading = false;
            let mut rx = Buf::from_vec(socket.pending.drain(..count).collect());
            exchange.step(Input::Received { lane, rx: &mut rx }, &cx);
            assert!(rx.is_empty(), "received bytes are taken");
            return true;
        }
        let end = if socket.reused { End::Reset } else { script.end };
        match end {
            End::Hang => return false,
            End::Fin => {
                socket.reading = false;
                exchange.step(Input::Ended { lane }, &cx);
            }
            End::Reset => {
                socket.reading = false;
                let fault = Fault::Reset;
                exchange.step(Input::Broke { lane, fault, write: false }, &cx);
            }
        }
        true
    }

    fn judge(&mut self, exchange: &mut Exchange, keep: bool, planned: usize) {
        let ledger = exchange.take_ledger().expect("a ledger");
        assert!(exchange.take_ledger().is_none(), "one ledger");
        assert!(ledger.attempts.len() <= planned, "{ledger:?}");
        let mut order = Vec::new();
        for dial in &self.dials {
            // A second dial of the same provider replaces a dead connection, also beside a race.
            let count = self.dials.iter().filter(|other| *other == dial).count();
            assert!(count == 1 || count == 2 && self.scripts[*dial].pooled, "{:?}", self.dials);
            if !order.contains(dial) {
                order.push(*dial);
            }
        }
        assert!(order.is_sorted(), "the plan's order: {:?}", self.dials);
        // A client that went away, or that was left because it read too slowly, may have anything.
        let left = matches!(ledger.ending, Ending::Gone | Ending::Slow);
        if left || self.raw.is_empty() {
            assert!(left || !keep, "{ledger:?}");
            return;
        }
        let response = stage::read(&self.raw, keep);
        if !response.whole {
            // Only a client that does not take bytes is left with half an answer.
            assert!(!keep);
            return;
        }
        let text = std::str::from_utf8(&response.body).unwrap();
        assert_eq!(response.status, ledger.status);
        if response.field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
        {
            match ledger.ending {
                Ending::Good => dialect::good_stream(Surface::Chat, false, &response.body),
                _ => dialect::bad_stream(Surface::Chat, &response.body),
            }
        } else if ledger.ending == Ending::Good {
            dialect::good_whole(Surface::Chat, false, &response.body);
        } else {
            dialect::error_body(Surface::Chat, &response.body);
        }
        let said = sayings(text);
        let Some((dial, _)) = said.first().copied() else {
            return assert!(ledger.ending != Ending::Good || self.may_be_silent(), "{ledger:?}");
        };
        let script = &self.scripts[self.dials[dial]];
        assert!(said.iter().all(|(of, _)| *of == dial), "two attempts: {text}");
        assert!(said.is_sorted_by(|a, b| a.1 < b.1), "in order, each once: {text}");
        let plain = script.is_plain();
        assert!(!plain || said.iter().map(|(_, index)| *index).eq(0..said.len()), "{text}");
        let winner = usize::from(ledger.winner.expect("somebody won"));
        let name = format!("p{}/up", self.dials[dial]);
        assert_eq!(*ledger.attempts[winner].name, *name);
        if self.stream && plain {
            match (ledger.ending, script.oracle()) {
                (Ending::Good, None) => panic!("a good end of {script:?}"),
                (Ending::Good, Some((least, most))) => {
                    assert!((least..=most).contains(&said.len()), "{script:?}: {text}");
                }
                _ => {}
            }
        }
        if self.interrupted && ledger.ending != Ending::Good {
            assert!(!text.contains("[DONE]"));
        }
    }

    /// Whether some provider comes to a good end without a word.
    fn may_be_silent(&self) -> bool {
        self.scripts.iter().any(|script| !script.parts.contains(&Part::Content))
            || self.scripts.iter().any(|script| {
                script.oracle().is_some_and(|(least, _)| least == 0) || !script.is_plain()
            })
    }
}

/// The tags in what the client reads: of which dial, and which of its sayings.
fn sayings(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for part in text.split("\"content\":\"d").skip(1) {
        let tag = part.split('"').next().unwrap();
        let (dial, index) = tag.split_once('-').unwrap();
        found.push((dial.parse().unwrap(), index.parse().unwrap()));
    }
    found
}
