//! Chunks of each model's format, and what a chat client gets of them.

use serde_json::{Value as Json, json};

use super::*;
use crate::base::buf::Buf;
use crate::llm::sink::Told;

/// What came of one answer.
struct Seen {
    text: String,
    calls: Vec<Json>,
    finish: Vec<String>,
    usage: Json,
    end: Result<(), Fault>,
    said: Option<Said>,
}

fn with_sink(whole: bool, play: impl FnOnce(&mut Sink<'_>)) -> String {
    let (mut told, mut out, mut events) = (Told::default(), Buf::new(), 0);
    if whole {
        told.gather();
    }
    let (out_ref, id, shown) = (&mut out, "req", "shown");
    play(&mut Sink { out: out_ref, shown, events: &mut events, id, seconds: 9, told: &mut told });
    String::from_utf8(out.as_slice().to_vec()).unwrap()
}

fn chunk(payload: &str) -> Named<'_> {
    Named { kind: Type::Event, name: b"chunk", text: b"", payload: payload.as_bytes() }
}

fn play(events: &[Json]) -> Seen {
    let mut adapter = BedrockInvoke::default();
    let mut end = Ok(());
    let out = with_sink(false, |sink| {
        for event in events {
            let bytes = STANDARD.encode(event.to_string());
            let payload = json!({ "bytes": bytes, "p": "abcdef" }).to_string();
            match adapter.feed_named(&chunk(&payload), sink) {
                Ok(Mark::End) => break,
                Ok(_) => {}
                Err(fault) => {
                    end = Err(fault);
                    return;
                }
            }
        }
        end = adapter.close(true, sink);
    });
    let mut seen = Seen {
        text: String::new(),
        calls: Vec::new(),
        finish: Vec::new(),
        usage: Json::Null,
        end,
        said: adapter.said(),
    };
    for data in out.split_terminator("\n\n").filter_map(|block| block.strip_prefix("data: {")) {
        let json: Json = serde_json::from_str(&format!("{{{data}")).unwrap();
        let choice = &json["choices"][0];
        seen.text += choice["delta"]["content"].as_str().unwrap_or_default();
        seen.calls.extend(choice["delta"]["tool_calls"].as_array().cloned().unwrap_or_default());
        seen.finish.extend(choice["finish_reason"].as_str().map(str::to_owned));
        if json["usage"].is_object() {
            seen.usage = json["usage"].clone();
        }
    }
    seen
}

fn metrics() -> Json {
    json!({ "inputTokenCount": 7, "outputTokenCount": 2, "invocationLatency": 1 })
}

/// Each model's way to say "Hi there", with 7 and 2 tokens, and its last word.
fn streams() -> Vec<(&'static str, Vec<Json>)> {
    let delta = |text: &str| {
        json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": text } })
    };
    let block = |text: &str| json!({ "contentBlockDelta": { "contentBlockIndex": 0, "delta": { "text": text } } });
    let m = "amazon-bedrock-invocationMetrics";
    let head =
        json!({ "id": "m", "content": [], "usage": { "input_tokens": 7, "output_tokens": 1 } });
    vec![
        (
            "claude",
            vec![
                json!({ "type": "message_start", "message": head }),
                json!({ "type": "ping" }),
                delta("Hi "),
                delta("there"),
                json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" },
                "usage": { "output_tokens": 2 } }),
                json!({ "type": "message_stop", m: metrics() }),
            ],
        ),
        (
            "nova",
            vec![
                json!({ "messageStart": { "role": "assistant" } }),
                block("Hi "),
                block("there"),
                json!({ "messageStop": { "stopReason": "end_turn" } }),
                json!({ "metadata": { "usage": { "inputTokens": 7, "outputTokens": 2 } }, m: metrics() }),
            ],
        ),
        (
            "titan",
            vec![
                json!({ "outputText": "Hi ", "index": 0, "completionReason": null,
                "totalOutputTextTokenCount": 1, "inputTextTokenCount": 7 }),
                json!({ "outputText": "there", "index": 0, "completionReason": "FINISH",
                "totalOutputTextTokenCount": 2, "inputTextTokenCount": null, m: metrics() }),
            ],
        ),
        (
            "llama",
            vec![
                json!({ "generation": "Hi ", "stop_reason": null, "prompt_token_count": 7,
                "generation_token_count": 1 }),
                json!({ "generation": "there", "stop_reason": null, "prompt_token_count": null,
                "generation_token_count": 2 }),
                json!({ "generation": "", "stop_reason": "stop", "generation_token_count": 2, m: metrics() }),
            ],
        ),
        (
            "mistral",
            vec![
                json!({ "outputs": [{ "text": "Hi ", "stop_reason": null }] }),
                json!({ "outputs": [{ "text": "there", "stop_reason": "stop" }], m: metrics() }),
            ],
        ),
        (
            "cohere",
            vec![
                json!({ "text": "Hi ", "is_finished": false }),
                json!({ "text": "there", "is_finished": false }),
                json!({ "is_finished": true, "finish_reason": "COMPLETE",
                "response": { "text": "Hi there" }, m: metrics() }),
            ],
        ),
        (
            "claude 2",
            vec![
                json!({ "type": "completion", "completion": "Hi ", "stop_reason": null }),
                json!({ "type": "completion", "completion": "there", "stop_reason": "stop_sequence",
                m: metrics() }),
            ],
        ),
        (
            "as openai",
            vec![
                json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "Hi " } }] }),
                json!({ "choices": [{ "index": 0, "delta": { "content": "there" },
                "finish_reason": "stop" }] }),
                json!({ "choices": [], "usage": { "prompt_tokens": 7, "completion_tokens": 2 } }),
            ],
        ),
    ]
}

#[test]
fn each_models_stream_is_read() {
    for (model, events) in streams() {
        let seen = play(&events);
        assert_eq!((seen.text.as_str(), seen.end), ("Hi there", Ok(())), "{model}");
        assert_eq!(seen.finish, ["stop"], "{model}");
        assert_eq!(seen.usage["prompt_tokens"], 7, "{model}");
        assert_eq!(seen.usage["completion_tokens"], 2, "{model}");
    }
}

#[test]
fn a_stream_without_its_last_word_is_cut() {
    for (model, events) in streams() {
        let seen = play(&events[..1]);
        assert_eq!((seen.end, seen.finish.len()), (Err(Fault::Truncated), 0), "{model}");
    }
    assert_eq!(play(&[]).end, Err(Fault::Truncated));
}

#[test]
fn each_reason_has_its_word() {
    let table = [
        (json!({ "outputText": "x", "completionReason": "LENGTH" }), "length"),
        (json!({ "outputText": "x", "completionReason": "CONTENT_FILTERED" }), "content_filter"),
        (json!({ "generation": "x", "stop_reason": "length" }), "length"),
        (json!({ "text": "x", "finish_reason": "MAX_TOKENS" }), "length"),
        (json!({ "text": "x", "finish_reason": "ERROR_TOXIC" }), "content_filter"),
        (json!({ "completion": "x", "stop_reason": "max_tokens" }), "length"),
    ];
    for (event, word) in table {
        assert_eq!(play(std::slice::from_ref(&event)).finish, [word], "{event}");
    }
    let failed = play(&[json!({ "text": "x", "finish_reason": "ERROR" })]);
    assert_eq!(failed.end, Err(Fault::ErrorEvent));
    assert!(failed.said.is_some());
}

#[test]
fn calls_are_read_in_either_shape() {
    let piece =
        |call: Json| json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] });
    let seen = play(&[
        piece(
            json!({ "index": 0, "id": "t", "function": { "name": "f", "arguments": "{\"a\":" } }),
        ),
        piece(json!({ "index": 0, "function": { "arguments": "1}" } })),
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "tool_calls" }] }),
    ]);
    let arguments = |seen: &Seen| -> String {
        seen.calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect()
    };
    assert_eq!((arguments(&seen).as_str(), &seen.calls[0]["id"]), ("{\"a\":1}", &json!("t")));
    assert_eq!(seen.finish, ["tool_calls"]);
    let seen = play(&[
        json!({ "tool_calls": [{ "name": "f", "parameters": { "a": 1 } }], "is_finished": false }),
        json!({ "is_finished": true, "finish_reason": "COMPLETE" }),
    ]);
    assert_eq!(
        (arguments(&seen).as_str(), &seen.finish[..]),
        ("{\"a\":1}", &["tool_calls".to_owned()][..])
    );
}

#[test]
fn whole_answers_are_read() {
    let text = "Hi there";
    let usage = json!({ "input_tokens": 7, "output_tokens": 2 });
    let table = [
        json!({ "type": "message", "id": "m", "content": [{ "type": "text", "text": text }],
            "stop_reason": "end_turn", "usage": usage }),
        json!({ "output": { "message": { "content": [{ "text": text }] } },
            "stopReason": "end_turn", "usage": { "inputTokens": 7, "outputTokens": 2 } }),
        json!({ "inputTextTokenCount": 7, "results":
            [{ "tokenCount": 2, "outputText": text, "completionReason": "FINISH" }] }),
        json!({ "generation": text, "prompt_token_count": 7, "generation_token_count": 2,
            "stop_reason": "stop" }),
        json!({ "outputs": [{ "text": text, "stop_reason": "stop" }] }),
        json!({ "generations": [{ "text": text, "finish_reason": "COMPLETE" }], "prompt": "?" }),
        json!({ "text": text, "chat_history": [{ "message": "?" }], "finish_reason": "COMPLETE" }),
        json!({ "completions": [{ "data": { "text": text }, "finishReason": { "reason": "endoftext" } }] }),
        json!({ "choices": [{ "index": 0, "message": { "content": text }, "finish_reason": "stop" }] }),
    ];
    for body in table {
        let out = with_sink(true, |sink| {
            let end = BedrockInvoke::default().whole(body.to_string().as_bytes(), sink);
            assert_eq!(end, Ok(()), "{body}");
        });
        let got: Json = serde_json::from_str(&out).unwrap();
        assert_eq!(got["choices"][0]["message"]["content"], text, "{body}");
        assert_eq!(got["choices"][0]["finish_reason"], "stop", "{body}");
        if got["usage"].is_object() {
            assert_eq!(got["usage"]["total_tokens"], 9, "{body}");
        }
    }
    let whole = |body: &str| {
        let mut adapter = BedrockInvoke::default();
        let mut end = Ok(());
        with_sink(true, |sink| end = adapter.whole(body.as_bytes(), sink));
        (end, adapter.said().map(|said| said.message))
    };
    assert_eq!(whole("{}"), (Err(Fault::BadFrame), None));
    assert_eq!(whole("[]"), (Err(Fault::BadFrame), None));
    assert_eq!(whole("{\"message\":\"no\"}"), (Err(Fault::ErrorEvent), Some("no".to_owned())));
}

#[test]
fn what_is_no_chunk_is_told_apart() {
    let feed = |message: &Named<'_>| {
        let (mut adapter, mut fed) = (BedrockInvoke::default(), Ok(Mark::Idle));
        with_sink(false, |sink| fed = adapter.feed_named(message, sink));
        (fed, adapter.said().map(|said| said.message))
    };
    assert_eq!(feed(&Named { name: b"novelty", ..chunk("?") }), (Ok(Mark::Idle), None));
    for bad in ["", "{}", "{\"bytes\":7}", "{\"bytes\":\"*\"}", "{\"bytes\":\"WzFd\"}"] {
        assert_eq!(feed(&chunk(bad)), (Err(Fault::BadFrame), None), "{bad}");
    }
    let body = "{\"message\":\"slow down\"}";
    let exception = Named { kind: Type::Exception, name: b"throttlingException", ..chunk(body) };
    assert_eq!(feed(&exception), (Err(Fault::RateLimited), Some("slow down".to_owned())));
}

#[test]
fn a_guardrail_that_steps_in_is_why_an_answer_ends() {
    for (name, stream) in streams() {
        let finish = |marked: usize, action: &str| {
            let mut stream = stream.clone();
            stream[marked][std::str::from_utf8(GUARDRAIL).unwrap()] = json!(action);
            let seen = play(&stream);
            assert_eq!((seen.text.as_str(), seen.end), ("Hi there", Ok(())), "{name}");
            assert_eq!(seen.finish.len(), 1, "{name}: {:?}", seen.finish);
            seen.finish[0].clone()
        };
        let usual = play(&stream).finish;
        // Up to the first event, whatever it is, that can hold the reason.
        for marked in 0..2 {
            assert_eq!(finish(marked, "INTERVENED"), "content_filter", "{name} {marked}");
            assert_eq!([finish(marked, "NONE")], usual[..], "{name} {marked}");
        }
    }
    let whole = |body: Json| {
        let mut adapter = BedrockInvoke::default();
        let out = with_sink(true, |sink| {
            adapter.whole(body.to_string().as_bytes(), sink).unwrap();
        });
        let got: Json = serde_json::from_str(&out).unwrap();
        let choice = &got["choices"][0];
        (choice["message"]["content"].clone(), choice["finish_reason"].clone())
    };
    let blocked = "amazon-bedrock-guardrailAction";
    for body in [
        json!({ "type": "message", "id": "m", "content": [{ "type": "text", "text": "No" }],
            "stop_reason": "end_turn", blocked: "INTERVENED" }),
        json!({ "output": { "message": { "role": "assistant", "content": [{ "text": "No" }] } },
            "stopReason": "end_turn", blocked: "INTERVENED" }),
        json!({ "generation": "No", "stop_reason": "stop", blocked: "INTERVENED" }),
        json!({ "results": [{ "outputText": "No", "completionReason": "FINISH" }], blocked: "INTERVENED" }),
    ] {
        assert_eq!(whole(body.clone()), (json!("No"), json!("content_filter")), "{body}");
    }
}
