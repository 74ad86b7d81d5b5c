/* SPDX-License-Identifier: Apache-2.0 */
/* test_log.c - levels, sinks and hooks of the log. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "klaw/alloc.h"
#include "unit/base/log_sink.h"

/* ---- levels ---- */

static void log_is_silent_by_default(void **state) {
    (void)state;
    /* The first of all tests: nothing was set in this process. */
    assert_int_equal(klaw_log_get_level(), KLAW_LEVEL_OFF);
    for (int level = -1; level <= 6; level++)
        assert_false(level >= KLAW_LEVEL_ERROR && klaw_log_on((klaw_log_level)level));
    sink = memfd_create("log", 0);
    klaw_log_set_fd(sink);
    KLAW_LOG_ERROR("nobody asked");
    klaw_log_write(KLAW_LEVEL_ERROR, "nobody asked", NULL, 0);
    klaw_log_write(KLAW_LEVEL_OFF, "no level at all", NULL, 0);
    assert_string_equal(taken(), "");
    close_sink(state);
}

static int evaluated;
static const char *evaluate(void) {
    evaluated++;
    return "x";
}

static void log_writes_what_is_grave_enough(void **state) {
    (void)state;
    for (int set = KLAW_LEVEL_OFF; set <= KLAW_LEVEL_TRACE; set++) {
        klaw_log_set_level((klaw_log_level)set);
        assert_int_equal(klaw_log_get_level(), set);
        for (int level = KLAW_LEVEL_ERROR; level <= KLAW_LEVEL_TRACE; level++) {
            evaluated = 0;
            KLAW_LOG((klaw_log_level)level, "m", klaw_log_str("k", evaluate()));
            assert_int_equal(evaluated, level <= set);
            assert_int_equal(strlen(taken()) > 0, level <= set);
            if (level <= set)
                assert_string_equal(got("level"), klaw_log_level_name(level));
        }
        klaw_log_write(KLAW_LEVEL_OFF, "off is no level", NULL, 0);
        klaw_log_write((klaw_log_level)-3, "nor is this", NULL, 0);
        klaw_log_write((klaw_log_level)6, "nor this", NULL, 0);
        assert_string_equal(taken(), "");
    }
    klaw_log_set_level((klaw_log_level)77);
    assert_int_equal(klaw_log_get_level(), KLAW_LEVEL_OFF);
}

static void log_macros_have_their_levels(void **state) {
    (void)state;
    KLAW_LOG_ERROR("m");
    assert_true(strstr(taken(), "\"level\":\"error\"") != NULL);
    KLAW_LOG_WARN("m");
    assert_true(strstr(taken(), "\"level\":\"warn\"") != NULL);
    KLAW_LOG_INFO("m");
    assert_true(strstr(taken(), "\"level\":\"info\"") != NULL);
    KLAW_LOG_DEBUG("m");
    assert_true(strstr(taken(), "\"level\":\"debug\"") != NULL);
    KLAW_LOG_TRACE("m");
    assert_true(strstr(taken(), "\"level\":\"trace\"") != NULL);
}

static void log_level_names_go_both_ways(void **state) {
    (void)state;
    klaw_log_level level = KLAW_LEVEL_OFF;
    for (int i = KLAW_LEVEL_OFF; i <= KLAW_LEVEL_TRACE; i++) {
        assert_int_equal(klaw_log_level_parse(klaw_log_level_name((klaw_log_level)i), &level), 0);
        assert_int_equal(level, i);
    }
    assert_int_equal(klaw_log_level_parse("WARN", &level), KLAW_OK);
    assert_int_equal(level, KLAW_LEVEL_WARN);
    assert_int_equal(klaw_log_level_parse("warning", &level), KLAW_INVALID);
    assert_int_equal(klaw_log_level_parse("war", &level), KLAW_INVALID);
    assert_int_equal(klaw_log_level_parse("", &level), KLAW_INVALID);
    assert_int_equal(klaw_log_level_parse(NULL, &level), KLAW_INVALID);
    assert_int_equal(klaw_log_level_parse("warn", NULL), KLAW_INVALID);
    assert_int_equal(level, KLAW_LEVEL_WARN);
    assert_string_equal(klaw_log_level_name((klaw_log_level)9), "?");
}

/* ---- sinks ---- */

static void log_counts_lines_it_can_not_write(void **state) {
    (void)state;
    uint64_t before = klaw_log_dropped();
    errno = 77;
    klaw_log_set_fd(1000000);
    KLAW_LOG_INFO("nowhere");
    assert_int_equal(klaw_log_dropped(), before + 1);
    klaw_log_set_fd(KLAW_NONE);
    KLAW_LOG_INFO("hooks alone");
    assert_int_equal(klaw_log_dropped(), before + 1);
    assert_int_equal(errno, 77);
}

static void log_drops_a_line_nobody_takes(void **state) {
    (void)state;
    int fds[2];
    char bytes[5000], block[4096];
    uint64_t before = klaw_log_dropped();
    memset(block, 'x', sizeof block);
    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    while (write(fds[1], block, sizeof block) > 0)
        ;
    klaw_log_set_fd(fds[1]);
    KLAW_LOG_INFO("lost after 100 ms");
    assert_int_equal(klaw_log_dropped(), before + 1);
    while (read(fds[0], bytes, sizeof bytes) > 0)
        ;
    KLAW_LOG_INFO("next");
    ssize_t n = read(fds[0], bytes, sizeof bytes);
    assert_true(n > 0);
    assert_true(json_valid(bytes, (size_t)n));
    klaw_log_set_fd(KLAW_NONE);
    close(fds[0]);
    close(fds[1]);
}

static void log_ends_a_line_that_broke_off(void **state) {
    (void)state;
    struct rlimit was, small;
    char bytes[5000];
    uint64_t before = klaw_log_dropped();
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = was;
    small.rlim_cur = 40; /* a full disk */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    klaw_log_set_fd(fileno(file));
    KLAW_LOG_INFO("broken off");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(klaw_log_dropped(), before + 1);
    KLAW_LOG_INFO("whole");
    KLAW_LOG_INFO("and the next");
    klaw_log_set_fd(KLAW_NONE);
    ssize_t n = pread(fileno(file), bytes, sizeof bytes - 1, 0);
    assert_true(n > 42);
    bytes[n] = 0;
    assert_int_equal(bytes[40], '\n');
    char *second = strchr(bytes + 41, '\n');
    assert_non_null(second);
    assert_true(json_valid(bytes + 41, (size_t)(second - bytes) - 41));
    assert_true(json_valid(second + 1, strlen(second + 1)));
    assert_non_null(strstr(bytes, "whole"));
    fclose(file);
}

static void *log_many(void *arg) {
    for (int i = 0; i < 500; i++)
        KLAW_LOG_INFO("from a thread", klaw_log_u64("who", (uintptr_t)arg), klaw_log_i64("i", i));
    return NULL;
}

static void log_lines_of_threads_do_not_mix(void **state) {
    (void)state;
    pthread_t threads[4];
    FILE *lines = tmpfile();
    char line[KLAW_LOG_LINE_MAX], value[64];
    int count = 0, next[4] = {0};
    assert_non_null(lines);
    assert_int_equal(fcntl(fileno(lines), F_SETFL, O_APPEND), 0);
    klaw_log_set_fd(fileno(lines));
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, (void *)i), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    klaw_log_set_fd(KLAW_NONE);
    rewind(lines);
    for (; fgets(line, sizeof line, lines); count++) {
        assert_true(json_get(line, strlen(line), "who", value, sizeof value));
        int *expected = &next[atoi(value)];
        assert_true(json_get(line, strlen(line), "i", value, sizeof value));
        assert_int_equal(atoi(value), (*expected)++);
    }
    assert_int_equal(count, 2000);
    fclose(lines);
}

static void log_allocates_nothing(void **state) {
    (void)state;
    klaw_alloc_fail_at(1, true);
    KLAW_LOG_INFO("m", klaw_log_str("k", "v"), klaw_log_f64("f", 0.1));
    assert_int_equal(klaw_alloc_points(), 0);
    klaw_alloc_fail_at(0, false);
    take_valid();
}

/* ---- hooks ---- */

static const klaw_trace some_trace = {{0xab, [15] = 0x01}, {0xcd, [7] = 0x02}, 1};
static const klaw_context_value some_values[] = {{"tenant", "acme corp"}, {"user", "u\"1"}};

static void fill_context(klaw_log_record *r) {
    r->request_id = "r-17";
    r->trace = &some_trace;
    r->values = some_values;
    r->n_values = 2;
}

static void fill_fiber(klaw_log_record *r) {
    r->fiber = "worker 3";
    r->fiber_id = 42;
}

struct seen {
    int calls, releases;
    uint64_t remove_me;
    klaw_log_record record;
    char message[64];
};

static void note(const klaw_log_record *record, void *user) {
    struct seen *s = user;
    s->calls++;
    s->record = *record;
    strncpy(s->message, record->message, sizeof s->message - 1);
}

static void released(void *user) {
    ((struct seen *)user)->releases++;
}

static void log_hooks_see_the_record(void **state) {
    (void)state;
    struct seen a = {0}, b = {0};
    uint64_t ids[2];
    atomic_store(&klawi_log_context, fill_context);
    atomic_store(&klawi_log_fiber, fill_fiber);
    klaw_log_set_fd(KLAW_NONE);
    assert_int_equal(klaw_log_hook_add(note, released, &a, &ids[0]), KLAW_OK);
    assert_int_equal(klaw_log_hook_add(note, NULL, &b, &ids[1]), KLAW_OK);
    KLAW_LOG_WARN("both", klaw_log_i64("n", 5));
    assert_int_equal(a.calls, 1);
    assert_int_equal(b.calls, 1);
    assert_int_equal(a.record.level, KLAW_LEVEL_WARN);
    assert_string_equal(a.message, "both");
    assert_int_equal(a.record.n_fields, 1);
    assert_int_equal(a.record.fiber_id, 42);
    assert_string_equal(a.record.fiber, "worker 3");
    assert_string_equal(a.record.request_id, "r-17");
    assert_ptr_equal(a.record.trace, &some_trace);
    assert_int_equal(a.record.n_values, 2);
    assert_true(a.record.time > 1700000000000000000);
    KLAW_LOG_INFO("no fields");
    assert_int_equal(a.record.n_fields, 0);
    assert_int_equal(klaw_log_hook_remove(ids[0]), KLAW_OK);
    assert_int_equal(a.releases, 1);
    assert_int_equal(klaw_log_hook_remove(ids[0]), KLAW_NOT_FOUND);
    KLAW_LOG_WARN("one");
    assert_int_equal(a.calls, 2);
    assert_int_equal(b.calls, 3);
    assert_int_equal(klaw_log_hook_remove(ids[1]), KLAW_OK);
    assert_int_equal(a.releases, 1);
}

static void log_hooks_have_a_limit_and_old_ids_find_nothing(void **state) {
    (void)state;
    struct seen s = {0};
    uint64_t ids[KLAW_LOG_HOOKS_MAX], more = 7;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < KLAW_LOG_HOOKS_MAX; i++) {
            assert_int_equal(klaw_log_hook_add(note, released, &s, &ids[i]), KLAW_OK);
            for (int k = 0; k < i; k++)
                assert_true(ids[k] != ids[i]);
        }
        assert_int_equal(klaw_log_hook_add(note, released, &s, &more), KLAW_LIMIT);
        assert_int_equal(more, 7);
        for (int i = 0; i < KLAW_LOG_HOOKS_MAX; i++)
            assert_int_equal(klaw_log_hook_remove(ids[i]), KLAW_OK);
    }
    assert_int_equal(s.releases, 3 * KLAW_LOG_HOOKS_MAX);
    assert_int_equal(klaw_log_hook_add(NULL, NULL, NULL, NULL), KLAW_INVALID);
    assert_int_equal(klaw_log_hook_remove(0), KLAW_NOT_FOUND);
    assert_int_equal(klaw_log_hook_remove(UINT64_MAX), KLAW_NOT_FOUND);
    assert_int_equal(klaw_log_hook_add(note, NULL, &s, &more), KLAW_OK);
    assert_int_equal(klaw_log_hook_remove(ids[0]), KLAW_NOT_FOUND);
    assert_int_equal(klaw_log_hook_remove(more), KLAW_OK);
}

static void log_again(const klaw_log_record *record, void *user) {
    struct seen *s = user;
    (void)record;
    s->calls++;
    KLAW_LOG_INFO("from the hook");
    if (s->remove_me)
        assert_int_equal(klaw_log_hook_remove(s->remove_me), KLAW_OK);
    assert_int_equal(s->releases, 0); /* not while it runs */
}

static void log_hook_may_log_and_remove_itself(void **state) {
    (void)state;
    struct seen s = {0};
    uint64_t id;
    assert_int_equal(klaw_log_hook_add(log_again, released, &s, &id), KLAW_OK);
    KLAW_LOG_INFO("first");
    assert_int_equal(s.calls, 1);
    ssize_t n = pread(sink, text, sizeof text - 1, 0);
    text[n] = 0;
    assert_non_null(strstr(text, "first"));
    assert_non_null(strstr(text, "from the hook"));
    s.remove_me = id;
    KLAW_LOG_INFO("second");
    assert_int_equal(s.calls, 2);
    assert_int_equal(s.releases, 1);
}

static _Atomic bool storm_over;
static _Atomic int storm_calls, storm_bad;

struct storm {
    _Atomic bool released;
};

static void storm_hook(const klaw_log_record *record, void *user) {
    struct storm *s = user;
    (void)record;
    atomic_fetch_add(&storm_calls, 1);
    if (atomic_load(&s->released))
        atomic_fetch_add(&storm_bad, 1);
}

static void storm_release(void *user) {
    struct storm *s = user;
    if (atomic_exchange(&s->released, true))
        atomic_fetch_add(&storm_bad, 1);
    free(s);
}

static void *storm_logger(void *arg) {
    (void)arg;
    while (!atomic_load(&storm_over))
        KLAW_LOG_INFO("storm");
    return NULL;
}

static void log_hooks_come_and_go_under_load(void **state) {
    (void)state;
    pthread_t threads[3];
    klaw_log_set_fd(KLAW_NONE);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm_logger, NULL), 0);
    for (int i = 0; i < 3000 || atomic_load(&storm_calls) < 100; i++) {
        struct storm *s = calloc(1, sizeof *s);
        uint64_t id;
        assert_int_equal(klaw_log_hook_add(storm_hook, storm_release, s, &id), KLAW_OK);
        assert_int_equal(klaw_log_hook_remove(id), KLAW_OK);
    }
    atomic_store(&storm_over, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(storm_bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_is_silent_by_default),
        T(log_writes_what_is_grave_enough),
        T(log_macros_have_their_levels),
        T(log_level_names_go_both_ways),
        T(log_counts_lines_it_can_not_write),
        T(log_drops_a_line_nobody_takes),
        T(log_ends_a_line_that_broke_off),
        T(log_lines_of_threads_do_not_mix),
        T(log_allocates_nothing),
        T(log_hooks_see_the_record),
        T(log_hooks_have_a_limit_and_old_ids_find_nothing),
        T(log_hook_may_log_and_remove_itself),
        T(log_hooks_come_and_go_under_load),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
