//! OpenAI's chat, completions and embeddings APIs, and the vendors that copy them.
//!
//! The client's dialect is this format too, so nothing is re-encoded: a chunk is read for what it
//! means, and goes out as it lay in the buffer but for the model's name (and a finish reason that a
//! choice already had).
//!
//! ```text
//!   data: {"id":"c1","model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"content":"Hi"}}]}
//!                            ~~~~~~~~~~~~~~~~~~~ replaced      ^ started      ^ substance
//! ```
//!
//! The terminal signal is a `finish_reason` for each choice that began; `[DONE]` is welcome and not
//! required, since some vendors leave out one or the other.

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::UnixMs;
use crate::llm::dialects::chat;
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::{MESSAGE_MAX, Provider, Refusal, Refused, Said, Site};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::Sink;
use crate::wire::Span;
use crate::wire::http1::emit;
use crate::wire::json::{self, Kind, Member, Top, Value};

/// One answer being read.
#[derive(Default)]
pub struct Openai {
    choices: SmallVec<[Choice; 1]>,
    /// `[DONE]` was seen.
    done: bool,
    /// Something of substance was seen.
    substance: bool,
    /// For chunks of our own: the stream's id and creation time.
    id: SmallVec<[u8; 64]>,
    created: u64,
    usage: Option<Usage>,
    said: Option<Said>,
}

/// What has been seen of one choice.
#[derive(Default)]
struct Choice {
    index: u32,
    finished: bool,
    tools: bool,
}

/// What one chunk changes and means.
#[derive(Default)]
struct Reading {
    substance: bool,
    /// Finish reasons that a choice already had.
    repeated: SmallVec<[Span; 1]>,
}

impl Provider for Openai {
    const NAME: &'static str = "openai";
    const BASE_URL: &'static str = "https://api.openai.com/v1";
    const KEY_VARIABLE: &'static str = "OPENAI_API_KEY";

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        let length = ask.edited_len(body, site.model);
        out.reserve(length + 512 + ask.envelope.path.len());
        let path = [site.path.as_bytes(), ask.envelope.path.as_bytes()];
        if !emit::request_line(out, ask.envelope.method.as_bytes(), path) {
            return Err(Fault::Unsendable);
        }
        let mut fits = emit::field(out, b"host", site.authority.as_bytes());
        if let Some(key) = site.key {
            fits &= key.expose().iter().all(u8::is_ascii_graphic);
            out.extend(b"authorization: Bearer ");
            out.extend(key.expose());
            out.extend(emit::CRLF);
        }
        fits &= emit::field(out, b"accept-encoding", b"identity");
        fits &= emit::field(out, b"user-agent", USER_AGENT);
        if ask.surface.is_understood() {
            let accept: &[u8] = if ask.stream { b"text/event-stream" } else { b"application/json" };
            fits &= emit::field(out, b"accept", accept);
            fits &= emit::field(out, b"content-type", b"application/json");
        }
        for (name, value) in &ask.envelope.fields {
            fits &= emit::field(out, name.as_bytes(), value);
        }
        let has_body = length > 0 || matches!(ask.envelope.method, "POST" | "PUT" | "PATCH");
        if has_body {
            emit::content_length(out, length as u64);
        }
        out.extend(b"\r\n");
        ask.write_edited(body, site.model, out);
        if fits {
            return Ok(());
        }
        out.clear();
        Err(Fault::Unsendable)
    }

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(Mark::End);
        }
        let mut members = Top::new();
        let top = json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let mut reading = Reading::default();
        let mut model = None;
        if let Some(said) = error_of(payload, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        for member in &members {
            match member.key.of(payload) {
                b"choices" => self.read_choices(payload, member.value, &mut reading)?,
                b"usage" => self.read_usage(payload, member.value),
                b"model" if member.value.kind == Kind::String => model = Some(member.value.span),
                b"id" if self.id.is_empty() => self.read_id(payload, member.value),
                b"created" if self.created == 0 => {
                    self.created = json::as_u64(payload, member.value).unwrap_or(0);
                }
                _ => {}
            }
        }
        self.substance |= reading.substance;
        chat::pass(payload, model, &reading.repeated, sink);
        Ok(if reading.substance { Mark::Content } else { Mark::Event })
    }

    fn close(&mut self, _include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !(self.is_finished() || self.done && self.substance) {
            return Err(Fault::Truncated);
        }
        for choice in self.choices.iter().filter(|choice| !choice.finished) {
            let finish = if choice.tools { Finish::ToolCalls } else { Finish::Stop };
            chat::finish(&self.id, self.created, choice.index, finish, sink);
        }
        chat::done(sink);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished)
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(body, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if let Some(said) = error_of(body, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        let mut model = None;
        for member in &members {
            match member.key.of(body) {
                b"usage" => self.read_usage(body, member.value),
                b"model" if member.value.kind == Kind::String => model = Some(member.value.span),
                _ => {}
            }
        }
        chat::whole(body, model, sink);
        Ok(())
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let fault = fault_of(refusal.status, said.as_ref(), refusal.surface);
        let failure = Failure { fault, status: refusal.status, retry_after: refusal.retry_after };
        Refused { failure, said }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn said(&mut self) -> Option<Said> {
        self.said.take()
    }

    fn keep_said(&mut self, said: Option<Said>) {
        self.said = said;
    }

    fn stray(&mut self, line: &[u8]) -> Result<Mark, Fault> {
        // `error: {...}` as a field name, or a bare JSON line.
        let start = line.iter().position(|byte| *byte == b'{');
        let json = start.map_or(line, |at| &line[at..]);
        let mut members = Top::new();
        if json::document_with_top(json, &mut members).is_err() {
            return Ok(Mark::Idle);
        }
        let named =
            line.trim_ascii_start().get(..5).is_some_and(|w| w.eq_ignore_ascii_case(b"error"));
        let said = error_of(json, &members).or_else(|| named.then(|| error_fields(json, &members)));
        match said {
            Some(said) => {
                self.said = Some(said);
                Err(Fault::ErrorEvent)
            }
            None => Ok(Mark::Idle),
        }
    }
}

impl Openai {
    fn read_choices(
        &mut self,
        payload: &[u8],
        choices: Value,
        reading: &mut Reading,
    ) -> Result<(), Fault> {
        match choices.kind {
            Kind::Array => {}
            Kind::Null => return Ok(()),
            _ => return Err(Fault::BadFrame),
        }
        for item in json::items(payload, choices) {
            if item.kind != Kind::Object {
                return Err(Fault::BadFrame);
            }
            self.read_choice(payload, item, reading)?;
        }
        Ok(())
    }

    fn read_choice(
        &mut self,
        payload: &[u8],
        item: Value,
        reading: &mut Reading,
    ) -> Result<(), Fault> {
        let (mut index, mut substance, mut tools, mut finish) = (0, false, false, None);
        for member in json::members(payload, item) {
            let value = member.value;
            match member.key.of(payload) {
                b"index" => index = json::as_u64(payload, value).ok_or(Fault::BadFrame)?,
                b"delta" if value.kind == Kind::Object => {
                    for part in json::members(payload, value) {
                        let name = part.key.of(payload);
                        let says = name != b"role" && has_substance(part.value);
                        substance |= says;
                        tools |= says && matches!(name, b"tool_calls" | b"function_call");
                    }
                }
                b"text" => substance |= has_substance(value),
                b"finish_reason" if value.kind == Kind::String => finish = Some(value.span),
                _ => {}
            }
        }
        let index = u32::try_from(index).map_err(|_| Fault::BadFrame)?;
        let choice = self.choice(index)?;
        choice.tools |= tools;
        if let Some(span) = finish {
            if choice.finished {
                reading.repeated.push(span);
            } else {
                choice.finished = true;
                substance = true;
            }
        }
        reading.substance |= substance;
        Ok(())
    }

    fn choice(&mut self, index: u32) -> Result<&mut Choice, Fault> {
        let at = self.choices.iter().position(|choice| choice.index == index);
        let at = match at {
            Some(at) => at,
            None if self.choices.len() < crate::base::limits::CHOICES_MAX => {
                self.choices.push(Choice { index, ..Choice::default() });
                self.choices.len() - 1
            }
            None => return Err(Fault::BadFrame),
        };
        Ok(&mut self.choices[at])
    }

    fn read_id(&mut self, payload: &[u8], value: Value) {
        // Raw, with its quotes: it is only ever written back as it came.
        let raw = value.span.of(payload);
        if value.kind == Kind::String && raw.len() <= ID_MAX {
            self.id.extend_from_slice(raw);
        }
    }

    fn read_usage(&mut self, payload: &[u8], usage: Value) {
        if usage.kind != Kind::Object {
            return;
        }
        let number = |object: Value, name: &str| {
            json::get(payload, object, name).and_then(|value| json::as_u64(payload, value))
        };
        let detail = |group: &str, name: &str| {
            let object = json::get(payload, usage, group)?;
            (object.kind == Kind::Object).then(|| number(object, name)).flatten()
        };
        self.usage = Some(Usage {
            prompt: number(usage, "prompt_tokens").unwrap_or(0),
            completion: number(usage, "completion_tokens").unwrap_or(0),
            cached: detail("prompt_tokens_details", "cached_tokens").unwrap_or(0),
            reasoning: detail("completion_tokens_details", "reasoning_tokens").unwrap_or(0),
        });
    }
}

/// Whether a part of a delta says anything: not null, not empty.
fn has_substance(value: Value) -> bool {
    match value.kind {
        Kind::Null | Kind::False => false,
        // `""`, `[]` and `{}` are two bytes; blanks inside brackets count as something, which is rare
        // and only commits a little early.
        Kind::String | Kind::Array | Kind::Object => value.span.len > 2,
        Kind::True | Kind::Number => true,
    }
}

/// The error that a 200 may carry: a top-level `error`, `object: "error"` or `type: "error"`.
fn error_of(bytes: &[u8], members: &[Member]) -> Option<Said> {
    for member in members {
        match member.key.of(bytes) {
            b"error" => match member.value.kind {
                Kind::Object => {
                    let fields: Top = json::members(bytes, member.value).collect();
                    return Some(error_fields(bytes, &fields));
                }
                Kind::String => {
                    let message = json::text(bytes, member.value).unwrap_or_default();
                    return Some(Said { message: bounded(&message), ..Said::default() });
                }
                Kind::True | Kind::Number | Kind::Array => return Some(Said::default()),
                Kind::Null | Kind::False => {}
            },
            b"object" | b"type" if json::str_eq(bytes, member.value, "error") => {
                return Some(error_fields(bytes, members));
            }
            _ => {}
        }
    }
    None
}

fn error_fields(bytes: &[u8], members: &[Member]) -> Said {
    let mut said = Said::default();
    for member in members {
        let text = match member.value.kind {
            Kind::String => json::text(bytes, member.value).map(|text| bounded(&text)),
            // Vendors send numbers as codes; clients expect strings.
            Kind::Number => Some(String::from_utf8_lossy(member.value.span.of(bytes)).into_owned()),
            Kind::Null | Kind::True | Kind::False | Kind::Array | Kind::Object => None,
        };
        let Some(text) = text else { continue };
        match member.key.of(bytes) {
            b"message" => said.message = text,
            b"code" => said.code = Some(text),
            b"type" => said.kind = Some(text),
            b"param" => said.param = Some(text),
            _ => {}
        }
    }
    said
}

fn said_of_body(body: &[u8]) -> Option<Said> {
    let mut members = Top::new();
    match json::document_with_top(body, &mut members) {
        Ok(top) if top.kind == Kind::Object => {
            Some(error_of(body, &members).unwrap_or_else(|| {
                let mut said = error_fields(body, &members);
                let detail = members.iter().find(|m| m.key.of(body) == b"detail");
                if let Some(detail) = detail
                    && said.message.is_empty()
                {
                    said.message =
                        json::text(body, detail.value).map(|t| bounded(&t)).unwrap_or_default();
                }
                said
            }))
        }
        // HTML pages and empty bodies say nothing that a client could use.
        _ => None,
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The contract's table of statuses, with what the body says where the status alone misleads.
fn fault_of(status: u16, said: Option<&Said>, surface: Surface) -> Fault {
    let code = said.and_then(|said| said.code.as_deref()).unwrap_or_default();
    let kind = said.and_then(|said| said.kind.as_deref()).unwrap_or_default();
    let message = said.map(|said| said.message.to_ascii_lowercase()).unwrap_or_default();
    let is = |words: &[&str]| words.iter().any(|word| code == *word || kind == *word);
    let tells = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if matches!(status, 400 | 402 | 403 | 429)
        && is(&["insufficient_quota", "billing_not_active", "billing_hard_limit_reached"])
    {
        return Fault::Credential;
    }
    if matches!(status, 400 | 413 | 422)
        && (is(&["context_length_exceeded", "string_above_max_length"]) || tells(CONTEXT_PHRASES))
    {
        return Fault::Context;
    }
    if matches!(status, 400 | 403 | 422)
        && is(&["content_policy_violation", "content_filter", "content_policy"])
    {
        return Fault::ContentPolicy;
    }
    match status {
        408 | 409 | 425 => Fault::Unavailable,
        429 => Fault::RateLimited,
        401..=403 => Fault::Credential,
        404 if surface == Surface::Other => Fault::Client,
        404 => Fault::NotFound,
        413 => Fault::TooLarge,
        400..=499 => Fault::Client,
        500..=599 => Fault::Unavailable,
        _ => Fault::BadStatus,
    }
}

/// What vendors say when the prompt is too long, in lower case.
const CONTEXT_PHRASES: &[&str] = &[
    "maximum context length",
    "context length exceeded",
    "exceeds the context window",
    "context window of this model",
    "prompt is too long",
    "exceeds the available context size",
];
const USER_AGENT: &[u8] = concat!("firstbyte/", env!("CARGO_PKG_VERSION")).as_bytes();
/// An id that is longer is left out of chunks of our own.
const ID_MAX: usize = 128;
