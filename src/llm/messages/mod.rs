//! Answers of Anthropic's Messages API, as Anthropic itself, Vertex and Bedrock serve it: events or a
//! whole message, told to the sink.
//!
//! ```text
//!   message_start               id, the prompt's tokens
//!     content_block_start 0     text | thinking | tool_use | server tools and what they found
//!     content_block_delta 0     text_delta | thinking_delta | input_json_delta | ...
//!     content_block_stop  0
//!   message_delta               stop_reason, the final counts
//!   message_stop                the terminal signal
//! ```
//!
//! What an event is stands in its `type`; the name beside it is not needed. Blocks are numbered with
//! gaps, so a tool call gets its index from the sink. What only the server's own tools say is left
//! out: nothing of it is the client's to run. The finish reason is told when `message_stop` has come,
//! so that a cut answer has none. A second message that begins inside an answer of which something
//! was told is a cut answer as well: two answers are never spliced.
//!
//! To a client of this API events go out as they came, but for the model's name, and so does a whole
//! message.
//!
//! It keeps a few counts and the calls that are open; no event costs an allocation but one with
//! citations or with a call's whole input.

pub mod body;
mod cite;
pub mod own;

use smallvec::SmallVec;

use crate::base::fail::{Failure, Fault};
use crate::llm::dialects::{Dialect, chat, messages};
use crate::llm::errors::{error_of, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::prompt::Family;
use crate::llm::provider::{Refusal, Refused, Said};
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

use self::cite::Citations;

/// One answer being read.
#[derive(Default)]
pub struct Answer {
    /// The message's id, the inside of a JSON string, as far as it is short.
    id: SmallVec<[u8; 64]>,
    started: bool,
    /// Something of substance was told.
    told: bool,
    /// Client tool calls so far.
    calls: u32,
    open: SmallVec<[OpenCall; 2]>,
    citations: Citations,
    counts: Counts,
    finish: Option<Finish>,
    /// `message_stop` was seen.
    ended: bool,
    said: Option<Said>,
}

/// A tool call whose block has not ended.
struct OpenCall {
    /// The block's number, the provider's.
    block: u64,
    /// The call's number, the client's.
    call: u32,
    /// A fragment was told.
    argued: bool,
    /// Input that came with the block's start: it counts if no fragments follow.
    input: Vec<u8>,
}

/// Token counts as last told, by the provider's own arithmetic.
#[derive(Default)]
struct Counts {
    any: bool,
    input: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
    thinking: u64,
}

/// The members of an event that matter to any type of it.
#[derive(Default)]
struct Event<'b> {
    kind: Option<&'b [u8]>,
    index: u64,
    message: Option<Value>,
    block: Option<Value>,
    delta: Option<Value>,
    usage: Option<Value>,
}

impl Answer {
    /// Reads one event's payload.
    ///
    /// # Errors
    /// `BadFrame` for what is no event, `ErrorEvent` for an error (see [`Answer::said`]), `Truncated`
    /// for a second answer inside this one.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        let mut members = Top::new();
        let Ok(top) = json::document_with_top(bytes, &mut members) else {
            // Some proxies end every stream like this.
            let done = bytes.trim_ascii() == b"[DONE]";
            return if done { Ok(Mark::Idle) } else { Err(Fault::BadFrame) };
        };
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let (mut event, mut failed) = (Event::default(), false);
        for member in &members {
            match member.key.of(bytes) {
                b"type" => event.kind = json::raw_string(bytes, member.value),
                b"index" => event.index = json::as_u64(bytes, member.value).unwrap_or(0),
                b"message" => event.message = Some(member.value),
                b"content_block" => event.block = Some(member.value),
                b"delta" => event.delta = Some(member.value),
                b"usage" => event.usage = Some(member.value),
                b"error" => failed = true,
                _ => {}
            }
        }
        if (failed || event.kind == Some(b"error"))
            && let Some(said) = error_of(bytes, &members)
        {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        if sink.told.dialect() == Dialect::Messages {
            return self.pass(bytes, &event, sink);
        }
        self.read(bytes, &event, sink)
    }

    /// Passes an event on to a client of the same dialect, and notes what it says.
    fn pass(
        &mut self,
        bytes: &[u8],
        event: &Event<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let Some(kind) = event.kind else { return Ok(Mark::Idle) };
        let member = |value: Option<Value>, name: &str| json::get(bytes, value?, name);
        let (mut content, mut model) = (false, None);
        match kind {
            b"content_block_delta" => {
                let delta = event.delta.ok_or(Fault::BadFrame)?;
                content = ["text", "thinking", "partial_json"].iter().any(|name| {
                    let text = member(Some(delta), name).and_then(|v| json::raw_string(bytes, v));
                    text.is_some_and(|text| !text.is_empty())
                });
            }
            b"content_block_start" => {
                let block = event.block.ok_or(Fault::BadFrame)?;
                content = says_something(bytes, block);
            }
            b"message_start" => {
                let message = event.message.ok_or(Fault::BadFrame)?;
                if self.started {
                    return self.begun_again(bytes, message);
                }
                self.begin(bytes, message);
                model = member(Some(message), "model").map(|model| model.span);
                content = member(Some(message), "content")
                    .is_some_and(|content| json::items(bytes, content).next().is_some());
            }
            b"message_delta" => {
                if let Some(usage) = event.usage {
                    self.counts.read(bytes, usage);
                }
                self.stop_reason(bytes, member(event.delta, "stop_reason"));
            }
            b"message_stop" => {
                self.ended = self.started;
                // An end of nothing is none, and must not look like one.
                if self.ended {
                    messages::pass(bytes, kind, None, sink);
                }
                return Ok(Mark::End);
            }
            b"vertex_event" => return Ok(Mark::Idle),
            b"ping" => {
                // Before the answer has begun it would only be held.
                if self.told {
                    messages::pass(bytes, kind, None, sink);
                }
                return Ok(Mark::Idle);
            }
            _ => {}
        }
        messages::pass(bytes, kind, model, sink);
        self.told |= content;
        Ok(if content { Mark::Content } else { Mark::Event })
    }

    /// A head inside of an answer: proxies repeat it, which is harmless, or start over, which is not.
    fn begun_again(&self, bytes: &[u8], message: Value) -> Result<Mark, Fault> {
        let id = json::get(bytes, message, "id").and_then(|id| json::raw_string(bytes, id));
        let same = id.unwrap_or_default() == &self.id[..];
        if same { Ok(Mark::Idle) } else { Err(Fault::Truncated) }
    }

    /// What a head says beside its content.
    fn begin(&mut self, bytes: &[u8], message: Value) {
        if let Some(usage) = json::get(bytes, message, "usage") {
            self.counts.read(bytes, usage);
        }
        let id = json::get(bytes, message, "id").and_then(|id| json::raw_string(bytes, id));
        let id = id.filter(|id| id.len() <= ID_MAX).unwrap_or_default();
        self.id = SmallVec::from_slice(id);
        self.started = true;
    }

    fn read(
        &mut self,
        bytes: &[u8],
        event: &Event<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let content = match event.kind {
            Some(b"content_block_delta") => {
                let delta = event.delta.ok_or(Fault::BadFrame)?;
                self.delta(bytes, event.index, delta, sink)
            }
            Some(b"content_block_start") => {
                let block = event.block.ok_or(Fault::BadFrame)?;
                self.block_start(bytes, event.index, block, sink)?
            }
            Some(b"content_block_stop") => self.block_stop(event.index, sink),
            Some(b"message_start") => {
                let message = event.message.ok_or(Fault::BadFrame)?;
                self.message_start(bytes, message, sink)?
            }
            Some(b"message_delta") => {
                if let Some(usage) = event.usage {
                    self.counts.read(bytes, usage);
                }
                self.stop_reason(
                    bytes,
                    event.delta.and_then(|d| json::get(bytes, d, "stop_reason")),
                );
                false
            }
            Some(b"message_stop") => {
                self.ended = self.started;
                return Ok(Mark::End);
            }
            // Vertex has an event of its own that says nothing.
            Some(b"ping" | b"vertex_event") | None => return Ok(Mark::Idle),
            Some(_) => false,
        };
        self.told |= content;
        Ok(if content { Mark::Content } else { Mark::Event })
    }

    /// The stream is over.
    ///
    /// # Errors
    /// `Truncated` without `message_stop`.
    pub fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !self.ended {
            return Err(Fault::Truncated);
        }
        if sink.told.dialect() == Dialect::Messages {
            return Ok(());
        }
        self.finish(sink);
        sink.finish(include_usage);
        Ok(())
    }

    /// Whether the stop reason was seen: only the terminal signal can follow.
    pub fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Reads a whole message.
    ///
    /// # Errors
    /// `BadFrame` for what is no message, `ErrorEvent` for an error.
    pub fn whole(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(bytes, &mut members).map_err(|_| Fault::BadFrame)?;
        if let Some(said) = error_of(bytes, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        if json::find(bytes, &members, "content").is_none_or(|c| c.kind != Kind::Array) {
            return Err(Fault::BadFrame);
        }
        if sink.told.dialect() == Dialect::Messages {
            self.begin(bytes, top);
            let model = json::find(bytes, &members, "model").map(|model| model.span);
            chat::whole(bytes, model, sink);
            return Ok(());
        }
        self.message_start(bytes, top, sink)?;
        self.stop_reason(bytes, json::find(bytes, &members, "stop_reason"));
        self.finish(sink);
        sink.finish(true);
        Ok(())
    }

    /// Token counts by OpenAI's arithmetic, as far as they were told.
    pub fn usage(&self) -> Option<Usage> {
        let counts = &self.counts;
        let prompt = counts.input.saturating_add(counts.cache_read);
        counts.any.then_some(Usage {
            prompt: prompt.saturating_add(counts.cache_write),
            completion: counts.output,
            cached: counts.cache_read,
            cache_write: counts.cache_write,
            reasoning: counts.thinking,
        })
    }

    /// What an error said, once.
    pub fn said(&mut self) -> Option<Said> {
        self.said.take()
    }

    /// Keeps what an error said.
    pub fn keep_said(&mut self, said: Option<Said>) {
        self.said = said;
    }

    /// Tells the counts and the finish reason.
    fn finish(&mut self, sink: &mut Sink<'_>) {
        for at in 0..self.open.len() {
            tell_input(&mut self.open[at], sink);
        }
        self.citations.tell(sink);
        if let Some(usage) = self.usage() {
            sink.usage(usage);
        }
        sink.stop(
            0,
            match self.finish.unwrap_or(Finish::Stop) {
                // The server's own tools are no calls of the client's.
                Finish::ToolCalls if self.calls == 0 => Finish::Stop,
                other => other,
            },
        );
    }

    /// The head of a message, and whatever content it already has: calls that a program of the
    /// server's made come like this.
    fn message_start(
        &mut self,
        bytes: &[u8],
        message: Value,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        let (mut id, mut content) = (None, None);
        for member in json::members(bytes, message) {
            match member.key.of(bytes) {
                b"id" => id = json::raw_string(bytes, member.value),
                b"content" => content = Some(member.value),
                b"usage" => self.counts.read(bytes, member.value),
                _ => {}
            }
        }
        let id = id.filter(|id| id.len() <= ID_MAX).unwrap_or_default();
        if self.told {
            // Proxies repeat the head, which is harmless, or start over, which is not.
            return if id == &self.id[..] { Ok(false) } else { Err(Fault::Truncated) };
        }
        self.started = true;
        self.open.clear();
        self.id = SmallVec::from_slice(id);
        sink.start(Some(Piece::Raw(id)), None);
        let mut says = false;
        for block in content.into_iter().flat_map(|content| json::items(bytes, content)) {
            says |= self.block_start(bytes, WHOLE, block, sink)?;
            self.block_stop(WHOLE, sink);
        }
        Ok(says)
    }

    fn block_start(
        &mut self,
        bytes: &[u8],
        index: u64,
        block: Value,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        let member = |name: &str| json::get(bytes, block, name);
        let string = |name: &str| member(name).and_then(|value| json::raw_string(bytes, value));
        // A number that comes again without its end having come.
        self.block_stop(index, sink);
        match string("type") {
            Some(b"text") => {
                let text = string("text").unwrap_or_default();
                self.citations.text(text);
                sink.text(0, Piece::Raw(text));
                for citation in member("citations").into_iter().flat_map(|c| json::items(bytes, c))
                {
                    self.citations.read(bytes, citation);
                }
                Ok(!text.is_empty())
            }
            Some(b"thinking") => {
                let text = string("thinking").unwrap_or_default();
                sink.thought(0);
                sink.reason(0, Piece::Raw(text));
                sink.sign(
                    0,
                    Family::Anthropic,
                    Piece::Raw(string("signature").unwrap_or_default()),
                );
                Ok(!text.is_empty())
            }
            Some(b"redacted_thinking") => {
                sink.redacted(0, Piece::Raw(string("data").unwrap_or_default()));
                Ok(false)
            }
            Some(b"tool_use") => {
                let id = Piece::Raw(string("id").unwrap_or_default());
                // Nothing can be called by no name.
                let Some(name) = string("name").filter(|name| !name.is_empty()) else {
                    return Ok(false);
                };
                if self.open.len() == OPEN_MAX {
                    return Err(Fault::BadFrame);
                }
                let call = sink.tool(0, id, Piece::Raw(name));
                self.calls += 1;
                let input = member("input").map(|input| input_of(bytes, input)).unwrap_or_default();
                self.open.push(OpenCall { block: index, call, argued: false, input });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn delta(&mut self, bytes: &[u8], index: u64, delta: Value, sink: &mut Sink<'_>) -> bool {
        let (mut kind, mut text, mut citation) = (None, None, None);
        for member in json::members(bytes, delta) {
            match member.key.of(bytes) {
                b"type" => kind = json::raw_string(bytes, member.value),
                b"text" | b"thinking" | b"partial_json" | b"signature" => {
                    text = json::raw_string(bytes, member.value);
                }
                b"citation" => citation = Some(member.value),
                _ => {}
            }
        }
        let text = text.unwrap_or_default();
        match kind {
            Some(b"text_delta") => {
                self.citations.text(text);
                sink.text(0, Piece::Raw(text));
            }
            Some(b"thinking_delta") => sink.reason(0, Piece::Raw(text)),
            Some(b"signature_delta") => {
                sink.sign(0, Family::Anthropic, Piece::Raw(text));
                return false;
            }
            Some(b"input_json_delta") => {
                let Some(open) = self.open.iter_mut().find(|open| open.block == index) else {
                    return false;
                };
                open.argued |= !text.is_empty();
                sink.args(0, open.call, Piece::Raw(text));
            }
            Some(b"citations_delta") => {
                if let Some(citation) = citation {
                    self.citations.read(bytes, citation);
                }
                return false;
            }
            _ => return false,
        }
        !text.is_empty()
    }

    fn block_stop(&mut self, index: u64, sink: &mut Sink<'_>) -> bool {
        let told = self.citations.tell(sink);
        let Some(at) = self.open.iter().position(|open| open.block == index) else { return told };
        let mut open = self.open.swap_remove(at);
        tell_input(&mut open, sink) || told
    }

    fn stop_reason(&mut self, bytes: &[u8], reason: Option<Value>) {
        let Some(reason) = reason.and_then(|reason| json::raw_string(bytes, reason)) else {
            return;
        };
        self.finish = Some(match reason {
            b"max_tokens" | b"model_context_window_exceeded" => Finish::Length,
            b"tool_use" => Finish::ToolCalls,
            b"refusal" => Finish::ContentFilter,
            // end_turn, stop_sequence, pause_turn, compaction, and what is not known yet.
            _ => Finish::Stop,
        });
    }
}

/// Whether the start of a block is more than the place for what follows.
fn says_something(bytes: &[u8], block: Value) -> bool {
    let string = |name: &str| {
        json::get(bytes, block, name).and_then(|v| json::raw_string(bytes, v)).unwrap_or_default()
    };
    match string("type") {
        b"text" => !string("text").is_empty(),
        b"thinking" => !string("thinking").is_empty(),
        b"redacted_thinking" | b"" => false,
        // A call, of the client's tools or the server's, and what those found.
        _ => true,
    }
}

/// Tells the input that came with a block's start, if no fragment did.
fn tell_input(open: &mut OpenCall, sink: &mut Sink<'_>) -> bool {
    let input = std::mem::take(&mut open.input);
    let text = std::str::from_utf8(&input).unwrap_or_default();
    if open.argued || text.is_empty() {
        return false;
    }
    open.argued = true;
    sink.args(0, open.call, Piece::Text(text));
    true
}

/// A call's input as JSON text; nothing for `{}`, which is what a streamed block starts with.
fn input_of(bytes: &[u8], input: Value) -> Vec<u8> {
    match input.kind {
        Kind::Object if json::is_empty(bytes, input) => Vec::new(),
        Kind::Null => Vec::new(),
        // Some models put the object into a string.
        Kind::String => json::text(bytes, input).unwrap_or_default().into_owned().into_bytes(),
        Kind::Object | Kind::Array | Kind::Number | Kind::True | Kind::False => {
            input.raw(bytes).to_vec()
        }
    }
}

impl Counts {
    /// Takes the last value of each count that is there.
    fn read(&mut self, bytes: &[u8], usage: Value) {
        for member in json::members(bytes, usage) {
            let place = match member.key.of(bytes) {
                b"input_tokens" => &mut self.input,
                b"cache_read_input_tokens" => &mut self.cache_read,
                b"cache_creation_input_tokens" => &mut self.cache_write,
                b"output_tokens" => &mut self.output,
                b"output_tokens_details" => {
                    let thinking = json::get(bytes, member.value, "thinking_tokens");
                    if let Some(count) = thinking.and_then(|value| json::as_u64(bytes, value)) {
                        self.thinking = count;
                    }
                    continue;
                }
                _ => continue,
            };
            if let Some(count) = json::as_u64(bytes, member.value) {
                *place = count;
                self.any = true;
            }
        }
    }
}

/// The number of a block that came whole; no block of a stream has it.
const WHOLE: u64 = u64::MAX;
/// An id that is longer is left out.
const ID_MAX: usize = 128;
/// Calls that are open at once: real streams have one.
const OPEN_MAX: usize = 64;

/// Names what an error status means, at Anthropic and wherever its server runs.
pub fn refuse(refusal: &Refusal<'_>) -> Refused {
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

#[cfg(test)]
mod tests;
