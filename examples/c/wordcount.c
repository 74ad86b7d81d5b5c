/* SPDX-License-Identifier: Apache-2.0 */
/* wordcount.c - counts the words of files and folders: readers, supervised workers, a reducer, and
 * channels between them. `wordcount --help` says what it does for its user; this is how.
 *
 *                    paths                chunks                tallies               saves
 *   walker (1 fiber) =====> readers (2)  ======> counters (n)  =======> reducer (1) =====> saver (1)
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
 * The counters are children of a supervisor, and may fail at any point (--chaos sees to it). Nothing is
 * lost and nothing counted twice, because what a counter has taken and what it makes of it part ways:
 *   - the chunks it takes stay in its lane, which outlives it, until their tally is handed over;
 *   - the tally is its own and dies with it;
 *   - handing over is one send: it has happened, and then the lane is empty, or it has not.
 * Whoever is started in its place finds the chunks in the lane and counts them again.
 *
 * So the reducer's total is always a whole number of hand-overs, and with each comes which spans of
 * which files it is. Total and spans together are the checkpoint (wordcount/keep.c); --resume counts
 * the spans that are missing.
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
#include <sys/stat.h>
#include <unistd.h>

#include <klaw/klaw.h>

#define READERS 2
#define PATHS_CAPACITY 1024
#define LANE_CHUNKS 8   /* chunks a counter takes before it hands their tally over, at most */
#define POOL_CHUNKS 128 /* in all lanes together, where there are many */

/* ---- what travels ---- */

static void job_drop(void *elem) {
    free(((job *)elem)->path);
}

static void chunk_drop(void *elem) {
    chunk_free(*(chunk **)elem);
}

static void tally_drop(void *elem) {
    tally_free(elem);
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
    struct lane *lanes; /* one for each counter */
    int lane_chunks;
    pipe_ends paths, empties, chunks, tallies, saves;
    keeper keeper;
    klaw_receiver *signals;
    klaw_scope *input; /* what Ctrl-C cancels */
    walk walk;         /* the walker's; ours when it has ended */
    tally total;       /* the reducer's; ours when it has ended */
    spans counted;     /* before this run began; the walker reads it */
    uint64_t resumed;  /* bytes of total that are of an earlier run */
    int64_t start;
    double seconds;
    bool to_terminal;
    bool explained; /* stderr says already what went wrong */
    atomic_int signal;
    /* For the progress line and the report. */
    atomic_uint_fast64_t files, bytes, unreadable, cut;
    atomic_uint_fast64_t failures, restarts, recounted;
    atomic_uint_fast64_t read; /* bytes, for --rate */
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
        if (!e && (w->no_memory || w->changed))
            e = w->changed ? KLAW_CORRUPT : KLAW_NOMEM;
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
    if (c->size == 0 && c->n_spans == 0) {
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

/* Sleeps until these bytes are due. The readers share the rate. */
static klaw_err keep_rate(pipeline *p, size_t size) {
    uint64_t read = atomic_fetch_add(&p->read, size) + size;
    if (p->opts.rate == 0)
        return KLAW_OK;
    return klaw_sleep(p->start + (int64_t)((double)read / (double)p->opts.rate * 1e9));
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
    size_t size = c->size;
    e = deliver(p, c);
    return e ? e : keep_rate(p, size);
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

/* ---- counters ---- */

/* What a counter has taken and not handed over. It belongs to one counter at a time, the one that runs;
 * the supervisor starts the next when that has ended. */
typedef struct lane {
    pipeline *p;
    chunk *held[LANE_CHUNKS];
    int n_held;
    uint64_t random;
} lane;

/* Fails on purpose, in `percent` of the cases. */
static klaw_err chaos(lane *l, int percent) {
    uint64_t x = l->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) % 100 < (uint64_t)percent ? KLAW_BACKEND : KLAW_OK;
}

static klaw_err count_chunk(lane *l, tally *mine, chunk *c) {
    klaw_err e = KLAW_OK;
    if (l->p->opts.ray)
        e = (klaw_err)(l->p->opts.chaos ? chaos_count : far_count)(&mine->words, c);
    else if (!table_count(&mine->words, c))
        e = KLAW_NOMEM;
    if (e)
        return e; /* a successor counts the chunk again */
    bool counted = true;
    for (size_t i = 0; counted && i < c->n_spans; i++)
        counted = spans_add(&mine->counted, c->spans[i]);
    mine->files += c->files;
    mine->bytes += c->bytes;
    mine->unreadable += c->unreadable;
    if (c->mark.files > mine->mark.files)
        mine->mark = c->mark;
    if (!counted)
        return KLAW_NOMEM;
    return l->p->opts.ray ? KLAW_OK : chaos(l, l->p->opts.chaos); /* on Ray others die */
}

/* Everything that is in the lane goes to the reducer, or nothing. */
static klaw_err hand_over(lane *l, tally *mine) {
    pipeline *p = l->p;
    uint64_t files = mine->files, bytes = mine->bytes;
    klaw_err e = klaw_send(p->tallies.tx, mine, KLAW_FOREVER);
    if (e)
        return e; /* failure leaves */
    *mine = (tally){0};
    while (l->n_held > 0)
        give_back(p, l->held[--l->n_held]);
    atomic_fetch_add_explicit(&p->files, files, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->bytes, bytes, memory_order_relaxed);
    return table_init(&mine->words) ? KLAW_OK : KLAW_NOMEM;
}

static klaw_err take_and_count(lane *l, tally *mine) {
    chunk *c;
    /* Who has something does not keep it for long when there is nothing more to do. */
    klaw_deadline patience = l->n_held > 0 ? KLAW_WITHIN(KLAW_MS(100)) : KLAW_FOREVER;
    klaw_err e = klaw_recv(l->p->chunks.rx, &c, patience);
    if (e == KLAW_TIMEOUT)
        return hand_over(l, mine);
    if (e)
        return e;
    l->held[l->n_held++] = c; /* from here on it is found again, whatever happens to us */
    return count_chunk(l, mine, c);
}

static klaw_err counter(void *arg) {
    lane *l = arg;
    tally mine = {0};
    klaw_err e = table_init(&mine.words) ? KLAW_OK : KLAW_NOMEM;
    /* A predecessor failed here. */
    atomic_fetch_add(&l->p->recounted, (uint_fast64_t)l->n_held);
    for (int i = 0; !e && i < l->n_held; i++)
        e = count_chunk(l, &mine, l->held[i]);
    while (!e)
        e = l->n_held < l->p->lane_chunks ? take_and_count(l, &mine) : hand_over(l, &mine);
    if (e == KLAW_CLOSED)
        e = l->n_held > 0 ? hand_over(l, &mine) : KLAW_OK;
    tally_free(&mine);
    return e;
}

static void on_failure(const klaw_child_event *event, void *user) {
    pipeline *p = user;
    (void)event;
    atomic_fetch_add(&p->failures, 1);
}

static void on_restart(const klaw_child_event *event, void *user) {
    pipeline *p = user;
    (void)event;
    atomic_fetch_add(&p->restarts, 1);
}

static void on_max_restarts(const klaw_child_event *event, void *user) {
    pipeline *p = user;
    dprintf(STDERR_FILENO, "%swordcount: %s fails again and again, the last time with: %s\n",
            p->to_terminal ? "\r\033[K" : "", event->child, klaw_err_text(event->error));
}

/* All counters, until each of them has ended well. */
static klaw_err counters(void *arg) {
    pipeline *p = arg;
    klaw_supervisor *s;
    klaw_error_info info = {0};
    char(*names)[32] = calloc((size_t)p->counters, sizeof *names);
    klaw_child_spec *specs = calloc((size_t)p->counters, sizeof *specs);
    klaw_supervisor_opts opts = {.name = "counters",
                                 .policy = {.auto_shutdown = KLAW_SHUTDOWN_ALL_SIGNIFICANT},
                                 .on_failure = on_failure,
                                 .on_restart = on_restart,
                                 .on_max_restarts = on_max_restarts,
                                 .user = p};
    if (p->opts.chaos > 0) { /* it is meant to go on */
        opts.policy.max_restarts = KLAW_RESTARTS_UNLIMITED;
        opts.policy.backoff = (klaw_backoff){.base = KLAW_US(200), .max_delay = KLAW_MS(5)};
    }
    klaw_err e = names && specs ? KLAW_OK : KLAW_NOMEM;
    for (int i = 0; !e && i < p->counters; i++) {
        snprintf(names[i], sizeof names[i], "counter %d", i + 1);
        specs[i] = (klaw_child_spec){
            .name = names[i], .run = counter, .arg = &p->lanes[i], .significant = true};
    }
    if (!e)
        e = klaw_supervisor_open(&opts, specs, (size_t)p->counters, &s, &info);
    free(specs);
    free(names);
    if (e)
        return e;
    klaw_err why = KLAW_OK;
    e = klaw_supervisor_join(s, KLAW_FOREVER, &why);
    klaw_supervisor_unref(s);
    return e ? e : why;
}

/* ---- the reducer and the checkpoint ---- */

static klaw_err add_tally(tally *total, tally *t) {
    total->files += t->files;
    total->bytes += t->bytes;
    total->unreadable += t->unreadable;
    if (t->mark.files > total->mark.files)
        total->mark = t->mark;
    /* The larger table stays, the smaller one is added to it. */
    if (t->words.distinct > total->words.distinct) {
        table larger = t->words;
        t->words = total->words;
        total->words = larger;
    }
    bool merged = table_merge(&total->words, &t->words);
    for (size_t i = 0; merged && i < t->counted.n; i++)
        merged = spans_add(&total->counted, t->counted.list[i]);
    tally_free(t);
    return merged ? KLAW_OK : KLAW_NOMEM;
}

static klaw_err reducer(void *arg) {
    pipeline *p = arg;
    tally t;
    klaw_err e;
    int64_t due = klaw_now() + p->opts.every;
    while ((e = klaw_recv(p->tallies.rx, &t, KLAW_FOREVER)) == KLAW_OK) {
        e = add_tally(&p->total, &t);
        if (e)
            return e;
        if (p->keeper.off || klaw_now() < due)
            continue;
        klaw_blob *b = keep_encode(&p->total);
        /* When the saver has one to do already, a later one will be as good. */
        if (b && klaw_send(p->saves.tx, &b, KLAW_NOWAIT))
            klaw_blob_unref(b);
        due = klaw_now() + p->opts.every;
    }
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

static klaw_err saver(void *arg) {
    pipeline *p = arg;
    klaw_blob *b;
    klaw_err e;
    while ((e = klaw_recv(p->saves.rx, &b, KLAW_FOREVER)) == KLAW_OK) {
        if (!p->keeper.off)
            keep_save(&p->keeper, b);
        klaw_blob_unref(b);
    }
    return e == KLAW_CLOSED ? KLAW_OK : e;
}

/* All is over: what is complete needs no checkpoint, what is not keeps the last state. */
static void keep_end(pipeline *p, klaw_err e) {
    keeper *k = &p->keeper;
    if (k->off || e)
        return;
    if (!atomic_load(&p->signal)) {
        keep_drop(k);
        return;
    }
    klaw_blob *b = keep_encode(&p->total);
    if (b)
        keep_save(k, b);
    klaw_blob_unref(b);
    if (b && !k->off)
        fprintf(stderr, "wordcount: the same command with --resume goes on from here (%s)\n",
                keep_path(k));
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
    /* Who fails often does better to hand over often: all that is in the lane is counted again. */
    p->lane_chunks = (p->opts.chaos ? 40 / p->opts.chaos : POOL_CHUNKS / p->counters);
    p->lane_chunks = p->lane_chunks < 1             ? 1
                     : p->lane_chunks > LANE_CHUNKS ? LANE_CHUNKS
                                                    : p->lane_chunks;
    int chunks = queued + p->counters * p->lane_chunks + READERS;
    static const int ends[] = {SIGINT, SIGTERM};
    klaw_err e = open_pipe(&p->paths, "paths", &job_type, PATHS_CAPACITY);
    e = e ? e : open_pipe(&p->empties, "empties", &chunk_type, chunks);
    e = e ? e : open_pipe(&p->chunks, "chunks", &chunk_type, queued);
    e = e ? e : open_pipe(&p->tallies, "tallies", &tally_type, p->counters);
    e = e ? e : open_pipe(&p->saves, "saves", &klaw_bytes, 1);
    p->lanes = calloc((size_t)p->counters, sizeof *p->lanes);
    e = e ? e : p->lanes ? KLAW_OK : KLAW_NOMEM;
    for (int i = 0; !e && i < p->counters; i++)
        p->lanes[i] = (lane){.p = p, .random = p->opts.seed + (uint64_t)i * 0x632be59bd9b4e019u};
    for (int i = 0; !e && i < chunks; i++) {
        chunk *c = chunk_new();
        e = c ? klaw_send(p->empties.tx, &c, KLAW_NOWAIT) : KLAW_NOMEM;
        if (e)
            chunk_free(c);
    }
    e = e ? e : klaw_signal_open(ends, sizeof ends / sizeof *ends, &p->signals);
    if (!e && !p->total.words.slots && !table_init(&p->total.words))
        e = KLAW_NOMEM;
    if (!e && !walk_open(&p->walk, &p->opts))
        e = KLAW_NOMEM;
    for (size_t i = 0; !e && i < p->total.counted.n; i++)
        e = spans_add(&p->counted, p->total.counted.list[i]) ? KLAW_OK : KLAW_NOMEM;
    walk_resume(&p->walk, &p->counted, p->total.mark);
    p->resumed = p->total.bytes;
    return e;
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
        {"saver", saver, 1, NULL, NULL},
        {"reducer", reducer, 1, p->saves.tx, NULL},
        {"counters", counters, 1, p->tallies.tx, NULL},
        {"reader", reader, READERS, p->chunks.tx, NULL},
    };
    enum { HELPERS, INPUT = 4, STAGES };
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
    if (!keep_open(&p->keeper, &p->opts, &p->total)) {
        p->explained = true;
        return KLAW_SYSTEM;
    }
    p->start = klaw_now();
    klaw_err e = pipeline_open(p);
    bool far = p->opts.ray && p->opts.chaos;
    if (!e && far) {
        e = (klaw_err)chaos_open(p->opts.chaos, p->opts.seed, p->counters < 4 ? p->counters : 4);
        p->explained |= e != KLAW_OK;
    }
    e = e ? e : run_pipeline(p);
    if (far) {
        klaw_err ended = (klaw_err)chaos_close(e != KLAW_OK);
        e = e ? e : ended;
    }
    keep_end(p, e);
    return e;
}

static void pipeline_close(pipeline *p) {
    pipe_ends *all[] = {&p->paths, &p->empties, &p->chunks, &p->tallies, &p->saves};
    for (int i = 0; p->lanes && i < p->counters; i++) {
        while (p->lanes[i].n_held > 0)
            chunk_free(p->lanes[i].held[--p->lanes[i].n_held]);
    }
    free(p->lanes);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        klaw_sender_unref(all[i]->tx);
        klaw_receiver_unref(all[i]->rx);
    }
    klaw_receiver_unref(p->signals);
    walk_close(&p->walk);
    tally_free(&p->total);
    free(p->counted.list);
    keep_close(&p->keeper);
}

/* Everything the report needs. Returns the exit code. */
static int pipeline_report(pipeline *p) {
    totals t = {.words = &p->total.words,
                .files = p->total.files,
                .bytes = p->total.bytes,
                .unreadable =
                    p->walk.unreadable + p->total.unreadable + atomic_load(&p->unreadable),
                .cut = atomic_load(&p->cut),
                .seconds = p->seconds,
                .signal = atomic_load(&p->signal),
                .resumed = p->resumed,
                .failures = atomic_load(&p->failures),
                .restarts = atomic_load(&p->restarts),
                .recounted = atomic_load(&p->recounted),
                .saved = p->keeper.saved,
                .found = &p->walk,
                .workers = p->counters};
    if (p->opts.ray && p->opts.chaos)
        chaos_look(t.killed, &t.restarts, &t.recounted);
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

/* A pipe gives its bytes once: a run that reads one can't go on later. The first one, or NULL. */
static const char *find_stream(const options *o) {
    for (int i = 0; i < o->n_paths; i++) {
        struct stat st;
        const char *path = strcmp(o->paths[i], "-") == 0 ? "/dev/stdin" : o->paths[i];
        if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
            return o->paths[i];
    }
    return NULL;
}

int main(int argc, char **argv) {
    pipeline p = {0};
    int code = options_parse(argc, argv, &p.opts);
    if (code != OPTIONS_GO_ON)
        return code;
    const char *once = find_stream(&p.opts);
    if (once && p.opts.resume) {
        fprintf(stderr, "wordcount: '%s' is a pipe or a device: --resume can't read it again\n",
                once);
        return EXIT_USAGE;
    }
    p.opts.no_checkpoint |= once != NULL;
    p.to_terminal = isatty(STDERR_FILENO) != 0;
    p.opts.progress = p.opts.progress < 0 ? p.to_terminal : p.opts.progress;
    klaw_err e = klaw_run(main_fiber, &p, NULL);
    if (p.walk.changed)
        fprintf(
            stderr,
            "wordcount: the input is no longer the one that the checkpoint in %s is of: among its "
            "first %" PRIu64 " files one is new, gone, or was written to\n"
            "wordcount: without --resume it is counted from the beginning\n",
            keep_path(&p.keeper), p.walk.known.files);
    else if (e && !p.explained)
        fprintf(stderr, "wordcount: %s\n", klaw_err_text(e));
    code = e ? EXIT_NOTHING_READ : pipeline_report(&p);
    pipeline_close(&p);
    return code;
}
