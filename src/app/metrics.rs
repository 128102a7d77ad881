//! What the gateway counts, and Prometheus' view of it.
//!
//! Cores count into rows of their own (`rows`); a scrape adds the rows up (`render`) and writes text
//! (`text`). The path of a request takes no lock and allocates nothing; its ledger then goes on to the
//! log. Series are bounded by the config: target and provider names come from the table that the
//! metrics were made with, and what a reload added since counts as `other`.

mod render;
mod rows;
mod text;

use std::sync::Arc;
use std::time::Duration;

use crate::app::ledger_log::Log;
use crate::app::say;
use crate::app::worker::Health;
use crate::base::ids::{CoreId, Id as _};
use crate::base::tick::{Ms, UnixMs};
use crate::config::LedgerTo;
use crate::exchange::ledger::Ledger;
use crate::net::load::Shed;
use crate::net::watch::Watch;
use crate::route::Table;
use crate::rt::uring;

use rows::{Layout, Row};

/// The counters of this process, and the way to its ledger log.
pub struct Metrics {
    layout: Layout,
    rows: Vec<Row>,
    log: Option<Log>,
    started: UnixMs,
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
        let layout = Layout::new(table);
        let rows = (0..cores.max(1)).map(|_| Row::new(&layout)).collect();
        Metrics { layout, rows, log: None, started: uring::wall() }
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

    fn row(&self, core: CoreId) -> &Row {
        &self.rows[core.index() % self.rows.len()]
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
        self.row(core).record(&ledger, &self.layout);
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

    fn late(&self, core: CoreId, late: Ms) {
        self.row(core).late.set(u64::from(late.0));
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
