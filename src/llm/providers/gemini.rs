//! Google's Gemini API (`generateContent`, `streamGenerateContent?alt=sse`), and the same at Vertex.
//!
//! Each event is a whole response object with what is new in its parts; calls come complete, or, where
//! arguments are streamed, as values at paths that are put together here. The terminal signal is a
//! `finishReason` for each candidate; token counts may follow.
//!
//! ```text
//!   {"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"usageMetadata":{..}}
//! ```

use serde_json::Value as Tree;
use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::{Ms, UnixMs};
use crate::llm::dialects::chat_prompt;
use crate::llm::errors::{error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::gemini_body;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site, USER_AGENT};
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::{Piece, Sink};
use crate::wire::http1::emit;
use crate::wire::json::{self, Kind, Top, Value};

/// One answer being read.
#[derive(Default)]
pub struct Gemini {
    candidates: SmallVec<[Candidate; 1]>,
    usage: Option<Usage>,
    said: Option<Said>,
}

#[derive(Default)]
struct Candidate {
    index: u32,
    /// Why it ended, by the latest event that says so: some models say `STOP` in each event, and why they
    /// really stopped in the last.
    finish: Option<Finish>,
    /// A call whose arguments are still coming.
    open: Option<OpenCall>,
}

struct OpenCall {
    name: String,
    id: String,
    arguments: Tree,
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
        if ask.surface != Surface::Chat {
            return Err(Fault::Unsendable);
        }
        let chat = serde_json::from_slice(body).map_err(|_| Fault::Unsendable)?;
        let prompt = chat_prompt::read(&chat).map_err(|_| Fault::Unsendable)?;
        let body = gemini_body::write(&prompt, site.model)?;
        let body = serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)?;
        let verb = if ask.stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" };
        let path = format!("/models/{}{verb}", site.model);
        let mut fits = emit::request_line(out, b"POST", [site.path.as_bytes(), path.as_bytes()]);
        fits &= emit::field(out, b"host", site.authority.as_bytes());
        if let Some(key) = site.key {
            fits &= emit::field(out, b"x-goog-api-key", key.expose());
        }
        let accept: &[u8] = if ask.stream { b"text/event-stream" } else { b"application/json" };
        fits &= emit::field(out, b"accept", accept);
        fits &= emit::field(out, b"content-type", b"application/json");
        fits &= emit::field(out, b"accept-encoding", b"identity");
        fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
        for (name, value) in ask.envelope.fields.iter().filter(|(name, _)| *name != "openai-beta") {
            fits &= emit::field(out, name.as_bytes(), value);
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
        let mut members = Top::new();
        let top = json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if let Some(said) = error_of(payload, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        self.read(payload, top, sink)
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !self.is_finished() {
            return Err(Fault::Truncated);
        }
        for candidate in &self.candidates {
            sink.stop(candidate.index, candidate.finish.unwrap_or(Finish::Stop));
        }
        if let Some(usage) = self.usage {
            sink.usage(usage);
        }
        sink.finish(include_usage);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        !self.candidates.is_empty()
            && self.candidates.iter().all(|candidate| candidate.finish.is_some())
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        match json::document(body).map_err(|_| Fault::BadFrame)?.kind {
            Kind::Array => self.read_list(body, sink).map(|_| ())?,
            _ => self.feed(body, sink).map(|_| ())?,
        }
        // An answer without a reason to end is over all the same: it is here.
        for candidate in &mut self.candidates {
            flush(candidate, sink);
            candidate.finish.get_or_insert(Finish::Stop);
        }
        self.close(true, sink)
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let text = String::from_utf8_lossy(refusal.body);
        let fault = match fault_of(refusal.status, said.as_ref(), refusal.surface) {
            // A bad key is told with the status of a bad request.
            Fault::Client if text.contains("API_KEY_INVALID") => Fault::Credential,
            Fault::Client if text.contains("exceeds the maximum number of tokens") => {
                Fault::Context
            }
            Fault::Client if refusal.status == 499 => Fault::Unavailable,
            other => other,
        };
        let retry_after = refusal.retry_after.or_else(|| retry_delay(refusal.body));
        Refused { failure: Failure { fault, status: refusal.status, retry_after }, said }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn said(&mut self) -> Option<Said> {
        self.said.take()
    }

    fn keep_said(&mut self, said: Option<Said>) {
        self.said = said;
    }

    fn stray(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if let Some(said) = error_of_line(line) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        // Without `alt=sse` the stream is one array of responses.
        match json::document(line) {
            Ok(value) if value.kind == Kind::Array => self.read_list(line, sink),
            _ => Ok(Mark::Idle),
        }
    }
}

impl Gemini {
    /// Reads an array of responses.
    fn read_list(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        let list = json::document(bytes).map_err(|_| Fault::BadFrame)?;
        let mut mark = Mark::Idle;
        for item in json::items(bytes, list) {
            mark = mark.max(self.feed(item.raw(bytes), sink)?);
        }
        Ok(mark)
    }

    fn read(&mut self, bytes: &[u8], top: Value, sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        let id = json::get(bytes, top, "responseId").and_then(|id| json::raw_string(bytes, id));
        sink.start(id.map(Piece::Raw), None);
        if let Some(usage) = json::get(bytes, top, "usageMetadata") {
            self.read_usage(bytes, usage);
        }
        let mut substance = false;
        if let Some(list) = json::get(bytes, top, "candidates") {
            for candidate in json::items(bytes, list) {
                substance |= self.read_candidate(bytes, candidate, sink)?;
            }
        }
        let blocked = json::get_path(bytes, top, &["promptFeedback", "blockReason"]);
        if blocked.is_some_and(|reason| reason.kind == Kind::String) && self.candidates.is_empty() {
            let at = self.candidate(0)?;
            self.end(at, Finish::ContentFilter, sink);
            substance = true;
        }
        Ok(if substance { Mark::Content } else { Mark::Event })
    }

    fn candidate(&mut self, index: u64) -> Result<usize, Fault> {
        let index = u32::try_from(index).map_err(|_| Fault::BadFrame)?;
        match self.candidates.iter().position(|candidate| candidate.index == index) {
            Some(at) => Ok(at),
            None if self.candidates.len() < crate::base::limits::CHOICES_MAX => {
                self.candidates.push(Candidate { index, ..Candidate::default() });
                Ok(self.candidates.len() - 1)
            }
            None => Err(Fault::BadFrame),
        }
    }

    fn read_candidate(
        &mut self,
        bytes: &[u8],
        candidate: Value,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        if candidate.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let index = json::get(bytes, candidate, "index");
        let at = self.candidate(index.and_then(|i| json::as_u64(bytes, i)).unwrap_or(0))?;
        let mut substance = false;
        if let Some(parts) = json::get_path(bytes, candidate, &["content", "parts"]) {
            for part in json::items(bytes, parts) {
                substance |= self.read_part(bytes, part, at, sink);
            }
        }
        let finish = json::get(bytes, candidate, "finishReason");
        if let Some(reason) = finish.and_then(|reason| json::raw_string(bytes, reason)) {
            self.end(at, finish_of(reason), sink);
            substance = true;
        }
        Ok(substance)
    }

    fn read_part(&mut self, bytes: &[u8], part: Value, at: usize, sink: &mut Sink<'_>) -> bool {
        let choice = self.candidates[at].index;
        if let Some(call) = json::get(bytes, part, "functionCall") {
            return self.read_call(bytes, call, at, sink);
        }
        let text = json::get(bytes, part, "text").and_then(|text| json::raw_string(bytes, text));
        let Some(text) = text.filter(|text| !text.is_empty()) else { return false };
        let thought = json::get(bytes, part, "thought");
        if thought.is_some_and(|thought| thought.kind == Kind::True) {
            sink.reason(choice, Piece::Raw(text));
        } else {
            sink.text(choice, Piece::Raw(text));
        }
        true
    }

    /// A call, whole or as one of its pieces: a name, values at paths, and an empty object at the end.
    fn read_call(&mut self, bytes: &[u8], call: Value, at: usize, sink: &mut Sink<'_>) -> bool {
        let string = |name: &str| {
            let value = json::get(bytes, call, name)?;
            json::text(bytes, value).map(std::borrow::Cow::into_owned)
        };
        let goes_on = json::get(bytes, call, "willContinue").is_some_and(|v| v.kind == Kind::True);
        let pieces = json::get(bytes, call, "partialArgs");
        let candidate = &mut self.candidates[at];
        if let Some(name) = string("name") {
            let mut substance = flush(candidate, sink);
            let id = string("id").unwrap_or_default();
            if goes_on || pieces.is_some() {
                let arguments = Tree::Object(serde_json::Map::new());
                candidate.open = Some(OpenCall { name, id, arguments });
            } else {
                let number = sink.tool(candidate.index, Piece::Text(&id), Piece::Text(&name));
                let arguments = json::get(bytes, call, "args").filter(|v| v.kind == Kind::Object);
                let arguments = arguments.map(|value| value.raw(bytes)).unwrap_or_default();
                let arguments = std::str::from_utf8(arguments).unwrap_or_default();
                sink.args(candidate.index, number, Piece::Text(arguments));
                substance = true;
            }
            if pieces.is_none() {
                return substance;
            }
        }
        if let (Some(pieces), Some(open)) = (pieces, &mut candidate.open) {
            for piece in json::items(bytes, pieces) {
                if let Ok(piece) = serde_json::from_slice::<Tree>(piece.raw(bytes)) {
                    place(&mut open.arguments, &piece);
                }
            }
        }
        if goes_on { false } else { flush(candidate, sink) }
    }

    fn end(&mut self, at: usize, finish: Finish, sink: &mut Sink<'_>) {
        let candidate = &mut self.candidates[at];
        flush(candidate, sink);
        candidate.finish = Some(finish);
    }

    fn read_usage(&mut self, bytes: &[u8], usage: Value) {
        let number = |name: &str| {
            json::get(bytes, usage, name).and_then(|value| json::as_u64(bytes, value)).unwrap_or(0)
        };
        let reasoning = number("thoughtsTokenCount");
        self.usage = Some(Usage {
            prompt: number("promptTokenCount") + number("toolUsePromptTokenCount"),
            completion: number("candidatesTokenCount") + reasoning,
            cached: number("cachedContentTokenCount"),
            reasoning,
        });
    }
}

/// Tells a call that was put together; says whether there was one.
fn flush(candidate: &mut Candidate, sink: &mut Sink<'_>) -> bool {
    let Some(open) = candidate.open.take() else { return false };
    let number = sink.tool(candidate.index, Piece::Text(&open.id), Piece::Text(&open.name));
    sink.args(candidate.index, number, Piece::Text(&open.arguments.to_string()));
    true
}

/// Puts one streamed value where its `jsonPath` says: `$.city`, `$.stops[0].name`. Pieces of a string are
/// joined.
fn place(arguments: &mut Tree, piece: &Tree) {
    let Some(path) = piece["jsonPath"].as_str().and_then(|path| path.strip_prefix('$')) else {
        return;
    };
    let mut slot = arguments;
    let path = path.replace("['", ".").replace("']", "").replace('[', ".").replace(']', "");
    for step in path.split('.').filter(|step| !step.is_empty()).take(PATH_MAX) {
        slot = match step.parse::<usize>() {
            Ok(index) if index < ITEMS_MAX => {
                if !slot.is_array() {
                    *slot = Tree::Array(Vec::new());
                }
                let Some(list) = slot.as_array_mut() else { return };
                while list.len() <= index {
                    list.push(Tree::Null);
                }
                &mut list[index]
            }
            _ => {
                if !slot.is_object() {
                    *slot = Tree::Object(serde_json::Map::new());
                }
                let Some(object) = slot.as_object_mut() else { return };
                object.entry(step.to_owned()).or_insert(Tree::Null)
            }
        };
    }
    if let Some(text) = piece["stringValue"].as_str() {
        match slot {
            Tree::String(known) => known.push_str(text),
            other => *other = Tree::String(text.to_owned()),
        }
        return;
    }
    for name in ["numberValue", "boolValue"] {
        if let Some(value) = piece.get(name) {
            *slot = value.clone();
        }
    }
}

fn finish_of(reason: &[u8]) -> Finish {
    match reason {
        b"MAX_TOKENS" => Finish::Length,
        b"SAFETY"
        | b"RECITATION"
        | b"BLOCKLIST"
        | b"PROHIBITED_CONTENT"
        | b"SPII"
        | b"IMAGE_SAFETY"
        | b"IMAGE_PROHIBITED_CONTENT"
        | b"IMAGE_RECITATION"
        | b"MODEL_ARMOR" => Finish::ContentFilter,
        // Reasons are added now and then; what is not known is an end like another.
        _ => Finish::Stop,
    }
}

/// `retryDelay` of the error's details: `"34.4s"`.
fn retry_delay(body: &[u8]) -> Option<Ms> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"retryDelay\"")?;
    let value = rest.split('"').nth(1)?;
    let seconds: f64 = value.strip_suffix('s')?.parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some(Ms((seconds * 1000.0) as u32))
}

/// Steps of a path, and items of a list, that streamed arguments may have.
const PATH_MAX: usize = 32;
const ITEMS_MAX: usize = 4096;

#[cfg(test)]
mod tests;
