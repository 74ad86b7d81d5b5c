/* SPDX-License-Identifier: Apache-2.0 */
/* remote_stage.h - what scenes are played on: hubs and a broker over a network that does what the scene says. */
#ifndef KLAW_TESTS_MODEL_REMOTE_STAGE_H
#define KLAW_TESTS_MODEL_REMOTE_STAGE_H

#include "model/remote_world.h"

static struct scene {
    klaw_broker *b;
    klaw_hub *h[4];
    unsigned char client[4][KLAW_REMOTE_ID];
    bool cut[4]; /* its calls go nowhere */
    int64_t now;
    struct {
        int hub;
        uint64_t ticket, id;
    } call[512];
    int calls;
    uint64_t tickets;
    int sent, refused, unsent, uncertain;
    size_t largest; /* answer */
} d;

static void d_start(klaw_broker_opts o) {
    memset(&d, 0, sizeof d);
    d.now = SECOND;
    o.channel[0] = 1;
    o.boot = o.boot ? o.boot : 1;
    EXPECT(klaw_broker_new(&o, &d.b) == KLAW_OK);
}
static void d_hub(int i, klaw_hub_opts o) {
    if (!o.channel[0])
        o.channel[0] = 1;
    o.client[0] = (unsigned char)(i + 1);
    memcpy(d.client[i], o.client, KLAW_REMOTE_ID);
    EXPECT(klaw_hub_new(&o, &d.h[i]) == KLAW_OK);
}
static void d_end(void) {
    for (int i = 0; i < 4; i++)
        klaw_hub_free(d.h[i]);
    klaw_broker_free(d.b);
    memset(&d, 0, sizeof d);
}
static void d_answers(void) {
    for (klaw_broker_answer a; klaw_broker_next(d.b, &a);) {
        int i = 0;
        while (i < d.calls && d.call[i].ticket != a.ticket)
            i++;
        EXPECT(i < d.calls);
        if (a.size > d.largest)
            d.largest = a.size;
        klaw_hub *h = d.h[d.call[i].hub];
        if (h && !d.cut[d.call[i].hub])
            EXPECT(klaw_hub_reply(h, d.now, d.call[i].id, a.data, a.size, a.attachments,
                                  a.attached) == KLAW_OK);
        d.call[i] = d.call[--d.calls];
        klaw_remote_free(a.data);
        klaw_remote_free(a.attachments);
    }
}
static void d_call(int hub, const klaw_hub_call *c) {
    uint64_t t;
    EXPECT(klaw_broker_call(d.b, d.now, d.now, c->data, c->size, NULL, 0, &t, NULL) == KLAW_OK);
    EXPECT(d.calls < 512);
    d.call[d.calls].hub = hub;
    d.call[d.calls].ticket = t;
    d.call[d.calls++].id = c->id;
}
static void d_pump(void) {
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 4; i++) {
            klaw_hub_call c;
            for (int n = 0; d.h[i] && !d.cut[i] && n < 20 && klaw_hub_next_call(d.h[i], d.now, &c);
                 n++) {
                d_call(i, &c);
                klaw_remote_free(c.data);
            }
            klaw_hub_event e;
            while (d.h[i] && klaw_hub_next_event(d.h[i], &e)) {
                d.sent += e.kind == KLAW_HUB_SENT;
                d.refused += e.kind == KLAW_HUB_REFUSED;
                d.unsent += e.kind == KLAW_HUB_UNSENT;
                d.uncertain += e.kind == KLAW_HUB_UNCERTAIN;
            }
        }
        d_answers();
    }
}
static void d_wait(int64_t ns) {
    for (int64_t until = d.now + ns; d.now < until;) {
        d.now += ns > SECOND ? 50 * MS : 5 * MS;
        for (int i = 0; i < 4; i++)
            if (d.h[i])
                klaw_hub_tick(d.h[i], d.now);
        klaw_broker_tick(d.b, d.now, d.now);
        d_pump();
    }
}
static uint64_t d_open(int hub, klaw_remote_side side) {
    uint64_t id;
    EXPECT(klaw_hub_open(d.h[hub], d.now, side, NULL, &id) == KLAW_OK);
    d_pump();
    return id;
}
static klaw_err d_send(int hub, uint64_t tx, char c, uint32_t flags) {
    klaw_remote_item i = {.data = &c, .size = 1, .flags = flags};
    return klaw_hub_send(d.h[hub], d.now, tx, &i, 1, false, ++d.tickets);
}
/* Takes all there is into a text, a capital letter for what is marked; acks unless held. */
static const char *d_take(int hub, uint64_t rx, bool ack) {
    static char text[64];
    size_t n = 0;
    klaw_remote_item i;
    d_pump();
    while (n < 60 && klaw_hub_take(d.h[hub], d.now, d.now, rx, &i, NULL) == KLAW_OK) {
        text[n++] = (char)(*(const char *)i.data - (i.flags & KLAW_REMOTE_REDELIVERED ? 32 : 0));
        klaw_remote_free((void *)(uintptr_t)i.data);
        if (ack)
            (void)klaw_hub_ack(d.h[hub], d.now, rx, i.lease);
        d_pump();
    }
    text[n] = '\0';
    return text;
}
static klaw_broker_stats d_look(void) {
    klaw_broker_stats s;
    klaw_broker_look(d.b, d.now, &s);
    return s;
}
#define TEXT(got, want)                                            \
    do {                                                           \
        const char *text_ = (got);                                 \
        if (strcmp(text_, want) != 0)                              \
            DIFFERS("received '%s' instead of '%s'", text_, want); \
    } while (0)
#define B(...) d_start((klaw_broker_opts){__VA_ARGS__})
#define H(i, ...) d_hub(i, (klaw_hub_opts){__VA_ARGS__})

/* A second boot takes the first one's place. */
static void d_restart(klaw_broker_opts o) {
    klaw_broker_free(d.b);
    d.calls = 0;
    o.channel[0] = 1;
    o.boot = 2;
    o.restarted = true;
    EXPECT(klaw_broker_new(&o, &d.b) == KLAW_OK);
    for (int i = 0; i < 4; i++)
        for (uint64_t id = 1; d.h[i] && id < 2000; id++)
            klaw_hub_failed(d.h[i], d.now, id, false, "");
}
/* Queues `n` items of `size` bytes as one batch. */
static void d_batch(int hub, uint64_t tx, size_t n, size_t size) {
    static const char bytes[64];
    klaw_remote_item i[8];
    for (size_t k = 0; k < n; k++)
        i[k] = (klaw_remote_item){.data = bytes, .size = size};
    EXPECT(klaw_hub_send(d.h[hub], d.now, tx, i, n, true, ++d.tickets) == KLAW_OK);
}
/* Makes the calls there are now; how many of a kind. */
static int d_calls(int hub, klaw_hub_call_kind kind) {
    int n = 0;
    for (klaw_hub_call c; klaw_hub_next_call(d.h[hub], d.now, &c); n += c.kind == kind) {
        d_call(hub, &c);
        klaw_remote_free(c.data);
    }
    return n;
}

#endif
