//! The types of routing: what a config compiles to (`Table`), what a request asks for (`Wish`), and
//! what comes of both (`Plan` or `Refusal`).
//!
//! ```text
//! [models.gpt-4o] targets = ["openai/gpt-4o", "azure/prod"]     models   gpt-4o -> lines 0 1 2
//! [providers.openai] keys = [A, B]                         =>   targets  0 openai/gpt-4o    key A
//! [providers.azure]  key  = C                                            1 openai/gpt-4o#2  key B
//!                                                                        2 azure/prod       key C
//!                                                                        3 openai/*         key A ..
//! ```
//!
//! A target is one provider, one upstream model and one credential, however many models name it, so
//! that its health is known in one place. What a model or route overrides is in the `Line`s that lead
//! to the target, not in the target.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::affinity::Affinity;
use super::budget::Budget;
use super::fit::Lack;
use super::health::Breaker;
use super::rank::By;
use super::speed::Speed;
use super::token::Token;
use crate::base::ids::{EndpointId, ModelId, ProviderId, Table as Rows, TargetId};
use crate::base::secret::{AwsKeys, Secret};
use crate::base::tick::{Ms, Tick};
use crate::config::catalog::{self, Price, Use};
use crate::config::{Commit, Demand, Facts, Fates, Kind, OnContentPolicy, Policy, Settings};

/// What a config compiles to. Immutable but for the atomics of breakers and budgets.
#[derive(Debug, Default)]
pub struct Table {
    /// Every provider, upstream model and credential that can be tried.
    pub targets: Rows<TargetId, Target>,
    /// Every provider, with the ids of the config.
    pub providers: Rows<ProviderId, ProviderRow>,
    /// Every distinct host, port and TLS identity.
    pub endpoints: Rows<EndpointId, Endpoint>,
    /// Every model of the config, with its ids.
    pub models: Rows<ModelId, ModelRow>,
    /// Every route, in the order of the config.
    pub routes: Vec<RouteRow>,
    /// Models by name.
    pub(super) model_by_name: BTreeMap<Arc<str>, ModelId>,
    /// Routes by name, as index into `routes`.
    pub(super) route_by_name: BTreeMap<Arc<str>, usize>,
    /// Providers by name.
    pub(super) provider_by_name: BTreeMap<Arc<str>, ProviderId>,
    /// The lines of a configured target by `provider/upstream-model`.
    pub(super) direct_by_name: BTreeMap<Arc<str>, Vec<Line>>,
    /// `firstbyte/auto` and its like: routes over every model, unless the config has one of that name.
    pub(super) built_in: Vec<RouteRow>,
    /// What the config says of models, over what the catalogue knows.
    pub(super) facts_by_name: BTreeMap<(ProviderId, Arc<str>), Facts>,
    /// Breakers of routes that have a rule of their own.
    pub own_breakers: Vec<OwnBreaker>,
    /// Which target served a conversation last.
    pub affinity: Affinity,
    /// Where requests go that name no model.
    pub passthrough: Option<ProviderId>,
}

impl Table {
    /// What `/v1/models` lists: models, then routes, each in the order of the config.
    pub fn model_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.models.iter().map(|(_, row)| &row.name).chain(self.routes.iter().map(|row| &row.name))
    }

    /// The breaker that an attempt is begun and ended with.
    pub fn breaker(&self, attempt: &Attempt) -> &Breaker {
        self.breaker_at(attempt.target, attempt.own)
    }

    pub(super) fn breaker_at(&self, target: TargetId, own: Option<u16>) -> &Breaker {
        let own = own.and_then(|index| self.own_breakers.get(usize::from(index)));
        own.map_or(&*self.targets[target].breaker, |own| &*own.breaker)
    }

    /// What the attempt's model costs, if that is known.
    pub fn price_of(&self, attempt: &Attempt) -> Option<Price> {
        let target = &self.targets[attempt.target];
        match target.model {
            Some(_) => target.facts.price,
            None => self.facts_of(target.provider, &attempt.model).price,
        }
    }

    /// What is known of a model that the config does not name.
    pub(super) fn facts_of(&self, provider: ProviderId, model: &Arc<str>) -> &Facts {
        const NOTHING: &Facts = &Facts::NOTHING;
        if let Some(facts) = self.facts_by_name.get(&(provider, model.clone())) {
            return facts;
        }
        let vendor = self.providers[provider].vendor;
        let entry = vendor.and_then(|vendor| catalog::find(vendor, model));
        entry.map_or(NOTHING, |entry| &entry.facts)
    }
}

/// The breaker of a target in a route that has a rule of its own.
#[derive(Clone, Debug)]
pub struct OwnBreaker {
    /// The route.
    pub route: Arc<str>,
    /// The target's name.
    pub target: Arc<str>,
    /// Kept over reloads.
    pub breaker: Arc<Breaker>,
}

/// One provider, one upstream model, one credential.
#[derive(Clone, Debug)]
pub struct Target {
    /// `openai/gpt-4o`, unique; `openai/gpt-4o#2` for the provider's second key; `openai/*` for models
    /// that only the request names. What ledger, log and metrics say.
    pub name: Arc<str>,
    /// The provider.
    pub provider: ProviderId,
    /// Where it is.
    pub endpoint: EndpointId,
    /// The upstream model; `None`: the request names it.
    pub model: Option<Arc<str>>,
    /// The credential; `None`: none is sent.
    pub key: Option<Secret>,
    /// Which of the provider's keys it is, from 0.
    pub key_index: u16,
    /// What is known of the model.
    pub facts: Facts,
    /// Its health, shared by all cores and kept over reloads.
    pub breaker: Arc<Breaker>,
    /// How fast the model is there, whatever the key; shared and kept likewise.
    pub speed: Arc<Speed>,
}

/// A provider, compiled.
#[derive(Clone, Debug)]
pub struct ProviderRow {
    /// Its name.
    pub name: Arc<str>,
    /// The API that it speaks.
    pub kind: Kind,
    /// Where it is.
    pub endpoint: EndpointId,
    /// The value of the `Host` field.
    pub authority: Arc<str>,
    /// The path prefix without trailing slash.
    pub path: Arc<str>,
    /// Whose models it serves, in the catalogue's words.
    pub vendor: Option<&'static str>,
    /// What its requests are signed with; its targets have no keys then.
    pub aws: Option<Arc<AwsKeys>>,
    /// The dated version of Azure's API.
    pub api_version: Option<Arc<str>>,
    /// It has OpenAI's Responses API beside chat.
    pub responses: bool,
    /// Where its access tokens are published, if it takes such instead of keys.
    pub token: Option<Arc<Token>>,
    /// Its extra attempts, shared by all cores and kept over reloads.
    pub budget: Arc<Budget>,
    /// Targets for models that only the request names, one for each key.
    pub(super) wildcard: Vec<Line>,
}

impl ProviderRow {
    /// Whether it takes access tokens and has none that is good.
    pub fn lacks_token(&self, now: Tick) -> bool {
        self.token.as_ref().is_some_and(|token| !token.is_good(now))
    }
}

/// A host, port and TLS identity: what a connection pool is keyed by. Two providers share one only if
/// all four fields are equal, so a connection that was verified against one CA is never used for
/// another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// PEM text of the CA trusted instead of the built-in roots.
    pub ca: Option<Arc<[u8]>>,
}

/// One way from a name to a target, with the settings resolved for that way.
#[derive(Clone, Debug)]
pub struct Line {
    /// The target, with the provider's first key.
    pub target: TargetId,
    /// Target over route over model over provider over defaults.
    pub settings: Arc<Settings>,
    /// Its breaker among the table's `own_breakers`, where a route has another rule than the target.
    pub(super) own: Option<u16>,
}

/// A model, compiled.
#[derive(Clone, Debug)]
pub struct ModelRow {
    /// Its name.
    pub name: Arc<str>,
    /// Its targets in order, the keys of one target side by side.
    pub lines: Vec<Line>,
    /// What is tried after it.
    pub fallbacks: Vec<ModelId>,
}

/// A route, compiled.
#[derive(Clone, Debug)]
pub struct RouteRow {
    /// Its name.
    pub name: Arc<str>,
    /// How they are ranked.
    pub policy: Policy,
    /// Their weights, where the policy has them.
    pub weights: Vec<u32>,
    /// Its models in order, each with lines that have the route's overrides in them.
    pub models: Vec<(ModelId, Vec<Line>)>,
}

/// `provider.max_price`: US dollars for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxPrice {
    /// Of the prompt.
    pub prompt: f64,
    /// Of the answer.
    pub output: f64,
}

/// What one request asks of routing, read from its body and headers.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// `model`; empty if the request named none.
    pub model: Arc<str>,
    /// `models`: tried after `model`; if that is empty the first of them is the model.
    pub models: Vec<String>,
    /// `provider.order`: these providers first, in this order, within each model.
    pub order: Vec<String>,
    /// `provider.only`: no other provider, unless empty.
    pub only: Vec<String>,
    /// `provider.ignore`: none of these providers.
    pub ignore: Vec<String>,
    /// `provider.allow_fallbacks`. False: with `order`, only the providers in it; without, only the
    /// first target of the first model (with any of its provider's keys).
    pub allow_fallbacks: bool,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// `x-firstbyte-commit`.
    pub commit: Option<Commit>,
    /// `x-firstbyte-deadline-ms`.
    pub deadline: Option<Ms>,
    /// What the request demands of a target.
    pub demand: Demand,
    /// `provider.sort`: over every policy.
    pub sort: Option<By>,
    /// `provider.max_price`.
    pub max_price: Option<MaxPrice>,
    /// `provider.require_parameters`: what is not known to be possible is not assumed.
    pub require: bool,
    /// What the model must be for, where the request tells.
    pub purpose: Option<Use>,
    /// A request whose path or body names no model: goes to the table's `passthrough` provider.
    pub passthrough: bool,
    /// Who knows how its parameters fare with a kind's model.
    pub judge: Judge<'a>,
}

/// Who tells how the parameters of a request fare with a model of a kind of provider. Nobody: they are of
/// no account for the plan.
#[derive(Clone, Copy, Default)]
pub struct Judge<'a>(pub Option<&'a Asked<'a>>);

/// How parameters fare with a kind's model.
pub type Asked<'a> = dyn Fn(Kind, &str) -> Fates + 'a;

impl std::fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Judge" } else { "Nobody" })
    }
}

impl Default for Wish<'_> {
    fn default() -> Wish<'static> {
        Wish {
            model: Arc::default(),
            models: Vec::new(),
            order: Vec::new(),
            only: Vec::new(),
            ignore: Vec::new(),
            allow_fallbacks: true,
            stream: false,
            commit: None,
            deadline: None,
            demand: Demand::default(),
            sort: None,
            max_price: None,
            require: false,
            purpose: None,
            passthrough: false,
            judge: Judge::default(),
        }
    }
}

/// One entry of a plan: whom to ask, under which name, with which time-outs, and why it stands there.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Whom.
    pub target: TargetId,
    /// The model's name upstream; empty for a passthrough without model.
    pub model: Arc<str>,
    /// The name that the client may ask again: the config's model, or `provider/upstream-model`.
    pub shown: Arc<str>,
    /// Why it stands where it does.
    pub why: Why,
    /// Tokens of prompt and answer that the model takes, if that is known.
    pub window: Option<u32>,
    /// From dial to a usable connection.
    pub connect: Ms,
    /// From the start of the attempt to the head; non-streamed: `answer`.
    pub head: Ms,
    /// From the start of the attempt to the first content; non-streamed: `answer`.
    pub first: Ms,
    /// Between two content events; non-streamed: `answer`.
    pub idle: Ms,
    /// The whole of a non-streamed answer; `Ms::MAX` for a stream.
    pub answer: Ms,
    /// Content events a second; 0: off, and for non-streamed answers.
    pub floor: u32,
    /// Silent for this long, the next attempt starts beside it; streams only.
    pub hedge: Option<Ms>,
    /// Its breaker among `own_breakers`, where a route has another rule than the target.
    pub(super) own: Option<u16>,
}

/// Why an attempt stands where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The first target of the model.
    Primary,
    /// Another target of the model.
    Target,
    /// The same target with another of the provider's keys.
    Credential,
    /// A target of a fallback model, or of a later model of a route.
    Fallback,
    /// A target of a model from the request's `models`.
    Asked,
    /// Moved to the front by the request's `provider.order`.
    Ordered,
    /// Ranked by the policy of its route, or by the request's sort.
    Ranked,
    /// Put first by its policy to be measured again.
    Explored,
    /// It served this conversation last: its prompt cache is warm.
    Warm,
    /// Moved to the end: its breaker is open.
    MovedOpen,
    /// Moved to the end: it asked to be left alone.
    MovedCooling,
    /// Moved to the end: there is no access token for it.
    MovedNoToken,
}

impl Why {
    /// The stable short name, `[a-z_]`.
    pub const fn name(self) -> &'static str {
        match self {
            Why::Primary => "primary",
            Why::Target => "target",
            Why::Credential => "credential",
            Why::Fallback => "fallback",
            Why::Asked => "asked",
            Why::Ordered => "ordered",
            Why::Ranked => "ranked",
            Why::Explored => "explored",
            Why::Warm => "warm",
            Why::MovedOpen => "moved_open",
            Why::MovedCooling => "moved_cooling",
            Why::MovedNoToken => "moved_no_token",
        }
    }

    /// A phrase for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Why::Primary => "first target of the model",
            Why::Target => "next target of the model",
            Why::Credential => "same target, another key",
            Why::Fallback => "fallback model",
            Why::Asked => "named in the request's models",
            Why::Ordered => "put first by the request's provider.order",
            Why::Ranked => "by its rank",
            Why::Explored => "tried first to be measured again",
            Why::Warm => "served this conversation last: its cache is warm",
            Why::MovedOpen => "moved to the end: its breaker is open",
            Why::MovedCooling => "moved to the end: cooling down",
            Why::MovedNoToken => "moved to the end: no access token",
        }
    }
}

/// The whole plan of one exchange. Never empty, never longer than `PLAN_ATTEMPTS_MAX`, never twice the
/// same provider, upstream model and key.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In order.
    pub attempts: SmallVec<[Attempt; 4]>,
    /// What holds for the exchange, whichever attempt is under way.
    pub rules: Rules,
}

impl Plan {
    /// No attempt at all, under the built-in rules: for answers of the gateway's own.
    pub fn none() -> Plan {
        let built_in = Settings::default();
        Plan {
            attempts: SmallVec::new(),
            rules: Rules {
                commit: built_in.commit,
                hold_max: built_in.hold_max_under(built_in.commit),
                answer_max: built_in.answer_max,
                open_after: None,
                deadline: built_in.total_timeout,
                total: built_in.total_timeout,
                on_content_policy: built_in.on_content_policy,
                replay: built_in.replay,
            },
        }
    }
}

/// Exchange-wide rules: the settings of the plan's first attempt, with the request's own overrides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// What releases a stream.
    pub commit: Commit,
    /// Bytes held before commit.
    pub hold_max: u32,
    /// Bytes held of a non-streamed answer.
    pub answer_max: u32,
    /// Two-phase opening; streams only.
    pub open_after: Option<Ms>,
    /// From the start of the plan to commit. The client's own, else `first_content_deadline` for a
    /// stream and `total` for a non-streamed answer; never above `total`.
    pub deadline: Ms,
    /// The whole exchange.
    pub total: Ms,
    /// What follows a content-policy refusal by status.
    pub on_content_policy: OnContentPolicy,
    /// Whether a stale reused connection is replaced once.
    pub replay: bool,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No model, route or provider of that name.
    UnknownModel,
    /// `only`, `ignore`, `allow_fallbacks` and `max_price` leave nothing.
    NothingLeft,
    /// No target can serve the request: each of those that it allows, with what it lacks.
    Unfit(Vec<(Arc<str>, Lack)>),
    /// Every candidate asked to be left alone.
    Cooling {
        /// Until the first of them may be tried again; 1 ms or more.
        retry_after: Ms,
        /// 429 if any of them cools because of one, else 503.
        status: u16,
    },
}
