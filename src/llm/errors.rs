//! What errors of OpenAI's shape, and the shapes around it, say; and what a status means. Shared by
//! adapters; each adds what is its own.

use crate::base::fail::Fault;
use crate::llm::provider::{MESSAGE_MAX, Said};
use crate::llm::request::Surface;
use crate::wire::json::{self, Kind, Member, Top};

/// The error that a 200 may carry: a top-level `error`, `object: "error"` or `type: "error"`.
pub fn error_of(bytes: &[u8], members: &[Member]) -> Option<Said> {
    // First what has the error inside: `type: "error"` may stand before it.
    for member in members.iter().filter(|member| member.key.of(bytes) == b"error") {
        match member.value.kind {
            Kind::Object => {
                let fields: Top = json::members(bytes, member.value).collect();
                return Some(error_fields(bytes, &fields));
            }
            Kind::String => {
                let message = json::text(bytes, member.value).unwrap_or_default();
                return Some(Said { message: bounded(&message), ..Said::default() });
            }
            Kind::True | Kind::Number | Kind::Array => return Some(Said::default()),
            Kind::Null | Kind::False => {}
        }
    }
    let named = members.iter().any(|member| {
        matches!(member.key.of(bytes), b"object" | b"type")
            && json::str_eq(bytes, member.value, "error")
    });
    named.then(|| error_fields(bytes, members))
}

/// The error in a line of a stream that is no field of it: `error: {...}`, or JSON alone.
pub fn error_of_line(line: &[u8]) -> Option<Said> {
    let start = line.iter().position(|byte| *byte == b'{')?;
    let json = &line[start..];
    let mut members = Top::new();
    json::document_with_top(json, &mut members).ok()?;
    let named = line.trim_ascii_start().get(..5).is_some_and(|w| w.eq_ignore_ascii_case(b"error"));
    error_of(json, &members).or_else(|| named.then(|| error_fields(json, &members)))
}

/// The fields of an error object, as far as they are text.
pub fn error_fields(bytes: &[u8], members: &[Member]) -> Said {
    let mut said = Said::default();
    for member in members {
        let text = match member.value.kind {
            Kind::String => json::text(bytes, member.value).map(|text| bounded(&text)),
            // Vendors send numbers as codes; clients expect strings.
            Kind::Number => Some(String::from_utf8_lossy(member.value.span.of(bytes)).into_owned()),
            Kind::Null | Kind::True | Kind::False | Kind::Array | Kind::Object => None,
        };
        let Some(text) = text else { continue };
        match member.key.of(bytes) {
            b"message" => said.message = text,
            b"code" => said.code = Some(text),
            b"type" => said.kind = Some(text),
            b"param" => said.param = Some(text),
            _ => {}
        }
    }
    said
}

/// What an error body says: as JSON, or as a few plain words.
pub fn said_of_body(body: &[u8]) -> Option<Said> {
    let mut members = Top::new();
    match json::document_with_top(body, &mut members) {
        Ok(top) if top.kind == Kind::Object => {
            Some(error_of(body, &members).unwrap_or_else(|| {
                let mut said = error_fields(body, &members);
                let detail = members.iter().find(|m| m.key.of(body) == b"detail");
                if let Some(detail) = detail
                    && said.message.is_empty()
                {
                    said.message =
                        json::text(body, detail.value).map(|t| bounded(&t)).unwrap_or_default();
                }
                said
            }))
        }
        // Google wraps some of its errors in an array.
        Ok(top) if top.kind == Kind::Array => {
            let first = json::at(body, top, 0).filter(|first| first.kind == Kind::Object)?;
            error_of(body, &json::members(body, first).collect::<Top>())
        }
        // Pages, damaged JSON and empty bodies say nothing that a client could use.
        Ok(_) => None,
        Err(_) => {
            let text = std::str::from_utf8(body).ok()?.trim();
            let plain = text.starts_with(|first: char| first.is_alphanumeric())
                && !text.contains('<')
                && !text.chars().any(|c| c.is_control() && !c.is_whitespace());
            plain.then(|| Said { message: bounded(text), ..Said::default() })
        }
    }
}

/// At most `MESSAGE_MAX` bytes of a text.
pub fn bounded(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The contract's table of statuses, with what the body says where the status alone misleads.
pub fn fault_of(status: u16, said: Option<&Said>, surface: Surface) -> Fault {
    let code = said.and_then(|said| said.code.as_deref()).unwrap_or_default();
    let kind = said.and_then(|said| said.kind.as_deref()).unwrap_or_default();
    let message = said.map(|said| said.message.to_ascii_lowercase()).unwrap_or_default();
    let is = |words: &[&str]| words.iter().any(|word| code == *word || kind == *word);
    let tells = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if matches!(status, 400 | 402 | 403 | 429)
        && is(&["insufficient_quota", "billing_not_active", "billing_hard_limit_reached"])
    {
        return Fault::Credential;
    }
    if matches!(status, 400 | 413 | 422)
        && (is(&["context_length_exceeded", "string_above_max_length"]) || tells(CONTEXT_PHRASES))
    {
        return Fault::Context;
    }
    if matches!(status, 400 | 403 | 422)
        && is(&["content_policy_violation", "content_filter", "content_policy"])
    {
        return Fault::ContentPolicy;
    }
    match status {
        // 424: something behind the provider failed, as the filters of Azure or a model of Bedrock.
        408 | 409 | 424 | 425 => Fault::Unavailable,
        429 => Fault::RateLimited,
        401..=403 => Fault::Credential,
        404 if surface == Surface::Other => Fault::Client,
        404 => Fault::NotFound,
        413 => Fault::TooLarge,
        // Said to who sent this very request, which is the gateway: no client can mend it.
        407 | 411 | 417 | 421 | 426 | 431 => Fault::BadStatus,
        405 | 414 if surface != Surface::Other => Fault::BadStatus,
        400..=499 => Fault::Client,
        500..=599 => Fault::Unavailable,
        _ => Fault::BadStatus,
    }
}

/// What vendors say when the prompt is too long, in lower case.
const CONTEXT_PHRASES: &[&str] = &[
    "maximum context length",
    "context length exceeded",
    "exceeds the context window",
    "context window of this model",
    "prompt is too long",
    "exceeds the available context size",
    "exceed context limit",
    "exceeded max context length",
];
