"""The picture that stands for the book where a link to it is shared: its title, and what became of its claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from companion.claims import VERDICTS, Claim

PREVIEW = Path("_static/preview.png")
# What services that show previews ask for, in pixels.
SIZE, DPI = (1200, 630), 100
COLORS = {"reproduced": "#0a6b3d", "conditional": "#b8860b", "not reproduced": "#a32020", "failed": "#555555"}


def draw_preview(title: str, claims: Iterable[Claim], file: Path) -> None:
    """Write the picture as PNG.

    Args:
        title: of the book.
        claims: the ledger, of which verdicts are counted.
        file: where to; its directory exists.
    """
    counts = Counter(claim.verdict for claim in claims)
    with mpl.rc_context({"font.family": "DejaVu Sans", "figure.constrained_layout.use": False}):
        figure = Figure(figsize=(SIZE[0] / DPI, SIZE[1] / DPI), dpi=DPI, facecolor="white")
        figure.text(0.06, 0.72, title, fontsize=42, weight="bold", color="#1f2937")
        figure.text(0.06, 0.58, f"{counts.total()} claims, executed, each with a control", fontsize=26, color="#374151")
        axis = figure.add_axes((0.06, 0.3, 0.88, 0.14))
        left = 0
        for verdict in VERDICTS:
            axis.barh(0, counts[verdict], left=left, color=COLORS[verdict])
            left += counts[verdict]
        axis.set(xlim=(0, max(left, 1)))
        axis.set_axis_off()
        for place, verdict in zip((0.06, 0.36, 0.66), [verdict for verdict in VERDICTS if counts[verdict]]):
            figure.text(place, 0.16, f"{counts[verdict]} {verdict}", fontsize=24, color=COLORS[verdict], weight="bold")
        figure.savefig(file, metadata={"Software": None})
