//! The choice: a wish and a table to a plan. `choose` is the one function that decides; `pick` keeps
//! its result, `explain` also its reasons.
//!
//! ```text
//! model "m"  ->  groups   m: [a/x#1 a/x#2 b/y]   its fallback f: [c/z]   wish.models: [..]
//! only, ignore, allow_fallbacks    leave candidates out
//! provider.order                   sorts within each group: it never changes which model is first
//! turn                             rotates the keys of one target
//! health                           moves open, then cooling candidates to the end
//! PLAN_ATTEMPTS_MAX                cuts
//! ```
//!
//! `allow_fallbacks: false` follows OpenRouter: with `order` only the providers in it stay; without,
//! only the first target of the first model, with any of its provider's keys, since a key is not a
//! fallback that a client could see.

use std::sync::Arc;

use smallvec::SmallVec;

use super::health::Standing;
use super::plan::{Attempt, Line, Plan, Refusal, Rules, Table, Why, Wish};
use crate::base::ids::{ModelId, ProviderId};
use crate::base::limits::{PLAN_ATTEMPTS_MAX, REQUEST_NAMES_MAX};
use crate::base::tick::{Ms, Tick};
use crate::config::Settings;

/// Makes the whole plan. `turn` rotates the keys of a provider: a counter of the core.
///
/// # Errors
/// Why there is nothing to try.
pub fn pick(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Result<Plan, Refusal> {
    choose(table, wish, turn, now, &mut |_| {})
}

/// A target that could serve the request.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'t> {
    pub(super) line: &'t Line,
    pub(super) model: Arc<str>,
    pub(super) shown: Arc<str>,
    pub(super) why: Why,
    pub(super) standing: Standing,
    /// Its provider takes access tokens and has none that is good.
    pub(super) lacks_token: bool,
    provider: ProviderId,
    /// Which model of the sequence it belongs to; 0 is the one asked for.
    group: u16,
    /// Which target of its group, keys aside.
    place: u16,
}

/// Why something is not in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Not in `provider.only`.
    NotInOnly,
    /// In `provider.ignore`.
    Ignored,
    /// `allow_fallbacks` is false.
    NoFallbacks,
    /// Already in the plan.
    Duplicate,
    /// The plan is full.
    Full,
}

impl Left {
    /// A phrase for a person.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Left::NotInOnly => "not in the request's provider.only",
            Left::Ignored => "in the request's provider.ignore",
            Left::NoFallbacks => "the request allows no fallbacks",
            Left::Duplicate => "already in the plan",
            Left::Full => "the plan is full",
        }
    }
}

/// What `choose` says on its way.
pub(super) enum Note<'n, 't> {
    /// A name of `models` that means nothing here.
    Unknown(&'n str),
    /// A candidate that is not tried.
    Left(&'n Candidate<'t>, Left),
    /// A candidate that is tried, in the order of the plan.
    Kept(&'n Candidate<'t>),
}

/// Decides everything. `note` hears of every candidate exactly once.
pub(super) fn choose<'t>(
    table: &'t Table,
    wish: &Wish,
    turn: u32,
    now: Tick,
    note: &mut dyn FnMut(Note<'_, 't>),
) -> Result<Plan, Refusal> {
    let mut gather =
        Gather { table, turn, now, list: SmallVec::new(), groups: 0, seen: SmallVec::new() };
    gather.all(wish, note)?;
    let mut list = gather.list;
    filter(table, wish, &mut list, note);
    if list.is_empty() {
        return Err(Refusal::NothingLeft);
    }
    order(table, wish, &mut list);
    forget_duplicates(table, &mut list, note);
    name_reasons(&mut list);
    let refusal = all_cooling(&list, now);
    move_unwell(&mut list);
    for (index, candidate) in list.iter().enumerate() {
        let full = index >= PLAN_ATTEMPTS_MAX;
        note(if full { Note::Left(candidate, Left::Full) } else { Note::Kept(candidate) });
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    list.truncate(PLAN_ATTEMPTS_MAX);
    let plan = Plan {
        rules: rules(&list[0].line.settings, wish),
        attempts: list.iter().map(|candidate| attempt(candidate, wish)).collect(),
    };
    debug_assert!(!plan.attempts.is_empty() && plan.attempts.len() <= PLAN_ATTEMPTS_MAX);
    Ok(plan)
}

type List<'t> = SmallVec<[Candidate<'t>; 8]>;

/// Collects candidates, model by model.
struct Gather<'t> {
    table: &'t Table,
    turn: u32,
    now: Tick,
    list: List<'t>,
    groups: u16,
    /// Models that have had their group.
    seen: SmallVec<[ModelId; 8]>,
}

impl<'t> Gather<'t> {
    fn all(&mut self, wish: &Wish, note: &mut dyn FnMut(Note<'_, 't>)) -> Result<(), Refusal> {
        if wish.passthrough {
            let id = self.table.passthrough.ok_or(Refusal::UnknownModel)?;
            let row = &self.table.providers[id];
            self.group(&row.wildcard, Some(&Arc::from("")), &row.name, Why::Primary);
            return Ok(());
        }
        let mut asked = wish.models.iter().take(REQUEST_NAMES_MAX).map(String::as_str);
        let first = if wish.model.is_empty() { asked.next() } else { Some(wish.model.as_str()) };
        // A later name may be unknown here; the one that the client means first may not.
        if !first.is_some_and(|name| self.name(name, Why::Primary)) {
            return Err(Refusal::UnknownModel);
        }
        for name in asked {
            if !self.name(name, Why::Asked) {
                note(Note::Unknown(name));
            }
        }
        Ok(())
    }

    /// A model, a route, or `provider/upstream-model`, in that order. False: none of them.
    fn name(&mut self, name: &str, why: Why) -> bool {
        let table = self.table;
        if let Some(id) = table.model_by_name.get(name) {
            self.model(*id, &table.models[*id].lines, why);
            return true;
        }
        if let Some(index) = table.route_by_name.get(name) {
            let route = &table.routes[*index];
            for (index, (id, lines)) in route.models.iter().enumerate() {
                self.model(*id, lines, if index == 0 { why } else { Why::Fallback });
            }
            return true;
        }
        self.direct(name, why)
    }

    /// A model's own targets, then those of its fallbacks, depth first, each model once.
    fn model(&mut self, id: ModelId, lines: &'t [Line], why: Why) {
        // An explicit stack: configs may chain as many models as they like.
        let mut stack: SmallVec<[(ModelId, &'t [Line], Why); 8]> = SmallVec::new();
        stack.push((id, lines, why));
        while let Some((id, lines, why)) = stack.pop() {
            if self.seen.contains(&id) {
                continue;
            }
            self.seen.push(id);
            let row = &self.table.models[id];
            self.group(lines, None, &row.name, why);
            for next in row.fallbacks.iter().rev() {
                stack.push((*next, &self.table.models[*next].lines, Why::Fallback));
            }
        }
    }

    fn direct(&mut self, name: &str, why: Why) -> bool {
        let Some((provider, upstream)) = name.split_once('/') else { return false };
        let Some(id) = self.table.provider_by_name.get(provider) else { return false };
        if upstream.is_empty() || upstream == "*" {
            return false;
        }
        // A target that the config knows brings its own settings and health.
        match self.table.direct_by_name.get_key_value(name) {
            Some((shown, lines)) => self.group(lines, None, shown, why),
            None => {
                let lines = &self.table.providers[*id].wildcard;
                self.group(lines, Some(&Arc::from(upstream)), &Arc::from(name), why);
            }
        }
        true
    }

    /// Adds the lines of one model. Lines of one target with several keys stand side by side; they are
    /// rotated by `turn`.
    fn group(&mut self, lines: &'t [Line], named: Option<&Arc<str>>, shown: &Arc<str>, why: Why) {
        let targets = &self.table.targets;
        let same = |a: &Line, b: &Line| {
            let (a, b) = (&targets[a.target], &targets[b.target]);
            a.provider == b.provider && a.model == b.model
        };
        for (place, keys) in lines.chunk_by(same).enumerate() {
            for step in 0..keys.len() {
                let line = &keys[(self.turn as usize).wrapping_add(step) % keys.len()];
                let target = &targets[line.target];
                let model = target.model.as_ref().or(named).cloned();
                let usual = match why {
                    Why::Primary if place > 0 => Why::Target,
                    other => other,
                };
                self.list.push(Candidate {
                    line,
                    model: model.unwrap_or_default(),
                    shown: shown.clone(),
                    why: if step == 0 { usual } else { Why::Credential },
                    standing: target.breaker.standing(self.now),
                    lacks_token: self.table.providers[target.provider].lacks_token(self.now),
                    provider: target.provider,
                    group: self.groups,
                    place: u16::try_from(place).unwrap_or(u16::MAX),
                });
            }
        }
        self.groups = self.groups.saturating_add(1);
    }
}

fn filter<'t>(table: &Table, wish: &Wish, list: &mut List<'t>, note: &mut dyn FnMut(Note<'_, 't>)) {
    let allows = |candidate: &Candidate<'t>| {
        let name: &str = &table.providers[candidate.provider].name;
        let named = |names: &[String]| names.iter().any(|other| other == name);
        if !wish.only.is_empty() && !named(&wish.only) {
            return Some(Left::NotInOnly);
        }
        if named(&wish.ignore) {
            return Some(Left::Ignored);
        }
        let outside = !wish.order.is_empty() && !named(&wish.order);
        (!wish.allow_fallbacks && outside).then_some(Left::NoFallbacks)
    };
    list.retain(|candidate| match allows(candidate) {
        Some(left) => {
            note(Note::Left(candidate, left));
            false
        }
        None => true,
    });
    // Without an order, what is left of the first target asked for is all that may serve.
    if !wish.allow_fallbacks && wish.order.is_empty() {
        let first = list.first().map_or(0, |candidate| candidate.place);
        list.retain(|candidate| {
            let keep = (candidate.group, candidate.place) == (0, first);
            if !keep {
                note(Note::Left(candidate, Left::NoFallbacks));
            }
            keep
        });
    }
}

/// `provider.order` within each group; stable.
fn order(table: &Table, wish: &Wish, list: &mut List<'_>) {
    if wish.order.is_empty() {
        return;
    }
    let rank = |candidate: &Candidate<'_>| {
        let name: &str = &table.providers[candidate.provider].name;
        wish.order.iter().position(|other| other == name).unwrap_or(usize::MAX)
    };
    list.sort_by_key(|candidate| (candidate.group, rank(candidate)));
    for candidate in list.iter_mut() {
        if rank(candidate) != usize::MAX && candidate.why != Why::Credential {
            candidate.why = Why::Ordered;
        }
    }
}

/// Keeps the first of each provider, upstream model and key. Through a provider's wildcard the same
/// upstream model can be reached under two names.
fn forget_duplicates<'t>(table: &Table, list: &mut List<'t>, note: &mut dyn FnMut(Note<'_, 't>)) {
    let mut index = 0;
    while index < list.len() {
        let candidate = &list[index];
        let key = table.targets[candidate.line.target].key_index;
        let is_known = list[..index].iter().any(|before| {
            before.provider == candidate.provider
                && before.model == candidate.model
                && table.targets[before.line.target].key_index == key
        });
        if is_known {
            note(Note::Left(candidate, Left::Duplicate));
            list.remove(index);
        } else {
            index += 1;
        }
    }
}

/// Whatever comes first after filters is the primary, unless the request's order put it there, and
/// nothing else is.
fn name_reasons(list: &mut List<'_>) {
    for (index, candidate) in list.iter_mut().enumerate() {
        candidate.why = match (index, candidate.why) {
            (0, Why::Ordered) => Why::Ordered,
            (0, _) => Why::Primary,
            (_, Why::Primary) => Why::Target,
            (_, other) => other,
        };
    }
}

/// A refusal if every candidate asked to be left alone.
fn all_cooling(list: &List<'_>, now: Tick) -> Option<Refusal> {
    let mut soonest = Tick::NEVER;
    let mut worst = 503;
    for candidate in list {
        let Standing::Cooling { until, status } = candidate.standing else { return None };
        soonest = soonest.min(until);
        if status == 429 {
            worst = 429;
        }
    }
    // Rounded up: a client that comes back then must not be early.
    let ms = soonest.since(now).div_ceil(1000).max(1);
    let retry_after = Ms(u32::try_from(ms).unwrap_or(u32::MAX));
    Some(Refusal::Cooling { retry_after, status: worst })
}

/// Open ones to the end in their order, cooling ones after them by soonest end, and last what could not
/// be asked at all.
fn move_unwell(list: &mut List<'_>) {
    list.sort_by_key(|candidate| match candidate.standing {
        _ if candidate.lacks_token => (3, Tick(0)),
        Standing::Ready | Standing::HalfOpen => (0, Tick(0)),
        Standing::Open { .. } => (1, Tick(0)),
        Standing::Cooling { until, .. } => (2, until),
    });
    for candidate in list {
        candidate.why = match candidate.standing {
            _ if candidate.lacks_token => Why::MovedNoToken,
            Standing::Ready | Standing::HalfOpen => candidate.why,
            Standing::Open { .. } => Why::MovedOpen,
            Standing::Cooling { .. } => Why::MovedCooling,
        };
    }
}

/// A non-streamed answer shows nothing before it is finished, so that one time covers all its phases.
fn attempt(candidate: &Candidate<'_>, wish: &Wish) -> Attempt {
    let settings = &candidate.line.settings;
    let answer = settings.answer_timeout;
    let streamed = |time: Ms| if wish.stream { time } else { answer };
    Attempt {
        target: candidate.line.target,
        model: candidate.model.clone(),
        shown: candidate.shown.clone(),
        why: candidate.why,
        connect: settings.connect_timeout,
        head: streamed(settings.head_timeout),
        first: streamed(settings.first_content_timeout),
        idle: streamed(settings.idle_timeout),
        answer: if wish.stream { Ms::MAX } else { answer },
        floor: if wish.stream { settings.throughput_floor } else { 0 },
    }
}

fn rules(settings: &Settings, wish: &Wish) -> Rules {
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
