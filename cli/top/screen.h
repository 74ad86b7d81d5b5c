/* SPDX-License-Identifier: Apache-2.0 */
/* screen.h - the terminal of klaw top: keys in, whole frames out, and as it was before at every end. */
#ifndef CLI_TOP_SCREEN_H
#define CLI_TOP_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum {
    KEY_NONE = 0, /* the time is up */
    KEY_ENTER = '\r',
    KEY_ESCAPE = 27,
    KEY_BACKSPACE = 127,
    KEY_UP = 0x100,
    KEY_DOWN,
    KEY_LEFT,
    KEY_RIGHT,
    KEY_PAGE_UP,
    KEY_PAGE_DOWN,
    KEY_HOME,
    KEY_END,
    KEY_BACK_TAB,
    KEY_RESIZE,     /* the size changed, or the program was stopped and goes on: draw again */
    KEY_END_OF_ALL, /* the terminal is gone, or a signal asks for the end */
};

/* Takes the terminal over. False: stdin or stdout is none. */
bool screen_begin(void);
/* Gives it back; done by itself at exit and by deadly signals. */
void screen_end(void);
/* The signal that asked for the end; 0: none did. */
int screen_signal(void);

void screen_size(size_t *rows, size_t *columns);
/* The next key within `ms`. */
int screen_key(int ms);

/* A frame: lines are printed into the stream, each ended by screen_line; nothing is seen before
 * screen_show. */
FILE *screen_frame(void);
void screen_line(FILE *frame);
/* False: the terminal is gone. */
bool screen_show(FILE *frame);

#endif
