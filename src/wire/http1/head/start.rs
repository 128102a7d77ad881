//! The request line, read as RFC 9112 section 3 has it: two single spaces, and a verdict on each of the
//! three words. It is read as soon as its end is there, so that another protocol is told at once.
//!
//! ```text
//!   POST /v1/chat/completions HTTP/1.1           origin-form
//!   POST http://gateway/v1/models HTTP/1.1       absolute-form: the target is what follows the authority
//!   OPTIONS * HTTP/1.1                           asterisk-form: for OPTIONS only
//! ```
//!
//! The authority of an absolute target has to be one, and is then forgotten: it chooses nothing here, and
//! neither does `Host` (RFC 9112 section 3.2.2 has the first win over the second).

use crate::wire::Span;

use super::check::{check_target, is_host};
use super::{Method, Refusal, is_token, method_of};

/// What a request line says.
pub(super) struct RequestLine {
    pub method: Method,
    /// Begins with `/`, or is `*`.
    pub target: Span,
    /// 0 or 1: a minor version above 1 is read as 1 (RFC 9110 section 2.5).
    pub minor: u8,
}

/// Reads the line in `bytes[start..end]`, which stands before a line feed.
pub(super) fn request_line(bytes: &[u8], start: usize, end: usize) -> Result<RequestLine, Refusal> {
    let Some(line) = bytes[start..end].strip_suffix(b"\r") else { return Err(Refusal::BareLf) };
    let control = |bad, byte: &u8| bad | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f);
    if line.iter().fold(false, control) {
        return Err(if line.contains(&b'\r') { Refusal::BareCr } else { Refusal::Control });
    }
    // What stands in a third space's place is no version.
    let (method, rest) = word(line);
    let (target, version) = word(rest.unwrap_or_default());
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::StartLine);
    }
    let minor = match version {
        Some(version) => minor_of(version)?,
        // HTTP/0.9 has no version.
        None if check_target(target).is_ok() => return Err(Refusal::Version),
        None => return Err(Refusal::StartLine),
    };
    if target.is_empty() {
        return Err(Refusal::StartLine);
    }
    let method = method_of(method)?;
    let from = start + line.len() - (target.len() + 1 + 8);
    let target = match target {
        b"*" if method == Method::Options => Span::new(from, from + 1),
        [b'/', ..] => {
            check_target(target)?;
            Span::new(from, from + target.len())
        }
        _ => {
            let (first, last) = absolute(target)?;
            Span::new(from + first, from + last)
        }
    };
    Ok(RequestLine { method, target, minor })
}

/// What stands before the first space, and after it.
fn word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Reads a response's first line, which stands before a line feed and whose octets were checked: the
/// status and the minor version (RFC 9112 section 4). The reason means nothing, and may be missing with
/// its space.
pub(super) fn status_line(line: &[u8]) -> Result<(u16, u8), Refusal> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (minor, rest) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0', b' ', rest @ ..] => (0, rest),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', rest @ ..] => (1, rest),
        _ => return Err(Refusal::Version),
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    match rest {
        [a, b, c] | [a, b, c, b' ', ..] if [a, b, c].iter().all(|d| d.is_ascii_digit()) => {
            Ok((digit(a) * 100 + digit(b) * 10 + digit(c), minor))
        }
        _ => Err(Refusal::Status),
    }
}

/// `HTTP/1.` and a digit; another digit than 1 is another protocol, anything else is no version.
fn minor_of(version: &[u8]) -> Result<u8, Refusal> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok((minor - b'0').min(1))
            } else {
                Err(Refusal::Version)
            }
        }
        _ => Err(Refusal::StartLine),
    }
}

/// Where in an absolute target path and query lie. An empty path is `/`: then it is the slash before
/// the authority that stands for it, and a query behind it is left out, since nothing is there to query.
fn absolute(target: &[u8]) -> Result<(usize, usize), Refusal> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)))
        .ok_or(Refusal::TargetForm)?;
    let rest = &target[scheme.len()..];
    let ends = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (authority, path) = rest.split_at(ends.unwrap_or(rest.len()));
    if !is_host(authority) {
        return Err(Refusal::TargetAuthority);
    }
    if path.first() == Some(&b'/') {
        check_target(path)?;
        return Ok((target.len() - path.len(), target.len()));
    }
    check_target(&[b"/", path].concat())?;
    Ok((scheme.len() - 1, scheme.len()))
}
