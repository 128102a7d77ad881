//! OpenAI's Responses, at OpenAI and at Azure.
//!
//! ```text
//! event: response.output_text.delta
//! data: {"type":"response.output_text.delta","sequence_number":5,"item_id":..,"delta":" token-1",..}
//! ```
//!
//! Each event has a number. Thoughts are item 0 if there are any; then comes the message, or an item for
//! each call. The last event says everything again.

use serde_json::{Value, json};

use super::check::{Checked, Spot, wrong};
use super::{Call, Events, Format, Problem, Refused, Wire, is_forged, openai, seal};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;

/// At OpenAI or at Azure.
pub struct Responses {
    azure: bool,
}

/// OpenAI's own.
pub const PLAIN: Responses = Responses { azure: false };
/// Azure's.
pub const AZURE: Responses = Responses { azure: true };

impl Format for Responses {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        openai::credential(call, self.azure)?;
        read(call.body, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        let first = u32::from(answer.thinks() > 0);
        match piece {
            Piece::Role { .. } => {
                let response = response(answer, "in_progress");
                put("response.created", json!({"response": response}), out);
                put("response.in_progress", json!({"response": response}), out);
            }
            Piece::Reason { k, .. } => reason(answer, k, out),
            Piece::Text { k, .. } => text(answer, first, k, out),
            Piece::Tool { call, part, .. } => tool(answer, first + call, call, part, out),
            Piece::Finish { .. } | Piece::Usage => {}
            Piece::Done => {
                let (status, event) = match answer.finish() {
                    "length" | "content_filter" => ("incomplete", "response.incomplete"),
                    _ => ("completed", "response.completed"),
                };
                put(event, json!({"response": response(answer, status)}), out);
            }
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let status = match answer.finish() {
            _ if answer.script.no_finish => "in_progress",
            "length" | "content_filter" => "incomplete",
            _ => "completed",
        };
        let mut whole = response(answer, status);
        if status == "in_progress" {
            whole["output"] = output(answer);
        }
        whole.to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        let message = format!("The server had an error. (sandbox {})", answer.name);
        let error = json!({
            "type": "server_error", "code": "server_error", "message": message, "param": null,
        });
        put("error", json!({"error": error}), out);
        let mut failed = response(answer, "failed");
        failed["error"] = json!({"code": "server_error", "message": message});
        put("response.failed", json!({"response": failed}), out);
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        if problem.named == Named::ContextLength {
            let message =
                problem.text("Your input exceeds the context window of this model. Please adjust your input and try again.");
            let code = Some("context_length_exceeded");
            let kind = "invalid_request_error";
            return problem.answer(&openai::error_object(&message, kind, Some("input"), code));
        }
        let format = if self.azure { &openai::AZURE } else { &openai::PLAIN };
        format.refuse(problem)
    }

    fn ping(&self, out: &mut Events) -> bool {
        put("keepalive", json!({}), out);
        true
    }
}

/// An event: its name, its number, and its fields.
fn put(name: &'static str, fields: Value, out: &mut Events) {
    let mut event = json!({"type": name, "sequence_number": out.count});
    if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
        event.extend(fields);
    }
    out.named(name, event);
}

fn reason(answer: &Answer, k: u32, out: &mut Events) {
    let id = reasoning_id(answer);
    let at = json!({"item_id": id, "output_index": 0, "summary_index": 0});
    if k == 0 {
        let item = json!({"id": id, "type": "reasoning", "summary": []});
        put("response.output_item.added", json!({"output_index": 0, "item": item}), out);
        let part = json!({"type": "summary_text", "text": ""});
        put("response.reasoning_summary_part.added", with(&at, "part", part), out);
    }
    let delta = with(&at, "delta", json!(answer.thought(k)));
    put("response.reasoning_summary_text.delta", delta, out);
    if k + 1 == answer.thinks() {
        let thoughts = answer.thoughts();
        let done = with(&at, "text", json!(thoughts));
        put("response.reasoning_summary_text.done", done, out);
        let part = json!({"type": "summary_text", "text": thoughts});
        put("response.reasoning_summary_part.done", with(&at, "part", part), out);
        let item = reasoning(answer);
        put("response.output_item.done", json!({"output_index": 0, "item": item}), out);
    }
}

fn text(answer: &Answer, index: u32, k: u32, out: &mut Events) {
    let id = message_id(answer);
    let at = json!({"item_id": id, "output_index": index, "content_index": 0});
    let part = |text: &str| json!({"type": "output_text", "annotations": [], "text": text});
    if k == 0 {
        let item = json!({
            "id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": [],
        });
        put("response.output_item.added", json!({"output_index": index, "item": item}), out);
        put("response.content_part.added", with(&at, "part", part("")), out);
    }
    let mut delta = with(&at, "delta", json!(answer.word(k)));
    delta["logprobs"] = json!([]);
    put("response.output_text.delta", delta, out);
    if answer.is_last_word(k) {
        let all: String = (0..answer.words()).map(|k| answer.word(k)).collect();
        let done = with(&with(&at, "text", json!(all)), "logprobs", json!([]));
        put("response.output_text.done", done, out);
        put("response.content_part.done", with(&at, "part", part(&all)), out);
        let item = message(answer, &all);
        put("response.output_item.done", json!({"output_index": index, "item": item}), out);
    }
}

fn tool(answer: &Answer, index: u32, call: u32, part: u32, out: &mut Events) {
    let item = |arguments: &str, status: &str| {
        json!({
            "id": call_id(answer, call), "type": "function_call", "status": status,
            "arguments": arguments, "call_id": answer.tool_id(0, call),
            "name": answer.tool_name(call),
        })
    };
    let at = json!({"item_id": call_id(answer, call), "output_index": index});
    if part == 0 {
        let added = json!({"output_index": index, "item": item("", "in_progress")});
        return put("response.output_item.added", added, out);
    }
    let arguments = answer.tool_arguments(call);
    let delta = with(&at, "delta", json!(arguments[part as usize - 1]));
    put("response.function_call_arguments.delta", delta, out);
    if part + 1 == TOOL_PARTS {
        let all = arguments.concat();
        put("response.function_call_arguments.done", with(&at, "arguments", json!(all)), out);
        let done = json!({"output_index": index, "item": item(&all, "completed")});
        put("response.output_item.done", done, out);
    }
}

fn with(fields: &Value, name: &str, value: Value) -> Value {
    let mut fields = fields.clone();
    fields[name] = value;
    fields
}

fn reasoning_id(answer: &Answer) -> String {
    format!("rs_{}", answer.id)
}

fn message_id(answer: &Answer) -> String {
    format!("msg_{}", answer.id)
}

fn call_id(answer: &Answer, call: u32) -> String {
    format!("fc_{}_{call}", answer.id)
}

fn reasoning(answer: &Answer) -> Value {
    let thoughts = answer.thoughts();
    json!({
        "id": reasoning_id(answer), "type": "reasoning", "encrypted_content": seal(&thoughts),
        "summary": [{"type": "summary_text", "text": thoughts}],
    })
}

fn message(answer: &Answer, text: &str) -> Value {
    json!({
        "id": message_id(answer), "type": "message", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}],
    })
}

fn output(answer: &Answer) -> Value {
    let mut items = Vec::new();
    if answer.thinks() > 0 {
        items.push(reasoning(answer));
    }
    for call in 0..answer.tool_calls() {
        items.push(json!({
            "id": call_id(answer, call), "type": "function_call", "status": "completed",
            "arguments": answer.tool_arguments(call).concat(),
            "call_id": answer.tool_id(0, call), "name": answer.tool_name(call),
        }));
    }
    if answer.tool_calls() == 0 {
        // A stream says what it streamed.
        let streamed = || (0..answer.words()).map(|k| answer.word(k)).collect();
        let text = if answer.ask.stream { streamed() } else { answer.content() };
        items.push(message(answer, &text));
    }
    Value::Array(items)
}

/// The response object; its output and usage only once it has ended.
fn response(answer: &Answer, status: &str) -> Value {
    let mut response = json!({
        "id": format!("resp_{}", answer.id), "object": "response", "created_at": answer.created,
        "status": status, "background": false, "error": null, "incomplete_details": null,
        "model": answer.ask.model, "output": [], "parallel_tool_calls": true, "store": false,
        "tool_choice": "auto", "tools": [], "usage": null,
    });
    if status == "incomplete" {
        let reason =
            if answer.finish() == "length" { "max_output_tokens" } else { "content_filter" };
        response["incomplete_details"] = json!({"reason": reason});
    }
    if matches!(status, "completed" | "incomplete") {
        let (prompt, completion) = (answer.prompt_tokens(), answer.completion_tokens());
        response["output"] = output(answer);
        response["usage"] = json!({
            "input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens()},
            "total_tokens": prompt + completion,
        });
    }
    response
}

const FIELDS: [&str; 28] = [
    "model",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "max_output_tokens",
    "max_tool_calls",
    "temperature",
    "top_p",
    "top_logprobs",
    "include",
    "store",
    "metadata",
    "user",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "previous_response_id",
    "truncation",
    "background",
    "conversation",
    "prompt",
];

fn read(body: &Value, ask: &mut Ask) -> Checked {
    let top = Spot::top(body);
    top.only(&FIELDS)?;
    ask.stream = top.get("stream").map_or(Ok(false), |stream| stream.flag())?;
    if let Some(most) = top.get("max_output_tokens") {
        most.whole(16)?;
    }
    if let Some(temperature) = top.get("temperature") {
        temperature.number(0.0, 2.0)?;
    }
    if let Some(text) = top.get("instructions") {
        ask.counts(text.text()?);
    }
    if let Some(format) = top.get("text").and_then(|text| text.get("format")) {
        let kind = format.need("type")?.one_of(&["text", "json_object", "json_schema"])?;
        if kind == "json_schema" {
            format.need("name")?.name(64, "")?;
            format.need("schema")?.object()?;
        }
    }
    for tool in top.get("tools").map_or(Ok(Vec::new()), |tools| tools.list())? {
        if tool.need("type")?.text()? == "function" {
            let names = ["type", "name", "description", "parameters", "strict"];
            tool.only(&names)?;
            ask.tools.push(tool.need("name")?.name(64, "")?.to_owned());
        }
    }
    if let Some(choice) = top.get("tool_choice") {
        match choice.value.as_str() {
            Some(_) => drop(choice.one_of(&["none", "auto", "required"])?),
            None if choice.need("type")?.value == "function" => {
                choice.need("name")?.text()?;
            }
            None => {}
        }
    }
    let input = top.need("input")?;
    match input.value.as_str() {
        Some(text) => ask.counts(text),
        None => items(&input, ask)?,
    }
    Ok(())
}

fn items(input: &Spot<'_>, ask: &mut Ask) -> Checked {
    let mut open: Vec<&str> = Vec::new();
    for item in input.filled()? {
        let kind = match item.get("type") {
            Some(kind) => kind.text()?,
            None => "message",
        };
        match kind {
            "message" => {
                let roles = ["user", "assistant", "system", "developer"];
                let role = item.need("role")?.one_of(&roles)?;
                content(&item.need("content")?, role, ask)?;
            }
            "function_call" => {
                item.need("name")?.text()?;
                item.need("arguments")?.text()?;
                open.push(item.need("call_id")?.text()?);
            }
            "function_call_output" => {
                let id = item.need("call_id")?.text()?;
                item.need("output")?;
                let Some(at) = open.iter().position(|open| *open == id) else {
                    return item.wrong(format_args!(
                        "No tool call found for function call output with call_id {id}."
                    ));
                };
                open.swap_remove(at);
            }
            "reasoning" => {
                let mut text = String::new();
                for part in item.need("summary")?.list()? {
                    part.need("type")?.one_of(&["summary_text"])?;
                    text.push_str(part.need("text")?.text()?);
                }
                if let Some(sealed) = item.get("encrypted_content")
                    && is_forged(sealed.text()?, &text)
                {
                    return item.wrong("The encrypted content could not be verified.");
                }
            }
            _ => {}
        }
    }
    match open.first() {
        Some(id) => wrong(format_args!("No tool output found for function call {id}.")),
        None => Ok(()),
    }
}

fn content(content: &Spot<'_>, role: &str, ask: &mut Ask) -> Checked {
    if let Some(text) = content.value.as_str() {
        ask.counts(text);
        return Ok(());
    }
    let (said, heard) =
        (["output_text", "refusal"], ["input_text", "input_image", "input_file", "input_audio"]);
    for part in content.list()? {
        let kind = if role == "assistant" {
            part.need("type")?.one_of(&said)?
        } else {
            part.need("type")?.one_of(&heard)?
        };
        match kind {
            "input_text" | "output_text" => ask.counts(part.need("text")?.text()?),
            "input_image" if part.get("file_id").is_none() => {
                part.need("image_url")?.text()?;
            }
            _ => {}
        }
    }
    Ok(())
}
