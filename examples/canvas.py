"""A plane to draw a generated slice on: shapes given by their distance, blur and smooth noise."""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float64]
"""One value for each pixel, shape (H, W)."""

AIR = -1030.0
"""Hounsfield units of an empty canvas."""


class Branch(NamedTuple):
    """One straight piece of a vessel in plane units; `above` is its distance from the plane of the slice."""

    x0: float
    y0: float
    x1: float
    y1: float
    radius: float
    above: float = 0.0


class Canvas:
    """Hounsfield units on a plane: x to the right, y down, 0 in the middle, 1 at the shorter edges."""

    def __init__(self, height: int, width: int) -> None:
        self.scale = min(height, width) / 2
        rows, columns = np.mgrid[0:height, 0:width]
        self.x: Field = (columns + 0.5 - width / 2) / self.scale
        self.y: Field = (rows + 0.5 - height / 2) / self.scale
        self.values: Field = np.full((height, width), AIR)

    def cover(self, distance: Field, value: float | Field, softness: float = 0.7) -> Field:
        """Paint where `distance` (plane units) is negative; `softness` is the width of the edge in pixels."""
        amount = inside(distance * self.scale, softness)
        self.values += amount * (value - self.values)
        return amount

    def ellipse(self, x: float, y: float, a: float, b: float, degrees: float = 0.0, power: float = 2.0) -> Field:
        """Return the approximate distance to an ellipse; it is exact at the edge."""
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        along, across = (self.x - x) * cos + (self.y - y) * sin, (self.y - y) * cos - (self.x - x) * sin
        radius = (np.abs(along / a) ** power + np.abs(across / b) ** power) ** (1 / power)
        return np.asarray((radius - 1) * min(a, b))

    def line(self, x0: float, y0: float, x1: float, y1: float, radius: float) -> Field:
        """Return the distance to a stroke with round ends."""
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        return np.asarray(np.hypot(self.x - x0 - t * dx, self.y - y0 - t * dy) - radius, dtype=np.float64)

    def blur(self, field: Field, sigma: float) -> Field:
        """Blur with a Gaussian; `sigma` in pixels, edges wrap around."""
        height, width = field.shape
        frequency = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None, :] ** 2
        smooth = np.fft.irfft2(np.fft.rfft2(field) * np.exp(-2 * (np.pi * sigma) ** 2 * frequency), s=field.shape)
        return np.asarray(smooth, dtype=np.float64)

    def texture(self, random: np.random.Generator, sigma: float) -> Field:
        """Return smooth noise of mean 0 and deviation 1, with features of about `sigma` plane units."""
        noise = self.blur(random.standard_normal(self.values.shape), sigma * self.scale)
        return np.asarray((noise - noise.mean()) / noise.std())

    def part(self, branch: Branch) -> "Canvas":
        """Return the part that a branch can touch, sharing its values."""
        height, width = self.values.shape
        margin = branch.radius * self.scale + 4
        columns = np.array((branch.x0, branch.x1)) * self.scale + width / 2
        rows = np.array((branch.y0, branch.y1)) * self.scale + height / 2
        window = (
            slice(max(0, int(rows.min() - margin)), max(0, int(rows.max() + margin) + 1)),
            slice(max(0, int(columns.min() - margin)), max(0, int(columns.max() + margin) + 1)),
        )
        part = Canvas.__new__(Canvas)
        part.scale, part.x, part.y, part.values = self.scale, self.x[window], self.y[window], self.values[window]
        return part


def inside(distance: Field, softness: float) -> Field:
    """Return 1 inside, 0 outside and 0.5 at the edge; both arguments in pixels."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance / (0.4 * softness), -40, 40))))
