use super::*;
use crate::llm::dialects::chat_prompt;
use crate::llm::prompt::{Family, Signature};

const MODEL: &str = "command-a-03-2025";
const THINKS: &str = "command-a-reasoning-08-2025";

fn body_for(model: &str, chat: Value) -> Result<Value, Fault> {
    write(&chat_prompt::read(&chat).unwrap(), model).map(Value::Object)
}

fn body(chat: Value) -> Result<Value, Fault> {
    body_for(MODEL, chat)
}

/// The body of a request that has only this beside its messages.
fn with(model: &str, fields: Value) -> Value {
    let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    chat.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body_for(model, chat).unwrap()
}

fn tools(names: &[(&str, Value)], strict: bool) -> Value {
    let tool = |(name, schema): &(&str, Value)| json!({ "type": "function", "function": { "name": name, "parameters": schema, "strict": strict } });
    names.iter().map(tool).collect()
}

fn schema() -> Value {
    json!({ "type": "object", "properties": { "x": { "type": "integer" } }, "required": ["x"] })
}

fn conversation() -> Value {
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    json!([
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": [
            { "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD", "detail": "low" } },
            { "type": "image_url", "image_url": { "url": "https://x/y.webp" } },
        ] },
        { "role": "assistant", "content": null, "reasoning_content": "both", "tool_calls": [
            call("c1", "f", "{\"x\":1}"), call("c2", "g", "") ] },
        { "role": "tool", "tool_call_id": "c1", "content": "plain" },
        { "role": "tool", "tool_call_id": "c2", "content": "boom", "is_error": true },
        { "role": "user", "content": "so?" },
        { "role": "assistant", "content": "so", "reasoning_content": "hm" },
        { "role": "developer", "content": "in French" },
        { "role": "user", "content": "and?" },
    ])
}

#[test]
fn a_conversation_with_tools_keeps_its_meaning() {
    let got = body(json!({ "messages": conversation() })).unwrap();
    let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let mut expected = json!([
        { "role": "system", "content": [
            { "type": "text", "text": "be brief" }, { "type": "text", "text": "in French" } ] },
        { "role": "user", "content": [
            { "type": "text", "text": "look" },
            image("data:image/png;base64,QUJD"), image("https://x/y.webp") ] },
        { "role": "assistant", "tool_plan": "both",
          "tool_calls": [call("c1", "f", "{\"x\":1}"), call("c2", "g", "{}")] },
        { "role": "tool", "tool_call_id": "c1", "content": "plain" },
        { "role": "tool", "tool_call_id": "c2", "content": [
            { "type": "text", "text": "Error:" }, { "type": "text", "text": "boom" } ] },
        { "role": "user", "content": "so?" },
        { "role": "assistant", "content": "so" },
        { "role": "user", "content": "and?" },
    ]);
    assert_eq!(got, json!({ "messages": expected }));
    // A model that thinks gets its thoughts back, and no plan.
    let thinking = |text: &str| json!({ "type": "thinking", "thinking": text });
    expected[2] = json!({ "role": "assistant", "content": [thinking("both")],
        "tool_calls": [call("c1", "f", "{\"x\":1}"), call("c2", "g", "{}")] });
    expected[6] = json!({ "role": "assistant",
        "content": [thinking("hm"), { "type": "text", "text": "so" }] });
    let got = body_for(THINKS, json!({ "messages": conversation() })).unwrap();
    assert_eq!(got, json!({ "messages": expected }));
}

#[test]
fn results_are_documents_where_they_are_flat_objects() {
    let said = |text: Value| {
        let messages = json!([{ "role": "tool", "tool_call_id": "c", "content": text }]);
        body(json!({ "messages": messages })).unwrap()["messages"][0]["content"].clone()
    };
    let document = |document: Value| json!({ "type": "document", "document": document });
    let cases = [
        (json!("{\"y\":2}"), json!([document(json!({ "data": { "y": 2 } }))])),
        (
            json!("[{\"url\":\"https://x\",\"title\":\"t\"},{\"id\":\"b\",\"url\":\"https://y\"}]"),
            json!([
                document(
                    json!({ "id": "https://x", "data": { "url": "https://x", "title": "t" } })
                ),
                document(json!({ "id": "b", "data": { "id": "b", "url": "https://y" } })),
            ]),
        ),
        (
            json!([{ "type": "text", "text": "{\"y\":true}" }, { "type": "text", "text": "z" }]),
            json!([document(json!({ "data": { "y": true } })), { "type": "text", "text": "z" }]),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(said(text.clone()), expected, "{text}");
    }
    // All of these are text as they came.
    let text = [
        "",
        "7",
        "[]",
        "{}",
        "[1]",
        "[{}]",
        "{\"y\":{\"z\":1}}",
        "{\"y\":1.10}",
        "{\"y\":null}",
        "[{\"y\":1},2]",
        "{\"y\":12345678901234567890123}",
        "{\"y\":1",
    ];
    for text in text {
        assert_eq!(said(json!(text)), json!(text));
    }
    let many: Vec<_> = (0..=DOCUMENTS_MAX).map(|i| json!({ "i": i })).collect();
    let many = serde_json::to_string(&many).unwrap();
    assert_eq!(said(json!(many)), json!(many));
}

#[test]
fn pictures_of_tools_and_documents_of_text_are_said_by_the_user() {
    let url = json!({ "url": "data:image/png;base64,QQ==" });
    let image = json!({ "type": "image_url", "image_url": url });
    let notes = json!({ "type": "file", "file": { "file_data": "data:text/plain;base64,SGk=" } });
    let got = body(json!({ "messages": [
        { "role": "tool", "tool_call_id": "c", "content": [{ "type": "text", "text": "7" }, image] },
        { "role": "user", "content": [notes] },
    ] }))
    .unwrap();
    let text = |text: &str| json!({ "type": "text", "text": text });
    let said = json!([text("Returned by a tool (call c):"), image, text("Hi")]);
    let expected = json!([
        { "role": "tool", "tool_call_id": "c", "content": "7" },
        { "role": "user", "content": said },
    ]);
    assert_eq!(got, json!({ "messages": expected }));
}

#[test]
fn parameters_find_their_place_or_are_dropped() {
    for (sent, expected) in [
        (json!({ "max_tokens": 9 }), json!({ "max_tokens": 9 })),
        (json!({ "max_completion_tokens": 9 }), json!({ "max_tokens": 9 })),
        (json!({ "stop": "x" }), json!({ "stop_sequences": ["x"] })),
        (
            json!({ "stop": ["1", "2", "3", "4", "5", "6"] }),
            json!({ "stop_sequences": ["1", "2", "3", "4", "5"] }),
        ),
        (json!({ "temperature": 0.5 }), json!({ "temperature": 0.5 })),
        (json!({ "temperature": 1.7 }), json!({ "temperature": 1.0 })),
        (json!({ "top_p": 1 }), json!({ "p": 0.99 })),
        (json!({ "top_p": 0 }), json!({ "p": 0.01 })),
        (json!({ "top_k": 40 }), json!({ "k": 40 })),
        (json!({ "top_k": 9000 }), json!({ "k": 500 })),
        (json!({ "frequency_penalty": -1.5 }), json!({ "frequency_penalty": 0.0 })),
        (json!({ "presence_penalty": 2 }), json!({ "presence_penalty": 1.0 })),
        (json!({ "seed": 3, "logprobs": true }), json!({ "seed": 3, "logprobs": true })),
        (json!({ "safety_mode": "OFF" }), json!({ "safety_mode": "OFF" })),
        (
            json!({ "citation_options": { "mode": "FAST" } }),
            json!({ "citation_options": { "mode": "FAST" } }),
        ),
        (
            json!({ "documents": ["a", { "data": { "text": "b" } }] }),
            json!({ "documents": ["a", { "data": { "text": "b" } }] }),
        ),
        (
            json!({ "response_format": { "type": "json_object" } }),
            json!({ "response_format": { "type": "json_object" } }),
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": schema(), "strict": true } } }),
            json!({ "response_format": { "type": "json_object", "json_schema": schema() } }),
        ),
        (json!({ "response_format": { "type": "text" } }), json!({})),
        (json!({ "n": 1, "user": "u", "logit_bias": { "1": 2 } }), json!({})),
        (json!({ "top_logprobs": 3, "parallel_tool_calls": false }), json!({})),
        (json!({ "metadata": { "a": "b" }, "service_tier": "auto", "min_p": 0.1 }), json!({})),
        (json!({ "stream_options": { "include_usage": true }, "store": true }), json!({})),
        // This model does not think.
        (json!({ "reasoning_effort": "high" }), json!({})),
    ] {
        let mut got = with(MODEL, sent.clone());
        got.as_object_mut().unwrap().remove("messages").unwrap();
        assert_eq!(got, expected, "{sent}");
    }
}

#[test]
fn thinking_has_a_budget_by_its_effort() {
    for (effort, thinking) in [
        ("none", json!({ "type": "disabled" })),
        ("minimal", json!({ "type": "enabled", "token_budget": 512 })),
        ("low", json!({ "type": "enabled", "token_budget": 1024 })),
        ("medium", json!({ "type": "enabled", "token_budget": 8192 })),
        ("high", json!({ "type": "enabled" })),
        ("xhigh", json!({ "type": "enabled" })),
    ] {
        assert_eq!(with(THINKS, json!({ "reasoning_effort": effort }))["thinking"], thinking);
    }
    assert!(with(THINKS, json!({})).get("thinking").is_none());
    for (budget, thinking) in [
        (2000, json!({ "type": "enabled", "token_budget": 2000 })),
        (64_000, json!({ "type": "enabled", "token_budget": 31_000 })),
        (0, json!({ "type": "disabled" })),
    ] {
        let prompt = Prompt { budget: Some(budget), ..Prompt::default() };
        assert_eq!(Value::Object(write(&prompt, THINKS).unwrap())["thinking"], thinking);
    }
    for (model, expected) in [
        ("command-a-reasoning-08-2025", true),
        ("command-a-plus-05-2026", true),
        ("up", true),
        ("command", false),
        ("command-r7b-12-2024", false),
        ("command-a-03-2025", false),
        ("c4ai-aya-expanse-8b", false),
    ] {
        assert_eq!(thinks(model), expected, "{model}");
    }
}

#[test]
fn tools_and_choices_are_translated() {
    let both = || tools(&[("f", schema()), ("g", json!({ "type": "object" }))], false);
    let named = json!({ "type": "function", "function": { "name": "g" } });
    for (choice, word, names) in [
        (json!(null), json!(null), vec!["f", "g"]),
        (json!("auto"), json!(null), vec!["f", "g"]),
        (json!("none"), json!("NONE"), vec!["f", "g"]),
        (json!("required"), json!("REQUIRED"), vec!["f", "g"]),
        (named, json!("REQUIRED"), vec!["g"]),
    ] {
        let got = with(MODEL, json!({ "tools": both(), "tool_choice": choice }));
        assert_eq!(got["tool_choice"], word, "{choice}");
        let shown = got["tools"].as_array().unwrap();
        let shown: Vec<_> = shown.iter().map(|tool| tool["function"]["name"].clone()).collect();
        assert_eq!(shown, names, "{choice}");
        assert!(got.get("strict_tools").is_none());
    }
    let got = with(
        MODEL,
        json!({ "tools": [{ "type": "function", "function": { "name": "f", "description": "d" } }] }),
    );
    let bare = json!({ "name": "f", "description": "d", "parameters": { "type": "object", "properties": {} } });
    assert_eq!(got["tools"], json!([{ "type": "function", "function": bare }]));
    // All tools are strict, or none; and one without a required parameter can't be.
    let strict = |list: &[(&str, Value)]| with(MODEL, json!({ "tools": tools(list, true) }));
    assert_eq!(strict(&[("f", schema())])["strict_tools"], true);
    let got = strict(&[("f", schema()), ("g", json!({ "type": "object" }))]);
    assert!(got.get("strict_tools").is_none());
}

#[test]
fn results_come_first_and_proofs_of_others_do_not_go_out() {
    let signature = Signature { family: Family::Anthropic, text: "proof".into() };
    let text = |text: &str| Part::Text { text: text.into(), cache: Some(json!({ "type": "x" })) };
    let mut prompt = Prompt::default();
    prompt.say(
        Role::Assistant,
        vec![
            Part::Thought { text: "hm".into(), signature: Some(signature.clone()) },
            Part::Redacted { data: "hidden".into() },
            Part::Call {
                id: "c".into(),
                name: "f".into(),
                input: json!({}),
                signature: Some(signature),
            },
        ],
    );
    let result =
        Part::Result { id: "c".into(), name: "f".into(), parts: vec![text("7")], is_error: false };
    prompt.say(Role::User, vec![text("so?"), result]);
    prompt.say(Role::Assistant, vec![Part::Redacted { data: "hidden".into() }]);
    let got = Value::Object(write(&prompt, MODEL).unwrap());
    let function = json!({ "name": "f", "arguments": "{}" });
    let expected = json!([
        { "role": "assistant", "tool_plan": "hm",
          "tool_calls": [{ "id": "c", "type": "function", "function": function }] },
        { "role": "tool", "tool_call_id": "c", "content": "7" },
        { "role": "user", "content": "so?" },
    ]);
    assert_eq!(got, json!({ "messages": expected }));
}

#[test]
fn what_can_not_be_said_is_refused() {
    let user = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
    let form = json!({ "type": "json_object" });
    for chat in [
        user(json!({ "type": "input_audio", "input_audio": { "data": "QQ==" } })),
        user(json!({ "type": "file", "file": { "file_id": "f" } })),
        user(
            json!({ "type": "file", "file": { "file_data": "data:application/pdf;base64,QQ==" } }),
        ),
        json!({ "messages": [], "n": 2 }),
        json!({ "messages": [{ "role": "assistant", "content": "{" }] }),
        json!({ "messages": [], "response_format": form, "tools": tools(&[("f", schema())], false) }),
        json!({ "messages": [], "response_format": form, "documents": ["a"] }),
        json!({ "messages": [], "tools": tools(&[("f", schema())], false),
            "tool_choice": { "type": "function", "function": { "name": "g" } } }),
    ] {
        assert_eq!(body(chat.clone()), Err(Fault::Unsendable), "{chat}");
    }
}
