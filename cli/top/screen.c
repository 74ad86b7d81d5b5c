/* SPDX-License-Identifier: Apache-2.0 */
/* screen.c - plain ANSI: the alternate screen, no cursor, keys as they come.
 *
 * Whoever leaves gives the terminal back: screen_end at a normal end and at exit(); signals that ask for
 * the end come through a pipe to the loop, which ends normally; deadly ones write the few bytes
 * themselves (write and tcsetattr may be called there), and then do what they do. Ctrl-Z gives it back,
 * stops, and takes it again.
 *
 * Rejected: ncurses. All that is needed is two dozen sequences every terminal of the last thirty years
 * knows. */
#include "screen.h"

#include "../client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const char enter_text[] = "\033[?1049h\033[?25l\033[H\033[2J";
static const char leave_text[] = "\033[0m\033[?25h\033[?1049l";

static struct termios before;
static volatile sig_atomic_t taken;
static int pipe_fds[2] = {-1, -1};
static int ended_by;
static int kept = -1; /* a byte that was read after an escape and is a key of its own */

static char *frame_text;
static size_t frame_size;

/* ---- taking and giving back ---- */

static bool put(const char *text, size_t size) {
    while (size > 0) {
        ssize_t n = write(STDOUT_FILENO, text, size);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return false;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
            (void)poll(&p, 1, 1000);
        }
        size -= n > 0 ? (size_t)n : 0;
        text += n > 0 ? n : 0;
    }
    return true;
}

static void take(void) {
    struct termios raw = before;
    raw.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IXON);
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN); /* ISIG stays: Ctrl-C and Ctrl-Z */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    (void)put(enter_text, sizeof enter_text - 1);
    taken = 1;
}

/* From signal handlers too. */
static void give_back(void) {
    if (!taken)
        return;
    taken = 0;
    ssize_t n = write(STDOUT_FILENO, leave_text, sizeof leave_text - 1);
    (void)n;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void screen_end(void) {
    give_back();
}

static void on_signal(int number) {
    int saved = errno;
    char byte = (char)number;
    ssize_t n = write(pipe_fds[1], &byte, 1);
    (void)n;
    errno = saved;
}

static void on_death(int number) {
    give_back();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

bool screen_begin(void) {
    static const int asks[] = {SIGWINCH, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0 ||
        pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof asks / sizeof *asks; i++)
        sigaction(asks[i], &action, NULL);
    action.sa_handler = on_death;
    action.sa_flags = 0;
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        sigaction(deadly[i], &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)atexit(screen_end);
    cli_wake_fd = pipe_fds[0];
    take();
    return true;
}

int screen_signal(void) {
    return ended_by;
}

void screen_size(size_t *rows, size_t *columns) {
    struct winsize w = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 0 && w.ws_col > 0;
    *rows = known ? w.ws_row : 24;
    *columns = known ? w.ws_col : 80;
}

/* ---- keys ---- */

static bool readable(int ms) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, ms) > 0 && (p.revents & POLLIN);
}

static int next_byte(int ms) {
    unsigned char c;
    if (kept >= 0) {
        c = (unsigned char)kept;
        kept = -1;
        return c;
    }
    return readable(ms) && read(STDIN_FILENO, &c, 1) == 1 ? c : -1;
}

/* What follows an escape; alone it is the key itself. */
static int sequence(void) {
    static const struct {
        int number, key;
    } tildes[] = {{1, KEY_HOME},      {4, KEY_END},  {5, KEY_PAGE_UP},
                  {6, KEY_PAGE_DOWN}, {7, KEY_HOME}, {8, KEY_END}};
    int c = next_byte(30), number = 0;
    if (c != '[' && c != 'O') {
        kept = c;
        return KEY_ESCAPE;
    }
    while ((c = next_byte(30)) >= '0' && c <= ';')
        number = c <= '9' && number < 100 ? number * 10 + c - '0' : number;
    switch (c) {
    case 'A': return KEY_UP;
    case 'B': return KEY_DOWN;
    case 'C': return KEY_RIGHT;
    case 'D': return KEY_LEFT;
    case 'H': return KEY_HOME;
    case 'F': return KEY_END;
    case 'Z': return KEY_BACK_TAB;
    default: break;
    }
    for (size_t i = 0; c == '~' && i < sizeof tildes / sizeof *tildes; i++)
        if (tildes[i].number == number)
            return tildes[i].key;
    return KEY_RESIZE; /* a key we do not know */
}

static int take_signals(void) {
    unsigned char number;
    int key = KEY_NONE;
    while (read(pipe_fds[0], &number, 1) == 1) {
        key = key == KEY_END_OF_ALL ? key : KEY_RESIZE;
        if (number == SIGTSTP) {
            give_back();
            (void)kill(getpid(), SIGSTOP);
            take();
        } else if (number != SIGWINCH) {
            ended_by = number;
            key = KEY_END_OF_ALL;
        }
    }
    return key;
}

int screen_key(int ms) {
    struct pollfd p[2] = {{.fd = pipe_fds[0], .events = POLLIN},
                          {.fd = STDIN_FILENO, .events = POLLIN}};
    int n = poll(p, 2, kept >= 0 ? 0 : ms);
    if (n < 0)
        return errno == EINTR ? KEY_RESIZE : KEY_END_OF_ALL;
    if (p[0].revents)
        return take_signals();
    if (kept >= 0 || (p[1].revents & POLLIN)) {
        int c = next_byte(0);
        if (c < 0)
            return KEY_END_OF_ALL;
        return c == KEY_ESCAPE ? sequence() : c == '\n' ? KEY_ENTER : c == 8 ? KEY_BACKSPACE : c;
    }
    return p[1].revents ? KEY_END_OF_ALL : KEY_NONE;
}

/* ---- frames ---- */

FILE *screen_frame(void) {
    FILE *f = open_memstream(&frame_text, &frame_size);
    if (f)
        fputs("\033[H", f);
    return f;
}

void screen_line(FILE *frame) {
    fputs("\033[0m\033[K\r\n", frame);
}

bool screen_show(FILE *frame) {
    fputs("\033[0m\033[J", frame);
    bool ok = fclose(frame) == 0 && put(frame_text, frame_size);
    free(frame_text);
    frame_text = NULL;
    return ok;
}
