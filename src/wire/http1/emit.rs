//! Heads and chunk frames, written into a [`Buf`].
//!
//! Nothing that could end a line early is ever written: what comes from configuration or from the
//! other side is checked here, at the last place, and refused with `false`; then nothing at all of
//! that line has been written.
//!
//! ```text
//!   status_line(200)   HTTP/1.1 200 OK\r\n
//!   field(name, value) content-type: text/event-stream\r\n
//!   end                \r\n
//!   chunk_prefix(26)   1a\r\n                 then 26 bytes, then CRLF
//! ```

use crate::base::buf::Buf;

use super::head::is_token;

/// The end of a line, of a head, and of each chunk's payload.
pub const CRLF: &[u8] = b"\r\n";
/// The last chunk with an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The most that [`chunk_prefix`] needs: 16 hex digits and CRLF.
pub const CHUNK_PREFIX_MAX: usize = 18;
/// What a server says to a client that waits for it (RFC 9110, 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes `METHOD target HTTP/1.1`. The target may come in two parts (base path and path).
/// `false`, and nothing written: a method that is no token, or a target that does not begin with
/// `/` or holds anything but visible ASCII.
#[must_use]
pub fn request_line(out: &mut Buf, method: &[u8], target: [&[u8]; 2]) -> bool {
    let [base, path] = target;
    let rooted = base.first().or(path.first()) == Some(&b'/');
    let visible = base.iter().chain(path).all(u8::is_ascii_graphic);
    if !rooted || !visible || method.is_empty() || !method.iter().copied().all(is_token) {
        return false;
    }
    for part in [method, b" ", base, path, b" HTTP/1.1\r\n"] {
        out.extend(part);
    }
    true
}

/// Writes `HTTP/1.1 status reason`. A status outside of 100 to 999 is written as 500.
pub fn status_line(out: &mut Buf, status: u16) {
    debug_assert!((100..=999).contains(&status));
    let status = if (100..=999).contains(&status) { status } else { 500 };
    out.extend(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend(reason(status).as_bytes());
    out.extend(CRLF);
}

/// Writes `name: value`. `false`, and nothing written: a name that is no token, or a value with a
/// control octet (CR, LF and NUL among them).
#[must_use]
pub fn field(out: &mut Buf, name: &[u8], value: &[u8]) -> bool {
    let named = !name.is_empty() && name.iter().copied().all(is_token);
    if !named || !value.iter().all(|byte| is_value(*byte)) {
        return false;
    }
    for part in [name, b": ", value, CRLF] {
        out.extend(part);
    }
    true
}

/// Writes the name of a field, whose value follows; the caller knows what may stand in one, and ends the line.
pub fn open_field(out: &mut Buf, name: &'static [u8]) {
    debug_assert!(name.iter().copied().all(is_token));
    out.extend(name);
    out.extend(b": ");
}

/// Writes `content-length: bytes`.
pub fn content_length(out: &mut Buf, bytes: u64) {
    out.extend(b"content-length: ");
    decimal(out, bytes);
    out.extend(CRLF);
}

/// Writes `transfer-encoding: chunked`.
pub fn chunked(out: &mut Buf) {
    out.extend(b"transfer-encoding: chunked\r\n");
}

/// Writes `date: Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7) for so many seconds after 1970; past
/// the year 9999 its last second.
pub fn date(out: &mut Buf, seconds: u64) {
    let seconds = seconds.min(DATE_SECONDS_MAX);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that a leap day is the last of one; 719468 days before 1970.
    let days_from_march = days + 719_468;
    let era = days_from_march / 146_097;
    let of_era = days_from_march % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let two = |n: u64| [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
    out.extend(b"date: ");
    out.extend(WEEKDAYS[((days + 4) % 7) as usize]);
    for (before, number) in [(&b", "[..], day), (b" ", month)] {
        out.extend(before);
        if before.len() == 2 {
            out.extend(&two(number))
        } else {
            out.extend(MONTHS[number as usize])
        }
    }
    out.push(b' ');
    out.extend(&two(year / 100));
    out.extend(&two(year));
    for (before, number) in [(b' ', of_day / 3_600), (b':', of_day / 60 % 60), (b':', of_day % 60)]
    {
        out.push(before);
        out.extend(&two(number));
    }
    out.extend(b" GMT\r\n");
}

/// The last second that has four digits for its year.
const DATE_SECONDS_MAX: u64 = 253_402_300_799;
const WEEKDAYS: [&[u8]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Writes the empty line that ends a head.
pub fn end(out: &mut Buf) {
    out.extend(CRLF);
}

/// The size line of a chunk of `bytes` bytes: the first `.1` bytes of `.0`. For 0 it would be the
/// last chunk, so an empty chunk must not be written.
pub fn chunk_prefix(bytes: usize) -> ([u8; CHUNK_PREFIX_MAX], usize) {
    debug_assert!(bytes > 0);
    let mut line = [0; CHUNK_PREFIX_MAX];
    let digits = (bytes.max(1).ilog2() / 4 + 1) as usize;
    for (i, place) in line[..digits].iter_mut().rev().enumerate() {
        *place = b"0123456789abcdef"[(bytes >> (4 * i)) & 15];
    }
    line[digits..digits + 2].copy_from_slice(CRLF);
    (line, digits + 2)
}

/// Writes one whole chunk; nothing for an empty payload, which would end the body.
pub fn chunk(out: &mut Buf, payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    let (line, len) = chunk_prefix(payload.len());
    out.extend(&line[..len]);
    out.extend(payload);
    out.extend(CRLF);
}

/// Writes a number in decimal.
pub fn decimal(out: &mut Buf, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(&digits[at..]);
}

/// The reason phrase of a status (RFC 9110, 15, and the registry); empty for one without.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

const fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Buf)) -> String {
        let mut out = Buf::new();
        write(&mut out);
        String::from_utf8(out.as_slice().to_vec()).unwrap()
    }

    #[test]
    fn lines_are_as_the_rfc_has_them() {
        assert_eq!(written(|out| status_line(out, 200)), "HTTP/1.1 200 OK\r\n");
        assert_eq!(written(|out| status_line(out, 529)), "HTTP/1.1 529 \r\n");
        assert_eq!(written(|out| content_length(out, 0)), "content-length: 0\r\n");
        let most = format!("content-length: {}\r\n", u64::MAX);
        assert_eq!(written(|out| content_length(out, u64::MAX)), most);
        assert_eq!(written(|out| assert!(field(out, b"a-b", b"c d\t\xc3\xa9"))), "a-b: c d\té\r\n");
        let line = written(|out| assert!(request_line(out, b"POST", [b"/v1", b"/chat?a=b"])));
        assert_eq!(line, "POST /v1/chat?a=b HTTP/1.1\r\n");
    }

    #[test]
    fn nothing_that_ends_a_line_early_is_written() {
        for value in ["a\r\nb: c", "a\rb", "a\nb", "a\0b", "\r", "\n", "a\x7f", "\x1b[0m"] {
            let text = written(|out| assert!(!field(out, b"name", value.as_bytes()), "{value:?}"));
            assert_eq!(text, "");
        }
        for name in ["", "a b", "a:", "a\r\n", "é", "a\0"] {
            let text = written(|out| assert!(!field(out, name.as_bytes(), b"x"), "{name:?}"));
            assert_eq!(text, "");
        }
        for target in ["", "v1", "/a b", "/a\r\nHost: x", "/é", "http://a/"] {
            let parts: [&[u8]; 2] = [b"", target.as_bytes()];
            let text = written(|out| assert!(!request_line(out, b"GET", parts), "{target:?}"));
            assert_eq!(text, "");
        }
        assert_eq!(written(|out| assert!(!request_line(out, b"GE T", [b"", b"/"]))), "");
    }

    #[test]
    fn chunk_prefixes_equal_the_formatted_size() {
        for bytes in (1..5000).chain([65_535, 65_536, 1 << 40, usize::MAX]) {
            let (line, len) = chunk_prefix(bytes);
            assert_eq!(&line[..len], format!("{bytes:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let day = 86_400;
        for seconds in (0..60_000_u64).map(|n| n * day + n * 7_919 % day).chain([
            784_111_777,
            951_782_399,
            951_782_400,
            4_107_542_399,
            DATE_SECONDS_MAX,
        ]) {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let line = format!("date: {}\r\n", httpdate::fmt_http_date(at));
            assert_eq!(written(|out| date(out, seconds)), line);
        }
        assert!(written(|out| date(out, u64::MAX)).ends_with(" 31 Dec 9999 23:59:59 GMT\r\n"));
    }

    #[test]
    fn an_empty_chunk_is_not_an_end() {
        assert_eq!(written(|out| chunk(out, b"")), "");
        assert_eq!(written(|out| chunk(out, b"hello world")), "b\r\nhello world\r\n");
    }
}
