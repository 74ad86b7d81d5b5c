/* SPDX-License-Identifier: Apache-2.0 */
/* test_supervision_model.c - random trees of supervision machines in a made-up world, each beside
 * an oracle (oracle_supervision.h): whatever happens, both say the same, action by action.
 *
 * A history: machines with random options and children, some of which are machines themselves; then
 * children run, fail to start, fail, end, ignore that they are told to stop, can't be ended at all;
 * others are added, stopped, started again, removed; time goes on, exactly to the next deadline or
 * anywhere; machines are shut down at any moment. In the end the root is, and what is left must come
 * to its end. A machine inside is done: its parent is told that it exited, with the error.
 *
 * Compared: every action with all its fields, every answer of a call, states, counts, restarts and
 * the next deadline. And by the world alone: no child is started that runs, or stopped that does not;
 * nothing runs when the root is done.
 *
 * The machine is compiled in with its mutants (src/policy/mutant.h): the last test switches each on
 * and demands that the histories notice. KLAW_SEED replays; the report names the history. */
#define KLAWI_POLICY_MUTANTS 1
#include "policy/mutant.h"
int klawi_policy_mutant;
#include "policy/children.c"
#include "policy/supervision.c"

#include "support/notices.h"
#include "support/random.h"
#include "support/runs.h"

#include "model/oracle_supervision.h"

#define NODES 16
#define NUMBERS 64
#define NO_NODE (-1)

/* What the world knows of a child. */
typedef struct thing {
    bool used; /* the machine has not said REMOVED */
    enum { OFF, STARTS, RUNS } is;
    bool asked, forced; /* to stop */
    bool answered;      /* its start */
    bool stubborn;      /* ends only when forced */
    bool immortal;      /* nor then */
    bool is_machine;
    int machine; /* while it is there */
} thing;

typedef struct node {
    bool used, begun, done;
    klaw_err reason;
    klaw_supervision *m;
    oracle o;
    int parent;
    uint32_t number; /* in the parent */
    thing thing[NUMBERS];
} node;

static node nodes[NODES];
static int64_t now;
static rng chance;
static uint32_t bad_start; /* one start in so many fails: histories differ in their luck */
static uint64_t told_actions;
static uint64_t seen[KLAW_SUP_BEGUN + 1]; /* how often each verb came */
static jmp_buf differs;
static char difference[200];

static bool one_in(uint32_t n) {
    return rng_one_in(&chance, n);
}
static uint32_t below(uint32_t n) {
    return rng_below(&chance, n);
}

#define DIFFERS(...)                                          \
    do {                                                      \
        snprintf(difference, sizeof difference, __VA_ARGS__); \
        longjmp(differs, 1);                                  \
    } while (0)
#define SAME_ANSWER(machine, oracle)                                                               \
    do {                                                                                           \
        klaw_err answer_m = (machine), answer_o = (oracle);                                        \
        if (answer_m != answer_o)                                                                  \
            DIFFERS("%s: %s, not %s", #machine, klaw_err_name(answer_m), klaw_err_name(answer_o)); \
    } while (0)

/* --- making trees --- */

static klaw_supervision_opts some_opts(void) {
    klaw_supervision_opts o = {.strategy = (klaw_strategy)below(4),
                               .auto_shutdown = (klaw_auto_shutdown)below(3),
                               .max_restarts = one_in(6) ? KLAW_NONE : (int32_t)below(7),
                               .restart_window = 4 + below(12),
                               .no_backoff = one_in(3)};
    o.backoff = (klaw_backoff){.kind = (klaw_backoff_kind)below(3),
                               .jitter = one_in(4) ? KLAW_JITTER_FULL : KLAW_JITTER_NONE,
                               .base = 1 + below(4),
                               .max_delay = 2 + below(9)};
    return o;
}

static void add_child(node *n, int depth);

static int make_node(int parent, uint32_t number, int depth) {
    int at = 0;
    while (nodes[at].used)
        at++;
    node *n = &nodes[at];
    klaw_supervision_opts opts = some_opts();
    memset(n, 0, sizeof *n);
    n->used = true;
    n->parent = parent;
    n->number = number;
    o_init(&n->o, &opts);
    OK(klaw_supervision_new(&opts, &n->m));
    for (uint32_t i = below(6); i > 0; i--)
        add_child(n, depth);
    SAME_ANSWER(klaw_supervision_begin(n->m, now), o_begin(&n->o));
    return at;
}

static void free_node(int at) {
    node *n = &nodes[at];
    for (int i = 0; i < NUMBERS; i++)
        if (n->thing[i].used && n->thing[i].machine != NO_NODE)
            free_node(n->thing[i].machine);
    klaw_supervision_free(n->m);
    n->used = false;
}

static int depth_of(const node *n) {
    int depth = 0;
    for (; n->parent != NO_NODE; n = &nodes[n->parent])
        depth++;
    return depth;
}

static void add_child(node *n, int depth) {
    static const int64_t times[] = {3, 3, 0, 7, KLAW_SHUTDOWN_KILL, KLAW_SHUTDOWN_FOREVER};
    klaw_supervision_child c = {.restart = (klaw_restart)below(3), .shutdown = times[below(6)]};
    int used = 0;
    for (int i = 0; i < NODES; i++)
        used += nodes[i].used;
    c.significant = n->o.opts.auto_shutdown != KLAW_SHUTDOWN_NEVER &&
                    c.restart != KLAW_RESTART_ALWAYS && !one_in(3);
    if (n->o.kids == O_KIDS)
        return;
    uint32_t number = NUMBERS;
    klaw_err e = klaw_supervision_add(n->m, &c, &number);
    if (e == KLAW_OK && (number >= NUMBERS || n->thing[number].used))
        DIFFERS("number %u is used twice", number);
    SAME_ANSWER(e, o_add(&n->o, &c, number));
    if (e)
        return;
    thing *t = &n->thing[number];
    *t = (thing){.used = true, .machine = NO_NODE};
    t->is_machine = depth < 2 && used < NODES / 2 && one_in(4);
    t->stubborn = c.shutdown != KLAW_SHUTDOWN_FOREVER && one_in(5);
    t->immortal = t->stubborn && one_in(4);
}

/* --- the world's events, told to both --- */

static void tell_started(node *n, uint32_t c) {
    thing *t = &n->thing[c];
    SAME_ANSWER(klaw_supervision_started(n->m, c, now), o_started(&n->o, c, now));
    t->is = RUNS;
    t->answered = true;
}
static void tell_no_start(node *n, uint32_t c, klaw_err e) {
    uint64_t random = rng_next(&chance);
    thing *t = &n->thing[c];
    t->is = OFF;
    SAME_ANSWER(klaw_supervision_start_failed(n->m, c, e, now, random),
                o_start_failed(&n->o, c, e, now, random));
}
static void tell_exited(node *n, uint32_t c, klaw_err e) {
    uint64_t random = rng_next(&chance);
    thing *t = &n->thing[c];
    t->is = OFF;
    SAME_ANSWER(klaw_supervision_exited(n->m, c, e, now, random),
                o_exited(&n->o, c, e, now, random));
}

/* A start is answered. */
static void answer_start(node *n, uint32_t c) {
    if (one_in(bad_start))
        tell_no_start(n, c, one_in(2) ? KLAW_SYSTEM : KLAW_NOMEM);
    else
        tell_started(n, c);
}

static void carry_out(node *n, klaw_supervision_action a) {
    thing *t = &n->thing[a.child];
    bool child = a.verb != KLAW_SUP_DONE && a.verb != KLAW_SUP_BEGUN;
    if (child && !t->used)
        DIFFERS("verb %d for child %u, which is none", (int)a.verb, a.child);
    switch (a.verb) {
    case KLAW_SUP_START:
        if (t->is != OFF)
            DIFFERS("child %u is started twice", a.child);
        t->is = STARTS;
        t->asked = t->forced = t->answered = false;
        if (t->is_machine)
            t->machine = make_node((int)(n - nodes), a.child, depth_of(n) + 1);
        else if (one_in(2)) /* a host that answers before it asks for more */
            answer_start(n, a.child);
        break;
    case KLAW_SUP_STOP:
        if (t->is == OFF || t->asked || t->forced)
            DIFFERS("child %u can't be stopped", a.child);
        t->asked = true;
        if (t->machine != NO_NODE) {
            klaw_supervision_shutdown(nodes[t->machine].m, now);
            o_end(&nodes[t->machine].o, KLAW_OK, now);
        } else if (!t->stubborn && one_in(3)) {
            tell_exited(n, a.child, KLAW_CANCELLED);
        }
        break;
    case KLAW_SUP_KILL:
        if (t->is == OFF || t->forced)
            DIFFERS("child %u can't be killed", a.child);
        t->forced = true;
        if (t->machine != NO_NODE) { /* and everything below it */
            free_node(t->machine);
            t->machine = NO_NODE;
        }
        break;
    case KLAW_SUP_REMOVED:
        if (t->is != OFF)
            DIFFERS("child %u is removed and runs", a.child);
        t->used = false;
        break;
    case KLAW_SUP_DONE:
        n->done = true;
        n->reason = a.error;
        break;
    case KLAW_SUP_BEGUN: n->begun = true; break;
    default: break;
    }
}

static void compare_states(node *n) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->o.kids; i++) {
        uint32_t id = n->o.kid[i].id;
        if (klaw_supervision_state(n->m, id) != o_state(&n->o, id))
            DIFFERS("state of %u", id);
        if (klaw_supervision_restarts(n->m, id) != n->o.kid[i].restarts)
            DIFFERS("restarts of %u", id);
        count++;
    }
    if (klaw_supervision_count(n->m) != count)
        DIFFERS("count %u, not %u", klaw_supervision_count(n->m), count);
    if (klaw_supervision_due(n->m) != o_due(&n->o))
        DIFFERS("due %" PRId64 ", not %" PRId64, klaw_supervision_due(n->m), o_due(&n->o));
}

/* A machine inside has begun, or is done: its parent hears of it. */
static bool report_to_parent(node *n) {
    if (n->parent == NO_NODE)
        return false;
    node *p = &nodes[n->parent];
    thing *t = &p->thing[n->number];
    uint32_t number = n->number;
    if (n->done) {
        klaw_err e = n->reason;
        free_node((int)(n - nodes));
        t->machine = NO_NODE;
        if (t->is == STARTS && !t->asked)
            tell_no_start(p, number, e ? e : KLAW_STOPPED);
        else
            tell_exited(p, number, e);
        return true;
    }
    if (n->begun && t->is == STARTS) {
        tell_started(p, number);
        return true;
    }
    return false;
}

/* Both say what they have to say, until no machine has anything to say. */
static void listen(void) {
    bool more;
    do {
        more = false;
        for (int i = 0; i < NODES; i++) {
            node *n = &nodes[i];
            while (n->used) {
                klaw_supervision_action a = klaw_supervision_next(n->m, now);
                klaw_supervision_action b = o_next(&n->o, now);
                if (a.verb != b.verb || a.child != b.child || a.attempt != b.attempt ||
                    a.error != b.error)
                    DIFFERS("verb %d child %u attempt %u %s, not %d %u %u %s", (int)a.verb, a.child,
                            a.attempt, klaw_err_name(a.error), (int)b.verb, b.child, b.attempt,
                            klaw_err_name(b.error));
                if (a.verb == KLAW_SUP_NOTHING)
                    break;
                seen[a.verb]++;
                if (++told_actions > 100000)
                    DIFFERS("it never ends");
                more = true;
                carry_out(n, a);
            }
            if (n->used) {
                compare_states(n);
                more |= report_to_parent(n);
            }
        }
    } while (more);
}

/* --- what may happen --- */

/* Something happens to child c, if anything can. */
static bool happens(node *n, uint32_t c, bool ending) {
    thing *t = &n->thing[c];
    if (!t->used || t->is == OFF || t->machine != NO_NODE)
        return false;
    if (t->forced) {
        if (t->immortal) {
            t->is = OFF; /* for the machine */
            SAME_ANSWER(klaw_supervision_abandoned(n->m, c, now), o_abandoned(&n->o, c));
        } else {
            tell_exited(n, c, KLAW_CANCELLED);
        }
        return true;
    }
    if (t->is == STARTS && !t->is_machine && (!t->asked || one_in(3))) {
        answer_start(n, c);
        return true;
    }
    if (t->asked) {
        if (t->stubborn)
            return false;
        tell_exited(n, c, one_in(3) ? KLAW_SYSTEM : KLAW_OK);
        return true;
    }
    if (ending && one_in(2))
        return false;
    tell_exited(n, c, one_in(3) ? KLAW_OK : KLAW_SYSTEM);
    return true;
}

/* What nobody expects: both refuse it, or both don't. */
static void nonsense(node *n, uint32_t c) {
    const thing *t = &n->thing[c];
    if (t->used && t->is != OFF)
        return; /* it might be true */
    uint64_t random = rng_next(&chance);
    switch (below(4)) {
    case 0: SAME_ANSWER(klaw_supervision_started(n->m, c, now), o_started(&n->o, c, now)); break;
    case 1:
        SAME_ANSWER(klaw_supervision_start_failed(n->m, c, KLAW_SYSTEM, now, random),
                    o_start_failed(&n->o, c, KLAW_SYSTEM, now, random));
        break;
    case 2:
        SAME_ANSWER(klaw_supervision_exited(n->m, c, KLAW_OK, now, random),
                    o_exited(&n->o, c, KLAW_OK, now, random));
        break;
    default: SAME_ANSWER(klaw_supervision_abandoned(n->m, c, now), o_abandoned(&n->o, c)); break;
    }
}

static void request(node *n, uint32_t c) {
    switch (below(8)) {
    case 0:
    case 1: add_child(n, depth_of(n)); break;
    case 2:
    case 3:
        SAME_ANSWER(klaw_supervision_stop_child(n->m, c, now), o_stop_child(&n->o, c, now));
        break;
    case 4:
    case 5:
        SAME_ANSWER(klaw_supervision_restart_child(n->m, c, now), o_restart_child(&n->o, c));
        break;
    case 6: SAME_ANSWER(klaw_supervision_remove(n->m, c), o_remove(&n->o, c)); break;
    default: nonsense(n, c); break;
    }
}

static int64_t next_due(void) {
    int64_t due = INT64_MAX;
    for (int i = 0; i < NODES; i++)
        if (nodes[i].used && klaw_supervision_due(nodes[i].m) < due)
            due = klaw_supervision_due(nodes[i].m);
    return due;
}

static void time_goes_on(void) {
    int64_t due = next_due();
    if (due == INT64_MAX || one_in(3))
        now += 1 + below(6);
    else
        now = due > now ? due - one_in(4) : now + 1;
}

static node *some_node(void) {
    node *n;
    do
        n = &nodes[below(NODES)];
    while (!n->used);
    return n;
}

static void shut_down(node *n) {
    klaw_supervision_shutdown(n->m, now);
    o_end(&n->o, KLAW_OK, now);
}

/* Everything goes to its end; false when it does not. */
static bool comes_to_its_end(void) {
    for (int i = 0; i < 2000 && !nodes[0].done; i++) {
        bool any = false;
        node *n = some_node();
        for (uint32_t c = 0; c < NUMBERS && !any; c++)
            any = happens(n, c, true);
        if (!any && next_due() != INT64_MAX && next_due() > now)
            now = next_due();
        listen();
    }
    return nodes[0].done;
}

static void one_history(uint64_t seed, uint64_t part) {
    static const uint32_t luck[] = {3, 10, 30, 100};
    chance = rng_part(seed, part);
    now = 1000 + below(100);
    bad_start = luck[below(4)];
    told_actions = 0;
    (void)make_node(NO_NODE, 0, 0);
    listen();
    for (uint32_t i = 5 + below(80); i > 0 && !nodes[0].done; i--) {
        node *n = some_node();
        uint32_t c = below(8), what = below(20);
        if (what < 12) {
            for (int tries = 0; tries < 16 && !happens(n, c, false); tries++) {
                n = some_node();
                c = below(8);
            }
        } else if (what < 16) {
            time_goes_on();
        } else if (what < 19) {
            request(n, c);
        } else if (one_in(6)) {
            shut_down(n);
        }
        if (!one_in(8)) /* a host may be late */
            listen();
    }
    if (!nodes[0].done)
        shut_down(&nodes[0]);
    listen();
    if (!comes_to_its_end())
        DIFFERS("it does not come to its end");
    for (int i = 1; i < NODES; i++)
        if (nodes[i].used)
            DIFFERS("a machine is left");
    for (int i = 0; i < NUMBERS; i++)
        if (nodes[0].thing[i].used && nodes[0].thing[i].is != OFF)
            DIFFERS("child %d is left", i);
}

/* Whether the history runs without a difference. */
static bool agrees(uint64_t seed, uint64_t part) {
    bool good = setjmp(differs) == 0;
    if (good)
        one_history(seed, part);
    for (int i = 0; i < NODES; i++) /* a difference leaves a tree whose links may be wrong */
        if (nodes[i].used) {
            klaw_supervision_free(nodes[i].m);
            nodes[i].used = false;
        }
    return good;
}

PLAIN(machines_do_what_the_oracle_says) {
    uint64_t seed = seed_begin(), n = rounds(60000);
    klawi_policy_mutant = KLAWI_PM_NONE;
    memset(seen, 0, sizeof seen);
    for (uint64_t i = 0; i < n; i++)
        if (!agrees(seed, i)) {
            fprintf(stderr, "history %" PRIu64 ": %s\n", i, difference);
            CHECK(!"machine and oracle agree");
        }
    printf("%" PRIu64 " histories:", n);
    for (int i = 1; i <= KLAW_SUP_BEGUN; i++)
        printf(" %" PRIu64, seen[i]);
    printf(" actions by verb\n");
    for (int i = 1; i <= KLAW_SUP_BEGUN; i++)
        CHECK(seen[i] > n / 50); /* the histories reach everything */
}

PLAIN(every_mutant_is_noticed) {
    static const char *const names[] = {"none",
#define NAME(name, text) #name ": " text,
                                        KLAWI_POLICY_MUTANT_LIST(NAME)
#undef NAME
    };
    uint64_t seed = seed_begin();
    int missed = 0;
    for (int m = 1; m < KLAWI_PM_COUNT; m++)
        if (!notices(&klawi_policy_mutant, m, agrees, seed, 20000)) {
            fprintf(stderr, "not noticed: %s\n", names[m]);
            missed++;
        }
    SAME(missed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(machines_do_what_the_oracle_says),
        TEST(every_mutant_is_noticed),
    };
    return cmocka_run_group_tests_name("supervision_model", tests, NULL, NULL);
}
