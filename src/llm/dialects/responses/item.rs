//! One item of an answer: a block of what was told, in this API's words, empty at its beginning and whole at
//! its end.

use std::io::Write as _;

use crate::base::buf::Buf;
use crate::llm::prompt::Family;
use crate::llm::sink::{Block, Call, Choice};
use crate::wire::json::{self, Kind};

use super::{CALL_TAG, REDACTED_TAG};

/// What an item tells of its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of {
    /// The block itself.
    Block,
    /// A call's signature alone.
    CallSignature,
}

/// One item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) of: Of,
    /// Which block of the choice.
    pub(super) block: usize,
    /// Its end was not told yet.
    pub(super) open: bool,
    /// The beginning of its text was told.
    pub(super) part: bool,
}

/// The words for a kind of text and for its events.
#[derive(Clone, Copy)]
pub(super) struct Words {
    pub(super) index: &'static str,
    pub(super) part_added: &'static str,
    pub(super) part_done: &'static str,
    pub(super) text_done: &'static str,
    /// The member that holds the text.
    pub(super) key: &'static str,
    pub(super) has_logprobs: bool,
    kind: &'static str,
}

const TEXT: Words = Words {
    index: "content_index",
    part_added: "response.content_part.added",
    part_done: "response.content_part.done",
    text_done: "response.output_text.done",
    key: "text",
    has_logprobs: true,
    kind: "output_text",
};

const REFUSAL: Words = Words {
    text_done: "response.refusal.done",
    key: "refusal",
    has_logprobs: false,
    kind: "refusal",
    ..TEXT
};

const SUMMARY: Words = Words {
    index: "summary_index",
    part_added: "response.reasoning_summary_part.added",
    part_done: "response.reasoning_summary_part.done",
    text_done: "response.reasoning_summary_text.done",
    key: "text",
    has_logprobs: false,
    kind: "summary_text",
};

impl Words {
    /// A part with this text, the inside of a JSON string.
    pub(super) fn write_part(&self, text: &[u8], annotations: &[Vec<u8>], out: &mut Buf) {
        // Writing to a Buf can't fail.
        let _ = write!(out, "{{\"type\":\"{}\",\"{}\":\"", self.kind, self.key);
        out.extend(text);
        out.push(b'"');
        if self.has_logprobs {
            out.extend(b",\"annotations\":[");
            for (place, annotation) in annotations.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                flat(annotation, out);
            }
            out.extend(b"],\"logprobs\":[]");
        }
        out.push(b'}');
    }
}

impl Item {
    fn told<'c>(&self, choice: &'c Choice) -> &'c Block {
        &choice.blocks[self.block]
    }

    fn call<'c>(&self, choice: &'c Choice) -> Option<&'c Call> {
        match self.told(choice) {
            Block::Call(call) => Some(call),
            Block::Text { .. }
            | Block::Reason { .. }
            | Block::Redacted { .. }
            | Block::Refusal { .. }
            | Block::Image { .. } => None,
        }
    }

    /// Whether it is a call itself.
    pub(super) fn is_call(&self, choice: &Choice) -> bool {
        self.of == Of::Block && self.call(choice).is_some()
    }

    /// Whether it is a message.
    pub(super) fn is_message(&self, choice: &Choice) -> bool {
        matches!(self.told(choice), Block::Text { .. } | Block::Refusal { .. })
    }

    /// Whether nothing can be missing of it: only calls are told side by side.
    pub(super) fn is_whole(&self, choice: &Choice) -> bool {
        let Some(call) = self.call(choice).filter(|_| self.of == Of::Block) else { return true };
        let quoted = [b"\"", call.arguments.as_slice(), b"\""].concat();
        let text = json::document(&quoted).ok().and_then(|value| json::text(&quoted, value));
        text.and_then(|text| json::document(text.as_bytes()).ok().map(|value| value.kind))
            == Some(Kind::Object)
    }

    /// The words for its text, if it is one.
    pub(super) fn words(&self, choice: &Choice) -> Option<Words> {
        match self.told(choice) {
            Block::Text { .. } => Some(TEXT),
            Block::Refusal { .. } => Some(REFUSAL),
            Block::Reason { .. } => Some(SUMMARY),
            Block::Redacted { .. } | Block::Call(_) | Block::Image { .. } => None,
        }
    }

    /// Its text so far.
    pub(super) fn text<'c>(&self, choice: &'c Choice) -> &'c [u8] {
        match self.told(choice) {
            Block::Text { text, .. } | Block::Refusal { text } | Block::Reason { text, .. } => {
                text.as_slice()
            }
            Block::Redacted { .. } | Block::Call(_) | Block::Image { .. } => b"",
        }
    }

    /// Its annotations so far.
    pub(super) fn annotations<'c>(&self, choice: &'c Choice) -> &'c [Vec<u8>] {
        match self.told(choice) {
            Block::Text { annotations, .. } => annotations,
            Block::Refusal { .. }
            | Block::Reason { .. }
            | Block::Redacted { .. }
            | Block::Call(_)
            | Block::Image { .. } => &[],
        }
    }

    /// The members of a call that its last event has.
    pub(super) fn write_call(&self, choice: &Choice, out: &mut Buf) {
        let Some(call) = self.call(choice) else { return };
        out.extend(b",\"name\":\"");
        out.extend(call.name.as_slice());
        out.extend(b"\",\"arguments\":\"");
        out.extend(arguments(call));
        out.push(b'"');
    }

    /// The item at its beginning.
    pub(super) fn write_empty(&self, choice: &Choice, seed: &[u8], at: usize, out: &mut Buf) {
        self.head(choice, seed, at, out);
        match (self.of, self.told(choice)) {
            (Of::CallSignature, _) | (_, Block::Reason { .. } | Block::Redacted { .. }) => {
                out.extend(b",\"summary\":[]");
            }
            (_, Block::Text { .. } | Block::Refusal { .. }) => {
                out.extend(b",\"status\":\"in_progress\",\"role\":\"assistant\",\"content\":[]");
            }
            (_, Block::Call(call)) => {
                out.extend(b",\"status\":\"in_progress\"");
                names(call, out);
                out.extend(b",\"arguments\":\"\"");
            }
            (_, Block::Image { .. }) => out.extend(b",\"status\":\"in_progress\",\"result\":null"),
        }
        out.push(b'}');
    }

    /// The item as a whole.
    pub(super) fn write(
        &self,
        choice: &Choice,
        seed: &[u8],
        at: usize,
        status: &str,
        out: &mut Buf,
    ) {
        self.head(choice, seed, at, out);
        match (self.of, self.told(choice)) {
            (Of::CallSignature, Block::Call(call)) => {
                out.extend(b",\"summary\":[]");
                if let Some((family, signature)) = &call.signature {
                    encrypted([CALL_TAG, family.tag_in(Family::Openai)], signature, out);
                    // The call's id, inside of the string.
                    out.truncate(out.len() - 1);
                    out.push(b':');
                    out.extend(call.id.as_slice());
                    out.push(b'"');
                }
            }
            (_, Block::Reason { signature, .. }) => {
                out.extend(b",\"summary\":[");
                if !self.text(choice).is_empty() {
                    SUMMARY.write_part(self.text(choice), &[], out);
                }
                out.push(b']');
                if let Some((family, signature)) = signature {
                    encrypted(["", family.tag_in(Family::Openai)], signature, out);
                }
            }
            (_, Block::Redacted { data }) => {
                out.extend(b",\"summary\":[]");
                encrypted([REDACTED_TAG, ""], data, out);
            }
            (_, Block::Text { .. } | Block::Refusal { .. }) => {
                // Writing to a Buf can't fail.
                let _ =
                    write!(out, ",\"status\":\"{status}\",\"role\":\"assistant\",\"content\":[");
                if let Some(words) = self.words(choice) {
                    words.write_part(self.text(choice), self.annotations(choice), out);
                }
                out.push(b']');
            }
            (_, Block::Call(call)) => {
                let _ = write!(out, ",\"status\":\"{status}\"");
                names(call, out);
                out.extend(b",\"arguments\":\"");
                out.extend(arguments(call));
                out.push(b'"');
            }
            (_, Block::Image { mime, data }) => {
                let format = mime.strip_prefix("image/").unwrap_or("png");
                out.extend(b",\"status\":\"completed\",\"output_format\":");
                json::write_string(out, format);
                out.extend(b",\"result\":\"");
                out.extend(data.as_slice());
                out.push(b'"');
            }
        }
        out.push(b'}');
    }

    fn head(&self, choice: &Choice, seed: &[u8], at: usize, out: &mut Buf) {
        out.extend(b"{\"id\":\"");
        write_id(self, choice, seed, at, out);
        let kind = match (self.of, self.told(choice)) {
            (Of::CallSignature, _) | (_, Block::Reason { .. } | Block::Redacted { .. }) => {
                "reasoning"
            }
            (_, Block::Text { .. } | Block::Refusal { .. }) => "message",
            (_, Block::Call(_)) => "function_call",
            (_, Block::Image { .. }) => "image_generation_call",
        };
        // Writing to a Buf can't fail.
        let _ = write!(out, "\",\"type\":\"{kind}\"");
    }
}

/// An item's id: the prefix of its kind, what is the answer's own, its place.
pub(super) fn write_id(item: &Item, choice: &Choice, seed: &[u8], at: usize, out: &mut Buf) {
    let prefix: &[u8] = match (item.of, item.told(choice)) {
        (Of::CallSignature, _) | (_, Block::Reason { .. } | Block::Redacted { .. }) => b"rs_",
        (_, Block::Text { .. } | Block::Refusal { .. }) => b"msg_",
        (_, Block::Call(_)) => b"fc_",
        (_, Block::Image { .. }) => b"ig_",
    };
    out.extend(prefix);
    out.extend(seed);
    // Writing to a Buf can't fail.
    let _ = write!(out, "_{at}");
}

fn names(call: &Call, out: &mut Buf) {
    out.extend(b",\"call_id\":\"");
    out.extend(call.id.as_slice());
    out.extend(b"\",\"name\":\"");
    out.extend(call.name.as_slice());
    out.push(b'"');
}

/// They end as a JSON object.
fn arguments(call: &Call) -> &[u8] {
    let arguments = call.arguments.as_slice();
    if arguments.is_empty() { b"{}" } else { arguments }
}

fn encrypted(tags: [&str; 2], content: &Buf, out: &mut Buf) {
    out.extend(b",\"encrypted_content\":\"");
    tags.iter().for_each(|tag| out.extend(tag.as_bytes()));
    out.extend(content.as_slice());
    out.push(b'"');
}

/// An annotation of chat's shape in this API's: its fields stand at the top, and all of them are required.
pub(super) fn flat(annotation: &[u8], out: &mut Buf) {
    let parsed = json::document(annotation).ok();
    let inner = parsed.and_then(|value| json::get(annotation, value, "url_citation"));
    let Some(inner) = inner.filter(|inner| inner.kind == Kind::Object) else {
        out.extend(annotation);
        return;
    };
    out.extend(b"{\"type\":\"url_citation\"");
    for (name, missing) in
        [("url", "\"\""), ("title", "\"\""), ("start_index", "0"), ("end_index", "0")]
    {
        let value = json::get(annotation, inner, name).filter(|value| value.kind != Kind::Null);
        let raw = value.map_or(missing.as_bytes(), |value| value.raw(annotation));
        // Writing to a Buf can't fail.
        let _ = write!(out, ",\"{name}\":");
        out.extend(raw);
    }
    out.push(b'}');
}
