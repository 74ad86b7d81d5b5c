/* SPDX-License-Identifier: Apache-2.0 */
/* test_workflow_crash.c - processes that are killed while they run a workflow, and what the next one
 * finds. The program starts itself as the runner. Each step appends a letter to a file, its side effect,
 * before it returns: what was seen DONE may never append again.
 *
 * Tried with these bugs seeded: an end that is recorded without its result, a start that resets DONE, a
 * dead owner that is waited for. */
#include <spawn.h>
#include <sys/wait.h>

#include "support/random.h"
#include "support/workflow.h"

extern char **environ;

#define STEPS 5
#define LOST_EXIT 42

static char self[4096];
static folder dir;

/* --- the runner: another process --- */

static struct {
    const char *db, *effects;
    int die_at; /* at the so-manieth place; 0: nowhere */
    int place;
    bool fibers;
} runner;

static void place(void) {
    if (++runner.place == runner.die_at)
        kill(getpid(), SIGKILL);
}

static klaw_err appends(klaw_step *s, void *arg, klaw_blob **result) {
    (void)arg;
    char letter = klaw_step_name(s)[0];
    place();
    int fd = open(runner.effects, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    SAME(write(fd, &letter, 1), 1);
    close(fd);
    place();
    return klaw_blob_new(&letter, 1, result);
}

static klaw_err run_flow(void *arg) {
    (void)arg;
    klaw_store *s = store_at(runner.db);
    klaw_error_info info;
    klaw_workflow *wf = NULL;
    klaw_blob *b = NULL;
    place();
    klaw_workflow_opts o = {.lease = KLAW_S(3600)};
    klaw_err e = klaw_workflow_open(s, "flow", &o, &wf, &info);
    if (e)
        check_failed(__FILE__, __LINE__, "open", info.message);
    place();
    for (int i = 0; i < STEPS; i++) {
        const char name[2] = {(char)('a' + i), 0};
        OK(klaw_workflow_step(wf, name, appends, NULL, NULL, &b, NULL));
        SAME(*(const char *)klaw_blob_data(b), name[0]);
        klaw_blob_unref(b);
        place();
    }
    OK(klaw_workflow_finish(wf, NULL, NULL));
    place();
    klaw_workflow_close(wf);
    place();
    klaw_store_unref(s);
    return KLAW_OK;
}

/* Says 'W' when it has the lease, 'L' when somebody else has; then holds it until the pipe ends. */
static int race_main(const char *db) {
    klaw_store *s = store_at(db);
    klaw_workflow *wf = NULL;
    char c;
    SAME(write(1, "r", 1), 1);
    SAME(read(0, &c, 1), 1); /* all at once */
    klaw_err e = klaw_workflow_open(s, "race", NULL, &wf, NULL);
    c = e == KLAW_OK ? 'W' : e == KLAW_EXISTS ? 'L' : 'X';
    SAME(write(1, &c, 1), 1);
    while (read(0, &c, 1) > 0) {}
    klaw_workflow_close(wf);
    klaw_store_unref(s);
    return 0;
}

static klaw_err says_and_waits(klaw_step *s, void *arg, klaw_blob **result) {
    char c;
    (void)s, (void)arg;
    SAME(write(1, "r", 1), 1);
    SAME(read(0, &c, 1), 1);
    return klaw_blob_new("late", 4, result);
}
static int stopped_main(const char *db) {
    klaw_store *s = store_at(db);
    klaw_workflow *wf = WF(s, "stopped", .lease = KLAW_MS(100));
    klaw_err e = klaw_workflow_step(wf, "s", says_and_waits, NULL, NULL, NULL, NULL);
    klaw_workflow_close(wf);
    klaw_store_unref(s);
    return e == KLAW_STOPPED ? LOST_EXIT : 1;
}

static int child_main(char **argv) {
    check_test = argv[1];
    alarm(120);
    if (strcmp(argv[1], "race") == 0)
        return race_main(argv[2]);
    if (strcmp(argv[1], "stopped") == 0)
        return stopped_main(argv[2]);
    runner.db = argv[2];
    runner.effects = argv[3];
    runner.die_at = atoi(argv[4]);
    klaw_run_opts o = {.workers = 2};
    klaw_err e = strcmp(argv[1], "fibers") == 0 ? klaw_run(run_flow, NULL, &o) : run_flow(NULL);
    return e != KLAW_OK;
}

/* --- the parent --- */

typedef struct proc {
    pid_t pid;
    int in, out; /* its standard input and output; -1: none */
} proc;

static proc start(const char *kind, const char *db, const char *effects, int die_at, bool pipes) {
    char number[16];
    const char *argv[] = {self, kind, db, effects, number, NULL};
    proc p = {.in = -1, .out = -1};
    int in[2], out[2];
    posix_spawn_file_actions_t fa;
    snprintf(number, sizeof number, "%d", die_at);
    SAME(posix_spawn_file_actions_init(&fa), 0);
    if (pipes) {
        SAME(pipe2(in, O_CLOEXEC), 0);
        SAME(pipe2(out, O_CLOEXEC), 0);
        SAME(posix_spawn_file_actions_adddup2(&fa, in[0], 0), 0);
        SAME(posix_spawn_file_actions_adddup2(&fa, out[1], 1), 0);
    }
    SAME(posix_spawn(&p.pid, self, &fa, NULL, (char **)(uintptr_t)argv, environ), 0);
    posix_spawn_file_actions_destroy(&fa);
    if (pipes) {
        close(in[0]);
        close(out[1]);
        p.in = in[1];
        p.out = out[0];
    }
    return p;
}
static char hears(proc *p) {
    char c = 0;
    SAME(read(p->out, &c, 1), 1);
    return c;
}
static int ends(proc *p) {
    int status;
    SAME(waitpid(p->pid, &status, 0), p->pid);
    if (p->in >= 0)
        close(p->in);
    if (p->out >= 0)
        close(p->out);
    return status;
}

static char effects[400];

/* How often each step had its effect. */
static void count(int n[STEPS]) {
    memset(n, 0, STEPS * sizeof *n);
    if (access(effects, F_OK) != 0)
        return;
    size_t size;
    unsigned char *p = file_bytes(effects, &size);
    for (size_t i = 0; i < size; i++) {
        CHECK(p[i] >= 'a' && p[i] < 'a' + STEPS);
        n[p[i] - 'a']++;
    }
    free(p);
}

/* One crash has happened, or a run ended: what the log says fits the effects. */
typedef struct seen {
    bool done[STEPS];
    int runs[STEPS];
} seen;

static bool look(klaw_store *s, seen *old) {
    klaw_workflow_info i;
    klaw_step_info *steps;
    size_t n;
    int runs[STEPS];
    bool all;
    count(runs);
    klaw_err e = klaw_workflow_inspect(s, "flow", &i, &steps, &n, NULL);
    if (e == KLAW_NOT_FOUND) {
        for (int k = 0; k < STEPS; k++)
            SAME(runs[k], 0);
        return false;
    }
    OK(e);
    all = i.state == KLAW_WORKFLOW_DONE;
    for (size_t k = 0; k < n; k++) {
        SAME(steps[k].name[0], 'a' + (int)k);
        if (old->done[k]) { /* it never ran again, and what was kept stays kept */
            SAME(runs[k], old->runs[k]);
            SAME(steps[k].state, KLAW_STEP_DONE);
        }
        old->done[k] = steps[k].state == KLAW_STEP_DONE;
        old->runs[k] = runs[k];
        CHECK(runs[k] <= (int)steps[k].attempts); /* a start is recorded first */
        CHECK(!old->done[k] || (runs[k] >= 1 && steps[k].result_size == 1));
        CHECK(old->done[k] || k + 1 == n);
    }
    CHECK(!all || n == STEPS);
    klaw_step_info_free(steps);
    return all;
}

static void fresh(void) {
    dir = wf_folder();
    snprintf(effects, sizeof effects, "%s/effects", dir.path);
}

PLAIN(killed_at_each_place_it_resumes_where_it_was) {
    int places = 0, stride = rounds(100) < 100 ? 4 : 1; /* slow builds look at some */
    for (int fibers = 0; fibers < 2; fibers++) {
        for (int at = 1 + (fibers && stride > 1);; at += stride) {
            seen old = {0};
            int n[STEPS], status;
            fresh();
            proc p = start(fibers ? "fibers" : "thread", dir.file, effects, at, false);
            status = ends(&p);
            klaw_store *s = store_at(dir.file);
            (void)look(s, &old);
            if (WIFEXITED(status)) { /* there are no more places */
                SAME(WEXITSTATUS(status), 0);
                places = at - 1;
                klaw_store_unref(s);
                folder_free(&dir);
                break;
            }
            p = start(fibers ? "fibers" : "thread", dir.file, effects, 0, false);
            SAME(ends(&p), 0);
            CHECK(look(s, &old));
            count(n);
            for (int k = 0; k < STEPS; k++) /* twice only for the step it was killed in */
                CHECK(n[k] == 1 || (n[k] == 2 && at == 4 + 3 * k));
            klaw_store_unref(s);
            folder_free(&dir);
        }
        CHECK(stride > 1 || places == 2 + 3 * STEPS + 2);
    }
}

PLAIN(killed_at_random_no_kept_step_runs_again) {
    uint64_t seed = seed_begin(), n = rounds(50), finished = 0;
    fresh();
    klaw_store *s = store_at(dir.file);
    seen old = {0};
    int64_t whole = KLAW_MS(20); /* how long a run takes, about */
    for (uint64_t i = 0; i < n; i++) {
        rng r = rng_part(seed, i);
        int64_t begun = klaw_now();
        proc p = start(rng_one_in(&r, 2) ? "fibers" : "thread", dir.file, effects, 0, false);
        int64_t until = begun + (int64_t)rng_below(&r, (uint32_t)whole);
        int status = 0;
        pid_t ended = 0;
        while (!ended && klaw_now() < until) {
            ended = waitpid(p.pid, &status, WNOHANG);
            sched_yield();
        }
        if (!ended) {
            kill(p.pid, SIGKILL);
            status = ends(&p);
        }
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        CHECK(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
        whole += killed ? whole / 4 : -whole / 4;
        if (whole < KLAW_MS(2))
            whole = KLAW_MS(2);
        if (look(s, &old)) {
            finished++;
            OK(klaw_workflow_delete(s, "flow", true, NULL));
            unlink(effects);
            old = (seen){0};
        }
    }
    printf("%" PRIu64 " rounds, %" PRIu64 " workflows finished\n", n, finished);
    OK(klaw_store_check(s, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
    folder_free(&dir);
}

PLAIN(of_many_processes_one_wins_the_lease) {
    enum { N = 5 };
    for (uint64_t i = 0, n = rounds(6); i < n; i++) {
        proc p[N];
        int won = 0;
        fresh();
        klaw_store_unref(store_at(dir.file));
        for (int k = 0; k < N; k++)
            p[k] = start("race", dir.file, "", 0, true);
        for (int k = 0; k < N; k++)
            SAME(hears(&p[k]), 'r');
        for (int k = 0; k < N; k++)
            SAME(write(p[k].in, "g", 1), 1);
        for (int k = 0; k < N; k++) {
            char c = hears(&p[k]);
            CHECK(c == 'W' || c == 'L');
            won += c == 'W';
        }
        SAME(won, 1);
        for (int k = 0; k < N; k++) {
            close(p[k].in);
            p[k].in = -1;
            SAME(ends(&p[k]), 0);
        }
        folder_free(&dir);
    }
}

PLAIN(a_process_that_slept_through_its_lease_is_fenced) {
    klaw_blob *r = NULL;
    job j = {.value = 8};
    fresh();
    klaw_store *s = store_at(dir.file);
    proc p = start("stopped", dir.file, "", 0, true);
    SAME(hears(&p), 'r');
    SAME(kill(p.pid, SIGSTOP), 0);
    klaw_workflow *wf = WF(s, "stopped", .wait = KLAW_WITHIN(KLAW_S(60)));
    SAME(wf_step(wf, "s", &j), 8);
    SAME(kill(p.pid, SIGCONT), 0);
    SAME(write(p.in, "g", 1), 1);
    int status = ends(&p);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == LOST_EXIT);
    OK(klaw_workflow_kept(wf, "s", &r, NULL));
    SAME(number_of(r), 8);
    CHECK(wf_look(s, "stopped").leased);
    klaw_workflow_close(wf);
    klaw_store_unref(s);
    folder_free(&dir);
}

int main(int argc, char **argv) {
    if (argc > 1)
        return child_main(argv);
    CHECK(realpath(argv[0], self) != NULL);
    const struct CMUnitTest tests[] = {
        TEST(killed_at_each_place_it_resumes_where_it_was),
        TEST(killed_at_random_no_kept_step_runs_again),
        TEST(of_many_processes_one_wins_the_lease),
        TEST(a_process_that_slept_through_its_lease_is_fenced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
