//! Policies: who comes first within a group of candidates. A pure function of the table, the request, the
//! core's turn and the time: the same for dispatch and for explain.
//!
//! | by | lower is better |
//! | --- | --- |
//! | price | US dollars for this request: prompt (what a warm cache holds at its price) and answer |
//! | time | (first content + answer / rate) / (1 - failures), four fifths of it where the cache is warm |
//! | latency, throughput | first content alone; the inverse of the rate alone |
//! | balance | 0.4 price + 0.4 time + 0.5 failures - 0.15 if the cache is warm |
//! | weight | the share of its model, drawn evenly over the turns |
//!
//! In the balance, price is `1 - cheapest / own` and time `1 - quickest / own`, so that both run from 0 (the
//! best) to 1. A price that is not known counts as 0.5 there, and as the highest where price alone decides.
//! A target that was never measured counts as the quickest, so that it is measured; one that only ever
//! failed as ten seconds. One turn in twenty goes to the target that was not measured for longest.

use smallvec::SmallVec;

use super::affinity::Warm;
use super::health::Standing;
use super::pick::Candidate;
use super::plan::{Table, Why, Wish};
use super::speed::Reading;
use crate::base::tick::{Ms, Tick};
use crate::config::Policy;

/// What a group is ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// As it is written.
    Order,
    /// The weights of its models.
    Weight,
    /// The price of this request.
    Price,
    /// The time until the answer is there.
    Time,
    /// The time to first content.
    Latency,
    /// Tokens a second.
    Throughput,
    /// Price, time and failures.
    Balance,
}

impl By {
    /// The rank of a policy.
    pub const fn policy(policy: Policy) -> By {
        match policy {
            Policy::Order => By::Order,
            Policy::Weighted => By::Weight,
            Policy::Cheapest => By::Price,
            Policy::Fastest => By::Time,
            Policy::Balanced => By::Balance,
        }
    }

    /// A suffix of a model's name, as OpenRouter has it.
    pub fn suffix(name: &str) -> Option<(&str, By)> {
        let (model, suffix) = name.rsplit_once(':')?;
        match suffix {
            "floor" => Some((model, By::Price)),
            "nitro" => Some((model, By::Throughput)),
            _ => None,
        }
    }

    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            By::Order => "order",
            By::Weight => "weight",
            By::Price => "price",
            By::Time => "time",
            By::Latency => "latency",
            By::Throughput => "throughput",
            By::Balance => "balance",
        }
    }

    const fn is_measured(self) -> bool {
        match self {
            By::Order | By::Weight | By::Price => false,
            By::Time | By::Latency | By::Throughput | By::Balance => true,
        }
    }
}

/// What is known of a candidate for one request.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Figures {
    /// US dollars, estimated.
    pub cost: Option<f64>,
    /// Seconds until the whole answer, estimated; `None`: never measured.
    pub time: Option<f64>,
    /// What was measured.
    pub reading: Reading,
    /// Prompt tokens that a warm cache holds; 0: it is cold.
    pub cached: u32,
}

/// Tokens of an answer where nothing says how long it will be.
const ANSWER_TOKENS: u32 = 400;
/// Seconds of a target that never gave anything.
const NEVER: f64 = 10.0;
/// What is left of the time where the cache is warm.
const WARM_TIME: f64 = 0.8;
/// One turn in so many explores.
const EXPLORE: u32 = 20;
/// A target that was measured less long ago needs no exploring.
const EXPLORE_AGE: Ms = Ms(5_000);

/// The figures of a candidate.
pub(super) fn figures(
    table: &Table,
    wish: &Wish,
    warm: Option<Warm>,
    candidate: &Candidate<'_>,
    now: Tick,
) -> Figures {
    figures_for(By::Balance, table, wish, warm, candidate, now)
}

/// The figures that a rank asks for; the others are left empty.
#[inline]
fn figures_for(
    by: By,
    table: &Table,
    wish: &Wish,
    warm: Option<Warm>,
    candidate: &Candidate<'_>,
    now: Tick,
) -> Figures {
    let demand = &wish.demand;
    let answer = demand.output.unwrap_or(ANSWER_TOKENS).min(ANSWER_TOKENS);
    let warm = warm.filter(|warm| warm.target == candidate.line.target);
    let mut figures = Figures {
        cached: warm.map_or(0, |warm| warm.tokens.min(demand.prompt)),
        ..Figures::default()
    };
    if matches!(by, By::Price | By::Balance) {
        let price = candidate.facts.price;
        figures.cost = price.map(|price| price.of(demand.prompt, figures.cached, answer));
    }
    if by.is_measured() {
        figures.reading = table.targets[candidate.line.target].speed.read(now);
        let share = if warm.is_some() { WARM_TIME } else { 1.0 };
        figures.time = time(&figures.reading, f64::from(answer)).map(|time| time * share);
    }
    figures
}

fn time(reading: &Reading, answer: f64) -> Option<f64> {
    let first = match reading.first {
        Some(first) => f64::from(first),
        None if reading.errors > 0.0 => NEVER,
        None => return None,
    };
    let rest = reading.rate.map_or(0.0, |rate| answer / f64::from(rate).max(0.1));
    Some((first + rest) / (1.0 - f64::from(reading.errors).min(0.95)))
}

/// The score of each candidate by which it is sorted: lower is better.
fn score(by: By, figures: &Figures, best: &Best) -> f64 {
    match by {
        By::Order | By::Weight => 0.0,
        By::Price => figures.cost.unwrap_or(f64::MAX),
        By::Time => figures.time.unwrap_or(0.0),
        By::Latency => {
            let reading = Reading { rate: None, ..figures.reading };
            time(&reading, 0.0).unwrap_or(0.0)
        }
        By::Throughput => match figures.reading.rate {
            Some(rate) => 1.0 / f64::from(rate).max(1e-3),
            None if figures.reading.errors > 0.0 => f64::MAX,
            None => 0.0,
        },
        By::Balance => {
            let terms = terms(figures, best);
            0.4 * terms.price + 0.4 * terms.time + 0.5 * terms.failures - terms.warm
        }
    }
}

/// The terms of a balanced score.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Terms {
    /// 0 for the cheapest, towards 1; 0.5 if it is not known.
    pub price: f64,
    /// 0 for the quickest, towards 1.
    pub time: f64,
    /// The share of failures of late.
    pub failures: f64,
    /// 0.15 if the cache is warm.
    pub warm: f64,
}

/// The best figures of a group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Best {
    cost: f64,
    time: f64,
}

impl Best {
    fn of<'f>(all: impl Iterator<Item = &'f Figures>) -> Best {
        all.fold(Best { cost: f64::MAX, time: f64::MAX }, |best, figures| Best {
            cost: best.cost.min(figures.cost.unwrap_or(f64::MAX)),
            time: best.time.min(figures.time.unwrap_or(f64::MAX)),
        })
    }
}

pub(super) fn terms(figures: &Figures, best: &Best) -> Terms {
    let behind = |best: f64, own: f64| if own > 0.0 { 1.0 - best / own } else { 0.0 };
    Terms {
        price: figures.cost.map_or(0.5, |cost| behind(best.cost, cost)),
        time: figures.time.map_or(0.0, |time| behind(best.time, time)),
        failures: f64::from(figures.reading.errors),
        warm: if figures.cached > 0 { 0.15 } else { 0.0 },
    }
}

/// What ranking looks at besides the candidates.
pub(super) struct Ground<'t> {
    pub(super) table: &'t Table,
    pub(super) turn: u32,
    pub(super) now: Tick,
    pub(super) warm: Option<Warm>,
}

/// Sorts one group, stably.
pub(super) fn rank(group: &mut [Candidate<'_>], by: By, wish: &Wish, ground: &Ground<'_>) {
    if by == By::Order || group.len() < 2 {
        return;
    }
    match by {
        By::Weight => draw(group, ground.turn),
        By::Order => {}
        By::Price | By::Time | By::Latency | By::Throughput | By::Balance => {
            sort(group, by, wish, ground);
        }
    }
    for candidate in group.iter_mut() {
        candidate.by = by;
        if candidate.why != Why::Credential && candidate.why != Why::Explored {
            candidate.why = Why::Ranked;
        }
    }
}

/// Sorts by score. What is moved about are scores and places; candidates are moved once.
fn sort(group: &mut [Candidate<'_>], by: By, wish: &Wish, ground: &Ground<'_>) {
    let one =
        |candidate: &Candidate<'_>| figures(ground.table, wish, ground.warm, candidate, ground.now);
    let all: SmallVec<[Figures; 64]> = group.iter().map(one).collect();
    let best = Best::of(all.iter());
    let mut ranks: SmallVec<[Rank; 64]> = SmallVec::with_capacity(group.len());
    for (index, (candidate, figures)) in group.iter_mut().zip(&all).enumerate() {
        candidate.best = best;
        candidate.score = score(by, figures, &best);
        ranks.push(Rank { score: candidate.score, from: index as u32, at: figures.reading.at });
    }
    ranks.sort_by(|a, b| a.score.total_cmp(&b.score));
    let explored = by.is_measured() && explore(&mut ranks, group, by, ground);
    // Follows each circle of the permutation.
    for start in 0..ranks.len() {
        let mut at = start;
        loop {
            let from = ranks[at].from as usize;
            ranks[at].from = at as u32;
            if from == start {
                break;
            }
            group.swap(at, from);
            at = from;
        }
    }
    if explored {
        group[0].why = Why::Explored;
    }
}

/// A candidate's score, where it stands, and when it was measured last.
#[derive(Clone, Copy)]
struct Rank {
    score: f64,
    from: u32,
    at: Tick,
}

/// Puts the model whose share the turn falls into first, the others behind it by their weight. The turn
/// is spread over the shares by the golden ratio: any number of turns in a row is as even as it can be.
fn draw(group: &mut [Candidate<'_>], turn: u32) {
    let mut total = 0u64;
    let mut last = None;
    for candidate in group.iter().filter(|candidate| candidate.weight > 0) {
        if last != Some(candidate.member) {
            total += u64::from(candidate.weight);
            last = Some(candidate.member);
        }
    }
    const GOLDEN: u32 = 0x9e37_79b9;
    let mut left = (u64::from(turn.wrapping_mul(GOLDEN)) * total) >> 32;
    let mut drawn = None;
    last = None;
    for candidate in group.iter() {
        if last == Some(candidate.member) {
            continue;
        }
        last = Some(candidate.member);
        if left < u64::from(candidate.weight) {
            drawn = last;
            break;
        }
        left -= u64::from(candidate.weight);
    }
    group.sort_by_key(|candidate| {
        (Some(candidate.member) != drawn, std::cmp::Reverse(candidate.weight), candidate.member)
    });
}

/// Lets targets be measured: those that never were, in turn, and now and then the one that was not for
/// longest. Says whether the first one explores.
fn explore(ranks: &mut [Rank], group: &[Candidate<'_>], by: By, ground: &Ground<'_>) -> bool {
    // Unmeasured ones stand first: requests at once are spread over them.
    let never = ranks.iter().take_while(|rank| rank.at == Tick(0)).count();
    if never > 1 && by != By::Balance {
        ranks[..never].rotate_left(ground.turn as usize % never);
    }
    if never > 0 || ground.turn % EXPLORE != EXPLORE - 1 {
        return false;
    }
    let is_well = |rank: &Rank| match group[rank.from as usize].standing {
        Standing::Ready | Standing::HalfOpen => true,
        Standing::Open { .. } | Standing::Cooling { .. } => false,
    };
    let well = (1..ranks.len()).filter(|index| is_well(&ranks[*index]));
    let oldest = well.min_by_key(|index| ranks[*index].at);
    let Some(index) = oldest.filter(|index| ranks[*index].at + EXPLORE_AGE <= ground.now) else {
        return false;
    };
    ranks[..=index].rotate_right(1);
    true
}

#[cfg(test)]
mod tests;
