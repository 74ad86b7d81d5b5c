/* SPDX-License-Identifier: Apache-2.0 */
/* children.h - the table of a supervision machine: children by number, in their order, with their
 * timers and with what has yet to be told of them. It knows no rule of supervision. */
#ifndef KLAWI_POLICY_CHILDREN_H
#define KLAWI_POLICY_CHILDREN_H

#include "klaw/policy.h"

/* No child. */
#define KLAWI_NIL UINT32_MAX

/* What has to be told of a child: bits, in the order in which klawi_children_tell gives them. */
enum klawi_child_tell {
    KLAWI_TELL_RESTARTED = 1,
    KLAWI_TELL_FAILED = 2,
    KLAWI_TELL_GAVE_UP = 4,
    KLAWI_TELL_REMOVED = 8,
    KLAWI_TELL_KILL = 16,
    KLAWI_TELL_STOP = 32,
    KLAWI_TELL_START = 64
};

/* Why a child is being started; it decides what a failure means. */
enum klawi_child_origin {
    KLAWI_ORIGIN_FIRST,     /* by the beginning */
    KLAWI_ORIGIN_ADDED,     /* added later, has never run */
    KLAWI_ORIGIN_REQUESTED, /* by restart_child */
    KLAWI_ORIGIN_RESTART    /* by the machine's own decision; also: has run */
};

typedef struct klawi_child {
    uint32_t prev, next; /* in the order; free: next free one */
    uint32_t tell_next;  /* in the queue of what has to be told */
    uint32_t timer_at;   /* place in the heap, or NIL */
    uint8_t tell;        /* bits */
    uint8_t state, origin, restart;
    bool used;   /* the number is taken */
    bool gone;   /* REMOVED has to be told, nothing else */
    bool queued; /* in the queue */
    bool turn;   /* the round of restarts under way will start it */
    bool ran;    /* this start has been answered by _started */
    bool significant;
    uint32_t failures;                      /* ends in a row */
    uint32_t restarted_after, failed_after; /* failures when that was to be told */
    klaw_err error;                         /* the last one */
    int64_t shutdown, started_at, timer;
    uint64_t seq; /* grows along the order */
    uint64_t restarts;
} klawi_child;

typedef struct klawi_children {
    klawi_child *table;
    uint32_t *heap;         /* numbers, by timer, then seq */
    uint32_t size, used_to; /* of the table; numbers from used_to on were never used */
    uint32_t free;          /* first free number below used_to */
    uint32_t head, tail;    /* the order */
    uint32_t timers;        /* in the heap */
    uint32_t told_next, told_last;
    uint32_t count;
    uint64_t seq;
} klawi_children;

void klawi_children_init(klawi_children *all);
void klawi_children_free(klawi_children *all);

/* A new child at the end of the order, all zero but its links; NULL: no memory. */
klawi_child *klawi_children_add(klawi_children *all);
/* The child of a number; NULL when there is none or it is gone. */
klawi_child *klawi_children_find(const klawi_children *all, uint32_t number);
/* The child at a place of the order; NULL for NIL. */
static inline klawi_child *klawi_children_at(const klawi_children *all, uint32_t number) {
    return number == KLAWI_NIL ? NULL : &all->table[number];
}
static inline uint32_t klawi_children_number(const klawi_children *all, const klawi_child *c) {
    return (uint32_t)(c - all->table);
}
/* Takes a child out of the order; REMOVED will be told, and its number is free then. */
void klawi_children_drop(klawi_children *all, klawi_child *c);

/* Adds what has to be told of c. */
void klawi_children_tell(klawi_children *all, klawi_child *c, enum klawi_child_tell bit);
/* The next thing to tell, taken out: the bit, or 0 when there is nothing. */
int klawi_children_told(klawi_children *all, uint32_t *number);

/* Sets or moves the timer of c. */
void klawi_children_timer(klawi_children *all, klawi_child *c, int64_t at);
/* Takes it back; nothing if there is none. */
void klawi_children_no_timer(klawi_children *all, klawi_child *c);
/* The child whose timer comes first; NULL: none has one. */
klawi_child *klawi_children_first_timer(const klawi_children *all);

#endif
