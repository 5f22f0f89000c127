"""Jobs run at another time: of time-machine, and of freezegun."""

import asyncio
import os
from datetime import datetime
from typing import Any

import freezegun
import time_machine
from kit import App

Ctx = dict[str, Any]


async def year(ctx: Ctx) -> int:
    return datetime.now().year


async def main(travel: Any) -> None:
    app = App(os.environ["ARQ_REDIS_URL"])
    with travel:
        job = await app.enqueue("year")
        await app.burst(year)
        assert await job.result(5) == 2031
        await app.close()


asyncio.run(main(time_machine.travel("2031-05-05", tick=True)))
asyncio.run(main(freezegun.freeze_time("2031-05-05", real_asyncio=True)))
