"""Break any line of the exact arithmetic, and some case tells.

Every mutant of the three exact files (a comparison, operator, constant or call replaced, a branch
never taken) must answer at least one case differently from the original, whose answers
test_exact.py and test_sector_proof.py compare with rational arithmetic.
"""

import ast
import copy
import inspect
import math

import numpy as np
import pytest
from scipy import sparse
from strategies import tight_sectors

from contraction_nets.certificates import exact, exact_equilibrium, exact_sectors

COMPARISONS = {
    ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt), ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
CALLS = {"all": "any", "any": "all", "max": "min", "min": "max", "maximum": "minimum"}
BY_ONE = (-1, 1)

EQUIVALENT = {
    exact: {
        # A that is not square is refused next.
        "weights = ones(read_matrix(A, 'A').shape[0]) if eta is None else read_vector(eta, 'eta')"
        " -> "
        "weights = ones(read_matrix(A, 'A').shape[-1]) if eta is None else read_vector(eta, 'eta')",
        "weights = ones(read_matrix(A, 'A').shape[0]) if eta is None else read_vector(eta, 'eta')"
        " -> "
        "weights = ones(read_matrix(A, 'A').shape[1]) if eta is None else read_vector(eta, 'eta')",
        # Zero is zero at any exponent.
        "rows: list[list[Dyadic]] = [[(0, 0)] * q for _ in range(q)] -> "
        "rows: list[list[Dyadic]] = [[(0, -1)] * q for _ in range(q)]",
        "rows: list[list[Dyadic]] = [[(0, 0)] * q for _ in range(q)] -> "
        "rows: list[list[Dyadic]] = [[(0, 1)] * q for _ in range(q)]",
        # Any common exponent will do that is not above another, and any for what is zero.
        "lowest = int(exponents.min(initial=0, where=factors != 0)) -> "
        "lowest = int(exponents.min(initial=-1, where=factors != 0))",
        "lowest = int(exponents.min(initial=0, where=factors != 0)) -> "
        "lowest = int(exponents.min(initial=1, where=factors != 0))",
        "rest, shift = (abs(x.m), np.maximum(exponents - lowest, 0)) -> "
        "rest, shift = (abs(x.m), np.maximum(exponents - lowest, -1))",
        "e = np.where(m == 0, e.max(), e) -> e = np.where(m == 0, e.min(), e)",
        # Shorter digits.
        "bits = 63 - _PART - (int(counts.max()) - 1).bit_length() -> "
        "bits = 62 - _PART - (int(counts.max()) - 1).bit_length()",
        "bits = 63 - _PART - (int(counts.max()) - 1).bit_length() -> "
        "bits = 63 - _PART - (int(counts.max()) + 1).bit_length()",
        "bits = 63 - _PART - (int(counts.max()) - 1).bit_length() -> "
        "bits = 63 - _PART - (int(counts.max()) - 0).bit_length()",
        # Both are there or none is.
        "if columns is None or starts is None: -> if columns is None and starts is None:",
        # Another division into chunks.
        "chunk = starts[:-1] // _CHUNK -> chunk = starts[:+1] // _CHUNK",
        "chunk = starts[:-1] // _CHUNK -> chunk = starts[:-0] // _CHUNK",
        "chunk = starts[:-1] // _CHUNK -> chunk = starts[:-2] // _CHUNK",
        "step = max(_CHUNK // n, 1) -> step = max(_CHUNK // n, 2)",
        # All rows have one length.
        "read_matrix(claimed, name, (len(rows), len(rows[0]))) -> "
        "read_matrix(claimed, name, (len(rows), len(rows[-1])))",
        # A shift by nothing.
        "if excess > 0: -> if excess >= 0:",
        "if excess > 0: -> if excess > -1:",
        # One more bit of the fraction is the last of the exponent; set or not, the leading bit of a
        # normal number takes its place.
        "fraction = bits & (1 << fraction_bits) - 1 -> fraction = bits & (2 << fraction_bits) - 1",
        # numpy refuses rows of negative length as well, and the longest of none.
        "if not (m > 0 < n and ends and (np.diff(starts) >= 0).all()): -> "
        "if not (m >= 0 < n and ends and (np.diff(starts) >= 0).all()):",
        "if not (m > 0 < n and ends and (np.diff(starts) >= 0).all()): -> "
        "if not (m > 0 < n and ends and (np.diff(starts) >= 0).any()):",
        "if not (m > 0 < n and ends and (np.diff(starts) >= 0).all()): -> "
        "if not (m > 0 < n and ends and (np.diff(starts) >= -1).all()):",
    },
    exact_equilibrium: {
        # A digit more or less, far below the margin.
        "with localcontext(Context(prec=80)): -> with localcontext(Context(prec=79)):",
        "with localcontext(Context(prec=80)): -> with localcontext(Context(prec=81)):",
        # At zero both sides agree.
        "value = (1 - t * t) / (1 + t * t) * (1 if m >= 0 else -1) -> "
        "value = (1 - t * t) / (1 + t * t) * (1 if m > 0 else -1)",
        "value = (1 - t * t) / (1 + t * t) * (1 if m >= 0 else -1) -> "
        "value = (1 - t * t) / (1 + t * t) * (1 if m >= 1 else -1)",
        "value = (1 if m >= 0 else t) / (1 + t) -> value = (1 if m > 0 else t) / (1 + t)",
        "value = (1 if m >= 0 else t) / (1 + t) -> value = (1 if m >= 1 else t) / (1 + t)",
        "value = (1 + t).ln() + (size if m >= 0 else 0) -> "
        "value = (1 + t).ln() + (size if m > 0 else 0)",
        "value = (1 + t).ln() + (size if m >= 0 else 0) -> "
        "value = (1 + t).ln() + (size if m >= 1 else 0)",
    },
    exact_sectors: {
        # Zero, and the smallest float, have no inverse in float64.
        "if (mu.m <= 0).any(): -> if (mu.m < 0).any():",
        "if (mu.m <= 0).any(): -> if (mu.m <= -1).any():",
        "if (mu.m <= 0).any(): -> if (mu.m <= 1).any():",
    },
}
"""Mutants that answer as the original does, and why."""


def mutants(tree):
    """(description, mutated tree) for every single change to a statement of a function."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for statement in (node for function in functions for node in ast.walk(function)):
        if isinstance(statement, ast.FunctionDef) or not isinstance(statement, ast.stmt):
            continue
        for node in own_nodes(statement):
            for apply, undo in changes(node):
                before = ast.unparse(statement).splitlines()[0]
                apply()
                after = ast.unparse(statement).splitlines()[0]
                yield f"{before} -> {after}", copy.deepcopy(tree)
                undo()


def own_nodes(statement):
    """The statement and its expressions, but no statement inside it.

    Nor `copy=` and `strict=`, which change no value: lengths are checked before.
    """
    yield statement
    for child in ast.iter_child_nodes(statement):
        untouched = isinstance(child, ast.keyword) and child.arg in ("copy", "strict")
        if not isinstance(child, ast.stmt) and not untouched:
            yield from own_nodes(child)


def changes(node):
    """Pairs of functions that make one change to a node and take it back."""

    def setting(owner, name, value):
        old = getattr(owner, name)
        return lambda: setattr(owner, name, value), lambda: setattr(owner, name, old)

    def item(values, k, value):
        old = values[k]
        return lambda: values.__setitem__(k, value), lambda: values.__setitem__(k, old)

    if isinstance(node, ast.Compare):
        for k, operator in enumerate(node.ops):
            yield from (item(node.ops, k, new()) for new in COMPARISONS.get(type(operator), ()))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATORS:
        yield setting(node, "op", OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield setting(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield setting(node, "op", ast.UAdd())
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield from (setting(node, "value", node.value + step) for step in BY_ONE)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield setting(node, "value", not node.value)
    elif isinstance(node, ast.If | ast.IfExp):
        for constant in (True, False):
            yield setting(node, "test", ast.Constant(constant))
    elif isinstance(node, ast.Call):
        target = node.func
        name = "id" if isinstance(target, ast.Name) else "attr"
        if getattr(target, name, None) in CALLS:
            yield setting(target, name, CALLS[getattr(target, name)])
        if isinstance(target, ast.Attribute) and target.attr == "abs":
            yield setting(target, "attr", "asarray")


def module(tree):
    namespace = {"__name__": "mutant"}
    exec(compile(ast.fix_missing_locations(tree), "mutant", "exec"), namespace)
    namespace["_CHUNK"] = 4  # so that small matrices come in several chunks
    return namespace


def outcome(functions, name, arguments):
    try:
        return functions[name](*arguments)
    except Exception as error:
        return type(error).__name__


def tight(rng, n, p, q, dtype):
    """Weights and a witness of small integers, all inequalities attained, as (A, B, C, D, z, t)."""
    A = rng.integers(-2, 3, (n, n)).astype(float)
    B = rng.integers(-3, 4, (n, p)).astype(float)
    B[:, 0] += B[:, 0] == 0
    # (1 − A_ii) z_i = off_i + |B|1_i, with z_i a power of two: exact.
    z = 2.0 ** rng.integers(0, 3, n)
    off = np.abs(A) @ z - np.abs(np.diag(A)) * z
    np.fill_diagonal(A, 1 - (off + np.abs(B).sum(axis=1)) / z)
    C, D = rng.integers(-3, 4, (q, n)).astype(float), rng.integers(-3, 4, (q, p)).astype(float)
    bound = float((np.abs(C) @ z + np.abs(D).sum(axis=1)).max())
    return (*(x.astype(dtype) for x in (A, B, C, D, z)), bound)


def cases():
    """Function names and arguments; at, above and below equality, and bad input."""
    rng = np.random.default_rng(0)
    for trial in range(24):
        dtype = (np.float16, np.float32, np.float64)[trial % 3]
        n, p, q = (int(k) for k in rng.integers(1, 4, 3))
        A, B, C, D, z, bound = tight(rng, n, p, q, dtype)
        scale = dtype(2.0 ** rng.integers(-4, 4))
        yield "prove_bound", (A, B, C, D, z, bound)
        yield "prove_bound", (A, B, C, None, z, bound)
        yield "prove_bound", (A, B * scale, C, D * scale, z * scale, bound * float(scale))
        yield "prove_bound", (A, B, C, D, z, math.nextafter(bound, 0))
        yield "prove_bound", (A, B, C, D, -z, bound)
        yield "prove_bound", (A, B, C, D, z, -bound)
        yield "prove_bound", (A, B, C, D[:, :0] if p > 1 else D.T, z, bound)
        yield "exact_bound", (C, D, z)
        yield "exact_bound", (C, None, z)
        yield "exact_bound", (C / 3, D / 7, z / 5)
        yield "exact_bound", (C, D, -z)
        i = int(rng.integers(n))
        for matrix, j in ((A, int(rng.integers(n))), (B, int(rng.integers(p)))):
            for direction in (-np.inf, np.inf):
                moved = matrix.copy()
                moved[i, j] = np.nextafter(moved[i, j], dtype(direction))
                pair = (moved, B) if matrix is A else (A, moved)
                yield "prove_bound", (*pair, C, D, z, bound)
        yield "prove_well_posed", (A, z)
        yield "prove_well_posed", (A, np.where(np.arange(n) == i, 0, z).astype(dtype))
        critical = A.copy()
        np.fill_diagonal(critical, 0)
        np.fill_diagonal(critical, 1 - np.abs(critical).sum(axis=1))
        ones = np.ones(n, dtype)
        yield "prove_well_posed", (critical, ones)
        yield "prove_measure", (critical, 1.0)
        yield "prove_measure", (critical, 1.0, ones)
        yield "prove_measure", (critical, math.nextafter(1.0, 0))
        yield "prove_measure", (critical, math.nextafter(1.0, 2), ones)
        yield "prove_measure", (critical, 1.0, -ones)
        yield "prove_measure", (critical, 1.0, np.where(np.arange(n) == i, 0, ones).astype(dtype))
        yield "prove_measure", (-np.eye(n), -1.0)
        yield "prove_measure", (-np.eye(n), math.nextafter(-1.0, -2))
        yield "prove_measure", (A, 0.5, z)
        below = critical.copy()
        below[i, i] = np.nextafter(below[i, i], dtype(-np.inf))
        yield "prove_well_posed", (below, ones)
    info = np.finfo(np.float64)
    numbers = [
        5e-324,
        -5e-324,
        2.2250738585072014e-308,
        1.5,
        -0.1,
        3.0,
        1e300,
        info.max,
        0.0,
        1 / 3,
    ]
    for x in numbers:
        for y in numbers:
            yield "exact_bound", ([[x]], None, [abs(y)])
            yield "exact_bound", ([[x]], [[y]], [1.0])
            yield "exact_bound", ([[x, y]], None, [1.0, 5e-324])
            yield "prove_measure", ([[x]], y)
            yield "prove_measure", ([[x, y], [0.0, x]], 1.0)
            yield "prove_well_posed", ([[x]], [abs(y)])
            yield "prove_bound", ([[0.0]], [[x]], [[1.0]], None, [abs(y)], abs(y))
    for x in (np.float16, np.float32):
        tiny, largest = np.finfo(x).smallest_subnormal, np.finfo(x).max
        for value in (tiny, np.finfo(x).tiny, largest, x(-0.1), x(3)):
            yield "exact_bound", (np.array([[value]]), None, [1.0])
            yield "exact_bound", (np.array([[value]]), np.array([[tiny]]), np.array([largest]))
    for bad in (math.nan, math.inf, -math.inf):
        yield "prove_well_posed", ([[bad]], [1.0])
        yield "prove_well_posed", (np.array([[bad]], np.float32), [1.0])
        yield "prove_well_posed", (np.array([[bad]], np.float16), [1.0])
        yield "prove_measure", ([[0.5]], bad)
        yield "prove_bound", ([[0.0]], [[1.0]], [[1.0]], None, [2.0], bad)
    least = 5e-324
    # Rows that are satisfied, beside a witness that is not positive: no M-matrix.
    yield "prove_bound", ([[2.0]], [[1.0]], [[1.0]], None, [-1.0], 9.0)
    yield (
        "prove_bound",
        ([[2.0, 0.0], [0.0, 0.0]], [[1.0], [1.0]], [[1.0, 1.0]], None, [-1.0, 2.0], 9.0),
    )
    yield "prove_bound", ([[1.0]], [[0.0]], [[1.0]], None, [1.0], 9.0)
    yield "prove_measure", ([[0.0]], 1.0, [0.0])
    yield "prove_measure", ([[0.0]], 1.0, [least])
    yield "prove_measure", ([[least]], 0.0, [least])
    yield "prove_well_posed", ([[0.0, least], [0.0, 0.0]], [least, 1.0])
    yield "prove_well_posed", ([[0.0, -least], [0.0, 0.0]], [least, 1.0])
    yield "prove_well_posed", ([[0.0, 1.0], [0.0, 0.0]], [least, least])
    yield "prove_well_posed", ([[math.nan, 0.0], [0.0, 0.0]], [1.0, 1.0])
    yield "exact_bound", ([[1.0, 1.0]], None, [-1.0, 2.0])
    yield "exact_bound", ([[1.0]], None, [-least])
    yield "exact_bound", ([[1.0, 2.0**-53]], None, [1.0, 1.0])  # a tie, to be rounded up
    odd = 2**23 + 1  # 1 + odd² · 2**-53 has 54 bits: a tie by a single bit
    row = np.array([[1.0, odd * 2.0**-26]], np.float32)
    yield "exact_bound", (row, None, np.array([1.0, odd * 2.0**-27], np.float32))
    ones_only = 1 - 2.0**-53  # all digits of products are as large as can be
    for n in (1, 2, 3, 5):
        full = np.full((2, n), ones_only)
        yield "exact_bound", (full, None, full[0])
        full[1, 1:] = 0
        yield "exact_bound", (sparse.csr_array(full), None, np.full(n, ones_only))
    one = np.ones((1, 1))
    yield "prove_measure", (one, 10**30 + 1)
    yield "prove_measure", (one, 2)
    for shape in ((2, 1), (1, 2), (1,), (0, 0), (1, 1, 1)):
        other = np.ones(shape)
        yield "prove_well_posed", (other, [1.0])
        yield "prove_measure", (other, 2.0)
        yield "prove_measure", (one, 2.0, other)
        yield "exact_bound", (other, None, [1.0])
        yield "exact_bound", (one, other, [1.0])
        for k in range(4):
            arguments = [0 * one, one, one, one]
            arguments[k] = other
            yield "prove_bound", (*arguments, [2.0], 9.0)
    yield "prove_well_posed", ([[0]], [1.0])
    yield "prove_well_posed", (np.array([[0.5]], ">f4"), [1.0])
    yield "prove_well_posed", (np.array([[0.5]], ">f8"), np.array([1.0], ">f4"))


def nudged(arrays, k, place, direction):
    """The arrays, entry `place` of the k-th moved by one unit in the last place."""
    moved = [array if array is None else np.array(array) for array in arrays]
    value = moved[k].flat[place]
    moved[k].flat[place] = np.nextafter(value, value.dtype.type(direction))
    return moved


def at(arrays, k, rng):
    return int(rng.integers(np.size(arrays[k])))


def tight_gains(rng, n, p, q, dtype):
    """(A, B, C, D, z, Y, G) of small integers with Y (I − M) = |C| and Y|B| + |D| = G."""
    A = rng.integers(-3, 4, (n, n)).astype(float)
    Y = rng.integers(1, 5, (q, n)).astype(float)
    np.fill_diagonal(A, -50.0)
    M = np.abs(A)
    np.fill_diagonal(M, -50.0)
    B, D = rng.integers(-3, 4, (n, p)).astype(float), rng.integers(-3, 4, (q, p)).astype(float)
    C = (Y - Y @ M) * rng.choice([-1.0, 1.0], (q, n))
    G = Y @ np.abs(B) + np.abs(D)
    return [x.astype(dtype) for x in (A, B, C, D, np.ones(n), Y, G)]


def more_cases():
    """The statements beside the bound: pairs, gains, the abscissa, radii; sparse matrices."""
    rng = np.random.default_rng(1)
    for trial in range(24):
        dtype = (np.float16, np.float32, np.float64)[trial % 3]
        n, p, q = (int(k) for k in rng.integers(1, 4, 3))
        A, B, C, D, z, _ = tight(rng, n, p, q, dtype)
        # Radii: the same states with B/2 and ε = 2, and an input that does not move.
        radii = np.full(p, 2.0)
        B2, D2 = B / 2, D / 2
        wide, still = np.hstack([B2, 9 * np.ones((n, 1))]), np.append(radii, 0.0)
        wide_D = np.hstack([D2, np.ones((q, 1))])
        for feed, fed in ((D, wide_D), (None, None)):
            bound = exact.exact_bound(C, feed, z)
            pairs = exact_pairs(C, feed, z)
            network = [A, wide, C, fed, z]
            yield "prove_bound", (*network, bound, still)
            yield "prove_bound", (*network, math.nextafter(bound, -1), still)
            yield "prove_bound", (*network, bound, np.append(radii, 2.0**-40))
            yield "prove_bound", (*network, bound, -still)
            yield "prove_bound", (*network, bound, radii)
            yield "exact_bound", (C, fed, z, still)
            yield "exact_bound", (C, fed, z, radii)
            yield "prove_pairs", (*network, pairs, still)
            yield "prove_pairs", (A, B, C, feed, z, pairs)
            if q > 1:
                for i, j in ((0, 1), (1, 0), (q - 1, 0), (0, q - 1)):
                    less = pairs.copy()
                    less[i, j] = np.nextafter(less[i, j], -1)
                    yield "prove_pairs", (A, B, C, feed, z, less)
                    moved = nudged([C], 0, i * n, np.inf)[0]
                    yield "prove_pairs", (A, B, moved, feed, z, pairs)
            yield "prove_pairs", (A, B, C, feed, z, pairs - np.eye(q))
            yield "prove_pairs", (A, B, C, feed, -z, pairs)
            yield "prove_pairs", (A, 2 * B, C, feed, z, pairs)
            yield "prove_pairs", (A, B, C, feed, z, pairs[:1, :1])
            yield "prove_pairs", (A, B, C, feed, z, pairs[:, :1])
        parts = tight_gains(rng, n, p, q, dtype)
        for given in (parts, [*parts[:3], None, *parts[4:6], parts[5] @ np.abs(parts[1])]):
            given = [x if x is None else x.astype(dtype) for x in given]
            yield "prove_gains", given
            for k in (0, 1, 2, 3, 4, 5, 6):
                if given[k] is None:
                    continue
                for direction in (-np.inf, np.inf):
                    yield "prove_gains", nudged(given, k, at(given, k, rng), direction)
            yield "prove_gains", [*given[:4], -given[4], *given[5:]]
            yield "prove_gains", [*given[:6], given[6][:, :1]]
            yield "prove_gains", [*given[:6], given[6][:1]]
            yield "prove_gains", [*given[:5], given[5][:1], given[6]]
            yield "prove_gains", [given[0], given[1][:1], *given[2:]]
        # Equality of M x = ρ x, with states that do not take part.
        x = 2.0 ** rng.integers(0, 3, n) * (rng.uniform(size=n) < 0.7)
        M = np.abs(rng.integers(-3, 4, (n, n))).astype(float)
        np.fill_diagonal(M, 0.0)
        np.fill_diagonal(M, 2.0 - np.divide(M @ x, x, out=np.zeros(n), where=x > 0))
        signed = np.where(np.eye(n) > 0, M, M * rng.choice([-1.0, 1.0], (n, n))).astype(dtype)
        yield "prove_abscissa", (signed, 2.0, x)
        yield "prove_abscissa", (signed, math.nextafter(2.0, 3), x)
        yield "prove_abscissa", (signed, math.nextafter(2.0, 1), x)
        yield "prove_abscissa", (signed, 2.0, -x)
        yield "prove_abscissa", (signed, -1e300, -x - 1)
        yield "prove_abscissa", (signed, -1e300, 0 * x)
        yield "prove_abscissa", (signed, -1e300, np.append(x, 1.0))
        yield "prove_abscissa", nudged([signed, np.float64(2.0), x], 0, 0, -np.inf)

    least, zero = 5e-324, np.zeros((2, 2))
    yield "prove_abscissa", (zero, 0.0, [1.0, -1.0])
    yield "prove_abscissa", (zero, 0.0, [1.0, -least])
    yield "prove_abscissa", (zero, 0.0, [least, 0.0])
    yield "exact_bound", ([[1.0]], [[1.0]], [1.0], [-least])
    for x in (least, -least):  # 1 + 4 · least, and a bound above it
        rows, limits = [[x, x, 1.0], [-x, -x, 0.0]], np.full((2, 2), 1 + 2.0**-52)
        yield "prove_pairs", (np.zeros((3, 3)), np.ones((3, 1)), rows, None, np.ones(3), limits)
    yield "prove_gains", ([[0.5]], [[1.0]], [[0.0]], None, [1.0], [[-least]], [[0.0]])
    wide = np.tril(np.ones((9, 9)), -1) / 16
    yield "prove_measure", (wide, 0.5)
    yield "prove_measure", (wide, math.nextafter(0.5, 0))
    empty = sparse.csr_array((0, 1)), sparse.csr_array((1, 0))
    yield "prove_bound", ([[0.5]], [[1.0]], empty[0], None, [9.0], 9.0)
    yield "prove_bound", ([[0.5]], empty[1], [[1.0]], None, [9.0], 9.0)


def exact_pairs(C, D, z):
    feed = np.zeros((len(C), 1)) if D is None else D.astype(float)
    C = C.astype(float)
    return np.abs(C[:, None] - C) @ z.astype(float) + np.abs(feed[:, None] - feed).sum(axis=2)


def sparse_cases():
    """All of the above again with sparse matrices, and malformed ones."""
    rng = np.random.default_rng(2)
    for name, arguments in [*cases(), *more_cases()]:
        matrices = range(1 if name in ("exact_bound", "prove_measure") else 4)
        chosen = [
            k for k in matrices if k < len(arguments) and np.ndim(arguments[k]) == 2
            and isinstance(arguments[k], np.ndarray) and arguments[k].dtype.itemsize > 2
            and rng.uniform() < 0.5 and arguments[k].dtype.isnative and arguments[k].size
        ]  # fmt: skip
        if chosen and rng.uniform() < 0.3:
            yield (
                name,
                [
                    sparse.csr_array(value) if k in chosen else value
                    for k, value in enumerate(arguments)
                ],
            )
    A = sparse.csr_array(np.array([[0.5, 0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.25, 0.5]]))
    ones = np.ones(3)
    yield "prove_well_posed", (A, ones)
    yield "prove_measure", (A, 0.75)
    yield "prove_measure", (A, math.nextafter(0.75, 0))
    yield "prove_measure", (sparse.csr_array((3, 3)), 0.0)
    yield "prove_measure", (sparse.csr_array((3, 3)), -5e-324)
    yield "prove_measure", (A[:, :2], 1.0)
    yield "prove_measure", (sparse.csr_array((0, 3)), 1.0)
    yield "prove_measure", (sparse.csr_array((3, 0)), 1.0)
    # By columns, and read as by rows it would be the transpose, whose measure is less.
    yield "prove_measure", (sparse.csc_array(np.array([[0.0, 1.0, 1.0]] + 2 * [[0.0] * 3])), 1.0)
    long = sparse.csr_array(np.tril(np.ones((9, 9)), -1) / 16)
    for k in range(9):
        moved = long.copy()
        moved.data[-k - 1] += 2.0**-52
        yield "prove_measure", (moved, 0.5)
    yield "prove_measure", (long, 0.5)
    yield "prove_measure", (long, math.nextafter(0.5, 0))

    class Damaged:
        def __init__(self, **parts):
            vars(self).update(shape=A.shape, data=A.data, indices=A.indices, indptr=A.indptr)
            vars(self).update(parts)

    for parts in (
        {"indptr": [0, 2, 2]},
        {"indptr": [0, 2, 2, 4, 4]},
        {"indptr": [1, 2, 2, 4]},
        {"indptr": [-1, 2, 2, 4]},
        {"indptr": [0, 2, 2, 3]},
        {"indptr": [0, 4, 2, 4]},
        {"indptr": [0, 2, 1, 4]},
        {"indptr": [0, 5, 5, 4]},
        {"indices": [0, 1, 1, 3]},
        {"indices": [-1, 1, 1, 2]},
        {"indices": [1, 0, 1, 2]},
        {"indices": [0, 0, 1, 2]},
        {"indices": [0, 1, 2, 2]},
        {"indices": [0, 1, 1]},
        {"data": A.data[:3]},
        {"data": A.data[:3], "indices": [0, 1, 1]},
        {"data": np.append(A.data, 9.0)},
        {"data": A.data.astype(int)},
        {"data": A.data * np.nan},
        {"shape": (3, 2)},
        {"shape": (0, 3), "indptr": [0], "indices": [], "data": []},
        {"shape": (3, 0), "indptr": [0, 0, 0, 0], "indices": [], "data": []},
        {"indices": [], "data": []},
        {},
    ):
        yield "prove_measure", (Damaged(**parts), 1.0)
        yield "prove_well_posed", (Damaged(**parts), ones)


def equilibrium_cases():
    """Computed states at, inside and outside the distance that is claimed."""
    rng = np.random.default_rng(3)
    specs = [
        ("relu", None), ("leaky_relu", 0.25), ("leaky_relu", 0.0), ("tanh", None),
        ("sigmoid", None), ("softplus", None), ("elu", 1.0), ("elu", 0.5),
    ]  # fmt: skip
    for trial in range(60):
        phi = specs[trial % len(specs)]
        n, p = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        A = rng.integers(-2, 3, (n, n)) / 16
        np.fill_diagonal(A, rng.choice([-3.0, -0.5, 0.0, 0.5], n))
        B, b, u = rng.integers(-3, 4, (n, p)) / 2, rng.integers(-3, 4, n) / 4, rng.normal(size=p)
        if phi[0] in ("relu", "leaky_relu"):
            u = np.round(u * 4) / 4
        x = np.round(rng.normal(size=n) * 8) / 8
        image = evaluate(phi, A @ x + B @ u + b)
        slack = np.maximum(1, 1 - np.diag(A)) * np.abs(x - image)
        M = np.abs(A)
        np.fill_diagonal(M, np.diag(A))
        w, z = np.linalg.solve(np.eye(n) - M, slack), np.ones(n) * 4
        w = w * (1 + 1e-14) + 2.0**-60
        largest = float(w.max())
        given = [A, B, b, phi, u, x, z, w, largest]
        yield "prove_equilibrium", given
        yield "prove_equilibrium", [*given[:8], math.nextafter(largest, 0)]
        yield "prove_equilibrium", [*given[:7], w * (1 - 1e-13), largest]
        yield "prove_equilibrium", [*given[:7], w * (1 - 1e-13) - 1e-17, largest]
        yield "prove_equilibrium", [*given[:7], 0 * w, largest]
        yield "prove_equilibrium", [A, B, None, *given[3:]]
        yield "prove_equilibrium", [*given[:6], -z, w, largest]
        for k in (2, 4, 5, 7):
            yield "prove_equilibrium", [*given[:k], np.append(given[k], 0.5), *given[k + 1 :]]
        yield "prove_equilibrium", [A, B[:1], *given[2:]]
        yield "prove_equilibrium", [-A, B, b, phi, u, x, z, w * 9, largest * 9]
    for phi in specs:
        for v in (-40.0, -1.5, -1e-9, 0.0, 1e-9, 1.5, 40.0, 1e300, -1e300):
            image = float(evaluate(phi, np.array([v]))[0])
            for state in (image, image * (1 - 1e-13) - 1e-14, image * (1 + 1e-13) + 1e-14):
                for distance in (0.0, 1e-15, abs(v) * 1e-15, 1e-12 * (1 + abs(image))):
                    yield (
                        "prove_equilibrium",
                        ([[0.0]], [[1.0]], None, phi, [v], [state], [1.0], [distance], distance),
                    )
    one = ([[0.0]], [[1.0]], [0.5], ("leaky_relu", 0.5), [-2.5], [-1.0], [1.0], [0.0], 0.0)
    yield "prove_equilibrium", one  # exactly: φ(−2.5 + 0.5) = −1
    yield "prove_equilibrium", (*one[:5], [-1.0 - 2.0**-52], *one[6:])
    yield "prove_equilibrium", (*one[:5], [-1.0 - 2.0**-52], [1.0], [2.0**-52], 2.0**-52)
    for phi in (("leaky_relu", 1.5), ("leaky_relu", -0.5), ("elu", 1.5), ("gelu", None)):
        yield "prove_equilibrium", (*one[:3], phi, *one[4:])
    # The residual counts 1 − A_ii times where A_ii < 0: x = 1 but φ = 0.5, and w = 0.5.
    steep = [[-1.0]], [[1.0]], [0.0], ("relu", None), [1.5], [1.0], [1.0]
    yield "prove_equilibrium", (*steep, [0.5], 0.5)
    yield "prove_equilibrium", (*steep, [0.25], 0.25)
    yield "prove_equilibrium", (*steep, [0.5 - 2.0**-53], 0.5)
    flat = [[0.5]], [[1.0]], [0.0], ("relu", None), [0.0], [1.0], [1.0]
    yield "prove_equilibrium", (*flat, [1.0], 1.0)
    yield "prove_equilibrium", (*flat, [1.0 - 2.0**-53], 1.0)

    # Huge entries beside the diagonal have no part in 1 − A_ii.
    huge = [[-1.0, 1e300], [0.0, 0.0]], [[1.0], [0.0]], None, ("relu", None), [1.5], [1.0, 0.0]
    yield "prove_equilibrium", (*huge, [1e300, 1.0], [0.5, 0.0], 0.5)
    yield "prove_equilibrium", (*huge, [1e300, 1.0], [0.25, 0.0], 0.5)
    least = 5e-324
    yield (
        "prove_equilibrium",
        ([[0.0]], [[1.0]], None, ("relu", None), [-least], [-least], [1.0], [0.0], 0.0),
    )
    for name, parameter in specs:
        for m in (-3, -1, 0, 1, 5):
            for e in (-1074, -60, -1, 0, 3):
                yield "_activation", (name, parameter, (m, e))


def evaluate(phi, v):
    """φ in float64."""
    name, parameter = phi
    with np.errstate(all="ignore"):
        return {
            "relu": lambda: np.maximum(v, 0),
            "leaky_relu": lambda: np.where(v < 0, parameter * v, v),
            "tanh": lambda: np.tanh(v),
            "sigmoid": lambda: 1 / (1 + np.exp(-v)),
            "softplus": lambda: np.logaddexp(v, 0),
            "elu": lambda: np.where(v < 0, parameter * np.expm1(np.minimum(v, 0)), v),
        }[name]()


def sector_cases():
    """Proofs that hold with equality, moved by one unit in the last place, and bad input."""
    rng = np.random.default_rng(4)
    for trial in range(12):
        n, p, q = (int(k) for k in rng.integers(1, 4, 3))
        given = tight_sectors(rng, n, p, q)
        if trial % 3 == 1:
            given[:4] = [x.astype(np.float32) for x in given[:4]]
        yield "prove_sectors", given
        # Other units of inputs, and of states and outputs.
        epsilon = 2.0 ** rng.integers(-3, 4, p + 1)
        wide = [given[0], given[1] / epsilon, given[2], given[3] / epsilon, *given[4:]]
        yield "prove_sectors", [*wide, epsilon]
        yield "prove_sectors", [*wide, epsilon * (1 + 2.0**-52)]
        yield "prove_sectors", [*wide, -epsilon]
        for k in range(len(given)):
            for _ in range(2):
                place = at(given, k, rng)
                for direction in (-np.inf, np.inf):
                    yield "prove_sectors", nudged(given, k, place, direction)
            yield "prove_sectors", [*given[:k], -given[k], *given[k + 1 :]]
            yield "prove_sectors", [*given[:k], 0 * given[k], *given[k + 1 :]]
            yield "prove_sectors", [*given[:k], given[k][:-1], *given[k + 1 :]]
            yield (
                "prove_sectors",
                [*given[:k], np.append(given[k], given[k][:1], 0), *given[k + 1 :]],
            )
            if given[k].ndim == 2:
                yield "prove_sectors", [*given[:k], given[k][:, :-1], *given[k + 1 :]]
        # The last input does nothing, so that its μ < 0 would go unnoticed elsewhere.
        sign = np.append(np.ones(p), -1.0)
        yield "prove_sectors", [*given[:6], given[6] * sign, given[7] * sign, *given[8:]]
        yield "prove_sectors", [*given[:3], None, *given[4:]]
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    for least in (5e-324, -5e-324):  # T = diag(2, 1 + 2⁻⁵²)
        factor, bounds = np.array([[1.0, least, 1.0]]), [1.0 + 2.0**-52]
        yield (
            "prove_sectors",
            [zero, zero, zero, None, [1.0], one, one, one, factor, bounds],
        )


BATTERIES = {
    exact: lambda: [*cases(), *more_cases(), *sparse_cases()],
    exact_equilibrium: lambda: list(equilibrium_cases()),
    exact_sectors: lambda: list(sector_cases()),
}


@pytest.mark.parametrize("file", BATTERIES, ids=lambda file: file.__name__.rpartition(".")[2])
def test_every_mutant_is_found_out(file):
    tree = ast.parse(inspect.getsource(file))
    battery = BATTERIES[file]()
    original = module(tree)
    expected = [outcome(original, *case) for case in battery]
    order = list(range(len(battery)))
    survivors, count = [], 0
    for description, mutant in mutants(tree):
        functions = module(mutant)
        count += 1
        for place, k in enumerate(order):
            if outcome(functions, *battery[k]) != expected[k]:
                order.insert(0, order.pop(place))  # what found this one may find the next
                break
        else:
            survivors.append(description)
    assert count > 50
    assert set(survivors) == EQUIVALENT[file]
