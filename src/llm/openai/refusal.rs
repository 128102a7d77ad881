//! What an error status means where the status alone misleads: the words of vendors that copy OpenAI's
//! API. Sources: the vendors' API references.

use crate::base::fail::Fault;
use crate::llm::errors::fault_of;
use crate::llm::provider::Said;
use crate::llm::request::Surface;

/// Names the fault of an error response.
pub(super) fn fault(status: u16, said: Option<&Said>, surface: Surface) -> Fault {
    let usual = fault_of(status, said, surface);
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
    (424, 424, Phrase(""), Fault::Unavailable),
    (498, 499, Phrase(""), Fault::Unavailable),
];
