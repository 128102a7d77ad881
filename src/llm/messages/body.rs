//! A prompt as a body of Anthropic's Messages API, as Anthropic, Vertex and Bedrock take it. Source: the
//! vendor's API reference.
//!
//! What the format has no place for is dropped (seed, penalties, log-probabilities); what would change
//! the meaning of the answer makes the request unsendable (several choices, sound).

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::dialects::messages::allowed_call_id;
use crate::llm::prompt::{
    Choice, Family, Format, Media, Part, Prompt, Role, Signature, Source, Tool,
};

/// `max_tokens` is required there; this is what models of every age allow.
const MAX_TOKENS: u64 = 4096;
/// The least that thinking may be given.
const BUDGET_MIN: u64 = 1024;
/// How an answer that must be JSON of any kind is asked for: the format has no word for it.
const ASK_FOR_JSON: &str = "Answer with one JSON object and nothing else.";

/// A model's generation, by its name: what it takes has changed with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Version(u32, u32);

impl Version {
    /// What can't be told from the name is taken to be new.
    const NEWEST: Version = Version(u32::MAX, 0);
    /// Thinks with a budget of tokens.
    const THINKS: Version = Version(3, 7);
    /// Takes temperature or `top_p`, not both.
    const ONE_SAMPLER: Version = Version(4, 1);
    /// Answers by a schema.
    const SCHEMAS: Version = Version(4, 5);
    /// Decides itself how much to think, and takes an effort.
    const ADAPTS: Version = Version(4, 6);
    /// Takes no sampling parameters, and one effort more.
    const NO_SAMPLERS: Version = Version(4, 7);

    /// `claude-3-7-sonnet-20250219` is 3.7, `claude-sonnet-4@20250514` 4.0, `claude-opus-4.6` 4.6.
    fn of(model: &str) -> Version {
        let name = model.find("claude").map_or(model, |at| &model[at..]);
        let name = name.split([':', '@']).next().unwrap_or_default();
        let mut numbers = name.split(['-', '.', '_']).map(|part| {
            // A date is no version.
            part.parse::<u32>().ok().filter(|number| *number < 100)
        });
        match numbers.by_ref().flatten().next() {
            Some(major) => Version(major, numbers.next().flatten().unwrap_or(0)),
            None => Version::NEWEST,
        }
    }
}

/// Writes the body for `model`, without `model` and `stream`.
///
/// # Errors
/// `Unsendable`: the format, or this model, can't say this.
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    let version = Version::of(model);
    if prompt.params.get("n").and_then(Value::as_u64).is_some_and(|n| n > 1) {
        return Err(Fault::Unsendable);
    }
    let mut body = Map::new();
    body.insert("max_tokens".into(), json!(prompt.max_tokens.unwrap_or(MAX_TOKENS)));
    let mut system = blocks(&prompt.system)?;
    if prompt.format == Some(Format::Json) {
        system.push(json!({ "type": "text", "text": ASK_FOR_JSON }));
    }
    if !system.is_empty() {
        body.insert("system".into(), Value::Array(system));
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
    tools(prompt, version, &mut body);
    let stops: Vec<_> = prompt.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if !stops.is_empty() {
        body.insert("stop_sequences".into(), json!(stops));
    }
    if let Some(user) = &prompt.user {
        body.insert("metadata".into(), json!({ "user_id": user }));
    }
    if let Some(Format::Schema { schema, .. }) = &prompt.format {
        if version < Version::SCHEMAS {
            return Err(Fault::Unsendable);
        }
        let format = json!({ "type": "json_schema", "schema": schema });
        body.insert("output_config".into(), json!({ "format": format }));
    }
    let thinks = thinking(prompt, version, &mut body);
    sampling(prompt, version, thinks, &mut body);
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
        Part::Thought { text, signature } => {
            // Without its own proof the provider refuses it.
            let Some(signature) = own_signature(signature.as_ref()) else { return Ok(None) };
            json!({ "type": "thinking", "thinking": text, "signature": signature })
        }
        Part::Redacted { data } => json!({ "type": "redacted_thinking", "data": data }),
        Part::Call { id, name, input, .. } => {
            json!({ "type": "tool_use", "id": allowed_call_id(id), "name": name, "input": input })
        }
        Part::Result { id, parts, is_error, .. } => {
            let mut block = json!({ "type": "tool_result", "tool_use_id": allowed_call_id(id) });
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
        Source::Data(_) if media.mime.starts_with("text/") => {
            // A document of another type than PDF is told as its text.
            let text = media.plain().ok_or(Fault::Unsendable)?;
            json!({ "type": "text", "media_type": "text/plain", "data": text })
        }
        Source::Data(data) => {
            json!({ "type": "base64", "media_type": media.mime, "data": data })
        }
        // Another vendor's file is nothing to this one.
        Source::File(_) => return Err(Fault::Unsendable),
    };
    let mut block = json!({ "type": kind, "source": source });
    if kind == "document" {
        for (key, value) in [("title", &media.name), ("context", &media.context)] {
            if let Some(value) = value {
                block[key] = json!(value);
            }
        }
        if media.citations {
            block["citations"] = json!({ "enabled": true });
        }
    }
    if let Some(cache) = &media.cache {
        block["cache_control"] = cache.clone();
    }
    Ok(block)
}

fn tools(prompt: &Prompt, version: Version, body: &mut Map<String, Value>) {
    if prompt.tools.is_empty() {
        return;
    }
    let tools = prompt.tools.iter().map(|one| tool(one, version)).collect();
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

fn tool(tool: &Tool, version: Version) -> Value {
    let bare = || json!({ "type": "object", "properties": {} });
    let mut schema = tool.schema.clone().unwrap_or_else(bare);
    if schema.get("type").is_none() {
        schema["type"] = json!("object");
    }
    let mut out = json!({ "name": tool.name, "input_schema": schema });
    if let Some(description) = &tool.description {
        out["description"] = json!(description);
    }
    if tool.strict == Some(true) && version >= Version::SCHEMAS {
        out["strict"] = json!(true);
    }
    if let Some(cache) = &tool.cache {
        out["cache_control"] = cache.clone();
    }
    out
}

/// Temperatures above 1 are 1 there; thinking takes none at all, and the newest models no sampling.
fn sampling(prompt: &Prompt, version: Version, thinks: bool, body: &mut Map<String, Value>) {
    match prompt.params.get("service_tier").and_then(Value::as_str) {
        Some("auto") => _ = body.insert("service_tier".into(), json!("auto")),
        Some("default") => _ = body.insert("service_tier".into(), json!("standard_only")),
        _ => {}
    }
    if version >= Version::NO_SAMPLERS {
        return;
    }
    let number = |name: &str| prompt.params.get(name).and_then(Value::as_f64);
    let temperature = number("temperature").filter(|_| !thinks);
    let top_p = number("top_p").filter(|value| !thinks || *value >= 0.95);
    if let Some(temperature) = temperature {
        body.insert("temperature".into(), json!(temperature.clamp(0.0, 1.0)));
    }
    let both = temperature.is_some() && version >= Version::ONE_SAMPLER;
    if let Some(top_p) = top_p.filter(|_| !both) {
        body.insert("top_p".into(), json!(top_p));
    }
    if let Some(top_k) = prompt.params.get("top_k").filter(|value| value.is_u64() && !thinks) {
        body.insert("top_k".into(), top_k.clone());
    }
}

/// How much to think; says whether it does. A budget is part of `max_tokens`; a forced tool, and a turn
/// that goes on after a call without the signed thoughts before it, rule it out.
fn thinking(prompt: &Prompt, version: Version, body: &mut Map<String, Value>) -> bool {
    let Some(effort) = prompt.effort.as_deref() else { return false };
    let forced = matches!(prompt.choice, Some(Choice::Any | Choice::Named(_)));
    if version >= Version::ADAPTS {
        let word = match effort {
            "none" => {
                body.insert("thinking".into(), json!({ "type": "disabled" }));
                return false;
            }
            "minimal" | "low" => "low",
            "medium" => "medium",
            "xhigh" if version >= Version::NO_SAMPLERS => "xhigh",
            "max" => "max",
            _ => "high",
        };
        let config = body.entry("output_config").or_insert_with(|| json!({}));
        config["effort"] = json!(word);
        if !forced {
            body.insert("thinking".into(), json!({ "type": "adaptive" }));
        }
        return !forced;
    }
    let wanted = match effort {
        "none" => return false,
        _ if prompt.budget.is_some() => prompt.budget.unwrap_or(0).max(BUDGET_MIN),
        "minimal" => BUDGET_MIN,
        "low" => 2 * BUDGET_MIN,
        "medium" => 8 * BUDGET_MIN,
        _ => 16 * BUDGET_MIN,
    };
    let half = prompt.max_tokens.map_or(u64::MAX, |max| (max / 2).max(BUDGET_MIN));
    let budget = if prompt.budget.is_some() { wanted } else { wanted.min(half) };
    let fits = prompt.max_tokens.is_none_or(|max| budget < max);
    if version < Version::THINKS || forced || !fits || goes_on_without_thoughts(prompt) {
        return false;
    }
    let max_tokens = prompt.max_tokens.unwrap_or(budget + MAX_TOKENS);
    body.insert("max_tokens".into(), json!(max_tokens));
    body.insert("thinking".into(), json!({ "type": "enabled", "budget_tokens": budget }));
    true
}

/// Whether the conversation ends with results of calls whose turn has no signed thought.
fn goes_on_without_thoughts(prompt: &Prompt) -> bool {
    let [.., before, last] = prompt.turns.as_slice() else { return false };
    let results = last.parts.iter().any(|part| matches!(part, Part::Result { .. }));
    let signed = before.parts.iter().any(|part| match part {
        Part::Thought { signature, .. } => own_signature(signature.as_ref()).is_some(),
        Part::Redacted { .. } => true,
        _ => false,
    });
    results && !signed
}

fn own_signature(signature: Option<&Signature>) -> Option<&str> {
    signature.and_then(|signature| signature.of(Family::Anthropic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::dialects::chat_prompt;

    fn body(chat: Value) -> Result<Value, Fault> {
        body_for("claude-sonnet-4-5", chat)
    }

    fn body_for(model: &str, chat: Value) -> Result<Value, Fault> {
        write(&chat_prompt::read(&chat).unwrap(), model).map(Value::Object)
    }

    fn with(field: &str, value: Value) -> Value {
        with_for("claude-sonnet-4-5", field, value)
    }

    fn with_for(model: &str, field: &str, value: Value) -> Value {
        let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        chat[field] = value;
        body_for(model, chat).unwrap()
    }

    #[test]
    fn generations_are_told_by_the_name() {
        for (model, version) in [
            ("claude-3-7-sonnet-20250219", Version(3, 7)),
            ("claude-sonnet-4@20250514", Version(4, 0)),
            ("anthropic.claude-opus-4-6-v1:0", Version(4, 6)),
            ("claude-opus-4.7", Version(4, 7)),
            ("claude", Version::NEWEST),
            ("up", Version::NEWEST),
        ] {
            assert_eq!(Version::of(model), version, "{model}");
        }
    }

    #[test]
    fn each_generation_gets_what_it_takes() {
        let effort = |model: &str, effort: &str| with_for(model, "reasoning_effort", json!(effort));
        let old = effort("claude-3-7-sonnet", "medium");
        assert_eq!(old["thinking"], json!({ "type": "enabled", "budget_tokens": 8192 }));
        assert_eq!(old["max_tokens"], 8192 + 4096);
        assert!(effort("claude-3-5-haiku", "high").get("thinking").is_none());
        let new = effort("claude-opus-4-6", "xhigh");
        assert_eq!(
            (&new["thinking"]["type"], &new["output_config"]["effort"]),
            (&json!("adaptive"), &json!("high"))
        );
        assert_eq!(effort("claude-opus-4-7", "xhigh")["output_config"]["effort"], "xhigh");
        assert_eq!(effort("claude-opus-4-6", "none")["thinking"]["type"], "disabled");
        let both = json!({ "messages": [], "temperature": 0.5, "top_p": 0.9 });
        let taken = |model: &str| {
            let body = body_for(model, both.clone()).unwrap();
            (body.get("temperature").is_some(), body.get("top_p").is_some())
        };
        assert_eq!(taken("claude-3-5-haiku"), (true, true));
        assert_eq!(taken("claude-sonnet-4-5"), (true, false));
        assert_eq!(taken("claude-opus-4-7"), (false, false));
        let schema = json!({ "messages": [], "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "object" } } } });
        assert_eq!(body_for("claude-3-7-sonnet", schema), Err(Fault::Unsendable));
        let any = with("response_format", json!({ "type": "json_object" }));
        assert_eq!(any["system"][0]["text"], ASK_FOR_JSON);
    }

    #[test]
    fn thinking_needs_room_and_the_thoughts_before() {
        let chat = |max: Value, choice: Value| {
            let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
            let chat = json!({ "messages": [{ "role": "user", "content": "x" }], "tools": tools,
                "reasoning_effort": "high", "max_tokens": max, "tool_choice": choice, "temperature": 0.2 });
            body(chat).unwrap()
        };
        assert_eq!(chat(json!(8000), json!(null))["thinking"]["budget_tokens"], 4000);
        assert!(chat(json!(8000), json!(null)).get("temperature").is_none());
        assert!(chat(json!(100), json!(null)).get("thinking").is_none());
        assert!(chat(json!(8000), json!("required")).get("thinking").is_none());
        let after = |thoughts: Value| {
            let call = json!([{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
            body(json!({ "reasoning_effort": "low", "messages": [
                { "role": "user", "content": "x" },
                { "role": "assistant", "tool_calls": call, "thinking_blocks": thoughts },
                { "role": "tool", "tool_call_id": "c", "content": "y" },
            ] }))
            .unwrap()
        };
        assert!(after(json!(null)).get("thinking").is_none());
        let signed = json!([{ "thinking": "hm", "signature": "s" }]);
        assert_eq!(after(signed)["thinking"]["budget_tokens"], 2048);
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
    fn ids_of_other_vendors_are_allowed() {
        let function = json!({ "name": "f", "arguments": "{}" });
        let call = json!({ "id": "functions.f:0", "type": "function", "function": function });
        let got = body(json!({ "messages": [
            { "role": "assistant", "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "functions.f:0", "content": "x" },
        ] }))
        .unwrap();
        let id = got["messages"][0]["content"][0]["id"].as_str().unwrap();
        assert_eq!(id, "toolu_fb_ZnVuY3Rpb25zLmY6MA");
        assert_eq!(got["messages"][1]["content"][0]["tool_use_id"], id);
    }

    #[test]
    fn a_budget_is_kept_where_there_is_room() {
        let budget = |max: u64, model: &str| {
            let request = json!({ "max_tokens": max, "messages": [],
                "thinking": { "type": "enabled", "budget_tokens": 5000 } });
            let prompt = crate::llm::dialects::messages_prompt::read(&request).unwrap();
            Value::Object(write(&prompt, model).unwrap())
        };
        assert_eq!(budget(8000, "claude-sonnet-4-5")["thinking"]["budget_tokens"], 5000);
        assert!(budget(5000, "claude-sonnet-4-5").get("thinking").is_none());
        assert_eq!(budget(8000, "claude-opus-4-6")["thinking"]["type"], "adaptive");
    }

    #[test]
    fn documents_keep_what_is_said_of_them() {
        let document = json!({ "type": "document", "title": "t", "context": "c",
            "source": { "type": "text", "media_type": "text/plain", "data": "\u{17c}" },
            "citations": { "enabled": true }, "cache_control": { "type": "ephemeral" } });
        let request =
            json!({ "max_tokens": 9, "messages": [{ "role": "user", "content": [document] }] });
        let prompt = crate::llm::dialects::messages_prompt::read(&request).unwrap();
        let got = Value::Object(write(&prompt, "claude").unwrap());
        assert_eq!(got["messages"], request["messages"]);
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
