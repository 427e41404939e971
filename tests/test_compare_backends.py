"""Comparisons of backends: what rows say, and that they say so of bad backends as well."""

import json
import math
import os
import time

import pytest

from contraction_nets import SolverError, UnknownSolverError
from contraction_nets.comparison.certificates import compare_certificates
from contraction_nets.comparison.projections import BY_ROWS, WHOLE, compare_projections
from contraction_nets.comparison.timing import spread, take_turns
from contraction_nets.comparison.worker import TimedOut, Worker
from contraction_nets.solving import registry

BACKENDS = """
import os, time
from collections import Counter
from dataclasses import dataclass
import numpy as np
from contraction_nets.solving.backend import Backend
from contraction_nets.solving.registry import solve
from contraction_nets.solving.solution import Solution, Status

@dataclass(frozen=True)
class Bad(Backend):
    solves = ("projection", "linear program")

    def off(self):
        return 0.0

    def solve(self, problem):
        projection = problem.kind == "projection"
        best = solve(problem, "closed_form" if projection else "m_matrix")
        x, off = best.x.copy(), self.off()
        x.flat[0] += off * (np.abs(problem.point).max() if projection else best.objective)
        return Solution(problem, self.name, Status.OPTIMAL, x, best.dual, best.output_dual)

@dataclass(frozen=True)
class Wrong(Bad):
    name = "wrong"

    def off(self):
        return -3.0

@dataclass(frozen=True)
class Coarse(Bad):
    name = "coarse"
    tolerance: float = 1e-3

    def off(self):
        return 0.9 * self.tolerance

CALLS = Counter()

@dataclass(frozen=True)
class Fickle(Bad):
    name = "fickle"
    tolerance: float = 1e-3

    def off(self):
        CALLS[self.tolerance] += 1
        return (0.9 if CALLS[self.tolerance] <= 2 else 9.0) * self.tolerance

@dataclass(frozen=True)
class Hanging(Bad):
    name = "hanging"

    def solve(self, problem):
        size = len(problem.point) if problem.kind == "projection" else len(problem.b)
        time.sleep(600.0 if size > 3 else 0.0)
        return super().solve(problem)

@dataclass(frozen=True)
class Slow(Bad):
    name = "slow"
    time_limit: float = 100.0

    def solve(self, problem):
        return Solution(problem, self.name, Status.TIME_LIMIT)

@dataclass(frozen=True)
class Crashing(Bad):
    name = "crashing"

    def solve(self, problem):
        os._exit(7)

@dataclass(frozen=True)
class Raising(Bad):
    name = "raising"

    def solve(self, problem):
        raise RuntimeError("no luck")
"""
NAMES = ["wrong", "coarse", "fickle", "hanging", "slow", "crashing", "raising"]


@pytest.fixture
def bad_backends(tmp_path, monkeypatch):
    """Backends of another package, which the other processes find as this one does."""
    (tmp_path / "bad_backends.py").write_text(BACKENDS)
    information = tmp_path / "bad-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    lines = [f"{name} = bad_backends:{name.capitalize()}" for name in NAMES]
    (information / "entry_points.txt").write_text(
        "\n".join([f"[{registry.ENTRY_POINT_GROUP}]", *lines])
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry._homes.cache_clear()
    yield
    registry._homes.cache_clear()


def test_contenders_take_turns():
    calls = []
    contenders = {name: lambda i, name=name: calls.append((i, name)) or i for name in "ab"}
    assert take_turns(contenders, 2) == {"a": [0, 1], "b": [0, 1]}
    assert calls == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_spread():
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0]) == {
        "seconds": 3.0,
        "seconds_min": 1.0,
        "seconds_lower_quartile": 2.0,
        "seconds_upper_quartile": 4.0,
    }


def test_a_worker_survives_what_runs_in_it():
    with Worker() as worker:
        assert worker.call(math.sqrt, 4.0) == 2.0
        first = worker.call(os.getpid)
        assert worker.call(print, "what a solver prints") is None
        assert worker.call(os.write, 1, b"also in compiled code") == 21
        with pytest.raises(SolverError, match="ValueError"):
            worker.call(math.sqrt, -1.0)
        assert worker.call(os.getpid) == first != os.getpid()
        with pytest.raises(TimedOut, match=r"after 0\.1 seconds"):
            worker.call(time.sleep, 600.0, limit=0.1)
        assert worker.call(os.getpid) != first
        with pytest.raises(SolverError, match="ended with code 7"):
            worker.call(os._exit, 7)
        assert worker.call(math.sqrt, 9.0) == 3.0


def test_a_worker_has_the_threads_it_was_given():
    with Worker(threads=3) as worker:
        assert worker.call(os.getenv, "OMP_NUM_THREADS") == "3"


def test_rows_of_projections(capfd):
    told = []
    names = ["closed_form", "osqp", "clarabel", WHOLE, BY_ROWS]
    rows = compare_projections(
        [6, 3], solvers=names, repetitions=2, accuracy=1e-6, progress=told.append
    )
    assert capfd.readouterr() == ("", "")
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    both = [("osqp", True), ("osqp", False), ("clarabel", True), ("clarabel", False)]
    methods = [("closed_form", None), *both, (WHOLE, None), (BY_ROWS, None)]
    assert [(row["n"], row["solver"], row["polished"]) for row in rows] == [
        (n, *method) for n in (3, 6) for method in methods
    ]
    for row in rows:
        assert (row["outcome"], row["reason"], row["repetitions"]) == ("reached", "", 2)
        assert 0 < row["seconds_min"] <= row["seconds_lower_quartile"] <= row["seconds"]
        assert row["seconds"] <= row["seconds_upper_quartile"]
        assert 0 <= row["distance"] <= 1e-5
        assert (row["tolerance"] is None) == (row["solver"] == "closed_form")
        assert (row["seconds_setup"] is None) == (row["solver"] in (WHOLE, BY_ROWS))
        assert 0 <= row["rows_violated"] <= row["n"]
        if row["solver"] == "closed_form":
            assert row["rows_violated"] == 0
            assert row["kkt_residual"] <= 1e-14
    assert any("n = 6" in text and "clarabel" in text for text in told)


def by_solver(rows):
    return {(row["n"], row["solver"]): row for row in rows}


@pytest.mark.parametrize("compare", [compare_projections, compare_certificates])
def test_bad_backends_are_seen_to_be(bad_backends, compare):
    told = []
    names = ["wrong", "hanging", "slow", "crashing", "raising"]
    rows = compare([5, 3, 4], solvers=names, repetitions=1, limit=0.5, progress=told.append)
    found = by_solver(rows)
    assert len(found) == len(rows) == 15
    for n in (3, 4, 5):
        wrong = found[n, "wrong"]
        assert (wrong["outcome"], wrong["seconds"]) == ("not reached", None)
        assert "error" in wrong["reason"]
        if compare is compare_projections:
            assert wrong["distance"] > 1.0
            assert wrong["kkt_residual"] > 0.1
        else:
            assert wrong["violation"] > 1e-3
            assert wrong["proved"]  # the proposal was refined
            assert wrong["excess"] >= -1e-13
        crashing, raising = found[n, "crashing"], found[n, "raising"]
        assert crashing["outcome"] == raising["outcome"] == "failed"
        assert "code 7" in crashing["reason"]
        assert "no luck" in raising["reason"]
        assert found[n, "slow"]["outcome"] == "timed out"
    assert found[3, "hanging"]["outcome"] == "reached"
    for n in (4, 5):
        assert found[n, "hanging"]["outcome"] == "timed out"
        assert found[n, "hanging"]["seconds"] is None
    assert "0.5 seconds" in found[4, "hanging"]["reason"]
    assert "at n = 4" in found[5, "hanging"]["reason"]
    assert not any("n = 5" in text and "hanging" in text for text in told)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_the_loosest_tolerance_that_is_accurate_is_named(bad_backends):
    rows = compare_projections([3], solvers=["coarse"], repetitions=2, accuracy=1e-6)
    assert [row["tolerance"] for row in rows] == [pytest.approx(1e-6)]
    assert rows[0]["options"] == {"tolerance": rows[0]["tolerance"]}
    (row,) = compare_projections([3], solvers=["coarse"], repetitions=2, accuracy=1e-17)
    assert (row["outcome"], row["seconds"]) == ("not reached", None)
    assert row["tolerance"] == pytest.approx(1e-14)


def test_what_was_timed_is_what_was_accurate(bad_backends):
    """A backend that is accurate only until the clock runs has to try harder."""
    rows = compare_projections([3], solvers=["coarse", "fickle"], repetitions=2, accuracy=1e-8)
    assert [row["outcome"] for row in rows] == ["reached", "reached"]
    assert [row["tolerance"] for row in rows] == pytest.approx([1e-8, 1e-9])


def test_rows_of_certificates(capfd):
    rows = compare_certificates([5], solvers=["m_matrix", "clarabel", "highs"], repetitions=2)
    assert capfd.readouterr() == ("", "")
    assert [row["solver"] for row in rows] == ["m_matrix", "clarabel", "highs"]
    for row in rows:
        assert (row["outcome"], row["proved"]) == ("reached", True)
        assert 0 < row["seconds_min"] <= row["seconds"]
        assert row["seconds_certificate"] > 0
        assert -1e-13 <= row["excess"] <= 1e-9
        assert 0 <= row["primal_dual_gap"] <= 1e-6
        assert max(row["violation"], row["objective_error"]) <= 1e-6


def test_registered_projections_take_part_by_themselves():
    rows = compare_projections([2], repetitions=1)
    assert {row["outcome"] for row in rows} == {"reached"}
    names = registry.available_solvers("projection")
    assert {row["solver"] for row in rows} == {*names, WHOLE, BY_ROWS}
    assert rows[0]["solver"] == "closed_form"


def test_registered_programs_take_part_by_themselves():
    rows = compare_certificates([2], repetitions=1)
    assert {row["outcome"] for row in rows} == {"reached"}
    names = registry.available_solvers("linear program")
    assert sorted(row["solver"] for row in rows) == names
    assert rows[0]["solver"] == "m_matrix"
    assert all(row["proved"] for row in rows)


def test_unknown_names_and_numbers_are_refused():
    for compare in (compare_projections, compare_certificates):
        with pytest.raises(UnknownSolverError, match="nope"):
            compare([3], solvers=["nope"])
        with pytest.raises(ValueError, match="at least one"):
            compare([3], repetitions=0)
