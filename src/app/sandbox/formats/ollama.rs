//! Ollama's own chat: a line of JSON for each word.
//!
//! ```text
//! {"model":"ok","created_at":"..","message":{"role":"assistant","content":" token-1"},"done":false}
//! ```

use serde_json::{Value, json};

use super::check::{Checked, Spot};
use super::{Call, Events, Format, Problem, Refused, Wire, openai};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;

/// Ollama's.
pub struct Ollama;

impl Format for Ollama {
    fn wire(&self) -> Wire {
        Wire::Lines
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        openai::credential(call, false)?;
        read(call.body, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        match piece {
            Piece::Role { .. } => out.data(line(answer, json!({"content": ""}))),
            Piece::Reason { k, .. } => {
                out.data(line(answer, json!({"content": "", "thinking": answer.thought(k)})));
            }
            Piece::Text { k, .. } => out.data(line(answer, json!({"content": answer.word(k)}))),
            Piece::Tool { call, part, .. } if part + 1 == TOOL_PARTS => {
                let calls = json!([tool(answer, call)]);
                out.data(line(answer, json!({"content": "", "tool_calls": calls})));
            }
            Piece::Tool { .. } | Piece::Usage | Piece::Done => {}
            Piece::Finish { .. } => {
                out.data(done(answer, line(answer, json!({"content": ""}))));
            }
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let mut message = json!({"content": ""});
        if answer.thinks() > 0 {
            message["thinking"] = json!(answer.thoughts());
        }
        if answer.tool_calls() > 0 {
            message["tool_calls"] = (0..answer.tool_calls()).map(|k| tool(answer, k)).collect();
        } else {
            message["content"] = json!(answer.content());
        }
        let whole = line(answer, message);
        if answer.script.no_finish { whole } else { done(answer, whole) }.to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        let message = format!("an error was encountered while running (sandbox {})", answer.name);
        out.data(json!({"error": message}));
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        let usual = match (problem.named, problem.status) {
            (Named::ContextLength, _) => "prompt too long; exceeded max context length by 9 tokens",
            (Named::ContentPolicy, _) => "the request was refused",
            (Named::InsufficientQuota, _) => "you have reached your weekly usage limit",
            (Named::BadKey, _) | (Named::ByStatus, 401) => "unauthorized",
            (Named::ByStatus, 404) => "model not found",
            (Named::ByStatus, 429) => "too many requests",
            (Named::ByStatus, 503) => {
                "server busy, please try again. maximum pending requests exceeded"
            }
            (Named::ByStatus, 500..) => "an error was encountered while running the model",
            (Named::ByStatus, _) => "invalid request",
        };
        problem.answer(&json!({"error": problem.text(usual)}))
    }

    fn ping(&self, _out: &mut Events) -> bool {
        false
    }
}

fn line(answer: &Answer, said: Value) -> Value {
    let mut message = json!({"role": "assistant"});
    if let (Some(message), Value::Object(said)) = (message.as_object_mut(), said) {
        message.extend(said);
    }
    json!({
        "model": answer.ask.model, "created_at": "2026-01-01T00:00:00.123456789Z",
        "message": message, "done": false,
    })
}

/// There is no word for a filter, and none for calls.
fn done(answer: &Answer, mut line: Value) -> Value {
    line["done"] = json!(true);
    line["done_reason"] = json!(if answer.finish() == "length" { "length" } else { "stop" });
    line["total_duration"] = json!(7_000_000);
    line["prompt_eval_count"] = json!(answer.prompt_tokens());
    line["eval_count"] = json!(answer.completion_tokens());
    line
}

fn tool(answer: &Answer, call: u32) -> Value {
    let (name, arguments) = (answer.tool_name(call), answer.tool_input(call));
    json!({"function": {"index": call, "name": name, "arguments": arguments}})
}

fn read(body: &Value, ask: &mut Ask) -> Checked {
    // Fields that it does not know are ignored, so they are not looked for.
    let top = Spot::top(body);
    ask.stream = top.get("stream").map_or(Ok(true), |stream| stream.flag())?;
    if let Some(format) = top.get("format").filter(|format| !format.value.is_object()) {
        format.one_of(&["json", ""])?;
    }
    if let Some(think) = top.get("think").filter(|think| !think.value.is_boolean()) {
        think.one_of(&["low", "medium", "high", "max"])?;
    }
    if let Some(options) = top.get("options") {
        options.object()?;
        for stop in options.get("stop").map_or(Ok(Vec::new()), |list| list.list())? {
            stop.text()?;
        }
        for name in ["num_predict", "num_ctx", "seed", "top_k"] {
            if let Some(spot) = options.get(name).filter(|spot| !spot.value.is_i64()) {
                spot.whole(0)?;
            }
        }
    }
    for tool in top.get("tools").map_or(Ok(Vec::new()), |tools| tools.list())? {
        ask.tools.push(tool.need("function")?.need("name")?.text()?.to_owned());
    }
    for message in top.get("messages").map_or(Ok(Vec::new()), |messages| messages.list())? {
        let role = message.need("role")?.one_of(&["system", "user", "assistant", "tool"])?;
        if let Some(content) = message.get("content") {
            let text = content.text()?;
            if role != "tool" {
                ask.counts(text);
            }
        }
        for image in message.get("images").map_or(Ok(Vec::new()), |images| images.list())? {
            image.base64()?;
        }
        for call in message.get("tool_calls").map_or(Ok(Vec::new()), |calls| calls.list())? {
            let function = call.need("function")?;
            function.need("name")?.text()?;
            function.need("arguments")?.object()?;
        }
    }
    Ok(())
}
