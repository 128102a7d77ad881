//! What the hot paths take, each beside a floor: `cargo bench --bench paths`, with a part of a name behind
//! it for some of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a bench stops where it is wrong"
)]

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};

mod cases;

use cases::{Case, Work, cases};

fn paths(c: &mut Criterion) {
    let mut all = cases().into_iter().peekable();
    while let Some(name) = all.peek().map(|case| case.group) {
        let mut group = c.benchmark_group(name);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
        while let Some(case) = all.next_if(|case| case.group == name) {
            time(&mut group, case);
        }
        group.finish();
    }
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, case: Case) {
    if case.bytes > 0 {
        group.throughput(Throughput::Bytes(case.bytes as u64));
    }
    match case.work {
        Work::Again(mut run) => group.bench_function(case.name, |b| b.iter(&mut run)),
        Work::Once(mut make) => group.bench_function(case.name, |b| {
            b.iter_batched_ref(&mut make, |run| run(), BatchSize::SmallInput);
        }),
    };
}

criterion_group!(benches, paths);
criterion_main!(benches);
