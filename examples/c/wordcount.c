/* SPDX-License-Identifier: Apache-2.0 */
/* wordcount.c - counts the words of files and folders: readers, workers, a reducer, and channels
 * between them. `wordcount --help` says what it does for its user; this is how.
 *
 *                    paths                chunks                tallies
 *   walker (1 fiber) =====> readers (2)  ======> counters (n)  =======> reducer (1)
 *                              ^                     |
 *                              +------ empties <-----+
 *
 * Each arrow is a bounded channel. A stage that is too fast waits in its send, so memory stays the
 * same however much there is to read: the chunks of text go round, a few dozen at most.
 * A pipe that was named (or '-') gets a fiber of its own, for it may take forever.
 *
 * Each stage is a scope, nested from the reducer (outside) to the input (inside). That gives
 *   the end  - close the input scope: all of its fibers have ended. Then nobody sends chunks any
 *              more: close the sender; the counters drain the channel and end; and so on, outwards.
 *   Ctrl-C   - cancel the input scope, nothing else. What is on its way is still counted.
 *   an error - a fiber that fails cancels its scope, and with it the stages inside, which feed it.
 *
 * What may block (opening, listing, reading files) runs under klaw_blocking, off the workers. The
 * parts that know nothing of fibers are in the folder wordcount/. */
#include "wordcount/wordcount.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <klaw/klaw.h>

#define READERS 2
#define PATHS_CAPACITY 1024

/* ---- what travels ---- */

static void job_drop(void *elem) {
    free(((job *)elem)->path);
}

static void chunk_drop(void *elem) {
    chunk_free(*(chunk **)elem);
}

/* What one counter found. */
typedef struct tally {
    table words;
    uint64_t files;
    uint64_t bytes;
} tally;

static void tally_drop(void *elem) {
    table_free(&((tally *)elem)->words);
}

/* `drop` is for what is still in a channel when nobody will receive it any more. */
static const klaw_type job_type = {.name = "job", .size = sizeof(job), .drop = job_drop};
static const klaw_type chunk_type = {.name = "chunk", .size = sizeof(chunk *), .drop = chunk_drop};
static const klaw_type tally_type = {.name = "tally", .size = sizeof(tally), .drop = tally_drop};

typedef struct pipe_ends {
    klaw_sender *tx;
    klaw_receiver *rx;
} pipe_ends;

typedef struct pipeline {
    options opts;
    int counters;
    pipe_ends paths, empties, chunks, tallies;
    klaw_receiver *signals;
    klaw_scope *input; /* what Ctrl-C cancels */
    walk walk;         /* the walker's; ours when it has ended */
    tally total;       /* the reducer's; ours when it has ended */
    int64_t start;
    double seconds;
    bool to_terminal;
    atomic_int signal;
    /* For the progress line and the report. */
    atomic_uint_fast64_t files, bytes, unreadable, cut;
} pipeline;

/* ---- the walker ---- */

static klaw_err read_stream(void *arg);

typedef struct stream {
    pipeline *p;
    job job;
} stream;

/* A fiber for one pipe. The job is the fiber's if this is OK, else the caller's. */
static klaw_err start_stream(pipeline *p, const job *j) {
    stream *s = malloc(sizeof *s);
    if (!s)
        return KLAW_NOMEM;
    *s = (stream){p, *j};
    klaw_err e = klaw_go(read_stream, s);
    if (e)
        free(s);
    return e;
}

static klaw_err walk_blocking(void *arg) {
    walk_step(arg);
    return KLAW_OK;
}

static klaw_err walker(void *arg) {
    pipeline *p = arg;
    walk *w = &p->walk;
    klaw_err e = KLAW_OK;
    while (!e && !w->done && (e = klaw_check()) == KLAW_OK) {
        e = klaw_blocking(walk_blocking, w);
        for (size_t i = 0; !e && i < w->n_found; i++) {
            job *j = &w->found[i];
            e = j->stream ? start_stream(p, j) : klaw_send(p->paths.tx, j, KLAW_FOREVER);
            if (!e)
                j->path = NULL; /* success moves */
        }
        if (!e && w->no_memory)
            e = KLAW_NOMEM;
    }
    klaw_sender_close(p->paths.tx); /* the readers drain the channel, then they know */
    return e;
}

/* ---- readers ---- */

/* For the readers again. What the pool has no room for came from a pipe. */
static void give_back(pipeline *p, chunk *c) {
    if (klaw_send(p->empties.tx, &c, KLAW_NOWAIT))
        chunk_free(c);
}

/* Hands a chunk on to the counters. When Ctrl-C came meanwhile, what has been read still counts: a
 * shielded scope is not reached by the cancellation, but has to say how long it may take. */
static klaw_err deliver(pipeline *p, chunk *c) {
    if (c->size == 0) {
        give_back(p, c);
        return KLAW_OK;
    }
    klaw_err e = klaw_send(p->chunks.tx, &c, KLAW_FOREVER);
    klaw_err sent = e;
    klaw_scope *shield;
    klaw_scope_opts opts = {.shield = true, .deadline = klaw_after(KLAW_S(2))};
    if (e == KLAW_CANCELLED && klaw_scope_open(&opts, &shield) == KLAW_OK) {
        sent = klaw_send(p->chunks.tx, &c, KLAW_FOREVER);
        klaw_err closed = klaw_scope_close(shield);
        (void)closed; /* no fiber was in it */
    }
    if (sent)
        chunk_free(c); /* failure leaves: it is still ours */
    return e;
}

typedef struct filling {
    filler *f;
    chunk *c;
} filling;

static klaw_err fill_blocking(void *arg) {
    filling *todo = arg;
    return filler_fill(todo->f, todo->c) ? KLAW_OK : KLAW_NOMEM;
}

/* One chunk: an empty one, filled on a blocking thread, passed on. */
static klaw_err read_chunk(pipeline *p, filler *f) {
    chunk *c;
    klaw_err e = klaw_recv(p->empties.rx, &c, KLAW_FOREVER);
    if (e)
        return e;
    e = klaw_blocking(fill_blocking, &(filling){f, c});
    if (e) {
        chunk_free(c);
        return e;
    }
    return deliver(p, c);
}

static klaw_err reader(void *arg) {
    pipeline *p = arg;
    filler f;
    klaw_err e;
    filler_init(&f);
    while ((e = klaw_recv_batch(p->paths.rx, f.jobs, FILL_JOBS, &f.n_jobs, KLAW_FOREVER)) == 0) {
        while (!e && filler_more(&f))
            e = read_chunk(p, &f);
        if (e)
            break;
    }
    filler_close(&f);
    atomic_fetch_add(&p->unreadable, f.unreadable);
    atomic_fetch_add(&p->cut, f.cut);
    return e == KLAW_CLOSED ? KLAW_OK : e; /* drained: the walker has ended and all is read */
}

/* Reads a descriptor to its end: parks this fiber, blocks nobody. The chunks are its own, for it
 * might hold one of the pool's forever. */
static klaw_err read_descriptor(pipeline *p, filler *f, int fd, klaw_error_info *info) {
    klaw_err e = KLAW_OK;
    for (size_t got = 1; !e && got > 0;) {
        bool full = false;
        chunk *c = chunk_new();
        if (!c || !filler_begin(f, c)) {
            chunk_free(c);
            return KLAW_NOMEM;
        }
        while (!e && got > 0 && !full) {
            /* Waiting first: a pipe nobody has opened for writing yet would read as ended. */
            e = klaw_fd_wait(fd, KLAW_READ, KLAW_FOREVER);
            if (!e)
                e = klaw_fd_read(fd, c->text + c->size, c->room - c->size, &got, KLAW_FOREVER,
                                 info);
            if (!e && got > 0 && !filler_got(f, c, got, &full))
                e = KLAW_NOMEM;
        }
        if (!e && got == 0)
            filler_end(c);
        else if (e && !filler_cut(f, c)) /* the last word may not be whole */
            c->size = 0;
        klaw_err sent = deliver(p, c);
        e = e ? e : sent;
    }
    return e;
}

static klaw_err read_stream(void *arg) {
    stream *s = arg;
    pipeline *p = s->p;
    filler f;
    klaw_error_info info = {0};
    filler_init(&f);
    klaw_err e = KLAW_SYSTEM;
    int fd = open(s->job.path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        info.sys = errno;
    } else {
        e = read_descriptor(p, &f, fd, &info);
        klaw_err closed = klaw_fd_close(fd);
        (void)closed;
    }
    if (e == KLAW_SYSTEM || e == KLAW_INVALID) {
        say_skipped(s->job.path, info.sys ? strerror(info.sys) : klaw_err_text(e));
        atomic_fetch_add(&p->unreadable, 1);
        e = KLAW_OK;
    } else if (e) {
        atomic_fetch_add(&p->cut, 1);
    }
    filler_close(&f);
    free(s->job.path);
    free(s);
    return e;
}

/* ---- counters and the reducer ---- */

static klaw_err counter(void *arg) {
    pipeline *p = arg;
    tally mine = {0};
    chunk *c;
    klaw_err e = table_init(&mine.words) ? KLAW_OK : KLAW_NOMEM;
    while (!e && (e = klaw_recv(p->chunks.rx, &c, KLAW_FOREVER)) == KLAW_OK) {
        if (!table_count(&mine.words, c))
            e = KLAW_NOMEM;
        mine.files += c->files;
        mine.bytes += c->bytes;
        atomic_fetch_add_explicit(&p->files, c->files, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->bytes, c->bytes, memory_order_relaxed);
        give_back(p, c);
    }
    if (e == KLAW_CLOSED)
        e = klaw_send(p->tallies.tx, &mine, KLAW_FOREVER);
    if (e)
        tally_drop(&mine); /* failure leaves */
    return e;
}

static klaw_err reducer(void *arg) {
    pipeline *p = arg;
    tally *total = &p->total;
    tally t;
    klaw_err e;
    while ((e = klaw_recv(p->tallies.rx, &t, KLAW_FOREVER)) == KLAW_OK) {
        total->files += t.files;
        total->bytes += t.bytes;
        /* The larger table stays, the smaller one is added to it. */
        if (t.words.distinct > total->words.distinct || !total->words.slots) {
            table larger = t.words;
            t.words = total->words;
            total->words = larger;
        }
        bool merged = !t.words.slots || table_merge(&total->words, &t.words);
        table_free(&t.words);
        if (!merged)
            return KLAW_NOMEM;
    }
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

/* ---- beside the pipeline ---- */

/* The first Ctrl-C ends the input. Then the receiver is closed, and with it the default action is
 * back: a second one ends the process. */
static klaw_err signals(void *arg) {
    pipeline *p = arg;
    uint64_t number;
    klaw_err e = klaw_recv(p->signals, &number, KLAW_FOREVER);
    if (e)
        return e;
    atomic_store(&p->signal, (int)number);
    klaw_receiver_close(p->signals);
    dprintf(STDERR_FILENO, "%swordcount: stopping; once more to stop at once\n",
            p->to_terminal ? "\r\033[K" : "");
    klaw_scope_cancel(p->input, strsignal((int)number));
    return KLAW_OK;
}

static void progress_line(pipeline *p) {
    klaw_channel_stats chunks;
    double seconds = (double)(klaw_now() - p->start) / 1e9;
    double mb = (double)atomic_load_explicit(&p->bytes, memory_order_relaxed) / 1e6;
    if (klaw_receiver_stats(p->chunks.rx, &chunks))
        return;
    dprintf(STDERR_FILENO,
            "%s%.1f MB, %" PRIu64 " files, %.0f MB/s, %" PRIu64 "/%" PRId64 " chunks%s",
            p->to_terminal ? "\r\033[K" : "", mb,
            (uint64_t)atomic_load_explicit(&p->files, memory_order_relaxed),
            seconds > 0 ? mb / seconds : 0, chunks.queue_size, chunks.capacity,
            p->to_terminal ? "" : "\n");
}

static klaw_err progress(void *arg) {
    pipeline *p = arg;
    klaw_receiver *ticks;
    uint64_t tick;
    klaw_err e = klaw_ticker_open(p->to_terminal ? KLAW_MS(40) : KLAW_S(1), &ticks);
    if (e)
        return e;
    if (p->to_terminal)
        progress_line(p);
    while ((e = klaw_recv(ticks, &tick, KLAW_FOREVER)) == KLAW_OK)
        progress_line(p);
    if (p->to_terminal)
        dprintf(STDERR_FILENO, "\r\033[K");
    klaw_receiver_unref(ticks);
    return e; /* CANCELLED, when all is done */
}

/* ---- all of it ---- */

static klaw_err open_pipe(pipe_ends *ends, const char *name, const klaw_type *type,
                          int64_t capacity) {
    klaw_channel_opts opts = {.name = name, .capacity = capacity};
    return klaw_channel(type, &opts, &ends->tx, &ends->rx);
}

/* The channels, and as many chunks as will ever be under way. */
static klaw_err pipeline_open(pipeline *p) {
    p->counters = p->opts.workers ? p->opts.workers : (int)klaw_run_workers();
    int queued = 2 * p->counters + 2;
    int chunks = queued + p->counters + READERS;
    static const int ends[] = {SIGINT, SIGTERM};
    klaw_err e = open_pipe(&p->paths, "paths", &job_type, PATHS_CAPACITY);
    e = e ? e : open_pipe(&p->empties, "empties", &chunk_type, chunks);
    e = e ? e : open_pipe(&p->chunks, "chunks", &chunk_type, queued);
    e = e ? e : open_pipe(&p->tallies, "tallies", &tally_type, p->counters);
    for (int i = 0; !e && i < chunks; i++) {
        chunk *c = chunk_new();
        e = c ? klaw_send(p->empties.tx, &c, KLAW_NOWAIT) : KLAW_NOMEM;
        if (e)
            chunk_free(c);
    }
    e = e ? e : klaw_signal_open(ends, sizeof ends / sizeof *ends, &p->signals);
    return !e && !walk_open(&p->walk, &p->opts) ? KLAW_NOMEM : e;
}

/* From the outside inwards: each stage feeds the one before it. */
typedef struct stage {
    const char *name;
    klaw_fn fn;
    int n;
    klaw_sender *output; /* closed when the stage has ended */
    klaw_scope *scope;
} stage;

static klaw_err stage_start(stage *s, void *arg) {
    klaw_scope_opts opts = {.name = s->name, .cancel_on_error = true};
    klaw_err e = klaw_scope_open(&opts, &s->scope);
    for (int i = 0; !e && i < s->n; i++)
        e = klaw_spawn(s->scope, s->fn, arg, &(klaw_fiber_opts){.name = s->name}, NULL);
    return e;
}

static klaw_err stage_end(stage *s) {
    if (!s->scope)
        return KLAW_OK;
    klaw_err e = klaw_scope_close(s->scope);
    if (s->output)
        klaw_sender_close(s->output);
    return e == KLAW_CANCELLED ? KLAW_OK : e; /* Ctrl-C is no failure */
}

static klaw_err run_pipeline(pipeline *p) {
    stage stages[] = {
        {"helpers", NULL, 0, NULL, NULL},
        {"reducer", reducer, 1, NULL, NULL},
        {"counter", counter, p->counters, p->tallies.tx, NULL},
        {"reader", reader, READERS, p->chunks.tx, NULL},
    };
    enum { HELPERS, INPUT = 3, STAGES };
    klaw_err e = KLAW_OK;
    for (int i = 0; !e && i < STAGES; i++)
        e = stage_start(&stages[i], p);
    if (!e) {
        p->input = klaw_scope_ref(stages[INPUT].scope);
        e = klaw_spawn(NULL, walker, p, &(klaw_fiber_opts){.name = "walker"}, NULL);
    }
    if (!e)
        e = klaw_spawn(stages[HELPERS].scope, signals, p, NULL, NULL);
    if (!e && p->opts.progress)
        e = klaw_spawn(stages[HELPERS].scope, progress, p, NULL, NULL);
    if (e)
        klaw_scope_cancel(stages[HELPERS].scope, "could not start");
    for (int i = STAGES - 1; i >= 0; i--) {
        if (i == HELPERS) {
            p->seconds = (double)(klaw_now() - p->start) / 1e9;
            klaw_scope_cancel(stages[i].scope, "done");
        }
        klaw_err ended = stage_end(&stages[i]);
        e = e ? e : ended;
    }
    klaw_scope_unref(p->input);
    return e;
}

static klaw_err main_fiber(void *arg) {
    pipeline *p = arg;
    p->start = klaw_now();
    klaw_err e = pipeline_open(p);
    return e ? e : run_pipeline(p);
}

static void pipeline_close(pipeline *p) {
    pipe_ends *all[] = {&p->paths, &p->empties, &p->chunks, &p->tallies};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        klaw_sender_unref(all[i]->tx);
        klaw_receiver_unref(all[i]->rx);
    }
    klaw_receiver_unref(p->signals);
    walk_close(&p->walk);
    table_free(&p->total.words);
}

/* Everything the report needs. Returns the exit code. */
static int pipeline_report(pipeline *p) {
    totals t = {.words = &p->total.words,
                .files = p->total.files,
                .bytes = p->total.bytes,
                .unreadable = p->walk.unreadable + atomic_load(&p->unreadable),
                .cut = atomic_load(&p->cut),
                .seconds = p->seconds,
                .signal = atomic_load(&p->signal),
                .found = &p->walk,
                .workers = p->counters};
    pipe_ends *all[] = {&p->paths, &p->empties, &p->chunks, &p->tallies};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        klaw_channel_stats s;
        channel_line *line = &t.channels[t.n_channels];
        if (klaw_receiver_stats(all[i]->rx, &s))
            continue;
        *line =
            (channel_line){.capacity = s.capacity, .sent = s.total_sent, .high = s.high_watermark};
        memcpy(line->name, s.name, sizeof line->name);
        memcpy(line->kind, s.kind, sizeof line->kind);
        t.n_channels++;
    }
    if (!report(stdout, &p->opts, &t) || fflush(stdout) != 0) {
        fputs("wordcount: the report could not be written\n", stderr);
        return EXIT_NOTHING_READ;
    }
    if (t.signal)
        return 128 + t.signal;
    bool nothing = t.files == 0 && (t.unreadable > 0 || p->opts.n_paths == 0);
    return nothing ? EXIT_NOTHING_READ : 0;
}

int main(int argc, char **argv) {
    pipeline p = {0};
    int code = options_parse(argc, argv, &p.opts);
    if (code != OPTIONS_GO_ON)
        return code;
    p.to_terminal = isatty(STDERR_FILENO) != 0;
    p.opts.progress = p.opts.progress < 0 ? p.to_terminal : p.opts.progress;
    klaw_err e = klaw_run(main_fiber, &p, NULL);
    if (e)
        fprintf(stderr, "wordcount: %s\n", klaw_err_text(e));
    code = e ? EXIT_NOTHING_READ : pipeline_report(&p);
    pipeline_close(&p);
    return code;
}
