"""Damage to the bytes of a file, for tests of what readers do with it."""

from contraction_nets import ImplicitWeights

NUMBERS = (b"9999999999", b"-", b"1e400", b"nan", b"0", b"2147483648")


def damaged(data, rng, kind, other=b"\0"):
    """The bytes with one edit of this kind at a random place; a splice takes bytes of another."""
    data, place = bytearray(data), int(rng.integers(len(data)))
    if kind == "cut":
        del data[place:]
    elif kind == "delete":
        del data[place]
    elif kind == "insert":
        data.insert(place, rng.integers(256))
    elif kind == "byte":
        data[place] = (data[place] + rng.integers(1, 256)) % 256
    elif kind == "digit":
        data[place : place + 1] = b"%d" % rng.integers(10)
    elif kind == "bytes":
        for _ in range(5):
            data[rng.integers(len(data))] = rng.integers(256)
    elif kind == "hole":
        del data[place : place + int(rng.integers(1, 40))]
    elif kind == "splice":
        start = int(rng.integers(len(other)))
        data[place : place + 20] = other[start : start + 100]
    elif kind == "number":
        digits = [i for i, value in enumerate(data) if chr(value).isdigit()]
        if digits:
            place = digits[rng.integers(len(digits))]
            data[place : place + 1] = NUMBERS[rng.integers(len(NUMBERS))]
    else:
        raise ValueError(f"got the damage {kind!r}, expected a kind that is there.")
    return bytes(data)


def assert_loaded_or_refused(path):
    """The weights file loads, or is refused in one sentence."""
    message = "expected"
    try:
        ImplicitWeights.load(path)
    except ValueError as error:
        message = str(error)
    assert "expected" in message
    assert "\n" not in message
