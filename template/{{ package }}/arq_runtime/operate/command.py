"""The command that operates the queues, for people and for scripts.

What it does is in jobs.py, how that looks in shown.py.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import click

from .asked import age
from .info import State, Which, shown_id
from .jobs import Operations
from .looking import LOOKING
from .project import (
    Abort,
    Bulk,
    Project,
    bulk_options,
    error_option,
    finish,
    json_option,
    queue_option,
    since_option,
    some_ids,
    who,
)
from .shown import (
    plain,
    print_json,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """See how the queue does, run failed jobs again, pause it.

    Exit codes: 0, it is done; 1, there is no such job, task or queue, or the job is in
    another state; 2, the command is wrong; 3, Redis cannot be used.
    """


for one in LOOKING:
    command.add_command(one)


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
        if bool(job_ids) == (is_all or not which.is_all):
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
    if is_all == (older_than is not None or not which.is_all):
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
    if bool(job_ids) == (not which.is_all):
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
@some_ids
@queue_option
@json_option
@click.pass_obj
def run_now(
    project: Project, job_ids: tuple[str, ...], queue: str | None, as_json: bool
) -> None:
    """Run deferred jobs without more delay."""
    action = partial(project.operations.run_now, by=who())
    project.act("hurried", action, job_ids, queue, as_json)


@command.command()
@queue_option
@json_option
@click.pass_obj
def pause(project: Project, queue: str | None, as_json: bool) -> None:
    """Begin no more jobs; those that run finish."""
    project.run(partial(project.operations.pause_queue, queue, by=who()), queue)
    say_paused(project, queue, True, as_json)


@command.command()
@queue_option
@json_option
@click.pass_obj
def resume(project: Project, queue: str | None, as_json: bool) -> None:
    """Go on with a paused queue."""
    project.run(partial(project.operations.resume_queue, queue, by=who()), queue)
    say_paused(project, queue, False, as_json)


def say_paused(
    project: Project, queue: str | None, is_paused: bool, as_json: bool
) -> None:
    """Say how the queue is now."""
    name = queue or project.operations.default_queue
    if as_json:
        return print_json({"queue": name, "paused": is_paused})
    click.echo(f"{plain(name)} {'is paused' if is_paused else 'goes on'}")


def main(operations: Operations, abort_job: Abort, prog_name: str) -> None:
    """Run the command with the arguments of this process, and exit.

    Args:
        operations: What it shows, and does.
        abort_job: What aborts a job, given its id and its queue.
        prog_name: How it is called.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # it says itself what fails
    command(prog_name=prog_name, obj=Project(operations, abort_job))
