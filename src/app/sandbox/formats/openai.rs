//! OpenAI's chat, completions, embeddings and models, and chat at Azure.
//!
//! ```text
//! data: {"id":"chatcmpl-sandbox-b-1","object":"chat.completion.chunk",..,"choices":[{"index":0,"delta":{..
//! ```
//!
//! Of requests little is checked: unknown fields are let through, since clients send what they like, and
//! half of the tests send hardly anything.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::check::{Checked, Spot, denied, wrong};
use super::{Api, Call, Events, Format, Problem, Refused, Wire};
use crate::app::sandbox::answer::{Answer, Piece, base64};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;

/// At OpenAI or at Azure.
pub struct Openai {
    azure: bool,
}

/// OpenAI's own.
pub const PLAIN: Openai = Openai { azure: false };
/// Azure's.
pub const AZURE: Openai = Openai { azure: true };

impl Format for Openai {
    fn wire(&self) -> Wire {
        Wire::Sse
    }

    fn id_field(&self) -> &'static str {
        if self.azure { "apim-request-id" } else { "x-request-id" }
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        if call.route.api == Api::Token {
            return token(call);
        }
        if call.route.api == Api::Echo {
            ask.prompt_tokens = call.request.body.len() as u64;
            return Ok(());
        }
        credential(call, self.azure)?;
        if self.azure && call.route.model.is_some() && !call.request.query.contains("api-version=")
        {
            let message = String::from("Resource not found");
            return Err(Refusal { status: 404, message, param: None });
        }
        let body = call.body;
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        let streams = ask.api.is_turn() || ask.api == Api::Completions;
        ask.stream = streams && flag(body.get("stream"));
        ask.usage = flag(body.pointer("/stream_options/include_usage"));
        ask.n = body.get("n").and_then(Value::as_u64).map_or(1, |n| n.clamp(1, 8) as u32);
        ask.inputs = inputs(body);
        ask.base64 = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
        for text in &ask.inputs {
            ask.prompt_tokens += text.len() as u64;
        }
        if let Some(text) = body.get("prompt").and_then(Value::as_str) {
            ask.counts(text);
        }
        turn(call, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        let writer = Chunks { answer };
        match piece {
            Piece::Done => out.data("[DONE]"),
            Piece::Usage => out.data(writer.chunk("", Some(usage(answer)))),
            Piece::Role { choice } => {
                if self.azure && choice == 0 {
                    out.data(FILTERED);
                }
                let content = if answer.tool_calls() > 0 { Value::Null } else { json!("") };
                let delta = json!({"role": "assistant", "content": content, "refusal": null});
                out.data(writer.delta(choice, &delta.to_string(), None));
            }
            Piece::Reason { choice, k } => {
                let thought = answer.thought(k);
                let delta = format!(r#"{{"reasoning_content":{}}}"#, quoted(&thought));
                out.data(writer.delta(choice, &delta, None));
            }
            Piece::Text { choice, k } => out.data(match answer.ask.api {
                Api::Completions => writer.completion(choice, &word(answer, k), None),
                _ => {
                    let delta = format!(r#"{{"content":{}}}"#, word(answer, k));
                    writer.delta(choice, &delta, None)
                }
            }),
            Piece::Tool { choice, call, part } => out.data(writer.tool_part(choice, call, part)),
            Piece::Finish { choice } => out.data(match answer.ask.api {
                Api::Completions => writer.completion(choice, r#""""#, Some(answer.finish())),
                _ => writer.delta(choice, "{}", Some(answer.finish())),
            }),
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let ask = &answer.ask;
        match ask.api {
            Api::Completions => json!({
                "id": chat_id(answer), "object": "text_completion", "created": answer.created,
                "model": ask.model, "usage": usage(answer),
                "choices": (0..ask.n).map(|i| json!({
                    "index": i, "text": answer.content(), "logprobs": null,
                    "finish_reason": finish_or_null(answer),
                })).collect::<Vec<_>>(),
            }),
            Api::Embeddings => embeddings(answer),
            Api::Models => json!({
                "object": "list",
                "data": (["ok", "503", "hang", "ok,tokens=20,delay=10ms"].map(|id| json!({
                    "id": id, "object": "model", "created": answer.created,
                    "owned_by": format!("sandbox-{}", answer.name),
                }))),
            }),
            Api::Echo => json!({
                "object": "sandbox.echo", "provider": format!("sandbox {}", answer.name),
                "model": ask.model, "prompt_tokens": ask.prompt_tokens,
            }),
            Api::Token => json!({
                "access_token": "ya29.sandbox", "expires_in": 3599, "token_type": "Bearer",
            }),
            _ => chat(answer),
        }
        .to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        out.data(server_error(self, answer));
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        let (usual, kind, code) = words(problem.named, problem.status);
        let said = problem.message.is_some();
        let (kind, code) = if said { ("invalid_request_error", None) } else { (kind, code) };
        let message = problem.text(usual);
        if self.azure
            && problem.named == Named::ByStatus
            && matches!(problem.status, 401 | 404 | 429)
        {
            let code = problem.status.to_string();
            return problem.answer(&json!({"error": {"code": code, "message": message}}));
        }
        problem.answer(&error_object(&message, kind, problem.param, code))
    }
}

/// `{"error":{...}}`
pub fn error_object(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

/// What a server says that breaks down while it answers.
pub fn server_error(format: &dyn Format, answer: &Answer) -> String {
    let named = Named::ByStatus;
    let problem = Problem { status: 500, named, message: None, param: None, name: &answer.name };
    format.refuse(&problem).body
}

/// The words for a status, the class and the code, as OpenAI documents them.
pub fn words(named: Named, status: u16) -> (&'static str, &'static str, Option<&'static str>) {
    match (named, status) {
        (Named::ContextLength, _) => (
            "This model's maximum context length is 8 tokens. However, your messages resulted in more.",
            "invalid_request_error",
            Some("context_length_exceeded"),
        ),
        (Named::ContentPolicy, _) => (
            "Your request was rejected as a result of our safety system.",
            "invalid_request_error",
            Some("content_policy_violation"),
        ),
        (Named::InsufficientQuota, _) => (
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            Some("insufficient_quota"),
        ),
        (Named::ByStatus, 400 | 422) => {
            ("Invalid value for 'messages'.", "invalid_request_error", Some("invalid_value"))
        }
        (Named::BadKey, _) | (Named::ByStatus, 401) => {
            ("Incorrect API key provided.", "invalid_request_error", Some("invalid_api_key"))
        }
        (Named::ByStatus, 403) => (
            "Country, region, or territory not supported.",
            "request_forbidden",
            Some("unsupported_country_region_territory"),
        ),
        (Named::ByStatus, 404) => {
            ("The model does not exist.", "invalid_request_error", Some("model_not_found"))
        }
        (Named::ByStatus, 413) => ("The request is too large.", "invalid_request_error", None),
        (Named::ByStatus, 429) => {
            ("Rate limit reached for requests.", "requests", Some("rate_limit_exceeded"))
        }
        (Named::ByStatus, 503) => {
            ("The engine is currently overloaded.", "server_error", Some("overloaded"))
        }
        (Named::ByStatus, 500..) => ("The server had an error.", "server_error", None),
        (Named::ByStatus, _) => ("The request was refused.", "invalid_request_error", None),
    }
}

/// What Azure says before everything else.
const FILTERED: &str = r#"{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"filtered":false,"detected":false}}}]}"#;

/// A credential, if there is one, is in the place that this vendor looks at.
pub fn credential(call: &Call<'_>, azure: bool) -> Checked {
    let field = |name| call.request.field(name);
    let bearer = field("authorization").map(|value| value.starts_with("Bearer "));
    let foreign = ["x-api-key", "x-goog-api-key", if azure { "" } else { "api-key" }];
    match bearer {
        Some(false) => denied("You didn't provide an API key in an Authorization header (Bearer)."),
        Some(true) => Ok(()),
        None if foreign.iter().any(|name| field(name).is_some()) => {
            denied("You didn't provide an API key where this API looks for it.")
        }
        None => Ok(()),
    }
}

/// Reads tools and messages, as far as they are there.
pub fn turn(call: &Call<'_>, ask: &mut Ask) -> Checked {
    let top = Spot::top(call.body);
    if let Some(tools) = top.get("tools") {
        for tool in tools.list()? {
            // A custom tool is no function.
            if let Some(function) = tool.get("function") {
                ask.tools.push(function.need("name")?.name(64, "")?.to_owned());
            }
        }
    }
    let Some(messages) = top.get("messages").filter(|spot| spot.value.is_array()) else {
        return Ok(());
    };
    let mut open: Vec<&str> = Vec::new();
    for message in messages.list()? {
        let roles = ["system", "developer", "user", "assistant", "tool", "function"];
        let role = message.need("role")?.one_of(&roles)?;
        if role == "tool" {
            let id = message.need("tool_call_id")?.text()?;
            let Some(at) = open.iter().position(|open| *open == id) else {
                return message.wrong(
                    "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'",
                );
            };
            open.swap_remove(at);
            continue;
        }
        if let Some(id) = open.first() {
            return message.wrong(format_args!(
                "an assistant message with 'tool_calls' must be followed by tool messages: {id}"
            ));
        }
        if let Some(content) = message.get("content") {
            texts(&content, ask)?;
        } else if role != "assistant" {
            message.need("content")?;
        }
        for made in message.get("tool_calls").map_or(Ok(Vec::new()), |calls| calls.filled())? {
            open.push(made.need("id")?.text()?);
            if let Some(function) = made.get("function") {
                function.need("name")?.text()?;
                function.need("arguments")?.text()?;
            }
        }
    }
    match open.first() {
        Some(id) => wrong(format_args!("no tool message answers the call {id}")),
        None => Ok(()),
    }
}

/// Counts the texts of a message's content.
fn texts(content: &Spot<'_>, ask: &mut Ask) -> Checked {
    if let Some(text) = content.value.as_str() {
        ask.counts(text);
        return Ok(());
    }
    for part in content.list()? {
        if part.need("type")?.text()? == "text" {
            ask.counts(part.need("text")?.text()?);
        }
    }
    Ok(())
}

/// A service account's request for a token: RFC 7523 section 2.1.
fn token(call: &Call<'_>) -> Checked {
    let form = String::from_utf8_lossy(&call.request.body);
    let of = |name| form.split('&').filter_map(|pair| pair.split_once('=')).find(|p| p.0 == name);
    let grant = of("grant_type").map_or("", |pair| pair.1);
    let assertion = of("assertion").map_or("", |pair| pair.1);
    let grant = super::decoded(grant).unwrap_or_default();
    if grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
        return wrong("unsupported_grant_type");
    }
    if assertion.split('.').filter(|part| !part.is_empty()).count() != 3 {
        return wrong("invalid_grant: Invalid JWT");
    }
    Ok(())
}

fn inputs(body: &Value) -> Vec<String> {
    match body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) if list.iter().all(Value::is_number) => vec![format!("{list:?}")],
        Some(Value::Array(list)) => list
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

fn chat_id(answer: &Answer) -> String {
    format!("chatcmpl-{}", answer.id)
}

fn finish_or_null(answer: &Answer) -> Value {
    if answer.script.no_finish { Value::Null } else { json!(answer.finish()) }
}

/// The token counts of an answer.
pub fn usage(answer: &Answer) -> Value {
    let (prompt, completion) = (answer.prompt_tokens(), answer.completion_tokens());
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens(), "audio_tokens": 0,
        },
    })
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A word as a JSON string. A giant one needs no escapes, and looking for them takes its time.
fn word(answer: &Answer, k: u32) -> String {
    let word = answer.word(k);
    if answer.stretch.is_some() { format!("\"{word}\"") } else { quoted(&word) }
}

/// Writes chunks by hand: the fields come in the vendor's order, and a load run makes one for each token.
struct Chunks<'a> {
    answer: &'a Answer,
}

impl Chunks<'_> {
    fn chunk(&self, choices: &str, usage: Option<Value>) -> String {
        let Answer { id, created, ask, .. } = self.answer;
        let (start, object) = match ask.api {
            Api::Completions => ("chatcmpl", "text_completion"),
            _ => ("chatcmpl", "chat.completion.chunk"),
        };
        let mut out = format!(
            r#"{{"id":"{start}-{id}","object":"{object}","created":{created},"model":{},"system_fingerprint":null,"choices":[{choices}]"#,
            quoted(&ask.model),
        );
        if ask.usage {
            // Writing to a String can't fail.
            let _ = match usage {
                Some(usage) => write!(out, r#","usage":{usage}"#),
                None => write!(out, r#","usage":null"#),
            };
        }
        out.push('}');
        out
    }

    fn delta(&self, choice: u32, delta: &str, finish: Option<&str>) -> String {
        self.choice(choice, &format!(r#""delta":{delta}"#), finish)
    }

    /// `text` is a JSON string.
    fn completion(&self, choice: u32, text: &str, finish: Option<&str>) -> String {
        self.choice(choice, &format!(r#""text":{text}"#), finish)
    }

    fn choice(&self, index: u32, what: &str, finish: Option<&str>) -> String {
        let finish = finish.map_or_else(|| "null".to_owned(), quoted);
        let choice =
            format!(r#"{{"index":{index},{what},"logprobs":null,"finish_reason":{finish}}}"#);
        self.chunk(&choice, None)
    }

    fn tool_part(&self, choice: u32, call: u32, part: u32) -> String {
        let answer = self.answer;
        let fragment = match part {
            0 => json!({
                "index": call, "id": answer.tool_id(choice, call), "type": "function",
                "function": {"name": answer.tool_name(call), "arguments": ""},
            }),
            _ => {
                let arguments = &answer.tool_arguments(call)[part as usize - 1];
                json!({"index": call, "function": {"arguments": arguments}})
            }
        };
        self.delta(choice, &json!({"tool_calls": [fragment]}).to_string(), None)
    }
}

fn chat(answer: &Answer) -> Value {
    let calls = answer.tool_calls();
    let message = |i: u32| {
        let mut message = json!({"role": "assistant", "refusal": null, "annotations": []});
        if calls > 0 {
            let call = |k: u32| {
                json!({
                    "id": answer.tool_id(i, k), "type": "function",
                    "function": {
                        "name": answer.tool_name(k),
                        "arguments": answer.tool_arguments(k).concat(),
                    },
                })
            };
            message["content"] = Value::Null;
            message["tool_calls"] = (0..calls).map(call).collect();
        } else {
            message["content"] = json!(answer.content());
        }
        if answer.thinks() > 0 {
            message["reasoning_content"] = json!(answer.thoughts());
        }
        message
    };
    json!({
        "id": chat_id(answer), "object": "chat.completion", "created": answer.created,
        "model": answer.ask.model, "system_fingerprint": null, "usage": usage(answer),
        "choices": (0..answer.ask.n).map(|i| json!({
            "index": i, "message": message(i), "logprobs": null,
            "finish_reason": finish_or_null(answer),
        })).collect::<Vec<_>>(),
    })
}

fn embeddings(answer: &Answer) -> Value {
    let vector = |text: &String| -> Value {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let floats: Vec<f32> = (0..8)
            .map(|i| {
                for byte in text.bytes().chain([i]) {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                (hash >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        if answer.ask.base64 {
            let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
            json!(base64(&bytes))
        } else {
            json!(floats)
        }
    };
    let rows = answer.ask.inputs.iter().enumerate();
    let prompt = answer.prompt_tokens();
    json!({
        "object": "list", "model": answer.ask.model,
        "data": rows.map(|(i, text)| json!({
            "object": "embedding", "index": i, "embedding": vector(text),
        })).collect::<Vec<_>>(),
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    })
}
