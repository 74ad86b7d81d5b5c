/* SPDX-License-Identifier: Apache-2.0 */
/* model_inbox.h - the spin lock, and the inbox of a foreign event loop (protocol, "Callback
 * hosts").
 *
 * "spin lock": three threads, each increments a plain counter twice.
 *
 * "inbox": a stack that many push to by compare-and-swap and the loop empties by one exchange. A
 * push onto the empty stack writes the loop's eventfd. The loop sleeps in poll; when it wakes it
 * clears the eventfd first and empties the stack after that. Shown: nothing is lost or doubled, no
 * wake-up is lost, nodes are seen whole. There is no ABA: a push only needs that the head is what
 * its node points to, and nobody takes single nodes.
 */
#ifndef KLAW_TESTS_MODEL_INBOX_H
#define KLAW_TESTS_MODEL_INBOX_H

#include "model/explore.h"

enum { SPIN_LOCK };  /* atomic */
enum { SPIN_COUNT }; /* plain */

enum { SPIN_AT_LOCK, SPIN_AT_UNLOCK, SPIN_SITES };
static const struct mo_site spin_sites[] = {
    [SPIN_AT_LOCK] = {"lock", MO_ACQ},
    [SPIN_AT_UNLOCK] = {"unlock", MO_REL},
};

enum { SPIN_BY_CAS, SPIN_STEPS };
static const char *const spin_steps[] = {
    [SPIN_BY_CAS] = "locks by compare-and-swap, not by load and store",
};

static void spin_init(void) {
    mo_atom(SPIN_LOCK, "lock", 0);
    mo_plain(SPIN_COUNT, "count", 0);
}

static void spin_thread(void) {
    for (int i = 0; i < 2; i++) {
        mo_forget(i, 0);
        if (mo_step(SPIN_BY_CAS))
            mo_await_cas(SPIN_LOCK, 0, 1, mo_at(SPIN_AT_LOCK));
        else {
            mo_await(SPIN_LOCK, 0, mo_at(SPIN_AT_LOCK));
            mo_store(SPIN_LOCK, 1, MO_RLX);
        }
        mo_set(SPIN_COUNT, mo_get(SPIN_COUNT) + 1);
        mo_store(SPIN_LOCK, 0, mo_at(SPIN_AT_UNLOCK));
    }
}

static void spin_check(void) {
    mo_assert(mo_last_plain(SPIN_COUNT) == 6, "an increment was lost");
}

static const struct mo_model spin_model = {
    .name = "spin lock",
    .variants = 1,
    .threads = 3,
    .thread = {spin_thread, spin_thread, spin_thread},
    .thread_name = {"a", "b", "c"},
    .init = spin_init,
    .check = spin_check,
    .sites = spin_sites,
    .n_sites = SPIN_SITES,
    .steps = spin_steps,
    .n_steps = SPIN_STEPS,
};

/* ---- inbox ----------------------------------------------------------------------------------- */

enum { INBOX_NODES = 4 };
enum { INBOX_HEAD, INBOX_EVENT };                               /* atomic */
enum { INBOX_LINK, INBOX_DATA = INBOX_LINK + INBOX_NODES + 1 }; /* plain, + node from 1 */

enum { INBOX_AT_PUSH, INBOX_AT_TAKE, INBOX_SITES };
static const struct mo_site inbox_sites[] = {
    [INBOX_AT_PUSH] = {"push", MO_REL},
    [INBOX_AT_TAKE] = {"take all", MO_ACQ},
};

enum { INBOX_WAKE, INBOX_CLEAR_FIRST, INBOX_BY_CAS, INBOX_TAKE_BY_XCHG, INBOX_STEPS };
static const char *const inbox_steps[] = {
    [INBOX_WAKE] = "a push onto the empty stack writes the eventfd",
    [INBOX_CLEAR_FIRST] = "the loop clears the eventfd before it empties the stack, not after",
    [INBOX_BY_CAS] = "pushes by compare-and-swap, not by load and store",
    [INBOX_TAKE_BY_XCHG] = "takes by exchange, not by load and store",
};

static void inbox_init(void) {
    static const char *const links[] = {"", "link 1", "link 2", "link 3", "link 4"};
    static const char *const datas[] = {"", "data 1", "data 2", "data 3", "data 4"};
    mo_atom(INBOX_HEAD, "head", 0);
    mo_atom(INBOX_EVENT, "eventfd", 0);
    for (int i = 1; i <= INBOX_NODES; i++) {
        mo_plain(INBOX_LINK + i, links[i], 0);
        mo_plain(INBOX_DATA + i, datas[i], 0);
    }
}

static void inbox_push(int node) {
    mo_set(INBOX_DATA + node, node);
    int head = mo_load(INBOX_HEAD, MO_RLX);
    for (;;) {
        mo_set(INBOX_LINK + node, head);
        int was = head;
        if (mo_step(INBOX_BY_CAS))
            was = mo_cas(INBOX_HEAD, head, node, mo_at(INBOX_AT_PUSH), MO_RLX);
        else
            mo_store(INBOX_HEAD, node, mo_at(INBOX_AT_PUSH));
        if (was == head)
            break;
        head = was;
    }
    if (head == 0 && mo_step(INBOX_WAKE))
        mo_event_write(INBOX_EVENT);
}
static void inbox_pusher_1(void) {
    inbox_push(1);
    inbox_push(2);
}
static void inbox_pusher_2(void) {
    inbox_push(3);
    if (mo_variant() == 1)
        inbox_push(4);
}

static int inbox_take(int got) {
    int node;
    if (mo_step(INBOX_TAKE_BY_XCHG))
        node = mo_xchg(INBOX_HEAD, 0, mo_at(INBOX_AT_TAKE));
    else {
        node = mo_load(INBOX_HEAD, mo_at(INBOX_AT_TAKE));
        mo_store(INBOX_HEAD, 0, MO_RLX);
    }
    while (node) {
        mo_assert(mo_get(INBOX_DATA + node) == node, "half a node");
        mo_assert(!(got >> node & 1), "taken twice");
        if (got >> node & 1)
            break;
        got |= 1 << node;
        int next = mo_get(INBOX_LINK + node);
        mo_set(INBOX_DATA + node, 0); /* the node is free from here on */
        mo_set(INBOX_LINK + node, 0);
        node = next;
    }
    return got;
}

static void inbox_loop(void) {
    int got = 0, all = mo_variant() == 1 ? 0x1e : 0xe;
    while (got != all) {
        mo_forget(got, 0);
        mo_await_not(INBOX_EVENT, 0, MO_RLX); /* poll */
        if (mo_step(INBOX_CLEAR_FIRST))
            mo_event_read(INBOX_EVENT);
        got = inbox_take(got);
        if (!mo_step(INBOX_CLEAR_FIRST))
            mo_event_read(INBOX_EVENT);
    }
}

static const struct mo_model inbox_model = {
    .name = "inbox of a loop",
    .variants = 2,
    .threads = 3,
    .thread = {inbox_loop, inbox_pusher_1, inbox_pusher_2},
    .thread_name = {"loop", "pusher 1", "pusher 2"},
    .init = inbox_init,
    .sites = inbox_sites,
    .n_sites = INBOX_SITES,
    .steps = inbox_steps,
    .n_steps = INBOX_STEPS,
};

#endif
