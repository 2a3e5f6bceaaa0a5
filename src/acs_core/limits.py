"""Every bound and duration of the core: its unit, its default and the reason for it.

Plain constants; ``SchedulerConfig`` and ``PoolConfig`` take others.
"""

from __future__ import annotations

from typing import Final

WAITING_MAX: Final = 10_000
"""Activations that wait in one queue.  OpenWhisk's value; 10,000 of 1 KB are 10 MB a queue."""

WAITING_LOW_FRACTION: Final = 0.9
"""Share of WAITING_MAX under which a full queue accepts again; a gap, so that it does not flap."""

WAIT_MAX_US: Final = 60_000_000
"""Longest wait of an activation.  A blocking client gives up after 60 s as well."""

BLACKBOX_WAIT_MAX_US: Final = 300_000_000
"""The same where the image is the user's own: pulling it may take minutes.  As the original's."""

DECISION_INTERVAL_US: Final = 100_000
"""Between two looks at a busy queue.  A tenth of a slow container start: looking more often
finds the same number of containers in the making."""

BACKLOG_INTERVAL_US: Final = 5_000
"""Least time between two decisions that arrivals cause, so that a burst costs one, not 10,000."""

LOOKS_MAX: Final = 8
"""Queues that one step looks at because of the time.  The next step does the rest: a look takes
5 us, and 10,000 that are due at once would otherwise hold up arrivals for 50 ms."""

ASKS_MAX: Final = 100
"""Queues of which one step asks an invoker that has joined what it holds; the next ones ask of the
rest.  One takes 2 us, and where there are 10,000 queues there is no hurry."""

LINE_MAX: Final = 16
"""Queues without room for which room is made at one time, the poorest first, and that look again at
once when some appears.  The others wait until they are among the first; each of these may let a
container go, and no engine swaps as many at once."""

ROOM_SCAN_MAX: Final = 10_000
"""Containers that one step looks through to make room, beyond the first time: 1 ms or so."""

IDLE_GRACE_US: Final = 20_000_000
"""Without work and containers for so long, a queue is idle.  OpenWhisk's value."""

STOP_GRACE_US: Final = 20_000_000
"""Idle for so long, a queue is closed and forgotten.  OpenWhisk's value."""

RETRY_MIN_US: Final = 100_000
RETRY_MAX_US: Final = 10_000_000
"""Wait after a refused or failed creation, doubled each time.  The original asks every 100 ms
for ever, which keeps a broken engine busy."""

RESERVE_ANSWER_US: Final = 10_000_000
"""Longest wait for the answer to a reservation, a transaction of milliseconds.  After it the places
are given back, so that an answer that was lost does not keep the queue from asking again."""

CREATE_ANSWER_US: Final = 120_000_000
"""Longest wait for a container to serve or to fail.  A crowded engine takes seconds, one that has
to fetch an image a minute or so; what is longer was lost, and held a place of the caps."""

GIVEN_UP_MAX: Final = 1_000
"""Creations that were given up whose containers are known by name, so as to be released when they
serve after all; the oldest is forgotten first, and goes after its keep-alive."""

HISTORY_MAX: Final = 10_000
"""Actions whose mean run is remembered, those that opened last: about 4 MB."""

TYPICAL_ACTIONS: Final = 31
"""The actions of a namespace, those that opened last, by which one that is new is judged ..."""

TYPICAL_KNOWN_MIN: Final = 5
"""... and of how many of them at least a run must have ended."""

DURATION_SAMPLES: Final = 16
"""Runs over which the mean and the spread of a queue's run time are smoothed, beside those of
about a second."""

WEIGHT_MAX: Final = 1_000.0
"""Largest weight of a namespace against others of weight 1."""

CONTAINERS_MAX: Final = 10_000
"""Containers of one namespace when no cap is configured: a guard, memory binds long before."""

CALLS_RESERVE: Final = 1
"""Containers of a namespace's cap that only calls made inside its activations may take, or those
calls' own: as many as the depth of calls that is then served whatever else runs (``nesting``).
Callers that call nobody's callers are the common case.  Never more than the cap less 1."""

CAUSES_MAX: Final = 100
"""Activations that wait for one call through each other.  OpenWhisk's sequences have 50 parts, and
every one of them holds a container meanwhile."""

RESERVE_MAX: Final = 100
"""Containers in one reservation.  etcd 3.4 refuses more than 128 operations a transaction."""

GROWTH_GAIN_MIN: Final = 0.5
"""Share of the throughput that more containers should have brought, below which they were in
vain: what binds is not containers then but what they share, a processor or a database."""

GROWTH_STEP_MIN: Final = 1.25
"""Containers over those at the last measurement before the next one: less drowns in noise."""

GROWTH_PAUSE_US: Final = 10_000_000
"""After growth in vain, how long before the steady term is listened to again, the first time."""

GROWTH_DOUBLINGS_MAX: Final = 6
"""How often that time is doubled while growth stays in vain: to 10 minutes, so that a machine that
is full is not tried every few seconds, and one that has become free is found in the end."""

CREATION_US: Final = 300_000
"""Assumed time of a container start until one has been measured (Docker here: 298 ms)."""

KEEP_ALIVE_US: Final = 10_000_000
"""How long an idle container waits for work before it is removed."""

PAUSE_GRACE_US: Final = 0
"""How long an idle container stays awake; 0: it is never paused.  Off until the node's sandboxes
can be paused.  OpenWhisk waits 10 s where containers pull."""

PREWARM_CHECK_US: Final = 600_000_000
"""Between two looks at how many prewarmed sandboxes were missed.  OpenWhisk's value, without the
random seconds that it adds."""

PREWARM_EXPIRIES_MAX: Final = 100
"""Prewarmed sandboxes that one such look lets go.  OpenWhisk's value."""

PREWARM_MAX: Final = 1_000
"""Prewarmed sandboxes of one kind and memory: a guard, memory binds long before."""

# The baseline's, of ``sharding`` and its neighbours: the values that OpenWhisk ships.

MANAGED_FRACTION: Final = 0.9
BLACKBOX_FRACTION: Final = 0.1
"""Shares of the invokers that serve actions of known images, and those of the users' own."""

SHARD_MIN_MB: Final = 128
"""Least memory of an invoker that a controller has for itself: that of the smallest action."""

ACK_FACTOR: Final = 2
ACK_ADDON_US: Final = 60_000_000
ACK_TIMEOUT_MIN_US: Final = 60_000_000
"""A completion is given up after the action's time limit, at least the last of these, times the
first and the second: 180 s for most."""

HEALTH_RESULTS_MAX: Final = 10
HEALTH_TOLERANCE: Final = 3
"""Of so many last results so many may be bad before an invoker gets no more work."""

HEALTH_TEST_RETRY_US: Final = 1_000_000
"""After a first test that failed; doubled with each, up to HEALTH_TEST_INTERVAL_US."""

HEALTH_SILENCE_US: Final = 10_000_000
"""After so long without a word an invoker is taken to be down; it pings every second."""

HEALTH_TEST_INTERVAL_US: Final = 60_000_000
"""Between two test activations to an invoker that is not well."""

PUSH_KEEP_ALIVE_US: Final = 600_000_000
PUSH_PAUSE_GRACE_US: Final = 10_000_000
"""How long its containers idle: paused after the second, removed after the first."""

PUSH_MEMORY_UNIT_MB: Final = 128
PUSH_PEEK_FACTOR: Final = 0.5
"""How much an invoker takes out of its topic: one per such unit of its memory, or by the second
where containers run several at once."""

CONCURRENCY_MAX: Final = 1_000
"""Runs at once inside one container."""

EPOCHS_MAX: Final = 100_000
"""Queues whose epoch an invoker remembers; the one adopted longest ago is forgotten first."""

NAME_MAX: Final = 1_024
"""Characters of an id or a queue's name (a namespace and an action of 256 each, and some)."""

TIME_MAX_US: Final = 2**62 - 1
"""Latest time and longest duration: the sum of two is still an integer of 64 bits."""

FLOOR_INTERVAL_US: Final = 1_000_000
"""Least time between two tries to bring a queue up to its floor: containers that end as soon as
they serve are then made once a second, and a floor that finds no room costs a look a second."""

COUNT_MAX: Final = 2**31 - 1
"""Largest count: of containers that are allowed, of what waits."""

MEMORY_MAX_MB: Final = 2**40
"""Memory of an invoker or a container: an exabyte.  The sum over a million still has 64 bits."""

CREATION_MAX_US: Final = 2**40
"""Longest mean time of a creation, 12 days: so long for each of a million has 64 bits."""

CREATIONS_MIN_PER_S: Final = 0.001
"""Slowest engine; one that manages less counts as unknown."""

ENGINE_SPAN_MAX: Final = 8
"""Creations after which an engine's rate is counted anew though others are still under way: some
seconds of a loaded engine, so that its rate follows the load."""

SPREAD_RATIO: Final = 1.5
SPREAD_MIN_PER_S: Final = 500.0
"""A scheduler is hotter than another when it has so many times its work per second, and so much
more: moving a queue has every invoker asked, which a few activations are not worth."""

SPREAD_QUEUES_MAX: Final = 64
"""Queues that are looked at for one to move, the busiest of those small enough."""

SPARE_GAPS: Final = 10
SPARE_IDLE_MAX_US: Final = 1_000_000
"""Who has a container and wants another gets one that idles only once that is no pause between two
calls: after so many mean times between arrivals at its queue, and by the second at the latest."""

LOOP_BUSY: Final = 0.3
"""Share of a processor above which an event loop gets one to itself: well below what half of its
highest throughput takes, where it would swing.  Functions that compute leave it far less to do."""

LOOP_CALM: Final = 0.15
"""Share below which it gives that back; well below LOOP_BUSY, so that nothing swings."""

HUNGER_LOOKS_MAX: Final = 60
"""For so many looks the hunger of a queue is told to other schedulers while nothing comes of it."""
