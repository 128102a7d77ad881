//! A prompt as a body of Ollama's chat. Source: the vendor's API reference.
//!
//! ```text
//!   {"messages":[{"role":"user","content":"look","images":["iVBOR.."]}],
//!    "format":{..},"options":{"num_predict":9},"think":true}
//! ```
//!
//! Content is a string there: texts of one turn are paragraphs of it, and pictures stand beside it. What
//! the format has no place for is dropped (the user's name, logit_bias, parallel_tool_calls); what would
//! change the meaning of the answer makes the request unsendable: several choices, a tool that must be
//! called, sound and documents, a picture by its address. How long a model stays loaded and how much
//! context it has is the server's business, and never asked for.

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Choice, Format, Media, Part, Prompt, Role, Source, Tool};
use crate::llm::turns;

/// Writes the body for `model`, without `model` and `stream`.
///
/// # Errors
/// `Unsendable`: the format can't say this.
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    if prompt.params.get("n").and_then(Value::as_u64).is_some_and(|n| n > 1) {
        return Err(Fault::Unsendable);
    }
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(said("system", &prompt.system)?);
    }
    for turn in &prompt.turns {
        match turn.role {
            Role::User => user(&turn.parts, &mut messages)?,
            Role::Assistant => messages.extend(assistant(&turn.parts)?),
        }
    }
    let mut body = Map::new();
    body.insert("messages".into(), Value::Array(messages));
    match &prompt.choice {
        None | Some(Choice::Auto) => {
            if !prompt.tools.is_empty() {
                body.insert("tools".into(), prompt.tools.iter().map(tool).collect());
            }
        }
        // Tools that are not shown are not called.
        Some(Choice::None) => {}
        Some(Choice::Any | Choice::Named(_)) => return Err(Fault::Unsendable),
    }
    match &prompt.format {
        None => {}
        Some(Format::Json) => _ = body.insert("format".into(), json!("json")),
        Some(Format::Schema { schema, .. }) => _ = body.insert("format".into(), schema.clone()),
    }
    let options = options(prompt);
    if !options.is_empty() {
        body.insert("options".into(), Value::Object(options));
    }
    if let Some(think) = think(prompt, model) {
        body.insert("think".into(), think);
    }
    Ok(body)
}

/// Results of tools, each a message, then what the user says.
fn user(parts: &[Part], messages: &mut Vec<Value>) -> Result<(), Fault> {
    let (returned, rest) = turns::split(parts);
    for tool in returned {
        let mut message = said("tool", &tool.parts)?;
        if tool.is_error {
            let text = message["content"].as_str().unwrap_or_default();
            message["content"] = json!(format!("{FAILED}{text}"));
        }
        if !tool.name.is_empty() {
            message["tool_name"] = json!(tool.name);
        }
        // Older servers go by the name alone.
        if !tool.id.is_empty() {
            message["tool_call_id"] = json!(tool.id);
        }
        messages.push(message);
    }
    if !rest.is_empty() {
        messages.push(said("user", &rest)?);
    }
    Ok(())
}

/// A message of texts and pictures.
fn said(role: &str, parts: &[Part]) -> Result<Value, Fault> {
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Text { text, .. } => texts.push(text.as_str()),
            Part::Media(media) => images.push(image(media)?),
            // Only the model thinks and calls.
            Part::Thought { .. }
            | Part::Redacted { .. }
            | Part::Call { .. }
            | Part::Result { .. } => {}
        }
    }
    let mut message = json!({ "role": role, "content": texts.join(BETWEEN) });
    if !images.is_empty() {
        message["images"] = json!(images);
    }
    Ok(message)
}

/// Base64 alone. The server fetches nothing, and takes nothing but pictures.
fn image(media: &Media) -> Result<&str, Fault> {
    match &media.source {
        Source::Data(data) if media.mime.starts_with("image/") => Ok(data),
        Source::Data(_) | Source::Url(_) | Source::File(_) => Err(Fault::Unsendable),
    }
}

fn assistant(parts: &[Part]) -> Result<Option<Value>, Fault> {
    let mut message = said("assistant", parts)?;
    let (mut thoughts, mut calls) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Thought { text, .. } if !text.is_empty() => thoughts.push(text.as_str()),
            Part::Call { id, name, input, .. } => calls.push(call(id, name, input)?),
            Part::Media(_) => return Err(Fault::Unsendable),
            Part::Text { .. }
            | Part::Thought { .. }
            | Part::Redacted { .. }
            | Part::Result { .. } => {}
        }
    }
    if calls.is_empty() && message["content"] == "" {
        return Ok(None);
    }
    if !thoughts.is_empty() {
        message["thinking"] = json!(thoughts.join(BETWEEN));
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    Ok(Some(message))
}

/// Arguments are an object there, and nothing else.
fn call(id: &str, name: &str, input: &Value) -> Result<Value, Fault> {
    if !input.is_object() {
        return Err(Fault::Unsendable);
    }
    let mut call = json!({ "function": { "name": name, "arguments": input } });
    if !id.is_empty() {
        call["id"] = json!(id);
    }
    Ok(call)
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    // Templates walk through both.
    let mut schema = tool.schema.clone().unwrap_or_else(|| json!({}));
    if schema.get("type").is_none() {
        schema["type"] = json!("object");
    }
    if schema.get("properties").is_none() {
        schema["properties"] = json!({});
    }
    function["parameters"] = schema;
    json!({ "type": "function", "function": function })
}

fn options(prompt: &Prompt) -> Map<String, Value> {
    let mut options = Map::new();
    for (ours, theirs) in [
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("min_p", "min_p"),
        ("seed", "seed"),
        ("presence_penalty", "presence_penalty"),
        ("frequency_penalty", "frequency_penalty"),
        ("repetition_penalty", "repeat_penalty"),
    ] {
        if let Some(value) = prompt.params.get(ours).filter(|value| value.is_number()) {
            options.insert(theirs.into(), value.clone());
        }
    }
    if let Some(max) = prompt.max_tokens {
        options.insert("num_predict".into(), json!(max));
    }
    if !prompt.stop.is_empty() {
        options.insert("stop".into(), json!(prompt.stop));
    }
    options
}

/// Whether to think; one family of models knows how much, and can't leave it.
fn think(prompt: &Prompt, model: &str) -> Option<Value> {
    let effort = match (prompt.effort.as_deref(), prompt.budget) {
        (Some(effort), _) => effort,
        (None, Some(0)) => "none",
        (None, Some(..=4096)) => "low",
        (None, Some(..=16384)) => "medium",
        (None, Some(_)) => "high",
        (None, None) => return None,
    };
    if !model.contains("gpt-oss") {
        return Some(json!(effort != "none"));
    }
    Some(match effort {
        "none" | "minimal" | "low" => json!("low"),
        "medium" => json!("medium"),
        _ => json!("high"),
    })
}

/// Texts that were apart stay apart.
const BETWEEN: &str = "\n\n";
/// The format has no word for a tool that failed, so its text says it.
const FAILED: &str = "Error: ";

#[cfg(test)]
mod tests;
