//! Events of Cohere, and what a chat client gets of them.

use serde_json::{Value as Tree, json};

use super::*;
use crate::llm::sink::Told;

/// What comes of a stream: the client's bytes, the marks, the end and what an error said.
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
    play(&mut Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    });
    String::from_utf8(out.as_slice().to_vec()).unwrap()
}

fn play(events: &[Tree]) -> Played {
    let (mut adapter, mut marks) = (Cohere::default(), Vec::new());
    let mut end = Ok(());
    let out = with_sink(false, |sink| {
        for event in events {
            match adapter.feed(event.to_string().as_bytes(), sink) {
                Ok(mark) => marks.push(mark),
                Err(fault) => {
                    end = Err(fault);
                    return;
                }
            }
        }
        end = adapter.close(true, sink);
    });
    Played { out, marks, end, said: adapter.said() }
}

fn deltas(out: &str) -> Vec<Tree> {
    let blocks = out.split_terminator("\n\n").map(|block| block.strip_prefix("data: ").unwrap());
    let chunks = blocks.filter(|data| *data != "[DONE]").map(|data| {
        let chunk: Tree = serde_json::from_str(data).unwrap();
        chunk["choices"][0]["delta"].clone()
    });
    chunks.filter(|delta| delta.is_object()).collect()
}

fn message(kind: &str, index: u64, message: Tree) -> Tree {
    json!({ "type": kind, "index": index, "delta": { "message": message } })
}

fn start() -> Tree {
    json!({ "type": "message-start", "id": "m1", "delta": { "message": { "role": "assistant" } } })
}

fn end(reason: &str) -> Tree {
    let tokens = json!({ "input_tokens": 9, "output_tokens": 5, "reasoning_tokens": 2 });
    let billed = json!({ "input_tokens": 1, "output_tokens": 1 });
    let usage = json!({ "billed_units": billed, "tokens": tokens, "cached_tokens": 4 });
    json!({ "type": "message-end", "delta": { "finish_reason": reason, "usage": usage } })
}

fn text(text: &str) -> Tree {
    message("content-delta", 1, json!({ "content": { "text": text } }))
}

#[test]
fn an_id_that_is_too_long_for_every_event_is_left_out() {
    let start = json!({ "type": "message-start", "id": "i".repeat(4096), "delta": {} });
    let text = message("content-delta", 0, json!({ "content": { "text": "Hi" } }));
    let played = play(&[start, text.clone(), text]);
    assert!(played.out.contains("Hi") && played.out.len() < 1024, "{} bytes", played.out.len());
}

#[test]
fn thoughts_and_text_keep_their_places_and_counts_are_the_tokens() {
    let thinking = json!({ "content": { "type": "thinking", "thinking": "" } });
    let thought = json!({ "content": { "thinking": "hm" } });
    let played = play(&[
        start(),
        message("content-start", 0, thinking),
        message("content-delta", 0, thought),
        json!({ "type": "content-end", "index": 0 }),
        text("Hi \"you\""),
        message("citation-start", 0, json!({ "citations": { "start": 0, "end": 2 } })),
        end("COMPLETE"),
    ]);
    assert_eq!(played.end, Ok(()));
    let (event, content) = (Mark::Event, Mark::Content);
    assert_eq!(played.marks, [event, event, content, event, content, event, content]);
    let deltas = deltas(&played.out);
    assert_eq!(deltas[1], json!({ "reasoning_content": "hm" }));
    assert_eq!(deltas[2], json!({ "content": "Hi \"you\"" }));
    assert!(played.out.contains("\"id\":\"m1\"") && played.out.contains("\"stop\""));
    for count in ["\"prompt_tokens\":9", "\"completion_tokens\":5", "\"cached_tokens\":4"] {
        assert!(played.out.contains(count), "{count}: {}", played.out);
    }
}

#[test]
fn calls_are_counted_on_their_own() {
    let call = |index, id: &str| {
        let function = json!({ "name": "f", "arguments": "" });
        let call = json!({ "id": id, "type": "function", "function": function });
        message("tool-call-start", index, json!({ "tool_calls": call }))
    };
    let arguments = |index, text: &str| {
        let call = json!({ "function": { "arguments": text } });
        message("tool-call-delta", index, json!({ "tool_calls": call }))
    };
    let played = play(&[
        start(),
        message("tool-plan-delta", 0, json!({ "tool_plan": "I will." })),
        call(3, "a"),
        arguments(3, "{\"x\":"),
        arguments(3, "1}"),
        json!({ "type": "tool-call-end", "index": 3 }),
        call(7, "b"),
        json!({ "type": "tool-call-end", "index": 7 }),
        end("TOOL_CALL"),
    ]);
    assert_eq!(played.end, Ok(()));
    let deltas = deltas(&played.out);
    assert_eq!(deltas[1], json!({ "reasoning_content": "I will." }));
    let calls: Vec<&Tree> = deltas.iter().filter_map(|d| d["tool_calls"].get(0)).collect();
    let said = |at: u64| {
        let of = calls.iter().filter(|call| call["index"] == at);
        of.map(|call| call["function"]["arguments"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!((said(0).as_str(), said(1).as_str()), ("{\"x\":1}", "{}"));
    assert!(played.out.contains("\"finish_reason\":\"tool_calls\""));
    assert_eq!(play(&[start(), arguments(0, "{")]).end, Err(Fault::BadFrame));
    assert_eq!(play(&[start(), call(0, "a"), call(0, "b")]).end, Err(Fault::BadFrame));
}

#[test]
fn citations_with_an_address_go_out() {
    let (near, far) = ("http://a.example/1", "https://b.example/?q=\"x\"");
    let sources = json!([
        { "type": "document", "id": "doc:0", "document": { "title": "Own", "text": "t" } },
        { "type": "document", "id": near, "document": { "title": "One \u{e9}" } },
        { "type": "tool", "id": "t:0", "tool_output": { "url": far, "title": 5 } },
        { "type": "tool", "id": "t:1", "tool_output": { "url": "ftp://c.example" } },
        { "type": "tool", "id": "http://d.example/".repeat(400), "tool_output": null },
    ]);
    let mut citation = json!({ "start": 3, "end": 5, "text": "is", "sources": sources,
        "type": "TEXT_CONTENT", "content_index": 1 });
    let noted = |url: &str, title: &str| {
        let note = json!({ "start_index": 3, "end_index": 5, "title": title, "url": url });
        json!({ "type": "url_citation", "url_citation": note })
    };
    let notes = [noted(near, "One \u{e9}"), noted(far, "")];
    let event =
        |citation: &Tree| message("citation-start", 0, json!({ "citations": citation.clone() }));
    let played = play(&[start(), text("it is"), event(&citation), end("COMPLETE")]);
    assert_eq!(played.marks[2], Mark::Content);
    let told: Vec<Tree> = deltas(&played.out)
        .iter()
        .filter_map(|delta| delta["annotations"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(told, notes);
    let body = json!({ "finish_reason": "COMPLETE", "message": { "citations": [citation],
        "content": [{ "type": "text", "text": "it is" }] } });
    let out = with_sink(true, |sink| {
        assert_eq!(Cohere::default().whole(body.to_string().as_bytes(), sink), Ok(()));
    });
    let answer: Tree = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["choices"][0]["message"]["annotations"], json!(notes));
    // A citation of the plan has another extent; one without an extent is none.
    citation["type"] = json!("PLAN");
    let plan = event(&citation);
    citation["type"] = json!("TEXT_CONTENT");
    citation["start"] = json!(-1);
    let played = play(&[start(), text("x"), plan, event(&citation), end("COMPLETE")]);
    assert_eq!(played.marks[2..4], [Mark::Event, Mark::Event]);
    assert!(!played.out.contains("annotations"), "{}", played.out);
}

#[test]
fn null_in_the_place_of_arguments_is_none() {
    let arguments_of = |fragments: &[&str]| {
        let call = json!({ "id": "a", "function": { "name": "f", "arguments": fragments[0] } });
        let mut events =
            vec![start(), message("tool-call-start", 0, json!({ "tool_calls": call }))];
        events.extend(fragments[1..].iter().map(|fragment| {
            let call = json!({ "function": { "arguments": fragment } });
            message("tool-call-delta", 0, json!({ "tool_calls": call }))
        }));
        events.push(end("TOOL_CALL"));
        let played = play(&events);
        assert_eq!(played.end, Ok(()));
        let deltas = deltas(&played.out);
        let calls = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0));
        calls.map(|c| c["function"]["arguments"].as_str().unwrap()).collect::<String>()
    };
    for none in [&["null"][..], &["", "null"], &["", "nu", "", "ll"], &["n", "ull"], &[""]] {
        assert_eq!(arguments_of(none), "{}", "{none:?}");
    }
    // Nothing else is lost.
    for some in [&["", "{\n", "}"][..], &["n", "one"], &["", "null", "!"], &["{", "null"]] {
        assert_eq!(arguments_of(some), some.concat(), "{some:?}");
    }
}

#[test]
fn the_finish_goes_out_when_it_is_known_and_nothing_after_it() {
    let (mut adapter, mut told, mut out, mut events) =
        (Cohere::default(), Told::default(), Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    for event in [start(), text("x"), end("MAX_TOKENS")] {
        assert!(!adapter.is_finished());
        adapter.feed(event.to_string().as_bytes(), &mut sink).unwrap();
    }
    assert!(adapter.is_finished());
    let chunks = *sink.events;
    assert!(String::from_utf8_lossy(sink.out.as_slice()).contains("\"length\""));
    for late in [text("late"), end("COMPLETE"), start()] {
        assert_eq!(adapter.feed(late.to_string().as_bytes(), &mut sink), Ok(Mark::Event));
    }
    assert_eq!(*sink.events, chunks);
    assert_eq!(adapter.feed(b"[DONE] ", &mut sink), Ok(Mark::End));
    let error = json!({ "message": "no" }).to_string();
    assert_eq!(adapter.feed(error.as_bytes(), &mut sink), Err(Fault::ErrorEvent));
    // An end without a reason is an end.
    let played = play(&[start(), text("x"), json!({ "type": "message-end", "delta": {} })]);
    assert_eq!(played.end, Ok(()));
    assert!(played.out.contains("\"finish_reason\":\"stop\""), "{}", played.out);
}

#[test]
fn ends_are_told_apart() {
    for (reason, finish) in
        [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("NEW", "stop")]
    {
        let played = play(&[start(), text("x"), end(reason)]);
        assert!(played.out.contains(&format!("\"finish_reason\":\"{finish}\"")), "{reason}");
        assert!(played.out.ends_with("data: [DONE]\n\n"), "{reason}");
    }
    for reason in ["ERROR", "TIMEOUT"] {
        let mut event = end(reason);
        let played = play(&[start(), text("x"), event.clone()]);
        assert_eq!(played.end, Err(Fault::ErrorEvent));
        assert_eq!(played.said.unwrap().message, reason);
        event["delta"]["error"] = json!("went wrong");
        assert_eq!(play(&[start(), event]).said.unwrap().message, "went wrong");
    }
    assert_eq!(play(&[start(), text("x")]).end, Err(Fault::Truncated));
    let played = play(&[start(), json!({ "message": "no", "error_type": "X" })]);
    assert_eq!((played.end, played.said.unwrap().message), (Err(Fault::ErrorEvent), "no".into()));
    assert_eq!(play(&[json!([])]).end, Err(Fault::BadFrame));
    assert_eq!(play(&[json!({ "no": "type" })]).end, Err(Fault::BadFrame));
    with_sink(false, |sink| {
        assert_eq!(Cohere::default().feed(b"[DONE]", sink), Ok(Mark::End));
        assert_eq!(Cohere::default().close(true, sink), Err(Fault::Truncated));
    });
}

#[test]
fn whole_answers() {
    let function = json!({ "name": "f", "arguments": "null" });
    let call = json!({ "id": "a", "type": "function", "function": function });
    let body = json!({
        "id": "m1", "finish_reason": "TOOL_CALL", "usage": end("")["delta"]["usage"],
        "message": { "role": "assistant", "tool_plan": "Plan.", "tool_calls": [call],
            "content": [{ "type": "thinking", "thinking": "hm" }, { "type": "text", "text": "Hi" }] },
    });
    let out = with_sink(true, |sink| {
        assert_eq!(Cohere::default().whole(body.to_string().as_bytes(), sink), Ok(()));
    });
    let answer: Tree = serde_json::from_str(&out).unwrap();
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Hi"), &json!("Plan.hm"))
    );
    assert_eq!(message["tool_calls"][0]["function"], json!({ "name": "f", "arguments": "{}" }));
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(answer["usage"]["total_tokens"], 14);
    let plain = json!({ "message": { "content": "Hi" }, "finish_reason": "MAX_TOKENS" });
    let out = with_sink(true, |sink| {
        assert_eq!(Cohere::default().whole(plain.to_string().as_bytes(), sink), Ok(()));
    });
    let answer: Tree = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hi");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    for (body, fault) in [
        (json!({ "id": "m1", "message": "no" }), Fault::ErrorEvent),
        (json!({ "id": "m1" }), Fault::BadFrame),
        (json!([1]), Fault::BadFrame),
        (json!({ "message": {}, "finish_reason": "TIMEOUT" }), Fault::ErrorEvent),
    ] {
        with_sink(true, |sink| {
            assert_eq!(Cohere::default().whole(body.to_string().as_bytes(), sink), Err(fault));
        });
    }
}

#[test]
fn refusals_are_told_apart() {
    let long = json!({ "message": "Too many tokens: 9 over the limit." });
    let typed = json!({ "message": "no", "error_type": "TOO_MANY_TOKENS" });
    let named = json!({ "message": "\"TOO_MANY_TOKENS\" is no role" });
    let limit = json!({ "message": "too many tokens: max tokens must be at most 9",
        "error_type": "TOO_MANY_TOKENS" });
    let flat = json!({ "message": "no" });
    for (status, body, fault) in [
        (400, &flat, Fault::Client),
        (400, &long, Fault::Context),
        (422, &long, Fault::Context),
        (400, &typed, Fault::Context),
        (400, &named, Fault::Client),
        (400, &limit, Fault::Client),
        (429, &long, Fault::RateLimited),
        (404, &flat, Fault::NotFound),
        (498, &flat, Fault::ContentPolicy),
        (499, &flat, Fault::Unavailable),
        (504, &flat, Fault::Unavailable),
        (401, &flat, Fault::Credential),
        (429, &flat, Fault::RateLimited),
        (503, &flat, Fault::Unavailable),
    ] {
        let text = body.to_string();
        let surface = crate::llm::request::Surface::Chat;
        let refusal = Refusal {
            status,
            retry_after: None,
            body: text.as_bytes(),
            surface,
            ..Refusal::default()
        };
        let refused = Cohere::refuse(&refusal);
        assert_eq!(refused.failure.fault, fault, "{status} {body}");
        assert_eq!(refused.said.unwrap().message, body["message"].as_str().unwrap());
    }
}

fn sent(surface: Surface, path: &str, at: &str, body: &[u8]) -> Result<String, Fault> {
    let mut ask = Ask::read(surface, body).unwrap();
    (ask.envelope.method, ask.envelope.path) = ("POST", at.to_owned().into());
    let key = crate::base::secret::Secret::new("key");
    let site =
        Site { authority: "host:1", path, key: Some(&key), model: "command-r", ..Site::default() };
    let mut out = Buf::new();
    Cohere::send(&ask, body, &site, UnixMs(0), &mut out)?;
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

#[test]
fn a_request_goes_to_the_second_version_however_the_base_is_written() {
    let body = br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let told = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"model\":\"command-r\",\"stream\":true}";
    for (path, root) in [("", ""), ("/v2", ""), ("/v1", ""), ("/proxy/v2", "/proxy")] {
        let out = sent(Surface::Chat, path, "/chat/completions", body).unwrap();
        assert!(out.starts_with(&format!("POST {root}/v2/chat HTTP/1.1\r\n")), "{out}");
        assert!(out.contains("authorization: Bearer key\r\naccept"), "{out}");
        assert!(out.contains("accept: text/event-stream\r\n"), "{out}");
        assert!(out.ends_with(&format!("\r\n\r\n{told}")), "{out}");
    }
    let out = sent(Surface::Other, "/v2", "/rerank", br#"{"model":"m","query":"q"}"#).unwrap();
    assert!(out.starts_with("POST /v2/rerank HTTP/1.1\r\n"), "{out}");
    assert!(out.ends_with("{\"model\":\"command-r\",\"query\":\"q\"}"), "{out}");
    let body = br#"{"model":"m","input":"x"}"#;
    assert_eq!(sent(Surface::Embeddings, "/v2", "/embeddings", body), Err(Fault::Unsendable));
}
