// HTML that code in the page made, taken apart without running anything of it: what stands here is let through, all
// else is left out. A policy alone would not do: it does not stop a <meta> that leads the reader elsewhere.
const TAGS = new Set(
  ("a b br caption code dd desc div dl dt em figcaption figure g i li ol p pre small span strong sub sup svg table tbody " +
    "td text tfoot th thead title tr tspan ul wbr circle defs ellipse line marker path pattern polygon polyline rect").split(" "),
);
const ATTRIBUTES = new Set(
  ("class id scope colspan rowspan role tabindex title lang x y x1 x2 y1 y2 cx cy r rx ry dx dy width height fill stroke " +
    "stroke-width stroke-dasharray d points transform opacity font-size font-weight text-anchor dominant-baseline " +
    "viewBox patternUnits patternTransform xmlns").split(" "),
);

// An address of this site, or a place on the page.
function isHere(address) {
  try {
    return new URL(address, location.href).origin === location.origin;
  } catch {
    return false;
  }
}

const isKept = (name, value) => ATTRIBUTES.has(name) || name.startsWith("aria-") || (name === "href" && isHere(value));

export function nodesOf(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  for (const part of [...parsed.body.querySelectorAll("*")]) {
    if (!TAGS.has(part.localName)) part.remove();
    for (const { name, value } of [...part.attributes]) if (!isKept(name, value)) part.removeAttribute(name);
  }
  return [...parsed.body.childNodes].map((node) => document.importNode(node, true));
}
