//! A chat client and providers whose format is not its own: what goes up, what comes down, and fallback
//! between formats in both directions.

use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::fallback::{expected, good};
use crate::rig::{Gateway, Provider, on_both};

pub const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

pub fn event(data: Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

/// A streamed answer of the Messages API: text, then a tool call.
pub fn messages() -> Vec<String> {
    let usage = json!({ "input_tokens": 5, "output_tokens": 1 });
    vec![
        event(
            json!({ "type": "message_start", "message": { "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage } }),
        ),
        event(
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        ),
        event(json!({ "type": "ping" })),
        event(
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "hello from claude \u{fc}" } }),
        ),
        event(json!({ "type": "content_block_stop", "index": 0 })),
        event(
            json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "tool_use", "id": "toolu_1", "name": "f", "input": {} } }),
        ),
        event(
            json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "input_json_delta", "partial_json": "{\"x\":1}" } }),
        ),
        event(json!({ "type": "content_block_stop", "index": 1 })),
        event(
            json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 9 } }),
        ),
        event(json!({ "type": "message_stop" })),
    ]
}

/// An Anthropic that checks what it is asked, and answers `says`.
pub fn claude(says: String) -> Provider {
    Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        assert!(call.request.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{}", call.request);
        for field in ["x-api-key: secret-key\r\n", "anthropic-version: 2023-06-01\r\n"] {
            assert!(call.request.contains(field), "{}", call.request);
        }
        assert!(!call.request.contains("authorization"), "{}", call.request);
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(body["model"], "up");
        assert_eq!(
            body["messages"],
            json!([{ "role": "user", "content": [{ "type": "text", "text": "hi" }] }])
        );
        assert_eq!(body["max_tokens"], 4096);
        assert!(body.get("stream_options").is_none(), "{body}");
        call.say(&says);
        false
    })
}

pub fn config(first: (&str, &Provider), second: (&str, &Provider)) -> String {
    let mut text = String::from("[defaults]\nbreaker = \"off\"\n");
    for (name, (kind, provider)) in [("p0", first), ("p1", second)] {
        let addr = provider.addr;
        text += &format!(
            "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"http://{addr}/v1\"\nkey = \"env:K\"\n"
        );
    }
    text + "[models.m]\ntargets = [\"p0/up\", \"p1/up\"]\n"
}

pub fn request(stream: bool) -> String {
    let body = json!({
        "model": "m", "messages": [{ "role": "user", "content": "hi" }], "stream": stream,
        "stream_options": { "include_usage": true },
    });
    post("/v1/chat/completions", "", &body.to_string())
}

pub fn chunks(answer: &Response) -> Vec<Value> {
    let text = answer.text();
    let blocks = text.split_terminator("\n\n").map(|block| block.strip_prefix("data: ").unwrap());
    let chunks = blocks.filter(|data| *data != "[DONE]");
    chunks.map(|data| serde_json::from_str(data).unwrap()).collect()
}

pub fn check_claude(answer: &Response, case: &str) {
    assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}");
    let chunks = chunks(answer);
    assert!(chunks.iter().all(|c| c["id"] == "msg_1" && c["model"] == "m"), "{case}");
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant", "{case}");
    assert_eq!(chunks[1]["choices"][0]["delta"]["content"], "hello from claude \u{fc}", "{case}");
    let call = &chunks[2]["choices"][0]["delta"]["tool_calls"][0];
    assert_eq!((&call["index"], &call["id"]), (&json!(0), &json!("toolu_1")), "{case}");
    let finish = chunks.iter().find(|c| c["choices"][0]["finish_reason"].is_string()).unwrap();
    assert_eq!(finish["choices"][0]["finish_reason"], "tool_calls", "{case}");
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(5), &json!(9)),
        "{case}"
    );
}

#[test]
fn fallback_goes_from_one_format_to_the_other() {
    on_both(|driver| {
        let dead = Provider::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
        let well = claude(format!("{SSE}{}", messages().concat()));
        let gateway = Gateway::start(driver, &config(("openai", &dead), ("anthropic", &well)));
        check_claude(&ask(gateway.addr, &request(true)), &format!("{driver:?}"));
        // The other way round: overloaded inside a 200, before any content and in the middle of it.
        let overloaded = event(
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }),
        );
        let openai = Provider::saying(good("p1"));
        for (events, falls_over) in [(3, true), (4, false)] {
            let begun = messages()[..events].concat();
            let busy = claude(format!("{SSE}{begun}{overloaded}"));
            let gateway =
                Gateway::start(driver, &config(("anthropic", &busy), ("openai", &openai)));
            let answer = ask(gateway.addr, &request(true));
            let (text, case) = (answer.text(), format!("{driver:?} after {events}"));
            if falls_over {
                assert_eq!(text, expected("p1"), "{case}");
                let attempts = answer.field("x-firstbyte-attempts").unwrap();
                assert!(attempts.starts_with("p0/up;error_event;"), "{case}: {attempts}");
            } else {
                assert!(
                    text.contains("hello from claude") && text.contains("stream_interrupted"),
                    "{case}: {text}"
                );
                assert!(
                    !text.contains("[DONE]") && !text.contains("hello from p1"),
                    "{case}: {text}"
                );
            }
        }
    });
}

#[test]
fn whole_answers_are_translated() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "hello" }], "usage": { "input_tokens": 2, "output_tokens": 3 },
    })
    .to_string();
    on_both(|driver| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let well = claude(format!("{head}{body}"));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("anthropic", &well), ("openai", &spare)));
        let got = ask(gateway.addr, &request(false)).json();
        assert_eq!(
            (&got["object"], &got["model"]),
            (&json!("chat.completion"), &json!("m")),
            "{driver:?}"
        );
        let choice = &got["choices"][0];
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!("hello"), &json!("stop"))
        );
        assert_eq!(got["usage"]["total_tokens"], 5);
    });
}

#[test]
fn what_a_format_can_not_say_goes_to_the_next_target() {
    on_both(|driver| {
        let never = Provider::start(|_| panic!("this request can't be sent here"));
        let openai = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("anthropic", &never), ("openai", &openai)));
        let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":[
            {"type":"input_audio","input_audio":{"data":"QQ==","format":"wav"}}]}]}"#;
        let answer = ask(gateway.addr, &post("/v1/chat/completions", "", body));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;unsendable;"), "{driver:?}: {attempts}");
        // Of a parameter that is known before, and the plan goes without it.
        let body = r#"{"model":"m","stream":true,"messages":[],"n":2}"#;
        let answer = ask(gateway.addr, &post("/v1/chat/completions", "", body));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p1/up;"), "{driver:?}: {attempts}");
    });
}

#[test]
fn what_no_target_can_be_asked_is_the_clients_to_mend() {
    on_both(|driver| {
        let never = Provider::start(|_| panic!("this request can't be sent here"));
        let targets = (("anthropic", &never), ("gemini", &never));
        let gateway = Gateway::start(driver, &config(targets.0, targets.1));
        let body = r#"{"model":"m","messages":[{"role":"wizard","content":"x"}]}"#;
        let answer = ask(gateway.addr, &post("/v1/chat/completions", "", body));
        let got: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 400, "{driver:?}: {got}");
        assert_eq!(got["error"]["param"], "messages[0].role", "{driver:?}: {got}");
        assert_eq!(got["error"]["type"], "invalid_request_error", "{driver:?}: {got}");
        let tried = &got["error"]["metadata"]["attempts"];
        assert_eq!(tried.as_array().map(Vec::len), Some(2), "{driver:?}: {got}");
    });
}

#[test]
fn an_answer_that_is_too_large_to_be_translated_is_replaced() {
    on_both(|driver| {
        let text = "x".repeat(9000);
        let message = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "up",
            "content": [{ "type": "text", "text": text }], "stop_reason": "end_turn",
            "usage": { "input_tokens": 1, "output_tokens": 1 } });
        let body = message.to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        let large = claude(format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
        let openai = Provider::saying(format!(
            "{head}content-length: 94\r\n\r\n{}",
            r#"{"id":"c","choices":[{"index":0,"message":{"content":"small"},"finish_reason":"stop"}],"x":1 }"#
        ));
        let text = config(("anthropic", &large), ("openai", &openai));
        let text = text.replacen("[defaults]\n", "[defaults]\nanswer_max = \"4KiB\"\n", 1);
        let gateway = Gateway::start(driver, &text);
        let answer = ask(gateway.addr, &request(false));
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;answer_too_large;"), "{driver:?}: {attempts}");
        assert!(answer.text().contains("small"), "{driver:?}: {}", answer.text());
    });
}

/// A streamed answer of Gemini: a thought, text, a call.
pub fn candidates() -> Vec<String> {
    let event = |parts: Value, rest: Value| {
        let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
        for (name, value) in rest.as_object().unwrap() {
            candidate[name] = value.clone();
        }
        let usage = json!({ "promptTokenCount": 5, "candidatesTokenCount": 9 });
        let event =
            json!({ "candidates": [candidate], "usageMetadata": usage, "responseId": "r1" });
        format!("data: {event}\r\n\r\n")
    };
    vec![
        event(json!([{ "text": "" }]), json!({})),
        event(json!([{ "text": "hello from gemini" }]), json!({})),
        event(
            json!([{ "functionCall": { "name": "f", "args": { "x": 1 } } }]),
            json!({ "finishReason": "STOP" }),
        ),
    ]
}

pub fn gemini(says: String) -> Provider {
    Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        let line = "POST /v1/models/up:streamGenerateContent?alt=sse HTTP/1.1\r\n";
        assert!(call.request.starts_with(line), "{}", call.request);
        assert!(call.request.contains("x-goog-api-key: secret-key\r\n"), "{}", call.request);
        assert!(!call.request.contains("authorization"), "{}", call.request);
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(body["contents"], json!([{ "role": "user", "parts": [{ "text": "hi" }] }]));
        call.say(&says);
        false
    })
}

#[test]
fn gemini_takes_over_and_is_taken_over_from() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let dead = claude(event(json!({ "type": "error", "error": { "message": "x" } })));
        let well = gemini(format!("{SSE}{}", candidates().concat()));
        let gateway = Gateway::start(driver, &config(("anthropic", &dead), ("gemini", &well)));
        let answer = ask(gateway.addr, &request(true));
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}: {}", answer.text());
        let chunks = chunks(&answer);
        let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
        let text: String = deltas.iter().filter_map(|d| d["content"].as_str()).collect();
        assert_eq!(text, "hello from gemini", "{case}");
        let call = deltas.iter().find(|d| d["tool_calls"].is_array()).unwrap();
        assert_eq!(call["tool_calls"][0]["function"]["name"], "f", "{case}");
        let finish = chunks.iter().find_map(|c| c["choices"][0]["finish_reason"].as_str());
        assert_eq!(finish, Some("tool_calls"), "{case}");
        assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 14, "{case}");
        // Cut before any content it is replaced, after that told.
        let openai = Provider::saying(good("p1"));
        for (events, falls_over) in [(1, true), (2, false)] {
            let cut = gemini(format!("{SSE}{}", candidates()[..events].concat()));
            let gateway = Gateway::start(driver, &config(("gemini", &cut), ("openai", &openai)));
            let text = ask(gateway.addr, &request(true)).text();
            if falls_over {
                assert_eq!(text, expected("p1"), "{case}");
            } else {
                assert!(text.contains("hello from gemini"), "{case}: {text}");
                assert!(text.contains("stream_interrupted"), "{case}: {text}");
                assert!(!text.contains("[DONE]") && !text.contains("from p1"), "{case}: {text}");
            }
        }
    });
}

/// What a Groq gets of a request, and who is tried after it.
#[test]
fn a_vendor_gets_what_it_takes_and_the_rest_goes_on() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let groq = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            let body = String::from_utf8(call.body.clone()).unwrap();
            let want = "{\"model\":\"up\", \"stream\":true,\"odd\":[1],\
                 \"messages\":[{\"role\":\"system\",\"content\":\"x\"}]}";
            assert_eq!(body, want);
            assert!(call.request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
            call.say(good("p0"));
            false
        });
        let openai = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("groq", &groq), ("openai", &openai)));
        let request = |more: &str| {
            let body = format!(
                "{{\"model\":\"m\", \"logit_bias\":{{\"1\":2}},\"n\":1,\"stream\":true,\"odd\":[1],\
                 \"messages\":[{{\"role\":\"developer\",\"content\":\"x\",\"name\":\"n\"}}]{more}}}"
            );
            post("/v1/chat/completions", "", &body)
        };
        let answer = ask(gateway.addr, &request(""));
        assert_eq!(answer.text(), expected("p0"), "{case}");
        // What Groq can't do at all goes to the next target, and with none the client hears what it was.
        let answer = ask(gateway.addr, &request(",\"logprobs\":true"));
        assert_eq!(answer.text(), expected("p1"), "{case}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p1/up;"), "{case}: {attempts}");
        let gateway = Gateway::start(driver, &config(("groq", &groq), ("groq", &groq)));
        let answer = ask(gateway.addr, &request(",\"logprobs\":true"));
        assert_eq!(answer.status, 400, "{case}");
        let error = &answer.json()["error"];
        assert_eq!(error["param"], "logprobs", "{case}: {error}");
    });
}

/// What explain says of parameters is what dispatch does.
#[test]
fn parameters_decide_who_is_asked_and_explain_says_so() {
    on_both(|driver| {
        let claude = Provider::start(|_| panic!("the plan is without it"));
        let openai = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("anthropic", &claude), ("openai", &openai)));
        let request = |more: &str| {
            format!(
                "{{\"model\":\"m\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}]{more}}}"
            )
        };
        let explained =
            |more: &str| ask(gateway.addr, &post("/v1/route/explain", "", &request(more))).json();
        let both = explained(",\"seed\":7,\"stop\":[\"x\"]");
        let attempts = both["attempts"].as_array().unwrap();
        let told = json!({ "seed": "dropped", "stop": "adapted" });
        assert_eq!(attempts[0]["parameters"], told, "{driver:?}: {both}");
        assert_eq!(attempts[1]["parameters"], json!({}), "{driver:?}: {both}");
        for (more, why) in [
            (",\"n\":2", "it can't serve n"),
            (
                ",\"seed\":7,\"provider\":{\"require_parameters\":true}",
                "it drops seed, which is required",
            ),
        ] {
            let told = explained(more);
            assert_eq!(told["attempts"].as_array().map(Vec::len), Some(1), "{driver:?}: {told}");
            assert_eq!(told["left_out"][0]["why_text"], why, "{driver:?}: {told}");
            let answer = ask(gateway.addr, &post("/v1/chat/completions", "", &request(more)));
            assert_eq!(answer.text(), expected("p1"), "{driver:?} {more}");
            let attempts = answer.field("x-firstbyte-attempts").unwrap();
            assert!(attempts.starts_with("p1/up;"), "{driver:?}: {attempts}");
        }
    });
}
