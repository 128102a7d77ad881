//! What a request to a sandbox provider asks for: the few fields that its answer depends on. Each format
//! reads its own, and refuses what its vendor would refuse.

use serde_json::Value;

use super::formats::{Api, Call, Route};
use super::http::Request;
use super::script::{GRAMMAR, Script};

/// The fields that matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// What is asked for.
    pub api: Api,
    /// The model as it was asked for.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether usage is told in a stream: where it is not always, if it was asked for.
    pub usage: bool,
    /// Choices, 1 to 8.
    pub n: u32,
    /// The names of the request's function tools.
    pub tools: Vec<String>,
    /// Texts to embed.
    pub inputs: Vec<String>,
    /// Embeddings as base64.
    pub base64: bool,
    /// Prompt tokens: a quarter of the bytes of the texts in it, the same in every format.
    pub prompt_tokens: u64,
}

/// An error before any script ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 499.
    pub status: u16,
    /// For a person.
    pub message: String,
    /// The parameter at fault, where the format names it apart.
    pub param: Option<&'static str>,
}

/// The model name that an override changes the meaning of, and that requests without a model have.
pub const PLAIN: &str = "ok";

impl Ask {
    /// Reads a request.
    ///
    /// # Errors
    /// Its API, whose words an error is told in, and what is wrong: 400 for a body that the vendor would
    /// not take, 401 for a credential in another vendor's place, 405 for a wrong method.
    pub fn read(request: &Request) -> Result<Ask, (Api, Refusal)> {
        let route = Route::of(&request.path);
        Ask::on(request, &route).map_err(|refusal| (route.api, refusal))
    }

    fn on(request: &Request, route: &Route) -> Result<Ask, Refusal> {
        let refusal = |status, message| Refusal { status, message, param: None };
        let api = route.api;
        let bodiless = matches!(api, Api::Models | Api::Echo | Api::Token);
        let method = if api == Api::Models { "GET" } else { "POST" };
        if api != Api::Echo && request.method != method {
            return Err(refusal(405, format!("Method {} is not allowed here.", request.method)));
        }
        let body: Value = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(_) if bodiless => Value::Null,
            Err(error) => return Err(refusal(400, format!("The body is not JSON: {error}."))),
        };
        let model = match (&route.model, body.get("model").and_then(Value::as_str)) {
            (Some(model), _) => model.as_str(),
            (None, Some(model)) => model,
            (None, None) if bodiless => PLAIN,
            (None, None) => {
                let message = String::from("You must provide a model parameter.");
                return Err(Refusal { status: 400, message, param: Some("model") });
            }
        };
        let mut ask = Ask {
            api,
            model: model.to_owned(),
            stream: route.stream,
            usage: true,
            n: 1,
            tools: Vec::new(),
            inputs: Vec::new(),
            base64: false,
            prompt_tokens: 0,
        };
        api.format().read(&Call { request, route, body: &body }, &mut ask)?;
        ask.prompt_tokens = ask.prompt_tokens.div_ceil(4).max(1);
        Ok(ask)
    }

    /// A text of the prompt: it costs.
    pub fn counts(&mut self, text: &str) {
        self.prompt_tokens += text.len() as u64;
    }

    /// The script that the model's name is, or the override's where the name is a plain one.
    ///
    /// # Errors
    /// 400 with the grammar, for a name that is no script.
    pub fn script(&self, over: Option<&Script>) -> Result<Script, Refusal> {
        if let (Some(script), PLAIN) = (over, self.model.as_str()) {
            return Ok(script.clone());
        }
        Script::parse(&self.model).map_err(|why| Refusal {
            status: 400,
            message: format!("{why}. The grammar:\n{GRAMMAR}"),
            param: Some("model"),
        })
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
            body: body.as_bytes().to_vec(),
            ..Request::default()
        }
    }

    #[test]
    fn reads_what_the_answer_depends_on() {
        let body = r#"{"model":"tools=2","stream":true,"n":3,"stream_options":{"include_usage":true},
            "tools":[{"type":"function","function":{"name":"look"}}]}"#;
        let ask = Ask::read(&post("/v1/chat/completions", body)).expect("an ask");
        assert_eq!((ask.api, ask.stream, ask.usage, ask.n), (Api::Chat, true, true, 3));
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
        let refusal = ask("gpt-4o").script(Some(&over)).expect_err("no script");
        assert_eq!((refusal.status, refusal.param), (400, Some("model")));
        assert!(refusal.message.contains("gpt-4o") && refusal.message.contains("cut_event=N"));
    }

    #[test]
    fn refuses_what_the_vendor_refuses() {
        for (request, status) in [
            (post("/v1/chat/completions", "not json"), 400),
            (post("/v1/chat/completions", "{}"), 400),
            (post("/v1/chat/completions", r#"{"model":7}"#), 400),
            (post("/v1/models", ""), 405),
        ] {
            assert_eq!(Ask::read(&request).expect_err("a refusal").1.status, status);
        }
        assert_eq!(Ask::read(&post("/v1/rerank", "\x00")).expect("an ask").model, PLAIN);
    }
}
