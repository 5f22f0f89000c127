"""Makes docs/page.png and docs/page-dark.png from a real run, in the system's Chromium.

uv run docs/page.py [DIRECTORY]

With a directory, also pictures of one job and of a phone, to be looked at.
"""

import math
import random
import shutil
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import redis
from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))
sys.path.insert(0, str(DOCS.parent / "template/{{ package }}"))

from arq_runtime.keys import HISTORY, HISTORY_PARTS, MINUTE_MS  # noqa: E402
from support import (  # noqa: E402
    CHROMIUM_OPTIONS,
    QUEUE,
    OwnRedis,
    Shop,
    run,
    wait_for,
)

PASSWORD = "only for the picture"
TASKS = """
    import asyncio

    from arq import cron, func

    from core.arq import set_progress
    from core.arq_worker import BaseWorkerSettings, Context


    async def resize_photos(ctx: Context, album: int, done: int) -> str:
        await set_progress(ctx, done, f"photo {done * 3} of 300")
        await asyncio.sleep(600)
        return "resized"


    async def charge_card(ctx: Context, order_id: int, amount: str) -> str:
        raise ConnectionError("payments.example.com: connection refused")


    async def send_invoice(ctx: Context, email: str) -> str:
        if "@" not in email:
            raise ValueError(f"{email!r} is not an email address")
        return "sent"


    async def clean_up(ctx: Context) -> None:
        pass


    class WorkerSettings(BaseWorkerSettings):
        functions = [
            func(charge_card, max_tries=2),
            func(send_invoice, max_tries=1),
            resize_photos,
        ]
        cron_jobs = [
            cron(clean_up, name="clean_up", hour=3, minute=0),
            cron(clean_up, name="weekly_report", weekday="mon", hour=6, minute=30),
        ]
        max_jobs = 3
        retry_delay = 0.2
        health_check_interval = 1
"""
JOBS = """
    for order in range(1041, 1047):
        await enqueue("charge_card", order, amount=f"{order / 7:.2f} EUR")
    await enqueue("send_invoice", email="ada.example.com")
    for name in ("grace", "edsger", "barbara"):
        await enqueue("send_invoice", email=f"{name}@example.com")
        await enqueue("send_invoice", email=f"{name}@example.com", _defer_by=3600)
    result = None
"""
MORE_JOBS = """
    for album, done in ((7, 40), (12, 85), (31, 10)):
        await enqueue("resize_photos", album, done, _job_id=f"album-{album}")
    for album in range(40, 44):
        await enqueue("resize_photos", album, 0)
    result = None
"""


def make_shop(scratch: Path) -> Shop:
    """The project that tests/scratch.py makes, and what it needs."""
    root = scratch / "shop"
    run([sys.executable, DOCS.parent / "tests/scratch.py", root])
    env = scratch / "env"
    run(["uv", "venv", "-q", "-p", sys.executable, env])
    extra = ("aiosqlite", "-r", root / "pyproject.toml")
    run(["uv", "pip", "install", "-q", "-p", env / "bin/python", *extra])
    shop = Shop(root, env, scratch)
    shop.write_tasks(TASKS)
    return shop


def make_history(url: str) -> None:
    """Eight hours, as workers sum them by the minute: made up, unlike all else."""
    chance = random.Random(1)
    with redis.Redis.from_url(url) as db:
        now = int(time.time() * 1000) // MINUTE_MS
        for minute in range(now - 480, now):
            count = int(60 + 40 * math.sin((minute - now) / 90) + chance.random() * 20)
            failed = count // 3 if now - 200 < minute < now - 180 else count // 40
            sums = {"n:charge_card": count, "f:charge_card": failed}
            for kind, ms in (("w", 4), ("r", 120)):
                for share, slower in ((0.5, 1), (0.4, 2), (0.1, 5)):
                    slower *= chance.uniform(0.8, 1.3)
                    part = int(math.log2(ms * slower) * HISTORY_PARTS)
                    sums[f"{kind}{part}:charge_card"] = int(count * share) + 1
            db.hset(f"{QUEUE}{HISTORY}{minute}", mapping=sums)


def take(url: str, extra: Path | None) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_OPTIONS
        )

        def picture(path: Path, scheme: str, width: int, place: str, text: str) -> None:
            context = browser.new_context(
                http_credentials={"username": "me", "password": PASSWORD},
                viewport={"width": width, "height": 720},
                color_scheme=scheme,  # type: ignore[arg-type]
                locale="en-GB",
            )
            page = context.new_page()
            page.goto(f"{url}/arq/{place}")
            page.get_by_text(text).first.wait_for()
            page.get_by_text("live", exact=True).wait_for()
            page.locator("svg").first.wait_for()
            page.screenshot(path=path, full_page="job=" not in place)
            context.close()

        failed, text = "#state=failed", "connection refused"
        picture(DOCS / "page.png", "light", 1240, failed, text)
        picture(DOCS / "page-dark.png", "dark", 1240, failed, text)
        if extra:
            extra.mkdir(parents=True, exist_ok=True)
            job = "#state=failed&job=album-7"
            picture(extra / "phone.png", "light", 390, failed, text)
            picture(extra / "phone-dark.png", "dark", 390, "#state=in_progress", "40 %")
            picture(extra / "progress.png", "light", 1240, "#state=in_progress", "40 %")
            picture(extra / "complete.png", "dark", 1240, "#state=complete", "grace@")
            picture(extra / "job.png", "light", 1240, job, "Started")
            picture(extra / "job-phone.png", "dark", 390, job, "Started")
        browser.close()


def main() -> None:
    extra = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shop = make_shop(scratch)
        (scratch / "redis").mkdir()
        server = OwnRedis(scratch / "redis")
        server.start()
        make_history(server.url)
        try:
            with (
                shop.app(
                    server.url, scratch / "app", ARQ_PAGE_PASSWORD=PASSWORD
                ) as port,
                shop.worker(server.url) as worker,
            ):
                shop.python(textwrap.dedent(JOBS), server.url)
                wait_for(lambda: worker.text.count("refused") >= 12, 60, worker.path)
                shop.python(textwrap.dedent(MORE_JOBS), server.url)
                take(f"http://127.0.0.1:{port}", extra)
                worker.process.kill()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
