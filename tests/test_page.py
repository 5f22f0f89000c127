"""The jobs page, over HTTP and in a real browser, with a real app, server and worker."""

import base64
import http.client
import json
import shutil
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import redis
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support import CHROMIUM_OPTIONS, NUMBERS, QUEUE, Shop, free_port, wait_for
from test_jobs import keep_failed

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
NOW = int(time.time() * 1000)
PASSWORD = "correct horse battery"
TASKS = """\
    import asyncio
    from pathlib import Path

    from arq import cron, func

    from core.arq import set_progress
    from core.arq_worker import BaseWorkerSettings


    async def mend(ctx, name):
        if not Path(name).exists():
            raise FileNotFoundError(f"no {name}")
        return f"{name} is there"


    async def fail(ctx, text):
        raise ValueError(text)


    async def resize(ctx):
        await set_progress(ctx, 40, "resizing <b>")
        await asyncio.sleep(60)


    async def nightly(ctx):
        return None


    class WorkerSettings(BaseWorkerSettings):
        functions = [func(mend, max_tries=1), func(fail, max_tries=1), resize]
        cron_jobs = [cron(nightly, name="nightly", hour=3, minute=0)]
        health_check_interval = 1
"""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class App:
    """The project's app, run by uvicorn."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        password: str = PASSWORD,
        **headers: str,
    ) -> Answer:
        """As the page itself asks, except for what is said otherwise."""
        secret = base64.b64encode(f"me:{password}".encode()).decode()
        sent = {"X-Arq-Page": "1", "Authorization": f"Basic {secret}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method, path, headers={k: v for k, v in sent.items() if v}
            )
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def api(self, path: str, method: str = "GET", **parameters: str) -> Answer:
        return self.ask(f"/arq/api/{path}?{urlencode(parameters)}", method)


@contextmanager
def app_of(shop: Shop, url: str, name: str = "main:app", **env: str) -> Iterator[App]:
    log = shop.root.parent / f"app-{next(NUMBERS)}.log"
    env = {"ARQ_PAGE_PASSWORD": PASSWORD, **env}
    with shop.app(url, log, name=name, **env) as port:
        yield App(port, log)


@pytest.fixture(scope="module")
def page_shop(shop_with_queue: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = shop_with_queue.copy_to(tmp_path_factory.mktemp("page") / "shop")
    shop.write_tasks(TASKS)
    return shop


@pytest.fixture(scope="module")
def running(page_shop: Shop, database_url: str) -> Iterator[App]:
    """The app and a worker."""
    with app_of(page_shop, database_url) as app, page_shop.worker(database_url):
        yield app


@pytest.fixture
def db(database_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(database_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def app(running: App, db: redis.Redis) -> App:
    """They have no jobs yet."""
    return running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=CHROMIUM_OPTIONS
        )
        yield started
        started.close()


@contextmanager
def page_in(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page that reports an error in its script, or what its policy has refused."""
    credentials = {"username": "me", "password": PASSWORD}
    context = browser.new_context(
        **{"http_credentials": credentials, "locale": "en-GB", **options}
    )
    context.set_default_timeout(30_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda said: errors.append(said.text) if "Policy" in said.text else None,
    )
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def page(browser: Browser, app: App) -> Iterator[Page]:
    with page_in(browser) as opened:
        yield opened


expect.set_options(timeout=20_000)


def put(db: redis.Redis, job_id: str, task: str, *args: Any, due: int = 1) -> None:
    """Enqueue a job, as arq.py does."""
    job = {"t": None, "f": task, "a": args, "k": {}, "et": 1}
    db.set(f"arq:job:{job_id}", json.dumps(job, separators=(",", ":")), px=600_000)
    db.zadd(QUEUE, {job_id: due})
    db.publish(f"{QUEUE}:wake", "")


def row(page: Page, job_id: str) -> Any:
    return page.locator("#jobs tr").filter(has=page.get_by_role("link", name=job_id))


# --- In the browser -------------------------------------------------------------------


def test_a_job_fails_is_retried_and_completes(
    page: Page, app: App, db: redis.Redis, page_shop: Shop
) -> None:
    page.goto(f"{app.url}/arq/")
    expect(page.locator("#live-text")).to_have_text("live")
    expect(page.locator("#none")).to_be_visible()
    put(db, "one", "mend", "it")  # and the page shows it without being asked
    expect(row(page, "one")).to_contain_text("FileNotFoundError: no it")
    expect(page.locator("[data-state=failed] .number")).to_have_text("1")
    expect(page.locator("#workers")).to_contain_text("0 of 10")
    expect(page.locator("#cron")).to_contain_text("nightlyin ")

    page.get_by_role("link", name="one").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("in mend")
    expect(dialog).to_contain_text('"it"')
    expect(dialog).to_contain_text("Try 1")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    (page_shop / "it").touch()
    row(page, "one").get_by_role("button", name="Retry").click()
    expect(page.locator("#toast")).to_have_text("Queued again.")
    page.get_by_role("link", name="Complete").click()
    expect(row(page, "one")).to_contain_text("it is there")
    expect(page.locator("[data-state=failed] .number")).to_have_text("0")


def test_filter_and_pages(page: Page, app: App, db: redis.Redis) -> None:
    for i in range(60):
        keep_failed(db, f"mend-{i}", "mend", NOW + i)
    keep_failed(db, "other", "fail", NOW + 5000)
    page.goto(f"{app.url}/arq/")
    expect(row(page, "other")).to_be_visible()
    page.get_by_label("Task").fill("mend")
    page.keyboard.press("Enter")
    expect(row(page, "other")).to_be_hidden()
    expect(page.locator("#jobs tr")).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#jobs tr")).to_have_count(10)
    expect(page.locator("#range")).to_have_text("51 to 60")
    page.reload()
    expect(page.locator("#jobs tr")).to_have_count(10)
    page.go_back()
    page.go_back()
    expect(row(page, "other")).to_be_visible()
    expect(page.get_by_label("Task")).to_have_value("")


def test_pause_and_resume(page: Page, app: App, db: redis.Redis) -> None:
    page.goto(f"{app.url}/arq/#state=queued")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#paused")).to_be_visible()
    assert db.exists(f"{QUEUE}:paused") == 1
    put(db, "one", "mend", "main.py")
    expect(row(page, "one")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#paused")).to_be_hidden()
    wait_for(lambda: db.exists("arq:result:one") == 1, 20)


def test_discard_one_and_all(page: Page, app: App, db: redis.Redis) -> None:
    for name in ("one", "two", "three"):
        keep_failed(db, name, "mend", NOW)
    page.goto(f"{app.url}/arq/")
    row(page, "one").get_by_role("button", name="Discard").click()
    expect(row(page, "one")).to_be_hidden()
    assert db.zrange(f"{QUEUE}:failed", 0, -1) == ["three", "two"]
    page.once("dialog", lambda asked: asked.dismiss())
    page.get_by_role("button", name="Discard all").click()
    assert db.zcard(f"{QUEUE}:failed") == 2
    page.once("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Discard all").click()
    expect(page.locator("#toast")).to_have_text("2 jobs discarded.")
    assert db.keys("arq:failed:*") == []


def test_progress_abort_and_run_now(page: Page, app: App, db: redis.Redis) -> None:
    put(db, "long", "resize")
    page.goto(f"{app.url}/arq/#state=in_progress")
    expect(row(page, "long")).to_contain_text("40 % resizing <b>")
    row(page, "long").get_by_role("button", name="Abort").click()
    expect(row(page, "long")).to_be_hidden()
    put(db, "later", "mend", "main.py", due=2**42)
    page.get_by_role("link", name="Deferred").click()
    row(page, "later").get_by_role("button", name="Run now").click()
    wait_for(lambda: db.exists("arq:result:later") == 1, 20)


NASTY = (
    """<img src=x onerror="document.title = 'bad'"><script>alert(1)</script>'"&lt;"""
)
ARABIC = "\u202e\u0645\u0631\u062d\u0628\u0627"


def test_whatever_is_in_a_job_is_text(page: Page, app: App, db: redis.Redis) -> None:
    keep_failed(db, NASTY, NASTY, NOW, error=NASTY, traceback=NASTY, reason=NASTY)
    error = {"try": 1, "at": 5, "error": NASTY}
    db.rpush(f"arq:errors:{NASTY}", json.dumps(error))
    put(db, "nasty", "fail", NASTY)
    put(db, "arabic", "fail", ARABIC)
    put(db, "long", "fail", "x" * 1_000_000)
    wait_for(lambda: db.zcard(f"{QUEUE}:failed") == 4, 20)
    db.zadd(f"{QUEUE}:{'<b>'}", {"x": 1})
    db.zadd("arq:queues", {f"{QUEUE}:<b>": 1})
    page.goto(f"{app.url}/arq/")
    expect(page.locator("#jobs tr")).to_have_count(4)
    expect(row(page, "nasty")).to_contain_text(f"ValueError: {NASTY}")
    expect(row(page, "arabic")).to_contain_text(ARABIC)
    assert len(page.content()) < 100_000
    for job_id in (NASTY, "nasty"):
        page.get_by_role("link", name=job_id, exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("pre.error")).to_contain_text(NASTY)
        expect(dialog.locator(".history")).to_contain_text(NASTY)
        assert page.locator("body :is(script, img, b)").count() == 0
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
    page.get_by_role("link", name="long").click()
    expect(page.locator("#job-body")).to_contain_text("(1,000,002 characters)")
    assert len(page.content()) < 400_000
    assert page.title() == "Jobs"


def test_no_refresh_while_hidden(page: Page, app: App) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.goto(f"{app.url}/arq/")
    expect(page.locator("#live-text")).to_have_text("live")

    def becomes(hidden: str) -> None:
        page.evaluate(
            "(hidden) => { Object.defineProperty(document, 'hidden',"
            " { value: hidden, configurable: true });"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden == "hidden",
        )

    with page.expect_response("**/api/jobs?*"):
        page.clock.run_for(2500)
    page.wait_for_load_state("networkidle")
    becomes("hidden")
    asked.clear()
    page.clock.run_for(60_000)
    assert page.locator("#live-text").inner_text() == "paused while hidden"
    assert asked == []
    with page.expect_response("**/api/jobs?*"):
        becomes("visible")
    expect(page.locator("#live-text")).to_have_text("live")


def test_ten_thousand_failed_jobs(page: Page, app: App, db: redis.Redis) -> None:
    with db.pipeline(transaction=False) as pipe:
        for i in range(10_000):
            keep_failed(pipe, f"job-{i}", "mend", NOW + i)
        pipe.execute()

    def commands() -> int:
        return int(db.info("stats")["total_commands_processed"])

    before = commands()
    for offset in ("0", "9950"):
        answer = app.api("jobs", queue=QUEUE, state="failed", offset=offset)
        assert len(answer.json["jobs"]) == 50
        assert len(answer.body) < 50_000
    # one for each job that is passed over, all in one script
    assert commands() - before < 12_000
    before = commands()
    assert len(app.api("queues").body) < 10_000
    assert commands() - before < 100
    page.goto(f"{app.url}/arq/")
    expect(page.locator("[data-state=failed] .number")).to_have_text("10,000")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#paused")).to_be_visible()
    page.once("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Retry all").click()
    expect(page.locator("#toast")).to_have_text("10,000 jobs queued again.")
    assert db.zcard(QUEUE) == 10_000
    db.delete(QUEUE)


def test_behind_a_path_prefix(
    browser: Browser, page_shop: Shop, db: redis.Redis, database_url: str
) -> None:
    page_shop.write(
        "prefixed.py",
        """
        from fastapi import FastAPI
        from main import app as shop

        app = FastAPI()
        app.mount("/shop", shop)
        """,
    )
    keep_failed(db, "one", "mend", NOW)
    with (
        app_of(page_shop, database_url, "prefixed:app") as app,
        page_in(browser) as page,
    ):
        page.goto(f"{app.url}/shop/arq")
        row(page, "one").get_by_role("button", name="Discard").click()
        expect(row(page, "one")).to_be_hidden()
        assert page.url.startswith(f"{app.url}/shop/arq/#")


def test_nobody_is_let_in_with_another_password(browser: Browser, app: App) -> None:
    wrong = {"username": "me", "password": "wrong"}
    with page_in(browser, http_credentials=wrong) as page:
        response = page.goto(f"{app.url}/arq/")
        assert response and response.status == 401
        assert "Jobs" not in page.content()


# --- Who is let in --------------------------------------------------------------------

PATHS = [
    *("/arq", "/arq/", "/arq/page.js", "/arq/page.css", "/arq/nothing", "/arq/api"),
    *("/arq/api/queues", f"/arq/api/jobs?queue={QUEUE}&state=failed"),
    *(f"/arq/api/job?queue={QUEUE}&id=one", f"/arq/api/retry?queue={QUEUE}&id=one"),
    *("/arq/api/jobs?state=nonsense", "/arq/api/nonsense"),
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]


def same(answer: Answer) -> tuple[Any, ...]:
    passing = ("date", "x-request-id", "x-process-time")
    rest = {name: v for name, v in answer.headers.items() if name not in passing}
    return answer.status, rest, answer.body


@pytest.mark.parametrize("environment", ["development", "production"])
def test_without_a_password_there_is_no_page(
    page_shop: Shop, redis_url: str, environment: str
) -> None:
    with app_of(
        page_shop,
        redis_url,
        ARQ_PAGE_PASSWORD="",
        ENVIRONMENT=environment,
        SECRET_KEY="k" * 40,
    ) as app:
        for method in METHODS:
            for password in ("", PASSWORD):
                for path in PATHS:
                    answer = app.ask(path, method, password=password)
                    nowhere = app.ask("/nowhere", method, password=password)
                    assert same(answer) == same(nowhere), (method, path)
                    assert answer.status == 404


def test_a_wrong_password_learns_nothing(app: App, db: redis.Redis) -> None:
    keep_failed(db, "one", "mend", NOW)
    for method in METHODS:
        for path in PATHS:
            answer = app.ask(path, method, Authorization="")
            assert answer.status == 401, (method, path)
            assert answer.headers["www-authenticate"] == 'Basic realm="Jobs"'
            assert b"one" not in answer.body
    before = app.log.read_text().count("Wrong password for the jobs page")
    for given in (
        "Basic !",
        "Basic \xe9",
        "Bearer x",
        "Basic " + base64.b64encode(b"x:\xff").decode(),
    ):
        assert app.ask("/arq/", Authorization=given).status == 401
    for password in (PASSWORD[:-1], PASSWORD + "x"):
        assert app.ask("/arq/", password=password).status == 401
    after = app.log.read_text().count("Wrong password for the jobs page")
    assert after - before == 5  # but for the Bearer, which is none
    assert app.ask("/arq/").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"X-Arq-Page": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "X-Arq-Page": ""}, 403),
    ],
)
def test_other_sites_cannot_act(
    app: App, db: redis.Redis, headers: dict[str, str], status: int
) -> None:
    keep_failed(db, "one", "mend", NOW)
    for path, method in ((f"discard?queue={QUEUE}&id=one", "POST"), ("queues", "GET")):
        assert app.ask(f"/arq/api/{path}", method, **headers).status == status
    assert db.zcard(f"{QUEUE}:failed") == (0 if status == 200 else 1)


def test_the_policy_of_all_it_serves(app: App) -> None:
    for path in ("/arq", "/arq/", "/arq/page.js", "/arq/page.css", "/arq/api/queues"):
        headers = app.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert app.ask(f"/arq/api/discard?queue={QUEUE}&id=one").status == 404
    assert app.api("job", queue=QUEUE, id="nope").status == 404


def test_a_dependency_of_ones_own_and_hidden_arguments(
    page_shop: Shop, db: redis.Redis, database_url: str, tmp_path: Path
) -> None:
    keep_failed(db, "one", "mend", NOW)
    job = {"t": None, "f": "mend", "a": ["secret"], "k": {"b": "secret"}, "et": 1}
    db.hset("arq:failed:one", "job", json.dumps(job))
    shop = page_shop.copy_to(tmp_path / "shop")
    shop.edit(
        "main.py",
        "jobs_page()",
        "jobs_page(dependencies=[Depends(is_admin)])",
    )
    text = (shop / "main.py").read_text()
    guard = """
        from fastapi import Depends, Header, HTTPException


        def is_admin(x_admin: str = Header("")):
            if x_admin != "yes":
                raise HTTPException(404)


    """
    (shop / "main.py").write_text(textwrap.dedent(guard) + text)
    with app_of(
        shop, database_url, ARQ_PAGE_PASSWORD="", ARQ_PAGE_ARGUMENTS="false"
    ) as app:
        assert app.ask("/arq/").status == 404
        assert app.ask("/arq/", X_Admin="yes").status == 200
        for path in (f"job?queue={QUEUE}&id=one", f"jobs?queue={QUEUE}&state=failed"):
            assert app.ask(f"/arq/api/{path}").status == 404
            answer = app.ask(f"/arq/api/{path}", X_Admin="yes")
            assert b"secret" not in answer.body and b"hidden" in answer.body


def test_redis_is_away(page_shop: Shop) -> None:
    with app_of(page_shop, f"redis://127.0.0.1:{free_port()}/0") as app:
        answer = app.api("queues")
        assert answer.status == 503
        assert "Redis cannot be used" in answer.body.decode()
