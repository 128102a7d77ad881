//! What Anthropic refuses in a request.

use serde_json::Value;

use super::Api;
use super::anthropic::thought_is_whole;
use super::check::{Checked, Spot, wrong};
use crate::app::sandbox::ask::Ask;

/// What a request may hold.
const FIELDS: [&str; 22] = [
    "model",
    "messages",
    "max_tokens",
    "system",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "thinking",
    "service_tier",
    "output_config",
    "output_format",
    "container",
    "context_management",
    "mcp_servers",
    "inference_geo",
    "anthropic_version",
    "anthropic_beta",
];

/// Reads a body, and checks it.
pub fn read(body: &Value, api: Api, ask: &mut Ask) -> Checked {
    let top = Spot::top(body);
    top.only(&FIELDS)?;
    ask.stream = match top.get("stream") {
        Some(stream) if api == Api::Messages || api == Api::VertexClaude => stream.flag()?,
        Some(stream) => return stream.wrong("Extra inputs are not permitted"),
        None => ask.stream && api == Api::Invoke,
    };
    let counts = api == Api::CountTokens;
    let max_tokens = match top.get("max_tokens") {
        None if counts => u64::MAX,
        Some(spot) if counts => return spot.wrong("Extra inputs are not permitted"),
        _ => top.need("max_tokens")?.whole(1)?,
    };
    if let Some(system) = top.get("system") {
        texts(&system, ask)?;
    }
    sampling(&top)?;
    tools(&top, ask)?;
    let thinks = thinking(&top, max_tokens)?;
    messages(&top.need("messages")?, thinks, ask)
}

fn texts(spot: &Spot<'_>, ask: &mut Ask) -> Checked {
    if let Some(text) = spot.value.as_str() {
        ask.counts(text);
        return Ok(());
    }
    for block in spot.list()? {
        block.need("type")?.one_of(&["text"])?;
        block.only(&["type", "text", "cache_control", "citations"])?;
        ask.counts(block.need("text")?.words()?);
    }
    Ok(())
}

fn sampling(top: &Spot<'_>) -> Checked {
    if let Some(spot) = top.get("temperature") {
        spot.number(0.0, 1.0)?;
    }
    if let Some(spot) = top.get("top_p") {
        spot.number(0.0, 1.0)?;
    }
    if let Some(spot) = top.get("top_k") {
        spot.whole(0)?;
    }
    for stop in top.get("stop_sequences").map_or(Ok(Vec::new()), |spot| spot.list())? {
        stop.words()?;
    }
    if let Some(metadata) = top.get("metadata") {
        metadata.only(&["user_id"])?;
    }
    if let Some(tier) = top.get("service_tier") {
        tier.one_of(&["auto", "standard_only"])?;
    }
    if let Some(format) = top.get("output_config").and_then(|config| config.get("format")) {
        format.need("type")?.one_of(&["json_schema"])?;
        format.need("schema")?.object()?;
    }
    Ok(())
}

fn tools(top: &Spot<'_>, ask: &mut Ask) -> Checked {
    for tool in top.get("tools").map_or(Ok(Vec::new()), |tools| tools.list())? {
        let custom = tool.get("type").is_none_or(|kind| kind.value == "custom");
        let name = tool.need("name")?.name(128, "")?;
        if !custom {
            continue;
        }
        tool.only(&[
            "type",
            "name",
            "description",
            "input_schema",
            "strict",
            "cache_control",
            "eager_input_streaming",
            "defer_loading",
            "allowed_callers",
            "input_examples",
        ])?;
        let schema = tool.need("input_schema")?;
        schema.need("type")?.one_of(&["object"])?;
        if ask.tools.iter().any(|known| known == name) {
            return tool.wrong("Tool names must be unique.");
        }
        ask.tools.push(name.to_owned());
    }
    let Some(choice) = top.get("tool_choice") else { return Ok(()) };
    choice.only(&["type", "name", "disable_parallel_tool_use"])?;
    let kind = choice.need("type")?.one_of(&["auto", "any", "tool", "none"])?;
    if top.get("tools").is_none() {
        return choice.wrong("tool_choice may only be specified while providing tools");
    }
    if kind == "tool" {
        let name = choice.need("name")?.text()?;
        if !top.value["tools"].as_array().is_some_and(|all| all.iter().any(|t| t["name"] == name)) {
            return choice.wrong(format_args!("Tool '{name}' not found in provided tools"));
        }
    }
    Ok(())
}

/// Whether the model is to think.
fn thinking(top: &Spot<'_>, max_tokens: u64) -> Checked<bool> {
    let Some(thinking) = top.get("thinking") else { return Ok(false) };
    let kind = thinking.need("type")?.one_of(&["enabled", "disabled", "adaptive"])?;
    if kind == "enabled" && thinking.need("budget_tokens")?.whole(1024)? >= max_tokens {
        return wrong("`max_tokens` must be greater than `thinking.budget_tokens`");
    }
    if kind == "disabled" {
        return Ok(false);
    }
    if top.get("temperature").is_some_and(|spot| spot.value.as_f64() != Some(1.0)) {
        return wrong("`temperature` may only be set to 1 when thinking is enabled");
    }
    if top.get("top_k").is_some() {
        return wrong("`top_k` must be unset when thinking is enabled");
    }
    let forced = top.value.pointer("/tool_choice/type").and_then(Value::as_str);
    if matches!(forced, Some("any" | "tool")) {
        return wrong("Thinking may not be enabled when tool_choice forces tool use");
    }
    Ok(kind == "enabled")
}

fn messages(messages: &Spot<'_>, thinks: bool, ask: &mut Ask) -> Checked {
    let list = messages.filled()?;
    // The calls of the message before, until their results are seen.
    let mut open: Vec<&str> = Vec::new();
    for (i, message) in list.iter().enumerate() {
        message.only(&["role", "content"])?;
        let role = message.need("role")?.one_of(&["user", "assistant"])?;
        let is_last = i + 1 == list.len();
        if i == 0 && role == "assistant" {
            return message.wrong("first message must use the \"user\" role");
        }
        let content = message.need("content")?;
        let mut made = Vec::new();
        if let Some(text) = content.value.as_str() {
            if text.is_empty() && !(is_last && role == "assistant") {
                return message.wrong("all messages must have non-empty content");
            }
            ask.counts(text);
        } else {
            made = blocks(&content, role, is_last, &mut open, ask)?;
        }
        if let Some(id) = open.first() {
            return message.wrong(format_args!(
                "`tool_use` ids were found without `tool_result` blocks immediately after: {id}"
            ));
        }
        let trails = |text: &str| text.ends_with(char::is_whitespace);
        let end =
            content.value.as_str().or_else(|| content.value.as_array()?.last()?["text"].as_str());
        if is_last && role == "assistant" && end.is_some_and(trails) {
            return wrong("messages: final assistant content cannot end with trailing whitespace");
        }
        let first = content.value.pointer("/0/type").and_then(Value::as_str);
        if thinks && !made.is_empty() && !matches!(first, Some("thinking" | "redacted_thinking")) {
            return content
                .wrong("Expected `thinking` or `redacted_thinking`, but found `tool_use`");
        }
        open = made;
    }
    match open.first() {
        Some(id) => wrong(format_args!("messages: `tool_use` without `tool_result`: {id}")),
        None => Ok(()),
    }
}

/// Checks the blocks of a message; the ids of its calls. Results are taken from `open`.
fn blocks<'a>(
    content: &Spot<'a>,
    role: &str,
    is_last: bool,
    open: &mut Vec<&'a str>,
    ask: &mut Ask,
) -> Checked<Vec<&'a str>> {
    let list = if is_last && role == "assistant" { content.list()? } else { content.filled()? };
    let (mut made, mut other) = (Vec::new(), false);
    for block in list {
        let kind = block.need("type")?.text()?;
        match (kind, role) {
            ("text", _) => {
                block.only(&["type", "text", "cache_control", "citations"])?;
                ask.counts(block.need("text")?.words()?);
            }
            ("image" | "document", "user") => source(&block, kind)?,
            ("thinking", "assistant") => {
                block.only(&["type", "thinking", "signature"])?;
                thought_is_whole(&block)?;
            }
            ("redacted_thinking", "assistant") => {
                block.need("data")?.text()?;
            }
            ("tool_use", "assistant") => {
                block.only(&[
                    "type",
                    "id",
                    "name",
                    "input",
                    "cache_control",
                    "caller",
                    "toolset_name",
                ])?;
                block.need("name")?.name(200, "")?;
                block.need("input")?.object()?;
                let id = block.need("id")?.name(200, "")?;
                if made.contains(&id) {
                    return block.wrong("`tool_use` ids must be unique");
                }
                made.push(id);
            }
            ("tool_result", "user") => {
                block.only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
                let id = block.need("tool_use_id")?.text()?;
                let Some(at) = open.iter().position(|open| *open == id) else {
                    return block.wrong(format_args!(
                        "unexpected `tool_use_id` found in `tool_result` blocks: {id}"
                    ));
                };
                if other {
                    return block.wrong("`tool_result` blocks come before other content");
                }
                open.swap_remove(at);
                result(&block)?;
            }
            ("search_result" | "container_upload", "user") => {}
            ("server_tool_use" | "web_search_tool_result", "assistant") => {}
            _ => {
                return block
                    .wrong(format_args!("type `{kind}` does not belong to a {role} message"));
            }
        }
        other |= kind != "tool_result";
    }
    Ok(made)
}

fn result(block: &Spot<'_>) -> Checked {
    let Some(content) = block.get("content") else { return Ok(()) };
    if content.value.is_string() {
        return Ok(());
    }
    for part in content.list()? {
        match part.need("type")?.one_of(&["text", "image", "document", "search_result"])? {
            "text" => drop(part.need("text")?.words()?),
            kind @ ("image" | "document") => source(&part, kind)?,
            _ => {}
        }
    }
    Ok(())
}

fn source(block: &Spot<'_>, kind: &str) -> Checked {
    let source = block.need("source")?;
    let images = ["image/jpeg", "image/png", "image/gif", "image/webp"];
    match source.need("type")?.one_of(&["base64", "url", "file", "text", "content"])? {
        "base64" => {
            let media: &[&str] = if kind == "image" { &images } else { &["application/pdf"] };
            source.need("media_type")?.one_of(media)?;
            source.need("data")?.base64()
        }
        "url" => {
            let url = source.need("url")?;
            if url.text()?.starts_with("http") { Ok(()) } else { url.wrong("Only HTTPS URLs") }
        }
        "text" => {
            source.need("media_type")?.one_of(&["text/plain"])?;
            source.need("data")?.text().map(drop)
        }
        _ => Ok(()),
    }
}
