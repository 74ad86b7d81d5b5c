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

#if defined(KLAWI_POLICY_MUTANTS)
enum klawi_policy_mutant {
    KLAWI_PM_NONE = 0,
#define KLAWI_POLICY_MUTANT_ENUM(name, text) KLAWI_PM_##name,
    KLAWI_POLICY_MUTANT_LIST(KLAWI_POLICY_MUTANT_ENUM)
#undef KLAWI_POLICY_MUTANT_ENUM
        KLAWI_PM_COUNT
};
/* Which bug is switched on. */
extern int klawi_policy_mutant;
#define KLAWI_POLICY_MUTANT(id) (klawi_policy_mutant == KLAWI_PM_##id)
#else
#define KLAWI_POLICY_MUTANT(id) 0
#endif

#endif
