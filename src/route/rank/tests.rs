//! Policies, tested through `pick`: three providers of different price and speed, and a request.

use super::super::health::Outcome;
use super::super::*;
use super::*;
use crate::base::ids::TargetId;
use crate::config::{self, Demand, Needs};

const NOW: Tick = Tick(1_000_000_000);

const THREE: &str = r#"
[providers.cheap]
kind = "openai"
base_url = "http://127.0.0.1:1"
[providers.quick]
kind = "openai"
base_url = "http://127.0.0.1:2"
keys = ["env:A", "env:B"]
[providers.large]
kind = "openai"
base_url = "http://127.0.0.1:3"
[catalog."cheap/m"]
price_in = 1
price_out = 2
context = 8192
output = 1024
cannot = ["image"]
[catalog."quick/m"]
price_in = 5
price_out = 10
price_cached = 0.5
context = 128000
[catalog."large/m"]
price_in = 2
price_out = 20
context = 1000000
can = ["image", "tools"]
[models.a]
targets = ["cheap/m"]
[models.b]
targets = ["quick/m"]
[models.c]
targets = ["large/m"]
fallbacks = ["d"]
[models.d]
targets = ["large/other"]
[routes.cheapest]
policy = "cheapest"
models = ["c", "b", "a"]
[routes.fastest]
policy = "fastest"
models = ["a", "b", "c"]
[routes.balanced]
policy = "balanced"
models = ["a", "b", "c"]
[routes.weighted]
policy = "weighted"
models = ["a", "b", "c"]
weights = [5, 3, 0]
"#;

fn table() -> Table {
    let value = |reference: &config::Ref| Ok(reference.to_string().into_bytes());
    let config = config::load(THREE, &value).unwrap_or_else(|problems| panic!("{problems:?}"));
    compile(&config, None).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn wish(model: &str, prompt: u32, output: u32) -> Wish<'static> {
    Wish {
        model: model.into(),
        stream: true,
        demand: Demand { prompt, output: Some(output), thread: 77, ..Demand::default() },
        ..Wish::default()
    }
}

fn id(table: &Table, name: &str) -> TargetId {
    table.targets.iter().find(|(_, target)| &*target.name == name).map(|(id, _)| id).expect(name)
}

fn names(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Vec<String> {
    let plan = pick(table, wish, turn, now).unwrap_or_else(|refusal| panic!("{}", refusal.text()));
    plan.attempts.iter().map(|attempt| table.targets[attempt.target].name.to_string()).collect()
}

fn measure(table: &Table, name: &str, first: u32, rate: u64) {
    let speed = &table.targets[id(table, name)].speed;
    speed.first(Ms(first), NOW);
    speed.rate(rate, Ms(1_000));
}

#[test]
fn cheapest_is_by_this_request() {
    let table = table();
    // 4,000 in, 400 out: 4.8, 24 and 16 thousandths of a cent.
    let order = ["cheap/m", "large/m", "quick/m", "quick/m#2", "large/other"];
    assert_eq!(names(&table, &wish("cheapest", 4_000, 400), 0, NOW), order);
    // Mostly answer: 0.8, 4 and 8.
    let order = ["cheap/m", "quick/m", "quick/m#2", "large/m", "large/other"];
    assert_eq!(names(&table, &wish("cheapest", 10, 400), 0, NOW), order);
}

#[test]
fn cheapest_respects_ability_window_and_limit() {
    let table = table();
    let long = wish("cheapest", 100_000, 400);
    assert_eq!(names(&table, &long, 0, NOW)[0], "large/m");
    assert!(!names(&table, &long, 0, NOW).contains(&"cheap/m".to_owned()));
    let verbose = wish("cheapest", 10, 2_000);
    assert_eq!(names(&table, &verbose, 0, NOW)[0], "quick/m");
    let mut seeing = wish("cheapest", 10, 400);
    seeing.demand.needs = Needs::IMAGE;
    assert_eq!(names(&table, &seeing, 0, NOW)[0], "quick/m", "assumed");
    seeing.require = true;
    let known = ["large/m"];
    assert_eq!(names(&table, &seeing, 0, NOW), known, "known");
}

#[test]
fn what_fits_nowhere_is_refused_with_what_is_missing() {
    let table = table();
    let mut asked = wish("a", 200_000, 9_000);
    asked.demand.needs = Needs::IMAGE;
    let refusal = pick(&table, &asked, 0, NOW).unwrap_err();
    let text = refusal.text();
    for part in ["cheap/m", "lacks image", "8192", "1024"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(refusal.name(), "incompatible");
    // 200,000 tokens never go to 128k, wherever they are asked for.
    for model in ["b", "quick/m", "firstbyte/fastest", "cheapest", "fastest"] {
        let asked = wish(model, 200_000, 0);
        let tried = pick(&table, &asked, 0, NOW).map(|_| names(&table, &asked, 0, NOW));
        assert!(
            !tried.unwrap_or_default().iter().any(|name| name.starts_with("quick/m")),
            "{model}"
        );
    }
}

#[test]
fn a_warm_cache_counts_in_the_price_and_keeps_a_conversation() {
    let table = table();
    let asked = wish("cheapest", 7_000, 50);
    assert_eq!(names(&table, &asked, 0, NOW)[0], "cheap/m");
    table.affinity.note(77, id(&table, "quick/m#2"), 7_000, NOW);
    // 6,912 of 7,000 tokens at half a dollar.
    assert_eq!(names(&table, &asked, 0, NOW)[0], "quick/m#2");
    assert_eq!(names(&table, &asked, 0, NOW + Ms(400_000))[0], "cheap/m", "cold again");
    // A model in order keeps the key that is warm.
    let plain = wish("b", 7_000, 50);
    assert_eq!(names(&table, &plain, 0, NOW), ["quick/m#2", "quick/m"]);
    let other = Wish { demand: Demand { thread: 78, ..plain.demand }, ..plain.clone() };
    assert_eq!(names(&table, &other, 0, NOW), ["quick/m", "quick/m#2"]);
    table.targets[id(&table, "quick/m#2")].breaker.cool(NOW + Ms(9_000), 429);
    assert_eq!(names(&table, &plain, 0, NOW), ["quick/m", "quick/m#2"], "only while it is well");
}

#[test]
fn fastest_measures_everyone_then_follows_the_measures() {
    let table = table();
    let asked = wish("fastest", 100, 400);
    let mut firsts: Vec<_> =
        (0..4).map(|turn| names(&table, &asked, turn, NOW)[0].clone()).collect();
    firsts.sort();
    firsts.dedup_by_key(|name| name.split('#').next().unwrap_or_default().to_owned());
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    measure(&table, "cheap/m", 900, 30);
    measure(&table, "quick/m", 100, 200);
    measure(&table, "large/m", 300, 60);
    assert_eq!(names(&table, &asked, 0, NOW)[..2], ["quick/m", "quick/m#2"]);
    // A short answer is decided by its start, a long one by its rate.
    measure(&table, "large/m", 10, 60);
    measure(&table, "large/m", 10, 60);
    assert_eq!(names(&table, &wish("fastest", 100, 1), 0, NOW)[0], "quick/m");
}

#[test]
fn fastest_moves_within_twenty_requests_and_notices_a_recovery() {
    let table = table();
    for _ in 0..50 {
        measure(&table, "cheap/m", 900, 100);
        measure(&table, "quick/m", 100, 100);
        measure(&table, "large/m", 300, 100);
    }
    let asked = wish("fastest", 100, 10);
    // Each request takes what its target takes now: quick became slow.
    let serve = |turn: u32, now: Tick, quick: u32| {
        let first = pick(&table, &asked, turn, now).unwrap_or_else(|_| panic!()).attempts[0].target;
        let name = table.targets[first].name.to_string();
        let after = match &*name {
            "cheap/m" => 900,
            "large/m" => 300,
            _ => quick,
        };
        table.targets[first].speed.first(Ms(after), now + Ms(after));
        name
    };
    let mut now = NOW;
    let moved = (0..20).position(|turn| {
        now = now + Ms(100);
        serve(turn, now, 4_000) == "large/m"
    });
    assert!(moved.is_some());
    // And becomes quick again: one turn in twenty looks.
    let back = (20..400).position(|turn| {
        now = now + Ms(1_000);
        serve(turn, now, 100).starts_with("quick/m") && turn % EXPLORE != EXPLORE - 1
    });
    assert!(back.is_some());
}

#[test]
fn one_that_only_fails_is_not_taken_for_the_quickest() {
    let table = table();
    measure(&table, "cheap/m", 900, 100);
    measure(&table, "large/m", 300, 100);
    table.targets[id(&table, "quick/m")].speed.failed(NOW);
    assert_eq!(names(&table, &wish("fastest", 100, 10), 0, NOW)[0], "large/m");
}

#[test]
fn balanced_weighs_price_time_and_failures() {
    let table = table();
    for _ in 0..5 {
        measure(&table, "cheap/m", 300, 100);
        measure(&table, "quick/m", 100, 100);
        measure(&table, "large/m", 900, 20);
    }
    let asked = wish("balanced", 4_000, 400);
    assert_eq!(names(&table, &asked, 0, NOW)[0], "cheap/m");
    // A few failures outweigh both.
    (0..4).for_each(|_| table.targets[id(&table, "cheap/m")].speed.failed(NOW));
    assert_eq!(names(&table, &asked, 0, NOW)[0], "quick/m");
    let explained = explain(&table, &asked, 0, NOW);
    let json = explained.to_json();
    let terms = &json["attempts"][0]["figures"]["terms"];
    for term in ["price", "time", "failures", "warm"] {
        assert!(terms[term].is_number(), "{json:#}");
    }
}

#[test]
fn weights_are_even_over_any_run() {
    let table = table();
    let asked = wish("weighted", 10, 10);
    let first = |turn| names(&table, &asked, turn, NOW)[0].clone();
    for start in [0u32, 1_000, u32::MAX - 100] {
        let cheap = (0..80).filter(|i| first(start.wrapping_add(*i)) == "cheap/m").count();
        assert!((48..=52).contains(&cheap), "{cheap} of 80 from {start}");
    }
    // Smooth: never three of the smaller share in a row.
    let run: Vec<_> = (0..200).map(|turn| first(turn) == "cheap/m").collect();
    assert!(!run.windows(3).any(|three| three.iter().all(|cheap| !cheap)));
    assert!((0..200).all(|turn| first(turn) != "large/m"), "a weight of 0 is for fallbacks");
    assert_eq!(names(&table, &asked, 0, NOW).len(), 5);
}

#[test]
fn built_in_routes_rank_every_target_once() {
    let table = table();
    for name in ["firstbyte/auto", "firstbyte/cheapest", "firstbyte/fastest", "firstbyte/balanced"]
    {
        let mut all = names(&table, &wish(name, 10, 10), 0, NOW);
        all.sort();
        assert_eq!(all, ["cheap/m", "large/m", "large/other", "quick/m", "quick/m#2"], "{name}");
    }
    assert_eq!(names(&table, &wish("firstbyte/cheapest", 10, 10), 0, NOW)[0], "cheap/m");
    assert_eq!(pick(&table, &wish("firstbyte/best", 10, 10), 0, NOW), Err(Refusal::UnknownModel));
}

#[test]
fn the_request_sorts_and_caps_prices() {
    let table = table();
    let floor = names(&table, &wish("balanced:floor", 10, 400), 0, NOW);
    assert_eq!(floor[0], "cheap/m");
    for _ in 0..5 {
        measure(&table, "cheap/m", 100, 10);
        measure(&table, "quick/m", 900, 100);
        measure(&table, "large/m", 500, 50);
    }
    assert_eq!(names(&table, &wish("cheapest:nitro", 10, 400), 0, NOW)[0], "quick/m");
    let sorted = |by| Wish { sort: Some(by), ..wish("cheapest", 10, 400) };
    assert_eq!(names(&table, &sorted(By::Latency), 0, NOW)[0], "cheap/m");
    assert_eq!(names(&table, &sorted(By::Throughput), 0, NOW)[0], "quick/m");
    let capped = Wish {
        max_price: Some(MaxPrice { prompt: 3.0, output: f64::INFINITY }),
        ..wish("cheapest", 10, 400)
    };
    assert_eq!(
        names(&table, &capped, 0, NOW),
        ["cheap/m", "large/m"],
        "unknown prices are left out"
    );
    let none = Wish { max_price: Some(MaxPrice { prompt: 0.5, output: 0.5 }), ..capped };
    assert_eq!(pick(&table, &none, 0, NOW), Err(Refusal::NothingLeft));
    // A provider's own model of such a name, and a suffix that is none.
    assert_eq!(names(&table, &wish("cheap/m:floor", 10, 10), 0, NOW), ["cheap/m"]);
    assert_eq!(names(&table, &wish("cheap/x:free", 10, 10), 0, NOW), ["cheap/*"]);
}

#[test]
fn order_of_the_request_is_stronger_than_a_policy() {
    let table = table();
    let asked = Wish { order: vec!["large".into()], ..wish("cheapest", 10, 10) };
    assert_eq!(names(&table, &asked, 0, NOW)[0], "large/m");
    let only = Wish { only: vec!["quick".into()], ..wish("cheapest", 10, 10) };
    assert_eq!(names(&table, &only, 0, NOW), ["quick/m", "quick/m#2"]);
}

#[test]
fn an_unwell_target_is_last_whatever_its_rank() {
    let table = table();
    let breaker = &table.targets[id(&table, "cheap/m")].breaker;
    for _ in 0..5 {
        let pass = breaker.begin(NOW);
        breaker.end(pass, Outcome::Bad, NOW);
    }
    let order = names(&table, &wish("cheapest", 10, 400), 0, NOW);
    assert_eq!(order.last().map(String::as_str), Some("cheap/m"));
}
