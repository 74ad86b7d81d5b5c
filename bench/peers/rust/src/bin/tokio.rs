// SPDX-License-Identifier: Apache-2.0
//! tokio: its own channels, tasks and timers.

use klaw_bench_peers as b;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot, watch, Notify};
use tokio::task::yield_now;
use tokio_util::time::DelayQueue;

struct Fiber;

impl b::AsyncChan for Fiber {
    type Tx = mpsc::Sender<u64>;
    type Rx = mpsc::Receiver<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        mpsc::channel(cap)
    }
    async fn send(tx: &Self::Tx, v: u64) {
        tx.send(v).await.expect("send");
    }
    async fn recv(rx: &mut Self::Rx) -> Option<u64> {
        rx.recv().await
    }
}

fn spsc_batch64() -> f64 {
    let n = 10_000_000u64;
    let (tx, mut rx) = mpsc::channel::<u64>(1024);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        tokio::spawn(async move {
            let mut i = 0;
            while i < n {
                for permit in tx.reserve_many(64).await.expect("permits") {
                    permit.send(i);
                    i += 1;
                }
            }
        });
        let mut sum = 0u64;
        let mut batch = Vec::with_capacity(64);
        while rx.recv_many(&mut batch, 64).await > 0 {
            sum += batch.drain(..).sum::<u64>();
        }
        sum
    });
    let ns = b::per_op(start, n);
    b::check(sum, b::sum_to(n));
    ns
}

fn spawn(rounds: u64, each: u64) -> f64 {
    let rt = b::one();
    let start = Instant::now();
    let sum = rt.block_on(async move {
        let mut sum = 0;
        let mut tasks = Vec::with_capacity(each as usize);
        for _ in 0..rounds {
            tasks.extend((0..each).map(|i| tokio::spawn(async move { i })));
            for t in tasks.drain(..) {
                sum += t.await.expect("task");
            }
        }
        sum
    });
    let ns = b::per_op(start, rounds * each);
    b::check(sum, rounds * b::sum_to(each));
    ns
}

/// A task each of a runtime with two workers, joined in order.
fn executor_submit(rounds: u64, each: u64) -> f64 {
    let rt = b::two();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        let mut sum = 0;
        let mut tasks = Vec::with_capacity(each as usize);
        for _ in 0..rounds {
            tasks.extend((0..each).map(|i| tokio::spawn(async move { b::triple(i) })));
            for t in tasks.drain(..) {
                sum += t.await.expect("task");
            }
        }
        sum
    });
    let ns = b::per_op(start, rounds * each);
    b::check(sum, 3 * rounds * b::sum_to(each));
    ns
}

/// Tasks are tokio's only unit: one each.
fn executor_map() -> f64 {
    executor_submit(1, b::MAP_ITEMS as u64)
}

/// A request brings the end of a fresh oneshot with it.
fn actor_ask() -> f64 {
    let n = 2_000_000u64;
    let (tx, mut rx) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(1024);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        tokio::spawn(async move {
            while let Some((v, reply)) = rx.recv().await {
                reply.send(v).expect("asker");
            }
        });
        let mut sum = 0;
        for i in 0..n {
            let (reply, answer) = oneshot::channel();
            tx.send((i, reply)).await.expect("actor");
            sum += answer.await.expect("answer");
        }
        sum
    });
    let ns = b::per_op(start, n);
    b::check(sum, b::sum_to(n));
    ns
}

static GATE: Notify = Notify::const_new();
static PARKED: AtomicU64 = AtomicU64::new(0);

fn mem_parked() -> f64 {
    let n = 100_000u64;
    b::one().block_on(async move {
        let before = b::rss();
        for _ in 0..n {
            tokio::spawn(async {
                let wait = GATE.notified();
                PARKED.fetch_add(1, Relaxed);
                wait.await;
                PARKED.fetch_sub(1, Relaxed);
            });
        }
        while PARKED.load(Relaxed) < n {
            yield_now().await;
        }
        let bytes = (b::rss() - before) / n as f64;
        GATE.notify_waiters();
        while PARKED.load(Relaxed) > 0 {
            yield_now().await;
        }
        bytes
    })
}

fn select_8_ready() -> f64 {
    let rt = b::one();
    rt.block_on(async {
        let (tx, mut rx): (Vec<_>, Vec<_>) = (0..8).map(|_| mpsc::channel(b::SELECT_EACH as usize)).unzip();
        for v in 0..b::SELECT_EACH * 8 {
            tx[(v % 8) as usize].try_send(v).expect("fill");
        }
        drop(tx);
        let [r0, r1, r2, r3, r4, r5, r6, r7] = &mut rx[..] else {
            unreachable!()
        };
        let mut sum = 0u64;
        let start = Instant::now();
        for _ in 0..b::SELECT_OPS {
            sum += tokio::select! {
                v = r0.recv() => v, v = r1.recv() => v, v = r2.recv() => v, v = r3.recv() => v,
                v = r4.recv() => v, v = r5.recv() => v, v = r6.recv() => v, v = r7.recv() => v,
            }
            .expect("value");
        }
        let ns = b::per_op(start, b::SELECT_OPS);
        for r in &mut rx {
            while let Ok(v) = r.try_recv() {
                sum += v;
            }
        }
        b::check(sum, b::sum_to(b::SELECT_EACH * 8));
        ns
    })
}

fn select_8_parked() -> f64 {
    let n = 800_000u64;
    let (tx, mut rx): (Vec<_>, Vec<_>) = (0..8).map(|_| mpsc::channel::<u64>(1)).unzip();
    let (ack_tx, mut ack_rx) = mpsc::channel::<u64>(1);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        tokio::spawn(async move {
            let [r0, r1, r2, r3, r4, r5, r6, r7] = &mut rx[..] else {
                unreachable!()
            };
            for _ in 0..n {
                let v = tokio::select! {
                    v = r0.recv() => v, v = r1.recv() => v, v = r2.recv() => v, v = r3.recv() => v,
                    v = r4.recv() => v, v = r5.recv() => v, v = r6.recv() => v, v = r7.recv() => v,
                };
                ack_tx.send(v.expect("value")).await.expect("ack");
            }
        });
        let mut sum = 0;
        for i in 0..n {
            tx[(i % 8) as usize].send(i).await.expect("send");
            sum += ack_rx.recv().await.expect("ack");
        }
        sum
    });
    let ns = b::per_op(start, n);
    b::check(sum, b::sum_to(n));
    ns
}

/// tokio's broadcast overwrites what a receiver has not read, so the publisher goes in bursts that fit.
fn broadcast_8() -> f64 {
    let (n, burst) = (1_024_000u64, 1024u64);
    let (tx, _keep) = broadcast::channel::<u64>(burst as usize);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        let seen = Arc::new(AtomicU64::new(0));
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let (mut rx, seen) = (tx.subscribe(), seen.clone());
                tokio::spawn(async move {
                    let mut sum = 0;
                    for i in 1..=n {
                        sum += rx.recv().await.expect("in time");
                        if i % burst == 0 {
                            seen.fetch_add(1, Relaxed);
                        }
                    }
                    sum
                })
            })
            .collect();
        for i in 0..n {
            tx.send(i).expect("publish");
            if (i + 1) % burst == 0 {
                while seen.load(Relaxed) < 8 * (i + 1) / burst {
                    yield_now().await;
                }
            }
        }
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

fn watch_8_idle() -> f64 {
    let n = 5_000_000u64;
    let (tx, rx) = watch::channel(0u64);
    let subscribers = vec![rx; 8];
    let start = Instant::now();
    for i in 1..=n {
        tx.send(i).expect("publish");
    }
    let ns = b::per_op(start, n);
    b::check(subscribers.iter().map(|r| *r.borrow()).sum(), 8 * n);
    ns
}

fn watch_8_seen() -> f64 {
    let n = 200_000u64;
    let (tx, rx) = watch::channel(0u64);
    let rt = b::one();
    let start = Instant::now();
    let sum = b::on(&rt, async move {
        let seen = Arc::new(AtomicU64::new(0));
        let takers: Vec<_> = (0..8)
            .map(|_| {
                let (mut rx, seen) = (rx.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut sum = 0;
                    while rx.changed().await.is_ok() {
                        sum += *rx.borrow_and_update();
                        seen.store(seen.load(Relaxed) + 1, Relaxed);
                    }
                    sum
                })
            })
            .collect();
        drop(rx);
        for i in 1..=n {
            tx.send(i).expect("publish");
            while seen.load(Relaxed) < 8 * i {
                yield_now().await;
            }
        }
        drop(tx);
        let mut sum = 0;
        for t in takers {
            sum += t.await.expect("receiver");
        }
        sum
    });
    let ns = b::per_op(start, n);
    b::check(sum, 8 * (b::sum_to(n) + n));
    ns
}

/// Polls once, which arms the timer.
async fn arm<F: Future<Output = ()>>(sleep: &mut Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx).is_pending())).await
}

fn timer_arm_cancel() -> f64 {
    let n = 4_000_000u64;
    let mut armed = 0;
    let rt = b::one();
    let start = Instant::now();
    rt.block_on(tokio::task::unconstrained(async {
        for _ in 0..n {
            let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::from_secs(3600)));
            armed += u64::from(arm(&mut sleep.as_mut()).await);
        }
    }));
    let ns = b::per_op(start, n);
    b::check(armed, n);
    ns
}

/// Deadlines spread over the next hour, in no order.
fn spread(i: u64) -> Duration {
    Duration::from_millis(60_000 + i * 2_654_435_761 % 3_600_000)
}

fn timer_1m() -> f64 {
    let n = 1_000_000u64;
    let rt = b::one();
    rt.block_on(tokio::task::unconstrained(async {
        let mut all = Vec::with_capacity(n as usize);
        let mut armed = 0;
        let start = Instant::now();
        for i in 0..n {
            let mut sleep = Box::pin(tokio::time::sleep(spread(i)));
            armed += u64::from(arm(&mut sleep.as_mut()).await);
            all.push(sleep);
        }
        drop(all);
        let ns = b::per_op(start, n);
        b::check(armed, n);
        ns
    }))
}

fn timer_1m_queue() -> f64 {
    let n = 1_000_000u64;
    let rt = b::one();
    rt.block_on(async {
        let mut queue = DelayQueue::with_capacity(n as usize);
        let mut keys = Vec::with_capacity(n as usize);
        let start = Instant::now();
        for i in 0..n {
            keys.push(queue.insert(i, spread(i)));
        }
        let mut sum = 0;
        for k in &keys {
            sum += queue.remove(k).into_inner();
        }
        let ns = b::per_op(start, n);
        b::check(sum, b::sum_to(n));
        ns
    })
}

fn main() {
    b::main(&[
        b::job("spsc_1w", "tokio", b::spsc_1w::<Fiber>),
        b::job("spsc_2w", "tokio", b::spsc_2w::<Fiber>),
        b::job("spsc_2w_pinned", "tokio", b::spsc_2w_pinned::<Fiber>),
        b::job("spsc_batch64", "tokio", spsc_batch64),
        b::job("spsc_2w_10k", "tokio", b::spsc_2w_10k::<Fiber>),
        b::job("mpsc_4_1", "tokio", b::mpsc_4_1::<Fiber>),
        b::job("pingpong_1w", "tokio", b::pingpong_1w::<Fiber, 1>),
        b::job("pingpong_2w", "tokio", b::pingpong_2w::<Fiber, 1>),
        b::job("pingpong_threads", "tokio", b::pingpong_apart::<Fiber, 1>),
        b::job("spawn_join_1000", "tokio", || spawn(2000, 1000)),
        b::job("spawn_1m", "tokio", || spawn(1, 1_000_000)),
        b::job("mem_parked", "tokio", mem_parked),
        b::job("select_8_ready", "tokio", select_8_ready),
        b::job("select_8_parked", "tokio", select_8_parked),
        b::job("ring_1000", "tokio", b::ring_1000::<Fiber, 1>),
        b::job("actor_ask", "tokio", actor_ask),
        b::job("executor_map", "tokio", executor_map),
        b::job("executor_submit", "tokio", || executor_submit(1000, 1000)),
        b::job("broadcast_8", "tokio", broadcast_8),
        b::job("watch_8_idle", "tokio", watch_8_idle),
        b::job("watch_8_seen", "tokio", watch_8_seen),
        b::job("timer_arm_cancel", "tokio", timer_arm_cancel),
        b::job("timer_1m", "tokio", timer_1m),
        b::job("timer_1m", "tokio-delayqueue", timer_1m_queue),
    ]);
}
