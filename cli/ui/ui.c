/* SPDX-License-Identifier: Apache-2.0 */
/* ui.c - klaw ui: the live view as a web page, for one user on this machine.
 *
 * The server is libmicrohttpd with a thread a connection, since an event stream is a thread that sleeps. It listens on
 * 127.0.0.1 alone. Who may ask:
 *   U1  the address that is printed carries a token of 128 random bits that is good once: it is exchanged for a
 *       cookie (HttpOnly, SameSite=Strict), and a new address is printed. Nothing else is answered without the cookie, but
 *       for /metrics, which also takes the bearer token of --metrics-token.
 *   U2  the Host header is ours: a page of another name that resolves to 127.0.0.1 gets nothing (DNS rebinding).
 *   U3  the page may load from here only (Content-Security-Policy), and nobody may frame it.
 *   U4  who has not shown a cookie or token yet has UNKNOWN_S seconds for it, and of the CONNECTIONS places other users'
 *       programs (a scraper) get OTHERS at a time: they can't shut the user out.
 *
 * Tokens are compared in constant time. `guard` guards tokens and sessions; nothing waits while it is held. */
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../client.h"
#include "../verbs.h"
#include "metrics.h"

#define TOKEN 32 /* hex digits */
#define SESSIONS 16
#define CONNECTIONS 64
#define OTHERS 16
#define UNKNOWN_S 5u
#define KNOWN_S 120u

static const char *const usage[] = {"[--port N] [--metrics-token FILE]", NULL};
static const cli_option options[] = {
    {"port", 'p', "N", "listen there; else on a free port", ""},
    {"metrics-token", 'm', "FILE", "/metrics also takes the bearer token in this file", "FILE"},
    {0},
};
const cli_verb cli_ui_verb = {
    .name = "ui",
    .usage = usage,
    .summary = "the live view in a browser",
    .about =
        "Serves a page that shows the processes open to inspection: the flow of elements through "
        "their channels, "
        "the supervision tree, restarts, and tables of everything to sort and filter.\n\n"
        "It listens on this machine alone. The address that it prints is good for one browser; "
        "when it has been used "
        "another one is printed. /metrics has the same numbers for Prometheus. Ends with Ctrl-C.",
    .options = options,
    .examples = "klaw ui\tprints the address to open\n"
                "klaw ui --port 8800 --metrics-token ~/.klaw-metrics\tfor a scraper, too",
    .run = cli_run_ui,
};

extern const char cli_ui_index[], cli_ui_index_end[], cli_ui_style[], cli_ui_style_end[],
    cli_ui_app[], cli_ui_app_end[], cli_ui_worker[], cli_ui_worker_end[];

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char token[TOKEN + 1];              /* (guard) good once */
static char sessions[SESSIONS][TOKEN + 1]; /* (guard) "": free */
static size_t next_session;                /* (guard) the oldest goes when all are taken */
static char metrics_token[256];            /* (c) "": none */
static _Atomic unsigned port;              /* set once, when it is known */
static _Atomic unsigned others;            /* connections of other users' programs */
static char cookie_name[24]; /* (c) of our port: a browser keeps cookies by address alone */

static bool draw_token(char out[TOKEN + 1]) {
    unsigned char bytes[TOKEN / 2];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return false;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return true;
}

/* Takes as long whatever is wrong. */
static bool same(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    unsigned char differ = n != m || n == 0;
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned char)(a[i] ^ b[m ? i % m : 0]);
    return differ == 0;
}

static void print_address(void) {
    char now[TOKEN + 1];
    pthread_mutex_lock(&guard);
    memcpy(now, token, sizeof now);
    pthread_mutex_unlock(&guard);
    printf("klaw ui: http://127.0.0.1:%u/?token=%s\n", port, now);
    fflush(stdout);
}

/* ---- answers ---- */

static enum MHD_Result give(struct MHD_Connection *c, unsigned status, struct MHD_Response *r,
                            const char *type) {
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(
        r, "Content-Security-Policy",
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'");
    enum MHD_Result done = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return done;
}

static enum MHD_Result give_text(struct MHD_Connection *c, unsigned status, const char *text) {
    return give(c, status,
                MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                MHD_RESPMEM_PERSISTENT),
                "text/plain; charset=utf-8");
}

static enum MHD_Result give_asset(struct MHD_Connection *c, const char *from, const char *end,
                                  const char *type) {
    return give(c, MHD_HTTP_OK,
                MHD_create_response_from_buffer((size_t)(end - from), (void *)(uintptr_t)from,
                                                MHD_RESPMEM_PERSISTENT),
                type);
}

static enum MHD_Result give_owned(struct MHD_Connection *c, char *text, size_t size,
                                  const char *type) {
    return text ? give(c, MHD_HTTP_OK,
                       MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE), type)
                : give_text(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
}

static enum MHD_Result give_processes(struct MHD_Connection *c) {
    cli_process *all = NULL;
    size_t n = 0, size = 0, shown = 0;
    char *text = NULL;
    FILE *out = open_memstream(&text, &size);
    if (!out || !cli_processes(&all, &n)) {
        if (out)
            fclose(out);
        free(text);
        return give_owned(c, NULL, 0, NULL);
    }
    fputc('[', out);
    for (size_t i = 0; i < n; i++) {
        cli_link link;
        cli_stats stats;
        char name[80];
        size_t length;
        if (!cli_link_open(&link, &all[i]))
            continue;
        link.patience = 2000; /* one that is stopped does not hold up the list */
        char *answer = cli_ask(&link, "stats", &length);
        if (answer && cli_stats_parse(answer, length, &stats)) {
            cli_clean(name, sizeof name, stats.program, 60);
            fprintf(out, "%s{\"pid\":%ld,\"program\":\"", shown++ ? "," : "", all[i].pid);
            for (const char *p = name; *p; p++)
                fprintf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
            fputs("\"}", out);
        }
        free(answer);
        cli_link_close(&link);
    }
    fputs("]\n", out);
    free(all);
    if (fclose(out) != 0) {
        free(text);
        text = NULL;
    }
    return give_owned(c, text, size, "application/json");
}

/* ---- the event stream ---- */

typedef struct stream {
    cli_link link;
    struct timespec next; /* when the next sample is due, of CLOCK_MONOTONIC */
    long period_ms;
    char *text; /* what is being sent; NULL: nothing */
    size_t size, sent;
    bool over; /* what is being sent is the last */
} stream;

static void stream_free(void *p) {
    stream *s = p;
    cli_link_close(&s->link);
    free(s->text);
    free(s);
}

/* One sample as an event; false: no memory. */
static bool stream_sample(stream *s) {
    size_t size = 0;
    char *answer = s->link.fd >= 0 ? cli_ask(&s->link, "snapshot", &size) : NULL;
    FILE *out = open_memstream(&s->text, &s->size);
    if (out && answer) {
        /* The JSON is one line and ends in a newline: as the data of an event wants it. */
        fputs("event: snapshot\ndata: ", out);
        fwrite(answer, 1, size, out);
        fputc('\n', out);
    } else if (out) {
        char why[sizeof s->link.why];
        size_t n = 0;
        for (const char *p = s->link.why; *p && n + 1 < sizeof why; p++)
            why[n++] = *p == '"' || *p == '\\' || (unsigned char)*p < ' ' ? '\'' : *p;
        why[n] = '\0';
        fprintf(out, "event: gone\ndata: {\"why\":\"%s\"}\n\n", why);
        s->over = true;
    }
    free(answer);
    return out && fclose(out) == 0;
}

static ssize_t stream_read(void *p, uint64_t at, char *to, size_t max) {
    stream *s = p;
    (void)at;
    if (!s->text) {
        if (s->over)
            return MHD_CONTENT_READER_END_OF_STREAM;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &s->next, NULL) == EINTR) {}
        clock_gettime(CLOCK_MONOTONIC, &s->next); /* from now: a slow reader gets no burst */
        s->next.tv_nsec += s->period_ms % 1000 * 1000000;
        s->next.tv_sec += s->period_ms / 1000 + s->next.tv_nsec / 1000000000;
        s->next.tv_nsec %= 1000000000;
        s->sent = 0;
        if (!stream_sample(s))
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t n = s->size - s->sent < max ? s->size - s->sent : max;
    memcpy(to, s->text + s->sent, n);
    s->sent += n;
    if (s->sent == s->size) {
        free(s->text);
        s->text = NULL;
    }
    return (ssize_t)n;
}

static long number_argument(struct MHD_Connection *c, const char *name, long otherwise) {
    const char *text = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name);
    char *end;
    long n = text ? strtol(text, &end, 10) : otherwise;
    return text && (*end || end == text) ? otherwise : n;
}

static enum MHD_Result give_events(struct MHD_Connection *c) {
    long pid = number_argument(c, "pid", 0), period = number_argument(c, "period", 1000);
    cli_process *all = NULL;
    size_t n = 0, i = 0;
    if (!cli_processes(&all, &n))
        return give_owned(c, NULL, 0, NULL);
    while (i < n && all[i].pid != pid)
        i++;
    stream *s = i < n ? calloc(1, sizeof *s) : NULL;
    if (!s) {
        free(all);
        return give_text(c, MHD_HTTP_NOT_FOUND,
                         "no such process, or it is not open to inspection\n");
    }
    s->period_ms = period < 100 ? 100 : period > 60000 ? 60000 : period;
    clock_gettime(CLOCK_MONOTONIC, &s->next);
    (void)cli_link_open(&s->link, &all[i]); /* when it fails the stream says why and ends */
    free(all);
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 64 * 1024, stream_read, s, stream_free);
    if (!r)
        stream_free(s);
    return give(c, MHD_HTTP_OK, r, "text/event-stream");
}

/* ---- who may ask ---- */

static bool is_our_host(struct MHD_Connection *c) {
    char ours[2][40];
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host");
    snprintf(ours[0], sizeof ours[0], "127.0.0.1:%u", port);
    snprintf(ours[1], sizeof ours[1], "localhost:%u", port);
    return host && (strcmp(host, ours[0]) == 0 || strcmp(host, ours[1]) == 0);
}

static bool has_session(struct MHD_Connection *c) {
    const char *cookie = MHD_lookup_connection_value(c, MHD_COOKIE_KIND, cookie_name);
    bool found = false;
    pthread_mutex_lock(&guard);
    for (size_t i = 0; cookie && i < SESSIONS; i++)
        found |= same(sessions[i], cookie);
    pthread_mutex_unlock(&guard);
    return found;
}

static bool has_metrics_token(struct MHD_Connection *c) {
    const char *header = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    return metrics_token[0] && header && strncmp(header, "Bearer ", 7) == 0 &&
           same(metrics_token, header + 7);
}

/* The token of the printed address for a session; it is good once (U1). */
static enum MHD_Result exchange(struct MHD_Connection *c, const char *given) {
    char session[TOKEN + 1], cookie[TOKEN + 96];
    bool good = false;
    pthread_mutex_lock(&guard);
    if (same(token, given) && draw_token(session)) {
        good = true;
        memcpy(sessions[next_session++ % SESSIONS], session, sizeof session);
        if (!draw_token(token))
            token[0] = '\0';
    }
    pthread_mutex_unlock(&guard);
    if (!good)
        return give_text(c, MHD_HTTP_FORBIDDEN,
                         "This address has been used. klaw ui has printed another one.\n");
    print_address();
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    snprintf(cookie, sizeof cookie, "%s=%s; HttpOnly; SameSite=Strict; Path=/", cookie_name,
             session);
    MHD_add_response_header(r, "Set-Cookie", cookie);
    MHD_add_response_header(r, "Location", "/");
    return give(c, MHD_HTTP_SEE_OTHER, r, "text/plain");
}

static enum MHD_Result handle(void *user, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_size, void **state) {
    (void)user;
    (void)version;
    (void)body;
    (void)body_size;
    (void)state;
    if (strcmp(method, "GET") != 0)
        return give_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n");
    if (!is_our_host(c))
        return give_text(c, MHD_HTTP_FORBIDDEN, "not this host\n");
    const char *given = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "token");
    if (strcmp(url, "/") == 0 && given)
        return exchange(c, given);
    bool metrics = strcmp(url, "/metrics") == 0;
    if (!has_session(c) && !(metrics && has_metrics_token(c)))
        return give_text(c, MHD_HTTP_FORBIDDEN, "Open the address that klaw ui has printed.\n");
    (void)MHD_set_connection_option(c, MHD_CONNECTION_OPTION_TIMEOUT, KNOWN_S);
    if (strcmp(url, "/") == 0)
        return give_asset(c, cli_ui_index, cli_ui_index_end, "text/html; charset=utf-8");
    if (strcmp(url, "/style.css") == 0)
        return give_asset(c, cli_ui_style, cli_ui_style_end, "text/css; charset=utf-8");
    if (strcmp(url, "/app.js") == 0)
        return give_asset(c, cli_ui_app, cli_ui_app_end, "text/javascript; charset=utf-8");
    if (strcmp(url, "/worker.js") == 0)
        return give_asset(c, cli_ui_worker, cli_ui_worker_end, "text/javascript; charset=utf-8");
    if (strcmp(url, "/processes") == 0)
        return give_processes(c);
    if (strcmp(url, "/events") == 0)
        return give_events(c);
    if (metrics) {
        size_t size = 0;
        char *text = cli_metrics(&size);
        return give_owned(c, text, size, CLI_METRICS_TYPE);
    }
    return give_text(c, MHD_HTTP_NOT_FOUND, "no such page\n");
}

/* ---- the verb ---- */

static bool read_metrics_token(const char *path) {
    FILE *f = fopen(path, "re");
    struct stat st;
    if (f && (fstat(fileno(f), &st) != 0 || (st.st_mode & 077) != 0)) {
        fprintf(stderr, "klaw ui: %s: others may read or write it; chmod 600 %s\n", path, path);
        fclose(f);
        return false;
    }
    if (!f || !fgets(metrics_token, sizeof metrics_token, f)) {
        fprintf(stderr, "klaw ui: %s: %s\n", path, f ? "empty" : strerror(errno));
        if (f)
            fclose(f);
        return false;
    }
    fclose(f);
    metrics_token[strcspn(metrics_token, "\r\n")] = '\0';
    if (strlen(metrics_token) < 16) {
        fprintf(stderr, "klaw ui: %s: a token has at least 16 characters\n", path);
        return false;
    }
    return true;
}

/* ---- connections (U4) ---- */

/* Whether the program at the other end of a connection from this port is another user's, by the kernel's table; one that
 * can't be found counts as another's. */
static bool is_anothers(unsigned from) {
    char line[256];
    bool mine = false;
    FILE *f = fopen("/proc/net/tcp", "re");
    while (f && !mine && fgets(line, sizeof line, f)) {
        unsigned here, there, here_port, there_port;
        unsigned long user;
        if (sscanf(line, "%*d: %8x:%4x %8x:%4x %*x %*x:%*x %*x:%*x %*x %lu", &here, &here_port,
                   &there, &there_port, &user) == 5 &&
            here == htonl(INADDR_LOOPBACK) && there == htonl(INADDR_LOOPBACK) &&
            here_port == from && there_port == port)
            mine = user == (unsigned long)geteuid();
    }
    if (f)
        fclose(f);
    return !mine;
}

/* The two are called one after the other, by the thread that listens. */
static bool last_is_anothers;

static enum MHD_Result admit(void *user, const struct sockaddr *from, socklen_t size) {
    struct sockaddr_in at;
    (void)user;
    if (size < sizeof at)
        return MHD_NO;
    memcpy(&at, from, sizeof at);
    last_is_anothers = is_anothers(ntohs(at.sin_port));
    return last_is_anothers && atomic_load(&others) >= OTHERS ? MHD_NO : MHD_YES;
}

static void count(void *user, struct MHD_Connection *c, void **state,
                  enum MHD_ConnectionNotificationCode code) {
    static char mark;
    (void)user;
    (void)c;
    if (code == MHD_CONNECTION_NOTIFY_STARTED && last_is_anothers) {
        *state = &mark;
        atomic_fetch_add(&others, 1);
    } else if (code == MHD_CONNECTION_NOTIFY_CLOSED && *state == &mark) {
        atomic_fetch_sub(&others, 1);
    }
}

static struct MHD_Daemon *listen_here(unsigned at) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)at)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD,
                            (uint16_t)at, admit, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR,
                            (struct sockaddr *)&address, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
                            MHD_OPTION_CONNECTION_TIMEOUT, UNKNOWN_S, MHD_OPTION_NOTIFY_CONNECTION,
                            count, NULL, MHD_OPTION_END);
}

int cli_run_ui(int argc, char **argv) {
    const char *value;
    char *end;
    long wanted = 0;
    int id, sig;
    sigset_t ends;
    while ((id = cli_next(&cli_ui_verb, argc, argv, &value)) > 0) {
        switch (id) {
        case 'p':
            wanted = strtol(value, &end, 10);
            if (*end || wanted < 1 || wanted > 65535)
                return cli_usage(&cli_ui_verb, "--port does not take '%s'", value);
            break;
        case 'm':
            if (!read_metrics_token(value))
                return EXIT_USAGE;
            break;
        default: return EXIT_USAGE;
        }
    }
    if (id == 0)
        return EXIT_FINE;
    if (optind < argc)
        return cli_usage(&cli_ui_verb, "it takes no arguments");
    /* Before the threads: they inherit the mask, and the signals come here. */
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (!draw_token(token)) {
        fprintf(stderr, "klaw ui: no random numbers: %s\n", strerror(errno));
        return EXIT_TROUBLE;
    }
    port = (unsigned)wanted; /* somebody may be waiting for it */
    struct MHD_Daemon *daemon = listen_here((unsigned)wanted);
    if (!daemon) {
        fprintf(stderr, "klaw ui: can't listen on 127.0.0.1:%ld: %s\n", wanted, strerror(errno));
        return EXIT_TROUBLE;
    }
    port = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
    snprintf(cookie_name, sizeof cookie_name, "klaw_ui_%u", port);
    print_address();
    sigwait(&ends, &sig);
    /* Streams may sleep for a while yet: the process ends without waiting for them. */
    fflush(stdout);
    _exit(EXIT_FINE);
}
