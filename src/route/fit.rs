//! Whether a target can serve a request: what it can do against what is needed, its window and its output
//! limit against an estimate. What is not known is assumed possible, unless the request forbids that.

use std::borrow::Cow;
use std::fmt;

use super::plan::Wish;
use crate::config::catalog::Use;
use crate::config::{Facts, Fate, Fates, Needs};

/// Why a target can't serve a request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Lack {
    /// What is needed and known to be impossible.
    pub cannot: Needs,
    /// What is needed and not known to be possible, where the request requires its parameters.
    pub unsure: Needs,
    /// Tokens that prompt and answer need at least, and the window that is smaller.
    pub window: Option<(u32, u32)>,
    /// Tokens of the answer asked for, and the limit that is lower.
    pub output: Option<(u32, u32)>,
    /// Embeddings are asked of a model that chats, or the other way round.
    pub purpose: bool,
    /// Parameters that its adapter can't put into its format.
    pub refuses: Vec<Cow<'static, str>>,
    /// Parameters that it would go without, where the request requires them.
    pub drops: Vec<Cow<'static, str>>,
}

impl Lack {
    fn is_nothing(&self) -> bool {
        *self == Lack::default()
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        if self.purpose {
            parts.push("it is for something else".to_owned());
        }
        if !self.cannot.is_empty() {
            parts.push(format!("it lacks {}", self.cannot));
        }
        if !self.unsure.is_empty() {
            parts.push(format!("not known to have {}, which is required", self.unsure));
        }
        if let Some((needed, window)) = self.window {
            parts.push(format!("its window of {window} tokens is too small for {needed}"));
        }
        if let Some((asked, limit)) = self.output {
            parts.push(format!("its answers end at {limit} tokens, {asked} are asked for"));
        }
        if !self.refuses.is_empty() {
            parts.push(format!("it can't serve {}", self.refuses.join(", ")));
        }
        if !self.drops.is_empty() {
            parts.push(format!("it drops {}, which is required", self.drops.join(", ")));
        }
        f.write_str(&parts.join("; "))
    }
}

/// What `facts` lack for `wish`, whose parameters fare like `fates`; `None`: nothing that is known of.
pub fn lack(facts: &Facts, wish: &Wish, fates: &Fates) -> Option<Lack> {
    let needs = wish.demand.needs;
    let asked = wish.demand.output;
    let least = wish.demand.least().saturating_add(asked.unwrap_or(0));
    let over = |needed: u32, limit: Option<u32>| {
        limit.filter(|limit| needed > *limit).map(|limit| (needed, limit))
    };
    let faring = |wanted: Fate| {
        let names = fates.iter().filter(|(_, fate)| *fate == wanted);
        names.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let embedding = facts.r#use == Some(Use::Embedding);
    let lack = Lack {
        cannot: needs.common(facts.cannot),
        unsure: if wish.require { needs.without(facts.can.and(facts.cannot)) } else { Needs::NONE },
        // The texts of one request for embeddings have a window each.
        window: if embedding { None } else { over(least, facts.context) },
        output: asked.and_then(|asked| over(asked, facts.output)),
        purpose: wish.purpose.is_some_and(|purpose| facts.r#use.is_some_and(|own| own != purpose)),
        refuses: faring(Fate::Incompatible),
        drops: if wish.require { faring(Fate::Dropped) } else { Vec::new() },
    };
    (!lack.is_nothing()).then_some(lack)
}

/// What is needed and neither known to be possible nor to be impossible.
pub fn assumed(facts: &Facts, wish: &Wish) -> Needs {
    wish.demand.needs.without(facts.can).without(facts.cannot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Demand;

    fn facts() -> Facts {
        Facts {
            context: Some(128_000),
            output: Some(16_384),
            can: Needs::TOOLS,
            cannot: Needs::IMAGE,
            r#use: Some(Use::Chat),
            ..Facts::default()
        }
    }

    fn lack(facts: &Facts, wish: &Wish) -> Option<Lack> {
        super::lack(facts, wish, &Fates::new())
    }

    #[test]
    fn parameters_are_refused_and_if_required_not_dropped() {
        let fates: Fates = vec![
            ("logit_bias".into(), Fate::Incompatible),
            ("seed".into(), Fate::Dropped),
            ("stop".into(), Fate::Adapted),
        ];
        let asked = wish(Needs::NONE, 1, None);
        let text = super::lack(&facts(), &asked, &fates).unwrap().to_string();
        assert_eq!(text, "it can't serve logit_bias");
        assert_eq!(super::lack(&facts(), &asked, &fates[1..].to_vec()), None);
        let required = Wish { require: true, ..asked };
        let text = super::lack(&facts(), &required, &fates[1..].to_vec()).unwrap().to_string();
        assert_eq!(text, "it drops seed, which is required");
        assert_eq!(super::lack(&facts(), &required, &fates[2..].to_vec()), None);
    }

    fn wish(needs: Needs, prompt: u32, output: Option<u32>) -> Wish<'static> {
        Wish { demand: Demand { needs, prompt, output, ..Demand::default() }, ..Wish::default() }
    }

    #[test]
    fn what_is_unknown_is_assumed_unless_it_is_required() {
        let audio = wish(Needs::AUDIO.and(Needs::TOOLS), 10, None);
        assert_eq!(lack(&facts(), &audio), None);
        assert_eq!(assumed(&facts(), &audio), Needs::AUDIO);
        let required = Wish { require: true, ..audio };
        let text = lack(&facts(), &required).unwrap().to_string();
        assert_eq!(text, "not known to have audio, which is required");
        assert_eq!(lack(&Facts::default(), &wish(Needs::IMAGE, 9_000_000, Some(9))), None);
    }

    #[test]
    fn every_lack_is_told() {
        let all = lack(&facts(), &wish(Needs::IMAGE, 200_000, Some(20_000))).unwrap();
        assert_eq!(all.cannot, Needs::IMAGE);
        assert_eq!(all.output, Some((20_000, 16_384)));
        assert!(all.window.is_some_and(|(needed, window)| needed > window));
        let text = all.to_string();
        for part in ["lacks image", "128000", "20000 are asked"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn two_hundred_thousand_tokens_do_not_fit_128k() {
        assert!(lack(&facts(), &wish(Needs::NONE, 200_000, None)).is_some());
        assert!(lack(&facts(), &wish(Needs::NONE, 120_000, None)).is_none());
        let with_answer = wish(Needs::NONE, 170_000, Some(16_000));
        assert!(lack(&facts(), &with_answer).is_some(), "prompt and answer share the window");
    }

    #[test]
    fn a_model_for_embeddings_does_not_chat() {
        let embedding = Facts { r#use: Some(Use::Embedding), ..facts() };
        let chat = Wish { purpose: Some(Use::Chat), ..wish(Needs::NONE, 1, None) };
        assert!(lack(&embedding, &chat).unwrap().purpose);
        assert!(lack(&Facts::default(), &chat).is_none());
        let many = Wish { purpose: Some(Use::Embedding), ..wish(Needs::NONE, 500_000, None) };
        assert!(lack(&embedding, &many).is_none());
    }
}
