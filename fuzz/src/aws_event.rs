//! Messages of the AWS event stream: what is sound is found as it was built, by a sum and a header
//! reader of their own; a prefix never says more than the whole.

use firstbyte::wire::aws_event::{self, Message, Unsound};

const MAX: usize = 1 << 20;

/// Checks one input: as it is, and as the insides of a sound message.
pub fn check(data: &[u8]) {
    let (cuts, raw) = crate::cuts(data);
    prefixes(raw, &cuts);
    let Some((share, rest)) = raw.split_first() else { return };
    let (headers, payload) = rest.split_at(usize::from(*share) * rest.len() / 255);
    let mut bytes = build(headers, payload);
    let len = bytes.len();
    bytes.extend(raw);
    prefixes(&bytes, &cuts);
    match (naive(headers), aws_event::next(&bytes, MAX)) {
        (None, found) => assert_eq!(found, Err(Unsound::Headers)),
        (Some(headers), Ok(Some(message))) => {
            assert_eq!((message.len, message.payload.of(&bytes)), (len, payload));
            named(&message, &bytes, &headers);
        }
        (Some(_), found) => panic!("{found:?}"),
    }
    // One bit that is not as it was sent.
    let at = usize::from(*share) * (len - 1) / 255;
    bytes[at] ^= 1 << (at % 8);
    assert!(!matches!(aws_event::next(&bytes, MAX), Ok(Some(_))), "byte {at}");
}

/// Before a message is whole nothing is known but that its lengths are bad.
fn prefixes(bytes: &[u8], cuts: &[usize]) {
    let whole = aws_event::next(bytes, MAX);
    for cut in cuts {
        let found = aws_event::next(&bytes[..*cut], MAX);
        let needs_more = whole.is_err() || whole.is_ok_and(|m| m.is_none_or(|m| m.len > *cut));
        assert!(found == whole || (needs_more && found == Ok(None)), "{found:?}, {whole:?}");
    }
}

fn named(message: &Message, bytes: &[u8], headers: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let text = |name: &str| {
        let header = headers.iter().find(|(known, _)| known == name.as_bytes());
        header.and_then(|(_, text)| text.clone())
    };
    let (kind, name) = match text(":message-type").as_deref() {
        Some(b"event") => (aws_event::Kind::Event, text(":event-type")),
        Some(b"exception") => (aws_event::Kind::Exception, text(":exception-type")),
        Some(b"error") => (aws_event::Kind::Error, text(":error-code")),
        _ => (aws_event::Kind::Other, None),
    };
    assert_eq!(message.kind, kind);
    assert_eq!(message.name.of(bytes), name.unwrap_or_default());
    assert_eq!(message.text.of(bytes), text(":error-message").unwrap_or_default());
}

/// A message around these headers and this payload.
pub(crate) fn build(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = (16 + headers.len() + payload.len()) as u32;
    let mut out = [total.to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    out.extend(sum(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(sum(&out).to_be_bytes());
    out
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

/// Names, and the values that are text. `None`: broken, twice the same, or too many.
fn naive(mut rest: &[u8]) -> Option<Vec<(Vec<u8>, Option<Vec<u8>>)>> {
    fn cut<'b>(rest: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
        let (head, tail) = rest.split_at_checked(len)?;
        *rest = tail;
        Some(head)
    }
    let mut found: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(cut(&mut rest, 1)?[0]);
        let name = cut(&mut rest, len)?;
        let kind = cut(&mut rest, 1)?[0];
        let len = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            9 => 16,
            6 | 7 => {
                let len = cut(&mut rest, 2)?;
                usize::from(len[0]) << 8 | usize::from(len[1])
            }
            _ => return None,
        };
        let value = cut(&mut rest, len)?;
        if name.is_empty() || found.iter().any(|(known, _)| known == name) || found.len() == 64 {
            return None;
        }
        found.push((name.to_vec(), (kind == 7).then(|| value.to_vec())));
    }
    Some(found)
}
