/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - names and groups of actors.
 *
 * A `place` is a name or a group; it holds `seats`, one per member (a name has one). A place is
 * found by its name, the seats of an actor by the actor's id, each in a hash table of bare links. A
 * name that is awaited before it exists has `hopes` instead, in buckets of their own.
 *
 * Invariants whenever the lock is free:
 *   G1  a place has at least one seat, a name exactly one; a seat is in its place and in its
 *       actor's bucket, and holds a reference.
 *   G2  a name that is registered has no hopes: registering takes them off, a hope is only added
 *       while the name is not there.
 *   G3  no seat belongs to an actor whose klawi_registry_forget has begun after it: alive is looked
 *       at under the lock, and forget comes after alive has become false. Either registering was
 *       first, then forget finds the seat; or forget was, then the actor is not alive any more.
 *   G4  seats of one group have actors of one message type, the group's.
 *
 * One lock guards everything (rank REGISTRY; an actor's own lock may be taken inside). Blocks are
 * made before and freed after it is held, references given back after it. Tables start with a few
 * static buckets, grow by doubling and are given back when the registry is empty.
 *
 * Wake-ups: a hope is a oneshot. Who takes a hope off under the lock owns the list's half of it
 * from then on and sends the reference after the lock. A reference that nobody takes (deadline,
 * cancellation) is dropped by the channel.
 *
 * Rejected: names in the actor itself, which would make lookups walk; a lock per bucket, which an
 * actor's end would have to take all of. */
#include "actor/registry.h"

#include <string.h>

#include "actor/actor.h"
#include "base/alloc.h"
#include "base/inspect.h"
#include "base/link.h"
#include "base/lock.h"
#include "base/text.h"
#include "klaw/oneshot.h"
#include "sched/mutant.h"

#define STATIC_BUCKETS 64u
#define INLINE_MEMBERS 32

typedef struct place {
    klawi_link bucket;     /* (L) */
    klawi_link seats;      /* (L) in the order of joining */
    size_t n;              /* (L) seats */
    const klaw_type *type; /* (c) of a group's messages */
    uint64_t hash;         /* (c) */
    bool group;            /* (c) */
    char name[KLAW_NAME_MAX + 1];
} place;

typedef struct seat {
    klawi_link at_place; /* (L) */
    klawi_link at_actor; /* (L) */
    place *place;        /* (L) */
    klaw_actor *actor;   /* (c) counted */
    uint64_t id;         /* (c) the actor's */
} seat;

typedef struct hope {
    klawi_link link;       /* (L) next NULL: taken off */
    struct hope *chain;    /* whose it is that took it off */
    _Atomic uint32_t refs; /* (a) the one who waits; the list, then who took it off */
    klaw_sender *tx;       /* (c) */
    uint64_t hash;         /* (c) */
    char name[KLAW_NAME_MAX + 1];
} hope;

typedef struct table {
    klawi_link *buckets; /* (L) NULL: not in use yet */
    size_t n;            /* (L) buckets, a power of two */
    size_t items;        /* (L) */
    klawi_link first[STATIC_BUCKETS];
} table;

static struct {
    klawi_lock lock;
    table places, seats;
    klawi_link hopes[STATIC_BUCKETS]; /* (L) next NULL: not in use yet */
    size_t waiting;                   /* (L) */
} reg = {.lock = KLAWI_LOCK_INIT(KLAWI_RANK_REGISTRY)};

/* --- names --- */
static klaw_err check_name(const char *name, uint64_t *hash, bool group) {
    if (!name || !*name)
        return KLAW_INVALID;
    size_t n = strnlen(name, KLAW_NAME_MAX + 1);
    if (n > KLAW_NAME_MAX)
        return KLAW_LIMIT;
    if (!klawi_utf8_valid(name, n))
        return KLAW_INVALID;
    uint64_t h = 0xcbf29ce484222325u + group; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)name[i]) * 0x100000001b3u;
    *hash = h ^ h >> 32;
    return KLAW_OK;
}

static uint64_t id_hash(uint64_t id) {
    uint64_t h = id * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* --- tables --- */
static void buckets_init(klawi_link *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        klawi_link_init(&b[i]);
}

/* Under the lock. */
static klawi_link *bucket(table *t, uint64_t hash) {
    if (!t->buckets) {
        t->buckets = t->first;
        t->n = STATIC_BUCKETS;
        buckets_init(t->first, STATIC_BUCKETS);
    }
    return &t->buckets[hash & (t->n - 1)];
}

/* The buckets a table with one item more needs; 0: those it has. */
static size_t wanted(const table *t) {
    return t->n && t->items >= 2 * t->n ? 4 * t->n : 0;
}

static uint64_t place_hash(klawi_link *l) {
    return KLAWI_CONTAINER(l, place, bucket)->hash;
}
static uint64_t seat_hash(klawi_link *l) {
    return id_hash(KLAWI_CONTAINER(l, seat, at_actor)->id);
}

/* Moves everything into `fresh` (n buckets); what was there before, for the caller to free. */
static klawi_link *rehash(table *t, klawi_link *fresh, size_t n, uint64_t (*hash)(klawi_link *)) {
    klawi_link *old = t->buckets;
    buckets_init(fresh, n);
    for (size_t i = 0; i < t->n; i++)
        while (!klawi_link_empty(&old[i])) {
            klawi_link *l = old[i].next;
            klawi_link_remove(l);
            klawi_link_push(&fresh[hash(l) & (n - 1)], l);
        }
    t->buckets = fresh;
    t->n = n;
    return old == t->first ? NULL : old;
}

/* Grows the table by what is needed now. Without memory it stays as it is: slower, not wrong. */
static void table_grow(table *t, uint64_t (*hash)(klawi_link *)) {
    klawi_lock_acquire(&reg.lock);
    size_t n = wanted(t);
    klawi_lock_release(&reg.lock);
    klawi_link *fresh = n ? klawi_calloc(n, sizeof *fresh) : NULL;
    if (!fresh)
        return;
    klawi_lock_acquire(&reg.lock);
    if (wanted(t) == n)
        fresh = rehash(t, fresh, n, hash);
    klawi_lock_release(&reg.lock);
    klawi_free(fresh);
}

/* What an empty table gives back. Under the lock. */
static klawi_link *table_shed(table *t) {
    klawi_link *old = t->buckets;
    if (t->items > 0 || !old || old == t->first)
        return NULL;
    t->buckets = NULL;
    t->n = 0;
    return old;
}

/* --- finding; under the lock --- */
static place *find_place(const char *name, uint64_t hash, bool group) {
    klawi_link *head = bucket(&reg.places, hash);
    for (klawi_link *l = head->next; l != head; l = l->next) {
        place *p = KLAWI_CONTAINER(l, place, bucket);
        if (p->hash == hash && p->group == group && strcmp(p->name, name) == 0)
            return p;
    }
    return NULL;
}

static seat *first_seat(place *p) {
    return KLAWI_CONTAINER(p->seats.next, seat, at_place);
}

/* The actor's seat at this place; NULL: any. */
static seat *find_seat(uint64_t id, const place *p) {
    klawi_link *head = bucket(&reg.seats, id_hash(id));
    for (klawi_link *l = head->next; l != head; l = l->next) {
        seat *s = KLAWI_CONTAINER(l, seat, at_actor);
        if (s->id == id && (!p || s->place == p))
            return s;
    }
    return NULL;
}

/* --- taking and leaving seats --- */
/* What is to be freed once the lock is gone. */
struct waste {
    seat *seats;   /* chained by at_place.next */
    place *places; /* chained by bucket.next */
    klawi_link *tables[2];
};

static void waste_free(struct waste *w) {
    while (w->seats) {
        seat *s = w->seats;
        w->seats = (seat *)(void *)s->at_place.next;
        klaw_actor_unref(s->actor);
        klawi_free(s);
    }
    while (w->places) {
        place *p = w->places;
        w->places = (place *)(void *)p->bucket.next;
        klawi_free(p);
    }
    klawi_free(w->tables[0]);
    klawi_free(w->tables[1]);
}

/* Under the lock. */
static void seat_leave(seat *s, struct waste *w) {
    place *p = s->place;
    klawi_link_remove(&s->at_place);
    klawi_link_remove(&s->at_actor);
    s->at_place.next = (klawi_link *)(void *)w->seats;
    w->seats = s;
    reg.seats.items--;
    if (--p->n == 0) {
        klawi_link_remove(&p->bucket);
        p->bucket.next = (klawi_link *)(void *)w->places;
        w->places = p;
        reg.places.items--;
        w->tables[0] = table_shed(&reg.places);
        w->tables[1] = table_shed(&reg.seats);
    }
}

/* Under the lock. */
static void seat_take(seat *s, place *p) {
    s->place = p;
    klawi_link_push(&p->seats, &s->at_place);
    klawi_link_push(bucket(&reg.seats, id_hash(s->id)), &s->at_actor);
    reg.seats.items++;
    p->n++;
}

/* Those who await the name, off their list, in order. Under the lock. */
static hope *hopes_take(const char *name, uint64_t hash) {
    klawi_link *head = &reg.hopes[hash % STATIC_BUCKETS];
    hope *first = NULL, **last = &first;
    if (!head->next)
        return NULL;
    for (klawi_link *l = head->next, *next; l != head; l = next) {
        hope *h = KLAWI_CONTAINER(l, hope, link);
        next = l->next;
        if (h->hash != hash || strcmp(h->name, name) != 0)
            continue;
        klawi_link_remove(l);
        reg.waiting--;
        h->chain = NULL;
        *last = h;
        last = &h->chain;
    }
    return first;
}

static void hope_unref(hope *h) {
    /* Both sides: whoever is last must see what the other one did. */
    if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) > 1)
        return;
    klaw_sender_unref(h->tx);
    klawi_free(h);
}

static void hopes_fulfil(hope *h, klaw_actor *a) {
    while (h) {
        hope *next = h->chain;
        klaw_actor *ref = klaw_actor_ref(a);
        if (klaw_send(h->tx, &ref, KLAW_NOWAIT) != KLAW_OK)
            klaw_actor_unref(ref); /* it has left */
        hope_unref(h);
        h = next;
    }
}

static klaw_err settle(const char *name, uint64_t hash, bool group, klaw_actor *a) {
    seat *s = klawi_calloc(1, sizeof *s);
    place *p = klawi_calloc(1, sizeof *p), *there;
    hope *hopes = NULL;
    klaw_err e = s && p ? KLAW_OK : KLAW_NOMEM;
    if (e)
        goto out;
    const klaw_type *type = klaw_actor_behavior(a)->message;
    s->actor = klaw_actor_ref(a);
    s->id = klaw_actor_id(a);
    p->hash = hash;
    p->group = group;
    p->type = type;
    memcpy(p->name, name, strlen(name));
    klawi_link_init(&p->seats);
    table_grow(&reg.places, place_hash);
    table_grow(&reg.seats, seat_hash);
    bool alive = !KLAWI_MUTANT(G3_NAME_THE_DEAD) || klaw_actor_alive(a);
    klawi_lock_acquire(&reg.lock);
    there = find_place(name, hash, group);
    /* Before the look at `ended`, which takes the lock of the actor that forget comes after. */
    atomic_store_explicit(&a->named, true, memory_order_relaxed);
    if (KLAWI_MUTANT(G3_NAME_THE_DEAD) ? !alive : !klaw_actor_alive(a))
        e = KLAW_STOPPED;
    else if (there && (!group || find_seat(s->id, there)))
        e = KLAW_EXISTS;
    else if (there && there->type != type)
        e = KLAW_TYPE;
    if (e == KLAW_OK) {
        if (!there) {
            klawi_link_push(bucket(&reg.places, hash), &p->bucket);
            reg.places.items++;
        }
        seat_take(s, there ? there : p);
        p = there ? p : NULL;
        s = NULL;
        hopes = group ? NULL : hopes_take(name, hash);
    }
    klawi_lock_release(&reg.lock);
    hopes_fulfil(hopes, a);
out:
    if (s)
        klaw_actor_unref(s->actor);
    klawi_free(s);
    klawi_free(p);
    return e;
}

void klawi_registry_forget(klaw_actor *a) {
    struct waste w = {0};
    klawi_lock_acquire(&reg.lock);
    for (seat *s; (s = find_seat(klaw_actor_id(a), NULL)) != NULL;)
        seat_leave(s, &w);
    klawi_lock_release(&reg.lock);
    waste_free(&w);
}

/* --- names --- */
klaw_err klaw_registry_register(const char *name, klaw_actor *actor) {
    uint64_t hash;
    klaw_err e = check_name(name, &hash, false);
    return e ? e : actor ? settle(name, hash, false, actor) : KLAW_INVALID;
}

klaw_err klaw_registry_unregister(const char *name) {
    uint64_t hash;
    struct waste w = {0};
    klaw_err e = check_name(name, &hash, false);
    if (e)
        return e;
    klawi_lock_acquire(&reg.lock);
    place *p = find_place(name, hash, false);
    if (p)
        seat_leave(first_seat(p), &w);
    klawi_lock_release(&reg.lock);
    waste_free(&w);
    return p ? KLAW_OK : KLAW_NOT_FOUND;
}

/* `hope`, if any, is added when nobody has the name (G2). */
static klaw_err look(const char *name, uint64_t hash, hope *h, klaw_actor **out) {
    klawi_lock_acquire(&reg.lock);
    place *p = h && KLAWI_MUTANT(G2_HOPE_IN_VAIN) ? NULL : find_place(name, hash, false);
    if (p) {
        *out = klaw_actor_ref(first_seat(p)->actor);
    } else if (h) {
        klawi_link *head = &reg.hopes[hash % STATIC_BUCKETS];
        if (!head->next)
            klawi_link_init(head);
        klawi_link_push(head, &h->link);
        reg.waiting++;
    }
    klawi_lock_release(&reg.lock);
    return p ? KLAW_OK : KLAW_NOT_FOUND;
}

klaw_err klaw_whereis(const char *name, klaw_actor **out) {
    uint64_t hash;
    klaw_err e = check_name(name, &hash, false);
    return e ? e : out ? look(name, hash, NULL, out) : KLAW_INVALID;
}

klaw_err klaw_registry_get(const char *name, const klaw_type *message, klaw_actor **out) {
    klaw_actor *a = NULL;
    if (!message || !out)
        return KLAW_INVALID;
    klaw_err e = klaw_whereis(name, &a);
    if (e)
        return e;
    if (klaw_actor_behavior(a)->message != message) {
        klaw_actor_unref(a);
        return KLAW_TYPE;
    }
    *out = a;
    return KLAW_OK;
}

static void ref_drop(void *elem) {
    klaw_actor_unref(*(klaw_actor **)elem);
}
static const klaw_type ref_type = {
    .name = "klaw_actor *", .size = sizeof(klaw_actor *), .drop = ref_drop};

static klaw_err hope_new(const char *name, uint64_t hash, hope **out, klaw_receiver **rx) {
    hope *h = klawi_calloc(1, sizeof *h);
    if (!h)
        return KLAW_NOMEM;
    klaw_err e = klaw_oneshot(&ref_type, &h->tx, rx);
    if (e) {
        klawi_free(h);
        return e;
    }
    atomic_init(&h->refs, 2);
    h->hash = hash;
    memcpy(h->name, name, strlen(name));
    *out = h;
    return KLAW_OK;
}

/* It is not wanted any more: off the list, unless it has been taken off. */
static void hope_give_up(hope *h) {
    klawi_lock_acquire(&reg.lock);
    bool ours = h->link.next != NULL;
    if (ours) {
        klawi_link_remove(&h->link);
        reg.waiting--;
    }
    klawi_lock_release(&reg.lock);
    if (ours)
        hope_unref(h);
}

klaw_err klaw_registry_await(const char *name, klaw_deadline deadline, klaw_actor **out) {
    uint64_t hash;
    hope *h;
    klaw_receiver *rx;
    klaw_err e = check_name(name, &hash, false);
    if (e || !out)
        return e ? e : KLAW_INVALID;
    e = look(name, hash, NULL, out);
    if (e == KLAW_OK || deadline == KLAW_NOWAIT)
        return e;
    if ((e = hope_new(name, hash, &h, &rx)) != KLAW_OK)
        return e;
    if (look(name, hash, h, out) == KLAW_OK) {
        hope_unref(h);
    } else {
        e = klaw_recv(rx, out, deadline);
        if (e)
            hope_give_up(h);
        /* Taken off meanwhile, and sent already: then it has happened. */
        if (e && klaw_recv(rx, out, KLAW_NOWAIT) == KLAW_OK)
            e = KLAW_OK;
    }
    hope_unref(h);
    klaw_receiver_unref(rx);
    return e;
}

size_t klawi_registry_waiting(void) {
    klawi_lock_acquire(&reg.lock);
    size_t n = reg.waiting;
    klawi_lock_release(&reg.lock);
    return n;
}

/* --- groups --- */
klaw_err klaw_group_join(const char *group, klaw_actor *actor) {
    uint64_t hash;
    klaw_err e = check_name(group, &hash, true);
    return e ? e : actor ? settle(group, hash, true, actor) : KLAW_INVALID;
}

klaw_err klaw_group_leave(const char *group, klaw_actor *actor) {
    uint64_t hash;
    struct waste w = {0};
    klaw_err e = check_name(group, &hash, true);
    if (e || !actor)
        return e ? e : KLAW_INVALID;
    klawi_lock_acquire(&reg.lock);
    place *p = find_place(group, hash, true);
    seat *s = p ? find_seat(klaw_actor_id(actor), p) : NULL;
    if (s)
        seat_leave(s, &w);
    klawi_lock_release(&reg.lock);
    waste_free(&w);
    return s ? KLAW_OK : KLAW_NOT_FOUND;
}

/* Looks at the group: its size, its type (NULL allowed), references to the first `max`. */
static klaw_err look_group(const char *group, uint64_t hash, klaw_actor **out, size_t max,
                           size_t *n, const klaw_type **type) {
    *n = 0;
    klawi_lock_acquire(&reg.lock);
    place *p = find_place(group, hash, true);
    if (p) {
        klawi_link *l = p->seats.next;
        *n = p->n;
        for (size_t i = 0; i < max && i < p->n; i++, l = l->next)
            out[i] = klaw_actor_ref(KLAWI_CONTAINER(l, seat, at_place)->actor);
        if (type)
            *type = p->type;
    }
    klawi_lock_release(&reg.lock);
    return p ? KLAW_OK : KLAW_NOT_FOUND;
}

klaw_err klaw_group_members(const char *group, klaw_actor **out, size_t max, size_t *n) {
    uint64_t hash;
    klaw_err e = check_name(group, &hash, true);
    if (e || !n || (max && !out))
        return e ? e : KLAW_INVALID;
    return look_group(group, hash, out, max, n, NULL);
}

static void unref_all(klaw_actor **a, size_t n) {
    for (size_t i = 0; i < n; i++)
        klaw_actor_unref(a[i]);
}

/* All members of the moment, in `room` or, when there are more, in a block (*block). */
static klaw_err group_take(const char *group, uint64_t hash, klaw_actor **room, klaw_actor ***block,
                           size_t *n, const klaw_type **type) {
    size_t max = INLINE_MEMBERS;
    klaw_actor **at = room;
    *block = NULL;
    for (;;) {
        klaw_err e = look_group(group, hash, at, max, n, type);
        if (e == KLAW_OK && *n <= max)
            return KLAW_OK;
        unref_all(at, *n < max ? *n : max);
        klawi_free(*block);
        *block = NULL;
        if (e)
            return e;
        max = *n + *n / 4;
        if ((at = *block = klawi_calloc(max, sizeof *at)) == NULL)
            return KLAW_NOMEM;
    }
}

/* One copy to one member. OK also for one that has ended. */
static klaw_err send_copy(klaw_actor *a, const klaw_type *type, const void *message, void *copy,
                          klaw_deadline deadline, size_t *sent) {
    klaw_err e = klawi_actor_send_copy(a, type, message, copy, deadline);
    *sent += e == KLAW_OK;
    return e == KLAW_STOPPED ? KLAW_OK : e;
}

/* First all that have room, then those who have to be waited for: a slow member delays itself. */
static klaw_err send_all(klaw_actor **a, size_t n, const klaw_type *type, const void *message,
                         void *copy, klaw_deadline deadline, size_t *sent) {
    klaw_err first = KLAW_OK;
    size_t full = 0;
    for (size_t i = 0; i < n; i++) {
        klaw_err e = send_copy(a[i], type, message, copy, KLAW_NOWAIT, sent);
        if (e == KLAW_FULL && deadline != KLAW_NOWAIT) { /* kept in front, for later */
            klaw_actor *later = a[i];
            a[i] = a[full];
            a[full++] = later;
        } else if (e && !first) {
            first = e;
        }
    }
    for (size_t i = 0; i < full; i++) {
        klaw_err e = send_copy(a[i], type, message, copy, deadline, sent);
        if (e && !first)
            first = e;
    }
    return first;
}

klaw_err klaw_group_send(const char *group, const klaw_type *type, const void *message,
                         klaw_deadline deadline, size_t *sent) {
    uint64_t hash;
    klaw_actor *room[INLINE_MEMBERS], **block;
    const klaw_type *theirs = NULL;
    size_t n, count = 0;
    klaw_err e = check_name(group, &hash, true);
    if (sent)
        *sent = 0;
    if (e || !type || !message)
        return e ? e : KLAW_INVALID;
    if (type->drop && !type->share)
        return KLAW_TYPE;
    if ((e = group_take(group, hash, room, &block, &n, &theirs)) != KLAW_OK)
        return e;
    /* One deadline for all, not one each. */
    if (deadline < 0 && deadline != KLAW_NOWAIT)
        deadline = klaw_after(-deadline);
    void *copy = klawi_alloc(type->size);
    if (theirs != type)
        e = KLAW_TYPE;
    else
        e = copy ? send_all(block ? block : room, n, type, message, copy, deadline, &count)
                 : KLAW_NOMEM;
    klawi_free(copy);
    unref_all(block ? block : room, n);
    klawi_free(block);
    if (sent)
        *sent = count;
    return e;
}

/* --- inspect --- */
static size_t names_count(void) {
    klawi_lock_acquire(&reg.lock);
    size_t n = reg.seats.items;
    klawi_lock_release(&reg.lock);
    return n;
}

static size_t names_fill(void *out, size_t max) {
    klaw_name_info *info = out;
    size_t n = 0;
    klawi_lock_acquire(&reg.lock);
    for (size_t i = 0; i < reg.seats.n; i++) {
        klawi_link *head = &reg.seats.buckets[i];
        for (klawi_link *l = head->next; l != head; l = l->next) {
            seat *s = KLAWI_CONTAINER(l, seat, at_actor);
            if (n++ >= max)
                continue;
            info[n - 1].actor_id = s->id;
            info[n - 1].group = s->place->group;
            memcpy(info[n - 1].name, s->place->name, sizeof info->name);
        }
    }
    klawi_lock_release(&reg.lock);
    return n;
}

static void names_json(struct klawi_text *t, const void *item) {
    const klaw_name_info *i = item;
    bool first = true;
    klawi_text_str(t, "{");
    klawi_text_member(t, &first, "name");
    (void)klawi_text_json_string(t, i->name, strlen(i->name));
    klawi_text_member(t, &first, "actor_id");
    klawi_text_u64(t, i->actor_id);
    klawi_text_member(t, &first, "group");
    klawi_text_bool(t, i->group);
    klawi_text_str(t, "}");
}

static const struct klawi_inspect_provider names = {"name", names_count, names_fill,
                                                    sizeof(klaw_name_info), names_json};

const klaw_name_info *klaw_snapshot_names(const klaw_snapshot *snap, size_t *n) {
    return klawi_snapshot_items(snap, "name", n);
}

__attribute__((constructor)) static void registry_init(void) {
    klawi_inspect_provide(&names);
}
