use super::*;
use crate::base::fail::Fault;
use crate::llm::quirks::Rule;

/// Parameters of chat, each with a value that asks for something.
fn all() -> Vec<(&'static str, Value)> {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } },
        "required": ["a"], "additionalProperties": false });
    vec![
        ("temperature", json!(0.3)),
        ("top_p", json!(0.4)),
        ("top_k", json!(40)),
        ("min_p", json!(0.1)),
        ("max_tokens", json!(300)),
        ("max_completion_tokens", json!(300)),
        ("n", json!(2)),
        ("seed", json!(7)),
        ("stop", json!(["END"])),
        ("user", json!("u1")),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(0.5)),
        ("repetition_penalty", json!(1.1)),
        ("logit_bias", json!({ "50256": -100 })),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("response_format", json!({ "type": "json_object" })),
        (
            "response_format",
            json!({ "type": "json_schema", "json_schema": { "name": "s", "strict": true, "schema": schema } }),
        ),
        ("tool_choice", json!("required")),
        ("tool_choice", json!("none")),
        ("tool_choice", json!({ "type": "function", "function": { "name": "g" } })),
        ("parallel_tool_calls", json!(false)),
        ("reasoning_effort", json!("low")),
        ("reasoning_effort", json!("none")),
        ("verbosity", json!("low")),
        ("service_tier", json!("flex")),
        ("metadata", json!({ "a": "b" })),
        ("store", json!(true)),
        ("prediction", json!({ "type": "content", "content": "x" })),
        ("prompt_cache_key", json!("k")),
        ("safety_identifier", json!("s")),
        ("functions", json!([{ "name": "f" }])),
        ("function_call", json!("auto")),
        ("audio", json!({ "voice": "alloy", "format": "wav" })),
        ("modalities", json!(["text", "audio"])),
        ("web_search_options", json!({ "search_context_size": "low" })),
        ("safe_prompt", json!(true)),
        ("documents", json!(["a text"])),
        ("of_the_future", json!(1)),
    ]
}

/// A kind's models of several generations.
fn models(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Anthropic => &["claude-sonnet-4-5", "claude-opus-4-7", "claude-3-5-haiku-20241022"],
        Kind::Gemini => &["gemini-2.5-flash", "gemini-2.0-flash", "gemini-3-pro-preview"],
        Kind::Vertex => {
            &["google/gemini-2.5-flash", "gemini-2.5-pro", "anthropic/claude-sonnet-4-5"]
        }
        Kind::Bedrock => &[
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "amazon.nova-lite-v1:0",
            "amazon.nova-2-lite-v1:0",
            "openai.gpt-oss-120b-1:0",
            "meta.llama3-1-70b-instruct-v1:0",
            "deepseek.v3-v1:0",
        ],
        Kind::BedrockInvoke => &["anthropic.claude-sonnet-4-5-20250929-v1:0"],
        Kind::Cohere => &["command-a-03-2025", "command-r-plus"],
        Kind::Ollama => &["llama3.2", "gpt-oss:20b"],
        Kind::Mistral => &["mistral-large-latest", "magistral-medium-latest"],
        Kind::Responses => &["gpt-5", "gpt-4o"],
        Kind::CohereV1 | Kind::TgiGenerate => &[],
        Kind::Openai | Kind::Like(_) => &["gpt-5", "gpt-4o", "m"],
    }
}

/// A request with a conversation in it.
fn request(parameters: &[(&str, Value)]) -> Vec<u8> {
    let tools: Vec<_> = ["f", "g"]
        .iter()
        .map(|name| {
            json!({ "type": "function", "function": { "name": name, "description": "d",
            "parameters": { "type": "object", "properties": { "x": { "type": "string" } } } } })
        })
        .collect();
    let mut body = json!({ "model": "asked", "messages": [
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": "hello" },
        { "role": "assistant", "content": "yes?" },
        { "role": "user", "content": [{ "type": "text", "text": "what is it?" }] },
    ] });
    for (name, value) in parameters {
        if matches!(*name, "tool_choice" | "parallel_tool_calls") {
            body["tools"] = json!(tools);
        }
        if !value.is_null() {
            body[name] = value.clone();
        }
    }
    serde_json::to_vec(&body).unwrap()
}

/// The same without the parameter.
fn plain(name: &str) -> Vec<u8> {
    request(&[(name, Value::Null)])
}

/// What is sent of it.
fn sent(kind: Kind, model: &str, body: &[u8]) -> Result<String, Fault> {
    let ask = Ask::read(Surface::Chat, body).unwrap();
    let key = Secret::new("key");
    let site = Site { authority: "host", model, key: Some(&key), ..Site::default() };
    let mut out = Buf::new();
    Stream::new(kind).send(&ask, body, &site, UnixMs(0), &mut out)?;
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

fn fates(kind: Kind, model: &str, body: &[u8], closely: bool) -> Fates {
    let ask = Ask::read(Surface::Chat, body).unwrap();
    Parameters::of(&ask, body, closely).unwrap().fates(kind, model)
}

fn kinds() -> impl Iterator<Item = Kind> {
    Kind::NAMES.iter().map(|(_, kind)| *kind).filter(|kind| kind.sends())
}

#[test]
fn a_verdict_is_what_is_sent() {
    let mut wrong = Vec::new();
    for kind in kinds() {
        for model in models(kind) {
            for (name, value) in all() {
                let body = request(&[(name, value.clone())]);
                let told = fates(kind, model, &body, true);
                let of = |found: &str| found == name || found.starts_with(&format!("{name}."));
                let told_of = told.iter().filter(|(found, _)| of(found)).map(|(_, fate)| *fate);
                let fate = told_of.max_by_key(|fate| *fate as u8).unwrap_or(Fate::Passed);
                let (plain, got) = (sent(kind, model, &plain(name)), sent(kind, model, &body));
                let agrees = match (&fate, &plain, &got) {
                    // A tool can't be asked for where there are no tools.
                    (_, Err(_), _) => true,
                    (Fate::Incompatible, _, got) => *got == Err(Fault::Unsendable),
                    (Fate::Dropped, plain, got) => got == plain,
                    (Fate::Adapted, plain, got) => got.is_ok() && got != plain,
                    (Fate::Passed, _, got) => got.as_ref().is_ok_and(|got| {
                        let (_, body) = got.split_once("\r\n\r\n").unwrap();
                        let body: Value = serde_json::from_str(body).unwrap();
                        body[name] == value
                    }),
                };
                if !agrees {
                    wrong.push(format!("{} {model} {name} {value}: {told:?}", kind.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_quick_look_finds_what_a_close_one_does() {
    let mut wrong = Vec::new();
    for kind in kinds() {
        for model in models(kind) {
            for (name, value) in all() {
                let body = request(&[(name, value.clone())]);
                let refused = |closely: bool| {
                    let told = fates(kind, model, &body, closely);
                    told.iter().any(|(_, fate)| *fate == Fate::Incompatible)
                };
                let ask = Ask::read(Surface::Chat, &body).unwrap();
                let matters = Parameters::matter(&ask, &body);
                let is_refused = refused(true);
                let overlooked = is_refused && (SERVED.contains(&name) || !matters);
                if is_refused != refused(false) || overlooked {
                    wrong.push(format!("{} {model} {name} {value}", kind.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let vendors = kinds().filter_map(|kind| match kind {
        Kind::Like(vendor) => Some(vendor.row()),
        _ => None,
    });
    for vendor in vendors {
        let refuses = |rule: &&Rule| rule.fate() == Fate::Incompatible;
        for rule in vendor.rules(false).filter(refuses) {
            assert!(!SERVED.contains(&rule.path), "{}: {}", vendor.name, rule.path);
        }
    }
}

/// What each adapter makes of the parameters that differ most.
#[test]
fn each_adapter_has_its_own_verdicts() {
    let told = |kind: Kind, model: &str| {
        let words: Vec<_> = ["stop", "seed", "logit_bias", "n", "audio"]
            .iter()
            .map(|wanted| {
                let (name, value) = all().into_iter().find(|(name, _)| name == wanted).unwrap();
                let told = fates(kind, model, &request(&[(name, value)]), true);
                told.first().map_or("passed", |(_, fate)| fate.name())
            })
            .collect();
        words.join(" ")
    };
    let mut wrong = Vec::new();
    for (kind, model, expected) in [
        (Kind::Openai, "gpt-4o", "passed passed passed passed passed"),
        (Kind::Anthropic, "claude-sonnet-4-5", "adapted dropped dropped incompatible incompatible"),
        (Kind::Gemini, "gemini-2.5-flash", "adapted adapted dropped adapted incompatible"),
        (Kind::Vertex, "gemini-2.5-flash", "adapted adapted dropped adapted incompatible"),
        (Kind::Cohere, "command-a-03-2025", "adapted passed dropped incompatible incompatible"),
        (Kind::Ollama, "llama3.2", "adapted adapted dropped incompatible incompatible"),
        (Kind::Mistral, "mistral-large-latest", "adapted adapted dropped passed incompatible"),
        (
            Kind::Bedrock,
            "amazon.nova-lite-v1:0",
            "adapted dropped dropped incompatible incompatible",
        ),
    ] {
        let told = told(kind, model);
        if told != expected {
            wrong.push(format!("{} {model}: {told}", kind.name()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn parameters_are_judged_together() {
    // Thinking leaves no room for a sampler of this generation.
    let body = request(&[
        ("reasoning_effort", json!("high")),
        ("temperature", json!(0.3)),
        ("max_tokens", json!(9_000)),
        ("n", json!(2)),
    ]);
    let told = fates(Kind::Anthropic, "claude-sonnet-4-5", &body, true);
    let of = |name: &str| told.iter().find(|(n, _)| n == name).map(|(_, fate)| *fate);
    assert_eq!(of("n"), Some(Fate::Incompatible));
    assert_eq!(of("temperature"), Some(Fate::Dropped));
    assert_eq!(of("reasoning_effort"), Some(Fate::Adapted));
    assert_eq!(of("max_tokens"), None);
    let quick = fates(Kind::Anthropic, "claude-sonnet-4-5", &body, false);
    assert_eq!(quick, [("n".into(), Fate::Incompatible)]);
}

#[test]
fn what_asks_for_nothing_is_no_matter() {
    let body = request(&[
        ("n", json!(1)),
        ("logprobs", json!(false)),
        ("parallel_tool_calls", json!(true)),
        ("response_format", json!({ "type": "text" })),
    ]);
    for kind in kinds().filter(|kind| kind.judge(b"{}", "m").is_none()) {
        for model in models(kind) {
            assert_eq!(fates(kind, model, &body, true), [], "{} {model}", kind.name());
        }
    }
}

#[test]
fn other_dialects_are_not_judged() {
    for (surface, body) in [
        (Surface::Explain, json!({ "model": "m", "system": "s", "messages": [], "top_k": 1 })),
        (Surface::Explain, json!({ "model": "m", "input": "x", "top_k": 1 })),
        (Surface::Messages, json!({ "model": "m", "max_tokens": 1, "messages": [], "top_k": 1 })),
    ] {
        let bytes = serde_json::to_vec(&body).unwrap();
        let ask = Ask::read(surface, &bytes).unwrap();
        assert!(Parameters::of(&ask, &bytes, true).is_none(), "{body}");
    }
}
