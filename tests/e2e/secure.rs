//! TLS on the client's side: handshakes, names, resumption, client certificates, and every way to end.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use firstbyte::exchange::ledger::Ending;
use firstbyte::net::watch::NoSession;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

use crate::client::{Client, Response, chat, post};
use crate::fallback::{event, expected, good};
use crate::overload::{KEYED, REFUSING, refused_uploads, upload};
use crate::rig::{Gateway, PATIENCE, Provider, on_both, providers, read};

/// A CA with certificates on disk, gone with it.
struct Authority {
    folder: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    ca: rcgen::Certificate,
}

impl Authority {
    fn new(tag: &str) -> Authority {
        let folder = std::env::temp_dir().join(format!("firstbyte-{tag}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, tag);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        Authority { folder, issuer: rcgen::Issuer::new(params, key), ca }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A certificate for `name` on disk, as the config names it.
    fn place(&self, name: &str) -> String {
        let (cert, key) = self.issue(name);
        let path = |what: &str| self.folder.join(format!("{name}.{what}"));
        std::fs::write(path("pem"), cert.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        let (cert, key) = (path("pem"), path("key"));
        format!("{{ cert = \"{}\", key = \"file:{}\" }}", cert.display(), key.display())
    }

    /// What a client is set up with that trusts this CA.
    fn trusted(&self) -> ClientConfig {
        self.client(None)
    }

    fn client(&self, identity: Option<&Authority>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(of) => {
                let (cert, key) = of.issue("a-client");
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![CertificateDer::from(cert)], key).unwrap()
            }
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A connection that asks for `name`; the handshake begins with the first byte sent.
fn connect(gateway: &Gateway, config: &Arc<ClientConfig>, name: &str) -> Client {
    let mut client = Client::connect(gateway.addr);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    client.tls = Some(ClientConnection::new(config.clone(), name).unwrap());
    client
}

fn ask(gateway: &Gateway, config: &Arc<ClientConfig>, request: &str) -> (Response, Client) {
    let mut client = connect(gateway, config, "localhost");
    client.send(request);
    (client.receive(), client)
}

/// Shakes hands and says how that went: the alert, or the end that came instead.
fn handshake(gateway: &Gateway, config: &Arc<ClientConfig>, name: &str) -> Result<Client, String> {
    let mut client = connect(gateway, config, name);
    let tls = client.tls.as_mut().unwrap();
    while tls.is_handshaking() {
        match tls.complete_io(&mut client.stream) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
            Ok(_) => {}
        }
    }
    Ok(client)
}

/// Why connections came to no session, in any order.
fn failed(gateway: &Gateway, expected: &[NoSession]) {
    let sorted = |list: &[NoSession]| {
        let mut names: Vec<_> = list.iter().map(|why| why.name()).collect();
        names.sort_unstable();
        names
    };
    let seen = crate::rig::wait_for("the handshakes' ends", || {
        let seen = sorted(&gateway.notes.no_session.lock().unwrap());
        (seen.len() >= expected.len()).then_some(seen)
    });
    assert_eq!(seen, sorted(expected));
}

#[test]
fn requests_are_answered_over_tls_with_fallback() {
    let ours = Authority::new("whole");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let primary = Provider::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
        let second = Provider::start(|call| call.as_mut().unwrap().say(good("p1")));
        let addrs = [primary.addr, second.addr];
        let config = tls.clone() + &providers("", &addrs);
        let gateway = Gateway::start(driver, &config);
        let trusted = Arc::new(ours.trusted());
        let (answer, mut client) = ask(&gateway, &trusted, &chat(true, ""));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        assert!(answer.field("x-firstbyte-attempts").unwrap().starts_with("p0/up;503;"));
        // The connection goes on, with a body of many records, which is asked for first.
        let long = format!("\"pad\":\"{}\"", "x".repeat(1 << 20));
        let body = format!(
            "{{\"model\":\"m\",\"stream\":true,{long},\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"
        );
        let request = post("/v1/chat/completions", "expect: 100-continue\r\n", &body);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        client.send(format!("{head}\r\n\r\n"));
        assert_eq!(client.receive().status, 100, "{driver:?}");
        client.send(body);
        assert_eq!(client.receive().text(), expected("p1"), "{driver:?}");
        // The last answer is followed by a close_notify: anything else is no clean end for this client.
        client.send("GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert_eq!(client.receive().status, 200, "{driver:?}");
        assert!(client.is_closed(), "{driver:?}");
        assert_eq!(gateway.ledgers(3).len(), 3);
    });
}

#[test]
fn a_long_stream_arrives_whole() {
    let ours = Authority::new("long");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let mut parts: Vec<String> =
            (0..3000).map(|_| event(&format!("{{\"content\":\"{}\"}}", "y".repeat(900)))).collect();
        parts.push(event("{}").replace("null", "\"stop\""));
        parts.push(String::from("data: [DONE]\n\n"));
        let whole = parts.concat();
        let answer = crate::fallback::stream(&parts);
        let provider = Provider::saying(answer);
        let gateway = Gateway::start(driver, &(tls.clone() + &providers("", &[provider.addr])));
        let mut client = connect(&gateway, &Arc::new(ours.trusted()), "localhost");
        client.send(chat(true, ""));
        let text = client.receive().text();
        assert_eq!(text.len(), whole.replace("\"model\":\"up\"", "\"model\":\"m\"").len());
        assert!(text.ends_with("data: [DONE]\n\n"), "{driver:?}");
    });
}

#[test]
fn a_client_that_dribbles_is_understood() {
    let ours = Authority::new("dribble");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let gateway = Gateway::start(driver, &(tls.clone() + &providers("", &[provider.addr])));
        let mut client = connect(&gateway, &Arc::new(ours.trusted()), "localhost");
        let tls = client.tls.as_mut().unwrap();
        let mut asked = false;
        // Every byte of the handshake and of the request in a packet of its own.
        while !asked || tls.wants_write() {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            for byte in out {
                client.stream.write_all(&[byte]).unwrap();
            }
            if tls.is_handshaking() {
                let mut piece = [0; 4096];
                let count = read(&mut client.stream, &mut piece).unwrap();
                assert!(count > 0, "{driver:?}");
                tls.read_tls(&mut &piece[..count]).unwrap();
                tls.process_new_packets().unwrap();
            } else if !asked {
                tls.writer().write_all(chat(true, "").as_bytes()).unwrap();
                asked = true;
            }
        }
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
    });
}

#[test]
fn the_name_chooses_the_certificate() {
    let ours = Authority::new("names");
    let tls = format!("tls = [{}, {}]\n", ours.place("localhost"), ours.place("other.example"));
    on_both(|driver| {
        let gateway =
            Gateway::start(driver, &(tls.clone() + &providers("", &[Provider::refusing()])));
        let trusted = Arc::new(ours.trusted());
        assert!(handshake(&gateway, &trusted, "localhost").is_ok(), "{driver:?}");
        assert!(handshake(&gateway, &trusted, "other.example").is_ok(), "{driver:?}");
        // A name that nothing is for gets the first one, which a client that looks does not accept; so
        // does an address, for which there is no name to ask by.
        for name in ["third.example", "127.0.0.1"] {
            let refused = handshake(&gateway, &trusted, name).err().unwrap();
            assert!(refused.contains("localhost"), "{driver:?}: {refused}");
        }
        let other = Authority::new("stranger");
        assert!(handshake(&gateway, &Arc::new(other.trusted()), "localhost").is_err());
        assert!(handshake(&gateway, &trusted, "localhost").is_ok(), "{driver:?}");
    });
}

#[test]
fn protocols_are_agreed_on_or_refused() {
    let ours = Authority::new("alpn");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let gateway =
            Gateway::start(driver, &(tls.clone() + &providers("", &[Provider::refusing()])));
        for (offer, agreed) in [
            (&[][..], Ok(None)),
            (&["http/1.1"], Ok(Some("http/1.1"))),
            (&["h2", "http/1.1"], Ok(Some("http/1.1"))),
            (&["h2"], Err(())),
        ] {
            let mut config = ours.trusted();
            config.alpn_protocols = offer.iter().map(|name| name.as_bytes().to_vec()).collect();
            let done = handshake(&gateway, &Arc::new(config), "localhost");
            match (done, agreed) {
                (Ok(client), Ok(name)) => {
                    let tls = client.tls.as_ref().unwrap();
                    assert_eq!(tls.alpn_protocol(), name.map(str::as_bytes), "{driver:?}");
                }
                (Err(why), Err(())) => {
                    assert!(why.contains("NoApplicationProtocol"), "{driver:?}: {why}");
                }
                (done, _) => panic!("{driver:?} {offer:?}: {:?}", done.err()),
            }
        }
        failed(&gateway, &[NoSession::Incompatible]);
    });
}

#[test]
fn sessions_are_resumed_also_over_a_reload() {
    let ours = Authority::new("resumed");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    let renewed = Authority::new("renewed");
    let other = format!("tls = {}\n", renewed.place("localhost"));
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let rest = providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &(tls.clone() + &rest));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            gateway.reload(&(tls.clone() + &rest));
            let mut roots = RootCertStore::empty();
            roots.add(ours.ca.der().clone()).unwrap();
            let crypto = Arc::new(rustls::crypto::ring::default_provider());
            let trusted = Arc::new(
                ClientConfig::builder_with_provider(crypto)
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            );
            let kind = |client: &Client| client.tls.as_ref().unwrap().handshake_kind();
            let (_, first) = ask(&gateway, &trusted, &chat(true, ""));
            assert_eq!(kind(&first), Some(HandshakeKind::Full), "{driver:?}");
            let (answer, second) = ask(&gateway, &trusted, &chat(true, ""));
            assert_eq!(kind(&second), Some(HandshakeKind::Resumed), "{driver:?} {version:?}");
            assert_eq!(answer.text(), expected("p0"));
            gateway.reload(&(tls.clone() + &rest + "[models.n]\ntargets = [\"p0/up\"]\n"));
            let (_, third) = ask(&gateway, &trusted, &chat(true, ""));
            assert_eq!(kind(&third), Some(HandshakeKind::Resumed), "{driver:?} {version:?}");
            // With another certificate nothing is resumed, and what is open goes on.
            gateway.reload(&(other.clone() + &rest));
            assert!(handshake(&gateway, &trusted, "localhost").is_err(), "{driver:?}");
            let mut open = third;
            open.send(chat(true, ""));
            assert_eq!(open.receive().text(), expected("p0"), "{driver:?}");
            let fresh = Arc::new(renewed.trusted());
            assert_eq!(ask(&gateway, &fresh, &chat(true, "")).0.text(), expected("p0"));
        }
    });
}

#[test]
fn a_client_certificate_can_be_asked_for() {
    let (ours, clients) = (Authority::new("server"), Authority::new("clients"));
    let ca = clients.folder.join("ca.pem");
    let tls = format!("tls = {}\nclient_ca = \"{}\"\n", ours.place("localhost"), ca.display());
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let gateway = Gateway::start(driver, &(tls.clone() + &providers("", &[provider.addr])));
        let stranger = Authority::new("stranger");
        for (identity, alert) in [(None, "CertificateRequired"), (Some(&stranger), "UnknownCA")] {
            let mut client = connect(&gateway, &Arc::new(ours.client(identity)), "localhost");
            let stream = &mut rustls::Stream::new(client.tls.as_mut().unwrap(), &mut client.stream);
            // The client is done before it hears of it (RFC 8446 section 4.4.2.4).
            let _ = stream.write_all(chat(true, "").as_bytes());
            let why = read(stream, &mut [0; 64]).unwrap_err().to_string();
            assert!(why.contains(alert), "{driver:?}: {why}");
        }
        let known = Arc::new(ours.client(Some(&clients)));
        for _ in 0..2 {
            assert_eq!(ask(&gateway, &known, &chat(true, "")).0.text(), expected("p0"));
        }
        assert_eq!(gateway.ledgers(2).len(), 2, "{driver:?}");
        failed(&gateway, &[NoSession::Certificate; 2]);
    });
}

#[test]
fn what_is_no_tls_is_told_or_closed() {
    let ours = Authority::new("garbage");
    let tls = format!("head_timeout = \"400ms\"\ntls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let gateway = Gateway::start(driver, &(tls.clone() + &providers("", &[provider.addr])));
        let mut plain = Client::connect(gateway.addr);
        plain.send(chat(true, ""));
        let answer = plain.receive();
        assert_eq!((answer.status, answer.field("connection")), (400, Some("close")));
        assert!(answer.text().contains("HTTPS"), "{driver:?}: {}", answer.text());
        assert!(plain.is_closed(), "{driver:?}");
        // No record at all, a record of no version, one that is too long, an alert, and silence.
        let noise: [&[u8]; 6] = [
            &[0; 2048],
            b"\x16\x09\x09\x00\x05hello",
            b"\x16\x03\x01\xff\xff",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"\x16\x03\x01\x00",
            b"",
        ];
        for bytes in noise {
            let mut client = Client::connect(gateway.addr);
            client.send_as_far_as_it_goes(bytes);
            while !client.is_closed_or_reset() {}
        }
        let trusted = Arc::new(ours.trusted());
        assert_eq!(ask(&gateway, &trusted, &chat(true, "")).0.text(), expected("p0"));
        let mut why = vec![NoSession::PlainHttp];
        // The alert is the one that comes well-formed. What is not complete is waited for.
        why.extend([NoSession::Malformed; 3]);
        why.extend([NoSession::Alert, NoSession::Timeout, NoSession::Timeout]);
        failed(&gateway, &why);
        // One that leaves in the middle, and one that does not trust the gateway.
        drop(Client::connect(gateway.addr));
        let other = Arc::new(Authority::new("another").trusted());
        assert!(handshake(&gateway, &other, "localhost").is_err());
        why.push(NoSession::Closed);
        why.push(NoSession::Alert);
        failed(&gateway, &why);
        // Noise within a session ends it.
        let (_, mut client) = ask(&gateway, &trusted, &chat(true, ""));
        client.stream.write_all(&[b'x'; 600]).unwrap();
        let mut rest = [0; 4096];
        while matches!(read(&mut client.stream, &mut rest), Ok(count) if count > 0) {}
        crate::rig::wait_for("the connections' ends", || {
            (gateway.notes.open.load(std::sync::atomic::Ordering::SeqCst) == 0).then_some(())
        });
    });
}

#[test]
fn a_client_that_ends_its_session_or_cuts_it_is_gone() {
    let ours = Authority::new("gone");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let (closed_tx, closed) = std::sync::mpsc::channel();
        let closed_tx = std::sync::Mutex::new(closed_tx);
        let provider = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            call.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
            call.say(event("{\"content\":\"begun\"}"));
            call.until_closed();
            closed_tx.lock().unwrap().send(()).unwrap();
            false
        });
        let gateway = Gateway::start(driver, &(tls.clone() + &providers("", &[provider.addr])));
        for (round, notify) in [true, false].into_iter().enumerate() {
            let mut client = connect(&gateway, &Arc::new(ours.trusted()), "localhost");
            client.send(chat(true, ""));
            client.receive_until("begun");
            if notify {
                let tls = client.tls.as_mut().unwrap();
                tls.send_close_notify();
                tls.write_tls(&mut client.stream).unwrap();
                // The socket stays open: the session's end is enough.
                closed.recv_timeout(PATIENCE).unwrap();
            } else {
                client.stream.shutdown(std::net::Shutdown::Write).unwrap();
                closed.recv_timeout(PATIENCE).unwrap();
            }
            let ledger = gateway.ledgers(round + 1).pop().unwrap();
            assert_eq!(ledger.ending, Ending::Gone, "{driver:?} {notify}");
        }
    });
}

#[test]
fn requests_that_come_together_are_answered_in_turn() {
    let ours = Authority::new("pipeline");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let provider = Provider::start(|call| call.as_mut().unwrap().say(good("p0")));
        let gateway = Gateway::start(driver, &(tls.clone() + &providers("", &[provider.addr])));
        let mut client = connect(&gateway, &Arc::new(ours.trusted()), "localhost");
        client.send(chat(true, "").repeat(3));
        for _ in 0..3 {
            assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
        }
    });
}

#[test]
fn a_refused_upload_gets_its_answer_whole() {
    let ours = Authority::new("upload");
    let tls = format!("tls = {}\n", ours.place("localhost"));
    on_both(|driver| {
        let config = tls.clone() + REFUSING + &providers("", &[Provider::refusing()]) + KEYED;
        let gateway = Gateway::start(driver, &config);
        let trusted = Arc::new(ours.trusted());
        let body = upload();
        for (what, head, status) in refused_uploads() {
            let mut client = connect(&gateway, &trusted, "localhost");
            client.send(&head);
            assert!(client.send_blindly(&body), "{driver:?}: {what} is reset");
            let answer = client.receive();
            assert_eq!(answer.status, status, "{driver:?} {what}: {answer:?}");
            assert!(client.is_closed(), "{driver:?}: one answer, and a close_notify, to {what}");
        }
    });
}
