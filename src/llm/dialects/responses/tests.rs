//! Each event form and each item, streamed and whole, as a plain client would read them.

use serde_json::json;

use super::*;
use crate::llm::dialects::{Dialect, ErrorText, responses_prompt};
use crate::llm::prompt::{Part, Signature};

/// What came of one answer.
struct Got {
    out: String,
    told: Told,
    events: u32,
}

fn play(whole: bool, tell: impl FnOnce(&mut Sink<'_>)) -> Got {
    let (mut told, mut out, mut events) = (Told::new(Dialect::Responses), Buf::new(), 0);
    if whole {
        told.gather();
    }
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req-7",
        seconds: 9,
        told: &mut told,
    };
    tell(&mut sink);
    Got { out: String::from_utf8(out.as_slice().to_vec()).unwrap(), told, events }
}

impl Got {
    /// The events, each under the name that it has inside, numbered from 0.
    fn read(&self) -> Vec<Value> {
        let blocks = self.out.split_terminator("\n\n");
        let events: Vec<Value> = blocks
            .map(|block| {
                let (name, data) = block.split_once("\ndata: ").unwrap();
                let data: Value = serde_json::from_str(data).unwrap();
                assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
                data
            })
            .collect();
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number, "{event}");
        }
        assert_eq!(events.len(), self.events as usize);
        events
    }

    fn names(&self) -> Vec<String> {
        let name = |event: &Value| {
            event["type"].as_str().unwrap().trim_start_matches("response.").to_owned()
        };
        self.read().iter().map(name).collect()
    }
}

/// Puts together what the events tell, as SDKs do, and holds it against the last event's answer.
fn gathered(got: &Got) -> Value {
    let events = got.read();
    let mut items: Vec<Value> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    for event in &events {
        let at = event["output_index"].as_u64().unwrap_or(0) as usize;
        let kind = event["type"].as_str().unwrap();
        if kind == "response.output_item.added" {
            assert_eq!(at, items.len(), "dense");
            assert_ne!(event["item"]["status"], "completed");
            items.push(event["item"].clone());
            texts.push(String::new());
        }
        if event.get("item_id").is_some() {
            assert_eq!(event["item_id"], items[at]["id"], "{event}");
        }
        if kind.ends_with(".delta") {
            texts[at].push_str(event["delta"].as_str().unwrap());
        }
        for (name, key) in [
            ("output_text", "text"),
            ("refusal", "refusal"),
            ("reasoning_summary_text", "text"),
            ("function_call_arguments", "arguments"),
        ] {
            if kind == format!("response.{name}.done") {
                assert_eq!(event[key], texts[at].as_str());
            }
        }
        if kind == "response.output_item.done" {
            assert_eq!(event["item"]["id"], items[at]["id"]);
            items[at] = event["item"].clone();
        }
    }
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"], Value::Array(items));
    last.clone()
}

/// An answer with everything in it.
fn everything(sink: &mut Sink<'_>) {
    sink.start(Some(Piece::Text("chatcmpl-12\u{fc}")), Some(5));
    sink.thought(0);
    sink.reason(0, Piece::Text("h\"m"));
    sink.reason(0, Piece::Raw(b"\\n"));
    sink.sign(0, Family::Anthropic, Piece::Text("proof"));
    sink.redacted(0, Piece::Text("hidden"));
    sink.text(0, Piece::Raw(b"Hi "));
    sink.text(0, Piece::Raw(b"\\ud83e\\udd86"));
    sink.annotate(
        0,
        br#"{"type":"url_citation","url_citation":{"url":"https://x","title":"X","start_index":1,"end_index":2}}"#,
    );
    let f = sink.tool(0, Piece::Text("c1"), Piece::Text("f"));
    sink.args(0, f, Piece::Raw(b"{\\\"x\\\":"));
    let g = sink.tool(0, Piece::Text(""), Piece::Text("g"));
    sink.sign_call(0, f, Family::Gemini, Piece::Text("mark"));
    sink.args(0, f, Piece::Raw(b"1}"));
    sink.image(0, "image/webp", Piece::Text("QUJD"));
    assert_eq!(g, 1);
    sink.refuse(0, Piece::Text("no"));
    sink.text(0, Piece::Text("!"));
    sink.stop(0, Finish::Stop);
    sink.usage(Usage { prompt: 7, completion: 5, cached: 3, cache_write: 0, reasoning: 2 });
    sink.finish(false);
}

#[test]
fn text_lives_through_each_of_its_events() {
    let got = play(false, |sink| {
        sink.start(Some(Piece::Text("chatcmpl-1")), Some(5));
        sink.text(0, Piece::Text("Hi"));
        sink.text(0, Piece::Text(" you"));
        sink.stop(0, Finish::Stop);
        sink.usage(Usage { prompt: 7, completion: 5, cached: 3, cache_write: 1, reasoning: 2 });
        sink.finish(false);
    });
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] });
    let item = |status: &str, content: Value| json!({ "id": "msg_chatcmpl1_0", "type": "message", "status": status, "role": "assistant", "content": content });
    let events = got.read();
    let answer = |status: &str, output: Value, usage: Value| {
        json!({
            "id": "resp_chatcmpl1", "object": "response", "created_at": 5, "status": status,
            "background": false, "error": null, "incomplete_details": null, "instructions": null,
            "max_output_tokens": null, "model": "shown", "output": output,
            "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null }, "store": false, "temperature": null,
            "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [],
            "top_p": null, "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
        })
    };
    let begun = answer("in_progress", json!([]), Value::Null);
    let of = json!({ "item_id": "msg_chatcmpl1_0", "output_index": 0, "content_index": 0 });
    let usage = json!({
        "input_tokens": 7, "input_tokens_details": { "cached_tokens": 3, "cache_write_tokens": 1 },
        "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 2 }, "total_tokens": 12,
    });
    let whole = item("completed", json!([part("Hi you")]));
    for (event, (name, rest, of)) in events.iter().zip([
        ("created", json!({ "response": begun }), &json!({})),
        ("in_progress", json!({ "response": begun }), &json!({})),
        (
            "output_item.added",
            json!({ "output_index": 0, "item": item("in_progress", json!([])) }),
            &json!({}),
        ),
        ("content_part.added", json!({ "part": part("") }), &of),
        ("output_text.delta", json!({ "delta": "Hi", "logprobs": [] }), &of),
        ("output_text.delta", json!({ "delta": " you", "logprobs": [] }), &of),
        ("output_text.done", json!({ "text": "Hi you", "logprobs": [] }), &of),
        ("content_part.done", json!({ "part": part("Hi you") }), &of),
        ("output_item.done", json!({ "output_index": 0, "item": whole }), &json!({})),
        (
            "completed",
            json!({ "response": answer("completed", json!([whole]), usage) }),
            &json!({}),
        ),
    ]) {
        let mut event = event.clone();
        let fields = event.as_object_mut().unwrap();
        fields.shift_remove("sequence_number");
        let mut want = rest.as_object().unwrap().clone();
        want.extend(of.as_object().unwrap().clone());
        want.insert("type".into(), json!(format!("response.{name}")));
        assert_eq!(*fields, want);
    }
    assert_eq!(events.len(), 10);
}

#[test]
fn everything_is_told_alike_streamed_and_whole() {
    let got = play(false, everything);
    let streamed = gathered(&got);
    let whole: Value = serde_json::from_str(&play(true, everything).out).unwrap();
    for name in ["id", "object", "status", "model", "usage", "created_at"] {
        assert_eq!(streamed[name], whole[name], "{name}");
    }
    // The same items; a signature of a call stands where it was told.
    let sorted = |answer: &Value| {
        let mut items = answer["output"].as_array().unwrap().clone();
        for item in &mut items {
            item.as_object_mut().unwrap().shift_remove("id");
        }
        items.sort_by_key(Value::to_string);
        items
    };
    assert_eq!(sorted(&streamed), sorted(&whole));
    let output = whole["output"].as_array().unwrap();
    let kinds: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "reasoning",
            "reasoning",
            "message",
            "function_call",
            "reasoning",
            "function_call",
            "image_generation_call",
            "message",
            "message",
        ]
    );
    assert_eq!(output[0]["summary"], json!([{ "type": "summary_text", "text": "h\"m\n" }]));
    assert_eq!(output[0]["encrypted_content"], "firstbyte:anthropic:proof");
    assert_eq!(output[1]["encrypted_content"], "firstbyte:redacted:hidden");
    assert_eq!(
        output[2]["content"],
        json!([{ "type": "output_text", "text": "Hi \u{1f986}", "logprobs": [], "annotations": [
            { "type": "url_citation", "url": "https://x", "title": "X", "start_index": 1, "end_index": 2 },
        ] }])
    );
    assert_eq!(
        (&output[3]["call_id"], &output[3]["arguments"]),
        (&json!("c1"), &json!("{\"x\":1}"))
    );
    assert_eq!(output[4]["encrypted_content"], "firstbyte:call:firstbyte:gemini:mark:c1");
    assert_eq!((&output[5]["name"], &output[5]["arguments"]), (&json!("g"), &json!("{}")));
    assert_eq!(
        (&output[6]["result"], &output[6]["output_format"]),
        (&json!("QUJD"), &json!("webp"))
    );
    assert_eq!(output[7]["content"], json!([{ "type": "refusal", "refusal": "no" }]));
    for item in output {
        let id = item["id"].as_str().unwrap();
        assert!(id.len() <= 64 && id.is_ascii(), "{id}");
    }
}

#[test]
fn what_is_given_back_is_what_was_told() {
    let whole: Value = serde_json::from_str(&play(true, everything).out).unwrap();
    let prompt = responses_prompt::read(&json!({ "input": whole["output"] })).unwrap();
    let parts = &prompt.turns[0].parts;
    let signature = |family, text: &str| Some(Signature { family, text: text.into() });
    assert_eq!(
        parts[0],
        Part::Thought { text: "h\"m\n".into(), signature: signature(Family::Anthropic, "proof") }
    );
    assert_eq!(parts[1], Part::Redacted { data: "hidden".into() });
    assert_eq!(
        parts[3],
        Part::Call {
            id: "c1".into(),
            name: "f".into(),
            input: json!({ "x": 1 }),
            signature: signature(Family::Gemini, "mark"),
        }
    );
    // To a provider of this API goes none of it.
    let mut input = whole["output"].as_array().unwrap().clone();
    input.push(json!({ "type": "reasoning", "summary": [], "encrypted_content": "gAAA" }));
    let body = json!({ "model": "m", "input": input, "x": "firstbyte:" }).to_string();
    let own: Value = serde_json::from_slice(&without_foreign(body.as_bytes()).unwrap()).unwrap();
    let kept: Vec<_> = own["input"].as_array().unwrap().iter().map(|i| &i["type"]).collect();
    assert_eq!(
        kept,
        [
            "message",
            "function_call",
            "function_call",
            "image_generation_call",
            "message",
            "message",
            "reasoning"
        ]
    );
    assert_eq!((&own["model"], &own["x"]), (&json!("m"), &json!("firstbyte:")));
    for body in [
        "{\"input\":\"firstbyte:\"}",
        "{\"input\":[]}",
        "firstbyte:",
        "{\"input\":[\"firstbyte:\"]}",
    ] {
        assert_eq!(without_foreign(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn a_call_is_over_when_its_arguments_are() {
    let got = play(false, |sink| {
        let f = sink.tool(0, Piece::Text("a"), Piece::Text("f"));
        sink.args(0, f, Piece::Raw(b"{}"));
        let g = sink.tool(0, Piece::Text("b"), Piece::Text("g"));
        sink.args(0, g, Piece::Raw(b"{\\\"y\\\""));
        let h = sink.tool(0, Piece::Text("c"), Piece::Text("h"));
        sink.args(0, g, Piece::Raw(b":1}"));
        sink.stop(0, Finish::Stop);
        assert_eq!(h, 2);
        sink.finish(false);
    });
    let delta = "function_call_arguments.delta";
    let done = "function_call_arguments.done";
    assert_eq!(
        got.names()[2..],
        [
            "output_item.added",
            delta,
            done,
            "output_item.done",
            "output_item.added",
            delta,
            "output_item.added",
            delta,
            delta,
            done,
            "output_item.done",
            done,
            "output_item.done",
            "completed",
        ]
    );
    let output = gathered(&got)["output"].clone();
    let arguments: Vec<_> = output.as_array().unwrap().iter().map(|c| &c["arguments"]).collect();
    assert_eq!(arguments, ["{}", "{\"y\":1}", "{}"]);
}

#[test]
fn each_end_has_its_event() {
    for (finish, name, status, details) in [
        (Finish::Stop, "completed", "completed", Value::Null),
        (Finish::ToolCalls, "completed", "completed", Value::Null),
        (Finish::Length, "incomplete", "incomplete", json!({ "reason": "max_output_tokens" })),
        (Finish::ContentFilter, "incomplete", "incomplete", json!({ "reason": "content_filter" })),
    ] {
        let tell = |sink: &mut Sink<'_>| {
            sink.text(0, Piece::Text("Hi"));
            sink.stop(0, finish);
            sink.finish(true);
        };
        let got = play(false, tell);
        assert_eq!(got.names().last().unwrap(), name);
        let answer = gathered(&got);
        assert_eq!((&answer["status"], &answer["incomplete_details"]), (&json!(status), &details));
        assert_eq!(answer["output"][0]["status"], status);
        assert_eq!((&answer["id"], &answer["created_at"]), (&json!("resp_req7"), &json!(9)));
        let whole: Value = serde_json::from_str(&play(true, tell).out).unwrap();
        assert_eq!(whole, answer);
    }
    let got = play(false, |sink| {
        sink.stop(0, Finish::Stop);
        sink.finish(false);
    });
    assert_eq!(got.names(), ["created", "in_progress", "completed"]);
    assert_eq!(gathered(&got)["output"], json!([]));
}

#[test]
fn a_bad_end_is_one_error_event() {
    let text = ErrorText {
        message: "cut",
        kind: "upstream_error",
        param: None,
        code: Some("stream_interrupted"),
    };
    let report = ErrorReport { status: 502, text, metadata: None, id: "req" };
    let mut got = play(false, |sink| sink.text(0, Piece::Text("Hi")));
    let mut out = Buf::new();
    Responses.error_event(&report, &mut got.told, &mut out);
    got.out += std::str::from_utf8(out.as_slice()).unwrap();
    got.events += 1;
    let events = got.read();
    let fields = json!({ "code": "stream_interrupted", "message": "cut", "param": null });
    let mut error = fields.clone();
    error["type"] = json!("upstream_error");
    let mut want = fields;
    want["type"] = json!("error");
    want["sequence_number"] = json!(5);
    want["error"] = error.clone();
    assert_eq!(events.last().unwrap(), &want);
    assert!(!got.out.contains("response.completed") && !got.out.contains("response.failed"));
    let body: Value = serde_json::from_str(&Responses.error_body(&report)).unwrap();
    assert_eq!(body["error"], error);
}

#[test]
fn a_longer_id_of_a_request_stays_short_in_items() {
    let id = "x-".repeat(64);
    let (mut told, mut out, mut events) = (Told::new(Dialect::Responses), Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "m",
        events: &mut events,
        id: &id,
        seconds: 1,
        told: &mut told,
    };
    sink.text(0, Piece::Text("a"));
    let got = String::from_utf8(out.as_slice().to_vec()).unwrap();
    assert!(got.contains(&format!("\"msg_{}_0\"", "x".repeat(SEED_MAX))), "{got}");
}
