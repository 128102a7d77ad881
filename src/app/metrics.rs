//! What the gateway counts, and Prometheus' view of it.
//!
//! Cores count into rows of their own (`rows`); a scrape adds the rows up (`render`) and writes text
//! (`text`). The path of a request takes no lock and allocates nothing; its ledger then goes on to the
//! log. Series are bounded by the config: target and provider names come from the tables that were in
//! force (`series`), and what is in none counts as `other`.

mod render;
mod rows;
mod series;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::app::ledger_log::Log;
use crate::app::say;
use crate::app::worker::Health;
use crate::base::ids::{CoreId, Id as _};
use crate::base::tick::{Ms, UnixMs};
use crate::config::LedgerTo;
use crate::exchange::ledger::Ledger;
use crate::net::load::Shed;
use crate::net::watch::{NoSession, Watch};
use crate::route::Table;
use crate::rt::uring;

use rows::{Count, Row};
use series::Series;

/// The counters of this process, and the way to its ledger log.
pub struct Metrics {
    series: ArcSwap<Series>,
    rows: Vec<Row>,
    log: Option<Log>,
    started: UnixMs,
    reloads: Reloads,
}

/// What came of the reloads.
#[derive(Default)]
struct Reloads {
    taken: Count,
    refused: Count,
    /// The last one was refused.
    failing: AtomicBool,
    /// When the last one was taken in, or the process started.
    taken_at_ms: Count,
}

/// What a scrape shows besides the counters.
pub struct Extra<'a> {
    /// What the cores are doing.
    pub health: &'a Health,
    /// How many there are.
    pub cores: usize,
}

impl Metrics {
    /// Counters for so many cores and the targets of `table`; ledgers are counted and then forgotten.
    pub fn new(cores: usize, table: &Table) -> Metrics {
        let (cores, started) = (cores.max(1), uring::wall());
        let rows = (0..cores).map(|_| Row::new()).collect();
        let series = ArcSwap::from_pointee(Series::new(cores, table));
        let reloads = Reloads::default();
        reloads.taken_at_ms.set(started.0);
        Metrics { series, rows, log: None, started, reloads }
    }

    /// Counters for the cores of this machine, with the ledger log.
    ///
    /// # Errors
    /// The log can't be opened.
    pub fn start(to: &LedgerTo, table: &Table) -> Result<Arc<Metrics>, String> {
        let cores = core_affinity::get_core_ids().map_or(1, |cores| cores.len());
        let mut metrics = Metrics::new(cores, table);
        metrics.log = Some(Log::start(to)?);
        Ok(Arc::new(metrics))
    }

    /// Writes what waits in the ledger log; at most two seconds. Says whether all of it is written.
    pub fn flush(&self) -> bool {
        self.log.as_ref().is_none_or(Log::flush)
    }

    /// The last exchange's ledger; waits at most `patience` for a first one.
    pub fn last_ledger(&self, patience: Duration) -> Option<Ledger> {
        self.log.as_ref()?.last(patience)
    }

    /// Ledgers whose line was not written.
    pub fn lines_dropped(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::dropped)
    }

    fn slot(&self, core: CoreId) -> usize {
        core.index() % self.rows.len()
    }

    fn row(&self, core: CoreId) -> &Row {
        &self.rows[self.slot(core)]
    }
}

impl Watch for Metrics {
    fn connected(&self, core: CoreId) {
        self.row(core).connected.add(1);
    }

    fn disconnected(&self, core: CoreId) {
        self.row(core).disconnected.add(1);
    }

    fn began(&self, core: CoreId) {
        self.row(core).began.add(1);
    }

    fn ended(&self, core: CoreId, ledger: Ledger) {
        self.row(core).record(&ledger, &self.series.load(), self.slot(core));
        if let Some(log) = &self.log {
            log.put(ledger);
        }
    }

    fn dialed(&self, core: CoreId, fresh: bool) {
        let row = self.row(core);
        let count = if fresh { &row.fresh } else { &row.pooled };
        count.add(1);
    }

    fn shed(&self, core: CoreId, why: Shed) {
        self.row(core).shed[why as usize].add(1);
    }

    fn too_slow(&self, core: CoreId) {
        self.row(core).too_slow.add(1);
    }

    fn no_session(&self, core: CoreId, why: NoSession) {
        self.row(core).no_session[why as usize].add(1);
    }

    fn publishing(&self, table: &Table) {
        self.series.rcu(|series| series.with(table));
    }

    fn reloaded(&self, taken: bool) {
        self.reloads.failing.store(!taken, Ordering::Relaxed);
        if taken {
            self.reloads.taken.add(1);
            self.reloads.taken_at_ms.set(uring::wall().0);
        } else {
            self.reloads.refused.add(1);
        }
    }

    fn late(&self, core: CoreId, late: Ms, waiting: usize) {
        self.row(core).late.set(u64::from(late.0));
        self.row(core).waiting.set(waiting as u64);
    }

    fn no_descriptor(&self, core: CoreId, news: bool) {
        self.row(core).no_descriptor.add(1);
        if news {
            say::log(
                "no descriptor is left: connections wait or are refused until some close (ulimit -n)",
            );
        }
    }

    fn descriptors_again(&self, _core: CoreId) {
        say::log("descriptors are there again");
    }
}

#[cfg(test)]
pub(crate) mod tests;
