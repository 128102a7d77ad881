//! A second reader of HTTP/1.1 responses, from RFC 9112 as it stands there, over all that a connection
//! said until it ended. It takes whatever the RFC lets a client take.

use crate::naive::{self, Stop};

/// A response that is not an interim one.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The payload; `Err`: why there is none that is whole.
    pub body: Result<Vec<u8>, &'static str>,
}

/// Reads the response to a POST. `Err`: why there is none.
pub fn read(bytes: &[u8]) -> Result<Response, &'static str> {
    let mut at = 0;
    loop {
        match one(&bytes[at..]) {
            // Section 15.2 of RFC 9110: any number may come before.
            Ok((interim, used)) if interim.status < 200 => at += used,
            Ok((response, _)) => return Ok(response),
            Err(stop) => return Err(why(stop)),
        }
    }
}

fn why(stop: Stop) -> &'static str {
    match stop {
        Stop::More => "it is not over",
        Stop::Bad(why) => why,
    }
}

fn one(bytes: &[u8]) -> Result<(Response, usize), Stop> {
    let (first, mut at) = naive::line(bytes, 0)?;
    let (minor, status) = status_line(first)?;
    let mut fields = Vec::new();
    loop {
        let (text, next) = naive::line(bytes, at)?;
        at = next;
        if text.is_empty() {
            break;
        }
        fields.push(naive::field(text)?);
    }
    let (body, used) = if status < 200 || status == 204 || status == 304 {
        (Ok(Vec::new()), 0)
    } else {
        match payload(&bytes[at..], &fields, minor) {
            Ok((body, used)) => (Ok(body), used),
            Err(stop) => (Err(why(stop)), 0),
        }
    };
    Ok((Response { status, body }, at + used))
}

fn status_line(text: &[u8]) -> Result<(u8, u16), Stop> {
    let bad = Stop::Bad("the status line");
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9', b' ', rest @ ..] = text
    else {
        return Err(bad);
    };
    let (digits, reason) = rest.split_at(rest.len().min(3));
    let plain = digits.len() == 3 && digits.iter().all(u8::is_ascii_digit);
    let control = reason.iter().any(|b| *b < 0x20 && *b != b'\t' || *b == 0x7f);
    if !plain || digits[0] == b'0' || control || !(reason.is_empty() || reason[0] == b' ') {
        return Err(bad);
    }
    let digit = |at: usize| u16::from(digits[at] - b'0');
    Ok((u8::from(*minor > b'0'), digit(0) * 100 + digit(1) * 10 + digit(2)))
}

/// Section 6.3, rules 3 to 8.
fn payload(rest: &[u8], fields: &[(String, Vec<u8>)], minor: u8) -> Result<(Vec<u8>, usize), Stop> {
    if fields.iter().any(|(name, _)| name == "transfer-encoding") && minor > 0 {
        // The end of the connection ends what is not chunked last, and nobody knows such a coding.
        let codings = naive::members(fields, "transfer-encoding");
        return match &codings[..] {
            [only] if only.eq_ignore_ascii_case(b"chunked") => naive::chunks(rest),
            _ => Err(Stop::Bad("a transfer coding that nobody knows")),
        };
    }
    let lengths = naive::members(fields, "content-length");
    let Some(first) = lengths.first() else { return Ok((rest.to_vec(), rest.len())) };
    let same = lengths.iter().all(|length| length == first);
    if !same || first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return Err(Stop::Bad("Content-Length"));
    }
    let length: usize = String::from_utf8_lossy(first).parse().map_err(|_| Stop::More)?;
    rest.get(..length).map(|body| (body.to_vec(), length)).ok_or(Stop::More)
}
