/* SPDX-License-Identifier: Apache-2.0 */
/* wordcount.h - the parts of the word counter that know nothing of fibers and channels (and keep.c,
 * which knows the store).
 *
 * What a word is: a maximal run of ASCII letters, ASCII digits and bytes from 0x80 up (so a UTF-8
 * word stays whole), with ASCII letters made lower case. Everything else separates, and so does the
 * end of a file. */
#ifndef WORDCOUNT_H
#define WORDCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct klaw_store;
struct klaw_blob;

/* ---- options.c ---- */

typedef struct options {
    int workers;        /* counting fibers; 0: one per processor */
    size_t top;         /* words to show */
    uint64_t min_bytes; /* the default search goes on until it has seen this much */
    uint64_t rate;      /* bytes a second that are read at most; 0: as fast as it goes */
    bool json;
    bool all;           /* count compressed files and images as well */
    int progress;       /* 1 yes, 0 no, -1 when stderr is a terminal */
    int chaos;          /* percent of the chunks at which a counter fails; 0: none on purpose */
    uint64_t seed;      /* of the chaos */
    bool resume;        /* go on from the checkpoint */
    bool no_checkpoint; /* keep none */
    const char *store;  /* the file of the checkpoints; NULL: the default */
    int64_t every;      /* ns between two checkpoints */
    bool ray;           /* the counting itself runs on a Ray cluster's workers */
    char **paths;       /* what to count; with n_paths = 0 the text this machine has */
    int n_paths;
} options;

/* What options_parse decided: go on, or end the program with this exit code. */
enum { OPTIONS_GO_ON = -1, EXIT_NOTHING_READ = 1, EXIT_USAGE = 2 };

int options_parse(int argc, char **argv, options *out);

/* ---- progress.c: what has been counted ----
 *
 * The walk numbers the files 0, 1, 2, ... and its order depends on nothing but their names, so that a
 * file and an offset make a place, and what has been counted is a set of spans of places. It is small:
 * it has as many holes as there are pieces on their way. */

typedef struct place {
    uint64_t file;
    uint64_t at;
} place;

/* From one place to before another; a whole file i is from (i, 0) to (i + 1, 0). */
typedef struct span {
    place from, to;
} span;

/* In order, neither touching nor overlapping. */
typedef struct spans {
    span *list;
    size_t n, room;
} spans;

/* Adds a span that overlaps with none that is there. False: no memory. */
bool spans_add(spans *set, span s);
/* The first hole of the file at or behind `at`: *from to *to, UINT64_MAX for its end. False: none. */
bool spans_hole(const spans *set, uint64_t file, uint64_t at, uint64_t *from, uint64_t *to);

/* How far the walk had come, and what identifies the files until there: a hash of the names, sizes
 * and times of all of them. */
typedef struct mark {
    uint64_t files;
    uint64_t hash;
} mark;

/* One more file. */
void mark_add(mark *m, const char *path, uint64_t size, int64_t mtime);

/* ---- walk.c: which files ---- */

/* Somewhere to look: an argument, or one of the default folders. */
typedef struct root {
    const char *path;
    uint64_t folders;
    uint64_t files;
    uint64_t bytes;
} root;

/* A file to be read. The path is malloc'd and owned by whoever holds the struct. */
typedef struct job {
    char *path;
    bool stream;       /* a pipe, a terminal, a device: reading it may take forever */
    mark mark;         /* of the walk, this file included: its number is mark.files - 1 */
    uint64_t from, to; /* what is to be counted of it; UINT64_MAX: to its end */
} job;

typedef struct walk {
    const options *opts;
    root *roots;
    size_t n_roots;
    size_t next_root;
    char **folders; /* still to be listed */
    size_t n_folders, cap_folders;
    job *found; /* what the last step found; the caller takes the paths */
    size_t n_found, cap_found;
    mark mark;
    /* When a run goes on: what it has, until when, and the pieces that were missing up to there. They
     * are given out when the files have turned out to be the same. */
    const spans *counted;
    mark known;
    job *missing;
    size_t n_missing, cap_missing;
    bool changed; /* they are not */
    uint64_t bytes;
    uint64_t unreadable; /* reported on stderr and skipped */
    uint64_t packed;     /* compressed files and images, skipped */
    uint64_t links;      /* symbolic links in folders, not followed */
    uint64_t special;    /* pipes, sockets and devices in folders */
    bool done;
    bool no_memory;
} walk;

bool walk_open(walk *w, const options *opts);
/* For a run that goes on; `counted` has to outlive the walk. */
void walk_resume(walk *w, const spans *counted, mark known);
/* Looks into some more folders and leaves what it found in w->found. Blocks on the disk. */
void walk_step(walk *w);
void walk_close(walk *w);

/* ---- fill.c: from files to chunks of whole words ---- */

/* Bytes of a chunk: small enough to stay in a core's cache between the reader and the counter. */
#define CHUNK_SIZE ((size_t)256 * 1024)
/* Bytes that may be read behind the end of a chunk's text: the counter looks at 64 at a time. */
#define CHUNK_PAD ((size_t)64)
/* Files a reader takes at a time. */
#define FILL_JOBS 32

/* Some text that begins and ends with a whole word: a piece of a file, or many small files. */
typedef struct chunk {
    char *text;
    size_t size;           /* bytes to count */
    size_t room;           /* bytes that fit, CHUNK_PAD not counted */
    uint64_t bytes;        /* of them, how many are the files' own */
    uint64_t files;        /* files that end in this chunk */
    uint64_t unreadable;   /* files that could not be opened, or not to their end */
    span spans[FILL_JOBS]; /* where all of this comes from; at most one of each file */
    size_t n_spans;
    mark mark; /* of the last of these files */
} chunk;

chunk *chunk_new(void);
void chunk_free(chunk *c);

/* Where a reader stands: its files, the one that is open, and the beginning of a word that was cut.
 */
typedef struct filler {
    job jobs[FILL_JOBS];
    size_t n_jobs, next_job;
    const job *open; /* the one that is being read */
    int fd;          /* -1: none is open */
    uint64_t begun;  /* where in it the text of the chunk begins */
    uint64_t at;     /* where the next read begins */
    char *carry;
    size_t carry_size, carry_room;
    uint64_t cut; /* files that were left in the middle */
} filler;

void filler_init(filler *f);
/* Fills c from the filler's files until it is full or they are all read. Blocks on the disk.
 * False: no memory. */
bool filler_fill(filler *f, chunk *c);
/* Whether there is something left to fill from; if not, it may get new jobs. */
bool filler_more(filler *f);
void filler_close(filler *f);

/* The same in pieces, for a caller who does the reading. False: no memory.
 * Begins a chunk with what the last one left over. */
bool filler_begin(filler *f, chunk *c);
/* n bytes came to text + size; *full: the chunk should go now. */
bool filler_got(filler *f, chunk *c, size_t n, bool *full);
/* The file has ended. */
void filler_end(chunk *c);
/* Keeps a word that may go on for the next chunk: the chunk can go, whatever follows. */
bool filler_cut(filler *f, chunk *c);

/* "wordcount: <path>: <reason> (skipped)" on stderr, in one write. */
void say_skipped(const char *path, const char *reason);

/* ---- words.c: counting ---- */

typedef struct slot {
    uint64_t key;   /* up to eight bytes: the word itself; else its hash */
    uint64_t count; /* 0: empty */
    uint64_t at;    /* of a long word: its offset in the text */
    uint64_t size;
} slot;

/* A hash table of words, owned by one fiber at a time. */
typedef struct table {
    slot *slots;
    size_t mask;
    size_t distinct;
    uint64_t words;
    char *text; /* the long words */
    size_t text_size, text_room;
} table;

bool table_init(table *t);
void table_free(table *t);
/* Counts the words of the chunk (and makes them lower case in place). False: no memory. */
bool table_count(table *t, chunk *c);
/* Adds `count` times a word. False: no memory. */
bool table_add(table *t, const char *word, size_t size, uint64_t count);
/* Adds the counts of `from`. False: no memory. */
bool table_merge(table *t, const table *from);
/* The text of a word; not NUL-terminated. */
const char *table_text(const table *t, const slot *s);
/* The n most frequent words (or all there are): *got of them, malloc'd. NULL: no memory. */
const slot **table_top(const table *t, size_t n, size_t *got);

/* ---- keep.c: the checkpoint ---- */

/* Everything a run has counted. */
typedef struct tally {
    table words;
    uint64_t files;
    uint64_t bytes;
    uint64_t unreadable;
    spans counted;
    mark mark; /* the furthest */
} tally;

void tally_free(tally *t);

typedef struct keeper {
    const options *opts;
    struct klaw_store *store;
    char key[512];
    bool off;       /* no checkpoint is kept */
    uint64_t saved; /* how many were */
} keeper;

/* Finds out whether there can be a checkpoint. With --resume or --store the store is opened, with --resume
 * *out is what the checkpoint holds; else out is left alone. False: explained on stderr. Waits. */
bool keep_open(keeper *k, const options *opts, tally *out);
/* The checkpoint as bytes. NULL: no memory. */
struct klaw_blob *keep_encode(const tally *t);
/* Keeps it. When that fails it is explained and the keeper is off. Waits. */
void keep_save(keeper *k, struct klaw_blob *bytes);
/* The run is complete: its checkpoint goes. Waits. */
void keep_drop(keeper *k);
/* Where it is. */
const char *keep_path(const keeper *k);
void keep_close(keeper *k);

/* ---- report.c ---- */

/* What one channel did. */
typedef struct channel_line {
    char name[32];
    char kind[16];
    int64_t capacity;
    uint64_t sent;
    uint64_t high;
} channel_line;

typedef struct totals {
    table *words;
    uint64_t files;
    uint64_t bytes;
    uint64_t unreadable;
    uint64_t cut;
    double seconds;
    int signal;         /* that ended it early; 0: none */
    uint64_t resumed;   /* bytes that an earlier run counted */
    uint64_t failures;  /* of counters */
    uint64_t restarts;  /* of counters */
    uint64_t recounted; /* chunks that were counted again because of them */
    uint64_t killed[3]; /* FAR_WORKERS, … */
    uint64_t saved;     /* checkpoints */
    const walk *found;
    channel_line channels[8];
    size_t n_channels;
    int workers;
} totals;

/* Prints everything to out. False: no memory. */
bool report(FILE *out, const options *opts, const totals *t);

/* ---- far.c: counting on Ray's workers ---- */

/* As table_count, by a task that some worker of the cluster runs (worker/worker.c, in wordcount_ray.so
 * beside this program). A klaw_err: not OK when nothing was added, or there was no memory. */
int far_count(table *t, const chunk *c);
/* A table as bytes, and what is in such bytes added to a table. False: no memory, or they are damaged. */
bool far_encode(const table *t, struct klaw_blob **out);
bool far_decode(table *t, const void *bytes, size_t size);
/* The path of wordcount_ray.so. False: unknown, or too long. */
bool far_library(char *out, size_t size);

/* ---- chaos.c: the same while processes are killed ---- */

/* What a worker of its kind is told. */
typedef struct far_names {
    char chunks[64], tallies[64]; /* the channels */
    bool dies;                    /* with the first chunk in its hands */
} far_names;

/* What every chunk and tally begins with, in the machine's byte order. */
typedef struct far_head {
    uint64_t number; /* of the chunk */
    uint64_t pid;    /* (tally) of the worker */
} far_head;

/* Who is killed. */
enum { FAR_WORKERS, FAR_CHUNKS, FAR_TALLIES, FAR_KINDS };

/* Begins: channels, so many workers. A klaw_err, explained on stderr. */
int chaos_open(int percent, uint64_t seed, int workers);
/* As far_count. */
int chaos_count(table *t, const chunk *c);
/* Ends it, and removes the channels. A klaw_err. */
int chaos_close(bool failed);
/* What has happened: who was killed how often; workers started again; chunks counted again. */
void chaos_look(uint64_t killed[FAR_KINDS], uint64_t *restarts, uint64_t *recounted);

#endif
