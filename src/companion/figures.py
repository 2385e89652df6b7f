"""One style for every figure of the book."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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


def dot_plot(axis: Axes, table: pd.DataFrame) -> None:
    """A line for each row of a table, on it a mark for each column: columns differ in shape and colour.

    Args:
        axis: where to draw.
        table: numbers; the index names the lines, the columns the marks. What is missing is left out.

    Raises:
        ValueError: if there are more columns than shapes.

    Example:
        >>> figure, (axis,) = panels()
        >>> dot_plot(axis, pd.DataFrame({"before": [1.0, 2.0], "after": [3.0, None]}, index=["this", "that"]))
        >>> [label.get_text() for label in axis.get_yticklabels()]
        ['this', 'that']
        >>> plt.close(figure)
    """
    if table.shape[1] > len(MARKERS):
        raise ValueError(f"table: {table.shape[1]} columns, but {len(MARKERS)} shapes of marks; leave some out")
    lines = range(len(table))
    for name, marker, color in zip(table, MARKERS, CYCLE):
        axis.plot(table[name], lines, marker, ms=7, color=color, label=name)
    axis.set(yticks=lines, yticklabels=table.index, ylim=(len(table) - 0.5, -0.5))
    axis.grid(axis="y", color="0.9")
    axis.set_axisbelow(True)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=table.shape[1], fontsize="small", borderpad=0)


def label_end(axis: Axes, line: Line2D, text: str) -> None:
    """Write the name of a line beside its last point, in its colour.

    Example:
        >>> figure, (axis,) = panels()
        >>> label_end(axis, axis.plot([0, 1], [2, 3])[0], "a line")
        >>> axis.texts[0].get_text()
        'a line'
        >>> plt.close(figure)
    """
    x, y = np.asarray(line.get_xydata())[-1]
    axis.annotate(
        text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", color=line.get_color(), fontsize="small"
    )
