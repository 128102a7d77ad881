//! The small formats of models on Bedrock, all of which are text, a reason and counts under names of
//! their own. An event of a stream and a whole answer have the same members, so one reading does both.
//!
//! ```text
//!   Titan     {"outputText":"Hi","completionReason":null,...}    whole: {"results":[{"outputText":..}]}
//!   Llama     {"generation":"Hi","stop_reason":null,"prompt_token_count":3,...}
//!   Mistral   {"outputs":[{"text":"Hi","stop_reason":null}]}
//!   Cohere    {"text":"Hi","is_finished":false}                  whole: {"generations":[{"text":..}]}
//!   Claude 2  {"completion":"Hi","stop_reason":null}
//!   AI21      {"completions":[{"data":{"text":".."},"finishReason":{"reason":".."}}]}
//!   others    {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}   as OpenAI has it
//! ```
//!
//! The terminal signal is a reason that is not null.

use smallvec::SmallVec;

use crate::base::fail::Fault;
use crate::base::limits;
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::Said;
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Member, Top, Value};

/// One answer being read.
#[derive(Default)]
pub struct Answer {
    /// The choices that are over; nothing more is told of them.
    ended: SmallVec<[u32; 1]>,
    /// Calls so far: the choice, the provider's number, the client's.
    calls: SmallVec<[(u32, u64, u32); 1]>,
    /// The model's own counts, and Bedrock's, which count if there are none.
    usage: Option<Usage>,
    metered: Option<Usage>,
    said: Option<Said>,
    /// A guardrail stepped in, as was told elsewhere: no other reason counts.
    pub guarded: bool,
}

/// What reading a part came to.
#[derive(Clone, Copy, Default)]
struct Read {
    known: bool,
    says: bool,
}

impl Read {
    fn and(self, other: Read) -> Read {
        Read { known: self.known | other.known, says: self.says | other.says }
    }
}

impl Answer {
    /// Reads an event or a whole answer. `Idle`: nothing of it is known.
    ///
    /// # Errors
    /// `ErrorEvent` if the model says that it failed, `BadFrame` for more choices than can be.
    pub fn read(
        &mut self,
        bytes: &[u8],
        members: &Top,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let mut read = self.piece(bytes, 0, members.iter().copied(), sink)?;
        for member in members {
            let value = member.value;
            match member.key.of(bytes) {
                b"outputs" | b"results" | b"generations" | b"completions" | b"choices" => {
                    for (place, item) in json::items(bytes, value).enumerate() {
                        let choice = json::get(bytes, item, "index")
                            .and_then(|index| json::as_u64(bytes, index))
                            .unwrap_or(place as u64);
                        let choice = u32::try_from(choice).unwrap_or(u32::MAX);
                        if choice as usize >= limits::CHOICES_MAX {
                            return Err(Fault::BadFrame);
                        }
                        let inside = json::members(bytes, item);
                        read = read.and(self.piece(bytes, choice, inside, sink)?);
                    }
                }
                _ => {}
            }
        }
        let counted = self.count(bytes, members);
        Ok(match read {
            Read { says: true, .. } => Mark::Content,
            Read { known: true, .. } => Mark::Event,
            _ if counted => Mark::Event,
            _ => Mark::Idle,
        })
    }

    /// The stream is over.
    ///
    /// # Errors
    /// `Truncated` without a reason.
    pub fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if self.ended.is_empty() {
            return Err(Fault::Truncated);
        }
        self.end(include_usage, sink)
    }

    /// The good end. A whole answer needs no reason.
    ///
    /// # Errors
    /// None; the type is that of its callers.
    pub fn end(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if let Some(usage) = self.usage() {
            sink.usage(usage);
        }
        if self.guarded {
            sink.stop(0, Finish::ContentFilter);
        }
        sink.finish(include_usage);
        Ok(())
    }

    /// Whether a reason was seen.
    pub fn is_finished(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Token counts, as far as they were told.
    pub fn usage(&self) -> Option<Usage> {
        self.usage.or(self.metered)
    }

    /// What was said in an error, once.
    pub fn said(&mut self) -> Option<Said> {
        self.said.take()
    }

    /// The members of an event, or of one choice in it.
    fn piece(
        &mut self,
        bytes: &[u8],
        choice: u32,
        members: impl Iterator<Item = Member>,
        sink: &mut Sink<'_>,
    ) -> Result<Read, Fault> {
        if self.ended.contains(&choice) {
            return Ok(Read { known: true, says: false });
        }
        let (mut read, mut reason) = (Read::default(), None);
        for member in members {
            let value = member.value;
            let part = match member.key.of(bytes) {
                b"outputText" | b"generation" | b"completion" | b"text" | b"content" => {
                    string(bytes, value, |raw| sink.text(choice, raw))
                }
                b"reasoning" | b"reasoning_content" => {
                    string(bytes, value, |raw| sink.reason(choice, raw))
                }
                b"refusal" => string(bytes, value, |raw| sink.refuse(choice, raw)),
                b"tool_calls" => self.tools(bytes, choice, value, sink)?,
                b"delta" | b"message" | b"data" if value.kind == Kind::Object => {
                    self.inner(bytes, choice, value, sink)?
                }
                b"stop_reason" | b"finish_reason" | b"completionReason" | b"finishReason" => {
                    reason = Some(json::get(bytes, value, "reason").unwrap_or(value))
                        .filter(|reason| reason.kind == Kind::String)
                        .or(reason);
                    Read { known: true, says: false }
                }
                b"is_finished" => Read { known: true, says: false },
                _ => Read::default(),
            };
            read = read.and(part);
        }
        // The reason is told after whatever text came with it.
        if let Some(reason) = reason {
            self.stop(bytes, choice, reason, sink)?;
            read.says = true;
        }
        Ok(read)
    }

    /// The message in a choice; one level, so that nothing nests.
    fn inner(
        &mut self,
        bytes: &[u8],
        choice: u32,
        message: Value,
        sink: &mut Sink<'_>,
    ) -> Result<Read, Fault> {
        let mut read = Read { known: true, says: false };
        for member in json::members(bytes, message) {
            let value = member.value;
            read = read.and(match member.key.of(bytes) {
                b"text" | b"content" => string(bytes, value, |raw| sink.text(choice, raw)),
                b"reasoning" | b"reasoning_content" => {
                    string(bytes, value, |raw| sink.reason(choice, raw))
                }
                b"refusal" => string(bytes, value, |raw| sink.refuse(choice, raw)),
                b"tool_calls" => self.tools(bytes, choice, value, sink)?,
                _ => Read::default(),
            });
        }
        Ok(read)
    }

    /// Calls: OpenAI's, whole or in pieces, or Cohere's `{"name","parameters"}`.
    fn tools(
        &mut self,
        bytes: &[u8],
        choice: u32,
        calls: Value,
        sink: &mut Sink<'_>,
    ) -> Result<Read, Fault> {
        let mut says = false;
        for (place, item) in json::items(bytes, calls).enumerate() {
            let get = |object: Value, name: &str| json::get(bytes, object, name);
            let raw = |value: Option<Value>| {
                value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
            };
            let function = get(item, "function").unwrap_or(item);
            let number = get(item, "index").and_then(|index| json::as_u64(bytes, index));
            let number = number.unwrap_or(place as u64);
            let known = self.calls.iter().find(|call| (call.0, call.1) == (choice, number));
            let call = match known {
                Some(call) => call.2,
                None => {
                    let name = raw(get(function, "name"));
                    // Nothing can be called by no name.
                    if name.is_empty() {
                        continue;
                    }
                    if self.calls.len() == CALLS_MAX {
                        return Err(Fault::BadFrame);
                    }
                    let id = Piece::Raw(raw(get(item, "id")));
                    let call = sink.tool(choice, id, Piece::Raw(name));
                    self.calls.push((choice, number, call));
                    call
                }
            };
            says = true;
            let input = get(function, "arguments").or_else(|| get(function, "parameters"));
            match input {
                Some(input) if input.kind == Kind::String => {
                    sink.args(choice, call, Piece::Raw(raw(Some(input))));
                }
                Some(input) if input.kind == Kind::Object => {
                    let text = std::str::from_utf8(input.raw(bytes)).unwrap_or_default();
                    sink.args(choice, call, Piece::Text(text));
                }
                _ => {}
            }
        }
        Ok(Read { known: true, says })
    }

    fn stop(
        &mut self,
        bytes: &[u8],
        choice: u32,
        reason: Value,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let reason = json::text(bytes, reason).unwrap_or_default().to_ascii_lowercase();
        let finish = match reason.as_str() {
            _ if self.guarded => Finish::ContentFilter,
            "length" | "max_tokens" | "error_limit" => Finish::Length,
            "content_filtered" | "content_filter" | "error_toxic" => Finish::ContentFilter,
            "tool_calls" | "tool_use" => Finish::ToolCalls,
            "error" => {
                let message = String::from("the model ended with an error");
                self.said = Some(Said { message, ..Said::default() });
                return Err(Fault::ErrorEvent);
            }
            _ => Finish::Stop,
        };
        self.ended.push(choice);
        sink.stop(choice, finish);
        Ok(())
    }

    /// Token counts; says whether any were there.
    fn count(&mut self, bytes: &[u8], members: &Top) -> bool {
        let (mut prompt, mut completion, mut any) = (None, None, false);
        for member in members {
            let value = member.value;
            let number = |name: &str| {
                json::get(bytes, value, name).and_then(|count| json::as_u64(bytes, count))
            };
            match member.key.of(bytes) {
                b"inputTextTokenCount" | b"prompt_token_count" => {
                    prompt = json::as_u64(bytes, value).or(prompt);
                }
                b"totalOutputTextTokenCount" | b"generation_token_count" => {
                    completion = json::as_u64(bytes, value).or(completion);
                }
                b"results" => {
                    let counts = json::items(bytes, value)
                        .filter_map(|result| json::get(bytes, result, "tokenCount"))
                        .filter_map(|count| json::as_u64(bytes, count));
                    completion = Some(counts.fold(0, u64::saturating_add));
                }
                b"usage" if value.kind == Kind::Object => {
                    prompt = number("prompt_tokens").or(prompt);
                    completion = number("completion_tokens").or(completion);
                }
                b"amazon-bedrock-invocationMetrics" => {
                    any = true;
                    self.metered = Some(Usage {
                        prompt: number("inputTokenCount").unwrap_or(0),
                        completion: number("outputTokenCount").unwrap_or(0),
                        ..Usage::default()
                    });
                }
                _ => {}
            }
        }
        if prompt.is_some() || completion.is_some() {
            // The prompt's count comes with the first event alone, the answer's with each.
            let usage = self.usage.get_or_insert_default();
            usage.prompt = prompt.unwrap_or(usage.prompt);
            usage.completion = completion.unwrap_or(usage.completion);
            any = true;
        }
        any
    }
}

/// Text, if it is a string; says what it came to.
fn string(bytes: &[u8], value: Value, tell: impl FnOnce(Piece<'_>)) -> Read {
    match json::raw_string(bytes, value) {
        None => Read::default(),
        Some(raw) => {
            tell(Piece::Raw(raw));
            Read { known: true, says: !raw.is_empty() }
        }
    }
}

/// Calls of one answer that are followed.
const CALLS_MAX: usize = 128;
