/* SPDX-License-Identifier: Apache-2.0 */
/* test_models.c - klaw's lock-free parts, each explored under a weak memory model, and each with
 * its mutants.
 *
 * A test passes only if no execution of the model fails, the search was exhaustive, and every
 * mutant was caught. explore.h tells what the memory model is, explore_verify.h what the mutants
 * are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "model/explore_engine.h"
#include "model/model_claim.h"
#include "model/model_idle.h"
#include "model/model_inbox.h"
#include "model/model_next.h"
#include "model/model_oncpu.h"
#include "model/model_runq.h"
#include "model/model_shield.h"
#include "model/model_spsc.h"
#include "model/model_thread.h"

enum { CAP = 4000000 }; /* states */

static void verify(void **state) {
    const struct mo_model *model = *state;
    assert_true(mo_verify(model, CAP));
}

#define MODEL(name, model) \
    { name, verify, NULL, NULL, (void *)(uintptr_t) & (model) }

int main(void) {
#if defined(__SANITIZE_THREAD__)
    print_message("one thread with stacks of its own: nothing here for ThreadSanitizer\n");
    return 0;
#endif
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct CMUnitTest tests[] = {
        MODEL("claim_has_exactly_one_winner", claim_model),
        MODEL("claim_in_a_shield_loses_no_wakeup_and_no_cancel", shield_model),
        MODEL("on_cpu_guards_the_saved_registers", oncpu_model),
        MODEL("direct_switch_never_waits_in_a_circle", direct_model),
        MODEL("idle_worker_misses_no_push", idle_model),
        MODEL("thread_host_misses_no_wakeup", thread_model),
        MODEL("run_queue_runs_each_fiber_once", runq_model),
        MODEL("next_slot_runs_each_fiber_once", next_model),
        MODEL("one_to_one_ring_is_fifo_and_misses_no_wakeup", spsc_model),
        MODEL("spin_lock_excludes", spin_model),
        MODEL("inbox_loses_nothing_and_misses_no_wakeup", inbox_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
