// SPDX-License-Identifier: Apache-2.0
//! crossbeam-channel between threads, and its select.

use crossbeam_channel as cb;
use klaw_bench_peers as b;
use std::time::Instant;

struct Thread;

impl b::ThreadChan for Thread {
    type Tx = cb::Sender<u64>;
    type Rx = cb::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        cb::bounded(cap)
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

fn select_8_ready() -> f64 {
    let chans: Vec<_> = (0..8).map(|_| cb::bounded(b::SELECT_EACH as usize)).collect();
    for v in 0..b::SELECT_EACH * 8 {
        chans[(v % 8) as usize].0.send(v).expect("fill");
    }
    let r: Vec<_> = chans.iter().map(|c| &c.1).collect();
    let mut sum = 0u64;
    let start = Instant::now();
    for _ in 0..b::SELECT_OPS {
        sum += cb::select! {
            recv(r[0]) -> v => v, recv(r[1]) -> v => v, recv(r[2]) -> v => v, recv(r[3]) -> v => v,
            recv(r[4]) -> v => v, recv(r[5]) -> v => v, recv(r[6]) -> v => v, recv(r[7]) -> v => v,
        }
        .expect("value");
    }
    let ns = b::per_op(start, b::SELECT_OPS);
    for (_, rx) in &chans {
        sum += rx.try_iter().sum::<u64>();
    }
    b::check(sum, b::sum_to(b::SELECT_EACH * 8));
    ns
}

fn main() {
    b::main(&[
        b::job("spsc_threads", "crossbeam", b::spsc_threads::<Thread>),
        b::job("mpsc_4_1", "crossbeam", b::thread_mpsc_4_1::<Thread>),
        b::job("mpmc_4_4", "crossbeam", b::thread_mpmc_4_4::<Thread>),
        b::job(
            "pingpong_threads",
            "crossbeam",
            b::pingpong_threads::<Thread, 1, 200_000>,
        ),
        b::job("select_8_ready", "crossbeam", select_8_ready),
    ]);
}
