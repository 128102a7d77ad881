//! Cohere's chat API, version 2.
//!
//! Named events with their name inside; the last is `message-end`, and `[DONE]` follows it. A plan that
//! stands before a call goes out as reasoning. Citations have no addresses, so that chat has no place for
//! them.

use smallvec::SmallVec;

use crate::base::fail::{Failure, Fault};
use crate::base::limits::CHOICES_MAX;
use crate::llm::errors::{error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::{Provider, Refusal, Refused, Said};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

/// One answer being read.
#[derive(Default)]
pub struct Cohere {
    /// The calls' own numbers, by the dense ones that the client sees.
    calls: SmallVec<[(u64, u32); 4]>,
    finish: Option<Finish>,
    usage: Option<Usage>,
    said: Option<Said>,
}

impl Provider for Cohere {
    const NAME: &'static str = "cohere";
    const BASE_URL: &'static str = "https://api.cohere.com/v2";
    const KEY_VARIABLE: &'static str = "CO_API_KEY";
    const SENDS: bool = false;

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload == b"[DONE]" {
            return Ok(Mark::End);
        }
        let top = self.document(payload)?;
        let at = |path: &[&str]| json::get_path(payload, top, path);
        let message = |name: &str| at(&["delta", "message", name]);
        let kind = at(&["type"]).and_then(|kind| json::raw_string(payload, kind));
        let index = at(&["index"]).and_then(|index| json::as_u64(payload, index)).unwrap_or(0);
        match kind.ok_or(Fault::BadFrame)? {
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
                let number = self.calls.iter().find(|(known, _)| *known == index);
                let (_, number) = *number.ok_or(Fault::BadFrame)?;
                let fragment = at(&path).and_then(|value| json::raw_string(payload, value));
                sink.args(0, number, Piece::Raw(fragment.unwrap_or_default()));
                Ok(Mark::Content)
            }
            b"message-end" => {
                let end = at(&["delta"]).ok_or(Fault::BadFrame)?;
                self.end(payload, end)?;
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
            for part in json::items(body, parts) {
                content(body, Some(part), sink);
            }
        }
        if let Some(calls) = json::get(body, message, "tool_calls") {
            for (index, call) in json::items(body, calls).enumerate() {
                self.call(body, call, index as u64, sink)?;
            }
        }
        self.end(body, top)?;
        self.finish.get_or_insert(Finish::Stop);
        self.close(true, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let fault = match fault_of(refusal.status, said.as_ref(), refusal.surface) {
            Fault::Client if String::from_utf8_lossy(refusal.body).contains("TOO_MANY_TOKENS") => {
                Fault::Context
            }
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
        let known = self.calls.iter().any(|(known, _)| *known == index);
        if known || self.calls.len() >= CHOICES_MAX {
            return Err(Fault::BadFrame);
        }
        let number =
            sink.tool(0, Piece::Raw(text(&["id"])), Piece::Raw(text(&["function", "name"])));
        self.calls.push((index, number));
        // A call without arguments has `null` for them.
        let arguments = text(&["function", "arguments"]);
        if arguments != b"null" {
            sink.args(0, number, Piece::Raw(arguments));
        }
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

#[cfg(test)]
mod tests;
