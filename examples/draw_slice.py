"""Draw a picture that looks like an axial chest CT slice, to try the service without a scan of a patient.

No image was used: every shape is a formula and every vessel is random. It is not a phantom, and predictions for it say
nothing about a model.

    python -m examples.draw_slice examples/slice.png --seed 0
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from examples.canvas import AIR, Branch, Canvas, Field, inside

WINDOW: Final = (-1350.0, 150.0)
"""Hounsfield units shown as black and as white: the usual lung window, level -600 and width 1500."""

LUNG, FAT, MUSCLE, BLOOD, MARROW, CORTEX = -865.0, -130.0, 50.0, 85.0, 190.0, 620.0
COUCH: Final = -420.0
NOISE: Final = 12.0
"""Hounsfield units, standard deviation of the reconstruction noise."""

SHEETS: Final = ((0.62, 0.40, 0.22, 0.012, -38), (0.80, 0.05, 0.018, 0.24, 6), (0.34, 0.585, 0.2, 0.01, -6))
"""Fat between the muscles of one side: x, y, half axes, degrees."""

GREAT_VESSELS: Final = (
    (0.12, 0.245, 0.07, 0.07),  # descending aorta
    (-0.07, -0.17, 0.085, 0.08),  # ascending aorta
    (0.06, -0.13, 0.1, 0.07),  # pulmonary trunk
    (-0.17, -0.07, 0.045, 0.055),  # superior vena cava
)
"""x, y, half axes."""


class Root(NamedTuple):
    """Start of a run of a vessel."""

    x: float
    y: float
    radius: float
    above: float


def draw_slice(
    seed: int, height: int = 512, width: int = 512, disease: bool = False, level: float = 0.0
) -> NDArray[np.uint8]:
    """Draw one slice in a lung window.

    Args:
        seed: seed of all random shapes; equal seeds give equal slices.
        height: pixels, at least 64.
        width: pixels, at least 64.
        disease: add hazy patches near the pleura, like ground-glass opacities; the rest does not change.
        level: height of the slice in the lungs, from -1 below the base to 1 above the apex; there are no lungs beyond.

    Returns:
        uint8 (height, width), 0 is black.
    """
    random = np.random.default_rng(seed)
    canvas = Canvas(height, width)
    girth, depth, tilt = random.uniform(0.94, 1.03), random.uniform(0.95, 1.06), random.uniform(-2.5, 2.5)
    _couch(canvas)
    cavity = _trunk(canvas, random, girth, depth, tilt)
    lungs = _at_level(canvas, np.maximum(cavity, -_middle(canvas, random, depth)), level)
    vessels = random if level == 0 else np.random.default_rng((seed, 2, round(1000 * (level + 9))))
    _lungs(canvas, vessels, lungs, np.random.default_rng((seed, 1)) if disease else None)
    _mediastinum(canvas, random, lungs)
    _spine(canvas, random, depth)
    return _scan(canvas, random)


def _at_level(canvas: Canvas, lungs: Field, level: float) -> Field:
    """Return the distance to the lungs at a level: narrow at the apex, around the diaphragm at the base."""
    if level > 0:
        return lungs + 0.34 * level**3
    for x, y in ((-0.36, -0.1), (0.36, -0.06)):  # the right dome is higher
        rise = np.sqrt(max(0.0, -level - (0.35 if x < 0 else 0.45)))
        lungs = np.maximum(lungs, -canvas.ellipse(x, y, 0.02 + 0.62 * rise, 0.02 + 0.78 * rise)) if rise else lungs
    return lungs


def _couch(canvas: Canvas) -> None:
    for offset in (0.0, 0.085):
        curve = np.abs(canvas.y - (0.79 + offset - 0.16 * canvas.x**2)) - 0.006
        canvas.cover(np.maximum(curve, np.abs(canvas.x) - 0.8), COUCH)


def _trunk(canvas: Canvas, random: np.random.Generator, girth: float, depth: float, tilt: float) -> Field:
    """Paint skin, fat, muscles, ribs and sternum; return the distance to the wall of the chest cavity."""
    sway = 0.012 * canvas.texture(random, 0.22)
    outline = canvas.ellipse(0, 0.03, 0.93 * girth, 0.67 * depth, tilt, 2.2) + sway
    canvas.cover(outline, MUSCLE)
    flank = 0.02 * np.abs(canvas.x) ** 2 + 0.015 * (canvas.y < 0) * (1 - np.abs(canvas.x))
    canvas.cover(outline + 0.012, FAT + 14 * canvas.texture(random, 0.03))
    muscle = outline + 0.062 + flank
    canvas.cover(muscle, MUSCLE)
    cavity = canvas.ellipse(0, 0.0, 0.755 * girth, 0.525 * depth, tilt, 2.15) + 0.6 * sway
    for side in (-1, 1):  # sheets of fat between the muscles of the back and of the flank
        for x, y, a, b, degrees in SHEETS:
            sheet = canvas.ellipse(side * x * girth, y * depth, a, b, side * degrees)
            canvas.cover(np.maximum(sheet + 0.01 * canvas.texture(random, 0.02), muscle), FAT, softness=1.5)
    canvas.cover(np.abs(cavity - 0.022) - 0.009 + 0.006 * canvas.texture(random, 0.05), FAT + 60, softness=1.5)
    marrow = _marrow(canvas, random)
    _ribs(canvas, random, girth, depth, marrow)
    sternum = canvas.ellipse(random.uniform(-0.01, 0.01), -0.555 * depth, 0.105, 0.027, tilt, 2.6)
    _bone(canvas, sternum, 0.009, marrow)
    return cavity


def _ribs(canvas: Canvas, random: np.random.Generator, girth: float, depth: float, marrow: Field) -> None:
    """Paint ribs: they run obliquely, so a slice shows each as a spindle along the wall."""
    for side in (-1, 1):
        for angle in (-62, -36, -12, 12, 36, 58):
            at = np.radians(angle + random.uniform(-6, 6))
            x, y = side * 0.795 * girth * np.cos(at), 0.562 * depth * np.sin(at)
            along = np.degrees(np.arctan2(0.56 * np.cos(at), -side * 0.795 * np.sin(at)))
            rib = canvas.ellipse(x, y, random.uniform(0.06, 0.12), random.uniform(0.018, 0.023), along)
            _bone(canvas, rib, 0.008, marrow)


def _marrow(canvas: Canvas, random: np.random.Generator) -> Field:
    return MARROW + 60 * canvas.texture(random, 0.006)


def _bone(canvas: Canvas, distance: Field, shell: float, marrow: Field) -> None:
    canvas.cover(distance, CORTEX)
    canvas.cover(distance + shell, marrow)


def _middle(canvas: Canvas, random: np.random.Generator, depth: float) -> Field:
    """Return the distance to the mediastinum: heart, great vessels, hila and the bed of the spine."""
    shift = random.uniform(-0.02, 0.03)
    parts = (
        canvas.ellipse(0.12 + shift, -0.13, 0.27 * random.uniform(0.9, 1.08), 0.225, 24),
        canvas.ellipse(-0.06, -0.12, 0.17, 0.2),
        canvas.ellipse(0.0, -0.45 * depth, 0.075, 0.16),
        canvas.ellipse(0.0, 0.08, 0.14, 0.17),
        canvas.ellipse(0.125, 0.25, 0.088, 0.088),
        canvas.ellipse(0.0, 0.40, 0.165, 0.15),
        canvas.ellipse(-0.19, 0.06, 0.075, 0.055, -20),
        canvas.ellipse(0.22, 0.09, 0.07, 0.05, 20),
    )
    sharpness = 34.0
    union: Field = -np.log(sum(np.exp(-sharpness * part) for part in parts)) / sharpness
    return union + 0.007 * canvas.texture(random, 0.03)


def _lungs(canvas: Canvas, random: np.random.Generator, lungs: Field, disease: np.random.Generator | None) -> None:
    air = LUNG + 70 * (canvas.y + 0.1) + 16 * canvas.texture(random, 0.05) + 12 * canvas.texture(random, 0.012)
    amount = canvas.cover(lungs, air, softness=0.9)
    before = canvas.values.copy()
    for side in (-1, 1):
        fissure = canvas.y - (0.17 - 0.5 * (np.abs(canvas.x) - 0.35) ** 2 - 0.45 * (np.abs(canvas.x) - 0.4))
        fissure = np.maximum(np.abs(fissure) - 0.0015, -side * canvas.x)
        canvas.cover(fissure, LUNG + 170, softness=0.9)
        hilum = (side * 0.2, 0.07)
        for branch in _vessels(random, hilum, side):
            _vessel(canvas, branch)
        _cross_sections(canvas, random, hilum, side)
        _airways(canvas, random, hilum, side)
    if disease is not None:
        _ground_glass(canvas, disease, lungs)
    canvas.values = before + amount * (canvas.values - before)


def _vessels(random: np.random.Generator, hilum: tuple[float, float], side: int) -> Iterator[Branch]:
    """Yield the branches of vessel trees that spread from the hilum."""
    for degrees in np.linspace(-80, 80, 13):
        towards = np.radians(degrees + random.uniform(-9, 9))
        root = Root(*hilum, random.uniform(0.010, 0.019), random.normal(0, 0.02))
        yield from _fork(random, root, towards if side > 0 else np.pi - towards, random.normal(0, 0.5))


def _fork(random: np.random.Generator, root: Root, towards: float, climb: float) -> Iterator[Branch]:
    """Yield a bent run and the two runs it forks into, until they are too thin or too far from the plane."""
    x, y, radius, above = root
    for _ in range(3):
        towards += random.normal(0, 0.14)
        step = random.uniform(1.1, 2.0) * (0.014 + radius)
        branch = Branch(x, y, x + step * np.cos(towards), y + step * np.sin(towards), radius, above)
        yield branch
        x, y, above = branch.x1, branch.y1, above + climb * step
    if radius < 0.0028 or abs(above) > 0.08:
        return
    for turn in (random.uniform(0.25, 0.7), -random.uniform(0.2, 0.6)):
        smaller = Root(x, y, radius * random.uniform(0.64, 0.84), above)
        yield from _fork(random, smaller, towards + turn, random.normal(0, 0.65))


def _vessel(canvas: Canvas, branch: Branch) -> None:
    part = canvas.part(branch)
    seen = np.exp(-((branch.above / (0.012 + branch.radius)) ** 2)) * np.clip(branch.radius / 0.005, 0.45, 1)
    if part.values.size and seen > 0.03:
        stroke = part.line(branch.x0, branch.y0, branch.x1, branch.y1, branch.radius)
        part.cover(stroke, np.maximum(part.values, part.values + seen * (BLOOD - 60 - part.values)), softness=0.8)


def _cross_sections(canvas: Canvas, random: np.random.Generator, hilum: tuple[float, float], side: int) -> None:
    """Paint vessels that cross the plane as dots, large near the hilum and small near the pleura."""
    for _ in range(120):
        away, at = 0.07 + 0.6 * random.random() ** 0.8, random.uniform(-1.9, 1.9)
        x, y = hilum[0] + side * away * np.cos(at), hilum[1] + 0.8 * away * np.sin(at)
        radius = max(0.0016, 0.010 * (1 - away / 0.62) * random.uniform(0.35, 1.0))
        _vessel(canvas, Branch(x, y, x + random.normal(0, 0.006), y + random.normal(0, 0.006), radius))


def _airways(canvas: Canvas, random: np.random.Generator, hilum: tuple[float, float], side: int) -> None:
    for away in (0.06, 0.11, 0.16, 0.22):
        at = random.uniform(-1.1, 1.1)
        x, y, a = hilum[0] + side * away * np.cos(at), hilum[1] + away * np.sin(at), 0.022 - 0.06 * away
        tube = canvas.ellipse(x, y, a, a * random.uniform(0.65, 0.95), random.uniform(0, 180))
        canvas.cover(tube - 0.006, MUSCLE - 150)
        canvas.cover(tube, AIR + 15)


def _ground_glass(canvas: Canvas, random: np.random.Generator, lungs: Field) -> None:
    """Raise the air's density under the pleura; vessels stay visible through it."""
    ragged, grain = 0.05 * canvas.texture(random, 0.035), 55 * canvas.texture(random, 0.010)
    for side, degrees in ((-1, 35), (-1, -20), (1, 40), (1, 5), (-1, 62)):
        at = np.radians(degrees + random.uniform(-12, 12))
        x, y = side * 0.62 * np.cos(at), 0.43 * np.sin(at)
        patch = canvas.ellipse(x, y, random.uniform(0.10, 0.19), random.uniform(0.08, 0.13), random.uniform(0, 180))
        haze = inside((patch + ragged) * canvas.scale, 0.03 * canvas.scale) * inside(lungs * canvas.scale, 1.0)
        canvas.values += haze * np.clip(330 + grain, 0, None) * (canvas.values < -300)


def _mediastinum(canvas: Canvas, random: np.random.Generator, lungs: Field) -> None:
    """Paint fat between organs, blood in great vessels, air in main bronchi and oesophagus."""
    ring = np.abs(canvas.ellipse(0.1, -0.12, 0.25, 0.2, 24)) - 0.012 + 0.02 * canvas.texture(random, 0.03)
    canvas.cover(np.maximum(ring, 0.012 - lungs), FAT, softness=2.0)
    canvas.cover(canvas.ellipse(0, -0.46, 0.05, 0.06) + 0.01 * canvas.texture(random, 0.02), FAT, softness=2.0)
    for x, y, a, b in GREAT_VESSELS:
        canvas.cover(canvas.ellipse(x, y, a, b, random.uniform(-20, 20)), BLOOD + 45, softness=1.5)
    for side in (-1, 1):
        bronchus = canvas.ellipse(side * 0.085, 0.065, 0.045, 0.027, side * 24)
        canvas.cover(bronchus - 0.008, MUSCLE)
        canvas.cover(bronchus, AIR + 10)
    canvas.cover(canvas.ellipse(0.035, 0.185, 0.018, 0.008, 10), AIR + 300, softness=1.2)


def _spine(canvas: Canvas, random: np.random.Generator, depth: float) -> None:
    y, marrow = 0.355 * depth, _marrow(canvas, random)
    for side in (-1, 1):
        for distance in (
            canvas.line(side * 0.05, y + 0.10, side * 0.235, y + 0.13, 0.022),  # transverse process
            canvas.line(side * 0.115, y + 0.045, side * 0.30, y + 0.125, 0.016),  # head of a rib
            canvas.line(side * 0.055, y + 0.135, 0.0, y + 0.19, 0.018),  # lamina
        ):
            _bone(canvas, distance, 0.007, marrow)
    _bone(canvas, canvas.line(0, y + 0.18, 0, y + 0.265, 0.015), 0.006, marrow)
    _bone(canvas, canvas.ellipse(0, y, 0.12, 0.092, 0, 2.4), 0.011, marrow)
    canvas.cover(canvas.ellipse(0, y + 0.125, 0.056, 0.046) - 0.006, CORTEX - 250)
    canvas.cover(canvas.ellipse(0, y + 0.125, 0.056, 0.046), MUSCLE - 15)


def _scan(canvas: Canvas, random: np.random.Generator) -> NDArray[np.uint8]:
    """Apply the scanner's effects: blur, reconstruction noise, round field of view, window."""
    sharp = canvas.blur(canvas.values, 0.9)
    fine = canvas.texture(random, 0.9 / canvas.scale) - 0.55 * canvas.texture(random, 2.2 / canvas.scale)
    thick = 0.75 + 0.5 * canvas.blur((canvas.values > FAT).astype(np.float64), 0.12 * canvas.scale)
    low, high = WINDOW
    grey = (sharp + NOISE * thick * fine - low) / (high - low) * 255
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def main() -> None:
    """Write one slice as a grey picture."""
    parser = argparse.ArgumentParser(description="Draw a generated slice that looks like a chest CT.")
    parser.add_argument("path", type=Path, help="file to write, PNG or JPEG")
    parser.add_argument("--seed", type=int, default=0, help="which body (0)")
    parser.add_argument("--disease", action="store_true", help="add patches that look like ground-glass opacities")
    options = parser.parse_args()
    pixels = draw_slice(options.seed, disease=options.disease)
    Image.fromarray(pixels).save(options.path, optimize=True)


if __name__ == "__main__":
    main()
