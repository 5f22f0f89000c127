"""What the commands share: the project's queues, options, and how they end."""

import asyncio
import getpass
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from functools import partial, wraps
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
    """What the command works on, and two options that all commands have."""

    operations: Operations
    abort_job: Abort
    queue: str | None = None
    as_json: bool = False

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]], task: str = "") -> Any:
        """Run it to its end; exit with 3 when Redis cannot be used.

        Exits with 1 when there is no such queue or task.

        Raises:
            click.UsageError: An argument is no text that Redis takes.
        """

        async def to_its_end() -> Any:
            try:
                await self.operations.check_names(self.queue, task)
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
        self, verb: str, action: Callable[..., Awaitable[bool]], job_ids: Sequence[str]
    ) -> NoReturn:
        """Act on each job, say on which it is not possible, and exit."""

        async def work() -> int:
            done, by = 0, who()
            for job_id in job_ids:
                if await action(job_id, queue=self.queue, by=by):
                    done += 1
                else:
                    job = await self.operations.get_job(job_id, queue=self.queue)
                    state = job.state.replace("_", " ") if job else "not known"
                    left = "left alone"
                    if verb == "aborted" and job and job.state == "in_progress":
                        left = "asked to stop, still running"
                    text = f"{plain(job_id)} is {state}: {left}"
                    click.secho(text, fg="red", err=True)
            return done

        self.finish(verb, self.run(work), len(job_ids))

    def act_on_all(
        self,
        verb: str,
        states: tuple[State, ...],
        action: Callable[..., Coroutine[Any, Any, int]],
        which: Which,
        *,
        question: str = "",
        dry_run: bool,
        yes: bool,
        age: timedelta | None = None,
    ) -> NoReturn:
        """Ask, where there is a question, act on all that fit by then, and exit.

        They have failed or are due for as long as `age`, at least.
        """

        async def find() -> tuple[int, Which]:
            until = which.until
            if age is not None:
                until = await self.operations.time(self.queue) - age
            asked = replace(which, until=until)
            ids = await self.operations.job_ids(states, asked, queue=self.queue)
            return len(ids), asked

        number, asked = self.run(find, which.task)
        if dry_run:
            self.finish(f"would have {verb}", number)
        if question and number and not yes:
            confirm(f"{question} {_jobs(number)}{_said(which)}?", number, verb)
        work = partial(action, which=asked, queue=self.queue, by=who())
        self.finish(verb, self.run(work))

    def show(self, found: Any, print_it: Callable[[Any], None]) -> None:
        """Print what was found, as JSON or as this does."""
        (print_json if self.as_json else print_it)(found)

    def finish(self, verb: str, count: int, wanted: int = 0) -> NoReturn:
        """Say what was done; exit with 1 when it was not all."""
        self.show({verb: count}, lambda _: click.echo(f"{verb} {_jobs(count)}"))
        sys.exit(0 if count >= wanted else 1)


def _jobs(number: int) -> str:
    return f"{number} {'job' if number == 1 else 'jobs'}"


def _said(which: Which) -> str:
    """Which jobs, in words."""
    said = f" of {which.task}" if which.task else ""
    said += f" with {which.text!r}" if which.text else ""
    said += f" with the error {which.error!r}" if which.error else ""
    return plain(said)


def fail(text: str, code: int) -> NoReturn:
    """Say why, and exit."""
    click.secho(plain(text), fg="red", err=True)
    sys.exit(code)


def confirm(question: str, number: int, verb: str) -> None:
    """Go on only where that is wanted; what cannot be undone wants the number.

    Raises:
        click.UsageError: There is nobody to ask.
        click.Abort: It is not wanted.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say --yes.")
    if verb != "purged":
        click.confirm(question, abort=True, err=True)
    elif click.prompt(f"{question} Type the number", err=True) != str(number):
        raise click.Abort()


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
        if re.fullmatch(r"\d{1,2}:\d{2}", value):
            clock = time.fromisoformat(value.zfill(5))
            at = datetime.combine(now.astimezone(), clock).astimezone()
            return at if at <= now else at - timedelta(days=1)
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        text = f"{value!r} is no time such as 2h, 02:00 or 2030-01-31T09:00:00Z."
        raise click.BadParameter(text) from None


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "task": click.option(
        "--task", default="", help="Only jobs of the task with this name."
    ),
    "text": click.option(
        "--search",
        "text",
        default="",
        help="Only jobs with this text: in id, task, arguments or error.",
    ),
    "error": click.option(
        "--error", default="", help="Only jobs with this text in their error."
    ),
    "since": click.option(
        "--since", callback=since, help="Only those that failed since, say, 02:00."
    ),
    "yes": click.option("--yes", is_flag=True, help="Do not ask."),
    "dry_run": click.option("--dry-run", is_flag=True, help="Only count them."),
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    "queue": click.option("--queue", help="Name of a queue; else the default one."),
}
MANY = ("yes", "dry_run")


def options(*names: str) -> Callable[[Callable[..., None]], Any]:
    """Add these options, and --queue and --json, which are in the project then.

    Those that say which jobs are meant are a Which.
    """

    def add(act: Callable[..., None]) -> Any:
        @wraps(act)
        def run(project: Project, queue: str, as_json: bool, **given: Any) -> None:
            fields = {name: given.pop(name) for name in names if name not in MANY}
            which = {"which": Which(**fields)} if fields else {}
            act(replace(project, queue=queue, as_json=as_json), **which, **given)

        command: Any = click.pass_obj(run)
        for name in (*reversed(names), "as_json", "queue"):
            command = _OPTIONS[name](command)
        return command

    return add
