/* SPDX-License-Identifier: Apache-2.0 */
/* test_soak.c - everything at once under load, looked at all the while: nothing is stuck, and memory is flat.
 *
 * LANES fibers each run one random job of jobs.c after the other. A thread outside takes snapshots without a pause, by the
 * library and through the inspect socket. Every epoch all lanes stop at a barrier; then the blocks that klaw holds
 * (klaw_alloc_live) must be as many as at the first barriers, and resident memory must not have grown: after a
 * warm-up of a quarter of the epochs, by no more than RSS_SLACK. A job that takes longer than STUCK ends the test with
 * a snapshot of who waits on what.
 *
 * Duration: KLAW_SOAK_SECONDS; without it 1 200 s in the soak slice, else 4 s. Tried with a job that forgets an unref and
 * with one that waits for ever: both are noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "jobs.h"

#define LANES 24
#define EPOCHS 16
#define STUCK KLAW_S(90)
#define RSS_SLACK ((int64_t)32 << 20) /* an arena of malloc and some stacks */

typedef struct lane {
    rng random;
    _Atomic int64_t since;     /* when its job began; 0: at the barrier */
    _Atomic(const char *) job; /* its job */
    uint64_t done;
} lane;

static lane lanes[LANES];
static _Atomic int64_t epoch_ends;
static _Atomic bool over;
static _Atomic uint64_t looks;

static int64_t resident(void) {
    char line[128];
    int64_t kb = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %" SCNd64, &kb) == 1)
            break;
    if (f)
        fclose(f);
    return kb * 1024;
}

static klaw_err run_lane(void *arg) {
    lane *l = arg;
    while (klaw_now() < atomic_load(&epoch_ends)) {
        const job *j = &soak_jobs[rng_below(&l->random, (uint32_t)soak_n_jobs)];
        if (j->slow && !rng_one_in(&l->random, 16))
            continue;
        atomic_store(&l->job, j->name);
        atomic_store(&l->since, klaw_now());
        j->run(&l->random);
        atomic_store(&l->since, 0);
        l->done++;
    }
    return KLAW_OK;
}

/* ---- who looks ---- */

static void look_by_library(void) {
    klaw_snapshot *snap;
    char *text;
    size_t size;
    if (klaw_snapshot_take(&snap) != KLAW_OK)
        return; /* no memory is a fair answer */
    if (klaw_snapshot_json(snap, &text, &size) == KLAW_OK) {
        CHECK(size > 2 && text[0] == '{');
        klaw_snapshot_text_free(text);
    }
    klaw_snapshot_free(snap);
}

static void look_by_socket(int *fd) {
    static const char ask[] = "klaw/1 snapshot\n";
    static char buf[1 << 16];
    char line[64];
    size_t n = 0, bytes = 0;
    if (*fd < 0) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        OK(klaw_inspect_path(a.sun_path, sizeof a.sun_path));
        *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(*fd >= 0 && connect(*fd, (struct sockaddr *)&a, sizeof a) == 0);
    }
    CHECK(send(*fd, ask, sizeof ask - 1, MSG_NOSIGNAL) == sizeof ask - 1);
    while (n < sizeof line - 1 && read(*fd, line + n, 1) == 1 && line[n++] != '\n') {}
    line[n] = '\0';
    CHECK(sscanf(line, "klaw/1 ok %zu\n", &bytes) == 1);
    while (bytes) {
        ssize_t got = read(*fd, buf, bytes < sizeof buf ? bytes : sizeof buf);
        CHECK(got > 0);
        bytes -= (size_t)got;
    }
}

static void show_stuck(void) {
    klaw_snapshot *snap;
    char *text;
    size_t size;
    for (size_t i = 0; i < LANES; i++)
        if (atomic_load(&lanes[i].since))
            fprintf(stderr, "lane %zu: %s for %d s\n", i, atomic_load(&lanes[i].job),
                    (int)((klaw_now() - atomic_load(&lanes[i].since)) / KLAW_S(1)));
    if (klaw_snapshot_take(&snap) == KLAW_OK && klaw_snapshot_json(snap, &text, &size) == KLAW_OK)
        fprintf(stderr, "%s\n", text);
    check_failed(__FILE__, __LINE__, "a job is stuck", "");
}

static void *look(void *arg) {
    int fd = -1;
    (void)arg;
    while (!atomic_load(&over)) {
        look_by_library();
        look_by_socket(&fd);
        atomic_fetch_add(&looks, 1);
        for (size_t i = 0; i < LANES; i++) {
            int64_t since = atomic_load(&lanes[i].since);
            if (since && klaw_now() - since > STUCK)
                show_stuck();
        }
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
    }
    close(fd);
    return NULL;
}

/* ---- the test ---- */

static int64_t duration(void) {
    const char *given = getenv("KLAW_SOAK_SECONDS"), *slice = getenv("KLAW_TEST_SLICE");
    if (given)
        return KLAW_S(strtol(given, NULL, 10));
    return slice && strcmp(slice, "soak") == 0 ? KLAW_S(1200) : KLAW_S(4);
}

static klaw_err soak(void *arg) {
    int64_t length = duration() / EPOCHS, warm = 0, most = 0;
    uint64_t blocks = 0, jobs = 0;
    (void)arg;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        klaw_scope *scope;
        atomic_store(&epoch_ends, klaw_now() + length);
        OK(klaw_scope_open(NULL, &scope));
        for (size_t i = 0; i < LANES; i++)
            OK(klaw_go(run_lane, &lanes[i]));
        OK(klaw_scope_close(scope)); /* the barrier */
        klaw_alloc_trim();
        malloc_trim(0);
        uint64_t now = klaw_alloc_live();
        int64_t rss = resident();
        if (epoch < EPOCHS / 4) { /* caches fill */
            blocks = now > blocks ? now : blocks;
            warm = rss > warm ? rss : warm;
        } else {
            if (now > blocks + 64) { /* caches of fixed size may come and go */
                fprintf(stderr,
                        "%" PRIu64 " blocks at the barrier, %" PRIu64 " at the first ones\n", now,
                        blocks);
                check_failed(__FILE__, __LINE__, "klaw holds more and more blocks", "");
            }
            most = rss > most ? rss : most;
        }
    }
    for (size_t i = 0; i < LANES; i++)
        jobs += lanes[i].done;
    printf("%" PRIu64 " jobs, %" PRIu64 " looks, %" PRIu64
           " blocks, resident %d MiB after the warm-up, at most %d MiB later\n",
           jobs, atomic_load(&looks), blocks, (int)(warm >> 20), (int)(most >> 20));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep what is freed */
    CHECK(most <= warm + RSS_SLACK + warm / 10);
#endif
    CHECK(jobs > 0 && atomic_load(&looks) > 0);
    return KLAW_OK;
}

static void everything_at_once_stays_flat_and_nothing_is_stuck(void **state) {
    (void)state;
    char folder[] = "/tmp/klaw-soak-XXXXXX", path[64], runtime[64];
    pthread_t looker;
    check_test = "soak";
    uint64_t seed = seed_begin();
    for (size_t i = 0; i < LANES; i++)
        lanes[i].random = rng_part(seed, i);
    CHECK(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/store", folder);
    CHECK(setenv("XDG_RUNTIME_DIR", folder, 1) == 0);
    OK(klaw_inspect_open(NULL));
    OK(klaw_store_open(path, NULL, &soak_store, NULL));
    CHECK(pthread_create(&looker, NULL, look, NULL) == 0);
    OK(klaw_run(soak, NULL, NULL));
    atomic_store(&over, true);
    pthread_join(looker, NULL);
    klaw_store_unref(soak_store);
    klaw_inspect_close();
    unlink(path);
    snprintf(runtime, sizeof runtime, "%s/klaw", folder);
    rmdir(runtime);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_at_once_stays_flat_and_nothing_is_stuck)};
    return cmocka_run_group_tests_name("soak", tests, NULL, NULL);
}
