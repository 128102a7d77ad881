//! What a provider may answer: before the commit another one does, behind it the end is an honest one, and
//! nothing of it gets into the next exchange.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Case, Step, cases, steps};
use crate::client::{Client, Response, post};
use crate::fallback::{SHORT, event, events, expected, good, patient};
use crate::naive::{self, Read};
use crate::rig::{Gateway, PATIENCE, Provider, on_both, providers, read, wait_for};

#[test]
fn hostile_answers_end_with_their_attempt() {
    let cases = cases(include_str!("answers.txt"));
    assert!(cases.len() >= 80, "{} cases", cases.len());
    on_both(|driver| {
        let scripted = Scripted::start();
        let second = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            let stream = String::from_utf8_lossy(&call.body).contains("\"stream\":true");
            call.say(if stream { good("p1") } else { whole("p1") })
        });
        let patient = patient();
        let gateway = |limits: &str| {
            let passthrough = "[passthrough]\nprovider = \"p0\"\n";
            let config = providers(limits, &[scripted.addr, second.addr]) + passthrough;
            Gateway::start(driver, &config)
        };
        // Only what hangs is waited for, and only it may be short of time.
        let idle = patient.replacen("idle_timeout = \"60s\"", "idle_timeout = \"250ms\"", 1);
        let (patient, short, idle) = (gateway(&patient), gateway(SHORT), gateway(&idle));
        let (mut failures, mut count) = (Vec::new(), 0);
        for (case, mode) in cases.iter().flat_map(|c| c.want[1].chars().map(move |m| (c, m))) {
            let gateway = match case.text.contains("<hang>") {
                true if case.want[0] == "cut" => &idle,
                true => &short,
                false => &patient,
            };
            count += 1;
            if let Err(why) = play(case, mode, &scripted, gateway.addr) {
                failures.push(format!("line {} {mode}: {why}: {}", case.line, case.text));
            }
        }
        assert!(failures.is_empty(), "{driver:?}: of {count}:\n{}", failures.join("\n"));
        println!("{driver:?}: {count} raw answers");
    });
}

/// Plays one case and another request behind it; says what went otherwise.
fn play(case: &Case, mode: char, scripted: &Scripted, addr: SocketAddr) -> Result<(), String> {
    let script = steps(&case.text, &known);
    let idle = script.contains(&Step::Do("idle".to_owned()));
    let big = script.iter().any(|step| *step == Step::Do("half".to_owned()));
    let fresh = matches!(script.first(), Some(Step::Do(_)));
    let before = scripted.connections.load(Ordering::SeqCst);
    if fresh {
        // One that waited has no early answer, and one that dies without a word is replaced.
        scripted.renew();
    }
    *scripted.script.lock().unwrap() = Some(script);
    let answer = ask(addr, mode, if big { BIG } else { 0 });
    if idle {
        scripted.go.0.lock().unwrap().send(()).unwrap();
        let done = scripted.done.lock().unwrap().recv_timeout(PATIENCE);
        done.map_err(|_| "the idle connection was not closed")?;
    }
    let first = scripted.last.load(Ordering::SeqCst);
    judge(&case.want[0], mode, &answer)?;
    // Were the script not played, the case would show nothing.
    if scripted.script.lock().unwrap().take().is_some() {
        return Err(format!("not played; {before} connections before"));
    }
    let again = ask(addr, 'w', 0);
    // Where time is short, a busy machine may make the second provider answer.
    let late = case.text.contains("<hang>") && again.text() == shown_whole("p1");
    if again.text() != shown_whole("again") && !late {
        return Err(format!("what came next: {again:?}"));
    }
    let reused = scripted.last.load(Ordering::SeqCst) == first;
    match (case.want[0].as_str(), reused) {
        ("kept" | "refused", false) => Err("the connection was not used again".to_owned()),
        ("good." | "next" | "cut", true) => Err("the connection was used again".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the client saw what it had to.
fn judge(want: &str, mode: char, answer: &Response) -> Result<(), String> {
    let text = answer.text();
    let wrong = || Err(format!("not {want}: {answer:?}"));
    if format!("{}{text}", answer.head).contains("evil") || !answer.whole {
        return wrong();
    }
    let of = |name: &str| match mode {
        's' => text == expected(name),
        'p' => text.is_empty() && answer.status == 204 || text == json(name),
        _ => text == shown_whole(name),
    };
    let fits = match want {
        "good" | "good." | "kept" => of("p0"),
        "next" | "refused" | "either" => answer.status == 200 && of("p1"),
        "cut" => {
            answer.status == 200
                && text.starts_with(&expected("p0")[..200])
                && text.contains("\"error\"")
                && !text.contains("[DONE]")
                && !text.contains("p1")
        }
        status => answer.status.to_string() == status && text.contains("\"error\""),
    };
    if fits { Ok(()) } else { wrong() }
}

/// Asks on a connection of its own.
fn ask(addr: SocketAddr, mode: char, padding: usize) -> Response {
    let mut client = Client::connect(addr);
    let user = "x".repeat(padding);
    client.send(match mode {
        'p' => "GET /v1/files HTTP/1.1\r\nhost: gateway\r\n\r\n".to_owned(),
        _ => post(
            "/v1/chat/completions",
            "",
            &format!(
                "{{\"model\":\"m\",\"messages\":[],\"stream\":{},\"user\":\"{user}\"}}",
                mode == 's'
            ),
        ),
    });
    client.receive()
}

fn json(name: &str) -> String {
    format!(
        "{{\"id\":\"x\",\"object\":\"chat.completion\",\"model\":\"up\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"hi from {name}\"}},\"finish_reason\":\"stop\"}}]}}"
    )
}

fn shown_whole(name: &str) -> String {
    json(name).replace("\"up\"", "\"m\"")
}

fn whole(name: &str) -> String {
    let json = json(name);
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    )
}

/// The octets of a macro.
fn known(name: &str) -> Option<Vec<u8>> {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let json = json("p0");
    let events = events("p0");
    let (first, rest) = (events[..2].concat(), events[2..].concat());
    debug_assert!(first.starts_with(&event("{\"role\":\"assistant\",\"content\":\"\"}")));
    let text = match name {
        "" => String::new(),
        "W" => "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n".to_owned(),
        "S" => "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n".to_owned(),
        "T" => "Transfer-Encoding: chunked\r\n".to_owned(),
        "L" => format!("Content-Length: {}\r\n", json.len()),
        "J" => json,
        "C-0" => chunk(&json),
        "C" => chunk(&json) + "0\r\n\r\n",
        "0" => "0\r\n\r\n".to_owned(),
        "v1" => chunk(&first),
        "v2" => chunk(&rest),
        "V" => chunk(&first) + &chunk(&rest),
        "U" => first + &rest,
        "u1" => first,
        "u1len" => format!("Content-Length: {}\r\n", first.len()),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// A provider that plays a script once, and answers well otherwise.
struct Scripted {
    addr: SocketAddr,
    script: Arc<Mutex<Option<Vec<Step>>>>,
    /// Connections so far.
    connections: Arc<AtomicUsize>,
    /// The connection of the last request.
    last: Arc<AtomicUsize>,
    /// The client has its answer.
    go: Arc<Signal>,
    /// A connection that was idle is closed.
    done: Mutex<Receiver<()>>,
    /// The connections that are open.
    open: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
}

impl Scripted {
    fn start() -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (go, gone) = channel();
        let (tell, done) = channel();
        let scripted = Scripted {
            addr: listener.local_addr().unwrap(),
            script: Arc::default(),
            connections: Arc::default(),
            last: Arc::default(),
            go: Arc::new((Mutex::new(go), Mutex::new(gone))),
            done: Mutex::new(done),
            open: Arc::default(),
        };
        let (script, last, go) =
            (scripted.script.clone(), scripted.last.clone(), scripted.go.clone());
        let (connections, open) = (scripted.connections.clone(), scripted.open.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let id = connections.fetch_add(1, Ordering::SeqCst) + 1;
                stream.set_nodelay(true).unwrap();
                open.lock().unwrap().insert(id, stream.try_clone().unwrap());
                let (script, last, go) = (script.clone(), last.clone(), go.clone());
                let (tell, open) = (tell.clone(), open.clone());
                std::thread::spawn(move || {
                    let was_idle = serve(&mut stream, id, &script, &last, &go.1);
                    open.lock().unwrap().remove(&id);
                    drop(stream);
                    if was_idle {
                        tell.send(()).unwrap();
                    }
                });
            }
        });
        scripted
    }

    /// Ends every connection, and waits until the other side has closed it and its thread is gone.
    fn renew(&self) {
        for stream in self.open.lock().unwrap().values() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        wait_for("the end of all connections", || {
            self.open.lock().unwrap().is_empty().then_some(())
        });
    }
}

/// Serves a connection to its end; says whether it was idle in a script.
fn serve(
    stream: &mut TcpStream,
    id: usize,
    script: &Mutex<Option<Vec<Step>>>,
    last: &AtomicUsize,
    go: &Mutex<Receiver<()>>,
) -> bool {
    let is = |what: &str| {
        let first = script.lock().unwrap().as_ref().and_then(|steps| steps.first().cloned());
        first == Some(Step::Do(what.to_owned()))
    };
    let (mut buffer, mut answered, mut was_idle) = (Vec::new(), false, false);
    loop {
        let early = is("early");
        if !early {
            loop {
                let head = buffer.windows(4).any(|four| four == b"\r\n\r\n");
                if head && !answered && is("half") {
                    answered = true;
                    break;
                }
                if let Read::Whole(_, used) = naive::request(&buffer) {
                    buffer.drain(..used);
                    if !std::mem::take(&mut answered) {
                        break;
                    }
                }
                let mut some = vec![0; 65_536];
                match read(stream, &mut some) {
                    Ok(count) if count > 0 => buffer.extend_from_slice(&some[..count]),
                    _ => return was_idle,
                }
            }
        }
        answered |= early;
        last.store(id, Ordering::SeqCst);
        let Some(steps) = script.lock().unwrap().take() else {
            if stream.write_all(whole("again").as_bytes()).is_err() {
                return was_idle;
            }
            continue;
        };
        for step in steps {
            match step {
                Step::Send(octets) => drop(stream.write_all(&octets)),
                Step::Do(what) => match what.as_str() {
                    "early" | "half" | "|" => {}
                    "fin" => {
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                    }
                    "rst" => {
                        let socket = socket2::SockRef::from(&*stream);
                        socket.set_linger(Some(Duration::ZERO)).unwrap();
                        return was_idle;
                    }
                    "hang" => {}
                    "idle" => {
                        go.lock().unwrap().recv().unwrap();
                        was_idle = true;
                    }
                    other => panic!("<{other}> is not known"),
                },
            }
        }
    }
}

/// Where it is sent and where it is waited for.
type Signal = (Mutex<Sender<()>>, Mutex<Receiver<()>>);

/// Bytes of a body that no socket's buffer holds.
const BIG: usize = 12 << 20;
