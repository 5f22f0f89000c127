"""A project that ran `paxx ext add arq` comes over, and any project can leave."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import leaving
import pytest
import redis
import seams
import wire
from hypothesis import given, settings
from hypothesis import strategies as st
from preflight import RULES
from support import TEMPLATE, Shop, copier, run, wait_for


@pytest.fixture
def old(paxx_shop: Callable[..., Shop]) -> Shop:
    return paxx_shop("infra add redis", "ext add arq")


@pytest.mark.slow
def test_what_is_there_is_not_overwritten_unasked(old: Shop) -> None:
    done = copier(
        *("copy", "--trust", "--defaults", old.template, "."),
        cwd=old.root,
        check=False,
    )
    assert done.returncode != 0
    assert "services/arq.py is there already: add --overwrite" in done.stderr
    assert "Traceback" not in done.stderr
    assert old.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_adoption(old: Shop, redis_url: str) -> None:
    tasks = (old / "services/tasks.py").read_text()
    output = old.copy("--overwrite", commit=False)

    assert "there is a task queue in services/ already" in output
    assert "class WorkerSettings(BaseWorkerSettings):" in output
    assert "copier update --trust --defaults --data serializer=json" in output
    assert (old / "services/tasks.py").read_text() == tasks
    settings = (old / "settings.py").read_text()
    assert "arq_" not in settings.replace("services.arq_settings", "")
    assert settings.count("# Infrastructure") == 1  # that of redis_url
    assert "arq>=0.26" not in (old / "pyproject.toml").read_text()
    assert (old / ".env.example").read_text().count("ARQ_REDIS_URL") == 1
    old.commit()
    old.run("ruff", "check", "main.py", "services/arq.py", "services/arq_worker.py")

    # the old tasks.py, with the worker it always had
    code = "job = await enqueue('send_welcome_email', user_id=1)\n"
    with old.worker(redis_url):
        result = old.python(code + "result = await job.result(timeout=60)", redis_url)
        assert result["status"] == "sent"

    # the changes that were printed
    tasks = tasks.replace(
        "class WorkerSettings:", "class WorkerSettings(BaseWorkerSettings):"
    )
    tasks = tasks.replace(
        "from settings import settings\n",
        "from services.arq_worker import BaseWorkerSettings\n",
    )
    for name in (
        "redis_settings =",
        "max_jobs =",
        "job_timeout =",
        "from services.arq import get",
    ):
        tasks = re.sub(rf"    {name}.*\n", "", tasks)
    (old / "services/tasks.py").write_text(tasks)
    old.commit()
    output = old.update("--data", "serializer=json")
    assert "BaseWorkerSettings" not in output
    old.commit()
    with old.worker(redis_url), redis.Redis.from_url(redis_url) as client:
        job_id = old.python(code + "result = job.job_id", redis_url)
        wait_for(lambda: client.exists(f"arq:result:{job_id}"), 60)
        assert client.get(f"arq:result:{job_id}").startswith(b"{")


@pytest.mark.slow
def test_values_of_the_old_settings_become_the_answers(old: Shop) -> None:
    settings = (old / "settings.py").read_text()
    settings = settings.replace('arq_max_jobs: str = "10"', 'arq_max_jobs: str = "33"')
    settings = settings.replace("localhost:6379/1", "localhost:6379/5")
    (old / "settings.py").write_text(settings)
    old.commit()
    old.copy("--overwrite")
    assert "arq_max_jobs" not in (old / "settings.py").read_text()
    text = (old / "services/arq_settings.py").read_text()
    assert "default=33" in text and "redis://localhost:6379/5" in text


@pytest.mark.slow
def test_an_old_field_that_says_something_else_is_explained(old: Shop) -> None:
    settings = (old / "settings.py").read_text()
    settings = settings.replace("redis://localhost:6379/1", "redis://queue.internal/1")
    (old / "settings.py").write_text(settings)
    old.commit()
    output = old.copy("--overwrite")
    assert "settings.py: its field arq_redis_url hides" in output
    assert (old / "settings.py").read_text() == settings


@pytest.mark.slow
def test_the_old_fields_of_another_class_stay(old: Shop) -> None:
    text = (old / "settings.py").read_text()
    fields = re.findall(r"    arq_\w+: str = .*\n", text)
    other = f"class Other(BaseSettings):\n{''.join(fields)}\n\n"
    text = text.replace("class Settings(", f"{other}class Settings(")
    seam = next(it for it in wire.SEAMS if "settings.py" in it.files)
    edited = seam.add(text, seams.Options(old.root, "services"))
    assert len(fields) == 3 and other in edited
    assert edited.count("arq_max_jobs") == 1


@pytest.mark.slow
def test_paxx_ext_add_arq_on_ours(paxx_shop: Callable[..., Shop], paxx: Path) -> None:
    shop = paxx_shop("infra add redis")
    shop.copy()
    good = shop.git("rev-parse", "HEAD").strip()
    shop.paxx(paxx, "ext", "add", "arq")
    output = shop.update()
    assert "services/arq.py is not the template's any more" in output
    assert "missing, or too many, in settings.py" in output
    copier("recopy", "--trust", "--defaults", "--overwrite", cwd=shop.root)
    assert shop.git("diff", "--name-only", good).split() == ["services/tasks.py"]


def leaving_command(mode: str = "remove") -> list[str]:
    """The command of docs/updating.md, without the download of Copier."""
    page = (TEMPLATE / "docs/updating.md").read_text().split("## Removing")[1]
    [command] = re.findall(r"```bash\nuvx --with \S+ (.*)\n```", page)
    words: list[str] = command.replace("mode=remove", f"mode={mode}").split()
    return words


def leave(shop: Shop, mode: str = "remove") -> str:
    return copier(*leaving_command(mode)[1:], cwd=shop.root, check=False).stderr


KINDS = {
    "plain": [],
    "cache": ["infra add redis", "infra add metrics"],
    "deployed": ["deploy add linux-server"],
    "all of Paxx": ["infra add redis", "infra add metrics", "deploy add linux-server"],
}


@pytest.mark.parametrize(
    ("kind", "answers", "changed"),
    [
        ("plain", [], []),
        (
            "plain",
            ["package=services", "include_compose_worker=no", "include_jobs_page=no"],
            ["include_compose_worker=yes", "redis_db=0", "serializer=pickle"],
        ),
        (
            "cache",
            ["redis_db=4", "max_jobs=7", "include_cron_examples=no"],
            [],
        ),
        ("deployed", ["include_jobs_page=no", "package=core"], []),
        (
            "all of Paxx",
            ["job_timeout=9"],
            ["include_compose_worker=no", "max_jobs=1", "queue_name=mine"],
        ),
    ],
    ids=["defaults", "more", "other numbers", "deployed", "all of Paxx"],
)
@pytest.mark.slow
def test_leaving_gives_back_the_project_as_it_was(
    paxx_shop: Callable[..., Shop], kind: str, answers: list[str], changed: list[str]
) -> None:
    """Also when an update has changed the answers since."""
    shop = paxx_shop(*KINDS[kind])
    before = shop.git("rev-parse", "HEAD").strip()
    environment = (shop / ".env").read_bytes()
    shop.copy(*(part for answer in answers for part in ("-d", answer)))
    if changed:
        shop.update(*(part for answer in changed for part in ("-d", answer)))
        shop.commit()
    assert "Kept" not in leave(shop)
    shop.git("add", "-A")
    assert shop.git("diff", "--cached", before) == ""
    assert (shop / ".env").read_bytes() == environment


@pytest.fixture(scope="module")
def kinds(with_paxx: Callable[..., Shop]) -> dict[str, Path]:
    """A project of each kind. Not to be changed."""
    return {kind: with_paxx(*commands).root for kind, commands in KINDS.items()}


ANSWERS = st.fixed_dictionaries(
    {
        "redis_db": st.integers(0, 15),
        "max_jobs": st.integers(1),
        "job_timeout": st.integers(1),
        "queue_name": st.from_regex(
            re.compile(RULES["queue_name"][0], re.ASCII), fullmatch=True
        ),
        "serializer": st.sampled_from(["json", "pickle"]),
        "jobs_page": st.booleans(),
        "metrics": st.booleans(),
    }
)


@pytest.mark.slow
@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    package=st.sampled_from(["core", "services"]),
    answers=ANSWERS,
    changed=ANSWERS,
)
def test_whatever_the_answers_each_line_is_taken_out_again(
    kinds: dict[str, Path],
    kind: str,
    package: str,
    answers: dict[str, Any],
    changed: dict[str, Any],
) -> None:
    root = kinds[kind]
    then = seams.Options(root, package, **answers)
    now = seams.Options(root, package, **changed)
    places = [
        (seam, name)
        for seam in wire.SEAMS
        for name in seam.files
        if (root / name).is_file()
    ]
    before = {name: (root / name).read_bytes() for _, name in places}
    files = dict(before)
    for seam, name in places:
        if seam.wanted(then):
            files[name] = wire.edited(files[name], seam, then, mode="write")
    assert all(files[name] != before[name] for name in files)
    for seam, name in reversed(places):
        files[name] = wire.edited(files[name], seam, now, mode="remove")
    assert files == before


@pytest.mark.slow
def test_leaving_keeps_what_the_user_has_changed(own_shop_with_queue: Shop) -> None:
    shop = own_shop_with_queue
    for name in ("core/tasks.py", "core/arq.py"):
        with (shop / name).open("a") as file:
            file.write("# mine\n")
    (shop / "features/mail.py").write_text("from core.arq import enqueue\n")
    (shop / "features/old.py").write_text("import services.tasks\n")  # moved since
    main = (shop / "main.py").read_text()
    main = main.replace("await close_pool()", "await close_pool(); print()")
    (shop / "main.py").write_text(main)
    output = leave(shop)
    assert "There are changes: commit or stash them, then take" in output
    assert "is taken out" not in output
    assert (shop / "core/arq_worker.py").exists()
    shop.commit()
    output = leave(shop)
    assert "Kept, since you have changed it: core/arq.py, core/tasks.py" in output
    assert "The task queue is taken out. `git reset --hard` puts it back" in output
    assert "main.py: it uses close_pool in a way of its own" in output
    assert "features/mail.py:1:from core.arq import enqueue" in output
    assert "features/old.py:1:import services.tasks" in output
    assert not (shop / "core/arq_worker.py").exists()
    assert not (shop / "core/arq_static").exists()
    shop.git("reset", "-q", "--hard")
    assert "deleted  core/tasks.py" in leave(shop, "remove-all")
    assert "There is no .copier-answers.yml here" in leave_again(shop)


def leave_again(shop: Shop) -> str:
    shop.commit()
    done = copier(
        *("copy", "--trust", "--defaults", "-d", "mode=remove", shop.template, "."),
        cwd=shop.root,
        check=False,
    )
    assert done.returncode != 0
    assert "Running task" not in done.stderr
    return done.stderr


def test_nothing_is_taken_out_where_git_could_not_give_it_back(
    own_shop_with_queue: Shop,
) -> None:
    run(["rm", "-rf", ".git"], cwd=own_shop_with_queue.root)
    assert "This directory is not in git, which would keep" in leave(
        own_shop_with_queue
    )
    assert (own_shop_with_queue / "core/arq.py").exists()


@pytest.mark.slow
def test_nothing_is_taken_out_where_git_does_not_say_what_is_the_queues(
    shop: Shop,
) -> None:
    shop.copy("-d", "package=services")
    run(["rm", "-rf", ".git"], cwd=shop.root)
    shop.git("init", "-q")
    shop.write(".git/info/exclude", "*\n")
    before = (shop / "settings.py").read_text()
    assert "The queue was left as it is: git log fails" in leave(shop)
    assert (shop / "settings.py").read_text() == before


@pytest.mark.slow
def test_an_empty_file_that_was_there_before_is_kept(shop: Shop) -> None:
    (shop / "services").mkdir()
    (shop / "services/__init__.py").touch()
    shop.commit()
    before = shop.git("rev-parse", "HEAD").strip()
    shop.copy()
    run(leaving_command(), cwd=shop.root)
    shop.git("add", "-A")
    assert shop.git("diff", "--cached", before) == ""


def test_what_cannot_be_deleted_is_named(tmp_path: Path) -> None:
    (tmp_path / "core/arq_static").mkdir(parents=True)
    (tmp_path / "core/arq.py").touch()
    names = ["core/arq_static", "core/arq.py"]
    not_deleted, deleted, *_ = leaving.leave(tmp_path, names, [])
    assert not_deleted.startswith("core/arq_static is still there: ")
    assert not_deleted.endswith(". Delete it by hand.")
    assert deleted == "    deleted  core/arq.py"
    assert (tmp_path / "core/arq_static").exists()
