"""The jobs page over HTTP: who is let in, and what is served."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from fastapi import Depends, Header, HTTPException
from kit import QUEUE, App
from page_site import NOW, PASSWORD, Answer, Site, keep_failed, served
from support import free_port


@pytest.fixture
def site(redis_url: str) -> Iterator[Site]:
    with served(App(redis_url)) as found:
        yield found


@pytest.fixture
def db(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


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


def test_without_a_password_there_is_no_page(redis_url: str) -> None:
    with served(App(redis_url), password="") as site:
        for method in METHODS:
            nowhere = same(site.ask("/nowhere", method))
            for password in ("", PASSWORD):
                for path in PATHS:
                    answer = site.ask(path, method, password=password)
                    assert same(answer) == nowhere, (method, path)
                    assert answer.status == 404


def test_a_wrong_password_learns_nothing(
    site: Site, db: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    keep_failed(db, "one", "mend", NOW)
    for method in METHODS:
        for path in PATHS:
            answer = site.ask(path, method, Authorization="")
            assert answer.status == 401, (method, path)
            assert answer.headers["www-authenticate"] == 'Basic realm="Jobs"'
            assert b"one" not in answer.body
    wrong = [f"x:{PASSWORD[:-1]}".encode(), f"x:{PASSWORD}x".encode(), b"x:\xff"]
    given = [f"Basic {base64.b64encode(login).decode()}" for login in wrong]
    given += ["Basic !", "Basic \xe9", "Bearer x"]
    began = time.monotonic()
    with ThreadPoolExecutor(len(given)) as threads:
        answers = threads.map(lambda it: site.ask("/arq/", Authorization=it), given)
        assert [answer.status for answer in answers] == [401] * len(given)
    assert time.monotonic() - began > 1  # so that not many can be tried
    # but for the Bearer, which is none
    assert caplog.text.count("Wrong password for the jobs page, from 127.0.0.1") == 5
    assert site.ask("/arq/").status == 200


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
    site: Site, db: redis.Redis, headers: dict[str, str], status: int
) -> None:
    keep_failed(db, "one", "mend", NOW)
    for path, method in ((f"discard?queue={QUEUE}&id=one", "POST"), ("queues", "GET")):
        assert site.ask(f"/arq/api/{path}", method, **headers).status == status
    assert db.zcard(f"{QUEUE}:failed") == (0 if status == 200 else 1)


def test_the_policy_of_all_it_serves(site: Site) -> None:
    for path in ("/arq", "/arq/", "/arq/page.js", "/arq/page.css", "/arq/api/queues"):
        headers = site.ask(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert site.ask(f"/arq/api/discard?queue={QUEUE}&id=one").status == 404
    assert site.api("job", queue=QUEUE, id="nope").status == 404


def is_admin(x_admin: str = Header("")) -> None:
    if x_admin != "yes":
        raise HTTPException(404)


def test_a_dependency_of_ones_own_and_hidden_arguments(
    db: redis.Redis, redis_url: str
) -> None:
    keep_failed(db, "one", "mend", NOW)
    job = {"t": None, "f": "mend", "a": ["secret"], "k": {"b": "secret"}, "et": 1}
    db.hset("arq:failed:one", "job", json.dumps(job))
    with served(
        App(redis_url),
        password="",
        show_arguments=False,
        dependencies=[Depends(is_admin)],
    ) as site:
        assert site.ask("/arq/").status == 404
        assert site.ask("/arq/", X_Admin="yes").status == 200
        for path in (f"job?queue={QUEUE}&id=one", f"jobs?queue={QUEUE}&state=failed"):
            assert site.ask(f"/arq/api/{path}").status == 404
            answer = site.ask(f"/arq/api/{path}", X_Admin="yes")
            assert b"secret" not in answer.body and b"hidden" in answer.body


def test_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arq_runtime.server.DEADLINE_S", 0.2)
    with served(App(f"redis://127.0.0.1:{free_port()}/0")) as site:
        answer = site.api("queues")
        assert answer.status == 503
        assert "Redis fails, see ARQ_REDIS_URL: " in answer.body.decode()
