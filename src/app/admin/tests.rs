//! The listener over real sockets on loopback.

use serde_json::Value;

use super::*;
use crate::app::metrics::tests::watched;
use crate::base::ids::TargetId;
use crate::base::tick::Ms;
use crate::net::beacon::Level;

/// Longer than any step takes.
const LONG: Duration = Duration::from_secs(30);

struct Admin {
    view: Arc<View>,
    addr: SocketAddr,
    server: Server,
}

impl Admin {
    fn start(patience: Duration) -> Admin {
        let (metrics, shared) = watched(1, ["openai", "backup"]);
        let view = Arc::new(View {
            shared,
            health: Arc::new(Health::default()),
            metrics,
            engines: vec![Engine::IoUring { flags: "plain" }, Engine::Epoll],
            addresses: vec![([127, 0, 0, 1], 8080).into()],
            origin: String::from("gateway.toml"),
            started: Instant::now(),
            reload: Box::new(|| Ok(Done { generation: 7, needs_restart: vec!["server.listen"] })),
            stopping: AtomicBool::new(false),
        });
        view.health.serving.store(2, Ordering::SeqCst);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Server::start_with(listener, view.clone(), patience).unwrap();
        Admin { view, addr, server }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Sends bytes; everything that comes back until the end.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Status and body.
    fn ask(&self, method: &str, target: &str) -> (u16, String) {
        let answer =
            self.raw(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    fn json(&self, target: &str) -> Value {
        let (status, body) = self.ask("GET", target);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.server.pause();
    }
}

#[test]
fn an_answer_is_whole_http() {
    let admin = Admin::start(LONG);
    let answer = admin.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\ncontent-length: 3\r\n\r\nok\n"
    );
    let head = admin.raw(b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(head, answer.strip_suffix("ok\n").unwrap());
}

#[test]
fn what_is_not_there_is_404_and_what_may_not_be_405() {
    let admin = Admin::start(LONG);
    for target in ["/", "/metrics/", "/Metrics", "/v1/models", "/%6detrics", "//metrics"] {
        assert_eq!(admin.ask("GET", target).0, 404, "{target}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        assert_eq!(admin.ask(method, "/status").0, 405, "{method}");
        assert_eq!(admin.ask(method, "/nothing").0, 404, "{method}");
    }
    let answer = admin.raw(b"POST /status HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
}

#[test]
fn what_is_not_http_is_refused() {
    let admin = Admin::start(LONG);
    let long = [b"GET /".as_slice(), &[b'a'; 2 * HEAD_BYTES_MAX]].concat();
    let cases: [(&[u8], &str); 5] = [
        (b"GET /livez HTTP/1.1\r\n\r\n", "400"),
        (b"GET /livez HTTP/1.1\nHost: h\n\n", "400"),
        (b"GET http://h@h/livez HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        (&long, "414"),
    ];
    for (request, status) in cases {
        let answer = admin.raw(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert_eq!(admin.ask("GET", "/livez").0, 200);
}

#[test]
fn a_client_that_dawdles_is_told_and_left() {
    let admin = Admin::start(Duration::from_millis(30));
    assert!(admin.raw(b"GET /livez HT").starts_with("HTTP/1.1 408 "));
    assert!(admin.raw(b"").starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_head_may_come_in_pieces() {
    let admin = Admin::start(LONG);
    let mut stream = admin.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[test]
fn connections_are_bounded_and_seats_come_free() {
    let admin = Admin::start(LONG);
    let seated: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| admin.connect()).collect();
    let mut one_more = admin.connect();
    let mut said = Vec::new();
    one_more.read_to_end(&mut said).unwrap();
    assert!(said.is_empty(), "closed unread");
    drop(seated);
    // The seats come free as the threads see their clients gone.
    let until = Instant::now() + LONG;
    loop {
        let mut stream = admin.connect();
        let mut answer = Vec::new();
        let asked = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n");
        if asked.and_then(|()| stream.read_to_end(&mut answer)).is_ok() && !answer.is_empty() {
            assert!(answer.ends_with(b"ok\n"));
            break;
        }
        assert!(Instant::now() < until, "no seat came free");
        std::thread::yield_now();
    }
}

#[test]
fn readiness_follows_cores_and_level_and_liveness_does_not() {
    let admin = Admin::start(LONG);
    let ready = |status: u16, text: &str| {
        assert_eq!(admin.ask("GET", "/readyz"), (status, format!("{text}\n")));
        assert_eq!(admin.ask("GET", "/livez").0, 200);
    };
    ready(200, "ready");
    admin.view.health.serving.store(1, Ordering::SeqCst);
    ready(503, "1 of 2 cores serve");
    admin.view.health.serving.store(2, Ordering::SeqCst);
    ready(200, "ready");
    admin.view.shared.raise(Level::Draining);
    ready(503, "draining");
    admin.view.shared.raise(Level::Stopping);
    ready(503, "stopping");
}

#[test]
fn metrics_are_an_exposition() {
    let admin = Admin::start(LONG);
    let answer = admin.raw(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    let kind = "\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(answer.contains(kind), "{answer}");
    assert!(answer.contains("\nfirstbyte_cores 2\n") && answer.ends_with('\n'), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = format!("\r\ncontent-length: {}\r\n", body.len());
    assert!(answer.contains(&length), "{answer}");
}

#[test]
fn the_status_says_what_runs_and_how_targets_stand() {
    let admin = Admin::start(LONG);
    let status = admin.json("/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["config"], "gateway.toml");
    assert_eq!(status["drivers"], serde_json::json!(["io_uring (plain)", "epoll"]));
    assert_eq!(status["addresses"], serde_json::json!(["127.0.0.1:8080"]));
    assert_eq!((&status["ready"], &status["draining"]), (&true.into(), &false.into()));
    assert_eq!(status["targets"][0]["target"], "openai/gpt-4o");
    assert_eq!(status["targets"][0]["standing"], "closed");
    assert!(status["targets"][0]["ends_in_ms"].is_null());
    let now = crate::rt::uring::now();
    let snapshot = admin.view.shared.snapshot();
    snapshot.table.targets[TargetId(0)].breaker.cool(now + Ms(3_600_000), 429);
    admin.view.shared.raise(Level::Draining);
    let status = admin.json("/status");
    assert_eq!(status["targets"][0]["standing"], "cooling");
    assert_eq!(status["targets"][0]["asked_with_status"], 429);
    let ends = status["targets"][0]["ends_in_ms"].as_u64().unwrap();
    assert!((1..=3_600_000).contains(&ends), "{ends}");
    assert_eq!(status["unready_because"], "draining");
    assert!(!status.to_string().contains("secret"));
}

#[test]
fn a_plan_is_what_dispatch_would_do() {
    let admin = Admin::start(LONG);
    let plan = admin.json("/plan?model=gpt-4o");
    assert_eq!(plan["model"], "gpt-4o");
    assert_eq!(plan["stream"], true);
    assert_eq!(plan["attempts"].as_array().unwrap().len(), 2);
    let direct = admin.json("/plan?model=backup%2Fgpt-4o&stream=false");
    assert_eq!(direct["model"], "backup/gpt-4o");
    assert_eq!(direct["stream"], false);
    assert!(!admin.json("/plan?model=nobody")["refused"].is_null());
    let bad =
        ["", "?", "?model=", "?model=a&model=b", "?model=%f", "?model=a&stream=1", "?model=a&x=y"];
    for query in bad {
        assert_eq!(admin.ask("GET", &format!("/plan{query}")).0, 400, "{query}");
    }
    assert!(!plan.to_string().contains("secret"));
}

#[test]
fn a_paused_listener_keeps_its_queue() {
    let admin = Admin::start(LONG);
    admin.server.pause();
    let mut waits = admin.connect();
    waits.write_all(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    admin.server.resume();
    let mut answer = String::new();
    waits.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    // Another process that has it goes on where this one has stopped.
    admin.server.pause();
    let heir = Server::start_with(admin.server.pass_on().unwrap(), admin.view.clone(), LONG);
    assert_eq!(admin.ask("GET", "/livez").0, 200);
    heir.unwrap().pause();
}

#[test]
fn a_reload_is_asked_for_by_post_alone() {
    let mut admin = Admin::start(LONG);
    assert_eq!(admin.ask("GET", "/reload").0, 405);
    let answer = admin.raw(b"PUT /reload HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(answer.contains("\r\nallow: POST\r\n"), "{answer}");
    let (status, body) = admin.ask("POST", "/reload");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["generation"]), (200, &7.into()));
    assert_eq!(body["needs_restart"][0], "server.listen");
    admin.server.pause();
    let problem = Problem {
        line: Some(3),
        path: String::from("server.drain"),
        what: String::from("the time is zero"),
        hint: String::new(),
    };
    let refused = Arc::new(View {
        reload: Box::new(move || Err(vec![problem.clone()])),
        shared: admin.view.shared.clone(),
        health: admin.view.health.clone(),
        metrics: admin.view.metrics.clone(),
        engines: Vec::new(),
        addresses: Vec::new(),
        origin: String::new(),
        started: Instant::now(),
        stopping: AtomicBool::new(false),
    });
    admin.server = Server::start_with(admin.server.pass_on().unwrap(), refused, LONG).unwrap();
    let (status, body) = admin.ask("POST", "/reload");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["problems"][0]["line"]), (400, &3.into()));
    assert_eq!(body["generation"], 1, "what is in force");
}
