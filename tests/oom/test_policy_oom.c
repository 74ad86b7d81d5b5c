/* SPDX-License-Identifier: Apache-2.0 */
/* test_policy_oom.c - supervision machines without memory: making one and adding to it fail at each
 * of their allocations, leak nothing and leave the machine as it was; events need none.
 *
 * Tried with these bugs seeded: an add that counts its number before it has memory, a machine that
 * leaks its table. */
#include "support/runs.h"

PLAIN(making_a_machine_survives_every_failed_allocation) {
    for (uint64_t n = 1;; n++) {
        uint64_t live = klaw_alloc_live();
        klaw_supervision *s = NULL;
        klaw_alloc_fail_at(n, false);
        klaw_err e = klaw_supervision_new(NULL, &s);
        bool met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(0, false);
        GIVES(e, met ? KLAW_NOMEM : KLAW_OK);
        CHECK(met == !s);
        klaw_supervision_free(s);
        SAME(klaw_alloc_live(), live);
        if (!met)
            return;
    }
}

PLAIN(adding_survives_every_failed_allocation) {
    for (uint64_t n = 1, met = 1; met; n++) {
        uint64_t live = klaw_alloc_live();
        klaw_supervision *s = NULL;
        OK(klaw_supervision_new(NULL, &s));
        OK(klaw_supervision_begin(s, 0));
        klaw_alloc_fail_at(n, false);
        for (uint32_t i = 0; i < 200; i++) {
            uint32_t child = UINT32_MAX;
            klaw_err e = klaw_supervision_add(s, NULL, &child);
            if (e) { /* and the second time it works */
                GIVES(e, KLAW_NOMEM);
                SAME(child, UINT32_MAX);
                SAME(klaw_supervision_count(s), i);
                OK(klaw_supervision_add(s, NULL, &child));
            }
            SAME(child, i);
        }
        met = klaw_alloc_points() >= n;
        klaw_alloc_fail_at(1, true); /* nothing else needs memory */
        uint32_t starts = 0, stops = 0;
        for (klaw_supervision_action a; (a = klaw_supervision_next(s, 0)).verb;) {
            if (a.verb == KLAW_SUP_START) {
                OK(klaw_supervision_started(s, a.child, 0));
                if (++starts == 200)
                    klaw_supervision_shutdown(s, 0);
            } else if (a.verb == KLAW_SUP_STOP) {
                stops++;
                OK(klaw_supervision_exited(s, a.child, KLAW_OK, 0, 0));
            }
        }
        klaw_alloc_fail_at(0, false);
        SAME(stops, 200);
        klaw_supervision_free(s);
        SAME(klaw_alloc_live(), live);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(making_a_machine_survives_every_failed_allocation),
        TEST(adding_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests_name("policy_oom", tests, NULL, NULL);
}
