//! How long a plan takes: 50 candidates, and the reading of what a request demands.

#![allow(missing_docs, clippy::expect_used, reason = "a bench stops where something is wrong")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::config;
use firstbyte::llm::demand;
use firstbyte::llm::request::{Ask, Surface};
use firstbyte::net::wish_of;
use firstbyte::route::{self, Table, Wish};
use firstbyte::wire::json::{self, Top};

const NOW: Tick = Tick(1_000_000_000);

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
    let config = config::load(&text, &|_| Err(String::new())).expect("a good config");
    let table = route::compile(&config, None).expect("a table");
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
    wish_of(&Ask::read(Surface::Chat, body.as_bytes()).expect("a good request"), None)
}

fn plans(c: &mut Criterion) {
    let table = table();
    let mut group = c.benchmark_group("plan of 50 candidates");
    for policy in ["order", "weighted", "cheapest", "fastest", "balanced"] {
        let wish = wish(policy);
        let mut turn = 0u32;
        group.bench_function(policy, |b| {
            b.iter(|| {
                turn = turn.wrapping_add(1);
                black_box(route::pick(&table, black_box(&wish), turn, NOW).is_ok())
            });
        });
    }
    group.finish();
}

fn demands(c: &mut Criterion) {
    let turn = "{\"role\":\"user\",\"content\":\"What is it, and how much of it is there? 12345\"}";
    let body = format!("{{\"model\":\"m\",\"messages\":[{}]}}", vec![turn; 1_000].join(","));
    let mut members = Top::new();
    json::document_with_top(body.as_bytes(), &mut members).expect("JSON");
    let mut group = c.benchmark_group("demand");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("a thousand turns", |b| {
        b.iter(|| black_box(demand::read(black_box(body.as_bytes()), &members)));
    });
    group.finish();
}

criterion_group!(benches, plans, demands);
criterion_main!(benches);
