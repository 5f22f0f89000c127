"""What the jobs page's script asks for, and acts by."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import Response
from redis.exceptions import RedisError

from ..client.status import Lookup
from .access import actor, may_act, name_of, same_origin
from .info import JobInfo, State, Which, trouble
from .jobs import Operations
from .look import UnknownNameError
from .served import json_answer

_One = Literal["retry", "discard", "run-now", "abort"]
_Many = Literal["retry-all", "discard-all", "purge"]
_Which = Annotated[Which, Depends()]
_PAGE_SIZE = 50
_SPAN = 5  # minutes of the history that are one point of a chart
# Of all that is shown of a job, so many characters; of a row of a list, fewer.
_WHOLE, _ROW = 100_000, 200


async def _has_redis() -> AsyncIterator[None]:
    """Turn an error of Redis, or a name that is not known, into one line."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise HTTPException(503, trouble(exc)) from exc
    except UnknownNameError as exc:
        raise HTTPException(404, str(exc)) from exc


@dataclass(frozen=True)
class Api:
    """What the page's script asks for, and acts by; made of what jobs_page is given."""

    operations: Operations
    lookup: Lookup
    show_arguments: bool
    log_url: str

    def router(self) -> APIRouter:
        known = [Depends(same_origin), Depends(_has_redis), Depends(self.check_queue)]
        router = APIRouter(dependencies=known)
        looks = self.queues, self.jobs, self.job, self.groups, self.history, self.count
        for look in looks:
            router.add_api_route(f"/{look.__name__}", look)
        acting: dict[str, Any] = {"methods": ["POST"], "dependencies": [Depends(actor)]}
        for act in (self.pause, self.resume, self.undo):
            router.add_api_route(f"/{act.__name__}", act, **acting)
        router.add_api_route("/all/{action}", self.act_on_all, **acting)
        router.add_api_route("/{action}", self.act, **acting)
        return router

    async def check_queue(self, queue: str | None = None) -> None:
        await self.operations.check_names(queue)

    # --- Looking

    async def queues(self, request: Request) -> Response:
        names = await self.operations.list_queues()
        stats = await asyncio.gather(*map(self.operations.queue_stats, names))
        content = {
            "queues": [{**vars(one), "oldest": None} for one in stats],
            "default": self.operations.default_queue,
            "may_act": may_act(request),
            "log_url": self.log_url,
        }
        return json_answer(request, content)

    async def jobs(
        self,
        request: Request,
        queue: str,
        which: _Which,
        state: State | Literal["all"],
        offset: Annotated[int, Query(ge=0)] = 0,
        start: str = "",
    ) -> Response:
        try:
            found = await self.operations.find_jobs(
                None if state == "all" else state,
                which=which,
                limit=_PAGE_SIZE,
                offset=offset,
                start=start,
                brief=True,
                queue=queue,
            )
        except ValueError as exc:
            raise HTTPException(422, str(exc)) from exc
        if not found.jobs:  # a look for the task is no cheaper than this one
            await self.operations.check_names(queue, which.task)
        rows = [self._texts(job, _ROW) for job in found.jobs]
        content = {**vars(found), "jobs": rows, "size": _PAGE_SIZE}
        return json_answer(request, content)

    async def job(self, request: Request, queue: str, id: str) -> Response:
        job = await self.operations.get_job(id, queue=queue)
        if job is None:
            raise HTTPException(
                404, "There is no such job in this queue, or no longer."
            )
        # Text of large arguments takes its time, and the event loop is the app's.
        return json_answer(request, await asyncio.to_thread(self._texts, job, _WHOLE))

    async def groups(self, request: Request, queue: str, which: _Which) -> Response:
        groups = await self.operations.error_groups(which, queue=queue)
        if not groups:
            await self.operations.check_names(queue, which.task)
        return json_answer(request, {"groups": groups[:200], "more": len(groups) > 200})

    async def history(self, request: Request, queue: str, task: str = "") -> Response:
        spans = await self.operations.history(step=_SPAN, task=task, queue=queue)
        return json_answer(request, {"spans": spans, "minutes": _SPAN})

    async def count(
        self, request: Request, queue: str, which: _Which, state: State
    ) -> Response:
        """How many there are now, and when that is: what an action is to be about."""
        until = await self.operations.time(queue)
        if state != "deferred":
            which = replace(which, until=until)
        ids = await self.operations.job_ids((state,), which, queue=queue)
        if not ids:
            await self.operations.check_names(queue, which.task)
        return json_answer(request, {"count": len(ids), "until": until})

    # --- Acting

    async def act(
        self, action: _One, request: Request, queue: str, id: str
    ) -> Response:
        operations, by, batch = self.operations, name_of(request), token_hex(8)
        if action == "abort":
            operations.log("abort", queue, id, by)
            done = await self.lookup.abort_job(id, queue, timeout=3)
        elif action == "discard":
            done = await operations.discard_job(id, queue=queue, by=by, batch=batch)
        else:
            act = operations.retry_job if action == "retry" else operations.run_now
            done = await act(id, queue=queue, by=by)
        content = {"done": done, "batch": batch, "state": ""}
        if not done:
            job = await operations.get_job(id, queue=queue)
            content["state"] = job.state if job else "gone"
        return json_answer(request, content)

    async def act_on_all(
        self,
        action: _Many,
        request: Request,
        queue: str,
        which: _Which,
        expected: int,
        state: Literal["failed", "queued", "deferred"] = "failed",
    ) -> Response:
        """Act on all that fit, if they are as many as the visitor was told.

        Raises:
            HTTPException: 409 when they are not; 422, jobs in this state cannot.
        """
        if (action == "purge") == (state == "failed"):
            raise HTTPException(422, f"{action} is not for {state} jobs")
        operations, by, batch = self.operations, name_of(request), token_hex(8)
        count = len(await operations.job_ids((state,), which, queue=queue))
        # of waiting ones, some may have begun meanwhile
        if count > expected or (count < expected and state == "failed"):
            text = f"Nothing was changed: they are {count:,} now, not {expected:,}."
            raise HTTPException(409, text)
        if action == "retry-all":
            done = await operations.retry_failed(which=which, queue=queue, by=by)
        elif action == "discard-all":
            done = await operations.discard_failed(
                which=which, queue=queue, by=by, batch=batch
            )
        else:
            done = await operations.purge(which, state=state, queue=queue, by=by)
        return json_answer(request, {"done": done, "batch": batch})

    async def undo(self, request: Request, queue: str, batch: str) -> Response:
        by = name_of(request)
        done = await self.operations.undiscard_jobs(batch, queue=queue, by=by)
        return json_answer(request, {"done": done})

    async def pause(self, request: Request, queue: str) -> Response:
        await self.operations.pause_queue(queue, by=name_of(request))
        return json_answer(request, {"done": True})

    async def resume(self, request: Request, queue: str) -> Response:
        await self.operations.resume_queue(queue, by=name_of(request))
        return json_answer(request, {"done": True})

    def _texts(self, job: JobInfo, size: int) -> dict[str, Any]:
        """A job as the page shows it: arguments and result as text, not too long."""
        arguments = [_text(value) for value in job.args]
        arguments += [f"{name} = {_text(value)}" for name, value in job.kwargs.items()]
        if job.bytes_left_out:
            arguments = [f"({job.bytes_left_out:,} bytes)"]
        result = "" if job.result is None else _text(job.result)
        if not self.show_arguments:
            arguments, result = ["hidden"] * bool(arguments), result and "hidden"
        log = job.log if self.show_arguments else job.log and "hidden"
        texts = {
            "arguments": "\n".join(arguments),
            "result": result,
            "error": job.error,
            "traceback": job.traceback if size == _WHOLE else "",
            "log": log,
        }
        cut = {name: _cut(text, size) for name, text in texts.items()}
        errors = job.errors if size == _WHOLE else []
        return {**vars(job), "args": None, "kwargs": None, "errors": errors, **cut}


def _text(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, default=repr, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}… ({len(text):,} characters)"
