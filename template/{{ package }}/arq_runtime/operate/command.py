"""The command that operates the queues, for people and for scripts.

What it does is in jobs.py, how that looks in shown.py.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any, get_args

import click

from . import shown
from .history import Span
from .info import ALL, ErrorGroup, Found, QueueStats, State, Which, shown_id
from .jobs import Operations
from .project import (
    Abort,
    Bulk,
    Project,
    age,
    bulk_options,
    error_option,
    fail,
    finish,
    json_option,
    queue_option,
    search_option,
    since_option,
    task_option,
    who,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """See how the queue does, run failed jobs again, pause it.

    Exit codes: 0, it is done; 1, there is no such job, task or queue, or the job is in
    another state; 2, the command is wrong; 3, Redis cannot be used.
    """


# --- Looking


@command.command()
@click.option("--queue", help="Name of a queue; all queues without it.")
@click.option(
    "--history", "with_history", is_flag=True, help="Show the last 8 hours, too."
)
@json_option
@click.pass_obj
def stats(
    project: Project, queue: str | None, with_history: bool, as_json: bool
) -> None:
    """Count the jobs, and show the workers and cron jobs."""
    operations, step = project.operations, 10

    async def work() -> list[tuple[QueueStats, list[Span]]]:
        names = [queue] if queue else await operations.list_queues()
        return [
            (
                await operations.queue_stats(name),
                await operations.history(step=step, queue=name) if with_history else [],
            )
            for name in names
        ]

    found = project.run(work, queue)
    if as_json:
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
@task_option
@search_option
@error_option
@since_option
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
@click.option("--start", default="", help="Go on where an earlier look has ended.")
@queue_option
@json_option
@click.pass_obj
def list_command(
    project: Project,
    /,
    state: Any,
    task: str,
    search: str,
    error: str,
    since: datetime | None,
    queue: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """List the jobs in a state, or those in all states."""
    which = Which(task=task, text=search, error=error, since=since)
    if error and state != "failed":
        raise click.UsageError("--error is for failed jobs: list failed --error ...")

    async def work() -> Found:
        try:
            return await project.operations.find_jobs(
                None if state == "all" else state,
                which=which,
                brief=not as_json,
                queue=queue,
                **options,
            )
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None

    found: Found = project.run(work, queue, task)
    if as_json:
        shown.print_json(found.jobs)
    else:
        for job in found.jobs:
            shown.print_job(job)
    shown.print_looked_at(found)


@command.command()
@task_option
@queue_option
@json_option
@click.pass_obj
def errors(project: Project, task: str, queue: str | None, as_json: bool) -> None:
    """Count the failed jobs by task and kind of error."""
    work = partial(project.operations.error_groups, Which(task=task), queue=queue)
    groups: list[ErrorGroup] = project.run(work, queue, task)
    if as_json:
        return shown.print_json(groups)
    shown.print_groups(groups)


@command.command()
@click.argument("job_id")
@queue_option
@json_option
@click.pass_obj
def show(project: Project, job_id: str, queue: str | None, as_json: bool) -> None:
    """Show all that is known of a job."""
    job = project.run(partial(project.operations.get_job, job_id, queue=queue), queue)
    if job is None:
        fail(f"There is no job {job_id}.", 1)
    if as_json:
        return shown.print_json(job)
    shown.print_details(job)


# --- Acting


def add_failed_command(
    name: str,
    verb: str,
    one: Callable[..., Awaitable[bool]],
    all_of_them: Callable[..., Coroutine[Any, Any, int]],
    help: str,
) -> None:
    """A command for failed jobs: some, or all that fit."""

    @command.command(name, help=help)
    @click.argument("job_ids", nargs=-1)
    @click.option("--all", "is_all", is_flag=True, help="All failed jobs.")
    @error_option
    @since_option
    @bulk_options
    @click.pass_obj
    def act(
        project: Project,
        /,
        job_ids: tuple[str, ...],
        is_all: bool,
        task: str,
        search: str,
        error: str,
        since: datetime | None,
        queue: str | None,
        as_json: bool,
        **asked: Any,
    ) -> None:
        which = Which(task=task, text=search, error=error, since=since)
        if bool(job_ids) == (is_all or which != ALL):
            raise click.UsageError(
                "Name jobs; or --all of them, those of a --task, with an --error, ..."
            )
        operations, by = project.operations, who()
        if job_ids:
            action = partial(one, operations, by=by)
            return project.act(verb, action, job_ids, queue, as_json)
        project.act_on_all(
            verb,
            name.capitalize(),
            ("failed",),
            partial(all_of_them, operations, queue=queue, by=by),
            Bulk(which, queue, as_json=as_json, age=timedelta(0), **asked),
        )


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
    "Forget failed jobs. For an hour, undiscard brings the newest 1,000 back.",
)


@command.command()
@click.argument("job_ids", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="All that are kept.")
@queue_option
@json_option
@click.pass_obj
def undiscard(
    project: Project,
    job_ids: tuple[str, ...],
    is_all: bool,
    queue: str | None,
    as_json: bool,
) -> None:
    """Bring jobs back that were discarded within the last hour."""
    if bool(job_ids) == is_all:
        raise click.UsageError("Name jobs, or --all of them.")
    operations, by = project.operations, who()
    if job_ids:
        action = partial(operations.undiscard_job, by=by)
        return project.act("brought back", action, job_ids, queue, as_json)
    work = partial(operations.undiscard_jobs, queue=queue, by=by)
    finish("brought back", project.run(work, queue), 0, as_json)


@command.command()
@click.option("--all", "is_all", is_flag=True, help="All waiting jobs.")
@click.option(
    "--older-than",
    callback=age,
    help="Only those due for longer than, say, 1d.",
)
@bulk_options
@click.pass_obj
def purge(
    project: Project,
    /,
    is_all: bool,
    older_than: timedelta | None,
    task: str,
    search: str,
    queue: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Delete queued and deferred jobs, for good."""
    which = Which(task=task, text=search)
    if is_all == (older_than is not None or which != ALL):
        raise click.UsageError(
            "Say --all jobs; or those of a --task, or --older-than, say, 1d."
        )
    operations = project.operations

    def show(done: int, of: int) -> None:
        if sys.stderr.isatty() and not as_json:
            click.echo(f"\r{done:,} of {of:,}", err=True, nl=done >= of)

    project.act_on_all(
        "purged",
        "Purge",
        ("queued", "deferred"),
        partial(operations.purge, queue=queue, by=who(), progress=show),
        Bulk(which, queue, as_json=as_json, age=older_than, **asked),
        typed=True,
    )


@command.command()
@click.argument("job_ids", nargs=-1)
@bulk_options
@click.pass_obj
def abort(
    project: Project,
    /,
    job_ids: tuple[str, ...],
    task: str,
    search: str,
    queue: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Cancel jobs that wait or run."""
    which = Which(task=task, text=search)
    if bool(job_ids) == (which != ALL):
        raise click.UsageError("Name jobs, or those of a --task or with a --search.")

    async def action(job_id: str, *, queue: str | None) -> bool:
        return await project.abort_job(job_id, queue)

    if job_ids:
        return project.act("aborted", action, job_ids, queue, as_json)

    states: tuple[State, ...] = ("in_progress", "queued", "deferred")

    async def work(which: Which) -> int:
        ids = await project.operations.job_ids(states, which, queue=queue)
        done = 0
        for start in range(0, len(ids), 20):
            aborts = [
                action(shown_id(job_id), queue=queue)
                for job_id in ids[start : start + 20]
            ]
            done += sum(await asyncio.gather(*aborts))
        return done

    bulk = Bulk(which, queue, as_json=as_json, **asked)
    project.act_on_all("aborted", "Abort", states, work, bulk)


@command.command("run-now")
@click.argument("job_ids", nargs=-1, required=True)
@queue_option
@json_option
@click.pass_obj
def run_now(
    project: Project, job_ids: tuple[str, ...], queue: str | None, as_json: bool
) -> None:
    """Run deferred jobs without more delay."""
    action = partial(project.operations.run_now, by=who())
    project.act("hurried", action, job_ids, queue, as_json)


def set_paused(
    project: Project, queue: str | None, as_json: bool, *, is_paused: bool
) -> None:
    """Pause the queue or go on with it, and say how it is now."""
    operations = project.operations
    act = operations.pause_queue if is_paused else operations.resume_queue
    project.run(partial(act, queue, by=who()), queue)
    name = queue or operations.default_queue
    if as_json:
        return shown.print_json({"queue": name, "paused": is_paused})
    click.echo(f"{shown.plain(name)} {'is paused' if is_paused else 'goes on'}")


for name, is_paused, help in (
    ("pause", True, "Begin no more jobs; those that run finish."),
    ("resume", False, "Go on with a paused queue."),
):
    act = click.pass_obj(partial(set_paused, is_paused=is_paused))
    command.command(name, help=help)(queue_option(json_option(act)))


def main(operations: Operations, abort_job: Abort, prog_name: str) -> None:
    """Run the command with the arguments of this process, and exit.

    Args:
        operations: What it shows, and does.
        abort_job: What aborts a job, given its id and its queue.
        prog_name: How it is called.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # it says itself what fails
    command(prog_name=prog_name, obj=Project(operations, abort_job))
