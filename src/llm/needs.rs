//! What a request may need of a model, as a set of bits: the request says which it needs, the catalogue
//! and the config say which a target can do, and one `and` compares them.

use std::fmt;

/// A set of needs, or of abilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Needs(u16);

impl Needs {
    /// No need at all.
    pub const NONE: Needs = Needs(0);
    /// Tools are offered.
    pub const TOOLS: Needs = Needs(1);
    /// Several tool calls at once are asked for outright.
    pub const PARALLEL_TOOLS: Needs = Needs(1 << 1);
    /// A schema must hold to the letter.
    pub const STRICT_SCHEMA: Needs = Needs(1 << 2);
    /// Images come in.
    pub const IMAGE: Needs = Needs(1 << 3);
    /// Sound comes in.
    pub const AUDIO: Needs = Needs(1 << 4);
    /// Documents come in.
    pub const FILE: Needs = Needs(1 << 5);
    /// Reasoning is asked for.
    pub const REASONING: Needs = Needs(1 << 6);
    /// Log-probabilities are asked for.
    pub const LOGPROBS: Needs = Needs(1 << 7);
    /// More than one choice is asked for.
    pub const N: Needs = Needs(1 << 8);
    /// The last turn is the assistant's, to be continued.
    pub const PREFILL: Needs = Needs(1 << 9);

    /// Each need with its name, in the order in which they are listed.
    pub const NAMES: &'static [(&'static str, Needs)] = &[
        ("tools", Needs::TOOLS),
        ("parallel_tools", Needs::PARALLEL_TOOLS),
        ("strict_schema", Needs::STRICT_SCHEMA),
        ("image", Needs::IMAGE),
        ("audio", Needs::AUDIO),
        ("file", Needs::FILE),
        ("reasoning", Needs::REASONING),
        ("logprobs", Needs::LOGPROBS),
        ("n", Needs::N),
        ("prefill", Needs::PREFILL),
    ];

    /// The need of that name.
    pub fn named(name: &str) -> Option<Needs> {
        Needs::NAMES.iter().find(|(known, _)| *known == name).map(|(_, need)| *need)
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Needs) -> Needs {
        Needs(self.0 | other.0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn common(self, other: Needs) -> Needs {
        Needs(self.0 & other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Needs) -> Needs {
        Needs(self.0 & !other.0)
    }

    /// Nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of what is in it, in the order of [`Needs::NAMES`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let has = move |need: Needs| !self.common(need).is_empty();
        Needs::NAMES.iter().filter(move |(_, need)| has(*need)).map(|(name, _)| *name)
    }
}

impl fmt::Display for Needs {
    /// `tools, image`; nothing for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_a_bit_of_its_own() {
        let mut all = Needs::NONE;
        for (name, need) in Needs::NAMES {
            assert_eq!(Needs::named(name), Some(*need));
            assert!(all.common(*need).is_empty(), "{name}");
            all = all.and(*need);
        }
        assert_eq!(all.names().count(), Needs::NAMES.len());
        assert_eq!(Needs::named("vision"), None);
        assert_eq!(Needs::IMAGE.and(Needs::TOOLS).to_string(), "tools, image");
        assert_eq!(all.without(Needs::TOOLS).names().next(), Some("parallel_tools"));
    }
}
