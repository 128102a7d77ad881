//! Citations of the web, as OpenAI's `url_citation`. Some models put them into the block whose text
//! they back, some into a block of their own behind it: either way they hold for the text of the last
//! block that had any. They are told when their block ends. Citations of the client's own documents
//! have no address, and OpenAI's chat format no place for them; they are left out.

use crate::base::buf::Buf;
use crate::llm::sink::Sink;
use crate::wire::json::{self, Value, Writer};

/// What waits for the end of its block.
#[derive(Default)]
pub struct Citations {
    /// Characters of text so far.
    at: u64,
    /// Where the last block with text began, and its number.
    from: u64,
    block: Option<u64>,
    /// Each one's address and title.
    waiting: Vec<(String, String)>,
}

impl Citations {
    /// Text of a block: the inside of a JSON string.
    pub fn text(&mut self, block: u64, raw: &[u8]) {
        if raw.is_empty() {
            return;
        }
        if self.block.replace(block) != Some(block) {
            self.from = self.at;
        }
        self.at += characters(raw);
    }

    /// One citation.
    pub fn read(&mut self, bytes: &[u8], citation: Value) {
        let string = |path: &[&str]| {
            let value = json::get_path(bytes, citation, path)?;
            json::text(bytes, value).filter(|text| text.len() <= FIELD_MAX)
        };
        let address = string(&["location", "web", "url"]).or_else(|| string(&["source"]));
        let Some(address) = address.filter(|url| url.starts_with("http")) else { return };
        let title = string(&["title"]).or_else(|| string(&["location", "web", "domain"]));
        if self.waiting.len() < WAITING_MAX && !self.waiting.iter().any(|(url, _)| *url == address)
        {
            self.waiting.push((address.into_owned(), title.unwrap_or_default().into_owned()));
        }
    }

    /// A block is over. Says whether anything was told.
    pub fn tell(&mut self, sink: &mut Sink<'_>) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        for (url, title) in &waiting {
            let mut out = Buf::new();
            let mut json = Writer::new(&mut out);
            json.begin_object().key("type").string("url_citation").key("url_citation");
            json.begin_object().key("start_index").u64(self.from).key("end_index").u64(self.at);
            json.key("title").string(title).key("url").string(url);
            json.end_object().end_object();
            sink.annotate(0, out.as_slice());
        }
        !waiting.is_empty()
    }
}

/// How many characters the inside of a JSON string has.
fn characters(raw: &[u8]) -> u64 {
    let (mut count, mut at) = (0, 0);
    while let Some(byte) = raw.get(at) {
        let (len, counts) = match (byte, raw.get(at + 1), raw.get(at + 2..at + 4)) {
            // The first half of a pair is counted with the second.
            (b'\\', Some(b'u'), Some([b'd' | b'D', b'8' | b'9' | b'a'..=b'b' | b'A'..=b'B'])) => {
                (6, false)
            }
            (b'\\', Some(b'u'), _) => (6, true),
            (b'\\', _, _) => (2, true),
            (byte, _, _) => (1, byte & 0xc0 != 0x80),
        };
        at += len;
        count += u64::from(counts);
    }
    count
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
        for text in ["", "abc", "gęś", "a\"b\\c\n", "🦆x", "\u{2}\u{7f}", "\\\\", "\u{d7ff}"] {
            let plain = serde_json::to_string(text).unwrap();
            let escaped: String = text.encode_utf16().map(|u| format!("\\u{u:04X}")).collect();
            for raw in [&plain[1..plain.len() - 1], &escaped] {
                assert_eq!(characters(raw.as_bytes()), text.chars().count() as u64, "{raw}");
            }
        }
        for raw in [&b"\\"[..], b"\\u", b"\\ud8", b"\xff\xfe"] {
            characters(raw);
        }
    }
}
