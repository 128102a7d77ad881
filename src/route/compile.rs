//! A checked config to tables. Total: what `config::load` accepted compiles, but for the sizes of ids.
//!
//! Each provider, upstream model and key becomes one target, however many models name it. Each way from
//! a name to a target is a `Line` with its settings resolved: target over route over model over provider
//! over `[defaults]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::Budget;
use super::health::Breaker;
use super::plan::{Endpoint, Line, ModelRow, ProviderRow, RouteRow, Table, Target};
use crate::base::ids::{EndpointId, Id as _, ModelId, ProviderId, TargetId};
use crate::config::{Config, Model, Patch, Problem, Provider, Settings, TargetSpec};

/// Compiles a config. Breakers and budgets of `previous` are carried over where name, endpoint,
/// credential and rule are the same.
///
/// # Errors
/// More targets than an id can count.
pub fn compile(config: &Config, previous: Option<&Table>) -> Result<Table, Vec<Problem>> {
    let mut build = Build { config, previous, table: Table::default(), known: BTreeMap::new() };
    build.providers();
    for (_, model) in config.models.iter() {
        build.model(model);
    }
    build.routes();
    build.wildcards();
    build.table.passthrough = config.passthrough;
    if build.table.targets.len() > usize::from(u16::MAX) {
        return Err(vec![Problem {
            line: None,
            path: String::from("models"),
            what: format!("{} targets are more than {}", build.table.targets.len(), u16::MAX),
            hint: String::from("each provider, upstream model and key is one target"),
        }]);
    }
    Ok(build.table)
}

struct Build<'a> {
    config: &'a Config,
    previous: Option<&'a Table>,
    table: Table,
    /// First target (of the first key) by provider and upstream model; `None` for the wildcard.
    known: BTreeMap<(ProviderId, Option<Arc<str>>), TargetId>,
}

impl Build<'_> {
    fn providers(&mut self) {
        for (_, provider) in self.config.providers.iter() {
            let endpoint = self.endpoint(provider);
            let rule = self.config.settings.with(&provider.settings).retry_budget;
            let name: Arc<str> = Arc::from(provider.name.as_str());
            let carried = self.previous.and_then(|old| {
                let row = &old.providers[*old.provider_by_name.get(&name)?];
                (row.budget.rule() == rule).then(|| row.budget.clone())
            });
            let id = self.table.providers.push(ProviderRow {
                name: name.clone(),
                kind: provider.kind,
                endpoint,
                authority: Arc::from(provider.base.authority()),
                path: Arc::from(provider.base.path.as_str()),
                budget: carried.unwrap_or_else(|| Arc::new(Budget::new(rule))),
                wildcard: Vec::new(),
            });
            self.table.provider_by_name.insert(name, id);
        }
    }

    fn endpoint(&mut self, provider: &Provider) -> EndpointId {
        let endpoint = Endpoint {
            host: Arc::from(provider.base.host.as_str()),
            port: provider.base.port,
            tls: provider.base.tls,
            ca: provider.ca.as_deref().map(Arc::from),
        };
        let known = self.table.endpoints.iter().find(|(_, row)| **row == endpoint);
        match known.map(|(id, _)| id) {
            Some(id) => id,
            None => self.table.endpoints.push(endpoint),
        }
    }

    /// Settings of a way that ends at `spec`; `above` are the patches between provider and target, in
    /// the order in which they yield.
    fn settings(&self, provider: ProviderId, above: &[&Patch]) -> Settings {
        let mut settings = self.config.settings.with(&self.config.providers[provider].settings);
        for patch in above {
            settings = settings.with(patch);
        }
        settings
    }

    /// The lines to one upstream model: one for each key of its provider, side by side.
    fn lines(&mut self, spec: &TargetSpec, model: &Patch, route: Option<&Patch>) -> Vec<Line> {
        let mut above = vec![model];
        above.extend(route);
        above.push(&spec.settings);
        let settings = Arc::new(self.settings(spec.provider, &above));
        let first = self.targets(spec.provider, Some(Arc::from(spec.model.as_str())), &settings);
        self.over_keys(spec.provider, first, &settings)
    }

    fn over_keys(
        &self,
        provider: ProviderId,
        first: TargetId,
        settings: &Arc<Settings>,
    ) -> Vec<Line> {
        let keys = self.config.providers[provider].keys.len().max(1);
        (0..keys)
            .map(|key| Line {
                target: TargetId::from_index(first.index() + key),
                settings: settings.clone(),
            })
            .collect()
    }

    /// The first of the targets of one provider and upstream model; makes them if they are new.
    fn targets(
        &mut self,
        provider: ProviderId,
        model: Option<Arc<str>>,
        settings: &Settings,
    ) -> TargetId {
        if let Some(first) = self.known.get(&(provider, model.clone())) {
            return *first;
        }
        let row = &self.config.providers[provider];
        let first = TargetId::from_index(self.table.targets.len().min(usize::from(u16::MAX)));
        for index in 0..row.keys.len().max(1) {
            let mut name = format!("{}/{}", row.name, model.as_deref().unwrap_or("*"));
            if index > 0 {
                name += &format!("#{}", index + 1);
            }
            let mut target = Target {
                name: Arc::from(name),
                provider,
                endpoint: self.table.providers[provider].endpoint,
                model: model.clone(),
                key: row.keys.get(index).cloned(),
                key_index: u16::try_from(index).unwrap_or(u16::MAX),
                breaker: Arc::new(Breaker::new(settings.breaker)),
            };
            if let Some(carried) = self.carried(&target, settings) {
                target.breaker = carried;
            }
            self.table.targets.push(target);
        }
        self.known.insert((provider, model), first);
        first
    }

    /// The breaker that an equal target had before: its health is not forgotten by a reload.
    fn carried(&self, target: &Target, settings: &Settings) -> Option<Arc<Breaker>> {
        let old = self.previous?;
        let (_, was) = old.targets.iter().find(|(_, was)| was.name == target.name)?;
        let same = was.key == target.key
            && old.endpoints[was.endpoint] == self.table.endpoints[target.endpoint];
        if !same {
            return None;
        }
        Some(match was.breaker.rule() == settings.breaker {
            true => was.breaker.clone(),
            false => Arc::new(was.breaker.renewed(settings.breaker)),
        })
    }

    fn model(&mut self, model: &Model) {
        let mut lines = Vec::new();
        for spec in &model.targets {
            let of_spec = self.lines(spec, &model.settings, None);
            let provider = &self.config.providers[spec.provider].name;
            let direct: Arc<str> = Arc::from(format!("{provider}/{}", spec.model));
            self.table.direct_by_name.entry(direct).or_insert_with(|| of_spec.clone());
            lines.extend(of_spec);
        }
        let name: Arc<str> = Arc::from(model.name.as_str());
        let row = ModelRow { name: name.clone(), lines, fallbacks: model.fallbacks.clone() };
        let id = self.table.models.push(row);
        self.table.model_by_name.insert(name, id);
    }

    fn routes(&mut self) {
        for route in &self.config.routes {
            let models = route
                .models
                .iter()
                .map(|id| {
                    let model = &self.config.models[*id];
                    let lines = model
                        .targets
                        .iter()
                        .flat_map(|spec| self.lines(spec, &model.settings, Some(&route.settings)))
                        .collect::<Vec<_>>();
                    (*id, lines)
                })
                .collect::<Vec<(ModelId, Vec<Line>)>>();
            let name: Arc<str> = Arc::from(route.name.as_str());
            self.table.route_by_name.insert(name.clone(), self.table.routes.len());
            self.table.routes.push(RouteRow { name, models });
        }
    }

    fn wildcards(&mut self) {
        let ids: Vec<ProviderId> = self.table.providers.iter().map(|(id, _)| id).collect();
        for id in ids {
            let settings = Arc::new(self.settings(id, &[]));
            let first = self.targets(id, None, &settings);
            self.table.providers[id].wildcard = self.over_keys(id, first, &settings);
        }
    }
}
