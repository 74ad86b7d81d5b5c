/* SPDX-License-Identifier: Apache-2.0 */
/* fill.c - turns files into chunks of whole words.
 *
 * A chunk takes as many small files as fit, with a newline after each, so that the price of passing
 * something on is paid once per chunk and not once per file. A large file is cut after its last
 * whole word; the rest is carried over to the next chunk. A word longer than a chunk makes its
 * chunk grow. Each chunk says which spans of which files it is, so that somebody can keep account. */
#include "wordcount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

chunk *chunk_new(void) {
    chunk *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->room = CHUNK_SIZE;
    c->text = malloc(c->room + CHUNK_PAD);
    if (!c->text) {
        free(c);
        return NULL;
    }
    return c;
}

void chunk_free(chunk *c) {
    if (!c)
        return;
    free(c->text);
    free(c);
}

static bool chunk_resize(chunk *c, size_t room) {
    char *text = realloc(c->text, room + CHUNK_PAD);
    if (!text)
        return false;
    c->text = text;
    c->room = room;
    return true;
}

static bool in_word(unsigned char b) {
    return b >= 0x80 || (b >= '0' && b <= '9') || ((b | 0x20) >= 'a' && (b | 0x20) <= 'z');
}

void say_skipped(const char *path, const char *reason) {
    dprintf(STDERR_FILENO, "wordcount: %s: %s (skipped)\n", path, reason);
}

void filler_init(filler *f) {
    *f = (filler){.fd = -1};
}

static bool begin(filler *f, chunk *c) {
    c->size = 0;
    c->bytes = 0;
    c->files = 0;
    /* Back to the usual size after a very long word; one free byte at least, or nothing can be
     * read. */
    size_t room = f->carry_size < CHUNK_SIZE ? CHUNK_SIZE : f->carry_size * 2;
    if (c->room != room && !chunk_resize(c, room))
        return false;
    if (f->carry_size)
        memcpy(c->text, f->carry, f->carry_size);
    c->size = f->carry_size;
    c->bytes = f->carry_size;
    f->carry_size = 0;
    return true;
}

bool filler_begin(filler *f, chunk *c) {
    c->n_spans = 0;
    c->unreadable = 0;
    c->mark = (mark){0};
    return begin(f, c);
}

/* The chunk holds the file from where it began to there. */
static void account(filler *f, chunk *c, const job *j, place to) {
    span s = {{j->mark.files - 1, f->begun}, to};
    span *last = c->n_spans ? &c->spans[c->n_spans - 1] : NULL;
    if (to.file == s.from.file && to.at == s.from.at)
        return; /* all of it was carried over */
    if (last && last->to.file == s.from.file && last->to.at == s.from.at)
        last->to = to;
    else
        c->spans[c->n_spans++] = s;
    c->mark = j->mark;
    f->begun = to.at;
}

/* The piece of this file that was to be counted is over. */
static void account_end(filler *f, chunk *c, const job *j) {
    account(f, c, j,
            j->to == UINT64_MAX ? (place){j->mark.files, 0} : (place){j->mark.files - 1, j->to});
}

bool filler_cut(filler *f, chunk *c) {
    size_t whole = c->size;
    while (whole > 0 && in_word((unsigned char)c->text[whole - 1]))
        whole--;
    size_t rest = c->size - whole;
    if (rest > f->carry_room) {
        char *bigger = realloc(f->carry, rest);
        if (!bigger)
            return false;
        f->carry = bigger;
        f->carry_room = rest;
    }
    if (rest)
        memcpy(f->carry, c->text + whole, rest);
    f->carry_size = rest;
    c->size = whole;
    c->bytes -= rest;
    return true;
}

bool filler_got(filler *f, chunk *c, size_t n, bool *full) {
    c->size += n;
    c->bytes += n;
    *full = false;
    if (c->size < c->room)
        return true;
    if (!filler_cut(f, c))
        return false;
    *full = c->size > 0;
    /* Nothing but the beginning of one word: on with it, in a larger chunk. */
    return *full || begin(f, c);
}

void filler_end(chunk *c) {
    /* There is room for it: a chunk that is full has been cut before. */
    c->text[c->size++] = '\n';
    c->files++;
}

/* Opens the next file that can be opened. */
static bool open_next(filler *f, chunk *c) {
    while (f->next_job < f->n_jobs) {
        f->open = &f->jobs[f->next_job++];
        f->begun = f->at = f->open->from;
        f->fd = open(f->open->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (f->fd >= 0)
            return true;
        say_skipped(f->open->path, strerror(errno));
        c->unreadable++;
        account_end(f, c, f->open);
    }
    return false;
}

/* The file ended well, or after an error: what was read until then counts, the file does not. A piece
 * from its middle is no file either. */
static void close_file(filler *f, chunk *c, int error) {
    if (error) {
        say_skipped(f->open->path, strerror(error));
        c->unreadable++;
    }
    filler_end(c);
    c->files -= error != 0 || f->open->to != UINT64_MAX;
    account_end(f, c, f->open);
    close(f->fd);
    f->fd = -1;
}

static void jobs_free(filler *f) {
    for (size_t i = 0; i < f->n_jobs; i++)
        free(f->jobs[i].path);
    f->n_jobs = 0;
    f->next_job = 0;
}

bool filler_fill(filler *f, chunk *c) {
    bool full = false;
    if (!filler_begin(f, c))
        return false;
    while (!full && (f->fd >= 0 || open_next(f, c))) {
        size_t room = c->room - c->size;
        uint64_t left = f->open->to - f->at;
        ssize_t n = left == 0 ? 0
                              : pread(f->fd, c->text + c->size, left < room ? (size_t)left : room,
                                      (off_t)f->at);
        if (n > 0) {
            f->at += (uint64_t)n;
            if (!filler_got(f, c, (size_t)n, &full))
                return false;
            if (full)
                account(f, c, f->open, (place){f->open->mark.files - 1, f->at - f->carry_size});
        } else if (n == 0 || errno != EINTR) {
            close_file(f, c, n == 0 ? 0 : errno);
            full = c->size == c->room;
        }
    }
    return true;
}

bool filler_more(filler *f) {
    if (f->fd >= 0 || f->next_job < f->n_jobs)
        return true;
    jobs_free(f);
    return false;
}

void filler_close(filler *f) {
    if (f->fd >= 0) {
        close(f->fd);
        f->cut++;
    }
    jobs_free(f);
    free(f->carry);
    f->carry = NULL;
}
