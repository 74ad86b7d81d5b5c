/* SPDX-License-Identifier: Apache-2.0 */
/* 04_cancel.c - deadlines and cancellation: every wait can be ended, and a scope ends many.
 *
 * A single wait takes a deadline. A scope owns fibers: it waits for them, it may have a deadline of
 * its own, and cancelling it makes every wait inside answer CANCELLED, from now on. */
#include <klaw/klaw.h>

#include <string.h>

#include "check.h"

static int cleaned_up;

/* It would wait for ever; a cancellation ends it, and it leaves the way every function leaves. */
static klaw_err patient(void *arg) {
    uint64_t value;
    klaw_err e = klaw_recv(arg, &value, KLAW_FOREVER);
    CHECK(e == KLAW_CANCELLED);
    CHECK(klaw_sleep(klaw_after(KLAW_S(60))) == KLAW_CANCELLED); /* and so does every later wait */

    /* Sometimes the last words matter. A shielded scope is not reached, but must have a limit. */
    klaw_scope *shield;
    klaw_scope_opts opts = {.shield = true, .deadline = klaw_after(KLAW_S(1))};
    CHECK(klaw_scope_open(&opts, &shield) == KLAW_OK);
    CHECK(klaw_sleep(klaw_after(KLAW_MS(1))) == KLAW_OK);
    CHECK(klaw_scope_close(shield) == KLAW_OK);
    __atomic_fetch_add(&cleaned_up, 1, __ATOMIC_RELAXED);
    return e;
}

static klaw_err failing(void *arg) {
    (void)arg;
    return KLAW_LIMIT;
}

static klaw_err first(void *arg) {
    klaw_receiver *silent = arg;
    uint64_t value;

    /* 1. A deadline on one wait: absolute, or relative to the moment it really has to wait. */
    CHECK(klaw_recv(silent, &value, klaw_after(KLAW_MS(10))) == KLAW_TIMEOUT);
    CHECK(klaw_recv(silent, &value, KLAW_WITHIN(KLAW_MS(10))) == KLAW_TIMEOUT);
    CHECK(klaw_recv(silent, &value, KLAW_NOWAIT) == KLAW_EMPTY);

    /* 2. A scope with a deadline: it ends its fibers, then waits until they have gone. */
    klaw_scope *scope;
    klaw_scope_opts limited = {.name = "limited", .deadline = klaw_after(KLAW_MS(20))};
    CHECK(klaw_scope_open(&limited, &scope) == KLAW_OK);
    for (int i = 0; i < 100; i++)
        CHECK(klaw_go(patient, silent) == KLAW_OK);
    CHECK(klaw_scope_close(scope) == KLAW_TIMEOUT);
    CHECK(cleaned_up == 100);

    /* 3. By hand, with a reason. */
    CHECK(klaw_scope_open(NULL, &scope) == KLAW_OK);
    CHECK(klaw_go(patient, silent) == KLAW_OK);
    klaw_scope_cancel(scope, "the user left");
    CHECK(strcmp(klaw_scope_reason(scope), "the user left") == 0);
    CHECK(klaw_scope_close(scope) == KLAW_CANCELLED);

    /* 4. The first error cancels the rest, and is what close returns. */
    klaw_scope_opts together = {.cancel_on_error = true};
    CHECK(klaw_scope_open(&together, &scope) == KLAW_OK);
    CHECK(klaw_go(patient, silent) == KLAW_OK);
    CHECK(klaw_go(failing, NULL) == KLAW_OK);
    CHECK(klaw_scope_close(scope) == KLAW_LIMIT);
    return KLAW_OK;
}

int main(void) {
    klaw_sender *tx;
    klaw_receiver *silent;
    CHECK(klaw_channel(&klaw_u64, NULL, &tx, &silent) == KLAW_OK);
    CHECK(klaw_run(first, silent, NULL) == KLAW_OK);
    CHECK(cleaned_up == 102);
    printf("102 fibers waited for ever, were cancelled, and cleaned up\n");
    klaw_sender_unref(tx);
    klaw_receiver_unref(silent);
    return 0;
}
