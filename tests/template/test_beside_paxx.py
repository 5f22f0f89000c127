"""More of Paxx, and other habits of projects, than the queue was copied beside."""

from pathlib import Path

import pytest
from support import Shop, copier

pytestmark = pytest.mark.slow


def test_a_deployment_and_metrics_that_came_later(
    own_shop_with_queue: Shop, paxx: Path
) -> None:
    shop = own_shop_with_queue
    shop.paxx(paxx, "deploy", "add", "linux-server")
    shop.paxx(paxx, "infra", "add", "metrics")
    output = shop.update()
    assert (shop / "deploy/linux-server/deploy-worker.sh").is_file()
    assert "missing, or too many, in deploy/linux-server/deploy.sh" in output
    assert "observers = (*OBSERVERS, Metrics(settings.arq_metrics_port))" in (
        (shop / "core/arq_worker.py").read_text()
    )
    assert (shop / "core/arq_runtime/worker/observers/metrics.py").is_file()
    answers = (shop / ".copier-answers.yml").read_text()
    assert "linux_server: true" in answers and "metrics: true" in answers
    shop.commit()
    shop.update()
    assert shop.git("status", "--porcelain") == ""
    for answer in ("metrics=false", "linux_server=no"):
        update = ("update", "--trust", "--defaults", "-d", answer)
        done = copier(*update, cwd=shop.root, check=False)
        assert done.returncode and "Traceback" not in done.stderr
        name = answer.partition("=")[0]
        assert f"{name}: it cannot be no, the project has it." in done.stderr


def test_settings_without_their_object(shop: Shop) -> None:
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
