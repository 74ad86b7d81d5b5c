/* SPDX-License-Identifier: Apache-2.0 */
/* test_switch.c - the register switch by itself: what the ABI says a call keeps, a switch keeps;
 * on_cpu; the first frame; the floating point environment. Not with sanitizers, which want to be
 * told of switches. */
#include <fenv.h>

#include "support/runs.h"

#include "plat/switch.h"

enum { STACK = 64 * 1024 };
static _Alignas(16) char stacks[2][STACK];
static void *main_sp, *sp[2];
static _Atomic uint32_t on_cpu[2], main_on_cpu;
static int turns[2];
static bool done[2];

static void back(int i) {
    klawi_switch(&sp[i], main_sp, &on_cpu[i]);
}
static void enter(int i) {
    atomic_store(&on_cpu[i], 1);
    klawi_switch(&main_sp, sp[i], &main_on_cpu);
}

/* Fills every register a call must keep with numbers of its own, switches, and looks. The inline
 * assembly is what no compiler moves. */
#if defined(__x86_64__)
static __attribute__((noinline)) int registers_survive(int i, uint64_t seed) {
    uint64_t in[5], out[5];
    for (int k = 0; k < 5; k++)
        in[k] = seed * 0x9e3779b97f4a7c15ull + (uint64_t)k;
    register void **from __asm__("rdi") = &sp[i];
    register void *to __asm__("rsi") = main_sp;
    register _Atomic uint32_t *flag __asm__("rdx") = &on_cpu[i];
    register uint64_t *source __asm__("rcx") = in;
    register uint64_t *sink __asm__("r8") = out;
    __asm__ volatile("pushq %%rbp\n\t"
                     "pushq %%rbx\n\t"
                     "subq $128, %%rsp\n\t" /* the red zone is not ours to overwrite */
                     "pushq %%r8\n\t"
                     "movq 0(%%rcx), %%rbx\n\t"
                     "movq 8(%%rcx), %%r12\n\t"
                     "movq 16(%%rcx), %%r13\n\t"
                     "movq 24(%%rcx), %%r14\n\t"
                     "movq 32(%%rcx), %%r15\n\t"
                     "movq %%rbx, %%rbp\n\t"
                     "notq %%rbp\n\t"
                     "movq %%rsp, %%rax\n\t"
                     "andq $-16, %%rsp\n\t"
                     "pushq %%rax\n\t"
                     "pushq %%rax\n\t"
                     "callq klawi_switch\n\t"
                     "popq %%rax\n\t"
                     "popq %%rax\n\t"
                     "movq %%rax, %%rsp\n\t"
                     "popq %%rax\n\t"
                     "notq %%rbp\n\t"
                     "subq %%rbx, %%rbp\n\t"
                     "addq %%rbp, %%rbx\n\t" /* differs from what it was when rbp was lost */
                     "movq %%rbx, 0(%%rax)\n\t"
                     "movq %%r12, 8(%%rax)\n\t"
                     "movq %%r13, 16(%%rax)\n\t"
                     "movq %%r14, 24(%%rax)\n\t"
                     "movq %%r15, 32(%%rax)\n\t"
                     "addq $128, %%rsp\n\t"
                     "popq %%rbx\n\t"
                     "popq %%rbp\n\t"
                     : "+r"(from), "+r"(to), "+r"(flag), "+r"(source), "+r"(sink)
                     :
                     : "rax", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1",
                       "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
    return memcmp(in, out, sizeof in) == 0;
}
#else
/* x19 to x28 and d8 to d15. */
static __attribute__((noinline)) int registers_survive(int i, uint64_t seed) {
    uint64_t in[18], out[18];
    for (int k = 0; k < 18; k++)
        in[k] = seed * 0x9e3779b97f4a7c15ull + (uint64_t)k;
    register void **from __asm__("x0") = &sp[i];
    register void *to __asm__("x1") = main_sp;
    register _Atomic uint32_t *flag __asm__("x2") = &on_cpu[i];
    register uint64_t *source __asm__("x3") = in;
    register uint64_t *sink __asm__("x4") = out;
    __asm__ volatile("stp x29, x30, [sp, #-16]!\n\t"
                     "str x4, [sp, #-16]!\n\t"
                     "ldp x19, x20, [x3, #0]\n\t"
                     "ldp x21, x22, [x3, #16]\n\t"
                     "ldp x23, x24, [x3, #32]\n\t"
                     "ldp x25, x26, [x3, #48]\n\t"
                     "ldp x27, x28, [x3, #64]\n\t"
                     "ldp d8, d9, [x3, #80]\n\t"
                     "ldp d10, d11, [x3, #96]\n\t"
                     "ldp d12, d13, [x3, #112]\n\t"
                     "ldp d14, d15, [x3, #128]\n\t"
                     "bl klawi_switch\n\t"
                     "ldr x4, [sp], #16\n\t"
                     "ldp x29, x30, [sp], #16\n\t"
                     "stp x19, x20, [x4, #0]\n\t"
                     "stp x21, x22, [x4, #16]\n\t"
                     "stp x23, x24, [x4, #32]\n\t"
                     "stp x25, x26, [x4, #48]\n\t"
                     "stp x27, x28, [x4, #64]\n\t"
                     "stp d8, d9, [x4, #80]\n\t"
                     "stp d10, d11, [x4, #96]\n\t"
                     "stp d12, d13, [x4, #112]\n\t"
                     "stp d14, d15, [x4, #128]\n\t"
                     : "+r"(from), "+r"(to), "+r"(flag), "+r"(source), "+r"(sink)
                     :
                     : "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
                       "x16", "x17", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27",
                       "x28", "x30", "d8", "d9", "d10", "d11", "d12", "d13", "d14", "d15", "memory",
                       "cc");
    return memcmp(in, out, sizeof in) == 0;
}
#endif

static void two_routines(void (*entry)(void *)) {
    for (uintptr_t i = 0; i < 2; i++) {
        turns[i] = 0;
        done[i] = false;
        sp[i] = klawi_stack_prepare(stacks[i] + STACK, entry, (void *)i);
    }
    while (!done[0] || !done[1])
        for (int i = 0; i < 2; i++)
            if (!done[i]) {
                enter(i);
                SAME(atomic_load(&on_cpu[i]), 0); /* P8: cleared once it is off its stack */
                turns[i]++;
            }
}

static void finishes(int i) {
    done[i] = true;
    back(i);
    CHECK(!"not entered again");
}

static void checks_registers(void *arg) {
    int i = (int)(uintptr_t)arg;
    for (uint64_t k = 1; k <= 1000; k++)
        CHECK(registers_survive(i, k * 2 + (uint64_t)i));
    finishes(i);
}

PLAIN(the_registers_a_call_keeps_a_switch_keeps) {
    if (SANITIZED)
        return;
    two_routines(checks_registers);
    SAME(turns[0], 1001);
}

/* The compiler's own idea of what survives: very many live variables, whole and floating. */
static void checks_locals(void *arg) {
    int i = (int)(uintptr_t)arg;
    volatile uint64_t base = 7 + (uint64_t)i;
    uint64_t a = base, b = base * 3, c = base * 5, d = base * 7, e = base * 11, f = base * 13;
    double p = (double)base / 3, q = (double)base / 7, r = (double)base / 11, s = (double)base / 13;
    for (uint64_t k = 0; k < 1000; k++) {
        back(i);
        a += 1, b += 3, c += 5, d += 7, e += 11, f += 13;
        p += 1, q += 2, r += 3, s += 4;
    }
    CHECK(a == base + 1000 && b == base * 3 + 3000 && c == base * 5 + 5000);
    CHECK(d == base * 7 + 7000 && e == base * 11 + 11000 && f == base * 13 + 13000);
    CHECK(p > 1000 && q > 2000 && r > 3000 && s > 4000 && p < 1010 && q < 2010 && r < 3010 &&
          s < 4010);
    finishes(i);
}

PLAIN(locals_survive) {
    if (SANITIZED)
        return;
    two_routines(checks_locals);
}

static void checks_alignment(void *arg) {
    _Alignas(16) volatile char here[16];
    CHECK(((uintptr_t)here & 15) == 0);
    CHECK(((uintptr_t)__builtin_frame_address(0) & 15) == 0);
    finishes((int)(uintptr_t)arg);
}

PLAIN(the_first_frame_is_aligned) {
    if (SANITIZED)
        return;
    two_routines(checks_alignment);
}

PLAIN(the_floating_point_environment_is_saved_and_loaded) {
    klawi_fpenv before, up, down;
    klawi_fpenv_save(&before);
    SAME(fesetround(FE_UPWARD), 0);
    klawi_fpenv_save(&up);
    SAME(fesetround(FE_DOWNWARD), 0);
    klawi_fpenv_save(&down);
    CHECK(up.word != down.word);
    klawi_fpenv_load(&up);
    SAME(fegetround(), FE_UPWARD);
    klawi_fpenv_load(&down);
    SAME(fegetround(), FE_DOWNWARD);
    klawi_fpenv_load(&before);
    SAME(fegetround(), FE_TONEAREST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_registers_a_call_keeps_a_switch_keeps),
        cmocka_unit_test(locals_survive),
        cmocka_unit_test(the_first_frame_is_aligned),
        cmocka_unit_test(the_floating_point_environment_is_saved_and_loaded),
    };
    return cmocka_run_group_tests_name("switch", tests, NULL, NULL);
}
