//! Gemini's `generateContent` and `streamGenerateContent`, at Google AI and at Vertex.
//!
//! ```text
//! data: {"candidates":[{"content":{"role":"model","parts":[{"text":" token-1"}]},"index":0}],..}
//! ```
//!
//! There is no event for the role and none for the end: the first holds an empty text, the last says why
//! it is the last. A call is one part, made when its last fragment is due.

use serde_json::{Value, json};

use super::check::{Checked, denied};
use super::{Call, Events, Format, Problem, Refused, Wire, seal};
use crate::app::sandbox::answer::{Answer, Piece, TOOL_PARTS};
use crate::app::sandbox::ask::{Ask, Refusal};
use crate::app::sandbox::script::Named;

/// At Google AI or at Vertex.
pub struct Gemini {
    vertex: bool,
}

/// Google AI's.
pub const GEMINI: Gemini = Gemini { vertex: false };
/// Vertex's.
pub const VERTEX: Gemini = Gemini { vertex: true };

impl Format for Gemini {
    fn wire(&self) -> Wire {
        Wire::SseCrlf
    }

    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal> {
        if self.vertex {
            bearer(call)?;
        } else {
            let field = |name| call.request.field(name).is_some();
            let keyed = field("x-goog-api-key") || call.request.query.contains("key=");
            if !keyed && (field("authorization") || field("x-api-key") || field("api-key")) {
                return Err(Refusal {
                    status: 403,
                    message: String::from("Method doesn't allow unregistered callers."),
                    param: None,
                });
            }
        }
        if ask.stream && !call.request.query.split('&').any(|pair| pair == "alt=sse") {
            let message = "the sandbox streams as server-sent events only: ask for alt=sse";
            return super::check::wrong(message);
        }
        super::gemini_check::read(call.body, self.vertex, ask)
    }

    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events) {
        match piece {
            Piece::Role { choice } => {
                out.data(self.event(answer, choice, json!([{"text": ""}]), None));
            }
            Piece::Reason { choice, k } => {
                let mut part = json!({"text": answer.thought(k), "thought": true});
                if k + 1 == answer.thinks() {
                    // A signature is of its own part.
                    part["thoughtSignature"] = json!(seal(&answer.thought(k)));
                }
                out.data(self.event(answer, choice, json!([part]), None));
            }
            Piece::Text { choice, k } => {
                let parts = json!([{"text": answer.word(k)}]);
                out.data(self.event(answer, choice, parts, None));
            }
            Piece::Tool { choice, call, part } if part + 1 == TOOL_PARTS => {
                out.data(self.event(answer, choice, json!([tool(answer, call)]), None));
            }
            Piece::Tool { .. } | Piece::Usage | Piece::Done => {}
            Piece::Finish { choice } => {
                let parts = json!([{"text": ""}]);
                out.data(self.event(answer, choice, parts, Some(finish(answer))));
            }
        }
    }

    fn whole(&self, answer: &Answer) -> String {
        let mut parts = Vec::new();
        if answer.thinks() > 0 {
            let thoughts = answer.thoughts();
            let signature = seal(&thoughts);
            parts.push(json!({"text": thoughts, "thought": true, "thoughtSignature": signature}));
        }
        parts.extend((0..answer.tool_calls()).map(|call| tool(answer, call)));
        if answer.tool_calls() == 0 {
            parts.push(json!({"text": answer.content()}));
        }
        let finish = (!answer.script.no_finish).then(|| finish(answer));
        let mut whole = self.event(answer, 0, Value::Array(parts), finish);
        if let Some(list) = whole["candidates"].as_array_mut() {
            for index in 1..answer.ask.n {
                let mut copy = list[0].clone();
                copy["index"] = json!(index);
                list.push(copy);
            }
        }
        whole.to_string()
    }

    fn fail(&self, answer: &Answer, out: &mut Events) {
        let named = Named::ByStatus;
        let name = &answer.name;
        let problem = Problem { status: 503, named, message: None, param: None, name };
        out.data(refuse(&problem, self.vertex).body);
    }

    fn refuse(&self, problem: &Problem<'_>) -> Refused {
        refuse(problem, self.vertex)
    }
}

impl Gemini {
    fn event(&self, answer: &Answer, choice: u32, parts: Value, finish: Option<&str>) -> Value {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": choice});
        let mut usage = json!({"promptTokenCount": answer.prompt_tokens()});
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
            let thoughts = answer.reasoning_tokens();
            usage["candidatesTokenCount"] = json!(answer.completion_tokens() - thoughts);
            if thoughts > 0 {
                usage["thoughtsTokenCount"] = json!(thoughts);
            }
        }
        let spent = if finish.is_some() { answer.completion_tokens() } else { 0 };
        usage["totalTokenCount"] = json!(answer.prompt_tokens() + spent);
        if self.vertex {
            usage["trafficType"] = json!("ON_DEMAND");
        }
        json!({
            "candidates": [candidate], "usageMetadata": usage, "modelVersion": answer.ask.model,
            "responseId": answer.id,
        })
    }
}

/// A credential, if there is one, is a bearer's: an access token of Google's.
pub fn bearer(call: &Call<'_>) -> Checked {
    let field = |name| call.request.field(name);
    match field("authorization") {
        Some(value) if value.starts_with("Bearer ") => Ok(()),
        // Express mode has a key.
        None if field("x-api-key").is_none() && field("api-key").is_none() => Ok(()),
        _ => {
            denied("Request had invalid authentication credentials. Expected OAuth 2 access token.")
        }
    }
}

/// An error answer in Google's form.
pub fn refuse(problem: &Problem<'_>, vertex: bool) -> Refused {
    // A wrong key is a bad request, a wrong token is not.
    let bad_key = problem.named == Named::BadKey && !vertex;
    let named =
        if bad_key || problem.named != Named::BadKey { problem.named } else { Named::ByStatus };
    let (usual, status) = words(named, problem.status);
    let message = problem.text(usual);
    let code = if bad_key { 400 } else { problem.status };
    let mut error = json!({"code": code, "message": message, "status": status});
    if bad_key {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }]);
    }
    if code == 429 {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaMetric": "generate_content_requests"}],
        }]);
    }
    Refused { status: code, ..problem.answer(&json!({"error": error})) }
}

fn words(named: Named, status: u16) -> (&'static str, &'static str) {
    match (named, status) {
        (Named::ContextLength, _) => (
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            "INVALID_ARGUMENT",
        ),
        (Named::ContentPolicy, _) => ("The prompt was blocked for safety.", "INVALID_ARGUMENT"),
        (Named::InsufficientQuota, _) => (
            "You exceeded your current quota, please check your plan and billing details.",
            "RESOURCE_EXHAUSTED",
        ),
        (Named::BadKey, _) => {
            ("API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT")
        }
        (Named::ByStatus, 401) => {
            ("Request had invalid authentication credentials.", "UNAUTHENTICATED")
        }
        (Named::ByStatus, 403) => ("Permission denied.", "PERMISSION_DENIED"),
        (Named::ByStatus, 404) => ("The model is not found.", "NOT_FOUND"),
        (Named::ByStatus, 429) => ("Resource has been exhausted.", "RESOURCE_EXHAUSTED"),
        (Named::ByStatus, 499) => ("The operation was cancelled.", "CANCELLED"),
        (Named::ByStatus, 503) => {
            ("The model is overloaded. Please try again later.", "UNAVAILABLE")
        }
        (Named::ByStatus, 504) => ("Deadline expired before operation.", "DEADLINE_EXCEEDED"),
        (Named::ByStatus, 500..) => ("An internal error has occurred.", "INTERNAL"),
        (Named::ByStatus, _) => ("Request contains an invalid argument.", "INVALID_ARGUMENT"),
    }
}

fn finish(answer: &Answer) -> &'static str {
    match answer.finish() {
        "length" => "MAX_TOKENS",
        "content_filter" => "SAFETY",
        _ => "STOP",
    }
}

fn tool(answer: &Answer, call: u32) -> Value {
    let (name, input) = (answer.tool_name(call), answer.tool_input(call));
    let mut part = json!({"functionCall": {"name": name, "args": input}});
    if call == 0 {
        // Only the first call of a step is signed.
        part["thoughtSignature"] = json!(seal(&input.to_string()));
    }
    part
}
