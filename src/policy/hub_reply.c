/* SPDX-License-Identifier: Apache-2.0 */
/* hub_reply.c - what a hub makes of the answers to its calls.
 *
 * Answers may come in any order; their cumulative parts (accepted, finished) only grow, the others
 * (room, the end) count if no later answer was seen before (`stamp`). An answer to a call that nobody
 * waits for any more is dropped. */
#include "policy/hub.h"

#include <stdio.h>

/* The part that every answer to an attached client has (W11). */
typedef struct common {
    uint32_t flags;
    uint64_t accepted, done, room, orphans, lost, tokens_ended;
    klawi_ranges more_done, refused;
} common;

static void common_free(common *c) {
    klawi_ranges_free(&c->more_done);
    klawi_ranges_free(&c->refused);
}

/* NOMEM, INVALID; the caller frees it in any case. */
static klaw_err common_read(klawi_in *in, common *c) {
    memset(c, 0, sizeof *c);
    c->flags = klawi_in_u8(in);
    c->accepted = klawi_in_var(in);
    c->done = klawi_in_var(in);
    klaw_err e = klawi_in_ranges(in, &c->more_done);
    if (e == KLAW_OK)
        e = klawi_in_ranges(in, &c->refused);
    c->room = klawi_in_var(in);
    c->orphans = klawi_in_var(in);
    c->lost = klawi_in_var(in);
    c->tokens_ended = klawi_in_var(in);
    return e != KLAW_OK ? e : in->bad ? KLAW_INVALID : KLAW_OK;
}

/* The channel is closed to senders: what was not accepted never will be. */
static void sends_end(klaw_hub *h, bool certain) {
    klawi_hub_fail_sends(h, KLAW_HUB_UNSENT, certain ? KLAW_HUB_UNSENT : KLAW_HUB_UNCERTAIN);
    h->full = false;
    for (uint32_t i = 0; i < h->opts.in_flight; i++)
        klawi_slot_reset(&h->push[i]);
    h->pushed = h->framed;
}

static void common_apply(klaw_hub *h, const common *c, uint64_t stamp, klaw_hub_call_kind kind) {
    bool of_poll = kind == KLAW_HUB_POLL, of_attach = kind == KLAW_HUB_ATTACH;
    klawi_hub_confirm(h, c->accepted, &c->refused, c->done, &c->more_done);
    bool latest = stamp > h->stamp;
    if (latest) {
        h->stamp = stamp;
        h->full = (c->flags & KLAWI_WIRE_FULL) != 0;
        h->room = c->room;
    }
    h->heard |= c->flags & (KLAWI_WIRE_HAD_SENDERS | KLAWI_WIRE_HAD_RECEIVERS |
                            KLAWI_WIRE_NO_SENDERS | KLAWI_WIRE_NO_RECEIVERS);
    if (latest) {
        h->heard_stamp = stamp;
        h->heard_orphans = c->orphans;
    }
    if (latest && c->tokens_ended != h->tokens_ended) { /* which ones an attach is told */
        h->tokens_ended = c->tokens_ended;
        if (!of_attach)
            klawi_hub_tokens_restate(h);
    }
    if (c->lost && h->lost_boot != h->boot) {
        h->lost_boot = h->boot;
        h->lost = c->lost;
        klawi_hub_wake_all(h);
    }
    bool was_closed = h->no_receivers || h->no_senders;
    h->no_senders |= (c->flags & KLAWI_WIRE_NO_SENDERS) != 0;
    h->no_receivers |= (c->flags & KLAWI_WIRE_NO_RECEIVERS) != 0;
    if (latest)
        h->sealed = (c->flags & KLAWI_WIRE_NO_SENDERS) == 0 || (c->flags & KLAWI_WIRE_SEALED);
    if (!was_closed && (h->no_receivers || h->no_senders)) {
        sends_end(h, true);
        h->changed = true; /* it waits for less now (W6) */
    }
    if (h->no_receivers && !h->told_no_receivers) { /* those who came too late */
        h->told_no_receivers = true;
        klawi_hub_wake_all(h);
    }
    if (!of_poll || !latest || h->opts.kind != KLAW_REMOTE_QUEUE)
        return;
    /* The end is believed from polls alone: another answer may overtake items (W17). What is held
     * here may still come back. */
    bool empty = (c->flags & KLAWI_WIRE_EMPTY) != 0 && h->nacks.n == 0 && h->renew.nacks.n == 0;
    if (empty && !h->empty) {
        h->empty = true;
        klawi_hub_wake_all(h);
    } else if (!empty) {
        h->empty = false;
    }
}

/* --- answers that end something --- */

/* certain: what it said of our numbers is of the boot that had them, so the rest never came. */
static void on_deleted(klaw_hub *h, bool certain) {
    h->deleted = true;
    sends_end(h, certain);
    klawi_hub_slots_reset(h);
    klawi_hub_wake_all(h);
}

/* Another boot: nothing is known of this hub there (W26). */
static void on_stale(klaw_hub *h, uint64_t boot) {
    if (boot == 0 || boot == h->boot)
        return;
    h->boot = boot;
    h->attached = false;
    h->resume = true;
    h->stamp = 0;
    h->poll = 0;
    h->queue.got = 0;
    for (size_t i = 0; i < h->n_endpoints; i++)
        h->endpoints[i]->got = 0;
    h->acks.n = h->nacks.n = 0;
    h->empty = false;
    h->sealed = true;
    h->poll_at = h->poll_not_before = 0;
    klawi_hub_slots_reset(h);
    klawi_hub_numbers_resume(h);
    h->tokens_ended = 0;
    for (size_t i = 0; i < h->n_tokens; i++)
        h->tokens[i].known = false;
}

/* It was held for dead (W24): as a new client, or not at all. */
static klaw_err on_expired(klaw_hub *h) {
    if (!klawi_hub_events_reserve(h, 1))
        return KLAW_NOMEM;
    h->expired = true;
    h->attached = false;
    klawi_hub_slots_reset(h);
    klawi_hub_fail_sends(h, KLAW_HUB_UNCERTAIN, KLAW_HUB_UNCERTAIN);
    klawi_hub_numbers_reset(h);
    klawi_hub_leases_drop(h);
    klawi_hub_event(h, KLAW_HUB_RENAMED, 0, 0);
    return KLAW_OK;
}

/* What the channel is; INVALID. *type points into the answer. */
static klaw_err describe_read(klaw_hub *h, klawi_in *in, bool adopt, uint32_t *kind,
                              const unsigned char **type, size_t *type_size) {
    const unsigned char *channel = klawi_in_raw(in, KLAW_REMOTE_ID);
    *kind = klawi_in_u8(in);
    uint32_t ack = klawi_in_u8(in), durable = klawi_in_u8(in);
    int64_t capacity = (int64_t)klawi_in_u64(in), lease = (int64_t)klawi_in_u64(in),
            token = (int64_t)klawi_in_u64(in);
    *type = klawi_in_bytes(in, type_size);
    if (in->bad || *kind > KLAW_REMOTE_WATCH || ack > KLAW_REMOTE_ACK_BEFORE)
        return KLAW_INVALID;
    if (!adopt)
        return KLAW_OK;
    memcpy(h->opts.channel, channel, KLAW_REMOTE_ID);
    h->ack = (klaw_remote_ack)ack;
    h->durable = durable;
    h->capacity = capacity;
    h->lease_ns = lease;
    h->token_ns = token;
    return KLAW_OK;
}

static klaw_err on_mismatch(klaw_hub *h, klawi_in *in) {
    static const char *const names[] = {"a queue", "a broadcast", "a watch"};
    uint32_t kind;
    const unsigned char *type;
    size_t size;
    klaw_err e = describe_read(h, in, false, &kind, &type, &size);
    if (e != KLAW_OK)
        return e;
    if (kind != (uint32_t)h->opts.kind) {
        klawi_hub_break(h, "the channel is of another kind: %s", names[kind]);
    } else {
        char text[128];
        snprintf(text, sizeof text, "%.*s", (int)(size < 127 ? size : 127), (const char *)type);
        klawi_hub_break(h, "the channel is of another type: %s", text);
    }
    return KLAW_OK;
}

/* The broker can't go on (W28); what it had not confirmed is uncertain. */
static klaw_err on_broken(klaw_hub *h, klawi_in *in) {
    size_t size;
    const unsigned char *why = klawi_in_bytes(in, &size);
    char text[256];
    if (in->bad)
        return KLAW_INVALID;
    snprintf(text, sizeof text, "%.*s", (int)(size < 255 ? size : 255), (const char *)why);
    klawi_hub_break(h, "%s", text);
    return KLAW_OK;
}

/* --- answers --- */

static klaw_err on_attach(klaw_hub *h, const klawi_slot *s, klawi_in *in, uint64_t boot) {
    uint32_t kind;
    const unsigned char *type;
    size_t size;
    klaw_err e = describe_read(h, in, true, &kind, &type, &size);
    uint64_t ended = klawi_in_count(in, KLAW_REMOTE_ID);
    const unsigned char *ids = klawi_in_raw(in, (size_t)ended * KLAW_REMOTE_ID);
    if (e != KLAW_OK || in->bad)
        return e != KLAW_OK ? e : KLAW_INVALID;
    h->boot = boot;
    h->attached = true;
    h->resume = false;
    h->told_limit = 0; /* new endpoints were not known before */
    for (size_t i = 0; i < h->n_tokens; i++)
        h->tokens[i].known |= h->tokens[i].number <= s->number;
    for (uint64_t i = 0; i < ended; i++)
        klawi_hub_token_drop(h, ids + i * KLAW_REMOTE_ID);
    if (h->n_tokens)
        h->tokens_at = h->now; /* the next tick sees when one is due */
    int64_t renew_at = h->now + klawi_hub_renew_ns(h);
    if (!h->opened || h->renew_at > renew_at)
        h->renew_at = renew_at;
    if (!h->opened) {
        h->opened = true;
        klawi_hub_event(h, KLAW_HUB_OPENED, 0, 0); /* promised when it was made */
    }
    return KLAW_OK;
}

static void again(klaw_hub *h, klawi_slot *s) {
    s->state = KLAWI_SLOT_AGAIN;
    s->delay = s->delay ? s->delay * 2 : h->opts.retry_ns;
    if (s->delay > 1000000000)
        s->delay = h->opts.retry_ns > 1000000000 ? h->opts.retry_ns : 1000000000;
    s->at = h->now + s->delay;
}

static void measure(klaw_hub *h, const klawi_slot *s) {
    int64_t took = h->now - s->at;
    if (s->kind != KLAW_HUB_POLL)
        h->rtt = h->rtt ? (7 * h->rtt + took) / 8 : took;
}

/* What the next poll may bring: twice as much after one that had about all it could (an item more may
 * not have fitted), else a little more than this one. An answer's room costs its holder something, used or not. */
static void answer_next(klaw_hub *h, size_t size) {
    uint64_t next = size >= h->answer / 8 * 5 ? (uint64_t)h->answer * 2 : size + size / 4;
    if (h->opts.answer_bytes <= KLAWI_HUB_ANSWER)
        return;
    if (next < KLAWI_HUB_ANSWER)
        next = KLAWI_HUB_ANSWER;
    h->answer = next < h->opts.answer_bytes ? (uint32_t)next : h->opts.answer_bytes;
}

/* An answer with status OK to a call that was waited for. */
static klaw_err on_ok(klaw_hub *h, klawi_slot *s, klawi_in *in, uint64_t boot, uint64_t stamp,
                      const void *data, size_t size, void *const *attachments, size_t attached) {
    if (h->boot && boot != h->boot)
        return KLAW_INVALID;
    common c;
    klaw_err e = common_read(in, &c);
    if (e == KLAW_OK && s->kind == KLAW_HUB_ATTACH)
        e = on_attach(h, s, in, boot);
    uint64_t delay_ms = 0;
    if (e == KLAW_OK && s->kind == KLAW_HUB_POLL) {
        delay_ms = klawi_in_var(in);
        e = klawi_hub_items(h, in, data, size, attachments, attached);
    } else if (e == KLAW_OK && attached) {
        e = KLAW_INVALID;
    }
    if (e == KLAW_OK) {
        klaw_hub_call_kind kind = s->kind;
        measure(h, s);
        klawi_slot_reset(s);
        common_apply(h, &c, stamp, kind);
        if (kind == KLAW_HUB_POLL) {
            answer_next(h, size);
            h->poll_at = h->now + KLAWI_HUB_CALM_NS;
            h->poll_not_before = delay_ms ? h->now + (int64_t)(delay_ms * 1000000) : 0;
        } else if (kind == KLAW_HUB_DETACH) {
            h->left = true;
            klawi_hub_slots_reset(h);
        }
    }
    common_free(&c);
    return e;
}

static klawi_slot *slot_of(klaw_hub *h, uint64_t id) {
    klawi_slot *fixed[] = {&h->attach, &h->polling, &h->renew};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (fixed[i]->state == KLAWI_SLOT_OUT && fixed[i]->id == id)
            return fixed[i];
    for (uint32_t i = 0; i < h->opts.in_flight; i++)
        if (h->push[i].state == KLAWI_SLOT_OUT && h->push[i].id == id)
            return &h->push[i];
    return NULL;
}

static klaw_err on_answer(klaw_hub *h, klawi_slot *s, klawi_in *in, const void *data, size_t size,
                          void *const *attachments, size_t attached) {
    uint32_t version = klawi_in_u8(in), status = klawi_in_u8(in);
    uint64_t boot = klawi_in_u64(in), stamp = klawi_in_var(in);
    if (in->bad || version != KLAW_REMOTE_VERSION || status >= KLAWI_WIRE_STATUSES)
        return KLAW_INVALID;
    common c;
    klaw_err e = KLAW_OK;
    switch ((enum klawi_wire_status)status) {
    case KLAWI_WIRE_OK: return on_ok(h, s, in, boot, stamp, data, size, attachments, attached);
    case KLAWI_WIRE_OLD:
        if (s->kind == KLAW_HUB_DETACH)
            h->left = true;
        else
            again(h, s);
        break;
    case KLAWI_WIRE_STALE: on_stale(h, boot); break;
    case KLAWI_WIRE_EXPIRED: e = on_expired(h); break;
    case KLAWI_WIRE_DELETED:
        e = common_read(in, &c);
        if (e == KLAW_OK && boot == h->boot && h->attached)
            klawi_hub_confirm(h, c.accepted, &c.refused, c.done, &c.more_done);
        common_free(&c);
        if (e == KLAW_OK)
            on_deleted(h, boot == h->boot && h->attached);
        break;
    case KLAWI_WIRE_BROKEN: e = on_broken(h, in); break;
    case KLAWI_WIRE_GONE: klawi_hub_break(h, "another channel lives there%s", ""); break;
    case KLAWI_WIRE_MISMATCH: e = on_mismatch(h, in); break;
    default: klawi_hub_break(h, "the channel speaks another version of the protocol%s", ""); break;
    }
    return e;
}

klaw_err klaw_hub_reply(klaw_hub *h, int64_t now, uint64_t id, const void *data, size_t size,
                        void *const *attachments, size_t attached) {
    h->now = now;
    klawi_slot *s = slot_of(h, id);
    klawi_in in;
    klaw_err e = KLAW_OK;
    size_t taken = 0;
    if (s) {
        bool poll = s->kind == KLAW_HUB_POLL;
        e = klawi_in_open(&in, data, size) ? on_answer(h, s, &in, data, size, attachments, attached)
                                           : KLAW_INVALID;
        if (e == KLAW_NOMEM)
            return e;
        if (e == KLAW_INVALID)
            again(h, s);
        taken = e == KLAW_OK && poll && h->took ? attached : 0;
        h->took = false;
    }
    for (size_t i = taken; i < attached; i++)
        if (attachments[i] && h->opts.drop)
            h->opts.drop(attachments[i]);
    return e;
}

void klaw_hub_failed(klaw_hub *h, int64_t now, uint64_t id, bool dead, const char *message) {
    h->now = now;
    klawi_slot *s = slot_of(h, id);
    if (dead && !klawi_hub_over(h)) {
        klawi_hub_break(h, "%s", message ? message : "the channel's actor is gone");
        return;
    }
    if (s)
        again(h, s);
}
