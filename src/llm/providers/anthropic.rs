//! Anthropic's Messages API, at Anthropic and (with errors of Google's shape around it) at Vertex.
//!
//! What an answer says is read by `llm/messages`; this file has the address, the credential, and what
//! an error status means.

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::UnixMs;
use crate::llm::dialects::chat_prompt;
use crate::llm::errors::{error_of_line, fault_of, said_of_body};
use crate::llm::event::{Mark, Usage};
use crate::llm::messages::{self, Answer};
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site, USER_AGENT};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::Sink;
use crate::wire::http1::emit;

/// One answer being read.
#[derive(Default)]
pub struct Anthropic {
    answer: Answer,
}

impl Provider for Anthropic {
    const NAME: &'static str = "anthropic";
    const BASE_URL: &'static str = "https://api.anthropic.com/v1";
    const KEY_VARIABLE: &'static str = "ANTHROPIC_API_KEY";
    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        if ask.surface != Surface::Chat {
            return Err(Fault::Unsendable);
        }
        let chat = serde_json::from_slice(body).map_err(|_| Fault::Unsendable)?;
        let prompt = chat_prompt::read(&chat).map_err(|_| Fault::Unsendable)?;
        let mut body = messages::body::write(&prompt, site.model)?;
        body.insert(String::from("model"), site.model.into());
        body.insert(String::from("stream"), ask.stream.into());
        let body = serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)?;
        let path = [site.path.as_bytes(), b"/messages"];
        let mut fits = emit::request_line(out, b"POST", path);
        fits &= emit::field(out, b"host", site.authority.as_bytes());
        if let Some(key) = site.key {
            fits &= emit::field(out, b"x-api-key", key.expose());
        }
        for (name, value) in [
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
            ("accept", if ask.stream { "text/event-stream" } else { "application/json" }),
            ("accept-encoding", "identity"),
            ("user-agent", USER_AGENT),
        ] {
            fits &= emit::field(out, name.as_bytes(), value.as_bytes());
        }
        emit::content_length(out, body.len() as u64);
        emit::end(out);
        out.extend(&body);
        if fits {
            return Ok(());
        }
        out.clear();
        Err(Fault::Unsendable)
    }

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        self.answer.feed(payload, sink)
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        self.answer.close(include_usage, sink)
    }

    fn is_finished(&self) -> bool {
        self.answer.is_finished()
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        self.answer.whole(body, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let fault = fault_of(refusal.status, said.as_ref(), refusal.surface);
        let message = said.as_ref().map(|said| said.message.to_ascii_lowercase());
        let tells = |phrase: &str| message.as_ref().is_some_and(|message| message.contains(phrase));
        let fault = match fault {
            // An empty account is told with the status of a bad request.
            Fault::Client if tells("credit balance is too low") => Fault::Credential,
            Fault::Client if tells("content filtering policy") => Fault::ContentPolicy,
            other => other,
        };
        let failure = Failure { fault, status: refusal.status, retry_after: refusal.retry_after };
        Refused { failure, said }
    }

    fn usage(&self) -> Option<Usage> {
        self.answer.usage()
    }

    fn said(&mut self) -> Option<Said> {
        self.answer.said()
    }

    fn keep_said(&mut self, said: Option<Said>) {
        self.answer.keep_said(said);
    }

    fn stray(&mut self, line: &[u8]) -> Result<Mark, Fault> {
        match error_of_line(line) {
            Some(said) => {
                self.answer.keep_said(Some(said));
                Err(Fault::ErrorEvent)
            }
            None => Ok(Mark::Idle),
        }
    }
}
