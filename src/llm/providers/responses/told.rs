//! What was told of each part of an answer, so that a part that comes again as a whole adds only what
//! is missing. It never keeps text: a part is a count and a hash of UTF-16 code units, which are the
//! same however a provider escapes them, and however it cuts its fragments (inside of a surrogate pair
//! too).
//!
//! ```text
//!   delta  {\"a\"      5 units, hash h
//!   whole  {\"a\":1}   its first 5 units hash to h: the rest is  :1}
//! ```

use crate::base::fail::Fault;

/// What a part is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strand {
    /// The answer's text.
    Text,
    /// A refusal.
    Refusal,
    /// A summary of the model's reasoning.
    Summary,
    /// The reasoning itself.
    Thought,
    /// A tool call's arguments.
    Arguments,
}

/// One part, as told so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    item: u64,
    strand: Strand,
    index: u64,
    units: u64,
    hash: u64,
    /// Annotations that were told.
    pub notes: usize,
}

/// The parts of one answer; at most `PARTS_MAX`.
#[derive(Default)]
pub struct Parts {
    parts: Vec<Part>,
}

impl Parts {
    /// The part with this place, made if it is new.
    ///
    /// # Errors
    /// `BadFrame` for one part too many.
    pub fn at(&mut self, item: u64, strand: Strand, index: u64) -> Result<&mut Part, Fault> {
        let is = |part: &Part| part.item == item && part.strand == strand && part.index == index;
        // The last one is the one that grows.
        let at = match self.parts.iter().rposition(is) {
            Some(at) => at,
            None if self.parts.len() < PARTS_MAX => {
                self.parts.push(Part { item, strand, index, units: 0, hash: FNV_BASIS, notes: 0 });
                self.parts.len() - 1
            }
            None => return Err(Fault::BadFrame),
        };
        Ok(&mut self.parts[at])
    }

    /// Whether anything of this strand was told, of `item` or, without one, of any.
    pub fn has(&self, item: Option<u64>, strand: Strand) -> bool {
        self.parts.iter().rev().any(|part| {
            part.strand == strand && part.units > 0 && item.is_none_or(|item| part.item == item)
        })
    }

    /// How many units of an item's strand were told, over all of its parts.
    pub fn units(&self, item: u64, strand: Strand) -> u64 {
        let parts = self.parts.iter().filter(|part| part.item == item && part.strand == strand);
        parts.map(|part| part.units).sum()
    }

    /// Whether nothing was told at all.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Part {
    /// A fragment was told: the inside of a JSON string.
    pub fn add(&mut self, raw: &[u8]) {
        for unit in Units::of(raw) {
            self.units += 1;
            self.hash = step(self.hash, unit);
        }
    }

    /// What of the whole part was not told yet. Nothing, if it does not begin with what was told: that
    /// stands then.
    pub fn rest<'b>(&self, whole: &'b [u8]) -> &'b [u8] {
        let (mut units, mut hash) = (Units::of(whole), FNV_BASIS);
        for _ in 0..self.units {
            let Some(unit) = units.next() else { return b"" };
            hash = step(hash, unit);
        }
        if hash == self.hash { units.rest.as_bytes() } else { b"" }
    }

    /// Whether no text of it was told.
    pub fn is_bare(&self) -> bool {
        self.units == 0
    }
}

/// How many UTF-16 code units the inside of a JSON string has.
pub fn count(raw: &[u8]) -> u64 {
    Units::of(raw).count() as u64
}

/// FNV-1a over code units.
fn step(hash: u64, unit: u16) -> u64 {
    (hash ^ u64::from(unit)).wrapping_mul(FNV_PRIME)
}

/// The UTF-16 code units of the inside of a JSON string; none for what is no UTF-8.
struct Units<'b> {
    rest: &'b str,
    /// The second half of a character that stood unescaped.
    low: Option<u16>,
}

impl Units<'_> {
    fn of(raw: &[u8]) -> Units<'_> {
        Units { rest: std::str::from_utf8(raw).unwrap_or_default(), low: None }
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let first = chars.next()?;
        self.rest = chars.as_str();
        Some(first)
    }
}

impl Iterator for Units<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some(low) = self.low.take() {
            return Some(low);
        }
        let plain = match self.take()? {
            '\\' => match self.take()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits = self.rest.get(..4)?;
                    self.rest = &self.rest[4..];
                    return u16::from_str_radix(digits, 16).ok();
                }
                other => other,
            },
            other => other,
        };
        let mut pair = [0; 2];
        plain.encode_utf16(&mut pair);
        self.low = (plain.len_utf16() == 2).then_some(pair[1]);
        Some(pair[0])
    }
}

/// A long agent's answer has some hundred items of a few parts each.
pub const PARTS_MAX: usize = 4096;
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_adds_only_what_is_missing() {
        let whole = "{\\\"k\\\":\\\"a\\u00e9\\ud83d\\ude00/\\n\\\"}";
        let plain = "{\\\"k\\\":\\\"aé😀\\/\\n\\\"}";
        assert_eq!(count(whole.as_bytes()), count(plain.as_bytes()));
        for cut in (0..=plain.len()).filter(|cut| plain.is_char_boundary(*cut)) {
            let escape = plain[..cut].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2;
            if escape == 1 {
                continue;
            }
            let mut parts = Parts::default();
            let part = parts.at(0, Strand::Arguments, 0).unwrap();
            part.add(&plain.as_bytes()[..cut]);
            let rest = part.rest(whole.as_bytes()).to_vec();
            part.add(&rest);
            assert_eq!(count(plain.as_bytes()), part.units, "{cut}");
            assert_eq!(part.rest(plain.as_bytes()), b"", "{cut}");
            let mut all = Parts::default();
            let all = all.at(0, Strand::Arguments, 0).unwrap();
            all.add(whole.as_bytes());
            assert_eq!(all.hash, part.hash, "{cut}");
        }
    }

    #[test]
    fn a_pair_may_be_cut_in_two() {
        let mut parts = Parts::default();
        let part = parts.at(3, Strand::Text, 0).unwrap();
        part.add(b"\\ud83d");
        part.add(b"\\ude00");
        assert_eq!(part.rest("😀!".as_bytes()), b"!");
        assert_eq!(parts.units(3, Strand::Text), 2);
        assert!(parts.has(None, Strand::Text) && !parts.has(Some(2), Strand::Text));
    }

    #[test]
    fn what_does_not_begin_alike_is_left() {
        let mut parts = Parts::default();
        let part = parts.at(0, Strand::Arguments, 0).unwrap();
        part.add(b"{\\\"a\\\":1}");
        assert_eq!(part.rest(b"{\\\"a\\\": 1}"), b"");
        assert_eq!(part.rest(b"{"), b"");
    }

    #[test]
    fn any_bytes_end() {
        for raw in [&b"\\"[..], b"\\u", b"\\u12", b"\\u12\xc3\xa9", b"\xff", b"\\u+123", b"\\x"] {
            count(raw);
        }
    }

    #[test]
    fn there_is_a_last_part() {
        let mut parts = Parts::default();
        for index in 0..PARTS_MAX as u64 {
            assert!(parts.at(0, Strand::Text, index).is_ok());
        }
        assert_eq!(parts.at(1, Strand::Text, 0).err(), Some(Fault::BadFrame));
        assert!(parts.at(0, Strand::Text, 7).is_ok());
    }
}
