//! Which targets and providers have series, and their counters, by core.
//!
//! A list that only grows: a reload that brings new names makes a longer one, which shares the counters of
//! the one before, and is put in its place in one step. What a reload takes away keeps its series, as
//! Prometheus would have it, and goes on with them when it comes back. A core loads the list and counts;
//! it waits for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rows::{Histogram, TargetRow};
use crate::base::ids::Id as _;
use crate::exchange::ledger::AttemptRecord;
use crate::route::Table;

/// One target.
pub(super) struct TargetSeries {
    pub(super) name: Arc<str>,
    /// Slot of its provider.
    pub(super) provider: usize,
    /// By core.
    pub(super) rows: Box<[TargetRow]>,
}

/// One provider.
pub(super) struct ProviderSeries {
    pub(super) name: Arc<str>,
    /// Time to first content, by core.
    pub(super) first: Box<[First]>,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct First(pub(super) Histogram);

/// All that have series.
#[derive(Clone)]
pub(super) struct Series {
    pub(super) targets: Vec<Arc<TargetSeries>>,
    pub(super) providers: Vec<Arc<ProviderSeries>>,
    /// Slots of targets.
    by_name: BTreeMap<Arc<str>, usize>,
    /// Slots of targets by their ids in the latest table.
    by_id: Vec<usize>,
    cores: usize,
}

/// The slot of what no table has had.
const OTHER: usize = 0;

impl Series {
    /// Of the first table, for so many cores.
    pub(super) fn new(cores: usize, table: &Table) -> Series {
        let (targets, providers, by_id) = (Vec::new(), Vec::new(), Vec::new());
        let mut series = Series { targets, providers, by_name: BTreeMap::new(), by_id, cores };
        let provider = series.provider(&Arc::from("other"));
        series.target(&Arc::from("other"), provider);
        series.take_in(table);
        series
    }

    /// With what another table has besides.
    pub(super) fn with(&self, table: &Table) -> Series {
        let mut series = self.clone();
        series.take_in(table);
        series
    }

    fn take_in(&mut self, table: &Table) {
        // In the table's order, whether a target of it is used or not.
        let providers: Vec<usize> =
            table.providers.iter().map(|(_, row)| self.provider(&row.name)).collect();
        let targets = table.targets.iter();
        self.by_id = targets
            .map(|(_, target)| self.target(&target.name, providers[target.provider.index()]))
            .collect();
    }

    fn provider(&mut self, name: &Arc<str>) -> usize {
        // One that is really named `other` shares its series: two of one name would be no exposition.
        if let Some(slot) = self.providers.iter().position(|known| known.name == *name) {
            return slot;
        }
        let first = (0..self.cores).map(|_| First::default()).collect();
        self.providers.push(Arc::new(ProviderSeries { name: name.clone(), first }));
        self.providers.len() - 1
    }

    fn target(&mut self, name: &Arc<str>, provider: usize) -> usize {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let rows = (0..self.cores).map(|_| TargetRow::new()).collect();
        let slot = self.targets.len();
        self.targets.push(Arc::new(TargetSeries { name: name.clone(), provider, rows }));
        self.by_name.insert(name.clone(), slot);
        slot
    }

    /// The slot of an attempt's target. An id of another snapshot may mean another target, so the name
    /// decides.
    pub(super) fn slot(&self, record: &AttemptRecord) -> usize {
        let named = |slot: &usize| is_named(&self.targets[*slot].name, &record.name);
        let by_id = self.by_id.get(record.target.index()).copied().filter(named);
        let by_name = || self.by_name.get(&record.name).copied();
        // Of a snapshot that is gone, for any model of its provider: rare, so it may take a while.
        let of_any = || (0..self.targets.len()).find(|slot| *slot != OTHER && named(slot));
        by_id.or_else(by_name).or_else(of_any).unwrap_or(OTHER)
    }
}

/// Whether `asked` is the target of this name; `openai/*` stands for every model of its provider.
pub(super) fn is_named(target: &str, asked: &str) -> bool {
    target == asked
        || target.split_once("/*").is_some_and(|(provider, _)| {
            asked.strip_prefix(provider).is_some_and(|rest| rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_their_provider_only() {
        assert!(is_named("openai/gpt-4o", "openai/gpt-4o"));
        assert!(is_named("openai/*", "openai/any/thing"));
        assert!(is_named("openai/*#2", "openai/any"));
        assert!(!is_named("openai/*", "openai-eu/any"));
        assert!(!is_named("openai/gpt-4o", "openai/gpt-4"));
    }

    #[test]
    fn counters_of_cores_lie_on_lines_of_their_own() {
        assert_eq!(std::mem::align_of::<TargetRow>(), 64);
        assert_eq!(std::mem::align_of::<First>(), 64);
    }
}
