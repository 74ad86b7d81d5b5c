/* SPDX-License-Identifier: Apache-2.0 */
/* hub_call.c - the calls a hub has to make.
 *
 * An attach goes first and alone until it is answered; it states all that is open, with what was
 * received if the broker has started anew (W26). Then frames: one at once while nothing is under
 * way, others beside it when they are worth a call, so that many small sends share one. A poll is kept at the broker
 * (W16); what it can't say any more because it waits there (credits, acknowledgements) a renew says.
 *
 * A call that failed is made again from what is true by then; its number makes the repetition
 * harmless. */
#include "policy/hub.h"

void klawi_slot_reset(klawi_slot *s) {
    klawi_ranges_free(&s->acks);
    klawi_free(s->nacks.at);
    *s = (klawi_slot){0};
}

void klawi_hub_slots_reset(klaw_hub *h) {
    klawi_slot_reset(&h->attach);
    klawi_slot_reset(&h->polling);
    klawi_slot_reset(&h->renew);
    for (uint32_t i = 0; i < h->opts.in_flight; i++)
        klawi_slot_reset(&h->push[i]);
}

bool klawi_hub_push_idle(const klaw_hub *h) {
    for (uint32_t i = 0; i < h->opts.in_flight; i++)
        if (h->push[i].state != KLAWI_SLOT_FREE)
            return false;
    return true;
}

static bool may_go(const klaw_hub *h, const klawi_slot *s) {
    return s->state == KLAWI_SLOT_FREE || (s->state == KLAWI_SLOT_AGAIN && h->now >= s->at);
}

static void head(klaw_hub *h, klawi_out *o, enum klawi_wire_kind kind, uint64_t number) {
    klawi_wire_call c = {kind, h->opts.channel, h->opts.client, h->boot, number};
    klawi_out_call(o, &c);
}

/* Seals it and fills *out; false: no memory, the slot stays as it was. */
static bool send(klaw_hub *h, klawi_slot *s, klaw_hub_call_kind kind, uint64_t number, klawi_out *o,
                 klaw_hub_call *out) {
    if (!klawi_out_seal(o))
        return false;
    s->state = KLAWI_SLOT_OUT;
    s->kind = kind;
    s->number = number;
    s->id = ++h->ids;
    s->at = h->now;
    *out = (klaw_hub_call){.id = s->id, .data = o->data, .size = o->size, .kind = kind};
    return true;
}

/* --- attach --- */

static void write_side(const klaw_hub *h, klawi_out *o, klaw_remote_side side) {
    uint64_t n = 0;
    for (size_t i = 0; i < h->n_endpoints; i++)
        n += h->endpoints[i]->side == side;
    klawi_out_var(o, n);
    for (size_t i = 0; i < h->n_endpoints; i++)
        if (h->endpoints[i]->side == side)
            klawi_out_var(o, h->endpoints[i]->id);
}

static void write_tokens(klaw_hub *h, klawi_out *o, bool claimed, uint64_t number) {
    uint64_t n = 0;
    for (size_t i = 0; i < h->n_tokens; i++)
        n += h->tokens[i].claimed == claimed && !h->tokens[i].known;
    klawi_out_var(o, n);
    for (size_t i = 0; i < h->n_tokens; i++) {
        klawi_hub_token *t = &h->tokens[i];
        if (t->claimed != claimed || t->known)
            continue;
        klawi_out_raw(o, t->id, KLAW_REMOTE_ID);
        klawi_out_u8(o, t->side);
        t->number = number;
    }
}

/* What was received of each sender and is not live (QUEUE). false: no memory. */
static bool make_done(klaw_hub *h) {
    for (klawi_origin *from = h->origins; from; from = from->next) {
        klawi_had *had = from->n_had ? &from->had[0] : NULL;
        if (!had)
            continue;
        had->done.n = 0;
        if (!klawi_ranges_reserve(&had->done, had->seqs.n + (size_t)had->live + 1))
            return false;
        if (had->seqs.n)
            memcpy(had->done.at, had->seqs.at, had->seqs.n * sizeof *had->seqs.at);
        had->done.n = had->seqs.n;
    }
    for (uint64_t i = h->lease_base; i < h->lease_next; i++) {
        const klawi_hub_lease *l = &h->leases[i & h->lease_mask];
        if (l->state != KLAWI_HUB_NONE)
            klawi_ranges_remove(&l->from->had[0].done, l->seq);
    }
    return true;
}

/* What was received of whom, and which leases are still open (W26). */
static void write_resume(klaw_hub *h, klawi_out *o) {
    bool queue = h->opts.kind == KLAW_REMOTE_QUEUE;
    klawi_out_var(o, h->kept.first);
    klawi_out_var(o, h->accepted);
    klawi_out_u8(o, h->heard);
    klawi_out_var(o, h->heard_stamp);
    klawi_out_var(o, h->heard_orphans);
    uint64_t n = 0;
    o->failed |= queue && !make_done(h);
    klawi_out_var(o, queue ? h->n_origins : 0);
    for (klawi_origin *from = h->origins; queue && from; from = from->next) {
        from->at = n++;
        klawi_out_raw(o, from->id.id, KLAW_REMOTE_ID);
        klawi_ranges none = {0};
        klawi_out_ranges(o, from->n_had ? &from->had[0].done : &none);
    }
    n = 0;
    for (uint64_t i = h->lease_base; queue && i < h->lease_next; i++)
        n += h->leases[i & h->lease_mask].state != KLAWI_HUB_NONE;
    klawi_out_var(o, n);
    uint64_t last = 0;
    for (uint64_t i = h->lease_base; queue && i < h->lease_next; i++) {
        const klawi_hub_lease *l = &h->leases[i & h->lease_mask];
        if (l->state == KLAWI_HUB_NONE)
            continue;
        klawi_out_var(o, i - last);
        klawi_out_var(o, l->from->at);
        klawi_out_var(o, l->seq);
        last = i;
    }
}

static bool call_attach(klaw_hub *h, klaw_hub_call *out) {
    uint64_t number = h->number + 1;
    klawi_out o = {0};
    if (!may_go(h, &h->attach))
        return false;
    head(h, &o, KLAWI_WIRE_ATTACH, number);
    klawi_out_bytes(&o, h->opts.node, strlen(h->opts.node));
    klawi_out_u8(&o, h->opts.kind);
    klawi_out_bytes(&o, h->opts.type, h->opts.type_size);
    write_side(h, &o, KLAW_REMOTE_SENDER);
    write_side(h, &o, KLAW_REMOTE_RECEIVER);
    klawi_out_var(&o, klawi_hub_through(h));
    write_tokens(h, &o, false, number);
    write_tokens(h, &o, true, number);
    klawi_out_var(&o, h->lease_next);
    klawi_out_u8(&o, h->resume);
    if (h->resume)
        write_resume(h, &o);
    if (!send(h, &h->attach, KLAW_HUB_ATTACH, number, &o, out))
        return false;
    h->number = number;
    h->changed = false;
    return true;
}

/* --- push --- */

static void write_kept(klawi_out *o, const klawi_hub_item *i, bool batch) {
    klawi_wire_item w = {.context = i->data,
                         .data = i->data ? i->data + i->context_size : NULL,
                         .context_size = i->context_size,
                         .size = i->size,
                         .sent_at = i->sent_at,
                         .deadline = i->deadline,
                         .flags = i->flags & KLAWI_WIRE_PUBLIC_FLAGS,
                         .codec = i->codec};
    w.flags |= i->deadline ? KLAWI_WIRE_DEADLINE : 0;
    w.flags |= i->attachment ? KLAWI_WIRE_ATTACHED : 0;
    if (!batch) /* the rest of one whose beginning is accepted */
        w.flags &= ~(uint32_t)(KLAW_REMOTE_BATCH_FIRST | KLAW_REMOTE_BATCH_LAST);
    klawi_out_item(o, &w);
}

/* Writes items first … last; how many have attachments is left in *attached. */
static void write_frame(klaw_hub *h, klawi_out *o, uint64_t first, uint64_t last,
                        size_t *attached) {
    klawi_out_var(o, h->kept.first);
    klawi_out_var(o, first);
    klawi_out_u8(o, h->framed > last || h->unsent.first < h->unsent.next);
    klawi_out_var(o, last - first + 1);
    bool batch = false;
    *attached = 0;
    for (uint64_t s = first; s <= last; s++) {
        const klawi_hub_item *i = klawi_hub_kept(h, s);
        batch |= (i->flags & KLAW_REMOTE_BATCH_FIRST) != 0;
        write_kept(o, i, batch);
        batch &= !(i->flags & KLAW_REMOTE_BATCH_LAST);
        *attached += i->attachment != NULL;
    }
}

static bool call_push(klaw_hub *h, klawi_slot *s, uint64_t first, uint64_t last,
                      klaw_hub_call *out) {
    klawi_out o = {0};
    size_t attached, n = 0;
    klawi_out_room(&o, h->opts.frame_bytes + 256);
    head(h, &o, KLAWI_WIRE_PUSH, first);
    write_frame(h, &o, first, last, &attached);
    void **attachments = attached ? klawi_alloc(attached * sizeof(void *)) : NULL;
    if ((attached && !attachments) || !send(h, s, KLAW_HUB_PUSH, first, &o, out)) {
        if (attachments || !attached)
            klawi_free(attachments);
        else
            klawi_free(o.data);
        return false;
    }
    s->first = first;
    s->last = last;
    for (uint64_t i = first; i <= last && attached; i++) {
        void *a = klawi_hub_kept(h, i)->attachment;
        if (a)
            attachments[n++] = h->opts.share ? h->opts.share(a) : a;
    }
    out->attachments = attachments;
    out->attached = n;
    return true;
}

/* The unit at `at`, an item or a whole batch: how many items; *bytes of them in a frame. */
static uint64_t unit_at(const klawi_item_ring *r, uint64_t at, size_t *bytes) {
    uint64_t n = 0;
    uint32_t flags = r->at[at & r->mask].flags;
    bool last = !(flags & KLAW_REMOTE_BATCH_FIRST) || KLAWI_POLICY_MUTANT(BATCH_CUT);
    *bytes = 0;
    do {
        const klawi_hub_item *i = &r->at[(at + n++) & r->mask];
        *bytes += klawi_wire_item_size(i->size, i->context_size);
        last |= (i->flags & KLAW_REMOTE_BATCH_LAST) != 0;
    } while (!last);
    return n;
}

/* The end of a frame that begins at `first`: numbers items as it needs them. A batch is in one frame
 * as a whole; the first unit goes in any case. 0: nothing to send. */
static uint64_t frame_end(klaw_hub *h, uint64_t first) {
    uint64_t most = h->room ? h->room : UINT64_MAX, last = first - 1;
    size_t bytes = 0;
    while (bytes < h->opts.frame_bytes && last - first + 1 < most) {
        bool fresh = last == h->framed;
        klawi_hub_unsent_skip(h);
        if (fresh && (h->unsent.first == h->unsent.next ||
                      !klawi_hub_kept_reserve(h, h->unsent.next - h->unsent.first)))
            break;
        size_t more;
        uint64_t n = fresh ? unit_at(&h->unsent, h->unsent.first, &more)
                           : unit_at(&h->kept, last + 1, &more);
        if (last >= first && (bytes + more > h->opts.frame_bytes || last - first + 1 + n > most))
            break;
        if (fresh)
            (void)klawi_hub_number(h, 1);
        last += n;
        bytes += more;
    }
    return last >= first ? last : 0;
}

static bool next_push(klaw_hub *h, klaw_hub_call *out) {
    klawi_slot *slot = NULL;
    uint32_t busy = 0;
    for (uint32_t i = 0; i < h->opts.in_flight; i++) {
        klawi_slot *s = &h->push[i];
        if (s->state == KLAWI_SLOT_AGAIN && s->last <= h->there)
            klawi_slot_reset(s); /* confirmed in the meantime */
        if (s->state == KLAWI_SLOT_AGAIN && h->now >= s->at) {
            uint64_t first = s->first > h->there ? s->first : h->there + 1;
            return call_push(h, s, first, s->last, out);
        }
        busy += s->state != KLAWI_SLOT_FREE;
        if (s->state == KLAWI_SLOT_FREE && !slot)
            slot = s;
    }
    if (!slot || (h->full && !(h->head_void && busy == 0)))
        return false;
    if (busy == 0)
        h->pushed = h->there; /* H3 */
    if (h->pushed >= klawi_hub_through(h) && klawi_hub_through(h) < h->framed)
        return false; /* closed: no more than what an earlier boot had */
    uint64_t waits = h->framed - h->pushed;
    uint64_t worth = h->opts.frame_bytes < KLAWI_HUB_WORTH ? h->opts.frame_bytes : KLAWI_HUB_WORTH;
    if (busy && !waits && h->unsent_bytes < worth)
        return false; /* with more of them soon */
    uint64_t last = frame_end(h, h->pushed + 1);
    if (!last || !call_push(h, slot, h->pushed + 1, last, out))
        return false;
    h->head_void = false;
    h->pushed = last;
    return true;
}

/* --- poll, renew, detach --- */

static void write_update(klaw_hub *h, klawi_out *o, const klawi_slot *s) {
    bool queue = h->opts.kind == KLAW_REMOTE_QUEUE;
    klawi_out_var(o, ++h->update);
    klawi_out_var(o, h->lease_next - 1);
    klawi_out_var(o, queue ? klawi_hub_limit(h, &h->queue) : 0);
    uint64_t n = 0;
    for (size_t i = 0; i < h->n_endpoints; i++)
        n += h->endpoints[i]->side == KLAW_REMOTE_RECEIVER;
    klawi_out_var(o, n);
    for (size_t i = 0; i < h->n_endpoints; i++) {
        const klawi_hub_endpoint *e = h->endpoints[i];
        if (e->side != KLAW_REMOTE_RECEIVER)
            continue;
        klawi_out_var(o, e->id);
        klawi_out_var(o, queue ? 0 : klawi_hub_limit(h, e));
        klawi_out_var(o, e->received);
    }
    klawi_out_ranges(o, &s->acks);
    klawi_out_var(o, s->nacks.n);
    for (size_t i = 0; i < s->nacks.n; i++) {
        klawi_out_var(o, s->nacks.at[i].lease);
        klawi_out_u8(o, s->nacks.at[i].seen);
    }
    if (h->answer)
        klawi_out_var(o, h->answer);
}

/* The sum of all limits, to see whether any has grown. */
static uint64_t limits(const klaw_hub *h) {
    if (h->opts.kind == KLAW_REMOTE_QUEUE)
        return klawi_hub_limit(h, &h->queue);
    uint64_t sum = 0;
    for (size_t i = 0; i < h->n_endpoints; i++)
        if (h->endpoints[i]->side == KLAW_REMOTE_RECEIVER)
            sum += klawi_hub_limit(h, h->endpoints[i]);
    return sum;
}

static uint64_t got(const klaw_hub *h) {
    if (h->opts.kind == KLAW_REMOTE_QUEUE)
        return h->queue.got;
    uint64_t sum = 0;
    for (size_t i = 0; i < h->n_endpoints; i++)
        sum += h->endpoints[i]->got;
    return sum;
}

/* Acknowledgements that wait go along; those of the call's last try stay in it. */
static bool slot_acks(klaw_hub *h, klawi_slot *s) {
    if (h->acks.n == 0 && h->nacks.n == 0)
        return true;
    klawi_ranges acks = h->acks;
    klawi_nacks nacks = h->nacks;
    if (s->acks.n || s->nacks.n) { /* a repetition: what is new waits for the next call */
        return true;
    }
    h->acks = (klawi_ranges){0};
    h->nacks = (klawi_nacks){0};
    if (!klawi_hub_acks_reserve(h, 0)) {
        klawi_ranges_free(&h->acks);
        klawi_free(h->nacks.at);
        h->acks = acks;
        h->nacks = nacks;
        return false;
    }
    klawi_ranges_free(&s->acks);
    klawi_free(s->nacks.at);
    s->acks = acks;
    s->nacks = nacks;
    h->ack_at = 0;
    return true;
}

static bool call_update(klaw_hub *h, klawi_slot *s, klaw_hub_call_kind kind, uint64_t number,
                        klaw_hub_call *out) {
    klawi_out o = {0};
    if (!slot_acks(h, s))
        return false;
    head(h, &o, (enum klawi_wire_kind)kind, number);
    write_update(h, &o, s);
    if (!send(h, s, kind, number, &o, out))
        return false;
    h->told_limit = limits(h);
    return true;
}

/* A poll is worth its call at once: more is wanted than is still here. What is asked for by crumbs
 * comes by crumbs; acknowledgements wait for the next one. */
static bool poll_is_worth_it(const klaw_hub *h) {
    uint64_t more = limits(h) - got(h);
    return h->nacks.n || h->full || (more && more >= h->ready);
}

/* What the parked poll allows is too little: nothing (or, of a queue, less than half) of what is
 * wanted by now. Else its answer comes soon, and the next poll asks for more. */
static bool poll_allows_too_little(const klaw_hub *h) {
    uint64_t limit = limits(h), had = got(h);
    if (limit <= h->told_limit)
        return false;
    return h->opts.kind != KLAW_REMOTE_QUEUE || h->told_limit <= had ||
           limit - had > 2 * (h->told_limit - had);
}

static bool next_poll(klaw_hub *h, klaw_hub_call *out) {
    if (!may_go(h, &h->polling))
        return false;
    if (h->polling.state == KLAWI_SLOT_FREE &&
        (klawi_hub_poll_over(h) || h->now < h->poll_not_before ||
         (h->now < h->poll_at && !poll_is_worth_it(h))))
        return false;
    uint64_t number = h->poll + (h->polling.state == KLAWI_SLOT_FREE);
    if (!call_update(h, &h->polling, KLAW_HUB_POLL, number, out))
        return false;
    out->answer = h->answer;
    if (number > h->poll) {
        h->taken_at[1] = h->taken_at[0];
        h->polled_at[1] = h->polled_at[0];
        h->taken_at[0] = h->taken;
        h->polled_at[0] = h->now;
    }
    h->poll = number;
    return true;
}

static bool next_renew(klaw_hub *h, klaw_hub_call *out) {
    bool parked = h->polling.state == KLAWI_SLOT_OUT;
    bool told = (h->acks.n || h->nacks.n) && h->now >= h->ack_at + KLAWI_HUB_ACK_NS;
    bool due = h->now >= h->renew_at || (parked && (told || poll_allows_too_little(h)));
    if (!may_go(h, &h->renew) || (h->renew.state == KLAWI_SLOT_FREE && !due) ||
        KLAWI_POLICY_MUTANT(NO_RENEW))
        return false;
    if (!call_update(h, &h->renew, KLAW_HUB_RENEW, ++h->ids, out))
        return false;
    h->renew_at = h->now + klawi_hub_renew_ns(h);
    return true;
}

/* A slot's acknowledgements are to be told again; false: no memory. */
static bool acks_gather(klaw_hub *h, klawi_slot *s) {
    if (!klawi_hub_acks_reserve(h, s->acks.n + s->nacks.n))
        return false;
    for (size_t i = 0; i < s->acks.n; i++)
        klawi_ranges_add_span(&h->acks, s->acks.at[i].from, s->acks.at[i].to);
    for (size_t i = 0; i < s->nacks.n; i++)
        h->nacks.at[h->nacks.n++] = s->nacks.at[i];
    s->acks.n = s->nacks.n = 0;
    return true;
}

/* Everything that was sent is there (or will never be), everybody has closed (W30). */
static bool next_detach(klaw_hub *h, klaw_hub_call *out) {
    bool abrupt = KLAWI_POLICY_MUTANT(DETACH_ABRUPT) && may_go(h, &h->attach);
    if (abrupt)
        return call_update(h, &h->attach, KLAW_HUB_DETACH, ++h->number, out);
    if (h->n_endpoints || h->unsent.first < h->unsent.next || !klawi_hub_push_idle(h) ||
        h->there < klawi_hub_through(h) || !may_go(h, &h->attach))
        return false;
    /* Those it minted are told first (W7). One that has begun goes on: else a token that is due to be
     * stated again meanwhile would wait for the slot of this call, and this call for the token. */
    bool begun = h->attach.state == KLAWI_SLOT_AGAIN && h->attach.kind == KLAW_HUB_DETACH;
    for (size_t i = 0; i < h->n_tokens && !(begun && !KLAWI_POLICY_MUTANT(DETACH_STUCK)); i++)
        if (!h->tokens[i].known)
            return false;
    /* It may overtake what is under way, so it says that, too. */
    if (!acks_gather(h, &h->polling) || !acks_gather(h, &h->renew) || !acks_gather(h, &h->attach))
        return false;
    uint64_t number = h->number + 1;
    if (!call_update(h, &h->attach, KLAW_HUB_DETACH, number, out))
        return false;
    h->number = number;
    return true;
}

bool klaw_hub_next_call(klaw_hub *h, int64_t now, klaw_hub_call *out) {
    h->now = now;
    if (!h->wanted || h->expired || klawi_hub_over(h))
        return false;
    if (!h->attached)
        return call_attach(h, out);
    if (next_push(h, out))
        return true;
    if (h->changed && (h->attach.state == KLAWI_SLOT_FREE || h->attach.kind == KLAW_HUB_ATTACH)) {
        if (call_attach(h, out))
            return true;
    } else if (h->attach.state == KLAWI_SLOT_AGAIN && h->attach.kind == KLAW_HUB_ATTACH) {
        if (call_attach(h, out))
            return true;
    } else if (h->detaching && next_detach(h, out)) {
        return true;
    }
    return next_poll(h, out) || next_renew(h, out);
}
