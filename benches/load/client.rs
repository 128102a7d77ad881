//! The client: opens streams, times their events, counts what is whole. One thread that sleeps in the poll,
//! so that nothing but the kernel stands between an event's arrival and its time.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Clock;
use crate::link::{Link, SCRATCH_BYTES};

/// One run, read from `key=value` words.
#[derive(Clone)]
pub struct Run {
    target: SocketAddr,
    model: String,
    /// Connections, each with one request at a time.
    streams: usize,
    /// Events of a stream; none: small whole answers.
    events: u64,
    every_us: u64,
    bytes: u64,
    /// Bytes of text in the prompt.
    prompt: usize,
    /// No request starts later.
    ms: u64,
    /// Requests of one connection at most; 0: as many as the time allows.
    requests: u64,
    /// Over which the first requests are spread.
    ramp_ms: u64,
    /// What runs on after `ms` by so much is cut and counts as not delivered.
    grace_ms: u64,
}

impl Run {
    pub fn parse(line: &str) -> Result<Run, String> {
        let mut run = Run {
            target: SocketAddr::from(([127, 0, 0, 1], 1)),
            model: "load".to_owned(),
            streams: 1,
            events: 0,
            every_us: 0,
            bytes: 270,
            prompt: 40,
            ms: 1000,
            requests: 0,
            ramp_ms: 0,
            grace_ms: 2000,
        };
        for word in line.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or(format!("{word}: no key=value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{word}: {error}"));
            let count = || value.parse::<usize>().map_err(|error| format!("{word}: {error}"));
            match key {
                "target" => {
                    run.target = value.parse().map_err(|error| format!("{word}: {error}"))?
                }
                "model" => value.clone_into(&mut run.model),
                "streams" => run.streams = count()?,
                "events" => run.events = number()?,
                "every_us" => run.every_us = number()?,
                "bytes" => run.bytes = number()?,
                "prompt" => run.prompt = count()?,
                "ms" => run.ms = number()?,
                "requests" => run.requests = number()?,
                "ramp_ms" => run.ramp_ms = number()?,
                "grace_ms" => run.grace_ms = number()?,
                _ => return Err(format!("{word}: unknown")),
            }
        }
        Ok(run)
    }

    /// Carries it out.
    ///
    /// # Errors
    /// The target can't be reached.
    pub fn drive(&self, clock: Clock) -> io::Result<String> {
        let mut poll = Poll::new()?;
        let mut streams = Vec::with_capacity(self.streams);
        for index in 0..self.streams {
            streams.push(self.open(&poll, index)?);
        }
        let mut tally = Tally { scratch: vec![0; SCRATCH_BYTES], ..Tally::default() };
        let mut events = Events::with_capacity(1024);
        let began = clock.now();
        let stop = began + self.ms * 1000;
        let (mut started, mut running) = (0, 0);
        loop {
            let now = clock.now();
            while started < streams.len()
                && now - began >= self.ramp_ms * 1000 * started as u64 / streams.len() as u64
            {
                running += usize::from(streams[started].start(clock, &mut tally));
                started += 1;
            }
            if (started == streams.len() && running == 0) || now > stop + self.grace_ms * 1000 {
                break;
            }
            let wait = if started < streams.len() { 1 } else { 20 };
            poll.poll(&mut events, Some(Duration::from_millis(wait)))?;
            for event in &events {
                let index = event.token().0;
                let was = streams[index].is_busy();
                self.turn(&poll, &mut streams[index], index, clock, stop, &mut tally)?;
                running -= usize::from(was && !streams[index].is_busy());
            }
        }
        tally.cut = running as u64;
        Ok(tally.report(clock.now() - began))
    }

    fn turn(
        &self,
        poll: &Poll,
        stream: &mut Stream,
        index: usize,
        clock: Clock,
        stop: u64,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let _ = stream.link.flush();
        let open = stream.link.read(&mut tally.scratch, &mut stream.input);
        let now = clock.now();
        let was = stream.is_busy();
        let done = stream.take(now, self, tally);
        if !open {
            if was && !done {
                tally.failed += 1;
            }
            let made = std::mem::take(&mut stream.made);
            *stream = self.open(poll, index)?;
            stream.made = made;
        }
        let more = self.requests == 0 || stream.made < self.requests;
        if was && (done || !open) && more && now < stop {
            stream.start(clock, tally);
        }
        Ok(())
    }

    fn open(&self, poll: &Poll, index: usize) -> io::Result<Stream> {
        let socket = std::net::TcpStream::connect(self.target)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut link = Link::new(TcpStream::from_std(socket), None);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut link.socket, Token(index), both)?;
        let shift = self.every_us * index as u64 / self.streams as u64;
        Ok(Stream::new(link, self.request(shift)))
    }

    fn request(&self, shift: u64) -> Vec<u8> {
        let mut prompt = String::new();
        if self.events > 0 {
            let _ =
                write!(prompt, "@load {} {} {} {shift} ", self.events, self.every_us, self.bytes);
        }
        prompt.push_str(&"lorem ipsum dolor ".repeat(self.prompt / 18 + 1)[..self.prompt]);
        let stream = if self.events > 0 { r#","stream":true"# } else { "" };
        let body = format!(
            r#"{{"model":"{}","messages":[{{"role":"user","content":"{prompt}"}}]{stream},"max_tokens":1000}}"#,
            self.model
        );
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             accept: application/json\r\nauthorization: Bearer load\r\ncontent-length: {length}\r\n\r\n{body}",
            self.target
        )
        .into_bytes()
    }
}

/// How an answer's body ends; bytes that are still to come of the whole or of the chunk.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunk(usize),
}

/// One connection and the answer that it reads.
struct Stream {
    link: Link,
    request: Vec<u8>,
    input: Vec<u8>,
    /// Text of the body that is not looked at yet.
    text: Vec<u8>,
    framing: Option<Framing>,
    status: u16,
    /// When the request was sent; none between two.
    began: Option<u64>,
    events: u64,
    /// The dialect's own end was seen.
    ended: bool,
    made: u64,
}

impl Stream {
    fn new(link: Link, request: Vec<u8>) -> Stream {
        Stream {
            link,
            request,
            input: Vec::new(),
            text: Vec::new(),
            framing: None,
            status: 0,
            began: None,
            events: 0,
            ended: false,
            made: 0,
        }
    }

    fn is_busy(&self) -> bool {
        self.began.is_some()
    }

    /// Sends the request; false if that failed at once.
    fn start(&mut self, clock: Clock, tally: &mut Tally) -> bool {
        self.input.clear();
        self.text.clear();
        (self.framing, self.events, self.ended) = (None, 0, false);
        self.made += 1;
        tally.requests += 1;
        self.began = Some(clock.now());
        if self.link.write(&self.request).is_err() {
            tally.failed += 1;
            self.began = None;
        }
        self.is_busy()
    }

    /// Takes what was read; true when the answer is at its end.
    fn take(&mut self, now: u64, run: &Run, tally: &mut Tally) -> bool {
        let Some(began) = self.began else { return false };
        if self.framing.is_none() && !self.head() {
            return false;
        }
        let end = self.body();
        self.scan(now, began, tally);
        if !end {
            return false;
        }
        self.began = None;
        let whole = self.status == 200 && self.events == run.events;
        if whole && (self.ended || run.events == 0) {
            tally.whole += 1;
        } else {
            tally.failed += 1;
        }
        if run.events == 0 {
            tally.first.push(now - began);
        }
        true
    }

    fn head(&mut self) -> bool {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(size)) = response.parse(&self.input) else {
            return false;
        };
        self.status = response.code.unwrap_or(0);
        let length = response.headers.iter().find_map(|header| {
            let named = header.name.eq_ignore_ascii_case("content-length");
            std::str::from_utf8(header.value).ok().filter(|_| named)?.parse().ok()
        });
        self.framing = Some(length.map_or(Framing::Chunk(0), Framing::Length));
        self.input.drain(..size);
        true
    }

    /// Moves the body's bytes from the input to the text; true at its end.
    fn body(&mut self) -> bool {
        let mut at = 0;
        let end = loop {
            let here = &self.input[at..];
            let left = match self.framing {
                Some(Framing::Length(left) | Framing::Chunk(left)) => left,
                None => 0,
            };
            let now = left.min(here.len());
            // A chunk's last two bytes are its line end, wherever the read cut it.
            let line_end = matches!(self.framing, Some(Framing::Chunk(_))).then_some(2);
            let text = now.min(left.saturating_sub(line_end.unwrap_or(0)));
            self.text.extend_from_slice(&here[..text]);
            at += now;
            match &mut self.framing {
                Some(Framing::Length(left)) => {
                    *left -= now;
                    break *left == 0;
                }
                Some(Framing::Chunk(left)) if *left > now => {
                    *left -= now;
                    break false;
                }
                Some(Framing::Chunk(left)) => {
                    let Some((line, size)) = chunk(&self.input[at..]) else {
                        *left = 0;
                        break false;
                    };
                    if size == 0 {
                        if self.input.len() < at + line + 2 {
                            *left = 0;
                            break false;
                        }
                        at += line + 2;
                        break true;
                    }
                    at += line;
                    *left = size + 2;
                }
                None => break false,
            }
        };
        self.input.drain(..at);
        end
    }

    /// Times the events in the text.
    fn scan(&mut self, now: u64, began: u64, tally: &mut Tally) {
        let mut at = 0;
        while let Some(found) = memmem::find(&self.text[at..], b"@t") {
            let from = at + found + 2;
            let Some(digits) = self.text.get(from..from + 16) else {
                at = from - 2;
                break;
            };
            let stamp = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u64>().ok());
            if self.events == 0 {
                tally.first.push(now - began);
            } else if let Some(stamp) = stamp {
                tally.delays.push(now.saturating_sub(stamp));
            }
            self.events += 1;
            tally.events += 1;
            at = from + 16;
        }
        self.ended |= memmem::find(&self.text[at..], b"[DONE]").is_some();
        // What may be the beginning of a word that the next read completes.
        let keep = (self.text.len() - at).min(18);
        self.text.drain(..self.text.len() - keep);
    }
}

/// A chunk's size line: its length and what it says.
fn chunk(input: &[u8]) -> Option<(usize, usize)> {
    let end = memchr::memchr(b'\n', input)?;
    let line = std::str::from_utf8(&input[..end]).ok()?;
    let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
    Some((end + 1, size))
}

/// What a run came to.
#[derive(Default)]
struct Tally {
    requests: u64,
    whole: u64,
    failed: u64,
    /// Still under way at the end.
    cut: u64,
    events: u64,
    /// Microseconds from the request to the first event, or to the end of a whole answer.
    first: Vec<u64>,
    /// Microseconds from an event's writing to its arrival; without the first events.
    delays: Vec<u64>,
    scratch: Vec<u8>,
}

impl Tally {
    fn report(mut self, took_us: u64) -> String {
        let first = quantiles(&mut self.first);
        let delay = quantiles(&mut self.delays);
        serde_json::json!({
            "requests": self.requests, "whole": self.whole, "failed": self.failed, "cut": self.cut,
            "events": self.events, "took_us": took_us, "first_us": first, "delay_us": delay,
        })
        .to_string()
    }
}

fn quantiles(values: &mut [u64]) -> serde_json::Value {
    values.sort_unstable();
    let at = |share: f64| match values.len() {
        0 => serde_json::Value::Null,
        count => values[((count - 1) as f64 * share).round() as usize].into(),
    };
    serde_json::json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0), "count": values.len() })
}
