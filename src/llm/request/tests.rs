//! What is refused because routing and a provider could read it differently.

use super::*;

fn code(surface: Surface, body: &str) -> Option<&'static str> {
    Ask::read(surface, body.as_bytes()).err().map(|fault| fault.code)
}

#[test]
fn the_model_is_named_once_in_any_spelling() {
    let twice = Some("duplicate_parameter");
    let other = Some("unsupported_parameter");
    for (members, expected) in [
        (r#""model":"m""#, None),
        (r#""mod\u0065l":"m""#, None),
        (r#""model":"m","metadata":{"Model":"n"}"#, None),
        (r#""model":"m","modeled":1"#, None),
        (r#""model":"m","model":"n""#, twice),
        (r#""model":"m","mod\u0065l":"n""#, twice),
        (r#""\u006dodel":"m","model":"m""#, twice),
        (r#""model":"m","Model":"n""#, other),
        (r#""MODEL":"n","model":"m""#, other),
        (r#""model":"m","\u004dodel":"n""#, other),
        (r#""model":"m","model\u0000":"n""#, other),
        (r#""model":"m","mODEL\u0000x":"n""#, other),
        (r#""Model":"n""#, other),
    ] {
        let chat = format!("{{{members},\"messages\":[]}}");
        assert_eq!(code(Surface::Chat, &chat), expected, "{chat}");
        assert_eq!(code(Surface::Other, &format!("{{{members}}}")), expected, "{members}");
    }
}

#[test]
fn names_have_a_length() {
    let named = |len: usize| format!("{{\"model\":\"{}\",\"messages\":[]}}", "m".repeat(len));
    assert_eq!(code(Surface::Chat, &named(limits::REQUEST_NAME_BYTES_MAX)), None);
    let long = named(limits::REQUEST_NAME_BYTES_MAX + 1);
    assert_eq!(code(Surface::Chat, &long), Some("invalid_value"));
    let only = long
        .replace("\"model\":", "\"model\":\"m\",\"provider\":{\"only\":[")
        .replace(",\"mess", "]},\"mess");
    assert_eq!(code(Surface::Chat, &only), Some("invalid_value"), "{only}");
}
