//! OpenAI's chat, completions and embeddings APIs, and the vendors that copy them.
//!
//! What an answer says is read by `llm/openai`; this file has the address, the credential and the request.
//! A chat client's request goes out as it came but for its edits; another dialect's is written anew by
//! `llm/chat_body`.

pub mod vendors;

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::chat_body;
use crate::llm::dialects::Dialect;
use crate::llm::event::{Mark, Usage};
use crate::llm::openai::Answer;
use crate::llm::prompt::{Part, Prompt};
use crate::llm::provider::{
    Badge, Provider, Refusal, Refused, Said, Site, USER_AGENT, is_path_part,
};
use crate::llm::quirks::{self, Fates};
use crate::llm::request::{Ask, Edit, Surface, edited_len, write_edited};
use crate::llm::sink::Sink;
use crate::wire::http1::emit;

use self::vendors::{OPENAI, Vendor};

/// One answer being read.
pub struct Openai {
    vendor: &'static Vendor,
    answer: Answer,
}

impl Openai {
    /// The start of an answer of this vendor.
    pub fn of(vendor: &'static Vendor) -> Openai {
        Openai { vendor, answer: Answer::default() }
    }
}

impl Default for Openai {
    fn default() -> Openai {
        Openai::of(OPENAI)
    }
}

impl Provider for Openai {
    const NAME: &'static str = OPENAI.name;
    const BASE_URL: &'static str = OPENAI.base_url;
    const KEY_VARIABLE: &'static str = OPENAI.key_variable;

    fn judge(body: &[u8], model: &str) -> Option<Fates> {
        Some(OPENAI.judge(body, model))
    }

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        Openai::default().send_as(ask, body, site, wall, out)
    }

    fn send_as(
        &self,
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        if ask.surface.dialect() != Dialect::Chat {
            let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
            let body = written(self.vendor, prompt, ask.stream, site.model)?;
            let edits = quirks::fit(&body, self.vendor.rules(true), site.model)?;
            return request(ask, ("POST", "/chat/completions"), &body, &edits, site, out);
        }
        let line = (ask.envelope.method, &*ask.envelope.path);
        let rules = self.vendor.rules(false).filter(|rule| rule.holds(site.model));
        let mut rules = rules.peekable();
        if ask.surface != Surface::Chat || rules.peek().is_none() {
            return request(ask, line, body, &ask.edits, site, out);
        }
        let edits = quirks::fit(body, rules, site.model)?;
        request(ask, line, body, &edits, site, out)
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

/// The body of another dialect's request in the words of this API.
fn written(
    vendor: &Vendor,
    mut prompt: Prompt,
    stream: bool,
    model: &str,
) -> Result<Vec<u8>, Fault> {
    if vendor.rules(true).any(|rule| rule.path == "messages[].content[].cache_control") {
        forget_marks(&mut prompt);
    }
    let mut body = chat_body::write(&prompt, model)?;
    body.insert(String::from("model"), model.into());
    if stream {
        body.insert(String::from("stream"), true.into());
        // The other dialects tell the counts unasked.
        body.insert(String::from("stream_options"), serde_json::json!({ "include_usage": true }));
    }
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// Texts without cache markers can stand as plain strings, which is all that some vendors take.
fn forget_marks(prompt: &mut Prompt) {
    let turns = prompt.turns.iter_mut().flat_map(|turn| &mut turn.parts);
    let mut parts: SmallVec<[&mut Part; 16]> = prompt.system.iter_mut().chain(turns).collect();
    while let Some(part) = parts.pop() {
        match part {
            Part::Text { cache, .. } => *cache = None,
            Part::Result { parts: inner, .. } => parts.extend(inner),
            Part::Media(media) => media.cache = None,
            Part::Thought { .. } | Part::Redacted { .. } | Part::Call { .. } => {}
        }
    }
}

/// What follows the base URL's path: the client's path, and for a dated version of Azure's API the
/// deployment before it and the version behind it.
fn place<'a>(path: &'a str, site: &Site<'_>) -> Result<Cow<'a, str>, Fault> {
    let Some(version) = site.api_version else { return Ok(Cow::Borrowed(path)) };
    let mut place = String::with_capacity(path.len() + site.model.len() + 64);
    // Without a model there is no deployment: lists, files.
    if !site.model.is_empty() {
        if !is_path_part(site.model, b"") {
            return Err(Fault::Unsendable);
        }
        place.extend(["/deployments/", site.model]);
    }
    let joint = if path.contains('?') { "&" } else { "?" };
    place.extend([path, joint, "api-version=", version]);
    Ok(Cow::Owned(place))
}

/// Writes a request: its method and path, its head, and the body with its edits.
fn request(
    ask: &Ask,
    (method, path): (&str, &str),
    body: &[u8],
    edits: &[Edit],
    site: &Site<'_>,
    out: &mut Buf,
) -> Result<(), Fault> {
    let length = edited_len(edits, body, site.model);
    let place = place(path, site)?;
    out.reserve(length + 512 + place.len());
    if !emit::request_line(out, method.as_bytes(), [site.path.as_bytes(), place.as_bytes()]) {
        return Err(Fault::Unsendable);
    }
    let mut fits = emit::field(out, b"host", site.authority.as_bytes());
    if let Some(key) = site.key {
        fits &= key.expose().iter().all(u8::is_ascii_graphic);
        out.extend(match site.badge {
            Badge::Usual | Badge::Token => &b"authorization: Bearer "[..],
            Badge::ApiKey => b"api-key: ",
        });
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
    for (name, value) in ask.envelope.fields.iter().filter(|(name, _)| !is_foreign(name)) {
        fits &= emit::field(out, name.as_bytes(), value);
    }
    if length > 0 || matches!(method, "POST" | "PUT" | "PATCH") {
        emit::content_length(out, length as u64);
    }
    out.extend(emit::CRLF);
    write_edited(edits, body, site.model, out);
    if fits {
        return Ok(());
    }
    out.clear();
    Err(Fault::Unsendable)
}

/// Fields that mean something to another vendor's API alone.
fn is_foreign(name: &str) -> bool {
    name.starts_with("anthropic-")
}

#[cfg(test)]
mod tests;
