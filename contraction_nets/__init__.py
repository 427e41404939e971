"""Implicit networks that are provably well-posed and robust in the infinity norm."""

from contraction_nets.geometry.measures import OptimalWeights, matrix_measure, optimal_weights

__all__ = ["OptimalWeights", "matrix_measure", "optimal_weights"]
