"""The mathematics of embedding: networks, risks, critical points and the maps between their landscapes.

`from embedding_principle import lift, search` works for the names below; each is read from its module when it is asked
for (PEP 562), so that `import embedding_principle` alone loads neither torch nor anything else.

Example:
    >>> import embedding_principle as ep
    >>> ep.Network.uniform((1, 2, 1), ep.tanh).n_parameters
    7
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

_NAMES = {
    "activations": "Activation AffinePiece named "
    "elu gelu hard_tanh identity leaky_relu relu selu sigmoid softplus tanh",
    "critical_points": "CriticalPoints NotCriticalError critical_inertia search",
    "curvature.extreme": "extreme_eigenvalues",
    "curvature.hessian": "hessian",
    "curvature.inertia": "Inertia inertia",
    "datasets": "Dataset digits iris one_dimensional wine",
    "depth.approximate": "approximate_lift",
    "depth.degeneracy": "lifted_inertia",
    "depth.lifting": "Insertion collapse lift violations",
    "depth.pruning": "accuracy agreement prune prune_by_least_squares",
    "depth.spare_neurons": "spare_neuron_lift",
    "linearity": "linear_fraction linear_neurons linearization_index neuron_indices",
    "modules": "from_module to_module",
    "networks": "Layer Network Parametrised",
    "risks": "Loss Risk cross_entropy squared_error",
    "training.ensembles": "Adam GradientDescent ensemble train",
    "width.splitting": "split splitting_inertia with_null_neuron",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_HOMES]

# Type checkers do not call __getattr__ for what stands here; a test compares the two lists.
if TYPE_CHECKING:
    from embedding_principle.activations import Activation as Activation
    from embedding_principle.activations import AffinePiece as AffinePiece
    from embedding_principle.activations import elu as elu
    from embedding_principle.activations import gelu as gelu
    from embedding_principle.activations import hard_tanh as hard_tanh
    from embedding_principle.activations import identity as identity
    from embedding_principle.activations import leaky_relu as leaky_relu
    from embedding_principle.activations import named as named
    from embedding_principle.activations import relu as relu
    from embedding_principle.activations import selu as selu
    from embedding_principle.activations import sigmoid as sigmoid
    from embedding_principle.activations import softplus as softplus
    from embedding_principle.activations import tanh as tanh
    from embedding_principle.critical_points import CriticalPoints as CriticalPoints
    from embedding_principle.critical_points import NotCriticalError as NotCriticalError
    from embedding_principle.critical_points import critical_inertia as critical_inertia
    from embedding_principle.critical_points import search as search
    from embedding_principle.curvature.extreme import extreme_eigenvalues as extreme_eigenvalues
    from embedding_principle.curvature.hessian import hessian as hessian
    from embedding_principle.curvature.inertia import Inertia as Inertia
    from embedding_principle.curvature.inertia import inertia as inertia
    from embedding_principle.datasets import Dataset as Dataset
    from embedding_principle.datasets import digits as digits
    from embedding_principle.datasets import iris as iris
    from embedding_principle.datasets import one_dimensional as one_dimensional
    from embedding_principle.datasets import wine as wine
    from embedding_principle.depth.approximate import approximate_lift as approximate_lift
    from embedding_principle.depth.degeneracy import lifted_inertia as lifted_inertia
    from embedding_principle.depth.lifting import Insertion as Insertion
    from embedding_principle.depth.lifting import collapse as collapse
    from embedding_principle.depth.lifting import lift as lift
    from embedding_principle.depth.lifting import violations as violations
    from embedding_principle.depth.pruning import accuracy as accuracy
    from embedding_principle.depth.pruning import agreement as agreement
    from embedding_principle.depth.pruning import prune as prune
    from embedding_principle.depth.pruning import prune_by_least_squares as prune_by_least_squares
    from embedding_principle.depth.spare_neurons import spare_neuron_lift as spare_neuron_lift
    from embedding_principle.linearity import linear_fraction as linear_fraction
    from embedding_principle.linearity import linear_neurons as linear_neurons
    from embedding_principle.linearity import linearization_index as linearization_index
    from embedding_principle.linearity import neuron_indices as neuron_indices
    from embedding_principle.modules import from_module as from_module
    from embedding_principle.modules import to_module as to_module
    from embedding_principle.networks import Layer as Layer
    from embedding_principle.networks import Network as Network
    from embedding_principle.networks import Parametrised as Parametrised
    from embedding_principle.risks import Loss as Loss
    from embedding_principle.risks import Risk as Risk
    from embedding_principle.risks import cross_entropy as cross_entropy
    from embedding_principle.risks import squared_error as squared_error
    from embedding_principle.training.ensembles import Adam as Adam
    from embedding_principle.training.ensembles import GradientDescent as GradientDescent
    from embedding_principle.training.ensembles import ensemble as ensemble
    from embedding_principle.training.ensembles import train as train
    from embedding_principle.width.splitting import split as split
    from embedding_principle.width.splitting import splitting_inertia as splitting_inertia
    from embedding_principle.width.splitting import with_null_neuron as with_null_neuron

    __version__: str
else:

    def __getattr__(name):
        if name == "__version__":
            return importlib.metadata.version("embedding-principle-companion")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
