//! OpenAI chat requests, read: every message, part, tool and parameter that another provider's format
//! has a place for. What it does not know is left alone; what it can't make sense of is named.

use serde_json::{Map, Value};

use crate::llm::prompt::{
    Choice, Family, Format, Media, Part, Prompt, Role, Signature, Source, Tool, Unreadable,
};

/// Reads a chat request.
///
/// # Errors
/// Where the request is none of the dialect.
pub fn read(body: &Value) -> Result<Prompt, Unreadable> {
    // Older words for tools, and answers by other means than text: nothing else has a place for them.
    for name in ["functions", "function_call", "web_search_options", "audio"] {
        if !body[name].is_null() {
            return Err(bad(name, "nothing: another format can't say this"));
        }
    }
    if body["modalities"].as_array().is_some_and(|list| list.iter().any(|item| item != "text")) {
        return Err(bad("modalities", "text alone"));
    }
    let mut prompt = Prompt::default();
    let messages = body["messages"].as_array().ok_or_else(|| bad("messages", "an array"))?;
    for (index, message) in messages.iter().enumerate() {
        read_message(&mut prompt, message, &format!("messages[{index}]"))?;
    }
    read_tools(&mut prompt, body)?;
    prompt.choice = choice(&body["tool_choice"])?;
    prompt.parallel = body["parallel_tool_calls"].as_bool();
    prompt.format = format(&body["response_format"])?;
    prompt.max_tokens =
        body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
    prompt.stop = match &body["stop"] {
        Value::String(stop) => vec![stop.clone()],
        Value::Array(stops) => stops.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    prompt.effort = body["reasoning_effort"].as_str().map(str::to_owned);
    prompt.user = body["user"].as_str().map(str::to_owned);
    for name in PARAMS {
        match &body[*name] {
            Value::Null => {}
            value => {
                prompt.params.insert((*name).to_owned(), value.clone());
            }
        }
    }
    Ok(prompt)
}

/// Parameters that other formats may have a place for, by name alone.
const PARAMS: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "service_tier",
    "metadata",
    "verbosity",
    // Of other vendors, under the names that they give them.
    "documents",
    "safety_mode",
    "citation_options",
    "min_p",
    "repetition_penalty",
    "safe_prompt",
    "prompt_mode",
    "prediction",
    "safety_identifier",
    "prompt_cache_key",
];

fn bad(at: &str, expected: &'static str) -> Unreadable {
    Unreadable { at: at.to_owned(), expected }
}

fn read_message(prompt: &mut Prompt, message: &Value, at: &str) -> Result<(), Unreadable> {
    let content = &message["content"];
    match message["role"].as_str() {
        Some("system" | "developer") => {
            prompt.system.extend(parts(content, &format!("{at}.content"))?);
        }
        Some("user") => {
            let parts = parts(content, &format!("{at}.content"))?;
            prompt.say(Role::User, parts);
        }
        Some("assistant") => {
            let mut said = thoughts(message);
            said.extend(parts(content, &format!("{at}.content"))?);
            if let Some(refusal) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
                said.push(Part::Text { text: refusal.to_owned(), cache: None });
            }
            for (index, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate()
            {
                said.push(read_call(call, &format!("{at}.tool_calls[{index}]"))?);
            }
            prompt.say(Role::Assistant, said);
        }
        Some("tool") => {
            let id = message["tool_call_id"].as_str();
            let id = id.ok_or_else(|| bad(&format!("{at}.tool_call_id"), "a string"))?;
            let name = prompt.called(id).or(message["name"].as_str()).unwrap_or_default();
            let result = Part::Result {
                id: id.to_owned(),
                name: name.to_owned(),
                parts: parts(content, &format!("{at}.content"))?,
                is_error: message["is_error"].as_bool().unwrap_or(false),
            };
            prompt.say(Role::User, vec![result]);
        }
        _ => return Err(bad(&format!("{at}.role"), "system, developer, user, assistant or tool")),
    }
    Ok(())
}

/// Reasoning that the client gives back: the extension fields that it got it in.
fn thoughts(message: &Value) -> Vec<Part> {
    let mut thoughts = Vec::new();
    for block in message["thinking_blocks"].as_array().into_iter().flatten() {
        if let Some(text) = block["thinking"].as_str() {
            let signature = block["signature"].as_str().filter(|text| !text.is_empty());
            let signature = signature.map(|text| Signature::read(text, Family::Anthropic));
            thoughts.push(Part::Thought { text: text.to_owned(), signature });
        } else if let Some(data) = block["data"].as_str() {
            thoughts.push(Part::Redacted { data: data.to_owned() });
        }
    }
    if thoughts.is_empty()
        && let Some(text) = message["reasoning_content"].as_str().filter(|text| !text.is_empty())
    {
        thoughts.push(Part::Thought { text: text.to_owned(), signature: None });
    }
    thoughts
}

fn read_call(call: &Value, at: &str) -> Result<Part, Unreadable> {
    let function = &call["function"];
    let name =
        function["name"].as_str().ok_or_else(|| bad(&format!("{at}.function.name"), "a string"))?;
    let arguments = match &function["arguments"] {
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => serde_json::from_str(text)
            .map_err(|_| bad(&format!("{at}.function.arguments"), "JSON in a string"))?,
        Value::Object(object) => Value::Object(object.clone()),
        _ => Value::Object(Map::new()),
    };
    let id = call["id"].as_str().unwrap_or_default().to_owned();
    let signature = call["extra_content"]["google"]["thought_signature"].as_str();
    let signature = signature.map(|text| Signature::read(text, Family::Gemini));
    Ok(Part::Call { id, name: name.to_owned(), input: arguments, signature })
}

/// A string, or a list of parts; null and nothing are no parts. Empty texts are left out.
fn parts(content: &Value, at: &str) -> Result<Vec<Part>, Unreadable> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::Text { text: text.clone(), cache: None }]),
        Value::Array(list) => {
            let mut parts = Vec::new();
            for (index, item) in list.iter().enumerate() {
                parts.extend(part(item, &format!("{at}[{index}]"))?);
            }
            Ok(parts)
        }
        _ => Err(bad(at, "a string or an array of parts")),
    }
}

fn part(item: &Value, at: &str) -> Result<Option<Part>, Unreadable> {
    let text = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let cache = item.get("cache_control").filter(|cache| cache.is_object()).cloned();
        (!text.is_empty()).then(|| Part::Text { text: text.to_owned(), cache })
    };
    match item["type"].as_str() {
        Some("text") => Ok(text(&item["text"])),
        Some("refusal") => Ok(text(&item["refusal"])),
        Some("image_url") => {
            // Some clients send the address alone.
            let url = item["image_url"]["url"].as_str().or_else(|| item["image_url"].as_str());
            let url = url.ok_or_else(|| bad(&format!("{at}.image_url.url"), "a string"))?;
            Ok(Some(Part::Media(from_url(url, None))))
        }
        Some("input_audio") => {
            let data = item["input_audio"]["data"].as_str();
            let data = data.ok_or_else(|| bad(&format!("{at}.input_audio.data"), "a string"))?;
            let format = item["input_audio"]["format"].as_str().unwrap_or("wav");
            let mime = format!("audio/{format}");
            Ok(Some(Part::Media(Media {
                mime,
                source: Source::Data(data.to_owned()),
                ..Media::default()
            })))
        }
        Some("file") => file(&item["file"], at).map(Some),
        _ => Err(bad(&format!("{at}.type"), "text, image_url, input_audio, file or refusal")),
    }
}

fn file(file: &Value, at: &str) -> Result<Part, Unreadable> {
    let name = file["filename"].as_str().map(str::to_owned);
    if let Some(id) = file["file_id"].as_str() {
        let source = Source::File(id.to_owned());
        return Ok(Part::Media(Media { source, name, ..Media::default() }));
    }
    let data = file["file_data"].as_str().or_else(|| file["file_url"].as_str());
    let data = data.ok_or_else(|| bad(&format!("{at}.file"), "file_data or file_id"))?;
    let mut media = from_url(data, name);
    if media.mime.is_empty() {
        media.mime = String::from("application/pdf");
    }
    Ok(Part::Media(media))
}

/// A data URL taken apart (RFC 2397), or an address.
fn from_url(url: &str, name: Option<String>) -> Media {
    let taken = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    match taken {
        Some((head, data)) => {
            let mime = head.split(';').next().unwrap_or_default().to_owned();
            Media { mime, source: Source::Data(data.to_owned()), name, ..Media::default() }
        }
        None => Media { source: Source::Url(url.to_owned()), name, ..Media::default() },
    }
}

fn read_tools(prompt: &mut Prompt, body: &Value) -> Result<(), Unreadable> {
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let at = format!("tools[{index}]");
        if tool["type"] != "function" {
            return Err(bad(&format!("{at}.type"), "function"));
        }
        let function = &tool["function"];
        let name = function["name"].as_str();
        let name = name.ok_or_else(|| bad(&format!("{at}.function.name"), "a string"))?;
        prompt.tools.push(Tool {
            name: name.to_owned(),
            description: function["description"].as_str().map(str::to_owned),
            schema: function.get("parameters").filter(|schema| schema.is_object()).cloned(),
            strict: function["strict"].as_bool(),
            cache: tool.get("cache_control").filter(|cache| cache.is_object()).cloned(),
        });
    }
    Ok(())
}

fn choice(value: &Value) -> Result<Option<Choice>, Unreadable> {
    match value {
        Value::Null => Ok(None),
        Value::String(word) => match word.as_str() {
            "auto" => Ok(Some(Choice::Auto)),
            "none" => Ok(Some(Choice::None)),
            "required" | "any" => Ok(Some(Choice::Any)),
            _ => Err(bad("tool_choice", "auto, none, required or a function")),
        },
        other => match other["function"]["name"].as_str() {
            Some(name) => Ok(Some(Choice::Named(name.to_owned()))),
            None => Err(bad("tool_choice", "auto, none, required or a function")),
        },
    }
}

fn format(value: &Value) -> Result<Option<Format>, Unreadable> {
    match value["type"].as_str() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Format::Json)),
        Some("json_schema") => {
            let schema = &value["json_schema"];
            let name = schema["name"].as_str().unwrap_or("answer").to_owned();
            let strict = schema["strict"].as_bool();
            let schema = schema.get("schema").filter(|schema| schema.is_object());
            let schema =
                schema.ok_or_else(|| bad("response_format.json_schema.schema", "an object"))?;
            Ok(Some(Format::Schema { name, schema: schema.clone(), strict }))
        }
        Some(_) => Err(bad("response_format.type", "text, json_object or json_schema")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text { text: text.into(), cache: None }
    }

    #[test]
    fn messages_become_turns() {
        let prompt = read(&json!({ "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "what is", "cache_control": { "type": "ephemeral" } },
                { "type": "text", "text": "" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
                { "type": "image_url", "image_url": { "url": "https://x/y.png" } },
                { "type": "input_audio", "input_audio": { "data": "QQ==", "format": "mp3" } },
                { "type": "file", "file": { "file_data": "data:application/pdf;base64,UERG", "filename": "a.pdf" } },
            ] },
            { "role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } },
                { "id": "c2", "type": "function", "function": { "name": "g", "arguments": "" } },
            ] },
            { "role": "tool", "tool_call_id": "c1", "content": "one" },
            { "role": "tool", "tool_call_id": "c2", "content": [{ "type": "text", "text": "two" }], "is_error": true },
            { "role": "developer", "content": "still brief" },
            { "role": "user", "content": "so?" },
        ] }))
        .unwrap();
        assert_eq!(prompt.system, [text("be brief"), text("still brief")]);
        let data = |mime: &str, data: &str, name: Option<&str>| {
            let (mime, name) = (mime.to_owned(), name.map(str::to_owned));
            Part::Media(Media { mime, source: Source::Data(data.into()), name, ..Media::default() })
        };
        let url = Source::Url("https://x/y.png".into());
        let cached = Some(json!({ "type": "ephemeral" }));
        assert_eq!(
            prompt.turns[0].parts,
            [
                Part::Text { text: "what is".into(), cache: cached },
                data("image/png", "QUJD", None),
                Part::Media(Media { source: url, ..Media::default() }),
                data("audio/mp3", "QQ==", None),
                data("application/pdf", "UERG", Some("a.pdf")),
            ]
        );
        let call = |id: &str, name: &str, input: Value| Part::Call {
            id: id.into(),
            name: name.into(),
            input,
            signature: None,
        };
        assert_eq!(
            prompt.turns[1].parts,
            [
                Part::Thought { text: "hm".into(), signature: None },
                call("c1", "f", json!({ "x": 1 })),
                call("c2", "g", json!({})),
            ]
        );
        let result = |id: &str, name: &str, said: &str, is_error| Part::Result {
            id: id.into(),
            name: name.into(),
            parts: vec![text(said)],
            is_error,
        };
        assert_eq!(prompt.turns[2].role, Role::User);
        assert_eq!(
            prompt.turns[2].parts,
            [result("c1", "f", "one", false), result("c2", "g", "two", true), text("so?"),]
        );
        assert_eq!(prompt.turns.len(), 3);
    }

    #[test]
    fn tools_and_parameters_are_read() {
        let prompt = read(&json!({
            "messages": [],
            "tools": [{ "type": "function", "function": { "name": "f", "description": "d", "parameters": { "type": "object" }, "strict": true } }],
            "tool_choice": { "type": "function", "function": { "name": "f" } },
            "parallel_tool_calls": false, "max_tokens": 5, "max_completion_tokens": 7, "stop": "x",
            "reasoning_effort": "low", "user": "u", "temperature": 0.5, "seed": null,
            "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": { "type": "object" }, "strict": true } },
        }))
        .unwrap();
        assert_eq!(prompt.tools[0].strict, Some(true));
        assert_eq!(prompt.choice, Some(Choice::Named("f".into())));
        assert_eq!((prompt.parallel, prompt.max_tokens), (Some(false), Some(7)));
        assert_eq!((prompt.stop, prompt.effort), (vec!["x".into()], Some("low".into())));
        assert_eq!(prompt.params, Map::from_iter([("temperature".into(), json!(0.5))]));
        assert!(matches!(prompt.format, Some(Format::Schema { strict: Some(true), .. })));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (body, at) in [
            (json!({}), "messages"),
            (json!({ "messages": [{ "role": "wizard" }] }), "messages[0].role"),
            (json!({ "messages": [{ "role": "user", "content": 7 }] }), "messages[0].content"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "smell" }] }] }),
                "messages[0].content[0].type",
            ),
            (
                json!({ "messages": [{ "role": "tool", "content": "x" }] }),
                "messages[0].tool_call_id",
            ),
            (json!({ "messages": [], "tools": [{ "type": "custom" }] }), "tools[0].type"),
            (json!({ "messages": [], "tool_choice": "maybe" }), "tool_choice"),
            (json!({ "messages": [], "functions": [] }), "functions"),
            (json!({ "messages": [], "modalities": ["text", "audio"] }), "modalities"),
        ] {
            assert_eq!(read(&body).unwrap_err().at, at, "{body}");
        }
    }
}
