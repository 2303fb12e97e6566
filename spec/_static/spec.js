// Makes what scrolls reachable by keyboard, and says what it is. Reading needs none of this.
document.querySelectorAll("pre, .table-wrapper, .text_html").forEach((box) => {
  if (box.scrollWidth <= box.clientWidth || box.closest("[tabindex]")) return;
  box.tabIndex = 0;
  const heading = box.closest("section")?.querySelector("h1, h2, h3, h4")?.firstChild?.textContent ?? document.title;
  const what = box.matches("pre") ? "Code" : box.matches(".table-wrapper") ? "Table" : "Output";
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `${what} under “${heading}”, scrolls sideways`);
});
// Two side bars of the theme have no name of their own.
document.querySelectorAll("aside:not([aria-label])").forEach((bar) => {
  bar.setAttribute("aria-label", bar.classList.contains("toc-drawer") ? "On this page" : "Site");
});
// The search page has no heading until something was searched.
const results = document.querySelector("#search-results");
if (results && !document.querySelector("h1")) {
  results.before(Object.assign(document.createElement("h1"), { textContent: "Search" }));
}
// All rules can be narrowed to those that have every word of a text; the folds with such a rule are opened.
const areas = [...document.querySelectorAll("details.spec-area")];
if (areas.length) {
  const rows = areas.flatMap((area) => [...area.querySelectorAll("tbody tr")]);
  const id = "spec-filter";
  const box = Object.assign(document.createElement("input"), { id, type: "search", autocomplete: "off" });
  const label = Object.assign(document.createElement("label"), { htmlFor: id, textContent: "Only rules with" });
  const count = document.createElement("output");
  count.htmlFor = id;
  const all = Object.assign(document.createElement("button"), { type: "button", textContent: "Open all" });
  all.addEventListener("click", () => areas.forEach((area) => (area.open = true)));
  const narrow = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    for (const area of areas) {
      area.hidden = !area.querySelector("tbody tr:not([hidden])");
      area.open = words.length > 0;
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  box.addEventListener("input", narrow);
  const line = Object.assign(document.createElement("div"), { className: "spec-filter" });
  line.append(label, box, count, all);
  areas[0].before(line);
  narrow();
}
// A passage that left the page has its old address in the last line: whoever comes for it is led on.
const follow = () => {
  const link = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (link?.matches(".spec-moved > a")) location.replace(link.href);
};
addEventListener("hashchange", follow);
follow();
// Scripts that are modules are loaded from a server only: without one, code has no buttons.
if (location.protocol === "file:") {
  const why = "From a file:// address code cannot run in the page; make serve shows the site with its buttons.";
  const place = document.querySelector("#playground-here") ?? [...document.querySelectorAll(".doctest, .cell")].find((one) => one.offsetParent);
  place?.before(Object.assign(document.createElement("p"), { className: "spec-no-server", textContent: why }));
}
