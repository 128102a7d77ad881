//! Whether JSON text that comes in pieces is whole: its brackets are closed, outside of strings. It judges
//! no more than that, and takes anything.

/// What was seen so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Balance {
    depth: u32,
    first: Option<u8>,
    /// A bracket was seen.
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl Balance {
    /// Whether a value in brackets has begun and ended.
    pub fn is_closed(&self) -> bool {
        self.begun && self.depth == 0
    }

    /// The first byte that is no blank.
    pub fn first(&self) -> Option<u8> {
        self.first
    }

    /// A piece of the text.
    pub fn read(&mut self, text: &[u8]) {
        text.iter().for_each(|byte| self.byte(*byte));
    }

    /// A piece of the text as the inside of a JSON string, which ends no escape in the middle.
    pub fn read_raw(&mut self, raw: &[u8]) {
        let mut rest = raw;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            if *byte != b'\\' {
                self.byte(*byte);
                continue;
            }
            let Some((escape, after)) = rest.split_first() else { return };
            rest = after;
            if *escape != b'u' {
                // Line ends and tabs mean nothing here; what else is escaped stands for itself.
                self.byte(if b"\"\\/".contains(escape) { *escape } else { b' ' });
                continue;
            }
            let (code, after) = rest.split_at(rest.len().min(4));
            rest = after;
            let code = std::str::from_utf8(code).ok().and_then(|c| u8::from_str_radix(c, 16).ok());
            self.byte(code.unwrap_or(b' '));
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.first.is_none() && !byte.is_ascii_whitespace() {
            self.first = Some(byte);
        }
        if std::mem::take(&mut self.escaped) {
            return;
        }
        match byte {
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' | b'[' if !self.in_string => {
                self.begun = true;
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Balance;

    fn closed(pieces: &[&[u8]], raw: bool) -> bool {
        let mut balance = Balance::default();
        for piece in pieces {
            if raw { balance.read_raw(piece) } else { balance.read(piece) }
        }
        balance.is_closed()
    }

    #[test]
    fn a_text_is_whole_when_its_brackets_are_closed() {
        for (text, whole) in [
            ("", false),
            ("1", false),
            ("{}", true),
            ("{", false),
            ("[{\"a\":[]}]", true),
            ("{\"a\":\"}\"", false),
            ("{\"a\":\"}\"}", true),
            ("{\"a\":\"\\\"}", false),
            ("{\"a\":\"\\\\\"}", true),
            ("{\"\u{17c}\":\"\\u007b\n\"}", true),
        ] {
            let raw = serde_json::to_string(text).unwrap();
            let raw = &raw.as_bytes()[1..raw.len() - 1];
            let coded: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            assert_eq!(closed(&[text.as_bytes()], false), whole, "{text}");
            assert_eq!(closed(&[raw], true), whole, "{text}");
            assert_eq!(closed(&[coded.as_bytes()], true), whole, "{text}");
            for at in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(at);
                assert_eq!(closed(&[head, tail], false), whole, "{text} at {at}");
            }
            for at in (0..coded.len()).step_by(6) {
                let (head, tail) = coded.as_bytes().split_at(at);
                assert_eq!(closed(&[head, tail], true), whole, "{text} at {at}");
            }
        }
    }

    #[test]
    fn the_first_byte_is_no_blank() {
        for (raw, first) in
            [(&b" \\n\\u0020"[..], None), (b" \\t{", Some(b'{')), (b"\\\"a", Some(b'"'))]
        {
            let mut balance = Balance::default();
            balance.read_raw(raw);
            assert_eq!(balance.first(), first);
        }
    }

    #[test]
    fn bytes_that_are_no_json_end_nothing_badly() {
        for raw in [&b"\\"[..], b"\\u", b"\\u00", b"\\u\xff\xff\xff\xff", b"}}]", b"\x80"] {
            assert!(!closed(&[raw], true) && !closed(&[raw], false));
        }
    }
}
