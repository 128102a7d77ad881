//! Cases, and `serde_json` as the oracle on random and mutated documents.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::scan::find_special;
use super::*;
use crate::base::buf::Buf;
use crate::base::limits::JSON_DEPTH_MAX;

fn fault(text: &str) -> Fault {
    document(text.as_bytes()).expect_err(text).what
}

/// A validated document as a `serde_json` tree, through the walkers.
fn tree(bytes: &[u8], value: Value) -> Json {
    match value.kind {
        Kind::Null => Json::Null,
        Kind::True | Kind::False => Json::Bool(as_bool(value).unwrap()),
        Kind::Number => serde_json::from_slice(value.raw(bytes)).unwrap(),
        Kind::String => Json::String(text(bytes, value).unwrap().into_owned()),
        Kind::Array => items(bytes, value).map(|item| tree(bytes, item)).collect(),
        Kind::Object => {
            let member = |m: Member| (m.name(bytes).into_owned(), tree(bytes, m.value));
            Json::Object(members(bytes, value).map(member).collect())
        }
    }
}

#[test]
fn documents_of_each_kind() {
    let cases: &[(&str, Kind)] = &[
        ("null", Kind::Null),
        (" true\n", Kind::True),
        ("\tfalse\r", Kind::False),
        ("-0.5e+10", Kind::Number),
        ("0", Kind::Number),
        ("\"\"", Kind::String),
        ("[]", Kind::Array),
        ("[ ]", Kind::Array),
        ("{}", Kind::Object),
        ("{ \"a\" : [ 1 , 2 ] }", Kind::Object),
        ("\"\\ud800\"", Kind::String),
        ("\"\u{7f}\u{2028}\"", Kind::String),
    ];
    for (text, kind) in cases {
        let value = document(text.as_bytes()).unwrap();
        assert_eq!(value.kind, *kind, "{text:?}");
        assert_eq!(value.raw(text.as_bytes()), text.trim().as_bytes());
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let cases: &[(&str, Fault)] = &[
        ("", Fault::Ended),
        (" ", Fault::Ended),
        ("[", Fault::Ended),
        ("[1", Fault::Ended),
        ("[1,", Fault::Ended),
        ("{", Fault::Ended),
        ("{\"a\"", Fault::Ended),
        ("{\"a\":", Fault::Ended),
        ("\"a", Fault::Ended),
        ("\"a\\", Fault::Ended),
        ("\"\\u12", Fault::Ended),
        ("-", Fault::Ended),
        ("1.", Fault::Ended),
        ("1e", Fault::Ended),
        ("tru", Fault::Ended),
        ("[1,]", Fault::Syntax),
        ("[,1]", Fault::Syntax),
        ("[1 2]", Fault::Syntax),
        ("[1}", Fault::Syntax),
        ("{\"a\":1]", Fault::Syntax),
        ("{\"a\":1,}", Fault::Syntax),
        ("{,}", Fault::Syntax),
        ("{\"a\"}", Fault::Syntax),
        ("{\"a\",1}", Fault::Syntax),
        ("{a:1}", Fault::Syntax),
        ("{'a':1}", Fault::Syntax),
        ("{1:1}", Fault::Syntax),
        ("]", Fault::Syntax),
        ("NaN", Fault::Syntax),
        ("Infinity", Fault::Syntax),
        ("trux", Fault::Syntax),
        ("+1", Fault::Syntax),
        (".5", Fault::Syntax),
        ("/**/1", Fault::Syntax),
        ("\u{feff}1", Fault::Syntax),
        ("\u{a0}1", Fault::Syntax),
        ("-a", Fault::Number),
        ("-.5", Fault::Number),
        ("1.e5", Fault::Number),
        ("1ex", Fault::Number),
        ("1e+-1", Fault::Number),
        ("01", Fault::Trailing),
        ("-01", Fault::Trailing),
        ("0x1", Fault::Trailing),
        ("1 2", Fault::Trailing),
        ("{}{}", Fault::Trailing),
        ("null,", Fault::Trailing),
        ("truex", Fault::Trailing),
        ("\"\\x\"", Fault::Escape),
        ("\"\\'\"", Fault::Escape),
        ("\"\\u12g4\"", Fault::Escape),
        ("\"\\u+123\"", Fault::Escape),
        ("\"a\nb\"", Fault::Control),
        ("\"a\tb\"", Fault::Control),
        ("\"\0\"", Fault::Control),
        ("{\"a\n\":1}", Fault::Control),
    ];
    for (text, what) in cases {
        assert_eq!(fault(text), *what, "{text:?}");
    }
    for bytes in [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\"\xc0\x80\"", b"{}\xff"] {
        assert_eq!(document(bytes).unwrap_err().what, Fault::Utf8, "{bytes:?}");
    }
    assert_eq!(document(b"[1, x]").unwrap_err().at, 4);
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(document(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(fault(&nested(JSON_DEPTH_MAX + 1)), Fault::Depth);
    assert_eq!(fault(&nested(1_000_000)), Fault::Depth);
    let objects = "{\"a\":".repeat(JSON_DEPTH_MAX) + "1" + &"}".repeat(JSON_DEPTH_MAX);
    assert!(document(objects.as_bytes()).is_ok());
    // Alternating kinds: the stack of bits tells them apart at any depth.
    let mixed = "[{\"a\":".repeat(JSON_DEPTH_MAX / 2) + "1" + &"}]".repeat(JSON_DEPTH_MAX / 2);
    assert!(document(mixed.as_bytes()).is_ok());
    assert_eq!(fault(&mixed.replace("}]", "]}")), Fault::Syntax);
}

#[test]
fn members_are_found() {
    let bytes =
        br#" { "model" : "x" , "n":1,"mo\u0064el":"y","a":{"b":{"model":[1,{"c":2}]}} , "":0 } "#;
    let mut top = Top::new();
    let value = document_with_top(bytes, &mut top).unwrap();
    assert_eq!(top.len(), 5);
    assert_eq!(top.as_slice(), members(bytes, value).collect::<Vec<_>>());
    assert_eq!(count(bytes, value, "model"), 2);
    let model = get(bytes, value, "model").unwrap();
    assert!(str_eq(bytes, model, "y") && !str_eq(bytes, model, "x"));
    assert_eq!(find(bytes, &top, "model"), Some(model));
    let list = get_path(bytes, value, &["a", "b", "model"]).unwrap();
    assert_eq!(list.raw(bytes), br#"[1,{"c":2}]"#);
    let two = get(bytes, at(bytes, list, 1).unwrap(), "c").unwrap();
    assert_eq!(as_u64(bytes, two), Some(2));
    assert_eq!(at(bytes, list, 2), None);
    assert_eq!(get(bytes, value, "none"), None);
    assert_eq!(get(bytes, list, "model"), None);
    assert_eq!(items(bytes, value).count() + members(bytes, list).count(), 0);
    assert!(get(bytes, value, "").is_some());

    document_with_top(b"[{\"a\":1}]", &mut top).unwrap();
    assert!(top.is_empty());
    document_with_top(br#"{"a":[{"b":1}],"c":"}"}"#, &mut top).unwrap();
    assert_eq!(top.iter().map(|m| m.value.kind).collect::<Vec<_>>(), [Kind::Array, Kind::String]);
}

#[test]
fn nothing_is_in_what_is_empty() {
    for (text, empty) in [
        ("[]", true),
        ("{}", true),
        ("[ \n]", true),
        ("{\t}", true),
        ("\"a\"", true),
        ("1", true),
        ("[0]", false),
        ("[ []]", false),
        ("{\"a\":1}", false),
    ] {
        assert_eq!(is_empty(text.as_bytes(), document(text.as_bytes()).unwrap()), empty, "{text}");
    }
}

#[test]
fn strings_are_unescaped() {
    let cases: &[(&str, &str)] = &[
        (r#""""#, ""),
        (r#""plain é""#, "plain é"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u0041\u00e9\u20AC""#, "Aé€"),
        (r#""x\ud83d\ude42y""#, "x🙂y"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\ud83d\ude42""#, "\u{fffd}🙂"),
        (r#""\ude42\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\u0000""#, "\0"),
    ];
    for (raw, expected) in cases {
        let value = document(raw.as_bytes()).unwrap();
        let got = text(raw.as_bytes(), value).unwrap();
        assert_eq!(got, *expected, "{raw}");
        assert_eq!(matches!(got, Cow::Borrowed(_)), !raw.contains('\\'));
        assert!(str_eq(raw.as_bytes(), value, expected));
        assert!(!str_eq(raw.as_bytes(), value, &format!("{expected}x")));
    }
    assert_eq!(text(b"1", document(b"1").unwrap()), None);
}

#[test]
fn numbers_are_read() {
    let cases: &[(&str, Option<u64>, Option<f64>)] = &[
        ("0", Some(0), Some(0.0)),
        ("-0", Some(0), Some(0.0)),
        ("18446744073709551615", Some(u64::MAX), Some(u64::MAX as f64)),
        ("18446744073709551616", None, Some(u64::MAX as f64)),
        ("-1", None, Some(-1.0)),
        ("1.0", Some(1), Some(1.0)),
        ("1e3", Some(1000), Some(1000.0)),
        ("1.5", None, Some(1.5)),
        ("1e400", None, None),
        ("\"1\"", None, None),
    ];
    for (raw, whole, float) in cases {
        let value = document(raw.as_bytes()).unwrap();
        assert_eq!(
            (as_u64(raw.as_bytes(), value), as_f64(raw.as_bytes(), value)),
            (*whole, *float),
            "{raw}"
        );
    }
}

#[test]
fn the_writer_sets_commas() {
    let mut out = Buf::new();
    let mut writer = Writer::new(&mut out);
    writer.begin_object().key("a").u64(1).key("b\"").begin_array();
    writer.string("x\ny").null().bool(true).f64(0.5).f64(f64::NAN).begin_object().end_object();
    writer.begin_array().end_array().end_array().key("c").raw(b"[1]");
    write_string(writer.key("d").value(), "e");
    writer.key("f").f64(1e21).key("g").f64(3.0).end_object();
    let text = std::str::from_utf8(out.as_slice()).unwrap();
    assert_eq!(
        text,
        r#"{"a":1,"b\"":["x\ny",null,true,0.5,null,{},[]],"c":[1],"d":"e","f":1e21,"g":3.0}"#
    );
    assert!(document(out.as_slice()).is_ok());
}

/// JSON texts with white space, escapes and odd numbers.
fn json_text() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "[a-z]{0,12}",
        any::<String>().prop_map(|text| {
            let quoted = serde_json::to_string(&text).unwrap();
            quoted[1..quoted.len() - 1].to_owned()
        }),
        Just(r"\u00e9\ud83d\ude42\/".to_owned()),
        "[ -~]{60,200}".prop_map(|text| text.replace(['"', '\\'], "x")),
    ];
    let space = prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\r\n\t ")];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,8})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
        string.clone().prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        let member = (string.clone(), space.clone(), inner.clone())
            .prop_map(|(key, space, value)| format!("\"{key}\"{space}:{space}{value}"));
        let join = |parts: Vec<String>, space: &str| parts.join(&format!("{space},{space}"));
        prop_oneof![
            (prop::collection::vec(inner, 0..6), space.clone())
                .prop_map(move |(parts, space)| format!("[{space}{}{space}]", join(parts, space))),
            (prop::collection::vec(member, 0..6), space.clone()).prop_map(
                move |(parts, space)| format!("{{{space}{}{space}}}", join(parts, space))
            ),
        ]
    })
}

/// Whether `bytes` holds a `\u` escape of a surrogate, on which the two differ.
fn may_have_lone_surrogate(bytes: &[u8]) -> bool {
    bytes
        .windows(4)
        .any(|w| w[0] == b'\\' && w[1] == b'u' && matches!(w[2], b'd' | b'D') && w[3] >= b'8')
}

fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    let ours = document(bytes);
    match serde_json::from_slice::<Json>(bytes) {
        Ok(expected) => {
            let value = ours.map_err(|f| TestCaseError::fail(format!("{f:?}")))?;
            prop_assert_eq!(tree(bytes, value), expected);
            let mut top = Top::new();
            prop_assert_eq!(document_with_top(bytes, &mut top), Ok(value));
            prop_assert_eq!(top.as_slice(), members(bytes, value).collect::<Vec<_>>());
        }
        // Theirs also refuses numbers out of range and lone surrogates, which the grammar allows.
        Err(error) => {
            let range = error.to_string().contains("out of range");
            prop_assert!(ours.is_err() || range || may_have_lone_surrogate(bytes), "{}", error);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_the_oracle(text in json_text()) {
        agrees(text.as_bytes())?;
        prop_assert!(document(text.as_bytes()).is_ok());
    }

    #[test]
    fn agrees_with_the_oracle_after_changes(
        text in json_text(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_u8..3, prop::sample::select(&b"{}[]\",:\\/0123.eE+-tfn \n\x00\xff\xc3u"[..])),
            1..4,
        ),
    ) {
        let mut bytes = text.into_bytes();
        for (place, form, byte) in changes {
            let at = place.index(bytes.len() + 1);
            match form {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        agrees(&bytes)?;
    }

    #[test]
    fn the_walkers_end_on_any_bytes(bytes in prop::collection::vec(
        prop::sample::select(&b"{}[]\",:\\ab01-. "[..]), 0..60,
    )) {
        for kind in [Kind::Object, Kind::Array, Kind::String, Kind::Number] {
            let value = Value { kind, span: Span::new(0, bytes.len()) };
            prop_assert!(members(&bytes, value).count() <= bytes.len());
            prop_assert!(items(&bytes, value).count() <= bytes.len());
            let _ = (text(&bytes, value), as_u64(&bytes, value), str_eq(&bytes, value, "a"));
        }
    }

    #[test]
    fn written_strings_are_read_back(text in any::<String>()) {
        let mut out = Buf::new();
        write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(out.as_slice()).unwrap(), text.clone());
        let value = document(out.as_slice()).unwrap();
        prop_assert_eq!(super::text(out.as_slice(), value).unwrap(), text.as_str());
        prop_assert!(str_eq(out.as_slice(), value, &text));
    }

    #[test]
    fn the_search_equals_the_naive_one(
        bytes in prop::collection::vec(prop_oneof![20 => 0x20_u8..=0xff, 1 => any::<u8>()], 0..300),
        start in 0_usize..40,
    ) {
        let naive = bytes.iter().enumerate().skip(start)
            .find(|(_, byte)| matches!(byte, b'"' | b'\\' | ..=0x1f))
            .map_or(bytes.len(), |(at, _)| at);
        prop_assert_eq!(find_special(&bytes, start), naive);
    }
}

#[test]
fn the_search_equals_the_naive_one_in_long_strings() {
    for len in [63, 64, 65, 72, 4095, 4160, 4161, 9000] {
        for special in *b"\"\\\x1f\x00" {
            let mut bytes = vec![b'x'; len];
            bytes.push(special);
            bytes.extend_from_slice(b"yyyy\"\x01");
            assert_eq!(find_special(&bytes, 0), len);
        }
        assert_eq!(find_special(&vec![0xe9; len], 0), len);
    }
}
