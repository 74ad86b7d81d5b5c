/* SPDX-License-Identifier: Apache-2.0 */
/* remote_desk.c - questions to the backend and their answers, over a counter: no thread of klaw's enters
 * Python, and no thread of Python's runs klaw's code for long. Python fetches questions by `next`, which
 * sleeps outside the interpreter's lock, and answers them whenever it can.
 *
 * Invariants whenever desk.lock is free:
 *   K1  questions are queued only while the backend starts or serves; otherwise they are answered at
 *       once, with the reason.
 *   K2  an ask is in desk.asks until it is answered or given up, whichever comes first: it unlinks it.
 *   K3  a queued CALL holds its remote; who takes it off the queue sees to its end.
 *
 * Wake-ups: `word` is a futex that goes up with each question; an asker waits on a oneshot.
 *
 * At exit the process leaves its channels while the backend still serves, then tells it to go and waits
 * for that, a few seconds at most: nothing of Python may run when destructors do.
 *
 * Rejected: calling into Python from the threads that ask (stacks of fibers are small, and the
 * interpreter's lock would be waited for under the hub's thread). */
#include "runtime/remote_desk.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "klaw/klaw.h"
#include "klaw/oneshot.h"
#include "sched/sched.h"

#define LEAVE_CHANNELS KLAW_S(3)
#define LEAVE_BACKEND KLAW_S(5)

enum desk_state { DOWN, STARTING, LEAVING, LEFT };

typedef struct question {
    struct question *next;
    klawi_request request;
    char text[]; /* then the data, when it is a copy */
} question;

typedef struct ask {
    klawi_link link; /* (L) next NULL: answered or given up */
    uint64_t ticket; /* (c) */
    klaw_sender *tx; /* (c) */
    klaw_err code;   /* from here: by who unlinks it */
    klaw_blob *blob;
    klaw_error_info info;
    _Atomic uint32_t refs; /* who asks, who answers */
} ask;

static struct {
    klawi_lock lock;
    enum desk_state state;   /* (L) */
    question *first, **last; /* (L) */
    klawi_link asks;         /* (L) */
    uint64_t tickets;        /* (L) */
    bool at_exit;            /* (L) registered */
    klawi_desk_locks locks;  /* (L) the backend's, once it is loaded */
    char why[256];           /* (L) what broke it last */
    _Atomic uint32_t word;   /* (a) one more with each question and change of state */
} desk = {.lock = KLAWI_LOCK_INIT(KLAWI_RANK_LEAF),
          .last = &desk.first,
          .asks = {&desk.asks, &desk.asks}};

static void stir(void) {
    atomic_fetch_add_explicit(&desk.word, 1, memory_order_release);
    klawi_futex_wake(&desk.word, INT32_MAX);
}

/* --- questions --- */

static question *question_new(enum klawi_verb verb, const char *text, const void *data,
                              size_t size) {
    size_t length = text ? strlen(text) + 1 : 1;
    if (size > SIZE_MAX / 2)
        return NULL;
    question *q = klawi_alloc(sizeof *q + length + size);
    if (!q)
        return NULL;
    *q = (question){.request = {.verb = (int32_t)verb, .size = size, .memory = q}};
    memcpy(q->text, text ? text : "", length);
    q->request.text = q->text;
    q->request.data = q->text + length;
    if (size)
        memcpy(q->text + length, data, size);
    return q;
}

static void question_free(question *q) {
    if (q->request.verb == KLAWI_VERB_CALL)
        klaw_remote_free((void *)(uintptr_t)q->request.data);
    klawi_free(q);
}

/* Under the lock. */
static void enqueue(question *q) {
    *desk.last = q;
    desk.last = &q->next;
}

static void release(void *memory) {
    question_free(memory);
}

static int32_t next(klawi_request *out, int64_t wait_ns) {
    int64_t until = klawi_clock() + wait_ns;
    for (;;) {
        uint32_t word = atomic_load_explicit(&desk.word, memory_order_acquire);
        klawi_lock_acquire(&desk.lock);
        question *q = desk.first;
        bool leave = !q && desk.state == LEAVING;
        if (q && (desk.first = q->next) == NULL)
            desk.last = &desk.first;
        klawi_lock_release(&desk.lock);
        if (q) {
            *out = q->request;
            return 1;
        }
        if (leave)
            return -1;
        if (klawi_clock() >= until)
            return 0;
        klawi_futex_wait(&desk.word, word, until);
    }
}

/* --- answers --- */

static void ask_unref(ask *a) {
    if (atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
        return;
    klaw_blob_unref(a->blob);
    klaw_sender_unref(a->tx);
    klawi_free(a);
}

static void copy(char *to, size_t size, const char *from) {
    size_t n = from ? strnlen(from, size - 1) : 0;
    memcpy(to, from ? from : "", n);
    to[n] = 0;
}

/* It is unlinked. */
static void settle(ask *a, klaw_err code, bool far, klaw_blob *blob, const char *message,
                   const char *actor, const char *namespace_) {
    a->code = code;
    a->blob = blob;
    copy(a->info.message, sizeof a->info.message, message);
    if (!far && code)
        memcpy(a->info.backend, "ray", sizeof "ray");
    copy(a->info.actor_name, sizeof a->info.actor_name, actor);
    copy(a->info.namespace_, sizeof a->info.namespace_, namespace_);
    uint64_t one = 1;
    (void)!klaw_send(a->tx, &one, KLAW_NOWAIT); /* CLOSED: it is not waited for any more */
    ask_unref(a);
}

static void answer(uint64_t ticket, int32_t code, int32_t far, const void *data, uint64_t size,
                   const char *message, const char *actor, const char *namespace_) {
    klaw_blob *blob = NULL;
    ask *found = NULL;
    if (data && klaw_blob_new(size ? data : NULL, size, &blob) != KLAW_OK)
        code = KLAW_NOMEM;
    klawi_lock_acquire(&desk.lock);
    for (klawi_link *l = desk.asks.next; l != &desk.asks && !found; l = l->next) {
        found = KLAWI_CONTAINER(l, ask, link);
        found = found->ticket == ticket ? found : NULL;
    }
    if (found)
        klawi_link_remove(&found->link);
    klawi_lock_release(&desk.lock);
    if (found)
        settle(found, (klaw_err)code, far != 0, blob, message, actor, namespace_);
    else
        klaw_blob_unref(blob);
}

static void reply(void *remote, uint64_t id, const void *data, uint64_t size) {
    (void)klaw_remote_reply(remote, id, data, size); /* NOMEM: the call is made again */
}

static void failed(void *remote, uint64_t id, int32_t dead, const char *message) {
    klaw_remote_failed(remote, id, dead != 0, message);
}

static void broken(const char *message) {
    const char *why = message ? message : "the process leaves Ray";
    klaw_err code = message ? KLAW_BACKEND : KLAW_STOPPED;
    klawi_lock_acquire(&desk.lock);
    question *q = desk.first, *following;
    desk.first = NULL;
    desk.last = &desk.first;
    desk.state = message && desk.state == STARTING ? DOWN : LEFT;
    copy(desk.why, sizeof desk.why, why);
    klawi_lock_release(&desk.lock);
    for (; q; q = following) {
        following = q->next;
        if (q->request.verb == KLAWI_VERB_CALL)
            klaw_remote_failed(q->request.remote, q->request.id, true, why);
        question_free(q);
    }
    for (ask *a;;) {
        klawi_lock_acquire(&desk.lock);
        a = klawi_link_empty(&desk.asks) ? NULL : KLAWI_CONTAINER(desk.asks.next, ask, link);
        if (a)
            klawi_link_remove(&a->link);
        klawi_lock_release(&desk.lock);
        if (!a)
            break;
        settle(a, code, false, NULL, why, NULL, NULL);
    }
    stir();
}

/* --- the end --- */

static void leave(void) {
    klawi_lock_acquire(&desk.lock);
    bool serves = desk.state == STARTING;
    klawi_lock_release(&desk.lock);
    if (!serves)
        return;
    (void)!klaw_remote_leave(KLAW_WITHIN(LEAVE_CHANNELS)); /* late: the brokers' leases will tell */
    klawi_lock_acquire(&desk.lock);
    if (desk.state == STARTING)
        desk.state = LEAVING;
    klawi_lock_release(&desk.lock);
    stir();
}

static void at_exit(void) {
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return;
    leave();
    int64_t until = klawi_clock() + LEAVE_BACKEND;
    for (;;) {
        uint32_t word = atomic_load_explicit(&desk.word, memory_order_acquire);
        klawi_lock_acquire(&desk.lock);
        bool over = desk.state != LEAVING;
        klawi_lock_release(&desk.lock);
        if (over || klawi_clock() >= until)
            return;
        klawi_futex_wait(&desk.word, word, until);
    }
}

static void connected(void) {
    (void)atexit(at_exit); /* no room for it: then Ray ends as it does */
}

/* --- the beginning --- */

static const klawi_desk face = {.version = KLAWI_DESK_VERSION,
                                .size = sizeof(klawi_desk),
                                .library = KLAW_VERSION,
                                .next = next,
                                .release = release,
                                .answer = answer,
                                .reply = reply,
                                .failed = failed,
                                .broken = broken,
                                .connected = connected,
                                .leave = leave};

static klaw_err load(void *arg) {
    klawi_desk_locks locks = NULL;
    klaw_err e = klawi_remote_load(&face, &locks, arg);
    klawi_lock_acquire(&desk.lock);
    desk.locks = locks;
    klawi_lock_release(&desk.lock);
    return e;
}

/* Sees to it that the backend serves, or is about to. An error, told in why: it can't be loaded. */
static klaw_err need_backend(klaw_error_info *why) {
    klawi_lock_acquire(&desk.lock);
    bool mine = desk.state == DOWN;
    if (mine)
        desk.state = STARTING;
    bool hook = mine && !desk.at_exit;
    desk.at_exit |= mine;
    klawi_lock_release(&desk.lock);
    if (!mine)
        return KLAW_OK;
    if (hook)
        (void)atexit(at_exit); /* no room for it: the process ends without saying good-bye */
    klaw_err e = klaw_blocking(load, why);
    if (e)
        broken(why->message[0] ? why->message : klaw_err_text(e));
    return e;
}

/* --- asking --- */

/* Who waits for an answer with the interpreter's lock in hand waits for ever. */
static klaw_err need_no_lock(klaw_error_info *why) {
    klawi_desk_locks locks = NULL;
    for (klaw_err e = KLAW_OK; !e; e = klaw_sleep(klaw_after(KLAW_MS(1)))) {
        klawi_lock_acquire(&desk.lock);
        locks = desk.locks;
        bool loads = desk.state == STARTING && !locks; /* another thread does */
        klawi_lock_release(&desk.lock);
        if (!loads)
            break;
    }
    if (!locks || !locks())
        return KLAW_OK;
    return klawi_error(
        why, KLAW_BACKEND,
        "the calling thread holds Python's lock (GIL), which the answer needs: release it"
        " around the call (Py_BEGIN_ALLOW_THREADS; ctypes.CDLL does, PyDLL does not)");
}

/* The question is queued, or answered with why not. */
static klaw_err post(question *q, ask *a) {
    klawi_lock_acquire(&desk.lock);
    bool serves = desk.state == STARTING || desk.state == LEAVING;
    enum desk_state state = desk.state;
    if (serves) {
        if (a) {
            a->ticket = q->request.ticket = ++desk.tickets;
            klawi_link_push(&desk.asks, &a->link);
        }
        enqueue(q);
    }
    klawi_lock_release(&desk.lock);
    if (serves)
        stir();
    return serves ? KLAW_OK : state == LEFT ? KLAW_STOPPED : KLAW_BACKEND;
}

static klaw_err wait_for(ask *a, klaw_receiver *rx, const klawi_ask *what) {
    uint64_t one;
    klaw_err e = klaw_recv(rx, &one, what->deadline);
    if (e == KLAW_OK) {
        if (what->info)
            *what->info = a->info;
        if (a->code == KLAW_OK && what->out) {
            *what->out = a->blob;
            a->blob = NULL;
        }
        return a->code;
    }
    klawi_lock_acquire(&desk.lock);
    bool mine = a->link.next != NULL;
    if (mine)
        klawi_link_remove(&a->link);
    klawi_lock_release(&desk.lock);
    if (mine) {
        klawi_desk_tell(KLAWI_VERB_CANCEL, 0, a->ticket);
        ask_unref(a); /* nobody will answer */
    }
    return klawi_error(what->info, e == KLAW_EMPTY ? KLAW_TIMEOUT : e,
                       "no answer from Ray within the time given");
}

klaw_err klawi_desk_ask(const klawi_ask *what) {
    klaw_receiver *rx = NULL;
    klaw_err e;
    if (what->out)
        *what->out = NULL;
    if (what->info)
        memset(what->info, 0, sizeof *what->info);
    if (atomic_load_explicit(&klawi_forked, memory_order_relaxed))
        return klawi_error(what->info, KLAW_STOPPED, "this process was forked from one that runs");
    question *q = question_new(what->verb, what->text, what->data, what->size);
    ask *a = klawi_calloc(1, sizeof *a);
    e = q && a ? klaw_oneshot(&klaw_u64, &a->tx, &rx) : KLAW_NOMEM;
    if (e) {
        klawi_free(q);
        klawi_free(a);
        return klawi_error(what->info, e, "%s", klaw_err_text(e));
    }
    q->request.key = what->key;
    atomic_init(&a->refs, 2);
    klaw_error_info why = {.message = ""};
    e = need_backend(&why);
    if (!e)
        e = need_no_lock(&why);
    if (!e && (e = post(q, a)) != KLAW_OK) { /* it broke at once */
        klawi_lock_acquire(&desk.lock);
        memcpy(why.message, desk.why, sizeof why.message);
        klawi_lock_release(&desk.lock);
    }
    if (e) {
        klawi_free(q);
        ask_unref(a);
        ask_unref(a);
        klaw_receiver_unref(rx);
        memcpy(why.backend, "ray", sizeof "ray");
        if (what->info)
            *what->info = why;
        return e;
    }
    e = wait_for(a, rx, what);
    klaw_receiver_unref(rx);
    ask_unref(a);
    return e;
}

void klawi_desk_tell(enum klawi_verb verb, uint64_t key, uint64_t id) {
    question *q = question_new(verb, NULL, NULL, 0);
    if (!q)
        return;
    q->request.key = key;
    q->request.id = id;
    if (post(q, NULL))
        klawi_free(q);
}

klaw_err klawi_desk_call(uint64_t key, klaw_remote *r, const klaw_hub_call *call) {
    question *q = question_new(KLAWI_VERB_CALL, NULL, NULL, 0);
    if (!q)
        return KLAW_NOMEM;
    q->request.key = key;
    q->request.id = call->id;
    q->request.remote = r;
    q->request.kind = (int32_t)call->kind;
    q->request.data = call->data;
    q->request.size = call->size;
    klaw_err e = post(q, NULL);
    if (e)
        klawi_free(q);
    else
        klaw_remote_free(call->attachments); /* there are none: Python has no part in them */
    return e ? KLAW_BACKEND : KLAW_OK;
}
