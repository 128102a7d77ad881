//! The counters: a row for each core, written without locks or allocation, read by the scrape.
//!
//! Every slot is bounded by the config and by our own enums: a name that a client chose never makes a
//! series. Rows lie on cache lines of their own, so that cores don't wait for each other. A row may be
//! shared by cores when there are more of them than rows; it is slower then, never wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use super::series::Series;
use crate::app::ledger_log::is_our_fault;
use crate::base::fail::Fault;
use crate::exchange::ledger::{AttemptRecord, CommittedBy, Ending, Ledger, Outcome};
use crate::llm::request::Surface;
use crate::net::load::Shed;
use crate::net::watch::NoSession;

/// A counter. Nothing is ordered by it: each number stands for itself.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets in microseconds: from a cached answer to the longest exchange.
pub(super) const BOUNDS: [u64; 19] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];

/// The same in seconds, as the exposition says them.
pub(super) const BOUNDS_TEXT: [&str; 19] = [
    "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5",
    "10", "20", "30", "60", "120", "300", "600",
];

/// Buckets of a histogram, the one without bound included.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// Durations.
#[derive(Default)]
pub(super) struct Histogram {
    pub(super) buckets: [Count; BUCKETS],
    pub(super) micros: Count,
}

impl Histogram {
    /// Counts one duration, in microseconds.
    pub(super) fn observe(&self, micros: u64) {
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].add(1);
        self.micros.add(micros);
    }
}

/// Every surface, by slot.
pub(super) const SURFACES: [Surface; 10] = [
    Surface::Chat,
    Surface::Messages,
    Surface::Responses,
    Surface::Completions,
    Surface::Embeddings,
    Surface::Other,
    Surface::Models,
    Surface::Explain,
    Surface::None,
    Surface::CountTokens,
];

const fn surface_slot(surface: Surface) -> usize {
    match surface {
        Surface::Chat => 0,
        Surface::Messages => 1,
        Surface::Responses => 2,
        Surface::Completions => 3,
        Surface::Embeddings => 4,
        Surface::Other => 5,
        Surface::Models => 6,
        Surface::Explain => 7,
        Surface::None => 8,
        Surface::CountTokens => 9,
    }
}

/// What turned the flag, by slot.
pub(super) const COMMITTED: [CommittedBy; 9] = [
    CommittedBy::Head,
    CommittedBy::FirstEvent,
    CommittedBy::FirstContent,
    CommittedBy::Tokens,
    CommittedBy::Complete,
    CommittedBy::HoldFull,
    CommittedBy::AnswerFull,
    CommittedBy::Error,
    CommittedBy::Local,
];

const fn committed_slot(by: CommittedBy) -> usize {
    match by {
        CommittedBy::Head => 0,
        CommittedBy::FirstEvent => 1,
        CommittedBy::FirstContent => 2,
        CommittedBy::Tokens => 3,
        CommittedBy::Complete => 4,
        CommittedBy::HoldFull => 5,
        CommittedBy::AnswerFull => 6,
        CommittedBy::Error => 7,
        CommittedBy::Local => 8,
    }
}

/// Classes of statuses, by slot.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

fn class_slot(status: u16) -> usize {
    match status {
        100..=599 => usize::from(status / 100) - 1,
        _ => 5,
    }
}

/// Endings, by slot.
pub(super) const ENDINGS: [&str; 6] = ["good", "local", "error", "cut", "gone", "slow"];

const fn ending_slot(ending: Ending) -> usize {
    match ending {
        Ending::Good => 0,
        Ending::Local => 1,
        Ending::Error => 2,
        Ending::Cut(_) => 3,
        Ending::Gone => 4,
        Ending::Slow => 5,
    }
}

/// Outcomes that are no faults, by slot; the faults follow.
const PLAIN_OUTCOMES: [&str; 5] = ["ok", "status_3xx", "status_4xx", "status_429", "status_5xx"];
const FAULTS: usize = Fault::ALL.len();
/// How many outcomes are told apart.
pub(super) const OUTCOMES: usize = PLAIN_OUTCOMES.len() + FAULTS;

const fn outcome_slot(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Status(429) => 3,
        Outcome::Status(..400) => 1,
        Outcome::Status(..500) => 2,
        Outcome::Status(_) => 4,
        Outcome::Fault(fault) => PLAIN_OUTCOMES.len() + fault as usize,
    }
}

/// The name of an outcome's slot.
pub(super) fn outcome_name(slot: usize) -> &'static str {
    match PLAIN_OUTCOMES.get(slot) {
        Some(name) => name,
        None => Fault::ALL.get(slot - PLAIN_OUTCOMES.len()).map_or("other", |fault| fault.name()),
    }
}

/// What one core counts of one target.
#[repr(align(64))]
pub(super) struct TargetRow {
    pub(super) outcomes: [Count; OUTCOMES],
    /// Attempts that failed by our own credential or mapping.
    pub(super) warnings: Count,
    pub(super) prompt: Count,
    pub(super) completion: Count,
    /// Billionths of a US dollar.
    pub(super) cost_nanos: Count,
}

impl TargetRow {
    pub(super) fn new() -> TargetRow {
        TargetRow {
            outcomes: std::array::from_fn(|_| Count::default()),
            warnings: Count::default(),
            prompt: Count::default(),
            completion: Count::default(),
            cost_nanos: Count::default(),
        }
    }
}

/// One core's counters.
#[repr(align(64))]
pub(super) struct Row {
    pub(super) connected: Count,
    pub(super) disconnected: Count,
    pub(super) began: Count,
    pub(super) ended: Count,
    pub(super) fresh: Count,
    pub(super) pooled: Count,
    pub(super) events: Count,
    pub(super) bytes_in: Count,
    pub(super) bytes_out: Count,
    pub(super) wasted: Count,
    pub(super) replays: Count,
    pub(super) hedges: Count,
    pub(super) refusals: Count,
    pub(super) gone_before: Count,
    pub(super) gone_after: Count,
    /// By reason.
    pub(super) shed: [Count; Shed::ALL.len()],
    pub(super) too_slow: Count,
    /// By reason.
    pub(super) no_session: [Count; NoSession::ALL.len()],
    pub(super) no_descriptor: Count,
    /// How late the core's event loop is, in milliseconds: a gauge.
    pub(super) late: Count,
    /// Requests that a late core has not looked at: a gauge.
    pub(super) waiting: Count,
    pub(super) commit: Histogram,
    pub(super) exchange: Histogram,
    /// By surface, class, ending.
    pub(super) requests: [[[Count; ENDINGS.len()]; CLASSES.len()]; SURFACES.len()],
    pub(super) committed: [Count; COMMITTED.len()],
    /// By fault.
    pub(super) cuts: [Count; FAULTS],
}

impl Row {
    pub(super) fn new() -> Row {
        Row {
            connected: Count::default(),
            disconnected: Count::default(),
            began: Count::default(),
            ended: Count::default(),
            fresh: Count::default(),
            pooled: Count::default(),
            events: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            wasted: Count::default(),
            replays: Count::default(),
            hedges: Count::default(),
            refusals: Count::default(),
            gone_before: Count::default(),
            gone_after: Count::default(),
            shed: Default::default(),
            too_slow: Count::default(),
            no_session: Default::default(),
            no_descriptor: Count::default(),
            late: Count::default(),
            waiting: Count::default(),
            commit: Histogram::default(),
            exchange: Histogram::default(),
            requests: Default::default(),
            committed: Default::default(),
            cuts: std::array::from_fn(|_| Count::default()),
        }
    }

    /// Counts all that a ledger of core `core` says.
    pub(super) fn record(&self, ledger: &Ledger, series: &Series, core: usize) {
        self.ended.add(1);
        let by_class = &self.requests[surface_slot(ledger.surface)][class_slot(ledger.status)];
        by_class[ending_slot(ledger.ending)].add(1);
        self.exchange.observe(ledger.ended.since(ledger.began));
        if let Some((at, by)) = ledger.committed {
            self.committed[committed_slot(by)].add(1);
            // Errors and answers of our own would drown the providers' pace.
            if ledger.winner.is_some() {
                self.commit.observe(at.since(ledger.began));
            }
        }
        match ledger.ending {
            Ending::Good | Ending::Local | Ending::Error => {}
            Ending::Cut(fault) => self.cuts[fault as usize].add(1),
            Ending::Gone if ledger.committed.is_some() => self.gone_after.add(1),
            Ending::Gone => self.gone_before.add(1),
            Ending::Slow => self.too_slow.add(1),
        }
        self.events.add(u64::from(ledger.events));
        self.bytes_in.add(ledger.bytes_in);
        self.bytes_out.add(ledger.bytes_out);
        self.wasted.add(ledger.wasted);
        self.refusals.add(u64::from(ledger.budget_spent));
        for attempt in &ledger.attempts {
            self.attempt(attempt, series, core);
        }
        if let (Some(attempt), Some(usage)) = (ledger.answered(), ledger.usage) {
            let row = &series.targets[series.slot(attempt)].rows[core];
            row.prompt.add(usage.prompt);
            row.completion.add(usage.completion);
            row.cost_nanos.add(ledger.cost_nanos.unwrap_or(0));
        }
    }

    fn attempt(&self, attempt: &AttemptRecord, series: &Series, core: usize) {
        let target = &series.targets[series.slot(attempt)];
        let row = &target.rows[core];
        row.outcomes[outcome_slot(attempt.outcome())].add(1);
        row.warnings.add(u64::from(is_our_fault(attempt)));
        self.replays.add(u64::from(attempt.replayed));
        self.hedges.add(u64::from(attempt.hedge));
        if let Some(first) = attempt.first {
            series.providers[target.provider].first[core].0.observe(first.since(attempt.began));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_the_name_that_it_counts() {
        for (slot, surface) in SURFACES.iter().enumerate() {
            assert_eq!(surface_slot(*surface), slot);
        }
        for (slot, by) in COMMITTED.iter().enumerate() {
            assert_eq!(committed_slot(*by), slot);
        }
        for (status, class) in
            [(0, "other"), (99, "other"), (100, "1xx"), (200, "2xx"), (304, "3xx")]
        {
            assert_eq!(CLASSES[class_slot(status)], class);
        }
        for (status, class) in [(499, "4xx"), (599, "5xx"), (600, "other"), (999, "other")] {
            assert_eq!(CLASSES[class_slot(status)], class);
        }
        let endings = [
            Ending::Good,
            Ending::Local,
            Ending::Error,
            Ending::Cut(Fault::Eof),
            Ending::Gone,
            Ending::Slow,
        ];
        for ending in endings {
            assert_eq!(ENDINGS[ending_slot(ending)], ending.name());
        }
        for fault in Fault::ALL {
            let slot = outcome_slot(Outcome::Fault(*fault));
            assert!(slot < OUTCOMES);
            assert_eq!(outcome_name(slot), fault.name());
        }
        for (status, name) in [
            (302, "status_3xx"),
            (400, "status_4xx"),
            (428, "status_4xx"),
            (429, "status_429"),
            (430, "status_4xx"),
            (499, "status_4xx"),
            (500, "status_5xx"),
            (999, "status_5xx"),
        ] {
            assert_eq!(outcome_name(outcome_slot(Outcome::Status(status))), name);
        }
        assert_eq!(outcome_name(outcome_slot(Outcome::Ok)), "ok");
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        // The naive way as the oracle.
        let naive = |micros: u64| BOUNDS.iter().position(|b| micros <= *b).unwrap_or(BUCKETS - 1);
        for edge in
            BOUNDS.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]).chain([0, u64::MAX])
        {
            let histogram = Histogram::default();
            histogram.observe(edge);
            let at = histogram.buckets.iter().position(|bucket| bucket.get() == 1);
            assert_eq!(at, Some(naive(edge)), "{edge}");
            assert_eq!(histogram.micros.get(), edge);
        }
        for (bound, text) in BOUNDS.iter().zip(BOUNDS_TEXT) {
            assert_eq!(*bound as f64 / 1e6, text.parse::<f64>().unwrap());
        }
    }
}
