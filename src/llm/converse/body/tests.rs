//! Chat requests as Converse bodies: every field that has a place there, by the model's maker.

use super::*;
use crate::llm::dialects::chat_prompt;

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const OLD_CLAUDE: &str = "anthropic.claude-3-7-sonnet-20250219-v1:0";
const NOVA: &str = "amazon.nova-lite-v1:0";
const NOVA2: &str = "us.amazon.nova-2-lite-v1:0";
const LLAMA: &str = "meta.llama3-3-70b-instruct-v1:0";
const PROFILE: &str = "arn:aws:bedrock:eu-west-1:0:application-inference-profile/abc";

fn body_for(model: &str, chat: Value) -> Result<Value, Fault> {
    write(&chat_prompt::read(&chat).unwrap(), model).map(Value::Object)
}

/// The body of a request with these members beside its message.
fn with(model: &str, more: Value) -> Value {
    let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    for (name, value) in more.as_object().unwrap() {
        chat[name] = value.clone();
    }
    body_for(model, chat).unwrap()
}

fn user(parts: Value) -> Value {
    json!({ "messages": [{ "role": "user", "content": parts }] })
}

fn data(mime: &str) -> Value {
    json!({ "type": "image_url", "image_url": { "url": format!("data:{mime};base64,QUJD") } })
}

fn document(mime: &str, name: Value) -> Value {
    let data = format!("data:{mime};base64,QUJD");
    json!({ "type": "file", "file": { "file_data": data, "filename": name } })
}

fn call(id: &str, name: &str) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": "{\"x\":1}" } })
}

#[test]
fn a_bare_request_has_its_message_alone() {
    for model in [CLAUDE, NOVA, NOVA2, LLAMA, PROFILE] {
        let body = with(model, json!({}));
        assert_eq!(
            body,
            json!({ "messages": [{ "role": "user", "content": [{ "text": "hi" }] }] }),
            "{model}"
        );
    }
}

#[test]
fn a_conversation_with_tools_keeps_its_meaning() {
    let got = body_for(
        CLAUDE,
        json!({ "messages": [
        { "role": "system", "content": [
            { "type": "text", "text": "be brief", "cache_control": { "type": "ephemeral" } },
            { "type": "text", "text": "be kind" },
        ] },
        { "role": "user", "content": [
            { "type": "text", "text": "look", "cache_control": { "type": "ephemeral" } },
            data("image/png"),
            document("application/pdf", json!("Report v1.2 (final).pdf")),
        ] },
        { "role": "assistant", "content": "I call",
          "thinking_blocks": [{ "thinking": "hm", "signature": "sig" }],
          "tool_calls": [call("c1", "f"), call("c2", "g")] },
        { "role": "tool", "tool_call_id": "c1", "content": "", "is_error": true },
        { "role": "tool", "tool_call_id": "c2", "content": [
            { "type": "text", "text": "found", "cache_control": { "type": "ephemeral" } }, data("image/webp"),
        ] },
        { "role": "user", "content": "so?" },
    ], "tools": [
        { "type": "function", "cache_control": { "type": "ephemeral" },
          "function": { "name": "f", "description": "does f", "strict": true, "parameters": { "properties": {} } } },
        { "type": "function", "function": { "name": "g", "description": " " } },
    ] }),
    )
    .unwrap();
    let point = json!({ "cachePoint": { "type": "default" } });
    assert_eq!(got["system"], json!([{ "text": "be brief" }, point, { "text": "be kind" }]));
    let bytes = json!({ "bytes": "QUJD" });
    assert_eq!(
        got["messages"],
        json!([
            { "role": "user", "content": [
                { "text": "look" }, point,
                { "image": { "format": "png", "source": bytes } },
                { "document": { "format": "pdf", "source": bytes, "name": "Report v1-2 (final)" } },
            ] },
            { "role": "assistant", "content": [
                { "reasoningContent": { "reasoningText": { "text": "hm", "signature": "sig" } } },
                { "text": "I call" },
                { "toolUse": { "toolUseId": "c1", "name": "f", "input": { "x": 1 } } },
                { "toolUse": { "toolUseId": "c2", "name": "g", "input": { "x": 1 } } },
            ] },
            { "role": "user", "content": [
                { "toolResult": { "toolUseId": "c1", "content": [], "status": "error" } },
                { "toolResult": { "toolUseId": "c2", "content": [
                    { "text": "found" }, { "image": { "format": "webp", "source": bytes } },
                ] } },
                { "text": "so?" },
            ] },
        ])
    );
    assert_eq!(
        got["toolConfig"],
        json!({ "tools": [
            { "toolSpec": { "name": "f", "description": "does f", "strict": true,
                "inputSchema": { "json": { "properties": {}, "type": "object" } } } },
            point,
            { "toolSpec": { "name": "g", "inputSchema": { "json": { "type": "object", "properties": {} } } } },
        ] })
    );
    assert_eq!(got.as_object().unwrap().len(), 3, "{got}");
}

#[test]
fn thoughts_go_back_to_their_own_family_alone() {
    let turn = |part: Part| {
        let mut prompt = Prompt::default();
        let text = |text: &str| Part::Text { text: text.into(), cache: None };
        prompt.say(Role::User, vec![text("hi")]);
        prompt.say(Role::Assistant, vec![part, text("yes")]);
        prompt.say(Role::User, vec![text("so?")]);
        prompt
    };
    let first = |part: Part, model: &str| {
        write(&turn(part), model).unwrap()["messages"][1]["content"][0].clone()
    };
    let signed = |family| Part::Thought {
        text: "hm".into(),
        signature: Some(crate::llm::prompt::Signature { family, text: "sig".into() }),
    };
    let redacted = || Part::Redacted { data: "b64".into() };
    assert_eq!(
        first(redacted(), CLAUDE),
        json!({ "reasoningContent": { "redactedContent": "b64" } })
    );
    assert!(first(signed(Family::Anthropic), CLAUDE)["reasoningContent"].is_object());
    for (part, model) in [
        (signed(Family::Gemini), CLAUDE),
        (signed(Family::Anthropic), NOVA),
        (redacted(), NOVA),
        (Part::Thought { text: "hm".into(), signature: None }, CLAUDE),
    ] {
        assert_eq!(first(part, model), json!({ "text": "yes" }), "{model}");
    }
}

#[test]
fn turns_alternate_and_blanks_are_left_out() {
    let chat = json!({ "messages": [
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": null, "reasoning_content": "unsigned" },
        { "role": "user", "content": [{ "type": "text", "text": " \n" }, { "type": "text", "text": "b" }] },
    ] });
    let messages = &body_for(CLAUDE, chat).unwrap()["messages"];
    assert_eq!(
        messages,
        &json!([{ "role": "user", "content": [{ "text": "a" }, { "text": "b" }] }])
    );
    for chat in [
        json!({ "messages": [] }),
        json!({ "messages": [{ "role": "user", "content": " " }] }),
        json!({ "messages": [{ "role": "assistant", "content": "a" }, { "role": "user", "content": "b" }] }),
        json!({ "messages": [{ "role": "system", "content": "alone" }] }),
    ] {
        assert_eq!(body_for(CLAUDE, chat.clone()), Err(Fault::Unsendable), "{chat}");
    }
    // What the assistant began to say stays its own.
    let chat = json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "{" }] });
    assert_eq!(body_for(CLAUDE, chat).unwrap()["messages"][1]["role"], "assistant");
}

#[test]
fn ids_of_other_vendors_are_made_to_fit() {
    let long = "x".repeat(65);
    let ids = ["toolu_bdrk.01:a-B", "functions.f:0", "a b", &long, "\u{fc}"];
    let calls: Vec<Value> = ids.iter().map(|id| call(id, "f")).collect();
    let results =
        ids.iter().rev().map(|id| json!({ "role": "tool", "tool_call_id": id, "content": "r" }));
    let mut messages = vec![
        json!({ "role": "user", "content": "hi" }),
        json!({ "role": "assistant", "tool_calls": calls }),
    ];
    messages.extend(results);
    let got = body_for(NOVA, json!({ "messages": messages })).unwrap();
    let list = |turn: usize, kind: &str| -> Vec<String> {
        let blocks = got["messages"][turn]["content"].as_array().unwrap().iter();
        blocks.map(|b| b[kind]["toolUseId"].as_str().unwrap().to_owned()).collect()
    };
    let called = list(1, "toolUse");
    assert_eq!(called, [ids[0], ids[1], "firstbyte.0", "firstbyte.1", "firstbyte.2"]);
    let answered: Vec<String> = list(2, "toolResult").into_iter().rev().collect();
    assert_eq!(answered, called);
}

#[test]
fn tools_that_turns_have_used_are_always_defined() {
    let history = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "tool_calls": [call("c1", "f"), call("c2", "f")] },
        { "role": "tool", "tool_call_id": "c1", "content": "r" },
        { "role": "tool", "tool_call_id": "c2", "content": "r" },
    ]);
    let bare = json!({ "type": "object", "properties": {} });
    let spec = json!({ "toolSpec": { "name": "f", "inputSchema": { "json": bare } } });
    let got = body_for(NOVA, json!({ "messages": history })).unwrap();
    assert_eq!(got["toolConfig"], json!({ "tools": [spec] }));
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    // None of them now: they must stay, or need not be there at all.
    let none = json!({ "messages": history, "tools": tools, "tool_choice": "none" });
    let got = body_for(NOVA, none.clone()).unwrap();
    assert_eq!(got["toolConfig"], json!({ "tools": [spec] }));
    // Claude has a word for it.
    let got = body_for(CLAUDE, none).unwrap();
    assert_eq!(got["additionalModelRequestFields"]["tool_choice"], json!({ "type": "none" }));
    let got = with(CLAUDE, json!({ "tools": tools, "tool_choice": "none" }));
    assert!(got.get("toolConfig").is_none() && got.get("additionalModelRequestFields").is_none());
}

#[test]
fn tool_choices_are_translated() {
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let named = json!({ "type": "function", "function": { "name": "f" } });
    for (choice, parallel, want, own) in [
        (json!(null), json!(null), json!(null), json!(null)),
        (json!("auto"), json!(true), json!({ "auto": {} }), json!(null)),
        (json!("required"), json!(null), json!({ "any": {} }), json!(null)),
        (named.clone(), json!(null), json!({ "tool": { "name": "f" } }), json!(null)),
        (
            json!("required"),
            json!(false),
            json!(null),
            json!({ "type": "any", "disable_parallel_tool_use": true }),
        ),
        (
            json!(null),
            json!(false),
            json!(null),
            json!({ "type": "auto", "disable_parallel_tool_use": true }),
        ),
    ] {
        let asked =
            json!({ "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel });
        let got = with(CLAUDE, asked.clone());
        assert_eq!(got["toolConfig"]["toolChoice"], want, "{asked}");
        assert_eq!(got["additionalModelRequestFields"]["tool_choice"], own, "{asked}");
    }
    // Other models have no word for one at a time.
    let got =
        with(NOVA, json!({ "tools": tools, "tool_choice": named, "parallel_tool_calls": false }));
    assert_eq!(got["toolConfig"]["toolChoice"], json!({ "tool": { "name": "f" } }));
    assert!(got.get("additionalModelRequestFields").is_none());
}

#[test]
fn parameters_find_their_place_or_are_dropped() {
    let all = json!({
        "max_tokens": 9, "temperature": 1.7, "top_p": 0.5, "top_k": 40, "stop": ["a", " "],
        "service_tier": "flex", "user": "u", "metadata": { "team": "x y", "odd": "a\u{fc}", "n": 1 },
        "seed": 1, "presence_penalty": 1, "frequency_penalty": 1, "logprobs": true, "top_logprobs": 2,
        "logit_bias": { "1": 1 }, "verbosity": "low",
    });
    let config = |top_p: bool, temperature: f64| {
        let mut config = json!({ "temperature": temperature, "maxTokens": 9 });
        if top_p {
            config["topP"] = json!(0.5);
        }
        config["stopSequences"] = json!(["a"]);
        config
    };
    for (model, expected, more) in [
        (CLAUDE, config(false, 1.0), json!({ "top_k": 40 })),
        (OLD_CLAUDE, config(true, 1.0), json!({ "top_k": 40 })),
        (NOVA, config(true, 1.0), json!({ "inferenceConfig": { "topK": 40 } })),
        (LLAMA, config(true, 1.0), json!(null)),
        (PROFILE, config(true, 1.0), json!(null)),
    ] {
        let got = with(model, all.clone());
        assert_eq!(got["inferenceConfig"], expected, "{model}");
        assert_eq!(got["additionalModelRequestFields"], more, "{model}");
        assert_eq!(got["serviceTier"], json!({ "type": "flex" }));
        assert_eq!(got["requestMetadata"], json!({ "team": "x y" }));
        let members = got.as_object().unwrap().len();
        assert_eq!(members, if more.is_null() { 4 } else { 5 }, "{got}");
    }
    assert!(with(NOVA, json!({ "service_tier": "auto" })).get("serviceTier").is_none());
}

#[test]
fn efforts_are_said_in_each_makers_words() {
    let more =
        |model: &str, asked: Value| with(model, asked)["additionalModelRequestFields"].clone();
    let effort = |model: &str, effort: &str| more(model, json!({ "reasoning_effort": effort }));
    let budget = json!({ "thinking": { "type": "enabled", "budget_tokens": 2048 } });
    assert_eq!(effort(CLAUDE, "low"), budget);
    let got = with(CLAUDE, json!({ "reasoning_effort": "low", "temperature": 0.2 }));
    // The budget is part of the limit, and thinking takes no temperature.
    assert_eq!(got["inferenceConfig"], json!({ "maxTokens": 2048 + 4096 }));
    assert_eq!(
        effort("anthropic.claude-opus-4-6-v1", "high"),
        json!({ "thinking": { "type": "adaptive" }, "output_config": { "effort": "high" } })
    );
    let nova = |word: &str| json!({ "reasoningConfig": { "type": "enabled", "maxReasoningEffort": word } });
    assert_eq!(effort(NOVA2, "minimal"), nova("low"));
    assert_eq!(effort(NOVA2, "high"), nova("high"));
    assert_eq!(effort(NOVA2, "none"), json!({ "reasoningConfig": { "type": "disabled" } }));
    let high = json!({ "reasoning_effort": "high", "temperature": 0.5, "top_k": 3 });
    let got = with(NOVA2, high);
    assert!(got.get("inferenceConfig").is_none(), "{got}");
    assert_eq!(got["additionalModelRequestFields"], nova("high"));
    let got = with(NOVA2, json!({ "reasoning_effort": "high", "max_tokens": 9 }));
    assert_eq!(got["inferenceConfig"], json!({ "maxTokens": 9 }));
    assert_eq!(got["additionalModelRequestFields"], nova("medium"));
    assert_eq!(effort("openai.gpt-oss-120b-1:0", "xhigh"), json!({ "reasoning_effort": "high" }));
    assert_eq!(effort("deepseek.v3-v1:0", "medium"), json!({ "reasoning_config": "medium" }));
    assert_eq!(effort("qwen.qwen3-32b-v1:0", "none"), json!(null));
    for model in [NOVA, LLAMA, PROFILE] {
        assert_eq!(effort(model, "high"), json!(null), "{model}");
    }
}

#[test]
fn a_call_goes_on_only_with_the_thoughts_before_it() {
    let asked = |thoughts: Value| {
        let chat = json!({ "reasoning_effort": "low", "messages": [
            { "role": "user", "content": "x" },
            { "role": "assistant", "tool_calls": [call("c", "f")], "thinking_blocks": thoughts },
            { "role": "tool", "tool_call_id": "c", "content": "y" },
        ] });
        body_for(CLAUDE, chat).unwrap()["additionalModelRequestFields"]["thinking"].clone()
    };
    assert!(asked(json!(null)).is_null());
    assert_eq!(asked(json!([{ "thinking": "hm", "signature": "s" }]))["budget_tokens"], 2048);
}

#[test]
fn formats_of_the_answer_are_asked_for() {
    let schema = json!({ "type": "object" });
    let asked = json!({ "response_format": { "type": "json_schema",
        "json_schema": { "name": "n", "schema": schema, "strict": true } } });
    for model in [CLAUDE, "openai.gpt-oss-120b-1:0", PROFILE] {
        let got = with(model, asked.clone());
        let told = json!({ "name": "n", "schema": "{\"type\":\"object\"}" });
        let format = json!({ "type": "json_schema", "structure": { "jsonSchema": told } });
        assert_eq!(got["outputConfig"], json!({ "textFormat": format }), "{model}");
        assert!(got.get("additionalModelRequestFields").is_none(), "{got}");
    }
    for model in [OLD_CLAUDE, NOVA, LLAMA] {
        let mut chat = user(json!("hi"));
        chat["response_format"] = asked["response_format"].clone();
        assert_eq!(body_for(model, chat), Err(Fault::Unsendable), "{model}");
    }
    let got = with(NOVA, json!({ "response_format": { "type": "json_object" } }));
    assert_eq!(got["system"], json!([{ "text": ASK_FOR_JSON }]));
    // Only models that keep to schemas are asked to.
    let tools = json!([{ "type": "function", "function": { "name": "f", "strict": true } }]);
    for (model, strict) in [(CLAUDE, true), (OLD_CLAUDE, false), (NOVA, false), (PROFILE, true)] {
        let spec =
            with(model, json!({ "tools": tools }))["toolConfig"]["tools"][0]["toolSpec"].clone();
        assert_eq!(spec.get("strict").is_some(), strict, "{model}");
    }
}

#[test]
fn caches_have_points_where_models_know_them() {
    let text = json!([{ "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } }]);
    for (model, points) in [(CLAUDE, 2), (NOVA, 2), (LLAMA, 1), (PROFILE, 1)] {
        let got = body_for(model, user(text.clone())).unwrap();
        assert_eq!(got["messages"][0]["content"].as_array().unwrap().len(), points, "{model}");
    }
}

#[test]
fn media_stand_there_by_their_bytes() {
    let block = |model: &str, part: Value| {
        body_for(model, user(json!([part]))).map(|body| body["messages"][0]["content"][0].clone())
    };
    for (mime, format) in [("image/jpg", "jpeg"), ("image/GIF", "gif"), ("image/webp", "webp")] {
        let image = json!({ "image": { "format": format, "source": { "bytes": "QUJD" } } });
        assert_eq!(block(NOVA, data(mime)), Ok(image));
    }
    for (mime, format) in [("text/csv", "csv"), ("text/markdown", "md"), ("text/plain", "txt")] {
        let got = block(LLAMA, document(mime, json!(null))).unwrap();
        assert_eq!(
            (&got["document"]["format"], &got["document"]["name"]),
            (&json!(format), &json!("document"))
        );
    }
    assert_eq!(block(NOVA, data("video/mp4")).unwrap()["video"]["format"], "mp4");
    let sound =
        json!({ "type": "input_audio", "input_audio": { "data": "QUJD", "format": "mp3" } });
    let heard = block("mistral.voxtral-mini-3b-2507", sound.clone()).unwrap();
    assert_eq!(heard["audio"], json!({ "format": "mp3", "source": { "bytes": "QUJD" } }));
    for (model, part) in [
        (CLAUDE, sound),
        (CLAUDE, data("video/mp4")),
        ("amazon.nova-micro-v1:0", data("video/mp4")),
        (CLAUDE, data("image/tiff")),
        (CLAUDE, json!({ "type": "image_url", "image_url": { "url": "https://x/y.png" } })),
        (CLAUDE, json!({ "type": "file", "file": { "file_id": "f" } })),
    ] {
        assert_eq!(block(model, part.clone()), Err(Fault::Unsendable), "{model} {part}");
    }
}

#[test]
fn no_two_documents_have_one_name() {
    let names = ["a/b.pdf", "a/b.txt", "  ", "x\u{fc}\t y", "a-b 2.pdf"];
    let parts: Vec<Value> =
        names.iter().map(|name| document("application/pdf", json!(name))).collect();
    let got = body_for(CLAUDE, user(Value::Array(parts))).unwrap();
    let content = got["messages"][0]["content"].as_array().unwrap();
    let told: Vec<&str> = content.iter().map(|b| b["document"]["name"].as_str().unwrap()).collect();
    assert_eq!(told, ["a-b", "a-b 2", "document", "x- y", "a-b 2 2"]);
}

#[test]
fn several_choices_can_not_be_said() {
    let mut chat = user(json!("hi"));
    chat["n"] = json!(2);
    assert_eq!(body_for(NOVA, chat), Err(Fault::Unsendable));
}
