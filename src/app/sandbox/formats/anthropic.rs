//! Anthropic's Messages: at Anthropic, at Vertex, and (wrapped by `bedrock`) at Bedrock.
//!
//! ```text
//! event: content_block_delta
//! data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" token-1"}}
//! ```
//!
//! Thoughts are block 0 if there are any; then comes the text, or a block for each call.

use serde_json::{Value, json};

use super::check::{Checked, Spot, denied, wrong};
use super::{Api, Call, Events, Format, Problem, Refused, Wire, is_forged, seal};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;

/// At Anthropic or at Vertex.
pub struct Anthropic {
    vertex: bool,
}

/// Anthropic's own.
pub const ANTHROPIC: Anthropic = Anthropic { vertex: false };
/// Vertex's.
pub const VERTEX: Anthropic = Anthropic { vertex: true };

impl Format for Anthropic {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn id_field(&self) -> &'static str {
        "request-id"
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        let field = |name| call.request.field(name);
        if self.vertex {
            super::gemini::bearer(call)?;
            if field("anthropic-version").is_some() {
                return wrong("anthropic-version: this header is not permitted here");
            }
            body_with_version(call, "vertex-2023-10-16")?;
        } else {
            let bearer = field("authorization").is_some_and(|value| value.starts_with("Bearer "));
            let foreign = ["x-goog-api-key", "api-key", "authorization"];
            let lost = foreign.iter().any(|name| field(name).is_some());
            if field("x-api-key").is_none() && !bearer && lost {
                return denied("x-api-key header is required");
            }
            let Some(version) = field("anthropic-version") else {
                return wrong("anthropic-version: header is required");
            };
            if !["2023-01-01", "2023-06-01", NEWEST].contains(&version) {
                return wrong(format_args!(
                    "anthropic-version: \"{version}\" is not a valid version"
                ));
            }
        }
        super::messages_check::read(call.body, call.route.api, ask)?;
        if self.vertex && ask.stream != call.route.stream {
            return wrong("stream: does not agree with the method of the path");
        }
        Ok(())
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        if self.vertex && matches!(piece, Piece::Role { .. }) {
            out.named("vertex_event", json!({"type": "vertex_event"}));
        }
        tell(answer, piece, out);
    }

    fn whole(&self, answer: &Answer) -> String {
        if answer.ask.api == Api::CountTokens {
            return json!({"input_tokens": answer.prompt_tokens()}).to_string();
        }
        whole(answer)
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        out.named(
            "error",
            error_object("overloaded_error", &format!("Overloaded (sandbox {})", answer.name)),
        );
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        if self.vertex && matches!(problem.status, 401 | 403 | 404 | 429) {
            return super::gemini::refuse(problem, true);
        }
        refuse(problem)
    }

    fn ping(&self, out: &mut Events) -> bool {
        out.named("ping", json!({"type": "ping"}));
        true
    }
}

/// The version that the vendor's own client names since its release 2.13, to the clouds too.
const NEWEST: &str = "2026-10-21";

/// The body of a cloud that has the model in its path.
pub fn body_with_version(call: &Call<'_>, version: &str) -> Checked {
    let top = Spot::top(call.body);
    if ![version, NEWEST].contains(&top.need("anthropic_version")?.text()?) {
        return wrong(format_args!("anthropic_version: \"{version}\" is expected"));
    }
    match top.get("model") {
        Some(model) => model.wrong("Extra inputs are not permitted"),
        None => Ok(()),
    }
}

/// An error answer in Anthropic's form.
pub fn refuse(problem: &Problem<'_>) -> Refused {
    let (usual, kind) = words(problem.named, problem.status);
    problem.answer(&error_object(kind, &problem.text(usual)))
}

fn error_object(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_sandbox"})
}

fn words(named: Named, status: u16) -> (&'static str, &'static str) {
    match (named, status) {
        (Named::ContextLength, _) => {
            ("prompt is too long: 210000 tokens > 200000 maximum", "invalid_request_error")
        }
        (Named::ContentPolicy, _) => {
            ("Output blocked by content filtering policy", "invalid_request_error")
        }
        (Named::InsufficientQuota, _) => {
            ("This request would exceed your account's rate limit.", "rate_limit_error")
        }
        (Named::BadKey, _) | (Named::ByStatus, 401) => {
            ("invalid x-api-key", "authentication_error")
        }
        (Named::ByStatus, 402) => ("There is an issue with your billing.", "billing_error"),
        (Named::ByStatus, 403) => ("Your API key may not do that.", "permission_error"),
        (Named::ByStatus, 404) => ("model: it does not exist", "not_found_error"),
        (Named::ByStatus, 413) => ("Request exceeds the maximum size", "request_too_large"),
        (Named::ByStatus, 429) => ("This request would exceed a rate limit.", "rate_limit_error"),
        (Named::ByStatus, 504) => ("The request timed out.", "timeout_error"),
        (Named::ByStatus, 503 | 529) => ("Overloaded", "overloaded_error"),
        (Named::ByStatus, 500..) => ("Internal server error", "api_error"),
        (Named::ByStatus, _) => ("messages: they are not right", "invalid_request_error"),
    }
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer.finish() {
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        _ => "end_turn",
    }
}

fn usage(answer: &Answer, output: u64) -> Value {
    json!({
        "input_tokens": answer.prompt_tokens(), "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0, "output_tokens": output, "service_tier": "standard",
    })
}

fn message(answer: &Answer) -> Value {
    json!({
        "id": format!("msg_{}", answer.id), "type": "message", "role": "assistant",
        "model": answer.ask.model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": usage(answer, 1),
    })
}

/// The events of one piece.
pub fn tell(answer: &Answer, piece: Piece, out: &mut Events) {
    let thinks = u32::from(answer.thinks() > 0);
    match piece {
        Piece::Role { .. } => {
            let start = json!({"type": "message_start", "message": message(answer)});
            out.named("message_start", start);
            out.named("ping", json!({"type": "ping"}));
        }
        Piece::Reason { k, .. } => {
            let thought = answer.thought(k);
            if k == 0 {
                start(0, json!({"type": "thinking", "thinking": "", "signature": ""}), out);
            }
            delta(0, json!({"type": "thinking_delta", "thinking": thought}), out);
            if k + 1 == answer.thinks() {
                let signature = seal(&answer.thoughts());
                delta(0, json!({"type": "signature_delta", "signature": signature}), out);
                stop(0, out);
            }
        }
        Piece::Text { k, .. } => {
            if k == 0 {
                start(thinks, json!({"type": "text", "text": ""}), out);
            }
            delta(thinks, json!({"type": "text_delta", "text": answer.word(k)}), out);
            if answer.is_last_word(k) {
                stop(thinks, out);
            }
        }
        Piece::Tool { choice, call, part } => {
            let index = thinks + call;
            match part {
                0 => {
                    let (id, name) = (answer.tool_id(choice, call), answer.tool_name(call));
                    let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                    start(index, block, out);
                    delta(index, json!({"type": "input_json_delta", "partial_json": ""}), out);
                }
                _ => {
                    let json = &answer.tool_arguments(call)[part as usize - 1];
                    delta(index, json!({"type": "input_json_delta", "partial_json": json}), out);
                }
            }
            if part + 1 == TOOL_PARTS {
                stop(index, out);
            }
        }
        Piece::Finish { .. } => {
            let delta = json!({
                "type": "message_delta",
                "delta": {"stop_reason": stop_reason(answer), "stop_sequence": null},
                "usage": {"output_tokens": answer.completion_tokens(), "output_tokens_details": {
                    "thinking_tokens": answer.reasoning_tokens(),
                }},
            });
            out.named("message_delta", delta);
        }
        Piece::Usage => {}
        Piece::Done => out.named("message_stop", json!({"type": "message_stop"})),
    }
}

fn start(index: u32, block: Value, out: &mut Events) {
    let start = json!({"type": "content_block_start", "index": index, "content_block": block});
    out.named("content_block_start", start);
}

fn delta(index: u32, delta: Value, out: &mut Events) {
    let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
    out.named("content_block_delta", delta);
}

fn stop(index: u32, out: &mut Events) {
    out.named("content_block_stop", json!({"type": "content_block_stop", "index": index}));
}

/// The whole message.
pub fn whole(answer: &Answer) -> String {
    let mut blocks = Vec::new();
    if answer.thinks() > 0 {
        let thoughts = answer.thoughts();
        let signature = seal(&thoughts);
        blocks.push(json!({"type": "thinking", "thinking": thoughts, "signature": signature}));
    }
    for call in 0..answer.tool_calls() {
        blocks.push(json!({
            "type": "tool_use", "id": answer.tool_id(0, call), "name": answer.tool_name(call),
            "input": answer.tool_input(call),
        }));
    }
    if answer.tool_calls() == 0 {
        blocks.push(json!({"type": "text", "text": answer.content()}));
    }
    let mut message = message(answer);
    message["content"] = Value::Array(blocks);
    if !answer.script.no_finish {
        message["stop_reason"] = json!(stop_reason(answer));
    }
    message["usage"] = usage(answer, answer.completion_tokens());
    message["usage"]["output_tokens_details"] =
        json!({"thinking_tokens": answer.reasoning_tokens()});
    message.to_string()
}

/// A thinking block that comes back has the signature that goes with it.
pub fn thought_is_whole(block: &Spot<'_>) -> Checked {
    let thinking = block.need("thinking")?.text()?;
    let signature = block.need("signature")?;
    let text = signature.text()?;
    if text.is_empty() || is_forged(text, thinking) {
        return block.wrong("Invalid `signature` in `thinking` block");
    }
    Ok(())
}
