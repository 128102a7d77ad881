//! What no client and no provider decides: where requests go, and for which model.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use firstbyte::llm::provider::MESSAGE_MAX;
use serde_json::{Value, json};

use crate::client::{ask, chat, post};
use crate::fallback::{event, expected, good, stream};
use crate::rig::{Gateway, Provider, on_both, providers};

/// What a provider got: head and body.
type Got = (String, Vec<u8>);

/// A provider that answers everything and tells what it got.
fn recorder() -> (Provider, Receiver<Got>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let provider = Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        let got = (call.request.clone(), call.body.clone());
        tell.lock().unwrap().send(got).unwrap();
        let body = "{\"id\":\"x\",\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
        call.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    });
    (provider, told)
}

/// A place where nothing must ever arrive.
fn decoy() -> Provider {
    Provider::start(|call| {
        call.as_mut().unwrap().say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    })
}

fn assert_untouched(decoy: &Provider, case: &str) {
    assert!(decoy.accepted.lock().unwrap().try_recv().is_err(), "the decoy was dialled: {case}");
}

/// Requests that name another host in every place that a client can write to.
fn requests(decoy: &str) -> Vec<String> {
    let good = "{\"model\":\"m\",\"messages\":[]}";
    let mut all = vec![
        format!(
            "POST http://{decoy}/v1/chat/completions HTTP/1.1\r\nhost: {decoy}\r\ncontent-length: {}\r\n\r\n{good}",
            good.len()
        ),
        format!(
            "POST //{decoy}/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{good}",
            good.len()
        ),
        post("/v1/chat/completions", "", good).replace("host: gateway", &format!("host: {decoy}")),
    ];
    for field in [
        "x-forwarded-host",
        "x-forwarded-server",
        "x-host",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
        "x-http-host-override",
        "x-firstbyte-provider",
        "x-base-url",
        "referer",
        "origin",
        "via",
        "helicone-target-url",
        "x-portkey-custom-host",
        "location",
    ] {
        all.push(post("/v1/chat/completions", &format!("{field}: http://{decoy}/v1\r\n"), good));
        all.push(post("/v1/chat/completions", &format!("{field}: {decoy}\r\n"), good));
    }
    all.push(post(
        "/v1/chat/completions",
        &format!("forwarded: host={decoy};proto=http\r\n"),
        good,
    ));
    for model in [
        format!("http://{decoy}/v1"),
        format!("{decoy}/up"),
        format!("//{decoy}/up"),
        format!("p0/http://{decoy}/v1"),
        format!("p0@{decoy}/up"),
        String::from("p0/../../up"),
        format!("p0/up?host={decoy}"),
        format!("p0/up#@{decoy}"),
        format!("p0:{decoy}/up"),
        decoy.to_owned(),
        format!("p0/\\\\\\\\{decoy}\\\\up"),
    ] {
        let body = json!({ "model": model, "messages": [] }).to_string();
        all.push(post("/v1/chat/completions", "", &body));
        all.push(post("/v1/embeddings", "", &json!({ "model": model, "input": "x" }).to_string()));
        all.push(post("/v1/rerank", "", &json!({ "model": model }).to_string()));
    }
    for provider in [
        json!({ "order": [format!("http://{decoy}/v1")] }),
        json!({ "only": [decoy] }),
        json!({ "base_url": format!("http://{decoy}/v1") }),
        json!({ "url": decoy }),
        json!({ "order": ["p0"], "p0": { "base_url": format!("http://{decoy}") } }),
    ] {
        let body = json!({ "model": "m", "messages": [], "provider": provider }).to_string();
        all.push(post("/v1/chat/completions", "", &body));
    }
    for name in ["base_url", "api_base", "endpoint", "url", "host", "extra_body", "upstream"] {
        let body = json!({ "model": "m", "messages": [], name: format!("http://{decoy}/v1") });
        all.push(post("/v1/chat/completions", "", &body.to_string()));
    }
    for path in [
        format!("/v1/http://{decoy}/x"),
        format!("/v1//{decoy}/x"),
        format!("/v1/@{decoy}/x"),
        format!("/v1/files?url=http://{decoy}/"),
        String::from("/v1/%2e%2e/x"),
        format!("/v1/..%2f..%2f{decoy}"),
        format!("/v1/\\\\{decoy}\\x"),
        format!("/v1/x:@{decoy}"),
    ] {
        all.push(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
    }
    all
}

#[test]
fn nothing_that_a_client_sends_chooses_the_host() {
    on_both(|driver| {
        let decoy = decoy();
        let (provider, got) = recorder();
        let config = providers("", &[provider.addr]) + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        let host = format!("host: {}\r\n", provider.addr);
        let (mut reached, mut refused) = (0, 0);
        for request in requests(&decoy.addr.to_string()) {
            let answer = ask(gateway.addr, &request);
            let case = format!("{driver:?}: {request:?}: {answer:?}");
            match got.try_recv() {
                Ok((head, _)) => {
                    reached += 1;
                    assert_eq!(head.matches("host: ").count(), 1, "{case}: {head}");
                    assert!(head.contains(&host), "{case}: {head}");
                    let target = head.split(' ').nth(1).unwrap();
                    assert!(target.starts_with("/v1/"), "{case}: {head}");
                    let path = target.split('?').next().unwrap();
                    assert!(!path.contains("//") && !path.contains(".."), "{case}: {head}");
                    assert!(!head.contains("forwarded") && !head.contains("x-"), "{case}: {head}");
                }
                Err(_) => {
                    refused += 1;
                    assert!((400..500).contains(&answer.status), "{case}");
                }
            }
            assert_untouched(&decoy, &case);
        }
        assert!(reached > 30 && refused > 20, "{driver:?}: {reached} reached, {refused} refused");
    });
}

#[test]
fn redirects_are_not_followed() {
    on_both(|driver| {
        for status in [300, 301, 302, 303, 305, 307, 308] {
            let decoy = decoy();
            let moved = format!(
                "HTTP/1.1 {status} X\r\nlocation: http://{}/v1/chat/completions\r\nrefresh: 0;url=http://{}/\r\ncontent-length: 0\r\n\r\n",
                decoy.addr, decoy.addr
            );
            let first = Provider::saying(&moved);
            let second = Provider::saying(good("p1"));
            let gateway = Gateway::start(driver, &providers("", &[first.addr, second.addr]));
            let answer = ask(gateway.addr, &chat(true, ""));
            assert_eq!(answer.text(), expected("p1"), "{driver:?} {status}");
            let gateway = Gateway::start(driver, &providers("", &[Provider::saying(&moved).addr]));
            let answer = ask(gateway.addr, &chat(true, ""));
            assert_eq!(answer.status, 502, "{driver:?} {status}: {answer:?}");
            assert!(answer.field("location").is_none(), "{answer:?}");
            assert_untouched(&decoy, &format!("{driver:?} {status}"));
        }
    });
}

#[test]
fn names_that_lead_to_metadata_are_not_followed() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let config = |host: &str| {
            format!(
                "[providers.p0]\nkind = \"openai\"\nbase_url = \"http://{host}:{}/v1\"\n[models.m]\ntargets = [\"p0/up\"]\n",
                provider.addr.port()
            )
        };
        let gateway = Gateway::start(driver, &config("metadata.test"));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.status, 502, "{driver:?}: {answer:?}");
        let attempts = answer.field("x-firstbyte-attempts").unwrap();
        assert!(attempts.starts_with("p0/up;address;"), "{driver:?}: {attempts}");
        // What else the name leads to is tried.
        let gateway = Gateway::start(driver, &config("mixed.test"));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.text(), expected("p0"), "{driver:?}");
    });
}

/// Bodies in which two readers may find two models, and whether they can be served.
fn tricks() -> Vec<(String, bool)> {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut all: Vec<(String, bool)> = [
        (r#"{"model":"m","messages":[]}"#, true),
        (r#"{"mod\u0065l":"m","messages":[]}"#, true),
        (r#"{"model":"\u006d","messages":[]}"#, true),
        (r#"{"model":"m","messages":[],"metadata":{"model":"n","Model":"n"}}"#, true),
        (r#"{"model":"m","messages":[{"role":"user","content":"\",\"model\":\"n"}]}"#, true),
        (r#"{"model":"m","messages":[{"role":"user","content":"\ud800"}]}"#, true),
        (r#"{"model":"m","messages":[],"x\u0000":"model"}"#, true),
        (r#"{"model":"m","model":"n","messages":[]}"#, false),
        (r#"{"model":"n","model":"m","messages":[]}"#, false),
        (r#"{"model":"m","mod\u0065l":"n","messages":[]}"#, false),
        (r#"{"\u006d\u006f\u0064\u0065\u006c":"n","model":"m","messages":[]}"#, false),
        (r#"{"model":"m","Model":"n","messages":[]}"#, false),
        (r#"{"MODEL":"n","model":"m","messages":[]}"#, false),
        (r#"{"model":"m","\u004dodel":"n","messages":[]}"#, false),
        (r#"{"model":"m","model\u0000":"n","messages":[]}"#, false),
        (r#"{"model":"m","model\u0000x":"n","messages":[]}"#, false),
        (r#"{"model":"m\u0000","messages":[]}"#, false),
        (r#"{"model":"m\ud800","messages":[]}"#, false),
        (r#"{"model":"m\udc00\ud800","messages":[]}"#, false),
        (r#"{"model":["m"],"messages":[]}"#, false),
        (r#"{"model":null,"messages":[]}"#, false),
        (r#"{"model":"m","messages":[]}{"model":"n"}"#, false),
        (r#"{"model":"m","messages":[],}"#, false),
        (r#"{"model":"m",/*"*/"messages":[]/*"*/}"#, false),
        (r#"{'model':'m','messages':[]}"#, false),
        (r#"[{"model":"m","messages":[]}]"#, false),
        (r#"{"messages":[],"models":["m"],"models":["n"]}"#, false),
        (r#"{"model":"m","provider":{"only":["p0"]},"provider":{},"messages":[]}"#, false),
        (r#"{"model":"m","messages":[],"messages":[{"role":"user","content":"other"}]}"#, false),
        (r#"{"model":"m","stream":false,"stream":true,"messages":[]}"#, false),
    ]
    .into_iter()
    .map(|(body, good)| (body.to_owned(), good))
    .collect();
    all.push((format!("{{\"model\":\"m\",\"messages\":{}}}", deep(60)), true));
    all.push((format!("{{\"model\":\"m\",\"messages\":{}}}", deep(200)), false));
    all.push((format!("{{\"model\":\"m\",\"messages\":{}}}", deep(200_000)), false));
    all.push((String::from("\u{feff}{\"model\":\"m\",\"messages\":[]}"), false));
    all.push((format!("{{\"model\":\"{}\",\"messages\":[]}}", "m".repeat(4096)), false));
    all
}

/// What readers of several kinds take for the model: the last one of a name, the first one, and either
/// without a care for the case of letters or for what follows a NUL.
fn readings(body: &[u8]) -> Vec<String> {
    struct Names(Vec<(String, Value)>);
    impl<'de> serde::Deserialize<'de> for Names {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Names, D::Error> {
            struct Reader;
            impl<'de> serde::de::Visitor<'de> for Reader {
                type Value = Names;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Names, A::Error> {
                    let mut names = Vec::new();
                    while let Some(name) = map.next_key::<String>()? {
                        names.push((name, map.next_value::<Value>()?));
                    }
                    Ok(Names(names))
                }
            }
            from.deserialize_map(Reader)
        }
    }
    // Half a surrogate is nothing to this reader, and no part of a name here.
    let body = String::from_utf8(body.to_vec()).unwrap().replace("\\ud800", "x");
    let Names(names) = serde_json::from_str(&body).unwrap();
    let is_model = |name: &str| name.split('\0').next().unwrap().eq_ignore_ascii_case("model");
    let models = names.into_iter().filter(|(name, _)| is_model(name));
    models.map(|(_, value)| value.as_str().unwrap_or("not a string").to_owned()).collect()
}

#[test]
fn the_routed_model_is_the_forwarded_model() {
    on_both(|driver| {
        let (provider, got) = recorder();
        let config = providers("", &[provider.addr])
            + "[models.n]\ntargets = [\"p0/secret-model\"]\n[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        for (body, good) in tricks() {
            let shown: String = body.chars().take(200).collect();
            let answer = ask(gateway.addr, &post("/v1/chat/completions", "", &body));
            let forwarded = got.try_recv();
            assert_eq!(answer.status == 200, good, "{driver:?}: {shown}: {answer:?}");
            assert_eq!(forwarded.is_ok(), good, "{driver:?}: {shown}");
            if let Ok((_, bytes)) = forwarded {
                assert_eq!(readings(&bytes), ["up"], "{driver:?}: {shown}");
                assert_eq!(answer.json()["model"], "m", "{driver:?}: {shown}");
            } else {
                assert!((400..405).contains(&answer.status), "{driver:?}: {shown}: {answer:?}");
            }
        }
        // The same on a path that is passed through.
        for body in
            [r#"{"model":"m","Model":"n"}"#, r#"{"model":"m","model":"n"}"#, r#"{"Model":"n"}"#]
        {
            let answer = ask(gateway.addr, &post("/v1/rerank", "", body));
            assert_eq!(answer.status, 400, "{driver:?}: {body}");
            assert!(got.try_recv().is_err(), "{driver:?}: {body}");
        }
    });
}

#[test]
fn a_credential_that_is_cut_with_its_message_is_not_told() {
    // What the rig resolves every key to; a provider of bad manners quotes it where its message is cut.
    const CANARY: &str = "secret-key";
    on_both(|driver| {
        for at in 4..=CANARY.len() {
            let message = format!("{} {CANARY} is refused", "x".repeat(MESSAGE_MAX - 1 - at));
            let error = json!({ "error": { "message": message } }).to_string();
            let refusal = |body: &str| {
                format!("HTTP/1.1 400 X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            };
            let cut = [event("{\"content\":\"hello\"}"), format!("data: {error}\n\n")];
            for (how, bytes) in [
                ("as JSON", refusal(&error)),
                ("as a text", refusal(&message)),
                ("in a stream", stream(&cut)),
            ] {
                let provider = Provider::saying(bytes);
                let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
                let answer = ask(gateway.addr, &chat(true, ""));
                let (text, head) = (answer.text(), &answer.head);
                assert!(text.contains("xxx"), "{driver:?} {how} {at}: the message is told: {text}");
                assert!(!text.contains(&CANARY[..4]), "{driver:?} {how} {at}: {text}");
                let ledger = format!("{head} {:?}", gateway.ledgers(1));
                assert!(!ledger.contains(&CANARY[..4]), "{driver:?} {how} {at}: {ledger}");
            }
        }
    });
}
