use serde_json::json;

use super::*;
use crate::base::secret::Secret;
use crate::llm::sink::Told;

fn sent(surface: Surface, path: &str, at: &str, body: &str) -> Result<String, Fault> {
    let mut ask = Ask::read(surface, body.as_bytes()).unwrap();
    (ask.envelope.method, ask.envelope.path) = ("POST", at.to_owned().into());
    let key = Secret::new("key");
    let site = Site {
        authority: "host:1",
        path,
        key: Some(&key),
        model: "mistral-large-latest",
        ..Site::default()
    };
    let mut out = Buf::new();
    Mistral::send(&ask, body.as_bytes(), &site, UnixMs(0), &mut out)?;
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

#[test]
fn a_request_goes_to_its_path_however_the_base_is_written() {
    let body = "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"seed\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    let told = json!({ "messages": [{ "role": "user", "content": "Hi" }], "random_seed": 1, "model": "mistral-large-latest", "stream": true });
    for (path, root) in [("", ""), ("/v1", ""), ("/proxy/v1", "/proxy")] {
        let out = sent(Surface::Chat, path, "/chat/completions", body).unwrap();
        assert!(out.starts_with(&format!("POST {root}/v1/chat/completions HTTP/1.1\r\n")), "{out}");
        assert!(out.contains("authorization: Bearer key\r\n"), "{out}");
        let (_, got) = out.split_once("\r\n\r\n").unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(got).unwrap(), told);
    }
    let body = "{\"model\":\"m\",\"input\":\"x\",\"encoding_format\":\"float\"}";
    let out = sent(Surface::Embeddings, "/v1", "/embeddings", body).unwrap();
    assert!(out.starts_with("POST /v1/embeddings HTTP/1.1\r\n"), "{out}");
    assert!(out.ends_with(&body.replace("\"m\"", "\"mistral-large-latest\"")), "{out}");
    let body = "{\"model\":\"m\",\"prompt\":\"x\"}";
    assert_eq!(sent(Surface::Completions, "/v1", "/completions", body), Err(Fault::Unsendable));
}

#[test]
fn refusals_are_told_apart() {
    let error = |message: serde_json::Value, code: &str| json!({ "object": "error", "message": message, "type": "t", "param": null, "code": code });
    let wrong = json!({ "detail": [{ "loc": ["body", "x"], "msg": "no" }] });
    let long = "Prompt contains 9 tokens and 0 draft tokens, too large for model with 8 maximum context length";
    for (status, body, fault, message) in [
        (401, json!({ "detail": "Invalid API Key" }), Fault::Credential, "Invalid API Key"),
        (
            401,
            json!({ "message": "Unauthorized", "request_id": "r" }),
            Fault::Credential,
            "Unauthorized",
        ),
        (400, error(json!("Invalid model: x"), "1500"), Fault::NotFound, "Invalid model: x"),
        (400, error(json!("no"), "3051"), Fault::Client, "no"),
        (400, error(json!(long), "3051"), Fault::Context, long),
        (
            422,
            error(wrong.clone(), "x"),
            Fault::Client,
            "{\"detail\":[{\"loc\":[\"body\",\"x\"],\"msg\":\"no\"}]}",
        ),
        (422, json!({ "detail": [{ "msg": "no" }] }), Fault::Client, "[{\"msg\":\"no\"}]"),
        (
            429,
            error(json!("Requests rate limit exceeded"), "1300"),
            Fault::RateLimited,
            "Requests rate limit exceeded",
        ),
        (
            429,
            error(json!("Service tier capacity exceeded"), "3505"),
            Fault::RateLimited,
            "Service tier capacity exceeded",
        ),
        (503, error(json!("down"), "x"), Fault::Unavailable, "down"),
        (520, json!({}), Fault::Unavailable, ""),
    ] {
        let bytes = body.to_string().into_bytes();
        let surface = Surface::Chat;
        let refused =
            Mistral::refuse(&Refusal { status, body: &bytes, surface, ..Refusal::default() });
        assert_eq!(refused.failure.fault, fault, "{body}");
        assert_eq!(refused.said.unwrap().message, message, "{body}");
    }
    let body = b"<html>";
    let refusal = Refusal { status: 502, body, surface: Surface::Chat, ..Refusal::default() };
    assert_eq!(Mistral::refuse(&refusal).said, None);
}

#[test]
fn thoughts_among_the_content_are_told_as_such() {
    let chunk = |delta: serde_json::Value, finish: serde_json::Value| {
        json!({ "id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "up",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
    };
    let thinking = json!({ "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }], "closed": true });
    let both = json!([thinking, { "type": "text", "text": "Hi" }]);
    let cited =
        json!([{ "type": "text", "text": "!" }, { "type": "reference", "reference_ids": [1] }]);
    let mut last = chunk(json!({ "content": "" }), json!("model_length"));
    last["usage"] = json!({ "prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7 });
    let (mut adapter, mut told) = (Mistral::default(), Told::default());
    let (mut out, mut events) = (Buf::new(), 0);
    let mut sink = Sink {
        out: &mut out,
        shown: "shown",
        events: &mut events,
        id: "req",
        seconds: 9,
        told: &mut told,
    };
    let first = chunk(json!({ "role": "assistant", "content": "" }), json!(null));
    let marks = [
        (first, Mark::Event),
        (chunk(json!({ "content": both }), json!(null)), Mark::Content),
        (chunk(json!({ "content": cited }), json!(null)), Mark::Content),
        (last, Mark::Content),
    ];
    for (chunk, mark) in marks {
        assert_eq!(adapter.feed(chunk.to_string().as_bytes(), &mut sink), Ok(mark), "{chunk}");
    }
    assert!(adapter.is_finished());
    adapter.close(true, &mut sink).unwrap();
    assert_eq!(adapter.usage().map(|usage| usage.prompt + usage.completion), Some(7));
    let out = String::from_utf8(out.as_slice().to_vec()).unwrap();
    for piece in [
        "\"reasoning_content\":\"hm\"",
        "\"content\":\"Hi\"",
        "\"content\":\"!\"",
        "\"length\"",
        "[DONE]",
    ] {
        assert!(out.contains(piece), "{piece}: {out}");
    }
}
