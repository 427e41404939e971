"""Cases and the comparison of iterations: seeded, well-posed, at equal accuracy."""

import importlib.util
import math

import numpy as np
import pytest
import torch

from contraction_nets import matrix_measure
from contraction_nets.comparison import iterations as module
from contraction_nets.comparison.cases import FAMILIES, Case, cases
from contraction_nets.comparison.contenders import backward, residual_of
from contraction_nets.comparison.iterations import (
    ITERATIONS,
    TORCHDEQ,
    compare_iterations,
    relative_residual,
)
from contraction_nets.nn.equilibrium import equilibrium, solve_equilibrium


@pytest.mark.parametrize("family", FAMILIES)
def test_cases_are_seeded_and_well_posed(family):
    if family == "trained":
        pytest.importorskip("sklearn")
    problem, again = (Case(family, 30, 4).build(torch.float64) for _ in range(2))
    assert torch.equal(problem.A, again.A)
    assert torch.equal(problem.s, again.s)
    assert problem.s.shape == (4, 30)
    measure = matrix_measure(problem.A.numpy())
    assert measure <= 0.95 + 1e-6 or measure == pytest.approx(float(family.split()[-1]))


def test_other_families_are_refused():
    with pytest.raises(ValueError, match="expected one of projected"):
        Case("easy", 3, 1).build()


def test_all_combinations_but_large_trained_ones():
    found = list(cases(["trained", "projected"], [100, 2000], [1, 10]))
    assert len(found) == 6
    assert str(found[0]) == "trained, n = 100, batch 1"


def test_every_iteration_reaches_the_same_residual():
    seen = []
    problems = [Case("projected", 20, 5), Case("positive 0.99", 20, 5)]
    rows = compare_iterations(
        problems, ITERATIONS, repetitions=2, progress=lambda case, name: seen.append(name)
    )
    assert seen == [*ITERATIONS, *ITERATIONS]
    assert len({frozenset(row) for row in rows}) == 1
    for row in rows:
        if row["outcome"] == "not reached":
            assert row["iteration"] == "picard"
            assert (row["repetitions"], row["seconds"]) == (0, None)
            continue
        assert row["outcome"] == "reached"
        assert row["residual"] <= 1.01e-5
        assert 2 <= row["repetitions"] <= 10  # more of them where they are short
        assert 0 < row["seconds_lower_quartile"] <= row["seconds"]
        assert row["seconds"] <= row["seconds_upper_quartile"]
        assert row["over_products"] > 0
        assert row["outcome_backward"] == "reached"
        assert row["residual_backward"] <= 1.01e-5
        assert row["seconds_backward"] > 0
    counts = {(row["family"], row["iteration"]): row["steps"] for row in rows}
    for family in ("projected", "positive 0.99"):
        assert counts[family, "auto"] < counts[family, "average"]


def test_steps_that_are_spent_and_time_that_is_out_are_said():
    case = Case("positive 0.999", 20, 5)
    (row,) = compare_iterations([case], ["average"], repetitions=1, max_steps=10)
    assert row["outcome"] == "not reached"
    (row,) = compare_iterations(
        [case], ["average"], tol=1e-30, max_steps=10**9, time_limit=0.05, repetitions=1
    )
    assert (row["outcome"], row["steps"], row["seconds"]) == ("timed out", None, None)
    assert row["seconds_addmm"] > 0


def test_torchdeq_is_left_out_where_it_is_not_installed():
    rows = compare_iterations([Case("mixed 0.999", 20, 5)], TORCHDEQ, repetitions=1)
    if importlib.util.find_spec("torchdeq") is None:
        assert rows == []
    else:
        assert [row["outcome"] for row in rows] == ["reached", "reached"]


def test_the_equation_backward_is_that_of_the_gradient():
    problem = Case("projected", 20, 5).build(torch.float64)
    equation = backward(problem)
    leaf = problem.s.clone().requires_grad_()
    x = equilibrium(problem.A, leaf, tol=1e-12, backward_tol=1e-12)
    (gradient,) = torch.autograd.grad(x, leaf, equation.s)
    w = solve_equilibrium(equation.A, equation.s, equation.phi, tol=1e-12).x
    assert torch.allclose(w, gradient, rtol=0, atol=1e-10)
    assert residual_of(equation, gradient) < 1e-11


def test_turns_are_taken_in_a_drawn_order(monkeypatch):
    order = []
    monkeypatch.setattr(module, "clocked", lambda run: (order.append(run), (1.0, run()))[1])
    compare_iterations([Case("projected", 5, 1)], ["auto", "average"], repetitions=20)
    turns = [tuple(order[k : k + 5]) for k in range(4, len(order), 5)]
    assert len(turns) == 20
    assert all(set(turn) == set(turns[0]) for turn in turns)
    assert len(set(turns)) > 5


def test_residuals_are_relative():
    problem = Case("projected", 20, 5).build()
    x = torch.from_numpy(np.ones((5, 20), np.float32))
    image = torch.relu(x.double() @ problem.A.double().T + problem.s.double())
    assert relative_residual(problem, 1 * x) == pytest.approx(float((1 - image).abs().max()))
    assert relative_residual(problem, 0 * x) == math.inf
