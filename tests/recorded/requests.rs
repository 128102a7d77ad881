//! Recorded requests of chat clients, written in another format and read back: what that format has a
//! place for is still there, in order. Recorded requests in Cohere's own format are written as they were.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use firstbyte::llm::dialects::chat_prompt;
use firstbyte::llm::prompt::{Choice, Format, Part, Prompt, Role};
use firstbyte::llm::providers::{cohere, mistral, ollama};

use super::{folder, rows};

/// A model of Cohere's that thinks.
const THINKS: &str = "command-a-reasoning-08-2025";

/// The recorded requests to an API, with their files.
fn requests(api: &str) -> Vec<(String, Value)> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut found = Vec::new();
    for row in rows(&folder, "INDEX.jsonl") {
        let Some(file) = row["request_file"].as_str().filter(|_| row["api"] == api) else {
            continue;
        };
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        found.push((file.to_owned(), serde_json::from_str(&text).unwrap()));
    }
    found
}

/// Writes each request that is one of the dialect, and hands the prompt on with its body; how many were
/// written, and how many can't be.
fn each(
    write: impl Fn(&Prompt) -> Option<Value>,
    check: impl Fn(&str, Prompt, Value),
) -> (usize, usize) {
    let (mut written, mut unsendable) = (0, 0);
    for (file, chat) in requests("openai-chat") {
        let Ok(prompt) = chat_prompt::read(&chat) else { continue };
        // Pictures that a tool gave stand in the message after its own.
        let moved = prompt.turns.iter().flat_map(|turn| &turn.parts).any(|part| match part {
            Part::Result { parts, .. } => parts.iter().any(|part| matches!(part, Part::Media(_))),
            _ => false,
        });
        match write(&prompt) {
            Some(_) if moved => {}
            Some(body) => {
                written += 1;
                check(&file, prompt, body);
            }
            None => unsendable += 1,
        }
    }
    (written, unsendable)
}

/// What no other format has a place for goes, and so does the order of kinds within a message.
fn plain(mut prompt: Prompt, params: &[&str]) -> Prompt {
    prompt.user = None;
    prompt.parallel = None;
    prompt.effort = None;
    prompt.params.retain(|name, _| params.contains(&name.as_str()));
    for tool in &mut prompt.tools {
        (tool.strict, tool.cache) = (None, None);
        tool.schema.get_or_insert_with(|| json!({ "type": "object", "properties": {} }));
    }
    if let Some(Format::Schema { name, strict, .. }) = &mut prompt.format {
        (*name, *strict) = (String::from("answer"), None);
    }
    bare(&mut prompt.system);
    for turn in &mut prompt.turns {
        bare(&mut turn.parts);
        let rank = |part: &Part| match part {
            Part::Result { .. } | Part::Thought { .. } => 0,
            Part::Call { .. } => 2,
            _ => 1,
        };
        turn.parts.sort_by_key(rank);
    }
    prompt.turns.retain(|turn| !turn.parts.iter().all(|part| matches!(part, Part::Thought { .. })));
    prompt
}

fn bare(parts: &mut [Part]) {
    for part in parts {
        match part {
            Part::Text { cache, .. } => *cache = None,
            Part::Thought { signature, .. } | Part::Call { signature, .. } => *signature = None,
            Part::Result { parts, .. } => bare(parts),
            Part::Media(_) | Part::Redacted { .. } => {}
        }
    }
}

/// Moves a field to another name.
fn rename(body: &mut Value, from: &str, to: &str) {
    if let Some(value) = body.as_object_mut().unwrap().remove(from) {
        body[to] = value;
    }
}

/// A body of Cohere's, as a chat client would have sent it.
fn chat_of_cohere(mut body: Value) -> Value {
    for (from, to) in [("p", "top_p"), ("k", "top_k"), ("stop_sequences", "stop")] {
        rename(&mut body, from, to);
    }
    match body["tool_choice"].as_str() {
        Some("REQUIRED") => body["tool_choice"] = json!("required"),
        Some("NONE") => body["tool_choice"] = json!("none"),
        _ => {}
    }
    if let Some(schema) = body["response_format"]["json_schema"].as_object() {
        let schema = json!({ "schema": schema });
        body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
    }
    for message in body["messages"].as_array_mut().unwrap() {
        rename(message, "tool_plan", "reasoning_content");
        let Some(parts) = message["content"].as_array_mut() else { continue };
        let documents: Vec<Value> =
            parts.iter().map(|part| part["document"]["data"].clone()).collect();
        let thoughts: Vec<Value> =
            parts.iter().filter(|part| part["type"] == "thinking").cloned().collect();
        parts.retain(|part| part["type"] != "thinking");
        match documents.as_slice() {
            [one] if !one.is_null() => message["content"] = json!(one.to_string()),
            [first, ..] if !first.is_null() => {
                message["content"] = json!(Value::Array(documents).to_string());
            }
            _ => {}
        }
        if !thoughts.is_empty() {
            message["thinking_blocks"] = Value::Array(thoughts);
        }
    }
    body
}

/// A result that is JSON, without its spaces, and without a list around one document.
fn compact(prompt: &mut Prompt) {
    let results = prompt.turns.iter_mut().flat_map(|turn| &mut turn.parts);
    for part in results {
        let Part::Result { parts, .. } = part else { continue };
        for part in parts {
            let Part::Text { text, .. } = part else { continue };
            match serde_json::from_str::<Value>(text) {
                Ok(Value::Array(list)) if list.len() == 1 => *text = list[0].to_string(),
                Ok(value) if value.is_object() || value.is_array() => *text = value.to_string(),
                _ => {}
            }
        }
    }
}

#[test]
fn requests_are_written_in_coheres_format_without_loss() {
    const PARAMS: &[&str] = &["temperature", "top_p", "top_k", "seed", "logprobs"];
    let reduced = |mut prompt: Prompt| {
        if let Some(Choice::Named(name)) = prompt.choice.take_if(|c| matches!(c, Choice::Named(_)))
        {
            prompt.tools.retain(|tool| tool.name == name);
            prompt.choice = Some(Choice::Any);
        }
        prompt.choice = prompt.choice.filter(|c| *c != Choice::Auto && !prompt.tools.is_empty());
        for (name, most) in [("temperature", 1.0), ("top_p", 0.99)] {
            if let Some(value) = prompt.params.get_mut(name)
                && value.as_f64().unwrap() > most
            {
                *value = json!(most);
            }
        }
        compact(&mut prompt);
        plain(prompt, PARAMS)
    };
    let write = |prompt: &Prompt| cohere::body::write(prompt, THINKS).ok().map(Value::Object);
    let (written, unsendable) = each(write, |file, prompt, body| {
        let back = chat_prompt::read(&chat_of_cohere(body)).unwrap();
        assert_eq!(reduced(back), reduced(prompt), "{file}");
    });
    println!("written for cohere: {written}, unsendable: {unsendable}");
    assert!(written >= 4 * unsendable, "{written} {unsendable}");
    // Its own clients' requests come out as they went in.
    for (file, own) in requests("cohere-v2-chat") {
        let prompt = chat_prompt::read(&chat_of_cohere(own.clone())).unwrap();
        let body = Value::Object(cohere::body::write(&prompt, THINKS).unwrap());
        let back = chat_prompt::read(&chat_of_cohere(body.clone())).unwrap();
        assert_eq!(reduced(back), reduced(prompt), "{file}");
        for name in ["tools", "tool_choice", "documents", "stop_sequences", "temperature"] {
            assert_eq!(body[name], own[name], "{file}: {name}");
        }
    }
}

/// A body of Ollama's, as a chat client would have sent it.
fn chat_of_ollama(mut body: Value) -> Value {
    let options = body.as_object_mut().unwrap().remove("options");
    for (name, value) in options.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let name = if name == "num_predict" { "max_tokens" } else { name };
        body[name] = value.clone();
    }
    match body["format"].clone() {
        Value::Null => {}
        Value::String(_) => body["response_format"] = json!({ "type": "json_object" }),
        schema => {
            let schema = json!({ "schema": schema });
            body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
        }
    }
    for message in body["messages"].as_array_mut().unwrap() {
        rename(message, "thinking", "reasoning_content");
        let images = message.as_object_mut().unwrap().remove("images");
        let Some(Value::Array(images)) = images else { continue };
        let mut parts = vec![json!({ "type": "text", "text": message["content"] })];
        for image in &images {
            let url = format!("data:image/x;base64,{}", image.as_str().unwrap());
            parts.push(json!({ "type": "image_url", "image_url": { "url": url } }));
        }
        message["content"] = Value::Array(parts);
    }
    body
}

/// Texts in a row are one, and pictures follow.
fn joined(parts: &mut Vec<Part>) {
    let mut texts = Vec::new();
    let mut rest = Vec::new();
    for part in parts.drain(..) {
        match part {
            Part::Text { text, .. } => texts.push(text),
            Part::Media(mut media) => {
                media.mime = String::from("image/x");
                rest.push(Part::Media(media));
            }
            other => rest.push(other),
        }
    }
    if !texts.is_empty() {
        let at =
            rest.iter().take_while(|p| matches!(p, Part::Result { .. } | Part::Thought { .. }));
        let at = at.count();
        rest.insert(at, Part::Text { text: texts.join("\n\n"), cache: None });
    }
    *parts = rest;
}

#[test]
fn requests_are_written_in_ollamas_format_without_loss() {
    const PARAMS: &[&str] =
        &["temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"];
    let reduced = |mut prompt: Prompt| {
        if prompt.choice == Some(Choice::None) {
            prompt.tools.clear();
        }
        prompt.choice = None;
        let mut prompt = plain(prompt, PARAMS);
        for tool in &mut prompt.tools {
            let schema = tool.schema.as_mut().unwrap();
            for (name, value) in [("type", json!("object")), ("properties", json!({}))] {
                if schema.get(name).is_none() {
                    schema[name] = value;
                }
            }
        }
        joined(&mut prompt.system);
        for turn in &mut prompt.turns {
            joined(&mut turn.parts);
            for part in &mut turn.parts {
                if let Part::Result { parts, .. } = part {
                    joined(parts);
                }
            }
            // Of several thoughts one is left.
            if turn.role == Role::Assistant {
                turn.parts.retain(|part| !matches!(part, Part::Thought { .. }));
            }
        }
        prompt
    };
    let write = |prompt: &Prompt| ollama::body::write(prompt, "qwen3").ok().map(Value::Object);
    let (written, unsendable) = each(write, |file, prompt, body| {
        assert!(body.get("keep_alive").is_none() && body.get("stream").is_none());
        let back = chat_prompt::read(&chat_of_ollama(body)).unwrap();
        assert_eq!(reduced(back), reduced(prompt), "{file}");
    });
    println!("written for ollama: {written}, unsendable: {unsendable}");
    assert!(written >= 4 * unsendable, "{written} {unsendable}");
}

#[test]
fn requests_are_written_in_mistrals_format_without_loss() {
    const PARAMS: &[&str] =
        &["temperature", "top_p", "n", "presence_penalty", "frequency_penalty", "seed"];
    // Ids by their order, and without what stands between a result and the user's next word.
    let reduced = |prompt: Prompt| {
        let mut prompt = plain(prompt, PARAMS);
        let mut ids = BTreeMap::new();
        let mut turns: Vec<firstbyte::llm::prompt::Turn> = Vec::new();
        for mut turn in std::mem::take(&mut prompt.turns) {
            let ok = [Part::Text { text: "OK".into(), cache: None }];
            if turn.parts == ok && turn.role == Role::Assistant {
                continue;
            }
            for part in &mut turn.parts {
                let (Part::Call { id, .. } | Part::Result { id, .. }) = part else { continue };
                let next = ids.len();
                *id = ids.entry(id.clone()).or_insert(next).to_string();
            }
            turn.parts.retain(|part| !matches!(part, Part::Thought { .. }));
            match turns.last_mut() {
                Some(last) if last.role == turn.role => last.parts.extend(turn.parts),
                _ => turns.push(turn),
            }
        }
        prompt.turns = turns;
        if let Some(value) = prompt.params.get_mut("temperature")
            && value.as_f64().unwrap() > 1.5
        {
            *value = json!(1.5);
        }
        prompt
    };
    let model = "mistral-large-latest";
    let write = |prompt: &Prompt| mistral::body::write(prompt, model).ok().map(Value::Object);
    let (written, unsendable) = each(write, |file, prompt, mut body| {
        rename(&mut body, "random_seed", "seed");
        for message in body["messages"].as_array_mut().unwrap() {
            for part in message["content"].as_array_mut().into_iter().flatten() {
                if part["type"] == "document_url" {
                    let (url, name) = (&part["document_url"], &part["document_name"]);
                    *part =
                        json!({ "type": "file", "file": { "file_data": url, "filename": name } });
                }
            }
        }
        let back = chat_prompt::read(&body).unwrap();
        assert_eq!(reduced(back), reduced(prompt), "{file}");
    });
    println!("written for mistral: {written}, unsendable: {unsendable}");
    assert!(written >= 10 * unsendable, "{written} {unsendable}");
}
