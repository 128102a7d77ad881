//! Nodes to a checked config. Names are collected first, so that a reference may point forward; then
//! every section is read, and whatever is wrong is recorded and read as absent. A config comes out only
//! if nothing at all was wrong.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

use super::aws::{self, Given};
use super::catalog;
use super::cloud::{Around, Cloud};
use super::models::{Known, known_model, model, passthrough, route};
use super::raw::{self, Node, Reader, Section};
use super::settings::{self, Level};
use super::text::{self, Wrong};
use super::tls;
use super::{
    BaseUrl, Config, Driver, GatewayKey, HalfClose, Kind, LedgerTo, Log, Lookup, Patch, Problem,
    Provider, Ref, Server, Settings,
};
use crate::base::limits;
use crate::base::secret::Secret;
use crate::base::tick::Ms;

const MIB: usize = 1 << 20;

pub(super) fn load(text: &str, lookup: Lookup<'_>) -> Result<Config, Vec<Problem>> {
    let document = raw::parse(text).map_err(|problem| vec![problem])?;
    let reader = &mut Reader::new(text, lookup);
    let mut top = reader.top(document.get_ref());

    let patch = match top.take("defaults").and_then(|node| reader.section(node, &[raw::SETTINGS])) {
        Some(mut section) => settings::patch(reader, &mut section, Level::Defaults),
        None => Patch::default(),
    };
    let providers = named(reader, top.take("providers"));
    let models = named(reader, top.take("models"));
    let routes = named(reader, top.take("routes"));
    let known = Known::new(&providers, &models);
    if providers.is_empty() {
        let hint = "add [providers.openai] with kind and key";
        reader.missing("providers", Wrong::new("no provider is configured", hint));
    }
    let auth = top.take("auth").map(|node| auth(reader, node));
    let config = Config {
        server: server(reader, top.take("server"), auth.is_some()),
        auth: auth.unwrap_or_default(),
        providers: providers.into_iter().filter_map(|at| provider(reader, at)).collect(),
        models: models.into_iter().filter_map(|at| model(reader, &known, at)).collect(),
        routes: routes.into_iter().filter_map(|at| route(reader, &known, at)).collect(),
        settings: Settings::default().with(&patch),
        catalog: named(reader, top.take("catalog"))
            .into_iter()
            .filter_map(|at| known_model(reader, &known, at))
            .collect(),
        passthrough: top.take("passthrough").and_then(|node| passthrough(reader, &known, node)),
        log: top.take("log").and_then(|node| log(reader, node)).unwrap_or_default(),
    };
    let problems = reader.take_problems();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Writes the config that the environment stands for and loads it, so that it passes the same checks.
pub(super) fn from_env(lookup: Lookup<'_>) -> Result<Option<Config>, Vec<Problem>> {
    let mut text = String::new();
    // Vendors that serve one model under one name are its targets, in the order of the kinds.
    let mut models: Vec<(&str, Vec<String>)> = Vec::new();
    let mut used: Vec<&str> = Vec::new();
    for (name, kind) in Kind::NAMES.iter().filter(|(_, kind)| kind.sends()) {
        // Some kinds usually want no key, some are at another address for each customer, and of several APIs of
        // one vendor the first is meant.
        let variable = kind.key_variable();
        if variable.is_empty() || kind.base_url().is_empty() || used.contains(&variable) {
            continue;
        }
        used.push(kind.key_variable());
        let Some(credential) = env_credential(*kind, lookup) else { continue };
        if text.is_empty() {
            text = format!("passthrough.provider = \"{name}\"\n");
        }
        text += &format!("[providers.{name}]\nkind = \"{name}\"\n{credential}");
        for entry in catalog::of(*kind) {
            let target = format!("{:?}", format!("{name}/{}", entry.model));
            match models.iter_mut().find(|(model, _)| *model == entry.model) {
                Some((_, targets)) => targets.push(target),
                None => models.push((&entry.model, vec![target])),
            }
        }
    }
    for (model, targets) in models {
        text += &format!("[models.{model:?}]\ntargets = [{}]\n", targets.join(", "));
    }
    if text.is_empty() { Ok(None) } else { load(&text, lookup).map(Some) }
}

/// The lines that a provider's usual variables stand for; `None` if they are not set.
fn env_credential(kind: Kind, lookup: Lookup<'_>) -> Option<String> {
    // Set to nothing is how a variable is unset in a container's environment.
    let is_set =
        |name: &str| lookup(&Ref::Env(name.to_owned())).is_ok_and(|value| !value.is_empty());
    let key = Some(kind.key_variable()).filter(|name| is_set(name));
    let key = key.map(|name| format!("key = \"env:{name}\"\n"));
    if !kind.signs() {
        return key;
    }
    aws::env_credential(key, lookup)
}

/// The entries of a table whose keys are names.
fn named<'a>(reader: &mut Reader<'_>, node: Option<Node<'a>>) -> Vec<(String, Node<'a>)> {
    let section = node.and_then(|node| reader.names(node));
    section.map(Section::into_entries).unwrap_or_default()
}

fn server(reader: &mut Reader<'_>, node: Option<Node<'_>>, has_auth: bool) -> Server {
    let mut server = Server::default();
    let Some(mut section) = node.and_then(|node| reader.section(node, &[raw::SERVER])) else {
        return server;
    };
    let admin = section.take("admin");
    if let Some(node) = &admin {
        server.admin = match reader.string(node, ADDRESS_HINT) {
            Some("off") | None => None,
            Some(text) => address(reader, node, text),
        };
    }
    let clients = section.take("listen");
    if let Some(node) = &clients {
        server.listen = listen(reader, node, has_auth);
    }
    // Either may be a default, so the one that is written is at fault.
    if let (Some(node), Some(at)) = (admin.as_ref().or(clients.as_ref()), server.admin)
        && server.listen.iter().any(|listen| conflict(*listen, at))
    {
        let hint = "clients and admin need ports of their own; admin is 127.0.0.1:9090 by default";
        let what = format!("server.listen and server.admin overlap at {at}");
        reader.wrong(&node.place, Wrong::new(what, hint));
    }
    numbers(reader, &mut section, &mut server);
    let (certificates, client_ca) = (section.take("tls"), section.take("client_ca"));
    tls::server(reader, &mut server, certificates, client_ca);
    server
}

fn numbers(reader: &mut Reader<'_>, section: &mut Section<'_>, server: &mut Server) {
    let cores = section.take("cores").and_then(|node| reader.integer(&node, 0, 1024));
    set(&mut server.cores, cores.map(|cores| cores as u16));
    set(
        &mut server.driver,
        section.take("driver").and_then(|node| reader.choice(&node, Driver::NAMES)),
    );
    let connections =
        section.take("connections_max").and_then(|node| reader.integer(&node, 1, u32::MAX));
    set(&mut server.connections_max, connections.map(Some));
    for (key, most) in [
        ("connections_per_client", &mut server.connections_per_client),
        ("in_flight_max", &mut server.in_flight_max),
    ] {
        let count = section.take(key).and_then(|node| reader.integer(&node, 1, u32::MAX));
        set(most, count.map(Some));
    }
    let memory = section.take("memory_max").and_then(|node| reader.bound(&node));
    set(&mut server.memory_max, memory.map(Some));
    let lag = section.take("lag_max").and_then(|node| reader.duration_or_off(&node));
    set(&mut server.lag_max, lag);
    let rate = section.take("rate_min").and_then(|node| reader.size(&node, 0, MIB));
    set(&mut server.rate_min, rate);
    let rate = section.take("read_rate_min").and_then(|node| reader.size(&node, 0, MIB));
    set(&mut server.read_rate_min, rate);
    let half = section.take("half_close");
    let half = half.and_then(|node| reader.choice(&node, HalfClose::NAMES));
    set(&mut server.half_close, half);
    let notice = section.take("drain_notice").and_then(|node| reader.duration_or_off(&node));
    set(&mut server.drain_notice, notice);
    let head = section.take("head_max").and_then(|node| reader.size(&node, 1024, MIB));
    set(&mut server.head_max, head);
    let body = section.take("body_max").and_then(|node| reader.size(&node, 1024, 1024 * MIB));
    set(&mut server.body_max, body);
    for (key, time) in [
        ("drain", &mut server.drain),
        ("head_timeout", &mut server.head_timeout),
        ("body_timeout", &mut server.body_timeout),
        ("rate_grace", &mut server.rate_grace),
        ("keep_alive", &mut server.keep_alive),
        ("write_timeout", &mut server.write_timeout),
    ] {
        set(time, section.take(key).and_then(|node| reader.duration(&node)));
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

const ADDRESS_HINT: &str = "write an address and a port, as in \"127.0.0.1:8080\"";

fn address(reader: &mut Reader<'_>, node: &Node<'_>, text: &str) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let what = format!("{text:?} is not a socket address");
        reader.wrong(&node.place, Wrong::new(what, ADDRESS_HINT));
    }
    parsed
}

fn listen(reader: &mut Reader<'_>, node: &Node<'_>, has_auth: bool) -> Vec<SocketAddr> {
    let items = reader.items(node, "as in [\"127.0.0.1:8080\"]").unwrap_or_default();
    if items.is_empty() && node.is_empty_array() {
        reader.wrong(&node.place, Wrong::new("no address to listen on", ADDRESS_HINT));
    }
    let mut list: Vec<SocketAddr> = Vec::new();
    for item in items {
        let Some(text) = reader.string(&item, ADDRESS_HINT) else { continue };
        let Some(at) = address(reader, &item, text) else { continue };
        if list.iter().any(|other| conflict(*other, at)) {
            let what = format!("{at} overlaps an address before it");
            reader.wrong(&item.place, Wrong::new(what, "remove one of them"));
        }
        if !has_auth && !at.ip().is_loopback() {
            let hint = "add [auth] with keys, or listen on 127.0.0.1";
            let what = format!("{at} is not loopback and there is no [auth]");
            reader.wrong(&item.place, Wrong::new(what, hint));
        }
        list.push(at);
    }
    list
}

/// Whether two listeners would fight for one port. Port 0 is a new port each time.
fn conflict(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip()
        || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() != 0 && a.port() == b.port() && same_ip
}

fn auth(reader: &mut Reader<'_>, node: Node<'_>) -> Vec<GatewayKey> {
    let place = node.place.clone();
    let Some(mut section) = reader.section(node, &[raw::AUTH]) else { return Vec::new() };
    let hint = "as in keys = [{ name = \"app\", key = \"env:FIRSTBYTE_KEY\" }]";
    let Some(keys) = section.take("keys") else {
        reader.wrong(&place, Wrong::new("there are no keys", hint));
        return Vec::new();
    };
    let items = reader.items(&keys, hint).unwrap_or_default();
    if items.is_empty() && keys.is_empty_array() {
        reader.wrong(&keys.place, Wrong::new("there are no keys", hint));
    }
    let mut list: Vec<GatewayKey> = Vec::new();
    for item in items {
        let place = item.place.clone();
        let Some(key) = gateway_key(reader, item) else { continue };
        if list.iter().any(|other| other.name == key.name) {
            let what = format!("the name {:?} is used twice", key.name);
            reader.wrong(&place, Wrong::new(what, "names tell keys apart in the log"));
        } else if let Some(other) = list.iter().find(|other| other.sha256 == key.sha256) {
            let what = format!("the same key as {:?}", other.name);
            reader.wrong(&place, Wrong::new(what, "remove one of them"));
        }
        list.push(key);
    }
    list
}

fn gateway_key(reader: &mut Reader<'_>, node: Node<'_>) -> Option<GatewayKey> {
    let place = node.place.clone();
    let mut section = reader.section(node, &[raw::AUTH_KEY])?;
    let name = match section.take("name") {
        Some(node) => plain_name(reader, &node),
        None => {
            reader.wrong(&place, Wrong::new("the key has no name", "add name = \"app\""));
            None
        }
    };
    let in_flight_max = section.take("in_flight_max");
    let in_flight_max = in_flight_max.and_then(|node| reader.integer(&node, 1, u32::MAX));
    let sha256 = match (section.take("sha256"), section.take("key")) {
        (Some(_), Some(node)) => {
            let hint = "keep one of them";
            reader.wrong(&node.place, Wrong::new("both sha256 and key are given", hint));
            None
        }
        (None, None) => {
            let hint = "add key = \"env:NAME\" or sha256 = \"64 hex digits\"";
            reader.wrong(&place, Wrong::new("there is neither sha256 nor key", hint));
            None
        }
        (None, Some(node)) => {
            let secret = secret(reader, &node)?;
            Some(Sha256::digest(secret.expose()).into())
        }
        (Some(node), None) => {
            let digits = reader.string(&node, "64 hex digits")?;
            let hash = text::sha256(digits);
            if hash.is_none() {
                let hint = "printf %s \"$KEY\" | sha256sum";
                reader.wrong(&node.place, Wrong::new("not the 64 hex digits of a SHA-256", hint));
            }
            hash
        }
    };
    Some(GatewayKey { name: name?.into(), sha256: sha256?, in_flight_max })
}

fn plain_name(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let name = reader.string(node, "")?;
    if !text::is_plain_name(name) {
        reader.wrong(&node.place, Wrong::new("not a usable name", PLAIN_HINT));
        return None;
    }
    Some(name.to_owned())
}

const PLAIN_HINT: &str = "letters, digits, - _ and . only, at most 64 of them";

/// Resolves a reference to a secret. What was written is echoed only if it is a reference.
pub(super) fn secret(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Secret> {
    let hint = "write \"env:NAME\" or \"file:PATH\"; secrets never stand in the file";
    let value = reader.string(node, hint)?;
    let Some(reference) = text::reference(value) else {
        reader.wrong(&node.place, Wrong::new("not a reference to a secret", hint));
        return None;
    };
    let bytes = resolve(reader, node, &reference)?;
    let end = bytes.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |last| last + 1);
    let secret = Secret::new(&bytes[..end]);
    drop(Secret::new(bytes));
    if secret.is_empty() {
        let hint = "set it to the key, or remove this line";
        reader.wrong(&node.place, Wrong::new(format!("{reference} is empty"), hint));
        return None;
    }
    if !secret.expose().iter().all(u8::is_ascii_graphic) {
        let what = format!("{reference} holds something that can't be sent in a header");
        reader.wrong(&node.place, Wrong::new(what, "a key is visible ASCII without spaces"));
        return None;
    }
    Some(secret)
}

fn resolve(reader: &mut Reader<'_>, node: &Node<'_>, reference: &Ref) -> Option<Vec<u8>> {
    match (reader.lookup)(reference) {
        Ok(bytes) => Some(bytes),
        Err(why) => {
            let hint = match reference {
                Ref::Env(name) => format!("export {name} before the start"),
                Ref::File(_) => "the path is relative to the config file".to_owned(),
            };
            reader.wrong(&node.place, Wrong::new(format!("{reference}: {why}"), hint));
            None
        }
    }
}

fn provider(reader: &mut Reader<'_>, (name, node): (String, Node<'_>)) -> Option<Provider> {
    let place = node.place.clone();
    if !text::is_plain_name(&name) {
        reader.wrong(&place, Wrong::new("not a usable provider name", PLAIN_HINT));
    }
    let mut section = reader.section(node, &[raw::PROVIDER, raw::SETTINGS])?;
    let kind = match section.take("kind") {
        Some(node) => kind(reader, &node),
        None => {
            reader.wrong(&place, Wrong::new("kind is missing", speaks()));
            None
        }
    };
    let given = Given {
        kind,
        key: section.has("key") || section.has("keys"),
        base_url: section.has("base_url"),
    };
    let region = aws::region(reader, &mut section, kind);
    let written = section.take("base_url");
    let base = match &written {
        Some(node) => {
            let value = reader.string(node, "")?;
            text::base_url(value).map_err(|wrong| reader.wrong(&node.place, wrong)).ok()
        }
        None => kind.and_then(|kind| aws::base_url(reader, &place, kind, &region)),
    };
    let has_key = section.has("key") || section.has("keys");
    let keys = provider_keys(reader, &mut section);
    let aws = aws::keys(reader, &mut section, &place, given, &region);
    let has_base_url = written.is_some();
    let around = Around { place: &place, kind, base, has_base_url, has_key };
    let placed = Cloud::take(&mut section).place(reader, around);
    let responses = responses(reader, &mut section, kind, placed.base.as_ref());
    let ca = section.take("ca").and_then(|node| ca(reader, &node, placed.base.as_ref()));
    let vendor = section.take("vendor").and_then(|node| {
        let names: Vec<_> = catalog::vendors().map(|name| (name, name)).collect();
        reader.choice(&node, &names)
    });
    let settings = settings::patch(reader, &mut section, Level::Provider);
    Some(Provider {
        name,
        kind: kind?,
        base: placed.base?,
        keys,
        aws,
        account: placed.account,
        api_version: placed.api_version,
        responses,
        ca,
        vendor,
        settings,
    })
}

/// Whether a provider of chat has the Responses API too. OpenAI itself does; copies may.
fn responses(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    kind: Option<Kind>,
    base: Option<&BaseUrl>,
) -> bool {
    let is_openais =
        kind == Some(Kind::Openai) && base.is_some_and(|base| base.host == OPENAI_HOST);
    let Some(node) = section.take("responses") else { return is_openais };
    let can = kind.is_none_or(|kind| kind.may_have_responses());
    if !can {
        let hint = "of kinds that speak OpenAI's chat";
        reader.wrong(&node.place, Wrong::new("this kind has no such API beside its own", hint));
    }
    reader.boolean(&node).unwrap_or(false) && can
}

const OPENAI_HOST: &str = "api.openai.com";

fn speaks() -> String {
    format!("this build speaks: {}", Kind::names().collect::<Vec<_>>().join(", "))
}

fn kind(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Kind> {
    let value = reader.string(node, &speaks())?;
    if let Some((_, kind)) = Kind::NAMES.iter().find(|(name, kind)| *name == value && kind.sends())
    {
        return Some(*kind);
    }
    let hint = match text::nearest(value, Kind::names()) {
        Some(near) => format!("did you mean {near:?}? {}", speaks()),
        None => speaks(),
    };
    reader.wrong(&node.place, Wrong::new(format!("unknown kind {value:?}"), hint));
    None
}

fn provider_keys(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Vec<Secret> {
    match (section.take("key"), section.take("keys")) {
        (None, None) => Vec::new(),
        (Some(node), None) => secret(reader, &node).into_iter().collect(),
        (Some(_), Some(node)) => {
            let hint = "keep one of them";
            reader.wrong(&node.place, Wrong::new("both key and keys are given", hint));
            Vec::new()
        }
        (None, Some(node)) => {
            let items = reader.items(&node, "as in [\"env:KEY_A\", \"env:KEY_B\"]");
            let mut keys: Vec<Secret> = Vec::new();
            for item in items.unwrap_or_default() {
                let Some(key) = secret(reader, &item) else { continue };
                if keys.contains(&key) {
                    let hint = "remove one of them";
                    reader.wrong(&item.place, Wrong::new("the same key twice", hint));
                }
                keys.push(key);
            }
            if node.is_empty_array() {
                let hint = "remove keys for a provider that wants none";
                reader.wrong(&node.place, Wrong::new("there are no keys", hint));
            }
            keys
        }
    }
}

/// A path (`file:` may stand before it) or `env:NAME`, to PEM text.
fn ca(reader: &mut Reader<'_>, node: &Node<'_>, base: Option<&BaseUrl>) -> Option<Vec<u8>> {
    if base.is_some_and(|base| !base.tls) {
        let hint = "base_url is http; write https or remove ca";
        reader.wrong(&node.place, Wrong::new("a CA without TLS", hint));
    }
    pem(reader, node, "-----BEGIN CERTIFICATE-----", "certificate")
}

/// PEM text that has `mark` in it, by path or reference; `what` says what it should hold.
pub(super) fn pem(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    mark: &str,
    what: &str,
) -> Option<Vec<u8>> {
    let value = reader.string(node, "the path of a PEM file")?;
    let reference = tls::reference(value);
    let bytes = resolve(reader, node, &reference)?;
    if !bytes.windows(mark.len()).any(|window| window == mark.as_bytes()) {
        let hint = format!("a PEM file with {} in it", mark.trim_matches('-'));
        reader.wrong(&node.place, Wrong::new(format!("{reference} holds no {what}"), hint));
        return None;
    }
    Some(bytes)
}

fn log(reader: &mut Reader<'_>, node: Node<'_>) -> Option<Log> {
    let mut section = reader.section(node, &[raw::LOG])?;
    let node = section.take("ledger")?;
    let hint = "\"stdout\", \"off\" or \"file:PATH\"";
    let value = reader.string(&node, hint)?;
    let ledger = match (value, text::reference(value)) {
        ("stdout", _) => LedgerTo::Stdout,
        ("off", _) => LedgerTo::Off,
        (_, Some(Ref::File(path))) => LedgerTo::File(path),
        (_, Some(Ref::Env(_)) | None) => {
            reader.wrong(&node.place, Wrong::new(format!("unknown value {value:?}"), hint));
            return None;
        }
    };
    Some(Log { ledger })
}

impl Default for Server {
    fn default() -> Server {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Server {
            listen: vec![loopback(8080)],
            admin: Some(loopback(9090)),
            cores: 0,
            driver: Driver::Auto,
            head_max: limits::HEAD_BYTES_MAX as u32,
            body_max: limits::BODY_BYTES_MAX as u32,
            drain: Ms(30_000),
            connections_max: None,
            connections_per_client: None,
            in_flight_max: None,
            memory_max: None,
            lag_max: Some(Ms(limits::LAG_MS)),
            head_timeout: Ms(limits::HEAD_MS),
            body_timeout: Ms(limits::BODY_MS),
            rate_min: limits::RATE_BYTES_MIN,
            read_rate_min: limits::READ_RATE_BYTES_MIN,
            rate_grace: Ms(limits::RATE_GRACE_MS),
            keep_alive: Ms(limits::KEEP_ALIVE_MS),
            write_timeout: Ms(limits::WRITE_MS),
            half_close: HalfClose::default(),
            drain_notice: None,
            tls: Vec::new(),
            client_ca: None,
        }
    }
}
