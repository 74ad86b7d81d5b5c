/* SPDX-License-Identifier: Apache-2.0 */
/* switch_aarch64.S - register switch for AAPCS64 (switch.h): x19-x30 and d8-d15.
 *
 * x0: where to store the old stack pointer; x1: the new one; x2: the old fiber's on_cpu word, cleared with release after the
 * stack pointer has changed. */
#if defined(__aarch64__)
    .text
    .globl klawi_switch
    .hidden klawi_switch
    .type klawi_switch, %function
    .p2align 6
klawi_switch:
    .cfi_startproc
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    stlr wzr, [x2]
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    br x30
    .cfi_endproc
    .size klawi_switch, .-klawi_switch

/* First run of a stack: x19 holds the function, x20 its argument. */
    .globl klawi_switch_entry
    .hidden klawi_switch_entry
    .type klawi_switch_entry, %function
    .p2align 4
klawi_switch_entry:
    .cfi_startproc
    .cfi_undefined x30
    mov x0, x20
    mov x29, #0
    blr x19
    brk #1
    .cfi_endproc
    .size klawi_switch_entry, .-klawi_switch_entry
#endif
    .section .note.GNU-stack,"",%progbits
