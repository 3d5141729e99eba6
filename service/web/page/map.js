// Maps of a slice, in the colours and with the lines of the service's own pictures (service/imaging/overlay.py).

const CONTOUR_VALUE = 0.25;
const LUNG_VALUE = 0.5;
const MAX_OPACITY = 0.6; // the anatomy below the highest values must stay visible
const CONTOUR = "rgb(255, 255, 255)";
const OUTLINE = "rgb(0, 200, 255)";
const SIDE = 256; // pixels of the colours, enough for a coarse map
const COLOURS = [[87, 16, 110], [137, 34, 106], [188, 55, 84], [227, 89, 51], [249, 142, 9], [249, 203, 53], [252, 255, 164]];
const PALETTE = Array.from({ length: 256 }, (_, level) => colourOf(level / 255));

/** Pictures ready to draw: `{ image, colours, contour, outline }`, each null where there is none. */
export async function layersOf({ slice, lesion, lungs }) {
  const [image, heat, lung] = await Promise.all([createImageBitmap(slice), mapOf(lesion), mapOf(lungs)]);
  return {
    image,
    colours: heat && coloursOf(heat),
    contour: heat && boundary(heat, CONTOUR_VALUE, image),
    outline: lung && boundary(lung, LUNG_VALUE, image),
  };
}

/** Draw layers over the rectangle of the image; `width` is that of lines in pixels of the image. */
export function drawLayers(context, { image, colours, contour, outline }, { opacity = 1, withOutline = true, width = 1 } = {}) {
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0);
  if (colours && opacity > 0) {
    context.globalAlpha = opacity;
    context.drawImage(colours, 0, 0, image.width, image.height);
    context.globalAlpha = 1;
    stroke(context, contour, CONTOUR, width);
  }
  if (outline && withOutline) stroke(context, outline, OUTLINE, width);
}

function stroke(context, path, strokeStyle, lineWidth) {
  Object.assign(context, { strokeStyle, lineWidth, lineCap: "round" });
  context.stroke(path);
}

/** A map `{ width, height, values }`, rows from top to bottom, from the service's JSON or its grey PNG; null for null. */
async function mapOf(source) {
  if (!source) return null;
  if (!(source instanceof Blob)) return { ...source, values: source.values.flat() };
  const image = await createImageBitmap(source);
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  image.close();
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, values: Array.from({ length: width * height }, (_, at) => data[4 * at] / 255) };
}

/** The map in colours; the canvas enlarges its values, which then look up the palette. */
function coloursOf({ width, height, values }) {
  const cells = new OffscreenCanvas(width, height);
  const levels = Uint8ClampedArray.from(values.flatMap((value) => [value * 255, 0, 0, 255]));
  cells.getContext("2d").putImageData(new ImageData(levels, width, height), 0, 0);
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(cells, 0, 0, SIDE, SIDE);
  const colours = context.getImageData(0, 0, SIDE, SIDE);
  for (let at = 0; at < colours.data.length; at += 4) {
    const level = colours.data[at];
    colours.data.set([...PALETTE[level], level * MAX_OPACITY], at);
  }
  context.putImageData(colours, 0, 0);
  return canvas;
}

function colourOf(value) {
  const at = value * (COLOURS.length - 1);
  const low = Math.min(Math.floor(at), COLOURS.length - 2);
  const share = at - low;
  return [0, 1, 2].map((channel) => Math.round(COLOURS[low][channel] * (1 - share) + COLOURS[low + 1][channel] * share));
}

/** The line between places above and below `level`, in pixels of the image: marching squares, closed at the map's edge. */
function boundary(map, level, image) {
  const path = new Path2D();
  const inside = (x, y) => x >= 0 && y >= 0 && x < map.width && y < map.height;
  const valueAt = (x, y) => (inside(x, y) ? map.values[y * map.width + x] : Math.min(0, level - 1));
  const limited = (at, cells) => Math.min(Math.max(at + 0.5, 0), cells) / cells;
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
        const at = [0, 1].map((axis) => from[axis] + share * (to[axis] - from[axis]));
        crossings.push([limited(at[0], map.width) * image.width, limited(at[1], map.height) * image.height]);
      }
      crossings.forEach((point, index) => (index % 2 ? path.lineTo(...point) : path.moveTo(...point)));
    }
  }
  return path;
}
