/* SPDX-License-Identifier: Apache-2.0 */
/* explore_verify.h - runs a model, then its mutants. Included once, at the end of explore_engine.h.
 *
 * The table of orders is the weakest that works: each acquire, release or seq_cst in it is weakened
 * by itself, one step (seq_cst to acq_rel, acq_rel to acquire and to release, acquire or release to
 * relaxed), and each named step is left out by itself. Every such mutant has to fail in some
 * variant, unless the model lists it as benign and says why; a benign mutant that does fail is an
 * error too. The real code may be stronger than the table, never weaker.
 *
 * KLAW_MODEL_TRACE=1 prints how each mutant was caught, =2 also the execution that did it.
 */
#ifndef KLAW_TESTS_MODEL_EXPLORE_VERIFY_H
#define KLAW_TESTS_MODEL_EXPLORE_VERIFY_H

#include <time.h>

static void mo_unmutate(const struct mo_model *m) {
    for (int i = 0; i < m->n_sites; i++)
        mo_e.orders[i] = m->sites[i].order;
    mo_e.dropped = 0;
}

static void mo_print_failure(void) {
    mo_e.replay = mo_e.depth;
    mo_e.trace = true;
    mo_execute();
    mo_e.trace = false;
    printf("        %s\n", mo_w.why);
}

struct mo_result mo_explore(const struct mo_model *model, int variant, uint64_t cap) {
    struct mo_result r = {0};
    mo_e.model = model;
    mo_e.variant = variant;
    mo_e.replay = mo_e.depth = 0;
    mo_e.seen_n = 0;
    if (mo_e.seen)
        memset(mo_e.seen, 0, mo_e.seen_cap * sizeof *mo_e.seen);
    bool more = true;
    while (more && !r.failed && mo_e.seen_n < cap) {
        mo_execute();
        r.executions++;
        r.failed = mo_w.failed;
        if (!r.failed)
            more = mo_next();
    }
    r.states = mo_e.seen_n;
    r.exhaustive = !more;
    if (r.failed)
        memcpy(r.why, mo_w.why, sizeof r.why);
    return r;
}

struct mo_tally {
    int mutants, caught, benign;
    bool bad;
};

static void mo_try_mutant(const struct mo_model *m, const char *name, uint64_t cap,
                          struct mo_tally *tally) {
    const char *env = getenv("KLAW_MODEL_TRACE");
    int verbose = env ? atoi(env) : 0;
    struct mo_result r = {0};
    bool exhaustive = true;
    for (int v = 0; v < m->variants && !r.failed; v++) {
        r = mo_explore(m, v, cap);
        exhaustive &= r.exhaustive;
        if (r.failed && verbose > 0)
            printf("    %s: %s (variant %d)\n", name, r.why, v);
        if (r.failed && verbose > 1)
            mo_print_failure();
    }
    const char *reason = NULL;
    for (int i = 0; i < m->n_benign; i++)
        if (strcmp(m->benign[i].mutant, name) == 0)
            reason = m->benign[i].reason;
    tally->mutants += !reason;
    tally->caught += !reason && r.failed;
    tally->benign += !!reason;
    if (!reason && !r.failed) {
        printf("    NOT CAUGHT%s: %s\n", exhaustive ? "" : " (bounded)", name);
        tally->bad = true;
    }
    if (reason && r.failed) {
        printf("    not benign: %s: %s\n", name, r.why);
        tally->bad = true;
    }
}

static void mo_try_orders(const struct mo_model *m, int site, uint64_t cap,
                          struct mo_tally *tally) {
    static const char *const names[] = {"relaxed", "acquire", "release", "acq_rel", "seq_cst"};
    static const struct {
        enum mo_order from, to;
    } weaker[] = {
        {MO_SC, MO_AR}, {MO_AR, MO_ACQ}, {MO_AR, MO_REL}, {MO_ACQ, MO_RLX}, {MO_REL, MO_RLX}};
    for (size_t i = 0; i < sizeof weaker / sizeof weaker[0]; i++) {
        if (weaker[i].from != m->sites[site].order)
            continue;
        char name[128];
        snprintf(name, sizeof name, "%s: %s", m->sites[site].name, names[weaker[i].to]);
        mo_unmutate(m);
        mo_e.orders[site] = weaker[i].to;
        mo_try_mutant(m, name, cap, tally);
    }
}

bool mo_verify(const struct mo_model *m, uint64_t cap) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    struct mo_tally tally = {0};
    uint64_t executions = 0, states = 0;
    bool exhaustive = true;
    for (int v = 0; v < m->variants; v++) {
        mo_unmutate(m);
        struct mo_result r = mo_explore(m, v, cap);
        executions += r.executions;
        states += r.states;
        exhaustive &= r.exhaustive;
        if (r.failed) {
            printf("  %s, variant %d: FAILED: %s\n", m->name, v, r.why);
            mo_print_failure();
            return false;
        }
    }
    for (int i = 0; i < m->n_sites; i++)
        mo_try_orders(m, i, cap, &tally);
    for (int i = 0; i < m->n_steps; i++) {
        char name[128];
        snprintf(name, sizeof name, "without: %s", m->steps[i]);
        mo_unmutate(m);
        mo_e.dropped = 1u << i;
        mo_try_mutant(m, name, cap, &tally);
    }
    mo_unmutate(m);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    char scope[48] = "exhaustive";
    if (!exhaustive)
        snprintf(scope, sizeof scope, "bounded by %llu states", (unsigned long long)cap);
    printf("  %-28s %8llu executions %8llu states, %s; mutants %d/%d", m->name,
           (unsigned long long)executions, (unsigned long long)states, scope, tally.caught,
           tally.mutants);
    if (tally.benign)
        printf(" (+%d benign)", tally.benign);
    printf("; %.1f s\n", seconds);
    return !tally.bad && exhaustive;
}

#endif
