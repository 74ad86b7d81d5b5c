/* SPDX-License-Identifier: Apache-2.0 */
/* workflow.h - what the files of workflows share: the rows of the log, leases, the open handle. */
#ifndef KLAWI_STORE_WORKFLOW_H
#define KLAWI_STORE_WORKFLOW_H

#include "base/lock.h"
#include "klaw/scope.h"
#include "klaw/workflow.h"
#include "plat/os.h"
#include "store/store.h"

/* How long a transaction may wait for other users of the file. */
#define KLAWI_WF_PATIENCE KLAW_S(30)

/* --- workflow_log.c: rows --- */

struct klawi_wf_owner {
    char id[33];
    char host[64];
    int64_t pid, start; /* start: of the process, in clock ticks since boot */
    int64_t space;      /* which pid namespace; 0: not known */
};

/* A row of `workflow`; everything but the result's bytes is covered by its sum. */
struct klawi_wf_head {
    int64_t id; /* never used again, also after a delete */
    char name[KLAW_WORKFLOW_NAME_MAX + 1];
    char version[KLAW_WORKFLOW_VERSION_MAX + 1];
    char uid[33]; /* random */
    bool declared, cancel;
    klaw_workflow_state state;
    klaw_lease lease;
    struct klawi_wf_owner owner;
    int64_t created, updated, finished;
    uint64_t steps, steps_done; /* rows of its steps; of those DONE */
    klaw_err error;
    char message[256];
    uint64_t result_size, result_sum;
};

/* A row of `workflow_step`. */
struct klawi_wf_row {
    char name[KLAW_WORKFLOW_NAME_MAX + 1];
    int64_t position;
    klaw_step_state state;
    bool dropped;
    uint32_t attempts;
    int64_t started, finished;
    klaw_err error;
    char message[256];
    uint64_t result_size, result_sum;
};

/* The tables are made if they are not there. In a write. */
klaw_err klawi_wf_tables_make(klawi_store_tx *tx);
/* NOT_FOUND when there is none (also when there is no table); CORRUPT when its sum is wrong. */
klaw_err klawi_wf_find(klawi_store_tx *tx, const char *name, struct klawi_wf_head *out);
klaw_err klawi_wf_find_id(klawi_store_tx *tx, int64_t id, struct klawi_wf_head *out);
/* Sets h->id. */
klaw_err klawi_wf_insert(klawi_store_tx *tx, struct klawi_wf_head *h);
klaw_err klawi_wf_update(klawi_store_tx *tx, const struct klawi_wf_head *h);
/* Writes the result's bytes and h's sum of them; klawi_wf_update has to follow. NULL: none. */
klaw_err klawi_wf_keep(klawi_store_tx *tx, struct klawi_wf_head *h, klaw_blob *result);
klaw_err klawi_wf_kept(klawi_store_tx *tx, const struct klawi_wf_head *h, klaw_blob **out);
klaw_err klawi_wf_delete(klawi_store_tx *tx, int64_t id);
/* Calls each(h, arg) by name, from the first name that is not before `from`, until it says no. */
klaw_err klawi_wf_each(klawi_store_tx *tx, const char *from,
                       klaw_err (*each)(const struct klawi_wf_head *h, bool *more, void *arg),
                       void *arg);

klaw_err klawi_wf_row_find(klawi_store_tx *tx, int64_t id, const char *name,
                           struct klawi_wf_row *out);
/* Makes or changes the row; with `result` its bytes, too, and r's sum of them. */
klaw_err klawi_wf_row_save(klawi_store_tx *tx, int64_t id, struct klawi_wf_row *r,
                           klaw_blob *result);
klaw_err klawi_wf_row_kept(klawi_store_tx *tx, int64_t id, const struct klawi_wf_row *r,
                           klaw_blob **out);
/* Calls each(r, arg) for the steps of h in order. CORRUPT when it is not h->steps of them. */
klaw_err klawi_wf_row_each(klawi_store_tx *tx, const struct klawi_wf_head *h,
                           klaw_err (*each)(const struct klawi_wf_row *r, void *arg), void *arg);

/* --- workflow_lease.c: who runs it --- */

/* Fills the clocks. Tests put their own in its place. */
extern void (*klawi_wf_clock)(klaw_lease_clock *out);
/* This process; the id is left empty. */
void klawi_wf_self(struct klawi_wf_owner *out);
/* 32 random hexadecimal digits and a NUL. KLAW_SYSTEM: no random numbers. */
klaw_err klawi_wf_random(char out[33]);
/* 64 random bits for jitter. */
uint64_t klawi_wf_chance(void);
/* Whether the holder of a lease lives, as far as it can be known from here. */
klaw_lease_owner klawi_wf_owner_alive(const struct klawi_wf_head *h, const klaw_lease_clock *now);

/* Renews the leases of one store's open workflows. */
struct klawi_wf_keeper;
/* The keeper of this store, started if there is none; one more user. */
klaw_err klawi_wf_keeper_get(klaw_store *s, struct klawi_wf_keeper **out);
/* One user less; the last one stops its thread and waits for it. */
void klawi_wf_keeper_put(struct klawi_wf_keeper *k);
/* wf is in the list, its owner's id set; nothing is renewed yet. */
void klawi_wf_keeper_add(struct klawi_wf_keeper *k, klaw_workflow *wf);
/* From now on wf's lease is renewed, the first time when a third of it is over. */
void klawi_wf_keeper_begin(struct klawi_wf_keeper *k, klaw_workflow *wf, const klaw_lease *lease);
/* Not any more; a renewal under way finds the lease given back, or renews it in vain. Idempotent. */
void klawi_wf_keeper_remove(struct klawi_wf_keeper *k, klaw_workflow *wf);

/* --- the open handle --- */

/* What this run knows of a step. */
struct klawi_wf_step {
    struct klawi_wf_step *next;  /* (L) same bucket */
    struct klawi_wf_step *after; /* (L) in order of the record */
    klaw_step_state state;       /* (L) */
    bool known;                  /* (L) recorded or declared */
    bool dropped;                /* (L) no longer in the list */
    bool running, asked;         /* (L) */
    uint64_t hash;               /* (c) */
    char name[];                 /* (c) */
};

/* A call of klaw_workflow_step, on its stack. */
struct klaw_step {
    struct klaw_step *next, **back; /* (L) of the handle's running ones */
    klaw_workflow *wf;
    klaw_scope *scope; /* around all attempts; NULL where no runtime runs */
    bool failed;       /* the last error was the function's own */
    bool told;         /* (L) its scope has been cancelled */
    const char *name;
    klaw_step_opts opts;
    klaw_deadline deadline; /* of this attempt */
    klaw_deadline until;    /* of all attempts */
    uint32_t attempt;
    char id[33 + KLAW_WORKFLOW_NAME_MAX + 1];
    char why[256];
};

struct klaw_workflow {
    klaw_store *store;                     /* (c) a reference */
    struct klawi_wf_keeper *keeper;        /* (c) NULL: never held a lease */
    int64_t id;                            /* (c) */
    uint64_t token;                        /* (c) */
    char name[KLAW_WORKFLOW_NAME_MAX + 1]; /* (c) */
    char uid[33];                          /* (c) */
    char owner[33];                        /* (c) the id of this handle */
    int64_t duration;                      /* (c) of a lease, ns */
    klaw_deadline deadline;                /* (c) */
    bool declared, allow_changes;          /* (c) */
    _Atomic uint32_t refs;                 /* the user's; the keeper's while it renews */
    _Atomic bool lost, cancelled;          /* set once */
    _Atomic bool ended; /* read only from now on: it was DONE, or this run has ended it */
    _Atomic bool done;

    klawi_lock lock;
    struct klawi_wf_step **buckets;      /* (L) n_buckets of them, a power of two */
    struct klawi_wf_step *first, **last; /* (L) */
    size_t n_buckets, n_steps, unasked;  /* (L) */
    struct klaw_step *running;           /* (L) */

    /* Under the keepers' lock. */
    klaw_workflow *keeper_next;
    bool kept;        /* it is in the keeper's list */
    int64_t renew_at; /* klaw_now() */
    klaw_lease lease; /* as last granted */
};

/* Fills info ("workflow <name> in <file>: …") and returns e. */
klaw_err klawi_wf_say(klaw_error_info *info, klaw_store *s, const char *name, klaw_err e,
                      const char *fmt, ...) KLAW_PRINTF(5, 6);
/* One write of this handle; shielded: also when the caller is cancelled. */
klaw_err klawi_wf_write(klaw_workflow *wf, klawi_store_fn fn, void *arg, bool shield,
                        klaw_error_info *info);
/* The kept result of a step; NULL: of the workflow. */
klaw_err klawi_wf_read_result(klaw_workflow *wf, const char *step, klaw_blob **result,
                              klaw_error_info *info);
/* The lease is lost, or it was cancelled: the waits of its steps are cancelled. */
void klawi_wf_mark(klaw_workflow *wf, bool lost);
void klawi_wf_unref(klaw_workflow *wf);
/* The answer to a row that is not there, or holds another token. */
static inline bool klawi_wf_mine(const struct klawi_wf_head *h, uint64_t token) {
    return h->lease.token == token;
}

/* --- workflow_table.c: the steps a handle knows --- */
/* The step of this name, or NULL. Under the lock. */
struct klawi_wf_step *klawi_wf_step_find(klaw_workflow *wf, const char *name);
/* Makes one that is in no list. NULL: no memory. */
struct klawi_wf_step *klawi_wf_step_make(const char *name);
/* Puts it in. Under the lock. */
void klawi_wf_step_add(klaw_workflow *wf, struct klawi_wf_step *s);
/* More buckets, if that is due. Not under the lock. NOMEM only when there are none at all. */
klaw_err klawi_wf_table_grow(klaw_workflow *wf);
/* Frees all of it. */
void klawi_wf_table_free(klaw_workflow *wf);

#endif
