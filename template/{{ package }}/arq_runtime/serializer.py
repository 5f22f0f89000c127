"""How jobs and results are stored in Redis: as JSON, or as pickle where asked for."""

import json
import pickle
import re
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, from_json, to_json

from .values import TAG, error_text, pack, unpack

# What stored data starts with if there are tags in it. What others write into Redis
# does not, and is taken as it is, even if something in it looks like a tag.
_TAGGED = b'{"__arq__":1,'
_QUOTED_TAG = b'"__arq__"'


class Serializer:
    """arq's job_serializer and job_deserializer, of one format.

    Args:
        format: "json", which cannot run code, or "pickle", which can.
    """

    def __init__(self, format: Literal["json", "pickle"] = "json") -> None:
        self.format = format

    def dump(self, packed: dict[str, Any]) -> bytes:
        """The bytes of a job or result whose values are packed.

        Raises:
            TypeError: With pickle, something cannot be pickled.
        """
        if self.format == "pickle":
            try:
                return pickle.dumps(packed)
            except Exception as exc:
                raise TypeError(f"it cannot be pickled: {error_text(exc)}") from exc
        try:
            content = to_json(packed)
        except PydanticSerializationError:  # deep nesting, or half a surrogate pair
            content = json.dumps(packed, separators=(",", ":")).encode()
        return _TAGGED + content[1:] if _QUOTED_TAG in content else content

    def serialize(self, data: dict[str, Any]) -> bytes:
        """arq's job_serializer.

        Raises:
            TypeError: Something in it could not come back as it was.
        """
        if self.format == "pickle":
            return self.dump(data)
        packed = {
            key: pack(value, loose=True) for key, value in data.items() if key != "a"
        }
        packed["a"] = [pack(value, loose=True) for value in data["a"]]
        return self.dump(packed)

    def deserialize(self, data: bytes) -> dict[str, Any]:
        """arq's job_deserializer. JSON from Redis cannot run code, pickle can.

        Raises:
            Exception: Of any kind, where it is no job or result.
        """
        if self.format == "pickle":
            job = pickle.loads(data)
        elif data.startswith(_TAGGED):
            job = json.loads(data, object_hook=unpack)
            del job[TAG]
        else:
            try:
                job = from_json(data)
            except ValueError:  # as in dump
                job = json.loads(data)
        # What arq would stumble over later, outside of the job
        if not (
            isinstance(job["f"], str)
            and isinstance(job["k"], dict)
            and isinstance(job["t"], int | None)
            and isinstance(job["et"], int)
            and 0 <= job["et"] < 1 << 43  # in ms: until the year 2248
        ):
            raise ValueError("not a job")
        return {**job, "a": tuple(job["a"])}

    def task_of(self, beginning: bytes) -> str:
        """The task's name, of the beginning of a stored job; "" if it is not there."""
        found = re.search(rb'"f":("(?:[^"\\]|\\.)*")', beginning)
        return str(json.loads(found[1])) if found and self.format == "json" else ""

    def stored_text(self, key: str, text: str) -> bytes:
        """How a text, the task's or queue's name, looks in a stored job."""
        if not text:
            return b""
        if self.format == "pickle":
            return pickle.dumps(text)[11:-2]  # without what begins and ends a pickle
        return f'"{key}":{json.dumps(text, ensure_ascii=False)}'.encode()
