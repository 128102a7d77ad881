//! Requests to this API: what a client of the same dialect sent, with the model's name replaced, or a
//! conversation of another dialect in this one's words.

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::llm::dialects::responses::without_foreign;
use crate::llm::provider::{Site, USER_AGENT};
use crate::llm::request::{Ask, Surface};
use crate::llm::responses_body;
use crate::wire::http1::emit;

/// Writes head and body of a request.
///
/// # Errors
/// `Unsendable`.
pub fn send(ask: &Ask, body: &[u8], site: &Site<'_>, out: &mut Buf) -> Result<(), Fault> {
    let mut told = Buf::new();
    let path = match ask.surface {
        Surface::Responses => {
            ask.write_edited(body, site.model, &mut told);
            // Reasoning of other families would be held against the request.
            if let Some(own) = without_foreign(told.as_slice()) {
                told = Buf::from(own.as_slice());
            }
            &*ask.envelope.path
        }
        Surface::Chat | Surface::Messages => {
            told.extend(&translated(ask, body, site.model)?);
            PATH
        }
        // Other paths are passed through: the client speaks this API itself.
        Surface::Other => {
            ask.write_edited(body, site.model, &mut told);
            &*ask.envelope.path
        }
        Surface::CountTokens
        | Surface::Completions
        | Surface::Embeddings
        | Surface::Models
        | Surface::Explain
        | Surface::None => return Err(Fault::Unsendable),
    };
    out.reserve(told.len() + 512);
    if head(ask, site, path, told.len(), out) {
        out.extend(told.as_slice());
        return Ok(());
    }
    out.clear();
    Err(Fault::Unsendable)
}

fn translated(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
    let mut body = responses_body::write(&prompt, model)?;
    body.insert(String::from("model"), model.into());
    body.insert(String::from("stream"), ask.stream.into());
    serde_json::to_vec(&body).map_err(|_| Fault::Unsendable)
}

/// Writes the head of a request whose body has `length` bytes. `false` if something in it is no field.
fn head(ask: &Ask, site: &Site<'_>, path: &str, length: usize, out: &mut Buf) -> bool {
    let method: &[u8] = match ask.surface {
        Surface::Chat | Surface::Messages | Surface::Responses => b"POST",
        _ => ask.envelope.method.as_bytes(),
    };
    if !emit::request_line(out, method, [site.path.as_bytes(), path.as_bytes()]) {
        return false;
    }
    let mut fits = emit::field(out, b"host", site.authority.as_bytes());
    if let Some(key) = site.key {
        fits &= key.expose().iter().all(u8::is_ascii_graphic);
        out.extend(b"authorization: Bearer ");
        out.extend(key.expose());
        out.extend(emit::CRLF);
    }
    fits &= emit::field(out, b"accept-encoding", b"identity");
    fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
    if ask.surface.is_understood() {
        let accept: &[u8] = if ask.stream { b"text/event-stream" } else { b"application/json" };
        fits &= emit::field(out, b"accept", accept);
        fits &= emit::field(out, b"content-type", b"application/json");
    }
    for (name, value) in &ask.envelope.fields {
        fits &= emit::field(out, name.as_bytes(), value);
    }
    if length > 0 || matches!(method, b"POST" | b"PUT" | b"PATCH") {
        emit::content_length(out, length as u64);
    }
    out.extend(emit::CRLF);
    fits
}

/// Under the base path.
const PATH: &str = "/responses";
