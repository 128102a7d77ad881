//! Ollama's own API: `/api/chat`, and `/api/generate`, which has `response` in place of a message. What a
//! request says is written by `body`.
//!
//! ```text
//!   {"message":{"role":"assistant","content":"Hi"},"done":false}
//!   {"message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":2}
//! ```

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::limits::CHOICES_MAX;
use crate::base::tick::UnixMs;
use crate::llm::errors::{error_of, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::post;
use crate::llm::provider::{Framing, Provider, Refusal, Refused, Said, Site};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

pub mod body;

/// One answer being read.
#[derive(Default)]
pub struct Ollama {
    /// Calls so far.
    calls: usize,
    finish: Option<Finish>,
    usage: Option<Usage>,
    said: Option<Said>,
}

impl Provider for Ollama {
    const NAME: &'static str = "ollama";
    const BASE_URL: &'static str = "http://127.0.0.1:11434";
    const KEY_VARIABLE: &'static str = "OLLAMA_API_KEY";
    const FRAMING: Framing = Framing::Lines;

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        let root = post::root(site.path, &["/api", "/v1"]);
        let mut told = Buf::new();
        let path = match ask.surface {
            Surface::Chat | Surface::Messages | Surface::Responses => {
                told.extend(&translated(ask, body, site.model)?);
                String::from("/api/chat")
            }
            // Other paths are passed through, to the server's copy of them.
            Surface::Other => {
                ask.write_edited(body, site.model, &mut told);
                format!("/v1{}", ask.envelope.path)
            }
            Surface::Completions
            | Surface::Embeddings
            | Surface::CountTokens
            | Surface::Models
            | Surface::Explain
            | Surface::None => return Err(Fault::Unsendable),
        };
        post::write(ask, site, [root, &path], b"application/x-ndjson", told.as_slice(), out)
    }

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload.is_empty() {
            return Ok(Mark::Idle);
        }
        let mut members = Top::new();
        let top = json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if let Some(said) = error_of(payload, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        let substance = self.read(payload, top, sink)?;
        let done = json::get(payload, top, "done").is_some_and(|done| done.kind == Kind::True);
        if done {
            self.end(payload, top);
            return Ok(Mark::End);
        }
        Ok(if substance { Mark::Content } else { Mark::Event })
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        let finish = self.finish.ok_or(Fault::Truncated)?;
        sink.stop(0, finish);
        if let Some(usage) = self.usage {
            sink.usage(usage);
        }
        sink.finish(include_usage);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        self.feed(body, sink)?;
        self.close(true, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let message = said.as_ref().map(|said| said.message.as_str()).unwrap_or_default();
        let fault = match fault_of(refusal.status, said.as_ref(), refusal.surface) {
            // The request is well: this model has no tools, or does not think. Another one may.
            Fault::Client if message.contains("does not support") => Fault::Unsendable,
            other => other,
        };
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

    /// Each line is an event.
    fn stray(&mut self, _line: &[u8], _sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        Ok(Mark::Idle)
    }
}

impl Ollama {
    fn end(&mut self, bytes: &[u8], top: Value) {
        // Old servers give no reason.
        let reason = json::get(bytes, top, "done_reason");
        let length = reason.is_some_and(|reason| json::str_eq(bytes, reason, "length"));
        self.finish = Some(if length { Finish::Length } else { Finish::Stop });
        let count =
            |name: &str| json::get(bytes, top, name).and_then(|count| json::as_u64(bytes, count));
        // A prompt that was cached is not counted, and a count of zero is left out.
        let (prompt, completion) = (count("prompt_eval_count"), count("eval_count"));
        if prompt.is_some() || completion.is_some() {
            let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
            self.usage = Some(Usage { prompt, completion, ..Usage::default() });
        }
    }

    /// What a line says; whether it is something.
    fn read(&mut self, bytes: &[u8], top: Value, sink: &mut Sink<'_>) -> Result<bool, Fault> {
        let message = json::get(bytes, top, "message").filter(|m| m.kind == Kind::Object);
        let from = message.unwrap_or(top);
        let string = |name: &str| {
            let value = json::get(bytes, from, name);
            value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
        };
        let text = if message.is_some() { string("content") } else { string("response") };
        let thinking = string("thinking");
        sink.reason(0, Piece::Raw(thinking));
        sink.text(0, Piece::Raw(text));
        let mut substance = !text.is_empty() || !thinking.is_empty();
        for image in
            json::get(bytes, from, "images").into_iter().flat_map(|i| json::items(bytes, i))
        {
            let data = json::raw_string(bytes, image).unwrap_or_default();
            sink.image(0, mime_of(data), Piece::Raw(data));
            substance |= !data.is_empty();
        }
        if let Some(calls) = json::get(bytes, from, "tool_calls") {
            for call in json::items(bytes, calls) {
                if self.calls == CHOICES_MAX {
                    return Err(Fault::BadFrame);
                }
                let told = self::call(bytes, call, sink);
                self.calls += usize::from(told);
                substance |= told;
            }
        }
        Ok(substance)
    }
}

/// The body of a conversation in the words of this API, where a stream is what comes unless it is not
/// wanted.
fn translated(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
    let mut body = body::write(&prompt, model)?;
    body.insert(String::from("model"), model.into());
    body.insert(String::from("stream"), ask.stream.into());
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// The media type of an image, by how its base64 begins: it comes without one.
fn mime_of(data: &[u8]) -> &'static str {
    match data {
        [b'/', b'9', b'j', ..] => "image/jpeg",
        [b'R', b'0', b'l', ..] => "image/gif",
        [b'U', b'k', b'l', ..] => "image/webp",
        _ => "image/png",
    }
}

/// A call, which is always whole.
fn call(bytes: &[u8], call: Value, sink: &mut Sink<'_>) -> bool {
    let string = |path: &[&str]| {
        let value = json::get_path(bytes, call, path);
        value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
    };
    let name = string(&["function", "name"]);
    if name.is_empty() {
        return false;
    }
    let number = sink.tool(0, Piece::Raw(string(&["id"])), Piece::Raw(name));
    let arguments = json::get_path(bytes, call, &["function", "arguments"]);
    match arguments {
        Some(value) if value.kind == Kind::Object => {
            let arguments = std::str::from_utf8(value.raw(bytes)).unwrap_or_default();
            sink.args(0, number, Piece::Text(arguments));
        }
        // As OpenAI has them.
        Some(value) => {
            sink.args(0, number, Piece::Raw(json::raw_string(bytes, value).unwrap_or_default()));
        }
        None => {}
    }
    true
}

#[cfg(test)]
mod tests;
