//! The loader of `scripts/load`: a lean upstream and a client that times every event, in one process so
//! that both read the same clock. It shares no code with the gateway.
//!
//! ```text
//!   load --plain ADDRESS --bad ADDRESS [--tls ADDRESS --cert FILE]
//!
//!   client ---- request, "@load 20 10000 270 0" in the prompt ----> proxy ----> upstream
//!   client <--- event "@t0000001234567890;"  ---------------------- proxy <---- upstream
//! ```
//!
//! The prompt says what the upstream answers: how many events, microseconds between two of them (0: as
//! fast as they are written), bytes of each, and microseconds by which the later ones are shifted, so that
//! streams do not beat in step. Every event carries the time of its writing in microseconds, which outlives
//! a translation, since it stands in the text. A request without the word gets a small whole answer.
//!
//! Runs are read from standard input, one a line (`client::Run`), and each is answered with a line of JSON.
//! The end of the input ends the process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a bench says what is wrong by failing"
)]

mod client;
mod link;
mod upstream;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

/// Microseconds since the process began: one clock for the upstream and the client.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let address = |name: &str| value(name).and_then(|text| text.parse::<SocketAddr>().ok());
    let (Some(plain), Some(bad)) = (address("--plain"), address("--bad")) else {
        // `cargo bench` runs every bench without arguments of ours.
        println!("load: started by scripts/load, as load --plain ADDRESS --bad ADDRESS");
        return ExitCode::SUCCESS;
    };
    let tls = address("--tls").zip(value("--cert"));
    // A sleeper may oversleep by 50 us otherwise. Threads inherit it.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1000");
    let clock = Clock(Instant::now());
    let upstream = match upstream::Upstream::bind(clock, plain, bad, tls) {
        Ok(upstream) => upstream,
        Err(error) => {
            eprintln!("load: can't listen: {error}");
            return ExitCode::FAILURE;
        }
    };
    std::thread::spawn(move || upstream.run());
    println!("{{\"ready\":true}}");
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let answer = match client::Run::parse(&line) {
            Ok(run) => run.drive(clock).unwrap_or_else(|error| failed(&error.to_string())),
            Err(why) => failed(&why),
        };
        println!("{answer}");
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}

fn failed(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}
