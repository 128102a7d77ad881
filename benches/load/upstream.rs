//! The upstream: one thread, one poll, and a queue of events by the time when they are due.
//!
//! An event is one chunk and one write, as providers send them. The first leaves with the head, at once.
//! One that is late (the thread was busy, the peer did not read) goes as soon as it can and is stamped then:
//! a delay measures the way, never this queue.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::Clock;
use crate::link::{Link, SCRATCH_BYTES};

/// Listeners in their order; the first is the plain one.
const BAD: usize = 1;
const TLS: usize = 2;
const CONNECTIONS: usize = 16;
/// Events written before new requests are looked at.
const TURN: usize = 64;
/// The longest sleep while an event is due soon: a new request waits no longer.
const NAP_US: u64 = 50;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    transfer-encoding: chunked\r\n\r\n";
const WHOLE: &str = r#"{"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion","created":1750000000,"model":"load","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I help you today?","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21},"system_fingerprint":"fp_0123456789"}"#;
const REFUSAL: &str = r#"{"error":{"message":"The server is overloaded.","type":"server_error","param":null,"code":null}}"#;

/// A form of events.
struct Form {
    /// Written before the first.
    open: &'static str,
    /// Around the text of an event.
    event: (&'static str, &'static str),
    /// Written after the last.
    close: &'static str,
}

const CHAT: Form = Form {
    open: "",
    event: (
        "data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion.chunk\",\"created\":1750000000,\"model\":\"load\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
        "\"},\"finish_reason\":null}]}\n\n",
    ),
    close: "data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion.chunk\",\"created\":1750000000,\"model\":\"load\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
};

const MESSAGES: Form = Form {
    open: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"load\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    event: (
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
        "\"}}\n\n",
    ),
    close: "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":20}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
};

/// The chunk of an event with room for the time at `stamp`.
struct Template {
    form: &'static Form,
    chunk: Vec<u8>,
    stamp: usize,
}

impl Template {
    /// An event of about `bytes`, without the chunk's framing.
    fn new(form: &'static Form, bytes: usize) -> Template {
        let (before, after) = form.event;
        let fixed = before.len() + after.len() + "@t0000000000000000;".len();
        let pad = " and".repeat(bytes.saturating_sub(fixed).div_ceil(4));
        let event = format!(
            "{before}@t0000000000000000;{}{after}",
            &pad[..bytes.saturating_sub(fixed).min(pad.len())]
        );
        let chunk = chunked(&event);
        let stamp = memmem::find(&chunk, b"@t").unwrap() + 2;
        Template { form, chunk, stamp }
    }
}

fn chunked(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// A streamed answer under way.
struct Job {
    template: Template,
    first: bool,
    left: u64,
    every: u64,
    shift: u64,
    /// When the next one is due.
    due: u64,
    /// Waits for the peer to read.
    stuck: bool,
}

struct Connection {
    link: Link,
    bad: bool,
    input: Vec<u8>,
    /// Bytes of the request under way, once its head is read.
    need: Option<(usize, bool)>,
    job: Option<Job>,
    serial: u64,
}

pub struct Upstream {
    clock: Clock,
    poll: Poll,
    listeners: Vec<TcpListener>,
    tls: Option<Arc<ServerConfig>>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    due: BinaryHeap<Reverse<(u64, usize, u64)>>,
    serial: u64,
    out: Vec<u8>,
    scratch: Vec<u8>,
}

impl Upstream {
    /// Listens; with `tls` it makes a certificate for 127.0.0.1 and writes it to the file.
    pub fn bind(
        clock: Clock,
        plain: SocketAddr,
        bad: SocketAddr,
        tls: Option<(SocketAddr, String)>,
    ) -> io::Result<Upstream> {
        let poll = Poll::new()?;
        let mut addresses = vec![plain, bad];
        let tls = match tls {
            Some((address, file)) => {
                addresses.push(address);
                Some(certified(&file)?)
            }
            None => None,
        };
        let mut listeners = Vec::new();
        for (index, address) in addresses.into_iter().enumerate() {
            let mut listener = TcpListener::bind(address)?;
            poll.registry().register(&mut listener, Token(index), Interest::READABLE)?;
            listeners.push(listener);
        }
        Ok(Upstream {
            clock,
            poll,
            listeners,
            tls,
            connections: Vec::new(),
            free: Vec::new(),
            due: BinaryHeap::new(),
            serial: 0,
            out: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            self.send_due();
            let now = self.clock.now();
            let wait = self.due.peek().map(|Reverse((due, ..))| due.saturating_sub(now));
            let block = match wait {
                None => None,
                Some(us) if us > 3000 => Some(Duration::from_micros(us / 1000 * 1000 - 2000)),
                Some(_) => Some(Duration::ZERO),
            };
            if self.poll.poll(&mut events, block).is_err() {
                continue;
            }
            for event in &events {
                match event.token().0 {
                    index if index < CONNECTIONS => self.accept(index),
                    index => {
                        self.turn(index - CONNECTIONS, event.is_readable(), event.is_writable());
                    }
                }
            }
            if let (Some(us @ 1..=3000), true) = (wait, events.is_empty()) {
                std::thread::sleep(Duration::from_micros(us.min(NAP_US)));
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Ok((socket, _)) = self.listeners[listener].accept() {
            let _ = socket.set_nodelay(true);
            let tls = match (&self.tls, listener) {
                (Some(config), TLS) => ServerConnection::new(config.clone()).ok().map(Box::new),
                _ => None,
            };
            let index = self.free.pop().unwrap_or(self.connections.len());
            let mut link = Link::new(socket, tls);
            let both = Interest::READABLE | Interest::WRITABLE;
            let token = Token(index + CONNECTIONS);
            if self.poll.registry().register(&mut link.socket, token, both).is_err() {
                continue;
            }
            self.serial += 1;
            let connection = Connection {
                link,
                bad: listener == BAD,
                input: Vec::new(),
                need: None,
                job: None,
                serial: self.serial,
            };
            if index == self.connections.len() {
                self.connections.push(Some(connection));
            } else {
                self.connections[index] = Some(connection);
            }
        }
    }

    fn close(&mut self, index: usize) {
        if self.connections[index].take().is_some() {
            self.free.push(index);
        }
    }

    fn turn(&mut self, index: usize, readable: bool, writable: bool) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let mut open = true;
        if writable && connection.link.is_stuck() {
            open = connection.link.flush().is_ok();
        }
        if !connection.link.is_stuck()
            && let Some(job) = &mut connection.job
            && std::mem::take(&mut job.stuck)
        {
            self.due.push(Reverse((job.due, index, connection.serial)));
        }
        if readable && open {
            open = connection.link.read(&mut self.scratch, &mut connection.input)
                && self.answer(index).is_some();
        }
        if !open {
            self.close(index);
        }
    }

    /// Answers the request if it is whole; none if the connection is of no more use.
    fn answer(&mut self, index: usize) -> Option<()> {
        let now = self.clock.now();
        let connection = self.connections[index].as_mut()?;
        if connection.need.is_none() {
            connection.need = head(&connection.input)?;
        }
        let Some((need, messages)) = connection.need else { return Some(()) };
        if connection.input.len() < need {
            return Some(());
        }
        connection.need = None;
        let asked = asked(&connection.input);
        connection.input.drain(..need);
        if connection.bad {
            return connection.link.write(&whole("503 Service Unavailable", REFUSAL)).ok();
        }
        let Some([events, every, bytes, shift]) = asked else {
            return connection.link.write(&whole("200 OK", WHOLE)).ok();
        };
        let form = if messages { &MESSAGES } else { &CHAT };
        let template = Template::new(form, usize::try_from(bytes).ok()?);
        let job = Job { template, first: true, left: events, every, shift, due: now, stuck: false };
        connection.job = Some(job);
        self.emit(index)
    }

    fn send_due(&mut self) {
        for _ in 0..TURN {
            let now = self.clock.now();
            match self.due.peek() {
                Some(Reverse((due, ..))) if *due <= now => {}
                _ => return,
            }
            let Some(Reverse((_, index, serial))) = self.due.pop() else { return };
            let live = self.connections[index].as_ref().is_some_and(|c| c.serial == serial);
            if live && self.emit(index).is_none() {
                self.close(index);
            }
        }
    }

    /// Writes the next event of a stream and queues the one after it.
    fn emit(&mut self, index: usize) -> Option<()> {
        let connection = self.connections[index].as_mut()?;
        let Some(job) = &mut connection.job else { return Some(()) };
        if connection.link.is_stuck() {
            job.stuck = true;
            return Some(());
        }
        self.out.clear();
        if job.first {
            self.out.extend_from_slice(HEAD);
            if !job.template.form.open.is_empty() {
                self.out.extend_from_slice(&chunked(job.template.form.open));
            }
        }
        if job.left == 0 {
            self.out.extend_from_slice(&chunked(job.template.form.close));
            self.out.extend_from_slice(b"0\r\n\r\n");
            connection.job = None;
            return connection.link.write(&self.out).ok();
        }
        let at = self.out.len() + job.template.stamp;
        self.out.extend_from_slice(&job.template.chunk);
        let _ = write!(&mut self.out[at..at + 16], "{:016}", self.clock.now());
        job.due += job.every + if std::mem::take(&mut job.first) { job.shift } else { 0 };
        job.left -= 1;
        if job.every == 0 {
            job.due = self.clock.now();
        }
        let due = job.due;
        connection.link.write(&self.out).ok()?;
        self.due.push(Reverse((due, index, connection.serial)));
        Some(())
    }
}

/// Bytes of a whole request and whether it is for `/v1/messages`; `Some(None)` while the head is not whole.
fn head(input: &[u8]) -> Option<Option<(usize, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let size = match request.parse(input).ok()? {
        httparse::Status::Complete(size) => size,
        httparse::Status::Partial => return Some(None),
    };
    let length = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let body = match length {
        Some(header) => std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok()?,
        None => 0,
    };
    Some(Some((size + body, request.path?.contains("/messages"))))
}

/// The four numbers after `@load`.
fn asked(input: &[u8]) -> Option<[u64; 4]> {
    let at = memmem::find(input, b"@load ")? + 6;
    let text = std::str::from_utf8(&input[at..(at + 80).min(input.len())]).ok()?;
    let mut numbers = text.split(' ').map_while(|word| word.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?])
}

fn whole(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn certified(file: &str) -> io::Result<Arc<ServerConfig>> {
    let wrong = |error: String| io::Error::new(ErrorKind::InvalidInput, error);
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])
        .map_err(|error| wrong(error.to_string()))?;
    std::fs::write(file, made.cert.pem())?;
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(config))
}
