//! What holds for every plan, over random configs, requests, measures and health.

use proptest::prelude::*;

use super::health::Outcome;
use super::*;
use crate::base::limits::PLAN_ATTEMPTS_MAX;
use crate::base::tick::{Ms, Tick};
use crate::config::{self, Demand, Fate, Fates, Kind, Needs};

const NOW: Tick = Tick(1_000_000_000);
const PROVIDERS: usize = 5;
const MODELS: usize = 6;

/// A judge to whom one model in three can't do what is asked, and one in three drops it.
fn picky(_kind: Kind, model: &str) -> Fates {
    match model.bytes().map(u32::from).sum::<u32>() % 3 {
        0 => vec![("n".into(), Fate::Incompatible)],
        1 => vec![("seed".into(), Fate::Dropped)],
        _ => Fates::new(),
    }
}

#[derive(Debug, Clone)]
struct World {
    text: String,
    wish: Wish<'static>,
    turn: u32,
    /// Target, what happens to it, how much.
    history: Vec<(usize, u8, u32)>,
}

fn abilities(bits: u16) -> Needs {
    let all = Needs::NAMES.iter().enumerate();
    all.filter(|(index, _)| bits >> index & 1 == 1)
        .fold(Needs::NONE, |set, (_, (_, need))| set.and(*need))
}

fn list(needs: Needs) -> String {
    needs.names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Facts of one target: what it can and can't, window, output limit, price.
type Known = (u16, u16, Option<u32>, Option<u32>, Option<u32>);

fn known() -> impl Strategy<Value = Known> {
    let tokens = |most: u32| prop::option::of(1..most);
    // Few abilities are missing, or nothing would ever fit.
    (
        any::<u16>(),
        (any::<u16>(), any::<u16>(), any::<u16>()),
        tokens(300_000),
        tokens(50_000),
        tokens(60),
    )
        .prop_map(|(can, (a, b, c), context, output, price)| {
            let cannot = a & b & c;
            (can & !cannot, cannot, context, output, price)
        })
}

fn config_text(
    keys: &[usize],
    facts: &[Known],
    models: &[Vec<usize>],
    policies: &[usize],
) -> String {
    let mut text = String::new();
    for (index, keys) in keys.iter().enumerate() {
        text += &format!(
            "[providers.p{index}]\nkind = \"openai\"\nbase_url = \"http://h:{}\"\n",
            index + 1
        );
        let keys: Vec<_> = (0..*keys).map(|key| format!("\"env:K{index}{key}\"")).collect();
        if !keys.is_empty() {
            text += &format!("keys = [{}]\n", keys.join(", "));
        }
    }
    for (index, (can, cannot, context, output, price)) in facts.iter().enumerate() {
        text += &format!("[catalog.\"p{}/u{}\"]\n", index % PROVIDERS, index / PROVIDERS);
        let (can, cannot) = (list(abilities(*can)), list(abilities(*cannot)));
        text += &format!("can = [{can}]\ncannot = [{cannot}]\n");
        for (key, value) in [("context", context), ("output", output), ("price_in", price)] {
            if let Some(value) = value {
                text += &format!("{key} = {value}\n");
            }
        }
    }
    for (index, targets) in models.iter().enumerate() {
        let mut targets: Vec<_> = targets
            .iter()
            .map(|at| format!("\"p{}/u{}\"", at % PROVIDERS, at / PROVIDERS))
            .collect();
        targets.sort();
        targets.dedup();
        text += &format!("[models.m{index}]\ntargets = [{}]\n", targets.join(", "));
        if index > 0 {
            text += &format!("fallbacks = [\"m{}\"]\n", index / 2);
        }
    }
    for (index, policy) in policies.iter().enumerate() {
        let policy = ["order", "weighted", "cheapest", "fastest", "balanced"][*policy];
        text += &format!(
            "[routes.r{index}]\npolicy = \"{policy}\"\nmodels = [\"m1\", \"m{}\"]\n",
            index + 2
        );
    }
    text
}

fn wish() -> impl Strategy<Value = Wish<'static>> {
    const NAMES: [&str; 14] = [
        "m0",
        "m3",
        "m5",
        "r0",
        "r1",
        "r2",
        "firstbyte/auto",
        "firstbyte/cheapest",
        "firstbyte/fastest",
        "p1/u0",
        "p2/unknown",
        "m4:floor",
        "r1:nitro",
        "p3/other:floor",
    ];
    let names = || prop::sample::select(NAMES.to_vec());
    let demand = (any::<[u16; 3]>(), 0..300_000u32, prop::option::of(0..60_000u32), 0..3u64);
    let providers = || prop::collection::vec((0..PROVIDERS).prop_map(|i| format!("p{i}")), 0..3);
    (
        names(),
        prop::collection::vec(names(), 0..3),
        (providers(), providers(), providers()),
        (any::<bool>(), any::<bool>(), 0..6u8),
        (0..5usize, prop::option::of(0..60u32)),
        demand,
    )
        .prop_map(
            |(
                model,
                models,
                (order, only, ignore),
                (stream, fallbacks, require),
                (sort, dear),
                demand,
            )| {
                let ([a, b, c], prompt, output, thread) = demand;
                Wish {
                    model: model.into(),
                    models: models.into_iter().map(str::to_owned).collect(),
                    order,
                    // Mostly without, or nothing would be left.
                    only: if require % 3 == 0 { only } else { Vec::new() },
                    ignore,
                    allow_fallbacks: fallbacks,
                    stream,
                    demand: Demand {
                        needs: abilities(a & b & c),
                        prompt,
                        output,
                        thread,
                        ..Demand::default()
                    },
                    sort: [None, None, Some(By::Price), Some(By::Latency), Some(By::Throughput)]
                        [sort],
                    max_price: dear
                        .map(|prompt| MaxPrice { prompt: f64::from(prompt), output: 1e3 }),
                    require: require == 0,
                    judge: [Judge::default(), Judge(Some(&picky))][usize::from(thread % 2 == 0)],
                    ..Wish::default()
                }
            },
        )
}

fn world() -> impl Strategy<Value = World> {
    let models = prop::collection::vec(prop::collection::vec(0..PROVIDERS * 2, 1..4), MODELS);
    (
        prop::collection::vec(0..3usize, PROVIDERS),
        prop::collection::vec(known(), 0..PROVIDERS * 2),
        models,
        prop::collection::vec(0..5usize, 3),
        wish(),
        any::<u32>(),
        prop::collection::vec((0..40usize, 0..6u8, 1..5_000u32), 0..60),
    )
        .prop_map(|(keys, facts, models, policies, wish, turn, history)| World {
            text: config_text(&keys, &facts, &models, &policies),
            wish,
            turn,
            history,
        })
}

fn table(world: &World) -> Table {
    let config = config::load(&world.text, &|reference| Ok(reference.to_string().into_bytes()));
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}\n{}", world.text));
    let table = compile(&config, None).unwrap_or_else(|problems| panic!("{problems:?}"));
    let count = table.targets.len();
    for (at, what, much) in &world.history {
        let (id, target) = table.targets.iter().nth(at % count).unwrap_or_else(|| panic!());
        match what {
            0 => target.breaker.cool(NOW + Ms(*much), 429),
            1 => {
                let pass = target.breaker.begin(NOW);
                target.breaker.end(pass, Outcome::Bad, NOW);
            }
            2 => target.speed.failed(NOW),
            3 => target.speed.rate(u64::from(*much), Ms(1_000)),
            4 => table.affinity.note(u64::from(much % 3), id, *much, NOW),
            _ => target.speed.first(Ms(*much), NOW),
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn explain_is_dispatch_and_the_plan_is_sound(world in world()) {
        let table = table(&world);
        let (wish, turn) = (&world.wish, world.turn);
        let plan = pick(&table, wish, turn, NOW);
        prop_assert_eq!(&plan, &pick(&table, wish, turn, NOW), "the same inputs");
        let explained = explain(&table, wish, turn, NOW);
        prop_assert_eq!(&plan, &explained.plan);
        // Both forms come out, and say a number of nothing that is none.
        let json = explained.to_json().to_string();
        prop_assert!(!json.contains("NaN") && !explained.to_text().is_empty());
        let Ok(plan) = plan else { return Ok(()) };
        prop_assert!((1..=PLAN_ATTEMPTS_MAX).contains(&plan.attempts.len()));
        let mut seen = Vec::new();
        for attempt in &plan.attempts {
            let target = &table.targets[attempt.target];
            let facts = match &target.model {
                Some(_) => &target.facts,
                None => table.facts_of(target.provider, &attempt.model),
            };
            let fates = wish.judge.0.map_or_else(Fates::new, |judge| {
                judge(table.providers[target.provider].kind, &attempt.model)
            });
            let lack = fit::lack(facts, wish, &fates);
            prop_assert_eq!(lack, None, "{} can't serve it", target.name);
            if let Some(most) = wish.max_price {
                prop_assert!(facts.price.is_some_and(|price| price.input <= most.prompt));
            }
            let what = (attempt.target, attempt.model.clone());
            prop_assert!(!seen.contains(&what), "twice: {:?}", what);
            seen.push(what);
            prop_assert!(!attempt.model.ends_with(":floor") && !attempt.model.ends_with(":nitro"));
        }
        // Each candidate is told once: tried or left out, in the order of the plan.
        let tried: Vec<_> = explained.candidates.iter()
            .filter(|candidate| matches!(candidate.reason, Reason::Tried { .. }))
            .map(|candidate| candidate.target.clone())
            .collect();
        let planned: Vec<_> =
            plan.attempts.iter().map(|a| table.targets[a.target].name.clone()).collect();
        prop_assert_eq!(tried, planned);
    }

    /// Of two targets that are both well, the plan of a ranked route never puts the worse one first,
    /// the one that explores apart.
    #[test]
    fn a_ranked_group_is_sorted_by_its_score(world in world()) {
        let table = table(&world);
        let wish = Wish {
            model: "firstbyte/cheapest".into(),
            models: Vec::new(),
            order: Vec::new(),
            sort: None,
            ..world.wish
        };
        let explained = explain(&table, &wish, world.turn, NOW);
        let scores: Vec<_> = explained.candidates.iter()
            .filter(|c| matches!(c.reason, Reason::Tried { .. }) && c.unwell.is_none())
            .filter(|c| c.by == By::Price)
            .map(|c| c.score)
            .collect();
        prop_assert!(scores.is_sorted(), "{:?}", scores);
    }
}
