/* SPDX-License-Identifier: Apache-2.0 */
/* switch.h - the register switch.
 *
 * klawi_switch saves the callee-saved registers on the running stack, stores the stack pointer to
 * *from, loads `to`, and only then clears *on_cpu (rule P8: whoever sees it clear with acquire may
 * run the saved stack). It leaves by pop + jmp: by ret the return predictor misses each time. */
#ifndef KLAWI_SWITCH_H
#define KLAWI_SWITCH_H

#include "plat/plat.h"

void klawi_switch(void **from, void *to, _Atomic uint32_t *on_cpu);
/* Prepares a stack whose first switch-in calls entry(arg) on it; entry never returns. `top` is
 * 16-byte aligned. */
void *klawi_stack_prepare(void *top, void (*entry)(void *arg), void *arg);

/* The floating-point environment: mxcsr and the x87 control word; FPCR on AArch64. */
typedef struct klawi_fpenv {
    uint64_t word;
} klawi_fpenv;
void klawi_fpenv_save(klawi_fpenv *e);
void klawi_fpenv_load(const klawi_fpenv *e);

#endif
