"""The words of README, pages and messages: the field's own terms, in plain English."""

import re

import pytest
from support import TEMPLATE

#: What was said before, or would be said again by a translator.
AVOIDED = (
    "it needs to know besides",
    "tasks must bear",
    "can bear it",
    "each time comes once",
    "no later than a poll",
    "see what the first has done",
    "a text that is not empty",
    "will not do",
    "is no try",
    "Redis is away",
    "you need not know",
)
MESSAGES = (
    "copier.yml",
    *(f"extensions/{it.name}" for it in TEMPLATE.glob("extensions/*.*")),
    *(str(it.relative_to(TEMPLATE)) for it in TEMPLATE.glob("template/**/*.jinja")),
)
PAGES = ["README.md", *sorted(f"docs/{it.name}" for it in TEMPLATE.glob("docs/*.md"))]

TERMS = (
    "acknowledge",
    "at least once",
    "backoff",
    "concurrency",
    "dead letter",
    "deduplication",
    "graceful shutdown",
    "heartbeat",
    "idempotent",
    "jitter",
    "lease",
    "outbox",
    "prefetch",
    "throughput",
    "unique job",
)


@pytest.mark.parametrize("page", [*PAGES, *sorted(MESSAGES)])
def test_no_page_speaks_like_a_translation(page: str) -> None:
    text = " ".join((TEMPLATE / page).read_text().split())
    pattern = "|".join(re.escape(words) for words in AVOIDED)
    assert not re.findall(pattern, text, re.IGNORECASE)


def test_the_glossary_has_the_terms_and_the_pages_use_them() -> None:
    glossary = (TEMPLATE / "docs/glossary.md").read_text()
    assert tuple(re.findall(r"^## (.*)", glossary, re.MULTILINE)) == tuple(
        term.capitalize() for term in TERMS
    )
    others = [page for page in PAGES if page != "docs/glossary.md"]
    text = "".join((TEMPLATE / page).read_text() for page in others).lower()
    assert not [term for term in TERMS if term not in text]
