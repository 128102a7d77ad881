//! OpenAI's Responses API, at OpenAI and at the vendors that copy it (Azure, xAI, DeepSeek, OpenRouter,
//! LM Studio, Bedrock's Mantle).
//!
//! An answer is a list of items; a stream tells them by events that name an item by its `output_index`
//! (ids change under way at some vendors) and a part of it by an index of its own.
//!
//! ```text
//!   response.created
//!   response.output_item.added      item 0, function_call        -> tool
//!   response.function_call_arguments.delta   "{\"a\""            -> args
//!   response.function_call_arguments.done    "{\"a\":1}"         -> args, the rest
//!   response.output_item.done       item 0, whole                -> nothing left
//!   response.completed              status, usage                -> stop, usage; the end
//! ```
//!
//! Vendors leave out what they like: deltas, the `.done` of a part, all but the last event. So each whole
//! (part, item, answer) tells what was not told before it, and a whole body is read as items that
//! nothing was told of. The terminal signal is `response.completed` or `response.incomplete`; `[DONE]`
//! is none.
//!
//! A client of the same dialect gets all of it as it came (`pass`). For others some is left out, since they
//! have no words for it: calls that the provider itself carries out, log-probabilities, citations of files.
//! Encrypted reasoning goes out as the signature of its item, with the item's id.

mod pass;
mod read;
mod refusal;
mod send;
mod told;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::UnixMs;
use crate::llm::dialects::Dialect;
use crate::llm::errors::{error_fields, error_of, error_of_line, fault_of, said_of_body};
use crate::llm::event::{Finish, Mark, Usage};
use crate::llm::prompt::Family;
use crate::llm::provider::{Provider, Refusal, Refused, Said, Site};
use crate::llm::request::Ask;
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Top, Value};

use read::{annotate, begin, is_json, strand_of, string, text_of, usage_of};
use refusal::{asked_wait, refine, with_outer_code};
use told::{PARTS_MAX, Parts, Strand};

/// One answer being read.
#[derive(Default)]
pub struct Responses {
    parts: Parts,
    calls: Vec<Call>,
    /// The item that events without an `output_index` are of.
    item: u64,
    /// The item whose reasoning is being told.
    thinking: Option<u64>,
    finished: bool,
    usage: Option<Usage>,
    said: Option<Said>,
}

/// A tool call that was told.
struct Call {
    item: u64,
    /// The sink's index.
    tool: u32,
    /// Arguments that came with the call's start: whole ones, which deltas may yet repeat.
    early: Vec<u8>,
}

/// What of an event is read.
#[derive(Default)]
struct Event {
    delta: Option<Value>,
    /// The whole part, of a `.done` event.
    whole: Option<Value>,
    item: Option<Value>,
    response: Option<Value>,
    annotation: Option<Value>,
    at: Option<u64>,
    part: u64,
}

impl Provider for Responses {
    const NAME: &'static str = "openai-responses";
    const BASE_URL: &'static str = "https://api.openai.com/v1";
    const KEY_VARIABLE: &'static str = "OPENAI_API_KEY";

    fn send(
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        _wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        send::send(ask, body, site, out)
    }

    fn speaks(&self, dialect: Dialect) -> bool {
        dialect == Dialect::Responses
    }

    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        if payload.trim_ascii() == b"[DONE]" {
            return Ok(Mark::End);
        }
        let mut members = Top::new();
        let top = json::document_with_top(payload, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        let kind = json::find(payload, &members, "type");
        let kind = kind.and_then(|kind| json::raw_string(payload, kind)).unwrap_or_default();
        if !kind.starts_with(b"response.")
            && let Some(said) = error_of(payload, &members)
        {
            // In the older form, the event's own type stands beside the message.
            let kind = said.kind.filter(|kind| kind != "error");
            self.said = Some(Said { kind, ..said });
            return Err(Fault::ErrorEvent);
        }
        if self.finished {
            return Ok(Mark::Event);
        }
        if sink.told.dialect() == Dialect::Responses {
            return self.pass(payload, &members, kind, sink);
        }
        let event = Event::read(payload, &members);
        let item = event.at.unwrap_or(self.item);
        if let Some((strand, is_whole)) = strand_of(kind) {
            let piece = if is_whole { event.whole } else { event.delta };
            let raw = piece.and_then(|piece| json::raw_string(payload, piece)).unwrap_or_default();
            // Arguments are of their call, whatever else an event counts.
            let part = if strand == Strand::Arguments { 0 } else { event.part };
            return self.tell(strand, item, part, raw, is_whole, sink);
        }
        match kind {
            b"response.output_item.added" | b"response.output_item.done" => {
                self.item = item;
                let Some(value) = event.item else { return Ok(Mark::Event) };
                self.read_item(payload, value, item, kind.ends_with(b"done"), sink)
            }
            b"response.output_text.annotation.added" => {
                let part = self.parts.at(item, Strand::Text, event.part)?;
                part.notes += 1;
                let told = event.annotation.is_some_and(|note| annotate(payload, note, sink));
                Ok(if told { Mark::Content } else { Mark::Event })
            }
            b"response.completed"
            | b"response.incomplete"
            | b"response.failed"
            | b"response.cancelled" => {
                let status = kind.strip_prefix(b"response.").unwrap_or_default();
                self.read_end(payload, event.response, status, sink)?;
                Ok(Mark::End)
            }
            b"keepalive" | b"ping" => Ok(Mark::Idle),
            _ => {
                if let Some(response) = event.response {
                    begin(payload, response, sink);
                }
                Ok(Mark::Event)
            }
        }
    }

    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
        if !self.finished {
            return Err(Fault::Truncated);
        }
        if sink.told.dialect() != Dialect::Responses {
            sink.finish(include_usage);
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.finished
    }

    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
        let mut members = Top::new();
        let top = json::document_with_top(body, &mut members).map_err(|_| Fault::BadFrame)?;
        if top.kind != Kind::Object {
            return Err(Fault::BadFrame);
        }
        if let Some(said) = error_of(body, &members) {
            self.said = Some(said);
            return Err(Fault::ErrorEvent);
        }
        if json::find(body, &members, "output").is_none_or(|output| output.kind != Kind::Array) {
            return Err(Fault::BadFrame);
        }
        if sink.told.dialect() == Dialect::Responses {
            return self.pass_whole(body, top, sink);
        }
        self.read_end(body, Some(top), b"completed", sink)?;
        sink.finish(true);
        Ok(())
    }

    fn refuse(refusal: &Refusal<'_>) -> Refused {
        let said = said_of_body(refusal.body).map(|said| with_outer_code(said, refusal.body));
        let fault = fault_of(refusal.status, said.as_ref(), refusal.surface);
        let fault = said.as_ref().map_or(fault, |said| refine(fault, refusal.status, said));
        let asked = || said.as_ref().and_then(|said| asked_wait(&said.message));
        let retry_after = match refusal.status {
            429 => refusal.retry_after.or_else(asked),
            _ => refusal.retry_after,
        };
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

    fn stray(&mut self, line: &[u8], _sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        match error_of_line(line) {
            Some(said) => {
                self.said = Some(said);
                Err(Fault::ErrorEvent)
            }
            None => Ok(Mark::Idle),
        }
    }
}

impl Event {
    fn read(payload: &[u8], members: &Top) -> Event {
        let mut event = Event::default();
        for member in members {
            let value = member.value;
            match member.key.of(payload) {
                b"delta" => event.delta = Some(value),
                b"text" | b"refusal" | b"arguments" | b"input" => event.whole = Some(value),
                b"item" => event.item = Some(value),
                b"response" if value.kind == Kind::Object => event.response = Some(value),
                b"annotation" => event.annotation = Some(value),
                b"output_index" => event.at = json::as_u64(payload, value),
                b"content_index" | b"summary_index" => {
                    event.part = json::as_u64(payload, value).unwrap_or(0);
                }
                _ => {}
            }
        }
        event
    }
}

impl Responses {
    /// Tells a fragment of a part, or what is missing of a whole one.
    fn tell(
        &mut self,
        strand: Strand,
        item: u64,
        part: u64,
        raw: &[u8],
        is_whole: bool,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let other = match strand {
            Strand::Summary => Some(Strand::Thought),
            Strand::Thought => Some(Strand::Summary),
            Strand::Text | Strand::Refusal | Strand::Arguments => None,
        };
        // Of reasoning and its summary, the one that came first is told.
        let is_second = other.is_some_and(|other| self.parts.has(Some(item), other));
        let tool = self.calls.iter().rev().find(|call| call.item == item).map(|call| call.tool);
        // A call without a name, so far, or one that the provider carries out itself.
        let is_unknown = strand == Strand::Arguments && tool.is_none();
        if raw.is_empty() || is_second || is_unknown {
            return Ok(Mark::Event);
        }
        let follows = strand == Strand::Summary && self.parts.has(None, strand);
        let known = self.parts.at(item, strand, part)?;
        let follows = follows && known.is_bare();
        let raw = if is_whole { known.rest(raw) } else { raw };
        if raw.is_empty() {
            return Ok(Mark::Event);
        }
        known.add(raw);
        let piece = Piece::Raw(raw);
        match strand {
            Strand::Text => sink.text(0, piece),
            Strand::Refusal => sink.refuse(0, piece),
            Strand::Arguments => sink.args(0, tool.unwrap_or_default(), piece),
            Strand::Summary | Strand::Thought => {
                self.think(item, sink);
                if follows {
                    sink.reason(0, Piece::Raw(b"\\n\\n"));
                }
                sink.reason(0, piece);
            }
        }
        Ok(Mark::Content)
    }

    /// Reads an item at its start or at its end.
    fn read_item(
        &mut self,
        bytes: &[u8],
        item: Value,
        at: u64,
        is_done: bool,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let kind = string(bytes, item, "type");
        match kind {
            b"function_call" | b"custom_tool_call" => {
                self.read_call(bytes, item, at, is_done, sink)
            }
            // What a message or a thought says at its start is said again by what follows.
            b"message" if is_done => {
                let content = json::get(bytes, item, "content");
                let told = self.read_parts(bytes, content, Strand::Text, at, sink)?;
                Ok(told.max(self.read_parts(bytes, content, Strand::Refusal, at, sink)?))
            }
            b"reasoning" if is_done => {
                let content = json::get(bytes, item, "content");
                let told = self.read_parts(bytes, content, Strand::Thought, at, sink)?;
                let summary = json::get(bytes, item, "summary");
                let told = told.max(self.read_parts(bytes, summary, Strand::Summary, at, sink)?);
                self.sign(bytes, item, at, sink);
                Ok(told)
            }
            b"image_generation_call" if is_done => {
                let data = string(bytes, item, "result");
                let format = match string(bytes, item, "output_format") {
                    b"jpeg" => "image/jpeg",
                    b"webp" => "image/webp",
                    _ => "image/png",
                };
                // What was told of this item is not told again at the answer's end.
                let known = self.parts.at(at, Strand::Text, 0)?;
                if data.is_empty() || std::mem::replace(&mut known.notes, 1) > 0 {
                    return Ok(Mark::Event);
                }
                sink.image(0, format, Piece::Raw(data));
                Ok(Mark::Content)
            }
            _ => Ok(Mark::Event),
        }
    }

    /// The reasoning of another item begins.
    fn think(&mut self, item: u64, sink: &mut Sink<'_>) {
        if self.thinking.replace(item) != Some(item) {
            sink.thought(0);
        }
    }

    /// Encrypted reasoning, as the signature of what was told of it. The provider holds it against the
    /// item's id, so that both are given back together.
    fn sign(&mut self, bytes: &[u8], item: Value, at: u64, sink: &mut Sink<'_>) {
        let encrypted = string(bytes, item, "encrypted_content");
        if !encrypted.is_empty() {
            self.think(at, sink);
            let signature = [string(bytes, item, "id"), b":", encrypted].concat();
            sink.sign(0, Family::Openai, Piece::Raw(&signature));
        }
    }

    /// Reads those parts of a whole item that are of one strand.
    fn read_parts(
        &mut self,
        bytes: &[u8],
        parts: Option<Value>,
        strand: Strand,
        at: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let Some(parts) = parts else { return Ok(Mark::Event) };
        if parts.kind == Kind::String && strand == Strand::Text {
            let raw = json::raw_string(bytes, parts).unwrap_or_default();
            return self.tell(strand, at, 0, raw, true, sink);
        }
        let text_of = |part: Value| text_of(bytes, part, strand);
        let all: u64 = json::items(bytes, parts).filter_map(text_of).map(told::count).sum();
        // Vendors that count their parts otherwise have told the same text under another index.
        let is_missing = self.parts.units(at, strand) < all;
        let mut mark = Mark::Event;
        for (index, part) in json::items(bytes, parts).enumerate() {
            let Some(raw) = text_of(part) else { continue };
            let index = index as u64;
            if is_missing {
                mark = mark.max(self.tell(strand, at, index, raw, true, sink)?);
            }
            if strand == Strand::Text {
                mark = mark.max(self.read_notes(bytes, part, at, index, sink)?);
            }
        }
        Ok(mark)
    }

    /// The annotations of a whole part that were not told yet.
    fn read_notes(
        &mut self,
        bytes: &[u8],
        part: Value,
        at: u64,
        index: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let Some(notes) = json::get(bytes, part, "annotations") else { return Ok(Mark::Event) };
        let mut mark = Mark::Event;
        for (place, note) in json::items(bytes, notes).enumerate() {
            let known = self.parts.at(at, Strand::Text, index)?;
            if place < known.notes {
                continue;
            }
            known.notes += 1;
            if annotate(bytes, note, sink) {
                mark = Mark::Content;
            }
        }
        Ok(mark)
    }

    /// Reads a tool call at its start or at its end.
    fn read_call(
        &mut self,
        bytes: &[u8],
        item: Value,
        at: u64,
        is_done: bool,
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let is_custom = string(bytes, item, "type") == b"custom_tool_call";
        let mut mark = Mark::Event;
        if !self.calls.iter().rev().any(|call| call.item == at) {
            let (name, id) = (string(bytes, item, "name"), string(bytes, item, "call_id"));
            // A call that nobody could answer is the provider's own.
            let is_served = is_custom && (id.is_empty() || SERVED.contains(&name));
            if name.is_empty() || is_served {
                return Ok(Mark::Event);
            }
            if self.calls.len() == PARTS_MAX {
                return Err(Fault::BadFrame);
            }
            let id = if id.is_empty() { string(bytes, item, "id") } else { id };
            let tool = sink.tool(0, Piece::Raw(id), Piece::Raw(name));
            self.calls.push(Call { item: at, tool, early: Vec::new() });
            mark = Mark::Content;
        }
        let arguments = json::get(bytes, item, if is_custom { "input" } else { "arguments" });
        let Some(arguments) = arguments else { return Ok(mark) };
        let mut made = Buf::new();
        let raw = match arguments.kind {
            Kind::String => json::raw_string(bytes, arguments).unwrap_or_default(),
            Kind::Object => {
                json::escape(&mut made, &String::from_utf8_lossy(arguments.raw(bytes)));
                made.as_slice()
            }
            Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::Array => b"",
        };
        if !is_done && (is_custom || is_json(bytes, arguments)) {
            if let Some(call) = self.calls.iter_mut().rev().find(|call| call.item == at) {
                call.early = raw.to_vec();
            }
            return Ok(mark);
        }
        Ok(mark.max(self.tell(Strand::Arguments, at, 0, raw, is_done, sink)?))
    }

    /// Reads the answer's end: its status, its counts, and what was not told of it.
    fn read_end(
        &mut self,
        bytes: &[u8],
        response: Option<Value>,
        status: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        let finish = self.outcome(bytes, response, status, sink)?;
        self.tell_early(sink)?;
        if self.parts.is_empty() && self.calls.is_empty() {
            let output = response.and_then(|object| json::get(bytes, object, "output"));
            for (at, item) in output.into_iter().flat_map(|o| json::items(bytes, o)).enumerate() {
                self.read_item(bytes, item, at as u64, true, sink)?;
            }
        }
        self.finished = true;
        sink.stop(0, finish);
        Ok(())
    }

    /// What an answer came to, and its counts.
    fn outcome(
        &mut self,
        bytes: &[u8],
        response: Option<Value>,
        status: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Finish, Fault> {
        let member = |name: &str| response.and_then(|object| json::get(bytes, object, name));
        if let Some(response) = response {
            begin(bytes, response, sink);
        }
        if let Some(usage) = member("usage").and_then(|usage| usage_of(bytes, usage)) {
            self.usage = Some(usage);
            sink.usage(usage);
        }
        let told = member("status").and_then(|status| json::raw_string(bytes, status));
        let error = member("error").filter(|error| error.kind == Kind::Object);
        let finish = match told.filter(|told| !told.is_empty()).unwrap_or(status) {
            _ if error.is_some() || status == b"failed" || status == b"cancelled" => None,
            b"completed" => Some(Finish::Stop),
            b"incomplete" => {
                let why = member("incomplete_details");
                let why = why.map_or(&b""[..], |why| string(bytes, why, "reason"));
                let is_filter = why == b"content_filter";
                Some(if is_filter { Finish::ContentFilter } else { Finish::Length })
            }
            b"failed" | b"cancelled" => None,
            // Of a body, an answer that is not there yet; the event's own name says more.
            _ if status == b"incomplete" => Some(Finish::Length),
            _ if told.is_some_and(|told| matches!(told, b"queued" | b"in_progress")) => {
                return Err(Fault::Truncated);
            }
            _ => Some(Finish::Stop),
        };
        finish.ok_or_else(|| {
            let fields = error.map(|error| json::members(bytes, error).collect::<Top>());
            self.said = Some(fields.map_or_else(Said::default, |f| error_fields(bytes, &f)));
            Fault::ErrorEvent
        })
    }

    /// Arguments that came with their call and never again.
    fn tell_early(&mut self, sink: &mut Sink<'_>) -> Result<(), Fault> {
        for place in 0..self.calls.len() {
            let (item, early) =
                (self.calls[place].item, std::mem::take(&mut self.calls[place].early));
            if self.parts.units(item, Strand::Arguments) == 0 {
                self.tell(Strand::Arguments, item, 0, &early, true, sink)?;
            }
        }
        Ok(())
    }
}

/// xAI's search is made of custom calls that xAI carries out.
const SERVED: &[&[u8]] =
    &[b"x_keyword_search", b"x_semantic_search", b"x_thread_fetch", b"x_user_search"];
#[cfg(test)]
mod tests;
