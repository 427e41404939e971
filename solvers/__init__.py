"""The backends of contraction-nets, one file each; use them through `contraction_nets`.

To add one, see "add a backend" in CONTRIBUTING.md: one new file here and no other edit.
"""

__contraction_nets__ = True
