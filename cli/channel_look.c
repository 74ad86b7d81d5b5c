/* SPDX-License-Identifier: Apache-2.0 */
/* channel_look.c - klaw channel stats and tail: they ask the channel's actor and are no endpoint of it, so
 * nothing they do delivers, keeps open or closes anything. */
#include <inttypes.h>
#include <jansson.h>
#include <klaw/klaw.h>
#include <string.h>
#include <time.h>

#include "channel.h"
#include "pack.h"

#define LINES_DEFAULT 10
#define PAGE 1000 /* items of one look */
#define EVERY_DEFAULT KLAW_S(1)

/* False: a signal says to end. */
static bool pause_for(int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    if (!cli_channel_stopped)
        nanosleep(&t, NULL);
    return !cli_channel_stopped;
}

/* ---- stats ---- */

static const char *const kinds[] = {"queue", "broadcast", "watch"};
static const char *const acks[] = {"next", "explicit", "before"};

#define COUNTS(X)     \
    X(senders)        \
    X(receivers)      \
    X(queued)         \
    X(leased)         \
    X(high_watermark) \
    X(total_sent)     \
    X(total_received) \
    X(redelivered)    \
    X(duplicates)     \
    X(expired)        \
    X(lost)           \
    X(missed)         \
    X(clients)        \
    X(parked)         \
    X(bytes)

static void print_json(const char *name, const klaw_remote_counts *c) {
    json_t *o =
        json_pack("{s:s%,s:s,s:s,s:b,s:b,s:b,s:b,s:f}", "name", name, strlen(name), "kind",
                  kinds[c->kind], "ack", acks[c->ack], "durable", c->durable, "senders_closed",
                  c->senders_closed, "receivers_closed", c->receivers_closed, "gathering",
                  c->gathering, "created_at", (double)c->created_at / 1e9);
    json_object_set_new(o, "capacity", c->capacity < 0 ? json_null() : json_integer(c->capacity));
#define X(member) json_object_set_new(o, #member, json_integer((json_int_t)c->member));
    COUNTS(X)
#undef X
    (void)json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static void print_line(const char *a, uint64_t va, const char *b, uint64_t vb) {
    printf("%-15s %10" PRIu64 "   %-15s %10" PRIu64 "\n", a, va, b, vb);
}

static void print_text(const char *name, const klaw_remote_counts *c) {
    fputs(cli_colour(CLI_BOLD), stdout);
    cli_put(stdout, name, 500, false);
    printf("%s  %s", cli_colour(CLI_PLAIN), kinds[c->kind]);
    if (c->capacity < 0)
        fputs(" without bound", stdout);
    else if (c->kind != KLAW_REMOTE_WATCH)
        printf(" of %" PRId64, c->capacity);
    printf(", ack %s%s%s%s%s\n", acks[c->ack], c->durable ? ", durable" : "",
           c->senders_closed ? ", senders closed" : "",
           c->receivers_closed ? ", receivers closed" : "",
           c->gathering ? ", gathers after a restart" : "");
    print_line("senders", c->senders, "receivers", c->receivers);
    print_line("queued", c->queued, "high watermark", c->high_watermark);
    print_line("sent", c->total_sent, "received", c->total_received);
    print_line("delivered", c->leased, "redelivered", c->redelivered);
    print_line("duplicates", c->duplicates, "expired", c->expired);
    print_line("lost", c->lost, "missed", c->missed);
    print_line("processes", c->clients, "waiting polls", c->parked);
    printf("%-15s %10" PRIu64 "\n", "bytes", c->bytes);
}

int cli_channel_stats(const cli_request *r, const char *name) {
    do {
        klaw_error_info info = {0};
        klaw_remote_counts counts;
        klaw_err e = klaw_remote_stats(name, &r->opts, &counts, &info);
        if (e)
            return cli_channel_explain(name, e, &info);
        if ((unsigned)counts.kind > KLAW_REMOTE_WATCH ||
            (unsigned)counts.ack > KLAW_REMOTE_ACK_BEFORE)
            return cli_channel_explain(name, KLAW_BACKEND, &info);
        if (r->json)
            print_json(name, &counts);
        else
            print_text(name, &counts);
        if (fflush(stdout) != 0 || ferror(stdout))
            return EXIT_TROUBLE;
    } while (r->every && pause_for(r->every));
    return cli_channel_stopped ? 128 + cli_channel_stopped : EXIT_FINE;
}

/* ---- tail ---- */

typedef struct tail {
    const cli_request *r;
    const char *name;
    uint64_t seen; /* items of this look */
    bool silent;   /* only counts */
    bool odd;      /* one could not be shown */
} tail;

/* As recv shows it; false: it can't. */
static bool print_item(const cli_request *r, const klaw_remote_item *item) {
    json_t *v = NULL;
    if ((item->flags & KLAW_REMOTE_REFERENCE) || item->codec != KLAW_REMOTE_MSGPACK ||
        cli_json_type.decode(item->data, item->size, &v))
        return false;
    bool text = json_is_string(v);
    if (r->json)
        (void)json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    else if (text)
        fwrite(json_string_value(v), 1, json_string_length(v), stdout);
    json_decref(v);
    if (r->json || text)
        putchar('\n');
    return r->json || text;
}

static bool show(void *user, const klaw_remote_item *item) {
    tail *t = user;
    t->seen++;
    if (!t->silent && !print_item(t->r, item)) {
        t->odd = true;
        fflush(stdout);
        fprintf(stderr, "klaw channel: an element of %s is no %s%s\n", t->name,
                t->r->json ? "MessagePack" : "text", t->r->json ? "" : "; --json may show it");
    }
    return !cli_channel_stopped && !ferror(stdout);
}

/* Whatever is behind the mark, up to `most` items. */
static klaw_err look(tail *t, klaw_remote_mark *mark, uint64_t most, klaw_error_info *info) {
    for (klaw_err e; most && !cli_channel_stopped; most -= t->seen) {
        t->seen = 0;
        e = klaw_remote_peek(t->name, mark,
                             most < PAGE || mark->place == KLAW_REMOTE_END ? (size_t)most : PAGE,
                             &t->r->opts, show, t, info);
        if (e || t->seen == 0 || ferror(stdout))
            return e;
    }
    return KLAW_OK;
}

int cli_channel_tail(const cli_request *r, const char *name) {
    uint64_t lines = r->counted ? r->count : LINES_DEFAULT;
    klaw_error_info info = {0};
    klaw_remote_mark mark = {0, KLAW_REMOTE_END};
    tail t = {.r = r, .name = name, .silent = lines == 0};
    klaw_err e = look(&t, &mark, lines ? lines : 1, &info);
    if (e)
        return cli_channel_explain(name, e, &info);
    t.silent = false;
    while (r->follow && !e && fflush(stdout) == 0 && !ferror(stdout) &&
           pause_for(r->every ? r->every : EVERY_DEFAULT))
        e = look(&t, &mark, UINT64_MAX, &info);
    if (fflush(stdout) != 0 || ferror(stdout))
        return EXIT_TROUBLE;
    if (e && e != KLAW_NOT_FOUND && e != KLAW_STOPPED) /* those: it was removed, which is an end */
        return cli_channel_explain(name, e, &info);
    return cli_channel_stopped ? 128 + cli_channel_stopped : t.odd ? EXIT_FOUND : EXIT_FINE;
}
