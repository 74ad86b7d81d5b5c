/* SPDX-License-Identifier: Apache-2.0 */
/* det_core.h - what det.c and det_os.c share: the virtual processors and the one state. */
#ifndef KLAWI_DET_CORE_H
#define KLAWI_DET_CORE_H

#include "plat/det.h"
#include "plat/os.h"

#define VCPU_STACK (256u * 1024)
#define TLS_BLOCKS 4
#define TLS_BYTES 64
#define POLLERS 64

enum state { FREE, READY, FUTEX, POLL, JOIN, NAP, GATE, LAST, DONE };

struct vcpu {
    void *sp;
    char *stack; /* NULL for vCPU 0, which runs on the caller's */
    enum state state;
    bool detached;
    uint32_t priority;
    int64_t deadline;
    const void *addr; /* FUTEX: the word; POLL: the poller */
    int other;        /* JOIN: whom; POLL: which of D.poller */
    uint64_t since;   /* the point at which it blocked */
    uint64_t ran;     /* the point at which it was last switched away from */
    void *pc;         /* where it was last seen, for reports */
    void *(*fn)(void *);
    void *arg;
    char name[16];
    unsigned char tls[TLS_BLOCKS][TLS_BYTES];
};

struct poller {
    bool used, wake;
    bool has_fds; /* something has been armed in this schedule */
    int fd;       /* the epoll descriptor; -1: not made yet */
};

enum strategy { UNIFORM, PCT };

extern struct klawi_det_state {
    bool active;
    int verbose; /* 1: each switch, 2: each point */
    uint64_t seed, hash, rng;
    const char *name;
    uint64_t points;  /* passed so far */
    uint64_t event;   /* the next point at which anything may have to be done */
    uint64_t change;  /* the next random switch or PCT change point */
    uint64_t gate_at; /* UINT64_MAX: not set */
    uint64_t fair;    /* PCT: when to look for a starved one */
    uint64_t runnable, stalled;
    int64_t now, rate, next_deadline;
    enum strategy strategy;
    uint32_t shift;    /* UNIFORM: switch with probability 2^-shift */
    uint32_t changes;  /* PCT: change points left */
    uint64_t length;   /* PCT: estimated points of a schedule */
    uint32_t low, top; /* PCT: the next lowest and highest priority */
    bool spurious;     /* futex waits may return for nothing */
    int exclusive;     /* vCPU that came through the gate; -1 */
    bool gate_opened;
    int waiting_fds; /* vCPUs in a poller that has descriptors */
    struct vcpu v[KLAWI_DET_VCPUS];
    struct poller poller[POLLERS];
} klawi_det;

extern void (*klawi_det_exit_hook[4])(void);

#define BIT(i) (1ull << (i))
#define SELF (&klawi_det.v[klawi_det_vcpu])

/* A number below n; not in the trace. */
uint32_t klawi_det_draw(uint32_t n);
/* Into the trace hash. */
void klawi_det_record(uint64_t what);
/* When verbose: a line on what happens, to whom (-1: nobody). */
void klawi_det_say(const char *what, int whom);
/* The n-th member of a set. */
int klawi_det_nth(uint64_t set, uint32_t n);
/* vCPU i may go on. */
void klawi_det_ready(int i);
/* The running vCPU waits; another one goes on. */
void klawi_det_block(enum state state, const void *addr, int other, int64_t deadline, void *pc);
/* An interleaving point seen from pc. */
void klawi_det_pass(void *pc);

#endif
