// SPDX-License-Identifier: Apache-2.0
//! rayon: a pool of two threads that steal from each other. The jobs run inside the pool: one thread calls, both work.

use klaw_bench_peers as b;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("pool")
}

/// A leaf each.
fn executor_map() -> f64 {
    pool().install(|| {
        b::executor_map(10, |input, output| {
            output
                .par_iter_mut()
                .with_max_len(1)
                .zip(input)
                .for_each(|(out, &x)| *out = b::triple(x));
        })
    })
}

/// Chunks as rayon likes them.
fn executor_map_chunked() -> f64 {
    pool().install(|| {
        b::executor_map(100, |input, output| {
            output
                .par_iter_mut()
                .zip(input)
                .for_each(|(out, &x)| *out = b::triple(x));
        })
    })
}

fn executor_submit() -> f64 {
    let (rounds, each) = (1000u64, 1000u64);
    let sum = AtomicU64::new(0);
    pool().install(|| {
        let start = Instant::now();
        for _ in 0..rounds {
            rayon::scope(|s| {
                for i in 0..each {
                    let sum = &sum;
                    s.spawn(move |_| {
                        sum.fetch_add(b::triple(i), Relaxed);
                    });
                }
            });
        }
        let ns = b::per_op(start, rounds * each);
        b::check(sum.load(Relaxed), 3 * rounds * b::sum_to(each));
        ns
    })
}

fn main() {
    b::main(&[
        b::job("executor_map", "rayon", executor_map),
        b::job("executor_map_chunked", "rayon", executor_map_chunked),
        b::job("executor_submit", "rayon", executor_submit),
    ]);
}
