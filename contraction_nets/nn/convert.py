"""Between torch modules, torch files and plain weight matrices."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from contraction_nets.nn.layers import ImplicitLayer, ImplicitNetwork

if TYPE_CHECKING:
    from contraction_nets.certificates.weights import ImplicitWeights

Array = NDArray[Any]

_IGNORED = (nn.Flatten, nn.Identity, nn.Dropout)
"""Layers that are the identity on the vector of features, in evaluation."""

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU)


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
    _check_plain(network, (ImplicitNetwork,))
    _check_plain(layer, (ImplicitLayer,))
    tensors = {"A": layer.A, "B": layer.B, "b": layer.b}
    tensors |= {"C": network.C, "D": network.D, "c": network.c}
    arrays = {name: _array(value) for name, value in tensors.items() if value is not None}
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
        optimal = lipschitz_certificate(weights).weighted
        measure, eta = optimal.measure, optimal.eta
    dtype = torch.from_numpy(np.zeros(0, np.result_type(*arrays.values()))).dtype
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
                target.copy_(torch.zeros(()) if value is None else torch.from_numpy(value.copy()))
    return network


def from_sequential(sequential: nn.Module) -> dict[str, Any]:
    """The arguments of `ImplicitWeights` for a feed-forward network (THEORY §1).

    The hidden layers are stacked into one state, so that A is strictly block lower
    triangular.

    Parameters
    ----------
    sequential : torch.nn.Sequential
        Linear layers with one kind of activation between them (and after the last one, if
        there is one); Flatten, Identity and Dropout are passed over.

    Raises
    ------
    ValueError
        Another kind of layer, or one with hooks or a `forward` of its own; two linear layers
        without an activation between them, or of widths that do not fit; activations of
        different kinds.
    """
    linear, spec, ends_linear = _chain(sequential)
    hidden = linear[:-1] if ends_linear else linear
    dtype = functools.reduce(
        torch.promote_types, (value.dtype for layer in linear for value in layer.parameters())
    )
    sizes = [layer.out_features for layer in hidden] or [1]
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    n, p = starts[-1], linear[0].in_features
    q = linear[-1].out_features
    A, B, b = (torch.zeros(shape, dtype=dtype) for shape in ((n, n), (n, p), (n,)))
    C, D, c = (torch.zeros(shape, dtype=dtype) for shape in ((q, n), (q, p), (q,)))
    for k, layer in enumerate(hidden):
        rows = slice(starts[k], starts[k + 1])
        if k == 0:
            B[rows] = layer.weight.detach().cpu()
        else:
            A[rows, starts[k - 1] : starts[k]] = layer.weight.detach().cpu()
        if layer.bias is not None:
            b[rows] = layer.bias.detach().cpu()
    if not ends_linear:
        C[:, starts[-2] :] = torch.eye(q, dtype=dtype)
    else:
        weight = linear[-1].weight.detach().cpu()
        if hidden:
            C[:, starts[-2] :] = weight
        else:
            D[:] = weight
        if linear[-1].bias is not None:
            c[:] = linear[-1].bias.detach().cpu()
    tensors = {"A": A, "B": B, "C": C, "b": b, "c": c} | ({} if hidden else {"D": D})
    arrays: dict[str, Any] = {name: _array(value) for name, value in tensors.items()}
    return {**arrays, "activation": spec}


def load_torch(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of a .pt or .pth file by dotted name; nothing in it is executed.

    Raises
    ------
    ValueError
        Not a dictionary of tensors (possibly nested, as ``{"state_dict": …}``).
    """
    try:
        loaded = torch.load(os.fspath(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged pickle makes it
        # Not in its own words: they advise to run what is in the file.
        raise ValueError(
            f"torch.load(weights_only=True) refuses {os.path.basename(path)} "
            f"({type(error).__name__}), expected tensors and nothing else; "
            "save network.state_dict()."
        ) from error
    found: dict[str, Array] = {}

    def collect(value: Any, name: str) -> None:
        if isinstance(value, Tensor):
            found[name] = _array(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(inner, f"{name}.{key}" if name else str(key))

    collect(loaded, "")
    if not found:
        raise ValueError(
            f"got a {type(loaded).__name__} without tensors, expected a state_dict; "
            "save it with torch.save(network.state_dict(), path)."
        )
    return found


def load_safetensor(path: str | os.PathLike[str], key: str) -> Array:
    """One tensor of a .safetensors file; bfloat16 as the float32 that holds it exactly."""
    with safe_open(path, framework="pt") as tensors:
        return _array(tensors.get_tensor(key))


def _array(tensor: Tensor) -> Array:
    dense = tensor.detach().cpu()
    if dense.dtype == torch.bfloat16:  # which numpy does not have; float32 holds it exactly
        dense = dense.float()
    array: Array = dense.numpy().copy()
    return array


def _chain(sequential: nn.Module) -> tuple[list[nn.Linear], str, bool]:
    """The linear layers in order, their activation, and whether the chain ends with one."""
    if not isinstance(sequential, nn.Sequential):
        raise ValueError(
            f"got a {type(sequential).__name__}, expected a torch.nn.Sequential of Linear layers "
            "and activations; write the network as one."
        )
    linear: list[nn.Linear] = []
    specs: list[str] = []
    after_linear = False
    for layer in _flat(sequential):
        _check_plain(layer, (nn.Linear, *_IGNORED, *_ACTIVATIONS))
        if isinstance(layer, _IGNORED):
            continue
        if isinstance(layer, nn.Linear) == after_linear:
            raise ValueError(
                f"got {layer!r} where {'an activation' if after_linear else 'a Linear layer'} was "
                "expected; linear layers and activations must alternate, fold the rest first."
            )
        if isinstance(layer, nn.Linear):
            if linear and linear[-1].out_features != layer.in_features:
                raise ValueError(
                    f"got {layer!r} after a layer of {linear[-1].out_features} features, expected "
                    "as many inputs."
                )
            linear.append(layer)
        else:
            specs.append(_spec(layer))
        after_linear = not after_linear
    if not linear:
        raise ValueError("got a Sequential without a Linear layer, expected at least one.")
    if len(set(specs)) > 1:
        raise ValueError(
            f"got the activations {', '.join(sorted(set(specs)))}, expected one kind only; "
            "an implicit network has a single φ."
        )
    return linear, specs[0] if specs else "relu", after_linear


def _flat(sequential: nn.Sequential) -> list[nn.Module]:
    """The layers of a Sequential, those of Sequentials inside it included."""
    _check_plain(sequential, (nn.Sequential,))
    layers = []
    for layer in sequential:
        layers += _flat(layer) if isinstance(layer, nn.Sequential) else [layer]
    return layers


def _check_plain(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Refuse a subclass that computes something else, and hooks that may.

    A parametrization also makes a subclass, whose `forward` is that of the layer.
    """
    kind = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if kind is None:
        return  # refused later, with what was expected
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    if type(layer).forward is not kind.forward or "forward" in vars(layer) or hooked:
        raise ValueError(
            f"got a {type(layer).__name__} with hooks or a forward of its own, expected a plain "
            f"{kind.__name__}; remove them, for nothing is known about what they compute."
        )


def _spec(layer: nn.Module) -> str:
    """The spec of an activation layer."""
    if isinstance(layer, nn.LeakyReLU):
        return f"leaky_relu({layer.negative_slope!r})"
    if isinstance(layer, nn.ELU):
        return f"elu({layer.alpha!r})"
    # Above its threshold torch's softplus jumps to the identity, by 2e-9 at 20.
    if isinstance(layer, nn.Softplus) and layer.beta == 1 and layer.threshold >= 20:
        return "softplus"
    plain = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
    if type(layer) in plain:
        return plain[type(layer)]
    raise ValueError(
        f"got the layer {layer!r}, expected ReLU, LeakyReLU, Tanh, Sigmoid, Softplus(beta=1) with "
        "the threshold 20 or more, or ELU after a Linear layer; fold or replace it first."
    )
