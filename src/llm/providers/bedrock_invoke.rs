//! Amazon Bedrock's InvokeModel operations: each model in its own format, wrapped.
//!
//! ```text
//!   :event-type chunk   {"bytes":"eyJ0eXBlIjoibWVzc2FnZV9zdGFydCIs...","p":"abcd"}
//!                                 ^ base64 of the model's own event   ^ padding
//! ```
//!
//! Which format it is shows in the first event, and stands: Anthropic's messages, Amazon's Converse
//! format (Nova), or one of the small ones that `plain` reads.

mod plain;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::fail::Fault;
use crate::llm::aws;
use crate::llm::event::{Mark, Usage};
use crate::llm::provider::{Framing, Named, Provider, Refusal, Refused, Said};
use crate::llm::sink::Sink;
use crate::llm::{converse, messages};
use crate::wire::aws_event::Kind as Type;
use crate::wire::json::{self, Kind, Top};

/// One answer being read.
#[derive(Default)]
pub struct BedrockInvoke {
    answer: Answer,
    /// The decoded event; its memory is kept.
    decoded: Vec<u8>,
    said: Option<Said>,
}

/// The model's format.
#[derive(Default)]
enum Answer {
    /// Nothing was read yet.
    #[default]
    Unknown,
    Messages(Box<messages::Answer>),
    Converse(Box<converse::Answer>),
    Plain(Box<plain::Answer>),
}

impl Answer {
    /// The format of an event or a whole answer.
    fn of(bytes: &[u8], members: &Top) -> Answer {
        let find = |name: &str| json::find(bytes, members, name);
        let kind = find("type").and_then(|kind| json::raw_string(bytes, kind)).unwrap_or_default();
        if kind.starts_with(b"message")
            || kind.starts_with(b"content_block")
            || matches!(kind, b"ping" | b"error")
        {
            return Answer::Messages(Box::default());
        }
        if converse::Answer::is_wrapped(bytes, members)
            || find("output").is_some_and(|output| output.kind == Kind::Object)
        {
            return Answer::Converse(Box::default());
        }
        Answer::Plain(Box::default())
    }
}

impl Provider for BedrockInvoke {
    const NAME: &'static str = "bedrock-invoke";
    const BASE_URL: &'static str = "https://bedrock-runtime.us-east-1.amazonaws.com";
    const KEY_VARIABLE: &'static str = "AWS_BEARER_TOKEN_BEDROCK";
    const SENDS: bool = false;
    const FRAMING: Framing = Framing::AwsEvents;

    /// Reads the model's own event.
    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if let Answer::Messages(answer) = &mut self.answer {
            return answer.feed(payload, sink);
        }
        let mut members = Top::new();
        let top = json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if matches!(self.answer, Answer::Unknown) {
            self.answer = Answer::of(payload, &members);
        }
        match &mut self.answer {
            Answer::Messages(answer) => answer.feed(payload, sink),
            Answer::Converse(answer) => answer.wrapped(payload, &members, sink),
            Answer::Plain(answer) => {
                let mark = answer.read(payload, &members, sink)?;
                if mark == Mark::Idle
                    && let Some(said) = aws::error_of_answer(payload, &members)
                {
                    self.said = Some(said);
                    return Err(Fault::ErrorEvent);
                }
                Ok(mark)
            }
            Answer::Unknown => Ok(Mark::Idle),
        }
    }

    fn feed_named(&mut self, message: &Named<'_>, sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if let Some(said) = aws::error_of_message(message) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        if message.kind != Type::Event || message.name != b"chunk" {
            return Ok(Mark::Idle);
        }
        let payload = message.payload;
        let body = json::document(payload).map_err(|_| Fault::BadFrame)?;
        let text = json::get(payload, body, "bytes").and_then(|text| json::text(payload, text));
        let text = text.ok_or(Fault::BadFrame)?;
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        let fed = match STANDARD.decode_vec(text.as_bytes(), &mut decoded) {
            Ok(()) => self.feed(&decoded, sink),
            Err(_) => Err(Fault::BadFrame),
        };
        self.decoded = decoded;
        fed
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        match &mut self.answer {
            Answer::Unknown => Err(Fault::Truncated),
            Answer::Messages(answer) => answer.close(include_usage, sink),
            Answer::Converse(answer) => answer.close(include_usage, sink),
            Answer::Plain(answer) => answer.close(include_usage, sink),
        }
    }

    fn is_finished(&self) -> bool {
        match &self.answer {
            Answer::Unknown => false,
            Answer::Messages(answer) => answer.is_finished(),
            Answer::Converse(answer) => answer.is_finished(),
            Answer::Plain(answer) => answer.is_finished(),
        }
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(body, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        self.answer = Answer::of(body, &members);
        match &mut self.answer {
            Answer::Messages(answer) => answer.whole(body, sink),
            Answer::Converse(answer) => answer.whole(body, &members, sink),
            Answer::Plain(answer) => {
                if answer.read(body, &members, sink)? == Mark::Content {
                    return answer.end(true, sink);
                }
                self.said = aws::error_of_answer(body, &members);
                Err(if self.said.is_some() { Fault::ErrorEvent } else { Fault::BadFrame })
            }
            Answer::Unknown => Err(Fault::BadFrame),
        }
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        aws::refuse(refusal)
    }

    fn usage(&self) -> Option<Usage> {
        match &self.answer {
            Answer::Unknown => None,
            Answer::Messages(answer) => answer.usage(),
            Answer::Converse(answer) => answer.usage(),
            Answer::Plain(answer) => answer.usage(),
        }
    }

    fn said(&mut self) -> Option<Said> {
        match &mut self.answer {
            Answer::Messages(answer) => self.said.take().or_else(|| answer.said()),
            Answer::Plain(answer) => self.said.take().or_else(|| answer.said()),
            Answer::Unknown | Answer::Converse(_) => self.said.take(),
        }
    }

    fn keep_said(&mut self, said: Option<Said>) {
        self.said = said;
    }

    /// An AWS event stream has no lines.
    fn stray(&mut self, _line: &[u8], _sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        Ok(Mark::Idle)
    }
}

#[cfg(test)]
mod tests;
