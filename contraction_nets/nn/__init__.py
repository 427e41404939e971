"""Torch layers whose state matrix stays in {A : μ_{∞,η}(A) ≤ γ}."""
