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
    ask.envelope.path = Cow::from(match surface {
        Surface::Embeddings => "/embeddings",
        Surface::Messages => "/messages",
        _ => "/chat/completions",
    });
    ask.envelope.fields.push(("anthropic-beta", b"x".to_vec()));
    ask.envelope.fields.push(("traceparent", b"00-1".to_vec()));
    let key = Secret::new("key");
    let site = Site { authority: "host:1", path: "/v1", key: Some(&key), model, ..Site::default() };
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

#[test]
fn a_messages_clients_request_goes_to_the_path_of_chat() {
    let body = r#"{"model":"m","max_tokens":9,"stream":true,"top_k":4,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],
        "messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]}"#;
    let out = sent("groq", Surface::Messages, "up", body).unwrap();
    let (head, body) = out.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(!head.contains("anthropic") && head.contains("accept: text/event-stream"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        json!({ "model": "up", "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 9,
            "messages": [{ "role": "system", "content": "s" }, { "role": "user", "content": "hi" }] })
    );
}

/// The head of what is sent to `model`, and the body.
fn azure(version: Option<&str>, model: &str, path: &str) -> Result<(String, String), Fault> {
    let body = br#"{"model":"gpt","messages":[]}"#;
    let mut ask = Ask::read(crate::llm::request::Surface::Chat, body).unwrap();
    ask.envelope.method = "POST";
    ask.envelope.path = path.to_owned().into();
    let key = crate::base::secret::Secret::new("k1");
    let path = if version.is_some() { "/openai" } else { "/openai/v1" };
    let (authority, badge) = ("r.openai.azure.com", Badge::ApiKey);
    let site = Site {
        authority,
        path,
        key: Some(&key),
        badge,
        api_version: version,
        model,
        ..Site::default()
    };
    let mut out = Buf::new();
    let azure = Openai::of(vendors::VendorId::AZURE.row());
    azure.send_as(&ask, body, &site, UnixMs(0), &mut out)?;
    let sent = String::from_utf8(out.as_slice().to_vec()).unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    Ok((head.to_owned(), body.to_owned()))
}

#[test]
fn azure_is_addressed_by_deployment_or_by_its_first_version() {
    let dated = Some("2024-10-21");
    for (version, model, path, want) in [
        (
            dated,
            "prod",
            "/chat/completions",
            "/openai/deployments/prod/chat/completions?api-version=2024-10-21",
        ),
        (
            dated,
            "prod",
            "/embeddings?x=1",
            "/openai/deployments/prod/embeddings?x=1&api-version=2024-10-21",
        ),
        (dated, "", "/models", "/openai/models?api-version=2024-10-21"),
        (None, "prod", "/chat/completions", "/openai/v1/chat/completions"),
    ] {
        let (head, body) = azure(version, model, path).unwrap();
        assert!(head.starts_with(&format!("POST {want} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains("\r\nhost: r.openai.azure.com\r\napi-key: k1\r\n"), "{head}");
        assert!(!head.contains("authorization"), "{head}");
        assert_eq!(body, format!("{{\"model\":\"{model}\",\"messages\":[]}}"));
    }
    // The client may have chosen the name.
    for model in ["../x", "a/b", "a?b", "a#b", "a%2fb", ".."] {
        assert_eq!(azure(dated, model, "/chat/completions").unwrap_err(), Fault::Unsendable);
    }
}

#[test]
fn azure_is_the_last_row() {
    assert_eq!(vendors::VendorId::AZURE.row().name, "azure");
}
