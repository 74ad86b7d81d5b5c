/* SPDX-License-Identifier: Apache-2.0 */
/* The blobs between hubs and brokers, and a broker's journal. The input is a script of three-byte steps for two hubs and
 * one broker: send, receive, close, carry calls and answers, drop or repeat them, and above all change bytes of a blob on
 * its way, its check sum made right again, or put a blob of the input's own bytes in its place. A peer may lie: then items
 * may be lost or doubled, but nothing crashes, leaks or loops, and a changed blob whose sum was not mended is refused. */
#include <string.h>

#include "fuzz.h"
#include "klaw/broker.h"
#include "klaw/hub.h"
#include "policy/wire.h"

#define HUBS 2
#define STEPS_MAX 400

typedef struct script {
    const uint8_t *at, *end;
} script;

static uint8_t next_byte(script *s) {
    return s->at < s->end ? *s->at++ : 0;
}

typedef struct world {
    klaw_broker *broker;
    klaw_hub *hub[HUBS];
    klaw_hub_call call[HUBS]; /* on its way; data NULL: none */
    uint64_t sender[HUBS], receiver[HUBS];
    uint64_t ticket;
    int64_t now;
} world;

static klaw_broker *new_broker(uint64_t boot, bool restarted, uint8_t kind) {
    klaw_broker *b;
    klaw_broker_opts opts = {
        .channel = {1}, .boot = boot, .capacity = 20, .kind = (klaw_remote_kind)(kind % 3)};
    opts.durable = opts.kind == KLAW_REMOTE_QUEUE;
    opts.restarted = restarted;
    HOLDS(klaw_broker_new(&opts, &b) == KLAW_OK);
    return b;
}

/* The blob with changed bytes; resealed when `mend`. The caller's for free(). */
static uint8_t *changed(const void *data, size_t size, script *s, bool mend, size_t *out_size) {
    uint8_t how = next_byte(s);
    size_t body = size > KLAWI_WIRE_SUM ? size - KLAWI_WIRE_SUM : size;
    uint8_t *copy = malloc(size + 300);
    HOLDS(copy);
    memcpy(copy, data, size);
    if (how == 0 && body) { /* bytes of the input's own behind the header */
        size_t keep = next_byte(s) % body, n = next_byte(s);
        for (size_t i = 0; i < n; i++)
            copy[keep + i] = next_byte(s);
        body = keep + n;
        size = body + KLAWI_WIRE_SUM;
    }
    for (unsigned i = 0; body && i < how % 4u; i++)
        copy[(size_t)next_byte(s) * 3 % body] ^= next_byte(s) | 1;
    if (mend) {
        klawi_out o = {0};
        klawi_out_raw(&o, copy, body);
        HOLDS(klawi_out_seal(&o));
        free(copy);
        copy = malloc(o.size);
        HOLDS(copy);
        memcpy(copy, o.data, o.size);
        size = o.size;
        klaw_remote_free(o.data);
    }
    *out_size = size;
    return copy;
}

/* Whatever the broker has to say goes to the hub whose call it was, if that still waits; all else is lost. */
static void carry_answers(world *w, const uint64_t *ticket, script *s, uint8_t how) {
    klaw_broker_answer a;
    void *journal;
    size_t size;
    uint64_t mark;
    while (klaw_broker_journal(w->broker, &journal, &size, &mark)) {
        klaw_remote_free(journal);
        klaw_broker_committed(w->broker, mark);
    }
    while (klaw_broker_next(w->broker, &a)) {
        for (int i = 0; i < HUBS; i++)
            if (w->call[i].data && ticket[i] == a.ticket && a.ticket) {
                size_t n = a.size;
                uint8_t *blob = how & 8 ? changed(a.data, a.size, s, how & 16, &n) : NULL;
                (void)!klaw_hub_reply(w->hub[i], w->now, w->call[i].id, blob ? blob : a.data, n,
                                      NULL, 0);
                free(blob);
                klaw_remote_free(w->call[i].data);
                w->call[i].data = NULL;
            }
        klaw_remote_free(a.data);
        free(a.attachments);
    }
}

static void step_wire(world *w, script *s, uint64_t ticket[HUBS]) {
    uint8_t how = next_byte(s);
    int i = how & 1;
    klaw_hub_call c;
    if (!w->call[i].data && klaw_hub_next_call(w->hub[i], w->now, &c)) {
        w->call[i] = c;
        ticket[i] = 0;
    }
    if (!w->call[i].data)
        return;
    if (how & 2) { /* lost */
        klaw_hub_failed(w->hub[i], w->now, w->call[i].id, how & 64 && how & 128, "lost");
        klaw_remote_free(w->call[i].data);
        w->call[i].data = NULL;
        return;
    }
    size_t size = w->call[i].size;
    bool change = how & 4, mend = how & 32;
    uint8_t *blob = change ? changed(w->call[i].data, size, s, mend, &size) : NULL;
    unsigned char client[KLAW_REMOTE_ID];
    uint64_t t = 0;
    klaw_err e = klaw_broker_call(w->broker, w->now, w->now, blob ? blob : w->call[i].data, size,
                                  NULL, 0, &t, client);
    HOLDS(e == KLAW_OK || e == KLAW_INVALID);
    if (!change)
        HOLDS(e == KLAW_OK);
    if (e == KLAW_OK)
        ticket[i] = t;
    free(blob);
    carry_answers(w, ticket, s, how);
}

static void step_app(world *w, uint8_t what, uint8_t value) {
    int i = value & 1;
    klaw_remote_item item = {
        .data = "abcdefghij", .size = value % 10, .flags = value & 2 ? KLAW_REMOTE_NOWAIT : 0};
    klaw_remote_item batch[3] = {item, item, item}, got;
    uint64_t missed;
    klaw_hub_event event;
    switch (what % 8) {
    case 0:
        (void)!klaw_hub_send(w->hub[i], w->now, w->sender[i], &item, 1, false, ++w->ticket);
        break;
    case 1:
        (void)!klaw_hub_send(w->hub[i], w->now, w->sender[i], batch, 3, true, ++w->ticket);
        break;
    case 2: (void)!klaw_hub_withdraw(w->hub[i], w->now, w->ticket); break;
    case 3:
        klaw_hub_wait(w->hub[i], w->now, w->receiver[i], 1);
        if (klaw_hub_take(w->hub[i], w->now, w->now, w->receiver[i], &got, &missed) == KLAW_OK) {
            if (value & 4)
                (void)klaw_hub_nack(w->hub[i], w->now, w->receiver[i], got.lease, value & 8);
            else
                (void)klaw_hub_ack(w->hub[i], w->now, w->receiver[i], got.lease);
            klaw_remote_free((void *)(uintptr_t)got.data);
        }
        klaw_hub_wait(w->hub[i], w->now, w->receiver[i], -1);
        break;
    case 4:
        (void)klaw_hub_close(w->hub[i], w->now, value & 4 ? w->sender[i] : w->receiver[i]);
        break;
    case 5: klaw_hub_detach(w->hub[i], w->now); break;
    case 6:
        while (klaw_hub_next_event(w->hub[i], &event)) {
            static const unsigned char fresh[KLAW_REMOTE_ID] = {9, 9};
            if (event.kind == KLAW_HUB_RENAMED)
                klaw_hub_rename(w->hub[i], w->now, fresh);
        }
        break;
    default:
        w->now += (int64_t)value * value * 1000000;
        klaw_hub_tick(w->hub[i], w->now);
        klaw_broker_tick(w->broker, w->now, w->now);
    }
}

/* The broker dies and a new one reads what the old one kept, changed or not. */
static void restart(world *w, script *s, uint8_t kind) {
    void *snapshot = NULL;
    size_t size = 0;
    uint8_t how = next_byte(s);
    bool there = klaw_broker_snapshot(w->broker, &snapshot, &size) == KLAW_OK;
    klaw_broker_free(w->broker);
    w->broker = new_broker(2 + how, true, kind);
    if (there) {
        size_t n = size;
        uint8_t *blob = how & 1 ? changed(snapshot, size, s, how & 2, &n) : NULL;
        klaw_err e = how & 4 ? klaw_broker_replay(w->broker, blob ? blob : snapshot, n)
                             : klaw_broker_restore(w->broker, blob ? blob : snapshot, n);
        if (e) { /* one that did not take it whole is of no use */
            klaw_broker_free(w->broker);
            w->broker = new_broker(3 + how, true, kind);
        }
        free(blob);
    }
    klaw_remote_free(snapshot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    script s = {data, data + size};
    uint8_t kind = next_byte(&s);
    world w = {.broker = new_broker(1, false, kind), .now = 1000000000};
    uint64_t ticket[HUBS] = {0};
    for (int i = 0; i < HUBS; i++) {
        klaw_hub_opts opts = {.channel = {1},
                              .client = {(unsigned char)(i + 2)},
                              .kind = (klaw_remote_kind)(kind % 3),
                              .node = "n"};
        HOLDS(klaw_hub_new(&opts, &w.hub[i]) == KLAW_OK);
        HOLDS(klaw_hub_open(w.hub[i], w.now, KLAW_REMOTE_SENDER, NULL, &w.sender[i]) == KLAW_OK);
        HOLDS(klaw_hub_open(w.hub[i], w.now, KLAW_REMOTE_RECEIVER, NULL, &w.receiver[i]) ==
              KLAW_OK);
    }
    for (int n = 0; n < STEPS_MAX && s.at < s.end; n++) {
        uint8_t what = next_byte(&s);
        if (what < 150)
            step_wire(&w, &s, ticket);
        else if (what < 252)
            step_app(&w, what, next_byte(&s));
        else if (what < 254)
            restart(&w, &s, kind);
        else
            klaw_broker_delete(w.broker, w.now);
    }
    for (int i = 0; i < HUBS; i++) {
        klaw_remote_free(w.call[i].data);
        klaw_hub_free(w.hub[i]);
    }
    klaw_broker_free(w.broker);
    return 0;
}
