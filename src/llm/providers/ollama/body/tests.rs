use super::*;
use crate::llm::dialects::chat_prompt;
use crate::llm::prompt::{Family, Signature};

fn body_for(model: &str, chat: Value) -> Result<Value, Fault> {
    write(&chat_prompt::read(&chat).unwrap(), model).map(Value::Object)
}

fn body(chat: Value) -> Result<Value, Fault> {
    body_for("qwen3:8b", chat)
}

/// The body of a request that has only this beside its messages, without these.
fn with(model: &str, fields: Value) -> Value {
    let mut chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    chat.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut body = body_for(model, chat).unwrap();
    body.as_object_mut().unwrap().remove("messages").unwrap();
    body
}

#[test]
fn a_conversation_with_tools_keeps_its_meaning() {
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let got = body(json!({ "messages": [
        { "role": "system", "content": "be brief" },
        { "role": "user", "content": [
            { "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } },
            { "type": "image_url", "image_url": { "url": "data:image/webp;base64,REVG" } },
            { "type": "text", "text": "there" },
        ] },
        { "role": "assistant", "content": "I will", "reasoning_content": "both", "tool_calls": [
            call("c1", "f", "{\"x\":1}"), call("c2", "g", "") ] },
        { "role": "tool", "tool_call_id": "c1", "content": "{\"y\":2}" },
        { "role": "tool", "tool_call_id": "c2", "content": "boom", "is_error": true },
        { "role": "user", "content": "so?" },
        { "role": "assistant", "content": "so" },
        { "role": "developer", "content": "in French" },
        { "role": "tool", "tool_call_id": "unknown", "name": "h", "content": "" },
    ] }))
    .unwrap();
    let expected = json!([
        { "role": "system", "content": "be brief\n\nin French" },
        { "role": "user", "content": "look\n\nthere", "images": ["QUJD", "REVG"] },
        { "role": "assistant", "content": "I will", "thinking": "both", "tool_calls": [
            { "id": "c1", "function": { "name": "f", "arguments": { "x": 1 } } },
            { "id": "c2", "function": { "name": "g", "arguments": {} } } ] },
        { "role": "tool", "tool_name": "f", "tool_call_id": "c1", "content": "{\"y\":2}" },
        { "role": "tool", "tool_name": "g", "tool_call_id": "c2", "content": "Error: boom" },
        { "role": "user", "content": "so?" },
        { "role": "assistant", "content": "so" },
        { "role": "tool", "tool_name": "h", "tool_call_id": "unknown", "content": "" },
    ]);
    assert_eq!(got, json!({ "messages": expected }));
}

#[test]
fn results_come_first_and_proofs_of_others_do_not_go_out() {
    let signature = Signature { family: Family::Gemini, text: "proof".into() };
    let text = |text: &str| Part::Text { text: text.into(), cache: Some(json!({ "type": "x" })) };
    let mut prompt = Prompt::default();
    let call = Part::Call {
        id: String::new(),
        name: "f".into(),
        input: json!({}),
        signature: Some(signature.clone()),
    };
    let thought = Part::Thought { text: "hm".into(), signature: Some(signature) };
    prompt.say(
        Role::Assistant,
        vec![thought.clone(), Part::Redacted { data: "hidden".into() }, call],
    );
    let parts = vec![text("7")];
    let result = Part::Result { id: String::new(), name: "f".into(), parts, is_error: false };
    prompt.say(Role::User, vec![text("so?"), result]);
    // A thought alone is no message.
    prompt.say(Role::Assistant, vec![thought]);
    let got = Value::Object(write(&prompt, "m").unwrap());
    let expected = json!([
        { "role": "assistant", "content": "", "thinking": "hm",
          "tool_calls": [{ "function": { "name": "f", "arguments": {} } }] },
        { "role": "tool", "content": "7", "tool_name": "f" },
        { "role": "user", "content": "so?" },
    ]);
    assert_eq!(got, json!({ "messages": expected }));
}

#[test]
fn pictures_of_tools_and_documents_of_text_are_said_by_the_user() {
    let url = json!({ "url": "data:image/png;base64,QQ==" });
    let image = json!({ "type": "image_url", "image_url": url });
    let notes = json!({ "type": "file", "file": { "file_data": "data:text/plain;base64,SGk=" } });
    let got = body(json!({ "messages": [
        { "role": "tool", "tool_call_id": "c", "content": [{ "type": "text", "text": "7" }, image] },
        { "role": "user", "content": [notes] },
    ] }))
    .unwrap();
    let expected = json!([
        { "role": "tool", "content": "7", "tool_call_id": "c" },
        { "role": "user", "content": "Returned by a tool (call c):\n\nHi", "images": ["QQ=="] },
    ]);
    assert_eq!(got, json!({ "messages": expected }));
}

#[test]
fn parameters_find_their_place_or_are_dropped() {
    let schema = json!({ "type": "object", "properties": { "x": { "type": "integer" } } });
    for (sent, expected) in [
        (json!({ "max_tokens": 9 }), json!({ "options": { "num_predict": 9 } })),
        (json!({ "max_completion_tokens": 9 }), json!({ "options": { "num_predict": 9 } })),
        (json!({ "stop": "x" }), json!({ "options": { "stop": ["x"] } })),
        (json!({ "stop": ["x", "y"] }), json!({ "options": { "stop": ["x", "y"] } })),
        (json!({ "temperature": 1.7 }), json!({ "options": { "temperature": 1.7 } })),
        (json!({ "top_p": 0.9, "top_k": 4 }), json!({ "options": { "top_p": 0.9, "top_k": 4 } })),
        (json!({ "min_p": 0.1, "seed": 3 }), json!({ "options": { "min_p": 0.1, "seed": 3 } })),
        (
            json!({ "presence_penalty": 1, "frequency_penalty": -1 }),
            json!({ "options": { "presence_penalty": 1, "frequency_penalty": -1 } }),
        ),
        (json!({ "repetition_penalty": 1.1 }), json!({ "options": { "repeat_penalty": 1.1 } })),
        (json!({ "response_format": { "type": "json_object" } }), json!({ "format": "json" })),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": schema } } }),
            json!({ "format": schema }),
        ),
        (json!({ "response_format": { "type": "text" } }), json!({})),
        (json!({ "n": 1, "user": "u", "logit_bias": { "1": 2 } }), json!({})),
        (json!({ "logprobs": true, "parallel_tool_calls": false }), json!({})),
        (json!({ "keep_alive": "5m", "options": { "num_ctx": 9 }, "store": true }), json!({})),
    ] {
        assert_eq!(with("llama3", sent.clone()), expected, "{sent}");
    }
}

#[test]
fn one_family_thinks_by_levels() {
    for (effort, plain, level) in [
        ("none", false, "low"),
        ("minimal", true, "low"),
        ("low", true, "low"),
        ("medium", true, "medium"),
        ("high", true, "high"),
        ("xhigh", true, "high"),
    ] {
        let effort = json!({ "reasoning_effort": effort });
        assert_eq!(with("qwen3:8b", effort.clone()), json!({ "think": plain }));
        assert_eq!(with("gpt-oss:120b-cloud", effort), json!({ "think": level }));
    }
    assert_eq!(with("gpt-oss:20b", json!({})), json!({}));
    for (budget, plain, level) in
        [(0, false, "low"), (4096, true, "low"), (16384, true, "medium"), (16385, true, "high")]
    {
        let prompt = Prompt { budget: Some(budget), ..Prompt::default() };
        assert_eq!(write(&prompt, "qwen3").unwrap()["think"], plain);
        assert_eq!(write(&prompt, "openai/gpt-oss:20b").unwrap()["think"], level);
    }
}

#[test]
fn tools_are_shown_unless_none_may_be_called() {
    let parameters = json!({ "type": "object", "properties": { "x": {} }, "required": ["x"] });
    let tools = json!([
        { "type": "function", "function": { "name": "f", "description": "d", "parameters": parameters, "strict": true } },
        { "type": "function", "function": { "name": "g" } },
    ]);
    let bare = json!({ "type": "object", "properties": {} });
    let shown = json!([
        { "type": "function", "function": { "name": "f", "description": "d", "parameters": parameters } },
        { "type": "function", "function": { "name": "g", "parameters": bare } },
    ]);
    for choice in [json!(null), json!("auto")] {
        let got = with("m", json!({ "tools": tools, "tool_choice": choice }));
        assert_eq!(got, json!({ "tools": shown }));
    }
    assert_eq!(with("m", json!({ "tools": tools, "tool_choice": "none" })), json!({}));
    let named = json!({ "type": "function", "function": { "name": "f" } });
    for choice in [json!("required"), named] {
        let chat = json!({ "messages": [], "tools": tools, "tool_choice": choice });
        assert_eq!(body(chat), Err(Fault::Unsendable));
    }
}

#[test]
fn what_can_not_be_said_is_refused() {
    let user = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
    let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
    let call =
        json!([{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "[1]" } }]);
    for chat in [
        user(image("https://x/y.png")),
        user(json!({ "type": "input_audio", "input_audio": { "data": "QQ==" } })),
        user(json!({ "type": "file", "file": { "file_id": "f" } })),
        user(
            json!({ "type": "file", "file": { "file_data": "data:application/pdf;base64,QQ==" } }),
        ),
        json!({ "messages": [{ "role": "assistant", "tool_calls": call }] }),
        json!({ "messages": [], "n": 2 }),
    ] {
        assert_eq!(body(chat.clone()), Err(Fault::Unsendable), "{chat}");
    }
}
