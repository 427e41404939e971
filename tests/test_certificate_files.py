"""Certificate files of every kind, damaged: what is still proved is what was claimed."""

import json
from dataclasses import replace

import numpy as np
import pytest
from damage import damaged

from contraction_nets import ImplicitWeights, lipschitz_certificate, optimal_weights
from contraction_nets.certificates.document import load_certificate, save_statement
from contraction_nets.certificates.statements import (
    STATEMENTS,
    EquilibriumError,
    NotContracting,
    WeightedMeasure,
)

EDITS = ("byte", "digit", "insert", "delete")
FILES = (*STATEMENTS, "lipschitz, radii", "pairs, radii", "sectors, radii", "measure, upper")


def network():
    """Dense, so that every number of every witness has a part in some row that is tight."""
    rng = np.random.default_rng(1)
    n, p, q = 3, 2, 2
    A, B, C, D = (rng.uniform(0.5, 1, s) for s in ((n, n), (n, p), (q, n), (q, p)))
    A *= 0.25 * rng.choice([-1, 1], A.shape)
    np.fill_diagonal(A, [-0.5, 0.25, 0.125])
    return ImplicitWeights(A, B * rng.choice([-1, 1], B.shape), C, D, np.array([0.5, -0.25, 1.0]))


def equilibrium(weights):
    """A state of one hundred steps, and w of twice its residual."""
    u, x = np.array([0.75, -0.5]), np.zeros(weights.state_dim)
    for _ in range(100):
        x = x / 2 + np.maximum(weights.A @ x + weights.B @ u + weights.b, 0.0) / 2
    z = lipschitz_certificate(weights).witness
    w = 1e-14 * z
    return EquilibriumError(w.max(), u, x, z, w)


def made(name):
    """Weights, a statement about them, and the report that its file needs."""
    weights = network()
    kind, _, variant = name.partition(", ")
    radii = np.array([0.5, 2.0]) if variant == "radii" else None
    certificate = lipschitz_certificate(weights, epsilon=radii)
    report = certificate.as_dict()
    if kind == "equilibrium":
        return weights, equilibrium(weights), {}
    if kind == "not_contracting":
        found = optimal_weights(weights.A)
        return weights, NotContracting(found.lower, found.x), {}
    statement = certificate.statement(kind)
    if variant == "upper":
        statement = WeightedMeasure(statement.gamma, statement.eta)
    return weights, statement, report


@pytest.fixture(params=FILES)
def saved(request, tmp_path):
    """Weights, a statement, and a file of it that proves it."""
    weights, statement, report = made(request.param)
    path = tmp_path / "certificate.json"
    save_statement(statement, weights, path, report)
    assert load_certificate(path).verify(weights)
    return weights, statement, path


def claim(statement):
    """What is claimed, to the last bit."""
    numbers = statement.part(statement.claims)
    return statement.text, {name: np.asarray(value).tolist() for name, value in numbers.items()}


def test_no_edit_of_one_byte_proves_another_claim(saved):
    weights, statement, path = saved
    original, claimed = path.read_bytes(), claim(statement)
    rng = np.random.default_rng(0)
    refused = proved = 0
    for trial in range(1000):
        path.write_bytes(damaged(original, rng, EDITS[trial % len(EDITS)]))
        try:
            document = load_certificate(path)
        except ValueError as error:
            refused += 1
            message = str(error)
            assert "expected" in message
            assert "\n" not in message
            continue
        if document.verify(weights):
            proved += 1
            assert claim(document.statement) == claimed
    assert refused > 500
    assert proved > 0  # edits of the report, say, or of white space


@pytest.mark.parametrize("name", ["lipschitz", "measure, upper"])
def test_decimals_of_a_number_that_is_not_claimed_are_refused(tmp_path, name):
    weights, statement, report = made(name)
    path = tmp_path / "certificate.json"
    save_statement(statement, weights, path, report)
    content = json.loads(path.read_text())
    (absent,) = set(statement.claims) - set(statement.part(statement.claims))
    content["statement"][f"{absent}_decimal"] = [0.5, 0.5] if absent == "epsilon" else 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="parts that it should not have"):
        load_certificate(path)


def test_a_file_that_ends_early_is_bad_input(saved):
    _, _, path = saved
    original = path.read_bytes().rstrip()
    lengths = {*np.linspace(0, len(original) - 1, 200).astype(int), len(original) - 2}
    for length in lengths:
        path.write_bytes(original[:length])
        with pytest.raises(ValueError, match=r"is not JSON .*, expected a certificate"):
            load_certificate(path)


def moved(statement, name, factors):
    """The statement with one number of this field at a time times one of the factors."""
    value = np.asarray(getattr(statement, name), dtype=np.float64)
    for place in np.ndindex(value.shape):
        for factor in factors:
            changed = value.copy()
            changed[place] *= factor
            yield replace(statement, **{name: changed if value.ndim else float(changed)})


def rejected(changed, weights, path, report):
    save_statement(changed, weights, path, report)
    return not load_certificate(path).verify(weights)


ANYWHERE = (-1.0, 1e-9, 1e9)
TIGHT = (*ANYWHERE, 1 - 1e-3, 1 + 1e-3)
LARGER, SMALLER = (1 + 1e-3, 1e9), (1 - 1e-3, 1e-9)

WITNESSES = {
    # A witness that serves well-posedness alone is tight nowhere.
    "lipschitz": {"z": TIGHT},
    "pairs": {"z": TIGHT},
    "gains": {"z": ANYWHERE, "Y": TIGHT},
    # T less L Lᵀ is a few roundings: a larger L leaves a negative diagonal, other numbers move T.
    "sectors": {
        "z": TIGHT, "multipliers": TIGHT, "input_multipliers": TIGHT, "inverses": TIGHT,
        "factors": LARGER,
    },
    "measure": {"eta": TIGHT, "x": TIGHT},
    "not_contracting": {"x": TIGHT},
    "equilibrium": {"z": ANYWHERE, "w": ANYWHERE},
}  # fmt: skip
STRONGER = {
    "lipschitz": {"bound": SMALLER, "epsilon": LARGER},
    "pairs": {"gains": SMALLER, "epsilon": LARGER},
    "gains": {"gains": SMALLER},
    "sectors": {"bound": SMALLER, "bounds": SMALLER, "epsilon": LARGER},
    "measure": {"gamma": SMALLER, "lower": LARGER},
    "not_contracting": {"lower": LARGER},
    "equilibrium": {"distance": SMALLER, "input": (*LARGER, *SMALLER), "state": TIGHT},
}


@pytest.mark.parametrize("numbers", [WITNESSES, STRONGER], ids=["witness", "claim"])
def test_a_number_that_moves_proves_nothing(saved, numbers):
    weights, statement, path = saved
    factors, zeros = numbers[statement.kind], 0
    parts = statement.part(statement.witnesses if numbers is WITNESSES else statement.claims)
    assert set(parts) <= set(factors)
    for name in parts:
        for changed in moved(statement, name, factors[name]):
            if np.array_equal(getattr(changed, name), getattr(statement, name)):
                zeros += 1  # times anything it is zero
                continue
            report = {"lipschitz": {"bound": getattr(changed, "bound", None)}}
            assert rejected(changed, weights, path, report), name
    # A difference of an output to itself, and nothing else, is zero.
    assert zeros == (4 if "pairs" in statement.kind and numbers is STRONGER else 0)


@pytest.mark.parametrize("kind", ["lipschitz", "pairs", "sectors"])
def test_radii_that_are_all_zero_prove_nothing(kind):
    """Equal inputs are within 0 · t of each other where t < 0, too, and bound · t is no bound."""
    weights, statement, _ = made(f"{kind}, radii")
    assert statement.prove(weights)
    for zeros in ([0.0, 0.0], [-0.0, 0.0]):
        assert not replace(statement, epsilon=np.array(zeros)).prove(weights)
    if kind != "sectors":  # whose triangles fit their radii alone
        assert replace(statement, epsilon=np.array([0.0, 0.125])).prove(weights)
