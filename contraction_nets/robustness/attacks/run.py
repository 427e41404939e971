"""Attack samples, and confirm what the attack found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contraction_nets.nn.options import as_seed
from contraction_nets.robustness.attacks.ball import ball
from contraction_nets.robustness.attacks.base import Attack, Domain, Module, get_attack

_BATCH = 500


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack found, one sample a row.

    Attributes
    ----------
    inputs : (m, …) tensor
        The worst inputs found, where the label is lost; the sample itself elsewhere, and where
        it is misclassified already.
    success : (m,) bool tensor
        Whether the forward pass of `inputs` gives another label than the right one: the
        accuracy under attack is the share of the others.
    labels : (m,) int64 tensor
        What the network says of `inputs`.
    clean_labels : (m,) int64 tensor
        What it says of the samples themselves.
    distances : (m,) float64 tensor
        ℓ∞ distances of `inputs` from the samples, in input units, at most ε.
    """

    inputs: Tensor
    success: Tensor
    labels: Tensor
    clean_labels: Tensor
    distances: Tensor


@torch.inference_mode(False)  # gradients are needed, whatever the caller wants
def attack(
    module: Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    *,
    method: str | Attack = "pgd",
    domain: Domain = (0.0, 1.0),
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> AttackResult:
    """Search the ℓ∞ ball around each sample for an input with another label.

    What is found is confirmed by a forward pass, and lies within ε of the sample and in the
    domain in exact arithmetic. Nothing of the module is changed; it is attacked in the mode that
    it is in. That an attack finds nothing proves nothing.

    Parameters
    ----------
    module : torch.nn.Module or callable
        From inputs (batch, …) to outputs (batch, q); the label is the largest output.
    x : (m, …) float32 or float64 tensor
        Samples within the domain, in the dtype and on the device of the module.
    y : (m,) integer tensor
        Their right labels.
    epsilon : float
        ℓ∞ radius, in input units (pixels in [0, 1]).
    method : {"pgd", "fgsm", "inversion", "noise"} or Attack
        An object such as ``Pgd(steps=100, restarts=5)`` has options of its own.
    domain : (float, float) or None
        Interval of every input; inputs are not bounded without one.
    seed : int
        Of everything random.
    on_batch : callable, optional
        Called with the samples done and all of them.

    Returns
    -------
    AttackResult

    Raises
    ------
    ValueError
        Samples that are not finite, not in the domain or no tensors of float32 or float64;
        labels that do not fit; an unknown method; ε, a domain or a seed that is none; outputs
        that are not finite.

    Examples
    --------
    >>> from contraction_nets import ImplicitNetwork
    >>> network = ImplicitNetwork(4, 10, 3)
    >>> x = torch.rand(5, 4)
    >>> found = attack(network, x, network(x).argmax(dim=1), epsilon=0.1)
    >>> bool((found.distances <= 0.1).all())
    True
    """
    chosen = get_attack(method)
    x, y = _checked(module, x, y)
    ball(x, epsilon, domain)  # refuses what no batch should begin with
    generator = torch.Generator().manual_seed(as_seed(seed))
    parts = []
    for u, labels in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
        parts.append(_attacked(chosen, module, u, labels, epsilon, domain, generator))
        if on_batch is not None:
            on_batch(sum(len(part[0]) for part in parts), len(x))
    inputs, after, before = (torch.cat(column) for column in zip(*parts, strict=True))
    distances = (inputs.double() - x.double()).abs().flatten(1).amax(dim=1)
    return AttackResult(inputs, after != y, after, before, distances)


def _attacked(
    chosen: Attack,
    module: Module,
    u: Tensor,
    y: Tensor,
    epsilon: float,
    domain: Domain,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs found in one batch, and the labels after and before."""
    before = _labels(module, u, y)
    right = (before == y).nonzero()[:, 0]
    found = u.clone()
    if len(right):
        found[right] = chosen.perturb(module, u[right], y[right], epsilon, domain, generator)
    # What counts is what a forward pass says of what is returned.
    lost = (_labels(module, found, y) != y).reshape(-1, *[1] * (u.ndim - 1))
    inputs = torch.where(lost, found, u)
    return inputs, _labels(module, inputs, y), before


@torch.no_grad()
def _labels(module: Module, u: Tensor, y: Tensor) -> Tensor:
    output = module(u)
    if output.ndim != 2 or len(output) != len(u) or output.shape[1] < 2:
        raise ValueError(
            f"got outputs of shape {tuple(output.shape)}, expected ({len(u)}, q): one row a "
            "sample, two outputs or more."
        )
    if not bool(torch.isfinite(output).all()):
        raise ValueError("got outputs that are not finite, expected finite numbers.")
    if int(y.max()) >= output.shape[1]:
        raise ValueError(
            f"got the label {int(y.max())}, expected labels below {output.shape[1]}, the number "
            "of outputs."
        )
    return output.argmax(dim=1)


def _checked(module: Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise ValueError(
            f"got {type(x).__name__} and {type(y).__name__}, expected samples and labels as "
            "tensors; use torch.as_tensor."
        )
    if x.ndim < 2 or 0 in x.shape or y.shape != x.shape[:1]:
        raise ValueError(
            f"got samples of shape {tuple(x.shape)} and labels of shape {tuple(y.shape)}, "
            "expected (m, p) and (m,): at least one sample, one a row."
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or int(y.min()) < 0:
        raise ValueError(f"got labels of {y.dtype}, expected whole numbers of at least 0.")
    weights = list(module.parameters()) if isinstance(module, nn.Module) else []
    for weight in [weight for weight in weights if weight.is_floating_point()][:1]:
        if (weight.dtype, weight.device) != (x.dtype, x.device):
            raise ValueError(
                f"got samples in {x.dtype} on {x.device}, expected {weight.dtype} on "
                f"{weight.device} as the network; move them there with .to()."
            )
    # Tensors of inference mode have no part in gradients; their clones have.
    return x.detach().clone(), y.to(x.device, torch.int64).clone()
