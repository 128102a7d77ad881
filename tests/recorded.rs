//! Recorded answers of providers, read where they lie beside the checkout (`../shared/fixtures`),
//! against an independent reading of each. Says plainly that it was skipped where they are not.
//!
//! `RECORDED=anthropic cargo test --test recorded -- --nocapture` shows one folder's rows.

#![cfg(feature = "uring")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

#[path = "recorded/requests.rs"]
mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use firstbyte::app::translate::{Order, Translated, known, translate};

mod framed;
use framed::wrapped;

#[path = "recorded/damage.rs"]
mod damage;
#[path = "recorded/messages.rs"]
mod messages;
#[path = "recorded/responses.rs"]
mod responses;

/// Rows whose reading differs, with why. Each stands in `docs/fixtures.md` too.
const DIFFERENT: &[&str] = &[
    "bedrock/bedrock-invoke/otel-invoke_model_no_content_cohere.command-r-i0.json",
    "anthropic/anthropic-messages/vercel-anthropic-tool-search-deferred-bm25.jsonl",
    "anthropic/anthropic-messages/vercel-anthropic-tool-search-regex.1.jsonl",
    "azure/openai-responses/vercel-azure-reasoning-encrypted-content.1.jsonl",
    "gemini/openai-chat/agw-gemini_with_completion_tokens.json",
    "gemini/openai-chat/pydai-compatible_api_with_tool_calls_without_id-i1.json",
    "mistral/openai-chat/rubyllm-audio_models_mistral_voxtral-small-latest_mp3_audio-i0.json",
    "openai-compat/openai-chat/apisix-null-function.json",
    "snowflake/openai-chat/pydai-snowflake_thinking-i0.json",
    "snowflake/openai-chat/pydai-snowflake_thinking_streaming-i0.sse",
];

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    if folder.join("EXPECT.jsonl").exists() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there are no recordings at ../shared/fixtures");
    None
}

fn rows(folder: &std::path::Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A recording as it was on the wire.
fn body(folder: &std::path::Path, row: &Value) -> Option<Vec<u8>> {
    let bytes = std::fs::read(folder.join(row["file"].as_str().unwrap())).unwrap();
    match row["wire"].as_str().unwrap() {
        "jsonl-of-data-payloads" if row["api"].as_str()?.starts_with("bedrock") => {
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().filter(|line| !line.is_empty());
            let invoked = row["api"] == "bedrock-invoke";
            Some(lines.flat_map(|line| wrapped(line, invoked)).collect())
        }
        "jsonl-of-data-payloads" => {
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().filter(|line| !line.is_empty());
            Some(lines.map(|line| format!("data: {line}\n\n")).collect::<String>().into_bytes())
        }
        _ => Some(bytes),
    }
}

#[test]
fn an_aws_event_stream_means_the_same_however_it_is_cut() {
    let text = |text: &str| {
        let delta = json!({ "contentBlockIndex": 0, "delta": { "text": text }, "p": "ab" });
        json!({ "contentBlockDelta": delta }).to_string()
    };
    let call = json!({ "toolUse": { "toolUseId": "t", "name": "f" } });
    let lines = [
        json!({ "messageStart": { "role": "assistant" } }).to_string(),
        text("Hi "),
        text("there"),
        json!({ "contentBlockStart": { "contentBlockIndex": 1, "start": call } }).to_string(),
        json!({ "messageStop": { "stopReason": "tool_use" } }).to_string(),
        json!({ "metadata": { "usage": { "inputTokens": 1, "outputTokens": 2 } } }).to_string(),
    ];
    let frames: Vec<Vec<u8>> = lines.iter().map(|line| wrapped(line, false)).collect();
    let (kind, surface) = known("bedrock", "bedrock-converse").unwrap();
    let order = Order { kind, surface, stream: true, status: 200 };
    let bytes = frames.concat();
    let whole = translate(&order, [bytes.as_slice()]);
    let seen = read(&whole, true).unwrap();
    assert!(whole.good && seen.done, "{:?}", seen.error);
    assert_eq!((seen.text.as_str(), seen.finish.as_deref()), ("Hi there", Some("tool_calls")));
    assert_eq!(seen.calls[&0], ("t".into(), "f".into(), "{}".into()));
    assert_eq!(seen.usage.unwrap()["total_tokens"], 3);
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(translate(&order, [head, tail]).body, whole.body, "cut at {at}");
        // Once the stop reason is there only counts can be lost.
        let stopped = frames[..5].concat().len();
        assert_eq!(translate(&order, [head]).good, at >= stopped, "ends at {at}");
    }
    for at in [0, 9, 20, bytes.len() / 2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert!(!translate(&order, [damaged.as_slice()]).good, "damaged at {at}");
    }
}

/// Cuts a stream in two at each byte, and ends it there: it is good from the byte on that completes
/// the terminal signal, `last`.
fn cut_everywhere(api: (&str, &str), stream: &str, last: &str) -> Seen {
    let (kind, surface) = known(api.0, api.1).unwrap();
    let order = Order { kind, surface, stream: true, status: 200 };
    let bytes = stream.as_bytes();
    let whole = translate(&order, [bytes]);
    assert!(whole.good, "{}", String::from_utf8_lossy(&whole.body));
    let ended = stream.find(last).unwrap() + last.len();
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        let halves = translate(&order, [head, tail]);
        assert_eq!(halves.body, whole.body, "cut at {at}");
        let headed = translate(&order, [head]);
        assert_eq!(headed.good, at >= ended, "ends at {at}");
        let done = headed.body.windows(6).any(|window| window == b"[DONE]");
        assert_eq!(done, at >= ended, "ends at {at}");
    }
    read(&whole, true).unwrap()
}

#[test]
fn a_stream_of_cohere_means_the_same_however_it_is_cut() {
    let event = |kind: &str, index: u64, message: Value| {
        let data = json!({ "type": kind, "index": index, "delta": { "message": message } });
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let call = |id: &str, name: &str| {
        let function = json!({ "name": name, "arguments": "" });
        json!({ "tool_calls": { "id": id, "type": "function", "function": function } })
    };
    let arguments = |text: &str| json!({ "tool_calls": { "function": { "arguments": text } } });
    let last = json!({ "type": "message-end", "delta": { "finish_reason": "TOOL_CALL",
        "usage": { "tokens": { "input_tokens": 4, "output_tokens": 3 } } } });
    let stream = [
        "event: message-start\ndata: {\"type\":\"message-start\",\"id\":\"m\"}\n\n".to_owned(),
        event("tool-plan-delta", 0, json!({ "tool_plan": "Both, \u{17c}." })),
        event("tool-call-start", 0, call("a", "f")),
        event("tool-call-delta", 0, arguments("{\n \"x\":")),
        event("tool-call-delta", 0, arguments(" \"\u{1f986}\"\n}")),
        event("tool-call-start", 1, call("b", "g")),
        event("tool-call-delta", 1, arguments("null")),
        event("content-delta", 0, json!({ "content": { "text": "Hi\n" } })),
        format!("event: message-end\ndata: {last}\n\ndata: [DONE]\n\n"),
    ];
    let last = last.to_string();
    let seen = cut_everywhere(("cohere", "cohere-v2-chat"), &stream.concat(), &last);
    assert_eq!((seen.reasoning.as_str(), seen.text.as_str()), ("Both, \u{17c}.", "Hi\n"));
    assert_eq!(seen.calls[&0], ("a".into(), "f".into(), "{\n \"x\": \"\u{1f986}\"\n}".into()));
    assert_eq!(seen.calls[&1], ("b".into(), "g".into(), "{}".into()));
    assert_eq!(seen.finish.as_deref(), Some("tool_calls"));
    assert_eq!(seen.usage.unwrap()["total_tokens"], 7);
}

#[test]
fn a_stream_of_ollama_means_the_same_however_it_is_cut() {
    let line = |message: Value| json!({ "message": message, "done": false }).to_string();
    let calls = json!([{ "function": { "name": "f", "arguments": { "x": 1 } } },
        { "function": { "name": "g", "arguments": {} } }]);
    let last = json!({ "message": { "content": "" }, "done": true, "done_reason": "stop",
        "prompt_eval_count": 4, "eval_count": 3 });
    let last = last.to_string();
    let stream = [
        line(json!({ "role": "assistant", "content": "", "thinking": "\u{17c}" })),
        String::new(),
        line(json!({ "content": "Hi\n\u{1f986}" })),
        line(json!({ "content": "", "tool_calls": calls })),
        last.clone(),
    ];
    // The last line may lack its end; a line end may be CR LF.
    for end in ["\n", "\r\n"] {
        let seen = cut_everywhere(("ollama", "ollama-chat"), &stream.join(end), &last);
        assert_eq!((seen.reasoning.as_str(), seen.text.as_str()), ("\u{17c}", "Hi\n\u{1f986}"));
        assert_eq!((seen.calls[&0].1.as_str(), seen.calls[&0].2.as_str()), ("f", "{\"x\":1}"));
        assert_eq!((seen.calls[&1].1.as_str(), seen.calls[&1].2.as_str()), ("g", "{}"));
        assert_ne!(seen.calls[&0].0, seen.calls[&1].0);
        assert_eq!(seen.finish.as_deref(), Some("tool_calls"));
        assert_eq!(seen.usage.unwrap()["total_tokens"], 7);
    }
    let last = "{\"response\":\"!\",\"done\":true,\"done_reason\":\"length\",\"context\":[1,2]}";
    let stream = format!("{{\"response\":\"Hi\",\"done\":false}}\n{last}\n");
    let seen = cut_everywhere(("ollama", "ollama-generate"), &stream, last);
    assert_eq!((seen.text.as_str(), seen.finish.as_deref()), ("Hi!", Some("length")));
}

#[test]
fn every_readable_row_keeps_its_meaning() {
    let Some(folder) = folder() else { return };
    let only = std::env::var("RECORDED").ok();
    let expected: BTreeMap<String, Value> = rows(&folder, "EXPECT.jsonl")
        .into_iter()
        .map(|row| (row["file"].as_str().unwrap().to_owned(), row))
        .collect();
    let (mut passed, mut wrong) = (BTreeMap::new(), Vec::new());
    for row in rows(&folder, "INDEX.jsonl") {
        let file = row["file"].as_str().unwrap();
        let (provider, api) = (row["provider"].as_str().unwrap(), row["api"].as_str().unwrap());
        let (Some(expect), Some((kind, surface))) = (expected.get(file), known(provider, api))
        else {
            continue;
        };
        if DIFFERENT.contains(&file) || only.as_deref().is_some_and(|o| !file.starts_with(o)) {
            continue;
        }
        let Some(bytes) = body(&folder, &row) else { continue };
        let stream = row["stream"] == true && row["status"] == 200;
        let status = row["status"].as_u64().unwrap() as u16;
        let order = Order { kind, surface, stream, status };
        let got = translate(&order, [bytes.as_slice()]);
        // Any split gives the same.
        let bytewise = translate(&order, bytes.chunks(if bytes.len() > 50_000 { 997 } else { 1 }));
        if got.body != bytewise.body {
            wrong.push(format!("{file}: another result in pieces"));
        }
        let done = bytes.windows(6).any(|window| window == b"[DONE]");
        match compare(&got, expect, stream, done) {
            Ok(()) => *passed.entry(api.to_owned()).or_insert(0) += 1,
            Err(why) => wrong.push(format!("{file}: {why}")),
        }
    }
    println!("as expected: {passed:?}");
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(only.is_some() || !passed.is_empty());
}

#[derive(Default, Debug)]
struct Seen {
    text: String,
    reasoning: String,
    refusal: String,
    calls: BTreeMap<u64, (String, String, String)>,
    finish: Option<String>,
    usage: Option<Value>,
    error: Option<String>,
    done: bool,
}

/// What a plain client makes of it; a stream's chunks must each be one of the dialect.
fn read(got: &Translated, stream: bool) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let text = std::str::from_utf8(&got.body).map_err(|e| e.to_string())?;
    if !stream || !text.starts_with("data: ") {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("{e}: {text:.200}"))?;
        seen.done = true;
        seen.error = json["error"]["message"].as_str().map(str::to_owned);
        seen.usage = json.get("usage").filter(|usage| usage.is_object()).cloned();
        if let Some(choice) = json["choices"].as_array().and_then(|choices| choices.first()) {
            let message = &choice["message"];
            let text = message["content"].as_str().or(choice["text"].as_str());
            seen.text = text.unwrap_or_default().to_owned();
            seen.reasoning = message["reasoning_content"].as_str().unwrap_or_default().to_owned();
            seen.refusal = message["refusal"].as_str().unwrap_or_default().to_owned();
            seen.finish = choice["finish_reason"].as_str().map(str::to_owned);
            for (i, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
                seen.call(i as u64, call)?;
            }
        }
        return Ok(seen);
    }
    for block in text.split_terminator("\n\n") {
        if block.starts_with(':') {
            continue;
        }
        let data = block.strip_prefix("data: ").ok_or(format!("not an event: {block:.120}"))?;
        if data == "[DONE]" {
            seen.done = true;
            continue;
        }
        let json: Value = serde_json::from_str(data).map_err(|e| format!("{e}: {data:.200}"))?;
        seen.chunk(&json)?;
    }
    Ok(seen)
}

impl Seen {
    fn call(&mut self, index: u64, call: &Value) -> Result<(), String> {
        let next = self.calls.len() as u64;
        let known = self.calls.entry(index).or_default();
        if known.1.is_empty() {
            if index != next {
                return Err(format!("tool index {index} is not dense"));
            }
            known.0 = call["id"].as_str().unwrap_or_default().to_owned();
            known.1 = call["function"]["name"].as_str().unwrap_or_default().to_owned();
            if known.0.is_empty() || known.1.is_empty() || call["type"] != "function" {
                return Err(format!("a tool call without id, name or type: {call}"));
            }
        }
        known.2 += call["function"]["arguments"].as_str().unwrap_or_default();
        Ok(())
    }

    fn chunk(&mut self, json: &Value) -> Result<(), String> {
        if let Some(error) = json.get("error") {
            self.error = Some(error["message"].as_str().unwrap_or_default().to_owned());
            return Ok(());
        }
        if let Some(usage) = json.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        let choices = json["choices"].as_array().ok_or(format!("no choices: {json}"))?;
        let Some(choice) = choices.iter().find(|choice| choice["index"] == 0) else {
            return Ok(());
        };
        let delta = &choice["delta"];
        self.text += delta["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        self.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        self.refusal += delta["refusal"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().ok_or(format!("a call without index: {call}"))?;
            self.call(index, call)?;
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            if self.finish.is_some() {
                return Err("a second finish reason".into());
            }
            self.finish = Some(finish.to_owned());
        }
        Ok(())
    }
}

fn compare(got: &Translated, expect: &Value, stream: bool, done: bool) -> Result<(), String> {
    judge(read(got, stream)?, got.good, expect, !stream || done)
}

/// Whether an error has the provider's message, and has it only if that is the client's to know.
fn said(got: &str, want: &str) -> Result<(), String> {
    // The reading's own words for what is no answer at all.
    if matches!(want, "bad json" | "cut") {
        return Ok(());
    }
    // What a provider says of the gateway's key and account stays with the gateway.
    let is_ours = got.contains("did not accept the gateway's credential");
    // A message that is an object is told as its JSON text, however that is spaced.
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let same = got.contains(want) || parsed(want).is_some_and(|want| parsed(got) == Some(want));
    if same == is_ours {
        return Err(format!("an error {got:?} instead of {want:?}"));
    }
    Ok(())
}

/// Compares what a client saw with what was expected. `ended`: the body says that it is all.
fn judge(seen: Seen, good: bool, expect: &Value, ended: bool) -> Result<(), String> {
    // `[DONE]`, or a whole body, without a finish reason is no error: the reason is derived.
    let derived = expect["error"].is_null() && good && ended;
    if expect["terminal"] == false && !derived && (good || seen.error.is_none()) {
        return Err(format!("a good end where there was none: {seen:?}"));
    }
    if let Some(want) = expect["error"].as_str() {
        let got = seen.error.ok_or("the error is lost")?;
        return said(&got, want);
    }
    if expect["terminal"] == false && !derived {
        return Ok(());
    }
    if !good || !seen.done {
        return Err(format!("a bad end: {:?}", seen.error));
    }
    let same = |what: &str, got: &str, want: &Value| {
        let want = want.as_str().unwrap_or_default();
        if got == want {
            Ok(())
        } else {
            Err(format!("{what} {got:.300?} instead of {want:.300?}"))
        }
    };
    same("text", &seen.text, &expect["text"])?;
    same("reasoning", &seen.reasoning, &expect["reasoning"])?;
    same("refusal", &seen.refusal, &expect["refusal"])?;
    let calls: Vec<Value> = seen
        .calls
        .values()
        .map(|(_, name, arguments)| {
            let parsed: Value =
                serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
            json!({ "name": name, "arguments": parsed })
        })
        .collect();
    if json!(calls) != expect["tool_calls"] {
        return Err(format!("tool calls {} instead of {}", json!(calls), expect["tool_calls"]));
    }
    if expect["finish_reason"].is_string() {
        same("finish reason", seen.finish.as_deref().unwrap_or("none"), &expect["finish_reason"])?;
    }
    if let Some(want) = expect["usage"].as_object() {
        let usage = seen.usage.ok_or("the usage is lost")?;
        let got = json!({
            "prompt": usage["prompt_tokens"], "completion": usage["completion_tokens"],
            "cached": usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0),
            "reasoning": usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap_or(0),
        });
        for key in ["prompt", "completion", "cached", "reasoning"] {
            if got[key] != want[key] {
                return Err(format!("usage {key} {} instead of {}", got[key], want[key]));
            }
        }
    }
    Ok(())
}
