/* SPDX-License-Identifier: Apache-2.0 */
/* view.c - rows: filtered, sorted, and what hosts are called. The views themselves are in views.c. */
#include "view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool order_text, order_reverse;

static int by_value(const void *a, const void *b) {
    const cli_row *x = a, *y = b;
    int order =
        order_text ? strcasecmp(x->text, y->text) : (x->value < y->value) - (x->value > y->value);
    if (order_reverse)
        order = -order;
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

static bool matches(const char *name, uint64_t id, const char *filter) {
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, id);
    return !*filter || strcasestr(name, filter) || strcmp(number, filter) == 0;
}

cli_row *cli_rows(const cli_view *v, const cli_looks *l, const char *filter, size_t sort,
                  bool reverse, size_t *n) {
    size_t count = v->count(l->now);
    cli_row *rows = calloc(count + 1, sizeof *rows);
    *n = 0;
    for (size_t i = 0; rows && i < count; i++) {
        cli_row *r = &rows[*n];
        uint64_t id = v->id(l->now, i);
        if (!matches(v->name_of(l->now, i), id, filter))
            continue;
        *r = (cli_row){.index = i, .id = id};
        if (sort < v->n_columns)
            r->value = v->value(l, i, sort, &r->text);
        ++*n;
    }
    if (rows && sort < v->n_columns) {
        order_text = v->columns[sort].left;
        order_reverse = reverse;
        for (size_t i = 0; i < *n; i++)
            rows[i].text = rows[i].text ? rows[i].text : "";
        qsort(rows, *n, sizeof *rows, by_value);
    } else if (rows && reverse) {
        for (size_t i = 0; i < *n / 2; i++) {
            cli_row r = rows[i];
            rows[i] = rows[*n - 1 - i];
            rows[*n - 1 - i] = r;
        }
    }
    return rows;
}

void cli_host_name(const cli_snapshot *s, klaw_host_kind kind, uint64_t id, char *out,
                   size_t size) {
    char clean[96];
    const char *what = klaw_host_kind_name(kind), *name = "";
    if (kind == KLAW_HOST_FIBER) {
        const klaw_fiber_info *f = cli_fiber(s, id);
        if (!f) {
            snprintf(out, size, "a fiber that has ended (#%" PRIu64 ")", id);
            return;
        }
        name = f->name;
        for (size_t i = 0; i < s->n_actors; i++)
            if (s->actors[i].fiber_id == id) {
                what = "actor";
                name = s->actors[i].name;
                id = s->actors[i].id;
                break;
            }
    } else if (kind == KLAW_HOST_FOREIGN) {
        const klaw_task_info *t = cli_foreign_task(s, id);
        what = "task";
        name = t ? t->name : "of an event loop";
    } else if (kind == KLAW_HOST_RUNTIME) {
        snprintf(out, size, "klaw itself");
        return;
    } else if (kind == KLAW_HOST_UNKNOWN) {
        snprintf(out, size, "nobody knows");
        return;
    }
    cli_clean(clean, sizeof clean, name, 40);
    if (*clean)
        snprintf(out, size, "%s '%s' #%" PRIu64, what, clean, id);
    else
        snprintf(out, size, "%s #%" PRIu64, what, id);
}
