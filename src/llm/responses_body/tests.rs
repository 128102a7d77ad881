//! Every mapped field, from a chat request to a Responses one, and what can't be said.

use serde_json::{Value, json};

use super::*;
use crate::llm::dialects::{chat_prompt, responses_prompt};
use crate::llm::prompt::Signature;

fn body_for(model: &str, chat: Value) -> Result<Value, Fault> {
    write(&chat_prompt::read(&chat).unwrap(), model).map(Value::Object)
}

fn body(chat: Value) -> Result<Value, Fault> {
    body_for("gpt-4.1", chat)
}

fn with(field: &str, value: Value) -> Result<Value, Fault> {
    let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    chat[field] = value;
    body(chat)
}

#[test]
fn a_conversation_with_tools_keeps_its_meaning() {
    let function = |name: &str, arguments: &str| json!({ "name": name, "arguments": arguments });
    let got = body(json!({ "messages": [
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": [
            { "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
            { "type": "image_url", "image_url": { "url": "https://x/y.webp" } },
            { "type": "file", "file": { "file_data": "data:application/pdf;base64,UERG", "filename": "a.pdf" } },
            { "type": "file", "file": { "file_id": "file-1" } },
        ] },
        { "role": "assistant", "content": "so", "tool_calls": [
            { "id": "c1", "type": "function", "function": function("f", "{\"x\":1}") },
            { "id": "c2", "type": "function", "function": function("g", "") },
        ] },
        { "role": "tool", "tool_call_id": "c1", "content": "one" },
        { "role": "tool", "tool_call_id": "c2", "content": [
            { "type": "text", "text": "two" },
            { "type": "image_url", "image_url": { "url": "https://x/z.png" } },
        ], "is_error": true },
        { "role": "user", "content": "and now?" },
        { "role": "assistant", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
    ] }))
    .unwrap();
    let image = |url: &str| json!({ "type": "input_image", "detail": "auto", "image_url": url });
    let text = |text: &str| json!({ "type": "input_text", "text": text });
    let said = |text: &str| json!({ "type": "output_text", "text": text });
    assert_eq!(
        got,
        json!({ "store": false, "input": [
            { "role": "system", "content": [text("be brief")] },
            { "role": "user", "content": [
                text("look"),
                image("data:image/png;base64,QUJD"),
                image("https://x/y.webp"),
                { "type": "input_file", "file_data": "data:application/pdf;base64,UERG", "filename": "a.pdf" },
                { "type": "input_file", "file_id": "file-1" },
            ] },
            { "role": "assistant", "content": "so" },
            { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}" },
            { "type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c1", "output": "one" },
            { "type": "function_call_output", "call_id": "c2", "status": "incomplete",
              "output": [text("Error:"), text("two"), image("https://x/z.png")] },
            { "role": "user", "content": [text("and now?")] },
            { "role": "assistant", "content": [said("a"), said("b")] },
        ] })
    );
}

#[test]
fn parameters_find_their_place() {
    let got = body(json!({
        "messages": [{ "role": "user", "content": "x" }],
        "temperature": 1.5, "top_p": 0.5, "max_tokens": 9, "reasoning_effort": "low", "user": "u",
        "metadata": { "a": "b" }, "service_tier": "flex", "verbosity": "low",
        "safety_identifier": "s", "prompt_cache_key": "k",
        "seed": 7, "n": 1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "logprobs": true,
        "top_logprobs": 3, "logit_bias": { "1": 2 },
        "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": { "type": "object" }, "strict": true } },
    }))
    .unwrap();
    assert_eq!(
        got,
        json!({
            "store": false,
            "input": [{ "role": "user", "content": [{ "type": "input_text", "text": "x" }] }],
            "text": {
                "format": { "type": "json_schema", "name": "s", "schema": { "type": "object" }, "strict": true },
                "verbosity": "low",
            },
            "max_output_tokens": 16, "user": "u", "temperature": 1.5, "top_p": 0.5,
            "metadata": { "a": "b" }, "service_tier": "flex", "safety_identifier": "s",
            "prompt_cache_key": "k",
            "reasoning": { "effort": "low", "summary": "auto" },
            "include": ["reasoning.encrypted_content"],
        })
    );
    assert_eq!(with("max_tokens", json!(500)).unwrap()["max_output_tokens"], 500);
    let json = with("response_format", json!({ "type": "json_object" })).unwrap();
    assert_eq!(json["text"], json!({ "format": { "type": "json_object" } }));
}

#[test]
fn encrypted_reasoning_is_asked_for_where_there_is_some() {
    let chat = |effort: Value| json!({ "messages": [{ "role": "user", "content": "x" }], "reasoning_effort": effort });
    for (model, effort, reasoning, included) in [
        ("gpt-4.1", Value::Null, Value::Null, false),
        ("gpt-5-mini", Value::Null, Value::Null, true),
        ("gpt-5-chat-latest", Value::Null, Value::Null, false),
        ("openai/o3", Value::Null, Value::Null, true),
        ("olmo", Value::Null, Value::Null, false),
        ("grok-4", json!("high"), json!({ "effort": "high", "summary": "auto" }), true),
        ("gpt-5", json!("none"), json!({ "effort": "none" }), false),
    ] {
        let got = body_for(model, chat(effort)).unwrap();
        assert_eq!(got.get("reasoning").unwrap_or(&Value::Null), &reasoning, "{model}");
        assert_eq!(got.get("include").is_some(), included, "{model}");
    }
    for (budget, effort) in [(0, "none"), (1024, "low"), (8192, "medium"), (30_000, "high")] {
        let prompt = Prompt { budget: Some(budget), ..Prompt::default() };
        assert_eq!(write(&prompt, "m").unwrap()["reasoning"]["effort"], effort);
    }
}

#[test]
fn thoughts_go_back_to_their_own_family_alone() {
    let signed = |family: Family, text: &str| Part::Thought {
        text: "hm".into(),
        signature: Some(Signature { family, text: text.into() }),
    };
    let say = |text: &str| Part::Text { text: text.into(), cache: None };
    let mut prompt = Prompt::default();
    prompt.say(
        Role::Assistant,
        vec![
            signed(Family::Anthropic, "theirs"),
            Part::Redacted { data: "hidden".into() },
            signed(Family::Openai, "rs_1:gAAA"),
            say("a"),
            Part::Thought { text: "bare".into(), signature: None },
            signed(Family::Openai, ":gBBB"),
        ],
    );
    prompt.say(Role::User, vec![say("b")]);
    let got = Value::Object(write(&prompt, "m").unwrap());
    let summary = json!([{ "type": "summary_text", "text": "hm" }]);
    assert_eq!(
        got["input"],
        json!([
            { "type": "reasoning", "summary": summary, "encrypted_content": "gAAA", "id": "rs_1" },
            // The one that nothing of its turn follows would be refused.
            { "role": "assistant", "content": "a" },
            { "role": "user", "content": [{ "type": "input_text", "text": "b" }] },
        ])
    );
    assert_eq!(got["include"], json!(["reasoning.encrypted_content"]));
}

#[test]
fn tools_and_choices_are_translated() {
    let schema = json!({ "type": "object", "properties": { "x": {} } });
    let tools = json!([
        { "type": "function", "function": { "name": "f", "description": "d", "parameters": schema, "strict": true } },
        { "type": "function", "function": { "name": "g" } },
    ]);
    for (choice, want) in [
        (json!("auto"), json!("auto")),
        (json!("none"), json!("none")),
        (json!("required"), json!("required")),
        (
            json!({ "type": "function", "function": { "name": "f" } }),
            json!({ "type": "function", "name": "f" }),
        ),
    ] {
        let got = body(json!({
            "messages": [], "tools": tools, "tool_choice": choice, "parallel_tool_calls": false,
        }))
        .unwrap();
        assert_eq!(
            got["tools"],
            json!([
                { "type": "function", "name": "f", "parameters": schema, "strict": true, "description": "d" },
                { "type": "function", "name": "g", "parameters": { "type": "object", "properties": {} }, "strict": false },
            ])
        );
        assert_eq!((&got["tool_choice"], &got["parallel_tool_calls"]), (&want, &json!(false)));
    }
    // Without tools there is no choice among them.
    let got = with("tool_choice", json!("auto")).unwrap();
    assert!(got.get("tool_choice").is_none());
}

#[test]
fn what_can_not_be_said_is_refused() {
    assert_eq!(with("n", json!(2)), Err(Fault::Unsendable));
    assert_eq!(with("stop", json!("x")), Err(Fault::Unsendable));
    let audio =
        json!({ "type": "input_audio", "input_audio": { "data": "QQ==", "format": "wav" } });
    let chat = json!({ "messages": [{ "role": "user", "content": [audio] }] });
    assert_eq!(body(chat), Err(Fault::Unsendable));
}

#[test]
fn a_request_of_the_dialect_comes_out_as_it_went_in() {
    let request = json!({
        "store": false,
        "input": [
            { "role": "system", "content": [{ "type": "input_text", "text": "be brief" }] },
            { "role": "user", "content": [
                { "type": "input_text", "text": "look" },
                { "type": "input_image", "detail": "auto", "image_url": "https://x/y.png" },
                { "type": "input_file", "file_url": "https://x/y.pdf" },
                { "type": "input_file", "file_id": "file-1" },
                { "type": "input_image", "detail": "auto", "file_id": "file-2" },
            ] },
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "hm" }],
              "encrypted_content": "gAAA", "id": "rs_1" },
            { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}" },
            { "type": "function_call_output", "call_id": "c1", "output": "one" },
        ],
        "tools": [{ "type": "function", "name": "f", "parameters": { "type": "object" }, "strict": true, "description": "d" }],
        "tool_choice": { "type": "function", "name": "f" },
        "parallel_tool_calls": true,
        "text": { "format": { "type": "json_schema", "name": "s", "schema": { "type": "object" }, "strict": false }, "verbosity": "high" },
        "max_output_tokens": 99, "user": "u", "temperature": 0.5, "top_p": 0.5,
        "metadata": { "a": "b" }, "service_tier": "auto", "safety_identifier": "s", "prompt_cache_key": "k",
        "reasoning": { "effort": "high", "summary": "auto" },
        "include": ["reasoning.encrypted_content"],
    });
    let prompt = responses_prompt::read(&request).unwrap();
    assert_eq!(Value::Object(write(&prompt, "gpt-5").unwrap()), request);
}
