//! What a vendor would refuse is refused, in its words; what it would take is taken.

use serde_json::Value;

use super::super::*;
use super::{CASES, Case};
use crate::app::sandbox::act::Act;
use crate::base::buf::Buf;

/// The refusal of `body`: its status and message.
fn refused(case: &Case, body: Value) -> Option<(u16, String)> {
    let request = case.request("ok", true, body);
    let (_, refusal) = Ask::read(&request).err()?;
    Some((refusal.status, refusal.message))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `changes` laid over the case's own body, field by field; null takes a field away.
fn changed(case: &Case, changes: &str) -> Value {
    let mut body = (case.body)();
    let object = body.as_object_mut().expect("an object");
    for (name, value) in parsed(changes).as_object().expect("an object") {
        match value {
            Value::Null => drop(object.remove(name)),
            value => drop(object.insert(name.clone(), value.clone())),
        }
    }
    body
}

/// A format, what is changed in a body that it takes, and a part of what it says to that.
const REFUSED: &[(&str, &str, &str)] = &[
    ("anthropic", r#"{"max_tokens":null}"#, "max_tokens: Field required"),
    ("anthropic", r#"{"max_tokens":0}"#, "max_tokens"),
    ("anthropic", r#"{"n":2}"#, "n: Extra inputs are not permitted"),
    ("anthropic", r#"{"stream_options":{}}"#, "stream_options"),
    ("anthropic", r#"{"temperature":1.5}"#, "temperature"),
    ("anthropic", r#"{"stop_sequences":[" "]}"#, "stop_sequences.0"),
    ("anthropic", r#"{"messages":[]}"#, "messages"),
    ("anthropic", r#"{"messages":[{"role":"system","content":"x"}]}"#, "`system`"),
    ("anthropic", r#"{"messages":[{"role":"assistant","content":"x"}]}"#, "first message"),
    ("anthropic", r#"{"messages":[{"role":"user","content":""}]}"#, "non-empty content"),
    (
        "anthropic",
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":""}]}]}"#,
        "non-whitespace",
    ),
    (
        "anthropic",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y "}]}"#,
        "trailing whitespace",
    ),
    (
        "anthropic",
        r#"{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"x"}]}]}"#,
        "unexpected `tool_use_id`",
    ),
    (
        "anthropic",
        r#"{"messages":[{"role":"user","content":"x"},
            {"role":"assistant","content":[{"type":"tool_use","id":"c","name":"look","input":{}}]},
            {"role":"user","content":"y"}]}"#,
        "without `tool_result` blocks",
    ),
    (
        "anthropic",
        r#"{"messages":[{"role":"user","content":"x"},
            {"role":"assistant","content":[{"type":"tool_use","id":"c","name":"look","input":"{}"}]}]}"#,
        "should be an object",
    ),
    (
        "anthropic",
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#,
        "image_url",
    ),
    ("anthropic", r#"{"tools":[{"name":"look"}]}"#, "input_schema"),
    (
        "anthropic",
        r#"{"tools":[{"type":"function","function":{"name":"look"}}]}"#,
        "name: Field required",
    ),
    ("anthropic", r#"{"tool_choice":"auto"}"#, "tool_choice"),
    ("anthropic", r#"{"tool_choice":{"type":"tool","name":"other"}}"#, "not found"),
    (
        "anthropic",
        r#"{"thinking":{"type":"enabled","budget_tokens":2000}}"#,
        "greater than `thinking.budget_tokens`",
    ),
    (
        "anthropic",
        r#"{"max_tokens":4000,"thinking":{"type":"enabled","budget_tokens":2000},"temperature":0.5}"#,
        "may only be set to 1",
    ),
    ("vertex claude", r#"{"anthropic_version":null}"#, "anthropic_version"),
    ("vertex claude", r#"{"model":"claude"}"#, "model"),
    ("invoke", r#"{"anthropic_version":"2023-06-01"}"#, "bedrock-2023-05-31"),
    ("invoke", r#"{"stream":true}"#, "stream"),
    ("gemini", r#"{"contents":[]}"#, "contents"),
    ("gemini", r#"{"messages":[]}"#, "Unknown name \"messages\""),
    ("gemini", r#"{"generationConfig":{"max_tokens":7}}"#, "Unknown name \"max_tokens\""),
    ("gemini", r#"{"generationConfig":{"temperature":3}}"#, "range"),
    ("gemini", r#"{"generationConfig":{"responseSchema":{"type":"object"}}}"#, "mime type"),
    (
        "gemini",
        r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":1,"thinkingLevel":"low"}}}"#,
        "only set one",
    ),
    ("gemini", r#"{"contents":[{"role":"assistant","parts":[{"text":"x"}]}]}"#, "valid role"),
    ("gemini", r#"{"contents":[{"role":"user","parts":[]}]}"#, "parts"),
    ("vertex", r#"{"contents":[{"parts":[{"text":"x"}]}]}"#, "valid role"),
    (
        "gemini",
        r#"{"contents":[{"role":"user","parts":[{"text":"x"}]},
            {"role":"model","parts":[{"functionCall":{"name":"look","args":{}}}]},
            {"role":"user","parts":[{"text":"y"}]}]}"#,
        "number of function response parts",
    ),
    (
        "gemini",
        r#"{"tools":[{"functionDeclarations":[{"name":"look","parameters":
            {"type":"object","properties":{"a":{"type":"string","const":"x"}}}}]}]}"#,
        "Unknown name \"const\"",
    ),
    (
        "gemini",
        r#"{"tools":[{"functionDeclarations":[{"name":"look","parameters":{"type":"object"}}]}]}"#,
        "non-empty for OBJECT",
    ),
    (
        "gemini",
        r#"{"toolConfig":{"functionCallingConfig":{"mode":"AUTO","allowedFunctionNames":["look"]}}}"#,
        "ANY and VALIDATED",
    ),
    ("converse", r#"{"max_tokens":7}"#, "max_tokens"),
    ("converse", r#"{"inferenceConfig":{"maxTokens":0}}"#, "maxTokens"),
    ("converse", r#"{"messages":[{"role":"user","content":"x"}]}"#, "content"),
    ("converse", r#"{"messages":[{"role":"user","content":[{"text":" "}]}]}"#, "non-whitespace"),
    (
        "converse",
        r#"{"messages":[{"role":"assistant","content":[{"text":"x"}]}]}"#,
        "start with a user",
    ),
    (
        "converse",
        r#"{"messages":[{"role":"user","content":[{"text":"x"}]},{"role":"user","content":[{"text":"y"}]}]}"#,
        "alternate",
    ),
    (
        "converse",
        r#"{"toolConfig":null,"messages":[{"role":"user","content":[{"text":"x"}]},
            {"role":"assistant","content":[{"toolUse":{"toolUseId":"c","name":"look","input":{}}}]},
            {"role":"user","content":[{"toolResult":{"toolUseId":"c","content":[{"text":"y"}]}}]}]}"#,
        "toolConfig field must be defined",
    ),
    (
        "converse",
        r#"{"messages":[{"role":"user","content":[{"toolResult":{"toolUseId":"c","content":[{"text":"y"}]}}]}]}"#,
        "no toolUse",
    ),
    (
        "converse",
        r#"{"messages":[{"role":"user","content":[{"document":{"format":"pdf","name":"a.pdf","source":{"bytes":"AAAA"}}}]}]}"#,
        "file name",
    ),
    ("converse", r#"{"toolConfig":{"tools":[{"toolSpec":{"name":"look"}}]}}"#, "inputSchema"),
    ("cohere", r#"{"n":2}"#, "n: Extra inputs"),
    ("cohere", r#"{"tool_choice":"auto"}"#, "REQUIRED"),
    ("cohere", r#"{"p":1.0}"#, "range"),
    (
        "cohere",
        r#"{"response_format":{"type":"json_object","json_schema":{"name":"x","schema":{}}}}"#,
        "the schema itself",
    ),
    (
        "cohere",
        r#"{"messages":[{"role":"tool","tool_call_id":"c","content":"x"}]}"#,
        "no call has the id",
    ),
    (
        "ollama",
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
        "string",
    ),
    (
        "ollama",
        r#"{"messages":[{"role":"assistant","content":"","tool_calls":[{"function":{"name":"look","arguments":"{}"}}]}]}"#,
        "arguments",
    ),
    (
        "ollama",
        r#"{"messages":[{"role":"user","content":"","images":["data:image/png;base64,AAAA"]}]}"#,
        "base64",
    ),
    ("ollama", r#"{"format":"xml"}"#, "format"),
    ("mistral", r#"{"seed":7}"#, "seed"),
    ("mistral", r#"{"stream_options":{}}"#, "stream_options"),
    (
        "mistral",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"",
            "tool_calls":[{"id":"call_1","function":{"name":"look","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"call_1","content":"y"}]}"#,
        "9 characters",
    ),
    (
        "mistral",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}"#,
        "last role",
    ),
    ("responses", r#"{"messages":[]}"#, "messages"),
    ("responses", r#"{"input":null}"#, "input"),
    ("responses", r#"{"max_output_tokens":9}"#, "max_output_tokens"),
    ("responses", r#"{"tools":[{"type":"function","function":{"name":"look"}}]}"#, "function"),
    (
        "responses",
        r#"{"input":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
        "`text` is none of",
    ),
    (
        "responses",
        r#"{"input":[{"type":"function_call_output","call_id":"c","output":"x"}]}"#,
        "No tool call found",
    ),
    (
        "responses",
        r#"{"input":[{"type":"function_call","call_id":"c","name":"look","arguments":"{}"}]}"#,
        "No tool output found",
    ),
    (
        "chat",
        r#"{"messages":[{"role":"tool","tool_call_id":"c","content":"x"}]}"#,
        "preceeding message",
    ),
    (
        "chat",
        r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function",
            "function":{"name":"look","arguments":"{}"}}]},{"role":"user","content":"x"}]}"#,
        "must be followed by tool messages",
    ),
];

#[test]
fn what_a_vendor_refuses_is_refused() {
    for (name, changes, part) in REFUSED {
        let case = Case::of(name);
        let refused = refused(case, changed(case, changes));
        let (status, message) = refused.unwrap_or_else(|| panic!("{name} took {changes}"));
        assert!(matches!(status, 400 | 422), "{name} {changes}: {status}");
        assert!(message.contains(part), "{name} {changes}: {message}");
    }
}

/// Conversations with thoughts, calls, results and media, as each format has them. `SEAL` and `CALL`
/// stand for the seals of the thought `hm` and of the call's arguments.
const TAKEN: &[(&str, &str)] = &[
    (
        "anthropic",
        r#"{"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"max_tokens":4000,
        "thinking":{"type":"enabled","budget_tokens":1024},"metadata":{"user_id":"u"},"messages":[
        {"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},
            {"type":"text","text":"x"}]},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"SEAL"},
            {"type":"tool_use","id":"c1","name":"look","input":{}},{"type":"tool_use","id":"c2","name":"look","input":{}}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"c2","content":"y","is_error":true},
            {"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"y"}]},{"type":"text","text":"z"}]}]}"#,
    ),
    (
        "gemini",
        r#"{"system_instruction":{"parts":[{"text":"s"}]},
        "generation_config":{"max_output_tokens":7,"stopSequences":["a"],"responseMimeType":"application/json",
            "responseJsonSchema":{"type":"object","additionalProperties":false}},
        "contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"AAAA"}},{"text":"x"}]},
        {"role":"model","parts":[{"text":"hm","thought":true,"thoughtSignature":"SEAL"},
            {"functionCall":{"name":"look","args":{"a":1}},"thoughtSignature":"CALL"}]},
        {"role":"user","parts":[{"functionResponse":{"name":"look","response":{"result":"y"}}}]}]}"#,
    ),
    (
        "converse",
        r#"{"system":[{"text":"s"}],"inferenceConfig":{"maxTokens":7,"stopSequences":["a"]},"messages":[
        {"role":"user","content":[{"image":{"format":"png","source":{"bytes":"AAAA"}}},{"text":"x"}]},
        {"role":"assistant","content":[{"reasoningContent":{"reasoningText":{"text":"hm","signature":"SEAL"}}},
            {"toolUse":{"toolUseId":"c1","name":"look","input":{}}}]},
        {"role":"user","content":[{"toolResult":{"toolUseId":"c1","content":[{"json":{}}],"status":"error"}},
            {"text":"z"}]}]}"#,
    ),
    (
        "responses",
        r#"{"instructions":"s","max_output_tokens":16,"include":["reasoning.encrypted_content"],"store":false,
        "input":[{"role":"user","content":[{"type":"input_image","image_url":"data:,"},{"type":"input_text","text":"x"}]},
        {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"SEAL"},
        {"type":"function_call","call_id":"c1","name":"look","arguments":"{}"},
        {"type":"function_call_output","call_id":"c1","output":"y"},
        {"role":"assistant","content":[{"type":"output_text","text":"z"}]},{"role":"user","content":"more"}]}"#,
    ),
    (
        "cohere",
        r#"{"tool_choice":"REQUIRED","p":0.9,"messages":[{"role":"system","content":"s"},
        {"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"data:,"}}]},
        {"role":"assistant","tool_plan":"hm","tool_calls":[{"id":"c1","type":"function",
            "function":{"name":"look","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c1","content":[{"type":"document","document":{"data":"y"}}]}]}"#,
    ),
    (
        "ollama",
        r#"{"think":"low","format":{"type":"object"},"options":{"num_predict":-1,"stop":["a"]},"messages":[
        {"role":"user","content":"x","images":["AAAA"]},
        {"role":"assistant","content":"","thinking":"hm","tool_calls":[{"function":{"name":"look","arguments":{}}}]},
        {"role":"tool","tool_name":"look","content":"y"}]}"#,
    ),
    (
        "mistral",
        r#"{"random_seed":7,"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"",
        "tool_calls":[{"id":"abcdef123","function":{"name":"look","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"abcdef123","content":"y"},{"role":"assistant","content":"z","prefix":true}]}"#,
    ),
    (
        "chat",
        r#"{"messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"x"},
            {"type":"image_url","image_url":{"url":"data:,"}}]},
        {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
            "function":{"name":"look","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"y"}],"service_tier":"flex","unheard_of":1}"#,
    ),
];

#[test]
fn what_a_vendor_takes_is_taken() {
    for (name, changes) in TAKEN {
        let changes = changes.replace("SEAL", &seal("hm")).replace("CALL", &seal(r#"{"a":1}"#));
        let case = Case::of(name);
        assert_eq!(refused(case, changed(case, &changes)), None, "{name}");
    }
}

#[test]
fn a_thought_that_lost_its_signature_is_refused() {
    for (name, changes) in TAKEN.iter().filter(|(_, changes)| changes.contains("SEAL")) {
        let changes = changes.replace("CALL", &seal(r#"{"a":1}"#));
        let case = Case::of(name);
        let other = changes.replace("SEAL", &seal("another thought"));
        assert!(refused(case, changed(case, &other)).is_some(), "{name}");
        // Of a signature that is not the sandbox's it can't know.
        let foreign = changes.replace("SEAL", "Es8Cforeign");
        assert_eq!(refused(case, changed(case, &foreign)), None, "{name}");
    }
    let case = Case::of("gemini");
    let changes = TAKEN[1].1.replace("SEAL", &seal("hm")).replace("CALL", &seal("{}"));
    assert!(refused(case, changed(case, &changes)).is_some());
}

#[test]
fn a_credential_in_another_vendors_place_is_refused() {
    for (name, field, status) in [
        ("chat", ("x-api-key", "x"), 401),
        ("chat", ("authorization", "Basic x"), 401),
        ("azure", ("x-goog-api-key", "x"), 401),
        ("anthropic", ("x-goog-api-key", "x"), 401),
        ("gemini", ("authorization", "Bearer x"), 403),
        ("vertex", ("x-api-key", "x"), 401),
        ("converse", ("x-api-key", "x"), 401),
        ("converse", ("authorization", "AWS4-HMAC-SHA256 Credential=x"), 401),
        ("cohere", ("x-api-key", "x"), 401),
    ] {
        let case = Case::of(name);
        let mut request = case.request("ok", true, (case.body)());
        let keys = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
        request.fields.retain(|(name, _)| !keys.contains(&name.as_str()));
        assert!(Ask::read(&request).is_ok(), "{name} without any");
        request.fields.push((field.0.to_owned(), field.1.to_owned()));
        let (_, refusal) = Ask::read(&request).expect_err(name);
        assert_eq!(refusal.status, status, "{name} {field:?}");
    }
}

#[test]
fn a_signed_request_needs_all_of_its_parts() {
    let case = Case::of("converse");
    let good = format!(
        "AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-1/bedrock/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date, Signature={}",
        "0a".repeat(32)
    );
    let ask = |authorization: &str| {
        let mut request = case.request("ok", true, (case.body)());
        request.fields = vec![
            ("authorization".into(), authorization.into()),
            ("x-amz-date".into(), "20260101T000000Z".into()),
        ];
        Ask::read(&request)
    };
    assert!(ask(&good).is_ok());
    for (part, other) in [
        ("/bedrock/", "/s3/"),
        ("host;", ""),
        ("20260101/", "20251231/"),
        ("0a0a", "0a"),
        ("0a0a", "zzzz"),
    ] {
        assert!(ask(&good.replacen(part, other, 1)).is_err(), "{part}");
    }
}

#[test]
fn what_stands_around_a_body_is_checked() {
    let read = |case: &Case, change: &dyn Fn(&mut Request)| {
        let mut request = case.request("ok", true, (case.body)());
        change(&mut request);
        Ask::read(&request).map_err(|(_, refusal)| refusal.status)
    };
    let version = |request: &mut Request| {
        request.fields.retain(|(name, _)| name != "anthropic-version");
    };
    assert_eq!(read(Case::of("anthropic"), &version), Err(400));
    for (version, fits) in [("2023-06-01", true), ("2026-10-21", true), ("latest", false)] {
        let change = |request: &mut Request| {
            request.fields.retain(|(name, _)| name != "anthropic-version");
            request.fields.push(("anthropic-version".into(), version.into()));
        };
        assert_eq!(read(Case::of("anthropic"), &change).is_ok(), fits, "{version}");
    }
    let no_query = |request: &mut Request| request.query.clear();
    assert_eq!(read(Case::of("azure"), &no_query), Err(404));
    assert_eq!(read(Case::of("gemini"), &no_query), Err(400));
    let header = |request: &mut Request| {
        request.fields.push(("anthropic-version".into(), "2023-06-01".into()));
    };
    assert_eq!(read(Case::of("vertex claude"), &header), Err(400));
    for case in CASES {
        assert_eq!(read(case, &|request| request.method = "GET".into()), Err(405), "{}", case.name);
        assert_eq!(read(case, &|request| request.body.truncate(9)), Err(400), "{}", case.name);
    }
}

#[test]
fn refusals_are_told_in_the_formats_own_form() {
    for (name, pointer) in [
        ("chat", "/error/message"),
        ("anthropic", "/error/message"),
        ("gemini", "/error/message"),
        ("converse", "/message"),
        ("cohere", "/message"),
        ("ollama", "/error"),
        ("mistral", "/message"),
        ("responses", "/error/message"),
    ] {
        let case = Case::of(name);
        let mut request = case.request("ok", true, (case.body)());
        request.body.truncate(9);
        let (api, refusal) = Ask::read(&request).expect_err(name);
        let mut out = Buf::new();
        Act::refusal(&mut out, api, &refusal);
        let text = String::from_utf8_lossy(out.as_slice()).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        let said = parsed(body).pointer(pointer).cloned().unwrap_or_default();
        assert!(said.as_str().is_some_and(|said| said.contains("not JSON")), "{name}: {body}");
    }
}

#[test]
fn tokens_are_counted_and_given_out() {
    let mut request = Case::of("anthropic").request("ok", false, super::messages());
    request.path = "/v1/messages/count_tokens".into();
    let body = String::from_utf8_lossy(&request.body)
        .replace(r#""max_tokens":100,"#, "")
        .replace(r#","stream":false"#, "");
    request.body = body.into_bytes();
    let ask = Ask::read(&request).expect("an ask");
    assert_eq!((ask.api, ask.prompt_tokens), (Api::CountTokens, 3));
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    for (assertion, fits) in [("a.b.c", true), ("a.b", false), ("", false)] {
        let request = Request {
            method: "POST".into(),
            path: "/token".into(),
            body: format!("{grant}{assertion}").into_bytes(),
            ..Request::default()
        };
        assert_eq!(Ask::read(&request).is_ok(), fits, "{assertion}");
    }
}
