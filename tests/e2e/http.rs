//! The client's side of HTTP/1.1, the surfaces, and bad input: a clear error, no upstream touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::client::{Client, Response, ask, chat, post};
use crate::fallback::{expected, good};
use crate::rig::{Driver, Gateway, PATIENCE, Provider, on_both, providers, wait_for};

/// A chat that is not streamed.
const CHAT: &str = "{\"model\":\"m\",\"messages\":[]}";
const WHOLE: &str = "{\"id\":\"x\",\"object\":\"chat.completion\",\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"odd\":{\"kept\":[1,2]}}";

fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A provider that answers by what is asked, and says which request it got.
fn polite() -> Provider {
    Provider::start(|call| {
        let call = call.as_mut().unwrap();
        let body = String::from_utf8_lossy(&call.body).into_owned();
        if body.contains("\"stream\":true") {
            return call.say(good("p0"));
        }
        let path = call.request.split(' ').nth(1).unwrap().to_owned();
        match path.as_str() {
            "/v1/chat/completions" => call.say(json(WHOLE)),
            _ => {
                let head = call.request.replace("secret-key", "KEY");
                let echo =
                    serde_json::json!({ "path": path, "head": head, "body": body, "model": "up" });
                call.say(json(&echo.to_string()))
            }
        }
    })
}

fn error_of(answer: &Response) -> (u16, String, String) {
    let json = answer.json();
    let error = &json["error"];
    for field in ["message", "type", "param", "code"] {
        assert!(error.get(field).is_some(), "{field} is missing: {answer:?}");
    }
    let text = |name: &str| error[name].as_str().unwrap_or("null").to_owned();
    (answer.status, text("code"), text("message"))
}

#[test]
fn bad_input_is_answered_and_touches_no_upstream() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    let body = |body: &str| post("/v1/chat/completions", "", body);
    let cases: Vec<(String, u16, &str)> = vec![
        (body("{nope"), 400, "invalid_json"),
        (body(""), 400, "invalid_json"),
        (body("[]"), 400, "invalid_json"),
        (body("{\"messages\":[]}"), 400, "missing_required_parameter"),
        (body("{\"model\":\"m\"}"), 400, "missing_required_parameter"),
        (body("{\"model\":7,\"messages\":[]}"), 400, "invalid_type"),
        (body("{\"model\":\"\",\"messages\":[]}"), 400, "invalid_type"),
        (body("{\"model\":\"m\",\"messages\":\"hi\"}"), 400, "invalid_type"),
        (body("{\"model\":\"m\",\"messages\":[],\"stream\":\"yes\"}"), 400, "invalid_type"),
        (body("{\"model\":\"m\",\"messages\":[],\"temperature\":\"hot\"}"), 400, "invalid_type"),
        (body("{\"model\":\"m\",\"messages\":[],\"tools\":{}}"), 400, "invalid_type"),
        (body("{\"model\":\"m\",\"model\":\"n\",\"messages\":[]}"), 400, "duplicate_parameter"),
        (
            body("{\"model\":\"m\",\"m\\u006fdel\":\"n\",\"messages\":[]}"),
            400,
            "duplicate_parameter",
        ),
        (
            body("{\"model\":\"m\",\"messages\":[],\"provider\":{\"zdr\":true}}"),
            400,
            "unsupported_parameter",
        ),
        (
            body("{\"model\":\"m\",\"messages\":[],\"provider\":{\"sort\":\"beauty\"}}"),
            400,
            "invalid_type",
        ),
        (
            body(
                "{\"model\":\"m\",\"messages\":[],\"n\":2,\"provider\":{\"require_parameters\":true}}",
            ),
            400,
            "no_compatible_target",
        ),
        (
            body(
                "{\"model\":\"m\",\"messages\":[],\"provider\":{\"max_price\":{\"prompt\":\"1\"}}}",
            ),
            404,
            "no_provider_left",
        ),
        // A dry run is answered as dispatch would answer it.
        (
            post(
                "/v1/chat/completions",
                "x-firstbyte-dry-run: 1\r\n",
                "{\"model\":\"who\",\"messages\":[]}",
            ),
            404,
            "model_not_found",
        ),
        (
            post("/v1/route/explain", "", "{\"model\":\"who\",\"messages\":[]}"),
            404,
            "model_not_found",
        ),
        (body("{\"model\":\"who\",\"messages\":[]}"), 404, "model_not_found"),
        (
            body("{\"model\":\"m\",\"messages\":[],\"provider\":{\"only\":[\"p9\"]}}"),
            404,
            "no_provider_left",
        ),
        (get("/v1/chat/completions"), 405, "method_not_allowed"),
        (get("/"), 404, "not_found"),
        (get("/metrics"), 404, "not_found"),
        (get("/v1/files/../../etc/passwd"), 404, "not_found"),
        (get("/v1/models/who"), 404, "model_not_found"),
        (get("/v1/files"), 404, "not_found"),
        (chat(true, "x-firstbyte-commit: whenever\r\n"), 400, "invalid_value"),
        (chat(true, "x-firstbyte-deadline-ms: soon\r\n"), 400, "invalid_value"),
        (post("/v1/embeddings", "", "{\"model\":\"m\"}"), 400, "missing_required_parameter"),
    ];
    on_both(|driver| {
        let touched = Arc::new(AtomicUsize::new(0));
        let count = touched.clone();
        let provider = Provider::start(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            false
        });
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let mut kept = Client::connect(gateway.addr);
        for (request, status, code) in &cases {
            // On a connection of its own, and on one that is kept.
            let alone = ask(gateway.addr, request);
            let (got, said, message) = error_of(&alone);
            let case = format!("{driver:?} {request:?}: {alone:?}");
            assert_eq!((got, said.as_str()), (*status, *code), "{case}");
            assert!(message.len() > 10, "{case}");
            assert!(alone.field("x-request-id").is_some(), "{case}");
            if request.starts_with("POST") && alone.field("connection").is_none() {
                kept.send(request);
                assert_eq!(error_of(&kept.receive()).1, *code, "{case}");
            }
        }
        assert_eq!(touched.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn keys_are_asked_for_and_compared() {
    use sha2::Digest as _;
    let hash: String =
        sha2::Sha256::digest(b"app-key").iter().map(|byte| format!("{byte:02x}")).collect();
    on_both(|driver| {
        let provider = polite();
        let auth = format!(
            "[auth]\nkeys = [{{ name = \"app\", sha256 = \"{hash}\" }}, {{ name = \"dev\", key = \"env:K\" }}]\n"
        );
        let config = auth + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        for (field, status) in [
            ("", 401),
            ("authorization: Bearer wrong\r\n", 401),
            ("authorization: Basic app-key\r\n", 401),
            ("authorization: Bearer app-key\r\n", 200),
            ("Authorization: bearer secret-key\r\n", 200),
            ("x-api-key: app-key\r\n", 200),
        ] {
            let answer = ask(gateway.addr, &chat(false, field));
            assert_eq!(answer.status, status, "{driver:?} {field}: {answer:?}");
            if status == 401 {
                assert_eq!(error_of(&answer).1, "invalid_api_key");
            }
        }
        let models = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(ask(gateway.addr, models).status, 401);
        // The provider got its own key, never the client's.
        let echo = post(
            "/v1/embeddings",
            "authorization: Bearer app-key\r\n",
            "{\"model\":\"m\",\"input\":\"x\"}",
        );
        let head = ask(gateway.addr, &echo).json()["head"].to_string();
        assert!(head.contains("authorization: Bearer KEY"), "{head}");
        assert!(!head.contains("app-key"), "{head}");
    });
}

#[test]
fn a_passed_answer_keeps_unknown_fields() {
    on_both(|driver| {
        let provider = polite();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let answer = ask(gateway.addr, &chat(false, "x-request-id: mine-1\r\n"));
        assert_eq!(answer.text(), WHOLE.replace("\"up\"", "\"m\""), "{driver:?}");
        assert_eq!(answer.field("x-request-id"), Some("mine-1"));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        let sent = "{ \"input\" : \"x\" , \"models\":[\"m\"], \"model\" :\"m\",\"odd\":{\"a\":1e3},\"provider\":{\"order\":[\"p0\"]}}";
        let echo =
            ask(gateway.addr, &post("/v1/embeddings", "x-stainless-os: Linux\r\n", sent)).json();
        assert_eq!(echo["body"], "{ \"input\" : \"x\" , \"model\" :\"up\",\"odd\":{\"a\":1e3}}");
        assert_eq!(echo["path"], "/v1/embeddings");
        assert!(!echo["head"].to_string().contains("stainless"), "{echo}");
        assert_eq!(echo["model"], "m");
    });
}

#[test]
fn other_paths_pass_through() {
    on_both(|driver| {
        let provider = polite();
        let config = providers("", &[provider.addr]) + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        let get = "GET /v1/files?limit=2 HTTP/1.1\r\nhost: x\r\naccept: application/json\r\n\r\n";
        let echo = ask(gateway.addr, get).json();
        assert_eq!(
            (echo["path"].as_str(), echo["body"].as_str()),
            (Some("/v1/files?limit=2"), Some(""))
        );
        let named = ask(
            gateway.addr,
            &post("/v1/images/generations", "", "{\"model\":\"m\",\"prompt\":\"x\"}"),
        )
        .json();
        assert_eq!(named["body"], "{\"model\":\"up\",\"prompt\":\"x\"}");
        let form = "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 5\r\n\r\n--b--";
        let echo = ask(gateway.addr, form).json();
        assert!(echo["head"].to_string().contains("multipart/form-data; boundary=b"), "{echo}");
        assert_eq!(echo["body"], "--b--");
        // Answers that are not understood are the provider's own, model name and all.
        assert_eq!(echo["model"], "up");
    });
}

#[test]
fn an_answer_without_content_has_no_length() {
    on_both(|driver| {
        let provider = Provider::saying("HTTP/1.1 204 No Content\r\n\r\n");
        let config = providers("", &[provider.addr]) + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        // The second request shows that the first answer's end was where it had to be.
        let delete = "DELETE /v1/files/f HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut client = Client::connect(gateway.addr);
        for _ in 0..2 {
            client.send(delete);
            let answer = client.receive();
            assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{driver:?}");
            for field in ["content-length", "transfer-encoding", "content-type"] {
                assert_eq!(answer.field(field), None, "{driver:?} {field}");
            }
        }
    });
}

#[test]
fn models_and_explanations_come_from_the_gateway() {
    on_both(|driver| {
        let provider = polite();
        let gateway =
            Gateway::start(driver, &providers("", &[provider.addr, Provider::refusing()]));
        let list = ask(gateway.addr, "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").json();
        assert_eq!(
            (list["object"].as_str(), list["data"][0]["id"].as_str()),
            (Some("list"), Some("m"))
        );
        let one = ask(gateway.addr, "GET /v1/models/m HTTP/1.1\r\nhost: x\r\n\r\n").json();
        assert_eq!(one["object"], "model");
        let body = "{\"model\":\"m\",\"messages\":[]}";
        let explained = ask(gateway.addr, &post("/v1/route/explain", "", body));
        assert_eq!(explained.status, 200, "{explained:?}");
        let dry = ask(gateway.addr, &chat(true, "x-firstbyte-dry-run: 1\r\n"));
        for answer in [explained, dry] {
            let text = answer.json().to_string();
            assert!(text.contains("p0/up") && text.contains("p1/up"), "{driver:?}: {text}");
        }
        assert_eq!(gateway.notes.fresh.load(Ordering::SeqCst), 0, "nothing was dialled");
    });
}

#[test]
fn keep_alive_pipelining_and_framings() {
    on_both(|driver| {
        let provider = polite();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let mut client = Client::connect(gateway.addr);
        // Three at once, in order.
        client.send([chat(true, ""), chat(false, ""), chat(true, "")].concat());
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        assert_eq!(client.receive().text(), WHOLE.replace("\"up\"", "\"m\""), "{driver:?}");
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        // A chunked body, a byte at a time.
        let chunked = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{\"model\":\"m\",\"me\r\n16;x=y\r\nssages\":[],\"stream\":tr\r\n3\r\nue}\r\n0\r\n\r\n";
        for byte in chunked.as_bytes() {
            client.send([*byte]);
        }
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        // Expect: 100-continue.
        let (head, body) = {
            let whole = chat(true, "expect: 100-continue\r\n");
            let at = whole.find("\r\n\r\n").unwrap() + 4;
            (whole[..at].to_owned(), whole[at..].to_owned())
        };
        client.send(head);
        assert_eq!(client.receive().status, 100, "{driver:?}");
        client.send(body);
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        // HTTP/1.0 and Connection: close end the connection.
        let old = chat(true, "").replace("HTTP/1.1", "HTTP/1.0");
        let answer = ask(gateway.addr, &old);
        assert_eq!(answer.text(), expected("p0"), "{driver:?}");
        assert_eq!(answer.field("transfer-encoding"), None);
        client.send(chat(true, "connection: close\r\n"));
        assert_eq!(client.receive().field("connection"), Some("close"));
        assert!(client.is_closed(), "{driver:?}");
    });
}

#[test]
fn limits_are_told() {
    on_both(|driver| {
        let provider = polite();
        let config = "head_max = \"2KiB\"\nbody_max = \"4KiB\"\nhead_timeout = \"200ms\"\nbody_timeout = \"200ms\"\nkeep_alive = \"200ms\"\n"
            .to_owned() + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let long = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(4096));
        let answer = ask(gateway.addr, &long);
        assert_eq!(error_of(&answer).0, 431, "{driver:?}");
        let big = format!("{{\"model\":\"m\",\"messages\":[\"{}\"]}}", "y".repeat(8192));
        let mut client = Client::connect(gateway.addr);
        client.send_as_far_as_it_goes(post("/v1/chat/completions", "", &big));
        assert_eq!(error_of(&client.receive()).0, 413, "{driver:?}");
        let mut client = Client::connect(gateway.addr);
        client.send_as_far_as_it_goes(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2000\r\n{}",
            "y".repeat(8192)
        ));
        assert_eq!(error_of(&client.receive()).0, 413, "{driver:?}");
        // Slow heads and bodies.
        for part in [
            "GET /v1/models HT",
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
        ] {
            let mut client = Client::connect(gateway.addr);
            client.send(part);
            let answer = client.receive();
            assert_eq!(error_of(&answer).0, 408, "{driver:?}");
            assert!(client.is_closed());
        }
        // An idle connection is closed in silence.
        assert!(Client::connect(gateway.addr).is_closed(), "{driver:?}");
        // Ambiguous framing is refused and the connection closed.
        let mut client = Client::connect(gateway.addr);
        client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
        let answer = client.receive();
        assert_eq!((error_of(&answer).0, answer.field("connection")), (400, Some("close")));
        assert!(client.is_closed());
    });
}

#[test]
fn the_plan_obeys_the_request() {
    on_both(|driver| {
        let first = Provider::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
        let second = polite();
        let gateway =
            Gateway::start(driver, &providers("breaker = \"off\"\n", &[first.addr, second.addr]));
        let with = |provider: &str| {
            let body = format!(
                "{{\"model\":\"m\",\"messages\":[],\"stream\":true,\"provider\":{provider}}}"
            );
            ask(gateway.addr, &post("/v1/chat/completions", "", &body))
        };
        for (provider, status, attempts) in [
            ("null", 200, "p0/up;503 p1/up;ok"),
            ("{\"order\":[\"p1\"]}", 200, "p1/up;ok"),
            ("{\"only\":[\"p0\"]}", 502, "p0/up;503"),
            ("{\"ignore\":[\"p0\"]}", 200, "p1/up;ok"),
            ("{\"allow_fallbacks\":false}", 502, "p0/up;503"),
        ] {
            let answer = with(provider);
            let listed = answer.field("x-firstbyte-attempts").unwrap();
            let listed: Vec<_> =
                listed.split(", ").map(|a| a.rsplit_once(';').unwrap().0).collect();
            assert_eq!(
                (answer.status, listed.join(" ").as_str()),
                (status, attempts),
                "{driver:?} {provider}"
            );
        }
    });
}

#[test]
fn one_connection_serves_many_requests_upstream() {
    on_both(|driver: Driver| {
        let provider = polite();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let mut client = Client::connect(gateway.addr);
        for _ in 0..50 {
            client.send(chat(true, ""));
            assert_eq!(client.receive().text(), expected("p0"));
        }
        let fresh = gateway.notes.fresh.load(Ordering::SeqCst);
        let pooled = gateway.notes.pooled.load(Ordering::SeqCst);
        assert_eq!((fresh, pooled), (1, 49), "{driver:?}");
    });
}

/// A refusal that is whole ends its request, not its connection; one that is not whole ends both.
#[test]
fn a_provider_that_refuses_keeps_its_connection() {
    let whole = "HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\n{}";
    let cases = [
        (whole, 1),
        ("HTTP/1.1 429 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 1),
        ("HTTP/1.1 503 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", 5),
        ("HTTP/1.0 503 X\r\ncontent-length: 2\r\n\r\n{}", 5),
        ("HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n", 5),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n", 5),
    ];
    on_both(|driver| {
        for (said, connections) in cases {
            let failing = Provider::start(move |call| call.as_mut().unwrap().say(said));
            let backup = Provider::start(|call| call.as_mut().unwrap().say(good("p1")));
            let config = providers("breaker = \"off\"\n", &[failing.addr, backup.addr]);
            let gateway = Gateway::start(driver, &config);
            let mut client = Client::connect(gateway.addr);
            for _ in 0..5 {
                client.send(chat(true, ""));
                assert_eq!(client.receive().text(), expected("p1"), "{driver:?}: {said}");
            }
            let accepted = failing.accepted.lock().unwrap().try_iter().count();
            assert_eq!(accepted, connections, "{driver:?}: {said}");
        }
    });
}

#[test]
fn a_provider_that_closes_idle_connections_is_never_noticed() {
    on_both(|driver| {
        // Says that it keeps the connection, and closes it all the same: at once, or later.
        let provider = Provider::start(|call| {
            call.as_mut().unwrap().say(good("p0"));
            false
        });
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let mut client = Client::connect(gateway.addr);
        for _ in 0..200 {
            client.send(chat(true, ""));
            assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        }
        let ledgers = wait_for("ledgers", || {
            let ledgers = gateway.ledgers(200);
            (ledgers.len() == 200).then_some(ledgers)
        });
        assert!(ledgers.iter().all(|ledger| ledger.attempts.len() == 1), "{driver:?}");
    });
}

#[test]
fn octets_that_nobody_asked_for_are_never_an_answer() {
    const STRAY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    on_both(|driver| {
        // Behind an answer, in the same write.
        let provider = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            call.say(json(WHOLE) + STRAY)
        });
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        for round in 1..4 {
            let answer = ask(gateway.addr, &chat(false, ""));
            assert_eq!(answer.text(), WHOLE.replace("\"up\"", "\"m\""), "{driver:?}");
            assert_eq!(gateway.notes.fresh.load(Ordering::SeqCst), round, "{driver:?}");
        }
        // On a connection that waits in the pool: it is closed, which the provider sees.
        let (closed_tx, closed) = std::sync::mpsc::channel();
        let closed_tx = std::sync::Mutex::new(closed_tx);
        let (go_tx, go) = std::sync::mpsc::channel::<()>();
        let go = std::sync::Mutex::new(go);
        let provider = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            call.say(json(WHOLE));
            go.lock().unwrap().recv().unwrap();
            call.say(STRAY);
            call.until_closed();
            closed_tx.lock().unwrap().send(()).unwrap();
            false
        });
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        for round in 1..4 {
            let answer = ask(gateway.addr, &chat(false, ""));
            assert_eq!(answer.text(), WHOLE.replace("\"up\"", "\"m\""), "{driver:?}");
            go_tx.send(()).unwrap();
            closed.recv_timeout(PATIENCE).expect("the connection is closed");
            assert_eq!(gateway.notes.fresh.load(Ordering::SeqCst), round, "{driver:?}");
        }
    });
}

#[test]
fn an_answer_to_head_is_the_head_of_get() {
    on_both(|driver| {
        let gateway = Gateway::start(driver, &providers("", &[Provider::refusing()]));
        let ask_for = |method: &str, path: &str| {
            let mut client = Client::connect(gateway.addr);
            client
                .send(format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
            client.receive_to_end()
        };
        for path in ["/v1/models", "/v1/models/m", "/v1/models/none", "/nowhere"] {
            let (get, head) = (ask_for("GET", path), ask_for("HEAD", path));
            let (fields, body) = get.split_once("\r\n\r\n").unwrap();
            let (only, nothing) = head.split_once("\r\n\r\n").unwrap();
            assert_eq!((nothing, body.is_empty()), ("", false), "{driver:?}: {head}");
            let kept = |fields: &str| -> Vec<String> {
                let varies = ["date", "x-request-id"];
                let named = |line: &&str| !varies.contains(&line.split(':').next().unwrap());
                fields.lines().filter(named).map(str::to_owned).collect()
            };
            let (mut fields, mut only) = (kept(fields), kept(only));
            if get.contains("error") {
                // The length of an error's text is left out: it names the method.
                fields.retain(|line| !line.starts_with("content-length"));
            }
            fields.sort();
            only.sort();
            assert_eq!(fields, only, "{driver:?} {path}");
        }
        let answer = ask_for("HEAD", "/v1/chat/completions");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{driver:?}: {answer}");
        assert!(answer.contains("\r\nallow: POST\r\n"), "{driver:?}: {answer}");
        // The connection goes on behind an answer without content, good or bad.
        let mut client = Client::connect(gateway.addr);
        for path in ["/nowhere", "/v1/models"] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
            client.receive_until("\r\n\r\n");
            let seen = client.take_seen();
            assert!(seen.ends_with("\r\n\r\n"), "{driver:?}: {seen}");
        }
        client.send("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(client.receive().status, 200, "{driver:?}");
    });
}

#[test]
fn every_answer_has_its_date_and_a_401_its_challenge() {
    on_both(|driver| {
        let provider = polite();
        let config = String::from("[auth]\nkeys = [{ name = \"dev\", key = \"env:K\" }]\n")
            + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let refused = ask(gateway.addr, &chat(true, ""));
        assert_eq!((refused.status, refused.field("www-authenticate")), (401, Some("Bearer")));
        let key = "authorization: Bearer secret-key\r\n";
        let answers = [
            refused,
            ask(gateway.addr, &chat(true, key)),
            ask(gateway.addr, &chat(false, key)),
            ask(gateway.addr, &chat(false, "bad field: x\r\n")),
        ];
        for answer in answers {
            let date = httpdate::parse_http_date(answer.field("date").unwrap()).unwrap();
            let age = std::time::SystemTime::now().duration_since(date).unwrap();
            assert!(age < PATIENCE + PATIENCE, "{driver:?}: {answer:?}");
        }
    });
}

#[test]
fn empty_lines_before_a_request_are_no_request() {
    on_both(|driver| {
        let provider = polite();
        let config = String::from("head_timeout = \"200ms\"\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let mut client = Client::connect(gateway.addr);
        for _ in 0..2 {
            client.send(format!("\r\n\r\n{}\r\n", chat(true, "")));
            assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        }
        // The one behind the last request is no request that came late.
        assert!(client.is_closed(), "{driver:?}: {}", client.seen());
    });
}

#[test]
fn the_authority_of_a_target_chooses_nothing() {
    on_both(|driver| {
        let provider = polite();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let elsewhere = Provider::start(|_| panic!("an upstream that a client named"));
        let target = format!("http://{}/v1/chat/completions", elsewhere.addr);
        let answer = ask(gateway.addr, &post(&target, "", CHAT));
        assert_eq!(answer.text(), WHOLE.replace("\"up\"", "\"m\""), "{driver:?}");
        assert!(elsewhere.accepted.lock().unwrap().try_recv().is_err(), "{driver:?}");
    });
}

#[test]
fn an_old_client_is_told_that_its_connection_stays() {
    on_both(|driver| {
        let provider = polite();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let old = |fields: &str, stream: bool| chat(stream, fields).replace("HTTP/1.1", "HTTP/1.0");
        let mut client = Client::connect(gateway.addr);
        for _ in 0..2 {
            client.send(old("connection: keep-alive\r\n", false));
            assert_eq!(client.receive().field("connection"), Some("keep-alive"), "{driver:?}");
        }
        // The end of a stream is the connection's, so it can't stay.
        client.send(old("connection: keep-alive\r\n", true));
        let answer = client.receive();
        assert_eq!((answer.text(), answer.field("connection")), (expected("p0"), Some("close")));
        assert_eq!(ask(gateway.addr, &old("", false)).field("connection"), Some("close"));
    });
}

#[test]
fn a_surface_has_one_path() {
    on_both(|driver| {
        let provider = polite();
        let config = providers("", &[provider.addr]) + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        let answer = ask(gateway.addr, &post("/v1/%63hat/completion%73", "", CHAT));
        assert_eq!(answer.text(), WHOLE.replace("\"up\"", "\"m\""), "{driver:?}");
        for path in ["/v1/chat%2Fcompletions", "/v1/chat%2fcompletions", "/v1%2Fmodels"] {
            assert_eq!(error_of(&ask(gateway.addr, &post(path, "", CHAT))).0, 404, "{driver:?}");
        }
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let models = ask(gateway.addr, &get("/v1/%6dodel%73")).json();
        assert_eq!(models["object"], "list", "{driver:?}");
        // What goes upstream is what was routed.
        let echo = ask(gateway.addr, &get("/v1/%66iles/a%20b%2e?q=%66")).json();
        assert_eq!(echo["path"], "/v1/files/a%20b.?q=%66", "{driver:?}");
    });
}

#[test]
fn fields_of_one_hop_go_no_further() {
    on_both(|driver| {
        let provider = polite();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let fields = "traceparent: secret-a\r\ntracestate: secret-b\r\nopenai-beta: kept\r\n\
                      connection: TraceParent , keep-alive\r\nconnection: tracestate\r\n\
                      te: trailers\r\nkeep-alive: 5\r\nproxy-authorization: x\r\nupgrade: h2c\r\n";
        let echo =
            ask(gateway.addr, &post("/v1/embeddings", fields, "{\"model\":\"m\",\"input\":\"x\"}"));
        let head = echo.json()["head"].to_string();
        assert!(head.contains("openai-beta: kept"), "{driver:?}: {head}");
        for gone in ["secret", "traceparent", "te:", "keep-alive", "proxy", "upgrade"] {
            assert!(!head.contains(gone), "{driver:?}: {head}");
        }
    });
}

#[test]
fn a_method_that_is_not_known_is_not_implemented() {
    on_both(|driver| {
        let gateway = Gateway::start(driver, &providers("", &[Provider::refusing()]));
        for method in ["get", "Post", "PURGE", "LOCK"] {
            let answer =
                ask(gateway.addr, &format!("{method} /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"));
            assert_eq!(error_of(&answer).0, 501, "{driver:?} {method}");
        }
        let answer = ask(gateway.addr, "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{driver:?}");
        assert!(answer.field("allow").unwrap().contains("POST"), "{driver:?}");
    });
}

/// In HTTP/1.0 the connection's end is the answer's: what was cut ends by a reset instead.
#[test]
fn a_cut_answer_to_http_1_0_does_not_look_whole() {
    use std::io::{ErrorKind, Read as _, Write as _};

    on_both(|driver| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n";
        // More than is held until it is whole.
        let half = format!("{head}content-length: 18000000\r\n\r\n{}", "x".repeat(9_000_000));
        let provider = Provider::saying(half);
        let config = providers("", &[provider.addr]) + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        let mut stream = std::net::TcpStream::connect(gateway.addr).unwrap();
        stream.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
        stream.write_all(b"GET /v1/files/f/content HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert_eq!(end.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "{driver:?}");
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{driver:?}");
    });
}

/// A coding is understood nowhere here: what is read has to be plain, what is passed on keeps its name.
#[test]
fn a_coded_body_is_passed_on_as_such_or_refused() {
    on_both(|driver| {
        let (said, heard) = std::sync::mpsc::channel();
        let said = std::sync::Mutex::new(said);
        let provider = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            said.lock().unwrap().send((call.request.to_lowercase(), call.body.clone())).unwrap();
            call.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        });
        let config = providers("", &[provider.addr]) + "[passthrough]\nprovider = \"p0\"\n";
        let gateway = Gateway::start(driver, &config);
        let coded = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
        let refused = ask(gateway.addr, &post("/v1/chat/completions", coded, "\u{1f}..."));
        assert_eq!(refused.status, 415, "{driver:?}");
        assert!(refused.text().contains("Content-Encoding"), "{driver:?}: {}", refused.text());
        assert_eq!(ask(gateway.addr, &post("/v1/files?a[]=1", coded, "\u{1f}...")).status, 200);
        let (head, body) = heard.recv_timeout(crate::rig::PATIENCE).unwrap();
        assert!(head.starts_with("post /v1/files?a%5b%5d=1 http/1.1\r\n"), "{driver:?}: {head}");
        assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{driver:?}: {head}");
        assert_eq!(body, b"\x1f...", "{driver:?}");
        assert!(heard.try_recv().is_err(), "{driver:?}");
    });
}
