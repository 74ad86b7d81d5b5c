/* SPDX-License-Identifier: Apache-2.0 */
/* test_workflow_policy.c - the decisions of workflows, case by case; and random logs and random clocks
 * against an oracle that says the same from the documented sentences, the slow way.
 *
 * Tried with these bugs seeded: a lease that ends one ns late, a boot that is not compared, CANCELLED
 * before BUSY, a REPLAY of what is not declared, an attempt too many, the second double found first. */
#include "klaw/workflow_policy.h"

#include "support/random.h"
#include "support/runs.h"

#define LIST(v, ...)                                          \
    ((klaw_workflow_list){(const char *const[]){__VA_ARGS__}, \
                          sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), (v)})

/* --- names and lists --- */

PLAIN(names_have_1_to_255_bytes_of_text) {
    char name[300];
    memset(name, 'x', sizeof name);
    name[256] = 0;
    CHECK(!klaw_workflow_name_ok(name));
    name[255] = 0;
    CHECK(klaw_workflow_name_ok(name));
    CHECK(klaw_workflow_name_ok("a") && klaw_workflow_name_ok("fetch \xc3\xa4/1"));
    CHECK(!klaw_workflow_name_ok("") && !klaw_workflow_name_ok(NULL));
    CHECK(!klaw_workflow_name_ok("a\nb") && !klaw_workflow_name_ok("a\x7f"));
}

static size_t bad_of(klaw_workflow_list l) {
    size_t bad = 77;
    GIVES(klaw_workflow_list_check(&l, &bad), KLAW_INVALID);
    GIVES(klaw_workflow_list_check(&l, NULL), KLAW_INVALID);
    return bad;
}

PLAIN(a_list_has_good_names_no_two_the_same) {
    size_t bad = 77;
    char version[70];
    klaw_workflow_list l = LIST("1", "a", "b", "c");
    OK(klaw_workflow_list_check(&l, &bad));
    OK(klaw_workflow_list_check(&(klaw_workflow_list){0}, NULL));
    SAME(bad, 77);
    SAME(bad_of(LIST(NULL, "a", "", "a")), 1);
    SAME(bad_of(LIST(NULL, "a", "b", "c", "b", "a", "c")), 3); /* the first that repeats */
    SAME(bad_of(LIST(NULL, "z", "b", "z", "b")), 2);
    SAME(bad_of((klaw_workflow_list){NULL, 2, NULL}), 0);
    SAME(bad_of(LIST("1\t", "a")), 1);
    memset(version, 'v', sizeof version);
    version[64] = 0;
    SAME(bad_of(LIST(version, "a", "b")), 2);
    version[63] = 0;
    l.version = version;
    OK(klaw_workflow_list_check(&l, NULL));
    GIVES(klaw_workflow_list_check(NULL, &bad), KLAW_INVALID);
    klaw_alloc_fail_at(1, false);
    GIVES(klaw_workflow_list_check(&l, &bad), KLAW_NOMEM);
    klaw_alloc_fail_at(0, false);
}

static void differs(klaw_workflow_list r, klaw_workflow_list d, klaw_workflow_change change,
                    size_t at, const char *text) {
    char buf[200];
    klaw_workflow_diff got = klaw_workflow_compare(&r, &d);
    SAME(got.change, change);
    SAME(got.at, at);
    SAME(klaw_workflow_diff_text(got, &r, &d, buf, sizeof buf), strlen(text));
    if (strcmp(buf, text) != 0)
        check_failed(__FILE__, __LINE__, text, buf);
    SAME(klaw_workflow_diff_text(got, &r, &d, buf, 4), strlen(text) < 3 ? strlen(text) : 3);
    SAME(strlen(buf), strlen(text) < 3 ? strlen(text) : 3);
    SAME(klaw_workflow_diff_text(got, &r, &d, buf, 0), 0);
}

PLAIN(the_first_difference_is_named) {
    klaw_workflow_list none = {0}, abc = LIST("", "a", "b", "c");
    differs(abc, LIST(NULL, "a", "b", "c"), KLAW_WORKFLOW_SAME, 0, "");
    differs(none, none, KLAW_WORKFLOW_SAME, 0, "");
    differs(abc, LIST("2", "a", "b", "c"), KLAW_WORKFLOW_VERSION, 0,
            "the version was \"\" and is \"2\" now");
    differs(abc, LIST("2", "a", "x", "b", "c"), KLAW_WORKFLOW_ADDED, 1, "step 2 \"x\" is new");
    differs(abc, LIST("", "a", "b", "c", "d"), KLAW_WORKFLOW_ADDED, 3, "step 4 \"d\" is new");
    differs(abc, LIST("", "a", "c"), KLAW_WORKFLOW_REMOVED, 1, "step 2 \"b\" is gone");
    differs(abc, LIST("", "a", "b"), KLAW_WORKFLOW_REMOVED, 2, "step 3 \"c\" is gone");
    differs(abc, none, KLAW_WORKFLOW_REMOVED, 0, "step 1 \"a\" is gone");
    differs(none, abc, KLAW_WORKFLOW_ADDED, 0, "step 1 \"a\" is new");
    differs(abc, LIST("", "a", "x", "c"), KLAW_WORKFLOW_RENAMED, 1,
            "step 2 was \"b\" and is \"x\" now");
    differs(abc, LIST("", "b", "a", "c"), KLAW_WORKFLOW_MOVED, 0,
            "step 1 was \"a\" and is \"b\" now");
    klaw_workflow_diff odd = {(klaw_workflow_change)99, 0};
    SAME(klaw_workflow_diff_text(odd, &abc, &none, (char[8]){1}, 8), 0);
}

PLAIN(states_have_names) {
    CHECK(strcmp(klaw_workflow_state_name(KLAW_WORKFLOW_CANCELLED), "cancelled") == 0);
    CHECK(strcmp(klaw_workflow_state_name((klaw_workflow_state)4), "?") == 0);
    CHECK(strcmp(klaw_step_state_name(KLAW_STEP_DONE), "done") == 0);
    CHECK(strcmp(klaw_step_state_name((klaw_step_state)-1), "?") == 0);
}

PLAIN(the_first_step_without_a_result_resumes) {
    const klaw_step_state s[] = {KLAW_STEP_DONE, KLAW_STEP_STARTED, KLAW_STEP_DONE,
                                 KLAW_STEP_FAILED};
    SAME(klaw_workflow_next(s, 4), 1);
    SAME(klaw_workflow_next(s, 1), 1);
    SAME(klaw_workflow_next(s + 2, 2), 1);
    SAME(klaw_workflow_next(NULL, 0), 0);
}

/* --- leases --- */

static klaw_lease_clock clock_at(const char *boot, int64_t since, int64_t wall) {
    klaw_lease_clock c = {.since_boot = since, .wall = wall};
    snprintf(c.boot, sizeof c.boot, "%s", boot);
    return c;
}
static int64_t left(const klaw_lease *l, const char *boot, int64_t since, int64_t wall) {
    klaw_lease_clock c = clock_at(boot, since, wall);
    return klaw_lease_remaining(l, &c, KLAW_OWNER_UNKNOWN);
}

PLAIN(within_one_boot_the_wall_clock_does_not_matter) {
    klaw_lease_clock c = clock_at("b", 1000, 5000);
    klaw_lease l = klaw_lease_grant(&c, 300, 7);
    SAME(l.token, 7);
    SAME(left(&l, "b", 1000, 0), 300);
    SAME(left(&l, "b", 1299, 999999), 1);
    SAME(left(&l, "b", 1300, 0), 0);
    SAME(left(&l, "b", 5000, 5000), 0);
    SAME(left(&l, "c", 1000, 5000), 300); /* another boot: only the wall is left */
    SAME(left(&l, "c", 99999, 5299), 1);
    SAME(left(&l, "c", 0, 5300), 0);
    SAME(left(&l, "", 1000, 5299), 1); /* a boot that is not known is no boot */
    l.boot[0] = 0;
    SAME(left(&l, "", 99999, 5299), 1);
}

PLAIN(a_clock_that_was_set_back_by_more_than_a_lease_ends_it) {
    klaw_lease_clock c = clock_at("b", 1000, 5000);
    klaw_lease l = klaw_lease_grant(&c, 300, 1);
    SAME(left(&l, "c", 0, 4700), 600);
    SAME(left(&l, "c", 0, 4698), 0);
    SAME(left(&l, "c", 0, 0), 0);
    l.until_wall = INT64_MAX;
    SAME(left(&l, "c", 0, -5), 0);
    l.until_wall = INT64_MIN;
    SAME(left(&l, "c", 0, 5), 0);
    c = clock_at("b", INT64_MAX - 5, INT64_MAX - 5);
    l = klaw_lease_grant(&c, 300, 1);
    SAME(l.until_boot, INT64_MAX);
    SAME(left(&l, "b", INT64_MAX - 5, 0), 5);
}

PLAIN(a_dead_owner_holds_nothing_and_a_living_one_no_longer_than_its_lease) {
    klaw_lease_clock c = clock_at("b", 1000, 5000);
    klaw_lease l = klaw_lease_grant(&c, 300, 1), none = {.token = 4};
    SAME(klaw_lease_remaining(&l, &c, KLAW_OWNER_DEAD), 0);
    SAME(klaw_lease_remaining(&l, &c, KLAW_OWNER_ALIVE), 300);
    SAME(klaw_lease_remaining(&none, &c, KLAW_OWNER_ALIVE), 0);
    c.since_boot = 1300;
    SAME(klaw_lease_remaining(&l, &c, KLAW_OWNER_ALIVE), 0);
}

PLAIN(a_lease_is_renewed_when_a_third_is_over) {
    klaw_lease_clock c = clock_at("b", 1000, 0);
    klaw_lease l = klaw_lease_grant(&c, 300, 1);
    SAME(klaw_lease_renew_in(&l, &c), 100);
    c.since_boot = 1099;
    SAME(klaw_lease_renew_in(&l, &c), 1);
    c.since_boot = 1100;
    SAME(klaw_lease_renew_in(&l, &c), 0);
    c.since_boot = 9000;
    SAME(klaw_lease_renew_in(&l, &c), 0);
}

/* --- opening, against its sentences --- */

/* From the header, one rule a line, the first that holds. */
static klaw_workflow_opening opening_oracle(const klaw_workflow_head *h, klaw_workflow_change c,
                                            klaw_workflow_wish w, int64_t lasts) {
    bool resumable_change = c == KLAW_WORKFLOW_SAME || w.allow_changes;
    bool cancelled =
        h->state == KLAW_WORKFLOW_CANCELLED || (h->cancel && h->state != KLAW_WORKFLOW_DONE);
    if (!h->exists)
        return KLAW_OPENING_CREATE;
    if (lasts > 0 && !w.takeover)
        return KLAW_OPENING_BUSY;
    if (cancelled && !w.uncancel)
        return KLAW_OPENING_CANCELLED;
    if (!resumable_change)
        return KLAW_OPENING_CHANGED;
    if (h->state == KLAW_WORKFLOW_DONE && c == KLAW_WORKFLOW_SAME)
        return KLAW_OPENING_READ;
    return h->lease.duration ? KLAW_OPENING_TAKE_OVER : KLAW_OPENING_RESUME;
}

__extension__ typedef __int128 wide;

/* How long a lease lasts, from its sentences, in a wider type. */
static int64_t lasts_oracle(const klaw_lease *l, const klaw_lease_clock *c, klaw_lease_owner o) {
    if (!l->duration || o == KLAW_OWNER_DEAD)
        return 0;
    bool boot = l->boot[0] && strcmp(l->boot, c->boot) == 0;
    wide d = boot ? (wide)l->until_boot - c->since_boot : (wide)l->until_wall - c->wall;
    if (d <= 0 || d > 2 * (wide)l->duration + 1)
        return 0;
    return (int64_t)d;
}

PLAIN(random_openings_follow_the_sentences) {
    uint64_t seed = seed_begin(), n = rounds(200000), seen[7] = {0};
    static const char *const boots[] = {"", "boot-a", "boot-b"};
    for (uint64_t i = 0; i < n; i++) {
        rng r = rng_part(seed, i);
        klaw_workflow_head h = {.exists = !rng_one_in(&r, 8),
                                .state = (klaw_workflow_state)rng_below(&r, 4),
                                .cancel = rng_one_in(&r, 4)};
        klaw_lease_clock then = clock_at(boots[rng_below(&r, 3)], rng_below(&r, 1000),
                                         rng_below(&r, 1000)),
                         now = clock_at(boots[rng_below(&r, 3)], rng_below(&r, 1000),
                                        rng_below(&r, 1000));
        if (!rng_one_in(&r, 3))
            h.lease = klaw_lease_grant(&then, 1 + rng_below(&r, 400), rng_next(&r));
        klaw_workflow_change c =
            rng_one_in(&r, 2) ? KLAW_WORKFLOW_SAME : (klaw_workflow_change)rng_below(&r, 6);
        klaw_workflow_wish w = {rng_one_in(&r, 2), rng_one_in(&r, 4), rng_one_in(&r, 3)};
        klaw_lease_owner o = (klaw_lease_owner)rng_below(&r, 3);
        int64_t lasts = lasts_oracle(&h.lease, &now, o), wait = -1;
        SAME(klaw_lease_remaining(&h.lease, &now, o), lasts);
        klaw_workflow_opening want = opening_oracle(&h, c, w, lasts);
        SAME(klaw_workflow_open_decide(&h, c, w, &now, o, &wait), want);
        SAME(wait, want == KLAW_OPENING_BUSY ? lasts : 0);
        SAME(klaw_workflow_open_decide(&h, c, w, &now, o, NULL), want);
        seen[want]++;
    }
    for (size_t i = 0; i < 7; i++)
        CHECK(seen[i] > 0 || n < 5000);
}

/* --- steps --- */

PLAIN(each_step_verdict_has_its_case) {
    klaw_workflow_run_view run = {.declared = true};
    klaw_step_view s = {.known = true};
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_RUN);
    s.state = KLAW_STEP_DONE;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_REPLAY);
    s.asked = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_TWICE);
    s.state = KLAW_STEP_FAILED;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_RUN);
    s.running = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_TWICE);
    s = (klaw_step_view){.known = false, .state = KLAW_STEP_DONE};
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_UNDECLARED); /* dropped, though it has a result */
    run.declared = false;
    run.unasked = 1;
    s.state = KLAW_STEP_PENDING;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_CHANGED);
    SAME(klaw_workflow_finish_decide(&run), KLAW_STEP_CHANGED);
    run.allow_changes = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_RUN);
    SAME(klaw_workflow_finish_decide(&run), KLAW_STEP_RUN);
    run.late = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_TIMEOUT);
    s.known = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_TIMEOUT);
    run.read_only = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_ENDED);
    SAME(klaw_workflow_finish_decide(&run), KLAW_STEP_ENDED);
    run.cancelled = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_CANCELLED);
    run.lost = true;
    SAME(klaw_step_decide(&run, &s), KLAW_STEP_LOST);
    SAME(klaw_workflow_finish_decide(&run), KLAW_STEP_LOST);
}

/* Every combination: the sentences of the header as conditions that exclude each other. */
PLAIN(all_step_verdicts_follow_the_sentences) {
    for (unsigned bits = 0; bits < 1u << 12; bits++) {
#define BIT(n) ((bits >> (n)&1) != 0)
        klaw_workflow_run_view run = {BIT(0), BIT(1), BIT(2), BIT(3), BIT(4), BIT(5), BIT(6)};
        klaw_step_view s = {BIT(7), (klaw_step_state)(bits >> 8 & 3), BIT(10), BIT(11)};
        bool done = s.state == KLAW_STEP_DONE, there = s.known || !run.declared;
        bool stopped = run.lost || run.cancelled, twice = s.running || (s.asked && done);
        bool fresh = !stopped && !twice && there && !done;
        bool changed = !s.known && run.unasked && !run.allow_changes;
        bool holds[] = {
            [KLAW_STEP_RUN] = fresh && !run.read_only && !changed && !run.late,
            [KLAW_STEP_REPLAY] = !stopped && !twice && there && done,
            [KLAW_STEP_LOST] = run.lost,
            [KLAW_STEP_CANCELLED] = run.cancelled && !run.lost,
            [KLAW_STEP_TWICE] = !stopped && twice,
            [KLAW_STEP_ENDED] = fresh && run.read_only,
            [KLAW_STEP_UNDECLARED] = !stopped && !twice && !there,
            [KLAW_STEP_CHANGED] = fresh && !run.read_only && changed,
            [KLAW_STEP_TIMEOUT] = fresh && !run.read_only && !changed && run.late,
        };
        klaw_step_verdict v = klaw_step_decide(&run, &s);
        for (unsigned k = 0; k < sizeof holds / sizeof *holds; k++)
            SAME(holds[k], v == k);
        klaw_step_verdict f = klaw_workflow_finish_decide(&run);
        bool left_out = !run.declared && run.unasked && !run.allow_changes;
        SAME(f == KLAW_STEP_LOST, run.lost);
        SAME(f == KLAW_STEP_ENDED, !run.lost && run.read_only);
        SAME(f == KLAW_STEP_CHANGED, !run.lost && !run.read_only && left_out);
        SAME(f == KLAW_STEP_RUN, !run.lost && !run.read_only && !left_out);
    }
}

PLAIN(retries_end_with_attempts_deadline_or_cancellation) {
    klaw_step_retry r = {.backoff = {.kind = KLAW_BACKOFF_CONSTANT, .base = 10}};
    int64_t at = -1;
    r.backoff.jitter = KLAW_JITTER_NONE;
    CHECK(!klaw_step_retry_decide(&r, 1, KLAW_SYSTEM, 100, KLAW_FOREVER, 0, &at));
    r.attempts = 3;
    CHECK(klaw_step_retry_decide(&r, 2, KLAW_SYSTEM, 100, KLAW_FOREVER, 0, &at));
    SAME(at, 110);
    CHECK(!klaw_step_retry_decide(&r, 3, KLAW_SYSTEM, 100, KLAW_FOREVER, 0, &at));
    CHECK(!klaw_step_retry_decide(&r, 1, KLAW_CANCELLED, 100, KLAW_FOREVER, 0, &at));
    CHECK(!klaw_step_retry_decide(&r, 1, KLAW_SYSTEM, 100, 110, 0, &at));
    CHECK(klaw_step_retry_decide(&r, 1, KLAW_SYSTEM, 100, 111, 0, &at));
    CHECK(!klaw_step_retry_decide(&r, 1, KLAW_SYSTEM, 100, KLAW_NOWAIT, 0, &at));
    r.attempts = UINT32_MAX;
    CHECK(klaw_step_retry_decide(&r, UINT32_MAX, KLAW_SYSTEM, INT64_MAX - 3, KLAW_FOREVER, 0, &at));
    SAME(at, INT64_MAX);
}

/* --- whole histories ---
 * Runners with clocks of their own, one log that carries out what the decisions say. Crashes and jumps of the
 * wall clock come at random. The oracle knows what was kept and who got the last token. */

#define STEPS 5
#define RUNNERS 3

typedef struct runner {
    bool open;
    uint64_t token;
    int at; /* the step under way, or -1 */
    bool asked[STEPS];
} runner;

static void history(rng *r) {
    klaw_workflow_head h = {0};
    klaw_step_state log[STEPS] = {0};
    bool kept[STEPS] = {0}; /* the oracle's */
    uint64_t last = 0;
    runner who[RUNNERS] = {{0}};
    klaw_lease_clock now = clock_at("boot-0", 0, 1000000);
    for (int turn = 0; turn < 60; turn++) {
        runner *w = &who[rng_below(r, RUNNERS)];
        klaw_workflow_run_view view = {.declared = true};
        uint32_t what = rng_below(r, 100);
        if (what < 25) {
            now.since_boot += rng_below(r, 60);
            now.wall += rng_below(r, 60);
        } else if (what < 30) {
            now.wall += (int64_t)rng_below(r, 100000) - 50000;
        } else if (what < 35) { /* a crash of one, or of the machine */
            uint32_t one = rng_below(r, RUNNERS + 1);
            for (uint32_t i = 0; i < RUNNERS; i++)
                if (one == RUNNERS || one == i)
                    who[i] = (runner){0};
            if (one == RUNNERS)
                now = clock_at(rng_one_in(r, 2) ? "boot-1" : "boot-2", 0, now.wall);
        } else if (!w->open) {
            klaw_workflow_wish wish = {.takeover = rng_one_in(r, 30)};
            klaw_workflow_opening o = klaw_workflow_open_decide(&h, KLAW_WORKFLOW_SAME, wish, &now,
                                                                KLAW_OWNER_UNKNOWN, NULL);
            if (o == KLAW_OPENING_READ) {
                for (int i = 0; i < STEPS; i++)
                    CHECK(kept[i]);
                return;
            }
            if (o == KLAW_OPENING_BUSY)
                continue;
            CHECK(o == KLAW_OPENING_CREATE || o == KLAW_OPENING_RESUME ||
                  o == KLAW_OPENING_TAKE_OVER);
            h.exists = true;
            h.lease = klaw_lease_grant(&now, 50, h.lease.token + 1);
            CHECK(h.lease.token > last);
            last = h.lease.token;
            *w = (runner){.open = true, .token = last, .at = -1};
        } else if (w->at >= 0) { /* an end: the transaction looks for its token */
            if (h.lease.token == w->token) {
                SAME(w->token, last); /* nobody else has got one since */
                CHECK(!kept[w->at]);
                kept[w->at] = true;
                log[w->at] = KLAW_STEP_DONE;
                w->at = -1;
            } else {
                *w = (runner){0};
            }
        } else {
            size_t i = klaw_workflow_next(log, STEPS);
            for (size_t k = 0; k < i; k++)
                CHECK(kept[k]);
            view.lost = h.lease.token != w->token;
            if (i == STEPS) {
                if (klaw_workflow_finish_decide(&view) == KLAW_STEP_RUN) {
                    h.state = KLAW_WORKFLOW_DONE;
                    h.lease.duration = 0;
                }
                *w = (runner){0};
                continue;
            }
            i = rng_below(r, STEPS);
            klaw_step_view s = {.known = true, .state = log[i], .asked = w->asked[i]};
            klaw_step_verdict v = klaw_step_decide(&view, &s);
            if (view.lost)
                SAME(v, KLAW_STEP_LOST);
            else if (kept[i])
                SAME(v, w->asked[i] ? KLAW_STEP_TWICE : KLAW_STEP_REPLAY);
            else
                SAME(v, KLAW_STEP_RUN);
            if (v == KLAW_STEP_LOST) {
                *w = (runner){0};
                continue;
            }
            w->asked[i] = true;
            if (v == KLAW_STEP_RUN) {
                log[i] = KLAW_STEP_STARTED;
                w->at = (int)i;
            }
        }
    }
}

PLAIN(in_random_histories_no_kept_step_runs_again) {
    uint64_t seed = seed_begin(), n = rounds(100000);
    for (uint64_t i = 0; i < n; i++) {
        rng r = rng_part(seed, i);
        history(&r);
    }
}

/* Lists made of five names at random, compared name by name. */
PLAIN(random_lists_differ_where_they_differ) {
    uint64_t seed = seed_begin(), n = rounds(100000);
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    for (uint64_t i = 0; i < n; i++) {
        rng r = rng_part(seed, i);
        const char *list[2][5];
        size_t len[2];
        for (int k = 0; k < 2; k++) {
            const char *pool[5];
            memcpy(pool, names, sizeof pool);
            len[k] = rng_below(&r, 6);
            for (size_t j = 0; j < len[k]; j++) {
                uint32_t pick = rng_one_in(&r, 2) ? 0 : rng_below(&r, (uint32_t)(5 - j));
                list[k][j] = pool[pick];
                memmove(&pool[pick], &pool[pick + 1], (4 - pick) * sizeof *pool);
            }
        }
        klaw_workflow_list a = {list[0], len[0], NULL}, b = {list[1], len[1], ""};
        OK(klaw_workflow_list_check(&a, NULL));
        klaw_workflow_diff d = klaw_workflow_compare(&a, &b);
        size_t at = 0;
        while (at < len[0] && at < len[1] && list[0][at] == list[1][at])
            at++;
        if (at == len[0] && at == len[1]) {
            SAME(d.change, KLAW_WORKFLOW_SAME);
            continue;
        }
        SAME(d.at, at);
        bool gone = at < len[0], new = at < len[1];
        for (size_t j = 0; j < len[1] && at < len[0]; j++)
            gone = gone && list[1][j] != list[0][at];
        for (size_t j = 0; j < len[0] && at < len[1]; j++)
            new = new &&list[0][j] != list[1][at];
        SAME(d.change, gone && new ? KLAW_WORKFLOW_RENAMED
                       : gone      ? KLAW_WORKFLOW_REMOVED
                       : new       ? KLAW_WORKFLOW_ADDED
                                   : KLAW_WORKFLOW_MOVED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(names_have_1_to_255_bytes_of_text),
        TEST(a_list_has_good_names_no_two_the_same),
        TEST(the_first_difference_is_named),
        TEST(states_have_names),
        TEST(the_first_step_without_a_result_resumes),
        TEST(within_one_boot_the_wall_clock_does_not_matter),
        TEST(a_clock_that_was_set_back_by_more_than_a_lease_ends_it),
        TEST(a_dead_owner_holds_nothing_and_a_living_one_no_longer_than_its_lease),
        TEST(a_lease_is_renewed_when_a_third_is_over),
        TEST(random_openings_follow_the_sentences),
        TEST(each_step_verdict_has_its_case),
        TEST(all_step_verdicts_follow_the_sentences),
        TEST(retries_end_with_attempts_deadline_or_cancellation),
        TEST(in_random_histories_no_kept_step_runs_again),
        TEST(random_lists_differ_where_they_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
