//! Citations of the web, as OpenAI's `url_citation`. They may come before the text that they are of, so
//! they wait for the end of the answer.
//!
//! Google counts places in bytes of UTF-8, OpenAI in characters. The text itself is not kept: runs of
//! characters of equal width say enough.
//!
//! ```text
//!   "Zum Café!"   ->   7 x 1 byte, 1 x 2 bytes, 1 x 1 byte   ->   byte 9 is character 8
//! ```
//!
//! Citations of what has no address on the web have no place in OpenAI's format; they are left out, as
//! are those of a text with more runs than are kept.

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::llm::sink::Sink;
use crate::wire::json::{self, Value, Writer};

/// What one candidate's text looks like, and what it cites.
#[derive(Default)]
pub struct Citations {
    runs: Vec<Run>,
    bytes: u32,
    chars: u32,
    /// There was more than is kept.
    lost: bool,
    waiting: Vec<Waiting>,
}

/// Where characters of one width begin.
struct Run {
    byte: u32,
    char: u32,
    width: u32,
}

/// A citation: its place in bytes, its address and title as the insides of JSON strings.
#[derive(PartialEq)]
struct Waiting {
    start: u64,
    end: u64,
    url: Vec<u8>,
    title: Vec<u8>,
}

/// Where in the text the parts of one event begin, in bytes.
pub type Starts = SmallVec<[u32; 8]>;

impl Citations {
    /// Text of the answer: the inside of a JSON string.
    pub fn text(&mut self, raw: &[u8]) {
        let mut rest = raw;
        while let Some(first) = rest.first() {
            let (taken, width, count) = match first {
                b'\\' => escape(rest),
                0..=0x7f => {
                    let end = rest.iter().position(|byte| *byte == b'\\' || *byte >= 0x80);
                    let end = end.unwrap_or(rest.len());
                    (end, 1, u32::try_from(end).unwrap_or(u32::MAX))
                }
                0xf0.. => (4, 4, 1),
                0xe0.. => (3, 3, 1),
                _ => (2, 2, 1),
            };
            self.grow(width, count);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Bytes of text so far.
    pub fn len(&self) -> u32 {
        self.bytes
    }

    fn grow(&mut self, width: u32, count: u32) {
        if self.runs.last().is_none_or(|run| run.width != width) {
            if self.runs.len() == RUNS_MAX {
                self.lost = true;
                return;
            }
            self.runs.push(Run { byte: self.bytes, char: self.chars, width });
        }
        self.bytes = self.bytes.saturating_add(width.saturating_mul(count));
        self.chars = self.chars.saturating_add(count);
    }

    /// The character at a byte; the end for what lies past it.
    fn char_at(&self, byte: u64) -> u32 {
        let byte = u32::try_from(byte).unwrap_or(u32::MAX).min(self.bytes);
        let after = self.runs.partition_point(|run| run.byte <= byte);
        let run = after.checked_sub(1).and_then(|at| self.runs.get(at));
        run.map_or(0, |run| run.char + (byte - run.byte) / run.width)
    }

    /// `groundingMetadata`: sources, and which stretch of the text stands on which of them.
    pub fn read_grounding(&mut self, bytes: &[u8], metadata: Value, starts: &Starts) {
        let get = |name: &str| json::get(bytes, metadata, name);
        let (Some(sources), Some(supports)) = (get("groundingChunks"), get("groundingSupports"))
        else {
            return;
        };
        let sources: SmallVec<[Value; 16]> =
            json::items(bytes, sources).take(SOURCES_MAX).collect();
        for support in json::items(bytes, supports).take(WAITING_MAX) {
            let Some(segment) = json::get(bytes, support, "segment") else { continue };
            let Some(indices) = json::get(bytes, support, "groundingChunkIndices") else {
                continue;
            };
            let number = |name: &str| number(bytes, segment, name);
            // The index counts from the beginning of its part; of the first one if none is named.
            let base = match usize::try_from(number("partIndex")) {
                Ok(0) => 0,
                Ok(part) => starts.get(part).copied().unwrap_or(0),
                Err(_) => continue,
            };
            let place = |index: u64| index.saturating_add(base.into());
            let (start, end) = (place(number("startIndex")), place(number("endIndex")));
            for index in json::items(bytes, indices).take(SOURCES_MAX) {
                let index =
                    json::as_u64(bytes, index).and_then(|index| usize::try_from(index).ok());
                let Some(source) = index.and_then(|index| sources.get(index)) else { continue };
                let kinds = ["web", "maps", "retrievedContext"];
                let source = kinds.iter().find_map(|kind| json::get(bytes, *source, kind));
                if let Some(source) = source {
                    self.wait(bytes, source, start, end);
                }
            }
        }
    }

    /// `citationMetadata`: stretches of the text that stand elsewhere too.
    pub fn read_citations(&mut self, bytes: &[u8], metadata: Value) {
        // The two APIs have two names for it.
        for name in ["citations", "citationSources"] {
            let Some(list) = json::get(bytes, metadata, name) else { continue };
            for citation in json::items(bytes, list).take(WAITING_MAX) {
                let start = number(bytes, citation, "startIndex");
                let end = number(bytes, citation, "endIndex");
                self.wait(bytes, citation, start, end);
            }
        }
    }

    fn wait(&mut self, bytes: &[u8], source: Value, start: u64, end: u64) {
        let string = |name: &str| {
            let value = json::get(bytes, source, name)?;
            json::raw_string(bytes, value).filter(|raw| raw.len() <= FIELD_MAX)
        };
        let Some(url) = string("uri").filter(|url| url.starts_with(b"http")) else { return };
        let title = string("title").unwrap_or_default();
        let waiting = Waiting { start, end, url: url.to_vec(), title: title.to_vec() };
        if start < end && self.waiting.len() < WAITING_MAX && !self.waiting.contains(&waiting) {
            self.waiting.push(waiting);
        }
    }

    /// The answer is over.
    pub fn tell(&mut self, choice: u32, sink: &mut Sink<'_>) {
        for waiting in std::mem::take(&mut self.waiting) {
            let (start, end) = (self.char_at(waiting.start), self.char_at(waiting.end));
            if self.lost || start >= end {
                continue;
            }
            let quoted = |raw: &[u8]| [b"\"", raw, b"\""].concat();
            let mut out = Buf::new();
            let mut json = Writer::new(&mut out);
            json.begin_object().key("type").string("url_citation").key("url_citation");
            json.begin_object().key("start_index").u64(start.into());
            json.key("end_index").u64(end.into()).key("title").raw(&quoted(&waiting.title));
            json.key("url").raw(&quoted(&waiting.url)).end_object().end_object();
            sink.annotate(choice, out.as_slice());
        }
    }
}

/// An escape at the front of a raw string: its length there, its width in UTF-8, and that it is one.
fn escape(raw: &[u8]) -> (usize, u32, u32) {
    let unit = |at: usize| {
        let digits = raw.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match (unit(0), unit(6)) {
        (None, _) => (2, 1, 1),
        (Some(0..=0x7f), _) => (6, 1, 1),
        (Some(0x80..=0x7ff), _) => (6, 2, 1),
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, 4, 1),
        (Some(_), _) => (6, 3, 1),
    }
}

fn number(bytes: &[u8], object: Value, name: &str) -> u64 {
    json::get(bytes, object, name).and_then(|value| json::as_u64(bytes, value)).unwrap_or(0)
}

/// Runs that are kept: enough for long answers that mix scripts.
const RUNS_MAX: usize = 8192;
/// Citations and sources of one answer that are kept.
const WAITING_MAX: usize = 256;
const SOURCES_MAX: usize = 256;
/// A longer address or title is not one.
const FIELD_MAX: usize = 2048;
