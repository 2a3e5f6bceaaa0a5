/* The cluster's protocol: who leads a queue, which containers count, what is started.
 *
 * One queue; 2 schedulers, 2 invokers, 1 controller, 1 etcd (its transactions are atomic steps).
 * Leases end at any moment: a scheduler that has lost its own goes on until it notices (a zombie),
 * an invoker as well.  Messages on a link arrive in order; a link that is cut loses what is on it.
 *
 * A model of docs/protocol.md, not of its code: containers run one activation at a time, there are
 * ACTS activations, CAP is the cap of serving containers.  FAULT_x plants a fault; run.py knows
 * which assertion must find it.
 */

#ifndef ACTS
#define ACTS 2
#endif
#ifndef DEATHS
#define DEATHS 1      /* schedulers' leases that end */
#endif
#ifndef LOSSES
#define LOSSES 1      /* invokers' leases that end */
#endif
#define CAP 1
#define NONE 9
#ifndef BOXES
#define BOXES 2       /* names of containers: never used twice; 2 or 3 */
#endif
#define LAST (BOXES - 1)

/* --- etcd ------------------------------------------------------------------------------------ */
byte leader = NONE;            /* of the queue; hangs on that scheduler's lease */
byte revision = 0;             /* of etcd's leader keys: a leader's epoch is that of its key */
bool lease[2] = true;          /* of schedulers */
bool i_lease[2] = true;        /* of invokers */
byte reserved[BOXES] = NONE;   /* by which scheduler */
byte serving[BOXES] = NONE;    /* at which invoker: its key is there */
byte next_box = 0;
byte guard_key = 0;            /* touched by every reservation */

/* --- invokers -------------------------------------------------------------------------------- */
byte epoch_seen[2];
bool returned[2 * ACTS];       /* [scheduler * ACTS + activation]: on its way back */
bool up[BOXES];                /* runs may start in it */
byte at[BOXES] = NONE;
byte box_epoch[BOXES];
byte running[BOXES] = NONE;    /* activation */
bool fenced[4];                /* [scheduler * 2 + invoker] */

/* --- the world's judgement ------------------------------------------------------------------- */
byte starts[ACTS];
bool ended[ACTS];              /* the controller has its result */
bool unknown[ACTS];
byte sent_to[ACTS] = NONE;     /* scheduler that the controller gave it to */
bool result_way[ACTS];         /* the result is on the link to the controller */
byte deaths = DEATHS;
byte losses = LOSSES;
byte idles = 1;                /* keep-alives that pass */

#define ORPHAN(b) (serving[b] == NONE)
#define COUNT(b) (up[b] && at[b] != NONE && i_lease[at[b]])

/* Caps count serving containers of invokers whose lease holds; those of others are orphans. */
inline check_cap() {
    assert((COUNT(0) -> 1 : 0) + (COUNT(1) -> 1 : 0) + (BOXES > 2 && COUNT(LAST) -> 1 : 0) <= CAP)
}

/* --- links: what a scheduler has written and an invoker has not taken ------------------------- */
mtype = { ADOPT, CREATE, DELIVER };
chan link[4] = [3] of { mtype, byte /* epoch */, byte /* box */, byte /* activation */ };

#define KEYS(b) ((reserved[b] != NONE || serving[b] != NONE) -> 1 : 0)
#define HELD (KEYS(0) + KEYS(1) + (BOXES > 2 && KEYS(LAST) -> 1 : 0))

#define OFFERS(b) (up[b] && box_epoch[b] == epoch && !fenced[me * 2 + at[b]] \
                   && nfull(link[me * 2 + at[b]]))
#define TAKES(x) (epoch > 0 && sent_to[x] == me && !delivered[x] \
                  && (OFFERS(0) || OFFERS(1) || OFFERS(LAST)))

proctype Scheduler(byte me) {
    byte epoch = 0;
    byte guard = 0;
    byte seen = 0;
    byte box = NONE;
    byte a;
    bool adopted[2];
    bool delivered[ACTS];
    byte i;

endloop:
    do
    /* Lead: put-if-absent under the lease.  Its revision is the epoch. */
    :: atomic { epoch == 0 && leader == NONE && lease[me] ->
        revision++; leader = me; epoch = revision;
        adopted[0] = false; adopted[1] = false }
    /* Adopt: every invoker whose lease holds must know the epoch first. */
    :: atomic { epoch > 0 && !adopted[0] && !fenced[me * 2] && nfull(link[me * 2]) ->
        link[me * 2] ! ADOPT, epoch, NONE, NONE; adopted[0] = true }
    :: atomic { epoch > 0 && !adopted[1] && !fenced[me * 2 + 1] && nfull(link[me * 2 + 1]) ->
        link[me * 2 + 1] ! ADOPT, epoch, NONE, NONE; adopted[1] = true }

    /* Reserve, in two steps as in etcd: read what is held, then commit if nothing has changed. */
    :: atomic { epoch > 0 && box == NONE && next_box < BOXES && seen == 0 ->
        guard = guard_key; seen = HELD + 1 }
    :: atomic { seen > 0 ->
        if
#ifdef FAULT_GUARD
        :: seen - 1 < CAP && lease[me] ->
#else
        :: seen - 1 < CAP && guard == guard_key && lease[me] ->
#endif
            guard_key++; box = next_box; next_box++; reserved[box] = me
        :: else
        fi;
        seen = 0; guard = 0 }
    /* Create it, at either invoker. */
    :: atomic {
        if
        :: box != NONE && !fenced[me * 2] && nfull(link[me * 2]) ->
            at[box] = 0; link[me * 2] ! CREATE, epoch, box, NONE
        :: box != NONE && !fenced[me * 2 + 1] && nfull(link[me * 2 + 1]) ->
            at[box] = 1; link[me * 2 + 1] ! CREATE, epoch, box, NONE
        fi;
        box = NONE }

    /* Deliver what the controller has sent here to a container that offers itself, once. */
    :: atomic {
        if
        :: TAKES(0) -> a = 0
        :: ACTS > 1 && TAKES(ACTS - 1) -> a = ACTS - 1
        fi;
        if
        :: OFFERS(0) -> i = 0
        :: OFFERS(1) -> i = 1
        :: BOXES > 2 && OFFERS(LAST) -> i = LAST
        fi;
        link[me * 2 + at[i]] ! DELIVER, epoch, i, a;
        delivered[a] = true; a = 0; i = 0 }
    /* What an invoker gave back has not started: once more. */
    :: atomic {
        if
        :: returned[me * ACTS] -> a = 0
        :: ACTS > 1 && returned[me * ACTS + ACTS - 1] -> a = ACTS - 1
        fi;
        returned[me * ACTS + a] = false; delivered[a] = false; a = 0 }

    /* It notices that its lease is over, and ends. */
    :: atomic { !lease[me] -> break }
    od
}

proctype Invoker(byte me) {
    mtype kind;
    byte epoch, box, a, s;

endloop:
    do
    :: atomic {
        if
        :: !fenced[me] && nempty(link[me]) -> link[me] ? kind, epoch, box, a; s = 0
        :: !fenced[2 + me] && nempty(link[2 + me]) -> link[2 + me] ? kind, epoch, box, a; s = 1
        fi;
        if
        :: kind == ADOPT && epoch >= epoch_seen[me] ->
            epoch_seen[me] = epoch;
            /* Its containers obey the new leader. */
            if :: at[0] == me && up[0] -> box_epoch[0] = epoch :: else fi;
            if :: at[1] == me && up[1] -> box_epoch[1] = epoch :: else fi;
            if :: BOXES > 2 && at[LAST] == me && up[LAST] -> box_epoch[LAST] = epoch :: else fi
        :: kind == CREATE ->
            /* Convert: the reservation must still be there. */
            if
#ifdef FAULT_CONVERSION
            :: i_lease[me] ->
#else
            :: reserved[box] == s && lease[s] && i_lease[me] ->
#endif
                reserved[box] = NONE; serving[box] = me;
                up[box] = true; box_epoch[box] = epoch;
                check_cap()
            :: else -> at[box] = NONE
            fi
        :: kind == DELIVER ->
            if
#ifdef FAULT_EPOCH
            :: up[box] && running[box] == NONE ->
#else
            :: up[box] && running[box] == NONE && epoch >= box_epoch[box] ->
#endif
                running[box] = a; starts[a]++;
                assert(starts[a] <= 1)
            :: else   /* returned: it has not started, its scheduler has it again */
#ifndef FAULT_RETURN
                -> returned[s * ACTS + a] = true
#endif
            fi
        :: else
        fi;
        kind = 0; epoch = 0; box = 0; a = 0; s = 0 }
    /* A run ends; its result goes out before the container offers itself again. */
    :: atomic { at[0] == me && running[0] != NONE -> result_way[running[0]] = true; running[0] = NONE }
    :: atomic { at[1] == me && running[1] != NONE -> result_way[running[1]] = true; running[1] = NONE }
    :: atomic { BOXES > 2 && at[LAST] == me && running[LAST] != NONE ->
        result_way[running[LAST]] = true; running[LAST] = NONE }
    /* An idle container goes; its key only after it is gone. */
    :: atomic { at[0] == me && up[0] && running[0] == NONE && idles > 0 ->
        idles--; up[0] = false; serving[0] = NONE }
    /* Its lease is over: it ends, and so do its containers; what they ran is told to nobody. */
    :: atomic { !i_lease[me] ->
        if :: at[0] == me -> up[0] = false; running[0] = NONE :: else fi;
        if :: at[1] == me -> up[1] = false; running[1] = NONE :: else fi;
        if :: BOXES > 2 && at[LAST] == me -> up[LAST] = false; running[LAST] = NONE :: else fi;
        break }
    od
}

#define ASKED(x, y) (dead[x] && (answered[x * 2] || !i_lease[0]) \
                     && (answered[x * 2 + 1] || !i_lease[1]) && sent_to[y] == x)
#define SENDS(x) (leader != NONE && !dead[leader] && sent_to[x] == NONE && !ended[x] \
                  && !unknown[x])

/* The controller: gives work to the leader, takes results, and after a death fences and resends. */
proctype Controller() {
    byte a, i;
    bool dead[2];
    bool lost_invoker = false;
    bool answered[4];
    byte known[ACTS] = NONE;   /* the invoker that holds it */

endloop:
    do
    :: atomic {
        if
        :: SENDS(0) -> a = 0
        :: ACTS > 1 && SENDS(ACTS - 1) -> a = ACTS - 1
        fi;
        sent_to[a] = leader; a = 0 }
    :: atomic { result_way[0] -> result_way[0] = false; ended[0] = true; unknown[0] = false }
    :: atomic { ACTS > 1 && result_way[ACTS - 1] ->
        result_way[ACTS - 1] = false; ended[ACTS - 1] = true; unknown[ACTS - 1] = false }

    /* An invoker's lease is over: remember it. */
    :: atomic { !lost_invoker && (!i_lease[0] || !i_lease[1]) -> lost_invoker = true }

    /* A scheduler's lease is over: fence it at every invoker whose lease holds... */
    :: atomic { !lease[0] && !dead[0] -> dead[0] = true }
    :: atomic { !lease[1] && !dead[1] -> dead[1] = true }
    :: atomic {
        if
        :: dead[0] && !answered[0] && i_lease[0] -> i = 0
        :: dead[0] && !answered[1] && i_lease[1] -> i = 1
        :: dead[1] && !answered[2] && i_lease[0] -> i = 2
        :: dead[1] && !answered[3] && i_lease[1] -> i = 3
        fi;
        answered[i] = true;
#ifndef FAULT_FENCE
        fenced[i] = true;     /* what is on that link is never taken */
#endif
        /* ... its answer names what it was given; results that were sent before come before. */
        for (a : 0 .. ACTS - 1) {
            if :: result_way[a] -> result_way[a] = false; ended[a] = true :: else fi;
            if
            :: ((running[0] == a && at[0] == i % 2) || (running[1] == a && at[1] == i % 2)
               || (running[LAST] == a && at[LAST] == i % 2)) ->
                known[a] = i % 2
            :: else
            fi
        };
        a = 0; i = 0 }
    /* Once each has answered or is gone: again what nobody was given. */
    :: atomic {
        if
#ifdef FAULT_AWAIT
        :: dead[0] && sent_to[0] == 0 -> a = 0
        :: ACTS > 1 && dead[0] && sent_to[ACTS - 1] == 0 -> a = ACTS - 1
        :: dead[1] && sent_to[0] == 1 -> a = 0
        :: ACTS > 1 && dead[1] && sent_to[ACTS - 1] == 1 -> a = ACTS - 1
#else
        :: ASKED(0, 0) -> a = 0
        :: ACTS > 1 && ASKED(0, ACTS - 1) -> a = ACTS - 1
        :: ASKED(1, 0) -> a = 0
        :: ACTS > 1 && ASKED(1, ACTS - 1) -> a = ACTS - 1
#endif
        fi;
        if
        :: ended[a] -> sent_to[a] = 7                        /* it came meanwhile */
        :: !ended[a] && known[a] != NONE -> sent_to[a] = 5 + known[a]     /* its result comes */
#ifndef FAULT_UNKNOWN
        :: !ended[a] && known[a] == NONE && (lost_invoker || !i_lease[0] || !i_lease[1]) ->
            unknown[a] = true; sent_to[a] = 7
        :: !ended[a] && known[a] == NONE && !(lost_invoker || !i_lease[0] || !i_lease[1]) ->
            sent_to[a] = NONE
#else
        :: !ended[a] && known[a] == NONE -> sent_to[a] = NONE
#endif
        fi;
        a = 0; i = 0 }
    /* What an invoker was known to hold when its lease ended is unknown. */
    :: atomic {
        if
        :: sent_to[0] == 5 && !i_lease[0] && !ended[0] -> a = 0
        :: sent_to[0] == 6 && !i_lease[1] && !ended[0] -> a = 0
        :: ACTS > 1 && sent_to[ACTS - 1] == 5 && !i_lease[0] && !ended[ACTS - 1] -> a = ACTS - 1
        :: ACTS > 1 && sent_to[ACTS - 1] == 6 && !i_lease[1] && !ended[ACTS - 1] -> a = ACTS - 1
        fi;
        unknown[a] = true; sent_to[a] = 7; a = 0 }
    od
}

/* Nothing more can happen: then everything that was sent has ended, or is known to be unknown,
 * as long as somebody is left to lead and to run, and names for containers are left. */
proctype Judge() {
endloop:
    do
    :: timeout ->
        assert(!(lease[0] || lease[1]) || !(i_lease[0] || i_lease[1]) || next_box == BOXES
               || ((ended[0] || unknown[0]) && (ended[ACTS - 1] || unknown[ACTS - 1])));
        break
    od
}

/* Leases end at any moment; etcd takes what hangs on them with it. */
proctype Fate() {
    byte b, s;
endloop:
    do
    :: atomic { deaths > 0 ->
        deaths--;
        if :: lease[0] -> s = 0 :: lease[1] -> s = 1 fi;
        lease[s] = false;
        if :: leader == s -> leader = NONE :: else fi;
        for (b : 0 .. BOXES - 1) { if :: reserved[b] == s -> reserved[b] = NONE :: else fi };
        b = 0; s = 0 }
    :: atomic { losses > 0 ->
        losses--;
        if :: i_lease[0] -> s = 0 :: i_lease[1] -> s = 1 fi;
        i_lease[s] = false;
        for (b : 0 .. BOXES - 1) { if :: serving[b] == s -> serving[b] = NONE :: else fi };
        b = 0; s = 0 }
    :: deaths == 0 && losses == 0 -> break
    od
}

init {
    atomic {
        run Scheduler(0); run Scheduler(1); run Invoker(0); run Invoker(1);
        run Controller(); run Fate(); run Judge()
    }
}
