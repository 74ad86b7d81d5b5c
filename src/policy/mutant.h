/* SPDX-License-Identifier: Apache-2.0 */
/* mutant.h - bugs on purpose in the policies: the model test compiles them in, switches them on one
 * at a time, and has to notice each (tests/model). In the library they are the constant false. */
#ifndef KLAWI_POLICY_MUTANT_H
#define KLAWI_POLICY_MUTANT_H

/* X(name, what it breaks) */
#define KLAWI_POLICY_MUTANT_LIST(X)                                               \
    X(INTENSITY_MORE, "one restart more is allowed")                              \
    X(INTENSITY_LESS, "one restart less is allowed")                              \
    X(WINDOW_OPEN, "a restart exactly restart_window ago does not count")         \
    X(WINDOW_NONE, "restarts count for ever")                                     \
    X(FAILED_START_FREE, "a restart that could not start does not count")         \
    X(FIRST_START_RETRIED, "a first start that fails is tried again")             \
    X(ADDED_KEPT, "an added child that could not start is kept")                  \
    X(STOP_LEFT_TO_RIGHT, "children are stopped in the order of their starts")    \
    X(STOP_NO_WAIT, "the next child is stopped before the last one is gone")      \
    X(START_NO_WAIT, "the next child is started before the last one runs")        \
    X(NEVER_RESTARTED, "a NEVER child is restarted with its group")               \
    X(NORMAL_RESTARTED, "an ON_FAILURE child that ended normally is restarted")   \
    X(NORMAL_KEPT, "an ALWAYS child that ended normally is not restarted")        \
    X(REST_IS_ALL, "REST_FOR_ONE restarts everything")                            \
    X(REST_IS_ONE, "REST_FOR_ONE forgets those after the failed child")           \
    X(STOPPED_COUNTS, "a child that fails while its group stops counts")          \
    X(SHUTDOWN_IN_WAIT, "a shutdown in the middle of a backoff is lost")          \
    X(SHUTDOWN_IN_START, "a shutdown in the middle of a round of starts is lost") \
    X(NO_KILL, "the shutdown time never ends")                                    \
    X(KILL_IS_STOP, "a child without a shutdown time is asked first")             \
    X(ABANDONED_BLOCKS, "an abandoned child is waited for")                       \
    X(ALL_IS_ANY, "the first significant child's end is enough for all")          \
    X(ANY_IS_ALL, "any significant child's end is not enough")                    \
    X(SIGNIFICANT_STOP, "a significant child stopped by request ends it all")     \
    X(BACKOFF_KEPT, "ends in a row are counted for ever")                         \
    X(BACKOFF_LOST, "a group does not wait for the backoff")                      \
    X(STOP_CHILD_RESTARTS, "a child stopped by request during a round restarts")  \
    X(STOPPED_LEFT_OUT, "a group's STOPPED children are not restarted")           \
    X(DYNAMIC_KEPT, "a dynamic child that ended for good is kept")

/* Those of brokers and hubs, by the rules of docs/ray-protocol.md. */
#define KLAWI_REMOTE_MUTANT_LIST(X)                                                                \
    X(ANY_CHANNEL, "W2: a call for another channel is taken")                                      \
    X(ANY_BOOT, "W2: a call for an earlier boot is taken")                                         \
    X(VOID_DELIVERED, "W4: a void item is delivered")                                              \
    X(ANY_TYPE, "W5: a client with another kind or type is attached")                              \
    X(ATTACH_ANY_ORDER, "W5: an attach that comes late undoes a later one")                        \
    X(CLOSE_AT_ONCE, "W6: a close takes effect before what was sent is accepted")                  \
    X(TOKEN_IGNORED, "W7: a minted token does not count")                                          \
    X(CLAIM_IGNORED, "W7: a claimed token goes on counting")                                       \
    X(TOKEN_FOREVER, "W7: a token that nobody claims or states anew never ends")                   \
    X(TOKEN_NOT_RENEWED, "W7: a token ends though its minter lives")                               \
    X(NEVER_CLOSES, "W8: an empty side stays open")                                                \
    X(CLOSED_EARLY, "W8: receivers are told the end while items may come back")                    \
    X(BATCH_CUT, "W9: a batch is cut at the end of a frame")                                       \
    X(DUPLICATES_TAKEN, "W10: an item that came again is taken again")                             \
    X(GAPS_TAKEN, "W10: an item is taken before the one that was sent first")                      \
    X(NO_STASH, "W10: a frame that came early is dropped")                                         \
    X(DONE_FIRST_ONES, "W11: what is finished far behind an item that is not is never told")       \
    X(CAPACITY_IGNORED, "W12: a full channel takes more")                                          \
    X(OVERTAKES, "W12: a client overtakes those that wait for room")                               \
    X(SPACE_UNTOLD, "W12: nobody is told that there is room")                                      \
    X(GRANT_HASTY, "W12: who comes too late for its room never gets more time")                    \
    X(PLACE_KEPT, "W12: who gave up what it waited for goes on holding up the others")             \
    X(PUT_OVERTAKEN, "W12: one-item puts are overtaken for ever")                                  \
    X(GRANT_FOREVER, "W12: room that is not used is never offered to the next")                    \
    X(NOWAIT_WAITS, "W13: a no-wait item waits for room")                                          \
    X(REFUSED_SILENTLY, "W13: a refused item is told as enqueued")                                 \
    X(BATCH_SPLIT, "W13: a part of a batch is accepted")                                           \
    X(WITHDRAWN_RESENT, "W14: an item whose sender gave up is framed again")                       \
    X(UNCERTAIN_IS_OK, "W14: an item that was framed is told as withdrawn")                        \
    X(RETAINS_ALL, "W15: the hub keeps any number of bytes")                                       \
    X(KEEPS_NOTHING, "W15: the hub lets go of items when they are accepted")                       \
    X(NO_NEWS, "W16: a parked poll is not told of room or acknowledgements")                       \
    X(ANSWER_UNBOUNDED, "W16: an answer has more than its poll has room for")                      \
    X(ANSWER_LOST, "W17: a poll that comes again is answered without its items")                   \
    X(POLL_AGAIN_NEW, "W17: a poll that comes again is taken for a new one")                       \
    X(CREDIT_IGNORED, "W18: items are delivered to whom did not ask")                              \
    X(PREFETCHES, "W18: the hub asks for more than was consumed")                                  \
    X(KEEPS_UNUSED, "W18: items that nobody took do not go back on close")                         \
    X(KEEPS_IDLE, "W18: nor when nobody asks for them any more")                                   \
    X(PARKS_LONG, "W19: a poll is parked for ever")                                                \
    X(PARKS_ALL, "W19: any number of polls is parked")                                             \
    X(BEFORE_IS_NEXT, "W20: ack=before is acknowledged by the consumer")                           \
    X(CLOSE_ACKS, "W20: explicit: closing acknowledges what is held")                              \
    X(BEFORE_RETURNS, "W20: ack=before: an item that was handed out comes back")                   \
    X(BEFORE_RESENT, "W20: ack=before: an item is sent again to a new boot")                       \
    X(BEFORE_AFTER, "W28: ack=before: an item goes out before it is on disk that it was received") \
    X(ACK_DROPPED, "W20: an acknowledgement is forgotten")                                         \
    X(RETURNED_LAST, "W21: returned items go to the end")                                          \
    X(RETURNED_REVERSED, "W21: returned items lose their order")                                   \
    X(RETURNED_UNMARKED, "W21: returned items are not marked")                                     \
    X(RETURNED_COUNTS, "W21: returned items take room")                                            \
    X(LATE_ACK_TAKEN, "W22: a late acknowledgement ends another's lease")                          \
    X(DEATH_IGNORED, "W23: a client's death has no effect")                                        \
    X(DEATH_ACKS, "W23: what a dead client held counts as received")                               \
    X(DEAD_COUNTED, "W23: a dead client's endpoints go on counting")                               \
    X(LEASE_FOREVER, "W24: a silent client lives for ever")                                        \
    X(NO_RENEW, "W24: the hub does not renew its lease")                                           \
    X(LEASE_UNLEARNT, "W24: the hub renews every 5 s, however short the lease is")                 \
    X(FORGETS_EARLY, "W25: a dead client's numbers are forgotten at once")                         \
    X(HAD_KEPT, "W26: what was received of senders long gone is kept, and told, for ever")         \
    X(RESENT_UNMARKED, "W26: what is sent again to a new boot is not marked")                      \
    X(RECEIVED_FORGOTTEN, "W27: what was received before a restart is delivered again")            \
    X(NO_GATHER, "W27: a new boot delivers at once")                                               \
    X(CLOSES_IN_HOLD, "W27: a side closes before everybody may have come back")                    \
    X(LOSS_UNCOUNTED, "W27: lost items are not counted")                                           \
    X(CONFIRMED_EARLY, "W28: an answer goes out before its effects are on disk")                   \
    X(DELIVERED_EARLY, "W28: an item is delivered before it is on disk")                           \
    X(JOURNAL_WHOLE, "W28: what waits for the disk is one transaction, however large")             \
    X(WINDOW_BOUND, "W28: a log is damaged when an item was held up for long")                     \
    X(ACKS_UNWRITTEN, "W28: acknowledgements are not written")                                     \
    X(FAILURE_UNTOLD, "W28: nobody is told that the journal can't be written")                     \
    X(DELETE_UNTOLD, "W29: parked polls are not told of the deletion")                             \
    X(DETACH_ABRUPT, "W30: the hub detaches before all is confirmed")                              \
    X(DETACH_STUCK, "W30: a detach that failed once waits for a token to be stated again")         \
    X(EXPIRED_KEPT, "W3: an item past its deadline is delivered")

#if defined(KLAWI_POLICY_MUTANTS)
enum klawi_policy_mutant {
    KLAWI_PM_NONE = 0,
#define KLAWI_POLICY_MUTANT_ENUM(name, text) KLAWI_PM_##name,
    KLAWI_POLICY_MUTANT_LIST(KLAWI_POLICY_MUTANT_ENUM) KLAWI_PM_COUNT,
    KLAWI_PM_REMOTE = 1000,
    KLAWI_REMOTE_MUTANT_LIST(KLAWI_POLICY_MUTANT_ENUM) KLAWI_PM_REMOTE_END
#undef KLAWI_POLICY_MUTANT_ENUM
};
/* Which bug is switched on. */
extern int klawi_policy_mutant;
#define KLAWI_POLICY_MUTANT(id) (klawi_policy_mutant == KLAWI_PM_##id)
#else
#define KLAWI_POLICY_MUTANT(id) 0
#endif

#endif
