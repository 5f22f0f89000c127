"""`copier update` from one tagged version to the next, after edits of the user."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from preflight import answer_problem
from seams.pyproject import DEPENDENCY
from support import QUEUE, TEMPLATE, Shop, copier, edit, git, release, run

pytestmark = pytest.mark.slow

NEW_LINE, MY_LINE = "# what a later version says", "# the queue as I like it"
COMPOSE = "docker-compose.override.yml"


@pytest.fixture
def versions(template: Path, tmp_path: Path) -> Path:
    """A template of the test's own, at v1.0.0."""
    return Path(shutil.copytree(template, tmp_path / "template"))


@pytest.fixture
def shop1(own_shop_with_queue: Shop, versions: Path) -> Shop:
    """A project with the queue of that template."""
    return take_template(own_shop_with_queue, versions)


def take_template(shop: Shop, versions: Path) -> Shop:
    """Have a project's queue be from a copy of its template."""
    shop.edit(".copier-answers.yml", str(shop.template), str(versions))
    shop.template = versions
    shop.commit()
    return shop


def put_first(path: Path, line: str) -> None:
    path.write_text(f"{line}\n{path.read_text()}")


def put_last(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


def release_v2(template: Path, *names: str) -> None:
    """Release v2.0.0, with another line at the head of arq.py, or of these files."""
    for name in names or ("arq.py",):
        put_first(template / "template/{{ package }}" / f"{name}.jinja", NEW_LINE)
    release(template, "v2.0.0")


def changed(shop: Shop) -> list[str]:
    """The files that the update has changed, the answers aside."""
    lines = shop.git("status", "--porcelain", "-uall").splitlines()
    return sorted(line[3:] for line in lines if "copier-answers" not in line)


# --- The user's edits ---------------------------------------------------------------


@pytest.fixture(scope="module")
def edited(shop_with_queue: Shop, template: Path, shared: Path) -> Shop:
    """A project that was edited and then updated. Not to be changed."""

    def make(shop: Shop) -> None:
        versions = shutil.copytree(template, shop.root.with_name("template"))
        (shop / "core/tasks.py").write_text("# all my own\n")
        shop.edit("settings.py", "port: int = 8000", "port: int = 9\n    mine: int = 1")
        shop.edit(".env.example", "DEBUG=false", "DEBUG=true\nMINE=1")
        shop.edit("main.py", "# Startup\n", "# Startup, mine\n")
        shop.edit("main.py", "    await close_pool()\n", "")
        shop.edit("pyproject.toml", f'    "{DEPENDENCY}",\n', "")
        shop.edit(COMPOSE, "interval: 5s", "interval: 7s")
        put_last(shop / "core/arq.py", MY_LINE)
        put_first(shop / "core/arq_worker.py", MY_LINE)
        for name in ("settings.py", "core/arq_settings.py"):
            put_last(shop / name, MY_LINE)
            mine = (shop / name).read_bytes().replace(b"\n", b"\r\n")
            (shop / name).write_bytes(mine)
        take_template(shop, versions)
        [path] = (versions / "template").glob("*worker_file*")
        edit(path, "45s", "50s")
        release_v2(versions, "arq.py", "arq_worker.py", "arq_settings.py", "tasks.py")
        shop.root.with_name("output").write_text(shop.update())

    return shop_with_queue.made_once(shared / "edited", make)


def test_the_users_edits_are_kept(edited: Shop) -> None:
    """Those in files of their own, and those elsewhere in the template's files."""
    assert changed(edited) == [
        *("core/arq.py", "core/arq_settings.py", "core/arq_worker.py", COMPOSE)
    ]
    before = edited.git("show", "HEAD:core/arq.py")
    assert before.endswith(f"{MY_LINE}\n")
    assert (edited / "core/arq.py").read_text() == f"{NEW_LINE}\n{before}"
    before = edited.git("show", f"HEAD:{COMPOSE}")
    assert "interval: 7s" in before
    assert (edited / COMPOSE).read_text() == before.replace("45s", "50s")


def test_an_edit_of_the_same_line_is_a_normal_conflict(edited: Shop) -> None:
    text = (edited / "core/arq_worker.py").read_text()
    assert MY_LINE in text and NEW_LINE in text
    assert text.count("<<<<<<<") == text.count(">>>>>>>") == 1
    unmerged = edited.git("diff", "--name-only", "--diff-filter=U").split()
    assert "core/arq_worker.py" in unmerged and "core/arq.py" not in unmerged
    output = edited.root.with_name("output").read_text()
    assert "core/arq_worker.py. Edit what is between the markers" in output


def test_other_line_endings_lose_nothing(edited: Shop) -> None:
    text = (edited / "core/arq_settings.py").read_text()
    assert MY_LINE in text and NEW_LINE in text


def test_seams_removed_on_purpose_are_reported_not_inserted(edited: Shop) -> None:
    output = edited.root.with_name("output").read_text()
    assert "missing, or too many, in main.py, pyproject.toml" in output
    assert "await close_pool()" not in (edited / "main.py").read_text()


def test_the_package_is_moved(shop1: Shop) -> None:
    names = {path.name for path in (shop1 / "core").glob("arq*.py")}
    put_last(shop1 / "core/arq.py", MY_LINE)
    shop1.commit()
    output = shop1.update("--data", "package=services")
    assert not list((shop1 / "core").glob("arq*.py"))
    assert {path.name for path in (shop1 / "services").glob("arq*.py")} == names
    assert (shop1 / "core/tasks.py").exists()
    assert "git mv core/tasks.py services/tasks.py" in output
    assert "settings.py: it imports ArqSettings from core" in output
    assert "main.py: it imports close_pool from core.arq" in output
    assert "core/arq.py is gone, and with it what you had changed there" in output
    assert "core/arq_worker.py is gone" not in output


def test_an_update_says_what_is_new(shop1: Shop, versions: Path) -> None:
    assert "Nothing is new: the queue is at v1.0.0 already.\n" in shop1.update()
    release_v2(versions)
    output = shop1.update()
    assert "Changed, now at v2.0.0: .copier-answers.yml, core/arq*. See" in output
    assert "Conflicts" not in output


def test_a_dirty_tree_is_refused(shop1: Shop, versions: Path) -> None:
    release_v2(versions)
    shop1.edit("main.py", "# Startup\n", "# Startup, mine\n")
    done = copier(*("update", "--trust", "--defaults"), cwd=shop1.root, check=False)
    assert done.returncode != 0
    assert "Destination repository is dirty" in done.stderr.replace("\n", " ")
    assert changed(shop1) == ["main.py"]


def test_a_project_in_a_monorepo(shop1: Shop, versions: Path, tmp_path: Path) -> None:
    mono = tmp_path / "mono"
    (mono / "apps").mkdir(parents=True)
    run(["rm", "-rf", shop1 / ".git"])
    shop1.root = shop1.root.rename(mono / "apps/shop")
    put_last(shop1 / "core/arq.py", MY_LINE)
    mine = (shop1 / "core/arq.py").read_text()
    git(mono, "init", "-q")
    shop1.commit()
    release_v2(versions)
    shop1.update()
    assert (shop1 / "core/arq.py").read_text() == f"{NEW_LINE}\n{mine}"
    assert changed(shop1) == ["apps/shop/core/arq.py"]


def test_beside_a_second_template(shop: Shop, versions: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "template").mkdir(parents=True)
    (other / "copier.yml").write_text("_subdirectory: template\nname:\n  default: x\n")
    answers = "template/{{ _copier_conf.answers_file }}.jinja"
    (other / answers).write_text("{{ _copier_answers|to_nice_yaml }}")
    (other / "template/other.txt.jinja").write_text("{{ name }}\n")
    git(other, "init", "-q")
    release(other, "v1.0.0")
    copier("copy", "--defaults", other, ".", cwd=shop.root)
    shop.commit()
    shop.template = versions
    mine = ["-a", ".copier-answers.arq.yml"]
    shop.copy(*mine)
    release_v2(versions)
    (other / "template/other.txt.jinja").write_text("{{ name }} 2\n")
    release(other, "v2.0.0")
    shop.update(*mine)
    assert changed(shop) == ["core/arq.py"]
    shop.commit()
    shop.update()
    assert changed(shop) == ["other.txt"]


# --- Nothing is lost ------------------------------------------------------------------


def refused(shop: Shop, *arguments: str, command: str = "update") -> str:
    """What a refused update prints: one line, and nothing has changed."""
    before = shop.git("status", "--porcelain", "--ignored", "-uall")
    done = copier(
        *(command, "--trust", "--defaults", *arguments), cwd=shop.root, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert shop.git("status", "--porcelain", "--ignored", "-uall") == before
    return done.stderr


@pytest.fixture
def ignoring(
    bootstrapped_shop: Shop, shared: Path, versions: Path, tmp_path: Path
) -> Shop:
    """A project whose .gitignore has our Compose file."""

    def copy(shop: Shop) -> None:
        with (shop / ".gitignore").open("a") as file:
            file.write("\ndocker-compose.override.yml\n")
        shop.commit()
        assert "git add -f docker-compose.override.yml" in shop.copy()

    made = bootstrapped_shop.made_once(shared / "ignoring", copy)
    return take_template(made.copy_to(tmp_path / "shop"), versions)


def test_an_ignored_file_is_neither_overwritten_nor_deleted(
    ignoring: Shop, versions: Path
) -> None:
    mine = edit(ignoring / COMPOSE, "interval: 5s", "interval: 7s")
    [path] = (versions / "template").glob("*worker_file*")
    edit(path, "45s", "50s")
    release(versions, "v2.0.0")
    without = ("-d", "include_compose_worker=false")
    for arguments in ((), without):
        assert f"git add -f {COMPOSE}" in refused(ignoring, *arguments)
    assert (ignoring / COMPOSE).read_text() == mine
    ignoring.git("add", "-f", COMPOSE)
    ignoring.commit()
    ignoring.update(*without)
    assert not (ignoring / COMPOSE).exists()


def test_an_ignored_file_that_is_the_same_is_no_reason_to_refuse(
    ignoring: Shop, versions: Path
) -> None:
    release_v2(versions)
    ignoring.update()
    assert changed(ignoring) == ["core/arq.py"]


def test_an_ignored_file_with_the_name_of_a_new_one(
    shop1: Shop, versions: Path
) -> None:
    (shop1 / ".git/info/exclude").write_text("core/arq_new.py\n")
    (shop1 / "core/arq_new.py").write_text("# mine\n")
    (versions / "template/{{ package }}/arq_new.py.jinja").write_text("# theirs\n")
    release(versions, "v2.0.0")
    assert "git add -f core/arq_new.py" in refused(shop1)
    assert (shop1 / "core/arq_new.py").read_text() == "# mine\n"


def test_what_the_user_has_moved_stays_where_it_is(shop1: Shop, versions: Path) -> None:
    """An update of what is no Paxx project any more only reports what is missing."""
    (shop1 / "app").mkdir()
    shop1.git("mv", "main.py", "app/main.py")
    (shop1 / "core/tasks").mkdir()
    shop1.git("mv", "core/tasks.py", "core/tasks/__init__.py")
    edit(shop1 / "settings.py", "class Settings(", "class Config(")
    edit(shop1 / "settings.py", "Settings()", "Config()")
    shop1.commit()
    release_v2(versions, "arq.py", "tasks.py")
    output = shop1.update()
    assert changed(shop1) == ["core/arq.py"]
    assert not (shop1 / "core/tasks.py").exists()
    assert "main.py: No such file or directory. Add by hand" in output
    assert "settings.py: " not in output  # Config inherits ArqSettings, too


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("redis_db", "many"), ("redis_db", [1]), ("max_jobs", float("inf"))),
        *(("metrics", "perhaps"), ("package", "../x"), ("project_name", "$(id)")),
        *(("queue_name", None), ("worker_classes", 5), ("worker_file", "../x.yml")),
    ],
)
def test_no_answer_is_taken_that_cannot_be_one(name: str, value: object) -> None:
    """Wherever it comes from: an answers file can be spoilt, see below."""
    assert answer_problem(name, value)


def test_a_spoilt_answers_file(shop1: Shop, versions: Path) -> None:
    release_v2(versions)
    answers = (shop1 / ".copier-answers.yml").read_text()
    for name, line, said in (
        ("project_name", "project_name: $(id)\n", "project_name: '$(id)' is not valid"),
        ("queue_name", "queue_name: null\n", "queue_name: None is not valid"),
        ("job_timeout", "", "belongs to another template"),
    ):
        spoilt = re.sub(f"(?m)^{name}: .*\n", lambda _: line, answers)  # noqa: B023
        (shop1 / ".copier-answers.yml").write_text(spoilt)
        shop1.commit()
        assert said in refused(shop1).replace("\n", " ")


def test_leaving_is_no_update(shop1: Shop) -> None:
    assert "mode=remove: it is for" in refused(shop1, "-d", "mode=remove")


def test_the_seams_alone_are_not_added_where_there_is_no_queue(shop: Shop) -> None:
    done = copier(
        *("copy", "--trust", "--defaults", "-d", "mode=wire", shop.template, "."),
        cwd=shop.root,
        check=False,
    )
    assert done.returncode != 0
    assert "mode=wire: there is no .copier-answers.yml here" in done.stderr


def test_a_preview_changes_nothing(shop: Shop) -> None:
    page = (TEMPLATE / "docs/updating.md").read_text()
    [command] = re.findall(r"```bash\nuvx --with \S+ (.*mode=diff.*)\n```", page)
    words = command.replace("gh:org/paxx-arq", str(shop.template)).split()
    done = copier(*words[1:], cwd=shop.root)
    assert shop.git("status", "--porcelain") == ""
    assert "And these files: " in done.stderr and "core/arq_worker.py" in done.stderr
    (shop / "queue.diff").write_text(done.stdout)
    assert ".env changes, too; it is not shown" in done.stderr
    shop.git("apply", "queue.diff")
    assert "ARQ_REDIS_URL=" in (shop / ".env.example").read_text()
    assert (
        "class Settings(ArqSettings, BaseSettings):"
        in (shop / "settings.py").read_text()
    )
    main = (shop / "main.py").read_text()
    assert "await close_pool()" in main and "jobs_page()" in main


def test_a_preview_may_be_cut_short(shop: Shop) -> None:
    copy = f"copier copy --trust --defaults -d mode=diff {shop.template} ."
    command = f"set -o pipefail; {copy} | head -n 3"
    done = run(["bash", "-c", command], cwd=shop.root, check=False)
    assert done.stdout.splitlines()[1:] == ["--- a/settings.py", "+++ b/settings.py"]
    assert "And these files: " in done.stderr
    assert "BrokenPipe" not in done.stderr and "Traceback" not in done.stderr


# --- Answers ------------------------------------------------------------------------


def test_answers_change_what_depends_on_them(shop1: Shop) -> None:
    shop1.update("-d", "max_jobs=50", "-d", "include_compose_worker=false")
    assert changed(shop1) == ["core/arq_settings.py", COMPOSE]
    assert not (shop1 / COMPOSE).exists()
    diff = shop1.git("diff", "-U0", "core/arq_settings.py")
    assert "-        default=10," in diff and "+        default=50," in diff
    assert diff.count("\n+") == 2  # the header and the line


def test_a_changed_answer_reaches_every_place_or_is_named(
    deployed: Shop, tmp_path: Path
) -> None:
    shop = deployed.copy_to(tmp_path / "shop")
    output = shop.update(
        "-d", "redis_db=4", "-d", "queue_name=mine", "-d", "max_jobs=9"
    )
    assert changed(shop) == [
        "core/arq_settings.py",
        "deploy/linux-server/deploy-worker.sh",
        "docker-compose.override.yml",
    ]
    left = shop.git("grep", "-nE", '6379/1$|6379/1"|arq:queue:shop', "--", ".")
    assert {line.partition(":")[0] for line in left.splitlines()} == {".env.example"}
    for name in (".env", ".env.example"):
        assert (
            f"""\
{name} says something else than the answers:

    -ARQ_REDIS_URL=redis://localhost:${{ARQ_REDIS_PORT:-6379}}/1
    +ARQ_REDIS_URL=redis://localhost:${{ARQ_REDIS_PORT:-6379}}/4
    -# ARQ_QUEUE_NAME=arq:queue:shop
    +# ARQ_QUEUE_NAME=mine
    -# ARQ_MAX_JOBS=10
    +# ARQ_MAX_JOBS=9
"""
            in output
        )
        text = (shop / name).read_text().replace("arq:queue:shop", "mine")
        text = text.replace("-6379}/1", "-6379}/4").replace("MAX_JOBS=10", "MAX_JOBS=9")
        (shop / name).write_text(text)
    answers = {"redis_db": 4, "queue_name": "mine", "max_jobs": 9}
    assert "something else" not in shop.wire("check", **answers).stderr


def test_a_redis_elsewhere_is_no_other_answer(own_shop_with_queue: Shop) -> None:
    shop = own_shop_with_queue
    assert "something else" in shop.wire("check", redis_db=2).stderr
    line = "ARQ_REDIS_URL=redis://localhost:${ARQ_REDIS_PORT:-6379}/1"
    shop.edit(".env", line, "ARQ_REDIS_URL=redis://queue.internal:6379/9")
    shop.edit(".env.example", line, "ARQ_REDIS_URL=redis://localhost:7000/1")
    output = shop.wire("check", queue_name=QUEUE).stderr
    assert "something else" not in output


def test_a_compose_file_that_came_later(shop: Shop, versions: Path) -> None:
    compose = (shop / "docker-compose.yml").read_text()
    (shop / "docker-compose.yml").unlink()
    shop.commit()
    shop.template = versions
    shop.copy()
    (shop / "docker-compose.yml").write_text(compose)
    shop.commit()
    shop.update("-d", "include_compose_worker=true")
    assert changed(shop) == ["compose.worker.yml"]
    assert "file: docker-compose.yml" in (shop / "compose.worker.yml").read_text()


# --- Migrations ---------------------------------------------------------------------


def test_a_migration_adds_a_seam_that_came_with_a_later_version(
    shop1: Shop, versions: Path
) -> None:
    """The example in CONTRIBUTING.md, step by step: a `worker` target in the Makefile."""
    contributing = (TEMPLATE / "CONTRIBUTING.md").read_text()
    [module] = re.findall(r'```python\n("""Makefile.*?)```', contributing, re.S)
    [entry] = re.findall(r"```python\n( +makefile[^`]*)```", contributing)
    (versions / "extensions/seams/makefile.py").write_text(module)
    edit(versions / "extensions/wire.py", "SEAMS = (\n", f"SEAMS = (\n{entry}")
    edit(
        versions / "extensions/wire.py",
        "    lifespan,\n",
        "    lifespan,\n    makefile,\n",
    )
    release(versions, "v1.1.0")
    output = shop1.update()
    assert "wired  Makefile" in output
    assert changed(shop1) == ["Makefile"]
    assert "uv run arq core.tasks.WorkerSettings" in (shop1 / "Makefile").read_text()
    shop1.commit()
    shop1.edit("Makefile", "worker:", "my-worker:")
    shop1.commit()
    release(versions, "v1.2.0")
    output = shop1.update()
    assert "missing, or too many, in Makefile" in output
    assert changed(shop1) == []


# --- Copier's other commands --------------------------------------------------------


def test_recopy(shop1: Shop) -> None:
    (shop1 / "core/tasks.py").write_text("# mine\n")
    put_last(shop1 / "core/arq.py", MY_LINE)
    shop1.commit()
    recopy = ("recopy", "--trust", "--defaults", "--overwrite")
    copier(*recopy, cwd=shop1.root)
    assert changed(shop1) == ["core/arq.py"]
    assert MY_LINE not in (shop1 / "core/arq.py").read_text()


def test_check_update(shop1: Shop, versions: Path) -> None:
    check = ("check-update", "--quiet")
    assert copier(*check, cwd=shop1.root).returncode == 0
    release_v2(versions)
    assert copier(*check, cwd=shop1.root, check=False).returncode == 2


def test_the_workflow_of_the_docs(shop1: Shop, versions: Path, tmp_path: Path) -> None:
    """It pushes the update, and opens a pull request, once there is a newer version."""
    page = (TEMPLATE / "docs/updating.md").read_text()
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    [step] = [
        it for it in yaml.safe_load(text)["jobs"]["update"]["steps"] if "run" in it
    ]
    stubs, asked = tmp_path / "stubs", tmp_path / "asked"
    stubs.mkdir()
    uvx = '#!/bin/sh\n[ "$1" = --with ] && shift 2\nexec "$@"\n'
    for name, stub in (("uvx", uvx), ("gh", f'#!/bin/sh\necho "$@" >> {asked}\n')):
        (stubs / name).write_text(stub)
        (stubs / name).chmod(0o755)
    origin = tmp_path / "origin.git"
    git(tmp_path, "init", "-q", "--bare", str(origin))
    shop1.git("remote", "add", "origin", str(origin))
    command = ["bash", "-e", "-c", step["run"]]
    env = {"PATH": f"{stubs}:{os.environ['PATH']}"}
    run(command, cwd=shop1.root, env=env)
    assert git(origin, "branch") == ""
    release_v2(versions)
    run(command, cwd=shop1.root, env=env)
    assert NEW_LINE in git(origin, "show", "queue-template:core/arq.py")
    assert asked.read_text() == "pr create --fill --head queue-template\n"


def test_a_copy_that_is_pretended_changes_nothing(shop: Shop) -> None:
    shop.copy("--pretend", commit=False)
    assert shop.git("status", "--porcelain") == ""


def test_an_update_that_is_pretended_changes_nothing(
    shop1: Shop, versions: Path
) -> None:
    release_v2(versions)
    shop1.update("--pretend")
    assert shop1.git("status", "--porcelain") == ""


def test_quiet(shop: Shop, versions: Path) -> None:
    """Two versions later, files that nobody has touched have no conflict."""
    shop.template = versions
    assert shop.copy("--quiet").strip() == (
        "wired  settings.py, main.py, pyproject.toml, .env.example, .env (not in git)"
    )
    release_v2(versions)
    third = NEW_LINE.replace("later", "third")
    edit(versions / "template/{{ package }}/arq.py.jinja", NEW_LINE, third)
    release(versions, "v3.0.0")
    assert shop.update("--quiet").strip() == ""
    assert changed(shop) == ["core/arq.py"]
    diff = shop.git("diff", "-U0", "core/arq.py").splitlines()
    assert diff[-1] == f"+{third}" and diff[-2].startswith("@@")


def test_the_head_of_the_template(shop1: Shop, versions: Path) -> None:
    put_first(versions / "template/{{ package }}/arq.py.jinja", NEW_LINE)
    git(versions, "commit", "-qam", "not released")
    copier("check-update", "--quiet", cwd=shop1.root)
    shop1.update("--vcs-ref", "HEAD")
    assert changed(shop1) == ["core/arq.py"]
