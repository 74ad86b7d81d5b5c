/* SPDX-License-Identifier: Apache-2.0 */
/* test_fd.c - waiting for descriptors; reading, writing and closing pipes and files. Sockets:
 * test_fd_socket.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/runs.h"

static void pipe_make(int p[2]) {
    SAME(pipe2(p, O_CLOEXEC), 0);
}
static void pipe_free(int p[2]) {
    OK(klaw_fd_close(p[0]));
    OK(klaw_fd_close(p[1]));
}
static void put(int fd, const char *text) {
    SAME(write(fd, text, strlen(text)), strlen(text));
}

/* --- waiting --- */
typedef struct wait {
    int fd;
    unsigned events;
    klaw_deadline deadline;
} wait_for;

static klaw_err waits(void *arg) {
    wait_for *w = arg;
    return klaw_fd_wait(w->fd, w->events, w->deadline);
}

RUNS(a_fiber_waits_until_a_descriptor_is_ready, 2) {
    int p[2];
    for (int i = 0; i < 100; i++) {
        pipe_make(p);
        wait_for w = {p[0], KLAW_READ, KLAW_WITHIN(SOON_NS)};
        klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "w"}, waits, &w);
        if (i % 2)
            UNTIL(waiting("w", "fd") == 1);
        put(p[1], "x");
        OK(result_of(f));
        OK(klaw_fd_wait(p[0], KLAW_READ, KLAW_NOWAIT)); /* it stays ready */
        OK(klaw_fd_wait(p[1], KLAW_WRITE, KLAW_NOWAIT));
        pipe_free(p);
    }
}

static klaw_err waits_as_a_thread(void *arg) {
    int *p = arg;
    GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_NOWAIT), KLAW_EMPTY);
    GIVES(klaw_fd_wait(p[0], KLAW_READ, 1), KLAW_TIMEOUT);
    int64_t began = klaw_now();
    GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_MS(3))), KLAW_TIMEOUT);
    GIVES(klaw_fd_wait(p[0], KLAW_READ, klaw_after(KLAW_MS(3))), KLAW_TIMEOUT);
    CHECK(klaw_now() - began >= KLAW_MS(6));
    OK(klaw_fd_wait(p[1], KLAW_READ | KLAW_WRITE, KLAW_FOREVER));
    return KLAW_OK;
}

RUNS(waits_time_out, 2) {
    int p[2];
    thread_job t;
    pipe_make(p);
    OK(waits_as_a_thread(p));
    thread_start(&t, waits_as_a_thread, p);
    OK(thread_end(&t));
    pipe_free(p);
}

PLAIN(threads_wait_without_a_runtime) {
    int p[2];
    char c;
    size_t n;
    pipe_make(p);
    OK(waits_as_a_thread(p));
    OK(klaw_fd_write(p[1], "abc", 3, &n, KLAW_FOREVER, NULL));
    OK(klaw_fd_read(p[0], &c, 1, &n, KLAW_FOREVER, NULL));
    CHECK(n == 1 && c == 'a');
    pipe_free(p);
}

RUNS(bad_arguments_are_refused, 1) {
    int p[2];
    char c;
    size_t n;
    klaw_error_info info;
    pipe_make(p);
    GIVES(klaw_fd_wait(-1, KLAW_READ, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_fd_wait(p[0], 0, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_fd_wait(p[0], 4, KLAW_FOREVER), KLAW_INVALID);
    GIVES(klaw_fd_read(p[0], &c, 1, NULL, KLAW_FOREVER, NULL), KLAW_INVALID);
    GIVES(klaw_fd_read(p[0], NULL, 1, &n, KLAW_FOREVER, NULL), KLAW_INVALID);
    GIVES(klaw_fd_write(p[1], NULL, 1, &n, KLAW_FOREVER, NULL), KLAW_INVALID);
    GIVES(klaw_fd_accept(p[0], NULL, KLAW_FOREVER, NULL), KLAW_INVALID);
    GIVES(klaw_fd_connect(p[0], NULL, 0, KLAW_FOREVER, NULL), KLAW_INVALID);
    pipe_free(p);
    GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_FOREVER), KLAW_INVALID); /* closed */
    GIVES(klaw_fd_read(p[0], &c, 1, &n, KLAW_FOREVER, &info), KLAW_INVALID);
    SAME(info.sys, EBADF);
    CHECK(info.message[0] != '\0');
    GIVES(klaw_fd_close(p[0]), KLAW_INVALID);
    GIVES(klaw_fd_close(-1), KLAW_INVALID);
    GIVES(klaw_fd_wait(1000000, KLAW_READ, KLAW_NOWAIT), KLAW_INVALID);
}

/* --- two fibers, one descriptor --- */
RUNS(one_descriptor_is_waited_for_in_both_directions, 2) {
    int s[2];
    char fill[4096], sink[1 << 16];
    size_t n, total = 0;
    memset(fill, 'f', sizeof fill);
    SAME(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
    while (write(s[0], fill, sizeof fill) > 0) /* nothing more can be written */
        ;
    wait_for in = {s[0], KLAW_READ, KLAW_WITHIN(SOON_NS)},
             out = {s[0], KLAW_WRITE, KLAW_WITHIN(SOON_NS)};
    klaw_fiber *reader = fiber_with((klaw_fiber_opts){.name = "r"}, waits, &in);
    klaw_fiber *writer = fiber_with((klaw_fiber_opts){.name = "w"}, waits, &out);
    UNTIL(waiting("r", "fd") == 1 && waiting("w", "fd") == 1);
    put(s[1], "x"); /* for the reader alone */
    OK(result_of(reader));
    SAME(waiting("w", "fd"), 1);
    do {
        OK(klaw_fd_read(s[1], sink, sizeof sink, &n, KLAW_FOREVER, NULL));
        total += n;
    } while (klaw_join(writer, NULL, NULL, KLAW_WITHIN(KLAW_MS(1))) != KLAW_OK);
    CHECK(total > 0);
    OK(klaw_fd_close(s[0]));
    OK(klaw_fd_close(s[1]));
}

RUNS(everyone_who_waits_for_one_direction_is_told, 2) {
    int p[2];
    klaw_fiber *f[10];
    pipe_make(p);
    wait_for w = {p[0], KLAW_READ, KLAW_WITHIN(SOON_NS)};
    for (int i = 0; i < 10; i++)
        f[i] = fiber_with((klaw_fiber_opts){.name = "w"}, waits, &w);
    UNTIL(waiting("w", "fd") == 10);
    put(p[1], "x");
    for (int i = 0; i < 10; i++)
        OK(result_of(f[i]));
    pipe_free(p);
}

RUNS(a_wait_that_ended_early_disturbs_no_later_one, 2) {
    int p[2];
    pipe_make(p);
    for (int i = 0; i < 50; i++) { /* each leaves its registration behind */
        char c;
        size_t n;
        GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_US(50))), KLAW_TIMEOUT);
        put(p[1], "x");
        OK(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(SOON_NS)));
        OK(klaw_fd_read(p[0], &c, 1, &n, KLAW_NOWAIT, NULL));
        SAME(n, 1);
    }
    pipe_free(p);
}

/* --- closing --- */
static void close_wakes(klaw_err (*how)(int)) {
    int p[2];
    klaw_fiber *f[3];
    thread_job t;
    klaw_scope *s = SCOPE(0);
    pipe_make(p);
    wait_for w = {p[0], KLAW_READ, KLAW_FOREVER},
             both = {p[0], KLAW_READ | KLAW_WRITE, KLAW_FOREVER};
    for (int i = 0; i < 3; i++)
        f[i] = fiber_with((klaw_fiber_opts){.name = "w"}, waits, i ? &w : &both);
    thread_start(&t, waits, &w);
    UNTIL(waiting("w", "fd") == 3);
    compute(
        KLAW_MS(2)); /* the thread is most likely in its wait; else it finds the number closed */
    OK(how(p[0]));
    for (int i = 0; i < 3; i++)
        GIVES(result_of(f[i]), KLAW_CLOSED);
    klaw_err e = thread_end(&t);
    CHECK(e == KLAW_CLOSED || e == KLAW_INVALID);
    OK(klaw_fd_close(p[1]));
    GIVES(klaw_scope_close(s), KLAW_CLOSED);
}

RUNS(close_wakes_who_waits, 2) {
    for (int i = 0; i < 10; i++)
        close_wakes(klaw_fd_close);
}

RUNS(a_number_is_used_again_after_a_close, 2) {
    int p[2], q[2];
    char c;
    size_t n;
    for (int i = 0; i < 100; i++) {
        klaw_scope *s = SCOPE(0);
        pipe_make(p);
        wait_for w = {p[0], KLAW_READ, KLAW_FOREVER};
        klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "w"}, waits, &w);
        UNTIL(waiting("w", "fd") == 1);
        OK(klaw_fd_close(p[0]));
        pipe_make(q);
        CHECK(q[0] == p[0]);
        put(q[1], "y"); /* the old waiter gets nothing of the new pipe */
        GIVES(result_of(f), KLAW_CLOSED);
        OK(klaw_fd_read(q[0], &c, 1, &n, KLAW_WITHIN(SOON_NS), NULL));
        CHECK(n == 1 && c == 'y');
        GIVES(klaw_fd_wait(q[0], KLAW_READ, KLAW_WITHIN(KLAW_US(10))), KLAW_TIMEOUT);
        pipe_free(q);
        OK(klaw_fd_close(p[1]));
        GIVES(klaw_scope_close(s), KLAW_CLOSED);
    }
}

RUNS(a_number_closed_behind_klaws_back_can_be_waited_for_again, 2) {
    int p[2];
    for (int i = 0; i < 50; i++) {
        pipe_make(p);
        GIVES(klaw_fd_wait(p[0], KLAW_READ, KLAW_WITHIN(KLAW_US(10))), KLAW_TIMEOUT);
        close(p[0]);
        close(p[1]);
        pipe_make(p);
        wait_for w = {p[0], KLAW_READ, KLAW_WITHIN(SOON_NS)};
        klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "w"}, waits, &w);
        UNTIL(waiting("w", "fd") == 1);
        put(p[1], "x");
        OK(result_of(f));
        pipe_free(p);
    }
}

/* --- reading and writing --- */
typedef struct stream {
    int fd;
    size_t total, piece;
} stream;

static klaw_err writes_a_stream(void *arg) {
    stream *s = arg;
    static char block[100000];
    size_t n;
    for (size_t at = 0; at < s->total; at += s->piece) {
        for (size_t i = 0; i < s->piece; i++)
            block[i] = (char)((at + i) * 31);
        OK(klaw_fd_write(s->fd, block, s->piece, &n, KLAW_WITHIN(SOON_NS), NULL));
        SAME(n, s->piece);
    }
    return klaw_fd_close(s->fd);
}

RUNS(a_stream_arrives_whole_and_in_order, 2) {
    static const size_t pieces[] = {1, 100, 4096, 100000};
    for (int k = 0; k < 4; k++) {
        int p[2];
        char buf[5000];
        size_t n, at = 0;
        pipe_make(p);
        stream s = {p[1], pieces[k] * (k ? 40 : 2000), pieces[k]};
        klaw_fiber *f = fiber(writes_a_stream, &s);
        do {
            OK(klaw_fd_read(p[0], buf, sizeof buf, &n, KLAW_WITHIN(SOON_NS), NULL));
            for (size_t i = 0; i < n; i++)
                CHECK(buf[i] == (char)((at + i) * 31));
            at += n;
        } while (n > 0); /* 0: the end */
        SAME(at, s.total);
        OK(result_of(f));
        OK(klaw_fd_read(p[0], buf, sizeof buf, &n, KLAW_FOREVER, NULL)); /* and again */
        SAME(n, 0);
        OK(klaw_fd_close(p[0]));
    }
}

RUNS(a_write_that_times_out_says_how_much_went, 2) {
    int p[2];
    static char block[1 << 20];
    size_t n = 1;
    pipe_make(p);
    GIVES(klaw_fd_write(p[1], block, sizeof block, &n, KLAW_WITHIN(KLAW_MS(2)), NULL),
          KLAW_TIMEOUT);
    CHECK(n > 0 && n < sizeof block);
    size_t before = n;
    GIVES(klaw_fd_write(p[1], block, sizeof block, &n, KLAW_NOWAIT, NULL), KLAW_EMPTY);
    SAME(n, 0);
    for (size_t at = 0; at < before; at += n)
        OK(klaw_fd_read(p[0], block, sizeof block, &n, KLAW_NOWAIT, NULL));
    GIVES(klaw_fd_read(p[0], block, sizeof block, &n, KLAW_NOWAIT, NULL), KLAW_EMPTY);
    OK(klaw_fd_write(p[1], NULL, 0, &n, KLAW_NOWAIT, NULL));
    OK(klaw_fd_write(p[1], "x", 1, NULL, KLAW_NOWAIT, NULL));
    pipe_free(p);
}

static klaw_err writes_forever(void *arg) {
    static char block[1 << 20];
    return klaw_fd_write(*(int *)arg, block, sizeof block, NULL, KLAW_FOREVER, NULL);
}

RUNS(a_write_is_cancelled, 2) {
    int p[2];
    pipe_make(p);
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "w"}, writes_forever, &p[1]);
    UNTIL(waiting("w", "fd") == 1);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
    pipe_free(p);
}

/* --- regular files --- */
RUNS(a_regular_file_is_always_ready_and_is_read_on_the_pool, 2) {
    char name[] = "/tmp/klaw-test-XXXXXX", buf[64] = "";
    size_t n = 0;
    int fd = mkstemp(name);
    CHECK(fd >= 0);
    unlink(name);
    OK(klaw_fd_wait(fd, KLAW_READ, KLAW_FOREVER));
    OK(klaw_fd_wait(fd, KLAW_READ | KLAW_WRITE, KLAW_NOWAIT));
    OK(klaw_fd_write(fd, "hello", 5, &n, KLAW_FOREVER, NULL));
    SAME(n, 5);
    SAME(lseek(fd, 0, SEEK_SET), 0);
    OK(klaw_fd_read(fd, buf, sizeof buf, &n, KLAW_FOREVER, NULL));
    SAME(n, 5);
    assert_string_equal(buf, "hello");
    OK(klaw_fd_read(fd, buf, sizeof buf, &n, KLAW_FOREVER, NULL));
    SAME(n, 0);
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0); /* left as it was */
    OK(klaw_fd_close(fd));
}

RUNS(errors_of_the_system_are_told, 1) {
    klaw_error_info info = {.sys = 7};
    char c;
    size_t n;
    int p[2], dir = open("/", O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0);
    GIVES(klaw_fd_read(dir, &c, 1, &n, KLAW_FOREVER, &info), KLAW_SYSTEM);
    SAME(info.sys, EISDIR);
    CHECK(strstr(info.message, "read") != NULL);
    GIVES(klaw_fd_read(dir, &c, 1, &n, KLAW_FOREVER, NULL), KLAW_SYSTEM); /* info may be left out */
    OK(klaw_fd_close(dir));
    signal(SIGPIPE, SIG_IGN);
    pipe_make(p);
    OK(klaw_fd_close(p[0]));
    GIVES(klaw_fd_write(p[1], "x", 1, &n, KLAW_FOREVER, &info), KLAW_SYSTEM);
    SAME(info.sys, EPIPE);
    OK(klaw_fd_close(p[1]));
    signal(SIGPIPE, SIG_DFL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_fiber_waits_until_a_descriptor_is_ready),
        TEST(waits_time_out),
        TEST(threads_wait_without_a_runtime),
        TEST(bad_arguments_are_refused),
        TEST(one_descriptor_is_waited_for_in_both_directions),
        TEST(everyone_who_waits_for_one_direction_is_told),
        TEST(a_wait_that_ended_early_disturbs_no_later_one),
        TEST(close_wakes_who_waits),
        TEST(a_number_is_used_again_after_a_close),
        TEST(a_number_closed_behind_klaws_back_can_be_waited_for_again),
        TEST(a_stream_arrives_whole_and_in_order),
        TEST(a_write_that_times_out_says_how_much_went),
        TEST(a_write_is_cancelled),
        TEST(a_regular_file_is_always_ready_and_is_read_on_the_pool),
        TEST(errors_of_the_system_are_told),
    };
    return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
