"""Sphinx extension: on a narrow screen the panels of a figure stand below each other instead of shrinking.

Each panel of a figure is a subfigure (:func:`companion.figures.panels`), whose frame stands in the SVG file, so a page
can show a part of the file. Wide screens show the figure as it is; ``custom.css`` chooses.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_NUMBER = r"(-?[\d.]+)"
_FRAME = re.compile(
    rf'<g id="subfigure_\d+">\s*<g id="patch_\d+">\s*<path d="M {_NUMBER} {_NUMBER}\s+L {_NUMBER} {_NUMBER}'
    rf"\s+L {_NUMBER} {_NUMBER}"
)
_SIZE = re.compile(rf'viewBox="0 0 {_NUMBER} {_NUMBER}"')
_IMAGE = re.compile(r'<img [^>]*src="([^"]+\.svg)"[^>]*>')
_ALT = re.compile(r'alt="([^"]*)"')
# A panel may shrink to this share of its size before it gets a row of its own, and then grow to that one.
_LEAST, _MOST = 0.75, 1.25
# Points (1/72 inch) in CSS pixels (1/96 inch).
_PIXELS = 96 / 72


@dataclass(frozen=True)
class Part:
    """A rectangle of a drawing, in points: left and upper edge, width and height, and the size of the whole."""

    left: float
    top: float
    width: float
    height: float
    whole: tuple[float, float]

    def style(self, address: str) -> str:
        """CSS that shows this part of the image, whatever width it gets."""
        across = _percent(self.left, self.whole[0] - self.width)
        down = _percent(self.top, self.whole[1] - self.height)
        return (
            f"flex-basis:{_LEAST * _PIXELS * self.width:.0f}px;max-width:{_MOST * _PIXELS * self.width:.0f}px;"
            f"aspect-ratio:{self.width:.1f}/{self.height:.1f};background-image:url('{address}');"
            f"background-size:{_percent(self.whole[0], self.width)} {_percent(self.whole[1], self.height)};"
            f"background-position:{across} {down}"
        )


def _percent(share: float, of: float) -> str:
    return f"{100 * share / of if of else 0:.3f}%"


def parts(svg: str) -> list[Part]:
    """The panels of a figure, in reading order, and the strip below them if something stands there.

    Args:
        svg: the drawing as Matplotlib writes it.

    Returns:
        Nothing if there are not several panels.
    """
    size = _SIZE.search(svg)
    frames = [[float(number) for number in frame.groups()] for frame in _FRAME.finditer(svg)]
    if size is None or len(frames) < 2:
        return []
    width, height = float(size[1]), float(size[2])
    found = []
    for left, bottom, right, _, _, top in frames:
        # The file is cropped to what is drawn, which may be less than a frame.
        left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
        found.append(Part(left, top, right - left, bottom - top, (width, height)))
    end = max(part.top + part.height for part in found)
    # Less than a line of text is margin.
    if height - end > 9:
        found.append(Part(0, end, width, height - end, (width, height)))
    return found


def with_panels(image: str, address: str, svg: str) -> str:
    """The HTML of an image, and behind it its panels, for narrow screens; one image to assistive technology."""
    panels = parts(svg)
    if not panels:
        return image
    alt = _ALT.search(image)
    spans = "".join(f'<span class="panel" style="{html.escape(one.style(address))}"></span>' for one in panels)
    return f'<span class="panels" role="img" aria-label="{alt[1] if alt else ""}">{image}{spans}</span>'


def set_panels(app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Add the panels to each figure of a page (handler of Sphinx's ``html-page-context``)."""
    files = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}

    def replaced(image: re.Match[str]) -> str:
        source = files.get(image[1].rpartition("/")[2])
        return with_panels(image[0], image[1], source.read_text(encoding="utf-8")) if source else image[0]

    context["body"] = _IMAGE.sub(replaced, context.get("body", ""))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handler."""
    app.connect("html-page-context", set_panels)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
