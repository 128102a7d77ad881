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
    let start = skip_space(bytes, 0);
    let first = peek(bytes, start)?;
    let kind = kind_of(first).ok_or(fault(start, Fault::Syntax))?;
    let end = Walk { bytes, stack: Stack::default(), top, key: None }.whole(start)?;
    let after = skip_space(bytes, end);
    match after == bytes.len() {
        true => Ok(Value { kind, span: Span::new(start, end) }),
        false => Err(fault(after, Fault::Trailing)),
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
    stack: Stack,
    top: Option<&'t mut Top>,
    /// Of the open member of the top-level object: its key, and where its value begins.
    key: Option<Key>,
}

#[derive(Clone, Copy)]
struct Key {
    span: Span,
    escaped: bool,
    value_at: usize,
}

// Where the walk stands is handed from call to call rather than kept, and what every token passes through
// is inlined: then it stays in a register, and a small event is done in as many instructions as it has
// bytes, times five or six.
impl Walk<'_, '_> {
    /// One whole value from its first byte on; where it ends.
    fn whole(&mut self, start: usize) -> Result<usize, JsonFault> {
        let mut at = start;
        loop {
            // A value must come.
            match peek(self.bytes, at)? {
                b'"' => at = string(self.bytes, at)?.0,
                open @ (b'{' | b'[') => {
                    let inside = self.open(at, open == b'{')?;
                    at = inside.at;
                    if inside.opened {
                        continue;
                    }
                }
                byte => at = scalar(self.bytes, at, byte)?,
            }
            // A value is over: close what it ends, until another one must come.
            loop {
                if self.stack.depth <= 1 {
                    if self.stack.depth == 0 {
                        return Ok(at);
                    }
                    self.note_member(at);
                }
                at = skip_space(self.bytes, at);
                match (peek(self.bytes, at)?, self.stack.in_object()) {
                    (b',', true) => {
                        at = self.key(at + 1)?;
                        break;
                    }
                    (b',', false) => {
                        at = skip_space(self.bytes, at + 1);
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        at += 1;
                        self.stack.pop();
                    }
                    _ => return Err(fault(at, Fault::Syntax)),
                }
            }
        }
    }

    /// A bracket, and what follows it up to the first value.
    fn open(&mut self, at: usize, object: bool) -> Result<Opened, JsonFault> {
        if !self.stack.push(object) {
            return Err(fault(at, Fault::Depth));
        }
        let at = skip_space(self.bytes, at + 1);
        match (peek(self.bytes, at)?, object) {
            (b'}', true) | (b']', false) => {
                self.stack.pop();
                Ok(Opened { at: at + 1, opened: false })
            }
            (_, true) => Ok(Opened { at: self.key(at)?, opened: true }),
            (_, false) => Ok(Opened { at, opened: true }),
        }
    }

    /// A key and its colon, white space around them; where the value begins.
    #[inline(always)]
    fn key(&mut self, at: usize) -> Result<usize, JsonFault> {
        let start = expect(self.bytes, at, b'"')?;
        let (end, escaped) = string(self.bytes, start)?;
        let colon = expect(self.bytes, end, b':')?;
        let value_at = skip_space(self.bytes, colon + 1);
        if self.stack.depth == 1 {
            self.key = Some(Key { span: Span::new(start + 1, end - 1), escaped, value_at });
        }
        Ok(value_at)
    }

    /// After a value at depth 1: if it was a member of the top-level object, collects it.
    #[inline(always)]
    fn note_member(&mut self, end: usize) {
        let (Some(key), Some(top)) = (self.key, self.top.as_deref_mut()) else { return };
        let Some(kind) = kind_of(self.bytes[key.value_at]) else { return };
        let value = Value { kind, span: Span::new(key.value_at, end) };
        top.push(Member { key: key.span, escaped: key.escaped, value });
    }
}

/// What an opening bracket came to.
struct Opened {
    at: usize,
    /// A value must come next; else the container was empty.
    opened: bool,
}

/// A value that is neither string nor container and begins with `byte`; where it ends.
#[inline(always)]
fn scalar(bytes: &[u8], at: usize, byte: u8) -> Result<usize, JsonFault> {
    match byte {
        b'-' | b'0'..=b'9' => number(bytes, at),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => Err(fault(at, Fault::Syntax)),
    }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonFault> {
    if bytes[at..].starts_with(word) {
        return Ok(at + word.len());
    }
    let same = bytes[at..].iter().zip(word).take_while(|(byte, expected)| byte == expected).count();
    peek(bytes, at + same)?;
    Err(fault(at + same, Fault::Syntax))
}

fn number(bytes: &[u8], start: usize) -> Result<usize, JsonFault> {
    let mut at = start + usize::from(bytes[start] == b'-');
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits(bytes, at)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    Ok(at)
}

/// One digit or more.
#[inline(always)]
fn digits(bytes: &[u8], start: usize) -> Result<usize, JsonFault> {
    if !peek(bytes, start)?.is_ascii_digit() {
        return Err(fault(start, Fault::Number));
    }
    let mut at = start + 1;
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    Ok(at)
}

/// A string whose quote is at `start`; where it ends, and whether it has escapes.
#[inline(always)]
fn string(bytes: &[u8], start: usize) -> Result<(usize, bool), JsonFault> {
    let at = find_special(bytes, start + 1);
    if bytes.get(at) == Some(&b'"') { Ok((at + 1, false)) } else { odd_string(bytes, at) }
}

/// The rest of a string from its first special byte on, which does not end it.
#[inline(never)]
fn odd_string(bytes: &[u8], mut at: usize) -> Result<(usize, bool), JsonFault> {
    let mut escaped = false;
    loop {
        match peek(bytes, at)? {
            b'"' => return Ok((at + 1, escaped)),
            b'\\' => {
                escaped = true;
                at = escape(bytes, at + 1)?;
            }
            _ => return Err(fault(at, Fault::Control)),
        }
        at = find_special(bytes, at);
    }
}

/// What follows a backslash; where it ends.
fn escape(bytes: &[u8], at: usize) -> Result<usize, JsonFault> {
    let digits = match peek(bytes, at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 0,
        b'u' => 4,
        _ => return Err(fault(at, Fault::Escape)),
    };
    let end = at + 1 + digits;
    for index in at + 1..end {
        if !peek(bytes, index)?.is_ascii_hexdigit() {
            return Err(fault(index, Fault::Escape));
        }
    }
    Ok(end)
}

/// Where `byte` stands: at `at`, or after white space.
#[inline(always)]
fn expect(bytes: &[u8], at: usize, byte: u8) -> Result<usize, JsonFault> {
    if bytes.get(at) == Some(&byte) { Ok(at) } else { expect_after_space(bytes, at, byte) }
}

#[inline(never)]
fn expect_after_space(bytes: &[u8], at: usize, byte: u8) -> Result<usize, JsonFault> {
    let at = skip_space(bytes, at);
    if peek(bytes, at)? == byte { Ok(at) } else { Err(fault(at, Fault::Syntax)) }
}

#[inline(always)]
fn peek(bytes: &[u8], at: usize) -> Result<u8, JsonFault> {
    bytes.get(at).copied().ok_or(fault(at, Fault::Ended))
}

#[inline(always)]
fn fault(at: usize, what: Fault) -> JsonFault {
    JsonFault { at, what }
}

/// The kind of the value that begins with `byte`.
#[inline(always)]
pub(super) fn kind_of(byte: u8) -> Option<Kind> {
    KINDS[byte as usize]
}

static KINDS: [Option<Kind>; 256] = {
    let mut table = [None; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'{' => Some(Kind::Object),
            b'[' => Some(Kind::Array),
            b'"' => Some(Kind::String),
            b't' => Some(Kind::True),
            b'f' => Some(Kind::False),
            b'n' => Some(Kind::Null),
            b'-' | b'0'..=b'9' => Some(Kind::Number),
            _ => None,
        };
        byte += 1;
    }
    table
};

/// Index of the first byte from `at` on that is no white space. Most often there is none, and one comparison
/// tells.
#[inline(always)]
pub(super) fn skip_space(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at).is_some_and(|byte| *byte > b' ') { at } else { skip_some_space(bytes, at) }
}

#[inline(never)]
fn skip_some_space(bytes: &[u8], mut at: usize) -> usize {
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
            let mut end = start;
            while bytes.get(end).is_some_and(|byte| CLASS[*byte as usize] == SCALAR) {
                end += 1;
            }
            (end > start).then_some(end)
        }
    }
}

/// Index after the string whose quote is at `start`, and whether it has escapes.
#[inline(always)]
pub(super) fn skip_string(bytes: &[u8], start: usize) -> Option<(usize, bool)> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let at = find_quote(bytes, start + 1);
    if bytes.get(at)? == &b'"' { Some((at + 1, false)) } else { skip_escaped(bytes, at) }
}

/// The rest of a string from its first backslash on.
#[inline(never)]
fn skip_escaped(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    while *bytes.get(at)? == b'\\' {
        at = find_quote(bytes, at + 2);
    }
    Some((at + 1, true))
}

/// Index of the first quote or backslash from `at` on; `bytes.len()` if there is none. As `find_special`,
/// for what is known to hold no control octet.
#[inline(always)]
fn find_quote(bytes: &[u8], at: usize) -> usize {
    let mut at = at.min(bytes.len());
    let short_end = at + SHORT;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let found = quote_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
        if at >= short_end {
            break;
        }
    }
    find_quote_on(bytes, at)
}

#[inline(never)]
fn find_quote_on(bytes: &[u8], at: usize) -> usize {
    memchr::memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |found| at + found)
}

/// Index after the container whose bracket is at `start`. Which kind a bracket is does not matter
/// in a validated document, so their number is enough.
fn skip_container(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut open) = (start, 0_u32);
    loop {
        let class = CLASS[*bytes.get(at)? as usize];
        at += 1;
        if class <= SCALAR {
            continue;
        }
        match class {
            QUOTE => at = skip_string(bytes, at - 1)?.0,
            OPEN => open += 1,
            _ => {
                open = open.saturating_sub(1);
                if open == 0 {
                    return Some(at);
                }
            }
        }
    }
}

/// What a byte is outside of strings.
static CLASS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'"' => QUOTE,
            b'{' | b'[' => OPEN,
            b'}' | b']' => CLOSE,
            b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => SCALAR,
            _ => OTHER,
        };
        byte += 1;
    }
    table
};
const OTHER: u8 = 0;
/// Part of a number or of a literal name.
const SCALAR: u8 = 1;
const QUOTE: u8 = 2;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;

/// Index of the first byte from `at` on that is special inside a string: a quote, a backslash or a
/// control octet; `bytes.len()` if there is none. Eight bytes at a time, since most strings of an
/// event are short; long ones (images in base64) go on with memchr.
#[inline(always)]
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
    find_special_near(bytes, at)
}

/// The same in what is shorter than a word.
#[inline(never)]
fn find_special_near(bytes: &[u8], at: usize) -> usize {
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..=0x1f);
    at + bytes[at..].iter().position(is_special).unwrap_or(bytes.len() - at)
}

/// The same by windows that stay in the first-level cache.
#[inline(never)]
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
/// (borrows run upwards), below it there are none, and only the lowest is used. A byte's own high bit is
/// not changed by either `^`, so that one mask leaves out what is not ASCII.
#[inline(always)]
const fn special_bytes(word: u64) -> u64 {
    quote_bytes(word) | (word.wrapping_sub(ONES * 0x20) & !word & HIGHS)
}

/// The same of quotes and backslashes alone.
#[inline(always)]
const fn quote_bytes(word: u64) -> u64 {
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let slash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    (quote | slash) & !word & HIGHS
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
