/* SPDX-License-Identifier: Apache-2.0 */
/* record.c - what the store keeps of a run beside its workflow.
 *
 * Both records are lines "word number", an empty line, and bytes: the commands one a line, or the end of
 * an output. Unknown words are skipped, so that a later version may add some. What comes out of the
 * store may be of another program: whatever does not fit is CORRUPT. */
#include "jobs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char run_magic[] = "klaw jobs run 1\n";
static const char result_magic[] = "klaw jobs result 1\n";

/* ---- lines ---- */

typedef struct field {
    const char *word;
    int64_t *value;
} field;

/* Reads the lines; *rest is what follows the empty one. */
static klaw_err read_fields(const char *bytes, size_t size, const char *magic, const field *fields,
                            size_t n, const char **rest) {
    const char *p = bytes, *end = bytes + size;
    if (size < strlen(magic) || memcmp(bytes, magic, strlen(magic)) != 0)
        return KLAW_CORRUPT;
    for (p += strlen(magic);;) {
        char line[64], word[32];
        int64_t value;
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop || (size_t)(stop - p) >= sizeof line)
            return KLAW_CORRUPT;
        memcpy(line, p, (size_t)(stop - p));
        line[stop - p] = 0;
        p = stop + 1;
        if (!line[0]) {
            *rest = p;
            return KLAW_OK;
        }
        if (sscanf(line, "%31s %" SCNd64, word, &value) != 2)
            return KLAW_CORRUPT;
        for (size_t i = 0; i < n; i++) {
            if (strcmp(word, fields[i].word) == 0)
                *fields[i].value = value;
        }
    }
}

static klaw_err save(klaw_store *s, const char *key, const char *magic, const field *fields,
                     size_t n, const char *rest, size_t rest_size, klaw_error_info *info) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return KLAW_NOMEM;
    fputs(magic, out);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%s %" PRId64 "\n", fields[i].word, *fields[i].value);
    fputc('\n', out);
    fwrite(rest, 1, rest_size, out);
    bool written = !ferror(out);
    written &= fclose(out) == 0;
    klaw_err e = written
                     ? klaw_store_save(s, key, text, size, NULL, klaw_after(JOBS_PATIENCE), info)
                     : KLAW_NOMEM;
    free(text);
    return e;
}

/* The bytes are NUL-terminated behind their end, malloc'd. */
static klaw_err load(klaw_store *s, const char *key, char **bytes, size_t *size,
                     klaw_error_info *info) {
    klaw_blob *b;
    klaw_err e = klaw_store_load(s, key, &b, NULL, klaw_after(JOBS_PATIENCE), info);
    if (e)
        return e;
    *size = klaw_blob_size(b);
    *bytes = malloc(*size + 1);
    if (*bytes) {
        memcpy(*bytes, klaw_blob_data(b), *size);
        (*bytes)[*size] = 0;
    }
    klaw_blob_unref(b);
    return *bytes ? KLAW_OK : KLAW_NOMEM;
}

static klaw_err corrupt(klaw_store *s, const char *key, klaw_error_info *info) {
    snprintf(info->message, sizeof info->message, "%.100s: '%.100s' is not what jobs writes",
             klaw_store_path(s), key);
    return KLAW_CORRUPT;
}

/* ---- results ---- */

void result_free(result *r) {
    free(r->tail);
    *r = (result){0};
}

void result_text(const result *r, char *text, size_t size) {
    char status[64];
    klaw_process_status_text(&r->status, status, sizeof status);
    switch (r->outcome) {
    case OUTCOME_OK: snprintf(text, size, "ok"); break;
    case OUTCOME_TIMEOUT: snprintf(text, size, "time limit"); break;
    case OUTCOME_NO_START: snprintf(text, size, "could not be started"); break;
    default: snprintf(text, size, "%s", status); break;
    }
}

static void result_key(char *key, const char *run, const char *step) {
    snprintf(key, KLAW_STORE_KEY_MAX + 1, JOBS_PREFIX "%s/result/%s", run, step);
}

/* The numbers of a result, between the struct and the lines. */
typedef struct numbers {
    int64_t outcome, code, signal, attempts, began, took, output;
} numbers;

enum { RESULT_FIELDS = 7 };

static void result_fields(numbers *n, field *out) {
    const field all[RESULT_FIELDS] = {
        {"outcome", &n->outcome},   {"code", &n->code},   {"signal", &n->signal},
        {"attempts", &n->attempts}, {"began", &n->began}, {"took", &n->took},
        {"output", &n->output},
    };
    memcpy(out, all, sizeof all);
}

klaw_err result_save(klaw_store *s, const char *run, const command *c, const result *r,
                     klaw_error_info *info) {
    char key[KLAW_STORE_KEY_MAX + 1];
    field fields[RESULT_FIELDS];
    numbers n = {(int64_t)r->outcome, r->status.code, r->status.signal,
                 r->attempts,         r->began,       r->took,
                 (int64_t)r->output};
    result_key(key, run, c->step);
    result_fields(&n, fields);
    return save(s, key, result_magic, fields, RESULT_FIELDS, r->tail, r->tail_size, info);
}

klaw_err result_load(klaw_store *s, const char *run, const command *c, result *out,
                     klaw_error_info *info) {
    char key[KLAW_STORE_KEY_MAX + 1];
    char *bytes;
    const char *tail;
    size_t size;
    field fields[RESULT_FIELDS];
    numbers n = {.outcome = -1};
    *out = (result){0};
    result_key(key, run, c->step);
    klaw_err e = load(s, key, &bytes, &size, info);
    if (e)
        return e;
    result_fields(&n, fields);
    e = read_fields(bytes, size, result_magic, fields, RESULT_FIELDS, &tail);
    if (e || n.outcome < OUTCOME_OK || n.outcome > OUTCOME_NO_START || n.attempts < 0 ||
        n.attempts > UINT32_MAX || n.code < -1 || n.code > 255 || n.signal < 0 || n.signal > 64) {
        free(bytes);
        return corrupt(s, key, info);
    }
    out->outcome = (outcome)n.outcome;
    out->status = (klaw_process_status){.code = (int32_t)n.code, .signal = (int32_t)n.signal};
    out->attempts = (uint32_t)n.attempts;
    out->began = n.began;
    out->took = n.took;
    out->output = (uint64_t)n.output;
    out->tail_size = size - (size_t)(tail - bytes);
    memmove(bytes, tail, out->tail_size);
    out->tail = bytes;
    return KLAW_OK;
}

/* ---- runs ---- */

void run_workflow_name(char *out, size_t size, const char *run) {
    snprintf(out, size, JOBS_PREFIX "%s", run);
}

static void run_key(char *key, const char *run) {
    snprintf(key, KLAW_STORE_KEY_MAX + 1, JOBS_PREFIX "%s/run", run);
}

enum { RUN_FIELDS = 6 };

static void run_fields(options *o, field *out) {
    const field all[RUN_FIELDS] = {
        {"parallel", &o->parallel}, {"retries", &o->retries}, {"backoff", &o->backoff},
        {"timeout", &o->timeout},   {"grace", &o->grace},     {"tail", &o->tail},
    };
    memcpy(out, all, sizeof all);
}

klaw_err run_save(klaw_store *s, const char *run, const options *o, const commands *c,
                  klaw_error_info *info) {
    char key[KLAW_STORE_KEY_MAX + 1];
    field fields[RUN_FIELDS];
    options copy = *o;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return KLAW_NOMEM;
    for (size_t i = 0; i < c->n; i++)
        fprintf(out, "%s\n", c->list[i].text);
    bool written = !ferror(out);
    written &= fclose(out) == 0;
    run_key(key, run);
    run_fields(&copy, fields);
    klaw_err e =
        written ? save(s, key, run_magic, fields, RUN_FIELDS, text, size, info) : KLAW_NOMEM;
    free(text);
    return e;
}

klaw_err run_load(klaw_store *s, const char *run, options *o, commands *c, klaw_error_info *info) {
    char key[KLAW_STORE_KEY_MAX + 1];
    char *bytes;
    const char *text;
    size_t size;
    field fields[RUN_FIELDS];
    *c = (commands){0};
    run_key(key, run);
    klaw_err e = load(s, key, &bytes, &size, info);
    if (e)
        return e;
    run_fields(o, fields);
    if (read_fields(bytes, size, run_magic, fields, RUN_FIELDS, &text)) {
        free(bytes);
        return corrupt(s, key, info);
    }
    size -= (size_t)(text - bytes);
    memmove(bytes, text, size + 1);
    return commands_parse(bytes, size, c) ? KLAW_OK : corrupt(s, key, info);
}

klaw_err run_forget(klaw_store *s, const char *run, klaw_error_info *info) {
    char prefix[JOBS_NAME_MAX + sizeof JOBS_PREFIX + 2];
    klaw_store_entries list;
    snprintf(prefix, sizeof prefix, JOBS_PREFIX "%s/", run);
    klaw_err e = klaw_store_list(s, prefix, &list, klaw_after(JOBS_PATIENCE), info);
    if (e)
        return e;
    for (size_t i = 0; !e && i < list.n; i++) {
        e = klaw_store_delete(s, list.entries[i].key, 0, klaw_after(JOBS_PATIENCE), info);
        e = e == KLAW_NOT_FOUND ? KLAW_OK : e;
    }
    klaw_store_entries_free(&list);
    return e;
}
