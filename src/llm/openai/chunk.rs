//! The members of chunks and answers, and whether they are quite OpenAI's own.

use crate::base::fail::Fault;
use crate::llm::event::Usage;
use crate::wire::Span;
use crate::wire::json::{self, Kind, Member, Value};

use super::loose::{self, Choice};

/// The members of a chunk or answer that matter.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) choices: Option<Value>,
    pub(super) usage: Option<Value>,
    /// What the usage says, and whether it says so in OpenAI's own words.
    pub(super) counts: Option<(Usage, bool)>,
    /// llama.cpp's measures.
    pub(super) timings: Option<Value>,
    pub(super) model: Option<Span>,
    /// Raw with its quotes.
    pub(super) id: Option<Span>,
    pub(super) created: u64,
    /// `id` or `object` is there and empty.
    pub(super) is_nameless: bool,
    /// It belongs to `/v1/completions`.
    pub(super) is_text: bool,
}

impl Chunk {
    pub(super) fn read(bytes: &[u8], members: &[Member]) -> Chunk {
        let mut chunk = Chunk::default();
        for member in members {
            let value = member.value;
            match member.key.of(bytes) {
                b"choices" if value.kind != Kind::Null => chunk.choices = Some(value),
                b"usage" if value.kind == Kind::Object => chunk.usage = Some(value),
                // Groq's older place for it.
                b"x_groq" if value.kind == Kind::Object && chunk.usage.is_none() => {
                    let usage = json::get(bytes, value, "usage");
                    chunk.usage = usage.filter(|usage| usage.kind == Kind::Object);
                }
                b"timings" if value.kind == Kind::Object => chunk.timings = Some(value),
                b"model" if value.kind == Kind::String => chunk.model = Some(value.span),
                b"id" if value.kind == Kind::String => {
                    chunk.id = (value.span.len > 2).then_some(value.span);
                    chunk.is_nameless |= chunk.id.is_none();
                }
                b"created" => chunk.created = json::as_u64(bytes, value).unwrap_or(0),
                b"object" => {
                    chunk.is_nameless |= json::str_eq(bytes, value, "");
                    chunk.is_text = json::str_eq(bytes, value, "text_completion")
                        || json::str_eq(bytes, value, "list");
                }
                _ => {}
            }
        }
        chunk.counts = chunk.usage.and_then(|usage| loose::usage(bytes, usage));
        chunk
    }

    /// Whether it has neither a choice nor counts: what Azure's filters found of the prompt, before the
    /// answer has a name.
    pub(super) fn says_nothing(&self, bytes: &[u8]) -> bool {
        self.choices.is_some() && self.usage.is_none() && self.is_bare(bytes)
    }

    /// Whether the usage is one of OpenAI's own.
    pub(super) fn is_plainly_counted(&self) -> bool {
        self.counts.is_some_and(|(_, plain)| plain)
    }

    /// Whether there is a choice at all.
    pub(super) fn answers(&self, bytes: &[u8]) -> bool {
        !self.is_bare(bytes)
    }

    /// Whether there is no choice.
    pub(super) fn is_bare(&self, bytes: &[u8]) -> bool {
        let is_list = |value: &Value| value.kind == Kind::Array;
        self.choices.filter(is_list).is_none_or(|list| json::is_empty(bytes, list))
    }

    /// The choices, the text of which is in a member named `body`.
    pub(super) fn items<'b>(
        &self,
        bytes: &'b [u8],
        body: &'b [u8],
    ) -> impl Iterator<Item = Result<Item, Fault>> + use<'b> {
        let empty = Value { kind: Kind::Array, span: Span::default() };
        let mut items = json::items(bytes, self.choices.unwrap_or(empty));
        std::iter::from_fn(move || {
            let mut read = Item::default();
            let item = items.next_with(|member| read.take(bytes, member, body))?;
            Some(if item.kind == Kind::Object { Ok(read) } else { Err(Fault::BadFrame) })
        })
    }
}

/// One element of `choices`.
#[derive(Default)]
pub(super) struct Item {
    pub(super) index: Option<u64>,
    pub(super) delta: Option<Value>,
    /// What `/v1/completions` has in place of a delta.
    pub(super) text: Option<Value>,
    pub(super) finish: Option<Span>,
    /// Moonshot's place for counts.
    pub(super) usage: Option<Value>,
    /// OpenRouter's place for what went wrong.
    pub(super) error: Option<Value>,
}

impl Item {
    fn take(&mut self, bytes: &[u8], member: Member, body: &[u8]) {
        let value = member.value;
        match member.key.of(bytes) {
            b"index" => self.index = json::as_u64(bytes, value),
            key if key == body && value.kind == Kind::Object => self.delta = Some(value),
            b"text" => self.text = has_substance(value).then_some(value),
            b"finish_reason" if value.kind == Kind::String => self.finish = Some(value.span),
            b"usage" if value.kind == Kind::Object => self.usage = Some(value),
            b"error" if value.kind == Kind::Object => self.error = Some(value),
            _ => {}
        }
    }
}

/// Whether a delta is one of OpenAI's own; if so, whether it says anything.
pub(super) fn strict_delta(choice: &mut Choice, bytes: &[u8], delta: Value) -> Option<bool> {
    let mut substance = false;
    let (mut thought, mut renamed) = (false, false);
    for part in json::members(bytes, delta) {
        let value = part.value;
        let says = has_substance(value);
        match part.key.of(bytes) {
            b"role" => continue,
            b"content" | b"refusal" if !matches!(value.kind, Kind::String | Kind::Null) => {
                return None;
            }
            b"tool_calls" if !loose::strict_calls(choice, bytes, value) => return None,
            b"reasoning_content" => thought |= says,
            b"reasoning" => renamed |= says,
            b"reasoning_details" => renamed |= loose::thoughts_in(bytes, value).next().is_some(),
            _ => {}
        }
        substance |= says;
    }
    (thought || !renamed).then_some(substance)
}

/// Whether a whole message is one of OpenAI's own.
pub(super) fn strict_message(bytes: &[u8], item: &Item) -> bool {
    let (Some(message), None, None) = (item.delta, item.usage, item.error) else { return false };
    let (mut thought, mut renamed) = (false, false);
    let (mut content, mut list) = (Kind::Null, None);
    for member in json::members(bytes, message) {
        let value = member.value;
        match member.key.of(bytes) {
            b"reasoning" => renamed |= has_substance(value),
            b"reasoning_details" => renamed |= loose::thoughts_in(bytes, value).next().is_some(),
            b"reasoning_content" => thought = has_substance(value),
            b"content" => content = value.kind,
            b"tool_calls" => list = Some(value),
            _ => {}
        }
    }
    if (renamed && !thought) || !matches!(content, Kind::String | Kind::Null) {
        return false;
    }
    let mut calls = list.map(|list| json::items(bytes, list)).into_iter().flatten().peekable();
    let finish = item.finish.map(|span| loose::inside(bytes, span));
    let odd = match finish {
        None => false,
        Some(finish) => {
            !loose::is_known_finish(finish) || (finish == b"stop" && calls.peek().is_some())
        }
    };
    !odd && calls.all(|call| is_strict_call(bytes, call))
}

/// Whether a whole tool call has all that OpenAI gives it.
pub(super) fn is_strict_call(bytes: &[u8], call: Value) -> bool {
    const PATHS: [&[&str]; 4] =
        [&["id"], &["type"], &["function", "name"], &["function", "arguments"]];
    PATHS.iter().all(|path| {
        let value = json::get_path(bytes, call, path);
        value.is_some_and(|value| value.kind == Kind::String && value.span.len > 2)
    })
}

/// Whether a part of a delta says anything: not null, not empty.
pub(super) fn has_substance(value: Value) -> bool {
    match value.kind {
        Kind::Null | Kind::False => false,
        // `""`, `[]` and `{}` are two bytes; blanks inside brackets count as something, which is rare
        // and only commits a little early.
        Kind::String | Kind::Array | Kind::Object => value.span.len > 2,
        Kind::True | Kind::Number => true,
    }
}
