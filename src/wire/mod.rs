//! F1 bytes to structure and back. No meaning, no policy, no runtime.
//!
//! Everything here works on a slice that somebody else owns and answers with [`Span`]s into it, so
//! that a head, an event or a JSON value costs no allocation and no copy.
//!
//! | module | reads | writes |
//! | --- | --- | --- |
//! | [`http1::head`] | request and response heads, one verdict on framing | |
//! | [`http1::body`] | length, chunked and until-close bodies, in place | |
//! | [`http1::emit`] | | heads and chunk frames |
//! | [`sse`] | server-sent events | |
//! | [`aws_event`] | messages of the AWS event stream | |
//! | [`json`] | validated raw spans | strings, objects, arrays |
//! | [`sign`] | | signatures of requests to AWS |
//!
//! Laws: input never panics, never recurses, never allocates without a cap; where bytes arrive in
//! pieces, every way of cutting them gives the same result.

pub mod aws_event;
pub mod http1;
pub mod json;
pub mod lines;
pub mod sign;
pub mod sse;

/// A range of a slice that its holder keeps: 8 bytes, `Copy`. Slices above 4 GiB are out of reach,
/// which every limit of the program already rules out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// Index of the first byte.
    pub start: u32,
    /// How many bytes.
    pub len: u32,
}

impl Span {
    /// The span of `start..end`. An end before the start gives an empty span.
    pub const fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Span { start: start as u32, len: end.saturating_sub(start) as u32 }
    }

    /// The bytes it names; empty if they are not all in `bytes` (a span of another slice).
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        debug_assert!(self.end() <= bytes.len());
        bytes.get(self.start as usize..self.end()).unwrap_or_default()
    }

    /// Index after the last byte.
    pub const fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// Whether it has no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The same bytes in a slice that begins `by` bytes earlier.
    pub const fn shift(self, by: usize) -> Span {
        Span { start: self.start + by as u32, len: self.len }
    }
}

impl From<Span> for std::ops::Range<usize> {
    fn from(span: Span) -> std::ops::Range<usize> {
        span.start as usize..span.end()
    }
}
