// SPDX-License-Identifier: Apache-2.0
//! rtrb: a one-to-one ring that spins at both ends, the floor for parking channels.

use klaw_bench_peers as b;
use std::hint::spin_loop;

struct Ring;

impl b::ThreadChan for Ring {
    type Tx = rtrb::Producer<u64>;
    type Rx = rtrb::Consumer<u64>;
    fn make(cap: usize) -> (Self::Tx, Self::Rx) {
        rtrb::RingBuffer::new(cap)
    }
    fn send(tx: &mut Self::Tx, v: u64) {
        while tx.push(v).is_err() {
            spin_loop();
        }
    }
    fn recv(rx: &mut Self::Rx) -> Option<u64> {
        loop {
            if let Ok(v) = rx.pop() {
                return Some(v);
            }
            if rx.is_abandoned() {
                return rx.pop().ok();
            }
            spin_loop();
        }
    }
}

fn main() {
    b::main(&[b::job("spsc_threads", "rtrb", b::spsc_threads::<Ring>)]);
}
