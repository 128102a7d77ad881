//! Google's Gemini API (`generateContent`, `streamGenerateContent?alt=sse`), and the same at Vertex.
//!
//! Each event is a whole response object with what is new in its parts; calls come complete, or, where
//! arguments are streamed, as values at paths (`args`). The terminal signal is a `finishReason` for each
//! candidate; token counts may follow. Citations (`cite`) go out at the end.
//!
//! ```text
//!   {"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"usageMetadata":{..}}
//! ```

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::{Ms, UnixMs};
use crate::llm::errors::{error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::gemini_body;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site, USER_AGENT};
use crate::llm::request::Ask;
use crate::llm::sink::{Piece, Sink};
use crate::wire::http1::emit;
use crate::wire::json::{self, Kind, Member, Top, Value};

use args::Arguments;
use cite::{Citations, Starts};

mod args;
mod cite;

/// One answer being read.
#[derive(Default)]
pub struct Gemini {
    candidates: SmallVec<[Candidate; 1]>,
    /// Text followed a reason to end, as from models that say `STOP` in each event: no such reason tells
    /// that nothing but trailers can follow.
    goes_on: bool,
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
    cites: Citations,
}

struct OpenCall {
    /// As the sink numbered it.
    number: u32,
    arguments: Arguments,
}

/// What is one part's, or one call's.
#[derive(Clone, Copy)]
struct Place {
    /// Of the candidate, in the list.
    at: usize,
    /// Of the choice, for the client.
    choice: u32,
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
        if !ask.surface.is_conversation() {
            return Err(Fault::Unsendable);
        }
        let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
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
        self.read(payload, &members, sink)
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !self.has_ended() {
            return Err(Fault::Truncated);
        }
        for candidate in &mut self.candidates {
            candidate.cites.tell(candidate.index, sink);
            sink.stop(candidate.index, candidate.finish.unwrap_or(Finish::Stop));
        }
        if let Some(usage) = self.usage {
            sink.usage(usage);
        }
        sink.finish(include_usage);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.has_ended() && !self.goes_on
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
            Fault::Client if CONTEXT_PHRASES.iter().any(|phrase| text.contains(phrase)) => {
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

    /// Each candidate has a reason to end.
    fn has_ended(&self) -> bool {
        !self.candidates.is_empty()
            && self.candidates.iter().all(|candidate| candidate.finish.is_some())
    }

    fn read(
        &mut self,
        bytes: &[u8],
        members: &[Member],
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let get = |name: &str| json::find(bytes, members, name);
        let id = get("responseId").and_then(|id| json::raw_string(bytes, id));
        // A longer id is not one; it would go out with every chunk.
        sink.start(id.filter(|id| id.len() <= ID_MAX).map(Piece::Raw), None);
        if let Some(usage) = get("usageMetadata") {
            self.read_usage(bytes, usage);
        }
        let mut substance = false;
        if let Some(list) = get("candidates") {
            for candidate in json::items(bytes, list) {
                substance |= self.read_candidate(bytes, candidate, sink)?;
            }
        }
        let blocked = get("promptFeedback").and_then(|said| json::get(bytes, said, "blockReason"));
        if blocked.is_some_and(|reason| reason.kind == Kind::String) {
            substance |= self.block(sink)?;
        }
        Ok(if substance { Mark::Content } else { Mark::Event })
    }

    /// The prompt was refused: an end of whatever has none.
    fn block(&mut self, sink: &mut Sink<'_>) -> Result<bool, Fault> {
        if self.candidates.is_empty() {
            self.candidate(0)?;
        }
        let mut substance = false;
        for candidate in self.candidates.iter_mut().filter(|one| one.finish.is_none()) {
            flush(candidate, sink);
            candidate.finish = Some(Finish::ContentFilter);
            substance = true;
        }
        Ok(substance)
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
        let place = Place { at, choice: self.candidates[at].index };
        let mut substance = false;
        let mut starts = Starts::new();
        if let Some(parts) = json::get_path(bytes, candidate, &["content", "parts"]) {
            for part in json::items(bytes, parts) {
                starts.push(self.candidates[at].cites.len());
                substance |= self.read_part(bytes, part, place, sink)?;
            }
        }
        let known = &mut self.candidates[at];
        self.goes_on |= substance && known.finish.is_some();
        for member in json::members(bytes, candidate) {
            match member.key.of(bytes) {
                b"groundingMetadata" => {
                    known.cites.read_grounding(bytes, member.value, &starts);
                }
                b"citationMetadata" => known.cites.read_citations(bytes, member.value),
                b"finishReason" => {
                    if let Some(reason) = json::raw_string(bytes, member.value) {
                        flush(known, sink);
                        known.finish = Some(finish_of(reason));
                        substance = true;
                    }
                }
                _ => {}
            }
        }
        Ok(substance)
    }

    fn read_part(
        &mut self,
        bytes: &[u8],
        part: Value,
        place: Place,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        let (mut call, mut text, mut thought) = (None, None, false);
        for member in json::members(bytes, part) {
            match member.key.of(bytes) {
                b"functionCall" => call = Some(member.value),
                b"text" => text = json::raw_string(bytes, member.value),
                b"thought" => thought = member.value.kind == Kind::True,
                // Signatures, images, code that the vendor ran itself and what it gave.
                _ => {}
            }
        }
        if let Some(call) = call.filter(|call| call.kind == Kind::Object) {
            return self.read_call(bytes, call, place, sink);
        }
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(false) };
        if thought {
            sink.reason(place.choice, Piece::Raw(text));
        } else {
            self.candidates[place.at].cites.text(text);
            sink.text(place.choice, Piece::Raw(text));
        }
        Ok(true)
    }

    /// A call, whole or as one of its pieces: a name, values at paths, and an empty object at the end.
    fn read_call(
        &mut self,
        bytes: &[u8],
        call: Value,
        place: Place,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        let string = |name: &str| {
            let value = json::get(bytes, call, name)?;
            json::raw_string(bytes, value).filter(|raw| !raw.is_empty())
        };
        let goes_on = json::get(bytes, call, "willContinue").is_some_and(|v| v.kind == Kind::True);
        let pieces = json::get(bytes, call, "partialArgs");
        let candidate = &mut self.candidates[place.at];
        let mut substance = false;
        if let Some(name) = string("name") {
            flush(candidate, sink);
            let id = string("id").unwrap_or_default();
            let number = sink.tool(place.choice, Piece::Raw(id), Piece::Raw(name));
            let args = json::get(bytes, call, "args").filter(|v| v.kind == Kind::Object);
            if !goes_on && pieces.is_none() {
                let args = args.map(|value| value.raw(bytes)).unwrap_or_default();
                let args = std::str::from_utf8(args).unwrap_or_default();
                sink.args(place.choice, number, Piece::Text(args));
                return Ok(true);
            }
            let arguments = Arguments::new(bytes, args)?;
            candidate.open = Some(OpenCall { number, arguments });
            substance = true;
        }
        if let (Some(pieces), Some(open)) = (pieces, &mut candidate.open) {
            for piece in json::items(bytes, pieces) {
                open.arguments.place(bytes, piece)?;
                // Nothing goes out yet, but the model is at work: it must not be taken for idle.
                substance = true;
            }
        }
        Ok(if goes_on { substance } else { flush(candidate, sink) | substance })
    }

    fn read_usage(&mut self, bytes: &[u8], object: Value) {
        let mut usage = Usage::default();
        let mut counts = false;
        for member in json::members(bytes, object) {
            let Some(count) = json::as_u64(bytes, member.value) else { continue };
            // More is no count, and its sums would not fit.
            let count = count.min(u32::MAX.into());
            match member.key.of(bytes) {
                b"promptTokenCount" | b"toolUsePromptTokenCount" => usage.prompt += count,
                b"candidatesTokenCount" => usage.completion += count,
                b"thoughtsTokenCount" => {
                    usage.completion += count;
                    usage.reasoning = count;
                }
                b"cachedContentTokenCount" => usage.cached = count,
                _ => continue,
            }
            counts = true;
        }
        // Some events tell no more than the kind of traffic; what was counted before stands.
        if counts {
            self.usage = Some(usage);
        }
    }
}

/// Tells the arguments of a call that was put together; says whether there was one.
fn flush(candidate: &mut Candidate, sink: &mut Sink<'_>) -> bool {
    let Some(open) = candidate.open.take() else { return false };
    sink.args(candidate.index, open.number, Piece::Text(&open.arguments.text()));
    true
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
    (seconds.is_finite() && seconds >= 0.0)
        .then_some(Ms((seconds * 1000.0).min(RETRY_DELAY_MAX) as u32))
}

/// What Gemini, and Vertex, say of a prompt that is too long.
const CONTEXT_PHRASES: [&str; 2] =
    ["exceeds the maximum number of tokens", "but model only supports up to"];
/// The longest wait that is believed, in ms: a day.
const RETRY_DELAY_MAX: f64 = 86_400_000.0;
/// An id that is longer is left out.
const ID_MAX: usize = 256;

#[cfg(test)]
mod tests;
