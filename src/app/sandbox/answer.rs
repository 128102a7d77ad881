//! The bodies of a sandbox provider's answers: OpenAI's shapes, and a text that names the provider, so
//! that whoever sees a byte knows whose it is. Pure.
//!
//! A streamed answer is a *program*: a row of sections, whose k-th event is computed when it is due.
//!
//! ```text
//! role * n | reasoning * n | text or tools * n | finish * n | usage | [DONE]
//! ```

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::ask::{Ask, Call};
use super::script::{Named, Script};

/// One answer: what it is made from.
pub struct Answer {
    /// The provider's name: `a`, `b`, ...
    pub name: String,
    /// `chatcmpl-sandbox-b-17`
    pub id: String,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// What was asked.
    pub ask: Ask,
    /// What it is told to do.
    pub script: Script,
}

/// One event of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Role { choice: u32 },
    Reason { choice: u32, k: u32 },
    Text { choice: u32, k: u32 },
    Tool { choice: u32, call: u32, part: u32 },
    Finish { choice: u32 },
    Usage,
    Done,
}

/// Fragments of one tool call: its name, then three of its arguments.
const TOOL_PARTS: u32 = 4;

/// The text that provider `name` answers with in `tokens` content events.
pub fn text(name: &str, tokens: u32) -> String {
    (0..tokens).map(|k| token(name, k)).collect()
}

/// How many pieces a part of a stream has, and what each is, by its number and the number of choices.
type Section = (u32, fn(u32, u32) -> Piece);

fn token(name: &str, k: u32) -> String {
    if k == 0 { format!("Hello from sandbox {name}.") } else { format!(" token-{k}") }
}

impl Answer {
    /// The `data:` payload of event `k`, counted from 0; `None` past the end of the program.
    pub fn event(&self, k: u32) -> Option<String> {
        Some(match self.piece(k)? {
            Piece::Done => "[DONE]".to_owned(),
            Piece::Usage => self.chunk("", Some(self.usage())),
            Piece::Role { choice } => {
                let content = if self.tool_calls() > 0 { Value::Null } else { json!("") };
                let delta = json!({"role": "assistant", "content": content, "refusal": null});
                self.delta(choice, &delta.to_string(), None)
            }
            Piece::Reason { choice, k } => {
                self.delta(choice, &format!(r#"{{"reasoning_content":"thought-{k} "}}"#), None)
            }
            Piece::Text { choice, k } => match self.ask.call {
                Call::Completions => self.completion(choice, &self.word(k), None),
                _ => {
                    self.delta(choice, &format!(r#"{{"content":{}}}"#, quoted(&self.word(k))), None)
                }
            },
            Piece::Tool { choice, call, part } => self.tool_part(choice, call, part),
            Piece::Finish { choice } => match self.ask.call {
                Call::Completions => self.completion(choice, "", Some(self.finish())),
                _ => self.delta(choice, "{}", Some(self.finish())),
            },
        })
    }

    /// How many events the program has.
    pub fn events(&self) -> u32 {
        self.sections().iter().map(|(count, _)| count).sum()
    }

    /// The whole answer, not streamed.
    pub fn whole(&self) -> String {
        match self.ask.call {
            Call::Chat => self.chat().to_string(),
            Call::Completions => json!({
                "id": self.id, "object": "text_completion", "created": self.created,
                "model": self.ask.model, "usage": self.usage(),
                "choices": (0..self.ask.n).map(|i| json!({
                    "index": i, "text": self.content(), "logprobs": null,
                    "finish_reason": self.finish_or_null(),
                })).collect::<Vec<_>>(),
            })
            .to_string(),
            Call::Embeddings => self.embeddings().to_string(),
            Call::Models => json!({
                "object": "list",
                "data": (["ok", "503", "hang", "ok,tokens=20,delay=10ms"].map(|id| json!({
                    "id": id, "object": "model", "created": self.created,
                    "owned_by": format!("sandbox-{}", self.name),
                }))),
            })
            .to_string(),
            Call::Echo => json!({
                "object": "sandbox.echo", "provider": format!("sandbox {}", self.name),
                "model": self.ask.model, "prompt_tokens": self.ask.prompt_tokens,
            })
            .to_string(),
        }
    }

    /// An event in place of another one, whose payload has about `bytes`.
    pub fn giant(&self, bytes: usize) -> String {
        match self.ask.call {
            Call::Completions => self.completion(0, &"x".repeat(bytes), None),
            _ => self.delta(0, &format!(r#"{{"content":"{}"}}"#, "x".repeat(bytes)), None),
        }
    }

    fn sections(&self) -> [Section; 6] {
        let n = self.ask.n;
        let chat = self.ask.call == Call::Chat;
        let ends = !self.script.no_finish;
        let tools = self.tool_calls();
        let middle: Section = if tools > 0 {
            (tools * TOOL_PARTS * n, |k, n| Piece::Tool {
                choice: k % n,
                call: k / n / TOOL_PARTS,
                part: k / n % TOOL_PARTS,
            })
        } else {
            (self.words() * n, |k, n| Piece::Text { choice: k % n, k: k / n })
        };
        let reasoning = if chat { self.script.reasoning * n } else { 0 };
        [
            (if chat { n } else { 0 }, |k, _| Piece::Role { choice: k }),
            (reasoning, |k, n| Piece::Reason { choice: k % n, k: k / n }),
            middle,
            (if ends { n } else { 0 }, |k, _| Piece::Finish { choice: k }),
            (u32::from(ends && self.ask.usage), |_, _| Piece::Usage),
            (u32::from(ends && !self.script.no_done), |_, _| Piece::Done),
        ]
    }

    fn piece(&self, mut k: u32) -> Option<Piece> {
        for (count, piece) in self.sections() {
            if k < count {
                return Some(piece(k, self.ask.n));
            }
            k -= count;
        }
        None
    }

    /// How many tool calls it makes: as the script says, if the request has tools.
    fn tool_calls(&self) -> u32 {
        let asked = self.ask.call == Call::Chat && !self.ask.tools.is_empty();
        if asked { self.script.tools } else { 0 }
    }

    fn words(&self) -> u32 {
        match &self.script.text {
            Some(text) => text.split_inclusive(' ').count() as u32,
            None => self.script.tokens,
        }
    }

    fn word(&self, k: u32) -> String {
        match &self.script.text {
            Some(text) => text.split_inclusive(' ').nth(k as usize).unwrap_or_default().to_owned(),
            None => token(&self.name, k),
        }
    }

    /// The text of a whole answer.
    fn content(&self) -> String {
        let mut text = match &self.script.text {
            Some(text) => text.clone(),
            None => text(&self.name, self.script.tokens),
        };
        if let Some(bytes) = self.script.big {
            text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
        }
        text
    }

    fn finish(&self) -> &str {
        let usual = if self.tool_calls() > 0 { "tool_calls" } else { "stop" };
        self.script.finish.as_deref().unwrap_or(usual)
    }

    fn finish_or_null(&self) -> Value {
        if self.script.no_finish { Value::Null } else { json!(self.finish()) }
    }

    fn usage(&self) -> Value {
        let reasoning = u64::from(self.script.reasoning);
        let completion = u64::from(self.words()) * u64::from(self.ask.n) + reasoning;
        json!({
            "prompt_tokens": self.ask.prompt_tokens, "completion_tokens": completion,
            "total_tokens": self.ask.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
        })
    }

    /// A chunk around `choices`. Written by hand: the fields come in the vendor's order, and a load
    /// run makes one of these for each token.
    fn chunk(&self, choices: &str, usage: Option<Value>) -> String {
        let object = match self.ask.call {
            Call::Completions => "text_completion",
            _ => "chat.completion.chunk",
        };
        let mut out = format!(
            r#"{{"id":"{}","object":"{object}","created":{},"model":{},"system_fingerprint":null,"choices":[{choices}]"#,
            self.id,
            self.created,
            quoted(&self.ask.model),
        );
        if self.ask.usage {
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

    fn completion(&self, choice: u32, text: &str, finish: Option<&str>) -> String {
        self.choice(choice, &format!(r#""text":{}"#, quoted(text)), finish)
    }

    fn choice(&self, index: u32, what: &str, finish: Option<&str>) -> String {
        let finish = finish.map_or_else(|| "null".to_owned(), quoted);
        let choice =
            format!(r#"{{"index":{index},{what},"logprobs":null,"finish_reason":{finish}}}"#);
        self.chunk(&choice, None)
    }

    fn tool_name(&self, call: u32) -> &str {
        let tools = &self.ask.tools;
        tools.get(call as usize % tools.len().max(1)).map_or("tool", String::as_str)
    }

    fn tool_id(&self, choice: u32, call: u32) -> String {
        format!("call_{}_{choice}_{call}", self.name)
    }

    fn tool_arguments(&self, call: u32) -> [String; 3] {
        [r#"{"from":"#.into(), format!(r#""sandbox {}","call":"#, self.name), format!("{call}}}")]
    }

    fn tool_part(&self, choice: u32, call: u32, part: u32) -> String {
        let fragment = match part {
            0 => json!({
                "index": call, "id": self.tool_id(choice, call), "type": "function",
                "function": {"name": self.tool_name(call), "arguments": ""},
            }),
            _ => {
                let arguments = &self.tool_arguments(call)[part as usize - 1];
                json!({"index": call, "function": {"arguments": arguments}})
            }
        };
        self.delta(choice, &json!({"tool_calls": [fragment]}).to_string(), None)
    }

    fn chat(&self) -> Value {
        let calls = self.tool_calls();
        let message = |i: u32| {
            let mut message = json!({"role": "assistant", "refusal": null, "annotations": []});
            if calls > 0 {
                let call = |k: u32| {
                    json!({
                        "id": self.tool_id(i, k), "type": "function",
                        "function": {
                            "name": self.tool_name(k), "arguments": self.tool_arguments(k).concat(),
                        },
                    })
                };
                message["content"] = Value::Null;
                message["tool_calls"] = (0..calls).map(call).collect();
            } else {
                message["content"] = json!(self.content());
            }
            if self.script.reasoning > 0 {
                let thoughts = (0..self.script.reasoning).map(|k| format!("thought-{k} "));
                message["reasoning_content"] = json!(thoughts.collect::<String>());
            }
            message
        };
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created,
            "model": self.ask.model, "system_fingerprint": null, "usage": self.usage(),
            "choices": (0..self.ask.n).map(|i| json!({
                "index": i, "message": message(i), "logprobs": null,
                "finish_reason": self.finish_or_null(),
            })).collect::<Vec<_>>(),
        })
    }

    fn embeddings(&self) -> Value {
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
            if self.ask.base64 {
                let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64(&bytes))
            } else {
                json!(floats)
            }
        };
        let rows = self.ask.inputs.iter().enumerate();
        json!({
            "object": "list", "model": self.ask.model,
            "data": rows.map(|(i, text)| json!({
                "object": "embedding", "index": i, "embedding": vector(text),
            })).collect::<Vec<_>>(),
            "usage": {
                "prompt_tokens": self.ask.prompt_tokens, "total_tokens": self.ask.prompt_tokens,
            },
        })
    }
}

/// The error object of a status, as OpenAI documents it; the message names the provider.
pub fn error(name: &str, status: u16, fault: Named) -> String {
    let (message, kind, code) = match (fault, status) {
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
        (Named::ByStatus, 401) => {
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
    };
    error_object(&format!("{message} (sandbox {name})"), kind, None, code)
}

/// `{"error":{...}}`
pub fn error_object(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> String {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}}).to_string()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// RFC 4648 section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(call: Call, script: &str) -> Answer {
        Answer {
            name: "b".into(),
            id: "chatcmpl-sandbox-b-1".into(),
            created: 7,
            ask: Ask {
                call,
                model: script.into(),
                stream: true,
                usage: true,
                n: 1,
                tools: vec!["look".into()],
                inputs: vec!["one".into(), "two".into()],
                base64: false,
                prompt_tokens: 3,
            },
            script: Script::parse(script).expect("a script"),
        }
    }

    fn events(answer: &Answer) -> Vec<Value> {
        let payloads: Vec<String> = (0..).map_while(|k| answer.event(k)).collect();
        assert_eq!(payloads.len(), answer.events() as usize);
        payloads
            .iter()
            .map(|text| match text.as_str() {
                "[DONE]" => json!("[DONE]"),
                text => serde_json::from_str(text).expect("JSON"),
            })
            .collect()
    }

    fn said(events: &[Value], pointer: &str) -> String {
        events.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect()
    }

    #[test]
    fn a_stream_has_the_vendors_order() {
        let found = events(&answer(Call::Chat, "ok,tokens=3"));
        assert_eq!(found.len(), 1 + 3 + 1 + 1 + 1);
        assert_eq!(found[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(said(&found, "/choices/0/delta/content"), text("b", 3));
        assert_eq!(text("b", 3), "Hello from sandbox b. token-1 token-2");
        assert_eq!(found[4]["choices"][0]["finish_reason"], "stop");
        assert_eq!(found[3]["usage"], Value::Null);
        assert_eq!(
            (&found[5]["choices"], &found[5]["usage"]["total_tokens"]),
            (&json!([]), &json!(6))
        );
        assert_eq!(found[6], "[DONE]");
    }

    #[test]
    fn usage_comes_only_if_asked_for() {
        let mut answer = answer(Call::Chat, "ok");
        answer.ask.usage = false;
        assert!(events(&answer).iter().all(|event| event.get("usage").is_none()));
    }

    #[test]
    fn ends_can_be_left_out() {
        let without_done = events(&answer(Call::Chat, "no_done"));
        assert!(without_done.last().expect("events")["usage"].is_object());
        let without_finish = events(&answer(Call::Chat, "no_finish"));
        let last = &without_finish.last().expect("events")["choices"][0];
        assert_eq!(
            (&last["finish_reason"], &last["delta"]["content"]),
            (&Value::Null, &json!(" token-7"))
        );
    }

    #[test]
    fn choices_interleave_and_each_finishes_once() {
        let mut answer = answer(Call::Chat, "ok,tokens=2");
        answer.ask.n = 3;
        let found = events(&answer);
        let finishes: Vec<_> = found
            .iter()
            .filter(|event| event["choices"][0]["finish_reason"].is_string())
            .map(|event| event["choices"][0]["index"].as_u64())
            .collect();
        assert_eq!(finishes, [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn tool_calls_come_in_fragments_that_join_to_json() {
        let answer = answer(Call::Chat, "tools=2,reasoning=1");
        let found = events(&answer);
        for call in 0..2 {
            let of_call: Vec<_> = found
                .iter()
                .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0"))
                .filter(|part| part["index"] == call)
                .cloned()
                .collect();
            assert_eq!(of_call[0]["function"]["name"], "look");
            let joined = said(&of_call, "/function/arguments");
            let arguments: Value = serde_json::from_str(&joined).expect("JSON");
            assert_eq!(arguments, json!({"from": "sandbox b", "call": call}));
        }
        assert_eq!(said(&found, "/choices/0/finish_reason"), "tool_calls");
        assert_eq!(said(&found, "/choices/0/delta/reasoning_content"), "thought-0 ");
        let whole: Value = serde_json::from_str(&answer.whole()).expect("JSON");
        assert_eq!(whole["choices"][0]["message"]["tool_calls"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn whole_answers_have_the_vendors_shape() {
        let whole = |call, script| -> Value {
            serde_json::from_str(&answer(call, script).whole()).expect("JSON")
        };
        let chat = whole(Call::Chat, "ok,text=two words");
        assert_eq!(chat["choices"][0]["message"]["content"], "two words");
        let big = whole(Call::Chat, "big=4KiB");
        assert_eq!(big["choices"][0]["message"]["content"].as_str().map(str::len), Some(4096));
        let text = whole(Call::Completions, "ok,tokens=1");
        assert_eq!(text["choices"][0]["text"], "Hello from sandbox b.");
        assert_eq!(
            whole(Call::Embeddings, "ok")["data"][1]["embedding"].as_array().map(Vec::len),
            Some(8)
        );
        assert_eq!(whole(Call::Models, "ok")["data"][0]["id"], "ok");
        assert_eq!(whole(Call::Echo, "ok")["provider"], "sandbox b");
    }

    #[test]
    fn errors_are_objects_that_name_the_provider() {
        for status in 400..=599 {
            let object: Value =
                serde_json::from_str(&error("b", status, Named::ByStatus)).expect("JSON");
            let message = object["error"]["message"].as_str().expect("a message");
            assert!(message.ends_with("(sandbox b)"), "{message}");
        }
        assert!(error("b", 400, Named::ContextLength).contains("context_length_exceeded"));
    }

    #[test]
    fn base64_as_the_rfc_shows_it() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
