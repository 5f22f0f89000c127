"""What the commands share: the project's queues, options, and how they end."""

import asyncio
import getpass
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any, NoReturn

import click
from redis.exceptions import RedisError

from .info import State, Which, trouble
from .jobs import Operations
from .look import UnknownNameError
from .shown import plain, print_json

Abort = Callable[[str, str | None], Awaitable[bool]]


@dataclass(frozen=True)
class Project:
    """What the command works on."""

    operations: Operations
    abort_job: Abort

    def run(
        self,
        work: Callable[[], Coroutine[Any, Any, Any]],
        queue: str | None = None,
        task: str | None = None,
    ) -> Any:
        """Run it to its end; exit with 3 when Redis cannot be used.

        Exits with 1 when there is no such queue or task.

        Raises:
            click.UsageError: An argument is no text that Redis takes.
        """

        async def to_its_end() -> Any:
            try:
                await self.operations.check_queue(queue)
                await self.operations.check_task(task, queue)
                return await work()
            finally:
                await self.operations.close()

        try:
            return asyncio.run(to_its_end())
        except UnicodeEncodeError:
            raise click.UsageError("An id or a name is not UTF-8.") from None
        except UnknownNameError as exc:
            fail(str(exc), 1)
        except (RedisError, OSError) as exc:
            fail(trouble(exc), 3)

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
                    state = job.state.replace("_", " ") if job else "not known"
                    left = "left alone"
                    if verb == "aborted" and job and job.state == "in_progress":
                        left = "asked to stop, still running"
                    text = f"{plain(job_id)} is {state}: {left}"
                    click.secho(text, fg="red", err=True)
            return done

        finish(verb, self.run(work, queue), len(job_ids), as_json)

    def act_on_all(
        self,
        verb: str,
        question: str,
        states: tuple[State, ...],
        action: Callable[..., Coroutine[Any, Any, int]],
        bulk: "Bulk",
        *,
        typed: bool = False,
    ) -> None:
        """Ask, act on all that fit by then, and exit."""

        async def find() -> tuple[int, Which]:
            which = bulk.which
            if bulk.age is not None:
                until = await self.operations.time(bulk.queue) - bulk.age
                which = replace(which, until=until)
            count = self.operations.count_jobs
            return await count(states, which, queue=bulk.queue), which

        number, which = self.run(find, bulk.queue, bulk.which.task)
        if bulk.dry_run:
            return finish(f"would have {verb}", number, 0, bulk.as_json)
        jobs = "job" if number == 1 else "jobs"
        if question != "Retry":
            asked = f"{question} {number} {jobs}{bulk.said}?"
            confirm(asked, number, bulk.yes, typed=typed)
        finish(verb, self.run(partial(action, which=which)), 0, bulk.as_json)


@dataclass(frozen=True)
class Bulk:
    """What is said of an action on many jobs."""

    which: Which
    queue: str | None
    dry_run: bool
    yes: bool
    as_json: bool
    age: timedelta | None = None
    """How long ago they have failed or are due, at least."""

    @property
    def said(self) -> str:
        """Which jobs, in words."""
        said = f" of {self.which.task}" if self.which.task else ""
        said += f" with {self.which.text!r}" if self.which.text else ""
        said += f" with the error {self.which.error!r}" if self.which.error else ""
        return plain(said)


def fail(text: str, code: int) -> NoReturn:
    """Say why, and exit."""
    click.secho(plain(text), fg="red", err=True)
    sys.exit(code)


def finish(verb: str, count: int, wanted: int, as_json: bool) -> None:
    """Say what was done; exit with 1 when it was not all."""
    if as_json:
        print_json({verb: count})
    else:
        click.echo(f"{verb} {count} {'job' if count == 1 else 'jobs'}")
    sys.exit(0 if count >= wanted else 1)


def who() -> str:
    """Who runs the command."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # in a container without such a user
        return socket.gethostname()


# --- What is asked, and understood

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def age(ctx: Any, param: Any, value: str | None) -> timedelta | None:
    """A length of time, as in 30min; an option's callback.

    Raises:
        click.BadParameter: It is none.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d)", value)
    if not found:
        raise click.BadParameter(f"{value!r} is no time such as 30min, 2h or 1d.")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def since(ctx: Any, param: Any, value: str | None) -> datetime | None:
    """A time: an age, a time of day, or ISO 8601; local, where it names no zone.

    Raises:
        click.BadParameter: It is none.
    """
    if value is None:
        return None
    now = datetime.now(UTC)
    if re.fullmatch(r"\d+\s*[a-z]+", value):
        return now - (age(ctx, param, value) or timedelta())
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", value):
            hours, rest = value.split(":", 1)
            clock = time.fromisoformat(f"{int(hours):02}:{rest}")
            at = datetime.combine(now.astimezone(), clock).astimezone()
            return at if at <= now else at - timedelta(days=1)
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        text = f"{value!r} is no time such as 2h, 02:00 or 2030-01-31T09:00:00Z."
        raise click.BadParameter(text) from None


def confirm(question: str, count: int, yes: bool, *, typed: bool = False) -> None:
    """Go on only where that is wanted.

    Args:
        question: What is asked on a terminal, unless `yes`.
        count: How many jobs it is about; to be typed, if `typed`.

    Raises:
        click.UsageError: There is nobody to ask.
        click.Abort: It is not wanted.
    """
    if yes or count == 0:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say --yes.")
    if not typed:
        click.confirm(question, abort=True, err=True)
    elif click.prompt(f"{question} Type the number", err=True) != str(count):
        raise click.Abort()


queue_option = click.option("--queue", help="Name of a queue; else the default one.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
task_option = click.option(
    "--task", default="", help="Only jobs of the task with this name."
)
search_option = click.option(
    "--search",
    default="",
    help="Only jobs with this text: in id, task, arguments or error.",
)
error_option = click.option(
    "--error", default="", help="Only jobs with this text in their error."
)
since_option = click.option(
    "--since",
    callback=since,
    help="Only those that failed since, say, 02:00.",
)


def bulk_options(command: Any) -> Any:
    """The options of what acts on many jobs."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Only count them."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        json_option,
        queue_option,
        search_option,
        task_option,
    ):
        command = option(command)
    return command
