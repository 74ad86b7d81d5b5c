/* SPDX-License-Identifier: Apache-2.0 */
/* remote.h - a broker and some hubs over a network that loses nothing, for tests: calls arrive at once
 * and in order, a durable broker's log is kept in memory, attachments count their references. What
 * answers NOMEM is called again and has to succeed then. */
#ifndef KLAW_TESTS_SUPPORT_REMOTE_H
#define KLAW_TESTS_SUPPORT_REMOTE_H

#include "klaw/alloc.h"
#include "klaw/hub.h"
#include "support/check.h"

#define REMOTE_HUBS 3
#define REMOTE_OPEN 64
#define REMOTE_LOGS 256
#define REMOTE_TICKETS 64
#define REMOTE_MS INT64_C(1000000)

static struct remote {
    klaw_broker *b;
    klaw_broker_opts opts;
    klaw_hub *h[REMOTE_HUBS];
    int64_t now;
    struct {
        int hub;
        uint64_t ticket, id;
    } open[REMOTE_OPEN];
    int opens;
    struct {
        void *data;
        size_t size;
    } log[REMOTE_LOGS];
    int logs;
    void *snapshot;
    size_t snapshot_size;
    int told[REMOTE_TICKETS];                    /* events of a ticket */
    klaw_hub_event_kind outcome[REMOTE_TICKETS]; /* the last one */
    int nomem;                                   /* calls that answered it */
} remote;

/* --- attachments: numbers with a count of references --- */

typedef struct attachment {
    int refs;
} attachment;

static inline void attachment_drop(void *a) {
    attachment *x = a;
    if (!x)
        return;
    CHECK(x->refs > 0);
    x->refs--;
}
static inline void *attachment_share(void *a) {
    attachment *x = a;
    CHECK(x->refs > 0);
    x->refs++;
    return a;
}

/* A call that may answer NOMEM without effect: what it answers when it is made again. */
#define REMOTE_TRY(e, call)           \
    do {                              \
        (e) = (call);                 \
        if ((e) == KLAW_NOMEM) {      \
            remote.nomem++;           \
            (e) = (call);             \
            CHECK((e) != KLAW_NOMEM); \
        }                             \
    } while (0)

static inline void remote_broker(klaw_broker_opts o) {
    klaw_err e;
    o.channel[0] = 1;
    o.boot = o.boot ? o.boot : 1;
    o.drop = attachment_drop;
    o.share = attachment_share;
    remote.opts = o;
    REMOTE_TRY(e, klaw_broker_new(&o, &remote.b));
    OK(e);
}

static inline void remote_start(klaw_broker_opts o) {
    memset(&remote, 0, sizeof remote);
    remote.now = KLAW_S(1);
    remote_broker(o);
}

static inline void remote_hub(int i, klaw_hub_opts o) {
    klaw_err e;
    o.channel[0] = 1;
    o.client[0] = (unsigned char)(i + 1);
    o.kind = remote.opts.kind;
    o.drop = attachment_drop;
    o.share = attachment_share;
    REMOTE_TRY(e, klaw_hub_new(&o, &remote.h[i]));
    OK(e);
}

static inline void remote_log_free(void) {
    for (int i = 0; i < remote.logs; i++)
        klaw_remote_free(remote.log[i].data);
    klaw_remote_free(remote.snapshot);
    remote.snapshot = NULL;
    remote.logs = 0;
}

static inline void remote_end(void) {
    for (int i = 0; i < REMOTE_HUBS; i++)
        klaw_hub_free(remote.h[i]);
    klaw_broker_free(remote.b);
    remote_log_free();
    memset(&remote, 0, sizeof remote);
}

static inline bool remote_calls(int i) {
    klaw_hub_call c;
    klaw_hub *h = remote.h[i];
    bool any = false;
    for (; h && klaw_hub_next_call(h, remote.now, &c); any = true) {
        klaw_err e;
        uint64_t ticket = 0;
        REMOTE_TRY(e, klaw_broker_call(remote.b, remote.now, remote.now, c.data, c.size,
                                       c.attachments, c.attached, &ticket, NULL));
        OK(e);
        klaw_remote_free(c.data);
        klaw_remote_free(c.attachments);
        CHECK(remote.opens < REMOTE_OPEN);
        remote.open[remote.opens].hub = i;
        remote.open[remote.opens].ticket = ticket;
        remote.open[remote.opens++].id = c.id;
    }
    klaw_hub_event v;
    while (h && klaw_hub_next_event(h, &v))
        if (v.ticket) {
            CHECK(v.ticket < REMOTE_TICKETS);
            remote.told[v.ticket]++;
            remote.outcome[v.ticket] = v.kind;
        }
    return any;
}

static inline bool remote_answers(void) {
    bool any = false;
    void *data;
    size_t size;
    uint64_t mark;
    while (klaw_broker_journal(remote.b, &data, &size, &mark)) {
        CHECK(remote.logs < REMOTE_LOGS);
        remote.log[remote.logs].data = data;
        remote.log[remote.logs++].size = size;
        klaw_broker_committed(remote.b, mark);
    }
    for (klaw_broker_answer a; klaw_broker_next(remote.b, &a); any = true) {
        int i = 0;
        klaw_err e;
        while (i < remote.opens && remote.open[i].ticket != a.ticket)
            i++;
        CHECK(i < remote.opens);
        REMOTE_TRY(e, klaw_hub_reply(remote.h[remote.open[i].hub], remote.now, remote.open[i].id,
                                     a.data, a.size, a.attachments, a.attached));
        OK(e);
        remote.open[i] = remote.open[--remote.opens];
        klaw_remote_free(a.data);
        klaw_remote_free(a.attachments);
    }
    return any;
}

/* Goes on for that long, in steps of 2 ms. */
static inline void remote_run(int64_t ns) {
    for (int64_t until = remote.now + ns;; remote.now += 2 * REMOTE_MS) {
        for (int i = 0; i < REMOTE_HUBS; i++)
            if (remote.h[i])
                klaw_hub_tick(remote.h[i], remote.now);
        klaw_broker_tick(remote.b, remote.now, remote.now);
        for (bool any = true; any;) {
            any = false;
            for (int i = 0; i < REMOTE_HUBS; i++)
                any |= remote_calls(i);
            any |= remote_answers();
        }
        if (remote.now >= until)
            return;
    }
}

/* A broker with what its log holds. One that had no memory for that is thrown away. */
static inline void remote_load(klaw_broker_opts o) {
    klaw_err e = KLAW_NOMEM;
    for (int tries = 0; e == KLAW_NOMEM; tries++) {
        CHECK(tries < 2);
        remote_broker(o);
        e = KLAW_OK;
        if (remote.snapshot)
            e = klaw_broker_restore(remote.b, remote.snapshot, remote.snapshot_size);
        for (int i = 0; e == KLAW_OK && i < remote.logs; i++)
            e = klaw_broker_replay(remote.b, remote.log[i].data, remote.log[i].size);
        if (e == KLAW_NOMEM) {
            remote.nomem++;
            klaw_broker_free(remote.b);
        }
    }
    OK(e);
}

/* The broker's process ends, and another one starts. */
static inline void remote_restart(void) {
    klaw_broker_free(remote.b);
    klaw_broker_opts o = remote.opts;
    o.boot++;
    o.restarted = true;
    remote_load(o);
    for (int i = 0; i < remote.opens; i++)
        klaw_hub_failed(remote.h[remote.open[i].hub], remote.now, remote.open[i].id, false, "");
    remote.opens = 0;
}

/* Begins the log anew. */
static inline void remote_snapshot(void) {
    klaw_err e;
    void *data = NULL;
    size_t size = 0;
    REMOTE_TRY(e, klaw_broker_snapshot(remote.b, &data, &size));
    OK(e);
    remote_log_free();
    remote.snapshot = data;
    remote.snapshot_size = size;
}

static inline uint64_t remote_open(int hub, klaw_remote_side side) {
    klaw_err e;
    uint64_t id = 0;
    REMOTE_TRY(e, klaw_hub_open(remote.h[hub], remote.now, side, NULL, &id));
    OK(e);
    return id;
}

static inline klaw_broker_stats remote_look(void) {
    klaw_broker_stats s;
    klaw_broker_look(remote.b, remote.now, &s);
    return s;
}

/* The number a payload holds; gives the item's memory and attachment back. */
static inline uint32_t remote_number(klaw_remote_item *i) {
    uint32_t n;
    SAME(i->size, sizeof n);
    memcpy(&n, i->data, sizeof n);
    klaw_remote_free((void *)(uintptr_t)i->data);
    attachment_drop(i->attachment);
    return n;
}

#endif
