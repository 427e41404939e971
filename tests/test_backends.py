"""Backends side by side: scales, limits, silence, packages, and poor proposals."""

import configparser
import dataclasses
import json
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from fresh import python
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import lipschitz_problem, projection_problems
from packaging.requirements import Requirement
from strategies import seeds

from contraction_nets import (
    ImplicitWeights,
    SolverError,
    UnknownSolverError,
    available_solvers,
    lipschitz_certificate,
)
from contraction_nets.cli import main
from contraction_nets.geometry.projection import project_rows
from contraction_nets.geometry.sets import MatrixMeasureSet
from contraction_nets.solving import registry
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.problems import ProjectionProblem
from contraction_nets.solving.registry import get_backend, solve
from contraction_nets.solving.solution import Solution, Status

ROOT = Path(__file__).resolve().parents[1]
EVERY = sorted(registry._homes())
"""Names of all backends, those included whose package is missing."""


def installed(name):
    """The class of a backend; the test is skipped where its package is missing."""
    backend = registry._load(name)
    if missing := backend.missing():
        pytest.skip(f"solver '{name}' needs the package {missing[0]}, which is not installed")
    return backend


def of_kind(kind):
    return [name for name in EVERY if kind in registry._load(name).solves]


def with_option(option, kind):
    return [name for name in of_kind(kind) if option in registry._load(name).options()]


def pairs_with(option):
    kinds = ("projection", "linear program")
    return [(name, kind) for kind in kinds for name in with_option(option, kind)]


@pytest.mark.parametrize("solver", of_kind("projection"))
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("gamma", [0.95, -0.5])
def test_scale_changes_nothing(solver, scale, gamma):
    """The projection of c V onto the set with c γ is c times that of V: also for a solver."""
    installed(solver)
    rng = np.random.default_rng(3)
    V, eta = rng.normal(size=(15, 15)), rng.uniform(0.3, 3.0, 15)
    V[::4] *= 1e-3
    problem = ProjectionProblem(scale * V, MatrixMeasureSet(scale * gamma, eta))
    solution = solve(problem, solver)
    exact = project_rows(problem.point, problem.rows)
    assert solution.found
    assert np.abs(solution.point() - exact).max() <= 1e-9 * scale


@pytest.mark.parametrize("solver", of_kind("projection"))
@given(seeds, st.integers(1, 8), st.sampled_from([-2.0, 0.0, 0.5, 0.95, 7.0]))
@example(1399, 8, 0.0)  # Clarabel stops far from the tight tolerances that cvxpy passes on
@example(367, 6, 0.5)  # fails at them, and its own leave an active set that is wrong
@settings(max_examples=25, deadline=None)
def test_random_matrices(solver, seed, n, gamma):
    installed(solver)
    rng = np.random.default_rng(seed)
    eta = rng.uniform(0.2, 5.0, n)
    V = rng.normal(size=(n, n)) * rng.choice([0.0, 0.01, 1.0, 10.0], size=(n, 1))
    problem = ProjectionProblem(V, MatrixMeasureSet(gamma, eta))
    solution = solve(problem, solver)
    exact = project_rows(problem.point, problem.rows)
    size = max(1.0, float(np.abs(exact).max()), float(np.abs(V).max()))
    assert solution.found
    assert np.abs(solution.point() - exact).max() <= 1e-7 * size


@pytest.mark.parametrize("solver", with_option("tolerance", "projection"))
def test_a_looser_tolerance_is_no_more_work(solver):
    installed(solver)
    problem = projection_problems()["measure"]
    loose, tight = (solve(problem, solver, tolerance=tol) for tol in (1e-2, 1e-9))
    assert loose.iterations <= tight.iterations


@pytest.mark.parametrize(("solver", "kind"), pairs_with("time_limit"))
def test_time_limits_are_reported(solver, kind):
    installed(solver)
    if kind == "projection":
        V = np.random.default_rng(0).normal(size=(40, 40))
        problem = ProjectionProblem(V, MatrixMeasureSet(0.95))
    else:
        problem = lipschitz_problem(0, 60, 5, 5)
    for _ in range(2):  # also where a solver is used again
        solution = solve(problem, solver, time_limit=1e-9)
        assert solution.status is Status.TIME_LIMIT
        with pytest.raises(SolverError, match="time_limit"):
            solution.point()
    assert solve(problem, solver, time_limit=60.0).found


@pytest.mark.parametrize(("solver", "kind"), pairs_with("max_iterations"))
def test_iteration_limits_are_reported(solver, kind):
    installed(solver)
    problem = (
        projection_problems()["measure"] if kind == "projection" else lipschitz_problem(0, 60, 5, 5)
    )
    assert solve(problem, solver, max_iterations=1).status is Status.ITERATION_LIMIT


def test_every_package_is_one_that_setup_cfg_names():
    """``pip install NAME`` with the name in the error message is what is needed."""
    metadata = configparser.ConfigParser()
    metadata.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [metadata["options"]["install_requires"], metadata["options.extras_require"]["solvers"]]
    declared = {Requirement(line).name for text in texts for line in text.split("\n") if line}
    for name in EVERY:
        backend = registry._load(name)
        assert set(backend.requires) <= declared, name
        for package in set(backend.requires) - set(backend.missing()):
            assert distribution(package).metadata["Name"].lower() == package


@pytest.mark.parametrize("solver", [name for name in EVERY if registry._load(name).requires])
def test_a_missing_package_is_named(solver, monkeypatch):
    (package,) = registry._load(solver).requires
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert solver not in available_solvers()
    with pytest.raises(UnknownSolverError, match=f"run: pip install {package}$"):
        get_backend(solver)


@pytest.mark.parametrize("solver", EVERY)
def test_backends_write_nothing(solver):
    """What a solver prints would end up in the middle of what ``--json`` prints."""
    installed(solver)
    script = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from oracles import lipschitz_problems, projection_problems
from contraction_nets.solving.registry import get_backend
backend = get_backend({solver!r})
for problem in [*projection_problems().values(), *lipschitz_problems().values()]:
    if problem.kind in backend.solves:
        assert backend.solve(problem).found
"""
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@dataclasses.dataclass(frozen=True)
class Poor(Backend):
    """The optimum spoiled in one of many ways, and called optimal."""

    name = "poor"
    solves = ("linear program", "projection")

    spoil: str = ""

    def solve(self, problem):
        best = solve(problem, "m_matrix")
        z, y, pi = best.x, best.dual, best.output_dual
        rng = np.random.default_rng(0)
        q = len(pi)
        answers = {
            "zero": (0 * z, 0 * y, 0 * pi),
            "negative": (-z, -y, -pi),
            "noise": (z * rng.uniform(0.5, 2, len(z)), y * rng.uniform(0.5, 2, len(y)), pi),
            "uniform": (z, y, np.full(q, 1 / q)),
            "large": (1e9 * z, 1e9 * y, 1e9 * pi),
            "larger": (1e290 * z, 1e290 * y, 1e290 * pi),
            "small": (0.5 * z, 2 * y, pi),
            "duals of nan": (z, y * np.nan, pi * np.nan),
            "duals of inf": (z, y + np.inf, pi + np.inf),
            "no duals": (z, None, None),
            "nan": (z * np.nan, y, pi),
            "inf": (z + np.inf, y, pi),
            "short": (z[1:], y, pi),
            "short duals": (z, y[1:], pi),
        }
        return Solution(problem, self.name, Status.OPTIMAL, *answers[self.spoil])


REFUSED = ["nan", "inf", "short", "short duals"]
PROVED = [
    "zero", "negative", "noise", "uniform", "large", "larger", "small", "duals of nan",
    "duals of inf", "no duals",
]  # fmt: skip


@pytest.fixture
def poor(monkeypatch):
    homes = registry._homes() | {"poor": f"{__name__}:Poor"}
    monkeypatch.setattr(registry, "_homes", lambda: homes)


def network(n=6):
    rng = np.random.default_rng(n)
    A = 0.4 * rng.normal(size=(n, n)) / n
    return ImplicitWeights(A, *(rng.normal(size=shape) for shape in ((n, 3), (4, n), (4, 3))))


@pytest.mark.parametrize("spoil", PROVED)
def test_a_poor_proposal_never_makes_a_wrong_certificate(poor, spoil):
    weights = network()
    optimum = lipschitz_certificate(weights).bound
    certificate = lipschitz_certificate(weights, solver="poor", spoil=spoil)
    assert certificate.verify()
    assert certificate.bound >= optimum * (1 - 1e-13)
    assert certificate.dual_value <= optimum * (1 + 1e-13)
    assert certificate.primal_dual_gap >= -1e-13


@pytest.mark.parametrize("spoil", REFUSED)
def test_answers_that_are_none_are_refused(poor, spoil):
    with pytest.raises(SolverError, match="'poor' returned"):
        lipschitz_certificate(network(), solver="poor", spoil=spoil)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("solver", with_option("tolerance", "linear program"))
def test_loose_tolerances_make_true_certificates(solver, tolerance):
    installed(solver)
    weights = network(30)
    optimum = lipschitz_certificate(weights).bound
    certificate = lipschitz_certificate(weights, solver=solver, tolerance=tolerance)
    assert certificate.verify()
    assert certificate.bound >= optimum * (1 - 1e-13)
    assert certificate.dual_value <= optimum * (1 + 1e-9)


@pytest.mark.parametrize("solver", with_option("time_limit", "linear program"))
def test_a_solver_out_of_time_ends_the_command_with_3(solver, tmp_path, monkeypatch, capsys):
    installed(solver)
    network(60).save(tmp_path / "weights.npz")
    arguments = ["certify", tmp_path / "weights.npz", "--solver", solver, "--json"]
    monkeypatch.setattr(
        sys, "argv", ["contraction-nets", *map(str, arguments), "--option", "time_limit=1e-9"]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    assert caught.value.code == 3
    assert "time_limit" in err + json.dumps(out)
