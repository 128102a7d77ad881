//! `[server] tls` and `client_ca`: what clients are spoken TLS to with. PEM text is taken in here; that a
//! key belongs to its certificate is seen where it is used.

use super::check::pem;
use super::raw::{self, Node, Reader};
use super::text::{self, Wrong};
use super::{Ref, Server};
use crate::base::secret::Secret;

/// A certificate chain with its key, for clients that ask for one of its names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The chain as PEM text, the server's own certificate first.
    pub chain: Vec<u8>,
    /// The private key as PEM text.
    pub key: Secret,
    /// The line of the file where it stands, from 1.
    pub line: usize,
}

const FORMS: &str = "as in { cert = \"cert.pem\", key = \"key.pem\" }, or a list of these";
const CHAIN: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "PRIVATE KEY-----";

/// Reads both keys of `[server]`.
pub(super) fn server(
    reader: &mut Reader<'_>,
    server: &mut Server,
    tls: Option<Node<'_>>,
    client_ca: Option<Node<'_>>,
) {
    let has_tls = tls.is_some();
    if let Some(node) = tls {
        let items = if node.is_array() {
            reader.items(&node, FORMS).unwrap_or_default()
        } else {
            vec![node.clone()]
        };
        if items.is_empty() {
            reader.wrong(&node.place, Wrong::new("there are no certificates", FORMS));
        }
        server.tls = items.into_iter().filter_map(|item| certificate(reader, item)).collect();
    }
    if let Some(node) = client_ca {
        if !has_tls {
            let hint = "add tls = { cert = \"cert.pem\", key = \"key.pem\" }";
            reader.wrong(&node.place, Wrong::new("client certificates without tls", hint));
        }
        server.client_ca = pem(reader, &node, CHAIN, "certificate");
    }
}

fn certificate(reader: &mut Reader<'_>, node: Node<'_>) -> Option<Certificate> {
    let place = node.place.clone();
    let mut section = reader.section(node, &[raw::TLS])?;
    let (chain, key) = (section.take("cert"), section.take("key"));
    if chain.is_none() || key.is_none() {
        reader.wrong(&place, Wrong::new("cert and key are both needed", FORMS));
    }
    let chain = chain.and_then(|node| pem(reader, &node, CHAIN, "certificate"));
    let key = key.and_then(|node| pem(reader, &node, KEY, "private key"));
    let line = reader.line(&place);
    Some(Certificate { chain: chain?, key: Secret::new(key?), line })
}

/// What a path of a PEM file refers to; `file:` may stand before it, and `env:NAME` in its place.
pub(super) fn reference(value: &str) -> Ref {
    text::reference(value).unwrap_or_else(|| Ref::File(value.to_owned()))
}
