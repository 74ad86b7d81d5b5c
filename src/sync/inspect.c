/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.c - channels as snapshots show them: each read under its own lock, so its counters belong
 * together. */
#include "base/inspect.h"

#include "sync/chan.h"

struct fill {
    klaw_channel_stats *out;
    size_t max, n;
};

static void count(klawi_chan *ch, void *user) {
    (void)ch;
    ++*(size_t *)user;
}

static size_t channels_count(void) {
    size_t n = 0;
    klawi_chans_each(count, &n);
    return n;
}

static void fill(klawi_chan *ch, void *user) {
    struct fill *f = user;
    if (f->n++ < f->max)
        klawi_chan_stats(ch, &f->out[f->n - 1]);
}

static size_t channels_fill(void *out, size_t max) {
    struct fill f = {out, max, 0};
    klawi_chans_each(fill, &f);
    return f.n;
}

static const struct klawi_inspect_provider channels = {"channel", channels_count, channels_fill,
                                                       sizeof(klaw_channel_stats), NULL};

/* --- who waits, and who holds the ends --- */
struct list {
    void *out;
    size_t max, n;
};

static void waiters(struct list *l, klawi_chan *ch, klawi_waitq *q, bool sends) {
    for (klawi_waiter *w = klawi_waitq_first(q); w; w = klawi_waitq_next(q, w)) {
        if (l->n++ >= l->max)
            continue;
        uint64_t by = klawi_host_by(w->host);
        klaw_wait_info *o = (klaw_wait_info *)l->out + l->n - 1;
        o->channel_id = ch->id;
        o->host = (klaw_host_kind)(by >> KLAWI_BY_KIND);
        o->host_id = by & KLAWI_BY_ID;
        o->sends = sends;
        o->timed =
            (atomic_load_explicit(&w->host->what, memory_order_relaxed) & KLAWI_WAIT_TIMED) != 0;
    }
}

static void list_waits(klawi_chan *ch, void *user) {
    waiters(user, ch, &ch->rq, false);
    waiters(user, ch, &ch->sq, true);
}

static void list_ends(klawi_chan *ch, void *user) {
    struct list *l = user;
    for (klawi_link *k = ch->ends.next; k != &ch->ends; k = k->next) {
        if (l->n++ >= l->max)
            continue;
        klawi_end *e = KLAWI_CONTAINER(k, klawi_end, open);
        uint64_t by = atomic_load_explicit(&e->by, memory_order_relaxed);
        klaw_endpoint_info *o = (klaw_endpoint_info *)l->out + l->n - 1;
        o->channel_id = ch->id;
        o->host = by & KLAWI_BY_RUNTIME ? KLAW_HOST_RUNTIME : (klaw_host_kind)(by >> KLAWI_BY_KIND);
        o->host_id = by & KLAWI_BY_ID;
        o->sender = e->side == KLAWI_TX;
        o->used = by != 0 && !(by & KLAWI_BY_MADE);
    }
}

static size_t waits_fill(void *out, size_t max) {
    struct list l = {out, max, 0};
    klawi_chans_each(list_waits, &l);
    return l.n;
}
static size_t waits_count(void) {
    return waits_fill(NULL, 0);
}
static size_t ends_fill(void *out, size_t max) {
    struct list l = {out, max, 0};
    klawi_chans_each(list_ends, &l);
    return l.n;
}
static size_t ends_count(void) {
    return ends_fill(NULL, 0);
}

static const struct klawi_inspect_provider waits = {"wait", waits_count, waits_fill,
                                                    sizeof(klaw_wait_info), NULL};
static const struct klawi_inspect_provider ends = {"endpoint", ends_count, ends_fill,
                                                   sizeof(klaw_endpoint_info), NULL};

void klawi_inspect_channels(void) {
    klawi_inspect_provide(&channels);
    klawi_inspect_provide(&waits);
    klawi_inspect_provide(&ends);
}
