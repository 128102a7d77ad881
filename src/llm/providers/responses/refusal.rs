//! What errors of this API say beside what all of OpenAI's say: vendors' own codes, phrases and waits.

use crate::base::fail::Fault;
use crate::base::tick::Ms;
use crate::llm::provider::Said;
use crate::wire::json;

/// xAI's errors are flat: the message is the `error` itself, and its code stands beside it.
pub fn with_outer_code(said: Said, body: &[u8]) -> Said {
    let outer = || {
        let top = json::document(body).ok()?;
        let code = json::text(body, json::get(body, top, "code")?)?;
        let is_plain = code.len() <= CODE_MAX && code.bytes().all(|byte| byte.is_ascii_graphic());
        is_plain.then(|| code.into_owned())
    };
    Said { code: said.code.or_else(outer), ..said }
}

/// What is told with a status that means something else elsewhere.
pub fn refine(fault: Fault, status: u16, said: &Said) -> Fault {
    let message = said.message.to_ascii_lowercase();
    let code = said.code.as_deref().unwrap_or_default();
    match (status, fault) {
        // The model is checked as a parameter here.
        (400, Fault::Client) if code == "model_not_found" => Fault::NotFound,
        // xAI's answer to a wrong key.
        (400, Fault::Client) if message.contains("incorrect api key") => Fault::Credential,
        (400, Fault::Client) if CONTEXT_PHRASES.iter().any(|phrase| message.contains(phrase)) => {
            Fault::Context
        }
        (400, Fault::Client) if code == "invalid_prompt" && message.contains("policy") => {
            Fault::ContentPolicy
        }
        // Azure's content filter is out of order.
        (424, Fault::Client) => Fault::Unavailable,
        (_, other) => other,
    }
}

/// "Please retry after 26 seconds.", as Azure has it.
pub fn asked_wait(message: &str) -> Option<Ms> {
    let (_, after) = message.split_once("retry after ")?;
    let (seconds, unit) = after.split_once(' ')?;
    let seconds = seconds.parse::<u32>().ok().filter(|_| unit.starts_with("second"))?;
    Some(Ms(seconds.min(WAIT_SECONDS_MAX) * 1000))
}

/// What xAI and LM Studio say when the prompt is too long, in lower case.
const CONTEXT_PHRASES: &[&str] = &["maximum prompt length", "greater than the context length"];
/// A code is a word; xAI also puts sentences there.
const CODE_MAX: usize = 64;
/// A day.
const WAIT_SECONDS_MAX: u32 = 86_400;
