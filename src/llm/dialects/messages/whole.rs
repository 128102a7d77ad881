//! A whole message: what was gathered of the first choice, block by block.

use crate::base::buf::Buf;
use crate::llm::dialects::messages::{
    OF_CALL, citation, stop_reason, unescaped, write_call_id, write_head, write_usage,
};
use crate::llm::prompt::Family;
use crate::llm::sink::{Block, Call, Piece, Sink};

/// Writes it.
pub(super) fn write(sink: &mut Sink<'_>) {
    write_head(sink);
    sink.out.extend(b",\"content\":[");
    let choice = std::mem::take(sink.told.choice(0));
    let mut first = true;
    for (at, block) in choice.blocks.iter().enumerate() {
        write_block(block, &choice.blocks[at + 1..], &mut first, sink.out);
    }
    let refused = choice.blocks.iter().any(|block| matches!(block, Block::Refusal { .. }));
    sink.out.extend(b"],\"stop_reason\":\"");
    sink.out.extend(stop_reason(choice.finish, refused).as_bytes());
    sink.out.extend(b"\",\"stop_sequence\":null,\"usage\":");
    write_usage(sink.told.usage.unwrap_or_default(), sink.out);
    sink.out.push(b'}');
    *sink.told.choice(0) = choice;
}

fn write_block(block: &Block, rest: &[Block], first: &mut bool, out: &mut Buf) {
    match block {
        Block::Text { text, annotations } => {
            let later = rest.iter().map_while(later_annotations).flatten();
            write_text(text, annotations.iter().chain(later), first, out);
        }
        Block::Refusal { text } => write_text(text, [], first, out),
        Block::Reason { text, signature } => {
            if text.is_empty() && signature.is_none() {
                return;
            }
            let signature = signature.as_ref().map(|(family, text)| (*family, "", text));
            write_thought(text.as_slice(), signature, first, out);
        }
        Block::Redacted { data } => {
            separate(first, out);
            out.extend(b"{\"type\":\"redacted_thinking\",\"data\":\"");
            out.extend(data.as_slice());
            out.extend(b"\"}");
        }
        Block::Call(call) => write_call(call, first, out),
        Block::Image { .. } => {}
    }
}

/// Annotations that came when their text was over; nothing at the next text.
fn later_annotations(block: &Block) -> Option<&[Vec<u8>]> {
    match block {
        Block::Text { text, annotations } => text.is_empty().then_some(annotations),
        _ => Some(&[]),
    }
}

fn separate(first: &mut bool, out: &mut Buf) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

fn write_text<'a>(
    text: &Buf,
    annotations: impl IntoIterator<Item = &'a Vec<u8>>,
    first: &mut bool,
    out: &mut Buf,
) {
    if text.is_empty() {
        return;
    }
    separate(first, out);
    out.extend(b"{\"type\":\"text\",\"text\":\"");
    out.extend(text.as_slice());
    out.push(b'"');
    let citations: Vec<_> = annotations.into_iter().filter_map(|raw| citation(raw)).collect();
    if !citations.is_empty() {
        out.extend(b",\"citations\":");
        out.extend(serde_json::Value::Array(citations).to_string().as_bytes());
    }
    out.push(b'}');
}

/// A thought with its signature: whose it is, what it is of, and the bytes.
fn write_thought(
    text: &[u8],
    signature: Option<(Family, &str, &Buf)>,
    first: &mut bool,
    out: &mut Buf,
) {
    separate(first, out);
    out.extend(b"{\"type\":\"thinking\",\"thinking\":\"");
    out.extend(text);
    out.extend(b"\",\"signature\":\"");
    if let Some((family, of, signature)) = signature {
        out.extend(family.tag_in(Family::Anthropic).as_bytes());
        out.extend(of.as_bytes());
        out.extend(signature.as_slice());
    }
    out.extend(b"\"}");
}

fn write_call(call: &Call, first: &mut bool, out: &mut Buf) {
    if let Some((family, signature)) = &call.signature {
        write_thought(b"", Some((*family, OF_CALL, signature)), first, out);
    }
    separate(first, out);
    out.extend(b"{\"type\":\"tool_use\",\"id\":\"");
    write_call_id(Piece::Raw(call.id.as_slice()), out);
    out.extend(b"\",\"name\":\"");
    out.extend(call.name.as_slice());
    out.extend(b"\",\"input\":");
    out.extend(input(&unescaped(call.arguments.as_slice())).as_bytes());
    out.push(b'}');
}

/// Arguments as the object that they must be. Text that is none, as of an answer that was cut by its
/// limit, is put into one in the way that Anthropic asks of its clients.
fn input(arguments: &str) -> String {
    let is_object = |text: &str| serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok();
    if arguments.trim().is_empty() {
        return String::from("{}");
    }
    if is_object(arguments) {
        return arguments.to_owned();
    }
    // Some models put the object into a string.
    match serde_json::from_str::<String>(arguments) {
        Ok(inner) if is_object(&inner) => inner,
        _ => serde_json::json!({ "INVALID_JSON": arguments }).to_string(),
    }
}
