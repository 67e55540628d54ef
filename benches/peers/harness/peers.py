"""Who is measured, in which variants, and how much of it."""

from dataclasses import dataclass, field

SINGLE = ("start", "round-trip")
LOOPS = ("throughput 8", "throughput 64", "throughput 256")
BACKLOGS = ("drain", "one-slot")


@dataclass(frozen=True)
class Variant:
    """One way of setting a peer up: its own documentation's fast settings, or nothing but what it does by itself."""

    key: str
    label: str
    phases: tuple
    how: str
    # Of the window of the phase `start`, for those whose polls are seconds apart.
    patience: int = 1


@dataclass(frozen=True)
class Peer:
    """`unfinished` counts in its database what is not stored as done; None: it has no database here."""

    name: str
    label: str
    package: str
    language: str
    variants: tuple = field(default=())
    unfinished: str | None = None


PEERS = (
    Peer(
        "graphile-worker",
        "graphile-worker",
        "graphile-worker",
        "node",
        (
            Variant(
                "tuned",
                "local queue, batched completion",
                ("start", *LOOPS, *BACKLOGS),
                "`localQueue.size` 500, `completeJobBatchDelay` and `failJobBatchDelay` 0, 100 jobs at once, `addJobs` for"
                " backlogs: what its page on performance uses. Completions are stored in batches behind the tasks.",
            ),
            Variant("defaults", "defaults", ("start", "throughput 64", *BACKLOGS), "100 jobs at once, nothing else set."),
        ),
        "select count(*) from graphile_worker._private_jobs",
    ),
    Peer(
        "pg-boss",
        "pg-boss",
        "pg-boss",
        "node",
        (
            Variant(
                "tuned",
                "LISTEN/NOTIFY, batches of 100",
                ("start", *LOOPS, *BACKLOGS),
                "`useListenNotify`, a queue with `notify`, `batchSize` 100, `burstWhenBatchFull`, `insert` for backlogs. A"
                " batch of tasks is done as a whole. One slot: a loop of `fetch` and `complete`, since its workers wait for a"
                " poll between two batches of one.",
            ),
            Variant(
                "defaults",
                "defaults",
                ("start", "throughput 64"),
                "A poll every 2 s for one job, by each of 100 pollers (`localConcurrency`).",
                6,
            ),
        ),
        "select count(*) from pgboss.job where name like 'task-%' and state <> 'completed'",
    ),
    Peer(
        "river",
        "River",
        "github.com/riverqueue/river",
        "go",
        (
            Variant(
                "tuned",
                "FetchCooldown 1 ms",
                ("start", "round-trip", *LOOPS, *BACKLOGS),
                "`FetchCooldown` at its minimum of 1 ms, `FetchPollInterval` 20 ms, 100 workers, `InsertManyFast` for"
                " backlogs. Completions are stored in batches behind the tasks. Its round trip ends with the event"
                " that follows the stored completion, which waits for a batch.",
            ),
            Variant("defaults", "defaults", ("start", "throughput 64", *BACKLOGS), "100 workers, nothing else set."),
        ),
        "select count(*) from river_job where state <> 'completed'",
    ),
    Peer(
        "dbos",
        "DBOS",
        "@dbos-inc/dbos-sdk",
        "node",
        (
            Variant(
                "direct",
                "started directly",
                ("start", "round-trip", *LOOPS),
                "`startWorkflow` in the process that executes it: no queue and no hand-over, and its result is awaited"
                " in memory. A workflow without steps, which stores its result.",
            ),
            Variant(
                "queue",
                "a queue, polled every 10 ms",
                ("start", "throughput 64", *BACKLOGS),
                "`DBOSClient.enqueue`, `minPollingIntervalMs` 10, `workerConcurrency` 100. It has no call that enqueues"
                " many: a backlog is filled by 32 clients.",
            ),
            Variant("defaults", "a queue with defaults", ("start",), "A poll every second.", 4),
        ),
        "select count(*) from dbos.workflow_status where status <> 'SUCCESS'",
    ),
    Peer(
        "restate",
        "Restate",
        "@restatedev/restate-server",
        "node",
        (
            Variant(
                "plain",
                "defaults",
                ("start", "round-trip", *LOOPS, *BACKLOGS),
                "One server with its own log on the same disk, fsync on, no PostgreSQL. Called by plain HTTP over kept"
                " connections; it calls the service over HTTP/2. Backlog: `concurrent-invocations-limit` 4 for each of 24 partitions, so 96 slots, all"
                " held by tasks that wait until the backlog is there. One slot: one key of a virtual object.",
            ),
        ),
    ),
)

QUICK = ("start", "round-trip", "throughput 64", "drain")
