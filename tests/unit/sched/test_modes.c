/* SPDX-License-Identifier: Apache-2.0 */
/* test_modes.c - the fpenv option: rounding modes of their own. The cxx option: cxx_catch.cc. */
#include <fenv.h>

#include "support/runs.h"

/* 1/3 depends on the rounding mode; volatile keeps the compiler from dividing at compile time. */
static double third(void) {
    volatile double one = 1.0, three = 3.0;
    return one / three;
}

typedef struct mode {
    int round;
    double want;
    int rounds;
} mode;

static klaw_err keeps_its_mode(void *arg) {
    mode *m = arg;
    SAME(fegetround(), FE_TONEAREST); /* as every fiber starts */
    SAME(fesetround(m->round), 0);
    for (int i = 0; i < m->rounds; i++) {
        SAME(fegetround(), m->round);
        CHECK(third() == m->want);
        if (i % 3 == 0)
            OK(klaw_yield());
        else if (i % 3 == 1)
            OK(klaw_sleep(KLAW_WITHIN(KLAW_US(20))));
        else
            OK(klaw_blocking(returns_ok, NULL));
    }
    return KLAW_OK;
}

static klaw_err keeps_the_default(void *arg) {
    (void)arg;
    for (int i = 0; i < 300; i++) {
        SAME(fegetround(), FE_TONEAREST);
        OK(klaw_yield());
    }
    return KLAW_OK;
}

static void modes_are_kept(void) {
    static const int all[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    mode m[4];
    klaw_scope *s = SCOPE(0);
    klaw_fiber_opts o = {.fpenv = true};
    for (int i = 0; i < 4; i++) {
        m[i] = (mode){all[i], 0, 60};
        SAME(fesetround(all[i]), 0);
        m[i].want = third();
    }
    SAME(fesetround(FE_TONEAREST), 0);
    if (m[1].want == m[2].want) { /* valgrind divides to nearest, whatever the mode */
        OK(klaw_scope_close(s));
        return;
    }
    for (int i = 0; i < 20; i++) {
        OK(klaw_spawn(NULL, keeps_its_mode, &m[i % 4], &o, NULL));
        OK(klaw_go(keeps_the_default, NULL)); /* one that did not ask is not touched */
    }
    OK(klaw_scope_close(s));
    SAME(fegetround(), FE_TONEAREST);
}

RUNS(each_fiber_has_its_rounding_mode, 1) {
    modes_are_kept();
}
RUNS(each_fiber_has_its_rounding_mode_on_two_workers, 2) {
    modes_are_kept();
}

/* It ends with another mode than it began with: its successors don't get it. */
static klaw_err leaves_a_mode_behind(void *arg) {
    (void)arg;
    SAME(fesetround(FE_UPWARD), 0);
    return KLAW_OK;
}

RUNS(a_mode_ends_with_its_fiber, 1) {
    for (int i = 0; i < 100; i++) {
        OK(result_of(fiber_with((klaw_fiber_opts){.fpenv = true}, leaves_a_mode_behind, NULL)));
        SAME(fegetround(), FE_TONEAREST);
        OK(result_of(fiber(keeps_the_default, NULL)));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(each_fiber_has_its_rounding_mode),
        TEST(each_fiber_has_its_rounding_mode_on_two_workers),
        TEST(a_mode_ends_with_its_fiber),
    };
    return cmocka_run_group_tests_name("modes", tests, NULL, NULL);
}
