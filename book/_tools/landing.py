"""Draw the landing page's figures and the social card: uniform points on the simplex become a Gaussian cloud.

``python book/_tools/landing.py`` writes ``book/_static/landing.png``, ``alive.png`` and ``card.png``. The
page's findings are drawn at every build, by book/_ext/findings.py.
"""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from sigreg import SIGReg, epps_pulley, sigreg_null_mean
from sigreg.lab.figures import COLORS, to_ternary, use_style
from sigreg.transform_chain import flat_dirichlet, orthant_to_gaussian, simplex_to_orthant

STATIC = Path(__file__).resolve().parents[1] / "_static"
CORNERS = np.array([to_rgb(color) for color in (COLORS.blue, "#F08A24", COLORS.purple)])


def chain(n_points, seed=7):
    """One cloud at its three stages, and a colour per point, mixed from three corner colours by its place."""
    generator = torch.Generator().manual_seed(seed)
    p = flat_dirichlet(n_points, 3, generator)
    e = simplex_to_orthant(p, generator)
    g = orthant_to_gaussian(e, route="quantile")
    sharp = p**2 / (p**2).sum(1, keepdim=True)  # plain mixing would turn most of the simplex grey
    return p.numpy(), e.numpy(), g.numpy(), sharp.numpy() @ CORNERS


def draw_chain(figure, grid, n_points=1500):
    """Three panels, left to right: simplex, orthant, Euclidean space."""
    p, e, g, colors = chain(n_points)
    dots = {"s": 7, "c": colors, "linewidths": 0, "alpha": 0.85}

    flat = figure.add_subplot(grid[0])
    corners = to_ternary(torch.eye(3))
    flat.fill(*corners.T, facecolor="#F6F6F4", edgecolor="#888888", linewidth=1)
    flat.scatter(*to_ternary(torch.as_tensor(p)).T, **dots)
    flat.set(aspect="equal", xlim=(-0.08, 1.08), ylim=(-0.22, 1.02))
    flat.axis("off")

    for cell, cloud, low, high in ((grid[1], e, 0, 4.2), (grid[2], g, -3, 3)):
        ax = figure.add_subplot(cell, projection="3d", computed_zorder=True)
        shown = ((cloud >= low) & (cloud <= high)).all(1)
        ax.scatter(*cloud[shown].T, s=7, c=colors[shown], linewidths=0, alpha=0.85, depthshade=False)
        ax.set(xlim=(low, high), ylim=(low, high), zlim=(low, high))
        ax.set_box_aspect((1, 1, 1), zoom=1.15)
        ax.view_init(elev=24, azim=38)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_ticklabels([])
            axis.set_pane_color((0.97, 0.97, 0.96, 1))
            axis._axinfo["grid"].update(color="#E4E4E0", linewidth=0.6)
            axis.line.set_color("#AAAAAA")
            axis.set_ticks_position("none")


def save(figure, name):
    """Write a PNG of 128 colours: a third of the bytes, and no difference to see."""
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(STATIC / name, optimize=True)
    plt.close(figure)


def landing():
    """The landing page's figure."""
    figure = plt.figure(figsize=(9.6, 3.5), layout="none")
    grid = figure.add_gridspec(1, 3, left=0.01, right=0.99, top=0.99, bottom=0.13, wspace=0.02)
    draw_chain(figure, grid)
    names = ("uniform on the simplex", "exponential coordinates", "isotropic Gaussian")
    for i, name in enumerate(names):
        figure.text((i + 0.5) / 3, 0.05, name, ha="center", fontsize=12, color="#333333")
    for i in (1, 2):
        figure.text(i / 3, 0.5, "$\\rightarrow$", ha="center", va="center", fontsize=24, color="#888888")
    save(figure, "landing.png")


def alive():
    """What the live figure shows where scripts do not run: a ring, one slice of it, two characteristic functions."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(240, 2, generator=generator)
    z *= math.sqrt(2) / z.norm(dim=1, keepdim=True)
    a = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]])
    x = z @ a.T
    figure, (flat, curve) = plt.subplots(1, 2, figsize=(8.4, 3.6), width_ratios=(1, 1.3))
    flat.axline((0, 0), slope=float(a[0, 1] / a[0, 0]), color=COLORS.orange, linewidth=1.5)
    flat.plot(*(x * a).T, "|", color=COLORS.orange, alpha=0.5)
    flat.plot(*z.T, "o", color=COLORS.blue, markersize=3)
    flat.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    flat.axis("off")
    t = torch.linspace(0, 3, 200)
    phi, target = torch.exp(1j * t * x).mean(0).real, torch.exp(-(t**2) / 2)
    curve.fill_between(t, phi, target, color=COLORS.orange, alpha=0.3, linewidth=0)
    curve.plot(t, phi, color=COLORS.blue)
    curve.plot(t, target, "--", color=COLORS.grey)
    curve.set(xlabel="speed $t$", ylim=(-1.05, 1.05))
    values = f"$T$ = {epps_pulley(x).item():.1f} on this slice\nSIGReg = {SIGReg(1024)(z, generator).item():.1f}\n"
    values += f"a Gaussian sample: {sigreg_null_mean():.2f}"
    curve.text(0.97, 0.95, values, transform=curve.transAxes, ha="right", va="top")
    save(figure, "alive.png")


def card():
    """The social card, 1200 x 630 pixels."""
    figure = plt.figure(figsize=(12, 6.3), dpi=100, layout="none")
    grid = figure.add_gridspec(1, 3, left=0.02, right=0.98, top=0.76, bottom=0.02, wspace=0.02)
    draw_chain(figure, grid)
    figure.text(0.5, 0.88, "Encoders Want to Be Normal", ha="center", fontsize=36, weight="bold")
    figure.text(0.5, 0.8, "an executable companion, and an open SIGReg", ha="center", fontsize=19)
    save(figure, "card.png")


if __name__ == "__main__":
    use_style()
    landing()
    alive()
    card()
