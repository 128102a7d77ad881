//! The grammar of RFC 8259 as one loop over a slice, and the skipping over what it accepted.
//!
//! Containers are a stack of bits (object or array), as deep as `limits::JSON_DEPTH_MAX`; the loop
//! alternates between "a value must come" and "a value is over".

use crate::base::limits;
use crate::wire::Span;

use super::{Kind, Member, Top, Value};

/// Why bytes are not a JSON document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonFault {
    /// Index of the byte at which it shows.
    pub at: usize,
    /// What it is.
    pub what: Fault,
}

/// What is wrong with a JSON document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The bytes end inside the value.
    Ended,
    /// Not UTF-8.
    Utf8,
    /// A value, key, comma, colon or bracket was expected.
    Syntax,
    /// A number that is not one of RFC 8259.
    Number,
    /// A backslash with what is no escape after it.
    Escape,
    /// A control octet inside a string.
    Control,
    /// Nested more than `limits::JSON_DEPTH_MAX` deep.
    Depth,
    /// Something follows the value.
    Trailing,
    /// Above 4 GiB.
    TooLarge,
}

impl Fault {
    /// A few words for a person, without a full stop.
    pub const fn text(self) -> &'static str {
        match self {
            Fault::Ended => "the JSON ends too soon",
            Fault::Utf8 => "the JSON is not valid UTF-8",
            Fault::Syntax => "the JSON is malformed",
            Fault::Number => "the JSON holds a malformed number",
            Fault::Escape => "the JSON holds a malformed escape",
            Fault::Control => "a JSON string holds a control character",
            Fault::Depth => "the JSON is nested too deeply",
            Fault::Trailing => "something follows the JSON value",
            Fault::TooLarge => "the JSON is too large",
        }
    }
}

/// Validates `bytes`; collects the members of a top-level object into `top`.
pub(super) fn run(bytes: &[u8], top: Option<&mut Top>) -> Result<Value, JsonFault> {
    if bytes.len() > u32::MAX as usize {
        return Err(JsonFault { at: 0, what: Fault::TooLarge });
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(JsonFault { at: error.valid_up_to(), what: Fault::Utf8 });
    }
    let mut walk = Walk { bytes, at: 0, stack: Stack::default(), top, key: None, value_at: 0 };
    walk.space();
    let start = walk.at;
    let kind = kind_of(walk.peek()?).ok_or(walk.fault(Fault::Syntax))?;
    walk.whole()?;
    let end = walk.at;
    walk.space();
    match walk.at == bytes.len() {
        true => Ok(Value { kind, span: Span::new(start, end) }),
        false => Err(walk.fault(Fault::Trailing)),
    }
}

/// The containers that are open: one bit each, set for an object.
#[derive(Default)]
struct Stack {
    bits: u128,
    depth: u32,
}

const _: () = assert!(limits::JSON_DEPTH_MAX <= u128::BITS as usize);

impl Stack {
    /// `false`: too deep.
    fn push(&mut self, object: bool) -> bool {
        if self.depth as usize >= limits::JSON_DEPTH_MAX {
            return false;
        }
        self.bits = self.bits << 1 | u128::from(object);
        self.depth += 1;
        true
    }

    fn pop(&mut self) {
        debug_assert!(self.depth > 0);
        self.bits >>= 1;
        self.depth = self.depth.saturating_sub(1);
    }

    /// Whether the innermost one is an object.
    fn in_object(&self) -> bool {
        self.bits & 1 == 1
    }
}

struct Walk<'b, 't> {
    bytes: &'b [u8],
    at: usize,
    stack: Stack,
    top: Option<&'t mut Top>,
    /// The key of the open member of the top-level object.
    key: Option<(Span, bool)>,
    /// Where its value begins.
    value_at: usize,
}

impl Walk<'_, '_> {
    /// One whole value, from its first byte to its last.
    fn whole(&mut self) -> Result<(), JsonFault> {
        loop {
            // A value must come.
            let opened = match self.peek()? {
                b'{' => self.open(true)?,
                b'[' => self.open(false)?,
                _ => {
                    self.scalar()?;
                    false
                }
            };
            if opened {
                continue;
            }
            // A value is over: close what it ends, until another one must come.
            loop {
                if self.stack.depth == 0 {
                    return Ok(());
                }
                self.note_member();
                self.space();
                let object = self.stack.in_object();
                match (self.peek()?, object) {
                    (b',', _) => {
                        self.at += 1;
                        self.space();
                        if object {
                            self.key()?;
                        }
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        self.stack.pop();
                    }
                    _ => return Err(self.fault(Fault::Syntax)),
                }
            }
        }
    }

    /// A bracket. `true`: a value must come next; `false`: the container was empty.
    fn open(&mut self, object: bool) -> Result<bool, JsonFault> {
        if !self.stack.push(object) {
            return Err(self.fault(Fault::Depth));
        }
        self.at += 1;
        self.space();
        match (self.peek()?, object) {
            (b'}', true) | (b']', false) => {
                self.at += 1;
                self.stack.pop();
                Ok(false)
            }
            (_, true) => self.key().map(|()| true),
            (_, false) => Ok(true),
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), JsonFault> {
        if self.peek()? != b'"' {
            return Err(self.fault(Fault::Syntax));
        }
        let start = self.at;
        let escaped = self.string()?;
        let key = Span::new(start + 1, self.at - 1);
        self.space();
        if self.peek()? != b':' {
            return Err(self.fault(Fault::Syntax));
        }
        self.at += 1;
        self.space();
        if self.stack.depth == 1 && self.top.is_some() {
            self.key = Some((key, escaped));
            self.value_at = self.at;
        }
        Ok(())
    }

    /// After a value: if it was a member of the top-level object, collects it.
    fn note_member(&mut self) {
        if self.stack.depth != 1 {
            return;
        }
        let (Some((key, escaped)), Some(top)) = (self.key.take(), self.top.as_deref_mut()) else {
            return;
        };
        let Some(kind) = kind_of(self.bytes[self.value_at]) else { return };
        let value = Value { kind, span: Span::new(self.value_at, self.at) };
        top.push(Member { key, escaped, value });
    }

    fn scalar(&mut self) -> Result<(), JsonFault> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(self.fault(Fault::Syntax)),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonFault> {
        for expected in word {
            if self.peek()? != *expected {
                return Err(self.fault(Fault::Syntax));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonFault> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonFault> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.fault(Fault::Number));
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    /// A string with its quotes; whether it has escapes.
    fn string(&mut self) -> Result<bool, JsonFault> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at = find_special(self.bytes, self.at);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.fault(Fault::Control)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        self.at += 1;
        let kind = self.peek()?;
        let digits = match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 0,
            b'u' => 4,
            _ => return Err(self.fault(Fault::Escape)),
        };
        self.at += 1;
        for _ in 0..digits {
            if !self.peek()?.is_ascii_hexdigit() {
                return Err(self.fault(Fault::Escape));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn space(&mut self) {
        self.at = skip_space(self.bytes, self.at);
    }

    fn peek(&self) -> Result<u8, JsonFault> {
        self.bytes.get(self.at).copied().ok_or(JsonFault { at: self.at, what: Fault::Ended })
    }

    fn fault(&self, what: Fault) -> JsonFault {
        JsonFault { at: self.at, what }
    }
}

/// The kind of the value that begins with `byte`.
pub(super) fn kind_of(byte: u8) -> Option<Kind> {
    Some(match byte {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' => Kind::True,
        b'f' => Kind::False,
        b'n' => Kind::Null,
        b'-' | b'0'..=b'9' => Kind::Number,
        _ => return None,
    })
}

/// Index of the first byte from `at` on that is no white space.
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Index after the value that begins at `start`. `None` if the bytes end inside it.
pub(super) fn skip_value(bytes: &[u8], start: usize) -> Option<usize> {
    match bytes.get(start)? {
        b'"' => skip_string(bytes, start).map(|(end, _)| end),
        b'{' | b'[' => skip_container(bytes, start),
        _ => {
            let scalar =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
            let len = bytes[start..].iter().position(|byte| !scalar(byte));
            let end = len.map_or(bytes.len(), |len| start + len);
            (end > start).then_some(end)
        }
    }
}

/// Index after the string whose quote is at `start`, and whether it has escapes.
pub(super) fn skip_string(bytes: &[u8], start: usize) -> Option<(usize, bool)> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let (mut at, mut escaped) = (start + 1, false);
    loop {
        at = find_special(bytes, at);
        match bytes.get(at)? {
            b'"' => return Some((at + 1, escaped)),
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
}

/// Index after the container whose bracket is at `start`. Which kind a bracket is does not matter
/// in a validated document, so their number is enough.
fn skip_container(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut open) = (start, 0_u32);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = skip_string(bytes, at)?.0;
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' => {
                open = open.saturating_sub(1);
                if open == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// Index of the first byte from `at` on that is special inside a string: a quote, a backslash or a
/// control octet; `bytes.len()` if there is none. Eight bytes at a time, since most strings of an
/// event are short; long ones (images in base64) go on with memchr.
pub(super) fn find_special(bytes: &[u8], at: usize) -> usize {
    let mut at = at.min(bytes.len());
    let short_end = at + SHORT;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at >= short_end {
            return find_special_far(bytes, at);
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..=0x1f);
    at + bytes[at..].iter().position(is_special).unwrap_or(bytes.len() - at)
}

/// The same by windows that stay in the first-level cache.
fn find_special_far(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        let window = &bytes[at..bytes.len().min(at + 4096)];
        let found = memchr::memchr2(b'"', b'\\', window);
        let len = found.unwrap_or(window.len());
        let control = window[..len].iter().fold(false, |any, byte| any | (*byte < 0x20));
        if control {
            let first = window[..len].iter().position(|byte| *byte < 0x20);
            return at + first.unwrap_or(len);
        }
        at += len;
        if found.is_some() {
            return at;
        }
    }
    bytes.len()
}

/// How many bytes are looked at in words before memchr takes over.
const SHORT: usize = 64;

/// The high bit of each byte that is special. Above the first such byte there may be false ones
/// (borrows run upwards), below it there are none, and only the lowest is used.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let slash = slash.wrapping_sub(ONES) & !slash;
    (control | quote | slash) & HIGHS
}
