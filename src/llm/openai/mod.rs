//! OpenAI's chat and completions answers, read: for OpenAI, and for every adapter whose vendor answers in
//! these words.
//!
//! The client's dialect may be this format too, and then nothing is re-encoded: a chunk is read for what
//! it means, and goes out as it lay in the buffer but for the model's name (and a finish reason that a
//! choice already had). For a client of another dialect every chunk is told to the sink.
//!
//! ```text
//!   data: {"id":"c1","model":"gpt-4o-2024-08-06","choices":[{"index":0,"delta":{"content":"Hi"}}]}
//!                            ~~~~~~~~~~~~~~~~~~~ replaced      ^ started      ^ substance
//! ```
//!
//! The terminal signal is a `finish_reason` for each choice that began; `[DONE]` is welcome and not
//! required, since some vendors leave out one or the other.

mod chunk;
mod loose;
mod refusal;

use smallvec::SmallVec;

use crate::base::fail::{Failure, Fault};
use crate::llm::dialects::{Dialect, chat};
use crate::llm::errors::{error_fields, error_of, error_of_line, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::provider::{Refusal, Refused, Said};
use crate::llm::sink::{Piece, Sink};
use crate::wire::Span;
use crate::wire::json::{self, Kind, Top};

use self::chunk::{Chunk, Item, strict_delta, strict_message};
use self::loose::Choice;

/// One answer being read.
#[derive(Default)]
pub struct Answer {
    choices: SmallVec<[Choice; 1]>,
    /// `[DONE]` was seen.
    done: bool,
    /// Something of substance was seen.
    substance: bool,
    /// A chunk was not quite OpenAI's: from there on every chunk is told anew.
    loose: bool,
    /// For chunks of our own: the stream's id, raw with its quotes, and its creation time.
    id: SmallVec<[u8; 64]>,
    created: u64,
    usage: Option<Usage>,
    /// The usage went out in the provider's own words.
    usage_passed: bool,
    /// A whole answer had a choice.
    answered: bool,
    said: Option<Said>,
}

impl Answer {
    /// See [`Provider::feed`](crate::llm::provider::Provider::feed).
    ///
    /// # Errors
    /// As there.
    pub fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(Mark::End);
        }
        let mut members = Top::new();
        let top = json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if let Some(said) = error_of(payload, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        let chunk = Chunk::read(payload, &members);
        if chunk.choices.is_some_and(|value| !matches!(value.kind, Kind::Array)) {
            return Err(Fault::BadFrame);
        }
        self.note(payload, &chunk);
        let is_chat = sink.told.dialect() == Dialect::Chat;
        if chunk.is_text && is_chat {
            return self.pass_text(payload, &chunk, sink);
        }
        if chunk.is_nameless && chunk.says_nothing(payload) {
            return Ok(Mark::Event);
        }
        let mut repeated = SmallVec::new();
        let mut substance = false;
        // Only a chat client can take a chunk as it came.
        self.loose |= !is_chat;
        if !self.loose {
            let (before, passed) = (self.choices.clone(), self.usage_passed);
            if !self.strict(payload, &chunk, &mut repeated, &mut substance)? {
                // What a strict reading noted of this chunk did not go out.
                (self.choices, self.usage_passed) = (before, passed);
                self.loose = true;
                self.hand_over(sink);
            }
        }
        if self.loose {
            substance = self.tell(payload, &chunk, sink)?;
        } else {
            chat::pass(payload, chunk.model, &repeated, sink);
        }
        self.substance |= substance;
        Ok(if substance { Mark::Content } else { Mark::Event })
    }

    /// See [`Provider::close`](crate::llm::provider::Provider::close).
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !(self.is_finished() || self.done && self.substance) {
            return Err(Fault::Truncated);
        }
        if self.loose {
            if let Some(usage) = self.usage.filter(|_| !self.usage_passed) {
                sink.usage(usage);
            }
            sink.finish(include_usage);
            return Ok(());
        }
        for choice in self.choices.iter().filter(|choice| !choice.finished) {
            let calls = !choice.calls.is_empty();
            let finish = if calls { Finish::ToolCalls } else { Finish::Stop };
            chat::finish(&self.id, self.created, choice.index, finish, sink);
        }
        chat::done(sink);
        Ok(())
    }

    /// See [`Provider::is_finished`](crate::llm::provider::Provider::is_finished).
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished)
    }

    /// See [`Provider::whole`](crate::llm::provider::Provider::whole).
    ///
    /// # Errors
    /// As there.
    pub fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(body, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if let Some(said) = error_of(body, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        let chunk = Chunk::read(body, &members);
        self.answered = chunk.answers(body);
        self.note(body, &chunk);
        if sink.told.dialect() == Dialect::Chat && self.strict_whole(body, &chunk) {
            chat::whole(body, chunk.model, sink);
            return Ok(());
        }
        let substance = self.tell_whole(body, &chunk, sink)?;
        // A choice that neither says anything nor ends is none once it is told anew.
        self.answered &= substance || self.choices.iter().any(|choice| choice.finished);
        if let Some(usage) = self.usage {
            sink.usage(usage);
        }
        sink.finish(true);
        Ok(())
    }

    /// See [`Provider::has_answered`](crate::llm::provider::Provider::has_answered).
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// See [`Provider::refuse`](crate::llm::provider::Provider::refuse).
    pub fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body);
        let fault = refusal::fault(refusal.status, said.as_ref(), refusal.surface);
        let failure = Failure { fault, status: refusal.status, retry_after: refusal.retry_after };
        Refused { failure, said }
    }

    /// See [`Provider::usage`](crate::llm::provider::Provider::usage).
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// See [`Provider::said`](crate::llm::provider::Provider::said).
    pub fn said(&mut self) -> Option<Said> {
        self.said.take()
    }

    /// See [`Provider::keep_said`](crate::llm::provider::Provider::keep_said).
    pub fn keep_said(&mut self, said: Option<Said>) {
        self.said = said;
    }

    /// See [`Provider::stray`](crate::llm::provider::Provider::stray).
    ///
    /// # Errors
    /// As there.
    pub fn stray(&mut self, line: &[u8]) -> Result<Mark, Fault> {
        match error_of_line(line) {
            Some(said) => {
                self.said = Some(said);
                Err(Fault::ErrorEvent)
            }
            None => Ok(Mark::Idle),
        }
    }

    /// What every chunk says, however it goes out.
    fn note(&mut self, bytes: &[u8], chunk: &Chunk) {
        if let Some(id) = chunk.id.map(|id| id.of(bytes)).filter(|id| id.len() <= ID_MAX)
            && self.id.is_empty()
        {
            self.id.extend_from_slice(id);
        }
        if self.created == 0 {
            self.created = chunk.created;
        }
        if let Some((usage, _)) = chunk.counts {
            self.usage = Some(usage);
        } else if let Some(timings) = chunk.timings
            && self.usage.is_none()
        {
            self.usage = loose::timings(bytes, timings);
        }
    }

    fn choice(&mut self, index: u64) -> Result<&mut Choice, Fault> {
        let index = u32::try_from(index).map_err(|_| Fault::BadFrame)?;
        let at = match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None if self.choices.len() < crate::base::limits::CHOICES_MAX => {
                self.choices.push(Choice { index, ..Choice::default() });
                self.choices.len() - 1
            }
            None => return Err(Fault::BadFrame),
        };
        Ok(&mut self.choices[at])
    }

    /// `/v1/completions` has no deltas; its chunks go out as they came.
    fn pass_text(
        &mut self,
        bytes: &[u8],
        chunk: &Chunk,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let (mut substance, mut repeated) = (false, SmallVec::<[Span; 1]>::new());
        for item in chunk.items(bytes, b"text") {
            let item = item?;
            let choice = self.choice(item.index.unwrap_or(0))?;
            substance |= item.text.is_some();
            if let Some(span) = item.finish {
                substance = true;
                if std::mem::replace(&mut choice.finished, true) {
                    repeated.push(span);
                }
            }
        }
        self.substance |= substance;
        chat::pass(bytes, chunk.model, &repeated, sink);
        Ok(if substance { Mark::Content } else { Mark::Event })
    }

    /// Whether a chunk is one of OpenAI's own, so that it can go out as it came; notes what it says.
    fn strict(
        &mut self,
        bytes: &[u8],
        chunk: &Chunk,
        repeated: &mut SmallVec<[Span; 1]>,
        substance: &mut bool,
    ) -> Result<bool, Fault> {
        let bare = chunk.is_bare(bytes);
        if chunk.choices.is_none() || (chunk.is_nameless && !bare) {
            return Ok(false);
        }
        if chunk.usage.is_some() {
            if !bare || !chunk.is_plainly_counted() {
                return Ok(false);
            }
            self.usage_passed = true;
        }
        for item in chunk.items(bytes, b"delta") {
            let item = item?;
            let (Some(index), Some(delta)) = (item.index, item.delta) else { return Ok(false) };
            if item.usage.is_some() || item.error.is_some() {
                return Ok(false);
            }
            let choice = self.choice(index)?;
            let Some(says) = strict_delta(choice, bytes, delta) else { return Ok(false) };
            *substance |= says;
            choice.begun = true;
            if let Some(span) = item.finish {
                let raw = loose::inside(bytes, span);
                let odd = raw == b"stop" && !choice.calls.is_empty();
                if odd || !loose::is_known_finish(raw) || choice.calls.iter().any(|c| !c.argued) {
                    return Ok(false);
                }
                *substance = true;
                if std::mem::replace(&mut choice.finished, true) {
                    repeated.push(span);
                }
            }
        }
        Ok(true)
    }

    /// Tells the sink what went out so far, so that it goes on from there.
    fn hand_over(&mut self, sink: &mut Sink<'_>) {
        let id = self.id.get(1..self.id.len().saturating_sub(1)).unwrap_or_default();
        sink.start((!id.is_empty()).then_some(Piece::Raw(id)), Some(self.created));
        for choice in &self.choices {
            let argued: SmallVec<[bool; 4]> = choice.calls.iter().map(|c| c.argued).collect();
            sink.adopt(choice.index, choice.begun, &argued, choice.finished);
        }
    }

    /// Takes a chunk apart and tells it anew.
    fn tell(&mut self, bytes: &[u8], chunk: &Chunk, sink: &mut Sink<'_>) -> Result<bool, Fault> {
        let id = chunk.id.map(|id| Piece::Raw(loose::inside(bytes, id)));
        sink.start(id, Some(chunk.created));
        let mut substance = false;
        for item in chunk.items(bytes, b"delta") {
            substance |= self.tell_item(bytes, item?, sink)?;
        }
        Ok(substance)
    }

    fn tell_item(&mut self, bytes: &[u8], item: Item, sink: &mut Sink<'_>) -> Result<bool, Fault> {
        if let Some((usage, _)) = item.usage.and_then(|usage| loose::usage(bytes, usage)) {
            self.usage = Some(usage);
        }
        if let Some(error) = item.error {
            let fields: Top = json::members(bytes, error).collect();
            self.said = Some(error_fields(bytes, &fields));
            return Err(Fault::ErrorEvent);
        }
        let choice = self.choice(item.index.unwrap_or(0))?;
        let mut substance = false;
        match (item.delta, item.text) {
            _ if choice.finished => {}
            // Together repeats a delta's text beside it.
            (Some(delta), _) => substance |= loose::tell(choice, bytes, delta, sink),
            (None, Some(text)) => {
                let text = json::raw_string(bytes, text).unwrap_or_default();
                sink.text(choice.index, Piece::Raw(text));
                substance |= !text.is_empty();
            }
            (None, None) => {}
        }
        let Some(span) = item.finish else { return Ok(substance) };
        match loose::finish(loose::inside(bytes, span)) {
            Ok(None) => {}
            Ok(Some(finish)) => {
                choice.finished = true;
                sink.stop(choice.index, finish);
                substance = true;
            }
            Err(()) => {
                self.said = Some(Said {
                    message: String::from("the provider ended the answer with an error"),
                    ..Said::default()
                });
                return Err(Fault::ErrorEvent);
            }
        }
        Ok(substance)
    }

    /// Whether a whole answer is one of OpenAI's own.
    fn strict_whole(&self, bytes: &[u8], chunk: &Chunk) -> bool {
        let plain = chunk.usage.is_none() || chunk.is_plainly_counted();
        if chunk.choices.is_none() || chunk.is_text {
            return true;
        }
        plain
            && chunk
                .items(bytes, b"message")
                .all(|item| item.is_ok_and(|i| strict_message(bytes, &i)))
    }

    fn tell_whole(
        &mut self,
        bytes: &[u8],
        chunk: &Chunk,
        sink: &mut Sink<'_>,
    ) -> Result<bool, Fault> {
        let id = chunk.id.map(|id| Piece::Raw(loose::inside(bytes, id)));
        sink.start(id, Some(chunk.created));
        let mut substance = false;
        for item in chunk.items(bytes, b"message") {
            substance |= self.tell_item(bytes, item?, sink)?;
        }
        Ok(substance)
    }
}

/// An id that is longer is left out of chunks of our own.
const ID_MAX: usize = 128;

#[cfg(test)]
mod tests;
