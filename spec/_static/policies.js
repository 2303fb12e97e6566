// The table of every cell: fetched when asked for, filtered here. Without it the files and the picture remain.
(() => {
const place = document.querySelector("#spec-cells");
const FILTERS = ["policy", "guest", "source", "destination", "result"];
const STEP = 20;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const show = (table) => {
  let limit = STEP;
  const selects = {};
  const filters = make("fieldset", { className: "spec-cells-filters" }, make("legend", { textContent: "Show the cells with" }));
  for (const key of FILTERS) {
    const names = [...new Set(table.cells.map((cell) => cell[key]))];
    const select = make("select", {}, make("option", { value: "", textContent: "any" }), ...names.map((name) => make("option", { value: name, textContent: name })));
    select.addEventListener("change", () => { limit = STEP; draw(); });
    selects[key] = select;
    filters.append(make("label", {}, key, select));
  }
  const count = make("p", { className: "spec-cells-count" });
  count.setAttribute("role", "status");
  const body = make("tbody");
  const headings = ["policy", "guest", "boots on, moves to", "at first", "in the end", "as a scenario", "48H", "why"];
  const frame = make("div", { className: "spec-scroll", tabIndex: 0 }, make("table", { className: "spec-results" },
    make("thead", {}, make("tr", {}, ...headings.map((text) => make("th", { scope: "col", textContent: text })))), body));
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Cells of the comparison");
  const more = make("button", { type: "button" });
  more.addEventListener("click", () => { limit += STEP; draw(); });

  const draw = () => {
    const chosen = table.cells.filter((cell) => FILTERS.every((key) => !selects[key].value || selects[key].value === cell[key]));
    body.replaceChildren(...chosen.slice(0, limit).map((cell) => row(table, cell)));
    count.textContent = `${chosen.length} of ${table.cells.length} cells; ${Math.min(limit, chosen.length)} shown`;
    more.hidden = chosen.length <= limit;
    more.textContent = `Show ${Math.min(STEP, chosen.length - limit)} more`;
  };
  // The question that the list argues over comes first.
  selects.source.value = "ice-lake-server";
  selects.destination.value = "sapphire-rapids";
  place.append(filters, count, frame, more);
  draw();
  selects.policy.focus();
};

const row = (table, cell) => {
  const result = (text) => make("td", { className: `spec-result spec-result-${NAMES[text]}`, textContent: text });
  const acts = make("div", { className: "spec-cells-acts" });
  if (place.dataset.playground) {
    acts.append(make("a", { href: `${place.dataset.playground}#cell=${cell.id}&policy=${cell.policy}`, textContent: "open" }));
  }
  for (const [text, act] of [["copy", copy], ["download", download]]) {
    const button = make("button", { type: "button", textContent: text });
    button.setAttribute("aria-label", `${text} ${cell.id}`);
    button.addEventListener("click", async () => {
      try {
        await act(cell.id, JSON.stringify((await scenarios(table, cell.policy))[cell.id], null, 1));
        button.textContent = text === "copy" ? "copied" : text;
      } catch (error) {
        button.textContent = `failed: ${error.message}`;
      }
    });
    acts.append(button);
  }
  const where = make("td", {}, cell.source, make("br"), cell.destination);
  return make("tr", {}, make("td", { textContent: cell.policy }), make("td", { textContent: cell.guest }), where,
    result(cell.before), result(cell.result), make("td", {}, acts), make("td", { textContent: cell.effective }),
    make("td", { className: "spec-cells-why", textContent: cell.why }));
};

const NAMES = {
  "protected": "protected", "pays more than needed": "pays-more", "pays twice": "pays-twice",
  "cannot opt out": "cannot-opt-out", "exposed by choice": "by-choice", "exposed": "exposed", "refused": "refused",
};

const load = async (address) => {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer.json();
};

const loaded = {};
const scenarios = (table, policy) => {
  const address = new URL(table.policies[policy].scenarios, new URL(place.dataset.table, location.href)).href;
  loaded[policy] ??= load(address).catch((error) => { delete loaded[policy]; throw error; });
  return loaded[policy];
};

const copy = (id, text) => navigator.clipboard.writeText(text);
const download = (id, text) => {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: address, download: `${id}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
};

if (place) {
  const open = make("button", { type: "button", textContent: `Show the table (${place.dataset.size})` });
  const said = make("p", { className: "spec-cells-count" });
  said.setAttribute("role", "status");
  open.addEventListener("click", async () => {
    open.disabled = true;
    said.textContent = "Loading…";
    try {
      const table = await load(place.dataset.table);
      open.remove();
      said.remove();
      show(table);
    } catch (error) {
      open.disabled = false;
      said.textContent = `The table could not be loaded (${error.message}). From a file:// address it cannot be; make serve shows the site.`;
    }
  });
  place.append(open, said);
}
})();
