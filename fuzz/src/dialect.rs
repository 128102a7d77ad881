//! Answers in the client's dialect, judged by readers that know only what the dialect's own page says.

use std::collections::BTreeMap;

use firstbyte::llm::dialects::Dialect;
use firstbyte::llm::request::Surface;
use firstbyte::wire::json;
use serde_json::Value;

/// One event: its name, if it has one, and its data.
type Event<'a> = (Option<&'a str>, &'a str);

/// The events of a stream. Panics where it is no event stream of the plain kind that we write.
pub fn events(body: &[u8]) -> Vec<Event<'_>> {
    let text = std::str::from_utf8(body).expect("a stream is text");
    let mut events = Vec::new();
    for block in text.split_inclusive("\n\n") {
        let block = block.strip_suffix("\n\n").expect("every event is ended");
        let (mut name, mut data) = (None, None);
        for line in block.split('\n') {
            assert!(!line.contains('\r'), "a line end inside of an event: {block:?}");
            if let Some(value) = line.strip_prefix("event: ") {
                assert!(name.replace(value).is_none(), "{block:?}");
            } else if let Some(value) = line.strip_prefix("data: ") {
                assert!(data.replace(value).is_none(), "{block:?}");
            } else {
                assert!(line.starts_with(':'), "neither field nor comment: {block:?}");
            }
        }
        if let Some(data) = data {
            events.push((name, data));
        }
    }
    events
}

/// JSON by the one reader, or by the other where it knows less: numbers out of range, halves of
/// surrogates, depth.
fn json(text: &str) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(json::document(text.as_bytes()).is_ok(), "{error}: {text}");
            None
        }
    }
}

/// A stream of a good end is what the dialect calls a whole answer. `passed`: its provider speaks the
/// dialect itself, and the order of its events is the provider's own affair.
pub fn good_stream(surface: Surface, passed: bool, body: &[u8]) {
    match surface.dialect() {
        Dialect::Chat => good_chat_stream(surface, body),
        Dialect::Messages if passed => passed_messages_stream(body),
        Dialect::Messages => good_messages_stream(body),
        Dialect::Responses => good_responses_stream(body),
    }
}

fn good_chat_stream(surface: Surface, body: &[u8]) {
    let events = events(body);
    let (last, rest) = events.split_last().expect("a stream has a terminator");
    assert_eq!(*last, (None, "[DONE]"));
    let mut finished: BTreeMap<u64, u32> = BTreeMap::new();
    let mut calls: BTreeMap<(u64, u64), ()> = BTreeMap::new();
    let mut read_all = true;
    for (name, data) in rest {
        assert!(name.is_none() && *data != "[DONE]");
        let Some(chunk) = json(data) else {
            read_all = false;
            continue;
        };
        assert!(chunk.is_object() && chunk.get("error").is_none_or(Value::is_null), "{data}");
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().unwrap_or(0);
            let count = finished.entry(index).or_default();
            *count += u32::from(choice["finish_reason"].is_string());
            for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let place = (index, call["index"].as_u64().expect("a call has an index"));
                if calls.insert(place, ()).is_none() {
                    assert!(call["id"].is_string() && call["type"].is_string(), "{data}");
                    assert!(call["function"]["name"].is_string(), "{data}");
                }
            }
        }
    }
    if surface == Surface::Chat && read_all {
        assert!(finished.values().all(|count| *count == 1), "finish reasons: {finished:?}");
        for ((choice, call), ()) in &calls {
            assert!(*call == 0 || calls.contains_key(&(*choice, call - 1)), "{calls:?}");
        }
    }
}

fn passed_messages_stream(body: &[u8]) {
    let events = events(body);
    let (last, rest) = events.split_last().expect("a message has an end");
    assert_eq!(last.0, Some("message_stop"), "{last:?}");
    for (name, data) in rest {
        assert!(!matches!(name, None | Some("message_stop" | "error")), "{name:?}: {data}");
        json(data);
    }
}

fn good_messages_stream(body: &[u8]) {
    let (mut begun, mut over, mut told) = (false, false, false);
    let mut open: BTreeMap<u64, String> = BTreeMap::new();
    let mut next = 0;
    for (name, data) in events(body) {
        let name = name.expect("every event has a name");
        let Some(event) = json(data) else { return };
        assert!(!over, "an event behind the last one");
        assert_eq!(event["type"].as_str(), Some(name), "{data}");
        match name {
            "message_start" => {
                assert!(!std::mem::replace(&mut begun, true), "two heads");
                assert!(event["message"]["content"].as_array().is_some_and(Vec::is_empty));
            }
            "content_block_start" => {
                assert!(begun && !told, "{data}");
                let index = event["index"].as_u64().unwrap();
                assert_eq!(index, next, "blocks are numbered densely");
                next += 1;
                let kind = event["content_block"]["type"].as_str().unwrap().to_owned();
                open.insert(index, kind);
            }
            "content_block_delta" => {
                let kind = &open[&event["index"].as_u64().unwrap()];
                let delta = event["delta"]["type"].as_str().unwrap();
                let fits = match delta {
                    "text_delta" | "citations_delta" => kind == "text",
                    "thinking_delta" | "signature_delta" => kind == "thinking",
                    "input_json_delta" => kind.ends_with("tool_use"),
                    _ => true,
                };
                assert!(fits, "{delta} in {kind}");
            }
            "content_block_stop" => {
                assert!(open.remove(&event["index"].as_u64().unwrap()).is_some(), "{data}");
            }
            "message_delta" => {
                assert!(begun && open.is_empty(), "{open:?}");
                told |= event["delta"]["stop_reason"].is_string();
            }
            "message_stop" => {
                assert!(told && open.is_empty());
                over = true;
            }
            "error" => panic!("an error in a good stream: {data}"),
            _ => {}
        }
    }
    assert!(over, "a message ends with message_stop");
}

/// Its grammar is the writer's own affair; here only that it ends as it says.
fn good_responses_stream(body: &[u8]) {
    let events = events(body);
    let Some((last, rest)) = events.split_last() else { return };
    let terminal = |name: Option<&str>| {
        matches!(name, Some("response.completed" | "response.incomplete" | "response.failed"))
    };
    assert!(terminal(last.0), "{last:?}");
    for (name, data) in rest {
        assert!(!terminal(*name) && *name != Some("error"), "{data}");
        json(data);
    }
}

/// A stream that ends badly says so, once, at its end, and has no terminator.
pub fn bad_stream(surface: Surface, body: &[u8]) {
    let events = events(body);
    let (last, rest) = events.split_last().expect("a bad end is told");
    let is_error = |event: &Event<'_>| match surface.dialect() {
        Dialect::Chat => {
            json(event.1).is_some_and(|value| value.get("error").is_some_and(Value::is_object))
        }
        Dialect::Messages => event.0 == Some("error"),
        Dialect::Responses => json(event.1).is_some_and(|value| {
            value.get("error").is_some()
                || value["type"] == "error"
                || value["type"] == "response.failed"
        }),
    };
    assert!(is_error(last), "the last event is no error: {last:?}");
    for event in rest {
        assert!(event.1 != "[DONE]" && event.0 != Some("message_stop"), "{event:?}");
        assert!(event.0 != Some("response.completed"), "{event:?}");
    }
}

/// A whole answer that is good.
pub fn good_whole(surface: Surface, passed: bool, body: &[u8]) {
    let text = std::str::from_utf8(body).expect("JSON is text");
    if surface.dialect() == Dialect::Responses && text.is_empty() {
        return;
    }
    let Some(value) = json(text) else { return };
    assert!(value.is_object(), "{text}");
    match surface {
        Surface::Chat => {
            let choices = value["choices"].as_array().expect("choices");
            assert!(!choices.is_empty() && value.get("error").is_none_or(Value::is_null), "{text}");
        }
        Surface::Messages => {
            assert!(passed || value["type"] == "message", "{text}");
            assert!(passed || value["content"].is_array(), "{text}");
        }
        _ => {}
    }
}

/// An error in the dialect's own shape.
pub fn error_body(surface: Surface, body: &[u8]) {
    let value: Value = serde_json::from_slice(body).expect("an error is JSON");
    assert!(value["error"]["message"].is_string(), "{value}");
    if surface.dialect() == Dialect::Messages {
        assert_eq!(value["type"], "error");
    }
}
