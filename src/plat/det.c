/* SPDX-License-Identifier: Apache-2.0 */
/* det.c - the deterministic build's processor, clock, futex and poller.
 *
 * A virtual processor (vCPU) is a saved stack pointer. Its stack is its own at first; afterwards it
 * is whichever fiber's stack it stood on when it was switched away from: the library's own switches
 * happen inside of a vCPU and are not seen here. At each point the seed decides whether another
 * runnable vCPU goes on. Everything that waits does so by leaving the runnable set.
 *
 * Invariants (between any two calls):
 *   D1  exactly one vCPU runs: klawi_det_vcpu; it is in `runnable`.
 *   D2  a vCPU outside of `runnable` has a state that says what makes it go on.
 *   D3  a choice depends on the seed and on the order of events alone: never on an address, a real
 *       clock, or what an earlier schedule left behind.
 *   D4  time moves by `rate` at each point, and jumps to the earliest deadline when all are
 *       blocked.
 *
 * Strategies: uniform random with switch probability 1/2, 1/8 or 1/32; or PCT, where the runnable
 * vCPU of highest priority always runs and at 1 to 3 random points the running one falls to the
 * bottom. Who yields or spins falls to the bottom too, or a spinner of high priority would never
 * end; and now and then the one that starves comes to the top. A vCPU that waits for a spin lock is
 * `stalled`: out of the choice until another one has done something that is not a stall.
 *
 * The trace hash is FNV-1a over (point number, vCPU) at each switch and over futex and poller
 * outcomes by vCPU number.
 *
 * Rejected: real threads handed a token (20 us a switch against 10 ns, and thread-locals right for
 * free: not worth 2 000 times fewer schedules); recording real runs (shows one order, not all). */
#include "plat/det.h"

#if defined(KLAWI_DET)

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plat/det_core.h"
#include "plat/switch.h"

#define D klawi_det

#define FAIR 4000u
static const char *const state_names[] = {"free", "runnable", "futex",       "poller", "join",
                                          "nap",  "gate",     "end of test", "done"};

struct klawi_det_state klawi_det;

/* Outlives schedules. */
static struct {
    void *addr;
    size_t size;
} tls[TLS_BLOCKS];
static int tls_count;
void (*klawi_det_exit_hook[4])(void);
static void (*report_hook)(void);
static bool reporting;

int klawi_det_vcpu;
int klawi_mutant;

static const char *const mutant_names[] = {"none",
#define MUTANT_NAME(name, text) #name,
                                           KLAWI_MUTANT_LIST(MUTANT_NAME)};
static const char *const mutant_texts[] = {"",
#define MUTANT_TEXT(name, text) text,
                                           KLAWI_MUTANT_LIST(MUTANT_TEXT)};

const char *klawi_mutant_name(int mutant) {
    return mutant >= 0 && mutant < KLAWI_M_COUNT ? mutant_names[mutant] : "?";
}

const char *klawi_mutant_text(int mutant) {
    return mutant >= 0 && mutant < KLAWI_M_COUNT ? mutant_texts[mutant] : "?";
}

/* --- chance and trace ------------------------------------------------------------------------ */

static uint64_t mix(uint64_t x) { /* splitmix64 */
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t draw(void) { /* xorshift64* */
    D.rng ^= D.rng >> 12;
    D.rng ^= D.rng << 25;
    D.rng ^= D.rng >> 27;
    return D.rng * 0x2545f4914f6cdd1dull;
}

uint32_t klawi_det_draw(uint32_t n) {
    return (uint32_t)(((draw() >> 32) * n) >> 32);
}

void klawi_det_record(uint64_t what) {
    D.hash = (D.hash ^ what) * 0x100000001b3ull;
    D.hash ^= D.hash >> 29;
}

extern const char __ehdr_start __attribute__((visibility("hidden")));

void klawi_det_say(const char *what, int whom) {
    if (!D.verbose)
        return;
    fprintf(stderr, "%8llu %9lld us  vcpu %d %-10s %-14s", (unsigned long long)D.points,
            (long long)((D.now - 1000000000) / 1000), klawi_det_vcpu, SELF->name, what);
    if (whom >= 0)
        fprintf(stderr, " %d %-10s", whom, D.v[whom].name);
    if (SELF->pc) /* what addr2line wants */
        fprintf(stderr, " at 0x%llx", (long long)((const char *)SELF->pc - &__ehdr_start));
    fputc('\n', stderr);
}

/* --- the choice ------------------------------------------------------------------------------ */

static void next_event(void) {
    D.event = D.change < D.gate_at ? D.change : D.gate_at;
    if (D.strategy == PCT && D.event > D.fair)
        D.event = D.fair;
    if (D.event > KLAWI_DET_POINTS)
        D.event = KLAWI_DET_POINTS;
    if (D.verbose > 1)
        D.event = D.points + 1;
}

static void next_change(void) {
    if (D.strategy == PCT) {
        D.change = D.changes ? D.points + 1 + (draw() >> 16) % D.length : UINT64_MAX;
        return;
    }
    uint64_t n = 1;
    while (draw() >> (64 - D.shift))
        n++;
    D.change = D.points + n;
}

int klawi_det_nth(uint64_t set, uint32_t n) {
    while (n--)
        set &= set - 1;
    return __builtin_ctzll(set);
}

/* One of a set that is not empty. */
static int pick(uint64_t set) {
    if (D.exclusive >= 0 && (set & BIT(D.exclusive)))
        return D.exclusive;
    if (D.strategy == UNIFORM)
        return klawi_det_nth(set, klawi_det_draw((uint32_t)__builtin_popcountll(set)));
    int best = __builtin_ctzll(set);
    for (uint64_t rest = set & (set - 1); rest; rest &= rest - 1) {
        int i = __builtin_ctzll(rest);
        if (D.v[i].priority > D.v[best].priority)
            best = i;
    }
    return best;
}

static void swap_tls(struct vcpu *from, struct vcpu *to) {
    for (int i = 0; i < tls_count; i++) {
        if (tls[i].size == sizeof(void *)) {
            memcpy(from->tls[i], tls[i].addr, sizeof(void *));
            memcpy(tls[i].addr, to->tls[i], sizeof(void *));
        } else {
            memcpy(from->tls[i], tls[i].addr, tls[i].size);
            memcpy(tls[i].addr, to->tls[i], tls[i].size);
        }
    }
}

static KLAWI_NOINLINE void switch_to(int to) {
    static _Atomic uint32_t on_cpu; /* klawi_switch clears one; nobody looks at this one */
    int from = klawi_det_vcpu;
    if (to == from)
        return;
    if (D.exclusive >= 0 && to != D.exclusive)
        D.event = D.points + 1; /* back to it as soon as it can go on */
    D.v[from].ran = D.points;
    klawi_det_record(D.points << 8 | (uint64_t)to);
    klawi_det_say("->", to);
    swap_tls(&D.v[from], &D.v[to]);
    klawi_det_vcpu = to;
    klawi_switch(&D.v[from].sp, D.v[to].sp, &on_cpu);
}

void klawi_det_ready(int i) {
    struct vcpu *v = &D.v[i];
    if (v->state == POLL && D.poller[v->other].has_fds)
        D.waiting_fds--;
    v->state = READY;
    D.runnable |= BIT(i);
    if (D.strategy == PCT)
        D.event = D.points + 1; /* it may outrank the one that runs */
}

/* Deadlines that have passed end their waits; the next one is noted. */
static void wake_expired(void) {
    D.next_deadline = KLAW_FOREVER;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++) {
        struct vcpu *v = &D.v[i];
        if (v->state != FUTEX && v->state != POLL && v->state != NAP)
            continue;
        if (v->deadline <= D.now)
            klawi_det_ready(i);
        else if (v->deadline < D.next_deadline)
            D.next_deadline = v->deadline;
    }
}

/* Waits in pollers end when the kernel says that a descriptor is ready. Asking whether the epoll
 * descriptor is readable uses no one-shot event up. */
static void wake_ready_fds(void) {
    for (int i = 0; i < KLAWI_DET_VCPUS && D.waiting_fds; i++) {
        struct vcpu *v = &D.v[i];
        if (v->state != POLL || !D.poller[v->other].has_fds)
            continue;
        struct pollfd p = {.fd = D.poller[v->other].fd, .events = POLLIN};
        if (poll(&p, 1, 0) > 0)
            klawi_det_ready(i);
    }
}

/* --- reports --------------------------------------------------------------------------------- */

void klawi_det_fail(const char *what, const char *file, int line) {
    fprintf(stderr, "%s", what);
    if (file)
        fprintf(stderr, " (%s:%d)", file, line);
    fprintf(stderr, "\nscenario %s, seed %llu, point %llu, %lld us", D.name ? D.name : "?",
            (unsigned long long)D.seed, (unsigned long long)D.points,
            (long long)((D.now - 1000000000) / 1000));
    if (klawi_mutant)
        fprintf(stderr, ", mutant %s", klawi_mutant_name(klawi_mutant));
    fputc('\n', stderr);
    for (int i = 0; i < KLAWI_DET_VCPUS && D.active; i++) {
        const struct vcpu *v = &D.v[i];
        if (v->state == FREE)
            continue;
        fprintf(stderr, "  vcpu %d %-12s %s%s, since point %llu, at 0x%llx", i, v->name,
                i == klawi_det_vcpu ? "running, " : "",
                D.stalled & BIT(i) ? "waits for a lock" : state_names[v->state],
                (unsigned long long)v->since,
                v->pc ? (long long)((const char *)v->pc - &__ehdr_start) : 0);
        if (v->state >= FUTEX && v->state <= NAP && v->deadline != KLAW_FOREVER)
            fprintf(stderr, ", until %lld us", (long long)((v->deadline - 1000000000) / 1000));
        fputc('\n', stderr);
    }
    D.active = false; /* the hook takes locks: no switch meanwhile */
    if (report_hook && !reporting) {
        reporting = true;
        report_hook();
    }
    fflush(NULL);
    _exit(KLAWI_DET_EXIT);
}

/* --- waiting --------------------------------------------------------------------------------- */

/* Nobody can run: time jumps to the earliest deadline (now and then past it, so that several are
 * due at once). */
static void jump(void) {
    wake_ready_fds();
    if (D.runnable & ~D.stalled)
        return;
    wake_expired();
    if (D.runnable & ~D.stalled)
        return;
    if (D.next_deadline == KLAW_FOREVER)
        klawi_det_fail("deadlock", NULL, 0);
    D.now = D.next_deadline;
    if (klawi_det_draw(4) == 0)
        D.now += klawi_det_draw(200000);
    wake_expired();
}

/* The running vCPU has left the runnable set, or is stalled: another one goes on, or it itself
 * when time made it runnable. */
static void leave(void *pc) {
    SELF->pc = pc;
    SELF->since = D.points;
    if (!(D.runnable & BIT(klawi_det_vcpu)) && D.exclusive == klawi_det_vcpu)
        D.exclusive = -1;
    if (D.waiting_fds && (D.points & 3) == 0)
        wake_ready_fds();
    while (!(D.runnable & ~D.stalled))
        jump();
    switch_to(pick(D.runnable & ~D.stalled));
}

void klawi_det_block(enum state state, const void *addr, int other, int64_t deadline, void *pc) {
    struct vcpu *v = SELF;
    D.stalled = 0;
    v->state = state;
    v->addr = addr;
    v->other = other;
    v->deadline = deadline;
    D.runnable &= ~BIT(klawi_det_vcpu);
    if (deadline < D.next_deadline)
        D.next_deadline = deadline;
    if (state == POLL && D.poller[other].has_fds)
        D.waiting_fds++;
    klawi_det_say(state_names[state], other);
    leave(pc);
}

static void open_gate(void) {
    D.gate_opened = true;
    D.gate_at = UINT64_MAX;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++)
        if (D.v[i].state == GATE) {
            klawi_det_ready(i);
            D.exclusive = i;
        }
}

/* Who has been kept from running for longest comes to the top. */
static void be_fair(void) {
    int worst = klawi_det_vcpu;
    D.fair = D.points + FAIR;
    D.v[worst].ran = D.points;
    for (int i = 0; i < KLAWI_DET_VCPUS; i++)
        if ((D.runnable & BIT(i)) && D.v[i].ran < D.v[worst].ran)
            worst = i;
    D.v[worst].priority = D.top++;
}

static KLAWI_NOINLINE void point_slow(void *pc) {
    if (D.points >= KLAWI_DET_POINTS)
        klawi_det_fail("livelock: too many points", NULL, 0);
    SELF->pc = pc;
    if (D.verbose > 1)
        klawi_det_say("point", -1);
    if (D.now >= D.next_deadline)
        wake_expired();
    if (D.waiting_fds && (D.points & 3) == 0)
        wake_ready_fds();
    if (D.points >= D.gate_at)
        open_gate();
    int to = klawi_det_vcpu;
    if (D.points >= D.fair)
        be_fair();
    if (D.points >= D.change) {
        if (D.strategy == PCT) {
            SELF->priority = D.low--;
            D.changes--;
        } else if (D.runnable & ~BIT(to)) {
            to = pick(D.runnable & ~BIT(to));
        }
        next_change();
    }
    if (D.strategy == PCT || (D.exclusive >= 0 && (D.runnable & BIT(D.exclusive))))
        to = pick(D.runnable);
    next_event();
    switch_to(to);
}

void klawi_det_pass(void *pc) {
    D.stalled = 0;
    D.now += D.rate;
    if (KLAWI_UNLIKELY(++D.points >= D.event || D.now >= D.next_deadline))
        point_slow(pc);
}

void klawi_det_point(void) {
    if (KLAWI_LIKELY(D.active))
        klawi_det_pass(__builtin_return_address(0));
}

void klawi_det_stall(void) {
    if (reporting) {
        fprintf(stderr, "(no more: a lock is held)\n");
        _exit(KLAWI_DET_EXIT);
    }
    if (!D.active)
        klawi_fatal("a lock is held for ever outside of a schedule");
    if (++D.points >= KLAWI_DET_POINTS)
        klawi_det_fail("livelock: too many points", NULL, 0);
    D.now += D.rate;
    D.stalled |= BIT(klawi_det_vcpu);
    leave(__builtin_return_address(0));
    D.stalled &= ~BIT(klawi_det_vcpu);
}

static void yield(void *pc) {
    SELF->pc = pc;
    if (++D.points >= KLAWI_DET_POINTS)
        klawi_det_fail("livelock: too many points", NULL, 0);
    D.stalled = 0;
    D.now += D.rate < 500 ? 500 : D.rate;
    if (D.exclusive == klawi_det_vcpu)
        D.exclusive = -1; /* it waits for somebody */
    if (D.waiting_fds && (D.points & 3) == 0)
        wake_ready_fds();
    if (!(D.runnable & ~BIT(klawi_det_vcpu)))
        D.now += 2000;
    if (D.now >= D.next_deadline)
        wake_expired();
    SELF->priority = D.low--;
    uint64_t others = D.runnable & ~BIT(klawi_det_vcpu);
    if (others)
        switch_to(pick(others));
}

void klawi_thread_yield(void) {
    if (D.active)
        yield(__builtin_return_address(0));
}

void klawi_det_pause(void) {
    if (D.active)
        yield(__builtin_return_address(0));
}

void klawi_thread_nap(int64_t ns) {
    if (D.active)
        klawi_det_block(NAP, NULL, -1, D.now + ns, __builtin_return_address(0));
}

void klawi_det_sleep(int64_t ns) {
    klawi_thread_nap(ns);
}

uint32_t klawi_det_choose(uint32_t n) {
    if (!D.active || n < 2)
        return 0;
    uint32_t c = klawi_det_draw(n);
    klawi_det_record((uint64_t)c << 32 | n);
    return c;
}

/* --- the gate -------------------------------------------------------------------------------- */

void klawi_det_gate_wait(void) {
    if (!D.gate_opened)
        klawi_det_block(GATE, NULL, -1, KLAW_FOREVER, __builtin_return_address(0));
}

void klawi_det_gate_open_at(uint64_t k) {
    D.gate_opened = false;
    D.gate_at = D.points + k;
    next_event();
}

bool klawi_det_gate_open(void) {
    if (D.gate_opened)
        return false;
    open_gate();
    D.exclusive = -1;
    return true;
}

void klawi_det_gate_done(void) {
    if (D.exclusive == klawi_det_vcpu)
        D.exclusive = -1;
}

/* --- schedules ------------------------------------------------------------------------------- */

void klawi_det_register_tls(void *addr, size_t size) {
    for (int i = 0; i < tls_count; i++)
        if (tls[i].addr == addr)
            return;
    if (tls_count == TLS_BLOCKS || size > TLS_BYTES)
        klawi_fatal("too many or too large thread-local blocks");
    tls[tls_count].addr = addr;
    tls[tls_count++].size = size;
}

void klawi_det_on_vcpu_exit(void (*fn)(void)) {
    for (size_t i = 0; i < sizeof klawi_det_exit_hook / sizeof *klawi_det_exit_hook; i++) {
        if (klawi_det_exit_hook[i] == fn)
            return;
        if (!klawi_det_exit_hook[i]) {
            klawi_det_exit_hook[i] = fn;
            return;
        }
    }
    klawi_fatal("too many exit hooks");
}

void klawi_det_on_report(void (*fn)(void)) {
    report_hook = fn;
}

bool klawi_det_active(void) {
    return D.active;
}

uint64_t klawi_det_points(void) {
    return D.points;
}

/* The strategy, its numbers and the speed of time, all from the seed. */
static void choose_strategy(void) {
    static const uint32_t shifts[] = {1, 3, 5};
    static const int64_t rates[] = {10, 200, 2000, 20000};
    D.rng = mix(D.seed) | 1;
    uint32_t kind = klawi_det_draw(6);
    D.strategy = kind < 3 ? UNIFORM : PCT;
    D.shift = shifts[kind % 3];
    D.changes = 1 + kind % 3;
    D.length = 1ull << (6 + klawi_det_draw(7));
    D.low = 0x3fffffffu;
    D.top = 0x80000000u;
    D.rate = rates[klawi_det_draw(4)];
    D.spurious = klawi_det_draw(4) == 0;
}

void klawi_det_begin(uint64_t seed, const char *name, int verbose) {
    if (D.active)
        klawi_fatal("a schedule inside a schedule");
    D.seed = seed;
    D.name = name;
    D.verbose = verbose;
    D.hash = 0xcbf29ce484222325ull;
    D.points = 0;
    D.stalled = 0;
    D.gate_at = UINT64_MAX;
    D.gate_opened = false;
    D.exclusive = -1;
    D.waiting_fds = 0;
    D.now = 1000000000;
    D.next_deadline = KLAW_FOREVER;
    choose_strategy();
    for (int i = 0; i < POLLERS; i++)
        D.poller[i].wake = D.poller[i].has_fds = false;
    struct vcpu *v = &D.v[0];
    v->state = READY;
    v->ran = 0;
    v->priority = 0x40000000u + (uint32_t)(draw() >> 36);
    v->pc = NULL;
    snprintf(v->name, sizeof v->name, "test");
    D.runnable = BIT(0);
    klawi_det_vcpu = 0;
    D.fair = FAIR;
    next_change();
    next_event();
    D.active = true;
    if (verbose)
        fprintf(stderr, "schedule of %s, seed %llu: %s, %s %u, %lld ns a point%s\n", name,
                (unsigned long long)seed, D.strategy == PCT ? "PCT" : "uniform",
                D.strategy == PCT ? "change points" : "2^-",
                D.strategy == PCT ? D.changes : D.shift, (long long)D.rate,
                D.spurious ? ", spurious wake-ups" : "");
}

uint64_t klawi_det_end(void) {
    int alive = 0;
    for (int i = 1; i < KLAWI_DET_VCPUS; i++)
        alive += D.v[i].state != FREE && D.v[i].state != DONE;
    if (alive)
        klawi_det_block(LAST, NULL, -1, KLAW_FOREVER, __builtin_return_address(0));
    for (int i = 0; i < KLAWI_DET_VCPUS; i++)
        D.v[i].state = FREE;
    D.active = false;
    if (D.verbose)
        fprintf(stderr, "end: %llu points, hash %016llx\n", (unsigned long long)D.points,
                (unsigned long long)D.hash);
    return D.hash;
}

#else

typedef int klawi_det_not_empty; /* ISO C wants a declaration in every file */

#endif
