// Elements of HTML and SVG. All text is inserted as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const find = (id) => document.getElementById(id);

/** An HTML element with properties, attributes (in `attributes`) and children. */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An SVG element with attributes and children. */
export function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
