//! A client of the Messages API: what passes through to a provider that speaks it, what another one gets
//! and says, fallback between them, cuts and errors in its own words.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::fallback::good;
use crate::rig::{Driver, Gateway, Provider, on_both};
use crate::translated::{SSE, candidates, config, event, gemini, messages};

/// Every request that came to it.
type Heard = Arc<Mutex<Vec<(String, Value)>>>;

/// A provider that keeps what it is asked, and answers `says`.
fn hearing(says: String) -> (Provider, Heard) {
    let heard = Heard::default();
    let kept = heard.clone();
    let provider = Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        let body = serde_json::from_slice(&call.body).unwrap();
        kept.lock().unwrap().push((call.request.clone(), body));
        call.say(&says);
        false
    });
    (provider, heard)
}

fn whole(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn request(stream: bool) -> Value {
    json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }], "stream": stream })
}

fn sent(body: &Value) -> String {
    post(
        "/v1/messages",
        "x-api-key: unused\r\nanthropic-version: 2023-06-01\r\n",
        &body.to_string(),
    )
}

/// Name and data of each event.
fn events(answer: &Response) -> Vec<(String, Value)> {
    let text = answer.text();
    let event = |block: &str| {
        let (name, data) = block.split_once("\ndata: ").unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap())
    };
    text.split_terminator("\n\n").map(event).collect()
}

/// All that deltas of a kind say.
fn told(events: &[(String, Value)], name: &str) -> String {
    events.iter().filter_map(|(_, data)| data["delta"][name].as_str()).collect()
}

#[test]
fn a_provider_of_the_same_dialect_is_passed_through() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let (well, heard) = hearing(format!("{SSE}{}", messages().concat()));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("anthropic", &well), ("openai", &spare)));
        let mut body = request(true);
        let tools = json!([{ "type": "web_search_20250305", "name": "web_search", "max_uses": 1 }]);
        body["tools"] = tools;
        body["new_field"] = json!(1.50);
        let mut routed = body.clone();
        routed["provider"] = json!({ "order": ["p0"] });
        let fields =
            "x-api-key: client-key\r\nanthropic-version: 2099-01-01\r\nanthropic-beta: a,b\r\n";
        let answer =
            ask(gateway.addr, &post("/v1/messages?beta=true", fields, &routed.to_string()));
        // A ping has come before any content: it is not passed on.
        let mut want = messages();
        want.remove(2);
        let want = want.concat().replace("\"model\":\"claude\"", "\"model\":\"m\"");
        assert_eq!((answer.status, answer.text()), (200, want), "{case}");
        assert_eq!(
            answer.field("content-type"),
            Some("text/event-stream; charset=utf-8"),
            "{case}"
        );
        let (head, got) = heard.lock().unwrap().pop().unwrap();
        assert!(head.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{case}: {head}");
        for field in
            ["anthropic-version: 2099-01-01", "anthropic-beta: a,b", "x-api-key: secret-key"]
        {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{case}: {head}");
        }
        assert!(!head.contains("client-key") && !head.contains("2023"), "{case}: {head}");
        body["model"] = json!("up");
        assert_eq!(got, body, "{case}");
        assert_eq!(got.to_string(), body.to_string(), "{case}");
    });
}

#[test]
fn a_whole_answer_passes_and_is_counted() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "content": [{ "type": "new_block", "x": 1.5 }], "usage": { "input_tokens": 2, "output_tokens": 3 },
    });
    on_both(|driver| {
        let (well, _) = hearing(whole(&body));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("anthropic", &well), ("openai", &spare)));
        let answer = ask(gateway.addr, &sent(&request(false)));
        let want = body.to_string().replace("\"claude\"", "\"m\"");
        assert_eq!(answer.text(), want, "{driver:?}");
        let usage = gateway.ledgers(1)[0].usage.unwrap();
        assert_eq!((usage.prompt, usage.completion), (2, 3), "{driver:?}");
    });
}

/// A gateway whose Anthropic fails after so many events, with `second` behind it.
fn overloaded(driver: Driver, begun: usize, second: (&str, &Provider)) -> (Gateway, Provider) {
    let error = event(
        json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }),
    );
    let (busy, _) = hearing(format!("{SSE}{}{error}", messages()[..begun].concat()));
    let gateway = Gateway::start(driver, &config(("anthropic", &busy), second));
    (gateway, busy)
}

#[test]
fn another_format_takes_over_from_one_that_is_overloaded() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let (openai, heard) = hearing(good("p1"));
        let (gateway, _busy) = overloaded(driver, 3, ("openai", &openai));
        let answer = ask(gateway.addr, &sent(&request(true)));
        let got = events(&answer);
        assert_eq!(got[0].1["message"]["model"], "m", "{case}");
        assert!(told(&got, "text").contains("p1"), "{case}: {}", answer.text());
        assert_eq!(told(&got, "stop_reason"), "end_turn", "{case}");
        assert_eq!(got.last().unwrap().0, "message_stop", "{case}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;error_event;"), "{case}: {attempts}");
        let (head, body) = heard.lock().unwrap().pop().unwrap();
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{case}: {head}");
        assert!(!head.contains("anthropic") && !head.contains("unused"), "{case}: {head}");
        assert_eq!(body["messages"], json!([{ "role": "user", "content": "hi" }]), "{case}");
        assert_eq!(
            (&body["model"], &body["max_tokens"], &body["stream_options"]["include_usage"]),
            (&json!("up"), &json!(9), &json!(true)),
            "{case}"
        );

        let well = gemini(format!("{SSE}{}", candidates().concat()));
        let (gateway, _busy) = overloaded(driver, 3, ("gemini", &well));
        let answer = ask(gateway.addr, &sent(&request(true)));
        let got = events(&answer);
        assert_eq!(told(&got, "text"), "hello from gemini", "{case}");
        let blocks = got.iter().filter(|(name, _)| name == "content_block_start");
        let kinds: Vec<_> = blocks.map(|(_, data)| data["content_block"]["type"].clone()).collect();
        assert_eq!(kinds, ["text", "tool_use"], "{case}");
        let input: Value = serde_json::from_str(&told(&got, "partial_json")).unwrap();
        assert_eq!(input, json!({ "x": 1 }), "{case}");
        assert_eq!(told(&got, "stop_reason"), "tool_use", "{case}");
        let usage = &got[got.len() - 2].1["usage"];
        assert_eq!(
            (&usage["input_tokens"], &usage["output_tokens"]),
            (&json!(5), &json!(9)),
            "{case}"
        );
    });
}

#[test]
fn what_was_begun_is_cut_in_its_own_words() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let spare = Provider::saying(good("p1"));
        let (gateway, _busy) = overloaded(driver, 4, ("openai", &spare));
        let cut_gemini = gemini(format!("{SSE}{}", candidates()[..2].concat()));
        let translated =
            Gateway::start(driver, &config(("gemini", &cut_gemini), ("openai", &spare)));
        for (gateway, said) in [(&gateway, "hello from claude"), (&translated, "hello from gemini")]
        {
            let answer = ask(gateway.addr, &sent(&request(true)));
            let got = events(&answer);
            assert!(told(&got, "text").starts_with(said), "{case}: {}", answer.text());
            let (name, last) = got.last().unwrap();
            assert_eq!((name.as_str(), &last["type"]), ("error", &json!("error")), "{case}");
            assert_eq!(last["error"]["type"], "api_error", "{case}");
            assert_eq!(last["error"]["code"], "stream_interrupted", "{case}");
            assert!(last["error"]["message"].as_str().unwrap().starts_with("p0/up: "), "{case}");
            assert!(answer.whole && !answer.text().contains("message_stop"), "{case}");
            assert!(!answer.text().contains("from p1"), "{case}");
        }
    });
}

#[test]
fn whole_answers_of_another_format_are_messages() {
    let body = json!({ "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt",
        "choices": [{ "index": 0, "finish_reason": "length", "message": { "role": "assistant", "content": "hello", "reasoning_content": "hm" } }],
        "usage": { "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
            "prompt_tokens_details": { "cached_tokens": 3 } } });
    on_both(|driver| {
        let (openai, _) = hearing(whole(&body));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(("openai", &openai), ("openai", &spare)));
        let got = ask(gateway.addr, &sent(&request(false))).json();
        let want = json!({ "id": "msg_c1", "type": "message", "role": "assistant", "model": "m",
            "content": [{ "type": "thinking", "thinking": "hm", "signature": "" }, { "type": "text", "text": "hello" }], "stop_reason": "max_tokens",
            "stop_sequence": null, "usage": { "input_tokens": 2, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 3, "output_tokens": 2 } });
        assert_eq!(got, want, "{driver:?}");
    });
}

#[test]
fn thoughts_of_others_do_not_go_to_anthropic() {
    on_both(|driver| {
        let (well, heard) = hearing(format!("{SSE}{}", messages().concat()));
        let spare = Provider::saying(good("p1"));
        let config =
            config(("anthropic", &well), ("openai", &spare)).replace("p0/up", "p0/claude-1");
        let gateway = Gateway::start(driver, &config);
        let thought = |signature: &str| json!({ "type": "thinking", "thinking": "a", "signature": signature });
        let text = json!({ "type": "text", "text": "b" });
        let mut body = request(true);
        body["messages"] = json!([{ "role": "assistant", "content":
            [thought("firstbyte:gemini:x"), thought(""), thought("own"), text] }]);
        assert_eq!(ask(gateway.addr, &sent(&body)).status, 200, "{driver:?}");
        let got = heard.lock().unwrap().pop().unwrap().1;
        assert_eq!(got["messages"][0]["content"], json!([thought("own"), text]), "{driver:?}");
    });
}

#[test]
fn what_only_anthropic_can_do_goes_to_no_one_else() {
    on_both(|driver| {
        let never = Provider::start(|_| panic!("this request can't be sent here"));
        let (well, _) = hearing(format!("{SSE}{}", messages().concat()));
        let mut body = request(true);
        body["tools"] = json!([{ "type": "web_search_20250305", "name": "web_search" }]);
        let gateway = Gateway::start(driver, &config(("openai", &never), ("anthropic", &well)));
        let answer = ask(gateway.addr, &sent(&body));
        assert!(answer.text().contains("hello from claude"), "{driver:?}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;unsendable;"), "{driver:?}: {attempts}");
        let gateway = Gateway::start(driver, &config(("openai", &never), ("gemini", &never)));
        let answer = ask(gateway.addr, &sent(&body));
        assert_eq!(answer.status, 400, "{driver:?}");
        let error = answer.json()["error"].clone();
        assert_eq!(error["type"], "invalid_request_error", "{driver:?}");
        assert!(error["message"].as_str().unwrap().starts_with("tools[0].type: "), "{error}");
    });
}

#[test]
fn errors_are_in_anthropics_words() {
    on_both(|driver| {
        let said =
            json!({ "error": { "message": "bad thing", "type": "x", "code": "y" } }).to_string();
        let refusing = Provider::saying(format!(
            "HTTP/1.1 400 X\r\ncontent-length: {}\r\n\r\n{said}",
            said.len()
        ));
        let dead = Provider::saying("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
        let keys = "[auth]\nkeys = [{ name = \"dev\", key = \"env:K\" }]\n";
        let start = |first: &Provider| {
            Gateway::start(
                driver,
                &(keys.to_owned() + &config(("openai", first), ("anthropic", &dead))),
            )
        };
        let (faulty, spent) = (start(&refusing), start(&dead));
        let key = "x-api-key: secret-key\r\n";
        let well = request(true).to_string();
        let unknown = well.replace("\"m\"", "\"nothing\"");
        let no_limit = well.replace("\"max_tokens\":9,", "");
        let odd = well.replace("\"hi\"", "7");
        for (gateway, path, fields, body, status, kind, words) in [
            (&spent, "/v1/messages", "", &well, 401, "authentication_error", "no key"),
            (
                &spent,
                "/v1/messages",
                "x-api-key: no\r\n",
                &well,
                401,
                "authentication_error",
                "key",
            ),
            (&spent, "/v1/messages/count_tokens", "", &well, 401, "authentication_error", "no key"),
            (&spent, "/v1/messages", key, &unknown, 404, "not_found_error", "nothing"),
            (
                &spent,
                "/v1/messages",
                key,
                &no_limit,
                400,
                "invalid_request_error",
                "max_tokens: Field required",
            ),
            (&spent, "/v1/messages", key, &String::from("{"), 400, "invalid_request_error", "byte"),
            (&spent, "/v1/messages", key, &well, 502, "api_error", "no provider could answer"),
            (&faulty, "/v1/messages", key, &well, 400, "invalid_request_error", "bad thing"),
            (
                &faulty,
                "/v1/messages/count_tokens",
                key,
                &odd,
                400,
                "invalid_request_error",
                "messages[0].content",
            ),
        ] {
            let request = post(path, &format!("{fields}x-request-id: r1\r\n"), body);
            let answer = ask(gateway.addr, &request);
            let (got, case) = (answer.json(), format!("{driver:?} {status} {words}"));
            assert_eq!(answer.status, status, "{case}: {got}");
            assert_eq!(
                (&got["type"], &got["request_id"]),
                (&json!("error"), &json!("r1")),
                "{case}"
            );
            assert_eq!(got["error"]["type"], kind, "{case}");
            assert!(got["error"]["message"].as_str().unwrap().contains(words), "{case}: {got}");
        }
        // Of two keys one is the gateway's.
        let two = format!("authorization: Bearer no\r\n{key}");
        let answer = ask(spent.addr, &post("/v1/messages", &two, &well)).json();
        assert_eq!(answer["error"]["metadata"]["attempts"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn tokens_are_counted_by_who_can_or_guessed() {
    on_both(|driver| {
        let (counts, heard) = hearing(whole(&json!({ "input_tokens": 14 })));
        let never = Provider::start(|_| panic!("it can't count"));
        let body =
            json!({ "model": "m", "messages": [{ "role": "user", "content": "hello there" }] });
        let request = post("/v1/messages/count_tokens", "anthropic-beta: c\r\n", &body.to_string());
        let gateway = Gateway::start(driver, &config(("anthropic", &counts), ("openai", &never)));
        assert_eq!(ask(gateway.addr, &request).json(), json!({ "input_tokens": 14 }), "{driver:?}");
        let (head, got) = heard.lock().unwrap().pop().unwrap();
        assert!(head.starts_with("POST /v1/messages/count_tokens HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("x-api-key: secret-key\r\n"), "{head}");
        assert!(head.contains("anthropic-beta: c\r\n"), "{head}");
        assert_eq!((&got["model"], &got["messages"]), (&json!("up"), &body["messages"]));
        let gateway = Gateway::start(driver, &config(("openai", &never), ("anthropic", &counts)));
        let guessed = ask(gateway.addr, &request);
        assert_eq!(guessed.status, 200, "{driver:?}");
        assert_eq!(guessed.json(), json!({ "input_tokens": 6 }), "{driver:?}");
        // The one that can count fails: nobody else is asked.
        let dead = Provider::saying("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
        let gateway = Gateway::start(driver, &config(("anthropic", &dead), ("openai", &never)));
        assert_eq!(ask(gateway.addr, &request).status, 502, "{driver:?}");
    });
}

#[test]
fn models_are_listed_as_the_client_knows_them() {
    on_both(|driver| {
        let never = Provider::start(|_| panic!("nobody is asked"));
        let gateway = Gateway::start(driver, &config(("openai", &never), ("anthropic", &never)));
        let get = |path: &str, fields: &str| {
            ask(gateway.addr, &format!("GET {path} HTTP/1.1\r\nhost: g\r\n{fields}\r\n")).json()
        };
        let version = "anthropic-version: 2023-06-01\r\n";
        let model = json!({ "type": "model", "id": "m", "display_name": "m", "created_at": "1970-01-01T00:00:00Z" });
        let list = json!({ "data": [model], "has_more": false, "first_id": "m", "last_id": "m" });
        assert_eq!(get("/v1/models?limit=20", version), list, "{driver:?}");
        assert_eq!(get("/v1/models/m", version), model, "{driver:?}");
        assert_eq!(get("/v1/models", "")["object"], "list", "{driver:?}");
    });
}
