//! Cohere's chat API, version 1, read: for answers that are at hand, as `translate` gets them. Nothing is
//! sent in this format, so it is no kind of the config.
//!
//! A JSON object a line, named inside; the last is `stream-end`. A whole answer is what that one repeats.
//!
//! ```text
//!   {"event_type":"text-generation","text":"Hi"}
//!   {"event_type":"stream-end","finish_reason":"COMPLETE","response":{"text":"Hi","meta":{..}}}
//! ```

use crate::base::fail::{Failure, Fault};
use crate::base::limits::CHOICES_MAX;
use crate::llm::errors::{error_fields, error_of, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::{Framing, Provider, Refusal, Refused, Said};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

/// One answer being read.
#[derive(Default)]
pub struct CohereV1 {
    calls: usize,
    finish: Option<Finish>,
    usage: Option<Usage>,
    said: Option<Said>,
}

impl Provider for CohereV1 {
    const NAME: &'static str = "cohere-v1";
    const BASE_URL: &'static str = "https://api.cohere.com/v1";
    const KEY_VARIABLE: &'static str = "CO_API_KEY";
    const SENDS: bool = false;
    const FRAMING: Framing = Framing::Lines;

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload.trim_ascii().is_empty() {
            return Ok(Mark::Idle);
        }
        let (top, members) = self.object(payload)?;
        let Some(kind) = json::find(payload, &members, "event_type") else {
            // What has no name is an error's message.
            let said = error_fields(payload, &members);
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        };
        match json::raw_string(payload, kind).unwrap_or_default() {
            b"text-generation" => {
                let text = string(payload, top, "text");
                sink.text(0, Piece::Raw(text));
                Ok(if text.is_empty() { Mark::Event } else { Mark::Content })
            }
            b"tool-calls-generation" => {
                let before = self.calls;
                self.calls(payload, top, sink)?;
                Ok(if self.calls > before { Mark::Content } else { Mark::Event })
            }
            b"stream-end" => {
                let response = json::get(payload, top, "response").unwrap_or(top);
                self.end(payload, top, response)?;
                Ok(Mark::End)
            }
            // The start, searches, citations, pieces of a call that comes whole after them.
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
        let (top, members) = self.object(body)?;
        if json::find(body, &members, "text").is_none() {
            let said = error_fields(body, &members);
            let fault = if said.message.is_empty() { Fault::BadFrame } else { Fault::ErrorEvent };
            self.said = Some(said);
            return Err(fault);
        }
        sink.start(Some(Piece::Raw(string(body, top, "response_id"))), None);
        sink.text(0, Piece::Raw(string(body, top, "text")));
        self.calls(body, top, sink)?;
        self.end(body, top, top)?;
        self.close(true, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let message = said.as_ref().map(|said| said.message.as_str()).unwrap_or_default();
        let fault = match fault_of(refusal.status, said.as_ref(), refusal.surface) {
            Fault::Client if message.starts_with("too many tokens") => Fault::Context,
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

impl CohereV1 {
    /// The members of an object that is no error.
    fn object(&mut self, bytes: &[u8]) -> Result<(Value, Top), Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(bytes, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        match error_of(bytes, &members) {
            Some(said) => {
                self.said = Some(said);
                Err(Fault::ErrorEvent)
            }
            None => Ok((top, members)),
        }
    }

    /// Calls, which are always whole and have no ids.
    fn calls(&mut self, bytes: &[u8], from: Value, sink: &mut Sink<'_>) -> Result<(), Fault> {
        let calls = json::get(bytes, from, "tool_calls").filter(|calls| calls.kind == Kind::Array);
        for call in calls.into_iter().flat_map(|calls| json::items(bytes, calls)) {
            let name = string(bytes, call, "name");
            if name.is_empty() {
                continue;
            }
            if self.calls == CHOICES_MAX {
                return Err(Fault::BadFrame);
            }
            self.calls += 1;
            let index = sink.tool(0, Piece::Raw(b""), Piece::Raw(name));
            let arguments = json::get(bytes, call, "parameters");
            if let Some(arguments) = arguments.filter(|value| value.kind == Kind::Object) {
                let text = std::str::from_utf8(arguments.raw(bytes)).unwrap_or_default();
                sink.args(0, index, Piece::Text(text));
            }
        }
        Ok(())
    }

    /// Why it ended, and the counts.
    fn end(&mut self, bytes: &[u8], top: Value, response: Value) -> Result<(), Fault> {
        let count = |path: &[&str]| {
            let value = json::get_path(bytes, response, path);
            value.and_then(|value| json::as_u64(bytes, value))
        };
        let prompt = count(&["meta", "tokens", "input_tokens"]);
        let completion = count(&["meta", "tokens", "output_tokens"]);
        if prompt.is_some() || completion.is_some() {
            let cached = count(&["meta", "cached_tokens"]).unwrap_or(0);
            let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
            self.usage = Some(Usage { prompt, completion, cached, ..Usage::default() });
        }
        let beside = string(bytes, top, "finish_reason");
        let reason =
            if beside.is_empty() { string(bytes, response, "finish_reason") } else { beside };
        self.finish = Some(match reason {
            b"MAX_TOKENS" | b"ERROR_LIMIT" => Finish::Length,
            b"ERROR_TOXIC" => Finish::ContentFilter,
            b"ERROR" => {
                let message = String::from("the provider ended the answer with an error");
                self.said = Some(Said { message, ..Said::default() });
                return Err(Fault::ErrorEvent);
            }
            // A call for tools is a plain stop here.
            _ => Finish::Stop,
        });
        Ok(())
    }
}

/// The inside of a member that is a string.
fn string<'b>(bytes: &'b [u8], object: Value, name: &str) -> &'b [u8] {
    let value = json::get(bytes, object, name);
    value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
}
