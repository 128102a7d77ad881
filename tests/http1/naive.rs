//! A second reader of HTTP/1.1 requests, written from the grammar of RFC 9112 and RFC 9110 as it stands
//! there, with no thought of speed or of pieces. It takes whatever the RFC lets a server take: what the
//! shipped reader accepts, this one must accept, and understand alike.

/// How a body's end is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, or `*`.
    pub target: String,
    pub minor: u8,
    /// Names in lower case, values without the white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    pub framing: Framing,
    pub body: Vec<u8>,
}

/// What stands at the beginning of some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// A request and how many bytes it took.
    Whole(Box<Request>, usize),
    /// It is not over.
    More,
    /// It is none, for this reason.
    Bad(&'static str),
}

/// Why reading stopped.
pub enum Stop {
    More,
    Bad(&'static str),
}

/// Reads one request.
pub fn request(bytes: &[u8]) -> Read {
    match message(bytes) {
        Ok((request, used)) => Read::Whole(Box::new(request), used),
        Err(Stop::More) => Read::More,
        Err(Stop::Bad(why)) => Read::Bad(why),
    }
}

fn message(bytes: &[u8]) -> Result<(Request, usize), Stop> {
    let mut at = 0;
    // Section 2.2: empty lines before the request line.
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let (first, next) = line(bytes, at)?;
    at = next;
    let (method, target, minor) = request_line(first)?;
    let mut fields = Vec::new();
    loop {
        let (text, next) = line(bytes, at)?;
        at = next;
        if text.is_empty() {
            break;
        }
        fields.push(field(text)?);
    }
    check_host(&fields, minor)?;
    let framing = framing(&fields, minor)?;
    let (body, used) = match framing {
        Framing::None => (Vec::new(), 0),
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(|_| Stop::More)?;
            (bytes[at..].get(..length).ok_or(Stop::More)?.to_vec(), length)
        }
        Framing::Chunked => chunks(&bytes[at..])?,
    };
    Ok((Request { method, target, minor, fields, framing, body }, at + used))
}

/// The line at `at` without its CRLF, and where the next begins. No other CR or LF may stand in it.
pub fn line(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Stop> {
    let rest = &bytes[at..];
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        return Err(Stop::More);
    };
    let text = &rest[..end];
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(Stop::Bad("a bare CR, a bare LF or a NUL"));
    }
    Ok((text, at + end + 2))
}

fn is_token(text: &[u8]) -> bool {
    let tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(tchar)
}

fn request_line(text: &[u8]) -> Result<(String, String, u8), Stop> {
    let words: Vec<_> = text.split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Stop::Bad("not three words")) };
    if !is_token(method) {
        return Err(Stop::Bad("the method is no token"));
    }
    let digits = version.strip_prefix(b"HTTP/1.").ok_or(Stop::Bad("the version"))?;
    let [minor @ b'0'..=b'9'] = digits else { return Err(Stop::Bad("the minor version")) };
    let method = String::from_utf8_lossy(method).into_owned();
    let target = std::str::from_utf8(target).map_err(|_| Stop::Bad("the target"))?;
    if !target.chars().all(|c| c.is_ascii_graphic() && !"\"#<>\\^`{|}".contains(c)) {
        return Err(Stop::Bad("an octet of the target"));
    }
    for (at, _) in target.match_indices('%') {
        let digits = target.get(at + 1..at + 3).unwrap_or_default();
        if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Stop::Bad("a percent sign of the target"));
        }
    }
    let path = match target.split_once("://") {
        _ if target.starts_with('/') || target == "*" && method == "OPTIONS" => target.to_owned(),
        Some((scheme, rest)) if ["http", "https"].contains(&&*scheme.to_lowercase()) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if authority.is_empty() || authority.contains('@') {
                return Err(Stop::Bad("the authority"));
            }
            // A query behind an empty path is one of "/", and leads nowhere here.
            if path.starts_with('/') { path.to_owned() } else { String::from("/") }
        }
        _ => return Err(Stop::Bad("the form of the target")),
    };
    Ok((method, path, u8::from(*minor > b'0')))
}

pub fn field(text: &[u8]) -> Result<(String, Vec<u8>), Stop> {
    let colon = text.iter().position(|b| *b == b':').ok_or(Stop::Bad("no colon"))?;
    let (name, value) = (&text[..colon], &text[colon + 1..]);
    if !is_token(name) {
        return Err(Stop::Bad("the field's name is no token"));
    }
    if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
        return Err(Stop::Bad("a control octet in a field's value"));
    }
    let name = String::from_utf8_lossy(name).to_lowercase();
    Ok((name, trim(value).to_vec()))
}

/// Without OWS around it.
fn trim(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let Some(first) = text.iter().position(|b| !blank(b)) else { return b"" };
    let last = text.iter().rposition(|b| !blank(b)).unwrap_or(first);
    &text[first..=last]
}

fn values<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_slice()).collect()
}

/// The members of a list, over all fields of its name.
pub fn members(fields: &[(String, Vec<u8>)], name: &str) -> Vec<Vec<u8>> {
    let lists = values(fields, name);
    lists.iter().flat_map(|v| v.split(|b| *b == b',')).map(|m| trim(m).to_vec()).collect()
}

/// Section 3.2.
fn check_host(fields: &[(String, Vec<u8>)], minor: u8) -> Result<(), Stop> {
    match values(fields, "host")[..] {
        [] if minor == 0 => Ok(()),
        [value] if !value.iter().any(|b| b" \t/@?#\\\"".contains(b)) => Ok(()),
        _ => Err(Stop::Bad("Host")),
    }
}

/// Section 6.3.
fn framing(fields: &[(String, Vec<u8>)], minor: u8) -> Result<Framing, Stop> {
    let codings = members(fields, "transfer-encoding");
    if !values(fields, "transfer-encoding").is_empty() {
        let chunked = |coding: &Vec<u8>| coding.eq_ignore_ascii_case(b"chunked");
        let once = codings.iter().filter(|coding| chunked(coding)).count() == 1;
        if minor == 0 || !once || !codings.last().is_some_and(chunked) {
            return Err(Stop::Bad("Transfer-Encoding"));
        }
        if codings.len() > 1 {
            return Err(Stop::Bad("a transfer coding that nobody knows"));
        }
        // A Content-Length beside it may be ignored.
        return Ok(Framing::Chunked);
    }
    if values(fields, "content-length").is_empty() {
        return Ok(Framing::None);
    }
    let lengths = members(fields, "content-length");
    let first = &lengths[0];
    let same = lengths.iter().all(|length| length == first);
    if !same || first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return Err(Stop::Bad("Content-Length"));
    }
    let digits = String::from_utf8_lossy(first);
    digits.parse().map(Framing::Length).map_err(|_| Stop::Bad("a huge Content-Length"))
}

/// Section 7.1.
pub fn chunks(bytes: &[u8]) -> Result<(Vec<u8>, usize), Stop> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let (text, next) = line(bytes, at)?;
        at = next;
        let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extensions) = text.split_at(digits);
        if !is_extensions(extensions) {
            return Err(Stop::Bad("a chunk's extensions"));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16);
        let size = size.map_err(|_| Stop::Bad("a chunk's size"))?;
        if size == 0 {
            break;
        }
        let left = bytes[at..].get(..size).ok_or(Stop::More)?;
        body.extend_from_slice(left);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(Stop::Bad("no CRLF behind a chunk")),
            None => return Err(Stop::More),
        }
    }
    loop {
        let (text, next) = line(bytes, at)?;
        at = next;
        if text.is_empty() {
            return Ok((body, at));
        }
        field(text)?;
    }
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`, split at the semicolons that no quote holds.
pub fn is_extensions(text: &[u8]) -> bool {
    if text.is_empty() {
        return true;
    }
    let (mut parts, mut quoted, mut escaped) = (vec![Vec::new()], false, false);
    for byte in text {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b';' if !quoted => {
                parts.push(Vec::new());
                continue;
            }
            _ => {}
        }
        escaped = *byte == b'\\' && quoted && !escaped;
        parts.last_mut().unwrap().push(*byte);
    }
    let valid = |part: &Vec<u8>| {
        let equals = part.iter().position(|b| *b == b'=');
        let (name, value) = part.split_at(equals.unwrap_or(part.len()));
        let value = value.get(1..).map(trim);
        is_token(trim(name)) && value.is_none_or(|v| is_token(v) || is_quoted(v))
    };
    // The grammar has white space before everything but the end.
    let whole = !quoted && !text.ends_with(b" ") && !text.ends_with(b"\t");
    whole && trim(&parts[0]).is_empty() && parts[1..].iter().all(valid)
}

/// Whether `text` is one quoted string and no more: the first quote that closes it is its last byte.
fn is_quoted(text: &[u8]) -> bool {
    let Some(inner) = text.strip_prefix(b"\"") else { return false };
    let mut escaped = false;
    let close = inner.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    close.is_some_and(|at| at + 1 == inner.len())
}
