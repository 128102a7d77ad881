//! Cohere's chat API, version 2. What a request says is written by `body`.
//!
//! Named events with their name inside; the last is `message-end`, and `[DONE]` follows it. A plan that
//! stands before a call goes out as reasoning. What follows `message-end` changes nothing, unless it is
//! an error. Citations go out where their source has an address of the web; chat has no place for others.
//!
//! ```text
//!   {"type":"content-delta","index":1,"delta":{"message":{"content":{"text":"Hi"}}}}
//!   {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"tokens":{..},..}}}
//!   [DONE]
//! ```

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::limits::CHOICES_MAX;
use crate::base::tick::UnixMs;
use crate::llm::errors::{error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::post;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value, Writer};

pub mod body;

/// One answer being read.
#[derive(Default)]
pub struct Cohere {
    calls: SmallVec<[Call; 4]>,
    finish: Option<Finish>,
    usage: Option<Usage>,
    said: Option<Said>,
}

/// One call.
struct Call {
    /// Cohere's number.
    index: u64,
    /// The dense one that the client sees.
    number: u32,
    /// So much of `null` is held back: in the place of arguments it says that there are none.
    held: usize,
    /// Arguments went out.
    told: bool,
}

impl Provider for Cohere {
    const NAME: &'static str = "cohere";
    const BASE_URL: &'static str = "https://api.cohere.com/v2";
    /// As the vendor's own libraries have it.
    const KEY_VARIABLE: &'static str = "CO_API_KEY";

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        let root = post::root(site.path, &["/v2", "/v1"]);
        let mut told = Buf::new();
        let path = match ask.surface {
            Surface::Chat | Surface::Messages | Surface::Responses => {
                told.extend(&translated(ask, body, site.model)?);
                String::from("/v2/chat")
            }
            // Other paths are passed through: the client speaks this API itself.
            Surface::Other => {
                ask.write_edited(body, site.model, &mut told);
                format!("/v2{}", ask.envelope.path)
            }
            Surface::Completions
            | Surface::Embeddings
            | Surface::CountTokens
            | Surface::Models
            | Surface::Explain
            | Surface::None => return Err(Fault::Unsendable),
        };
        post::write(ask, site, [root, &path], b"text/event-stream", told.as_slice(), out)
    }

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload.trim_ascii() == b"[DONE]" {
            return Ok(Mark::End);
        }
        let top = self.document(payload)?;
        let at = |path: &[&str]| json::get_path(payload, top, path);
        let message = |name: &str| at(&["delta", "message", name]);
        let kind = at(&["type"]).and_then(|kind| json::raw_string(payload, kind));
        let index = at(&["index"]).and_then(|index| json::as_u64(payload, index)).unwrap_or(0);
        match kind.ok_or(Fault::BadFrame)? {
            _ if self.finish.is_some() => Ok(Mark::Event),
            b"message-start" => {
                let id = at(&["id"]).and_then(|id| json::raw_string(payload, id));
                sink.start(id.map(Piece::Raw), None);
                Ok(Mark::Event)
            }
            b"content-start" | b"content-delta" => Ok(content(payload, message("content"), sink)),
            b"tool-plan-delta" => {
                let plan = message("tool_plan").and_then(|plan| json::raw_string(payload, plan));
                sink.reason(0, Piece::Raw(plan.unwrap_or_default()));
                Ok(if plan.is_none_or(<[u8]>::is_empty) { Mark::Event } else { Mark::Content })
            }
            b"tool-call-start" => {
                let call = message("tool_calls").ok_or(Fault::BadFrame)?;
                self.call(payload, call, index, sink)?;
                Ok(Mark::Content)
            }
            b"tool-call-delta" => {
                let path = ["delta", "message", "tool_calls", "function", "arguments"];
                let call = self.calls.iter_mut().find(|call| call.index == index);
                let call = call.ok_or(Fault::BadFrame)?;
                let fragment = at(&path).and_then(|value| json::raw_string(payload, value));
                call.arguments(fragment.unwrap_or_default(), sink);
                Ok(Mark::Content)
            }
            b"citation-start" => {
                let told = message("citations").is_some_and(|one| cite(payload, one, sink));
                Ok(if told { Mark::Content } else { Mark::Event })
            }
            b"message-end" => {
                let end = at(&["delta"]).ok_or(Fault::BadFrame)?;
                self.end(payload, end)?;
                // It is the end, whether or not it has a reason.
                sink.stop(0, *self.finish.get_or_insert(Finish::Stop));
                Ok(Mark::Content)
            }
            _ => Ok(Mark::Event),
        }
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
        let top = self.document(body)?;
        let message = json::get(body, top, "message").filter(|m| m.kind == Kind::Object);
        let message = message.ok_or(Fault::BadFrame)?;
        let id = json::get(body, top, "id").and_then(|id| json::raw_string(body, id));
        sink.start(id.map(Piece::Raw), None);
        if let Some(plan) = json::get(body, message, "tool_plan") {
            sink.reason(0, Piece::Raw(json::raw_string(body, plan).unwrap_or_default()));
        }
        if let Some(parts) = json::get(body, message, "content") {
            sink.text(0, Piece::Raw(json::raw_string(body, parts).unwrap_or_default()));
            for part in json::items(body, parts) {
                content(body, Some(part), sink);
            }
        }
        if let Some(calls) = json::get(body, message, "tool_calls") {
            for (index, call) in json::items(body, calls).enumerate() {
                self.call(body, call, index as u64, sink)?;
            }
        }
        if let Some(citations) = json::get(body, message, "citations") {
            for citation in json::items(body, citations) {
                cite(body, citation, sink);
            }
        }
        self.end(body, top)?;
        self.finish.get_or_insert(Finish::Stop);
        self.close(true, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let message = said.as_ref().map(|said| said.message.to_ascii_lowercase());
        let message = message.unwrap_or_default();
        let fault = match (refusal.status, fault_of(refusal.status, said.as_ref(), refusal.surface))
        {
            // The same words for a limit that the client may change by itself.
            (400, Fault::Client) if message.contains("max tokens must be") => Fault::Client,
            (400 | 422, Fault::Client)
                if message.starts_with("too many tokens") || is_too_long(refusal.body) =>
            {
                Fault::Context
            }
            // A word of the request or the answer is on a list of what is denied.
            (498, _) => Fault::ContentPolicy,
            // Cancelled, and not by us: a client that goes away hears no answer.
            (499, _) => Fault::Unavailable,
            (_, other) => other,
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

    fn stray(&mut self, line: &[u8], _sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        self.said = error_of_line(line);
        if self.said.is_some() { Err(Fault::ErrorEvent) } else { Ok(Mark::Idle) }
    }
}

impl Cohere {
    /// The object, unless it is an error: `{"message":"...","error_type":"..."}`.
    fn document(&mut self, bytes: &[u8]) -> Result<Value, Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(bytes, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let flat = json::find(bytes, &members, "message").is_some_and(|m| m.kind == Kind::String);
        self.said = error_of(bytes, &members);
        if self.said.is_none() && flat {
            self.said = said_of_body(bytes);
        }
        if self.said.is_some() { Err(Fault::ErrorEvent) } else { Ok(top) }
    }

    /// A call, with the arguments that it begins with.
    fn call(
        &mut self,
        bytes: &[u8],
        call: Value,
        index: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let text = |path: &[&str]| {
            let value = json::get_path(bytes, call, path);
            value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
        };
        let known = self.calls.iter().any(|call| call.index == index);
        if known || self.calls.len() >= CHOICES_MAX {
            return Err(Fault::BadFrame);
        }
        let number =
            sink.tool(0, Piece::Raw(text(&["id"])), Piece::Raw(text(&["function", "name"])));
        let mut call = Call { index, number, held: 0, told: false };
        call.arguments(text(&["function", "arguments"]), sink);
        self.calls.push(call);
        Ok(())
    }

    /// `finish_reason` and `usage`, which stand beside each other.
    fn end(&mut self, bytes: &[u8], end: Value) -> Result<(), Fault> {
        let number = |path: &[&str]| {
            let value = json::get_path(bytes, end, path);
            value.and_then(|value| json::as_u64(bytes, value)).unwrap_or(0)
        };
        if json::get_path(bytes, end, &["usage", "tokens"]).is_some() {
            self.usage = Some(Usage {
                prompt: number(&["usage", "tokens", "input_tokens"]),
                completion: number(&["usage", "tokens", "output_tokens"]),
                cached: number(&["usage", "cached_tokens"]),
                cache_write: 0,
                reasoning: number(&["usage", "tokens", "reasoning_tokens"]),
            });
        }
        let reason = json::get(bytes, end, "finish_reason");
        let Some(reason) = reason.and_then(|reason| json::raw_string(bytes, reason)) else {
            return Ok(());
        };
        self.finish = Some(match reason {
            b"MAX_TOKENS" => Finish::Length,
            b"TOOL_CALL" => Finish::ToolCalls,
            b"ERROR" | b"TIMEOUT" => {
                let error = json::get(bytes, end, "error");
                let error = error.and_then(|error| json::text(bytes, error));
                let reason = String::from_utf8_lossy(reason);
                let message = error.map_or_else(|| reason.into_owned(), |text| text.into_owned());
                self.said = Some(Said { message, ..Said::default() });
                return Err(Fault::ErrorEvent);
            }
            _ => Finish::Stop,
        });
        Ok(())
    }
}

impl Call {
    /// A fragment of the arguments. What is still held at the end was `null`, and the sink writes `{}`.
    fn arguments(&mut self, fragment: &[u8], sink: &mut Sink<'_>) {
        if !self.told && NULL[self.held..].starts_with(fragment) {
            self.held += fragment.len();
            return;
        }
        self.told = true;
        sink.args(0, self.number, Piece::Raw(&NULL[..std::mem::take(&mut self.held)]));
        sink.args(0, self.number, Piece::Raw(fragment));
    }
}

/// The body of a conversation in the words of this API.
fn translated(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
    let mut body = body::write(&prompt, model)?;
    body.insert(String::from("model"), model.into());
    body.insert(String::from("stream"), ask.stream.into());
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// Whether an error is of the type that says that there are too many tokens.
fn is_too_long(body: &[u8]) -> bool {
    let kind = json::document(body).ok().and_then(|top| json::get(body, top, "error_type"));
    kind.is_some_and(|kind| json::str_eq(body, kind, "TOO_MANY_TOKENS"))
}

/// A part of the content, or a piece of one.
fn content(bytes: &[u8], part: Option<Value>, sink: &mut Sink<'_>) -> Mark {
    let Some(part) = part else { return Mark::Event };
    let string = |name: &str| {
        let value = json::get(bytes, part, name);
        value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
    };
    let (text, thinking) = (string("text"), string("thinking"));
    sink.reason(0, Piece::Raw(thinking));
    sink.text(0, Piece::Raw(text));
    if text.is_empty() && thinking.is_empty() { Mark::Event } else { Mark::Content }
}

/// A citation, as a `url_citation` for each address; whether there was one. Its extent is counted in
/// characters of its block; an answer has one block of text.
fn cite(bytes: &[u8], citation: Value, sink: &mut Sink<'_>) -> bool {
    let number = |name: &str| {
        let value = json::get(bytes, citation, name);
        value.and_then(|value| json::as_u64(bytes, value))
    };
    let kind = json::get(bytes, citation, "type");
    let of_text = kind.is_none_or(|kind| json::str_eq(bytes, kind, "TEXT_CONTENT"));
    let (Some(start), Some(end), true) = (number("start"), number("end"), of_text) else {
        return false;
    };
    let mut told = false;
    let sources = json::get(bytes, citation, "sources");
    for source in sources.into_iter().flat_map(|sources| json::items(bytes, sources)) {
        let string = |path: &[&str]| {
            let text = json::text(bytes, json::get_path(bytes, source, path)?)?;
            (text.len() <= FIELD_MAX).then_some(text)
        };
        let of =
            |name: &str| string(&["document", name]).or_else(|| string(&["tool_output", name]));
        let is_address = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let address = of("url").filter(|url| is_address(url));
        let address = address.or_else(|| string(&["id"]).filter(|id| is_address(id)));
        let Some(address) = address else { continue };
        let mut out = Buf::new();
        let mut json = Writer::new(&mut out);
        json.begin_object().key("type").string("url_citation").key("url_citation");
        json.begin_object().key("start_index").u64(start).key("end_index").u64(end);
        json.key("title").string(&of("title").unwrap_or_default()).key("url").string(&address);
        json.end_object().end_object();
        sink.annotate(0, out.as_slice());
        told = true;
    }
    told
}

/// A longer address or title is not one.
const FIELD_MAX: usize = 4096;
const NULL: &[u8] = b"null";

#[cfg(test)]
mod tests;
