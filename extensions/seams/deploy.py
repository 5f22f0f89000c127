"""deploy/linux-server/: the worker is deployed along with the app."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from seams import Options, Seam, UnknownShapeError, newline_of


@dataclass(frozen=True)
class Inserted:
    """Lines above the one line that has the anchor."""

    text: str
    above: str

    def add(self, source: bytes) -> bytes:
        """The file with them.

        Raises:
            UnknownShapeError: There is no such line, or more than one.
        """
        anchor = self.above.encode()
        if source.count(anchor) != 1:
            raise UnknownShapeError(f"there is no single line with {self.above!r}")
        offset = source.rfind(b"\n", 0, source.index(anchor)) + 1
        return source[:offset] + self._lines(source) + source[offset:]

    def remove(self, source: bytes) -> bytes:
        """The file without them.

        Raises:
            UnknownShapeError: They are not there as they were.
        """
        if source.count(self._lines(source)) != 1:
            raise UnknownShapeError(f"{self.text.strip()!r} has been changed")
        return source.replace(self._lines(source), b"")

    def _lines(self, source: bytes) -> bytes:
        return self.text.encode().replace(b"\n", newline_of(source))


def _seam(name: str, sign: str, *parts: Inserted) -> Seam:
    """What is inserted into one script, with a sign that it has been."""

    def lines(options: Options) -> str:
        return "\n\n".join(part.text.rstrip() for part in parts)

    def add(source: bytes, options: Options) -> bytes:
        missing = () if sign.encode() in source else parts
        return reduce(lambda source, part: part.add(source), missing, source)

    def remove(source: bytes, options: Options) -> bytes:
        there = parts if sign.encode() in source else ()
        return reduce(lambda source, part: part.remove(source), there, source)

    file = f"deploy/linux-server/{name}"
    return Seam((file,), lines, add, remove, optional=True)


DEPLOY = _seam(
    "deploy.sh",
    "deploy-worker.sh",
    Inserted(
        """\
# The ARQ worker: Redis, and one deploy at a time
source "$SCRIPT_DIR/deploy-worker.sh"

""",
        above="# 1. Pull new image",
    ),
    Inserted('    "${ARQ_ENV[@]}" \\\n', above='-e "APP_ENV='),
    Inserted(
        """\
# The ARQ workers of the new version
deploy_worker

""",
        above="# 6. Graceful shutdown",
    ),
)
"""deploy.sh starts Redis first, tells the app where, and starts the worker after it."""

INIT = _seam(
    "deploy-init.sh",
    "deploy-worker.sh",
    Inserted(
        "    deploy/linux-server/deploy-worker.sh \\\n",
        above="    deploy/linux-server/deploy-if-changed.sh \\",
    ),
)
"""deploy-init.sh copies deploy-worker.sh to the server, too."""

PURGE = _seam(
    "deploy-purge.sh",
    "arq-worker=",
    Inserted(
        """\
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

""",
        above="# Check networks",
    ),
)
"""deploy-purge.sh knows the workers, and their Redis with its volume."""
