//! Requests of every dialect, written for every kind of provider: what goes upstream is one request and
//! nothing behind it, to the host that the config names, for the model that was routed.
//!
//! ```text
//!   surface and flags | a vendor's number | the model upstream, to a line end | the client's body
//! ```

use firstbyte::base::buf::Buf;
use firstbyte::base::secret::{AwsKeys, Secret};
use firstbyte::base::tick::UnixMs;
use firstbyte::llm::provider::Site;
use firstbyte::llm::providers::{Kind, Stream};
use firstbyte::llm::request::{Ask, Envelope, Surface};
use firstbyte::wire::http1::head::{self, Framing};
use firstbyte::wire::json;
use serde_json::Value;

const AUTHORITY: &str = "upstream.test:8443";
const KEY: &str = "sk-of-the-gateway";
/// Fields that an adapter may write.
const FIELDS: &[&str] = &[
    "host",
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "accept",
    "accept-encoding",
    "user-agent",
    "content-type",
    "content-length",
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "traceparent",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// Checks one input.
pub fn check(data: &[u8]) {
    let [flags, vendor, rest @ ..] = data else { return };
    let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (model, body) = rest.split_at(line);
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let Ok(model) = std::str::from_utf8(model) else { return };
    if model.chars().any(char::is_control) {
        // No config and no request can name it.
        return;
    }
    let model = if model.is_empty() { "claude-x" } else { model };
    const SURFACES: [Surface; 6] = [
        Surface::Chat,
        Surface::Messages,
        Surface::Responses,
        Surface::Completions,
        Surface::Embeddings,
        Surface::Other,
    ];
    let surface = SURFACES[usize::from(flags % 6)];
    let Ok(mut ask) = Ask::read(surface, body) else { return };
    for edit in &ask.edits {
        assert!(edit.range().end <= body.len() && edit.range().start <= edit.range().end);
    }
    routed_is_forwarded(&ask, body);
    let mut fields = smallvec::SmallVec::new();
    if flags & 128 != 0 {
        fields.push(("traceparent", b"00-ab\r\nx: y".to_vec()));
    }
    ask.envelope = Envelope {
        method: "POST",
        path: if surface == Surface::Other { "/rerank".into() } else { "/chat/completions".into() },
        fields,
        anthropic: smallvec::smallvec![("anthropic-beta", b"a,b".to_vec())],
    };
    let key = Secret::new(KEY);
    let aws = AwsKeys {
        access_key: Secret::new("AKIDEXAMPLE"),
        secret_key: Secret::new("secret-of-aws"),
        session_token: None,
        region: "us-east-1".into(),
    };
    let own = Kind::NAMES.iter().filter(|(_, kind)| !matches!(kind, Kind::Like(_))).count();
    let vendors = &Kind::NAMES[own..];
    let picked = vendors[usize::from(*vendor) % vendors.len()];
    for (name, kind) in Kind::NAMES[..own].iter().chain([&picked]) {
        let site = Site {
            authority: AUTHORITY,
            path: "/base",
            key: (!kind.signs()).then_some(&key),
            aws: kind.signs().then_some(&aws),
            model,
            ..Site::default()
        };
        let mut out = Buf::new();
        match Stream::new(*kind).send(&ask, body, &site, UnixMs(1_700_000_000_000), &mut out) {
            Ok(()) if kind.sends() => written(name, &ask, model, out.as_slice()),
            Ok(()) => {}
            Err(_) => assert!(out.is_empty(), "{name}: refused, and half written"),
        }
    }
}

/// One whole request of the kind that only we would write.
fn written(kind: &str, ask: &Ask, model: &str, bytes: &[u8]) {
    let shown = || format!("{kind}: {}", String::from_utf8_lossy(bytes));
    let head = head::parse_request(bytes, 1 << 20).unwrap_or_else(|e| panic!("{e:?} {}", shown()));
    let head = head.unwrap_or_else(|| panic!("half a head: {}", shown()));
    let body = &bytes[head.len..];
    assert_eq!(head.framing, Framing::Length(body.len() as u64), "{}", shown());
    assert!(head.target.of(bytes).starts_with(b"/"), "{}", shown());
    let path = head.path(bytes);
    for part in path[1..].split(|byte| *byte == b'/') {
        assert!(!matches!(part, b"" | b"." | b".."), "{}", shown());
    }
    let mut keys = 0;
    for field in head.fields.iter() {
        let name = std::str::from_utf8(field.name.of(bytes)).unwrap();
        assert!(FIELDS.contains(&name), "{name}: {}", shown());
        let value = field.value.of(bytes);
        if name == "host" {
            assert_eq!(value, AUTHORITY.as_bytes(), "{}", shown());
        }
        keys += usize::from(value.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    }
    assert!(keys <= 1, "{}", shown());
    assert!(!body.windows(KEY.len()).any(|window| window == KEY.as_bytes()), "{}", shown());
    let value = json::document(body).unwrap_or_else(|fault| panic!("{fault:?} {}", shown()));
    assert_eq!(value.kind, json::Kind::Object);
    // Where the model stands in the body, it is the one that was routed, to any reader.
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && let Some(named) = value.get("model")
        && !(ask.surface == Surface::Other && ask.model.is_empty())
    {
        assert_eq!(named.as_str(), Some(model), "{}", shown());
    }
    for member in json::members(body, value) {
        let name = member.name(body);
        let routing = matches!(&*name, "models" | "provider");
        assert!(!routing || ask.surface == Surface::Other, "{name} goes upstream: {}", shown());
    }
}

/// A body that was accepted names its model once, to readers that care for the case of letters and to
/// those that do not.
fn routed_is_forwarded(ask: &Ask, body: &[u8]) {
    let value = json::document(body).unwrap();
    let names = json::members(body, value).map(|member| member.name(body).into_owned());
    let named = names.filter(|name| {
        let name = name.split('\0').next().unwrap_or_default();
        name.eq_ignore_ascii_case("model")
    });
    assert_eq!(named.count(), usize::from(!ask.model.is_empty()), "the model is named again");
}
