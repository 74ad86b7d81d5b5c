/* SPDX-License-Identifier: Apache-2.0 */
/* progress.c - what has been counted: a set of spans of places, and the mark of a walk. */
#include "wordcount.h"

#include <stdlib.h>
#include <string.h>

static bool before(place a, place b) {
    return a.file < b.file || (a.file == b.file && a.at < b.at);
}

static bool same(place a, place b) {
    return a.file == b.file && a.at == b.at;
}

/* The first span that ends behind p. */
static size_t find(const spans *set, place p) {
    size_t low = 0, high = set->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (before(p, set->list[middle].to))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool spans_add(spans *set, span s) {
    size_t i = find(set, s.from);
    bool left = i > 0 && same(set->list[i - 1].to, s.from);
    bool right = i < set->n && same(s.to, set->list[i].from);
    if (left && right) {
        set->list[i - 1].to = set->list[i].to;
        memmove(&set->list[i], &set->list[i + 1], (--set->n - i) * sizeof *set->list);
    } else if (left) {
        set->list[i - 1].to = s.to;
    } else if (right) {
        set->list[i].from = s.from;
    } else {
        if (set->n == set->room) {
            size_t room = set->room ? set->room * 2 : 16;
            span *bigger = realloc(set->list, room * sizeof *bigger);
            if (!bigger)
                return false;
            set->list = bigger;
            set->room = room;
        }
        memmove(&set->list[i + 1], &set->list[i], (set->n++ - i) * sizeof *set->list);
        set->list[i] = s;
    }
    return true;
}

bool spans_hole(const spans *set, uint64_t file, uint64_t at, uint64_t *from, uint64_t *to) {
    place p = {file, at};
    size_t i = find(set, p);
    /* Neighbours never touch, so behind one span there is a hole. */
    if (i < set->n && !before(p, set->list[i].from))
        p = set->list[i++].to;
    if (p.file > file)
        return false;
    *from = p.at;
    *to = i < set->n && set->list[i].from.file == file ? set->list[i].from.at : UINT64_MAX;
    return true;
}

static uint64_t mix(uint64_t x) {
    x *= 0x9e3779b97f4a7c15u;
    return x ^ (x >> 32);
}

void mark_add(mark *m, const char *path, uint64_t size, int64_t mtime) {
    uint64_t h = mix(m->hash + 1);
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        h = mix(h ^ *p);
    m->hash = mix(mix(h ^ size) ^ (uint64_t)mtime);
    m->files++;
}
