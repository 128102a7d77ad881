//! The table: each row sound, as the documents have it, and what each vendor gets of a request.

use serde_json::{Value, json};

use super::*;
use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::llm::dialects::chat_prompt;
use crate::llm::quirks::Fate;
use crate::llm::request::write_edited;

fn row(name: &str) -> &'static Vendor {
    TABLE.iter().find(|row| row.name == name).unwrap_or(OPENAI)
}

fn gets(vendor: &str, model: &str, body: &Value) -> Result<Value, Fault> {
    let bytes = body.to_string().into_bytes();
    let edits = quirks::fit(&bytes, row(vendor).rules(false), model)?;
    let mut out = Buf::new();
    write_edited(&edits, &bytes, model, &mut out);
    Ok(serde_json::from_slice(out.as_slice()).unwrap())
}

#[test]
fn rows_are_sound() {
    let names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
    for (index, row) in TABLE.iter().enumerate() {
        assert!(!names[..index].contains(&row.name), "{} twice", row.name);
        assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        let local = row.base_url.starts_with("http://127.0.0.1:");
        let elsewhere = row.base_url.is_empty() && row.name == VendorId::AZURE.row().name;
        assert!(local || elsewhere || row.base_url.starts_with("https://"), "{}", row.name);
        assert!(!row.base_url.ends_with('/'), "{}", row.name);
        assert_eq!(local, row.key_variable.is_empty(), "{}", row.name);
        let paths: Vec<_> = row.rules(true).map(|rule| (rule.path, rule.only.is_some())).collect();
        for (index, (path, some)) in paths.iter().enumerate() {
            assert!(
                *some || !paths[..index].contains(&(path, false)),
                "{}: {path} twice",
                row.name
            );
            assert!(!path.is_empty() && !path.ends_with(['.', ']']), "{}: {path}", row.name);
        }
    }
}

/// The table in the documents is this one.
#[test]
fn the_documents_have_the_same_table() {
    let page = include_str!("../../../../../docs/providers.md");
    let (mut places, mut quirks) = (Vec::new(), Vec::new());
    for row in TABLE {
        let key = if row.key_variable.is_empty() {
            String::from("none")
        } else {
            format!("`{}`", row.key_variable)
        };
        let base = match row.base_url {
            "" => String::from("your resource's"),
            url => format!("`{url}`"),
        };
        places.push(format!("| `{}` | {} | {base} | {key} |", row.name, row.title));
        let fates = |wanted| fates(row, wanted);
        let (adapted, dropped) = (fates(Fate::Adapted), fates(Fate::Dropped));
        quirks.push(format!(
            "| `{}` | {adapted} | {dropped} | {} |",
            row.name,
            fates(Fate::Incompatible)
        ));
    }
    for rows in [places.join("\n"), quirks.join("\n")] {
        assert!(page.contains(&rows), "docs/providers.md must hold:\n{rows}");
    }
}

/// The parameters of a row that fare so, for a person.
fn fates(row: &Vendor, wanted: Fate) -> String {
    let mut names: Vec<String> = Vec::new();
    for rule in row.rules(false).filter(|rule| rule.fate() == wanted) {
        let place = rule.path.replace("messages[].content[].", "part.").replace("[].", ".");
        let name = match rule.verdict {
            Rename(to) => format!("`{place}` as `{to}`"),
            Few(most) => format!("`{place}` beyond {most}"),
            Only { words, other: false } => format!("`{place}` but {}", words.join(", ")),
            Only { words, other: true } => format!("`{place}` but {}, one tool", words.join(", ")),
            Drop | Refuse | Words(_) | Flat | Count(_) | Details => format!("`{place}`"),
        };
        let some = if rule.only.is_some() { " (some models)" } else { "" };
        let name = format!("{name}{some}");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[test]
fn each_vendor_gets_what_it_takes() {
    let ask = |member: &str, value: Value| json!({ "model": "x", "messages": [{ "role": "user", "content": "hi" }], member: value });
    for (vendor, model, member, value, want) in [
        ("groq", "m", "logit_bias", json!({ "1": 2 }), Some(json!(null))),
        ("groq", "m", "logprobs", json!(true), None),
        ("groq", "m", "logprobs", json!(false), Some(json!(null))),
        ("groq", "m", "n", json!(2), None),
        ("groq", "m", "service_tier", json!("default"), Some(json!("on_demand"))),
        ("groq", "m", "tool_choice", json!("required"), Some(json!("required"))),
        ("groq", "m", "max_completion_tokens", json!(5), Some(json!(5))),
        ("groq", "openai/gpt-oss-20b", "reasoning_effort", json!("minimal"), Some(json!("low"))),
        ("groq", "qwen/qwen3-32b", "reasoning_effort", json!("high"), Some(json!("default"))),
        ("groq", "llama-3.3-70b", "reasoning_effort", json!("high"), Some(json!(null))),
        ("deepseek", "m", "n", json!(2), None),
        (
            "deepseek",
            "m",
            "stop",
            json!(["a", "b", "c", "d", "e"]),
            Some(json!(["a", "b", "c", "d", "e"])),
        ),
        (
            "deepseek",
            "m",
            "response_format",
            json!({ "type": "json_schema", "json_schema": { "schema": {} } }),
            None,
        ),
        (
            "deepseek",
            "m",
            "response_format",
            json!({ "type": "json_object" }),
            Some(json!({ "type": "json_object" })),
        ),
        ("xai", "grok-4-fast-reasoning", "presence_penalty", json!(1), Some(json!(null))),
        ("xai", "grok-4-fast-non-reasoning", "presence_penalty", json!(1), Some(json!(1))),
        ("xai", "grok-4", "stop", json!("x"), None),
        ("xai", "grok-3", "stop", json!("x"), Some(json!("x"))),
        ("xai", "grok-4", "reasoning_effort", json!("low"), Some(json!(null))),
        ("xai", "grok-3-mini", "reasoning_effort", json!("minimal"), Some(json!("low"))),
        ("openrouter", "m", "logit_bias", json!({ "1": 2 }), Some(json!({ "1": 2 }))),
        ("openrouter", "m", "provider", json!({ "only": ["x"] }), Some(json!(null))),
        ("together", "m", "logprobs", json!(true), Some(json!(1))),
        ("together", "m", "service_tier", json!("flex"), Some(json!(null))),
        ("fireworks", "m", "reasoning_effort", json!("max"), Some(json!("high"))),
        ("fireworks", "m", "service_tier", json!("priority"), Some(json!("priority"))),
        ("fireworks", "m", "store", json!(true), Some(json!(null))),
        (
            "perplexity",
            "m",
            "tools",
            json!([{ "type": "function", "function": { "name": "f" } }]),
            None,
        ),
        ("perplexity", "m", "tools", json!([]), Some(json!(null))),
        ("perplexity", "m", "response_format", json!({ "type": "json_object" }), None),
        ("perplexity", "m", "stream_options", json!({ "include_usage": true }), Some(json!(null))),
        ("cerebras", "m", "frequency_penalty", json!(1), Some(json!(null))),
        ("cerebras", "m", "parallel_tool_calls", json!(true), Some(json!(null))),
        ("cerebras", "m", "parallel_tool_calls", json!(false), None),
        ("moonshot", "kimi-k2.6", "temperature", json!(0.2), Some(json!(null))),
        ("moonshot", "moonshot-v1-8k", "temperature", json!(0.2), Some(json!(0.2))),
        ("moonshot", "m", "tool_choice", json!("required"), None),
        (
            "zai",
            "m",
            "tool_choice",
            json!({ "type": "function", "function": { "name": "f" } }),
            None,
        ),
        (
            "alibaba",
            "m",
            "tool_choice",
            json!({ "type": "function", "function": { "name": "f" } }),
            Some(json!({ "type": "function", "function": { "name": "f" } })),
        ),
        ("vllm", "m", "top_k", json!(4), Some(json!(4))),
        ("tgi", "m", "parallel_tool_calls", json!(false), Some(json!(null))),
        ("lmstudio", "m", "response_format", json!({ "type": "json_object" }), None),
        ("llamacpp", "m", "tool_choice", json!({ "type": "function" }), None),
        ("openai", "gpt-4o", "max_tokens", json!(5), Some(json!(5))),
        ("openai", "gpt-4o", "odd", json!([1]), Some(json!([1]))),
    ] {
        let got = gets(vendor, model, &ask(member, value.clone()));
        let got = got.map(|body| body[member].clone());
        assert_eq!(got.ok(), want, "{vendor} {model} {member} {value}");
    }
}

#[test]
fn words_for_the_same_are_the_vendors_own() {
    let body =
        json!({ "max_completion_tokens": 5, "max_tokens": 4, "logprobs": true, "top_logprobs": 3 });
    assert_eq!(gets("together", "m", &body), Ok(json!({ "max_tokens": 5, "logprobs": 3 })));
    let old = json!({ "max_tokens": 4 });
    assert_eq!(gets("openai", "gpt-5-mini", &old), Ok(json!({ "max_completion_tokens": 4 })));
    let messages = json!({ "messages": [
        { "role": "developer", "content": [{ "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } }] },
        { "role": "assistant", "content": "x", "reasoning_content": "hm", "thinking_blocks": [] },
        { "role": "user", "name": "u", "content": "developer" },
    ] });
    assert_eq!(
        gets("groq", "m", &messages),
        Ok(json!({ "messages": [
            { "role": "system", "content": [{ "type": "text", "text": "a" }] },
            { "role": "assistant", "content": "x", "reasoning": "hm" },
            { "role": "user", "content": "developer" },
        ] }))
    );
    let deepseek = gets("deepseek", "m", &messages).unwrap();
    assert_eq!(deepseek["messages"][0], json!({ "role": "system", "content": "a" }));
    assert_eq!(deepseek["messages"][1]["reasoning_content"], "hm");
    let openrouter = gets("openrouter", "m", &messages).unwrap();
    assert_eq!(openrouter["messages"][0], messages["messages"][0]);
    assert_eq!(openrouter["messages"][1]["reasoning_details"], json!([]));
}

#[test]
fn pictures_go_where_they_are_seen() {
    let picture = json!({ "messages": [{ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": "https://x/y.png" } },
    ] }] });
    for (vendor, sees) in [("deepseek", false), ("cerebras", false), ("groq", true), ("vllm", true)]
    {
        assert_eq!(gets(vendor, "m", &picture).is_ok(), sees, "{vendor}");
    }
}

#[test]
fn fates_are_told_of_what_is_there() {
    let judged = |vendor: &str, model: &str, body: Value| {
        let fates = row(vendor).judge(body.to_string().as_bytes(), model);
        let told = fates.iter().map(|(path, fate)| format!("{path} {}", fate.name()));
        told.collect::<Vec<_>>().join(", ")
    };
    let groq =
        json!({ "logit_bias": {}, "logprobs": true, "stop": ["a"], "temperature": 1, "n": 1 });
    assert_eq!(judged("groq", "m", groq), "logit_bias dropped, logprobs incompatible, n dropped");
    let many = json!({ "stop": ["a", "b", "c", "d", "e"] });
    assert_eq!(judged("groq", "m", many), "stop incompatible");
    let old = json!({ "max_tokens": 1 });
    assert_eq!(judged("openai", "gpt-5", old.clone()), "max_tokens adapted");
    assert_eq!(judged("openai", "gpt-4o", old), "");
}

/// What vendors' own clients sent, where the recordings lie beside the checkout: their vendor's quirks
/// leave its meaning alone.
#[test]
fn recorded_requests_pass_their_own_vendors_quirks() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let Ok(index) = std::fs::read_to_string(folder.join("INDEX.jsonl")) else {
        eprintln!("SKIPPED: there are no recordings at ../shared/fixtures");
        return;
    };
    let mut read = 0;
    for line in index.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let vendor =
            line["provider"].as_str().unwrap().replace("huggingface-router", "huggingface");
        let Some(file) = line["request_file"].as_str() else { continue };
        // What a vendor refused shows nothing.
        if line["api"] != "openai-chat"
            || line["status"] != 200
            || !TABLE.iter().any(|row| row.name == vendor)
        {
            continue;
        }
        let chat = std::fs::read_to_string(folder.join(file)).unwrap();
        let chat: Value = serde_json::from_str(&chat).unwrap();
        let model = chat["model"].as_str().unwrap_or_default();
        let got = gets(&vendor, model, &chat).unwrap_or_else(|fault| panic!("{file}: {fault:?}"));
        let turns =
            |body: &Value| chat_prompt::read(body).map(|prompt| (prompt.turns, prompt.tools));
        if vendor != "groq" && vendor != "cerebras" && vendor != "deepseek" {
            assert_eq!(turns(&got), turns(&chat), "{file}");
        }
        read += 1;
    }
    assert!(read > 20, "{read}");
}
