//! `demo`: one streamed request whose primary fails, seen as a client sees it, then its ledger.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::app::cli::Stop;
use crate::app::control::Origin;
use crate::app::sandbox::Sandbox;
use crate::app::serve::{Running, demo_config, no_sandbox};
use crate::app::signals::Signals;
use crate::app::{say, timeline};

/// Longer than any step of the demo takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the demo; leaves the gateway running unless `once`.
///
/// # Errors
/// See [`Stop`].
pub fn run(once: bool) -> Result<(), Stop> {
    let signals = Signals::watch().map_err(Stop::failed)?;
    let sandbox = Sandbox::start(2).map_err(no_sandbox)?;
    let config = demo_config(&sandbox.addrs)?;
    let running = Running::start(&config, Origin::Sandbox).map_err(Stop::failed)?;
    let gateway = running.gateway.addresses[0];
    say::line(
        "Two sandbox providers and a gateway run in this process. The model \"demo\" has two",
    );
    say::line("targets; the first answers 503, so the answer must come from the second.\n");
    show(gateway).map_err(|error| Stop::failed(format!("the demo's request failed: {error}")))?;
    let ledger = running
        .metrics
        .last_ledger(PATIENCE)
        .ok_or_else(|| Stop::failed("the demo's request left no ledger"))?;
    say::line("\nIts ledger:\n");
    say::text(&timeline::render(&ledger, 80));
    if !once {
        invite(gateway, running.admin);
        signals.wait();
    }
    running.end(|| signals.ends() > 1);
    drop(sandbox);
    Ok(())
}

fn invite(gateway: SocketAddr, admin: Option<SocketAddr>) {
    say::line("\nThe gateway goes on running (Ctrl-C ends it). Try:\n");
    say::line(&format!(
        "  curl -iN http://{gateway}/v1/chat/completions -H 'content-type: application/json' \\\n    \
         -d '{{\"model\":\"demo\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}'\n"
    ));
    say::line(
        "Other models: \"cut\" breaks off in the middle, \"down\" has nobody left, \"ok\" is well.",
    );
    if let Some(admin) = admin {
        say::line(&format!("Metrics: http://{admin}/metrics"));
    }
}

/// Sends the request, prints the response's telling headers and its tokens as they come.
fn show(gateway: SocketAddr) -> std::io::Result<()> {
    let body =
        r#"{"model":"demo","stream":true,"messages":[{"role":"user","content":"Say hello."}]}"#;
    let mut stream = TcpStream::connect_timeout(&gateway, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {gateway}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let shown = ["HTTP/", "content-type", "x-firstbyte-"];
        if shown.iter().any(|start| line.starts_with(start)) {
            say::line(&format!("< {}", line.trim_end()));
        }
    }
    say::text("\n  ");
    let mut chunks = Vec::new();
    while let Some(chunk) = next_chunk(&mut reader)? {
        chunks.extend_from_slice(&chunk);
        while let Some(end) = chunks.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = chunks.drain(..end + 2).collect();
            say::text(&content_of(&event));
        }
    }
    say::line("");
    Ok(())
}

/// One chunk of a chunked body; `None` after the last.
fn next_chunk(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim(), 16)
        .map_err(|_| std::io::Error::other(format!("not a chunk size: {line:?}")))?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

/// The text of one event; an error or the terminator as a word of its own.
fn content_of(event: &[u8]) -> String {
    let Some(data) = event.strip_prefix(b"data: ") else { return String::new() };
    if data.starts_with(b"[DONE]") {
        return String::from(" [DONE]");
    }
    let json: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    if let Some(message) = json["error"]["message"].as_str() {
        return format!(" [ERROR: {message}]");
    }
    json["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
}
