"""Dependencies are injected by dishka and modern-di."""

import asyncio
import os
from typing import Annotated, Any

import modern_di
import modern_di_arq
from arq.worker import create_worker
from arq_runtime.worker.install import install
from dishka import FromDishka, Provider, Scope, make_async_container
from dishka.integrations.arq import inject, setup_dishka
from kit import App
from modern_di import providers

Ctx = dict[str, Any]


class Mailer:
    sender = "shop@example.com"


@inject
async def by_dishka(ctx: Ctx, n: int, mailer: FromDishka[Mailer]) -> str:
    return f"{n} {mailer.sender}"


class Group(modern_di.Group):
    mailer = providers.Factory(creator=Mailer, scope=modern_di.Scope.REQUEST)


@modern_di_arq.inject
async def by_modern_di(
    ctx: Ctx, n: int, mailer: Annotated[Mailer, modern_di_arq.FromDI(Mailer)]
) -> str:
    return f"{n} {mailer.sender}"


async def main() -> None:
    install()
    app = App(os.environ["ARQ_REDIS_URL"])
    worker_settings = app.settings(by_dishka, by_modern_di, max_tries=1)
    provider = Provider(scope=Scope.REQUEST)
    provider.provide(Mailer)
    setup_dishka(make_async_container(provider), worker_settings)
    modern_di_arq.setup_di(worker_settings, modern_di.Container(groups=[Group]))
    jobs = [await app.enqueue(task, 7) for task in (by_dishka, by_modern_di)]
    worker = create_worker(worker_settings, burst=True, handle_signals=False)
    await worker.main()
    await worker.close()
    assert [await job.result(1) for job in jobs] == ["7 shop@example.com"] * 2
    await app.close()


asyncio.run(main())
