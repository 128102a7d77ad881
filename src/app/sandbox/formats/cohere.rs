//! Cohere's v2 chat.
//!
//! ```text
//! event: content-delta
//! data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":" token-1"}}}}
//! ```

use serde_json::{Value, json};

use super::check::{Checked, Spot, wrong};
use super::{Call, Events, Format, Problem, Refused, Wire, openai};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;

/// Cohere's.
pub struct Cohere;

impl Format for Cohere {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        openai::credential(call, false)?;
        read(call.body, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        let thinks = u32::from(answer.thinks() > 0);
        match piece {
            Piece::Role { .. } => {
                let message = json!({
                    "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [],
                    "citations": [],
                });
                let start = json!({
                    "type": "message-start", "id": answer.id, "delta": {"message": message},
                });
                out.named("message-start", start);
            }
            Piece::Reason { k, .. } => {
                content(0, "thinking", &answer.thought(k), k == 0, k + 1 == answer.thinks(), out);
            }
            Piece::Text { k, .. } => {
                let (word, last) = (answer.word(k), answer.is_last_word(k));
                content(thinks, "text", &word, k == 0, last, out);
            }
            Piece::Tool { choice, call, part } => {
                let mut put = |name: &'static str, calls: Value| {
                    let delta = json!({"message": {"tool_calls": calls}});
                    out.named(name, json!({"type": name, "index": call, "delta": delta}));
                };
                if part == 0 {
                    let (id, name) = (answer.tool_id(choice, call), answer.tool_name(call));
                    let function = json!({"name": name, "arguments": ""});
                    let made = json!({"id": id, "type": "function", "function": function});
                    put("tool-call-start", made);
                } else {
                    let arguments = &answer.tool_arguments(call)[part as usize - 1];
                    put("tool-call-delta", json!({"function": {"arguments": arguments}}));
                }
                if part + 1 == TOOL_PARTS {
                    out.named("tool-call-end", json!({"type": "tool-call-end", "index": call}));
                }
            }
            Piece::Finish { .. } => {
                let delta = json!({"finish_reason": finish(answer), "usage": usage(answer)});
                out.named("message-end", json!({"type": "message-end", "delta": delta}));
            }
            Piece::Usage => {}
            Piece::Done => out.data("[DONE]"),
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let mut message = json!({"role": "assistant"});
        let mut content = Vec::new();
        if answer.thinks() > 0 {
            content.push(json!({"type": "thinking", "thinking": answer.thoughts()}));
        }
        if answer.tool_calls() > 0 {
            let call = |call| {
                let arguments = answer.tool_arguments(call).concat();
                let function = json!({"name": answer.tool_name(call), "arguments": arguments});
                json!({"id": answer.tool_id(0, call), "type": "function", "function": function})
            };
            message["tool_calls"] = (0..answer.tool_calls()).map(call).collect();
        } else {
            content.push(json!({"type": "text", "text": answer.content()}));
        }
        if !content.is_empty() {
            message["content"] = Value::Array(content);
        }
        let finish = if answer.script.no_finish { Value::Null } else { json!(finish(answer)) };
        json!({
            "id": answer.id, "message": message, "finish_reason": finish, "usage": usage(answer),
        })
        .to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        // A stream that fails ends, and says so in its last event.
        let error = format!("internal server error (sandbox {})", answer.name);
        let delta = json!({"finish_reason": "ERROR", "error": error});
        out.named("message-end", json!({"type": "message-end", "delta": delta}));
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        let usual = match (problem.named, problem.status) {
            (Named::ContextLength, _) => {
                "too many tokens: size limit exceeded by 9 tokens. The limit for this model is 8 tokens."
            }
            (Named::ContentPolicy, _) => "the request was blocked by our safety system",
            (Named::InsufficientQuota, _) => "you have used up your quota of this month",
            (Named::BadKey, _) | (Named::ByStatus, 401) => "invalid api token",
            (Named::ByStatus, 404) => "model not found, make sure the correct model ID was used",
            (Named::ByStatus, 429) => "too many requests, please wait",
            (Named::ByStatus, 503) => "the service is unavailable",
            (Named::ByStatus, 500..) => "internal server error",
            (Named::ByStatus, _) => "invalid request",
        };
        problem.answer(&json!({"id": "sandbox", "message": problem.text(usual)}))
    }
}

fn content(index: u32, kind: &str, text: &str, first: bool, last: bool, out: &mut Events) {
    if first {
        let empty = json!({"type": kind, kind: ""});
        let delta = json!({"message": {"content": empty}});
        let start = json!({"type": "content-start", "index": index, "delta": delta});
        out.named("content-start", start);
    }
    let delta = json!({"message": {"content": {kind: text}}});
    out.named("content-delta", json!({"type": "content-delta", "index": index, "delta": delta}));
    if last {
        out.named("content-end", json!({"type": "content-end", "index": index}));
    }
}

/// There is no word for a filter.
fn finish(answer: &Answer) -> &'static str {
    match answer.finish() {
        "length" => "MAX_TOKENS",
        "tool_calls" => "TOOL_CALL",
        _ => "COMPLETE",
    }
}

fn usage(answer: &Answer) -> Value {
    json!({
        "billed_units": {"input_tokens": 1, "output_tokens": 1},
        "tokens": {
            "input_tokens": answer.prompt_tokens(), "output_tokens": answer.completion_tokens(),
            "reasoning_tokens": answer.reasoning_tokens(),
        },
        "cached_tokens": 0,
    })
}

const FIELDS: [&str; 26] = [
    "model",
    "messages",
    "stream",
    "tools",
    "tool_choice",
    "strict_tools",
    "documents",
    "citation_options",
    "response_format",
    "safety_mode",
    "max_tokens",
    "max_completion_tokens",
    "stop_sequences",
    "temperature",
    "p",
    "k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "thinking",
    "priority",
    "return_prompt",
    "raw_prompting",
    "reasoning_effort",
    "metadata",
];

fn read(body: &Value, ask: &mut Ask) -> Checked {
    let top = Spot::top(body);
    top.only(&FIELDS)?;
    ask.stream = top.get("stream").map_or(Ok(false), |stream| stream.flag())?;
    for (name, low, high) in [
        ("temperature", 0.0, 1.0),
        ("p", 0.01, 0.99),
        ("k", 0.0, 500.0),
        ("frequency_penalty", 0.0, 1.0),
        ("presence_penalty", 0.0, 1.0),
    ] {
        if let Some(spot) = top.get(name) {
            spot.number(low, high)?;
        }
    }
    if let Some(most) = top.get("max_tokens") {
        most.whole(1)?;
    }
    if let Some(stops) = top.get("stop_sequences")
        && stops.list()?.len() > 5
    {
        return stops.wrong("at most 5 stop sequences");
    }
    for tool in top.get("tools").map_or(Ok(Vec::new()), |tools| tools.list())? {
        tool.need("type")?.one_of(&["function"])?;
        let function = tool.need("function")?;
        function.only(&["name", "description", "parameters"])?;
        ask.tools.push(function.need("name")?.name(64, "")?.to_owned());
        function.need("parameters")?.object()?;
    }
    if let Some(choice) = top.get("tool_choice") {
        choice.one_of(&["REQUIRED", "NONE"])?;
        if ask.tools.is_empty() {
            return choice.wrong("there are no tools to choose from");
        }
    }
    if let Some(format) = top.get("response_format") {
        format.need("type")?.one_of(&["text", "json_object"])?;
        format.only(&["type", "json_schema", "schema"])?;
        if let Some(schema) = format.get("json_schema")
            && schema.value.get("schema").is_some()
        {
            return schema.wrong("the schema itself is expected here");
        }
    }
    if let Some(thinking) = top.get("thinking") {
        thinking.only(&["type", "token_budget"])?;
        thinking.need("type")?.one_of(&["enabled", "disabled"])?;
    }
    messages(&top, ask)
}

fn messages(top: &Spot<'_>, ask: &mut Ask) -> Checked {
    let mut open: Vec<&str> = Vec::new();
    for message in top.need("messages")?.filled()? {
        message.only(&[
            "role",
            "content",
            "tool_calls",
            "tool_plan",
            "tool_call_id",
            "citations",
        ])?;
        let role = message.need("role")?.one_of(&["system", "user", "assistant", "tool"])?;
        if role == "tool" {
            let id = message.need("tool_call_id")?.text()?;
            let Some(at) = open.iter().position(|open| *open == id) else {
                return message.wrong(format_args!("tool_call_id: no call has the id {id}"));
            };
            open.swap_remove(at);
            message.need("content")?;
            continue;
        }
        if let Some(id) = open.first() {
            return message.wrong(format_args!("the call {id} has no tool message"));
        }
        let calls = message.get("tool_calls");
        if let Some(content) = message.get("content") {
            parts(&content, role, ask)?;
        } else if calls.is_none() {
            message.need("content")?;
        }
        for made in calls.map_or(Ok(Vec::new()), |calls| calls.filled())? {
            made.need("type")?.one_of(&["function"])?;
            let function = made.need("function")?;
            function.need("name")?.name(64, "")?;
            function.need("arguments")?.text()?;
            open.push(made.need("id")?.text()?);
        }
    }
    match open.first() {
        Some(id) => wrong(format_args!("messages: the call {id} has no tool message")),
        None => Ok(()),
    }
}

fn parts(content: &Spot<'_>, role: &str, ask: &mut Ask) -> Checked {
    if let Some(text) = content.value.as_str() {
        ask.counts(text);
        return Ok(());
    }
    for part in content.list()? {
        let kinds: &[&str] = match role {
            "assistant" => &["text", "thinking"],
            "user" => &["text", "image_url", "document"],
            _ => &["text"],
        };
        match part.need("type")?.one_of(kinds)? {
            "text" => ask.counts(part.need("text")?.text()?),
            "thinking" => drop(part.need("thinking")?.text()?),
            "image_url" => drop(part.need("image_url")?.need("url")?.text()?),
            _ => {}
        }
    }
    Ok(())
}
