//! Lines of Ollama, and what a chat client gets of them.

use serde_json::{Value as Tree, json};

use super::*;
use crate::base::buf::Buf;
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
        let refused = Ollama::refuse(&Refusal { status, retry_after: None, body, surface });
        assert_eq!(refused.failure.fault, fault, "{status}");
        assert_eq!(refused.said.unwrap().message, "model 'x' not found");
    }
}
