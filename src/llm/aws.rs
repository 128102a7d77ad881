//! What AWS services say of errors: exceptions inside an event stream, and error bodies.
//!
//! ```text
//!   :exception-type  throttlingException      {"message":"Too many requests, ..."}
//!   429  x-amzn-errortype: ThrottlingException  {"message":"..."}     (or "Message", or "__type")
//! ```
//!
//! Texts count where the status alone misleads: Bedrock says 400 for a model that it does not have.

use crate::base::fail::{Failure, Fault};
use crate::llm::errors::{bounded, error_of, fault_of};
use crate::llm::provider::{Named, Refusal, Refused, Said};
use crate::llm::request::Surface;
use crate::wire::aws_event::Kind as Type;
use crate::wire::json::{self, Kind, Top};

/// The error that a message of an event stream is; `None` for an event.
pub fn error_of_message(message: &Named<'_>) -> Option<Said> {
    let is_error = match message.kind {
        Type::Exception | Type::Error => true,
        Type::Event => message.name.ends_with(b"Exception"),
        Type::Other => false,
    };
    if !is_error {
        return None;
    }
    let mut members = Top::new();
    let said = match json::document_with_top(message.payload, &mut members) {
        Ok(_) => fields(message.payload, &members),
        Err(_) => Said::default(),
    };
    let name = std::str::from_utf8(message.name).unwrap_or_default();
    let text = if said.message.is_empty() {
        bounded(&String::from_utf8_lossy(message.text))
    } else {
        said.message
    };
    let code = (!name.is_empty()).then(|| bounded(name));
    Some(Said { message: text, code: code.or(said.code), ..Said::default() })
}

/// The error that stands where an answer should.
pub fn error_of_answer(bytes: &[u8], members: &Top) -> Option<Said> {
    let has = |name: &str| json::find(bytes, members, name);
    if let Some(inner) = has("Output").filter(|inner| inner.kind == Kind::Object) {
        // Some front ends put the error into an answer of their own.
        let inner: Top = json::members(bytes, inner).collect();
        return json::find(bytes, &inner, "__type").map(|_| fields(bytes, &inner));
    }
    let bare = || {
        let text = has("message").or_else(|| has("Message"));
        let told = text.is_some_and(|text| text.kind == Kind::String) || has("__type").is_some();
        told.then(|| fields(bytes, members))
    };
    error_of(bytes, members).or_else(bare)
}

/// Names what an error status means.
pub fn refuse(refusal: &Refusal<'_>) -> Refused {
    let mut members = Top::new();
    let said = match json::document_with_top(refusal.body, &mut members) {
        Ok(top) if top.kind == Kind::Object => {
            Some(error_of(refusal.body, &members).unwrap_or_else(|| fields(refusal.body, &members)))
        }
        _ => None,
    };
    let fault = fault(refusal.status, said.as_ref(), refusal.surface);
    let failure = Failure { fault, status: refusal.status, retry_after: refusal.retry_after };
    Refused { failure, said }
}

fn fault(status: u16, said: Option<&Said>, surface: Surface) -> Fault {
    let message = said.map(|said| said.message.to_ascii_lowercase()).unwrap_or_default();
    let tells = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    match said.and_then(|said| said.code.as_deref()).unwrap_or_default() {
        "ThrottlingException" | "ServiceQuotaExceededException" => return Fault::RateLimited,
        "ModelNotReadyException" => return Fault::Unavailable,
        "UnrecognizedClientException" | "ExpiredTokenException" | "AccessDeniedException" => {
            return Fault::Credential;
        }
        _ => {}
    }
    match (status, fault_of(status, said, surface)) {
        (400, Fault::Client) if tells(CONTEXT_PHRASES) => Fault::Context,
        (400, Fault::Client) if tells(POLICY_PHRASES) => Fault::ContentPolicy,
        (400, Fault::Client) if surface != Surface::Other && tells(MODEL_PHRASES) => {
            Fault::NotFound
        }
        // The model's own failure, not the client's.
        (424, _) => Fault::Unavailable,
        (_, fault) => fault,
    }
}

/// An error object's fields, in any of the spellings that are about.
fn fields(bytes: &[u8], members: &Top) -> Said {
    let mut said = Said::default();
    for member in members {
        let Some(text) = json::text(bytes, member.value) else { continue };
        match member.key.of(bytes) {
            b"message" | b"Message" | b"errorMessage" => said.message = bounded(&text),
            b"__type" | b"code" => {
                // `com.amazon.coral.service#ValidationException:http://...`
                let name = text.split(':').next().unwrap_or_default();
                let name = name.rsplit('#').next().unwrap_or_default();
                said.code = Some(bounded(name));
            }
            _ => {}
        }
    }
    said
}

/// What is said when the prompt is too long, in lower case.
const CONTEXT_PHRASES: &[&str] = &[
    "input tokens exceeded",
    "number of input tokens exceeds",
    "input is too long",
    "expected maxlength",
    "too many input tokens",
];
/// What is said of content that a policy refused.
const POLICY_PHRASES: &[&str] = &["content filter", "content policy", "responsible ai"];
/// What is said of a model that is not there, or not there like this.
const MODEL_PHRASES: &[&str] =
    &["model identifier is invalid", "inference profile", "on-demand throughput isn"];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> (Fault, Option<Said>) {
        let surface = Surface::Chat;
        let refused =
            refuse(&Refusal { status, retry_after: None, body: body.as_bytes(), surface });
        assert_eq!(refused.failure.status, status);
        (refused.failure.fault, refused.said)
    }

    fn says(message: &str) -> String {
        serde_json::json!({ "message": message }).to_string()
    }

    #[test]
    fn statuses_and_texts_name_the_fault() {
        let table = [
            (400, says("messages.0: bad"), Fault::Client),
            (400, says("The provided model identifier is invalid."), Fault::NotFound),
            (400, says("Retry with the ID of an inference profile."), Fault::NotFound),
            (400, says("Input Tokens Exceeded: Number of input tokens ..."), Fault::Context),
            (400, says("Input is too long for requested model."), Fault::Context),
            (400, says("expected maxLength: 42000, actual: 50000"), Fault::Context),
            (400, says("Blocked by our content filters."), Fault::ContentPolicy),
            (400, r#"{"__type":"ServiceQuotaExceededException"}"#.into(), Fault::RateLimited),
            (
                403,
                says("The security token included in the request is invalid."),
                Fault::Credential,
            ),
            (403, r#"{"Message":"no"}"#.into(), Fault::Credential),
            (404, says("no such resource"), Fault::NotFound),
            (408, says("too slow"), Fault::Unavailable),
            (424, says("the model failed"), Fault::Unavailable),
            (429, says("Too many tokens, please wait"), Fault::RateLimited),
            (429, r#"{"__type":"ModelNotReadyException"}"#.into(), Fault::Unavailable),
            (500, says("oops"), Fault::Unavailable),
            (503, "<html>".into(), Fault::Unavailable),
        ];
        for (status, body, fault) in table {
            assert_eq!(refused(status, &body).0, fault, "{status} {body}");
        }
        let other = Refusal {
            status: 400,
            retry_after: None,
            body: b"{\"message\":\"The provided model identifier is invalid.\"}",
            surface: Surface::Other,
        };
        assert_eq!(refuse(&other).failure.fault, Fault::Client);
    }

    #[test]
    fn what_is_said_is_kept_in_any_spelling() {
        let said = |body: &str| refused(400, body).1.unwrap_or_default();
        assert_eq!(said(r#"{"message":"a"}"#).message, "a");
        assert_eq!(said(r#"{"Message":"a"}"#).message, "a");
        assert_eq!(said(r#"{"error":"a"}"#).message, "a");
        let typed = said(r#"{"__type":"com.amazon.x#ValidationException:http://y","message":"a"}"#);
        assert_eq!(typed.code.as_deref(), Some("ValidationException"));
        assert_eq!(refused(400, "[]").1, None);
    }

    #[test]
    fn only_errors_of_a_stream_are_errors() {
        let message = |kind, name: &'static str, text: &'static str, payload: &'static str| {
            error_of_message(&Named {
                kind,
                name: name.as_bytes(),
                text: text.as_bytes(),
                payload: payload.as_bytes(),
            })
        };
        let body = r#"{"message":"slow down"}"#;
        for kind in [Type::Exception, Type::Event] {
            let said = message(kind, "throttlingException", "", body).unwrap();
            assert_eq!(said.message, "slow down");
            assert_eq!(said.code.as_deref(), Some("throttlingException"));
        }
        let said = message(Type::Error, "InternalError", "Sorry", "").unwrap();
        assert_eq!((said.message.as_str(), said.code.as_deref()), ("Sorry", Some("InternalError")));
        assert!(message(Type::Exception, "", "", "\x00").is_some());
        assert_eq!(message(Type::Event, "contentBlockDelta", "", body), None);
        assert_eq!(message(Type::Other, "", "", body), None);
    }
}
