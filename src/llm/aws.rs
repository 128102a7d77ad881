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

/// The error that a message of an event stream is, and what it means; `None` for an event.
pub fn error_of_message(message: &Named<'_>) -> Option<(Fault, Said)> {
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
    let said = Said { message: text, code: code.or(said.code), ..Said::default() };
    Some((fault_of_exception(&said).unwrap_or(Fault::ErrorEvent), said))
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
    let mut said = match json::document_with_top(refusal.body, &mut members) {
        Ok(top) if top.kind == Kind::Object => {
            Some(error_of(refusal.body, &members).unwrap_or_else(|| fields(refusal.body, &members)))
        }
        _ => None,
    };
    let name = std::str::from_utf8(refusal.error_type).map(exception).unwrap_or_default();
    if !name.is_empty() {
        let said = said.get_or_insert_default();
        said.code.get_or_insert_with(|| bounded(name));
    }
    let fault = fault(refusal.status, said.as_ref(), refusal.surface);
    let failure = Failure { fault, status: refusal.status, retry_after: refusal.retry_after };
    Refused { failure, said }
}

/// The name of an exception without what may stand around it:
/// `com.amazon.coral.service#ValidationException:http://...`
fn exception(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().trim()
}

/// What an exception means, by its name, which is written with a small letter inside streams; `None` for
/// one that is not known.
fn fault_of_exception(said: &Said) -> Option<Fault> {
    let name = said.code.as_deref().unwrap_or_default().to_ascii_lowercase();
    Some(match name.as_str() {
        "throttlingexception" | "toomanyrequestsexception" | "servicequotaexceededexception" => {
            Fault::RateLimited
        }
        "modelnotreadyexception"
        | "modeltimeoutexception"
        | "modelerrorexception"
        | "modelstreamerrorexception"
        | "internalserverexception"
        | "internalfailure"
        | "serviceunavailableexception" => Fault::Unavailable,
        // Their names are the same whether it is the keys, the signature or the clock.
        "unrecognizedclientexception"
        | "expiredtokenexception"
        | "expiredtoken"
        | "accessdeniedexception"
        | "invalidsignatureexception"
        | "incompletesignature"
        | "incompletesignatureexception"
        | "signaturedoesnotmatch"
        | "missingauthenticationtokenexception"
        | "missingauthenticationtoken"
        | "invalidclienttokenid" => Fault::Credential,
        "resourcenotfoundexception" => Fault::NotFound,
        "validationexception" => fault_of_text(&said.message).unwrap_or(Fault::Client),
        _ => return None,
    })
}

/// What a rejected request is told about, where the status would mislead.
fn fault_of_text(message: &str) -> Option<Fault> {
    let message = message.to_ascii_lowercase();
    [
        (CONTEXT_PHRASES, Fault::Context),
        (POLICY_PHRASES, Fault::ContentPolicy),
        (MODEL_PHRASES, Fault::NotFound),
    ]
    .into_iter()
    .find(|(phrases, _)| phrases.iter().any(|phrase| message.contains(phrase)))
    .map(|(_, fault)| fault)
}

fn fault(status: u16, said: Option<&Said>, surface: Surface) -> Fault {
    let named = said.and_then(fault_of_exception).filter(|fault| *fault != Fault::Client);
    let fault = match (named, fault_of(status, said, surface)) {
        (Some(named), _) => named,
        (None, Fault::Client) if status == 400 => {
            said.and_then(|said| fault_of_text(&said.message)).unwrap_or(Fault::Client)
        }
        // The model's own failure, not the client's.
        (None, _) if status == 424 => Fault::Unavailable,
        (None, fault) => fault,
    };
    // On a path that is passed through, the model is the client's own.
    if surface == Surface::Other && fault == Fault::NotFound { Fault::Client } else { fault }
}

/// An error object's fields, in any of the spellings that are about.
fn fields(bytes: &[u8], members: &Top) -> Said {
    let mut said = Said::default();
    for member in members {
        let Some(text) = json::text(bytes, member.value) else { continue };
        match member.key.of(bytes) {
            b"message" | b"Message" | b"errorMessage" => said.message = bounded(&text),
            b"__type" | b"code" => said.code = Some(bounded(exception(&text))),
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
        let refused = refuse(&Refusal {
            status,
            retry_after: None,
            body: body.as_bytes(),
            surface,
            ..Refusal::default()
        });
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
            ..Refusal::default()
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
    fn a_field_names_the_exception() {
        let named = |status: u16, error_type: &str, body: &str| {
            let error_type = error_type.as_bytes();
            let (body, surface) = (body.as_bytes(), Surface::Chat);
            refuse(&Refusal { status, body, error_type, surface, ..Refusal::default() })
        };
        let uri = ":http://internal.amazon.com/coral/com.amazon.bedrock/";
        for (status, name, message, fault) in [
            (400, "ServiceQuotaExceededException", "Too much", Fault::RateLimited),
            (400, "ThrottlingException", "Rate exceeded", Fault::RateLimited),
            (429, "ThrottlingException", "Too many tokens", Fault::RateLimited),
            (429, "ModelNotReadyException", "Warming up", Fault::Unavailable),
            (408, "ModelTimeoutException", "Slow", Fault::Unavailable),
            (424, "ModelErrorException", "Broken", Fault::Unavailable),
            (400, "ExpiredTokenException", "Expired", Fault::Credential),
            (403, "InvalidSignatureException", "Signature expired", Fault::Credential),
            (403, "AccessDeniedException", "No", Fault::Credential),
            (404, "ResourceNotFoundException", "No model", Fault::NotFound),
            (400, "ValidationException", "Malformed input request", Fault::Client),
            (400, "ValidationException", "Input is too long for requested model", Fault::Context),
            (400, "ValidationException", "The model identifier is invalid", Fault::NotFound),
            (503, "ServiceUnavailableException", "Sorry", Fault::Unavailable),
            (400, "NovelException", "What", Fault::Client),
        ] {
            for suffix in ["", uri] {
                let refused = named(status, &format!("{name}{suffix}"), &says(message));
                assert_eq!(refused.failure.fault, fault, "{status} {name} {message}");
                let said = refused.said.unwrap();
                assert_eq!((said.code.as_deref(), said.message.as_str()), (Some(name), message));
            }
        }
        let bare = named(400, "ThrottlingException", "");
        assert_eq!(bare.failure.fault, Fault::RateLimited);
        assert_eq!(bare.said.unwrap().code.as_deref(), Some("ThrottlingException"));
        // What the body names stands.
        let both = named(400, "X", r#"{"__type":"y#ThrottlingException"}"#);
        assert_eq!(both.failure.fault, Fault::RateLimited);
    }

    #[test]
    fn exceptions_of_a_stream_name_the_fault() {
        for (name, body, fault) in [
            ("throttlingException", "x", Fault::RateLimited),
            ("serviceUnavailableException", "x", Fault::Unavailable),
            ("internalServerException", "x", Fault::Unavailable),
            ("modelStreamErrorException", "x", Fault::Unavailable),
            ("modelTimeoutException", "x", Fault::Unavailable),
            ("validationException", "bad", Fault::Client),
            ("validationException", "Input is too long for requested model.", Fault::Context),
            ("ofTheFutureException", "x", Fault::ErrorEvent),
        ] {
            let (payload, name) = (says(body), name.as_bytes());
            let message =
                Named { kind: Type::Exception, name, text: b"", payload: payload.as_bytes() };
            let (found, said) = error_of_message(&message).unwrap();
            assert_eq!((found, said.message.as_str()), (fault, body));
        }
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
            let (fault, said) = message(kind, "throttlingException", "", body).unwrap();
            assert_eq!((fault, said.message.as_str()), (Fault::RateLimited, "slow down"));
            assert_eq!(said.code.as_deref(), Some("throttlingException"));
        }
        let (fault, said) = message(Type::Error, "InternalError", "Sorry", "").unwrap();
        assert_eq!(fault, Fault::ErrorEvent);
        assert_eq!((said.message.as_str(), said.code.as_deref()), ("Sorry", Some("InternalError")));
        assert!(message(Type::Exception, "", "", "\x00").is_some());
        assert_eq!(message(Type::Event, "contentBlockDelta", "", body), None);
        assert_eq!(message(Type::Other, "", "", body), None);
    }
}
