// SPDX-License-Identifier: Apache-2.0
//! async-broadcast: one sender, eight receivers, on tokio's one-thread runtime.

use klaw_bench_peers as b;
use std::time::Instant;

fn broadcast_8() -> f64 {
    let n = 1_000_000u64;
    let (tx, rx) = async_broadcast::broadcast::<u64>(1024);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let mut rx = rx.clone();
                tokio::spawn(async move {
                    let mut sum = 0;
                    while let Ok(v) = rx.recv().await {
                        sum += v;
                    }
                    sum
                })
            })
            .collect();
        drop(rx);
        for i in 0..n {
            tx.broadcast(i).await.expect("publish");
        }
        drop(tx);
        let mut sum = 0;
        for t in takers {
            sum += t.await.expect("receiver");
        }
        sum
    });
    let ns = b::per_op(start, n);
    b::check(sum, 8 * b::sum_to(n));
    ns
}

fn main() {
    b::main(&[b::job("broadcast_8", "async-broadcast", broadcast_8)]);
}
