use serde_json::{Value, json};

use super::*;
use crate::llm::dialects::{Dialect, ErrorText, messages_prompt};
use crate::llm::prompt::{Part, Signature};

/// What a client gets of what `tell` tells.
fn told(whole: bool, tell: impl Fn(&mut Sink<'_>)) -> String {
    let (mut told, mut out, mut events) = (Told::new(Dialect::Messages), Buf::new(), 0);
    if whole {
        told.gather();
    }
    let (out_ref, told_ref) = (&mut out, &mut told);
    let mut sink = Sink {
        out: out_ref,
        shown: "shown",
        events: &mut events,
        id: "req:1",
        seconds: 9,
        told: told_ref,
    };
    tell(&mut sink);
    sink.finish(false);
    let text = String::from_utf8(out.as_slice().to_vec()).unwrap();
    assert_eq!(if whole { 0 } else { text.matches("\n\n").count() }, events as usize);
    text
}

fn whole(tell: impl Fn(&mut Sink<'_>)) -> Value {
    serde_json::from_str(&told(true, tell)).unwrap()
}

/// The events, in short: `start 0 text`, `text 0 Hi`, `stop 0`.
fn events(tell: impl Fn(&mut Sink<'_>)) -> Vec<String> {
    let text = told(false, tell);
    let short = |block: &str| {
        let (name, data) = block.split_once('\n').unwrap();
        let json: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(json["type"], name.strip_prefix("event: ").unwrap());
        let index = &json["index"];
        match json["type"].as_str().unwrap() {
            "content_block_start" => {
                let block = &json["content_block"];
                let kind = block["type"].as_str().unwrap();
                let of = ["name", "data"].iter().find_map(|name| block[*name].as_str());
                format!("start {index} {kind} {}", of.unwrap_or_default()).trim_end().to_owned()
            }
            "content_block_delta" => {
                let delta = json["delta"].as_object().unwrap();
                let (name, said) = delta.iter().find(|(name, _)| *name != "type").unwrap();
                let said = said.as_str().map_or(said["url"].to_string(), str::to_owned);
                format!("{name} {index} {said}")
            }
            "content_block_stop" => format!("stop {index}"),
            "message_delta" => json["delta"]["stop_reason"].as_str().unwrap().to_owned(),
            other => other.to_owned(),
        }
    };
    text.split_terminator("\n\n").map(short).collect()
}

fn text(text: &str) -> Piece<'_> {
    Piece::Text(text)
}

/// A whole answer as what the client's next request says of it.
fn given_back(message: &Value) -> Vec<Part> {
    let turn = json!({ "role": "assistant", "content": message["content"] });
    let body = json!({ "max_tokens": 1, "messages": [turn] });
    let prompt = messages_prompt::read(&body).unwrap();
    prompt.turns.into_iter().flat_map(|turn| turn.parts).collect()
}

#[test]
fn a_stream_has_its_head_blocks_and_end() {
    let said = told(false, |sink| {
        sink.start(Some(text("chatcmpl-1")), None);
        sink.text(0, Piece::Raw(b"a\\n"));
        sink.text(0, text("\u{fc}\""));
        sink.stop(0, Finish::Stop);
        let usage = Usage { prompt: 9, completion: 4, cached: 3, cache_write: 2, reasoning: 1 };
        sink.usage(usage);
    });
    let head = concat!(
        "{\"id\":\"msg_chatcmpl-1\",\"type\":\"message\",\"role\":\"assistant\",",
        "\"model\":\"shown\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":",
        "{\"input_tokens\":0,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,",
        "\"output_tokens\":0}}"
    );
    let block = "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}";
    let end = concat!(
        "\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":",
        "{\"input_tokens\":4,\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":3,",
        "\"output_tokens\":4,\"output_tokens_details\":{\"thinking_tokens\":1}}"
    );
    let event = |name: &str, rest: &str| {
        let comma = if rest.is_empty() { "" } else { "," };
        format!("event: {name}\ndata: {{\"type\":\"{name}\"{comma}{rest}}}\n\n")
    };
    let delta = |text: &str| {
        format!("\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}")
    };
    let want = [
        event("message_start", &format!("\"message\":{head}")),
        event("content_block_start", block),
        event("content_block_delta", &delta("a\\n")),
        event("content_block_delta", &delta("\u{fc}\\\"")),
        event("content_block_stop", "\"index\":0"),
        event("message_delta", end),
        event("message_stop", ""),
    ];
    assert_eq!(said, want.concat());
}

#[test]
fn blocks_are_numbered_densely_and_open_one_at_a_time() {
    let tell = |sink: &mut Sink<'_>| {
        sink.reason(0, text("hm"));
        sink.reason(0, text("!"));
        sink.text(0, text("a"));
        let one = sink.tool(0, text("t1"), text("f"));
        sink.args(0, one, Piece::Raw(b"{\\\"x\\\":"));
        sink.args(0, one, Piece::Raw(b"1}"));
        let two = sink.tool(0, text("t2"), text("g"));
        let three = sink.tool(0, text("t3"), text("h"));
        sink.args(0, three, text("{}"));
        assert_eq!((one, two, three), (0, 1, 2));
        sink.text(0, text("b"));
        sink.stop(0, Finish::ToolCalls);
    };
    assert_eq!(
        events(tell),
        [
            "message_start",
            "start 0 thinking",
            "thinking 0 hm",
            "thinking 0 !",
            "stop 0",
            "start 1 text",
            "text 1 a",
            "stop 1",
            "start 2 tool_use f",
            "partial_json 2 {\"x\":",
            "partial_json 2 1}",
            "stop 2",
            // Nothing yet says that this call has all of its arguments.
            "start 3 tool_use g",
            "start 4 tool_use h",
            "partial_json 4 {}",
            "stop 4",
            "start 5 text",
            "text 5 b",
            "partial_json 3 {}",
            "stop 5",
            "stop 3",
            "tool_use",
            "message_stop",
        ]
    );
    let call = |id: &str, name: &str, input: Value| json!({ "type": "tool_use", "id": id, "name": name, "input": input });
    assert_eq!(
        whole(tell)["content"],
        json!([
            { "type": "thinking", "thinking": "hm!", "signature": "" },
            { "type": "text", "text": "a" },
            call("t1", "f", json!({ "x": 1 })),
            call("t2", "g", json!({})),
            call("t3", "h", json!({})),
            { "type": "text", "text": "b" },
        ])
    );
}

#[test]
fn arguments_that_come_in_turns_go_to_their_blocks() {
    let got = events(|sink| {
        let one = sink.tool(0, text("t1"), text("f"));
        sink.args(0, one, text("{\"x\":\"}"));
        let two = sink.tool(0, text("t2"), text("g"));
        sink.args(0, two, text("{"));
        sink.args(0, one, text("\"}"));
        sink.args(0, two, text("}"));
        sink.args(0, one, text(" "));
    });
    assert_eq!(
        got,
        [
            "message_start",
            "start 0 tool_use f",
            "partial_json 0 {\"x\":\"}",
            "start 1 tool_use g",
            "partial_json 1 {",
            "partial_json 0 \"}",
            "partial_json 1 }",
            "stop 0",
            "stop 1",
            "tool_use",
            "message_stop",
        ]
    );
}

#[test]
fn nothing_is_invented_for_an_answer_that_says_nothing() {
    let nothing = |sink: &mut Sink<'_>| {
        sink.text(0, text(""));
        sink.thought(0);
        sink.refuse(0, text(""));
        sink.image(0, "image/png", text("QUJD"));
        sink.text(1, text("another choice"));
        sink.stop(0, Finish::Length);
    };
    assert_eq!(events(nothing), ["message_start", "max_tokens", "message_stop"]);
    let got = whole(nothing);
    assert_eq!((&got["content"], &got["stop_reason"]), (&json!([]), &json!("max_tokens")));
    assert_eq!(got["id"], "msg_req:1");
    assert_eq!(got["usage"]["output_tokens"], 0);
}

#[test]
fn ends_have_their_reasons() {
    for (finish, refusal, reason) in [
        (Finish::Stop, "", "end_turn"),
        (Finish::Length, "", "max_tokens"),
        (Finish::ToolCalls, "", "tool_use"),
        (Finish::ContentFilter, "", "refusal"),
        (Finish::Stop, "no", "refusal"),
    ] {
        let tell = |sink: &mut Sink<'_>| {
            sink.start(Some(text("msg_1")), None);
            sink.refuse(0, text(refusal));
            sink.stop(0, finish);
        };
        let streamed = events(tell);
        assert_eq!(streamed[streamed.len() - 2], reason);
        assert_eq!(streamed.contains(&"text 0 no".to_owned()), !refusal.is_empty());
        let got = whole(tell);
        assert_eq!((&got["stop_reason"], &got["id"]), (&json!(reason), &json!("msg_1")));
        assert_eq!(got["content"].as_array().unwrap().len(), usize::from(!refusal.is_empty()));
    }
}

#[test]
fn signatures_come_back_to_their_own_family() {
    let tell = |sink: &mut Sink<'_>| {
        sink.thought(0);
        sink.reason(0, text("a"));
        sink.sign(0, Family::Anthropic, text("own"));
        sink.thought(0);
        sink.sign(0, Family::Openai, text("encrypted"));
        sink.sign(0, Family::Gemini, text("another"));
        sink.redacted(0, text("bytes"));
        sink.reason(0, text("b"));
        let call = sink.tool(0, text("t1"), text("f"));
        sink.sign_call(0, call, Family::Gemini, text("g=="));
        sink.args(0, call, text("{}"));
        sink.tool(0, text("t2"), text("h"));
    };
    assert_eq!(
        events(tell),
        [
            "message_start",
            "start 0 thinking",
            "thinking 0 a",
            "signature 0 own",
            "stop 0",
            "start 1 thinking",
            "signature 1 firstbyte:openai:encrypted",
            "stop 1",
            "start 2 thinking",
            "signature 2 firstbyte:gemini:another",
            "stop 2",
            "start 3 redacted_thinking bytes",
            "stop 3",
            "start 4 thinking",
            "thinking 4 b",
            "stop 4",
            "start 5 thinking",
            "signature 5 firstbyte:gemini:call:g==",
            "stop 5",
            "start 6 tool_use f",
            "partial_json 6 {}",
            "stop 6",
            "start 7 tool_use h",
            "partial_json 7 {}",
            "stop 7",
            "tool_use",
            "message_stop",
        ]
    );
    let signed = |family, text: &str| Some(Signature { family, text: text.into() });
    let thought = |text: &str, signature| Part::Thought { text: text.into(), signature };
    let call = |id: &str, name: &str, signature| {
        let (id, name) = (id.into(), name.into());
        Part::Call { id, name, input: json!({}), signature }
    };
    assert_eq!(
        given_back(&whole(tell)),
        [
            thought("a", signed(Family::Anthropic, "own")),
            thought("", signed(Family::Openai, "encrypted")),
            thought("", signed(Family::Gemini, "another")),
            Part::Redacted { data: "bytes".into() },
            thought("b", None),
            call("t1", "f", signed(Family::Gemini, "g==")),
            call("t2", "h", None),
        ]
    );
}

#[test]
fn a_call_that_has_begun_is_not_signed_any_more() {
    let got = events(|sink| {
        let call = sink.tool(0, text("t"), text("f"));
        sink.args(0, call, text("{}"));
        sink.sign_call(0, call, Family::Gemini, text("late"));
    });
    assert_eq!(got.iter().filter(|event| event.starts_with("start")).count(), 1, "{got:?}");
}

#[test]
fn ids_of_calls_are_allowed_there_and_come_back() {
    for id in ["toolu_1", "call-2_A", "functions.f:0", "a\"b\u{17c}", ""] {
        let tell = |sink: &mut Sink<'_>| _ = sink.tool(0, text(id), text("f"));
        let block = whole(tell)["content"][0].clone();
        let given = block["id"].as_str().unwrap().to_owned();
        assert!(
            given.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')),
            "{given}"
        );
        let restored = call_id(&given);
        if id.is_empty() {
            assert_eq!(restored, "call_req:1_0_0");
        } else {
            assert_eq!(restored, id);
        }
        assert!(told(false, tell).contains(&format!("\"id\":\"{given}\"")));
        let result = json!({ "type": "tool_result", "tool_use_id": given, "content": "x" });
        let turns = json!([{ "role": "assistant", "content": [block] }, { "role": "user", "content": [result] }]);
        let prompt = messages_prompt::read(&json!({ "max_tokens": 1, "messages": turns })).unwrap();
        assert!(matches!(&prompt.turns[1].parts[0], Part::Result { id, name, .. }
            if *id == restored && name == "f"));
    }
    assert_eq!(call_id("toolu_fb_%"), "toolu_fb_%");
}

#[test]
fn arguments_are_an_object_whatever_they_are() {
    for (arguments, input) in [
        ("", json!({})),
        ("{\"a\":[1.50,12345678901234567890123]}", json!(null)),
        ("\"{\\\"a\\\":1}\"", json!({ "a": 1 })),
        ("{\"a\":", json!({ "INVALID_JSON": "{\"a\":" })),
        ("[1]", json!({ "INVALID_JSON": "[1]" })),
    ] {
        let said = told(true, |sink| {
            let call = sink.tool(0, text("t"), text("f"));
            sink.args(0, call, text(arguments));
        });
        if input.is_null() {
            // Numbers stay what they are.
            assert!(said.contains(&format!("\"input\":{arguments}")), "{said}");
        } else {
            let got: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(got["content"][0]["input"], input, "{arguments}");
        }
    }
}

#[test]
fn streamed_arguments_that_are_no_object_stand_in_one() {
    for (fragments, want) in [
        (&["say ", "\"hi\"", "\n{}"][..], json!({ "INVALID_JSON": "say \"hi\"\n{}" })),
        (&[" ", "[1,", "2]"], json!({ "INVALID_JSON": "[1,2]" })),
        (&[" \n", "{\"a\":1}", "{}", " "], json!({ "a": 1 })),
    ] {
        let got = events(|sink| {
            let call = sink.tool(0, text("t"), text("f"));
            for fragment in fragments {
                sink.args(0, call, text(fragment));
            }
            sink.tool(0, text("u"), text("g"));
        });
        let parts = got.iter().filter_map(|event| event.strip_prefix("partial_json 0 "));
        let input: Value = serde_json::from_str(&parts.collect::<String>()).unwrap();
        assert_eq!(input, want);
        // Raw or not is the same.
        let raw = events(|sink| {
            let call = sink.tool(0, text("t"), text("f"));
            for fragment in fragments {
                let raw = serde_json::to_string(fragment).unwrap();
                sink.args(0, call, Piece::Raw(&raw.as_bytes()[1..raw.len() - 1]));
            }
            sink.tool(0, text("u"), text("g"));
        });
        assert_eq!(got, raw);
    }
}

#[test]
fn citations_of_addresses_are_told_with_their_text() {
    let note = br#"{"type":"url_citation","url_citation":{"url":"https://x","title":"X","start_index":0,"end_index":1}}"#;
    let tell = |sink: &mut Sink<'_>| {
        sink.text(0, text("a"));
        sink.annotate(0, note);
        sink.annotate(0, br#"{"type":"file_citation","file_citation":{"file_id":"f"}}"#);
        sink.annotate(0, b"no JSON");
    };
    assert_eq!(events(tell)[2..5], ["text 0 a", "citation 0 \"https://x\"", "stop 0"]);
    let cited = json!([{ "type": "web_search_result_location", "cited_text": "", "encrypted_index": "",
        "title": "X", "url": "https://x" }]);
    assert_eq!(whole(tell)["content"][0]["citations"], cited);
    // What comes after its text still belongs to it; of a stream it is too late.
    let late = |sink: &mut Sink<'_>| {
        sink.text(0, text("a"));
        sink.sign(0, Family::Gemini, text("s"));
        sink.annotate(0, note);
        sink.tool(0, text("t"), text("f"));
    };
    assert_eq!(whole(late)["content"][0]["citations"], cited);
    assert!(!events(late).iter().any(|event| event.starts_with("citation")));
    // Without a text they have no place.
    let alone = |sink: &mut Sink<'_>| sink.annotate(0, note);
    assert_eq!(events(alone).len(), 3);
    assert_eq!(whole(alone)["content"], json!([]));
}

#[test]
fn more_cached_tokens_than_tokens_are_as_many() {
    let got = whole(|sink| {
        sink.usage(Usage { prompt: 7, completion: 1, cached: 161, cache_write: 9, reasoning: 0 });
    });
    let counts = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
    assert_eq!(counts.map(|name| got["usage"][name].as_u64().unwrap()), [0, 7, 0]);
}

#[test]
fn errors_have_the_type_of_their_status() {
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ] {
        let text = ErrorText { message: "m\"", kind: "k", param: None, code: None };
        let report = ErrorReport { status, text, metadata: None, id: "r" };
        let got: Value = serde_json::from_str(&Messages.error_body(&report)).unwrap();
        let want = json!({ "type": "error", "error": { "type": kind, "message": "m\"" }, "request_id": "r" });
        assert_eq!(got, want);
    }
    let code = Some("context_length_exceeded");
    let text = ErrorText { message: "9 > 8", kind: "k", param: Some("p"), code };
    let metadata = json!({ "attempts": [] });
    let report = ErrorReport { status: 400, text, metadata: Some(&metadata), id: "r" };
    let mut out = Buf::new();
    Messages.error_event(&report, &mut Told::new(Dialect::Messages), &mut out);
    let out = std::str::from_utf8(out.as_slice()).unwrap();
    let data = out.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    let error = serde_json::from_str::<Value>(data).unwrap()["error"].clone();
    assert_eq!(error["message"], "prompt is too long: 9 > 8");
    assert_eq!((&error["code"], &error["metadata"]), (&json!(code), &metadata));
}
