//! Prompts as chat bodies: each field where it belongs, and back to the same prompt.

use super::*;
use crate::llm::dialects::chat_prompt;
use crate::llm::prompt::Signature;

fn text(text: &str) -> Part {
    Part::Text { text: text.into(), cache: None }
}

fn medium(mime: &str, source: Source, name: Option<&str>) -> Part {
    Part::Media(Media {
        mime: mime.into(),
        source,
        name: name.map(str::to_owned),
        ..Media::default()
    })
}

fn data(mime: &str, data: &str) -> Part {
    medium(mime, Source::Data(data.into()), None)
}

fn result(id: &str, parts: Vec<Part>, is_error: bool) -> Part {
    Part::Result { id: id.into(), name: "f".into(), parts, is_error }
}

fn user(parts: Vec<Part>) -> Prompt {
    let mut prompt = Prompt::default();
    prompt.say(Role::User, parts);
    prompt
}

fn messages(prompt: &Prompt) -> Result<Value, Fault> {
    write(prompt, "m").map(|mut body| body.remove("messages").unwrap())
}

/// What a chat client can say comes back as it went out.
fn back(chat: Value) -> Value {
    let prompt = chat_prompt::read(&chat).unwrap();
    let body = Value::Object(write(&prompt, "m").unwrap());
    assert_eq!(chat_prompt::read(&body).unwrap(), prompt, "{chat}\n{body}");
    body
}

#[test]
fn what_chat_can_say_comes_back_the_same() {
    let contents = [
        json!("hi"),
        json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]),
        json!([{ "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } }]),
        json!([{ "type": "image_url", "image_url": { "url": "https://x/y.png" } }, { "type": "text", "text": "b" }]),
        json!([{ "type": "image_url", "image_url": { "url": "data:image/webp;base64,QUJD" } }]),
        json!([{ "type": "input_audio", "input_audio": { "data": "QQ==", "format": "mp3" } }]),
        json!([{ "type": "file", "file": { "file_data": "data:application/pdf;base64,UERG", "filename": "a.pdf" } }]),
        json!([{ "type": "file", "file": { "file_id": "file-1" } }]),
    ];
    let call = json!([
        { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\":[1,{\"y\":\"é\"}]}" } },
        { "id": "b", "type": "function", "function": { "name": "g", "arguments": "{}" } },
    ]);
    let assistants = [
        json!({ "role": "assistant", "content": "x" }),
        json!({ "role": "assistant", "content": "x", "reasoning_content": "hm" }),
        json!({ "role": "assistant", "content": "", "reasoning_content": "hm" }),
        json!({ "role": "assistant", "content": null, "tool_calls": call }),
        json!({ "role": "assistant", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }], "tool_calls": call }),
    ];
    let params = [
        json!({}),
        json!({ "temperature": 0.5, "top_p": 1, "seed": 9007199254740993_u64, "n": 2, "logprobs": true, "top_logprobs": 3 }),
        json!({ "logit_bias": { "5": -1 }, "presence_penalty": 1, "frequency_penalty": -1, "user": "u", "metadata": { "a": "b" } }),
        json!({ "stop": "a", "max_tokens": 5, "reasoning_effort": "low", "service_tier": "flex", "verbosity": "low", "top_k": 4 }),
        json!({ "stop": ["a", "b"], "response_format": { "type": "json_object" } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": { "type": "object" }, "strict": true } } }),
        json!({ "tools": [{ "type": "function", "function": { "name": "f" } }], "tool_choice": "required" }),
        json!({
            "tools": [{ "type": "function", "function": { "name": "f", "description": "d", "parameters": { "type": "object" }, "strict": false }, "cache_control": { "type": "ephemeral" } }],
            "tool_choice": { "type": "function", "function": { "name": "f" } }, "parallel_tool_calls": false,
        }),
    ];
    let mut tried = 0;
    for system in [None, Some(0), Some(1), Some(2)] {
        for said in &contents {
            for assistant in &assistants {
                for params in &params {
                    let mut chat =
                        vec![json!({ "role": "user", "content": said }), assistant.clone()];
                    if let Some(system) = system {
                        chat.insert(0, json!({ "role": "system", "content": contents[system] }));
                    }
                    if assistant.get("tool_calls").is_some() {
                        chat.push(json!({ "role": "tool", "tool_call_id": "a", "content": "one" }));
                        chat.push(
                            json!({ "role": "tool", "tool_call_id": "b", "content": contents[1] }),
                        );
                    }
                    chat.push(json!({ "role": "user", "content": "so?" }));
                    let mut body = params.clone();
                    body["messages"] = Value::Array(chat);
                    back(body);
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(tried, 4 * 8 * 5 * 8);
}

#[test]
fn a_conversation_keeps_its_order_and_words() {
    let chat = json!([
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } },
        ] },
        { "role": "tool", "tool_call_id": "a", "content": "one" },
        { "role": "user", "content": "so?" },
        { "role": "assistant", "content": "yes" },
    ]);
    assert_eq!(back(json!({ "messages": chat }))["messages"], chat);
    let later = json!({ "messages": [
        { "role": "user", "content": "hi" }, { "role": "developer", "content": "be brief" },
    ] });
    assert_eq!(back(later)["messages"][0], json!({ "role": "system", "content": "be brief" }));
}

#[test]
fn results_stand_before_words_and_their_pictures_after() {
    let png = data("image/png", "QUJD");
    let prompt = user(vec![
        text("so?"),
        result("a", vec![text("one")], false),
        result("b", vec![text("two"), png, text("three")], true),
        result("c", vec![], false),
        result("d", vec![], true),
        result("e", vec![text("Error: no")], true),
    ]);
    assert_eq!(
        messages(&prompt).unwrap(),
        json!([
            { "role": "tool", "tool_call_id": "a", "content": "one" },
            { "role": "tool", "tool_call_id": "b", "content": [
                { "type": "text", "text": "Error:" },
                { "type": "text", "text": "two" },
                { "type": "text", "text": "three" },
            ] },
            { "role": "tool", "tool_call_id": "c", "content": "" },
            { "role": "tool", "tool_call_id": "d", "content": "Error: " },
            { "role": "tool", "tool_call_id": "e", "content": "Error: no" },
            { "role": "user", "content": [
                { "type": "text", "text": "Returned by f (call b):" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
                { "type": "text", "text": "so?" },
            ] },
        ])
    );
}

#[test]
fn media_have_their_places_or_none() {
    let url = |mime: &str| medium(mime, Source::Url("https://x/y".into()), None);
    for (part, want) in [
        (
            data("audio/mpeg", "QQ=="),
            json!({ "type": "input_audio", "input_audio": { "data": "QQ==", "format": "mp3" } }),
        ),
        (
            data("audio/x-wav", "QQ=="),
            json!({ "type": "input_audio", "input_audio": { "data": "QQ==", "format": "wav" } }),
        ),
        (
            data("application/pdf", "QQ=="),
            json!({ "type": "file", "file": { "filename": NO_NAME, "file_data": "data:application/pdf;base64,QQ==" } }),
        ),
        (
            medium("text/plain", Source::Data("aGk=".into()), Some("a.txt")),
            json!({ "type": "text", "text": "a.txt:\n\nhi" }),
        ),
        (url("image/png"), json!({ "type": "image_url", "image_url": { "url": "https://x/y" } })),
    ] {
        assert_eq!(messages(&user(vec![part])).unwrap()[0]["content"], json!([want]));
    }
    for part in [
        url("application/pdf"),
        url("audio/wav"),
        data("video/mp4", "QQ=="),
        data("text/plain", "?"),
        url("video/mp4"),
    ] {
        assert_eq!(messages(&user(vec![part.clone()])), Err(Fault::Unsendable), "{part:?}");
    }
    let mut drawn = user(vec![text("draw")]);
    drawn.say(Role::Assistant, vec![data("image/png", "QUJD")]);
    assert_eq!(messages(&drawn), Err(Fault::Unsendable));
}

#[test]
fn nothing_empty_is_invented() {
    let mut prompt = user(vec![text("")]);
    prompt.system.push(text(""));
    prompt.say(Role::Assistant, vec![Part::Thought { text: String::new(), signature: None }]);
    assert_eq!(messages(&prompt).unwrap(), json!([]));
    prompt.choice = Some(Choice::Any);
    prompt.parallel = Some(false);
    assert_eq!(write(&prompt, "m").unwrap().keys().collect::<Vec<_>>(), ["messages"]);
}

#[test]
fn the_greatest_number_of_tokens_has_the_word_that_the_model_knows() {
    for (model, new) in [
        ("o1", true),
        ("o3-mini", true),
        ("openai/o4-mini:floor", true),
        ("gpt-5", true),
        ("gpt-5.1-codex", true),
        ("gpt-4o", false),
        ("gpt-4.1", false),
        ("gpt-oss-120b", false),
        ("olmo-2", false),
        ("o1labs", false),
        ("", false),
    ] {
        let prompt = Prompt { max_tokens: Some(7), ..Prompt::default() };
        let body = write(&prompt, model).unwrap();
        assert_eq!(body.get("max_completion_tokens").is_some(), new, "{model}");
        assert_eq!(body.get("max_tokens").is_some(), !new, "{model}");
    }
}

/// What vendors' own clients sent, where the recordings lie beside the checkout.
#[test]
fn recorded_requests_keep_their_meaning() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let Ok(index) = std::fs::read_to_string(folder.join("INDEX.jsonl")) else {
        eprintln!("SKIPPED: there are no recordings at ../shared/fixtures");
        return;
    };
    let (mut read, mut unreadable, mut unsendable) = (0, Vec::new(), Vec::new());
    for row in index.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let Some(file) = row["request_file"].as_str() else { continue };
        if row["api"] != "openai-chat" {
            continue;
        }
        let chat = std::fs::read_to_string(folder.join(file)).unwrap();
        let chat: Value = serde_json::from_str(&chat).unwrap();
        let Ok(prompt) = chat_prompt::read(&chat) else {
            unreadable.push(file.to_owned());
            continue;
        };
        let Ok(body) = write(&prompt, chat["model"].as_str().unwrap_or_default()) else {
            unsendable.push(file.to_owned());
            continue;
        };
        // Pictures that a tool gave can't stand in its message.
        let moved = chat["messages"].as_array().into_iter().flatten().any(|message| {
            let parts = message["content"].as_array();
            let media = |part: &Value| part["type"] != "text";
            message["role"] == "tool" && parts.is_some_and(|parts| parts.iter().any(media))
        });
        if !moved {
            assert_eq!(chat_prompt::read(&Value::Object(body)).unwrap(), prompt, "{file}");
        }
        read += 1;
    }
    eprintln!("{read} read; unreadable {unreadable:#?}; unsendable {unsendable:#?}");
    assert!(read > 10 * (unreadable.len() + unsendable.len()), "{unreadable:?} {unsendable:?}");
}

#[test]
fn a_budget_is_an_effort_where_no_word_was_said() {
    for (effort, budget, want) in [
        (None, None, json!(null)),
        (None, Some(0), json!("none")),
        (None, Some(1024), json!("low")),
        (None, Some(10_000), json!("medium")),
        (None, Some(32_000), json!("high")),
        (Some("max"), Some(1024), json!("max")),
    ] {
        let prompt = Prompt { effort: effort.map(str::to_owned), budget, ..Prompt::default() };
        let body = Value::Object(write(&prompt, "m").unwrap());
        assert_eq!(body["reasoning_effort"], want, "{budget:?}");
    }
}

#[test]
fn signed_thoughts_stand_where_openrouter_reads_them() {
    let proof = |family| Some(Signature { family, text: "s".into() });
    let thought = |text: &str, signature| Part::Thought { text: text.into(), signature };
    let mut prompt = user(vec![text("hi")]);
    prompt.say(
        Role::Assistant,
        vec![
            thought("a", proof(Family::Anthropic)),
            thought("b", proof(Family::Gemini)),
            Part::Redacted { data: "x".into() },
            text("yes"),
        ],
    );
    assert_eq!(
        messages(&prompt).unwrap()[1],
        json!({ "role": "assistant", "content": "yes", "reasoning_content": "a\n\nb", "reasoning_details": [
            { "type": "reasoning.text", "text": "a", "signature": "s", "format": CLAUDES, "index": 0 },
            { "type": "reasoning.encrypted", "data": "x", "format": CLAUDES, "index": 1 },
        ] })
    );
}

#[test]
fn what_is_said_of_a_document_stands_before_it() {
    let mut media = Media {
        mime: "text/plain".into(),
        source: Source::Data("aGk=".into()),
        context: Some("a letter".into()),
        cache: Some(json!({ "type": "ephemeral" })),
        ..Media::default()
    };
    let text = |text: &str| json!({ "type": "text", "text": text });
    let mut marked = text("hi");
    marked["cache_control"] = json!({ "type": "ephemeral" });
    let content = |media: &Media| {
        messages(&user(vec![Part::Media(media.clone())])).unwrap()[0]["content"].clone()
    };
    assert_eq!(content(&media), json!([text("a letter"), marked]));
    (media.context, media.cache) = (None, None);
    assert_eq!(content(&media), json!([text("hi")]));
}
