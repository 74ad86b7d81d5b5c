/* SPDX-License-Identifier: Apache-2.0 */
/* cell.h - reference-counted cells: where broadcast and watch keep elements that have a drop. */
#ifndef KLAWI_CELL_H
#define KLAWI_CELL_H

#include "sync/chan.h"

typedef struct klawi_cell {
    _Atomic uint32_t refs;   /* (a) the channel's one, and one per pin */
    struct klawi_cell *next; /* fallen ones */
    _Alignas(16) char value[];
} klawi_cell;

static inline void klawi_cell_ref(klawi_cell *c) {
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
}
/* One reference less; the last one drops the element and frees. No lock held. */
void klawi_cell_unref(klawi_chan *ch, klawi_cell *c);
/* An empty cell with one reference for the sender to fill under the lock. NOMEM. */
klaw_err klawi_cell_spare(klawi_chan *ch, klawi_end *end);
void klawi_cell_free_spare(klawi_end *end);
/* An independent copy of the cell's element. No lock held. */
klaw_err klawi_cell_share(klawi_chan *ch, klawi_cell *c, void *elem);
/* The channel gives its reference up after the unlock. Returns NULL. */
static inline klawi_cell *klawi_cell_fall(klawi_cell *c, klawi_fx *fx) {
    c->next = fx->fallen;
    fx->fallen = c;
    return NULL;
}

#endif
