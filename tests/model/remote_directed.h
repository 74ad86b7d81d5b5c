/* SPDX-License-Identifier: Apache-2.0 */
/* remote_directed.h - the list of short scenes, each for one rule of docs/ray-protocol.md that random
 * histories seldom show. */
#ifndef KLAW_TESTS_MODEL_REMOTE_DIRECTED_H
#define KLAW_TESTS_MODEL_REMOTE_DIRECTED_H

#include "model/remote_scenes_long.h"
#include "model/remote_scenes_recv.h"
#include "model/remote_scenes_send.h"

static const struct {
    const char *name;
    void (*run)(void);
} scenes[] = {
#define SCENE(name) \
    { #name, name }
    SCENE(w3_deadline),
    SCENE(w12_batch_is_not_overtaken),
    SCENE(w12_large_batch_gets_in),
    SCENE(w12_late_ones_get_more_time),
    SCENE(w21_back_in_order_of_two),
    SCENE(w28_restored),
    SCENE(w28_failed_disk_is_told),
    SCENE(w28_before_is_written_first),
    SCENE(w2_foreign_channel),
    SCENE(w5_other_type),
    SCENE(w6_close_comes_last),
    SCENE(w7_tokens_count),
    SCENE(w7_token_lives_as_its_minter),
    SCENE(w7_claimed_tokens_are_not_stated_to_a_new_boot),
    SCENE(w9_batches_share_a_frame),
    SCENE(w16_answers_have_room),
    SCENE(w10_early_frame_waits),
    SCENE(w12_in_turn),
    SCENE(w13_nowait),
    SCENE(w27_liars_harm_nobody),
    SCENE(w14_withdrawn),
    SCENE(w15_retains),
    SCENE(w16_acks_are_told),
    SCENE(w18_unused_go_back),
    SCENE(w18_idle_gives_back),
    SCENE(w19_few_are_parked),
    SCENE(w20_before),
    SCENE(w20_explicit_is_returned),
    SCENE(w20_before_is_not_resent),
    SCENE(w21_back_in_order),
    SCENE(w21_back_takes_no_room),
    SCENE(w24_lease_is_learnt),
    SCENE(w25_remembered),
    SCENE(w27_not_again),
    SCENE(w27_lost_is_told),
    SCENE(w28_nothing_before_the_disk),
    SCENE(w29_deleted),
    SCENE(w29_deleted_while_the_disk_writes),
    SCENE(w30_detach_comes_last),
    SCENE(w30_detach_goes_on),
    SCENE(w11_all_that_is_finished_is_told),
    SCENE(w12_given_up_places_go_on),
    SCENE(w12_given_up_puts_go_on),
    SCENE(w26_senders_are_forgotten),
    SCENE(w26_closed_receivers_are_forgotten),
    SCENE(w28_much_is_written_in_parts),
    SCENE(w28_too_much_is_refused),
    SCENE(w28_one_item_may_be_held_up_for_long),
};
#define SCENES (sizeof scenes / sizeof *scenes)

#endif
