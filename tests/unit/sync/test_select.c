/* SPDX-License-Identifier: Apache-2.0 */
/* test_select.c - wait for the first of several operations: exactly one happens, the others have
 * no effect at all.
 *
 * Tried with these bugs seeded into select.c: a loser that stays linked, the first ready case in
 * source order, a recheck left out, a timer case that is taken for the deadline. */
#include "support/chans.h"

/* n cases; the one that was chosen, or the answer. */
static klaw_err sel(klaw_case *c, size_t n, size_t *chosen, klaw_deadline d) {
    *chosen = 9999;
    klaw_err e = klaw_select(c, n, chosen, d);
    CHECK(e == KLAW_OK ? *chosen < n : true);
    return e;
}

typedef struct selecting {
    job job;
    klaw_case c[64];
    uint64_t v[64];
    size_t n, chosen;
    klaw_deadline d;
} selecting;

static klaw_err select_job(void *arg) {
    selecting *s = arg;
    return sel(s->c, s->n, &s->chosen, s->d);
}
static selecting *select_new(klaw_deadline d) {
    selecting *s = calloc(1, sizeof *s);
    CHECK(s);
    s->d = d;
    return s;
}
static void add_recv(selecting *s, pair p) {
    s->c[s->n] = klaw_case_recv(p.rx, &s->v[s->n]);
    s->n++;
}
static void add_send(selecting *s, pair p, uint64_t v) {
    s->v[s->n] = v;
    s->c[s->n] = klaw_case_send(p.tx, &s->v[s->n]);
    s->n++;
}
static selecting *select_go(selecting *s) {
    job_start(&s->job, select_job, s);
    return s;
}

SPEC_PLAIN(select_refuses_bad_arguments) {
    static klaw_case many[KLAW_SELECT_MAX + 1];
    uint64_t v = 0;
    size_t chosen;
    pair p = chan(1);
    klaw_case c = {0};
    GIVES(klaw_select(NULL, 0, &chosen, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_select(&c, 0, &chosen, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_select(NULL, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_select(&c, 1, NULL, KLAW_NOWAIT), KLAW_INVALID);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_FOREVER), KLAW_INVALID); /* only NONE */
    GIVES(klaw_select(many, KLAW_SELECT_MAX, &chosen, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_select(many, KLAW_SELECT_MAX + 1, &chosen, KLAW_NOWAIT), KLAW_LIMIT);
    c = klaw_case_recv(NULL, &v);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    c = klaw_case_recv(p.rx, NULL);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    c = klaw_case_send(NULL, &v);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    c = klaw_case_send(p.tx, NULL);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    c = klaw_case_scope(NULL);
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    c.kind = (klaw_case_kind)77;
    GIVES(klaw_select(&c, 1, &chosen, KLAW_NOWAIT), KLAW_INVALID);
    pair_free(p);
}

SPEC(select_with_nothing_to_wait_for_still_has_its_deadline) {
    size_t chosen;
    klaw_case none[3] = {{0}, {0}, {0}};
    GIVES(klaw_select(none, 3, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_select(none, 3, &chosen, PAST), KLAW_TIMEOUT);
    GIVES(klaw_select(none, 3, &chosen, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
}

SPEC(select_takes_the_case_that_is_ready) {
    pair a = chan(1), b = chan(1);
    uint64_t va = 0xa, vb = 0xb, vs = 7;
    size_t chosen;
    klaw_case c[3] = {klaw_case_recv(a.rx, &va), klaw_case_recv(b.rx, &vb), {0}};
    GIVES(sel(c, 3, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(sel(c, 3, &chosen, PAST), KLAW_TIMEOUT);
    GIVES(sel(c, 3, &chosen, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    OK(put(b.tx, 5, KLAW_NOWAIT));
    c[1].err = KLAW_CORRUPT;
    OK(sel(c, 3, &chosen, KLAW_NOWAIT));
    SAME(chosen, 1);
    OK(c[1].err);
    SAME(vb, 5);
    SAME(va, 0xa);
    c[0] = klaw_case_send(a.tx, &vs);
    OK(sel(c, 3, &chosen, KLAW_FOREVER));
    SAME(chosen, 0);
    SAME(next_of(a.rx), 7);
    pair_free(a);
    pair_free(b);
}

SPEC(select_commits_exactly_one_and_the_losers_have_no_effect) {
    pair p[6];
    uint64_t v[6], total = 0;
    size_t chosen;
    klaw_case c[6];
    for (int i = 0; i < 6; i++) {
        p[i] = chan(4);
        if (i < 3)
            for (uint64_t k = 0; k < 2; k++)
                OK(put(p[i].tx, k, KLAW_NOWAIT));
    }
    for (int round = 0; round < 6; round++) {
        uint64_t before = 0, after = 0;
        for (int i = 0; i < 6; i++) {
            v[i] = 77;
            c[i] = i < 3 ? klaw_case_recv(p[i].rx, &v[i]) : klaw_case_send(p[i].tx, &v[i]);
            before += stats_of(p[i]).total_sent + stats_of(p[i]).total_received;
        }
        OK(sel(c, 6, &chosen, KLAW_NOWAIT));
        for (int i = 0; i < 6; i++) {
            after += stats_of(p[i]).total_sent + stats_of(p[i]).total_received;
            if ((size_t)i != chosen)
                SAME(v[i], 77);
        }
        SAME(after, before + 1);
        total += 1;
    }
    SAME(total, 6);
    for (int i = 0; i < 6; i++) {
        SAME(WAITING_SENDERS(p[i]) + WAITING_RECEIVERS(p[i]), 0);
        pair_free(p[i]);
    }
}

SPEC(select_that_waits_is_woken_by_one_case_and_leaves_the_others) {
    for (int wake = 0; wake < 4; wake++) {
        pair p[4];
        selecting *s = select_new(KLAW_FOREVER);
        for (int i = 0; i < 4; i++) {
            p[i] = chan(1);
            if (i % 2) {
                OK(put(p[i].tx, 50, KLAW_NOWAIT));
                add_send(s, p[i], 60 + (uint64_t)i);
            } else {
                add_recv(s, p[i]);
            }
        }
        select_go(s);
        for (int i = 0; i < 4; i++)
            UNTIL(WAITING_SENDERS(p[i]) + WAITING_RECEIVERS(p[i]) == 1);
        if (wake % 2)
            SAME(next_of(p[wake].rx), 50);
        else
            OK(put(p[wake].tx, 70, KLAW_NOWAIT));
        OK(job_end(&s->job));
        SAME(s->chosen, wake);
        OK(s->c[wake].err);
        if (wake % 2)
            SAME(next_of(p[wake].rx), 60 + wake);
        else
            SAME(s->v[wake], 70);
        free(s);
        for (int i = 0; i < 4; i++) {
            SAME(WAITING_SENDERS(p[i]) + WAITING_RECEIVERS(p[i]), 0);
            SAME(stats_of(p[i]).queue_size, i % 2 && i != wake);
            pair_free(p[i]);
        }
    }
}

SPEC(select_closed_channels_count_as_ready) {
    pair a = chan(1), b = chan(1);
    uint64_t v = 3;
    size_t chosen;
    klaw_case c[2] = {klaw_case_recv(a.rx, &v), {0}};
    klaw_sender_close(a.tx);
    OK(sel(c, 2, &chosen, KLAW_NOWAIT));
    SAME(chosen, 0);
    GIVES(c[0].err, KLAW_CLOSED);
    SAME(v, 3);
    klaw_receiver_close(b.rx);
    c[0] = klaw_case_send(b.tx, &v);
    OK(sel(c, 2, &chosen, KLAW_FOREVER));
    GIVES(c[0].err, KLAW_CLOSED);
    klaw_receiver_close(a.rx); /* its own handle */
    c[0] = klaw_case_recv(a.rx, &v);
    OK(sel(c, 1, &chosen, KLAW_FOREVER));
    GIVES(c[0].err, KLAW_CLOSED);
    pair_free(a);
    pair_free(b);
}

SPEC(select_is_woken_by_close_of_the_peer_and_of_its_own_handle) {
    for (int how = 0; how < 4; how++) {
        pair a = chan(1), b = chan(1);
        selecting *s = select_new(KLAW_FOREVER);
        OK(put(b.tx, 1, KLAW_NOWAIT));
        add_recv(s, a);
        add_send(s, b, 2);
        select_go(s);
        UNTIL(WAITING_RECEIVERS(a) == 1 && WAITING_SENDERS(b) == 1);
        if (how == 0)
            klaw_sender_close(a.tx);
        else if (how == 1)
            klaw_receiver_close(a.rx);
        else if (how == 2)
            klaw_sender_close(b.tx);
        else
            klaw_receiver_close(b.rx);
        OK(job_end(&s->job));
        SAME(s->chosen, how / 2);
        GIVES(s->c[how / 2].err, KLAW_CLOSED);
        free(s);
        pair_free(a);
        pair_free(b);
    }
}

SPEC(select_chooses_evenly_among_ready_cases) {
    enum { N = 5, ROUNDS = 5000 };
    pair p[N];
    uint64_t v = 1, hits[N] = {0};
    size_t chosen;
    klaw_case c[N];
    for (int i = 0; i < N; i++) {
        p[i] = chan(KLAW_UNBOUNDED);
        if (i % 2)
            for (uint64_t k = 0; k < ROUNDS; k++)
                OK(put(p[i].tx, k, KLAW_NOWAIT));
    }
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < N; i++)
            c[i] = i % 2 ? klaw_case_recv(p[i].rx, &v) : klaw_case_send(p[i].tx, &v);
        OK(sel(c, N, &chosen, KLAW_NOWAIT));
        hits[chosen]++;
    }
    for (int i = 0; i < N; i++) { /* 1000 each; the bounds are more than ten deviations away */
        CHECK(hits[i] > 650 && hits[i] < 1350);
        pair_free(p[i]);
    }
}

SPEC(select_never_meets_itself) {
    pair p = chan(KLAW_RENDEZVOUS), q = chan(1);
    uint64_t in = 1, out = 2;
    size_t chosen;
    klaw_case c[2] = {klaw_case_send(p.tx, &in), klaw_case_recv(p.rx, &out)};
    GIVES(sel(c, 2, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(sel(c, 2, &chosen, KLAW_WITHIN(KLAW_MS(2))), KLAW_TIMEOUT);
    SAME(out, 2);
    SAME(stats_of(p).total_sent, 0);
    c[0] = klaw_case_recv(q.rx, &out);
    c[1] = klaw_case_send(q.tx, &in);
    OK(sel(c, 2, &chosen, KLAW_FOREVER)); /* into the buffer, not to itself */
    SAME(chosen, 1);
    SAME(stats_of(q).queue_size, 1);
    pair_free(p);
    pair_free(q);
}

SPEC(select_on_both_sides_of_one_channel_meets_another_one_that_does) {
    pair p = chan(KLAW_RENDEZVOUS);
    for (int i = 0; i < 300; i++) {
        selecting *s[2];
        for (int k = 0; k < 2; k++) {
            s[k] = select_new(KLAW_FOREVER);
            add_send(s[k], p, 10 + (uint64_t)k);
            add_recv(s[k], p);
            select_go(s[k]);
        }
        OK(job_end(&s[0]->job));
        OK(job_end(&s[1]->job));
        CHECK(s[0]->chosen + s[1]->chosen == 1);
        int rx = s[0]->chosen == 1 ? 0 : 1;
        SAME(s[rx]->v[1], 11 - rx);
        free(s[0]);
        free(s[1]);
    }
    SAME(stats_of(p).total_sent, 300);
    pair_free(p);
}

SPEC(select_timer_case_is_ready_when_its_time_has_passed) {
    pair p = chan(1);
    uint64_t v = 0;
    size_t chosen;
    klaw_case c[3] = {klaw_case_recv(p.rx, &v), klaw_case_timer(PAST), {0}};
    OK(sel(c, 3, &chosen, KLAW_NOWAIT));
    SAME(chosen, 1);
    OK(c[1].err);
    int64_t from = klaw_now();
    c[1] = klaw_case_timer(KLAW_WITHIN(KLAW_MS(3)));
    GIVES(sel(c, 3, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    OK(sel(c, 3, &chosen, KLAW_FOREVER));
    SAME(chosen, 1);
    CHECK(klaw_now() - from >= KLAW_MS(3));
    c[1] = klaw_case_timer(klaw_after(KLAW_MS(2)));
    c[2] = klaw_case_timer(klaw_after(KLAW_S(100)));
    OK(sel(c, 3, &chosen, KLAW_FOREVER));
    SAME(chosen, 1);
    c[1] = klaw_case_timer(KLAW_FOREVER); /* never */
    GIVES(sel(c, 3, &chosen, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    OK(put(p.tx, 4, KLAW_NOWAIT));
    c[1] = klaw_case_timer(klaw_after(KLAW_S(100)));
    OK(sel(c, 3, &chosen, KLAW_FOREVER));
    SAME(chosen, 0);
    pair_free(p);
}

SPEC(select_deadline_ends_the_wait_and_leaves_nothing) {
    pair a = chan(1), b = chan(KLAW_RENDEZVOUS);
    uint64_t v = 1;
    size_t chosen;
    klaw_case c[2] = {klaw_case_recv(a.rx, &v), klaw_case_send(b.tx, &v)};
    int64_t from = klaw_now();
    GIVES(sel(c, 2, &chosen, klaw_after(KLAW_MS(3))), KLAW_TIMEOUT);
    CHECK(klaw_now() - from >= KLAW_MS(3));
    SAME(WAITING_RECEIVERS(a) + WAITING_SENDERS(b), 0);
    GIVES(nothing_of(b.rx, KLAW_NOWAIT), KLAW_EMPTY);
    pair_free(a);
    pair_free(b);
}

SPEC(select_takes_up_to_its_limit_of_cases) {
    static klaw_case c[KLAW_SELECT_MAX];
    static pair p[40];
    uint64_t v = 0;
    size_t chosen;
    memset(c, 0, sizeof c);
    for (int i = 0; i < 40; i++)
        p[i] = chan(1);
    for (int i = 0; i < KLAW_SELECT_MAX; i++)
        c[i] = klaw_case_recv(p[i % 40].rx, &v); /* each channel many times */
    GIVES(sel(c, KLAW_SELECT_MAX, &chosen, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(sel(c, KLAW_SELECT_MAX, &chosen, KLAW_WITHIN(KLAW_MS(1))), KLAW_TIMEOUT);
    OK(put(p[23].tx, 8, KLAW_NOWAIT));
    OK(sel(c, KLAW_SELECT_MAX, &chosen, KLAW_FOREVER));
    SAME(chosen % 40, 23);
    SAME(v, 8);
    for (int i = 0; i < 40; i++) {
        SAME(WAITING_RECEIVERS(p[i]), 0);
        pair_free(p[i]);
    }
}

SPEC(select_of_more_than_sixteen_cases_waits_and_wakes) {
    for (size_t n = 15; n <= 64; n += 7) {
        pair p[64];
        selecting *s = select_new(KLAW_FOREVER);
        for (size_t i = 0; i < n; i++) {
            p[i] = chan(1);
            add_recv(s, p[i]);
        }
        select_go(s);
        for (size_t i = 0; i < n; i++)
            UNTIL(WAITING_RECEIVERS(p[i]) == 1);
        OK(put(p[n - 1].tx, n, KLAW_NOWAIT));
        OK(job_end(&s->job));
        SAME(s->chosen, n - 1);
        SAME(s->v[n - 1], n);
        free(s);
        for (size_t i = 0; i < n; i++)
            pair_free(p[i]);
    }
}

SPEC(select_may_name_one_channel_twice) {
    pair p = chan(1);
    selecting *s = select_new(KLAW_FOREVER);
    add_recv(s, p);
    add_recv(s, p);
    select_go(s);
    UNTIL(WAITING_RECEIVERS(p) == 2);
    OK(put(p.tx, 6, KLAW_NOWAIT));
    OK(job_end(&s->job));
    SAME(s->v[s->chosen], 6);
    SAME(s->v[1 - s->chosen], 0);
    SAME(WAITING_RECEIVERS(p), 0);
    free(s);
    OK(put(p.tx, 1, KLAW_NOWAIT));
    s = select_new(KLAW_FOREVER);
    add_send(s, p, 2);
    add_send(s, p, 3);
    select_go(s);
    UNTIL(WAITING_SENDERS(p) == 2);
    SAME(next_of(p.rx), 1);
    OK(job_end(&s->job));
    SAME(next_of(p.rx), 2 + s->chosen);
    GIVES(nothing_of(p.rx, KLAW_NOWAIT), KLAW_EMPTY); /* one of them */
    free(s);
    pair_free(p);
}

SPEC(select_reports_lag_and_failed_shares_as_the_operation_would) {
    klaw_broadcast_opts o = {.capacity = 1};
    pair p;
    uint64_t v = 5;
    size_t chosen;
    OK(klaw_broadcast(&klaw_u64, &o, &p.tx, &p.rx));
    klaw_case c = klaw_case_recv(p.rx, &v);
    for (uint64_t i = 0; i < 3; i++)
        OK(put(p.tx, i, KLAW_NOWAIT));
    OK(sel(&c, 1, &chosen, KLAW_FOREVER));
    GIVES(c.err, KLAW_LAGGED);
    SAME(klaw_receiver_missed(p.rx), 2);
    SAME(v, 5);
    OK(sel(&c, 1, &chosen, KLAW_FOREVER));
    OK(c.err);
    SAME(v, 2);
    pair_free(p);
    counted one = counted_make(), got = {0};
    OK(klaw_broadcast(&counted_type, &o, &p.tx, &p.rx));
    OK(klaw_send(p.tx, &one, KLAW_NOWAIT));
    c = klaw_case_recv(p.rx, &got);
    atomic_store(&counted_fail_shares, 1);
    OK(sel(&c, 1, &chosen, KLAW_FOREVER));
    GIVES(c.err, KLAW_NOMEM);
    OK(sel(&c, 1, &chosen, KLAW_NOWAIT));
    OK(c.err);
    counted_drop(&got);
    pair_free(p);
    SAME(counted_alive(), 0);
}

SPEC(select_works_on_every_kind_that_can_stand_in_it) {
    uint64_t one = 1;
    pair p[4];
    klaw_broadcast_opts o = {.capacity = 2, .lag = KLAW_LAG_WAIT};
    p[0] = chan(KLAW_RENDEZVOUS);
    OK(klaw_oneshot(&klaw_u64, &p[1].tx, &p[1].rx));
    OK(klaw_broadcast(&klaw_u64, &o, &p[2].tx, &p[2].rx));
    OK(klaw_watch(&klaw_u64, &one, &p[3].tx, &p[3].rx));
    pair never = chan(1);
    for (int k = 0; k < 4; k++) {
        selecting *s = select_new(KLAW_FOREVER);
        add_recv(s, never);
        add_recv(s, p[k]);
        select_go(s);
        UNTIL(WAITING_RECEIVERS(p[k]) == 1);
        OK(put(p[k].tx, 10 + (uint64_t)k, KLAW_FOREVER));
        OK(job_end(&s->job));
        SAME(s->chosen, 1);
        OK(s->c[1].err);
        SAME(s->v[1], 10 + k);
        SAME(WAITING_RECEIVERS(p[k]) + WAITING_RECEIVERS(never), 0);
        free(s);
    }
    for (int i = 0; i < 2; i++) /* fills the broadcast */
        OK(put(p[2].tx, 1, KLAW_NOWAIT));
    selecting *s = select_new(KLAW_FOREVER);
    add_recv(s, never);
    add_send(s, p[2], 33);
    select_go(s);
    UNTIL(WAITING_SENDERS(p[2]) == 1);
    SAME(next_of(p[2].rx), 1);
    OK(job_end(&s->job));
    SAME(s->chosen, 1);
    SAME(next_of(p[2].rx), 1);
    SAME(next_of(p[2].rx), 33);
    free(s);
    pair_free(never);
    for (int i = 0; i < 4; i++)
        pair_free(p[i]);
}

static klaw_err scope_watcher(void *arg) {
    selecting *s = arg;
    return sel(s->c, s->n, &s->chosen, KLAW_FOREVER);
}

SPEC_FIBERS(select_scope_case_is_ready_when_the_scope_is_cancelled) {
    klaw_scope *other;
    pair p = chan(1);
    OK(klaw_scope_open(NULL, &other));
    klaw_scope_cancel(other, "enough");
    GIVES(klaw_scope_close(klaw_scope_ref(other)), KLAW_CANCELLED);
    selecting *s = select_new(KLAW_FOREVER);
    add_recv(s, p);
    s->c[s->n++] = klaw_case_scope(other);
    OK(scope_watcher(s));
    SAME(s->chosen, 1);
    OK(s->c[1].err);
    free(s);
    klaw_scope_unref(other);
    pair_free(p);
}

static klaw_err open_and_cancel(void *arg) {
    klaw_scope *_Atomic *out = arg;
    klaw_scope *s;
    OK(klaw_scope_open(NULL, &s));
    klaw_scope_ref(s);
    atomic_store(out, s);
    UNTIL(klaw_scope_cancelled(s));
    GIVES(klaw_scope_close(s), KLAW_CANCELLED);
    return KLAW_OK;
}

SPEC_FIBERS(select_wakes_when_another_scope_is_cancelled) {
    klaw_scope *_Atomic there = NULL;
    pair p = chan(1);
    job *opener = start(open_and_cancel, (void *)&there);
    UNTIL(atomic_load(&there));
    selecting *s = select_new(KLAW_FOREVER);
    add_recv(s, p);
    s->c[s->n++] = klaw_case_scope(there);
    select_go(s);
    UNTIL(WAITING_RECEIVERS(p) == 1);
    klaw_scope_cancel(there, NULL);
    OK(job_end(&s->job));
    SAME(s->chosen, 1);
    OK(ended(opener));
    klaw_scope_unref(there);
    free(s);
    pair_free(p);
}

SPEC_FIBERS(select_cancelled_does_nothing) {
    pair a = chan(1), b = chan(1);
    selecting *s = select_new(KLAW_FOREVER);
    OK(put(b.tx, 1, KLAW_NOWAIT));
    add_recv(s, a);
    add_send(s, b, 2);
    select_go(s);
    UNTIL(WAITING_RECEIVERS(a) == 1 && WAITING_SENDERS(b) == 1);
    klaw_fiber_cancel(s->job.fiber);
    GIVES(job_end(&s->job), KLAW_CANCELLED);
    SAME(WAITING_RECEIVERS(a) + WAITING_SENDERS(b), 0);
    SAME(next_of(b.rx), 1);
    GIVES(nothing_of(b.rx, KLAW_NOWAIT), KLAW_EMPTY);
    free(s);
    pair_free(a);
    pair_free(b);
}

/* --- many selects on both sides --- */
typedef struct crowd {
    pair p[4];
    _Atomic uint64_t sent, received, sum_in, sum_out;
} crowd;

static klaw_err crowd_member(void *arg) {
    crowd *c = arg;
    for (uint64_t i = 1; i <= 1500; i++) {
        uint64_t out = i, in[4] = {0};
        klaw_case cs[8];
        size_t chosen;
        for (int k = 0; k < 4; k++) {
            cs[k] = klaw_case_send(c->p[k].tx, &out);
            cs[4 + k] = klaw_case_recv(c->p[3 - k].rx, &in[k]);
        }
        OK(sel(cs, 8, &chosen, i % 5 ? KLAW_FOREVER : KLAW_WITHIN(KLAW_S(50))));
        OK(cs[chosen].err);
        if (chosen < 4) {
            atomic_fetch_add(&c->sent, 1);
            atomic_fetch_add(&c->sum_out, out);
        } else {
            atomic_fetch_add(&c->received, 1);
            atomic_fetch_add(&c->sum_in, in[chosen - 4]);
        }
    }
    return KLAW_OK;
}

SPEC(select_of_many_hosts_on_many_channels_loses_nothing) {
    static const int64_t caps[4] = {1, 3, 100, KLAW_UNBOUNDED};
    crowd c = {0};
    job *j[6];
    for (int i = 0; i < 4; i++)
        c.p[i] = chan(caps[i]);
    for (int i = 0; i < 6; i++)
        j[i] = start(crowd_member, &c);
    for (int i = 0; i < 6; i++)
        OK(ended(j[i]));
    uint64_t v;
    for (int i = 0; i < 4; i++) {
        SAME(WAITING_SENDERS(c.p[i]) + WAITING_RECEIVERS(c.p[i]), 0);
        while (take(c.p[i].rx, &v, KLAW_NOWAIT) == KLAW_OK) {
            c.received++;
            c.sum_in += v;
        }
        pair_free(c.p[i]);
    }
    SAME(c.sent, c.received);
    SAME(c.sum_in, c.sum_out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(select_refuses_bad_arguments),
        cmocka_unit_test(select_with_nothing_to_wait_for_still_has_its_deadline),
        cmocka_unit_test(select_takes_the_case_that_is_ready),
        cmocka_unit_test(select_commits_exactly_one_and_the_losers_have_no_effect),
        cmocka_unit_test(select_that_waits_is_woken_by_one_case_and_leaves_the_others),
        cmocka_unit_test(select_closed_channels_count_as_ready),
        cmocka_unit_test(select_is_woken_by_close_of_the_peer_and_of_its_own_handle),
        cmocka_unit_test(select_chooses_evenly_among_ready_cases),
        cmocka_unit_test(select_never_meets_itself),
        cmocka_unit_test(select_on_both_sides_of_one_channel_meets_another_one_that_does),
        cmocka_unit_test(select_timer_case_is_ready_when_its_time_has_passed),
        cmocka_unit_test(select_deadline_ends_the_wait_and_leaves_nothing),
        cmocka_unit_test(select_takes_up_to_its_limit_of_cases),
        cmocka_unit_test(select_of_more_than_sixteen_cases_waits_and_wakes),
        cmocka_unit_test(select_may_name_one_channel_twice),
        cmocka_unit_test(select_reports_lag_and_failed_shares_as_the_operation_would),
        cmocka_unit_test(select_works_on_every_kind_that_can_stand_in_it),
        cmocka_unit_test(select_scope_case_is_ready_when_the_scope_is_cancelled),
        cmocka_unit_test(select_wakes_when_another_scope_is_cancelled),
        cmocka_unit_test(select_cancelled_does_nothing),
        cmocka_unit_test(select_of_many_hosts_on_many_channels_loses_nothing),
    };
    return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
