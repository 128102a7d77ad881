//! Mistral's chat: OpenAI's, but for thoughts as parts of the content, calls in one piece, and usage in
//! the chunk that says why it ends. Its path is OpenAI's too, so it lies below `/mistral` here.

use serde_json::{Value, json};

use super::check::{Spot, wrong};
use super::{Call, Events, Format, Problem, Refused, Wire, openai};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS};
use crate::app::sandbox::ask::{Ask, Refusal};

/// Mistral's.
pub struct Mistral;

/// What a request may hold; anything else is refused.
const FIELDS: [&str; 20] = [
    "model",
    "messages",
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "stop",
    "random_seed",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "safe_prompt",
    "prediction",
    "prompt_mode",
    "reasoning_effort",
    "prompt_cache_key",
];

impl Format for Mistral {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        openai::credential(call, false)?;
        let top = Spot::top(call.body);
        let checked = top.only(&FIELDS).and_then(|()| top.need("messages")?.filled());
        let messages = checked.map_err(|refusal| Refusal { status: 422, ..refusal })?;
        let mut after = "";
        for message in &messages {
            let roles = ["system", "user", "assistant", "tool"];
            let role = message.need("role")?.one_of(&roles)?;
            if after == "tool" && role == "user" {
                return wrong("Unexpected role 'user' after role 'tool'");
            }
            if let Some(id) = message.get("tool_call_id") {
                nine(&id)?;
            }
            let calls = message.get("tool_calls");
            for made in calls.iter().flat_map(|calls| calls.list()).flatten() {
                nine(&made.need("id")?)?;
            }
            let empty = message.value["content"].as_str().is_none_or(str::is_empty)
                && !message.value["content"].is_array();
            if role == "assistant" && empty && calls.is_none() {
                return wrong("Assistant message must have either content or tool_calls.");
            }
            after = role;
        }
        if let Some(last) = messages.last().filter(|_| after == "assistant")
            && last.value["prefix"] != true
        {
            return wrong("Expected last role User or Tool (or Assistant with prefix True)");
        }
        ask.stream = call.body["stream"] == true;
        ask.n = call.body["n"].as_u64().map_or(1, |n| n.clamp(1, 8) as u32);
        openai::turn(call, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        let delta = |choice, delta: Value| chunk(answer, choice, delta, Value::Null);
        match piece {
            Piece::Role { choice } => {
                out.data(delta(choice, json!({"role": "assistant", "content": ""})));
            }
            Piece::Reason { choice, k } => {
                let content = thinking(&answer.thought(k), k + 1 == answer.thinks());
                out.data(delta(choice, json!({"content": [content]})));
            }
            Piece::Text { choice, k } => {
                out.data(delta(choice, json!({"content": answer.word(k)})));
            }
            Piece::Tool { choice, call, part } if part + 1 == TOOL_PARTS => {
                out.data(delta(choice, json!({"tool_calls": [tool(answer, choice, call)]})));
            }
            Piece::Tool { .. } | Piece::Usage => {}
            Piece::Finish { choice } => {
                let mut last =
                    chunk(answer, choice, json!({"content": ""}), json!(answer.finish()));
                last["usage"] = openai::usage(answer);
                out.data(last);
            }
            Piece::Done => out.data("[DONE]"),
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let choices = (0..answer.ask.n).map(|i| {
            let mut message = json!({"role": "assistant", "content": answer.content()});
            if answer.tool_calls() > 0 {
                message["content"] = json!("");
                message["tool_calls"] =
                    (0..answer.tool_calls()).map(|k| tool(answer, i, k)).collect();
            }
            if answer.thinks() > 0 {
                let text = json!({"type": "text", "text": message["content"]});
                message["content"] = json!([thinking(&answer.thoughts(), true), text]);
            }
            let finish = if answer.script.no_finish { Value::Null } else { json!(answer.finish()) };
            json!({"index": i, "message": message, "finish_reason": finish})
        });
        json!({
            "id": id(answer), "object": "chat.completion", "created": answer.created,
            "model": answer.ask.model, "choices": choices.collect::<Vec<_>>(),
            "usage": openai::usage(answer),
        })
        .to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        out.data(openai::server_error(self, answer));
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        let (usual, kind, code) = openai::words(problem.named, problem.status);
        let message = problem.text(usual);
        problem.answer(&match problem.status {
            401 => json!({"detail": message}),
            422 => json!({
                "object": "error", "message": {"detail": [{"type": "extra_forbidden", "msg": message}]},
                "type": "invalid_request_error", "param": null, "code": null,
            }),
            429 => json!({
                "object": "error", "message": message, "type": "rate_limited", "param": null,
                "code": "1300",
            }),
            _ => json!({
                "object": "error", "message": message, "type": kind, "param": problem.param,
                "code": code,
            }),
        })
    }
}

/// An id of Mistral's: nine letters and digits.
fn nine(id: &Spot<'_>) -> Result<(), Refusal> {
    let text = id.text()?;
    if text.len() == 9 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    id.wrong("Tool call id has to be 9 characters of a-z, A-Z, 0-9")
}

fn id(answer: &Answer) -> String {
    answer.id.replace('-', "")
}

fn thinking(text: &str, closed: bool) -> Value {
    json!({"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": closed})
}

fn tool(answer: &Answer, choice: u32, call: u32) -> Value {
    json!({
        "id": format!("call{choice:02}{call:03}"), "index": call,
        "function": {
            "name": answer.tool_name(call), "arguments": answer.tool_arguments(call).concat(),
        },
    })
}

fn chunk(answer: &Answer, choice: u32, delta: Value, finish: Value) -> Value {
    json!({
        "id": id(answer), "object": "chat.completion.chunk", "created": answer.created,
        "model": answer.ask.model, "p": "abcdefg",
        "choices": [{"index": choice, "delta": delta, "finish_reason": finish}],
    })
}
