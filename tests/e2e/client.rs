//! A raw client: sends exactly these bytes, shows exactly what came; under TLS if asked.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use rustls::{ClientConnection, Stream};

use crate::rig::{PATIENCE, read};

/// One connection to the gateway.
pub struct Client {
    pub stream: TcpStream,
    pub tls: Option<ClientConnection>,
    buffer: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The framing told the end.
    pub whole: bool,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::of(TcpStream::connect(addr).unwrap())
    }

    /// On a connection that there is.
    pub fn of(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, tls: None, buffer: Vec::new() }
    }

    /// From another address of this machine.
    pub fn connect_from(from: [u8; 4], addr: SocketAddr) -> Client {
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        );
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        Client::of(TcpStream::from(socket))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        match &mut self.tls {
            None => self.stream.write_all(bytes.as_ref()).unwrap(),
            Some(tls) => {
                let mut stream = Stream::new(tls, &mut self.stream);
                stream.write_all(bytes.as_ref()).unwrap();
                stream.flush().unwrap();
            }
        }
    }

    /// Sends what the gateway may stop reading before its end.
    pub fn send_as_far_as_it_goes(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends all of it before a byte of the answer is read; false if the gateway stopped taking it.
    pub fn send_blindly(&mut self, bytes: &[u8]) -> bool {
        let Some(tls) = &mut self.tls else { return self.stream.write_all(bytes).is_ok() };
        if tls.complete_io(&mut self.stream).is_err() {
            return false;
        }
        // Not through a `Stream`, which reads whenever it may.
        for piece in bytes.chunks(16 * 1024) {
            tls.writer().write_all(piece).unwrap();
            while tls.wants_write() {
                if tls.write_tls(&mut self.stream).is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Reads one response to its end.
    pub fn receive(&mut self) -> Response {
        loop {
            if let Some((response, used)) = parse(&self.buffer, false) {
                self.buffer.drain(..used);
                return response;
            }
            if self.more() == 0 {
                let (response, _) = parse(&self.buffer, true).unwrap_or_else(|| {
                    panic!("no response: {:?}", String::from_utf8_lossy(&self.buffer))
                });
                return response;
            }
        }
    }

    /// Reads once, so many bytes at most.
    pub fn receive_some(&mut self, count: usize) {
        let mut some = vec![0; count];
        let count = read(&mut self.stream, &mut some).unwrap_or(0);
        self.buffer.extend_from_slice(&some[..count]);
    }

    /// Reads until `text` has come.
    pub fn receive_until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.buffer).contains(text) {
            assert_ne!(self.more(), 0, "closed before {text:?} came");
        }
    }

    /// What has come and was not taken by `receive`.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// The same, taken.
    pub fn take_seen(&mut self) -> String {
        let seen = self.seen();
        self.buffer.clear();
        seen
    }

    /// All that comes until the gateway closes, as it is.
    pub fn receive_to_end(&mut self) -> String {
        while self.more() > 0 {}
        self.take_seen()
    }

    /// Whether the gateway has closed, with nothing more said.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.more() == 0
    }

    /// Waits for the first bytes; whether the gateway closed instead.
    pub fn is_closed_or_reset(&mut self) -> bool {
        self.more() == 0
    }

    /// Whether an answer, or the end, can be read by now.
    pub fn has_bytes(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn more(&mut self) -> usize {
        let mut chunk = [0; 65_536];
        let read = match &mut self.tls {
            None => read(&mut self.stream, &mut chunk),
            Some(tls) => read(&mut Stream::new(tls, &mut self.stream), &mut chunk),
        };
        let count = match read {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}; so far {:?}", self.seen()),
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        count
    }
}

/// One response at the beginning of `raw`, and how long it is.
pub fn parse(raw: &[u8], eof: bool) -> Option<(Response, usize)> {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let start = end + 4;
    let mut response = Response { status, head, body: Vec::new(), whole: true };
    if status == 100 {
        return Some((response, start));
    }
    if let Some(length) = response.field("content-length") {
        let length: usize = length.parse().unwrap();
        if raw.len() < start + length {
            return cut(response, raw, start, eof);
        }
        response.body = raw[start..start + length].to_vec();
        return Some((response, start + length));
    }
    if status == 204 && response.field("transfer-encoding").is_none() {
        return Some((response, start));
    }
    if response.field("transfer-encoding").is_none() {
        assert!(response.field("connection") == Some("close"), "{}", response.head);
        return cut(response, raw, start, eof).map(|(mut r, n)| {
            r.whole = true;
            (r, n)
        });
    }
    let mut at = start;
    loop {
        let Some(line) = raw[at..].windows(2).position(|w| w == b"\r\n") else {
            response.whole = false;
            return eof.then_some((response, raw.len()));
        };
        let digits = std::str::from_utf8(&raw[at..at + line]).unwrap();
        let size = usize::from_str_radix(digits, 16).expect(digits);
        at += line + 2;
        if raw.len() < at + size + 2 {
            response.whole = false;
            return eof.then_some((response, raw.len()));
        }
        assert_eq!(&raw[at + size..at + size + 2], b"\r\n");
        if size == 0 {
            return Some((response, at + 2));
        }
        response.body.extend_from_slice(&raw[at..at + size]);
        at += size + 2;
    }
}

fn cut(mut response: Response, raw: &[u8], start: usize, eof: bool) -> Option<(Response, usize)> {
    response.body = raw[start..].to_vec();
    response.whole = false;
    eof.then_some((response, raw.len()))
}

/// A chat request's bytes.
pub fn chat(stream: bool, fields: &str) -> String {
    post(
        "/v1/chat/completions",
        fields,
        &format!(
            "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"stream\":{stream}}}"
        ),
    )
}

/// A request's bytes.
pub fn post(path: &str, fields: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks once on a connection of its own.
pub fn ask(addr: SocketAddr, request: &str) -> Response {
    let mut client = Client::connect(addr);
    client.send(request);
    client.receive()
}
