"""More of Paxx, and other habits of projects, than the queue was copied beside."""

from collections.abc import Callable
from pathlib import Path

import pytest
from seams.pyproject import DEPENDENCY
from support import Shop, copier

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(own_shop_with_queue: Shop) -> Shop:
    return own_shop_with_queue


def test_a_deployment_and_metrics_that_came_later(shop: Shop, paxx: Path) -> None:
    shop.paxx(paxx, "deploy", "add", "linux-server")
    shop.paxx(paxx, "infra", "add", "metrics")
    output = shop.update()
    assert (shop / "deploy/linux-server/deploy-worker.sh").is_file()
    assert "deploy.sh lacks the queue's lines" in output
    assert (shop / "core/arq_metrics.py").is_file()
    answers = (shop / ".copier-answers.yml").read_text()
    assert "linux_server: true" in answers and "metrics: true" in answers
    shop.commit()
    shop.update()
    assert shop.git("status", "--porcelain") == ""
    done = copier(
        *("update", "--trust", "--defaults", "-d", "metrics=false"),
        cwd=shop.root,
        check=False,
    )
    assert done.returncode and "Traceback" not in done.stderr
    assert "metrics: it cannot be no, the project has it." in done.stderr


def test_settings_without_their_object(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    text = (shop / "settings.py").read_text()
    (shop / "settings.py").write_text(text.replace("settings = get_settings()", ""))
    shop.commit()
    done = copier(
        *("copy", "--trust", "--defaults", shop.template, "."),
        cwd=shop.root,
        check=False,
    )
    assert done.returncode and "Traceback" not in done.stderr
    assert "settings.py has no `settings`" in done.stderr
    assert shop.git("status", "--porcelain") == ""


@pytest.mark.parametrize("requirement", ["arq>=0.25", "arq==0.27.1", "arq~=0.26.3"])
def test_an_arq_that_is_too_old(
    make_shop: Callable[..., Shop], requirement: str
) -> None:
    shop = make_shop()
    text = shop.edit(
        "pyproject.toml", "dependencies = [", f'dependencies = [\n    "{requirement}",'
    )
    shop.commit()
    output = shop.copy()
    assert f"asks for {requirement}, and the queue needs more" in output
    assert f'uv add "{DEPENDENCY}"' in output
    assert (shop / "pyproject.toml").read_text() == text


def test_an_arq_that_is_new_enough(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    shop.edit(
        "pyproject.toml", "dependencies = [", f'dependencies = [\n    "{DEPENDENCY}",'
    )
    shop.commit()
    assert "the queue needs more" not in shop.copy()
