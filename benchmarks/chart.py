# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.9"]
# ///
"""Draws docs/speed.svg from results.json, which queues.py writes.

uv run benchmarks/chart.py
"""

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PANELS = {
    "drain, 10 slots": "drain, 10 slots\njobs per second",
    "drain, 100 slots": "drain, 100 slots\njobs per second",
    "enqueue one by one": "enqueue one by one\njobs per second",
    "enqueue a batch": "enqueue a batch\njobs per second",
    "pickup p50 ms": "pickup by an idle worker\nmedian, ms (less is better)",
}
NAMES = ["paxx-arq", "paxx ext add arq", "arq", "SAQ", "streaq", "taskiq"]


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())
    mpl.rcParams.update({"svg.hashsalt": "paxx-arq", "font.size": 9})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 2.6), sharey=True)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        values = [results[key].get(name, 0) for name in NAMES]
        colors = ["#2f6f4f"] + ["#b8c4bd"] * (len(NAMES) - 1)
        bars = axis.barh(NAMES, values, color=colors)
        digits = "{:,.1f}" if "ms" in key else "{:,.0f}"
        axis.bar_label(bars, [digits.format(value) for value in values], padding=3)
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.margins(x=0.35)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(HERE.parent / "docs/speed.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
