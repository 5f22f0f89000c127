"""The jobs page in a real browser: fixtures, and what the tests do with it.

A test module takes part with `pytest_plugins = ["browsing"]`.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from kit import App
from page_site import PASSWORD, TASKS, Site, served
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydantic import SecretStr
from support import CHROMIUM_OPTIONS

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def running(database_url: str) -> Iterator[Site]:
    """The page and a worker."""
    reader = SecretStr("r" * 16)
    with served(App(database_url), *TASKS, reader_password=reader) as found:
        yield found


@pytest.fixture
def db(database_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(database_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def site(running: Site, db: redis.Redis) -> Site:
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
    context.set_default_timeout(60_000)
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
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with page_in(browser) as opened:
        yield opened


expect.set_options(timeout=60_000)


def row(page: Page, job_id: str) -> Any:
    return page.locator("#jobs tr").filter(has=page.get_by_role("link", name=job_id))


def leave(page: Page) -> None:
    """Take the pointer out of the list, which stands still as long as it is there."""
    page.mouse.move(1, 1)


def press(
    page: Page, name: str, answer: str | None = "", *, exact: bool = False
) -> str:
    """Press a button, and answer the question that comes; None dismisses it.

    Returns:
        The question.
    """
    with page.expect_event("dialog") as event:
        page.once("dialog", lambda asked: _reply(asked, answer))
        page.get_by_role("button", name=name, exact=exact).first.click()
    return str(event.value.message)


def _reply(asked: Any, answer: str | None) -> None:
    if answer is None:
        asked.dismiss()
    else:
        asked.accept(answer)
