"""One style for every figure of the book."""

import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common colour vision; black is kept for data.
SHALLOW, DEEP, CONTROL, ACCENT = "#0072B2", "#D55E00", "#767676", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
CYCLE = (SHALLOW, DEEP, ACCENT, PURPLE, ORANGE, SKY, CONTROL)
# In the order of CYCLE: what a colour says, a shape says too.
MARKERS = ("o", "s", "X", "D", "^", "v", "P")


def use_style() -> None:
    """Set the book's style: seaborn's ticks, colours for every reader, vector graphics with reproducible ids.

    Call it once at the top of a chapter.

    Example:
        >>> use_style()
        >>> plt.rcParams["axes.spines.top"]
        False
    """
    sns.set_theme(context="notebook", style="ticks", palette=CYCLE)
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
            "legend.frameon": False,
            "svg.hashsalt": "embedding-principle",
        }
    )


def panels(
    columns: int = 1, rows: int = 1, *, height: float = 3.0, width: float | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with its axes in reading order, each in a subfigure of its own.

    Nothing of a panel leaves its subfigure, so :mod:`companion.sphinx_panels` can set the panels below each other on a
    narrow screen.

    Args:
        columns: panels beside each other.
        rows: panels above each other.
        height: of one row, in inches.
        width: of the whole figure, in inches; by default that of the page, or, for one column, what a phone still shows
            with labels of 9 pixels.

    Example:
        >>> figure, axes = panels(2)
        >>> len(axes), float(figure.get_figwidth())
        (2, 8.0)
        >>> plt.close(figure)
    """
    figure = plt.figure(figsize=(width or (8.0 if columns > 1 else 5.5), rows * height))
    grid = figure.subfigures(rows, columns, squeeze=False)
    return figure, [part.subplots() for part in grid.flat]
