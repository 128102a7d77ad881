//! Every item, part and parameter that is read, and the place of what is not.

use serde_json::json;

use super::*;

fn said(text: &str) -> Part {
    Part::Text { text: text.into(), cache: None }
}

fn media(mime: &str, source: Source, name: Option<&str>) -> Part {
    Part::Media(Media {
        mime: mime.into(),
        source,
        name: name.map(str::to_owned),
        ..Media::default()
    })
}

#[test]
fn a_string_is_what_the_user_says() {
    let prompt = read(&json!({ "input": "hi", "instructions": "be brief" })).unwrap();
    assert_eq!(prompt.system, [said("be brief")]);
    assert_eq!(
        prompt.turns,
        [crate::llm::prompt::Turn { role: Role::User, parts: vec![said("hi")] }]
    );
}

#[test]
fn items_become_turns() {
    let prompt = read(&json!({ "input": [
        { "role": "developer", "content": "be brief" },
        { "type": "message", "role": "user", "content": [
            { "type": "input_text", "text": "what is", "cache_control": { "type": "ephemeral" } },
            { "type": "input_text", "text": "" },
            { "type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "low" },
            { "type": "input_image", "image_url": "https://x/y.png" },
            { "type": "input_image", "file_id": "file-1" },
            { "type": "input_file", "file_data": "data:text/plain;base64,UERG", "filename": "a.txt" },
            { "type": "input_file", "file_data": "UERG", "filename": "a.pdf" },
            { "type": "input_file", "file_url": "https://x/y.pdf" },
            { "type": "input_file", "file_id": "file-2" },
            { "type": "input_audio", "input_audio": { "data": "QQ==", "format": "mp3" } },
        ] },
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [
            { "type": "output_text", "text": "so", "annotations": [], "logprobs": [] },
            { "type": "refusal", "refusal": "no" },
        ] },
        { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}", "status": "completed" },
        { "type": "function_call", "call_id": "c2", "name": "g", "arguments": "" },
        { "type": "function_call_output", "call_id": "c1", "output": "one" },
        { "type": "function_call_output", "call_id": "c2", "status": "incomplete", "output": [
            { "type": "input_text", "text": "two" },
            { "type": "input_image", "image_url": "https://x/z.png" },
        ] },
        { "role": "user", "content": "so?" },
    ] }))
    .unwrap();
    assert_eq!(prompt.system, [said("be brief")]);
    let url = |url: &str| Source::Url(url.into());
    assert_eq!(
        prompt.turns[0].parts,
        [
            Part::Text { text: "what is".into(), cache: Some(json!({ "type": "ephemeral" })) },
            media("image/png", Source::Data("QUJD".into()), None),
            media("", url("https://x/y.png"), None),
            media("image/*", Source::File("file-1".into()), None),
            media("text/plain", Source::Data("UERG".into()), Some("a.txt")),
            media("application/pdf", Source::Data("UERG".into()), Some("a.pdf")),
            media("application/pdf", url("https://x/y.pdf"), None),
            media("", Source::File("file-2".into()), None),
            media("audio/mp3", Source::Data("QQ==".into()), None),
        ]
    );
    let call = |id: &str, name: &str, input: Value| {
        let (id, name) = (id.into(), name.into());
        Part::Call { id, name, input, signature: None }
    };
    assert_eq!(
        prompt.turns[1].parts,
        [said("so"), said("no"), call("c1", "f", json!({ "x": 1 })), call("c2", "g", json!({}))]
    );
    let result = |id: &str, name: &str, parts: Vec<Part>, is_error| Part::Result {
        id: id.into(),
        name: name.into(),
        parts,
        is_error,
    };
    assert_eq!(
        prompt.turns[2].parts,
        [
            result("c1", "f", vec![said("one")], false),
            result("c2", "g", vec![said("two"), media("", url("https://x/z.png"), None)], true),
            said("so?"),
        ]
    );
    assert_eq!(prompt.turns.len(), 3);
}

#[test]
fn reasoning_keeps_its_proof() {
    let summary =
        json!([{ "type": "summary_text", "text": "a" }, { "type": "summary_text", "text": "b" }]);
    let item = |encrypted: &str| json!({ "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": encrypted });
    let prompt = read(&json!({ "input": [
        { "type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gAAA" },
        { "type": "reasoning", "id": "rs_1", "summary": [], "content": [{ "type": "reasoning_text", "text": "c" }] },
        { "type": "reasoning", "id": "rs_1", "summary": [] },
        item("firstbyte:anthropic:proof"),
        item("firstbyte:redacted:hidden"),
        item("firstbyte:call:firstbyte:gemini:proof:c:1"),
        { "type": "function_call", "call_id": "c:1", "name": "f", "arguments": "{}" },
        { "type": "function_call", "call_id": "c:2", "name": "f", "arguments": "{}" },
        { "type": "image_generation_call", "id": "ig_1", "result": "QUJD", "output_format": "webp" },
    ] }))
    .unwrap();
    let signed = |text: &str, family: Family, proof: &str| Part::Thought {
        text: text.into(),
        signature: Some(Signature { family, text: proof.into() }),
    };
    let call = |id: &str, signature: Option<Signature>| Part::Call {
        id: id.into(),
        name: "f".into(),
        input: json!({}),
        signature,
    };
    let gemini = Signature { family: Family::Gemini, text: "proof".into() };
    assert_eq!(
        prompt.turns[0].parts,
        [
            signed("a\n\nb", Family::Openai, "rs_1:gAAA"),
            Part::Thought { text: "c".into(), signature: None },
            signed("", Family::Anthropic, "proof"),
            Part::Redacted { data: "hidden".into() },
            call("c:1", Some(gemini)),
            call("c:2", None),
            media("image/webp", Source::Data("QUJD".into()), None),
        ]
    );
}

#[test]
fn tools_and_parameters_are_read() {
    let prompt = read(&json!({
        "input": [],
        "tools": [
            { "type": "function", "name": "f", "description": "d", "parameters": { "type": "object" }, "strict": true },
            { "type": "function", "name": "g" },
        ],
        "tool_choice": { "type": "function", "name": "f" },
        "parallel_tool_calls": false, "max_output_tokens": 7, "reasoning": { "effort": "low" },
        "user": "u", "temperature": 0.5, "top_p": null, "store": true, "background": false,
        "text": { "format": { "type": "json_schema", "name": "s", "schema": { "type": "object" }, "strict": true }, "verbosity": "low" },
    }))
    .unwrap();
    assert_eq!(prompt.tools[0].strict, Some(true));
    assert_eq!((prompt.tools[1].strict, &prompt.tools[1].schema), (None, &None));
    assert_eq!(prompt.choice, Some(Choice::Named("f".into())));
    assert_eq!((prompt.parallel, prompt.max_tokens), (Some(false), Some(7)));
    assert_eq!((prompt.effort, prompt.user), (Some("low".into()), Some("u".into())));
    let params = [("temperature".into(), json!(0.5)), ("verbosity".into(), json!("low"))];
    assert_eq!(prompt.params, Map::from_iter(params));
    assert!(matches!(prompt.format, Some(Format::Schema { strict: Some(true), .. })));
    let some = json!({ "type": "allowed_tools", "mode": "required", "tools": [{ "type": "function", "name": "g" }] });
    let tools = json!([{ "type": "function", "name": "f" }, { "type": "function", "name": "g" }]);
    let prompt = read(&json!({ "input": "x", "tools": tools, "tool_choice": some })).unwrap();
    assert_eq!((prompt.tools.len(), prompt.tools[0].name.as_str()), (1, "g"));
    assert_eq!(prompt.choice, Some(Choice::Any));
}

#[test]
fn what_no_other_format_can_say_is_named() {
    let item = |item: Value| json!({ "input": [item] });
    let part = |part: Value| item(json!({ "role": "user", "content": [part] }));
    let with = |name: &str, value: Value| {
        let mut body = json!({ "input": "x" });
        body[name] = value;
        body
    };
    for (body, at) in [
        (json!({}), "input"),
        (with("previous_response_id", json!("resp_1")), "previous_response_id"),
        (with("conversation", json!("conv_1")), "conversation"),
        (with("prompt", json!({ "id": "p" })), "prompt"),
        (with("background", json!(true)), "background"),
        (with("instructions", json!(7)), "instructions"),
        (with("tools", json!([{ "type": "web_search" }])), "tools[0].type"),
        (with("tools", json!([{ "type": "custom", "name": "f" }])), "tools[0].type"),
        (with("tools", json!([{ "type": "function" }])), "tools[0].name"),
        (with("tool_choice", json!("maybe")), "tool_choice"),
        (with("tool_choice", json!({ "type": "mcp" })), "tool_choice"),
        (
            with("tool_choice", json!({ "type": "allowed_tools", "tools": [{ "type": "mcp" }] })),
            "tool_choice.tools",
        ),
        (with("text", json!({ "format": { "type": "grammar" } })), "text.format.type"),
        (with("text", json!({ "format": { "type": "json_schema" } })), "text.format.schema"),
        (item(json!({ "role": "wizard", "content": "x" })), "input[0].role"),
        (item(json!({ "role": "user", "content": 7 })), "input[0].content"),
        (item(json!({ "type": "item_reference", "id": "x" })), "input[0].type"),
        (item(json!({ "type": "web_search_call", "id": "x" })), "input[0].type"),
        (item(json!({ "type": "custom_tool_call", "name": "x" })), "input[0].type"),
        (item(json!({})), "input[0].type"),
        (item(json!({ "type": "function_call", "name": "f" })), "input[0].call_id"),
        (
            item(json!({ "type": "function_call", "call_id": "c", "name": "f", "arguments": "{" })),
            "input[0].arguments",
        ),
        (item(json!({ "type": "function_call_output", "output": "x" })), "input[0].call_id"),
        (part(json!({ "type": "smell" })), "input[0].content[0].type"),
        (part(json!({ "type": "input_text" })), "input[0].content[0].text"),
        (part(json!({ "type": "input_image" })), "input[0].content[0].image_url"),
        (part(json!({ "type": "input_file" })), "input[0].content[0]"),
    ] {
        assert_eq!(read(&body).unwrap_err().at, at, "{body}");
    }
}
