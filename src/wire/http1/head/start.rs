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
    if line.contains(&b'\r') {
        return Err(Refusal::BareCr);
    }
    if line.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err(Refusal::Control);
    }
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (version, more) = (words.next(), words.next());
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) || more.is_some() {
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
