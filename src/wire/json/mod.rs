//! JSON as spans: one validating pass, no tree, no text type.
//!
//! [`document`] decides whether bytes are one JSON value of RFC 8259 in UTF-8, nested at most
//! `limits::JSON_DEPTH_MAX` deep. What it accepted can be walked with [`members`], [`items`] and
//! [`get`], which only skip. It never copies, except to unescape a string that has escapes, and
//! never recurses.
//!
//! ```text
//!   {"id":"x","choices":[{"delta":{}}]}
//!    ^key  ^value        ^value: Array, span of the raw bytes with its brackets
//! ```
//!
//! Invariants: the walkers do not panic and end on any bytes, valid or not; on bytes that
//! `document` accepted they give exactly its values. Duplicate keys are legal JSON: [`get`] takes
//! the last one, as most parsers do, and [`count`] tells whether there are more. A lone surrogate
//! escape (`"\ud800"`) is legal too, and becomes U+FFFD.

mod balance;
mod scan;
mod write;

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::wire::Span;

pub use balance::Balance;
pub use scan::{Fault, JsonFault};
pub use write::{Writer, escape, write_string};

/// The kind of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A value: its kind, and its raw bytes (a string with its quotes, a container with its brackets).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Value {
    /// What it is.
    pub kind: Kind,
    /// Where it lies.
    pub span: Span,
}

/// A member of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// The raw key without its quotes.
    pub key: Span,
    /// Whether the key has escapes.
    pub escaped: bool,
    /// The value.
    pub value: Value,
}

/// The members of a document's top-level object, in order.
pub type Top = SmallVec<[Member; 16]>;

/// Validates the whole of `bytes` and gives the value. White space around it is allowed.
///
/// # Errors
/// Not JSON in UTF-8, too deep, or something follows the value.
pub fn document(bytes: &[u8]) -> Result<Value, JsonFault> {
    scan::run(bytes, None)
}

/// As [`document`], and collects the members of a top-level object in the same pass. `top` is
/// emptied first, and stays empty if the value is no object.
///
/// # Errors
/// As [`document`].
pub fn document_with_top(bytes: &[u8], top: &mut Top) -> Result<Value, JsonFault> {
    top.clear();
    scan::run(bytes, Some(top))
}

/// The last of `top` with this key.
pub fn find(bytes: &[u8], top: &[Member], name: &str) -> Option<Value> {
    top.iter().rev().find(|member| member.is(bytes, name)).map(|member| member.value)
}

/// The members of a validated object; none for another kind.
pub fn members(bytes: &[u8], object: Value) -> Members<'_> {
    Members { inside: Inside::of(bytes, object, Kind::Object) }
}

/// The items of a validated array; none for another kind.
pub fn items(bytes: &[u8], array: Value) -> Items<'_> {
    Items { inside: Inside::of(bytes, array, Kind::Array) }
}

/// Whether an array or object of a validated document has nothing in it; so have values of other kinds.
pub fn is_empty(bytes: &[u8], container: Value) -> bool {
    !matches!(container.kind, Kind::Array | Kind::Object)
        || Inside::of(bytes, container, container.kind).next().is_none()
}

/// The value of the last member with this key.
pub fn get(bytes: &[u8], object: Value, name: &str) -> Option<Value> {
    let named = members(bytes, object).filter(|member| member.is(bytes, name));
    named.last().map(|member| member.value)
}

/// The value at the end of a path of keys, each looked up as [`get`] does.
pub fn get_path(bytes: &[u8], object: Value, path: &[&str]) -> Option<Value> {
    path.iter().try_fold(object, |value, name| get(bytes, value, name))
}

/// How many members have this key.
pub fn count(bytes: &[u8], object: Value, name: &str) -> usize {
    members(bytes, object).filter(|member| member.is(bytes, name)).count()
}

/// The item at `index`.
pub fn at(bytes: &[u8], array: Value, index: usize) -> Option<Value> {
    items(bytes, array).nth(index)
}

/// A string's text, unescaped; borrowed if it has no escapes. Lone surrogates become U+FFFD.
/// `None` for another kind.
pub fn text<'b>(bytes: &'b [u8], value: Value) -> Option<Cow<'b, str>> {
    let raw = raw_string(bytes, value)?;
    let raw = std::str::from_utf8(raw).ok()?;
    Some(match memchr::memchr(b'\\', raw.as_bytes()) {
        None => Cow::Borrowed(raw),
        Some(_) => Cow::Owned(unescape(raw)),
    })
}

/// What lies between a string's quotes, escapes as they are. `None` for another kind.
pub fn raw_string(bytes: &[u8], value: Value) -> Option<&[u8]> {
    match (value.kind, value.span.of(bytes)) {
        (Kind::String, [b'"', raw @ .., b'"']) => Some(raw),
        _ => None,
    }
}

/// Whether the value is a string with exactly this text.
pub fn str_eq(bytes: &[u8], value: Value, text: &str) -> bool {
    raw_string(bytes, value).is_some_and(|raw| raw_eq(raw, text))
}

/// A number that is a whole one from 0 to `u64::MAX`. `1.0` and `1e3` count, exactly up to 2^53.
pub fn as_u64(bytes: &[u8], value: Value) -> Option<u64> {
    let raw = number(bytes, value)?;
    if let Ok(number) = raw.parse::<u64>() {
        return Some(number);
    }
    // Also where an integer overflowed: the float is then past the bound.
    let float = raw.parse::<f64>().ok()?;
    let whole = float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float);
    whole.then_some(float as u64)
}

/// A number, rounded to the nearest double. `None` for another kind and for one out of range.
pub fn as_f64(bytes: &[u8], value: Value) -> Option<f64> {
    number(bytes, value)?.parse::<f64>().ok().filter(|float| float.is_finite())
}

/// A boolean.
pub fn as_bool(value: Value) -> Option<bool> {
    match value.kind {
        Kind::True => Some(true),
        Kind::False => Some(false),
        Kind::Null | Kind::Number | Kind::String | Kind::Array | Kind::Object => None,
    }
}

impl Value {
    /// The raw bytes.
    pub fn raw(self, bytes: &[u8]) -> &[u8] {
        self.span.of(bytes)
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.kind == Kind::Null
    }
}

impl Member {
    /// Whether this is its key.
    pub fn is(&self, bytes: &[u8], name: &str) -> bool {
        let key = self.key.of(bytes);
        if self.escaped { raw_eq(key, name) } else { key == name.as_bytes() }
    }

    /// The key, unescaped.
    pub fn name<'b>(&self, bytes: &'b [u8]) -> Cow<'b, str> {
        let raw = std::str::from_utf8(self.key.of(bytes)).unwrap_or_default();
        if self.escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }
}

/// The iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'b> {
    inside: Inside<'b>,
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        let start = self.inside.next()?;
        let (end, escaped) = scan::skip_string(self.inside.bytes, start)?;
        let at = scan::skip_space(self.inside.bytes, end);
        if self.inside.bytes.get(at) != Some(&b':') {
            return None;
        }
        let value = self.inside.value(scan::skip_space(self.inside.bytes, at + 1))?;
        Some(Member { key: Span::new(start + 1, end - 1), escaped, value })
    }
}

/// The iterator of [`items`].
#[derive(Clone, Debug)]
pub struct Items<'b> {
    inside: Inside<'b>,
}

impl Iterator for Items<'_> {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        let start = self.inside.next()?;
        self.inside.value(start)
    }
}

impl Items<'_> {
    /// The next item, the members of which, if it is an object, `each` gets. Where they end the item does, so
    /// that it is gone through once.
    pub fn next_with(&mut self, each: impl FnMut(Member)) -> Option<Value> {
        let start = self.inside.next()?;
        if self.inside.bytes.get(start) != Some(&b'{') {
            return self.inside.value(start);
        }
        let mut members = Members { inside: Inside { bytes: self.inside.bytes, at: start + 1 } };
        members.by_ref().for_each(each);
        debug_assert!(self.inside.bytes.get(members.inside.at) == Some(&b'}'));
        self.inside.at = self.inside.bytes.len().min(members.inside.at + 1);
        Some(Value { kind: Kind::Object, span: Span::new(start, self.inside.at) })
    }
}

/// The inside of a container: `at` is where the next item, a comma or white space stands.
#[derive(Clone, Debug)]
struct Inside<'b> {
    /// Up to the closing bracket, without it, so that all indices are those of the document.
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Inside<'b> {
    fn of(bytes: &'b [u8], value: Value, kind: Kind) -> Inside<'b> {
        let end = value.span.end().min(bytes.len());
        let start = value.span.start as usize + 1;
        match value.kind == kind && start < end {
            true => Inside { bytes: &bytes[..end - 1], at: start },
            false => Inside { bytes: &[], at: 0 },
        }
    }

    /// Where the next item begins.
    fn next(&mut self) -> Option<usize> {
        let mut at = scan::skip_space(self.bytes, self.at);
        if self.bytes.get(at) == Some(&b',') {
            at = scan::skip_space(self.bytes, at + 1);
        }
        self.at = at;
        (at < self.bytes.len()).then_some(at)
    }

    /// The value that begins at `start`; goes past it.
    fn value(&mut self, start: usize) -> Option<Value> {
        let kind = scan::kind_of(*self.bytes.get(start)?)?;
        let end = scan::skip_value(self.bytes, start)?;
        debug_assert!(end > start);
        self.at = end;
        Some(Value { kind, span: Span::new(start, end) })
    }
}

fn number(bytes: &[u8], value: Value) -> Option<&str> {
    match value.kind {
        Kind::Number => std::str::from_utf8(value.span.of(bytes)).ok(),
        Kind::Null | Kind::True | Kind::False | Kind::String | Kind::Array | Kind::Object => None,
    }
}

/// Whether a raw string, unescaped, is `text`. No allocation.
fn raw_eq(raw: &[u8], text: &str) -> bool {
    if memchr::memchr(b'\\', raw).is_none() {
        return raw == text.as_bytes();
    }
    // Each raw byte gives at most one byte of text, so a shorter raw string can't be equal.
    if raw.len() < text.len() {
        return false;
    }
    let Ok(raw) = std::str::from_utf8(raw) else { return false };
    let mut chars = text.chars();
    let same = Unescape { rest: raw }.all(|c| chars.next() == Some(c));
    same && chars.next().is_none()
}

fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let mut chars = Unescape { rest: &rest[at..] };
        out.extend(chars.next());
        rest = chars.rest;
    }
    out.push_str(rest);
    out
}

/// The characters of a raw string. What is no escape after a backslash gives U+FFFD.
struct Unescape<'b> {
    rest: &'b str,
}

impl Iterator for Unescape<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let first = chars.next()?;
        self.rest = chars.as_str();
        if first != '\\' {
            return Some(first);
        }
        let Some(kind) = chars.next() else { return Some(char::REPLACEMENT_CHARACTER) };
        self.rest = chars.as_str();
        Some(match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '"' | '\\' | '/' => kind,
            'u' => self.unit(),
            _ => char::REPLACEMENT_CHARACTER,
        })
    }
}

impl Unescape<'_> {
    /// The character of the `\u` escape whose digits come next, its second half included.
    fn unit(&mut self) -> char {
        let Some(high) = hex4(self.rest) else { return char::REPLACEMENT_CHARACTER };
        self.rest = &self.rest[4..];
        if let Some(plain) = char::from_u32(high) {
            return plain;
        }
        let low = self.rest.strip_prefix("\\u").and_then(hex4);
        match low {
            Some(low @ 0xdc00..=0xdfff) if high < 0xdc00 => {
                self.rest = &self.rest[6..];
                let code = 0x1_0000 + ((high - 0xd800) << 10 | (low - 0xdc00));
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => char::REPLACEMENT_CHARACTER,
        }
    }
}

fn hex4(text: &str) -> Option<u32> {
    let digits = text.get(..4)?;
    // `from_str_radix` alone would take a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
