//! A prompt as a body of Mistral's chat: OpenAI's, as `llm/chat_body` writes it, with what differs. A field
//! that the vendor does not know is an error there, so only known ones go out. Source: the vendor's API
//! reference.
//!
//! ```text
//!   {"seed":1,"tool_choice":"required","user":"u", "messages":[.. "tool_call_id":"call_abc"]}
//!   {"random_seed":1,"tool_choice":"any",          "messages":[.. "tool_call_id":"k3Xy81mQa"]}
//! ```
//!
//! Ids of calls are nine letters and digits; those of others are made such, the same for the same id each
//! time, so that results still find their calls and a prompt that was cached is known again.

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::chat_body;
use crate::llm::prompt::Prompt;

/// Writes the body for `model`, without `model` and `stream`.
///
/// # Errors
/// `Unsendable`: the format can't say this.
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    let mut written = chat_body::write(prompt, model)?;
    for (theirs, ours) in [("max_completion_tokens", "max_tokens"), ("seed", "random_seed")] {
        if let Some(value) = written.remove(theirs) {
            written.insert(ours.into(), value);
        }
    }
    let effort = written.remove("reasoning_effort");
    let effort = effort.as_ref().and_then(Value::as_str).and_then(|word| effort_for(model, word));
    if let Some(effort) = effort {
        written.insert("reasoning_effort".into(), json!(effort));
    }
    let keeps_thoughts = model.contains("magistral") || effort == Some("high");
    if let Some(Value::Array(list)) = written.remove("messages") {
        written.insert("messages".into(), Value::Array(messages(list, keeps_thoughts)?));
    }
    if written.get("tool_choice").is_some_and(|choice| choice == "required") {
        written.insert("tool_choice".into(), json!("any"));
    }
    if let Some(Value::Array(tools)) = written.get_mut("tools") {
        tools.iter_mut().for_each(tool);
    }
    let temperature = written.get("temperature").and_then(Value::as_f64);
    if temperature.is_some_and(|temperature| temperature > TEMPERATURE_MAX) {
        written.insert("temperature".into(), json!(TEMPERATURE_MAX));
    }
    written.retain(|name, _| KNOWN.contains(&name.as_str()));
    Ok(written)
}

/// Every field that the vendor knows, but for `model` and `stream`.
const KNOWN: &[&str] = &[
    "messages",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "random_seed",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "prediction",
    "prompt_mode",
    "reasoning_effort",
    "safe_prompt",
    "prompt_cache_key",
];

/// The models that can be told whether to think know two words for it; of the others some always think
/// and the rest never.
fn effort_for(model: &str, effort: &str) -> Option<&'static str> {
    let name = ["mistral-small-", "mistral-medium-"].iter().find_map(|n| model.strip_prefix(n))?;
    let since = name.parse::<u32>().is_ok_and(|month| month >= HYBRID_SINCE);
    (since || name == "latest").then_some(match effort {
        "none" | "minimal" => "none",
        _ => "high",
    })
}

fn messages(list: Vec<Value>, keeps_thoughts: bool) -> Result<Vec<Value>, Fault> {
    let mut ids = Ids::default();
    let mut out: Vec<Value> = Vec::with_capacity(list.len());
    for mut message in list {
        let is_user = message["role"] == "user";
        // Older models take nothing but the model's word after a result.
        if is_user && out.last().is_some_and(|last| last["role"] == "tool") {
            out.push(json!({ "role": "assistant", "content": BETWEEN }));
        }
        for call in items(&mut message, "tool_calls") {
            call["id"] = json!(ids.nine(call["id"].as_str().unwrap_or_default()));
        }
        if let Some(id) = message["tool_call_id"].as_str() {
            message["tool_call_id"] = json!(ids.nine(id));
        }
        for part in items(&mut message, "content") {
            self::part(part)?;
        }
        if message["role"] == "assistant" && !assistant(&mut message, keeps_thoughts) {
            continue;
        }
        out.push(message);
    }
    // The answer goes on from the model's own words only if they say so.
    if let Some(last) = out.last_mut()
        && last["role"] == "assistant"
        && last.get("tool_calls").is_none()
    {
        last["prefix"] = json!(true);
    }
    Ok(out)
}

/// The items of a field that is a list; none if it is not.
fn items<'a>(message: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    message.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Thoughts are parts of the content; `false` if nothing is left to say.
fn assistant(message: &mut Value, keeps_thoughts: bool) -> bool {
    let Some(fields) = message.as_object_mut() else { return false };
    let thoughts = fields.remove("reasoning_content").filter(|_| keeps_thoughts);
    let is_empty = |content: &Value| content.is_null() || *content == "";
    let silent = fields.get("content").is_none_or(is_empty);
    if silent && !fields.contains_key("tool_calls") {
        return false;
    }
    let Some(thoughts) = thoughts else { return true };
    let mut content =
        vec![json!({ "type": "thinking", "thinking": [{ "type": "text", "text": thoughts }] })];
    match fields.remove("content") {
        Some(Value::Array(parts)) => content.extend(parts),
        Some(text) if !is_empty(&text) => content.push(json!({ "type": "text", "text": text })),
        _ => {}
    }
    fields.insert("content".into(), Value::Array(content));
    true
}

/// A part of the content in the vendor's words.
fn part(part: &mut Value) -> Result<(), Fault> {
    if let Some(fields) = part.as_object_mut() {
        fields.remove("cache_control");
    }
    if part["type"] != "file" {
        return Ok(());
    }
    // Another vendor's file is nothing to this one.
    let url = part["file"]["file_data"].as_str().ok_or(Fault::Unsendable)?;
    let mut document = json!({ "type": "document_url", "document_url": url });
    if let Some(name) = part["file"]["filename"].as_str() {
        document["document_name"] = json!(name);
    }
    *part = document;
    Ok(())
}

/// Parameters are required there.
fn tool(tool: &mut Value) {
    if let Some(fields) = tool.as_object_mut() {
        fields.remove("cache_control");
    }
    if tool["function"].get("parameters").is_none() {
        tool["function"]["parameters"] = json!({ "type": "object", "properties": {} });
    }
}

/// Ids of calls with what stands for them.
#[derive(Default)]
struct Ids {
    made: Vec<(String, String)>,
}

impl Ids {
    /// `id` itself if it is such a one, else what stands for it.
    fn nine(&mut self, id: &str) -> String {
        if id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return id.to_owned();
        }
        if let Some((_, made)) = self.made.iter().find(|(known, _)| known == id) {
            return made.clone();
        }
        let mut salt = 0;
        let made = loop {
            let made = hashed(id, salt);
            if self.made.iter().all(|(_, other)| *other != made) {
                break made;
            }
            salt += 1;
        };
        self.made.push((id.to_owned(), made.clone()));
        made
    }
}

/// FNV-1a, in letters and digits.
fn hashed(id: &str, salt: u8) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = id.bytes().chain([salt]).fold(0xcbf2_9ce4_8422_2325, step);
    let mut text = String::with_capacity(ID_LEN);
    for _ in 0..ID_LEN {
        let at = usize::try_from(hash % LETTERS.len() as u64).unwrap_or_default();
        text.push(char::from(LETTERS[at]));
        hash /= LETTERS.len() as u64;
    }
    text
}

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_LEN: usize = 9;
const TEMPERATURE_MAX: f64 = 1.5;
/// The month of the first models that think or not as they are told.
const HYBRID_SINCE: u32 = 2603;
/// What the model says between a result and what the user says next.
const BETWEEN: &str = "OK";

#[cfg(test)]
mod tests;
