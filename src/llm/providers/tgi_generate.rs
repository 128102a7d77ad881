//! The own API of Hugging Face's text-generation-inference, read: for answers that are at hand, as
//! `translate` gets them. Nothing is sent in this format, so it is no kind of the config; the server's copy
//! of OpenAI's API is.
//!
//! ```text
//!   data:{"index":1,"token":{"text":"Hi","special":false},"generated_text":null,"details":null}
//!   data:{"index":2,"token":{"text":"</s>","special":true},"generated_text":"Hi","details":{..}}
//! ```
//!
//! A whole answer is an object with `generated_text`, or an array around one.

use crate::base::fail::{Failure, Fault};
use crate::llm::errors::{error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::{Provider, Refusal, Refused, Said};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

/// One answer being read.
#[derive(Default)]
pub struct TgiGenerate {
    finish: Option<Finish>,
    usage: Option<Usage>,
    said: Option<Said>,
}

impl Provider for TgiGenerate {
    const NAME: &'static str = "tgi-generate";
    const BASE_URL: &'static str = "";
    const KEY_VARIABLE: &'static str = "";
    const SENDS: bool = false;

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        let top = self.object(payload)?;
        let token = json::get(payload, top, "token");
        let special = token.and_then(|token| json::get(payload, token, "special"));
        let text = token.and_then(|token| json::get(payload, token, "text"));
        let text = text.and_then(|text| json::raw_string(payload, text)).unwrap_or_default();
        let says = !text.is_empty() && special.and_then(json::as_bool) != Some(true);
        if says {
            sink.text(0, Piece::Raw(text));
        }
        // The last token has the whole text beside it.
        let whole = json::get(payload, top, "generated_text");
        if whole.is_some_and(|whole| whole.kind == Kind::String) {
            self.end(payload, top);
            return Ok(Mark::End);
        }
        Ok(if says { Mark::Content } else { Mark::Event })
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
        let top = self.object(body)?;
        let text = json::get(body, top, "generated_text");
        let text = text.and_then(|text| json::raw_string(body, text)).ok_or(Fault::BadFrame)?;
        sink.text(0, Piece::Raw(text));
        self.end(body, top);
        self.close(true, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let message = said.as_ref().map(|said| said.message.as_str()).unwrap_or_default();
        let long = message.contains("`inputs`") && message.contains("must ");
        let fault = match fault_of(refusal.status, said.as_ref(), refusal.surface) {
            Fault::Client if long => Fault::Context,
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
        match error_of_line(line) {
            Some(said) => {
                self.said = Some(said);
                Err(Fault::ErrorEvent)
            }
            None => Ok(Mark::Idle),
        }
    }
}

impl TgiGenerate {
    /// An object that is no error, or the first of an array.
    fn object(&mut self, bytes: &[u8]) -> Result<Value, Fault> {
        let top = json::document(bytes).map_err(|_| Fault::BadFrame)?;
        let object = match top.kind {
            Kind::Array => json::at(bytes, top, 0).ok_or(Fault::BadFrame)?,
            Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::String | Kind::Object => {
                top
            }
        };
        if object.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let members: Top = json::members(bytes, object).collect();
        match error_of(bytes, &members) {
            Some(said) => {
                self.said = Some(said);
                Err(Fault::ErrorEvent)
            }
            None => Ok(object),
        }
    }

    /// Why it ended, and the counts if the prompt was counted too.
    fn end(&mut self, bytes: &[u8], top: Value) {
        let get = |path: &[&str]| json::get_path(bytes, top, path);
        let count = |name| get(&["details", name]).and_then(|value| json::as_u64(bytes, value));
        let reason = get(&["details", "finish_reason"]);
        let length = reason.is_some_and(|reason| json::str_eq(bytes, reason, "length"));
        self.finish = Some(if length { Finish::Length } else { Finish::Stop });
        let prefill = get(&["details", "prefill"]).map(|list| json::items(bytes, list).count());
        let prefill = prefill.filter(|count| *count > 0).map(|count| count as u64);
        if let (Some(prompt), Some(completion)) =
            (count("input_length").or(prefill), count("generated_tokens"))
        {
            self.usage = Some(Usage { prompt, completion, ..Usage::default() });
        }
    }
}
