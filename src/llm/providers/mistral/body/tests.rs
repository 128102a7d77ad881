use super::*;
use crate::llm::dialects::chat_prompt;

const MODEL: &str = "mistral-large-latest";

fn body_for(model: &str, chat: Value) -> Result<Value, Fault> {
    write(&chat_prompt::read(&chat).unwrap(), model).map(Value::Object)
}

/// The body of a request that has only this beside its messages, without these.
fn with(model: &str, fields: Value) -> Value {
    let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    chat.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut body = body_for(model, chat).unwrap();
    body.as_object_mut().unwrap().remove("messages").unwrap();
    body
}

fn messages_of(model: &str, messages: Value) -> Value {
    body_for(model, json!({ "messages": messages })).unwrap()["messages"].clone()
}

fn call(id: &str) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": "f", "arguments": "{}" } })
}

#[test]
fn a_conversation_keeps_its_meaning() {
    let cache = json!({ "type": "ephemeral" });
    let got = messages_of(
        MODEL,
        json!([
            { "role": "developer", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "look", "cache_control": cache },
                { "type": "image_url", "image_url": { "url": "https://x/y.png", "detail": "low" } },
                { "type": "input_audio", "input_audio": { "data": "QQ==", "format": "mp3" } },
                { "type": "file", "file": { "file_data": "data:application/pdf;base64,UERG", "filename": "a.pdf" } },
            ] },
            { "role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [call("abcDEF123")] },
            { "role": "tool", "tool_call_id": "abcDEF123", "content": "7" },
            { "role": "user", "content": "so?" },
        ]),
    );
    let expected = json!([
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": [
            { "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "https://x/y.png" } },
            { "type": "input_audio", "input_audio": { "data": "QQ==", "format": "mp3" } },
            { "type": "document_url", "document_url": "data:application/pdf;base64,UERG", "document_name": "a.pdf" },
        ] },
        { "role": "assistant", "content": null, "tool_calls": [call("abcDEF123")] },
        { "role": "tool", "tool_call_id": "abcDEF123", "content": "7" },
        { "role": "assistant", "content": "OK" },
        { "role": "user", "content": "so?" },
    ]);
    assert_eq!(got, expected);
}

#[test]
fn thoughts_are_parts_for_those_that_think() {
    let chat = json!([
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": "b", "reasoning_content": "hm" },
        { "role": "user", "content": "c" },
        { "role": "assistant", "content": null, "reasoning_content": "ho" },
        { "role": "user", "content": "d" },
        { "role": "assistant", "content": null, "reasoning_content": "hu", "tool_calls": [call("abcDEF123")] },
        { "role": "tool", "tool_call_id": "abcDEF123", "content": "7" },
    ]);
    let thinking =
        |text: &str| json!({ "type": "thinking", "thinking": [{ "type": "text", "text": text }] });
    let mut expected = json!([
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": [thinking("hm"), { "type": "text", "text": "b" }] },
        { "role": "user", "content": "c" },
        { "role": "user", "content": "d" },
        { "role": "assistant", "content": [thinking("hu")], "tool_calls": [call("abcDEF123")] },
        { "role": "tool", "content": "7", "tool_call_id": "abcDEF123" },
    ]);
    assert_eq!(messages_of("magistral-medium-latest", chat.clone()), expected);
    let hybrid = json!({ "messages": chat, "reasoning_effort": "low" });
    assert_eq!(body_for("mistral-small-latest", hybrid).unwrap()["messages"], expected);
    expected[1]["content"] = json!("b");
    expected[4]["content"] = Value::Null;
    assert_eq!(messages_of(MODEL, chat), expected);
}

#[test]
fn foreign_ids_become_nine_letters_and_digits() {
    let chat = |first: &str, second: &str| {
        let messages = json!([
            { "role": "assistant", "tool_calls": [call(first), call(second)] },
            { "role": "tool", "tool_call_id": second, "content": "2" },
            { "role": "tool", "tool_call_id": first, "content": "1" },
            { "role": "assistant", "content": "ok" },
            { "role": "assistant", "tool_calls": [call("toolu_01")] },
            { "role": "tool", "tool_call_id": "toolu_01", "content": "3" },
        ]);
        let got = messages_of(MODEL, messages);
        let id =
            |at: usize, call: usize| got[at]["tool_calls"][call]["id"].as_str().unwrap().to_owned();
        let of = |at: usize| got[at]["tool_call_id"].as_str().unwrap().to_owned();
        assert_eq!((of(1), of(2)), (id(0, 1), id(0, 0)), "{first} {second}");
        (id(0, 0), id(0, 1))
    };
    for (first, second) in [
        ("call_abc", "call_abd"),
        ("abcDEF123", "call_abc"),
        ("", "toolu_9"),
        ("abcDEF12\u{fc}", "x"),
    ] {
        let (a, b) = chat(first, second);
        assert_ne!(a, b);
        for made in [&a, &b] {
            assert!(made.len() == 9 && made.bytes().all(|c| c.is_ascii_alphanumeric()), "{made}");
        }
        // The same each time, and their own stay.
        assert_eq!(chat(first, second), (a.clone(), b));
        assert_eq!(a == first, first == "abcDEF123");
    }
    // What stands for one is never what stands for another.
    let mut ids = Ids { made: vec![("x".into(), hashed("y", 0))] };
    assert_eq!(ids.nine("y"), hashed("y", 1));
}

#[test]
fn a_prefill_says_so() {
    let got = messages_of(
        MODEL,
        json!([
        { "role": "user", "content": "hi" }, { "role": "assistant", "content": "{" } ]),
    );
    assert_eq!(got[1], json!({ "role": "assistant", "content": "{", "prefix": true }));
    let got =
        messages_of(MODEL, json!([{ "role": "assistant", "tool_calls": [call("abcDEF123")] }]));
    assert!(got[0].get("prefix").is_none());
}

#[test]
fn parameters_find_their_place_or_are_dropped() {
    let schema = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": { "type": "object" }, "strict": true } });
    for (sent, expected) in [
        (json!({ "max_tokens": 9 }), json!({ "max_tokens": 9 })),
        (json!({ "max_completion_tokens": 9 }), json!({ "max_tokens": 9 })),
        (json!({ "seed": 3 }), json!({ "random_seed": 3 })),
        (json!({ "stop": ["x", "y"] }), json!({ "stop": ["x", "y"] })),
        (json!({ "temperature": 0.5, "top_p": 0.9 }), json!({ "temperature": 0.5, "top_p": 0.9 })),
        (json!({ "temperature": 2 }), json!({ "temperature": 1.5 })),
        (
            json!({ "presence_penalty": 1, "frequency_penalty": -1, "n": 2 }),
            json!({ "presence_penalty": 1, "frequency_penalty": -1, "n": 2 }),
        ),
        (json!({ "response_format": schema }), json!({ "response_format": schema })),
        (
            json!({ "response_format": { "type": "json_object" } }),
            json!({ "response_format": { "type": "json_object" } }),
        ),
        (
            json!({ "safe_prompt": true, "prompt_mode": "reasoning" }),
            json!({ "safe_prompt": true, "prompt_mode": "reasoning" }),
        ),
        (
            json!({ "prediction": { "type": "content", "content": "x" }, "prompt_cache_key": "k" }),
            json!({ "prediction": { "type": "content", "content": "x" }, "prompt_cache_key": "k" }),
        ),
        // Each of these is an error there.
        (json!({ "logit_bias": { "1": 2 }, "logprobs": true, "top_logprobs": 2 }), json!({})),
        (json!({ "user": "u", "stream_options": { "include_usage": true } }), json!({})),
        (json!({ "store": true, "metadata": { "a": "b" }, "service_tier": "auto" }), json!({})),
        (json!({ "top_k": 3, "min_p": 0.1, "documents": ["a"], "verbosity": "low" }), json!({})),
        (json!({ "reasoning_effort": "high" }), json!({})),
    ] {
        assert_eq!(with(MODEL, sent.clone()), expected, "{sent}");
    }
    // However the model is called.
    assert_eq!(with("gpt-5", json!({ "max_tokens": 9 })), json!({ "max_tokens": 9 }));
}

#[test]
fn some_models_think_as_they_are_told() {
    for (model, effort, expected) in [
        ("mistral-small-latest", "low", json!("high")),
        ("mistral-small-latest", "none", json!("none")),
        ("mistral-small-latest", "minimal", json!("none")),
        ("mistral-medium-2604", "medium", json!("high")),
        ("mistral-small-2506", "high", Value::Null),
        ("mistral-small", "high", Value::Null),
        ("magistral-medium-latest", "high", Value::Null),
        ("codestral-latest", "high", Value::Null),
    ] {
        let got = with(model, json!({ "reasoning_effort": effort }));
        assert_eq!(got["reasoning_effort"], expected, "{model} {effort}");
    }
}

#[test]
fn tools_and_choices_are_translated() {
    let function = json!({ "name": "f", "description": "d", "parameters": { "type": "object" }, "strict": true });
    let tools = json!([
        { "type": "function", "function": function, "cache_control": { "type": "ephemeral" } },
        { "type": "function", "function": { "name": "g" } },
    ]);
    let bare = json!({ "name": "g", "parameters": { "type": "object", "properties": {} } });
    let shown = json!([{ "type": "function", "function": function }, { "type": "function", "function": bare }]);
    let named = json!({ "type": "function", "function": { "name": "f" } });
    for (choice, expected) in [
        (json!("auto"), json!("auto")),
        (json!("none"), json!("none")),
        (json!("required"), json!("any")),
        (named.clone(), named),
    ] {
        let got = with(
            MODEL,
            json!({ "tools": tools, "tool_choice": choice, "parallel_tool_calls": false }),
        );
        let want = json!({ "tools": shown, "tool_choice": expected, "parallel_tool_calls": false });
        assert_eq!(got, want);
    }
    assert_eq!(with(MODEL, json!({ "tools": tools })), json!({ "tools": shown }));
}

#[test]
fn what_can_not_be_said_is_refused() {
    let user = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
    for chat in [
        user(json!({ "type": "file", "file": { "file_id": "f" } })),
        user(json!({ "type": "file", "file": { "file_data": "https://x/y.pdf" } })),
    ] {
        assert_eq!(body_for(MODEL, chat.clone()), Err(Fault::Unsendable), "{chat}");
    }
}
