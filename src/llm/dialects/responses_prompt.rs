//! OpenAI's Responses requests, read: every item, content part, tool and parameter that another
//! provider's format has a place for. What it does not know is left alone; what it can't make sense of,
//! or what only a provider of this API can do (its own tools, stored answers), is named.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::llm::dialects::responses::{CALL_TAG, REDACTED_TAG};
use crate::llm::prompt::{
    Choice, Family, Format, Media, Part, Prompt, Role, Signature, Source, Tool, Unreadable,
};

/// Reads a request.
///
/// # Errors
/// Where the request is none of the dialect, or asks for what no other format can say.
pub fn read(body: &Value) -> Result<Prompt, Unreadable> {
    // What is stored lies with the provider that stored it.
    for name in ["previous_response_id", "conversation", "prompt"] {
        if !body[name].is_null() {
            return Err(bad(name, STATELESS));
        }
    }
    if body["background"] == true {
        return Err(bad("background", "false: answers are not stored here"));
    }
    let mut prompt = Prompt::default();
    match &body["instructions"] {
        Value::Null => {}
        Value::String(words) => prompt.system.extend(text(words, &Value::Null)),
        _ => return Err(bad("instructions", "a string")),
    }
    read_input(&mut prompt, &body["input"])?;
    read_tools(&mut prompt, body)?;
    prompt.choice = choice(&mut prompt.tools, &body["tool_choice"])?;
    prompt.parallel = body["parallel_tool_calls"].as_bool();
    prompt.format = format(&body["text"]["format"])?;
    prompt.max_tokens = body["max_output_tokens"].as_u64();
    prompt.effort = body["reasoning"]["effort"].as_str().map(str::to_owned);
    prompt.user = body["user"].as_str().map(str::to_owned);
    let verbosity = ("verbosity", &body["text"]["verbosity"]);
    for (name, value) in PARAMS.iter().map(|name| (*name, &body[*name])).chain([verbosity]) {
        if !value.is_null() {
            prompt.params.insert(name.to_owned(), value.clone());
        }
    }
    Ok(prompt)
}

/// Parameters that other formats may have a place for, by name alone. Log-probabilities are not asked for:
/// nothing tells them between formats.
const PARAMS: &[&str] =
    &["temperature", "top_p", "service_tier", "metadata", "safety_identifier", "prompt_cache_key"];

const STATELESS: &str =
    "nothing: answers are not stored here, so the whole conversation stands in \"input\"";

fn bad(at: &str, expected: &'static str) -> Unreadable {
    Unreadable { at: at.to_owned(), expected }
}

fn read_input(prompt: &mut Prompt, input: &Value) -> Result<(), Unreadable> {
    let items = match input {
        Value::String(words) => {
            prompt.say(Role::User, text(words, &Value::Null).into_iter().collect());
            return Ok(());
        }
        Value::Array(items) => items,
        _ => return Err(bad("input", "a string or an array of items")),
    };
    let mut signatures = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        read_item(prompt, item, &format!("input[{index}]"), &mut signatures)?;
    }
    if signatures.is_empty() {
        return Ok(());
    }
    for part in prompt.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
        if let Part::Call { id, signature, .. } = part {
            *signature = signatures.get(id).cloned();
        }
    }
    Ok(())
}

/// Reads an item. Signatures of calls are put down by the call's id: they may stand anywhere.
fn read_item(
    prompt: &mut Prompt,
    item: &Value,
    at: &str,
    signatures: &mut BTreeMap<String, Signature>,
) -> Result<(), Unreadable> {
    let is_bare = item["type"].is_null() && !item["role"].is_null();
    match item["type"].as_str() {
        _ if is_bare => read_message(prompt, item, at),
        Some("message") => read_message(prompt, item, at),
        Some("reasoning") => {
            prompt.say(Role::Assistant, thought(item, signatures).into_iter().collect());
            Ok(())
        }
        Some("function_call") => {
            let call = read_call(item, at)?;
            prompt.say(Role::Assistant, vec![call]);
            Ok(())
        }
        Some("function_call_output") => {
            let id = string(item, "call_id", at)?;
            let name = prompt.called(id).unwrap_or_default().to_owned();
            let parts = parts(&item["output"], &format!("{at}.output"))?;
            let is_error = item["status"] == "incomplete";
            let id = id.to_owned();
            prompt.say(Role::User, vec![Part::Result { id, name, parts, is_error }]);
            Ok(())
        }
        Some("image_generation_call") => {
            let data = Source::Data(string(item, "result", at)?.to_owned());
            let format = item["output_format"].as_str().unwrap_or("png");
            let media = Media { mime: format!("image/{format}"), source: data, ..Media::default() };
            prompt.say(Role::Assistant, vec![Part::Media(media)]);
            Ok(())
        }
        Some("item_reference") => Err(bad(&format!("{at}.type"), STATELESS)),
        _ => Err(bad(
            &format!("{at}.type"),
            "message, reasoning, function_call or function_call_output: another provider's format \
             can't say anything else",
        )),
    }
}

fn string<'a>(item: &'a Value, name: &str, at: &str) -> Result<&'a str, Unreadable> {
    item[name].as_str().ok_or_else(|| bad(&format!("{at}.{name}"), "a string"))
}

fn read_message(prompt: &mut Prompt, message: &Value, at: &str) -> Result<(), Unreadable> {
    let parts = parts(&message["content"], &format!("{at}.content"))?;
    match message["role"].as_str() {
        Some("system" | "developer") => prompt.system.extend(parts),
        Some("user") => prompt.say(Role::User, parts),
        Some("assistant") => prompt.say(Role::Assistant, parts),
        _ => return Err(bad(&format!("{at}.role"), "system, developer, user or assistant")),
    }
    Ok(())
}

/// A thought that the client gives back. What this gateway put into one for want of another place is
/// taken out again.
fn thought(item: &Value, signatures: &mut BTreeMap<String, Signature>) -> Option<Part> {
    let encrypted = item["encrypted_content"].as_str().unwrap_or_default();
    if let Some(data) = encrypted.strip_prefix(REDACTED_TAG) {
        return Some(Part::Redacted { data: data.to_owned() });
    }
    if let Some(call) = encrypted.strip_prefix(CALL_TAG) {
        let Signature { family, text } = Signature::read(call, Family::Openai);
        if let Some((proof, id)) = text.split_once(':') {
            signatures.insert(id.to_owned(), Signature { family, text: proof.to_owned() });
        }
        return None;
    }
    let texts = |name: &str| {
        let list = item[name].as_array().into_iter().flatten();
        list.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n\n")
    };
    let text = Some(texts("summary")).filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| texts("content"));
    let signature = Signature::read(encrypted, Family::Openai);
    let signature = match signature.family {
        _ if encrypted.is_empty() => None,
        // The provider holds the content against the id.
        Family::Openai if !encrypted.contains(':') => {
            let id = item["id"].as_str().unwrap_or_default();
            Some(Signature { family: Family::Openai, text: format!("{id}:{encrypted}") })
        }
        Family::Openai | Family::Anthropic | Family::Gemini => Some(signature),
    };
    (signature.is_some() || !text.is_empty()).then_some(Part::Thought { text, signature })
}

fn read_call(item: &Value, at: &str) -> Result<Part, Unreadable> {
    let (id, name) = (string(item, "call_id", at)?, string(item, "name", at)?);
    let input = match &item["arguments"] {
        Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
        Value::String(text) => serde_json::from_str(text)
            .map_err(|_| bad(&format!("{at}.arguments"), "JSON in a string"))?,
        Value::Object(object) => Value::Object(object.clone()),
        _ => Value::Object(Map::new()),
    };
    Ok(Part::Call { id: id.to_owned(), name: name.to_owned(), input, signature: None })
}

/// A text with its cache marker; nothing for an empty one.
fn text(text: &str, item: &Value) -> Option<Part> {
    let cache = item.get("cache_control").filter(|cache| cache.is_object()).cloned();
    (!text.is_empty()).then(|| Part::Text { text: text.to_owned(), cache })
}

/// A string, or a list of parts; null and nothing are no parts. Empty texts are left out.
fn parts(content: &Value, at: &str) -> Result<Vec<Part>, Unreadable> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(words) => Ok(text(words, &Value::Null).into_iter().collect()),
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
    match item["type"].as_str() {
        Some("input_text" | "output_text" | "text") => Ok(text(string(item, "text", at)?, item)),
        Some("refusal") => Ok(text(string(item, "refusal", at)?, item)),
        Some("input_image") => {
            if let Some(id) = item["file_id"].as_str() {
                let source = Source::File(id.to_owned());
                return Ok(Some(Part::Media(Media {
                    mime: "image/*".into(),
                    source,
                    ..Media::default()
                })));
            }
            // Some clients send it as chat has it.
            let url = item["image_url"].as_str().or_else(|| item["image_url"]["url"].as_str());
            let url = url.ok_or_else(|| bad(&format!("{at}.image_url"), "a string"))?;
            Ok(Some(Part::Media(from_url(url, "", None))))
        }
        Some("input_file") => file(item, at).map(Some),
        Some("input_audio") => {
            let audio = &item["input_audio"];
            let data = string(audio, "data", &format!("{at}.input_audio"))?.to_owned();
            let mime = format!("audio/{}", audio["format"].as_str().unwrap_or("wav"));
            Ok(Some(Part::Media(Media { mime, source: Source::Data(data), ..Media::default() })))
        }
        _ => Err(bad(
            &format!("{at}.type"),
            "input_text, output_text, refusal, input_image, input_file or input_audio",
        )),
    }
}

fn file(item: &Value, at: &str) -> Result<Part, Unreadable> {
    let name = item["filename"].as_str().map(str::to_owned);
    if let Some(id) = item["file_id"].as_str() {
        let source = Source::File(id.to_owned());
        return Ok(Part::Media(Media { source, name, ..Media::default() }));
    }
    if let Some(url) = item["file_url"].as_str() {
        return Ok(Part::Media(from_url(url, "application/pdf", name)));
    }
    let data = item["file_data"].as_str();
    let data = data.ok_or_else(|| bad(at, "file_data, file_url or file_id"))?;
    if data.starts_with("data:") {
        return Ok(Part::Media(from_url(data, "application/pdf", name)));
    }
    // Bare base64.
    let source = Source::Data(data.to_owned());
    Ok(Part::Media(Media { mime: "application/pdf".into(), source, name, ..Media::default() }))
}

/// A data URL taken apart (RFC 2397), or an address of what is `usually` of that type.
fn from_url(url: &str, usually: &str, name: Option<String>) -> Media {
    let taken = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    let (mime, source) = match taken {
        Some((head, data)) => {
            (head.split(';').next().unwrap_or_default(), Source::Data(data.to_owned()))
        }
        None => ("", Source::Url(url.to_owned())),
    };
    let mime = if mime.is_empty() { usually } else { mime }.to_owned();
    Media { mime, source, name, ..Media::default() }
}

fn read_tools(prompt: &mut Prompt, body: &Value) -> Result<(), Unreadable> {
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        let at = format!("tools[{index}]");
        if tool["type"] != "function" {
            return Err(bad(
                &format!("{at}.type"),
                "function: only providers of this API have other tools",
            ));
        }
        prompt.tools.push(Tool {
            name: string(tool, "name", &at)?.to_owned(),
            description: tool["description"].as_str().map(str::to_owned),
            schema: tool.get("parameters").filter(|schema| schema.is_object()).cloned(),
            // Left out, it is "if the schema allows it" here, which nobody else knows.
            strict: tool["strict"].as_bool(),
            cache: tool.get("cache_control").filter(|cache| cache.is_object()).cloned(),
        });
    }
    Ok(())
}

/// Which tool must be called. Of a choice among some, the others are taken away.
fn choice(tools: &mut Vec<Tool>, value: &Value) -> Result<Option<Choice>, Unreadable> {
    let expected = "auto, none, required, a function or allowed functions";
    let named = |word: &str| match word {
        "auto" => Ok(Some(Choice::Auto)),
        "none" => Ok(Some(Choice::None)),
        "required" => Ok(Some(Choice::Any)),
        _ => Err(bad("tool_choice", expected)),
    };
    match (value, value["type"].as_str()) {
        (Value::Null, _) => Ok(None),
        (Value::String(word), _) => named(word),
        (_, Some("function")) => {
            Ok(Some(Choice::Named(string(value, "name", "tool_choice")?.to_owned())))
        }
        (_, Some("allowed_tools")) => {
            let allowed = value["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
            if allowed.iter().any(|tool| tool["type"] != "function") {
                return Err(bad("tool_choice.tools", "functions"));
            }
            tools.retain(|tool| allowed.iter().any(|one| one["name"] == tool.name.as_str()));
            named(value["mode"].as_str().unwrap_or("auto"))
        }
        _ => Err(bad("tool_choice", expected)),
    }
}

fn format(value: &Value) -> Result<Option<Format>, Unreadable> {
    match value["type"].as_str() {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Format::Json)),
        Some("json_schema") => {
            let name = value["name"].as_str().unwrap_or("answer").to_owned();
            let schema = value.get("schema").filter(|schema| schema.is_object());
            let schema = schema.ok_or_else(|| bad("text.format.schema", "an object"))?;
            let strict = value["strict"].as_bool();
            Ok(Some(Format::Schema { name, schema: schema.clone(), strict }))
        }
        Some(_) => Err(bad("text.format.type", "text, json_object or json_schema")),
    }
}

#[cfg(test)]
mod tests;
