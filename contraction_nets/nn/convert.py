"""Between torch modules and plain weight matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse

from contraction_nets.nn.layers import ImplicitLayer, ImplicitNetwork
from contraction_nets.nn.sequential import check_plain
from contraction_nets.nn.sequential import from_sequential as from_sequential
from contraction_nets.nn.torch_files import as_array

if TYPE_CHECKING:
    from contraction_nets.certificates.weights import ImplicitWeights


def from_module(network: ImplicitNetwork) -> dict[str, Any]:
    """The arguments of `ImplicitWeights` for an `ImplicitNetwork`, in its dtype.

    Raises
    ------
    ValueError
        Not an `ImplicitNetwork`, or one with hooks or a `forward` of its own.
    """
    if not isinstance(network, ImplicitNetwork):
        raise ValueError(
            f"got a {type(network).__name__}, expected an ImplicitNetwork; "
            "use ImplicitWeights.from_sequential for feed-forward networks."
        )
    layer = network.layer
    check_plain(network, (ImplicitNetwork,))
    check_plain(layer, (ImplicitLayer,))
    tensors = {"A": layer.A, "B": layer.B, "b": layer.b}
    tensors |= {"C": network.C, "D": network.D, "c": network.c}
    arrays = {name: as_array(value) for name, value in tensors.items() if value is not None}
    return {**arrays, "activation": str(layer.activation)}


def to_module(weights: ImplicitWeights) -> ImplicitNetwork:
    """An `ImplicitNetwork` with these weights, in the widest of their dtypes.

    Its γ is 0.95, or halfway from the measure of A to one where that is higher; its weights η
    are all ones, or those that prove it well-posed where μ∞(A) ≥ 1.

    Raises
    ------
    NotWellPosedError
        No weights η give μ_{∞,η}(A) < 1.
    """
    from contraction_nets.certificates.lipschitz import lipschitz_certificate
    from contraction_nets.geometry.measures import matrix_measure

    arrays = weights.arrays()
    measure, eta = matrix_measure(weights.A), None
    if measure >= 1:
        # Of A alone: a bound with B and C may leave the range of float64.
        ones = np.ones((weights.state_dim, 1))
        optimal = lipschitz_certificate(weights.A, ones, ones.T).weighted
        measure, eta = optimal.measure, optimal.eta
    widest = np.result_type(*(array.dtype for array in arrays.values()))
    dtype = torch.from_numpy(np.zeros(0, widest)).dtype
    network = ImplicitNetwork(
        weights.input_dim,
        weights.state_dim,
        weights.output_dim,
        feedthrough=weights.D is not None,
        activation=weights.activation,
        gamma=0.95 if measure < 0.95 else (1 + measure) / 2,
        eta=eta,
        dtype=dtype,
    )
    layer = network.layer
    targets = {"A": layer.A, "B": layer.B, "b": layer.b}
    targets |= {"C": network.C, "D": network.D, "c": network.c}
    with torch.no_grad():
        for name, target in targets.items():
            if target is not None:
                value = arrays.get(name)
                target.copy_(torch.zeros(()) if value is None else torch.from_numpy(_dense(value)))
    return network


def _dense(array: Any) -> NDArray[Any]:
    """A copy in full, of the same numbers."""
    return np.asarray(array.toarray() if issparse(array) else array.copy())
