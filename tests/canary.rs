//! Canaries: credentials, prompts and answers that sing wherever they are seen. The real program runs with
//! them through good exchanges, every class of fault, malformed requests and bad configs, on both drivers;
//! nothing that it writes or answers may hold one, but for an answer's own words to its own client.

#![cfg(feature = "uring")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENT: &str = "canary-client-5e1f00d1";
const WRONG: &str = "canary-wrong-client-77aa";
const PROMPT: &str = "canary-prompt-c0ffee42";
const ANSWER: &str = "canary-answer-beefbeef";
const TOKEN: &str = "canary-token-99d2a1";
const AWS_SECRET: &str = "canary-aws-secret-31337";
const INLINE: &str = "canary-inline-4b1d";

/// Kinds with a key of their own, and how a key of it is called here.
const KINDS: &[&str] = &[
    "openai",
    "anthropic",
    "gemini",
    "cohere",
    "ollama",
    "mistral",
    "azure",
    "groq",
    "bedrock",
    "vertex",
];

fn key(kind: &str) -> String {
    format!("canary-key-{kind}-8d3c")
}

/// A line of the service account's private key.
fn private() -> &'static str {
    include_str!("keys/service-account.pem").lines().nth(3).unwrap()
}

/// Everything that may be seen by nobody but the provider that it is for.
fn secrets() -> Vec<String> {
    let mut all: Vec<String> = KINDS.iter().map(|kind| key(kind)).collect();
    all.extend([CLIENT, WRONG, TOKEN, AWS_SECRET, private()].map(str::to_owned));
    all
}

#[track_caller]
fn silent(text: &str, canaries: &[String], what: &str) {
    for canary in canaries {
        if let Some(at) = text.find(canary.as_str()) {
            let from = text[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
            panic!("{what} sings {canary}: {}", &text[from..at + canary.len()]);
        }
    }
}

/// What the providers do with a request. Those at the end are remembered: a token that was refused, a
/// target that cools down.
const MODES: &[&str] = &[
    "good",
    "status 500",
    "status 400",
    "status 404",
    "redirect",
    "garbage",
    "reset",
    "empty",
    "cut",
    "error event",
    "malformed event",
    "named error",
    "hang",
    "status 401",
    "status 429",
];

/// Providers of every kind at one address, that do what the mode says and keep what they got.
struct Providers {
    addr: SocketAddr,
    mode: Arc<Mutex<&'static str>>,
    got: Arc<Mutex<String>>,
}

impl Providers {
    fn start() -> Providers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (mode, got) = (Arc::new(Mutex::new("good")), Arc::new(Mutex::new(String::new())));
        let (of_mode, of_got) = (mode.clone(), got.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mode, got) = (of_mode.clone(), of_got.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &mode, &got);
                });
            }
        });
        Providers { addr, mode, got }
    }

    fn set(&self, mode: &'static str) {
        *self.mode.lock().unwrap() = mode;
    }
}

fn serve(
    mut stream: TcpStream,
    mode: &Mutex<&'static str>,
    got: &Mutex<String>,
) -> std::io::Result<()> {
    let request = read_message(&mut stream, true)?;
    got.lock().unwrap().push_str(&request);
    if request.starts_with("POST /token ") {
        let body = json!({ "access_token": TOKEN, "expires_in": 3600 }).to_string();
        let length = body.len();
        return write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    }
    // What a provider of bad manners says of a request: its credential, and all of it.
    let quoted = |name: &str| {
        let field = request.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        field.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    let credential = ["authorization", "x-api-key", "api-key", "x-goog-api-key"].map(quoted);
    let credential = credential.into_iter().flatten().collect::<String>();
    let error = json!({ "type": "error", "error": {
        "message": format!("no: {credential}"), "type": "x", "code": credential.clone() } });
    let anthropic = request.starts_with("POST /v1/messages");
    let stream_it = request.contains("\"stream\":true");
    let mode = *mode.lock().unwrap();
    let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let text = if anthropic {
        format!(
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"m\",\"content\":[],\"usage\":{{}}}}}}\n\nevent: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{{\"type\":\"text\",\"text\":\"\"}}}}\n\nevent: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{ANSWER}\"}}}}\n\n"
        )
    } else {
        format!(
            "data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{ANSWER}\"}}}}]}}\n\n"
        )
    };
    let end = if anthropic {
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
    } else {
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
    };
    let whole = if anthropic {
        json!({ "type": "message", "id": "m", "role": "assistant", "stop_reason": "end_turn",
            "content": [{ "type": "text", "text": ANSWER }], "usage": {} })
    } else {
        json!({ "id": "c", "choices": [{ "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": ANSWER } }] })
    };
    let status = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\nx-echo: {credential}\r\n\r\n{body}",
            body.len()
        )
    };
    let says = match mode {
        "good" if stream_it => format!("{sse}{text}{end}"),
        "good" => status("200", &whole.to_string()),
        "redirect" => status("302", "").replace("x-echo", "location: /\r\nx-echo"),
        "garbage" => format!("{credential} {ANSWER}\r\n\r\n"),
        "reset" => {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            return Ok(());
        }
        "empty" => String::from("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        "cut" => format!("{sse}{text}"),
        "error event" => format!("{sse}{text}data: {error}\n\n"),
        "malformed event" => format!("{sse}{text}data: {{\"{credential}\n\n"),
        "named error" => format!("{sse}event: error\ndata: {error}\n\n"),
        "hang" => {
            stream.write_all(sse.as_bytes())?;
            let _ = stream.read(&mut [0; 16]);
            return Ok(());
        }
        other => status(other.strip_prefix("status ").unwrap(), &error.to_string()),
    };
    stream.write_all(says.as_bytes())
}

/// A head, and the body that its length tells; of a response, all up to the end.
fn read_message(stream: &mut TcpStream, request: bool) -> std::io::Result<String> {
    let (mut seen, mut chunk) = (Vec::new(), [0; 65_536]);
    loop {
        let count = match stream.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // A gateway that closes on unread bytes resets.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && !request => 0,
            read => read?,
        };
        seen.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&seen);
        if count == 0 {
            return Ok(text.into_owned());
        }
        if let Some((head, body)) = text.split_once("\r\n\r\n").filter(|_| request) {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(text.into_owned());
            }
        }
    }
}

/// A file that is gone with its value.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str, text: &str) -> Temp {
        let path =
            std::env::temp_dir().join(format!("firstbyte-canary-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The program, with everything that it writes.
struct Gateway {
    process: Child,
    wrote: Arc<Mutex<String>>,
    addr: SocketAddr,
    admin: SocketAddr,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstbyte"));
    command.args(args).env("CANARY_CLIENT", CLIENT).env("CANARY_AWS", AWS_SECRET);
    // As loud as it gets.
    command.env("RUST_BACKTRACE", "full").env("RUST_LOG", "trace");
    for kind in KINDS {
        command.env(format!("CANARY_{}", kind.to_uppercase()), key(kind));
    }
    command
}

impl Gateway {
    /// `None` if the machine refuses the driver.
    fn start(config: &Temp) -> Option<Gateway> {
        let mut process = command(&["serve", "-c", config.0.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let wrote = Arc::new(Mutex::new(String::new()));
        let out = process.stdout.take().unwrap();
        let err = process.stderr.take().unwrap();
        for mut from in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let wrote = wrote.clone();
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(count) = from.read(&mut chunk) {
                    if count == 0 {
                        return;
                    }
                    wrote.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..count]));
                }
            });
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let text = wrote.lock().unwrap().clone();
            let at = |mark: &str| {
                let rest = &text[text.find(mark)? + mark.len()..];
                rest.split(['/', ' ', '\n']).next()?.parse().ok()
            };
            if let (Some(addr), Some(admin), true) =
                (at("listening on http://"), at("admin on http://"), text.contains("/v1\n"))
            {
                return Some(Gateway { process, wrote, addr, admin });
            }
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < until, "the gateway does not start: {text}");
            std::thread::yield_now();
        }
    }

    fn ask(&self, addr: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(request.as_bytes());
        read_message(&mut stream, false).unwrap()
    }

    fn post(&self, path: &str, key: &str, fields: &str, body: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n{fields}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.ask(self.addr, &request)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(driver: &str, upstream: SocketAddr, account: &Temp) -> String {
    let mut text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ncores = 1\ndriver = \"{driver}\"\n\
         [auth]\nkeys = [{{ name = \"app\", key = \"env:CANARY_CLIENT\" }}]\n\
         [defaults]\nbreaker = \"off\"\nfirst_content_timeout = \"300ms\"\nidle_timeout = \"300ms\"\nanswer_timeout = \"300ms\"\n"
    );
    for kind in KINDS {
        let variable = kind.to_uppercase();
        text += &format!(
            "[providers.{kind}]\nkind = \"{kind}\"\nbase_url = \"http://{upstream}/v1\"\n"
        );
        text += &match *kind {
            "bedrock" => format!(
                "region = \"us-east-1\"\naccess_key = \"env:CANARY_{variable}\"\nsecret_key = \"env:CANARY_AWS\"\n"
            ),
            "vertex" => {
                format!("service_account = \"file:{}\"\nproject = \"p\"\n", account.0.display())
            }
            _ => format!("key = \"env:CANARY_{variable}\"\n"),
        };
        text += &format!("[models.{kind}]\ntargets = [\"{kind}/gemini-x\"]\n");
    }
    text
}

#[test]
fn nothing_sings() {
    for driver in ["io_uring", "epoll"] {
        let providers = Providers::start();
        let account = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "k",
            "private_key": include_str!("keys/service-account.pem"), "client_email": "robot@p",
            "token_uri": format!("http://{}/token", providers.addr),
        });
        let account = Temp::new(&format!("{driver}.json"), &account.to_string());
        let file = Temp::new(&format!("{driver}.toml"), &config(driver, providers.addr, &account));
        let Some(gateway) = Gateway::start(&file) else {
            eprintln!("skipped on {driver}: this machine refuses it");
            continue;
        };
        exchanges(&gateway, &providers);
        malformed(&gateway);
        let mut all = secrets();
        all.extend([PROMPT, ANSWER].map(str::to_owned));
        for page in [
            "/metrics",
            "/status",
            "/readyz",
            "/plan?model=openai",
            "/plan?model=vertex&stream=false",
            "/nothing",
        ] {
            let get = format!(
                "GET {page} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT}\r\nconnection: close\r\n\r\n"
            );
            let answer = gateway.ask(gateway.admin, &get);
            assert!(answer.starts_with("HTTP/1.1 "), "{page}: {answer}");
            silent(&answer, &all, page);
        }
        // The canaries did fly: each came where it belongs.
        let got = providers.got.lock().unwrap().clone();
        for kind in KINDS.iter().filter(|kind| **kind != "vertex") {
            assert!(got.contains(&key(kind)), "{driver}: the key of {kind} never went out");
        }
        assert!(got.contains(TOKEN) && got.contains(PROMPT), "{driver}");
        silent(
            &got,
            &[CLIENT, WRONG, AWS_SECRET, private()].map(str::to_owned),
            "an upstream request",
        );
        let wrote = gateway.wrote.lock().unwrap().clone();
        assert!(wrote.matches("\"attempts\"").count() >= KINDS.len(), "{driver}: {wrote}");
        silent(&wrote, &all, "the log");
        let explained =
            command(&["explain", "-c", file.0.to_str().unwrap(), "openai"]).output().unwrap();
        assert!(explained.status.success());
        let checked = command(&["check", "-c", file.0.to_str().unwrap()]).output().unwrap();
        for output in [explained, checked] {
            silent(&String::from_utf8_lossy(&output.stdout), &all, "a command");
            silent(&String::from_utf8_lossy(&output.stderr), &all, "a command");
        }
    }
}

/// Every kind through every mode, as a stream and whole. An answer may be seen by its client, a credential
/// by none, whoever quotes it.
fn exchanges(gateway: &Gateway, providers: &Providers) {
    let secrets = secrets();
    let mut answered = 0;
    for mode in MODES {
        providers.set(mode);
        let before = providers.got.lock().unwrap().matches("POST /").count();
        for kind in KINDS {
            for stream in [true, false] {
                let body = json!({ "model": kind, "stream": stream, "max_tokens": 9,
                    "messages": [{ "role": "user", "content": PROMPT }] });
                let path = if stream { "/v1/chat/completions" } else { "/v1/messages" };
                let answer = gateway.post(path, CLIENT, "", &body.to_string());
                let case = format!("{mode}, {kind}, stream: {stream}");
                let (head, rest) = answer.split_once("\r\n\r\n").expect(&case);
                silent(head, &[PROMPT, ANSWER].map(str::to_owned), &case);
                silent(rest, &[PROMPT.to_owned()], &case);
                silent(&answer, &secrets, &case);
                answered += usize::from(answer.contains(ANSWER));
            }
        }
        let asked = providers.got.lock().unwrap().matches("POST /").count() - before;
        assert!(asked >= KINDS.len() - 1, "{mode}: only {asked} requests went out");
    }
    assert!(answered >= 2 * KINDS.len() / 2, "only {answered} answers came");
    providers.set("good");
}

/// Requests that are refused, with canaries in every part; only the part itself may be quoted, and of
/// credentials nothing.
fn malformed(gateway: &Gateway) {
    let mut secrets = secrets();
    secrets.push(PROMPT.to_owned());
    let good = json!({ "model": "openai", "messages": [{ "role": "user", "content": PROMPT }] });
    let good = good.to_string();
    let dry = "x-firstbyte-dry-run: 1\r\n";
    let mut answers = vec![
        gateway.post("/v1/chat/completions", WRONG, "", &good),
        gateway.post("/v1/chat/completions", CLIENT, "", &good[..good.len() - 3]),
        gateway.post("/v1/chat/completions", CLIENT, "", &good.replace("openai", "none")),
        gateway.post("/v1/chat/completions", CLIENT, "", &good.replace("\"messages\"", "\"m\"")),
        gateway.post("/v1/chat/completions", CLIENT, dry, &good),
        gateway.post("/v1/route/explain", CLIENT, "", &good),
        gateway.post("/v1/messages", CLIENT, "", &good),
        gateway.post("/nowhere", CLIENT, "", &good),
        gateway.post("/v1/rerank", CLIENT, "", &good.replace("openai", "none")),
        gateway.post("/v1/chat/completions", CLIENT, "content-length: 3\r\n", &good),
        gateway.post("/v1/chat/completions", CLIENT, "x-firstbyte-commit: odd\r\n", &good),
        gateway.post("/v1/chat/completions", &format!("{CLIENT}\u{1}"), "", &good),
        gateway.post(
            "/v1/chat/completions",
            CLIENT,
            &format!("x-big: {}\r\n", "b".repeat(70_000)),
            "",
        ),
    ];
    let get = |line: &str| {
        format!("{line}\r\nhost: x\r\nconnection: close\r\nx-api-key: {WRONG}\r\n\r\n")
    };
    answers.push(gateway.ask(gateway.addr, &get("GET /v1/models HTTP/1.1")));
    answers.push(gateway.ask(gateway.addr, &get("GET /v1/models HTTP/3.7")));
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        silent(&answer, &secrets, "a refusal");
    }
}

#[test]
fn bad_configs_do_not_sing() {
    let mut all = secrets();
    all.push(INLINE.to_owned());
    for text in [
        format!("[providers.p]\nkind = \"openai\"\nkey = \"{INLINE}\"\n"),
        format!("[providers.p]\nkind = \"openai\"\nkeys = [\"{INLINE}\"]\n"),
        format!(
            "[providers.p]\nkind = \"bedrock\"\nregion = \"r\"\naccess_key = \"{INLINE}\"\nsecret_key = \"{INLINE}\"\nsession_token = \"{INLINE}\"\n"
        ),
        format!("[providers.p]\nkind = \"vertex\"\nservice_account = \"{INLINE}\"\n"),
        format!(
            "[auth]\nkeys = [{{ name = \"a\", key = \"{INLINE}\" }}, {{ name = \"b\", sha256 = \"{INLINE}\" }}]\n"
        ),
        String::from("[providers.p]\nkind = \"vertex\"\nservice_account = \"env:CANARY_OPENAI\"\n"),
        String::from("[providers.p]\nkind = \"openai\"\nkey = \"env:CANARY_OPENAI\"\nodd = 1\n"),
        String::from(
            "[providers.p]\nkind = \"openai\"\nca = \"env:CANARY_OPENAI\"\nkey = \"env:CANARY_BAD\"\n",
        ),
    ] {
        let file = Temp::new("bad.toml", &text);
        for args in [&["check", "-c"][..], &["serve", "-c"], &["explain", "m", "-c"]] {
            let mut command = command(&[args, &[file.0.to_str().unwrap()]].concat());
            let output = command.env("CANARY_BAD", format!("{INLINE}\u{7f}")).output().unwrap();
            assert_eq!(output.status.code(), Some(78), "{text}: {output:?}");
            silent(&String::from_utf8_lossy(&output.stdout), &all, &text);
            silent(&String::from_utf8_lossy(&output.stderr), &all, &text);
        }
    }
}
