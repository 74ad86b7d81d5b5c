/* SPDX-License-Identifier: Apache-2.0 */
/* graph.h - who waits for whom in a snapshot, and who can never go on. */
#ifndef CLI_GRAPH_H
#define CLI_GRAPH_H

#include "client.h"

/* One way a wait may end: by what another host does. */
typedef struct cli_edge {
    size_t to;        /* node */
    uint64_t channel; /* whose other end it holds; 0: none */
    bool made;        /* it has made that end, and has not used it so far */
} cli_edge;

/* A fiber, a thread or an operation of an event loop. */
typedef struct cli_node {
    klaw_host_kind kind;
    uint64_t id;
    char name[80];     /* "fiber 'x' (#12)", "actor 'y' (#3)" */
    char waits[112];   /* "to receive from channel 'z' (#7)"; "" */
    uint64_t count;    /* of its waits: the same again, and it has not moved */
    uint64_t channel;  /* the one it waits on, if it is one */
    bool waiting, any; /* any: whoever runs may end its wait */
    bool alive;      /* it may go on: it runs, waits for a clock, a descriptor, or somebody alive */
    bool lost;       /* all other ends of its channels were left open by fibers that have ended */
    size_t first, n; /* edges */
} cli_node;

typedef struct cli_graph {
    cli_node *nodes;
    cli_edge *edges;
    size_t n, n_edges, room;
    bool memory; /* false: there was none, the graph is not complete */
} cli_graph;

/* `pid`: to see whether threads that hold endpoints still exist; 0: all do. `outside`: there are
 * threads that klaw does not know, which may hold and send what nobody sees. */
cli_graph *cli_graph_make(const cli_snapshot *s, long pid, bool outside);
void cli_graph_free(cli_graph *g);

/* A ring of nodes that wait for each other, from one that is not alive: how many, at most max. 0: it waits for such
 * a ring, or for nobody. */
size_t cli_graph_ring(const cli_graph *g, size_t from, size_t *ring, size_t max);
/* The node of a host; g->n: none. */
size_t cli_graph_find(const cli_graph *g, klaw_host_kind kind, uint64_t id);
/* Why `from` waits for `to`; NULL: it does not. */
const cli_edge *cli_graph_edge(const cli_graph *g, size_t from, size_t to);

/* Whether a process has threads beside klaw's own and the one that sleeps in klaw_run. */
bool cli_has_outside(long pid, const cli_snapshot *s);

#endif
