//! A prompt as a body of OpenAI's Responses API, as OpenAI, Azure, xAI and others take it. Source: the
//! vendor's API reference.
//!
//! ```text
//!   system, turns            -> input: [{role, content}, reasoning, function_call, function_call_output]
//!   tools[].function.name    -> tools[].name
//!   response_format          -> text.format
//! ```
//!
//! What the format has no place for is dropped (seed, penalties, logit_bias, log-probabilities: nothing
//! could tell them); what would change the meaning of the answer makes the request unsendable (several
//! choices, stop sequences, sound). Nothing is stored there: reasoning is given back as it was signed.

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::chat_body::effort_of;
use crate::llm::prompt::{Choice, Family, Format, Media, Part, Prompt, Role, Source, Tool};

/// The least that `max_output_tokens` may be.
const MAX_TOKENS_MIN: u64 = 16;
/// What stands before the words of a tool that failed: the format has no mark that a model would see.
const FAILED: &str = "Error: ";
/// Asks for reasoning in a form that can be given back.
const ENCRYPTED: &str = "reasoning.encrypted_content";

/// Writes the body for `model`, without `model` and `stream`.
///
/// # Errors
/// `Unsendable`: the format can't say this.
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    let several = prompt.params.get("n").and_then(Value::as_u64).is_some_and(|n| n > 1);
    if several || !prompt.stop.is_empty() {
        return Err(Fault::Unsendable);
    }
    let mut body = Map::new();
    body.insert("store".into(), json!(false));
    body.insert("input".into(), Value::Array(input(prompt)?));
    tools(prompt, &mut body);
    text(prompt, &mut body);
    if let Some(max) = prompt.max_tokens {
        body.insert("max_output_tokens".into(), json!(max.max(MAX_TOKENS_MIN)));
    }
    if let Some(user) = &prompt.user {
        body.insert("user".into(), json!(user));
    }
    for name in PARAMS {
        if let Some(value) = prompt.params.get(*name) {
            body.insert((*name).into(), value.clone());
        }
    }
    let effort = effort(prompt);
    if let Some(effort) = effort {
        let mut reasoning = json!({ "effort": effort });
        if effort != "none" {
            reasoning["summary"] = json!("auto");
        }
        body.insert("reasoning".into(), reasoning);
    }
    // Models that do not reason refuse the wish.
    if effort.map_or_else(|| reasons(model), |effort| effort != "none") || has_signed(prompt) {
        body.insert("include".into(), json!([ENCRYPTED]));
    }
    Ok(body)
}

/// Parameters of the same name and meaning.
const PARAMS: &[&str] =
    &["temperature", "top_p", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"];

/// How much to think: as asked, or what a budget of tokens comes to.
fn effort(prompt: &Prompt) -> Option<&str> {
    prompt.effort.as_deref().or(prompt.budget.map(effort_of))
}

/// Whether a model reasons without being asked, by its name.
fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or_default();
    let is_numbered = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(char::is_numeric));
    is_numbered || name.starts_with("gpt-5") && !name.contains("chat")
}

fn has_signed(prompt: &Prompt) -> bool {
    let mut parts = prompt.turns.iter().flat_map(|turn| &turn.parts);
    parts.any(|part| reasoning(part).is_some())
}

/// The conversation as items.
fn input(prompt: &Prompt) -> Result<Vec<Value>, Fault> {
    let mut items = Vec::new();
    let system = contents(&prompt.system)?;
    if !system.is_empty() {
        items.push(json!({ "role": "system", "content": system }));
    }
    for turn in &prompt.turns {
        match turn.role {
            Role::User => user(&turn.parts, &mut items)?,
            Role::Assistant => assistant(&turn.parts, &mut items)?,
        }
    }
    Ok(items)
}

/// What the user and the tools say, in order: a message for what stands together.
fn user(parts: &[Part], items: &mut Vec<Value>) -> Result<(), Fault> {
    for run in parts.chunk_by(|a, b| is_said(a) && is_said(b)) {
        if let [Part::Result { id, parts, is_error, .. }] = run {
            let output = output(parts, *is_error)?;
            let mut item =
                json!({ "type": "function_call_output", "call_id": id, "output": output });
            if *is_error {
                item["status"] = json!("incomplete");
            }
            items.push(item);
            continue;
        }
        let content = contents(run)?;
        if !content.is_empty() {
            items.push(json!({ "role": "user", "content": content }));
        }
    }
    Ok(())
}

fn is_said(part: &Part) -> bool {
    matches!(part, Part::Text { .. } | Part::Media(_))
}

/// What the model said: thoughts that this family signed, text, calls.
fn assistant(parts: &[Part], items: &mut Vec<Value>) -> Result<(), Fault> {
    for run in parts.chunk_by(|a, b| is_said(a) && is_said(b)) {
        match run {
            [Part::Call { id, name, input, .. }] => items.push(json!({
                "type": "function_call", "call_id": id, "name": name, "arguments": input.to_string(),
            })),
            [part @ Part::Thought { .. }] => items.extend(reasoning(part)),
            // Only their own family can read these.
            [Part::Redacted { .. }] => {}
            [Part::Text { text, .. }] if !text.is_empty() => {
                items.push(json!({ "role": "assistant", "content": text }));
            }
            run => {
                let mut texts = Vec::new();
                for part in run {
                    let Part::Text { text, .. } = part else { return Err(Fault::Unsendable) };
                    if !text.is_empty() {
                        texts.push(json!({ "type": "output_text", "text": text }));
                    }
                }
                if !texts.is_empty() {
                    items.push(json!({ "role": "assistant", "content": texts }));
                }
            }
        }
    }
    // Reasoning that nothing follows is refused.
    while items.last().is_some_and(|item| item["type"] == "reasoning") {
        items.pop();
    }
    Ok(())
}

/// A thought that was signed here, as the item that it was.
fn reasoning(part: &Part) -> Option<Value> {
    let Part::Thought { text, signature: Some(signature) } = part else { return None };
    let (id, encrypted) = signature.of(Family::Openai)?.split_once(':')?;
    let mut summary = Vec::new();
    if !text.is_empty() {
        summary.push(json!({ "type": "summary_text", "text": text }));
    }
    let mut item =
        json!({ "type": "reasoning", "summary": summary, "encrypted_content": encrypted });
    if !id.is_empty() {
        item["id"] = json!(id);
    }
    Some(item)
}

/// What a tool said: its text, or parts where there are media among it. If it failed, its text says so.
fn output(parts: &[Part], is_error: bool) -> Result<Value, Fault> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let says_so = |text: &str| text.trim_start().to_ascii_lowercase().starts_with("error");
    let is_silent = is_error && !texts.clone().next().is_some_and(says_so);
    let failed = if is_silent { FAILED } else { "" };
    if parts.iter().all(|part| matches!(part, Part::Text { .. })) {
        return Ok(Value::String(std::iter::once(failed).chain(texts).collect()));
    }
    let mut content = contents(parts)?;
    if is_silent {
        content.insert(0, json!({ "type": "input_text", "text": FAILED.trim_end() }));
    }
    Ok(Value::Array(content))
}

/// Text and media that come from outside the model.
fn contents(parts: &[Part]) -> Result<Vec<Value>, Fault> {
    let mut content = Vec::new();
    for part in parts {
        match part {
            Part::Text { text, .. } if text.is_empty() => {}
            Part::Text { text, .. } => content.push(json!({ "type": "input_text", "text": text })),
            Part::Media(media) => {
                // What is said beside a document has no place of its own.
                if let Some(context) = &media.context {
                    content.push(json!({ "type": "input_text", "text": context }));
                }
                content.push(self::media(media)?);
            }
            Part::Thought { .. }
            | Part::Redacted { .. }
            | Part::Call { .. }
            | Part::Result { .. } => return Err(Fault::Unsendable),
        }
    }
    Ok(content)
}

fn media(media: &Media) -> Result<Value, Fault> {
    let kind = media.mime.split('/').next().unwrap_or_default();
    let is_file = matches!(media.source, Source::File(_)) && kind != "image";
    match kind {
        "audio" | "video" => return Err(Fault::Unsendable),
        "application" | "text" => {}
        _ if is_file => {}
        _ => {
            let mut image = json!({ "type": "input_image", "detail": "auto" });
            match &media.source {
                Source::Url(url) => image["image_url"] = json!(url),
                Source::Data(data) => image["image_url"] = json!(data_url(&media.mime, data)),
                Source::File(id) => image["file_id"] = json!(id),
            }
            return Ok(image);
        }
    }
    let mut file = json!({ "type": "input_file" });
    match &media.source {
        Source::Url(url) => file["file_url"] = json!(url),
        Source::File(id) => file["file_id"] = json!(id),
        Source::Data(data) => {
            file["file_data"] = json!(data_url(&media.mime, data));
            file["filename"] = json!(media.name.as_deref().unwrap_or(file_name(&media.mime)));
        }
    }
    Ok(file)
}

fn data_url(mime: &str, data: &str) -> String {
    format!("data:{mime};base64,{data}")
}

/// A name is required there, and its ending counts.
fn file_name(mime: &str) -> &'static str {
    match mime {
        "text/plain" => "document.txt",
        "text/markdown" => "document.md",
        "text/csv" => "document.csv",
        "text/html" => "document.html",
        "application/json" => "document.json",
        _ => "document.pdf",
    }
}

fn tools(prompt: &Prompt, body: &mut Map<String, Value>) {
    if prompt.tools.is_empty() {
        return;
    }
    let tools = prompt.tools.iter().map(tool).collect();
    body.insert("tools".into(), Value::Array(tools));
    let choice = match &prompt.choice {
        None => None,
        Some(Choice::Auto) => Some(json!("auto")),
        Some(Choice::None) => Some(json!("none")),
        Some(Choice::Any) => Some(json!("required")),
        Some(Choice::Named(name)) => Some(json!({ "type": "function", "name": name })),
    };
    if let Some(choice) = choice {
        body.insert("tool_choice".into(), choice);
    }
    if let Some(parallel) = prompt.parallel {
        body.insert("parallel_tool_calls".into(), json!(parallel));
    }
}

/// `strict` is true there unless it is said otherwise, and false everywhere else.
fn tool(tool: &Tool) -> Value {
    let bare = || json!({ "type": "object", "properties": {} });
    let schema = tool.schema.clone().unwrap_or_else(bare);
    let strict = tool.strict.unwrap_or(false);
    let mut out =
        json!({ "type": "function", "name": tool.name, "parameters": schema, "strict": strict });
    if let Some(description) = &tool.description {
        out["description"] = json!(description);
    }
    out
}

fn text(prompt: &Prompt, body: &mut Map<String, Value>) {
    let mut text = Map::new();
    match &prompt.format {
        None => {}
        Some(Format::Json) => _ = text.insert("format".into(), json!({ "type": "json_object" })),
        Some(Format::Schema { name, schema, strict }) => {
            let mut format = json!({ "type": "json_schema", "name": name, "schema": schema });
            if let Some(strict) = strict {
                format["strict"] = json!(strict);
            }
            text.insert("format".into(), format);
        }
    }
    if let Some(verbosity) = prompt.params.get("verbosity") {
        text.insert("verbosity".into(), verbosity.clone());
    }
    if !text.is_empty() {
        body.insert("text".into(), Value::Object(text));
    }
}

#[cfg(test)]
mod tests;
