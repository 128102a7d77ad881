//! Server-sent events: finds one block of lines after the other in a receive buffer.
//!
//! The grammar is WHATWG's (HTML, 9.2.6), with what real providers need on top: a last block
//! without its empty line counts at the end of the stream, and lines that are neither fields nor
//! comments are kept, because errors hide there (`error: {...}`, or bare JSON). It never looks into
//! the payload and never decodes text.
//!
//! ```text
//!   event: delta \n
//!   data: {"a":1} \r\n      lines end with LF, CRLF or a lone CR, in any mixture
//!   : ping \n
//!   \n                      -> Frame { len: 36, event: "delta", data: [{"a":1}], comment }
//! ```
//!
//! Invariants: each byte is searched once, however the stream is cut; spans are offsets into the
//! bytes of the call that returned the frame; a frame with one data line allocates nothing. A lone
//! CR at the end of the bytes ends its line at once; if a LF follows in the next bytes it belongs
//! to it, and is counted with the next frame.

use memchr::memchr2;
use smallvec::SmallVec;

use crate::wire::Span;

/// A resumable reader of one stream. It holds no bytes, only how far it looked.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// What the block has shown so far.
    frame: Frame,
    /// Where the current line begins.
    line: usize,
    /// Up to where no line end was found.
    looked: usize,
    /// Where the block begins, after what does not count (a BOM, the second half of a CRLF).
    begin: usize,
    /// The last line ended with a CR that was the last byte there was.
    after_return: bool,
    /// No byte of the stream was seen yet.
    at_start: bool,
    /// The line before belongs to the block's first run of stray lines, which may go on.
    in_stray: bool,
    max: usize,
}

/// What a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// It has data (perhaps empty).
    Event,
    /// It has none: a comment, a lone empty line, a name without data, or only a stray line.
    #[default]
    Quiet,
}

/// One block of lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Bytes of the input that it takes, its end included.
    pub len: usize,
    /// Whether there is data.
    pub kind: Kind,
    /// The last `event` field's value; empty without one.
    pub event: Span,
    /// The values of the `data` lines, in order.
    pub data: SmallVec<[Span; 1]>,
    /// The first run of lines that are neither fields nor comments, from its first byte to its
    /// last, without its last line's end.
    pub stray: Option<Span>,
    /// Whether there was a comment.
    pub comment: bool,
    /// Whether it ended with an empty line, and not with the stream.
    pub ended: bool,
}

/// A block is longer than the scanner's limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge;

impl Scanner {
    /// A scanner at the beginning of a stream, for blocks of at most `max` bytes
    /// (`limits::FRAME_BYTES_MAX`).
    pub fn new(max: usize) -> Scanner {
        Scanner {
            frame: Frame::default(),
            line: 0,
            looked: 0,
            begin: 0,
            after_return: false,
            at_start: true,
            in_stray: false,
            max,
        }
    }

    /// The next block. `bytes` begins where the last frame ended: after a frame the caller drops
    /// its `len` bytes from the front, after `Ok(None)` it keeps all and adds more behind them.
    /// `eof` says that none will come; then `Ok(None)` means that the stream is over.
    ///
    /// # Errors
    /// The block is over the limit. The stream can't be read any further.
    pub fn next(&mut self, bytes: &[u8], eof: bool) -> Result<Option<Frame>, TooLarge> {
        debug_assert!(self.looked <= bytes.len(), "the caller dropped bytes of an open block");
        if self.at_start && !self.skip_bom(bytes, eof) {
            return Ok(None);
        }
        if self.after_return && self.line < bytes.len() {
            self.skip_feed(bytes);
        }
        while let Some(end) = self.line_end(bytes) {
            if end + 1 - self.begin > self.max {
                return Err(TooLarge);
            }
            let mut next = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            let blank = end == self.line;
            if !blank {
                self.take_line(bytes, end);
            }
            self.line = next;
            self.looked = next;
            if blank {
                return Ok(Some(self.finish(next, true)));
            }
        }
        self.looked = bytes.len();
        if bytes.len().saturating_sub(self.begin) > self.max {
            return Err(TooLarge);
        }
        if !eof {
            return Ok(None);
        }
        if self.line < bytes.len() {
            self.take_line(bytes, bytes.len());
            self.line = bytes.len();
        }
        let nothing = self.frame == Frame::default();
        Ok(if nothing { None } else { Some(self.finish(bytes.len(), false)) })
    }

    /// Where the current line ends. An event's last line is empty: that needs no search.
    #[inline(always)]
    fn line_end(&self, bytes: &[u8]) -> Option<usize> {
        let rest = bytes.get(self.looked..)?;
        match rest.first()? {
            b'\n' | b'\r' => Some(self.looked),
            _ => memchr2(b'\n', b'\r', rest).map(|found| self.looked + found),
        }
    }

    /// Steps over a byte order mark. `false`: too few bytes to tell.
    fn skip_bom(&mut self, bytes: &[u8], eof: bool) -> bool {
        const BOM: &[u8] = b"\xef\xbb\xbf";
        if bytes.len() < BOM.len() && BOM.starts_with(bytes) && !eof {
            return false;
        }
        self.at_start = false;
        if bytes.starts_with(BOM) {
            (self.line, self.looked, self.begin) = (BOM.len(), BOM.len(), BOM.len());
        }
        true
    }

    /// The byte after a CR that was the last one: a LF belongs to it.
    fn skip_feed(&mut self, bytes: &[u8]) {
        self.after_return = false;
        if bytes[self.line] != b'\n' {
            return;
        }
        // Between two blocks it is not part of the next one's size.
        if self.line == 0 {
            self.begin = 1;
        }
        self.line += 1;
        self.looked = self.line;
    }

    fn take_line(&mut self, bytes: &[u8], end: usize) {
        let line = &bytes[self.line..end];
        let stray = match line {
            [b':', ..] => {
                self.frame.comment = true;
                false
            }
            [b'd', b'a', b't', b'a', rest @ ..] if is_value(rest) => {
                self.frame.kind = Kind::Event;
                self.frame.data.push(value(end, rest));
                false
            }
            [b'e', b'v', b'e', b'n', b't', rest @ ..] if is_value(rest) => {
                self.frame.event = value(end, rest);
                false
            }
            [b'i', b'd', rest @ ..] | [b'r', b'e', b't', b'r', b'y', rest @ ..] => !is_value(rest),
            _ => true,
        };
        self.in_stray = stray && self.take_stray(end);
    }

    /// Whether the line is part of the first run.
    fn take_stray(&mut self, end: usize) -> bool {
        let start = match self.frame.stray {
            None => self.line,
            Some(span) if self.in_stray => span.start as usize,
            Some(_) => return false,
        };
        self.frame.stray = Some(Span::new(start, end));
        true
    }

    fn finish(&mut self, len: usize, ended: bool) -> Frame {
        debug_assert!(len == self.line);
        (self.line, self.looked, self.begin) = (0, 0, 0);
        self.in_stray = false;
        Frame { len, ended, ..std::mem::take(&mut self.frame) }
    }
}

impl Frame {
    /// The data: the lines joined with LF. `bytes` are those that the frame came from; `scratch`
    /// is used only if there is more than one line. Empty without data.
    pub fn payload<'a>(&self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self.data.as_slice() {
            [] => &[],
            [only] => only.of(bytes),
            [first, rest @ ..] => {
                scratch.clear();
                scratch.extend_from_slice(first.of(bytes));
                for line in rest {
                    scratch.push(b'\n');
                    scratch.extend_from_slice(line.of(bytes));
                }
                scratch
            }
        }
    }

    /// The stray text if it could be JSON: what follows `error:`, or a text that begins with `{`
    /// or `[`.
    pub fn stray_json<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let text = self.stray?.of(bytes).trim_ascii();
        let text = text.strip_prefix(b"error:").map_or(text, <[u8]>::trim_ascii);
        matches!(text.first(), Some(b'{' | b'[')).then_some(text)
    }
}

/// Whether a field's name ends here: its line is over, or a colon follows.
fn is_value(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b':'))
}

/// The value in `rest`, the part of a line after its name that ends at `end`.
fn value(end: usize, rest: &[u8]) -> Span {
    let skip = match rest {
        [b':', b' ', ..] => 2,
        [b':', ..] => 1,
        _ => 0,
    };
    Span::new(end - rest.len() + skip, end)
}

#[cfg(test)]
mod tests;
