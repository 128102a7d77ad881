//! What a provider answers, head and all: the client gets well-formed HTTP with fields of our own
//! choice, an honest end, and the same however the provider's bytes were cut. A second reader of HTTP,
//! written from the RFC, sees the same answer in them: what is passed on unread is its body, octet for octet.

use firstbyte::exchange::ledger::Ending;
use firstbyte::llm::providers::Kind;
use firstbyte::llm::request::Surface;

use crate::stage::Stage;
use crate::{dialect, naive_response, stage};

/// Checks one input: flags, how it is cut, and the response.
pub fn check(data: &[u8]) {
    let [flags, rest @ ..] = data else { return };
    let (cuts, bytes) = crate::cuts(rest);
    let (surface, stream) = match flags & 7 {
        0 | 1 => (Surface::Chat, true),
        2 => (Surface::Chat, false),
        3 => (Surface::Messages, true),
        4 => (Surface::Messages, false),
        5 => (Surface::Completions, true),
        6 => (Surface::Embeddings, false),
        _ => (Surface::Other, true),
    };
    let minor = u8::from(flags & 8 == 0);
    let commit = ["first_content", "complete", "headers", "first_event"][usize::from(flags >> 6)];
    let kind = if flags & 16 == 0 { Kind::Openai } else { Kind::Anthropic };
    let stage = Stage { kind, commit, surface, stream, usage: false };
    let play = |cuts: &[usize]| stage::play(&stage, minor, bytes, cuts);
    let (whole, cut) = (play(&[]), play(&cuts));
    let (response, pieces) = (whole.response(), cut.response());
    assert_eq!((whole.good(), response.status), (cut.good(), pieces.status));
    let (left, right) = (&response.body, &pieces.body);
    let shown = || (String::from_utf8_lossy(left), String::from_utf8_lossy(right));
    assert!(left == right, "how bytes are cut shows: {:#?}", shown());
    assert!(response.status >= 200, "an interim answer is no answer");
    if minor == 0 {
        assert!(response.field("transfer-encoding").is_none(), "HTTP/1.0 knows no chunks");
    }
    match whole.ending {
        Some(Ending::Good) => {
            assert!((200..300).contains(&response.status));
            assert!(response.whole);
        }
        Some(Ending::Error) => assert!(response.status >= 400 && response.whole),
        Some(Ending::Cut(fault)) => {
            let kind = response.field("content-type").unwrap_or_default();
            if kind.to_ascii_lowercase().starts_with("text/event-stream") {
                // What was torn is over before the error is told.
                assert!(response.whole, "{fault:?}: {response:?}");
                let at = left.windows(4).rposition(|w| w == b"\n\nda").map_or(0, |at| at + 2);
                let told = &left[at..];
                assert!(!(surface == Surface::Other) || told.starts_with(b"data: {\"error\":{"));
            } else {
                assert!(!whole.keep, "{fault:?}: {response:?}");
            }
        }
        other => panic!("{other:?} with a client that stays"),
    }
    differential(bytes, surface, &whole, &response);
    if !matches!(surface, Surface::Chat | Surface::Messages | Surface::Completions) {
        return;
    }
    match (whole.good(), response.field("content-type").is_some_and(|t| t.contains("event-stream")))
    {
        (true, true) => dialect::good_stream(surface, kind == Kind::Anthropic, left),
        (true, false) => dialect::good_whole(surface, kind == Kind::Anthropic, left),
        (false, true) => dialect::bad_stream(surface, left),
        (false, false) => dialect::error_body(surface, left),
    }
}

/// A good end is one to the other reader, too.
fn differential(
    bytes: &[u8],
    surface: Surface,
    played: &stage::Played,
    response: &stage::Response,
) {
    if !played.good() {
        return;
    }
    let theirs = naive_response::read(bytes).expect("a good end of what is no response");
    assert!((200..300).contains(&theirs.status), "{} is no success", theirs.status);
    match theirs.body {
        Ok(body) if surface == Surface::Other => {
            let shown = || String::from_utf8_lossy(&body).into_owned();
            assert!(body == response.body, "{response:?}, not {:?}", shown());
        }
        Ok(_) => {}
        Err(why) => {
            // A stream that says its own end has one, whatever becomes of the connection.
            let kind = response.field("content-type").unwrap_or_default();
            let says = surface != Surface::Other && kind.starts_with("text/event-stream");
            assert!(says, "a good end of what has none: {why}");
        }
    }
}
