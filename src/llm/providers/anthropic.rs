//! Anthropic's Messages API, at Anthropic and (with errors of Google's shape around it) at Vertex.
//!
//! What an answer says is read by `llm/messages`; this file has the address, the credential, and what
//! an error status means.

use std::borrow::Cow;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::dialects::Dialect;
use crate::llm::errors::error_of_line;
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
        let mut told = Buf::new();
        let path = match ask.surface {
            Surface::Chat | Surface::Responses => {
                told.extend(&translated(ask, body, site.model)?);
                "/messages"
            }
            // The client speaks this API itself.
            Surface::Messages | Surface::CountTokens | Surface::Other => {
                ask.write_edited(body, site.model, &mut told);
                if let Cow::Owned(cleaned) = messages::own::cleaned(told.as_slice(), site.model) {
                    told = Buf::from(cleaned.as_slice());
                }
                &*ask.envelope.path
            }
            Surface::Completions
            | Surface::Embeddings
            | Surface::Models
            | Surface::Explain
            | Surface::None => return Err(Fault::Unsendable),
        };
        out.reserve(told.len() + 512);
        if head(ask, site, path, told.len(), out) {
            out.extend(told.as_slice());
            return Ok(());
        }
        out.clear();
        Err(Fault::Unsendable)
    }

    fn speaks(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Messages
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
        messages::refuse(refusal)
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
        match error_of_line(line) {
            Some(said) => {
                self.answer.keep_said(Some(said));
                Err(Fault::ErrorEvent)
            }
            None => Ok(Mark::Idle),
        }
    }
}

/// The body of a chat request in the words of this API.
fn translated(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
    let mut body = messages::body::write(&prompt, model)?;
    body.insert(String::from("model"), model.into());
    body.insert(String::from("stream"), ask.stream.into());
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// Writes the head of a request whose body has `length` bytes. `false` if something in it is no field.
fn head(ask: &Ask, site: &Site<'_>, path: &str, length: usize, out: &mut Buf) -> bool {
    let method: &[u8] = match ask.surface {
        Surface::Chat | Surface::Messages | Surface::Responses => b"POST",
        _ => ask.envelope.method.as_bytes(),
    };
    if !emit::request_line(out, method, [site.path.as_bytes(), path.as_bytes()]) {
        return false;
    }
    let mut fits = emit::field(out, b"host", site.authority.as_bytes());
    if let Some(key) = site.key {
        let key = key.expose();
        fits &= key.iter().all(u8::is_ascii_graphic);
        // A token of a sign-in is no key.
        let token = key.starts_with(TOKEN);
        out.extend(if token { b"authorization: Bearer " } else { &b"x-api-key: "[..] });
        out.extend(key);
        out.extend(emit::CRLF);
    }
    let native = matches!(ask.surface, Surface::Messages | Surface::CountTokens | Surface::Other);
    let named = |wanted: &str| {
        let mut fields = ask.envelope.anthropic.iter().filter(|_| native);
        fields.find(|(name, _)| *name == wanted).map(|(_, value)| value.as_slice())
    };
    fits &= emit::field(out, b"anthropic-version", named("anthropic-version").unwrap_or(VERSION));
    if let Some(beta) = named("anthropic-beta") {
        fits &= emit::field(out, b"anthropic-beta", beta);
    }
    fits &= emit::field(out, b"accept-encoding", b"identity");
    fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
    if ask.surface.is_understood() {
        let accept: &[u8] = if ask.stream { b"text/event-stream" } else { b"application/json" };
        fits &= emit::field(out, b"accept", accept);
        fits &= emit::field(out, b"content-type", b"application/json");
    }
    for (name, value) in ask.envelope.fields.iter().filter(|(name, _)| *name != "openai-beta") {
        fits &= emit::field(out, name.as_bytes(), value);
    }
    if length > 0 || matches!(method, b"POST" | b"PUT" | b"PATCH") {
        emit::content_length(out, length as u64);
    }
    out.extend(emit::CRLF);
    fits
}

/// The version of the API that is spoken here.
const VERSION: &[u8] = b"2023-06-01";
/// What tokens begin with.
const TOKEN: &[u8] = b"sk-ant-oat";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::base::tick::Ms;
    use crate::llm::sink::Told;

    fn sent(body: &[u8], key: &str, path: &'static str) -> Result<String, Fault> {
        let surface = if path.is_empty() { Surface::Chat } else { Surface::Other };
        let mut ask = Ask::read(surface, body).unwrap();
        ask.envelope.method = "POST";
        ask.envelope.path = path.to_owned().into();
        ask.envelope.fields.push(("openai-beta", b"x".to_vec()));
        ask.envelope.fields.push(("traceparent", b"00-1".to_vec()));
        let key = Secret::new(key);
        let (authority, model) = ("host:1", "claude-sonnet-4-5");
        let site = Site { authority, path: "/v1", key: Some(&key), model, ..Site::default() };
        let mut out = Buf::new();
        Anthropic::send(&ask, body, &site, UnixMs(0), &mut out)?;
        Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
    }

    const BODY: &[u8] =
        br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

    #[test]
    fn a_request_has_its_head_and_body() {
        let body = r#"{"max_tokens":4096,"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"model":"claude-sonnet-4-5","stream":true}"#;
        let expected = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: host:1\r\nx-api-key: sk-ant-x\r\n\
             anthropic-version: 2023-06-01\r\naccept-encoding: identity\r\n\
             user-agent: firstbyte/{}\r\naccept: text/event-stream\r\n\
             content-type: application/json\r\ntraceparent: 00-1\r\ncontent-length: {}\r\n\r\n{body}",
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        assert_eq!(sent(BODY, "sk-ant-x", ""), Ok(expected));
        let token = sent(BODY, "sk-ant-oat01-x", "").unwrap();
        assert!(token.contains("authorization: Bearer sk-ant-oat01-x\r\n"));
        assert!(!token.contains("x-api-key"));
        assert_eq!(sent(BODY, "a\r\nb: c", ""), Err(Fault::Unsendable));
    }

    #[test]
    fn other_paths_go_out_as_they_came() {
        let out = sent(BODY, "k", "/messages/count_tokens").unwrap();
        assert!(out.starts_with("POST /v1/messages/count_tokens HTTP/1.1\r\n"), "{out}");
        let body = std::str::from_utf8(BODY).unwrap().replace("\"m\"", "\"claude-sonnet-4-5\"");
        assert!(out.ends_with(&format!("\r\n\r\n{body}")), "{out}");
    }

    #[test]
    fn errors_are_named_by_status_and_words() {
        let error = |kind: &str, message: &str| serde_json::json!({ "type": "error", "error": { "type": kind, "message": message } });
        let google =
            serde_json::json!([{ "error": { "code": 429, "message": "Quota", "status": "X" } }]);
        for (status, body, fault) in [
            (400, error("invalid_request_error", "max_tokens: required"), Fault::Client),
            (
                400,
                error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
                Fault::Context,
            ),
            (
                400,
                error(
                    "invalid_request_error",
                    "input length and `max_tokens` exceed context limit: 9",
                ),
                Fault::Context,
            ),
            (
                400,
                error("invalid_request_error", "Your credit balance is too low"),
                Fault::Credential,
            ),
            (
                400,
                error("invalid_request_error", "Output blocked by content filtering policy"),
                Fault::ContentPolicy,
            ),
            (401, error("authentication_error", "invalid x-api-key"), Fault::Credential),
            (402, error("billing_error", "m"), Fault::Credential),
            (403, error("permission_error", "m"), Fault::Credential),
            (404, error("not_found_error", "model: x"), Fault::NotFound),
            (409, error("conflict_error", "m"), Fault::Unavailable),
            (413, error("request_too_large", "m"), Fault::TooLarge),
            (429, error("rate_limit_error", "m"), Fault::RateLimited),
            (429, google, Fault::RateLimited),
            (500, error("api_error", "m"), Fault::Unavailable),
            (504, error("timeout_error", "m"), Fault::Unavailable),
            (529, error("overloaded_error", "Overloaded"), Fault::Unavailable),
        ] {
            let bytes = body.to_string().into_bytes();
            let (retry_after, surface) = (Some(Ms(7)), Surface::Chat);
            let refusal =
                Refusal { status, retry_after, body: &bytes, surface, ..Refusal::default() };
            let refused = Anthropic::refuse(&refusal);
            assert_eq!(refused.failure.fault, fault, "{body}");
            assert_eq!(
                (refused.failure.status, refused.failure.retry_after),
                (status, Some(Ms(7)))
            );
            assert!(!refused.said.unwrap().message.is_empty(), "{body}");
        }
        let refusal = Refusal {
            status: 413,
            retry_after: None,
            body: b"<html>",
            surface: Surface::Chat,
            ..Refusal::default()
        };
        let refused = Anthropic::refuse(&refusal);
        assert_eq!((refused.failure.fault, refused.said), (Fault::TooLarge, None));
    }

    #[test]
    fn errors_hide_in_lines_that_are_no_fields() {
        let (mut adapter, mut told) = (Anthropic::default(), Told::default());
        let (mut out, mut events) = (Buf::new(), 0);
        let mut sink = Sink {
            out: &mut out,
            shown: "shown",
            events: &mut events,
            id: "req",
            seconds: 9,
            told: &mut told,
        };
        let line = b"{\"error\":{\"code\":500,\"message\":\"Internal\"}}";
        assert_eq!(adapter.stray(line, &mut sink), Err(Fault::ErrorEvent));
        assert_eq!(adapter.said().unwrap().message, "Internal");
        assert_eq!(adapter.stray(b"retry", &mut sink), Ok(Mark::Idle));
    }
}
