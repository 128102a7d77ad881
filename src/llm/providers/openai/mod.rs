//! OpenAI's chat, completions and embeddings APIs, and the vendors that copy them.
//!
//! What an answer says is read by `llm/openai`; this file has the address, the credential and the request.
//! A chat client's request goes out as it came but for its edits; another dialect's is written anew by
//! `llm/chat_body`.

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::event::{Mark, Usage};
use crate::llm::openai::Answer;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site, USER_AGENT};
use crate::llm::request::Ask;
use crate::llm::sink::Sink;
use crate::wire::http1::emit;

/// One answer being read.
#[derive(Default)]
pub struct Openai {
    answer: Answer,
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
        fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
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

    fn has_answered(&self) -> bool {
        self.answer.has_answered()
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        Answer::refuse(refusal)
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

    fn stray(&mut self, line: &[u8], _sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        self.answer.stray(line)
    }
}
