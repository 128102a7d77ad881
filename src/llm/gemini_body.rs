//! A prompt as a body of Google's `generateContent`, as Gemini and Vertex take it. Source: the vendor's API
//! reference.
//!
//! What the format has no place for is dropped (the user's name, logit_bias, parallel_tool_calls).

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Choice, Format, Media, Part, Prompt, Role, Source};

/// Stands for a signature of a thought that the client's format could not carry; the vendor names it for
/// that. Without one, its newest models refuse a call in the history.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Writes the body for `model`; the model itself is in the path.
///
/// # Errors
/// `Unsendable`: the format can't say this.
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    let mut body = Map::new();
    if !prompt.system.is_empty() {
        let parts = parts(&prompt.system)?;
        body.insert("systemInstruction".into(), json!({ "parts": parts }));
    }
    let mut contents = Vec::new();
    for turn in &prompt.turns {
        let role = if turn.role == Role::User { "user" } else { "model" };
        let parts = parts(&turn.parts)?;
        if !parts.is_empty() {
            contents.push(json!({ "role": role, "parts": parts }));
        }
    }
    body.insert("contents".into(), Value::Array(contents));
    tools(prompt, &mut body);
    let config = config(prompt, model);
    if !config.is_empty() {
        body.insert("generationConfig".into(), Value::Object(config));
    }
    Ok(body)
}

fn parts(parts: &[Part]) -> Result<Vec<Value>, Fault> {
    let mut out = Vec::new();
    let mut called = false;
    for part in parts {
        match part {
            Part::Text { text, .. } => out.push(json!({ "text": text })),
            Part::Media(media) => out.push(self::media(media)?),
            // Thoughts of another vendor, or without their proof, mean nothing here.
            Part::Thought { .. } | Part::Redacted { .. } => {}
            Part::Call { name, input, .. } => {
                let mut part = json!({ "functionCall": { "name": name, "args": input } });
                if !std::mem::replace(&mut called, true) {
                    part["thoughtSignature"] = json!(NO_SIGNATURE);
                }
                out.push(part);
            }
            Part::Result { name, parts, is_error, .. } => {
                let said = result(parts)?;
                let key = if *is_error { "error" } else { "result" };
                let response =
                    if said.is_object() && !is_error { said } else { json!({ key: said }) };
                out.push(json!({ "functionResponse": { "name": name, "response": response } }));
            }
        }
    }
    Ok(out)
}

/// What a tool said: an object if it is one, else its text.
fn result(parts: &[Part]) -> Result<Value, Fault> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text { text: more, .. } => text.push_str(more),
            // A picture has no place in a result here.
            _ => return Err(Fault::Unsendable),
        }
    }
    let object = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
    Ok(object.unwrap_or(Value::String(text)))
}

fn media(media: &Media) -> Result<Value, Fault> {
    match &media.source {
        Source::Data(data) => Ok(json!({ "inlineData": { "mimeType": media.mime, "data": data } })),
        Source::Url(url) => {
            let mime = if media.mime.is_empty() { guessed(url) } else { media.mime.as_str() };
            Ok(json!({ "fileData": { "mimeType": mime, "fileUri": url } }))
        }
        // Another vendor's file is nothing to this one.
        Source::File(_) => Err(Fault::Unsendable),
    }
}

/// A type is required there; an address tells it by its ending.
fn guessed(url: &str) -> &'static str {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    match path.rsplit('.').next() {
        Some("png") => "image/png",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        Some("pdf") => "application/pdf",
        _ => "image/jpeg",
    }
}

fn tools(prompt: &Prompt, body: &mut Map<String, Value>) {
    if prompt.tools.is_empty() {
        return;
    }
    let declarations: Vec<Value> = prompt
        .tools
        .iter()
        .map(|tool| {
            let mut out = json!({ "name": tool.name });
            if let Some(description) = &tool.description {
                out["description"] = json!(description);
            }
            // The full schema language; the older field takes a part of it.
            let bare = |schema: &Value| {
                schema["properties"].as_object().is_none_or(Map::is_empty)
                    && schema["type"] == "object"
            };
            if let Some(schema) = tool.schema.as_ref().filter(|schema| !bare(schema)) {
                out["parametersJsonSchema"] = schema.clone();
            }
            out
        })
        .collect();
    body.insert("tools".into(), json!([{ "functionDeclarations": declarations }]));
    let calling = match &prompt.choice {
        None => return,
        Some(Choice::Auto) => json!({ "mode": "AUTO" }),
        Some(Choice::None) => json!({ "mode": "NONE" }),
        Some(Choice::Any) => json!({ "mode": "ANY" }),
        Some(Choice::Named(name)) => json!({ "mode": "ANY", "allowedFunctionNames": [name] }),
    };
    body.insert("toolConfig".into(), json!({ "functionCallingConfig": calling }));
}

fn config(prompt: &Prompt, model: &str) -> Map<String, Value> {
    let mut config = Map::new();
    for (ours, theirs) in [
        ("temperature", "temperature"),
        ("top_p", "topP"),
        ("top_k", "topK"),
        ("seed", "seed"),
        ("presence_penalty", "presencePenalty"),
        ("frequency_penalty", "frequencyPenalty"),
        ("n", "candidateCount"),
        ("logprobs", "responseLogprobs"),
        ("top_logprobs", "logprobs"),
    ] {
        if let Some(value) = prompt.params.get(ours) {
            config.insert(theirs.into(), value.clone());
        }
    }
    if let Some(max) = prompt.max_tokens {
        config.insert("maxOutputTokens".into(), json!(max));
    }
    if !prompt.stop.is_empty() {
        let stops: Vec<_> = prompt.stop.iter().take(5).collect();
        config.insert("stopSequences".into(), json!(stops));
    }
    match &prompt.format {
        None => {}
        Some(Format::Json) => {
            config.insert("responseMimeType".into(), json!("application/json"));
        }
        Some(Format::Schema { schema, .. }) => {
            config.insert("responseMimeType".into(), json!("application/json"));
            config.insert("responseJsonSchema".into(), schema.clone());
        }
    }
    if let Some(effort) = prompt.effort.as_deref()
        && let Some(thinking) = thinking(effort, model)
    {
        config.insert("thinkingConfig".into(), thinking);
    }
    config
}

/// The third generation takes a level, the one before a budget of tokens, older ones nothing.
fn thinking(effort: &str, model: &str) -> Option<Value> {
    if model.contains("gemini-3") {
        let level = match effort {
            "none" | "minimal" | "low" => "low",
            _ => "high",
        };
        return Some(json!({ "thinkingLevel": level, "includeThoughts": true }));
    }
    if !model.contains("gemini-2.5") {
        return None;
    }
    let budget = match effort {
        "none" => 0,
        "minimal" | "low" => 1024,
        "medium" => 8192,
        _ => 24_576,
    };
    Some(json!({ "thinkingBudget": budget, "includeThoughts": budget > 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::dialects::chat_prompt;

    fn body(chat: Value) -> Result<Value, Fault> {
        write(&chat_prompt::read(&chat).unwrap(), "gemini-2.5-flash").map(Value::Object)
    }

    #[test]
    fn a_conversation_with_tools_keeps_its_meaning() {
        let got = body(json!({ "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "look" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
                { "type": "image_url", "image_url": { "url": "https://x/y.webp?z" } },
                { "type": "input_audio", "input_audio": { "data": "QQ==", "format": "wav" } },
            ] },
            { "role": "assistant", "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } },
                { "id": "c2", "type": "function", "function": { "name": "g", "arguments": "" } },
            ] },
            { "role": "tool", "tool_call_id": "c1", "content": "{\"y\":2}" },
            { "role": "tool", "tool_call_id": "c2", "content": "plain", "is_error": true },
        ] }))
        .unwrap();
        assert_eq!(got["systemInstruction"], json!({ "parts": [{ "text": "be brief" }] }));
        assert_eq!(
            got["contents"],
            json!([
                { "role": "user", "parts": [
                    { "text": "look" },
                    { "inlineData": { "mimeType": "image/png", "data": "QUJD" } },
                    { "fileData": { "mimeType": "image/webp", "fileUri": "https://x/y.webp?z" } },
                    { "inlineData": { "mimeType": "audio/wav", "data": "QQ==" } },
                ] },
                { "role": "model", "parts": [
                    { "functionCall": { "name": "f", "args": { "x": 1 } }, "thoughtSignature": NO_SIGNATURE },
                    { "functionCall": { "name": "g", "args": {} } },
                ] },
                { "role": "user", "parts": [
                    { "functionResponse": { "name": "f", "response": { "y": 2 } } },
                    { "functionResponse": { "name": "g", "response": { "error": "plain" } } },
                ] },
            ])
        );
    }

    #[test]
    fn parameters_find_their_place() {
        let got = body(json!({
            "messages": [{ "role": "user", "content": "x" }],
            "temperature": 1.5, "top_p": 0.5, "seed": 7, "n": 2, "max_tokens": 9, "stop": ["a"],
            "presence_penalty": 0.1, "logprobs": true, "top_logprobs": 3, "reasoning_effort": "low", "user": "u",
            "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "object" } } },
        }))
        .unwrap();
        assert_eq!(
            got["generationConfig"],
            json!({
                "temperature": 1.5, "topP": 0.5, "seed": 7, "presencePenalty": 0.1, "candidateCount": 2,
                "responseLogprobs": true, "logprobs": 3, "maxOutputTokens": 9, "stopSequences": ["a"],
                "responseMimeType": "application/json", "responseJsonSchema": { "type": "object" },
                "thinkingConfig": { "thinkingBudget": 1024, "includeThoughts": true },
            })
        );
        assert!(!got.to_string().contains("\"u\""));
    }

    #[test]
    fn tools_and_choices_are_translated() {
        let tools = json!([
            { "type": "function", "function": { "name": "f", "description": "d", "parameters": { "type": "object", "properties": { "x": {} }, "additionalProperties": false } } },
            { "type": "function", "function": { "name": "g", "parameters": { "type": "object", "properties": {} } } },
        ]);
        for (choice, want) in [
            (json!("auto"), json!({ "mode": "AUTO" })),
            (json!("none"), json!({ "mode": "NONE" })),
            (json!("required"), json!({ "mode": "ANY" })),
            (
                json!({ "type": "function", "function": { "name": "f" } }),
                json!({ "mode": "ANY", "allowedFunctionNames": ["f"] }),
            ),
        ] {
            let got =
                body(json!({ "messages": [], "tools": tools, "tool_choice": choice })).unwrap();
            assert_eq!(got["toolConfig"]["functionCallingConfig"], want);
            let declared = &got["tools"][0]["functionDeclarations"];
            assert_eq!(declared[0]["parametersJsonSchema"]["additionalProperties"], false);
            assert!(declared[1].get("parametersJsonSchema").is_none());
        }
    }

    #[test]
    fn what_can_not_be_said_is_refused() {
        let part = json!({ "type": "file", "file": { "file_id": "f" } });
        let chat = json!({ "messages": [{ "role": "user", "content": [part] }] });
        assert_eq!(body(chat), Err(Fault::Unsendable));
    }
}
