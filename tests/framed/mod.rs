//! What tests of whole translations share: messages of the AWS event stream for tests that have their
//! payloads, and what of a client's stream is the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A line as a message: an object with the payload under the event's name, which stands in a chunk where
/// a model was invoked; after a word that says so, an exception, or an error, which has no payload.
pub fn wrapped(line: &str, invoked: bool) -> Vec<u8> {
    let (sort, json) = match line.split_once(' ') {
        Some((sort @ ("exception" | "error"), json)) => (sort, json),
        _ => ("event", line),
    };
    if invoked && sort == "event" {
        return message(
            ":event-type",
            "chunk",
            "event",
            &json!({ "bytes": STANDARD.encode(json) }),
        );
    }
    let object: Value = serde_json::from_str(json).unwrap();
    let (name, payload) = object.as_object().unwrap().iter().next().unwrap();
    let header = if sort == "exception" { ":exception-type" } else { ":event-type" };
    if sort == "error" {
        let text = payload["message"].as_str().unwrap();
        return frame(&[(":error-code", name), (":error-message", text), MESSAGE_ERROR], "");
    }
    message(header, name, sort, payload)
}

const MESSAGE_ERROR: (&str, &str) = (":message-type", "error");

fn message(header: &str, name: &str, sort: &str, payload: &Value) -> Vec<u8> {
    frame(&[(header, name), (":message-type", sort)], &payload.to_string())
}

fn frame(fields: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in fields {
        headers.push(name.len() as u8);
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let total = (16 + headers.len() + payload.len()) as u32;
    let mut out = [total.to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload.as_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

/// What is an answer of a stream, without its counts and terminators: a chat client's chunks with choices.
pub fn answer(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    let says = |line: &&str| {
        let terminal = [
            "message_start",
            "message_delta",
            "message_stop",
            "response.completed",
            "response.incomplete",
        ];
        line.starts_with("data: ")
            && !line.replace(' ', "").contains("\"choices\":[]")
            && !line.contains("[DONE]")
            && !line.contains("\"error\"")
            && !terminal.iter().any(|kind| line.contains(&format!("\"type\":\"{kind}\"")))
    };
    text.lines().filter(says).map(str::to_owned).collect()
}
