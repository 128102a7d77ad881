//! Request and response heads: bytes in, spans and one verdict on framing out.
//!
//! A head is either understood in exactly one way or refused with a reason; nothing is repaired, and no
//! field is dropped in silence. Its octets are checked first, all at once, and then cut into lines; in the
//! tests httparse, which forgives more, has to find the same fields.
//!
//! ```text
//!   POST /v1/chat/completions HTTP/1.1\r\n     method, target, minor
//!   Host: localhost\r\n                        exactly one in 1.1
//!   Content-Length: 42\r\n                     one Content-Length, or `chunked`, or neither
//!   \r\n                                       len = bytes up to here
//! ```
//!
//! Invariants: every span lies in `..len`; any way of cutting the bytes gives the same head or the
//! same refusal; a caller that passes back how far it looked makes a dripping head linear.
//!
//! It never decides what a field means to the gateway: `Upgrade`, which a server may ignore
//! (RFC 9110, 7.8) and which Java's client sends with every first request, is left to lie there.

mod check;
mod lines;
mod refusal;
mod start;

use memchr::memchr_iter;
use smallvec::SmallVec;

use crate::base::limits;
use crate::wire::Span;

use check::{check_octets, coding, is_host, length};
use lines::field_lines;
use start::{request_line, status_line};

pub use refusal::Refusal;

/// One header field: spans into the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// As it was sent; compare without case.
    pub name: Span,
    /// Without the white space around it.
    pub value: Span,
}

/// The fields of a head, in the order in which they came.
pub type Fields = SmallVec<[Field; 24]>;

/// How the body after a head ends (RFC 9112, 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is no body.
    None,
    /// Exactly this many bytes, at most `i64::MAX`.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// All bytes until the connection ends (responses only).
    UntilClose,
}

/// The methods that anything here cares about. `CONNECT` and `TRACE` are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// Another token.
    Other,
}

impl Method {
    /// The method as it stands in a request line; `OTHER` for a token that nothing here knows.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Other => "OTHER",
        }
    }
}

/// A request head that has one meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with `/`; of an absolute target what follows the authority. `*` with
    /// `OPTIONS` (RFC 9112, 3.2).
    pub target: Span,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1 and above.
    pub minor: u8,
    /// All fields.
    pub fields: Fields,
    /// How the body ends; never `UntilClose`.
    pub framing: Framing,
    /// Whether the client expects the connection to outlive this exchange.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Bytes of the head, its empty line included; the body begins there.
    pub len: usize,
}

/// A response head that has one meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResponseHead {
    /// 100 to 999, without 101. After a 1xx another head follows.
    pub status: u16,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor: u8,
    /// All fields.
    pub fields: Fields,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the connection may be used again after the body.
    pub keep_alive: bool,
    /// Bytes of the head, its empty line included; the body begins there.
    pub len: usize,
}

/// Reads a request head of at most `max` bytes. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// The head is not one that RFC 9112 allows, or not one that has a single meaning.
pub fn parse_request(bytes: &[u8], max: usize) -> Result<Option<RequestHead>, Refusal> {
    parse_request_from(bytes, &mut 0, max)
}

/// As [`parse_request`]; `looked` carries from call to call how far the end of the head has been
/// searched for. Begin with 0, pass the same bytes with more behind them, and a head that arrives
/// byte by byte costs as much as one that arrives whole.
///
/// # Errors
/// As [`parse_request`].
pub fn parse_request_from(
    bytes: &[u8],
    looked: &mut usize,
    max: usize,
) -> Result<Option<RequestHead>, Refusal> {
    let skip = match leading_lines(bytes) {
        Ok(skip) => skip,
        Err(None) => return Ok(None),
        Err(Some(refusal)) => return Err(refusal),
    };
    let window = &bytes[..bytes.len().min(max)];
    let line_end = memchr::memchr(b'\n', window.get(skip..).unwrap_or_default());
    let line_end = line_end.map(|at| skip + at);
    let mut line = None;
    if let Some(at) = line_end.filter(|at| *looked <= *at) {
        line = Some(request_line(bytes, skip, at)?);
    }
    let Some(end) = find_end(bytes, skip, looked, max)? else { return Ok(None) };
    let Some(line_end) = line_end else { return Err(Refusal::StartLine) };
    let line = line.map_or_else(|| request_line(bytes, skip, line_end), Ok)?;
    check_octets(&bytes[line_end + 1..end])?;
    let (method, target, minor) = (line.method, line.target, line.minor);
    let mut fields = Fields::new();
    field_lines(bytes, line_end + 1, end, &mut fields)?;
    let facts = Facts::gather(bytes, &fields)?;
    facts.check_host(bytes, minor)?;
    let framing = facts.framing(bytes, minor)?.unwrap_or(Framing::None);
    let expect_continue = facts.expects(bytes)? && minor == 1;
    let keep_alive = facts.keep_alive(minor);
    debug_assert!(framing != Framing::UntilClose && end <= max);
    Ok(Some(RequestHead {
        method,
        target,
        minor,
        fields,
        framing,
        keep_alive,
        expect_continue,
        len: end,
    }))
}

/// Reads a response head of at most `max` bytes; `to_head` says that the request was a `HEAD`.
/// `Ok(None)`: more bytes are needed. After a 1xx the caller reads the next head.
///
/// # Errors
/// The head is not one that RFC 9112 allows, or not one that has a single meaning.
pub fn parse_response(
    bytes: &[u8],
    max: usize,
    to_head: bool,
) -> Result<Option<ResponseHead>, Refusal> {
    parse_response_from(bytes, &mut 0, max, to_head)
}

/// As [`parse_response`], with `looked` as in [`parse_request_from`].
///
/// # Errors
/// As [`parse_response`].
pub fn parse_response_from(
    bytes: &[u8],
    looked: &mut usize,
    max: usize,
    to_head: bool,
) -> Result<Option<ResponseHead>, Refusal> {
    match bytes.first() {
        None => return Ok(None),
        Some(b'H') => {}
        Some(b'\r' | b'\n') => return Err(Refusal::EmptyLines),
        Some(_) => return Err(Refusal::StartLine),
    }
    let Some(end) = find_end(bytes, 0, looked, max)? else { return Ok(None) };
    check_octets(&bytes[..end])?;

    let line_end = memchr::memchr(b'\n', &bytes[..end]).unwrap_or(end);
    let (status, minor) = status_line(&bytes[..line_end])?;
    if status < 100 {
        return Err(Refusal::Status);
    }
    if status == 101 {
        return Err(Refusal::Switched);
    }
    let mut fields = Fields::new();
    field_lines(bytes, line_end + 1, end, &mut fields)?;
    let facts = Facts::gather(bytes, &fields)?;
    let stated = facts.framing(bytes, minor)?;
    let bodyless = to_head || status < 200 || status == 204 || status == 304;
    let framing = if bodyless { Framing::None } else { stated.unwrap_or(Framing::UntilClose) };
    let keep_alive = facts.keep_alive(minor) && framing != Framing::UntilClose;
    debug_assert!(end <= max);
    Ok(Some(ResponseHead { status, minor, fields, framing, keep_alive, len: end }))
}

impl RequestHead {
    /// The value of the first field with this name (any case).
    pub fn field<'b>(&self, bytes: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
        field(&self.fields, bytes, name)
    }

    /// The values of all fields with this name (any case), in order.
    pub fn fields_named<'a>(
        &'a self,
        bytes: &'a [u8],
        name: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        fields_named(&self.fields, bytes, name)
    }

    /// The target up to its `?`.
    pub fn path<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let target = self.target.of(bytes);
        &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]
    }

    /// The target after its `?`; empty without one.
    pub fn query<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let target = self.target.of(bytes);
        memchr::memchr(b'?', target).map_or(&[], |at| &target[at + 1..])
    }
}

impl ResponseHead {
    /// The value of the first field with this name (any case).
    pub fn field<'b>(&self, bytes: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
        field(&self.fields, bytes, name)
    }

    /// The values of all fields with this name (any case), in order.
    pub fn fields_named<'a>(
        &'a self,
        bytes: &'a [u8],
        name: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        fields_named(&self.fields, bytes, name)
    }
}

/// Whether nothing but empty lines has come, or nothing at all: no request has begun.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// Whether what may be no request at all begins as a `HEAD` does.
pub fn is_head(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"HEAD ")
}

/// Whether `Connection` names this field, so that it is for this hop only and goes no further (RFC 9110,
/// 7.6.1).
pub fn is_nominated(fields: &[Field], bytes: &[u8], name: &[u8]) -> bool {
    fields_named(fields, bytes, b"connection")
        .any(|value| list(value).any(|option| option.eq_ignore_ascii_case(name)))
}

/// The value of the first of `fields` with this name (any case).
pub fn field<'b>(fields: &[Field], bytes: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    let found = fields.iter().find(|field| field.name.of(bytes).eq_ignore_ascii_case(name))?;
    Some(found.value.of(bytes))
}

/// The values of all of `fields` with this name (any case), in order.
pub fn fields_named<'a>(
    fields: &'a [Field],
    bytes: &'a [u8],
    name: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> + 'a {
    fields
        .iter()
        .filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name))
        .map(move |field| field.value.of(bytes))
}

/// The members of a comma-separated list value, trimmed, empty ones left out (RFC 9110, 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|item| !item.is_empty())
}

/// Whether `byte` may stand in a token (RFC 9110, 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// By a table: names are read and written byte by byte, several dozen for each message.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let octet = byte as u8;
        let marks = b"!#$%&'*+-.^_`|~";
        let mut mark = 0;
        while mark < marks.len() {
            table[byte] |= marks[mark] == octet;
            mark += 1;
        }
        table[byte] |= octet.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// What the fields say about the connection and the body, before a verdict. `Host` and `Expect`
/// mean something in requests only, so a response is not refused for them.
#[derive(Default)]
struct Facts {
    length: Option<Span>,
    coding: Option<Span>,
    host: Option<Span>,
    host_repeated: bool,
    expect: Option<Span>,
    expect_repeated: bool,
    close: bool,
    persist: bool,
}

impl Facts {
    fn gather(bytes: &[u8], fields: &[Field]) -> Result<Facts, Refusal> {
        let mut facts = Facts::default();
        for field in fields {
            let name = field.name.of(bytes);
            // By length first: nearly every field ends here, without a comparison.
            match name.len() {
                4 if is_named(name, b"host") => {
                    facts.host_repeated |= facts.host.replace(field.value).is_some()
                }
                6 if is_named(name, b"expect") => {
                    facts.expect_repeated |= facts.expect.replace(field.value).is_some();
                }
                10 if is_named(name, b"connection") => facts.connection(field.value.of(bytes)),
                14 if is_named(name, b"content-length")
                    && facts.length.replace(field.value).is_some() =>
                {
                    return Err(Refusal::LengthRepeated);
                }
                17 if is_named(name, b"transfer-encoding")
                    && facts.coding.replace(field.value).is_some() =>
                {
                    return Err(Refusal::CodingRepeated);
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.persist |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112, 9.3.
    fn keep_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.persist)
    }

    /// RFC 9112, 3.2.
    fn check_host(&self, bytes: &[u8], minor: u8) -> Result<(), Refusal> {
        match self.host {
            Some(_) if self.host_repeated => Err(Refusal::HostRepeated),
            None if minor == 1 => Err(Refusal::HostMissing),
            None => Ok(()),
            Some(value) if is_host(value.of(bytes)) => Ok(()),
            Some(_) => Err(Refusal::HostMalformed),
        }
    }

    /// RFC 9110, 10.1.1: `100-continue` is the only expectation there is.
    fn expects(&self, bytes: &[u8]) -> Result<bool, Refusal> {
        let Some(value) = self.expect else { return Ok(false) };
        let known = value.of(bytes).eq_ignore_ascii_case(b"100-continue");
        if known && !self.expect_repeated { Ok(true) } else { Err(Refusal::Expectation) }
    }

    /// The one verdict on framing; `None`: neither field is there.
    fn framing(&self, bytes: &[u8], minor: u8) -> Result<Option<Framing>, Refusal> {
        match (self.length, self.coding) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Refusal::LengthAndCoding),
            (Some(value), None) => length(value.of(bytes)).map(|n| Some(Framing::Length(n))),
            (None, Some(_)) if minor == 0 => Err(Refusal::CodingInOldVersion),
            (None, Some(value)) => coding(value.of(bytes)).map(|()| Some(Framing::Chunked)),
        }
    }
}

/// Whether a name, which is a token, is `lower`, which is of letters and hyphens. Among the octets of a
/// token only a letter of the other case differs from a letter in this bit, and none from a hyphen.
fn is_named<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    name.iter().zip(lower).fold(0, |other, (byte, lower)| other | ((byte | 0x20) ^ lower)) == 0
}

/// A few empty lines may come before a request (RFC 9112, 2.2): old clients put one behind a body. Gives
/// how many bytes to skip, `Err(None)` while that is open.
fn leading_lines(bytes: &[u8]) -> Result<usize, Option<Refusal>> {
    let mut skip = 0;
    for _ in 0..=limits::EMPTY_LINES_MAX {
        match &bytes[skip..] {
            [] | [b'\r'] => return Err(None),
            [b'\r', b'\n', ..] => skip += 2,
            [b'\r', ..] => return Err(Some(Refusal::BareCr)),
            [b'\n', ..] => return Err(Some(Refusal::BareLf)),
            // A TLS hello or other noise is answered at once, not after a time-out.
            [byte, ..] if !is_token(*byte) => return Err(Some(Refusal::StartLine)),
            _ => return Ok(skip),
        }
    }
    Err(Some(Refusal::EmptyLines))
}

/// The index after the empty line that ends the head; `Ok(None)` while it is not there yet.
fn find_end(
    bytes: &[u8],
    skip: usize,
    looked: &mut usize,
    max: usize,
) -> Result<Option<usize>, Refusal> {
    let window = &bytes[..bytes.len().min(max)];
    let from = (*looked).clamp(skip, window.len().max(skip));
    for at in memchr_iter(b'\n', window.get(from..).unwrap_or_default()) {
        let at = from + at;
        if at == 0 || window[at - 1] != b'\r' {
            return Err(Refusal::BareLf);
        }
        if at >= skip + 3 && window[at - 3..at - 1] == *b"\r\n" {
            return Ok(Some(at + 1));
        }
    }
    *looked = window.len();
    if bytes.len() < max {
        return Ok(None);
    }
    match memchr::memchr(b'\n', window.get(skip..).unwrap_or_default()) {
        Some(_) => Err(Refusal::TooLarge),
        None => Err(Refusal::LineTooLong),
    }
}

fn method_of(token: &[u8]) -> Result<Method, Refusal> {
    Ok(match token {
        b"GET" => Method::Get,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"PATCH" => Method::Patch,
        b"DELETE" => Method::Delete,
        b"HEAD" => Method::Head,
        b"OPTIONS" => Method::Options,
        b"CONNECT" | b"TRACE" => return Err(Refusal::Method),
        _ => Method::Other,
    })
}

/// Without the spaces and tabs around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests;
