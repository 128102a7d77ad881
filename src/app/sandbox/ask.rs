//! What a request to a sandbox provider asks for: the few fields that its answer depends on.

use serde_json::Value;

use super::http::Request;
use super::script::{GRAMMAR, Script};

/// Which of OpenAI's calls it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `GET /v1/models`
    Models,
    /// Another path: answered by an echo of what came.
    Echo,
}

/// The fields that matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Which call.
    pub call: Call,
    /// The model as it was asked for.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// `stream_options.include_usage`
    pub usage: bool,
    /// Choices, 1 to 8.
    pub n: u32,
    /// The names of the request's function tools.
    pub tools: Vec<String>,
    /// Texts to embed.
    pub inputs: Vec<String>,
    /// Embeddings as base64.
    pub base64: bool,
    /// Prompt tokens: a quarter of the body's bytes.
    pub prompt_tokens: u64,
}

/// An error before any script ran: status, message, parameter.
pub type Refusal = (u16, String, Option<&'static str>);

/// The model name that an override changes the meaning of, and that requests without a model have.
pub const PLAIN: &str = "ok";

impl Ask {
    /// Reads a request's path and body.
    ///
    /// # Errors
    /// 400 for a body that is not an object with a `model`, 405 for a wrong method.
    pub fn read(request: &Request) -> Result<Ask, Refusal> {
        let call = match request.path.as_str() {
            "/v1/chat/completions" => Call::Chat,
            "/v1/completions" => Call::Completions,
            "/v1/embeddings" => Call::Embeddings,
            "/v1/models" => Call::Models,
            _ => Call::Echo,
        };
        let method = if call == Call::Models { "GET" } else { "POST" };
        if call != Call::Echo && request.method != method {
            return Err((405, format!("Method {} is not allowed here.", request.method), None));
        }
        let body: Value = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(_) if matches!(call, Call::Models | Call::Echo) => Value::Null,
            Err(error) => return Err((400, format!("The body is not JSON: {error}."), None)),
        };
        let model = match body.get("model").and_then(Value::as_str) {
            Some(model) => model,
            None if matches!(call, Call::Models | Call::Echo) => PLAIN,
            None => {
                return Err((400, "You must provide a model parameter.".to_owned(), Some("model")));
            }
        };
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        Ok(Ask {
            call,
            model: model.to_owned(),
            stream: matches!(call, Call::Chat | Call::Completions) && flag(body.get("stream")),
            usage: flag(body.pointer("/stream_options/include_usage")),
            n: body.get("n").and_then(Value::as_u64).map_or(1, |n| n.clamp(1, 8) as u32),
            tools: tools(&body),
            inputs: inputs(&body),
            base64: body.get("encoding_format").and_then(Value::as_str) == Some("base64"),
            prompt_tokens: (request.body.len() as u64).div_ceil(4),
        })
    }

    /// The script that the model's name is, or the override's where the name is a plain one.
    ///
    /// # Errors
    /// 400 with the grammar, for a name that is no script.
    pub fn script(&self, over: Option<&Script>) -> Result<Script, Refusal> {
        if let (Some(script), PLAIN) = (over, self.model.as_str()) {
            return Ok(script.clone());
        }
        Script::parse(&self.model)
            .map_err(|why| (400, format!("{why}. The grammar:\n{GRAMMAR}"), Some("model")))
    }
}

fn tools(body: &Value) -> Vec<String> {
    let tools = body.get("tools").and_then(Value::as_array);
    let name = |tool: &Value| tool.pointer("/function/name")?.as_str().map(str::to_owned);
    tools.into_iter().flatten().filter_map(name).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sandbox::script::Verb;

    fn post(path: &str, body: &str) -> Request {
        Request {
            method: "POST".into(),
            path: path.into(),
            fields: Vec::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn reads_what_the_answer_depends_on() {
        let body = r#"{"model":"tools=2","stream":true,"n":3,"stream_options":{"include_usage":true},
            "tools":[{"type":"function","function":{"name":"look"}}]}"#;
        let ask = Ask::read(&post("/v1/chat/completions", body)).expect("an ask");
        assert_eq!((ask.call, ask.stream, ask.usage, ask.n), (Call::Chat, true, true, 3));
        assert_eq!(ask.tools, ["look"]);
        assert_eq!(ask.script(None).expect("a script").tools, 2);
        let body = r#"{"model":"ok","input":["a","b"],"encoding_format":"base64","stream":true}"#;
        let ask = Ask::read(&post("/v1/embeddings", body)).expect("an ask");
        assert_eq!((ask.inputs.len(), ask.base64, ask.stream), (2, true, false));
    }

    #[test]
    fn an_override_bends_plain_names_only() {
        let over = Script::parse("503").expect("a script");
        let ask = |model: &str| {
            let body = format!(r#"{{"model":"{model}"}}"#);
            Ask::read(&post("/v1/completions", &body)).expect("an ask")
        };
        assert_eq!(ask("ok").script(Some(&over)), Ok(over.clone()));
        assert_eq!(ask("ok,tokens=1").script(Some(&over)).expect("a script").verb, Verb::Ok);
        let (status, message, param) = ask("gpt-4o").script(Some(&over)).expect_err("no script");
        assert_eq!((status, param), (400, Some("model")));
        assert!(message.contains("gpt-4o") && message.contains("cut_event=N"));
    }

    #[test]
    fn refuses_what_the_vendor_refuses() {
        for (request, status) in [
            (post("/v1/chat/completions", "not json"), 400),
            (post("/v1/chat/completions", "{}"), 400),
            (post("/v1/chat/completions", r#"{"model":7}"#), 400),
            (post("/v1/models", ""), 405),
        ] {
            assert_eq!(Ask::read(&request).expect_err("a refusal").0, status);
        }
        assert_eq!(Ask::read(&post("/v1/rerank", "\x00")).expect("an ask").model, PLAIN);
    }
}
