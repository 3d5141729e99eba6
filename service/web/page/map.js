// Draws maps over a slice, in the colours and with the lines of the service's own pictures (service/imaging/overlay.py).

/** Values from here on are enclosed by the contour. */
export const CONTOUR_VALUE = 0.25;

const LUNG_VALUE = 0.5;
const MAX_OPACITY = 0.6; // the anatomy below the highest values must stay visible
const COLOURS = [[87, 16, 110], [137, 34, 106], [188, 55, 84], [227, 89, 51], [249, 142, 9], [249, 203, 53], [252, 255, 164]];
const CONTOUR = "rgb(255, 255, 255)";
const OUTLINE = "rgb(0, 200, 255)";
const UNDER_BAR = [110, 110, 110]; // the colour bar shows the colours as they look over grey tissue
const MARKS = [0, 0.25, 0.5, 0.75, 1];
const PALETTE = Array.from({ length: 256 }, (_, level) => colourOf(level / 255));

/** A map of the service's answer, compact: `{ width, height, values }`, rows from top to bottom; null for null. */
export function compact(map) {
  return map && { width: map.width, height: map.height, values: Float32Array.from(map.values.flat()) };
}

/** Draw the colours of a map over all of a canvas; `opacity` from 0 to 1 fades them. */
export function drawColours(canvas, map, opacity) {
  const { width, height } = canvas;
  const image = new ImageData(width, height);
  const columns = places(width, map.width);
  for (let y = 0, at = 0; y < height; y += 1) {
    const row = place(y, height, map.height);
    for (let x = 0; x < width; x += 1, at += 4) {
      const value = bilinear(map, columns[x], row);
      if (value <= 0) continue;
      const level = Math.round(Math.min(value, 1) * 255);
      [image.data[at], image.data[at + 1], image.data[at + 2]] = PALETTE[level];
      image.data[at + 3] = level * MAX_OPACITY * opacity;
    }
  }
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(image, 0, 0);
  canvas.getContext("2d").drawImage(layer, 0, 0);
}

/** Draw the line around the places where a heat map is at least 0.25. */
export const drawContour = (canvas, map) => drawBoundary(canvas, map, CONTOUR_VALUE, CONTOUR);

/** Draw the outline of the lungs. */
export const drawLungs = (canvas, map) => drawBoundary(canvas, map, LUNG_VALUE, OUTLINE);

/** Draw the colour bar with its numbers: the colours as they are drawn over grey tissue, and the contour's value. */
export function drawBar(canvas) {
  const context = canvas.getContext("2d");
  const [unit, margin] = [canvas.height / 32, canvas.width / 24];
  const length = canvas.width - 2 * margin;
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x < length; x += 1) {
    const share = (x / (length - 1)) * MAX_OPACITY;
    const mixed = colourOf(x / (length - 1)).map((value, index) => Math.round(share * value + (1 - share) * UNDER_BAR[index]));
    context.fillStyle = `rgb(${mixed})`;
    context.fillRect(margin + x, 0, 1.5, 12 * unit);
  }
  context.fillStyle = "#d5dfe3";
  context.font = `${13 * unit}px system-ui, sans-serif`;
  context.textAlign = "center";
  for (const mark of MARKS) context.fillText(String(mark), margin + mark * length, 29 * unit);
  context.fillStyle = CONTOUR;
  context.fillRect(margin + CONTOUR_VALUE * length - unit, -unit, 2 * unit, 16 * unit);
}

function colourOf(value) {
  const at = value * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  const share = at - low;
  return [0, 1, 2].map((channel) => Math.round(COLOURS[low][channel] * (1 - share) + COLOURS[low + 1][channel] * share));
}

/** The two cells that a pixel lies between, and its share of the second one. */
function place(pixel, pixels, cells) {
  const at = Math.min(Math.max(((pixel + 0.5) * cells) / pixels - 0.5, 0), cells - 1);
  const low = Math.floor(at);
  return { low, high: Math.min(low + 1, cells - 1), share: at - low };
}

const places = (pixels, cells) => Array.from({ length: pixels }, (_, pixel) => place(pixel, pixels, cells));

function bilinear({ width, values }, column, row) {
  const across = (y) => values[y * width + column.low] * (1 - column.share) + values[y * width + column.high] * column.share;
  return across(row.low) * (1 - row.share) + across(row.high) * row.share;
}

function drawBoundary(canvas, map, level, colour) {
  const context = canvas.getContext("2d");
  const [across, down] = [canvas.width / map.width, canvas.height / map.height];
  context.beginPath();
  for (const [x1, y1, x2, y2] of boundary(map, level)) {
    context.moveTo(x1 * across, y1 * down);
    context.lineTo(x2 * across, y2 * down);
  }
  Object.assign(context, { strokeStyle: colour, lineWidth: Math.max(canvas.width, canvas.height) / 400, lineCap: "round" });
  context.stroke();
}

/** Line pieces between places above and below `level`, in cells: marching squares, closed at the map's edge. */
function* boundary(map, level) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < map.width && y < map.height;
  const valueAt = (x, y) => (inside(x, y) ? map.values[y * map.width + x] : Math.min(0, level - 1));
  const limited = (at, cells) => Math.min(Math.max(at + 0.5, 0), cells);
  for (let y = -1; y < map.height; y += 1) {
    for (let x = -1; x < map.width; x += 1) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const values = corners.map(([column, row]) => valueAt(column, row));
      const crossings = [];
      for (let side = 0; side < 4; side += 1) {
        const [one, other] = [values[side], values[(side + 1) % 4]];
        if (one >= level === other >= level) continue;
        const share = (level - one) / (other - one);
        const [from, to] = [corners[side], corners[(side + 1) % 4]];
        crossings.push(limited(from[0] + share * (to[0] - from[0]), map.width), limited(from[1] + share * (to[1] - from[1]), map.height));
      }
      for (let at = 0; at + 3 < crossings.length; at += 4) yield crossings.slice(at, at + 4);
    }
  }
}
