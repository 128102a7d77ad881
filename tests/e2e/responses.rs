//! OpenAI's Responses API on both sides: chat clients before providers that speak it, its clients before
//! providers of every format, and both at once, where nothing is changed.

use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::fallback::{expected, good};
use crate::rig::{Gateway, Provider, on_both};
use crate::translated::{
    SSE, candidates, chunks, claude, config, event, gemini, messages, request,
};

/// Numbers events.
fn stream(events: &[Value]) -> Vec<String> {
    let numbered = events.iter().enumerate().map(|(number, event)| {
        let mut event = event.clone();
        event["sequence_number"] = json!(number);
        event
    });
    numbered.map(event).collect()
}

fn response(status: &str, output: Value) -> Value {
    json!({ "id": "resp_1", "object": "response", "created_at": 7, "status": status, "model": "gpt-up",
        "output": output, "usage": { "input_tokens": 5, "output_tokens": 9 } })
}

/// A streamed answer: text, then a tool call.
fn lifecycle() -> Vec<String> {
    let message = |content: Value| json!({ "type": "message", "id": "msg_1", "role": "assistant", "content": content });
    let call = |arguments: &str| json!({ "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": arguments });
    let content =
        json!([{ "type": "output_text", "text": "hello from openai \u{fc}", "annotations": [] }]);
    stream(&[
        json!({ "type": "response.created", "response": response("in_progress", json!([])) }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": message(json!([])) }),
        json!({ "type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "msg_1", "delta": "hello from openai \u{fc}", "obfuscation": "zz" }),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": message(content.clone()) }),
        json!({ "type": "response.output_item.added", "output_index": 1, "item": call("") }),
        json!({ "type": "response.function_call_arguments.delta", "output_index": 1, "item_id": "fc_1", "delta": "{\"x\":1}" }),
        json!({ "type": "response.output_item.done", "output_index": 1, "item": call("{\"x\":1}") }),
        json!({ "type": "response.completed", "response": response("completed", json!([message(content), call("{\"x\":1}")])) }),
    ])
}

/// A provider that checks what it is asked by `asked`, and answers `says`.
fn provider(asked: impl Fn(&Value) + Send + Sync + 'static, says: String) -> Provider {
    Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        assert!(call.request.starts_with("POST /v1/responses HTTP/1.1\r\n"), "{}", call.request);
        assert!(call.request.contains("authorization: Bearer secret-key\r\n"), "{}", call.request);
        asked(&serde_json::from_slice(&call.body).unwrap());
        call.say(&says);
        false
    })
}

fn translated(body: &Value) {
    assert_eq!((&body["model"], &body["store"]), (&json!("up"), &json!(false)));
    let content = json!([{ "type": "input_text", "text": "hi" }]);
    assert_eq!(body["input"], json!([{ "role": "user", "content": content }]));
    assert!(body.get("stream_options").is_none() && body.get("messages").is_none(), "{body}");
}

fn whole(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn a_chat_client_gets_chat() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let dead = Provider::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
        let well = provider(translated, format!("{SSE}{}", lifecycle().concat()));
        let gateway =
            Gateway::start(driver, &config(("openai", &dead), ("openai-responses", &well)));
        let answer = ask(gateway.addr, &request(true));
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}: {}", answer.text());
        let chunks = chunks(&answer);
        assert!(chunks.iter().all(|c| c["id"] == "resp_1" && c["model"] == "m"), "{case}");
        let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
        let text: String = deltas.iter().filter_map(|d| d["content"].as_str()).collect();
        assert_eq!(text, "hello from openai \u{fc}", "{case}");
        let calls: Vec<&Value> = deltas.iter().filter_map(|d| d["tool_calls"].get(0)).collect();
        assert_eq!((&calls[0]["index"], &calls[0]["id"]), (&json!(0), &json!("call_1")), "{case}");
        let arguments: String =
            calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
        assert_eq!(arguments, "{\"x\":1}", "{case}");
        let finish = chunks.iter().find_map(|c| c["choices"][0]["finish_reason"].as_str());
        assert_eq!(finish, Some("tool_calls"), "{case}");
        assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 14, "{case}");

        let content = json!([{ "type": "output_text", "text": "hello" }]);
        let output =
            json!([{ "type": "message", "id": "msg_1", "role": "assistant", "content": content }]);
        let well = provider(translated, whole(&response("completed", output)));
        let gateway =
            Gateway::start(driver, &config(("openai", &dead), ("openai-responses", &well)));
        let got = ask(gateway.addr, &request(false)).json();
        assert_eq!((&got["object"], &got["model"]), (&json!("chat.completion"), &json!("m")));
        assert_eq!(got["choices"][0]["message"]["content"], "hello", "{case}");
        assert_eq!(got["choices"][0]["finish_reason"], "stop", "{case}");
        assert_eq!(got["usage"]["total_tokens"], 14, "{case}");
    });
}

#[test]
fn what_fails_before_content_is_replaced_and_after_it_told() {
    let failed = json!({ "type": "response.failed", "sequence_number": 9, "response": {
        "status": "failed", "error": { "code": "server_error", "message": "Oops" } } });
    on_both(|driver| {
        let openai = Provider::saying(good("p1"));
        for (events, ending, falls_over) in [
            (2, event(failed.clone()), true),
            (2, String::new(), true),
            (3, event(failed.clone()), false),
            (7, String::new(), false),
        ] {
            let case = format!("{driver:?} after {events}");
            let begun = lifecycle()[..events].concat();
            let busy = provider(translated, format!("{SSE}{begun}{ending}"));
            let gateway =
                Gateway::start(driver, &config(("openai-responses", &busy), ("openai", &openai)));
            let text = ask(gateway.addr, &request(true)).text();
            if falls_over {
                assert_eq!(text, expected("p1"), "{case}");
            } else {
                assert!(text.contains("hello from openai"), "{case}: {text}");
                assert!(text.contains("stream_interrupted"), "{case}: {text}");
                assert!(!text.contains("[DONE]") && !text.contains("from p1"), "{case}: {text}");
            }
        }
    });
}

fn asks(body: &Value) -> String {
    post("/v1/responses", "", &body.to_string())
}

fn hi(stream: bool) -> Value {
    json!({ "model": "m", "input": "hi", "stream": stream })
}

fn events_of(answer: &Response) -> Vec<Value> {
    let text = answer.text();
    let blocks = text.split_terminator("\n\n");
    let events: Vec<Value> = blocks
        .map(|block| {
            let (name, data) = block.split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        })
        .collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{event}");
    }
    events
}

/// The last event's answer: its text, and the names of what is called.
fn meaning(answer: &Response) -> (String, Vec<String>) {
    let events = events_of(answer);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["model"]),
        (&json!("response.completed"), &json!("m"))
    );
    let output = last["response"]["output"].as_array().unwrap();
    let text = output.iter().filter_map(|item| item["content"][0]["text"].as_str()).collect();
    let calls = output.iter().filter_map(|item| item["name"].as_str().map(str::to_owned));
    (text, calls.collect())
}

#[test]
fn its_clients_reach_every_format() {
    on_both(|driver| {
        // Overloaded inside of a 200, then another format answers.
        let overloaded = event(
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }),
        );
        let busy = claude(format!("{SSE}{}{overloaded}", messages()[..3].concat()));
        let well = gemini(format!("{SSE}{}", candidates().concat()));
        let gateway = Gateway::start(driver, &config(("anthropic", &busy), ("gemini", &well)));
        let answer = ask(gateway.addr, &asks(&hi(true)));
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;error_event;"), "{driver:?}: {attempts}");
        assert_eq!(meaning(&answer), ("hello from gemini".into(), vec!["f".into()]), "{driver:?}");

        let openai = Provider::saying(good("p1"));
        let well = claude(format!("{SSE}{}", messages().concat()));
        for (kind, well, said) in [
            ("anthropic", &well, ("hello from claude \u{fc}", vec!["f".to_owned()])),
            ("openai", &openai, ("hello from p1 and more \u{fc}", vec![])),
        ] {
            let gateway = Gateway::start(driver, &config((kind, well), (kind, well)));
            let answer = ask(gateway.addr, &asks(&hi(true)));
            let (text, calls) = meaning(&answer);
            assert_eq!((text.as_str(), calls), said, "{driver:?} {kind}");
        }
        // Cut after content: one error event, and no end.
        let cut = claude(format!("{SSE}{}", messages()[..5].concat()));
        let gateway = Gateway::start(driver, &config(("anthropic", &cut), ("openai", &openai)));
        let events = events_of(&ask(gateway.addr, &asks(&hi(true))));
        let last = events.last().unwrap();
        assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!("stream_interrupted")));
        assert!(events.iter().all(|event| event["type"] != "response.completed"), "{driver:?}");
        assert_eq!(events.iter().filter(|event| event["type"] == "error").count(), 1);
    });
}

#[test]
fn the_same_dialect_is_passed_on_unchanged() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        // What only this API can say goes to the provider that speaks it, wherever it stands.
        let body = json!({ "model": "m", "models": ["m"], "store": true, "stream": true,
            "tools": [{ "type": "web_search" }], "previous_response_id": "resp_0", "input": "hi" });
        let unread = |sent: &Value| {
            let want = json!({ "model": "up", "store": true, "stream": true,
                "tools": [{ "type": "web_search" }], "previous_response_id": "resp_0", "input": "hi" });
            assert_eq!(*sent, want);
        };
        let never = Provider::start(|_| panic!("this request can't be sent here"));
        let well = provider(unread, format!("{SSE}{}", lifecycle().concat()));
        let gateway =
            Gateway::start(driver, &config(("anthropic", &never), ("openai-responses", &well)));
        let answer = ask(gateway.addr, &asks(&body));
        assert_eq!(answer.text(), lifecycle().concat().replace("\"gpt-up\"", "\"m\""), "{case}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;unsendable;"), "{case}: {attempts}");

        let told = response("completed", json!([{ "type": "web_search_call", "x": 1.50 }]));
        let well = provider(|_| {}, whole(&told));
        let gateway =
            Gateway::start(driver, &config(("openai-responses", &well), ("anthropic", &never)));
        let got = ask(gateway.addr, &asks(&hi(false))).text();
        assert_eq!(got, told.to_string().replace("\"gpt-up\"", "\"m\""), "{case}");

        // A cut one gets the gateway's own last event, counted on.
        let cut = provider(|_| {}, format!("{SSE}{}", lifecycle()[..4].concat()));
        let gateway =
            Gateway::start(driver, &config(("openai-responses", &cut), ("anthropic", &never)));
        let events = events_of(&ask(gateway.addr, &asks(&hi(true))));
        assert_eq!((events.len(), &events[4]["type"]), (5, &json!("error")), "{case}");
    });
}

#[test]
fn a_provider_of_chat_that_has_this_api_too_is_spoken_to_in_it() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let well = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            if call.request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n") {
                call.say(good("p0"));
                return false;
            }
            assert!(
                call.request.starts_with("POST /v1/responses HTTP/1.1\r\n"),
                "{}",
                call.request
            );
            let sent: Value = serde_json::from_slice(&call.body).unwrap();
            assert_eq!((&sent["model"], &sent["store"]), (&json!("up"), &json!(true)));
            call.say(format!("{SSE}{}", lifecycle().concat()));
            false
        });
        let text = config(("openai", &well), ("openai", &well));
        let text = text.replacen("key =", "responses = true\nkey =", 1);
        let gateway = Gateway::start(driver, &text);
        let mut body = hi(true);
        body["store"] = json!(true);
        let answer = ask(gateway.addr, &asks(&body));
        assert_eq!(answer.text(), lifecycle().concat().replace("\"gpt-up\"", "\"m\""), "{case}");
        let chat = ask(gateway.addr, &request(true));
        assert_eq!(chat.text(), expected("p0"), "{case}");
    });
}

#[test]
fn errors_before_commit_are_plain_json() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let never = Provider::start(|_| panic!("nothing goes upstream"));
        let gateway = Gateway::start(driver, &config(("anthropic", &never), ("gemini", &never)));
        let mut stored = hi(true);
        stored["previous_response_id"] = json!("resp_0");
        let mut tool = hi(false);
        tool["tools"] = json!([{ "type": "web_search" }]);
        for (body, param, says) in [
            (stored, "previous_response_id", "not stored here"),
            (tool, "tools[0].type", "function"),
            (json!({ "model": "m" }), "input", "a string or an array"),
        ] {
            let answer = ask(gateway.addr, &asks(&body));
            assert_eq!(answer.status, 400, "{case}: {}", answer.text());
            let error = &answer.json()["error"];
            assert_eq!(error["param"], param, "{case}: {error}");
            assert!(error["message"].as_str().unwrap().contains(says), "{case}: {error}");
        }
        let answer = ask(gateway.addr, &asks(&json!({ "model": "none", "input": "x" })));
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (404, &json!("model_not_found"))
        );
        let answer = ask(gateway.addr, "GET /v1/responses HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!((answer.status, answer.field("allow")), (405, Some("POST")), "{case}");
    });
}

#[test]
fn what_is_stored_is_asked_for_by_passing_on() {
    on_both(|driver| {
        let well = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            let asked = call.request.starts_with("GET /v1/responses/resp_1?x=1 HTTP/1.1\r\n")
                || call.request.starts_with("DELETE /v1/responses/resp_1 HTTP/1.1\r\n");
            assert!(asked, "{}", call.request);
            call.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            false
        });
        let never = Provider::start(|_| panic!("nothing goes there"));
        let text = config(("openai-responses", &well), ("anthropic", &never));
        let gateway = Gateway::start(driver, &format!("{text}[passthrough]\nprovider = \"p0\"\n"));
        for line in ["GET /v1/responses/resp_1?x=1", "DELETE /v1/responses/resp_1"] {
            let answer = ask(gateway.addr, &format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "{}"), "{driver:?} {line}");
        }
    });
}
