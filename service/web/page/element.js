// Elements of HTML. All text is inserted as text, never as markup.

/** The element of the page with this id. */
export const find = (id) => document.getElementById(id);

/** An HTML element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}
