//! OpenAI's shapes in detail, since most of the other tests lean on them.

use serde_json::{Value, json};

use super::super::*;
use crate::app::sandbox::script::Script;

fn answer(api: Api, script: &str) -> Answer {
    Answer {
        name: "b".into(),
        id: "sandbox-b-1".into(),
        created: 7,
        ask: Ask {
            api,
            model: script.into(),
            stream: true,
            usage: true,
            n: 1,
            tools: vec!["look".into()],
            inputs: vec!["one".into(), "two".into()],
            base64: false,
            prompt_tokens: 3,
        },
        script: Script::parse(script).expect("a script"),
        stretch: None,
    }
}

fn refused(status: u16, named: Named) -> String {
    let problem = Problem { status, named, message: None, param: None, name: "b" };
    openai::PLAIN.refuse(&problem).body
}

fn events(answer: &Answer) -> Vec<Value> {
    let mut out = Events::default();
    for piece in (0..).map_while(|k| answer.piece(k)) {
        openai::PLAIN.tell(answer, piece, &mut out);
    }
    assert_eq!(out.list.len(), answer.pieces() as usize);
    let event = |event: &Event| match event.data.as_str() {
        "[DONE]" => json!("[DONE]"),
        text => serde_json::from_str(text).expect("JSON"),
    };
    out.list.iter().map(event).collect()
}

fn said(events: &[Value], pointer: &str) -> String {
    events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
}

#[test]
fn a_stream_has_the_vendors_order() {
    let found = events(&answer(Api::Chat, "ok,tokens=3"));
    assert_eq!(found.len(), 1 + 3 + 1 + 1 + 1);
    assert_eq!(found[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(said(&found, "/choices/0/delta/content"), crate::app::sandbox::answer::text("b", 3));
    assert_eq!(crate::app::sandbox::answer::text("b", 3), "Hello from sandbox b. token-1 token-2");
    assert_eq!(found[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(found[3]["usage"], Value::Null);
    assert_eq!((&found[5]["choices"], &found[5]["usage"]["total_tokens"]), (&json!([]), &json!(6)));
    assert_eq!(found[6], "[DONE]");
}

#[test]
fn usage_comes_only_if_asked_for() {
    let mut answer = answer(Api::Chat, "ok");
    answer.ask.usage = false;
    assert!(events(&answer).iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn ends_can_be_left_out() {
    let without_done = events(&answer(Api::Chat, "no_done"));
    assert!(without_done.last().expect("events")["usage"].is_object());
    let without_finish = events(&answer(Api::Chat, "no_finish"));
    let last = &without_finish.last().expect("events")["choices"][0];
    assert_eq!(
        (&last["finish_reason"], &last["delta"]["content"]),
        (&Value::Null, &json!(" token-7"))
    );
}

#[test]
fn choices_interleave_and_each_finishes_once() {
    let mut answer = answer(Api::Chat, "ok,tokens=2");
    answer.ask.n = 3;
    let found = events(&answer);
    let finishes: Vec<_> = found
        .iter()
        .filter(|event| event["choices"][0]["finish_reason"].is_string())
        .map(|event| event["choices"][0]["index"].as_u64())
        .collect();
    assert_eq!(finishes, [Some(0), Some(1), Some(2)]);
}

#[test]
fn tool_calls_come_in_fragments_that_join_to_json() {
    let answer = answer(Api::Chat, "tools=2,reasoning=1");
    let found = events(&answer);
    for call in 0..2 {
        let of_call: Vec<_> = found
            .iter()
            .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0"))
            .filter(|part| part["index"] == call)
            .cloned()
            .collect();
        assert_eq!(of_call[0]["function"]["name"], "look");
        let joined = said(&of_call, "/function/arguments");
        let arguments: Value = serde_json::from_str(&joined).expect("JSON");
        assert_eq!(arguments, json!({"from": "sandbox b", "call": call}));
    }
    assert_eq!(said(&found, "/choices/0/finish_reason"), "tool_calls");
    assert_eq!(said(&found, "/choices/0/delta/reasoning_content"), "thought-0 ");
    let whole: Value = serde_json::from_str(&openai::PLAIN.whole(&answer)).expect("JSON");
    assert_eq!(whole["choices"][0]["message"]["tool_calls"].as_array().map(Vec::len), Some(2));
}

#[test]
fn whole_answers_have_the_vendors_shape() {
    let whole = |call, script| -> Value {
        serde_json::from_str(&openai::PLAIN.whole(&answer(call, script))).expect("JSON")
    };
    let chat = whole(Api::Chat, "ok,text=two words");
    assert_eq!(chat["choices"][0]["message"]["content"], "two words");
    let big = whole(Api::Chat, "big=4KiB");
    assert_eq!(big["choices"][0]["message"]["content"].as_str().map(str::len), Some(4096));
    let text = whole(Api::Completions, "ok,tokens=1");
    assert_eq!(text["choices"][0]["text"], "Hello from sandbox b.");
    assert_eq!(
        whole(Api::Embeddings, "ok")["data"][1]["embedding"].as_array().map(Vec::len),
        Some(8)
    );
    assert_eq!(whole(Api::Models, "ok")["data"][0]["id"], "ok");
    assert_eq!(whole(Api::Echo, "ok")["provider"], "sandbox b");
}

#[test]
fn errors_are_objects_that_name_the_provider() {
    for status in 400..=599 {
        let object: Value = serde_json::from_str(&refused(status, Named::ByStatus)).expect("JSON");
        let message = object["error"]["message"].as_str().expect("a message");
        assert!(message.ends_with("(sandbox b)"), "{message}");
    }
    assert!(refused(400, Named::ContextLength).contains("context_length_exceeded"));
}
