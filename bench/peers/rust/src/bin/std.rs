// SPDX-License-Identifier: Apache-2.0
//! std::sync::mpsc between threads.

use klaw_bench_peers as b;
use std::sync::mpsc;

struct Thread;

impl b::ThreadChan for Thread {
    type Tx = mpsc::SyncSender<u64>;
    type Rx = mpsc::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        mpsc::sync_channel(cap)
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

fn main() {
    b::main(&[
        b::job("spsc_threads", "std", b::spsc_threads::<Thread>),
        b::job("spsc_2w_pinned", "std", b::spsc_threads::<Thread>),
        b::job("mpsc_4_1", "std", b::thread_mpsc_4_1::<Thread>),
        b::job("pingpong_threads", "std", b::pingpong_threads::<Thread, 1, 10_000>),
    ]);
}
