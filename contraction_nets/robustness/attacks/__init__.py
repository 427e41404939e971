"""Attacks within an ℓ∞ ball, one file each; a file in this folder is found by itself.

- "pgd": gradient steps towards every other class, the strong one
- "fgsm": one gradient step
- "inversion": every pixel moves towards its negative
- "noise": uniform noise, the worst of several draws

They work on any module from inputs to outputs, and never change it.
"""

import importlib
import pkgutil

from contraction_nets.robustness.attacks.base import Attack, get_attack

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

from contraction_nets.robustness.attacks.fgsm import Fgsm  # noqa: E402
from contraction_nets.robustness.attacks.inversion import Inversion  # noqa: E402
from contraction_nets.robustness.attacks.noise import Noise  # noqa: E402
from contraction_nets.robustness.attacks.pgd import Pgd  # noqa: E402
from contraction_nets.robustness.attacks.run import AttackResult, attack  # noqa: E402

__all__ = ["Attack", "AttackResult", "Fgsm", "Inversion", "Noise", "Pgd", "attack", "get_attack"]
