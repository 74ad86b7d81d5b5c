/* SPDX-License-Identifier: Apache-2.0 */
/* command.c - one attempt at one command.
 *
 * Two fibers: this one waits for the process, another one reads what it writes and keeps the end of
 * it. The reader lives in a scope that Ctrl-C does not reach: a command that is asked to end may have
 * something to say. */
#include "jobs.h"

#include <stdlib.h>
#include <string.h>

/* Bytes that a process may still have in the pipe when it has ended arrive at once; who holds the pipe
 * for longer has left the process's group. */
#define LAST_WORDS KLAW_MS(300)

typedef struct output {
    klaw_process *process;
    char *ring; /* `room` bytes; the newest is before at % room */
    size_t room;
    uint64_t at; /* bytes so far */
} output;

static void keep(output *o, const char *bytes, size_t size) {
    size_t skip = size > o->room ? size - o->room : 0;
    o->at += skip;
    for (bytes += skip, size -= skip; size > 0;) {
        size_t place = (size_t)(o->at % o->room);
        size_t n = size < o->room - place ? size : o->room - place;
        memcpy(o->ring + place, bytes, n);
        o->at += n;
        bytes += n;
        size -= n;
    }
}

static klaw_err read_output(void *arg) {
    output *o = arg;
    char buffer[4096];
    size_t got;
    int fd = klaw_process_fd(o->process, 1);
    while (klaw_fd_read(fd, buffer, sizeof buffer, &got, KLAW_FOREVER, NULL) == KLAW_OK &&
           got > 0) {
        if (o->room > 0)
            keep(o, buffer, got);
        else
            o->at += got;
    }
    return KLAW_OK; /* the end, or the pipe was closed */
}

/* The end of the output, in order. */
static void take_tail(output *o, result *r) {
    size_t size = o->at < o->room ? (size_t)o->at : o->room;
    r->output = o->at;
    r->tail = malloc(size + 1);
    for (size_t i = 0; r->tail && i < size; i++)
        r->tail[i] = o->ring[(o->at - size + i) % o->room];
    r->tail_size = r->tail ? size : 0;
}

/* What has to happen whatever the caller was cancelled for: the process ends, its last words are
 * read. */
static klaw_err finish(const attempt *a, klaw_process *p, klaw_fiber *reader, klaw_err e,
                       result *r) {
    klaw_scope *shield;
    klaw_scope_opts opts = {.shield = true, .deadline = klaw_after(a->grace + KLAW_S(30))};
    klaw_err opened = klaw_scope_open(&opts, &shield);
    if (e) {
        klaw_err stopped = klaw_process_stop(p, klaw_after(a->grace), &r->status);
        e = stopped && stopped != KLAW_CANCELLED ? stopped : e;
    }
    klaw_err joined = klaw_join(reader, NULL, NULL, klaw_after(LAST_WORDS));
    if (joined) {
        klaw_err closed = klaw_process_fd_close(p, 1);
        (void)closed;
        /* A closed pipe wakes it, so this does not last; the buffer it writes to is the caller's. */
        while (joined && joined != KLAW_INVALID) {
            joined = klaw_join(reader, NULL, NULL, KLAW_FOREVER);
            klaw_err yielded = joined ? klaw_yield() : KLAW_OK;
            (void)yielded;
        }
    }
    if (!opened) {
        klaw_err ended = klaw_scope_close(shield);
        (void)ended; /* no fiber was in it */
    }
    return e;
}

static void say_no_start(result *r, klaw_err e, const klaw_error_info *info) {
    r->outcome = OUTCOME_NO_START;
    r->tail = strdup(*info->message ? info->message : klaw_err_text(e));
    r->tail_size = r->tail ? strlen(r->tail) : 0;
    r->output = r->tail_size;
}

klaw_err attempt_run(const attempt *a, klaw_deadline deadline, result *r) {
    const char *argv[] = {"/bin/sh", "-c", a->text, NULL};
    klaw_process_opts opts = {.argv = argv,
                              .env = a->env,
                              .in = {.kind = KLAW_STDIO_NULL},
                              .out = {.kind = KLAW_STDIO_PIPE},
                              .err = {.kind = KLAW_STDIO_OUT}};
    klaw_error_info info = {0};
    klaw_fiber *reader = NULL;
    output o = {.room = a->tail_max, .ring = malloc(a->tail_max + 1)};
    int64_t began = klaw_now();
    r->outcome = OUTCOME_NO_START;
    klaw_err e = o.ring ? klaw_process_spawn(&opts, &o.process, &info) : KLAW_NOMEM;
    if (e) {
        say_no_start(r, e, &info);
        free(o.ring);
        return e;
    }
    e = klaw_spawn(a->readers, read_output, &o, &(klaw_fiber_opts){.name = "reader"}, &reader);
    if (!e) {
        e = klaw_process_wait(o.process, deadline, &r->status);
        e = finish(a, o.process, reader, e, r);
        take_tail(&o, r);
    } else {
        say_no_start(r, e, &info);
    }
    klaw_process_unref(o.process); /* the last one: kills what nobody has seen the end of */
    free(o.ring);
    r->took = klaw_now() - began;
    if (!e) {
        r->outcome = r->status.code == 0 ? OUTCOME_OK : OUTCOME_FAILED;
        return r->status.code == 0 ? KLAW_OK : KLAW_SYSTEM;
    }
    r->outcome = e == KLAW_TIMEOUT ? OUTCOME_TIMEOUT : r->outcome;
    return e;
}
