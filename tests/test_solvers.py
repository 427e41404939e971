"""Every backend on the same named problems, judged by KKT and by the closed form."""

import numpy as np
import pytest
from oracles import lipschitz_problem, lipschitz_problems, projection_problems

from contraction_nets import SolverError, UnknownSolverError, available_solvers, project
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.sets import ConstraintSet, MatrixMeasureSet
from contraction_nets.solving.problems import LipschitzProblem, ProjectionProblem
from contraction_nets.solving.projection import project_onto
from contraction_nets.solving.registry import get_backend, solve
from contraction_nets.solving.solution import Status

PROJECTIONS, PROGRAMS = projection_problems(), lipschitz_problems()


@pytest.mark.parametrize("solver", available_solvers("projection"))
@pytest.mark.parametrize("name", PROJECTIONS)
def test_projection_kkt(solver, name):
    problem = PROJECTIONS[name]
    solution = solve(problem, solver)
    assert solution.status in (Status.OPTIMAL, Status.OPTIMAL_INACCURATE)
    assert solution.primal_residual <= 1e-9
    assert solution.dual_residual <= 1e-9
    assert abs(solution.duality_gap) <= 1e-9
    exact = project_rows(problem.point, problem.rows)
    assert np.abs(solution.point() - exact).max() <= 1e-9


@pytest.mark.parametrize("solver", available_solvers("linear program"))
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_kkt(solver, name):
    problem = PROGRAMS[name]
    solution = solve(problem, solver)
    assert solution.found
    size = solution.objective
    assert solution.primal_residual <= 1e-7 * size
    assert solution.dual_residual <= 1e-7 * size
    assert abs(solution.duality_gap) <= 1e-7 * size
    assert solution.objective == pytest.approx(solve(problem, "m_matrix").objective, rel=1e-7)


def test_direct_solve_is_as_exact_as_simplex():
    problem = lipschitz_problem(7, 100, 20, 10)
    direct, simplex = solve(problem, "m_matrix"), solve(problem, "highs")
    assert direct.objective == pytest.approx(simplex.objective, rel=1e-9)
    assert abs(direct.duality_gap) <= 1e-12 * direct.objective


@pytest.mark.parametrize("solver", available_solvers("linear program"))
def test_infeasible_programs_are_said_to_be(solver):
    critical = LipschitzProblem(np.full((2, 2), 0.8), np.ones(2), np.ones((1, 2)), np.zeros(1))
    solution = solve(critical, solver)
    assert solution.status is Status.INFEASIBLE
    with pytest.raises(SolverError, match="infeasible"):
        solution.point()


@pytest.mark.parametrize("solver", available_solvers("projection"))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_public_projection_agrees_and_is_inside_as_stored(solver, dtype):
    rng = np.random.default_rng(11)
    eta = rng.uniform(0.5, 2.0, 9)
    for _ in range(3):  # new data through the same model
        A = rng.normal(size=(9, 9)).astype(dtype)
        A[0] = 0.0
        A[1] *= np.float32(1e-3)
        X = project(A, 0.9, eta, solver=solver)
        assert X.dtype == dtype
        assert MatrixMeasureSet(0.9, eta).contains(X)
        assert np.abs(X - project(A, 0.9, eta)).max() <= (1e-9 if dtype == np.float64 else 1e-6)
        assert X[:2].tobytes() == A[:2].tobytes()


@pytest.mark.parametrize("cvxpy_solver", ["CLARABEL", "OSQP", "SCS"])
def test_cvxpy_takes_any_installed_solver(cvxpy_solver):
    A = np.random.default_rng(0).normal(size=(6, 6))
    X = project(A, 0.5, solver="cvxpy", cvxpy_solver=cvxpy_solver)
    assert np.abs(X - project(A, 0.5)).max() <= 1e-9


def test_tight_tolerances_alone_come_close():
    A = np.random.default_rng(0).normal(size=(20, 20))
    X = project(A, 0.95, solver="cvxpy", polish=False)
    assert np.abs(X - project(A, 0.95)).max() <= 1e-7


def test_sets_without_rows_project_through_cvxpy():
    class Monotone(ConstraintSet):
        """{A : (A + Aᵀ)/2 ⪯ γ I}."""

        def violation(self, V):
            return float(np.linalg.eigvalsh((V + V.T) / 2).max() - 0.5)

        def constraints(self, X):
            return [(X + X.T) / 2 << 0.5 * np.eye(X.shape[0])]

    A = np.random.default_rng(0).normal(size=(5, 5))
    symmetric = (A + A.T) / 2
    values, vectors = np.linalg.eigh(symmetric)
    exact = A - symmetric + (vectors * np.minimum(values, 0.5)) @ vectors.T
    X = project_onto(A, Monotone(), solver="cvxpy")
    assert np.abs(X - exact).max() <= 1e-6
    solution = solve(ProjectionProblem(A, Monotone()), "cvxpy")
    assert solution.primal_residual <= 1e-6


@pytest.mark.parametrize("solver", available_solvers())
def test_unknown_options_are_refused(solver):
    with pytest.raises(ValueError, match="no option 'tolerence'"):
        get_backend(solver, tolerence=1e-3)


def test_unknown_solvers_are_refused():
    with pytest.raises(UnknownSolverError, match=r"expected one of .*closed_form"):
        project([[1.0]], 0.5, solver="nope")
    with pytest.raises(UnknownSolverError, match="CLARABEL"):
        project([[1.0]], 0.5, solver="cvxpy", cvxpy_solver="nope")
    with pytest.raises(SolverError, match="does not solve a projection"):
        project([[1.0]], 0.5, solver="highs")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("solvers.osqp_.Osqp.requires", ("a_package_nobody_has",))
    assert "osqp" not in available_solvers()
    with pytest.raises(UnknownSolverError, match="pip install a_package_nobody_has"):
        project([[1.0]], 0.5, solver="osqp")


def test_limits_are_reported():
    problem = PROJECTIONS["measure"]
    assert solve(problem, "clarabel", max_iterations=1).status is Status.ITERATION_LIMIT
    assert solve(problem, "osqp", max_iterations=1).status is Status.ITERATION_LIMIT
    with pytest.raises(SolverError, match="iteration_limit"):
        project_onto(problem.point, problem.set, solver="clarabel", max_iterations=1)
