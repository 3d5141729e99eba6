// Elements of HTML. All text is inserted as text, never as markup.

/** The element of the page with this id. */
export const find = (id) => document.getElementById(id);

/** An HTML element with properties, attributes (in `attributes`) and children. */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
