/* SPDX-License-Identifier: Apache-2.0 */
/* 09_signals.c - signals are messages: Ctrl-C in a select, and an orderly end.
 *
 * While the receiver is open the default action of its signals is off; when it closes, it is back.
 * The program sends the signals to itself here; with a real Ctrl-C it would do the same. */
#include <klaw/klaw.h>

#include <signal.h>
#include <unistd.h>

#include "check.h"

/* A server that works until it is cancelled, and says how far it came. */
static klaw_err server(void *arg) {
    int *requests = arg;
    klaw_err e;
    while ((e = klaw_sleep(klaw_after(KLAW_MS(1)))) == KLAW_OK)
        ++*requests;
    return e;
}

static klaw_err somebody(void *arg) {
    (void)arg;
    CHECK(klaw_sleep(klaw_after(KLAW_MS(20))) == KLAW_OK);
    CHECK(kill(getpid(), SIGHUP) == 0); /* "read your configuration again" */
    CHECK(klaw_sleep(klaw_after(KLAW_MS(20))) == KLAW_OK);
    CHECK(kill(getpid(), SIGINT) == 0); /* Ctrl-C */
    return KLAW_OK;
}

static klaw_err first(void *arg) {
    (void)arg;
    static const int both[] = {SIGINT, SIGHUP};
    klaw_receiver *signals;
    klaw_scope *work;
    int requests = 0, reloads = 0;
    CHECK(klaw_signal_open(both, 2, &signals) == KLAW_OK);
    CHECK(klaw_go(somebody, NULL) == KLAW_OK);
    CHECK(klaw_scope_open(&(klaw_scope_opts){.name = "server"}, &work) == KLAW_OK);
    CHECK(klaw_go(server, &requests) == KLAW_OK);

    for (uint64_t number = 0; number != SIGINT;) {
        size_t which;
        klaw_case cases[] = {
            klaw_case_recv(signals, &number),
            klaw_case_timer(klaw_after(KLAW_S(5))),
        };
        CHECK(klaw_select(cases, 2, &which, KLAW_FOREVER) == KLAW_OK);
        CHECK(which == 0 && cases[0].err == KLAW_OK);
        reloads += number == SIGHUP;
    }
    klaw_scope_cancel(work, "Ctrl-C");
    CHECK(klaw_scope_close(work) == KLAW_CANCELLED);
    klaw_receiver_unref(signals);

    printf("%d reload, and an orderly end after Ctrl-C\n", reloads);
    CHECK(reloads == 1 && requests > 0);
    return KLAW_OK;
}

int main(void) {
    CHECK(klaw_run(first, NULL, NULL) == KLAW_OK);
    return 0;
}
