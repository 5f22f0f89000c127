"""Names of the keys in Redis that arq does not know; arq's own are in arq.constants."""

import re
from functools import lru_cache

from arq.constants import (
    abort_jobs_ss,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)

# After the queue's name:
WAKE = ":wake"  # list: idle workers wait for entries; + ":" and worker id: only it
PAUSED = ":paused"  # string, exists while the queue is paused
FAILED = ":failed"  # sorted set, job id by when it failed for good
DISCARDED = ":discarded"  # sorted set, job id by when it was discarded, for an hour
WORKERS = ":workers"  # sorted set, worker id by when it was last seen
WORKER = ":worker:"  # + worker id: what a worker says of itself, JSON
CLAIM = ":claim:"  # + worker id: the worker's last claim, in case its answer was lost
ENDS = ":ends:"  # + worker id: how it recorded what ended last, for the same reason
GAUGES = ":gauges"  # the worker whose turn it is to count the queue's jobs
OUTBOX = ":outbox"  # whose turn it is to move the outbox; + WAKE, a channel: a commit
CRON = ":cron:"  # + name and time: a run of a cron job that has been enqueued
BATCH = ":batch:"  # + name: hash, see lua/gather.lua
CRONS = ":crons"  # hash, since when a cron job is known, and how its last run ended
HISTORY = ":history:"  # + minute since 1970: hash, what has ended in it, by task
# ":looks"; ":line:", ":places:", ":starts:" + a limit's name: see lua/control.lua

# Before the job's id:
FAILED_JOB = "arq:failed:"  # hash: what is needed to see a failed job and run it again
DISCARDED_JOB = "arq:discarded:"  # hash: the same of a discarded one, for an hour
ERRORS = (
    "arq:errors:"  # list: one JSON text for each failed try, and each retry by hand
)
LOG = "arq:log:"  # the newest lines that the running job has logged
PROGRESS = "arq:progress:"  # what the job said last of how far it is, JSON
REPLY = "arq:reply:"  # of enqueue and the like, in case it is lost; for 10 seconds
UNKNOWN = "arq:unknown:"  # since when no worker has known the job's task
DONE = "arq:done:"  # channel: the job has ended

# For all queues (in a cluster, after the hash tag, for those that have it):
QUEUES = "arq:queues"  # sorted set, queue name by when a worker of it was last seen
#: Times in the history are sorted into parts of the powers of two of milliseconds.
HISTORY_PARTS = 4
MINUTE_MS = 60_000

#: The score in the queue of a job that waits for the first of its limits; for the
#: second, twice as much, and so on, up to the ninth; plus its own. No time in
#: milliseconds is as late.
PARKED = 10**14
MOST_LIMITS = 9
#: By so much a job that is due is put before its time for each step of its priority: by
#: three years, in milliseconds. Small enough for exact scores until 2039.
STEP_MS = 10**11
MOST_PRIORITY = 9


@lru_cache
def hash_tag(name: str) -> str:
    """The part in braces, by which a cluster places a queue; mostly there is none."""
    found = re.match(r"[^{]*(\{[^}]+\})", name)
    return found[1] if found else ""


def with_tag_of(queue: str, name: str) -> str:
    """A job's id, say, that goes where the queue is."""
    tag = hash_tag(queue)
    return name if name.startswith(tag) else tag + name


#: What each Lua script begins with: these names, and Redis' time in milliseconds, whole
#: and exact. The first line lets Dragonfly run it: which jobs there are is not known
#: beforehand.
PRELUDE = f"""--!df flags=allow-undeclared-keys
local job, result = '{job_key_prefix}', '{result_key_prefix}'
local in_progress, retry = '{in_progress_key_prefix}', '{retry_key_prefix}'
local failed_job, errors = '{FAILED_JOB}', '{ERRORS}'
local discarded_job = '{DISCARDED_JOB}'
local progress, log, unknown = '{PROGRESS}', '{LOG}', '{UNKNOWN}'
local done = '{DONE}'
local PARKED, MOST_LIMITS, MOST_PRIORITY = {PARKED}, {MOST_LIMITS}, {MOST_PRIORITY}
local BEYOND, STEP = PARKED * (MOST_LIMITS + 1), {STEP_MS}
local tag = string.match(KEYS[1] or '', '^[^{{]*({{[^}}]+}})') or ''
local aborts = '{abort_jobs_ss}' .. tag
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local instant = time[1] * 1000 + time[2] / 1000
local function due_of(score)  -- when a job is due, whatever its priority
  local steps = math.floor((instant - score) / STEP + 0.5)
  return steps > 0 and steps <= MOST_PRIORITY and score + steps * STEP or score
end
"""

#: A job still waiting after this time is dropped: 7 days, in milliseconds.
EXPIRES_MS = 7 * 24 * 60 * 60 * 1000
