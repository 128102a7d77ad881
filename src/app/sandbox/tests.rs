//! Over real sockets, on both drivers, with a blocking client.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// Runs `test` on epoll, and on io_uring where the kernel allows it.
fn on_both(count: usize, test: impl Fn(&Sandbox)) {
    test(&Sandbox::start_on(count, Loop::epoll).expect("a sandbox on epoll"));
    if Loop::io_uring().is_ok() {
        test(&Sandbox::start_on(count, Loop::io_uring).expect("a sandbox on io_uring"));
    }
}

fn dial(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(LONG)).expect("a time-out");
    stream
}

fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn chat(model: &str) -> String {
    let body = format!(r#"{{"model":"{model}","stream":true,"messages":[]}}"#);
    request("POST", "/v1/chat/completions", &body)
}

/// Reads until `end` has come; panics if the connection ends first.
fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut bytes = [0; 4096];
        let count = match stream.read(&mut bytes) {
            Ok(count) => count,
            // A ring elsewhere in the process may interrupt it, which says nothing.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => panic!("{error}"),
        };
        assert!(count > 0, "ended early: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(text).expect("text")
}

/// Sends one request and reads to the end of the connection.
fn to_end(addr: SocketAddr, request: &str) -> (String, Option<io::ErrorKind>) {
    let mut stream = dial(addr);
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).err().map(|error| error.kind());
    (String::from_utf8_lossy(&text).into_owned(), error)
}

#[test]
fn keeps_alive_and_names_itself() {
    on_both(2, |sandbox| {
        let mut stream = dial(sandbox.addrs[1]);
        for _ in 0..3 {
            stream.write_all(chat("ok,tokens=2").as_bytes()).expect("sent");
            let text = until(&mut stream, "0\r\n\r\n");
            assert!(text.contains("Hello from sandbox b.") && text.contains("data: [DONE]"));
        }
        // Two at once are answered in turn.
        stream.write_all((chat("503") + &chat("ok,tokens=1")).as_bytes()).expect("sent");
        let text = until(&mut stream, "0\r\n\r\n");
        assert!(text.contains("503 Service Unavailable") && text.contains("sandbox b."));
        let log = sandbox.provider(1).log();
        assert_eq!((log.accepted(), log.asked()), (1, 5));
        assert_eq!(sandbox.provider(0).log().accepted(), 0);
    });
}

#[test]
fn ends_as_told() {
    on_both(1, |sandbox| {
        let addr = sandbox.addrs[0];
        assert_eq!(
            to_end(addr, &chat("reset")),
            (String::new(), Some(io::ErrorKind::ConnectionReset))
        );
        let (text, error) = to_end(addr, &chat("cut_byte=20"));
        assert_eq!((text.as_str(), error), ("HTTP/1.1 200 OK\r\ncon", None));
        let (text, error) = to_end(addr, &chat("cut_event=2"));
        assert_eq!((text.matches("data: ").count(), error), (2, None));
        let (text, error) = to_end(addr, &chat("ok,close_after"));
        assert!(text.ends_with("0\r\n\r\n") && error.is_none());
        assert!(TcpStream::connect(sandbox.refusing).is_err());
    });
}

#[test]
fn sees_the_client_go_while_it_hangs_drips_pauses_and_cannot_write() {
    on_both(1, |sandbox| {
        let provider = sandbox.provider(0);
        let scripts = [
            "hang",
            "hang,at=head",
            "drip=1ms,tokens=10000",
            "delay=60s",
            "tokens=4,giant_at=2,size=64MiB",
        ];
        for (i, script) in scripts.iter().enumerate() {
            let mut stream = dial(sandbox.addrs[0]);
            stream.write_all(chat(script).as_bytes()).expect("sent");
            assert!(provider.wait(LONG, |log| log.asked() == i as u64 + 1), "{script}");
            if *script != "hang" {
                assert!(provider.wait(LONG, |log| log.requests[i].sent > 0), "{script}");
            }
            drop(stream);
            let gone = provider.wait(LONG, |log| {
                log.requests[i].peer_closed.is_some() && log.connections[i].closed.is_some()
            });
            assert!(gone, "{script}: {:?}", provider.log());
        }
    });
}

#[test]
fn an_override_makes_plain_names_flap() {
    on_both(2, |sandbox| {
        let mut stream = dial(sandbox.addrs[0]);
        let mut ask = |request: String, end: &str| {
            stream.write_all(request.as_bytes()).expect("sent");
            until(&mut stream, end)
        };
        let done = "content-length: 0\r\n\r\n";
        ask(request("PUT", "/_sandbox/script", "429,retry_after=1s"), done);
        assert!(ask(chat("ok"), "}").contains("HTTP/1.1 429 "));
        assert!(ask(chat("tokens=1"), "0\r\n\r\n").contains("HTTP/1.1 200 "));
        ask(request("PUT", "/_sandbox/script", ""), done);
        assert!(ask(chat("ok"), "0\r\n\r\n").contains("HTTP/1.1 200 "));
        assert!(ask(request("PUT", "/_sandbox/script", "nonsense"), "\n").contains("HTTP/1.1 400"));
        assert!(ask(chat("gpt-4o"), "}").contains("cut_event=N"));
        let log = ask(request("GET", "/_sandbox/log", ""), "}");
        let (_, body) = log.split_once("\r\n\r\n").expect("a head");
        let log: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&log["asked"], &log["requests"][0]["model"]), (&4.into(), &"ok".into()));
    });
}

#[test]
fn takes_large_bodies_whole() {
    on_both(1, |sandbox| {
        let body = format!(r#"{{"model":"ok,tokens=1","messages":"{}"}}"#, "y".repeat(20 << 20));
        let (text, _) = to_end(
            sandbox.addrs[0],
            &request("POST", "/v1/chat/completions", &body).replace("host: x", "connection: close"),
        );
        assert!(text.contains("Hello from sandbox a."));
        let entry = sandbox.provider(0).log().requests[0].clone();
        assert_eq!(entry.body_bytes, body.len() as u64);
        use sha2::Digest as _;
        assert_eq!(entry.body_sha256, format!("{:x}", sha2::Sha256::digest(&body)));
    });
}

#[test]
fn dropping_it_ends_every_connection() {
    for build in [Loop::epoll as fn() -> io::Result<Loop>, Loop::io_uring] {
        let Ok(sandbox) = Sandbox::start_on(1, build) else { continue };
        let addr = sandbox.addrs[0];
        let mut streams: Vec<_> = ["hang", "hang,at=head", "delay=60s"]
            .map(|script| {
                let mut stream = dial(addr);
                stream.write_all(chat(script).as_bytes()).expect("sent");
                stream
            })
            .into();
        streams.push(dial(addr));
        assert!(sandbox.provider(0).wait(LONG, |log| log.asked() == 3 && log.accepted() == 4));
        drop(sandbox);
        for mut stream in streams {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
        assert!(TcpStream::connect(addr).is_err(), "the port is free again");
    }
}
