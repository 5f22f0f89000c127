"""The command that operates the queues, for people and for scripts.

What it does is in jobs.py.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, get_args

import click
from pydantic_core import to_json
from redis.exceptions import RedisError

from .info import JobInfo, QueueStats, State, trouble
from .jobs import Operations

Abort = Callable[[str, str | None], Awaitable[bool]]

# --- How things look: in 80 columns, with colours only on a terminal ------------------


def plain(text: str) -> str:
    """One line without the control codes that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def span(seconds: float) -> str:
    """A time in its largest unit, as in 3 min."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def when(time: datetime) -> str:
    """A time as seen from now, as in 3 min ago."""
    seconds = (datetime.now(UTC) - time).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


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
    if stats.dropped:
        some = ", ".join(f"{count} of {task}" for task, count in stats.dropped.items())
        click.secho(plain(f"  dropped to make room: {some}"), fg="yellow")
    if not stats.workers:
        click.secho("  no worker is alive", fg="yellow")
    for worker in stats.workers:
        click.echo(
            f"  worker {plain(worker.host)}:{worker.pid} {worker.version[:10]}, "
            f"since {when(worker.since)}, "
            f"runs {len(worker.running)} of {worker.max_jobs} jobs"
        )
    cron = {name: at for worker in stats.workers for name, at in worker.cron.items()}
    for name, at in sorted(cron.items(), key=lambda job: job[1]):
        last = stats.last_runs.get(name)
        said = f"; last {when(last.finished)}: {last.outcome}" if last else ""
        click.echo(f"  {plain(name)} {when(at)}, at {iso(at)}{said}")


def print_job(job: JobInfo) -> None:
    """One line for a job, and one for its error or progress."""
    time = job.finished or job.due or job.enqueued
    tries = f"{job.tries} {'try' if job.tries == 1 else 'tries'}"
    # a longer id has a line to itself, whole: it is there to be copied
    click.secho(f"{plain(job.job_id):36}", bold=True, nl=len(job.job_id) > 36)
    click.echo(f" {plain(job.task):24.24} {tries:>8} {when(time) if time else '':>9}")
    if job.progress:
        click.echo(f"  {progress(job.progress):.78}")
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
        "result": None if job.success is None or job.error else repr(job.result),
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
        click.secho(f"try {error['try']:<6}{plain(error['error'])}", fg="red")
    for line in job.traceback.splitlines():
        click.echo(plain(line))


def print_json(value: Any) -> None:
    """For programs."""
    click.echo(to_json(value, indent=2, fallback=repr, bytes_mode="base64"))


# --- What the commands share ----------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """What the command works on."""

    operations: Operations
    abort_job: Abort

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end; exit with 3 when Redis cannot be used.

        Raises:
            click.UsageError: An argument is no text that Redis takes.
        """

        async def to_its_end() -> Any:
            try:
                return await work
            finally:
                await self.operations.close()

        try:
            return asyncio.run(to_its_end())
        except UnicodeEncodeError:
            raise click.UsageError("An id or a name is not UTF-8.") from None
        except (RedisError, OSError) as exc:
            click.secho(trouble(exc), fg="red", err=True)
            sys.exit(3)

    def act(
        self,
        verb: str,
        action: Callable[..., Awaitable[bool]],
        job_ids: tuple[str, ...],
        queue: str | None,
        as_json: bool,
    ) -> None:
        """Act on each job, say on which it is not possible, and exit."""

        async def work() -> int:
            done = 0
            for job_id in job_ids:
                if await action(job_id, queue=queue):
                    done += 1
                else:
                    job = await self.operations.get_job(job_id, queue=queue)
                    why = f"is {job.state.replace('_', ' ')}" if job else "is not known"
                    text = f"{plain(job_id)} {why}: left alone"
                    click.secho(text, fg="red", err=True)
            return done

        finish(verb, self.run(work()), len(job_ids), as_json)


def finish(verb: str, count: int, wanted: int, as_json: bool) -> None:
    """Say what was done; exit with 1 when it was not all."""
    if as_json:
        print_json({verb: count})
    else:
        click.echo(f"{verb} {count} {'job' if count == 1 else 'jobs'}")
    sys.exit(0 if count >= wanted else 1)


queue_option = click.option("--queue", help="Name of a queue; else the default one.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
task_option = click.option("--task", help="Only jobs of the task with this name.")
some_ids = click.argument("job_ids", nargs=-1, required=True)


# --- The commands ---------------------------------------------------------------------


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """See how the queue does, run failed jobs again, pause it.

    Exit codes: 0, it is done; 1, there is no such job, or it is in another state; 2,
    the command is wrong; 3, Redis cannot be used.
    """


@command.command()
@click.option("--queue", help="Name of a queue; all queues without it.")
@json_option
@click.pass_obj
def stats(project: Project, queue: str | None, as_json: bool) -> None:
    """Count the jobs, and show the workers and cron jobs."""
    operations = project.operations

    async def work() -> list[QueueStats]:
        names = [queue] if queue else await operations.list_queues()
        return [await operations.queue_stats(name) for name in names]

    found = project.run(work())
    if as_json:
        return print_json(found)
    for one in found:
        print_stats(one)


@command.command("list")
@click.argument("state", type=click.Choice(get_args(State)))
@task_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most so many jobs.",
)
@click.option(
    "--offset",
    type=click.IntRange(min=0),
    default=0,
    help="Leave out the first so many.",
)
@queue_option
@json_option
@click.pass_obj
def list_command(
    project: Project, /, state: State, as_json: bool, **options: Any
) -> None:
    """List the jobs in a state."""
    jobs: list[JobInfo] = project.run(project.operations.list_jobs(state, **options))
    if as_json:
        return print_json(jobs)
    for job in jobs:
        print_job(job)


@command.command()
@click.argument("job_id")
@queue_option
@json_option
@click.pass_obj
def show(project: Project, job_id: str, queue: str | None, as_json: bool) -> None:
    """Show all that is known of a job."""
    job = project.run(project.operations.get_job(job_id, queue=queue))
    if job is None:
        click.secho(f"There is no job {plain(job_id)}.", fg="red", err=True)
        sys.exit(1)
    if as_json:
        return print_json(job)
    print_details(job)


def add_failed_command(
    name: str,
    verb: str,
    one: Callable[..., Awaitable[bool]],
    all_of_them: Callable[..., Coroutine[Any, Any, int]],
    help: str,
) -> None:
    """A command for failed jobs: some, or all."""

    @command.command(name, help=help)
    @click.argument("job_ids", nargs=-1)
    @click.option("--all", "is_all", is_flag=True, help="All failed jobs.")
    @task_option
    @queue_option
    @json_option
    @click.pass_obj
    def act(
        project: Project,
        job_ids: tuple[str, ...],
        is_all: bool,
        task: str | None,
        queue: str | None,
        as_json: bool,
    ) -> None:
        if bool(job_ids) == (is_all or bool(task)):
            raise click.UsageError("Name jobs; or --all of them, or those of a --task.")
        if job_ids:
            action = partial(one, project.operations)
            return project.act(verb, action, job_ids, queue, as_json)
        count = project.run(all_of_them(project.operations, task, queue=queue))
        finish(verb, count, 0, as_json)


add_failed_command(
    "retry",
    "retried",
    Operations.retry_job,
    Operations.retry_failed,
    "Run failed jobs again.",
)
add_failed_command(
    "discard",
    "discarded",
    Operations.discard_job,
    Operations.discard_failed,
    "Forget failed jobs.",
)


@command.command()
@some_ids
@queue_option
@json_option
@click.pass_obj
def abort(
    project: Project, job_ids: tuple[str, ...], queue: str | None, as_json: bool
) -> None:
    """Cancel jobs that wait or run."""

    async def action(job_id: str, *, queue: str | None) -> bool:
        return await project.abort_job(job_id, queue)

    project.act("aborted", action, job_ids, queue, as_json)


@command.command("run-now")
@some_ids
@queue_option
@json_option
@click.pass_obj
def run_now(
    project: Project, job_ids: tuple[str, ...], queue: str | None, as_json: bool
) -> None:
    """Run deferred jobs without more delay."""
    project.act("hurried", project.operations.run_now, job_ids, queue, as_json)


@command.command()
@queue_option
@click.pass_obj
def pause(project: Project, queue: str | None) -> None:
    """Begin no more jobs; those that run finish."""
    project.run(project.operations.pause_queue(queue))
    click.echo(f"{plain(queue or project.operations.default_queue)} is paused")


@command.command()
@queue_option
@click.pass_obj
def resume(project: Project, queue: str | None) -> None:
    """Go on with a paused queue."""
    project.run(project.operations.resume_queue(queue))
    click.echo(f"{plain(queue or project.operations.default_queue)} goes on")


def main(operations: Operations, abort_job: Abort, prog_name: str) -> None:
    """Run the command with the arguments of this process, and exit.

    Args:
        operations: What it shows, and does.
        abort_job: What aborts a job, given its id and its queue.
        prog_name: How it is called.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # it says itself what fails
    command(prog_name=prog_name, obj=Project(operations, abort_job))
