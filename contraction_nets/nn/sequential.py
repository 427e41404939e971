"""A feed-forward network as an implicit one: its hidden layers stacked into one state."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import nn

from contraction_nets.nn.affine import Affine, stacked
from contraction_nets.nn.lowering import KINDS, Shape, lower

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU)

_MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


def from_sequential(
    sequential: nn.Module, *, input_shape: Sequence[int] | None = None
) -> dict[str, Any]:
    """The arguments of `ImplicitWeights` for a feed-forward network in evaluation (THEORY §1).

    What the activations put out is stacked into one state, so that A is strictly block lower
    triangular. The entries of Linear and Conv2d layers are placed bit for bit; affine layers
    that follow each other, BatchNorm and AvgPool2d are composed in float64, and what is
    certified are the weights folded that way, rounded to float64.

    Parameters
    ----------
    sequential : torch.nn.Sequential
        Linear, Conv2d, BatchNorm1d, BatchNorm2d, AvgPool2d, ZeroPad2d, Flatten, Identity and
        Dropout layers in any order that torch accepts, with one kind of activation anywhere
        between, before or after them.
    input_shape : (channels, height, width), optional
        Of the images that enter, for a network that begins with layers of images. The input u
        is such an image, flattened in this order.

    Returns
    -------
    dict
        A, B, C and D are `scipy.sparse.csr_array` in canonical form, without stored zeros, where
        the network has a layer of images, else arrays; D is there only where no activation is.

    Raises
    ------
    ValueError
        Another kind of layer, or one with hooks or a `forward` of its own; layers that do not
        fit each other or the image; an image without `input_shape`; BatchNorm in training mode;
        weights that are not finite; activations of different kinds.
    """
    layers = _layers(sequential)
    spec = _activation(layers)
    shape = _shape(layers, input_shape)
    inputs, hidden, affine = math.prod(shape), [], None
    for layer in layers:
        if isinstance(layer, _ACTIVATIONS):
            hidden.append(affine or Affine.identity(math.prod(shape)))
            affine = None
        else:
            following, shape = lower(layer, shape)
            affine = following.after(affine) if following else affine
            if affine and not affine.finite:
                raise ValueError(
                    f"got NaN or Inf in {layer!r}, folded with the affine layers before it, "
                    "expected finite weights; clean or rescale them first."
                )
    output = affine or Affine.identity(math.prod(shape))
    sparse = any(_image(layer) for layer in layers)
    return {**stacked(inputs, hidden, output, sparse=sparse), "activation": spec}


def _layers(network: nn.Module) -> list[nn.Module]:
    """The layers in order, those of Sequentials inside it included, every one of a known kind."""
    if not isinstance(network, nn.Sequential):
        raise ValueError(
            f"got a {type(network).__name__}, expected a torch.nn.Sequential of affine layers "
            "and activations; write the network as one."
        )
    layers = _flat(network)
    for layer in layers:
        if isinstance(layer, _MAXIMA):
            raise ValueError(
                f"got {layer!r}, expected affine layers and activations, and a maximum is "
                "neither; use AvgPool2d or a Conv2d with a stride instead."
            )
        if not isinstance(layer, (*KINDS, *_ACTIVATIONS)):
            raise ValueError(
                f"got the layer {layer!r}, expected {', '.join(kind.__name__ for kind in KINDS)} "
                "or an activation (ReLU, LeakyReLU, Tanh, Sigmoid, Softplus, ELU); fold or "
                "replace it first."
            )
        check_plain(layer, (*KINDS, *_ACTIVATIONS))
    return layers


def _flat(sequential: nn.Sequential) -> list[nn.Module]:
    check_plain(sequential, (nn.Sequential,))
    layers = []
    for layer in sequential:
        layers += _flat(layer) if isinstance(layer, nn.Sequential) else [layer]
    return layers


def _activation(layers: list[nn.Module]) -> str:
    """The spec of the only kind of activation, "relu" where there is none."""
    specs = sorted({_spec(layer) for layer in layers if isinstance(layer, _ACTIVATIONS)})
    if len(specs) > 1:
        raise ValueError(
            f"got the activations {', '.join(specs)}, expected one kind only; "
            "an implicit network has a single φ."
        )
    return specs[0] if specs else "relu"


def _image(layer: nn.Module) -> bool:
    return any(kind.image for module, kind in KINDS.items() if isinstance(layer, module))


def _shape(layers: list[nn.Module], input_shape: Sequence[int] | None) -> Shape:
    """The shape of one input: as given, or as the first layer that depends on it says."""
    if input_shape is not None:
        try:
            shape = tuple(operator.index(size) for size in input_shape)
        except TypeError:
            shape = ()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(
                f"got input_shape={input_shape!r}, expected (channels, height, width), three "
                "positive integers; leave it out for a network without images."
            )
        return shape
    for layer in layers:
        for module, kind in KINDS.items():
            if isinstance(layer, module) and kind.image:
                raise ValueError(
                    f"got {layer!r} and no size of the images, expected one; pass "
                    "input_shape=(channels, height, width)."
                )
            if isinstance(layer, module) and kind.features:
                return (getattr(layer, kind.features),)
    raise ValueError(
        "got a Sequential without a Linear layer, expected at least one; or pass "
        "input_shape=(channels, height, width)."
    )


def check_plain(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> None:
    """Refuse a subclass that computes something else, and hooks that may.

    A parametrization also makes a subclass, whose methods are those of the layer.

    Raises
    ------
    ValueError
        Hooks, or a `forward` that is not that of the first of these kinds that it is one of.
    """
    kind = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if kind is None:
        return  # refused elsewhere, with what was expected
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    own = any(
        getattr(type(layer), name, None) is not getattr(kind, name, None) or name in vars(layer)
        for name in ("__call__", "forward", "_conv_forward")
    )
    if own or hooked:
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
        "the threshold 20 or more, or ELU; fold or replace it first."
    )
