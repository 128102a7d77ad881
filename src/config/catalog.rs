//! The built-in catalogue of models: what is served when there is no config file, and what is known of
//! a model that a config names. Data, in `config/catalog.toml`, parsed once.
//!
//! ```text
//! provider (kind, host of base_url) -> vendor -> (vendor, upstream model) -> Facts
//! ```
//!
//! A model that is not in it works all the same: nothing is known of it, and everything is assumed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::Kind;
use crate::llm::needs::Needs;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Chat completions.
    #[default]
    Chat,
    /// Embeddings.
    Embedding,
}

impl Use {
    /// The name in the catalogue.
    pub const fn name(self) -> &'static str {
        match self {
            Use::Chat => "chat",
            Use::Embedding => "embedding",
        }
    }
}

/// US dollars for a million tokens. What is not known of the cache costs as much as other input.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Price {
    /// Prompt tokens.
    pub input: f64,
    /// Tokens of the answer, reasoning included.
    pub output: f64,
    /// Prompt tokens that the vendor's cache held.
    pub cached: Option<f64>,
    /// Prompt tokens written to that cache.
    pub write: Option<f64>,
}

impl Price {
    /// What a request costs, in US dollars; `cached` of its `prompt` tokens were in the cache.
    pub fn of(&self, prompt: u32, cached: u32, output: u32) -> f64 {
        let cached = cached.min(prompt);
        let fresh = f64::from(prompt - cached) * self.input;
        let held = f64::from(cached) * self.cached.unwrap_or(self.input);
        (fresh + held + f64::from(output) * self.output) * 1e-6
    }

    /// What an answer cost, in billionths of a US dollar: its prompt's tokens that were fresh, read from
    /// the cache and written to it, and its own.
    pub fn charge(&self, fresh: u64, cached: u64, written: u64, output: u64) -> u64 {
        let cost = fresh as f64 * self.input
            + cached as f64 * self.cached.unwrap_or(self.input)
            + written as f64 * self.write.unwrap_or(self.input)
            + output as f64 * self.output;
        // Dollars for a million are thousands of billionths for one. What no number can be is 0.
        (cost * 1e3).round() as u64
    }
}

/// What is known of a target's model. Nothing is required to be.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Facts {
    /// Tokens of prompt and answer together.
    pub context: Option<u32>,
    /// Tokens of one answer.
    pub output: Option<u32>,
    /// What it costs.
    pub price: Option<Price>,
    /// What it is for.
    pub r#use: Option<Use>,
    /// What it is known to do.
    pub can: Needs,
    /// What it is known not to do. What is in neither set is assumed possible.
    pub cannot: Needs,
}

/// `[catalog."PROVIDER/MODEL"]`: what a config says of a model, over what the catalogue knows.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct FactsPatch {
    /// Tokens of prompt and answer together.
    pub context: Option<u32>,
    /// Tokens of one answer.
    pub output: Option<u32>,
    /// US dollars for a million prompt tokens.
    pub price_in: Option<f64>,
    /// For a million tokens of the answer.
    pub price_out: Option<f64>,
    /// For a million prompt tokens out of the cache.
    pub price_cached: Option<f64>,
    /// For a million prompt tokens into the cache.
    pub price_cache_write: Option<f64>,
    /// Known to do this.
    pub can: Needs,
    /// Known not to do this.
    pub cannot: Needs,
}

impl Facts {
    /// Of a model that nobody knows.
    pub const NOTHING: Facts = Facts {
        context: None,
        output: None,
        price: None,
        r#use: None,
        can: Needs::NONE,
        cannot: Needs::NONE,
    };

    /// These facts with what `patch` says replaced. One price given makes a price; what it leaves out of
    /// input and output is 0 where nothing was known.
    #[must_use]
    pub fn with(&self, patch: &FactsPatch) -> Facts {
        let prices = [patch.price_in, patch.price_out, patch.price_cached, patch.price_cache_write];
        let is_priced = self.price.is_some() || prices.iter().any(Option::is_some);
        let old = self.price.unwrap_or_default();
        let price = Price {
            input: patch.price_in.unwrap_or(old.input),
            output: patch.price_out.unwrap_or(old.output),
            cached: patch.price_cached.or(old.cached),
            write: patch.price_cache_write.or(old.write),
        };
        Facts {
            context: patch.context.or(self.context),
            output: patch.output.or(self.output),
            price: is_priced.then_some(price),
            r#use: self.r#use,
            can: self.can.without(patch.cannot).and(patch.can),
            cannot: self.cannot.without(patch.can).and(patch.cannot),
        }
    }
}

/// One model of one vendor.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The vendor.
    pub vendor: String,
    /// The model's name there.
    pub model: String,
    /// What it is for.
    pub r#use: Use,
    /// What is known of it.
    pub facts: Facts,
    /// The vendor's page, or `unverified`.
    pub source: String,
    /// Where the figures were read; empty for nowhere.
    pub via: String,
    /// When, as `YYYY-MM-DD`.
    pub date: String,
}

/// Every entry, in the order of the file.
pub fn entries() -> &'static [Entry] {
    &catalogue().entries
}

/// The models of the vendor whose own API `kind` is.
pub fn of(kind: Kind) -> impl Iterator<Item = &'static Entry> {
    let vendor = own_vendor(kind);
    entries().iter().filter(move |entry| Some(entry.vendor.as_str()) == vendor)
}

/// Every vendor.
pub fn vendors() -> impl Iterator<Item = &'static str> {
    catalogue().vendors.keys().map(String::as_str)
}

/// Whose models a provider serves, by the host of its base URL, else by its kind. A kind that others
/// speak too says nothing by itself.
pub fn vendor_of(kind: Kind, host: &str) -> Option<&'static str> {
    let fits = |known: &String| match known.strip_prefix('.') {
        Some(_) => host.ends_with(known.as_str()),
        None => host == known,
    };
    let by_host = catalogue().vendors.iter().find(|(_, vendor)| vendor.hosts.iter().any(fits));
    match by_host {
        Some((name, _)) => Some(name),
        None if kind == Kind::Openai => None,
        None => own_vendor(kind),
    }
}

/// What is known of a vendor's model. A dated name (`-2024-08-06`, `-20250929`) that is not listed itself
/// is the name without its date.
pub fn find(vendor: &str, model: &str) -> Option<&'static Entry> {
    let all = catalogue();
    let exact = |name: &str| {
        let index = all.by_name.get(vendor)?.get(name)?;
        all.entries.get(*index)
    };
    exact(model).or_else(|| exact(undated(model)?))
}

fn own_vendor(kind: Kind) -> Option<&'static str> {
    let own = |(name, vendor): &(&'static String, &Vendor)| {
        *name == kind.name() || vendor.kinds.iter().any(|known| known == kind.name())
    };
    catalogue().vendors.iter().find(own).map(|(name, _)| name.as_str())
}

/// A name without the date at its end.
fn undated(model: &str) -> Option<&str> {
    let shapes: [&[u8]; 2] = [b"-dddd-dd-dd", b"-dddddddd"];
    shapes.iter().find_map(|shape| {
        let at = model.len().checked_sub(shape.len())?;
        let (name, date) = (model.get(..at)?, model.get(at..)?);
        let fits = date.bytes().zip(*shape).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte == *other,
        });
        (fits && !name.is_empty()).then_some(name)
    })
}

struct Catalogue {
    vendors: BTreeMap<String, Vendor>,
    entries: Vec<Entry>,
    by_name: BTreeMap<String, BTreeMap<String, usize>>,
}

fn catalogue() -> &'static Catalogue {
    static ALL: OnceLock<Catalogue> = OnceLock::new();
    ALL.get_or_init(|| {
        // The text is part of the binary and a test parses it, so the fallback is never taken.
        let (vendors, entries) = match toml::from_str::<File>(TEXT) {
            Ok(file) => file.read(),
            Err(_) => (BTreeMap::new(), Vec::new()),
        };
        let mut by_name: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            by_name.entry(entry.vendor.clone()).or_default().insert(entry.model.clone(), index);
        }
        Catalogue { vendors, entries, by_name }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vendors: BTreeMap<String, Vendor>,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vendor {
    #[serde(default)]
    kinds: Vec<String>,
    hosts: Vec<String>,
    #[serde(default, deserialize_with = "words")]
    can: Needs,
    #[serde(default, deserialize_with = "words")]
    cannot: Needs,
    /// About `can` and `cannot`, for a person.
    #[serde(default, rename = "source")]
    _source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    vendor: String,
    source: String,
    #[serde(default)]
    via: String,
    date: String,
    models: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    r#use: Use,
    context: Option<u32>,
    output: Option<u32>,
    r#in: Option<f64>,
    #[serde(default)]
    out: f64,
    cached: Option<f64>,
    write: Option<f64>,
    #[serde(default, deserialize_with = "words")]
    can: Needs,
    #[serde(default, deserialize_with = "words")]
    cannot: Needs,
}

fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Needs, D::Error> {
    let text = String::deserialize(from)?;
    text.split_whitespace().try_fold(Needs::NONE, |all, word| {
        let need =
            Needs::named(word).ok_or_else(|| D::Error::custom(format!("no ability {word}")))?;
        Ok(all.and(need))
    })
}

impl File {
    fn read(self) -> (BTreeMap<String, Vendor>, Vec<Entry>) {
        let mut entries = Vec::new();
        for group in self.groups {
            let vendor = self.vendors.get(&group.vendor);
            let (all_can, all_cannot) =
                vendor.map(|vendor| (vendor.can, vendor.cannot)).unwrap_or_default();
            for row in group.models {
                let price =
                    |input| Price { input, output: row.out, cached: row.cached, write: row.write };
                let facts = Facts {
                    context: row.context,
                    output: row.output,
                    price: row.r#in.map(price),
                    r#use: Some(row.r#use),
                    can: row.can.and(all_can.without(row.cannot)),
                    cannot: row.cannot.and(all_cannot.without(row.can)),
                };
                entries.push(Entry {
                    vendor: group.vendor.clone(),
                    model: row.name,
                    r#use: row.r#use,
                    facts,
                    source: group.source.clone(),
                    via: group.via.clone(),
                    date: group.date.clone(),
                });
            }
        }
        (self.vendors, entries)
    }
}

const TEXT: &str = include_str!("../../config/catalog.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_parses_and_is_sound() {
        let file: File = toml::from_str(TEXT).expect("config/catalog.toml");
        for (name, vendor) in &file.vendors {
            let is_kind = |kind: &String| Kind::NAMES.iter().any(|(known, _)| known == kind);
            assert!(vendor.kinds.iter().all(is_kind), "{name}");
        }
        assert!(file.groups.iter().all(|group| file.vendors.contains_key(&group.vendor)));
        assert!(entries().len() >= 150, "{}", entries().len());
        for (index, entry) in entries().iter().enumerate() {
            let (name, facts) = (&entry.model, entry.facts);
            let twin = |other: &Entry| other.vendor == entry.vendor && other.model == *name;
            assert!(!entries()[..index].iter().any(twin), "{name} stands twice");
            assert!(facts.can.common(facts.cannot).is_empty(), "{name}");
            assert!(facts.output.unwrap_or(0) <= facts.context.unwrap_or(u32::MAX), "{name}");
            assert!(entry.r#use == Use::Chat || facts.output.is_none(), "{name}");
            let price = facts.price.expect(name);
            let all = [Some(price.input), Some(price.output), price.cached, price.write];
            assert!(all.iter().flatten().all(|p| (0.0..1_000.0).contains(p)), "{name}");
            assert!(price.cached.is_none_or(|cached| cached <= price.input), "{name}");
            assert!(entry.source == "unverified" || entry.source.starts_with("https://"), "{name}");
            assert_eq!(entry.source == "unverified", entry.via.is_empty(), "{name}");
            assert_eq!(entry.date.len(), 10, "{name}");
        }
    }

    #[test]
    fn every_vendor_that_is_spoken_to_has_models() {
        for vendor in vendors() {
            assert!(entries().iter().any(|entry| entry.vendor == vendor), "{vendor}");
        }
        assert!(vendors().count() >= 17);
    }

    #[test]
    fn a_provider_is_known_by_its_host_then_by_its_kind() {
        for (kind, host, vendor) in [
            (Kind::Openai, "api.openai.com", Some("openai")),
            (Kind::Openai, "api.groq.com", Some("groq")),
            (Kind::Openai, "my.openai.azure.com", Some("azure")),
            (Kind::Openai, "openai.azure.com.evil.example", None),
            (Kind::Openai, "127.0.0.1", None),
            (Kind::Anthropic, "proxy.internal", Some("anthropic")),
            (Kind::AZURE, "proxy.internal", Some("azure")),
            (Kind::Responses, "proxy.internal", None),
        ] {
            assert_eq!(vendor_of(kind, host), vendor, "{host}");
        }
    }

    #[test]
    fn dated_names_are_found_without_their_date() {
        let name = |vendor, model| find(vendor, model).map(|entry| entry.model.as_str());
        assert_eq!(name("openai", "gpt-4o-2024-08-06"), Some("gpt-4o"));
        assert_eq!(name("anthropic", "claude-sonnet-4-5-20250929"), Some("claude-sonnet-4-5"));
        assert_eq!(name("openai", "gpt-4o-2024-08-6x"), None);
        assert_eq!(name("groq", "gpt-4o"), None);
        assert_eq!(undated("-20250929"), None);
    }

    #[test]
    fn a_price_counts_the_cache() {
        let price = Price { input: 2.0, output: 10.0, cached: Some(0.5), write: None };
        assert!((price.of(1_000_000, 0, 100_000) - 3.0).abs() < 1e-9);
        assert!((price.of(1_000_000, 500_000, 0) - 1.25).abs() < 1e-9);
        assert!((price.of(10, 20, 0) - 5e-6).abs() < 1e-12, "never more cached than there is");
        let plain = Price { cached: None, ..price };
        assert!((plain.of(1_000_000, 500_000, 0) - 2.0).abs() < 1e-9);
    }
}
