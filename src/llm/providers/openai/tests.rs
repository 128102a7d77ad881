//! Requests as they go out: a chat client's with the vendor's edits, another dialect's written anew.

use serde_json::{Value, json};

use super::vendors::TABLE;
use super::*;
use crate::base::secret::Secret;
use crate::llm::dialects::chat_prompt;

fn vendor(name: &str) -> &'static Vendor {
    TABLE.iter().find(|row| row.name == name).unwrap_or(OPENAI)
}

fn sent(name: &str, surface: Surface, model: &str, body: &str) -> Result<String, Fault> {
    let mut ask = Ask::read(surface, body.as_bytes()).unwrap();
    ask.envelope.method = "POST";
    ask.envelope.path = String::from(match surface {
        Surface::Embeddings => "/embeddings",
        _ => "/chat/completions",
    });
    ask.envelope.fields.push(("anthropic-beta", b"x".to_vec()));
    ask.envelope.fields.push(("traceparent", b"00-1".to_vec()));
    let key = Secret::new("key");
    let site = Site { authority: "host:1", path: "/v1", key: Some(&key), model };
    let mut out = Buf::new();
    Openai::of(vendor(name)).send_as(&ask, body.as_bytes(), &site, UnixMs(0), &mut out)?;
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

const BODY: &str = r#"{"model":"m", "logit_bias":{"1":2},"stream":true,"messages":[{"role":"user","content":"Hi"}], "odd":[1]}"#;

#[test]
fn a_chat_request_keeps_its_bytes_but_for_the_vendors_edits() {
    let body =
        r#"{"model":"up", "stream":true,"messages":[{"role":"user","content":"Hi"}], "odd":[1]}"#;
    let expected = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: host:1\r\nauthorization: Bearer key\r\n\
         accept-encoding: identity\r\nuser-agent: firstbyte/{}\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ntraceparent: 00-1\r\ncontent-length: {}\r\n\r\n{body}",
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    assert_eq!(sent("groq", Surface::Chat, "up", BODY), Ok(expected));
    let as_it_came = BODY.replace("\"m\"", "\"up\"");
    for (vendor, model) in [("openai", "up"), ("openrouter", "up")] {
        let out = sent(vendor, Surface::Chat, model, BODY).unwrap();
        assert!(out.ends_with(&format!("\r\n\r\n{as_it_came}")), "{vendor}: {out}");
    }
    let two = BODY.replace("\"odd\":[1]", "\"n\":2");
    assert_eq!(sent("groq", Surface::Chat, "up", &two), Err(Fault::Unsendable));
}

#[test]
fn other_surfaces_know_no_quirks() {
    let body = r#"{"model":"m","input":"x","logit_bias":{}}"#;
    let out = sent("groq", Surface::Embeddings, "up", body).unwrap();
    assert!(out.ends_with(r#"{"model":"up","input":"x","logit_bias":{}}"#), "{out}");
}

/// What a vendor gets of another dialect's request with this meaning.
fn translated(name: &str, model: &str, stream: bool, chat: Value) -> Result<Value, Fault> {
    let vendor = vendor(name);
    let body = written(vendor, chat_prompt::read(&chat).unwrap(), stream, model)?;
    let edits = quirks::fit(&body, vendor.rules(true), model)?;
    let mut out = Buf::new();
    write_edited(&edits, &body, model, &mut out);
    Ok(serde_json::from_slice(out.as_slice()).unwrap())
}

#[test]
fn another_dialects_request_fits_its_vendor() {
    let marked =
        json!([{ "type": "text", "text": "hi", "cache_control": { "type": "ephemeral" } }]);
    let chat = json!({
        "messages": [
            { "role": "user", "content": marked },
            { "role": "assistant", "content": "x", "reasoning_content": "hm" },
            { "role": "user", "content": "so?" },
        ],
        "max_tokens": 9, "top_k": 4, "temperature": 0.5, "metadata": { "a": "b" }, "reasoning_effort": "high",
    });
    let said = |thought: Value| {
        let mut said = json!({ "role": "assistant", "content": "x" });
        for (name, value) in thought.as_object().into_iter().flatten() {
            said[name] = value.clone();
        }
        json!([{ "role": "user", "content": "hi" }, said, { "role": "user", "content": "so?" }])
    };
    let hm = json!({ "reasoning_content": "hm" });
    for (vendor, model, want) in [
        (
            "openai",
            "gpt-4o",
            json!({ "messages": said(json!({})), "max_tokens": 9, "temperature": 0.5, "model": "gpt-4o" }),
        ),
        (
            "openai",
            "gpt-5",
            json!({ "messages": said(json!({})), "max_completion_tokens": 9, "reasoning_effort": "high", "model": "gpt-5" }),
        ),
        (
            "groq",
            "llama",
            json!({ "messages": said(json!({ "reasoning": "hm" })), "max_tokens": 9, "temperature": 0.5, "model": "llama" }),
        ),
        (
            "deepseek",
            "d",
            json!({ "messages": said(hm.clone()), "max_tokens": 9, "top_k": 4, "temperature": 0.5,
                "metadata": { "a": "b" }, "reasoning_effort": "high", "model": "d" }),
        ),
    ] {
        let got = translated(vendor, model, false, chat.clone());
        assert_eq!(got, Ok(want), "{vendor} {model}");
    }
    let kept = translated("openrouter", "m", false, chat).unwrap();
    assert_eq!(kept["messages"][0]["content"], marked);
}

#[test]
fn counts_are_asked_for_since_other_dialects_tell_them() {
    let chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let body = translated("openai", "m", true, chat.clone()).unwrap();
    assert_eq!(
        (&body["stream"], &body["stream_options"]),
        (&json!(true), &json!({ "include_usage": true }))
    );
    let body = translated("openai", "m", false, chat).unwrap();
    assert!(body.get("stream").is_none() && body.get("stream_options").is_none(), "{body}");
}

#[test]
fn what_a_vendor_can_not_do_is_not_sent() {
    let stops = |count: usize| {
        let stops: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        json!({ "messages": [{ "role": "user", "content": "hi" }], "stop": stops })
    };
    for (vendor, model, count, fits) in [
        ("openai", "gpt-4o", 4, true),
        ("openai", "gpt-4o", 5, false),
        ("openai", "o3", 1, false),
        ("deepseek", "m", 16, true),
        ("deepseek", "m", 17, false),
        ("vllm", "m", 17, true),
    ] {
        assert_eq!(
            translated(vendor, model, false, stops(count)).is_ok(),
            fits,
            "{vendor} {count}"
        );
    }
}
