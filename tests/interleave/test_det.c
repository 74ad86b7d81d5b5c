/* SPDX-License-Identifier: Apache-2.0 */
/* test_det.c - the deterministic build itself: small programs on virtual processors, no runtime.
 *
 * A bug that needs one certain order must be found within a bounded number of seeds by every
 * strategy together; the same seed must give the same trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/lock.h"
#include "interleave/harness.h"

static struct {
    _Atomic uint32_t word, sleeping, go;
    int counter, order[8], steps, owner;
    bool buggy;
    klawi_lock lock;
    klawi_poller poller;
    int pipe[2];
} W;

static void start(uint64_t seed) {
    memset(&W, 0, sizeof W);
    klawi_lock_init(&W.lock, KLAWI_RANK_LEAF);
    klawi_det_begin(seed, "self test", 0);
}

/* How a child that runs fn over the seeds 1..n ended: its exit status, or 256 + signal. */
static int child(void (*fn)(uint64_t seed), uint64_t n) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        for (uint64_t seed = 1; seed <= n; seed++)
            fn(seed);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* --- programs -------------------------------------------------------------------------------- */

static void *increments(void *arg) {
    (void)arg;
    for (int i = 0; i < 2; i++) {
        if (!W.buggy)
            klawi_lock_acquire(&W.lock);
        int seen = W.counter;
        KLAWI_POINT();
        W.counter = seen + 1;
        if (!W.buggy)
            klawi_lock_release(&W.lock);
    }
    return NULL;
}

static int count_up(uint64_t seed, bool buggy) {
    start(seed);
    W.buggy = buggy;
    vthread a = vthread_start("a", increments, NULL), b = vthread_start("b", increments, NULL);
    vthread_join(a);
    vthread_join(b);
    int n = W.counter;
    klawi_det_end();
    return n;
}

/* A parker; buggy: it looks at the word, then sleeps on whatever it is. */
static void *parker(void *arg) {
    (void)arg;
    while (atomic_load(&W.word) == 0) {
        KLAWI_POINT();
        klawi_futex_wait(&W.word, W.buggy ? atomic_load(&W.word) : 0, KLAW_FOREVER);
    }
    W.steps++;
    return NULL;
}

static void park_and_wake(uint64_t seed, bool buggy) {
    start(seed);
    W.buggy = buggy;
    vthread a = vthread_start("parker", parker, NULL);
    KLAWI_POINT();
    atomic_store(&W.word, 1);
    klawi_futex_wake(&W.word, 1);
    vthread_join(a);
    KLAW_DET_CHECK(W.steps == 1);
    klawi_det_end();
}

static void lost_wake_up(uint64_t seed) {
    park_and_wake(seed, true);
}

static void kept_wake_up(uint64_t seed) {
    park_and_wake(seed, false);
}

static void *spins(void *arg) {
    (void)arg;
    while (atomic_load(&W.go) == 0)
        klawi_pause();
    return NULL;
}

static void spin_and_set(uint64_t seed) {
    start(seed);
    vthread a = vthread_start("spins", spins, NULL);
    for (int i = 0; i < 20; i++)
        KLAWI_POINT();
    atomic_store(&W.go, 1);
    vthread_join(a);
    klawi_det_end();
}

static void spin_for_ever(uint64_t seed) {
    start(seed);
    spins(NULL);
}

static void sleep_with_lock(uint64_t seed) {
    start(seed);
    vthread a = vthread_start("a", increments, NULL);
    klawi_lock_acquire(&W.lock);
    vthread_join(a); /* a may have been faster; not with every seed */
    klawi_lock_release(&W.lock);
    klawi_det_end();
}

/* --- tests ----------------------------------------------------------------------------------- */

static void lost_updates_are_found_and_locks_prevent_them(void **state) {
    (void)state;
    int lost = 0, kept = 0;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        lost += count_up(seed, true) != 4;
        kept += count_up(seed, false) == 4;
    }
    assert_true(lost > 60);
    assert_int_equal(kept, 600);
}

static void a_lost_wake_up_is_a_deadlock(void **state) {
    (void)state;
    assert_int_equal(child(lost_wake_up, 200), KLAWI_DET_EXIT);
    assert_int_equal(child(kept_wake_up, 2000), 0);
}

static void spinners_give_way_and_endless_ones_are_reported(void **state) {
    (void)state;
    assert_int_equal(child(spin_and_set, 2000), 0);
    assert_int_equal(child(spin_for_ever, 1), KLAWI_DET_EXIT);
    assert_int_equal(child(sleep_with_lock, 50), KLAWI_DET_EXIT);
}

static void *mixed(void *arg) {
    (void)arg;
    for (int i = 0; i < 3; i++) {
        klawi_lock_acquire(&W.lock);
        KLAWI_POINT();
        W.steps += (int)klawi_det_choose(5);
        klawi_lock_release(&W.lock);
        if (klawi_det_choose(2))
            klawi_futex_wait(&W.word, 0, klawi_clock() + 1000 * (int64_t)choose(9));
        else
            klawi_futex_wake(&W.word, 2);
        klawi_poller_wake(&W.poller);
        klawi_poll_event ev[4];
        klawi_poller_wait(&W.poller, ev, 4, klawi_clock() + 500);
        klawi_thread_yield();
    }
    return NULL;
}

static uint64_t mixed_hash(uint64_t seed) {
    start(seed);
    assert_int_equal(klawi_poller_open(&W.poller), KLAW_OK);
    vthread t[3];
    for (int i = 0; i < 3; i++)
        t[i] = vthread_start("mixed", mixed, NULL);
    for (int i = 0; i < 3; i++)
        vthread_join(t[i]);
    klawi_poller_close(&W.poller);
    return klawi_det_end();
}

static void the_same_seed_gives_the_same_trace(void **state) {
    (void)state;
    static uint64_t hash[1000];
    int same = 0, distinct = 0;
    for (uint64_t i = 0; i < 1000; i++)
        hash[i] = mixed_hash(i);
    for (uint64_t i = 0; i < 1000; i++) {
        same += mixed_hash(i) == hash[i];
        distinct += i == 0 || hash[i] != hash[i - 1];
    }
    assert_int_equal(same, 1000);
    assert_true(distinct > 900);
}

static void *naps(void *arg) {
    int me = *(int *)arg;
    klawi_det_sleep(me * (int64_t)1000000);
    W.order[W.counter++] = me;
    return NULL;
}

static void time_is_virtual_and_deadlines_come_in_order(void **state) {
    (void)state;
    static int n[] = {30, 10, 20};
    for (uint64_t seed = 1; seed <= 300; seed++) {
        start(seed);
        vthread t[3];
        int64_t began = klawi_clock();
        for (int i = 0; i < 3; i++)
            t[i] = vthread_start("naps", naps, &n[i]);
        for (int i = 0; i < 3; i++)
            vthread_join(t[i]);
        assert_true(klawi_clock() - began >= 30000000);
        assert_true(klawi_clock() - began < 60000000);
        assert_true(W.order[0] == 10 && W.order[1] == 20 && W.order[2] == 30);
        int64_t until = klawi_clock() + 7000000;
        while (klawi_clock() < until) /* nobody wakes it: the deadline does */
            klawi_futex_wait(&W.word, 0, until);
        klawi_det_end();
    }
}

static void *writes(void *arg) {
    (void)arg;
    KLAWI_POINT();
    if (write(W.pipe[1], "x", 1) != 1)
        abort();
    return NULL;
}

static void *wakes(void *arg) {
    (void)arg;
    klawi_poller_wake(&W.poller);
    return NULL;
}

static void pollers_see_descriptors_and_wakes(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        start(seed);
        klawi_poll_event ev[4];
        assert_int_equal(pipe(W.pipe), 0);
        assert_int_equal(klawi_poller_open(&W.poller), KLAW_OK);
        vthread w = vthread_start("wakes", wakes, NULL);
        assert_int_equal(klawi_poller_wait(&W.poller, ev, 4, KLAW_FOREVER), 0);
        assert_int_equal(klawi_poller_wait(&W.poller, ev, 4, KLAW_NOWAIT), 0);
        vthread_join(w);
        assert_int_equal(klawi_poller_arm(&W.poller, W.pipe[0], KLAW_READ, 42), 0);
        assert_int_equal(klawi_poller_wait(&W.poller, ev, 4, klawi_clock() + 1000), 0);
        vthread t = vthread_start("writes", writes, NULL);
        assert_int_equal(klawi_poller_wait(&W.poller, ev, 4, KLAW_FOREVER), 1);
        assert_true(ev[0].data == 42 && ev[0].events == KLAW_READ);
        vthread_join(t);
        klawi_poller_forget(&W.poller, W.pipe[0]);
        klawi_poller_close(&W.poller);
        close(W.pipe[0]);
        close(W.pipe[1]);
        klawi_det_end();
    }
}

static __thread void *mine;

static void *keeps(void *arg) {
    if (mine != NULL) /* zero at the start */
        abort();
    mine = arg;
    for (int i = 0; i < 5; i++) {
        klawi_thread_yield();
        if (mine != arg)
            abort();
    }
    W.counter++;
    return NULL;
}

static int exits;
static void count_exit(void) {
    exits++;
}

static void thread_locals_and_exit_hooks_are_per_processor(void **state) {
    (void)state;
    klawi_det_register_tls(&mine, sizeof mine);
    klawi_det_register_tls(&mine, sizeof mine);
    klawi_det_on_vcpu_exit(count_exit);
    for (uint64_t seed = 1; seed <= 100; seed++) {
        start(seed);
        vthread a = vthread_start("a", keeps, &W.word), b = vthread_start("b", keeps, &W.go);
        klawi_thread_detach(b.id);
        assert_null(mine);
        vthread_join(a);
        klawi_det_end(); /* waits for b */
        assert_int_equal(W.counter, 2);
    }
    assert_int_equal(exits, 200);
}

static void *at_the_gate(void *arg) {
    (void)arg;
    klawi_det_gate_wait();
    W.order[0] = W.steps;
    for (int i = 0; i < 10; i++)
        KLAWI_POINT();
    W.order[1] = W.steps;
    return NULL;
}

static void the_gate_opens_at_the_kth_point(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        for (int k = 1; k <= 8; k++) {
            start(seed);
            vthread a = vthread_start("gate", at_the_gate, NULL);
            for (int i = 0; i < 200; i++) /* so that it waits there */
                KLAWI_POINT();
            klawi_thread_yield();
            klawi_thread_yield();
            klawi_det_gate_open_at((uint64_t)k);
            for (W.steps = 0; W.steps < 6;) {
                W.steps++;
                KLAWI_POINT();
            }
            bool reached = !klawi_det_gate_open();
            vthread_join(a);
            assert_int_equal(reached, k <= 6);
            if (reached) {
                assert_int_equal(W.order[0], k);
                assert_int_equal(W.order[1], k); /* nobody else ran meanwhile */
            }
            klawi_det_end();
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_updates_are_found_and_locks_prevent_them),
        cmocka_unit_test(a_lost_wake_up_is_a_deadlock),
        cmocka_unit_test(spinners_give_way_and_endless_ones_are_reported),
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
        cmocka_unit_test(time_is_virtual_and_deadlines_come_in_order),
        cmocka_unit_test(pollers_see_descriptors_and_wakes),
        cmocka_unit_test(thread_locals_and_exit_hooks_are_per_processor),
        cmocka_unit_test(the_gate_opens_at_the_kth_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
