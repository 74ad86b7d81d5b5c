/* SPDX-License-Identifier: Apache-2.0 */
/* words.c - counts the words of a chunk.
 *
 * Two steps for each block of 64 bytes. First, eight bytes at a time and without a branch: which
 * bytes belong to words (a mask of 64 bits), with upper case made lower on the way. Then the edges
 * of that mask are the beginnings and ends of words. Text is full of short words, so a branch per
 * byte would be mispredicted once a word; that costs more than everything else here.
 *
 * A word of up to eight bytes is its own key: no hash of its bytes, no second look in memory to
 * compare them. Byte order: the first byte of a word is the lowest of the key (little-endian, as
 * all machines klaw runs on). */
#include "wordcount.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BYTES(b) (0x0101010101010101u * (uint64_t)(b))
#define HIGH BYTES(0x80)
#define FIRST_SLOTS ((size_t)1 << 14)
#define LARGE_PAGE ((size_t)1 << 21)

static uint64_t load8(const char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* The high bit of each byte (all below 0x80) that lies between from and to. */
static uint64_t between(uint64_t low7, unsigned from, unsigned to) {
    return (low7 + BYTES(0x80 - from)) & ~(low7 + BYTES(0x7f - to));
}

/* Eight bytes: makes them lower case, returns one bit for each that belongs to a word. */
static uint64_t fold8(char *p) {
    uint64_t x = load8(p);
    uint64_t low7 = x & ~HIGH;
    uint64_t upper = between(low7, 'A', 'Z') & ~x & HIGH;
    x |= upper >> 2; /* 0x80 >> 2 is 0x20, the bit between the cases */
    memcpy(p, &x, sizeof x);
    low7 = x & ~HIGH;
    uint64_t word = (x | between(low7, 'a', 'z') | between(low7, '0', '9')) & HIGH;
    /* Gather bit 7 of each byte: byte i goes to bit i. */
    return ((word >> 7) * 0x0102040810204080u) >> 56;
}

static uint64_t fold64(char *p) {
    uint64_t mask = 0;
    for (int i = 0; i < 8; i++)
        mask |= fold8(p + 8 * i) << (8 * i);
    return mask;
}

static uint64_t mix(uint64_t x) {
    x *= 0x9e3779b97f4a7c15u;
    return x ^ (x >> 32);
}

/* The key of a word; the bytes behind it may be anything but must be readable. */
static uint64_t key_of(const char *p, size_t size) {
    if (size <= 8)
        return load8(p) & (~(uint64_t)0 >> (64 - 8 * size));
    uint64_t h = size;
    for (; size > 8; size -= 8, p += 8)
        h = mix(h ^ load8(p));
    return mix(h ^ (load8(p) & (~(uint64_t)0 >> (64 - 8 * size))));
}

static size_t home(const table *t, uint64_t key, size_t size) {
    return (size_t)(mix(key ^ (uint64_t)size << 56) >> 7) & t->mask;
}

/* Not calloc: its pages are mapped at the first look and again at the first write, and the second
 * time interrupts every processor. Large tables ask for large pages. */
static slot *slots_new(size_t n) {
    size_t size = n * sizeof(slot);
    slot *s = aligned_alloc(size < LARGE_PAGE ? 64 : LARGE_PAGE, size);
    if (!s)
        return NULL;
    if (size >= LARGE_PAGE)
        (void)madvise(s, size, MADV_HUGEPAGE); /* a wish */
    return memset(s, 0, size);
}

bool table_init(table *t) {
    *t = (table){.mask = FIRST_SLOTS - 1, .text_room = 1 << 16};
    t->slots = slots_new(FIRST_SLOTS);
    t->text = malloc(t->text_room);
    if (t->slots && t->text)
        return true;
    table_free(t);
    return false;
}

void table_free(table *t) {
    free(t->slots);
    free(t->text);
    *t = (table){0};
}

const char *table_text(const table *t, const slot *s) {
    return s->size <= 8 ? (const char *)&s->key : t->text + s->at;
}

static bool table_grow(table *t) {
    size_t slots = (t->mask + 1) * 2;
    slot *old = t->slots;
    slot *fresh = slots_new(slots);
    if (!fresh)
        return false;
    size_t n = t->mask + 1;
    t->slots = fresh;
    t->mask = slots - 1;
    for (size_t i = 0; i < n; i++) {
        if (!old[i].count)
            continue;
        size_t at = home(t, old[i].key, old[i].size);
        while (fresh[at].count)
            at = (at + 1) & t->mask;
        fresh[at] = old[i];
    }
    free(old);
    return true;
}

static bool text_keep(table *t, const char *p, size_t size, uint64_t *at) {
    if (t->text_room - t->text_size < size) {
        size_t room = t->text_room * 2 + size;
        char *bigger = realloc(t->text, room);
        if (!bigger)
            return false;
        t->text = bigger;
        t->text_room = room;
    }
    memcpy(t->text + t->text_size, p, size);
    *at = t->text_size;
    t->text_size += size;
    return true;
}

/* A word the table has not seen, into its empty slot. */
static bool add_new(table *t, slot *s, uint64_t key, const char *p, size_t size, uint64_t count) {
    uint64_t at = 0;
    if (size > 8 && !text_keep(t, p, size, &at))
        return false;
    *s = (slot){key, count, at, size};
    t->distinct++;
    return t->distinct * 2 <= t->mask || table_grow(t);
}

static inline bool add(table *t, uint64_t key, const char *p, size_t size, uint64_t count) {
    t->words += count;
    for (size_t i = home(t, key, size);; i = (i + 1) & t->mask) {
        slot *s = &t->slots[i];
        if (!s->count)
            return add_new(t, s, key, p, size, count);
        if (s->key == key && s->size == size &&
            (size <= 8 || memcmp(t->text + s->at, p, size) == 0)) {
            s->count += count;
            return true;
        }
    }
}

bool table_count(table *t, chunk *c) {
    /* What follows the text ends its last word. */
    memset(c->text + c->size, 0, CHUNK_PAD);
    const char *begin = NULL; /* of the word we are in */
    uint64_t before = 0;      /* whether the byte before the block belonged to a word */
    for (size_t at = 0; at <= c->size; at += 64) {
        char *block = c->text + at;
        uint64_t word = fold64(block);
        uint64_t edges = word ^ (word << 1 | before);
        before = word >> 63;
        for (; edges; edges &= edges - 1) {
            const char *edge = block + __builtin_ctzll(edges);
            if (!begin) {
                begin = edge;
                continue;
            }
            size_t size = (size_t)(edge - begin);
            if (!add(t, key_of(begin, size), begin, size, 1))
                return false;
            begin = NULL;
        }
    }
    return true;
}

bool table_add(table *t, const char *word, size_t size, uint64_t count) {
    char padded[16] = {0}; /* a key is read eight bytes at a time */
    if (size <= 8)
        memcpy(padded, word, size);
    return add(t, key_of(size <= 8 ? padded : word, size), word, size, count);
}

bool table_merge(table *t, const table *from) {
    for (size_t i = 0; i <= from->mask; i++) {
        const slot *s = &from->slots[i];
        if (s->count && !add(t, s->key, table_text(from, s), s->size, s->count))
            return false;
    }
    return true;
}

/* More frequent first; the same frequency in the order of bytes. */
static int compare(const void *left, const void *right, void *arg) {
    const table *t = arg;
    const slot *a = *(const slot *const *)left;
    const slot *b = *(const slot *const *)right;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    size_t size = a->size < b->size ? a->size : b->size;
    int order = memcmp(table_text(t, a), table_text(t, b), size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

const slot **table_top(const table *t, size_t n, size_t *got) {
    /* Sort only what can be among the first n: how many words have a count of at least 2^k? */
    size_t having[65] = {0};
    for (size_t i = 0; i <= t->mask; i++) {
        if (t->slots[i].count)
            having[63 - __builtin_clzll(t->slots[i].count)]++;
    }
    int k = 63;
    size_t enough = having[63];
    while (k > 0 && enough < n)
        enough += having[--k];
    const slot **top = malloc((enough + 1) * sizeof(slot *));
    if (!top)
        return NULL;
    size_t kept = 0;
    for (size_t i = 0; i <= t->mask; i++) {
        if (t->slots[i].count >> k)
            top[kept++] = &t->slots[i];
    }
    qsort_r(top, kept, sizeof(slot *), compare, (void *)(uintptr_t)t);
    *got = kept < n ? kept : n;
    return top;
}
