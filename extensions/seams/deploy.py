"""deploy/linux-server/: the worker is deployed along with the app."""

from __future__ import annotations

from seams import Options, Seam, UnknownShapeError


def _seam(name: str, sign: str, parts: dict[str, str]) -> Seam:
    """What is inserted into one script.

    Args:
        name: The script.
        sign: What it has where the lines are there.
        parts: Lines, by what the one line has that they are inserted above.
    """

    def lines(options: Options) -> str:
        return "\n\n".join(part.rstrip() for part in parts.values())

    def add(text: str, options: Options) -> str:
        for anchor, part in {} if sign in text else parts.items():
            if text.count(anchor) != 1:
                raise UnknownShapeError(f"there is no single line with {anchor!r}")
            offset = text.rfind("\n", 0, text.index(anchor)) + 1
            text = text[:offset] + part + text[offset:]
        return text

    def remove(text: str, options: Options) -> str:
        for part in parts.values() if sign in text else ():
            if text.count(part) != 1:
                raise UnknownShapeError(f"{part.strip()!r} has been changed")
            text = text.replace(part, "")
        return text

    file = f"deploy/linux-server/{name}"
    return Seam((file,), lines, add, remove, optional=True)


DEPLOY = _seam(
    "deploy.sh",
    "deploy-worker.sh",
    {
        "# 1. Pull new image": """\
# The ARQ worker: Redis, and one deploy at a time
source "$SCRIPT_DIR/deploy-worker.sh"

""",
        '-e "APP_ENV=': '    "${ARQ_ENV[@]}" \\\n',
        "# 6. Graceful shutdown": """\
# The ARQ workers of the new version
deploy_worker

""",
    },
)
"""deploy.sh starts Redis first, tells the app where, and starts the worker after it."""

INIT = _seam(
    "deploy-init.sh",
    "deploy-worker.sh",
    {
        "    deploy/linux-server/deploy-if-changed.sh \\": (
            "    deploy/linux-server/deploy-worker.sh \\\n"
        )
    },
)
"""deploy-init.sh copies deploy-worker.sh to the server, too."""

PURGE = _seam(
    "deploy-purge.sh",
    "arq-worker=",
    {
        "# Check networks": """\
# Check the ARQ workers, and their Redis with its volume
while IFS= read -r container; do
    CONTAINERS_FOUND+=("$container")
done < <(docker ps -a --filter "label=arq-worker=$APP_NAME" --format "{{.Names}}")
if docker inspect "${APP_NAME}-redis" &>/dev/null; then
    CONTAINERS_FOUND+=("${APP_NAME}-redis")
fi
if docker volume inspect "${APP_NAME}-redis" &>/dev/null; then
    VOLUMES_FOUND+=("${APP_NAME}-redis")
fi

"""
    },
)
"""deploy-purge.sh knows the workers, and their Redis with its volume."""
