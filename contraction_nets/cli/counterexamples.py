"""The counterexamples that `robustness` and `attack` find, in one file that anybody can forward."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from contraction_nets.cli.held_out import Samples
    from contraction_nets.nn.layers import ImplicitNetwork

TENSORS = ("inputs", "epsilon", "samples", "labels", "found")
_METADATA = "contraction_nets"
_VERSION = 1


@dataclass
class CounterexampleFile:
    """Inputs with another label, one for a radius and a sample, written whole and atomically.

    What is written holds for the numbers in the file, as they are stored:

    - the input is in the domain, and within ε of the test input in the dtype of the network, in
      exact arithmetic: what rounding to that dtype moved out of reach is moved back in (`ball`);
    - the network as it is saved gives it another label than the sample has, by a forward pass of
      this input alone and by one of all inputs in the file.

    What does not is left out, such as a proved counterexample whose outputs differ by less than
    the tolerance of the equilibria.

    Tensors of the file, a counterexample a row: `inputs` (m, p) in the dtype of the network,
    `epsilon` (m,) float64, and as int64 (m,) `samples`, the number of the test sample, `labels`,
    its label, and `found`, that of the forward pass of all inputs.

    Attributes
    ----------
    path : Path
    network : ImplicitNetwork
        In evaluation mode.
    tested : Samples
    domain : (float, float) or None
        Interval of every input.
    weights_sha256 : str
        Of the network.
    rows : dict
        Input and label by radius and number of the sample.
    written : set
        The keys of the rows that are in the file.
    """

    path: Path
    network: ImplicitNetwork
    tested: Samples
    domain: tuple[float, float] | None
    weights_sha256: str
    rows: dict[tuple[float, int], tuple[Tensor, int]] = field(default_factory=dict)
    written: set[tuple[float, int]] = field(default_factory=set)

    def add(self, epsilon: float, sample: int, inputs: Tensor | NDArray[Any]) -> None:
        """Note an input (p,) in reach of a sample, if the network gives it another label."""
        import torch

        from contraction_nets.robustness.attacks.ball import ball

        given, label = self.tested.inputs[sample], int(self.tested.labels[sample])
        lower, upper = ball(given, epsilon, self.domain)
        stored = torch.as_tensor(inputs).to(given).clamp(lower, upper)
        if int(self._found(stored[None])) != label:
            self.rows[epsilon, sample] = stored, label

    def save(self) -> None:
        """Write all rows, in order; a file without any is a file as well."""
        import torch
        from safetensors.torch import save as safetensors_bytes

        from contraction_nets.certificates.storage import write_atomically

        keys = sorted(self.rows)
        while True:
            inputs = self.tested.inputs.new_zeros(len(keys), self.network.layer.in_features)
            for number, key in enumerate(keys):
                inputs[number] = self.rows[key][0]
            labels = torch.tensor([self.rows[key][1] for key in keys], dtype=torch.int64)
            found = self._found(inputs).cpu()
            # Tolerances are those of a whole batch: without a row, the others are solved anew.
            left = [key for key, lost in zip(keys, found != labels, strict=True) if lost]
            if left == keys:
                break
            keys = left
        columns = (
            inputs.cpu(),
            torch.tensor([epsilon for epsilon, _ in keys], dtype=torch.float64),
            torch.tensor([sample for _, sample in keys], dtype=torch.int64),
            labels,
            found,
        )
        tensors = dict(zip(TENSORS, columns, strict=True))
        write_atomically(self.path, safetensors_bytes(tensors, {_METADATA: self._about()}))
        self.written = set(keys)

    def count(self, epsilon: float, samples: int) -> int:
        """How many of the first samples have a counterexample in the file at this radius."""
        return sum(radius == epsilon and number < samples for radius, number in self.written)

    def is_proved(self, epsilon: float, sample: int) -> bool:
        """Whether the exact equilibrium of a row has another label too, by an error bound."""
        from contraction_nets.certificates.weights import ImplicitWeights
        from contraction_nets.robustness.batch import confirmed
        from contraction_nets.robustness.equation import Equation

        if (epsilon, sample) not in self.rows:
            return False
        inputs, label = self.rows[epsilon, sample]
        equation = Equation.of(ImplicitWeights.from_module(self.network))
        return confirmed(equation, inputs.double().cpu().numpy(), label) < 0

    def load(self) -> None:
        """Take over the rows of the file, if it is there.

        Raises
        ------
        ValueError
            A damaged file, or one about other weights, data or another domain.
        """
        if not self.path.exists():
            return
        tensors = self._tensors()
        problem = self._problem(tensors)
        if problem is not None:
            raise ValueError(
                f"{self.path.name} {problem}, expected what this command wrote for this run; "
                "choose another file for --counterexamples."
            )
        epsilon, samples, labels = (
            tensors[name].tolist() for name in ("epsilon", "samples", "labels")
        )
        for radius, sample, *row in zip(epsilon, samples, tensors["inputs"], labels, strict=True):
            self.rows[radius, sample] = row[0], row[1]

    def _found(self, inputs: Tensor) -> Tensor:
        """What the network says of inputs (m, p)."""
        import torch

        if not len(inputs):
            return torch.zeros(0, dtype=torch.int64)
        with torch.no_grad():
            return self.network(inputs).argmax(dim=1)

    def _about(self) -> str:
        about = {
            "version": _VERSION,
            "weights_sha256": self.weights_sha256,
            "data": self.tested.name,
            "domain": self.domain,
        }
        return json.dumps(about)

    def _tensors(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError, safe_open

        from contraction_nets.certificates.storage import check_regular

        check_regular(self.path)
        try:
            with safe_open(self.path, framework="pt") as opened:
                about = (opened.metadata() or {}).get(_METADATA)
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(
                f"{self.path.name} cannot be read ({error}), expected counterexamples; choose "
                "another file for --counterexamples."
            ) from error
        if about != self._about():
            raise ValueError(
                f"{self.path.name} is about other weights, data or another domain than asked for, "
                "expected the same; choose another file for --counterexamples."
            )
        return tensors

    def _problem(self, tensors: dict[str, Tensor]) -> str | None:
        """What is wrong with the tensors of a file, if anything."""
        import torch

        if set(tensors) != set(TENSORS):
            return f"holds {', '.join(tensors) or 'nothing'}"
        inputs, epsilon, samples, labels, _ = (tensors[name] for name in TENSORS)
        count, given = len(epsilon), self.tested.inputs
        kinds = [given.dtype, torch.float64, *[torch.int64] * 3]
        shapes = [(count, given.shape[1]), *[(count,)] * 4]
        for name, kind, shape in zip(TENSORS, kinds, shapes, strict=True):
            if tensors[name].dtype != kind or tensors[name].shape != shape:
                return f"has {name} of another dtype or shape"
        if not bool(inputs.isfinite().all()):
            return "has inputs that are not finite"
        if len(set(zip(epsilon.tolist(), samples.tolist(), strict=True))) < count:
            return "has a sample twice"
        for number, (radius, sample) in enumerate(
            zip(epsilon.tolist(), samples.tolist(), strict=True)
        ):
            if not self._in_reach(inputs[number], radius, sample, int(labels[number])):
                return f"has an input out of reach of sample {sample}"
        if bool((self._found(inputs.to(given.device)).cpu() == labels).any()):
            return "has inputs that keep their label"
        return None

    def _in_reach(self, inputs: Tensor, epsilon: float, sample: int, label: int) -> bool:
        """Whether an input is in reach of the sample of that label, as far as samples are known."""
        from contraction_nets.robustness.attacks.ball import ball

        if sample < 0 or not 0 <= epsilon < math.inf:
            return False
        if sample >= len(self.tested):
            return True
        if label != int(self.tested.labels[sample]):
            return False
        lower, upper = ball(self.tested.inputs[sample].cpu(), epsilon, self.domain)
        return bool(((lower <= inputs) & (inputs <= upper)).all())


def check_counterexamples(path: Path | None, out: Path | None, *, resume: bool = False) -> None:
    """Refuse a file that cannot be written, or that is there already.

    Raises
    ------
    ValueError
        Another suffix than .safetensors, no such folder, a file to be overwritten, or a link that
        makes it the file of --out.
    """
    from contraction_nets.certificates.storage import check_target

    if path is None:
        return
    if path.suffix != ".safetensors":
        raise ValueError(f"got --counterexamples {path.name}, expected a .safetensors file.")
    if check_target(path) == (None if out is None else check_target(out)):
        raise ValueError(f"got {path} for --out as well, expected another file.")
    if path.exists() and not resume:
        raise ValueError(
            f"got --counterexamples {path}, which is there already, expected a new file."
        )
