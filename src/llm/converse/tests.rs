//! Small answers of each kind, and what a chat client gets of them.

use serde_json::{Value as Json, json};

use super::*;
use crate::base::buf::Buf;
use crate::llm::sink::Told;

fn with_sink(whole: bool, play: impl FnOnce(&mut Sink<'_>)) -> String {
    let (mut told, mut out, mut events) = (Told::default(), Buf::new(), 0);
    if whole {
        told.gather();
    }
    let (out_ref, id, shown) = (&mut out, "req", "shown");
    play(&mut Sink { out: out_ref, shown, events: &mut events, id, seconds: 9, told: &mut told });
    String::from_utf8(out.as_slice().to_vec()).unwrap()
}

/// What came of one answer.
#[derive(Default)]
struct Seen {
    text: String,
    reasoning: String,
    /// Id, name and arguments.
    calls: Vec<[String; 3]>,
    annotations: Vec<Json>,
    finish: Vec<String>,
    usage: Json,
    marks: Vec<Mark>,
    end: Option<Fault>,
}

/// Feeds events up to the first fault or end, and closes.
fn play(events: &[Json]) -> Seen {
    let mut seen = Seen::default();
    let mut answer = Answer::default();
    let out = with_sink(false, |sink| {
        for event in events {
            let (name, body) = event.as_object().unwrap().iter().next().unwrap();
            let bytes = body.to_string().into_bytes();
            let value = json::document(&bytes).unwrap();
            match answer.event(name.as_bytes(), &bytes, value, sink) {
                Ok(mark) => seen.marks.push(mark),
                Err(fault) => seen.end = Some(fault),
            }
            if seen.end.is_some() || seen.marks.last() == Some(&Mark::End) {
                break;
            }
        }
        seen.end = seen.end.or_else(|| answer.close(true, sink).err());
    });
    for block in out.split_terminator("\n\n") {
        let data = block.strip_prefix("data: ").unwrap();
        if data != "[DONE]" {
            seen.chunk(&serde_json::from_str(data).unwrap());
        }
    }
    seen
}

impl Seen {
    fn chunk(&mut self, chunk: &Json) {
        if chunk["usage"].is_object() {
            self.usage = chunk["usage"].clone();
        }
        let (choice, delta) = (&chunk["choices"][0], &chunk["choices"][0]["delta"]);
        self.text += delta["content"].as_str().unwrap_or_default();
        self.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        self.annotations.extend(delta["annotations"].as_array().cloned().unwrap_or_default());
        self.finish.extend(choice["finish_reason"].as_str().map(str::to_owned));
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let string = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            let at = call["index"].as_u64().unwrap() as usize;
            if at == self.calls.len() {
                let name = string(&call["function"]["name"]);
                self.calls.push([string(&call["id"]), name, String::new()]);
            }
            self.calls[at][2] += &string(&call["function"]["arguments"]);
        }
    }
}

fn begin() -> Json {
    json!({ "messageStart": { "role": "assistant" } })
}

fn start(block: u64, start: &Json) -> Json {
    json!({ "contentBlockStart": { "contentBlockIndex": block, "start": start } })
}

fn call(block: u64, id: &str, name: &str) -> Json {
    start(block, &json!({ "toolUse": { "toolUseId": id, "name": name } }))
}

fn delta(block: u64, delta: &Json) -> Json {
    json!({ "contentBlockDelta": { "contentBlockIndex": block, "delta": delta, "p": "abc" } })
}

fn text(block: u64, text: &str) -> Json {
    delta(block, &json!({ "text": text }))
}

fn input(block: u64, input: &str) -> Json {
    delta(block, &json!({ "toolUse": { "input": input } }))
}

fn end(block: u64) -> Json {
    json!({ "contentBlockStop": { "contentBlockIndex": block } })
}

fn stop(reason: &str) -> Json {
    json!({ "messageStop": { "stopReason": reason } })
}

fn metadata() -> Json {
    let usage = json!({ "inputTokens": 5, "outputTokens": 3, "totalTokens": 8 });
    json!({ "metadata": { "usage": usage, "metrics": { "latencyMs": 1 } } })
}

#[test]
fn text_and_reasoning_go_out_as_they_come() {
    let reason = |part: &Json| delta(0, &json!({ "reasoningContent": part }));
    let seen = play(&[
        begin(),
        reason(&json!({ "text": "Hm\n" })),
        reason(&json!({ "signature": "c2ln" })),
        reason(&json!({ "redactedContent": "eA==" })),
        end(0),
        start(1, &json!({})),
        text(1, "Zażółć "),
        text(1, "\"gęślą\""),
        text(1, ""),
        end(1),
        stop("end_turn"),
        metadata(),
    ]);
    assert_eq!((seen.text.as_str(), seen.reasoning.as_str()), ("Zażółć \"gęślą\"", "Hm\n"));
    assert_eq!((seen.finish, seen.end), (vec!["stop".to_owned()], None));
    use Mark::{Content, End, Event};
    let marks =
        [Event, Content, Event, Event, Event, Event, Content, Content, Event, Event, Content, End];
    assert_eq!(seen.marks, marks);
    assert_eq!(seen.usage["prompt_tokens"], 5);
    assert_eq!(seen.usage["completion_tokens"], 3);
}

#[test]
fn calls_are_numbered_densely_and_their_input_joined() {
    let seen = play(&[
        begin(),
        text(0, "Let me look."),
        end(0),
        call(1, "t1", "weather"),
        input(1, ""),
        input(1, "{\"city\":"),
        call(2, "t2", "clock"),
        input(1, "\"Łódź\"}"),
        end(1),
        input(2, ""),
        end(2),
        input(2, "too late"),
        call(3, "t3", ""),
        stop("tool_use"),
        metadata(),
    ]);
    let calls = [["t1", "weather", "{\"city\":\"Łódź\"}"], ["t2", "clock", "{}"]];
    assert_eq!(seen.calls, calls.map(|call| call.map(str::to_owned)));
    assert_eq!(seen.finish, ["tool_calls"]);
}

#[test]
fn the_tools_of_amazon_are_not_the_clients() {
    let server = json!({ "toolUseId": "s", "name": "search", "type": "server_tool_use" });
    let seen = play(&[
        begin(),
        start(0, &json!({ "toolUse": server })),
        input(0, "{\"query\":\"x\"}"),
        end(0),
        start(1, &json!({ "toolResult": { "toolUseId": "s" } })),
        delta(1, &json!({ "toolResult": [{ "text": "found" }] })),
        end(1),
        text(2, "It is so."),
        stop("tool_use"),
    ]);
    assert_eq!((seen.text.as_str(), seen.calls.len()), ("It is so.", 0));
    assert_eq!(seen.finish, ["stop"]);
}

#[test]
fn citations_of_the_web_hold_for_the_text_before_them() {
    let web = |url: &str| json!({ "location": { "web": { "url": url, "domain": "a.example" } } });
    let seen = play(&[
        begin(),
        text(0, "Żó"),
        end(0),
        text(1, "łw"),
        text(1, "!"),
        end(1),
        delta(2, &json!({ "citation": web("https://a.example/x") })),
        delta(2, &json!({ "citation": web("https://a.example/x") })),
        delta(2, &json!({ "citation": { "location": { "documentChar": { "start": 1 } } } })),
        end(2),
        stop("end_turn"),
    ]);
    let cited = json!({ "type": "url_citation", "url_citation": {
        "start_index": 2, "end_index": 5, "title": "a.example", "url": "https://a.example/x",
    }});
    assert_eq!(seen.annotations, [cited]);
}

#[test]
fn each_reason_has_its_word() {
    let table = [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
        ("malformed_tool_use", "stop"),
        ("of_the_future", "stop"),
    ];
    for (reason, word) in table {
        assert_eq!(play(&[begin(), text(0, "x"), stop(reason)]).finish, [word], "{reason}");
    }
}

#[test]
fn usage_counts_what_was_cached_and_may_come_first() {
    let usage = json!({
        "inputTokens": 10, "outputTokens": 4, "totalTokens": 134,
        "cacheReadInputTokens": 100, "cacheReadInputTokenCount": 100, "cacheWriteInputTokens": 20,
    });
    let seen =
        play(&[begin(), json!({ "metadata": { "usage": usage } }), text(0, "x"), stop("end_turn")]);
    assert_eq!(seen.usage["prompt_tokens"], 130);
    assert_eq!(seen.usage["prompt_tokens_details"]["cached_tokens"], 100);
    assert_eq!(seen.usage["total_tokens"], 134);
    assert_eq!(seen.end, None);
    // None told, none made up.
    assert!(play(&[begin(), text(0, "x"), stop("end_turn")]).usage.is_null());
}

#[test]
fn an_answer_without_its_end_is_cut() {
    let events = [begin(), text(0, "x"), end(0), metadata()];
    for count in 0..=events.len() {
        let seen = play(&events[..count]);
        assert_eq!(seen.end, Some(Fault::Truncated));
        assert!(seen.finish.is_empty());
    }
    // A second answer inside the first.
    let twice = play(&[begin(), text(0, "x"), begin(), text(0, "y"), stop("end_turn")]);
    assert_eq!((twice.end, twice.text.as_str()), (Some(Fault::Truncated), "x"));
    // Before anything was told a second beginning does no harm; after the end nothing counts.
    let seen =
        play(&[begin(), begin(), text(0, "x"), stop("end_turn"), text(0, "y"), call(1, "t", "n")]);
    assert_eq!((seen.end, seen.text.as_str(), seen.calls.len()), (None, "x", 0));
}

#[test]
fn what_is_odd_does_no_harm() {
    let seen = play(&[
        json!({ "somethingNew": { "delta": { "text": "no" } } }),
        delta(0, &json!({ "image": { "format": "png" } })),
        delta(0, &json!({ "text": 7 })),
        delta(0, &json!("text")),
        start(0, &json!({ "toolUse": [] })),
        input(9, "nobody's"),
        end(4),
        json!({ "contentBlockDelta": {} }),
        stop("end_turn"),
    ]);
    assert_eq!((seen.text.as_str(), seen.end, seen.calls.len()), ("", None, 0));
    assert_eq!(play(&[json!({ "messageStop": [] })]).end, Some(Fault::BadFrame));
    let many: Vec<Json> = (0..=OPEN_MAX as u64).map(|block| call(block, "t", "n")).collect();
    assert_eq!(play(&many).end, Some(Fault::BadFrame));
}

#[test]
fn a_whole_answer_says_the_same() {
    let body = json!({
        "output": { "message": { "role": "assistant", "content": [
            { "reasoningContent": { "reasoningText": { "text": "Hm", "signature": "s" } } },
            { "text": "Look: " },
            { "toolUse": { "toolUseId": "s", "name": "n", "input": {}, "type": "server_tool_use" } },
            { "citationsContent": {
                "content": [{ "text": "so" }],
                "citations": [{ "title": "T", "location": { "web": { "url": "https://a.example" } } }],
            } },
            { "toolUse": { "toolUseId": "t1", "name": "f", "input": { "a": [1, "ż"] } } },
            { "toolUse": { "toolUseId": "t2", "name": "g", "input": {} } },
        ] } },
        "stopReason": "tool_use",
        "usage": { "inputTokens": 1, "outputTokens": 2, "totalTokens": 3 },
    })
    .to_string();
    let mut members = Top::new();
    json::document_with_top(body.as_bytes(), &mut members).unwrap();
    let out = with_sink(true, |sink| {
        assert_eq!(Answer::default().whole(body.as_bytes(), &members, sink), Ok(()));
    });
    let got: Json = serde_json::from_str(&out).unwrap();
    let (choice, message) = (&got["choices"][0], &got["choices"][0]["message"]);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Look: so"), &json!("Hm"))
    );
    let cited = &message["annotations"][0]["url_citation"];
    assert_eq!((&cited["start_index"], &cited["end_index"]), (&json!(6), &json!(8)));
    let arguments = |at: usize| message["tool_calls"][at]["function"]["arguments"].clone();
    assert_eq!((arguments(0), arguments(1)), (json!("{\"a\":[1,\"ż\"]}"), json!("{}")));
    assert_eq!(message["tool_calls"].as_array().unwrap().len(), 2);
    assert_eq!(got["usage"]["total_tokens"], 3);
    let mut none = Top::new();
    json::document_with_top(b"{\"output\":{}}", &mut none).unwrap();
    with_sink(true, |sink| {
        let end = Answer::default().whole(b"{\"output\":{}}", &none, sink);
        assert_eq!(end, Err(Fault::BadFrame));
    });
}
