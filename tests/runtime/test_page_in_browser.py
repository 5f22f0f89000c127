"""The jobs page in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from browsing import leave, page_in, press, row
from kit import QUEUE
from page_site import NOW, Site, keep_failed, put
from playwright.sync_api import Browser, Page, expect
from support import wait_for

pytestmark = pytest.mark.slow
pytest_plugins = ["browsing"]


def test_a_job_fails_is_retried_and_completes(
    page: Page, site: Site, db: redis.Redis, tmp_path: Path
) -> None:
    page.goto(f"{site.url}/arq/")
    expect(page.locator("#live-text")).to_have_text("live")
    expect(page.locator("#none")).to_be_visible()
    it = tmp_path / "it"
    put(db, "one", "mend", str(it))  # and the page shows it without being asked
    expect(row(page, "one")).to_contain_text(f"FileNotFoundError: no {it}")
    expect(page.locator("[data-state=failed] .number")).to_have_text("1")
    expect(page.locator("#workers")).to_contain_text("0 of 10")
    expect(page.locator("#cron")).to_contain_text("nightlynext in ")

    page.get_by_role("link", name="one").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("in mend")
    expect(dialog).to_contain_text(f'"{it}"')
    expect(dialog).to_contain_text("Try 1")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()

    it.touch()
    row(page, "one").get_by_role("button", name="Retry").click()
    expect(page.locator("#toast-text")).to_have_text("Queued again.")
    page.get_by_role("link", name="Complete").click()
    expect(row(page, "one")).to_contain_text("it is there")
    expect(page.locator("[data-state=failed] .number")).to_have_text("0")


def test_filter_and_pages(page: Page, site: Site, db: redis.Redis) -> None:
    for i in range(60):
        keep_failed(db, f"mend-{i}", "mend", NOW + i)
    keep_failed(db, "other", "fail", NOW + 5000)
    page.goto(f"{site.url}/arq/")
    expect(row(page, "other")).to_be_visible()
    page.get_by_label("Search").fill("task:mend")
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
    expect(page.get_by_label("Search")).to_have_value("")


def test_pause_and_resume(page: Page, site: Site, db: redis.Redis) -> None:
    page.goto(f"{site.url}/arq/#state=queued")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#paused")).to_be_visible()
    assert db.exists(f"{QUEUE}:paused") == 1
    put(db, "one", "mend", __file__)
    expect(row(page, "one")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#paused")).to_be_hidden()
    wait_for(lambda: db.exists("arq:result:one") == 1, 60)


def test_discard_one_and_all(page: Page, site: Site, db: redis.Redis) -> None:
    for name in ("one", "two", "three"):
        keep_failed(db, name, "mend", NOW)
    page.goto(f"{site.url}/arq/")
    row(page, "one").get_by_role("button", name="Discard").click()
    expect(page.locator("#toast-text")).to_have_text("Discarded.")
    leave(page)
    expect(row(page, "one")).to_be_hidden()
    assert db.zrange(f"{QUEUE}:failed", 0, -1) == ["three", "two"]
    press(page, "Discard all", None)
    assert db.zcard(f"{QUEUE}:failed") == 2
    press(page, "Discard all")
    expect(page.locator("#toast-text")).to_have_text("2 jobs discarded.")
    assert db.keys("arq:failed:*") == []


def test_progress_abort_and_run_now(page: Page, site: Site, db: redis.Redis) -> None:
    put(db, "long", "resize")
    page.goto(f"{site.url}/arq/#state=in_progress")
    expect(row(page, "long")).to_contain_text("40 % resizing <b>")
    row(page, "long").get_by_role("button", name="Abort").click()
    leave(page)
    expect(row(page, "long")).to_be_hidden()
    put(db, "later", "mend", __file__, due=2**42)
    page.get_by_role("link", name="Deferred").click()
    row(page, "later").get_by_role("button", name="Run now").click()
    wait_for(lambda: db.exists("arq:result:later") == 1, 60)


NASTY = (
    """<img src=x onerror="document.title = 'bad'"><script>alert(1)</script>'"&lt;"""
)
ARABIC = "\u202e\u0645\u0631\u062d\u0628\u0627"


def test_whatever_is_in_a_job_is_text(page: Page, site: Site, db: redis.Redis) -> None:
    texts = dict.fromkeys(["error", "traceback", "reason", "log"], NASTY)
    keep_failed(db, NASTY, NASTY, NOW, **texts)
    error = {"try": 1, "at": 5, "error": NASTY}
    db.rpush(f"arq:errors:{NASTY}", json.dumps(error))
    put(db, "nasty", "fail", NASTY)
    put(db, "arabic", "fail", ARABIC)
    put(db, "long", "fail", "x" * 1_000_000)
    wait_for(lambda: db.zcard(f"{QUEUE}:failed") == 4, 60)
    db.zadd(f"{QUEUE}:{'<b>'}", {"x": 1})
    db.zadd("arq:queues", {f"{QUEUE}:<b>": 1})
    page.goto(f"{site.url}/arq/")
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
    page.get_by_role("link", name=NASTY, exact=True).click()
    expect(page.locator("#job-body h3:text('Log') + pre")).to_have_text(NASTY)
    page.keyboard.press("Escape")
    page.get_by_role("link", name="long").click()
    expect(page.locator("#job-body")).to_contain_text("(1,000,002 characters)")
    assert len(page.content()) < 400_000
    assert page.title() == "Jobs"


def test_no_refresh_while_hidden(page: Page, site: Site) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.goto(f"{site.url}/arq/")
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


def test_ten_thousand_failed_jobs(page: Page, site: Site, db: redis.Redis) -> None:
    with db.pipeline(transaction=False) as pipe:
        for i in range(10_000):
            keep_failed(pipe, f"job-{i}", "mend", NOW - 10_000 + i)
        pipe.execute()

    def commands() -> int:
        stats: Any = db.info("stats")
        return int(stats["total_commands_processed"])

    before = commands()
    for offset in ("0", "9950"):
        answer = site.api("jobs", queue=QUEUE, state="failed", offset=offset)
        assert len(answer.json["jobs"]) == 50
        assert len(answer.body) < 50_000
    # one for each job that is passed over, all in one script
    assert commands() - before < 12_000
    before = commands()
    assert len(site.api("queues").body) < 10_000
    assert commands() - before < 100
    page.goto(f"{site.url}/arq/")
    expect(page.locator("[data-state=failed] .number")).to_have_text("10,000")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#paused")).to_be_visible()
    press(page, "Retry all")
    expect(page.locator("#toast-text")).to_have_text("10,000 jobs queued again.")
    assert db.zcard(QUEUE) == 10_000
    db.delete(QUEUE)


def test_behind_a_path_prefix(browser: Browser, site: Site, db: redis.Redis) -> None:
    keep_failed(db, "one", "mend", NOW)
    with page_in(browser) as page:
        page.goto(f"{site.url}/shop/arq")
        row(page, "one").get_by_role("button", name="Discard").click()
        leave(page)
        expect(row(page, "one")).to_be_hidden()
        assert page.url.startswith(f"{site.url}/shop/arq/#")


def test_nobody_is_let_in_with_another_password(browser: Browser, site: Site) -> None:
    wrong = {"username": "me", "password": "wrong"}
    with page_in(browser, http_credentials=wrong) as page:
        response = page.goto(f"{site.url}/arq/")
        assert response and response.status == 401
        assert "Jobs" not in page.content()
