//! OpenAI's Responses requests, read.

use serde_json::Value;

use crate::llm::prompt::{Prompt, Unreadable};

/// Reads a request.
///
/// # Errors
/// Where the request is none of the dialect.
pub fn read(_body: &Value) -> Result<Prompt, Unreadable> {
    Err(Unreadable { at: String::new(), expected: "a dialect that is read" })
}
