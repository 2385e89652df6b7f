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


def panels(columns: int = 1, rows: int = 1, *, height: float = 3.0, width: float = 8.0) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page with its axes in reading order.

    Args:
        columns: panels beside each other.
        rows: panels above each other.
        height: of one row, in inches.
        width: of the whole figure, in inches.

    Example:
        >>> figure, axes = panels(2)
        >>> len(axes), float(figure.get_figwidth())
        (2, 8.0)
        >>> plt.close(figure)
    """
    figure, axes = plt.subplots(rows, columns, figsize=(width, rows * height), squeeze=False)
    return figure, list(axes.flat)
