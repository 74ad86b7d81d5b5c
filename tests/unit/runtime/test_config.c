/* SPDX-License-Identifier: Apache-2.0 */
/* test_config.c - klaw_init and klaw_config_get: who wins, what is refused and how, what a run
 * makes of it. Tried with these bugs: the environment beats what is given; a wrong variable counts
 * as none; a second klaw_init changes the level; klaw_run asks the machine alone. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "klaw/config.h"
#include "support/child.h"
#include "support/runs.h"

#include "plat/os.h"

static const char *const variables[] = {"KLAW_BACKEND", "KLAW_CONCURRENCY", "KLAW_LOG_LEVEL",
                                        "KLAW_CHECKPOINT_PATH"};

/* Every test starts with nothing given and HOME=/nobody, and leaves nothing behind. */
static void fresh(void) {
    klaw_deinit();
    klaw_log_set_level(KLAW_LEVEL_OFF);
    for (size_t i = 0; i < 4; i++)
        unsetenv(variables[i]);
    setenv("HOME", "/nobody", 1);
}

#define CONFIG(name)               \
    static void name##_case(void); \
    PLAIN(name) {                  \
        fresh();                   \
        name##_case();             \
        fresh();                   \
    }                              \
    static void name##_case(void)

static klaw_config config(void) {
    klaw_config c;
    klaw_error_info info;
    OK(klaw_config_get(&c, &info));
    return c;
}
static klaw_error_info refused(const klaw_init_opts *o, klaw_err want) {
    klaw_error_info info = {.sys = 77};
    GIVES(klaw_init(o, &info), want);
    GIVES(klaw_init(o, NULL), want);
    SAME(info.sys, 0);
    return info;
}
static void same_text(const char *a, const char *b) {
    if (strcmp(a, b) != 0)
        check_failed(__FILE__, __LINE__, a, b);
}
static void tells(const klaw_error_info *info, const char *what) {
    if (!strstr(info->message, what))
        check_failed(__FILE__, __LINE__, info->message, what);
}

CONFIG(without_klaw_init_the_machine_decides) {
    klaw_config c = config();
    CHECK(!c.initialized);
    same_text(c.backend, "local");
    SAME(c.backend_source, KLAW_SOURCE_DETECTED);
    SAME(c.concurrency, klawi_cpu_usable());
    SAME(c.concurrency, c.machine.usable);
    SAME(c.concurrency_source, KLAW_SOURCE_DETECTED);
    SAME(c.log_level, KLAW_LEVEL_OFF);
    SAME(c.log_level_source, KLAW_SOURCE_DETECTED);
    same_text(c.checkpoint_path, "/nobody/.klaw/checkpoints/");
    SAME(c.checkpoint_path_source, KLAW_SOURCE_DETECTED);
    SAME(c.n_options, 0);
}

CONFIG(the_environment_beats_detection) {
    setenv("KLAW_BACKEND", "ray", 1);
    setenv("KLAW_CONCURRENCY", "7", 1);
    setenv("KLAW_LOG_LEVEL", "WARN", 1);
    setenv("KLAW_CHECKPOINT_PATH", "/var/tmp/points", 1);
    for (int i = 0; i < 2; i++) {
        klaw_config c = config();
        same_text(c.backend, "ray");
        SAME(c.concurrency, 7);
        SAME(c.log_level, KLAW_LEVEL_WARN);
        same_text(c.checkpoint_path, "/var/tmp/points");
        SAME(c.backend_source, KLAW_SOURCE_ENVIRONMENT);
        SAME(c.concurrency_source, KLAW_SOURCE_ENVIRONMENT);
        SAME(c.log_level_source, KLAW_SOURCE_ENVIRONMENT);
        SAME(c.checkpoint_path_source, KLAW_SOURCE_ENVIRONMENT);
        SAME(c.initialized, i);
        SAME(klaw_log_get_level(), i ? KLAW_LEVEL_WARN : KLAW_LEVEL_OFF);
        OK(klaw_init(NULL, NULL));
    }
}

CONFIG(what_is_given_beats_the_environment) {
    /* Wrong ones, too: they don't count. */
    for (size_t i = 0; i < 4; i++)
        setenv(variables[i], "\xff", 1);
    klaw_init_opts o = {
        .backend = "local", .concurrency = 3, .log_level = "debug", .checkpoint_path = "~/x"};
    OK(klaw_init(&o, NULL));
    klaw_config c = config();
    CHECK(c.initialized);
    same_text(c.backend, "local");
    SAME(c.concurrency, 3);
    SAME(c.log_level, KLAW_LEVEL_DEBUG);
    same_text(c.checkpoint_path, "/nobody/x");
    SAME(c.backend_source, KLAW_SOURCE_EXPLICIT);
    SAME(c.concurrency_source, KLAW_SOURCE_EXPLICIT);
    SAME(c.log_level_source, KLAW_SOURCE_EXPLICIT);
    SAME(c.checkpoint_path_source, KLAW_SOURCE_EXPLICIT);
    SAME(klaw_log_get_level(), KLAW_LEVEL_DEBUG);
}

CONFIG(an_empty_variable_is_not_set) {
    for (size_t i = 0; i < 4; i++)
        setenv(variables[i], "", 1);
    klaw_config c = config();
    same_text(c.backend, "local");
    SAME(c.concurrency_source, KLAW_SOURCE_DETECTED);
}

CONFIG(wrong_values_are_refused_with_the_right_ones) {
    klaw_error_info info;
    klaw_config c;
    info = refused(&(klaw_init_opts){.backend = "dask"}, KLAW_INVALID);
    tells(&info, "backend is 'dask': it has to be 'local' or 'ray'");
    info = refused(&(klaw_init_opts){.backend = ""}, KLAW_INVALID);
    tells(&info, "'local' or 'ray'");
    info = refused(&(klaw_init_opts){.concurrency = 257}, KLAW_INVALID);
    tells(&info, "concurrency is 257: it has to be a number from 1 to 256");
    info = refused(&(klaw_init_opts){.log_level = "loud"}, KLAW_INVALID);
    tells(&info, "log_level is 'loud'");
    tells(&info, "'off', 'error', 'warn', 'info', 'debug' or 'trace'");
    info = refused(&(klaw_init_opts){.checkpoint_path = ""}, KLAW_INVALID);
    tells(&info, "checkpoint_path");
    static const struct {
        const char *name, *value, *tells;
    } env[] = {
        {"KLAW_BACKEND", "Local", "KLAW_BACKEND is 'Local': it has to be 'local' or 'ray'"},
        {"KLAW_CONCURRENCY", "0", "KLAW_CONCURRENCY is '0': it has to be a number from 1 to 256"},
        {"KLAW_CONCURRENCY", "257", "1 to 256"},
        {"KLAW_CONCURRENCY", "-2", "1 to 256"},
        {"KLAW_CONCURRENCY", "2x", "1 to 256"},
        {"KLAW_CONCURRENCY", "99999999999999999999", "1 to 256"},
        {"KLAW_LOG_LEVEL", "3", "KLAW_LOG_LEVEL is '3'"},
        {"KLAW_CHECKPOINT_PATH", "\xff", "KLAW_CHECKPOINT_PATH"},
    };
    for (size_t i = 0; i < sizeof env / sizeof *env; i++) {
        setenv(env[i].name, env[i].value, 1);
        info = refused(NULL, KLAW_INVALID);
        tells(&info, env[i].tells);
        GIVES(klaw_config_get(&c, &info), KLAW_INVALID);
        tells(&info, env[i].tells);
        GIVES(klaw_config_get(&c, NULL), KLAW_INVALID);
        unsetenv(env[i].name);
    }
    GIVES(klaw_config_get(NULL, &info), KLAW_INVALID);
    GIVES(klaw_machine_get(NULL), KLAW_INVALID);
    CHECK(!config().initialized);
    SAME(klaw_log_get_level(), KLAW_LEVEL_OFF);
}

CONFIG(the_first_klaw_init_stays) {
    OK(klaw_init(&(klaw_init_opts){.concurrency = 3, .log_level = "error"}, NULL));
    OK(klaw_init(NULL, NULL));
    OK(klaw_init(&(klaw_init_opts){.concurrency = 3}, NULL));
    OK(klaw_init(&(klaw_init_opts){.log_level = "ERROR", .backend = "local"}, NULL));
    klaw_error_info info = refused(&(klaw_init_opts){.concurrency = 4}, KLAW_EXISTS);
    tells(&info, "concurrency");
    info = refused(&(klaw_init_opts){.log_level = "trace"}, KLAW_EXISTS);
    tells(&info, "log_level");
    info = refused(&(klaw_init_opts){.backend = "ray"}, KLAW_EXISTS);
    tells(&info, "backend");
    info = refused(&(klaw_init_opts){.checkpoint_path = "/x"}, KLAW_EXISTS);
    tells(&info, "checkpoint_path");
    /* The environment was read once. */
    setenv("KLAW_BACKEND", "ray", 1);
    klaw_config c = config();
    same_text(c.backend, "local");
    SAME(c.concurrency, 3);
    SAME(klaw_log_get_level(), KLAW_LEVEL_ERROR);
    klaw_deinit();
    same_text(config().backend, "ray");
    OK(klaw_init(&(klaw_init_opts){.concurrency = 4}, NULL));
    SAME(config().concurrency, 4);
}

CONFIG(only_a_backend_that_has_options_takes_them) {
    static const klaw_option two[] = {{"namespace", "n"}, {"address", "auto"}};
    static const klaw_option turned[] = {{"address", "auto"}, {"namespace", "n"}};
    static const klaw_option other[] = {{"address", "auto"}, {"namespace", "m"}};
    static const klaw_option twice[] = {{"a", "1"}, {"a", "2"}};
    static const klaw_option empty[] = {{"", "1"}};
    char key[64], value[16], large[5000];
    klaw_error_info info = refused(&(klaw_init_opts){.options = two, .n_options = 2}, KLAW_INVALID);
    tells(&info, "'local' has no options");
    klaw_init_opts o = {.backend = "ray", .options = twice, .n_options = 2};
    info = refused(&o, KLAW_INVALID);
    tells(&info, "'a' is given twice");
    o.options = NULL;
    refused(&o, KLAW_INVALID);
    o.n_options = 1;
    o.options = empty;
    refused(&o, KLAW_INVALID);
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '\0';
    o.options = &(klaw_option){"k", large};
    refused(&o, KLAW_LIMIT);
    o.options = &(klaw_option){large, "v"};
    refused(&o, KLAW_LIMIT);
    o.options = two;
    o.n_options = 65;
    refused(&o, KLAW_LIMIT);
    o.n_options = 2;
    OK(klaw_init(&o, NULL));
    SAME(config().n_options, 2);
    OK(klaw_config_option(0, key, sizeof key, value, sizeof value));
    same_text(key, "address");
    same_text(value, "auto");
    OK(klaw_config_option(1, key, sizeof key, NULL, 0));
    same_text(key, "namespace");
    GIVES(klaw_config_option(0, key, 7, NULL, 0), KLAW_LIMIT);
    GIVES(klaw_config_option(0, NULL, 0, value, 4), KLAW_LIMIT);
    GIVES(klaw_config_option(2, key, sizeof key, value, sizeof value), KLAW_NOT_FOUND);
    o.options = turned;
    OK(klaw_init(&o, NULL));
    o.options = other;
    info = refused(&o, KLAW_EXISTS);
    tells(&info, "options");
    klaw_deinit();
    GIVES(klaw_config_option(0, key, sizeof key, value, sizeof value), KLAW_NOT_FOUND);
}

CONFIG(the_home_folder_is_HOME_or_the_users) {
    struct passwd *p = getpwuid(geteuid());
    unsetenv("HOME");
    klaw_config c;
    klaw_error_info info;
    klaw_err e = klaw_config_get(&c, &info);
    if (p && *p->pw_dir) {
        OK(e);
        SAME(strncmp(c.checkpoint_path, p->pw_dir, strlen(p->pw_dir)), 0);
        CHECK(strstr(c.checkpoint_path, "/.klaw/checkpoints/"));
    } else {
        GIVES(e, KLAW_NOT_FOUND);
        tells(&info, "KLAW_CHECKPOINT_PATH");
    }
    setenv("HOME", "/", 1);
    same_text(config().checkpoint_path, "/.klaw/checkpoints/");
    setenv("KLAW_CHECKPOINT_PATH", "~", 1);
    same_text(config().checkpoint_path, "/");
    setenv("KLAW_CHECKPOINT_PATH", "~root/x", 1);
    same_text(config().checkpoint_path, "~root/x");
    char large[1100];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '\0';
    refused(&(klaw_init_opts){.checkpoint_path = large}, KLAW_LIMIT);
    large[1023] = '\0';
    OK(klaw_init(&(klaw_init_opts){.checkpoint_path = large}, NULL));
    same_text(config().checkpoint_path, large);
}

static klaw_err counts_workers(void *n) {
    *(uint32_t *)n = klaw_run_workers();
    return KLAW_OK;
}

CONFIG(a_run_that_does_not_say_has_that_many_workers) {
    uint32_t n = 0;
    OK(klaw_run(counts_workers, &n, NULL));
    SAME(n, config().concurrency);
    setenv("KLAW_CONCURRENCY", "3", 1);
    OK(klaw_run(counts_workers, &n, NULL));
    SAME(n, 3);
    OK(klaw_init(&(klaw_init_opts){.concurrency = 4}, NULL));
    OK(klaw_run(counts_workers, &n, NULL));
    SAME(n, 4);
    OK(klaw_run(counts_workers, &n, &(klaw_run_opts){.workers = 1}));
    SAME(n, 1);
}

static int runs_with_a_wrong_variable(void) {
    setenv("KLAW_CONCURRENCY", "many", 1);
    uint32_t n = 0;
    GIVES(klaw_run(counts_workers, &n, NULL), KLAW_INVALID);
    SAME(n, 0);
    OK(klaw_run(counts_workers, &n, &(klaw_run_opts){.workers = 2}));
    SAME(n, 2);
    return 0;
}

PLAIN(a_run_refuses_a_wrong_variable_and_says_so) {
    child_end c = child_of(runs_with_a_wrong_variable);
    CHECK(WIFEXITED(c.status) && WEXITSTATUS(c.status) == 0);
    CHECK(strstr(c.text, "KLAW_CONCURRENCY is 'many'"));
}

PLAIN(sources_have_names) {
    same_text(klaw_source_name(KLAW_SOURCE_DETECTED), "detected");
    same_text(klaw_source_name(KLAW_SOURCE_ENVIRONMENT), "environment");
    same_text(klaw_source_name(KLAW_SOURCE_EXPLICIT), "explicit");
    same_text(klaw_source_name((klaw_source)9), "?");
}

static klaw_err asks(void *arg) {
    klaw_config *c = arg;
    return klaw_config_get(c, NULL);
}

CONFIG(it_can_be_asked_from_a_fiber) {
    klaw_config c;
    OK(klaw_run(asks, &c, NULL));
    same_text(c.backend, "local");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* First: the parent may not have used klaw when it forks. */
        cmocka_unit_test(a_run_refuses_a_wrong_variable_and_says_so),
        TEST(without_klaw_init_the_machine_decides),
        TEST(the_environment_beats_detection),
        TEST(what_is_given_beats_the_environment),
        TEST(an_empty_variable_is_not_set),
        TEST(wrong_values_are_refused_with_the_right_ones),
        TEST(the_first_klaw_init_stays),
        TEST(only_a_backend_that_has_options_takes_them),
        TEST(the_home_folder_is_HOME_or_the_users),
        TEST(a_run_that_does_not_say_has_that_many_workers),
        TEST(sources_have_names),
        TEST(it_can_be_asked_from_a_fiber),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
