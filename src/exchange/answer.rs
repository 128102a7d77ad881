//! What the gateway itself says: response heads, error answers, the error event of a cut stream, the
//! ledger as a comment. Errors are told in the client's dialect, by its writer.
//!
//! ```text
//!   HTTP/1.1 200 OK CRLF fields CRLF CRLF  <hex> CRLF data: {...} LF LF CRLF  0 CRLF CRLF
//! ```

use std::fmt::Write as _;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault, FaultSet};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::exchange::ledger::{CommittedBy, Ending, Ledger, Outcome};
use crate::exchange::patience::Patience;
use crate::llm::dialects::{Dialect, ErrorReport, ErrorText};
use crate::llm::provider::Said;
use crate::llm::sink::Told;
use crate::wire::http1::emit;

/// How a body's end is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// `Content-Length`.
    #[default]
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The connection's end (HTTP/1.0).
    Close,
    /// There is no body: a 204, of which no field may speak of one (RFC 9110, section 8.6), or an
    /// answer to HEAD.
    Bodiless,
}

/// What the client's connection can do.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Minor version of HTTP/1.
    pub minor: u8,
    /// The connection may carry another request.
    pub keep_alive: bool,
    /// How slowly it may read.
    pub patience: Patience,
    /// It asked with HEAD: the answer is only a head.
    pub to_head: bool,
}

impl Client {
    /// The framing of a body whose length is known or not.
    pub fn framing(&self, length: Option<u64>) -> Framing {
        match (length, self.minor) {
            (Some(_), _) => Framing::Length,
            (None, 0) => Framing::Close,
            (None, _) => Framing::Chunked,
        }
    }
}

/// An SSE comment: something for middleboxes while nothing is committed.
pub const WAITING: &[u8] = b": waiting for a provider\n\n";

/// The head of an answer.
pub struct Head<'a> {
    /// The status.
    pub status: u16,
    /// The content type.
    pub content_type: &'a [u8],
    /// Not a whole body: caches and buffering proxies shall keep off.
    pub streamed: bool,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the connection stays.
    pub keep: bool,
    /// The client's minor version: to HTTP/1.0 it is told that its connection stays.
    pub minor: u8,
}

/// Writes a response head without its length and end: `frame` adds both, when the length is known.
pub fn write_head(
    head: &Head<'_>,
    ledger: &Ledger,
    answered: Option<(&str, &str)>,
    now: Tick,
    out: &mut Buf,
) {
    out.reserve(HEAD_ROOM);
    emit::status_line(out, head.status);
    emit::date(out, ledger.wall.0.saturating_add(u64::from(now.ms_since(ledger.began))) / 1000);
    if head.framing != Framing::Bodiless {
        field(out, b"content-type", head.content_type);
    }
    if head.streamed {
        field(out, b"cache-control", b"no-cache");
        field(out, b"x-accel-buffering", b"no");
    }
    field(out, b"x-request-id", ledger.id.as_bytes());
    if ledger.surface.dialect() == Dialect::Messages {
        // Where clients of that dialect look for it.
        field(out, b"request-id", ledger.id.as_bytes());
    }
    if let Some((provider, model)) = answered {
        field(out, b"x-firstbyte-provider", provider.as_bytes());
        field(out, b"x-firstbyte-model", model.as_bytes());
    }
    let only_opened = head.streamed && answered.is_none();
    if !only_opened && !ledger.attempts.is_empty() {
        emit::open_field(out, b"x-firstbyte-attempts");
        // Names have no octet in them that could end the line.
        ledger.write_attempts(now, out);
        out.extend(emit::CRLF);
    }
    if !head.keep || head.framing == Framing::Close {
        field(out, b"connection", b"close");
    } else if head.minor == 0 {
        field(out, b"connection", b"keep-alive");
    }
}

/// What a head takes mostly, and a short body behind it, in bytes.
const HEAD_ROOM: usize = 1024;

/// Frames what waits: the head with its last fields, the body's bytes as one chunk, and, with `seal`,
/// the end of the framing.
pub fn frame(head: &mut Buf, body: &mut Buf, framing: Framing, seal: bool) -> Buf {
    let mut out = head.take();
    let starts = !out.is_empty();
    match framing {
        Framing::Length => {
            if starts {
                emit::content_length(&mut out, body.len() as u64);
            }
        }
        Framing::Chunked if starts => emit::chunked(&mut out),
        Framing::Bodiless => body.clear(),
        Framing::Chunked | Framing::Close => {}
    }
    if starts {
        out.extend(b"\r\n");
    }
    if framing != Framing::Chunked {
        if starts {
            out.extend(body.as_slice());
            body.clear();
            return out;
        }
        return body.take();
    }
    if !body.is_empty() {
        let (prefix, len) = emit::chunk_prefix(body.len());
        if !starts && body.prepend(&prefix[..len]) {
            body.extend(b"\r\n");
            if seal {
                body.extend(emit::LAST_CHUNK);
            }
            return body.take();
        }
        out.reserve(len + body.len() + 2 + emit::LAST_CHUNK.len());
        out.extend(&prefix[..len]);
        out.extend(body.as_slice());
        out.extend(b"\r\n");
        body.clear();
    }
    if seal {
        out.extend(emit::LAST_CHUNK);
    }
    out
}

/// Writes a field whose value is the gateway's own or was checked before; one that can't be written
/// is left out.
fn field(out: &mut Buf, name: &[u8], value: &[u8]) {
    let written = emit::field(out, name, value);
    debug_assert!(written, "an unwritable field");
}

/// An answer of the gateway's own, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What it holds.
    pub content: Content,
    /// `retry-after`, rounded up to seconds.
    pub retry_after: Option<Ms>,
    /// Methods for a 405.
    pub allow: Option<&'static str>,
    /// Tells SDKs not to multiply the gateway's own attempts.
    pub exhausted: bool,
    /// The connection may stay.
    pub keep: bool,
}

impl Answer {
    /// A JSON body that is no error.
    pub fn json(body: Vec<u8>) -> Answer {
        let content = Content::Json(body);
        Answer {
            status: 200,
            content,
            retry_after: None,
            allow: None,
            exhausted: false,
            keep: true,
        }
    }

    /// A 204 that names the methods there are.
    pub fn allowing(allow: &'static str) -> Answer {
        let none = Answer::json(Vec::new());
        Answer { status: 204, content: Content::Nothing, allow: Some(allow), ..none }
    }

    /// An error.
    pub fn error(status: u16, what: &ErrorText<'_>) -> Answer {
        let content = Content::error(what, None);
        Answer { status, content, retry_after: None, allow: None, exhausted: false, keep: true }
    }

    /// Its bytes in a dialect. `id` is the request's.
    pub fn body(&self, dialect: Dialect, id: &str) -> Vec<u8> {
        match &self.content {
            Content::Json(body) => body.clone(),
            Content::Error(told) => {
                dialect.writer().error_body(&told.report(self.status, id)).into_bytes()
            }
            Content::Nothing => Vec::new(),
        }
    }

    /// Its bytes as the one event of a stream that was opened before anything could be answered.
    pub fn write_event(&self, dialect: Dialect, id: &str, out: &mut Buf) {
        let Content::Error(told) = &self.content else {
            debug_assert!(false, "an opened stream is answered with an error");
            return;
        };
        let report = told.report(self.status, id);
        dialect.writer().error_event(&report, &mut Told::new(dialect), out);
    }

    /// The connection can't carry another request after it.
    pub fn closing(mut self) -> Answer {
        self.keep = false;
        self
    }

    /// With `retry-after`.
    pub fn retry_after(mut self, wait: Ms) -> Answer {
        self.retry_after = Some(wait);
        self
    }

    /// What it commits by.
    pub fn committed_by(&self) -> CommittedBy {
        if self.status < 400 { CommittedBy::Local } else { CommittedBy::Error }
    }

    /// How the exchange ends with it.
    pub fn ending(&self) -> Ending {
        if self.status < 400 { Ending::Local } else { Ending::Error }
    }

    /// Writes its head, but for length and end.
    pub fn write_head(
        &self,
        ledger: &Ledger,
        keep: bool,
        client: &Client,
        now: Tick,
        out: &mut Buf,
    ) {
        let head = Head {
            status: self.status,
            content_type: b"application/json",
            streamed: false,
            framing: if self.status == 204 { Framing::Bodiless } else { Framing::Length },
            keep,
            minor: client.minor,
        };
        write_head(&head, ledger, None, now, out);
        if self.status == 401 {
            field(out, b"www-authenticate", b"Bearer");
        }
        if let Some(wait) = self.retry_after {
            let seconds = u64::from(wait.0).div_ceil(1000).max(1);
            field(out, b"retry-after", seconds.to_string().as_bytes());
        }
        if let Some(allow) = self.allow {
            field(out, b"allow", allow.as_bytes());
        }
        if self.exhausted && self.retry_after.is_none() {
            field(out, b"x-should-retry", b"false");
        }
    }
}

/// What an answer of the gateway's own holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// JSON, the same in every dialect.
    Json(Vec<u8>),
    /// An error.
    Error(Box<ErrorTold>),
    /// Nothing.
    Nothing,
}

/// An error that waits for its dialect.
#[derive(Clone, Debug)]
pub struct ErrorTold {
    message: String,
    kind: String,
    param: Option<String>,
    code: Option<String>,
    metadata: Option<serde_json::Value>,
}

impl Content {
    fn error(what: &ErrorText<'_>, metadata: Option<serde_json::Value>) -> Content {
        Content::Error(Box::new(ErrorTold {
            message: what.message.to_owned(),
            kind: what.kind.to_owned(),
            param: what.param.map(str::to_owned),
            code: what.code.map(str::to_owned),
            metadata,
        }))
    }
}

impl ErrorTold {
    fn report<'a>(&'a self, status: u16, id: &'a str) -> ErrorReport<'a> {
        let text = ErrorText {
            message: &self.message,
            kind: &self.kind,
            param: self.param.as_deref(),
            code: self.code.as_deref(),
        };
        ErrorReport { status, text, metadata: self.metadata.as_ref(), id }
    }
}

/// What was tried, for an error's metadata.
fn tried(ledger: &Ledger) -> Option<serde_json::Value> {
    if ledger.attempts.is_empty() {
        return None;
    }
    let attempts: Vec<_> = ledger
        .attempts
        .iter()
        .map(|attempt| {
            let fault = attempt.failure.map(|failure| failure.fault.name());
            serde_json::json!({
                "target": *attempt.name,
                "outcome": attempt.outcome().to_string(),
                "fault": fault,
                "ms": attempt.ended.map(|at| at.ms_since(attempt.began)),
            })
        })
        .collect();
    Some(serde_json::json!({ "attempts": attempts, "request_id": *ledger.id }))
}

/// Every target of a plan asked to be left alone.
#[derive(Clone, Copy, Debug)]
pub struct Cooling {
    /// The shortest of what they asked for.
    pub wait: Ms,
    /// One of them asked with a 429.
    pub limited: bool,
}

/// The plan is spent: the error that tells it best, and what was tried.
pub fn all_failed(
    ledger: &Ledger,
    last: Option<(Failure, Option<Said>)>,
    cooling: Option<Cooling>,
) -> Answer {
    let (failure, said) = match last {
        Some((failure, said)) => (failure, said.unwrap_or_default()),
        None => (Failure::of(Fault::Unavailable), Said::default()),
    };
    if let Some(status) = client_status(failure) {
        return client_error(ledger, failure, &said, status);
    }
    if all(ledger, FaultSet::of(&[Fault::Unsendable])) {
        return client_error(ledger, failure, &said, 400);
    }
    let status = overall_status(ledger, failure, cooling);
    let mut message = match status {
        429 => String::from("every provider is rate limited"),
        503 if all(ledger, NO_DESCRIPTOR) => String::from("no provider could be connected to"),
        503 => String::from("every provider asked to be left alone for a while"),
        504 => String::from("no provider answered in time"),
        _ => String::from("no provider could answer"),
    };
    let _ = write!(message, "; the last attempt");
    if let Some(attempt) = ledger.attempts.last() {
        let _ = write!(message, " ({})", attempt.name);
    }
    let _ = write!(message, ": {failure}");
    // What a provider says of a credential may quote it.
    if !said.message.is_empty() && failure.fault != Fault::Credential {
        let _ = write!(message, ": {}", said.message);
    }
    if ledger.budget_spent {
        message.push_str("; no further attempt was made because the retry budget is spent");
    }
    let (kind, code) = match status {
        429 => ("rate_limit_error", "rate_limit_exceeded"),
        503 => ("server_error", "overloaded"),
        504 => ("upstream_error", "all_attempts_timed_out"),
        _ => ("upstream_error", "all_attempts_failed"),
    };
    let text = ErrorText { message: &message, kind, param: None, code: Some(code) };
    let spent = all(ledger, NO_DESCRIPTOR).then_some(Ms(limits::SHED_RETRY_MS));
    let cooling = cooling.filter(|_| matches!(status, 429 | 503)).map(|all| all.wait);
    Answer {
        status,
        content: Content::error(&text, tried(ledger)),
        retry_after: spent.or(cooling),
        allow: None,
        exhausted: true,
        keep: true,
    }
}

/// The gateway itself is at its limit.
const NO_DESCRIPTOR: FaultSet = FaultSet::of(&[Fault::NoDescriptor]);

/// Whether every attempt failed by one of these.
fn all(ledger: &Ledger, set: FaultSet) -> bool {
    !ledger.attempts.is_empty()
        && ledger.attempts.iter().all(|a| a.failure.is_some_and(|f| set.has(f.fault)))
}

fn overall_status(ledger: &Ledger, last: Failure, cooling: Option<Cooling>) -> u16 {
    let asked = FaultSet::of(&[Fault::RateLimited, Fault::Unavailable]);
    if all(ledger, NO_DESCRIPTOR) {
        return 503;
    }
    if let Some(cooling) = cooling.filter(|_| all(ledger, asked)) {
        if cooling.limited { 429 } else { 503 }
    } else if matches!(last.fault, Fault::Deadline | Fault::Total)
        || all(ledger, FaultSet::TIMEOUTS)
    {
        504
    } else {
        502
    }
}

/// Whether the client itself can mend it.
pub fn is_clients(failure: Failure) -> bool {
    client_status(failure).is_some()
}

/// The status of a fault that is the client's to mend.
fn client_status(failure: Failure) -> Option<u16> {
    match failure.fault {
        Fault::Client if (400..500).contains(&failure.status) => Some(failure.status),
        Fault::Client | Fault::Context | Fault::ContentPolicy => Some(400),
        Fault::TooLarge => Some(413),
        _ => None,
    }
}

fn client_error(ledger: &Ledger, failure: Failure, said: &Said, status: u16) -> Answer {
    let code = match failure.fault {
        Fault::Context => Some("context_length_exceeded"),
        Fault::ContentPolicy => Some(said.code.as_deref().unwrap_or("content_filter")),
        _ => said.code.as_deref(),
    };
    let message =
        if said.message.is_empty() { failure.fault.text() } else { said.message.as_str() };
    let text = ErrorText {
        message,
        kind: said.kind.as_deref().unwrap_or("invalid_request_error"),
        param: said.param.as_deref(),
        code,
    };
    Answer {
        status,
        content: Content::error(&text, tried(ledger)),
        retry_after: None,
        allow: None,
        exhausted: true,
        keep: true,
    }
}

/// The process ends.
pub fn draining() -> Answer {
    let text = ErrorText {
        message: "the gateway is shutting down; send the request again",
        kind: "server_error",
        param: None,
        code: Some("draining"),
    };
    Answer::error(503, &text).closing().retry_after(Ms(1_000))
}

/// The one error event of a stream that was cut after it had begun. `told` is what of it went out; `name`
/// is the attempt's and `id` the request's.
pub fn write_cut(
    failure: Failure,
    said: Option<&Said>,
    (name, id): (&str, &str),
    told: &mut Told,
    out: &mut Buf,
) {
    let code = if failure.fault.is_timeout() { "stream_timeout" } else { "stream_interrupted" };
    let mut message = format!("{name}: {}", failure.fault.text());
    if let Some(said) = said
        && !said.message.is_empty()
    {
        let _ = write!(message, ": {}", said.message);
    }
    let text =
        ErrorText { message: &message, kind: "upstream_error", param: None, code: Some(code) };
    let status = if failure.fault.is_timeout() { 504 } else { 502 };
    let report = ErrorReport { status, text, metadata: None, id };
    told.dialect().writer().error_event(&report, told, out);
}

/// The ledger of a stream that was opened before it was committed, as SSE comments.
pub fn write_ledger_comment(
    ledger: &Ledger,
    provider: &str,
    model: &str,
    now: Tick,
    out: &mut Buf,
) {
    let mut attempts = String::new();
    ledger.write_attempts(now, &mut attempts);
    for (name, value) in [
        ("x-firstbyte-provider", provider),
        ("x-firstbyte-model", model),
        ("x-firstbyte-attempts", attempts.as_str()),
    ] {
        out.extend(b": ");
        out.extend(name.as_bytes());
        out.extend(b": ");
        // A line end inside would end the comment; no name has one, and none may.
        let plain = value.bytes().filter(|byte| *byte >= b' ');
        plain.for_each(|byte| out.push(byte));
        out.extend(b"\n");
    }
    out.extend(b"\n");
}

/// Whether an attempt's outcome is a good one, for logs.
pub fn is_ok(outcome: Outcome) -> bool {
    outcome == Outcome::Ok
}
