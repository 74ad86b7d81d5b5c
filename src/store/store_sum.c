/* SPDX-License-Identifier: Apache-2.0 */
/* store_sum.c - the 64-bit checksum of rows and pages.
 *
 * The state goes through h = rotl(h ^ word, 29) * odd once per 8 bytes of input, read little-endian. For a fixed word
 * that is a bijection of h, for a fixed h one of the word. So two inputs of one length that differ within one
 * word have different sums for certain, which covers every single bit flip and every burst inside a word;
 * any other difference is missed with a chance of about 2^-64. The length goes in first, the remainder
 * padded with zeros last.
 *
 * Rejected: CRC32C (2^-32 is within reach of a large store; the instruction differs by machine, and a table is slower
 * than this); a keyed hash (nothing here defends against somebody who may write the file). */
#include "store/store.h"

#include <string.h>

#define ODD1 0x9e3779b97f4a7c15ull
#define ODD2 0xd6e8feb86659fd93ull

static uint64_t mix(uint64_t h, uint64_t word) {
    h ^= word;
    return (h << 29 | h >> 35) * ODD1;
}

static uint64_t word_at(const unsigned char *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

uint64_t klawi_store_sum(uint64_t seed, const void *bytes, size_t size) {
    const unsigned char *p = bytes;
    uint64_t h = mix(seed + ODD2, size);
    size_t left = size;
    for (; left >= 8; left -= 8, p += 8)
        h = mix(h, word_at(p));
    if (left) {
        unsigned char tail[8] = {0};
        memcpy(tail, p, left);
        h = mix(h, word_at(tail));
    }
    /* So that the low bits depend on all of them; bijective, too. */
    h ^= h >> 32;
    h *= ODD2;
    h ^= h >> 29;
    return h ? h : 1;
}
