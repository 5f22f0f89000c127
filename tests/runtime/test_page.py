"""The jobs page over HTTP: who is let in, and what is served."""

import base64
import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from fastapi import Depends, Header, HTTPException
from kit import QUEUE, App
from page_site import NOW, PASSWORD, Answer, Site, keep_failed, put, served
from pydantic import SecretStr
from support import free_port


@pytest.fixture(scope="module")
def site(database_url: str) -> Iterator[Site]:
    with served(App(database_url)) as found:
        yield found


@pytest.fixture(autouse=True)
def db(database_url: str) -> Iterator[redis.Redis]:
    """There is nothing there yet."""
    with redis.Redis.from_url(database_url, decode_responses=True) as client:
        client.flushdb()
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


def test_without_a_password_there_is_no_page(database_url: str) -> None:
    with served(App(database_url), password="") as site:
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
    db: redis.Redis, database_url: str
) -> None:
    keep_failed(db, "one", "mend", NOW)
    job = {"t": None, "f": "mend", "a": ["secret"], "k": {"b": "secret"}, "et": 1}
    db.hset("arq:failed:one", "job", json.dumps(job))
    with served(
        App(database_url),
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


def who(x_admin: str = Header("")) -> str:
    if not x_admin:
        raise HTTPException(404)
    return x_admin


def is_reader(x_admin: str = Header("")) -> bool:
    return x_admin == "eve"


def test_who_acts_is_in_the_log_and_readers_cannot(
    db: redis.Redis, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("one", "two", "three"):
        keep_failed(db, name, "mend", NOW)
    options: Any = {"dependencies": [Depends(who)], "readonly": Depends(is_reader)}
    path = f"/arq/api/retry?queue={QUEUE}&id="
    with served(App(database_url), password="", **options) as site:
        refused = site.ask(f"{path}one", "POST", X_Admin="eve")
        assert refused.status == 403 and "You may look" in refused.body.decode()
        assert not site.ask("/arq/api/queues", X_Admin="eve").json["may_act"]
        assert site.ask(f"{path}one", "POST", X_Admin="ada").json["done"]
    assert f"{QUEUE}: retry one, by ada" in caplog.text
    reader = SecretStr("r" * 16)
    with served(App(database_url), reader_password=reader) as site:
        assert site.ask("/arq/api/queues", password="r" * 16).status == 200
        for action in ("pause", "undo", "all/discard-all", "discard", "nonsense"):
            answer = site.ask(
                f"/arq/api/{action}?queue={QUEUE}", "POST", password="r" * 16
            )
            assert answer.status in (403, 422), action
        assert site.ask(f"{path}two", "POST").json["done"]
    assert f"{QUEUE}: retry two, by me" in caplog.text
    errors: Any = db.lrange("arq:errors:two", 0, -1)
    assert json.loads(errors[0])["retried_by"] == "me"
    assert db.zcard(f"{QUEUE}:failed") == 1


def test_many_are_acted_on_as_asked_or_not_at_all(site: Site, db: redis.Redis) -> None:
    for name, task in (("a", "mend"), ("b", "mend"), ("c", "fail")):
        keep_failed(db, name, task, NOW - 1000)
    about = {"queue": QUEUE, "task": "mend"}
    asked = site.api("count", state="failed", **about).json
    assert asked["count"] == 2
    keep_failed(db, "later", "mend", asked["until"] + 1000)
    until = str(asked["until"])
    wrong = site.api("all/discard-all", "POST", expected="3", until=until, **about)
    assert wrong.status == 409 and db.zcard(f"{QUEUE}:failed") == 4
    assert site.api("all/purge", "POST", expected="2", **about).status == 422
    done = site.api("all/discard-all", "POST", expected="2", until=until, **about).json
    assert done["done"] == 2
    assert db.zrange(f"{QUEUE}:failed", 0, -1) == ["c", "later"]
    assert site.api("undo", "POST", queue=QUEUE, batch=done["batch"]).json["done"] == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("jobs?state=failed", "job?id=one", "groups?")),
        *(("GET", path) for path in ("count?state=failed",)),
        *(("POST", path) for path in ("pause?", "resume?", "retry?id=one")),
        ("POST", "all/retry-all?expected=0"),
    ],
)
def test_queues_that_do_not_exist(
    site: Site, db: redis.Redis, method: str, path: str
) -> None:
    answer = site.ask(f"/arq/api/{path}&queue={QUEUE}s", method)
    assert answer.status == 404
    text = f"There is no queue '{QUEUE}s'; did you mean '{QUEUE}'?"
    assert answer.json["detail"] == text
    assert db.keys("*") == []


def test_tasks_that_do_not_exist_and_jobs_of_other_queues(
    site: Site, db: redis.Redis
) -> None:
    keep_failed(db, "one", "mend", NOW)
    db.zadd("slow", {"x": 1})
    assert site.api("job", queue=QUEUE, id="one").status == 200
    assert site.api("job", queue="slow", id="one").status == 404
    for path in ("jobs", "count"):
        answer = site.api(path, queue=QUEUE, state="failed", task="mand")
        assert answer.status == 404 and "no task 'mand'" in answer.json["detail"]


def test_what_has_not_changed_is_not_sent_again(site: Site, db: redis.Redis) -> None:
    for i in range(100):
        keep_failed(db, f"job-{i}", "mend", NOW + i)
    path = f"/arq/api/jobs?queue={QUEUE}&state=failed"
    plain = site.ask(path)
    packed = site.ask(path, Accept_Encoding="gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 4
    tag = plain.headers["etag"]
    same = site.ask(path, If_None_Match=tag)
    assert (same.status, same.body) == (304, b"")
    assert sum(len(f"{k}: {v}") + 2 for k, v in same.headers.items()) < 300
    keep_failed(db, "another", "mend", NOW + 1000)
    assert site.ask(path, If_None_Match=tag).status == 200
    script = site.ask("/arq/page.js")
    assert site.ask("/arq/page.js", If_None_Match=script.headers["etag"]).status == 304


def test_large_arguments_do_not_hold_up_the_app(site: Site, db: redis.Redis) -> None:
    for i in range(50):
        put(db, f"large-{i}", "mend", "x" * 1_000_000, due=2**42 + i)
    answer = site.api("jobs", queue=QUEUE, state="deferred")
    assert len(answer.body) < 50_000
    assert [job["task"] for job in answer.json["jobs"]] == ["mend"] * 50
    assert "1,000,0" in answer.json["jobs"][0]["arguments"]
    whole = site.api("job", queue=QUEUE, id="large-0").json
    assert whole["arguments"].startswith('"xxx')


def test_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arq_runtime.server.DEADLINE_S", 0.2)
    with served(App(f"redis://127.0.0.1:{free_port()}/0")) as site:
        answer = site.api("queues")
        assert answer.status == 503
        assert "Redis fails, see ARQ_REDIS_URL: " in answer.body.decode()
