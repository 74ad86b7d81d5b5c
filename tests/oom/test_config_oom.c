/* SPDX-License-Identifier: Apache-2.0 */
/* test_config_oom.c - the n-th allocation of klaw_init and klaw_config_get fails, for every n: the
 * call says so, nothing is settled, nothing leaks, and the next one works. */
#include <stdlib.h>

#include "klaw/config.h"
#include "support/runs.h"

static const klaw_option options[] = {{"address", "auto"}, {"namespace", "n"}, {"a", "b"}};

static klaw_err both(void) {
    klaw_init_opts o = {.backend = "ray",
                        .concurrency = 2,
                        .checkpoint_path = "~/x",
                        .options = options,
                        .n_options = 3};
    klaw_config c;
    klaw_error_info info;
    klaw_err e = klaw_config_get(&c, &info);
    if (e == KLAW_OK)
        e = klaw_init(&o, &info);
    if (e) {
        CHECK(strstr(info.message, "memory"));
        klaw_alloc_fail_at(0, false);
        OK(klaw_config_get(&c, NULL));
        CHECK(!c.initialized);
    }
    klaw_deinit();
    return e;
}

static void every_point(bool sticky) {
    bool beyond = false;
    for (uint64_t n = 1; !beyond; n++) {
        klaw_alloc_fail_at(n, sticky);
        klaw_err e = both();
        beyond = e == KLAW_OK;
        CHECK(e == KLAW_OK || e == KLAW_NOMEM);
        CHECK(!beyond || klaw_alloc_points() < n);
        klaw_alloc_fail_at(0, false);
        CHECK(runs_nothing_left());
        CHECK(n < 100);
    }
}

PLAIN(every_failure_is_told) {
    setenv("HOME", "/nobody", 1);
    every_point(false);
    every_point(true);
}
PLAIN(every_failure_is_told_without_HOME) {
    unsetenv("HOME");
    every_point(false);
    every_point(true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_failure_is_told),
        TEST(every_failure_is_told_without_HOME),
    };
    return cmocka_run_group_tests_name("config_oom", tests, NULL, NULL);
}
