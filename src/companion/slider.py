"""A row of figures under one slider, self-contained HTML: no script from elsewhere, no running kernel."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

_SHOW = "this.parentNode.querySelectorAll('figure').forEach((f, i) => { f.hidden = i != this.valueAsNumber })"


@dataclass(frozen=True)
class Slider:
    """Frames that a reader moves through; a notebook shows it as HTML.

    Attributes:
        frames: PNG images.
        labels: one line for each frame.
        alt: what the frames show, for readers who do not see them; the frame's label is added.
    """

    frames: tuple[bytes, ...] = field(repr=False)
    labels: tuple[str, ...]
    alt: str

    def _repr_html_(self) -> str:
        last = len(self.frames) - 1
        figures = "".join(self._figure(index, hidden=index < last) for index in range(last + 1))
        control = (
            f'<input type="range" min="0" max="{last}" value="{last}" style="width: 100%" '
            f'aria-label="{html.escape(self.alt)}" oninput="{_SHOW}">'
        )
        return f'<div class="slider">{figures}{control}</div>'

    def _figure(self, index: int, *, hidden: bool) -> str:
        label = html.escape(self.labels[index])
        source = base64.b64encode(self.frames[index]).decode()
        image = (
            f'<img alt="{html.escape(self.alt)}: {label}" style="max-width: 100%" src="data:image/png;base64,{source}">'
        )
        return f"<figure{' hidden' if hidden else ''}>{image}<figcaption>{label}</figcaption></figure>"


def slider(figures: Sequence[Figure], labels: Sequence[str], *, alt: str, dots_per_inch: int = 90) -> Slider:
    """Put figures under a slider; the last one is shown first.

    Args:
        figures: one for each frame, of equal size; the caller closes them.
        labels: one line for each frame.
        alt: alternative text.
        dots_per_inch: resolution of the frames.

    Raises:
        ValueError: if there is no figure, or not one label for each.

    Example:
        >>> frames = slider([Figure((1, 1)), Figure((1, 1))], ["step 0", "step 9"], alt="nothing")
        >>> frames.labels
        ('step 0', 'step 9')
    """
    if not figures or len(figures) != len(labels):
        raise ValueError(f"labels: expected one for each of {len(figures)} figures (at least one), got {len(labels)}")
    frames = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots_per_inch)
        frames.append(buffer.getvalue())
    return Slider(tuple(frames), tuple(labels), alt)
