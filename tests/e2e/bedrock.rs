//! A chat client and a Bedrock behind the gateway: signed requests, answers in binary messages, fallback
//! before the commit point and a told end after it.

use std::slice;

use firstbyte::base::secret::{AwsKeys, Secret};
use firstbyte::base::tick::UnixMs;
use firstbyte::wire::sign;
use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::fallback::{expected, good};
use crate::rig::{Call, Gateway, Provider, on_both};

/// The model, as the config has it, and as it stands in a path.
const MODEL: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
const PATH: &str = "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n\r\n";

/// One message of an event stream: lengths, headers and payload under their checksums.
fn message(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (name, value) in headers {
        fields.push(name.len() as u8);
        fields.extend(name.as_bytes());
        fields.push(7);
        fields.extend((value.len() as u16).to_be_bytes());
        fields.extend(value.as_bytes());
    }
    let total = (12 + fields.len() + payload.len() + 4) as u32;
    let mut out = [total.to_be_bytes(), (fields.len() as u32).to_be_bytes()].concat();
    out.extend(sum(&out).to_be_bytes());
    out.extend(fields);
    out.extend(payload.as_bytes());
    out.extend(sum(&out).to_be_bytes());
    out
}

/// CRC-32 as IEEE 802.3 has it, bit by bit.
fn sum(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    let byte = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum));
    !bytes.iter().fold(!0, byte)
}

fn event(name: &str, payload: Value) -> Vec<u8> {
    let headers =
        [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")];
    message(&headers, &payload.to_string())
}

fn exception(name: &str, text: &str) -> Vec<u8> {
    let headers = [(":exception-type", name), (":message-type", "exception")];
    message(&headers, &json!({ "message": text }).to_string())
}

/// A streamed answer of Converse: text, a call, counts. The text is the second message.
fn converse() -> Vec<Vec<u8>> {
    let block = |index: u64, more: Value| {
        let mut block = json!({ "contentBlockIndex": index, "p": "abcdefgh" });
        for (name, value) in more.as_object().unwrap() {
            block[name] = value.clone();
        }
        block
    };
    let call = json!({ "start": { "toolUse": { "toolUseId": "tooluse_1", "name": "f" } } });
    vec![
        event("messageStart", json!({ "role": "assistant" })),
        event(
            "contentBlockDelta",
            block(0, json!({ "delta": { "text": "hello from nova \u{fc}" } })),
        ),
        event("contentBlockStop", block(0, json!({}))),
        event("contentBlockStart", block(1, call)),
        event(
            "contentBlockDelta",
            block(1, json!({ "delta": { "toolUse": { "input": "{\"x\":1}" } } })),
        ),
        event("contentBlockStop", block(1, json!({}))),
        event("messageStop", json!({ "stopReason": "tool_use" })),
        event(
            "metadata",
            json!({ "usage": { "inputTokens": 5, "outputTokens": 9, "totalTokens": 14 } }),
        ),
    ]
}

/// The time of a request, from `20240229T235959Z`: the days of whole years and of months before.
fn wall(stamp: &str) -> UnixMs {
    let number = |at: usize, len: usize| stamp[at..at + len].parse::<u64>().unwrap();
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (year, month) = (number(0, 4), number(4, 2));
    let february = 28 + u64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum::<u64>()
        + months[..month as usize - 1].iter().sum::<u64>()
        + number(6, 2)
        - 1;
    UnixMs((days * 86_400 + number(9, 2) * 3600 + number(11, 2) * 60 + number(13, 2)) * 1000)
}

/// Checks a signature as the service does: by making it again from what came.
fn verify(call: &Call) {
    let field = |name: &str| {
        let line =
            call.request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", call.request))
    };
    let secret = || Secret::new("secret-key");
    let keys = AwsKeys {
        access_key: secret(),
        secret_key: secret(),
        session_token: Some(secret()),
        region: String::from("eu-west-1"),
    };
    assert_eq!(field("x-amz-security-token"), "secret-key");
    let fields =
        [("host", field("host").as_bytes()), ("content-type", field("content-type").as_bytes())];
    let request = sign::Request {
        method: "POST",
        path: call.request.split(' ').nth(1).unwrap(),
        query: "",
        fields: &fields,
        body: &call.body,
    };
    let wall = wall(field("x-amz-date"));
    let scope = sign::Scope { region: "eu-west-1", service: "bedrock", wall };
    assert_eq!(field("authorization"), sign::sign(&request, &keys, &scope).authorization);
}

/// A Bedrock that checks what it is asked for `operation`, and answers `says`.
fn bedrock(operation: &'static str, says: Vec<u8>) -> Provider {
    Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        let line = format!("POST {PATH}/{operation} HTTP/1.1\r\n");
        assert!(call.request.starts_with(&line), "{}", call.request);
        verify(call);
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let text = &body["messages"][0]["content"][0]["text"];
        assert_eq!((text, &body["messages"][0]["role"]), (&json!("hi"), &json!("user")), "{body}");
        assert!(body.get("model").is_none() && body.get("stream").is_none(), "{body}");
        call.say(&says);
        false
    })
}

/// Bedrock first, an OpenAI second.
fn gateway(driver: crate::rig::Driver, kind: &str, first: &Provider, second: &Provider) -> Gateway {
    let (first, second) = (first.addr, second.addr);
    Gateway::start(
        driver,
        &format!(
            "[defaults]\nbreaker = \"off\"\n[providers.p0]\nkind = \"{kind}\"\n\
             base_url = \"http://{first}\"\nregion = \"eu-west-1\"\naccess_key = \"env:A\"\n\
             secret_key = \"env:B\"\nsession_token = \"env:C\"\n[providers.p1]\nkind = \"openai\"\n\
             base_url = \"http://{second}/v1\"\nkey = \"env:K\"\n[models.m]\n\
             targets = [\"p0/{MODEL}\", \"p1/up\"]\n"
        ),
    )
}

fn request(stream: bool) -> String {
    let body = json!({
        "model": "m", "messages": [{ "role": "user", "content": "hi" }], "stream": stream,
        "stream_options": { "include_usage": true },
    });
    post("/v1/chat/completions", "", &body.to_string())
}

fn chunks(answer: &Response) -> Vec<Value> {
    let text = answer.text();
    let blocks = text.split_terminator("\n\n").map(|block| block.strip_prefix("data: ").unwrap());
    let chunks = blocks.filter(|data| *data != "[DONE]");
    chunks.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn streamed(messages: &[Vec<u8>]) -> Vec<u8> {
    [EVENTS.as_bytes(), &messages.concat()].concat()
}

#[test]
fn a_signed_request_is_answered_in_binary_messages() {
    on_both(|driver| {
        let case = format!("{driver:?}");
        let spare = Provider::saying(good("p1"));
        let well = bedrock("converse-stream", streamed(&converse()));
        let gateway = gateway(driver, "bedrock", &well, &spare);
        let answer = ask(gateway.addr, &request(true));
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{case}: {}", answer.text());
        let chunks = chunks(&answer);
        assert!(chunks.iter().all(|chunk| chunk["model"] == "m"), "{case}");
        let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
        let text: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
        assert_eq!(text, "hello from nova \u{fc}", "{case}");
        let call = deltas.iter().find_map(|delta| delta["tool_calls"].get(0)).unwrap();
        assert_eq!((&call["id"], &call["index"]), (&json!("tooluse_1"), &json!(0)), "{case}");
        let finish = chunks.iter().find_map(|c| c["choices"][0]["finish_reason"].as_str());
        assert_eq!(finish, Some("tool_calls"), "{case}");
        assert_eq!(chunks.last().unwrap()["usage"]["total_tokens"], 14, "{case}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with(&format!("p0/{MODEL};ok;")), "{case}: {attempts}");
    });
}

#[test]
fn whole_answers_of_both_operations_are_translated() {
    let whole = |body: Value| {
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let converse = json!({ "output": { "message": { "role": "assistant", "content": [{ "text": "hello" }] } },
        "stopReason": "end_turn", "usage": { "inputTokens": 2, "outputTokens": 3, "totalTokens": 5 } });
    let invoke = json!({ "id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
        "content": [{ "type": "text", "text": "hello" }], "stop_reason": "end_turn",
        "usage": { "input_tokens": 2, "output_tokens": 3 } });
    on_both(|driver| {
        let spare = Provider::saying(good("p1"));
        for (kind, operation, body) in
            [("bedrock", "converse", &converse), ("bedrock-invoke", "invoke", &invoke)]
        {
            let well = bedrock(operation, whole(body.clone()));
            let gateway = gateway(driver, kind, &well, &spare);
            let got = ask(gateway.addr, &request(false)).json();
            let choice = &got["choices"][0];
            let said = (&choice["message"]["content"], &choice["finish_reason"]);
            assert_eq!(said, (&json!("hello"), &json!("stop")), "{driver:?} {kind}: {got}");
            assert_eq!(got["usage"]["total_tokens"], 5, "{driver:?} {kind}");
        }
    });
}

#[test]
fn throttled_before_the_first_content_another_answers() {
    let slow = exception("throttlingException", "Too many tokens, please wait");
    let field = "x-amzn-errortype: ThrottlingException:http://internal/coral/\r\n";
    let body = "{\"message\":\"Rate exceeded\"}";
    let refusal = format!(
        "HTTP/1.1 400 X\r\n{field}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    on_both(|driver| {
        let openai = Provider::saying(good("p1"));
        let down = exception("serviceUnavailableException", "Sorry");
        for (says, outcome) in [
            (streamed(slice::from_ref(&slow)), "rate_limited"),
            (streamed(&[&converse()[..1], slice::from_ref(&slow)].concat()), "rate_limited"),
            (refusal.clone().into_bytes(), "400"),
            (streamed(&[down]), "unavailable"),
        ] {
            let case = format!("{driver:?} {outcome}");
            let busy = bedrock("converse-stream", says);
            let gateway = gateway(driver, "bedrock", &busy, &openai);
            let answer = ask(gateway.addr, &request(true));
            assert_eq!(answer.text(), expected("p1"), "{case}");
            let attempts = answer.field("x-firstbyte-attempts").unwrap();
            assert!(attempts.starts_with(&format!("p0/{MODEL};{outcome};")), "{case}: {attempts}");
            if outcome == "unavailable" {
                continue;
            }
            // It cools down: the next request goes to the other one at once.
            let answer = ask(gateway.addr, &request(true));
            let attempts = answer.field("x-firstbyte-attempts").unwrap();
            assert!(attempts.starts_with("p1/up;ok;"), "{case}: {attempts}");
        }
    });
}

#[test]
fn a_request_at_fault_is_told_to_the_client() {
    on_both(|driver| {
        let never = Provider::start(|_| panic!("another provider would only say it again"));
        let says = exception("validationException", "messages.0 is odd");
        let strict = bedrock("converse-stream", streamed(&[says]));
        let gateway = gateway(driver, "bedrock", &strict, &never);
        let answer = ask(gateway.addr, &request(true));
        assert_eq!(answer.status, 400, "{driver:?}: {}", answer.text());
        assert_eq!(answer.json()["error"]["message"], "messages.0 is odd", "{driver:?}");
    });
}

#[test]
fn cut_after_the_first_content_the_end_is_told() {
    on_both(|driver| {
        let openai = Provider::saying(good("p1"));
        let whole = streamed(&converse());
        let begun = streamed(&converse()[..2]);
        let throttled = [&begun[..], &exception("throttlingException", "enough")].concat();
        // Between messages, in one, with a broken checksum, and by an exception.
        let mut broken = whole.clone();
        broken[begun.len() + 20] ^= 1;
        for says in [begun.clone(), whole[..begun.len() + 30].to_vec(), broken, throttled] {
            let cut = bedrock("converse-stream", says);
            let gateway = gateway(driver, "bedrock", &cut, &openai);
            let text = ask(gateway.addr, &request(true)).text();
            assert!(text.contains("hello from nova"), "{driver:?}: {text}");
            assert!(text.contains("stream_interrupted"), "{driver:?}: {text}");
            assert!(!text.contains("[DONE]") && !text.contains("from p1"), "{driver:?}: {text}");
        }
    });
}
