//! Anthropic's Messages: a stream of blocks, each begun, told and ended, between the head of the message
//! and its end. Every event has its name in a line of its own.
//!
//! ```text
//!   message_start
//!     content_block_start 0   thinking | text | tool_use | redacted_thinking
//!     content_block_delta 0   thinking_delta, signature_delta | text_delta | input_json_delta
//!     content_block_stop  0
//!   message_delta             stop_reason, usage
//!   message_stop
//! ```
//!
//! Blocks are numbered densely and, but for calls whose arguments come in turns, are open one at a time.
//! None is begun before there is something to say in it. An answer has one choice; images have no place
//! in this format, and are left out.
//!
//! Signatures of other families stand where Anthropic's stand, behind a tag that `Signature::read` knows.
//! A call's own signature stands in a thinking block without text before the call, for clients give such
//! blocks back unchanged and show nothing of them. Ids of calls that this format does not allow are coded
//! in letters that it does; `call_id` reads them.

mod whole;

use std::borrow::Cow;
use std::io::Write as _;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::llm::dialects::{ErrorReport, Writer, chat};
use crate::llm::event::{Finish, Usage};
use crate::llm::prompt::Family;
use crate::llm::sink::{Piece, Sink, Told};
use crate::wire::Span;
use crate::wire::json::{self, Balance};

/// Writes it.
pub struct Messages;

/// What the writer keeps of a stream.
#[derive(Default)]
pub(in crate::llm) struct Pen {
    /// The next block's number.
    next: u32,
    open: Open,
    /// A thought was announced: it gets a block of its own.
    fresh: bool,
    /// Part of it is a refusal.
    refused: bool,
    /// A call whose block has not begun: its signature would stand before it.
    waiting: Option<Waiting>,
    /// Calls whose blocks have begun and not ended.
    calls: SmallVec<[OpenCall; 2]>,
}

/// A block that is not a call's.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Open {
    #[default]
    None,
    Text,
    Thinking,
    /// It has its signature, and is over.
    Signed,
}

/// A call that was announced; id and name are the insides of JSON strings.
struct Waiting {
    call: u32,
    id: Buf,
    name: Buf,
}

struct OpenCall {
    call: u32,
    block: u32,
    arguments: Balance,
    /// They are no object, and stand in one as a string.
    wrapped: bool,
}

impl Writer for Messages {
    fn text(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        if choice == 0 {
            say_text(sink, text);
        }
    }

    fn thought(&self, sink: &mut Sink<'_>, choice: u32) {
        sink.told.messages.fresh |= choice == 0;
    }

    fn reason(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        if choice != 0 {
            return;
        }
        think(sink);
        let block = sink.told.messages.next;
        delta(sink, block, "thinking_delta", "thinking", &[text]);
    }

    fn sign(
        &self,
        sink: &mut Sink<'_>,
        choice: u32,
        _: Option<&Buf>,
        family: Family,
        signature: Piece<'_>,
    ) {
        if choice != 0 {
            return;
        }
        think(sink);
        sink.told.messages.open = Open::Signed;
        let tag = Piece::Text(family.tag_in(Family::Anthropic));
        let block = sink.told.messages.next;
        delta(sink, block, "signature_delta", "signature", &[tag, signature]);
    }

    fn redacted(&self, sink: &mut Sink<'_>, choice: u32, data: Piece<'_>) {
        if choice != 0 {
            return;
        }
        close(sink);
        let block = sink.told.messages.next;
        start_block(sink, block, |out| {
            out.extend(b"{\"type\":\"redacted_thinking\",\"data\":\"");
            data.write(out);
            out.extend(b"\"}");
        });
        stop_block(sink, block);
        sink.told.messages.next += 1;
    }

    fn refuse(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        if choice == 0 {
            sink.told.messages.refused = true;
            say_text(sink, text);
        }
    }

    fn tool(&self, sink: &mut Sink<'_>, choice: u32, index: u32, id: Piece<'_>, name: Piece<'_>) {
        if choice != 0 {
            return;
        }
        close(sink);
        let mut waiting = Waiting { call: index, id: Buf::new(), name: Buf::new() };
        write_call_id(id, &mut waiting.id);
        name.write(&mut waiting.name);
        sink.told.messages.waiting = Some(waiting);
    }

    fn args(&self, sink: &mut Sink<'_>, choice: u32, index: u32, fragment: Piece<'_>) {
        if choice != 0 {
            return;
        }
        if sink.told.messages.waiting.as_ref().is_some_and(|waiting| waiting.call == index) {
            begin_call(sink);
        }
        let calls = &mut sink.told.messages.calls;
        let Some(open) = calls.iter_mut().find(|open| open.call == index) else { return };
        if open.is_over() {
            return;
        }
        let blank = open.arguments.first().is_none();
        match fragment {
            Piece::Raw(raw) => open.arguments.read_raw(raw),
            Piece::Text(text) => open.arguments.read(text.as_bytes()),
        }
        let Some(first) = open.arguments.first() else { return };
        let begins = blank && first != b'{';
        open.wrapped |= begins;
        let (block, wrapped) = (open.block, open.wrapped);
        if begins {
            partial(sink, block, Piece::Raw(WRAP));
        }
        if wrapped {
            let mut inner = Buf::new();
            fragment.write(&mut inner);
            let inner = String::from_utf8_lossy(inner.as_slice());
            partial(sink, block, Piece::Text(&inner));
        } else {
            partial(sink, block, fragment);
        }
    }

    fn sign_call(
        &self,
        sink: &mut Sink<'_>,
        choice: u32,
        index: u32,
        family: Family,
        signature: Piece<'_>,
    ) {
        // A call that has begun can't be signed any more.
        let waits = |waiting: &Waiting| waiting.call == index;
        if choice != 0 || !sink.told.messages.waiting.as_ref().is_some_and(waits) {
            return;
        }
        let block = sink.told.messages.next;
        start_block(sink, block, |out| out.extend(THINKING));
        let tag = [Piece::Text(family.tag_in(Family::Anthropic)), Piece::Text(OF_CALL), signature];
        delta(sink, block, "signature_delta", "signature", &tag);
        stop_block(sink, block);
        sink.told.messages.next += 1;
        begin_call(sink);
    }

    fn annotate(&self, sink: &mut Sink<'_>, choice: u32, annotation: &[u8]) {
        // A citation belongs to a text; where none is open it has no place.
        if choice != 0 || sink.told.messages.open != Open::Text {
            return;
        }
        let Some(citation) = citation(annotation) else { return };
        let block = sink.told.messages.next;
        begin_event(sink, "content_block_delta");
        // Writing to a Buf can't fail.
        let _ = write!(sink.out, ",\"index\":{block},\"delta\":{{\"type\":\"citations_delta\",");
        let _ = write!(sink.out, "\"citation\":{citation}}}");
        end_event(sink);
    }

    fn image(&self, _: &mut Sink<'_>, _: u32, _: &str, _: Piece<'_>) {}

    /// Only noted by the sink: the reason goes out with the counts, which come later.
    fn stop(&self, _: &mut Sink<'_>, _: u32, _: Finish) {}

    fn finish(&self, sink: &mut Sink<'_>, _: bool) {
        close(sink);
        let calls = std::mem::take(&mut sink.told.messages.calls);
        calls.iter().for_each(|open| end_call(sink, open));
        begin_message(sink);
        let reason = stop_reason(sink.told.choice(0).finish, sink.told.messages.refused);
        begin_event(sink, "message_delta");
        // Writing to a Buf can't fail.
        let _ = write!(sink.out, ",\"delta\":{{\"stop_reason\":\"{reason}\",");
        sink.out.extend(b"\"stop_sequence\":null},\"usage\":");
        write_usage(sink.told.usage.unwrap_or_default(), sink.out);
        end_event(sink);
        begin_event(sink, "message_stop");
        end_event(sink);
    }

    fn whole(&self, sink: &mut Sink<'_>) {
        whole::write(sink);
    }

    fn error_body(&self, report: &ErrorReport<'_>) -> String {
        let text = &report.text;
        let mut message = text.message.to_owned();
        // Clients of this format know this case by its words.
        if text.code == Some("context_length_exceeded") && !message.contains(TOO_LONG) {
            message = format!("{TOO_LONG}: {message}");
        }
        let mut error =
            serde_json::json!({ "type": error_type(report.status), "message": message });
        for (name, value) in [("code", text.code), ("param", text.param)] {
            if let Some(value) = value {
                error[name] = value.into();
            }
        }
        if let Some(metadata) = report.metadata {
            error["metadata"] = metadata.clone();
        }
        serde_json::json!({ "type": "error", "error": error, "request_id": report.id }).to_string()
    }

    fn error_event(&self, report: &ErrorReport<'_>, _: &mut Told, out: &mut Buf) {
        out.extend(b"event: error\ndata: ");
        out.extend(self.error_body(report).as_bytes());
        out.extend(b"\n\n");
    }
}

/// Passes an event through under its name: the model's name replaced, the rest as it came.
pub fn pass(payload: &[u8], name: &[u8], model: Option<Span>, sink: &mut Sink<'_>) {
    sink.out.extend(b"event: ");
    // A name with a line end in it would be two lines.
    sink.out.extend(if name.iter().all(u8::is_ascii_graphic) { name } else { b"unknown" });
    sink.out.push(b'\n');
    chat::pass(payload, model, &[], sink);
}

/// The id of a call as its provider gave it, from what the client gives back.
pub fn call_id(id: &str) -> String {
    let coded = id.strip_prefix(CODED).and_then(|code| BASE64_URL_SAFE_NO_PAD.decode(code).ok());
    coded.and_then(|id| String::from_utf8(id).ok()).unwrap_or_else(|| id.to_owned())
}

/// The id of a call in the letters that this format allows: letters, digits, `_` and `-`.
pub fn allowed_call_id(id: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if id.bytes().all(allowed) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("{CODED}{}", BASE64_URL_SAFE_NO_PAD.encode(id)))
}

fn write_call_id(id: Piece<'_>, out: &mut Buf) {
    let mut raw = Buf::new();
    id.write(&mut raw);
    let id = unescaped(raw.as_slice());
    out.extend(allowed_call_id(&id).as_bytes());
}

/// The text of the inside of a JSON string.
fn unescaped(raw: &[u8]) -> String {
    let quoted = [b"\"", raw, b"\""].concat();
    let text = json::document(&quoted).ok().and_then(|value| json::text(&quoted, value));
    text.map(Cow::into_owned).unwrap_or_default()
}

/// `event: NAME`, and the data up to its first member.
fn begin_event(sink: &mut Sink<'_>, name: &str) {
    // Writing to a Buf can't fail.
    let _ = write!(sink.out, "event: {name}\ndata: {{\"type\":\"{name}\"");
}

fn end_event(sink: &mut Sink<'_>) {
    sink.out.extend(b"}\n\n");
    *sink.events += 1;
}

/// The head of the message, once, before anything else.
fn begin_message(sink: &mut Sink<'_>) {
    if std::mem::replace(&mut sink.told.choice(0).begun, true) {
        return;
    }
    begin_event(sink, "message_start");
    sink.out.extend(b",\"message\":");
    write_head(sink);
    sink.out.extend(b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
    write_usage(sink.told.usage.unwrap_or_default(), sink.out);
    sink.out.push(b'}');
    end_event(sink);
}

/// `{"id":…,"type":"message","role":"assistant","model":…`
fn write_head(sink: &mut Sink<'_>) {
    sink.out.extend(b"{\"id\":\"");
    if !sink.told.id.starts_with(ID.as_bytes()) {
        sink.out.extend(ID.as_bytes());
    }
    if sink.told.id.is_empty() {
        json::escape(sink.out, sink.id);
    } else {
        sink.out.extend(&sink.told.id);
    }
    sink.out.extend(b"\",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    json::write_string(sink.out, sink.shown);
}

/// By Anthropic's arithmetic: what was read from the cache or written to it stands beside the input.
fn write_usage(usage: Usage, out: &mut Buf) {
    let Usage { prompt, completion, cached, cache_write, reasoning } = usage;
    // Some vendors tell more cached tokens than tokens.
    let cached = cached.min(prompt);
    let cache_write = cache_write.min(prompt - cached);
    let input = prompt - cached - cache_write;
    // Writing to a Buf can't fail.
    let _ = write!(
        out,
        "{{\"input_tokens\":{input},\"cache_creation_input_tokens\":{cache_write},\
         \"cache_read_input_tokens\":{cached},\"output_tokens\":{completion}"
    );
    if reasoning > 0 {
        let _ = write!(out, ",\"output_tokens_details\":{{\"thinking_tokens\":{reasoning}}}");
    }
    out.push(b'}');
}

fn stop_reason(finish: Option<Finish>, refused: bool) -> &'static str {
    match finish {
        _ if refused => "refusal",
        None | Some(Finish::Stop) => "end_turn",
        Some(Finish::Length) => "max_tokens",
        Some(Finish::ToolCalls) => "tool_use",
        Some(Finish::ContentFilter) => "refusal",
    }
}

fn start_block(sink: &mut Sink<'_>, block: u32, write: impl FnOnce(&mut Buf)) {
    begin_message(sink);
    begin_event(sink, "content_block_start");
    // Writing to a Buf can't fail.
    let _ = write!(sink.out, ",\"index\":{block},\"content_block\":");
    write(sink.out);
    end_event(sink);
}

fn delta(sink: &mut Sink<'_>, block: u32, kind: &str, key: &str, pieces: &[Piece<'_>]) {
    begin_event(sink, "content_block_delta");
    // Writing to a Buf can't fail.
    let _ = write!(sink.out, ",\"index\":{block},\"delta\":{{\"type\":\"{kind}\",\"{key}\":\"");
    pieces.iter().for_each(|piece| piece.write(sink.out));
    sink.out.extend(b"\"}");
    end_event(sink);
}

fn stop_block(sink: &mut Sink<'_>, block: u32) {
    begin_event(sink, "content_block_stop");
    // Writing to a Buf can't fail.
    let _ = write!(sink.out, ",\"index\":{block}");
    end_event(sink);
}

/// Ends whatever block can be ended: the text or thought that is open, and calls that have all of their
/// arguments. A call that waits begins before.
fn close(sink: &mut Sink<'_>) {
    begin_call(sink);
    if std::mem::take(&mut sink.told.messages.open) != Open::None {
        let block = sink.told.messages.next;
        stop_block(sink, block);
        sink.told.messages.next += 1;
    }
    let mut at = 0;
    while at < sink.told.messages.calls.len() {
        if sink.told.messages.calls[at].is_over() {
            let open = sink.told.messages.calls.remove(at);
            end_call(sink, &open);
        } else {
            at += 1;
        }
    }
}

fn say_text(sink: &mut Sink<'_>, text: Piece<'_>) {
    if sink.told.messages.open != Open::Text {
        close(sink);
        let block = sink.told.messages.next;
        start_block(sink, block, |out| out.extend(b"{\"type\":\"text\",\"text\":\"\"}"));
        sink.told.messages.open = Open::Text;
    }
    let block = sink.told.messages.next;
    delta(sink, block, "text_delta", "text", &[text]);
}

/// Goes on with the open thought or begins one; a signed one is over.
fn think(sink: &mut Sink<'_>) {
    let fresh = std::mem::take(&mut sink.told.messages.fresh);
    if sink.told.messages.open == Open::Thinking && !fresh {
        return;
    }
    close(sink);
    let block = sink.told.messages.next;
    start_block(sink, block, |out| out.extend(THINKING));
    sink.told.messages.open = Open::Thinking;
}

/// Begins the block of the call that waits, if one does.
fn begin_call(sink: &mut Sink<'_>) {
    let Some(waiting) = sink.told.messages.waiting.take() else { return };
    let block = sink.told.messages.next;
    start_block(sink, block, |out| {
        out.extend(b"{\"type\":\"tool_use\",\"id\":\"");
        out.extend(waiting.id.as_slice());
        out.extend(b"\",\"name\":\"");
        out.extend(waiting.name.as_slice());
        out.extend(b"\",\"input\":{}}");
    });
    sink.told.messages.next += 1;
    let arguments = Balance::default();
    let open = OpenCall { call: waiting.call, block, arguments, wrapped: false };
    sink.told.messages.calls.push(open);
}

impl OpenCall {
    /// Whether it has all of its arguments; what follows has no place.
    fn is_over(&self) -> bool {
        !self.wrapped && self.arguments.is_closed()
    }
}

fn end_call(sink: &mut Sink<'_>, open: &OpenCall) {
    if open.wrapped {
        partial(sink, open.block, Piece::Raw(UNWRAP));
    }
    stop_block(sink, open.block);
}

fn partial(sink: &mut Sink<'_>, block: u32, fragment: Piece<'_>) {
    delta(sink, block, "input_json_delta", "partial_json", &[fragment]);
}

/// An address that the answer names, in the shape of a citation of a web search. What has none is left
/// out.
fn citation(annotation: &[u8]) -> Option<serde_json::Value> {
    let annotation: serde_json::Value = serde_json::from_slice(annotation).ok()?;
    let cited = &annotation["url_citation"];
    let url = cited["url"].as_str()?;
    Some(serde_json::json!({
        "type": "web_search_result_location", "cited_text": "", "encrypted_index": "",
        "title": cited["title"].as_str(), "url": url,
    }))
}

/// The type that goes with a status.
fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}

/// What ids of messages begin with.
const ID: &str = "msg_";
/// What a coded id of a call begins with.
const CODED: &str = "toolu_fb_";
/// What stands before the signature of a call, behind its family's tag.
pub const OF_CALL: &str = "call:";
/// A thinking block at its start.
const THINKING: &[u8] = b"{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}";
/// Arguments that are no JSON object break clients, so they are put into one in the way that Anthropic asks
/// of its clients; the insides of JSON strings.
const WRAP: &[u8] = br#"{\"INVALID_JSON\":\""#;
const UNWRAP: &[u8] = br#"\"}"#;
/// How this API says that the context window is too small.
const TOO_LONG: &str = "prompt is too long";

#[cfg(test)]
mod tests;
