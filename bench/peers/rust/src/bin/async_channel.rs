// SPDX-License-Identifier: Apache-2.0
//! async-channel on tokio's runtimes.

use klaw_bench_peers as b;

struct Fiber;

impl b::AsyncChan for Fiber {
    type Tx = async_channel::Sender<u64>;
    type Rx = async_channel::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        async_channel::bounded(cap)
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

fn main() {
    b::main(&[
        b::job("spsc_1w", "async-channel", b::spsc_1w::<Fiber>),
        b::job("spsc_2w", "async-channel", b::spsc_2w::<Fiber>),
        b::job("spsc_2w_pinned", "async-channel", b::spsc_2w_pinned::<Fiber>),
        b::job("spsc_2w_10k", "async-channel", b::spsc_2w_10k::<Fiber>),
        b::job("mpsc_4_1", "async-channel", b::mpsc_4_1::<Fiber>),
        b::job("mpmc_4_4", "async-channel", b::mpmc_4_4::<Fiber>),
        b::job("pingpong_1w", "async-channel", b::pingpong_1w::<Fiber, 1>),
        b::job("pingpong_2w", "async-channel", b::pingpong_2w::<Fiber, 1>),
        b::job("pingpong_threads", "async-channel", b::pingpong_apart::<Fiber, 1>),
        b::job("ring_1000", "async-channel", b::ring_1000::<Fiber, 1>),
    ]);
}
