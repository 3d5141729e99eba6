// The large picture of a slice with its map: fade, zoom and pan, and steps to other slices by wheel and keys.

import { find } from "./element.js";
import { drawLayers, layersOf } from "./map.js";

const MAX_ZOOM = 8;
const ZOOM_STEP = 1.25;
const FIT = 0; // a factor of zoom that is below any other
const WHEEL_STEP = 30; // pixels for one slice: a notch of a mouse's wheel has more, a touchpad sends fewer at a time
const LINE = 1.5; // CSS pixels

export class Viewer {
  #step;
  #item = null;
  #layers = null;
  #zoom = 1;
  #offset = [0, 0];
  #wheel = 0;

  /** `step(by)` is called for another slice: positive is down or right. */
  constructor(step) {
    this.#step = step;
    for (const [id, kind] of [["fade", "input"], ["outline", "change"]]) find(id).addEventListener(kind, () => this.#draw());
    const buttons = { "zoom-in": ZOOM_STEP, "zoom-out": 1 / ZOOM_STEP, "zoom-fit": FIT };
    for (const [id, factor] of Object.entries(buttons)) find(id).addEventListener("click", () => this.#zoomBy(factor));
    new ResizeObserver(() => this.#draw()).observe(find("frame"));
    this.#listenForPointer();
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Show an item: `{ name, picture, caption, finding, hasSides, legend }`; `picture` is null while it is not there. */
  async show(item) {
    this.#item = item;
    find("caption").textContent = item.caption;
    find("finding").textContent = item.finding;
    find("frame").classList.toggle("has-sides", item.hasSides);
    find("legend").textContent = item.legend;
    const layers = item.picture && (await layersOf(item.picture));
    if (this.#item !== item) return layers?.image.close();
    this.#layers?.image.close();
    this.#layers = layers;
    this.#draw();
  }

  #draw() {
    const [frame, canvas, opacity] = [find("frame"), find("picture"), find("fade").value / 100];
    const density = window.devicePixelRatio;
    canvas.width = Math.round(frame.clientWidth * density);
    canvas.height = Math.round(frame.clientHeight * density);
    find("fade").ariaValueText = `${find("fade").value} %`;
    find("controls").classList.toggle("empty", !this.#layers);
    find("map-controls").hidden = this.#layers?.colours === null;
    find("outline").disabled = !this.#layers?.outline;
    canvas.ariaLabel = this.#layers ? `${this.#item.name}${this.#layers.colours ? ", with its map" : ""}` : "No picture";
    canvas.dataset.of = this.#layers ? this.#item.name : "";
    if (!this.#layers) return;
    const { image } = this.#layers;
    const scale = Math.min(canvas.width / image.width, canvas.height / image.height) * this.#zoom;
    this.#limitOffset(image, scale / density);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale,
      canvas.width / 2 + this.#offset[0] * density - (image.width * scale) / 2,
      canvas.height / 2 + this.#offset[1] * density - (image.height * scale) / 2);
    drawLayers(context, this.#layers, { opacity, withOutline: find("outline").checked, width: (LINE * density) / scale });
  }

  #limitOffset(image, scale) {
    const frame = find("frame");
    const room = [(image.width * scale - frame.clientWidth) / 2, (image.height * scale - frame.clientHeight) / 2];
    this.#offset = this.#offset.map((offset, axis) => Math.min(Math.max(offset, -Math.max(room[axis], 0)), Math.max(room[axis], 0)));
  }

  /** Zoom, and keep the place at `point`, from the middle of the picture, where it is. */
  #zoomBy(factor, point = [0, 0]) {
    const zoom = Math.min(Math.max(this.#zoom * factor, 1), MAX_ZOOM);
    this.#offset = this.#offset.map((offset, axis) => point[axis] - (point[axis] - offset) * (zoom / this.#zoom));
    this.#zoom = zoom;
    find("frame").classList.toggle("zoomed", zoom > 1);
    this.#draw();
  }

  #listenForPointer() {
    const frame = find("frame");
    frame.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { clientX, clientY, deltaY, ctrlKey } = event; // deltaY is in pixels if deltaMode is not asked for
      const { left, top, width, height } = frame.getBoundingClientRect();
      if (ctrlKey) this.#zoomBy(deltaY < 0 ? ZOOM_STEP : 1 / ZOOM_STEP, [clientX - left - width / 2, clientY - top - height / 2]);
      else this.#roll(deltaY);
    }, { passive: false });
    frame.addEventListener("pointermove", (event) => {
      if (!(event.buttons & 1) || this.#zoom === 1) return;
      this.#offset = [this.#offset[0] + event.movementX, this.#offset[1] + event.movementY];
      this.#draw();
    });
    frame.addEventListener("dblclick", () => (this.#zoomBy(this.#zoom > 1 ? FIT : 2)));
  }

  #roll(pixels) {
    this.#wheel += pixels;
    if (Math.abs(this.#wheel) < WHEEL_STEP) return;
    this.#step(Math.sign(this.#wheel));
    this.#wheel = 0;
  }

  #onKey(event) {
    const { target } = event;
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if ((target !== document.body && !target.closest("#desk")) || target.closest("input, select")) return;
    const by = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    const zoom = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP, 0: FIT }[event.key];
    if (by) this.#step(by);
    else if (zoom !== undefined) this.#zoomBy(zoom);
    else return;
    event.preventDefault();
  }
}
