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
use memchr::memmem;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::{Framing, Named, Provider, Refusal, Refused, Said, Site};
use crate::llm::request::Ask;
use crate::llm::sink::Sink;
use crate::llm::{aws, bedrock, converse, messages};
use crate::wire::aws_event::Kind as Type;
use crate::wire::json::{self, Kind, Top};

/// One answer being read.
#[derive(Default)]
pub struct BedrockInvoke {
    answer: Answer,
    /// A guardrail of the customer's stepped in: whatever reason the model gives, that is why it ended.
    guarded: bool,
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
    const BASE_URL: &'static str = "https://bedrock-runtime.{region}.amazonaws.com";
    const KEY_VARIABLE: &'static str = "AWS_BEARER_TOKEN_BEDROCK";
    const SIGNS: bool = true;
    const FRAMING: Framing = Framing::AwsEvents;

    /// Only Claude is asked: the formats of other models are many, and Converse is one for all of them.
    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        if !ask.surface.is_conversation() || !bedrock::is_claude(site.model) {
            return Err(Fault::Unsendable);
        }
        let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
        if bedrock::has_addresses(&prompt) {
            return Err(Fault::Unsendable);
        }
        let mut body = messages::body::write(&prompt, site.model)?;
        body.insert("anthropic_version".into(), VERSION.into());
        // Tiers are of the vendor's own API.
        body.remove("service_tier");
        if let Some(betas) = bedrock::betas(ask) {
            body.insert("anthropic_beta".into(), betas);
        }
        let operation = if ask.stream { "invoke-with-response-stream" } else { "invoke" };
        bedrock::send(ask, operation, &body, site, wall, out)
    }

    /// Reads the model's own event.
    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        self.guard(payload);
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
        self.tell_guarded();
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
        if let Some((fault, said)) = aws::error_of_message(message) {
            self.said = Some(said);
            return Err(fault);
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
            Answer::Messages(answer) => {
                // Its reason is told at the end, and the first one told stands.
                if self.guarded && answer.is_finished() {
                    sink.stop(0, Finish::ContentFilter);
                }
                answer.close(include_usage, sink)
            }
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
        self.guard(body);
        self.tell_guarded();
        match &mut self.answer {
            Answer::Messages(answer) => {
                if self.guarded {
                    sink.stop(0, Finish::ContentFilter);
                }
                answer.whole(body, sink)
            }
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

impl BedrockInvoke {
    /// Looks for the mark of a guardrail, which any event may have.
    fn guard(&mut self, payload: &[u8]) {
        if self.guarded || memmem::find(payload, GUARDRAIL).is_none() {
            return;
        }
        let mut members = Top::new();
        if json::document_with_top(payload, &mut members).is_err() {
            return;
        }
        let action = members.iter().find(|member| member.key.of(payload) == GUARDRAIL);
        self.guarded = action.is_some_and(|a| json::str_eq(payload, a.value, "INTERVENED"));
    }

    /// Tells the answers that give their reason themselves.
    fn tell_guarded(&mut self) {
        match &mut self.answer {
            Answer::Converse(answer) => answer.guarded |= self.guarded,
            Answer::Plain(answer) => answer.guarded |= self.guarded,
            Answer::Unknown | Answer::Messages(_) => {}
        }
    }
}

const GUARDRAIL: &[u8] = b"amazon-bedrock-guardrailAction";
/// What Claude's body here has in the place of a field of the head.
const VERSION: &str = "bedrock-2023-05-31";

#[cfg(test)]
mod tests;
