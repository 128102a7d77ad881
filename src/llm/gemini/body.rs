//! A prompt as a body of Google's `generateContent`, as Gemini and Vertex take it. Source: the vendor's API
//! reference.
//!
//! What the format has no place for is dropped (the user's name, logit_bias, parallel_tool_calls); what
//! would change the answer makes the request unsendable: more stop sequences than it takes, nothing to
//! answer to, a file of another vendor.
//!
//! Signatures of thoughts go back to the part that they came with: a call, a thought, or, where the thought
//! has no words, the text beside it.

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Choice, Family, Format, Media, Part, Prompt, Role, Source};
use crate::llm::request::Ask;

/// Stands for a signature of a thought that the client's format could not carry; the vendor names it for
/// that. Without one, its newest models refuse a call in the history.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// What `ask` asks for, as the text of a body for `model`.
///
/// # Errors
/// `Unsendable`: the client's body can't be read, or the format can't say this.
pub fn text(ask: &Ask, body: &[u8], model: &str) -> Result<Vec<u8>, Fault> {
    let prompt = ask.prompt(body).map_err(|_| Fault::Unsendable)?;
    serde_json::to_vec(&write(&prompt, model)?).map_err(|_| Fault::Unsendable)
}

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
    if contents.is_empty() {
        return Err(Fault::Unsendable);
    }
    body.insert("contents".into(), Value::Array(contents));
    tools(prompt, &mut body);
    let config = config(prompt, model)?;
    if !config.is_empty() {
        body.insert("generationConfig".into(), Value::Object(config));
    }
    Ok(body)
}

fn parts(parts: &[Part]) -> Result<Vec<Value>, Fault> {
    let mut out: Vec<Value> = Vec::new();
    let mut called = false;
    // The proof of a text, until the text is there.
    let mut proof = None;
    for part in parts {
        match part {
            Part::Text { text, .. } => {
                let mut part = json!({ "text": text });
                sign(&mut part, proof.take());
                out.push(part);
            }
            Part::Media(media) => out.push(self::media(media)?),
            Part::Thought { text, signature } => {
                let own = signature.as_ref().and_then(|signature| signature.of(Family::Gemini));
                match own {
                    Some(_) if text.is_empty() => proof = own,
                    Some(_) => {
                        let mut part = json!({ "text": text, "thought": true });
                        sign(&mut part, own);
                        out.push(part);
                    }
                    // Thoughts of another vendor, or without their proof, mean nothing here.
                    None => {}
                }
            }
            Part::Redacted { .. } => {}
            Part::Call { name, input, signature, .. } => {
                let mut part = json!({ "functionCall": { "name": name, "args": input } });
                let own = signature.as_ref().and_then(|signature| signature.of(Family::Gemini));
                let first = !std::mem::replace(&mut called, true);
                sign(&mut part, own.or(first.then_some(NO_SIGNATURE)));
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
    if proof.is_some() {
        // It came after its text, or there was none.
        let text = out
            .iter_mut()
            .rev()
            .find(|part| part.get("text").is_some() && part.get("thoughtSignature").is_none());
        match text {
            Some(text) => sign(text, proof),
            None => {
                let mut part = json!({ "text": "" });
                sign(&mut part, proof);
                out.push(part);
            }
        }
    }
    Ok(out)
}

fn sign(part: &mut Value, signature: Option<&str>) {
    if let Some(signature) = signature {
        part["thoughtSignature"] = json!(signature);
    }
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

fn config(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
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
        if prompt.stop.len() > STOPS_MAX {
            return Err(Fault::Unsendable);
        }
        config.insert("stopSequences".into(), json!(prompt.stop));
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
    if let Some(thinking) = thinking(prompt, model) {
        config.insert("thinkingConfig".into(), thinking);
    }
    Ok(config)
}

/// The third generation takes a level, the one before a budget of tokens, older ones nothing.
fn thinking(prompt: &Prompt, model: &str) -> Option<Value> {
    let (effort, budget) = (prompt.effort.as_deref(), prompt.budget);
    if effort.is_none() && budget.is_none() {
        return None;
    }
    if model.contains("gemini-3") {
        let little = match (effort, budget) {
            (Some("none" | "minimal" | "low"), _) => true,
            (None, Some(budget)) => budget <= LITTLE,
            (Some(_), _) | (None, None) => false,
        };
        let level = if little { "low" } else { "high" };
        return Some(json!({ "thinkingLevel": level, "includeThoughts": true }));
    }
    if !model.contains("gemini-2.5") {
        return None;
    }
    let wanted = budget.unwrap_or(match effort {
        Some("none") => 0,
        Some("minimal" | "low") => 1024,
        Some("medium") => 8192,
        _ => 24_576,
    });
    // The largest can't be kept from thinking; the smallest thinks a little more or not at all.
    let budget = match wanted {
        _ if model.contains("pro") => wanted.clamp(128, 32_768),
        1..512 if model.contains("lite") => 512,
        _ => wanted.min(24_576),
    };
    Some(json!({ "thinkingBudget": budget, "includeThoughts": budget > 0 }))
}

/// So many strings may end an answer.
const STOPS_MAX: usize = 5;
/// A budget of so many tokens is a low level.
const LITTLE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::dialects::chat_prompt;
    use crate::llm::prompt::Signature;

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
            let messages = json!([{ "role": "user", "content": "x" }]);
            let got = body(json!({ "messages": messages, "tools": tools, "tool_choice": choice }))
                .unwrap();
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
        let stops = |count: usize| {
            let stop: Vec<_> = (0..count).map(|i| i.to_string()).collect();
            body(json!({ "messages": [{ "role": "user", "content": "x" }], "stop": stop }))
        };
        assert_eq!(stops(5).unwrap()["generationConfig"]["stopSequences"][4], "4");
        assert_eq!(stops(6), Err(Fault::Unsendable));
        for messages in [json!([]), json!([{ "role": "system", "content": "x" }])] {
            assert_eq!(body(json!({ "messages": messages })), Err(Fault::Unsendable));
        }
    }

    #[test]
    fn signatures_go_back_to_their_parts() {
        let sign = |family, text: &str| Some(Signature { family, text: text.into() });
        let ours = |text: &str| sign(Family::Gemini, text);
        let text = |text: &str| Part::Text { text: text.into(), cache: None };
        let thought = |text: &str, signature| Part::Thought { text: text.into(), signature };
        let call = |name: &str, signature| {
            let (id, name, input) = (String::new(), name.into(), json!({}));
            Part::Call { id, name, input, signature }
        };
        let called = |name: &str| json!({ "name": name, "args": {} });
        for (parts, want) in [
            (
                vec![call("f", ours("s1")), call("g", None), call("h", ours("s2"))],
                json!([
                    { "functionCall": called("f"), "thoughtSignature": "s1" },
                    { "functionCall": called("g") },
                    { "functionCall": called("h"), "thoughtSignature": "s2" },
                ]),
            ),
            (
                vec![call("f", sign(Family::Openai, "s"))],
                json!([{ "functionCall": called("f"), "thoughtSignature": NO_SIGNATURE }]),
            ),
            (
                vec![thought("hm", ours("s")), text("a")],
                json!([{ "text": "hm", "thought": true, "thoughtSignature": "s" }, { "text": "a" }]),
            ),
            (
                vec![thought("", ours("s")), text("a"), text("b")],
                json!([{ "text": "a", "thoughtSignature": "s" }, { "text": "b" }]),
            ),
            (
                vec![text("a"), thought("", ours("s"))],
                json!([{ "text": "a", "thoughtSignature": "s" }]),
            ),
            (vec![thought("", ours("s"))], json!([{ "text": "", "thoughtSignature": "s" }])),
            (vec![thought("hm", None), thought("x", sign(Family::Anthropic, "s"))], json!([])),
        ] {
            assert_eq!(Value::Array(super::parts(&parts).unwrap()), want, "{parts:?}");
        }
    }

    #[test]
    fn each_generation_thinks_in_its_own_measure() {
        let config = |model: &str, effort: Option<&str>, budget| {
            let effort = effort.map(str::to_owned);
            thinking(&Prompt { effort, budget, ..Prompt::default() }, model)
        };
        let budget =
            |tokens: u64| Some(json!({ "thinkingBudget": tokens, "includeThoughts": tokens > 0 }));
        let level = |level: &str| Some(json!({ "thinkingLevel": level, "includeThoughts": true }));
        assert_eq!(config("gemini-2.5-flash", None, None), None);
        assert_eq!(config("gemini-2.0-flash", Some("high"), None), None);
        assert_eq!(config("gemini-2.5-flash", Some("none"), None), budget(0));
        assert_eq!(config("gemini-2.5-pro", Some("none"), None), budget(128));
        assert_eq!(config("gemini-2.5-flash-lite", None, Some(100)), budget(512));
        assert_eq!(config("gemini-2.5-flash", Some("low"), Some(5000)), budget(5000));
        assert_eq!(config("gemini-2.5-flash", None, Some(50_000)), budget(24_576));
        assert_eq!(config("gemini-3-pro-preview", Some("minimal"), None), level("low"));
        assert_eq!(config("gemini-3-pro-preview", None, Some(1024)), level("low"));
        assert_eq!(config("gemini-3-pro-preview", None, Some(10_000)), level("high"));
    }
}
