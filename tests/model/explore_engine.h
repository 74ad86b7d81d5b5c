/* SPDX-License-Identifier: Apache-2.0 */
/* explore_engine.h - the search of explore.h: threads on stacks of their own, depth first over all
 * choices, mutants. Included once, by the test program.
 *
 * An execution is a list of choices. Each run replays the list from the start and extends it; then
 * the last choice that has another answer is changed, until none has. A thread runs alone from one
 * operation to the next and stops before it, so a choice is a pair: which thread does its
 * operation, and which way the operation goes.
 *
 * What keeps this small:
 *  - A state is what every thread has read so far (its local variables follow from that), the
 *    writes that can still be read, and the views, all relative to what every live thread has seen.
 *    A state that was seen is not entered again. States are compared by 64 bits of hash.
 *  - An operation that no other thread can notice (a choice, a fence that is not seq_cst) goes
 *    first, alone.
 *
 * Rejected: sleep sets and dynamic partial order reduction. They are hard to get right together
 * with known states, and the models are small enough without. Real threads: a hand-over costs a
 * thousand times more.
 */
#ifndef KLAW_TESTS_MODEL_EXPLORE_ENGINE_H
#define KLAW_TESTS_MODEL_EXPLORE_ENGINE_H

#include "model/explore_memory.h"

#if !defined(__x86_64__) || defined(MO_PORTABLE)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

enum { MO_DEPTH = 600, MO_STACK = 64 * 1024, MO_MAX_WAYS = MO_THREADS * (MO_WRITES + 2) };

/* A choice: thread, and a way of its operation, or one of these. */
enum { MO_WAY_IPI = 200, MO_WAY_SPURIOUS };
struct mo_pick {
    uint8_t thread, way;
};

static struct {
    const struct mo_model *model;
    enum mo_order orders[MO_SITES];
    unsigned dropped; /* steps, by bit */
    int variant;
    bool trace;
    bool revisit; /* enter known states again: slow, for the explorer's own tests */
    int depth, replay;
    uint16_t taken[MO_DEPTH], width[MO_DEPTH];
    uint64_t *seen; /* open addressing, 0 is free */
    uint64_t seen_cap, seen_n;
    void *main_sp;
    _Alignas(64) char stacks[MO_THREADS][MO_STACK];
} mo_e;

/* ---- threads: a switch of stacks ------------------------------------------------------------- */

static void mo_thread_main(void);

#if defined(__x86_64__) && !defined(MO_PORTABLE)
__asm__(".text\n"
        ".p2align 4\n"
        ".type explore_switch, @function\n"
        "explore_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size explore_switch, . - explore_switch\n");
extern void explore_switch(void **save, void *to);

static void mo_thread_prepare(int t) {
    uintptr_t *top = (uintptr_t *)(void *)(mo_e.stacks[t] + MO_STACK);
    top[-1] = 0; /* where mo_thread_main would return to */
    top[-2] = (uintptr_t)mo_thread_main;
    memset(&top[-8], 0, 6 * sizeof *top);
    mo_w.threads[t].sp = &top[-8];
}
static void mo_enter_thread(int t) {
    explore_switch(&mo_e.main_sp, mo_w.threads[t].sp);
}
static void mo_leave_thread(int t) {
    explore_switch(&mo_w.threads[t].sp, mo_e.main_sp);
}
#else
static ucontext_t mo_main_context, mo_contexts[MO_THREADS];

static void mo_thread_prepare(int t) {
    getcontext(&mo_contexts[t]);
    mo_contexts[t].uc_stack.ss_sp = mo_e.stacks[t];
    mo_contexts[t].uc_stack.ss_size = MO_STACK;
    mo_contexts[t].uc_link = NULL;
    makecontext(&mo_contexts[t], mo_thread_main, 0);
}
static void mo_enter_thread(int t) {
    swapcontext(&mo_main_context, &mo_contexts[t]);
}
static void mo_leave_thread(int t) {
    swapcontext(&mo_contexts[t], &mo_main_context);
}
#endif

static void mo_thread_main(void) {
    int t = mo_w.running;
    mo_e.model->thread[t]();
    mo_w.threads[t].status = MO_DONE;
    mo_leave_thread(t);
}

/* Runs a thread up to its next operation, or to its end. */
static void mo_run(int t) {
    mo_w.running = t;
    mo_enter_thread(t);
    mo_w.running = -1;
}

static int mo_do(struct mo_op op) {
    struct mo_thread *th = &mo_w.threads[mo_w.running];
    th->op = op;
    mo_leave_thread(mo_w.running);
    return th->result;
}

/* ---- what threads call ----------------------------------------------------------------------- */

int mo_load(int var, enum mo_order order) {
    return mo_do((struct mo_op){.kind = MO_LOAD, .var = var, .order = order});
}
int mo_await(int var, int value, enum mo_order order) {
    return mo_do((struct mo_op){.kind = MO_LOAD,
                                .var = var,
                                .order = order,
                                .cond = MO_EQUAL,
                                .cmp = value,
                                .block = true});
}
int mo_await_not(int var, int value, enum mo_order order) {
    return mo_do((struct mo_op){.kind = MO_LOAD,
                                .var = var,
                                .order = order,
                                .cond = MO_NOT_EQUAL,
                                .cmp = value,
                                .block = true});
}
void mo_store(int var, int value, enum mo_order order) {
    mo_do((struct mo_op){.kind = MO_STORE, .var = var, .value = value, .order = order});
}
int mo_xchg(int var, int value, enum mo_order order) {
    return mo_do((struct mo_op){.kind = MO_RMW, .var = var, .value = value, .order = order});
}
int mo_add(int var, int value, enum mo_order order) {
    return mo_do(
        (struct mo_op){.kind = MO_RMW, .var = var, .value = value, .order = order, .func = MO_ADD});
}
int mo_or(int var, int value, enum mo_order order) {
    return mo_do(
        (struct mo_op){.kind = MO_RMW, .var = var, .value = value, .order = order, .func = MO_OR});
}
int mo_cas(int var, int expect, int value, enum mo_order order, enum mo_order if_not) {
    return mo_do((struct mo_op){.kind = MO_RMW,
                                .var = var,
                                .value = value,
                                .order = order,
                                .if_not = if_not,
                                .cond = MO_EQUAL,
                                .cmp = expect});
}
void mo_await_cas(int var, int expect, int value, enum mo_order order) {
    mo_do((struct mo_op){.kind = MO_RMW,
                         .var = var,
                         .value = value,
                         .order = order,
                         .cond = MO_EQUAL,
                         .cmp = expect,
                         .block = true});
}
void mo_fence(enum mo_order order) {
    if (order != MO_RLX)
        mo_do((struct mo_op){.kind = MO_FENCE, .order = order});
}
void mo_fence_heavy(void) {
    if (!mo_e.model->heavy)
        mo_fail("a heavy fence in a model that is not .heavy", "");
    mo_do((struct mo_op){.kind = MO_HEAVY_BEGIN});
    mo_do((struct mo_op){.kind = MO_HEAVY_END});
}
bool mo_futex_wait(int var, int expect) {
    return mo_do((struct mo_op){.kind = MO_FUTEX_WAIT, .var = var, .cmp = expect}) == 0;
}
void mo_futex_wake(int var) {
    mo_do((struct mo_op){.kind = MO_FUTEX_WAKE, .var = var});
}
void mo_event_write(int var) {
    mo_fence(MO_SC);
    mo_add(var, 1, MO_RLX);
    mo_fence(MO_SC);
}
int mo_event_read(int var) {
    int n = mo_do((struct mo_op){.kind = MO_RMW, .var = var, .cond = MO_NOT_EQUAL, .block = true});
    mo_fence(MO_SC);
    return n;
}
int mo_choose(int n) {
    return mo_do((struct mo_op){.kind = MO_CHOOSE, .value = n});
}

void mo_assert(bool ok, const char *what) {
    if (!ok)
        mo_fail(what, "");
}
void mo_forget(int place, int value) {
    struct mo_thread *th = &mo_w.threads[mo_w.running];
    th->past = mo_mix(mo_mix(7, (unsigned)place), (unsigned)value);
    memset(th->peeked, 0, sizeof th->peeked);
}
enum mo_order mo_at(int site) {
    return mo_e.orders[site];
}
bool mo_step(int step) {
    return !(mo_e.dropped >> step & 1);
}
int mo_variant(void) {
    return mo_e.variant;
}

void mo_atom(int var, const char *name, int value) {
    struct mo_var *v = &mo_w.vars[var];
    memset(&v->writes[0], 0, sizeof v->writes[0]);
    v->name = name;
    v->n = 1;
    v->writes[0].value = value;
    if (mo_w.n_vars <= var)
        mo_w.n_vars = var + 1;
}
void mo_plain(int plain, const char *name, int value) {
    mo_w.plains[plain] = (struct mo_plain_var){.name = name, .value = value};
    if (mo_w.n_plains <= plain)
        mo_w.n_plains = plain + 1;
}
int mo_last(int var) {
    return mo_w.vars[var].writes[mo_w.vars[var].n - 1].value;
}
int mo_last_plain(int plain) {
    return mo_w.plains[plain].value;
}

/* ---- states ---------------------------------------------------------------------------------- */

/* What every live thread has seen: nothing older can matter again. */
static void mo_common_view(struct mo_view *low) {
    memset(low, 0xff, sizeof *low);
    for (int t = 0; t < mo_w.n_threads; t++) {
        const struct mo_thread *th = &mo_w.threads[t];
        if (th->status == MO_DONE)
            continue;
        for (int i = 0; i < mo_w.n_vars; i++)
            if (low->place[i] > th->cur.place[i])
                low->place[i] = th->cur.place[i];
        for (int i = 0; i < mo_w.n_threads; i++)
            if (low->clock[i] > th->cur.clock[i])
                low->clock[i] = th->cur.clock[i];
    }
}

static inline uint64_t mo_above(unsigned value, unsigned low) {
    return value > low ? value - low : 0;
}

static uint64_t mo_hash_view(uint64_t h, const struct mo_view *v, const struct mo_view *low) {
    uint64_t word = 0;
    for (int i = 0; i < mo_w.n_vars; i++) {
        word = word << 8 | mo_above(v->place[i], low->place[i]);
        if ((i & 7) == 7)
            h = mo_mix(h, word), word = 0;
    }
    h = mo_mix(h, word);
    word = 0;
    for (int i = 0; i < mo_w.n_threads; i++)
        word = word << 8 | mo_above(v->clock[i], low->clock[i]);
    return mo_mix(h, word);
}

static uint64_t mo_hash_thread(uint64_t h, int t, const struct mo_view *low) {
    const struct mo_thread *th = &mo_w.threads[t];
    h = mo_mix(h, th->past);
    h = mo_mix(h, (uint64_t)th->status << 1 | th->ipi);
    if (th->status == MO_DONE && !mo_e.model->heavy)
        return h;
    h = mo_hash_view(h, &th->cur, low);
    h = mo_hash_view(h, &th->acq, low);
    if (th->status == MO_DONE)
        return h;
    h = mo_hash_view(h, &th->rel, low);
    for (int p = 0; p < mo_w.n_plains; p++) {
        if (!th->peeked[p].clock)
            continue;
        uint64_t word = (uint64_t)p << 32 | (uint64_t)th->peeked[p].writer << 24;
        word |= (uint64_t)th->peeked[p].written << 16 | (uint64_t)th->peeked[p].clock << 8;
        h = mo_mix(h, word | th->peeked[p].ok);
    }
    return h;
}

static uint64_t mo_hash(void) {
    struct mo_view low;
    mo_common_view(&low);
    uint64_t h = mo_mix(1, (unsigned)mo_w.spurious);
    for (int t = 0; t < mo_w.n_threads; t++)
        h = mo_hash_thread(h, t, &low);
    for (int x = 0; x < mo_w.n_vars; x++) {
        const struct mo_var *v = &mo_w.vars[x];
        int from = low.place[x] == 0xff ? v->n - 1 : low.place[x];
        h = mo_mix(h, (unsigned)(v->n - from));
        for (int i = from; i < v->n; i++) {
            h = mo_mix(h, (uint64_t)(unsigned)v->writes[i].value << 1 | v->writes[i].chained);
            h = mo_hash_view(h, &v->writes[i].view, &low);
        }
    }
    for (int p = 0; p < mo_w.n_plains; p++) {
        const struct mo_plain_var *v = &mo_w.plains[p];
        uint64_t written = mo_above(v->written, low.clock[v->writer]);
        h = mo_mix(h, (unsigned)v->value);
        h = mo_mix(h, written ? written << 8 | (unsigned)v->writer : 0);
        for (int t = 0; t < mo_w.n_threads; t++)
            h = mo_mix(h, mo_above(v->read[t], low.clock[t]));
    }
    h = mo_hash_view(h, &mo_w.global, &low);
    return h ? h : 1;
}

static bool mo_seen_put(uint64_t h) {
    uint64_t mask = mo_e.seen_cap - 1, i = h & mask;
    for (; mo_e.seen[i]; i = (i + 1) & mask)
        if (mo_e.seen[i] == h)
            return false;
    mo_e.seen[i] = h;
    mo_e.seen_n++;
    return true;
}

/* True if the state is new. */
static bool mo_visit(void) {
    if (mo_e.seen_n * 2 >= mo_e.seen_cap) {
        uint64_t *old = mo_e.seen, n = mo_e.seen_cap;
        mo_e.seen_cap = n ? n * 4 : 1 << 14;
        mo_e.seen = calloc(mo_e.seen_cap, sizeof *mo_e.seen);
        if (!mo_e.seen)
            abort();
        mo_e.seen_n = 0;
        for (uint64_t i = 0; i < n; i++)
            if (old[i])
                mo_seen_put(old[i]);
        free(old);
    }
    return mo_seen_put(mo_hash()) || mo_e.revisit;
}

/* ---- one execution --------------------------------------------------------------------------- */

static bool mo_unnoticed(const struct mo_thread *th) {
    return th->op.kind == MO_CHOOSE || (th->op.kind == MO_FENCE && th->op.order != MO_SC);
}

static int mo_picks(struct mo_pick picks[MO_MAX_WAYS]) {
    uint8_t ways[MO_WRITES];
    int n = 0;
    for (int t = 0; t < mo_w.n_threads; t++) {
        const struct mo_thread *th = &mo_w.threads[t];
        if (th->status == MO_READY && !th->ipi && mo_unnoticed(th)) {
            int k = mo_ways(t, ways);
            for (n = 0; n < k; n++)
                picks[n] = (struct mo_pick){(uint8_t)t, ways[n]};
            return n;
        }
    }
    for (int t = 0; t < mo_w.n_threads; t++) {
        const struct mo_thread *th = &mo_w.threads[t];
        if (th->ipi)
            picks[n++] = (struct mo_pick){(uint8_t)t, MO_WAY_IPI};
        if (th->status == MO_ASLEEP && mo_w.spurious > 0)
            picks[n++] = (struct mo_pick){(uint8_t)t, MO_WAY_SPURIOUS};
        if (th->status != MO_READY)
            continue;
        int k = mo_ways(t, ways);
        for (int i = 0; i < k; i++)
            picks[n++] = (struct mo_pick){(uint8_t)t, ways[i]};
    }
    return n;
}

static void mo_print_step(struct mo_pick p) {
    static const char *const kinds[] = {"load",       "store",       "rmw",
                                        "fence",      "heavy fence", "heavy fence done",
                                        "futex wait", "futex wake",  "choose"};
    static const char *const orders[] = {"relaxed", "acquire", "release", "acq_rel", "seq_cst"};
    static const char *const funcs[] = {"=", "+=", "|="};
    const struct mo_op *op = &mo_w.threads[p.thread].op;
    const struct mo_var *v = &mo_w.vars[op->var];
    printf("    %3d %-10s ", mo_e.depth, mo_e.model->thread_name[p.thread]);
    if (p.way >= MO_WAY_IPI) {
        printf("%s\n", p.way == MO_WAY_IPI ? "passes a heavy fence" : "wakes for no reason");
        return;
    }
    printf("%s ", kinds[op->kind]);
    if (op->kind == MO_FENCE)
        printf("%s", orders[op->order]);
    if (op->kind == MO_CHOOSE)
        printf("%d of %d", p.way, op->value);
    if (op->kind == MO_FUTEX_WAKE)
        printf("%s: %s", v->name, p.way < MO_THREADS ? "one" : "none");
    if (op->kind == MO_STORE)
        printf("%s = %d (%s, place %d of %d)", v->name, op->value, orders[op->order], p.way, v->n);
    if (op->kind == MO_LOAD || op->kind == MO_RMW || op->kind == MO_FUTEX_WAIT) {
        int got = v->writes[p.way].value;
        printf("%s: reads %d (place %d of %d)", v->name, got, p.way, v->n - 1);
        if (op->kind == MO_FUTEX_WAIT)
            printf(got == op->cmp ? ", sleeps" : ", goes on");
        if (op->kind == MO_LOAD)
            printf(", %s", orders[op->order]);
        if (op->kind == MO_RMW && mo_holds(op, got))
            printf(", %s %d %s", funcs[op->func], op->value, orders[op->order]);
        else if (op->kind == MO_RMW)
            printf(" and not %d: fails, %s", op->cmp, orders[op->if_not]);
    }
    printf("\n");
}

static void mo_heavy_begin(int t) {
    mo_apply_fence(t, MO_SC);
    for (int u = 0; u < mo_w.n_threads; u++) {
        struct mo_thread *other = &mo_w.threads[u];
        if (u == t)
            continue;
        if (other->status == MO_READY)
            other->ipi = true;
        else
            mo_apply_fence(u, MO_SC); /* it passed one when it was switched out */
    }
}

static void mo_wake(int t, int result) {
    struct mo_thread *th = &mo_w.threads[t];
    th->status = MO_READY;
    th->result = result;
    th->past = mo_mix(th->past, (unsigned)result);
    mo_run(t);
}

/* Carries out one choice and runs the thread up to its next operation. */
static void mo_take(struct mo_pick p) {
    struct mo_thread *th = &mo_w.threads[p.thread];
    struct mo_op op = th->op;
    int t = p.thread, result = 0;
    if (p.way == MO_WAY_IPI) {
        mo_apply_fence(t, MO_SC);
        th->ipi = false;
        return;
    }
    if (p.way == MO_WAY_SPURIOUS) {
        mo_w.spurious--;
        mo_wake(t, 0);
        return;
    }
    switch (op.kind) {
    case MO_LOAD:
        result = mo_w.vars[op.var].writes[p.way].value;
        mo_apply_read(t, op.var, p.way, op.order);
        break;
    case MO_STORE: mo_apply_write(t, op.var, p.way, op.value, op.order, false); break;
    case MO_RMW: result = mo_apply_rmw(t, &op, p.way); break;
    case MO_FENCE: mo_apply_fence(t, op.order); break;
    case MO_HEAVY_BEGIN: mo_heavy_begin(t); break;
    case MO_HEAVY_END: mo_apply_fence(t, MO_SC); break;
    case MO_FUTEX_WAIT:
        mo_apply_fence(t, MO_SC);
        mo_apply_read(t, op.var, p.way, MO_RLX);
        if (mo_w.vars[op.var].writes[p.way].value == op.cmp) {
            th->status = MO_ASLEEP;
            if (th->ipi)
                mo_apply_fence(t, MO_SC);
            th->ipi = false;
            return;
        }
        result = 1;
        break;
    case MO_FUTEX_WAKE:
        mo_apply_fence(t, MO_SC);
        if (p.way < MO_THREADS)
            mo_wake(p.way, 0);
        break;
    case MO_CHOOSE: result = p.way; break;
    }
    mo_wake(t, result);
}

static void mo_begin(void) {
    const struct mo_model *m = mo_e.model;
    mo_w.n_vars = mo_w.n_plains = 0;
    mo_w.n_threads = m->threads;
    mo_w.spurious = m->spurious;
    mo_w.failed = false;
    mo_w.running = -1;
    memset(&mo_w.global, 0, sizeof mo_w.global);
    memset(mo_w.threads, 0, sizeof mo_w.threads);
    m->init();
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(mo_e.stacks, sizeof mo_e.stacks);
#endif
    for (int t = 0; t < m->threads; t++) {
        mo_w.threads[t].past = mo_mix(0, (unsigned)t);
        mo_w.threads[t].cur.clock[t] = mo_w.threads[t].acq.clock[t] = 1;
        mo_thread_prepare(t);
    }
    for (int t = 0; t < m->threads; t++)
        mo_run(t);
}

static void mo_end(void) {
    for (int t = 0; t < mo_w.n_threads; t++)
        if (mo_w.threads[t].status != MO_DONE) {
            mo_fail("deadlock (a lost wake-up?)", mo_e.model->thread_name[t]);
            return;
        }
    if (mo_e.model->check)
        mo_e.model->check();
}

/* Replays the choices on the stack and goes on with the first ones from there. */
static void mo_execute(void) {
    struct mo_pick picks[MO_MAX_WAYS];
    mo_begin();
    for (mo_e.depth = 0; !mo_w.failed; mo_e.depth++) {
        int n = mo_picks(picks);
        if (n == 0) {
            mo_end();
            return;
        }
        if (mo_e.depth >= mo_e.replay) {
            if (mo_e.depth == MO_DEPTH) {
                mo_fail("execution too long", "");
                return;
            }
            if (!mo_visit())
                return;
            mo_e.taken[mo_e.depth] = 0;
            mo_e.width[mo_e.depth] = (uint16_t)n;
        }
        struct mo_pick p = picks[mo_e.taken[mo_e.depth]];
        if (mo_e.trace)
            mo_print_step(p);
        mo_take(p);
    }
}

/* Changes the last choice that has another answer. */
static bool mo_next(void) {
    int d = mo_e.depth;
    while (d > 0 && mo_e.taken[d - 1] + 1 >= mo_e.width[d - 1])
        d--;
    if (d == 0)
        return false;
    mo_e.taken[d - 1]++;
    mo_e.replay = d;
    return true;
}

#include "model/explore_verify.h"

#endif
