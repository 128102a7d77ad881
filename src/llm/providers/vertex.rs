//! Google's Vertex AI: Gemini and Claude, each by its maker's format at Google's addresses.
//!
//! The base URL's path names project and location; what follows names the publisher:
//!
//! ```text
//!   gemini-2.5-flash                         /publishers/google/models/gemini-2.5-flash:generateContent
//!   claude-sonnet-4-5@20250929               /publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict
//!   publishers/anthropic/models/my-claude    as it stands
//!   endpoints/123                            a tuned Gemini
//! ```
//!
//! Which of the two answers is told by its first event: Claude's say their `type`. Errors may be of
//! Google's shape for both.

use serde_json::{Map, Value};
use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::errors::error_of_line;
use crate::llm::event::{Mark, Usage};
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site, is_path_part};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::Sink;
use crate::llm::{gemini, google, messages};
use crate::wire::json::{self, Kind};

/// One answer being read.
#[derive(Default)]
pub enum Vertex {
    /// Nothing has come yet.
    #[default]
    Unknown,
    /// Gemini answers, or nobody did.
    Gemini(gemini::Answer),
    /// Claude answers.
    Claude(messages::Answer),
}

impl Provider for Vertex {
    const NAME: &'static str = "vertex";
    const BASE_URL: &'static str = "";
    const KEY_VARIABLE: &'static str = "VERTEX_API_KEY";

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        if !ask.surface.is_conversation() || !is_path_part(site.model, b"/") {
            return Err(Fault::Unsendable);
        }
        let (place, is_claude) = place(site.model).ok_or(Fault::Unsendable)?;
        let (body, verb) = if is_claude {
            (claude(ask, body, site.model)?, if ask.stream { STREAM_RAW } else { RAW })
        } else {
            (gemini::body::text(ask, body, site.model)?, gemini::verb(ask.stream))
        };
        // The version is in the body, and betas mean something to a client of the same API alone.
        let own = is_claude && ask.surface == Surface::Messages;
        let betas = ask.envelope.anthropic.iter().filter(|(name, _)| own && *name != VERSION_FIELD);
        let betas: SmallVec<[_; 1]> = betas.cloned().collect();
        google::post(ask, site, &format!("{place}{verb}"), &betas, &body, out)
    }

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        match self.told_by(payload) {
            Vertex::Unknown => Err(Fault::BadFrame),
            Vertex::Gemini(answer) => answer.feed(payload, sink),
            Vertex::Claude(answer) => answer.feed(payload, sink),
        }
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        match self {
            Vertex::Unknown => Err(Fault::Truncated),
            Vertex::Gemini(answer) => answer.close(include_usage, sink),
            Vertex::Claude(answer) => answer.close(include_usage, sink),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Vertex::Unknown => false,
            Vertex::Gemini(answer) => answer.is_finished(),
            Vertex::Claude(answer) => answer.is_finished(),
        }
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        match self.told_by(body) {
            Vertex::Unknown => Err(Fault::BadFrame),
            Vertex::Gemini(answer) => answer.whole(body, sink),
            Vertex::Claude(answer) => answer.whole(body, sink),
        }
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        if is_claudes(refusal.body) { messages::refuse(refusal) } else { gemini::refuse(refusal) }
    }

    fn usage(&self) -> Option<Usage> {
        match self {
            Vertex::Unknown => None,
            Vertex::Gemini(answer) => answer.usage(),
            Vertex::Claude(answer) => answer.usage(),
        }
    }

    fn said(&mut self) -> Option<Said> {
        match self {
            Vertex::Unknown => None,
            Vertex::Gemini(answer) => answer.said(),
            Vertex::Claude(answer) => answer.said(),
        }
    }

    fn keep_said(&mut self, said: Option<Said>) {
        match self.or_gemini() {
            Vertex::Unknown => {}
            Vertex::Gemini(answer) => answer.keep_said(said),
            Vertex::Claude(answer) => answer.keep_said(said),
        }
    }

    fn stray(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if let Vertex::Claude(answer) = self {
            let Some(said) = error_of_line(line) else { return Ok(Mark::Idle) };
            answer.keep_said(Some(said));
            return Err(Fault::ErrorEvent);
        }
        match self.or_gemini() {
            Vertex::Gemini(answer) => answer.stray(line, sink),
            Vertex::Unknown | Vertex::Claude(_) => Ok(Mark::Idle),
        }
    }
}

impl Vertex {
    /// The one whose answer this is, by its first event if that is not yet known.
    fn told_by(&mut self, payload: &[u8]) -> &mut Vertex {
        match self {
            Vertex::Unknown if is_claudes(payload) => {
                *self = Vertex::Claude(messages::Answer::default());
            }
            Vertex::Unknown | Vertex::Gemini(_) | Vertex::Claude(_) => _ = self.or_gemini(),
        }
        self
    }

    fn or_gemini(&mut self) -> &mut Vertex {
        if let Vertex::Unknown = self {
            *self = Vertex::Gemini(gemini::Answer::default());
        }
        self
    }
}

/// What follows project and location, and whether it is Claude that is asked there; `None` for
/// publishers whose format is not spoken here.
fn place(model: &str) -> Option<(String, bool)> {
    let publisher = model.strip_prefix("publishers/").map(|rest| rest.split('/').next());
    match publisher {
        Some(Some("google")) => Some((format!("/{model}"), false)),
        Some(Some("anthropic")) => Some((format!("/{model}"), true)),
        Some(_) => None,
        None if model.starts_with("endpoints/") => Some((format!("/{model}"), false)),
        None if model.contains('/') => None,
        None if model.starts_with("claude-") => {
            Some((format!("/publishers/anthropic/models/{model}"), true))
        }
        None => Some((format!("/publishers/google/models/{model}"), false)),
    }
}

/// The body for Claude: the Messages API's, but for the model, which is in the path, and the version,
/// which is not in the head.
fn claude(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let mut body: Map<String, Value> = if ask.surface == Surface::Messages {
        let mut own = Buf::new();
        ask.write_edited(body, model, &mut own);
        let own = messages::own::cleaned(own.as_slice(), model);
        serde_json::from_slice(&own).map_err(|_| Fault::Unsendable)?
    } else {
        let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
        messages::body::write(&prompt, model)?
    };
    body.remove("model");
    body.insert(String::from("anthropic_version"), VERSION.into());
    body.insert(String::from("stream"), ask.stream.into());
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// Whether this was said by Claude, or by the server that it runs in: its objects say their `type`.
fn is_claudes(bytes: &[u8]) -> bool {
    let top = json::document(bytes).ok().filter(|top| top.kind == Kind::Object);
    top.and_then(|top| json::get(bytes, top, "type")).is_some_and(|kind| kind.kind == Kind::String)
}

const RAW: &str = ":rawPredict";
const STREAM_RAW: &str = ":streamRawPredict";
/// Where others are told the version.
const VERSION_FIELD: &str = "anthropic-version";
/// The version of the Messages API that Vertex serves.
const VERSION: &str = "vertex-2023-10-16";

#[cfg(test)]
mod tests;
