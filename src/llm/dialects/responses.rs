//! OpenAI's Responses: an answer is a list of items, a stream the life of each of them between the
//! answer's own beginning and end. Every event has its name, and a number without gaps.
//!
//! ```text
//!   response.created, response.in_progress
//!   response.output_item.added        item 0, message
//!   response.content_part.added
//!   response.output_text.delta        "Hi"
//!   response.output_text.done         all of it
//!   response.content_part.done
//!   response.output_item.done         the item, whole
//!   response.completed                the answer, whole, with its counts
//! ```
//!
//! An item is over when the next one begins; a call whose arguments are not whole yet stays open beside
//! it. A block of the sink is an item: text and a refusal are a message each, a thought with its signature
//! is reasoning with encrypted content. What this API has no place for (hidden thoughts, signatures of
//! calls) travels as encrypted reasoning under a tag, since that is what clients give back unread.
//!
//! A bad end is one `error` event, and no `response.completed`.

mod item;

use std::io::Write as _;

use serde_json::Value;
use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::llm::dialects::{ErrorReport, Writer, chat};
use crate::llm::event::{Finish, Usage};
use crate::llm::prompt::Family;
use crate::llm::sink::{Block, Choice, Piece, Sink, Told};
use crate::wire::Span;
use crate::wire::json;

use self::item::{Item, Of, flat, write_id};

/// What stands before hidden thoughts in a place for encrypted reasoning.
pub(in crate::llm) const REDACTED_TAG: &str = "firstbyte:redacted:";
/// What stands there before the signature of a call, a colon and the call's id.
pub(in crate::llm) const CALL_TAG: &str = "firstbyte:call:";
/// What all such tags begin with, and those of families.
const TAG: &str = "firstbyte:";

/// Writes it.
pub struct Responses;

/// What the writer keeps of a stream.
#[derive(Default)]
pub(in crate::llm) struct Pen {
    /// The next event's number.
    next: u64,
    begun: bool,
    /// What makes this answer's ids its own.
    seed: SmallVec<[u8; SEED_MAX]>,
    /// Each at its `output_index`.
    items: SmallVec<[Item; 4]>,
    /// Bytes that the answer's end will say again.
    kept: usize,
}

impl Writer for Responses {
    fn text(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        delta(sink, choice, "response.output_text.delta", text);
    }

    /// The reasoning itself begins the item.
    fn thought(&self, _: &mut Sink<'_>, _: u32) {}

    fn reason(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        delta(sink, choice, "response.reasoning_summary_text.delta", text);
    }

    /// It goes out with the item's end.
    fn sign(&self, sink: &mut Sink<'_>, choice: u32, _: Option<&Buf>, _: Family, _: Piece<'_>) {
        enter(sink, choice);
    }

    fn redacted(&self, sink: &mut Sink<'_>, choice: u32, data: Piece<'_>) {
        sink.told.responses.kept += data.len();
        enter(sink, choice);
    }

    fn refuse(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        delta(sink, choice, "response.refusal.delta", text);
    }

    fn tool(&self, sink: &mut Sink<'_>, choice: u32, _: u32, _: Piece<'_>, _: Piece<'_>) {
        enter(sink, choice);
    }

    fn args(&self, sink: &mut Sink<'_>, choice: u32, index: u32, fragment: Piece<'_>) {
        let Some(at) = place_of(sink, choice, index).filter(|at| sink.told.responses.is_open(*at))
        else {
            return;
        };
        fragment_event(sink, at, "response.function_call_arguments.delta", fragment);
    }

    fn sign_call(&self, sink: &mut Sink<'_>, choice: u32, index: u32, _: Family, _: Piece<'_>) {
        let Some(call) = place_of(sink, choice, index) else { return };
        let pen = &mut sink.told.responses;
        let block = pen.items[call].block;
        pen.items.push(Item { of: Of::CallSignature, block, open: true, part: false });
        let at = pen.items.len() - 1;
        added(sink, at);
        done(sink, at, COMPLETED);
    }

    fn annotate(&self, sink: &mut Sink<'_>, choice: u32, annotation: &[u8]) {
        sink.told.responses.kept += annotation.len();
        let Some(at) = enter(sink, choice) else { return };
        let count = match sink.told.choices[0].blocks.last() {
            Some(Block::Text { annotations, .. }) => annotations.len(),
            _ => 1,
        };
        event(sink, "response.output_text.annotation.added", |told, out| {
            told.responses.place(at, &told.choices[0], "content_index", out);
            // Writing to a Buf can't fail.
            let _ = write!(out, ",\"annotation_index\":{},\"annotation\":", count - 1);
            flat(annotation, out);
        });
    }

    fn image(&self, sink: &mut Sink<'_>, choice: u32, _: &str, data: Piece<'_>) {
        sink.told.responses.kept += data.len();
        enter(sink, choice);
    }

    fn stop(&self, sink: &mut Sink<'_>, choice: u32, finish: Finish) {
        if choice > 0 {
            return;
        }
        begin(sink);
        let last = sink.told.responses.items.len().saturating_sub(1);
        for at in 0..sink.told.responses.items.len() {
            if sink.told.responses.is_open(at) {
                let cut = at == last && reason_of(Some(finish)).is_some();
                done(sink, at, if cut { INCOMPLETE } else { COMPLETED });
            }
        }
    }

    fn finish(&self, sink: &mut Sink<'_>, _: bool) {
        begin(sink);
        let finish = finish_of(sink.told);
        let name = match reason_of(finish) {
            Some(_) => "response.incomplete",
            None => "response.completed",
        };
        answer_event(sink, name, &|told, envelope, out| {
            response(told, envelope, Some(finish), &told.responses.items, out);
        });
    }

    fn whole(&self, sink: &mut Sink<'_>) {
        plant(sink);
        let mut items = std::mem::take(&mut sink.told.responses.items);
        for (block, told) in
            sink.told.choices.first().into_iter().flat_map(|c| &c.blocks).enumerate()
        {
            let signed = match told {
                Block::Reason { text, signature: None } if text.is_empty() => continue,
                Block::Call(call) => call.signature.is_some(),
                _ => false,
            };
            items.push(Item { of: Of::Block, block, open: false, part: true });
            if signed {
                items.push(Item { of: Of::CallSignature, block, open: false, part: false });
            }
        }
        let finish = finish_of(sink.told);
        let envelope = Envelope { shown: sink.shown, seconds: sink.seconds };
        response(sink.told, &envelope, Some(finish), &items, sink.out);
    }

    fn error_body(&self, report: &ErrorReport<'_>) -> String {
        chat::Chat.error_body(report)
    }

    /// The fields stand twice: at the top as the reference has it, and as the object that SDKs raise.
    fn error_event(&self, report: &ErrorReport<'_>, told: &mut Told, out: &mut Buf) {
        let text = &report.text;
        let mut error = serde_json::json!({
            "type": "error", "sequence_number": told.responses.next,
            "code": text.code, "message": text.message, "param": text.param,
            "error": {
                "type": text.kind, "code": text.code, "message": text.message, "param": text.param,
            },
        });
        if let Some(metadata) = report.metadata {
            error["error"]["metadata"] = metadata.clone();
        }
        told.responses.next += 1;
        out.extend(b"event: error\ndata: ");
        out.extend(error.to_string().as_bytes());
        out.extend(b"\n\n");
    }
}

/// Passes an event through under its name: the model's name replaced, the rest as it came. `number` is
/// the event's own.
pub fn pass(
    name: &[u8],
    payload: &[u8],
    model: Option<Span>,
    number: Option<u64>,
    sink: &mut Sink<'_>,
) {
    sink.out.reserve(payload.len() + name.len() + sink.shown.len() + 24);
    // A name is a word; what is none would tear the event.
    if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) {
        sink.out.extend(b"event: ");
        sink.out.extend(name);
        sink.out.push(b'\n');
    }
    let pen = &mut sink.told.responses;
    pen.next = number.unwrap_or(pen.next).saturating_add(1);
    chat::pass(payload, model, &[], sink);
}

/// A request without the reasoning that this gateway had put into it for other families: their signatures
/// mean nothing to a provider of this API, and it would refuse them. `None` if there is none.
pub fn without_foreign(body: &[u8]) -> Option<Vec<u8>> {
    memchr::memmem::find(body, TAG.as_bytes())?;
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let items = body.get_mut("input")?.as_array_mut()?;
    let before = items.len();
    items.retain(|item| {
        let encrypted = item["encrypted_content"].as_str();
        item["type"] != "reasoning" || !encrypted.is_some_and(|text| text.starts_with(TAG))
    });
    if items.len() == before { None } else { serde_json::to_vec(&body).ok() }
}

impl Pen {
    /// Bytes that the answer's end will say again: they are held until then.
    pub(in crate::llm) fn kept(&self) -> usize {
        self.kept
    }

    fn is_open(&self, at: usize) -> bool {
        self.items.get(at).is_some_and(|item| item.open)
    }

    /// Which item an event is of, and which part of it.
    fn place(&self, at: usize, choice: &Choice, part: &str, out: &mut Buf) {
        out.extend(b",\"item_id\":\"");
        write_id(&self.items[at], choice, &self.seed, at, out);
        // Writing to a Buf can't fail.
        let _ = write!(out, "\",\"output_index\":{at}");
        if !part.is_empty() {
            let _ = write!(out, ",\"{part}\":0");
        }
    }
}

/// What of the sink stands around every answer.
struct Envelope<'a> {
    shown: &'a str,
    seconds: u64,
}

/// One event: its name and number, and what `tell` adds.
fn event(sink: &mut Sink<'_>, name: &str, tell: impl FnOnce(&Told, &mut Buf)) {
    // Writing to a Buf can't fail.
    let _ = write!(
        sink.out,
        "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{}",
        sink.told.responses.next
    );
    tell(sink.told, sink.out);
    sink.out.extend(b"}\n\n");
    sink.told.responses.next += 1;
    *sink.events += 1;
}

/// An event of the whole answer.
fn answer_event(sink: &mut Sink<'_>, name: &str, tell: &dyn Fn(&Told, &Envelope<'_>, &mut Buf)) {
    let envelope = Envelope { shown: sink.shown, seconds: sink.seconds };
    event(sink, name, |told, out| {
        out.extend(b",\"response\":");
        tell(told, &envelope, out);
    });
}

/// Settles what the ids of this answer are made of: the plain characters of the provider's id, or of the
/// request's. Providers of this API take ids of up to 64 bytes back, under their own prefixes.
fn plant(sink: &mut Sink<'_>) {
    let told = &sink.told.id;
    let of = if told.is_empty() { sink.id.as_bytes() } else { told.as_slice() };
    let mut seed: SmallVec<[u8; SEED_MAX]> =
        of.iter().rev().copied().filter(u8::is_ascii_alphanumeric).take(SEED_MAX).collect();
    seed.reverse();
    if seed.is_empty() {
        seed.push(b'0');
    }
    sink.told.responses.seed = seed;
}

/// The answer's beginning, once.
fn begin(sink: &mut Sink<'_>) {
    if std::mem::replace(&mut sink.told.responses.begun, true) {
        return;
    }
    plant(sink);
    sink.created();
    sink.told.choice(0).begun = true;
    for name in ["response.created", "response.in_progress"] {
        answer_event(sink, name, &|told, envelope, out| response(told, envelope, None, &[], out));
    }
}

/// The item of the block that was told last, begun if it is new. There is one choice here.
fn enter(sink: &mut Sink<'_>, choice: u32) -> Option<usize> {
    if choice > 0 {
        return None;
    }
    begin(sink);
    let block = sink.told.choice(0).blocks.len().checked_sub(1)?;
    let items = &sink.told.responses.items;
    let known = items.iter().rposition(|item| item.of == Of::Block && item.block == block);
    if known.is_some() {
        return known;
    }
    for at in 0..sink.told.responses.items.len() {
        let is_over = {
            let item = &sink.told.responses.items[at];
            item.open && item.is_whole(&sink.told.choices[0])
        };
        if is_over {
            done(sink, at, COMPLETED);
        }
    }
    sink.told.responses.items.push(Item { of: Of::Block, block, open: true, part: false });
    let at = sink.told.responses.items.len() - 1;
    added(sink, at);
    Some(at)
}

/// The item of a call.
fn place_of(sink: &Sink<'_>, choice: u32, index: u32) -> Option<usize> {
    let first = sink.told.choices.first().filter(|first| first.index == 0 && choice == 0);
    let blocks = &first?.blocks;
    sink.told.responses.items.iter().position(|item| {
        let call = matches!(&blocks[item.block], Block::Call(call) if call.index == index);
        item.of == Of::Block && call
    })
}

/// An item begins, and its part where it always has one.
fn added(sink: &mut Sink<'_>, at: usize) {
    event(sink, "response.output_item.added", |told, out| {
        // Writing to a Buf can't fail.
        let _ = write!(out, ",\"output_index\":{at},\"item\":");
        let pen = &told.responses;
        pen.items[at].write_empty(&told.choices[0], &pen.seed, at, out);
    });
    if sink.told.responses.items[at].is_message(&sink.told.choices[0]) {
        open_part(sink, at);
    }
}

fn open_part(sink: &mut Sink<'_>, at: usize) {
    sink.told.responses.items[at].part = true;
    let Some(words) = sink.told.responses.items[at].words(&sink.told.choices[0]) else { return };
    event(sink, words.part_added, |told, out| {
        told.responses.place(at, &told.choices[0], words.index, out);
        out.extend(b",\"part\":");
        words.write_part(b"", &[], out);
    });
}

/// A piece of the text of the last block.
fn delta(sink: &mut Sink<'_>, choice: u32, name: &str, text: Piece<'_>) {
    let Some(at) = enter(sink, choice) else { return };
    if !sink.told.responses.items[at].part {
        open_part(sink, at);
    }
    fragment_event(sink, at, name, text);
}

fn fragment_event(sink: &mut Sink<'_>, at: usize, name: &str, text: Piece<'_>) {
    sink.told.responses.kept += text.len();
    event(sink, name, |told, out| {
        let choice = &told.choices[0];
        let words = told.responses.items[at].words(choice);
        let index = words.map_or("", |words| words.index);
        told.responses.place(at, choice, index, out);
        out.extend(b",\"delta\":\"");
        text.write(out);
        out.push(b'"');
        if words.is_some_and(|words| words.has_logprobs) {
            out.extend(b",\"logprobs\":[]");
        }
    });
}

/// An item is over: the whole of its part, and of itself.
fn done(sink: &mut Sink<'_>, at: usize, status: &str) {
    let item = &mut sink.told.responses.items[at];
    item.open = false;
    let has_part = item.part;
    let words = item.words(&sink.told.choices[0]);
    if let Some(words) = words.filter(|_| has_part) {
        event(sink, words.text_done, |told, out| {
            told.responses.place(at, &told.choices[0], words.index, out);
            // Writing to a Buf can't fail.
            let _ = write!(out, ",\"{}\":\"", words.key);
            out.extend(told.responses.items[at].text(&told.choices[0]));
            out.push(b'"');
            if words.has_logprobs {
                out.extend(b",\"logprobs\":[]");
            }
        });
        event(sink, words.part_done, |told, out| {
            let choice = &told.choices[0];
            let item = &told.responses.items[at];
            told.responses.place(at, choice, words.index, out);
            out.extend(b",\"part\":");
            words.write_part(item.text(choice), item.annotations(choice), out);
        });
    }
    if sink.told.responses.items[at].is_call(&sink.told.choices[0]) {
        event(sink, "response.function_call_arguments.done", |told, out| {
            let choice = &told.choices[0];
            told.responses.place(at, choice, "", out);
            told.responses.items[at].write_call(choice, out);
        });
    }
    event(sink, "response.output_item.done", |told, out| {
        // Writing to a Buf can't fail.
        let _ = write!(out, ",\"output_index\":{at},\"item\":");
        let pen = &told.responses;
        pen.items[at].write(&told.choices[0], &pen.seed, at, status, out);
    });
}

fn finish_of(told: &Told) -> Option<Finish> {
    told.choices.first().and_then(|choice| choice.finish)
}

/// Why an answer is not whole.
fn reason_of(finish: Option<Finish>) -> Option<&'static str> {
    match finish {
        Some(Finish::Length) => Some("max_output_tokens"),
        Some(Finish::ContentFilter) => Some("content_filter"),
        Some(Finish::Stop | Finish::ToolCalls) | None => None,
    }
}

/// The answer as an object. `finish` is missing while it is in progress. What the request asked for is not
/// known here and stands at its default.
fn response(
    told: &Told,
    envelope: &Envelope<'_>,
    finish: Option<Option<Finish>>,
    items: &[Item],
    out: &mut Buf,
) {
    out.extend(b"{\"id\":\"resp_");
    out.extend(&told.responses.seed);
    let created = if told.created == 0 { envelope.seconds } else { told.created };
    let reason = finish.and_then(reason_of);
    let status = match (finish, reason) {
        (None, _) => IN_PROGRESS,
        (Some(_), None) => COMPLETED,
        (Some(_), Some(_)) => INCOMPLETE,
    };
    // Writing to a Buf can't fail.
    let _ = write!(
        out,
        "\",\"object\":\"response\",\"created_at\":{created},\"status\":\"{status}\",\
         \"background\":false,\"error\":null,\"incomplete_details\":"
    );
    match reason {
        None => out.extend(b"null"),
        Some(reason) => _ = write!(out, "{{\"reason\":\"{reason}\"}}"),
    }
    out.extend(b",\"instructions\":null,\"max_output_tokens\":null,\"model\":");
    json::write_string(out, envelope.shown);
    out.extend(b",\"output\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let status = if at + 1 == items.len() { status } else { COMPLETED };
        item.write(&told.choices[0], &told.responses.seed, at, status, out);
    }
    out.extend(
        b"],\"parallel_tool_calls\":true,\"previous_response_id\":null,\
          \"reasoning\":{\"effort\":null,\"summary\":null},\"store\":false,\"temperature\":null,\
          \"text\":{\"format\":{\"type\":\"text\"}},\"tool_choice\":\"auto\",\"tools\":[],\
          \"top_p\":null,\"truncation\":\"disabled\",\"usage\":",
    );
    match told.usage.filter(|_| finish.is_some()) {
        None => out.extend(b"null"),
        Some(usage) => write_usage(usage, out),
    }
    out.extend(b",\"user\":null,\"metadata\":{}}");
}

fn write_usage(usage: Usage, out: &mut Buf) {
    // Writing to a Buf can't fail.
    let _ = write!(
        out,
        "{{\"input_tokens\":{},\"input_tokens_details\":{{\"cached_tokens\":{},\
         \"cache_write_tokens\":{}}},\"output_tokens\":{},\
         \"output_tokens_details\":{{\"reasoning_tokens\":{}}},\"total_tokens\":{}}}",
        usage.prompt,
        usage.cached,
        usage.cache_write,
        usage.completion,
        usage.reasoning,
        usage.prompt.saturating_add(usage.completion)
    );
}

const IN_PROGRESS: &str = "in_progress";
const COMPLETED: &str = "completed";
const INCOMPLETE: &str = "incomplete";
/// With a prefix and a number behind it, an id stays under 64 bytes.
const SEED_MAX: usize = 36;

#[cfg(test)]
mod tests;
