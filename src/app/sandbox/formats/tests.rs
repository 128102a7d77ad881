//! What each format writes is read by the gateway's own adapters: the same script has to say the same
//! whatever the format, and each fault has to be seen as one.

use serde_json::{Value, json};

use super::*;
use crate::app::sandbox::act::{Act, Step};
use crate::app::sandbox::script::Script;
use crate::app::translate::{Order, Translated, translate};
use crate::llm::providers::Kind;
use crate::llm::request::Surface;

mod chat;
mod checks;

/// A provider API: what is sent to it, and the adapter that reads its answers.
pub(super) struct Case {
    pub(super) name: &'static str,
    kind: Kind,
    /// The path for a script, whole and streamed.
    paths: [&'static str; 2],
    pub(super) body: fn() -> Value,
    /// The model stands in the body, and so does the wish for a stream.
    in_body: bool,
    fields: &'static [(&'static str, &'static str)],
}

/// Every format.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "chat",
        kind: Kind::Openai,
        paths: ["/v1/chat/completions"; 2],
        body: chat,
        in_body: true,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "azure",
        kind: Kind::Openai,
        paths: ["/openai/deployments/{}/chat/completions?api-version=2024-10-21"; 2],
        body: chat,
        in_body: true,
        fields: &[("api-key", "x")],
    },
    Case {
        name: "mistral",
        kind: Kind::Openai,
        paths: ["/mistral/v1/chat/completions"; 2],
        body: || without(chat(), &["stream_options"]),
        in_body: true,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "responses",
        kind: Kind::Responses,
        paths: ["/v1/responses"; 2],
        body: || {
            let tool =
                json!({"type": "function", "name": "look", "parameters": {"type": "object"}});
            json!({"input": "What is it?", "tools": [tool]})
        },
        in_body: true,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "anthropic",
        kind: Kind::Anthropic,
        paths: ["/v1/messages"; 2],
        body: messages,
        in_body: true,
        fields: &[("x-api-key", "x"), ("anthropic-version", "2023-06-01")],
    },
    Case {
        name: "vertex claude",
        kind: Kind::Anthropic,
        paths: [
            "/v1/projects/p/locations/l/publishers/anthropic/models/{}:rawPredict",
            "/v1/projects/p/locations/l/publishers/anthropic/models/{}:streamRawPredict",
        ],
        body: || with(messages(), "anthropic_version", "vertex-2023-10-16"),
        in_body: false,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "invoke",
        kind: Kind::BedrockInvoke,
        paths: ["/model/{}/invoke", "/model/{}/invoke-with-response-stream"],
        body: || with(messages(), "anthropic_version", "bedrock-2023-05-31"),
        in_body: false,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "gemini",
        kind: Kind::Gemini,
        paths: [
            "/v1beta/models/{}:generateContent",
            "/v1beta/models/{}:streamGenerateContent?alt=sse",
        ],
        body: gemini,
        in_body: false,
        fields: &[("x-goog-api-key", "x")],
    },
    Case {
        name: "vertex",
        kind: Kind::Gemini,
        paths: [
            "/v1/projects/p/locations/l/publishers/google/models/{}:generateContent",
            "/v1/projects/p/locations/l/publishers/google/models/{}:streamGenerateContent?alt=sse",
        ],
        body: gemini,
        in_body: false,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "converse",
        kind: Kind::Bedrock,
        paths: ["/model/{}/converse", "/model/{}/converse-stream"],
        body: || {
            let schema = json!({"json": {"type": "object"}});
            let tool = json!({"toolSpec": {"name": "look", "inputSchema": schema}});
            json!({
                "messages": [{"role": "user", "content": [{"text": "What is it?"}]}],
                "toolConfig": {"tools": [tool]},
            })
        },
        in_body: false,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "cohere",
        kind: Kind::Cohere,
        paths: ["/v2/chat"; 2],
        body: || without(chat(), &["stream_options"]),
        in_body: true,
        fields: &[("authorization", "Bearer x")],
    },
    Case {
        name: "ollama",
        kind: Kind::Ollama,
        paths: ["/api/chat"; 2],
        body: || without(chat(), &["stream_options"]),
        in_body: true,
        fields: &[],
    },
];

fn chat() -> Value {
    let function = json!({"name": "look", "parameters": {"type": "object"}});
    json!({
        "messages": [{"role": "user", "content": "What is it?"}],
        "tools": [{"type": "function", "function": function}],
        "stream_options": {"include_usage": true},
    })
}

fn messages() -> Value {
    json!({
        "max_tokens": 100, "messages": [{"role": "user", "content": "What is it?"}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    })
}

fn gemini() -> Value {
    json!({
        "contents": [{"role": "user", "parts": [{"text": "What is it?"}]}],
        "tools": [{"functionDeclarations": [{"name": "look"}]}],
    })
}

pub(super) fn with(mut body: Value, name: &str, value: impl Into<Value>) -> Value {
    body[name] = value.into();
    body
}

fn without(mut body: Value, names: &[&str]) -> Value {
    for name in names {
        body.as_object_mut().expect("an object").remove(*name);
    }
    body
}

impl Case {
    pub(super) fn of(name: &str) -> &'static Case {
        CASES.iter().find(|case| case.name == name).expect("a case")
    }

    pub(super) fn request(&self, script: &str, stream: bool, mut body: Value) -> Request {
        let target = self.paths[usize::from(stream)].replace("{}", &script.replace(',', "%2C"));
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if self.in_body {
            body["model"] = json!(script);
        }
        if self.in_body || self.name == "vertex claude" && stream {
            body["stream"] = json!(stream);
        }
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Request {
            method: "POST".into(),
            path: path.into(),
            query: query.into(),
            fields: self.fields.iter().map(field).collect(),
            body: body.to_string().into_bytes(),
        }
    }

    pub(super) fn answer(&self, script: &str, stream: bool) -> Answer {
        let request = self.request(script, stream, (self.body)());
        let ask = Ask::read(&request).unwrap_or_else(|(_, why)| panic!("{}: {why:?}", self.name));
        assert_eq!((ask.model.as_str(), ask.stream), (script, stream), "{}", self.name);
        assert_eq!((ask.tools.len(), ask.prompt_tokens), (1, 3), "{}", self.name);
        let script = Script::parse(script).expect("a script");
        let (name, id) = ("b".into(), "sandbox-b-1".into());
        Answer { name, id, created: 7, ask, script, stretch: None }
    }

    /// All bytes of the answer's body, and its head.
    fn bytes(&self, script: &str, stream: bool) -> (String, Vec<u8>) {
        let answer = self.answer(&format!("framing=close,{script}"), stream);
        let mut act = Act::new(answer, false);
        let mut out = Buf::new();
        while let Step::Write | Step::Pause(_) = act.next(&mut out) {}
        let bytes = out.as_slice();
        let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
        (String::from_utf8_lossy(&bytes[..head]).into_owned(), bytes[head..].to_vec())
    }

    fn translated(&self, script: &str, stream: bool) -> (Translated, Vec<u8>) {
        let (head, body) = self.bytes(script, stream);
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let order = Order { kind: self.kind, surface: Surface::Chat, stream, status };
        (translate(&order, [body.as_slice()]), body)
    }
}

/// What a chat client understands of an answer.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    thoughts: String,
    calls: Vec<(String, Value)>,
    finish: Option<String>,
    usage: (u64, u64),
}

fn said(body: &[u8], stream: bool) -> Said {
    let text = String::from_utf8(body.to_vec()).expect("text");
    let mut said = Said::default();
    let mut calls: Vec<(String, String)> = Vec::new();
    let events: Vec<Value> = if stream {
        let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|d| serde_json::from_str(d).expect(d)).collect()
    } else {
        vec![serde_json::from_str(&text).expect("JSON")]
    };
    for event in events {
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            let count = |name: &str| usage[name].as_u64().expect("a count");
            said.usage = (count("prompt_tokens"), count("completion_tokens"));
        }
        let choice = &event["choices"][0];
        let delta = &choice[if stream { "delta" } else { "message" }];
        let get = |name: &str| delta[name].as_str().unwrap_or_default();
        said.text += get("content");
        said.thoughts += get("reasoning_content");
        for (i, call) in delta["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().map_or(i, |index| index as usize);
            calls.resize(calls.len().max(index + 1), Default::default());
            calls[index].0 += call["function"]["name"].as_str().unwrap_or_default();
            calls[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        if let Some(finish) = choice["finish_reason"].as_str() {
            said.finish = Some(finish.to_owned());
        }
    }
    let parsed =
        |(name, text): (String, String)| (name, serde_json::from_str(&text).expect("JSON"));
    said.calls = calls.into_iter().map(parsed).collect();
    said
}

/// What `script` must say to a chat client.
fn expected(script: &str) -> Said {
    let answer = Case::of("chat").answer(script, true);
    let call = |k| (answer.tool_name(k).to_owned(), answer.tool_input(k));
    let calls: Vec<_> = (0..answer.tool_calls()).map(call).collect();
    Said {
        text: if calls.is_empty() { answer.content() } else { String::new() },
        thoughts: answer.thoughts(),
        calls,
        finish: Some(answer.finish().to_owned()),
        usage: (answer.prompt_tokens(), answer.completion_tokens()),
    }
}

#[test]
fn every_format_says_the_same() {
    for case in CASES {
        for script in [
            "ok",
            "tokens=1",
            "ok,text=a word, and \"another\"\\",
            "reasoning=2,tokens=3",
            "tools",
            "tools=3,reasoning=1",
            "tokens=2,finish=length",
            "tokens=2,finish=stop,crlf",
        ] {
            for stream in [true, false] {
                let (found, body) = case.translated(script, stream);
                let told = String::from_utf8_lossy(&body);
                let what = format!("{} {script} {stream}: {told}", case.name);
                assert!(found.good, "{what}\n{}", String::from_utf8_lossy(&found.body));
                let want = expected(script);
                assert_eq!(said(&found.body, stream), want, "{what}");
            }
        }
    }
}

/// Scripts of a fault, whether a whole answer suffers from it too, and from which event on it matters.
const FAULTS: &[(&str, bool)] = &[
    ("error_first", true),
    ("error_at=2", true),
    ("error_at=4", true),
    ("malformed_at=1", true),
    ("malformed_at=4", true),
    ("cut_event=0", true),
    ("cut_event=1", true),
    ("cut_event=4", true),
    ("cut_byte=300", true),
    ("no_finish", false),
    ("reasoning=2,cut_event=2", true),
    ("tools=2,cut_event=4", true),
    ("tools=2,error_at=7", true),
    ("empty", true),
];

#[test]
fn every_fault_is_a_bad_end_in_every_format() {
    for case in CASES {
        for (script, whole_too) in FAULTS {
            let (found, body) = case.translated(script, true);
            let told = format!("{} {script}: {}", case.name, String::from_utf8_lossy(&body));
            assert!(!found.good, "{told}");
            let got = String::from_utf8_lossy(&found.body).into_owned();
            assert!(!got.contains("[DONE]") && got.contains("\"error\""), "{told}\n{got}");
            if *whole_too {
                assert!(!case.translated(script, false).0.good, "{told}, whole");
            }
        }
    }
}

/// Statuses, and what the gateway is to make of them.
const REFUSALS: &[(&str, &str)] = &[
    ("500", "unavailable"),
    ("503", "unavailable"),
    ("429,retry_after=1s", "rate_limited"),
    ("400", "client_fault"),
    ("422", "client_fault"),
    ("context_length", "context_length"),
    ("bad_key", "credential"),
    ("401", "credential"),
    ("403", "credential"),
    ("404", "not_found"),
];

#[test]
fn every_refusal_is_understood_in_every_format() {
    for case in CASES {
        for (script, fault) in REFUSALS {
            for stream in [true, false] {
                let (found, body) = case.translated(script, stream);
                let got = String::from_utf8_lossy(&found.body).into_owned();
                let told = format!("{} {script}: {got}", case.name);
                assert!(!found.good, "{told}");
                assert!(String::from_utf8_lossy(&body).contains("(sandbox b)"), "{told}");
                let error: Value = serde_json::from_slice(&found.body).expect("JSON");
                let attempt = &error["error"]["metadata"]["attempts"][0];
                assert_eq!(attempt["fault"], *fault, "{told}");
            }
        }
    }
}

#[test]
fn a_wrong_checksum_is_a_bad_end() {
    for name in ["converse", "invoke"] {
        assert!(!Case::of(name).translated("bad_crc_at=1", true).0.good, "{name}");
        assert!(!Case::of(name).translated("bad_crc_at=4", true).0.good, "{name}");
    }
}

#[test]
fn a_script_cuts_at_the_same_word_everywhere() {
    for case in CASES {
        let (found, _) = case.translated("tokens=5,cut_event=3", true);
        let got = String::from_utf8(found.body).expect("text");
        let start: String = got.split("data: {\"error\"").next().expect("a start").to_owned();
        assert_eq!(
            said(start.as_bytes(), true).text,
            "Hello from sandbox b. token-1",
            "{}",
            case.name
        );
    }
}

#[test]
fn a_counted_stream_is_as_long_as_it_says() {
    for case in CASES {
        for script in ["framing=length,tools=2,reasoning=1", "framing=length,error_at=3"] {
            let mut act = Act::new(case.answer(script, true), false);
            let mut out = Buf::new();
            while act.next(&mut out) == Step::Write {}
            let bytes = out.as_slice();
            let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
            let head = String::from_utf8_lossy(&bytes[..end]);
            let length = format!("content-length: {}\r\n", bytes.len() - end);
            assert!(head.contains(&length), "{} {script}: {head}", case.name);
            assert!(
                head.contains(case.answer(script, true).ask.api.format().wire().content_type())
            );
        }
    }
}

#[test]
fn pings_are_the_formats_own_and_never_the_last_chunk() {
    for (name, ping) in [
        ("chat", Some(": ping\n\n")),
        ("gemini", Some(": ping\r\n\r\n")),
        ("anthropic", Some("event: ping\ndata: {\"type\":\"ping\"}\n\n")),
        (
            "responses",
            Some("event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":2}\n\n"),
        ),
        ("ollama", None),
        ("converse", None),
    ] {
        let mut act = Act::new(Case::of(name).answer("hang,event=1,ping=5ms", true), false);
        let mut out = Buf::new();
        for _ in 0..6 {
            if act.next(&mut out) == Step::Hang {
                break;
            }
        }
        let text = String::from_utf8_lossy(out.as_slice()).into_owned();
        assert!(!text.contains("\r\n0\r\n"), "{name}: {text}");
        match ping {
            Some(ping) => assert!(text.contains(ping), "{name}: {text}"),
            None => assert_eq!(act.next(&mut out), Step::Hang, "{name}"),
        }
    }
}

#[test]
fn paths_say_which_format_it_is() {
    for (path, api, model, stream) in [
        ("/v1/messages/count_tokens", Api::CountTokens, None, false),
        ("/v1beta/models/ok:generateContent", Api::Gemini, Some("ok"), false),
        ("/v1/models/a%2Cb:streamGenerateContent", Api::Gemini, Some("a,b"), true),
        ("/model/us.x-v1%3A0/converse-stream", Api::Converse, Some("us.x-v1:0"), true),
        ("/model/us.x-v1:0/invoke", Api::Invoke, Some("us.x-v1:0"), false),
        ("/openai/deployments/d/chat/completions", Api::AzureChat, Some("d"), false),
        ("/openai/v1/responses", Api::AzureResponses, None, false),
        (
            "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
            Api::Vertex,
            Some("m"),
            false,
        ),
        ("/v1beta/models/ok%2:generateContent", Api::Echo, None, false),
        ("/model/x/other", Api::Echo, None, false),
        ("/", Api::Echo, None, false),
    ] {
        let route = Route::of(path);
        assert_eq!(
            (route.api, route.model.as_deref(), route.stream),
            (api, model, stream),
            "{path}"
        );
    }
}
