"""What lies in a project runs no command, and reaches nothing outside of it.

As the README recommends it: the template is trusted, and `--trust` is not given.
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from preflight import RULES, answer_problem
from support import ENV as ENVIRONMENT
from support import TEMPLATE, Shop, copier, edit, git, release

pytestmark = pytest.mark.slow

INJECTION = 'q"; touch pwned; echo "'
OPERATIONS = {
    "copy": ["copy", "--overwrite"],
    "recopy": ["recopy", "--overwrite"],
    "update": ["update"],
}


@pytest.fixture
def trusted(own_shop_with_queue: Shop, tmp_path: Path) -> dict[str, str]:
    """The environment of a user who trusts the template, and no other one."""
    settings = tmp_path / "settings.yml"
    settings.write_text(f"trust: ['{own_shop_with_queue.template}']\n")
    return {"COPIER_SETTINGS_PATH": str(settings)}


def call(shop: Shop, env: dict[str, str], *arguments: str) -> str:
    """What Copier prints when it refuses: one line, and nothing has changed."""
    before = shop.git("status", "--porcelain", "--ignored", "-uall")
    if arguments[0] == "copy":
        arguments = (*arguments, str(shop.template), ".")
    done = copier(*arguments, "--defaults", cwd=shop.root, env=env, check=False)
    assert done.returncode != 0, done.stderr
    assert "Traceback" not in done.stderr
    assert shop.git("status", "--porcelain", "--ignored", "-uall") == before
    return " ".join(done.stderr.split())


def answer(shop: Shop, name: str, value: object) -> None:
    """Commit an answers file that says this."""
    path = shop / ".copier-answers.yml"
    answers = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**answers, name: value}))
    shop.commit()


# --- Answers ------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_answer_runs_no_command(
    own_shop_with_queue: Shop, trusted: dict[str, str], operation: str
) -> None:
    shop = own_shop_with_queue
    answer(shop, "queue_name", INJECTION)
    output = call(shop, trusted, *OPERATIONS[operation])
    assert "queue_name: " in output and "is not valid" in output
    answer(shop, "queue_name", "arq:queue:shop")
    data = ["-d", f"queue_name={INJECTION}"]
    assert "queue_name: " in call(shop, trusted, *OPERATIONS[operation], *data)


def test_each_answer_has_a_rule_and_no_rule_takes_what_means_something_elsewhere() -> (
    None
):
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
    asked = {name for name in questions if not name.startswith("_")} - {"losses"}
    assert asked == set(RULES)
    hostile = [
        INJECTION,
        "$(id)",
        "`id`",
        "a b",
        "a\nb",
        "../x",
        "/etc/x",
        "-rf",
        "{{ x }}",
    ]
    hostile += [
        "a: b",
        "a #",
        "a,$(id)",
        "'",
        "\\",
        "é",
        "",
        "a\x1b[2J",
        ".git/hooks/x",
    ]
    hostile += [None, [], {}, 1.5, "\N{ARABIC-INDIC DIGIT ONE}", "1\n"]
    empty = {"compose_file", "redis_service"}  # there is none
    for name in asked:
        taken = [it for it in hostile if not answer_problem(name, it)]
        assert taken in ([], [""]) if name in empty else taken == [], name


def test_names_in_the_project_that_mean_something_elsewhere(
    make_shop: object, tmp_path: Path
) -> None:
    """Its directory, a service, a class, APP_NAME: read as if they were not there."""
    shop = make_shop('shop "$(touch pwned)"')  # type: ignore[operator]
    shop.edit("docker-compose.yml", "  app:", '  "$(touch pwned)":')
    shop.write("deploy/linux-server/deploy.sh", 'APP_NAME="$(touch pwned)"\n')
    shop.write(
        "core/tasks.py", "class Wörker(BaseWorkerSettings):\n    functions = []\n"
    )
    shop.commit()
    output = shop.copy()
    answers = (shop / ".copier-answers.yml").read_text()
    assert "$(" not in answers + output and "ö" not in answers
    assert not [*tmp_path.rglob("pwned")]


def test_a_directory_for_temporary_files_that_a_shell_would_not_understand(
    shop: Shop, tmp_path: Path
) -> None:
    odd = tmp_path / 'tmp "$HOME" `id`'
    odd.mkdir()
    done = copier(
        *("copy", "--trust", "--defaults", shop.template, "."),
        cwd=shop.root,
        env={"TMPDIR": str(odd)},
    )
    assert "wired  settings.py" in done.stderr


# --- Another template -----------------------------------------------------------------


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A template of a stranger's, which leaves a trace when it runs."""
    root = tmp_path / "strange"
    root.mkdir()
    trace = tmp_path / "pwned"
    (root / "copier.yml").write_text(
        f"_tasks: ['touch {trace}']\njob_timeout: 1\n"
        "_jinja_extensions:\n"
        "  - copier_template_extensions.TemplateExtensionLoader\n"
        "  - run.py:Run\n"
    )
    (root / "run.py").write_text(
        "from copier_template_extensions import ContextHook\n"
        f"open({str(trace)!r}, 'w')\n\n\n"
        "class Run(ContextHook):\n    def hook(self, context): ...\n"
    )
    git(root, "init", "-q", "-b", "main")
    release(root, "v1.0.0")
    return root


@pytest.mark.parametrize("mode", ["remove", "remove-all"])
def test_leaving_does_not_run_the_template_that_the_answers_file_names(
    own_shop_with_queue: Shop,
    trusted: dict[str, str],
    strange: Path,
    tmp_path: Path,
    mode: str,
) -> None:
    shop = own_shop_with_queue
    answer(shop, "_src_path", str(strange))
    done = copier(
        *("copy", "--defaults", "-d", f"mode={mode}", shop.template, "."),
        cwd=shop.root,
        env=trusted,
    )
    assert not (tmp_path / "pwned").exists()
    assert "The task queue is taken out" in done.stderr
    assert not (shop / "core/arq_worker.py").exists()


def test_a_version_that_no_branch_and_no_tag_of_the_template_has(
    own_shop_with_queue: Shop, tmp_path: Path
) -> None:
    """Such as that of a pull request, which anybody can open."""
    shop = own_shop_with_queue
    hub = tmp_path / "hub.git"
    git(tmp_path, "clone", "-q", "--bare", str(shop.template), str(hub))
    fork = tmp_path / "fork"
    git(tmp_path, "clone", "-q", str(hub), str(fork))
    edit(
        fork / "extensions/paxx.py",
        '"""What',
        f"open({str(tmp_path / 'pwned')!r}, 'w')\n'''",
    )
    git(fork, "commit", "-qam", "not reviewed")
    sha = git(fork, "rev-parse", "HEAD").strip()
    git(fork, "push", "-q", "origin", "HEAD:refs/pull/1/head")
    git(fork, "reset", "-q", "--hard", "v1.0.0")
    release(fork, "v2.0.0")
    git(fork, "push", "-q", "origin", "HEAD:main", "v2.0.0")
    url = f"file://{hub}"
    shop.edit(".copier-answers.yml", str(shop.template), url)
    answer(shop, "_commit", sha)
    shop.template = url  # type: ignore[assignment]
    settings = tmp_path / "settings.yml"
    settings.write_text(f"trust: ['{url}']\n")
    env = {
        "COPIER_SETTINGS_PATH": str(settings),
        "COPIER_CACHE_DIR": str(tmp_path / "mirrors"),
    }
    for arguments in (["update"], ["copy", "-d", "mode=remove"]):
        assert f"{sha}, which no branch and no tag" in call(shop, env, *arguments)
    assert not (tmp_path / "pwned").exists()


# --- What lies in the project -----------------------------------------------------------


def hostile(shop: Shop, traces: Path) -> None:
    """Put into a project all that a tool might run."""
    traces.mkdir(exist_ok=True)

    def trace(name: str) -> str:
        return f"open({str(traces / name)!r}, 'w').close()\n"

    (shop / ".venv/bin").mkdir(parents=True)
    (shop / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.1\n")
    for name in ("python", "python3", "uv", "git"):
        path = shop / ".venv/bin" / name
        path.write_text(f"#!/bin/sh\ntouch {traces}/venv-{name}\nexit 3\n")
        path.chmod(0o755)
    modules = ("queue", "operator", "types", "yaml", "copier", "libcst", "ast", "seams")
    for name in (*modules, "sitecustomize", "usercustomize", "rendered", "tomllib"):
        (shop / f"{name}.py").write_text(trace(name))
    for name in ("paxx", "preflight", "commands", "wire"):
        shop.write(f"extensions/{name}.py", trace(f"extensions-{name}"))
    (shop / "uv.toml").write_text('no such = "setting"\n')
    (shop / ".python-version").write_text("3.8\n")
    with (shop / "pyproject.toml").open("a") as file:
        file.write('\n[tool.uv]\nrequired-version = ">=999"\n')
    shop.write("conftest.py", trace("conftest"))
    (shop / ".gitattributes").write_text(
        "* filter=run diff=run merge=run text=auto\n.env export-ignore\n"
    )
    hooks = shop / ".hooks"
    hooks.mkdir()
    for name in ("pre-commit", "post-checkout", "post-index-change", "fsmonitor"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {traces}/hook-{name}\n")
        (hooks / name).chmod(0o755)
    (shop / "docker-compose.yaml").write_text(
        "services:\n  '$(touch pwned)':\n    build: .\n    image: `id`\n"
    )
    (shop / "core/tasks.py").write_text(
        "class Worker$(touch pwned)(BaseWorkerSettings): ...\n"
    )
    shop.commit()
    for name, value in {
        "core.hooksPath": ".hooks",
        "core.fsmonitor": ".hooks/fsmonitor",
    }.items():
        shop.git("config", name, value)


def test_a_hostile_project(
    own_shop_with_queue: Shop, trusted: dict[str, str], tmp_path: Path
) -> None:
    shop = own_shop_with_queue
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("TOKEN=1\n")
    hostile(shop, tmp_path / "traces")
    before = {path: path.read_bytes() for path in outside.iterdir()}
    for path in (tmp_path / "traces").iterdir():
        path.unlink()  # what the commit above has run
    env = {**trusted, "UV_ENV_FILE": ".env", "PYTHONPATH": ""}
    for arguments in (
        ["copy", "--overwrite", "-d", "mode=diff", str(shop.template), "."],
        ["copy", "--overwrite", str(shop.template), "."],
        ["recopy", "--overwrite"],
        ["recopy", "-d", "mode=remove"],
    ):
        shop.git("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "add", "-A")
        shop.git(
            *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor="),
            *("commit", "-qm", "all", "--allow-empty"),
        )
        for path in (tmp_path / "traces").iterdir():
            path.unlink()
        command = ["env", "copier", *arguments, "--defaults"]
        done = subprocess.run(
            command,
            cwd=shop.root,
            env={**os.environ, **ENVIRONMENT, **env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == []
        assert not [*tmp_path.rglob("pwned")], arguments
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


# --- Links ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("core", "core/arq.py", ".env", ".env.example", "settings.py", "main.py"),
        *("pyproject.toml", "docker-compose.yml", "deploy"),
    ],
)
def test_a_link_out_of_the_project(shop: Shop, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    path = shop / name
    if path.exists():
        path.rename(outside)
    elif name == "deploy":
        (outside / "linux-server").mkdir(parents=True)
        (outside / "linux-server/deploy.sh").touch()
    else:
        outside.touch()
    path.symlink_to(outside)
    shop.commit()
    before = contents(outside)
    for arguments in (["copy"], ["copy", "-d", "mode=diff"]):
        output = call(shop, {}, *arguments, "--trust")
        assert f"{name} is a link out of the project" in output
    assert contents(outside) == before


def contents(path: Path) -> dict[Path, bytes]:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return {file: file.read_bytes() for file in files if file.is_file()}


def test_a_link_that_came_later(own_shop_with_queue: Shop, tmp_path: Path) -> None:
    shop = own_shop_with_queue
    (shop / "core").rename(tmp_path / "outside")
    (shop / "core").symlink_to(tmp_path / "outside")
    shop.commit()
    before = contents(tmp_path / "outside")
    for arguments in (
        ["update"],
        ["recopy", "--overwrite"],
        ["recopy", "-d", "mode=remove-all"],
    ):
        output = call(shop, {}, *arguments, "--trust")
        assert "core is a link out of the project" in output
    assert contents(tmp_path / "outside") == before
