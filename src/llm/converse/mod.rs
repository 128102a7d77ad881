//! Answers of Amazon's Converse format, as the Converse operations of Bedrock send it and as Nova sends
//! it when it is invoked: events or a whole message, told to the sink.
//!
//! ```text
//!   messageStart
//!     contentBlockStart 0     toolUse | toolResult | ...; left out for text and reasoning
//!     contentBlockDelta 0     text | toolUse.input | reasoningContent | citation | ...
//!     contentBlockStop  0
//!   messageStop               stopReason: the terminal signal
//!   metadata                  usage; now and then before messageStop
//! ```
//!
//! Blocks of every sort share their numbers, so a tool call gets its index from the sink. Tools that
//! Amazon runs itself (`server_tool_use`) and what they found are no calls of the client's, and left
//! out. A second message inside an answer of which something was told is a cut answer: two answers are
//! never spliced.
//!
//! It keeps the calls that are open and a few counts; no event costs an allocation but one with a
//! citation.

pub mod body;
mod cite;
mod params;

use smallvec::SmallVec;

use crate::base::fail::Fault;
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::prompt::Family;
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

use self::cite::Citations;

/// One answer being read.
#[derive(Default)]
pub struct Answer {
    /// Something of substance was told.
    told: bool,
    /// Client tool calls so far.
    calls: u32,
    /// Of the calls whose block has not ended: the block's number and the client's.
    open: SmallVec<[(u64, u32); 2]>,
    /// The block whose thought is being told.
    thinking: Option<u64>,
    citations: Citations,
    /// Of the image that is being told.
    format: String,
    usage: Option<Usage>,
    /// `messageStop` was seen.
    finished: bool,
    /// A guardrail stepped in, as was told elsewhere: no other reason counts.
    pub guarded: bool,
}

/// The members of an event that matter to any of them.
#[derive(Default)]
struct Event {
    index: u64,
    start: Option<Value>,
    delta: Option<Value>,
    reason: Option<Value>,
    usage: Option<Value>,
}

impl Answer {
    /// Reads an event: its name, and its body, which is a validated value of `bytes`.
    ///
    /// # Errors
    /// `BadFrame` for a body that is no object, `Truncated` for a second answer inside this one.
    pub fn event(
        &mut self,
        name: &[u8],
        bytes: &[u8],
        body: Value,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        if body.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let mut event = Event::default();
        for member in json::members(bytes, body) {
            let value = member.value;
            match member.key.of(bytes) {
                b"contentBlockIndex" => event.index = json::as_u64(bytes, value).unwrap_or(0),
                b"start" => event.start = Some(value),
                b"delta" => event.delta = Some(value),
                b"stopReason" => event.reason = Some(value),
                b"usage" => event.usage = Some(value),
                _ => {}
            }
        }
        let content = match name {
            b"messageStart" if self.told => return Err(Fault::Truncated),
            b"metadata" => {
                self.read_usage(bytes, event.usage);
                // Nothing follows both of them.
                return Ok(if self.finished { Mark::End } else { Mark::Event });
            }
            // Whatever comes after the end is not part of the answer.
            _ if self.finished => false,
            b"contentBlockStart" => self.block_start(bytes, &event, sink)?,
            b"contentBlockDelta" => self.delta(bytes, &event, sink),
            b"contentBlockStop" => self.block_stop(event.index, sink),
            b"messageStop" => {
                self.stop(bytes, event.reason, sink);
                true
            }
            _ => false,
        };
        self.told |= content;
        Ok(if content { Mark::Content } else { Mark::Event })
    }

    /// Reads events that stand in an object under their names.
    ///
    /// # Errors
    /// As [`Answer::event`].
    pub fn wrapped(
        &mut self,
        bytes: &[u8],
        members: &Top,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let mut mark = Mark::Idle;
        for member in members.iter().filter(|member| member.value.kind == Kind::Object) {
            let name = member.key.of(bytes);
            mark = mark.max(self.event(name, bytes, member.value, sink)?);
        }
        Ok(mark)
    }

    /// Whether an object has an event under its name.
    pub fn is_wrapped(bytes: &[u8], members: &Top) -> bool {
        members.iter().any(|member| {
            let name = member.key.of(bytes);
            member.value.kind == Kind::Object
                && (name.starts_with(b"contentBlock")
                    || matches!(name, b"messageStart" | b"messageStop" | b"metadata"))
        })
    }

    /// The stream is over.
    ///
    /// # Errors
    /// `Truncated` without `messageStop`.
    pub fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !self.finished {
            return Err(Fault::Truncated);
        }
        if let Some(usage) = self.usage {
            sink.usage(usage);
        }
        sink.finish(include_usage);
        Ok(())
    }

    /// Whether `messageStop` was seen.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// `BadFrame` for what is none.
    pub fn whole(&mut self, bytes: &[u8], members: &Top, sink: &mut Sink<'_>) -> Result<(), Fault> {
        let content = json::find(bytes, members, "output")
            .and_then(|output| json::get_path(bytes, output, &["message", "content"]))
            .filter(|content| content.kind == Kind::Array)
            .ok_or(Fault::BadFrame)?;
        for (index, block) in json::items(bytes, content).enumerate() {
            self.block(bytes, index as u64, block, sink);
        }
        self.read_usage(bytes, json::find(bytes, members, "usage"));
        self.stop(bytes, json::find(bytes, members, "stopReason"), sink);
        self.close(true, sink)
    }

    /// Token counts, as far as they were told.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn block_start(
        &mut self,
        bytes: &[u8],
        event: &Event,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        // A number that comes again without its end having come.
        self.block_stop(event.index, sink);
        if let Some(image) = event.start.and_then(|start| json::get(bytes, start, "image")) {
            self.image(bytes, image, sink);
        }
        let call = event.start.and_then(|start| json::get(bytes, start, "toolUse"));
        let Some(call) = call.and_then(|call| self.call(bytes, call, sink)) else {
            return Ok(false);
        };
        if self.open.len() == OPEN_MAX {
            return Err(Fault::BadFrame);
        }
        self.open.push((event.index, call));
        Ok(true)
    }

    /// Begins a call, if it is one of the client's.
    fn call(&mut self, bytes: &[u8], call: Value, sink: &mut Sink<'_>) -> Option<u32> {
        let (mut id, mut name) = (None, None);
        for member in json::members(bytes, call) {
            match member.key.of(bytes) {
                b"toolUseId" => id = json::raw_string(bytes, member.value),
                b"name" => name = json::raw_string(bytes, member.value),
                b"type" if json::str_eq(bytes, member.value, "server_tool_use") => return None,
                _ => {}
            }
        }
        // Nothing can be called by no name.
        let name = name.filter(|name| !name.is_empty())?;
        self.calls += 1;
        Some(sink.tool(0, Piece::Raw(id.unwrap_or_default()), Piece::Raw(name)))
    }

    fn delta(&mut self, bytes: &[u8], event: &Event, sink: &mut Sink<'_>) -> bool {
        let mut says = false;
        for member in event.delta.into_iter().flat_map(|delta| json::members(bytes, delta)) {
            let value = member.value;
            says |= match member.key.of(bytes) {
                b"text" => self.text(bytes, event.index, value, sink),
                b"reasoningContent" => self.thought(bytes, Some(event.index), value, sink),
                b"toolUse" => {
                    let open = self.open.iter().find(|(block, _)| *block == event.index);
                    match (open, json::get(bytes, value, "input")) {
                        (Some((_, call)), Some(input)) => arguments(bytes, *call, input, sink),
                        _ => false,
                    }
                }
                b"citation" => {
                    self.citations.read(bytes, value);
                    false
                }
                b"image" => self.image(bytes, value, sink),
                // Results of Amazon's own tools.
                _ => false,
            };
        }
        says
    }

    /// Reasoning, its signature, or what is hidden of it. `block` is the number that a stream's thought
    /// keeps.
    fn thought(
        &mut self,
        bytes: &[u8],
        block: Option<u64>,
        thought: Value,
        sink: &mut Sink<'_>,
    ) -> bool {
        let piece = |name: &str| {
            let value = json::get(bytes, thought, name);
            Piece::Raw(value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default())
        };
        let hidden = piece("redactedContent");
        if !hidden.is_empty() {
            sink.redacted(0, hidden);
            return false;
        }
        if block.is_none() || self.thinking != block {
            self.thinking = block;
            sink.thought(0);
        }
        let text = piece("text");
        sink.reason(0, text);
        sink.sign(0, Family::Anthropic, piece("signature"));
        !text.is_empty()
    }

    fn text(&mut self, bytes: &[u8], block: u64, text: Value, sink: &mut Sink<'_>) -> bool {
        let raw = json::raw_string(bytes, text).unwrap_or_default();
        self.citations.text(block, raw);
        sink.text(0, Piece::Raw(raw));
        !raw.is_empty()
    }

    /// An image's format, its bytes, or both.
    fn image(&mut self, bytes: &[u8], image: Value, sink: &mut Sink<'_>) -> bool {
        if let Some(format) = json::get(bytes, image, "format").and_then(|f| json::text(bytes, f)) {
            self.format = format.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        }
        let data = json::get_path(bytes, image, &["source", "bytes"]);
        let data = data.and_then(|data| json::raw_string(bytes, data)).unwrap_or_default();
        let format = if self.format.is_empty() { "png" } else { &self.format };
        sink.image(0, &format!("image/{format}"), Piece::Raw(data));
        !data.is_empty()
    }

    fn block_stop(&mut self, index: u64, sink: &mut Sink<'_>) -> bool {
        self.open.retain(|(block, _)| *block != index);
        self.citations.tell(sink)
    }

    /// A block of a whole message.
    fn block(&mut self, bytes: &[u8], index: u64, block: Value, sink: &mut Sink<'_>) {
        for member in json::members(bytes, block) {
            let value = member.value;
            match member.key.of(bytes) {
                b"text" => {
                    self.text(bytes, index, value, sink);
                }
                b"reasoningContent" => {
                    let text = json::get(bytes, value, "reasoningText").unwrap_or(value);
                    self.thought(bytes, None, text, sink);
                }
                b"toolUse" => {
                    let call = self.call(bytes, value, sink);
                    if let (Some(call), Some(input)) = (call, json::get(bytes, value, "input")) {
                        arguments(bytes, call, input, sink);
                    }
                }
                b"image" => {
                    self.image(bytes, value, sink);
                }
                b"citationsContent" => {
                    let part = |name| json::get(bytes, value, name);
                    for text in part("content").into_iter().flat_map(|c| json::items(bytes, c)) {
                        if let Some(text) = json::get(bytes, text, "text") {
                            self.text(bytes, index, text, sink);
                        }
                    }
                    for cited in part("citations").into_iter().flat_map(|c| json::items(bytes, c)) {
                        self.citations.read(bytes, cited);
                    }
                }
                _ => {}
            }
        }
        self.block_stop(index, sink);
    }

    fn stop(&mut self, bytes: &[u8], reason: Option<Value>, sink: &mut Sink<'_>) {
        self.citations.tell(sink);
        self.finished = true;
        let reason = reason.and_then(|reason| json::raw_string(bytes, reason));
        sink.stop(
            0,
            match reason {
                _ if self.guarded => Finish::ContentFilter,
                Some(b"max_tokens" | b"model_context_window_exceeded") => Finish::Length,
                // Amazon's own tools are no calls of the client's.
                Some(b"tool_use") if self.calls > 0 => Finish::ToolCalls,
                Some(b"guardrail_intervened" | b"content_filtered") => Finish::ContentFilter,
                // end_turn, stop_sequence, malformed output, and what is not known yet.
                _ => Finish::Stop,
            },
        );
    }

    /// By OpenAI's arithmetic: what was read from the cache or written to it was in the prompt.
    fn read_usage(&mut self, bytes: &[u8], usage: Option<Value>) {
        let (mut input, mut output, mut read, mut written) = (None, None, None, None);
        for member in usage.into_iter().flat_map(|usage| json::members(bytes, usage)) {
            let count = json::as_u64(bytes, member.value);
            match member.key.of(bytes) {
                b"inputTokens" => input = count,
                b"outputTokens" => output = count,
                // The same number has two names, one or both of which are there.
                b"cacheReadInputTokens" | b"cacheReadInputTokenCount" => read = read.max(count),
                b"cacheWriteInputTokens" | b"cacheWriteInputTokenCount" => {
                    written = written.max(count);
                }
                _ => {}
            }
        }
        if input.is_none() && output.is_none() {
            return;
        }
        let cached = read.unwrap_or(0);
        let prompt = input.unwrap_or(0).saturating_add(cached);
        self.usage = Some(Usage {
            prompt: prompt.saturating_add(written.unwrap_or(0)),
            completion: output.unwrap_or(0),
            cached,
            cache_write: written.unwrap_or(0),
            reasoning: 0,
        });
    }
}

/// A call's input: a fragment of JSON text in a string, or the JSON value itself.
fn arguments(bytes: &[u8], call: u32, input: Value, sink: &mut Sink<'_>) -> bool {
    let piece = match input.kind {
        Kind::String => Piece::Raw(json::raw_string(bytes, input).unwrap_or_default()),
        Kind::Null => return false,
        Kind::Object | Kind::Array | Kind::Number | Kind::True | Kind::False => {
            Piece::Text(std::str::from_utf8(input.raw(bytes)).unwrap_or_default())
        }
    };
    sink.args(0, call, piece);
    !piece.is_empty()
}

/// Calls that are open at once: real streams have one.
const OPEN_MAX: usize = 64;

#[cfg(test)]
mod tests;
