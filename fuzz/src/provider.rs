//! Every adapter, stream and whole, with every dialect as the sink: nothing panics or grows without
//! bound, a good end is an answer that is valid in the dialect, a bad one says so, and the way in which
//! bytes are cut never shows.
//!
//! ```text
//!   kind | surface and flags | status | how it is cut | the body, or lines that become its events
//! ```
//!
//! Lines become events in the provider's own framing, sums and all, `NAME<tab>PAYLOAD` under a name: a
//! mutation then changes what is said, and not only how it is framed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firstbyte::llm::provider::Framing;
use firstbyte::llm::providers::{Kind, Stream};
use firstbyte::llm::request::Surface;

use crate::stage::Stage;
use crate::{aws_event, dialect, stage};

/// Checks one input.
pub fn check(data: &[u8]) {
    let [kind, flags, status, rest @ ..] = data else { return };
    let (cuts, body) = crate::cuts(rest);
    let kind = kind_of(*kind);
    let flags = Flags::of(*flags);
    let status =
        if *status < 250 { 200 } else { [400, 404, 429, 500, 503, 529][*status as usize - 250] };
    let body = if flags.lines { framed(kind, flags.stream, body) } else { body.to_vec() };

    let head = format!("HTTP/1.1 {status} X\r\n\r\n");
    let bytes = [head.as_bytes(), &body].concat();
    // The head is one piece, and then the body is cut.
    let cuts: Vec<_> = cuts.into_iter().map(|at| head.len() + at.min(body.len())).collect();
    let Flags { surface, stream, usage, commit, .. } = flags;
    let stage = Stage { kind, commit, surface, stream, usage };
    let whole = stage::play(&stage, 1, &bytes, &[]);
    let cut = stage::play(&stage, 1, &bytes, &cuts);
    assert_eq!(whole.good(), cut.good(), "how bytes are cut decides the end");
    let (response, pieces) = (whole.response(), cut.response());
    assert_eq!(response.status, pieces.status, "how bytes are cut decides the status");
    let (left, right) = (&response.body, &pieces.body);
    let shown = || (String::from_utf8_lossy(left), String::from_utf8_lossy(right));
    assert!(left == right, "how bytes are cut shows: {:#?}", shown());
    // An event of some ten bytes becomes one of some hundreds, and an answer may be told twice.
    assert!(left.len() <= 64 * body.len() + 16 * 1024, "{} bytes of {}", left.len(), body.len());

    if !surface.is_conversation() && surface != Surface::Completions {
        return;
    }
    let events = response.field("content-type").is_some_and(|t| t.starts_with("text/event-stream"));
    let passed = matches!(kind, Kind::Anthropic | Kind::Vertex | Kind::BedrockInvoke);
    match (whole.good(), events) {
        (true, true) => dialect::good_stream(surface, passed, left),
        (true, false) => dialect::good_whole(surface, passed, left),
        (false, true) => dialect::bad_stream(surface, left),
        (false, false) => dialect::error_body(surface, left),
    }
}

/// The adapters get most of the numbers, the vendors that copy OpenAI the rest.
fn kind_of(byte: u8) -> Kind {
    let own = Kind::NAMES.iter().take_while(|(_, kind)| !matches!(kind, Kind::Like(_))).count();
    let byte = usize::from(byte);
    if byte < 192 {
        Kind::NAMES[byte % own].1
    } else {
        Kind::NAMES[own + (byte - 192) % (Kind::NAMES.len() - own)].1
    }
}

struct Flags {
    surface: Surface,
    stream: bool,
    usage: bool,
    lines: bool,
    commit: &'static str,
}

impl Flags {
    fn of(byte: u8) -> Flags {
        const SURFACES: [Surface; 4] =
            [Surface::Chat, Surface::Messages, Surface::Responses, Surface::Completions];
        const COMMITS: [&str; 4] = ["first_content", "complete", "headers", "tokens=3,within=1s"];
        Flags {
            surface: SURFACES[usize::from(byte & 3)],
            stream: byte & 4 == 0,
            usage: byte & 8 != 0,
            lines: byte & 16 == 0,
            commit: COMMITS[usize::from(byte >> 6)],
        }
    }
}

/// Lines as the events of this provider's streams; of a whole answer they are the answer.
fn framed(kind: Kind, stream: bool, lines: &[u8]) -> Vec<u8> {
    if !stream {
        return lines.to_vec();
    }
    let mut out = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let brace = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
        let tab = line[..brace].iter().position(|byte| *byte == b'\t');
        let (name, payload) = match tab {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&b""[..], line),
        };
        match Stream::new(kind).framing() {
            Framing::Lines => out.extend([payload, b"\n"].concat()),
            Framing::Sse if name.is_empty() => {
                out.extend([b"data: ", payload, b"\n\n"].concat());
            }
            Framing::Sse => out.extend([b"event: ", name, b"\ndata: ", payload, b"\n\n"].concat()),
            Framing::AwsEvents => out.extend(message(kind, name, payload)),
        }
    }
    out
}

fn message(kind: Kind, name: &[u8], payload: &[u8]) -> Vec<u8> {
    let (sort, name_of, name) = match name.strip_prefix(b"!") {
        Some(name) => ("exception", ":exception-type", name),
        None => ("event", ":event-type", name),
    };
    let chunk = format!("{{\"bytes\":\"{}\"}}", STANDARD.encode(payload));
    let (name, payload) = match (kind, sort) {
        (Kind::BedrockInvoke, "event") => (&b"chunk"[..], chunk.as_bytes()),
        _ => (name, payload),
    };
    let mut headers = Vec::new();
    for (key, value) in [(":message-type", sort.as_bytes()), (name_of, name)] {
        headers.push(key.len() as u8);
        headers.extend(key.as_bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value);
    }
    aws_event::build(&headers, payload)
}
