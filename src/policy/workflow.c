/* SPDX-License-Identifier: Apache-2.0 */
/* workflow.c - the decisions of workflows: names and lists, leases, opening, steps, retries.
 *
 * Pure: every function depends on its arguments alone. What they promise together, given that their
 * answers are carried out inside one transaction of the log:
 *   I1  a step that is DONE is never told to RUN, by any run.
 *   I2  a lease that lasts is taken only by who asked for exactly that (takeover).
 *   I3  a lease never lasts longer than twice its duration on any clock, so nothing waits for ever.
 *   I4  a list that differs in a name, the order or the version is not SAME, and without
 *       allow_changes nothing is resumed with it.
 *
 * Rejected: one wall-clock time for leases. It is set by people and daemons; the time since boot is
 * not, and within one boot it is the same for every process. Between boots nobody who held a lease
 * lives, so there the wall clock only decides how long to wait in vain. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "klaw/workflow_policy.h"

const char *klaw_workflow_state_name(klaw_workflow_state s) {
    static const char *const names[] = {"running", "done", "failed", "cancelled"};
    return (unsigned)s < 4 ? names[s] : "?";
}

const char *klaw_step_state_name(klaw_step_state s) {
    static const char *const names[] = {"pending", "started", "failed", "done"};
    return (unsigned)s < 4 ? names[s] : "?";
}

/* --- names and lists --- */

static bool text_ok(const char *s, size_t min, size_t max) {
    size_t n = 0;
    for (; s[n]; n++)
        if (n == max || (unsigned char)s[n] < 0x20 || s[n] == 0x7f)
            return false;
    return n >= min;
}

bool klaw_workflow_name_ok(const char *name) {
    return name && text_ok(name, 1, KLAW_WORKFLOW_NAME_MAX);
}

/* Equal names by their place, so that the first of them comes first. */
static int by_name(const void *a, const void *b) {
    const char *const *x = *(const char *const *const *)a;
    const char *const *y = *(const char *const *const *)b;
    int c = strcmp(*x, *y);
    return c ? c : (x > y) - (x < y);
}

/* *at becomes the first index whose name stands at a smaller one, too. */
static klaw_err first_double(const klaw_workflow_list *list, size_t *at) {
    const char *const **sorted = klawi_calloc(list->n, sizeof *sorted);
    if (!sorted)
        return KLAW_NOMEM;
    for (size_t i = 0; i < list->n; i++)
        sorted[i] = &list->names[i];
    qsort((void *)sorted, list->n, sizeof *sorted, by_name);
    for (size_t i = 1; i < list->n; i++) {
        size_t place = (size_t)(sorted[i] - list->names);
        if (place < *at && strcmp(*sorted[i - 1], *sorted[i]) == 0)
            *at = place;
    }
    klawi_free((void *)sorted);
    return KLAW_OK;
}

klaw_err klaw_workflow_list_check(const klaw_workflow_list *list, size_t *bad) {
    size_t at = 0;
    klaw_err e = KLAW_OK;
    if (list && (list->names || list->n == 0)) {
        while (at < list->n && klaw_workflow_name_ok(list->names[at]))
            at++;
        if (at == list->n) {
            bool version = !list->version || text_ok(list->version, 0, KLAW_WORKFLOW_VERSION_MAX);
            at = SIZE_MAX;
            e = first_double(list, &at);
            if (e || (at == SIZE_MAX && version))
                return e;
            if (at == SIZE_MAX)
                at = list->n;
        }
    }
    if (bad)
        *bad = at;
    return KLAW_INVALID;
}

static bool has(const klaw_workflow_list *list, const char *name) {
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->names[i], name) == 0)
            return true;
    return false;
}

static const char *version_of(const klaw_workflow_list *list) {
    return list->version ? list->version : "";
}

klaw_workflow_diff klaw_workflow_compare(const klaw_workflow_list *recorded,
                                         const klaw_workflow_list *declared) {
    const klaw_workflow_list *r = recorded, *d = declared;
    size_t i = 0;
    while (i < r->n && i < d->n && strcmp(r->names[i], d->names[i]) == 0)
        i++;
    bool gone = i < r->n && !has(d, r->names[i]);
    bool new = i < d->n && !has(r, d->names[i]);
    klaw_workflow_change c = KLAW_WORKFLOW_SAME;
    if (gone)
        c = new ? KLAW_WORKFLOW_RENAMED : KLAW_WORKFLOW_REMOVED;
    else if (new)
        c = KLAW_WORKFLOW_ADDED;
    else if (i < r->n) /* then i < d->n, too: what is left are the same names */
        c = KLAW_WORKFLOW_MOVED;
    else if (strcmp(version_of(r), version_of(d)) != 0)
        return (klaw_workflow_diff){KLAW_WORKFLOW_VERSION, 0};
    return (klaw_workflow_diff){c, c ? i : 0};
}

size_t klaw_workflow_diff_text(klaw_workflow_diff diff, const klaw_workflow_list *recorded,
                               const klaw_workflow_list *declared, char *buf, size_t size) {
    const klaw_workflow_list *r = recorded, *d = declared;
    size_t at = diff.at, number = at + 1, n = 0;
    if (size == 0)
        return 0;
    buf[0] = 0;
    switch (diff.change) {
    case KLAW_WORKFLOW_SAME: break;
    case KLAW_WORKFLOW_ADDED:
        n = (size_t)snprintf(buf, size, "step %zu \"%.40s\" is new", number, d->names[at]);
        break;
    case KLAW_WORKFLOW_REMOVED:
        n = (size_t)snprintf(buf, size, "step %zu \"%.40s\" is gone", number, r->names[at]);
        break;
    case KLAW_WORKFLOW_RENAMED:
    case KLAW_WORKFLOW_MOVED:
        n = (size_t)snprintf(buf, size, "step %zu was \"%.40s\" and is \"%.40s\" now", number,
                             r->names[at], d->names[at]);
        break;
    case KLAW_WORKFLOW_VERSION:
        n = (size_t)snprintf(buf, size, "the version was \"%.63s\" and is \"%.63s\" now",
                             version_of(r), version_of(d));
        break;
    }
    return n < size ? n : size - 1;
}

size_t klaw_workflow_next(const klaw_step_state *states, size_t n) {
    size_t i = 0;
    while (i < n && states[i] == KLAW_STEP_DONE)
        i++;
    return i;
}

/* --- leases --- */

static int64_t plus(int64_t a, int64_t b) {
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

klaw_lease klaw_lease_grant(const klaw_lease_clock *clock, int64_t duration, uint64_t token) {
    klaw_lease l = {.duration = duration, .token = token};
    memcpy(l.boot, clock->boot, sizeof l.boot);
    l.until_boot = plus(clock->since_boot, duration);
    l.until_wall = plus(clock->wall, duration);
    return l;
}

int64_t klaw_lease_remaining(const klaw_lease *lease, const klaw_lease_clock *clock,
                             klaw_lease_owner owner) {
    int64_t left;
    if (lease->duration <= 0 || owner == KLAW_OWNER_DEAD)
        return 0;
    bool same_boot = lease->boot[0] && strncmp(lease->boot, clock->boot, sizeof lease->boot) == 0;
    int64_t until = same_boot ? lease->until_boot : lease->until_wall;
    if (__builtin_sub_overflow(until, same_boot ? clock->since_boot : clock->wall, &left))
        return 0; /* centuries away, one way or the other */
    return left > 0 && left / 2 <= lease->duration ? left : 0;
}

int64_t klaw_lease_renew_in(const klaw_lease *lease, const klaw_lease_clock *clock) {
    int64_t left = klaw_lease_remaining(lease, clock, KLAW_OWNER_ALIVE);
    int64_t keep = lease->duration - lease->duration / 3;
    return left > keep ? left - keep : 0;
}

/* --- opening --- */

klaw_workflow_opening klaw_workflow_open_decide(const klaw_workflow_head *head,
                                                klaw_workflow_change change,
                                                klaw_workflow_wish wish,
                                                const klaw_lease_clock *clock,
                                                klaw_lease_owner owner, int64_t *wait) {
    int64_t left = head->exists ? klaw_lease_remaining(&head->lease, clock, owner) : 0;
    bool busy = left > 0 && !wish.takeover;
    if (wait)
        *wait = busy ? left : 0;
    if (!head->exists)
        return KLAW_OPENING_CREATE;
    /* Whoever runs it may be about to end it or to change its list: these are looked at only when
     * nobody does. */
    if (busy)
        return KLAW_OPENING_BUSY;
    bool done = head->state == KLAW_WORKFLOW_DONE;
    if (!done && !wish.uncancel && (head->cancel || head->state == KLAW_WORKFLOW_CANCELLED))
        return KLAW_OPENING_CANCELLED;
    if (change != KLAW_WORKFLOW_SAME && !wish.allow_changes)
        return KLAW_OPENING_CHANGED;
    if (done && change == KLAW_WORKFLOW_SAME)
        return KLAW_OPENING_READ;
    return head->lease.duration > 0 ? KLAW_OPENING_TAKE_OVER : KLAW_OPENING_RESUME;
}

/* --- steps --- */

klaw_step_verdict klaw_step_decide(const klaw_workflow_run_view *run, const klaw_step_view *step) {
    bool done = step->state == KLAW_STEP_DONE;
    if (run->lost)
        return KLAW_STEP_LOST;
    if (run->cancelled)
        return KLAW_STEP_CANCELLED;
    if (step->running || (step->asked && done))
        return KLAW_STEP_TWICE;
    if (run->declared && !step->known)
        return KLAW_STEP_UNDECLARED; /* also one that was dropped, with its result */
    if (done)
        return KLAW_STEP_REPLAY;
    if (run->read_only)
        return KLAW_STEP_ENDED;
    if (!step->known && run->unasked && !run->allow_changes)
        return KLAW_STEP_CHANGED;
    return run->late ? KLAW_STEP_TIMEOUT : KLAW_STEP_RUN;
}

klaw_step_verdict klaw_workflow_finish_decide(const klaw_workflow_run_view *run) {
    if (run->lost)
        return KLAW_STEP_LOST;
    if (run->read_only)
        return KLAW_STEP_ENDED;
    if (!run->declared && run->unasked && !run->allow_changes)
        return KLAW_STEP_CHANGED;
    return KLAW_STEP_RUN;
}

bool klaw_step_retry_decide(const klaw_step_retry *retry, uint32_t failures, klaw_err error,
                            int64_t now, klaw_deadline deadline, uint64_t random, int64_t *at) {
    uint32_t attempts = retry->attempts ? retry->attempts : 1;
    if (error == KLAW_CANCELLED || (failures >= attempts && attempts != UINT32_MAX))
        return false;
    *at = plus(now, klaw_backoff_delay(&retry->backoff, failures, random));
    return deadline == KLAW_FOREVER || *at < deadline;
}
