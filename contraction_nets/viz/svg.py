"""A figure as an inline <svg> element that takes its colours from the page around it."""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from contraction_nets.viz.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an inline <svg> element without any reference to the outside.

    Text stays text, and the palette becomes CSS variables (``var(--blue)``) so that the page
    decides between light and dark. Equal figures give equal text.

    Parameters
    ----------
    figure : Figure
        Made by a function of `contraction_nets.viz.plots`.
    name : str
        Keeps the ids of two pictures of one page apart.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            stream,
            format="svg",
            dpi=150,
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would reach the whole page
    svg = re.sub(r"font-family:[^;\"]*;? ?", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*pt" height="[^"]*pt"', r"<svg\1", svg, count=1)
    for colour, code in COLOURS.items():
        svg = svg.replace(code, f"var(--{colour})")
    title = html.escape(" ".join(figure.get_suptitle().split()))
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1).strip()
