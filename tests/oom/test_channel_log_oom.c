/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel_log_oom.c - a channel's log without memory: the n-th allocation fails, the library's or
 * SQLite's, for every n until a run gets through. The call answers NOMEM, nothing leaks, what was confirmed
 * is there. */
#include "klaw/channel_log.h"
#include "support/random.h"
#include "support/runs.h"
#include "support/sqlite_oom.h"
#include "support/store.h"

static const unsigned char ID[KLAW_REMOTE_ID] = "0123456789abcdef";
static folder dir;
static uint64_t confirmed; /* records since the snapshot */

static klaw_err all_calls(bool existing) {
    static const unsigned char value[5000];
    klaw_channel_log *l = NULL;
    klaw_channel_log_contents c;
    klaw_channel_log_opts o = {.existing = existing};
    klaw_err e = klaw_channel_log_open(dir.file, ID, &o, &l, NULL);
    for (int i = 0; !e && i < 3; i++) {
        e = klaw_channel_log_append(l, value, sizeof value, KLAW_FOREVER, NULL);
        confirmed += !e;
    }
    if (!e)
        e = klaw_channel_log_load(l, &c, KLAW_FOREVER, NULL);
    if (!e) {
        SAME(c.n, confirmed);
        klaw_channel_log_contents_free(&c);
        e = klaw_channel_log_compact(l, value, 100, KLAW_FOREVER, NULL);
    }
    if (!e) {
        confirmed = 0;
        e = klaw_channel_log_append(l, value, 1, KLAW_FOREVER, NULL);
        confirmed += !e;
    }
    klaw_channel_log_free(l);
    return e;
}

static void each(void) {
    int failures = 0;
    rng r = {sqlite_too ? seed_begin() : 0};
    uint32_t stride = sqlite_too && rounds(1000) <= 1000 ? 17 : 1;
    for (uint64_t n = 1;; n += 1 + rng_below(&r, stride)) {
        CHECK(n < 20000);
        dir = folder_make();
        confirmed = 0;
        klaw_alloc_trim();
        uint64_t live = klaw_alloc_live();
        klaw_alloc_fail_at(n, false);
        klaw_err e = all_calls(false);
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        if (e && e != KLAW_NOMEM)
            check_failed(__FILE__, __LINE__, klaw_err_name(e), "is not NOMEM");
        failures += e != KLAW_OK;
        klaw_alloc_trim();
        UNTIL(klaw_alloc_live() <= live);
        OK(all_calls(confirmed > 0));
        folder_free(&dir);
        if (!met)
            break;
    }
    printf("%d failures\n", failures);
    CHECK(failures > 2);
}

PLAIN(every_call_without_memory) {
    each();
}
PLAIN(every_call_when_sqlite_has_none) {
    sqlite_too = true;
    each();
    sqlite_too = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_call_without_memory),
        TEST(every_call_when_sqlite_has_none),
    };
    if (!sqlite_may_fail())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
