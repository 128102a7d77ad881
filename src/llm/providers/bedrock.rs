//! Amazon Bedrock's Converse and ConverseStream operations, one format for all of its models.
//!
//! What an answer says is read by `llm/converse`, which writes the bodies of requests too; what an error says
//! is read by `llm/aws`, and the head of a request is written by `llm/bedrock`. This file joins them.
//! A stream is an AWS event stream, and an event's name stands in its headers.

use serde_json::json;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::converse::{self, Answer};
use crate::llm::event::{Mark, Usage};
use crate::llm::provider::{Framing, Named, Provider, Refusal, Refused, Said, Site};
use crate::llm::request::Ask;
use crate::llm::sink::Sink;
use crate::llm::{aws, bedrock};
use crate::wire::aws_event::Kind as Type;
use crate::wire::json::{self, Top};

/// One answer being read.
#[derive(Default)]
pub struct Bedrock {
    answer: Answer,
    said: Option<Said>,
}

impl Provider for Bedrock {
    const NAME: &'static str = "bedrock";
    const BASE_URL: &'static str = "https://bedrock-runtime.{region}.amazonaws.com";
    const KEY_VARIABLE: &'static str = "AWS_BEARER_TOKEN_BEDROCK";
    const SIGNS: bool = true;
    const FRAMING: Framing = Framing::AwsEvents;

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        if !ask.surface.is_conversation() {
            return Err(Fault::Unsendable);
        }
        let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
        let mut body = converse::body::write(&prompt, site.model)?;
        if let Some(betas) = bedrock::betas(ask).filter(|_| bedrock::is_claude(site.model)) {
            let more = body.entry("additionalModelRequestFields").or_insert_with(|| json!({}));
            more["anthropic_beta"] = betas;
        }
        let operation = if ask.stream { "converse-stream" } else { "converse" };
        bedrock::send(ask, operation, &body, site, wall, out)
    }

    /// An event that stands under its name in the payload: `{"messageStop":{...}}`.
    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        let mut members = Top::new();
        json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if !Answer::is_wrapped(payload, &members)
            && let Some(said) = aws::error_of_answer(payload, &members)
        {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        self.answer.wrapped(payload, &members, sink)
    }

    fn feed_named(&mut self, message: &Named<'_>, sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if let Some((fault, said)) = aws::error_of_message(message) {
            self.said = Some(said);
            return Err(fault);
        }
        if message.kind != Type::Event {
            return Ok(Mark::Idle);
        }
        let body = json::document(message.payload).map_err(|_| Fault::BadFrame)?;
        self.answer.event(message.name, message.payload, body, sink)
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        self.answer.close(include_usage, sink)
    }

    fn is_finished(&self) -> bool {
        self.answer.is_finished()
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        let mut members = Top::new();
        json::document_with_top(body, &mut members).map_err(|_| Fault::BadFrame)?;
        if json::find(body, &members, "output").is_none()
            && let Some(said) = aws::error_of_answer(body, &members)
        {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        self.answer.whole(body, &members, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        aws::refuse(refusal)
    }

    fn usage(&self) -> Option<Usage> {
        self.answer.usage()
    }

    fn said(&mut self) -> Option<Said> {
        self.said.take()
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
mod tests {
    use super::*;
    use crate::base::buf::Buf;
    use crate::llm::sink::Told;

    /// Plays messages of a stream; what the client gets, how the last one was taken, what was said.
    fn play(messages: &[(Type, &str, &str)]) -> (String, Result<Mark, Fault>, Option<Said>) {
        let (mut adapter, mut fed) = (Bedrock::default(), Ok(Mark::Idle));
        let (mut told, mut out, mut events) = (Told::default(), Buf::new(), 0);
        let mut sink = Sink {
            out: &mut out,
            shown: "shown",
            events: &mut events,
            id: "req",
            seconds: 9,
            told: &mut told,
        };
        for (kind, name, payload) in messages {
            let (name, payload) = (name.as_bytes(), payload.as_bytes());
            fed =
                adapter.feed_named(&Named { kind: *kind, name, text: b"why", payload }, &mut sink);
            if fed.is_err() {
                break;
            }
        }
        (String::from_utf8(out.as_slice().to_vec()).unwrap(), fed, adapter.said())
    }

    const TEXT: (Type, &str, &str) = (
        Type::Event,
        "contentBlockDelta",
        r#"{"contentBlockIndex":0,"delta":{"text":"Hi"},"p":"abcd"}"#,
    );

    #[test]
    fn an_exception_ends_the_stream_early_or_late() {
        for (name, fault) in [
            ("throttlingException", Fault::RateLimited),
            ("modelStreamErrorException", Fault::Unavailable),
            ("validationException", Fault::Client),
            ("ofTheFutureException", Fault::ErrorEvent),
        ] {
            let failed = (Type::Exception, name, r#"{"message":"no more"}"#);
            let (out, fed, said) = play(&[failed]);
            assert_eq!((out.as_str(), fed), ("", Err(fault)));
            let said = said.unwrap_or_default();
            assert_eq!((said.message.as_str(), said.code.as_deref()), ("no more", Some(name)));
            let (out, fed, _) = play(&[TEXT, failed]);
            assert!(out.contains("\"Hi\"") && fed == Err(fault), "{out}");
        }
        let (_, fed, said) = play(&[TEXT, (Type::Error, "Internal", "")]);
        assert_eq!(
            (fed, said.unwrap_or_default().message.as_str()),
            (Err(Fault::ErrorEvent), "why")
        );
    }

    #[test]
    fn what_is_not_known_is_skipped_and_what_does_not_parse_is_not() {
        assert_eq!(play(&[(Type::Event, "someFutureEvent", "{}")]).1, Ok(Mark::Event));
        assert_eq!(play(&[(Type::Other, "", "\x00")]).1, Ok(Mark::Idle));
        assert_eq!(play(&[(Type::Event, "contentBlockDelta", "{")]).1, Err(Fault::BadFrame));
        assert_eq!(play(&[(Type::Event, "contentBlockDelta", "[]")]).1, Err(Fault::BadFrame));
    }
}
