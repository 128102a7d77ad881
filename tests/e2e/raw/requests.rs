//! What a client may send. The provider records each octet that it gets: one malformed request, or one
//! that no client of a case sent, and the test fails.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::{Case, Step, cases, steps};
use crate::client::parse;
use crate::naive::{self, Read, Request};
use crate::rig::{Gateway, PATIENCE, on_both, providers, read};

const BODY: &str = "{\"model\":\"m\",\"messages\":[],\"user\":\"case\"}";
const WHOLE: &str = "{\"id\":\"x\",\"object\":\"chat.completion\",\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
const MODELS: &str = "GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n";

#[test]
fn requests_have_one_meaning_or_none() {
    let cases = cases(include_str!("requests.txt"));
    assert!(cases.len() >= 400, "{} cases", cases.len());
    on_both(|driver| {
        let recorder = Recorder::start();
        let limits = "head_max = \"8KiB\"\nbody_max = \"64KiB\"\n";
        let config = limits.to_owned()
            + &providers("", &[recorder.addr])
            + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        let (mut failures, mut expected) = (Vec::new(), 0);
        for (case, whole) in cases.iter().flat_map(|case| [(case, true), (case, false)]) {
            let wanted: usize = case.want[1].parse().unwrap();
            expected += wanted;
            let result = play(case, gateway.addr, whole);
            let seen = recorder.seen.lock().unwrap().len();
            if let Err(why) = result {
                failures.push(format!("line {}: {why}: {}", case.line, case.text));
            }
            if seen != expected {
                let why = format!("{seen} requests came upstream so far, not {expected}");
                failures.push(format!("line {}: {why}: {}", case.line, case.text));
                expected = seen;
            }
        }
        let total = cases.len();
        drop(gateway);
        assert_eq!(recorder.seen.lock().unwrap().len(), expected, "some came late");
        assert!(failures.is_empty(), "{driver:?}: of {total}:\n{}", failures.join("\n"));
        let faults = recorder.faults.lock().unwrap();
        assert!(faults.is_empty(), "{driver:?}: malformed upstream:\n{}", faults.join("\n"));
        println!("{driver:?}: {total} raw requests");
    });
}

/// Plays one case, in as many writes as it says or in many more; says what went otherwise.
fn play(case: &Case, addr: SocketAddr, whole: bool) -> Result<(), String> {
    let mut client = Raw::connect(addr);
    client.may_continue = case.text.to_ascii_lowercase().contains("expect: 100-continue\\r\\n");
    let closes = case.want[0].ends_with('.');
    let known = |name: &str| if name == "E" && !closes { Some(Vec::new()) } else { known(name) };
    for step in steps(&case.text, &known) {
        match step {
            // The gateway may have answered and closed before the end.
            Step::Send(octets) => {
                let size = if whole { octets.len() } else { octets.len() / 48 + 3 };
                for piece in octets.chunks(size) {
                    let _ = client.stream.write_all(piece);
                }
            }
            Step::Do(what) if what == "|" => {}
            Step::Do(what) if what == "100" => client.status(100, false)?,
            Step::Do(what) => panic!("<{what}> is not known: {}", case.text),
        }
    }
    if case.want[0] == "~" {
        client.stream.shutdown(Shutdown::Write).unwrap();
        return client.end();
    }
    for want in case.want[0].trim_end_matches('.').split(',') {
        let (head_only, digits) = (want.starts_with('h'), want.trim_start_matches('h'));
        if digits != "100" {
            client.status(digits.parse().unwrap(), head_only)?;
        }
    }
    if closes {
        return client.end();
    }
    client.stream.write_all(MODELS.as_bytes()).map_err(|e| format!("closed: {e}"))?;
    client.status(200, false)
}

/// The octets of a macro.
fn known(name: &str) -> Option<Vec<u8>> {
    let length = format!("Content-Length: {}\r\n", BODY.len());
    let (line, host) = ("POST /v1/chat/completions HTTP/1.1\r\n", "Host: gateway\r\n");
    let evil = BODY.replace("case", "evil");
    let text = match name {
        "" => String::new(),
        "P" => line.to_owned(),
        "H" => host.to_owned(),
        "L" => length,
        "B" => BODY.to_owned(),
        "C" => format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()),
        "R" => format!("{line}{host}{length}\r\n{BODY}"),
        "G" => MODELS.to_owned(),
        "E" => format!("{line}{host}{length}\r\n{evil}"),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// A client that judges each answer and never panics over one.
struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// It asked to be told to go on.
    may_continue: bool,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Raw {
    fn connect(addr: SocketAddr) -> Raw {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, buffer: Vec::new(), may_continue: false }
    }

    fn more(&mut self) -> Result<bool, String> {
        let mut some = [0; 16_384];
        match read(&mut self.stream, &mut some) {
            Ok(count) => {
                self.buffer.extend_from_slice(&some[..count]);
                Ok(count > 0)
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(format!("{error}, after {:?}", self.shown())),
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.buffer).chars().take(300).collect()
    }

    /// The next answer has this status.
    fn status(&mut self, wanted: u16, head_only: bool) -> Result<(), String> {
        let mut open = true;
        let (status, used) = loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end.filter(|_| head_only) {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                break (head.split(' ').nth(1).unwrap().parse().unwrap(), end + 4);
            }
            // Who asks for it may get it though the body is on its way already.
            if self.may_continue && wanted != 100 && self.buffer.starts_with(CONTINUE) {
                self.buffer.drain(..CONTINUE.len());
                continue;
            }
            if let Some((response, used)) = parse(&self.buffer, !open)
                && (response.whole || !open)
            {
                break (response.status, used);
            }
            if !open {
                return Err(format!("no {wanted}, but an end after {:?}", self.shown()));
            }
            open = self.more()?;
        };
        if status != wanted {
            return Err(format!("not {wanted}: {:?}", self.shown()));
        }
        self.buffer.drain(..used);
        Ok(())
    }

    /// The connection ends, with nothing more said.
    fn end(&mut self) -> Result<(), String> {
        while self.buffer.is_empty() {
            if !self.more()? {
                return Ok(());
            }
        }
        Err(format!("more was said: {:?}", self.shown()))
    }
}

/// A provider that keeps all that it gets.
struct Recorder {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, faults) = (Arc::default(), Arc::default());
        let recorder = Recorder { addr, seen, faults };
        let (seen, faults) = (recorder.seen.clone(), recorder.faults.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, faults) = (seen.clone(), faults.clone());
                std::thread::spawn(move || record(stream, addr, &seen, &faults));
            }
        });
        recorder
    }
}

fn record(
    mut stream: TcpStream,
    addr: SocketAddr,
    seen: &Mutex<Vec<Request>>,
    faults: &Mutex<Vec<String>>,
) {
    let (mut buffer, mut some) = (Vec::new(), [0; 16_384]);
    loop {
        match naive::request(&buffer) {
            Read::Whole(request, used) => {
                let raw: Vec<_> = buffer.drain(..used).collect();
                let judged = judge(&request, &raw, addr);
                seen.lock().unwrap().push(*request);
                if let Err(why) = judged {
                    let raw = String::from_utf8_lossy(&raw);
                    faults.lock().unwrap().push(format!("{why}: {raw:?}"));
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{WHOLE}",
                    WHOLE.len()
                );
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Read::Bad(why) => {
                let raw = String::from_utf8_lossy(&buffer).into_owned();
                return faults.lock().unwrap().push(format!("{why}: {raw:?}"));
            }
            Read::More => match read(&mut stream, &mut some) {
                Ok(count) if count > 0 => buffer.extend_from_slice(&some[..count]),
                _ if buffer.is_empty() => return,
                _ => return faults.lock().unwrap().push(format!("half a request: {buffer:?}")),
            },
        }
    }
}

/// Whether a request is sound and a client's own.
fn judge(request: &Request, raw: &[u8], addr: SocketAddr) -> Result<(), String> {
    if raw.windows(4).any(|four| four == b"evil") {
        return Err("what must never be seen".to_owned());
    }
    if !raw.starts_with(request.method.as_bytes()) || request.minor != 1 {
        return Err("the request line".to_owned());
    }
    for (name, value) in &request.fields {
        let value = String::from_utf8_lossy(value);
        let fits = match name.as_str() {
            "host" => *value == addr.to_string(),
            "authorization" => value == "Bearer secret-key",
            "accept-encoding" => value == "identity",
            "accept" | "content-type" => value == "application/json",
            "content-length" => *value == request.body.len().to_string(),
            "traceparent" => value == "00-ok",
            "user-agent" => value.starts_with("firstbyte/"),
            _ => false,
        };
        let times = request.fields.iter().filter(|(other, _)| other == name).count();
        if !fits || times != 1 {
            return Err(format!("the field {name}: {value}"));
        }
    }
    let ours = BODY.replace("\"m\"", "\"up\"");
    let body = String::from_utf8_lossy(&request.body);
    let fits = match (request.method.as_str(), request.target.as_str()) {
        ("POST", "/v1/chat/completions" | "/v1/chat/completions?x=%2F") => {
            request.framing == naive::Framing::Length(request.body.len() as u64)
                && body.replace(" }", "}") == ours
        }
        ("GET", "/v1/files/a%20b?x=y") => request.framing == naive::Framing::None,
        _ => false,
    };
    if fits { Ok(()) } else { Err("another request than any client sent".to_owned()) }
}
