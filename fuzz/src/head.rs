//! Heads: cutting changes nothing; what is accepted is unambiguous to a reader that knows only
//! lines and colons.

use firstbyte::wire::http1::head::{
    Field, Framing, Refusal, parse_request, parse_request_from, parse_response, parse_response_from,
};

const MAX: usize = 1024;

/// Checks one input.
pub fn check(data: &[u8]) {
    let (cuts, bytes) = crate::cuts(data);
    let whole = parse_request(bytes, MAX);
    let mut looked = 0;
    let pieces = pieces(bytes, &cuts, |part| parse_request_from(part, &mut looked, MAX));
    assert_eq!(pieces, whole);
    if let Ok(Some(head)) = whole {
        assert_ne!(head.framing, Framing::UntilClose);
        let lines = lines(&bytes[..head.len]);
        let target = head.target.of(bytes);
        assert!(target.starts_with(b"/") || target == b"*");
        assert!(lines[0].windows(target.len()).any(|part| part == target));
        same_fields(bytes, &head.fields, &lines[1..]);
        assert!(head.minor == 0 || count(&lines, b"host") == 1);
        framed(&lines, head.framing, head.framing == Framing::None);
    }

    let whole = parse_response(bytes, MAX, false);
    let mut looked = 0;
    let pieces =
        self::pieces(bytes, &cuts, |part| parse_response_from(part, &mut looked, MAX, false));
    assert_eq!(pieces, whole);
    if let Ok(Some(head)) = whole {
        let lines = lines(&bytes[..head.len]);
        same_fields(bytes, &head.fields, &lines[1..]);
        let bodyless = head.status < 200 || matches!(head.status, 204 | 304);
        framed(&lines, head.framing, bodyless || head.framing == Framing::UntilClose);
        let to_head = parse_response(bytes, MAX, true).unwrap().unwrap();
        assert_eq!((to_head.framing, to_head.len), (Framing::None, head.len));
    }
}

/// The first answer other than "more bytes".
fn pieces<T>(
    bytes: &[u8],
    cuts: &[usize],
    mut parse: impl FnMut(&[u8]) -> Result<Option<T>, Refusal>,
) -> Result<Option<T>, Refusal> {
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        if let Some(head) = parse(&bytes[..cut])? {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// The lines of an accepted head, without its empty ones. Each must be free of control octets.
fn lines(head: &[u8]) -> Vec<&[u8]> {
    let mut head = head;
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    let head = head.strip_suffix(b"\r\n\r\n").expect("an accepted head ends with an empty line");
    let mut lines = vec![];
    let mut rest = head;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    for line in &lines {
        assert!(!line.is_empty());
        assert!(line.iter().all(|b| *b == b'\t' || (*b >= 32 && *b != 127)), "{line:?}");
    }
    lines
}

fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').expect("a field line has a colon");
    (&line[..colon], line[colon + 1..].trim_ascii())
}

fn same_fields(bytes: &[u8], fields: &[Field], lines: &[&[u8]]) {
    assert_eq!(fields.len(), lines.len());
    for (field, line) in fields.iter().zip(lines) {
        let (name, value) = split(line);
        assert_eq!((field.name.of(bytes), field.value.of(bytes)), (name, value));
        assert!(!name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic()));
    }
}

fn values<'a>(lines: &[&'a [u8]], name: &[u8]) -> Vec<&'a [u8]> {
    let fields = lines[1..].iter().map(|line| split(line));
    fields.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

fn count(lines: &[&[u8]], name: &[u8]) -> usize {
    values(lines, name).len()
}

/// The verdict follows from the fields; `open`: it is one that needs none of them.
fn framed(lines: &[&[u8]], framing: Framing, open: bool) {
    let lengths = values(lines, b"content-length");
    let codings = values(lines, b"transfer-encoding");
    assert!(lengths.len() + codings.len() <= 1, "ambiguous framing was accepted");
    for value in &lengths {
        assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit));
    }
    for value in &codings {
        assert!(value.eq_ignore_ascii_case(b"chunked"));
    }
    if open {
        return;
    }
    match framing {
        Framing::Chunked => assert_eq!(codings.len(), 1),
        Framing::Length(length) => {
            let text = std::str::from_utf8(lengths[0]).unwrap();
            assert_eq!(text.parse::<u64>().unwrap(), length);
        }
        Framing::None | Framing::UntilClose => {
            panic!("{framing:?} beside {lengths:?} {codings:?}")
        }
    }
}
