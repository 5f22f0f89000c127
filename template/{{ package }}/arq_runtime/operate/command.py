"""The command that operates the queues, for people and for scripts.

What it does is in jobs.py, how that looks in shown.py.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, get_args

import click

from . import shown
from .history import Span
from .info import ALL, Found, QueueStats, State, Which, shown_id
from .jobs import Operations
from .project import MANY, Abort, Project, age, fail, options, who


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """See how the queue does, run failed jobs again, pause it.

    Exit codes: 0, it is done; 1, there is no such job, task or queue, or the job is in
    another state; 2, the command is wrong; 3, Redis cannot be used.
    """


# --- Looking


@command.command()
@click.option(
    "--history", "with_history", is_flag=True, help="Show the last 8 hours, too."
)
@options()
def stats(project: Project, with_history: bool) -> None:
    """Count the jobs of all queues; show workers and cron jobs."""
    operations, step = project.operations, 10

    async def work() -> list[tuple[QueueStats, list[Span]]]:
        names = [project.queue] if project.queue else await operations.list_queues()
        return [
            (
                await operations.queue_stats(name),
                await operations.history(step=step, queue=name) if with_history else [],
            )
            for name in names
        ]

    found = project.run(work)
    if project.as_json:
        return shown.print_json(
            [
                vars(one) | ({"history": spans} if with_history else {})
                for one, spans in found
            ]
        )
    for one, spans in found:
        shown.print_stats(one)
        if spans:
            shown.print_history(spans, step)


@command.command("list")
@click.argument("state", type=click.Choice([*get_args(State), "all"]), default="all")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="At most so many jobs.",
)
@click.option("--start", default="", help="Go on where an earlier look has ended.")
@options("task", "text", "error", "since")
def list_command(project: Project, state: Any, which: Which, **place: Any) -> None:
    """List the jobs in a state, or those in all states."""
    if which.error and state != "failed":
        raise click.UsageError("--error is for failed jobs: list failed --error ...")

    async def work() -> Found:
        try:
            return await project.operations.find_jobs(
                None if state == "all" else state,
                which=which,
                brief=not project.as_json,
                queue=project.queue,
                **place,
            )
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None

    found: Found = project.run(work, which.task)
    project.show(found.jobs, shown.print_jobs)
    shown.print_looked_at(found)


@command.command()
@options("task")
def errors(project: Project, which: Which) -> None:
    """Count the failed jobs by task and kind of error."""
    look = project.operations.error_groups
    groups = project.run(partial(look, which, queue=project.queue), which.task)
    project.show(groups, shown.print_groups)


@command.command()
@click.argument("job_id")
@options()
def show(project: Project, job_id: str) -> None:
    """Show all that is known of a job."""
    job = project.run(partial(project.operations.get_job, job_id, queue=project.queue))
    if job is None:
        fail(f"There is no job {job_id}.", 1)
    project.show(job, shown.print_details)


# --- Acting


def _of_failed(act: Callable[..., None]) -> Any:
    """Add what says which failed jobs: some by their ids, or all that fit."""
    command = options("task", "text", "error", "since", *MANY)(act)
    is_all = click.option("--all", "is_all", is_flag=True, help="All failed jobs.")
    return click.argument("job_ids", nargs=-1)(is_all(command))


def _act_on_failed(
    project: Project,
    verb: str,
    one: Callable[..., Awaitable[bool]],
    all_of_them: Callable[..., Coroutine[Any, Any, int]],
    *,
    job_ids: tuple[str, ...],
    is_all: bool,
    which: Which,
    **asked: Any,
) -> None:
    """Act on some failed jobs, or on all that fit."""
    if bool(job_ids) == (is_all or which != ALL):
        raise click.UsageError(
            "Name jobs; or --all of them, those of a --task, with an --error, ..."
        )
    if job_ids:
        project.act(verb, one, job_ids)
    age = timedelta(0)
    project.act_on_all(verb, ("failed",), all_of_them, which, age=age, **asked)


@command.command()
@_of_failed
def retry(project: Project, **asked: Any) -> None:
    """Run failed jobs again."""
    one, all_of_them = project.operations.retry_job, project.operations.retry_failed
    _act_on_failed(project, "retried", one, all_of_them, **asked)


@command.command()
@_of_failed
def discard(project: Project, **asked: Any) -> None:
    """Forget failed jobs. For an hour, undiscard brings the newest 1,000 back."""
    one, all_of_them = project.operations.discard_job, project.operations.discard_failed
    _act_on_failed(project, "discarded", one, all_of_them, question="Discard", **asked)


@command.command()
@click.argument("job_ids", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="All that are kept.")
@options()
def undiscard(project: Project, job_ids: tuple[str, ...], is_all: bool) -> None:
    """Bring jobs back that were discarded within the last hour."""
    if bool(job_ids) == is_all:
        raise click.UsageError("Name jobs, or --all of them.")
    verb, operations = "brought back", project.operations
    if job_ids:
        project.act(verb, operations.undiscard_job, job_ids)
    work = partial(operations.undiscard_jobs, queue=project.queue, by=who())
    project.finish(verb, project.run(work))


@command.command()
@click.option("--all", "is_all", is_flag=True, help="All waiting jobs.")
@click.option(
    "--older-than", callback=age, help="Only those due for longer than, say, 1d."
)
@options("task", "text", *MANY)
def purge(
    project: Project,
    is_all: bool,
    older_than: timedelta | None,
    which: Which,
    **asked: Any,
) -> None:
    """Delete queued and deferred jobs, for good."""
    if is_all == (older_than is not None or which != ALL):
        raise click.UsageError(
            "Say --all jobs; or those of a --task, or --older-than, say, 1d."
        )

    def show(done: int, of: int) -> None:
        if sys.stderr.isatty() and not project.as_json:
            click.echo(f"\r{done:,} of {of:,}", err=True, nl=done >= of)

    action = partial(project.operations.purge, progress=show)
    states: tuple[State, ...] = ("queued", "deferred")
    project.act_on_all(
        "purged", states, action, which, question="Purge", age=older_than, **asked
    )


@command.command()
@click.argument("job_ids", nargs=-1)
@options("task", "text", *MANY)
def abort(
    project: Project, job_ids: tuple[str, ...], which: Which, **asked: Any
) -> None:
    """Cancel jobs that wait or run."""
    if bool(job_ids) == (which != ALL):
        raise click.UsageError("Name jobs, or those of a --task or with a --search.")

    async def action(job_id: str, *, queue: str | None, by: str) -> bool:
        return await project.abort_job(job_id, queue)

    if job_ids:
        project.act("aborted", action, job_ids)

    states: tuple[State, ...] = ("in_progress", "queued", "deferred")

    async def work(which: Which, queue: str | None, by: str) -> int:
        ids = await project.operations.job_ids(states, which, queue=queue)
        done = 0
        for start in range(0, len(ids), 20):
            some = map(shown_id, ids[start : start + 20])
            aborts = [project.abort_job(job_id, queue) for job_id in some]
            done += sum(await asyncio.gather(*aborts))
        return done

    project.act_on_all("aborted", states, work, which, question="Abort", **asked)


@command.command("run-now")
@click.argument("job_ids", nargs=-1, required=True)
@options()
def run_now(project: Project, job_ids: tuple[str, ...]) -> None:
    """Run deferred jobs without more delay."""
    project.act("hurried", project.operations.run_now, job_ids)


def _set_paused(project: Project, is_paused: bool) -> None:
    """Pause the queue or go on with it, and say how it is now."""
    operations = project.operations
    act = operations.pause_queue if is_paused else operations.resume_queue
    project.run(partial(act, project.queue, by=who()))
    name = project.queue or operations.default_queue
    text = f"{shown.plain(name)} {'is paused' if is_paused else 'goes on'}"
    project.show({"queue": name, "paused": is_paused}, lambda _: click.echo(text))


@command.command()
@options()
def pause(project: Project) -> None:
    """Begin no more jobs; those that run finish."""
    _set_paused(project, True)


@command.command()
@options()
def resume(project: Project) -> None:
    """Go on with a paused queue."""
    _set_paused(project, False)


def main(operations: Operations, abort_job: Abort, prog_name: str) -> None:
    """Run the command with the arguments of this process, and exit.

    Args:
        operations: What it shows, and does.
        abort_job: What aborts a job, given its id and its queue.
        prog_name: How it is called.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # it says itself what fails
    command(prog_name=prog_name, obj=Project(operations, abort_job))
