/* SPDX-License-Identifier: Apache-2.0 */
/* fault.c - a stack overflow is told by the fiber's name.
 *
 * Each worker has an alternate signal stack. The handler looks whether the faulting address lies in
 * the guard of the running fiber's stack; if so it says which fiber, how large the stack is and
 * what to do, and lets the process die of the signal. Any other fault goes to the handler that was
 * there before. Only async-signal-safe calls. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sched/sched.h"

#define ALT_SIZE ((size_t)64 * 1024)

static struct sigaction old_segv, old_bus;

static size_t put(char *buf, size_t at, size_t size, const char *s) {
    while (*s && at + 1 < size)
        buf[at++] = *s++;
    return at;
}

static size_t put_number(char *buf, size_t at, size_t size, uint64_t n) {
    char digits[24];
    int i = 0;
    do
        digits[i++] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    while (i > 0 && at + 1 < size)
        buf[at++] = digits[--i];
    return at;
}

static void report(klaw_fiber *f) {
    char b[320];
    size_t n = put(b, 0, sizeof b, "klaw: fatal: stack overflow in fiber '");
    n = put(b, n, sizeof b, klawi_fiber_name(f));
    n = put(b, n, sizeof b, "' (id ");
    n = put_number(b, n, sizeof b, f->id);
    n = put(b, n, sizeof b, ", ");
    n = put_number(b, n, sizeof b, ((uint64_t)1 << f->size_class) / 1024);
    n = put(b, n, sizeof b,
            " KiB): raise klaw_fiber_opts.stack_size or klaw_run_opts.stack_size\n");
    if (write(STDERR_FILENO, b, n) < 0)
        _exit(139);
}

static void on_fault(int sig, siginfo_t *si, void *uc) {
    klawi_ctx *c = klawi_ctx_get();
    klawi_host *h = c && c->worker ? klawi_cur(c) : NULL;
    if (h && h->kind == KLAWI_FIBER) {
        klaw_fiber *f = klawi_fiber_of(h);
        if (f->stack && klawi_stack_guards(f->stack, si->si_addr)) {
            report(f);
            signal(sig, SIG_DFL);
            return; /* the instruction faults again, now for good */
        }
    }
    const struct sigaction *old = sig == SIGSEGV ? &old_segv : &old_bus;
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(sig, si, uc);
    else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN)
        signal(sig, SIG_DFL);
    else
        old->sa_handler(sig);
}

static void install(void) {
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = on_fault;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGSEGV, &sa, &old_segv);
    sigaction(SIGBUS, &sa, &old_bus);
}

void klawi_fault_install(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
#if !defined(KLAWI_SAN)
    pthread_once(&once, install);
#else
    (void)once;
    (void)install; /* the sanitizer reports faults itself */
#endif
}

void *klawi_fault_stack_enter(void) {
    void *p = mmap(NULL, ALT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL; /* then an overflow is reported by the kernel alone */
    stack_t ss = {.ss_sp = p, .ss_size = ALT_SIZE};
    sigaltstack(&ss, NULL);
    return p;
}

void klawi_fault_stack_leave(void *p) {
    if (!p)
        return;
    stack_t ss = {.ss_flags = SS_DISABLE};
    sigaltstack(&ss, NULL);
    munmap(p, ALT_SIZE);
}
