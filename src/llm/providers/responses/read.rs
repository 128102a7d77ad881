//! Pieces of events and items: which strand an event is of, the text of a part, counts, citations. It keeps
//! nothing between calls.

use crate::base::buf::Buf;
use crate::llm::event::Usage;
use crate::llm::sink::{Piece, Sink};
use crate::wire::json::{self, Kind, Value};

use super::told::Strand;

/// The strand that an event tells of, and whether it has the whole part.
pub fn strand_of(kind: &[u8]) -> Option<(Strand, bool)> {
    Some(match kind.strip_prefix(b"response.")? {
        b"output_text.delta" => (Strand::Text, false),
        b"output_text.done" => (Strand::Text, true),
        b"refusal.delta" => (Strand::Refusal, false),
        b"refusal.done" => (Strand::Refusal, true),
        b"reasoning_summary_text.delta" => (Strand::Summary, false),
        b"reasoning_summary_text.done" => (Strand::Summary, true),
        b"reasoning_text.delta" => (Strand::Thought, false),
        b"reasoning_text.done" => (Strand::Thought, true),
        b"function_call_arguments.delta" | b"custom_tool_call_input.delta" => {
            (Strand::Arguments, false)
        }
        b"function_call_arguments.done" | b"custom_tool_call_input.done" => {
            (Strand::Arguments, true)
        }
        _ => return None,
    })
}

/// The raw text of a whole part, if it is of this strand.
pub fn text_of(bytes: &[u8], part: Value, strand: Strand) -> Option<&[u8]> {
    let (kinds, name): (&[&[u8]], _) = match strand {
        Strand::Text => (&[b"output_text", b"text"], "text"),
        Strand::Refusal => (&[b"refusal"], "refusal"),
        Strand::Summary => (&[b"summary_text"], "text"),
        Strand::Thought => (&[b"reasoning_text", b"text"], "text"),
        Strand::Arguments => return None,
    };
    kinds.contains(&string(bytes, part, "type")).then(|| string(bytes, part, name))
}

/// A member's raw string; empty if it is none.
pub fn string<'b>(bytes: &'b [u8], object: Value, name: &str) -> &'b [u8] {
    let value = json::get(bytes, object, name);
    value.and_then(|value| json::raw_string(bytes, value)).unwrap_or_default()
}

/// Whether a string holds a whole JSON value.
pub fn is_json(bytes: &[u8], string: Value) -> bool {
    string.kind == Kind::Object
        || json::text(bytes, string).is_some_and(|text| json::document(text.as_bytes()).is_ok())
}

/// Id and time of the answer.
pub fn begin(bytes: &[u8], response: Value, sink: &mut Sink<'_>) {
    let id = string(bytes, response, "id");
    let created = json::get(bytes, response, "created_at");
    let created = created.and_then(|created| json::as_f64(bytes, created));
    // A longer id is not one; it would go out with every chunk.
    let id = (id.len() <= ID_MAX).then_some(Piece::Raw(id));
    sink.start(id, created.map(|seconds| seconds as u64));
}

/// Tells a citation of the web in the shape of chat, where all of its fields are required. Says whether
/// it was one.
pub fn annotate(bytes: &[u8], note: Value, sink: &mut Sink<'_>) -> bool {
    // Flat here; some vendors nest it as chat does.
    let note = match json::get(bytes, note, "url_citation") {
        Some(inner) if inner.kind == Kind::Object => inner,
        _ if string(bytes, note, "type") == b"url_citation" => note,
        _ => return false,
    };
    let url = string(bytes, note, "url");
    if url.is_empty() {
        return false;
    }
    let number = |name: &str| {
        json::get(bytes, note, name).and_then(|value| json::as_u64(bytes, value)).unwrap_or(0)
    };
    let mut out = Buf::new();
    let quoted = |raw: &[u8]| [b"\"", raw, b"\""].concat();
    let mut json = json::Writer::new(&mut out);
    json.begin_object().key("type").string("url_citation").key("url_citation");
    json.begin_object().key("start_index").u64(number("start_index"));
    json.key("end_index").u64(number("end_index"));
    json.key("title").raw(&quoted(string(bytes, note, "title"))).key("url").raw(&quoted(url));
    json.end_object().end_object();
    sink.annotate(0, out.as_slice());
    true
}

/// The counts of a usage object.
pub fn usage_of(bytes: &[u8], usage: Value) -> Option<Usage> {
    if usage.kind != Kind::Object {
        return None;
    }
    let number = |path: &[&str]| {
        let value = json::get_path(bytes, usage, path)?;
        // Sums of two can't overflow.
        Some(json::as_u64(bytes, value)?.min(COUNT_MAX))
    };
    Some(Usage {
        prompt: number(&["input_tokens"]).unwrap_or(0),
        completion: number(&["output_tokens"]).unwrap_or(0),
        cached: number(&["input_tokens_details", "cached_tokens"]).unwrap_or(0),
        cache_write: number(&["input_tokens_details", "cache_write_tokens"]).unwrap_or(0),
        reasoning: number(&["output_tokens_details", "reasoning_tokens"]).unwrap_or(0),
    })
}

/// OpenAI's ids have 55 bytes.
const ID_MAX: usize = 128;
/// Counts past this are nonsense.
const COUNT_MAX: u64 = 1 << 53;
