// SPDX-License-Identifier: Apache-2.0

// The Go peer: channels, goroutines and timers of the standard library.
//
// `prog --list` prints one `JOB IMPL` a line; `prog JOB [IMPL]` runs that job once, checks its own result and prints
// `JOB IMPL VALUE UNIT`. A wrong result aborts. Elements are 8 bytes; senders send 0, 1, 2 …, receivers sum.
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

type job struct {
	name    string
	impl    string
	workers int // GOMAXPROCS
	run     func() float64
}

var jobs = []job{
	{"spsc_1w", "go", 1, func() float64 { return spsc(1024, 10_000_000) }},
	{"spsc_2w", "go", 2, func() float64 { return spsc(1024, 8_000_000) }},
	{"spsc_2w_pinned", "go", 2, spscLocked},
	{"spsc_threads", "go", 2, spscLocked},
	{"spsc_2w_10k", "go", 2, func() float64 { return spsc(10_000, 8_000_000) }},
	{"mpsc_4_1", "go", 2, func() float64 { return many(4, 1) }},
	{"mpmc_4_4", "go", 2, func() float64 { return many(4, 4) }},
	{"pingpong_1w", "go", 1, func() float64 { return pingpong(2_000_000, false) }},
	{"pingpong_2w", "go", 2, func() float64 { return pingpong(1_000_000, false) }},
	{"pingpong_threads", "go", 2, func() float64 { return pingpong(5_000, true) }},
	{"spawn_join_1000", "go", 1, func() float64 { return spawn(2000, 1000) }},
	{"spawn_1m", "go", 1, func() float64 { return spawn(1, 1_000_000) }},
	{"mem_parked", "go", 1, memParked},
	{"select_8_ready", "go", 1, selectReady},
	{"select_8_parked", "go", 1, selectParked},
	{"ring_1000", "go", 1, ring},
	{"actor_ask", "go", 1, func() float64 { return ask(false) }},
	{"actor_ask", "go-reused", 1, func() float64 { return ask(true) }},
	{"executor_map", "go", 2, func() float64 { return executorMap(1, 10) }},
	{"executor_map_chunked", "go", 2, func() float64 { return executorMap(0, 100) }},
	{"executor_submit", "go", 2, executorSubmit},
	{"broadcast_8", "go", 1, broadcast},
	{"watch_8_idle", "go", 1, watchIdle},
	{"watch_8_seen", "go", 1, watchSeen},
	{"timer_arm_cancel", "go", 1, timerArmCancel},
	{"timer_1m", "go", 1, timer1m},
}

// check aborts unless the result is the expected one.
func check(got, want uint64) {
	if got != want {
		fmt.Fprintf(os.Stderr, "wrong result: %d, expected %d\n", got, want)
		os.Exit(3)
	}
}

// sumTo is 0 + 1 + … + (n - 1).
func sumTo(n uint64) uint64 { return n * (n - 1) / 2 }

// perOp is nanoseconds an operation since start.
func perOp(start time.Time, ops uint64) float64 {
	return float64(time.Since(start).Nanoseconds()) / float64(ops)
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--list" {
		for _, j := range jobs {
			fmt.Println(j.name, j.impl)
		}
		return
	}
	for _, j := range jobs {
		if len(os.Args) < 2 || os.Args[1] != j.name || (len(os.Args) > 2 && os.Args[2] != j.impl) {
			continue
		}
		runtime.GOMAXPROCS(j.workers)
		unit := "ns"
		if j.name == "mem_parked" {
			unit = "bytes"
		}
		fmt.Printf("%s %s %.2f %s\n", j.name, j.impl, j.run(), unit)
		return
	}
	fmt.Fprintln(os.Stderr, "usage: prog --list | prog JOB [IMPL]")
	os.Exit(2)
}
