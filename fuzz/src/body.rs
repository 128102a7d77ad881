//! Bodies: any cutting gives the same payload, and a decoder of whole bodies agrees.

use firstbyte::base::limits;
use firstbyte::wire::http1::body::{Body, BodyFault};
use firstbyte::wire::http1::head::{Framing, is_token};

/// Checks one input.
pub fn check(data: &[u8]) {
    let (cuts, raw) = crate::cuts(data);
    let whole = decode(Framing::Chunked, raw, &[]);
    assert_eq!(decode(Framing::Chunked, raw, &cuts), whole);
    match (naive(raw), whole) {
        (Some((payload, used)), whole) => assert_eq!(whole, Ok((payload, used, true))),
        (None, whole) => assert!(!matches!(whole, Ok((_, _, true))), "{whole:?}"),
    }
    let length = raw.len() / 2;
    let expected = Ok((raw[..length].to_vec(), length, true));
    assert_eq!(decode(Framing::Length(length as u64), raw, &cuts), expected);
    let expected = Ok((raw.to_vec(), raw.len(), false));
    assert_eq!(decode(Framing::UntilClose, raw, &cuts), expected);
}

fn decode(
    framing: Framing,
    raw: &[u8],
    cuts: &[usize],
) -> Result<(Vec<u8>, usize, bool), BodyFault> {
    let mut body = Body::new(framing);
    let (mut payload, mut used, mut from) = (Vec::new(), 0, 0);
    for cut in cuts.iter().copied().chain([raw.len()]) {
        let mut piece = raw[from..cut].to_vec();
        let decoded = body.decode(&mut piece)?;
        payload.extend_from_slice(&piece[..decoded.payload]);
        assert_eq!(&piece[decoded.used..], &raw[from + decoded.used..cut]);
        used += decoded.used;
        if decoded.done {
            assert_eq!(body.eof(), Ok(()));
            return Ok((payload, used, true));
        }
        assert_eq!(decoded.used, piece.len());
        from = cut;
    }
    Ok((payload, used, false))
}

/// A whole chunked body, read by its grammar. `None`: broken, or not whole.
fn naive(raw: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut at, mut payload, mut extensions) = (0, Vec::new(), 0);
    loop {
        let line = line(raw, &mut at)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        let fits =
            digits <= limits::CHUNK_DIGITS_MAX && extension.len() <= limits::CHUNK_EXTENSION_MAX;
        extensions += extension.len();
        let fits = fits && extensions <= limits::CHUNK_EXTENSIONS_MAX;
        // Its grammar has white space before the first semicolon, which is not taken.
        let sound = extension.is_empty()
            || (extension[0] == b';' && crate::naive::is_extensions(extension));
        if digits == 0 || !fits || !sound {
            return None;
        }
        let text = std::str::from_utf8(&line[..digits]).ok()?;
        let size = usize::from_str_radix(text, 16).ok()?;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(raw.get(at..at.checked_add(size)?)?);
        at += size;
        if raw.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    let trailers = at;
    loop {
        let line = line(raw, &mut at)?;
        if line.is_empty() {
            return Some((payload, at));
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let named = colon > 0 && line[..colon].iter().copied().all(is_token);
        if !named || at - trailers > limits::TRAILER_BYTES_MAX {
            return None;
        }
    }
}

fn line<'a>(raw: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &raw[*at..];
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    let line = &rest[..end];
    line.iter().all(|b| *b == b'\t' || (*b >= 32 && *b != 127)).then_some(line)
}
