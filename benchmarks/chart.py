# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.9"]
# ///
"""Draws docs/speed.svg from results.json, which queues.py writes.

    uv run benchmarks/chart.py

A bar is the lowest of the rounds, and goes on, pale, to the highest.
"""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PANELS = {
    "no-op jobs per second, 10 slots": "no-op jobs, 10 slots\njobs per second",
    "no-op jobs per second, 100 slots": "no-op jobs, 100 slots\njobs per second",
    "50 ms away, 100 slots": "Redis 50 ms away, 100 slots\njobs per second",
    "enqueued by 50 at once, per second": "enqueue, 50 callers at once\njobs per second",
    "enqueued in a batch, per second": "enqueue a batch\njobs per second",
    "pickup by an idle worker, median ms": (
        "pickup by an idle worker\nmedian, ms (less is better)"
    ),
}
NAMES = [
    "paxx-arq",
    "arq",
    "SAQ",
    "streaq",
    "taskiq, list",
    "taskiq, stream",
    "docket",
]


def label(values: list[float]) -> str:
    """The lowest and the highest; nothing where none was measured."""
    texts = [f"{one:,.1f}" if one < 10 else f"{one:,.0f}" for one in values if one]
    return " to ".join(dict.fromkeys(texts))


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())["results"]
    mpl.rcParams.update({"svg.hashsalt": "paxx-arq", "font.size": 9})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 2.8), sharey=True)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        rounds = [
            [value for value in results[key].get(name, []) if value] or [0]
            for name in NAMES
        ]
        lowest, highest = [min(one) for one in rounds], [max(one) for one in rounds]
        colors = ["#2f6f4f"] + ["#b8c4bd"] * (len(NAMES) - 1)
        axis.barh(NAMES, lowest, color=colors)
        bars = axis.barh(NAMES, highest, color=colors, alpha=0.4)
        labels = [label(list(pair)) for pair in zip(lowest, highest, strict=True)]
        axis.bar_label(bars, labels, padding=3)
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.margins(x=0.55)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(HERE.parent / "docs/speed.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
