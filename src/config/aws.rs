//! What only providers at AWS have: a region, which makes their address, and a pair of keys that requests
//! are signed with. A provider has a key, or a pair, or neither; never both.

use std::sync::Arc;

use super::raw::{Node, Place, Reader, Section};
use super::text::{self, Wrong};
use super::{BaseUrl, Kind, Lookup, Ref, check};
use crate::base::secret::AwsKeys;

/// Stands in the base URL of a kind that has one for each region.
const REGION: &str = "{region}";
const REGION_HINT: &str = "add region = \"us-east-1\"";
/// Regions have up to fourteen letters.
const REGION_BYTES_MAX: usize = 32;

/// `region`, as far as it was written.
pub(super) enum Region {
    Missing,
    /// It is no region; that was said.
    Wrong,
    Named(String),
}

/// Takes `region`.
pub(super) fn region(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    kind: Option<Kind>,
) -> Region {
    let Some(node) = section.take("region") else { return Region::Missing };
    let Some(name) = reader.string(&node, "as in \"us-east-1\"") else { return Region::Wrong };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > REGION_BYTES_MAX || !name.bytes().all(plain) {
        reader.wrong(&node.place, Wrong::new("not a region", "as in \"us-east-1\""));
        return Region::Wrong;
    }
    if let Some(kind) = kind.filter(|kind| !kind.base_url().contains(REGION)) {
        let what = format!("providers of kind {:?} have no regions", kind.name());
        reader.wrong(&node.place, Wrong::new(what, "remove region"));
        return Region::Wrong;
    }
    Region::Named(name.to_owned())
}

/// The vendor's own base URL, in the region.
pub(super) fn base_url(
    reader: &mut Reader<'_>,
    place: &Place,
    kind: Kind,
    region: &Region,
) -> Option<BaseUrl> {
    let usual = kind.base_url();
    if !usual.contains(REGION) {
        return text::base_url(usual).ok();
    }
    match region {
        Region::Named(name) => text::base_url(&usual.replace(REGION, name)).ok(),
        Region::Missing => {
            let hint = format!("{REGION_HINT}, or base_url");
            reader.wrong(place, Wrong::new("region is missing", hint));
            None
        }
        Region::Wrong => None,
    }
}

/// What else the provider has.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub(super) kind: Option<Kind>,
    /// `key` or `keys`.
    pub(super) key: bool,
    pub(super) base_url: bool,
}

/// Takes `access_key`, `secret_key` and `session_token`.
pub(super) fn keys(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    place: &Place,
    given: Given,
    region: &Region,
) -> Option<Arc<AwsKeys>> {
    let nodes = ["access_key", "secret_key", "session_token"].map(|name| section.take(name));
    let first = nodes.iter().flatten().next()?.clone();
    let [access, secret, token] = &nodes;
    let mut read =
        |node: &Option<Node<'_>>| node.as_ref().and_then(|node| check::secret(reader, node));
    let (access_key, secret_key, session_token) = (read(access), read(secret), read(token));
    if let Some(kind) = given.kind.filter(|kind| !kind.signs()) {
        let what = format!("requests to providers of kind {:?} are not signed", kind.name());
        reader.wrong(&first.place, Wrong::new(what, "write key = \"env:NAME\" instead"));
        return None;
    }
    if given.key {
        let what = "both a key and a pair of keys are given";
        reader.wrong(&first.place, Wrong::new(what, "keep key, or access_key and secret_key"));
    }
    for (node, what, hint) in [
        (access, "access_key is missing", "add access_key = \"env:AWS_ACCESS_KEY_ID\""),
        (secret, "secret_key is missing", "add secret_key = \"env:AWS_SECRET_ACCESS_KEY\""),
    ] {
        if node.is_none() {
            reader.wrong(&first.place, Wrong::new(what, hint));
        }
    }
    let region = match region {
        Region::Named(name) => name.clone(),
        Region::Wrong => return None,
        Region::Missing => {
            // Without a base URL either, it is missing for that, and was said to be.
            if given.base_url {
                let what = "region is missing: requests are signed for one";
                reader.wrong(place, Wrong::new(what, REGION_HINT));
            }
            return None;
        }
    };
    let (access_key, secret_key) = (access_key?, secret_key?);
    Some(Arc::new(AwsKeys { access_key, secret_key, session_token, region }))
}

/// The lines that AWS's own variables stand for: a region, and `key` or a pair of keys.
pub(super) fn env_credential(key: Option<String>, lookup: Lookup<'_>) -> Option<String> {
    let value = |name: &str| {
        let value = lookup(&Ref::Env(name.to_owned())).ok()?;
        let value = String::from_utf8_lossy(&value).trim_end().to_owned();
        (!value.is_empty()).then_some(value)
    };
    // Without a region nobody can tell where; guessing one would send prompts to another country.
    let region = value("AWS_REGION").or_else(|| value("AWS_DEFAULT_REGION"))?;
    let mut lines = format!("region = {}\n", toml::Value::from(region));
    if let Some(key) = key {
        return Some(lines + &key);
    }
    for (name, variable, needed) in [
        ("access_key", "AWS_ACCESS_KEY_ID", true),
        ("secret_key", "AWS_SECRET_ACCESS_KEY", true),
        ("session_token", "AWS_SESSION_TOKEN", false),
    ] {
        if value(variable).is_some() {
            lines += &format!("{name} = \"env:{variable}\"\n");
        } else if needed {
            return None;
        }
    }
    Some(lines)
}
