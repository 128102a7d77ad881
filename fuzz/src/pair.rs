//! What one client connection says, and what a provider gets for it: the whole shell between the two, in
//! a simulated world where nothing fails. A second reader, written from the RFC, tells apart the requests
//! on either side. Each request upstream is one of the client's, in order, with its method, its path and
//! its body, octet for octet but for the model's name, and with no field that was not to pass.
//!
//! ```text
//!   how the rest is cut | what the client sends, until it ends its direction
//! ```

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use firstbyte::base::buf::Buf;
use firstbyte::base::ids::CoreId;
use firstbyte::base::tick::Ms;
use firstbyte::config::{self, Config};
use firstbyte::exchange::ledger::Ledger;
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, Shared, Snapshot};
use firstbyte::net::names::Names;
use firstbyte::net::watch::Watch;
use firstbyte::route;
use firstbyte::rt::sim::{Faults, SimReader, SimRt, SimStop, SimWriter, World};
use firstbyte::rt::{Accept as _, Reader as _, Rt as _, Stop as _, Writer as _};
use serde_json::Value;

use crate::naive::{self, Framing, Read, Request};

const CONFIG: &str = "
[server]
listen = [\"127.0.0.1:80\"]
admin = \"off\"
head_max = \"8KiB\"
body_max = \"64KiB\"
half_close = \"serve\"
[providers.p]
kind = \"openai\"
base_url = \"http://10.0.1.1/base\"
keys = [\"env:KEY\"]
[models.m]
targets = [\"p/up\"]
[passthrough]
provider = \"p\"
";
const KEY: &str = "sk-of-the-gateway";

/// Checks one input.
pub fn check(data: &[u8]) {
    met(data);
}

/// Checks one input; says how many requests went upstream.
pub fn met(data: &[u8]) -> usize {
    let (cuts, bytes) = crate::cuts(data);
    let played = play(bytes, &cuts);
    let theirs = requests(bytes);
    let count = played.upstream.len();
    let mut upstream = played.upstream.into_iter();
    for (at, ledger) in played.ledgers.iter().enumerate() {
        let Some(theirs) = theirs.get(at) else {
            // The shell saw one more, which is none: refused, and the end of the connection.
            assert!(ledger.attempts.is_empty(), "no request, and an attempt: {ledger:?}");
            assert!(ledger.status >= 400, "no request, and an answer: {ledger:?}");
            assert_eq!(at + 1, played.ledgers.len(), "something follows what is no request");
            break;
        };
        for _ in ledger.attempts.iter().filter(|attempt| attempt.status != 0) {
            let request = upstream.next().expect("an attempt that nobody met");
            same(theirs, &request);
        }
    }
    assert!(upstream.next().is_none(), "more went upstream than was asked for");
    count
}

/// The requests of some bytes as they follow each other, up to the first that is none or not whole.
fn requests(bytes: &[u8]) -> Vec<Request> {
    let (mut at, mut all) = (0, Vec::new());
    while let Read::Whole(request, used) = naive::request(&bytes[at..]) {
        all.push(*request);
        at += used;
    }
    all
}

/// One request, at the client's side and at the provider's.
fn same(asked: &Request, got: &Request) {
    let shown = || format!("{asked:#?}\nwent upstream as\n{got:#?}");
    assert_eq!(got.minor, 1, "{}", shown());
    let length = got.body.len() as u64;
    match got.framing {
        Framing::Length(told) => assert_eq!(told, length),
        Framing::None => assert_eq!(length, 0),
        Framing::Chunked => panic!("chunks upstream: {}", shown()),
    }
    fields(asked, got);
    let (path, query) = asked.target.split_at(asked.target.find('?').unwrap_or(asked.target.len()));
    let path = decoded(path);
    let rest = path.strip_prefix("/v1").unwrap_or_else(|| panic!("{}", shown()));
    if matches!(rest, "/messages" | "/messages/count_tokens" | "/responses") {
        // Told in another dialect: nothing to compare but who is asked, and for what.
        assert_eq!(got.method, "POST");
        assert_eq!(got.target.split('?').next(), Some("/base/chat/completions"), "{}", shown());
        let body: Value = serde_json::from_slice(&got.body).expect("a body that we wrote");
        return assert_eq!(body["model"], "up", "{}", shown());
    }
    assert_eq!(got.method, asked.method, "{}", shown());
    // A URI has no brackets but around an address (RFC 3986, 3.2.2); what a client writes is encoded.
    let target = format!("/base{rest}{query}").replace('[', "%5B").replace(']', "%5D");
    assert_eq!(got.target, target, "{}", shown());
    bodies(&asked.body, &got.body, &shown);
}

/// What may stand in a request upstream, and whose value it is.
fn fields(asked: &Request, got: &Request) {
    let nominated: Vec<_> = asked
        .fields
        .iter()
        .filter(|(name, _)| name == "connection")
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    for (name, value) in &got.fields {
        let shown = || format!("{name}: {:?}, {asked:#?}", String::from_utf8_lossy(value));
        let times = got.fields.iter().filter(|(other, _)| other == name).count();
        assert_eq!(times, 1, "twice: {}", shown());
        let ours: Option<Vec<u8>> = match name.as_str() {
            "host" => Some(b"10.0.1.1".to_vec()),
            "authorization" => Some(format!("Bearer {KEY}").into_bytes()),
            "accept-encoding" => Some(b"identity".to_vec()),
            "user-agent" => {
                assert!(value.starts_with(b"firstbyte/"), "{}", shown());
                None
            }
            "content-length" => Some(got.body.len().to_string().into_bytes()),
            "accept" if **value == *b"application/json" || **value == *b"text/event-stream" => None,
            "content-type" if **value == *b"application/json" => None,
            "openai-beta"
            | "idempotency-key"
            | "x-client-request-id"
            | "traceparent"
            | "tracestate"
            | "accept"
            | "content-type" => {
                assert!(!nominated.contains(name), "for one connection only: {}", shown());
                let first = asked.fields.iter().find(|(other, _)| other == name);
                Some(first.unwrap_or_else(|| panic!("nobody sent {}", shown())).1.clone())
            }
            _ => panic!("not to be passed on: {}", shown()),
        };
        assert!(ours.is_none_or(|ours| ours == *value), "{}", shown());
    }
}

/// The body upstream is the client's but for what is the gateway's own.
fn bodies(asked: &[u8], got: &[u8], shown: &dyn Fn() -> String) {
    if asked == got {
        return;
    }
    // JSON that numbers, depth or surrogates keep from this reader was read by the other.
    let (Ok(mut left), Ok(mut right)) =
        (serde_json::from_slice::<Value>(asked), serde_json::from_slice::<Value>(got))
    else {
        assert!(firstbyte::wire::json::document(asked).is_ok(), "{}", shown());
        assert!(firstbyte::wire::json::document(got).is_ok(), "{}", shown());
        return;
    };
    assert_eq!(right["model"], "up", "{}", shown());
    let mut back = right.clone();
    back["model"] = left["model"].clone();
    let plain = back == left;
    let own = ["model", "models", "provider", "stream_options"];
    for value in [&mut left, &mut right] {
        let members = value.as_object_mut().unwrap_or_else(|| panic!("{}", shown()));
        own.iter().for_each(|name| drop(members.remove(*name)));
    }
    assert_eq!(left, right, "{}", shown());
    // One name for the model, written plainly, and nothing else to change: then every octet is known.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (asked, got) = (text(asked), text(got));
    let (before, after) = ("\"model\":\"m\"", "\"model\":\"up\"");
    if plain && asked.matches(before).count() == 1 && asked.matches("model").count() == 1 {
        assert_eq!(asked.replacen(before, after, 1), got, "{}", shown());
    }
}

/// A path without the percent signs that it has no need of.
fn decoded(path: &str) -> String {
    let (mut out, mut rest) = (String::new(), path);
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        let digits = &rest[at + 1..at + 3];
        let octet = u8::from_str_radix(digits, 16).unwrap();
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out += &format!("%{}", digits.to_ascii_uppercase());
        }
        rest = &rest[at + 3..];
    }
    out + rest
}

/// What came of a connection.
struct Played {
    /// One of each request that the shell saw, in order.
    ledgers: Vec<Ledger>,
    /// What the provider got, in order.
    upstream: Vec<Request>,
}

#[derive(Default)]
struct Notes(Mutex<Vec<Ledger>>);

impl Watch for Notes {
    fn connected(&self, _: CoreId) {}
    fn disconnected(&self, _: CoreId) {}
    fn began(&self, _: CoreId) {}
    fn ended(&self, _: CoreId, ledger: Ledger) {
        self.0.lock().unwrap().push(ledger);
    }
    fn dialed(&self, _: CoreId, _: bool) {}
}

fn play(bytes: &[u8], cuts: &[usize]) -> Played {
    thread_local! {
        static READ: Config =
            config::load(CONFIG, &|_| Ok(KEY.into())).unwrap_or_else(|e| panic!("{e:?}"));
    }
    let config = READ.with(Config::clone);
    let world = World::new(1, Faults::none());
    let (gateway, place): (SocketAddr, SocketAddr) =
        ("10.0.0.1:80".parse().unwrap(), "10.0.1.1:80".parse().unwrap());
    let upstream = Rc::new(RefCell::new(Vec::new()));
    let (listener, rt, seen) = (world.listen(place), world.rt(), upstream.clone());
    world.rt().spawn(async move {
        let stop = SimStop::new();
        while let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
            rt.spawn(provide(reader, writer, seen.clone()));
        }
    });
    let table = route::compile(&config, None).unwrap();
    let snapshot = Snapshot::new(1, config.server, config.auth, table);
    let snapshot = snapshot.unwrap_or_else(|problems| panic!("{problems:?}"));
    let notes = Arc::new(Notes::default());
    let shared = Arc::new(Shared::new(snapshot, Names::default(), notes.clone()));
    let listener = world.listen(gateway);
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]).filter(|cut| *cut <= bytes.len()) {
        if cut > from {
            pieces.push(bytes[from..cut].to_vec());
            from = cut;
        }
    }
    let (rt, control) = (world.rt(), shared.clone());
    world.rt().spawn(async move {
        ask(rt, gateway, pieces).await;
        control.raise(Level::Draining);
    });
    let end = world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), 1));
    world.settle();
    assert_eq!((end, world.lost_ops()), (core::End::Drained, 0));
    let ledgers = std::mem::take(&mut *notes.0.lock().unwrap());
    let upstream = std::mem::take(&mut *upstream.borrow_mut());
    Played { ledgers, upstream }
}

/// Sends the pieces, each by itself, ends the direction, and reads to the end.
async fn ask(rt: SimRt, gateway: SocketAddr, pieces: Vec<Vec<u8>>) {
    let (mut reader, mut writer) = rt.dial(gateway).await.unwrap();
    rt.spawn({
        let rt = rt.clone();
        async move {
            for piece in pieces {
                if !send(&mut writer, &piece).await {
                    return;
                }
                rt.sleep_until(rt.now() + Ms(1)).await;
            }
        }
    });
    let stop = SimStop::new();
    while let (Ok(1..), _) = reader.read(Buf::with_capacity(4096), stop.handle()).await {}
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

/// A provider that reads with the naive reader, and takes nothing that is odd.
async fn provide(mut reader: SimReader, mut writer: SimWriter, seen: Rc<RefCell<Vec<Request>>>) {
    let (mut have, stop) = (Vec::new(), SimStop::new());
    loop {
        match naive::request(&have) {
            Read::Whole(request, used) => {
                let raw: Vec<u8> = have.drain(..used).collect();
                let shown = || String::from_utf8_lossy(&raw).into_owned();
                assert!(raw.starts_with(request.method.as_bytes()), "{:?}", shown());
                assert!(have.is_empty(), "more than one at a time: {:?}", shown());
                let stream = request.body.windows(13).any(|w| w == b"\"stream\":true");
                let answer = if stream { STREAM } else { WHOLE };
                seen.borrow_mut().push(*request);
                if !send(&mut writer, answer.as_bytes()).await {
                    return;
                }
            }
            Read::Bad(why) => panic!("{why}: {:?}", String::from_utf8_lossy(&have)),
            Read::More => {
                let (got, buf) = reader.read(Buf::with_capacity(8192), stop.handle()).await;
                if !matches!(got, Ok(1..)) {
                    assert!(have.is_empty(), "half: {:?}", String::from_utf8_lossy(&have));
                    return;
                }
                have.extend_from_slice(buf.as_slice());
            }
        }
    }
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 116\r\n\r\n\
    {\"id\":\"x\",\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
    50\r\ndata: {\"id\":\"x\",\"model\":\"up\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n\r\n\
    59\r\ndata: {\"id\":\"x\",\"model\":\"up\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\r\n\
    e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
