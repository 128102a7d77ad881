//! Google's Gemini API (`generateContent`, `streamGenerateContent?alt=sse`).
//!
//! What an answer says is read by `llm/gemini`, and what is asked is written there too; this file has the
//! address and the credential.

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::event::{Mark, Usage};
use crate::llm::gemini::{self, Answer};
use crate::llm::google;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site, is_path_part};
use crate::llm::request::Ask;
use crate::llm::sink::Sink;

/// One answer being read.
#[derive(Default)]
pub struct Gemini {
    answer: Answer,
}

impl Provider for Gemini {
    const NAME: &'static str = "gemini";
    const BASE_URL: &'static str = "https://generativelanguage.googleapis.com/v1beta";
    const KEY_VARIABLE: &'static str = "GEMINI_API_KEY";

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        if !ask.surface.is_conversation() || !is_path_part(site.model, b"") {
            return Err(Fault::Unsendable);
        }
        let body = gemini::body::text(ask, body, site.model)?;
        let path = format!("/models/{}{}", site.model, gemini::verb(ask.stream));
        google::post(ask, site, &path, &[], &body, out)
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
        gemini::refuse(refusal)
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

    fn stray(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        self.answer.stray(line, sink)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::base::secret::Secret;
    use crate::llm::request::Surface;

    #[test]
    fn a_request_is_written_whole() {
        let chat = json!({
            "model": "m", "stream": true, "max_tokens": 9,
            "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }]
        })
        .to_string();
        let mut ask = Ask::read(Surface::Chat, chat.as_bytes()).unwrap();
        ask.envelope.method = "POST";
        let key = Secret::new(b"k1".to_vec());
        let site = Site {
            authority: "host:1",
            path: "/v1beta",
            model: "gemini-x",
            key: Some(&key),
            ..Site::default()
        };
        let mut out = Buf::new();
        Gemini::send(&ask, chat.as_bytes(), &site, UnixMs(0), &mut out).unwrap();
        let sent = String::from_utf8(out.as_slice().to_vec()).unwrap();
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        let line = "POST /v1beta/models/gemini-x:streamGenerateContent?alt=sse HTTP/1.1";
        assert_eq!(head.lines().next(), Some(line));
        assert!(head.contains("\r\nx-goog-api-key: k1\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["systemInstruction"]["parts"][0]["text"], "Be brief.");
        assert_eq!(body["contents"][0], json!({ "role": "user", "parts": [{ "text": "Hi" }] }));
        assert_eq!(body["generationConfig"]["maxOutputTokens"], 9);
        assert_eq!(body.get("model"), None);
        ask.surface = Surface::Embeddings;
        let refused = Gemini::send(&ask, chat.as_bytes(), &site, UnixMs(0), &mut out);
        assert_eq!(refused, Err(Fault::Unsendable));
        ask.surface = Surface::Chat;
        // The client may have chosen the name: it leads nowhere else.
        for model in ["m:predict", "../x", "a/b", "m?x=1", "m%2f", "m#", ""] {
            let site = Site { model, key: Some(&key), ..Site::default() };
            let refused = Gemini::send(&ask, chat.as_bytes(), &site, UnixMs(0), &mut out);
            assert_eq!(refused, Err(Fault::Unsendable), "{model}");
        }
    }
}
