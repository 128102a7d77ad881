//! The same recordings for a client of the Responses API: each event must be one of the dialect, in its
//! place, and what they say must be what a chat client would get.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use firstbyte::app::translate::{Order, Translated, known, surface_in, translate};
use firstbyte::llm::dialects::Dialect;
use firstbyte::llm::providers::Kind;

use crate::{DIFFERENT, Seen, body, folder, judge, rows};

/// Rows that pass through this dialect unread and differ from the reading there, with why.
const PASSED: &[&str] = &[];

#[test]
fn every_readable_row_keeps_its_meaning_as_responses() {
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
        let Some(surface) = surface_in(surface, Dialect::Responses) else { continue };
        let different = DIFFERENT.contains(&file) || PASSED.contains(&file);
        if different || only.as_deref().is_some_and(|o| !file.starts_with(o)) {
            continue;
        }
        let Some(bytes) = body(&folder, &row) else { continue };
        let stream = row["stream"] == true && row["status"] == 200;
        let status = row["status"].as_u64().unwrap() as u16;
        let order = Order { kind, surface, stream, status };
        let got = translate(&order, [bytes.as_slice()]);
        let bytewise = translate(&order, bytes.chunks(if bytes.len() > 50_000 { 997 } else { 1 }));
        if got.body != bytewise.body {
            wrong.push(format!("{file}: another result in pieces"));
        }
        let done = bytes.windows(6).any(|window| window == b"[DONE]");
        let seen = read(&got, stream, kind == Kind::Responses);
        match seen.and_then(|seen| judge(seen, got.good, expect, !stream || done)) {
            Ok(()) => *passed.entry(api.to_owned()).or_insert(0) += 1,
            Err(why) => wrong.push(format!("{file}: {why}")),
        }
    }
    println!("as expected: {passed:?}");
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(only.is_some() || !passed.is_empty());
}

/// What a plain client makes of it. `passed` through, an answer may lack what its provider leaves out.
pub fn read(got: &Translated, stream: bool, passed: bool) -> Result<Seen, String> {
    let text = std::str::from_utf8(&got.body).map_err(|e| e.to_string())?;
    let mut reading = Reading { passed, ..Reading::default() };
    if !stream || !text.starts_with("event: ") {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("{e}: {text:.200}"))?;
        if json["error"].is_object() {
            reading.error(&json["error"])?;
            return Ok(reading.seen);
        }
        reading.response(&json)?;
        reading.end(&json)?;
        return Ok(reading.seen);
    }
    for block in text.split_terminator("\n\n") {
        if block.starts_with(':') {
            continue;
        }
        let rest = block.strip_prefix("event: ").ok_or(format!("not an event: {block:.120}"))?;
        let (name, data) = rest.split_once("\ndata: ").ok_or(format!("no data: {block:.120}"))?;
        let json: Value = serde_json::from_str(data).map_err(|e| format!("{e}: {data:.200}"))?;
        if json["type"] != name {
            return Err(format!("{name} is not the type of {data:.200}"));
        }
        reading.event(name, &json)?;
    }
    Ok(reading.seen)
}

#[derive(Default)]
struct Reading {
    seen: Seen,
    passed: bool,
    /// Events so far.
    count: u64,
    /// The whole items, each at its index.
    items: BTreeMap<u64, Item>,
}

/// An item as its events tell it.
#[derive(Default)]
struct Item {
    id: Value,
    /// What the deltas came to, by the place of the part.
    texts: BTreeMap<u64, String>,
    whole: Option<Value>,
}

/// Tools that a provider carries out itself, though they look like the client's.
const SERVED: [&str; 4] =
    ["x_keyword_search", "x_semantic_search", "x_thread_fetch", "x_user_search"];

impl Reading {
    fn error(&mut self, error: &Value) -> Result<(), String> {
        let message = error["message"].as_str().ok_or("an error without a message")?;
        error["type"].as_str().ok_or("an error without a type")?;
        self.seen.error = Some(message.to_owned());
        Ok(())
    }

    fn response(&self, response: &Value) -> Result<(), String> {
        let id = response["id"].as_str().unwrap_or_default();
        let fits = response["object"] == "response" && response["output"].is_array();
        let named = response["model"] == "model" || self.passed && response["model"].is_null();
        if !self.passed && (!fits || id.is_empty()) || !named {
            return Err(format!("a bad answer: {response:.300}"));
        }
        Ok(())
    }

    fn event(&mut self, name: &str, json: &Value) -> Result<(), String> {
        if self.seen.done || self.seen.error.is_some() {
            return Err(format!("{name} after the end"));
        }
        if json["sequence_number"] != self.count && !self.passed {
            return Err(format!("number {} is not {}", json["sequence_number"], self.count));
        }
        self.count += 1;
        if self.count == 1 && name != "response.created" && name != "error" && !self.passed {
            return Err(format!("{name} before the beginning"));
        }
        if json["response"].is_object() {
            self.response(&json["response"])?;
        }
        match name {
            "error" => self.error(&json["error"]),
            "response.completed" | "response.incomplete" => self.last(&json["response"]),
            "response.failed" => Err("a failure beside the error".into()),
            "response.output_item.added" => {
                let at = json["output_index"].as_u64().ok_or("no output index")?;
                if at != self.items.len() as u64 && !self.passed {
                    return Err(format!("item {at} instead of {}", self.items.len()));
                }
                self.items.entry(at).or_default().id = json["item"]["id"].clone();
                Ok(())
            }
            _ if json.get("output_index").is_some() => self.part(name, json),
            _ => Ok(()),
        }
    }

    fn part(&mut self, name: &str, json: &Value) -> Result<(), String> {
        let at = json["output_index"].as_u64().ok_or("no output index")?;
        if !self.items.contains_key(&at) && !self.passed {
            return Err(format!("{name} of no item"));
        }
        let item = self.items.entry(at).or_default();
        if json.get("item_id").is_some_and(|id| *id != item.id) && !self.passed {
            return Err(format!("{} is not {}", json["item_id"], item.id));
        }
        let place = json["content_index"].as_u64().or(json["summary_index"].as_u64()).unwrap_or(0);
        if name.ends_with(".delta") {
            let delta = json["delta"].as_str().unwrap_or_default();
            item.texts.entry(place).or_default().push_str(delta);
        }
        let whole = ["text", "refusal", "arguments"].iter().find_map(|key| json[*key].as_str());
        if let Some(whole) = whole.filter(|_| name.ends_with(".done")) {
            let told = item.texts.get(&place).map_or("", String::as_str);
            if told != whole && !self.passed {
                return Err(format!("{told:.200?} is told as {whole:.200?}"));
            }
        }
        if name == "response.output_item.done" {
            item.whole = Some(json["item"].clone());
        }
        Ok(())
    }

    /// The last event has all of it again.
    fn last(&mut self, response: &Value) -> Result<(), String> {
        let told: Vec<Value> = self.items.values().filter_map(|item| item.whole.clone()).collect();
        let output = response["output"].as_array().ok_or("no output")?;
        if self.items.len() != told.len() && !self.passed {
            return Err("an item without an end".into());
        }
        if *output != told && !self.passed {
            return Err(format!("{} is told as {}", json!(told), json!(output)));
        }
        let mut response = response.clone();
        if output.is_empty() {
            response["output"] = json!(told);
        }
        self.end(&response)
    }

    fn end(&mut self, response: &Value) -> Result<(), String> {
        for item in response["output"].as_array().into_iter().flatten() {
            self.item(item)?;
        }
        let reason = response["incomplete_details"]["reason"].as_str();
        let finish = match (response["status"].as_str(), reason) {
            (Some("completed"), _) if self.seen.calls.is_empty() => "stop",
            (Some("completed"), _) => "tool_calls",
            (Some("incomplete"), Some("content_filter")) => "content_filter",
            (Some("incomplete"), _) => "length",
            (status, _) => return Err(format!("the status {status:?}")),
        };
        self.seen.finish = Some(finish.to_owned());
        self.seen.usage = response["usage"].as_object().map(|usage| {
            json!({
                "prompt_tokens": usage["input_tokens"], "completion_tokens": usage["output_tokens"],
                "prompt_tokens_details": usage.get("input_tokens_details"),
                "completion_tokens_details": usage.get("output_tokens_details"),
            })
        });
        self.seen.done = true;
        Ok(())
    }

    fn item(&mut self, item: &Value) -> Result<(), String> {
        let string = |name: &str| item[name].as_str().ok_or(format!("no {name} in {item:.300}"));
        let id = if self.passed { "" } else { string("id")? };
        let prefix = match string("type")? {
            "message" => {
                for part in item["content"].as_array().into_iter().flatten() {
                    self.seen.text += part["text"].as_str().unwrap_or_default();
                    self.seen.refusal += part["refusal"].as_str().unwrap_or_default();
                }
                "msg_"
            }
            "reasoning" => {
                let texts = |name: &str| {
                    let list = item[name].as_array().into_iter().flatten();
                    list.filter_map(|part| part["text"].as_str())
                        .filter(|text| !text.is_empty())
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                };
                let summary = texts("summary");
                // Summaries are paragraphs; what was told of another format has its own line ends.
                let is_apart = self.passed && !summary.is_empty();
                for text in if summary.is_empty() { texts("content") } else { summary } {
                    if is_apart && !self.seen.reasoning.is_empty() {
                        self.seen.reasoning += "\n\n";
                    }
                    self.seen.reasoning += &text;
                }
                "rs_"
            }
            "function_call" => {
                let call = [string("call_id")?, string("name")?, string("arguments")?];
                let [id, name, arguments] = call.map(str::to_owned);
                if id.is_empty() || name.is_empty() {
                    return Err(format!("a bad call: {item}"));
                }
                self.seen.calls.insert(self.seen.calls.len() as u64, (id, name, arguments));
                "fc_"
            }
            "custom_tool_call" if item["call_id"].is_string() => {
                let [name, input] = [string("name")?, string("input")?].map(str::to_owned);
                if !SERVED.contains(&name.as_str()) {
                    let call = (String::new(), name, input);
                    self.seen.calls.insert(self.seen.calls.len() as u64, call);
                }
                "ctc_"
            }
            "image_generation_call" => "ig_",
            other if self.passed => other,
            other => return Err(format!("the item {other}")),
        };
        if !self.passed && (!id.starts_with(prefix) || id.len() > 64) {
            return Err(format!("the id {id}"));
        }
        Ok(())
    }
}

/// Cuts a stream in two at each byte, and ends it there: it is good from the byte on that completes
/// `last`.
fn cut_everywhere(api: (&str, &str), stream: &str, last: &str) -> String {
    let (kind, surface) = known(api.0, api.1).unwrap();
    let surface = surface_in(surface, Dialect::Responses).unwrap();
    let order = Order { kind, surface, stream: true, status: 200 };
    let bytes = stream.as_bytes();
    let whole = translate(&order, [bytes]);
    let text = String::from_utf8(whole.body.clone()).unwrap();
    assert!(whole.good, "{text}");
    let passed = kind == Kind::Responses;
    let seen = read(&whole, true, passed).unwrap();
    assert!(seen.done, "{text}");
    let ended = stream.find(last).unwrap() + last.len();
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(translate(&order, [head, tail]).body, whole.body, "cut at {at}");
        let headed = translate(&order, [head]);
        let said = String::from_utf8(headed.body.clone()).unwrap();
        assert_eq!(headed.good, at >= ended, "ends at {at}");
        assert_eq!(said.contains("response.completed"), at >= ended, "ends at {at}: {said}");
        // An error before anything of substance is a plain answer, after it the one last event.
        let committed = said.starts_with("event: ");
        let errors = said.matches("event: error\n").count();
        assert_eq!(errors, usize::from(committed && at < ended), "ends at {at}: {said}");
        assert!(!said.contains("response.failed"), "ends at {at}: {said}");
        let seen = read(&headed, committed, passed);
        let seen = seen.unwrap_or_else(|why| panic!("ends at {at}: {why}"));
        assert_eq!((seen.done, seen.error.is_some()), (at >= ended, at < ended), "ends at {at}");
    }
    text
}

#[test]
fn a_stream_of_the_same_dialect_passes_however_it_is_cut() {
    let event = |number: u64, kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(number);
        format!("event: {kind}\r\ndata: {data}\r\n\r\n")
    };
    let response = |status: &str, output: Value| {
        json!({ "response": { "id": "resp_1", "object": "response", "status": status,
            "model": "gpt-up", "output": output, "usage": null, "tools": [{ "type": "web_search" }] } })
    };
    let content = json!([{ "type": "output_text", "text": "H\u{fc}", "annotations": [] }]);
    let message = |content: &Value| json!({ "type": "message", "id": "msg_1", "content": content });
    let search = json!({ "type": "web_search_call", "id": "ws_1" });
    let of = |at: u64, item: Value| json!({ "output_index": at, "item": item });
    let last =
        event(9, "response.completed", response("completed", json!([search, message(&content)])));
    let stream = [
        event(0, "response.created", response("in_progress", json!([]))),
        event(1, "response.in_progress", response("in_progress", json!([]))),
        event(2, "response.output_item.added", of(0, search.clone())),
        event(3, "response.output_item.done", of(0, search.clone())),
        event(4, "response.output_item.added", of(1, message(&json!([])))),
        event(
            5,
            "response.output_text.delta",
            json!({ "output_index": 1, "content_index": 0, "item_id": "msg_1", "delta": "H\u{fc}", "obfuscation": "x" }),
        ),
        event(6, "keepalive", json!({})),
        event(7, "response.output_text.done", json!({ "output_index": 1, "text": "H\u{fc}" })),
        event(8, "response.output_item.done", of(1, message(&content))),
        last.clone(),
    ];
    let got = cut_everywhere(("openai", "openai-responses"), &stream.concat(), last.trim_end());
    assert_eq!(got, stream.concat().replace("\r\n", "\n").replace("\"gpt-up\"", "\"model\""));
}

#[test]
fn a_stream_of_chat_means_the_same_however_it_is_cut() {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let chunk = json!({ "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice] });
        format!("data: {chunk}\n\n")
    };
    let call = |index: u64, id: &str, arguments: &str| {
        let function = json!({ "name": "f", "arguments": arguments });
        json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] })
    };
    let more = |index: u64, arguments: &str| json!({ "tool_calls": [{ "index": index, "function": { "arguments": arguments } }] });
    let last = chunk(json!({}), json!("tool_calls"));
    let stream = [
        chunk(json!({ "role": "assistant", "content": "" }), json!(null)),
        chunk(json!({ "reasoning_content": "hm" }), json!(null)),
        chunk(json!({ "content": "\u{1f986}\n" }), json!(null)),
        chunk(call(0, "a", "{\"x\":"), json!(null)),
        chunk(call(1, "b", ""), json!(null)),
        chunk(more(0, "1}"), json!(null)),
        last.clone(),
        "data: [DONE]\n\n".to_owned(),
    ];
    let got = cut_everywhere(("openai", "openai-chat"), &stream.concat(), last.trim_end());
    let seen = read(&Translated { body: got.into_bytes(), good: true }, true, false).unwrap();
    assert_eq!((seen.reasoning.as_str(), seen.text.as_str()), ("hm", "\u{1f986}\n"));
    assert_eq!(seen.calls[&0], ("a".into(), "f".into(), "{\"x\":1}".into()));
    assert_eq!(seen.calls[&1], ("b".into(), "f".into(), "{}".into()));
    assert_eq!(seen.finish.as_deref(), Some("tool_calls"));
}

#[test]
fn whatever_comes_what_goes_out_is_of_the_dialect() {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        format!("data: {}\n\n", json!({ "id": "c1", "model": "up", "choices": [choice] }))
    };
    let function = json!({ "name": "f", "arguments": "{\"x\":\"\u{17c}\"}" });
    let stream = [
        chunk(json!({ "role": "assistant", "content": "" }), json!(null)),
        chunk(json!({ "reasoning_content": "hm \\ \"" }), json!(null)),
        chunk(json!({ "content": "\u{1f986}\n" }), json!(null)),
        chunk(
            json!({ "tool_calls": [{ "index": 0, "id": "a", "function": function }] }),
            json!(null),
        ),
        chunk(json!({ "refusal": "no" }), json!("stop")),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat();
    let (kind, surface) = known("openai", "openai-chat").unwrap();
    let surface = surface_in(surface, Dialect::Responses).unwrap();
    let order = Order { kind, surface, stream: true, status: 200 };
    // A generator of its own, so that a failure comes again (Knuth's constants).
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut good = 0;
    for round in 0..3000 {
        let mut bytes = stream.clone().into_bytes();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = next(256) as u8,
                1 => _ = bytes.remove(at),
                _ => bytes.insert(at, b"{}[]\",:\\\n0"[next(10)]),
            }
        }
        let got = translate(&order, [bytes.as_slice()]);
        let streamed = got.body.starts_with(b"event: ");
        let seen = read(&got, streamed, false);
        let seen = seen.unwrap_or_else(|why| {
            panic!("round {round}: {why}\n{}", String::from_utf8_lossy(&bytes))
        });
        assert_eq!((seen.done, seen.error.is_some()), (got.good, !got.good), "round {round}");
        good += usize::from(got.good);
    }
    assert!(good > 100 && good < 2900, "{good}");
}

#[test]
fn an_answer_that_grows_past_its_limit_is_cut() {
    let chunk = |content: &str, finish: Value| {
        let choice =
            json!({ "index": 0, "delta": { "content": content }, "finish_reason": finish });
        format!("data: {}\n\n", json!({ "id": "c1", "model": "up", "choices": [choice] }))
    };
    let (kind, surface) = known("openai", "openai-chat").unwrap();
    let long = "x".repeat(1 << 20);
    for (to, pieces, good) in
        [(Dialect::Responses, 8, true), (Dialect::Responses, 9, false), (Dialect::Chat, 9, true)]
    {
        let order =
            Order { kind, surface: surface_in(surface, to).unwrap(), stream: true, status: 200 };
        let mut stream = vec![chunk(&long, json!(null)); pieces];
        stream.push(chunk("", json!("stop")));
        let got = translate(&order, stream.iter().map(String::as_bytes));
        assert_eq!(got.good, good, "{to:?} {pieces}");
        if !good {
            let seen = read(&got, true, false).unwrap();
            assert!(seen.error.is_some() && !seen.done);
        }
    }
}
