"""The atlas against searches from thousands of starts, planted points, symmetries of the data, and what must fail."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from embedding_principle.activations import sigmoid, tanh
from embedding_principle.certificates import atlas as module
from embedding_principle.certificates import check, sheets
from embedding_principle.certificates.atlas import Atlas, atlas
from embedding_principle.certificates.charts import charts
from embedding_principle.certificates.intervals import Ball
from embedding_principle.critical_points import search
from embedding_principle.curvature.hessian import hessian
from embedding_principle.curvature.inertia import inertia
from embedding_principle.datasets import one_dimensional
from embedding_principle.networks import Network, Parametrised
from embedding_principle.planting import plant
from embedding_principle.risks import Risk, cross_entropy

NEURON = Network.uniform((1, 1, 1), tanh)


def noise(seed: int, n: int = 10) -> Risk:
    targets = torch.randn(n, 1, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return Risk(NEURON, torch.arange(n, dtype=torch.float64)[:, None], targets)


@cache
def atlas_of(seed: int) -> Atlas:
    return atlas(noise(seed))


def upright(theta: Tensor) -> Tensor:
    """(w, b, a, d) with w > 0."""
    return theta * torch.tensor([1.0, 1.0, 1.0, 1.0]).copysign(torch.cat([theta[:1].expand(3), torch.ones(1)]))


def searched(risk: Risk) -> list[Tensor]:
    """Critical points from 3000 starts, whose features are not constant and parameters not huge, by w > 0."""
    generator, n = Generator().manual_seed(1), len(risk.inputs)
    points = []
    for descend in (True, False):
        centre = torch.rand(1500, generator=generator, dtype=torch.float64) * (n + 1) - 1
        steepness = 10 ** (torch.rand(1500, generator=generator, dtype=torch.float64) * 2.5 - 1.5)
        outer = torch.randn(2, 1500, generator=generator, dtype=torch.float64)
        starts = torch.stack([steepness, -steepness * centre, *outer], 1)
        found = search(risk, starts, descend=descend, max_iterations=100)
        points += [upright(found.theta[i]) for i in found.distinct() if abs(found.theta[i][2]) > 1e-6]
    return [point for point in points if point[:2].norm() < 200]


@pytest.mark.parametrize("seed", [100, 101, 102, 103])
def test_searches_find_no_point_that_the_atlas_lacks(seed: int) -> None:
    found, risk = atlas_of(seed), noise(seed)
    assert found.undecided == 0
    listed = torch.stack([point.theta for point in found.points])
    distances = torch.stack([(listed - theta).abs().amax(1) for theta in searched(risk)])
    assert float(distances.amin(1).max()) < 1e-6
    # The other way round it would be no test: searches miss points. Most they find.
    assert (distances.amin(0) < 1e-6).double().mean() >= 0.5


def test_each_point_has_the_inertia_that_floats_suggest_and_a_file_that_is_accepted() -> None:
    for seed in (100, 101, 102, 103):
        for point in atlas_of(seed).points:
            assert point.inertia == inertia(hessian(noise(seed), point.theta)).counts
            assert point.risk[0] <= float(noise(seed)(point.theta)) + 1e-15
            for proof in (point.certificate, point.exact):
                assert check.verify(proof.document) == list(point.inertia)


def test_a_planted_point_is_in_the_atlas() -> None:
    inputs = torch.arange(9, dtype=torch.float64)[:, None]
    theta = torch.tensor([0.7, -2.2, 1.5, 0.25], dtype=torch.float64)
    for seed in range(3):
        risk = plant(Parametrised(NEURON, theta), inputs, generator=Generator().manual_seed(seed), residual=0.4)
        found = atlas(risk)
        assert found.undecided == 0
        distances = [float((point.theta - theta).abs().max()) for point in found.points]
        assert min(distances) < 1e-9


def test_changes_of_the_data_move_the_points_along() -> None:
    risk, plain = noise(100), atlas_of(100)
    expected = torch.stack([point.theta for point in plain.points])
    w, b, a, d = expected.T
    moved = Risk(NEURON, 3.0 + 0.25 * risk.inputs, risk.targets)
    changes = {
        "targets": (Risk(NEURON, risk.inputs, 1.0 - 2.0 * risk.targets), torch.stack([w, b, -2 * a, 1 - 2 * d], 1)),
        "inputs": (moved, torch.stack([4 * w, b - 12 * w, a, d], 1)),
        "mirror": (Risk(NEURON, risk.inputs, risk.targets.flip(0)), torch.stack([w, -b - 9 * w, -a, d], 1)),
    }
    for changed, points in changes.values():
        found = atlas(changed)
        assert found.undecided == 0
        assert found.minimum == plain.minimum
        assert [point.inertia for point in found.points] == [point.inertia for point in plain.points]
        torch.testing.assert_close(torch.stack([point.theta for point in found.points]), points)


def test_the_infimum_at_infinity_is_that_of_a_dense_grid() -> None:
    for seed in (100, 101):
        targets = noise(seed).targets[:, 0].numpy()
        n = len(targets)
        free = np.linspace(0, 1, 4001)
        features = [
            np.concatenate([np.zeros((k, 4001)), free[None], np.ones((n - 1 - k, 4001))]) for k in range(n)
        ]  # steps with one value between
        rates = np.exp(-np.linspace(1e-3, 30, 4001))
        decays = rates ** np.arange(n)[:, None]
        features += [decays, decays[::-1], np.arange(n)[:, None] + np.zeros((n, 1))]
        least = np.inf
        for phi in features:
            away, level = phi - phi.mean(0), targets - targets.mean()
            spread = (away**2).sum(0)
            sound = spread > 1e-12
            losses = (level**2).sum() - (level @ away)[sound] ** 2 / spread[sound]
            least = min(least, float(losses.min()) / n)
        low, high = atlas_of(seed).infinity
        assert low <= least * (1 + 1e-12)
        assert least - high < 1e-5
        assert high - low < 1e-8


def test_the_boxes_cover_every_chart_and_a_lost_one_is_noticed() -> None:
    for sheet in atlas_of(100).sheets:
        assert sheet.covers()
        for place in (0, len(sheet.middle) // 2, -1):
            lost = {name: np.delete(getattr(sheet, name), place, 0) for name in ("middle", "radius", "verdict")}
            assert not dataclasses.replace(sheet, **lost).covers()
        # No two boxes overlap: a point of each lies in no other.
        inside = sheet.middle + 0.7 * sheet.radius
        gaps = abs(inside[:, None] - sheet.middle[None]) < sheet.radius[None]
        assert (gaps.all(2).sum(1) == 1).all()


def test_the_box_about_a_point_is_found() -> None:
    found = atlas_of(100)
    for sheet in found.sheets:
        whole = np.prod(np.array(sheet.chart.upper) - sheet.chart.lower)
        expected = np.log2(whole / (4 * sheet.radius.prod(1)))
        for share in (-0.9, 0.0, 0.9):
            inside = sheet.middle + share * sheet.radius
            assert sheet.halvings(inside[:, 0], inside[:, 1]).tolist() == expected.tolist()
        assert sheet.halvings(np.array([-2.0]), np.array([0.5])).tolist() == [0]
    # Every network lies in a box, and where a critical point is the boxes are small.
    w, c = np.meshgrid(np.logspace(-3, 2, 30), np.linspace(-20, 30, 41))
    cut = found.halvings(w.ravel(), c.ravel())
    assert cut.min() >= 6
    for point in found.points:
        steep, shift = point.exact.centre[:2]
        assert found.halvings(np.array([steep]), np.array([-shift / steep]))[0] > np.median(cut)


def test_with_too_few_halvings_boxes_stay_undecided() -> None:
    assert atlas(noise(100), depth=4).undecided > 0
    assert atlas(noise(100), depth=4).minimum == "undecided"


def shifted(zero: sheets.Zero) -> sheets.Zero:
    return dataclasses.replace(zero, alone=zero.alone + 0.5)


def test_zeros_of_neighbouring_boxes_are_proved_equal_and_others_are_told_apart() -> None:
    risk = noise(100)
    grid = module._on_grid(risk)
    found = atlas_of(100).sheets
    points, unclear = module._identified(risk, grid, found)
    assert unclear == 0
    twice = tuple(dataclasses.replace(sheet, zeros=sheet.zeros * 2) for sheet in found)
    again, unclear = module._identified(risk, grid, twice)
    assert unclear == 0
    assert len(again) == len(points)
    # A zero whose box does not hold the certified point is none that can be told.
    wrong = [dataclasses.replace(sheet, zeros=tuple(map(shifted, sheet.zeros))) for sheet in found]
    none, unclear = module._identified(risk, grid, tuple(wrong))
    assert none == ()
    assert unclear == sum(len(sheet.zeros) for sheet in found)


def test_zeros_that_cannot_be_told_are_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [dataclasses.replace(sheet, zeros=tuple(map(shifted, sheet.zeros))) for sheet in atlas_of(100).sheets]
    given = iter(wrong)
    monkeypatch.setattr(module, "explore", lambda *_: next(given))
    assert atlas(noise(100)).undecided == sum(len(sheet.zeros) for sheet in wrong) > 0


def test_a_zero_that_is_outside_of_the_half_plane_is_no_point() -> None:
    risk = noise(100)
    sheet = atlas_of(100).sheets[0]
    beyond = Ball(np.array([-0.01, 0.5]), np.array([1e-3, 1e-3]))
    moved = dataclasses.replace(sheet, zeros=(sheets.Zero(beyond, beyond, beyond),))
    assert module._identified(risk, module._on_grid(risk), (moved,)) == ((), 0)
    border = Ball(np.array([1e-4, 0.5]), np.array([1e-3, 1e-3]))
    unclear = dataclasses.replace(sheet, zeros=(sheets.Zero(border, border, border),))
    assert module._identified(risk, module._on_grid(risk), (unclear,))[1] == 1


def test_a_straight_line_is_left_undecided_in_finite_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "_MOST", 500)
    x = torch.arange(6, dtype=torch.float64)[:, None]
    found = atlas(Risk(NEURON, x, 2 * x))
    assert found.undecided > 0
    assert found.minimum == "undecided"


def test_conditions_agree_with_the_gradient_of_the_least_risk() -> None:
    """The derivative of the least loss over a and d, by differences of least squares."""
    n = 7
    targets = torch.randn(n, generator=Generator().manual_seed(5), dtype=torch.float64).numpy()
    centred = Ball(targets - targets.mean(), 1e-15).reshape(-1, 1)

    def least(chart_index: int, u: float, v: float) -> float:
        chart = charts(n)[chart_index]
        phi = chart.features(Ball([u]), Ball([v])).value.middle[:, 0]
        design = np.stack([phi, np.ones(n)], 1)
        return float(((targets - design @ np.linalg.lstsq(design, targets, rcond=None)[0]) ** 2).sum())

    for index, (u, v) in ((2, (0.3, 0.6)), (6, (0.4, 0.5)), (7, (0.4, 0.5)), (8, (0.2, -0.4))):
        found = sheets.conditions(charts(n)[index].features(Ball([u]), Ball([v])), centred)
        assert found.falls is not None
        assert float(found.loss.middle[0]) == pytest.approx(least(index, u, v), rel=1e-12, abs=0)
        step = 1e-5
        differences = (
            (least(index, u + step, v) - least(index, u - step, v)) / (2 * step),
            (least(index, u, v + step) - least(index, u, v - step)) / (2 * step),
        )
        for ball, difference in zip(found.falls, differences):
            assert float(ball.middle[0]) == pytest.approx(difference, rel=1e-6, abs=1e-8)


def test_other_risks_are_refused() -> None:
    risk = noise(0)
    with pytest.raises(ValueError, match=r"risk: the atlas is one of the network \(1, 1, 1\) with tanh"):
        atlas(Risk(Network.uniform((1, 1, 1), sigmoid), risk.inputs, risk.targets))
    with pytest.raises(ValueError, match="risk: has 4 samples"):
        atlas(Risk(NEURON, risk.inputs[:4], risk.targets[:4]))
    with pytest.raises(ValueError, match="risk: the atlas needs equidistant inputs"):
        atlas(Risk(NEURON, risk.inputs.flip(0), risk.targets))
    with pytest.raises(ValueError, match="risk: the atlas needs equidistant inputs"):
        atlas(Risk(NEURON, risk.inputs**2, risk.targets))
    jittered = 1 + 7.5e-15 * torch.arange(len(risk.inputs), dtype=torch.float64)[:, None]
    with pytest.raises(ValueError, match="risk: the atlas needs equidistant inputs"):
        atlas(Risk(NEURON, jittered, risk.targets))
    with pytest.raises(ValueError, match="risk: the regression slope of the targets is zero"):
        atlas(Risk(NEURON, risk.inputs, (risk.inputs - 4.5) ** 2))
    with pytest.raises(ValueError, match="risk: the atlas is one of the squared error"):
        atlas(Risk(NEURON, risk.inputs, torch.ones_like(risk.targets), cross_entropy))
    with pytest.raises(ValueError, match="depth: expected a whole number from 3 to 45, got 2"):
        atlas(risk, depth=2)


@pytest.mark.parametrize(("name", "risk"), [("wave", 0.2665683052263), ("tt6", 0.157852080072)])
def test_one_critical_point_and_its_mirror_image(name: str, risk: float) -> None:
    data = one_dimensional(name)
    found = atlas(Risk(NEURON, data.inputs, data.targets))
    assert (found.undecided, found.minimum, len(found.points)) == (0, "attained", 1)
    assert found.points[0].inertia == (0, 0, 4)
    assert found.points[0].risk == pytest.approx((risk, risk), abs=1e-10)
