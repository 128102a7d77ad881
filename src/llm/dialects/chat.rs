//! OpenAI chat: `chat.completion.chunk` over server-sent events, `data: {json}` and a blank line each,
//! then `data: [DONE]`. No event names, no ids.

use std::io::Write as _;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::llm::event::Finish;
use crate::llm::sink::Sink;
use crate::wire::Span;
use crate::wire::json;

/// Passes a chunk through: the model's name replaced, repeated finish reasons made null, the rest as
/// it came.
pub fn pass(payload: &[u8], model: Option<Span>, repeated: &[Span], sink: &mut Sink<'_>) {
    sink.out.reserve(payload.len() + sink.shown.len() + 16);
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
fn extend_line(bytes: &[u8], out: &mut Buf) {
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
