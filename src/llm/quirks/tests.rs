//! Rules on bodies: what is cut, renamed and said otherwise, and that every other byte stays.

use proptest::prelude::*;

use super::*;
use crate::llm::request::{edited_len, write_edited};

fn fitted(body: &str, rules: &[Rule]) -> Result<String, Fault> {
    let edits = fit(body.as_bytes(), rules, "up")?;
    let mut out = Buf::new();
    write_edited(&edits, body.as_bytes(), "up", &mut out);
    assert_eq!(edited_len(&edits, body.as_bytes(), "up"), out.len());
    Ok(String::from_utf8(out.as_slice().to_vec()).unwrap())
}

#[test]
fn the_smallest_edits_are_made() {
    use Verdict::{Count, Details, Drop, Few, Flat, Only, Refuse, Rename, Words};
    let never = Err(Fault::Unsendable);
    let only = Only { words: &["auto"], other: false };
    let role = Words(&[("developer", "system"), ("none", "")]);
    for (path, verdict, body, want) in [
        ("a", Drop, r#"{"a":1}"#, Ok(r#"{}"#)),
        ("a", Drop, r#"{ "b" : 2 , "a":[1,{}] }"#, Ok(r#"{ "b" : 2 }"#)),
        ("a", Drop, r#"{"a":1, "b":2}"#, Ok(r#"{"b":2}"#)),
        ("a", Drop, r#"{"b":2,"\u0061":1,"models":[],"c":3}"#, Ok(r#"{"b":2,"c":3}"#)),
        ("a", Drop, r#"{"model":"m","c":3,"a":1,"provider":{}}"#, Ok(r#"{"model":"up","c":3}"#)),
        ("a", Drop, r#"{"b":{"a":1}}"#, Ok(r#"{"b":{"a":1}}"#)),
        ("b.a", Drop, r#"{"b":{"a":1},"a":1}"#, Ok(r#"{"b":{},"a":1}"#)),
        (
            "b[].a",
            Drop,
            r#"{"b":[{"a":1,"c":2},7,{"c":3,"a":[]}]}"#,
            Ok(r#"{"b":[{"c":2},7,{"c":3}]}"#),
        ),
        (
            "b[].c[].a",
            Drop,
            r#"{"b":[{"c":[{"a":1}]},{"c":"a"}]}"#,
            Ok(r#"{"b":[{"c":[{}]},{"c":"a"}]}"#),
        ),
        ("b[].a", Drop, r#"{"b":{"a":1}}"#, Ok(r#"{"b":{"a":1}}"#)),
        ("n", Refuse, r#"{"n":1,"x":0}"#, Ok(r#"{"x":0}"#)),
        ("n", Refuse, r#"{"n":2}"#, never),
        ("a", Refuse, r#"{"a":false}"#, Ok("{}")),
        ("a", Refuse, r#"{"a":[]}"#, Ok("{}")),
        ("a", Refuse, r#"{"a":0}"#, Ok("{}")),
        ("a", Refuse, r#"{"a":1}"#, never),
        ("a", Refuse, r#"{"a":{}}"#, never),
        ("a", Refuse, r#"{"a":true}"#, never),
        ("parallel_tool_calls", Refuse, r#"{"parallel_tool_calls":true}"#, Ok("{}")),
        ("parallel_tool_calls", Refuse, r#"{"parallel_tool_calls":false}"#, never),
        ("a", Rename("z"), r#"{"a": 7,"b":1}"#, Ok(r#"{"z": 7,"b":1}"#)),
        ("a", Rename("z"), r#"{"z":1,"a":7}"#, Ok(r#"{"z":7}"#)),
        ("a", Rename("z"), r#"{"a":7,"z":{"a":1}}"#, Ok(r#"{"z":7}"#)),
        ("a", Rename("z"), r#"{"a":null,"z":1}"#, Ok(r#"{"z":1}"#)),
        ("r", role, r#"{"r":"developer"}"#, Ok(r#"{"r":"system"}"#)),
        ("r", role, r#"{"r":"user"}"#, Ok(r#"{"r":"user"}"#)),
        ("r", role, r#"{"r":"none","b":1}"#, Ok(r#"{"b":1}"#)),
        ("c", only, r#"{"c":"auto"}"#, Ok(r#"{"c":"auto"}"#)),
        ("c", only, r#"{"c":null}"#, Ok(r#"{"c":null}"#)),
        ("c", only, r#"{"c":"required"}"#, never),
        ("c", only, r#"{"c":{"type":"function"}}"#, never),
        ("s", Few(2), r#"{"s":["a","b"]}"#, Ok(r#"{"s":["a","b"]}"#)),
        ("s", Few(2), r#"{"s":"abc"}"#, Ok(r#"{"s":"abc"}"#)),
        ("s", Few(2), r#"{"s":["a","b","c"]}"#, never),
        (
            "c",
            Flat,
            r#"{"c":[{"type":"text","text":"a\u00fc"},{"text":"b"}]}"#,
            Ok(r#"{"c":"a\u00fc\n\nb"}"#),
        ),
        ("c", Flat, r#"{"c":[{"type":"image_url"}]}"#, Ok(r#"{"c":[{"type":"image_url"}]}"#)),
        ("c", Flat, r#"{"c":"x"}"#, Ok(r#"{"c":"x"}"#)),
        ("l", Count("t"), r#"{"l":true,"t":5}"#, Ok(r#"{"l":5,"t":5}"#)),
        ("l", Count("t"), r#"{"l":true}"#, Ok(r#"{"l":1}"#)),
        ("l", Count("t"), r#"{"l":false}"#, Ok("{}")),
        (
            "t",
            Details,
            r#"{"t":[{"type":"thinking","thinking":"a\u00fc","signature":"s"},{"type":"redacted_thinking","data":"x"},{"thinking":"b"},{"thinking":"c","signature":"firstbyte:gemini:s"}],"b":1}"#,
            Ok(
                r#"{"reasoning_details":[{"type":"reasoning.text","format":"anthropic-claude-v1","index":0,"text":"a\u00fc","signature":"s"},{"type":"reasoning.encrypted","format":"anthropic-claude-v1","index":1,"data":"x"}],"b":1}"#,
            ),
        ),
        ("t", Details, r#"{"t":[],"reasoning_details":[1]}"#, Ok(r#"{"reasoning_details":[1]}"#)),
        ("a", Drop, "[1]", never),
        ("a", Drop, "{", never),
    ] {
        let got = fitted(body, &[Rule::new(path, verdict)]);
        assert_eq!(got, want.map(str::to_owned), "{path} {verdict:?} {body}");
    }
}

#[test]
fn rules_of_some_models_hold_for_them_alone() {
    let rules = [
        Rule::of(|model| model == "up", "a", Verdict::Drop),
        Rule::of(|model| model == "down", "b", Verdict::Refuse),
    ];
    assert_eq!(fitted(r#"{"a":1,"b":2}"#, &rules), Ok(String::from(r#"{"b":2}"#)));
    let judged = |model| judge(br#"{"a":1,"b":2,"models":[]}"#, &rules, model);
    assert_eq!(judged("up"), [("a".into(), Fate::Dropped)]);
    assert_eq!(judged("down"), [("b".into(), Fate::Incompatible)]);
    assert_eq!(judged("aside"), []);
    assert_eq!(judge(b"[", &rules, "up"), []);
}

#[test]
fn a_part_that_becomes_a_string_is_not_edited_within() {
    let rules = [
        Rule::new("m[].content", Verdict::Flat),
        Rule::new("m[].content[].cache_control", Verdict::Drop),
        Rule::new("m[].content[].image_url", Verdict::Refuse),
        Rule::new("m[].name", Verdict::Drop),
    ];
    let body = r#"{"m":[{"name":"n","content":[{"text":"a","cache_control":{}}]}]}"#;
    assert_eq!(fitted(body, &rules), Ok(String::from(r#"{"m":[{"content":"a"}]}"#)));
    let body = r#"{"m":[{"content":[{"text":"a"},{"type":"image_url","image_url":{}}]}]}"#;
    assert_eq!(fitted(body, &rules), Err(Fault::Unsendable));
}

/// Any object of these few names, two levels deep.
fn body() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::json!(null)),
        Just(serde_json::json!("x")),
        Just(serde_json::json!([1, "y"])),
        Just(serde_json::json!(1.5)),
    ];
    let name = prop_oneof![
        Just("a"),
        Just("b"),
        Just("z"),
        Just("models"),
        Just("provider"),
        Just("model")
    ];
    let inner = prop::collection::btree_map(name.clone(), leaf.clone(), 0..5)
        .prop_map(|map| serde_json::json!(map));
    let list = prop::collection::vec(inner.clone(), 0..3).prop_map(|list| serde_json::json!(list));
    prop::collection::vec((name, prop_oneof![leaf, inner, list]), 0..6).prop_map(|members| {
        serde_json::Value::Object(
            members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        )
    })
}

proptest! {
    /// The edited bytes are what a tree would be with the same changes.
    #[test]
    fn edits_of_bytes_are_edits_of_the_tree(body in body(), spaced: bool) {
        let text = if spaced { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
        let rules = [
            Rule::new("a", Verdict::Rename("z")),
            Rule::new("b[].a", Verdict::Drop),
            Rule::new("b.z", Verdict::Drop),
        ];
        let got = fitted(&text.unwrap(), &rules).unwrap();
        let got: serde_json::Value = serde_json::from_str(&got).unwrap();
        let mut want = body;
        let top = want.as_object_mut().unwrap();
        top.remove("models");
        top.remove("provider");
        if top.get("model").is_some_and(serde_json::Value::is_string) {
            top.insert("model".into(), "up".into());
        }
        if let Some(value) = top.remove("a").filter(|value| !value.is_null()) {
            top.insert("z".into(), value);
        }
        match top.get_mut("b") {
            Some(serde_json::Value::Object(inner)) => _ = inner.remove("z"),
            Some(serde_json::Value::Array(list)) => {
                for item in list.iter_mut().filter_map(serde_json::Value::as_object_mut) {
                    item.remove("a");
                }
            }
            _ => {}
        }
        prop_assert_eq!(got, want);
    }
}
