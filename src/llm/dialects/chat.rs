//! OpenAI chat: `chat.completion.chunk` over server-sent events, `data: {json}` and a blank line each,
//! then `data: [DONE]`. No event names, no ids.

use std::io::Write as _;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::llm::dialects::{ErrorReport, Writer};
use crate::llm::event::{Finish, Usage};
use crate::llm::prompt::Family;
use crate::llm::sink::{Block, Call, Choice, Piece, Sink, Told};
use crate::wire::Span;
use crate::wire::json;

/// Writes chat.
pub struct Chat;

impl Writer for Chat {
    fn text(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        string(sink, choice, "content", text);
    }

    fn thought(&self, _: &mut Sink<'_>, _: u32) {}

    fn reason(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        string(sink, choice, "reasoning_content", text);
    }

    /// The whole thought with its signature, once it is there: clients give `thinking_blocks` back as they
    /// got them, and a block is good for nothing in parts.
    fn sign(
        &self,
        sink: &mut Sink<'_>,
        choice: u32,
        thought: Option<&Buf>,
        family: Family,
        signature: Piece<'_>,
    ) {
        let Some(thought) = thought else { return };
        open(sink, choice, false);
        sink.out.extend(b"{\"thinking_blocks\":[");
        thinking(thought, family, signature, sink.out);
        sink.out.extend(b"]}");
        close(sink, b"null");
    }

    fn redacted(&self, sink: &mut Sink<'_>, choice: u32, data: Piece<'_>) {
        open(sink, choice, false);
        sink.out.extend(b"{\"thinking_blocks\":[{\"type\":\"redacted_thinking\",\"data\":\"");
        data.write(sink.out);
        sink.out.extend(b"\"}]}");
        close(sink, b"null");
    }

    fn refuse(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>) {
        string(sink, choice, "refusal", text);
    }

    fn tool(&self, sink: &mut Sink<'_>, choice: u32, index: u32, id: Piece<'_>, name: Piece<'_>) {
        open(sink, choice, true);
        // Writing to a Buf can't fail.
        let _ = write!(sink.out, "{{\"tool_calls\":[{{\"index\":{index},\"id\":\"");
        id.write(sink.out);
        sink.out.extend(b"\",\"type\":\"function\",\"function\":{\"name\":\"");
        name.write(sink.out);
        sink.out.extend(b"\",\"arguments\":\"\"}}]}");
        close(sink, b"null");
    }

    fn args(&self, sink: &mut Sink<'_>, choice: u32, index: u32, fragment: Piece<'_>) {
        open(sink, choice, true);
        // Writing to a Buf can't fail.
        let _ = write!(
            sink.out,
            "{{\"tool_calls\":[{{\"index\":{index},\"function\":{{\"arguments\":\""
        );
        fragment.write(sink.out);
        sink.out.extend(b"\"}}]}");
        close(sink, b"null");
    }

    fn sign_call(
        &self,
        sink: &mut Sink<'_>,
        choice: u32,
        index: u32,
        family: Family,
        signature: Piece<'_>,
    ) {
        // Only one family signs calls, and this is where its own compatible API has it.
        if family != Family::Gemini {
            return;
        }
        open(sink, choice, true);
        // Clients expect a function in every fragment. Writing to a Buf can't fail.
        let _ = write!(
            sink.out,
            "{{\"tool_calls\":[{{\"index\":{index},{NO_ARGUMENTS},{CALL_SIGNATURE}"
        );
        signature.write(sink.out);
        sink.out.extend(b"\"}}}]}");
        close(sink, b"null");
    }

    fn annotate(&self, sink: &mut Sink<'_>, choice: u32, annotation: &[u8]) {
        open(sink, choice, false);
        sink.out.extend(b"{\"annotations\":[");
        sink.out.extend(annotation);
        sink.out.extend(b"]}");
        close(sink, b"null");
    }

    fn image(&self, sink: &mut Sink<'_>, choice: u32, mime: &str, data: Piece<'_>) {
        open(sink, choice, false);
        sink.out.extend(b"{\"images\":[");
        picture(mime, data, sink.out);
        sink.out.extend(b"]}");
        close(sink, b"null");
    }

    fn stop(&self, sink: &mut Sink<'_>, choice: u32, finish: Finish) {
        open(sink, choice, false);
        sink.out.extend(b"{}");
        let quoted = format!("\"{}\"", finish.name());
        close(sink, quoted.as_bytes());
    }

    fn finish(&self, sink: &mut Sink<'_>, include_usage: bool) {
        if let Some(usage) = sink.told.usage
            && include_usage
        {
            head(sink);
            sink.out.extend(b",\"choices\":[],\"usage\":");
            write_usage(usage, sink.out);
            sink.out.extend(b"}\n\n");
            *sink.events += 1;
        }
        done(sink);
    }

    fn whole(&self, sink: &mut Sink<'_>) {
        envelope(sink, "chat.completion");
        sink.out.extend(b",\"choices\":[");
        let choices = std::mem::take(&mut sink.told.choices);
        for (place, choice) in choices.iter().enumerate() {
            if place > 0 {
                sink.out.push(b',');
            }
            write_choice(choice, sink.out);
        }
        sink.out.push(b']');
        sink.told.choices = choices;
        if let Some(usage) = sink.told.usage {
            sink.out.extend(b",\"usage\":");
            write_usage(usage, sink.out);
        }
        sink.out.push(b'}');
    }

    fn error_body(&self, report: &ErrorReport<'_>) -> String {
        let text = &report.text;
        let mut error = serde_json::json!({
            "message": text.message, "type": text.kind, "param": text.param, "code": text.code,
        });
        if let Some(metadata) = report.metadata {
            error["metadata"] = metadata.clone();
        }
        serde_json::json!({ "error": error }).to_string()
    }

    fn error_event(&self, report: &ErrorReport<'_>, _: &mut Told, out: &mut Buf) {
        out.extend(b"data: ");
        out.extend(self.error_body(report).as_bytes());
        out.extend(b"\n\n");
    }
}

/// Passes a chunk through: the model's name replaced, repeated finish reasons made null, the rest as
/// it came.
pub fn pass(payload: &[u8], model: Option<Span>, repeated: &[Span], sink: &mut Sink<'_>) {
    sink.out.extend(b"data: ");
    let mut spans: SmallVec<[(Span, bool); 2]> =
        repeated.iter().map(|span| (*span, false)).collect();
    spans.extend(model.map(|span| (span, true)));
    spans.sort_by_key(|(span, _)| span.start);
    let mut at = 0;
    for (span, is_model) in spans {
        let range = std::ops::Range::from(span);
        extend_line(&payload[at..range.start], sink.out);
        if is_model {
            json::write_string(sink.out, sink.shown);
        } else {
            sink.out.extend(b"null");
        }
        at = range.end;
    }
    extend_line(&payload[at..], sink.out);
    sink.out.extend(b"\n\n");
    *sink.events += 1;
}

/// A payload of several data lines is joined by line ends; between JSON tokens a blank says the same.
pub(super) fn extend_line(bytes: &[u8], out: &mut Buf) {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        out.extend(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + 1..];
    }
    out.extend(rest);
}

/// A last chunk for a choice whose provider gave no finish reason. `id` is raw JSON or empty.
pub fn finish(id: &[u8], created: u64, index: u32, finish: Finish, sink: &mut Sink<'_>) {
    let out = &mut *sink.out;
    out.extend(b"data: {\"id\":");
    out.extend(if id.is_empty() { b"\"chatcmpl-firstbyte\"" } else { id });
    // Writing to a Buf can't fail.
    let _ = write!(out, ",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":");
    json::write_string(out, sink.shown);
    let _ = write!(
        out,
        ",\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":\"{}\"}}]}}",
        finish.name()
    );
    out.extend(b"\n\n");
    *sink.events += 1;
}

/// The terminator.
pub fn done(sink: &mut Sink<'_>) {
    sink.out.extend(b"data: [DONE]\n\n");
}

/// A whole answer: the model's name replaced, the rest as it came.
pub fn whole(body: &[u8], model: Option<Span>, sink: &mut Sink<'_>) {
    sink.out.reserve(body.len() + sink.shown.len() + 2);
    match model {
        None => sink.out.extend(body),
        Some(span) => {
            let range = std::ops::Range::from(span);
            sink.out.extend(&body[..range.start]);
            json::write_string(sink.out, sink.shown);
            sink.out.extend(&body[range.end..]);
        }
    }
}

fn string(sink: &mut Sink<'_>, choice: u32, key: &str, text: Piece<'_>) {
    open(sink, choice, false);
    sink.out.extend(b"{\"");
    sink.out.extend(key.as_bytes());
    sink.out.extend(b"\":\"");
    text.write(sink.out);
    sink.out.extend(b"\"}");
    close(sink, b"null");
}

/// The chunk up to its choices.
fn head(sink: &mut Sink<'_>) {
    sink.out.extend(b"data: ");
    envelope(sink, "chat.completion.chunk");
}

fn envelope(sink: &mut Sink<'_>, object: &str) {
    sink.out.extend(b"{\"id\":\"");
    if sink.told.id.is_empty() {
        sink.out.extend(b"chatcmpl-");
        json::escape(sink.out, sink.id);
    } else {
        sink.out.extend(&sink.told.id);
    }
    let created = sink.created();
    // Writing to a Buf can't fail.
    let _ = write!(sink.out, "\",\"object\":\"{object}\",\"created\":{created},\"model\":");
    json::write_string(sink.out, sink.shown);
}

/// A chunk of one choice, up to its delta; the role chunk before the first of them.
fn open(sink: &mut Sink<'_>, choice: u32, tools: bool) {
    if !std::mem::replace(&mut sink.told.choice(choice).begun, true) {
        let content: &[u8] = if tools { b"null" } else { b"\"\"" };
        head(sink);
        // Writing to a Buf can't fail.
        let _ = write!(
            sink.out,
            ",\"choices\":[{{\"index\":{choice},\"delta\":{{\"role\":\"assistant\",\"content\":"
        );
        sink.out.extend(content);
        sink.out.extend(b"}");
        close(sink, b"null");
    }
    head(sink);
    // Writing to a Buf can't fail.
    let _ = write!(sink.out, ",\"choices\":[{{\"index\":{choice},\"delta\":");
}

fn close(sink: &mut Sink<'_>, finish: &[u8]) {
    sink.out.extend(b",\"logprobs\":null,\"finish_reason\":");
    sink.out.extend(finish);
    sink.out.extend(b"}]}\n\n");
    *sink.events += 1;
}

/// One choice of a whole answer.
fn write_choice(choice: &Choice, out: &mut Buf) {
    // Writing to a Buf can't fail.
    let _ = write!(
        out,
        "{{\"index\":{},\"message\":{{\"role\":\"assistant\",\"content\":",
        choice.index
    );
    joined(choice, out, |block| match block {
        Block::Text { text, .. } => Some(text),
        _ => None,
    });
    out.extend(b",\"refusal\":");
    joined(choice, out, |block| match block {
        Block::Refusal { text } => Some(text),
        _ => None,
    });
    if choice.blocks.iter().any(|block| reason_of(block).is_some_and(|text| !text.is_empty())) {
        out.extend(b",\"reasoning_content\":");
        joined(choice, out, reason_of);
    }
    let annotations = choice.blocks.iter().flat_map(|block| match block {
        Block::Text { annotations, .. } => annotations.as_slice(),
        _ => &[],
    });
    out.extend(b",\"annotations\":[");
    separated(annotations, out, |annotation, out| out.extend(annotation));
    out.push(b']');
    write_lists(choice, out);
    let finish = choice.finish.unwrap_or(Finish::Stop).name();
    let _ = write!(out, "}},\"logprobs\":null,\"finish_reason\":\"{finish}\"}}");
}

/// What only some answers have: signed thoughts, images, calls.
fn write_lists(choice: &Choice, out: &mut Buf) {
    let is_thought = |block: &&Block| {
        matches!(block, Block::Redacted { .. } | Block::Reason { signature: Some(_), .. })
    };
    let thoughts = choice.blocks.iter().filter(is_thought);
    list(b",\"thinking_blocks\":[", thoughts, out, |block, out| match block {
        Block::Reason { text, signature: Some((family, signature)) } => {
            thinking(text, *family, Piece::Raw(signature.as_slice()), out);
        }
        Block::Redacted { data } => {
            out.extend(b"{\"type\":\"redacted_thinking\",\"data\":\"");
            out.extend(data.as_slice());
            out.extend(b"\"}");
        }
        _ => {}
    });
    let images = choice.blocks.iter().filter_map(|block| match block {
        Block::Image { mime, data } => Some((mime, data)),
        _ => None,
    });
    list(b",\"images\":[", images, out, |(mime, data), out| {
        picture(mime, Piece::Raw(data.as_slice()), out);
    });
    let calls = choice.blocks.iter().filter_map(|block| match block {
        Block::Call(call) => Some(call),
        _ => None,
    });
    list(b",\"tool_calls\":[", calls, out, write_call);
}

fn write_call(call: &Call, out: &mut Buf) {
    out.extend(b"{\"id\":\"");
    out.extend(call.id.as_slice());
    out.extend(b"\",\"type\":\"function\",\"function\":{\"name\":\"");
    out.extend(call.name.as_slice());
    out.extend(b"\",\"arguments\":\"");
    let arguments = call.arguments.as_slice();
    out.extend(if arguments.is_empty() { b"{}" } else { arguments });
    out.extend(b"\"}");
    if let Some((Family::Gemini, signature)) = &call.signature {
        out.push(b',');
        out.extend(CALL_SIGNATURE.as_bytes());
        out.extend(signature.as_slice());
        out.extend(b"\"}}");
    }
    out.push(b'}');
}

/// A signed thought. One of another family than the format's own carries its name.
fn thinking(text: &Buf, family: Family, signature: Piece<'_>, out: &mut Buf) {
    out.extend(b"{\"type\":\"thinking\",\"thinking\":\"");
    out.extend(text.as_slice());
    out.extend(b"\",\"signature\":\"");
    out.extend(family.tag_in(Family::Anthropic).as_bytes());
    signature.write(out);
    out.extend(b"\"}");
}

/// An image, in the shape in which clients send them.
fn picture(mime: &str, data: Piece<'_>, out: &mut Buf) {
    out.extend(b"{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:");
    json::escape(out, mime);
    out.extend(b";base64,");
    data.write(out);
    out.extend(b"\"}}");
}

fn reason_of(block: &Block) -> Option<&Buf> {
    match block {
        Block::Reason { text, .. } => Some(text),
        _ => None,
    }
}

/// The texts of some blocks as one string; null if there are none.
fn joined(choice: &Choice, out: &mut Buf, of: impl Fn(&Block) -> Option<&Buf>) {
    let mut texts = choice.blocks.iter().filter_map(of).filter(|text| !text.is_empty()).peekable();
    if texts.peek().is_none() {
        out.extend(b"null");
        return;
    }
    out.push(b'"');
    texts.for_each(|text| out.extend(text.as_slice()));
    out.push(b'"');
}

/// A member that is a list, if it has items.
fn list<T>(
    name: &[u8],
    items: impl Iterator<Item = T>,
    out: &mut Buf,
    write: impl Fn(T, &mut Buf),
) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        out.extend(name);
        separated(items, out, write);
        out.push(b']');
    }
}

fn separated<T>(items: impl Iterator<Item = T>, out: &mut Buf, write: impl Fn(T, &mut Buf)) {
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(item, out);
    }
}

fn write_usage(usage: Usage, out: &mut Buf) {
    // Writing to a Buf can't fail.
    let _ = write!(
        out,
        "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\
         \"prompt_tokens_details\":{{\"cached_tokens\":{}",
        usage.prompt,
        usage.completion,
        usage.prompt.saturating_add(usage.completion),
        usage.cached,
    );
    if usage.cache_write > 0 {
        let _ = write!(out, ",\"cache_write_tokens\":{}", usage.cache_write);
    }
    let _ = write!(
        out,
        "}},\"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}",
        usage.reasoning
    );
}

/// A function of a fragment that has something else to say.
const NO_ARGUMENTS: &str = "\"function\":{\"arguments\":\"\"}";
/// Where a call has its signature.
const CALL_SIGNATURE: &str = "\"extra_content\":{\"google\":{\"thought_signature\":\"";
