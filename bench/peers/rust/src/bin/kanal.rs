// SPDX-License-Identifier: Apache-2.0
//! kanal: asynchronous ends on tokio's runtimes, synchronous ends between threads.

use klaw_bench_peers as b;
use std::time::Instant;

struct Fiber;

impl b::AsyncChan for Fiber {
    type Tx = kanal::AsyncSender<u64>;
    type Rx = kanal::AsyncReceiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        kanal::bounded_async(cap)
    }
    async fn send(tx: &Self::Tx, v: u64) {
        tx.send(v).await.expect("send");
    }
    async fn recv(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().await.ok()
    }
}

impl b::AsyncMpmc for Fiber {
    fn share(rx: &Self::Rx) -> Self::Rx {
        rx.clone()
    }
}

/// A request brings the sending end of a fresh channel with it.
fn actor_ask() -> f64 {
    let n = 2_000_000u64;
    let (tx, rx) = kanal::bounded_async::<(u64, kanal::AsyncSender<u64>)>(1024);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        tokio::spawn(async move {
            while let Ok((v, reply)) = rx.recv().await {
                reply.send(v).await.expect("asker");
            }
        });
        let mut sum = 0;
        for i in 0..n {
            let (reply, answer) = kanal::bounded_async(1);
            tx.send((i, reply)).await.expect("actor");
            sum += answer.recv().await.expect("answer");
        }
        sum
    });
    let ns = b::per_op(start, n);
    b::check(sum, b::sum_to(n));
    ns
}

struct Thread;

impl b::ThreadChan for Thread {
    type Tx = kanal::Sender<u64>;
    type Rx = kanal::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        kanal::bounded(cap)
    }
    fn send(tx: &mut Self::Tx, v: u64) {
        tx.send(v).expect("send");
    }
    fn recv(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().ok()
    }
}

impl b::ThreadMpsc for Thread {
    fn share_tx(tx: &Self::Tx) -> Self::Tx {
        tx.clone()
    }
}

impl b::ThreadMpmc for Thread {
    fn share_rx(rx: &Self::Rx) -> Self::Rx {
        rx.clone()
    }
}

fn main() {
    b::main(&[
        b::job("spsc_1w", "kanal", b::spsc_1w::<Fiber>),
        b::job("spsc_2w", "kanal", b::spsc_2w::<Fiber>),
        b::job("spsc_2w_pinned", "kanal", b::spsc_2w_pinned::<Fiber>),
        b::job("spsc_2w_10k", "kanal", b::spsc_2w_10k::<Fiber>),
        b::job("spsc_threads", "kanal", b::spsc_threads::<Thread>),
        b::job("mpsc_4_1", "kanal", b::mpsc_4_1::<Fiber>),
        b::job("mpsc_4_1", "kanal-threads", b::thread_mpsc_4_1::<Thread>),
        b::job("mpmc_4_4", "kanal", b::mpmc_4_4::<Fiber>),
        b::job("mpmc_4_4", "kanal-threads", b::thread_mpmc_4_4::<Thread>),
        b::job("pingpong_1w", "kanal", b::pingpong_1w::<Fiber, 0>),
        b::job("pingpong_2w", "kanal", b::pingpong_2w::<Fiber, 0>),
        b::job("pingpong_threads", "kanal", b::pingpong_threads::<Thread, 0, 300_000>),
        b::job("ring_1000", "kanal", b::ring_1000::<Fiber, 0>),
        b::job("actor_ask", "kanal", actor_ask),
    ]);
}
