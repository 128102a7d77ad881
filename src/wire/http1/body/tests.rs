//! Cases, and a decoder that is written as the grammar reads as the oracle.

use proptest::prelude::*;

use super::*;

/// What a whole raw body is: its payload and how many raw bytes it took.
type Whole = Result<(Vec<u8>, usize, bool), BodyFault>;

/// Feeds `raw` in pieces that end at `cuts`.
fn decode(framing: Framing, raw: &[u8], cuts: &[usize]) -> Whole {
    let mut body = Body::new(framing);
    let (mut payload, mut used, mut from) = (Vec::new(), 0, 0);
    for cut in cuts.iter().copied().chain([raw.len()]) {
        let mut piece = raw[from..cut].to_vec();
        let decoded = body.decode(&mut piece)?;
        payload.extend_from_slice(&piece[..decoded.payload]);
        assert_eq!(&piece[decoded.used..], &raw[from + decoded.used..cut], "the rest moved");
        used += decoded.used;
        assert_eq!(decoded.done, body.is_done());
        if decoded.done {
            return Ok((payload, used, true));
        }
        assert_eq!(decoded.used, piece.len());
        from = cut;
    }
    Ok((payload, used, false))
}

fn chunked(raw: &[u8]) -> Whole {
    decode(Framing::Chunked, raw, &[])
}

#[test]
fn chunked_bodies_are_decoded() {
    let cases: &[(&[u8], &[u8])] = &[
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", b"hello world"),
        (b"000000000A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a;x=y;z=\"q r\"\r\n0123456789\r\n0;e\r\n\r\n", b"0123456789"),
        (b"a; x = y\t; z = \"q;\\\"\t\" ; e\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"1\r\n\r\r\n1\r\n\n\r\n0\r\nA: b\r\nC:\r\n\r\n", b"\r\n"),
    ];
    for (raw, payload) in cases {
        assert_eq!(chunked(raw), Ok((payload.to_vec(), raw.len(), true)));
        let next = [raw, &b"GET / HTTP/1.1\r\n"[..]].concat();
        assert_eq!(chunked(&next), Ok((payload.to_vec(), raw.len(), true)));
        for cut in 0..raw.len() {
            let part = chunked(&raw[..cut]).unwrap();
            assert!(!part.2 && part.1 == cut);
        }
    }
}

#[test]
fn broken_chunks_are_refused() {
    let cases: &[(&[u8], BodyFault)] = &[
        (b"\r\n", BodyFault::ChunkSize),
        (b";a\r\n", BodyFault::ChunkSize),
        (b"x\r\n", BodyFault::ChunkSize),
        (b"0x5\r\nhello\r\n", BodyFault::ChunkSize),
        (b"+5\r\n", BodyFault::ChunkSize),
        (b"-5\r\n", BodyFault::ChunkSize),
        (b" 5\r\n", BodyFault::ChunkSize),
        (b"5 \r\n", BodyFault::ChunkSize),
        (b"5\t;a\r\n", BodyFault::ChunkSize),
        (b"5_0\r\n", BodyFault::ChunkSize),
        (b"5\nhello\r\n", BodyFault::ChunkSize),
        (b"00000000005\r\n", BodyFault::ChunkSize),
        (b"fffffffffff\r\n", BodyFault::ChunkSize),
        (b"10000000000000000\r\n", BodyFault::ChunkSize),
        (b"5;a\nhello\r\n", BodyFault::ChunkExtension),
        (b"5;a\0\r\n", BodyFault::ChunkExtension),
        (b"5;a\x7f\r\n", BodyFault::ChunkExtension),
        (b"5;a\rb\r\n", BodyFault::LineEnd),
        (b"5;\r\n", BodyFault::ChunkExtension),
        (b"5;;a\r\n", BodyFault::ChunkExtension),
        (b"5;a=\r\n", BodyFault::ChunkExtension),
        (b"5;=a\r\n", BodyFault::ChunkExtension),
        (b"5;a b\r\n", BodyFault::ChunkExtension),
        (b"5;a \r\n", BodyFault::ChunkExtension),
        (b"5;a=b \r\n", BodyFault::ChunkExtension),
        (b"5;a=b=c\r\n", BodyFault::ChunkExtension),
        (b"5;a=\"b\r\n", BodyFault::ChunkExtension),
        (b"5;a=\"b\\\r\n", BodyFault::ChunkExtension),
        (b"5;a=\"b\"c\r\n", BodyFault::ChunkExtension),
        (b"5;a=\"b\"\"c\"\r\n", BodyFault::ChunkExtension),
        (b"5;a=(b)\r\n", BodyFault::ChunkExtension),
        (b"5\rhello\r\n", BodyFault::LineEnd),
        (b"5\r\nhello!", BodyFault::LineEnd),
        (b"5\r\nhello\n", BodyFault::LineEnd),
        (b"5\r\nhello\rx", BodyFault::LineEnd),
        (b"5\r\nhello0\r\n\r\n", BodyFault::LineEnd),
        (b"0\r\n\n", BodyFault::Trailer),
        (b"0\r\n\rx", BodyFault::LineEnd),
        (b"0\r\n a: b\r\n", BodyFault::Trailer),
        (b"0\r\n: b\r\n", BodyFault::Trailer),
        (b"0\r\na b: c\r\n", BodyFault::Trailer),
        (b"0\r\na : c\r\n", BodyFault::Trailer),
        (b"0\r\na\r\n", BodyFault::Trailer),
        (b"0\r\na: b\n\r\n", BodyFault::Trailer),
        (b"0\r\na: b\0\r\n", BodyFault::Trailer),
        (b"0\r\na: b\r\r\n", BodyFault::LineEnd),
        (b"0\r\nGET / HTTP/1.1\r\n", BodyFault::Trailer),
    ];
    for (raw, fault) in cases {
        assert_eq!(chunked(raw), Err(*fault), "{:?}", String::from_utf8_lossy(raw));
        let mut body = Body::new(Framing::Chunked);
        let _ = body.decode(&mut raw.to_vec());
        let again = (body.decode(&mut b"0\r\n\r\n".to_vec()), body.decode(&mut []), body.eof());
        assert_eq!(again, (Err(*fault), Err(*fault), Err(*fault)), "a fault is final");
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let extension = |len| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(len));
    assert!(chunked(extension(limits::CHUNK_EXTENSION_MAX - 1).as_bytes()).is_ok());
    let long = extension(limits::CHUNK_EXTENSION_MAX);
    assert_eq!(chunked(long.as_bytes()), Err(BodyFault::ChunkExtension));

    let many = |count| format!("{}0\r\n\r\n", "1;aaaaaaa\r\nx\r\n".repeat(count));
    assert!(chunked(many(limits::CHUNK_EXTENSIONS_MAX / 8).as_bytes()).unwrap().2);
    let long = many(limits::CHUNK_EXTENSIONS_MAX / 8 + 1);
    assert_eq!(chunked(long.as_bytes()), Err(BodyFault::ChunkExtension));

    let trailers = |count| format!("0\r\n{}\r\n", "a:bcde\r\n".repeat(count));
    assert!(chunked(trailers(limits::TRAILER_BYTES_MAX / 8).as_bytes()).unwrap().2);
    let long = trailers(limits::TRAILER_BYTES_MAX / 8 + 1);
    assert_eq!(chunked(long.as_bytes()), Err(BodyFault::TrailerTooLarge));
}

#[test]
fn lengths_end_where_they_say() {
    assert_eq!(decode(Framing::None, b"GET", &[]), Ok((vec![], 0, true)));
    assert_eq!(decode(Framing::Length(0), b"GET", &[]), Ok((vec![], 0, true)));
    assert_eq!(decode(Framing::Length(2), b"okGET", &[]), Ok((b"ok".to_vec(), 2, true)));
    assert_eq!(decode(Framing::Length(9), b"ok", &[1]), Ok((b"ok".to_vec(), 2, false)));
    let mut body = Body::new(Framing::Length(i64::MAX as u64));
    assert_eq!(body.decode(&mut [0; 7]).unwrap().payload, 7);
    assert_eq!(body.left(), Some(i64::MAX as u64 - 7));
}

#[test]
fn the_end_of_the_connection_ends_only_what_it_may() {
    let mut body = Body::new(Framing::UntilClose);
    assert_eq!(body.decode(&mut b"ab".to_vec()), Ok(Decoded { payload: 2, used: 2, done: false }));
    assert_eq!((body.is_done(), body.eof(), body.is_done()), (false, Ok(()), true));
    assert_eq!(body.decode(&mut b"c".to_vec()), Ok(Decoded { payload: 0, used: 0, done: true }));

    for framing in [Framing::Length(1), Framing::Chunked] {
        let mut body = Body::new(framing);
        assert_eq!((body.eof(), body.is_done()), (Err(BodyFault::Cut), false));
        assert_eq!(body.decode(&mut b"x".to_vec()), Err(BodyFault::Cut));
    }
    for raw in [&b"1"[..], b"1\r\n", b"1\r\nx\r\n", b"0\r\n", b"0\r\n\r"] {
        let mut body = Body::new(Framing::Chunked);
        body.decode(&mut raw.to_vec()).unwrap();
        assert_eq!(body.eof(), Err(BodyFault::Cut), "{raw:?}");
    }
    assert_eq!(Body::new(Framing::None).eof(), Ok(()));
}

/// Reads a whole chunked body line by line. `None`: incomplete or broken.
fn oracle(mut raw: &[u8]) -> Option<(Vec<u8>, usize)> {
    let total = raw.len();
    let mut payload = Vec::new();
    let line = |raw: &mut &[u8]| -> Option<Vec<u8>> {
        let end = raw.windows(2).position(|pair| pair == b"\r\n")?;
        let line = raw[..end].to_vec();
        *raw = &raw[end + 2..];
        line.iter().all(|b| *b == b'\t' || (*b >= 32 && *b != 127)).then_some(line)
    };
    loop {
        let size_line = line(&mut raw)?;
        let text = String::from_utf8_lossy(&size_line).into_owned();
        let (digits, extension) = text.split_at(text.find(';').unwrap_or(text.len()));
        let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
        if !plain || digits.len() > limits::CHUNK_DIGITS_MAX {
            return None;
        }
        if extension.len() > limits::CHUNK_EXTENSION_MAX
            || !are_extensions(&size_line[digits.len()..])
        {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(raw.get(..size)?);
        raw = raw.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let trailer = line(&mut raw)?;
        if trailer.is_empty() {
            return Some((payload, total - raw.len()));
        }
        let colon = trailer.iter().position(|b| *b == b':')?;
        if colon == 0 || !trailer[..colon].iter().copied().all(is_token) {
            return None;
        }
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] )`, but for white space before the first.
fn are_extensions(mut rest: &[u8]) -> bool {
    let blank = |rest: &[u8]| rest.iter().take_while(|b| b" \t".contains(b)).count();
    let token = |rest: &[u8]| rest.iter().take_while(|b| is_token(**b)).count();
    while !rest.is_empty() {
        let Some(after) = rest[blank(rest)..].strip_prefix(b";") else { return false };
        rest = &after[blank(after)..];
        let name = token(rest);
        if name == 0 {
            return false;
        }
        rest = &rest[name..];
        let Some(after) = rest[blank(rest)..].strip_prefix(b"=") else { continue };
        rest = &after[blank(after)..];
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            loop {
                match quoted {
                    [] | [b'\\'] => return false,
                    [b'"', after @ ..] => break rest = after,
                    [b'\\', _, after @ ..] | [_, after @ ..] => quoted = after,
                }
            }
        } else {
            let value = token(rest);
            if value == 0 {
                return false;
            }
            rest = &rest[value..];
        }
    }
    true
}

/// Chunked bodies, most of them right.
fn raw_body() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (prop::collection::vec(any::<u8>(), 1..40), 0_u8..8).prop_map(|(data, form)| {
        let head = match form {
            0 => format!("{:X};ext=\"a b\"", data.len()),
            1 => format!("{:08x}", data.len()),
            _ => format!("{:x}", data.len()),
        };
        [head.as_bytes(), b"\r\n", &data, b"\r\n"].concat()
    });
    let end = prop_oneof![
        4 => Just(&b"0\r\n\r\n"[..]),
        2 => Just(&b"0\r\nA: b\r\nc-d:\t\r\n\r\n"[..]),
        1 => Just(&b"0\r\n"[..]),
        1 => Just(&b"0;x\r\n\r\nGET / HTTP/1.1\r\n\r\n"[..]),
        1 => Just(&b"0\r\n\n"[..]),
    ];
    (prop::collection::vec(chunk, 0..5), end)
        .prop_map(|(chunks, end)| [chunks.concat().as_slice(), end].concat())
}

fn check(raw: &[u8], seeds: &[prop::sample::Index]) -> Result<(), TestCaseError> {
    let whole = chunked(raw);
    match oracle(raw) {
        Some((payload, used)) => prop_assert_eq!(&whole, &Ok((payload, used, true))),
        None => prop_assert!(!matches!(whole, Ok((_, _, true))), "{:?}", whole),
    }
    let mut cuts: Vec<_> = seeds.iter().map(|seed| seed.index(raw.len() + 1)).collect();
    cuts.sort_unstable();
    prop_assert_eq!(&decode(Framing::Chunked, raw, &cuts), &whole);
    for cut in 0..=raw.len() {
        prop_assert_eq!(&decode(Framing::Chunked, raw, &[cut]), &whole);
    }
    let all: Vec<_> = (0..raw.len()).collect();
    prop_assert_eq!(&decode(Framing::Chunked, raw, &all), &whole);
    Ok(())
}

proptest! {
    #[test]
    fn equals_the_oracle_however_it_is_cut(
        raw in raw_body(),
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        check(&raw, &seeds)?;
    }

    #[test]
    fn equals_the_oracle_with_one_byte_changed(
        raw in raw_body(),
        place in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';'), Just(b' ')],
    ) {
        let mut raw = raw;
        let at = place.index(raw.len());
        raw[at] = byte;
        check(&raw, &[])?;
    }
}
