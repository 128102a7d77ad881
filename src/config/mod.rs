//! F3: text to checked values. No files, no environment: the text and a lookup function come in.
//!
//! A config goes through three steps, each in a file of its own: `raw` reads TOML into nodes that
//! know their line and path, `check` turns nodes into the types below and collects *every* problem on
//! the way, and the routing floor compiles the result into tables. Nothing here resolves a name,
//! opens a socket or decides who is tried.
//!
//! ```text
//! [providers.openai]            Provider { name: "openai", kind: Openai, base: https api.openai.com
//! kind = "openai"          ->     443 "/v1", keys: [Secret(..)], .. }
//! key = "env:OPENAI_API_KEY"    or  line 3: providers.openai.key: OPENAI_API_KEY is not set (...)
//! ```
//!
//! Invariants of a [`Config`] that was given out: every id in it exists, every model has a target,
//! names are unique, time-outs are above zero, every secret came by reference, and a listener that is
//! not on loopback has keys.

mod aws;
pub mod catalog;
mod check;
mod cloud;
mod models;
mod raw;
mod settings;
mod text;
mod tls;
mod values;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::ids::{ModelId, ProviderId, Table};
use crate::base::secret::{AwsKeys, Secret};
use crate::base::tick::Ms;

pub use crate::llm::demand::Demand;
pub use crate::llm::needs::Needs;
pub use crate::llm::providers::Kind;
pub use crate::llm::quirks::{Fate, Fates};
pub use catalog::{Facts, FactsPatch, Price};
pub use tls::Certificate;
pub use values::{
    BreakerRule, BudgetRule, Commit, Driver, Hedge, OnContentPolicy, Patch, Patience, Policy,
    Settings,
};

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[auth] keys`; empty: the gateway is open, and listens on loopback only.
    pub auth: Vec<GatewayKey>,
    /// `[providers.NAME]`, in the order of the file.
    pub providers: Table<ProviderId, Provider>,
    /// `[models.NAME]`, in the order of the file.
    pub models: Table<ModelId, Model>,
    /// `[routes.NAME]`, in the order of the file.
    pub routes: Vec<Route>,
    /// `[defaults]` over the built-in defaults.
    pub settings: Settings,
    /// `[catalog."PROVIDER/MODEL"]`, in the order of the file.
    pub catalog: Vec<KnownModel>,
    /// `[passthrough] provider`: where `/v1` paths go whose body names no model.
    pub passthrough: Option<ProviderId>,
    /// `[log]`.
    pub log: Log,
}

/// `[server]`: the listeners and what a client connection may cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where clients connect; at least one, no two alike.
    pub listen: Vec<SocketAddr>,
    /// The admin listener; `None` if `admin = "off"`.
    pub admin: Option<SocketAddr>,
    /// Threads to run; 0: one for every core of the affinity mask.
    pub cores: u16,
    /// Which interface to the kernel.
    pub driver: Driver,
    /// Bytes of one request head.
    pub head_max: u32,
    /// Bytes of one request body.
    pub body_max: u32,
    /// How long open exchanges may run on after SIGTERM.
    pub drain: Ms,
    /// Client connections over all cores; `None`: as many as descriptors allow.
    pub connections_max: Option<u32>,
    /// Client connections of one address (of one /64 in IPv6); `None`: as many as there may be.
    pub connections_per_client: Option<u32>,
    /// Requests under way over all cores, from the whole body to the answer's end; `None`: one for
    /// each connection.
    pub in_flight_max: Option<u32>,
    /// Resident memory in bytes above which new requests with bodies are shed; `None`: four fifths of
    /// what the machine or the container has; `u64::MAX`: never.
    pub memory_max: Option<u64>,
    /// How late an event loop may run before it sheds new requests; `None`: never.
    pub lag_max: Option<Ms>,
    /// How long a client may take for a request head.
    pub head_timeout: Ms,
    /// How long a client may take between two reads of a request body.
    pub body_timeout: Ms,
    /// Bytes a second that a client must send of a head or body, on average; 0: any.
    pub rate_min: u32,
    /// Bytes a second that a client must take of an answer, on average while some wait for it; 0: any.
    pub read_rate_min: u32,
    /// How long a head or body may come below `rate_min`, an answer be read below `read_rate_min`.
    pub rate_grace: Ms,
    /// How long an idle client connection is kept.
    pub keep_alive: Ms,
    /// How long a client may take to accept bytes.
    pub write_timeout: Ms,
    /// What a client's end of sending means while its answer is under way.
    pub half_close: HalfClose,
    /// How long after SIGTERM new connections are still served, while `/readyz` says no; `None`: not.
    pub drain_notice: Option<Ms>,
    /// What clients are spoken TLS to with; empty: plain HTTP.
    pub tls: Vec<Certificate>,
    /// PEM text of the CA that a client's certificate must be of; `None`: clients need none.
    pub client_ca: Option<Vec<u8>>,
}

/// What it means that a client ends its sending direction and keeps the other one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HalfClose {
    /// It went away: its exchange is cancelled. A close looks just the same.
    #[default]
    Cancel,
    /// It waits for its answer. A client that left is noticed by the first write.
    Serve,
}

impl HalfClose {
    /// Every value with its word.
    pub const NAMES: &'static [(&'static str, HalfClose)] =
        &[("cancel", HalfClose::Cancel), ("serve", HalfClose::Serve)];
}

/// A key that clients may present. Only its hash is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayKey {
    /// What log and metrics call it.
    pub name: Arc<str>,
    /// SHA-256 of the key's bytes.
    pub sha256: [u8; 32],
    /// Its requests under way over all cores; `None`: as many as there may be.
    pub in_flight_max: Option<u32>,
}

/// `[providers.NAME]`: one API at one base URL.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name before the slash of a target.
    pub name: String,
    /// Which API it speaks.
    pub kind: Kind,
    /// Where it is.
    pub base: BaseUrl,
    /// Credentials, used in turn; empty: requests carry none.
    pub keys: Vec<Secret>,
    /// What requests are signed with instead.
    pub aws: Option<Arc<AwsKeys>>,
    /// Whom access tokens are asked for, instead of keys.
    pub account: Option<ServiceAccount>,
    /// The dated version of Azure's API; `None`: v1, or another kind.
    pub api_version: Option<String>,
    /// It has OpenAI's Responses API beside chat: clients of that API are passed through.
    pub responses: bool,
    /// PEM text of the CA to trust for this provider instead of the built-in roots.
    pub ca: Option<Vec<u8>>,
    /// Whose models they are in the catalogue, if `vendor` says so.
    pub vendor: Option<&'static str>,
    /// What it overrides of `[defaults]`.
    pub settings: Patch,
}

impl Provider {
    /// What the catalogue and `[catalog]` know of one of its models: `patches` are all of the config's.
    pub fn facts(&self, id: ProviderId, model: &str, patches: &[KnownModel]) -> Facts {
        let vendor = self.vendor.or_else(|| catalog::vendor_of(self.kind, &self.base.host));
        let entry = vendor.and_then(|vendor| catalog::find(vendor, model));
        let facts = entry.map(|entry| entry.facts).unwrap_or_default();
        let patch = patches.iter().find(|known| known.provider == id && known.model == model);
        patch.map_or(facts, |known| facts.with(&known.patch))
    }
}

/// `[catalog."PROVIDER/MODEL"]`: what the config says of one model of one provider.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownModel {
    /// The provider.
    pub provider: ProviderId,
    /// The model's name there.
    pub model: String,
    /// What is said of it.
    pub patch: FactsPatch,
}

/// Who asks for access tokens, and where (RFC 7523).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its name.
    pub email: String,
    /// Which of its keys this is.
    pub key_id: Option<String>,
    /// The private key, PEM text.
    pub key: Secret,
    /// Where tokens are given: https, or http on loopback.
    pub token_url: BaseUrl,
}

/// An `http` or `https` URL without user, query or fragment (RFC 3986 section 3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// `https`.
    pub tls: bool,
    /// Host name, IPv4 address, or IPv6 address without its brackets; lower case.
    pub host: String,
    /// The port; the scheme's own if the URL has none.
    pub port: u16,
    /// The path prefix without trailing slash: `/v1`, or empty.
    pub path: String,
}

impl BaseUrl {
    /// The URL as text, the scheme's own port left out.
    pub fn text(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// The value for a `Host` field (RFC 9110 section 7.2): the port only if it isn't the scheme's
    /// own, IPv6 addresses in brackets.
    pub fn authority(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// `[models.NAME]`: a name that clients may ask for.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name.
    pub name: String,
    /// Who can serve it, in order; at least one.
    pub targets: Vec<TargetSpec>,
    /// Models to try after it, in order, without repeats and without itself.
    pub fallbacks: Vec<ModelId>,
    /// What it overrides of its providers' settings.
    pub settings: Patch,
}

/// One entry of a model's `targets`.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// The provider.
    pub provider: ProviderId,
    /// The model's name there; may contain slashes.
    pub model: String,
    /// What it overrides of its model's settings.
    pub settings: Patch,
}

/// `[routes.NAME]`: a name that stands for several models.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name.
    pub name: String,
    /// How its models are ranked.
    pub policy: Policy,
    /// The models, in order; at least one.
    pub models: Vec<ModelId>,
    /// Their weights, where the policy is `weighted`: one for each model, at least one above 0.
    pub weights: Vec<u32>,
    /// What it overrides of its models' settings.
    pub settings: Patch,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Log {
    /// Where the ledger's lines go.
    pub ledger: LedgerTo,
}

/// `[log] ledger`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LedgerTo {
    /// `"stdout"`: one JSON line for each exchange on standard output.
    #[default]
    Stdout,
    /// `"off"`.
    Off,
    /// `"file:PATH"`: appended to that file.
    File(String),
}

/// Something outside the text that the text refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ref {
    /// `env:NAME`.
    Env(String),
    /// `file:PATH`.
    File(String),
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ref::Env(name) => write!(f, "env:{name}"),
            Ref::File(path) => write!(f, "file:{path}"),
        }
    }
}

/// How the app resolves a [`Ref`]: its bytes, or why not. Trailing line ends are cut from secrets.
pub type Lookup<'a> = &'a dyn Fn(&Ref) -> Result<Vec<u8>, String>;

/// One thing that is wrong with a config. Its text never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; `None` if no line is at fault.
    pub line: Option<usize>,
    /// Which key: `providers.openai.base_url`; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// Reads and checks a config.
///
/// # Errors
/// Every problem of the text at once, in the order of its lines. Text that isn't TOML is one problem.
pub fn load(text: &str, lookup: Lookup<'_>) -> Result<Config, Vec<Problem>> {
    check::load(text, lookup)
}

/// The config without a config file: each provider whose usual key variable is set, with the models of
/// the built-in catalogue. `None` if no key variable is set.
///
/// # Errors
/// A key variable is set to something that can't be a key.
pub fn from_env(lookup: Lookup<'_>) -> Result<Option<Config>, Vec<Problem>> {
    check::from_env(lookup)
}

/// Every key that a config may have, as section and key, for documentation and its tests. A section's
/// `NAME` stands for a name of the file's choice, `[]` for an item of an array; providers, models,
/// targets and routes may have the keys of `defaults` too.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    raw::KEYS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)))
}
