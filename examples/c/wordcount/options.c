/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - the command line. */
#include "wordcount.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const char help[] =
    "usage: wordcount [options] [FILE|FOLDER ...]\n"
    "\n"
    "Counts words, on all processors at once. Folders are read with everything below them; '-' is\n"
    "the standard input. Without arguments it looks for text on this machine: documentation and\n"
    "licences first, then manual pages, headers and scripts, until it has found enough.\n"
    "\n"
    "  -n, --top N          show the N most frequent words (20; 0: none)\n"
    "  -j, --workers N      count with N fibers (one per processor)\n"
    "  -a, --all            in folders, read compressed files and images too; else they are "
    "skipped\n"
    "      --min-bytes N    how much text is enough without arguments (20000000; K, M, G after "
    "the\n"
    "                       number mean thousands, millions, billions)\n"
    "      --rate N         read at most N bytes a second, for who wants to look at it with klaw "
    "top\n"
    "      --backend B      'local', or 'ray': workers of a Ray cluster count (see klaw/remote.h)\n"
    "      --json           the result as one JSON object\n"
    "      --chaos[=P]      make a counter fail at P percent of the chunks it counts (10), on "
    "purpose\n"
    "                       with --backend ray: kill its workers and channels, P percent a chunk\n"
    "      --seed N         chance of the chaos (another one each time)\n"
    "      --resume         go on from the checkpoint that an interrupted run of the same input "
    "left\n"
    "      --store FILE     keep the checkpoint there (~/.klaw/checkpoints/wordcount.db)\n"
    "      --checkpoint-every T  keep one every 500ms, 2s (1s)\n"
    "      --no-checkpoint  keep none\n"
    "      --progress       a progress line on stderr even if that is no terminal, one a second\n"
    "      --no-progress    never a progress line\n"
    "  -h, --help           this text\n"
    "\n"
    "A word is a run of ASCII letters, digits and bytes from 0x80 up, in lower case; everything "
    "else\n"
    "separates words, and so does the end of a file. Links inside folders are not followed; "
    "pipes,\n"
    "sockets and devices are read only when they are named.\n"
    "\n"
    "How it works: one fiber walks the folders, some read, one per processor counts into a table "
    "of\n"
    "its own, and one adds the tables up. They are connected by bounded channels, so a fast "
    "reader\n"
    "waits for slow counters and the memory stays the same however much there is to read. The end "
    "of\n"
    "the report shows those channels: if 'chunks' was full (high = capacity), counting was the\n"
    "bottleneck, otherwise reading was.\n"
    "\n"
    "The counters are supervised: one that fails is started again, and what it had not handed over "
    "is\n"
    "counted again by its successor. --chaos shows that the totals stay the same.\n"
    "\n"
    "A run that takes longer than a second leaves checkpoints behind; so does Ctrl-C. After that, "
    "or "
    "a\n"
    "crash, or kill -9, the same command with --resume counts what is missing. A run that ends "
    "well\n"
    "removes its checkpoint. Input that comes through pipes can't be read again and has none.\n"
    "\n"
    "Ctrl-C stops the reading, counts what has been read and reports that; a second one stops at\n"
    "once. What can't be read is reported on stderr and skipped.\n"
    "\n"
    "Exit status: 0; 1 when nothing could be read, or --resume finds another input than the "
    "checkpoint's\n"
    "or a damaged store; 2 for wrong options; 130 after Ctrl-C.\n"
    "\n"
    "Examples:\n"
    "  wordcount                          the text of this machine\n"
    "  wordcount -n 5 README.md docs      one file and one folder\n"
    "  curl -s https://... | wordcount -  what comes through a pipe\n";

enum {
    OPT_JSON = 256,
    OPT_MIN_BYTES,
    OPT_PROGRESS,
    OPT_NO_PROGRESS,
    OPT_CHAOS,
    OPT_SEED,
    OPT_RESUME,
    OPT_STORE,
    OPT_EVERY,
    OPT_NO_CHECKPOINT,
    OPT_BACKEND,
    OPT_RATE
};

static const struct option long_options[] = {
    {"top", required_argument, NULL, 'n'},
    {"workers", required_argument, NULL, 'j'},
    {"all", no_argument, NULL, 'a'},
    {"min-bytes", required_argument, NULL, OPT_MIN_BYTES},
    {"rate", required_argument, NULL, OPT_RATE},
    {"backend", required_argument, NULL, OPT_BACKEND},
    {"json", no_argument, NULL, OPT_JSON},
    {"progress", no_argument, NULL, OPT_PROGRESS},
    {"no-progress", no_argument, NULL, OPT_NO_PROGRESS},
    {"chaos", optional_argument, NULL, OPT_CHAOS},
    {"seed", required_argument, NULL, OPT_SEED},
    {"resume", no_argument, NULL, OPT_RESUME},
    {"store", required_argument, NULL, OPT_STORE},
    {"checkpoint-every", required_argument, NULL, OPT_EVERY},
    {"no-checkpoint", no_argument, NULL, OPT_NO_CHECKPOINT},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* A decimal number up to max, with K, M or G if `units`. */
static bool number(const char *text, uint64_t max, bool units, uint64_t *out) {
    char *end;
    uint64_t unit = 1;
    errno = 0;
    if (text[0] < '0' || text[0] > '9')
        return false;
    unsigned long long n = strtoull(text, &end, 10);
    if (units && *end && strchr("KMG", *end)) {
        unit = *end == 'K' ? 1000 : *end == 'M' ? 1000000 : 1000000000;
        end++;
    }
    if (errno || *end || n > max / unit)
        return false;
    *out = n * unit;
    return true;
}

/* "500ms", "2s" or "2", in ns. */
static bool duration(const char *text, int64_t *out) {
    char digits[24];
    uint64_t n;
    size_t size = strspn(text, "0123456789");
    const char *unit = text + size;
    bool ms = strcmp(unit, "ms") == 0;
    if (size == 0 || size >= sizeof digits || (*unit && !ms && strcmp(unit, "s") != 0))
        return false;
    memcpy(digits, text, size);
    digits[size] = 0;
    if (!number(digits, 1000000, false, &n))
        return false;
    *out = (int64_t)n * (ms ? 1000000 : 1000000000);
    return true;
}

/* A seed that nobody asked for. */
static uint64_t any_seed(void) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = (uint64_t)getpid();
    return seed & 0xffffffff;
}

static int wrong(const char *option, const char *value) {
    fprintf(stderr, "wordcount: %s does not take '%s'; --help explains\n", option, value);
    return EXIT_USAGE;
}

int options_parse(int argc, char **argv, options *out) {
    int c;
    uint64_t n;
    *out = (options){.top = 20, .min_bytes = 20000000, .progress = -1, .every = 1000000000};
    out->seed = any_seed();
    while ((c = getopt_long(argc, argv, "n:j:ah", long_options, NULL)) != -1) {
        switch (c) {
        case 'n':
            if (!number(optarg, SIZE_MAX / 2, false, &n))
                return wrong("--top", optarg);
            out->top = (size_t)n;
            break;
        case 'j':
            if (!number(optarg, 1024, false, &n) || n == 0)
                return wrong("--workers (1 to 1024)", optarg);
            out->workers = (int)n;
            break;
        case OPT_MIN_BYTES:
            if (!number(optarg, UINT64_MAX / 2, true, &out->min_bytes))
                return wrong("--min-bytes", optarg);
            break;
        case OPT_RATE:
            if (!number(optarg, INT64_MAX, true, &out->rate) || out->rate < 1000)
                return wrong("--rate (1K and more)", optarg);
            break;
        case OPT_CHAOS:
            n = 10;
            if (optarg && (!number(optarg, 50, false, &n) || n == 0))
                return wrong("--chaos (1 to 50)", optarg);
            out->chaos = (int)n;
            break;
        case OPT_SEED:
            if (!number(optarg, UINT64_MAX, false, &out->seed))
                return wrong("--seed", optarg);
            break;
        case OPT_EVERY:
            if (!duration(optarg, &out->every))
                return wrong("--checkpoint-every", optarg);
            break;
        case OPT_STORE:
            if (!*optarg)
                return wrong("--store", optarg);
            out->store = optarg;
            break;
        case OPT_BACKEND:
            out->ray = strcmp(optarg, "ray") == 0;
            if (!out->ray && strcmp(optarg, "local") != 0)
                return wrong("--backend (local or ray)", optarg);
            break;
        case OPT_RESUME: out->resume = true; break;
        case OPT_NO_CHECKPOINT: out->no_checkpoint = true; break;
        case 'a': out->all = true; break;
        case OPT_JSON: out->json = true; break;
        case OPT_PROGRESS: out->progress = 1; break;
        case OPT_NO_PROGRESS: out->progress = 0; break;
        case 'h': return fputs(help, stdout) < 0 ? EXIT_NOTHING_READ : 0;
        default: fputs("Try 'wordcount --help'.\n", stderr); return EXIT_USAGE;
        }
    }
    if (out->resume && out->no_checkpoint) {
        fputs("wordcount: --resume and --no-checkpoint exclude each other\n", stderr);
        return EXIT_USAGE;
    }
    out->paths = argv + optind;
    out->n_paths = argc - optind;
    return OPTIONS_GO_ON;
}
