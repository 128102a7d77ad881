//! The sandbox's own reading of HTTP/1.1 requests. It shares nothing with `wire` on purpose: a mistake
//! in our framing can't hide by being made on both sides of the socket.
//!
//! Reads one request from the front of a buffer, whole body included; resumable, so a body that comes
//! in a thousand pieces is scanned once.

use crate::base::buf::Buf;

/// Largest head.
const HEAD_MAX: usize = 64 * 1024;
/// Largest body: more than any `body_max` that a test would set.
const BODY_MAX: usize = 128 * 1024 * 1024;
/// Header fields of one head.
const FIELDS_MAX: usize = 128;

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without its question mark.
    pub query: String,
    /// Header fields, names in lower case.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The first field of that (lower-case) name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client asks for the connection to be closed after the answer.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// What came of looking at the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed; how many more would do at least, where that is known.
    More(usize),
    /// The head is complete and the client waits for an interim 100 before it sends the body.
    Expects,
    /// A request; its bytes are consumed.
    Done(Box<Request>),
    /// Not a request; why.
    Bad(&'static str),
}

/// Reads one request after the other. `Intake::default()` is at the start of a head.
#[derive(Default)]
pub struct Intake {
    open: Option<Open>,
}

/// A request whose head is complete.
struct Open {
    request: Request,
    body: Body,
    expects: bool,
}

enum Body {
    /// That many bytes are left.
    Counted(usize),
    /// Between chunks.
    Size,
    /// Inside a chunk: bytes left, and then a line end.
    Chunk(usize),
    /// After the last chunk: field lines up to an empty one.
    Trailer,
}

impl Intake {
    /// Takes what it can from the front of `buf`.
    pub fn read(&mut self, buf: &mut Buf) -> Progress {
        if self.open.is_none() {
            match head(buf) {
                Ok(Some(open)) => self.open = Some(open),
                Ok(None) => return Progress::More(1),
                Err(why) => return Progress::Bad(why),
            }
        }
        let Some(open) = &mut self.open else { return Progress::More(1) };
        match open.fill(buf) {
            Ok(0) => {}
            Ok(more) => {
                if std::mem::take(&mut open.expects) {
                    return Progress::Expects;
                }
                return Progress::More(more);
            }
            Err(why) => return Progress::Bad(why),
        }
        match self.open.take() {
            Some(open) => Progress::Done(Box::new(open.request)),
            None => Progress::More(1),
        }
    }
}

impl Open {
    /// Moves body bytes over; how many more are needed at least, 0 when it is whole.
    fn fill(&mut self, buf: &mut Buf) -> Result<usize, &'static str> {
        loop {
            match self.body {
                Body::Counted(left) => {
                    let left = left - self.take(buf, left);
                    self.body = Body::Counted(left);
                    return Ok(left);
                }
                Body::Size => {
                    let Some(line) = line(buf, 256)? else { return Ok(1) };
                    let digits = line.split(';').next().unwrap_or_default().trim();
                    let size = usize::from_str_radix(digits, 16).map_err(|_| "bad chunk size")?;
                    if size > BODY_MAX - self.request.body.len() {
                        return Err("body too large");
                    }
                    self.body = if size == 0 { Body::Trailer } else { Body::Chunk(size) };
                }
                Body::Chunk(0) => match line(buf, 2)? {
                    None => return Ok(1),
                    Some(line) if line.is_empty() => self.body = Body::Size,
                    Some(_) => return Err("a chunk is longer than its size"),
                },
                Body::Chunk(left) => {
                    let left = left - self.take(buf, left);
                    self.body = Body::Chunk(left);
                    if left > 0 {
                        return Ok(left);
                    }
                }
                Body::Trailer => match line(buf, HEAD_MAX)? {
                    None => return Ok(1),
                    Some(line) if line.is_empty() => return Ok(0),
                    Some(_) => {}
                },
            }
        }
    }

    fn take(&mut self, buf: &mut Buf, most: usize) -> usize {
        let count = most.min(buf.len());
        self.request.body.extend_from_slice(&buf.as_slice()[..count]);
        buf.consume(count);
        count
    }
}

/// A line without its CR LF, consumed; `None` while it is not complete.
fn line(buf: &mut Buf, max: usize) -> Result<Option<String>, &'static str> {
    let Some(end) = memchr::memchr(b'\n', buf.as_slice()) else {
        return if buf.len() > max { Err("a line is too long") } else { Ok(None) };
    };
    let Some(text) = buf.as_slice()[..end].strip_suffix(b"\r") else { return Err("a bare LF") };
    let text = String::from_utf8(text.to_vec()).map_err(|_| "a line is not text")?;
    buf.consume(end + 1);
    Ok(Some(text))
}

fn head(buf: &mut Buf) -> Result<Option<Open>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let size = match parsed.parse(buf.as_slice()) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) if buf.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("head too large"),
        Err(_) => return Err("not an HTTP request"),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    for field in parsed.headers.iter() {
        let value = String::from_utf8_lossy(field.value).into_owned();
        request.fields.push((field.name.to_ascii_lowercase(), value));
    }
    let body = framing(&request)?;
    let expects =
        request.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    buf.consume(size);
    Ok(Some(Open { request, body, expects }))
}

fn framing(request: &Request) -> Result<Body, &'static str> {
    let lengths = request.fields.iter().filter(|(name, _)| name == "content-length").count();
    match (request.field("transfer-encoding"), request.field("content-length")) {
        (Some(_), Some(_)) => Err("both a length and chunked"),
        (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Body::Size),
        (Some(_), None) => Err("an unknown transfer coding"),
        (None, None) => Ok(Body::Counted(0)),
        (None, Some(_)) if lengths > 1 => Err("two lengths"),
        (None, Some(length)) => match length.parse() {
            Ok(length) if length <= BODY_MAX => Ok(Body::Counted(length)),
            Ok(_) => Err("body too large"),
            Err(_) => Err("bad length"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step`; all requests and how it stopped.
    fn feed(bytes: &[u8], step: usize) -> (Vec<Request>, Option<&'static str>) {
        let (mut intake, mut buf, mut found) = (Intake::default(), Buf::new(), Vec::new());
        for piece in bytes.chunks(step) {
            buf.extend(piece);
            loop {
                match intake.read(&mut buf) {
                    Progress::More(more) => {
                        assert!(more > 0);
                        break;
                    }
                    Progress::Expects => {}
                    Progress::Done(request) => found.push(*request),
                    Progress::Bad(why) => return (found, Some(why)),
                }
                if buf.is_empty() && intake.open.is_none() {
                    break;
                }
            }
        }
        (found, None)
    }

    #[test]
    fn any_split_reads_the_same_requests() {
        let bytes = b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n\
            GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n";
        let (whole, bad) = feed(bytes, bytes.len());
        assert_eq!(bad, None);
        let seen: Vec<_> = whole.iter().map(|r| (r.path.as_str(), r.body.as_slice())).collect();
        assert_eq!(
            seen,
            [("/v1/chat/completions", &b"hello"[..]), ("/b", b"abcde"), ("/v1/models", b"")]
        );
        assert!(whole[2].closes() && !whole[0].closes());
        for step in 1..bytes.len() {
            assert_eq!(feed(bytes, step), (whole.clone(), None), "step {step}");
        }
    }

    #[test]
    fn refuses_ambiguous_and_broken_requests() {
        for (bytes, why) in [
            (
                &b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"[..],
                "two lengths",
            ),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "both a length and chunked",
            ),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "an unknown transfer coding"),
            (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "bad length"),
            (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", "body too large"),
            (b"\x16\x03\x01\x02\x00\x01\x00", "not an HTTP request"),
            (b"P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "bad chunk size"),
            (
                b"P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
                "a chunk is longer than its size",
            ),
        ] {
            assert_eq!(feed(bytes, bytes.len()).1, Some(why));
        }
    }

    #[test]
    fn asks_for_an_interim_answer_once() {
        let mut buf =
            Buf::from(&b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"[..]);
        let mut intake = Intake::default();
        assert_eq!(intake.read(&mut buf), Progress::Expects);
        assert_eq!(intake.read(&mut buf), Progress::More(2));
        buf.extend(b"ok");
        assert!(matches!(intake.read(&mut buf), Progress::Done(r) if r.body == b"ok"));
    }
}
