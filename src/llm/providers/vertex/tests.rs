//! Requests to Vertex, and whose answers come back.

use serde_json::json;

use super::*;
use crate::base::secret::Secret;
use crate::base::tick::Ms;
use crate::llm::dialects::Dialect;
use crate::llm::provider::Badge;
use crate::llm::sink::Told;

const CHAT: &str =
    r#"{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;

/// Head and body of what is sent.
fn sent(model: &str, badge: Badge, chat: &str) -> Result<(String, Value), Fault> {
    let mut ask = Ask::read(Surface::Chat, chat.as_bytes()).unwrap();
    ask.envelope.method = "POST";
    ask.envelope.fields.push(("openai-beta", b"x".to_vec()));
    ask.envelope.fields.push(("traceparent", b"00-1".to_vec()));
    let key = Secret::new("ya29.token");
    let (authority, path) = ("host:1", "/v1/projects/p/locations/l");
    let site = Site { authority, path, key: Some(&key), badge, model, ..Site::default() };
    let mut out = Buf::new();
    Vertex::send(&ask, chat.as_bytes(), &site, UnixMs(0), &mut out)?;
    let sent = String::from_utf8(out.as_slice().to_vec()).unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
    Ok((head.to_owned(), serde_json::from_str(body).unwrap()))
}

#[test]
fn each_publisher_has_its_address() {
    let whole = CHAT.replace("true", "false");
    for (model, place) in [
        ("gemini-2.5-flash", "/publishers/google/models/gemini-2.5-flash:G"),
        ("publishers/google/models/g", "/publishers/google/models/g:G"),
        ("endpoints/123", "/endpoints/123:G"),
        ("claude-sonnet-4@20250514", "/publishers/anthropic/models/claude-sonnet-4@20250514:C"),
        ("publishers/anthropic/models/mine", "/publishers/anthropic/models/mine:C"),
    ] {
        let (stream, once) = (
            place
                .replace(":G", ":streamGenerateContent?alt=sse")
                .replace(":C", ":streamRawPredict"),
            place.replace(":G", ":generateContent").replace(":C", ":rawPredict"),
        );
        for (chat, place) in [(CHAT, stream), (&whole, once)] {
            let (head, _) = sent(model, Badge::Token, chat).unwrap();
            let line = format!("POST /v1/projects/p/locations/l{place} HTTP/1.1\r\n");
            assert!(head.starts_with(&line), "{model}: {head}");
        }
    }
    for model in [
        "publishers/meta/models/llama",
        "publishers/anthropic/../../x",
        "a/b",
        "m:predict",
        "m?x",
        "m%2f",
        "",
    ] {
        assert_eq!(sent(model, Badge::Token, CHAT).unwrap_err(), Fault::Unsendable, "{model}");
    }
}

#[test]
fn tokens_and_keys_have_their_fields() {
    let (head, _) = sent("claude-x", Badge::Token, CHAT).unwrap();
    assert!(head.contains("\r\nauthorization: Bearer ya29.token\r\n"), "{head}");
    assert!(head.contains("\r\naccept: text/event-stream\r\n"), "{head}");
    assert!(head.contains("\r\ntraceparent: 00-1\r\n"), "{head}");
    for absent in ["x-goog-api-key", "anthropic-version", "openai-beta", "x-api-key"] {
        assert!(!head.contains(absent), "{absent}: {head}");
    }
    let (head, _) = sent("gemini-x", Badge::Usual, CHAT).unwrap();
    assert!(head.contains("\r\nx-goog-api-key: ya29.token\r\n"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
}

#[test]
fn betas_go_to_claude_from_its_own_clients() {
    for (surface, model, passed) in [
        (Surface::Messages, "claude-x", true),
        (Surface::Messages, "gemini-x", false),
        (Surface::Chat, "claude-x", false),
    ] {
        let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
        let mut ask = Ask::read(surface, body.as_bytes()).unwrap();
        ask.envelope.anthropic.push(("anthropic-version", b"2023-06-01".to_vec()));
        ask.envelope.anthropic.push(("anthropic-beta", b"b".to_vec()));
        let mut out = Buf::new();
        let site = Site { authority: "h", model, ..Site::default() };
        Vertex::send(&ask, body.as_bytes(), &site, UnixMs(0), &mut out).unwrap();
        let sent = String::from_utf8(out.as_slice().to_vec()).unwrap();
        assert_eq!(sent.contains("\r\nanthropic-beta: b\r\n"), passed, "{sent}");
        assert!(!sent.contains("anthropic-version"), "{sent}");
    }
}

#[test]
fn each_publisher_has_its_body() {
    let (_, body) = sent("gemini-x", Badge::Token, CHAT).unwrap();
    let want = json!({
        "contents": [{ "role": "user", "parts": [{ "text": "Hi" }] }],
        "generationConfig": { "maxOutputTokens": 9 },
    });
    assert_eq!(body, want);
    let (_, body) = sent("claude-x", Badge::Token, CHAT).unwrap();
    let want = json!({
        "anthropic_version": "vertex-2023-10-16", "stream": true, "max_tokens": 9,
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Hi" }] }],
    });
    assert_eq!(body, want);
}

#[test]
fn a_client_of_the_messages_api_keeps_what_it_said() {
    let own = r#"{"model":"m","models":["n"],"max_tokens":9,"odd":[1],"messages":[]}"#;
    let ask = Ask::read(Surface::Messages, own.as_bytes()).unwrap();
    let body = claude(&ask, own.as_bytes(), "claude-x").unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let want = json!({
        "max_tokens": 9, "odd": [1], "messages": [],
        "anthropic_version": "vertex-2023-10-16", "stream": false,
    });
    assert_eq!(body, want);
}

/// What a chat client gets of these events, or of the one whole answer.
fn told(events: &[Value], whole: bool) -> Result<String, Fault> {
    let (mut adapter, mut told) = (Vertex::default(), Told::default());
    if whole {
        told.gather();
    }
    let (mut out, mut count) = (Buf::new(), 0);
    let (shown, id, seconds) = ("shown", "req", 9);
    let mut sink = Sink { out: &mut out, shown, events: &mut count, id, seconds, told: &mut told };
    for event in events {
        let bytes = event.to_string().into_bytes();
        if whole {
            adapter.whole(&bytes, &mut sink)?;
        } else {
            adapter.feed(&bytes, &mut sink)?;
        }
    }
    if !whole {
        adapter.close(false, &mut sink)?;
    }
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

fn claudes() -> Vec<Value> {
    let text = json!({ "type": "text", "text": "" });
    let delta = json!({ "type": "text_delta", "text": "from claude" });
    vec![
        json!({ "type": "vertex_event" }),
        json!({ "type": "message_start", "message": { "id": "msg_vrtx_1", "usage": {} } }),
        json!({ "type": "content_block_start", "index": 0, "content_block": text }),
        json!({ "type": "vertex_event" }),
        json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": {} }),
        json!({ "type": "message_stop" }),
    ]
}

fn geminis() -> Value {
    let parts = json!([{ "text": "from gemini" }]);
    json!({
        "candidates": [{ "content": { "role": "model", "parts": parts }, "finishReason": "STOP" }],
        "createTime": "x", "usageMetadata": { "trafficType": "ON_DEMAND" },
    })
}

#[test]
fn the_first_event_tells_whose_answer_it_is() {
    let claude = told(&claudes(), false).unwrap();
    assert!(claude.contains("from claude") && claude.ends_with("data: [DONE]\n\n"), "{claude}");
    assert!(claude.contains("msg_vrtx_1"), "{claude}");
    let gemini = told(&[geminis()], false).unwrap();
    assert!(gemini.contains("from gemini") && gemini.ends_with("data: [DONE]\n\n"), "{gemini}");
    let content = json!([{ "type": "text", "text": "from claude" }]);
    let whole = json!({ "type": "message", "id": "m", "content": content, "stop_reason": "end_turn", "usage": {} });
    assert!(told(&[whole], true).unwrap().contains("from claude"));
    assert!(told(&[geminis()], true).unwrap().contains("from gemini"));
    // Cut anywhere, or never begun, it is a bad end.
    for count in 0..claudes().len() {
        assert_eq!(told(&claudes()[..count], false), Err(Fault::Truncated), "{count}");
    }
}

#[test]
fn a_client_of_the_messages_api_sees_no_event_of_the_server() {
    let (mut adapter, mut told) = (Vertex::default(), Told::new(Dialect::Messages));
    let (mut out, mut count) = (Buf::new(), 0);
    let (shown, id, seconds) = ("shown", "req", 9);
    let mut sink = Sink { out: &mut out, shown, events: &mut count, id, seconds, told: &mut told };
    for event in claudes() {
        adapter.feed(event.to_string().as_bytes(), &mut sink).unwrap();
    }
    adapter.close(false, &mut sink).unwrap();
    let out = String::from_utf8(out.as_slice().to_vec()).unwrap();
    assert!(out.contains("from claude") && out.contains("message_stop"), "{out}");
    assert!(!out.contains("vertex_event"), "{out}");
}

#[test]
fn errors_of_both_shapes_are_read() {
    let google =
        json!({ "error": { "code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED" } });
    let anthropic = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
    for event in [&google, &anthropic] {
        let mut events = claudes()[..2].to_vec();
        events.push(event.clone());
        assert_eq!(told(&events, false), Err(Fault::ErrorEvent));
        assert_eq!(told(std::slice::from_ref(event), false), Err(Fault::ErrorEvent));
    }
    let precondition =
        json!({ "error": { "code": 400, "message": "m", "status": "FAILED_PRECONDITION" } });
    let too_long = json!({ "type": "error", "error": { "type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum" } });
    for (status, body, fault) in [
        (429, google.to_string(), Fault::RateLimited),
        (429, format!("[{google}]"), Fault::RateLimited),
        (529, anthropic.to_string(), Fault::Unavailable),
        (400, precondition.to_string(), Fault::Credential),
        (400, too_long.to_string(), Fault::Context),
        (401, String::from("{}"), Fault::Credential),
        (404, String::from("<!DOCTYPE html>"), Fault::NotFound),
    ] {
        let (body, retry_after) = (body.as_bytes(), Some(Ms(7)));
        let refusal =
            Refusal { status, retry_after, body, surface: Surface::Chat, ..Refusal::default() };
        let failure = Vertex::refuse(&refusal).failure;
        assert_eq!((failure.fault, failure.retry_after), (fault, Some(Ms(7))), "{body:?}");
    }
    // A bare error in the middle of either stream.
    for first in [json!({ "type": "vertex_event" }), json!({ "candidates": [] })] {
        let (mut adapter, mut told) = (Vertex::default(), Told::default());
        let (mut out, mut count) = (Buf::new(), 0);
        let (shown, id, seconds) = ("shown", "req", 9);
        let mut sink =
            Sink { out: &mut out, shown, events: &mut count, id, seconds, told: &mut told };
        adapter.feed(first.to_string().as_bytes(), &mut sink).unwrap();
        let line = google.to_string();
        assert_eq!(adapter.stray(line.as_bytes(), &mut sink), Err(Fault::ErrorEvent));
        assert_eq!(adapter.said().unwrap().message, "Quota");
        assert_eq!(adapter.stray(b"retry", &mut sink), Ok(Mark::Idle));
    }
}
