//! Mistral's chat API, which is OpenAI's but for some words of the request, strictness about fields that it
//! does not know, and errors of other shapes.
//!
//! Requests are written by `body`, whatever the client speaks; answers are read by `llm/openai`.
//!
//! ```text
//!   {"object":"error","message":{"detail":[{"loc":["body","x"],"msg":".."}]},"type":"..","code":null}
//! ```

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::dialects::Dialect;
use crate::llm::errors::bounded;
use crate::llm::event::{Mark, Usage};
use crate::llm::openai::Answer;
use crate::llm::post;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::Sink;
use crate::wire::json::{self, Kind};

pub mod body;

/// One answer being read.
#[derive(Default)]
pub struct Mistral {
    answer: Answer,
}

impl Provider for Mistral {
    const NAME: &'static str = "mistral";
    const BASE_URL: &'static str = "https://api.mistral.ai/v1";
    const KEY_VARIABLE: &'static str = "MISTRAL_API_KEY";

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        let root = post::root(site.path, &["/v1"]);
        let mut told = Buf::new();
        let path = match ask.surface {
            Surface::Chat | Surface::Messages | Surface::Responses => {
                told.extend(&translated(ask, body, site.model)?);
                String::from("/v1/chat/completions")
            }
            // The same as OpenAI's, and what is passed through.
            Surface::Embeddings | Surface::Other => {
                ask.write_edited(body, site.model, &mut told);
                format!("/v1{}", ask.envelope.path)
            }
            Surface::Completions
            | Surface::CountTokens
            | Surface::Models
            | Surface::Explain
            | Surface::None => {
                return Err(Fault::Unsendable);
            }
        };
        post::write(ask, site, [root, &path], b"text/event-stream", told.as_slice(), out)
    }

    fn speaks(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Chat
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
        let mut refused = Answer::refuse(refusal);
        let said = refused.said.as_mut();
        let Some(said) = said else { return refused };
        if said.message.is_empty() {
            said.message = detail(refusal.body).unwrap_or_default();
        }
        let is =
            |word: &str| said.code.as_deref() == Some(word) || said.kind.as_deref() == Some(word);
        let no_model = is(NO_MODEL) || is("invalid_model");
        refused.failure.fault = match refused.failure.fault {
            Fault::Client if no_model => Fault::NotFound,
            Fault::Client if said.message.contains("too large for model") => Fault::Context,
            other => other,
        };
        refused
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

/// The body of a conversation in the words of this API.
fn translated(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
    let mut body = body::write(&prompt, model)?;
    body.insert(String::from("model"), model.into());
    body.insert(String::from("stream"), ask.stream.into());
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// A message that is no text, as it stands there: which field was wrong, and why.
fn detail(body: &[u8]) -> Option<String> {
    let top = json::document(body).ok()?;
    let told = json::get(body, top, "message").or_else(|| json::get(body, top, "detail"))?;
    if !matches!(told.kind, Kind::Object | Kind::Array) {
        return None;
    }
    Some(bounded(&String::from_utf8_lossy(told.raw(body))))
}

/// The code of a model that there is not.
const NO_MODEL: &str = "1500";

#[cfg(test)]
mod tests;
