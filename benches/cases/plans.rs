//! How long a plan takes: 50 candidates, and the reading of what a request demands.

use std::hint::black_box;
use std::rc::Rc;

use firstbyte::base::tick::{Ms, Tick};
use firstbyte::config;
use firstbyte::llm::demand;
use firstbyte::llm::request::{Ask, Surface};
use firstbyte::net::wish_of;
use firstbyte::route::{self, Table, Wish};
use firstbyte::wire::json::{self, Top};

use super::{Case, memchr_floor};

const NOW: Tick = Tick(1_000_000_000);
const POLICIES: [&str; 5] = ["order", "weighted", "cheapest", "fastest", "balanced"];

pub(super) fn cases() -> Vec<Case> {
    let table = Rc::new(table());
    let numbers: Vec<u64> = (0..50).map(|n| n * 7919 % 51).collect();
    let mut all = vec![Case::once("plan", "floor: 50 numbers sorted", 0, move || {
        let mut numbers = numbers.clone();
        move || black_box(&mut numbers).sort_unstable()
    })];
    for policy in POLICIES {
        let (wish, table, mut turn) = (wish(policy), table.clone(), 0u32);
        all.push(Case::again("plan", format!("{policy}, 50 candidates"), 0, move || {
            turn = turn.wrapping_add(1);
            black_box(route::pick(&table, black_box(&wish), turn, NOW).is_ok());
        }));
    }
    let turn = "{\"role\":\"user\",\"content\":\"What is it, and how much of it is there? 12345\"}";
    let body = format!("{{\"model\":\"m\",\"messages\":[{}]}}", vec![turn; 1_000].join(","));
    let body = body.into_bytes();
    let mut members = Top::new();
    json::document_with_top(&body, &mut members).unwrap();
    all.push(memchr_floor("demand", "a thousand turns", body.clone()));
    all.push(Case::again("demand", "a thousand turns", body.len(), move || {
        black_box(demand::read(black_box(&body), &members));
    }));
    all
}

/// Ten providers, fifty models with one target each, and a route of each policy over them.
fn table() -> Table {
    let mut text = String::new();
    for provider in 0..10 {
        text += &format!(
            "[providers.p{provider}]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:{}\"\n",
            provider + 1
        );
    }
    let mut names = Vec::new();
    for model in 0..50 {
        text += &format!(
            "[models.m{model}]\ntargets = [\"p{}/u{model}\"]\n[catalog.\"p{}/u{model}\"]\n\
             price_in = {}\nprice_out = {}\ncontext = 128000\noutput = 16384\ncan = [\"tools\"]\n",
            model % 10,
            model % 10,
            (model * 7) % 13 + 1,
            (model * 5) % 17 + 1,
        );
        names.push(format!("\"m{model}\""));
    }
    for policy in ["order", "weighted", "cheapest", "fastest", "balanced"] {
        text +=
            &format!("[routes.{policy}]\npolicy = \"{policy}\"\nmodels = [{}]\n", names.join(", "));
    }
    let config = config::load(&text, &|_| Err(String::new())).unwrap();
    let table = route::compile(&config, None).unwrap();
    for (index, (_, target)) in table.targets.iter().enumerate() {
        target.speed.first(Ms(50 + index as u32 * 37 % 900), NOW);
        target.speed.rate(20 + index as u64 * 13 % 200, Ms(1_000));
    }
    table
}

fn wish(model: &str) -> Wish<'static> {
    let body = format!(
        "{{\"model\":\"{model}\",\"stream\":true,\"max_tokens\":500,\"tools\":[{{\"name\":\"f\"}}],\
         \"messages\":[{{\"role\":\"user\",\"content\":\"hello there\"}}]}}"
    );
    wish_of(&Ask::read(Surface::Chat, body.as_bytes()).unwrap(), None)
}
