// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

func produce(c chan<- uint64, from, to uint64) {
	for i := from; i < to; i++ {
		c <- i
	}
}

func consume(c <-chan uint64) uint64 {
	sum := uint64(0)
	for v := range c {
		sum += v
	}
	return sum
}

func spsc(capacity int, n uint64) float64 {
	c := make(chan uint64, capacity)
	start := time.Now()
	go func() {
		produce(c, 0, n)
		close(c)
	}()
	sum := consume(c)
	ns := perOp(start, n)
	check(sum, sumTo(n))
	return ns
}

// spscLocked keeps both ends on OS threads of their own.
func spscLocked() float64 {
	const n = 4_000_000
	runtime.LockOSThread()
	c := make(chan uint64, 1024)
	start := time.Now()
	go func() {
		runtime.LockOSThread()
		produce(c, 0, n)
		close(c)
	}()
	sum := consume(c)
	ns := perOp(start, n)
	check(sum, sumTo(n))
	return ns
}

func many(senders, receivers uint64) float64 {
	const n = 6_000_000
	c := make(chan uint64, 1024)
	var sending, receiving sync.WaitGroup
	var sum atomic.Uint64
	start := time.Now()
	for range receivers {
		receiving.Add(1)
		go func() {
			sum.Add(consume(c))
			receiving.Done()
		}()
	}
	for k := uint64(0); k < senders; k++ {
		sending.Add(1)
		go func(k uint64) {
			produce(c, k*n/senders, (k+1)*n/senders)
			sending.Done()
		}(k)
	}
	sending.Wait()
	close(c)
	receiving.Wait()
	ns := perOp(start, n)
	check(sum.Load(), sumTo(n))
	return ns
}

func pingpong(n uint64, locked bool) float64 {
	if locked {
		runtime.LockOSThread()
	}
	there, back := make(chan uint64), make(chan uint64)
	start := time.Now()
	go func() {
		if locked {
			runtime.LockOSThread()
		}
		for v := range there {
			back <- v
		}
	}()
	sum := uint64(0)
	for i := uint64(0); i < n; i++ {
		there <- i
		sum += <-back
	}
	ns := perOp(start, n)
	close(there)
	check(sum, sumTo(n))
	return ns
}

func spawn(rounds, each uint64) float64 {
	sum := uint64(0)
	var wg sync.WaitGroup
	start := time.Now()
	for r := uint64(0); r < rounds; r++ {
		wg.Add(int(each))
		for i := uint64(0); i < each; i++ {
			go func() {
				atomic.AddUint64(&sum, i)
				wg.Done()
			}()
		}
		wg.Wait()
	}
	ns := perOp(start, rounds*each)
	check(sum, rounds*sumTo(each))
	return ns
}

// rss is the resident memory of this process in bytes.
func rss() float64 {
	var total, resident float64
	f, err := os.Open("/proc/self/statm")
	if err == nil {
		_, err = fmt.Fscan(f, &total, &resident)
		f.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	return resident * float64(os.Getpagesize())
}

func memParked() float64 {
	const n = 100_000
	gate := make(chan struct{})
	var parked, left sync.WaitGroup
	parked.Add(n)
	left.Add(n)
	before := rss()
	for range n {
		go func() {
			parked.Done()
			<-gate
			left.Done()
		}()
	}
	parked.Wait()
	runtime.Gosched()
	bytes := (rss() - before) / n
	close(gate)
	left.Wait()
	return bytes
}

// receive selects among eight channels.
func receive(c *[8]chan uint64) uint64 {
	select {
	case v := <-c[0]:
		return v
	case v := <-c[1]:
		return v
	case v := <-c[2]:
		return v
	case v := <-c[3]:
		return v
	case v := <-c[4]:
		return v
	case v := <-c[5]:
		return v
	case v := <-c[6]:
		return v
	case v := <-c[7]:
		return v
	}
}

// selectReady stops at nine tenths, where every channel is still sure to hold something.
func selectReady() float64 {
	const each = 262_144
	const ops = each * 8 * 9 / 10
	var c [8]chan uint64
	for k := range c {
		c[k] = make(chan uint64, each)
	}
	for v := uint64(0); v < each*8; v++ {
		c[v%8] <- v
	}
	sum := uint64(0)
	start := time.Now()
	for i := 0; i < ops; i++ {
		sum += receive(&c)
	}
	ns := perOp(start, ops)
	for _, ch := range c {
		close(ch)
		sum += consume(ch)
	}
	check(sum, sumTo(each*8))
	return ns
}

func selectParked() float64 {
	const n = 500_000
	var c [8]chan uint64
	for k := range c {
		c[k] = make(chan uint64)
	}
	ack := make(chan uint64)
	go func() {
		for i := 0; i < n; i++ {
			ack <- receive(&c)
		}
	}()
	sum := uint64(0)
	start := time.Now()
	for i := uint64(0); i < n; i++ {
		c[i%8] <- i
		sum += <-ack
	}
	ns := perOp(start, n)
	check(sum, sumTo(n))
	return ns
}

// ring sends a token round 1000 goroutines; each adds one.
func ring() float64 {
	const members, laps = 1000, 2000
	first := make(chan uint64)
	rx := first
	start := time.Now()
	for i := 1; i < members; i++ {
		next := make(chan uint64)
		go func(rx <-chan uint64, tx chan<- uint64) {
			for v := range rx {
				tx <- v + 1
			}
		}(rx, next)
		rx = next
	}
	token := uint64(0)
	for i := 0; i < laps; i++ {
		first <- token
		token = <-rx + 1
	}
	ns := perOp(start, members*laps)
	check(token, members*laps)
	return ns
}

// broadcast is a channel for each receiver: Go has no broadcast.
func broadcast() float64 {
	const n = 1_000_000
	var c [8]chan uint64
	var wg sync.WaitGroup
	var sum atomic.Uint64
	start := time.Now()
	for k := range c {
		c[k] = make(chan uint64, 1024)
		wg.Add(1)
		go func(ch <-chan uint64) {
			sum.Add(consume(ch))
			wg.Done()
		}(c[k])
	}
	for i := uint64(0); i < n; i++ {
		for _, ch := range c {
			ch <- i
		}
	}
	for _, ch := range c {
		close(ch)
	}
	wg.Wait()
	ns := perOp(start, n)
	check(sum.Load(), 8*sumTo(n))
	return ns
}

// watched is Go's usual stand-in for a watch: a value and a channel that is closed when it changes.
type watched struct {
	mu      sync.Mutex
	value   uint64
	changed chan struct{}
}

func (w *watched) publish(v uint64) {
	w.mu.Lock()
	w.value = v
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
}

func (w *watched) look() (uint64, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.value, w.changed
}

func watchIdle() float64 {
	const n = 4_000_000
	w := watched{changed: make(chan struct{})}
	start := time.Now()
	for i := uint64(1); i <= n; i++ {
		w.publish(i)
	}
	ns := perOp(start, n)
	v, _ := w.look()
	check(v, n)
	return ns
}

func watchSeen() float64 {
	const n = 150_000
	w := watched{changed: make(chan struct{})}
	var seen, sum atomic.Uint64
	var ready, wg sync.WaitGroup
	for i := 0; i < 8; i++ {
		ready.Add(1)
		wg.Add(1)
		go func() {
			mine := uint64(0)
			v, changed := w.look()
			ready.Done()
			for v < n {
				<-changed
				v, changed = w.look()
				mine += v
				seen.Add(1)
			}
			sum.Add(mine)
			wg.Done()
		}()
	}
	ready.Wait()
	start := time.Now()
	for i := uint64(1); i <= n; i++ {
		w.publish(i)
		for seen.Load() < 8*i {
			runtime.Gosched()
		}
	}
	ns := perOp(start, n)
	wg.Wait()
	check(sum.Load(), 8*(sumTo(n)+n))
	return ns
}

func timerArmCancel() float64 {
	const n = 3_000_000
	stopped := uint64(0)
	start := time.Now()
	for i := 0; i < n; i++ {
		if time.AfterFunc(time.Hour, func() {}).Stop() {
			stopped++
		}
	}
	ns := perOp(start, n)
	check(stopped, n)
	return ns
}

func timer1m() float64 {
	const n = 1_000_000
	all := make([]*time.Timer, 0, n)
	stopped := uint64(0)
	start := time.Now()
	for i := uint64(0); i < n; i++ {
		spread := time.Duration(60_000+i*2_654_435_761%3_600_000) * time.Millisecond
		all = append(all, time.AfterFunc(spread, func() {}))
	}
	for _, t := range all {
		if t.Stop() {
			stopped++
		}
	}
	ns := perOp(start, n)
	check(stopped, n)
	return ns
}

type request struct {
	value uint64
	reply chan uint64
}

// ask sends a request with a reply channel, a fresh one each time unless it is to be reused.
func ask(reuse bool) float64 {
	const n = 2_000_000
	mailbox := make(chan request, 1024)
	reply := make(chan uint64, 1)
	start := time.Now()
	go func() {
		for r := range mailbox {
			r.reply <- r.value
		}
	}()
	sum := uint64(0)
	for i := uint64(0); i < n; i++ {
		if !reuse {
			reply = make(chan uint64, 1)
		}
		mailbox <- request{i, reply}
		sum += <-reply
	}
	ns := perOp(start, n)
	close(mailbox)
	check(sum, sumTo(n))
	return ns
}

// triple is the tiny function of the executor jobs. Not inlined: klaw calls it through a pointer.
//
//go:noinline
func triple(x uint64) uint64 { return 3 * x }

// executorMap has two goroutines that take the next items, step of them at a time; step 0 gives each one half.
func executorMap(step, rounds uint64) float64 {
	const n = 1_000_000
	input, output := make([]uint64, n), make([]uint64, n)
	for i := range input {
		input[i] = uint64(i)
		output[i] = 1
	}
	if step == 0 {
		step = n / 2
	}
	start := time.Now()
	for range rounds {
		var next atomic.Uint64
		var wg sync.WaitGroup
		for range 2 {
			wg.Add(1)
			go func() {
				for from := next.Add(step) - step; from < n; from = next.Add(step) - step {
					for i := from; i < from+step; i++ {
						output[i] = triple(input[i])
					}
				}
				wg.Done()
			}()
		}
		wg.Wait()
	}
	ns := perOp(start, rounds*n)
	sum := uint64(0)
	for _, v := range output {
		sum += v
	}
	check(sum, 3*sumTo(n))
	return ns
}

// executorSubmit is a goroutine a task, and a WaitGroup for the thousand.
func executorSubmit() float64 {
	const rounds, each = 1000, 1000
	var sum atomic.Uint64
	var wg sync.WaitGroup
	start := time.Now()
	for range rounds {
		wg.Add(each)
		for i := uint64(0); i < each; i++ {
			go func() {
				sum.Add(triple(i))
				wg.Done()
			}()
		}
		wg.Wait()
	}
	ns := perOp(start, rounds*each)
	check(sum.Load(), 3*rounds*sumTo(each))
	return ns
}
