"""The jobs page at 3 a.m.: nothing is done to another job than was meant."""

import time
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


def failed(db: redis.Redis) -> set[Any]:
    found: Any = db.zrange(f"{QUEUE}:failed", 0, -1)
    return set(found)


def test_what_is_typed_counts_though_not_entered(
    page: Page, site: Site, db: redis.Redis
) -> None:
    for name, task in (("a", "mend"), ("b", "mend"), ("c", "fail")):
        keep_failed(db, name, task, NOW, error=f"ValueError: of {task}")
    page.goto(f"{site.url}/arq/")
    expect(row(page, "c")).to_be_visible()
    page.get_by_label("Search").fill("task:fail")
    question = press(page, "Discard all")
    assert question == f"Discard 1 failed job of the task fail in {QUEUE}?"
    expect(page.locator("#toast-text")).to_have_text("1 job discarded.")
    assert failed(db) == {"a", "b"}
    page.get_by_label("Search").fill("OF MEND")
    assert "2 failed jobs with “OF MEND”" in press(page, "Retry all", None)
    assert failed(db) == {"a", "b"}


def test_what_no_longer_fits_the_question_is_refused(
    page: Page, site: Site, db: redis.Redis
) -> None:
    for name in ("a", "b"):
        keep_failed(db, name, "mend", NOW)
    page.goto(f"{site.url}/arq/")
    expect(row(page, "b")).to_be_visible()

    def answer(asked: Any) -> None:
        later = int(time.time() * 1000) + 600_000
        keep_failed(db, "later", "mend", later)  # after the question: left alone
        db.zrem(f"{QUEUE}:failed", "a")
        asked.accept()

    page.once("dialog", answer)
    page.get_by_role("button", name="Discard all").click()
    text = "Nothing was changed: they are 1 now, not 2."
    expect(page.locator("#toast-text")).to_have_text(text)
    assert failed(db) == {"b", "later"}
    press(page, "Discard all")
    expect(page.locator("#toast-text")).to_have_text("1 job discarded.")
    assert failed(db) == {"later"}


def test_the_list_stands_still_under_the_pointer(
    page: Page, site: Site, db: redis.Redis
) -> None:
    for i in range(3):
        keep_failed(db, f"old-{i}", "mend", NOW + i)
    page.goto(f"{site.url}/arq/")
    row(page, "old-2").hover()
    for i in range(2):
        keep_failed(db, f"new-{i}", "mend", NOW + 1000 + i)
    db.zrem(f"{QUEUE}:failed", "old-0")
    news = page.get_by_role("button", name="2 new: show")
    expect(news).to_be_visible()
    expect(page.locator("#jobs tr")).to_have_count(3)
    expect(row(page, "old-0")).to_have_class("gone")
    row(page, "old-2").get_by_role("button", name="Discard").dblclick()
    expect(page.locator("#toast-text")).to_have_text("Discarded.")
    assert failed(db) == {"old-1", "new-0", "new-1"}
    expect(row(page, "old-2")).to_have_class("gone")
    leave(page)
    expect(page.locator("#jobs tr")).to_have_count(3)
    expect(row(page, "new-1")).to_be_visible()


def test_the_list_stands_still_for_the_keyboard(
    page: Page, site: Site, db: redis.Redis
) -> None:
    for i in range(3):
        keep_failed(db, f"old-{i}", "mend", NOW + i)
    page.goto(f"{site.url}/arq/")
    expect(row(page, "old-2")).to_be_visible()
    retry = row(page, "old-1").get_by_role("button", name="Discard")
    page.keyboard.press("Tab")  # so that the focus is the keyboard's
    retry.focus()
    keep_failed(db, "new", "mend", NOW + 1000)
    expect(page.get_by_role("button", name="1 new: show")).to_be_visible()
    expect(retry).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#toast-text")).to_have_text("Discarded.")
    assert failed(db) == {"old-0", "old-2", "new"}


def test_buttons_wait_after_a_change(page: Page, site: Site, db: redis.Redis) -> None:
    keep_failed(db, "old", "mend", NOW)
    page.goto(f"{site.url}/arq/")
    expect(row(page, "old")).to_be_visible()
    page.evaluate(
        """() => new MutationObserver(() => {
            const button = document.querySelector('#jobs button');
            window.first ??= button.getAttribute('aria-disabled');
            button.click();
        }).observe(document.getElementById('jobs'), { childList: true })"""
    )
    keep_failed(db, "new", "mend", NOW + 1000)
    wait_for(lambda: page.evaluate("window.first !== undefined"), 60)
    assert page.evaluate("window.first") == "true"
    expect(row(page, "new").get_by_role("button", name="Retry")).to_be_enabled()
    assert failed(db) == {"old", "new"}


def test_undo(page: Page, site: Site, db: redis.Redis) -> None:
    for i in range(5):
        keep_failed(db, f"job-{i}", "mend", NOW + i)
    page.goto(f"{site.url}/arq/")
    row(page, "job-4").get_by_role("button", name="Discard").click()
    expect(page.locator("#toast-text")).to_have_text("Discarded.")
    leave(page)
    expect(page.locator("#jobs tr")).to_have_count(4)
    press(page, "Discard all")
    expect(page.locator("#toast-text")).to_have_text("4 jobs discarded.")
    assert failed(db) == set()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toast-text")).to_have_text("4 jobs brought back.")
    expect(page.locator("#jobs tr")).to_have_count(4)
    # from the dialog, too
    page.get_by_role("link", name="job-1").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#toast-text")).to_have_text("1 job brought back.")
    assert failed(db) == {f"job-{i}" for i in range(4)}


def test_purge_wants_the_number(page: Page, site: Site, db: redis.Redis) -> None:
    db.set(f"{QUEUE}:paused", 1)
    for i in range(3):
        put(db, f"job-{i}", "mend", "x")
    put(db, "other", "fail", "x")
    page.goto(f"{site.url}/arq/#state=queued")
    expect(page.locator("#jobs tr")).to_have_count(4)
    page.get_by_label("Search").fill("task:mend")
    press(page, "Purge", "2")
    assert db.zcard(QUEUE) == 4
    assert "Delete 3 queued jobs of the task mend" in press(page, "Purge", "3")
    expect(page.locator("#toast-text")).to_have_text("3 jobs deleted.")
    assert db.zrange(QUEUE, 0, -1) == ["other"]


def test_groups_of_errors(page: Page, site: Site, db: redis.Redis) -> None:
    for i in range(4):
        keep_failed(db, f"a{i}", "mend", NOW + i, error=f"OSError: 50{i} from 'x{i}'")
    keep_failed(db, "b", "mend", NOW, error="OSError: refused")
    page.goto(f"{site.url}/arq/")
    page.get_by_role("link", name="By error").click()
    expect(page.locator("#jobs tr")).to_have_count(2)
    page.get_by_role("link", name="OSError: N from '…'").click()
    expect(page.locator("#jobs tr")).to_have_count(4)
    expect(page.locator("#group-text")).to_have_text("OSError: N from '…'")
    assert "with the error “OSError: N from '…'”" in press(page, "Discard all", None)
    page.go_back()
    expect(page.locator("#jobs tr")).to_have_count(2)
    question = press(page, "Discard", exact=True)
    assert question.startswith("Discard 4 failed jobs of the task mend with the error")
    expect(page.locator("#toast-text")).to_have_text("4 jobs discarded.")
    assert failed(db) == {"b"}


def test_search_in_all_states(page: Page, site: Site, db: redis.Redis) -> None:
    keep_failed(db, "f-ada", "mend", NOW)
    put(db, "d-ada", "mend", "x", due=2**42)
    put(db, "other", "mend", "x", due=2**42)
    page.goto(f"{site.url}/arq/#search=ada")
    expect(page.locator("#jobs tr")).to_have_count(1)
    page.get_by_role("link", name="In all states").click()
    expect(page.locator("#jobs tr")).to_have_count(2)
    expect(row(page, "d-ada")).to_contain_text("Deferred")
    page.get_by_label("Search").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("#none")).to_have_text("None that fit here.")
    page.get_by_label("Search").fill("task:typo")
    page.keyboard.press("Enter")
    expect(page.locator("#trouble")).to_contain_text("There is no task 'typo'")


def test_back_closes_a_job_and_does_not_open_it_again(
    page: Page, site: Site, db: redis.Redis
) -> None:
    keep_failed(db, "one", "mend", NOW)
    page.goto(f"{site.url}/arq/#state=complete")
    page.get_by_role("link", name="Failed").click()
    dialog = page.get_by_role("dialog")
    for close in (page.go_back, lambda: page.keyboard.press("Escape")):
        page.get_by_role("link", name="one").click()
        expect(dialog).to_be_visible()
        close()
        expect(dialog).to_be_hidden()
        page.wait_for_url(lambda url: "job=" not in url)
    page.go_back()
    page.wait_for_url(lambda url: "state=complete" in url)
    expect(dialog).to_be_hidden()


def test_a_reader_has_no_buttons(browser: Browser, site: Site, db: redis.Redis) -> None:
    keep_failed(db, "one", "mend", NOW)
    login = {"username": "me", "password": "r" * 16}
    with page_in(browser, http_credentials=login) as page:
        page.goto(f"{site.url}/arq/")
        expect(row(page, "one")).to_be_visible()
        for name in ("Retry", "Discard", "Retry all", "Pause"):
            assert page.get_by_role("button", name=name).count() == 0


def test_a_session_that_has_ended(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/arq/")
    expect(page.locator("#live-text")).to_have_text("live")
    login = {"status": 200, "content_type": "text/html", "body": "<h1>Log in</h1>"}
    page.route("**/api/*", lambda route: route.fulfill(**login))
    expect(page.locator("#trouble")).to_contain_text("Reload the page to log in again")
    expect(page.locator("#live-text")).to_have_text("logged out")


def test_the_history_is_drawn(page: Page, site: Site, db: redis.Redis) -> None:
    minute = int(time.time()) // 60
    for i in range(20):
        counts = {"n:mend": 10, "f:mend": 5, "w20:mend": 10, "r40:mend": 10}
        db.hset(f"{QUEUE}:history:{minute - i}", mapping={**counts, "n:fail": 30})
    page.goto(f"{site.url}/arq/")
    charts = page.locator("#charts svg")
    expect(charts).to_have_count(3)
    expect(charts.first).to_have_attribute("aria-label", "Jobs a minute, at most 40.0")
    expect(charts.nth(2)).to_have_attribute("aria-label", "Run time, at most 1.1 s")
    assert "L" in str(charts.first.locator("path.line").get_attribute("d"))
    page.get_by_label("Search").fill("task:mend")
    page.keyboard.press("Enter")
    expect(charts.first).to_have_attribute("aria-label", "Jobs a minute, at most 10.0")


def test_a_worker_that_says_nothing(page: Page, site: Site, db: redis.Redis) -> None:
    page.goto(f"{site.url}/arq/")
    expect(page.locator("#workers")).to_contain_text("last sign")
    wait_for(lambda: bool(db.zrange(f"{QUEUE}:workers", 0, 0)), 60)
    workers: Any = db.zrange(f"{QUEUE}:workers", 0, 0)
    record = db.get(f"{QUEUE}:worker:{workers[0]}")
    db.set(f"{QUEUE}:worker:frozen", str(record), px=60_000)
    db.zadd(f"{QUEUE}:workers", {"frozen": time.time() * 1000 - 12_000})
    expect(page.locator("#summary")).to_contain_text("1 has gone silent")
    expect(page.locator("#workers .warn")).to_have_count(1)
