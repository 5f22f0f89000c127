"""What is read from a project, without Copier."""

from pathlib import Path

import pytest
from paxx import Project


def project(root: Path, compose: str) -> Project:
    (root / "docker-compose.yml").write_text(compose)
    return Project(root)


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ("cache: {image: redis}", "cache"),
        ("cache: {image: 'redis:7-alpine'}", "cache"),
        ("cache: {image: 'registry.local:5000/library/redis@sha256:0'}", "cache"),
        ("cache: {image: 'bitnami/valkey:8'}", "cache"),
        ("cache: {image: '${REDIS_IMAGE:-redis:7}'}", "cache"),
        ("redis: {build: ./redis}", "redis"),
        ("ui: {image: 'redis/redisinsight:2'}", ""),
        ("ui: {image: 'rediscommander/redis-commander'}", ""),
        ("metrics: {image: 'oliver006/redis_exporter:v1'}", ""),
        (
            "metrics: {image: oliver006/redis_exporter}\n  cache: {image: redis}",
            "cache",
        ),
    ],
)
def test_the_redis_of_a_compose_file(tmp_path: Path, service: str, found: str) -> None:
    assert project(tmp_path, f"services:\n  {service}\n").redis_service == found


@pytest.mark.parametrize(
    ("service", "name"),
    [("app: {build: .}", "worker"), ("worker: {image: celery}", "arq-worker")],
)
def test_the_workers_service_takes_nobodys_name(
    tmp_path: Path, service: str, name: str
) -> None:
    assert project(tmp_path, f"services:\n  {service}\n").worker_service == name


@pytest.mark.parametrize(
    ("name", "wrong", "said", "right"),
    [
        ("compose_file", "", "there is docker-compose.yml", "other.yml"),
        ("redis_service", "", "there is redis", "cache"),
        ("redis_condition", "service_healthy", "no health", "service_started"),
    ],
)
def test_an_answer_that_the_project_speaks_against(
    tmp_path: Path, name: str, wrong: str, said: str, right: str
) -> None:
    shop = project(tmp_path, "services:\n  redis: {image: redis}\n")
    assert said in shop.outdated(name, wrong)
    assert shop.outdated(name, right) == ""


HIGH = "class High(WorkerSettings):\n    queue_name = 'high'\n\n\n"
MAIL = "class Mail(BaseWorkerSettings):\n    queue_name = 'mail'\n\n\n"
SEVERAL = 'class All(BaseMultiQueueSettings):\n    """Both."""\n\n    weights'


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ("", "WorkerSettings"),
        (HIGH + MAIL, "WorkerSettings,High,Mail"),
        (f"{HIGH}{SEVERAL} = {{High: 3, WorkerSettings: 1}}\n", "All"),
        (f"{HIGH}{MAIL}{SEVERAL} = {{\n        High: 3,\n    }}\n", "{}Mail,All"),
        (f"{HIGH}{SEVERAL}: Any = {{High: 3, WorkerSettings: 1}}\n{MAIL}", "All,Mail"),
        (f"{HIGH}class All(BaseMultiQueueSettings): ...\n", "{}High,All"),
    ],
)
def test_the_workers_of_the_tasks(tmp_path: Path, classes: str, found: str) -> None:
    """One that serves the queues of others takes their place."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core/tasks.py").write_text(
        f"class WorkerSettings(BaseWorkerSettings):\n    functions = []\n\n\n{classes}"
    )
    expected = found.replace("{}", "WorkerSettings,")
    assert Project(tmp_path).worker_classes == expected
