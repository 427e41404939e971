"""Random matrices, weights and sets that the property tests share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from contraction_nets.geometry.sets import (
    ConvolutionSet,
    LipschitzOutputSet,
    LipschitzStateSet,
    MatrixMeasureSet,
    NormBall,
)

seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.0, 5e-324, 1e-300, 1e-30, 1e-3, 1.0, 1e3, 1e30])
gammas = st.sampled_from([-3.0, -1e-9, 0.0, 1e-12, 0.5, 0.95, 7.0])


@st.composite
def matrices(draw, shape):
    """Matrices of one scale or many, with ties and zeros."""
    rng = np.random.default_rng(draw(seeds))
    V = rng.normal(size=shape) * draw(scales)
    kind = draw(st.sampled_from(["plain", "ties", "sparse", "mixed"]))
    if kind == "ties":
        V = np.sign(V) * np.abs(V).max(initial=0.0)
    elif kind == "sparse":
        V = V * (rng.uniform(size=shape) < 0.3)
    elif kind == "mixed":
        V = V * 10.0 ** rng.integers(-6, 3, size=shape)
    return V


@st.composite
def points_and_sets(draw):
    """A matrix and a row set made for its shape, one of every kind."""
    n, rng = draw(st.integers(1, 7)), np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["measure", "weighted", "norm", "state", "output", "conv"]))
    eta, gamma = 10.0 ** rng.uniform(-2, 2, n), draw(gammas)
    if kind == "measure":
        return draw(matrices((n, n))), MatrixMeasureSet(gamma)
    if kind == "weighted":
        return draw(matrices((n, n))), MatrixMeasureSet(gamma, eta)
    if kind == "norm":
        return draw(matrices((n, n + 2))), NormBall(abs(gamma))
    if kind == "state":
        return draw(matrices((n, n + 3))), LipschitzStateSet(eta)
    if kind == "output":
        return draw(matrices((2, n + 3))), LipschitzOutputSet(eta, abs(gamma))
    return draw(matrices((2, 2, 3, 3))), ConvolutionSet(gamma)
