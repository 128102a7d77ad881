//! A process that runs out of descriptors: it does not spin, says so once, answers on its admin listener,
//! blames no provider, and recovers by itself.

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

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the process may open.
const ALLOWED: u32 = 64;
/// More connections than that.
const CONNECTIONS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_process_without_descriptors_recovers() {
    for driver in ["io_uring", "epoll"] {
        let Some(gateway) = Gateway::start(driver, provider()) else {
            eprintln!("skipped on {driver}: this machine refuses it");
            continue;
        };
        let warning = "connections_max = 1000 needs 2128 descriptors, and 64 are allowed";
        assert!(gateway.said(warning), "{driver}: {:?}", gateway.log.lock().unwrap());
        let mut first = connect(gateway.addr);
        assert!(chat(&mut first).starts_with("HTTP/1.1 200"), "{driver}");
        let others: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(gateway.addr)).collect();
        wait_for("an accept that fails", || gateway.missing() > 0);
        // Whoever asks how the process is gets an answer all the same.
        assert!(get(gateway.admin, "/livez").ends_with("ok\n"), "{driver}");
        assert!(get(gateway.admin, "/metrics").contains("\nfirstbyte_shed_total{"), "{driver}");
        // A connection that is in can't reach a provider now, which is not the provider's fault.
        let answer = wait_for_some("a dial that fails", || {
            let answer = chat(&mut first);
            (!answer.starts_with("HTTP/1.1 200")).then_some(answer)
        });
        assert!(answer.starts_with("HTTP/1.1 503"), "{driver}: {answer}");
        assert!(answer.contains("\r\nretry-after: 1\r\n"), "{driver}: {answer}");
        assert!(answer.contains("p/up;no_descriptor;"), "{driver}: {answer}");
        let breaker = "firstbyte_breaker_opened_total{target=\"p/up\"} 0";
        assert!(get(gateway.admin, "/metrics").contains(breaker), "{driver}");
        // No spin: some fifty failures a second at most, for as long as a slow machine takes.
        let (missing, alive) = (gateway.missing(), gateway.started.elapsed().as_secs() + 1);
        assert!(missing < 500 * alive, "{driver}: {missing} failures in {alive} s");
        drop(others);
        wait_for("an answer", || chat(&mut first).starts_with("HTTP/1.1 200"));
        wait_for("a new connection's answer", || {
            chat(&mut connect(gateway.addr)).starts_with("HTTP/1.1 200")
        });
        wait_for("the end of it in the log", || gateway.said("descriptors are there again"));
        let log = gateway.log.lock().unwrap().clone();
        let told = log.iter().filter(|line| line.contains("no descriptor is left")).count();
        assert_eq!(told, 1, "{driver}: {log:?}");
        println!("{driver}: {missing} accepts and dials failed, told once");
    }
}

/// Answers each request and closes: each needs a dial.
fn provider() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if !read_until(&mut stream, "\"stream\":false}").1 {
                continue;
            }
            let body = "{\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    addr
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks once; a connection that is closed unanswered gives what came.
fn chat(stream: &mut TcpStream) -> String {
    let body = "{\"model\":\"m\",\"messages\":[],\"stream\":false}";
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length";
    if write!(stream, "{head}: {}\r\n\r\n{body}", body.len()).is_err() {
        return String::new();
    }
    // Whole answers and errors are one JSON object each.
    read_until(stream, "}]}").0
}

fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = connect(addr);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    read_until(&mut stream, "\u{0}").0
}

/// Reads until the text has come or the peer closes; whether it came.
fn read_until(stream: &mut TcpStream, text: &str) -> (String, bool) {
    let (mut seen, mut chunk) = (String::new(), [0; 4096]);
    loop {
        // An error is whole when all that was announced is here.
        if seen.contains(text) || (seen.starts_with("HTTP/1.1 50") && is_whole(&seen)) {
            return (seen, true);
        }
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return (seen, false),
            Ok(count) => seen += &String::from_utf8_lossy(&chunk[..count]),
        }
    }
}

fn is_whole(seen: &str) -> bool {
    let Some((head, body)) = seen.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}

fn wait_for(what: &str, mut found: impl FnMut() -> bool) {
    wait_for_some(what, || found().then_some(()));
}

fn wait_for_some<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::yield_now();
    }
}

struct Gateway {
    addr: SocketAddr,
    admin: SocketAddr,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    started: Instant,
}

impl Gateway {
    /// Starts the program with few descriptors; `None` if it refuses the driver.
    fn start(driver: &str, upstream: SocketAddr) -> Option<Gateway> {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (addr, admin) = (free(), free());
        let config = format!(
            "[server]\nlisten = [\"{addr}\"]\nadmin = \"{admin}\"\ncores = 1\ndriver = \"{driver}\"\n\
             connections_max = 1000\nlag_max = \"off\"\n[log]\nledger = \"off\"\n\
             [providers.p]\nkind = \"openai\"\nbase_url = \"http://{upstream}/v1\"\n[models.m]\ntargets = [\"p/up\"]\n"
        );
        let name = format!("firstbyte-descriptors-{}-{driver}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, config).unwrap();
        let line = format!("ulimit -n {ALLOWED}; exec \"$0\" serve -c \"$1\"");
        let mut process = Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_firstbyte")])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(process.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let started = Instant::now();
        let gateway = Gateway { addr, admin, process, log, started };
        wait_for_some("the start", || {
            // Counting the attempts would take descriptors from what is tested.
            let ended = gateway.said("is refused here");
            (ended || gateway.said("listening on http://")).then_some(!ended)
        })
        .then_some(gateway)
    }

    fn said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Accepts and dials that failed for want of a descriptor.
    fn missing(&self) -> u64 {
        let text = get(self.admin, "/metrics");
        let name = "firstbyte_descriptors_missing_total ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |count| count.parse().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
