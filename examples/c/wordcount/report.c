/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - the result, for people and as JSON.
 *
 * Words may hold any bytes from 0x80 up; what is not UTF-8 in them is shown as U+FFFD. */
#include "wordcount.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the UTF-8 character at p (as RFC 3629 has it), or 0. */
static size_t utf8_size(const unsigned char *p, size_t left) {
    static const unsigned char low[4] = {0, 0x80, 0xa0, 0x90};
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n == 0 || n > left || p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    /* Overlong forms, surrogates, and what is above U+10FFFF. */
    bool bad = ((p[0] == 0xe0 || p[0] == 0xf0) && p[1] < low[n - 1]) ||
               (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : n;
}

static void put_text(FILE *out, const char *text, size_t size, bool json) {
    const unsigned char *p = (const unsigned char *)text;
    while (size > 0) {
        size_t n = utf8_size(p, size);
        if (n == 0)
            fputs("\xef\xbf\xbd", out);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(out, json ? "\\u%04x" : "\\x%02x", *p);
        else {
            if (json && (*p == '"' || *p == '\\'))
                fputc('\\', out);
            fwrite(p, 1, n, out);
        }
        p += n ? n : 1;
        size -= n ? n : 1;
    }
}

static void put_json(FILE *out, const char *text, size_t size) {
    fputc('"', out);
    put_text(out, text, size, true);
    fputc('"', out);
}

static double mb(uint64_t bytes) {
    return (double)bytes / 1e6;
}

static double mb_per_s(const totals *t) {
    return t->seconds > 0 ? mb(t->bytes - t->resumed) / t->seconds : 0;
}

static const char *capacity_text(int64_t capacity, char *buffer, size_t size) {
    snprintf(buffer, size, "%" PRId64, capacity);
    return capacity > 0 ? buffer : capacity == -1 ? "rendezvous" : "unbounded";
}

static void report_json(FILE *out, const options *opts, const totals *t, const slot **top,
                        size_t n) {
    const walk *w = t->found;
    fprintf(out, "{\"files\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"words\":%" PRIu64, t->files,
            t->bytes, t->words->words);
    fprintf(out, ",\"distinct\":%zu,\"seconds\":%.6f,\"mb_per_s\":%.1f,\"workers\":%d",
            t->words->distinct, t->seconds, mb_per_s(t), t->workers);
    fprintf(out, ",\"interrupted\":%s,\"cut\":%" PRIu64, t->signal ? "true" : "false", t->cut);
    fprintf(out, ",\"failures\":%" PRIu64 ",\"restarts\":%" PRIu64 ",\"recounted\":%" PRIu64,
            t->failures, t->restarts, t->recounted);
    fprintf(out, ",\"resumed\":%" PRIu64 ",\"checkpoints\":%" PRIu64, t->resumed, t->saved);
    fprintf(out, ",\"skipped\":{\"unreadable\":%" PRIu64 ",\"packed\":%" PRIu64, t->unreadable,
            w->packed);
    fprintf(out, ",\"links\":%" PRIu64 ",\"special\":%" PRIu64 "},\"found\":[", w->links,
            w->special);
    const char *comma = "";
    for (size_t i = 0; i < w->next_root; i++) {
        const root *r = &w->roots[i];
        fprintf(out, "%s{\"path\":", comma);
        put_json(out, r->path, strlen(r->path));
        fprintf(out, ",\"folders\":%" PRIu64 ",\"files\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
                r->folders, r->files, r->bytes);
        comma = ",";
    }
    fputs("],\"top\":[", out);
    for (size_t i = 0; i < n; i++) {
        fputs(i ? ",{\"word\":" : "{\"word\":", out);
        put_json(out, table_text(t->words, top[i]), top[i]->size);
        fprintf(out, ",\"count\":%" PRIu64 "}", top[i]->count);
    }
    fputs("],\"channels\":[", out);
    for (size_t i = 0; i < t->n_channels; i++) {
        const channel_line *c = &t->channels[i];
        fprintf(out, "%s{\"name\":\"%s\",\"kind\":\"%s\",\"capacity\":%" PRId64, i ? "," : "",
                c->name, c->kind, c->capacity);
        fprintf(out, ",\"sent\":%" PRIu64 ",\"high\":%" PRIu64 "}", c->sent, c->high);
    }
    fputs("]", out);
    if (opts->ray)
        fprintf(out,
                ",\"killed\":{\"worker\":%" PRIu64 ",\"chunks\":%" PRIu64 ",\"tallies\":%" PRIu64
                "}",
                t->killed[0], t->killed[1], t->killed[2]);
    fputs("}\n", out);
}

static void report_found(FILE *out, const options *opts, const walk *w) {
    for (size_t i = 0; i < w->next_root; i++) {
        const root *r = &w->roots[i];
        if (opts->n_paths == 0 && r->folders == 0)
            continue; /* a default folder that is not there */
        fputs("found ", out);
        put_text(out, r->path, strlen(r->path), false);
        fprintf(out, ": %" PRIu64 " files in %" PRIu64 " folders, %.1f MB\n", r->files, r->folders,
                mb(r->bytes));
    }
    if (w->packed + w->links + w->special)
        fprintf(out,
                "skipped %" PRIu64 " compressed files and images, %" PRIu64 " links, %" PRIu64
                " special files\n",
                w->packed, w->links, w->special);
    if (opts->n_paths == 0 && w->done && w->bytes < opts->min_bytes)
        fprintf(out, "this machine has only %.1f MB of text where wordcount looks (%.1f wanted)\n",
                mb(w->bytes), mb(opts->min_bytes));
}

static void report_text(FILE *out, const options *opts, const totals *t, const slot **top,
                        size_t n) {
    char capacity[24];
    report_found(out, opts, t->found);
    if (n > 0)
        fprintf(out, "\n%12s  word\n", "count");
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%12" PRIu64 "  ", top[i]->count);
        put_text(out, table_text(t->words, top[i]), top[i]->size, false);
        fputc('\n', out);
    }
    fprintf(out, "\n%-10s %10s %10s %10s %10s\n", "channel", "kind", "capacity", "sent", "high");
    for (size_t i = 0; i < t->n_channels; i++) {
        const channel_line *c = &t->channels[i];
        fprintf(out, "%-10s %10s %10s %10" PRIu64 " %10" PRIu64 "\n", c->name, c->kind,
                capacity_text(c->capacity, capacity, sizeof capacity), c->sent, c->high);
    }
    fprintf(out, "\n%s%" PRIu64 " files, %" PRIu64 " bytes, %" PRIu64 " words, %zu distinct",
            t->signal ? "so far: " : "", t->files, t->bytes, t->words->words, t->words->distinct);
    fprintf(out, "; %.3f s with %d workers, %.0f MB/s\n", t->seconds, t->workers, mb_per_s(t));
    if (t->unreadable)
        fprintf(out, "%" PRIu64 " could not be read\n", t->unreadable);
    if (opts->chaos && opts->ray)
        fprintf(out,
                "killed: %" PRIu64 " workers, the actor of the chunks %" PRIu64
                " times, that of the tallies %" PRIu64 " times; %" PRIu64
                " chunks were counted again, none twice\n",
                t->killed[0], t->killed[1], t->killed[2], t->recounted);
    else if (opts->chaos || t->failures)
        fprintf(out,
                "counters failed %" PRIu64 " times and were started again %" PRIu64
                " times; %" PRIu64 " chunks were counted again, none twice\n",
                t->failures, t->restarts, t->recounted);
    if (opts->chaos)
        fprintf(out, "chaos: %d percent, seed %" PRIu64 "\n", opts->chaos, opts->seed);
    if (t->resumed)
        fprintf(out, "%" PRIu64 " of these bytes had been counted before\n", t->resumed);
    if (t->signal)
        fprintf(out, "interrupted: these totals are partial (%" PRIu64 " files cut short)\n",
                t->cut);
}

bool report(FILE *out, const options *opts, const totals *t) {
    size_t n = 0;
    const slot **top = table_top(t->words, opts->top, &n);
    if (!top)
        return false;
    if (opts->json)
        report_json(out, opts, t, top, n);
    else
        report_text(out, opts, t, top, n);
    free(top);
    return true;
}
