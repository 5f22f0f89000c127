"""The project's app: its jobs page, and what a client is told without Redis."""

import main
from core import arq
from core.arq_runtime import server
from core.arq_runtime.client import sender
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from httpx import Response
from pydantic import SecretStr
from settings import settings

PASSWORD = "correct horse battery"
PATHS = [
    *("/arq", "/arq/", "/arq/page.js", "/arq/page.css", "/arq/nothing", "/arq/api"),
    *("/arq/api/queues", "/arq/api/jobs?queue=q&state=failed", "/arq/api/nonsense"),
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]
#: Each with each: tests/runtime/test_page.py.
CALLS = [*(("GET", path) for path in PATHS), *((method, "/arq/") for method in METHODS)]


def client(password: str) -> TestClient:
    """Of the app, as it is with this password."""
    settings.arq_page_password = SecretStr(password) if password else None
    app = main.create_app()

    @app.post("/enqueue")
    async def enqueue() -> None:
        await arq.enqueue("process_webhook", payload={"a": "secret"})

    return TestClient(app, follow_redirects=False)


def same(answer: Response) -> tuple[object, ...]:
    passing = ("date", "x-request-id", "x-process-time")
    rest = {name: v for name, v in answer.headers.items() if name not in passing}
    return answer.status_code, rest, answer.content


closed = client("")
for method, path in CALLS:
    nowhere = same(closed.request(method, "/nowhere"))
    assert nowhere[0] == 404
    for auth in (None, ("me", PASSWORD)):
        answer = same(closed.request(method, path, auth=auth))
        assert answer == nowhere, (method, path, answer, nowhere)

opened = client(PASSWORD)
for method, path in CALLS:
    assert opened.request(method, path).status_code == 401, (method, path)
page = opened.get("/arq/", auth=("me", PASSWORD))
assert page.status_code == 200 and "<title>Jobs</title>" in page.text
for name in ("page.js", "page.css"):
    assert opened.get(f"/arq/{name}", auth=("me", PASSWORD)).status_code == 200


# --- Who else is let in, and what is shown
def is_admin(x_admin: str = Header("")) -> None:
    if x_admin != "yes":
        raise HTTPException(404)


assert opened.post("/enqueue").status_code == 200
settings.arq_log_arguments = False
app = FastAPI()
app.include_router(arq.jobs_page(dependencies=[Depends(is_admin)]))
guarded = TestClient(app)
url = f"/arq/api/jobs?queue={settings.arq_queue_name}&state=queued"
assert guarded.get(url).status_code == 404
answer = guarded.get(url, headers={"X-Admin": "yes", "X-Arq-Page": "1"})
assert "process_webhook" in answer.text and "secret" not in answer.text
assert "hidden" in answer.text

# --- Nothing listens there
arq.queues.default.server.redis_settings.port = 1
server.DEADLINE_S = sender.DEADLINE_S = 0.2
answer = opened.post("/enqueue")
assert answer.status_code == 503, answer.text
assert "The task queue is not available" in answer.text
assert settings.arq_redis_url not in answer.text
headers = {"X-Arq-Page": "1"}
answer = opened.get("/arq/api/queues", auth=("me", PASSWORD), headers=headers)
assert answer.status_code == 503, answer.text
assert "Redis fails, see ARQ_REDIS_URL: " in answer.text
