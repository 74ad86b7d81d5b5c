/* SPDX-License-Identifier: Apache-2.0 */
/* children.c - the table of a supervision machine.
 *
 * Everything is found by number in one array; order, free list, queue and heap are numbers too, so
 * that the array may move when it grows. Only adding allocates, and it makes room for everything the
 * child may need later: no event can fail for lack of memory.
 *
 * Invariants:
 *   C1  a number is in use from klawi_children_add until REMOVED has been told of it.
 *   C2  seq grows strictly along the order.
 *   C3  a child is in the queue (queued) if anything has to be told of it; one in the queue of whom
 *       nothing has to be told any more is skipped.
 *   C4  heap[c->timer_at] is the number of c for each child with a timer.
 *
 * Cost: O(1) for all but timers, which are a binary heap; 10 000 children that get the same
 * deadline one after another cost O(1) each there, too. */
#include "policy/children.h"

#include <string.h>

#include "base/alloc.h"
#include "plat/plat.h"

#define FIRST_SIZE 8

void klawi_children_init(klawi_children *all) {
    memset(all, 0, sizeof *all);
    all->free = all->head = all->tail = all->told_next = all->told_last = KLAWI_NIL;
}

void klawi_children_free(klawi_children *all) {
    klawi_free(all->table);
    klawi_free(all->heap);
}

static bool grow(klawi_children *all) {
    uint32_t size = all->size ? all->size * 2 : FIRST_SIZE;
    klawi_child *table = klawi_realloc(all->table, size * sizeof *table);
    if (!table)
        return false;
    all->table = table;
    uint32_t *heap = klawi_realloc(all->heap, size * sizeof *heap);
    if (!heap)
        return false;
    all->heap = heap;
    all->size = size;
    return true;
}

klawi_child *klawi_children_add(klawi_children *all) {
    uint32_t number = all->free;
    if (number != KLAWI_NIL)
        all->free = all->table[number].next;
    else if (all->used_to < all->size || grow(all))
        number = all->used_to++;
    else
        return NULL;
    klawi_child *c = &all->table[number];
    *c = (klawi_child){.prev = all->tail,
                       .next = KLAWI_NIL,
                       .tell_next = KLAWI_NIL,
                       .timer_at = KLAWI_NIL,
                       .used = true,
                       .seq = ++all->seq};
    if (all->tail != KLAWI_NIL)
        all->table[all->tail].next = number;
    else
        all->head = number;
    all->tail = number;
    all->count++;
    return c;
}

klawi_child *klawi_children_find(const klawi_children *all, uint32_t number) {
    if (number >= all->used_to || !all->table[number].used || all->table[number].gone)
        return NULL;
    return &all->table[number];
}

void klawi_children_drop(klawi_children *all, klawi_child *c) {
    klawi_child *before = klawi_children_at(all, c->prev), *after = klawi_children_at(all, c->next);
    klawi_children_no_timer(all, c);
    *(before ? &before->next : &all->head) = c->next;
    *(after ? &after->prev : &all->tail) = c->prev;
    c->gone = true;
    all->count--;
    klawi_children_tell(all, c, KLAWI_TELL_REMOVED);
}

/* --- what has to be told --- */

void klawi_children_tell(klawi_children *all, klawi_child *c, enum klawi_child_tell bit) {
    uint32_t number = klawi_children_number(all, c);
    c->tell |= (uint8_t)bit;
    if (c->queued)
        return;
    KLAWI_ASSERT(all->table);
    c->queued = true;
    c->tell_next = KLAWI_NIL;
    if (all->told_last != KLAWI_NIL)
        all->table[all->told_last].tell_next = number;
    else
        all->told_next = number;
    all->told_last = number;
}

static void free_number(klawi_children *all, uint32_t number) {
    klawi_child *c = &all->table[number];
    c->used = false;
    c->next = all->free;
    all->free = number;
}

int klawi_children_told(klawi_children *all, uint32_t *number) {
    while (all->told_next != KLAWI_NIL) {
        klawi_child *c = &all->table[all->told_next];
        int bit = c->tell & -c->tell;
        *number = all->told_next;
        c->tell &= (uint8_t)~bit;
        if (c->tell == 0) {
            all->told_next = c->tell_next;
            if (all->told_next == KLAWI_NIL)
                all->told_last = KLAWI_NIL;
            c->queued = false;
        }
        if (bit == KLAWI_TELL_REMOVED)
            free_number(all, *number);
        if (bit)
            return bit;
    }
    return 0;
}

/* --- timers --- */

static bool earlier(const klawi_children *all, uint32_t a, uint32_t b) {
    const klawi_child *x = &all->table[a], *y = &all->table[b];
    return x->timer != y->timer ? x->timer < y->timer : x->seq < y->seq;
}

static void place(klawi_children *all, uint32_t at, uint32_t number) {
    all->heap[at] = number;
    all->table[number].timer_at = at;
}

static void up(klawi_children *all, uint32_t at, uint32_t number) {
    for (; at > 0 && earlier(all, number, all->heap[(at - 1) / 2]); at = (at - 1) / 2)
        place(all, at, all->heap[(at - 1) / 2]);
    place(all, at, number);
}

static void down(klawi_children *all, uint32_t at, uint32_t number) {
    for (uint32_t below; (below = 2 * at + 1) < all->timers; at = below) {
        if (below + 1 < all->timers && earlier(all, all->heap[below + 1], all->heap[below]))
            below++;
        if (!earlier(all, all->heap[below], number))
            break;
        place(all, at, all->heap[below]);
    }
    place(all, at, number);
}

void klawi_children_timer(klawi_children *all, klawi_child *c, int64_t at) {
    klawi_children_no_timer(all, c);
    c->timer = at;
    up(all, all->timers++, klawi_children_number(all, c));
}

void klawi_children_no_timer(klawi_children *all, klawi_child *c) {
    uint32_t hole = c->timer_at;
    if (hole == KLAWI_NIL)
        return;
    c->timer_at = KLAWI_NIL;
    uint32_t last = all->heap[--all->timers];
    if (hole == all->timers)
        return;
    up(all, hole, last);
    down(all, all->table[last].timer_at, last);
}

klawi_child *klawi_children_first_timer(const klawi_children *all) {
    return all->timers ? &all->table[all->heap[0]] : NULL;
}
