//! What Bedrock's Converse refuses in a request.

use serde_json::Value;

use super::check::{Checked, Spot, wrong};
use super::is_forged;
use crate::app::sandbox::ask::Ask;

const FIELDS: [&str; 13] = [
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "promptVariables",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
    "modelId",
];

/// Reads a body, and checks it.
pub fn read(body: &Value, ask: &mut Ask) -> Checked {
    let top = Spot::top(body);
    top.only(&FIELDS)?;
    for block in top.get("system").map_or(Ok(Vec::new()), |system| system.list())? {
        block.only(&["text", "cachePoint", "guardContent"])?;
        if let Some(text) = block.get("text") {
            ask.counts(text.words()?);
        }
    }
    if let Some(config) = top.get("inferenceConfig") {
        config.only(&["maxTokens", "temperature", "topP", "topK", "stopSequences"])?;
        if let Some(most) = config.get("maxTokens") {
            most.whole(1)?;
        }
        for name in ["temperature", "topP"] {
            if let Some(spot) = config.get(name) {
                spot.number(0.0, 1.0)?;
            }
        }
        for stop in config.get("stopSequences").map_or(Ok(Vec::new()), |list| list.list())? {
            stop.text()?;
        }
    }
    tools(&top, ask)?;
    messages(&top, ask)
}

fn tools(top: &Spot<'_>, ask: &mut Ask) -> Checked {
    let Some(config) = top.get("toolConfig") else { return Ok(()) };
    config.only(&["tools", "toolChoice"])?;
    for tool in config.need("tools")?.filled()? {
        tool.only(&["toolSpec", "systemTool", "cachePoint"])?;
        let Some(spec) = tool.get("toolSpec") else { continue };
        spec.only(&["name", "description", "inputSchema", "strict"])?;
        ask.tools.push(spec.need("name")?.name(64, "")?.to_owned());
        if let Some(description) = spec.get("description") {
            description.words()?;
        }
        spec.need("inputSchema")?.need("json")?.object()?;
    }
    let Some(choice) = config.get("toolChoice") else { return Ok(()) };
    choice.only(&["auto", "any", "tool"])?;
    if let Some(tool) = choice.get("tool") {
        let name = tool.need("name")?.text()?;
        if !ask.tools.iter().any(|tool| tool == name) {
            return choice.wrong(format_args!("the tool {name} is not among the tools"));
        }
    }
    Ok(())
}

fn messages(top: &Spot<'_>, ask: &mut Ask) -> Checked {
    let has_tools = top.get("toolConfig").is_some();
    let mut open: Vec<&str> = Vec::new();
    let mut expected = "user";
    for message in top.need("messages")?.filled()? {
        message.only(&["role", "content"])?;
        let role = message.need("role")?.one_of(&["user", "assistant"])?;
        if role != expected {
            return message.wrong(
                "A conversation must start with a user message and alternate between user and assistant roles.",
            );
        }
        expected = if role == "user" { "assistant" } else { "user" };
        let (mut made, mut used) = (Vec::new(), false);
        for block in message.need("content")?.filled()? {
            used |= one_block(&block, role, &mut made, &mut open, ask)?;
        }
        if used && !has_tools {
            return message.wrong(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
            );
        }
        if let Some(id) = open.first() {
            return message.wrong(format_args!("Expected toolResult blocks for the ids: {id}"));
        }
        open = made;
    }
    match open.first() {
        Some(id) => wrong(format_args!("messages: Expected toolResult blocks for the ids: {id}")),
        None => Ok(()),
    }
}

/// Checks a block; whether it is one of a tool.
fn one_block<'a>(
    block: &Spot<'a>,
    role: &str,
    made: &mut Vec<&'a str>,
    open: &mut Vec<&'a str>,
    ask: &mut Ask,
) -> Checked<bool> {
    let kinds = [
        "text",
        "image",
        "document",
        "video",
        "audio",
        "toolUse",
        "toolResult",
        "reasoningContent",
        "cachePoint",
        "guardContent",
        "citationsContent",
        "searchResult",
    ];
    block.only(&kinds)?;
    if block.value.as_object().is_none_or(|object| object.len() != 1) {
        return block.wrong("exactly one member of this union must be set");
    }
    if let Some(text) = block.get("text") {
        ask.counts(text.words()?);
    }
    media(block)?;
    if let Some(thought) = block.get("reasoningContent") {
        thought.only(&["reasoningText", "redactedContent"])?;
        if role != "assistant" {
            return block.wrong("reasoningContent belongs to the assistant");
        }
        if let Some(text) = thought.get("reasoningText") {
            text.only(&["text", "signature"])?;
            let said = text.need("text")?.text()?;
            if let Some(signature) = text.get("signature")
                && is_forged(signature.text()?, said)
            {
                return text.wrong("Invalid `signature` in `thinking` block");
            }
        }
    }
    if let Some(call) = block.get("toolUse") {
        call.only(&["toolUseId", "name", "input", "type"])?;
        call.need("name")?.name(64, "")?;
        call.need("input")?.object()?;
        made.push(call.need("toolUseId")?.name(64, ".:")?);
        if role != "assistant" {
            return block.wrong("toolUse belongs to the assistant");
        }
        return Ok(true);
    }
    let Some(result) = block.get("toolResult") else { return Ok(false) };
    result.only(&["toolUseId", "content", "status", "type"])?;
    let id = result.need("toolUseId")?.name(64, ".:")?;
    let Some(at) = open.iter().position(|open| *open == id) else {
        return result.wrong(format_args!("there is no toolUse of the id {id} before it"));
    };
    open.swap_remove(at);
    if let Some(status) = result.get("status") {
        status.one_of(&["success", "error"])?;
    }
    for part in result.need("content")?.filled()? {
        part.only(&["text", "json", "image", "document", "video", "searchResult"])?;
        if let Some(json) = part.get("json") {
            json.object()?;
        }
        media(&part)?;
    }
    Ok(true)
}

fn media(block: &Spot<'_>) -> Checked {
    for (kind, formats) in [
        ("image", &["png", "jpeg", "gif", "webp"][..]),
        ("document", &["pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"]),
    ] {
        let Some(media) = block.get(kind) else { continue };
        media.need("format")?.one_of(formats)?;
        let source = media.need("source")?;
        if let Some(bytes) = source.get("bytes") {
            bytes.base64()?;
        } else if source.either(&["s3Location", "text", "content"]).is_none() {
            return source.wrong("one of bytes and s3Location is required");
        }
        if kind == "document" {
            let name = media.need("name")?;
            let fits = |c: char| c.is_ascii_alphanumeric() || " -()[]".contains(c);
            let text = name.text()?;
            if text.is_empty() || !text.chars().all(fits) || text.contains("  ") {
                return name
                    .wrong("The file name may hold letters, digits, spaces, -, (), [] only.");
            }
        }
    }
    Ok(())
}
