//! Answers as they may come, over sockets and over TLS.

use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a request up to its form, on any connection.
fn read_request(link: &mut impl io::Read) -> String {
    let (mut seen, mut chunk) = (Vec::new(), [0; 1024]);
    while !seen.ends_with(b"a=secret") {
        let count = link.read(&mut chunk).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(seen).unwrap()
}

fn url(listener: &TcpListener, tls: bool, host: &str) -> BaseUrl {
    let port = listener.local_addr().unwrap().port();
    BaseUrl { tls, host: host.to_owned(), port, path: String::from("/token") }
}

/// What is made of `says`, after which the server closes.
fn asked(says: &'static str) -> Result<(u16, String), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(&listener, false, "127.0.0.1");
    let server = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        let request = read_request(&mut socket);
        // It may have hung up on what it does not understand.
        let _ = socket.write_all(says.as_bytes());
        request
    });
    let answer = form(&url, &Secret::new("a=secret"), PATIENCE);
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /token HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
    assert!(request.contains("\r\ncontent-length: 8\r\n"), "{request}");
    let text = |answer: Answer| String::from_utf8(answer.body.expose().to_vec()).unwrap();
    answer.map(|answer| (answer.status, text(answer)))
}

#[test]
fn answers_of_each_framing_are_read() {
    for (says, status, body) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 200, "hi"),
        ("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 200, "hi"),
        (
            "HTTP/1.1 400 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
            400,
            "hi",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhi", 200, "hi"),
        ("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n", 500, ""),
    ] {
        assert_eq!(asked(says), Ok((status, body.to_owned())), "{says}");
    }
}

#[test]
fn what_is_no_answer_is_told_without_what_was_said() {
    for says in [
        "",
        "HTTP/1.1 200",
        "secret words\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsecret",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nsecret\r\n",
    ] {
        let why = asked(says).unwrap_err();
        assert!(!why.is_empty() && !why.contains("secret"), "{says}: {why}");
    }
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(ANSWER_MAX + 1));
    assert_eq!(asked(long.leak()), Err(String::from("its answer is too long")));
}

#[test]
fn one_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(&listener, false, "127.0.0.1");
    let why = form(&url, &Secret::new("a=secret"), Duration::from_millis(50)).err().unwrap();
    assert_eq!(why, "it took too long");
    let port = url.port;
    drop(listener);
    let gone = BaseUrl { port, ..url };
    assert!(form(&gone, &Secret::new("a=secret"), PATIENCE).is_err());
}

/// A certificate for `localhost` signed by itself, as PEM, and the server that has it.
fn certified() -> (String, Arc<ServerConfig>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![String::from("localhost")]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let pem = cert.pem();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(cert)],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (pem, Arc::new(config))
}

#[test]
fn tls_is_verified_and_then_spoken() {
    for trusted in [true, false] {
        let (pem, config) = certified();
        let listener = TcpListener::bind("localhost:0").unwrap();
        let url = url(&listener, true, "localhost");
        let server = std::thread::spawn(move || {
            let socket = listener.accept().unwrap().0;
            let mut link = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
            if !trusted {
                // It is hung up on in the middle of its handshake.
                assert!(link.read(&mut [0; 64]).map_or(true, |count| count == 0));
                return;
            }
            read_request(&mut link);
            link.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
            link.flush().unwrap();
        });
        let profile = Profile::new("localhost", Some(pem.as_bytes())).unwrap();
        let answer = if trusted {
            exchange(&url, Some(&profile), &Secret::new("a=secret"), PATIENCE)
        } else {
            form(&url, &Secret::new("a=secret"), PATIENCE)
        };
        match answer {
            Ok(answer) => assert_eq!((trusted, answer.body.expose()), (true, &b"hi"[..])),
            Err(why) => assert_eq!((trusted, why.as_str()), (false, "the TLS handshake failed")),
        }
        server.join().unwrap();
    }
}
