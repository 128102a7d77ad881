//! A prompt as a body of OpenAI's chat completions, as OpenAI and the many that copy it take it. Source:
//! the vendor's API reference.
//!
//! What it writes is the most that the format has words for. What one vendor does not take (cache
//! markers, thoughts, a parameter) is taken out by that vendor's row of quirks, not here; `model` and
//! `stream` are the sender's. Nothing that can change the answer's meaning is left out silently: what
//! has no place makes the request unsendable.
//!
//! ```text
//!   user turn    [result a, result b + picture, "so?"]
//!   messages     tool a | tool b | user: "Returned by ...", picture, "so?"
//! ```

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Choice, Family, Format, Media, Part, Prompt, Role, Source, Tool, Turn};

/// A document must have a name.
const NO_NAME: &str = "document.pdf";
/// The format has no word for a tool that failed, so its text says it.
const FAILED: &str = "Error: ";

/// OpenRouter's word for thoughts that Claude signed; no other vendor has a place for them.
pub const CLAUDES: &str = "anthropic-claude-v1";

/// Writes the body for `model`, without `model` and `stream`.
///
/// # Errors
/// `Unsendable`: the format can't say this (a document by its address, moving pictures, a picture that
/// the model said).
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    let mut messages = Vec::new();
    let system: Vec<&Part> = prompt.system.iter().collect();
    if let Some(content) = content(&system)? {
        messages.push(json!({ "role": "system", "content": content }));
    }
    for turn in &prompt.turns {
        match turn.role {
            Role::User => user(turn, &mut messages)?,
            Role::Assistant => messages.extend(assistant(turn)?),
        }
    }
    let mut body = Map::new();
    body.insert("messages".into(), Value::Array(messages));
    tools(prompt, &mut body);
    if let Some(format) = &prompt.format {
        body.insert("response_format".into(), self::format(format));
    }
    if let Some(max_tokens) = prompt.max_tokens {
        body.insert(max_tokens_name(model).into(), json!(max_tokens));
    }
    match prompt.stop.as_slice() {
        [] => {}
        [stop] => _ = body.insert("stop".into(), json!(stop)),
        stops => _ = body.insert("stop".into(), json!(stops)),
    }
    if let Some(effort) = prompt.effort.as_deref().or(prompt.budget.map(effort_of)) {
        body.insert("reasoning_effort".into(), json!(effort));
    }
    if let Some(user) = &prompt.user {
        body.insert("user".into(), json!(user));
    }
    body.extend(prompt.params.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(body)
}

/// What the greatest number of tokens is called: OpenAI's models that think refuse the old word, and
/// every other vendor knows it.
pub fn max_tokens_name(model: &str) -> &'static str {
    if thinks(model) { "max_completion_tokens" } else { "max_tokens" }
}

/// Whether this is one of OpenAI's models that think, by its name: `o3-mini`, `gpt-5.1`, `openai/o1`.
pub fn thinks(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or_default();
    let numbered = |prefix: &str, least: u32| {
        let Some(rest) = name.strip_prefix(prefix) else { return false };
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let whole = after.is_empty() || after.starts_with(['-', '.', ':', '@']);
        whole && number.parse::<u32>().is_ok_and(|number| number >= least)
    };
    numbered("o", 1) || numbered("gpt-", 5)
}

/// How much thinking a number of tokens is, in the three words that everyone knows.
pub fn effort_of(budget: u64) -> &'static str {
    match budget {
        0 => "none",
        1..=4096 => "low",
        4097..=16384 => "medium",
        _ => "high",
    }
}

/// A user's turn: what tools said first, since it must follow the calls; then what the person says, with
/// the pictures that tools gave before it, since a tool's message holds only text.
fn user(turn: &Turn, messages: &mut Vec<Value>) -> Result<(), Fault> {
    let (mut said, labels) = (Vec::new(), labels(turn));
    for part in &turn.parts {
        if let Part::Result { id, parts, is_error, .. } = part {
            let texts: Vec<&Part> = parts.iter().filter(|part| is_text(part)).collect();
            let content = result(content(&texts)?, *is_error);
            messages.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
            if texts.len() < parts.len() {
                said.extend(labels.iter().find(|(of, _)| of == id).map(|(_, label)| label));
                said.extend(parts.iter().filter(|part| !is_text(part)));
            }
        }
    }
    said.extend(turn.parts.iter().filter(|part| !matches!(part, Part::Result { .. })));
    if let Some(content) = content(&said)? {
        messages.push(json!({ "role": "user", "content": content }));
    }
    Ok(())
}

/// What stands before the pictures of a tool, so that it is known whose they are.
fn labels(turn: &Turn) -> Vec<(&str, Part)> {
    fn label(part: &Part) -> Option<(&str, Part)> {
        let Part::Result { id, name, .. } = part else { return None };
        let by = if name.is_empty() { "a tool" } else { name };
        let text = format!("Returned by {by} (call {id}):");
        Some((id, Part::Text { text, cache: None }))
    }
    turn.parts.iter().filter_map(label).collect()
}

fn is_text(part: &Part) -> bool {
    matches!(part, Part::Text { .. })
}

/// A tool's message, which must have a content.
fn result(content: Option<Value>, is_error: bool) -> Value {
    let content = content.unwrap_or_else(|| json!(""));
    if !is_error {
        return content;
    }
    let says_so = |text: &str| text.trim_start().to_ascii_lowercase().starts_with("error");
    match content {
        Value::String(text) if says_so(&text) => Value::String(text),
        Value::String(text) => Value::String(format!("{FAILED}{text}")),
        Value::Array(mut parts) => {
            if !parts.first().and_then(|part| part["text"].as_str()).is_some_and(says_so) {
                parts.insert(0, json!({ "type": "text", "text": FAILED.trim_end() }));
            }
            Value::Array(parts)
        }
        other => other,
    }
}

/// The model's turn: one message. Nothing if nothing of it can be said.
fn assistant(turn: &Turn) -> Result<Option<Value>, Fault> {
    let (mut thoughts, mut texts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let mut details = Vec::new();
    for part in &turn.parts {
        match part {
            Part::Text { .. } => texts.push(part),
            Part::Thought { text, signature } => {
                thoughts.push(text.as_str());
                if let Some(proof) = signature.as_ref().and_then(|s| s.of(Family::Anthropic)) {
                    details.push(
                        json!({ "type": "reasoning.text", "text": text, "signature": proof }),
                    );
                }
            }
            Part::Call { id, name, input, .. } => {
                let function = json!({ "name": name, "arguments": input.to_string() });
                calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
            Part::Redacted { data } => {
                details.push(json!({ "type": "reasoning.encrypted", "data": data }));
            }
            Part::Media(_) | Part::Result { .. } => return Err(Fault::Unsendable),
        }
    }
    thoughts.retain(|text| !text.is_empty());
    let content = content(&texts)?;
    let nothing = content.is_none() && thoughts.is_empty() && details.is_empty();
    if nothing && calls.is_empty() {
        return Ok(None);
    }
    let mut message = json!({ "role": "assistant" });
    message["content"] = match content {
        Some(content) => content,
        None if calls.is_empty() => json!(""),
        None => Value::Null,
    };
    if !thoughts.is_empty() {
        message["reasoning_content"] = json!(thoughts.join("\n\n"));
    }
    for (index, detail) in details.iter_mut().enumerate() {
        detail["format"] = json!(CLAUDES);
        detail["index"] = json!(index);
    }
    if !details.is_empty() {
        message["reasoning_details"] = Value::Array(details);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    Ok(Some(message))
}

/// The content of a message: a plain string where that says it all, since many vendors take nothing
/// else; nothing if it is empty.
fn content(parts: &[&Part]) -> Result<Option<Value>, Fault> {
    if let [Part::Text { text, cache: None }] = parts {
        return Ok((!text.is_empty()).then(|| json!(text)));
    }
    let mut content = Vec::new();
    for part in parts {
        match part {
            Part::Text { text, .. } if text.is_empty() => {}
            Part::Text { text, cache } => {
                let mut part = json!({ "type": "text", "text": text });
                if let Some(cache) = cache {
                    part["cache_control"] = cache.clone();
                }
                content.push(part);
            }
            Part::Media(media) => {
                // What is said of a document beside it has no other place.
                let beside = media.context.as_ref().filter(|context| !context.is_empty());
                content.extend(beside.map(|text| json!({ "type": "text", "text": text })));
                let mut part = self::media(media)?;
                if let Some(cache) = &media.cache {
                    part["cache_control"] = cache.clone();
                }
                content.push(part);
            }
            // None of these is said by a person.
            Part::Thought { .. }
            | Part::Redacted { .. }
            | Part::Call { .. }
            | Part::Result { .. } => {
                return Err(Fault::Unsendable);
            }
        }
    }
    Ok((!content.is_empty()).then_some(Value::Array(content)))
}

fn media(media: &Media) -> Result<Value, Fault> {
    let kind = media.mime.split('/').next().unwrap_or_default();
    match (&media.source, kind) {
        (Source::File(id), _) => Ok(json!({ "type": "file", "file": { "file_id": id } })),
        (Source::Url(url), "" | "image") => Ok(image(url)),
        (Source::Data(data), "" | "image") => {
            let mime = if media.mime.is_empty() { "image/png" } else { &media.mime };
            Ok(image(&format!("data:{mime};base64,{data}")))
        }
        (Source::Data(data), "audio") => {
            let format = audio_format(&media.mime);
            Ok(json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } }))
        }
        (Source::Data(_), "text") => text_document(media),
        (Source::Data(data), "application") => {
            let url = format!("data:{};base64,{data}", media.mime);
            let name = media.name.as_deref().unwrap_or(NO_NAME);
            Ok(json!({ "type": "file", "file": { "filename": name, "file_data": url } }))
        }
        // Nothing there fetches a document or sound, and nothing sees moving pictures.
        (Source::Url(_) | Source::Data(_), _) => Err(Fault::Unsendable),
    }
}

fn image(url: &str) -> Value {
    json!({ "type": "image_url", "image_url": { "url": url } })
}

/// `audio/mpeg` is `mp3`, `audio/x-wav` is `wav`; what has no other name keeps its own.
fn audio_format(mime: &str) -> &str {
    let format = mime.split(['/', ';']).nth(1).unwrap_or_default().trim();
    match format.strip_prefix("x-").unwrap_or(format) {
        "mpeg" | "mpeg3" => "mp3",
        "wave" | "vnd.wave" => "wav",
        other => other,
    }
}

/// A document that is plain text is said as text, which every vendor takes.
fn text_document(media: &Media) -> Result<Value, Fault> {
    let text = media.plain().ok_or(Fault::Unsendable)?;
    let text = match &media.name {
        Some(name) => format!("{name}:\n\n{text}"),
        None => text,
    };
    Ok(json!({ "type": "text", "text": text }))
}

fn tools(prompt: &Prompt, body: &mut Map<String, Value>) {
    if prompt.tools.is_empty() {
        return;
    }
    let tools = prompt.tools.iter().map(tool).collect();
    body.insert("tools".into(), Value::Array(tools));
    if let Some(choice) = &prompt.choice {
        let choice = match choice {
            Choice::Auto => json!("auto"),
            Choice::None => json!("none"),
            Choice::Any => json!("required"),
            Choice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
        };
        body.insert("tool_choice".into(), choice);
    }
    if let Some(parallel) = prompt.parallel {
        body.insert("parallel_tool_calls".into(), json!(parallel));
    }
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    if let Some(schema) = &tool.schema {
        function["parameters"] = schema.clone();
    }
    if let Some(strict) = tool.strict {
        function["strict"] = json!(strict);
    }
    let mut out = json!({ "type": "function", "function": function });
    if let Some(cache) = &tool.cache {
        out["cache_control"] = cache.clone();
    }
    out
}

fn format(format: &Format) -> Value {
    match format {
        Format::Json => json!({ "type": "json_object" }),
        Format::Schema { name, schema, strict } => {
            let mut inner = json!({ "name": name, "schema": schema });
            if let Some(strict) = strict {
                inner["strict"] = json!(strict);
            }
            json!({ "type": "json_schema", "json_schema": inner })
        }
    }
}

#[cfg(test)]
mod tests;
