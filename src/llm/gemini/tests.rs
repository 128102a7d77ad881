//! Responses of Answer, and what a chat client gets of them.

use serde_json::{Value as Tree, json};

use super::*;
use crate::base::buf::Buf;
use crate::llm::request::Surface;
use crate::llm::sink::Told;
use crate::wire::sse::Scanner;

/// What a client was told.
#[derive(Debug, Default)]
struct Seen {
    text: String,
    reasoning: String,
    calls: Vec<(String, Tree)>,
    finish: Vec<String>,
    usage: Tree,
    cited: Vec<Tree>,
}

fn play(
    tell: impl FnOnce(&mut Answer, &mut Sink<'_>) -> Result<(), Fault>,
) -> (Seen, Result<(), Fault>) {
    let (mut adapter, mut told) = (Answer::default(), Told::default());
    let (mut out, mut events) = (Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    let end = tell(&mut adapter, &mut sink);
    (seen(std::str::from_utf8(out.as_slice()).unwrap()), end)
}

fn streamed(events: &[Tree]) -> (Seen, Result<(), Fault>) {
    play(|adapter, sink| {
        for event in events {
            adapter.feed(event.to_string().as_bytes(), sink)?;
        }
        adapter.close(true, sink)
    })
}

fn seen(out: &str) -> Seen {
    let mut seen = Seen::default();
    let mut arguments: Vec<(String, String)> = Vec::new();
    for data in out.split_terminator("\n\n").filter_map(|block| block.strip_prefix("data: ")) {
        if data == "[DONE]" {
            continue;
        }
        let chunk: Tree = serde_json::from_str(data).unwrap();
        assert_eq!(chunk["model"], "shown");
        if !chunk["usage"].is_null() {
            seen.usage = chunk["usage"].clone();
        }
        for choice in chunk["choices"].as_array().unwrap() {
            let delta = &choice["delta"];
            seen.text += delta["content"].as_str().unwrap_or_default();
            seen.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
            seen.cited.extend(delta["annotations"].as_array().into_iter().flatten().cloned());
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                let index = call["index"].as_u64().unwrap() as usize;
                if let Some(name) = call["function"]["name"].as_str() {
                    assert!(!call["id"].as_str().unwrap().is_empty());
                    assert_eq!(index, arguments.len());
                    arguments.push((name.to_owned(), String::new()));
                }
                arguments[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
            }
            if let Some(finish) = choice["finish_reason"].as_str() {
                seen.finish.push(finish.to_owned());
            }
        }
    }
    let parse =
        |(name, text): (String, String)| (name, serde_json::from_str(&text).unwrap_or_default());
    // A call that was cut has no arguments yet.
    seen.calls = arguments.into_iter().map(parse).collect();
    seen
}

fn event(parts: &[Tree], finish: Option<&str>) -> Tree {
    let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({ "candidates": [candidate], "responseId": "r", "modelVersion": "gemini-x" })
}

#[test]
fn text_thoughts_and_counts_go_out_in_their_places() {
    let counts = json!({
        "promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 2, "toolUsePromptTokenCount": 1
    });
    let mut last = event(&[json!({ "text": "there" })], Some("STOP"));
    last["usageMetadata"] = counts;
    let thought = json!({ "text": "hm", "thought": true });
    let (seen, end) = streamed(&[event(&[thought, json!({ "text": "Hi " })], None), last]);
    assert_eq!(end, Ok(()));
    assert_eq!((seen.text.as_str(), seen.reasoning.as_str()), ("Hi there", "hm"));
    assert_eq!(seen.finish, ["stop"]);
    assert_eq!(seen.usage["prompt_tokens"], 6);
    assert_eq!(seen.usage["completion_tokens"], 10);
    assert_eq!(seen.usage["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(seen.usage["prompt_tokens_details"]["cached_tokens"], 2);
}

#[test]
fn calls_come_whole_and_end_as_calls() {
    let call = |name: &str, args: Tree| json!({ "functionCall": { "name": name, "args": args } });
    let bare = json!({ "functionCall": { "name": "c" } });
    let both = [call("a", json!({ "city": "Köln" })), call("b", json!({}))];
    let (seen, end) = streamed(&[event(&both, None), event(&[bare], Some("STOP"))]);
    assert_eq!(end, Ok(()));
    assert_eq!(
        seen.calls,
        [("a".into(), json!({ "city": "Köln" })), ("b".into(), json!({})), ("c".into(), json!({}))]
    );
    assert_eq!(seen.finish, ["tool_calls"]);
}

#[test]
fn streamed_arguments_are_put_together() {
    let piece = |call: Tree| event(&[json!({ "functionCall": call })], None);
    let at = |path: &str, kind: &str, value: Tree| {
        let arg = json!({ "jsonPath": path, kind: value, "willContinue": true });
        piece(json!({ "partialArgs": [arg], "willContinue": true }))
    };
    let (seen, end) = streamed(&[
        piece(json!({ "name": "f", "willContinue": true })),
        at("$.city", "stringValue", json!("Par")),
        at("$.city", "stringValue", json!("is")),
        at("$.stops[1].n", "numberValue", json!(2)),
        at("$['odd']", "boolValue", json!(true)),
        piece(json!({})),
        event(&[json!({ "text": "" })], Some("STOP")),
    ]);
    assert_eq!(end, Ok(()));
    let arguments = json!({ "city": "Paris", "stops": [null, { "n": 2 }], "odd": true });
    assert_eq!(seen.calls, [("f".into(), arguments)]);
    assert_eq!(seen.finish, ["tool_calls"]);
}

#[test]
fn a_path_cannot_ask_for_much_memory() {
    let deep = format!("${}", ".a".repeat(10_000));
    for (path, fault) in [
        ("$.a[999999999]", Fault::FrameTooLarge),
        ("$.a[99999999999999999999999]", Fault::BadFrame),
        (deep.as_str(), Fault::BadFrame),
    ] {
        assert_eq!(pieced(&[json!({ "jsonPath": path, "numberValue": 1 })]).1, Err(fault));
    }
    let long = json!({ "jsonPath": "$.a", "stringValue": "x".repeat(3 << 20) });
    assert_eq!(pieced(&[long.clone(), long.clone()]).1, Ok(()));
    assert_eq!(pieced(&[long.clone(), long.clone(), long]).1, Err(Fault::FrameTooLarge));
}

/// A call whose arguments come in these pieces.
fn pieced(pieces: &[Tree]) -> (Seen, Result<(), Fault>) {
    let call = json!({ "name": "f", "partialArgs": pieces });
    streamed(&[event(&[json!({ "functionCall": call })], Some("STOP"))])
}

#[test]
fn paths_of_every_grammar_find_their_place() {
    let text = |path: &str| json!({ "jsonPath": path, "stringValue": "x" });
    for (path, expected) in [
        ("$.a", json!({ "a": "x" })),
        ("$.a.b[0][1].c", json!({ "a": { "b": [[null, { "c": "x" }]] } })),
        ("$['a.b']", json!({ "a.b": "x" })),
        ("$[\"it's\"].z", json!({ "it's": { "z": "x" } })),
        ("$['it\\'s ö']", json!({ "it's ö": "x" })),
        ("$['7']", json!({ "7": "x" })),
        ("$.7", json!({ "7": "x" })),
    ] {
        let (seen, end) = pieced(&[text(path)]);
        assert_eq!((end, &seen.calls[0].1), (Ok(()), &expected), "{path}");
    }
    for path in
        ["a", "$", "$a", "$.", "$..a", "$[", "$[]", "$[-1]", "$[+1]", "$['a'", "$['a'x", "$[*]"]
    {
        assert_eq!(pieced(&[text(path)]).1, Err(Fault::BadFrame), "{path}");
    }
    for pieces in [["$.a", "$.a.b"], ["$.a.b", "$.a"], ["$.a[0]", "$.a.b"]] {
        assert_eq!(pieced(&pieces.map(text)).1, Err(Fault::BadFrame), "{pieces:?}");
    }
    let (seen, _) = pieced(&[
        json!({ "jsonPath": "$.n", "nullValue": "NULL_VALUE" }),
        json!({ "jsonPath": "$.f", "numberValue": 1.5 }),
        json!({ "jsonPath": "$.b", "boolValue": false }),
        json!({ "willContinue": true }),
    ]);
    assert_eq!(seen.calls[0].1, json!({ "n": null, "f": 1.5, "b": false }));
}

#[test]
fn a_call_that_goes_on_is_work_and_needs_no_terminator() {
    let part = |call: Tree| json!({ "functionCall": call });
    let begun = |name: &str| json!({ "name": name, "willContinue": true, "args": { "a": 1 } });
    let more =
        json!({ "partialArgs": [{ "jsonPath": "$.b", "numberValue": 2 }], "willContinue": true });
    let (seen, end) = play(|adapter, sink| {
        for event in [
            event(&[part(begun("f"))], None),
            event(&[part(more.clone())], None),
            // The next one ends the one before, and the end of the answer the last.
            event(&[part(begun("g")), part(more.clone())], None),
        ] {
            assert_eq!(adapter.feed(event.to_string().as_bytes(), sink), Ok(Mark::Content));
        }
        adapter.feed(event(&[], Some("STOP")).to_string().as_bytes(), sink)?;
        adapter.close(true, sink)
    });
    assert_eq!(end, Ok(()));
    let arguments = json!({ "a": 1, "b": 2 });
    assert_eq!(seen.calls, [("f".into(), arguments.clone()), ("g".into(), arguments)]);
    // Cut before its end, a call is not one.
    let (_, end) = streamed(&[event(&[part(begun("f"))], None)]);
    assert_eq!(end, Err(Fault::Truncated));
}

#[test]
fn reasons_to_stop() {
    for (reason, expected) in [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("IMAGE_RECITATION", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("LANGUAGE", "stop"),
        ("OTHER", "stop"),
        ("NO_IMAGE", "stop"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
        ("UNEXPECTED_TOOL_CALL", "stop"),
        ("A_NEW_ONE", "stop"),
    ] {
        let (seen, end) = streamed(&[event(&[json!({ "text": "x" })], Some(reason))]);
        assert_eq!((end, seen.finish), (Ok(()), vec![String::from(expected)]), "{reason}");
    }
    // A model that says STOP in each event: the last word counts.
    let text = |text: &str| event(&[json!({ "text": text })], Some("STOP"));
    let (seen, _) = streamed(&[text("a"), text("b"), event(&[], Some("RECITATION"))]);
    assert_eq!((seen.text.as_str(), seen.finish), ("ab", vec![String::from("content_filter")]));
}

#[test]
fn a_stop_that_text_follows_promises_nothing() {
    play(|adapter, sink| {
        let stop = event(&[json!({ "text": "a" })], Some("STOP")).to_string();
        let counts = json!({ "usageMetadata": { "promptTokenCount": 1 } }).to_string();
        for (payload, finished) in
            [(&stop, true), (&counts, true), (&stop, false), (&counts, false)]
        {
            adapter.feed(payload.as_bytes(), sink)?;
            assert_eq!(adapter.is_finished(), finished);
        }
        adapter.close(true, sink)
    })
    .1
    .unwrap();
}

#[test]
fn counts_that_say_nothing_or_too_much() {
    let counts = |counts: Tree| json!({ "usageMetadata": counts });
    let full = counts(json!({ "promptTokenCount": 5, "candidatesTokenCount": 7 }));
    let end = event(&[], Some("STOP"));
    for last in [json!({ "trafficType": "ON_DEMAND" }), json!(null), json!({}), json!(7)] {
        let (seen, _) = streamed(&[full.clone(), end.clone(), counts(last)]);
        assert_eq!(
            (&seen.usage["prompt_tokens"], &seen.usage["total_tokens"]),
            (&json!(5), &json!(12))
        );
    }
    let most = counts(json!({ "promptTokenCount": u64::MAX, "toolUsePromptTokenCount": u64::MAX,
        "candidatesTokenCount": u64::MAX, "thoughtsTokenCount": u64::MAX }));
    let (seen, _) = streamed(&[end, most]);
    assert_eq!(seen.usage["total_tokens"], json!(4 * u64::from(u32::MAX)));
}

#[test]
fn candidates_are_choices() {
    let one = |index: u32, text: &str, finish: Option<&str>| {
        let mut event = event(&[json!({ "text": text })], finish);
        event["candidates"][0]["index"] = json!(index);
        event
    };
    let (seen, end) =
        streamed(&[one(0, "a", None), one(1, "b", Some("MAX_TOKENS")), one(0, "c", Some("STOP"))]);
    assert_eq!((end, seen.text.as_str()), (Ok(()), "abc"));
    assert_eq!(seen.finish, ["stop", "length"]);
    let many: Vec<Tree> = (0..1000).map(|index| one(index, "a", None)).collect();
    assert_eq!(streamed(&many).1, Err(Fault::BadFrame));
}

/// What is cited: the stretch of the text, counted in characters, with address and title.
fn cited(seen: &Seen) -> Vec<(String, String, String)> {
    let cited = seen.cited.iter().map(|note| {
        assert_eq!(note["type"], "url_citation");
        let note = &note["url_citation"];
        let at = |name: &str| note[name].as_u64().unwrap() as usize;
        let (start, end) = (at("start_index"), at("end_index"));
        let text = seen.text.chars().skip(start).take(end - start).collect();
        let string = |name: &str| note[name].as_str().unwrap().to_owned();
        (text, string("url"), string("title"))
    });
    cited.collect()
}

#[test]
fn citations_point_at_characters() {
    let web = |uri: &str, title: &str| json!({ "web": { "uri": uri, "title": title } });
    let chunks = json!([web("https://a/", "\"A\""), web("gs://b", "B"), { "image": {} }]);
    let text = "Zum Café \u{1f600}\n\u{1}ist es nah. Geh!";
    let (start, end) = (text.find("ist").unwrap(), text.find(" Geh").unwrap());
    let segment = json!({ "startIndex": start, "endIndex": end });
    let mut last = event(&[json!({ "text": &text[20..] })], Some("STOP"));
    last["candidates"][0]["groundingMetadata"] = json!({
        "groundingChunks": chunks,
        "groundingSupports": [
            { "segment": segment, "groundingChunkIndices": [0, 1, 2, 99, -1, "x"] },
            { "segment": { "endIndex": 9 }, "groundingChunkIndices": [0] },
            { "segment": { "startIndex": 5, "endIndex": 2 }, "groundingChunkIndices": [0] },
            { "groundingChunkIndices": [0] }, 7
        ]
    });
    let mut first = event(&[json!({ "text": &text[..20], "thought": false })], None);
    // The place may lie ahead, past the end, and be told twice.
    first["candidates"][0]["citationMetadata"] = json!({ "citationSources": [{ "startIndex": end + 1, "endIndex": 999, "uri": "http://c" }] });
    last["candidates"][0]["citationMetadata"] =
        json!({ "citations": [{ "startIndex": end + 1, "endIndex": 999, "uri": "http://c" }] });
    let (seen, _) =
        streamed(&[event(&[json!({ "text": "éé", "thought": true })], None), first, last]);
    let expect = [
        ("Geh!", "http://c", ""),
        ("ist es nah.", "https://a/", "\"A\""),
        ("Zum Café", "https://a/", "\"A\""),
    ];
    assert_eq!(cited(&seen), expect.map(|(a, b, c)| (a.into(), b.into(), c.into())));
}

#[test]
fn escapes_count_as_what_they_stand_for() {
    let raw = br#"{"candidates":[{"content":{"parts":[{"text":"\u00e9\ud83d\ude00\u20ac\u0041\"x"},{"text":"yz"}]},
        "groundingMetadata":{"groundingChunks":[{"web":{"uri":"https://a"}}],"groundingSupports":[
        {"segment":{"startIndex":10,"endIndex":12},"groundingChunkIndices":[0]},
        {"segment":{"partIndex":1,"startIndex":0,"endIndex":1},"groundingChunkIndices":[0]}]},"finishReason":"STOP"}]}"#;
    let (seen, end) = play(|adapter, sink| {
        adapter.feed(raw, sink)?;
        adapter.close(false, sink)
    });
    assert_eq!(end, Ok(()));
    let texts: Vec<String> = cited(&seen).into_iter().map(|(text, ..)| text).collect();
    assert_eq!(texts, ["\"x", "y"]);
}

#[test]
fn a_blocked_prompt_is_an_answer() {
    let (seen, end) = streamed(&[json!({ "promptFeedback": { "blockReason": "SAFETY" } })]);
    assert_eq!(end, Ok(()));
    assert_eq!((seen.text.as_str(), seen.finish), ("", vec![String::from("content_filter")]));
    // In the middle of an answer it ends what has no end.
    let blocked = json!({ "promptFeedback": { "blockReason": "OTHER" } });
    let (seen, end) = streamed(&[event(&[json!({ "text": "Hi" })], None), blocked.clone()]);
    assert_eq!((end, seen.finish), (Ok(()), vec![String::from("content_filter")]));
    let (seen, end) = streamed(&[event(&[], Some("STOP")), blocked]);
    assert_eq!((end, seen.finish), (Ok(()), vec![String::from("stop")]));
}

#[test]
fn a_stream_that_stops_short_is_truncated() {
    let first = event(&[json!({ "text": "Hi" })], None);
    assert_eq!(streamed(std::slice::from_ref(&first)).1, Err(Fault::Truncated));
    assert_eq!(streamed(&[]).1, Err(Fault::Truncated));
    let mut other = event(&[json!({ "text": "Ho" })], Some("STOP"));
    other["candidates"][0]["index"] = json!(1);
    assert_eq!(streamed(&[first, other]).1, Err(Fault::Truncated), "one of two candidates");
}

#[test]
fn an_error_in_the_stream_is_one() {
    let error = json!({ "error": { "code": 503, "message": "busy", "status": "UNAVAILABLE" } });
    let (_, end) = play(|adapter, sink| {
        let fed = adapter.feed(error.to_string().as_bytes(), sink);
        assert_eq!(adapter.said().unwrap().message, "busy");
        fed.map(|_| ())
    });
    assert_eq!(end, Err(Fault::ErrorEvent));
    assert_eq!(streamed(&[json!([])]).1, Err(Fault::BadFrame));
    assert_eq!(streamed(&[json!({ "candidates": [7] })]).1, Err(Fault::BadFrame));
}

#[test]
fn a_whole_answer_is_one_response_or_a_list_of_them() {
    let response = event(&[json!({ "text": "Hi" })], Some("STOP"));
    for body in [response.to_string(), json!([event(&[], None), response]).to_string()] {
        let (seen, end) = play(|adapter, sink| adapter.whole(body.as_bytes(), sink));
        assert_eq!((end, seen.text.as_str()), (Ok(()), "Hi"), "{body}");
        let (seen, end) = play(|adapter, sink| {
            adapter.stray(body.as_bytes(), sink)?;
            adapter.close(false, sink)
        });
        if body.starts_with('[') {
            assert_eq!((end, seen.text.as_str()), (Ok(()), "Hi"), "{body}");
        }
    }
}

#[test]
fn refusals_are_told_apart() {
    let error = |status: &str, message: &str| {
        json!({ "error": { "code": 1, "message": message, "status": status } }).to_string()
    };
    let details = json!({ "error": { "message": "bad", "status": "INVALID_ARGUMENT",
        "details": [{ "reason": "API_KEY_INVALID" }] } });
    let quota = json!({ "error": { "message": "slow down", "status": "RESOURCE_EXHAUSTED",
        "details": [{ "retryDelay": "34.5s" }] } });
    let wide = "Unable to submit request because the input token count is 9 but model only supports up to 8.";
    let long = "The input token count (9) exceeds the maximum number of tokens allowed (8).";
    for (status, body, fault, retry_after) in [
        (400, error("INVALID_ARGUMENT", "bad"), Fault::Client, None),
        (400, details.to_string(), Fault::Credential, None),
        (400, error("INVALID_ARGUMENT", long), Fault::Context, None),
        (400, error("INVALID_ARGUMENT", wide), Fault::Context, None),
        (404, "<!DOCTYPE html>".into(), Fault::NotFound, None),
        (429, error("RESOURCE_EXHAUSTED", "Retry later."), Fault::RateLimited, None),
        (
            429,
            quota.to_string().replace("34.5s", "1e300s"),
            Fault::RateLimited,
            Some(Ms(86_400_000)),
        ),
        (
            400,
            error("FAILED_PRECONDITION", "User location is not supported."),
            Fault::Credential,
            None,
        ),
        (400, format!("[{}]", error("FAILED_PRECONDITION", "Billing.")), Fault::Credential, None),
        (400, error("INVALID_ARGUMENT", "FAILED_PRECONDITION is no field"), Fault::Client, None),
        (499, error("CANCELLED", "The operation was cancelled."), Fault::Unavailable, None),
        (500, error("INTERNAL", "An internal error."), Fault::Unavailable, None),
        (504, error("DEADLINE_EXCEEDED", "Late."), Fault::Unavailable, None),
        (403, error("PERMISSION_DENIED", "no"), Fault::Credential, None),
        (429, quota.to_string(), Fault::RateLimited, Some(Ms(34_500))),
        (503, error("UNAVAILABLE", "busy"), Fault::Unavailable, None),
    ] {
        let body = body.as_bytes();
        let surface = Surface::Chat;
        let refused = refuse(&Refusal { status, body, surface, ..Refusal::default() });
        let failure = refused.failure;
        let seen = (failure.fault, failure.status, failure.retry_after);
        assert_eq!(seen, (fault, status, retry_after), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn signatures_come_back_as_they_went_out() {
    let events = [
        event(&[json!({ "text": "hm", "thought": true, "thoughtSignature": "dGg=" })], None),
        event(&[json!({ "text": "a" })], None),
        event(&[json!({ "text": "", "thoughtSignature": "dHg=" })], None),
        event(
            &[
                json!({ "functionCall": { "name": "f", "args": {} }, "thoughtSignature": "Y2E=" }),
                json!({ "functionCall": { "name": "g", "args": {} } }),
            ],
            Some("STOP"),
        ),
    ];
    let (mut adapter, mut told) = (Answer::default(), Told::default());
    let (mut out, mut count) = (Buf::new(), 0);
    let (shown, id, seconds) = ("shown", "req", 9);
    let mut sink = Sink { out: &mut out, shown, events: &mut count, id, seconds, told: &mut told };
    for event in &events {
        adapter.feed(event.to_string().as_bytes(), &mut sink).unwrap();
    }
    adapter.close(false, &mut sink).unwrap();
    // What a client puts together of the deltas, and gives back.
    let mut message = json!({ "role": "assistant", "content": "", "tool_calls": [] });
    for data in std::str::from_utf8(out.as_slice()).unwrap().split("\n\n") {
        let Some(data) = data.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let chunk: Tree = serde_json::from_str(data).unwrap();
        let delta = &chunk["choices"][0]["delta"];
        let text = format!(
            "{}{}",
            message["content"].as_str().unwrap(),
            delta["content"].as_str().unwrap_or_default()
        );
        message["content"] = json!(text);
        for block in delta["thinking_blocks"].as_array().into_iter().flatten() {
            if message["thinking_blocks"].is_null() {
                message["thinking_blocks"] = json!([]);
            }
            message["thinking_blocks"].as_array_mut().unwrap().push(block.clone());
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = call["index"].as_u64().unwrap() as usize;
            if call["id"].is_string() {
                message["tool_calls"].as_array_mut().unwrap().push(call.clone());
            }
            if !call["extra_content"].is_null() {
                message["tool_calls"][at]["extra_content"] = call["extra_content"].clone();
            }
        }
    }
    let chat = json!({ "messages": [{ "role": "user", "content": "x" }, message] });
    let prompt = crate::llm::dialects::chat_prompt::read(&chat).unwrap();
    let body = body::write(&prompt, "gemini-3-pro-preview").unwrap();
    assert_eq!(
        body["contents"][1]["parts"],
        json!([
            { "text": "hm", "thought": true, "thoughtSignature": "dGg=" },
            { "text": "a", "thoughtSignature": "dHg=" },
            { "functionCall": { "name": "f", "args": {} }, "thoughtSignature": "Y2E=" },
            { "functionCall": { "name": "g", "args": {} } },
        ])
    );
}

/// The stream helper of the official package fails at one without.
#[test]
fn every_fragment_of_a_signed_call_has_a_function() {
    let call = json!({ "functionCall": { "name": "f", "args": {} }, "thoughtSignature": "Y2E=" });
    let (mut adapter, mut told) = (Answer::default(), Told::default());
    let (mut out, mut count) = (Buf::new(), 0);
    let (shown, id, seconds) = ("shown", "req", 9);
    let mut sink = Sink { out: &mut out, shown, events: &mut count, id, seconds, told: &mut told };
    let last = event(&[call], Some("STOP"));
    adapter.feed(last.to_string().as_bytes(), &mut sink).unwrap();
    adapter.close(false, &mut sink).unwrap();
    let text = std::str::from_utf8(out.as_slice()).unwrap();
    let chunks = text.split("\n\n").filter_map(|data| data.strip_prefix("data: {"));
    let chunks = chunks.map(|data| serde_json::from_str(&format!("{{{data}")).unwrap());
    let calls: Vec<Tree> = chunks
        .filter_map(|chunk: Tree| {
            chunk["choices"][0]["delta"]["tool_calls"].as_array()?.first().cloned()
        })
        .collect();
    assert!(calls.iter().any(|call| call["extra_content"].is_object()), "{text}");
    assert!(calls.iter().all(|call| call["function"]["arguments"].is_string()), "{text}");
}

fn mixed() -> Vec<String> {
    let mut last = event(&[json!({ "text": "ż 😀" })], Some("STOP"));
    last["usageMetadata"] = json!({ "promptTokenCount": 3, "candidatesTokenCount": 4 });
    last["candidates"][0]["groundingMetadata"] = json!({
        "groundingChunks": [{ "web": { "uri": "https://a/", "title": "t" } }],
        "groundingSupports": [{ "segment": { "endIndex": 2 }, "groundingChunkIndices": [0] }]
    });
    let call = |call: Tree| event(&[json!({ "functionCall": call })], None);
    let events = [
        event(&[json!({ "text": "hm", "thought": true, "thoughtSignature": "c2ln" })], None),
        call(json!({ "name": "f", "args": { "a": [1, "é"] } })),
        call(json!({ "name": "g", "willContinue": true })),
        call(json!({ "partialArgs": [{ "jsonPath": "$.a[1].b", "stringValue": "x" }] })),
        event(&[json!({ "inlineData": { "data": "QQ==" } }), json!({ "toolCall": {} })], None),
        last,
    ];
    events.iter().map(|event| format!("{event:#}").replace('\n', " ")).collect()
}

/// What a client gets of a body that arrives in two pieces; nothing if its end is a bad one.
fn in_two(bytes: &[u8], at: usize) -> Result<String, Fault> {
    let (mut adapter, mut told) = (Answer::default(), Told::default());
    let (mut out, mut events) = (Buf::new(), 0);
    let (shown, id, seconds) = ("shown", "req", 9);
    let mut sink = Sink { out: &mut out, shown, events: &mut events, id, seconds, told: &mut told };
    let (mut scanner, mut held) = (Scanner::new(1 << 16), Vec::new());
    for (piece, eof) in [(&bytes[..at], false), (&bytes[at..], true)] {
        held.extend_from_slice(piece);
        while let Ok(Some(frame)) = scanner.next(&held, eof) {
            let mut scratch = Vec::new();
            let fed = match frame.stray {
                Some(stray) if frame.data.is_empty() => adapter.stray(stray.of(&held), &mut sink),
                _ if frame.data.is_empty() => Ok(Mark::Idle),
                _ => adapter.feed(frame.payload(&held, &mut scratch), &mut sink),
            };
            if frame.ended {
                fed?;
            }
            held.drain(..frame.len);
        }
    }
    adapter.close(true, &mut sink)?;
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

#[test]
fn every_split_in_two_gives_the_same() {
    let events = mixed();
    let bytes: String = events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
    let once = in_two(bytes.as_bytes(), 0).unwrap();
    let seen = seen(&once);
    assert_eq!((seen.calls.len(), cited(&seen).len(), seen.text.as_str()), (2, 1, "ż 😀"));
    for at in 0..bytes.len() {
        assert_eq!(in_two(bytes.as_bytes(), at).as_ref(), Ok(&once), "{at}");
    }
    // As one array, without `alt=sse`.
    let list = format!("[{}\r\n]", events.join("\r\n,\r\n"));
    for at in 0..list.len() {
        assert_eq!(in_two(list.as_bytes(), at).as_ref(), Ok(&once), "{at}");
        assert_eq!(in_two(&list.as_bytes()[..at], 0), Err(Fault::Truncated), "{at}");
    }
}

#[test]
fn every_cut_is_a_bad_end() {
    let bytes: String = mixed().iter().map(|event| format!("data: {event}\r\n\r\n")).collect();
    let whole = bytes.trim_end().len();
    for at in 0..whole {
        assert_eq!(in_two(&bytes.as_bytes()[..at], at / 2), Err(Fault::Truncated), "{at}");
    }
    assert!(in_two(&bytes.as_bytes()[..whole], 0).is_ok());
}

#[test]
fn errors_of_every_form_end_a_stream() {
    let text = format!("data: {}\r\n\r\n", event(&[json!({ "text": "Hi" })], None));
    let error = json!({ "error": { "code": 499, "message": "gone", "status": "CANCELLED" } });
    let (plain, pretty) = (error.to_string(), format!("{error:#}"));
    for form in [
        format!("data: {plain}\r\n\r\n"),
        format!("{pretty}\n\n"),
        format!("[{pretty}]\n\n"),
        format!("error: {plain}\n\n"),
    ] {
        for before in [text.as_str(), ""] {
            let bytes = format!("{before}{form}");
            for at in 0..bytes.len() {
                let got = in_two(bytes.as_bytes(), at);
                assert_eq!(got, Err(Fault::ErrorEvent), "{bytes} at {at}");
            }
        }
    }
}

#[test]
fn noise_never_panics() {
    let all = mixed();
    let mut state = 1_u64;
    for round in 0..3000_u16 {
        let mut payloads: Vec<Vec<u8>> = all.iter().map(|one| one.clone().into_bytes()).collect();
        for _ in 0..=round % 3 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let roll = (state >> 33) as usize;
            let count = payloads.len();
            let one = &mut payloads[roll % count];
            let at = (roll >> 4) % one.len();
            one[at] = b"{}[]\",:\\u0n\xff"[(roll >> 12) % 12];
        }
        let (_, _) = play(|adapter, sink| {
            for payload in &payloads {
                adapter.feed(payload, sink)?;
            }
            adapter.close(true, sink)
        });
        for payload in &payloads {
            let surface = Surface::Chat;
            let status = 400 + round % 200;
            refuse(&Refusal { status, body: payload, surface, ..Refusal::default() });
        }
    }
}
