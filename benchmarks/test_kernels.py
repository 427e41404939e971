"""The kernels under pytest-benchmark: ``pytest benchmarks --benchmark-only``.

Figures to compare two versions of the library on one machine, not to be published.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contraction_nets import ImplicitNetwork, lipschitz_certificate, lipschitz_penalty, project
from contraction_nets.nn.equilibrium import solve_equilibrium

torch.set_num_threads(1)


def random(n: int, m: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, m)) / np.sqrt(m)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [100, 1024])
def test_projection(benchmark, n, dtype):
    A = random(n, n).astype(dtype)
    benchmark(project, A, 0.95)


@pytest.mark.parametrize("n", [100, 1000])
def test_certificate(benchmark, n):
    A = project(random(n, n), 0.95)
    benchmark(lipschitz_certificate, A, random(n, 50), random(10, n))


def test_verification(benchmark):
    certificate = lipschitz_certificate(
        project(random(300, 300), 0.95), random(300, 784), random(10, 300)
    )
    assert benchmark(certificate.verify)


@pytest.mark.parametrize("iteration", ["diagonal_resolvent", "average", "auto"])
@pytest.mark.parametrize("batch", [1, 1000])
def test_equilibrium(benchmark, iteration, batch):
    A = torch.from_numpy(project(random(100, 100).astype(np.float32), 0.95))
    s = torch.from_numpy(random(batch, 100, 1).astype(np.float32))
    benchmark(solve_equilibrium, A, s, iteration=iteration, tol=1e-5)


def test_training_step(benchmark):
    torch.manual_seed(0)
    network = ImplicitNetwork(784, 100, 10)
    u, y = torch.rand(50, 784), torch.randint(10, (50,))

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(network(u), y) + 1e-3 * lipschitz_penalty(network)
        loss.backward()

    benchmark(step)
