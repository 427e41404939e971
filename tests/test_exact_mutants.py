"""Break any line of the exact arithmetic, and some case tells.

Every mutant of exact.py (a comparison, operator, constant or call replaced, a branch never taken)
must answer at least one case differently from the original, whose answers test_exact.py compares
with rational arithmetic.
"""

import ast
import copy
import inspect
import math

import numpy as np

from contraction_nets.certificates import exact

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
    # Zero is zero at any exponent, and a zero product may take part in a sum.
    "return (0, 0) -> return (0, -1)",
    "return (0, 0) -> return (0, 1)",
    "used = (x.mantissas != 0) & (y.mantissas != 0) -> "
    "used = (x.mantissas != 0) | (y.mantissas != 0)",
    # No negative witness comes that far.
    "used = (x.mantissas != 0) & (y.mantissas != 0) -> "
    "used = (x.mantissas != 0) & (y.mantissas != -1)",
    # Where all z ≥ 0 and z_i = 0, row i of (I − M) z is not positive: refused all the same.
    "return bool((values.mantissas > 0).all()) -> return bool((values.mantissas >= 0).all())",
    "return bool((values.mantissas > 0).all()) -> return bool((values.mantissas > -1).all())",
    # A shift by nothing.
    "if excess > 0: -> if excess >= 0:",
    "if excess > 0: -> if excess > -1:",
    # One more bit of the fraction is the last of the exponent; set or not, the leading bit of a
    # normal number takes its place.
    "fraction = bits & (1 << fraction_bits) - 1 -> fraction = bits & (2 << fraction_bits) - 1",
    # The first of one is the last.
    "return _entry(_integers(np.array([number]), name), 0) -> "
    "return _entry(_integers(np.array([number]), name), -1)",
    # A copy has the same bits.
    "return array.astype(array.dtype.newbyteorder('='), copy=False) -> "
    "return array.astype(array.dtype.newbyteorder('='), copy=True)",
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
    """The statement and its expressions, but no statement inside it."""
    yield statement
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt):
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


def test_every_mutant_is_found_out():
    tree = ast.parse(inspect.getsource(exact))
    battery = list(cases())
    original = vars(exact)
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
    assert count > 100
    assert set(survivors) == EQUIVALENT
