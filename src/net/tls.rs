//! TLS: rustls as bytes in, bytes out over our buffers; no socket inside. Here what providers are spoken to
//! with, and the session, which serves both sides; `server` has what clients are spoken to with.
//!
//! Verification and SNI are always on. A provider may bring another CA; it can't bring none. ALPN
//! offers `http/1.1` alone. Sessions are resumed per endpoint.

use std::io::Read as _;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore};

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::net::watch::NoSession;

pub mod server;

/// What connections to one endpoint are made with.
#[derive(Clone)]
pub struct Profile {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Profile {
    /// A profile for `host`, trusting `ca` (PEM) instead of the built-in roots if given.
    ///
    /// # Errors
    /// A host that can't be a TLS name, a CA that holds no certificate.
    pub fn new(host: &str, ca: Option<&[u8]>) -> Result<Profile, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("\"{host}\" can't be verified as a TLS server name"))?;
        let roots = match ca {
            None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => authorities(pem)?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Profile { config: Arc::new(config), name })
    }

    /// A session at the start of its handshake.
    ///
    /// # Errors
    /// `Tls`: rustls refused its own configuration.
    pub fn session(&self) -> Result<Session, Fault> {
        ClientConnection::new(self.config.clone(), self.name.clone())
            .map(|conn| Session { conn: Connection::Client(conn), failed: None })
            .map_err(|_| Fault::Tls)
    }
}

/// The certificates of a PEM text, to be trusted.
fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        let cert = cert.map_err(|error| format!("the CA is not PEM: {error}"))?;
        roots.add(cert).map_err(|error| format!("the CA is not usable: {error}"))?;
    }
    if roots.is_empty() {
        return Err(String::from("the CA file holds no certificate"));
    }
    Ok(roots)
}

/// One TLS connection's state.
pub struct Session {
    conn: Connection,
    /// Why no session came to be.
    failed: Option<NoSession>,
}

impl Session {
    /// Whether the handshake still goes on.
    pub fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// Takes received records, appends what they say to `plain`. `cipher` is empty afterwards.
    /// `Ok(true)`: the peer said that nothing more comes.
    ///
    /// # Errors
    /// `Tls`: records that don't verify, alerts, a certificate that is not accepted.
    pub fn open(&mut self, cipher: &mut Buf, plain: &mut Buf) -> Result<bool, Fault> {
        let mut closed = false;
        while !cipher.is_empty() {
            let mut rest = cipher.as_slice();
            let taken = self.conn.read_tls(&mut rest).map_err(|_| Fault::Tls)?;
            cipher.consume(taken);
            let state = match self.conn.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    self.failed = Some(reason(&error));
                    return Err(Fault::Tls);
                }
            };
            closed |= state.peer_has_closed();
            self.take_plain(state.plaintext_bytes_to_read(), plain)?;
            if taken == 0 {
                break;
            }
        }
        Ok(closed)
    }

    fn take_plain(&mut self, bytes: usize, plain: &mut Buf) -> Result<(), Fault> {
        if bytes == 0 {
            return Ok(());
        }
        let mut reader = self.conn.reader().take(bytes as u64);
        std::io::copy(&mut reader, plain).map(|_| ()).map_err(|_| Fault::Tls)
    }

    /// Seals `plain` into records appended to `cipher`.
    ///
    /// # Errors
    /// `Tls`.
    pub fn seal(&mut self, plain: &Buf, cipher: &mut Buf) -> Result<(), Fault> {
        use std::io::Write as _;
        for part in plain.as_slice().chunks(SEAL_CHUNK) {
            self.conn.writer().write_all(part).map_err(|_| Fault::Tls)?;
            self.flush(cipher)?;
        }
        Ok(())
    }

    /// Appends what the session itself wants to say (handshake, tickets, key updates).
    ///
    /// # Errors
    /// `Tls`.
    pub fn flush(&mut self, cipher: &mut Buf) -> Result<(), Fault> {
        while self.conn.wants_write() {
            self.conn.write_tls(cipher).map_err(|_| Fault::Tls)?;
        }
        Ok(())
    }

    /// Queues our end of the stream (RFC 8446 section 6.1); `flush` writes it.
    pub fn end(&mut self) {
        self.conn.send_close_notify();
    }

    /// Why `open` failed.
    pub fn why(&self) -> NoSession {
        self.failed.unwrap_or(NoSession::Malformed)
    }

    /// Whether `flush` would write anything.
    pub fn wants_write(&self) -> bool {
        self.conn.wants_write()
    }
}

/// What an error says of a client's handshake, told apart by who has to do something about it.
fn reason(error: &rustls::Error) -> NoSession {
    match error {
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
            NoSession::Incompatible
        }
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::UnsupportedNameType
        | rustls::Error::InvalidCertRevocationList(_) => NoSession::Certificate,
        rustls::Error::AlertReceived(_) => NoSession::Alert,
        _ => NoSession::Malformed,
    }
}

/// Below rustls's own limit on plaintext that waits to be sealed.
const SEAL_CHUNK: usize = 32 * 1024;
