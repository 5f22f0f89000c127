"""The commands that only look."""

from datetime import datetime
from functools import partial
from typing import Any, get_args

import click

from .history import Span
from .info import ErrorGroup, Found, QueueStats, State, Which
from .project import (
    Project,
    error_option,
    fail,
    json_option,
    queue_option,
    search_option,
    since_option,
    task_option,
)
from .shown import (
    print_details,
    print_groups,
    print_history,
    print_job,
    print_json,
    print_looked_at,
    print_stats,
)


@click.command()
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
        return print_json(
            [
                vars(one) | ({"history": spans} if with_history else {})
                for one, spans in found
            ]
        )
    for one, spans in found:
        print_stats(one)
        if spans:
            print_history(spans, step)


@click.command("list")
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
        print_json(found.jobs)
    else:
        for job in found.jobs:
            print_job(job)
    print_looked_at(found)


@click.command()
@task_option
@queue_option
@json_option
@click.pass_obj
def errors(project: Project, task: str, queue: str | None, as_json: bool) -> None:
    """Count the failed jobs by task and kind of error."""
    work = partial(project.operations.error_groups, Which(task=task), queue=queue)
    groups: list[ErrorGroup] = project.run(work, queue, task)
    if as_json:
        return print_json(groups)
    print_groups(groups)


@click.command()
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
        return print_json(job)
    print_details(job)


LOOKING = (stats, list_command, errors, show)
