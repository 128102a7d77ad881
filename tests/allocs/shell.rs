//! The same through the whole shell, on a thread of its own as a core has it: sockets, timers, pool, plan.
//! Client and provider are other threads, which are not counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use allocation_counter::measure;

use firstbyte::base::ids::CoreId;
use firstbyte::config;
use firstbyte::exchange::ledger::Ledger;
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, Shared, Snapshot};
use firstbyte::net::names::Names;
use firstbyte::net::watch::Watch;
use firstbyte::route;
use firstbyte::rt::uring::{Loop, MonoListener};

/// Requests before what counts, and of what counts.
const WARM: usize = 100;
const COUNTED: usize = 400;
const SMALL_MAX: f64 = 8.0;

#[test]
fn a_small_request_costs_few_allocations_once_warm() {
    for (name, open) in [("io_uring", Loop::io_uring as fn() -> _), ("epoll", Loop::epoll)] {
        if let Err(error) = open() {
            println!("skipped on {name}: {error}");
            continue;
        }
        for stream in [false, true] {
            let (few, many) = (cost(open, stream, WARM), cost(open, stream, WARM + COUNTED));
            let each = (many as f64 - few as f64) / COUNTED as f64;
            println!("{name}, streamed {stream}: {each:.2} allocations for a request");
            assert!(each <= SMALL_MAX, "{name}, streamed {stream}: {each:.2}");
        }
    }
}

/// Allocations of a core that serves so many requests, one after the other on one connection.
fn cost(open: fn() -> std::io::Result<Loop>, stream: bool, requests: usize) -> u64 {
    let provider = provider(stream);
    let shared = Arc::new(Shared::new(snapshot(provider), Names::default(), Arc::new(Nobody)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap();
    let control = shared.clone();
    let core = thread::spawn(move || {
        let mut engine = open().unwrap();
        let kind = engine.engine();
        let served = measure(|| {
            engine.run(|rt| async move {
                listener.set_nonblocking(true).unwrap();
                let listener = MonoListener::from_std(listener, kind).unwrap();
                core::serve(rt, vec![listener], shared, CoreId(0), 1).await
            });
        });
        served.count_total
    });
    ask(gateway, stream, requests);
    control.raise(Level::Draining);
    core.join().unwrap()
}

fn ask(gateway: SocketAddr, stream: bool, requests: usize) {
    let body = format!(
        "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}],\"stream\":{stream}}}"
    );
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         authorization: Bearer some-key\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let end: &[u8] = if stream { b"data: [DONE]\n\n\r\n0\r\n\r\n" } else { b"}}" };
    let mut socket = TcpStream::connect(gateway).unwrap();
    let (mut buf, mut answer) = ([0; 4096], Vec::new());
    for _ in 0..requests {
        socket.write_all(request.as_bytes()).unwrap();
        answer.clear();
        while !answer.ends_with(end) {
            let count = socket.read(&mut buf).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buf[..count]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Answers every request alike, on connections that it keeps.
fn provider(stream: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = if stream { streamed() } else { whole() };
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, answer) = (socket.unwrap(), answer.clone());
            thread::spawn(move || {
                let (mut buf, mut request) = ([0; 4096], Vec::new());
                while let Ok(count @ 1..) = socket.read(&mut buf) {
                    request.extend_from_slice(&buf[..count]);
                    // A body of JSON, which ends with the message.
                    if request.ends_with(b"}") {
                        request.clear();
                        socket.write_all(&answer).unwrap();
                    }
                }
            });
        }
    });
    addr
}

fn whole() -> Vec<u8> {
    let body = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"up\",\"choices\":\
        [{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hello\"},\"finish_reason\":\"stop\"}],\
        \"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}";
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + body).into_bytes()
}

fn streamed() -> Vec<u8> {
    let mut all = String::from(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    let choice = |delta: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"up\",\
             \"choices\":[{{\"index\":0,{delta}}}]}}\n\n"
        )
    };
    for event in [
        choice("\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null"),
        choice("\"delta\":{\"content\":\"hello\"},\"finish_reason\":null"),
        choice("\"delta\":{},\"finish_reason\":\"stop\""),
        String::from("data: [DONE]\n\n"),
    ] {
        all += &format!("{:x}\r\n{event}\r\n", event.len());
    }
    (all + "0\r\n\r\n").into_bytes()
}

fn snapshot(provider: SocketAddr) -> Snapshot {
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:80\"]\nadmin = \"off\"\n\
         [providers.p]\nkind = \"openai\"\nbase_url = \"http://{provider}/v1\"\n\
         [models.m]\ntargets = [\"p/up\"]\n"
    );
    let config = config::load(&text, &|_| Err(String::from("none"))).unwrap();
    let table = route::compile(&config, None).unwrap();
    Snapshot::new(1, config.server, config.auth, table).unwrap()
}

/// Hears everything and keeps nothing.
struct Nobody;

impl Watch for Nobody {
    fn connected(&self, _core: CoreId) {}
    fn disconnected(&self, _core: CoreId) {}
    fn began(&self, _core: CoreId) {}
    fn ended(&self, _core: CoreId, _ledger: Ledger) {}
    fn dialed(&self, _core: CoreId, _fresh: bool) {}
}
