"""The commands: Copier's as they are printed, and the wiring's as Copier runs it.

Copier loads this file alone, as `paxx.py`.
"""

from __future__ import annotations

import json
from typing import Any

import plumbum
from copier_template_extensions import ContextHook

FACTS = "ARQ_WIRING"
"""The environment variable with what wire.py must know: Copier prints its arguments."""


class Commands(ContextHook):
    """Puts `copier` and `wiring` into Copier's context."""

    def hook(self, context: dict[str, Any]) -> None:
        """Add to the context of a string or file that Copier is about to render."""
        context["copier"] = lambda subcommand: _copier(subcommand, context)
        context["wiring"] = lambda mode: _wiring(mode, context)


def _copier(subcommand: str, context: dict[str, Any]) -> str:
    """Copier's command line here, as it was run and as it runs when pasted.

    Put `--data` and what else there is at its end.
    """
    conf = context["_copier_conf"]
    # uvx keeps its environments in uv's cache
    is_uvx = "archive-v" in context["_copier_python"]
    uvx = "uvx --with copier-template-extensions " if is_uvx else ""
    trust = " --trust" if conf["unsafe"] else ""
    answers_file = str(conf["answers_file"])
    own = f" -a {answers_file}" if answers_file != ".copier-answers.yml" else ""
    return f"{uvx}copier {subcommand}{trust} --defaults{own}"


def _wiring(mode: str, context: dict[str, Any]) -> str:
    """The one argument of wire.py, which finds all else in its environment."""
    conf = context["_copier_conf"]
    names = ("package", "redis_db", "max_jobs", "job_timeout", "queue_name")
    facts = {name: context[name] for name in (*names, "serializer", "metrics")}
    plumbum.local.env[FACTS] = json.dumps(
        {
            **facts,
            "jobs_page": context["include_jobs_page"],
            "copier": _copier("{}", context),
            "answers_file": str(conf["answers_file"]),
            "template": str(conf["src_path"]),
            "since": str(context.get("_version_pep440_from") or ""),
        }
    )
    return mode
