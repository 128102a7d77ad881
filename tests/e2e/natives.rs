//! Cohere and Ollama, each with an API of its own, and Mistral, with one that is nearly OpenAI's: whole and streamed, with tools, taking over and taken
//! over from, and cut after text.

use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::fallback::{expected, good};
use crate::rig::{Driver, Gateway, Provider, on_both};
use crate::translated::{SSE, chunks, config, request};

const LINES: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n";
const DEAD: &str = "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n";

/// A provider with an API of its own, and what it says.
struct Native {
    kind: &'static str,
    /// What a request begins with.
    line: &'static str,
    head: &'static str,
    /// A streamed answer: no content, text, a call, the end.
    events: Vec<String>,
    /// A whole answer.
    whole: Value,
    /// What the tools of a request are, and the words that its choice and limit go out in.
    asked: fn(&Value),
}

fn cohere() -> Native {
    let event = |data: Value| {
        let kind = data["type"].as_str().unwrap();
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let delta = |kind: &str, message: Value| {
        event(json!({ "type": kind, "index": 0, "delta": { "message": message } }))
    };
    let usage = json!({ "billed_units": { "input_tokens": 1, "output_tokens": 1 },
        "tokens": { "input_tokens": 5, "output_tokens": 9 } });
    let call = json!({ "id": "f_1", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } });
    let text = json!({ "content": { "type": "text", "text": "hello from p0 \u{fc}" } });
    let last = event(
        json!({ "type": "message-end", "delta": { "finish_reason": "TOOL_CALL", "usage": usage } }),
    );
    Native {
        kind: "cohere",
        line: "POST /v2/chat HTTP/1.1\r\n",
        head: SSE,
        events: vec![
            event(json!({ "type": "message-start", "id": "m1" })),
            delta("content-delta", text),
            delta("tool-call-start", json!({ "tool_calls": call })),
            format!("{last}data: [DONE]\n\n"),
        ],
        whole: json!({ "id": "m1", "finish_reason": "COMPLETE", "usage": usage,
            "message": { "role": "assistant", "content": [{ "type": "text", "text": "hello" }] } }),
        asked: |body| {
            assert_eq!((&body["tool_choice"], &body["max_tokens"]), (&json!("NONE"), &json!(64)));
            assert_eq!((&body["p"], &body["stop_sequences"]), (&json!(0.5), &json!(["x"])));
            let call = &body["messages"][1]["tool_calls"][0];
            assert_eq!(call["function"]["arguments"], "{\"x\":1}");
            let document = json!([{ "type": "document", "document": { "data": { "y": 2 } } }]);
            let result = json!({ "role": "tool", "tool_call_id": "c", "content": document });
            assert_eq!(body["messages"][2], result);
            assert_eq!(body["tools"][0]["function"]["name"], "f");
        },
    }
}

fn ollama() -> Native {
    let line = |message: Value| format!("{}\n", json!({ "message": message, "done": false }));
    let end = |reason: &str, text: &str| {
        json!({ "message": { "role": "assistant", "content": text }, "done": true, "done_reason": reason,
            "prompt_eval_count": 5, "eval_count": 9 })
    };
    let call = json!({ "function": { "name": "f", "arguments": { "x": 1 } } });
    Native {
        kind: "ollama",
        line: "POST /api/chat HTTP/1.1\r\n",
        head: LINES,
        events: vec![
            line(json!({ "role": "assistant", "content": "" })),
            line(json!({ "role": "assistant", "content": "hello from p0 \u{fc}" })),
            line(json!({ "role": "assistant", "content": "", "tool_calls": [call] })),
            end("stop", "").to_string(),
        ],
        whole: end("stop", "hello"),
        asked: |body| {
            let options = json!({ "top_p": 0.5, "num_predict": 64, "stop": ["x"] });
            assert_eq!(body["options"], options);
            let call = &body["messages"][1]["tool_calls"][0];
            assert_eq!(call["function"]["arguments"], json!({ "x": 1 }));
            let result = json!({ "role": "tool", "content": "{\"y\":2}", "tool_name": "f", "tool_call_id": "c" });
            assert_eq!(body["messages"][2], result);
            assert!(body.get("tools").is_none() && body.get("keep_alive").is_none(), "{body}");
        },
    }
}

fn mistral() -> Native {
    let event = |delta: Value, finish: Value, usage: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let data = json!({ "id": "m1", "object": "chat.completion.chunk", "created": 7, "model": "up",
            "choices": [choice], "usage": usage });
        format!("data: {data}\n\n")
    };
    let none = Value::Null;
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14 });
    let thinking = json!({ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] });
    let both = json!([thinking, { "type": "text", "text": "hello from p0 \u{fc}" }]);
    let call = json!({ "id": "abcDEF123", "index": 0, "function": { "name": "f", "arguments": "{\"x\":1}" } });
    let last = event(json!({ "content": "" }), json!("tool_calls"), usage.clone());
    Native {
        kind: "mistral",
        line: "POST /v1/chat/completions HTTP/1.1\r\n",
        head: SSE,
        events: vec![
            event(json!({ "role": "assistant", "content": "" }), none.clone(), none.clone()),
            event(json!({ "content": both }), none.clone(), none.clone()),
            event(json!({ "content": "", "tool_calls": [call] }), none.clone(), none.clone()),
            format!("{last}data: [DONE]\n\n"),
        ],
        whole: json!({ "id": "m1", "object": "chat.completion", "created": 7, "model": "up", "usage": usage,
            "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "hello" } }] }),
        asked: |body| {
            assert_eq!((&body["tool_choice"], &body["max_tokens"]), (&json!("none"), &json!(64)));
            assert_eq!((&body["top_p"], &body["stop"]), (&json!(0.5), &json!("x")));
            assert!(body.get("user").is_none(), "{body}");
            let id = &body["messages"][1]["tool_calls"][0]["id"];
            assert_eq!(id.as_str().map(str::len), Some(9));
            assert_eq!(body["messages"][2]["tool_call_id"], *id);
        },
    }
}

impl Native {
    /// One that answers `says` to the plain request, and checks what it is asked.
    fn start(&self, says: String) -> Provider {
        let line = self.line;
        self.start_checked(says, move |request, body| {
            assert!(request.starts_with(line), "{request}");
            assert_eq!(body["messages"], json!([{ "role": "user", "content": "hi" }]));
        })
    }

    fn start_checked(
        &self,
        says: String,
        check: impl Fn(&str, &Value) + Send + Sync + 'static,
    ) -> Provider {
        Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            assert!(call.request.contains("authorization: Bearer secret-key\r\n"));
            let body: Value = serde_json::from_slice(&call.body).unwrap();
            assert_eq!(body["model"], "up");
            assert!(body["stream"].is_boolean(), "{body}");
            assert!(body.get("stream_options").is_none(), "{body}");
            check(&call.request, &body);
            call.say(&says);
            false
        })
    }

    fn streamed(&self, events: usize) -> String {
        format!("{}{}", self.head, self.events[..events].concat())
    }

    fn whole(&self) -> String {
        json_answer(&self.whole)
    }
}

fn json_answer(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn on_each(test: impl Fn(&Native, Driver, &str)) {
    on_both(|driver| {
        for native in [cohere(), ollama(), mistral()] {
            test(&native, driver, &format!("{} {driver:?}", native.kind));
        }
    });
}

fn check_stream(answer: &Response, case: &str) {
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}: {}", answer.text());
    let chunks = chunks(answer);
    assert!(chunks.iter().all(|c| c["model"] == "m" && c["id"] == chunks[0]["id"]), "{case}");
    let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
    assert_eq!(deltas[0]["role"], "assistant", "{case}");
    let text: String = deltas.iter().filter_map(|d| d["content"].as_str()).collect();
    assert_eq!(text, "hello from p0 \u{fc}", "{case}");
    let calls: Vec<&Value> = deltas.iter().map(|d| &d["tool_calls"][0]).collect();
    let call = calls.iter().find(|call| call["id"].is_string()).unwrap();
    assert_eq!((&call["index"], &call["function"]["name"]), (&json!(0), &json!("f")), "{case}");
    let arguments = calls.iter().filter_map(|call| call["function"]["arguments"].as_str());
    assert_eq!(arguments.collect::<String>(), "{\"x\":1}", "{case}");
    let finish = chunks.iter().find_map(|c| c["choices"][0]["finish_reason"].as_str());
    assert_eq!(finish, Some("tool_calls"), "{case}");
    let usage = &chunks.last().unwrap()["usage"];
    let counts = (&usage["prompt_tokens"], &usage["completion_tokens"]);
    assert_eq!(counts, (&json!(5), &json!(9)), "{case}");
}

#[test]
fn a_native_takes_over_a_stream_and_is_taken_over_from() {
    on_each(|native, driver, case| {
        let dead = Provider::saying(DEAD);
        let well = native.start(native.streamed(4));
        let gateway = Gateway::start(driver, &config(("openai", &dead), (native.kind, &well)));
        let answer = ask(gateway.addr, &request(true));
        check_stream(&answer, case);
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;503;"), "{case}: {attempts}");
        // The other way round: dead, or cut before any content; and cut after text.
        let openai = Provider::saying(good("p1"));
        for says in [DEAD.to_owned(), native.streamed(0), native.streamed(1)] {
            let bad = native.start(says);
            let gateway = Gateway::start(driver, &config((native.kind, &bad), ("openai", &openai)));
            let answer = ask(gateway.addr, &request(true));
            assert_eq!(answer.text(), expected("p1"), "{case}");
        }
        for events in [2, 3] {
            let cut = native.start(native.streamed(events));
            let gateway = Gateway::start(driver, &config((native.kind, &cut), ("openai", &openai)));
            let text = ask(gateway.addr, &request(true)).text();
            assert!(text.contains("hello from p0"), "{case}: {text}");
            assert!(text.contains("stream_interrupted"), "{case}: {text}");
            assert!(!text.contains("[DONE]") && !text.contains("from p1"), "{case}: {text}");
            assert!(
                !text.contains("\"stop\"") && !text.contains("\"tool_calls\"}"),
                "{case}: {text}"
            );
        }
    });
}

#[test]
fn whole_answers_of_natives_are_translated() {
    on_each(|native, driver, case| {
        let dead = Provider::saying(DEAD);
        let well = native.start(native.whole());
        let gateway = Gateway::start(driver, &config(("openai", &dead), (native.kind, &well)));
        let got = ask(gateway.addr, &request(false)).json();
        let choice = &got["choices"][0];
        assert_eq!((&got["object"], &got["model"]), (&json!("chat.completion"), &json!("m")));
        assert_eq!(choice["message"]["content"], "hello", "{case}");
        assert_eq!(
            (&choice["finish_reason"], &got["usage"]["total_tokens"]),
            (&json!("stop"), &json!(14))
        );
        // Cut in the middle it is no answer.
        let cut = native.whole();
        let cut = native.start(cut[..cut.len() - 9].to_owned());
        let spare = json!({ "id": "c1", "object": "chat.completion", "created": 7, "model": "up", "choices": [
            { "index": 0, "message": { "role": "assistant", "content": "spare" }, "finish_reason": "stop" } ] });
        let spare = Provider::saying(json_answer(&spare));
        let gateway = Gateway::start(driver, &config((native.kind, &cut), ("openai", &spare)));
        let got = ask(gateway.addr, &request(false)).json();
        assert_eq!(got["choices"][0]["message"]["content"], "spare", "{case}");
    });
}

#[test]
fn a_conversation_with_tools_reaches_a_native() {
    let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } });
    let body = json!({
        "model": "m", "stream": true, "max_tokens": 64, "top_p": 0.5, "stop": "x", "tool_choice": "none",
        "stream_options": { "include_usage": true }, "user": "u", "parallel_tool_calls": true,
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
        "messages": [
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": null, "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "c", "content": "{\"y\":2}" },
        ],
    });
    let request = post("/v1/chat/completions", "", &body.to_string());
    on_each(|native, driver, case| {
        let asked = native.asked;
        let well = native.start_checked(native.streamed(4), move |_, body| asked(body));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config((native.kind, &well), ("openai", &spare)));
        check_stream(&ask(gateway.addr, &request), case);
    });
}

#[test]
fn what_a_native_can_not_say_goes_to_the_next_target() {
    let url = json!({ "type": "input_audio", "input_audio": { "data": "QQ==", "format": "wav" } });
    let body =
        json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": [url] }] });
    let request = post("/v1/chat/completions", "", &body.to_string());
    on_each(|native, driver, case| {
        if native.kind == "mistral" {
            // It hears.
            return;
        }
        let never = Provider::start(|_| panic!("this request can't be sent here"));
        let openai = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config((native.kind, &never), ("openai", &openai)));
        let answer = ask(gateway.addr, &request);
        assert_eq!(answer.text(), expected("p1"), "{case}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;unsendable;"), "{case}: {attempts}");
    });
}
