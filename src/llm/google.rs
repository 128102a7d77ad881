//! Requests to Google's hosts, Gemini's own API and Vertex: a POST with an API key or an access token.

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::llm::provider::{Badge, Site, USER_AGENT};
use crate::llm::request::Ask;
use crate::wire::http1::emit;

/// Writes head and body. `path` follows the base URL's own; `more` are fields that this request has beside
/// the usual.
///
/// # Errors
/// `Unsendable`: something in it is no field, or no path.
pub fn post(
    ask: &Ask,
    site: &Site<'_>,
    path: &str,
    more: &[(&'static str, Vec<u8>)],
    body: &[u8],
    out: &mut Buf,
) -> Result<(), Fault> {
    out.reserve(body.len() + path.len() + 512);
    let mut fits = emit::request_line(out, b"POST", [site.path.as_bytes(), path.as_bytes()]);
    fits &= emit::field(out, b"host", site.authority.as_bytes());
    if let Some(key) = site.key {
        let key = key.expose();
        fits &= key.iter().all(u8::is_ascii_graphic);
        out.extend(match site.badge {
            Badge::Token => &b"authorization: Bearer "[..],
            Badge::Usual | Badge::ApiKey => b"x-goog-api-key: ",
        });
        out.extend(key);
        out.extend(emit::CRLF);
    }
    let accept: &[u8] = if ask.stream { b"text/event-stream" } else { b"application/json" };
    fits &= emit::field(out, b"accept", accept);
    fits &= emit::field(out, b"content-type", b"application/json");
    fits &= emit::field(out, b"accept-encoding", b"identity");
    fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
    let usual = ask.envelope.fields.iter().filter(|(name, _)| *name != "openai-beta");
    for (name, value) in usual.chain(more) {
        fits &= emit::field(out, name.as_bytes(), value);
    }
    emit::content_length(out, body.len() as u64);
    emit::end(out);
    out.extend(body);
    if fits {
        return Ok(());
    }
    out.clear();
    Err(Fault::Unsendable)
}
