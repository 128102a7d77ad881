//! Lines of Ollama, and what a chat client gets of them.

use serde_json::{Value as Tree, json};

use super::*;
use crate::llm::sink::Told;

fn play(lines: &[Tree], whole: bool) -> (String, Result<(), Fault>, Vec<Mark>) {
    let (mut adapter, mut told) = (Ollama::default(), Told::default());
    let (mut out, mut events, mut marks) = (Buf::new(), 0, Vec::new());
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
    let mut end = Ok(());
    for line in lines {
        let line = line.to_string();
        if whole {
            end = adapter.whole(line.as_bytes(), &mut sink);
            break;
        }
        match adapter.feed(line.as_bytes(), &mut sink) {
            Ok(mark) => marks.push(mark),
            Err(fault) => {
                assert!(
                    !adapter.said().unwrap_or_default().message.is_empty()
                        || fault == Fault::BadFrame
                );
                end = Err(fault);
                break;
            }
        }
    }
    if !whole {
        end = end.and_then(|()| adapter.close(true, &mut sink));
    }
    (String::from_utf8(out.as_slice().to_vec()).unwrap(), end, marks)
}

fn line(message: Tree) -> Tree {
    json!({ "model": "m", "message": message, "done": false })
}

fn done(reason: Option<&str>) -> Tree {
    let mut line = json!({ "message": { "content": "" }, "done": true,
        "prompt_eval_count": 9, "eval_count": 2 });
    if let Some(reason) = reason {
        line["done_reason"] = json!(reason);
    }
    line
}

#[test]
fn text_thoughts_and_counts() {
    let lines = [
        line(json!({ "role": "assistant", "content": "", "thinking": "hm" })),
        line(json!({ "content": "Hi \u{fc}" })),
        done(Some("stop")),
    ];
    let (out, end, marks) = play(&lines, false);
    assert_eq!((end, marks), (Ok(()), vec![Mark::Content, Mark::Content, Mark::End]));
    for said in [
        "{\"reasoning_content\":\"hm\"}",
        "{\"content\":\"Hi \u{fc}\"}",
        "\"stop\"",
        "\"prompt_tokens\":9",
        "\"completion_tokens\":2",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    assert!(out.ends_with("data: [DONE]\n\n"));
    let generated =
        [json!({ "response": "Hi", "done": false }), json!({ "response": "", "done": true })];
    let (out, end, _) = play(&generated, false);
    assert!(end.is_ok() && out.contains("{\"content\":\"Hi\"}"), "{out}");
}

#[test]
fn calls_are_whole_and_get_ids() {
    let call = |city: &str| json!({ "function": { "name": "f", "arguments": { "city": city } } });
    let calls = json!([call("Rom"), { "function": { "name": "g" } }, { "function": {} }]);
    let message = json!({ "content": "", "tool_calls": calls });
    let (out, end, _) = play(&[line(message.clone()), done(Some("stop"))], false);
    assert_eq!(end, Ok(()));
    assert!(out.contains("\"finish_reason\":\"tool_calls\""), "{out}");
    assert!(out.contains("call_req_0_0") && out.contains("call_req_0_1"), "{out}");
    let mut whole = done(None);
    whole["message"] = message;
    let (out, end, _) = play(&[whole], true);
    assert_eq!(end, Ok(()));
    let answer: Tree = serde_json::from_str(&out).unwrap();
    let calls = &answer["choices"][0]["message"]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], "{\"city\":\"Rom\"}");
    assert_eq!(calls[1]["function"]["arguments"], "{}");
    assert_eq!(calls.get(2), None);
}

#[test]
fn calls_of_newer_servers_and_several_lines() {
    let line_of = |call: Tree| line(json!({ "content": "", "tool_calls": [call] }));
    let (out, end, marks) = play(
        &[
            line_of(json!({ "id": "call_a", "function": { "index": 0, "name": "f",
                "arguments": { "x": "\"\n" } } })),
            line_of(json!({ "id": "call_b", "function": { "index": 1, "name": "g",
                "arguments": "{\"y\":1}" } })),
            done(Some("stop")),
        ],
        false,
    );
    assert_eq!((end, marks), (Ok(()), vec![Mark::Content, Mark::Content, Mark::End]));
    let (mut ids, mut arguments) = (Vec::new(), [String::new(), String::new()]);
    for data in out.split_terminator("\n\n").filter(|data| *data != "data: [DONE]") {
        let chunk: Tree = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
        ids.extend(call["id"].as_str().map(str::to_owned));
        if let Some(at) = call["index"].as_u64() {
            arguments[at as usize] += call["function"]["arguments"].as_str().unwrap();
        }
    }
    assert_eq!(ids, ["call_a", "call_b"]);
    let parsed = arguments.map(|text| serde_json::from_str::<Tree>(&text).unwrap());
    assert_eq!(parsed, [json!({ "x": "\"\n" }), json!({ "y": 1 })]);
    assert!(out.contains("\"finish_reason\":\"tool_calls\""), "{out}");
}

#[test]
fn calls_have_an_end() {
    let call = json!({ "function": { "name": "f" } });
    let many = |count| line(json!({ "content": "", "tool_calls": vec![call.clone(); count] }));
    assert_eq!(play(&[many(CHOICES_MAX), done(None)], false).1, Ok(()));
    assert_eq!(play(&[many(CHOICES_MAX), many(1)], false).1, Err(Fault::BadFrame));
}

#[test]
fn counts_of_zero_are_left_out() {
    for (counts, usage) in [
        (json!({ "prompt_eval_count": 9 }), Some((9, 0))),
        (json!({ "eval_count": 2 }), Some((0, 2))),
        (json!({}), None),
    ] {
        let mut last = counts.clone();
        last["done"] = json!(true);
        let (out, end, _) = play(&[last], false);
        assert_eq!(end, Ok(()));
        match usage {
            None => assert!(!out.contains("usage"), "{out}"),
            Some((prompt, completion)) => {
                let said =
                    format!("\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},");
                assert!(out.contains(&said), "{counts}: {out}");
            }
        }
    }
}

#[test]
fn an_empty_line_says_nothing() {
    let (mut adapter, mut told, mut out, mut events) =
        (Ollama::default(), Told::default(), Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    assert_eq!(adapter.feed(b"", &mut sink), Ok(Mark::Idle));
    assert_eq!(adapter.feed(b"{", &mut sink), Err(Fault::BadFrame));
    assert_eq!(adapter.feed(b"{\"done\":true}", &mut sink), Ok(Mark::End));
}

#[test]
fn ends_are_told_apart() {
    for (reason, finish) in [(Some("stop"), "stop"), (Some("length"), "length"), (None, "stop")] {
        let (out, end, _) = play(&[line(json!({ "content": "x" })), done(reason)], false);
        assert_eq!(end, Ok(()));
        assert!(out.contains(&format!("\"finish_reason\":\"{finish}\"")), "{reason:?}: {out}");
    }
    let text = line(json!({ "content": "x" }));
    assert_eq!(play(std::slice::from_ref(&text), false).1, Err(Fault::Truncated));
    let error = json!({ "error": "an error was encountered" });
    assert_eq!(play(&[text.clone(), error], false).1, Err(Fault::ErrorEvent));
    assert_eq!(play(&[json!([])], false).1, Err(Fault::BadFrame));
    assert_eq!(play(&[text], true).1, Err(Fault::Truncated), "a whole answer is done");
}

#[test]
fn refusals_are_told_apart() {
    for (status, fault) in
        [(404, Fault::NotFound), (429, Fault::RateLimited), (503, Fault::Unavailable)]
    {
        let body = b"{\"error\":\"model 'x' not found\"}";
        let surface = crate::llm::request::Surface::Chat;
        let refused = Ollama::refuse(&Refusal {
            status,
            retry_after: None,
            body,
            surface,
            ..Refusal::default()
        });
        assert_eq!(refused.failure.fault, fault, "{status}");
        assert_eq!(refused.said.unwrap().message, "model 'x' not found");
    }
    let body = b"{\"error\":\"prompt too long; exceeded max context length by 7 tokens\"}";
    let surface = crate::llm::request::Surface::Chat;
    let refused = Ollama::refuse(&Refusal {
        status: 400,
        retry_after: None,
        body,
        surface,
        ..Refusal::default()
    });
    assert_eq!(refused.failure.fault, Fault::Context);
}

#[test]
fn counts_that_no_sum_can_hold_are_no_panic() {
    let mut line = done(Some("stop"));
    line["prompt_eval_count"] = json!(u64::MAX);
    line["eval_count"] = json!(u64::MAX);
    let (out, end, _) = play(&[line], false);
    assert_eq!(end, Ok(()));
    assert!(out.contains(&format!("\"total_tokens\":{}", u64::MAX)), "{out}");
}

#[test]
fn what_a_model_can_not_do_is_asked_of_another() {
    for message in ["\"x\" does not support thinking", "registry/x does not support tools"] {
        let body = json!({ "error": message }).to_string();
        let (surface, body) = (Surface::Chat, body.as_bytes());
        let refused = Ollama::refuse(&Refusal { status: 400, body, surface, ..Refusal::default() });
        assert_eq!(refused.failure.fault, Fault::Unsendable, "{message}");
    }
}

#[test]
fn a_request_goes_to_the_server_however_the_base_is_written() {
    let send = |surface: Surface, path: &str, at: &str, key: Option<&str>, body: &str| {
        let mut ask = Ask::read(surface, body.as_bytes()).unwrap();
        (ask.envelope.method, ask.envelope.path) = ("POST", at.to_owned().into());
        let key = key.map(crate::base::secret::Secret::new);
        let site = Site {
            authority: "host:1",
            path,
            key: key.as_ref(),
            model: "qwen3",
            ..Site::default()
        };
        let mut out = Buf::new();
        Ollama::send(&ask, body.as_bytes(), &site, UnixMs(0), &mut out)?;
        Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
    };
    let body = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    // A stream is what comes unless it is not wanted.
    let told = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"model\":\"qwen3\",\"stream\":false}";
    for (path, root) in [("", ""), ("/api", ""), ("/v1", ""), ("/proxy/api", "/proxy")] {
        let out = send(Surface::Chat, path, "/chat/completions", None, body).unwrap();
        assert!(out.starts_with(&format!("POST {root}/api/chat HTTP/1.1\r\n")), "{out}");
        assert!(out.contains("accept: application/json\r\n"), "{out}");
        assert!(!out.contains("authorization"), "{out}");
        assert!(out.ends_with(&format!("\r\n\r\n{told}")), "{out}");
    }
    let stream = body.replace("{\"model\"", "{\"stream\":true,\"model\"");
    let out = send(Surface::Chat, "", "/chat/completions", Some("key"), &stream).unwrap();
    assert!(out.contains("authorization: Bearer key\r\n"), "{out}");
    assert!(out.contains("accept: application/x-ndjson\r\n"), "{out}");
    assert!(out.ends_with("\"stream\":true}"), "{out}");
    let body = "{\"model\":\"m\",\"prompt\":\"a cat\"}";
    let out = send(Surface::Other, "/api", "/images/generations", None, body).unwrap();
    assert!(out.starts_with("POST /v1/images/generations HTTP/1.1\r\n"), "{out}");
    let body = "{\"model\":\"m\",\"input\":\"x\"}";
    assert_eq!(send(Surface::Embeddings, "", "/embeddings", None, body), Err(Fault::Unsendable));
}
