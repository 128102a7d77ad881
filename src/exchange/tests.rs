//! The exchange against scripted providers, without sockets: a tiny world whose only events are the
//! exchange's own outputs. Everything that a provider may do before and after the commit, alone and in
//! chains of three.

use std::collections::VecDeque;

use super::*;
use crate::base::tick::Ms;
use crate::config;
use crate::exchange::ledger::{CommittedBy, Ending, Outcome};
use crate::llm::request::{Envelope, Surface};
use crate::route::{self, Wish};

/// What a provider does with a request.
#[derive(Clone, Debug)]
enum Act {
    /// Bytes, then the end.
    Say(Vec<u8>),
    /// Bytes, then a reset.
    Reset(Vec<u8>),
    /// Bytes, then nothing ever.
    Hang(Vec<u8>),
    /// The dial fails.
    Refuse,
    /// The dial never ends.
    Blackhole,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

fn event(content: &str) -> String {
    format!(
        "data: {{\"id\":\"c1\",\"created\":7,\"model\":\"up\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n"
    )
}

fn role() -> String {
    "data: {\"id\":\"c1\",\"created\":7,\"model\":\"up\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n".into()
}

fn finish() -> String {
    "data: {\"id\":\"c1\",\"model\":\"up\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".into()
}

const ERROR: &str = "data: {\"error\":{\"message\":\"boom\",\"code\":\"overloaded\"}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn good(name: &str) -> String {
    [HEAD, &role(), &event(&format!("hello from {name}")), &event("more"), &finish(), DONE].concat()
}

fn status(code: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
}

/// A table of `n` providers `p0..` with one target each, and a model `m` that lists them.
fn table(n: usize, defaults: &str) -> Table {
    let mut text = format!("[defaults]\n{defaults}\n");
    for i in 0..n {
        text += &format!(
            "[providers.p{i}]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:{}/v1\"\n",
            9000 + i
        );
    }
    let targets: Vec<_> = (0..n).map(|i| format!("\"p{i}/up\"")).collect();
    text += &format!("[models.m]\ntargets = [{}]\n", targets.join(", "));
    let config = config::load(&text, &|_| Err(String::from("no references here"))).unwrap();
    route::compile(&config, None).unwrap()
}

struct World {
    table: Table,
    acts: Vec<Act>,
    now: Tick,
    /// Cut what is delivered into pieces of at most this many bytes.
    piece: usize,
    /// Do not take the client's bytes from this many on.
    deaf_after: usize,
    /// Each of the client's reads takes this long.
    slow_by: Ms,
    reused: bool,
    /// The most memory that was held for the client, the receive buffer included.
    held_most: usize,
}

struct Report {
    ledger: Ledger,
    head: String,
    body: Vec<u8>,
    raw: Vec<u8>,
    dials: Vec<u16>,
    keep: bool,
    elapsed: u32,
}

impl Report {
    fn attempts(&self) -> Vec<String> {
        self.ledger.attempts.iter().map(|a| a.outcome().to_string()).collect()
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

fn ledger() -> Ledger {
    Ledger {
        id: "r1".into(),
        caller: None,
        surface: Surface::Chat,
        stream: true,
        model: "m".into(),
        wall: UnixMs(0),
        began: Tick(1_000_000),
        committed: None,
        ended: Tick(0),
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

fn job(table: &Table, stream: bool, now: Tick) -> Job {
    let body = format!("{{\"model\":\"m\",\"messages\":[],\"stream\":{stream}}}").into_bytes();
    let mut ask = Ask::read(Surface::Chat, &body).unwrap();
    ask.envelope =
        Envelope { method: "POST", path: "/chat/completions".into(), ..Envelope::default() };
    let wish = Wish { model: "m".into(), stream, ..Wish::default() };
    let plan = route::pick(table, &wish, 0, now).unwrap();
    Job { ask, body: Buf::from_vec(body), plan }
}

impl World {
    fn new(defaults: &str, acts: Vec<Act>) -> World {
        World {
            table: table(acts.len(), defaults),
            acts,
            now: Tick(1_000_000),
            piece: usize::MAX,
            deaf_after: usize::MAX,
            slow_by: Ms(0),
            reused: false,
            held_most: 0,
        }
    }

    fn run(&mut self, stream: bool) -> Report {
        let job = job(&self.table, stream, self.now);
        self.run_job(job)
    }

    fn run_job(&mut self, job: Job) -> Report {
        let client = Client {
            minor: 1,
            keep_alive: true,
            patience: Ms(limits::WRITE_MS).into(),
            to_head: false,
        };
        let start = self.now;
        let mut up: [VecDeque<u8>; 2] = Default::default();
        let mut act: [Option<Act>; 2] = [None, None];
        let mut reading = [false, false];
        let (mut dials, mut raw) = (Vec::new(), Vec::new());
        let (mut armed, mut taken_at) = (Tick::NEVER, Tick::NEVER);
        let mut exchange = Exchange::new(job, client, ledger(), &self.cx());
        let mut todo: VecDeque<Todo> = VecDeque::new();
        for _ in 0..100_000 {
            if let Some(output) = exchange.poll() {
                match output {
                    Output::Dial { lane, endpoint, fresh, .. } => {
                        assert!(!exchange.is_committed(), "a dial after the commit");
                        let port = self.table.endpoints[endpoint].port;
                        dials.push(port);
                        act[lane.index()] = Some(self.acts[usize::from(port - 9000)].clone());
                        todo.push_back(Todo::Dial(lane, self.reused && !fresh));
                    }
                    Output::Read { lane } => {
                        assert!(!std::mem::replace(&mut reading[lane.index()], true));
                        todo.push_back(Todo::Read(lane));
                    }
                    Output::Write { side: Side::Up(lane) } => {
                        assert!(!exchange.take_write(Side::Up(lane)).is_empty());
                        todo.push_back(Todo::Wrote(Side::Up(lane)));
                    }
                    Output::Write { side: Side::Down } => {
                        let bytes = exchange.take_write(Side::Down);
                        raw.extend_from_slice(bytes.as_slice());
                        if self.slow_by > Ms(0) {
                            taken_at = self.now + self.slow_by;
                        } else if raw.len() < self.deaf_after {
                            todo.push_back(Todo::Wrote(Side::Down));
                        }
                    }
                    Output::Arm { at } => armed = at,
                    Output::Hangup { lane } | Output::Release { lane } | Output::Drain { lane } => {
                        up[lane.index()].clear();
                        act[lane.index()] = None;
                        reading[lane.index()] = false;
                        todo.retain(|t| !t.is_of(lane));
                    }
                    Output::Finish { keep } => {
                        assert!(exchange.poll().is_none(), "nothing follows the finish");
                        let ledger = exchange.take_ledger().unwrap();
                        assert!(exchange.take_ledger().is_none(), "one ledger");
                        let elapsed = self.now.ms_since(start);
                        return report(ledger, raw, dials, keep, elapsed);
                    }
                }
                continue;
            }
            // What is due comes before what is ready: a shell may do either.
            let due = armed <= self.now;
            let Some(next) = (if due { None } else { todo.pop_front() }) else {
                if taken_at < armed {
                    self.now = self.now.max(taken_at);
                    taken_at = Tick::NEVER;
                    exchange.step(Input::Wrote { side: Side::Down, done: true }, &self.cx());
                    continue;
                }
                assert_ne!(armed, Tick::NEVER, "nothing can ever happen again");
                self.now = self.now.max(armed);
                armed = Tick::NEVER;
                exchange.step(Input::Alarm, &self.cx());
                continue;
            };
            self.now.0 += 10;
            match next {
                Todo::Wrote(side) => exchange.step(Input::Wrote { side, done: true }, &self.cx()),
                Todo::Dial(lane, reused) => match act[lane.index()].clone() {
                    Some(Act::Refuse) => {
                        let fault = Fault::Refused;
                        exchange.step(Input::Broke { lane, fault, write: false }, &self.cx());
                    }
                    Some(Act::Blackhole) | None => {}
                    Some(Act::Say(bytes) | Act::Reset(bytes) | Act::Hang(bytes)) => {
                        up[lane.index()] = if reused { VecDeque::new() } else { bytes.into() };
                        if reused {
                            act[lane.index()] = Some(Act::Reset(Vec::new()));
                        }
                        exchange.step(Input::Dialed { lane, reused }, &self.cx());
                    }
                },
                Todo::Read(lane) => {
                    let i = lane.index();
                    let count = up[i].len().min(self.piece);
                    if count > 0 {
                        let bytes: Vec<u8> = up[i].drain(..count).collect();
                        reading[i] = false;
                        let mut rx = Buf::from_vec(bytes);
                        exchange.step(Input::Received { lane, rx: &mut rx }, &self.cx());
                        assert!(rx.is_empty(), "received bytes are taken");
                        let held = exchange.backlog_bytes() + rx.capacity();
                        self.held_most = self.held_most.max(held);
                        continue;
                    }
                    match act[i] {
                        Some(Act::Say(_)) => {
                            reading[i] = false;
                            exchange.step(Input::Ended { lane }, &self.cx());
                        }
                        Some(Act::Reset(_)) => {
                            reading[i] = false;
                            let fault = Fault::Reset;
                            exchange.step(Input::Broke { lane, fault, write: false }, &self.cx());
                        }
                        Some(Act::Hang(_) | Act::Refuse | Act::Blackhole) | None => {}
                    }
                }
            }
        }
        panic!("the exchange does not come to an end");
    }

    fn cx(&self) -> Cx<'_> {
        Cx { now: self.now, wall: UnixMs(0), table: &self.table }
    }
}

enum Todo {
    Dial(LaneId, bool),
    Read(LaneId),
    Wrote(Side),
}

impl Todo {
    fn is_of(&self, lane: LaneId) -> bool {
        match self {
            Todo::Dial(of, _) | Todo::Read(of) => *of == lane,
            Todo::Wrote(side) => *side == Side::Up(lane),
        }
    }
}

/// Splits a response and undoes its chunked coding, naively.
fn report(ledger: Ledger, raw: Vec<u8>, dials: Vec<u16>, keep: bool, elapsed: u32) -> Report {
    let text = String::from_utf8_lossy(&raw).into_owned();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut body = Vec::new();
    if ledger.ending == Ending::Gone {
        // Nobody was there to take the rest.
    } else if head.contains("transfer-encoding: chunked") {
        let mut rest = rest;
        loop {
            let (size, after) = rest.split_once("\r\n").expect("a chunk size");
            let size = usize::from_str_radix(size, 16).expect("hex");
            if size == 0 {
                assert_eq!(after, "\r\n", "nothing follows the last chunk");
                break;
            }
            body.extend_from_slice(&after.as_bytes()[..size]);
            rest = after[size..].strip_prefix("\r\n").expect("the end of a chunk");
        }
    } else {
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
        assert_eq!(length.map(|l| l.parse().unwrap()), Some(rest.len()), "{head}");
        body.extend_from_slice(rest.as_bytes());
    }
    let (head, raw) = (head.to_owned(), raw);
    Report { ledger, head, body, raw, dials, keep, elapsed }
}

fn say(text: impl AsRef<str>) -> Act {
    Act::Say(text.as_ref().as_bytes().to_vec())
}

fn hang(text: &str) -> Act {
    Act::Hang(text.as_bytes().to_vec())
}

fn reset(text: &str) -> Act {
    Act::Reset(text.as_bytes().to_vec())
}

/// The good answer of `p<i>` as the client must see it.
fn expected(i: usize) -> String {
    [&role(), &event(&format!("hello from p{i}")), &event("more"), &finish(), DONE]
        .concat()
        .replace("\"model\":\"up\"", "\"model\":\"m\"")
}

#[test]
fn a_good_answer_passes_with_only_the_model_replaced() {
    let report = World::new("", vec![say(good("p0"))]).run(true);
    assert_eq!(report.text(), expected(0));
    assert_eq!(report.status(), 200);
    assert!(report.head.contains("x-firstbyte-provider: p0"), "{}", report.head);
    assert!(report.head.contains("x-firstbyte-model: m"), "{}", report.head);
    assert!(report.head.contains("x-firstbyte-attempts: p0/up;ok;0ms"), "{}", report.head);
    assert_eq!(report.ledger.ending, Ending::Good);
    assert_eq!(report.ledger.committed.map(|c| c.1), Some(CommittedBy::FirstContent));
    assert!(report.keep);
}

/// Every way to fail before the first content, with the outcome that the ledger must name.
fn early_failures() -> Vec<(Act, &'static str)> {
    let with = |parts: &[&str]| parts.concat();
    vec![
        (Act::Refuse, "refused"),
        (Act::Blackhole, "connect_timeout"),
        (reset(""), "reset"),
        (say(""), "eof"),
        (hang(""), "head_timeout"),
        (reset("HTTP/1.1 200 OK\r\n"), "reset"),
        (say("HTTP/1.1 banana\r\n\r\n"), "malformed"),
        (
            say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
            "malformed",
        ),
        (say("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "malformed"),
        (say("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nxx"), "malformed"),
        (hang(HEAD), "first_content_timeout"),
        (hang(&with(&[HEAD, ": ping\n\n", &role()])), "first_content_timeout"),
        (say(HEAD), "truncated"),
        (say(with(&[HEAD, &role()])), "truncated"),
        (say(with(&[HEAD, DONE])), "truncated"),
        (reset(&with(&[HEAD, &role()])), "reset"),
        (say(with(&[HEAD, ERROR])), "error_event"),
        (say(with(&[HEAD, &role(), ERROR])), "error_event"),
        (say(with(&[HEAD, "error: {\"message\":\"x\"}\n\n"])), "error_event"),
        (say(with(&[HEAD, "event: error\ndata: {\"message\":\"x\"}\n\n", DONE])), "error_event"),
        (say(with(&[HEAD, "event: error\ndata: no json\n\n"])), "error_event"),
        (say(with(&[HEAD, "{\"error\":{\"message\":\"x\"}}"])), "error_event"),
        (say(with(&[HEAD, "data: {\"choices\":[\n\n"])), "bad_frame"),
        (say(with(&[HEAD, "data: nonsense\n\n"])), "bad_frame"),
        (say(status(408, "", "")), "408"),
        (say(status(409, "", "")), "409"),
        (say(status(425, "", "")), "425"),
        (say(status(429, "", "")), "429"),
        (say(status(500, "", "oops")), "500"),
        (say(status(502, "", "<html>bad gateway</html>")), "502"),
        (say(status(503, "retry-after: 7\r\n", "")), "503"),
        (say(status(504, "", "")), "504"),
        (say(status(520, "", "")), "520"),
        (say(status(529, "", "")), "529"),
        (say(status(401, "", "{\"error\":{\"message\":\"bad key\"}}")), "401"),
        (say(status(402, "", "")), "402"),
        (say(status(403, "", "")), "403"),
        (say(status(404, "", "")), "404"),
        (say(status(429, "", "{\"error\":{\"code\":\"insufficient_quota\"}}")), "429"),
        (say(status(302, "location: http://elsewhere/\r\n", "")), "302"),
    ]
}

#[test]
fn every_early_failure_is_invisible_to_the_client() {
    for (act, outcome) in early_failures() {
        for piece in [usize::MAX, 1] {
            let mut world = World::new("", vec![act.clone(), say(good("p1"))]);
            world.piece = piece;
            let report = world.run(true);
            let case = format!("{act:?} in pieces of {piece}");
            assert_eq!(report.text(), expected(1), "{case}");
            assert_eq!(report.status(), 200, "{case}");
            assert_eq!(report.attempts(), [outcome, "ok"], "{case}");
            let attempts = format!("x-firstbyte-attempts: p0/up;{outcome};");
            assert!(report.head.contains(&attempts), "{case}: {}", report.head);
            assert_eq!(report.dials, [9000, 9001], "{case}");
            assert_eq!(report.ledger.ending, Ending::Good, "{case}");
        }
    }
}

/// Every way to fail after the first content, with the code that the client must see.
fn late_failures() -> Vec<(Act, &'static str)> {
    let begun = [HEAD, &role(), &event("partial")].concat();
    let with = |rest: &str| format!("{begun}{rest}");
    vec![
        (say(&begun), "stream_interrupted"),
        (reset(&begun), "stream_interrupted"),
        (say(with("data: {\"choi")), "stream_interrupted"),
        (say(with(ERROR)), "stream_interrupted"),
        (say(with("data: {]\n\n")), "stream_interrupted"),
        (say(broken_chunk(&begun)), "stream_interrupted"),
        (hang(&begun), "stream_timeout"),
        (hang(&with(": ping\n\n: ping\n\n")), "stream_timeout"),
    ]
}

/// A chunked body that begins well and then has no chunk size.
fn broken_chunk(begun: &str) -> String {
    let (head, body) = begun.split_once("\r\n\r\n").unwrap();
    format!("{head}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\nzz\r\n", body.len())
}

#[test]
fn every_late_failure_is_told_once_and_never_ends_with_done() {
    for (act, code) in late_failures() {
        for piece in [usize::MAX, 1] {
            let mut world = World::new("", vec![act.clone(), say(good("p1"))]);
            world.piece = piece;
            let report = world.run(true);
            let (text, case) = (report.text(), format!("{act:?} in pieces of {piece}"));
            assert!(text.contains("partial"), "{case}: {text}");
            assert_eq!(text.matches("\"error\"").count(), 1, "{case}: {text}");
            assert!(text.contains(code), "{case}: {text}");
            assert!(text.contains("\"type\":\"upstream_error\""), "{case}: {text}");
            assert!(!text.contains("[DONE]"), "{case}: {text}");
            assert!(!text.contains("finish_reason"), "{case}: {text}");
            assert!(!text.contains("hello from p1"), "{case}: {text}");
            assert_eq!(report.dials, [9000], "{case}");
            assert!(matches!(report.ledger.ending, Ending::Cut(_)), "{case}");
        }
    }
}

#[test]
fn all_chains_of_three_come_out_as_the_plan_says() {
    let kinds: [(&str, Act); 6] = [
        ("ok", say("")),
        ("503", say(status(503, "", ""))),
        ("reset", reset("")),
        ("hang", hang("")),
        ("error", say([HEAD, ERROR].concat())),
        ("empty", say([HEAD, DONE].concat())),
    ];
    let outcomes = ["ok", "503", "reset", "head_timeout", "error_event", "truncated"];
    for code in 0..216_usize {
        let chain = [code / 36, code / 6 % 6, code % 6];
        let acts = chain.iter().enumerate().map(|(i, k)| match kinds[*k].0 {
            "ok" => say(good(&format!("p{i}"))),
            _ => kinds[*k].1.clone(),
        });
        let mut world = World::new("first_content_deadline = \"500s\"\n", acts.collect());
        let report = world.run(true);
        let winner = chain.iter().position(|k| *k == 0);
        let tried = winner.map_or(3, |w| w + 1);
        let case: Vec<_> = chain.iter().map(|k| kinds[*k].0).collect();
        let want: Vec<_> = chain[..tried].iter().map(|k| outcomes[*k]).collect();
        assert_eq!(report.attempts(), want, "{case:?}");
        assert_eq!(report.ledger.winner, winner.map(|w| w as u8), "{case:?}");
        match winner {
            Some(w) => assert_eq!(report.text(), expected(w), "{case:?}"),
            None => {
                let all_hang = chain.iter().all(|k| kinds[*k].0 == "hang");
                assert_eq!(report.status(), if all_hang { 504 } else { 502 }, "{case:?}");
                let error: serde_json::Value = serde_json::from_slice(&report.body).unwrap();
                let listed = error["error"]["metadata"]["attempts"].as_array().unwrap().len();
                assert_eq!(listed, 3, "{case:?}");
                assert!(report.head.contains("x-should-retry: false"), "{}", report.head);
            }
        }
        let hangs = chain[..tried].iter().filter(|k| kinds[**k].0 == "hang").count() as u32;
        assert_eq!(report.elapsed / 20_000, hangs, "{case:?}: {} ms", report.elapsed);
    }
}

#[test]
fn any_split_gives_the_same_answer() {
    let whole = good("p0").replace("\n\n", "\r\n\r\n");
    for at in 1..whole.len() {
        let mut world = World::new("", vec![say(&whole)]);
        world.piece = at;
        assert_eq!(world.run(true).text(), expected(0), "cut at {at}");
    }
}

#[test]
fn cut_after_any_byte_gives_one_honest_outcome() {
    let whole = good("p0");
    let content_ends = whole.find("hello from p0").unwrap();
    let content_ends = content_ends + whole[content_ends..].find("\n\n").unwrap() + 2;
    let finish_ends = whole.find("finish_reason").unwrap();
    let finish_ends = finish_ends + whole[finish_ends..].find("\n\n").unwrap() + 2;
    for at in 0..whole.len() {
        for act in [say(&whole[..at]), reset(&whole[..at])] {
            let ended = matches!(act, Act::Say(_));
            let mut world = World::new("", vec![act, say(good("p1"))]);
            world.piece = 7;
            let report = world.run(true);
            let text = report.text();
            // At a clean end the last event counts without its blank line.
            let whole_at = |end: usize| at >= end || (ended && at + 2 >= end);
            if !whole_at(content_ends) {
                assert_eq!(text, expected(1), "cut at {at}");
            } else if !whole_at(finish_ends) {
                assert_eq!(report.dials, [9000], "cut at {at}");
                assert_eq!(text.matches("\"error\"").count(), 1, "cut at {at}: {text}");
                assert!(!text.contains("[DONE]"), "cut at {at}: {text}");
            } else {
                assert_eq!(text, expected(0), "cut at {at}");
            }
        }
    }
}

#[test]
fn client_faults_are_not_tried_again_and_keep_their_message() {
    for (code, body, want) in [
        (
            400,
            "{\"error\":{\"message\":\"no such tool\",\"type\":\"invalid_request_error\",\"code\":\"bad\"}}",
            400,
        ),
        (422, "{\"error\":{\"message\":\"no such tool\"}}", 422),
        (418, "no such tool", 418),
    ] {
        let acts = vec![say(status(code, "", body)), say(good("p1"))];
        let report = World::new("", acts).run(true);
        assert_eq!((report.status(), report.dials.as_slice()), (want, &[9000][..]));
        if body.starts_with('{') {
            assert!(report.text().contains("no such tool"), "{}", report.text());
        }
    }
}

#[test]
fn what_a_provider_says_of_our_credential_is_not_passed_on() {
    let body = "{\"error\":{\"message\":\"Incorrect API key provided: sk-canary\",\"code\":\"invalid_api_key\"}}";
    let report = World::new("", vec![say(status(401, "", body))]).run(true);
    assert_eq!((report.status(), report.attempts()), (502, vec![String::from("401")]));
    assert!(!String::from_utf8_lossy(&report.raw).contains("canary"));
}

#[test]
fn content_policy_returns_or_goes_on_as_configured() {
    let body = "{\"error\":{\"message\":\"flagged\",\"code\":\"content_policy_violation\"}}";
    let acts = || vec![say(status(400, "", body)), say(good("p1"))];
    let report = World::new("", acts()).run(true);
    assert_eq!(report.status(), 400);
    assert!(report.text().contains("content_policy_violation"));
    let report = World::new("on_content_policy = \"next\"\n", acts()).run(true);
    assert_eq!(report.text(), expected(1));
}

#[test]
fn an_event_called_error_is_an_error_whatever_it_holds() {
    for payload in ["{\"message\":\"boom\"}", "boom", "{\"choices\":[]}", "[DONE]"] {
        let called = format!("event: error\ndata: {payload}\n\n");
        let act = say([HEAD, &event("a"), &called, DONE].concat());
        let report = World::new("", vec![act]).run(true);
        assert_eq!(report.ledger.ending, Ending::Cut(Fault::ErrorEvent), "{payload}");
        assert!(!report.text().contains("[DONE]"), "{payload}");
        assert_eq!(report.text().matches("\"error\":").count(), 1, "{payload}");
        assert_eq!(report.text().contains(": boom"), payload.contains("boom"), "{payload}");
    }
}

#[test]
fn an_event_with_empty_data_is_no_event() {
    let empty = "data:\n\ndata: \n\nevent: ping\ndata:\n\n";
    let text = [HEAD, empty, &role(), empty, &event("one"), empty, &finish(), "data: [DONE]\n\n"];
    let report = World::new("", vec![say(text.concat()), say(good("p1"))]).run(true);
    assert_eq!(report.attempts(), ["ok"], "{}", report.text());
    let rest = [role(), event("one"), finish()].concat().replace("\"up\"", "\"m\"");
    assert_eq!(report.text(), format!("{rest}data: [DONE]\n\n"));
}

#[test]
fn a_whole_answer_without_an_answer_is_a_failure() {
    let whole = "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"finish_reason\":\"stop\"}]}";
    for body in ["{}", "{\"id\":\"x\",\"choices\":[]}", "{\"choices\":{}}", "{\"choices\":null}"] {
        let acts = vec![say(status(200, "", body)), say(status(200, "", whole))];
        let report = World::new("", acts).run(false);
        assert_eq!(report.attempts(), ["bad_frame", "ok"], "{body}");
    }
}

#[test]
fn a_503_with_a_wait_everywhere_is_told_with_it() {
    let acts = vec![
        say(status(503, "retry-after: 30\r\n", "")),
        say(status(503, "retry-after: 7\r\n", "")),
    ];
    let report = World::new("", acts).run(true);
    assert_eq!(report.status(), 503);
    assert!(report.head.contains("retry-after: 7"), "{}", report.head);
    assert_eq!(report.attempts(), ["503", "503"]);
    // One that asked for nothing may be asked again at once: no wait is told.
    let acts = vec![say(status(503, "retry-after: 30\r\n", "")), say(status(503, "", ""))];
    let report = World::new("", acts).run(true);
    assert_eq!(report.status(), 502);
    assert!(!report.head.contains("retry-after"), "{}", report.head);
}

#[test]
fn an_exhausted_plan_keeps_the_error_that_the_client_can_mend() {
    let body = "{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}";
    // Both targets run the same upstream model, so the second would only say it again.
    let acts = vec![say(status(400, "", body)), say(good("p1"))];
    let report = World::new("", acts).run(true);
    assert_eq!(report.status(), 400);
    assert!(report.text().contains("context_length_exceeded"));
    assert_eq!(report.dials, [9000]);
}

#[test]
fn rate_limits_everywhere_are_told_with_the_shortest_wait() {
    let acts = vec![
        say(status(429, "retry-after: 30\r\n", "")),
        say(status(429, "retry-after-ms: 6500\r\n", "")),
    ];
    let mut world = World::new("", acts);
    let report = world.run(true);
    assert_eq!(report.status(), 429);
    assert!(report.head.contains("retry-after: 7"), "{}", report.head);
    let again =
        route::pick(&world.table, &Wish { model: "m".into(), ..Wish::default() }, 0, world.now);
    assert!(matches!(again, Err(route::Refusal::Cooling { status: 429, .. })), "{again:?}");
}

#[test]
fn what_an_answer_cost_stands_in_the_ledger() {
    let usage = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":200,\"total_tokens\":1200,\"prompt_tokens_details\":{\"cached_tokens\":400}}}\n\n";
    let text = [HEAD, &role(), &event("one"), &finish(), usage, DONE].concat();
    let mut world = World::new("", vec![say(&text)]);
    assert_eq!(world.run(true).ledger.cost_nanos, None, "the price is not known");
    let target = world.table.targets.iter_mut().next().unwrap().1;
    let price = config::Price { input: 2.0, output: 8.0, cached: Some(0.5), write: None };
    target.facts.price = Some(price);
    world.acts = vec![say(&text)];
    // 600 at 2, 400 at 0.5 and 200 at 8 dollars for a million.
    assert_eq!(world.run(true).ledger.cost_nanos, Some(3_000_000));
}

#[test]
fn commit_policies_release_when_they_say() {
    let hung = [HEAD, &role(), &event("one"), &event("two")].concat();
    let hung_act = || hang(&hung);
    let cases: [(&str, usize, CommittedBy); 3] = [
        ("headers", 0, CommittedBy::Head),
        ("first_event", 1, CommittedBy::FirstEvent),
        ("first_content", 2, CommittedBy::FirstContent),
    ];
    for (policy, _, by) in cases {
        let acts = vec![hung_act(), say(good("p1"))];
        let report = World::new(&format!("commit = \"{policy}\"\n"), acts).run(true);
        assert_eq!(report.ledger.committed.map(|c| c.1), Some(by), "{policy}");
        assert!(report.text().contains("stream_timeout"), "{policy}");
    }
    // Three wanted, two came: the idle limit passes first, and the next attempt answers.
    let defaults = "commit = { tokens = 3, within = \"60s\" }\n";
    let report = World::new(defaults, vec![hung_act(), say(good("p1"))]).run(true);
    assert_eq!(report.attempts(), ["idle_timeout", "ok"]);
    // Two wanted.
    let defaults = "commit = { tokens = 2, within = \"60s\" }\n";
    let report = World::new(defaults, vec![hung_act(), say(good("p1"))]).run(true);
    assert_eq!(report.ledger.committed.map(|c| c.1), Some(CommittedBy::Tokens));
    // Or the time after the first.
    let defaults = "commit = { tokens = 9, within = \"1s\" }\n";
    let report = World::new(defaults, vec![hung_act(), say(good("p1"))]).run(true);
    let (at, by) = report.ledger.committed.unwrap();
    assert_eq!((by, at.ms_since(Tick(1_000_000)) / 1000), (CommittedBy::Tokens, 1));
    // Complete: nothing that a provider does can show.
    let defaults = "commit = \"complete\"\n";
    for (act, _) in late_failures() {
        let report = World::new(defaults, vec![act, say(good("p1"))]).run(true);
        assert_eq!(report.text(), expected(1));
        assert_eq!(report.ledger.committed.map(|c| c.1), Some(CommittedBy::Complete));
    }
}

/// Found by fuzzing: the head of a 204 was committed, and there was no body to tell the failure in.
#[test]
fn a_204_to_a_stream_commits_nothing() {
    let empty = || say("HTTP/1.1 204 No Content\r\ncontent-type: text/event-stream\r\n\r\n");
    let mut world = World::new("commit = \"headers\"\n", vec![empty(), say(good("p1"))]);
    assert_eq!(world.run(true).text(), expected(1));
    world.acts = vec![empty(), empty()];
    let report = world.run(true);
    let by = report.ledger.committed.map(|commit| commit.1);
    assert_eq!((report.status(), by), (502, Some(CommittedBy::Error)), "{}", report.text());
}

#[test]
fn a_full_hold_commits_and_is_counted() {
    let big = event(&"x".repeat(3000));
    let acts = vec![hang(&[HEAD, &big, &big].concat()), say(good("p1"))];
    let defaults = "commit = \"complete\"\nhold_max = \"4KiB\"\n";
    let report = World::new(defaults, acts).run(true);
    assert_eq!(report.ledger.committed.map(|c| c.1), Some(CommittedBy::HoldFull));
    assert!(report.text().contains("stream_timeout"));
}

#[test]
fn an_opened_stream_may_still_change_its_mind() {
    let defaults = "open_after = \"5s\"\n";
    let acts = vec![hang(&[HEAD, &role()].concat()), say(good("p1"))];
    let report = World::new(defaults, acts).run(true);
    let text = report.text();
    assert!(report.ledger.opened);
    assert!(text.starts_with(": waiting for a provider\n\n"), "{text}");
    assert!(text.ends_with(&expected(1)), "{text}");
    assert!(text.contains(": x-firstbyte-attempts: p0/up;first_content_timeout;"), "{text}");
    assert!(!report.head.contains("x-firstbyte-provider"), "{}", report.head);
    // All fail: the error comes in band, without a terminator.
    let acts = vec![hang(HEAD), say(status(503, "", ""))];
    let report = World::new(defaults, acts).run(true);
    let text = report.text();
    assert_eq!(report.status(), 200);
    assert_eq!(text.matches("\"error\"").count(), 1, "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
}

#[test]
fn a_race_is_won_by_the_first_to_offer_and_the_other_is_cut_off() {
    let defaults = "hedge_after = \"2s\"\n";
    let acts = vec![hang(&[HEAD, &role()].concat()), say(good("p1"))];
    let report = World::new(defaults, acts).run(true);
    assert_eq!(report.text(), expected(1));
    assert_eq!(report.attempts(), ["lost_race", "ok"]);
    assert!(report.ledger.attempts[1].hedge);
    assert_eq!(report.elapsed / 1000, 2);
    // The hedge fails, the first one answers after all... here it never does.
    let acts = vec![hang(HEAD), say(status(503, "", "")), say(good("p2"))];
    let report = World::new(defaults, acts).run(true);
    assert_eq!(report.text(), expected(2));
    assert_eq!(report.attempts(), ["first_content_timeout", "503", "ok"]);
}

#[test]
fn a_stale_pooled_connection_is_replaced_once_and_is_no_attempt() {
    let mut world = World::new("", vec![say(good("p0"))]);
    world.reused = true;
    let report = world.run(true);
    assert_eq!(report.text(), expected(0));
    assert_eq!(report.dials, [9000, 9000]);
    assert_eq!(report.attempts(), ["ok"]);
    assert!(report.ledger.attempts[0].replayed);
    let mut world = World::new("replay = false\n", vec![say(good("p0")), say(good("p1"))]);
    world.reused = true;
    let report = world.run(true);
    // The second is stale as well, and may not be replaced either.
    assert_eq!(report.attempts(), ["reset", "reset"]);
}

#[test]
fn whole_answers_are_held_whole() {
    let body = "{\"id\":\"x\",\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}";
    let answer = status(200, "content-type: application/json\r\n", body);
    for at in 0..answer.len() {
        for cut in [say(&answer[..at]), reset(&answer[..at])] {
            let report = World::new("", vec![cut, say(&answer)]).run(false);
            assert_eq!(report.text(), body.replace("\"up\"", "\"m\""), "cut at {at}");
            assert_eq!(report.ledger.attempts.len(), 2);
        }
    }
    let report = World::new("", vec![hang(&answer[..60]), say(&answer)]).run(false);
    assert_eq!(report.elapsed / 1000, 120);
    assert_eq!(report.ledger.usage.map(|u| (u.prompt, u.completion)), Some((3, 4)));
    // An error object in a 200, and what is no JSON.
    for bad in ["{\"error\":{\"message\":\"x\"}}", "{\"choices\":", "[]"] {
        let acts = vec![say(status(200, "", bad)), say(&answer)];
        let report = World::new("", acts).run(false);
        assert_eq!(report.ledger.attempts.len(), 2, "{bad}");
        assert_eq!(report.status(), 200);
    }
}

#[test]
fn an_answer_over_its_limit_commits_there() {
    let body = format!("{{\"id\":\"c\",\"model\":\"up\",\"text\":\"{}\"}}", "y".repeat(5000));
    let answer = status(200, "content-type: application/json\r\n", &body);
    let mut world = World::new("answer_max = \"4KiB\"\n", vec![say(&answer)]);
    world.piece = 1000;
    let report = world.run(false);
    assert_eq!(report.text(), body.replace("\"up\"", "\"m\""));
    assert_eq!(report.ledger.committed.map(|c| c.1), Some(CommittedBy::AnswerFull));
}

#[test]
fn a_finish_without_terminator_is_a_good_end_after_a_short_tail() {
    let closed: fn(&str) -> Act = |text| say(text);
    for last in [hang as fn(&str) -> Act, closed, reset] {
        let begun = [HEAD, &role(), &event("hello from p0"), &event("more"), &finish()].concat();
        let report = World::new("", vec![last(&begun)]).run(true);
        assert_eq!(report.text(), expected(0));
        assert_eq!(report.ledger.ending, Ending::Good);
        assert!(report.elapsed <= 2_001, "{}", report.elapsed);
    }
}

#[test]
fn a_missing_finish_reason_is_derived_and_a_second_one_dropped() {
    let begun = [HEAD, &role(), &event("hi")].concat();
    let report = World::new("", vec![say([&begun, DONE].concat())]).run(true);
    assert!(report.text().contains("\"finish_reason\":\"stop\""), "{}", report.text());
    let call = "{\"index\":0,\"id\":\"t\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}";
    let tools = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{call}]}}}}]}}\n\n"
    );
    let report = World::new("", vec![say([begun.as_str(), &tools, DONE].concat())]).run(true);
    assert!(report.text().contains("\"finish_reason\":\"tool_calls\""), "{}", report.text());
    let twice = [&begun, &finish(), &finish(), DONE].concat();
    let report = World::new("", vec![say(twice)]).run(true);
    assert_eq!(report.text().matches("\"finish_reason\":\"stop\"").count(), 1);
    assert_eq!(report.text().matches("\"finish_reason\":null").count(), 1);
}

#[test]
fn the_retry_budget_stops_a_storm() {
    let defaults =
        "retry_budget = { ratio = 0.0, floor = 2, window = \"10s\" }\nbreaker = \"off\"\n";
    let acts = vec![say(status(503, "", "")), say(status(500, "", ""))];
    let mut world = World::new(defaults, acts);
    let counts: Vec<_> = (0..4).map(|_| world.run(true).ledger.attempts.len()).collect();
    assert_eq!(counts, [2, 2, 1, 1]);
    let report = world.run(true);
    assert!(report.ledger.budget_spent);
    assert!(report.text().contains("retry budget"), "{}", report.text());
}

#[test]
fn a_reader_that_stops_stops_the_reading_upstream() {
    let events: String = (0..2000).map(|i| event(&format!("{i:0>100}"))).collect();
    let mut world = World::new("", vec![say([HEAD, &events].concat())]);
    world.piece = 4096;
    world.deaf_after = 1;
    let report_bytes = {
        let job = job(&world.table, true, world.now);
        // The write limit ends it; what was buffered is bounded.
        let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run_job(job)));
        let report = report.unwrap_or_else(|_| panic!("the exchange must end by itself"));
        assert_eq!(report.ledger.ending, Ending::Gone);
        report.ledger.attempts[0].bytes as usize
    };
    assert!(report_bytes < limits::BACKLOG_BYTES_MAX + 3 * 4096, "{report_bytes}");
}

#[test]
fn what_is_held_for_a_reader_that_stops_is_bounded() {
    for (size, piece) in
        [(1, 32), (1, 4), (100, 32), (100, 1), (4_000, 32), (20_000, 32), (20_000, 3)]
    {
        let events = event(&"x".repeat(size)).repeat(1 + (1 << 20) / size.max(100));
        for deaf_after in [1, 500, 10_000, 40_000, 100_000] {
            let mut world = World::new("", vec![say([HEAD, &events].concat())]);
            world.piece = piece * 1024;
            world.deaf_after = deaf_after;
            let ledger = world.run(true).ledger;
            assert_eq!(ledger.ending, Ending::Gone, "the write limit ends it");
            let case = format!("events of {size}, pieces of {piece} KiB, deaf after {deaf_after}");
            assert!(
                world.held_most <= limits::STREAM_BYTES_MAX,
                "{} bytes: {case}",
                world.held_most
            );
        }
    }
}

#[test]
fn a_slow_reader_is_not_blamed_on_the_provider() {
    let long = event(&"x".repeat(1000)).repeat(limits::BACKLOG_BYTES_MAX / 500);
    let whole = [HEAD, &long, &finish(), DONE].concat();
    for defaults in ["idle_timeout = \"10s\"\n", "throughput_floor = 2\n"] {
        let mut world = World::new(defaults, vec![say(&whole)]);
        world.piece = 4096;
        world.slow_by = Ms(25_000);
        let report = world.run(true);
        assert_eq!(report.ledger.ending, Ending::Good, "{defaults}");
        assert!(report.elapsed > 50_000, "the client must have been slow");
    }
}

#[test]
fn deadlines_end_the_plan() {
    let acts = vec![hang(""), hang(""), hang("")];
    let report = World::new("first_content_deadline = \"25s\"\n", acts).run(true);
    assert_eq!((report.status(), report.elapsed / 1000), (504, 25));
    assert_eq!(report.attempts(), ["head_timeout", "deadline"]);
    let slow = [HEAD, &event("a")].concat();
    let report = World::new("total_timeout = \"10s\"\n", vec![hang(&slow)]).run(true);
    assert!(report.text().contains("stream_timeout"));
    assert_eq!(report.elapsed / 1000, 10);
}

#[test]
fn a_slow_stream_falls_under_its_floor() {
    let slow = [HEAD, &event("a"), &event("b")].concat();
    let report = World::new("throughput_floor = 2\n", vec![hang(&slow)]).run(true);
    assert_eq!(report.ledger.ending, Ending::Cut(Fault::TooSlow));
    assert_eq!(report.elapsed / 1000, 5);
}

#[test]
fn a_stream_above_its_floor_is_not_cut() {
    let quick = [HEAD.to_owned(), event("a").repeat(10)].concat();
    let report = World::new("throughput_floor = 2\n", vec![hang(&quick)]).run(true);
    // Ten in the first window are two a second; none in the second are not.
    assert_eq!(report.ledger.ending, Ending::Cut(Fault::TooSlow));
    assert_eq!(report.elapsed / 1000, 10);
}

#[test]
fn outcomes_read_well() {
    assert_eq!(Outcome::Status(503).to_string(), "503");
    assert_eq!(Outcome::Fault(Fault::HeadTimeout).to_string(), "head_timeout");
}

/// Gives provider `i` a token that is good until then.
fn give_token(world: &mut World, i: usize, until: Tick) -> std::sync::Arc<route::token::Token> {
    let token_url = config::BaseUrl { tls: true, host: "h".into(), port: 443, path: "/t".into() };
    let key = crate::base::secret::Secret::new("pem");
    let account = config::ServiceAccount { email: "a@b".into(), key_id: None, key, token_url };
    let token = std::sync::Arc::new(route::token::Token::new(account));
    token.publish(crate::base::secret::Secret::new("t"), until);
    world.table.providers[crate::base::ids::ProviderId(i as u16)].token = Some(token.clone());
    token
}

#[test]
fn a_token_that_ends_on_the_way_costs_an_attempt_and_no_dial() {
    for hedge in ["off", "10ms"] {
        let defaults = format!("first_content_timeout = \"1s\"\nhedge_after = \"{hedge}\"");
        let mut world = World::new(&defaults, vec![hang(HEAD), say(good("p1")), say(good("p2"))]);
        let until = world.now + Ms(5);
        let token = give_token(&mut world, 1, until);
        let report = world.run(true);
        assert!(report.text().contains("hello from p2"), "{hedge}: {}", report.text());
        assert_eq!(report.dials, [9000, 9002], "{hedge}");
        let attempts = report.attempts();
        assert_eq!(attempts[1..], ["no_token", "ok"], "{hedge}: {attempts:?}");
        assert!(!token.is_refused(), "{hedge}");
    }
}

#[test]
fn a_token_that_was_not_accepted_is_refused() {
    for (answer, refused) in [(status(401, "", "{}"), true), (status(403, "", "{}"), false)] {
        let mut world = World::new("", vec![say(answer), say(good("p1"))]);
        let token = give_token(&mut world, 0, Tick::NEVER);
        let report = world.run(true);
        assert!(report.text().contains("hello from p1"));
        assert_eq!(token.is_refused(), refused);
    }
}

#[test]
fn a_stream_that_is_passed_unread_ends_its_torn_event_before_the_error() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\n\r\n";
    let mut world = World::new("", vec![reset(&format!("{head}data: whole\n\ndata: to"))]);
    let mut job = job(&world.table, true, world.now);
    job.ask.surface = Surface::Other;
    let report = world.run_job(job);
    assert_eq!(report.ledger.ending, Ending::Cut(Fault::Reset));
    let text = report.text();
    assert!(text.starts_with("data: whole\n\ndata: to\n\ndata: {\"error\":{"), "{text}");
    assert!(text.ends_with("}}\n\n"), "{text}");
}
