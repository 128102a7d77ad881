//! TLS upstream: verified always, another CA if the config brings one, cuts are cuts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::client::{Client, ask, chat};
use crate::fallback::{expected, good};
use crate::rig::{Gateway, Provider, on_both};

struct Authority {
    pem: std::path::PathBuf,
    config: Arc<ServerConfig>,
}

/// A CA of its own, and a server certificate for `name`.
fn authority(name: &str, tag: &str) -> Authority {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let pem = std::env::temp_dir().join(format!("firstbyte-{tag}-{}.pem", std::process::id()));
    std::fs::write(&pem, ca.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(leaf)],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Authority { pem, config: Arc::new(config) }
}

#[derive(Default)]
struct Seen {
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
}

/// A TLS server that answers each request with `bytes`, then closes as told.
fn serve(config: Arc<ServerConfig>, bytes: String, close: Close) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let counts = seen.clone();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let (config, bytes, counts) = (config.clone(), bytes.clone(), counts.clone());
            std::thread::spawn(move || one(tcp, config, &bytes, close, &counts));
        }
    });
    (addr, seen)
}

#[derive(Clone, Copy, PartialEq)]
enum Close {
    Never,
    WithNotify,
    Cut,
}

fn one(
    mut tcp: std::net::TcpStream,
    config: Arc<ServerConfig>,
    bytes: &str,
    close: Close,
    seen: &Seen,
) {
    let mut session = ServerConnection::new(config).unwrap();
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let mut stream = Stream::new(&mut session, &mut tcp);
        let count = match stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if count == 0 {
            return;
        }
        request.extend_from_slice(&chunk[..count]);
        if !String::from_utf8_lossy(&request).contains("\"stream\":") {
            continue;
        }
        request.clear();
        seen.handshakes.fetch_add(1, Ordering::SeqCst);
        let resumed = stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        seen.resumed.fetch_add(usize::from(resumed), Ordering::SeqCst);
        stream.write_all(bytes.as_bytes()).unwrap();
        stream.flush().unwrap();
        match close {
            Close::Never => {}
            Close::WithNotify => {
                session.send_close_notify();
                let _ = session.write_tls(&mut tcp);
                return;
            }
            Close::Cut => return,
        }
    }
}

fn config(port: u16, host: &str, ca: &str, fallback: SocketAddr) -> String {
    format!(
        "[providers.p0]\nkind = \"openai\"\nbase_url = \"https://{host}:{port}/v1\"\n{ca}key = \"env:K\"\n\
         [providers.p1]\nkind = \"openai\"\nbase_url = \"http://{fallback}/v1\"\n\
         [models.m]\ntargets = [\"p0/up\", \"p1/up\"]\n"
    )
}

#[test]
fn a_trusted_ca_is_accepted_and_everything_else_is_not() {
    let ours = authority("localhost", "ours");
    let other = authority("localhost", "other");
    let misnamed = authority("elsewhere.example", "misnamed");
    let trust = |of: &Authority| format!("ca = \"file:{}\"\n", of.pem.display());
    on_both(|driver| {
        let fallback = Provider::saying(good("p1")).addr;
        for (served, ca, host, winner) in [
            (&ours, trust(&ours), "localhost", "p0"),
            (&ours, trust(&other), "localhost", "p1"),
            (&ours, String::new(), "localhost", "p1"),
            (&misnamed, trust(&misnamed), "localhost", "p1"),
            (&ours, trust(&ours), "127.0.0.1", "p1"),
        ] {
            let (addr, _) = serve(served.config.clone(), good("p0"), Close::Never);
            let gateway = Gateway::start(driver, &config(addr.port(), host, &ca, fallback));
            let answer = ask(gateway.addr, &chat(true, ""));
            assert_eq!(answer.text(), expected(winner), "{driver:?} {host} {ca}");
            if winner == "p1" {
                let attempts = answer.field("x-firstbyte-attempts").unwrap();
                assert!(attempts.starts_with("p0/up;tls;"), "{driver:?} {attempts}");
            }
        }
        // Plain HTTP where TLS is expected.
        let plain = Provider::saying("HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n").addr;
        let gateway = Gateway::start(driver, &config(plain.port(), "localhost", "", fallback));
        assert_eq!(ask(gateway.addr, &chat(true, "")).text(), expected("p1"), "{driver:?}");
    });
}

#[test]
fn connections_are_pooled_and_sessions_resumed() {
    let ours = authority("localhost", "resume");
    let ca = format!("ca = \"file:{}\"\n", ours.pem.display());
    on_both(|driver| {
        for (close, fresh) in [(Close::Never, 1), (Close::WithNotify, 10)] {
            let (addr, seen) = serve(ours.config.clone(), good("p0"), close);
            let gateway = Gateway::start(
                driver,
                &config(addr.port(), "localhost", &ca, Provider::refusing()),
            );
            let mut client = Client::connect(gateway.addr);
            for _ in 0..10 {
                client.send(chat(true, ""));
                assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
            }
            let ledgers = gateway.ledgers(10);
            assert!(ledgers.iter().all(|l| l.attempts.len() == 1), "{driver:?}");
            if close == Close::Never {
                assert_eq!(gateway.notes.fresh.load(Ordering::SeqCst), fresh, "{driver:?}");
            } else {
                assert!(seen.resumed.load(Ordering::SeqCst) >= 8, "{driver:?}");
            }
        }
    });
}

#[test]
fn a_truncated_tls_stream_is_a_bad_end() {
    let ours = authority("localhost", "cut");
    let ca = format!("ca = \"file:{}\"\n", ours.pem.display());
    // A body that ends with the connection, whole but for the finish.
    let begun = good("p0");
    let begun = &begun[..begun.find(" and more").unwrap() - 40];
    on_both(|driver| {
        for close in [Close::Cut, Close::WithNotify] {
            let (addr, _) = serve(ours.config.clone(), begun.to_owned(), close);
            let gateway = Gateway::start(
                driver,
                &config(addr.port(), "localhost", &ca, Provider::refusing()),
            );
            let text = ask(gateway.addr, &chat(true, "")).text();
            assert!(text.contains("stream_interrupted"), "{driver:?}: {text}");
            assert!(!text.contains("[DONE]"), "{driver:?}: {text}");
        }
        // A whole answer without framing of its own: only a close_notify makes its end believable.
        let body = "{\"id\":\"x\",\"model\":\"up\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"a\"}}]}";
        let unframed = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{body}");
        for (close, winner) in [(Close::WithNotify, true), (Close::Cut, false)] {
            let (addr, _) = serve(ours.config.clone(), unframed.clone(), close);
            let gateway = Gateway::start(
                driver,
                &config(addr.port(), "localhost", &ca, Provider::refusing()),
            );
            let answer = ask(gateway.addr, &chat(false, ""));
            assert_eq!(answer.status == 200, winner, "{driver:?}: {answer:?}");
        }
    });
}
