//! The choice: a wish and a table to a plan. `choose` is the one function that decides; `pick` keeps
//! its result, `explain` also its reasons.
//!
//! ```text
//! model "m"  ->  groups   m: [a/x#1 a/x#2 b/y]   its fallback f: [c/z]   wish.models: [..]
//! turn                             rotates the keys of one target
//! only, ignore, max_price          leave candidates out
//! what a target can do             leaves candidates out
//! allow_fallbacks                  leaves candidates out
//! policy, provider.sort            rank within each group
//! provider.order                   sorts within each group: it never changes which model is first
//! a warm cache                     comes first in its group, unless the request orders providers
//! health                           moves open, then cooling candidates to the end
//! PLAN_ATTEMPTS_MAX                cuts
//! ```
//!
//! `allow_fallbacks: false` follows OpenRouter: with `order` only the providers in it stay; without,
//! only the first target of the first model that can serve the request, with any of its provider's keys,
//! since a key is not a fallback that a client could see.
//!
//! A route with a policy other than `order` is one group of all targets of its models; the fallbacks of
//! these models follow it.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::fit::{self, Lack};
use super::health::Standing;
use super::plan::{Attempt, Line, Plan, Refusal, RouteRow, Rules, Table, Why, Wish};
use super::rank::{self, Best, By, Ground};
use crate::base::ids::{Id as _, ModelId, ProviderId, TargetId};
use crate::base::limits::{PLAN_ATTEMPTS_MAX, REQUEST_NAMES_MAX};
use crate::base::tick::{Ms, Tick};
use crate::config::{Facts, Fates, Hedge, Kind, Patience, Settings};

/// Makes the whole plan. `turn` rotates the keys of a provider: a counter of the core.
///
/// # Errors
/// Why there is nothing to try.
pub fn pick(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Result<Plan, Refusal> {
    choose(table, wish, turn, now, &mut |_| {})
}

/// A name of the table, or one that only the request gives.
#[derive(Clone, Debug)]
pub(super) enum Name<'t> {
    /// The table's.
    Known(&'t Arc<str>),
    /// The request's.
    Given(Arc<str>),
}

impl Name<'_> {
    pub(super) fn get(&self) -> &Arc<str> {
        match self {
            Name::Known(name) => name,
            Name::Given(name) => name,
        }
    }
}

/// A target that could serve the request.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'t> {
    pub(super) line: &'t Line,
    pub(super) model: Name<'t>,
    pub(super) shown: Name<'t>,
    pub(super) facts: &'t Facts,
    pub(super) why: Why,
    pub(super) standing: Standing,
    /// What its group is ranked by.
    pub(super) by: By,
    /// By which its group is sorted; lower is better.
    pub(super) score: f64,
    /// The best figures of its group, where that is ranked by figures.
    pub(super) best: Best,
    /// Of its model in a route.
    pub(super) weight: u32,
    /// Which model of its route it belongs to.
    pub(super) member: u16,
    /// Its provider takes access tokens and has none that is good.
    pub(super) lacks_token: bool,
    /// How the request's parameters fare with it, if anybody was asked.
    pub(super) fates: Option<Rc<Fates>>,
    provider: ProviderId,
    /// Which model of the sequence it belongs to; 0 is the one asked for.
    group: u16,
    /// Which target of its group, keys aside.
    place: u16,
}

/// Why something is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Not in `provider.only`.
    NotInOnly,
    /// In `provider.ignore`.
    Ignored,
    /// `allow_fallbacks` is false.
    NoFallbacks,
    /// It can't serve the request.
    Unfit(Lack),
    /// It costs more than `provider.max_price`.
    TooDear,
    /// There is a `provider.max_price`, and its price is not known.
    NoPrice,
    /// Already in the plan.
    Duplicate,
    /// The plan is full.
    Full,
}

impl Left {
    /// A phrase for a person.
    pub(super) fn text(&self) -> String {
        let text = match self {
            Left::NotInOnly => "not in the request's provider.only",
            Left::Ignored => "in the request's provider.ignore",
            Left::NoFallbacks => "the request allows no fallbacks",
            Left::Unfit(lack) => return lack.to_string(),
            Left::TooDear => "dearer than the request's provider.max_price",
            Left::NoPrice => "its price is not known, and the request has a provider.max_price",
            Left::Duplicate => "already in the plan",
            Left::Full => "the plan is full",
        };
        text.to_owned()
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
    let mut gather = Gather {
        table,
        turn,
        now,
        list: SmallVec::new(),
        ranks: SmallVec::new(),
        sort: wish.sort,
        seen: SmallVec::new(),
    };
    gather.all(wish, note)?;
    let Gather { mut list, ranks, .. } = gather;
    let unfit = filter(table, wish, &mut list, note);
    if list.is_empty() {
        return Err(if unfit.is_empty() { Refusal::NothingLeft } else { Refusal::Unfit(unfit) });
    }
    let warm = table.affinity.warm(wish.demand.thread, now);
    let ground = Ground { table, turn, now, warm };
    for group in list.chunk_by_mut(|a, b| a.group == b.group) {
        let by = ranks.get(usize::from(group[0].group)).copied().unwrap_or(By::Order);
        rank::rank(group, by, wish, &ground);
    }
    order(table, wish, &mut list);
    if let Some(warm) = warm {
        prefer_warm(warm.target, wish, &ranks, &mut list);
    }
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
    let hedge = list[0].line.settings.hedge_after.filter(|_| wish.stream);
    let plan = Plan {
        rules: rules(&list[0].line.settings, wish),
        attempts: list.iter().map(|candidate| attempt(table, candidate, hedge, wish)).collect(),
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
    /// What each group is ranked by.
    ranks: SmallVec<[By; 8]>,
    /// `provider.sort`: over every policy.
    sort: Option<By>,
    /// Models that have had their group.
    seen: SmallVec<[ModelId; 8]>,
}

impl<'t> Gather<'t> {
    fn all(&mut self, wish: &Wish, note: &mut dyn FnMut(Note<'_, 't>)) -> Result<(), Refusal> {
        if wish.passthrough {
            let id = self.table.passthrough.ok_or(Refusal::UnknownModel)?;
            let row = &self.table.providers[id];
            let named = Some(Arc::from(""));
            self.begin(By::Order);
            self.lines(&row.wildcard, named.as_ref(), &Name::Known(&row.name), Why::Primary);
            return Ok(());
        }
        let mut asked = wish.models.iter().take(REQUEST_NAMES_MAX).map(String::as_str);
        let first = if wish.model.is_empty() { asked.next() } else { Some(&*wish.model) };
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

    /// A model, a route, `provider/upstream-model`, one of these with a suffix, or a built-in route, in
    /// that order. False: none of them.
    fn name(&mut self, name: &str, why: Why) -> bool {
        if self.known(name, By::Order, why) {
            return true;
        }
        let suffixed = By::suffix(name);
        suffixed
            .is_some_and(|(model, by)| self.known(model, by, why) || self.direct(model, by, why))
            || self.direct(name, By::Order, why)
    }

    fn known(&mut self, name: &str, by: By, why: Why) -> bool {
        let table = self.table;
        if let Some(id) = table.model_by_name.get(name) {
            self.model(*id, &table.models[*id].lines, by, why);
            return true;
        }
        if let Some(index) = table.route_by_name.get(name) {
            self.route(&table.routes[*index], by, why);
            return true;
        }
        // One that the config knows brings its own settings and health.
        if let Some((shown, lines)) = table.direct_by_name.get_key_value(name) {
            self.begin(by);
            self.lines(lines, None, &Name::Known(shown), why);
            return true;
        }
        let built_in = table.built_in.iter().find(|route| *route.name == *name);
        if let Some(route) = built_in.filter(|route| !route.models.is_empty()) {
            self.route(route, by, why);
            return true;
        }
        false
    }

    fn route(&mut self, route: &'t RouteRow, by: By, why: Why) {
        let own = By::policy(route.policy);
        if own == By::Order && by == By::Order {
            self.list.reserve(route.models.iter().map(|(_, lines)| lines.len()).sum());
            for (index, (id, lines)) in route.models.iter().enumerate() {
                self.model(*id, lines, by, if index == 0 { why } else { Why::Fallback });
            }
            return;
        }
        self.begin(if by == By::Order { own } else { by });
        self.list.reserve(route.models.iter().map(|(_, lines)| lines.len()).sum());
        let mut fallbacks: SmallVec<[ModelId; 8]> = SmallVec::new();
        for (index, (id, lines)) in route.models.iter().enumerate() {
            if self.seen.contains(id) {
                continue;
            }
            self.seen.push(*id);
            let row = &self.table.models[*id];
            let from = self.list.len();
            self.lines(lines, None, &Name::Known(&row.name), why);
            for candidate in &mut self.list[from..] {
                candidate.weight = route.weights.get(index).copied().unwrap_or(1);
                candidate.member = u16::try_from(index).unwrap_or(u16::MAX);
            }
            fallbacks.extend_from_slice(&row.fallbacks);
        }
        for id in fallbacks {
            self.model(id, &self.table.models[id].lines, By::Order, Why::Fallback);
        }
    }

    /// A model's own targets, then those of its fallbacks, depth first, each model once.
    fn model(&mut self, id: ModelId, lines: &'t [Line], by: By, why: Why) {
        // An explicit stack: configs may chain as many models as they like.
        let mut stack: SmallVec<[(ModelId, &'t [Line], Why); 8]> = SmallVec::new();
        stack.push((id, lines, why));
        while let Some((id, lines, why)) = stack.pop() {
            if self.seen.contains(&id) {
                continue;
            }
            self.seen.push(id);
            let row = &self.table.models[id];
            self.begin(by);
            self.lines(lines, None, &Name::Known(&row.name), why);
            for next in row.fallbacks.iter().rev() {
                stack.push((*next, &self.table.models[*next].lines, Why::Fallback));
            }
        }
    }

    fn direct(&mut self, name: &str, by: By, why: Why) -> bool {
        let table = self.table;
        let Some((provider, upstream)) = name.split_once('/') else { return false };
        let Some(id) = table.provider_by_name.get(provider) else { return false };
        if upstream.is_empty() || upstream == "*" {
            return false;
        }
        let lines = &table.providers[*id].wildcard;
        self.begin(by);
        self.lines(lines, Some(&Arc::from(upstream)), &Name::Given(Arc::from(name)), why);
        true
    }

    /// Begins a group. What the request says of sorting is stronger than any policy.
    fn begin(&mut self, by: By) {
        self.ranks.push(self.sort.unwrap_or(by));
    }

    /// Adds lines to the group under way. Lines of one target with several keys stand side by side; they
    /// are rotated by `turn`.
    fn lines(&mut self, lines: &'t [Line], named: Option<&Arc<str>>, shown: &Name<'t>, why: Why) {
        let table = self.table;
        let targets = &table.targets;
        let same = |a: &Line, b: &Line| {
            let (a, b) = (&targets[a.target], &targets[b.target]);
            a.provider == b.provider && a.model == b.model
        };
        let group = u16::try_from(self.ranks.len().saturating_sub(1)).unwrap_or(u16::MAX);
        for (place, keys) in lines.chunk_by(same).enumerate() {
            for step in 0..keys.len() {
                let line = &keys[(self.turn as usize).wrapping_add(step) % keys.len()];
                let target = &targets[line.target];
                let (model, facts) = match (&target.model, named) {
                    (Some(model), _) => (Name::Known(model), &target.facts),
                    (None, Some(named)) => {
                        (Name::Given(named.clone()), table.facts_of(target.provider, named))
                    }
                    (None, None) => (Name::Given(Arc::default()), &target.facts),
                };
                let usual = match why {
                    Why::Primary if place > 0 => Why::Target,
                    other => other,
                };
                self.list.push(Candidate {
                    line,
                    model,
                    shown: shown.clone(),
                    facts,
                    why: if step == 0 { usual } else { Why::Credential },
                    standing: table.breaker_at(line.target, line.own).standing(self.now),
                    by: By::Order,
                    score: 0.0,
                    best: Best::default(),
                    weight: 1,
                    member: 0,
                    lacks_token: self.table.providers[target.provider].lacks_token(self.now),
                    fates: None,
                    provider: target.provider,
                    group,
                    place: u16::try_from(place).unwrap_or(u16::MAX),
                });
            }
        }
    }
}

/// Asks how the request's parameters fare, once for each kind and model.
fn judge(table: &Table, wish: &Wish, list: &mut List<'_>) {
    let Some(judge) = wish.judge.0 else { return };
    let mut known: Vec<(Kind, Arc<str>, Rc<Fates>)> = Vec::new();
    for candidate in list.iter_mut() {
        let (kind, model) = (table.providers[candidate.provider].kind, candidate.model.get());
        let same = known.iter().find(|(k, m, _)| *k == kind && m == model);
        let fates = match same {
            Some((_, _, fates)) => fates.clone(),
            None => {
                let fates = Rc::new(judge(kind, model));
                known.push((kind, model.clone(), fates.clone()));
                fates
            }
        };
        candidate.fates = Some(fates);
    }
}

/// What the request's own rules and its needs leave; gives the lacks of those that can't serve it.
fn filter<'t>(
    table: &Table,
    wish: &Wish,
    list: &mut List<'t>,
    note: &mut dyn FnMut(Note<'_, 't>),
) -> Vec<(Arc<str>, Lack)> {
    let mut unfit = Vec::new();
    judge(table, wish, list);
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
        if !wish.allow_fallbacks && outside {
            return Some(Left::NoFallbacks);
        }
        match (wish.max_price, candidate.facts.price) {
            (Some(_), None) => return Some(Left::NoPrice),
            (Some(most), Some(price))
                if price.input > most.prompt || price.output > most.output =>
            {
                return Some(Left::TooDear);
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
        let none = &Fates::new();
        let fates = candidate.fates.as_deref().unwrap_or(none);
        fit::lack(candidate.facts, wish, fates).map(Left::Unfit)
    };
    list.retain(|candidate| {
        let Some(left) = allows(candidate) else { return true };
        if let Left::Unfit(lack) = &left {
            unfit.push((table.targets[candidate.line.target].name.clone(), lack.clone()));
        }
        note(Note::Left(candidate, left));
        false
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
    unfit
}

/// Puts the target that holds the conversation's prompt in its cache at the head of its group. Where the
/// group is ranked, the rank has counted that already; where the request orders providers, it knows better.
fn prefer_warm(warm: TargetId, wish: &Wish, ranks: &[By], list: &mut List<'_>) {
    let Some(at) = list.iter().position(|candidate| candidate.line.target == warm) else { return };
    let group = list[at].group;
    let ranked = ranks.get(usize::from(group)).is_some_and(|by| *by != By::Order);
    if ranked || !wish.order.is_empty() {
        return;
    }
    let first = list.iter().position(|candidate| candidate.group == group).unwrap_or(at);
    if first < at {
        list[first..=at].rotate_right(1);
        list[first].why = Why::Warm;
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
    // One bit for each target: of two in the plan, few plans have any.
    let mut bits: SmallVec<[u64; 16]> = SmallVec::from_elem(0, table.targets.len().div_ceil(64));
    let mut index = 0;
    while index < list.len() {
        let candidate = &list[index];
        let id = candidate.line.target;
        let Some(word) = bits.get_mut(id.index() / 64) else { break };
        let bit = 1 << (id.index() % 64);
        // A target that the config knows is never reached as another; through a wildcard it may be.
        let is_same = |before: &Candidate<'_>| {
            before.line.target == id && before.model.get() == candidate.model.get()
        };
        let is_named = table.targets[id].model.is_some();
        if *word & bit != 0 && (is_named || list[..index].iter().any(is_same)) {
            note(Note::Left(candidate, Left::Duplicate));
            list.remove(index);
        } else {
            *word |= bit;
            index += 1;
        }
    }
}

/// Whatever comes first after filters is the primary, unless the request's order put it there, and
/// nothing else is.
fn name_reasons(list: &mut List<'_>) {
    for (index, candidate) in list.iter_mut().enumerate() {
        candidate.why = match (index, candidate.why) {
            (0, why @ (Why::Ordered | Why::Ranked | Why::Explored | Why::Warm)) => why,
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
    let is_well = |candidate: &Candidate<'_>| {
        let ready = matches!(candidate.standing, Standing::Ready | Standing::HalfOpen);
        ready && !candidate.lacks_token
    };
    if list.iter().all(is_well) {
        return;
    }
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
fn attempt(table: &Table, candidate: &Candidate<'_>, hedge: Option<Hedge>, wish: &Wish) -> Attempt {
    let settings = &candidate.line.settings;
    let answer = settings.answer_timeout;
    let streamed = |time: Ms| if wish.stream { time } else { answer };
    let speed = &table.targets[candidate.line.target].speed;
    // By its own times, a head later than the first content may be is late too.
    let (first, head) = match settings.first_content_timeout {
        Patience::For(first) => (first, settings.head_timeout),
        Patience::Auto => {
            let first = Patience::Auto.time(speed.percentile(99));
            (first, settings.head_timeout.min(first))
        }
    };
    Attempt {
        target: candidate.line.target,
        model: candidate.model.get().clone(),
        shown: candidate.shown.get().clone(),
        window: candidate.facts.context,
        why: candidate.why,
        connect: settings.connect_timeout,
        head: streamed(head),
        first: streamed(first),
        idle: streamed(settings.idle_timeout),
        answer: if wish.stream { Ms::MAX } else { answer },
        floor: if wish.stream { settings.throughput_floor } else { 0 },
        hedge: hedge.and_then(|hedge| match hedge {
            Hedge::After(time) => Some(time),
            Hedge::Percentile(percent) => speed.percentile(percent),
        }),
        own: candidate.line.own,
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
        deadline: wish.deadline.unwrap_or(usual).min(total),
        total,
        on_content_policy: settings.on_content_policy,
        replay: settings.replay,
    }
}
