//! A prompt as a body of Anthropic's Messages API, as Anthropic, Vertex and Bedrock take it. Source: the
//! vendor's API reference.
//!
//! What the format has no place for is dropped (seed, penalties, log-probabilities); what would change
//! the meaning of the answer makes the request unsendable (several choices, sound).

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Choice, Format, Media, Part, Prompt, Role, Source, Tool};

/// `max_tokens` is required there; this is what models of every age allow.
const MAX_TOKENS: u64 = 4096;
/// The least that thinking may be given.
const BUDGET_MIN: u64 = 1024;

/// Writes the body, without `model` and `stream`.
///
/// # Errors
/// `Unsendable`: the format can't say this.
pub fn write(prompt: &Prompt) -> Result<Map<String, Value>, Fault> {
    if prompt.params.get("n").and_then(Value::as_u64).is_some_and(|n| n > 1) {
        return Err(Fault::Unsendable);
    }
    let mut body = Map::new();
    body.insert("max_tokens".into(), json!(prompt.max_tokens.unwrap_or(MAX_TOKENS)));
    if !prompt.system.is_empty() {
        body.insert("system".into(), Value::Array(blocks(&prompt.system)?));
    }
    let mut messages = Vec::new();
    for turn in &prompt.turns {
        let role = if turn.role == Role::User { "user" } else { "assistant" };
        let content = blocks(&results_first(&turn.parts))?;
        if !content.is_empty() {
            messages.push(json!({ "role": role, "content": content }));
        }
    }
    body.insert("messages".into(), Value::Array(messages));
    tools(prompt, &mut body);
    let stops: Vec<_> = prompt.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if !stops.is_empty() {
        body.insert("stop_sequences".into(), json!(stops));
    }
    if let Some(user) = &prompt.user {
        body.insert("metadata".into(), json!({ "user_id": user }));
    }
    if let Some(Format::Schema { schema, .. }) = &prompt.format {
        let format = json!({ "type": "json_schema", "schema": schema });
        body.insert("output_config".into(), json!({ "format": format }));
    }
    sampling(prompt, &mut body);
    thinking(prompt, &mut body);
    Ok(body)
}

/// Results of tools stand before anything else that the user says with them.
fn results_first(parts: &[Part]) -> Vec<Part> {
    let is_result = |part: &&Part| matches!(part, Part::Result { .. });
    let results = parts.iter().filter(is_result);
    results.chain(parts.iter().filter(|part| !is_result(part))).cloned().collect()
}

fn blocks(parts: &[Part]) -> Result<Vec<Value>, Fault> {
    let mut blocks = Vec::new();
    for part in parts {
        blocks.extend(block(part)?);
    }
    Ok(blocks)
}

fn block(part: &Part) -> Result<Option<Value>, Fault> {
    Ok(Some(match part {
        Part::Text { text, .. } if text.is_empty() => return Ok(None),
        Part::Text { text, cache } => {
            let mut block = json!({ "type": "text", "text": text });
            if let Some(cache) = cache {
                block["cache_control"] = cache.clone();
            }
            block
        }
        Part::Media(media) => self::media(media)?,
        Part::Thought { text, signature: Some(signature) } => {
            json!({ "type": "thinking", "thinking": text, "signature": signature })
        }
        // Without its proof the provider refuses it.
        Part::Thought { .. } => return Ok(None),
        Part::Call { id, name, input } => {
            json!({ "type": "tool_use", "id": id, "name": name, "input": input })
        }
        Part::Result { id, parts, is_error, .. } => {
            let mut block = json!({ "type": "tool_result", "tool_use_id": id });
            let content = blocks(parts)?;
            if !content.is_empty() {
                block["content"] = Value::Array(content);
            }
            if *is_error {
                block["is_error"] = json!(true);
            }
            block
        }
    }))
}

fn media(media: &Media) -> Result<Value, Fault> {
    let kind = match media.mime.split('/').next().unwrap_or_default() {
        "audio" | "video" => return Err(Fault::Unsendable),
        "application" | "text" => "document",
        _ => "image",
    };
    let source = match &media.source {
        Source::Url(url) => json!({ "type": "url", "url": url }),
        Source::Data(data) => {
            json!({ "type": "base64", "media_type": media.mime, "data": data })
        }
        // Another vendor's file is nothing to this one.
        Source::File(_) => return Err(Fault::Unsendable),
    };
    let mut block = json!({ "type": kind, "source": source });
    if kind == "document"
        && let Some(name) = &media.name
    {
        block["title"] = json!(name);
    }
    Ok(block)
}

fn tools(prompt: &Prompt, body: &mut Map<String, Value>) {
    if prompt.tools.is_empty() {
        return;
    }
    let tools = prompt.tools.iter().map(tool).collect();
    body.insert("tools".into(), Value::Array(tools));
    let mut choice = match &prompt.choice {
        None if prompt.parallel != Some(false) => return,
        None | Some(Choice::Auto) => json!({ "type": "auto" }),
        Some(Choice::None) => json!({ "type": "none" }),
        Some(Choice::Any) => json!({ "type": "any" }),
        Some(Choice::Named(name)) => json!({ "type": "tool", "name": name }),
    };
    if prompt.parallel == Some(false) && choice["type"] != "none" {
        choice["disable_parallel_tool_use"] = json!(true);
    }
    body.insert("tool_choice".into(), choice);
}

fn tool(tool: &Tool) -> Value {
    let bare = || json!({ "type": "object", "properties": {} });
    let schema = tool.schema.clone().unwrap_or_else(bare);
    let mut out = json!({ "name": tool.name, "input_schema": schema });
    if let Some(description) = &tool.description {
        out["description"] = json!(description);
    }
    if tool.strict == Some(true) {
        out["strict"] = json!(true);
    }
    if let Some(cache) = &tool.cache {
        out["cache_control"] = cache.clone();
    }
    out
}

/// Temperatures above 1 are 1 there, and recent models take one of temperature and `top_p`.
fn sampling(prompt: &Prompt, body: &mut Map<String, Value>) {
    let number = |name: &str| prompt.params.get(name).and_then(Value::as_f64);
    match (number("temperature"), number("top_p")) {
        (Some(temperature), _) => {
            body.insert("temperature".into(), json!(temperature.clamp(0.0, 1.0)));
        }
        (None, Some(top_p)) => {
            body.insert("top_p".into(), json!(top_p));
        }
        (None, None) => {}
    }
    if let Some(top_k) = prompt.params.get("top_k").filter(|value| value.is_u64()) {
        body.insert("top_k".into(), top_k.clone());
    }
    if prompt.params.get("service_tier").is_some_and(|tier| tier == "auto") {
        body.insert("service_tier".into(), json!("auto"));
    }
}

/// Thinking takes a budget below `max_tokens`, no sampling, and no forced tool.
fn thinking(prompt: &Prompt, body: &mut Map<String, Value>) {
    let budget = match prompt.effort.as_deref() {
        None => return,
        Some("none") => {
            body.insert("thinking".into(), json!({ "type": "disabled" }));
            return;
        }
        Some("minimal" | "low") => BUDGET_MIN,
        Some("medium") => 4 * BUDGET_MIN,
        Some(_) => 16 * BUDGET_MIN,
    };
    let asked = prompt.max_tokens.unwrap_or(0);
    let budget = if asked > BUDGET_MIN { budget.min(asked - 1).max(BUDGET_MIN) } else { budget };
    let max_tokens = if asked > budget { asked } else { budget + asked.max(MAX_TOKENS) };
    body.insert("max_tokens".into(), json!(max_tokens));
    body.insert("thinking".into(), json!({ "type": "enabled", "budget_tokens": budget }));
    for name in ["temperature", "top_p", "top_k"] {
        body.remove(name);
    }
    if let Some(choice) = body.get_mut("tool_choice")
        && matches!(choice["type"].as_str(), Some("any" | "tool"))
    {
        choice["type"] = json!("auto");
        if let Some(choice) = choice.as_object_mut() {
            choice.remove("name");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::dialects::chat_prompt;

    fn body(chat: Value) -> Result<Value, Fault> {
        write(&chat_prompt::read(&chat).unwrap()).map(Value::Object)
    }

    fn with(field: &str, value: Value) -> Value {
        let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        chat[field] = value;
        body(chat).unwrap()
    }

    #[test]
    fn a_conversation_with_tools_keeps_its_meaning() {
        let got = body(json!({ "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "look", "cache_control": { "type": "ephemeral" } },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
                { "type": "image_url", "image_url": { "url": "https://x/y.png" } },
                { "type": "file", "file": { "file_data": "data:application/pdf;base64,UERG", "filename": "a" } },
            ] },
            { "role": "assistant", "content": null, "thinking_blocks": [{ "thinking": "hm", "signature": "sig" }],
              "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "" } }] },
            { "role": "tool", "tool_call_id": "c1", "content": "", "is_error": true },
            { "role": "user", "content": "so?" },
        ], "tools": [{ "type": "function", "function": { "name": "f", "strict": true } }] }))
        .unwrap();
        assert_eq!(got["system"], json!([{ "type": "text", "text": "be brief" }]));
        assert_eq!(
            got["messages"],
            json!([
                { "role": "user", "content": [
                    { "type": "text", "text": "look", "cache_control": { "type": "ephemeral" } },
                    { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "QUJD" } },
                    { "type": "image", "source": { "type": "url", "url": "https://x/y.png" } },
                    { "type": "document", "source": { "type": "base64", "media_type": "application/pdf", "data": "UERG" }, "title": "a" },
                ] },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "sig" },
                    { "type": "tool_use", "id": "c1", "name": "f", "input": {} },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "c1", "is_error": true },
                    { "type": "text", "text": "so?" },
                ] },
            ])
        );
        assert_eq!(got["tools"][0]["input_schema"]["type"], "object");
        assert_eq!(got["tools"][0]["strict"], true);
        assert_eq!(got["max_tokens"], 4096);
    }

    #[test]
    fn parameters_find_their_place_or_are_dropped() {
        assert_eq!(with("temperature", json!(1.7))["temperature"], 1.0);
        assert_eq!(with("stop", json!(["a", " "]))["stop_sequences"], json!(["a"]));
        assert_eq!(with("user", json!("u"))["metadata"], json!({ "user_id": "u" }));
        assert_eq!(with("max_tokens", json!(9))["max_tokens"], 9);
        let schema =
            json!({ "type": "json_schema", "json_schema": { "schema": { "type": "object" } } });
        let format = &with("response_format", schema)["output_config"]["format"];
        assert_eq!(format, &json!({ "type": "json_schema", "schema": { "type": "object" } }));
        for dropped in ["seed", "logprobs", "presence_penalty", "logit_bias"] {
            assert!(with(dropped, json!(1)).get(dropped).is_none(), "{dropped}");
        }
        let low = with("reasoning_effort", json!("low"));
        assert_eq!(low["thinking"], json!({ "type": "enabled", "budget_tokens": 1024 }));
        assert!(low["max_tokens"].as_u64().unwrap() > 1024);
        assert_eq!(with("reasoning_effort", json!("none"))["thinking"]["type"], "disabled");
    }

    #[test]
    fn tool_choices_are_translated() {
        let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
        for (choice, parallel, want) in [
            (json!(null), json!(null), json!(null)),
            (json!("auto"), json!(null), json!({ "type": "auto" })),
            (json!("none"), json!(false), json!({ "type": "none" })),
            (json!("required"), json!(null), json!({ "type": "any" })),
            (
                json!({ "type": "function", "function": { "name": "f" } }),
                json!(false),
                json!({ "type": "tool", "name": "f", "disable_parallel_tool_use": true }),
            ),
            (
                json!(null),
                json!(false),
                json!({ "type": "auto", "disable_parallel_tool_use": true }),
            ),
        ] {
            let got = body(json!({
                "messages": [{ "role": "user", "content": "x" }], "tools": tools,
                "tool_choice": choice, "parallel_tool_calls": parallel,
            }));
            assert_eq!(got.unwrap()["tool_choice"], want, "{choice} {parallel}");
        }
    }

    #[test]
    fn what_can_not_be_said_is_refused() {
        let user = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
        let sound = json!({ "type": "input_audio", "input_audio": { "data": "QQ==" } });
        let foreign = json!({ "type": "file", "file": { "file_id": "f" } });
        for chat in [user(sound), user(foreign), json!({ "messages": [], "n": 2 })] {
            assert_eq!(body(chat), Err(Fault::Unsendable));
        }
    }
}
