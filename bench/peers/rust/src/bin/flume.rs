// SPDX-License-Identifier: Apache-2.0
//! flume: asynchronous ends on tokio's runtimes, synchronous ends between threads.

use klaw_bench_peers as b;

struct Fiber;

impl b::AsyncChan for Fiber {
    type Tx = flume::Sender<u64>;
    type Rx = flume::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        flume::bounded(cap)
    }
    async fn send(tx: &Self::Tx, v: u64) {
        tx.send_async(v).await.expect("send");
    }
    async fn recv(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv_async().await.ok()
    }
}

impl b::AsyncMpmc for Fiber {
    fn share(rx: &Self::Rx) -> Self::Rx {
        rx.clone()
    }
}

struct Thread;

impl b::ThreadChan for Thread {
    type Tx = flume::Sender<u64>;
    type Rx = flume::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        flume::bounded(cap)
    }
    fn send(tx: &mut Self::Tx, v: u64) {
        tx.send(v).expect("send");
    }
    fn recv(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().ok()
    }
}

fn main() {
    b::main(&[
        b::job("spsc_1w", "flume", b::spsc_1w::<Fiber>),
        b::job("spsc_2w", "flume", b::spsc_2w::<Fiber>),
        b::job("spsc_2w_pinned", "flume", b::spsc_2w_pinned::<Fiber>),
        b::job("spsc_2w_10k", "flume", b::spsc_2w_10k::<Fiber>),
        b::job("spsc_threads", "flume", b::spsc_threads::<Thread>),
        b::job("mpsc_4_1", "flume", b::mpsc_4_1::<Fiber>),
        b::job("mpmc_4_4", "flume", b::mpmc_4_4::<Fiber>),
        b::job("pingpong_1w", "flume", b::pingpong_1w::<Fiber, 1>),
        b::job("pingpong_2w", "flume", b::pingpong_2w::<Fiber, 1>),
        b::job("pingpong_threads", "flume", b::pingpong_threads::<Thread, 1, 10_000>),
        b::job("ring_1000", "flume", b::ring_1000::<Fiber, 1>),
    ]);
}
