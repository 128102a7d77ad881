//! What open streams and idle connections cost in resident memory: the real process, one core, counted
//! by the kernel.

#![cfg(feature = "uring")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STREAMS: usize = 2000;
const IDLE: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn streams_and_idle_connections_are_cheap() {
    let (_, hard) = rlimit::Resource::NOFILE.get().unwrap();
    rlimit::Resource::NOFILE.set(hard, hard).unwrap();
    if hard < 3 * STREAMS as u64 {
        eprintln!("skipped: only {hard} descriptors are allowed here");
        return;
    }
    for driver in ["io_uring", "epoll"] {
        let upstream = provider(0);
        let Some(gateway) = Gateway::start(driver, upstream) else {
            eprintln!("skipped on {driver}: this machine refuses it");
            continue;
        };
        let before = gateway.resident();
        let streams: Vec<TcpStream> = (0..STREAMS).map(|_| open_stream(gateway.addr)).collect();
        let with_streams = gateway.resident();
        println!("{driver}: {before} KiB at rest, {with_streams} KiB with {STREAMS} open streams");
        // The debug build's futures are some times as large as those of a release.
        assert!(with_streams <= 64 * 1024, "{driver}: {with_streams} KiB");
        assert_eq!(gateway.status("THP_enabled:").trim(), "0", "{driver}: huge pages are given");
        drop(streams);
        drop(gateway);
        let gateway = Gateway::start(driver, upstream).unwrap();
        let before = gateway.resident();
        let idle: Vec<TcpStream> = (0..IDLE).map(|_| idle_connection(gateway.addr)).collect();
        let each = (gateway.resident() - before) * 1024 / idle.len();
        println!("{driver}: {each} bytes for each of {IDLE} idle connections");
        assert!(each <= 8 * 1024, "{driver}: {each} bytes");
    }
}

#[test]
fn a_reader_that_stops_costs_no_more_than_its_share() {
    for driver in ["io_uring", "epoll"] {
        let Some(gateway) = Gateway::start(driver, provider(FLOOD)) else {
            eprintln!("skipped on {driver}: this machine refuses it");
            continue;
        };
        // Warm: what the first ones cost is not theirs.
        let warm: Vec<TcpStream> = (0..8).map(|_| open_stream(gateway.addr)).collect();
        let before = gateway.settled();
        let deaf: Vec<TcpStream> = (0..DEAF).map(|_| open_stream(gateway.addr)).collect();
        let each = (gateway.settled().saturating_sub(before)) * 1024 / deaf.len();
        println!("{driver}: {each} bytes for each of {DEAF} streams whose client does not read");
        assert!(each <= 128 * 1024, "{driver}: {each} bytes");
        drop(warm);
    }
}

/// Streams whose client reads their beginning and no more, and what their provider sends.
const DEAF: usize = 64;
const FLOOD: usize = 8 << 20;

/// Answers each request with two events and `flood` bytes more, and holds the connection.
fn provider(flood: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_until(&mut stream, "\"stream\":true}");
            let event = |delta: &str| {
                format!(
                    "data: {{\"model\":\"up\",\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n"
                )
            };
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            let parts =
                [head.into(), event("{\"role\":\"assistant\"}"), event("{\"content\":\"begun\"}")];
            stream.write_all(parts.concat().as_bytes()).unwrap();
            if flood > 0 {
                let mut rest = stream.try_clone().unwrap();
                let part = event("{\"content\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}").repeat(256);
                // It waits for ever once nobody reads; the end of the process ends it.
                std::thread::spawn(move || {
                    let mut sent = 0;
                    while sent < flood && rest.write_all(part.as_bytes()).is_ok() {
                        sent += part.len();
                    }
                });
            }
            held.push(stream);
        }
    });
    addr
}

fn open_stream(gateway: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    read_until(&mut stream, "begun");
    stream
}

fn idle_connection(gateway: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(gateway).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    read_until(&mut stream, "\"object\":\"list\"");
    stream
}

fn read_until(stream: &mut TcpStream, text: &str) {
    let (mut seen, mut chunk) = (String::new(), [0; 4096]);
    while !seen.contains(text) {
        let count = match stream.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.unwrap(),
        };
        assert_ne!(count, 0, "closed before {text:?} came: {seen}");
        seen += &String::from_utf8_lossy(&chunk[..count]);
    }
}

struct Gateway {
    addr: SocketAddr,
    process: Child,
}

impl Gateway {
    /// Starts the program; `None` if it refuses the driver.
    fn start(driver: &str, upstream: SocketAddr) -> Option<Gateway> {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "[server]\nlisten = [\"{addr}\"]\nadmin = \"off\"\ncores = 1\ndriver = \"{driver}\"\n\
             [log]\nledger = \"off\"\n[defaults]\nidle_timeout = \"300s\"\n\
             [providers.p]\nkind = \"openai\"\nbase_url = \"http://{upstream}/v1\"\n[models.m]\ntargets = [\"p/up\"]\n"
        );
        // Both tests run at once.
        let name = format!("firstbyte-memory-{}-{}.toml", std::process::id(), addr.port());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, config).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_firstbyte"))
            .args(["serve", "-c"])
            .arg(&path)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_err() {
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < until, "the gateway does not start");
            std::thread::yield_now();
        }
        Some(Gateway { addr, process })
    }

    /// Resident memory in KiB once it has stopped growing.
    fn settled(&self) -> usize {
        let (mut last, mut since) = (0, Instant::now());
        while since.elapsed() < Duration::from_millis(500) {
            let now = self.resident();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            std::thread::yield_now();
        }
        last
    }

    /// Resident memory in KiB, as the kernel counts it.
    fn resident(&self) -> usize {
        self.status("VmRSS:").trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What the kernel says of the process under this name (proc_pid_status(5)).
    fn status(&self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
