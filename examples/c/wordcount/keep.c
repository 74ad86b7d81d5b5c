/* SPDX-License-Identifier: Apache-2.0 */
/* keep.c - the checkpoint: everything that has been counted, as one value in klaw's store.
 *
 * A value is either the old one or the new one, whole, whenever the process dies; and what it says was
 * counted (the spans) and the totals are of one moment. So a run that goes on counts the rest and
 * nothing twice. The key is made of the arguments: another input has another checkpoint.
 *
 * The value: the magic line, numbers of eight bytes (lowest first), the spans, the words (length,
 * count, bytes; both numbers in groups of seven bits), an end mark. Whatever comes out of the store is
 * checked: it may be of another program. */
#include "wordcount.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <klaw/config.h>
#include <klaw/store.h>

static const char magic[] = "klaw wordcount 1\n";
static const char end_mark[] = "\nend of checkpoint\n"; /* words are read eight bytes at a time */
#define MAGIC_SIZE (sizeof magic - 1)
#define END_SIZE (sizeof end_mark - 1)
#define PREFIX "wordcount/"
#define PATIENCE KLAW_S(10) /* somebody else may have locked the store */

void tally_free(tally *t) {
    table_free(&t->words);
    free(t->counted.list);
    *t = (tally){0};
}

/* ---- bytes ---- */

static size_t varint_size(uint64_t n) {
    size_t size = 1;
    for (; n >= 0x80; n >>= 7)
        size++;
    return size;
}

static char *put_varint(char *p, uint64_t n) {
    for (; n >= 0x80; n >>= 7)
        *p++ = (char)(n | 0x80);
    *p++ = (char)n;
    return p;
}

static char *put_numbers(char *p, const uint64_t *numbers, size_t n) {
    memcpy(p, numbers, n * sizeof *numbers); /* little-endian, as words.c says */
    return p + n * sizeof *numbers;
}

klaw_blob *keep_encode(const tally *t) {
    const table *w = &t->words;
    uint64_t head[] = {t->files,      t->bytes,     t->unreadable, w->words,
                       t->mark.files, t->mark.hash, t->counted.n,  w->distinct};
    size_t size = MAGIC_SIZE + sizeof head + t->counted.n * sizeof(span) + END_SIZE;
    for (size_t i = 0; i <= w->mask; i++) {
        const slot *s = &w->slots[i];
        if (s->count)
            size += varint_size(s->size) + varint_size(s->count) + s->size;
    }
    klaw_blob *blob;
    if (klaw_blob_new(NULL, size, &blob))
        return NULL;
    char *p = klaw_blob_data(blob);
    memcpy(p, magic, MAGIC_SIZE);
    p = put_numbers(p + MAGIC_SIZE, head, sizeof head / sizeof *head);
    for (size_t i = 0; i < t->counted.n; i++) {
        const span *s = &t->counted.list[i];
        p = put_numbers(p, (uint64_t[]){s->from.file, s->from.at, s->to.file, s->to.at}, 4);
    }
    for (size_t i = 0; i <= w->mask; i++) {
        const slot *s = &w->slots[i];
        if (!s->count)
            continue;
        p = put_varint(put_varint(p, s->size), s->count);
        memcpy(p, table_text(w, s), s->size);
        p += s->size;
    }
    memcpy(p, end_mark, END_SIZE);
    return blob;
}

typedef struct input {
    const char *p, *end; /* of what precedes the end mark */
    bool bad, no_memory;
} input;

static uint64_t get_number(input *in) {
    uint64_t n = 0;
    if (in->bad || (size_t)(in->end - in->p) < sizeof n) {
        in->bad = true;
        return 0;
    }
    memcpy(&n, in->p, sizeof n);
    in->p += sizeof n;
    return n;
}

static uint64_t get_varint(input *in) {
    uint64_t n = 0;
    for (unsigned shift = 0; shift < 64 && in->p < in->end; shift += 7) {
        uint64_t byte = (unsigned char)*in->p++;
        n |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return n;
    }
    in->bad = true;
    return 0;
}

static void get_spans(input *in, tally *t, uint64_t n) {
    place last = {0, 0};
    for (uint64_t i = 0; i < n && !in->bad && !in->no_memory; i++) {
        span s;
        s.from.file = get_number(in);
        s.from.at = get_number(in);
        s.to.file = get_number(in);
        s.to.at = get_number(in);
        place end = {t->mark.files, 0};
        bool apart =
            i == 0 || s.from.file > last.file || (s.from.file == last.file && s.from.at > last.at);
        bool forward = s.to.file > s.from.file || (s.to.file == s.from.file && s.to.at > s.from.at);
        bool inside = s.to.file < end.file || (s.to.file == end.file && s.to.at == 0);
        in->bad |= !apart || !forward || !inside;
        in->no_memory |= !in->bad && !spans_add(&t->counted, s);
        last = s.to;
    }
}

static void get_words(input *in, tally *t, uint64_t words, uint64_t distinct) {
    while (!in->bad && !in->no_memory && in->p < in->end) {
        uint64_t size = get_varint(in);
        uint64_t count = get_varint(in);
        if (in->bad || size == 0 || count == 0 || size > (size_t)(in->end - in->p)) {
            in->bad = true;
            return;
        }
        in->no_memory = !table_add(&t->words, in->p, size, count);
        in->p += size;
    }
    in->bad |= t->words.words != words || t->words.distinct != distinct;
}

static bool decode(const char *bytes, size_t size, tally *t, bool *no_memory) {
    input in = {.p = bytes + MAGIC_SIZE};
    *no_memory = false;
    if (size < MAGIC_SIZE + END_SIZE || memcmp(bytes, magic, MAGIC_SIZE) != 0 ||
        memcmp(bytes + size - END_SIZE, end_mark, END_SIZE) != 0)
        return false;
    in.end = bytes + size - END_SIZE;
    *t = (tally){.files = get_number(&in), .bytes = 0};
    t->bytes = get_number(&in);
    t->unreadable = get_number(&in);
    uint64_t words = get_number(&in);
    t->mark.files = get_number(&in);
    t->mark.hash = get_number(&in);
    uint64_t n_spans = get_number(&in);
    uint64_t distinct = get_number(&in);
    in.no_memory = !in.bad && !table_init(&t->words);
    get_spans(&in, t, n_spans);
    get_words(&in, t, words, distinct);
    *no_memory = in.no_memory;
    if (!in.bad && !in.no_memory)
        return true;
    tally_free(t);
    return false;
}

/* ---- the store ---- */

const char *keep_path(const keeper *k) {
    return k->store ? klaw_store_path(k->store) : "";
}

static bool open_store(keeper *k, klaw_error_info *info) {
    klaw_config config;
    char path[sizeof config.checkpoint_path + 32];
    const char *name = k->opts->store;
    if (k->store)
        return true;
    if (!name) {
        if (klaw_config_get(&config, info))
            return false;
        snprintf(path, sizeof path, "%s/wordcount.db", config.checkpoint_path);
        name = path;
    }
    klaw_store_opts opts = {.keep = 1, .deadline = klaw_after(PATIENCE)};
    return klaw_store_open(name, &opts, &k->store, info) == KLAW_OK;
}

static void say(const char *what, klaw_err e, const klaw_error_info *info) {
    fprintf(stderr, "wordcount: %s: %s\n", what, *info->message ? info->message : klaw_err_text(e));
}

/* What the input is called: its arguments, as far as they fit, and a hash of all that matters. */
static void make_key(keeper *k) {
    const options *o = k->opts;
    char folder[4096];
    mark all = {0};
    if (!getcwd(folder, sizeof folder))
        folder[0] = 0;
    mark_add(&all, o->all ? "all" : "", o->n_paths ? 0 : o->min_bytes, 0);
    for (int i = 0; i < o->n_paths; i++) {
        if (o->paths[i][0] != '/')
            mark_add(&all, folder, 0, 0);
        mark_add(&all, o->paths[i], 1, 0);
    }
    int n = snprintf(k->key, sizeof k->key, PREFIX "%016" PRIx64, all.hash);
    for (int i = 0; i < o->n_paths && n < (int)sizeof k->key; i++)
        n += snprintf(k->key + n, sizeof k->key - (size_t)n, " %s", o->paths[i]);
    if (o->n_paths == 0)
        snprintf(k->key + n, sizeof k->key - (size_t)n, " the text of this machine");
}

/* There is no checkpoint of this input; are there others? */
static void say_nothing_kept(keeper *k) {
    klaw_store_entries list;
    const char *other = "";
    klaw_err e = klaw_store_list(k->store, PREFIX, &list, klaw_after(PATIENCE), NULL);
    if (!e && list.n > 0) {
        other = strchr(list.entries[0].key, ' ');
        fprintf(stderr, "wordcount: %s has no checkpoint of this input, only of:%s%s\n",
                keep_path(k), other ? other : " ?", list.n > 1 ? ", and more" : "");
    } else {
        fprintf(stderr, "wordcount: %s has no checkpoint of this input\n", keep_path(k));
    }
    fputs("wordcount: counting from the beginning\n", stderr);
    if (!e)
        klaw_store_entries_free(&list);
}

static bool load(keeper *k, tally *out) {
    klaw_blob *blob;
    klaw_error_info info = {0};
    bool no_memory;
    klaw_err e = klaw_store_load(k->store, k->key, &blob, NULL, klaw_after(PATIENCE), &info);
    if (e == KLAW_NOT_FOUND) {
        say_nothing_kept(k);
        return true;
    }
    if (e) {
        say("the checkpoint can't be read", e, &info);
        return false;
    }
    bool good = decode(klaw_blob_data(blob), klaw_blob_size(blob), out, &no_memory);
    klaw_blob_unref(blob);
    if (!good)
        fprintf(stderr, "wordcount: %s: %s\n", keep_path(k),
                no_memory
                    ? "no memory for its checkpoint"
                    : "what it has under the name of this input is not a checkpoint that this "
                      "wordcount wrote");
    return good;
}

bool keep_open(keeper *k, const options *opts, tally *out) {
    klaw_error_info info = {0};
    *k = (keeper){.opts = opts, .off = opts->no_checkpoint};
    make_key(k);
    if (!opts->resume && (k->off || !opts->store))
        return true; /* a short run never comes to need it */
    if (!open_store(k, &info)) {
        say("the store can't be opened", KLAW_SYSTEM, &info);
        return false;
    }
    return !opts->resume || load(k, out);
}

void keep_save(keeper *k, klaw_blob *bytes) {
    klaw_error_info info = {0};
    klaw_err e = KLAW_SYSTEM;
    if (open_store(k, &info))
        e = klaw_store_save(k->store, k->key, klaw_blob_data(bytes), klaw_blob_size(bytes), NULL,
                            klaw_after(PATIENCE), &info);
    k->saved += !e;
    if (!e || e == KLAW_CANCELLED)
        return;
    say("no checkpoint is kept", e, &info);
    k->off = true;
}

void keep_drop(keeper *k) {
    klaw_error_info info = {0};
    if (!k->store)
        return;
    klaw_err e = klaw_store_delete(k->store, k->key, 0, klaw_after(PATIENCE), &info);
    if (e && e != KLAW_NOT_FOUND)
        say("the checkpoint could not be removed", e, &info);
}

void keep_close(keeper *k) {
    klaw_store_unref(k->store);
    k->store = NULL;
}
