/* SPDX-License-Identifier: Apache-2.0 */
/* test_store_kill.c - kill -9: a child saves in a loop and reports each confirmed save through a pipe; it is killed at a
 * random moment. The next child looks first: what was confirmed last is there, whole, the versions before it
 * too, and the one that was under way is there whole or not at all.
 *
 * And several processes that save at once.
 *
 * The parent uses neither klaw nor SQLite, so each child starts from a clean process. Half of the children save
 * from fibers.
 *
 * Tried with: the report before the commit (a mutant of this test), a confirmed save is then missing. */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/random.h"
#include "support/runs.h"
#include "support/store.h"

#define KEEP 3

static folder dir;

/* What is known: the last confirmed save; every save n makes version n of "count" with value n. */
typedef struct life {
    uint64_t confirmed;
    int report; /* where each confirmed n goes */
    uint64_t seed;
} life;

static size_t size_of(uint64_t n) {
    return n % 7 == 0 ? 20000 : n % 300;
}

/* What the last child left. */
static uint64_t look(klaw_store *s, uint64_t confirmed) {
    klaw_store_entries all;
    uint64_t newest = 0;
    klaw_err e = klaw_store_versions(s, "count", &all, KLAW_FOREVER, NULL);
    if (e == KLAW_NOT_FOUND) {
        SAME(confirmed, 0);
        return 0;
    }
    OK(e);
    newest = all.entries[0].version;
    CHECK(newest == confirmed || newest == confirmed + 1);
    SAME(all.n, newest < KEEP ? newest : KEEP);
    for (size_t i = 0; i < all.n; i++) {
        klaw_blob *b = NULL;
        uint64_t n = newest - i;
        SAME(all.entries[i].version, n);
        OK(klaw_store_load_version(s, "count", n, &b, KLAW_FOREVER, NULL));
        CHECK(value_is(b, size_of(n), "count", n));
        klaw_blob_unref(b);
    }
    klaw_store_entries_free(&all);
    OK(klaw_store_check(s, NULL, KLAW_FOREVER, NULL));
    return newest;
}

static klaw_err saves_until_killed(void *arg) {
    life *r = arg;
    klaw_store *s = store_with(dir.file, (klaw_store_opts){.keep = KEEP});
    uint64_t n = look(s, r->confirmed);
    rng rnd = rng_part(r->seed, n);
    if (write(r->report, &n, sizeof n) != sizeof n) /* it was whole: counts as confirmed */
        return KLAW_SYSTEM;
    for (;;) {
        SAME(save_value(s, "count", size_of(n + 1), n + 1), n + 1);
        n++;
        if (write(r->report, &n, sizeof n) != sizeof n)
            return KLAW_SYSTEM;
        if (rng_one_in(&rnd, 20)) {
            klaw_store_unref(s);
            s = store_with(dir.file, (klaw_store_opts){.keep = KEEP});
        }
    }
}

static void child(life *r, bool fibers) {
    alarm(120);
    klaw_err e = fibers ? klaw_run(saves_until_killed, r, &(klaw_run_opts){.workers = 1})
                        : saves_until_killed(r);
    fprintf(stderr, "the child ends: %s\n", klaw_err_name(e));
    _exit(3);
}

/* Reads up to `most` reports, or all there are until the other end is closed; the last one. */
static uint64_t last_report(int fd, uint64_t before, uint64_t most) {
    uint64_t n = before;
    for (uint64_t got; most-- && read(fd, &got, sizeof got) == sizeof got;)
        n = got;
    return n;
}

static void kill_often(uint64_t n_rounds) {
    uint64_t confirmed = 0;
    rng rnd = rng_part(check_seed, 0);
    dir = folder_make();
    for (uint64_t i = 0; i < n_rounds; i++) {
        int p[2];
        SAME(pipe(p), 0);
        life r = {confirmed, p[1], check_seed};
        fflush(NULL);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            close(p[0]);
            child(&r, i % 2 == 1);
        }
        close(p[1]);
        /* Now and then before it has even looked; else after some saves and a moment. */
        confirmed = last_report(p[0], confirmed, rng_below(&rnd, 24));
        struct timespec t = {0, (long)rng_below(&rnd, 1000) * 1000};
        nanosleep(&t, NULL);
        SAME(kill(pid, SIGKILL), 0);
        confirmed = last_report(p[0], confirmed, UINT64_MAX);
        close(p[0]);
        int status = 0;
        SAME(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            check_failed(__FILE__, __LINE__, "the child found all in order", "see above");
    }
    printf("%" PRIu64 " kills, %" PRIu64 " confirmed saves\n", n_rounds, confirmed);
    CHECK(n_rounds < 20 || confirmed > n_rounds);
    folder_free(&dir);
}

static void the_last_confirmed_save_survives_kill_9(void **state) {
    (void)state;
    check_test = "the_last_confirmed_save_survives_kill_9";
    kill_often(rounds(100)); /* 2 000 in the soak slice */
}

/* ---- several processes at once ---- */

#define PROCESSES 4
#define SAVES 25

static void saver(uint64_t me) {
    char key[16];
    klaw_store *s = store_at(dir.file);
    snprintf(key, sizeof key, "of %u", (unsigned)me);
    for (uint64_t i = 1; i <= SAVES; i++) {
        SAME(save_value(s, key, 500, i), i);
        SAME(load_value(s, key, 500, i), i);
        OK(klaw_store_save(s, "all", &me, sizeof me, NULL, KLAW_FOREVER, NULL));
    }
    klaw_store_unref(s);
}

static void counts_all(void) {
    klaw_store_entries all;
    klaw_store *s = store_at(dir.file);
    OK(klaw_store_versions(s, "all", &all, KLAW_FOREVER, NULL));
    SAME(all.entries[0].version, (uint64_t)PROCESSES * SAVES);
    klaw_store_entries_free(&all);
    OK(klaw_store_check(s, NULL, KLAW_FOREVER, NULL));
    klaw_store_unref(s);
}

static void processes_lose_nothing_of_one_another(void **state) {
    pid_t pid[PROCESSES + 1];
    (void)state;
    check_test = "processes_lose_nothing_of_one_another";
    dir = folder_make();
    fflush(NULL);
    for (uint64_t i = 0; i <= PROCESSES; i++) {
        for (uint64_t j = 0; i == PROCESSES && j < i; j++) { /* the last one counts */
            int status = 0;
            SAME(waitpid(pid[j], &status, 0), pid[j]);
            SAME(status, 0);
        }
        pid[i] = fork();
        CHECK(pid[i] >= 0);
        if (pid[i] == 0) {
            alarm(120);
            if (i < PROCESSES)
                saver(i);
            else
                counts_all();
            _exit(0);
        }
    }
    int status = 0;
    SAME(waitpid(pid[PROCESSES], &status, 0), pid[PROCESSES]);
    SAME(status, 0);
    folder_free(&dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_confirmed_save_survives_kill_9),
        cmocka_unit_test(processes_lose_nothing_of_one_another),
    };
    seed_begin();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
