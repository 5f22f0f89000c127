"""Limits while workers and Redis fail, as the jobs themselves have noted it in a file."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from chaos import run_through
from kit import App
from limited_tasks import OF_ALL, OF_KEY, limited
from noting import Event, Notes
from processes import Processes
from support import OwnRedis

#: By hand: LIMIT_CHAOS=200,5000 uv run pytest tests/runtime/test_limit_chaos.py
KEYS, JOBS = map(int, os.environ.get("LIMIT_CHAOS", "60,900").split(","))


def most_at_once(events: list[Event]) -> tuple[int, int]:
    """How many ran at once: of one key, and of all. The order is that of the file."""
    running: set[tuple[str, str]] = set()
    of_key, of_all = 0, 0
    for event in events:
        if event.what == "start":
            running.add((event.who, event.name))
            counts = Counter(name.split()[0] for _, name in running)
            of_key = max(of_key, *counts.values())
            of_all = max(of_all, len(running))
        elif event.what == "end":
            running.discard((event.who, event.name))
        else:
            running = {(who, name) for who, name in running if who != event.name}
    return of_key, of_all


@pytest.mark.slow
async def test_no_more_run_at_once_whatever_fails(
    own_app: App, own_redis: OwnRedis, own_processes: Processes, notes: Notes
) -> None:
    own_app.settings(limited)
    calls = [{"key": n % KEYS, "n": n} for n in range(JOBS)]
    calls.sort(key=lambda call: call["key"] % 7)  # so that many of a key wait at once
    await run_through(
        *(own_app, own_redis, own_processes),
        lambda: own_app.client.enqueue_many(limited, calls),
        lambda: len({event.name for event in notes.ends()}) / JOBS,
        settings="limited_tasks.WorkerSettings",
        lease=15,  # the processes may get no time for as long on a busy machine
        max_jobs=20,
        log_results=False,
    )
    of_key, of_all = most_at_once(notes.events())
    print(f"at once: {of_key} of a key, {of_all} of all")
    assert of_key == OF_KEY and of_all <= OF_ALL
