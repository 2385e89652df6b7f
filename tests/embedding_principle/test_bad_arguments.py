"""Every public function, called with arguments that are not what it asks for: it answers, or says why not.

One good call of each is listed; one of its arguments at a time is put in place by a bad one of its kind. The list is
compared with what the package holds, so that a new function cannot be forgotten.
"""

import dataclasses
import importlib
import inspect
import math
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import embedding_principle
from embedding_principle import (
    activations,
    critical_points,
    datasets,
    linear_fits,
    linearity,
    modules,
    planting,
    saturation,
    trust_region,
)
from embedding_principle.activations import Activation, AffinePiece, elu, identity, relu, tanh
from embedding_principle.certificates import sheets
from embedding_principle.certificates.atlas import atlas, replayable
from embedding_principle.certificates.certify import certify
from embedding_principle.certificates.charts import charts
from embedding_principle.certificates.enclosures import affine_pieces, enclosure, known_here
from embedding_principle.certificates.intervals import Ball
from embedding_principle.certificates.irreducible import irreducible
from embedding_principle.certificates.wider import certified_lifts, certify_lift, certify_split
from embedding_principle.curvature import deep, extreme, hessian, inertia, kinks, one_hidden_layer, passes
from embedding_principle.depth import (
    approximate,
    batch_normalization,
    degeneracy,
    dimensions,
    lifting,
    pruning,
    spare_neurons,
)
from embedding_principle.depth.cones import laws, measure, multilevel, tilting
from embedding_principle.depth.lifting import Insertion
from embedding_principle.networks import Layer, Network, Parametrised, flatten, with_ones
from embedding_principle.risks import Risk, cross_entropy, squared_error
from embedding_principle.training import backpropagation, ensembles, plateaus
from embedding_principle.width import compatible, encounters, reduction, splitting, strict_saddles, symmetry

SMOOTH = Network.uniform((2, 2, 1), tanh)
DEEP = Network((2, 2, 2, 1), (relu, tanh))
NORMALIZED = Network.uniform((2, 2, 1), relu, batch_norm_epsilon=1e-5)
X = torch.tensor([[-1.0, 0.5], [0.25, -0.75], [1.5, 1.0], [0.5, 2.0], [-0.5, -1.5]], dtype=torch.float64)
Y = X[:, :1] ** 2 - X[:, 1:]
ONE, ZERO = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
LINE = torch.linspace(-2, 2, 10, dtype=torch.float64)[:, None]


def generator() -> Generator:
    return Generator().manual_seed(0)


def point(network: Network, *batch: int) -> Parametrised:
    return Parametrised(network, network.initial(generator(), bias_scale=0.5, batch=batch))


def risk(network: Network = SMOOTH) -> Risk:
    return Risk(network, X, Y)


def on_a_grid() -> Risk:
    return Risk(Network.uniform((1, 1, 1), tanh), LINE, X[:, 1:].repeat(2, 1))


def straight() -> Parametrised:
    return lifting.lift(point(SMOOTH), X, [Insertion(0, 2, identity)], generator=generator())


def lifted() -> Parametrised:
    return lifting.lift(point(SMOOTH), X, [Insertion(0, 2, relu)], generator=generator())


def both_passes() -> passes.Passes:
    return passes.passes_over(risk(), point(SMOOTH, 1).theta)


def observed() -> ensembles.Training:
    observers = plateaus.plateau_observers(risk())
    return ensembles.train(
        risk(), point(SMOOTH, 2).theta, ensembles.GradientDescent(1e-3), steps=60, observers=observers
    )


def line_fit() -> tuple[Risk, Tensor]:
    slope = float((LINE**4).sum() / (LINE**2).sum())
    return Risk(Network((1, 1)), LINE, LINE**3), torch.tensor([slope, 0.0], dtype=torch.float64)


def with_spare_neuron() -> Parametrised:
    wide = symmetry.member(point(SMOOTH), (0, 1, 2), generator=generator())
    theta = wide.theta.clone()
    theta[-2] = 0
    return wide.with_theta(theta)


def equations() -> dimensions.OutputEquations:
    return dimensions.OutputEquations(Layer(ONE[:, None], ZERO), Layer(ONE[:, None], ZERO), ONE, ZERO)


def measuring(method: str) -> dict[str, Any]:
    eye = torch.eye(4, dtype=torch.float64)
    options = {"points": 16} if method == "tilting" else {"centre": torch.full((4,), 0.5).double(), "particles": 50}
    return {"normals": eye, "runs": 2, "generator": generator(), **options}


def planted_risk() -> tuple[Risk, Tensor]:
    theta = torch.linspace(-1, 1, 9).double()
    return planting.plant(Parametrised(SMOOTH, theta), LINE.repeat(2, 2), generator=generator()), theta


Call = tuple[Callable[..., Any], dict[str, Any]]


def good_calls() -> dict[str, Call]:
    """A call that succeeds for every public function, method and constructor, by name."""
    theta, batch, deep_point = point(SMOOTH).theta, point(SMOOTH, 3).theta, point(DEEP)
    first, second = lifted().layers()[:2]
    line_risk, line_theta = line_fit()
    narrow_theta = torch.tensor([1.0, 0.3, 1.0, 0.0]).double()
    narrow = Parametrised(Network.uniform((1, 1, 1), tanh), narrow_theta)
    narrow_risk = planting.plant(narrow, LINE, generator=generator(), residual=0.1)
    matrix = hessian.hessian(risk(), theta)
    lifted_point, straight_point = lifted(), straight()
    outputs = torch.tensor([[1.0, 2.0], [4.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    labels, one_more = torch.tensor([1, 1, 0]), Insertion(0, 2, relu)
    descent, blocks = ensembles.GradientDescent(0.1), splitting.neuron_blocks(risk(), theta, 0, 1)
    fold, (critical_risk, critical_theta) = compatible.three_fold(SMOOTH), planted_risk()
    calls: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("activations.AffinePiece", AffinePiece, {"lower": 0.0, "upper": 1.0, "slope": 2.0, "intercept": 0.5}),
        ("activations.AffinePiece.contains", AffinePiece(0.0, 1.0, 1.0).contains, {"z": X}),
        ("activations.Activation.__call__", tanh, {"z": X}),
        ("activations.leaky_relu", activations.leaky_relu, {"slope": 0.1}),
        ("activations.named", activations.named, {"name": "tanh"}),
        ("networks.Network", Network, {"widths": (2, 3, 1), "activations": (tanh,), "batch_norm_epsilon": 1e-5}),
        ("networks.Network.uniform", Network.uniform, {"widths": (2, 3, 1), "activation": tanh}),
        ("networks.Network.inserted", SMOOTH.inserted, {"position": 0, "width": 2, "activation": relu}),
        ("networks.Network.without", SMOOTH.without, {"position": 0}),
        ("networks.Network.with_activation", SMOOTH.with_activation, {"position": 0, "activation": relu}),
        ("networks.Network.check_hidden", SMOOTH.check_hidden, {"position": 0}),
        ("networks.Network.layers", SMOOTH.layers, {"theta": batch}),
        ("networks.Network.trace", SMOOTH.trace, {"theta": batch, "inputs": X}),
        ("networks.Network.forward", SMOOTH.forward, {"theta": batch, "inputs": X}),
        ("networks.Network.initial", SMOOTH.initial, {"generator": generator(), "scale": 1.0, "bias_scale": 0.5}),
        ("networks.flatten", flatten, {"layers": [first, second]}),
        ("networks.with_ones", with_ones, {"features": X, "dim": -1}),
        ("networks.Parametrised", Parametrised, {"network": SMOOTH, "theta": batch}),
        ("networks.Parametrised.with_theta", point(SMOOTH).with_theta, {"theta": batch}),
        ("networks.Parametrised.expand", lambda count: point(SMOOTH).expand(count), {"count": 3}),
        ("networks.Parametrised.layers", point(SMOOTH).layers, {}),
        ("networks.Parametrised.jacobian", point(SMOOTH).jacobian, {"inputs": X}),
        ("networks.Parametrised.trace", point(SMOOTH).trace, {"inputs": X}),
        ("networks.Parametrised.forward", point(SMOOTH).forward, {"inputs": X}),
        (
            "networks.Parametrised.inserted",
            point(SMOOTH).inserted,
            {"position": 0, "first": first, "second": second, "activation": relu},
        ),
        ("networks.Parametrised.without", deep_point.without, {"position": 0, "merged": first}),
        (
            "networks.Parametrised.replaced",
            lambda position, layer, activation: deep_point.replaced(position, layer, activation=activation),
            {"position": 0, "layer": first, "activation": relu},
        ),
        ("risks.Risk", Risk, {"network": SMOOTH, "inputs": X, "targets": Y}),
        (
            "risks.Risk of classes",
            Risk,
            {"network": Network((2, 2)), "inputs": X, "targets": torch.eye(2)[[0, 1, 1, 0, 1]].double()}
            | {"loss": cross_entropy},
        ),
        ("risks.Risk.__call__", risk(), {"theta": batch}),
        ("risks.Risk.residuals", risk().residuals, {"theta": batch}),
        ("risks.Risk.gradient", risk().gradient, {"theta": batch}),
        ("risks.Risk.at", risk().at, {"theta": batch}),
        ("risks.Risk.on", risk().on, {"network": DEEP}),
        (
            "planting.plant",
            planting.plant,
            {
                "point": Parametrised(SMOOTH, torch.linspace(-1, 1, 9).double()),
                "inputs": X.repeat(4, 1) + LINE.repeat(2, 1),
                "generator": generator(),
                "residual": 0.5,
                "loss": squared_error,
                "orthogonal_to": torch.ones(1, 20).double(),
            },
        ),
        ("certificates.atlas.atlas", atlas, {"risk": on_a_grid(), "depth": 12}),
        ("certificates.atlas.replayable", replayable, {"found": atlas(on_a_grid()), "risk": on_a_grid()}),
        ("certificates.charts.charts", charts, {"samples": 5}),
        (
            "certificates.sheets.conditions",
            sheets.conditions,
            {"features": charts(5)[0].features(Ball([0.5]), Ball([0.5])), "targets": Ball(X[:, :1].numpy())},
        ),
        (
            "certificates.sheets.explore",
            sheets.explore,
            {"chart": charts(5)[0], "targets": Ball(X[:, :1].numpy()), "depth": 6},
        ),
        ("certificates.certify.certify", certify, {"risk": risk(), "theta": theta, "radius": 1e-3}),
        ("certificates.enclosures.affine_pieces", affine_pieces, {"activation": relu}),
        ("certificates.enclosures.known_here", known_here, {"activation": relu}),
        ("certificates.enclosures.enclosure", enclosure, {"risk": risk(), "theta": Ball(theta.numpy(), 1e-3)}),
        ("certificates.irreducible.irreducible", irreducible, {"point": point(SMOOTH), "inputs": X, "tolerance": 1e-5}),
        (
            "certificates.wider.certify_lift",
            certify_lift,
            {
                "risk": line_risk,
                "proof": certify(line_risk, line_theta),
                "point": lifting.lift(line_risk.at(line_theta), LINE, [one_more], generator=generator()),
                "position": 0,
                "spare": False,
            },
        ),
        (
            "certificates.wider.certified_lifts",
            certified_lifts,
            {
                "risk": line_risk,
                "theta": line_theta,
                "insertions": [one_more],
                "generator": generator(),
                "spare": False,
            },
        ),
        (
            "certificates.wider.certify_split",
            certify_split,
            {
                "risk": narrow_risk,
                "proof": certify(narrow_risk, narrow_theta),
                "position": 0,
                "neuron": 0,
                "share": 0.5,
            },
        ),
        (
            "width.splitting.split",
            splitting.split,
            {"point": point(SMOOTH, 3), "position": 0, "neuron": 1, "shares": (0.5, 0.5)},
        ),
        (
            "width.splitting.with_null_neuron",
            splitting.with_null_neuron,
            {"point": point(SMOOTH), "position": 0, "bias": 0.5},
        ),
        (
            "width.splitting.splitting_coordinates",
            splitting.splitting_coordinates,
            {"network": SMOOTH, "position": 0, "neuron": 1, "shares": (0.5, 0.5)},
        ),
        (
            "width.splitting.null_coordinates",
            splitting.null_coordinates,
            {"network": SMOOTH, "position": 0, "bias": 0.5},
        ),
        (
            "width.splitting.neuron_blocks",
            splitting.neuron_blocks,
            {"risk": risk(), "theta": theta, "position": 0, "neuron": 1},
        ),
        (
            "width.splitting.null_blocks",
            splitting.null_blocks,
            {"risk": risk(), "theta": theta, "position": 0, "bias": 0.5},
        ),
        ("width.splitting.splitting_block", splitting.splitting_block, {"blocks": blocks, "shares": (0.5, 0.5)}),
        ("width.splitting.coupling_rank", splitting.coupling_rank, {"blocks": blocks}),
        ("width.splitting.splitting_inertia", splitting.splitting_inertia, {"blocks": blocks, "shares": (0.5, 0.5)}),
        (
            "width.splitting.SplittingBlocks",
            splitting.SplittingBlocks,
            {"curvature": blocks.curvature, "coupling": blocks.coupling, "error": 1e-15},
        ),
        ("linear_fits.least_squares", linear_fits.least_squares, {"inputs": X, "targets": Y}),
        ("linear_fits.affine_fit", linear_fits.affine_fit, {"inputs": X, "targets": Y}),
        ("linear_fits.low_rank_fit", linear_fits.low_rank_fit, {"inputs": X, "targets": X.flip(1), "rank": 1}),
        ("linearity.neuron_indices", linearity.neuron_indices, {"point": deep_point, "inputs": X}),
        ("linearity.linearization_index", linearity.linearization_index, {"point": deep_point, "inputs": X}),
        ("linearity.linear_neurons", linearity.linear_neurons, {"point": deep_point, "inputs": X}),
        ("linearity.linear_fraction", linearity.linear_fraction, {"point": deep_point, "inputs": X}),
        ("saturation.saturated", saturation.saturated, {"risk": risk(), "theta": batch}),
        ("curvature.hessian.hessian", hessian.hessian, {"risk": risk(), "theta": batch, "ridge": 0.1}),
        ("curvature.hessian.hessian, deep", hessian.hessian, {"risk": risk(DEEP), "theta": point(DEEP, 2).theta}),
        ("curvature.hessian.formal_hessian", hessian.formal_hessian, {"risk": risk(), "theta": batch, "ridge": 0.1}),
        ("curvature.hessian.derivatives", hessian.derivatives, {"risk": risk(), "theta": batch, "ridge": 0.1}),
        ("curvature.hessian.differentiated_hessian", hessian.differentiated_hessian, {"risk": risk(), "theta": batch}),
        ("curvature.deep.closed_form_hessian", deep.closed_form_hessian, {"risk": risk(), "theta": batch}),
        ("curvature.deep.closed_form_derivatives", deep.closed_form_derivatives, {"risk": risk(), "theta": batch}),
        (
            "curvature.one_hidden_layer.one_hidden_layer_derivatives",
            one_hidden_layer.one_hidden_layer_derivatives,
            {"risk": risk(), "theta": batch},
        ),
        (
            "curvature.one_hidden_layer.one_hidden_layer_hessian",
            one_hidden_layer.one_hidden_layer_hessian,
            {"risk": risk(), "theta": batch},
        ),
        ("curvature.one_hidden_layer.hessian_parts", one_hidden_layer.hessian_parts, {"passes": both_passes()}),
        ("curvature.one_hidden_layer.has_one_hidden_layer", one_hidden_layer.has_one_hidden_layer, {"network": SMOOTH}),
        ("curvature.one_hidden_layer.neurons", one_hidden_layer.neurons, {"network": SMOOTH}),
        ("curvature.passes.passes_over", passes.passes_over, {"risk": risk(), "theta": batch}),
        (
            "curvature.passes.blocks_of_passes",
            lambda **given: [list(samples) for _, samples in passes.blocks_of_passes(**given)],
            {"risk": risk(), "theta": batch, "units": 10},
        ),
        ("curvature.passes.outer", passes.outer, {"left": X[None], "right": X[None]}),
        ("curvature.inertia.inertia", inertia.inertia, {"matrix": matrix, "error": 1e-9, "relative_threshold": 1e-9}),
        (
            "curvature.inertia.one_hidden_layer_inertia",
            inertia.one_hidden_layer_inertia,
            {"risk": risk(), "theta": point(SMOOTH).theta},
        ),
        ("curvature.kinks.kinks", kinks.kinks, {"risk": risk(DEEP), "theta": point(DEEP, 2).theta, "order": 1}),
        ("curvature.kinks.require_smooth", kinks.require_smooth, {"risk": risk(DEEP), "theta": point(DEEP, 2).theta}),
        (
            "curvature.extreme.extreme_eigenvalues",
            extreme.extreme_eigenvalues,
            {"risk": risk(), "theta": theta, "generator": generator(), "count": 1, "tolerance": 1e-8},
        ),
        (
            "curvature.extreme.hessian_vector_product",
            lambda risk, theta, vector: extreme.hessian_vector_product(risk, theta)(vector),
            {"risk": risk(), "theta": theta, "vector": theta},
        ),
        (
            "critical_points.search",
            critical_points.search,
            {"risk": risk(), "starts": batch, "ridge": 0.1, "max_iterations": 5, "radius": 1e3, "tolerance": 1e-12}
            | {"compiled": True},
        ),
        (
            "critical_points.critical_inertia",
            critical_points.critical_inertia,
            {"risk": line_risk, "theta": line_theta, "ridge": 0.0, "tolerance": 1e-12},
        ),
        ("critical_points.CriticalPoints.lowest", critical_points.search(line_risk, line_theta[None]).lowest, {}),
        (
            "critical_points.CriticalPoints.distinct",
            critical_points.search(risk(), batch, max_iterations=2).distinct,
            {"relative_tolerance": 1e-8},
        ),
        (
            "trust_region.trust_region_step",
            trust_region.trust_region_step,
            {"values": X, "slope": X.flip(0), "radius": torch.ones(5).double()},
        ),
        (
            "trust_region.descent_step",
            trust_region.descent_step,
            {"matrix": matrix[None], "gradient": theta[None], "radius": torch.ones(1), "shift": torch.zeros(1)}
            | {"compiled": True},
        ),
        ("trust_region.require_numba", trust_region.require_numba, {}),
        (
            "trust_region.polishing_step",
            trust_region.polishing_step,
            {"matrix": matrix[None], "gradient": theta[None], "radius": torch.ones(1)},
        ),
        ("training.backpropagation.Backpropagation", _propagated, {"risk": risk(), "theta": batch}),
        ("training.ensembles.GradientDescent", ensembles.GradientDescent, {"rate": 0.1}),
        (
            "training.ensembles.Adam",
            ensembles.Adam,
            {"rate": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8},
        ),
        (
            "training.ensembles.ensemble",
            ensembles.ensemble,
            {"network": SMOOTH, "generator": generator(), "size": 2, "scale": 1.0, "bias_scale": 0.1},
        ),
        ("training.ensembles.log_grid", ensembles.log_grid, {"last": 100, "per_decade": 3}),
        (
            "training.ensembles.train",
            ensembles.train,
            {"risk": risk(), "starts": batch, "method": descent, "steps": 5, "thresholds": [0.5], "per_decade": 2}
            | {"observers": plateaus.plateau_observers(risk())},
        ),
        ("training.plateaus.plateau_observers", plateaus.plateau_observers, {"risk": risk()}),
        (
            "training.plateaus.plateaus",
            plateaus.plateaus,
            {"steps": [10, 100, 1000], "risk": [1.0, 0.99, 0.1], "slope": 0.05, "decades": 0.5},
        ),
        (
            "training.plateaus.encounters",
            plateaus.encounters,
            {"run": observed(), "risk": risk(), "reference": torch.zeros_like(Y), "slope": 0.5, "decades": 0.1},
        ),
        ("depth.approximate.tangent", approximate.tangent, {"activation": tanh, "centre": 0.5}),
        ("depth.approximate.first_bend", approximate.first_bend, {"activation": tanh, "centre": 0.5}),
        (
            "depth.approximate.approximate_lift",
            approximate.approximate_lift,
            {"straight": straight_point, "position": 0, "activation": tanh, "line": approximate.ASYMPTOTE}
            | {"centre": 0.5, "sizes": torch.tensor([0.1, 0.01]).double()},
        ),
        (
            "depth.approximate.leading_gradient",
            approximate.leading_gradient,
            {"risk": risk(), "straight": straight_point, "position": 0, "activation": tanh, "centre": 0.5},
        ),
        (
            "depth.batch_normalization.with_batch_norm",
            batch_normalization.with_batch_norm,
            {"point": point(SMOOTH), "gamma": 1.0, "beta": 0.5, "epsilon": 1e-5},
        ),
        *(
            (f"depth.batch_normalization.{of.__name__}", of, {"point": point(NORMALIZED, 2), "inputs": X})
            for of in (
                batch_normalization.fold_batch_norm,
                batch_normalization.linearity_thresholds,
                batch_normalization.threshold_bounds,
            )
        ),
        (
            "depth.degeneracy.differential",
            degeneracy.differential,
            {"point": lifted_point, "inputs": X, "positions": [0]},
        ),
        (
            "depth.degeneracy.lifted_inertia",
            degeneracy.lifted_inertia,
            {"hessian": matrix, "differential": degeneracy.differential(lifted_point, X, [0]), "error": 0.0},
        ),
        (
            "depth.dimensions.lifted_dimension",
            dimensions.lifted_dimension,
            {"preceding": 2, "following": 1, "width": 2},
        ),
        ("depth.dimensions.strata", dimensions.strata, {"preceding": 4, "following": 3, "width": 3, "rank": 2}),
        (
            "depth.dimensions.OutputEquations",
            lambda **given: dimensions.OutputEquations(**given).jacobian(),
            {"first": Layer(ONE[:, None], ZERO), "second": Layer(ONE[:, None], ZERO), "slope": ONE, "intercept": ZERO},
        ),
        ("depth.dimensions.OutputEquations.__call__", equations(), {"parameters": equations().member}),
        ("depth.dimensions.OutputEquations.jacobian", equations().jacobian, {}),
        ("depth.dimensions.jacobian_dimension", dimensions.jacobian_dimension, {"equations": equations()}),
        (
            "depth.dimensions.sampled_dimension",
            dimensions.sampled_dimension,
            {"equations": equations(), "generator": generator(), "radius": 1e-5},
        ),
        *(
            (f"width.compatible.{of.__name__}", of, {"embedding": fold})
            for of in (
                compatible.betas,
                compatible.differential,
                compatible.gradient_matrix,
                compatible.constraint_dimension,
            )
        ),
        ("width.compatible.embed", compatible.embed, {"embedding": fold, "point": point(SMOOTH)}),
        ("width.compatible.embedded_gradient", compatible.embedded_gradient, {"embedding": fold, "gradient": theta}),
        ("width.compatible.three_fold", compatible.three_fold, {"network": SMOOTH}),
        (
            "width.strict_saddles.second_order_part",
            strict_saddles.second_order_part,
            {"risk": critical_risk, "theta": critical_theta},
        ),
        (
            "width.strict_saddles.strict_saddle_embedding",
            strict_saddles.strict_saddle_embedding,
            {"risk": critical_risk, "theta": critical_theta, "bias": 0.3},
        ),
        (
            "width.compatible.Embedding",
            compatible.Embedding,
            # Lists: a tuple of tensors would be taken for a point that is made later.
            {"network": SMOOTH} | {name: [*getattr(fold, name)] for name in ("indices", "factors", "constants")},
        ),
        (
            "width.compatible.random_embedding",
            compatible.random_embedding,
            {"network": SMOOTH, "widths": (2, 3, 1), "generator": generator(), "null": 0.5, "spread": 0.1},
        ),
        (
            "width.compatible.violations",
            compatible.violations,
            {"narrow": point(SMOOTH), "wide": compatible.embed(fold, point(SMOOTH)), "indices": [*fold.indices]}
            | {"tolerance": 1e-9},
        ),
        (
            "width.compatible.compatible_dimension",
            compatible.compatible_dimension,
            {"narrow": (2, 2, 1), "wide": (2, 3, 1)},
        ),
        (
            "width.compatible.copies_dimension",
            compatible.copies_dimension,
            {"risk": critical_risk, "theta": critical_theta, "copies": [1, 2]},
        ),
        (
            "depth.lifting.Insertion",
            Insertion,
            {"position": 0, "width": 2, "activation": relu, "ranks": (1, 1)},
        ),
        ("depth.lifting.smallest_width", lifting.smallest_width, {"network": SMOOTH, "position": 0}),
        (
            "depth.lifting.smallest_insertions",
            lifting.smallest_insertions,
            {"network": SMOOTH, "activation": relu, "spare": 1},
        ),
        ("depth.lifting.deepened", lifting.deepened, {"network": SMOOTH, "insertion": one_more}),
        (
            "depth.lifting.lift",
            lifting.lift,
            {"point": point(SMOOTH, 2), "inputs": X, "insertions": [one_more], "generator": generator()},
        ),
        (
            "depth.lifting.violations",
            lifting.violations,
            {"shallow": point(SMOOTH), "deep": lifted_point, "inputs": X, "insertion": one_more, "tolerance": 1e-10},
        ),
        (
            "depth.lifting.occupied_pieces",
            lifting.occupied_pieces,
            {"point": lifted_point, "inputs": X, "position": 0},
        ),
        ("depth.lifting.merge", lifting.merge, {"first": first, "second": second, "slope": X[0], "intercept": X[1]}),
        (
            "depth.lifting.collapse",
            lifting.collapse,
            {"point": lifted_point, "position": 0, "slope": X[0], "intercept": X[1]},
        ),
        *(
            (f"depth.pruning.{of.__name__}", of, {"point": point(DEEP, 2), "inputs": X, "position": 0})
            for of in (pruning.affine_fit, pruning.prune, pruning.prune_by_least_squares, pruning.linearized)
        ),
        ("depth.pruning.accuracy", pruning.accuracy, {"outputs": outputs, "labels": labels}),
        ("depth.pruning.agreement", pruning.agreement, {"outputs": outputs, "others": outputs.flip(0)}),
        ("depth.pruning.class_share", pruning.class_share, {"features": outputs, "labels": labels}),
        (
            "depth.spare_neurons.backpropagated",
            spare_neurons.backpropagated,
            {"risk": risk(), "theta": theta, "position": 0},
        ),
        (
            "depth.spare_neurons.find_spare_neuron",
            spare_neurons.find_spare_neuron,
            {"risk": line_risk, "theta": line_theta, "position": 0, "activation": relu, "generator": generator()}
            | {"spread": 1.0},
        ),
        (
            "depth.spare_neurons.spare_neuron_lift",
            spare_neurons.spare_neuron_lift,
            {"risk": line_risk, "theta": line_theta, "insertion": Insertion(0, 2, elu), "generator": generator()}
            | {"spread": 1.0},
        ),
        (
            "depth.spare_neurons.with_spare_neuron",
            spare_neurons.with_spare_neuron,
            {"point": point(SMOOTH), "position": 0, "incoming": torch.ones(3).double()},
        ),
        (
            "depth.spare_neurons.spare_neuron_inertia",
            spare_neurons.spare_neuron_inertia,
            {"before": (0, 6, 7), "preceding": 2, "following": 1},
        ),
        (
            "depth.spare_neurons.probability_of_spare_neuron",
            spare_neurons.probability_of_spare_neuron,
            {"dimension": 3},
        ),
        ("depth.cones.laws.symmetric_mean", laws.symmetric_mean, {"n": 3}),
        ("depth.cones.laws.wendel_probability", laws.wendel_probability, {"n": 6, "dimension": 3}),
        ("depth.cones.laws.log_gaussian_mean", laws.log_gaussian_mean, {"n": 6, "dimension": 3}),
        ("depth.cones.laws.ball_limit", laws.ball_limit, {"radius": 1.0, "dimension": 3}),
        ("depth.cones.laws.orthant_limit", laws.orthant_limit, {"dimension": 3}),
        ("depth.cones.measure.admissible_normals", measure.admissible_normals, {"features": X}),
        (
            "depth.cones.measure.gaussian_measure",
            measure.gaussian_measure,
            {"normals": torch.cat([torch.eye(4), torch.full((1, 4), -0.2)]).double() + 0.3, "generator": generator()}
            | {"points": 16, "particles": 50, "runs": 2},
        ),
        ("depth.cones.measure.interior_direction", measure.interior_direction, {"normals": with_ones(X)}),
        ("depth.cones.measure.irredundant", measure.irredundant, {"normals": with_ones(X)}),
        ("depth.cones.multilevel.log_estimates", multilevel.log_estimates, measuring("multilevel")),
        ("depth.cones.tilting.log_estimates", tilting.log_estimates, measuring("tilting")),
        ("depth.cones.tilting.power_of_two", tilting.power_of_two, {"name": "points", "value": 64}),
        ("modules.from_module", modules.from_module, {"module": nn.Linear(2, 1)}),
        ("modules.to_module", modules.to_module, {"point": point(SMOOTH)}),
        ("datasets.iris", datasets.iris, {"classes": (0, 1)}),
        ("datasets.wine", datasets.wine, {}),
        ("datasets.digits", datasets.digits, {"train": 20, "test": 10, "side": 4}),
        ("datasets.one_dimensional", datasets.one_dimensional, {"name": "wave", "n": 20}),
        (
            "width.encounters.equal_neurons",
            encounters.equal_neurons,
            {"point": point(SMOOTH), "tolerance": 1e-5},
        ),
        ("width.encounters.origin", encounters.origin, {"point": point(SMOOTH), "tolerance": 1e-5}),
        ("width.encounters.equal_functions", encounters.equal_functions, {"outputs": X[:, :, None], "tolerance": 1e-5}),
        (
            "width.reduction.aligned_groups",
            reduction.aligned_groups,
            {"point": point(SMOOTH), "cosine": 0.9, "silent": 0.1},
        ),
        (
            "width.reduction.shuffled_groups",
            reduction.shuffled_groups,
            {"labels": torch.tensor([0, 1]), "generator": generator()},
        ),
        (
            "width.reduction.reduced",
            reduction.reduced,
            {
                "point": point(Network.uniform((2, 2, 1), relu)),
                "labels": torch.tensor([0, 0]),
                "generator": generator(),
            },
        ),
        ("width.symmetry.bell", symmetry.bell, {"n": 5}),
        ("width.symmetry.critical_subspaces", symmetry.critical_subspaces, {"r": 2, "m": 3}),
        ("width.symmetry.global_subspaces", symmetry.global_subspaces, {"r": 2, "m": 3, "output_bias": True}),
        ("width.symmetry.configurations", symmetry.configurations, {"r": 2, "m": 3}),
        ("width.symmetry.count_by_orbits", symmetry.count_by_orbits, {"r": 2, "m": 3, "zero_groups": True}),
        ("width.symmetry.subspace_dimension", symmetry.subspace_dimension, {"labels": (0, 1, 2), "r": 2, "d": 3}),
        ("width.symmetry.crossover", symmetry.crossover, {"r": 3}),
        (
            "width.symmetry.member",
            symmetry.member,
            {"narrow": point(SMOOTH), "labels": (0, 1, 2), "generator": generator()},
        ),
        (
            "width.symmetry.swap_path",
            symmetry.swap_path,
            {"point": with_spare_neuron(), "first": 0, "second": 1, "spare": 2},
        ),
        ("width.symmetry.along", symmetry.along, {"corners": X, "steps": 3}),
        (
            "width.symmetry.relaxed_path",
            symmetry.relaxed_path,
            {"risk": risk(), "start": theta, "end": -theta, "generator": generator(), "beads": 5, "steps": 2}
            | {"rate": 0.02, "noise": 0.1},
        ),
        (
            "width.symmetry.fit",
            symmetry.fit,
            {"risk": risk(), "starts": batch, "free": torch.arange(9), "steps": 2, "goal": 0.0},
        ),
        (
            "width.symmetry.classified",
            symmetry.classified,
            {"point": with_spare_neuron(), "narrow": point(SMOOTH), "degrees": 1.0, "outgoing": 1e-6},
        ),
    ]
    return {name: (function, given) for name, function, given in calls}


def _propagated(risk: Risk, theta: Tensor) -> Tensor:
    propagation = backpropagation.Backpropagation(risk, theta)
    propagation.forward()
    propagation.backward()
    return propagation.risk()


def bad_tensors(good: Tensor) -> Iterator[tuple[str, object]]:
    """Tensors that are like a good one, but for one thing; not all of them are to be refused."""
    if good.is_floating_point():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            yield str(dtype), good.to(dtype)
        yield "complex", good.to(torch.complex128)
        for name, factor in (("tiny", 1e-200), ("huge", 1e200), ("largest", 1.7e308)):
            yield name, good * factor
        for name, value in (("nan", math.nan), ("inf", math.inf)):
            spoilt = good.clone()
            spoilt.view(-1)[:1] = value
            yield f"one {name}", spoilt
        yield "all nan", torch.full_like(good, math.nan)
        yield "requires grad", good.clone().requires_grad_(True)
        with torch.inference_mode():
            yield "made in inference mode", good.clone()
        yield "integers", good.long()
    else:
        yield "floats", good.double()
        yield "negative", -good - 1
        yield "large", good + 10**12
    yield "booleans", good.bool()
    yield "zeros", torch.zeros_like(good)
    yield "one batch more", good[None]
    yield "one dimension less", good[0] if good.dim() else good[None]
    yield "no dimension", good.sum()
    for dim in range(good.dim()):
        yield f"empty along {dim}", good.narrow(dim, 0, 0)
        yield f"one along {dim}", good.narrow(dim, 0, 1)
        yield f"one more along {dim}", torch.cat([good, good.narrow(dim, 0, 1)], dim)
    yield "sparse", good.to_sparse()
    yield "meta", good.to("meta")
    yield "transposed", good.mT.contiguous() if good.dim() > 1 else good
    yield "expanded", good[:1].expand_as(good) if good.dim() else good
    yield "numpy", good.numpy()
    yield "list", good.tolist()


def bad_values(good: object) -> Iterator[tuple[str, object]]:
    """Values that are not, or hardly, what a good one is; a few are good in other clothes."""
    yield "None", None
    yield "text", "x"
    yield "an object", object()
    if isinstance(good, Tensor):
        yield from bad_tensors(good)
    elif isinstance(good, bool | str):
        yield "a number", 3
    elif isinstance(good, int):
        numbers = (-1, 0, 1, True, np.int64(good), np.bool_(True), good + 0.5, math.nan, math.inf, 2**70, -(2**70))
        yield from ((repr(number), number) for number in (*numbers, [good], torch.tensor(good)))
    elif isinstance(good, float):
        numbers = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 1e-308, 1, True, np.float32(good), 2**2000, 1j)
        yield from ((repr(number), number) for number in (*numbers, [good], torch.tensor(good)))
    elif isinstance(good, list | tuple):
        yield "nothing", type(good)()
        yield "twice as many", good * 2
        yield "one less", good[:-1]
        yield "a number", 3
        for name, value in bad_values(good[0]) if good else ():
            yield f"first {name}", type(good)([value, *good[1:]])
    elif isinstance(good, Layer):
        for name in ("weight", "bias"):
            for kind, value in bad_tensors(getattr(good, name)):
                yield f"{name}: {kind}", dataclasses.replace(good, **{name: value})
    elif isinstance(good, Parametrised):
        for kind, value in bad_tensors(good.theta):
            yield f"theta: {kind}", ("later", good.network, value)
        yield "a lone affine map", point(Network((2, 1)))
        yield "batch normalization", point(NORMALIZED)
        yield "no batch normalization", point(SMOOTH)
        yield "other inputs", point(Network.uniform((3, 2, 1), relu))
    elif isinstance(good, Risk):
        yield "a lone affine map", risk(Network((2, 1)))
        yield "batch normalization", risk(NORMALIZED)
        yield "deep", risk(DEEP)
        yield "one sample", Risk(good.network, good.inputs[:1], good.targets[:1])
        yield "constant targets", Risk(good.network, good.inputs, torch.ones_like(good.targets))
        yield "huge data", Risk(good.network, 1e200 * good.inputs, 1e200 * good.targets)
        yield "tiny data", Risk(good.network, 1e-200 * good.inputs, 1e-200 * good.targets)
    elif isinstance(good, Network):
        yield "a lone affine map", Network((2, 1))
        yield "batch normalization", NORMALIZED
        yield "immense", Network.uniform((10**6, 10**6, 10**6), relu)
    elif isinstance(good, Activation):
        yield "smooth", tanh
        yield "identity", identity
    elif isinstance(good, Insertion):
        yield "far", Insertion(9, 2, relu)
        yield "wide", Insertion(0, 10**10, relu)
        yield "narrow", Insertion(0, 1, relu)
        yield "smooth", Insertion(0, 2, tanh)
        yield "ranks", Insertion(0, 2, relu, (0, 0))
    elif isinstance(good, dict):
        yield "nothing", {}
        yield "no function", {"outputs": 3}


def answer(function: Callable[..., Any], given: dict[str, Any]) -> object:
    """What the function returns; Parametrised ones are made here, so that their own checks count too."""
    made = {
        name: Parametrised(*value[1:]) if isinstance(value, tuple) and value[:1] == ("later",) else value
        for name, value in given.items()
    }
    return function(**made)


def bad_calls(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The good call of one function, one argument at a time bad."""
    _, arguments = good_calls()[name]
    for argument, good in arguments.items():
        for kind, bad in bad_values(good):
            yield f"{argument}: {kind}", arguments | {argument: bad}


def test_no_public_function_is_forgotten() -> None:
    listed = {name.partition(",")[0] for name in good_calls()}
    missing = set()
    for found in pkgutil.walk_packages(embedding_principle.__path__, "embedding_principle."):
        module = importlib.import_module(found.name)
        for name, member in inspect.getmembers(module, inspect.isfunction):
            if member.__module__ == found.name and not name.startswith("_"):
                missing |= {f"{found.name.removeprefix('embedding_principle.')}.{name}"} - listed
    # Those that make the checks themselves have tests of their own, and so has the checker of certificates: a program
    # that reads files, whose functions take what it has read. Compiled loops take what descent_step has checked.
    others = ("arguments.", "scaling.", "certificates.check.", "certificates.check_atlas.", "compiled_steps.")
    assert {name for name in missing if not name.startswith(others)} == set()


# Each of them takes a part of the calls, so that all functions and all kinds are tried in a few seconds.
PART, PARTS = 0, 3


@pytest.mark.parametrize("name", good_calls())
def test_a_bad_argument_is_answered_or_refused_in_one_sentence(name: str) -> None:
    function, _ = good_calls()[name]
    calls = list(bad_calls(name))
    for kind, given in calls[PART::PARTS] or calls:
        try:
            # Parameters of 1e308 overflow, and torch warns of variances over an empty batch of networks.
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                answer(function, given)
        except ValueError as error:
            said = str(error)
            assert ": " in said, (kind, said)
            assert "\n" not in said.strip(), (kind, said)


ACTIVATIONS = [
    ("tanh", "'tanh'; write activations.tanh"),
    ("LeakyReLU", "'LeakyReLU'; write activations.leaky_relu(slope)"),
    (nn.Tanh(), "an object of type Tanh; write activations.tanh"),
    (nn.Hardtanh, "the class Hardtanh; write activations.hard_tanh"),
    (torch.relu, "write activations.relu"),
    (activations.leaky_relu, "write activations.leaky_relu(slope)"),
    (nn.Mish(), "an object of type Mish; known are relu, leaky_relu, hard_tanh"),
]


@pytest.mark.parametrize(("given", "said"), ACTIVATIONS, ids=[str(said) for _, said in ACTIVATIONS])
def test_what_torch_takes_for_an_activation_is_refused_with_what_to_write(given: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as one:
        Network.uniform((1, 2, 1), given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(said)) as many:
        Network((1, 2, 1), (given,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(said)):
        Insertion(0, 2, given)  # type: ignore[arg-type]
    assert str(one.value).startswith("activation: expected Activation, got")
    assert str(many.value).startswith("activations[0]: expected Activation, got")


def test_a_module_in_the_place_of_a_network_is_refused_with_the_conversion() -> None:
    module: Any = nn.Sequential(nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"network: .* type Sequential; take modules.from_module\(…\).network"):
        Risk(module, X, Y)
    with pytest.raises(ValueError, match=r"point: .* type Sequential; convert it with modules.from_module"):
        pruning.prune(module, X, 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda array: SMOOTH.forward(point(SMOOTH).theta, array),
        lambda array: pruning.prune(point(DEEP), array, 0),
        lambda array: Risk(SMOOTH, X, array),
        lambda array: inertia.inertia(array),
        lambda array: pruning.accuracy(Y, array),
        lambda array: SMOOTH.layers(array),
        lambda array: Parametrised(SMOOTH, array),
    ],
)
def test_a_numpy_array_is_named_as_one_and_the_remedy_works(call: Callable[[Any], Any]) -> None:
    with pytest.raises(
        ValueError, match=r"\w+: expected a tensor, got a NumPy array of float64; make one with torch.as"
    ):
        call(X.numpy())
    assert torch.equal(torch.as_tensor(X.numpy()), X)


MANY = 2**31
IMMENSE = Network.uniform((10**6, 10**6, 10**6), relu)
TOO_MANY: dict[str, Callable[[], object]] = {
    "batch": lambda: point(SMOOTH).expand(MANY),
    "points of a line": lambda: datasets.one_dimensional("wave", n=MANY),
    "runs of tilting": lambda: tilting.log_estimates(**measuring("tilting") | {"runs": MANY}),
    "runs of splitting": lambda: multilevel.log_estimates(**measuring("multilevel") | {"runs": MANY}),
    "copies of an immense network": lambda: compatible.three_fold(IMMENSE),
    "points of a path": lambda: symmetry.along(X, steps=MANY),
    "coordinates of a split": lambda: splitting.splitting_coordinates(IMMENSE, 0, 0, (0.5, 0.5)),
    "coordinates of a null neuron": lambda: splitting.null_coordinates(IMMENSE, 0),
}


@pytest.mark.parametrize("call", TOO_MANY.values(), ids=TOO_MANY)
def test_what_no_memory_holds_is_refused_before_it_is_allocated(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w+: this asks for more than 268435456 numbers at once"):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_float_types_are_computed_with_in_float64(dtype: torch.dtype) -> None:
    theta, inputs = point(DEEP).theta.to(dtype), X.to(dtype)
    given, double = Parametrised(DEEP, theta), Parametrised(DEEP, theta.double())
    assert torch.equal(DEEP.forward(theta, inputs), DEEP.forward(theta.double(), inputs.double()))
    assert torch.equal(pruning.prune(given, inputs, 0).theta, pruning.prune(double, inputs.double(), 0).theta)
    assert pruning.prune(given, inputs, 0).theta.dtype == torch.float64


def test_class_numbers_as_targets_of_cross_entropy_are_refused_with_the_remedy() -> None:
    labels, network = torch.tensor([0, 1, 1, 0, 1]), Network((2, 2))
    with pytest.raises(ValueError, match=r"targets: .* got class numbers; give one_hot\(labels\).double\(\)"):
        Risk(network, X, labels, cross_entropy)
    assert len(Risk(network, X, nn.functional.one_hot(labels).double(), cross_entropy).targets) == 5


@pytest.mark.parametrize("name", good_calls())
def test_the_good_calls_are_answered(name: str) -> None:
    function, given = good_calls()[name]
    answer(function, given)
