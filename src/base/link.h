/* SPDX-License-Identifier: Apache-2.0 */
/* link.h - circular doubly linked lists whose head is a bare link; unlinking needs no head. */
#ifndef KLAWI_LINK_H
#define KLAWI_LINK_H

#include "plat/plat.h"

typedef struct klawi_link {
    struct klawi_link *next, *prev;
} klawi_link;

static inline void klawi_link_init(klawi_link *head) {
    head->next = head->prev = head;
}
static inline bool klawi_link_empty(const klawi_link *head) {
    return head->next == head;
}
/* At the tail. */
static inline void klawi_link_push(klawi_link *head, klawi_link *l) {
    klawi_link *last = head->prev;
    l->next = head;
    l->prev = last;
    last->next = l;
    head->prev = l;
}
/* Unlinks; l->next becomes NULL, which says "not linked". */
static inline void klawi_link_remove(klawi_link *l) {
    KLAWI_ASSERT(l->next && l->prev);
    l->next->prev = l->prev;
    l->prev->next = l->next;
    l->next = NULL;
}

#endif
