/* SPDX-License-Identifier: Apache-2.0 */
/* 02_pipeline.c - stages connected by bounded channels: numbers -> squares -> sum.
 *
 * Each stage owns one end of two channels. It ends when its input is closed and drained, and then
 * closes its output; so the end travels through the pipeline by itself. The channels hold four
 * elements: a stage that is too fast waits (back-pressure) and memory stays bounded. */
#include <klaw/klaw.h>

#include "check.h"

#define N 10000

typedef struct stage {
    klaw_receiver *in;
    klaw_sender *out;
} stage;

static klaw_err numbers(void *arg) {
    stage *s = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 1; !e && i <= N; i++)
        e = klaw_send(s->out, &i, KLAW_FOREVER);
    klaw_sender_unref(s->out);
    return e;
}

static klaw_err squares(void *arg) {
    stage *s = arg;
    klaw_err e;
    uint64_t x;
    while ((e = klaw_recv(s->in, &x, KLAW_FOREVER)) == KLAW_OK) {
        x *= x;
        if ((e = klaw_send(s->out, &x, KLAW_FOREVER)))
            break;
    }
    klaw_receiver_unref(s->in);
    klaw_sender_unref(s->out);
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

static klaw_err pipeline(void *arg) {
    uint64_t *sum = arg, x;
    klaw_channel_opts four = {.capacity = 4, .name = "numbers"};
    stage source = {0}, middle = {0}, sink = {0};
    CHECK(klaw_channel(&klaw_u64, &four, &source.out, &middle.in) == KLAW_OK);
    four.name = "squares";
    CHECK(klaw_channel(&klaw_u64, &four, &middle.out, &sink.in) == KLAW_OK);

    /* The stages live on our stack: a scope makes sure that they have ended before we return. */
    klaw_scope *scope;
    CHECK(klaw_scope_open(NULL, &scope) == KLAW_OK);
    CHECK(klaw_go(numbers, &source) == KLAW_OK);
    CHECK(klaw_go(squares, &middle) == KLAW_OK);
    while (klaw_recv(sink.in, &x, KLAW_FOREVER) == KLAW_OK)
        *sum += x;
    klaw_err e = klaw_scope_close(scope);

    klaw_channel_stats stats;
    CHECK(klaw_receiver_stats(sink.in, &stats) == KLAW_OK);
    printf("%s: %d went through, never more than %d at a time\n", stats.name,
           (int)stats.total_received, (int)stats.high_watermark);
    CHECK(stats.total_received == N && stats.high_watermark <= 4);
    klaw_receiver_unref(sink.in);
    return e;
}

int main(void) {
    uint64_t sum = 0, n = N;
    CHECK(klaw_run(pipeline, &sum, NULL) == KLAW_OK);
    printf("the squares of 1 to %d add up to %llu\n", N, (unsigned long long)sum);
    CHECK(sum == n * (n + 1) * (2 * n + 1) / 6);
    return 0;
}
