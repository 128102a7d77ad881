//! Vertex with a service account: its token is fetched, shown, replaced and missed; and Azure's addresses.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::fallback::{events, expected, good, stream};
use crate::rig::{Call, Driver, Gateway, Provider, on_both, wait_for};
use crate::translated::{SSE, candidates, check_claude, chunks, messages, request};

/// A key file whose tokens are given at `addr`; gone with its value.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(addr: std::net::SocketAddr) -> KeyFile {
        let key = include_str!("../keys/service-account.pem");
        let file = json!({
            "type": "service_account", "project_id": "proj", "private_key_id": "k1",
            "private_key": key, "client_email": "robot@proj", "token_uri": format!("http://{addr}/token"),
        });
        let name = format!("firstbyte-{}-{}.json", std::process::id(), addr.port());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, file.to_string()).unwrap();
        KeyFile(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn http(status: u16, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A token server that checks what it is asked; `says` makes the answer to the nth request, from 1.
fn token_server(says: impl Fn(usize) -> String + Send + Sync + 'static) -> Provider {
    let count = AtomicUsize::new(0);
    Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        assert!(call.request.starts_with("POST /token HTTP/1.1\r\n"), "{}", call.request);
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        assert!(call.request.contains(form), "{}", call.request);
        let body = std::str::from_utf8(&call.body).unwrap();
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
        assert_eq!(body.strip_prefix(grant).unwrap().split('.').count(), 3, "{body}");
        call.say(says(count.fetch_add(1, Ordering::SeqCst) + 1));
        false
    })
}

fn token(number: usize, seconds: u64) -> String {
    let (name, kind) = (format!("token-{number}"), "Bearer");
    http(200, &json!({ "access_token": name, "expires_in": seconds, "token_type": kind }))
}

/// The number of the token that a call shows.
fn shown(call: &Call) -> usize {
    let (_, rest) = call.request.split_once("\r\nauthorization: Bearer token-").unwrap();
    rest.split("\r\n").next().unwrap().parse().unwrap()
}

/// A Vertex that answers as the publisher that is asked, and notes the latest token.
fn vertex(latest: Arc<AtomicUsize>) -> Provider {
    Provider::start(move |call| {
        let call = call.as_mut().unwrap();
        latest.fetch_max(shown(call), Ordering::SeqCst);
        let place = "POST /v1/projects/proj/locations/europe-west1/publishers";
        let line = call.request.lines().next().unwrap();
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        assert!(body.get("model").is_none(), "{body}");
        let asked = line.strip_prefix(place).unwrap();
        let events = match asked {
            "/google/models/gemini-x:streamGenerateContent?alt=sse HTTP/1.1" => candidates(),
            "/anthropic/models/claude-x@1:streamRawPredict HTTP/1.1" => {
                assert_eq!(body["anthropic_version"], "vertex-2023-10-16");
                assert_eq!(body["stream"], true);
                assert!(!call.request.contains("anthropic-version"), "{}", call.request);
                let aside = "event: vertex_event\ndata: {\"type\":\"vertex_event\"}\n\n";
                [vec![String::from(aside)], messages()].concat()
            }
            other => panic!("{other}"),
        };
        call.say(format!("{SSE}{}", events.concat()));
        false
    })
}

/// Vertex before a provider of OpenAI's format, as models `m` (Gemini) and `c` (Claude).
fn config(vertex: &Provider, key: &KeyFile, spare: &Provider) -> String {
    let (addr, spare, key) = (vertex.addr, spare.addr, key.0.display());
    format!(
        "[defaults]\nbreaker = \"off\"\n\
         [providers.v]\nkind = \"vertex\"\nbase_url = \"http://{addr}/v1\"\n\
         service_account = \"file:{key}\"\nlocation = \"europe-west1\"\n\
         [providers.p1]\nkind = \"openai\"\nbase_url = \"http://{spare}/v1\"\nkey = \"env:K\"\n\
         [models.m]\ntargets = [\"v/gemini-x\", \"p1/up\"]\n\
         [models.c]\ntargets = [\"v/claude-x@1\", \"p1/up\"]\n\
         [models.only]\ntargets = [\"v/gemini-x\"]\n"
    )
}

fn of(model: &str) -> String {
    let body = json!({
        "model": model, "messages": [{ "role": "user", "content": "hi" }], "stream": true,
        "stream_options": { "include_usage": true },
    });
    post("/v1/chat/completions", "", &body.to_string())
}

fn attempts(answer: &Response) -> &str {
    answer.field("x-firstbyte-attempts").unwrap_or_default()
}

#[test]
fn both_publishers_answer_with_a_token() {
    on_both(|driver| {
        let latest = Arc::new(AtomicUsize::new(0));
        let (tokens, cloud) = (token_server(|n| token(n, 3600)), vertex(latest.clone()));
        let (key, spare) = (KeyFile::new(tokens.addr), Provider::saying(good("p1")));
        let gateway = Gateway::start(driver, &config(&cloud, &key, &spare));
        let answer = ask(gateway.addr, &request(true));
        assert!(
            attempts(&answer).starts_with("v/gemini-x;ok;"),
            "{driver:?}: {}",
            attempts(&answer)
        );
        let chunks = chunks(&answer);
        let deltas = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str());
        assert_eq!(deltas.collect::<String>(), "hello from gemini", "{driver:?}");
        let claude = ask(gateway.addr, &of("c"));
        let body = claude.text().replace("\"model\":\"c\"", "\"model\":\"m\"");
        assert!(body.contains("hello from claude"), "{driver:?}: {body}");
        check_claude(&Response { body: body.into_bytes(), ..claude }, &format!("{driver:?}"));
        assert_eq!(latest.load(Ordering::SeqCst), 1, "one token for all of them");
    });
}

#[test]
fn a_token_is_replaced_before_it_ends() {
    on_both(|driver| {
        let latest = Arc::new(AtomicUsize::new(0));
        let tokens = token_server(|n| token(n, if n == 1 { 1 } else { 3600 }));
        let (cloud, key) = (vertex(latest.clone()), KeyFile::new(tokens.addr));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(&cloud, &key, &spare));
        let second = wait_for("the second token", || {
            // Where the machine is slow there may be a gap, filled by the spare one.
            ask(gateway.addr, &request(true));
            Some(latest.load(Ordering::SeqCst)).filter(|number| *number > 1)
        });
        assert_eq!(second, 2, "{driver:?}");
    });
}

#[test]
fn a_token_that_is_not_accepted_is_replaced_once() {
    on_both(|driver| {
        let tokens = token_server(|n| token(n, 3600));
        let cloud = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            let says = match shown(call) {
                1 => http(401, &json!({ "error": { "code": 401, "status": "UNAUTHENTICATED" } })),
                _ => format!("{SSE}{}", candidates().concat()),
            };
            call.say(says);
            false
        });
        let (key, spare) = (KeyFile::new(tokens.addr), Provider::saying(good("p1")));
        let gateway = Gateway::start(driver, &config(&cloud, &key, &spare));
        let answer = ask(gateway.addr, &request(true));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        assert!(attempts(&answer).starts_with("v/gemini-x;401;"), "{}", attempts(&answer));
        wait_for("the second token", || {
            let answer = ask(gateway.addr, &request(true));
            attempts(&answer).starts_with("v/gemini-x;ok;").then_some(())
        });
    });
}

#[test]
fn without_a_token_others_answer_until_there_is_one() {
    on_both(|driver| {
        let latest = Arc::new(AtomicUsize::new(0));
        let refused =
            http(400, &json!({ "error": "invalid_grant", "error_description": "secret words" }));
        let works = Arc::new(AtomicUsize::new(0));
        let at = works.clone();
        let tokens = token_server(move |n| match at.load(Ordering::SeqCst) {
            0 if n % 2 == 0 => String::from("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"),
            0 => refused.clone(),
            _ => token(1, 3600),
        });
        let (cloud, key) = (vertex(latest), KeyFile::new(tokens.addr));
        let spare = Provider::saying(good("p1"));
        let gateway = Gateway::start(driver, &config(&cloud, &key, &spare));
        // The one that can't be asked stands last.
        let answer = ask(gateway.addr, &request(true));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        assert!(attempts(&answer).starts_with("p1/up;ok;"), "{}", attempts(&answer));
        let answer = ask(gateway.addr, &of("only"));
        assert_eq!(answer.status, 502, "{driver:?}");
        let text = answer.text();
        assert!(text.contains("no access token") && text.contains("no_token"), "{text}");
        for secret in ["invalid_grant", "secret words", "robot@", "PRIVATE KEY"] {
            assert!(!text.contains(secret), "{text}");
        }
        works.store(1, Ordering::SeqCst);
        wait_for("a token", || {
            let answer = ask(gateway.addr, &request(true));
            attempts(&answer).starts_with("v/gemini-x;ok;").then_some(())
        });
    });
}

#[test]
fn a_missing_token_falls_over_to_what_is_left() {
    on_both(|driver| {
        let nobody = Provider::refusing();
        let latest = Arc::new(AtomicUsize::new(0));
        let (cloud, key) = (vertex(latest), KeyFile::new(nobody));
        let dead = Provider::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
        let gateway = Gateway::start(driver, &config(&cloud, &key, &dead));
        let answer = ask(gateway.addr, &request(true));
        assert_eq!(answer.status, 502, "{driver:?}");
        let ledger = gateway.ledgers(1).remove(0);
        let faults: Vec<_> =
            ledger.attempts.iter().map(|a| a.failure.unwrap().fault.name()).collect();
        assert_eq!(faults, ["unavailable", "no_token"], "{driver:?}");
        assert!(
            cloud.accepted.lock().unwrap().try_recv().is_err(),
            "nothing was sent without a token"
        );
    });
}

#[test]
fn azure_answers_at_its_deployments() {
    on_both(azure);
}

fn azure(driver: Driver) {
    let cloud = Provider::start(|call| {
        let call = call.as_mut().unwrap();
        let line =
            "POST /openai/deployments/prod/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n";
        assert!(call.request.starts_with(line), "{}", call.request);
        assert!(call.request.contains("api-key: secret-key\r\n"), "{}", call.request);
        assert!(!call.request.contains("authorization"), "{}", call.request);
        let filtered = "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[]}\n\n";
        call.say(stream(&[vec![String::from(filtered)], events("p0")].concat()));
        false
    });
    let busy = Provider::saying("HTTP/1.1 429 X\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n");
    let (cloud, busy) = (cloud.addr, busy.addr);
    let gateway = Gateway::start(
        driver,
        &format!(
            "[providers.busy]\nkind = \"azure\"\nbase_url = \"http://{busy}\"\nkey = \"env:K\"\n\
             [providers.p0]\nkind = \"azure\"\nbase_url = \"http://{cloud}\"\nkey = \"env:K\"\n\
             api_version = \"2024-10-21\"\n\
             [models.m]\ntargets = [\"busy/x\", \"p0/prod\"]\n"
        ),
    );
    let answer = ask(gateway.addr, &request(true));
    assert_eq!(answer.text(), expected("p0"), "{driver:?}");
    assert!(attempts(&answer).starts_with("busy/x;429;"), "{}", attempts(&answer));
}
