//! Requests as they leave: by key, and under a signature that is computed again from what was sent.

use super::*;
use crate::base::secret::{AwsKeys, Secret};
use crate::llm::providers::{Kind, Stream};
use crate::llm::request::Surface;
use serde_json::json;

const WALL: UnixMs = UnixMs(1_709_251_199_000);
const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;

fn keys(token: Option<&str>) -> AwsKeys {
    AwsKeys {
        access_key: Secret::new("AKID"),
        secret_key: Secret::new("very-secret"),
        session_token: token.map(Secret::new),
        region: String::from("eu-west-1"),
    }
}

/// What goes out: its head, and its body.
fn sent(kind: Kind, site: &Site<'_>, stream: bool, body: &[u8]) -> Result<(String, Value), Fault> {
    let mut ask = Ask::read(Surface::Chat, body).unwrap();
    ask.stream = stream;
    ask.envelope.method = "POST";
    for (name, value) in
        [("openai-beta", "x"), ("anthropic-beta", "one-2025, two-2025"), ("traceparent", "00-1")]
    {
        ask.envelope.fields.push((name, value.as_bytes().to_vec()));
    }
    let mut out = Buf::new();
    Stream::new(kind).send(&ask, body, site, WALL, &mut out)?;
    let text = String::from_utf8(out.as_slice().to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
    Ok((head.to_owned(), serde_json::from_str(body).unwrap()))
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const CLAUDE: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

#[test]
fn a_request_by_key_has_its_head_and_body() {
    let key = Secret::new("bearer-key");
    let site = Site {
        authority: "host:1",
        path: "/base",
        key: Some(&key),
        model: CLAUDE,
        ..Site::default()
    };
    let path = "/base/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
    for (kind, stream, operation) in [
        (Kind::Bedrock, false, "converse"),
        (Kind::Bedrock, true, "converse-stream"),
        (Kind::BedrockInvoke, false, "invoke"),
        (Kind::BedrockInvoke, true, "invoke-with-response-stream"),
    ] {
        let (head, body) = sent(kind, &site, stream, BODY).unwrap();
        let accept = if stream { "application/vnd.amazon.eventstream" } else { "application/json" };
        let expected = format!(
            "POST {path}/{operation} HTTP/1.1\r\nhost: host:1\r\ncontent-type: application/json\r\n\
             authorization: Bearer bearer-key\r\naccept: {accept}\r\naccept-encoding: identity\r\n\
             user-agent: {USER_AGENT}\r\ntraceparent: 00-1\r\ncontent-length: "
        );
        assert!(head.starts_with(&expected), "{head}");
        let betas = json!(["one-2025", "two-2025"]);
        let said = match kind {
            Kind::Bedrock => json!({
                "messages": [{ "role": "user", "content": [{ "text": "Hi" }] }],
                "additionalModelRequestFields": { "anthropic_beta": betas },
            }),
            _ => json!({
                "max_tokens": 4096,
                "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Hi" }] }],
                "anthropic_version": "bedrock-2023-05-31",
                "anthropic_beta": betas,
            }),
        };
        assert_eq!(body, said);
    }
}

#[test]
fn a_signature_verifies_by_what_was_sent() {
    let arn = "arn:aws:bedrock:eu-west-1:0:inference-profile/anthropic.claude-x";
    for (model, base, token) in
        [(CLAUDE, "", None), (CLAUDE, "/base", Some("aws-token==")), (arn, "", None)]
    {
        let keys = keys(token);
        let site =
            Site { authority: "host:1", path: base, aws: Some(&keys), model, ..Site::default() };
        for kind in [Kind::Bedrock, Kind::BedrockInvoke] {
            let mut ask = Ask::read(Surface::Chat, BODY).unwrap();
            ask.stream = true;
            let mut out = Buf::new();
            Stream::new(kind).send(&ask, BODY, &site, WALL, &mut out).unwrap();
            let text = String::from_utf8(out.as_slice().to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let path = head.split(' ').nth(1).unwrap();
            assert_eq!(path.matches('/').count(), 3 + usize::from(!base.is_empty()), "{path}");
            let authorization = field(head, "authorization").unwrap();
            let names = authorization.split_once("SignedHeaders=").unwrap().1;
            let names = names.split_once(',').unwrap().0;
            // The service takes every field that is named from the request itself.
            let fields: Vec<(&str, &[u8])> = names
                .split(';')
                .filter(|name| !name.starts_with("x-amz-"))
                .map(|name| (name, field(head, name).unwrap().as_bytes()))
                .collect();
            assert_eq!(fields.len(), 2);
            let request = sign::Request {
                method: "POST",
                path,
                query: "",
                fields: &fields,
                body: body.as_bytes(),
            };
            let scope = Scope { region: "eu-west-1", service: "bedrock", wall: WALL };
            let again = sign::sign(&request, &keys, &scope);
            assert_eq!(authorization, again.authorization);
            assert_eq!(field(head, "x-amz-date"), Some("20240229T235959Z"));
            assert_eq!(field(head, "x-amz-security-token"), token);
            assert!(!head.contains("very-secret") && !head.contains("Bearer"), "{head}");
        }
    }
}

#[test]
fn what_can_not_be_said_is_not_sent() {
    let key = Secret::new("k");
    let site = |model| Site { authority: "h", path: "", key: Some(&key), model, ..Site::default() };
    let invoke = |model, body: &Value| {
        sent(Kind::BedrockInvoke, &site(model), true, body.to_string().as_bytes())
    };
    let plain: Value = serde_json::from_slice(BODY).unwrap();
    for model in ["amazon.nova-lite-v1:0", "meta.llama3-3-70b-instruct-v1:0"] {
        assert_eq!(invoke(model, &plain).err(), Some(Fault::Unsendable), "{model}");
    }
    let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
    let user =
        |part: Value| json!({ "model": "m", "messages": [{ "role": "user", "content": [part] }] });
    assert_eq!(invoke(CLAUDE, &user(image("https://x/y.png"))).err(), Some(Fault::Unsendable));
    assert!(invoke(CLAUDE, &user(image("data:image/png;base64,QUJD"))).is_ok());
    // Tiers are of the vendor's own API, and stand in a field there.
    let mut tier = plain.clone();
    tier["service_tier"] = json!("auto");
    assert!(invoke(CLAUDE, &tier).unwrap().1.get("service_tier").is_none());
    let broken = Secret::new("a\r\nb: c");
    let site =
        Site { authority: "h", path: "", key: Some(&broken), model: CLAUDE, ..Site::default() };
    assert_eq!(sent(Kind::Bedrock, &site, true, BODY).err(), Some(Fault::Unsendable));
    let ask = Ask { surface: Surface::Embeddings, ..Ask::default() };
    for kind in [Kind::Bedrock, Kind::BedrockInvoke] {
        let mut out = Buf::new();
        let sent = Stream::new(kind).send(&ask, BODY, &site, WALL, &mut out);
        assert_eq!((sent, out.is_empty()), (Err(Fault::Unsendable), true));
    }
}

#[test]
fn features_in_trial_are_for_claude_alone() {
    let key = Secret::new("k");
    let site = Site {
        authority: "h",
        path: "",
        key: Some(&key),
        model: "amazon.nova-lite-v1:0",
        ..Site::default()
    };
    let (_, body) = sent(Kind::Bedrock, &site, true, BODY).unwrap();
    assert!(body.get("additionalModelRequestFields").is_none(), "{body}");
}
