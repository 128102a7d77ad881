//! The one tongue in the middle. A provider's adapter turns its frames into these; a dialect turns
//! these into the client's bytes. A frame that already is in the client's dialect is passed through,
//! and then only its `Mark` is spoken of.

/// Token counts, by OpenAI's arithmetic: completion includes reasoning, prompt includes cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt: u64,
    /// Tokens of the answer, reasoning included.
    pub completion: u64,
    /// Of the prompt: read from the provider's cache.
    pub cached: u64,
    /// Of the prompt: written to the provider's cache.
    pub cache_write: u64,
    /// Of the completion: reasoning.
    pub reasoning: u64,
}

/// What an event is to the commit point.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mark {
    /// Comments, pings: not even an event.
    Idle,
    /// A well-formed event without substance: role-only and empty deltas, usage.
    Event,
    /// Text, reasoning, refusal, a tool-call fragment, or a finish reason.
    Content,
    /// The provider's terminal signal.
    End,
}

/// Why a choice ended, in OpenAI's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// A natural end or a stop sequence.
    Stop,
    /// The output limit.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The content filter cut it.
    ContentFilter,
}

impl Finish {
    /// As `finish_reason` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::ContentFilter => "content_filter",
        }
    }
}
