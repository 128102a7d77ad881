//! The AWS event stream (`application/vnd.amazon.eventstream`): finds one binary message after the
//! other in a receive buffer, and says what its headers call it.
//!
//! ```text
//!   0        4        8        12           12+h          total-4   total
//!   | total  | h      | crc    | headers    | payload     | crc     |
//!   | u32 BE | u32 BE | of 0-8 | h bytes    |             | of all before it
//!
//!   header:  0d ":message-type"  07  0005 "event"      name length u8, type u8, value
//! ```
//!
//! It decides whether a message is whole and sound; it never looks into the payload. Lengths are not
//! trusted before their checksum is: a damaged one must not make anybody wait for gigabytes. Both
//! checksums are CRC-32 (IEEE 802.3).
//!
//! Invariants: there is no state but the bytes themselves, so any way of cutting them gives the same
//! messages; the eight bytes of the lengths are summed on each call, everything else once, when the
//! message is whole; spans are offsets into the bytes of the call.

use smallvec::SmallVec;

use crate::wire::Span;

/// What a message is, by its `:message-type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// An event; the name is its `:event-type`.
    Event,
    /// An error that the service models; the name is its `:exception-type`.
    Exception,
    /// Another error; the name is its `:error-code`, the text its `:error-message`.
    Error,
    /// Another type, or none.
    #[default]
    Other,
}

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// Bytes of the input that it takes.
    pub len: usize,
    /// What it is.
    pub kind: Kind,
    /// Its name; empty without one.
    pub name: Span,
    /// `:error-message`; empty without one.
    pub text: Span,
    /// All of its headers, for [`headers`].
    pub headers: Span,
    /// The payload.
    pub payload: Span,
}

/// What is wrong with a message. The stream can't be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsound {
    /// The lengths are not those that were sent.
    PreludeSum,
    /// The message is not the one that was sent.
    MessageSum,
    /// Shorter than a message can be.
    TotalLength,
    /// The headers are longer than the message, or than the format allows.
    HeadersLength,
    /// The headers do not parse, or one is there twice.
    Headers,
    /// The payload is longer than the format allows, or the message than the caller does.
    TooLarge,
}

/// The next message of `bytes`, of at most `max` bytes; `None`: more is needed. The caller drops
/// `len` bytes from the front after a message. Bytes that are left at the end of the stream are a
/// message that was cut.
///
/// # Errors
/// See [`Unsound`]; a length is refused as soon as its twelve bytes are there.
pub fn next(bytes: &[u8], max: usize) -> Result<Option<Message>, Unsound> {
    let Some(prelude) = bytes.first_chunk::<PRELUDE>() else { return Ok(None) };
    let [t0, t1, t2, t3, h0, h1, h2, h3, sum @ ..] = *prelude;
    if crc32fast::hash(&prelude[..8]) != u32::from_be_bytes(sum) {
        return Err(Unsound::PreludeSum);
    }
    let total = u32::from_be_bytes([t0, t1, t2, t3]) as usize;
    let headers = u32::from_be_bytes([h0, h1, h2, h3]) as usize;
    if total < PRELUDE + SUM {
        return Err(Unsound::TotalLength);
    }
    let inside = total - PRELUDE - SUM;
    if headers > inside || headers > HEADERS_MAX {
        return Err(Unsound::HeadersLength);
    }
    if inside - headers > PAYLOAD_MAX || total > max {
        return Err(Unsound::TooLarge);
    }
    let Some((message, sum)) = bytes.get(..total).and_then(|all| all.split_last_chunk::<SUM>())
    else {
        return Ok(None);
    };
    if crc32fast::hash(message) != u32::from_be_bytes(*sum) {
        return Err(Unsound::MessageSum);
    }
    let mut found = Message {
        len: total,
        headers: Span::new(PRELUDE, PRELUDE + headers),
        payload: Span::new(PRELUDE + headers, total - SUM),
        ..Message::default()
    };
    found.read_headers(bytes)?;
    Ok(Some(found))
}

/// A header's value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// Types 0 and 1.
    Bool(bool),
    /// Types 2 to 5: one, two, four and eight bytes, signed.
    Int(i64),
    /// Type 6.
    Bytes(Span),
    /// Type 7: text in UTF-8, as far as the sender keeps to it.
    Text(Span),
    /// Type 8: milliseconds since the Unix epoch.
    Time(i64),
    /// Type 9: 16 bytes.
    Uuid(Span),
}

/// A header: its name and its value.
pub type Header = (Span, Value);

/// The headers in `span` of `bytes`. The iterator ends after the first one that does not parse.
pub fn headers(bytes: &[u8], span: Span) -> Headers<'_> {
    let end = span.end().min(bytes.len());
    Headers { bytes: &bytes[..end], at: (span.start as usize).min(end) }
}

/// The iterator of [`headers`].
#[derive(Clone, Debug)]
pub struct Headers<'b> {
    /// Up to the end of the headers, so that all indices are those of the message.
    bytes: &'b [u8],
    at: usize,
}

impl Iterator for Headers<'_> {
    type Item = Result<Header, Unsound>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let header = self.header().ok_or(Unsound::Headers);
        if header.is_err() {
            self.at = self.bytes.len();
        }
        Some(header)
    }
}

impl Headers<'_> {
    fn header(&mut self) -> Option<Header> {
        let [len] = self.fixed()?;
        let name = self.take(len as usize).filter(|name| !name.is_empty())?;
        let [kind] = self.fixed()?;
        let value = match kind {
            0 => Value::Bool(true),
            1 => Value::Bool(false),
            2 => Value::Int(i8::from_be_bytes(self.fixed()?).into()),
            3 => Value::Int(i16::from_be_bytes(self.fixed()?).into()),
            4 => Value::Int(i32::from_be_bytes(self.fixed()?).into()),
            5 => Value::Int(i64::from_be_bytes(self.fixed()?)),
            6 => Value::Bytes(self.counted()?),
            7 => Value::Text(self.counted()?),
            8 => Value::Time(i64::from_be_bytes(self.fixed()?)),
            9 => Value::Uuid(self.take(16)?),
            _ => return None,
        };
        Some((name, value))
    }

    /// Bytes behind a length of two bytes.
    fn counted(&mut self) -> Option<Span> {
        let len = u16::from_be_bytes(self.fixed()?);
        self.take(len as usize)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let span = self.take(N)?;
        span.of(self.bytes).try_into().ok()
    }

    fn take(&mut self, len: usize) -> Option<Span> {
        let end = self.at + len;
        (end <= self.bytes.len()).then(|| Span::new(std::mem::replace(&mut self.at, end), end))
    }
}

impl Message {
    /// Reads what matters of the headers; all of them must be sound.
    fn read_headers(&mut self, bytes: &[u8]) -> Result<(), Unsound> {
        let (mut kind, mut event, mut exception, mut code) = (None, None, None, None);
        let mut seen = SmallVec::<[&[u8]; 8]>::new();
        for header in headers(bytes, self.headers) {
            let (name, value) = header?;
            let name = name.of(bytes);
            if seen.contains(&name) || seen.len() == HEADER_COUNT_MAX {
                return Err(Unsound::Headers);
            }
            seen.push(name);
            let Value::Text(value) = value else { continue };
            match name {
                b":message-type" => kind = Some(value.of(bytes)),
                b":event-type" => event = Some(value),
                b":exception-type" => exception = Some(value),
                b":error-code" => code = Some(value),
                b":error-message" => self.text = value,
                _ => {}
            }
        }
        let (kind, name) = match kind {
            Some(b"event") => (Kind::Event, event),
            Some(b"exception") => (Kind::Exception, exception),
            Some(b"error") => (Kind::Error, code),
            _ => (Kind::Other, None),
        };
        self.kind = kind;
        self.name = name.unwrap_or_default();
        Ok(())
    }
}

/// Two lengths and their checksum.
const PRELUDE: usize = 12;
/// A checksum.
const SUM: usize = 4;
/// The format's own limit.
const HEADERS_MAX: usize = 128 * 1024;
/// The format's own limit.
const PAYLOAD_MAX: usize = 24 * 1024 * 1024;
/// Headers of one message: services send three. What costs time with each further one has an end.
const HEADER_COUNT_MAX: usize = 64;

#[cfg(test)]
mod tests;
