//! Bedrock: Converse, and InvokeModel with Claude's own events inside. Streams are binary messages.
//!
//! ```text
//! | total | headers | crc | :event-type contentBlockDelta .. | {"contentBlockIndex":0,"delta":{..}} | crc |
//! ```

use serde_json::{Value, json};

use super::check::{Checked, denied};
use super::{Call, Event, Events, Format, Problem, Refused, Wire, anthropic, seal};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS, base64};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;
use crate::base::buf::Buf;

/// Converse.
pub struct Converse;
/// InvokeModel, of Claude.
pub struct Invoke;

impl Format for Converse {
    fn wire(&self) -> Wire {
        Wire::Messages
    }

    fn id_field(&self) -> &'static str {
        "x-amzn-requestid"
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        credential(call)?;
        super::converse_check::read(call.body, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        let thinks = u32::from(answer.thinks() > 0);
        let mut delta = |index: u32, delta: Value| {
            let delta = json!({"contentBlockIndex": index, "delta": delta, "p": "abcd"});
            out.named("contentBlockDelta", delta);
        };
        let (mut stops, index) = (false, thinks);
        match piece {
            Piece::Role { .. } => out.named("messageStart", json!({"role": "assistant"})),
            Piece::Reason { k, .. } => {
                delta(0, json!({"reasoningContent": {"text": answer.thought(k)}}));
                if k + 1 == answer.thinks() {
                    let signature = seal(&answer.thoughts());
                    delta(0, json!({"reasoningContent": {"signature": signature}}));
                    out.named("contentBlockStop", json!({"contentBlockIndex": 0}));
                }
            }
            Piece::Text { k, .. } => {
                delta(index, json!({"text": answer.word(k)}));
                stops = answer.is_last_word(k);
            }
            Piece::Tool { choice, call, part } => {
                let index = index + call;
                if part == 0 {
                    let (id, name) = (answer.tool_id(choice, call), answer.tool_name(call));
                    let start = json!({"toolUse": {"toolUseId": id, "name": name}});
                    let start = json!({"contentBlockIndex": index, "start": start});
                    out.named("contentBlockStart", start);
                } else {
                    let input = &answer.tool_arguments(call)[part as usize - 1];
                    delta(index, json!({"toolUse": {"input": input}}));
                }
                if part + 1 == TOOL_PARTS {
                    out.named("contentBlockStop", json!({"contentBlockIndex": index}));
                }
            }
            Piece::Finish { .. } => {
                out.named("messageStop", json!({"stopReason": stop_reason(answer)}));
            }
            Piece::Usage => {
                let metadata = json!({"usage": usage(answer), "metrics": {"latencyMs": 7}});
                out.named("metadata", metadata);
            }
            Piece::Done => {}
        }
        if stops {
            out.named("contentBlockStop", json!({"contentBlockIndex": index}));
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let mut blocks = Vec::new();
        if answer.thinks() > 0 {
            let text = answer.thoughts();
            let signature = seal(&text);
            let thought = json!({"text": text, "signature": signature});
            blocks.push(json!({"reasoningContent": {"reasoningText": thought}}));
        }
        for call in 0..answer.tool_calls() {
            blocks.push(json!({"toolUse": {
                "toolUseId": answer.tool_id(0, call), "name": answer.tool_name(call),
                "input": answer.tool_input(call),
            }}));
        }
        if answer.tool_calls() == 0 {
            blocks.push(json!({"text": answer.content()}));
        }
        let mut whole = json!({
            "output": {"message": {"role": "assistant", "content": blocks}},
            "stopReason": stop_reason(answer), "usage": usage(answer), "metrics": {"latencyMs": 7},
        });
        if answer.script.no_finish {
            whole["stopReason"] = Value::Null;
        }
        whole.to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        fail(answer, out);
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        refuse(problem)
    }

    fn ping(&self, _out: &mut Events) -> bool {
        false
    }
}

impl Format for Invoke {
    fn wire(&self) -> Wire {
        Wire::Messages
    }

    fn id_field(&self) -> &'static str {
        "x-amzn-requestid"
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        credential(call)?;
        anthropic::body_with_version(call, "bedrock-2023-05-31")?;
        super::messages_check::read(call.body, call.route.api, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        let mut inner = Events::default();
        anthropic::tell(answer, piece, &mut inner);
        for event in inner.list.iter().filter(|event| event.name != "ping") {
            let mut data = event.data.clone();
            if event.name == "message_stop" {
                let metrics = json!({
                    "inputTokenCount": answer.prompt_tokens(),
                    "outputTokenCount": answer.completion_tokens(),
                    "invocationLatency": 9, "firstByteLatency": 3,
                });
                let stop =
                    json!({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics});
                data = stop.to_string();
            }
            out.named("chunk", json!({"bytes": base64(data.as_bytes()), "p": "abc"}));
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        anthropic::whole(answer)
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        fail(answer, out);
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        refuse(problem)
    }

    fn ping(&self, _out: &mut Events) -> bool {
        false
    }
}

/// Appends an event as a binary message; not `sound`: with a wrong checksum.
pub fn put_message(event: &Event, sound: bool, out: &mut Buf) {
    let (kind, named) =
        if event.exception { ("exception", ":exception-type") } else { ("event", ":event-type") };
    let mut headers = Vec::new();
    let texts =
        [(named, event.name), (":content-type", "application/json"), (":message-type", kind)];
    for (name, value) in texts {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        // 7: a text, its length in two bytes.
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    // Lengths and their checksum, the headers, the payload, the last checksum.
    let total = 12 + headers.len() + event.data.len() + 4;
    let mut message = Vec::with_capacity(total);
    message.extend_from_slice(&(total as u32).to_be_bytes());
    message.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(&headers);
    message.extend_from_slice(event.data.as_bytes());
    let sum = crc32fast::hash(&message);
    let sum = if sound { sum } else { !sum };
    message.extend_from_slice(&sum.to_be_bytes());
    out.extend(&message);
}

/// A credential, if there is one, is a signature with what belongs to it, or a bearer's key.
fn credential(call: &Call<'_>) -> Checked {
    let field = |name| call.request.field(name);
    let foreign = ["x-api-key", "x-goog-api-key", "api-key"];
    let Some(value) = field("authorization") else {
        if foreign.iter().any(|name| field(name).is_some()) {
            return denied("Missing Authentication Token");
        }
        return Ok(());
    };
    if value.starts_with("Bearer ") {
        return Ok(());
    }
    let Some(rest) = value.strip_prefix("AWS4-HMAC-SHA256 ") else {
        return denied("Authorization header is not of a known form");
    };
    let part = |name: &str| {
        rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let scope: Vec<&str> = part("Credential").unwrap_or_default().split('/').collect();
    let signed = part("SignedHeaders").unwrap_or_default();
    let signature = part("Signature").unwrap_or_default();
    if scope.len() != 5 || scope[3] != "bedrock" || scope[4] != "aws4_request" {
        return denied("Credential should be scoped to a valid region and the service bedrock.");
    }
    if !["host", "x-amz-date"].iter().all(|name| signed.split(';').any(|s| s == *name)) {
        return denied("'Host' and 'X-Amz-Date' must be signed headers.");
    }
    if !field("x-amz-date").is_some_and(|date| date.starts_with(scope[1])) {
        return denied("Date in Credential scope does not match the date of the request.");
    }
    if signature.len() != 64 || !signature.bytes().all(|b| b.is_ascii_hexdigit()) {
        return denied("Signature is not a hexadecimal SHA-256.");
    }
    Ok(())
}

fn fail(answer: &Answer, out: &mut Events) {
    let message = format!("The service is unavailable. (sandbox {})", answer.name);
    out.exception("serviceUnavailableException", json!({"message": message}));
}

fn refuse(problem: &Problem<'_>) -> Refused {
    let (usual, kind) = words(problem.named, problem.status);
    let bad_key = problem.named == Named::BadKey;
    Refused {
        status: if bad_key { 403 } else { problem.status },
        fields: format!("x-amzn-errortype: {kind}:http://internal.amazon.com/coral/\r\n"),
        body: json!({"message": problem.text(usual)}).to_string(),
    }
}

fn words(named: Named, status: u16) -> (&'static str, &'static str) {
    match (named, status) {
        (Named::ContextLength, _) => {
            ("Input is too long for requested model.", "ValidationException")
        }
        (Named::ContentPolicy, _) => ("The content was refused.", "ValidationException"),
        (Named::InsufficientQuota, _) => ("Too many tokens per day.", "ThrottlingException"),
        (Named::BadKey, _) | (Named::ByStatus, 401 | 403) => (
            "The security token included in the request is invalid.",
            "UnrecognizedClientException",
        ),
        (Named::ByStatus, 404) => ("The model does not exist.", "ResourceNotFoundException"),
        (Named::ByStatus, 408) => ("The model timed out.", "ModelTimeoutException"),
        (Named::ByStatus, 424) => ("The model failed.", "ModelErrorException"),
        (Named::ByStatus, 429) => ("Too many requests.", "ThrottlingException"),
        (Named::ByStatus, 503) => ("The service is unavailable.", "ServiceUnavailableException"),
        (Named::ByStatus, 500..) => ("Something went wrong inside.", "InternalServerException"),
        (Named::ByStatus, _) => ("The request is not right.", "ValidationException"),
    }
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer.finish() {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "content_filtered",
        _ => "end_turn",
    }
}

fn usage(answer: &Answer) -> Value {
    let (prompt, completion) = (answer.prompt_tokens(), answer.completion_tokens());
    json!({
        "inputTokens": prompt, "outputTokens": completion, "totalTokens": prompt + completion,
    })
}
