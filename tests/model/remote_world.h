/* SPDX-License-Identifier: Apache-2.0 */
/* remote_world.h - a made-up world for brokers and hubs: a network that loses, repeats and reorders,
 * processes that die or stop, an actor that starts anew with or without a log; and what an oracle
 * knows of every item: who sent it, what its sender was told, who had it. */
#ifndef KLAW_TESTS_MODEL_REMOTE_WORLD_H
#define KLAW_TESTS_MODEL_REMOTE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>

#include "klaw/alloc.h"
#include "klaw/hub.h"
#include "policy/mutant.h"
#include "support/random.h"

#define HUBS 4
#define ENDS 6
#define ITEMS 512
#define TICKETS 512
#define MESSAGES 2048
#define LOGS 4096
#define MINTS 128
#define MS INT64_C(1000000)
#define SECOND INT64_C(1000000000)
#define PERMANENT 0 /* the hub that never dies and always has a receiver */

enum fate { F_NONE, F_PENDING, F_SENT, F_REFUSED, F_UNSENT, F_UNCERTAIN, F_WITHDRAWN };

typedef struct thing {
    uint8_t hub;
    uint32_t epoch; /* of its sender's identity */
    int ticket;
    uint32_t had;          /* by how many consumers, redeliveries included */
    uint32_t had_by[HUBS]; /* bits of endpoints (BROADCAST) */
    bool unmarked;         /* somebody had it without the mark */
    int64_t deadline, sent;
    bool expected[HUBS][ENDS]; /* BROADCAST: it was open before */
} thing;

typedef struct ticket {
    enum fate fate;
    int first, n, hub;
    bool whole, nowait;
} ticket;

typedef struct end {
    bool open, confirmed;
    uint64_t id;
    klaw_remote_side side;
    bool waiting, ended;
    uint64_t held[4];
    int held_item[4];
    bool held_first[4]; /* without the mark */
    int n_held;
    uint64_t missed, had;
    int last[HUBS];
} end;

typedef struct host {
    klaw_hub *h;
    bool dead, left, was_lost; /* was_lost: died, or was held for dead, once */
    uint32_t epoch;            /* of the process */
    uint32_t identity;
    int64_t stopped_until;
    end end[ENDS];
    unsigned char client[KLAW_REMOTE_ID];
} host;

typedef struct message {
    int64_t at;
    enum { M_CALL, M_REPLY, M_FAIL, M_DEATH } kind;
    int hub;
    uint32_t epoch;
    uint64_t id;
    void *data;
    size_t size;
    void **att;
    size_t n_att;
    unsigned char client[KLAW_REMOTE_ID];
} message;

typedef struct minted {
    unsigned char id[KLAW_REMOTE_ID];
    klaw_remote_side side;
} minted;

static struct world {
    rng chance;
    int64_t now;
    klaw_broker_opts opts;
    klaw_hub_opts hub_opts;
    klaw_broker *b;
    int64_t down_until;
    uint64_t boots;
    host host[HUBS];
    message msg[MESSAGES];
    int msgs;
    thing item[ITEMS];
    int items;
    ticket ticket[TICKETS];
    int tickets;
    struct open_call {
        uint64_t ticket, id;
        int hub;
        uint32_t epoch;
    } open[MESSAGES];
    int opens;
    /* the log */
    struct {
        void *data;
        size_t size;
    } log[LOGS];
    int logs;
    uint64_t log_mark[LOGS];
    int committed;
    int64_t commit_at;
    /* tokens on their way */
    minted token[8], mint[MINTS]; /* mint: all that ever were */
    int token_n, mints;
    uint64_t ids;
    /* history */
    bool faults, lossy, quiet_end;
    bool returns, restarts, deaths, deleted, no_receivers, all_closed, stops;
    int64_t attachments;
    uint32_t drop, dup, slow;
    uint64_t polls;
} w;

static jmp_buf differs;
static char difference[256];
static uint64_t seen_had, seen_again, seen_restarts, seen_renamed, seen_refused, seen_uncertain,
    seen_closed, seen_lagged, seen_withdrawn, seen_lost;

static void differ(int line, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    int n = snprintf(difference, sizeof difference, "line %d: ", line);
    vsnprintf(difference + n, sizeof difference - (size_t)n, format, ap);
    va_end(ap);
    longjmp(differs, 1);
}
#define DIFFERS(...) differ(__LINE__, __VA_ARGS__)
#define EXPECT(cond) ((cond) ? (void)0 : differ(__LINE__, "%s", #cond))

static uint32_t below(uint32_t n) {
    return rng_below(&w.chance, n);
}
static bool one_in(uint32_t n) {
    return below(n) == 0;
}
static bool bad_luck(uint32_t per_thousand) {
    return w.faults && below(1000) < per_thousand;
}
static void random_id(unsigned char *id) {
    for (int i = 0; i < KLAW_REMOTE_ID; i += 8) {
        uint64_t x = rng_next(&w.chance) | 1;
        memcpy(id + i, &x, 8);
    }
}

/* --- attachments: counted --- */
typedef struct attachment {
    int refs, item;
} attachment;
static void *att_share(void *p) {
    ((attachment *)p)->refs++;
    w.attachments++;
    return p;
}
static void att_drop(void *p) {
    attachment *a = p;
    w.attachments--;
    if (--a->refs == 0)
        free(a);
}

/* --- the network --- */
static message *msg_add(int kind, int hub, uint64_t id, int64_t delay) {
    if (w.msgs == MESSAGES)
        DIFFERS("too many messages");
    message *m = &w.msg[w.msgs++];
    *m = (message){.at = w.now + delay, .hub = hub, .epoch = w.host[hub].epoch, .id = id};
    m->kind = kind;
    return m;
}
static void msg_free(message *m) {
    for (size_t i = 0; i < m->n_att; i++)
        att_drop(m->att[i]);
    free(m->att);
    free(m->data);
    m->n_att = 0;
    m->att = NULL;
    m->data = NULL;
}
static int64_t delay(void) {
    if (!w.faults)
        return 1 + below(1000);
    return one_in(w.slow) ? below(400) * MS : below(3) * MS + below(1000);
}

static bool tracing;
static void net_call(int hub, klaw_hub_call *c) {
    if (tracing)
        fprintf(stderr, "%" PRId64 " ms: hub %d calls %d (%d), %zu bytes\n", w.now / MS, hub,
                c->kind, (int)c->id, c->size);
    bool lost = bad_luck(w.drop), twice = bad_luck(w.dup);
    w.polls += c->kind == KLAW_HUB_POLL;
    for (int copy = 0; copy < (lost ? 0 : 1 + twice); copy++) {
        message *m = msg_add(M_CALL, hub, c->id, delay());
        m->data = malloc(c->size);
        memcpy(m->data, c->data, c->size);
        m->size = c->size;
        m->att = malloc((c->attached + 1) * sizeof(void *));
        m->n_att = c->attached;
        for (size_t i = 0; i < c->attached; i++)
            m->att[i] = att_share(c->attachments[i]);
    }
    if (lost)
        msg_add(M_FAIL, hub, c->id, delay());
    for (size_t i = 0; i < c->attached; i++)
        att_drop(c->attachments[i]);
    klaw_remote_free(c->data);
    klaw_remote_free(c->attachments);
}

static void net_answers(void) {
    for (klaw_broker_answer a; w.b && klaw_broker_next(w.b, &a);) {
        int i = 0;
        while (i < w.opens && w.open[i].ticket != a.ticket)
            i++;
        if (i == w.opens)
            DIFFERS("an answer to no call, or a second one");
        struct open_call c = w.open[i];
        w.open[i] = w.open[--w.opens];
        bool lost = bad_luck(w.drop);
        message *m = msg_add(lost ? M_FAIL : M_REPLY, c.hub, c.id, delay());
        m->epoch = c.epoch;
        m->data = malloc(a.size + 1);
        memcpy(m->data, a.data, a.size);
        m->size = a.size;
        m->att = malloc((a.attached + 1) * sizeof(void *));
        m->n_att = a.attached;
        for (size_t j = 0; j < a.attached; j++)
            m->att[j] = a.attachments[j];
        klaw_remote_free(a.data);
        klaw_remote_free(a.attachments);
    }
}

/* --- sends --- */
/* A sender hears what became of its ticket. */
static void fate(int t, enum fate f) {
    EXPECT(t > 0 && t <= w.tickets && w.ticket[t].fate == F_PENDING);
    w.ticket[t].fate = f;
    if (f == F_REFUSED)
        EXPECT(w.ticket[t].nowait ||
               (w.ticket[t].whole && w.opts.capacity > 0 && w.ticket[t].n > w.opts.capacity));
    if (f == F_REFUSED || f == F_UNSENT)
        for (int i = 0; i < w.ticket[t].n; i++)
            EXPECT(w.item[w.ticket[t].first + i].had == 0);
    if (f == F_UNSENT)
        EXPECT(w.all_closed || w.deleted || w.deaths || w.restarts);
    seen_refused += f == F_REFUSED;
    seen_uncertain += f == F_UNCERTAIN;
}

/* --- the log --- */
static void log_write(void) {
    void *data;
    size_t size;
    uint64_t mark;
    while (w.b && w.opts.durable && klaw_broker_journal(w.b, &data, &size, &mark)) {
        if (w.logs == LOGS)
            DIFFERS("too much log");
        w.log[w.logs].data = data;
        w.log[w.logs].size = size;
        w.log_mark[w.logs++] = mark;
        if (!w.commit_at)
            w.commit_at = w.now + (w.faults ? below(20) * MS : 1000);
    }
}
static void log_commit(int upto) {
    if (upto > w.committed)
        w.committed = upto;
    klaw_broker_committed(w.b, w.log_mark[w.committed - 1]);
    w.commit_at = 0;
    if (w.committed < w.logs)
        w.commit_at = w.now + 1 + below(5) * MS;
    if (w.committed == w.logs && one_in(20)) {
        void *data;
        size_t size;
        log_write();
        if (w.committed < w.logs)
            return;
        if (klaw_broker_snapshot(w.b, &data, &size) != KLAW_OK)
            DIFFERS("no snapshot");
        uint64_t mark = w.log_mark[w.logs - 1];
        for (int i = 0; i < w.logs; i++)
            klaw_remote_free(w.log[i].data);
        w.log[0].data = data;
        w.log[0].size = size;
        w.log_mark[0] = mark;
        w.logs = w.committed = 1;
    }
}

/* --- the actor --- */
static void broker_start(void) {
    w.opts.boot = ++w.boots;
    w.opts.restarted = w.boots > 1;
    if (klaw_broker_new(&w.opts, &w.b) != KLAW_OK)
        DIFFERS("no broker");
    for (int i = 0; i < w.logs; i++) {
        klaw_err e = i == 0 ? klaw_broker_restore(w.b, w.log[i].data, w.log[i].size)
                            : klaw_broker_replay(w.b, w.log[i].data, w.log[i].size);
        if (e != KLAW_OK)
            DIFFERS("record %d: %s", i, klaw_err_name(e));
    }
    for (int i = 0; i < w.logs; i++) /* marks begin anew */
        w.log_mark[i] = 0;
    klaw_broker_tick(w.b, w.now, w.now);
}

static void broker_kill(void) {
    klaw_broker_free(w.b);
    w.b = NULL;
    w.restarts = true;
    seen_restarts++;
    while (w.logs > w.committed)
        klaw_remote_free(w.log[--w.logs].data);
    w.commit_at = 0;
    for (int i = 0; i < w.opens; i++) {
        message *m = msg_add(M_FAIL, w.open[i].hub, w.open[i].id, delay());
        m->epoch = w.open[i].epoch;
    }
    w.opens = 0;
    w.down_until = w.now + below(300) * MS;
}

static bool host_runs(const host *h) {
    return h->h && !h->dead && w.now >= h->stopped_until;
}

static void deliver(message m) {
    host *h = &w.host[m.hub];
    if (tracing)
        fprintf(stderr, "%" PRId64 " ms: hub %d %s (%d), %zu bytes, status %d\n", w.now / MS, m.hub,
                m.kind == M_CALL    ? "call arrives"
                : m.kind == M_REPLY ? "reply"
                : m.kind == M_FAIL  ? "fails"
                                    : "death",
                (int)m.id, m.size, m.kind == M_REPLY ? ((unsigned char *)m.data)[1] : -1);
    if (m.kind == M_CALL) {
        if (!w.b) {
            message *f = msg_add(M_FAIL, m.hub, m.id, delay());
            f->epoch = m.epoch;
            msg_free(&m);
            return;
        }
        uint64_t t = 0;
        klaw_err e = klaw_broker_call(w.b, w.now, w.now, m.data, m.size, m.att, m.n_att, &t, NULL);
        if (e != KLAW_OK)
            DIFFERS("a call is answered %s", klaw_err_name(e));
        m.n_att = 0;
        w.open[w.opens++] = (struct open_call){t, m.id, m.hub, m.epoch};
        if (w.opens == MESSAGES)
            DIFFERS("too many calls");
    } else if (m.kind == M_DEATH) {
        if (w.b)
            klaw_broker_client_died(w.b, w.now, m.client);
    } else if (h->h && h->epoch == m.epoch) {
        if (m.kind == M_REPLY) {
            klaw_err e = klaw_hub_reply(h->h, w.now, m.id, m.data, m.size, m.att, m.n_att);
            if (e != KLAW_OK)
                DIFFERS("a reply is answered %s", klaw_err_name(e));
            m.n_att = 0;
        } else {
            klaw_hub_failed(h->h, w.now, m.id, false, "");
        }
    }
    msg_free(&m);
}

/* The earliest message that can arrive now. */
static bool deliver_one(void) {
    int best = -1;
    for (int i = 0; i < w.msgs; i++) {
        message *m = &w.msg[i];
        bool to_hub = m->kind == M_REPLY || m->kind == M_FAIL;
        if (m->at > w.now || (to_hub && w.host[m->hub].h && !w.host[m->hub].dead &&
                              w.now < w.host[m->hub].stopped_until))
            continue;
        if (best < 0 || m->at < w.msg[best].at)
            best = i;
    }
    if (best < 0)
        return false;
    message m = w.msg[best];
    w.msg[best] = w.msg[--w.msgs];
    deliver(m);
    return true;
}

static int64_t next_time(void) {
    int64_t at = INT64_MAX;
#define SOONER(x)              \
    do {                       \
        int64_t sooner_ = (x); \
        if (sooner_ < at)      \
            at = sooner_;      \
    } while (0)
    for (int i = 0; i < w.msgs; i++) {
        const message *m = &w.msg[i];
        const host *h = &w.host[m->hub];
        bool to_hub = (m->kind == M_REPLY || m->kind == M_FAIL) && h->h && !h->dead;
        SOONER(to_hub && h->stopped_until > m->at ? h->stopped_until : m->at);
    }
    for (int i = 0; i < HUBS; i++)
        if (w.host[i].h && !w.host[i].dead) {
            int64_t d = klaw_hub_deadline(w.host[i].h);
            if (d != INT64_MAX)
                SOONER(d > w.host[i].stopped_until ? d : w.host[i].stopped_until);
            if (w.host[i].stopped_until > w.now)
                SOONER(w.host[i].stopped_until);
        }
    if (w.b)
        SOONER(klaw_broker_deadline(w.b));
    else
        SOONER(w.down_until);
    if (w.commit_at && w.b)
        SOONER(w.commit_at);
    return at;
}

/* What the world looks like, for people. */
static void show(void) {
    static const char *const kinds[] = {"queue", "broadcast", "watch"};
    klaw_broker_stats s = {0};
    if (w.b)
        klaw_broker_look(w.b, w.now, &s);
    fprintf(stderr,
            "%s, ack %d, capacity %" PRId64 ", durable %d, deaths %d, restarts %d, returns %d\n"
            "broker: senders %" PRIu64 " receivers %" PRIu64 " queued %" PRIu64 " leased %" PRIu64
            " clients %" PRIu64 " parked %" PRIu64 " closed %d %d deleted %d gathering %d\n",
            kinds[w.opts.kind], w.opts.ack, w.opts.capacity, w.opts.durable, w.deaths, w.restarts,
            w.returns, s.senders, s.receivers, s.queued, s.leased, s.clients, s.parked,
            s.senders_closed, s.receivers_closed, s.deleted, s.gathering);
    for (int i = 0; i < HUBS; i++) {
        const host *h = &w.host[i];
        klaw_hub_state t;
        if (!h->h)
            continue;
        klaw_hub_look(h->h, &t);
        fprintf(stderr,
                "hub %d: idle %d attached %d closed %d %d framed %" PRIu64 " accepted %" PRIu64
                " unsent %" PRIu64 " kept %" PRIu64 " ready %" PRIu64 " held %" PRIu64 ":",
                i, klaw_hub_idle(h->h), t.attached, t.closed_to_send, t.closed_to_receive, t.framed,
                t.accepted, t.unsent, t.retained_bytes, t.ready, t.held);
        for (int j = 0; j < ENDS; j++)
            if (h->end[j].open)
                fprintf(stderr, " %d %s waiting %d ended %d held %d;", j,
                        h->end[j].side ? "receiver" : "sender", h->end[j].waiting, h->end[j].ended,
                        h->end[j].n_held);
        fprintf(stderr, "\n");
    }
    fprintf(stderr, "%" PRId64 " ms; due: broker %" PRId64, w.now / MS,
            w.b ? klaw_broker_deadline(w.b) / MS : 0);
    for (int i = 0; i < HUBS; i++)
        if (w.host[i].h)
            fprintf(stderr, ", hub %" PRId64, klaw_hub_deadline(w.host[i].h) / MS);
    fprintf(stderr, "\n");
    for (int t = 1; t <= w.tickets; t++)
        fprintf(stderr, "%d:%d/%d ", w.ticket[t].first, w.ticket[t].n, w.ticket[t].fate);
    fprintf(stderr, "\n");
}

#endif
