// SPDX-License-Identifier: Apache-2.0
//! async-executor: spawning and joining.

use async_executor::LocalExecutor;
use futures_lite::future::block_on;
use klaw_bench_peers as b;
use std::time::Instant;

fn spawn(rounds: u64, each: u64) -> f64 {
    let ex = LocalExecutor::new();
    let mut sum = 0;
    let start = Instant::now();
    block_on(ex.run(async {
        let mut tasks = Vec::with_capacity(each as usize);
        for _ in 0..rounds {
            tasks.extend((0..each).map(|i| ex.spawn(async move { i })));
            for t in tasks.drain(..) {
                sum += t.await;
            }
        }
    }));
    let ns = b::per_op(start, rounds * each);
    b::check(sum, rounds * b::sum_to(each));
    ns
}

fn main() {
    b::main(&[
        b::job("spawn_join_1000", "async-executor", || spawn(2000, 1000)),
        b::job("spawn_1m", "async-executor", || spawn(1, 1_000_000)),
    ]);
}
