//! What an error status means where the status alone misleads: the words of vendors that copy OpenAI's
//! API. Sources: the vendors' API references.

use crate::base::fail::Fault;
use crate::llm::errors::fault_of;
use crate::llm::provider::Said;
use crate::llm::request::Surface;

/// Names the fault of an error response.
pub(super) fn fault(status: u16, said: Option<&Said>, surface: Surface) -> Fault {
    let usual = fault_of(status, said, surface);
    // TGI's failed generation, and Groq's own for a tier without room and a request it gave up.
    if matches!(status, 424 | 498 | 499) {
        return Fault::Unavailable;
    }
    let Some(said) = said else { return usual };
    let lower = |text: &Option<String>| text.as_deref().unwrap_or_default().to_ascii_lowercase();
    let (code, kind) = (lower(&said.code), lower(&said.kind));
    let message = said.message.to_ascii_lowercase();
    let tells = |word: &Word| match word {
        Word::Slug(slug) => code == *slug || kind == *slug,
        Word::Phrase(phrase) => message.contains(phrase) || code.contains(phrase),
    };
    let found =
        WORDS.iter().find(|(from, to, word, _)| (*from..=*to).contains(&status) && tells(word));
    found.map_or(usual, |(.., fault)| *fault)
}

/// What an error says.
enum Word {
    /// Its code or type, in lower case.
    Slug(&'static str),
    /// A part of its message, in lower case.
    Phrase(&'static str),
}

use Word::{Phrase, Slug};

/// The first and last status, the words there, and what they mean. The first that fits stands.
const WORDS: &[(u16, u16, Word, Fault)] = &[
    // The prompt is too long. llama.cpp says so with a 500 too, Together with a 403.
    (400, 500, Slug("exceed_context_size_error"), Fault::Context),
    (400, 400, Slug("too_many_prompt_tokens"), Fault::Context),
    (400, 422, Phrase("total length of all messages is too long"), Fault::Context),
    (400, 422, Phrase("`max_new_tokens` must be <="), Fault::Context),
    (400, 422, Phrase("must have less than"), Fault::Context),
    (403, 422, Phrase("maximum context length"), Fault::Context),
    (403, 403, Phrase("input tokens + `max_new_tokens`"), Fault::Context),
    (400, 422, Phrase("exceeded model token limit"), Fault::Context),
    (400, 422, Phrase("range of input length should be"), Fault::Context),
    (400, 422, Phrase("greater than the context length"), Fault::Context),
    (400, 422, Phrase("when context the overflows"), Fault::Context),
    (400, 422, Phrase("reduce the length of the messages"), Fault::Context),
    (400, 400, Slug("1261"), Fault::Context),
    // What was asked or answered is not allowed.
    (403, 403, Phrase("your input was flagged"), Fault::ContentPolicy),
    (400, 403, Phrase("violates usage guidelines"), Fault::ContentPolicy),
    (400, 403, Slug("data_inspection_failed"), Fault::ContentPolicy),
    (400, 403, Slug("datainspectionfailed"), Fault::ContentPolicy),
    (400, 403, Slug("1301"), Fault::ContentPolicy),
    // The account is empty, or the key is wrong, whatever the status says.
    (400, 400, Phrase("incorrect api key"), Fault::Credential),
    (400, 400, Phrase("invalid api key"), Fault::Credential),
    (400, 400, Phrase("api key not valid"), Fault::Credential),
    (400, 400, Slug("arrearage"), Fault::Credential),
    (412, 412, Phrase("suspended"), Fault::Credential),
    (412, 412, Phrase("spend"), Fault::Credential),
    (429, 429, Slug("exceeded_current_quota_error"), Fault::Credential),
    (429, 429, Phrase("insufficient balance"), Fault::Credential),
    (400, 429, Slug("1113"), Fault::Credential),
    // There is no such model, though the status is that of a bad request.
    (400, 400, Slug("model_not_found"), Fault::NotFound),
    (400, 400, Slug("model_decommissioned"), Fault::NotFound),
    (400, 400, Slug("1211"), Fault::NotFound),
    (400, 400, Phrase("is not a valid model id"), Fault::NotFound),
    (400, 400, Phrase("model not exist"), Fault::NotFound),
    (400, 404, Phrase("no models loaded"), Fault::NotFound),
    // The model stumbled or the server is busy; the same again may do.
    (400, 400, Slug("tool_use_failed"), Fault::Unavailable),
    (400, 400, Slug("json_validate_failed"), Fault::Unavailable),
    (400, 400, Phrase("failed to load model"), Fault::Unavailable),
    (400, 400, Phrase("model has unloaded or crashed"), Fault::Unavailable),
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::llm::errors::said_of_body;

    fn named(status: u16, body: &[u8]) -> Fault {
        fault(status, said_of_body(body).as_ref(), Surface::Chat)
    }

    #[test]
    fn vendors_errors_are_named_by_their_words() {
        let error =
            |message: &str, code: Value| json!({ "error": { "message": message, "code": code } });
        let typed =
            |message: &str, kind: &str| json!({ "error": { "message": message, "type": kind } });
        let flat = |code: &str, message: &str| json!({ "code": code, "error": message });
        let null = Value::Null;
        for (vendor, status, body, want) in [
            (
                "groq",
                429,
                error("Rate limit reached for model `x`", json!("rate_limit_exceeded")),
                Fault::RateLimited,
            ),
            (
                "groq",
                413,
                error("Request too large for model `x`", json!("rate_limit_exceeded")),
                Fault::TooLarge,
            ),
            (
                "groq",
                400,
                error(
                    "Please reduce the length of the messages or completion.",
                    json!("context_length_exceeded"),
                ),
                Fault::Context,
            ),
            (
                "groq",
                404,
                error("The model `x` does not exist", json!("model_not_found")),
                Fault::NotFound,
            ),
            (
                "groq",
                400,
                error("The model `x` has been decommissioned", json!("model_decommissioned")),
                Fault::NotFound,
            ),
            (
                "groq",
                400,
                error("Failed to call a function.", json!("tool_use_failed")),
                Fault::Unavailable,
            ),
            (
                "groq",
                498,
                error("Flex tier capacity exceeded", json!("capacity_exceeded")),
                Fault::Unavailable,
            ),
            ("groq", 401, error("Invalid API Key", json!("invalid_api_key")), Fault::Credential),
            ("groq", 400, error("property 'x' is unsupported", null.clone()), Fault::Client),
            (
                "deepseek",
                402,
                error("Insufficient Balance", json!("invalid_request_error")),
                Fault::Credential,
            ),
            (
                "deepseek",
                400,
                error(
                    "This model's maximum context length is 9 tokens.",
                    json!("invalid_request_error"),
                ),
                Fault::Context,
            ),
            (
                "deepseek",
                400,
                error("Model Not Exist", json!("invalid_request_error")),
                Fault::NotFound,
            ),
            ("deepseek", 503, error("Server overloaded", null.clone()), Fault::Unavailable),
            (
                "xai",
                400,
                flat("Client specified an invalid argument", "Incorrect API key provided: xa***"),
                Fault::Credential,
            ),
            (
                "xai",
                403,
                flat("The caller does not have permission", "Your team has run out of credits."),
                Fault::Credential,
            ),
            (
                "xai",
                404,
                flat("Some requested entity was not found", "The model grok-9 does not exist"),
                Fault::NotFound,
            ),
            (
                "xai",
                403,
                flat("The caller does not have permission", "Content violates usage guidelines."),
                Fault::ContentPolicy,
            ),
            (
                "xai",
                429,
                flat("Some resource has been exhausted", "Too many requests"),
                Fault::RateLimited,
            ),
            (
                "openrouter",
                403,
                error(
                    "Your chosen model requires moderation and your input was flagged",
                    json!(403),
                ),
                Fault::ContentPolicy,
            ),
            ("openrouter", 402, error("Insufficient credits.", json!(402)), Fault::Credential),
            (
                "openrouter",
                400,
                error("This endpoint's maximum context length is 9 tokens.", json!(400)),
                Fault::Context,
            ),
            ("openrouter", 400, error("x/y is not a valid model ID", json!(400)), Fault::NotFound),
            ("openrouter", 429, error("Provider returned error", json!(429)), Fault::RateLimited),
            ("openrouter", 502, error("Provider down", json!(502)), Fault::Unavailable),
            (
                "together",
                403,
                typed(
                    "`inputs` tokens + `max_new_tokens` must be <= 9. maximum context length",
                    "invalid_request_error",
                ),
                Fault::Context,
            ),
            (
                "together",
                422,
                typed(
                    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097",
                    "invalid_request_error",
                ),
                Fault::Context,
            ),
            (
                "together",
                404,
                typed("Unable to access model x", "model_not_available"),
                Fault::NotFound,
            ),
            ("together", 529, typed("busy", "server_error"), Fault::Unavailable),
            ("fireworks", 412, typed("Account x is suspended", "error"), Fault::Credential),
            ("fireworks", 404, json!({ "error": "Model not found" }), Fault::NotFound),
            (
                "perplexity",
                400,
                typed("The total length of all messages is too long.", "too_many_prompt_tokens"),
                Fault::Context,
            ),
            ("perplexity", 401, error("no", json!(401)), Fault::Credential),
            (
                "cerebras",
                429,
                error("Tokens per minute limit exceeded", json!("token_quota_exceeded")),
                Fault::RateLimited,
            ),
            (
                "vllm",
                400,
                json!({ "object": "error", "message": "This model's maximum context length is 9 tokens.", "type": "BadRequestError", "code": 400 }),
                Fault::Context,
            ),
            ("vllm", 404, typed("The model `x` does not exist.", "NotFoundError"), Fault::NotFound),
            (
                "llamacpp",
                400,
                typed("the request exceeds it", "exceed_context_size_error"),
                Fault::Context,
            ),
            (
                "llamacpp",
                500,
                typed("the request exceeds it", "exceed_context_size_error"),
                Fault::Context,
            ),
            ("llamacpp", 503, typed("Loading model", "unavailable_error"), Fault::Unavailable),
            (
                "tgi",
                422,
                json!({ "error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000", "error_type": "validation" }),
                Fault::Context,
            ),
            (
                "tgi",
                424,
                json!({ "error": "Request failed during generation", "error_type": "generation" }),
                Fault::Unavailable,
            ),
            (
                "tgi",
                429,
                json!({ "error": "Model is overloaded", "error_type": "overloaded" }),
                Fault::RateLimited,
            ),
            (
                "lmstudio",
                400,
                json!({ "error": "The number of tokens to keep from the initial prompt is greater than the context length." }),
                Fault::Context,
            ),
            (
                "lmstudio",
                404,
                typed("No models loaded. Please load a model.", "invalid_request_error"),
                Fault::NotFound,
            ),
            (
                "lmstudio",
                400,
                json!({ "error": "Failed to load model \"x\"." }),
                Fault::Unavailable,
            ),
            (
                "moonshot",
                429,
                typed(
                    "Your account is suspended, please check your plan",
                    "exceeded_current_quota_error",
                ),
                Fault::Credential,
            ),
            (
                "moonshot",
                429,
                typed("The engine is currently overloaded", "engine_overloaded_error"),
                Fault::RateLimited,
            ),
            (
                "moonshot",
                400,
                typed("Your request exceeded model token limit: 8192", "invalid_request_error"),
                Fault::Context,
            ),
            ("moonshot", 400, typed("high risk", "content_filter"), Fault::ContentPolicy),
            (
                "zai",
                429,
                error("Insufficient balance or no resource package.", json!("1113")),
                Fault::Credential,
            ),
            ("zai", 429, error("Rate limit reached", json!("1302")), Fault::RateLimited),
            ("zai", 400, error("sensitive", json!("1301")), Fault::ContentPolicy),
            ("zai", 400, error("unknown model", json!("1211")), Fault::NotFound),
            (
                "alibaba",
                400,
                typed("Input data may contain inappropriate content.", "data_inspection_failed"),
                Fault::ContentPolicy,
            ),
            (
                "alibaba",
                400,
                error("Access denied, account overdue", json!("Arrearage")),
                Fault::Credential,
            ),
            (
                "alibaba",
                400,
                error(
                    "Range of input length should be [1, 30720]",
                    json!("invalid_parameter_error"),
                ),
                Fault::Context,
            ),
            (
                "openai",
                429,
                error("You exceeded your current quota", json!("insufficient_quota")),
                Fault::Credential,
            ),
            ("openai", 400, typed("Unsupported value", "invalid_request_error"), Fault::Client),
        ] {
            assert_eq!(
                named(status, body.to_string().as_bytes()),
                want,
                "{vendor} {status} {body}"
            );
        }
        assert_eq!(named(502, b"<html>"), Fault::Unavailable);
        assert_eq!(named(424, b""), Fault::Unavailable);
    }

    /// What vendors answered, where the recordings lie beside the checkout: none of their errors that
    /// is ours or theirs is taken for the client's own.
    #[test]
    fn recorded_errors_are_named() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
        let Ok(index) = std::fs::read_to_string(folder.join("INDEX.jsonl")) else {
            eprintln!("SKIPPED: there are no recordings at ../shared/fixtures");
            return;
        };
        let mut read = 0;
        for row in index.lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            let (file, status) =
                (row["file"].as_str().unwrap(), row["status"].as_u64().unwrap_or(0));
            if row["api"] != "openai-chat" || status < 400 {
                continue;
            }
            let body = std::fs::read(folder.join(file)).unwrap();
            let got = named(status as u16, &body);
            let want: &[Fault] = match (status, file) {
                (_, file) if file.contains("context") && !file.contains("azure") => {
                    &[Fault::Context]
                }
                (_, file) if file.contains("content-filter") || file.contains("moderation") => {
                    &[Fault::ContentPolicy]
                }
                (_, file) if file.contains("quota") || file.contains("credits") => {
                    &[Fault::Credential]
                }
                (400, file) if file.contains("tool_use_failed") => &[Fault::Unavailable],
                (400 | 422, _) => &[Fault::Client, Fault::Context],
                (401..=403, _) => &[Fault::Credential],
                (404, _) => &[Fault::NotFound],
                (429, _) => &[Fault::RateLimited],
                _ => &[Fault::Unavailable],
            };
            assert!(want.contains(&got), "{file}: {got:?}");
            read += 1;
        }
        assert!(read > 20, "{read}");
    }
}
