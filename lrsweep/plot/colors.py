"""Colormaps of learning rates and of values, and their color bar. Colors of optimizers: style.py."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

DIMMING = 1.7
"""Of the lightest colour of a line: its light is divided by 1 + DIMMING."""


def value_colormap() -> ListedColormap:
    """Viridis without its pale end, which fades on paper: for areas."""
    base = matplotlib.colormaps["viridis"]
    return ListedColormap([base(0.92 * i / 63) for i in range(64)], name="values")


def rate_colormap() -> ListedColormap:
    """All of viridis, for lines: the lighter a colour the more it is dimmed, so that the lightest has a contrast of
    3 : 1 on white. Still each is lighter than the one before."""
    rgb = matplotlib.colormaps["viridis"](np.linspace(0, 1, 64))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    light = linear @ np.array([0.2126, 0.7152, 0.0722])
    dimmed = linear / (1 + DIMMING * light / light.max())[:, None]
    rgb = np.where(dimmed <= 0.0031308, dimmed * 12.92, 1.055 * dimmed ** (1 / 2.4) - 0.055)
    return ListedColormap([(*color, 1.0) for color in rgb.tolist()], name="rates")


def colorbar(ax: Axes, scale: ScalarMappable, title: str) -> Colorbar:
    """A colour bar that fills `ax`, as shapes: a picture inside an SVG would be a request for a data address."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    bar = figure.colorbar(scale, cax=ax)
    if bar.solids is not None:
        bar.solids.set_rasterized(False)
        bar.solids.set_edgecolor("face")
    bar.outline.set_linewidth(0.5)
    ax.set_title(title, fontsize=8.5, pad=9, loc="left")  # a long one, centred, runs into the panel beside it
    return bar
