//! The choice, tested through the public functions: rule by rule, then as properties.

use proptest::prelude::*;

use super::health::{Breaker, Outcome, Pass, Standing};
use super::*;
use crate::base::ids::{Id, TargetId};
use crate::base::limits::PLAN_ATTEMPTS_MAX;
use crate::base::tick::{Ms, Tick};
use crate::config::{self, Commit, Config, Ref};

const NOW: Tick = Tick(1_000_000_000);

/// Each variable's value is its own name.
fn lookup(reference: &Ref) -> Result<Vec<u8>, String> {
    match reference {
        Ref::Env(name) | Ref::File(name) => Ok(name.clone().into_bytes()),
    }
}

fn load(text: &str) -> Config {
    config::load(text, &lookup).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|p| format!("{p}\n")).collect::<String>())
    })
}

fn table(text: &str) -> Table {
    compile(&load(text), None).unwrap()
}

const USUAL: &str = r#"
[providers.a]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
keys = ["env:A1", "env:A2"]
[providers.b]
kind = "openai"
base_url = "http://127.0.0.1:2/v1"
key = "env:B1"
[providers.c]
kind = "openai"
base_url = "http://127.0.0.1:3"
[models.m]
targets = ["a/m", "b/m"]
fallbacks = ["f"]
[models.f]
targets = ["c/f/x"]
fallbacks = ["g", "m"]
[models.g]
targets = ["b/g"]
[models.h]
targets = ["b/h"]
[routes."r/any"]
models = ["h", "m"]
total_timeout = "9s"
[passthrough]
provider = "a"
"#;

fn wish(model: &str) -> Wish<'static> {
    Wish { model: model.into(), stream: true, ..Wish::default() }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

/// `target model why`, one for each attempt.
fn said(table: &Table, plan: &Plan) -> Vec<String> {
    let one = |attempt: &Attempt| {
        let target = &table.targets[attempt.target];
        format!("{} {} {}", target.name, attempt.shown, attempt.why.name())
    };
    plan.attempts.iter().map(one).collect()
}

fn planned(table: &Table, wish: &Wish, turn: u32) -> Vec<String> {
    said(table, &pick(table, wish, turn, NOW).unwrap())
}

fn target(table: &Table, name: &str) -> TargetId {
    table.targets.iter().find(|(_, t)| &*t.name == name).map(|(id, _)| id).expect(name)
}

#[test]
fn a_model_gives_its_targets_then_its_fallbacks_depth_first() {
    let table = table(USUAL);
    let expected = [
        "a/m m primary",
        "a/m#2 m credential",
        "b/m m target",
        "c/f/x f fallback",
        "b/g g fallback",
    ];
    assert_eq!(planned(&table, &wish("m"), 0), expected);
    assert_eq!(planned(&table, &wish("h"), 0), ["b/h h primary"]);
}

#[test]
fn keys_are_used_in_turn() {
    let table = table(USUAL);
    for (turn, first, second) in
        [(0, "a/m", "a/m#2"), (1, "a/m#2", "a/m"), (u32::MAX, "a/m#2", "a/m")]
    {
        let said = planned(&table, &wish("m"), turn);
        assert_eq!(said[0], format!("{first} m primary"));
        assert_eq!(said[1], format!("{second} m credential"));
    }
    let keys = ["a/m", "a/m#2", "b/m"].map(|name| {
        let key = table.targets[target(&table, name)].key.as_ref();
        key.map(|key| key.expose().to_vec())
    });
    assert_eq!(keys, [Some(b"A1".to_vec()), Some(b"A2".to_vec()), Some(b"B1".to_vec())]);
    assert!(table.targets[target(&table, "c/f/x")].key.is_none());
}

#[test]
fn a_route_gives_its_models_with_its_settings() {
    let table = table(USUAL);
    let plan = pick(&table, &wish("r/any"), 0, NOW).unwrap();
    let expected = [
        "b/h h primary",
        "a/m m fallback",
        "a/m#2 m credential",
        "b/m m fallback",
        "c/f/x f fallback",
        "b/g g fallback",
    ];
    assert_eq!(said(&table, &plan), expected);
    assert_eq!(plan.rules.total, Ms(9_000));
    assert_eq!(pick(&table, &wish("h"), 0, NOW).unwrap().rules.total, Ms(600_000));
    let listed: Vec<_> = table.model_names().map(|name| &**name).collect();
    assert_eq!(listed, ["m", "f", "g", "h", "r/any"]);
}

#[test]
fn a_provider_serves_models_that_no_config_names() {
    let table = table(USUAL);
    let plan = pick(&table, &wish("a/org/new"), 0, NOW).unwrap();
    assert_eq!(said(&table, &plan), ["a/* a/org/new primary", "a/*#2 a/org/new credential"]);
    assert!(plan.attempts.iter().all(|attempt| &*attempt.model == "org/new"));
    // A configured target keeps its own health under its full name.
    assert_eq!(planned(&table, &wish("b/m"), 0), ["b/m b/m primary"]);
    for unknown in ["", "nope", "a", "a/", "a/*", "z/m", "/m"] {
        assert_eq!(pick(&table, &wish(unknown), 0, NOW), Err(Refusal::UnknownModel), "{unknown}");
    }
}

#[test]
fn models_of_the_request_come_after_its_model() {
    let table = table(USUAL);
    let mut asked = wish("h");
    asked.models = names(&["g", "nope", "h", "c/y"]);
    let expected = ["b/h h primary", "b/g g asked", "c/* c/y asked"];
    assert_eq!(planned(&table, &asked, 0), expected);
    asked.model = "".into();
    let expected = ["b/g g primary", "b/h h asked", "c/* c/y asked"];
    assert_eq!(planned(&table, &asked, 0), expected);
    asked.model = "nope".into();
    assert_eq!(pick(&table, &asked, 0, NOW), Err(Refusal::UnknownModel));
}

#[test]
fn order_only_and_ignore() {
    let table = table(USUAL);
    let mut asked = wish("m");
    asked.order = names(&["b", "nobody"]);
    let said = planned(&table, &asked, 0);
    // Within the model: a provider's rank never puts another model first.
    assert_eq!(said[..2], ["b/m m ordered", "a/m m target"].map(String::from));
    let mut asked = wish("m");
    asked.order = names(&["c"]);
    assert!(planned(&table, &asked, 0)[0].starts_with("a/m m"));
    let mut asked = wish("m");
    asked.only = names(&["b"]);
    assert_eq!(planned(&table, &asked, 0), ["b/m m primary", "b/g g fallback"]);
    let mut asked = wish("m");
    asked.ignore = names(&["a", "b"]);
    assert_eq!(planned(&table, &asked, 0), ["c/f/x f primary"]);
    asked.only = names(&["a"]);
    assert_eq!(pick(&table, &asked, 0, NOW), Err(Refusal::NothingLeft));
}

#[test]
fn without_fallbacks() {
    let table = table(USUAL);
    let alone = Wish { allow_fallbacks: false, ..wish("m") };
    assert_eq!(planned(&table, &alone, 0), ["a/m m primary", "a/m#2 m credential"]);
    let ordered = Wish { order: names(&["b"]), ..alone.clone() };
    assert_eq!(planned(&table, &ordered, 0), ["b/m m ordered", "b/g g ordered"]);
    let only = Wish { only: names(&["b"]), ..alone.clone() };
    assert_eq!(planned(&table, &only, 0), ["b/m m primary"]);
    // What is left is a fallback model's: not allowed either.
    let elsewhere = Wish { only: names(&["c"]), ..alone };
    assert_eq!(pick(&table, &elsewhere, 0, NOW), Err(Refusal::NothingLeft));
}

#[test]
fn passthrough_goes_where_the_config_says() {
    let table = table(USUAL);
    let asked = Wish { passthrough: true, ..Wish::default() };
    let plan = pick(&table, &asked, 1, NOW).unwrap();
    assert_eq!(said(&table, &plan), ["a/*#2 a primary", "a/* a credential"]);
    assert_eq!(&*plan.attempts[0].model, "");
    let nowhere = self::table(USUAL.split("[passthrough]").next().unwrap());
    assert_eq!(pick(&nowhere, &asked, 0, NOW), Err(Refusal::UnknownModel));
}

#[test]
fn open_and_cooling_targets_go_to_the_end() {
    let table = table(USUAL);
    let breaker = |name| &table.targets[target(&table, name)].breaker;
    for _ in 0..5 {
        let pass = breaker("a/m").begin(NOW);
        breaker("a/m").end(pass, Outcome::Bad, NOW);
    }
    breaker("a/m#2").cool(NOW + Ms(9_000), 429);
    breaker("b/m").cool(NOW + Ms(4_000), 503);
    let expected = [
        "c/f/x f primary",
        "b/g g fallback",
        "a/m m moved_open",
        "b/m m moved_cooling",
        "a/m#2 m moved_cooling",
    ];
    let said = planned(&table, &wish("m"), 0);
    assert_eq!(said.iter().skip(2).collect::<Vec<_>>(), expected[2..].iter().collect::<Vec<_>>());
    assert!(said[0].starts_with("c/f/x f") && said[1].starts_with("b/g g"));
    // Half-open: back in its place.
    let later = NOW + Ms(5_000);
    let plan = pick(&table, &wish("m"), 0, later).unwrap();
    assert_eq!(plan.attempts[0].target, target(&table, "a/m"));
}

#[test]
fn a_model_that_is_cooling_everywhere_is_refused() {
    let table = table(USUAL);
    let breaker = |name| &table.targets[target(&table, name)].breaker;
    breaker("b/h").cool(Tick(NOW.0 + 2_000_001), 503);
    let cooling = |ms, status| Err(Refusal::Cooling { retry_after: Ms(ms), status });
    assert_eq!(pick(&table, &wish("h"), 0, NOW), cooling(2_001, 503), "rounded up");
    assert!(pick(&table, &wish("h"), 0, NOW + Ms(2_001)).is_ok());
    breaker("b/g").cool(NOW + Ms(1_000), 429);
    let both = Wish { models: names(&["g"]), ..wish("h") };
    assert_eq!(pick(&table, &both, 0, NOW), cooling(1_000, 429), "the shortest; 429 if any");
    let third = Wish { models: names(&["g", "m"]), ..wish("h") };
    assert!(pick(&table, &third, 0, NOW).is_ok());
}

#[test]
fn settings_come_from_the_nearest_level() {
    let text = r#"
[defaults]
connect_timeout = "1ms"
head_timeout = "1ms"
first_content_timeout = "1ms"
idle_timeout = "1ms"
throughput_floor = 1
[providers.p]
kind = "openai"
head_timeout = "2ms"
first_content_timeout = "2ms"
idle_timeout = "2ms"
throughput_floor = 2
[models.m]
targets = [{ target = "p/m", throughput_floor = 5 }]
first_content_timeout = "3ms"
idle_timeout = "3ms"
throughput_floor = 3
[routes.r]
models = ["m"]
idle_timeout = "4ms"
throughput_floor = 4
"#;
    let table = table(text);
    let of = |name| {
        let plan = pick(&table, &wish(name), 0, NOW).unwrap();
        let attempt = &plan.attempts[0];
        [attempt.connect.0, attempt.head.0, attempt.first.0, attempt.idle.0, attempt.floor]
    };
    assert_eq!(of("m"), [1, 2, 3, 3, 5]);
    assert_eq!(of("r"), [1, 2, 3, 4, 5]);
    assert_eq!(of("p/other"), [1, 2, 2, 2, 2]);
    assert_eq!(table.targets.len(), 2, "a route makes no targets of its own");
}

#[test]
fn the_request_overrides_the_rules() {
    let table = table(USUAL);
    let mut asked = wish("h");
    let rules = pick(&table, &asked, 0, NOW).unwrap().rules;
    assert_eq!(
        (rules.commit, rules.hold_max, rules.deadline),
        (Commit::FirstContent, 64 << 10, Ms(45_000))
    );
    asked.commit = Some(Commit::Complete);
    asked.deadline = Some(Ms(5));
    let rules = pick(&table, &asked, 0, NOW).unwrap().rules;
    assert_eq!((rules.commit, rules.hold_max, rules.deadline), (Commit::Complete, 8 << 20, Ms(5)));
    asked.deadline = Some(Ms(u32::MAX - 1));
    assert_eq!(pick(&table, &asked, 0, NOW).unwrap().rules.deadline, Ms(600_000));
}

#[test]
fn a_non_streamed_answer_has_one_time() {
    let table = table(USUAL);
    let asked = Wish { stream: false, ..wish("h") };
    let plan = pick(&table, &asked, 0, NOW).unwrap();
    let attempt = &plan.attempts[0];
    assert_eq!([attempt.head, attempt.first, attempt.answer], [Ms(120_000); 3]);
    assert!(
        plan.rules.deadline >= attempt.answer,
        "the plan must not end before its first attempt"
    );
}

#[test]
fn endpoints_are_shared_only_by_equals() {
    let provider = |name: &str, url: &str, ca: &str| {
        format!("[providers.{name}]\nkind = \"openai\"\nbase_url = \"{url}\"\n{ca}\n")
    };
    let ca = |name: &str| format!("ca = \"{name} -----BEGIN CERTIFICATE-----\"");
    let text = [
        provider("a", "https://h/v1", ""),
        provider("b", "https://H:443/v2", ""),
        provider("c", "https://h/v1", &ca("x")),
        provider("d", "https://h/v1", &ca("x")),
        provider("e", "https://h/v1", &ca("y")),
        provider("f", "http://h:443/v1", ""),
        provider("g", "https://h:444/v1", ""),
    ]
    .concat();
    let table = table(&text);
    let ids: Vec<_> = table.providers.iter().map(|(_, row)| row.endpoint.index()).collect();
    assert_eq!(ids, [0, 0, 1, 1, 2, 3, 4]);
    let (_, row) = table.providers.iter().nth(6).unwrap();
    assert_eq!((&*row.authority, &*row.path), ("h:444", "/v1"));
}

#[test]
fn a_target_has_one_health_whatever_model_leads_to_it() {
    let text = "[providers.p]\nkind = \"openai\"\n[models.a]\ntargets = [\"p/x\"]\n\
                [models.b]\ntargets = [\"p/x\"]\n";
    let table = table(text);
    let plan = pick(&table, &Wish { models: names(&["b", "p/x"]), ..wish("a") }, 0, NOW).unwrap();
    assert_eq!(said(&table, &plan), ["p/x a primary"], "the same target is not tried twice");
    let differing = format!("{text}breaker = \"off\"\n");
    let problems = compile(&load(&differing), None).unwrap_err();
    assert!(problems[0].to_string().contains("p/x"), "{}", problems[0]);
}

#[test]
fn a_reload_keeps_health_where_nothing_changed() {
    let old = table(USUAL);
    let cool = |name| old.targets[target(&old, name)].breaker.cool(NOW + Ms(9_000), 429);
    ["a/m", "b/m", "c/f/x"].into_iter().for_each(cool);
    let new = USUAL
        .replace("127.0.0.1:2", "127.0.0.9:2")
        .replace("[providers.c]", "[providers.c]\nbreaker = \"off\"\nretry_budget = { floor = 1 }");
    let new = compile(&load(&new), Some(&old)).unwrap();
    let standing = |name| new.targets[target(&new, name)].breaker.standing(NOW);
    let cooling = Standing::Cooling { until: NOW + Ms(9_000), status: 429 };
    assert_eq!(standing("a/m"), cooling);
    assert_eq!(standing("b/m"), Standing::Ready, "another host");
    assert_eq!(standing("c/f/x"), cooling, "another rule");
    let same = |i: usize| {
        let row = |table: &Table| table.providers.iter().nth(i).unwrap().1.budget.clone();
        std::sync::Arc::ptr_eq(&row(&old), &row(&new))
    };
    assert_eq!([same(0), same(1), same(2)], [true, true, false]);
    let swapped = USUAL.replace("env:B1", "env:B9");
    let swapped = compile(&load(&swapped), Some(&old)).unwrap();
    let breaker = &swapped.targets[target(&swapped, "b/m")].breaker;
    assert_eq!(breaker.standing(NOW), Standing::Ready, "another key");
}

#[test]
fn health_belongs_to_the_pair_that_requests_are_signed_with() {
    let text = "[providers.p]\nkind = \"bedrock\"\nregion = \"us-east-1\"\n\
                base_url = \"http://127.0.0.1:1\"\naccess_key = \"env:ID\"\nsecret_key = \"env:S1\"\n\
                [models.m]\ntargets = [\"p/m\"]\n";
    let old = table(text);
    let aws = old.providers[old.targets[target(&old, "p/m")].provider].aws.as_ref().unwrap();
    assert_eq!((aws.access_key.expose(), aws.region.as_str()), (&b"ID"[..], "us-east-1"));
    assert!(old.targets[target(&old, "p/m")].key.is_none());
    let breaker = |table: &Table| table.targets[target(table, "p/m")].breaker.clone();
    for (from, to, same) in
        [("S1", "S1", true), ("S1", "S2", false), ("us-east-1", "us-east-2", false)]
    {
        let new = compile(&load(&text.replace(from, to)), Some(&old)).unwrap();
        assert_eq!(std::sync::Arc::ptr_eq(&breaker(&old), &breaker(&new)), same, "{from} {to}");
    }
}

#[test]
fn a_name_that_looks_like_a_second_key_is_not_one() {
    let text = "[providers.p]\nkind = \"openai\"\nkeys = [\"env:K1\", \"env:K2\"]\n\
                [models.m]\ntargets = [\"p/m\"]\n[models.n]\ntargets = [\"p/m#2\"]\n";
    let table = table(text);
    let plan = pick(&table, &wish("n"), 0, NOW).unwrap();
    assert!(plan.attempts.iter().all(|attempt| &*attempt.model == "m#2"), "{plan:?}");
    let key = table.targets[plan.attempts[0].target].key.as_ref();
    assert_eq!(key.map(|key| key.expose()), Some(&b"K1"[..]));
}

#[test]
fn an_explanation_names_what_is_left_out_and_no_secret() {
    let table = table(&USUAL.replace("env:A1", "env:VERYSECRET"));
    let asked = Wish { models: names(&["nope"]), ignore: names(&["c"]), ..wish("m") };
    let explained = explain(&table, &asked, 0, NOW);
    let (json, text) = (explained.to_json().to_string(), explained.to_text());
    for out in [&json, &text] {
        for name in ["a/m#2", "b/m", "c/f/x", "nope", "provider.ignore"] {
            assert!(out.contains(name), "{name} in {out}");
        }
        assert!(!out.contains("VERYSECRET") && !out.contains("A2\""), "{out}");
    }
    let refused = explain(&table, &wish("nope"), 0, NOW);
    assert!(refused.to_json().to_string().contains("unknown_model"));
}

#[derive(Debug, Clone)]
struct World {
    text: String,
    wish: Wish<'static>,
    turn: u32,
    unwell: Vec<(usize, u8)>,
}

/// A config of up to four providers and seven models with any fallbacks, and a request to it.
fn world() -> impl Strategy<Value = World> {
    let model = (
        prop::collection::vec((0..4usize, 0..3usize), 1..4),
        prop::collection::vec(0..7usize, 0..4),
    );
    let list = |max| prop::collection::vec(0..4usize, 0..max);
    let asked = (0..8usize, prop::collection::vec(0..9usize, 0..4), list(3), list(3), list(2));
    (
        prop::collection::vec(0..4usize, 4),
        prop::collection::vec(model, 7),
        asked,
        any::<[bool; 2]>(),
        any::<u32>(),
        prop::collection::vec((0..40usize, 0..3u8), 0..30),
    )
        .prop_map(|(keys, models, asked, flags, turn, unwell)| {
            let text = world_text(&keys, &models);
            let provider = |list: &[usize]| list.iter().map(|i| format!("p{i}")).collect();
            let model = |i: &usize| match i {
                7 => "p1/u0".to_owned(),
                8 => "p2/other".to_owned(),
                i => format!("m{i}"),
            };
            let wish = Wish {
                model: model(&asked.0).into(),
                models: asked.1.iter().map(model).collect(),
                order: provider(&asked.2),
                only: provider(&asked.3),
                ignore: provider(&asked.4),
                allow_fallbacks: flags[0],
                stream: flags[1],
                ..Wish::default()
            };
            World { text, wish, turn, unwell }
        })
}

type Models = [(Vec<(usize, usize)>, Vec<usize>)];

fn world_text(keys: &[usize], models: &Models) -> String {
    let mut text = String::new();
    for (i, keys) in keys.iter().enumerate() {
        text +=
            &format!("[providers.p{i}]\nkind = \"openai\"\nbase_url = \"http://h:{}\"\n", i + 1);
        let list: Vec<_> = (0..*keys).map(|key| format!("\"env:K{i}{key}\"")).collect();
        if !list.is_empty() {
            text += &format!("keys = [{}]\n", list.join(", "));
        }
    }
    for (i, (targets, fallbacks)) in models.iter().enumerate() {
        let mut list: Vec<_> = targets.iter().map(|(p, u)| format!("\"p{p}/u{u}\"")).collect();
        list.sort();
        list.dedup();
        let fallbacks: Vec<_> = fallbacks.iter().map(|f| format!("\"m{f}\"")).collect();
        text += &format!("[models.m{i}]\ntargets = [{}]\n", list.join(", "));
        text += &format!("fallbacks = [{}]\n", fallbacks.join(", "));
    }
    text
}

fn make_unwell(table: &Table, unwell: &[(usize, u8)]) {
    for (index, how) in unwell {
        let (_, target) = table.targets.iter().nth(index % table.targets.len()).unwrap();
        match how {
            0 => target.breaker.cool(NOW + Ms(100 * *index as u32 + 1), 429),
            1 => target.breaker.cool(NOW + Ms(70 * *index as u32 + 1), 503),
            _ => {
                for _ in 0..5 {
                    target.breaker.end(Pass::Normal, Outcome::Bad, NOW);
                }
            }
        }
    }
}

/// The naive reading of the rules for one attempt: may it stand in this plan at all?
fn is_allowed(provider: &str, wish: &Wish) -> bool {
    let has = |list: &[String]| list.iter().any(|name| name == provider);
    (wish.only.is_empty() || has(&wish.only))
        && !has(&wish.ignore)
        && (wish.allow_fallbacks || wish.order.is_empty() || has(&wish.order))
}

proptest! {
    #[test]
    fn a_plan_is_short_unique_stable_allowed_and_explained(world in world()) {
        let table = table(&world.text);
        make_unwell(&table, &world.unwell);
        let World { wish, turn, .. } = &world;
        let plan = pick(&table, wish, *turn, NOW);
        prop_assert_eq!(&plan, &pick(&table, wish, *turn, NOW));
        let explained = explain(&table, wish, *turn, NOW);
        prop_assert_eq!(&plan, &explained.plan);
        let Ok(plan) = plan else { return Ok(()) };
        prop_assert!((1..=PLAN_ATTEMPTS_MAX).contains(&plan.attempts.len()));
        let mut seen = Vec::new();
        let mut rank = 0;
        for attempt in &plan.attempts {
            let target = &table.targets[attempt.target];
            let provider = &table.providers[target.provider].name;
            let what = (provider.clone(), attempt.model.clone(), target.key.clone());
            prop_assert!(is_allowed(provider, wish));
            prop_assert!(!seen.contains(&what), "twice: {:?}", what);
            seen.push(what);
            let now = match target.breaker.standing(NOW) {
                Standing::Ready | Standing::HalfOpen => 0,
                Standing::Open { .. } => 1,
                Standing::Cooling { .. } => 2,
            };
            prop_assert!(rank <= now, "a well target behind an unwell one");
            rank = now;
        }
        let tried: Vec<_> = explained.candidates.iter()
            .filter(|c| matches!(c.reason, Reason::Tried { .. }))
            .map(|c| (c.target.clone(), c.upstream.clone(), c.model.clone()))
            .collect();
        let planned: Vec<_> = plan.attempts.iter()
            .map(|a| (table.targets[a.target].name.clone(), a.model.clone(), a.shown.clone()))
            .collect();
        prop_assert_eq!(tried, planned);
    }

    #[test]
    fn the_turn_changes_only_which_key_is_first(world in world()) {
        let table = table(&world.text);
        let strip = |turn| pick(&table, &world.wish, turn, NOW).map(|plan| {
            let mut list: Vec<_> = plan.attempts.iter()
                .map(|a| (table.targets[a.target].provider, a.model.clone()))
                .collect();
            list.dedup();
            list
        });
        // A cut at eight may fall within a target's keys, but keys never change places with targets.
        prop_assert_eq!(strip(world.turn), strip(0));
    }
}

#[test]
fn breakers_are_sent_between_cores() {
    fn shared<T: Send + Sync>() {}
    shared::<Breaker>();
    shared::<Table>();
}

/// Vertex before a provider of the usual kind, with the account of `email`.
fn with_account(email: &str) -> Config {
    let text = "[providers.v]\nkind = \"vertex\"\nservice_account = \"file:key.json\"\n\
                [providers.p]\nkind = \"openai\"\n[models.m]\ntargets = [\"v/m\", \"p/m\"]\n";
    let key =
        format!(r#"{{"project_id":"p","private_key":"-----BEGIN X","client_email":"{email}"}}"#);
    config::load(text, &|_| Ok(key.clone().into_bytes())).unwrap()
}

fn token(table: &Table) -> &std::sync::Arc<super::token::Token> {
    table.providers.iter().next().unwrap().1.token.as_ref().unwrap()
}

#[test]
fn a_target_without_a_token_stands_last_until_there_is_one() {
    let table = compile(&with_account("a@b"), None).unwrap();
    assert_eq!(planned(&table, &wish("m"), 0), ["p/m m target", "v/m m moved_no_token"]);
    let until = NOW + Ms(1);
    token(&table).publish(crate::base::secret::Secret::new("t"), until);
    assert_eq!(planned(&table, &wish("m"), 0), ["v/m m primary", "p/m m target"]);
    let plan = pick(&table, &wish("m"), 0, until).unwrap();
    assert_eq!(said(&table, &plan)[1], "v/m m moved_no_token", "its time is over");
}

#[test]
fn a_reload_keeps_the_token_of_the_same_account() {
    let old = compile(&with_account("a@b"), None).unwrap();
    let same = compile(&with_account("a@b"), Some(&old)).unwrap();
    assert!(std::sync::Arc::ptr_eq(token(&old), token(&same)));
    let other = compile(&with_account("c@d"), Some(&old)).unwrap();
    assert!(!std::sync::Arc::ptr_eq(token(&old), token(&other)));
}
