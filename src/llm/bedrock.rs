//! How Bedrock's operations are asked, whichever the format of the body: path, credential, head.
//!
//! ```text
//!   POST /model/us.amazon.nova-lite-v1%3A0/converse-stream HTTP/1.1
//!   host: bedrock-runtime.us-east-1.amazonaws.com
//!   content-type: application/json
//!   x-amz-date: 20240229T235959Z                    and x-amz-security-token, or neither of them
//!   authorization: AWS4-HMAC-SHA256 Credential=..   or Bearer
//! ```
//!
//! Signed are host, content type, date and token: what stands on the way may change any other field.

use serde_json::{Map, Value};

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::tick::UnixMs;
use crate::llm::prompt::{Part, Prompt, Source};
use crate::llm::provider::{Site, USER_AGENT};
use crate::llm::request::Ask;
use crate::wire::http1::emit;
use crate::wire::sign::{self, Scope};

/// Writes a request of `operation`, which is the last segment of its path.
///
/// # Errors
/// `Unsendable`: something in it is no field.
pub fn send(
    ask: &Ask,
    operation: &str,
    body: &Map<String, Value>,
    site: &Site<'_>,
    wall: UnixMs,
    out: &mut Buf,
) -> Result<(), Fault> {
    let body = serde_json::to_vec(body).map_err(|_| Fault::Unsendable)?;
    let model = sign::encode_segment(site.model);
    let path = format!("{}/model/{model}/{operation}", site.path);
    out.reserve(body.len() + 1024);
    if head(ask, site, &path, &body, wall, out) {
        out.extend(&body);
        return Ok(());
    }
    out.clear();
    Err(Fault::Unsendable)
}

/// The features in trial that the client asks Anthropic for, which stand in the body here.
pub fn betas(ask: &Ask) -> Option<Value> {
    let fields = ask.envelope.fields.iter().filter(|(name, _)| *name == BETA);
    let names: Vec<Value> = fields
        .filter_map(|(_, value)| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(Value::from)
        .collect();
    (!names.is_empty()).then_some(Value::Array(names))
}

/// Whether a model is one of Anthropic's, by its id.
pub fn is_claude(model: &str) -> bool {
    let model = model.to_ascii_lowercase();
    ["anthropic.", "claude"].iter().any(|word| model.contains(word))
}

/// Whether there are media that the provider would have to fetch: none is fetched here.
pub fn has_addresses(prompt: &Prompt) -> bool {
    fn is_address(part: &Part) -> bool {
        match part {
            Part::Media(media) => matches!(media.source, Source::Url(_)),
            Part::Result { parts, .. } => parts.iter().any(is_address),
            Part::Text { .. }
            | Part::Thought { .. }
            | Part::Redacted { .. }
            | Part::Call { .. } => false,
        }
    }
    let turns = prompt.turns.iter().flat_map(|turn| &turn.parts);
    prompt.system.iter().chain(turns).any(is_address)
}

fn head(ask: &Ask, site: &Site<'_>, path: &str, body: &[u8], wall: UnixMs, out: &mut Buf) -> bool {
    let mut fits = emit::request_line(out, b"POST", [path.as_bytes(), b""]);
    let signed: [(&str, &[u8]); 2] =
        [("host", site.authority.as_bytes()), ("content-type", b"application/json")];
    for (name, value) in signed {
        fits &= emit::field(out, name.as_bytes(), value);
    }
    if let Some(keys) = site.aws {
        let request = sign::Request { method: "POST", path, query: "", fields: &signed, body };
        let scope = Scope { region: &keys.region, service: SERVICE, wall };
        let signed = sign::sign(&request, keys, &scope);
        fits &= emit::field(out, b"x-amz-date", signed.date.as_bytes());
        if let Some(token) = &keys.session_token {
            fits &= emit::field(out, b"x-amz-security-token", token.expose());
        }
        fits &= emit::field(out, b"authorization", signed.authorization.as_bytes());
    } else if let Some(key) = site.key {
        let key = key.expose();
        fits &= key.iter().all(u8::is_ascii_graphic);
        out.extend(b"authorization: Bearer ");
        out.extend(key);
        out.extend(emit::CRLF);
    }
    let accept: &[u8] = if ask.stream { EVENTS } else { b"application/json" };
    fits &= emit::field(out, b"accept", accept);
    fits &= emit::field(out, b"accept-encoding", b"identity");
    fits &= emit::field(out, b"user-agent", USER_AGENT.as_bytes());
    for (name, value) in &ask.envelope.fields {
        if *name != BETA && *name != "openai-beta" {
            fits &= emit::field(out, name.as_bytes(), value);
        }
    }
    emit::content_length(out, body.len() as u64);
    emit::end(out);
    fits
}

/// As signatures name it.
const SERVICE: &str = "bedrock";
const EVENTS: &[u8] = b"application/vnd.amazon.eventstream";
const BETA: &str = "anthropic-beta";

#[cfg(test)]
mod tests;
