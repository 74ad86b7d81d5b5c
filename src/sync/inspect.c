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

void klawi_inspect_channels(void) {
    klawi_inspect_provide(&channels);
}
