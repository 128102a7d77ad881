//! Providers whose address says more than a host: Azure's resource and version, Vertex' project and
//! location, and the service account that Vertex is called with.
//!
//! ```text
//! kind = "azure"    base_url = "https://r.openai.azure.com"    api_version = "2024-10-21"
//!                   -> /openai, ?api-version=2024-10-21
//! kind = "vertex"   project = "p"    location = "europe-west1"
//!                   -> europe-west1-aiplatform.googleapis.com /v1/projects/p/locations/europe-west1
//! ```

use serde::Deserialize;

use super::raw::{Node, Place, Reader, Section};
use super::text::{self, Wrong};
use super::{BaseUrl, Kind, Ref, ServiceAccount};
use crate::base::secret::Secret;

/// What a section says beside its base URL.
pub(super) struct Cloud<'a> {
    api_version: Option<Node<'a>>,
    project: Option<Node<'a>>,
    location: Option<Node<'a>>,
    account: Option<Node<'a>>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Placed {
    pub(super) base: Option<BaseUrl>,
    pub(super) api_version: Option<String>,
    pub(super) account: Option<ServiceAccount>,
}

/// What else is known of the provider.
pub(super) struct Around<'a> {
    pub(super) place: &'a Place,
    pub(super) kind: Option<Kind>,
    /// As the section has it, or the kind's own.
    pub(super) base: Option<BaseUrl>,
    pub(super) has_base_url: bool,
    pub(super) has_key: bool,
}

impl<'a> Cloud<'a> {
    pub(super) fn take(section: &mut Section<'a>) -> Cloud<'a> {
        Cloud {
            api_version: section.take("api_version"),
            project: section.take("project"),
            location: section.take("location"),
            account: section.take("service_account"),
        }
    }

    /// Puts it together; a key of another kind is a problem.
    pub(super) fn place(&self, reader: &mut Reader<'_>, around: Around<'_>) -> Placed {
        let kind = around.kind;
        for (node, owner) in [
            (&self.api_version, Kind::AZURE),
            (&self.project, Kind::Vertex),
            (&self.location, Kind::Vertex),
            (&self.account, Kind::Vertex),
        ] {
            let Some(node) = node.as_ref().filter(|_| kind != Some(owner)) else { continue };
            // Without a kind, that is problem enough.
            if reader.string(node, "").is_some() && kind.is_some() {
                let what = format!("only kind {:?} has this", owner.name());
                reader.wrong(&node.place, Wrong::new(what, "remove it"));
            }
        }
        match kind {
            Some(Kind::AZURE) => self.azure(reader, around),
            Some(Kind::Vertex) => self.vertex(reader, around),
            _ => Placed { base: around.base, ..Placed::default() },
        }
    }

    fn azure(&self, reader: &mut Reader<'_>, around: Around<'_>) -> Placed {
        if !around.has_base_url {
            let hint = "add base_url = \"https://NAME.openai.azure.com\", your resource's address";
            reader.wrong(around.place, Wrong::new("base_url is missing", hint));
        }
        let version = self.api_version.as_ref().map_or(Some("v1"), |node| {
            let version = reader.string(node, VERSION_HINT)?;
            let known = version == "v1" || is_dated(version);
            if !known {
                let what = format!("{version:?} is no version");
                reader.wrong(&node.place, Wrong::new(what, VERSION_HINT));
            }
            known.then_some(version)
        });
        let base = around.base.map(|mut base| {
            let root = base.path.trim_end_matches("/v1").trim_end_matches("/openai");
            base.path = format!("{root}/openai{}", if version == Some("v1") { "/v1" } else { "" });
            base
        });
        let api_version = version.filter(|version| *version != "v1").map(str::to_owned);
        Placed { base, api_version, account: None }
    }

    fn vertex(&self, reader: &mut Reader<'_>, around: Around<'_>) -> Placed {
        let account = self.account.as_ref().and_then(|node| account(reader, node));
        match (&self.account, around.has_key) {
            (Some(node), true) => {
                let what = "both key and service_account are given";
                reader.wrong(&node.place, Wrong::new(what, "keep one of them"));
            }
            (None, false) => {
                let hint = "add service_account = \"file:PATH\", or key for an API key";
                let what = "there is neither service_account nor key";
                reader.wrong(around.place, Wrong::new(what, hint));
            }
            (Some(_), false) | (None, true) => {}
        }
        let location = self.location.as_ref().map_or(Some("global"), |node| part(reader, node));
        let named = self.project.as_ref().map(|node| part(reader, node).map(str::to_owned));
        let told = || account.as_ref()?.0.clone().map(Some);
        let project = match named.or_else(told) {
            Some(project) => Some(project),
            // An API key knows its project; then no path says it.
            None if around.has_key && self.location.is_none() => None,
            None => {
                // An account that can't be read would have told it.
                if self.account.is_none() || account.is_some() {
                    let hint = "add project = \"NAME\", the project that is billed";
                    reader.wrong(around.place, Wrong::new("project is missing", hint));
                }
                Some(None)
            }
        };
        let base = location.and_then(|location| {
            let base = match around.base {
                Some(base) => base,
                None if around.has_base_url => return None,
                None => at(location),
            };
            match project {
                None => Some(base),
                Some(None) => None,
                Some(Some(project)) => {
                    let path = format!("{}/projects/{project}/locations/{location}", base.path);
                    Some(BaseUrl { path, ..base })
                }
            }
        });
        Placed { base, api_version: None, account: account.map(|(_, account)| account) }
    }
}

/// Where a location is served.
fn at(location: &str) -> BaseUrl {
    let host = match location {
        "global" => String::from("aiplatform.googleapis.com"),
        // These are not one place but several.
        "us" | "eu" => format!("aiplatform.{location}.rep.googleapis.com"),
        _ => format!("{location}-aiplatform.googleapis.com"),
    };
    BaseUrl { tls: true, host, port: 443, path: String::from("/v1") }
}

const VERSION_HINT: &str = "\"v1\", or a date as in \"2024-10-21\" or \"2025-04-01-preview\"";

fn is_dated(version: &str) -> bool {
    let date = version.strip_suffix("-preview").unwrap_or(version).as_bytes();
    date.len() == 10
        && date.iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        })
}

/// A name that becomes part of host and path.
fn part<'a>(reader: &mut Reader<'_>, node: &Node<'a>) -> Option<&'a str> {
    let value = reader.string(node, "")?;
    if is_part(value, node.place.path.ends_with("project")) {
        return Some(value);
    }
    let what = format!("{value:?} can't stand in an address");
    reader.wrong(&node.place, Wrong::new(what, "letters, digits and -"));
    None
}

fn is_part(value: &str, is_project: bool) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    // Projects of old domains: `example.com:name`.
    let fits = |b: u8| plain(b) || (is_project && b".:".contains(&b));
    value.bytes().next().is_some_and(plain) && value.len() <= 63 && value.bytes().all(fits)
}

/// The fields of the key file that a console hands out.
#[derive(Deserialize)]
struct KeyFile {
    r#type: Option<String>,
    project_id: Option<String>,
    private_key_id: Option<String>,
    private_key: String,
    client_email: String,
    token_uri: Option<String>,
}

/// The project that the account says it is of, and the account.
fn account(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<(Option<String>, ServiceAccount)> {
    let hint = "\"file:PATH\" of the account's JSON key, or \"env:NAME\" that holds it";
    let value = reader.string(node, hint)?;
    let Some(reference) = text::reference(value) else {
        reader.wrong(&node.place, Wrong::new("not a reference to a service account", hint));
        return None;
    };
    let bytes = (reader.lookup)(&reference).map_err(|why| {
        let hint = match &reference {
            Ref::Env(name) => format!("export {name} before the start"),
            Ref::File(_) => "the path is relative to the config file".to_owned(),
        };
        reader.wrong(&node.place, Wrong::new(format!("{reference}: {why}"), hint));
    });
    let bytes = Secret::new(bytes.ok()?);
    let mut wrong = |what: &str, hint: &str| {
        reader.wrong(&node.place, Wrong::new(format!("{reference} {what}"), hint));
        None
    };
    // What the parser says may quote the key.
    let Ok(file) = serde_json::from_slice::<KeyFile>(bytes.expose()) else {
        return wrong(
            "holds no service account",
            "the JSON key, with client_email and private_key",
        );
    };
    let key = Secret::new(file.private_key);
    if file.r#type.as_deref().is_some_and(|kind| kind != "service_account") {
        return wrong("is a credential of another type", "only service accounts are spoken for");
    }
    if !key.expose().starts_with(b"-----BEGIN ") || file.client_email.is_empty() {
        return wrong("has no private key in PEM", "create a new JSON key for the account");
    }
    let url = file.token_uri.as_deref().unwrap_or(TOKEN_URL);
    let Ok(token_url) = text::base_url(url) else {
        return wrong(
            "has a token_uri that is no URL",
            "as in \"https://oauth2.googleapis.com/token\"",
        );
    };
    if !token_url.tls && !is_loopback(&token_url.host) {
        return wrong("has a token_uri without TLS", "only https, or http on loopback");
    }
    let (email, key_id) = (file.client_email, file.private_key_id);
    let project = file.project_id.filter(|project| is_part(project, true));
    Some((project, ServiceAccount { email, key_id, key, token_url }))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
