/* Which containers count: reservation, conversion, orphans.  CAP is 1.
 *
 * 2 schedulers that both want a container of one namespace, 2 invokers, 1 etcd (its transactions
 * are atomic steps).  Any lease may end at any step; who has lost it goes on until it notices.
 * docs/protocol-model.md says what is left out; FAULT_x plants a fault.
 */
#define CAP 1
#define NONE 9

bool lease[2] = true;       /* schedulers */
bool i_lease[2] = true;     /* invokers */
bool i_trusts[2] = true;    /* the invoker's own view: ends a margin before the lease does */
byte guard_key = 0;         /* modulo 8: fewer commits than that between a read and its commit */
bool reserved[2];           /* key of container b, on the lease of scheduler b */
byte serving[2] = NONE;     /* key of container b, on the lease of that invoker */

mtype = { ABSENT, CREATING, UP, STOPPING };
mtype box[2] = ABSENT;
byte at[2] = NONE;

#define KEY(b) ((reserved[b] || serving[b] != NONE) -> 1 : 0)
#define COUNTS(b) ((box[b] == UP || box[b] == STOPPING) && at[b] != NONE && i_lease[at[b]])
/* Orphans, containers of an invoker whose lease has ended, are counted apart. */
inline check_cap() { assert((COUNTS(0) -> 1 : 0) + (COUNTS(1) -> 1 : 0) <= CAP) }

#define CREATOR_GONE (lease[me] && reserved[me] \
    && ((box[me] == CREATING && !i_lease[at[me]]) \
        || (box[me] == ABSENT && !i_lease[0] && !i_lease[1])))

#ifdef FAULT_RETRY
#define LIVES(i) true
#else
#define LIVES(i) i_lease[i]
#endif

proctype Scheduler(byte me) {
    byte guard, seen, tries = 2;
endloop:
    do
    :: atomic { tries > 0 && lease[me] && KEY(me) == 0 && box[me] == ABSENT ->
        tries--; guard = guard_key; seen = KEY(0) + KEY(1) };
        atomic {
            if
#ifdef FAULT_GUARD
            :: seen < CAP && lease[me] ->
#else
            :: seen < CAP && lease[me] && guard == guard_key ->
#endif
                guard_key = (guard_key + 1) % 8; reserved[me] = true
            :: else
            fi;
            guard = 0; seen = 0 }
    :: atomic { reserved[me] && box[me] == ABSENT && LIVES(0) -> box[me] = CREATING; at[me] = 0 }
    :: atomic { reserved[me] && box[me] == ABSENT && LIVES(1) -> box[me] = CREATING; at[me] = 1 }
#ifndef FAULT_LEAK
    /* The invoker that was to create it is gone: the reservation goes. */
    :: atomic { CREATOR_GONE -> reserved[me] = false }
#endif
    :: atomic { !lease[me] -> break }
    od
}

inline convert(b) {
    if
#ifdef FAULT_CONVERSION
    :: i_lease[me] ->
#else
    :: reserved[b] && i_lease[me] ->
#endif
        reserved[b] = false; serving[b] = me; box[b] = UP;
        check_cap()
    :: else -> box[b] = ABSENT; at[b] = NONE
    fi
}
inline stop(b) {
    box[b] = STOPPING;
#ifdef FAULT_EARLY_DELETE
    serving[b] = NONE
#endif
}
inline stopped(b) {
    box[b] = ABSENT; at[b] = NONE;
    if :: serving[b] == me -> serving[b] = NONE :: else fi
}
#ifdef FAULT_LEASE
#define MAY_START true
#else
#define MAY_START i_trusts[me]
#endif

proctype Invoker(byte me) {
endloop:
    do
    :: atomic { at[0] == me && box[0] == CREATING -> convert(0) }
    :: atomic { at[1] == me && box[1] == CREATING -> convert(1) }
    /* A run starts: an orphan takes none.  That may go on for ever, and nothing else. */
    :: at[0] == me && box[0] == UP && MAY_START ->
progress0:
        assert(!(at[0] == me && box[0] == UP && MAY_START) || serving[0] == me)
    :: at[1] == me && box[1] == UP && MAY_START ->
progress1:
        assert(!(at[1] == me && box[1] == UP && MAY_START) || serving[1] == me)
    /* It has idled out: the key goes only after the engine has removed it. */
    :: atomic { at[0] == me && box[0] == UP -> stop(0) }
    :: atomic { at[1] == me && box[1] == UP -> stop(1) }
    :: atomic { at[0] == me && box[0] == STOPPING -> stopped(0) }
    :: atomic { at[1] == me && box[1] == STOPPING -> stopped(1) }
#ifndef FAULT_ORPHAN
    /* It notices that its lease is over: its orphans go. */
    :: atomic { !i_lease[me] && at[0] == me -> box[0] = ABSENT; at[0] = NONE }
    :: atomic { !i_lease[me] && at[1] == me -> box[1] = ABSENT; at[1] = NONE }
#else
    :: !i_lease[me] -> break
#endif
    od
}

inline scheduler_ends(s) { lease[s] = false; reserved[s] = false }
inline invoker_ends(i) {
    i_lease[i] = false;
    if :: serving[0] == i -> serving[0] = NONE :: else fi;
    if :: serving[1] == i -> serving[1] = NONE :: else fi
}

proctype Fate() {
endloop:
    do
    :: atomic { lease[0] -> scheduler_ends(0) }
    :: atomic { lease[1] -> scheduler_ends(1) }
    :: atomic { i_trusts[0] -> i_trusts[0] = false }
    :: atomic { i_trusts[1] -> i_trusts[1] = false }
    :: atomic { i_lease[0] && !i_trusts[0] -> invoker_ends(0) }
    :: atomic { i_lease[1] && !i_trusts[1] -> invoker_ends(1) }
    :: true -> break /* the rest keep their leases */
    od;
    timeout -> /* nothing more can happen: nothing is left over */
        assert(box[0] == ABSENT && box[1] == ABSENT && KEY(0) + KEY(1) == 0)
}

init {
    atomic {
        run Scheduler(0); run Scheduler(1); run Invoker(0); run Invoker(1); run Fate()
    }
}
