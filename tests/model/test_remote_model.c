/* SPDX-License-Identifier: Apache-2.0 */
/* test_remote_model.c - random histories of hubs and a broker in a bad world (remote_world.h), and
 * what has to be true of them whatever happens:
 *
 *   - an item whose sender was told that it is enqueued is received, unless nobody could still have
 *     it: its sender is gone and so is the actor's memory, or its deadline passed;
 *   - one whose sender was told that it is not (refused, unsent, withdrawn) is received by nobody;
 *   - none is received twice without the mark, nor in a history without deaths, restarts and items
 *     given back; with ack=before never;
 *   - the items of a sender come in the order of its sends, those that came back aside;
 *   - there are never more items than the capacity, those that came back aside;
 *   - each send has one outcome; a receiver hears the end only when all is received;
 *   - when the faults stop everything comes to its end: nobody waits for ever, nothing is left.
 *
 * Everything is compiled with its mutants (src/policy/mutant.h); the last test switches on each and
 * demands that the histories, or the directed tests of tests/unit/policy, notice. KLAW_SEED replays;
 * the report names the history. */
#include "model/remote_directed.h"

#include "support/notices.h"
#include "support/runs.h"

#define HISTORIES 50000 /* of each part; ctest runs four, the first one with scenes and mutants */
#define MUTANT_HISTORIES 3000

int klawi_policy_mutant;
static uint64_t my_part; /* this program's argument, 0 … 3: which histories */

/* --- sends --- */

static end *some_end(klaw_remote_side side, int *hub) {
    int from = (int)below(HUBS);
    for (int i = 0; i < HUBS; i++) {
        host *h = &w.host[(from + i) % HUBS];
        if (!host_runs(h) || h->left)
            continue;
        uint32_t e = below(ENDS);
        for (uint32_t j = 0; j < ENDS; j++) {
            end *x = &h->end[(e + j) % ENDS];
            if (x->open && x->side == side) {
                *hub = (int)(h - w.host);
                return x;
            }
        }
    }
    return NULL;
}

static void act_send(void) {
    int hub;
    end *e = some_end(KLAW_REMOTE_SENDER, &hub);
    int n = one_in(4) ? 1 + (int)below(6) : 1;
    if (!e || w.items + n > ITEMS || w.tickets + 1 >= TICKETS)
        return;
    bool whole = one_in(2), nowait = one_in(6);
    klaw_remote_item it[8];
    uint32_t data[8][8];
    for (int i = 0; i < n; i++) {
        thing *t = &w.item[w.items + i];
        memset(t, 0, sizeof *t);
        data[i][0] = (uint32_t)(w.items + i);
        t->hub = (uint8_t)hub;
        t->epoch = w.host[hub].identity;
        t->ticket = w.tickets + 1;
        t->sent = w.now;
        t->deadline = one_in(20) ? w.now + 1 + below(2000) * MS : 0;
        it[i] = (klaw_remote_item){.data = data[i],
                                   .size = 4 + below(29),
                                   .deadline = t->deadline,
                                   .sent_at = w.now,
                                   .flags = nowait ? KLAW_REMOTE_NOWAIT : 0};
        if (!w.opts.durable && one_in(8)) {
            attachment *a = malloc(sizeof *a);
            *a = (attachment){0, w.items + i};
            it[i].attachment = att_share(a);
        }
    }
    klaw_err err =
        klaw_hub_send(w.host[hub].h, w.now, e->id, it, (size_t)n, whole, (uint64_t)(w.tickets + 1));
    if (err != KLAW_OK) {
        for (int i = 0; i < n; i++)
            if (it[i].attachment)
                att_drop(it[i].attachment);
        if (err != KLAW_FULL && err != KLAW_CLOSED)
            DIFFERS("send: %s", klaw_err_name(err));
        return;
    }
    for (int i = 0; i < n; i++)
        for (int h = 0; h < HUBS; h++)
            for (int j = 0; j < ENDS; j++)
                w.item[w.items + i].expected[h][j] = w.host[h].end[j].confirmed;
    w.ticket[++w.tickets] = (ticket){.fate = F_PENDING,
                                     .first = w.items,
                                     .n = n,
                                     .hub = hub,
                                     .whole = n > 1 && (whole || nowait),
                                     .nowait = nowait};
    w.items += n;
}

static void act_withdraw(void) {
    if (!w.tickets)
        return;
    int t = w.tickets - (int)below(w.tickets < 4 ? (uint32_t)w.tickets : 4);
    if (w.ticket[t].fate != F_PENDING || !host_runs(&w.host[w.ticket[t].hub]))
        return;
    klaw_err e = klaw_hub_withdraw(w.host[w.ticket[t].hub].h, w.now, (uint64_t)t);
    if (e == KLAW_OK) {
        w.ticket[t].fate = F_WITHDRAWN;
        seen_withdrawn++;
        for (int i = 0; i < w.ticket[t].n; i++)
            EXPECT(w.item[w.ticket[t].first + i].had == 0);
    } else if (e == KLAW_UNCERTAIN) {
        w.ticket[t].fate = F_UNCERTAIN;
    } else {
        EXPECT(e == KLAW_NOT_FOUND); /* its event waits to be read */
    }
}

/* --- receives --- */

static void let_go(host *h, end *e, bool ack, bool seen) {
    while (e->n_held) {
        e->n_held--;
        klaw_err err = ack ? klaw_hub_ack(h->h, w.now, e->id, e->held[e->n_held])
                           : klaw_hub_nack(h->h, w.now, e->id, e->held[e->n_held], seen);
        if (w.opts.ack == KLAW_REMOTE_ACK_BEFORE)
            EXPECT(err == KLAW_NOT_FOUND);
        else
            EXPECT(err == KLAW_OK || (err == KLAW_NOT_FOUND && h->was_lost));
        if (tracing)
            fprintf(stderr, "%" PRId64 " ms: hub %d %s item %d, lease %d: %s\n", w.now / MS,
                    (int)(h - w.host),
                    ack    ? "ack"
                    : seen ? "nack"
                           : "nack unseen",
                    e->held_item[e->n_held], (int)e->held[e->n_held], klaw_err_name(err));
        if (!ack && err == KLAW_OK) {
            w.returns = true;
            thing *t = &w.item[e->held_item[e->n_held]];
            if (!seen && w.opts.kind == KLAW_REMOTE_QUEUE) { /* as if it had not been handed out */
                t->had--;
                t->unmarked &= !e->held_first[e->n_held];
            }
        }
    }
}

static void received(int hub, end *e, const klaw_remote_item *it) {
    uint32_t no;
    memcpy(&no, it->data, 4);
    EXPECT(it->size >= 4 && no < (uint32_t)w.items);
    thing *t = &w.item[no];
    ticket *k = &w.ticket[t->ticket];
    int j = (int)(e - w.host[hub].end);
    if (tracing)
        fprintf(stderr, "%" PRId64 " ms: hub %d takes item %u, lease %d, flags %u\n", w.now / MS,
                hub, no, (int)it->lease, it->flags);
    bool queue = w.opts.kind == KLAW_REMOTE_QUEUE;
    bool marked = (it->flags & KLAW_REMOTE_REDELIVERED) != 0;
    bool before = queue ? t->had > 0 : (t->had_by[hub] >> j & 1) != 0;
    if (k->fate == F_REFUSED || k->fate == F_UNSENT || k->fate == F_WITHDRAWN)
        DIFFERS("item %u is received, its sender was told %d", no, k->fate);
    if (t->deadline && t->deadline <= w.now)
        DIFFERS("item %u is received after its deadline", no);
    if (before) {
        seen_again++;
        /* A process that was stopped may look at the first delivery after others had the second. */
        if (!marked && t->unmarked)
            DIFFERS("item %u is received again, unmarked", no);
        if (w.opts.ack == KLAW_REMOTE_ACK_BEFORE)
            DIFFERS("item %u is received again with ack=before", no);
        if (!w.deaths && !w.restarts && !w.returns)
            DIFFERS("item %u is received again for no reason", no);
    }
    if (marked && !w.deaths && !w.restarts && !w.returns)
        DIFFERS("item %u is marked for no reason", no);
    if (!marked && !w.returns && !w.deaths) {
        if (e->last[t->hub] > (int)no)
            DIFFERS("item %u after %d", no, e->last[t->hub]);
        e->last[t->hub] = (int)no;
    }
    if (it->attachment) {
        EXPECT(((attachment *)it->attachment)->item == (int)no);
        att_drop(it->attachment);
    }
    t->had++;
    t->unmarked |= !marked && queue;
    t->had_by[hub] |= 1u << j;
    e->had++;
    seen_had++;
    klaw_remote_free((void *)(uintptr_t)it->data);
    if (w.opts.kind == KLAW_REMOTE_QUEUE && it->lease) {
        e->held_item[e->n_held] = (int)no;
        e->held_first[e->n_held] = !marked;
        e->held[e->n_held++] = it->lease;
    } else {
        (void)klaw_hub_ack(w.host[hub].h, w.now, e->id, it->lease);
    }
}

/* A receiver that is told the end: there is nothing left that it could have had. */
static void check_end(void) {
    klaw_broker_stats b = {0};
    if (w.b)
        klaw_broker_look(w.b, w.now, &b);
    w.no_receivers |= b.receivers_closed;
    if (w.deleted || w.opts.kind != KLAW_REMOTE_QUEUE || w.no_receivers)
        return;
    for (int i = 0; i < w.items; i++) {
        const thing *t = &w.item[i];
        if (t->had || t->deadline || w.ticket[t->ticket].fate != F_SENT)
            continue;
        if (w.deaths || w.restarts || w.opts.ack != KLAW_REMOTE_ACK_NEXT)
            continue;
        bool ready = false; /* in a hub, which will hand it out */
        for (int h = 0; h < HUBS; h++)
            if (w.host[h].h) {
                klaw_hub_state s;
                klaw_hub_look(w.host[h].h, &s);
                ready |= s.ready > 0;
            }
        if (!ready)
            DIFFERS("the end is told, and item %d has not been received", i);
    }
}

/* One take; false: there was nothing, and there will be no more without news. */
static bool consume(int hub, end *e) {
    host *h = &w.host[hub];
    if (!e->open || e->side != KLAW_REMOTE_RECEIVER || e->ended)
        return false;
    if (!e->waiting) {
        if (w.opts.ack != KLAW_REMOTE_ACK_EXPLICIT || e->n_held > 2)
            let_go(h, e, true, false);
        if (!e->open)
            return false;
    }
    klaw_remote_item it;
    uint64_t missed = 0;
    klaw_err err = klaw_hub_take(h->h, w.now, w.now, e->id, &it, &missed);
    if (err == KLAW_EMPTY) {
        if (!e->waiting)
            klaw_hub_wait(h->h, w.now, e->id, 1);
        e->waiting = true;
        return false;
    }
    if (e->waiting)
        klaw_hub_wait(h->h, w.now, e->id, -1);
    e->waiting = false;
    if (err == KLAW_OK) {
        received(hub, e, &it);
    } else if (err == KLAW_LAGGED) {
        EXPECT(w.opts.kind == KLAW_REMOTE_BROADCAST && missed > 0);
        e->missed += missed;
        seen_lagged++;
    } else if (err == KLAW_STOPPED) {
        EXPECT(w.restarts && !w.opts.durable && missed > 0);
        seen_lost++;
    } else if (err == KLAW_CLOSED) {
        check_end();
        e->ended = true;
        seen_closed++;
        let_go(h, e, true, false);
    } else {
        DIFFERS("take: %s", klaw_err_name(err));
    }
    return true;
}

/* --- endpoints --- */

static void act_open(int hub, klaw_remote_side side) {
    host *h = &w.host[hub];
    if (!host_runs(h) || h->left)
        return;
    for (int j = 0; j < ENDS; j++) {
        end *e = &h->end[j];
        if (e->open || e->id)
            continue;
        bool claim = w.token_n && one_in(2);
        const unsigned char *token = NULL;
        if (claim) {
            w.token_n--;
            token = w.token[w.token_n].id;
            side = w.token[w.token_n].side;
        }
        klaw_err err = klaw_hub_open(h->h, w.now, side, token, &e->id);
        if (err == KLAW_CLOSED)
            return;
        EXPECT(err == KLAW_OK);
        e->open = true;
        e->side = side;
        for (int i = 0; i < HUBS; i++)
            e->last[i] = -1;
        for (int i = 0; i < w.items; i++) /* of a process that is gone */
            w.item[i].had_by[hub] &= ~(1u << j);
        return;
    }
}

static void end_close(int hub, end *e) {
    host *h = &w.host[hub];
    e->n_held = 0; /* acknowledged by the close */
    EXPECT(klaw_hub_close(h->h, w.now, e->id) == KLAW_OK || h->left);
    if (e->side == KLAW_REMOTE_RECEIVER)
        w.returns = true; /* what was ready goes back */
    e->open = e->confirmed = false;
}

static void act_close(void) {
    int hub;
    end *e = some_end(one_in(2) ? KLAW_REMOTE_SENDER : KLAW_REMOTE_RECEIVER, &hub);
    if (e && !(hub == PERMANENT && e == &w.host[hub].end[0]))
        end_close(hub, e);
}

static void act_mint(void) {
    int hub = (int)below(HUBS);
    if (!host_runs(&w.host[hub]) || w.host[hub].left || w.token_n == 8 || w.mints == MINTS)
        return;
    random_id(w.token[w.token_n].id);
    w.token[w.token_n].side = one_in(2) ? KLAW_REMOTE_SENDER : KLAW_REMOTE_RECEIVER;
    if (klaw_hub_mint(w.host[hub].h, w.now, w.token[w.token_n].side, w.token[w.token_n].id) ==
        KLAW_OK)
        w.mint[w.mints++] = w.token[w.token_n++];
}

/* --- processes --- */

static void host_start(int hub) {
    host *h = &w.host[hub];
    random_id(h->client);
    memcpy(w.hub_opts.client, h->client, KLAW_REMOTE_ID);
    memset(h->end, 0, sizeof h->end);
    h->dead = h->left = false;
    h->epoch++;
    h->stopped_until = 0;
    if (klaw_hub_new(&w.hub_opts, &h->h) != KLAW_OK)
        DIFFERS("no hub");
}

static void act_kill(void) {
    int hub = 1 + (int)below(HUBS - 1);
    host *h = &w.host[hub];
    if (!h->h || h->dead)
        return;
    bool left = h->left;
    if (!left && one_in(2)) {
        message *m = msg_add(M_DEATH, hub, 0, 2 * SECOND);
        memcpy(m->client, h->client, KLAW_REMOTE_ID);
    }
    for (int t = 1; t <= w.tickets; t++)
        if (w.ticket[t].hub == hub && w.ticket[t].fate == F_PENDING)
            w.ticket[t].fate = F_UNCERTAIN;
    klaw_hub_free(h->h);
    h->h = NULL;
    h->epoch++;
    h->was_lost = true;
    h->identity++;
    w.deaths |= !left;
    memset(h->end, 0, sizeof h->end);
    if (one_in(2))
        host_start(hub);
}

static void act_stop(void) {
    host *h = &w.host[below(HUBS)];
    if (!host_runs(h))
        return;
    h->stopped_until = w.now + (one_in(2) ? below(20) * SECOND : below(2000) * MS);
    if (h->stopped_until > w.now + 9 * SECOND) /* its lease may end */
        w.deaths = h->was_lost = true;
    w.stops |= h->stopped_until > w.now + SECOND;
}

/* --- the world goes on --- */

static void renamed(int hub) {
    host *h = &w.host[hub];
    random_id(h->client);
    klaw_hub_rename(h->h, w.now, h->client);
    h->was_lost = true;
    h->identity++;
    w.deaths = true;
    seen_renamed++;
}

static void host_turn(int hub) {
    host *h = &w.host[hub];
    if (!host_runs(h))
        return;
    klaw_hub_state s;
    klaw_hub_look(h->h, &s);
    uint64_t ready = s.ready;
    klaw_hub_tick(h->h, w.now);
    klaw_hub_look(h->h, &s);
    w.returns |= s.ready < ready; /* what nobody asked for any more */
    klaw_hub_call c;
    for (int i = 0; klaw_hub_next_call(h->h, w.now, &c); i++) {
        EXPECT(i < 50);
        net_call(hub, &c);
    }
    klaw_hub_event e;
    while (klaw_hub_next_event(h->h, &e)) {
        int t = (int)e.ticket;
        switch (e.kind) {
        case KLAW_HUB_SENT: fate(t, F_SENT); break;
        case KLAW_HUB_REFUSED: fate(t, F_REFUSED); break;
        case KLAW_HUB_UNSENT: fate(t, F_UNSENT); break;
        case KLAW_HUB_UNCERTAIN:
            EXPECT(w.deaths || w.restarts || w.faults || w.all_closed || w.deleted);
            fate(t, F_UNCERTAIN);
            break;
        case KLAW_HUB_RENAMED: renamed(hub); break;
        case KLAW_HUB_ITEMS:
            for (int j = 0; j < ENDS; j++)
                if (h->end[j].waiting)
                    (void)consume(hub, &h->end[j]);
            break;
        default: break;
        }
    }
    klaw_hub_look(h->h, &s);
    EXPECT(!s.broken);
    w.deleted |= s.deleted;
    if (s.attached && klaw_hub_idle(h->h))
        for (int j = 0; j < ENDS; j++)
            h->end[j].confirmed = h->end[j].open && h->end[j].side == KLAW_REMOTE_RECEIVER;
}

static void broker_turn(void) {
    if (!w.b && w.now >= w.down_until)
        broker_start();
    if (!w.b)
        return;
    if (klaw_broker_deadline(w.b) <= w.now)
        klaw_broker_tick(w.b, w.now, w.now);
    log_write();
    if (w.commit_at && w.now >= w.commit_at && w.committed < w.logs)
        log_commit(w.committed + 1 + (int)below((uint32_t)(w.logs - w.committed)));
    net_answers();
    klaw_broker_stats s;
    klaw_broker_look(w.b, w.now, &s);
    w.all_closed |= s.receivers_closed || s.senders_closed;
    w.no_receivers |= s.receivers_closed;
    if (w.opts.kind == KLAW_REMOTE_QUEUE && !w.returns && !w.deaths && !w.restarts && !w.deleted &&
        s.capacity != KLAW_NONE)
        EXPECT(s.queued <= (uint64_t)s.capacity);
}

/* One thing that is due; false: nothing is. */
static bool turn(void) {
    bool any = deliver_one();
    broker_turn();
    for (int i = 0; i < HUBS; i++)
        host_turn(i);
    return any;
}

/* Goes on to the next thing, at most until `limit`. */
static void pass_time(int64_t limit) {
    int64_t at = next_time();
    w.now = at > limit ? limit : at > w.now ? at : w.now;
    turn();
}

static void act(void) {
    uint32_t what = below(100);
    int hub;
    if (what < 34) {
        act_send();
    } else if (what < 60) {
        end *e = some_end(KLAW_REMOTE_RECEIVER, &hub);
        if (e)
            (void)consume(hub, e);
    } else if (what < 66) {
        act_open((int)below(HUBS), one_in(2) ? KLAW_REMOTE_SENDER : KLAW_REMOTE_RECEIVER);
    } else if (what < 70) {
        act_close();
    } else if (what < 75) {
        act_withdraw();
    } else if (what < 78) {
        act_mint();
    } else if (what < 82) {
        end *e = some_end(KLAW_REMOTE_RECEIVER, &hub);
        if (e && e->n_held && w.opts.ack != KLAW_REMOTE_ACK_BEFORE)
            let_go(&w.host[hub], e, false, one_in(2));
    } else if (what < 84 && w.faults) {
        act_kill();
    } else if (what < 86 && w.faults) {
        act_stop();
    } else if (what < 88 && w.faults && w.b && !w.lossy && !w.deleted) {
        broker_kill();
    } else if (what < 89 && one_in(20) && w.b) {
        klaw_broker_delete(w.b, w.now);
        w.deleted = true;
    } else if (one_in(30) && w.faults) { /* all were stopped: their leases have ended */
        w.now += 16 * SECOND;
        w.deaths = w.stops = true;
        for (int i = 0; i < HUBS; i++)
            w.host[i].was_lost = true;
    } else {
        int64_t pause = one_in(10) ? below(3000) * MS : below(5) * MS;
        w.stops |= pause > SECOND; /* of all */
        w.now += pause;
    }
}

/* --- a history --- */

static void world_start(uint64_t seed, uint64_t part) {
    memset(&w, 0, sizeof w);
    w.chance = rng_part(seed, part);
    w.now = SECOND;
    static const int64_t capacities[] = {1, 2, 3, 8, 100, KLAW_NONE};
    uint32_t kind = below(10);
    w.opts = (klaw_broker_opts){
        .kind = kind < 8    ? KLAW_REMOTE_QUEUE
                : kind == 8 ? KLAW_REMOTE_BROADCAST
                            : KLAW_REMOTE_WATCH,
        .ack = one_in(2) ? KLAW_REMOTE_ACK_NEXT : (klaw_remote_ack)below(3),
        .capacity = capacities[below(6)],
        .durable = kind < 3,
        .max_parked = one_in(4) ? 2 : 0,
        .drop = att_drop,
        .share = att_share,
    };
    w.opts.channel[3] = 9;
    w.hub_opts = (klaw_hub_opts){.kind = w.opts.kind,
                                 .frame_bytes = (const uint32_t[]){64, 200, 0}[below(3)],
                                 .answer_bytes = one_in(2) ? 1 + below(200) : 0,
                                 .retain_bytes = one_in(4) ? 200 : 0,
                                 .drop = att_drop,
                                 .share = att_share};
    w.hub_opts.channel[3] = one_in(3) ? 0 : 9;
    w.faults = true;
    w.lossy = one_in(3); /* no restarts */
    w.drop = one_in(3) ? 0 : below(200);
    w.dup = one_in(3) ? 0 : below(200);
    w.slow = 3 + below(30);
    broker_start();
    for (int i = 0; i < HUBS; i++)
        host_start(i);
    act_open(PERMANENT, KLAW_REMOTE_RECEIVER);
    act_open(1, KLAW_REMOTE_SENDER);
}

static void world_free(void) {
    for (int i = 0; i < HUBS; i++)
        klaw_hub_free(w.host[i].h);
    klaw_broker_free(w.b);
    for (int i = 0; i < w.msgs; i++)
        msg_free(&w.msg[i]);
    for (int i = 0; i < w.logs; i++)
        klaw_remote_free(w.log[i].data);
    memset(w.host, 0, sizeof w.host);
    w.b = NULL;
    w.msgs = w.logs = 0;
}

static bool all_told(void) {
    for (int i = 0; i < HUBS; i++) {
        const host *h = &w.host[i];
        if (!h->h)
            continue;
        for (int j = 0; j < ENDS; j++)
            if (h->end[j].open && h->end[j].side == KLAW_REMOTE_RECEIVER && !h->end[j].ended)
                return false;
        if (!klaw_hub_idle(h->h))
            return false;
    }
    for (int t = 1; t <= w.tickets; t++)
        if (w.ticket[t].fate == F_PENDING)
            return false;
    return true;
}

/* Everybody who does not wait takes an item; false: there is none. */
static bool all_consume(void) {
    bool any = false;
    for (int i = 0; i < HUBS; i++)
        for (int j = 0; j < ENDS && host_runs(&w.host[i]); j++) {
            end *e = &w.host[i].end[j];
            if (!e->open || e->waiting || e->side != KLAW_REMOTE_RECEIVER)
                continue;
            if (w.opts.ack == KLAW_REMOTE_ACK_EXPLICIT)
                let_go(&w.host[i], e, true, false);
            any |= consume(i, e);
        }
    return any;
}

/* Everybody consumes until the end; all senders close. */
static void comes_to_its_end(void) {
    w.faults = false;
    int64_t limit = w.now + 3000 * SECOND;
    for (int i = 0; i < HUBS; i++)
        w.host[i].stopped_until = 0;
    /* The channel has had a sender, which is heard of. */
    uint64_t last = 0;
    klaw_hub *p = w.host[PERMANENT].h;
    if (klaw_hub_open(p, w.now, KLAW_REMOTE_SENDER, NULL, &last) == KLAW_OK) {
        klaw_hub_state s = {0};
        for (int steps = 0; steps < 5000 && (steps == 0 || !s.attached || !klaw_hub_idle(p));
             steps++) {
            bool any = all_consume();
            if (!turn() && !any)
                pass_time(limit);
            klaw_hub_look(p, &s);
        }
        (void)klaw_hub_close(p, w.now, last);
    }
    /* Tokens that nobody has claimed, or whose claimer died before it could say so, live as long as
     * their minters. */
    for (int i = 0; i < w.mints; i++)
        if (klaw_hub_open(p, w.now, w.mint[i].side, w.mint[i].id, &last) == KLAW_OK)
            (void)klaw_hub_close(p, w.now, last);
    for (int steps = 0; !all_told(); steps++) {
        if (steps > 20000 || w.now > limit)
            DIFFERS("it does not come to its end");
        for (int i = 0; i < HUBS; i++)
            for (int j = 0; j < ENDS && host_runs(&w.host[i]); j++)
                if (w.host[i].end[j].open && w.host[i].end[j].side == KLAW_REMOTE_SENDER)
                    end_close(i, &w.host[i].end[j]);
        bool any = all_consume();
        /* Closed before a restart, and told too late to keep others from sending again. */
        for (int i = 0; i < HUBS && steps == 3000 && w.restarts && !w.opts.durable; i++)
            for (int j = 0; j < ENDS && host_runs(&w.host[i]); j++)
                if (w.host[i].end[j].open && w.host[i].end[j].ended)
                    end_close(i, &w.host[i].end[j]);
        if (!turn() && !any)
            pass_time(limit + 1);
    }
}

static void check_items(void) {
    bool queue = w.opts.kind == KLAW_REMOTE_QUEUE;
    for (int i = 0; i < w.items; i++) {
        const thing *t = &w.item[i];
        const ticket *k = &w.ticket[t->ticket];
        const host *h = &w.host[t->hub];
        if (k->fate != F_SENT || t->had || t->deadline || w.deleted || !queue || w.no_receivers)
            continue;
        bool gone = h->was_lost || t->epoch != h->identity;
        /* Or a stopped process told only after the gathering that the channel was closed. */
        if (w.restarts && !w.opts.durable && (gone || w.stops))
            continue;
        /* At most once; or: what came back when the end was told already. */
        if (w.opts.ack != KLAW_REMOTE_ACK_NEXT && (w.deaths || w.restarts || w.returns))
            continue;
        DIFFERS("item %d of hub %d is lost", i, t->hub);
    }
    if (w.opts.kind != KLAW_REMOTE_BROADCAST || w.deaths || w.restarts || w.deleted ||
        w.no_receivers)
        return;
    for (int hub = 0; hub < HUBS; hub++)
        for (int j = 0; j < ENDS; j++) {
            const end *e = &w.host[hub].end[j];
            uint64_t want = 0, late = 0;
            for (int i = 0; i < w.items; i++) {
                bool sent = w.ticket[w.item[i].ticket].fate == F_SENT && w.item[i].expected[hub][j];
                want += sent && !w.item[i].deadline;
                late += sent && w.item[i].deadline;
            }
            if (e->open && e->had + e->missed < want)
                DIFFERS("end %d of hub %d had %d and missed %d of %d", j, hub, (int)e->had,
                        (int)e->missed, (int)want);
        }
}

static void one_history(uint64_t seed, uint64_t part) {
    world_start(seed, part);
    for (uint32_t i = 15 + below(60); i > 0; i--) {
        act();
        for (uint32_t n = below(4); n > 0; n--)
            if (!turn() && one_in(2))
                pass_time(w.now + 300 * MS);
    }
    comes_to_its_end();
    check_items();
    /* Then all leave, and nothing is left. */
    for (int i = 0; i < HUBS; i++)
        if (w.host[i].h) {
            klaw_hub_detach(w.host[i].h, w.now);
            w.host[i].left = true;
        }
    for (int steps = 0, left = 0; !left; steps++) {
        EXPECT(steps < 5000);
        if (!turn())
            pass_time(w.now + 100 * SECOND);
        left = 1;
        for (int i = 0; i < HUBS; i++)
            left &= !w.host[i].h || klaw_hub_idle(w.host[i].h);
    }
    for (int i = 0; w.b && i < 200 && w.msgs; i++)
        if (!turn())
            pass_time(w.now + 100 * SECOND);
    klaw_broker_stats s;
    if (!w.b)
        broker_start();
    klaw_broker_look(w.b, w.now, &s);
    EXPECT(s.clients == 0 || w.deaths || w.restarts || w.deleted);
    w.now += 40 * SECOND; /* whoever died has been noticed */
    klaw_broker_tick(w.b, w.now, w.now);
    klaw_broker_look(w.b, w.now, &s);
    EXPECT(s.clients == 0 && s.leased == 0);
    log_write();
    if (w.logs > w.committed)
        log_commit(w.logs);
    net_answers();
    klaw_broker_look(w.b, w.now, &s);
    EXPECT(s.parked == 0 && w.opens == 0);
    world_free();
    if (w.attachments)
        DIFFERS("%d attachments are left", (int)w.attachments);
}

/* Whether the history runs without a difference. */
static bool agrees(uint64_t seed, uint64_t part) {
    bool good = setjmp(differs) == 0;
    if (good)
        one_history(seed, part);
    if (!good) /* what it holds is not freed: it may not be whole */
        show();
    return good;
}

static bool scene_agrees(uint64_t i) {
    bool good = setjmp(differs) == 0;
    if (good) {
        scenes[i].run();
        d_end();
    }
    return good;
}

/* First the scenes, then histories. */
static bool all_agrees(uint64_t seed, uint64_t i) {
    return i < SCENES ? scene_agrees(i) : agrees(seed, i - SCENES);
}

PLAIN(each_rule_has_its_scene) {
    int bad = 0;
    for (uint64_t i = 0; i < SCENES; i++)
        if (!scene_agrees(i)) {
            fprintf(stderr, "%s: %s\n", scenes[i].name, difference);
            bad++;
        }
    SAME(bad, 0);
}

PLAIN(histories_keep_the_promises) {
    uint64_t seed = seed_begin(), n = rounds(HISTORIES);
    const char *only = getenv("KLAW_HISTORY");
    klawi_policy_mutant = KLAWI_PM_NONE;
    tracing = only != NULL;
    for (uint64_t k = 0; k < (only ? 1 : n); k++) {
        uint64_t i = only ? strtoull(only, NULL, 10) : my_part * rounds(HISTORIES) + k;
        if (!agrees(seed, i)) {
            fprintf(stderr, "history %" PRIu64 ": %s\n", i, difference);
            CHECK(!"the promises are kept");
        }
    }
    printf("%" PRIu64 " histories: %" PRIu64 " received, %" PRIu64 " again, %" PRIu64
           " restarts, %" PRIu64 " renamed, %" PRIu64 " refused, %" PRIu64 " uncertain, %" PRIu64
           " ends, %" PRIu64 " lagged, %" PRIu64 " withdrawn, %" PRIu64 " told of losses\n",
           n, seen_had, seen_again, seen_restarts, seen_renamed, seen_refused, seen_uncertain,
           seen_closed, seen_lagged, seen_withdrawn, seen_lost);
}

PLAIN(every_mutant_is_noticed) {
    static const char *const names[] = {
#define NAME(name, text) #name ": " text,
        KLAWI_REMOTE_MUTANT_LIST(NAME)
#undef NAME
    };
    uint64_t seed = seed_begin();
    int missed = 0;
    for (int m = KLAWI_PM_REMOTE + 1; m < KLAWI_PM_REMOTE_END; m++)
        if (!notices(&klawi_policy_mutant, m, all_agrees, seed, MUTANT_HISTORIES)) {
            fprintf(stderr, "not noticed: %s\n", names[m - KLAWI_PM_REMOTE - 1]);
            missed++;
        }
    SAME(missed, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        TEST(each_rule_has_its_scene),
        TEST(histories_keep_the_promises),
        TEST(every_mutant_is_noticed),
    };
    const struct CMUnitTest more[] = {TEST(histories_keep_the_promises)};
    my_part = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    if (my_part)
        return cmocka_run_group_tests_name("remote_model", more, NULL, NULL);
    return cmocka_run_group_tests_name("remote_model", tests, NULL, NULL);
}
