//! Anthropic Messages requests, read: what a client of `/v1/messages` asks for, for providers that speak
//! something else. A provider that speaks Messages itself gets the body as it came.
//!
//! What only Anthropic's own servers can do (their tools, their files, their containers) is named with its
//! place: no other provider can serve it. What they did in an earlier turn is left out, and the text that
//! came of it stays.

use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::llm::dialects::messages::{OF_CALL, call_id};
use crate::llm::prompt::{
    Choice, Family, Format, Media, Part, Prompt, Role, Signature, Source, Tool, Unreadable,
};

/// Reads a Messages request.
///
/// # Errors
/// Where the request is none of the dialect, or can be served by Anthropic alone.
pub fn read(body: &Value) -> Result<Prompt, Unreadable> {
    for name in ["mcp_servers", "container"] {
        if !body[name].is_null() {
            return Err(bad(name, "nothing: only Anthropic's servers know it"));
        }
    }
    let mut prompt = Prompt { system: blocks(&body["system"], "system")?, ..Prompt::default() };
    let messages = body["messages"].as_array().ok_or_else(|| bad("messages", "an array"))?;
    for (index, message) in messages.iter().enumerate() {
        read_message(&mut prompt, message, &format!("messages[{index}]"))?;
    }
    read_tools(&mut prompt, &body["tools"])?;
    read_choice(&mut prompt, &body["tool_choice"])?;
    let max_tokens = body["max_tokens"].as_u64();
    prompt.max_tokens = Some(max_tokens.ok_or_else(|| bad("max_tokens", "an integer"))?);
    let stops = body["stop_sequences"].as_array().into_iter().flatten();
    prompt.stop = stops.filter_map(Value::as_str).map(str::to_owned).collect();
    prompt.user = body["metadata"]["user_id"].as_str().map(user);
    prompt.format = format(body)?;
    read_thinking(&mut prompt, body)?;
    for name in ["temperature", "top_p", "top_k"] {
        if let Some(value) = body.get(name).filter(|value| value.is_number()) {
            prompt.params.insert(name.to_owned(), value.clone());
        }
    }
    let tier = match body["service_tier"].as_str() {
        Some("auto") => "auto",
        Some("standard_only") => "default",
        _ => return Ok(prompt),
    };
    prompt.params.insert(String::from("service_tier"), tier.into());
    Ok(prompt)
}

/// Other vendors refuse names of users that are longer than 64 characters; for those a digest stands, which
/// is the same for the same user.
fn user(name: &str) -> String {
    if name.chars().count() <= USER_MAX {
        return name.to_owned();
    }
    let digest = Sha256::digest(name);
    let mut hex = String::with_capacity(USER_MAX);
    // Writing to a String can't fail.
    digest.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
    hex
}

fn bad(at: &str, expected: &'static str) -> Unreadable {
    Unreadable { at: at.to_owned(), expected }
}

fn read_message(prompt: &mut Prompt, message: &Value, at: &str) -> Result<(), Unreadable> {
    let role = match message["role"].as_str() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        // The newest models take one in the middle.
        Some("system") => {
            prompt.system.extend(blocks(&message["content"], &format!("{at}.content"))?);
            return Ok(());
        }
        _ => return Err(bad(&format!("{at}.role"), "user or assistant")),
    };
    let mut parts = sign_calls(blocks(&message["content"], &format!("{at}.content"))?);
    for part in &mut parts {
        if let Part::Result { id, name, .. } = part {
            prompt.called(id).unwrap_or_default().clone_into(name);
        }
    }
    prompt.say(role, parts);
    Ok(())
}

/// A call's own signature came in a thought before it.
fn sign_calls(parts: Vec<Part>) -> Vec<Part> {
    let mut waiting = None;
    let mut signed = Vec::with_capacity(parts.len());
    for mut part in parts {
        match &mut part {
            Part::Thought { signature: Some(Signature { family, text }), .. }
                if text.starts_with(OF_CALL) && *family != Family::Anthropic =>
            {
                let text = text[OF_CALL.len()..].to_owned();
                waiting = Some(Signature { family: *family, text });
                continue;
            }
            Part::Call { signature, .. } => *signature = waiting.take(),
            _ => {}
        }
        signed.push(part);
    }
    signed
}

/// A string, or a list of blocks; nothing is no blocks. Empty texts are left out.
fn blocks(content: &Value, at: &str) -> Result<Vec<Part>, Unreadable> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(said) => Ok(text(said, None).into_iter().collect()),
        Value::Array(list) => {
            let mut parts = Vec::new();
            for (index, block) in list.iter().enumerate() {
                read_block(block, &format!("{at}[{index}]"), &mut parts)?;
            }
            Ok(parts)
        }
        _ => Err(bad(at, "a string or an array of blocks")),
    }
}

fn text(said: &str, cache: Option<Value>) -> Option<Part> {
    (!said.is_empty()).then(|| Part::Text { text: said.to_owned(), cache })
}

fn cache(block: &Value) -> Option<Value> {
    block.get("cache_control").filter(|cache| cache.is_object()).cloned()
}

fn string<'a>(block: &'a Value, name: &str, at: &str) -> Result<&'a str, Unreadable> {
    block[name].as_str().ok_or_else(|| bad(&format!("{at}.{name}"), "a string"))
}

fn read_block(block: &Value, at: &str, parts: &mut Vec<Part>) -> Result<(), Unreadable> {
    match block["type"].as_str() {
        Some("text") => parts.extend(text(string(block, "text", at)?, cache(block))),
        Some("image") => parts.push(image(block, at)?),
        Some("document") => document(block, at, parts)?,
        Some("search_result") => search_result(block, at, parts)?,
        Some("thinking") => {
            let text = string(block, "thinking", at)?.to_owned();
            let signature = block["signature"].as_str().filter(|text| !text.is_empty());
            let signature = signature.map(|text| Signature::read(text, Family::Anthropic));
            parts.push(Part::Thought { text, signature });
        }
        Some("redacted_thinking") => {
            parts.push(Part::Redacted { data: string(block, "data", at)?.to_owned() });
        }
        Some("tool_use") => {
            let input = match &block["input"] {
                Value::Object(input) => Value::Object(input.clone()),
                Value::Null => Value::Object(Map::new()),
                _ => return Err(bad(&format!("{at}.input"), "an object")),
            };
            let id = call_id(string(block, "id", at)?);
            let name = string(block, "name", at)?.to_owned();
            parts.push(Part::Call { id, name, input, signature: None });
        }
        Some("tool_result") => {
            let id = call_id(string(block, "tool_use_id", at)?);
            let mut said = blocks(&block["content"], &format!("{at}.content"))?;
            // A marker on the result means all of it, as one on its last part does.
            if let Some(Part::Text { cache: place, .. } | Part::Media(Media { cache: place, .. })) =
                said.last_mut()
                && place.is_none()
            {
                *place = cache(block);
            }
            let is_error = block["is_error"].as_bool().unwrap_or(false);
            parts.push(Part::Result { id, name: String::new(), parts: said, is_error });
        }
        // The server's own account of a conversation that grew too long.
        Some("compaction") => {
            parts.extend(text(block["content"].as_str().unwrap_or_default(), cache(block)));
        }
        Some("container_upload") => {
            return Err(bad(&format!("{at}.type"), "nothing that only Anthropic's servers know"));
        }
        Some(kind) if is_servers(kind) => {}
        _ => return Err(bad(&format!("{at}.type"), "a block of the Messages API")),
    }
    Ok(())
}

/// What Anthropic's own tools did in an earlier turn: nothing that another provider could go on with.
fn is_servers(kind: &str) -> bool {
    matches!(kind, "server_tool_use" | "mcp_tool_use" | "tool_reference" | "fallback")
        || (kind.ends_with("_tool_result") && kind != "tool_result")
}

fn image(block: &Value, at: &str) -> Result<Part, Unreadable> {
    let source = &block["source"];
    let at = format!("{at}.source");
    let (mime, source) = match source["type"].as_str() {
        Some("base64") => {
            let data = Source::Data(string(source, "data", &at)?.to_owned());
            (string(source, "media_type", &at)?.to_owned(), data)
        }
        Some("url") => (String::new(), Source::Url(string(source, "url", &at)?.to_owned())),
        Some("file") => return Err(foreign_file(&at)),
        _ => return Err(bad(&format!("{at}.type"), "base64, url or file")),
    };
    Ok(Part::Media(Media { mime, source, cache: cache(block), ..Media::default() }))
}

/// A file lies with the provider that it was sent to.
fn foreign_file(at: &str) -> Unreadable {
    bad(&format!("{at}.type"), "base64 or url: other providers don't have Anthropic's files")
}

fn document(block: &Value, at: &str, parts: &mut Vec<Part>) -> Result<(), Unreadable> {
    let source = &block["source"];
    let at = format!("{at}.source");
    let (mime, from) = match source["type"].as_str() {
        Some("base64") => {
            let mime = source["media_type"].as_str().unwrap_or("application/pdf").to_owned();
            (mime, Source::Data(string(source, "data", &at)?.to_owned()))
        }
        Some("text") => {
            let mime = source["media_type"].as_str().unwrap_or("text/plain").to_owned();
            let data = BASE64_STANDARD.encode(string(source, "data", &at)?);
            (mime, Source::Data(data))
        }
        Some("url") => {
            let url = Source::Url(string(source, "url", &at)?.to_owned());
            (String::from("application/pdf"), url)
        }
        Some("content") => {
            // A document made of blocks: told as what it is made of.
            for name in ["title", "context"] {
                parts.extend(text(block[name].as_str().unwrap_or_default(), None));
            }
            parts.extend(blocks(&source["content"], &format!("{at}.content"))?);
            return Ok(());
        }
        Some("file") => return Err(foreign_file(&at)),
        _ => return Err(bad(&format!("{at}.type"), "base64, text, content, url or file")),
    };
    let word = |name: &str| block[name].as_str().filter(|word| !word.is_empty());
    parts.push(Part::Media(Media {
        mime,
        source: from,
        name: word("title").map(str::to_owned),
        context: word("context").map(str::to_owned),
        citations: block["citations"]["enabled"].as_bool().unwrap_or(false),
        cache: cache(block),
    }));
    Ok(())
}

/// What the client's own search found: its title and address, then its text.
fn search_result(block: &Value, at: &str, parts: &mut Vec<Part>) -> Result<(), Unreadable> {
    let head = format!("{}\n{}", string(block, "title", at)?, string(block, "source", at)?);
    parts.push(Part::Text { text: head, cache: None });
    parts.extend(blocks(&block["content"], &format!("{at}.content"))?);
    Ok(())
}

fn read_tools(prompt: &mut Prompt, tools: &Value) -> Result<(), Unreadable> {
    for (index, tool) in tools.as_array().into_iter().flatten().enumerate() {
        let at = format!("tools[{index}]");
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            let expected = "custom: other providers don't have Anthropic's own tools";
            return Err(bad(&format!("{at}.type"), expected));
        }
        prompt.tools.push(Tool {
            name: string(tool, "name", &at)?.to_owned(),
            description: tool["description"].as_str().map(str::to_owned),
            schema: tool.get("input_schema").filter(|schema| schema.is_object()).cloned(),
            strict: tool["strict"].as_bool(),
            cache: cache(tool),
        });
    }
    Ok(())
}

fn read_choice(prompt: &mut Prompt, choice: &Value) -> Result<(), Unreadable> {
    prompt.choice = match choice["type"].as_str() {
        None if choice.is_null() => return Ok(()),
        Some("auto") => Some(Choice::Auto),
        Some("any") => Some(Choice::Any),
        Some("none") => Some(Choice::None),
        Some("tool") => Some(Choice::Named(string(choice, "name", "tool_choice")?.to_owned())),
        _ => return Err(bad("tool_choice.type", "auto, any, tool or none")),
    };
    prompt.parallel = choice["disable_parallel_tool_use"].as_bool().map(|disabled| !disabled);
    Ok(())
}

/// `output_config.format`, or `output_format` as it was called before.
fn format(body: &Value) -> Result<Option<Format>, Unreadable> {
    let (format, at) = match &body["output_config"]["format"] {
        Value::Null => (&body["output_format"], "output_format"),
        format => (format, "output_config.format"),
    };
    match format["type"].as_str() {
        None if format.is_null() => Ok(None),
        Some("json_schema") if format["schema"].is_object() => Ok(Some(Format::Schema {
            name: String::from("answer"),
            schema: format["schema"].clone(),
            // The format knows no other kind.
            strict: Some(true),
        })),
        _ => Err(bad(at, "a json_schema with its schema")),
    }
}

/// How much to think: as an effort for those who take one.
fn read_thinking(prompt: &mut Prompt, body: &Value) -> Result<(), Unreadable> {
    let thinking = &body["thinking"];
    let effort = body["output_config"]["effort"].as_str();
    prompt.effort = match thinking["type"].as_str() {
        None if thinking.is_null() => effort,
        Some("disabled") => Some("none"),
        Some("adaptive" | "between_tools") => effort.or(Some("high")),
        Some("enabled") => {
            let budget = thinking["budget_tokens"].as_u64();
            let budget = budget.ok_or_else(|| bad("thinking.budget_tokens", "an integer"))?;
            prompt.budget = Some(budget);
            effort.or(Some(effort_of(budget)))
        }
        _ => return Err(bad("thinking.type", "enabled, adaptive, between_tools or disabled")),
    }
    .map(str::to_owned);
    Ok(())
}

/// The effort that a budget of thinking tokens comes to.
fn effort_of(budget: u64) -> &'static str {
    match budget {
        ..=4096 => "low",
        4097..=16_384 => "medium",
        _ => "high",
    }
}

/// Characters of a user's name.
const USER_MAX: usize = 64;

#[cfg(test)]
mod tests;
