"""Lighter figures show the same: every point of the original lies on what is left of its line."""

import re

import numpy as np
from matplotlib.path import Path as Line

from companion.slimming import TOLERANCE, slim_svg


def points_of(svg: str) -> np.ndarray:
    """The corners of a line that is written as a start and steps."""
    (path,) = re.findall(' d="M([^"]*)"', svg)
    return np.array([float(number) for number in re.findall(r"-?\d+\.?\d*", path)]).reshape(-1, 2).cumsum(axis=0)


def distances(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    dense = Line(line).interpolated(400).vertices
    return np.array([np.linalg.norm(dense - point, axis=1).min() for point in points])


def test_a_curve_keeps_its_shape_with_few_of_its_points() -> None:
    angles = np.linspace(0, 2 * np.pi, 500)
    circle = 100 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    slim = points_of(slim_svg(f'<path d="M {" L ".join(f"{x:.6f} {y:.6f}" for x, y in circle)}"/>'))
    assert len(slim) < len(circle) / 3
    # Half a hundredth in each coordinate by rounding, and as much by the density of the points compared.
    assert distances(circle, slim).max() < TOLERANCE + 0.015


def test_a_corner_and_a_spike_stay() -> None:
    slim = slim_svg('<path d="M 0 0 L 50 0.01 L 100 0 L 101 80 L 102 0 L 200 0 "/>')
    assert slim == '<path d="M0 0l100 0 1 80 1-80 98 0"/>'


def test_every_part_of_a_path_stays_closed() -> None:
    ring = "M 0 0 \nL 9 0 \nL 9 9 \nz\nM 2 1 \nL 8 1 \nL 8 7 \nz\n"
    assert slim_svg(f'<path d="{ring}"/>') == '<path d="M0 0l9 0 0 9zM2 1l6 0 0 6z"/>'


def test_curves_keep_their_points() -> None:
    assert slim_svg('<path d="M 0.123456 1 \nQ 2 3.999999 4 5 \nz\n"/>') == '<path d="M 0.12 1 Q 2 4 4 5 z"/>'


def test_text_and_names_are_untouched() -> None:
    line = '<text x="1.234567">0.123456 M 1.5</text><use xlink:href="#m1.234567"/>'
    assert slim_svg(line) == line.replace('x="1.234567"', 'x="1.23"')


def test_markers_that_look_alike_say_so_once() -> None:
    marker = '<use xlink:href="#m" x="{}" y="2" style="fill: red; stroke: blue"/>'
    alike = f'<g clip-path="url(#p)">\n  {marker.format(1)}\n  {marker.format(3)}\n </g>'
    bare = marker[: marker.index(" style")] + "/>"
    head = '<g clip-path="url(#p)" style="fill: red; stroke: blue">'
    assert "".join(slim_svg(alike).split("\n ")) == f"{head}{bare.format(1)}{bare.format(3)}</g>"
    mixed = f"<g>{marker.format(1)}{marker.format(3).replace('red', 'green')}</g>"
    assert slim_svg(mixed) == mixed
