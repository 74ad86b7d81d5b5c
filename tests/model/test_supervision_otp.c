/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervision_otp.c - trees of machines, each with its host, against a simulation of OTP's
 * supervisors as their documentation and stdlib describe them: functions that call each other, start
 * and terminate children one after the other and come back when it is done. Nothing of the machine's
 * thinking is in it: no states, no events, no rounds.
 *
 * Starts are answered at once and nothing else happens while a supervisor is at work, since OTP's
 * waits and listens to nobody meanwhile (test_supervision_model.c has everything that may happen
 * then). Leaves fail to start, end, fail, or ignore that they are told to stop; children are added,
 * terminated, restarted and deleted; time goes on. Compared: the sequence of every start, stop and kill
 * in the whole tree, and how the root ends.
 *
 * One difference is intended. A supervisor of OTP that gives up exits with `shutdown`, which a
 * transient child's policy takes for a normal end; a machine that gives up has failed (LIMIT).
 *
 * Mutants are those of src/policy/mutant.h that can be seen without anything happening meanwhile. */
#define KLAWI_POLICY_MUTANTS 1
#include "policy/mutant.h"
int klawi_policy_mutant;
#include "policy/children.c"
#include "policy/supervision.c"

#include "support/notices.h"
#include "support/random.h"
#include "support/runs.h"

#define KIDS 10
#define SPECS 200
#define TRACE 4000

/* --- what is the same for both: specifications, luck and time --- */

typedef struct spec {
    uint32_t id;
    klaw_supervision_child child;
    bool stubborn; /* a leaf that has to be killed */
    bool is_sup;
    klaw_supervision_opts opts;
    struct spec *kid[KIDS];
    uint32_t kids;
} spec;

static spec specs[SPECS];
static uint32_t specs_used;
static uint64_t luck_seed;
static uint32_t luck_bad;

/* Whether the n-th start of a leaf works. */
static bool lucky(const spec *s, uint32_t n) {
    rng r = rng_part(luck_seed, s->id * 1000ull + n);
    return !rng_one_in(&r, luck_bad);
}

typedef struct trace {
    struct {
        char what;
        uint32_t id;
    } at[TRACE];
    uint32_t n;
} trace;

static jmp_buf differs;
static char difference[160];

static void note(trace *t, char what, uint32_t id) {
    if (t->n == TRACE) {
        snprintf(difference, sizeof difference, "it never ends");
        longjmp(differs, 1);
    }
    t->at[t->n].what = what;
    t->at[t->n++].id = id;
}

/* --- OTP --- */

typedef struct proc { /* a supervisor, or a leaf */
    spec *s;
    bool alive;
    /* of a supervisor */
    struct proc *kid[KIDS]; /* alive: it has a process; else `undefined` or `restarting` */
    uint32_t kids;
    int64_t restart[64];
    uint32_t restarts;
} proc;

static trace otp_trace;
static int64_t otp_now;
static uint32_t otp_starts[SPECS];
static proc procs[4000];
static uint32_t procs_used;

static proc *otp_new(spec *s) {
    CHECK(procs_used < 4000);
    proc *p = &procs[procs_used++];
    memset(p, 0, sizeof *p);
    p->s = s;
    return p;
}
static void otp_delete(proc *sup, uint32_t i) {
    memmove(&sup->kid[i], &sup->kid[i + 1], (--sup->kids - i) * sizeof *sup->kid);
}
static bool temporary(const proc *p) {
    return p->s->child.restart == KLAW_RESTART_NEVER;
}

static void otp_terminate_children(proc *sup, uint32_t from, const proc *but, bool for_restart);

static void otp_terminate(proc *p) {
    if (!p->alive)
        return;
    p->alive = false;
    if (p->s->is_sup) {
        otp_terminate_children(p, 0, NULL, false);
        return;
    }
    if (p->s->child.shutdown == KLAW_SHUTDOWN_KILL) {
        note(&otp_trace, '!', p->s->id);
        return;
    }
    note(&otp_trace, '-', p->s->id);
    if (p->s->stubborn) {
        otp_now += p->s->child.shutdown;
        note(&otp_trace, '!', p->s->id);
    }
}
/* Right to left; temporary ones are left out of the list if the rest will be started again. */
static void otp_terminate_children(proc *sup, uint32_t from, const proc *but, bool for_restart) {
    if (sup->s->opts.strategy == KLAW_DYNAMIC) {
        for (uint32_t i = 0; i < sup->kids; i++) /* all at once: told first */
            if (sup->kid[i]->alive)
                note(&otp_trace, sup->kid[i]->s->child.shutdown == KLAW_SHUTDOWN_KILL ? '!' : '-',
                     sup->kid[i]->s->id);
        int64_t end = otp_now;
        for (uint32_t i = 0; i < sup->kids; i++) {
            proc *p = sup->kid[i];
            if (p->alive && p->s->stubborn && p->s->child.shutdown != KLAW_SHUTDOWN_KILL) {
                note(&otp_trace, '!', p->s->id);
                end = otp_now + p->s->child.shutdown;
            }
            p->alive = false;
        }
        otp_now = end;
        return;
    }
    for (uint32_t i = sup->kids; i-- > from;) {
        if (sup->kid[i] == but)
            continue;
        otp_terminate(sup->kid[i]);
        if (for_restart && temporary(sup->kid[i]))
            otp_delete(sup, i);
    }
}

static bool otp_start(proc *p) {
    if (!p->s->is_sup) {
        note(&otp_trace, '+', p->s->id);
        return p->alive = lucky(p->s, otp_starts[p->s->id]++);
    }
    p->kids = p->restarts = 0; /* init/1: a new process with the children of the specification */
    p->alive = true;
    for (uint32_t i = 0; i < p->s->kids; i++)
        p->kid[p->kids++] = otp_new(p->s->kid[i]);
    for (uint32_t i = 0; i < p->kids; i++)
        if (!otp_start(p->kid[i])) {
            p->alive = false;
            otp_terminate_children(p, 0, NULL, false);
            return false;
        }
    return true;
}

static bool otp_add_restart(proc *sup) {
    const klaw_supervision_opts *o = &sup->s->opts;
    uint32_t in = 0, max = o->max_restarts < 0 ? 0 : (uint32_t)o->max_restarts;
    sup->restart[sup->restarts++ % 64] = otp_now;
    for (uint32_t i = 0; i < sup->restarts && i < 64; i++)
        in += sup->restart[i] >= otp_now - o->restart_window;
    return in <= max;
}

static uint32_t otp_place(const proc *sup, const proc *p) {
    uint32_t i = 0;
    while (sup->kid[i] != p)
        i++;
    return i;
}
/* Starts the list from a place on; the first that fails, or NULL. */
static proc *otp_start_children(proc *sup, uint32_t from) {
    for (uint32_t i = from; i < sup->kids; i++)
        if (!otp_start(sup->kid[i]))
            return sup->kid[i];
    return NULL;
}

/* restart/2: OK, or the supervisor has terminated with LIMIT. */
static klaw_err otp_restart(proc *sup, proc *p) {
    while (p) { /* try_again_restart */
        if (!otp_add_restart(sup)) {
            if (sup->s->opts.strategy == KLAW_DYNAMIC)
                otp_delete(sup, otp_place(sup, p));
            otp_terminate(sup);
            return KLAW_LIMIT;
        }
        switch (sup->s->opts.strategy) {
        case KLAW_ONE_FOR_ALL:
            otp_terminate_children(sup, 0, p, true);
            p = otp_start_children(sup, 0);
            break;
        case KLAW_REST_FOR_ONE:
            otp_terminate_children(sup, otp_place(sup, p), p, true);
            p = otp_start_children(sup, otp_place(sup, p));
            break;
        default:
            if (otp_start(p))
                p = NULL;
        }
    }
    return KLAW_OK;
}

/* A child exited. *over: the supervisor has terminated, with what is returned. */
static klaw_err otp_exit(proc *sup, proc *p, klaw_err why, bool *over) {
    klaw_restart policy = p->s->child.restart;
    bool left = false;
    p->alive = *over = false;
    if (policy == KLAW_RESTART_ALWAYS || (policy == KLAW_RESTART_ON_FAILURE && why != KLAW_OK)) {
        klaw_err e = otp_restart(sup, p);
        *over = e != KLAW_OK;
        return e;
    }
    if (policy == KLAW_RESTART_NEVER || sup->s->opts.strategy == KLAW_DYNAMIC)
        otp_delete(sup, otp_place(sup, p));
    for (uint32_t i = 0; i < sup->kids; i++)
        left |= sup->kid[i]->alive && sup->kid[i]->s->child.significant;
    if (!p->s->child.significant ||
        (left && sup->s->opts.auto_shutdown == KLAW_SHUTDOWN_ALL_SIGNIFICANT))
        return KLAW_OK;
    *over = true;
    otp_terminate(sup);
    return KLAW_OK;
}

/* --- the machines and their hosts: the same calls, one after the other --- */

typedef struct host {
    spec *s;
    klaw_supervision *m;
    struct host *parent;
    uint32_t number; /* in the parent */
    spec *kid[64];   /* by number */
    struct host *inner[64];
    bool begun, done, waits; /* waits: for a stubborn leaf */
    klaw_err why;
} host;

static trace our_trace;
static int64_t our_now;
static uint32_t our_starts[SPECS];
static host *hosts[4000];
static uint32_t hosts_used;

static void host_drive(host *h);

static host *host_new(spec *s, host *parent, uint32_t number) {
    uint32_t n;
    host *h = calloc(1, sizeof *h);
    CHECK(h && hosts_used < 4000);
    hosts[hosts_used++] = h;
    *h = (host){.s = s, .parent = parent, .number = number};
    OK(klaw_supervision_new(&s->opts, &h->m));
    for (uint32_t i = 0; i < s->kids; i++) {
        OK(klaw_supervision_add(h->m, &s->kid[i]->child, &n));
        h->kid[n] = s->kid[i];
    }
    OK(klaw_supervision_begin(h->m, our_now));
    host_drive(h);
    return h;
}
static void hosts_free(void) {
    for (uint32_t i = 0; i < hosts_used; i++) {
        klaw_supervision_free(hosts[i]->m);
        free(hosts[i]);
    }
    hosts_used = 0;
}

#define EXPECT(call)                                                                 \
    do {                                                                             \
        klaw_err expected = (call);                                                  \
        if (expected) {                                                              \
            snprintf(difference, sizeof difference, "%s: %d", #call, (int)expected); \
            longjmp(differs, 1);                                                     \
        }                                                                            \
    } while (0)

static void host_start(host *h, uint32_t n) {
    spec *s = h->kid[n];
    if (!s->is_sup) {
        note(&our_trace, '+', s->id);
        if (lucky(s, our_starts[s->id]++))
            EXPECT(klaw_supervision_started(h->m, n, our_now));
        else
            EXPECT(klaw_supervision_start_failed(h->m, n, KLAW_SYSTEM, our_now, 0));
        return;
    }
    h->inner[n] = host_new(s, h, n);
    if (h->inner[n]->done)
        EXPECT(klaw_supervision_start_failed(h->m, n, KLAW_SYSTEM, our_now, 0));
    else
        EXPECT(klaw_supervision_started(h->m, n, our_now));
}

static void host_stop(host *h, uint32_t n) {
    spec *s = h->kid[n];
    if (s->is_sup) {
        klaw_supervision_shutdown(h->inner[n]->m, our_now);
        host_drive(h->inner[n]);
    } else {
        note(&our_trace, '-', s->id);
        if (s->stubborn) {
            h->waits = true;
            return;
        }
    }
    EXPECT(klaw_supervision_exited(h->m, n, KLAW_OK, our_now, 0));
}

static void host_drive(host *h) {
    for (;;) {
        klaw_supervision_action a = klaw_supervision_next(h->m, our_now);
        if (a.verb == KLAW_SUP_START) {
            host_start(h, a.child);
        } else if (a.verb == KLAW_SUP_STOP) {
            host_stop(h, a.child);
        } else if (a.verb == KLAW_SUP_KILL) {
            note(&our_trace, '!', h->kid[a.child]->id);
            EXPECT(klaw_supervision_exited(h->m, a.child, KLAW_OK, our_now, 0));
        } else if (a.verb == KLAW_SUP_DONE) {
            h->done = true;
            h->why = a.error;
        } else if (a.verb == KLAW_SUP_BEGUN) {
            h->begun = true;
        } else if (a.verb == KLAW_SUP_NOTHING) {
            if (!h->waits || klaw_supervision_due(h->m) == INT64_MAX)
                return;
            our_now = klaw_supervision_due(h->m);
            h->waits = false;
            for (uint32_t i = 0; i < 64; i++) /* more than one, if they were told at once */
                h->waits |= klaw_supervision_state(h->m, i) == KLAW_CHILD_STOPPING;
        }
    }
}

/* A child exited; what becomes of that goes up as far as it has to. */
static void host_exit(host *h, uint32_t n, klaw_err why) {
    EXPECT(klaw_supervision_exited(h->m, n, why, our_now, 0));
    host_drive(h);
    if (h->done && h->parent)
        host_exit(h->parent, h->number, h->why);
}

/* --- histories --- */

static rng chance;

static spec *some_spec(int depth, const klaw_supervision_opts *in) {
    CHECK(specs_used < SPECS);
    spec *s = &specs[specs_used];
    memset(s, 0, sizeof *s);
    s->id = specs_used++;
    s->child.restart = (klaw_restart)rng_below(&chance, 3);
    s->child.significant = in && in->auto_shutdown != KLAW_SHUTDOWN_NEVER &&
                           s->child.restart != KLAW_RESTART_ALWAYS && rng_one_in(&chance, 2);
    s->is_sup = !in || (depth < 3 && in->strategy != KLAW_DYNAMIC && specs_used < SPECS / 4 &&
                        rng_one_in(&chance, 4));
    s->child.shutdown = s->is_sup                ? KLAW_SHUTDOWN_FOREVER
                        : rng_one_in(&chance, 5) ? KLAW_SHUTDOWN_KILL
                                                 : 3;
    s->stubborn = s->child.shutdown == 3 && rng_one_in(&chance, 6);
    if (!s->is_sup)
        return s;
    s->opts = (klaw_supervision_opts){.strategy = (klaw_strategy)rng_below(&chance, 4),
                                      .auto_shutdown = (klaw_auto_shutdown)rng_below(&chance, 3),
                                      .restart_window = 2 + rng_below(&chance, 10),
                                      .no_backoff = true};
    s->opts.max_restarts = (int32_t)rng_below(&chance, 6);
    if (s->opts.max_restarts == 0)
        s->opts.max_restarts = KLAW_NONE;
    if (s->opts.strategy != KLAW_DYNAMIC) /* simple_one_for_one begins without */
        for (uint32_t n = rng_below(&chance, 6); n > 0; n--)
            s->kid[s->kids++] = some_spec(depth + 1, &s->opts);
    return s;
}

/* The same supervisor in both worlds. */
typedef struct pair {
    proc *p, *up; /* up: the parent */
    host *h;
} pair;

static uint32_t number_of(const host *h, const spec *s) {
    uint32_t n = 0;
    while (h->kid[n] != s || klaw_supervision_state(h->m, n) == KLAW_CHILD_STOPPED) {
        if (++n == 64) {
            snprintf(difference, sizeof difference, "child %u does not run", s->id);
            longjmp(differs, 1);
        }
    }
    return n;
}

/* Any supervisor that is alive. */
static pair some_sup(proc *root, host *h) {
    pair at = {root, NULL, h};
    for (int steps = 0; steps < 8; steps++) {
        uint32_t i = at.p->kids ? rng_below(&chance, at.p->kids) : 0;
        if (at.p->kids == 0 || rng_one_in(&chance, 3))
            break;
        proc *k = at.p->kid[i];
        if (!k->s->is_sup || !k->alive)
            continue;
        host *inner = at.h->inner[number_of(at.h, k->s)];
        at = (pair){k, at.p, inner};
    }
    return at;
}

/* Exits go up the tree in OTP's world as the runtime sends them. */
static void otp_exit_up(proc *root, proc *sup, proc *p, klaw_err why) {
    bool over;
    klaw_err e = otp_exit(sup, p, why, &over);
    if (!over || sup == root)
        return;
    for (uint32_t i = 0; i < procs_used; i++)
        for (uint32_t k = 0; procs[i].alive && k < procs[i].kids; k++)
            if (procs[i].kid[k] == sup) {
                otp_exit_up(root, &procs[i], sup, e);
                return;
            }
}

/* terminate_child, restart_child, delete_child, start_child. */
static void request(pair at, uint32_t what) {
    uint32_t i = at.p->kids ? rng_below(&chance, at.p->kids) : 0, n = 0;
    bool dynamic = at.p->s->opts.strategy == KLAW_DYNAMIC;
    proc *k = at.p->kids ? at.p->kid[i] : NULL;
    if (what == 0 || !k) {
        if (at.p->kids == KIDS || specs_used == SPECS)
            return;
        spec *s = some_spec(9, &at.p->s->opts);
        uint32_t child;
        EXPECT(klaw_supervision_add(at.h->m, &s->child, &child));
        CHECK(child < 64);
        at.h->kid[child] = s;
        host_drive(at.h);
        proc *p = otp_new(s);
        if (otp_start(p))
            at.p->kid[at.p->kids++] = p;
        return;
    }
    if (k->alive && what == 1) {
        EXPECT(klaw_supervision_stop_child(at.h->m, number_of(at.h, k->s), our_now));
        host_drive(at.h);
        otp_terminate(k);
        if (temporary(k) || dynamic)
            otp_delete(at.p, i);
    } else if (!k->alive) {
        while (at.h->kid[n] != k->s)
            n++;
        if (what == 2) {
            EXPECT(klaw_supervision_restart_child(at.h->m, n, our_now));
            host_drive(at.h);
            (void)otp_start(k);
        } else if (what == 3) {
            EXPECT(klaw_supervision_remove(at.h->m, n));
            host_drive(at.h);
            at.h->kid[n] = NULL;
            otp_delete(at.p, i);
        }
    }
}

static void compare(const char *when) {
    for (uint32_t i = 0; i < otp_trace.n || i < our_trace.n; i++) {
        bool o = i < otp_trace.n, k = i < our_trace.n;
        if (o && k && otp_trace.at[i].what == our_trace.at[i].what &&
            otp_trace.at[i].id == our_trace.at[i].id)
            continue;
        snprintf(difference, sizeof difference, "%s, step %u: %c%u, not %c%u", when, i,
                 k ? our_trace.at[i].what : ' ', k ? our_trace.at[i].id : 0,
                 o ? otp_trace.at[i].what : ' ', o ? otp_trace.at[i].id : 0);
        longjmp(differs, 1);
    }
    if (otp_now != our_now) {
        snprintf(difference, sizeof difference, "%s: time", when);
        longjmp(differs, 1);
    }
    otp_trace.n = our_trace.n = 0;
}

static uint64_t steps_made;

static void one_history(uint64_t seed, uint64_t part) {
    static const uint32_t bad[] = {4, 12, 50};
    chance = rng_part(seed, part);
    luck_seed = seed ^ part;
    luck_bad = bad[rng_below(&chance, 3)];
    specs_used = procs_used = otp_trace.n = our_trace.n = 0;
    memset(otp_starts, 0, sizeof otp_starts);
    memset(our_starts, 0, sizeof our_starts);
    otp_now = our_now = 100;
    spec *s = some_spec(0, NULL);
    proc *root = otp_new(s);
    bool began = otp_start(root);
    host *h = host_new(s, NULL, 0);
    compare("beginning");
    if (began == h->done) {
        snprintf(difference, sizeof difference, "the beginning: %d", h->done);
        longjmp(differs, 1);
    }
    for (uint32_t i = 10 + rng_below(&chance, 40); i > 0 && root->alive && specs_used < SPECS;
         i--) {
        pair at = some_sup(root, h);
        uint32_t what = rng_below(&chance, 10);
        proc *k = at.p->kids ? at.p->kid[rng_below(&chance, at.p->kids)] : NULL;
        if (what < 5 && k && k->alive && !k->s->is_sup) {
            klaw_err why = rng_one_in(&chance, 3) ? KLAW_OK : KLAW_SYSTEM;
            uint32_t n = number_of(at.h, k->s);
            otp_exit_up(root, at.p, k, why);
            host_exit(at.h, n, why);
        } else if (what < 7) {
            otp_now = our_now += rng_below(&chance, 6);
        } else {
            request(at, rng_below(&chance, 4));
        }
        compare("event");
        steps_made++;
        if (h->done == root->alive) {
            snprintf(difference, sizeof difference, "the end: %d", h->done);
            longjmp(differs, 1);
        }
    }
    if (root->alive) {
        otp_terminate(root);
        klaw_supervision_shutdown(h->m, our_now);
        host_drive(h);
        compare("shutdown");
        if (!h->done || h->why) {
            snprintf(difference, sizeof difference, "shutdown is not done");
            longjmp(differs, 1);
        }
    }
}

static bool agrees(uint64_t seed, uint64_t part) {
    bool good = setjmp(differs) == 0;
    if (good)
        one_history(seed, part);
    hosts_free();
    return good;
}

PLAIN(trees_do_what_otp_does) {
    uint64_t seed = seed_begin(), n = rounds(60000);
    klawi_policy_mutant = KLAWI_PM_NONE;
    steps_made = 0;
    for (uint64_t i = 0; i < n; i++)
        if (!agrees(seed, i)) {
            fprintf(stderr, "history %" PRIu64 ": %s\n", i, difference);
            CHECK(!"machines and OTP agree");
        }
    printf("%" PRIu64 " histories, %" PRIu64 " events\n", n, steps_made);
    CHECK(steps_made > n * 5);
}

PLAIN(mutants_are_noticed) {
    static const int visible[] = {
        KLAWI_PM_INTENSITY_MORE,    KLAWI_PM_INTENSITY_LESS,
        KLAWI_PM_WINDOW_OPEN,       KLAWI_PM_WINDOW_NONE,
        KLAWI_PM_FAILED_START_FREE, KLAWI_PM_FIRST_START_RETRIED,
        KLAWI_PM_ADDED_KEPT,        KLAWI_PM_STOP_LEFT_TO_RIGHT,
        KLAWI_PM_NEVER_RESTARTED,   KLAWI_PM_NORMAL_RESTARTED,
        KLAWI_PM_NORMAL_KEPT,       KLAWI_PM_REST_IS_ALL,
        KLAWI_PM_REST_IS_ONE,       KLAWI_PM_NO_KILL,
        KLAWI_PM_KILL_IS_STOP,      KLAWI_PM_ALL_IS_ANY,
        KLAWI_PM_ANY_IS_ALL,        KLAWI_PM_SIGNIFICANT_STOP,
        KLAWI_PM_STOPPED_LEFT_OUT,  KLAWI_PM_STOP_NO_WAIT,
    };
    uint64_t seed = seed_begin();
    for (size_t m = 0; m < sizeof visible / sizeof *visible; m++)
        if (!notices(&klawi_policy_mutant, visible[m], agrees, seed, 20000)) {
            fprintf(stderr, "mutant %d is not noticed\n", visible[m]);
            CHECK(!"noticed");
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(trees_do_what_otp_does),
        TEST(mutants_are_noticed),
    };
    return cmocka_run_group_tests_name("supervision_otp", tests, NULL, NULL);
}
