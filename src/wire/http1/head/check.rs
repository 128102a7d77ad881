//! Checks of single parts of a head.

use super::{Refusal, is_token, trim};

/// Refuses control octets and lone carriage returns anywhere in the head. Each line feed is known
/// to follow a carriage return, so there is a lone one exactly if their numbers differ.
pub(super) fn check_octets(head: &[u8]) -> Result<(), Refusal> {
    let (mut returns, mut feeds, mut control) = (0_usize, 0_usize, false);
    for chunk in head.chunks(128) {
        let (mut chunk_returns, mut chunk_feeds) = (0_u8, 0_u8);
        for byte in chunk {
            chunk_returns += u8::from(*byte == b'\r');
            chunk_feeds += u8::from(*byte == b'\n');
            control |= (*byte < 0x20) & (*byte != b'\t') & (*byte != b'\r') & (*byte != b'\n');
            control |= *byte == 0x7f;
        }
        returns += usize::from(chunk_returns);
        feeds += usize::from(chunk_feeds);
    }
    if control {
        return Err(Refusal::Control);
    }
    if returns == feeds { Ok(()) } else { Err(Refusal::BareCr) }
}

/// Origin-form: a path and a query of RFC 3986. The brackets, which it reserves for addresses, are
/// let through: many clients put them into queries, and they delimit nothing here.
pub(super) fn check_target(target: &[u8]) -> Result<(), Refusal> {
    if target.first() != Some(&b'/') {
        return Err(Refusal::TargetForm);
    }
    let mut at = 0;
    while let Some(byte) = target.get(at) {
        if OCTETS[*byte as usize] & TARGET != 0 {
            at += 1;
        } else if *byte == b'%' && is_hex_pair(&target[at + 1..]) {
            at += 3;
        } else {
            return Err(Refusal::TargetOctet);
        }
    }
    Ok(())
}

fn is_hex_pair(bytes: &[u8]) -> bool {
    matches!(bytes, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
}

/// What an octet may be part of.
static OCTETS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let octet = byte as u8;
        let shared = octet.is_ascii_alphanumeric()
            || matches!(octet, b'!' | b'$' | b'&'..=b'.' | b';' | b'=' | b'_' | b'~');
        if shared || matches!(octet, b'/' | b':' | b'?' | b'@' | b'[' | b']') {
            table[byte] |= TARGET;
        }
        if shared || octet == b'%' {
            table[byte] |= HOST;
        }
        byte += 1;
    }
    table
};
/// A path and a query, as it is.
const TARGET: u8 = 1;
/// A host's name, an escape's percent sign too.
const HOST: u8 = 2;

/// `uri-host [ ":" port ]` with a host that is not empty.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(close) = memchr::memchr(b']', rest) else { return false };
            let address = &rest[..close];
            let text = std::str::from_utf8(address).unwrap_or_default();
            if text.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (address, &rest[close + 1..])
        }
        _ => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let bracketed = value.first() == Some(&b'[');
    let named = |b: &u8| OCTETS[*b as usize] & HOST != 0;
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && {
                digits.iter().fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0')) <= 65_535
            }
        }
        _ => false,
    };
    let escaped = |at: usize| is_hex_pair(&host[at + 1..]);
    let escapes_ok = memchr::memchr_iter(b'%', host).all(escaped);
    !host.is_empty() && port_ok && (bracketed || (escapes_ok && host.iter().all(named)))
}

/// `chunked` alone is understood. A list that ends with it and begins with codings that nothing here
/// knows is not implemented; whatever else stands there leaves the length open (RFC 9112, 6.3), and
/// that is an error of the sender's.
pub(super) fn coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(trim);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let last = codings.next_back().is_some_and(is_chunked);
    let unknown = |coding: &[u8]| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        !name.is_empty() && name.iter().all(|byte| is_token(*byte)) && !is_chunked(name)
    };
    Err(if last && codings.all(unknown) {
        Refusal::CodingUnknown
    } else {
        Refusal::CodingMalformed
    })
}

pub(super) fn length(value: &[u8]) -> Result<u64, Refusal> {
    // A list is two lengths in one field, and no more welcome than two fields.
    if memchr::memchr(b',', value).is_some() {
        return Err(Refusal::LengthRepeated);
    }
    if value.is_empty() {
        return Err(Refusal::LengthMalformed);
    }
    let mut number = 0_u64;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(Refusal::LengthMalformed);
        }
        number = number
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(byte - b'0')))
            .filter(|n| *n <= i64::MAX as u64)
            .ok_or(Refusal::LengthMalformed)?;
    }
    Ok(number)
}
