//! A request that came in this API's own words and goes to it: as it came, but for what another provider
//! put into the conversation before. Thoughts signed by another family, or by none, are refused there, and
//! so are citations without the bytes that prove them; both are left out. Other vendors who serve models of
//! their own by this API sign nothing, and some insist on their thoughts: to those only what bears another
//! family's tag is not given back.
//!
//! Nothing is parsed unless the body has such a thing in it.

use std::borrow::Cow;

use serde_json::Value;

use crate::llm::prompt::{Family, Signature};

/// The body as it may go upstream to `model`.
pub fn cleaned<'b>(body: &'b [u8], model: &str) -> Cow<'b, [u8]> {
    let is_claude = model.contains("claude");
    let has_foreign = is_tagged(body) || (is_claude && has_unproven(body));
    if !has_foreign {
        return Cow::Borrowed(body);
    }
    let Ok(mut request) = serde_json::from_slice::<Value>(body) else {
        return Cow::Borrowed(body);
    };
    clean(&mut request, is_claude);
    serde_json::to_vec(&request).map_or(Cow::Borrowed(body), Cow::Owned)
}

/// Whether something in it bears another family's tag.
fn is_tagged(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"\"firstbyte:").is_some()
}

/// Whether something in it may be another provider's.
fn has_unproven(body: &[u8]) -> bool {
    let empty = |name: &str| values(body, name).any(|value| value.starts_with(b"\"\""));
    let foreign_call = |id: &[u8]| !id.starts_with(b"\"toolu_") || id.starts_with(b"\"toolu_fb_");
    empty("\"signature\"")
        || empty("\"encrypted_index\"")
        || values(body, "\"tool_use_id\"").any(foreign_call)
}

/// What stands behind each member of this name, quotes included.
fn values<'b>(body: &'b [u8], name: &'b str) -> impl Iterator<Item = &'b [u8]> {
    memchr::memmem::find_iter(body, name).filter_map(move |at| {
        let rest = body[at + name.len()..].trim_ascii_start();
        rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start)
    })
}

fn clean(request: &mut Value, is_claude: bool) {
    let Some(messages) = request.get_mut("messages").and_then(Value::as_array_mut) else { return };
    for message in messages.iter_mut().filter(|message| message["role"] == "assistant") {
        let Some(blocks) = message["content"].as_array_mut() else { continue };
        blocks.retain(|block| block["type"] != "thinking" || is_welcome(block, is_claude));
        for block in blocks {
            let Some(citations) = block.get_mut("citations").and_then(Value::as_array_mut) else {
                continue;
            };
            citations.retain(|citation| citation["encrypted_index"] != "");
        }
    }
    // A turn of nothing but foreign thoughts.
    messages.retain(|message| message["content"].as_array().is_none_or(|list| !list.is_empty()));
    if is_claude
        && goes_on_without_thoughts(messages)
        && request["thinking"]["type"] == "enabled"
        && let Some(request) = request.as_object_mut()
    {
        request.shift_remove("thinking");
    }
}

/// Whether a thought may be given back.
fn is_welcome(block: &Value, is_claude: bool) -> bool {
    let signature = block["signature"].as_str().unwrap_or_default();
    let own = Signature::read(signature, Family::Anthropic);
    own.of(Family::Anthropic).is_some_and(|text| !is_claude || !text.is_empty())
}

/// Whether results of calls end the conversation whose turn has no thought: thinking can't go on from
/// there.
fn goes_on_without_thoughts(messages: &[Value]) -> bool {
    let [.., before, last] = messages else { return false };
    let has = |message: &Value, kinds: &[&str]| {
        let blocks = message["content"].as_array().into_iter().flatten();
        blocks.filter_map(|block| block["type"].as_str()).any(|kind| kinds.contains(&kind))
    };
    has(last, &["tool_result"]) && !has(before, &["thinking", "redacted_thinking"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(blocks: Value) -> Value {
        json!([{ "role": "user", "content": "x" }, { "role": "assistant", "content": blocks }])
    }

    fn sent_to(model: &str, body: &Value) -> Value {
        // As an SDK writes it, and with blanks.
        let of = |bytes: &[u8]| serde_json::from_slice::<Value>(&cleaned(bytes, model)).unwrap();
        let plain = of(&serde_json::to_vec(body).unwrap());
        assert_eq!(plain, of(&serde_json::to_vec_pretty(body).unwrap()));
        plain
    }

    fn sent(body: &Value) -> Value {
        sent_to("claude-sonnet-4-5", body)
    }

    #[test]
    fn what_is_the_providers_own_goes_out_as_it_came() {
        let body = br#"{ "messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"a","signature":"s"}, {"type":"tool_use","id":"toolu_1"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1"}]}],"n":1.50 }"#;
        assert!(matches!(cleaned(body, "claude"), Cow::Borrowed(same) if same == body));
    }

    #[test]
    fn thoughts_and_citations_of_others_are_left_out() {
        let thought = |signature: &str| json!({ "type": "thinking", "thinking": "a", "signature": signature });
        let text =
            |citations: Value| json!({ "type": "text", "text": "t", "citations": citations });
        let cited = |index: &str| json!({ "url": "u", "encrypted_index": index });
        let got = sent(&json!({ "messages": turn(json!([
            thought("firstbyte:gemini:x"), thought(""), thought("own"),
            text(json!([cited(""), cited("e")])),
        ])) }));
        let kept = json!([thought("own"), text(json!([cited("e")]))]);
        assert_eq!(got["messages"], turn(kept));
        let alone = sent(&json!({ "messages": turn(json!([thought("")])) }));
        assert_eq!(alone["messages"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn vendors_who_sign_nothing_get_their_thoughts_back() {
        let thought = |signature: &str| json!({ "type": "thinking", "thinking": "a", "signature": signature });
        let call = json!({ "type": "tool_use", "id": "call_1", "name": "f", "input": {} });
        let mut messages = turn(json!([thought(""), thought("firstbyte:openai:x"), call]));
        let result = json!({ "type": "tool_result", "tool_use_id": "call_1", "content": "y" });
        messages.as_array_mut().unwrap().push(json!({ "role": "user", "content": [result] }));
        let thinking = json!({ "type": "enabled", "budget_tokens": 1024 });
        let got = sent_to("kimi-k2", &json!({ "thinking": thinking, "messages": messages }));
        assert_eq!(got["messages"][1]["content"], json!([thought(""), call]));
        assert_eq!(got["thinking"], thinking);
    }

    #[test]
    fn thinking_ends_where_it_can_not_go_on() {
        let call = |id: &str, before: Value| {
            let mut blocks: Vec<Value> = before.as_array().unwrap().clone();
            blocks.push(json!({ "type": "tool_use", "id": id, "name": "f", "input": {} }));
            let result = json!({ "type": "tool_result", "tool_use_id": id, "content": "y" });
            json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 }, "messages": [
                { "role": "user", "content": "x" },
                { "role": "assistant", "content": blocks },
                { "role": "user", "content": [result] },
            ] })
        };
        let own = json!([{ "type": "thinking", "thinking": "", "signature": "own" }]);
        assert!(sent(&call("call_1", json!([]))).get("thinking").is_none());
        assert!(sent(&call("toolu_fb_eA", json!([]))).get("thinking").is_none());
        assert!(sent(&call("call_1", own)).get("thinking").is_some());
    }
}
