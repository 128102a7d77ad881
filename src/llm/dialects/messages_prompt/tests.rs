use serde_json::json;

use super::*;
use crate::llm::prompt::Turn;

fn plain(said: &str) -> Part {
    Part::Text { text: said.into(), cache: None }
}

fn media(mime: &str, source: Source) -> Media {
    Media { mime: mime.into(), source, ..Media::default() }
}

fn turns(messages: Value) -> Result<Vec<Turn>, Unreadable> {
    read(&json!({ "max_tokens": 9, "messages": messages })).map(|prompt| prompt.turns)
}

/// The parts of a user's turn of these blocks.
fn user(blocks: Value) -> Result<Vec<Part>, Unreadable> {
    let turns = turns(json!([{ "role": "user", "content": blocks }]))?;
    Ok(turns.into_iter().flat_map(|turn| turn.parts).collect())
}

fn with(field: &str, value: Value) -> Result<Prompt, Unreadable> {
    let mut body = json!({ "max_tokens": 9, "messages": [] });
    body[field] = value;
    read(&body)
}

#[test]
fn a_system_text_is_a_string_or_blocks() {
    let marker = json!({ "type": "ephemeral", "ttl": "1h" });
    assert_eq!(with("system", json!("be brief")).unwrap().system, [plain("be brief")]);
    let blocks = json!([
        { "type": "text", "text": "" },
        { "type": "text", "text": "long", "cache_control": marker },
    ]);
    let kept = Part::Text { text: "long".into(), cache: Some(marker) };
    assert_eq!(with("system", blocks).unwrap().system, [kept]);
    let middle = json!([
        { "role": "user", "content": "x" },
        { "role": "system", "content": "still brief" },
    ]);
    let prompt = with("messages", middle).unwrap();
    assert_eq!((prompt.system, prompt.turns.len()), (vec![plain("still brief")], 1));
}

#[test]
fn a_conversation_with_tools_keeps_its_order() {
    let got = turns(json!([
        { "role": "user", "content": "go" },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "hm", "signature": "sig" },
            { "type": "text", "text": "I will" },
            { "type": "tool_use", "id": "t1", "name": "f", "input": { "x": 1 } },
            { "type": "server_tool_use", "id": "s1", "name": "web_search", "input": {} },
            { "type": "web_search_tool_result", "tool_use_id": "s1", "content": [] },
            { "type": "tool_use", "id": "t2", "name": "g" },
        ] },
        { "role": "user", "content": [
            { "type": "tool_result", "tool_use_id": "t2", "content": "two", "is_error": true },
            { "type": "tool_result", "tool_use_id": "t1", "content": [
                { "type": "text", "text": "one" },
                { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "QUJD" } },
            ] },
            { "type": "tool_result", "tool_use_id": "t9" },
            { "type": "text", "text": "so?" },
        ] },
        { "role": "assistant", "content": "The answer is" },
    ]))
    .unwrap();
    let result = |id: &str, name: &str, parts: Vec<Part>, is_error| Part::Result {
        id: id.into(),
        name: name.into(),
        parts,
        is_error,
    };
    let roles: Vec<_> = got.iter().map(|turn| turn.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User, Role::Assistant]);
    assert!(matches!(&got[1].parts[0], Part::Thought { text, signature: Some(_) } if text == "hm"));
    assert!(matches!(&got[1].parts[2], Part::Call { id, name, input, .. }
        if id == "t1" && name == "f" && *input == json!({ "x": 1 })));
    assert!(matches!(&got[1].parts[3], Part::Call { id, input, .. }
        if id == "t2" && *input == json!({})));
    assert_eq!(got[1].parts.len(), 4);
    let image = Part::Media(media("image/png", Source::Data("QUJD".into())));
    assert_eq!(
        got[2].parts,
        [
            result("t2", "g", vec![plain("two")], true),
            result("t1", "f", vec![plain("one"), image], false),
            result("t9", "", vec![], false),
            plain("so?"),
        ]
    );
    assert_eq!(got[3].parts, [plain("The answer is")]);
}

#[test]
fn images_and_documents_keep_what_is_said_of_them() {
    let marker = json!({ "type": "ephemeral" });
    let got = user(json!([
        { "type": "image", "source": { "type": "url", "url": "https://x/y.png" }, "cache_control": marker },
        { "type": "document", "title": "a", "context": "from b", "citations": { "enabled": true },
          "source": { "type": "base64", "media_type": "application/pdf", "data": "UERG" } },
        { "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": "żółw" } },
        { "type": "document", "source": { "type": "url", "url": "https://x/y" } },
    ]))
    .unwrap();
    let pdf = Media {
        name: Some("a".into()),
        context: Some("from b".into()),
        citations: true,
        ..media("application/pdf", Source::Data("UERG".into()))
    };
    let Part::Media(text) = &got[2] else { panic!("{got:?}") };
    assert_eq!((text.mime.as_str(), text.plain().as_deref()), ("text/plain", Some("żółw")));
    let address = |url: &str| Source::Url(url.into());
    assert_eq!(
        [&got[0], &got[1], &got[3]],
        [
            &Part::Media(Media { cache: Some(marker), ..media("", address("https://x/y.png")) }),
            &Part::Media(pdf),
            &Part::Media(media("application/pdf", address("https://x/y"))),
        ]
    );
}

#[test]
fn what_is_made_of_blocks_is_told_as_blocks() {
    let made = json!([{ "type": "document", "title": "t", "source": { "type": "content", "content": [
        { "type": "text", "text": "a" }, { "type": "text", "text": "b" },
    ] } }]);
    assert_eq!(user(made).unwrap(), [plain("t"), plain("a"), plain("b")]);
    let found = json!([{ "type": "search_result", "title": "t", "source": "https://x",
        "content": [{ "type": "text", "text": "a" }], "citations": { "enabled": true } }]);
    assert_eq!(user(found).unwrap(), [plain("t\nhttps://x"), plain("a")]);
}

#[test]
fn tools_are_read() {
    let marker = json!({ "type": "ephemeral" });
    let prompt = with(
        "tools",
        json!([
            { "name": "f", "description": "d", "input_schema": { "type": "object" }, "strict": true },
            { "type": "custom", "name": "g", "input_schema": {}, "cache_control": marker },
        ]),
    )
    .unwrap();
    let f = Tool {
        name: "f".into(),
        description: Some("d".into()),
        schema: Some(json!({ "type": "object" })),
        strict: Some(true),
        cache: None,
    };
    assert_eq!(prompt.tools[0], f);
    assert_eq!(prompt.tools[1].cache, Some(marker));
    for (choice, want, parallel) in [
        (json!({ "type": "auto" }), Some(Choice::Auto), None),
        (
            json!({ "type": "any", "disable_parallel_tool_use": true }),
            Some(Choice::Any),
            Some(false),
        ),
        (json!({ "type": "none" }), Some(Choice::None), None),
        (
            json!({ "type": "tool", "name": "f", "disable_parallel_tool_use": false }),
            Some(Choice::Named("f".into())),
            Some(true),
        ),
        (json!(null), None, None),
    ] {
        let prompt = with("tool_choice", choice).unwrap();
        assert_eq!((prompt.choice, prompt.parallel), (want, parallel));
    }
}

#[test]
fn parameters_are_read() {
    let prompt = read(&json!({
        "max_tokens": 7, "messages": [], "stop_sequences": ["a", "b"], "temperature": 0.5,
        "top_p": 0.9, "top_k": 4, "metadata": { "user_id": "u" }, "service_tier": "standard_only",
        "output_config": { "format": { "type": "json_schema", "schema": { "type": "object" } } },
    }))
    .unwrap();
    assert_eq!((prompt.max_tokens, prompt.stop.len()), (Some(7), 2));
    assert_eq!(prompt.user.as_deref(), Some("u"));
    let params = json!({ "temperature": 0.5, "top_p": 0.9, "top_k": 4, "service_tier": "default" });
    assert_eq!(Value::Object(prompt.params), params);
    assert!(matches!(prompt.format, Some(Format::Schema { strict: Some(true), .. })));
    let older = json!({ "type": "json_schema", "schema": {} });
    assert!(matches!(with("output_format", older).unwrap().format, Some(Format::Schema { .. })));
}

#[test]
fn a_long_name_of_a_user_is_told_by_its_digest() {
    let named = |name: &str| with("metadata", json!({ "user_id": name })).unwrap().user.unwrap();
    assert_eq!(named(&"u".repeat(64)), "u".repeat(64));
    let long = named(&"u".repeat(65));
    assert_eq!((long.len(), &long), (64, &named(&"u".repeat(65))));
    assert_ne!(long, named(&"u".repeat(66)));
}

#[test]
fn thinking_is_an_effort() {
    for (thinking, effort, want) in [
        (json!(null), json!(null), None),
        (json!(null), json!("low"), Some("low")),
        (json!({ "type": "disabled" }), json!("high"), Some("none")),
        (json!({ "type": "adaptive" }), json!(null), Some("high")),
        (json!({ "type": "adaptive" }), json!("max"), Some("max")),
        (json!({ "type": "between_tools" }), json!("low"), Some("low")),
        (json!({ "type": "enabled", "budget_tokens": 1024 }), json!(null), Some("low")),
        (json!({ "type": "enabled", "budget_tokens": 16000 }), json!(null), Some("medium")),
        (json!({ "type": "enabled", "budget_tokens": 32000 }), json!(null), Some("high")),
    ] {
        let body = json!({ "max_tokens": 9, "messages": [], "thinking": thinking,
            "output_config": { "effort": effort } });
        assert_eq!(read(&body).unwrap().effort.as_deref(), want, "{body}");
    }
}

#[test]
fn what_makes_no_sense_or_has_no_other_home_is_named() {
    let block = |block: Value| json!([{ "role": "user", "content": [block] }]);
    let file = json!({ "type": "file", "file_id": "file_1" });
    for (field, value, at) in [
        ("messages", json!(null), "messages"),
        ("messages", json!([{ "role": "wizard" }]), "messages[0].role"),
        ("messages", json!([{ "role": "user", "content": 7 }]), "messages[0].content"),
        ("messages", block(json!({ "type": "smell" })), "messages[0].content[0].type"),
        ("messages", block(json!({ "type": "text" })), "messages[0].content[0].text"),
        (
            "messages",
            block(json!({ "type": "image", "source": file })),
            "messages[0].content[0].source.type",
        ),
        (
            "messages",
            block(json!({ "type": "document", "source": file })),
            "messages[0].content[0].source.type",
        ),
        (
            "messages",
            block(json!({ "type": "container_upload", "file_id": "f" })),
            "messages[0].content[0].type",
        ),
        (
            "messages",
            block(json!({ "type": "tool_result", "content": "x" })),
            "messages[0].content[0].tool_use_id",
        ),
        (
            "messages",
            block(json!({ "type": "tool_use", "id": "a", "name": "f", "input": "x" })),
            "messages[0].content[0].input",
        ),
        ("max_tokens", json!(null), "max_tokens"),
        ("max_tokens", json!("9"), "max_tokens"),
        (
            "tools",
            json!([{ "type": "web_search_20250305", "name": "web_search" }]),
            "tools[0].type",
        ),
        ("tools", json!([{ "type": "bash_20250124", "name": "bash" }]), "tools[0].type"),
        ("tools", json!([{ "input_schema": {} }]), "tools[0].name"),
        ("tool_choice", json!({ "type": "maybe" }), "tool_choice.type"),
        ("tool_choice", json!({ "type": "tool" }), "tool_choice.name"),
        ("thinking", json!({ "type": "enabled" }), "thinking.budget_tokens"),
        ("thinking", json!({ "type": "deep" }), "thinking.type"),
        ("output_config", json!({ "format": { "type": "xml" } }), "output_config.format"),
        ("mcp_servers", json!([{ "url": "https://x" }]), "mcp_servers"),
        ("container", json!("c"), "container"),
    ] {
        assert_eq!(with(field, value.clone()).unwrap_err().at, at, "{field} {value}");
    }
}
