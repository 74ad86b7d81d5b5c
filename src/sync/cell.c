/* SPDX-License-Identifier: Apache-2.0 */
/* cell.c - reference-counted cells (cell.h).
 *
 * The sender's cell is made before the lock is taken and kept as the endpoint's spare; under the
 * lock it is only filled and linked. A receive pins under the lock and copies after it. So neither
 * malloc nor share nor drop ever runs under a lock (R9). */
#include "sync/cell.h"

#include "base/alloc.h"

void klawi_cell_unref(klawi_chan *ch, klawi_cell *c) {
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (ch->type->drop)
        ch->type->drop(c->value);
    klawi_free(c);
}

void klawi_cells_fall(klawi_chan *ch, klawi_cell *c) {
    while (c) {
        klawi_cell *next = c->next;
        klawi_cell_unref(ch, c);
        c = next;
    }
}

klaw_err klawi_cell_spare(klawi_chan *ch, klawi_end *end) {
    klawi_cell *c = klawi_alloc(sizeof *c + ch->size);
    if (!c)
        return KLAW_NOMEM;
    atomic_init(&c->refs, 1);
    c->next = NULL;
    klawi_lock_acquire(&ch->lock);
    klawi_cell *extra = end->spare ? c : NULL;
    if (!extra)
        end->spare = c;
    klawi_lock_release(&ch->lock);
    klawi_free(extra);
    return KLAW_OK;
}

void klawi_cell_free_spare(klawi_end *end) {
    klawi_free(end->spare); /* never filled */
    end->spare = NULL;
}

klaw_err klawi_cell_share(klawi_chan *ch, klawi_cell *c, void *elem) {
    if (ch->type->share)
        return ch->type->share(c->value, elem);
    memcpy(elem, c->value, ch->size);
    return KLAW_OK;
}
