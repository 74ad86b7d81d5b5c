/* SPDX-License-Identifier: Apache-2.0 */
/* loopback.h - a broker in this process, and a transport to it that loses what it is told to lose: remote
 * channels without a network. */
#ifndef KLAW_TESTS_SUPPORT_LOOPBACK_H
#define KLAW_TESTS_SUPPORT_LOOPBACK_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "klaw/transport.h"
#include "support/check.h"

/* A call that waits for its answer. */
typedef struct loop_call {
    struct loop_call *next;
    klaw_remote *remote;
    uint64_t id, ticket;
} loop_call;

typedef struct loopback {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    klaw_broker *broker;
    loop_call *calls;
    pthread_t clock;
    bool over;
    unsigned char channel[KLAW_REMOTE_ID];
    unsigned char client[KLAW_REMOTE_ID]; /* of the last attach */
    /* What goes wrong: */
    _Atomic uint64_t lose_answer_every; /* the n-th call is done, and told as failed */
    _Atomic uint64_t lose_call_every;   /* the n-th call does not arrive */
    _Atomic bool dead;                  /* nobody is there any more */
    _Atomic uint64_t made, ended;
} loopback;

static inline int64_t loop_real(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Tells every answer that is ready. Under the mutex: klaw_remote_reply never waits. */
static inline void loop_answers(loopback *l) {
    klaw_broker_answer a;
    while (klaw_broker_next(l->broker, &a)) {
        for (loop_call **at = &l->calls; *at; at = &(*at)->next) {
            loop_call *c = *at;
            if (c->ticket != a.ticket)
                continue;
            *at = c->next;
            OK(klaw_remote_reply(c->remote, c->id, a.data, a.size));
            free(c);
            break;
        }
        klaw_remote_free(a.data);
        klaw_remote_free(a.attachments);
    }
}

static inline void *loop_clock(void *arg) {
    loopback *l = arg;
    pthread_mutex_lock(&l->mutex);
    while (!l->over) {
        int64_t at = klaw_broker_deadline(l->broker), now = klaw_now();
        if (at <= now) {
            klaw_broker_tick(l->broker, now, loop_real());
            loop_answers(l);
            continue;
        }
        int64_t most = now + KLAW_S(1), until = loop_real() + ((at < most ? at : most) - now);
        struct timespec t = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        pthread_cond_timedwait(&l->changed, &l->mutex, &t);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

static inline klaw_err loop_carry(void *user, klaw_remote *r, const klaw_hub_call *call) {
    loopback *l = user;
    klaw_err e = KLAW_OK;
    uint64_t ticket = 0;
    pthread_mutex_lock(&l->mutex);
    uint64_t n = ++l->made;
    bool lost = l->lose_call_every && n % l->lose_call_every == 0;
    bool deaf = l->lose_answer_every && n % l->lose_answer_every == 0;
    if (l->dead) {
        klaw_remote_failed(r, call->id, true, "the broker has died");
    } else if (lost) {
        klaw_remote_failed(r, call->id, false, "lost");
    } else {
        e = klaw_broker_call(l->broker, klaw_now(), loop_real(), call->data, call->size, NULL, 0,
                             &ticket, l->client);
        if (e == KLAW_NOMEM) {
            pthread_mutex_unlock(&l->mutex);
            return e;
        }
        OK(e);
        if (deaf) {
            klaw_remote_failed(r, call->id, false, "its answer was lost");
        } else {
            loop_call *c = malloc(sizeof *c);
            CHECK(c);
            *c = (loop_call){l->calls, r, call->id, ticket};
            l->calls = c;
        }
        loop_answers(l);
    }
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->mutex);
    klaw_remote_free(call->data);
    klaw_remote_free(call->attachments);
    return KLAW_OK;
}

static inline void loop_end(void *user) {
    ((loopback *)user)->ended++;
}

static const klaw_transport loop_transport = {.call = loop_carry, .end = loop_end};

static inline loopback *loop_open(const klaw_broker_opts *opts) {
    loopback *l = calloc(1, sizeof *l);
    klaw_broker_opts o = opts ? *opts : (klaw_broker_opts){0};
    CHECK(l);
    memset(l->channel, 7, sizeof l->channel);
    memcpy(o.channel, l->channel, sizeof o.channel);
    o.boot = 42;
    OK(klaw_broker_new(&o, &l->broker));
    SAME(pthread_mutex_init(&l->mutex, NULL), 0);
    SAME(pthread_cond_init(&l->changed, NULL), 0);
    SAME(pthread_create(&l->clock, NULL, loop_clock, l), 0);
    return l;
}

/* All remotes have left. */
static inline void loop_close(loopback *l) {
    OK(klaw_remote_leave(KLAW_WITHIN(CHECK_PATIENCE)));
    pthread_mutex_lock(&l->mutex);
    l->over = true;
    pthread_cond_signal(&l->changed);
    for (loop_call *c = l->calls, *next; c; c = next) { /* polls nobody has answered */
        next = c->next;
        klaw_remote_failed(c->remote, c->id, true, "over");
        free(c);
    }
    pthread_mutex_unlock(&l->mutex);
    SAME(pthread_join(l->clock, NULL), 0);
    klaw_broker_free(l->broker);
    pthread_mutex_destroy(&l->mutex);
    pthread_cond_destroy(&l->changed);
    free(l);
}

/* One process's endpoints of it; tx or rx may be NULL. */
static inline void loop_join(loopback *l, const klaw_type *type, klaw_remote_ack ack,
                             klaw_sender **tx, klaw_receiver **rx) {
    klaw_transport_opts o = {.name = "loop", .hub = {.ack = ack}};
    memcpy(o.hub.channel, l->channel, sizeof o.hub.channel);
    OK(klaw_remote_open(type, &loop_transport, l, &o, tx, rx));
}

static inline klaw_broker_stats loop_stats(loopback *l) {
    klaw_broker_stats s;
    pthread_mutex_lock(&l->mutex);
    klaw_broker_look(l->broker, loop_real(), &s);
    pthread_mutex_unlock(&l->mutex);
    return s;
}

#endif
