/* SPDX-License-Identifier: Apache-2.0 */
/* switch.c - the C side of the register switch: the first frame of a stack and the floating-point
 * environment.
 *
 * The frame matches what klawi_switch pops; its return address is klawi_switch_entry, which calls
 * the function with its argument and a zero frame pointer, so that backtraces end there. */
#include "plat/switch.h"

#include <string.h>

void klawi_switch_entry(void);

void *klawi_stack_prepare(void *top, void (*entry)(void *arg), void *arg) {
#if defined(__x86_64__)
    /* r15 r14 r13 r12 rbx rbp rip; at the entry rsp must be a multiple of 16. */
    uint64_t *sp = (uint64_t *)top - 2;
    sp -= 7;
    memset(sp, 0, 7 * sizeof *sp);
    sp[3] = (uint64_t)(uintptr_t)arg;
    sp[4] = (uint64_t)(uintptr_t)entry;
    sp[6] = (uint64_t)(uintptr_t)klawi_switch_entry;
    return sp;
#else
    uint64_t *sp = (uint64_t *)top - 20;
    memset(sp, 0, 20 * sizeof *sp);
    sp[0] = (uint64_t)(uintptr_t)entry;
    sp[1] = (uint64_t)(uintptr_t)arg;
    sp[11] = (uint64_t)(uintptr_t)klawi_switch_entry;
    return sp;
#endif
}

void klawi_fpenv_save(klawi_fpenv *e) {
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint16_t x87;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(x87));
    e->word = (uint64_t)mxcsr | (uint64_t)x87 << 32;
#else
    __asm__ volatile("mrs %0, fpcr" : "=r"(e->word));
#endif
}

void klawi_fpenv_load(const klawi_fpenv *e) {
#if defined(__x86_64__)
    uint32_t mxcsr = (uint32_t)e->word;
    uint16_t x87 = (uint16_t)(e->word >> 32);
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87));
#else
    __asm__ volatile("msr fpcr, %0" : : "r"(e->word));
#endif
}
