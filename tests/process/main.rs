//! The process itself: reloads, successors, signals, and what a killed one leaves. In a binary of its
//! own, so that its load and the limits of `tests/e2e` do not meet.

#![cfg(feature = "uring")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    dead_code,
    missing_docs,
    reason = "a test says what is wrong by failing, and takes what it needs of the rig"
)]

#[path = "../e2e/client.rs"]
mod client;
#[path = "../e2e/rig.rs"]
mod rig;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde_json::Value;

use crate::client::{Client, ask, chat};
use crate::rig::{Driver, PATIENCE, Provider, on_both, providers, wait_for};

const EVENTS: [&str; 3] = [
    "{\"content\":\"hello from NAME\"},\"finish_reason\":null",
    "{\"content\":\" and more\"},\"finish_reason\":null",
    "{},\"finish_reason\":\"stop\"",
];

/// A streamed answer as its events, with the model's name in them.
fn events(name: &str, model: &str) -> Vec<String> {
    let event = |rest: &&str| {
        let rest = rest.replace("NAME", name);
        format!(
            "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{rest}}}]}}\n\n"
        )
    };
    let done = String::from("data: [DONE]\n\n");
    EVENTS.iter().map(event).chain([done]).collect()
}

/// What a provider says.
fn good(name: &str) -> String {
    let events = events(name, "up");
    let chunks: String = events.iter().map(|e| format!("{:x}\r\n{e}\r\n", e.len())).collect();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
}

/// What a client gets of it.
fn expected(name: &str) -> String {
    events(name, "m").concat()
}

/// One such test at a time: each has processes and load of its own.
static TURN: Mutex<()> = Mutex::new(());

/// A folder with a config, and where its gateway listens.
struct Home {
    turn: Option<MutexGuard<'static, ()>>,
    folder: PathBuf,
    addr: SocketAddr,
    admin: SocketAddr,
    driver: Driver,
}

impl Home {
    fn new(tag: &str, driver: Driver) -> Home {
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut home = Home::beside(tag, driver);
        home.turn = Some(turn);
        home
    }

    /// Another one in the same test.
    fn beside(tag: &str, driver: Driver) -> Home {
        let name = format!("firstbyte-{tag}-{driver:?}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        // Two ports that nobody has; bound together, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [addr, admin] = free.map(|one| one.local_addr().unwrap());
        Home { turn: None, folder, addr, admin, driver }
    }

    /// Puts the file in its place in one step; `server` are more lines of `[server]`.
    fn write(&self, server: &str, rest: &str) {
        let driver = match self.driver {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        };
        let text = format!(
            "[server]\nlisten = [\"{}\"]\nadmin = \"{}\"\ndriver = \"{driver}\"\ncores = 2\n{server}\n{rest}[log]\nledger = \"off\"\n",
            self.addr, self.admin
        );
        self.write_raw(&text);
    }

    fn write_raw(&self, text: &str) {
        let beside = self.folder.join("gateway.toml.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.folder.join("gateway.toml")).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstbyte"));
        command.args(["serve", "-c"]).arg(self.folder.join("gateway.toml"));
        command.env("KEY", "secret-key");
        command
    }

    fn start(&self) -> Process {
        Process::start(self.command())
    }

    fn start_with_handover(&self) -> Process {
        let mut command = self.command();
        command.arg("--handover").arg(self.folder.join("handover.sock"));
        Process::start(command)
    }

    /// A page of the admin listener.
    fn page(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn reload(&self) -> (u16, Value) {
        let (status, body) = self.page("POST", "/reload");
        (status, serde_json::from_str(&body).unwrap())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        drop(self.turn.take());
    }
}

/// A running gateway and what it has logged. Killed when dropped.
struct Process {
    child: Child,
    log: Arc<(Mutex<(String, bool)>, Condvar)>,
}

impl Process {
    /// Starts it and waits until it listens.
    fn start(mut command: Command) -> Process {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new((Mutex::new((String::new(), false)), Condvar::new()));
        let into = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                into.0.lock().unwrap().0.push_str(&(line + "\n"));
                into.1.notify_all();
            }
            into.0.lock().unwrap().1 = true;
            into.1.notify_all();
        });
        let process = Process { child, log };
        process.wait_for_log("listening on");
        process
    }

    fn wait_for_log(&self, text: &str) {
        let log = self.log.0.lock().unwrap();
        let missing = |log: &mut (String, bool)| !log.0.contains(text) && !log.1;
        let (log, _) = self.log.1.wait_timeout_while(log, PATIENCE, missing).unwrap();
        assert!(log.0.contains(text), "no {text:?} in:\n{}", log.0);
    }

    fn log(&self) -> String {
        self.log.0.lock().unwrap().0.clone()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("the process's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that ask without a pause until told; each answer must be whole.
struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(addr: SocketAddr, name: &'static str) -> Load {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let run = |keeps: bool| {
            let (stop, answers) = (stop.clone(), answers.clone());
            std::thread::spawn(move || {
                let mut kept: Option<Client> = None;
                while !stop.load(Ordering::SeqCst) {
                    let mut client = kept.take().unwrap_or_else(|| Client::connect(addr));
                    client.send(chat(true, if keeps { "" } else { "connection: close\r\n" }));
                    let answer = client.receive();
                    assert_eq!(answer.text(), expected(name), "{answer:?}");
                    if answer.field("connection") != Some("close") {
                        kept = Some(client);
                    }
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let threads = vec![run(true), run(true), run(false), run(false)];
        Load { stop, answers, threads }
    }

    /// Waits until so many more requests were answered.
    fn go_on(&self, more: usize) {
        let wanted = self.answers.load(Ordering::SeqCst) + more;
        wait_for("answers under load", || {
            let failed = self.threads.iter().any(|thread| thread.is_finished());
            assert!(!failed, "a request failed");
            (self.answers.load(Ordering::SeqCst) >= wanted).then_some(())
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a request failed");
        }
    }
}

#[test]
fn fifty_reloads_under_load_fail_nothing() {
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let home = Home::new("reloads", driver);
        let config = providers("", &[provider.addr]);
        home.write("", &config);
        let process = home.start();
        let load = Load::start(home.addr, "p0");
        load.go_on(20);
        for round in 0..50 {
            let more = format!("[models.m{round}]\ntargets = [\"p0/up\"]\n");
            home.write("", &(config.clone() + &more));
            let (status, answer) = home.reload();
            assert_eq!((status, &answer["generation"]), (200, &(round + 2).into()), "{answer}");
            load.go_on(4);
        }
        // And by the signal.
        home.write("", &config);
        process.signal("-HUP");
        process.wait_for_log("generation 52");
        load.go_on(20);
        load.end();
        let answer = ask(home.addr, "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), 1, "{driver:?}");
        // A target that came with a reload counts by its name.
        home.write("", &config.replace("p0/up", "p0/later"));
        assert_eq!(home.reload().0, 200);
        assert_eq!(ask(home.addr, &chat(true, "")).status, 200);
        let metrics = home.page("GET", "/metrics").1;
        for line in [
            "attempts_total{target=\"p0/later\",outcome=\"ok\"} 1",
            "attempts_total{target=\"other\",outcome=\"ok\"} 0",
            "reloads_total{result=\"ok\"} 52",
            "config_last_reload_successful 1",
        ] {
            assert!(metrics.contains(&format!("firstbyte_{line}\n")), "{driver:?}: {line}");
        }
    });
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_whole() {
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let home = Home::new("bad", driver);
        home.write("", &providers("", &[provider.addr]));
        let process = home.start();
        let bad =
            "drain = \"0s\"\nheadd_max = \"1KiB\"\ntls = { cert = \"no.pem\", key = \"no.key\" }\n";
        home.write(bad, &providers("", &[provider.addr]));
        let (status, answer) = home.reload();
        assert_eq!((status, &answer["generation"]), (400, &1.into()), "{answer}");
        let lines: Vec<_> =
            answer["problems"].as_array().unwrap().iter().map(|p| p["line"].clone()).collect();
        assert_eq!(lines, [6, 7, 8, 8], "{answer}");
        process.wait_for_log("line 7: server.headd_max: unknown key");
        assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"), "{driver:?}");
        // What only shows when it is compiled: a key that belongs to another certificate.
        let make = || rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
        let (one, other) = (make(), make());
        std::fs::write(home.folder.join("cert.pem"), one.cert.pem()).unwrap();
        std::fs::write(home.folder.join("key.pem"), other.signing_key.serialize_pem()).unwrap();
        let tls = "\n\ntls = { cert = \"cert.pem\", key = \"key.pem\" }";
        home.write(tls, &providers("", &[provider.addr]));
        let (status, answer) = home.reload();
        assert_eq!((status, &answer["problems"][0]["line"]), (400, &8.into()), "{answer}");
        assert_eq!(answer["problems"][0]["key"], "server.tls");
        home.write_raw("not TOML");
        assert_eq!(home.reload().0, 400);
        std::fs::remove_file(home.folder.join("gateway.toml")).unwrap();
        assert_eq!(home.reload().0, 400);
        let metrics = home.page("GET", "/metrics").1;
        for line in ["reloads_total{result=\"refused\"} 4", "config_last_reload_successful 0"] {
            assert!(metrics.contains(&format!("firstbyte_{line}\n")), "{driver:?}: {line}");
        }
        assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"), "{driver:?}");
        // What needs a restart is told, and the rest of that file is in force.
        home.write("drain = \"1s\"\n", &providers("", &[provider.addr]));
        let text = std::fs::read_to_string(home.folder.join("gateway.toml")).unwrap();
        home.write_raw(&text.replace("cores = 2", "cores = 1"));
        let (status, answer) = home.reload();
        assert_eq!((status, answer["needs_restart"][0].as_str()), (200, Some("server.cores")));
    });
}

#[test]
fn an_open_gateway_can_not_come_of_a_reload() {
    let home = Home::new("open", Driver::Epoll);
    let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
    let rest = providers("", &[provider.addr]);
    home.write("", &("[auth]\nkeys = [{ name = \"k\", key = \"env:KEY\" }]\n".to_owned() + &rest));
    let file = home.folder.join("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let everywhere = format!("\"0.0.0.0:{}\"", home.addr.port());
    home.write_raw(&text.replace(&format!("\"{}\"", home.addr), &everywhere));
    let _process = home.start();
    // Good in itself, since it listens on loopback; but the listener stays.
    home.write("", &rest);
    let (status, answer) = home.reload();
    assert_eq!((status, answer["problems"][0]["key"].as_str()), (400, Some("auth")), "{answer}");
    assert_eq!(ask(home.addr, &chat(true, "")).status, 401);
}

#[test]
fn secrets_are_read_again() {
    on_both(|driver| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let provider = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            let line = call.request.lines().find(|line| line.starts_with("authorization"));
            notes.lock().unwrap().push(line.unwrap_or_default().to_owned());
            call.say(good("p0"))
        });
        let home = Home::new("secrets", driver);
        std::fs::write(home.folder.join("key"), "key-one\n").unwrap();
        home.write("", &providers("", &[provider.addr]).replace("env:KEY", "file:key"));
        let process = home.start();
        assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"));
        std::fs::write(home.folder.join("key"), "key-two\n").unwrap();
        assert_eq!(home.reload().0, 200);
        assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"));
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen, ["authorization: Bearer key-one", "authorization: Bearer key-two"]);
        assert!(!process.log().contains("key-"), "{driver:?}: {}", process.log());
    });
}

#[test]
fn a_successor_takes_the_listeners_and_nothing_fails() {
    on_both(|driver| {
        let go = Arc::new(AtomicBool::new(false));
        let gate = go.clone();
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let slow = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            let whole = good("p1");
            let at = whole.find(" and more").unwrap();
            call.say(&whole[..at]);
            while !gate.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            call.say(&whole[at..])
        });
        let home = Home::new("handover", driver);
        let config = providers("", &[provider.addr, slow.addr]);
        home.write("", &(config.clone() + "[models.s]\ntargets = [\"p1/up\"]\n"));
        let mut first = home.start_with_handover();
        let load = Load::start(home.addr, "p0");
        load.go_on(20);
        let mut begun = Client::connect(home.addr);
        begun.send(chat(true, "").replace("\"m\"", "\"s\""));
        begun.receive_until("hello from p1");
        // One that can't start leaves all as it is.
        home.write("nonsense = 1", &config);
        let mut bad = home.command();
        bad.arg("--handover").arg(home.folder.join("handover.sock"));
        assert_eq!(bad.stderr(Stdio::null()).status().unwrap().code(), Some(78));
        // So does one that asks and says nothing more.
        let mut idler =
            std::os::unix::net::UnixStream::connect(home.folder.join("handover.sock")).unwrap();
        let mut offered = [0; 1];
        idler.read_exact(&mut offered).unwrap();
        drop(idler);
        first.wait_for_log("did not take them");
        assert_eq!(home.page("GET", "/readyz").0, 200);
        load.go_on(20);
        home.write("", &(config.clone() + "[models.new]\ntargets = [\"p0/up\"]\n"));
        let mut processes = vec![home.start_with_handover()];
        first.wait_for_log("has taken over");
        let models = || ask(home.addr, "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").text();
        assert!(models().contains("\"new\""), "{driver:?}");
        assert_eq!(home.page("GET", "/readyz").0, 200);
        for _ in 0..2 {
            load.go_on(20);
            let next = home.start_with_handover();
            assert!(processes.pop().unwrap().wait().success(), "{driver:?}");
            processes.push(next);
        }
        // What was under way at the first one ends well there.
        assert!(first.child.try_wait().unwrap().is_none(), "{driver:?}");
        go.store(true, Ordering::SeqCst);
        assert!(begun.receive().text().ends_with("data: [DONE]\n\n"), "{driver:?}");
        assert!(first.wait().success(), "{driver:?}");
        load.go_on(20);
        load.end();
    });
}

#[test]
fn sockets_of_a_service_manager_outlive_the_process() {
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let home = Home::new("activation", driver);
        let config = providers("", &[provider.addr]);
        home.write("", &config);
        let held = TcpListener::bind(home.addr).unwrap();
        let start = || {
            // As sd_listen_fds(3) has it: descriptor 3, and a number that is the process's own.
            let mut command = Command::new("sh");
            let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve -c \"$1\" 3<&0 0</dev/null";
            command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_firstbyte"));
            command.arg(home.folder.join("gateway.toml")).env("KEY", "secret-key");
            let socket = std::os::fd::OwnedFd::from(held.try_clone().unwrap());
            command.stdin(Stdio::from(socket));
            Process::start(command)
        };
        let mut process = start();
        assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"), "{driver:?}");
        process.signal("-TERM");
        assert!(process.wait().success(), "{driver:?}");
        // Between two processes a client waits, and is served by the next one.
        let mut client = Client::connect(home.addr);
        client.send(chat(true, ""));
        let mut killed = start();
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        killed.child.kill().unwrap();
        killed.wait();
        let mut client = Client::connect(home.addr);
        client.send(chat(true, ""));
        let process = start();
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        drop(process);
        // A socket that the config does not name is a mistake of somebody's.
        let other = Home::beside("activation-other", driver);
        home.write_raw(&{
            other.write("", &config);
            std::fs::read_to_string(other.folder.join("gateway.toml")).unwrap()
        });
        let mut command = Command::new("sh");
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve -c \"$1\" 3<&0 0</dev/null";
        command.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_firstbyte"));
        command.arg(home.folder.join("gateway.toml")).env("KEY", "secret-key");
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(held.try_clone().unwrap())));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&home.addr.to_string()), "{said}");
    });
}

#[test]
fn a_killed_process_leaves_nobody_listening() {
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let home = Home::new("killed", driver);
        home.write("", &providers("", &[provider.addr]));
        for _ in 0..5 {
            let mut process = home.start();
            assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"), "{driver:?}");
            let _idle = Client::connect(home.addr);
            process.child.kill().unwrap();
            process.wait();
            let error = TcpStream::connect(home.addr).expect_err("nobody is there");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{driver:?}");
        }
    });
}

/// Asks without a pause until nobody listens; says how many answers came. An end before an answer is a
/// lost request, unless the connection had carried one before: that is for a client to repeat (RFC 9112
/// section 9.3.1).
fn ask_on(addr: SocketAddr) -> usize {
    let mut answers = 0;
    loop {
        let stream = match TcpStream::connect_timeout(&addr, rig::PATIENCE) {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return answers,
            Err(error) => panic!("{error}"),
        };
        let mut client = Client::of(stream);
        for turn in 0.. {
            client.send_as_far_as_it_goes(chat(true, ""));
            if turn > 0 && client.is_closed_or_reset() {
                break;
            }
            let answer = client.receive();
            assert_eq!(answer.text(), expected("p0"));
            answers += 1;
            if answer.field("connection") == Some("close") {
                break;
            }
        }
    }
}

#[test]
fn a_drain_serves_what_is_on_its_way() {
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let home = Home::new("drain", driver);
        home.write("drain_notice = \"2s\"\n", &providers("", &[provider.addr]));
        let mut process = home.start();
        let mut kept = Client::connect(home.addr);
        kept.send(chat(true, ""));
        assert_eq!(kept.receive().text(), expected("p0"));
        process.signal("-TERM");
        // First the page says no; who looks at it has time, and meanwhile all is served.
        wait_for("readyz", || (home.page("GET", "/readyz").0 == 503).then_some(()));
        assert_eq!(home.page("GET", "/livez").0, 200);
        assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"), "{driver:?}");
        // Clients that go on asking, on connections that stay as long as they may, lose nothing.
        let asking: Vec<_> =
            (0..4).map(|_| std::thread::spawn(move || ask_on(home.addr))).collect();
        // What is idle closes; its client need not wait for the end of the process.
        assert!(kept.is_closed(), "{driver:?}");
        for client in asking {
            assert!(client.join().unwrap() > 0, "{driver:?}");
        }
        let error = TcpStream::connect(home.addr).expect_err("nobody is there");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{driver:?}");
        assert!(process.wait().success(), "{driver:?}");
    });
}

#[test]
fn two_processes_do_not_share_an_address_by_mistake() {
    let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
    let home = Home::new("twice", Driver::Epoll);
    home.write("", &providers("", &[provider.addr]));
    let _process = home.start();
    let output = home.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("can't listen on"), "{said}");
    assert_eq!(ask(home.addr, &chat(true, "")).text(), expected("p0"));
}

#[test]
fn it_says_which_version_it_is() {
    let said = Command::new(env!("CARGO_BIN_EXE_firstbyte")).arg("--version").output().unwrap();
    assert!(said.status.success());
    let version = concat!("firstbyte ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&said.stdout), version);
}
