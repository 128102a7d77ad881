//! Responses of Gemini, and what a chat client gets of them.

use serde_json::json;

use super::*;
use crate::base::secret::Secret;
use crate::llm::sink::Told;

/// What a client was told.
#[derive(Debug, Default)]
struct Seen {
    text: String,
    reasoning: String,
    calls: Vec<(String, Tree)>,
    finish: Vec<String>,
    usage: Tree,
}

fn play(
    tell: impl FnOnce(&mut Gemini, &mut Sink<'_>) -> Result<(), Fault>,
) -> (Seen, Result<(), Fault>) {
    let (mut adapter, mut told) = (Gemini::default(), Told::default());
    let (mut out, mut events) = (Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    let end = tell(&mut adapter, &mut sink);
    (seen(std::str::from_utf8(out.as_slice()).unwrap()), end)
}

fn streamed(events: &[Tree]) -> (Seen, Result<(), Fault>) {
    play(|adapter, sink| {
        for event in events {
            adapter.feed(event.to_string().as_bytes(), sink)?;
        }
        adapter.close(true, sink)
    })
}

fn seen(out: &str) -> Seen {
    let mut seen = Seen::default();
    let mut arguments: Vec<(String, String)> = Vec::new();
    for data in out.split_terminator("\n\n").filter_map(|block| block.strip_prefix("data: ")) {
        if data == "[DONE]" {
            continue;
        }
        let chunk: Tree = serde_json::from_str(data).unwrap();
        assert_eq!(chunk["model"], "shown");
        if !chunk["usage"].is_null() {
            seen.usage = chunk["usage"].clone();
        }
        for choice in chunk["choices"].as_array().unwrap() {
            let delta = &choice["delta"];
            seen.text += delta["content"].as_str().unwrap_or_default();
            seen.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let index = call["index"].as_u64().unwrap() as usize;
                if let Some(name) = call["function"]["name"].as_str() {
                    assert!(!call["id"].as_str().unwrap().is_empty());
                    assert_eq!(index, arguments.len());
                    arguments.push((name.to_owned(), String::new()));
                }
                arguments[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
            }
            if let Some(finish) = choice["finish_reason"].as_str() {
                seen.finish.push(finish.to_owned());
            }
        }
    }
    let parse = |(name, text): (String, String)| (name, serde_json::from_str(&text).unwrap());
    seen.calls = arguments.into_iter().map(parse).collect();
    seen
}

fn event(parts: &[Tree], finish: Option<&str>) -> Tree {
    let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({ "candidates": [candidate], "responseId": "r", "modelVersion": "gemini-x" })
}

#[test]
fn text_thoughts_and_counts_go_out_in_their_places() {
    let counts = json!({
        "promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 2, "toolUsePromptTokenCount": 1
    });
    let mut last = event(&[json!({ "text": "there" })], Some("STOP"));
    last["usageMetadata"] = counts;
    let thought = json!({ "text": "hm", "thought": true });
    let (seen, end) = streamed(&[event(&[thought, json!({ "text": "Hi " })], None), last]);
    assert_eq!(end, Ok(()));
    assert_eq!((seen.text.as_str(), seen.reasoning.as_str()), ("Hi there", "hm"));
    assert_eq!(seen.finish, ["stop"]);
    assert_eq!(seen.usage["prompt_tokens"], 6);
    assert_eq!(seen.usage["completion_tokens"], 10);
    assert_eq!(seen.usage["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(seen.usage["prompt_tokens_details"]["cached_tokens"], 2);
}

#[test]
fn calls_come_whole_and_end_as_calls() {
    let call = |name: &str, args: Tree| json!({ "functionCall": { "name": name, "args": args } });
    let bare = json!({ "functionCall": { "name": "c" } });
    let both = [call("a", json!({ "city": "Köln" })), call("b", json!({}))];
    let (seen, end) = streamed(&[event(&both, None), event(&[bare], Some("STOP"))]);
    assert_eq!(end, Ok(()));
    assert_eq!(
        seen.calls,
        [("a".into(), json!({ "city": "Köln" })), ("b".into(), json!({})), ("c".into(), json!({}))]
    );
    assert_eq!(seen.finish, ["tool_calls"]);
}

#[test]
fn streamed_arguments_are_put_together() {
    let piece = |call: Tree| event(&[json!({ "functionCall": call })], None);
    let at = |path: &str, kind: &str, value: Tree| {
        let arg = json!({ "jsonPath": path, kind: value, "willContinue": true });
        piece(json!({ "partialArgs": [arg], "willContinue": true }))
    };
    let (seen, end) = streamed(&[
        piece(json!({ "name": "f", "willContinue": true })),
        at("$.city", "stringValue", json!("Par")),
        at("$.city", "stringValue", json!("is")),
        at("$.stops[1].n", "numberValue", json!(2)),
        at("$['odd']", "boolValue", json!(true)),
        piece(json!({})),
        event(&[json!({ "text": "" })], Some("STOP")),
    ]);
    assert_eq!(end, Ok(()));
    let arguments = json!({ "city": "Paris", "stops": [null, { "n": 2 }], "odd": true });
    assert_eq!(seen.calls, [("f".into(), arguments)]);
    assert_eq!(seen.finish, ["tool_calls"]);
}

#[test]
fn a_path_cannot_ask_for_much_memory() {
    let far = json!({ "jsonPath": "$.a[999999999]", "numberValue": 1 });
    let deep = json!({ "jsonPath": format!("${}", ".a".repeat(10_000)), "numberValue": 1 });
    let call = json!({ "name": "f", "partialArgs": [far, deep] });
    let (seen, end) = streamed(&[event(&[json!({ "functionCall": call })], Some("STOP"))]);
    assert_eq!(end, Ok(()));
    assert!(seen.calls[0].1.to_string().len() < 1000);
}

#[test]
fn reasons_to_stop() {
    for (reason, expected) in [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
        ("A_NEW_ONE", "stop"),
    ] {
        let (seen, end) = streamed(&[event(&[json!({ "text": "x" })], Some(reason))]);
        assert_eq!((end, seen.finish), (Ok(()), vec![String::from(expected)]), "{reason}");
    }
    // A model that says STOP in each event: the last word counts.
    let text = |text: &str| event(&[json!({ "text": text })], Some("STOP"));
    let (seen, _) = streamed(&[text("a"), text("b"), event(&[], Some("RECITATION"))]);
    assert_eq!((seen.text.as_str(), seen.finish), ("ab", vec![String::from("content_filter")]));
}

#[test]
fn a_blocked_prompt_is_an_answer() {
    let (seen, end) = streamed(&[json!({ "promptFeedback": { "blockReason": "SAFETY" } })]);
    assert_eq!(end, Ok(()));
    assert_eq!((seen.text.as_str(), seen.finish), ("", vec![String::from("content_filter")]));
}

#[test]
fn a_stream_that_stops_short_is_truncated() {
    let first = event(&[json!({ "text": "Hi" })], None);
    assert_eq!(streamed(std::slice::from_ref(&first)).1, Err(Fault::Truncated));
    assert_eq!(streamed(&[]).1, Err(Fault::Truncated));
    let mut other = event(&[json!({ "text": "Ho" })], Some("STOP"));
    other["candidates"][0]["index"] = json!(1);
    assert_eq!(streamed(&[first, other]).1, Err(Fault::Truncated), "one of two candidates");
}

#[test]
fn an_error_in_the_stream_is_one() {
    let error = json!({ "error": { "code": 503, "message": "busy", "status": "UNAVAILABLE" } });
    let (_, end) = play(|adapter, sink| {
        let fed = adapter.feed(error.to_string().as_bytes(), sink);
        assert_eq!(adapter.said().unwrap().message, "busy");
        fed.map(|_| ())
    });
    assert_eq!(end, Err(Fault::ErrorEvent));
    assert_eq!(streamed(&[json!([])]).1, Err(Fault::BadFrame));
    assert_eq!(streamed(&[json!({ "candidates": [7] })]).1, Err(Fault::BadFrame));
}

#[test]
fn a_whole_answer_is_one_response_or_a_list_of_them() {
    let response = event(&[json!({ "text": "Hi" })], Some("STOP"));
    for body in [response.to_string(), json!([event(&[], None), response]).to_string()] {
        let (seen, end) = play(|adapter, sink| adapter.whole(body.as_bytes(), sink));
        assert_eq!((end, seen.text.as_str()), (Ok(()), "Hi"), "{body}");
        let (seen, end) = play(|adapter, sink| {
            adapter.stray(body.as_bytes(), sink)?;
            adapter.close(false, sink)
        });
        if body.starts_with('[') {
            assert_eq!((end, seen.text.as_str()), (Ok(()), "Hi"), "{body}");
        }
    }
}

#[test]
fn refusals_are_told_apart() {
    let error = |status: &str, message: &str| {
        json!({ "error": { "code": 1, "message": message, "status": status } }).to_string()
    };
    let details = json!({ "error": { "message": "bad", "status": "INVALID_ARGUMENT",
        "details": [{ "reason": "API_KEY_INVALID" }] } });
    let quota = json!({ "error": { "message": "slow down", "status": "RESOURCE_EXHAUSTED",
        "details": [{ "retryDelay": "34.5s" }] } });
    let long = "The input token count (9) exceeds the maximum number of tokens allowed (8).";
    for (status, body, fault, retry_after) in [
        (400, error("INVALID_ARGUMENT", "bad"), Fault::Client, None),
        (400, details.to_string(), Fault::Credential, None),
        (400, error("INVALID_ARGUMENT", long), Fault::Context, None),
        (403, error("PERMISSION_DENIED", "no"), Fault::Credential, None),
        (429, quota.to_string(), Fault::RateLimited, Some(Ms(34_500))),
        (503, error("UNAVAILABLE", "busy"), Fault::Unavailable, None),
    ] {
        let body = body.as_bytes();
        let refusal = Refusal { status, retry_after: None, body, surface: Surface::Chat };
        let refused = Gemini::refuse(&refusal);
        let failure = refused.failure;
        let seen = (failure.fault, failure.status, failure.retry_after);
        assert_eq!(seen, (fault, status, retry_after), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_request_is_written_whole() {
    let chat = json!({
        "model": "m", "stream": true, "max_tokens": 9,
        "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hi" }]
    })
    .to_string();
    let mut ask = Ask::read(Surface::Chat, chat.as_bytes()).unwrap();
    ask.envelope.method = "POST";
    let key = Secret::new(b"k1".to_vec());
    let site = Site { authority: "host:1", path: "/v1beta", model: "gemini-x", key: Some(&key) };
    let mut out = Buf::new();
    Gemini::send(&ask, chat.as_bytes(), &site, UnixMs(0), &mut out).unwrap();
    let sent = String::from_utf8(out.as_slice().to_vec()).unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let line = "POST /v1beta/models/gemini-x:streamGenerateContent?alt=sse HTTP/1.1";
    assert_eq!(head.lines().next(), Some(line));
    assert!(head.contains("\r\nx-goog-api-key: k1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
    let body: Tree = serde_json::from_str(body).unwrap();
    assert_eq!(body["systemInstruction"]["parts"][0]["text"], "Be brief.");
    assert_eq!(body["contents"][0], json!({ "role": "user", "parts": [{ "text": "Hi" }] }));
    assert_eq!(body["generationConfig"]["maxOutputTokens"], 9);
    assert_eq!(body.get("model"), None);
    ask.surface = Surface::Embeddings;
    let refused = Gemini::send(&ask, chat.as_bytes(), &site, UnixMs(0), &mut out);
    assert_eq!(refused, Err(Fault::Unsendable));
}
