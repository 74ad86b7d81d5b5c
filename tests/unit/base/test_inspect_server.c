/* SPDX-License-Identifier: Apache-2.0 */
/* test_inspect_server.c - the socket of inspection, asked by good and by bad readers. Tried with these
 * bugs: who asks nothing is never dropped from the 16 places; the answer's last byte is not counted; a
 * second request in one segment is lost; the child of a fork takes its parent's socket away; a folder with
 * mode 0755 is taken; the child of a fork keeps its parent's connections. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/inspect.h"
#include "support/child.h"
#include "support/runs.h"

static char folder[64];
static char path[108];

static int call(void) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    SAME(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    struct timeval patience = {.tv_sec = 60};
    SAME(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    return fd;
}

static void say(int fd, const char *text) {
    SAME(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* One line, without its newline; "" at the end of the connection. */
static void line(int fd, char *out, size_t size) {
    size_t n = 0;
    while (n + 1 < size && recv(fd, out + n, 1, 0) == 1 && out[n] != '\n')
        n++;
    out[n] = 0;
}

/* The JSON of an answer; freed by the caller. */
static char *json(int fd, size_t *size) {
    char head[128], *end;
    line(fd, head, sizeof head);
    CHECK(strncmp(head, "klaw/1 ok ", 10) == 0);
    *size = strtoul(head + 10, &end, 10);
    CHECK(*end == 0 && *size > 2);
    char *text = malloc(*size + 1);
    for (size_t n = 0; n < *size;) {
        ssize_t got = recv(fd, text + n, *size - n, 0);
        CHECK(got > 0);
        n += (size_t)got;
    }
    text[*size] = 0;
    CHECK(text[0] == '{' && text[*size - 2] == '}' && text[*size - 1] == '\n');
    return text;
}

static void has(int fd, const char *request, const char *part) {
    size_t size;
    say(fd, request);
    char *text = json(fd, &size);
    CHECK(strstr(text, part));
    free(text);
}

static void told(int fd, const char *start) {
    char text[256];
    line(fd, text, sizeof text);
    if (strncmp(text, start, strlen(start)) != 0)
        check_failed(__FILE__, __LINE__, start, text);
}

static void ended(int fd) {
    char byte;
    SAME(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

static void server(void) {
    OK(klaw_inspect_open(NULL));
    OK(klaw_inspect_path(path, sizeof path));
}

/* ---- */

PLAIN(each_request_has_its_answer) {
    server();
    int fd = call();
    has(fd, "klaw/1 snapshot\n", "\"channels\":[");
    has(fd, "klaw/1 waits\n", "\"endpoints\":[");
    has(fd, "klaw/1 stats\n", "\"program\":\"unit_base_test_inspect_server\"");
    has(fd, "klaw/1 look\n", "{}");
    size_t size;
    say(fd, "klaw/1 waits\n");
    char *text = json(fd, &size);
    CHECK(!strstr(text, "\"workers\""));
    free(text);
    close(fd);
    klaw_inspect_close();
}

PLAIN(requests_may_come_in_pieces_and_several_at_once) {
    size_t size;
    server();
    int fd = call();
    say(fd, "kla");
    say(fd, "w/1 st");
    say(fd, "ats\nklaw/1 stats\nklaw/1 what\nklaw/1 waits\n");
    free(json(fd, &size));
    free(json(fd, &size));
    told(fd, "klaw/1 error unknown ");
    free(json(fd, &size));
    close(fd);
    klaw_inspect_close();
}

PLAIN(wrong_requests_are_told_and_end_the_connection) {
    static const char *const versions[] = {"klaw/2 stats\n", "GET / HTTP/1.1\n", "\n",
                                           "stats\n",        "klaw/1\n",         "\xff\xfe\n"};
    char text[512];
    server();
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        int fd = call();
        say(fd, versions[i]);
        told(fd, "klaw/1 error version ");
        ended(fd);
    }
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    int fd = call();
    say(fd, text);
    told(fd, "klaw/1 error long ");
    ended(fd);
    fd = call();
    SAME(send(fd, "klaw/1 st\0ats\n", 14, MSG_NOSIGNAL), 14);
    told(fd, "klaw/1 error unknown ");
    has(fd, "klaw/1 stats\n", "\"protocol\":1");
    close(fd);
    klaw_inspect_close();
}

#define MANY 1500
PLAIN(a_slow_reader_keeps_nobody_waiting) {
    klaw_sender *tx[MANY];
    klaw_receiver *rx[MANY];
    size_t size, once = 0;
    server();
    for (int i = 0; i < MANY; i++)
        OK(klaw_channel(&klaw_u64, NULL, &tx[i], &rx[i]));
    int slow = call(), quick = call(), dies = call();
    say(slow, "klaw/1 snapshot\n"); /* larger than the socket's buffer */
    say(dies, "klaw/1 snapshot\n");
    for (int i = 0; i < 3; i++) {
        say(quick, "klaw/1 snapshot\n");
        free(json(quick, &once));
    }
    CHECK(once > 500000);
    close(dies); /* in the middle of its answer */
    free(json(slow, &size));
    has(slow, "klaw/1 stats\n", "\"channels\":1500,");
    close(slow);
    close(quick);
    for (int i = 0; i < MANY; i++) {
        klaw_sender_unref(tx[i]);
        klaw_receiver_unref(rx[i]);
    }
    klaw_inspect_close();
}

PLAIN(the_seventeenth_reader_is_told_to_come_later) {
    int fds[16];
    server();
    for (int i = 0; i < 16; i++) {
        fds[i] = call();
        has(fds[i], "klaw/1 stats\n", "\"pid\":");
    }
    int fd = call();
    told(fd, "klaw/1 error busy ");
    ended(fd);
    close(fds[7]);
    for (bool served = false; !served;) { /* the server has yet to see that one left */
        char text[128];
        fd = call();
        if (send(fd, "klaw/1 stats\n", 13, MSG_NOSIGNAL) == 13) {
            line(fd, text, sizeof text);
            served = strncmp(text, "klaw/1 ok", 9) == 0;
        }
        close(fd);
    }
    for (int i = 0; i < 16; i++)
        if (i != 7)
            close(fds[i]);
    klaw_inspect_close();
}

PLAIN(only_its_user_gets_at_the_socket) {
    struct stat st;
    char in[80];
    server();
    SAME(stat(path, &st), 0);
    SAME(st.st_mode & 0777, 0600);
    snprintf(in, sizeof in, "%s/klaw", folder);
    SAME(stat(in, &st), 0);
    SAME(st.st_mode & 0777, 0700);
    klaw_inspect_close();
    CHECK(stat(path, &st) != 0 && errno == ENOENT);
}

PLAIN(a_folder_that_others_may_enter_is_refused) {
    klaw_error_info info = {0};
    char in[80];
    snprintf(in, sizeof in, "%s/klaw", folder);
    OK(klaw_inspect_open(NULL));
    klaw_inspect_close();
    SAME(chmod(in, 0755), 0);
    GIVES(klaw_inspect_open(&info), KLAW_SYSTEM);
    CHECK(strstr(info.message, in) && strstr(info.message, "0700"));
    SAME(rmdir(in), 0);
    SAME(symlink("/tmp", in), 0);
    GIVES(klaw_inspect_open(&info), KLAW_SYSTEM);
    SAME(unlink(in), 0);
    int fd = open(in, O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    GIVES(klaw_inspect_open(&info), KLAW_SYSTEM);
    SAME(unlink(in), 0);
    CHECK(!klawi_inspecting());
}

PLAIN(opening_and_closing_are_idempotent) {
    char first[108];
    GIVES(klaw_inspect_path(first, sizeof first), KLAW_NOT_FOUND);
    klaw_inspect_close();
    server();
    OK(klaw_inspect_open(NULL));
    GIVES(klaw_inspect_path(first, 3), KLAW_LIMIT);
    GIVES(klaw_inspect_path(NULL, 3), KLAW_INVALID);
    int fd = call();
    has(fd, "klaw/1 stats\n", "\"version\":");
    klaw_inspect_close();
    klaw_inspect_close();
    ended(fd);
    server();
    fd = call();
    has(fd, "klaw/1 stats\n", "\"version\":");
    close(fd);
    klaw_inspect_close();
}

PLAIN(the_child_of_a_fork_has_no_socket_and_leaves_its_parents) {
    struct stat st;
    int status;
    server();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char mine[108];
        bool none = klaw_inspect_path(mine, sizeof mine) == KLAW_NOT_FOUND && !klawi_inspecting();
        klaw_inspect_close();
        exit(none ? 0 : 1); /* with its exit handlers */
    }
    SAME(waitpid(pid, &status, 0), pid);
    if (!child_on_valgrind())
        SAME(status, 0);
    SAME(stat(path, &st), 0);
    int fd = call();
    has(fd, "klaw/1 stats\n", "\"pid\":");
    close(fd);
    klaw_inspect_close();
}

PLAIN(the_child_of_a_fork_keeps_no_connection_open) {
    int status, hold[2];
    char byte;
    server();
    int fd = call();
    has(fd, "klaw/1 stats\n", "\"pid\":"); /* the server has accepted it */
    SAME(pipe(hold), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(fd);
        close(hold[1]);
        (void)!read(hold[0], &byte, 1);
        _exit(0);
    }
    close(hold[0]);
    klaw_inspect_close();
    SAME(recv(fd, &byte, 1, 0),
         0); /* the end, though the child lives: a time-out if it holds the other side */
    close(fd);
    close(hold[1]);
    SAME(waitpid(pid, &status, 0), pid);
    SAME(status, 0);
}

PLAIN(without_memory_nothing_is_left) {
    for (uint64_t n = 1;; n++) {
        klaw_error_info info = {0};
        klaw_alloc_fail_at(n, false);
        klaw_err e = klaw_inspect_open(&info);
        klaw_alloc_fail_at(0, false);
        if (e == KLAW_OK)
            break;
        CHECK(e == KLAW_NOMEM || e == KLAW_SYSTEM);
        CHECK(*info.message && !klawi_inspecting());
        CHECK(n < 50);
    }
    klaw_inspect_close();
}

PLAIN(the_environment_and_the_options_open_it) {
    klaw_config config;
    klaw_error_info info = {0};
    SAME(setenv("KLAW_INSPECT", "yes", 1), 0);
    GIVES(klaw_init(NULL, &info), KLAW_INVALID);
    CHECK(strstr(info.message, "KLAW_INSPECT"));
    SAME(setenv("KLAW_INSPECT", "1", 1), 0);
    OK(klaw_init(NULL, NULL));
    CHECK(klawi_inspecting());
    OK(klaw_config_get(&config, NULL));
    CHECK(config.inspect);
    SAME(config.inspect_source, KLAW_SOURCE_ENVIRONMENT);
    klaw_deinit();
    CHECK(!klawi_inspecting());
    SAME(unsetenv("KLAW_INSPECT"), 0);
    OK(klaw_init(&(klaw_init_opts){.inspect = true}, NULL));
    CHECK(klawi_inspecting());
    klaw_deinit();
    OK(klaw_run(returns_ok, NULL, &(klaw_run_opts){.workers = 1, .inspect = true}));
    CHECK(klawi_inspecting());
    klaw_inspect_close();
}

/* ---- what is noted meanwhile ---- */

static const klaw_channel_stats *channel_in(const klaw_snapshot *snap, uint64_t id) {
    size_t n;
    const klaw_channel_stats *c = klaw_snapshot_channels(snap, &n);
    while (n > 0 && c->id != id) {
        c++;
        n--;
    }
    CHECK(n > 0);
    return c;
}

static void ages(bool one_to_one) {
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_channel_stats s;
    klaw_snapshot *snap;
    uint64_t v = 1;
    OK(klaw_inspect_open(NULL));
    OK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.one_to_one = one_to_one}, &tx, &rx));
    OK(klaw_sender_stats(tx, &s));
    CHECK(s.oldest_age == KLAW_NONE);
    OK(klaw_send(tx, &v, KLAW_NOWAIT));
    OK(klaw_sleep(KLAW_WITHIN(KLAW_MS(20))));
    OK(klaw_send(tx, &v, KLAW_NOWAIT));
    OK(klaw_snapshot_take(&snap));
    CHECK(channel_in(snap, s.id)->oldest_age >= KLAW_MS(20));
    klaw_snapshot_free(snap);
    OK(klaw_recv(rx, &v, KLAW_NOWAIT));
    OK(klaw_recv(rx, &v, KLAW_NOWAIT));
    OK(klaw_sender_stats(tx, &s));
    CHECK(s.oldest_age == KLAW_NONE);
    OK(klaw_send(tx, &v, KLAW_NOWAIT));
    OK(klaw_sender_stats(tx, &s));
    CHECK(s.oldest_age >= 0 && s.oldest_age < KLAW_S(50));
    klaw_inspect_close();
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
}

PLAIN(the_oldest_element_has_an_age) {
    ages(false);
    ages(true);
}

static klaw_err sends_and_waits(void *arg) {
    klaw_sender *tx = arg;
    uint64_t v = 7;
    OK(klaw_send(tx, &v, KLAW_FOREVER));
    GIVES(klaw_send(tx, &v, KLAW_FOREVER), KLAW_CLOSED);
    return KLAW_OK;
}

RUNS(who_waits_and_who_holds_is_told, 1) {
    klaw_sender *tx;
    klaw_receiver *rx;
    klaw_snapshot *snap;
    size_t n;
    OK(klaw_inspect_open(NULL));
    OK(klaw_channel(&klaw_u64, &(klaw_channel_opts){.capacity = 1}, &tx, &rx));
    klaw_fiber *f = fiber_with((klaw_fiber_opts){.name = "sender"}, sends_and_waits, tx);
    UNTIL(waiting("sender", "send") == 1);
    OK(klaw_snapshot_take(&snap));
    const klaw_wait_info *w = klaw_snapshot_waits(snap, &n);
    SAME(n, 1);
    CHECK(w->sends && w->host == KLAW_HOST_FIBER);
    const klaw_endpoint_info *e = klaw_snapshot_endpoints(snap, &n);
    SAME(n, 2);
    const klaw_endpoint_info *of_tx = e[0].sender ? &e[0] : &e[1];
    const klaw_endpoint_info *of_rx = e[0].sender ? &e[1] : &e[0];
    SAME(of_tx->host_id, w->host_id);
    CHECK(of_tx->used && of_tx->host == KLAW_HOST_FIBER);
    SAME(of_rx->host_id, klaw_self_id());
    CHECK(!of_rx->used);
    const klaw_fiber_info *fibers = klaw_snapshot_fibers(snap, &n);
    for (size_t i = 0; i < n; i++)
        if (fibers[i].id == w->host_id)
            CHECK(!fibers[i].timed && fibers[i].waits > 0);
    klaw_snapshot_free(snap);
    klaw_receiver_unref(rx);
    OK(result_of(f));
    klaw_sender_unref(tx);
    klaw_inspect_close();
}

static klaw_err sleeps_long(void *arg) {
    (void)arg;
    return klaw_sleep(KLAW_WITHIN(KLAW_S(1000)));
}

RUNS(a_wait_with_a_deadline_says_so, 1) {
    klaw_snapshot *snap;
    size_t n, timed = 0;
    klaw_fiber *f = fiber(sleeps_long, NULL);
    UNTIL(waiting("fiber", "sleep") == 1);
    OK(klaw_snapshot_take(&snap));
    const klaw_fiber_info *fibers = klaw_snapshot_fibers(snap, &n);
    for (size_t i = 0; i < n; i++)
        timed += fibers[i].timed && strcmp(fibers[i].waiting_on, "sleep") == 0;
    SAME(timed, 1);
    klaw_snapshot_free(snap);
    klaw_fiber_cancel(f);
    GIVES(result_of(f), KLAW_CANCELLED);
}

static int in_a_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/klaw-test-XXXXXX");
    return !mkdtemp(folder) || setenv("XDG_RUNTIME_DIR", folder, 1) != 0 ||
           unsetenv("KLAW_INSPECT") != 0;
}

static int out_of_it(void **state) {
    char in[80];
    (void)state;
    snprintf(in, sizeof in, "%s/klaw", folder);
    rmdir(in);
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(each_request_has_its_answer),
        TEST(requests_may_come_in_pieces_and_several_at_once),
        TEST(wrong_requests_are_told_and_end_the_connection),
        TEST(a_slow_reader_keeps_nobody_waiting),
        TEST(the_seventeenth_reader_is_told_to_come_later),
        TEST(only_its_user_gets_at_the_socket),
        TEST(a_folder_that_others_may_enter_is_refused),
        TEST(opening_and_closing_are_idempotent),
        TEST(the_child_of_a_fork_has_no_socket_and_leaves_its_parents),
        TEST(the_child_of_a_fork_keeps_no_connection_open),
        TEST(without_memory_nothing_is_left),
        TEST(the_environment_and_the_options_open_it),
        TEST(the_oldest_element_has_an_age),
        TEST(who_waits_and_who_holds_is_told),
        TEST(a_wait_with_a_deadline_says_so),
    };
    return cmocka_run_group_tests(tests, in_a_folder, out_of_it);
}
