//! Message bodies: raw bytes in, payload at the front of the same bytes out.
//!
//! A `Body` is a few words that remember where in the framing the last piece ended. It decides
//! where payload and body end, and nothing about what they hold. Any way of cutting the raw bytes
//! gives the same payload and the same end.
//!
//! ```text
//!   before:  5 \r \n h e l l o \r \n 0 \r \n \r \n G E T
//!   after:   h e l l o . . . . . . . . . . . . .   G E T
//!            |payload|                             |used: the rest is the next message
//! ```
//!
//! Strict (RFC 9112, 7.1): sizes are hex digits and nothing else, at most
//! `limits::CHUNK_DIGITS_MAX`; every line ends with CRLF; extensions and trailers are checked,
//! bounded and thrown away. A fault is final: the payload of that call is not given out, and every
//! later call repeats it.

use crate::base::limits;

use super::head::{Framing, is_token};

/// A resumable decoder for one body.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    /// Bytes of chunk extensions so far.
    extensions: u16,
}

/// What one call gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// Payload is `bytes[..payload]`.
    pub payload: usize,
    /// Raw bytes that belong to this body: all of them, unless it ended.
    pub used: usize,
    /// Whether the body ended.
    pub done: bool,
}

/// Why a body can't be read on. The connection can't be used any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFault {
    /// A chunk size without digits, with an octet that is not one, or with too many.
    ChunkSize,
    /// A chunk extension that is none, or over `limits::CHUNK_EXTENSION_MAX`, or all of a body's over
    /// `limits::CHUNK_EXTENSIONS_MAX`.
    ChunkExtension,
    /// A line or chunk does not end with CRLF.
    LineEnd,
    /// The trailer section is malformed.
    Trailer,
    /// The trailer section is over `limits::TRAILER_BYTES_MAX`.
    TrailerTooLarge,
    /// The connection ended inside the body.
    Cut,
}

impl BodyFault {
    /// One sentence for a person, without a full stop.
    pub const fn text(self) -> &'static str {
        match self {
            BodyFault::ChunkSize => "a chunk size is malformed",
            BodyFault::ChunkExtension => "a chunk extension is malformed or too long",
            BodyFault::LineEnd => "a chunk does not end with CRLF",
            BodyFault::Trailer => "the trailer section is malformed",
            BodyFault::TrailerTooLarge => "the trailer section is too large",
            BodyFault::Cut => "the connection ended inside the body",
        }
    }
}

/// Where in the framing the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In a body of known length.
    Length { left: u64 },
    /// In a body that ends with the connection.
    UntilClose,
    /// In the hex digits of a chunk size.
    Size { size: u64, digits: u8 },
    /// In a chunk extension.
    Extension { size: u64, seen: u16, at: Ext },
    /// After the CR of a chunk's size line.
    SizeFeed { size: u64 },
    /// In a chunk's payload.
    Data { left: u64 },
    /// Before the CR that follows a chunk's payload.
    DataReturn,
    /// After that CR.
    DataFeed,
    /// At the beginning of a trailer line, or of the empty line that ends the body.
    TrailerStart { seen: u32 },
    /// In a trailer's name.
    TrailerName { seen: u32 },
    /// In a trailer's value.
    TrailerValue { seen: u32 },
    /// After the CR of a trailer line.
    TrailerFeed { seen: u32 },
    /// After the CR of the empty line that ends the body.
    LastFeed,
    /// The body ended.
    Done,
    /// The body is broken.
    Broken { fault: BodyFault },
}

/// Where in `;name=value` the next byte stands (RFC 9112, 7.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ext {
    /// After a semicolon.
    Start,
    /// In a name.
    Name,
    /// In the white space behind a name.
    Named,
    /// After an equals sign.
    Equals,
    /// In a value that is a token.
    Token,
    /// In a quoted value.
    Quoted,
    /// After a backslash in a quoted value.
    Escaped,
    /// Right behind a quoted value.
    Valued,
    /// In the white space behind a value.
    Spaced,
}

const _: () = assert!(limits::CHUNK_DIGITS_MAX <= 15);
const _: () = assert!(limits::CHUNK_EXTENSIONS_MAX < u16::MAX as usize);
const _: () = assert!(limits::CHUNK_EXTENSION_MAX < u16::MAX as usize);
const _: () = assert!(limits::TRAILER_BYTES_MAX < u32::MAX as usize);

impl Body {
    /// A decoder at the beginning of a body with this framing.
    pub fn new(framing: Framing) -> Body {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Length { left },
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Body { state, extensions: 0 }
    }

    /// Decodes in place: the payload is moved to the front of `bytes`, and what follows the body
    /// stays where it is, from `used` on. What lies between the two is rubbish.
    ///
    /// # Errors
    /// The framing is broken; the same fault comes from every later call.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, BodyFault> {
        let (decoded, fault) = self.decode_up_to_fault(bytes);
        fault.map_or(Ok(decoded), Err)
    }

    /// As [`Body::decode`], but with the payload that came before a fault beside it: what a reader
    /// makes of a body must not depend on how its bytes were cut into reads.
    pub fn decode_up_to_fault(&mut self, bytes: &mut [u8]) -> (Decoded, Option<BodyFault>) {
        let (mut read, mut write) = (0, 0);
        while read < bytes.len() {
            match self.state {
                State::Done | State::Broken { .. } => break,
                State::UntilClose => {
                    debug_assert!(read == 0);
                    (read, write) = (bytes.len(), bytes.len());
                }
                State::Length { left } => {
                    let count = take(left, bytes.len() - read);
                    read += count;
                    write += count;
                    let left = left - count as u64;
                    self.state = if left == 0 { State::Done } else { State::Length { left } };
                }
                State::Data { left } => {
                    let count = take(left, bytes.len() - read);
                    if read != write {
                        bytes.copy_within(read..read + count, write);
                    }
                    read += count;
                    write += count;
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataReturn } else { State::Data { left } };
                }
                state => {
                    let used;
                    (self.state, used) = framing(state, &bytes[read..]);
                    if matches!(self.state, State::Extension { .. }) {
                        self.count_extension();
                    }
                    read += used;
                }
            }
        }
        let fault = match self.state {
            State::Broken { fault } => Some(fault),
            _ => None,
        };
        debug_assert!(write <= read);
        debug_assert!(read == bytes.len() || self.is_done() || fault.is_some());
        (Decoded { payload: write, used: read, done: self.is_done() }, fault)
    }

    /// One more byte of a chunk extension.
    fn count_extension(&mut self) {
        self.extensions += 1;
        if usize::from(self.extensions) > limits::CHUNK_EXTENSIONS_MAX {
            self.state = State::Broken { fault: BodyFault::ChunkExtension };
        }
    }

    /// Whether the body ended. One that ends with the connection does so at [`Body::eof`].
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the framing itself tells the end, so that the connection may go on after it.
    pub fn ends_by_itself(&self) -> bool {
        !matches!(self.state, State::UntilClose | State::Broken { .. })
    }

    /// Payload bytes that are still to come, if the framing says so.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length { left } => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Payload bytes that are announced and have not come: of the whole body, or of its present chunk.
    pub fn announced(&self) -> u64 {
        match self.state {
            State::Length { left } | State::Data { left } => left,
            _ => 0,
        }
    }

    /// The connection ended: the body ends here if its framing allows that.
    ///
    /// # Errors
    /// `Cut` if the body was not over, or the fault that broke it before.
    pub fn eof(&mut self) -> Result<(), BodyFault> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Broken { fault } => Err(fault),
            _ => {
                self.state = State::Broken { fault: BodyFault::Cut };
                Err(BodyFault::Cut)
            }
        }
    }
}

/// As much of `left` as there is.
fn take(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}

/// What comes next of chunked framing outside of payload, `rest` not being empty: the state after it, and
/// how many bytes that took. The lines that nearly every chunk has, whole, go at once.
fn framing(state: State, rest: &[u8]) -> (State, usize) {
    match state {
        State::DataReturn if rest.starts_with(b"\r\n") => (State::Size { size: 0, digits: 0 }, 2),
        State::Size { digits: 0, .. } => match size_line(rest) {
            Some((left, used)) => (State::Data { left }, used),
            None => (step(state, rest[0]), 1),
        },
        state => (step(state, rest[0]), 1),
    }
}

/// A whole line that is the plain size of a chunk, and no last one: the size, and the bytes of the line.
fn size_line(rest: &[u8]) -> Option<(u64, usize)> {
    let (mut size, mut digits) = (0_u64, 0);
    while digits <= limits::CHUNK_DIGITS_MAX {
        match rest.get(digits)? {
            byte @ b'0'..=b'9' => size = size << 4 | u64::from(byte - b'0'),
            byte @ (b'a'..=b'f' | b'A'..=b'F') => size = size << 4 | u64::from((byte & 0xf) + 9),
            b'\r' if size > 0 && rest.get(digits + 1) == Some(&b'\n') => {
                return (digits <= limits::CHUNK_DIGITS_MAX).then_some((size, digits + 2));
            }
            _ => return None,
        }
        digits += 1;
    }
    None
}

/// One byte of chunked framing outside of payload.
fn step(state: State, byte: u8) -> State {
    let broken = |fault| State::Broken { fault };
    match state {
        State::Size { size, digits } => size_step(size, digits, byte),
        State::Extension { size, at: Ext::Name | Ext::Token | Ext::Valued, .. }
            if byte == b'\r' =>
        {
            State::SizeFeed { size }
        }
        State::Extension { size, seen, at } => match extension_step(at, byte) {
            Some(at) if usize::from(seen) < limits::CHUNK_EXTENSION_MAX => {
                State::Extension { size, seen: seen + 1, at }
            }
            _ => broken(BodyFault::ChunkExtension),
        },
        State::SizeFeed { size } => match (byte, size) {
            (b'\n', 0) => State::TrailerStart { seen: 0 },
            (b'\n', left) => State::Data { left },
            _ => broken(BodyFault::LineEnd),
        },
        State::DataReturn if byte == b'\r' => State::DataFeed,
        State::DataFeed if byte == b'\n' => State::Size { size: 0, digits: 0 },
        State::DataReturn | State::DataFeed => broken(BodyFault::LineEnd),
        State::TrailerStart { .. }
        | State::TrailerName { .. }
        | State::TrailerValue { .. }
        | State::TrailerFeed { .. } => trailer_step(state, byte),
        State::LastFeed if byte == b'\n' => State::Done,
        State::LastFeed => broken(BodyFault::LineEnd),
        // Not framing bytes: `decode` never comes here with them.
        State::Length { .. }
        | State::UntilClose
        | State::Data { .. }
        | State::Done
        | State::Broken { .. } => {
            debug_assert!(false, "{state:?}");
            state
        }
    }
}

fn size_step(size: u64, digits: u8, byte: u8) -> State {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return State::SizeFeed { size },
        b';' if digits > 0 => return State::Extension { size, seen: 1, at: Ext::Start },
        _ => return State::Broken { fault: BodyFault::ChunkSize },
    };
    if usize::from(digits) >= limits::CHUNK_DIGITS_MAX {
        return State::Broken { fault: BodyFault::ChunkSize };
    }
    State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
}

/// One byte of a chunk extension, its line end left aside; `None`: it may not stand there.
fn extension_step(at: Ext, byte: u8) -> Option<Ext> {
    let blank = matches!(byte, b' ' | b'\t');
    match (at, byte) {
        (Ext::Escaped, _) if is_text(byte) => Some(Ext::Quoted),
        (Ext::Quoted, b'"') => Some(Ext::Valued),
        (Ext::Quoted, b'\\') => Some(Ext::Escaped),
        (Ext::Quoted, _) if is_text(byte) => Some(Ext::Quoted),
        (Ext::Start | Ext::Equals, _) if blank => Some(at),
        (Ext::Name | Ext::Named, _) if blank => Some(Ext::Named),
        (Ext::Token | Ext::Valued | Ext::Spaced, _) if blank => Some(Ext::Spaced),
        (Ext::Name | Ext::Named, b'=') => Some(Ext::Equals),
        (Ext::Name | Ext::Named | Ext::Token | Ext::Valued | Ext::Spaced, b';') => Some(Ext::Start),
        (Ext::Equals, b'"') => Some(Ext::Quoted),
        (Ext::Start | Ext::Name, _) if is_token(byte) => Some(Ext::Name),
        (Ext::Equals | Ext::Token, _) if is_token(byte) => Some(Ext::Token),
        _ => None,
    }
}

fn trailer_step(state: State, byte: u8) -> State {
    let malformed = State::Broken { fault: BodyFault::Trailer };
    let (State::TrailerStart { seen }
    | State::TrailerName { seen }
    | State::TrailerValue { seen }
    | State::TrailerFeed { seen }) = state
    else {
        return state;
    };
    if matches!(state, State::TrailerStart { .. }) && byte == b'\r' {
        return State::LastFeed;
    }
    if seen as usize >= limits::TRAILER_BYTES_MAX {
        return State::Broken { fault: BodyFault::TrailerTooLarge };
    }
    let seen = seen + 1;
    match (state, byte) {
        (State::TrailerFeed { .. }, b'\n') => State::TrailerStart { seen },
        (State::TrailerFeed { .. }, _) => State::Broken { fault: BodyFault::LineEnd },
        (State::TrailerValue { .. }, b'\r') => State::TrailerFeed { seen },
        (State::TrailerValue { .. }, _) if is_text(byte) => State::TrailerValue { seen },
        (State::TrailerName { .. }, b':') => State::TrailerValue { seen },
        (State::TrailerStart { .. } | State::TrailerName { .. }, _) if is_token(byte) => {
            State::TrailerName { seen }
        }
        _ => malformed,
    }
}

/// Whether `byte` may stand in a field value: no control octet but the tab.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests;
