"""Keeping state matrices in their set: projections between gradient steps, in one's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from contraction_nets.geometry.projection import project_violating
from contraction_nets.geometry.sets import RowSet
from contraction_nets.solving.projection import CLOSED_FORM, project_onto
from contraction_nets.solving.registry import get_backend


class Constrained(Protocol):
    """A module with a state matrix A (or kernel) and the set that it belongs in."""

    A: Tensor

    def constraint(self) -> RowSet: ...


def constrained_modules(module: nn.Module) -> Iterator[Constrained]:
    """The constrained layers in a module whose A is a parameter, not a parametrization."""
    for child in module.modules():
        # On the class: a failing look-up on a module is slow, and this runs at every step.
        if hasattr(type(child), "constraint") and not parametrize.is_parametrized(child, "A"):
            yield cast(Constrained, child)


def project_(module: nn.Module, *, solver: str = CLOSED_FORM, **options: Any) -> int:
    """Project every state matrix in a module onto its set {μ_{∞,η}(A) ≤ γ}, in place.

    Parameters
    ----------
    module : torch.nn.Module
        Holds any number of `ImplicitLayer` and `ImplicitConv2d`.
    solver : str
        Any of ``available_solvers("projection")``; "closed_form" runs on the device of A, the
        others on the CPU.
    **options
        Options of the backend, checked by name.

    Returns
    -------
    int
        Number of rows (of the matrices, or output channels of the kernels) that changed;
        all others keep every bit.

    Raises
    ------
    ValueError
        A holds NaN or Inf or is in half precision, an unknown option.
    UnknownSolverError, SolverError
        No such backend, or it found no optimum; nothing has been written then.
    """
    return _project(list(constrained_modules(module)), solver, options)


def project_after_step(
    optimizer: Optimizer,
    module: nn.Module,
    *,
    solver: str = CLOSED_FORM,
    every: int = 1,
    **options: Any,
) -> RemovableHandle:
    """Project the module after every optimizer step, by a hook on the optimizer.

    The constraint holds whenever ``optimizer.step()`` returns, also with learning-rate
    schedulers and `torch.amp.GradScaler`, which skips both together. Where the step is given a
    closure that it evaluates at several points, as in L-BFGS, each of them is projected first;
    L-BFGS without a line search may still diverge.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    module : torch.nn.Module
        Holds at least one constrained layer.
    solver : str
        As in `project_`.
    every : int
        Project after every so many steps only; in between, and in a closure, the constraint
        may not hold.
    **options
        Options of the backend, checked by name.

    Returns
    -------
    torch.utils.hooks.RemovableHandle
        ``handle.remove()`` ends it all.

    Raises
    ------
    ValueError
        No constrained layer in the module, or one in half precision; none of its state
        matrices in the optimizer, `every` below one, an unknown option.
    UnknownSolverError
        No such backend.

    Examples
    --------
    >>> from contraction_nets import ImplicitNetwork
    >>> network = ImplicitNetwork(2, 8, 1)
    >>> optimizer = torch.optim.Adam(network.parameters())
    >>> handle = project_after_step(optimizer, network)
    """
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"got every={every!r}, expected a whole number of steps, at least 1.")
    get_backend(solver, "projection", **options)
    constrained = list(constrained_modules(module))
    if not constrained:
        raise ValueError(
            "the module has no state matrix to project, expected an ImplicitLayer or "
            "ImplicitConv2d without parametrization; pass the network that is trained."
        )
    refuse_half(layer.A for layer in constrained)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(layer.A) in trained for layer in constrained):
        raise ValueError(
            "the optimizer updates no state matrix of the module, expected its parameters; "
            "make the optimizer from module.parameters()."
        )
    steps = 0

    def project() -> None:
        _project(constrained, solver, options)

    def after() -> None:
        nonlocal steps
        steps += 1
        if steps % every == 0:
            project()

    return hook_steps(optimizer, after, project if every == 1 else None)


def hook_steps(
    optimizer: Optimizer,
    after: Callable[[], Any],
    before_closure: Callable[[], Any] | None = None,
) -> RemovableHandle:
    """Call `after` after every step, and `before_closure` before a step evaluates its closure."""

    def hook(*_: Any) -> None:
        after()

    handles = [optimizer.register_step_post_hook(hook)]
    if before_closure is None:
        return _Handles(handles)

    def before(_: Optimizer, args: Any, kwargs: Any) -> Any:
        # The optimizer itself comes first, then the closure, if there is one.
        if len(args) > 1 and args[1] is not None:
            return (args[0], evaluating(args[1]), *args[2:]), kwargs
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": evaluating(kwargs["closure"])}
        return None

    def evaluating(closure: Callable[[], Any]) -> Callable[[], Any]:
        def evaluate() -> Any:
            before_closure()
            return closure()

        return evaluate

    handles.append(optimizer.register_step_pre_hook(before))
    return _Handles(handles)


class _Handles(RemovableHandle):
    """Several hooks that are removed together."""

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self.handles = handles

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _project(layers: list[Constrained], solver: str, options: dict[str, Any]) -> int:
    refuse_half(layer.A for layer in layers)
    # All are computed before any is written.
    changes = [_changed_rows(layer, solver, options) for layer in layers]
    for A, values, index, projected in changes:
        if len(index):
            values[index] = projected
            increment_version(A)  # numpy writes without autograd's knowledge
    return sum(len(index) for _, _, index, _ in changes)


def refuse_half(weights: Iterable[Tensor]) -> None:
    """ValueError for weights in a dtype in which projections are not exact."""
    for tensor in weights:
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"got a matrix in {tensor.dtype}, expected float32 or float64, in which "
                "projections are exact; keep the parameters in float32 and compute in half "
                "precision with torch.autocast."
            )


def _changed_rows(
    layer: Constrained, solver: str, options: dict[str, Any]
) -> tuple[Tensor, Any, Any, Any]:
    """A, a view of it, the numbers (k,) of the rows that a projection changes, their values."""
    A, constraint = layer.A, layer.constraint()
    values = A.detach()
    on_cpu = values.device.type == "cpu"
    if solver == CLOSED_FORM and not options:
        # On a CPU the kernel is faster on numpy arrays, which share the memory of tensors.
        view = values.numpy() if on_cpu else values
        index, projected = project_violating(view, constraint.cached_rows(view.shape))
        if projected.ndim < view.ndim:
            projected = projected.reshape(-1, *view.shape[1:])
        return A, view, index, projected
    array = values.cpu().numpy()
    found = project_onto(array, constraint, solver=solver, **options)
    index = np.nonzero((found != array).reshape(len(array), -1).any(axis=1))[0]
    if on_cpu:
        return A, array, index, found[index]
    there = [torch.from_numpy(part).to(values.device) for part in (index, found[index])]
    return A, values, *there
