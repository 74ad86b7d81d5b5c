/* SPDX-License-Identifier: Apache-2.0 */
/* view.h - the tables of klaw top: what rows there are, what stands in a cell, and the page about one
 * object. Nothing here knows a terminal. */
#ifndef CLI_TOP_VIEW_H
#define CLI_TOP_VIEW_H

#include "../client.h"

/* Two looks at a process; rates are differences. */
typedef struct cli_looks {
    const cli_snapshot *now, *before; /* before may be NULL */
    double seconds;                   /* between them */
} cli_looks;

typedef struct cli_column {
    const char *title;
    int width; /* columns; 0: what is left of the line */
    bool left; /* text; else a number, at the right, the largest first when sorted */
} cli_column;

typedef struct cli_row {
    size_t index;     /* of its array */
    uint64_t id;      /* stays the same from look to look */
    double value;     /* what it is sorted by */
    const char *text; /* or by this */
} cli_row;

typedef struct cli_view {
    const char *name;
    const cli_column *columns;
    size_t n_columns;
    size_t sort; /* the column at first; n_columns: the order they come in */
    size_t (*count)(const cli_snapshot *s);
    uint64_t (*id)(const cli_snapshot *s, size_t index);
    /* The name the filter looks at and the number or text (when not NULL) to sort by. */
    const char *(*name_of)(const cli_snapshot *s, size_t index);
    double (*value)(const cli_looks *l, size_t index, size_t column, const char **text);
    void (*cell)(const cli_looks *l, size_t index, size_t column, char *out, size_t size);
    enum cli_colour (*colour)(const cli_looks *l, size_t index);
    /* All about one, line by line. */
    void (*page)(const cli_looks *l, size_t index, FILE *out);
} cli_view;

extern const cli_view *const cli_views[]; /* ended by NULL */

/* The rows that match the filter (a part of the name, any case, or of the number), sorted; the caller's
 * for free(). `reverse` turns the order round. */
cli_row *cli_rows(const cli_view *v, const cli_looks *l, const char *filter, size_t sort,
                  bool reverse, size_t *n);
/* What a host is called in this snapshot. */
void cli_host_name(const cli_snapshot *s, klaw_host_kind kind, uint64_t id, char *out, size_t size);

#endif
