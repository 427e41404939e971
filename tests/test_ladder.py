"""The certificate ladder: no wrong verdict, whoever lies; brute force and fractions as oracles."""

import itertools
import math
import os
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec

import joblib
import numpy as np
import pytest
import torch
from brute_force import outputs, random_network, smallest_margin
from fresh import python
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from strategies import seeds

from contraction_nets import (
    ImplicitNetwork,
    ImplicitWeights,
    NotWellPosedError,
    verify_robustness,
)
from contraction_nets.robustness import ladder as ladder_rungs
from contraction_nets.robustness import sample as sample_rungs
from contraction_nets.robustness import search as search_rungs
from contraction_nets.robustness import simplex as solvers
from contraction_nets.robustness.batch import BatchRungs
from contraction_nets.robustness.enclosure import enclose
from contraction_nets.robustness.equation import Equation
from contraction_nets.robustness.relaxation import (
    ACTIVE,
    INACTIVE,
    Multipliers,
    Objective,
    Relaxation,
    resolved,
)
from contraction_nets.robustness.samples import as_samples

CLOSE = 1e-7


def drawn(seed, samples=5):
    """A tiny network, inputs with the labels that it gives them, a radius and a domain."""
    rng = np.random.default_rng(seed)
    n, p, q = rng.integers(1, 6), rng.integers(1, 4), rng.integers(2, 4)
    network = random_network(rng, n, p, q)
    weights = ImplicitWeights(**network)
    slope = 0.0 if weights.activation == "relu" else float(network["activation"][11:-1])
    U = rng.uniform(size=(samples, p))
    labels = outputs(network, slope, U).argmax(axis=1)
    domain = (0.0, 1.0) if rng.uniform() < 0.5 else None
    return network, weights, slope, U, labels, float(rng.choice([0.01, 0.1, 0.3, 1.0])), domain


def verdicts(weights, U, labels, epsilon, **options):
    try:
        return verify_robustness(weights, U, labels, epsilon, **options).verdicts
    except NotWellPosedError:
        assume(False)


def box(u, epsilon, domain):
    lower, upper = u - epsilon, u + epsilon
    return (lower, upper) if domain is None else (np.maximum(lower, 0), np.minimum(upper, 1))


def exactly_within(u, centre, epsilon):
    return all(
        abs(Fraction(a) - Fraction(b)) <= Fraction(epsilon)
        for a, b in zip(u.tolist(), centre.tolist(), strict=True)
    )


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_verdicts_agree_with_enumeration(seed):
    network, weights, slope, U, labels, epsilon, domain = drawn(seed)
    found = verdicts(weights, U, labels, epsilon, domain=domain)
    for u, label, verdict in zip(U, labels, found, strict=True):
        true = smallest_margin(network, slope, label, *box(u, epsilon, domain))
        if verdict.status == "certified":
            assert verdict.margin > 0
            assert true > -1e-9
            assert verdict.margin <= true + CLOSE * (1 + abs(true))
        elif verdict.status == "falsified":
            at = verdict.counterexample
            assert exactly_within(at, u, epsilon)
            assert domain is None or ((at >= 0) & (at <= 1)).all()
            assert outputs(network, slope, at[None])[0].argmax() != label
            assert verdict.margin < 0
        else:
            assert abs(true) < CLOSE, verdict


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_higher_rungs_decide_more_and_never_otherwise(seed):
    _, weights, _, U, labels, epsilon, domain = drawn(seed)
    ladder = [
        verdicts(weights, U, labels, epsilon, domain=domain, method=method)
        for method in ("global", "interval", "lp", "milp", "auto")
    ]
    for lower, higher in itertools.pairwise(ladder):
        for one, other in zip(lower, higher, strict=True):
            if one.status != "unknown":
                assert (one.status, one.rung, one.margin) == (
                    other.status,
                    other.rung,
                    other.margin,
                )
            elif other.status != "falsified":
                assert other.margin >= one.margin
    assert [v.status for v in ladder[3]] == [v.status for v in ladder[4]]


@settings(deadline=None, max_examples=100)
@given(seeds, st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e300, math.inf, math.nan]))
def test_any_multipliers_give_a_lower_bound(seed, size):
    network, weights, slope, U, labels, epsilon, domain = drawn(seed, samples=1)
    rng = np.random.default_rng(seed)
    lower, upper = box(U[0], epsilon, domain)
    try:
        equation = Equation.of(weights)
    except NotWellPosedError:
        assume(False)
    relaxation = Relaxation.of(equation, enclose(equation, lower[None], upper[None]), 0)
    points = lower + (upper - lower) * rng.uniform(size=(50, len(lower)))
    label, other = int(labels[0]), (int(labels[0]) + 1) % len(weights.C)
    objective = Objective.of(equation, label, other)
    Y = outputs(network, slope, points)
    margins = Y[:, label] - Y[:, other]
    states = enclose(equation, points, points)
    n = len(equation.a)
    for _ in range(5):
        part, keep = relaxation, np.ones(len(points), bool)
        for state in relaxation.open:
            sign = rng.choice([ACTIVE, 0, INACTIVE])
            if sign and not part.empty:
                part = part.assuming(int(state), int(sign))
                keep &= (states.drive_lower if sign > 0 else -states.drive_upper)[:, state] > 0
        with np.errstate(all="ignore"):
            proposal = Multipliers(*(size * rng.normal(size=(3, n))))
        # On the inputs whose states have the assumed signs.
        if keep.any():
            assert not part.empty
            bound = part.lower_bound(objective, proposal)
            assert bound <= margins[keep].min() + CLOSE * (1 + np.abs(Y).max())
            assert part.lower_bound(Objective.nothing(equation), proposal) <= 0


class Liar(solvers.Simplex):
    """A solver that returns what it likes, or fails."""

    def __init__(self, rng, kind):
        self.rng, self.kind = rng, kind

    def solve(self, costs, lower, upper, equal, seconds):
        r = len(equal)
        point = self.rng.normal(size=len(costs)) * 1e3
        dual = self.rng.normal(size=r) * 10.0 ** self.rng.integers(-3, 6)
        if self.kind == "fails":
            raise RuntimeError("no idea\nat all")
        if self.kind == "nan":
            return solvers.Answer(np.full(r, np.nan), np.full(len(costs), np.nan))
        if self.kind == "infinite":
            return solvers.Answer(np.full(r, np.inf), point)
        if self.kind == "silent":
            return solvers.Answer()
        return solvers.Answer(dual, point, infeasible=self.kind == "infeasible")


@pytest.mark.parametrize("kind", ["random", "nan", "infinite", "silent", "infeasible", "fails"])
def test_a_solver_that_lies_proves_nothing_wrong(monkeypatch, kind):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(search_rungs, "simplex", lambda rows, right: Liar(rng, kind))
    seen = set()
    for seed in range(30):
        network, weights, slope, U, labels, epsilon, domain = drawn(seed)
        try:
            found = verify_robustness(weights, U, labels, epsilon, domain=domain).verdicts
        except NotWellPosedError:
            continue
        for u, label, verdict in zip(U, labels, found, strict=True):
            true = smallest_margin(network, slope, label, *box(u, epsilon, domain))
            assert verdict.status != "certified" or true > -1e-9
            assert verdict.status != "falsified" or true < 1e-9
            seen.add((verdict.status, verdict.reason))
    if kind == "fails":
        assert ("unknown", "RuntimeError: no idea at all") in seen


@pytest.mark.parametrize("seed", range(20))
def test_both_ways_to_solve_agree(monkeypatch, seed):
    pytest.importorskip("highspy")
    _, weights, _, U, labels, epsilon, domain = drawn(seed)
    options = {"domain": domain}
    try:
        warm = verify_robustness(weights, U, labels, epsilon, **options).verdicts
    except NotWellPosedError:
        return
    monkeypatch.setattr(search_rungs, "simplex", solvers.ScipyHighs)
    cold = verify_robustness(weights, U, labels, epsilon, **options).verdicts
    assert [v.status for v in warm] == [v.status for v in cold]


near_one = st.sampled_from([1.0, 1 - 2**-53, 1 - 1e-15, 1 - 1e-12, 1 - 1e-9, 1 - 1e-8, 0.5, 0.01])
diagonals = st.one_of(near_one.filter(lambda a: a < 1), st.sampled_from([-1e300, -7.3, -1e-9, 0.0]))
drives = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([5e-324, -5e-324, 1e-310, -1e300, 0.0]))


@pytest.mark.skipif(find_spec("highspy") is None, reason="needs highspy, the extra 'solvers'")
@pytest.mark.parametrize("threads", [1, 2])
def test_other_users_of_highs_in_the_process_change_nothing(threads):
    """Its scheduler is one for the whole process, and it refuses another number of threads."""
    done = python(f"""
import numpy as np
from highspy import _core, HighsLp
first = _core._Highs()
first.setOptionValue("output_flag", False)
first.setOptionValue("threads", {threads})
program = HighsLp()
program.num_col_ = 1
program.col_cost_ = program.col_lower_ = np.ones(1)
program.col_upper_ = np.full(1, 2.0)
first.passModel(program)
first.run()

from contraction_nets.robustness.simplex import WarmHighs
one = np.ones(1)
found = WarmHighs(np.ones((1, 1)), one).solve(one, 0 * one, 2 * one, np.zeros(1, bool), 9.0)
print(found.dual, found.point)
""")
    assert done.stdout.split() == ["[1.]", "[1.]"], done.stderr


@settings(deadline=None, max_examples=500)
@given(diagonals, st.one_of(near_one, st.just(0.0)), drives)
def test_dividing_out_the_diagonal_is_rounded_soundly(a, slope, s):
    weights = ImplicitWeights([[a]], [[1.0]], [[1.0]], activation=f"leaky_relu({slope!r})")
    low, high = resolved(Equation.of(weights), np.array([s]))
    branch = Fraction(1) if s >= 0 else Fraction(slope)
    exact = branch * Fraction(s) / (1 - branch * Fraction(a))
    assert low[0] == -math.inf or Fraction(low[0]) <= exact
    assert high[0] == math.inf or exact <= Fraction(high[0])


@pytest.mark.parametrize("gap", [1e-3, 1e-8, 1e-9, 1e-12, 1e-15])
def test_a_slope_and_a_diagonal_near_one_lose_no_bits(gap):
    # x = α s/(1 − α a) with s = u < 0: the margin is x + shift, known in fractions.
    a = slope = 1.0 - gap
    u, epsilon = -1.0, 0.5
    low = Fraction(slope) * (Fraction(u) - Fraction(epsilon)) / (1 - Fraction(slope) * Fraction(a))
    for nudge in (-1e-6, -1e-9, -1e-13, 1e-13, 1e-9, 1e-6):
        shift = float(-low) * (1 + nudge)
        weights = ImplicitWeights(
            [[a]], [[1.0]], [[1.0], [0.0]], c=[shift, 0.0], activation=f"leaky_relu({slope!r})"
        )
        for method in ("global", "interval", "lp", "milp"):
            found = verify_robustness(
                weights, [[u]], [0], epsilon, domain=None, method=method
            ).verdicts[0]
            exact = low + Fraction(shift)
            if found.status == "certified":
                assert exact > 0
                assert Fraction(found.margin) <= exact
            if found.status == "falsified":
                assert exact < 0


@pytest.mark.parametrize("size", [1e150, 1e300, 1.7e308])
def test_what_overflows_is_unknown(size):
    rng = np.random.default_rng(1)
    for _ in range(20):
        B, C = size * rng.uniform(-1, 1, (3, 2)), size * rng.uniform(-1, 1, (2, 3))
        weights = ImplicitWeights(np.zeros((3, 3)), B, C)
        found = verify_robustness(weights, rng.uniform(size=(4, 2)), [0, 1, 0, 1], 0.3)
        if size > 1e160:
            assert found.unknown.all()
            assert not np.isnan(found.margins).any()
            assert all(verdict.reason for verdict in found.verdicts)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu(0.3)", "tanh", "softplus", "elu(0.7)"])
def test_boxes_hold_the_equilibria(activation):
    rng = np.random.default_rng(2)
    A = rng.normal(size=(8, 8)) / 20
    np.fill_diagonal(A, rng.choice([-2.0, 0.5], 8))
    weights = ImplicitWeights(
        A, rng.normal(size=(8, 3)), np.eye(8), b=rng.normal(size=8), activation=activation
    )
    equation = Equation.of(weights)
    U = rng.uniform(size=(10, 3))
    boxes = enclose(equation, U - 0.2, U + 0.2)
    assert boxes.proved.all()
    for _ in range(20):
        V = U + rng.choice([-0.2, 0.2, rng.uniform(-0.2, 0.2)], U.shape)
        points = enclose(equation, V, V)
        assert points.proved.all()
        assert (points.state_lower >= boxes.state_lower - 1e-12).all()
        assert (points.state_upper <= boxes.state_upper + 1e-12).all()
        x = weights.to_module().double().layer.solve(torch.from_numpy(V), tol=1e-13).x.numpy()
        assert np.abs(x - (points.state_lower + points.state_upper) / 2).max() < 1e-9
        assert (points.state_upper - points.state_lower).max() < 1e-10


def test_a_box_near_the_limit_is_still_found():
    rng = np.random.default_rng(3)
    A = rng.uniform(size=(30, 30))
    A *= 0.9999 / A.sum(axis=1, keepdims=True)
    weights = ImplicitWeights(A, rng.normal(size=(30, 2)), np.eye(30))
    u = rng.uniform(size=(3, 2))
    boxes = enclose(Equation.of(weights), u, u)
    assert boxes.proved.all()
    assert (boxes.state_upper - boxes.state_lower).max() < 1e-5 * boxes.state_upper.max()


def wide(activation="relu"):
    """A network whose samples need several rungs."""
    rng = np.random.default_rng(4)
    A = rng.normal(size=(12, 12)) / 15
    arrays = {
        "B": rng.normal(size=(12, 4)),
        "C": rng.normal(size=(3, 12)),
        "b": rng.normal(size=12),
    }
    weights = ImplicitWeights(A, **arrays, activation=activation)
    U = rng.uniform(size=(30, 4))
    states = weights.to_module().double()(torch.from_numpy(U))
    return weights, U, states.argmax(dim=1)


def as_rows(result):
    return [(v.status, v.rung, v.margin, v.reason) for v in result.verdicts]


def test_smooth_activations_end_with_intervals():
    weights, U, labels = wide("tanh")
    result = verify_robustness(weights, U, labels, 0.05)
    assert result.certified.any()
    for verdict in result.verdicts:
        assert verdict.status != "unknown" or "tanh" in verdict.reason


def test_processes_and_threads_change_nothing():
    weights, U, labels = wide()
    serial = verify_robustness(weights, U, labels, 0.1)
    assert len(serial.decided_by()["certified"]) > 1
    assert as_rows(verify_robustness(weights, U, labels, 0.1, n_jobs=2)) == as_rows(serial)
    with joblib.parallel_config(backend="threading"):
        assert as_rows(verify_robustness(weights, U, labels, 0.1, n_jobs=3)) == as_rows(serial)


class Deadly:
    """Ends the process that it is sent to."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_process_that_dies_takes_one_sample_with_it():
    weights, U, labels = wide()
    rungs = BatchRungs.of(weights, 0.1, "milp")
    samples = as_samples(U, labels, 0.1, (0.0, 1.0), 4, 3)
    opened = dict(itertools.islice(rungs.decide(samples)[1].items(), 2))
    alive = dict(ladder_rungs._decided_one_by_one(rungs.equation, opened, True, 60.0, 1))
    deadly = next(iter(opened))
    opened[deadly] = replace(opened[deadly], label=Deadly())
    found = dict(ladder_rungs._decided_one_by_one(rungs.equation, opened, True, 60.0, 2))
    assert found[deadly].status == "unknown"
    assert "died" in found[deadly].reason
    for number in set(opened) - {deadly}:
        assert found[number].status == alive[number].status


def test_every_sample_is_reported_once():
    weights, U, labels = wide()
    seen = {}
    result = verify_robustness(
        weights, U, labels, 0.1, on_sample=lambda i, verdict: seen.setdefault(i, verdict)
    )
    assert [seen[i] for i in range(len(U))] == list(result.verdicts)
    assert sum(result.counts().values()) == len(U)
    assert (result.seconds >= 0).all()
    assert verify_robustness(weights, U[:0], labels[:0], 0.1).verdicts == ()


def test_one_sample_that_fails_or_takes_too_long_spoils_no_other(monkeypatch):
    weights, U, labels = wide()
    whole = verify_robustness(weights, U, labels, 0.1)
    decide, calls = sample_rungs._Decision.run, []

    def run(self, exact):
        calls.append(self)
        if len(calls) == 1:
            raise MemoryError
        if len(calls) == 2:
            self.deadline = -math.inf
        return decide(self, exact)

    monkeypatch.setattr(sample_rungs._Decision, "run", run)
    part = verify_robustness(weights, U, labels, 0.1)
    assert sorted(v.reason for v in part.verdicts if v.reason) == ["MemoryError", "time limit"]
    for one, other in zip(as_rows(whole), as_rows(part), strict=True):
        assert one == other or other[0] == "unknown"


def test_misclassified_inputs_are_their_own_counterexamples():
    weights, U, labels = wide()
    wrong = (labels + 1) % 3
    result = verify_robustness(weights, U, wrong, 0.0)
    assert result.falsified.all()
    for u, verdict in zip(U, result.verdicts, strict=True):
        assert verdict.rung == "input"
        np.testing.assert_array_equal(verdict.counterexample, u)


def test_modules_are_what_their_stored_weights_are():
    torch.manual_seed(0)
    network = ImplicitNetwork(4, 10, 3)
    U = torch.rand(8, 4)
    labels = network(U).argmax(dim=1)
    one = verify_robustness(network, U, labels, 0.02)
    weights = ImplicitWeights.from_module(network)
    other = verify_robustness(weights, U.numpy(), labels.tolist(), 0.02)
    assert as_rows(one) == as_rows(other)
    assert one.certified.any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon": "0.1"}, "epsilon"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"epsilon": math.inf}, "epsilon"),
        ({"epsilon": True}, "epsilon"),
        ({"epsilon": [0.1]}, "epsilon"),
        ({"epsilon": None}, "epsilon"),
        ({"x": [0.1, 0.2]}, "one input a row"),
        ({"x": [[0.1]]}, "one input a row"),
        ({"x": [[0.1, 0.2, 0.3, math.nan]]}, "NaN"),
        ({"x": [[0.1, 0.2], [0.1]]}, "x cannot be read"),
        ({"x": [[0.1, 0.2, 0.3, 1.5]]}, "domain"),
        ({"y": [3]}, "labels from 3"),
        ({"y": [-1]}, "labels from -1"),
        ({"y": [0.0]}, "whole"),
        ({"y": [0, 1]}, "label of every input"),
        ({"domain": (0,)}, "domain"),
        ({"domain": (1.0, 0.0)}, "domain"),
        ({"domain": (0.0, math.nan)}, "domain"),
        ({"domain": "01"}, "domain"),
        ({"domain": 1.0}, "domain"),
        ({"method": "exact"}, "method"),
        ({"method": None}, "method"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"n_jobs": 1.5}, "n_jobs"),
        ({"time_limit": 0}, "time_limit"),
        ({"time_limit": math.nan}, "time_limit"),
        ({"time_limit": "1"}, "time_limit"),
        ({"network": torch.nn.Linear(4, 3)}, "ImplicitNetwork"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(changes, words):
    given = {"network": wide()[0], "x": [[0.1, 0.2, 0.3, 0.4]], "y": [0], "epsilon": 0.1} | changes
    with pytest.raises(ValueError, match=words) as caught:
        verify_robustness(**given)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_that_are_not_well_posed_or_have_one_output():
    with pytest.raises(NotWellPosedError):
        verify_robustness(ImplicitWeights([[1.0]], [[1.0]], [[1.0], [0.0]]), [[0.5]], [0], 0.1)
    with pytest.raises(ValueError, match="two or more"):
        verify_robustness(ImplicitWeights([[0.0]], [[1.0]], [[1.0]]), [[0.5]], [0], 0.1)


def test_sparse_weights_are_decided_as_the_same_ones_in_full():
    torch.manual_seed(2)
    network = ImplicitNetwork(2, 6, 3, tol=1e-10).double()
    dense = ImplicitWeights.from_module(network)
    sparse = replace(dense, A=csr_array(dense.A), C=csr_array(dense.C))
    inputs = np.random.default_rng(0).uniform(size=(6, 2))
    labels = network(torch.from_numpy(inputs)).argmax(dim=1)
    found = [verify_robustness(weights, inputs, labels, 0.3) for weights in (dense, sparse)]
    assert found[0].decided_by() == found[1].decided_by()
    assert sparse.is_sparse


def test_sums_out_of_range_are_unknown_also_where_a_needs_weights():
    A, B, C = [[0.0, 4.0], [0.1, 0.0]], [[1e300], [1e300]], [[1e300, 2e300], [2e300, 1e300]]
    result = verify_robustness(ImplicitWeights(A, B, C), [[0.5]], [0], 0.1)
    assert result.counts() == {"certified": 0, "falsified": 0, "unknown": 1}
