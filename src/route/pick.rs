//! The choice: a wish and a table to a plan. One function makes it for dispatch and for `explain`; what
//! is left out or moved is told to a listener, which dispatch leaves silent.
//!
//! ```text
//! name -> models -> lines (keys turned) -> only/ignore -> order -> no doubles -> open and cooling last
//! ```

use std::sync::Arc;

use smallvec::SmallVec;

use super::health::Standing;
use super::plan::{Attempt, Line, Plan, Refusal, Rules, Table, Why, Wish};
use crate::base::ids::{ModelId, ProviderId, TargetId};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};

/// Makes the whole plan. `turn` rotates the keys of a provider: a counter of the core.
///
/// # Errors
/// Why there is nothing to try.
pub fn pick(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Result<Plan, Refusal> {
    choose(table, wish, turn, now, &mut |_, _| {})
}

/// Why a candidate is not in the plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LeftOut {
    /// `provider.only` does not name its provider.
    Only,
    /// `provider.ignore` names its provider.
    Ignored,
    /// `provider.allow_fallbacks` is false.
    NoFallbacks,
    /// The plan is full.
    Full,
}

impl LeftOut {
    pub(super) const fn text(self) -> &'static str {
        match self {
            LeftOut::Only => "left out: not in the request's provider.only",
            LeftOut::Ignored => "left out: in the request's provider.ignore",
            LeftOut::NoFallbacks => "left out: the request's provider.allow_fallbacks is false",
            LeftOut::Full => "left out: the plan is full",
        }
    }
}

/// One candidate on its way into a plan.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) line: Line,
    /// Upstream model.
    pub(super) model: Arc<str>,
    pub(super) shown: Arc<str>,
    pub(super) why: Why,
}

type Candidates = SmallVec<[Candidate; 8]>;

/// The choice itself.
pub(super) fn choose(
    table: &Table,
    wish: &Wish,
    turn: u32,
    now: Tick,
    left_out: &mut dyn FnMut(&Candidate, LeftOut),
) -> Result<Plan, Refusal> {
    let mut found = collect(table, wish, turn)?;
    filter(table, wish, &mut found, left_out);
    if found.is_empty() {
        return Err(Refusal::NothingLeft);
    }
    let shortest = all_cooling(table, &found, now);
    if let Some((until, status)) = shortest {
        let retry_after = Ms((until - now).0.max(1));
        return Err(Refusal::Cooling { retry_after, status });
    }
    let rules = rules(wish, &found);
    move_back(table, &mut found, now);
    for candidate in found.iter().skip(limits::PLAN_ATTEMPTS_MAX) {
        left_out(candidate, LeftOut::Full);
    }
    found.truncate(limits::PLAN_ATTEMPTS_MAX);
    let attempts = found.into_iter().map(|candidate| attempt(candidate, wish)).collect();
    Ok(Plan { attempts, rules })
}

/// Every line that the names lead to, in order, each target and upstream model once.
fn collect(table: &Table, wish: &Wish, turn: u32) -> Result<Candidates, Refusal> {
    let mut gather = Gather { table, turn, found: Candidates::new(), seen: SmallVec::new() };
    if wish.passthrough {
        let provider = table.passthrough.ok_or(Refusal::UnknownModel)?;
        gather.wildcard(provider, "", Arc::from(""), Why::Primary);
        return Ok(gather.found);
    }
    let mut names = wish.model.is_empty().then_some(()).map_or_else(
        || Some(wish.model.as_str()).into_iter().chain(rest(&wish.models, 0)),
        |()| None.into_iter().chain(rest(&wish.models, 0)),
    );
    let first = names.next().ok_or(Refusal::UnknownModel)?;
    if !gather.name(first, Why::Primary) {
        return Err(Refusal::UnknownModel);
    }
    for name in names {
        if !gather.name(name, Why::Asked) {
            return Err(Refusal::UnknownModel);
        }
    }
    Ok(gather.found)
}

fn rest(
    models: &[String],
    from: usize,
) -> std::iter::Map<std::slice::Iter<'_, String>, fn(&String) -> &str> {
    models[from..].iter().map(String::as_str as fn(&String) -> &str)
}

struct Gather<'a> {
    table: &'a Table,
    turn: u32,
    found: Candidates,
    seen: SmallVec<[ModelId; 8]>,
}

impl Gather<'_> {
    /// Adds what a name stands for: a model, a route, or `provider/upstream-model`.
    fn name(&mut self, name: &str, why: Why) -> bool {
        let table = self.table;
        if let Some(id) = table.model_by_name.get(name) {
            self.model(*id, why);
            return true;
        }
        if let Some(index) = table.route_by_name.get(name) {
            for (place, (id, lines)) in table.routes[*index].models.iter().enumerate() {
                let why = if place == 0 || why == Why::Asked { why } else { Why::Fallback };
                self.lines(lines, &table.models[*id].name, why);
            }
            return true;
        }
        if let Some((key, lines)) = table.direct_by_name.get_key_value(name) {
            self.lines(lines, key, why);
            return true;
        }
        let Some((provider, model)) = name.split_once('/') else { return false };
        let Some(id) = table.provider_by_name.get(provider) else { return false };
        if model.is_empty() {
            return false;
        }
        self.wildcard(*id, model, Arc::from(name), why);
        true
    }

    /// A model's own targets, then those of its fallbacks, depth first.
    fn model(&mut self, first: ModelId, why: Why) {
        let mut waiting: SmallVec<[(ModelId, Why); 8]> = SmallVec::from_iter([(first, why)]);
        while let Some((id, why)) = waiting.pop() {
            if self.seen.contains(&id) {
                continue;
            }
            self.seen.push(id);
            let row = &self.table.models[id];
            self.lines(&row.lines, &row.name, why);
            let after = if why == Why::Asked { Why::Asked } else { Why::Fallback };
            waiting.extend(row.fallbacks.iter().rev().map(|id| (*id, after)));
        }
    }

    fn wildcard(&mut self, provider: ProviderId, model: &str, shown: Arc<str>, why: Why) {
        let lines = self.table.providers[provider].wildcard.clone();
        self.add(&lines, &Arc::from(model), &shown, why);
    }

    /// Lines of one model: those of one provider and upstream model stand side by side, one per key.
    fn lines(&mut self, lines: &[Line], shown: &Arc<str>, why: Why) {
        let (mut at, mut why) = (0, why);
        while at < lines.len() {
            let target = &self.table.targets[lines[at].target];
            let same = |line: &&Line| {
                let other = &self.table.targets[line.target];
                other.provider == target.provider && other.model == target.model
            };
            let count = lines[at..].iter().take_while(same).count().max(1);
            let model = target.model.clone().unwrap_or_else(|| Arc::from(""));
            self.add(&lines[at..at + count], &model, shown, why);
            at += count;
            if why == Why::Primary {
                why = Why::Target;
            }
        }
    }

    /// One upstream model with its keys, whose turn it is first.
    fn add(&mut self, lines: &[Line], model: &Arc<str>, shown: &Arc<str>, why: Why) {
        for place in 0..lines.len() {
            let line = &lines[(place + self.turn as usize) % lines.len()];
            let known = |c: &Candidate| c.line.target == line.target && c.model == *model;
            if self.found.iter().any(known) {
                continue;
            }
            self.found.push(Candidate {
                line: line.clone(),
                model: model.clone(),
                shown: shown.clone(),
                why: if place == 0 { why } else { Why::Credential },
            });
        }
    }
}

/// Applies the request's preferences among providers.
fn filter(
    table: &Table,
    wish: &Wish,
    found: &mut Candidates,
    left_out: &mut dyn FnMut(&Candidate, LeftOut),
) {
    let provider = |c: &Candidate| &*table.providers[table.targets[c.line.target].provider].name;
    let named = |list: &[String], c: &Candidate| list.iter().any(|name| *name == provider(c));
    let first = found.first().map(|c| (table.targets[c.line.target].provider, c.model.clone()));
    found.retain(|c| {
        let out = if !wish.only.is_empty() && !named(&wish.only, c) {
            Some(LeftOut::Only)
        } else if named(&wish.ignore, c) {
            Some(LeftOut::Ignored)
        } else if wish.allow_fallbacks {
            None
        } else if wish.order.is_empty() {
            let same = (table.targets[c.line.target].provider, c.model.clone());
            (Some(same) != first).then_some(LeftOut::NoFallbacks)
        } else {
            (!named(&wish.order, c)).then_some(LeftOut::NoFallbacks)
        };
        if let Some(why) = out {
            left_out(c, why);
        }
        out.is_none()
    });
    if !wish.order.is_empty() {
        let place = |c: &Candidate| {
            wish.order.iter().position(|name| *name == provider(c)).unwrap_or(usize::MAX)
        };
        found.iter_mut().filter(|c| place(c) != usize::MAX).for_each(|c| c.why = Why::Ordered);
        found.sort_by_key(place);
    }
}

/// If all are cooling down: the soonest end, and the status to answer with.
fn all_cooling(table: &Table, found: &Candidates, now: Tick) -> Option<(Tick, u16)> {
    let (mut soonest, mut status) = (Tick::NEVER, 503);
    for candidate in found {
        match table.targets[candidate.line.target].breaker.standing(now) {
            Standing::Cooling { until, status: cooled } => {
                soonest = soonest.min(until);
                if cooled == 429 {
                    status = 429;
                }
            }
            Standing::Ready | Standing::HalfOpen | Standing::Open { .. } => return None,
        }
    }
    Some((soonest, status))
}

/// Open and cooling targets go to the end, open ones before cooling ones, the soonest first.
fn move_back(table: &Table, found: &mut Candidates, now: Tick) {
    let standing = |target: TargetId| table.targets[target].breaker.standing(now);
    found.sort_by_key(|c| match standing(c.line.target) {
        Standing::Ready | Standing::HalfOpen => (0, Tick(0)),
        Standing::Open { until } => (1, until),
        Standing::Cooling { until, .. } => (2, until),
    });
    for candidate in found.iter_mut() {
        match standing(candidate.line.target) {
            Standing::Ready | Standing::HalfOpen => {}
            Standing::Open { .. } => candidate.why = Why::MovedOpen,
            Standing::Cooling { .. } => candidate.why = Why::MovedCooling,
        }
    }
}

/// Exchange-wide rules: those of the first line, before health moves anything.
fn rules(wish: &Wish, found: &Candidates) -> Rules {
    let settings = &found[0].line.settings;
    let commit = wish.commit.unwrap_or(settings.commit);
    let total = settings.total_timeout;
    let usual = if wish.stream { settings.first_content_deadline } else { total };
    Rules {
        commit,
        hold_max: settings.hold_max_under(commit),
        answer_max: settings.answer_max,
        open_after: settings.open_after.filter(|_| wish.stream),
        hedge_after: settings.hedge_after.filter(|_| wish.stream),
        deadline: wish.deadline.unwrap_or(usual).min(total),
        total,
        on_content_policy: settings.on_content_policy,
        replay: settings.replay,
    }
}

fn attempt(candidate: Candidate, wish: &Wish) -> Attempt {
    let settings = &candidate.line.settings;
    let answer = settings.answer_timeout;
    let either = |streamed: Ms| if wish.stream { streamed } else { answer };
    Attempt {
        target: candidate.line.target,
        model: candidate.model,
        shown: candidate.shown,
        why: candidate.why,
        connect: settings.connect_timeout,
        head: either(settings.head_timeout),
        first: either(settings.first_content_timeout),
        idle: either(settings.idle_timeout),
        answer: if wish.stream { Ms::MAX } else { answer },
        floor: if wish.stream { settings.throughput_floor } else { 0 },
    }
}
