//! A scrape: the rows added up, with what the current snapshot and the process say of themselves.

use crate::base::fail::Fault;
use crate::base::tick::Tick;
use crate::net::beacon::Level;
use crate::net::core::Shared;
use crate::net::load::Shed;
use crate::net::watch::NoSession;
use crate::route::Table;
use crate::route::health::Standing;
use crate::rt::uring;

use super::rows::{
    BOUNDS_TEXT, BUCKETS, CLASSES, COMMITTED, Count, ENDINGS, Histogram, OUTCOMES, Row, SURFACES,
    TargetRow, outcome_name,
};
use super::series::TargetSeries;
use super::text::{Kind, Text};
use super::{Extra, Metrics};

use Kind::{Counter, Gauge};

impl Metrics {
    /// All series as text exposition 0.0.4.
    pub fn render(&self, shared: &Shared, extra: &Extra<'_>) -> String {
        let mut text = Text::default();
        process(&mut text, shared, self.started.0 as f64 / 1e3);
        self.cores(&mut text, shared, extra);
        self.load(&mut text, shared);
        self.config(&mut text, shared);
        self.exchanges(&mut text);
        self.bytes(&mut text);
        self.durations(&mut text);
        self.targets(&mut text);
        standings(&mut text, &shared.snapshot().table, uring::now());
        tokens(&mut text, &shared.snapshot().table, uring::now());
        text.finish()
    }

    /// One counter over all rows.
    fn sum(&self, of: impl Fn(&Row) -> &Count) -> u64 {
        self.rows.iter().map(|row| of(row).get()).fold(0, u64::saturating_add)
    }

    fn cores(&self, text: &mut Text, shared: &Shared, extra: &Extra<'_>) {
        use std::sync::atomic::Ordering::Relaxed;
        let health = extra.health;
        text.single("firstbyte_cores", Gauge, "Cores that should serve.", extra.cores);
        let serving = health.serving.load(Relaxed);
        text.single("firstbyte_cores_serving", Gauge, "Cores that serve.", serving);
        let help = "Cores that ended with a panic.";
        text.single("firstbyte_panics_total", Counter, help, health.panics.load(Relaxed));
        let help = "Cores that were started again.";
        text.single("firstbyte_restarts_total", Counter, help, health.restarts.load(Relaxed));
        let draining = u8::from(shared.level() != Level::Running);
        text.single("firstbyte_draining", Gauge, "1 while the process drains or ends.", draining);
        let (connections, exchanges) = self.active();
        let help = "Client connections that are open.";
        text.single("firstbyte_active_connections", Gauge, help, connections);
        let help = "Exchanges under way.";
        text.single("firstbyte_active_exchanges", Gauge, help, exchanges);
        text.family("firstbyte_dials_total", Counter, "Upstream connections taken, by their kind.");
        text.sample(&[("kind", "fresh")], self.sum(|row| &row.fresh));
        text.sample(&[("kind", "pooled")], self.sum(|row| &row.pooled));
    }

    /// What is too much, and how near that is.
    fn load(&self, text: &mut Text, shared: &Shared) {
        let help =
            "Connections and requests that were refused since there was too much, by reason.";
        text.family("firstbyte_shed_total", Counter, help);
        for why in Shed::ALL {
            text.sample(&[("reason", why.name())], self.sum(|row| &row.shed[why as usize]));
        }
        let help = "Heads and bodies that came, and answers that were read, slower than they may.";
        text.single("firstbyte_slow_clients_total", Counter, help, self.sum(|row| &row.too_slow));
        let help = "Accepts and dials that failed for want of a descriptor.";
        let missing = self.sum(|row| &row.no_descriptor);
        text.single("firstbyte_descriptors_missing_total", Counter, help, missing);
        let help = "How late the latest event loop is, in seconds.";
        let late = self.rows.iter().map(|row| row.late.get()).max().unwrap_or(0) as f64 / 1e3;
        text.single("firstbyte_loop_lag_seconds", Gauge, help, late);
        let help = "Requests that wait unread, as a late core has no time to refuse them either.";
        let waiting = self.sum(|row| &row.waiting);
        text.single("firstbyte_waiting_requests", Gauge, help, waiting);
        let over = u8::from(shared.load.is_over_memory());
        text.single("firstbyte_over_memory", Gauge, "1 while memory_max is exceeded.", over);
        let help = "Connections that came to no TLS session, by reason.";
        text.family("firstbyte_tls_handshakes_failed_total", Counter, help);
        for why in NoSession::ALL {
            text.sample(&[("reason", why.name())], self.sum(|row| &row.no_session[why as usize]));
        }
    }

    /// The config in force, and what came of the reloads.
    fn config(&self, text: &mut Text, shared: &Shared) {
        let reloads = &self.reloads;
        text.family("firstbyte_reloads_total", Counter, "Reloads of the config, by result.");
        text.sample(&[("result", "ok")], reloads.taken.get());
        text.sample(&[("result", "refused")], reloads.refused.get());
        let help = "1 if the last reload, or the start, took its config in.";
        let well = u8::from(!reloads.failing.load(std::sync::atomic::Ordering::Relaxed));
        text.single("firstbyte_config_last_reload_successful", Gauge, help, well);
        let help = "When the config in force was taken in, in seconds since 1970.";
        let name = "firstbyte_config_last_reload_success_timestamp_seconds";
        text.single(name, Gauge, help, reloads.taken_at_ms.get() as f64 / 1e3);
        let help = "Number of the config in force: 1 at the start, and one more with each reload.";
        let generation = shared.snapshot().generation;
        text.single("firstbyte_config_generation", Gauge, help, generation);
    }

    /// Open connections and exchanges under way.
    fn active(&self) -> (u64, u64) {
        let (mut connections, mut exchanges) = (0, 0);
        for row in &self.rows {
            // Ends are read first: what begins in between must not make a difference below zero.
            let (ended, disconnected) = (row.ended.get(), row.disconnected.get());
            let open = row.connected.get().saturating_sub(disconnected);
            let running = row.began.get().saturating_sub(ended);
            connections += open;
            // A panic of a core takes exchanges with it that never end; a connection has one at most.
            exchanges += running.min(open);
        }
        (connections, exchanges)
    }

    fn exchanges(&self, text: &mut Text) {
        let help = "Exchanges, by surface, class of the status that the client saw, and ending.";
        text.family("firstbyte_requests_total", Counter, help);
        for (s, surface) in SURFACES.iter().enumerate() {
            for (c, class) in CLASSES.iter().enumerate() {
                for (e, ending) in ENDINGS.iter().enumerate() {
                    let count = self.sum(|row| &row.requests[s][c][e]);
                    if count > 0 {
                        let labels = [
                            ("surface", surface.name()),
                            ("status_class", class),
                            ("ending", ending),
                        ];
                        text.sample(&labels, count);
                    }
                }
            }
        }
        text.family("firstbyte_committed_total", Counter, "Exchanges, by what committed them.");
        for (slot, by) in COMMITTED.iter().enumerate() {
            text.sample(&[("by", by.name())], self.sum(|row| &row.committed[slot]));
        }
        let help = "Answers that were cut after they had begun, by fault.";
        text.family("firstbyte_cuts_total", Counter, help);
        for (slot, fault) in Fault::ALL.iter().enumerate() {
            let count = self.sum(|row| &row.cuts[slot]);
            if count > 0 {
                text.sample(&[("fault", fault.name())], count);
            }
        }
        text.family("firstbyte_cancelled_total", Counter, "Exchanges whose client went away.");
        text.sample(&[("phase", "before_commit")], self.sum(|row| &row.gone_before));
        text.sample(&[("phase", "after_commit")], self.sum(|row| &row.gone_after));
        let help = "Stale pooled connections replaced by fresh ones.";
        text.single("firstbyte_replays_total", Counter, help, self.sum(|row| &row.replays));
        let help = "Attempts started beside another one.";
        text.single("firstbyte_hedges_total", Counter, help, self.sum(|row| &row.hedges));
        let help = "Exchanges in which the retry budget refused an extra attempt.";
        let refusals = self.sum(|row| &row.refusals);
        text.single("firstbyte_budget_refusals_total", Counter, help, refusals);
        let help = "Ledger lines that were not written.";
        text.single("firstbyte_ledger_lines_dropped_total", Counter, help, self.lines_dropped());
    }

    fn bytes(&self, text: &mut Text) {
        let help = "Events passed to clients.";
        text.single("firstbyte_events_total", Counter, help, self.sum(|row| &row.events));
        let help = "Bytes of request bodies from clients.";
        text.single("firstbyte_bytes_in_total", Counter, help, self.sum(|row| &row.bytes_in));
        let help = "Bytes of answers' bodies to clients.";
        text.single("firstbyte_bytes_out_total", Counter, help, self.sum(|row| &row.bytes_out));
        let help = "Bytes from providers that no client saw.";
        text.single("firstbyte_wasted_bytes_total", Counter, help, self.sum(|row| &row.wasted));
    }

    fn durations(&self, text: &mut Text) {
        let help = "From a request's head to the commit, for answers of providers.";
        text.family("firstbyte_commit_seconds", Kind::Histogram, help);
        histogram(text, None, self.rows.iter().map(|row| &row.commit));
        let help = "From a request's head to the exchange's end.";
        text.family("firstbyte_exchange_seconds", Kind::Histogram, help);
        histogram(text, None, self.rows.iter().map(|row| &row.exchange));
        let help = "From an attempt's start to its first content, by provider.";
        text.family("firstbyte_first_content_seconds", Kind::Histogram, help);
        for provider in &self.series.load().providers {
            let of = provider.first.iter().map(|first| &first.0);
            histogram(text, Some(("provider", &provider.name)), of);
        }
    }

    fn targets(&self, text: &mut Text) {
        let help = "Attempts, by target and outcome.";
        text.family("firstbyte_attempts_total", Counter, help);
        let series = self.series.load();
        for target in &series.targets {
            for slot in 0..OUTCOMES {
                let count = over(target, |row| &row.outcomes[slot]);
                // `ok` always, so that a rate of failures has its whole.
                if count > 0 || slot == 0 {
                    let labels = [("target", &*target.name), ("outcome", outcome_name(slot))];
                    text.sample(&labels, count);
                }
            }
        }
        let help = "Attempts that failed by the gateway's own credential or mapping.";
        text.family("firstbyte_credential_warnings_total", Counter, help);
        self.by_target(text, None, |row| &row.warnings);
        let help = "Tokens that providers reported, by target.";
        text.family("firstbyte_tokens_total", Counter, help);
        self.by_target(text, Some("prompt"), |row| &row.prompt);
        self.by_target(text, Some("completion"), |row| &row.completion);
        let help = "What answers cost by the catalogue's prices, in US dollars, by target.";
        text.family("firstbyte_cost_usd_total", Counter, help);
        for target in &series.targets {
            let nanos = over(target, |row| &row.cost_nanos);
            text.sample(&[("target", &*target.name)], nanos as f64 / 1e9);
        }
    }

    fn by_target(&self, text: &mut Text, kind: Option<&str>, of: impl Fn(&TargetRow) -> &Count) {
        for target in &self.series.load().targets {
            let mut labels = vec![("target", &*target.name)];
            labels.extend(kind.map(|kind| ("kind", kind)));
            text.sample(&labels, over(target, &of));
        }
    }
}

/// One counter of a target over all cores.
fn over(target: &TargetSeries, of: impl Fn(&TargetRow) -> &Count) -> u64 {
    target.rows.iter().map(|row| of(row).get()).fold(0, u64::saturating_add)
}

/// One histogram over all cores.
fn histogram<'h>(
    text: &mut Text,
    label: Option<(&str, &str)>,
    of: impl Iterator<Item = &'h Histogram> + Clone,
) {
    let sum =
        |count: &dyn Fn(&Histogram) -> u64| of.clone().map(count).fold(0, u64::saturating_add);
    let counts: [u64; BUCKETS] = std::array::from_fn(|i| sum(&|one| one.buckets[i].get()));
    let seconds = sum(&|one| one.micros.get()) as f64 / 1e6;
    text.histogram(label, &BOUNDS_TEXT, &counts, seconds);
}

const fn state(standing: Standing) -> u64 {
    match standing {
        Standing::Ready => 0,
        Standing::HalfOpen => 1,
        Standing::Open { .. } => 2,
        Standing::Cooling { .. } => 3,
    }
}

/// What the table of now says of its targets and providers.
fn standings(text: &mut Text, table: &Table, now: Tick) {
    let help = "Standing of a target: 0 closed, 1 half-open, 2 open, 3 cooling.";
    text.family("firstbyte_breaker_state", Gauge, help);
    for (_, target) in table.targets.iter() {
        text.sample(&[("target", &target.name)], state(target.breaker.standing(now)));
    }
    text.family("firstbyte_breaker_opened_total", Counter, "How often a target's breaker opened.");
    for (_, target) in table.targets.iter() {
        text.sample(&[("target", &target.name)], target.breaker.counts().opened);
    }
    let help = "The same of a target in a route that has a breaker rule of its own.";
    text.family("firstbyte_route_breaker_state", Gauge, help);
    for own in &table.own_breakers {
        let labels = [("route", &*own.route), ("target", &*own.target)];
        text.sample(&labels, state(own.breaker.standing(now)));
    }
    let help = "How often such a breaker opened.";
    text.family("firstbyte_route_breaker_opened_total", Counter, help);
    for own in &table.own_breakers {
        let labels = [("route", &*own.route), ("target", &*own.target)];
        text.sample(&labels, own.breaker.counts().opened);
    }
    let help = "Extra attempts within the window of a provider's retry budget.";
    text.family("firstbyte_retry_budget_used", Gauge, help);
    for (_, provider) in table.providers.iter() {
        text.sample(&[("provider", &provider.name)], provider.budget.used(now));
    }
    let help = "Extra attempts that the window of a provider's retry budget allows.";
    text.family("firstbyte_retry_budget_allowed", Gauge, help);
    for (_, provider) in table.providers.iter() {
        text.sample(&[("provider", &provider.name)], provider.budget.allowed(now));
    }
}

/// What is known of access tokens, by the providers that take them.
fn tokens(text: &mut Text, table: &Table, now: Tick) {
    let rows = table.providers.iter().filter_map(|(_, row)| Some((row, row.token.as_ref()?)));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let help = "Fetches of access tokens, by provider and outcome.";
    text.family("firstbyte_token_fetches_total", Counter, help);
    for (provider, token) in &rows {
        let (fetched, failed) = token.counts();
        text.sample(&[("provider", &provider.name), ("outcome", "ok")], fetched);
        text.sample(&[("provider", &provider.name), ("outcome", "failed")], failed);
    }
    let help = "Seconds until the access token in use ends; 0 without one.";
    text.family("firstbyte_token_seconds_left", Gauge, help);
    for (provider, token) in &rows {
        let left = token.current(now).map_or(0, |lease| lease.until.since(now) / 1_000_000);
        text.sample(&[("provider", &provider.name)], left);
    }
}

/// The process: names without our prefix are those that every exporter uses.
fn process(text: &mut Text, shared: &Shared, started_seconds: f64) {
    text.family("firstbyte_build_info", Gauge, "Always 1; the label says which version runs.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let help = "When the process started, in seconds since 1970.";
    text.single("process_start_time_seconds", Gauge, help, started_seconds);
    let help = "Resident memory in bytes.";
    text.single("process_resident_memory_bytes", Gauge, help, shared.load.resident());
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder being read.
        let open = entries.count().saturating_sub(1);
        text.single("process_open_fds", Gauge, "Open file descriptors.", open);
    }
    if let Ok((soft, _)) = rlimit::Resource::NOFILE.get() {
        text.single("process_max_fds", Gauge, "File descriptors that may be open.", soft);
    }
}
