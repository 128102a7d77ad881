//! Answers of Google's `generateContent` and `streamGenerateContent?alt=sse`, as Gemini's own API and
//! Vertex serve them; requests are written by `body`.
//!
//! Each event is a whole response object with what is new in its parts; calls come complete, or, where
//! arguments are streamed, as values at paths (`args`). The terminal signal is a `finishReason` for each
//! candidate; token counts may follow. Citations (`cite`) go out at the end.
//!
//! ```text
//!   {"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"usageMetadata":{..}}
//! ```

pub mod body;

use smallvec::SmallVec;

use crate::base::fail::{Failure, Fault};
use crate::base::tick::Ms;
use crate::llm::errors::{error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::prompt::Family;
use crate::llm::provider::{Refusal, Refused, Said};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Member, Top, Value};

use args::Arguments;
use cite::{Citations, Starts};

mod args;
mod cite;

/// One answer being read.
#[derive(Default)]
pub struct Answer {
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

impl Answer {
    /// Reads one event's payload.
    ///
    /// # Errors
    /// `BadFrame` for what is no event, `ErrorEvent` for an error (see [`Answer::said`]).
    pub fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
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

    /// The stream is over: writes what the dialect still owes the client.
    ///
    /// # Errors
    /// `Truncated` if a candidate has no reason to end.
    pub fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
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

    /// Whether nothing but trailers can follow.
    pub fn is_finished(&self) -> bool {
        self.has_ended() && !self.goes_on
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// As [`Answer::feed`]; `Truncated` for one without candidates.
    pub fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
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

    /// Token counts, as far as they were told.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// What was said in an error, once.
    pub fn said(&mut self) -> Option<Said> {
        self.said.take()
    }

    /// Keeps what an error response said.
    pub fn keep_said(&mut self, said: Option<Said>) {
        self.said = said;
    }

    /// Reads a line that is no field of the event stream: errors hide in such lines, and whole arrays
    /// where `alt=sse` was not asked for.
    ///
    /// # Errors
    /// `ErrorEvent`, and as [`Answer::feed`].
    pub fn stray(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
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
        let (mut call, mut text, mut blob, mut thought) = (None, None, None, false);
        let mut signature: &[u8] = b"";
        for member in json::members(bytes, part) {
            match member.key.of(bytes) {
                b"functionCall" => call = Some(member.value),
                b"text" => text = json::raw_string(bytes, member.value),
                b"thought" => thought = member.value.kind == Kind::True,
                b"thoughtSignature" => {
                    signature = json::raw_string(bytes, member.value).unwrap_or_default();
                }
                b"inlineData" => blob = Some(member.value),
                // Code that the vendor ran itself and what it gave, files that it keeps.
                _ => {}
            }
        }
        if let Some(call) = call.filter(|call| call.kind == Kind::Object) {
            return self.read_call(bytes, call, signature, place, sink);
        }
        // A draft, as image models think in, is no part of the answer.
        let shown = blob.filter(|_| !thought).is_some_and(|b| image(bytes, b, place.choice, sink));
        let text = text.unwrap_or_default();
        if thought {
            if !signature.is_empty() {
                sink.thought(place.choice);
            }
            sink.reason(place.choice, Piece::Raw(text));
        } else {
            self.candidates[place.at].cites.text(text);
            sink.text(place.choice, Piece::Raw(text));
            // Dialects have no place for the proof of a text: a thought without words carries it.
            if !signature.is_empty() {
                sink.thought(place.choice);
            }
        }
        sink.sign(place.choice, Family::Gemini, Piece::Raw(signature));
        Ok(shown || !text.is_empty())
    }

    /// A call, whole or as one of its pieces: a name, values at paths, and an empty object at the end.
    fn read_call(
        &mut self,
        bytes: &[u8],
        call: Value,
        signature: &[u8],
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
            sink.sign_call(place.choice, number, Family::Gemini, Piece::Raw(signature));
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

/// What follows the model in the path.
pub const fn verb(stream: bool) -> &'static str {
    if stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" }
}

/// Names what an error status means.
pub fn refuse(refusal: &Refusal<'_>) -> Refused {
    let said = said_of_body(refusal.body);
    let text = String::from_utf8_lossy(refusal.body);
    let fault = match fault_of(refusal.status, said.as_ref(), refusal.surface) {
        // A bad key is told with the status of a bad request.
        Fault::Client if text.contains("API_KEY_INVALID") => Fault::Credential,
        Fault::Client if CONTEXT_PHRASES.iter().any(|phrase| text.contains(phrase)) => {
            Fault::Context
        }
        // Where it may be called from, and who pays: nothing that the client could mend.
        Fault::Client if status_of(refusal.body).is_some_and(|s| s == "FAILED_PRECONDITION") => {
            Fault::Credential
        }
        Fault::Client if refusal.status == 499 => Fault::Unavailable,
        other => other,
    };
    let retry_after = refusal.retry_after.or_else(|| retry_delay(refusal.body));
    Refused { failure: Failure { fault, status: refusal.status, retry_after }, said }
}

/// `error.status`, Google's word beside the number; some of its errors stand in an array.
fn status_of(body: &[u8]) -> Option<String> {
    let top = json::document(body).ok()?;
    let top = if top.kind == Kind::Array { json::at(body, top, 0)? } else { top };
    json::get_path(body, top, &["error", "status"])
        .and_then(|status| json::text(body, status))
        .map(Into::into)
}

/// Tells an image; sounds have no place in a text answer.
fn image(bytes: &[u8], blob: Value, choice: u32, sink: &mut Sink<'_>) -> bool {
    let string = |name: &str| {
        let value = json::get(bytes, blob, name);
        value.and_then(|value| json::text(bytes, value)).unwrap_or_default()
    };
    let (mime, data) = (string("mimeType"), string("data"));
    if !mime.starts_with("image/") || data.is_empty() {
        return false;
    }
    sink.image(choice, &mime, Piece::Text(&data));
    true
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
