//! Lines of JSON (NDJSON): one value a line, ended by LF; the last one may lack it.

/// One line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'b> {
    /// The line without white space around it.
    pub text: &'b [u8],
    /// Bytes of the input that it takes, its end included.
    pub used: usize,
    /// Whether its end was there.
    pub ended: bool,
}

/// The line is longer than the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

/// The next line of `bytes`; `None`: more is needed, or with `eof` nothing is left.
///
/// # Errors
/// More than `max` bytes without an end.
pub fn next(bytes: &[u8], eof: bool, max: usize) -> Result<Option<Line<'_>>, TooLong> {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => Ok(Some(Line { text: bytes[..end].trim_ascii(), used: end + 1, ended: true })),
        None if bytes.len() > max => Err(TooLong),
        None if eof && !bytes.is_empty() => {
            Ok(Some(Line { text: bytes.trim_ascii(), used: bytes.len(), ended: false }))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_a_feed_or_with_the_stream() {
        let line = |text, used, ended| Ok(Some(Line { text, used, ended }));
        assert_eq!(next(b"{} \r\n{}", false, 9), line(b"{}", 5, true));
        assert_eq!(next(b"{}", false, 9), Ok(None));
        assert_eq!(next(b"{}", true, 9), line(b"{}", 2, false));
        assert_eq!(next(b"", true, 9), Ok(None));
        assert_eq!(next(b"0123456789", false, 9), Err(TooLong));
    }
}
