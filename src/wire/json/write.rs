//! JSON text into a [`Buf`]: strings with their escapes, and a writer that sets the commas.

use crate::base::buf::Buf;

use super::scan::find_special;

/// Writes `text` as a JSON string with its quotes.
pub fn write_string(out: &mut Buf, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Writes `text` as it stands inside a JSON string, without quotes: pieces of one string may be
/// written one after the other.
pub fn escape(out: &mut Buf, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    loop {
        let at = find_special(bytes, done);
        out.extend(&bytes[done..at]);
        let Some(byte) = bytes.get(at) else { return };
        match byte {
            b'"' => out.extend(b"\\\""),
            b'\\' => out.extend(b"\\\\"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x08 => out.extend(b"\\b"),
            0x0c => out.extend(b"\\f"),
            _ => {
                let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit & 15)];
                out.extend(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(*byte)]);
            }
        }
        done = at + 1;
    }
}

/// Writes one JSON value piece by piece and sets the commas. It does not check that keys and
/// brackets come where they may; debug builds assert that brackets balance.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Buf,
    comma: bool,
    depth: u32,
}

impl<'b> Writer<'b> {
    /// A writer of one value at the end of `out`.
    pub fn new(out: &'b mut Buf) -> Writer<'b> {
        Writer { out, comma: false, depth: 0 }
    }

    /// Opens an object.
    pub fn begin_object(&mut self) -> &mut Self {
        self.open(b'{')
    }

    /// Closes it.
    pub fn end_object(&mut self) -> &mut Self {
        self.close(b'}')
    }

    /// Opens an array.
    pub fn begin_array(&mut self) -> &mut Self {
        self.open(b'[')
    }

    /// Closes it.
    pub fn end_array(&mut self) -> &mut Self {
        self.close(b']')
    }

    /// A member's key; its value must follow.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.separate();
        write_string(self.out, name);
        self.out.push(b':');
        self.comma = false;
        self
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.separate();
        write_string(self.out, text);
        self
    }

    /// A whole number.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.separate();
        crate::wire::http1::emit::decimal(self.out, number);
        self
    }

    /// A number; `null` for one that JSON does not have.
    pub fn f64(&mut self, number: f64) -> &mut Self {
        use std::io::Write as _;
        if !number.is_finite() {
            return self.null();
        }
        self.separate();
        let written = write!(self.out, "{number:?}");
        debug_assert!(written.is_ok(), "a Buf takes everything");
        self
    }

    /// `true` or `false`.
    pub fn bool(&mut self, yes: bool) -> &mut Self {
        self.raw(if yes { b"true" } else { b"false" })
    }

    /// `null`.
    pub fn null(&mut self) -> &mut Self {
        self.raw(b"null")
    }

    /// A value that is JSON already, as it is.
    pub fn raw(&mut self, json: &[u8]) -> &mut Self {
        debug_assert!(!json.is_empty());
        self.separate();
        self.out.extend(json);
        self
    }

    /// The buffer, for a value that is written in other ways: all of one value must be.
    pub fn value(&mut self) -> &mut Buf {
        self.separate();
        self.out
    }

    fn open(&mut self, bracket: u8) -> &mut Self {
        self.separate();
        self.out.push(bracket);
        self.comma = false;
        self.depth += 1;
        self
    }

    fn close(&mut self, bracket: u8) -> &mut Self {
        debug_assert!(self.depth > 0);
        self.out.push(bracket);
        self.comma = true;
        self.depth = self.depth.saturating_sub(1);
        self
    }

    /// A comma if a value came before; a value comes now.
    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }
}
