/* SPDX-License-Identifier: Apache-2.0 */
/* pool.c - several actors of one behavior behind one handle.
 *
 * A pool is a table of actors and a way to choose one of them. It runs nothing: members are replaced
 * by their own restart policies (life.c), and what changes the table does it on its caller's fiber.
 *
 *   O1  members[0..size) are counted references; they change by klaw_pool_resize only, of which there
 *       is one at a time (resizing). An ended member keeps its place until then.
 *   O2  stopped is never taken back. Who sets it, and a resize that finds it set, stops every
 *       member; so none is left running in a stopped pool.
 *   O3  former members stay in `former` until they have ended and somebody looks.
 *
 * Lock: the pool's (before the mailboxes': choosing looks into them). Messages are sent outside of
 * it, with a reference; a member that ends between answers STOPPED, and another one is chosen.
 *
 * By key: jump consistent hashing over the places, so that one more member takes an equal share from
 * each of the others and nothing else moves. A member that has ended is passed by hashing the key
 * again: only its keys move. Rejected: rendezvous hashing, which looks at all members for each
 * message.
 *
 * Rejected: a managing actor that watches the members and spawns others for those that have ended for
 * good. Their intensity would be counted twice, and what it does the restart policy does better: it
 * keeps the mailbox. */
#include "klaw/pool.h"

#include <stdio.h>

#include "actor/actor.h"
#include "base/alloc.h"
#include "klaw/scope.h"

struct klaw_pool {
    _Atomic uint32_t refs;         /* (a) */
    const klaw_behavior *behavior; /* (c) */
    void *arg;                     /* (c) */
    klaw_pool_opts opts;           /* (c) actor.name is `name`, actor.scope counted */
    char name[KLAWI_NAME_MAX];     /* (c) */

    klawi_lock lock;
    bool stopped, resizing; /* (L) O1, O2 */
    bool killed;            /* (L) stopped, and not gently */
    uint32_t size, turn;    /* (L) turn: who is next */
    klaw_actor **members;   /* (L) */
    uint32_t formers;       /* (L) */
    klaw_actor **former;    /* (L) O3 */
    uint64_t gone_handled;  /* (L) by former members that have been forgotten */
    uint64_t gone_failed, gone_restarts;
};

/* --- members --- */

static klaw_err spawn_member(klaw_pool *p, uint32_t index, klaw_actor **out) {
    char name[KLAWI_NAME_MAX + 12];
    klaw_actor_opts o = p->opts.actor;
    void *arg = p->arg;
    if (p->opts.make_arg) {
        klaw_err e = p->opts.make_arg(p->opts.user, index, &arg);
        if (e)
            return e;
    }
    snprintf(name, sizeof name, "%.*s-%u", KLAWI_NAME_MAX - 6, p->name, index);
    o.name = name;
    klaw_err e = klaw_actor_spawn(p->behavior, arg, &o, out);
    if (e && p->opts.make_arg && o.release)
        o.release(arg);
    return e;
}

/* Gives n references back; `stop`: and ends what they refer to. */
static void let_go(klaw_actor **list, uint32_t n, bool stop) {
    for (uint32_t i = 0; i < n; i++) {
        if (stop)
            klaw_actor_stop(list[i]);
        klaw_actor_unref(list[i]);
    }
}

typedef struct load {
    bool takes;     /* messages, now or when it runs again */
    bool ready;     /* has room, and does not wait for its restart */
    uint64_t tasks; /* messages it has */
} load;

static load load_of(klaw_actor *a) {
    load l;
    klawi_lock_acquire(&a->lock);
    l.takes = !a->closed && !a->ended;
    l.tasks = a->tail - a->head + a->permits + (a->self && !a->idle);
    l.ready = l.takes && a->phase != KLAW_ACTOR_BACKOFF && a->tail - a->head + a->permits < a->room;
    klawi_lock_release(&a->lock);
    return l;
}

/* --- choosing, under the lock --- */

static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Jump consistent hashing (Lamping and Veach): a place below n. */
static uint32_t place_of(uint64_t key, uint32_t n) {
    int64_t last = -1, next = 0;
    while (next < (int64_t)n) {
        last = next;
        key = key * 2862933555777941757ull + 1;
        next = (int64_t)((double)(last + 1) * ((double)(1ll << 31) / (double)((key >> 33) + 1)));
    }
    return (uint32_t)last;
}

static klaw_actor *by_key(klaw_pool *p, uint64_t key) {
    uint32_t at = 0;
    for (int tries = 0; tries < 8; tries++) {
        at = place_of(mixed(key + (uint64_t)tries * 0x9e3779b97f4a7c15ull), p->size);
        if (load_of(p->members[at]).takes)
            return p->members[at];
    }
    for (uint32_t i = 1; i < p->size; i++) {
        klaw_actor *a = p->members[(at + i) % p->size];
        if (load_of(a).takes)
            return a;
    }
    return NULL;
}

static klaw_actor *by_turns(klaw_pool *p) {
    klaw_actor *second = NULL;
    uint32_t from = p->turn++;
    for (uint32_t i = 0; i < p->size; i++) {
        klaw_actor *a = p->members[(from + i) % p->size];
        load l = load_of(a);
        if (l.ready)
            return a;
        if (l.takes && !second)
            second = a;
    }
    return second;
}

static klaw_actor *by_load(klaw_pool *p) {
    klaw_actor *best = NULL;
    load least = {0};
    uint32_t from = p->turn++; /* equals take turns */
    for (uint32_t i = 0; i < p->size; i++) {
        klaw_actor *a = p->members[(from + i) % p->size];
        load l = load_of(a);
        if (l.takes &&
            (!best || l.ready > least.ready || (l.ready == least.ready && l.tasks < least.tasks))) {
            best = a;
            least = l;
        }
    }
    return best;
}

/* One of the members, one reference; NULL: none takes messages. */
static klaw_actor *choose(klaw_pool *p, const uint64_t *key) {
    klaw_actor *a = NULL;
    klawi_lock_acquire(&p->lock);
    if (!p->stopped)
        a = key                                          ? by_key(p, *key)
            : p->opts.strategy == KLAW_POOL_LEAST_LOADED ? by_load(p)
                                                         : by_turns(p);
    klaw_actor_ref(a);
    klawi_lock_release(&p->lock);
    return a;
}

/* --- sending --- */

static klaw_err send_to(klaw_pool *p, const uint64_t *key, const void *message,
                        klaw_deadline deadline) {
    for (uint32_t tries = 0; tries <= KLAW_POOL_MAX; tries++) {
        klaw_actor *a = choose(p, key);
        if (!a)
            return KLAW_STOPPED;
        klaw_err e = klaw_actor_send(a, message, deadline);
        klaw_actor_unref(a);
        if (e != KLAW_STOPPED)
            return e;
        if (deadline < 0 && deadline != KLAW_NOWAIT)
            deadline = klaw_after(-deadline); /* it may have waited already */
    }
    return KLAW_STOPPED; /* as every member says: after a fork */
}

static klaw_err ask_of(klaw_pool *p, const uint64_t *key, const void *message, void *reply,
                       klaw_deadline deadline, bool *moved) {
    bool gone = false;
    klaw_err e = KLAW_STOPPED;
    for (uint32_t tries = 0; tries <= KLAW_POOL_MAX && e == KLAW_STOPPED && !gone; tries++) {
        klaw_actor *a = choose(p, key);
        if (!a)
            break;
        e = klaw_actor_ask_moved(a, message, reply, deadline, &gone);
        klaw_actor_unref(a);
        if (deadline < 0 && deadline != KLAW_NOWAIT)
            deadline = klaw_after(-deadline);
    }
    if (moved)
        *moved = gone;
    return e;
}

/* The key of a message without one: NULL if the strategy needs none. */
static const uint64_t *key_of(klaw_pool *p, const void *message, uint64_t *room) {
    if (p->opts.strategy != KLAW_POOL_BY_KEY)
        return NULL;
    *room = p->opts.key(message);
    return room;
}

klaw_err klaw_pool_send(klaw_pool *p, const void *message, klaw_deadline deadline) {
    uint64_t key;
    if (!p || !message)
        return KLAW_INVALID;
    return send_to(p, key_of(p, message, &key), message, deadline);
}

klaw_err klaw_pool_send_key(klaw_pool *p, uint64_t key, const void *message,
                            klaw_deadline deadline) {
    if (!p || !message)
        return KLAW_INVALID;
    return send_to(p, &key, message, deadline);
}

klaw_err klaw_pool_ask_moved(klaw_pool *p, const void *message, void *reply, klaw_deadline deadline,
                             bool *moved) {
    uint64_t key;
    if (moved)
        *moved = false;
    if (!p || !message)
        return KLAW_INVALID;
    return ask_of(p, key_of(p, message, &key), message, reply, deadline, moved);
}

klaw_err klaw_pool_ask_key_moved(klaw_pool *p, uint64_t key, const void *message, void *reply,
                                 klaw_deadline deadline, bool *moved) {
    if (moved)
        *moved = false;
    if (!p || !message)
        return KLAW_INVALID;
    return ask_of(p, &key, message, reply, deadline, moved);
}

/* --- all of them --- */

/* References to all members. KLAW_NOMEM: none. */
static klaw_err snapshot(klaw_pool *p, klaw_actor ***list, uint32_t *n) {
    for (uint32_t room = klaw_pool_size(p);;) {
        klaw_actor **all = klawi_calloc(room, sizeof *all);
        if (!all)
            return KLAW_NOMEM;
        klawi_lock_acquire(&p->lock);
        uint32_t size = p->size;
        for (uint32_t i = 0; size <= room && i < size; i++)
            all[i] = klaw_actor_ref(p->members[i]);
        klawi_lock_release(&p->lock);
        *list = all;
        *n = size;
        if (size <= room)
            return KLAW_OK;
        klawi_free(all); /* it has grown meanwhile */
        room = size;
    }
}

klaw_err klaw_pool_broadcast(klaw_pool *p, const void *message, klaw_deadline deadline,
                             uint32_t *reached) {
    klaw_actor **all;
    uint32_t n, got = 0, taking = 0;
    klaw_err first = KLAW_OK;
    if (reached)
        *reached = 0;
    if (!p || !message)
        return KLAW_INVALID;
    const klaw_type *type = p->behavior->message;
    if (type->drop && !type->share)
        return KLAW_TYPE;
    if (deadline < 0 && deadline != KLAW_NOWAIT)
        deadline = klaw_after(-deadline);
    void *copy = klawi_alloc(type->size);
    if (!copy)
        return KLAW_NOMEM;
    klaw_err e = snapshot(p, &all, &n);
    if (e) {
        klawi_free(copy);
        return e;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!load_of(all[i]).takes)
            continue;
        e = klawi_actor_send_copy(all[i], type, message, copy, deadline);
        got += e == KLAW_OK;
        taking += e != KLAW_STOPPED; /* it may have ended just now */
        if (e != KLAW_STOPPED && !first)
            first = e;
    }
    let_go(all, n, false);
    klawi_free(all);
    klawi_free(copy);
    if (reached)
        *reached = got;
    return taking ? first : KLAW_STOPPED;
}

/* --- map --- */

typedef struct mapping {
    klaw_pool *pool;
    const char *messages;
    char *replies;
    klaw_pool_outcome *outcomes;
    size_t n, size, reply_size;
    klaw_deadline deadline;
    _Atomic size_t next; /* (a relaxed) */
    _Atomic int over;    /* (a relaxed) TIMEOUT or CANCELLED: no more are begun */
    klawi_lock lock;     /* the two below */
    size_t first;        /* place of the first error, n: none */
    klaw_err error;
} mapping;

static klaw_err map_some(void *arg) {
    mapping *m = arg;
    size_t i;
    while ((i = atomic_fetch_add_explicit(&m->next, 1, memory_order_relaxed)) < m->n) {
        klaw_pool_outcome o = {.err =
                                   (klaw_err)atomic_load_explicit(&m->over, memory_order_relaxed)};
        if (o.err == KLAW_OK)
            o.err = klaw_pool_ask_moved(m->pool, m->messages + i * m->size,
                                        m->replies + i * m->reply_size, m->deadline, &o.moved);
        if (o.err == KLAW_TIMEOUT || o.err == KLAW_CANCELLED)
            atomic_store_explicit(&m->over, (int)o.err, memory_order_relaxed);
        if (m->outcomes)
            m->outcomes[i] = o;
        if (o.err == KLAW_OK)
            continue;
        klawi_lock_acquire(&m->lock);
        if (i < m->first) {
            m->first = i;
            m->error = o.err;
        }
        klawi_lock_release(&m->lock);
    }
    return KLAW_OK;
}

klaw_err klaw_pool_map(klaw_pool *p, const void *messages, size_t n, void *replies,
                       klaw_pool_outcome *outcomes, uint32_t in_flight, klaw_deadline deadline) {
    klaw_scope_opts so = {.name = "pool map"};
    klaw_scope *scope;
    if (!p || !p->behavior->reply || (n && (!messages || !replies)) || deadline == KLAW_NOWAIT)
        return KLAW_INVALID;
    if (deadline < 0)
        deadline = klaw_after(-deadline);
    mapping m = {.pool = p,
                 .messages = messages,
                 .replies = replies,
                 .outcomes = outcomes,
                 .n = n,
                 .size = p->behavior->message->size,
                 .reply_size = p->behavior->reply->size,
                 .deadline = deadline,
                 .first = n};
    klawi_lock_init(&m.lock, KLAWI_RANK_LEAF);
    uint64_t wide = in_flight ? in_flight : 2ull * klaw_pool_size(p);
    klaw_err e = klaw_scope_open(&so, &scope);
    if (e)
        return e;
    /* The caller is one of them: without memory for the others it goes on alone. */
    for (uint64_t i = 1; i < wide && i < n; i++)
        if (klaw_spawn(scope, map_some, &m, NULL, NULL))
            break;
    (void)map_some(&m);
    e = klaw_scope_close(scope);
    (void)e; /* cancelled or not, each message has its outcome */
    return m.error;
}

/* --- making and changing --- */

static klaw_err opts_check(const klaw_pool_opts *o) {
    if ((unsigned)o->strategy > KLAW_POOL_BY_KEY || o->size > KLAW_POOL_MAX)
        return KLAW_INVALID;
    if (o->strategy == KLAW_POOL_BY_KEY && !o->key)
        return KLAW_INVALID;
    if (o->actor.checkpoint_key) /* members would overwrite each other's */
        return KLAW_INVALID;
    return KLAW_OK;
}

static void destroy(klaw_pool *p) {
    let_go(p->members, p->size, false);
    let_go(p->former, p->formers, false);
    klawi_free(p->members);
    klawi_free(p->former);
    klaw_scope_unref(p->opts.actor.scope);
    klawi_free(p);
}

klaw_err klaw_pool_open_sized(const klaw_behavior *behavior, void *arg, const klaw_pool_opts *opts,
                              size_t opts_size, klaw_pool **out) {
    klaw_pool_opts o = {0};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    klaw_err e = behavior && behavior->name ? opts_check(&o) : KLAW_INVALID;
    if (e)
        return e;
    if (o.size == 0 && (o.size = klaw_run_workers()) == 0)
        return KLAW_STOPPED;
    klaw_pool *p = klawi_calloc(1, sizeof *p);
    if (!p)
        return KLAW_NOMEM;
    atomic_init(&p->refs, 1);
    klawi_lock_init(&p->lock, KLAWI_RANK_CREW);
    p->behavior = behavior;
    p->arg = arg;
    p->opts = o;
    snprintf(p->name, sizeof p->name, "%s", o.actor.name ? o.actor.name : behavior->name);
    p->opts.actor.scope = klaw_scope_ref(o.actor.scope ? o.actor.scope : klaw_scope_current());
    if (!p->opts.actor.scope) /* a thread */
        p->opts.actor.scope = klawi_root_ref();
    e = p->opts.actor.scope ? klaw_pool_resize(p, o.size) : KLAW_STOPPED;
    if (e) {
        destroy(p);
        return e;
    }
    *out = p;
    return KLAW_OK;
}

klaw_pool *klaw_pool_ref(klaw_pool *p) {
    if (p)
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void klaw_pool_unref(klaw_pool *p) {
    /* acq_rel: the last one sees what all others did. */
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    klaw_pool_stop(p);
    destroy(p);
}

/* A resize on its way. */
typedef struct change {
    uint32_t n, before;   /* members */
    klaw_actor **members; /* n */
    klaw_actor **former;  /* room for all of the old ones */
    klaw_actor **fresh;   /* n: those spawned, at their places */
    klaw_actor **dead;    /* to be given back */
    uint32_t deads;
} change;

static void change_free(change *c) {
    klawi_free(c->members);
    klawi_free(c->former);
    klawi_free(c->fresh);
    klawi_free(c->dead);
}

/* Spawns what is missing; the table can't change meanwhile (O1). */
static klaw_err change_prepare(klaw_pool *p, change *c, uint32_t n, uint32_t formers) {
    c->n = n;
    c->before = p->size;
    c->members = klawi_calloc(n, sizeof(klaw_actor *));
    c->fresh = klawi_calloc(n, sizeof(klaw_actor *));
    c->former = klawi_calloc(formers + p->size, sizeof(klaw_actor *));
    c->dead = klawi_calloc(formers + p->size, sizeof(klaw_actor *));
    if (!c->members || !c->former || !c->fresh || !c->dead)
        return KLAW_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        if (i < p->size && load_of(p->members[i]).takes)
            continue;
        klaw_err e = spawn_member(p, i, &c->fresh[i]);
        if (e)
            return e;
    }
    return KLAW_OK;
}

/* Under the lock: the new table, and the list of former members without those that have ended. */
static void change_install(klaw_pool *p, change *c) {
    uint32_t formers = 0;
    for (uint32_t i = 0; i < c->n; i++)
        c->members[i] = c->fresh[i] ? c->fresh[i] : p->members[i];
    for (uint32_t i = 0; i < p->formers + c->before; i++) {
        klaw_actor *a = i < p->formers ? p->former[i] : p->members[i - p->formers];
        uint32_t place = i - p->formers;
        if (i >= p->formers && place < c->n && !c->fresh[place])
            continue; /* stays a member */
        klawi_lock_acquire(&a->lock);
        bool ended = a->done;
        if (ended) {
            p->gone_handled += atomic_load_explicit(&a->handled, memory_order_relaxed);
            p->gone_failed += a->failed;
            p->gone_restarts += a->restarts;
        }
        klawi_lock_release(&a->lock);
        if (ended)
            c->dead[c->deads++] = a;
        else
            c->former[formers++] = a;
    }
    klaw_actor **members = p->members, **former = p->former;
    p->members = c->members;
    p->former = c->former;
    p->size = c->n;
    p->formers = formers;
    c->members = members; /* to be freed */
    c->former = former;
}

/* The i-th of those who are no members any more, then of the members; one reference. */
static klaw_actor *nth(klaw_pool *p, uint32_t i, bool members) {
    klaw_actor *a = NULL;
    klawi_lock_acquire(&p->lock);
    if (i < p->formers)
        a = klaw_actor_ref(p->former[i]);
    else if (members && i - p->formers < p->size)
        a = klaw_actor_ref(p->members[i - p->formers]);
    klawi_lock_release(&p->lock);
    return a;
}

/* Former members, or all. By index, which needs no memory: who is missed because a resize shifts
 * them is dealt with by that resize (O2). */
static void end_each(klaw_pool *p, bool all, void (*end)(klaw_actor *)) {
    klaw_actor *a;
    for (uint32_t i = 0; (a = nth(p, i, all)); i++) {
        end(a);
        klaw_actor_unref(a);
    }
}

klaw_err klaw_pool_resize(klaw_pool *p, uint32_t n) {
    change c = {0};
    if (!p || n == 0 || n > KLAW_POOL_MAX)
        return KLAW_INVALID;
    klawi_lock_acquire(&p->lock);
    klaw_err e = p->stopped ? KLAW_STOPPED : p->resizing ? KLAW_EXISTS : KLAW_OK;
    uint32_t formers = p->formers;
    if (!e)
        p->resizing = true;
    klawi_lock_release(&p->lock);
    if (e)
        return e;
    e = change_prepare(p, &c, n, formers);
    klawi_lock_acquire(&p->lock);
    bool stopped = p->stopped && !KLAWI_MUTANT(O2_UNSEEN), killed = p->killed;
    if (!e)
        change_install(p, &c);
    p->resizing = false;
    klawi_lock_release(&p->lock);
    if (e) {
        for (uint32_t i = 0; c.fresh && i < n; i++) {
            klaw_actor_kill(c.fresh[i]);
            klaw_actor_unref(c.fresh[i]);
        }
    } else {
        end_each(p, stopped, killed ? klaw_actor_kill : klaw_actor_stop); /* O2 */
        let_go(c.dead, c.deads, false);
    }
    change_free(&c);
    return e;
}

/* --- looking --- */

uint32_t klaw_pool_size(klaw_pool *p) {
    klawi_lock_acquire(&p->lock);
    uint32_t n = p->size;
    klawi_lock_release(&p->lock);
    return n;
}

klaw_actor *klaw_pool_member(klaw_pool *p, uint32_t index) {
    klaw_actor *a = NULL;
    klawi_lock_acquire(&p->lock);
    if (index < p->size)
        a = klaw_actor_ref(p->members[index]);
    klawi_lock_release(&p->lock);
    return a;
}

klaw_err klaw_pool_stats_get(klaw_pool *p, klaw_pool_stats *out) {
    if (!p || !out)
        return KLAW_INVALID;
    memset(out, 0, sizeof *out);
    klawi_lock_acquire(&p->lock);
    out->size = p->size;
    out->stopped = p->stopped;
    out->handled = p->gone_handled;
    out->failed = p->gone_failed;
    out->restarts = p->gone_restarts;
    for (uint32_t i = 0; i < p->size + p->formers; i++) {
        klaw_actor *a = i < p->size ? p->members[i] : p->former[i - p->size];
        klawi_lock_acquire(&a->lock);
        if (i < p->size)
            out->alive += !a->closed && !a->ended;
        else
            out->draining += !a->ended;
        out->mailbox_size += a->tail - a->head;
        out->handled += atomic_load_explicit(&a->handled, memory_order_relaxed);
        out->failed += a->failed;
        out->restarts += a->restarts;
        klawi_lock_release(&a->lock);
    }
    klawi_lock_release(&p->lock);
    return KLAW_OK;
}

/* --- the end --- */

static void end_all(klaw_pool *p, bool kill) {
    if (!p)
        return;
    klawi_lock_acquire(&p->lock);
    p->stopped = true;
    p->killed |= kill;
    klawi_lock_release(&p->lock);
    end_each(p, true, kill ? klaw_actor_kill : klaw_actor_stop);
}

void klaw_pool_stop(klaw_pool *p) {
    end_all(p, false);
}

void klaw_pool_kill(klaw_pool *p) {
    end_all(p, true);
}

/* Whether a resize has brought somebody who has not ended. */
static bool more_to_join(klaw_pool *p) {
    klawi_lock_acquire(&p->lock);
    bool more = p->resizing;
    for (uint32_t i = 0; i < p->size + p->formers && !more; i++) {
        klaw_actor *a = i < p->size ? p->members[i] : p->former[i - p->size];
        klawi_lock_acquire(&a->lock);
        more = !a->done;
        klawi_lock_release(&a->lock);
    }
    klawi_lock_release(&p->lock);
    return more;
}

klaw_err klaw_pool_join(klaw_pool *p, klaw_deadline deadline) {
    klaw_actor *a;
    klaw_err e = KLAW_OK;
    if (!p)
        return KLAW_INVALID;
    if (deadline < 0 && deadline != KLAW_NOWAIT)
        deadline = klaw_after(-deadline);
    do {
        for (uint32_t i = 0; !e && (a = nth(p, i, true)); i++) {
            e = klaw_actor_join(a, deadline, NULL);
            klaw_actor_unref(a);
        }
    } while (!e && more_to_join(p) && !(e = klaw_yield()));
    return e;
}
