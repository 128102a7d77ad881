//! What clients are spoken TLS to with: certificates by name, resumption, client certificates.
//!
//! A client that names no host (SNI, RFC 6066 section 3), or one that no certificate is for, gets the
//! first certificate: whether that will do is for the client to judge. ALPN offers `http/1.1`; a client
//! that offers only other protocols is refused by alert (RFC 7301). Sessions are resumed by tickets
//! under keys of this process that change by themselves, so any core resumes what another began.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig, ServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{Connection, crypto};

use super::{Session, authorities};
use crate::base::fail::Fault;
use crate::config::{Certificate, Problem, Server};

/// What client connections are accepted with. Cheap to clone.
#[derive(Clone)]
pub struct Profile {
    config: Arc<ServerConfig>,
}

impl Profile {
    /// What `[server]` asks for; `None`: plain HTTP. One whose certificates did not change since
    /// `previous` goes on, and its tickets with it.
    ///
    /// # Errors
    /// Each certificate, key or CA that can't be used, and why.
    pub fn new(
        server: &Server,
        previous: Option<(&Server, &Profile)>,
    ) -> Result<Option<Profile>, Vec<Problem>> {
        if server.tls.is_empty() {
            return Ok(None);
        }
        if let Some((old, profile)) = previous
            && same(&old.tls, &server.tls)
            && old.client_ca == server.client_ca
        {
            return Ok(Some(profile.clone()));
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let mut problems = Vec::new();
        let mut keys = Vec::new();
        for certificate in &server.tls {
            match certified(certificate, &provider) {
                Ok(key) => keys.push(Arc::new(key)),
                Err(what) => problems.push(problem(Some(certificate.line), "server.tls", what)),
            }
        }
        let verifier = server.client_ca.as_deref().map(|pem| {
            let roots = Arc::new(authorities(pem)?);
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| error.to_string())
        });
        let verifier = verifier.transpose().unwrap_or_else(|what| {
            problems.push(problem(None, "server.client_ca", what));
            None
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| vec![problem(None, "server.tls", error.to_string())])?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Named { keys }));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Without tickets sessions would be kept here, a few hundred of them.
        config.ticketer = crypto::ring::Ticketer::new()
            .map_err(|error| vec![problem(None, "server.tls", error.to_string())])?;
        Ok(Some(Profile { config: Arc::new(config) }))
    }

    /// A session at the start of its handshake.
    ///
    /// # Errors
    /// `Tls`: rustls refused its own configuration.
    pub fn session(&self) -> Result<Session, Fault> {
        ServerConnection::new(self.config.clone())
            .map(|conn| Session { conn: Connection::Server(conn), failed: None })
            .map_err(|_| Fault::Tls)
    }
}

/// Whether these are the same certificates, wherever they stand in the file.
fn same(old: &[Certificate], new: &[Certificate]) -> bool {
    let bytes = |list: &[Certificate], other: &[Certificate]| {
        list.iter().zip(other).all(|(a, b)| a.chain == b.chain && a.key == b.key)
    };
    old.len() == new.len() && bytes(old, new)
}

fn problem(line: Option<usize>, path: &str, what: String) -> Problem {
    Problem { line, path: path.to_owned(), what, hint: String::new() }
}

/// A chain with the key that belongs to it. What is said of a key never holds any of it.
fn certified(
    from: &Certificate,
    provider: &crypto::CryptoProvider,
) -> Result<CertifiedKey, String> {
    let chain = CertificateDer::pem_slice_iter(&from.chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| String::from("the certificate is not PEM"))?;
    let first = chain.first().ok_or("the file holds no certificate")?;
    ParsedCertificate::try_from(first)
        .map_err(|error| format!("the certificate can't be read: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(from.key.expose())
        .map_err(|_| String::from("the private key is not PEM"))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| format!("the private key can't be used with the certificate: {error}"))
}

/// Chooses by the name that the client asks for.
#[derive(Debug)]
struct Named {
    keys: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Named {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let able =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = |key: &&Arc<CertifiedKey>| {
            let parsed = key.cert.first().and_then(|cert| ParsedCertificate::try_from(cert).ok());
            let valid = parsed.zip(name.as_ref()).map(|(c, name)| verify_server_name(&c, name));
            matches!(valid, Some(Ok(())))
        };
        let found = self.keys.iter().filter(able).find(named);
        found.or_else(|| self.keys.iter().find(able)).cloned()
    }
}
