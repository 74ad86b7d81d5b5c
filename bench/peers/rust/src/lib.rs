// SPDX-License-Identifier: Apache-2.0
//! The contract of every benchmark program, and the jobs that several libraries share.
//!
//! `prog --list` prints one `JOB IMPL` a line; `prog JOB [IMPL]` runs that job once, checks its own result and prints
//! `JOB IMPL VALUE UNIT`. A wrong result aborts. Elements are 8 bytes; senders send 0, 1, 2 …, receivers sum.

use std::future::Future;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

/// One job of one library: returns its cost an operation (ns) or a fiber (bytes).
pub struct Job {
    pub name: &'static str,
    pub imp: &'static str,
    pub run: fn() -> f64,
}

/// Shorthand for a table row.
pub const fn job(name: &'static str, imp: &'static str, run: fn() -> f64) -> Job {
    Job { name, imp, run }
}

/// The program: parses the arguments and answers by the contract.
pub fn main(jobs: &[Job]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().map(String::as_str) == Some("--list") {
        for j in jobs {
            println!("{} {}", j.name, j.imp);
        }
        return;
    }
    let found = jobs
        .iter()
        .find(|j| args.first().map(String::as_str) == Some(j.name) && args.get(1).map_or(true, |imp| imp == j.imp));
    let Some(j) = found else {
        eprintln!("usage: prog --list | prog JOB [IMPL]");
        std::process::exit(2);
    };
    let unit = if j.name == "mem_parked" { "bytes" } else { "ns" };
    println!("{} {} {:.2} {}", j.name, j.imp, (j.run)(), unit);
}

/// Aborts unless the result is the expected one.
pub fn check(got: u64, want: u64) {
    if got != want {
        eprintln!("wrong result: {got}, expected {want}");
        std::process::abort();
    }
}

/// 0 + 1 + … + (n - 1).
pub fn sum_to(n: u64) -> u64 {
    n * (n - 1) / 2
}

/// Nanoseconds an operation since `start`.
pub fn per_op(start: Instant, ops: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / ops as f64
}

/// Resident memory of this process in bytes.
pub fn rss() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: f64 = text.split(' ').nth(1).expect("statm field").parse().expect("number");
    pages * 4096.0
}

/// A current-thread runtime: one worker.
pub fn one() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("runtime")
}

/// A multi-thread runtime with two workers.
pub fn two() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("runtime")
}

/// Runs `f` as a task of `rt` (not on the thread that calls block_on, which is no worker of a multi-thread runtime).
pub fn on<F, T>(rt: &Runtime, f: F) -> T
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    rt.block_on(async { tokio::spawn(f).await.expect("task") })
}

/// An asynchronous channel of u64; `recv` answers None when it is closed and drained.
pub trait AsyncChan: 'static {
    type Tx: Clone + Send + Sync + 'static;
    type Rx: Send + 'static;
    fn make(cap: usize) -> (Self::Tx, Self::Rx);
    fn send(tx: &Self::Tx, v: u64) -> impl Future<Output = ()> + Send;
    fn recv(rx: &mut Self::Rx) -> impl Future<Output = Option<u64>> + Send;
}

/// Channels with several receivers.
pub trait AsyncMpmc: AsyncChan {
    fn share(rx: &Self::Rx) -> Self::Rx;
}

async fn produce<C: AsyncChan>(tx: C::Tx, from: u64, to: u64) {
    for i in from..to {
        C::send(&tx, i).await;
    }
}

async fn consume<C: AsyncChan>(mut rx: C::Rx) -> u64 {
    let mut sum = 0u64;
    while let Some(v) = C::recv(&mut rx).await {
        sum += v;
    }
    sum
}

fn spsc<C: AsyncChan>(rt: Runtime, cap: usize, n: u64) -> f64 {
    let (tx, rx) = C::make(cap);
    let start = Instant::now();
    let sum = on(&rt, async move {
        let sender = tokio::spawn(produce::<C>(tx, 0, n));
        let sum = tokio::spawn(consume::<C>(rx)).await.expect("receiver");
        sender.await.expect("sender");
        sum
    });
    let ns = per_op(start, n);
    check(sum, sum_to(n));
    ns
}

pub fn spsc_1w<C: AsyncChan>() -> f64 {
    spsc::<C>(one(), 1024, 10_000_000)
}

pub fn spsc_2w<C: AsyncChan>() -> f64 {
    spsc::<C>(two(), 1024, 10_000_000)
}

pub fn spsc_2w_10k<C: AsyncChan>() -> f64 {
    spsc::<C>(two(), 10_000, 8_000_000)
}

/// Both ends on runtimes of their own, each with one thread: they can't move together.
pub fn spsc_2w_pinned<C: AsyncChan>() -> f64 {
    let n = 4_000_000;
    let (tx, rx) = C::make(1024);
    let start = Instant::now();
    let sender = std::thread::spawn(move || one().block_on(produce::<C>(tx, 0, n)));
    let sum = one().block_on(consume::<C>(rx));
    let ns = per_op(start, n);
    sender.join().expect("sender");
    check(sum, sum_to(n));
    ns
}

pub fn mpsc_4_1<C: AsyncChan>() -> f64 {
    let n = 6_000_000;
    let (tx, rx) = C::make(1024);
    let rt = two();
    let start = Instant::now();
    let sum = on(&rt, async move {
        for k in 0..4 {
            tokio::spawn(produce::<C>(tx.clone(), k * n / 4, (k + 1) * n / 4));
        }
        drop(tx);
        tokio::spawn(consume::<C>(rx)).await.expect("receiver")
    });
    let ns = per_op(start, n);
    check(sum, sum_to(n));
    ns
}

pub fn mpmc_4_4<C: AsyncMpmc>() -> f64 {
    let n = 6_000_000;
    let (tx, rx) = C::make(1024);
    let rt = two();
    let start = Instant::now();
    let sum = on(&rt, async move {
        let receivers: Vec<_> = (0..4).map(|_| tokio::spawn(consume::<C>(C::share(&rx)))).collect();
        drop(rx);
        for k in 0..4 {
            tokio::spawn(produce::<C>(tx.clone(), k * n / 4, (k + 1) * n / 4));
        }
        drop(tx);
        let mut sum = 0;
        for r in receivers {
            sum += r.await.expect("receiver");
        }
        sum
    });
    let ns = per_op(start, n);
    check(sum, sum_to(n));
    ns
}

async fn echo<C: AsyncChan>(mut rx: C::Rx, tx: C::Tx) {
    while let Some(v) = C::recv(&mut rx).await {
        C::send(&tx, v).await;
    }
}

async fn pinger<C: AsyncChan>(tx: C::Tx, mut rx: C::Rx, n: u64) -> u64 {
    let mut sum = 0;
    for i in 0..n {
        C::send(&tx, i).await;
        sum += C::recv(&mut rx).await.expect("echo");
    }
    sum
}

fn pingpong<C: AsyncChan>(rt: Runtime, cap: usize, n: u64) -> f64 {
    let (there_tx, there_rx) = C::make(cap);
    let (back_tx, back_rx) = C::make(cap);
    let start = Instant::now();
    let sum = on(&rt, async move {
        tokio::spawn(echo::<C>(there_rx, back_tx));
        pinger::<C>(there_tx, back_rx, n).await
    });
    let ns = per_op(start, n);
    check(sum, sum_to(n));
    ns
}

/// CAP 0 (rendezvous) or 1: the smallest capacity, whichever suits the library best.
pub fn pingpong_1w<C: AsyncChan, const CAP: usize>() -> f64 {
    pingpong::<C>(one(), CAP, 2_000_000)
}

pub fn pingpong_2w<C: AsyncChan, const CAP: usize>() -> f64 {
    pingpong::<C>(two(), CAP, 1_000_000)
}

/// The two ends on two one-thread runtimes.
pub fn pingpong_apart<C: AsyncChan, const CAP: usize>() -> f64 {
    let n = 10_000;
    let (there_tx, there_rx) = C::make(CAP);
    let (back_tx, back_rx) = C::make(CAP);
    let other = std::thread::spawn(move || one().block_on(echo::<C>(there_rx, back_tx)));
    let start = Instant::now();
    let sum = one().block_on(pinger::<C>(there_tx, back_rx, n));
    let ns = per_op(start, n);
    other.join().expect("echo");
    check(sum, sum_to(n));
    ns
}

/// A token goes round 1000 tasks; each adds one.
pub fn ring_1000<C: AsyncChan, const CAP: usize>() -> f64 {
    let (members, laps) = (1000u64, 3000u64);
    let (first_tx, mut rx) = C::make(CAP);
    let rt = one();
    let start = Instant::now();
    let token = on(&rt, async move {
        for _ in 1..members {
            let (tx, next_rx) = C::make(CAP);
            let mut mine = std::mem::replace(&mut rx, next_rx);
            tokio::spawn(async move {
                while let Some(v) = C::recv(&mut mine).await {
                    C::send(&tx, v + 1).await;
                }
            });
        }
        let mut token = 0;
        for _ in 0..laps {
            C::send(&first_tx, token).await;
            token = C::recv(&mut rx).await.expect("token") + 1;
        }
        token
    });
    let ns = per_op(start, members * laps);
    check(token, members * laps);
    ns
}

/// A channel between OS threads.
pub trait ThreadChan: 'static {
    type Tx: Send + 'static;
    type Rx: Send + 'static;
    fn make(cap: usize) -> (Self::Tx, Self::Rx);
    fn send(tx: &mut Self::Tx, v: u64);
    fn recv(rx: &mut Self::Rx) -> Option<u64>;
}

/// Thread channels with several senders.
pub trait ThreadMpsc: ThreadChan {
    fn share_tx(tx: &Self::Tx) -> Self::Tx;
}

/// Thread channels with several receivers.
pub trait ThreadMpmc: ThreadMpsc {
    fn share_rx(rx: &Self::Rx) -> Self::Rx;
}

fn thread_produce<C: ThreadChan>(mut tx: C::Tx, from: u64, to: u64) {
    for i in from..to {
        C::send(&mut tx, i);
    }
}

fn thread_consume<C: ThreadChan>(mut rx: C::Rx) -> u64 {
    let mut sum = 0;
    while let Some(v) = C::recv(&mut rx) {
        sum += v;
    }
    sum
}

pub fn spsc_threads<C: ThreadChan>() -> f64 {
    let n = 16_000_000;
    let (tx, rx) = C::make(1024);
    let start = Instant::now();
    let sender = std::thread::spawn(move || thread_produce::<C>(tx, 0, n));
    let sum = thread_consume::<C>(rx);
    let ns = per_op(start, n);
    sender.join().expect("sender");
    check(sum, sum_to(n));
    ns
}

pub fn pingpong_threads<C: ThreadChan, const CAP: usize, const N: u64>() -> f64 {
    let (mut there_tx, mut there_rx) = C::make(CAP);
    let (mut back_tx, mut back_rx) = C::make(CAP);
    let other = std::thread::spawn(move || {
        while let Some(v) = C::recv(&mut there_rx) {
            C::send(&mut back_tx, v);
        }
    });
    let start = Instant::now();
    let mut sum = 0;
    for i in 0..N {
        C::send(&mut there_tx, i);
        sum += C::recv(&mut back_rx).expect("echo");
    }
    let ns = per_op(start, N);
    drop(there_tx);
    other.join().expect("echo");
    check(sum, sum_to(N));
    ns
}

fn thread_many<C: ThreadMpsc>(receivers: Vec<C::Rx>, tx: C::Tx) -> f64 {
    let n = 6_000_000;
    let start = Instant::now();
    let takers: Vec<_> = receivers
        .into_iter()
        .map(|rx| std::thread::spawn(move || thread_consume::<C>(rx)))
        .collect();
    for k in 0..4 {
        let tx = C::share_tx(&tx);
        std::thread::spawn(move || thread_produce::<C>(tx, k * n / 4, (k + 1) * n / 4));
    }
    drop(tx);
    let sum = takers.into_iter().map(|t| t.join().expect("receiver")).sum();
    let ns = per_op(start, n);
    check(sum, sum_to(n));
    ns
}

pub fn thread_mpsc_4_1<C: ThreadMpsc>() -> f64 {
    let (tx, rx) = C::make(1024);
    thread_many::<C>(vec![rx], tx)
}

pub fn thread_mpmc_4_4<C: ThreadMpmc>() -> f64 {
    let (tx, rx) = C::make(1024);
    let mut all: Vec<C::Rx> = (0..3).map(|_| C::share_rx(&rx)).collect();
    all.push(rx);
    thread_many::<C>(all, tx)
}

/// The select jobs fill 8 channels with this many elements each, and take nine tenths by a fair select: every channel
/// is still sure to hold something, so each operation sees eight ready cases.
pub const SELECT_EACH: u64 = 262_144;
pub const SELECT_OPS: u64 = SELECT_EACH * 8 * 9 / 10;

/// The executor jobs map `triple` over this many items, this often.
pub const MAP_ITEMS: usize = 1_000_000;

/// The tiny function of the executor jobs. Not inlined: klaw calls it through a pointer.
#[inline(never)]
pub fn triple(x: u64) -> u64 {
    x.wrapping_mul(3)
}

/// Times `rounds` runs of `map`, which writes triple of each input to the output beside it.
pub fn executor_map(rounds: u64, mut map: impl FnMut(&[u64], &mut [u64])) -> f64 {
    let input: Vec<u64> = (0..MAP_ITEMS as u64).collect();
    let mut output = vec![u64::MAX; MAP_ITEMS];
    let start = Instant::now();
    for _ in 0..rounds {
        map(&input, &mut output);
    }
    let ns = per_op(start, rounds * MAP_ITEMS as u64);
    check(output.iter().sum(), 3 * sum_to(MAP_ITEMS as u64));
    ns
}
