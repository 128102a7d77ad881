//! The sweep: the real shell (accept, connections, exchange, pool) in a simulated world, with
//! providers and clients that misbehave as the seed says. What must hold stands in `Verdict`.
//!
//! `SIM_SEEDS=10000 cargo test --release --test sim` runs more seeds, `SIM_FROM=5000` not all of them from
//! the first, `SIM_SEED=42` one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use firstbyte::base::buf::Buf;
use firstbyte::base::ids::CoreId;
use firstbyte::base::rng::Rng;
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::config;
use firstbyte::exchange::ledger::{Ending, Ledger, Outcome};
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, Shared, Snapshot};
use firstbyte::net::load::Shed;
use firstbyte::net::names::Names;
use firstbyte::net::watch::Watch;
use firstbyte::route;
use firstbyte::rt::sim::{Faults, SimReader, SimRt, SimStop, SimWriter, World};
use firstbyte::rt::{Accept as _, Reader as _, Rt, Stop as _, Writer as _, until};
use firstbyte::wire::http1::{body::Body, head};

#[path = "sim/dense.rs"]
mod dense;
#[path = "sim/drain.rs"]
mod drain;
#[path = "sim/patience.rs"]
mod patience;
#[path = "sim/reload.rs"]
mod reload;
#[path = "sim/storm.rs"]
mod storm;

use self::reload::{Asked, History, Visit, Visits};

#[test]
fn sweep() {
    if let Some(seed) = number("SIM_SEED") {
        run_seed(seed);
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(256);
    let mut seen = Seen::default();
    // The seeds of a sweep that is long can be spread over several.
    let from = number("SIM_FROM").unwrap_or(0);
    for seed in from..seeds {
        let first = run_seed(seed);
        if seed % 16 == 0 {
            let again = run_seed(seed);
            assert_eq!(first.trace, again.trace, "seed {seed} is not deterministic");
        }
        seen.add(&first);
        if seeds > 1000 && seed % 1000 == 999 {
            println!("{} seeds, {seen:?}", seed + 1);
        }
    }
    println!("{seeds} seeds, {seen:?}");
    // A sweep that never fails over, cuts or loses a client proves nothing.
    assert!(seen.good > 0 && seen.fell_over > 0 && seen.cut > 0, "{seen:?}");
    assert!(seen.error > 0 && seen.gone > 0, "{seen:?}");
    // A pooled connection is asked once more before it is used, so that few turn out dead.
    assert!(seeds < 5_000 || seen.replayed > 0, "{seen:?}");
    for why in [Shed::Connections, Shed::Client, Shed::InFlight, Shed::Memory] {
        assert!(seen.shed[why as usize] > 0, "{}: {seen:?}", why.name());
    }
    assert!(seen.too_slow > 0, "{seen:?}");
    // Configs changed under exchanges, some of which went on to targets of the old one.
    assert!(seen.straddled > 0 && seen.old_ways > 0 && seen.refused > 0, "{seen:?}");
    assert!(seen.unsteady > 0, "{seen:?}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What the exchanges of a sweep came to.
#[derive(Default, Debug)]
struct Seen {
    good: u64,
    fell_over: u64,
    cut: u64,
    error: u64,
    gone: u64,
    replayed: u64,
    hedged: u64,
    /// By reason.
    shed: [u64; Shed::ALL.len()],
    too_slow: i64,
    /// Configs published while a world ran.
    reloads: u64,
    /// Exchanges during which a config was published.
    straddled: u64,
    /// Attempts of an exchange that began after a newer config was published.
    old_ways: u64,
    /// Callers that the config of their time did not know.
    refused: u64,
    /// Worlds whose clock jumped or stood.
    unsteady: u64,
}

impl Seen {
    fn add(&mut self, run: &Run) {
        self.too_slow += run.too_slow;
        self.reloads += run.mixed.reloads;
        self.straddled += run.mixed.straddled;
        self.old_ways += run.mixed.old_ways;
        self.refused += run.mixed.refused;
        self.unsteady += u64::from(run.unsteady);
        for why in &run.shed {
            self.shed[*why as usize] += 1;
        }
        for ledger in &run.ledgers {
            let good = ledger.ending == Ending::Good;
            self.good += u64::from(good);
            self.fell_over += u64::from(good && ledger.winner > Some(0));
            self.cut += u64::from(matches!(ledger.ending, Ending::Cut(_)));
            self.error += u64::from(ledger.ending == Ending::Error);
            self.gone += u64::from(ledger.ending == Ending::Gone);
            self.replayed += u64::from(ledger.attempts.iter().any(|a| a.replayed));
            self.hedged += u64::from(ledger.attempts.iter().any(|a| a.hedge));
        }
    }
}

struct Run {
    trace: u64,
    ledgers: Vec<Ledger>,
    shed: Vec<Shed>,
    too_slow: i64,
    mixed: reload::Mixed,
    unsteady: bool,
}

/// Collects what the shell tells.
#[derive(Default)]
struct Notes {
    open: AtomicI64,
    running: AtomicI64,
    ledgers: Mutex<Vec<Ledger>>,
    shed: Mutex<Vec<Shed>>,
    too_slow: AtomicI64,
}

impl Watch for Notes {
    fn connected(&self, _core: CoreId) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }
    fn disconnected(&self, _core: CoreId) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
    fn began(&self, _core: CoreId) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }
    fn ended(&self, _core: CoreId, ledger: Ledger) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.ledgers.lock().unwrap().push(ledger);
    }
    fn dialed(&self, _core: CoreId, _fresh: bool) {}
    fn shed(&self, _core: CoreId, why: Shed) {
        self.shed.lock().unwrap().push(why);
    }
    fn too_slow(&self, _core: CoreId) {
        self.too_slow.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a provider does with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Good,
    NoDone,
    Status(u16),
    ErrorAt(u32),
    /// An event that is an error by its name alone, and then a good end.
    NamedErrorAt(u32),
    MalformedAt(u32),
    Empty,
    CutAt {
        byte: u32,
        reset: bool,
    },
    HangAt {
        byte: u32,
    },
    CloseAfter,
}

fn draw(rng: &mut Rng) -> Act {
    let byte = rng.below(900);
    match rng.below(16) {
        0..=5 => Act::Good,
        6 => Act::NoDone,
        7 => Act::Status([503, 429, 500, 400, 401, 529][rng.below(6) as usize]),
        8 if rng.one_in(2) => Act::ErrorAt(rng.below(4)),
        8 => Act::NamedErrorAt(rng.below(4)),
        9 => Act::MalformedAt(rng.below(4)),
        10 => Act::Empty,
        11 | 12 => Act::CutAt { byte, reset: rng.one_in(2) },
        13 | 14 => Act::HangAt { byte },
        _ => Act::CloseAfter,
    }
}

fn event(tag: &str, delta: &str) -> String {
    format!("data: {{\"id\":\"{tag}\",\"model\":\"up\",\"choices\":[{{\"index\":0,{delta}}}]}}\n\n")
}

/// The events that an answer consists of, in order, the terminator apart.
fn events(tag: &str) -> Vec<String> {
    let mut all = vec![event(tag, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}")];
    for i in 0..4 {
        all.push(event(tag, &format!("\"delta\":{{\"content\":\"{tag}-{i} \u{fc}\"}}")));
    }
    all.push(event(tag, "\"delta\":{},\"finish_reason\":\"stop\""));
    all
}

fn whole(tag: &str) -> String {
    format!(
        "{{\"id\":\"{tag}\",\"model\":\"up\",\"choices\":[{{\"index\":0,\"message\":{{\"content\":\"{tag}\"}}}}]}}"
    )
}

/// The bytes of one response and how they end: `None` for keep-alive, else whether by reset; `hang`
/// for never.
struct Response {
    bytes: Vec<u8>,
    close: Option<bool>,
    hang: bool,
}

fn respond(act: Act, tag: &str, stream: bool, rng: &mut Rng) -> Response {
    let mut good = Response { bytes: Vec::new(), close: None, hang: false };
    if let Act::Status(code) = act {
        let body = format!("{{\"error\":{{\"message\":\"no {tag}\"}}}}");
        let wait = if code == 429 { "retry-after: 2\r\n" } else { "" };
        good.bytes =
            format!("HTTP/1.1 {code} X\r\n{wait}content-length: {}\r\n\r\n{body}", body.len())
                .into();
        return good;
    }
    if stream {
        let mut parts = events(tag);
        match act {
            Act::ErrorAt(at) => {
                parts.truncate(at as usize);
                parts.push("data: {\"error\":{\"message\":\"broken\"}}\n\n".into());
            }
            Act::NamedErrorAt(at) => {
                parts.truncate(at as usize);
                parts.push("event: error\ndata: {\"detail\":\"broken\"}\n\n".into());
            }
            Act::MalformedAt(at) => {
                parts.truncate(at as usize);
                parts.push("data: {\"choices\":[}\n\n".into());
            }
            Act::Empty => parts.clear(),
            _ => {}
        }
        if act != Act::NoDone {
            parts.push("data: [DONE]\n\n".into());
        }
        good.bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let body = parts.concat().into_bytes();
        let mut rest = &body[..];
        while !rest.is_empty() {
            let take = (1 + rng.below(200) as usize).min(rest.len());
            good.bytes.extend(format!("{take:x}\r\n").bytes());
            good.bytes.extend(&rest[..take]);
            good.bytes.extend(b"\r\n");
            rest = &rest[take..];
        }
        good.bytes.extend(b"0\r\n\r\n");
    } else {
        let body = match act {
            Act::NamedErrorAt(_) => String::from("{\"choices\":[]}"),
            Act::ErrorAt(_) => String::from("{\"error\":{\"message\":\"broken\"}}"),
            Act::MalformedAt(_) => String::from("{\"choices\":"),
            Act::Empty => String::new(),
            _ => whole(tag),
        };
        good.bytes = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into();
    }
    match act {
        Act::CutAt { byte, reset } if (byte as usize) < good.bytes.len() => {
            good.bytes.truncate(byte as usize);
            good.close = Some(reset);
        }
        Act::HangAt { byte } if (byte as usize) < good.bytes.len() => {
            good.bytes.truncate(byte as usize);
            good.hang = true;
        }
        Act::CloseAfter => good.close = Some(false),
        _ => {}
    }
    good
}

/// Reads one message; gives head and body, or `None` if the peer is gone.
async fn receive(reader: &mut SimReader, rx: &mut Buf) -> Option<(String, Vec<u8>)> {
    let stop = SimStop::new();
    let parsed = loop {
        if let Some(parsed) = head::parse_request(rx.as_slice(), 65_536).expect("a good request") {
            break parsed;
        }
        more(reader, rx, &stop).await?;
    };
    let text = String::from_utf8_lossy(&rx.as_slice()[..parsed.len]).into_owned();
    rx.consume(parsed.len);
    let (mut body, mut payload) = (Body::new(parsed.framing), Vec::new());
    loop {
        let decoded = body.decode(rx.as_mut_slice()).expect("a good body");
        payload.extend_from_slice(&rx.as_slice()[..decoded.payload]);
        rx.consume(decoded.used);
        if decoded.done {
            return Some((text, payload));
        }
        more(reader, rx, &stop).await?;
    }
}

async fn more(reader: &mut SimReader, rx: &mut Buf, stop: &SimStop) -> Option<()> {
    let mut buf = rx.take();
    buf.reserve(1024);
    let (result, buf) = reader.read(buf, stop.handle()).await;
    *rx = buf;
    matches!(result, Ok(count) if count > 0).then_some(())
}

async fn send(writer: &mut SimWriter, bytes: &[u8]) -> bool {
    let (stop, mut buf) = (SimStop::new(), Buf::from(bytes));
    while !buf.is_empty() {
        let (result, rest) = writer.write(buf, stop.handle()).await;
        buf = rest;
        match result {
            Ok(count) if count > 0 => buf.consume(count),
            _ => return false,
        }
    }
    true
}

/// One connection of a provider.
async fn provide(rt: SimRt, mut reader: SimReader, mut writer: SimWriter, place: Rc<Place>) {
    let mut rx = Buf::new();
    while let Some((head, body)) = receive(&mut reader, &mut rx).await {
        let body = String::from_utf8(body).unwrap();
        assert!(!body.contains("models"), "{body}");
        let (tag, response) = {
            let mut rng = place.rng.borrow_mut();
            let mut served = place.served.borrow_mut();
            *served += 1;
            let tag = format!("p{}r{served}", place.index);
            place.seen.borrow_mut().push(Visit::of(place.index, &tag, &head, &body));
            let act = draw(&mut rng);
            (tag.clone(), respond(act, &tag, body.contains("\"stream\":true"), &mut rng))
        };
        let _ = tag;
        // In two writes, so that a pause may fall anywhere.
        let at = place.rng.borrow_mut().below(response.bytes.len() as u32 + 1) as usize;
        let pause = Ms(place.rng.borrow_mut().below(3) * 400);
        if !send(&mut writer, &response.bytes[..at]).await {
            return;
        }
        rt.sleep_until(rt.now() + pause).await;
        if !send(&mut writer, &response.bytes[at..]).await {
            return;
        }
        if response.hang {
            // Until the gateway gives up.
            let stop = SimStop::new();
            while more(&mut reader, &mut rx, &stop).await.is_some() {}
            return;
        }
        match response.close {
            None => {}
            Some(true) => return SimRt::abort(reader, writer),
            Some(false) => return,
        }
    }
}

struct Place {
    index: usize,
    rng: RefCell<Rng>,
    served: RefCell<u32>,
    seen: Visits,
}

/// How a client behaves.
struct Manner {
    stream: bool,
    /// Leaves after this long.
    leaves: Option<Ms>,
    /// By a reset.
    aborts: bool,
    /// Ends its direction once it has asked.
    half_closes: bool,
    /// Pauses between reads.
    slow: Option<Ms>,
}

/// One client: a few requests on one connection.
async fn ask(
    rt: SimRt,
    gateway: SocketAddr,
    seed: u64,
    history: Rc<History>,
    results: Rc<RefCell<Vec<Answer>>>,
) {
    let mut rng = Rng::new(seed);
    rt.sleep_until(rt.now() + Ms(rng.below(50))).await;
    let Ok((mut reader, writer)) = rt.dial(gateway).await else { return };
    let (mut writer, mut rx, mut stop) = (Some(writer), Buf::new(), SimStop::new());
    for turn in 0..1 + rng.below(3) {
        let Some(out) = &mut writer else { return };
        let manner = Manner {
            stream: !rng.one_in(3),
            leaves: rng.one_in(6).then(|| Ms(rng.below(4000))),
            aborts: rng.one_in(2),
            half_closes: rng.one_in(24),
            slow: rng.one_in(6).then(|| Ms(rng.below(300))),
        };
        let commit = ["", "x-firstbyte-commit: complete\r\n", "x-firstbyte-commit: headers\r\n"]
            [rng.below(3) as usize];
        let asked = history.asked(format!("c{seed:x}-{turn}"), &mut rng);
        let Asked { id, model, .. } = &asked;
        let auth = asked.auth();
        let body = format!(
            "{{\"models\":[],\"model\":\"{model}\",\"messages\":[],\"stream\":{}}}",
            manner.stream
        );
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{commit}{auth}x-request-id: {id}\r\n\
             x-client-request-id: {id}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // In two parts, some so late that the gateway has given up.
        let at = rng.below(request.len() as u32) as usize;
        let pause = if rng.one_in(20) { Ms(rng.below(40_000)) } else { Ms(0) };
        if !send(out, &request.as_bytes()[..at]).await {
            return;
        }
        if pause > Ms(0) {
            rt.sleep_until(rt.now() + pause).await;
        }
        if !send(out, &request.as_bytes()[at..]).await {
            return;
        }
        if manner.half_closes {
            writer = None;
        }
        let deadline = manner.leaves.map_or(Tick::NEVER, |ms| rt.now() + ms);
        let mut raw = Vec::new();
        let mut answer = Answer { stream: manner.stream, asked, ..Answer::default() };
        loop {
            answer.take(&raw);
            if answer.complete {
                break;
            }
            if let Some(pause) = manner.slow {
                rt.sleep_until(rt.now() + pause).await;
            }
            let mut buf = rx.take();
            buf.clear();
            buf.reserve(if manner.slow.is_some() { 64 } else { 4096 });
            let handle = stop.handle();
            let ((result, buf), left) =
                until(&rt, &mut stop, deadline, reader.read(buf, handle)).await;
            rx = buf;
            raw.extend_from_slice(rx.as_slice());
            if left {
                answer.left = true;
                break;
            }
            if !matches!(result, Ok(count) if count > 0) {
                answer.broken = true;
                break;
            }
        }
        answer.take(&raw);
        let (go_on, left) = (answer.complete, answer.left);
        results.borrow_mut().push(answer);
        if left
            && manner.aborts
            && let Some(writer) = writer
        {
            return SimRt::abort(reader, writer);
        }
        if !go_on {
            return;
        }
    }
}

/// What a client saw of one answer.
#[derive(Default, Debug)]
struct Answer {
    asked: Asked,
    stream: bool,
    status: u16,
    head: String,
    body: Vec<u8>,
    complete: bool,
    left: bool,
    broken: bool,
}

impl Answer {
    /// Reads a response, naively: from its beginning, each time.
    fn take(&mut self, raw: &[u8]) {
        let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") else { return };
        self.head = String::from_utf8_lossy(&raw[..end]).into_owned();
        self.status = self.head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut rest = &raw[end + 4..];
        self.body.clear();
        if let Some(at) = self.head.find("content-length: ") {
            let digits = self.head[at + 16..].lines().next().unwrap();
            let length: usize = digits.parse().unwrap();
            assert!(rest.len() <= length, "octets after the answer");
            self.body.extend_from_slice(rest);
            self.complete = rest.len() == length;
            return;
        }
        assert!(self.head.contains("transfer-encoding: chunked"), "{}", self.head);
        while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
            let size =
                usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            rest = &rest[line + 2..];
            if size == 0 {
                self.complete = rest == b"\r\n";
                return;
            }
            let have = size.min(rest.len());
            self.body.extend_from_slice(&rest[..have]);
            match rest.get(size..size + 2) {
                Some(b"\r\n") => rest = &rest[size + 2..],
                Some(_) => panic!("a chunk without its end"),
                None => return,
            }
        }
    }

    /// The client's bytes are those of one attempt, in order, each once, with an honest end.
    fn judge(&self, seed: u64) {
        // Models are named by their own names, whatever route led to them.
        let other = self.body.windows(11).any(|w| w == b"\"model\":\"n\"");
        self.judge_of(if other { "n" } else { "m" }, seed);
    }

    /// The same where the client asked for another model.
    fn judge_of(&self, model: &str, seed: u64) {
        let shown = format!("\"{model}\"");
        if self.status == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&self.body).into_owned();
        // Comments are no part of the answer.
        let text: String =
            text.split_inclusive("\n\n").filter(|block| !block.starts_with(':')).collect();
        let case = format!("seed {seed}: {self:?}\n{text}");
        if self.status != 200 {
            let json: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
            assert!(!self.complete || json.is_some_and(|j| j["error"].is_object()), "{case}");
            return;
        }
        if !self.stream {
            if self.complete {
                let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
                let tag = json["id"].as_str().unwrap_or_default();
                assert_eq!(text, whole(tag).replace("\"up\"", &shown), "{case}");
            }
            return;
        }
        let Some(at) = text.find("\"id\":\"") else {
            assert!(!self.complete || text.contains("\"error\""), "{case}");
            return;
        };
        let tag = text[at + 6..].split('"').next().unwrap();
        let oracle: Vec<_> = events(tag).iter().map(|e| e.replace("\"up\"", &shown)).collect();
        let good = format!("{}data: [DONE]\n\n", oracle.concat());
        if !self.complete {
            let cut = text.find("data: {\"error\"").unwrap_or(text.len());
            // A character that was cut in two reads as U+FFFD.
            let begun = text[..cut].trim_end_matches('\u{fffd}');
            let (events, last) = begun.rsplit_once("\n\n").unwrap_or(("", begun));
            let error_begun = good.starts_with(events) && "data: {\"error\"".starts_with(last);
            assert!(good.starts_with(begun) || error_begun, "{case}");
            return;
        }
        if text == good {
            return;
        }
        // A cut: whole events of one attempt, one error event, nothing after it.
        let count = (0..=oracle.len()).find(|n| {
            text.strip_prefix(&oracle[..*n].concat()).is_some_and(|rest| {
                rest.starts_with("data: {\"error\":{") && rest.matches("\n\n").count() == 1
            })
        });
        assert!(count.is_some(), "{case}");
        assert!(!text.contains("[DONE]"), "{case}");
    }
}

const CONFIG: &str = "
[server]
listen = [\"127.0.0.1:80\"]
admin = \"off\"
";

const DEFAULTS: &str = "
[defaults]
connect_timeout = \"500ms\"
head_timeout = \"2s\"
first_content_timeout = \"2s\"
answer_timeout = \"3s\"
idle_timeout = \"2s\"
first_content_deadline = \"6s\"
total_timeout = \"20s\"
";

fn run_seed(seed: u64) -> Run {
    let mut rng = Rng::new(seed);
    let faults = Faults::swarm(&mut rng);
    let world = World::new(seed, faults);
    world.cap_steps(2_000_000);
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let count = 1 + rng.below(4) as usize;
    let places: Vec<SocketAddr> =
        (0..count).map(|i| format!("10.0.1.{}:80", i + 1).parse().unwrap()).collect();
    let seen = Visits::default();
    for (index, addr) in places.iter().enumerate() {
        match rng.below(10) {
            0 => world.refuse(*addr),
            1 => world.blackhole(*addr),
            _ => provider(&world, *addr, index, rng.next(), seen.clone()),
        }
    }
    let notes = Arc::new(Notes::default());
    let history = Rc::new(History::begin(&mut rng, places));
    let shared = Arc::new(Shared::new(history.first(), Names::default(), notes.clone()));
    history.adopt(&shared);
    let listener = world.listen(gateway);
    let results = Rc::new(RefCell::new(Vec::new()));
    let clients = 1 + rng.below(4);
    for _ in 0..clients {
        let client = ask(world.rt(), gateway, rng.next(), history.clone(), results.clone());
        world.rt().spawn(client);
    }
    let (rt, control) = (world.rt(), shared.clone());
    let end_at = Ms(60_000);
    world.rt().spawn(async move {
        rt.sleep_until(rt.now() + end_at).await;
        control.raise(Level::Draining);
    });
    world.rt().spawn(reload::now_and_then(world.rt(), shared.clone(), history.clone(), rng.next()));
    // Now and then memory is short for a while.
    let (rt, load) = (world.rt(), shared.clone());
    let short = rng.one_in(8).then(|| (Ms(rng.below(2_000)), Ms(rng.below(5_000))));
    world.rt().spawn(async move {
        let Some((from, long)) = short else { return };
        rt.sleep_until(rt.now() + from).await;
        load.load.tell_resident(2, 1);
        rt.sleep_until(rt.now() + long).await;
        load.load.tell_resident(1, 2);
    });
    let rt = world.rt();
    let end = world.block_on(core::serve(rt, vec![listener], shared.clone(), CoreId(0), seed));
    world.settle();
    let why = |what: &str| world.report(&format!("seed {seed}: {what}"));
    assert_eq!(end, core::End::Drained, "{}", why("the core did not drain"));
    assert_eq!(world.lost_ops(), 0, "{}", why("an operation was dropped"));
    assert_eq!(notes.open.load(Ordering::Relaxed), 0, "{}", why("connections"));
    assert_eq!(notes.running.load(Ordering::Relaxed), 0, "{}", why("one ledger per exchange"));
    for answer in results.borrow().iter() {
        answer.judge(seed);
    }
    let ledgers = std::mem::take(&mut *notes.ledgers.lock().unwrap());
    for ledger in &ledgers {
        audit(ledger, history.targets_most(), world.unsteady_us(), seed);
    }
    drop(shared);
    let mixed = history.judge(&ledgers, &seen.borrow(), &results.borrow(), seed);
    let shed = std::mem::take(&mut *notes.shed.lock().unwrap());
    Run {
        trace: world.trace_hash(),
        ledgers,
        shed,
        too_slow: notes.too_slow.load(Ordering::Relaxed),
        mixed,
        unsteady: world.unsteady_us() > 0,
    }
}

fn provider(world: &World, addr: SocketAddr, index: usize, seed: u64, seen: Visits) {
    let (rng, served) = (RefCell::new(Rng::new(seed)), RefCell::new(0));
    let place = Rc::new(Place { index, rng, served, seen });
    let (listener, rt) = (world.listen(addr), world.rt());
    world.rt().spawn(async move {
        let stop = SimStop::new();
        while let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
            rt.spawn(provide(rt.clone(), reader, writer, place.clone()));
        }
    });
}

/// What each ledger must say of itself.
fn audit(ledger: &Ledger, providers: usize, unsteady_us: u64, seed: u64) {
    let case = format!("seed {seed}: {ledger:?}");
    assert!(ledger.attempts.len() <= providers, "{case}");
    let mut targets = BTreeMap::new();
    for attempt in &ledger.attempts {
        *targets.entry(attempt.target).or_insert(0) += 1;
    }
    assert!(targets.values().all(|count| *count == 1), "an attempt twice: {case}");
    // A body that is awaited twice, once for its client and once for the network, and an exchange.
    // What follows is the client's own pace, which no limit holds while bytes go.
    let attempted = ledger.attempts.iter().filter_map(|attempt| attempt.ended).max();
    let over = attempted.or(ledger.committed.map(|(at, _)| at)).unwrap_or(ledger.ended);
    let lasted = over.ms_since(ledger.began);
    assert!(u64::from(lasted) <= 20_000 + 2 * 30_000 + 2_000 + unsteady_us / 1000, "{case}");
    match ledger.ending {
        Ending::Good => {
            let answered = ledger.answered().expect("a winner");
            assert_eq!(answered.outcome(), Outcome::Ok, "{case}");
            assert_eq!(ledger.status, 200, "{case}");
        }
        Ending::Error => assert!(ledger.status >= 400 || ledger.opened, "{case}"),
        Ending::Cut(fault) => {
            let answered = ledger.answered().expect("a winner");
            assert_eq!(answered.failure.map(|f| f.fault), Some(fault), "{case}");
        }
        Ending::Gone | Ending::Slow | Ending::Local => {}
    }
    for (i, attempt) in ledger.attempts.iter().enumerate() {
        let won = ledger.winner == Some(i as u8);
        assert!(won || attempt.failure.is_some(), "an attempt without an end: {case}");
        assert!(attempt.ended.is_some(), "{case}");
    }
}
