/* SPDX-License-Identifier: Apache-2.0 */
/* log_line.c - one record as one line: JSON or logfmt.
 *
 * What finds the record (time, level, message, fiber, ids) comes first, then the caller's
 * fields, then the key/values of the context, so that truncation takes the least important end.
 *
 * Invariants, whatever bytes come in:
 *   F1  a line is valid: it parses as one JSON object, or as key=value pairs; it has one
 *       newline, at its end.
 *   F2  a line has at most KLAW_LOG_LINE_MAX bytes: room for the end (mark, brace, newline) is
 *       kept back from the beginning. A field is there whole, or as a cut string, or not at all.
 *
 * A logfmt value is written bare when it is of plain characters, else quoted with JSON's
 * escapes; a key's other characters become '_'. */
#include <string.h>

#include "base/log.h"
#include "base/text.h"

#define JSON_MARK ",\"truncated\":true"
#define LOGFMT_MARK " truncated=true"
/* The longest end: JSON_MARK "}\n". */
#define END_MAX (sizeof JSON_MARK - 1 + 2)

struct line {
    struct klawi_text t;
    bool json;
    bool first;
    bool cut; /* a string was shortened by a limit of its own */
};

/* ---- values ---- */

static bool plain(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && (c == 0 || !strchr("-._:/+@%#,;~()[]", c)))
            return false;
    }
    return n > 0;
}

/* False when the line has nothing of it, or a part that is no value. */
static bool string_value(struct line *l, const char *s, size_t n) {
    if (l->json || !plain(s, n))
        return klawi_text_json_string(&l->t, s, n);
    size_t left = l->t.cap - l->t.len;
    if (l->t.full || left == 0)
        return false;
    klawi_text_put(&l->t, s, n <= left ? n : left);
    l->t.full = n > left;
    return true;
}

static bool value(struct line *l, const klaw_log_field *f) {
    struct klawi_text *t = &l->t;
    switch (f->kind) {
    case KLAW_LOG_KIND_STR: return string_value(l, f->v.str, f->v.str ? f->size : 0);
    case KLAW_LOG_KIND_I64: klawi_text_i64(t, f->v.i64); break;
    case KLAW_LOG_KIND_U64: klawi_text_u64(t, f->v.u64); break;
    case KLAW_LOG_KIND_F64: {
        bool finite = f->v.f64 - f->v.f64 == 0;
        if (l->json && !finite)
            klawi_text_str(t, "\"");
        klawi_text_f64(t, f->v.f64);
        if (l->json && !finite)
            klawi_text_str(t, "\"");
        break;
    }
    case KLAW_LOG_KIND_BOOL: klawi_text_bool(t, f->v.boolean); break;
    case KLAW_LOG_KIND_NONE: break;
    }
    return !t->full;
}

/* ---- keys and fields ---- */

static void logfmt_key(struct klawi_text *t, const char *key) {
    size_t n = strlen(key), used;
    if (n == 0)
        klawi_text_put(t, "_", 1);
    for (size_t i = 0; i < n; i += used) {
        bool ok;
        used = klawi_utf8_step(key + i, n - i, &ok);
        unsigned char c = (unsigned char)key[i];
        if (ok && c > ' ' && c != '=' && c != '"' && c != 0x7f)
            klawi_text_put(t, key + i, used);
        else
            klawi_text_put(t, "_", 1);
    }
}

/* F2: whole, cut, or not at all. */
static void field(struct line *l, const klaw_log_field *f) {
    struct klawi_text *t = &l->t;
    size_t mark = t->len;
    const char *key = f->key ? f->key : "";
    if (f->kind == KLAW_LOG_KIND_NONE || t->full)
        return;
    if (!l->first)
        klawi_text_str(t, l->json ? "," : " ");
    if (l->json)
        (void)klawi_text_json_string(t, key, strlen(key));
    else
        logfmt_key(t, key);
    klawi_text_str(t, l->json ? ":" : "=");
    if (t->full || !value(l, f))
        t->len = mark;
    l->first = false;
}

static void named(struct line *l, const char *key, const char *s, size_t n) {
    klaw_log_field f = klaw_log_strn(key, s, n);
    field(l, &f);
}

static void message(struct line *l, const char *s) {
    size_t n = strnlen(s, KLAW_LOG_MESSAGE_MAX + 1);
    if (n > KLAW_LOG_MESSAGE_MAX) {
        n = KLAW_LOG_MESSAGE_MAX;
        l->cut = true;
        /* Not within a character: back to where one begins, if it does within four bytes. */
        for (size_t back = 0; back < 4; back++) {
            if (((unsigned char)s[n - back] & 0xc0) == 0x80)
                continue;
            n -= back;
            break;
        }
    }
    named(l, "msg", s, n);
}

static void trace(struct line *l, const klaw_trace *trace) {
    char hex[32];
    struct klawi_text t = {.p = hex, .cap = sizeof hex};
    klawi_text_hex(&t, trace->trace_id, sizeof trace->trace_id);
    named(l, "trace_id", hex, t.len);
    t.len = 0;
    klawi_text_hex(&t, trace->span_id, sizeof trace->span_id);
    named(l, "span_id", hex, t.len);
}

/* ---- the line ---- */

static void end(struct line *l) {
    struct klawi_text *t = &l->t;
    bool mark = t->full || l->cut;
    t->full = false;
    t->cap += END_MAX;
    if (mark)
        klawi_text_str(t, l->json ? JSON_MARK : LOGFMT_MARK);
    klawi_text_str(t, l->json ? "}\n" : "\n");
    KLAWI_ASSERT(!t->full && t->len <= KLAW_LOG_LINE_MAX); /* F2 */
}

size_t klawi_log_line(char *buffer, klaw_log_format format, const klaw_log_record *r) {
    struct line l = {
        .t = {.p = buffer, .cap = KLAW_LOG_LINE_MAX - END_MAX},
        .json = format != KLAW_LOG_LOGFMT,
        .first = true,
    };
    char time[32];
    struct klawi_text t = {.p = time, .cap = sizeof time};
    const char *level = klaw_log_level_name(r->level);
    if (l.json)
        klawi_text_str(&l.t, "{");
    klawi_text_time(&t, r->time);
    named(&l, "time", time, t.len);
    named(&l, "level", level, strlen(level));
    message(&l, r->message);
    if (r->fiber)
        named(&l, "fiber", r->fiber, strlen(r->fiber));
    if (r->request_id)
        named(&l, "request_id", r->request_id, strlen(r->request_id));
    if (r->trace)
        trace(&l, r->trace);
    for (size_t i = 0; i < r->n_fields; i++)
        field(&l, &r->fields[i]);
    for (size_t i = 0; i < r->n_values; i++)
        named(&l, r->values[i].key, r->values[i].value, strlen(r->values[i].value));
    end(&l);
    return l.t.len;
}
