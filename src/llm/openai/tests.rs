//! Chunks of vendors that are not quite OpenAI's, and what a chat client gets of them.

use super::*;
use crate::base::buf::Buf;
use crate::llm::sink::{Block, Told};

/// Feeds payloads, closes, and gives the client's bytes.
fn play(payloads: &[&str]) -> (String, Result<(), Fault>) {
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
    let mut end = Ok(());
    for payload in payloads {
        match adapter.feed(payload.as_bytes(), &mut sink) {
            Ok(_) => {}
            Err(fault) => {
                end = Err(fault);
                break;
            }
        }
    }
    let end = end.and_then(|()| adapter.close(true, &mut sink));
    (String::from_utf8(out.as_slice().to_vec()).unwrap(), end)
}

fn chunk(choice: &str) -> String {
    format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"up\",\"choices\":[{choice}]}}"
    )
}

fn delta(delta: &str) -> String {
    chunk(&format!("{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}"))
}

/// What the client's deltas say, in order.
fn said(out: &str) -> Vec<serde_json::Value> {
    let blocks = out.split_terminator("\n\n").filter_map(|block| block.strip_prefix("data: "));
    let chunks = blocks.filter(|data| *data != "[DONE]");
    chunks.map(|data| serde_json::from_str(data).unwrap()).collect()
}

const STOP: &str = "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}";

#[test]
fn what_is_openais_own_goes_out_as_it_came() {
    let first = delta("{\"role\":\"assistant\",\"content\":\"\",\"odd\":[1]}");
    let text = delta("{\"content\":\"hi \\u00fc\"}");
    let (out, end) = play(&[&first, &text, &chunk(STOP), "[DONE]"]);
    let expected: String = [first, text, chunk(STOP)]
        .iter()
        .map(|c| format!("data: {}\n\n", c.replace("\"up\"", "\"shown\"")))
        .collect();
    assert_eq!(out, expected + "data: [DONE]\n\n");
    assert_eq!(end, Ok(()));
}

#[test]
fn reasoning_by_another_name_is_renamed_and_told_once() {
    let one = delta("{\"reasoning\":\"Hm\",\"content\":null}");
    let both = delta("{\"reasoning\":\"Hm\",\"reasoning_content\":\"Hm\",\"content\":\"x\"}");
    let (out, _) = play(&[&one, &both, &chunk(STOP)]);
    let thoughts: Vec<_> = said(&out)
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["reasoning_content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(thoughts, ["Hm", "Hm"]);
    assert!(!out.contains("\"reasoning\":"), "{out}");
}

#[test]
fn thinking_parts_are_told_apart() {
    let parts = "{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"so\"}]},{\"type\":\"text\",\"text\":\"yes\"}]}";
    let (out, _) = play(&[&delta(parts), &chunk(STOP)]);
    let chunks = said(&out);
    assert_eq!(chunks[1]["choices"][0]["delta"]["reasoning_content"], "so");
    assert_eq!(chunks[2]["choices"][0]["delta"]["content"], "yes");
}

#[test]
fn calls_get_dense_indices_and_ids_and_are_named_once() {
    let call = |call: &str| delta(&format!("{{\"tool_calls\":[{call}]}}"));
    let cases: [&[&str]; 4] = [
        // No index, no type; whole calls.
        &[
            "{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}",
            "{\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}",
        ],
        // Counted from 1, name and id repeated.
        &[
            "{\"index\":1,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}",
            "{\"index\":1,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"}\"}}",
            "{\"index\":2,\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}",
        ],
        // Arguments as an object, and none at all.
        &[
            "{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{}}}",
            "{\"index\":1,\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\"}}",
        ],
        // One index for two calls.
        &[
            "{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}",
            "{\"index\":0,\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}",
        ],
    ];
    for fragments in cases {
        let mut payloads: Vec<String> = fragments.iter().map(|f| call(f)).collect();
        payloads.push(chunk(STOP));
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        let (out, end) = play(&payloads);
        assert_eq!(end, Ok(()));
        let mut calls = vec![(String::new(), String::new(), String::new()); 2];
        for chunk in said(&out) {
            for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten()
            {
                let known = &mut calls[call["index"].as_u64().unwrap() as usize];
                known.0 += call["id"].as_str().unwrap_or_default();
                known.1 += call["function"]["name"].as_str().unwrap_or_default();
                known.2 += call["function"]["arguments"].as_str().unwrap_or_default();
            }
        }
        let want = |id: &str, name: &str| (id.to_owned(), name.to_owned(), String::from("{}"));
        assert_eq!(calls, [want("a", "f"), want("b", "g")], "{fragments:?}\n{out}");
        assert!(out.contains("\"finish_reason\":\"tool_calls\""), "{out}");
        assert!(!out.contains("\"finish_reason\":\"stop\""), "{out}");
    }
}

#[test]
fn finish_reasons_are_openais_alone() {
    for (raw, want) in [
        ("eos", Some("stop")),
        ("model_length", Some("length")),
        ("sensitive", Some("content_filter")),
        ("", Some("stop")),
    ] {
        let last = chunk(&format!("{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{raw}\"}}"));
        let (out, end) = play(&[&delta("{\"content\":\"x\"}"), &last, "[DONE]"]);
        let finishes: Vec<_> = said(&out)
            .iter()
            .filter_map(|c| c["choices"][0]["finish_reason"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(
            (finishes.first().map(String::as_str), finishes.len()),
            (want, 1),
            "{raw}: {out}"
        );
        assert_eq!(end, Ok(()));
    }
    let last = chunk("{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}");
    assert_eq!(play(&[&delta("{\"content\":\"x\"}"), &last]).1, Err(Fault::ErrorEvent));
}

#[test]
fn usage_follows_in_a_chunk_of_its_own_with_openais_sums() {
    let cases = [
        // Beside the finish.
        ("{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}", (3, 4, 0, 0)),
        // Reasoning beside the completion, cached at the top.
        (
            "{\"prompt_tokens\":12,\"completion_tokens\":2,\"total_tokens\":354,\"cached_tokens\":5,\"completion_tokens_details\":{\"reasoning_tokens\":340}}",
            (12, 342, 5, 340),
        ),
        // Audio beside the prompt.
        (
            "{\"prompt_tokens\":9,\"completion_tokens\":201,\"total_tokens\":585,\"prompt_tokens_details\":{\"audio_tokens\":375}}",
            (384, 201, 0, 0),
        ),
    ];
    for (usage, want) in cases {
        let last = chunk(STOP).replace("}]}", &format!("}}],\"usage\":{usage}}}"));
        let (out, _) = play(&[&delta("{\"content\":\"x\"}"), &last, "[DONE]"]);
        let chunks = said(&out);
        let told: Vec<_> = chunks.iter().filter(|c| c["usage"].is_object()).collect();
        assert_eq!(told.len(), 1, "{out}");
        assert_eq!(told[0]["choices"], serde_json::json!([]));
        let (usage, n) = (&told[0]["usage"], |v: &serde_json::Value| v.as_u64().unwrap());
        let got = (
            n(&usage["prompt_tokens"]),
            n(&usage["completion_tokens"]),
            n(&usage["prompt_tokens_details"]["cached_tokens"]),
            n(&usage["completion_tokens_details"]["reasoning_tokens"]),
        );
        assert_eq!(got, want);
    }
}

#[test]
fn a_stream_that_turns_loose_goes_on_where_it_was() {
    let call = "{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\"\"}}]}";
    let odd = "{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"arguments\":\":1}\"}}]}";
    let (out, _) =
        play(&[&delta("{\"role\":\"assistant\"}"), &delta(call), &delta(odd), &chunk(STOP)]);
    assert_eq!(out.matches("\"role\"").count(), 1, "{out}");
    assert_eq!(out.matches("\"name\":\"f\"").count(), 1, "{out}");
    let arguments: String = said(&out)
        .iter()
        .filter_map(|c| {
            let call = &c["choices"][0]["delta"]["tool_calls"][0];
            call["function"]["arguments"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(arguments, "{\"x\":1}");
    assert!(said(&out).iter().all(|c| c["id"] == "c" && c["model"] == "shown"), "{out}");
}

#[test]
fn whole_answers_are_mended_too() {
    let body = "{\"id\":\"\",\"choices\":[{\"index\":0,\"message\":{\"content\":null,\"reasoning\":\"Hm\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]},\"finish_reason\":\"stop\"}]}";
    let (mut adapter, mut told, mut out, mut events) =
        (Answer::default(), Told::default(), Buf::new(), 0);
    told.gather();
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    adapter.whole(body.as_bytes(), &mut sink).unwrap();
    let json: serde_json::Value = serde_json::from_slice(out.as_slice()).unwrap();
    let choice = &json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["reasoning_content"], "Hm");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(
        (&call["type"], &call["function"]["arguments"]),
        (&"function".into(), &"{\"x\":1}".into())
    );
    assert!(!call["id"].as_str().unwrap().is_empty());
    assert_eq!((&json["model"], &json["created"]), (&"shown".into(), &9.into()));
}

#[test]
fn counts_that_no_sum_can_hold_are_no_panic() {
    let most = u64::MAX;
    let usage = format!(
        "{{\"prompt_tokens\":{most},\"completion_tokens\":{most},\"total_tokens\":{most}}}"
    );
    let odd = delta("{\"reasoning\":\"r\"}");
    let counts = format!("{{\"choices\":[],\"usage\":{usage}}}");
    let (out, end) = play(&[&odd, &chunk(STOP), &counts, "[DONE]"]);
    assert_eq!(end, Ok(()));
    assert!(out.contains(&format!("\"prompt_tokens\":{most},")), "{out}");
}

#[test]
fn a_choice_that_neither_speaks_nor_ends_is_no_answer() {
    for (choice, answers) in [
        (r#"{"index":0,"messag":{"role":"assistant","content":"Hi"}}"#, false),
        (r#"{"index":0}"#, false),
        (r#"{"index":0,"message":{"role":"assistant","content":"Hi"}}"#, true),
        (r#"{"index":0,"finish_reason":"stop"}"#, true),
    ] {
        let body = format!(r#"{{"id":"c","model":"up","choices":[{choice}]}}"#);
        let (mut out, mut events, mut told) = (Buf::new(), 0, Told::default());
        told.gather();
        let mut sink = Sink {
            out: &mut out,
            shown: "m",
            events: &mut events,
            id: "r",
            seconds: 9,
            told: &mut told,
        };
        let mut adapter = Answer::default();
        adapter.whole(body.as_bytes(), &mut sink).unwrap();
        assert_eq!(adapter.has_answered(), answers, "{choice}");
        let written: serde_json::Value = serde_json::from_slice(out.as_slice()).unwrap();
        assert_eq!(written["choices"] != serde_json::json!([]), answers, "{written}");
    }
}

/// What a client of another dialect is told of payloads, or of one whole answer.
fn gathered(payloads: &[&str], whole: bool) -> (Vec<String>, Option<Usage>, Result<(), Fault>) {
    let (mut adapter, mut told) = (Answer::default(), Told::new(Dialect::Responses));
    if whole {
        told.gather();
    }
    let (mut out, mut events) = (Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    let end = payloads.iter().try_for_each(|payload| match whole {
        true => adapter.whole(payload.as_bytes(), &mut sink),
        false => adapter.feed(payload.as_bytes(), &mut sink).map(drop),
    });
    let end = if whole { end } else { end.and_then(|()| adapter.close(false, &mut sink)) };
    let text = |buf: &Buf| String::from_utf8(buf.as_slice().to_vec()).unwrap();
    let blocks = told.choices.iter().flat_map(|choice| &choice.blocks);
    let said = blocks.map(|block| match block {
        Block::Text { text: said, .. } => format!("text {}", text(said)),
        Block::Reason { text: said, signature: None } => format!("reason {}", text(said)),
        Block::Reason { text: said, signature: Some((family, proof)) } => {
            format!("reason {} by {family:?} {}", text(said), text(proof))
        }
        Block::Call(call) => {
            format!("call {} {} {}", text(&call.id), text(&call.name), text(&call.arguments))
        }
        Block::Refusal { text: said } => format!("refusal {}", text(said)),
        Block::Redacted { data } => format!("redacted {}", text(data)),
        Block::Image { mime, data } => format!("image {mime} {}", text(data)),
    });
    let said = said.collect();
    (said, told.usage(), end)
}

#[test]
fn another_dialect_is_told_what_chat_gets_as_it_came() {
    let call = "{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}";
    let counts = "{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}";
    let (said, usage, end) = gathered(
        &[
            &delta("{\"role\":\"assistant\",\"content\":\"\"}"),
            &delta("{\"reasoning_content\":\"Hm\"}"),
            &delta("{\"content\":\"hi \\u00fc\"}"),
            &delta(call),
            &chunk(&STOP.replace("stop", "tool_calls")),
            counts,
            "[DONE]",
        ],
        false,
    );
    assert_eq!(said, ["reason Hm", "text hi \\u00fc", "call a f {}"]);
    assert_eq!(end, Ok(()));
    let usage = usage.unwrap();
    assert_eq!((usage.prompt, usage.completion), (3, 4));
    let (_, _, cut) = gathered(&[&delta("{\"content\":\"x\"}")], false);
    assert_eq!(cut, Err(Fault::Truncated));
}

#[test]
fn another_dialect_is_told_a_whole_answer() {
    let body = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}";
    let (said, usage, end) = gathered(&[body], true);
    assert_eq!((said, end), (vec![String::from("text hi")], Ok(())));
    assert_eq!(usage.unwrap().completion, 4);
}

#[test]
fn signatures_hidden_thoughts_and_pictures_are_told() {
    let details = |rest: &str| format!("{{\"format\":\"anthropic-claude-v1\",\"index\":0,{rest}}}");
    let (one, two) = (
        details("\"type\":\"reasoning.text\",\"text\":\"Hm\""),
        details("\"type\":\"reasoning.text\",\"signature\":\"s+/=\""),
    );
    let hidden = details("\"type\":\"reasoning.encrypted\",\"data\":\"xx\"");
    let foreign =
        "{\"type\":\"reasoning.encrypted\",\"data\":\"no\",\"format\":\"xai-responses-v1\"}";
    let picture =
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image\\/png;base64,QUJD\"}}";
    let (said, _, end) = gathered(
        &[
            &delta(&format!("{{\"reasoning\":\"Hm\",\"reasoning_details\":[{one}]}}")),
            &delta(&format!("{{\"reasoning\":null,\"reasoning_details\":[{two}]}}")),
            &delta(&format!("{{\"content\":\"\",\"reasoning_details\":[{hidden},{foreign}]}}")),
            &delta(&format!("{{\"content\":\"see\",\"images\":[{picture},{{}}]}}")),
            &chunk(STOP),
        ],
        false,
    );
    assert_eq!(end, Ok(()));
    assert_eq!(
        said,
        ["reason Hm by Anthropic s+/=", "redacted xx", "text see", "image image/png QUJD"]
    );
    // A chat client gets the signed thought in the words that it may give back.
    let (out, _) = play(&[
        &delta(&format!("{{\"reasoning\":\"Hm\",\"reasoning_details\":[{one}]}}")),
        &delta(&format!("{{\"reasoning\":null,\"reasoning_details\":[{two}]}}")),
        &chunk(STOP),
    ]);
    let blocks = said_blocks(&out);
    assert_eq!(
        blocks,
        [serde_json::json!({ "type": "thinking", "thinking": "Hm", "signature": "s+/=" })]
    );
}

fn said_blocks(out: &str) -> Vec<serde_json::Value> {
    let chunks = said(out);
    let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["thinking_blocks"][0]);
    deltas.filter(|block| block.is_object()).cloned().collect()
}

#[test]
fn what_azure_filters_does_not_disturb() {
    let prompt = r#"{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}]}"#;
    let found = r#""content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}"#;
    let failed = r#""content_filter_result":{"error":{"code":"content_filter_error","message":"The contents are not filtered"}}"#;
    let text = |more: &str| {
        chunk(&format!(r#"{{"index":0,"delta":{{"content":"hi"}},"finish_reason":null,{more}}}"#))
    };
    let stop = chunk(&format!(r#"{{"index":0,"delta":{{}},"finish_reason":"stop",{found}}}"#));
    let late = format!(
        r#"{{"id":"","object":"","created":0,"model":"","choices":[{{"index":0,"finish_reason":null,{found},"content_filter_offsets":{{"check_offset":4}}}}]}}"#
    );
    let usage = r#"{"id":"c","object":"chat.completion.chunk","created":7,"model":"up","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#;
    for (case, payloads) in [
        ("at once", vec![prompt, &text(found), &text(failed), &stop, usage, "[DONE]"]),
        ("late", vec![prompt, &text(found), &text(failed), &late, &stop, &late, usage, "[DONE]"]),
    ] {
        let (out, end) = play(&payloads);
        assert_eq!(end, Ok(()), "{case}: {out}");
        let told = said(&out);
        for chunk in &told {
            let named = (&chunk["id"], &chunk["object"], &chunk["model"]);
            assert_eq!(
                named,
                (&"c".into(), &"chat.completion.chunk".into(), &"shown".into()),
                "{case}: {chunk}"
            );
        }
        let choices = told.iter().map(|chunk| &chunk["choices"][0]);
        let text: String = choices.clone().filter_map(|c| c["delta"]["content"].as_str()).collect();
        assert_eq!(text, "hihi", "{case}");
        let ends: Vec<_> = choices.filter_map(|c| c["finish_reason"].as_str()).collect();
        assert_eq!(ends, ["stop"], "{case}");
        let usages = told.iter().filter(|chunk| chunk["usage"]["total_tokens"] == 3).count();
        assert_eq!(usages, 1, "{case}: {out}");
        assert!(out.ends_with("data: [DONE]\n\n"), "{case}");
    }
}

#[test]
fn azures_errors_are_named() {
    let filtered = r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{}}}}"#;
    for (status, body, fault) in [
        (400, filtered, Fault::ContentPolicy),
        (401, r#"{"error":{"code":"401","message":"Access denied"}}"#, Fault::Credential),
        (
            404,
            r#"{"error":{"type":"invalid_request_error","code":"DeploymentNotFound","message":"m"}}"#,
            Fault::NotFound,
        ),
        (404, r#"{"error":{"code":"404","message":"Resource not found"}}"#, Fault::NotFound),
        (424, r#"{"error":{"code":"424","message":"filters are down"}}"#, Fault::Unavailable),
        (
            429,
            r#"{"error":{"code":"RateLimitReached","message":"Please retry after 26 seconds."}}"#,
            Fault::RateLimited,
        ),
    ] {
        let (body, surface) = (body.as_bytes(), crate::llm::request::Surface::Chat);
        let refusal = Refusal { status, body, surface, ..Refusal::default() };
        let refused = Answer::refuse(&refusal);
        assert_eq!(refused.failure.fault, fault, "{}", String::from_utf8_lossy(body));
        assert!(!refused.said.unwrap().message.is_empty());
    }
    // The same body inside a 200.
    let (_, end) = play(&[filtered]);
    assert_eq!(end, Err(Fault::ErrorEvent));
}
