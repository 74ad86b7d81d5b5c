/* SPDX-License-Identifier: Apache-2.0 */
/* op.c - operations of foreign event loops (waiter.h).
 *
 * An operation is a host of kind KLAWI_CALLBACK with one waiter. Its grant is a permit (kinds that
 * have them) or a hint to look again; the element moves in klaw_op_finish. A peer's ready pushes it
 * to the inbox of its loop, under the inbox's own lock, with one eventfd write when the inbox was
 * empty: the waker never blocks, allocates, or calls foreign code.
 *
 * All klaw_op_* calls come from the loop's thread, so state is its own; only the claim word and the
 * inbox are shared.
 *
 * Invariants:
 *   Q1  WAITING: the waiter is linked and armed, or its claimer is on the way to the inbox, or it
 *       lies in the inbox.
 *   Q2  the inbox's descriptor is readable whenever its list is not empty and nobody pumps or holds
 *       it.
 *   Q3  an operation is freed only when idle: cancel of one whose claimer is on the way waits for
 *       the push (a few instructions).
 *
 * Rejected: handing the element over at the wake-up (a cancelled asyncio task lost 67 of 200); a
 * lock-free inbox (cancel has to take operations out of its middle). */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "klaw/waiter.h"
#include "sync/chan.h"

struct klaw_inbox {
    klawi_lock lock;
    klawi_link ready;     /* (L) operations */
    _Atomic size_t count; /* written under L; its own thread always sees what it added itself */
    bool signalled;       /* (L) fd has been written to since the last pump */
    int fd;               /* (c) */
};

enum op_state { OP_IDLE, OP_WAITING, OP_GRANTED };

typedef struct op {
    klawi_host host;
    void (*fn)(klaw_op *op, void *user);
    void *user;
    klaw_inbox *inbox;
    klawi_end *end;  /* while not idle; gone when CLOSED was granted */
    klawi_chan *ch;  /* while not idle: a reference */
    klawi_link link; /* (inbox lock) link.next NULL: not in it */
} op;
_Static_assert(sizeof(op) <= sizeof(klaw_op), "klaw_op is too small");

/* state, side and "holds a permit" lie in fields of the host that callbacks do not use otherwise.
 * */
#define STATE(o) ((o)->host.timer.when)
#define SIDE(o) ((o)->host.timer.deadline)
#define PERMIT(o) ((o)->host.timer.key)
/* How many slots a send asks for. */
#define SLOTS(o) ((o)->host.waiter.n)

static op *of(const klaw_op *o) {
    return (op *)(void *)(uintptr_t)o;
}

/* --- inbox --- */
klaw_err klaw_inbox_open(klaw_inbox **out) {
    if (!out)
        return KLAW_INVALID;
    klaw_inbox *in = klawi_calloc(1, sizeof *in);
    if (!in)
        return KLAW_NOMEM;
    in->fd = klawi_fail_point() ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (in->fd < 0) {
        klawi_free(in);
        return KLAW_SYSTEM;
    }
    klawi_lock_init(&in->lock, KLAWI_RANK_LEAF);
    klawi_link_init(&in->ready);
    *out = in;
    return KLAW_OK;
}

int klaw_inbox_fd(const klaw_inbox *in) {
    return in->fd;
}

void klaw_inbox_unref(klaw_inbox *in) {
    if (!in)
        return;
    klawi_lock_acquire(&in->lock); /* the last pusher may still be writing to fd */
    KLAWI_ASSERT(klawi_link_empty(&in->ready));
    klawi_lock_release(&in->lock);
    close(in->fd);
    klawi_free(in);
}

static void signal_fd(klaw_inbox *in) {
    uint64_t one = 1;
    in->signalled = true;
    /* EAGAIN: the counter is full, so it is readable; nothing else can happen to an eventfd of our
     * own. */
    while (write(in->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* The inbox that its own thread holds (klaw_inbox_hold). */
static __thread klaw_inbox *held;

static KLAWI_NOINLINE klaw_inbox *held_here(void) {
    __asm__ volatile("");
    return held;
}

/* (L) The new count. */
static size_t add(klaw_inbox *in, size_t n) {
    size_t now = atomic_load_explicit(&in->count, memory_order_relaxed) + n;
    atomic_store_explicit(&in->count, now, memory_order_relaxed);
    return now;
}

static void push(klawi_host *h) {
    op *o = KLAWI_CONTAINER(h, op, host);
    klaw_inbox *in = o->inbox;
    bool own = held_here() == in;
    klawi_lock_acquire(&in->lock);
    klawi_link_push(&in->ready, &o->link);
    if (add(in, 1) == 1 && !own)
        signal_fd(in); /* under the lock: unref waits for it */
    klawi_lock_release(&in->lock);
}

void klaw_inbox_hold(klaw_inbox *in) {
    held = in;
}

bool klaw_inbox_release(klaw_inbox *in) {
    held = NULL;
    /* Without the lock: what this thread pushed, and did not signal, it sees; another thread that found
     * the inbox empty has signalled. */
    return atomic_load_explicit(&in->count, memory_order_relaxed) > 0;
}

static bool take_out(op *o) {
    klaw_inbox *in = o->inbox;
    klawi_lock_acquire(&in->lock);
    bool there = o->link.next != NULL;
    if (there) {
        klawi_link_remove(&o->link);
        add(in, (size_t)-1);
    }
    klawi_lock_release(&in->lock);
    return there;
}

size_t klaw_inbox_pump(klaw_inbox *in, size_t max) {
    uint64_t drained;
    size_t done = 0;
    klawi_lock_acquire(&in->lock);
    size_t limit = add(in, 0);
    bool signalled = in->signalled;
    in->signalled = false;
    klawi_lock_release(&in->lock);
    /* A signal that comes in between is drained too; what it stands for is found below. */
    while (signalled && read(in->fd, &drained, sizeof drained) < 0 && errno == EINTR)
        ;
    if (max && max < limit)
        limit = max;
    while (done < limit) {
        klawi_lock_acquire(&in->lock);
        op *o = klawi_link_empty(&in->ready) ? NULL : KLAWI_CONTAINER(in->ready.next, op, link);
        if (o) {
            klawi_link_remove(&o->link);
            add(in, (size_t)-1);
        }
        klawi_lock_release(&in->lock);
        if (!o)
            break;
        STATE(o) = OP_GRANTED;
        PERMIT(o) = o->host.result == KLAW_OK && o->ch->ops->permit != NULL;
        done++;
        o->fn((klaw_op *)(void *)o, o->user);
    }
    klawi_lock_acquire(&in->lock);
    if (add(in, 0) > 0)
        signal_fd(in); /* Q2: some were left, or have come meanwhile */
    klawi_lock_release(&in->lock);
    return done;
}

/* --- operations --- */
void klaw_op_init(klaw_op *p, klaw_inbox *in, void (*fn)(klaw_op *op, void *user), void *user) {
    op *o = of(p);
    memset(p, 0, sizeof *p);
    o->host.kind = KLAWI_CALLBACK;
    o->inbox = in;
    o->fn = fn;
    o->user = user;
}

void klaw_op_label(klaw_op *p, uint32_t id) {
    atomic_store_explicit(&of(p)->host.object, id, memory_order_relaxed);
}

int klaw_op_state(const klaw_op *p) {
    return (int)STATE(of(p));
}

/* Takes the channel's reference along until the operation is idle. */
static void busy(op *o, klawi_end *end, enum klawi_side side, enum op_state state) {
    o->end = end;
    o->ch = end->ch;
    atomic_fetch_add_explicit(&end->ch->refs, 1, memory_order_relaxed);
    SIDE(o) = side;
    STATE(o) = state;
}

static void idle(op *o) {
    klawi_chan *ch = o->ch;
    STATE(o) = OP_IDLE;
    PERMIT(o) = 0;
    o->ch = NULL;
    o->end = NULL;
    klawi_chan_unref(ch);
}

static klaw_err start(op *o, klawi_end *end, enum klawi_side side, size_t n, bool *waiting) {
    klawi_chan *ch = end->ch;
    if (STATE(o) != OP_IDLE || !ch->ops->selects || !waiting)
        return KLAW_INVALID;
    *waiting = false;
    if (side == KLAWI_TX && ch->ops->receives_only)
        return KLAW_TYPE;
    if (klawi_inspecting())
        klawi_end_used(end, &o->host);
    if (n != 1 && (!ch->ops->redeem_batch || n == 0 || ch->capacity == KLAW_RENDEZVOUS))
        return KLAW_INVALID;
    if (n > UINT32_MAX || (ch->capacity > 0 && n > (uint64_t)ch->capacity))
        return KLAW_LIMIT;
    for (;;) {
        klawi_fx fx;
        klawi_fx_init(&fx);
        klawi_lock_acquire(&ch->lock);
        klaw_err e = KLAW_CLOSED;
        if (!atomic_load_explicit(&end->closed, memory_order_relaxed))
            e = ch->ops->permit ? ch->ops->permit(ch, end, side, n, &fx)
                                : ch->ops->ready(ch, end, side);
        if (e == KLAW_EMPTY || e == KLAW_FULL) {
            klawi_host *h = &o->host;
            klawi_waiter_fill(&h->waiter, h, &ch->lock,
                              side == KLAWI_RX ? KLAWI_OP_PERMIT : KLAWI_OP_RESERVE, NULL, end);
            SLOTS(o) = (uint32_t)n;
            klawi_waitq_push(side == KLAWI_RX ? &ch->rq : &ch->sq, &h->waiter);
            busy(o, end, side, OP_WAITING);
            bool armed = klawi_arm(h, h->waiter.epoch);
            KLAWI_ASSERT(armed); /* nobody cancels a callback host */
            (void)armed;
            *waiting = true;
            e = KLAW_OK;
        } else if (e == KLAW_OK) {
            busy(o, end, side, OP_GRANTED);
            SLOTS(o) = (uint32_t)n;
            PERMIT(o) = ch->ops->permit != NULL;
            o->host.result = KLAW_OK;
        }
        klawi_lock_release(&ch->lock);
        klawi_fx_run(ch, &fx);
        if (e != KLAWI_GROW)
            return e;
        if ((e = ch->ops->grow(ch, end, n)) != KLAW_OK)
            return e;
    }
}

klaw_err klaw_op_recv(klaw_op *p, klaw_receiver *rx, bool *waiting) {
    return p && rx ? start(of(p), &rx->e, KLAWI_RX, 1, waiting) : KLAW_INVALID;
}

klaw_err klaw_op_send(klaw_op *p, klaw_sender *tx, bool *waiting) {
    return klaw_op_send_batch(p, tx, 1, waiting);
}

klaw_err klaw_op_send_batch(klaw_op *p, klaw_sender *tx, size_t n, bool *waiting) {
    return p && tx ? start(of(p), &tx->e, KLAWI_TX, n, waiting) : KLAW_INVALID;
}

/* One try to redeem, under the lock. */
static klaw_err redeem(op *o, void *elem, klawi_fx *fx) {
    klawi_end *end = o->end;
    klawi_chan *ch = o->ch;
    enum klawi_side side = (enum klawi_side)SIDE(o);
    if (atomic_load_explicit(&end->closed, memory_order_relaxed)) {
        if (PERMIT(o))
            ch->ops->unpermit(ch, side, SLOTS(o), fx);
        return KLAW_CLOSED;
    }
    if (PERMIT(o) && side == KLAWI_TX && SLOTS(o) > 1)
        return ch->ops->redeem_batch(ch, elem, SLOTS(o), fx);
    if (PERMIT(o))
        return ch->ops->redeem(ch, end, side, elem, fx);
    return side == KLAWI_RX ? ch->ops->try_recv(ch, end, elem, fx)
                            : ch->ops->try_send(ch, end, elem, 1, fx);
}

static void give_back(op *o) {
    if (!PERMIT(o) || KLAWI_MUTANT(OP_KEEPS_PERMIT))
        return;
    klawi_chan *ch = o->ch;
    klawi_fx fx;
    klawi_fx_init(&fx);
    klawi_lock_acquire(&ch->lock);
    ch->ops->unpermit(ch, (enum klawi_side)SIDE(o), SLOTS(o), &fx);
    klawi_lock_release(&ch->lock);
    klawi_fx_run(ch, &fx);
    PERMIT(o) = 0;
}

klaw_err klaw_op_finish(klaw_op *p, void *elem) {
    op *o = of(p);
    if (STATE(o) != OP_GRANTED || !elem)
        return KLAW_INVALID;
    klawi_end *end = o->end;
    klawi_chan *ch = o->ch;
    if (o->host.result == KLAW_CLOSED) {
        idle(o);
        return KLAW_CLOSED;
    }
    for (;;) {
        klawi_fx fx;
        klawi_fx_init(&fx);
        klawi_lock_acquire(&ch->lock);
        klaw_err e = redeem(o, elem, &fx);
        klawi_lock_release(&ch->lock);
        klawi_fx_run(ch, &fx);
        if (e == KLAWI_GROW) {
            e = ch->ops->grow(ch, end, 1);
            if (e == KLAW_OK)
                continue;
            give_back(o);
        }
        if (fx.cell)
            e = ch->ops->after(ch, end, elem, &fx);
        idle(o);
        return e;
    }
}

void klaw_receiver_visit(klaw_receiver *rx, void (*visit)(void *elem, void *user), void *user) {
    klawi_chan *ch = rx ? rx->e.ch : NULL;
    if (ch && visit && ch->ops->visit)
        ch->ops->visit(ch, visit, user);
}

void klaw_op_cancel(klaw_op *p) {
    op *o = of(p);
    if (STATE(o) == OP_WAITING) {
        klawi_chan *ch = o->ch;
        klawi_waiter *w = &o->host.waiter;
        klawi_lock_acquire(&ch->lock);
        klawi_fx fx;
        klawi_fx_init(&fx);
        bool won = klawi_claim(&o->host, w->epoch);
        if (won) {
            klawi_link_remove(&w->link);
            if (SLOTS(o) > 1 && ch->ops->unserved)
                ch->ops->unserved(ch, &fx);
        }
        klawi_lock_release(&ch->lock);
        klawi_fx_run(ch, &fx);
        if (!won) { /* Q3: granted; the push is on its way */
            while (!take_out(o))
                klawi_thread_yield();
            PERMIT(o) = o->host.result == KLAW_OK && ch->ops->permit != NULL;
            give_back(o);
        }
    } else if (STATE(o) == OP_GRANTED) {
        give_back(o);
    } else {
        return;
    }
    idle(o);
}

extern void (*klawi_callback_ready)(klawi_host *h);
__attribute__((constructor)) static void op_init(void) {
    klawi_callback_ready = push;
}
