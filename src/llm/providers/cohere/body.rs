//! A prompt as a body of Cohere's chat, version 2. Source: the vendor's API reference.
//!
//! ```text
//!   {"messages":[{"role":"tool","tool_call_id":"c1","content":[{"type":"document",..}]}],
//!    "p":0.9,"stop_sequences":["x"],"tool_choice":"REQUIRED"}
//! ```
//!
//! What the format has no place for is dropped (the user's name, logit_bias, parallel_tool_calls);
//! numbers beyond what it allows are brought inside. What would change the meaning of the answer makes
//! the request unsendable: several choices, a beginning of the answer, sound and documents among the
//! parts, a form of the answer together with tools or documents.

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
        messages.push(json!({ "role": "system", "content": content(&prompt.system)? }));
    }
    for turn in &prompt.turns {
        match turn.role {
            Role::User => user(&turn.parts, &mut messages)?,
            Role::Assistant => messages.extend(assistant(&turn.parts, thinks(model))?),
        }
    }
    // The vendor takes a beginning of the answer and does not go on from it.
    if messages.last().is_some_and(|last| last["role"] == "assistant") {
        return Err(Fault::Unsendable);
    }
    let mut body = Map::new();
    body.insert("messages".into(), Value::Array(messages));
    tools(prompt, &mut body)?;
    for name in ["documents", "safety_mode", "citation_options"] {
        if let Some(value) = prompt.params.get(name) {
            body.insert(name.into(), value.clone());
        }
    }
    format(prompt, &mut body)?;
    sampling(prompt, &mut body);
    if thinks(model)
        && let Some(thinking) = thinking(prompt)
    {
        body.insert("thinking".into(), thinking);
    }
    Ok(body)
}

/// Results of tools, each a message, then what the user says.
fn user(parts: &[Part], messages: &mut Vec<Value>) -> Result<(), Fault> {
    let (returned, said) = turns::split(parts);
    for tool in returned {
        let content = result(&tool.parts, tool.is_error);
        messages.push(json!({ "role": "tool", "tool_call_id": tool.id, "content": content }));
    }
    if !said.is_empty() {
        messages.push(json!({ "role": "user", "content": content(&said)? }));
    }
    Ok(())
}

/// What is said in text and pictures: a string if it is one text.
fn content(parts: &[Part]) -> Result<Value, Fault> {
    if let [Part::Text { text, .. }] = parts {
        return Ok(json!(text));
    }
    let mut items = Vec::new();
    for part in parts {
        match part {
            Part::Text { text, .. } => items.push(json!({ "type": "text", "text": text })),
            Part::Media(media) => items.push(image(media)?),
            // A user has no thoughts, and calls nothing.
            Part::Thought { .. }
            | Part::Redacted { .. }
            | Part::Call { .. }
            | Part::Result { .. } => {}
        }
    }
    Ok(Value::Array(items))
}

fn image(media: &Media) -> Result<Value, Fault> {
    let url = match &media.source {
        Source::Url(url) if media.mime.is_empty() || media.mime.starts_with("image/") => {
            url.clone()
        }
        Source::Data(data) if media.mime.starts_with("image/") => {
            format!("data:{};base64,{data}", media.mime)
        }
        // Sound and documents have no place, and another vendor's file is nothing to this one.
        Source::Url(_) | Source::Data(_) | Source::File(_) => return Err(Fault::Unsendable),
    };
    Ok(json!({ "type": "image_url", "image_url": { "url": url } }))
}

/// A message of the model. Models that think get their thoughts back as such; of the others a thought
/// before a call is the plan for it, and any other one is left out.
fn assistant(parts: &[Part], thinks: bool) -> Result<Option<Value>, Fault> {
    let (mut content, mut calls, mut plan) = (Vec::new(), Vec::new(), String::new());
    for part in parts {
        match part {
            Part::Text { text, .. } => content.push(json!({ "type": "text", "text": text })),
            Part::Thought { text, .. } if text.is_empty() => {}
            Part::Thought { text, .. } if thinks => {
                content.push(json!({ "type": "thinking", "thinking": text }));
            }
            Part::Thought { text, .. } => plan.push_str(text),
            Part::Call { id, name, input, .. } => {
                let function = json!({ "name": name, "arguments": input.to_string() });
                calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
            Part::Media(_) => return Err(Fault::Unsendable),
            Part::Redacted { .. } | Part::Result { .. } => {}
        }
    }
    if content.is_empty() && calls.is_empty() {
        return Ok(None);
    }
    let mut message = json!({ "role": "assistant" });
    match content.as_slice() {
        [] => {}
        [one] if one["type"] == "text" => message["content"] = one["text"].clone(),
        _ => message["content"] = Value::Array(content),
    }
    if !calls.is_empty() {
        if !plan.is_empty() {
            message["tool_plan"] = json!(plan);
        }
        message["tool_calls"] = Value::Array(calls);
    }
    Ok(Some(message))
}

/// What a tool said. Flat objects, alone or in a list, go as documents, which the model can cite; all
/// else is text, and so is what went wrong.
fn result(parts: &[Part], is_error: bool) -> Value {
    let mut items = Vec::new();
    if is_error {
        items.push(json!({ "type": "text", "text": FAILED }));
    }
    for part in parts {
        let Part::Text { text, .. } = part else { continue };
        match documents(text).filter(|_| !is_error) {
            Some(documents) => items.extend(documents.into_iter().map(document)),
            None => items.push(json!({ "type": "text", "text": text })),
        }
    }
    match items.as_slice() {
        [] => json!(""),
        [one] if one["type"] == "text" => one["text"].clone(),
        _ => Value::Array(items),
    }
}

fn documents(text: &str) -> Option<Vec<Map<String, Value>>> {
    let list = match serde_json::from_str(text).ok()? {
        Value::Object(object) => vec![Value::Object(object)],
        Value::Array(list) if !list.is_empty() && list.len() <= DOCUMENTS_MAX => list,
        _ => return None,
    };
    list.into_iter()
        .map(|item| match item {
            Value::Object(fields) if !fields.is_empty() && fields.values().all(is_plain) => {
                Some(fields)
            }
            _ => None,
        })
        .collect()
}

/// What comes out of a tree as it went in.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(number) => number.is_i64() || number.is_u64(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

fn document(data: Map<String, Value>) -> Value {
    let mut document = json!({});
    // A citation names its source by this.
    let id = data.get("id").or_else(|| data.get("url")).and_then(Value::as_str);
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        document["id"] = json!(id);
    }
    document["data"] = Value::Object(data);
    json!({ "type": "document", "document": document })
}

fn tools(prompt: &Prompt, body: &mut Map<String, Value>) -> Result<(), Fault> {
    let named = match &prompt.choice {
        Some(Choice::Named(name)) => Some(name),
        Some(Choice::Auto | Choice::None | Choice::Any) | None => None,
    };
    // A tool is chosen by showing no other.
    let shown: Vec<&Tool> =
        prompt.tools.iter().filter(|tool| named.is_none_or(|name| *name == tool.name)).collect();
    if shown.is_empty() {
        return if named.is_some() { Err(Fault::Unsendable) } else { Ok(()) };
    }
    let tools: Vec<Value> = shown.iter().map(|one| tool(one)).collect();
    body.insert("tools".into(), Value::Array(tools));
    if shown.iter().all(|tool| can_be_strict(tool)) {
        body.insert("strict_tools".into(), json!(true));
    }
    match &prompt.choice {
        None | Some(Choice::Auto) => {}
        Some(Choice::None) => _ = body.insert("tool_choice".into(), json!("NONE")),
        Some(Choice::Any | Choice::Named(_)) => {
            body.insert("tool_choice".into(), json!("REQUIRED"));
        }
    }
    Ok(())
}

fn tool(tool: &Tool) -> Value {
    let bare = || json!({ "type": "object", "properties": {} });
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    function["parameters"] = tool.schema.clone().unwrap_or_else(bare);
    json!({ "type": "function", "function": function })
}

/// All tools are held to their schemas, or none; a tool without a required parameter can't be.
fn can_be_strict(tool: &Tool) -> bool {
    let schema = tool.schema.as_ref();
    let required = schema.and_then(|schema| schema["required"].as_array());
    tool.strict == Some(true) && required.is_some_and(|names| !names.is_empty())
}

fn format(prompt: &Prompt, body: &mut Map<String, Value>) -> Result<(), Fault> {
    let mut format = json!({ "type": "json_object" });
    match &prompt.format {
        None => return Ok(()),
        Some(Format::Json) => {}
        // The schema alone, and without another word in the type.
        Some(Format::Schema { schema, .. }) => format["json_schema"] = schema.clone(),
    }
    if body.contains_key("tools") || body.contains_key("documents") {
        return Err(Fault::Unsendable);
    }
    body.insert("response_format".into(), format);
    Ok(())
}

fn sampling(prompt: &Prompt, body: &mut Map<String, Value>) {
    for (ours, theirs, least, most) in [
        ("temperature", "temperature", 0.0, 1.0),
        ("top_p", "p", 0.01, 0.99),
        ("top_k", "k", 0.0, 500.0),
        ("frequency_penalty", "frequency_penalty", 0.0, 1.0),
        ("presence_penalty", "presence_penalty", 0.0, 1.0),
    ] {
        let Some(value) = prompt.params.get(ours) else { continue };
        let Some(number) = value.as_f64() else { continue };
        let inside = number.clamp(least, most);
        let value = match inside {
            _ if inside == number => value.clone(),
            _ if ours == "top_k" => json!(inside as u64),
            _ => json!(inside),
        };
        body.insert(theirs.into(), value);
    }
    for name in ["seed", "logprobs"] {
        if let Some(value) = prompt.params.get(name) {
            body.insert(name.into(), value.clone());
        }
    }
    if let Some(max) = prompt.max_tokens {
        body.insert("max_tokens".into(), json!(max));
    }
    if !prompt.stop.is_empty() {
        let stops: Vec<_> = prompt.stop.iter().take(STOPS_MAX).collect();
        body.insert("stop_sequences".into(), json!(stops));
    }
}

/// How much to think, or not at all.
fn thinking(prompt: &Prompt) -> Option<Value> {
    let budget = match (prompt.budget, prompt.effort.as_deref()) {
        (_, Some("none")) | (Some(0), _) => return Some(json!({ "type": "disabled" })),
        (Some(budget), _) => budget.min(BUDGET_MAX),
        (None, Some("minimal")) => 512,
        (None, Some("low")) => 1024,
        (None, Some("medium")) => 8192,
        // As much as it likes.
        (None, Some(_)) => return Some(json!({ "type": "enabled" })),
        (None, None) => return None,
    };
    Some(json!({ "type": "enabled", "token_budget": budget }))
}

/// Whether a model thinks: those that are known not to are told by their names, and what is not known
/// is taken to be new.
fn thinks(model: &str) -> bool {
    let older = THOUGHTLESS.iter().any(|name| model.starts_with(name));
    !older && model != "command"
}

/// The format has no word for a tool that failed, so its text says it.
const FAILED: &str = "Error:";
const THOUGHTLESS: &[&str] = &[
    "command-r",
    "command-light",
    "command-nightly",
    "command-a-03-2025",
    "command-a-vision",
    "command-a-translate",
    "c4ai-",
    "aya",
];
/// As many as the vendor allows.
const STOPS_MAX: usize = 5;
/// Tokens of thinking that the vendor allows.
const BUDGET_MAX: u64 = 31_000;
/// A longer list is data rather than documents.
const DOCUMENTS_MAX: usize = 100;

#[cfg(test)]
mod tests;
