//! Small answers of each kind, and what a chat client gets of them.

use serde_json::{Value as Json, json};

use super::*;
use crate::base::tick::Ms;
use crate::llm::request::Surface;
use crate::llm::sink::Told;
use crate::wire::sse::Scanner;

/// What came of one answer.
struct Played {
    out: String,
    marks: Vec<Mark>,
    end: Result<(), Fault>,
    said: Option<Said>,
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
fn play_raw<S: AsRef<[u8]>>(payloads: &[S]) -> Played {
    let (mut adapter, mut marks, mut end) = (Responses::default(), Vec::new(), Ok(()));
    let out = with_sink(false, |sink| {
        for payload in payloads {
            match adapter.feed(payload.as_ref(), sink) {
                Ok(mark) => marks.push(mark),
                Err(fault) => end = Err(fault),
            }
            if end.is_err() || marks.last() == Some(&Mark::End) {
                break;
            }
        }
        end = end.and_then(|()| adapter.close(true, sink));
    });
    Played { out, marks, end, said: adapter.said() }
}

fn play(events: &[Json]) -> Played {
    play_raw(&events.iter().map(Json::to_string).collect::<Vec<_>>())
}

fn whole(body: &Json) -> (Json, Result<(), Fault>) {
    let mut end = Ok(());
    let out = with_sink(true, |sink| {
        end = Responses::default().whole(body.to_string().as_bytes(), sink);
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

    fn annotations(&self) -> Vec<Json> {
        let chunks = self.chunks();
        let notes =
            chunks.iter().filter_map(|c| c["choices"][0]["delta"]["annotations"].as_array());
        notes.flatten().cloned().collect()
    }
}

fn created() -> Json {
    json!({ "type": "response.created", "sequence_number": 0, "response": {
        "id": "resp_1", "object": "response", "created_at": 77, "status": "in_progress",
        "error": null, "model": "up", "output": [], "usage": null,
    }})
}

fn usage() -> Json {
    json!({ "input_tokens": 30, "input_tokens_details": { "cached_tokens": 10 },
        "output_tokens": 8, "output_tokens_details": { "reasoning_tokens": 5 },
        "total_tokens": 38 })
}

fn ended(kind: &str, status: &str, more: Json) -> Json {
    let mut response = json!({ "id": "resp_1", "status": status, "usage": usage(), "output": [] });
    for (key, value) in more.as_object().unwrap() {
        response[key] = value.clone();
    }
    json!({ "type": format!("response.{kind}"), "sequence_number": 99, "response": response })
}

fn completed() -> Json {
    ended("completed", "completed", json!({}))
}

fn item(state: &str, at: u64, item: Json) -> Json {
    json!({ "type": format!("response.output_item.{state}"), "output_index": at, "item": item })
}

/// An event of a part; `value` is its fragment or its whole.
fn part(kind: &str, at: u64, index: (&str, u64), key: &str, value: &str) -> Json {
    let mut event = json!({ "type": format!("response.{kind}"), "output_index": at });
    event[index.0] = index.1.into();
    event[key] = value.into();
    event
}

fn text(at: u64, delta: &str) -> Json {
    part("output_text.delta", at, ("content_index", 0), "delta", delta)
}

fn summary(at: u64, index: u64, delta: &str) -> Json {
    part("reasoning_summary_text.delta", at, ("summary_index", index), "delta", delta)
}

fn fragment(at: u64, delta: &str) -> Json {
    part("function_call_arguments.delta", at, ("x", 0), "delta", delta)
}

fn call(id: &str, name: &str, arguments: &str) -> Json {
    json!({ "type": "function_call", "id": "fc_1", "call_id": id, "name": name,
        "arguments": arguments })
}

fn message(content: Json) -> Json {
    json!({ "type": "message", "id": "msg_1", "role": "assistant", "content": content })
}

fn output_text(text: &str) -> Json {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

fn call_of(id: &str, name: &str, arguments: &str) -> (String, String, String) {
    (id.to_owned(), name.to_owned(), arguments.to_owned())
}

#[test]
fn text_and_usage() {
    let played = play(&[
        created(),
        json!({ "type": "response.queued", "response": { "id": "resp_1" } }),
        item("added", 0, message(json!([]))),
        text(0, ""),
        text(0, "Hé"),
        json!({ "type": "keepalive", "sequence_number": 4 }),
        text(0, "llo\n"),
        part("output_text.done", 0, ("content_index", 0), "text", "Héllo\n"),
        item("done", 0, message(json!([output_text("Héllo\n")]))),
        completed(),
    ]);
    assert_eq!(played.end, Ok(()));
    assert_eq!(played.text("content"), "Héllo\n");
    assert_eq!(played.finish(), ["stop"]);
    assert!(played.out.ends_with("data: [DONE]\n\n"));
    let last = played.chunks().pop().unwrap();
    assert_eq!(
        last["usage"],
        json!({ "prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38,
            "prompt_tokens_details": { "cached_tokens": 10 },
            "completion_tokens_details": { "reasoning_tokens": 5 } })
    );
    for chunk in played.chunks() {
        assert_eq!((&chunk["id"], &chunk["created"]), (&json!("resp_1"), &json!(77)));
        assert_eq!(chunk["model"], "shown");
    }
    use Mark::{Content, End, Event, Idle};
    let marks = [Event, Event, Event, Event, Content, Idle, Content, Event, Event, End];
    assert_eq!(played.marks, marks);
}

#[test]
fn calls_are_dense_and_named_once() {
    let played = play(&[
        created(),
        item("added", 0, json!({ "type": "reasoning", "summary": [] })),
        item("done", 0, json!({ "type": "reasoning", "summary": [] })),
        item("added", 1, call("call_a", "look", "")),
        item("added", 2, call("call_b", "see", "")),
        fragment(1, "{\"q\":"),
        fragment(2, "{"),
        fragment(1, "\"é\"}"),
        fragment(2, "}"),
        part("function_call_arguments.done", 1, ("x", 0), "arguments", "{\"q\":\"é\"}"),
        item("done", 1, call("call_a", "look", "{\"q\":\"é\"}")),
        item("done", 2, call("call_b", "see", "{}")),
        item("added", 3, call("call_c", "nap", "")),
        item("done", 3, call("call_c", "nap", "")),
        completed(),
    ]);
    assert_eq!(played.end, Ok(()));
    assert_eq!(played.finish(), ["tool_calls"]);
    assert_eq!(
        played.calls(),
        [
            call_of("call_a", "look", "{\"q\":\"é\"}"),
            call_of("call_b", "see", "{}"),
            call_of("call_c", "nap", "{}"),
        ]
    );
}

#[test]
fn what_was_left_out_is_told_once() {
    let whole = "{\"a\":[1,2]}";
    let add = |arguments: &str| item("added", 0, call("call_a", "look", arguments));
    let end = || item("done", 0, call("call_a", "look", whole));
    let done = || part("function_call_arguments.done", 0, ("x", 0), "arguments", whole);
    let cases = [
        vec![add(""), done(), end()],
        vec![add(""), end()],
        vec![end()],
        vec![end(), end()],
        vec![add(""), fragment(0, whole), done(), end()],
        vec![add(""), fragment(0, "{\"a\":"), done()],
        vec![add(""), fragment(0, "{\"a\":"), end()],
        // Arguments at the start: alone, repeated, as a placeholder, or the first piece.
        vec![add(whole)],
        vec![add(whole), done(), end()],
        vec![add(whole), fragment(0, whole), end()],
        vec![add("{}"), fragment(0, whole), end()],
        vec![add("{}"), end()],
        vec![add("{\"a\":"), fragment(0, "[1,2]}"), done(), end()],
        // The name comes late.
        vec![item("added", 0, call("call_a", "", "")), fragment(0, "{"), done(), end()],
        // Ids change, and the index is left out.
        vec![
            add(""),
            json!({ "type": "response.function_call_arguments.delta", "item_id": "z",
                "delta": whole }),
            json!({ "type": "response.output_item.done", "item": call("call_a", "look", whole) }),
        ],
    ];
    for (at, case) in cases.iter().enumerate() {
        let events = [&[created()], &case[..], &[completed()]].concat();
        let played = play(&events);
        assert_eq!(played.end, Ok(()), "case {at}");
        assert_eq!(played.calls(), [call_of("call_a", "look", whole)], "case {at}");
        assert_eq!(played.finish(), ["tool_calls"], "case {at}");
    }
}

#[test]
fn an_answer_may_come_in_its_last_event_alone() {
    let output = json!([message(json!([output_text("all")])), call("call_a", "look", "{}")]);
    let played = play(&[created(), ended("completed", "completed", json!({ "output": output }))]);
    assert_eq!(played.text("content"), "all");
    assert_eq!(played.calls(), [call_of("call_a", "look", "{}")]);
    // What was told is not told again, wherever it stands in the list.
    let last = ended("completed", "completed", json!({ "output": output }));
    let played = play(&[created(), text(5, "all"), last]);
    assert_eq!(played.text("content"), "all");
    assert_eq!(played.finish(), ["stop"]);
}

#[test]
fn text_without_deltas_and_with_other_indices() {
    let done = || item("done", 0, message(json!([output_text("one"), output_text(" two")])));
    assert_eq!(play(&[created(), done(), completed()]).text("content"), "one two");
    let shifted = |delta| part("output_text.delta", 0, ("content_index", 9), "delta", delta);
    let played = play(&[created(), shifted("one"), shifted(" two"), done(), completed()]);
    assert_eq!(played.text("content"), "one two");
    let only = part("output_text.done", 0, ("content_index", 0), "text", "one");
    let played = play(&[created(), only, done(), completed()]);
    assert_eq!(played.text("content"), "one two");
}

#[test]
fn reasoning_and_its_summaries() {
    let played = play(&[
        created(),
        item("added", 0, json!({ "type": "reasoning", "summary": [] })),
        summary(0, 0, "first"),
        summary(0, 0, "!"),
        part("reasoning_summary_text.done", 0, ("summary_index", 0), "text", "first!"),
        summary(0, 1, "second"),
        item(
            "done",
            0,
            json!({ "type": "reasoning", "summary": [
                { "type": "summary_text", "text": "first!" },
                { "type": "summary_text", "text": "second" },
                { "type": "summary_text", "text": "third" },
            ]}),
        ),
        text(1, "x"),
        completed(),
    ]);
    assert_eq!(played.text("reasoning_content"), "first!\n\nsecond\n\nthird");
    let thought =
        |at, delta| part("reasoning_text.delta", at, ("content_index", 0), "delta", delta);
    let played = play(&[
        created(),
        json!({ "type": "response.reasoning_part.added", "output_index": 0, "part": {} }),
        thought(0, "let me "),
        thought(0, "see"),
        item(
            "done",
            0,
            json!({ "type": "reasoning",
            "content": [{ "type": "reasoning_text", "text": "let me see" }],
            "summary": [{ "type": "summary_text", "text": "it saw" }] }),
        ),
        text(1, "x"),
        completed(),
    ]);
    assert_eq!(played.text("reasoning_content"), "let me see");
    assert_eq!(played.text("content"), "x");
}

#[test]
fn refusals() {
    let delta = |text| part("refusal.delta", 0, ("content_index", 0), "delta", text);
    let content = json!([{ "type": "refusal", "refusal": "I can't." }]);
    let done = item("done", 0, message(content.clone()));
    let played = play(&[created(), delta("I "), delta("can't."), done, completed()]);
    assert_eq!((played.text("refusal"), played.text("content")), ("I can't.".into(), "".into()));
    assert_eq!(played.finish(), ["stop"]);
    let (json, end) = whole(&json!({ "status": "completed", "output": [message(content)] }));
    assert_eq!(end, Ok(()));
    assert_eq!(json["choices"][0]["message"]["refusal"], "I can't.");
}

#[test]
fn custom_calls_and_those_of_the_provider() {
    let custom = |id: &str, name: &str, input: &str| {
        json!({ "type": "custom_tool_call", "id": "ctc_1", "call_id": id, "name": name,
            "input": input })
    };
    let delta = |at, text| part("custom_tool_call_input.delta", at, ("x", 0), "delta", text);
    let played = play(&[
        created(),
        item("added", 0, custom("xs_1", "x_keyword_search", "")),
        delta(0, "{\"query\":1}"),
        item("done", 0, custom("xs_1", "x_keyword_search", "{\"query\":1}")),
        item(
            "added",
            1,
            json!({ "type": "web_search_call", "name": "web_search", "call_id": "",
            "arguments": "{}" }),
        ),
        json!({ "type": "response.web_search_call.completed", "output_index": 1 }),
        item("done", 2, custom("", "exec", "ls")),
        text(3, "found"),
        completed(),
    ]);
    assert_eq!(played.calls(), []);
    assert_eq!((played.text("content"), played.finish()), ("found".into(), vec!["stop".into()]));
    let played = play(&[
        created(),
        item("added", 0, custom("call_a", "exec", "")),
        delta(0, "ls "),
        delta(0, "-l"),
        part("custom_tool_call_input.done", 0, ("x", 0), "input", "ls -la"),
        completed(),
    ]);
    assert_eq!(played.calls(), [call_of("call_a", "exec", "ls -la")]);
    assert_eq!(played.finish(), ["tool_calls"]);
}

#[test]
fn citations_are_nested_and_told_once() {
    let note = json!({ "type": "url_citation", "start_index": 1, "end_index": 4, "title": "T\"t",
        "url": "https://a.test/" });
    let bare = json!({ "type": "url_citation", "url": "https://b.test/" });
    let file = json!({ "type": "file_citation", "file_id": "f", "index": 3 });
    let added = |index: u64, note: &Json| {
        json!({ "type": "response.output_text.annotation.added", "output_index": 0,
            "content_index": 0, "annotation_index": index, "annotation": note })
    };
    let content =
        json!([{ "type": "output_text", "text": "abcd", "annotations": [note, file, bare] }]);
    let played = play(&[
        created(),
        text(0, "abcd"),
        added(0, &note),
        added(1, &file),
        item("done", 0, message(content.clone())),
        completed(),
    ]);
    let nested = |from: u64, to: u64, title: &str, url: &str| {
        json!({ "type": "url_citation", "url_citation": {
            "start_index": from, "end_index": to, "title": title, "url": url } })
    };
    let expected = [nested(1, 4, "T\"t", "https://a.test/"), nested(0, 0, "", "https://b.test/")];
    assert_eq!(played.annotations(), expected);
    let (json, _) = whole(&json!({ "status": "completed", "output": [message(content)] }));
    assert_eq!(json["choices"][0]["message"]["annotations"], json!(expected));
}

#[test]
fn each_end_has_its_reason() {
    let why = |reason: &str| json!({ "incomplete_details": { "reason": reason } });
    let cases = [
        (completed(), "stop"),
        (ended("incomplete", "incomplete", why("max_output_tokens")), "length"),
        (ended("incomplete", "incomplete", why("content_filter")), "content_filter"),
        (ended("incomplete", "incomplete", why("max_tool_calls")), "length"),
        (ended("incomplete", "", json!({})), "length"),
        (ended("completed", "incomplete", why("content_filter")), "content_filter"),
        (json!({ "type": "response.completed" }), "stop"),
    ];
    for (last, reason) in cases {
        let played = play(&[created(), text(0, "x"), last.clone()]);
        assert_eq!((played.end, played.finish()), (Ok(()), vec![reason.to_owned()]), "{last}");
    }
}

#[test]
fn errors_in_a_stream() {
    let error = json!({ "type": "server_error", "code": "server_error", "message": "Oh.",
        "param": null });
    let nested = json!({ "type": "error", "sequence_number": 2, "error": error });
    let flat = json!({ "type": "error", "code": "server_error", "message": "Oh.", "param": null });
    let failed = ended(
        "failed",
        "failed",
        json!({ "error": { "code": "server_error",
        "message": "Oh." } }),
    );
    for (last, kind) in [(nested, Some("server_error")), (flat, None), (failed, None)] {
        for before in [vec![], vec![created()], vec![created(), text(0, "x")]] {
            let events = [before, vec![last.clone()]].concat();
            let played = play(&events);
            assert_eq!(played.end, Err(Fault::ErrorEvent), "{last}");
            let said = played.said.unwrap();
            assert_eq!((&*said.message, said.code.as_deref()), ("Oh.", Some("server_error")));
            assert_eq!(said.kind.as_deref(), kind, "{last}");
            assert!(!played.out.contains("[DONE]"));
        }
    }
    let played = play(&[created(), ended("cancelled", "cancelled", json!({}))]);
    assert_eq!(played.end, Err(Fault::ErrorEvent));
    with_sink(false, |sink| {
        let stray = Responses::default().stray(b"error: {\"message\":\"no\"}", sink);
        assert_eq!(stray, Err(Fault::ErrorEvent));
        assert_eq!(Responses::default().stray(b"hello", sink), Ok(Mark::Idle));
    });
}

#[test]
fn a_cut_is_no_end() {
    let events = [
        created(),
        text(0, "x"),
        item("added", 1, call("call_a", "look", "")),
        fragment(1, "{}"),
        completed(),
    ];
    for cut in 0..events.len() {
        let played = play(&events[..cut]);
        assert_eq!(played.end, Err(Fault::Truncated), "{cut}");
        assert!(played.finish().is_empty() && !played.out.contains("[DONE]"));
    }
    // Vendors send it after the end; alone it ends nothing.
    let done = play_raw(&[created().to_string(), text(0, "x").to_string(), "[DONE]".into()]);
    assert_eq!(done.end, Err(Fault::Truncated));
}

#[test]
fn what_is_no_event_is_a_bad_frame() {
    for payload in
        ["", "x", "[]", "1", "{\"type\":", "{\"type\":\"response.created\"}}", "\u{fffd}"]
    {
        assert_eq!(play_raw(&[payload]).end, Err(Fault::BadFrame), "{payload}");
    }
    // Every other shape is read for what it is worth.
    let odd = [
        "{}",
        "{\"type\":7}",
        "{\"type\":\"response.new_thing\",\"delta\":\"x\"}",
        "{\"type\":\"response.output_text.delta\"}",
        "{\"type\":\"response.output_text.delta\",\"delta\":{},\"output_index\":-1}",
        "{\"type\":\"response.function_call_arguments.delta\",\"delta\":\"x\",\"output_index\":9}",
        "{\"type\":\"response.output_item.added\",\"item\":[]}",
        "{\"type\":\"response.output_item.done\",\"item\":{\"type\":\"message\",\"content\":3}}",
        "{\"type\":\"response.output_text.annotation.added\",\"annotation\":null}",
        "{\"type\":\"response.created\",\"response\":7}",
    ];
    let played = play_raw(&odd);
    assert_eq!((played.end, &*played.out), (Err(Fault::Truncated), ""));
    assert_eq!(played.marks, [Mark::Event; 10]);
}

#[test]
fn counts_past_all_reason_are_bounded() {
    let usage = json!({ "input_tokens": u64::MAX, "output_tokens": u64::MAX });
    let played = play(&[created(), ended("completed", "completed", json!({ "usage": usage }))]);
    assert_eq!(played.end, Ok(()));
    let last = played.chunks().pop().unwrap();
    assert_eq!(last["usage"]["total_tokens"], 1_u64 << 54);
}

#[test]
fn a_whole_answer() {
    let (json, end) = whole(&json!({
        "id": "resp_1", "object": "response", "created_at": 77.0, "status": "completed",
        "error": null, "usage": usage(), "output": [
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "hm" }] },
            message(json!([output_text("a"), output_text("b")])),
            { "type": "function_call", "call_id": "call_a", "name": "look",
                "arguments": { "q": "é" } },
        ],
    }));
    assert_eq!(end, Ok(()));
    assert_eq!((&json["id"], &json["created"]), (&json!("resp_1"), &json!(77)));
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["content"], "ab");
    assert_eq!(choice["message"]["reasoning_content"], "hm");
    assert_eq!(
        choice["message"]["tool_calls"][0],
        json!({ "id": "call_a", "type": "function",
            "function": { "name": "look", "arguments": "{\"q\":\"é\"}" } })
    );
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(json["usage"]["total_tokens"], 38);
}

#[test]
fn whole_answers_that_are_none() {
    let cases = [
        (json!({}), Fault::BadFrame),
        (json!([]), Fault::BadFrame),
        (json!({ "status": "completed" }), Fault::BadFrame),
        (
            json!({ "status": "failed", "output": [], "error": { "message": "Oh." } }),
            Fault::ErrorEvent,
        ),
        (json!({ "status": "failed", "output": [], "error": null }), Fault::ErrorEvent),
        (json!({ "status": "in_progress", "output": [] }), Fault::Truncated),
        (json!({ "status": "queued", "output": [] }), Fault::Truncated),
    ];
    for (body, fault) in cases {
        let (json, end) = whole(&body);
        assert_eq!((end, json), (Err(fault), Json::Null), "{body}");
    }
}

#[test]
fn statuses_and_what_is_said_with_them() {
    let error =
        |code: &str, message: &str| json!({ "error": { "code": code, "message": message } });
    let cases = [
        (400, error("invalid_value", "No."), Fault::Client),
        (400, error("model_not_found", "No such model."), Fault::NotFound),
        (400, error("context_length_exceeded", "Too long."), Fault::Context),
        (400, error("", "This model's maximum context length is 8 tokens."), Fault::Context),
        (400, error("", "This model's maximum prompt length is 8."), Fault::Context),
        (400, error("content_filter", "Filtered."), Fault::ContentPolicy),
        (400, error("invalid_prompt", "Against our usage policy."), Fault::ContentPolicy),
        (
            400,
            json!({ "code": "invalid-argument", "error": "Incorrect API key provided." }),
            Fault::Credential,
        ),
        (401, error("invalid_api_key", "No."), Fault::Credential),
        (402, error("", "Insufficient Balance"), Fault::Credential),
        (404, error("DeploymentNotFound", "No."), Fault::NotFound),
        (408, json!({}), Fault::Unavailable),
        (413, json!({}), Fault::TooLarge),
        (422, error("", "No."), Fault::Client),
        (424, error("", "No."), Fault::Unavailable),
        (429, error("rate_limit_exceeded", "Slow."), Fault::RateLimited),
        (429, error("insufficient_quota", "Pay."), Fault::Credential),
        (503, json!("down"), Fault::Unavailable),
    ];
    for (status, body, fault) in cases {
        let body = body.to_string();
        let refusal = Refusal {
            status,
            retry_after: None,
            body: body.as_bytes(),
            surface: Surface::Chat,
            ..Refusal::default()
        };
        let refused = Responses::refuse(&refusal);
        assert_eq!((refused.failure.fault, refused.failure.status), (fault, status), "{body}");
    }
}

#[test]
fn flat_errors_and_waits_in_words() {
    let refuse = |status, retry_after, body: &str| {
        let surface = Surface::Chat;
        Responses::refuse(&Refusal {
            status,
            retry_after,
            body: body.as_bytes(),
            surface,
            ..Refusal::default()
        })
    };
    let said = refuse(400, None, r#"{"code":"invalid-argument","error":"No."}"#).said.unwrap();
    assert_eq!((&*said.message, said.code.as_deref()), ("No.", Some("invalid-argument")));
    let said = refuse(400, None, r#"{"code":"A whole sentence.","error":"No."}"#).said.unwrap();
    assert_eq!(said.code, None);
    let wait = r#"{"error":{"code":"429","message":"Please retry after 26 seconds."}}"#;
    assert_eq!(refuse(429, None, wait).failure.retry_after, Some(Ms(26_000)));
    assert_eq!(refuse(429, Some(Ms(5)), wait).failure.retry_after, Some(Ms(5)));
    assert_eq!(refuse(400, None, wait).failure.retry_after, None);
    let far = r#"{"error":{"message":"retry after 4294967295 seconds"}}"#;
    assert_eq!(refuse(429, None, far).failure.retry_after, Some(Ms(86_400_000)));
    assert!(refuse(502, None, "<html>").said.is_none());
}

fn mixed() -> Vec<String> {
    let note = json!({ "type": "url_citation", "url": "https://a.test/", "title": "t" });
    let events = [
        created(),
        summary(0, 0, "hm"),
        text(1, "żó😀"),
        json!({ "type": "response.output_text.annotation.added", "output_index": 1,
            "content_index": 0, "annotation": note }),
        item("added", 2, call("call_a", "look", "{\"a\":")),
        fragment(2, "1}"),
        item("done", 2, call("call_a", "look", "{\"a\":1}")),
        item(
            "done",
            3,
            message(json!([output_text("end"), { "type": "refusal", "refusal": "n" }])),
        ),
        completed(),
    ];
    events.iter().map(Json::to_string).collect()
}

#[test]
fn every_split_in_two_gives_the_same() {
    let payloads = mixed();
    let bytes: String = payloads.iter().map(|p| format!("event: x\r\ndata: {p}\r\n\r\n")).collect();
    let once = play_raw(&payloads);
    assert_eq!(once.end, Ok(()));
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
        assert_eq!(play_raw(&found).out, once.out, "{at}");
    }
}

#[test]
fn noise_never_panics() {
    let all = mixed();
    let mut state = 1_u64;
    for round in 0..3000 {
        let mut payloads: Vec<Vec<u8>> = all.iter().map(|p| p.clone().into_bytes()).collect();
        for _ in 0..=round % 3 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let roll = (state >> 33) as usize;
            let count = payloads.len();
            let one = &mut payloads[roll % count];
            let at = (roll >> 4) % one.len();
            one[at] = b"{}[]\",:\\u0n\xff"[(roll >> 12) % 12];
        }
        let played = play_raw(&payloads);
        for chunk in played.chunks() {
            assert!(chunk["choices"].is_array());
        }
        for payload in &payloads {
            with_sink(true, |sink| {
                let _ = Responses::default().whole(payload, sink);
            });
            let body = Refusal {
                status: 400 + (round % 200) as u16,
                retry_after: None,
                body: payload,
                surface: Surface::Chat,
                ..Refusal::default()
            };
            Responses::refuse(&body);
        }
    }
}

mod both_ways {
    //! What goes up, and a client of the same dialect.

    use super::*;
    use crate::base::secret::Secret;
    use crate::llm::dialects::Dialect;

    fn sent(surface: Surface, body: &Json, key: &str) -> Result<String, Fault> {
        let bytes = body.to_string().into_bytes();
        let mut ask = Ask::read(surface, &bytes).unwrap();
        ask.envelope.method = "POST";
        ask.envelope.path = "/responses".into();
        ask.envelope.fields.push(("traceparent", b"00-1".to_vec()));
        let key = Secret::new(key);
        let site = Site {
            authority: "host:1",
            path: "/v1",
            key: Some(&key),
            model: "up",
            ..Site::default()
        };
        let mut out = Buf::new();
        Responses::send(&ask, &bytes, &site, UnixMs(0), &mut out)?;
        Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
    }

    fn head_and_body(sent: &str) -> (&str, Json) {
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        (head, serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_chat_goes_up_translated() {
        let chat = json!({ "model": "m", "stream": true, "provider": { "order": ["p"] },
            "messages": [{ "role": "user", "content": "Hi" }] });
        let got = sent(Surface::Chat, &chat, "secret").unwrap();
        let (head, body) = head_and_body(&got);
        let length = got.len() - head.len() - 4;
        let expected = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: host:1\r\nauthorization: Bearer secret\r\n\
             accept-encoding: identity\r\nuser-agent: firstbyte/{}\r\n\
             accept: text/event-stream\r\ncontent-type: application/json\r\n\
             traceparent: 00-1\r\ncontent-length: {length}",
            env!("CARGO_PKG_VERSION"),
        );
        assert_eq!(head, expected);
        let content = json!([{ "type": "input_text", "text": "Hi" }]);
        assert_eq!(
            body,
            json!({ "store": false, "input": [{ "role": "user", "content": content }],
                "model": "up", "stream": true })
        );
        assert_eq!(sent(Surface::Chat, &chat, "a\r\nb: c"), Err(Fault::Unsendable));
        let embed = json!({ "model": "m", "input": "x" });
        assert_eq!(sent(Surface::Embeddings, &embed, "k"), Err(Fault::Unsendable));
    }

    #[test]
    fn the_same_dialect_goes_up_as_it_came() {
        let body = json!({ "model": "m", "tools": [{ "type": "web_search" }], "store": true,
            "previous_response_id": "resp_1", "x": [1.50, "\u{fc}"], "input": "Hi" });
        let mut asked = body.clone();
        asked["models"] = json!(["b"]);
        let got = sent(Surface::Responses, &asked, "k").unwrap();
        let expected = body.to_string().replace("\"m\"", "\"up\"");
        assert!(got.ends_with(&format!("\r\n\r\n{expected}")), "{got}");
        // What is stored there can be asked for without input.
        let bare = json!({ "model": "m", "prompt": { "id": "pmpt_1" } });
        assert!(sent(Surface::Responses, &bare, "k").unwrap().contains("pmpt_1"));
        let foreign = json!({ "type": "reasoning", "summary": [], "encrypted_content": "firstbyte:anthropic:x" });
        let told = json!({ "role": "user", "content": "Hi" });
        let asked = json!({ "model": "m", "input": [foreign, told], "stream": false });
        let got = sent(Surface::Responses, &asked, "k").unwrap();
        assert_eq!(
            head_and_body(&got).1,
            json!({ "model": "up", "input": [told], "stream": false })
        );
    }

    struct Passed {
        out: String,
        marks: Vec<Mark>,
        end: Result<(), Fault>,
        said: Option<Said>,
        usage: Option<Usage>,
        told: Told,
    }

    fn pass(whole: bool, payloads: &[&str]) -> Passed {
        let (mut told, mut out, mut events) = (Told::new(Dialect::Responses), Buf::new(), 0);
        let (mut adapter, mut marks, mut end) = (Responses::default(), Vec::new(), Ok(()));
        let mut sink = Sink {
            out: &mut out,
            shown: "shown",
            events: &mut events,
            id: "req",
            seconds: 9,
            told: &mut told,
        };
        for payload in payloads {
            if whole {
                sink.told.gather();
                end = adapter.whole(payload.as_bytes(), &mut sink);
                break;
            }
            match adapter.feed(payload.as_bytes(), &mut sink) {
                Ok(mark) => marks.push(mark),
                Err(fault) => end = Err(fault),
            }
            if end.is_err() || marks.last() == Some(&Mark::End) {
                break;
            }
        }
        if !whole && end.is_ok() {
            end = adapter.close(false, &mut sink);
        }
        let (said, usage) = (adapter.said(), adapter.usage());
        let out = String::from_utf8(out.as_slice().to_vec()).unwrap();
        Passed { out, marks, end, said, usage, told }
    }

    #[test]
    fn events_pass_as_they_came_but_for_the_name() {
        let events = [
            (
                r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1", "model":"up-1","output":[]}}"#,
                Mark::Event,
            ),
            (r#"{"type":"keepalive","sequence_number":1}"#, Mark::Idle),
            (
                r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"web_search_call","id":"ws_1"}}"#,
                Mark::Content,
            ),
            (
                r#"{"type":"response.web_search_call.searching","sequence_number":3,"output_index":0}"#,
                Mark::Event,
            ),
            (
                r#"{"type":"response.output_item.added","sequence_number":4,"output_index":1,"item":{"type":"message","content":[]}}"#,
                Mark::Event,
            ),
            (
                r#"{"type":"response.output_text.delta","sequence_number":5,"delta":"","item_id":"m"}"#,
                Mark::Event,
            ),
            (
                r#"{"type":"response.output_text.delta","sequence_number":6,"delta":"H\u00fc","item_id":"m","obfuscation":"xyz"}"#,
                Mark::Content,
            ),
            (
                r#"{"type":"response.output_text.done","sequence_number":7,"text":"H\u00fc"}"#,
                Mark::Content,
            ),
            (
                r#"{"type":"response.code_interpreter_call_code.delta","sequence_number":8,"delta":"1"}"#,
                Mark::Content,
            ),
            (
                r#"{"type":"response.image_generation_call.partial_image","sequence_number":9,"partial_image_b64":"QQ=="}"#,
                Mark::Content,
            ),
            (
                r#"{"type":"response.completed","sequence_number":10,"response":{"status":"completed","model":"up-1","usage":{"input_tokens":1,"output_tokens":2},"z":[1.0]}}"#,
                Mark::End,
            ),
        ];
        let payloads = events.map(|(payload, _)| payload);
        let got = pass(false, &payloads);
        assert_eq!(got.end, Ok(()));
        assert_eq!(got.marks, events.map(|(_, mark)| mark));
        let expected: String = payloads
            .iter()
            .map(|payload| {
                let kind = payload.split('"').nth(3).unwrap();
                format!("event: {kind}\ndata: {}\n\n", payload.replace("up-1", "shown"))
            })
            .collect();
        assert_eq!(got.out, expected);
        assert_eq!(got.usage.map(|usage| (usage.prompt, usage.completion)), Some((1, 2)));
        // Cut anywhere it has no end, and nothing is made up.
        for end in 0..payloads.len() - 1 {
            let got = pass(false, &payloads[..=end]);
            assert_eq!(got.end, Err(Fault::Truncated), "after {end}");
            assert!(expected.starts_with(&got.out), "after {end}");
        }
    }

    #[test]
    fn a_failure_is_not_passed_on() {
        let begun = r#"{"type":"response.created","sequence_number":0,"response":{"model":"up"}}"#;
        for failure in [
            r#"{"type":"response.failed","sequence_number":1,"response":{"status":"failed","error":{"code":"server_error","message":"Oops"}}}"#,
            r#"{"type":"error","sequence_number":1,"error":{"type":"server_error","code":"server_error","message":"Oops"}}"#,
            r#"{"type":"error","sequence_number":1,"code":"server_error","message":"Oops","param":null}"#,
        ] {
            let mut got = pass(false, &[begun, failure]);
            assert_eq!(got.end, Err(Fault::ErrorEvent));
            assert_eq!(got.said.unwrap().message, "Oops");
            assert!(!got.out.contains("Oops"));
            // The gateway's own goes on counting.
            let mut out = Buf::new();
            let report = crate::llm::dialects::ErrorReport {
                status: 502,
                text: crate::llm::dialects::ErrorText::default(),
                metadata: None,
                id: "req",
            };
            Dialect::Responses.writer().error_event(&report, &mut got.told, &mut out);
            let out = String::from_utf8(out.as_slice().to_vec()).unwrap();
            assert!(out.contains("\"sequence_number\":1,"), "{out}");
        }
    }

    #[test]
    fn whole_answers_pass_as_they_came_but_for_the_name() {
        for status in ["completed", "incomplete", "queued", "in_progress"] {
            let body = format!(
                r#"{{"id":"resp_1", "status":"{status}","model":"up-1","output":[{{"type":"x"}}],"z":1.0}}"#
            );
            let got = pass(true, &[&body]);
            assert_eq!(got.end, Ok(()), "{status}");
            assert_eq!(got.out, body.replace("up-1", "shown"));
        }
        let failed =
            r#"{"status":"failed","error":{"code":"server_error","message":"Oops"},"output":[]}"#;
        let got = pass(true, &[failed]);
        assert_eq!((got.end, got.out.as_str()), (Err(Fault::ErrorEvent), ""));
    }

    #[test]
    fn encrypted_reasoning_is_a_signature() {
        let item = |text: &str, encrypted: &str| {
            json!({ "type": "reasoning", "id": "rs_1", "encrypted_content": encrypted,
                "summary": [{ "type": "summary_text", "text": text }] })
        };
        let got = play(&[
            json!({ "type": "response.output_item.added", "output_index": 0, "item": item("", "early") }),
            json!({ "type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm" }),
            json!({ "type": "response.output_item.done", "output_index": 0, "item": item("hm", "gAAA") }),
            json!({ "type": "response.output_text.delta", "output_index": 1, "delta": "Hi" }),
            json!({ "type": "response.completed", "response": { "status": "completed" } }),
        ]);
        let thought = json!([{ "type": "thinking", "thinking": "hm", "signature": "firstbyte:openai:rs_1:gAAA" }]);
        let chunks = got.chunks();
        let blocks: Vec<_> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["delta"]["thinking_blocks"])
            .filter(|blocks| blocks.is_array())
            .collect();
        assert_eq!(blocks, [&thought]);
        let body = json!({ "status": "completed", "output": [item("hm", "gAAA")] });
        assert_eq!(whole(&body).0["choices"][0]["message"]["thinking_blocks"], thought);
    }
}
