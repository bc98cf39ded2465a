"""The numbers of the daemon. Nobody but a test has a reason to change them."""

from __future__ import annotations

from dataclasses import dataclass

from tsbs_daw.queue.spool import DONE_DAYS

PIPELINE = "tsbs_daw.pipeline.run:run_job"


@dataclass(frozen=True)
class WatchTimings:
    """When a file counts as completely written.

    samples, span_s: it must look the same that often, over at least that time
    sample_every_s:  how often files that are not stable yet are looked at
    look_every_s:    a full look at most so often, while events come; never more than a tenth of the time is spent on it
    rescan_s:        a full look, events or not; also the only look where there are no events
    incomplete_s:    how long a file shorter than its own header says may stand still before it is taken as it is
    """

    samples: int = 3
    span_s: float = 2.0
    sample_every_s: float = 0.5
    look_every_s: float = 1.0
    rescan_s: float = 30.0
    incomplete_s: float = 60.0


LOCAL = WatchTimings()
SHARE = WatchTimings(span_s=10.0, sample_every_s=2.5, rescan_s=10.0)


@dataclass(frozen=True)
class DaemonOptions:
    """How long things may take, and how often they may fail.

    songs_at_once:  how many songs one worker separates at a time; 0: what suits the device, one on a processor
    busy_tick_s, idle_tick_s: pause between two ticks, while something goes on and while nothing does
    lease_s:        a worker that says nothing for so long is dead
    stall_s:        a job that moves nowhere for so long hangs
    cancel_kill_s:  a job that is asked to end and does not in this time is killed
    crash_limit:    so many dead workers, and the job is dead too
    retry_limit:    so many attempts when the error may pass by itself, as a full disk does
    worker_idle_s:  without work for so long, the worker is let go, and its memory with it
    finish_s, release_s: after SIGTERM, time for the job to finish, then to let go; the sum stays below 10 s
    copies_bytes:   how much of the watched files may lie copied in the spool at once
    hook_s:         a hook that takes longer is ended
    patience_s:     with `once`, how long to wait for files that are still growing
    """

    runner: str = PIPELINE
    workers: int = 1
    songs_at_once: int = 0
    busy_tick_s: float = 0.2
    idle_tick_s: float = 1.0
    lease_s: float = 30.0
    stall_s: float = 1800.0
    cancel_kill_s: float = 10.0
    crash_limit: int = 3
    retry_limit: int = 8
    retry_first_s: float = 5.0
    retry_longest_s: float = 300.0
    restart_first_s: float = 0.5
    restart_longest_s: float = 60.0
    start_limit: int = 3
    worker_idle_s: float = 600.0
    finish_s: float = 3.0
    release_s: float = 3.0
    heartbeat_s: float = 2.0
    copies_bytes: int = 4 << 30
    patience_s: float = 15.0
    hook_s: float = 60.0
    done_days: float = DONE_DAYS
    local: WatchTimings = LOCAL
    share: WatchTimings = SHARE


def back_off(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, up to a limit."""
    return min(first_s * 2.0 ** max(min(failures, 30) - 1, 0), longest_s)
