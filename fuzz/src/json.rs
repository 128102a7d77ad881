//! JSON: `serde_json` accepts the same documents and reads the same values from them.

use firstbyte::base::buf::Buf;
use firstbyte::wire::json::{self, Fault, Kind, Top, Value};
use serde_json::Value as Json;

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let ours = json::document(bytes);
    let mut top = Top::new();
    assert_eq!(json::document_with_top(bytes, &mut top), ours);
    match (serde_json::from_slice::<Json>(bytes), ours) {
        (Ok(expected), Ok(value)) => {
            assert_eq!(tree(bytes, value), expected);
            assert_eq!(top.as_slice(), json::members(bytes, value).collect::<Vec<_>>());
        }
        (Err(_), Err(_)) => {}
        // The two count depth alike only below theirs, which is 127.
        (Ok(_), Err(fault)) => panic!("only ours refuses: {fault:?}"),
        (Err(error), Ok(value)) => {
            let text = error.to_string();
            let range = text.contains("out of range") || text.contains("recursion limit");
            let surrogate = text.contains("surrogate") || text.contains("hex escape");
            assert!(range || surrogate, "only theirs refuses: {text}");
            // Ours must still be able to walk it.
            walk(bytes, value);
        }
    }
    if let Err(fault) = ours {
        assert!(fault.at <= bytes.len() && fault.what != Fault::TooLarge);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let mut out = Buf::new();
        json::write_string(&mut out, text);
        assert_eq!(serde_json::from_slice::<String>(out.as_slice()).unwrap(), text);
        let value = json::document(out.as_slice()).unwrap();
        assert!(json::str_eq(out.as_slice(), value, text));
    }
}

fn tree(bytes: &[u8], value: Value) -> Json {
    match value.kind {
        Kind::Null => Json::Null,
        Kind::True => Json::Bool(true),
        Kind::False => Json::Bool(false),
        Kind::Number => serde_json::from_slice(value.raw(bytes)).unwrap(),
        Kind::String => {
            let text = json::text(bytes, value).unwrap();
            assert!(json::str_eq(bytes, value, &text));
            Json::String(text.into_owned())
        }
        Kind::Array => json::items(bytes, value).map(|item| tree(bytes, item)).collect(),
        Kind::Object => {
            let members = json::members(bytes, value);
            Json::Object(
                members.map(|m| (m.name(bytes).into_owned(), tree(bytes, m.value))).collect(),
            )
        }
    }
}

/// Visits everything; the values inside add up to less than the whole.
fn walk(bytes: &[u8], value: Value) {
    let inside = json::items(bytes, value).chain(json::members(bytes, value).map(|m| m.value));
    let mut total = 0;
    for inner in inside {
        total += inner.span.len;
        walk(bytes, inner);
    }
    assert!(total < value.span.len);
    let _ = (json::text(bytes, value), json::as_u64(bytes, value), json::as_f64(bytes, value));
}
