//! The lines behind the first: one field each (RFC 9112, 5). A line that begins with white space would
//! continue the one before it (obsolete folding) and is refused, as is white space before the colon.

use crate::base::limits;
use crate::wire::Span;

use super::{Field, Fields, Refusal, is_token};

/// The fields in `bytes[from..end]`, which are whole lines with an empty one at their end, whose octets
/// were checked.
pub(super) fn field_lines(
    bytes: &[u8],
    from: usize,
    end: usize,
    fields: &mut Fields,
) -> Result<(), Refusal> {
    debug_assert!(fields.is_empty() && bytes[..end].ends_with(b"\r\n"));
    let lines = &bytes[..end.saturating_sub(2)];
    let mut at = from;
    while at < lines.len() {
        let name = lines[at..].iter().position(|byte| !is_token(*byte)).unwrap_or_default();
        let colon = at + name;
        if name == 0 || lines[colon] != b':' {
            return Err(why(&lines[at..]));
        }
        if fields.len() == limits::HEAD_FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        let line_end = find_return(lines, colon + 1);
        let value = trimmed(lines, colon + 1, line_end);
        fields.push(Field { name: Span::new(at, colon), value });
        at = line_end + 2;
    }
    Ok(())
}

/// Index of the first carriage return from `at` on: it is known to end a line. Eight bytes at a time, since
/// most lines are too short for memchr.
fn find_return(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let zeroed = u64::from_le_bytes(*word) ^ (ONES * b'\r' as u64);
        // The lowest bit is that of the first byte which is zero now; false ones are above it.
        let found = zeroed.wrapping_sub(ONES) & !zeroed & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| *byte == b'\r').map_or(bytes.len(), |found| at + found)
}

/// `bytes[start..end]` without the spaces and tabs around it; an empty one lies nowhere.
fn trimmed(bytes: &[u8], mut start: usize, mut end: usize) -> Span {
    let blank = |at: usize| matches!(bytes.get(at), Some(b' ' | b'\t'));
    while start < end && blank(start) {
        start += 1;
    }
    while start < end && blank(end - 1) {
        end -= 1;
    }
    if start < end { Span::new(start, end) } else { Span::default() }
}

/// What is wrong with the name at the beginning of a line.
#[cold]
fn why(line: &[u8]) -> Refusal {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Refusal::Folded;
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let name = &line[..memchr::memchr(b':', line).unwrap_or(0)];
    match name.iter().position(|byte| !is_token(*byte)) {
        Some(at) if at > 0 && name[at..].iter().all(|b| matches!(b, b' ' | b'\t')) => {
            Refusal::SpaceBeforeColon
        }
        _ => Refusal::FieldName,
    }
}
