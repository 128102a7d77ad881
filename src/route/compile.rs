//! A checked config to tables. Total: what `config::load` accepted compiles, but for more rows than an
//! id can count, and for two breaker rules on one target.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::Budget;
use super::health::Breaker;
use super::plan::{Endpoint, Line, ModelRow, OwnBreaker, ProviderRow, RouteRow, Table, Target};
use super::speed::Speed;
use super::token::Token;
use crate::base::ids::{EndpointId, ModelId, ProviderId, TargetId};
use crate::config::{
    Config, Model, Patch, Policy, Problem, Provider, Settings, TargetSpec, catalog,
};

/// Compiles a config. Breakers of `previous` are carried over where name, endpoint and credential are
/// the same (under another rule they start closed, and keep their cool-down), budgets where name and
/// rule are, access tokens where name and account are, measures of speed where name and endpoint are.
///
/// # Errors
/// More providers, targets or models than an id can count; a target with two different breakers.
pub fn compile(config: &Config, previous: Option<&Table>) -> Result<Table, Vec<Problem>> {
    let mut maker = Maker {
        config,
        previous,
        table: Table::default(),
        ids: BTreeMap::new(),
        speeds: BTreeMap::new(),
    };
    let mut problems = Vec::new();
    for (_, provider) in config.providers.iter() {
        maker.provider(provider);
    }
    for (_, model) in config.models.iter() {
        maker.model(model, &mut problems);
    }
    for id in 0..config.providers.len() {
        maker.wildcard(ProviderId(id as u16));
    }
    maker.routes();
    maker.built_in();
    let mut table = maker.table;
    table.passthrough = config.passthrough;
    if let Some(previous) = previous {
        // What kept its breaker is the same target under a new number.
        let is_it = |old: &Target, new: &Target| Arc::ptr_eq(&old.breaker, &new.breaker);
        let new_id = |id: TargetId| {
            let old = previous.targets.get(id)?;
            table.targets.iter().find(|(_, new)| is_it(old, new)).map(|(id, _)| id)
        };
        table.affinity = previous.affinity.carried(new_id);
    }
    let rows = [
        ("providers", table.providers.len()),
        ("models", table.models.len()),
        ("models", table.targets.len()),
    ];
    for (path, count) in rows {
        if count > usize::from(u16::MAX) {
            let hint = format!("at most {} of providers, models, and targets by key", u16::MAX);
            problems.push(problem(path, &format!("too many: {count}"), &hint));
        }
    }
    if problems.is_empty() { Ok(table) } else { Err(problems) }
}

fn problem(path: &str, what: &str, hint: &str) -> Problem {
    Problem { line: None, path: path.into(), what: what.into(), hint: hint.into() }
}

struct Maker<'a> {
    config: &'a Config,
    previous: Option<&'a Table>,
    table: Table,
    /// Targets by provider, upstream model and key: names alone could meet, as `m#2` and key 2 of `m`.
    ids: BTreeMap<(ProviderId, Option<String>, usize), TargetId>,
    /// Measures by provider and upstream model: keys share them.
    speeds: BTreeMap<(ProviderId, Option<String>), Arc<Speed>>,
}

/// The routes that need no config: over every model.
const BUILT_IN: &[(&str, Policy)] = &[
    ("firstbyte/auto", Policy::Balanced),
    ("firstbyte/cheapest", Policy::Cheapest),
    ("firstbyte/fastest", Policy::Fastest),
    ("firstbyte/balanced", Policy::Balanced),
];

impl Maker<'_> {
    fn provider(&mut self, provider: &Provider) {
        let endpoint = self.endpoint(provider);
        let name: Arc<str> = provider.name.as_str().into();
        let rule = self.config.settings.with(&provider.settings).retry_budget;
        let old = self
            .previous
            .and_then(|table| Some(&table.providers[*table.provider_by_name.get(&name)?]));
        let kept = old.and_then(|row| (row.budget.rule() == rule).then(|| row.budget.clone()));
        let token = provider.account.as_ref().map(|account| {
            let kept = old.and_then(|row| row.token.clone());
            let kept = kept.filter(|token| token.account() == account);
            kept.unwrap_or_else(|| Arc::new(Token::new(account.clone())))
        });
        let id = self.table.providers.push(ProviderRow {
            name: name.clone(),
            kind: provider.kind,
            endpoint,
            authority: provider.base.authority().into(),
            path: provider.base.path.as_str().into(),
            vendor: provider
                .vendor
                .or_else(|| catalog::vendor_of(provider.kind, &provider.base.host)),
            aws: provider.aws.clone(),
            api_version: provider.api_version.as_deref().map(Arc::from),
            responses: provider.responses,
            token,
            budget: kept.unwrap_or_else(|| Arc::new(Budget::new(rule))),
            wildcard: Vec::new(),
        });
        self.table.provider_by_name.insert(name, id);
        for known in self.config.catalog.iter().filter(|known| known.provider == id) {
            let facts = provider.facts(id, &known.model, &self.config.catalog);
            self.table.facts_by_name.insert((id, known.model.as_str().into()), facts);
        }
    }

    fn endpoint(&mut self, provider: &Provider) -> EndpointId {
        let base = &provider.base;
        let new = Endpoint {
            host: base.host.as_str().into(),
            port: base.port,
            tls: base.tls,
            ca: provider.ca.as_deref().map(Arc::from),
        };
        let known = self.table.endpoints.iter().find(|(_, row)| **row == new).map(|(id, _)| id);
        known.unwrap_or_else(|| self.table.endpoints.push(new))
    }

    fn model(&mut self, model: &Model, problems: &mut Vec<Problem>) {
        let mut lines = Vec::new();
        for spec in &model.targets {
            let settings = Arc::new(self.settings(spec, model, &Patch::default()));
            let name = self.full_name(spec);
            let own = self.lines(spec.provider, Some(&spec.model), &settings);
            for line in &own {
                if self.table.targets[line.target].breaker.rule() != settings.breaker {
                    let what = format!("{name} has another breaker in another model");
                    let hint = "a target has one breaker: give it the same rule wherever it stands";
                    problems.push(problem(&format!("models.{:?}", model.name), &what, hint));
                    break;
                }
            }
            self.table.direct_by_name.entry(name).or_insert_with(|| own.clone());
            lines.extend(own);
        }
        let name: Arc<str> = model.name.as_str().into();
        let fallbacks = model.fallbacks.clone();
        let id = self.table.models.push(ModelRow { name: name.clone(), lines, fallbacks });
        self.table.model_by_name.insert(name, id);
    }

    fn wildcard(&mut self, id: ProviderId) {
        let settings = Arc::new(self.config.settings.with(&self.config.providers[id].settings));
        self.table.providers[id].wildcard = self.lines(id, None, &settings);
    }

    fn routes(&mut self) {
        for route in &self.config.routes {
            let models = route.models.iter().map(|id| {
                let model = &self.config.models[*id];
                if route.settings == Patch::default() {
                    return (*id, self.table.models[*id].lines.clone());
                }
                let lines = model.targets.iter().flat_map(|spec| {
                    let settings = Arc::new(self.settings(spec, model, &route.settings));
                    let mut lines = self.lines(spec.provider, Some(&spec.model), &settings);
                    lines.iter_mut().for_each(|line| self.own_breaker(&route.name, line));
                    lines
                });
                (*id, lines.collect())
            });
            let models = models.collect();
            let name: Arc<str> = route.name.as_str().into();
            self.table.route_by_name.insert(name.clone(), self.table.routes.len());
            let (policy, weights) = (route.policy, route.weights.clone());
            self.table.routes.push(RouteRow { name, policy, weights, models });
        }
    }

    /// Every target once, under the first model that names it.
    fn built_in(&mut self) {
        let mut seen = std::collections::BTreeSet::new();
        let models: Vec<(ModelId, Vec<Line>)> = self
            .table
            .models
            .iter()
            .map(|(id, row)| {
                let own = row.lines.iter().filter(|line| seen.insert(line.target.0));
                (id, own.cloned().collect())
            })
            .collect();
        self.table.built_in = BUILT_IN
            .iter()
            .map(|(name, policy)| RouteRow {
                name: (*name).into(),
                policy: *policy,
                weights: Vec::new(),
                models: models.clone(),
            })
            .collect();
    }

    /// Gives a route's line a breaker of its own where the route's rule is not the target's.
    fn own_breaker(&mut self, route: &str, line: &mut Line) {
        let (target, rule) = (&self.table.targets[line.target], line.settings.breaker);
        if target.breaker.rule() == rule {
            return;
        }
        let kept = self.previous.and_then(|table| {
            let known = |own: &&OwnBreaker| {
                let old = &own.breaker;
                &*own.route == route && old.rule() == rule && old.is_beside(&target.breaker)
            };
            table.own_breakers.iter().find(known).map(|own| own.breaker.clone())
        });
        let breaker = kept.unwrap_or_else(|| Arc::new(target.breaker.beside(rule)));
        line.own = u16::try_from(self.table.own_breakers.len()).ok();
        let target = target.name.clone();
        self.table.own_breakers.push(OwnBreaker { route: route.into(), target, breaker });
    }

    /// Target over route over model over provider over defaults.
    fn settings(&self, spec: &TargetSpec, model: &Model, route: &Patch) -> Settings {
        let provider = &self.config.providers[spec.provider];
        let base = self.config.settings.with(&provider.settings);
        base.with(&model.settings).with(route).with(&spec.settings)
    }

    fn full_name(&self, spec: &TargetSpec) -> Arc<str> {
        format!("{}/{}", self.config.providers[spec.provider].name, spec.model).into()
    }

    /// The targets of one upstream model, one for each key of the provider; made if they are new.
    fn lines(
        &mut self,
        id: ProviderId,
        model: Option<&str>,
        settings: &Arc<Settings>,
    ) -> Vec<Line> {
        let provider = &self.config.providers[id];
        let keys = provider.keys.len().max(1);
        let mut lines = Vec::with_capacity(keys);
        for index in 0..keys {
            let mut name = format!("{}/{}", provider.name, model.unwrap_or("*"));
            if index > 0 {
                name += &format!("#{}", index + 1);
            }
            let what = (id, model.map(str::to_owned), index);
            let target = match self.ids.get(&what) {
                Some(target) => *target,
                None => {
                    let target = self.target(id, model, index, name.into(), settings);
                    self.ids.insert(what, target);
                    target
                }
            };
            lines.push(Line { target, settings: settings.clone(), own: None });
        }
        lines
    }

    fn target(
        &mut self,
        id: ProviderId,
        model: Option<&str>,
        index: usize,
        name: Arc<str>,
        settings: &Settings,
    ) -> TargetId {
        let provider = &self.config.providers[id];
        let facts = model.map(|model| provider.facts(id, model, &self.config.catalog));
        let mut target = Target {
            name,
            provider: id,
            endpoint: self.table.providers[id].endpoint,
            model: model.map(Arc::from),
            key: provider.keys.get(index).cloned(),
            key_index: u16::try_from(index).unwrap_or(u16::MAX),
            facts: facts.unwrap_or_default(),
            breaker: Arc::new(Breaker::new(settings.breaker)),
            speed: Arc::default(),
        };
        let what = (id, model.map(str::to_owned));
        target.speed = match self.speeds.get(&what) {
            Some(speed) => speed.clone(),
            None => {
                let speed = self.kept_speed(&target).unwrap_or_default();
                self.speeds.insert(what, speed.clone());
                speed
            }
        };
        if let Some(old) = self.kept_breaker(&target) {
            let same_rule = old.rule() == settings.breaker;
            target.breaker = if same_rule { old } else { Arc::new(old.renewed(settings.breaker)) };
        }
        self.table.targets.push(target)
    }

    /// The measures of this target before the reload: same name and place.
    fn kept_speed(&self, target: &Target) -> Option<Arc<Speed>> {
        let previous = self.previous?;
        let same = |old: &Target| old.name == target.name && old.model == target.model;
        let (_, old) = previous.targets.iter().find(|(_, old)| same(old))?;
        let same_place = previous.endpoints[old.endpoint] == self.table.endpoints[target.endpoint];
        same_place.then(|| old.speed.clone())
    }

    /// The breaker that knew this target before the reload: same provider, model, place and credential,
    /// whichever of the provider's keys that was.
    fn kept_breaker(&self, target: &Target) -> Option<Arc<Breaker>> {
        let previous = self.previous?;
        let new = &self.table.providers[target.provider];
        let endpoint = &self.table.endpoints[target.endpoint];
        let same = |old: &Target| {
            let row = &previous.providers[old.provider];
            row.name == new.name
                && old.model == target.model
                && previous.endpoints[old.endpoint] == *endpoint
                && old.key == target.key
                && row.aws == new.aws
        };
        let (_, old) = previous.targets.iter().find(|(_, old)| same(old))?;
        Some(old.breaker.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tick::{Ms, Tick};
    use crate::config;
    use crate::route::health::{Outcome, Standing};
    use crate::route::{Wish, pick};

    const NOW: Tick = Tick(1_000_000_000);

    const TEXT: &str = "[providers.p]\nkind = \"openai\"\nkeys = [\"env:A\", \"env:B\"]\n\
        [models.m]\ntargets = [\"p/m\"]\nhedge_after = \"p95\"\nfirst_content_timeout = \"auto\"\n\
        [routes.touchy]\nmodels = [\"m\"]\nbreaker = { failures = 1 }\n";

    #[test]
    fn a_reload_keeps_who_is_warm() {
        let providers = "[providers.a]\nkind = \"openai\"\nbase_url = \"http://a/v1\"\n\
                         [providers.b]\nkind = \"openai\"\nbase_url = \"http://b/v1\"\n";
        let models = |targets: &str| format!("{providers}[models.m]\ntargets = [{targets}]\n");
        let old = table(&models("\"a/x\", \"b/y\""), None);
        let id = |table: &Table, name: &str| {
            table.targets.iter().find(|(_, target)| &*target.name == name).unwrap().0
        };
        let (thread, gone) = (7 << 40 | 1, 9 << 40 | 2);
        old.affinity.note(thread, id(&old, "b/y"), 5_000, NOW);
        old.affinity.note(gone, id(&old, "a/x"), 5_000, NOW);
        let new = table(&models("\"a/z\", \"a/w\", \"b/y\""), Some(&old));
        assert_ne!(id(&new, "b/y"), id(&old, "b/y"), "it has another number now");
        let warm = new.affinity.warm(thread, NOW).unwrap();
        assert_eq!(warm.target, id(&new, "b/y"));
        assert_eq!(new.affinity.warm(gone, NOW), None, "its target is gone");
    }

    fn table(text: &str, previous: Option<&Table>) -> Table {
        let config = config::load(text, &|reference| Ok(reference.to_string().into_bytes()));
        compile(&config.unwrap(), previous).unwrap()
    }

    fn wish(model: &str) -> Wish<'static> {
        Wish { model: model.into(), stream: true, ..Wish::default() }
    }

    fn fail(table: &Table, model: &str) {
        let plan = pick(table, &wish(model), 0, NOW).unwrap();
        let breaker = table.breaker(&plan.attempts[0]);
        breaker.end(breaker.begin(NOW), Outcome::Bad, NOW);
    }

    #[test]
    fn a_route_may_have_a_breaker_of_its_own() {
        let old = table(TEXT, None);
        fail(&old, "touchy");
        let standings = |table: &Table, model: &str| {
            let plan = pick(table, &wish(model), 0, NOW).unwrap();
            plan.attempts.iter().map(|a| table.breaker(a).standing(NOW)).collect::<Vec<_>>()
        };
        let open = Standing::Open { until: NOW + Ms(5_000) };
        // The failed key went to the end of the route's plan, and nowhere else.
        assert_eq!(standings(&old, "touchy"), [Standing::Ready, open]);
        assert_eq!(standings(&old, "m"), [Standing::Ready; 2]);
        // A reload keeps it; another rule starts it anew.
        let new = table(TEXT, Some(&old));
        assert_eq!(standings(&new, "touchy"), [Standing::Ready, open]);
        let other = table(&TEXT.replace("failures = 1", "failures = 2"), Some(&old));
        assert_eq!(standings(&other, "touchy"), [Standing::Ready; 2]);
    }

    #[test]
    fn a_key_keeps_its_health_wherever_it_stands() {
        let old = table(TEXT, None);
        fail(&old, "touchy");
        let keys = |list: &str| TEXT.replace("[\"env:A\", \"env:B\"]", list);
        let new = table(&keys("[\"env:NEW\", \"env:B\", \"env:A\"]"), Some(&old));
        let health = |table: &Table, key: &str| {
            let of = |target: &&Target| {
                target.key.as_ref().is_some_and(|known| known.expose() == key.as_bytes())
            };
            let target = table.targets.iter().map(|(_, target)| target).find(of)?;
            let own = table.own_breakers.iter().find(|own| own.target == target.name)?;
            Some((target.breaker.clone(), own.breaker.clone()))
        };
        for key in ["env:A", "env:B"] {
            let (was, is) = (health(&old, key).unwrap(), health(&new, key).unwrap());
            assert!(Arc::ptr_eq(&was.0, &is.0), "{key}");
            assert!(Arc::ptr_eq(&was.1, &is.1), "{key} in the route");
        }
        assert_eq!(health(&new, "env:NEW").unwrap().0.standing(NOW), Standing::Ready);
    }

    #[test]
    fn a_cool_down_holds_for_every_rule_and_for_one_key() {
        let table = table(TEXT, None);
        let plan = pick(&table, &wish("touchy"), 0, NOW).unwrap();
        table.breaker(&plan.attempts[0]).cool(NOW + Ms(9_000), 429);
        for model in ["m", "touchy"] {
            let names: Vec<_> = pick(&table, &wish(model), 0, NOW)
                .unwrap()
                .attempts
                .iter()
                .map(|attempt| table.targets[attempt.target].name.to_string())
                .collect();
            assert_eq!(names, ["p/m#2", "p/m"], "{model}");
        }
    }

    #[test]
    fn times_come_from_the_targets_own_measures() {
        let table = table(TEXT, None);
        let attempt = |table: &Table| pick(table, &wish("m"), 0, NOW).unwrap().attempts[0].clone();
        let fresh = attempt(&table);
        assert_eq!((fresh.hedge, fresh.first, fresh.head), (None, Ms(20_000), Ms(20_000)));
        let speed = &table.targets[fresh.target].speed;
        (0..95).for_each(|_| speed.first(Ms(1_000), NOW));
        (0..5).for_each(|_| speed.first(Ms(1_500), NOW));
        let measured = attempt(&table);
        let hedge = measured.hedge.unwrap();
        assert!((1_000..1_400).contains(&hedge.0), "{hedge:?}");
        assert!((4_500..6_000).contains(&measured.first.0), "{:?}", measured.first);
        assert_eq!(measured.head, measured.first);
        let whole = Wish { stream: false, ..wish("m") };
        assert_eq!(pick(&table, &whole, 0, NOW).unwrap().attempts[0].hedge, None);
        // Measures are of the model there, whichever key, and outlive a reload.
        let again = self::table(TEXT, Some(&table));
        assert_eq!(pick(&again, &wish("m"), 1, NOW).unwrap().attempts[0].hedge, measured.hedge);
    }
}
