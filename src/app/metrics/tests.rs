//! The exposition, read back by a strict reader of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::app::ledger_log::tests::two_attempts;
use crate::base::fail::{Failure, Fault};
use crate::base::ids::{ModelId, ProviderId, Table as Ids, TargetId};
use crate::base::tick::{Ms, Tick};
use crate::config::{BaseUrl, Config, Driver, Kind, Log as LogRule, Model, Patch, Provider};
use crate::config::{Server, ServiceAccount, Settings, TargetSpec};
use crate::exchange::ledger::{CommittedBy, Ending};
use crate::net::core::{Shared, Snapshot};
use crate::net::load::Shed;
use crate::net::names::Names;
use crate::route;
use crate::route::health::{Outcome, Pass};

use super::text::{Kind as Family, Text};

/// A config of two providers on loopback, each with a secret and one target of the model `gpt-4o`.
pub(crate) fn config(names: [&str; 2]) -> Config {
    let mut providers: Ids<ProviderId, Provider> = Ids::new();
    let mut targets = Vec::new();
    for name in names {
        let provider = providers.push(Provider {
            name: String::from(name),
            kind: Kind::Openai,
            base: BaseUrl {
                tls: false,
                host: String::from("127.0.0.1"),
                port: 9,
                path: String::from("/v1"),
            },
            aws: None,
            keys: vec![crate::base::secret::Secret::new(*b"sk-very-secret")],
            account: None,
            api_version: None,
            responses: false,
            ca: None,
            vendor: None,
            settings: Patch::default(),
        });
        let model = String::from("gpt-4o");
        targets.push(TargetSpec { provider, model, settings: Patch::default() });
    }
    let mut models: Ids<ModelId, Model> = Ids::new();
    models.push(Model {
        name: String::from("gpt-4o"),
        targets,
        fallbacks: Vec::new(),
        settings: Patch::default(),
    });
    Config {
        server: Server {
            listen: vec![([127, 0, 0, 1], 0).into()],
            admin: None,
            cores: 1,
            driver: Driver::Epoll,
            ..Server::default()
        },
        auth: Vec::new(),
        providers,
        models,
        routes: Vec::new(),
        settings: Settings::default(),
        catalog: Vec::new(),
        passthrough: None,
        log: LogRule::default(),
    }
}

/// Metrics of so many cores and what they would watch.
pub(crate) fn watched(cores: usize, names: [&str; 2]) -> (Arc<Metrics>, Arc<Shared>) {
    let config = config(names);
    let table = route::compile(&config, None).unwrap();
    let metrics = Arc::new(Metrics::new(cores, &table));
    let snapshot = Snapshot::new(1, config.server, config.auth, table).unwrap();
    let shared = Arc::new(Shared::new(snapshot, Names::default(), metrics.clone()));
    (metrics, shared)
}

/// A sample: its name and labels, in the order of the text.
type Series = (String, Vec<(String, String)>);

/// What a scrape says.
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<Series, f64>,
}

impl Scrape {
    fn of(metrics: &Metrics, shared: &Shared) -> Scrape {
        let health = Health::default();
        Scrape::read(&metrics.render(shared, &Extra { health: &health, cores: 3 }))
    }

    /// Reads text exposition; panics at whatever the format does not allow.
    fn read(text: &str) -> Scrape {
        let mut scrape = Scrape { kinds: BTreeMap::new(), samples: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(help.ends_with('.'), "{line}");
                assert!(helped.insert(name.to_owned()), "HELP twice: {name}");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family, "TYPE follows its HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kind != "counter" || name.ends_with("_total"), "{line}");
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none());
            } else {
                let (series, value) = read_sample(line);
                let histogram = scrape.kinds[&family] == "histogram";
                let suffixes: &[&str] =
                    if histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
                let suffix = series.0.strip_prefix(&family).unwrap_or("not of the family");
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(scrape.samples.insert(series, value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(helped.len(), scrape.kinds.len());
        scrape
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let series = (format!("firstbyte_{name}"), labels);
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?}"))
    }

    fn has(&self, name: &str, label: &str) -> bool {
        let name = format!("firstbyte_{name}");
        self.samples.keys().any(|(n, ls)| *n == name && ls.iter().any(|(_, value)| value == label))
    }
}

fn read_sample(line: &str) -> (Series, f64) {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let close = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("escape of {c:?}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
    ((name.to_owned(), labels), value)
}

#[test]
fn labels_come_back_as_they_were() {
    let hostile = ["a\\b", "\"", "\n", "\\n", "a=\"b\",c=\"d\"} 7\n", "\u{e9}", "", "\\", "\u{1b}"];
    for value in hostile {
        let mut text = Text::default();
        text.family("firstbyte_x", Family::Gauge, "A test.");
        text.sample(&[("name", value), ("other", "y")], 7);
        let scrape = Scrape::read(&text.finish());
        assert_eq!(scrape.samples.len(), 1);
        assert_eq!(scrape.value("x", &[("name", value), ("other", "y")]), 7.0);
    }
}

#[test]
fn an_idle_gateway_has_a_whole_exposition() {
    let (metrics, shared) = watched(2, ["openai", "backup"]);
    shared.load.tell_resident(4096, u64::MAX);
    let scrape = Scrape::of(&metrics, &shared);
    assert_eq!(
        scrape.value("attempts_total", &[("target", "openai/gpt-4o"), ("outcome", "ok")]),
        0.0
    );
    assert_eq!(scrape.value("build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(scrape.value("cores", &[]), 3.0);
    assert_eq!(scrape.value("exchange_seconds_count", &[]), 0.0);
    for name in ["process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds"]
    {
        assert!(scrape.samples[&(name.to_owned(), Vec::new())] > 0.0, "{name}");
    }
}

#[test]
fn a_ledger_is_counted_once_on_whichever_core() {
    let (metrics, shared) = watched(2, ["openai", "backup"]);
    // Core 2 shares a row with core 0.
    for core in 0..3 {
        metrics.ended(CoreId(core), two_attempts(Failure::status(Fault::Unavailable, 503)));
        metrics.dialed(CoreId(core), core == 0);
    }
    let scrape = Scrape::of(&metrics, &shared);
    let requests = [("surface", "chat"), ("status_class", "2xx"), ("ending", "good")];
    assert_eq!(scrape.value("requests_total", &requests), 3.0);
    let attempts = |target, outcome| {
        scrape.value("attempts_total", &[("target", target), ("outcome", outcome)])
    };
    assert_eq!(attempts("openai/gpt-4o", "status_5xx"), 3.0);
    assert_eq!(attempts("openai/gpt-4o", "ok"), 0.0);
    assert_eq!(attempts("backup/gpt-4o", "ok"), 3.0);
    assert_eq!(scrape.value("committed_total", &[("by", "first_content")]), 3.0);
    assert_eq!(scrape.value("dials_total", &[("kind", "fresh")]), 1.0);
    assert_eq!(scrape.value("dials_total", &[("kind", "pooled")]), 2.0);
    let tokens =
        |kind| scrape.value("tokens_total", &[("target", "backup/gpt-4o"), ("kind", kind)]);
    assert_eq!((tokens("prompt"), tokens("completion")), (30.0, 60.0));
    for (name, value) in [
        ("events_total", 126.0),
        ("bytes_in_total", 360.0),
        ("bytes_out_total", 12_300.0),
        ("wasted_bytes_total", 51.0),
        ("commit_seconds_count", 3.0),
        ("commit_seconds_sum", 0.723),
        ("exchange_seconds_sum", 3.123),
        ("replays_total", 0.0),
    ] {
        assert_eq!(scrape.value(name, &[]), value, "{name}");
    }
    let first = [("provider", "backup")];
    assert_eq!(scrape.value("first_content_seconds_count", &first), 3.0);
    assert_eq!(scrape.value("first_content_seconds_sum", &first), 0.6);
}

#[test]
fn buckets_are_cumulative_and_end_at_the_count() {
    let (metrics, shared) = watched(1, ["openai", "backup"]);
    for ms in [0u64, 1, 2, 250, 251, 7_000, 10_000_000] {
        let mut ledger = two_attempts(Failure::of(Fault::Dns));
        ledger.ended = Tick(ledger.began.0 + ms * 1000);
        metrics.ended(CoreId(0), ledger);
    }
    let scrape = Scrape::of(&metrics, &shared);
    let at = |le| scrape.value("exchange_seconds_bucket", &[("le", le)]);
    let bounds: Vec<f64> = rows::BOUNDS_TEXT.iter().map(|le| at(le)).collect();
    assert!(bounds.is_sorted(), "{bounds:?}");
    assert_eq!((at("0.001"), at("0.0025"), at("0.1"), at("0.25")), (2.0, 3.0, 3.0, 4.0));
    assert_eq!((at("0.5"), at("5"), at("10"), at("600"), at("+Inf")), (5.0, 5.0, 6.0, 6.0, 7.0));
    assert_eq!(scrape.value("exchange_seconds_count", &[]), 7.0);
}

#[test]
fn bad_ends_have_series_of_their_own() {
    let (metrics, shared) = watched(1, ["openai", "backup"]);
    let mut ledger = two_attempts(Failure::status(Fault::Credential, 401));
    ledger.ending = Ending::Cut(Fault::IdleTimeout);
    ledger.attempts[0].hedge = true;
    ledger.attempts[1].replayed = true;
    ledger.budget_spent = true;
    metrics.ended(CoreId(0), ledger.clone());
    ledger.ending = Ending::Gone;
    ledger.status = 499;
    metrics.ended(CoreId(0), ledger.clone());
    ledger.committed = None;
    metrics.ended(CoreId(0), ledger.clone());
    // An error of our own says nothing about how soon providers answer.
    ledger.committed = Some((Tick(2_000_000), CommittedBy::Error));
    ledger.winner = None;
    metrics.ended(CoreId(0), ledger);
    let scrape = Scrape::of(&metrics, &shared);
    assert_eq!(scrape.value("cuts_total", &[("fault", "idle_timeout")]), 1.0);
    assert_eq!(scrape.value("cancelled_total", &[("phase", "after_commit")]), 1.0 + 1.0);
    assert_eq!(scrape.value("cancelled_total", &[("phase", "before_commit")]), 1.0);
    let warnings = |target| scrape.value("credential_warnings_total", &[("target", target)]);
    assert_eq!((warnings("openai/gpt-4o"), warnings("backup/gpt-4o")), (4.0, 0.0));
    for name in ["hedges_total", "replays_total", "budget_refusals_total"] {
        assert_eq!(scrape.value(name, &[]), 4.0, "{name}");
    }
    assert_eq!(scrape.value("commit_seconds_count", &[]), 2.0);
}

#[test]
fn what_is_shed_is_counted_by_its_reason() {
    let (metrics, shared) = watched(2, ["openai", "backup"]);
    for (count, why) in Shed::ALL.into_iter().enumerate() {
        for core in 0..=count {
            metrics.shed(CoreId(core as u16), why);
        }
    }
    metrics.too_slow(CoreId(1));
    metrics.no_descriptor(CoreId(0), false);
    metrics.late(CoreId(0), Ms(70), 9);
    metrics.late(CoreId(1), Ms(250), 3);
    metrics.late(CoreId(0), Ms(3), 2);
    shared.load.tell_resident(11, 10);
    let scrape = Scrape::of(&metrics, &shared);
    for (count, why) in Shed::ALL.into_iter().enumerate() {
        let reason = [("reason", why.name())];
        assert_eq!(scrape.value("shed_total", &reason), 1.0 + count as f64, "{}", why.name());
    }
    for (name, value) in [
        ("slow_clients_total", 1.0),
        ("descriptors_missing_total", 1.0),
        ("loop_lag_seconds", 0.25),
        ("waiting_requests", 5.0),
        ("over_memory", 1.0),
    ] {
        assert_eq!(scrape.value(name, &[]), value, "{name}");
    }
}

#[test]
fn names_that_clients_choose_make_no_series() {
    let (metrics, shared) = watched(1, ["openai", "other"]);
    let table = &shared.snapshot().table;
    let (wildcard, _) = table.targets.iter().find(|(_, t)| &*t.name == "openai/*").unwrap();
    let mut ledger = two_attempts(Failure::of(Fault::Dns));
    ledger.attempts[0].target = wildcard;
    ledger.attempts[0].name = Arc::from("openai/whatever-client-likes");
    // As if of a later snapshot: an id that is another target here, and one that is none.
    ledger.attempts[1].target = TargetId(0);
    ledger.attempts[1].name = Arc::from("new/model");
    let mut late = ledger.attempts[1].clone();
    late.target = TargetId(9_999);
    ledger.attempts.push(late);
    metrics.ended(CoreId(0), ledger);
    let scrape = Scrape::of(&metrics, &shared);
    let attempts = |target, outcome| {
        scrape.value("attempts_total", &[("target", target), ("outcome", outcome)])
    };
    assert_eq!(attempts("openai/*", "dns"), 1.0);
    assert_eq!(attempts("other", "ok"), 2.0);
    assert_eq!(attempts("openai/gpt-4o", "ok"), 0.0);
    assert!(!scrape.has("attempts_total", "new/model"));
    assert!(!scrape.has("attempts_total", "openai/whatever-client-likes"));
    // A provider that is really named so shares the series with what is not known.
    assert_eq!(scrape.value("first_content_seconds_count", &[("provider", "other")]), 2.0);
}

#[test]
fn what_a_reload_adds_counts_by_name_and_what_it_removes_stays() {
    let (metrics, shared) = watched(2, ["openai", "backup"]);
    let publish = |names| {
        let config = config(names);
        let old = shared.snapshot();
        let table = route::compile(&config, Some(&old.table)).unwrap();
        shared.publish(old.next(config.server, config.auth, table).unwrap());
    };
    // One attempt at each target of the table in force, each with a first content, on each core.
    let count = || {
        for (id, target) in shared.snapshot().table.targets.iter() {
            for core in 0..2 {
                let mut ledger = two_attempts(Failure::of(Fault::Dns));
                ledger.attempts.remove(0);
                (ledger.attempts[0].target, ledger.attempts[0].name) = (id, target.name.clone());
                ledger.winner = Some(0);
                metrics.ended(CoreId(core), ledger);
            }
        }
    };
    let seen = || {
        let scrape = Scrape::of(&metrics, &shared);
        let of = |provider: &str| {
            let target = format!("{provider}/gpt-4o");
            let labels = [("target", &*target), ("outcome", "ok")];
            if !scrape.has("attempts_total", &target) {
                return None;
            }
            let first = scrape.value("first_content_seconds_count", &[("provider", provider)]);
            Some((scrape.value("attempts_total", &labels), first))
        };
        let other = scrape.value("attempts_total", &[("target", "other"), ("outcome", "ok")]);
        (["openai", "backup", "azure"].map(of), other)
    };
    count();
    let once = Some((2.0, seen().0[0].unwrap().1));
    assert_eq!(seen(), ([once, once, None], 0.0));
    // Ids move: `azure` has the id that `openai` had.
    publish(["azure", "backup"]);
    let before = seen();
    assert_eq!(before.0[2], Some((0.0, 0.0)), "there from the first moment, at zero");
    count();
    let twice = once.map(|(attempts, first)| (2.0 * attempts, 2.0 * first));
    assert_eq!(seen(), ([once, twice, once], 0.0));
    // An exchange of the snapshot before ends late: its id means another target by now.
    let mut late = two_attempts(Failure::of(Fault::Dns));
    late.attempts.remove(0);
    (late.attempts[0].target, late.attempts[0].name) = (TargetId(0), "openai/gpt-4o".into());
    late.winner = Some(0);
    metrics.ended(CoreId(1), late);
    assert_eq!(seen().0[0].unwrap().0, 3.0);
    // What comes back goes on where it was.
    publish(["openai", "backup"]);
    count();
    assert_eq!(seen().0[0].unwrap().0, 5.0);
    assert_eq!(seen().1, 0.0);
}

#[test]
fn reloads_and_handshakes_are_counted_by_their_result() {
    let (metrics, shared) = watched(2, ["openai", "backup"]);
    let scrape = || Scrape::of(&metrics, &shared);
    let reloads = || {
        let scrape = scrape();
        let of = |result| scrape.value("reloads_total", &[("result", result)]);
        (of("ok"), of("refused"), scrape.value("config_last_reload_successful", &[]))
    };
    assert_eq!(reloads(), (0.0, 0.0, 1.0));
    let started = scrape().value("config_last_reload_success_timestamp_seconds", &[]);
    assert!(started > 1e9);
    metrics.reloaded(false);
    assert_eq!(reloads(), (0.0, 1.0, 0.0));
    let name = "config_last_reload_success_timestamp_seconds";
    assert_eq!(scrape().value(name, &[]), started, "of the one that is in force");
    metrics.reloaded(true);
    assert_eq!(reloads(), (1.0, 1.0, 1.0));
    assert!(scrape().value(name, &[]) >= started);
    assert_eq!(scrape().value("config_generation", &[]), 1.0);
    for (count, why) in NoSession::ALL.into_iter().enumerate() {
        for core in 0..=count {
            metrics.no_session(CoreId(core as u16), why);
        }
    }
    for (count, why) in NoSession::ALL.into_iter().enumerate() {
        let value = scrape().value("tls_handshakes_failed_total", &[("reason", why.name())]);
        assert_eq!(value, 1.0 + count as f64, "{}", why.name());
    }
}

#[test]
fn gauges_rise_and_fall_and_survive_a_panic() {
    let (metrics, shared) = watched(2, ["openai", "backup"]);
    let active = || {
        let scrape = Scrape::of(&metrics, &shared);
        (scrape.value("active_connections", &[]), scrape.value("active_exchanges", &[]))
    };
    for core in [0, 1, 1] {
        metrics.connected(CoreId(core));
        metrics.began(CoreId(core));
    }
    assert_eq!(active(), (3.0, 3.0));
    metrics.ended(CoreId(1), two_attempts(Failure::of(Fault::Dns)));
    assert_eq!(active(), (3.0, 2.0));
    // A core that panics closes its connections, and its exchanges never end.
    metrics.disconnected(CoreId(0));
    assert_eq!(active(), (2.0, 1.0));
}

#[test]
fn the_standing_is_that_of_the_current_snapshot() {
    let (metrics, shared) = watched(1, ["openai", "backup"]);
    let now = crate::rt::uring::now();
    {
        let table = &shared.snapshot().table;
        let [first, second] = [TargetId(0), TargetId(1)].map(|id| &table.targets[id].breaker);
        for _ in 0..100 {
            first.end(Pass::Normal, Outcome::Bad, now);
        }
        second.cool(now + Ms(3_600_000), 429);
    }
    let scrape = Scrape::of(&metrics, &shared);
    let state = |target| scrape.value("breaker_state", &[("target", target)]);
    assert_eq!(state("openai/*"), 0.0);
    assert_eq!((state("openai/gpt-4o"), state("backup/gpt-4o")), (2.0, 3.0));
    assert_eq!(scrape.value("breaker_opened_total", &[("target", "openai/gpt-4o")]), 1.0);
    let next = route::compile(&config(["fresh", "backup"]), None).unwrap();
    let server = shared.snapshot().server.clone();
    shared.publish(Snapshot::new(2, server, Vec::new(), next).unwrap());
    let scrape = Scrape::of(&metrics, &shared);
    assert!(scrape.has("breaker_state", "fresh/gpt-4o"));
    assert!(!scrape.has("breaker_state", "openai/gpt-4o"));
}

#[test]
fn a_route_with_a_breaker_of_its_own_has_its_own_standing() {
    let (metrics, shared) = watched(1, ["openai", "backup"]);
    let mut text = String::from("[server]\nlisten = [\"127.0.0.1:1\"]\n");
    text += "[providers.a]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";
    text += "[models.m]\ntargets = [\"a/x\"]\n";
    text += "[routes.r]\nmodels = [\"m\"]\nbreaker = { failures = 2 }\n";
    let config = crate::config::load(&text, &|_| Err(String::new())).unwrap();
    let table = route::compile(&config, None).unwrap();
    assert_eq!(table.own_breakers.len(), 1);
    let breaker = table.own_breakers[0].breaker.clone();
    let server = shared.snapshot().server.clone();
    shared.publish(Snapshot::new(2, server, Vec::new(), table).unwrap());
    let labels = [("route", "r"), ("target", "a/x")];
    let value = |name| Scrape::of(&metrics, &shared).value(name, &labels);
    assert_eq!(value("route_breaker_state"), 0.0);
    let now = crate::rt::uring::now();
    breaker.end(Pass::Normal, Outcome::Bad, now);
    breaker.end(Pass::Normal, Outcome::Bad, now);
    assert_eq!((value("route_breaker_state"), value("route_breaker_opened_total")), (2.0, 1.0));
    assert_eq!(Scrape::of(&metrics, &shared).value("breaker_state", &[("target", "a/x")]), 0.0);
}

#[test]
fn rows_lie_on_lines_of_their_own() {
    assert_eq!(std::mem::align_of::<Row>(), 64);
    assert_eq!(std::mem::size_of::<Row>() % 64, 0);
}

#[test]
fn no_secret_is_shown() {
    let (metrics, shared) = watched(1, ["openai", "backup"]);
    let health = Health::default();
    let text = metrics.render(&shared, &Extra { health: &health, cores: 1 });
    assert!(text.contains("openai"));
    assert!(!text.contains("secret"));
}

#[test]
fn ledgers_go_on_to_the_log() {
    let table = route::compile(&config(["openai", "backup"]), None).unwrap();
    let metrics = Metrics::start(&LedgerTo::Off, &table).unwrap();
    metrics.ended(CoreId(0), two_attempts(Failure::of(Fault::Dns)));
    assert!(metrics.flush());
    assert_eq!(&*metrics.last_ledger(Duration::from_secs(30)).unwrap().id, "r1");
}

#[test]
fn access_tokens_are_counted_where_there_are_any() {
    let (metrics, shared) = watched(1, ["openai", "backup"]);
    let plain = metrics.render(&shared, &Extra { health: &Health::default(), cores: 1 });
    assert!(!plain.contains("firstbyte_token_"), "{plain}");
    let mut config = config(["openai", "backup"]);
    let token_url = config.providers[ProviderId(1)].base.clone();
    let key = crate::base::secret::Secret::new(*b"very secret");
    let account = ServiceAccount { email: String::from("a@b"), key_id: None, key, token_url };
    config.providers[ProviderId(1)].account = Some(account);
    let table = route::compile(&config, None).unwrap();
    let token = table.providers[ProviderId(1)].token.clone().unwrap();
    token.publish(crate::base::secret::Secret::new(*b"t"), uring::now() + Ms(3_600_000));
    token.note_failure();
    let snapshot = Snapshot::new(1, config.server, config.auth, table).unwrap();
    let shared = Arc::new(Shared::new(snapshot, Names::default(), metrics.clone()));
    let scrape = Scrape::of(&metrics, &shared);
    let fetches = |outcome| {
        scrape.value("token_fetches_total", &[("provider", "backup"), ("outcome", outcome)])
    };
    assert_eq!((fetches("ok"), fetches("failed")), (1.0, 1.0));
    let left = scrape.value("token_seconds_left", &[("provider", "backup")]);
    assert!(left > 0.0 && left <= 3600.0, "{left}");
}
