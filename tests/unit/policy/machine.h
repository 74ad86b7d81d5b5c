/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h - a supervision machine driven by hand, and what it says as a line of text:
 *
 *     +1 start child 1    -1 stop it    !1 kill it    x1 removed    begun    done:OK
 *     r1:2 runs again after two ends in a row    f1:2:SYSTEM failed the second time    g1:4 gave up */
#ifndef KLAW_TESTS_POLICY_MACHINE_H
#define KLAW_TESTS_POLICY_MACHINE_H

#include "support/runs.h"

static klaw_supervision *machine;
static int64_t t; /* now */

static inline const char *said(void) {
    static char line[4096];
    size_t n = 0;
    line[0] = 0;
    for (;;) {
        klaw_supervision_action a = klaw_supervision_next(machine, t);
        const char *space = n ? " " : "", *error = klaw_err_name(a.error) + strlen("KLAW_");
        size_t room = sizeof line - n;
        CHECK(room > 64);
        char *at = line + n;
        switch (a.verb) {
        case KLAW_SUP_NOTHING: return line;
        case KLAW_SUP_START: n += (size_t)snprintf(at, room, "%s+%u", space, a.child); break;
        case KLAW_SUP_STOP: n += (size_t)snprintf(at, room, "%s-%u", space, a.child); break;
        case KLAW_SUP_KILL: n += (size_t)snprintf(at, room, "%s!%u", space, a.child); break;
        case KLAW_SUP_REMOVED: n += (size_t)snprintf(at, room, "%sx%u", space, a.child); break;
        case KLAW_SUP_RESTARTED:
            n += (size_t)snprintf(at, room, "%sr%u:%u", space, a.child, a.attempt);
            break;
        case KLAW_SUP_FAILED:
            n += (size_t)snprintf(at, room, "%sf%u:%u:%s", space, a.child, a.attempt, error);
            break;
        case KLAW_SUP_GAVE_UP:
            n += (size_t)snprintf(at, room, "%sg%u:%u", space, a.child, a.attempt);
            break;
        case KLAW_SUP_DONE: n += (size_t)snprintf(at, room, "%sdone:%s", space, error); break;
        case KLAW_SUP_BEGUN: n += (size_t)snprintf(at, room, "%sbegun", space); break;
        }
    }
}

static inline void says(const char *want, const char *file, int line) {
    const char *got = said();
    if (strcmp(got, want) == 0)
        return;
    char more[4200];
    snprintf(more, sizeof more, "it says \"%.4000s\"", got);
    check_failed(file, line, want, more);
}
/* What it says, up to NOTHING. */
#define SAYS(want) says((want), __FILE__, __LINE__)
#define STATE(child, want) SAME(klaw_supervision_state(machine, (child)), KLAW_CHILD_##want)

static inline void machine_make(klaw_supervision_opts o) {
    t = 1000;
    OK(klaw_supervision_new(&o, &machine));
}
#define MACHINE(...) machine_make((klaw_supervision_opts){__VA_ARGS__})
static inline void machine_free(void) {
    klaw_supervision_free(machine);
    machine = NULL;
}

static inline uint32_t child_of(klaw_supervision_child c) {
    uint32_t number = 77;
    OK(klaw_supervision_add(machine, &c, &number));
    return number;
}
#define CHILD(...) child_of((klaw_supervision_child){__VA_ARGS__})
#define ON_FAILURE .restart = KLAW_RESTART_ON_FAILURE
#define ALWAYS .restart = KLAW_RESTART_ALWAYS
#define NEVER .restart = KLAW_RESTART_NEVER

static inline void runs(uint32_t child) {
    OK(klaw_supervision_started(machine, child, t));
}
static inline void no_start(uint32_t child) {
    OK(klaw_supervision_start_failed(machine, child, KLAW_SYSTEM, t, 0));
}
static inline void ends(uint32_t child, klaw_err e) {
    OK(klaw_supervision_exited(machine, child, e, t, 0));
}
static inline void fails(uint32_t child) {
    ends(child, KLAW_SYSTEM);
}
/* Adds n children of one sort, begins, and all of them run. */
static inline void machine_begin(uint32_t n, klaw_supervision_child c) {
    char first[16];
    for (uint32_t i = 0; i < n; i++)
        SAME(child_of(c), i);
    OK(klaw_supervision_begin(machine, t));
    for (uint32_t i = 0; i < n; i++) {
        snprintf(first, sizeof first, "+%u", i);
        SAYS(first);
        runs(i);
    }
    SAYS("begun");
}
#define BEGIN(n, ...) machine_begin((n), (klaw_supervision_child){__VA_ARGS__})

#endif
