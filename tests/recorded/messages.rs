//! The same recordings for a client of the Messages API: each event must be one of the dialect, in its
//! place, and what they say must be what a chat client would get.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use firstbyte::app::translate::{Order, Translated, known, surface_in, translate};
use firstbyte::llm::demand;
use firstbyte::llm::dialects::{Dialect, chat_prompt, messages_prompt};
use firstbyte::wire::json as bytes;

use crate::{DIFFERENT, Seen, body, folder, judge, rows};

/// Rows that pass through this dialect unread and differ from the reading there, with why.
const PASSED: &[&str] = &[];

#[test]
fn every_readable_row_keeps_its_meaning_as_messages() {
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
        let Some(surface) = surface_in(surface, Dialect::Messages) else { continue };
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
        let seen = read(&got, stream);
        match seen.and_then(|seen| judge(seen, got.good, &in_its_words(expect), !stream || done)) {
            Ok(()) => *passed.entry(api.to_owned()).or_insert(0) += 1,
            Err(why) => wrong.push(format!("{file}: {why}")),
        }
    }
    println!("as expected: {passed:?}");
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(only.is_some() || !passed.is_empty());
}

/// What this dialect has no word for: a refusal is a text, and the reason for its end.
fn in_its_words(expect: &Value) -> Value {
    let mut expect = expect.clone();
    let refusal = expect["refusal"].as_str().unwrap_or_default().to_owned();
    if !refusal.is_empty() {
        expect["text"] = json!(format!("{}{refusal}", expect["text"].as_str().unwrap_or_default()));
        expect["finish_reason"] = json!("content_filter");
        expect["refusal"] = json!("");
    }
    // Arguments that are no object stand in one.
    for call in expect["tool_calls"].as_array_mut().into_iter().flatten() {
        if let Some(text) = call["arguments"].as_str() {
            call["arguments"] = json!({ "INVALID_JSON": text });
        }
    }
    // Cached tokens are told beside the others, so there can't be more of them than of all.
    let count = |name: &str| expect["usage"][name].as_u64();
    if let (Some(prompt), Some(cached)) = (count("prompt"), count("cached")) {
        expect["usage"]["cached"] = json!(cached.min(prompt));
    }
    expect
}

/// What a plain client makes of it.
pub fn read(got: &Translated, stream: bool) -> Result<Seen, String> {
    let text = std::str::from_utf8(&got.body).map_err(|e| e.to_string())?;
    let mut reading = Reading::default();
    if !stream || !text.starts_with("event: ") {
        let json: Value = serde_json::from_str(text).map_err(|e| format!("{e}: {text:.200}"))?;
        if json["type"] == "error" {
            reading.error(&json)?;
            return Ok(reading.seen);
        }
        reading.head(&json)?;
        for block in json["content"].as_array().ok_or("no content")? {
            reading.block(block)?;
        }
        for call in reading.seen.calls.values_mut().filter(|call| call.2.is_empty()) {
            call.2 = "{}".into();
        }
        reading.stop(&json)?;
        reading.seen.done = true;
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
    /// Blocks whose end has not come; of calls, their place.
    open: BTreeMap<u64, Option<u64>>,
    next: u64,
    begun: bool,
    stopped: bool,
    /// Numbers of the provider's own are its own business.
    gaps: bool,
}

impl Reading {
    fn error(&mut self, json: &Value) -> Result<(), String> {
        let message = json["error"]["message"].as_str().ok_or("an error without a message")?;
        json["error"]["type"].as_str().ok_or("an error without a type")?;
        self.seen.error = Some(message.to_owned());
        Ok(())
    }

    fn head(&mut self, message: &Value) -> Result<(), String> {
        let id = message["id"].as_str().ok_or("a message without id")?;
        let fits = message["type"] == "message" && message["role"] == "assistant";
        if !fits || id.is_empty() || message["model"] != "model" || !message["usage"].is_object() {
            return Err(format!("a bad head: {message}"));
        }
        self.usage(&message["usage"]);
        Ok(())
    }

    fn usage(&mut self, usage: &Value) {
        let usage = usage.as_object().cloned().unwrap_or_default();
        let known = self.seen.usage.get_or_insert_with(|| json!({}));
        for (name, value) in usage.into_iter().filter(|(_, value)| !value.is_null()) {
            known[name] = value;
        }
    }

    fn stop(&mut self, json: &Value) -> Result<(), String> {
        self.seen.finish = match json["stop_reason"].as_str() {
            None => None,
            Some("end_turn" | "stop_sequence" | "pause_turn") => Some("stop"),
            Some("max_tokens" | "model_context_window_exceeded") => Some("length"),
            Some("tool_use") => Some("tool_calls"),
            Some("refusal") => Some("content_filter"),
            Some(other) => return Err(format!("the stop reason {other}")),
        }
        .map(str::to_owned);
        let count = |name: &str| self.seen.usage.as_ref().and_then(|usage| usage[name].as_u64());
        let input = count("input_tokens").unwrap_or(0);
        let cached = count("cache_read_input_tokens").unwrap_or(0);
        let prompt = input + cached + count("cache_creation_input_tokens").unwrap_or(0);
        let reasoning =
            self.seen.usage.as_ref().map(|u| u["output_tokens_details"]["thinking_tokens"].clone());
        self.seen.usage = Some(json!({
            "prompt_tokens": prompt, "completion_tokens": count("output_tokens"),
            "prompt_tokens_details": { "cached_tokens": cached },
            "completion_tokens_details": { "reasoning_tokens": reasoning },
        }));
        Ok(())
    }

    /// A block at its start, or whole; says which call it is.
    fn block(&mut self, block: &Value) -> Result<Option<u64>, String> {
        let string = |name: &str| block[name].as_str().ok_or(format!("no {name} in {block}"));
        match string("type")? {
            "text" => self.seen.text += string("text")?,
            "thinking" => {
                string("signature")?;
                self.seen.reasoning += string("thinking")?;
            }
            "redacted_thinking" => _ = string("data")?,
            "tool_use" => {
                let id = string("id")?;
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                if id.is_empty() || !id.chars().all(allowed) || !block["input"].is_object() {
                    return Err(format!("a bad call: {block}"));
                }
                let place = self.seen.calls.len() as u64;
                let empty = block["input"].as_object().unwrap().is_empty();
                let input = if empty { String::new() } else { block["input"].to_string() };
                let call = (id.to_owned(), string("name")?.to_owned(), input);
                self.seen.calls.insert(place, call);
                return Ok(Some(place));
            }
            // The provider's own tools, passed on.
            _ => {}
        }
        Ok(None)
    }

    fn event(&mut self, name: &str, json: &Value) -> Result<(), String> {
        if self.seen.done || self.seen.error.is_some() {
            return Err(format!("{name} after the end"));
        }
        if name != "message_start" && name != "error" && !self.begun {
            return Err(format!("{name} before the head"));
        }
        match name {
            "message_start" => {
                if std::mem::replace(&mut self.begun, true) {
                    return Err("a second head".into());
                }
                self.head(&json["message"])?;
                for block in json["message"]["content"].as_array().ok_or("no content")? {
                    self.block(block)?;
                    self.gaps = true;
                }
            }
            "content_block_start" => {
                let index = json["index"].as_u64().ok_or("no index")?;
                if index != self.next && !self.gaps {
                    return Err(format!("block {index} instead of {}", self.next));
                }
                self.next = index + 1;
                let call = self.block(&json["content_block"])?;
                self.open.insert(index, call);
            }
            "content_block_delta" => self.delta(json)?,
            "content_block_stop" => {
                let index = json["index"].as_u64().ok_or("no index")?;
                let call = self.open.remove(&index).ok_or(format!("{index} is not open"))?;
                // What is not JSON by its end was cut by the limit.
                if let Some(call) = call.and_then(|call| self.seen.calls.get_mut(&call))
                    && call.2.is_empty()
                {
                    call.2 = "{}".into();
                }
            }
            "message_delta" => {
                if self.stopped || !self.open.is_empty() {
                    return Err(format!("stopped with {:?} open", self.open));
                }
                self.stopped = true;
                self.usage(&json["usage"]);
                self.stop(&json["delta"])?;
            }
            "message_stop" => self.seen.done = self.stopped,
            "error" => self.error(json)?,
            "ping" => {}
            other => return Err(format!("the event {other}")),
        }
        Ok(())
    }

    fn delta(&mut self, json: &Value) -> Result<(), String> {
        let index = json["index"].as_u64().ok_or("no index")?;
        let call = self.open.get(&index).ok_or(format!("{index} is not open"))?;
        let delta = &json["delta"];
        let string = |name: &str| delta[name].as_str().ok_or(format!("no {name} in {delta}"));
        match string("type")? {
            "text_delta" => self.seen.text += string("text")?,
            "thinking_delta" => self.seen.reasoning += string("thinking")?,
            "signature_delta" => _ = string("signature")?,
            "input_json_delta" => {
                if let Some(call) = call.and_then(|call| self.seen.calls.get_mut(&call)) {
                    call.2 += string("partial_json")?;
                }
            }
            // The provider's own, passed on.
            "compaction_delta" => {}
            "citations_delta" => _ = delta["citation"].as_object().ok_or("no citation")?,
            other => return Err(format!("the delta {other}")),
        }
        Ok(())
    }
}

#[test]
fn recorded_prompts_are_counted_within_bounds() {
    let Some(folder) = folder() else { return };
    let expected: BTreeMap<String, Value> = rows(&folder, "EXPECT.jsonl")
        .into_iter()
        .map(|row| (row["file"].as_str().unwrap().to_owned(), row))
        .collect();
    let (mut within, mut all) = (0, 0);
    for row in rows(&folder, "INDEX.jsonl") {
        let Some(request) = row["request_file"].as_str() else { continue };
        // What the provider itself found or ran is counted too, and not in the request.
        let builtin = json!("builtin_tools");
        if row["features"].as_array().is_some_and(|features| features.contains(&builtin)) {
            continue;
        }
        let read = match row["api"].as_str() {
            Some("anthropic-messages") => messages_prompt::read,
            Some("openai-chat") => chat_prompt::read,
            _ => continue,
        };
        let text = std::fs::read_to_string(folder.join(request)).unwrap();
        let has_media = ["\"image", "\"file\"", "\"document\"", "\"input_audio\"", "\"video"]
            .iter()
            .any(|word| text.contains(word));
        let Ok(request) = serde_json::from_str::<Value>(&text) else { continue };
        let Some(usage) = expected.get(row["file"].as_str().unwrap()) else { continue };
        let counted = usage["usage"]["prompt"].as_u64().unwrap_or(0);
        let Ok(prompt) = read(&request) else { continue };
        if has_media || counted < 100 {
            continue;
        }
        let mut members = bytes::Top::new();
        bytes::document_with_top(text.as_bytes(), &mut members).unwrap();
        let guessed = u64::from(demand::read(text.as_bytes(), &members).prompt);
        let preamble = if prompt.tools.is_empty() { 0 } else { 500 };
        let fits = guessed.abs_diff(counted) <= counted / 3 + preamble;
        println!("{fits} {counted} {guessed} {}", row["file"].as_str().unwrap());
        all += 1;
        within += u64::from(fits);
    }
    println!("{within} of {all} are within bounds");
    assert!(within * 10 >= all * 9, "{within} of {all}");
}

/// Cuts a stream in two at each byte, and ends it there: it is good from the byte on that completes
/// `last`.
fn cut_everywhere(api: (&str, &str), stream: &str, last: &str) -> String {
    let (kind, surface) = known(api.0, api.1).unwrap();
    let surface = surface_in(surface, Dialect::Messages).unwrap();
    let order = Order { kind, surface, stream: true, status: 200 };
    let bytes = stream.as_bytes();
    let whole = translate(&order, [bytes]);
    let text = String::from_utf8(whole.body.clone()).unwrap();
    assert!(whole.good, "{text}");
    read(&whole, true).unwrap();
    let ended = stream.find(last).unwrap() + last.len();
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(translate(&order, [head, tail]).body, whole.body, "cut at {at}");
        let headed = translate(&order, [head]);
        let said = String::from_utf8(headed.body.clone()).unwrap();
        assert_eq!(headed.good, at >= ended, "ends at {at}");
        assert_eq!(said.contains("message_stop"), at >= ended, "ends at {at}: {said}");
        // An error before anything of substance is a plain answer, after it an event.
        let committed = said.starts_with("event: ");
        assert!(at >= ended || said.contains("\"type\":\"error\""), "ends at {at}: {said}");
        read(&headed, committed).unwrap_or_else(|why| panic!("ends at {at}: {why}"));
    }
    text
}

#[test]
fn a_stream_of_the_same_dialect_passes_however_it_is_cut() {
    let event = |data: Value| {
        let name = data["type"].as_str().unwrap();
        format!("event: {name}\r\ndata: {data}\r\n\r\n")
    };
    let delta = |index: u64, kind: &str, key: &str, said: &str| {
        event(
            json!({ "type": "content_block_delta", "index": index, "delta": { "type": kind, key: said } }),
        )
    };
    let start = |index: u64, block: Value| {
        event(json!({ "type": "content_block_start", "index": index, "content_block": block }))
    };
    let stop = |index: u64| event(json!({ "type": "content_block_stop", "index": index }));
    let head = json!({ "type": "message_start", "message": { "id": "msg_1", "type": "message",
        "role": "assistant", "model": "claude", "content": [], "usage": { "input_tokens": 3 } } });
    let end = json!({ "type": "message_delta", "delta": { "stop_reason": "pause_turn" }, "usage": { "output_tokens": 4 } });
    let last = "{\"type\":\"message_stop\"}";
    let stream = [
        event(head.clone()),
        event(json!({ "type": "ping" })),
        start(0, json!({ "type": "thinking", "thinking": "", "signature": "" })),
        delta(0, "thinking_delta", "thinking", "\u{17c}\n"),
        delta(0, "signature_delta", "signature", "sig"),
        stop(0),
        event(json!({ "type": "ping" })),
        start(
            1,
            json!({ "type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {} }),
        ),
        delta(1, "input_json_delta", "partial_json", "{\"query\":1}"),
        stop(1),
        start(
            2,
            json!({ "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [] }),
        ),
        stop(2),
        event(end),
        format!("event: message_stop\r\ndata: {last}\r\n\r\n"),
    ];
    let got = cut_everywhere(("anthropic", "anthropic-messages"), &stream.concat(), last);
    // As it came, but for line ends, the model's name, and a ping before the answer had begun.
    let mut want = stream.concat().replace("\r\n", "\n").replace("\"claude\"", "\"model\"");
    let ping = want.find("event: ping").unwrap();
    want.replace_range(ping..ping + want[ping..].find("\n\n").unwrap() + 2, "");
    assert_eq!(got, want);
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
    let last = chunk(json!({}), json!("tool_calls"));
    let stream = [
        chunk(json!({ "role": "assistant", "content": "" }), json!(null)),
        chunk(json!({ "reasoning_content": "hm" }), json!(null)),
        chunk(json!({ "content": "\u{1f986}\n" }), json!(null)),
        chunk(call(0, "a", "{\"x\":"), json!(null)),
        chunk(
            json!({ "tool_calls": [{ "index": 0, "function": { "arguments": "1}" } }] }),
            json!(null),
        ),
        chunk(call(1, "functions.f:1", ""), json!(null)),
        last.clone(),
        "data: [DONE]\n\n".to_owned(),
    ];
    let got = cut_everywhere(("openai", "openai-chat"), &stream.concat(), last.trim_end());
    let seen = read(&Translated { body: got.into_bytes(), good: true }, true).unwrap();
    assert_eq!((seen.reasoning.as_str(), seen.text.as_str()), ("hm", "\u{1f986}\n"));
    assert_eq!(seen.calls[&0], ("a".into(), "f".into(), "{\"x\":1}".into()));
    assert_eq!((seen.calls[&1].1.as_str(), seen.calls[&1].2.as_str()), ("f", "{}"));
    assert_eq!(seen.finish.as_deref(), Some("tool_calls"));
}

#[test]
fn damaged_streams_stay_in_the_dialect() {
    let chat = concat!(
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi \\u017c\"}}]}\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",",
        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]}}]}\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}],",
        "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\ndata: [DONE]\n\n",
    );
    let gemini = concat!(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true},{\"text\":\"Hi\"}]}}]}\r\n\r\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{\"x\":\"}\"}}}]},",
        "\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":1}}\r\n\r\n",
    );
    for (provider, api, stream) in
        [("openai", "openai-chat", chat), ("gemini", "gemini-generate", gemini)]
    {
        let (kind, surface) = known(provider, api).unwrap();
        let surface = surface_in(surface, Dialect::Messages).unwrap();
        let order = Order { kind, surface, stream: true, status: 200 };
        for at in 0..stream.len() {
            for damage in [b"".as_slice(), b"\"", b"{", b"}", b"\\", b"\n", b"0", b"\xff"] {
                let bytes =
                    [&stream.as_bytes()[..at], damage, &stream.as_bytes()[at + 1..]].concat();
                let got = translate(&order, [bytes.as_slice()]);
                let committed = got.body.starts_with(b"event: ");
                let seen = read(&got, committed).unwrap_or_else(|why| {
                    panic!("{why}\nof {}\nat {at}", String::from_utf8_lossy(&bytes))
                });
                // A good end or an error, and never both.
                assert_eq!(seen.error.is_none(), got.good, "at {at} of {provider}");
            }
        }
    }
}
