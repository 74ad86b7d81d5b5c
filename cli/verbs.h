/* SPDX-License-Identifier: Apache-2.0 */
/* verbs.h - the verbs, one file or folder each; main.c has them in one table. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include <unistd.h>

#include "client.h"

/* The live view in a browser, where libmicrohttpd was there to build with. */
extern const cli_verb cli_ui_verb;
int cli_run_ui(int argc, char **argv);

extern const cli_verb cli_ps, cli_top, cli_tree, cli_stats_verb, cli_doctor, cli_channel_verb,
    cli_workflow, cli_run_jobs, cli_completion_verb;

int cli_run_ps(int argc, char **argv);
int cli_run_top(int argc, char **argv);
int cli_run_tree(int argc, char **argv);
int cli_run_stats(int argc, char **argv);
int cli_run_doctor(int argc, char **argv);
int cli_run_channel(int argc, char **argv);
int cli_run_workflow(int argc, char **argv);
int cli_run_run_jobs(int argc, char **argv);
int cli_run_completion(int argc, char **argv);

#endif
