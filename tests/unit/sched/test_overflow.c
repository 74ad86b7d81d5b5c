/* SPDX-License-Identifier: Apache-2.0 */
/* test_overflow.c - a stack overflow ends the process, by SIGSEGV at the guard page or by abort at
 * the canary, and names the fiber.
 *
 * Each case is a child process. Sanitizers report faults themselves, so there only the children
 * that end well are looked at. */
#include "support/child.h"
#include "support/runs.h"

static __attribute__((noinline)) int falls(int depth) {
    volatile char frame[256];
    frame[0] = (char)depth;
    if (depth == 0)
        return 0;
    return falls(depth - 1) + frame[0];
}

static klaw_err overflows(void *arg) {
    (void)arg;
    volatile int forever = 1 << 30;
    return (klaw_err)falls(forever);
}

static klaw_err overflows_after_a_while(void *arg) {
    OK(klaw_sleep(KLAW_WITHIN(KLAW_US(10))));
    OK(klaw_yield());
    return overflows(arg);
}

static klaw_err spawns(klaw_fiber_opts o, klaw_err (*fn)(void *)) {
    return klaw_spawn(NULL, fn, NULL, &o, NULL);
}

static klaw_err guarded(void *arg) {
    (void)arg;
    for (int i = 0; i < 50; i++) /* others run before and beside it */
        OK(klaw_go(returns_ok, NULL));
    return spawns((klaw_fiber_opts){.name = "the deep one"}, overflows_after_a_while);
}

static klaw_err small(void *arg) {
    (void)arg;
    return spawns((klaw_fiber_opts){.name = "the deep one", .stack_size = 16 * 1024}, overflows);
}

/* Writes over the lowest bytes of its own stack, as an overflow would, and goes on. */
static klaw_err writes_over_the_canary(void *arg) {
    volatile char here = 0;
    uintptr_t end = ((uintptr_t)&here | 4095) + 1; /* we are in the first page of our stack */
    (void)arg;
    for (size_t i = 0; i < 64; i++)
        ((volatile char *)(end - 64 * 1024))[i] = here;
    OK(klaw_yield());
    return KLAW_OK;
}

static klaw_err unguarded(void *arg) {
    klaw_fiber_opts o = {.name = "the deep one", .stack_size = 64 * 1024, .unguarded = true};
    (void)arg;
    return spawns(o, writes_over_the_canary);
}

static klaw_err (*main_fn)(void *);

static int runs(void) {
    klaw_run_opts o = {.workers = 2};
    return klaw_run(main_fn, NULL, &o) == KLAW_OK ? 0 : 1;
}

static void dies(klaw_err (*fn)(void *), int sig, const char *more) {
    main_fn = fn;
    child_end c = child_of(runs);
    if (!WIFSIGNALED(c.status) || WTERMSIG(c.status) != sig || !strstr(c.text, more) ||
        !strstr(c.text, "the deep one")) {
        fprintf(stderr, "status %#x, signal %d; it wrote:\n%s\n", c.status, WTERMSIG(c.status),
                c.text);
        fail();
    }
}

static void an_overflow_is_told_with_the_fibers_name(void **state) {
    (void)state;
    if (SANITIZED)
        skip();
    dies(guarded, SIGSEGV, "stack overflow");
    dies(guarded, SIGSEGV, "256 KiB");
    dies(small, SIGSEGV, "16 KiB");
}

static void a_canary_that_is_gone_is_told_with_the_fibers_name(void **state) {
    (void)state;
    if (SANITIZED)
        skip();
    dies(unguarded, SIGABRT, "unguarded");
}

/* --- other faults go where they went before --- */
static void handler(int sig) {
    (void)sig;
    if (write(STDERR_FILENO, "my handler: the deep one", 24) < 0)
        _exit(1);
    _exit(7);
}

static klaw_err faults(void *arg) {
    volatile uintptr_t number = 16; /* the compiler must not know */
    volatile int *nowhere = (volatile int *)number;
    (void)arg;
    *nowhere = 1;
    return KLAW_OK;
}

static int faults_with_a_handler(void) {
    signal(SIGSEGV, handler);
    return klaw_run(faults, NULL, NULL) == KLAW_OK ? 0 : 1;
}

static int faults_without_one(void) {
    signal(SIGSEGV, SIG_DFL); /* not the test framework's */
    return klaw_run(faults, NULL, NULL) == KLAW_OK ? 0 : 1;
}

static void another_fault_is_not_taken_for_an_overflow(void **state) {
    (void)state;
    if (SANITIZED)
        skip();
    child_end c = child_of(faults_with_a_handler);
    assert_true(WIFEXITED(c.status) && WEXITSTATUS(c.status) == 7);
    assert_null(strstr(c.text, "overflow"));
    c = child_of(faults_without_one);
    assert_true(WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGSEGV);
    assert_null(strstr(c.text, "overflow"));
}

static klaw_err needs_much(void *arg) {
    (void)arg;
    return (klaw_err)(falls(100) * 0);
}

static klaw_err uses_stacks(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++)
        OK(spawns((klaw_fiber_opts){.unguarded = i % 2, .stack_size = 1 << 20}, needs_much));
    return KLAW_OK;
}

static void a_stack_that_is_large_enough_is_not_told_of(void **state) {
    (void)state;
    main_fn = uses_stacks;
    child_end c = child_of(runs);
    assert_true(WIFEXITED(c.status) && WEXITSTATUS(c.status) == 0);
    assert_null(strstr(c.text, "overflow"));
}

int main(void) {
    if (child_on_valgrind()) {
        puts("skipped: valgrind looks for leaks in the children and changes their exit codes");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_overflow_is_told_with_the_fibers_name),
        cmocka_unit_test(a_canary_that_is_gone_is_told_with_the_fibers_name),
        cmocka_unit_test(another_fault_is_not_taken_for_an_overflow),
        cmocka_unit_test(a_stack_that_is_large_enough_is_not_told_of),
    };
    return cmocka_run_group_tests_name("overflow", tests, NULL, NULL);
}
