//! `Buf`: a byte vector with a read cursor. It is the one concrete buffer of the program: the runtime
//! reads into its tail and writes from its window, framing and translation work on slices of it.
//!
//! ```text
//!   |--consumed--|======== window ========|--- spare capacity ---|
//!   0            start                    len                    cap
//! ```
//!
//! Invariant: `start <= data.len()`. Consuming everything rewinds to 0, so a buffer that is kept
//! drained never grows.

use std::fmt;
use std::io;

/// A growable byte buffer with a window of unread bytes.
#[derive(Default, Debug)]
pub struct Buf {
    data: Vec<u8>,
    start: usize,
}

impl Buf {
    /// An empty buffer that owns no memory.
    pub const fn new() -> Buf {
        Buf { data: Vec::new(), start: 0 }
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Buf {
        Buf { data: Vec::with_capacity(bytes), start: 0 }
    }

    /// Takes over a vector; all of it is unread.
    pub fn from_vec(data: Vec<u8>) -> Buf {
        Buf { data, start: 0 }
    }

    /// Rebuilds a buffer from a vector and its read cursor (what `into_parts` gave).
    pub fn from_parts(data: Vec<u8>, start: usize) -> Buf {
        debug_assert!(start <= data.len());
        let start = start.min(data.len());
        Buf { data, start }
    }

    /// The vector and the read cursor, for the runtime.
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.data, self.start)
    }

    /// The unread bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// The unread bytes, to change in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.data[self.start..]
    }

    /// How many bytes are unread.
    pub fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Whether nothing is unread.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    pub fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Room at the tail before the vector must grow, in bytes.
    pub fn spare(&self) -> usize {
        self.data.capacity() - self.data.len()
    }

    /// Marks the first `count` unread bytes as read. More than there are means all.
    pub fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len());
        self.start = (self.start + count).min(self.data.len());
        if self.start == self.data.len() {
            self.clear();
        }
    }

    /// Drops the unread bytes after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.data.truncate(self.start + len);
    }

    /// Forgets all bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.start = 0;
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    /// Appends one byte.
    pub fn push(&mut self, byte: u8) {
        self.data.push(byte);
    }

    /// Makes room for `bytes` more at the tail; moves the window to the front before it grows.
    pub fn reserve(&mut self, bytes: usize) {
        if self.spare() < bytes && self.start > 0 {
            self.compact();
        }
        self.data.reserve(bytes);
    }

    /// Moves the window to the front of the memory.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
    }

    /// Gives the memory back if it is above `bytes` and nothing is unread.
    pub fn shrink_idle(&mut self, bytes: usize) {
        if self.is_empty() && self.capacity() > bytes {
            *self = Buf::new();
        }
    }

    /// Takes the memory out if nothing is unread; leaves what is.
    pub fn take_idle(&mut self) -> Buf {
        if self.is_empty() { self.take() } else { Buf::new() }
    }

    /// Gives memory back beyond the unread bytes and so many more, if that is worth it.
    pub fn trim(&mut self, spare: usize) {
        if self.capacity() > self.len() + spare {
            self.compact();
            self.data.shrink_to(self.data.len() + spare / 2);
        }
    }

    /// Leaves room for `bytes` before the window, for `prepend`. Only what is empty can have it.
    pub fn leave_gap(&mut self, bytes: usize) {
        debug_assert!(self.is_empty());
        self.data.clear();
        self.data.resize(bytes, 0);
        self.start = bytes;
    }

    /// Puts bytes before the window, if there is room; says whether there was.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else { return false };
        self.data[start..self.start].copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Takes the contents, leaves an empty buffer without memory.
    pub fn take(&mut self) -> Buf {
        std::mem::take(self)
    }
}

impl io::Write for Buf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for Buf {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes());
        Ok(())
    }
}

impl From<&[u8]> for Buf {
    fn from(bytes: &[u8]) -> Buf {
        Buf::from_vec(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_moves_and_rewinds() {
        let mut buf = Buf::from(&b"hello world"[..]);
        buf.consume(6);
        assert_eq!(buf.as_slice(), b"world");
        buf.extend(b"!");
        buf.truncate(3);
        assert_eq!(buf.as_slice(), b"wor");
        buf.consume(3);
        assert!(buf.is_empty());
        let (data, start) = buf.into_parts();
        assert_eq!((data.len(), start), (0, 0));
    }

    #[test]
    fn trimming_keeps_the_bytes() {
        let mut buf = Buf::with_capacity(1 << 16);
        buf.extend(b"hello world");
        buf.consume(6);
        buf.trim(1 << 16);
        assert_eq!(buf.capacity(), 1 << 16);
        buf.trim(1024);
        assert!(buf.capacity() < 1024);
        assert_eq!(buf.as_slice(), b"world");
    }

    #[test]
    fn reserve_reuses_the_consumed_front() {
        let mut buf = Buf::with_capacity(16);
        buf.extend(&[1; 16]);
        buf.consume(10);
        let before = buf.capacity();
        buf.reserve(10);
        assert_eq!(buf.capacity(), before);
        assert_eq!(buf.as_slice(), &[1; 6]);
    }

    #[test]
    fn what_comes_before_takes_the_gap() {
        let mut buf = Buf::from(&b"x"[..]);
        buf.consume(1);
        buf.leave_gap(4);
        assert!(buf.is_empty());
        buf.extend(b"body");
        assert!(buf.prepend(b"4\r\n"));
        assert_eq!(buf.as_slice(), b"4\r\nbody");
        assert!(!buf.prepend(b"no"));
        assert!(buf.prepend(b"y") && !buf.prepend(b"n"));
        assert_eq!(buf.as_slice(), b"y4\r\nbody");
    }

    #[test]
    fn shrink_keeps_unread_bytes() {
        let mut buf = Buf::with_capacity(4096);
        buf.extend(b"x");
        buf.shrink_idle(16);
        assert_eq!(buf.as_slice(), b"x");
        buf.consume(1);
        buf.shrink_idle(16);
        assert_eq!(buf.capacity(), 0);
    }
}
