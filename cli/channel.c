/* SPDX-License-Identifier: Apache-2.0 */
/* channel.c - klaw channel: named channels on Ray, for pipes and by hand.
 *
 * An element counts as received when it has been written: the next one is asked for, or the receiver
 * closed, after that. One that could not be written is given back. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <klaw/klaw.h>
#include <klaw/remote.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "pack.h"
#include "verbs.h"

#define SLICE KLAW_MS(200) /* how long a signal may have to wait */

static const char *const usage[] = {"ls [options]",
                                    "stats [--json] [--every T] [options] NAME",
                                    "tail [-n N] [-f] [--json] [options] NAME",
                                    "send [--json] [options] NAME < lines",
                                    "recv [--json] [-n N] [--timeout T] [options] NAME",
                                    "rm [options] NAME...",
                                    NULL};
static const cli_option options[] = {
    {"json", 'j', NULL,
     "a line is a JSON value, in Python the object; else a text; stats: one object a line", NULL},
    {"count", 'n', "N",
     "recv: so many, then end (until the channel is closed); tail: the last N (10)", ""},
    {"follow", 'f', NULL, "tail: goes on with what comes", NULL},
    {"every", 'e', "T", "stats: again and again; tail -f: how often it looks (1s)", "500ms 1s 5s"},
    {"timeout", 't', "T", "recv, send: how long to wait for one element, or for room (for ever)",
     "1s 10s 1m"},
    {"make", 'm', NULL, "send, recv: make the channel when it is not there", NULL},
    {"capacity", 'c', "N", "of a channel that is made (10000)", ""},
    {"address", 'a', "ADDRESS", "of the cluster, \"host:port\" or \"auto\" (RAY_ADDRESS)", "auto"},
    {"namespace", 'N', "NAME", "of names (KLAW_RAY_NAMESPACE, else klaw)", ""},
    {0},
};
const cli_verb cli_channel_verb = {
    .name = "channel",
    .usage = usage,
    .summary = "named channels on Ray: list, look into, send, receive, remove",
    .about =
        "Works with the named channels of klaw programs on a Ray cluster. ls prints their names. "
        "send "
        "reads lines from its input and sends each as a text (Python sees str), or with --json as "
        "the "
        "value it is. recv prints what it receives, a line each, until the channel is closed and "
        "empty. rm ends a channel for everyone.\n\n"
        "stats prints the counters of a channel. tail prints the last elements that wait in a "
        "queue and "
        "leaves them there; with -f it goes on with what comes, until the channel is removed or "
        "Ctrl-C. "
        "It looks from time to time: what was received between two looks is not seen. Neither "
        "counts as "
        "a sender or receiver.\n\n"
        "A channel closes when the last of its senders, or of its receivers, has gone: where only "
        "shells send, one that stays keeps it open.\n\n"
        "An element counts as received when it has been printed: one whose line could not be "
        "written, "
        "or whose reader was killed, goes to somebody else. A text with line breaks in it is "
        "several lines; --json keeps them apart. Bytes in a value are shown as {\"base16\": "
        "\"...\"}.\n\n"
        "It needs libklaw_ray, and a Python with klaw_core and Ray (KLAW_PYTHON).",
    .options = options,
    .examples =
        "klaw channel recv --json jobs | jq .name\twhat comes\n"
        "seq 100 | klaw channel send --json numbers\tint in Python\n"
        "klaw channel stats --json --every 1s jobs | jq .queued\tits length, a line a second\n"
        "klaw channel tail -n 3 -f jobs\twhat waits, without taking it\n"
        "klaw channel recv -n 1 -t 10s jobs\tone, or exit status 1",
    .exits =
        "0 done; 1 nothing came in time, or something was not what it should be; 2 wrong usage, or "
        "no such channel; 3 no cluster, or it failed; 130 after Ctrl-C.",
    .words = "ls stats tail send recv rm",
    .run = cli_run_channel,
};

volatile sig_atomic_t cli_channel_stopped;

static void on_signal(int number) {
    cli_channel_stopped = number;
}

int cli_channel_explain(const char *what, klaw_err e, const klaw_error_info *info) {
    char clean[400];
    cli_clean(clean, sizeof clean, *info->message ? info->message : klaw_err_text(e), 300);
    fprintf(stderr, "klaw channel: %s: %s\n", what, clean);
    return e == KLAW_NOT_FOUND || e == KLAW_INVALID ? EXIT_USAGE : EXIT_TROUBLE;
}

/* ---- ls, rm ---- */

static bool print_name(void *user, const char *name) {
    (void)user;
    cli_put(stdout, name, 500, false);
    putchar('\n');
    return !ferror(stdout);
}

static int list(const cli_request *r) {
    klaw_error_info info = {0};
    klaw_err e = klaw_remote_list(&r->opts, print_name, NULL, &info);
    return e ? cli_channel_explain("ls", e, &info) : EXIT_FINE;
}

static int delete_all(const cli_request *r, char **names, int n) {
    int code = EXIT_FINE;
    for (int i = 0; i < n; i++) {
        klaw_error_info info = {0};
        klaw_err e = klaw_remote_delete(names[i], &r->opts, &info);
        int one = e ? cli_channel_explain(names[i], e, &info) : EXIT_FINE;
        code = one > code ? one : code;
    }
    return code;
}

/* ---- send ---- */

/* A line as an element. False: it is none, which is told. */
static bool element_of(const cli_request *r, char *line, size_t n, uint64_t number, void *elem) {
    json_error_t why;
    if (!r->json)
        return klaw_blob_new(line, n, elem) == KLAW_OK;
    *(json_t **)elem = json_loadb(line, n, JSON_DECODE_ANY, &why);
    if (!*(json_t **)elem)
        fprintf(stderr, "klaw channel: line %" PRIu64 " is no JSON: %s\n", number, why.text);
    return *(json_t **)elem != NULL;
}

static int send_lines(const cli_request *r, const klaw_type *type, klaw_sender *tx,
                      const char *name) {
    char *line = NULL;
    size_t room = 0;
    uint64_t number = 0;
    int code = EXIT_FINE;
    for (ssize_t n; code != EXIT_TROUBLE && (n = getline(&line, &room, stdin)) >= 0;) {
        void *elem = NULL;
        n -= n > 0 && line[n - 1] == '\n';
        number++;
        if (!element_of(r, line, (size_t)n, number, &elem)) {
            code = EXIT_FOUND;
            continue;
        }
        klaw_err e = klaw_send(tx, &elem, r->timeout ? KLAW_WITHIN(r->timeout) : KLAW_FOREVER);
        if (e) {
            klaw_error_info info = {0};
            if (klaw_remote_sender_trouble(tx, &info) != KLAW_OK)
                *info.message = 0;
            type->drop(&elem);
            (void)cli_channel_explain(name, e, &info);
            code = e == KLAW_TIMEOUT ? EXIT_FOUND : EXIT_TROUBLE;
            if (e == KLAW_TIMEOUT)
                break;
        }
    }
    free(line);
    return code;
}

/* ---- recv ---- */

static bool print_element(const cli_request *r, void *elem) {
    if (r->json) {
        (void)json_dumpf(elem, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    } else {
        klaw_blob *text = elem;
        fwrite(klaw_blob_data(text), 1, klaw_blob_size(text), stdout);
    }
    putchar('\n');
    return fflush(stdout) == 0 && !ferror(stdout);
}

/* Waits in slices, so that a signal is noticed. */
static klaw_err next(const cli_request *r, klaw_receiver *rx, void *elem) {
    int64_t until = r->timeout ? klaw_now() + r->timeout : INT64_MAX;
    for (;;) {
        int64_t rest = until - klaw_now();
        klaw_err e = klaw_recv(rx, elem, KLAW_WITHIN(rest > SLICE ? SLICE : rest > 1 ? rest : 1));
        if (cli_channel_stopped)
            return e == KLAW_OK ? KLAW_OK : KLAW_CANCELLED;
        if (e != KLAW_TIMEOUT || klaw_now() >= until)
            return e;
    }
}

static int receive(const cli_request *r, const klaw_type *type, klaw_receiver *rx,
                   const char *name) {
    int code = EXIT_FINE;
    for (uint64_t i = 0; !cli_channel_stopped && (r->count == 0 || i < r->count); i++) {
        void *elem = NULL;
        klaw_error_info info = {0};
        klaw_err e = next(r, rx, &elem);
        if (e == KLAW_CLOSED || e == KLAW_CANCELLED)
            break;
        if (e == KLAW_TIMEOUT)
            return EXIT_FOUND;
        if (e == KLAW_TYPE) {
            fprintf(stderr, "klaw channel: an element of %s is no %s%s\n", name,
                    r->json ? "MessagePack" : "text", r->json ? "" : "; --json may show it");
            code = EXIT_FOUND;
            continue;
        }
        if (e) {
            if (klaw_remote_receiver_trouble(rx, &info) != KLAW_OK)
                *info.message = 0;
            return cli_channel_explain(name, e, &info);
        }
        bool written = print_element(r, elem);
        type->drop(&elem);
        if (!written) {
            klaw_remote_delivery last;
            if (klaw_remote_last(rx, &last) == KLAW_OK)
                e = klaw_remote_return(rx, last.lease);
            return EXIT_TROUBLE;
        }
    }
    return cli_channel_stopped ? 128 + cli_channel_stopped : code;
}

static int move(const cli_request *r, bool send, const char *name) {
    klaw_error_info info = {0};
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    const klaw_type *type = r->json ? &cli_json_type : &klaw_text;
    klaw_err e =
        r->make
            ? klaw_remote_channel(name, type, &r->opts, send ? &tx : NULL, send ? NULL : &rx, &info)
            : klaw_remote_get(name, type, &r->opts, send ? &tx : NULL, send ? NULL : &rx, &info);
    if (e)
        return cli_channel_explain(name, e, &info);
    int code = send ? send_lines(r, type, tx, name) : receive(r, type, rx, name);
    klaw_sender_unref(tx);
    klaw_receiver_unref(rx);
    e = klaw_remote_leave(klaw_after(KLAW_S(5)));
    return e && code == EXIT_FINE ? EXIT_TROUBLE : code;
}

/* ---- the command line ---- */

static bool take(cli_request *r, int id, const char *value) {
    char *end;
    errno = 0;
    switch (id) {
    case 'j': r->json = r->opts.packed = true; return true;
    case 'f': r->follow = true; return true;
    case 'e': return cli_parse_duration(value, &r->every) && r->every >= KLAW_MS(1);
    case 'm': r->make = true; return true;
    case 'a': r->opts.address = value; return *value != 0;
    case 'N': r->opts.namespace_ = value; return *value != 0;
    case 't': return cli_parse_duration(value, &r->timeout) && r->timeout > 0;
    case 'n':
        r->count = strtoull(value, &end, 10);
        return !*end && !errno && *value && *value != '-' && (r->counted = true);
    case 'c':
        r->opts.capacity = strtoll(value, &end, 10);
        return !*end && !errno && r->opts.capacity > 0;
    default: return false;
    }
}

/* The first signal ends the command properly, a further one at once. */
static void listen_to_signals(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int run(const cli_request *r, int n, char **args) {
    static const char *const whats[] = {"ls", "stats", "tail", "send", "recv", "rm"};
    enum { LS, STATS, TAIL, SEND, RECV, RM, NONE } what = LS;
    if (n > 0)
        while (what < NONE && strcmp(args[0], whats[what]) != 0)
            what++;
    if (what == NONE || (what == LS && n > 1))
        return cli_usage(&cli_channel_verb, "ls, stats, tail, send, recv or rm, not '%.40s'",
                         what == LS ? args[1] : args[0]);
    if (what == LS)
        return list(r);
    if (n < 2)
        return cli_usage(&cli_channel_verb, "which channel? A name is missing");
    if (what == RM)
        return delete_all(r, args + 1, n - 1);
    if (n > 2)
        return cli_usage(&cli_channel_verb, "one channel at a time");
    if (what == RECV && r->counted && r->count == 0)
        return cli_usage(&cli_channel_verb, "-n does not take '0'");
    if (what == RECV || (what == STATS && r->every) || (what == TAIL && r->follow))
        listen_to_signals();
    if (what == STATS)
        return cli_channel_stats(r, args[1]);
    if (what == TAIL)
        return cli_channel_tail(r, args[1]);
    return move(r, what == SEND, args[1]);
}

int cli_run_channel(int argc, char **argv) {
    cli_request r = {0};
    const char *value;
    int id;
    while ((id = cli_next(&cli_channel_verb, argc, argv, &value)) > 0) {
        if (id == '?')
            return EXIT_USAGE;
        if (!take(&r, id, value))
            return cli_usage(&cli_channel_verb, "-%c does not take '%s'", id, value ? value : "");
    }
    if (id == 0)
        return EXIT_FINE;
    return run(&r, argc - optind, argv + optind);
}
