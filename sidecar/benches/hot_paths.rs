//! How long the hot paths take: `cargo bench --package sidecar --features benchmarks --bench hot_paths`.

use criterion::{Criterion, Throughput};
use sidecar::benchmarks::ALL;

/// How often each is done in one go: so that what it takes to begin does not count.
const TIMES: u32 = 1000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("hot paths");
    group.throughput(Throughput::Elements(TIMES.into()));
    for (name, scenario) in ALL {
        group.bench_function(name, |bencher| {
            bencher.iter(|| scenario(TIMES as usize));
        });
    }
    group.finish();
    criterion.final_summary();
}
