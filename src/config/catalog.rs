//! The built-in catalogue of models: what is served when there is no config file, and what is known of
//! a model that a config names. Data, in `config/catalog.toml`; prices will stand there too.

use std::sync::OnceLock;

use serde::Deserialize;

use super::Kind;

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Chat completions.
    Chat,
    /// Embeddings.
    Embedding,
}

/// One model of one vendor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The vendor, by its kind's name.
    pub kind: String,
    /// The model's name there, and ours.
    pub model: String,
    /// What it is for.
    pub r#use: Use,
    /// Tokens of prompt and answer together.
    pub context: u32,
    /// Tokens of one answer; 0 for embeddings.
    pub output: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    models: Vec<Entry>,
}

/// Every entry, in the order of the file.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    // The text is part of the binary and a test parses it, so the fallback is never taken.
    ENTRIES.get_or_init(|| toml::from_str::<File>(TEXT).map(|file| file.models).unwrap_or_default())
}

/// The models of one vendor.
pub fn of(kind: Kind) -> impl Iterator<Item = &'static Entry> {
    entries().iter().filter(move |entry| entry.kind == kind.name())
}

const TEXT: &str = include_str!("../../config/catalog.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_parses_and_is_sound() {
        let file: File = toml::from_str(TEXT).expect("config/catalog.toml");
        assert_eq!(file.models.len(), entries().len());
        assert!(entries().len() > 5);
        for (i, entry) in entries().iter().enumerate() {
            assert!(Kind::names().any(|name| name == entry.kind), "{}", entry.kind);
            assert_eq!(entry.output == 0, entry.r#use == Use::Embedding, "{}", entry.model);
            assert!(entry.output <= entry.context, "{}", entry.model);
            assert!(!entries()[..i].iter().any(|e| e.model == entry.model), "{}", entry.model);
        }
    }
}
