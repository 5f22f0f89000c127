"""How the command shows things: in 80 columns, with colours only on a terminal."""

from datetime import UTC, datetime
from typing import Any

import click
from arq.utils import ms_to_datetime
from pydantic_core import to_json

from .history import Span
from .info import ErrorGroup, Found, JobInfo, QueueStats


def plain(text: str) -> str:
    """One line without the control codes that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def span(seconds: float) -> str:
    """A time in its largest unit, as in 3 min."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def iso(time: datetime) -> str:
    """A time in UTC, as in 2030-01-31T09:00:00Z."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def progress(said: dict[str, Any]) -> str:
    """What set_progress said, as in 40 % resizing."""
    return plain(f"{said['percent']:.0f} % {said['message']}")


def print_stats(stats: QueueStats) -> None:
    """A queue, its workers, and its cron jobs."""
    paused = click.style(" is paused", fg="yellow") if stats.paused else ""
    click.echo(click.style(plain(stats.queue), bold=True) + paused)
    waiting = f" (the oldest for {span(stats.oldest)})" if stats.queued else ""
    failed = click.style(f"{stats.failed} failed", fg="red" if stats.failed else None)
    click.echo(
        f"  {stats.queued} queued{waiting}, {stats.deferred} deferred, "
        f"{stats.in_progress} in progress, {failed}"
    )
    for name, count in sorted(stats.waiting.items()):
        wait = "job waits" if count == 1 else "jobs wait"
        click.echo(f"  {count} {wait} for limit {plain(name)}")
    if stats.dropped:
        some = ", ".join(f"{count} of {task}" for task, count in stats.dropped.items())
        click.secho(plain(f"  dropped to make room: {some}"), fg="yellow")
    if not stats.workers:
        click.secho("  no worker is alive", fg="yellow")
    for worker in stats.workers:
        click.echo(
            f"  worker {plain(worker.host)}:{worker.pid} {worker.version[:10]}, "
            f"runs {len(worker.running)} of {worker.max_jobs} jobs, "
            f"since {iso(worker.since)}"
        )
        if not worker.is_alive:
            click.secho(f"    has said nothing since {iso(worker.seen)}", fg="yellow")
    cron = {name: at for worker in stats.workers for name, at in worker.cron.items()}
    for name, at in sorted(cron.items(), key=lambda job: job[1]):
        click.echo(f"  {plain(name)} next {due(at)}, {iso(at)}")
        if last := stats.last_runs.get(name):
            took = (last.finished - last.started).total_seconds()
            click.secho(
                f"    last {iso(last.finished)}, {last.outcome}, took {span(took)}",
                fg=None if last.outcome == "complete" else "red",
            )
            if last.outcome != "complete":
                click.echo(f"    {plain(last.job_id)}")


def due(time: datetime) -> str:
    """A next time: one that has passed is now, since it waits for a worker."""
    seconds = (time - datetime.now(UTC)).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else "now"


def print_jobs(jobs: list[JobInfo]) -> None:
    """One line for each, and one for its error or progress."""
    for job in jobs:
        time = job.finished or job.due or job.started or job.enqueued
        # a longer id has a line to itself, whole: it is there to be copied
        click.secho(f"{plain(job.job_id):32}", bold=True, nl=len(job.job_id) > 32)
        tries = f"{job.tries}x" if job.tries else ""
        click.echo(f" {iso(time) if time else '':20} {tries:>4} {plain(job.task):.21}")
        if job.progress:
            click.echo(f"  {progress(job.progress):.78}")
        if job.waits_for:
            click.echo(f"  waits for limit {plain(job.waits_for):.62}")
        if job.error:
            click.secho(f"  {plain(job.error):.78}", fg="red")


def print_details(job: JobInfo) -> None:
    """All that is known of a job."""
    arguments = [repr(value) for value in job.args]
    arguments += [f"{name}={value!r}" for name, value in job.kwargs.items()]
    rows: dict[str, Any] = {
        "job": job.job_id,
        "state": job.state.replace("_", " "),
        "task": f"{job.task}({', '.join(arguments)})",
        "tries": job.tries,
        "enqueued": job.enqueued,
        "due": job.due,
        "started": job.started,
        "finished": job.finished,
        "worker": job.worker,
        "result": None if job.success is None or job.error else repr(job.result),
        "waits for": job.waits_for and f"limit {job.waits_for}",
        "reason": job.reason,
        "error": job.error,
    }
    if job.progress:
        rows["progress"] = progress(job.progress)
    for name, value in rows.items():
        if value not in (None, ""):
            text = iso(value) if isinstance(value, datetime) else str(value)
            click.echo(f"{name:10}{plain(text)}")
    for error in job.errors:
        at = iso(ms_to_datetime(error["at"]))
        if by := error.get("retried_by"):
            click.echo(f"retried   {at} by {plain(by)}")
        else:
            click.secho(f"try {error['try']:<6}{at} {plain(error['error'])}", fg="red")
    for line in (*job.log.splitlines(), *job.traceback.splitlines()):
        click.echo(plain(line))


def print_json(value: Any) -> None:
    """For programs."""
    click.echo(to_json(value, indent=2, fallback=repr, bytes_mode="base64"))


def print_groups(groups: list[ErrorGroup]) -> None:
    """Two lines for each kind of error."""
    for group in groups:
        times = f"{iso(group.first)} to {iso(group.last)}"
        click.echo(f"{group.count:>6} {times:44} {plain(group.task):.28}")
        click.secho(f"       {plain(group.error):.73}", fg="red")


def print_looked_at(found: Found) -> None:
    """What was looked at, when that was not all; not among the results."""
    if found.next:
        click.secho(
            f"looked at {found.looked_at:,} of {found.total:,} jobs; "
            f"go on with --start {found.next}",
            fg="yellow",
            err=True,
        )


def print_history(spans: list[Span], minutes: int) -> None:
    """Lines of small bars, each for some minutes, and the highest number."""
    lines: list[tuple[str, list[float | None], str]] = [
        ("jobs/min", [one.jobs / minutes for one in spans], "{:.1f}"),
        ("failed/min", [one.failed / minutes for one in spans], "{:.1f}"),
        ("wait 95 %", [one.wait_95 for one in spans], "{:.2f} s"),
        ("run median", [one.run_median for one in spans], "{:.2f} s"),
        ("run 95 %", [one.run_95 for one in spans], "{:.2f} s"),
    ]
    click.echo(f"  since {iso(spans[0].at)}, a bar is {minutes} min")
    for name, values, text in lines:
        most = max(value or 0 for value in values)
        bars = "".join(
            " " if not value else BARS[int(value / most * (len(BARS) - 1))]
            for value in values
        )
        click.echo(f"  {name:10} {bars} at most {text.format(most)}")


BARS = "▁▂▃▄▅▆▇█"
