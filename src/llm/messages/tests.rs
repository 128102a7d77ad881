//! Small answers of each kind, and what a chat client gets of them.

use serde_json::{Value as Json, json};

use super::*;
use crate::base::buf::Buf;
use crate::llm::sink::Told;
use crate::wire::sse::Scanner;

/// What came of one answer.
struct Played {
    out: String,
    marks: Vec<Mark>,
    end: Result<(), Fault>,
    answer: Answer,
}

fn with_sink(whole: bool, play: impl FnOnce(&mut Sink<'_>)) -> String {
    let (mut told, mut out, mut events) = (Told::default(), Buf::new(), 0);
    if whole {
        told.gather();
    }
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    play(&mut sink);
    String::from_utf8(out.as_slice().to_vec()).unwrap()
}

/// Feeds payloads up to the first fault or end, and closes.
fn play<S: AsRef<[u8]>>(payloads: &[S]) -> Played {
    let (mut answer, mut marks, mut end) = (Answer::default(), Vec::new(), Ok(()));
    let out = with_sink(false, |sink| {
        for payload in payloads {
            match answer.feed(payload.as_ref(), sink) {
                Ok(mark) => marks.push(mark),
                Err(fault) => end = Err(fault),
            }
            if end.is_err() || marks.last() == Some(&Mark::End) {
                break;
            }
        }
        end = end.and_then(|()| answer.close(true, sink));
    });
    Played { out, marks, end, answer }
}

fn whole(body: &Json) -> (Json, Result<(), Fault>) {
    let mut end = Ok(());
    let out = with_sink(true, |sink| {
        end = Answer::default().whole(body.to_string().as_bytes(), sink);
    });
    (serde_json::from_str(&out).unwrap_or_default(), end)
}

impl Played {
    fn chunks(&self) -> Vec<Json> {
        let blocks = self.out.split_terminator("\n\n").filter_map(|b| b.strip_prefix("data: "));
        let chunks = blocks.filter(|data| *data != "[DONE]");
        chunks.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    fn text(&self, key: &str) -> String {
        let deltas = self.chunks();
        deltas.iter().filter_map(|c| c["choices"][0]["delta"][key].as_str()).collect()
    }

    fn finish(&self) -> Vec<String> {
        let chunks = self.chunks();
        let reasons = chunks.iter().filter_map(|c| c["choices"][0]["finish_reason"].as_str());
        reasons.map(str::to_owned).collect()
    }

    /// Id, name and arguments of each call, by the client's index.
    fn calls(&self) -> Vec<(String, String, String)> {
        let mut calls: Vec<(String, String, String)> = Vec::new();
        for chunk in self.chunks() {
            for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten()
            {
                let at = call["index"].as_u64().unwrap() as usize;
                if let Some(id) = call["id"].as_str() {
                    assert_eq!(at, calls.len());
                    let name = call["function"]["name"].as_str().unwrap();
                    calls.push((id.to_owned(), name.to_owned(), String::new()));
                }
                calls[at].2 += call["function"]["arguments"].as_str().unwrap();
            }
        }
        calls
    }
}

fn start(id: &str) -> String {
    json!({ "type": "message_start", "message": {
        "id": id, "type": "message", "role": "assistant", "model": "up", "content": [],
        "stop_reason": null, "usage": {
            "input_tokens": 7, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
            "output_tokens": 1,
        },
    }})
    .to_string()
}

fn block(index: u64, block: &Json) -> String {
    json!({ "type": "content_block_start", "index": index, "content_block": block }).to_string()
}

fn delta(index: u64, delta: &Json) -> String {
    json!({ "type": "content_block_delta", "index": index, "delta": delta }).to_string()
}

fn text(index: u64, text: &str) -> String {
    delta(index, &json!({ "type": "text_delta", "text": text }))
}

fn fragment(index: u64, text: &str) -> String {
    delta(index, &json!({ "type": "input_json_delta", "partial_json": text }))
}

fn call(index: u64, id: &str, input: &Json) -> String {
    block(index, &json!({ "type": "tool_use", "id": id, "name": "look", "input": input }))
}

fn end_block(index: u64) -> String {
    json!({ "type": "content_block_stop", "index": index }).to_string()
}

fn stop(reason: &str) -> String {
    json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": { "output_tokens": 30 } })
        .to_string()
}

fn ends(reason: &str) -> [String; 2] {
    [stop(reason), END.to_owned()]
}

const END: &str = "{\"type\":\"message_stop\"        }";
const PING: &str = "{\"type\": \"ping\"}";

fn stream(middle: &[String], reason: &str) -> Vec<String> {
    [&[start("msg_1")], middle, &ends(reason)].concat()
}

#[test]
fn text_reasoning_and_usage() {
    let played = play(&stream(
        &[
            block(0, &json!({ "type": "thinking", "thinking": "", "signature": "" })),
            PING.to_owned(),
            delta(0, &json!({ "type": "thinking_delta", "thinking": "Hm\n\"" })),
            delta(0, &json!({ "type": "signature_delta", "signature": "c2ln" })),
            end_block(0),
            block(1, &json!({ "type": "redacted_thinking", "data": "b3BhcXVl" })),
            end_block(1),
            block(4, &json!({ "type": "text", "text": "He" })),
            text(4, "llo \\ żółw 😀"),
            end_block(4),
        ],
        "end_turn",
    ));
    assert_eq!(played.end, Ok(()));
    assert_eq!(played.text("reasoning_content"), "Hm\n\"");
    assert_eq!(played.text("content"), "Hello \\ żółw 😀");
    assert_eq!(played.finish(), ["stop"]);
    assert!(played.out.ends_with("data: [DONE]\n\n"));
    let chunks = played.chunks();
    assert!(chunks.iter().all(|c| c["id"] == "msg_1" && c["model"] == "shown"));
    let usage = &chunks.last().unwrap()["usage"];
    assert_eq!(usage["prompt_tokens"], 127);
    assert_eq!(usage["completion_tokens"], 30);
    assert_eq!(usage["total_tokens"], 157);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 100);
    use Mark::{Content, End, Event, Idle};
    let marks = [
        Event, Event, Idle, Content, Event, Event, Event, Event, Content, Content, Event, Event,
        End,
    ];
    assert_eq!(played.marks, marks);
}

#[test]
fn the_last_count_of_each_kind_stands() {
    let last = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": {
        "input_tokens": 9, "cache_read_input_tokens": null, "output_tokens": 50,
        "output_tokens_details": { "thinking_tokens": 40 },
    }});
    let played = play(&[start("m"), text(0, "x"), last.to_string(), END.to_owned()]);
    let usage = Usage { prompt: 129, completion: 50, cached: 100, cache_write: 20, reasoning: 40 };
    assert_eq!(played.answer.usage(), Some(usage));
    let none = json!({ "type": "message_start", "message": { "id": "m", "content": [] } });
    assert_eq!(play(&[none.to_string()]).answer.usage(), None);
}

#[test]
fn parallel_calls_have_dense_indices() {
    let played = play(&stream(
        &[
            block(0, &json!({ "type": "text", "text": "" })),
            text(0, "Looking."),
            end_block(0),
            call(1, "toolu_a", &json!({})),
            fragment(1, ""),
            fragment(1, "{\"at\": \"Łó"),
            fragment(1, "dź\"}"),
            end_block(1),
            block(2, &json!({ "type": "server_tool_use", "id": "s", "name": "find", "input": {} })),
            fragment(2, "{\"query\":1}"),
            end_block(2),
            block(3, &json!({ "type": "find_tool_result", "tool_use_id": "s", "content": [] })),
            end_block(3),
            call(5, "toolu_b", &json!({})),
            fragment(5, ""),
            end_block(5),
        ],
        "tool_use",
    ));
    let call = |id: &str, args: &str| (id.to_owned(), "look".to_owned(), args.to_owned());
    assert_eq!(played.calls(), [call("toolu_a", "{\"at\": \"Łódź\"}"), call("toolu_b", "{}")]);
    assert_eq!(played.finish(), ["tool_calls"]);
    assert_eq!(played.text("content"), "Looking.");
}

#[test]
fn interleaved_calls_are_told_apart() {
    let played = play(&stream(
        &[
            call(0, "a", &json!({})),
            call(1, "b", &json!({})),
            fragment(1, "{\"b\":"),
            fragment(0, "{\"a\":1}"),
            fragment(1, "2}"),
        ],
        "tool_use",
    ));
    let calls = played.calls();
    assert_eq!((calls[0].2.as_str(), calls[1].2.as_str()), ("{\"a\":1}", "{\"b\":2}"));
}

#[test]
fn input_that_comes_whole_is_told_once() {
    let input = json!({ "q": "a\"b\n" });
    // With the start of its block, alone or repeated in fragments.
    for fragments in [vec![], vec![fragment(0, "{\"q\": "), fragment(0, "\"a\\\"b\\n\"}")]] {
        for closed in [true, false] {
            let mut middle = vec![call(0, "a", &input)];
            middle.extend(fragments.clone());
            middle.extend(closed.then(|| end_block(0)));
            let played = play(&stream(&middle, "tool_use"));
            let calls = played.calls();
            assert_eq!(serde_json::from_str::<Json>(&calls[0].2).unwrap(), input);
        }
    }
    // With the head of the message; a repeated head says nothing new.
    let content = json!([{ "type": "tool_use", "id": "a", "name": "look", "input": input }]);
    let head = json!({ "type": "message_start", "message": { "id": "m", "content": content } });
    let [stop, end] = ends("tool_use");
    let played = play(&[head.to_string(), head.to_string(), stop, end]);
    assert_eq!((played.end, played.calls().len()), (Ok(()), 1));
    assert_eq!(serde_json::from_str::<Json>(&played.calls()[0].2).unwrap(), input);
    assert_eq!(played.finish(), ["tool_calls"]);
    assert_eq!(played.marks[0], Mark::Content);
}

#[test]
fn each_stop_reason_has_its_finish() {
    for (reason, finish) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("compaction", "stop"),
        ("tomorrow", "stop"),
        // Only the server's own tools were used.
        ("tool_use", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
    ] {
        let played = play(&stream(&[text(0, "x")], reason));
        assert_eq!((played.end, played.finish()), (Ok(()), vec![finish.to_owned()]), "{reason}");
        // An answer without any content is an answer.
        let played = play(&stream(&[], reason));
        assert_eq!((played.end, played.finish()), (Ok(()), vec![finish.to_owned()]), "{reason}");
    }
    let played = play(&stream(&[call(0, "a", &json!({})), fragment(0, "{\"a")], "max_tokens"));
    assert_eq!((played.finish(), played.calls()[0].2.as_str()), (vec!["length".into()], "{\"a"));
}

#[test]
fn a_cut_answer_has_no_end() {
    let all = stream(
        &[block(0, &json!({ "type": "text", "text": "" })), text(0, "He"), end_block(0)],
        "end_turn",
    );
    for cut in 0..all.len() {
        let played = play(&all[..cut]);
        assert_eq!(played.end, Err(Fault::Truncated), "{cut}");
        assert!(played.finish().is_empty() && !played.out.contains("[DONE]"), "{cut}");
        assert_eq!(played.answer.is_finished(), cut + 1 == all.len());
    }
    // The end of a message that never began.
    assert_eq!(play(&[END]).end, Err(Fault::Truncated));
}

#[test]
fn errors_are_told_wherever_they_come() {
    let error = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" }, "request_id": "r" });
    let google = json!({ "error": { "code": 429, "message": "Overloaded", "status": "X" } });
    for error in [error.to_string(), google.to_string()] {
        for before in [vec![], vec![start("m")], vec![start("m"), text(0, "He")]] {
            let mut played = play(&[before, vec![error.clone()]].concat());
            assert_eq!(played.end, Err(Fault::ErrorEvent));
            assert_eq!(played.answer.said().unwrap().message, "Overloaded");
            assert!(played.finish().is_empty() && !played.out.contains("[DONE]"));
        }
    }
    let (_, end) = whole(&error);
    assert_eq!(end, Err(Fault::ErrorEvent));
}

#[test]
fn two_answers_are_never_spliced() {
    let [stop, end] = ends("end_turn");
    // Nothing was told yet: the second one is the answer.
    let played = play(&[start("a"), start("b"), text(0, "x"), stop.clone(), end.clone()]);
    assert_eq!((played.end, played.text("content").as_str()), (Ok(()), "x"));
    // A repeated head.
    let played = play(&[start("a"), text(0, "x"), start("a"), text(0, "y"), stop, end]);
    assert_eq!((played.end, played.text("content").as_str()), (Ok(()), "xy"));
    // Another answer in the middle of a text, and of a call.
    for middle in [text(0, "x"), call(0, "c", &json!({}))] {
        let played =
            play(&[start("a"), middle, start("b"), text(0, "y"), ends("end_turn").concat()]);
        assert_eq!(played.end, Err(Fault::Truncated));
        assert!(!played.out.contains("\"content\":\"y"));
    }
}

#[test]
fn what_is_unknown_is_no_answer_and_no_fault() {
    let middle = [
        json!({ "type": "vertex_event" }).to_string(),
        json!({ "type": "tomorrow", "index": -1 }).to_string(),
        json!({}).to_string(),
        "[DONE]".to_owned(),
        block(0, &json!({ "type": "compaction", "content": null })),
        delta(0, &json!({ "type": "compaction_delta", "content": "so far" })),
        block(1, &json!({ "type": "fallback", "from": "a", "to": "b" })),
        block(2, &json!({ "type": "tool_use", "id": "x" })),
        fragment(9, "{}"),
        text(3, "x"),
    ];
    let played = play(&stream(&middle, "end_turn"));
    assert_eq!((played.end, played.text("content").as_str()), (Ok(()), "x"));
    assert!(played.calls().is_empty());
    assert_eq!(played.marks[1..5], [Mark::Idle, Mark::Event, Mark::Idle, Mark::Idle]);
    for bad in
        ["", "{", "[]", "1", "{\"type\":\"message_start\"}", "{\"type\":\"content_block_delta\"}"]
    {
        assert_eq!(play(&[bad]).end, Err(Fault::BadFrame), "{bad}");
    }
}

#[test]
fn citations_of_the_web_are_annotations_of_their_block() {
    let cite = |url: &str| {
        let citation = json!({ "type": "web_search_result_location", "url": url, "title": "T" });
        delta(1, &json!({ "type": "citations_delta", "citation": citation }))
    };
    let played = play(&stream(
        &[
            text(0, "Says: "),
            end_block(0),
            cite("https://a/"),
            cite("https://a/"),
            cite("https://b/"),
            delta(
                1,
                &json!({ "type": "citations_delta", "citation": { "type": "char_location" } }),
            ),
            text(1, "żó\n"),
            end_block(1),
        ],
        "end_turn",
    ));
    let chunks = played.chunks();
    let notes: Vec<&Json> = chunks
        .iter()
        .flat_map(|c| c["choices"][0]["delta"]["annotations"].as_array())
        .flatten()
        .collect();
    let note = |url: &str| {
        json!({ "type": "url_citation", "url_citation":
            { "start_index": 6, "end_index": 9, "title": "T", "url": url } })
    };
    assert_eq!(notes, [&note("https://a/"), &note("https://b/")]);
}

#[test]
fn a_whole_message_is_read_like_its_stream() {
    let (out, end) = whole(&json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "up",
        "content": [
            { "type": "thinking", "thinking": "Hm", "signature": "c2ln" },
            { "type": "text", "text": "He" },
            { "type": "server_tool_use", "id": "s", "name": "find", "input": { "q": 1 } },
            { "type": "text", "text": "llo", "citations": [
                { "type": "web_search_result_location", "url": "http://a", "title": null }] },
            { "type": "tool_use", "id": "a", "name": "look", "input": { "at": [1, "\"x\""] } },
            { "type": "tool_use", "id": "b", "name": "look", "input": {} },
        ],
        "stop_reason": "tool_use",
        "usage": { "input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5 },
    }));
    assert_eq!(end, Ok(()));
    let message = &out["choices"][0]["message"];
    assert_eq!((&out["id"], &out["model"]), (&json!("msg_1"), &json!("shown")));
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Hello"), &json!("Hm"))
    );
    let calls = &message["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], "{\"at\":[1,\"\\\"x\\\"\"]}");
    assert_eq!(calls[1]["function"]["arguments"], "{}");
    assert_eq!(message["annotations"][0]["url_citation"]["start_index"], 2);
    assert_eq!(out["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(out["usage"]["total_tokens"], 12);
    for bad in [json!({}), json!([]), json!({ "content": "x" }), json!(null)] {
        assert_eq!(whole(&bad).1, Err(Fault::BadFrame));
    }
}

#[test]
fn every_split_in_two_gives_the_same() {
    let payloads = stream(
        &[text(0, "żó"), call(1, "a", &json!({})), fragment(1, "{\"a\":1}"), end_block(1)],
        "tool_use",
    );
    let bytes: String = payloads.iter().map(|p| format!("event: x\r\ndata: {p}\r\n\r\n")).collect();
    let once = play(&payloads).out;
    for at in 0..bytes.len() {
        let (mut scanner, mut found, mut held) = (Scanner::new(1 << 16), Vec::new(), Vec::new());
        for (piece, eof) in [(&bytes.as_bytes()[..at], false), (&bytes.as_bytes()[at..], true)] {
            held.extend_from_slice(piece);
            while let Ok(Some(frame)) = scanner.next(&held, eof) {
                let mut scratch = Vec::new();
                let payload = frame.payload(&held[..frame.len], &mut scratch).to_vec();
                if !payload.is_empty() {
                    found.push(payload);
                }
                held.drain(..frame.len);
            }
        }
        assert_eq!(play(&found).out, once, "{at}");
    }
}

#[test]
fn noise_never_panics() {
    let mut all = stream(&[call(0, "a", &json!({ "b": 1 })), fragment(0, "{"), end_block(0)], "x");
    all.push(delta(0, &json!({ "type": "citations_delta", "citation": { "url": "http://a" } })));
    let mut state = 1_u64;
    for round in 0..2000 {
        let mut payloads: Vec<Vec<u8>> = all.iter().map(|p| p.clone().into_bytes()).collect();
        for _ in 0..=round % 3 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let roll = (state >> 33) as usize;
            let count = payloads.len();
            let one = &mut payloads[roll % count];
            let at = (roll >> 4) % one.len();
            one[at] = b"{}[]\",:\\u0n\xff"[(roll >> 12) % 12];
        }
        play(&payloads);
    }
}

#[test]
fn signed_and_hidden_thoughts_come_whole_and_go_back() {
    let start = |block: &str| {
        format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#)
    };
    let delta =
        |delta: &str| format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#);
    let stop = || String::from(r#"{"type":"content_block_stop","index":0}"#);
    let events = [
        String::from(r#"{"type":"message_start","message":{"id":"m","content":[]}}"#),
        start(r#"{"type":"thinking","thinking":"","signature":""}"#),
        delta(r#"{"type":"thinking_delta","thinking":"one \n"}"#),
        delta(r#"{"type":"thinking_delta","thinking":"two"}"#),
        delta(r#"{"type":"signature_delta","signature":"c2ln"}"#),
        stop(),
        start(r#"{"type":"redacted_thinking","data":"aGlk"}"#),
        stop(),
        String::from(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#),
        String::from(r#"{"type":"message_stop"}"#),
    ];
    let (mut answer, mut told, mut out, mut count) =
        (Answer::default(), Told::default(), Buf::new(), 0);
    for event in &events {
        let mut sink = Sink {
            out: &mut out,
            shown: "m",
            events: &mut count,
            id: "r",
            seconds: 1,
            told: &mut told,
        };
        answer.feed(event.as_bytes(), &mut sink).unwrap();
    }
    let text = String::from_utf8(out.as_slice().to_vec()).unwrap();
    let blocks: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .flat_map(|chunk| {
            chunk["choices"][0]["delta"]["thinking_blocks"].as_array().cloned().unwrap_or_default()
        })
        .collect();
    let thought =
        serde_json::json!({ "type": "thinking", "thinking": "one \ntwo", "signature": "c2ln" });
    let hidden = serde_json::json!({ "type": "redacted_thinking", "data": "aGlk" });
    assert_eq!(blocks, [thought, hidden]);
    let chat = serde_json::json!({ "messages": [
        { "role": "user", "content": "x" },
        { "role": "assistant", "content": "y", "reasoning_content": "one \ntwo", "thinking_blocks": blocks },
        { "role": "user", "content": "z" },
    ] });
    let prompt = crate::llm::dialects::chat_prompt::read(&chat).unwrap();
    let body = body::write(&prompt, "claude-sonnet-4-5").unwrap();
    let said = &body["messages"][1]["content"];
    assert_eq!((&said[0], &said[1], &said[2]["text"]), (&blocks[0], &blocks[1], &"y".into()));
}

/// What a client of the same dialect gets of these events.
fn passed(payloads: &[Json]) -> (String, Vec<Mark>, Result<(), Fault>, Answer) {
    let (mut told, mut out, mut events) = (Told::new(Dialect::Messages), Buf::new(), 0);
    let (mut answer, mut marks, mut end) = (Answer::default(), Vec::new(), Ok(()));
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    for payload in payloads {
        match answer.feed(payload.to_string().as_bytes(), &mut sink) {
            Ok(mark) => marks.push(mark),
            Err(fault) => end = Err(fault),
        }
        if end.is_err() {
            break;
        }
    }
    end = end.and_then(|()| answer.close(true, &mut sink));
    (String::from_utf8(out.as_slice().to_vec()).unwrap(), marks, end, answer)
}

#[test]
fn an_end_without_a_beginning_is_not_passed() {
    let start = json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "a" } });
    let (out, marks, end, _) = passed(&[start, json!({ "type": "message_stop" })]);
    assert_eq!((marks.last(), end), (Some(&Mark::End), Err(Fault::Truncated)));
    assert!(out.contains("content_block_start") && !out.contains("message_stop"), "{out}");
}

#[test]
fn events_pass_to_a_client_of_the_same_dialect() {
    let head = |id: &str| {
        json!({ "type": "message_start", "message": { "id": id, "model": "claude",
        "content": [], "usage": { "input_tokens": 3, "cache_read_input_tokens": 2 }, "new": 1.50 } })
    };
    let start =
        |block: Json| json!({ "type": "content_block_start", "index": 4, "content_block": block });
    let text = json!({ "type": "content_block_delta", "index": 4, "delta": { "type": "text_delta", "text": "a" } });
    let empty = json!({ "type": "content_block_delta", "index": 4, "delta": { "type": "text_delta", "text": "" } });
    let end = json!({ "type": "message_delta", "delta": { "stop_reason": "max_tokens" }, "usage": { "output_tokens": 5 } });
    let stop = json!({ "type": "message_stop" });
    let (out, marks, closed, answer) = passed(&[
        json!({ "type": "vertex_event" }),
        head("msg_1"),
        json!({ "type": "ping" }),
        start(json!({ "type": "text", "text": "" })),
        empty,
        text.clone(),
        json!({ "type": "ping" }),
        head("msg_1"),
        json!({ "type": "new_event", "x": 1 }),
        end,
        stop,
    ]);
    use Mark::{Content, End, Event, Idle};
    assert_eq!(marks, [Idle, Event, Idle, Event, Event, Content, Idle, Idle, Event, Event, End]);
    assert_eq!(closed, Ok(()));
    let usage = Usage { prompt: 5, completion: 5, cached: 2, cache_write: 0, reasoning: 0 };
    assert_eq!(answer.usage(), Some(usage));
    let names: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let deltas = ["content_block_delta"; 2];
    let want = [
        &["message_start", "content_block_start"],
        &deltas[..],
        &["ping", "new_event", "message_delta", "message_stop"],
    ];
    assert_eq!(names, want.concat());
    let first = json!({ "type": "message_start", "message": { "id": "msg_1", "model": "shown",
        "content": [], "usage": { "input_tokens": 3, "cache_read_input_tokens": 2 }, "new": 1.50 } });
    assert!(out.starts_with(&format!("event: message_start\ndata: {first}\n\n")), "{out}");
    // Another answer inside of this one, no end, an error.
    assert_eq!(passed(&[head("a"), text.clone(), head("b")]).2, Err(Fault::Truncated));
    assert_eq!(passed(&[head("a"), text.clone()]).2, Err(Fault::Truncated));
    assert_eq!(passed(&[json!({ "type": "message_stop" })]).2, Err(Fault::Truncated));
    let error = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "m" } });
    let (_, _, closed, mut answer) = passed(&[head("a"), error]);
    assert_eq!((closed, answer.said().unwrap().message.as_str()), (Err(Fault::ErrorEvent), "m"));
}

#[test]
fn what_the_servers_own_tools_do_is_content() {
    for (block, mark) in [
        (json!({ "type": "text", "text": "" }), Mark::Event),
        (json!({ "type": "text", "text": "a" }), Mark::Content),
        (json!({ "type": "thinking", "thinking": "" }), Mark::Event),
        (json!({ "type": "redacted_thinking", "data": "x" }), Mark::Event),
        (json!({ "type": "tool_use", "id": "t", "name": "f" }), Mark::Content),
        (json!({ "type": "server_tool_use", "name": "web_search" }), Mark::Content),
        (json!({ "type": "web_search_tool_result", "content": [] }), Mark::Content),
    ] {
        let head = json!({ "type": "message_start", "message": { "id": "m" } });
        let event = json!({ "type": "content_block_start", "index": 0, "content_block": block });
        assert_eq!(passed(&[head, event]).1[1], mark, "{block}");
    }
}

#[test]
fn a_whole_message_passes_to_a_client_of_the_same_dialect() {
    let play = |body: &str| {
        let (mut told, mut out, mut events) = (Told::new(Dialect::Messages), Buf::new(), 0);
        told.gather();
        let mut sink = Sink {
            out: &mut out,
            shown: "shown",
            events: &mut events,
            id: "req",
            seconds: 9,
            told: &mut told,
        };
        let mut answer = Answer::default();
        let end = answer.whole(body.as_bytes(), &mut sink);
        (String::from_utf8(out.as_slice().to_vec()).unwrap(), end, answer.usage())
    };
    let body = r#"{ "model" : "claude", "content": [{"type":"new"}], "usage": {"input_tokens":1,"output_tokens":2}, "x": 1.50 }"#;
    let (out, end, usage) = play(body);
    assert_eq!((out, end), (body.replace("claude", "shown"), Ok(())));
    assert_eq!(usage.map(|usage| (usage.prompt, usage.completion)), Some((1, 2)));
    assert_eq!(play("{\"model\":\"claude\"}").1, Err(Fault::BadFrame));
    assert_eq!(play("{\"type\":\"error\",\"error\":{}}").1, Err(Fault::ErrorEvent));
}
