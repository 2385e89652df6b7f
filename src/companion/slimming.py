"""Rendered pages without what no reader uses: source maps, icons and styles of no page, points that no eye sees."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from fontTools import subset

from companion.purging import purge_site

# A twentieth of a point, where a pixel of a page is three quarters of one.
TOLERANCE = 0.05
ICON_RULE = re.compile(r'((?:\.fa-[\w-]+:+before,?)+)\{content:("[^"]*")\}')
# A group of markers that look alike: matplotlib writes the look to each.
MARKERS = re.compile(
    r'<g((?: clip-path="[^"]*")?)>(\s*<use [^>]*? style="([^"]*)"/>(?:\s*<use [^>]*? style="\3"/>)*\s*)</g>'
)
NUMBER = re.compile(r"-?\d+\.\d+")


def slim_site(site: Path) -> None:
    """Make a rendered site lighter, in place: its figures, the theme's icons and styles, and what only its makers need.

    Args:
        site: directory of the rendered pages.
    """
    for picture in (site / "_images").glob("*.svg"):
        picture.write_text(slim_svg(picture.read_text(encoding="utf-8")), encoding="utf-8")
    _slim_icons(site)
    static = site / "_static"
    # The script draws the same icons as the fonts; the theme's pages load it, the book's do not.
    for unused in {*static.rglob("*.map"), *static.glob("scripts/fontawesome.js*")}:
        unused.unlink()
    for sheet in static.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        sheet.write_text(re.sub(r"/\*# sourceMappingURL=\S*\*/", "", text), encoding="utf-8")
    _slim_code(site)
    purge_site(site)


def slim_svg(svg: str) -> str:
    """The same picture: no path moves by more than :data:`TOLERANCE`, and coordinates have two decimals.

    Args:
        svg: a figure as matplotlib writes it.

    Returns:
        The figure without metadata, with fewer points and digits.

    Example:
        >>> slim_svg('<path d="M 0 0 L 1.00001 0.00002 L 2 0 L 2 5 z" style="fill: none"/>')
        '<path d="M0 0l2 0 0 5z" style="fill: none"/>'
    """
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' ([xy])="(-?\d+\.\d+)"', lambda found: f' {found[1]}="{_short(float(found[2]))}"', svg)
    svg = MARKERS.sub(_hoist_style, svg)
    return re.sub(r' d="([^"]*)"', lambda found: f' d="{_slim_path(found[1])}"', svg)


def _slim_path(path: str) -> str:
    if re.search("[^MLz0-9eE.\\s-]", path):  # curves: their points stay, their digits go
        return NUMBER.sub(lambda found: _short(float(found[0])), " ".join(path.split()))
    return "".join(_slim_line(part) for part in re.findall("M[^M]*", path))


def _slim_line(part: str) -> str:
    points = np.array([float(number) for number in re.findall(r"-?\d[\d.eE-]*", part)]).reshape(-1, 2)
    kept = np.round(points[_needed(points)], 2)
    steps = " ".join(_short(number) for number in np.diff(kept, axis=0).ravel()).replace(" -", "-")
    start = " ".join(_short(number) for number in kept[0])
    return f"M{start}{f'l{steps}' if steps else ''}{'z' if 'z' in part else ''}"


def _hoist_style(group: re.Match[str]) -> str:
    """The markers inherit from their group what all of them had."""
    markers = re.sub(r'\s*(<use [^>]*?) style="[^"]*"/>', r"\1/>", group[2])
    return f'<g{group[1]} style="{group[3]}">{markers}</g>'


def _needed(points: np.ndarray) -> np.ndarray:
    """Which points to keep (Ramer, Douglas and Peucker): the others lie within the tolerance of what is left."""
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    open_parts = [(0, len(points) - 1)]
    while open_parts:
        first, last = open_parts.pop()
        if last - first < 2:
            continue
        away = _distances(points[first + 1 : last], points[first], points[last])
        farthest = int(away.argmax())
        if away[farthest] > TOLERANCE:
            middle = first + 1 + farthest
            keep[middle] = True
            open_parts += [(first, middle), (middle, last)]
    return keep


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distances (n,) of ``points`` (n, 2) from the segment between ``start`` and ``end``."""
    along = end - start
    length = float(along @ along)
    places = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    away = points - start - places[:, None] * along
    distances: np.ndarray = np.hypot(away[:, 0], away[:, 1])
    return distances


def _short(number: float) -> str:
    """A number to two decimals, without zeros at its end.

    >>> _short(2.499999), _short(-0.001)
    ('2.5', '0')
    """
    text = f"{number:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _slim_icons(site: Path) -> None:
    """Leave in the fonts of icons and in their style sheet the icons that pages, scripts and other rules name."""
    static = site / "_static"
    sheet, fonts = static / "styles/pydata-sphinx-theme.css", static / "vendor/fontawesome/webfonts"
    names = _icon_names(site)
    css = ICON_RULE.sub(lambda rule: rule[0] if names & _classes(rule[1]) else "", sheet.read_text(encoding="utf-8"))
    css = re.sub(r'url\(([^)]*)\.woff2\) format\("woff2"\),url\([^)]*\.ttf\) format\("truetype"\)', _as_woff, css)
    sheet.write_text(css, encoding="utf-8")
    used = {sign for other in static.rglob("*.css") for sign in icon_signs(other.read_text(encoding="utf-8"))}
    for font in fonts.glob("*.ttf"):
        _subset(font, used)
        font.unlink()
        font.with_suffix(".woff2").unlink(missing_ok=True)


def _slim_code(site: Path) -> None:
    """Take the marks from words of code that look as the code around them does: names and brackets, half of all."""
    plain = plain_classes((site / "_static/pygments.css").read_text(encoding="utf-8"))
    marked = re.compile(rf'<span class="(?:{"|".join(sorted(plain)) or "(?!)"})">([^<]*)</span>')
    for page in site.rglob("*.html"):
        page.write_text(marked.sub(r"\1", page.read_text(encoding="utf-8")), encoding="utf-8")


def plain_classes(css: str) -> set[str]:
    """The classes of words to which a style sheet for code gives, in every theme, the colour of all code and no more.

    >>> rule = 'html[data-theme="{}"] .highlight{} {{ color: {} }}'.format
    >>> css = [rule(theme, "", ink) + rule(theme, " .n", ink) for theme, ink in (("light", "#000"), ("dark", "#fff"))]
    >>> plain_classes("".join(css)), plain_classes("".join(css) + rule("dark", " .n", "red"))
    ({'n'}, set())
    """
    looks: dict[str, dict[str, str]] = {}
    inks: dict[str, str] = {}
    for theme, name, look in re.findall(r'html\[data-theme="(\w+)"\] \.highlight(?: \.(\w+))? \{([^}]*)\}', css):
        if name:
            looks.setdefault(name, {})[theme] = look.strip()
        else:
            inks[theme] = look.rpartition("color:")[2].strip()
    expected = {theme: f"color: {ink}" for theme, ink in inks.items()}
    return {name for name, look in looks.items() if look == expected}


def _icon_names(site: Path) -> set[str]:
    files = [*site.rglob("*.html"), *(site / "_static").rglob("*.js")]
    texts = (file.read_text(encoding="utf-8") for file in files if not file.name.startswith("fontawesome"))
    return {name for text in texts for name in re.findall(r"\bfa-[\w-]+", text)}


def _classes(selectors: str) -> set[str]:
    return set(re.findall(r"fa-[\w-]+", selectors))


def _as_woff(source: re.Match[str]) -> str:
    return f'url({source[1]}.woff) format("woff")'


def icon_signs(css: str) -> set[int]:
    r"""The signs that a style sheet shows before or after elements, as code points: those of its icons are among them.

    >>> sorted(map(hex, icon_signs(r'.fa-bars:before{content:"\f0c9"} .fa-plus:before{content:"\+"}')))
    ['0x2b', '0xf0c9']
    """
    texts = re.findall(r':\s*"([^"]*)"', css)
    plain = [
        re.sub(r"\\([0-9a-f]{1,6})|\\(.)", lambda found: found[2] or chr(int(found[1], 16)), text) for text in texts
    ]
    return {ord(sign) for text in plain for sign in text}


def _subset(font: Path, used: set[int]) -> None:
    """Write the signs of a font as WOFF beside it, under no name: a changed font may not bear the reserved one."""
    options = subset.Options(flavor="woff", name_IDs=[0, 13, 14], layout_features=[], notdef_outline=True)
    loaded = subset.load_font(str(font), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=used)
    subsetter.subset(loaded)
    subset.save_font(loaded, str(font.with_suffix(".woff")), options)
