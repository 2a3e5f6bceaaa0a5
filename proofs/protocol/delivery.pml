/* Who leads a queue and what is started: leadership, epochs, adoption, fences, redelivery.
 *
 * 2 schedulers, 2 invokers with one container of one slot each, 1 controller, 1 etcd (its
 * transactions are atomic steps), 2 activations of one queue.  One scheduler's and one invoker's
 * lease may end at any step; both go on until they notice (zombies).  Links keep the order.
 * docs/protocol-model.md says what is left out; FAULT_x plants a fault.
 */
#define NONE 9
#define DONE 7
#define HELD 5 /* HELD + i: invoker i is known to hold it */

byte leader = NONE;        /* etcd: hangs on that scheduler's lease */
byte revision = 0;         /* etcd: the epoch is the revision of the leader's key */
bool lease[2] = true;      /* schedulers */
bool i_lease[2] = true;    /* invokers */

byte epoch_seen[2];        /* invokers */
byte owner[2] = NONE;      /* the scheduler that a container pulls from */
byte running[2] = NONE;    /* activation in the invoker's container */
#ifdef SMALL
byte refusals = 0;
#else
byte refusals = 1;         /* deliveries that cross a container's leaving */
#endif

bool adopted[4];           /* [scheduler * 2 + invoker] */
bool busy[4];              /* what the scheduler believes of the slot */
bool fenced[4];            /* links of which nothing is taken any more */
byte holder[4] = NONE;     /* [scheduler * 2 + activation]: invoker that it was delivered to */

byte at[2] = NONE;         /* controller: where an activation is */
bool dead[2];              /* controller: schedulers that are gone */
bool lost_invoker = false; /* controller: an invoker went, news may have died with a scheduler */
bool answered[4];
byte known[2] = NONE;

byte starts[2];
bool ended[2];             /* record: a definite result */
bool unknown[2];           /* record: unknown, unless ended */

mtype = { ADOPT, DELIVER };
chan link[4] = [2] of { mtype, byte /* epoch */, byte /* activation */ };

#ifdef FAULT_ADOPTION
#define SERVES (epoch > 0)
#else
#define SERVES (epoch > 0 && (adopted[me * 2] || !i_lease[0]) && (adopted[me * 2 + 1] || !i_lease[1]))
#endif
#define CAN_DELIVER(a, i) (SERVES && at[a] == me && holder[me * 2 + a] == NONE && i_lease[i] \
    && !busy[me * 2 + i] && asked[i] && nfull(link[me * 2 + i]))

inline deliver(a, i) {
    link[me * 2 + i] ! DELIVER, epoch, a;
    holder[me * 2 + a] = i; busy[me * 2 + i] = true
}

/* What an invoker that is gone may have run is unknown: never delivered again. */
#define INVOKER_GONE(a) (!dead[me] && at[a] == me && holder[me * 2 + a] != NONE \
    && !i_lease[holder[me * 2 + a]])
inline invoker_gone(a) {
#ifdef FAULT_REDELIVERY
    holder[me * 2 + a] = NONE
#else
    if :: !ended[a] -> unknown[a] = true :: else fi;
    at[a] = DONE
#endif
}

proctype Scheduler(byte me) {
    byte epoch = 0;
    bool asked[2];
endloop:
    do
    :: atomic { epoch == 0 && leader == NONE && lease[me] ->
        revision++; leader = me; epoch = revision }
    :: atomic { epoch > 0 && !asked[0] -> link[me * 2] ! ADOPT, epoch, NONE; asked[0] = true }
    :: atomic { epoch > 0 && !asked[1] -> link[me * 2 + 1] ! ADOPT, epoch, NONE; asked[1] = true }
    :: atomic { CAN_DELIVER(0, 0) -> deliver(0, 0) }
    :: atomic { CAN_DELIVER(0, 1) -> deliver(0, 1) }
    :: atomic { CAN_DELIVER(1, 0) -> deliver(1, 0) }
    :: atomic { CAN_DELIVER(1, 1) -> deliver(1, 1) }
    :: atomic { INVOKER_GONE(0) -> invoker_gone(0) }
    :: atomic { INVOKER_GONE(1) -> invoker_gone(1) }
    :: atomic { !lease[me] -> break } /* it notices, and ends */
    od
}

#ifdef FAULT_BOUNCE
#define MAY_REFUSE true
#define REFUSED skip
#else
#define MAY_REFUSE (refusals > 0)
#define REFUSED refusals--
#endif
inline take(s) {
    link[s * 2 + me] ? kind, epoch, a;
    if
#ifndef FAULT_EPOCH
    :: epoch < epoch_seen[me] ->
        if :: kind == DELIVER -> holder[s * 2 + a] = NONE :: else fi
#endif
    :: else ->
        if
        :: kind == ADOPT ->
            epoch_seen[me] = epoch; owner[me] = s; adopted[s * 2 + me] = true;
            busy[s * 2 + me] = (running[me] != NONE)
        :: kind == DELIVER && MAY_REFUSE -> /* given back: known not to have started */
            REFUSED; busy[s * 2 + me] = false;
#ifndef FAULT_RETURN
            holder[s * 2 + a] = NONE
#endif
        :: kind == DELIVER ->
            assert(running[me] == NONE); /* one more than the container has slots */
            starts[a]++;
            assert(starts[a] <= 1);
            running[me] = a
        fi
    fi;
    kind = 0; epoch = 0; a = 0
}

proctype Invoker(byte me) {
    mtype kind;
    byte epoch, a;
endloop:
    do
    :: atomic { !fenced[me] && nempty(link[me]) -> take(0) }
    :: atomic { !fenced[2 + me] && nempty(link[2 + me]) -> take(1) }
    :: atomic { running[me] != NONE -> /* the result, then the pull */
        if :: i_lease[me] -> ended[running[me]] = true :: else fi; /* links to it are cut */
        running[me] = NONE;
        if :: owner[me] != NONE -> busy[owner[me] * 2 + me] = false :: else fi }
    :: atomic { !i_lease[me] -> running[me] = NONE; break }
    od
}

#define SENDS(a) (at[a] == NONE && leader != NONE && !dead[leader])
#define ALL_ANSWERED(s) ((answered[s * 2] || !i_lease[0]) && (answered[s * 2 + 1] || !i_lease[1]))
#ifdef FAULT_AWAIT
#define SETTLES(a) (at[a] < 2 && dead[at[a]])
#else
#define SETTLES(a) (at[a] < 2 && dead[at[a]] && ALL_ANSWERED(at[a]))
#endif
inline settle(a) {
    if
    :: ended[a] -> at[a] = DONE
    :: !ended[a] && known[a] != NONE -> at[a] = HELD + known[a]
#ifndef FAULT_UNKNOWN
    :: !ended[a] && known[a] == NONE && (lost_invoker || !i_lease[0] || !i_lease[1]) ->
        unknown[a] = true; at[a] = DONE
    :: else -> at[a] = NONE
#else
    :: else -> at[a] = NONE
#endif
    fi
}
#define HOLDER_GONE(a) ((at[a] == HELD && !i_lease[0]) || (at[a] == HELD + 1 && !i_lease[1]))

#ifdef FAULT_FENCE
#define CUT false
#else
#define CUT true
#endif
#define ASKS(s, i) (dead[s] && !answered[s * 2 + i] && i_lease[i])
inline fence(s, i) {
    answered[s * 2 + i] = true; fenced[s * 2 + i] = CUT;
    if :: running[i] != NONE -> known[running[i]] = i :: else fi
}

proctype Controller() {
endloop:
    do
    :: atomic { SENDS(0) -> at[0] = leader }
    :: atomic { SENDS(1) -> at[1] = leader }
    :: atomic { !lost_invoker && (!i_lease[0] || !i_lease[1]) -> lost_invoker = true }
    :: atomic { !lease[0] && !dead[0] -> dead[0] = true }
    :: atomic { !lease[1] && !dead[1] -> dead[1] = true }
    :: atomic { ASKS(0, 0) -> fence(0, 0) }
    :: atomic { ASKS(0, 1) -> fence(0, 1) }
    :: atomic { ASKS(1, 0) -> fence(1, 0) }
    :: atomic { ASKS(1, 1) -> fence(1, 1) }
    :: atomic { SETTLES(0) -> settle(0) }
    :: atomic { SETTLES(1) -> settle(1) }
    :: atomic { HOLDER_GONE(0) -> unknown[0] = !ended[0]; at[0] = DONE }
    :: atomic { HOLDER_GONE(1) -> unknown[1] = !ended[1]; at[1] = DONE }
    od
}

/* Leases end at any step; etcd takes what hangs on them with it. */
proctype Fate() {
#ifdef SMALL
    bool scheduler_ends = true, invoker_ends = false;
#else
    bool scheduler_ends = true, invoker_ends = true;
#endif
endloop:
    do
    :: atomic { scheduler_ends -> scheduler_ends = false; lease[0] = false;
        if :: leader == 0 -> leader = NONE :: else fi }
    :: atomic { scheduler_ends -> scheduler_ends = false; lease[1] = false;
        if :: leader == 1 -> leader = NONE :: else fi }
    :: atomic { invoker_ends -> invoker_ends = false; i_lease[0] = false }
    :: atomic { invoker_ends -> invoker_ends = false; i_lease[1] = false }
    :: timeout -> /* nothing more can happen: nothing may be lost */
        assert((ended[0] || unknown[0]) && (ended[1] || unknown[1]));
        assert(!(unknown[0] || unknown[1]) || !i_lease[0] || !i_lease[1]);
        break
    od
}

init {
    atomic {
        run Scheduler(0); run Scheduler(1); run Invoker(0); run Invoker(1);
        run Controller(); run Fate()
    }
}
