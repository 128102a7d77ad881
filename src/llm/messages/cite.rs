//! Citations of the web, as OpenAI's `url_citation`: a block's citations hold for all of its text, so
//! they are told when the block ends and its extent is known. Citations of the client's own documents
//! have no address, and OpenAI's chat format no place for them; they are left out.

use crate::base::buf::Buf;
use crate::llm::sink::Sink;
use crate::wire::json::{self, Value, Writer};

/// What waits for the end of its block.
#[derive(Default)]
pub struct Citations {
    /// Characters of text, so far and where the block began.
    at: u64,
    from: u64,
    /// Each one's address and title.
    waiting: Vec<(String, String)>,
}

impl Citations {
    /// Text of the block: the inside of a JSON string.
    pub fn text(&mut self, raw: &[u8]) {
        self.at += characters(raw);
    }

    /// One citation.
    pub fn read(&mut self, bytes: &[u8], citation: Value) {
        let string = |name: &str| {
            let value = json::get(bytes, citation, name)?;
            json::text(bytes, value).filter(|text| text.len() <= FIELD_MAX)
        };
        let address = string("url").or_else(|| string("source"));
        let Some(address) = address.filter(|url| url.starts_with("http")) else { return };
        let title = string("title").unwrap_or_default();
        if self.waiting.len() < WAITING_MAX && !self.waiting.iter().any(|(url, _)| *url == address)
        {
            self.waiting.push((address.into_owned(), title.into_owned()));
        }
    }

    /// The block is over. Says whether anything was told.
    pub fn tell(&mut self, sink: &mut Sink<'_>) -> bool {
        let from = std::mem::replace(&mut self.from, self.at);
        if self.waiting.is_empty() {
            return false;
        }
        for (url, title) in std::mem::take(&mut self.waiting) {
            let mut out = Buf::new();
            let mut json = Writer::new(&mut out);
            json.begin_object().key("type").string("url_citation").key("url_citation");
            json.begin_object().key("start_index").u64(from).key("end_index").u64(self.at);
            json.key("title").string(&title).key("url").string(&url);
            json.end_object().end_object();
            sink.annotate(0, out.as_slice());
        }
        true
    }
}

/// How many characters a raw JSON string has.
fn characters(raw: &[u8]) -> u64 {
    let mut count = raw.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        // An escape is one character; the first half of a pair is none.
        let len = if rest.get(at + 1) == Some(&b'u') { 6 } else { 2 };
        let half = len == 6
            && matches!(rest.get(at + 2), Some(b'd' | b'D'))
            && matches!(rest.get(at + 3), Some(b'8' | b'9' | b'a' | b'b' | b'A' | b'B'));
        let end = (at + len).min(rest.len());
        count = count.saturating_sub(end - at - usize::from(!half));
        rest = &rest[end..];
    }
    count as u64
}

/// Citations of one block that are kept.
const WAITING_MAX: usize = 64;
/// A longer address or title is not one.
const FIELD_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::characters;

    #[test]
    fn characters_are_those_of_the_text() {
        for text in ["", "abc", "żółw", "a\"b\\c\n", "😀x", "\u{1}\u{7f}", "\\\\"] {
            let plain = serde_json::to_string(text).unwrap();
            let escaped: String =
                text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            for raw in [&plain[1..plain.len() - 1], &escaped] {
                assert_eq!(characters(raw.as_bytes()), text.chars().count() as u64, "{raw}");
            }
        }
        // Bytes that are no JSON string end nothing badly.
        for raw in [&b"\\"[..], b"\\u", b"\\ud8", b"\\u\xff\xff", b"\x80\\\x80"] {
            characters(raw);
        }
    }
}
