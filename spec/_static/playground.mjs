// The playground: performs the steps of a history in the emulator itself, and shows what each one changed.
import { Python } from "./python.mjs";

const root = document.querySelector("#playground-here");
const about = document.querySelector("script[data-megabytes], script[data-lacks]")?.dataset ?? {};
const python = new Python((about.archives ?? "").split(" "));
const MODULE = "specctrl.site.playground";
const HIDDEN = new Set(["in_guest"]);
let known; // hosts, variants, operations, rules: what the package says there is
let head = { host: "sapphire-rapids", variant: "spec", assume: {} };
let rows = [];

function element(tag, attributes = {}, ...children) {
  const { label, role, ...properties } = attributes;
  const made = Object.assign(document.createElement(tag), properties);
  if (label) made.setAttribute("aria-label", label);
  if (role) made.setAttribute("role", role);
  made.append(...children);
  return made;
}

const button = (text, onclick) => element("button", { type: "button", textContent: text, onclick });
const state = element("p", { className: "play-state", role: "status" });
const say = (text) => state.replaceChildren(text);

// ---- a history as an address: JSON in base64url, in the part that no server sees

function encoded() {
  const text = JSON.stringify({ ...head, steps: rows.map((row) => row.step) });
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function decoded(text) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
}

// ---- arguments: a field for each, made from the schema of the format

function resolved(schema) {
  return schema.$ref ? resolved(known.definitions[schema.$ref.split("/").at(-1)]) : schema;
}

function field(name, schema, required) {
  const kind = resolved(schema);
  const label = required ? name : `${name} (optional)`;
  const named = (input) => element("label", {}, label, input);
  let input;
  const names = kind.enum ?? kind.anyOf?.map(resolved).find((one) => one.enum)?.enum;
  if (kind.type === "boolean") {
    input = element("select", {}, ...["", "true", "false"].map((value) => new Option(value || "—", value)));
  } else if (kind.enum && kind.type !== "integer") {
    input = element("select", {}, ...(required ? [] : [new Option("—", "")]), ...kind.enum.map((value) => new Option(value)));
  } else {
    input = element("input", { type: "text", spellcheck: false, autocomplete: "off" });
    if (names) {
      const list = element("datalist", { id: `play-${name}` }, ...names.map((value) => new Option(value)));
      input.setAttribute("list", list.id);
      return [named(input), list, () => read(input.value)];
    }
    if (kind.type === "array") input.placeholder = "JSON list";
    if (kind.type === "object") input.placeholder = "JSON object";
  }
  return [named(input), null, () => read(input.value)];
}

// A value as it is typed: JSON where it is JSON, else the text itself; nothing where there is nothing.
function read(text) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return text.trim();
  }
}

// ---- what is shown

function link(id) {
  const { page, text } = known.rules[id];
  const address = new URL(`../${page.replace(/\.md$/, ".html")}#rule-${id}`, location.href);
  return element("a", { href: address.href, textContent: id, title: text });
}

const links = (ids) => ids.flatMap((id, at) => (at ? [", ", link(id)] : [link(id)]));
const spaced = (name) => name.replaceAll("_", " ");

// What each register is, once for all steps; in a row the same is said when it is pointed at.
function legend() {
  const rows = Object.entries(known.registers).flatMap(([name, { text, page }]) => [
    element("dt", {}, element("a", { href: page, textContent: spaced(name) })),
    element("dd", { textContent: `${text}.` }),
  ]);
  return element("details", { className: "play-legend" },
    element("summary", { textContent: "What each register is" }), element("dl", {}, ...rows));
}

const said = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function registers(row, before) {
  const numbers = Object.keys(row.vcpus);
  if (!numbers.length) return element("p", { textContent: "There is no vCPU yet." });
  const given = new Set(numbers.flatMap((number) => Object.keys(row.vcpus[number])));
  const names = [...new Set([...Object.keys(known.registers), ...given])].filter((name) => given.has(name) && !HIDDEN.has(name));
  const line = (name) => [
    element("th", { scope: "row", textContent: spaced(name), title: known.registers[name]?.text ?? "" }),
    ...numbers.map((number) => {
      const now = said(row.vcpus[number][name] ?? null);
      const was = before?.vcpus[number] && said(before.vcpus[number][name] ?? null);
      const changed = was !== undefined && was !== now;
      const cell = element("td", { className: changed ? "play-changed" : "" }, element("code", { textContent: now }));
      if (changed) cell.append(element("span", { className: "play-was", textContent: ` was ${was}` }));
      return cell;
    }),
  ];
  const heading = numbers.map((number) =>
    element("th", { scope: "col", textContent: `vCPU ${number}, ${row.vcpus[number].smm ? "SMM" : `L${row.vcpus[number].level}`}${row.vcpus[number].in_guest ? "" : ", host runs"}` }),
  );
  return element(
    "table",
    { className: "play-registers" },
    element("thead", {}, element("tr", {}, element("td"), ...heading)),
    element("tbody", {}, ...names.map((name) => element("tr", {}, ...line(name)))),
  );
}

function shown(row, number) {
  const { op, ...given } = row.step;
  const words = Object.entries(given).map(([name, value]) => `${name}=${said(value)}`);
  const seen = Object.entries(row.seen).map(([name, value]) => `${name}=${said(value)}`);
  const changed = row.changed.map(({ code, fields, rules }) => element("li", {},
    element("code", { textContent: code }), " changed ", element("code", { textContent: fields.join(", ") }),
    element("span", { className: "play-rules" }, ": ", ...links(rules))));
  const told = new Set(row.changed.flatMap((part) => part.rules));
  const others = row.rules.filter((id) => !told.has(id));
  const count = others.length === 1 ? "rule whose code ran" : "rules whose code ran";
  const rules = element("details", { className: "play-others" },
    element("summary", { textContent: told.size ? `${others.length} more ${count}` : `${others.length} ${count}; no field of a vCPU or the VM changed` }),
    element("p", { className: "play-rules" }, ...links(others)));
  return element(
    "li",
    { value: number },
    element("p", { className: "play-step" }, element("code", { textContent: [op, ...words].join(" ") })),
    element("p", { className: "play-seen", textContent: seen.length ? `⇒ ${seen.join(", ")}` : "⇒ success" }),
    element("div", { className: "play-scroll", tabIndex: 0, role: "group", label: `Registers after step ${number}` }, registers(row, rows[number - 2])),
    ...(changed.length ? [element("p", { className: "play-seen", textContent: "Code that changed something, and its rules:" }), element("ul", { className: "play-code" }, ...changed)] : []),
    ...(others.length ? [rules] : []),
  );
}

const list = element("ol", { className: "play-history" });
const undo = button("Undo", async () => take(await python.call(MODULE, "undo", {})));
const save = button("Save as a scenario", download);
const share = button("Copy address", async () => {
  await navigator.clipboard?.writeText(location.href).then(() => say("The address is copied."), () => say(location.href));
});

function draw() {
  list.replaceChildren(...rows.map((row, at) => shown(row, at + 1)).reverse());
  for (const one of [undo, save, share]) one.disabled = !rows.length;
  history.replaceState(null, "", rows.length ? `${location.pathname}#h=${encoded()}` : location.pathname);
}

function take(answer) {
  if (answer.rows) rows = answer.rows;
  else if (!answer.problem) rows.push(answer);
  say(answer.problem ? `Refused: ${answer.problem}` : "");
  draw();
}

async function begin(steps = []) {
  take(await python.call(MODULE, "start", { ...head, steps }));
}

async function download() {
  const made = await python.call(MODULE, "save", { id: "playground.history" });
  if (made.problem) return say(`Not saved: ${made.problem}`);
  const address = URL.createObjectURL(new Blob([`${JSON.stringify(made, null, 2)}\n`], { type: "application/json" }));
  element("a", { href: address, download: `${made.id}.json` }).click();
  URL.revokeObjectURL(address);
  return say(`Saved as ${made.id}.json, with what was observed as what it expects.`);
}

// ---- the form

function choice(label, names, chosen, onchange) {
  const select = element("select", {}, ...names.map((name) => new Option(name, name, false, name === chosen)));
  select.onchange = () => onchange(select.value);
  return element("label", {}, label, select);
}

function form() {
  const fields = element("div", { className: "play-fields" });
  let readers = {};
  const operation = element("select", { label: "operation" });
  for (const who of new Set(Object.values(known.operations).map((one) => one.who))) {
    const names = Object.keys(known.operations).filter((name) => known.operations[name].who === who);
    operation.append(element("optgroup", { label: who }, ...names.map((name) => new Option(name))));
    operation.lastChild.setAttribute("label", who);
  }
  const refresh = () => {
    readers = {};
    fields.replaceChildren();
    const { arguments: given, required } = known.operations[operation.value];
    for (const [name, schema] of Object.entries(given)) {
      const [label, extra, reader] = field(name, schema, required.includes(name));
      fields.append(label, ...(extra ? [extra] : []));
      readers[name] = reader;
    }
  };
  operation.onchange = refresh;
  operation.value = "create_vcpu";
  refresh();
  const perform = async (event) => {
    event?.preventDefault();
    const step = { op: operation.value };
    for (const [name, reader] of Object.entries(readers)) if (reader() !== undefined) step[name] = reader();
    take(await python.call(MODULE, "perform", { step }));
  };
  const quick = [
    ["Force BHI_DIS_S", { op: "enable_cap", cap: "KVM_CAP_FORCE_SPEC_CTRL", args: ["0x400", "0x400"] }],
    ["Create vCPU 0", { op: "create_vcpu" }],
    ["Offer the virtual MSRs", { op: "set_msrs", msrs: [["MSR_VIRTUAL_ENUMERATION", "0x1"], ["MSR_VIRTUAL_MITIGATION_ENUM", "0x3"]] }],
    ["Guest writes IBRS", { op: "wrmsr", msr: "IA32_SPEC_CTRL", value: "0x1" }],
    ["Guest reads it", { op: "rdmsr", msr: "IA32_SPEC_CTRL" }],
    ["Guest reports the short sequence", { op: "wrmsr", msr: "MSR_VIRTUAL_MITIGATION_CTRL", value: "0x1" }],
    ["Enter L2", { op: "nested_enter" }],
    ["Leave L2", { op: "nested_exit" }],
    ["VM exit to the host", { op: "exit" }],
    ["INIT", { op: "init" }],
    ["Move to Ice Lake", { op: "migrate", to: "ice-lake-server" }],
    ["Move to Sapphire Rapids", { op: "migrate", to: "sapphire-rapids" }],
  ].map(([text, step]) => button(text, async () => take(await python.call(MODULE, "perform", { step }))));
  const assumed = Object.entries(known.assumptions).map(([name, on]) => {
    const box = element("input", { type: "checkbox", checked: head.assume[name] ?? on });
    box.onchange = () => again({ assume: { ...head.assume, [name]: box.checked } });
    return element("label", {}, box, ` ${name}`);
  });
  const hosts = known.hosts.includes(head.host) ? known.hosts : [said(head.host), ...known.hosts];
  return element(
    "form",
    { className: "play-form", onsubmit: perform },
    element("div", { className: "play-row" },
      choice("Host", hosts, said(head.host), (host) => again({ host: read(host) })),
      choice("Interface", known.variants, head.variant, (variant) => again({ variant })),
      element("details", {}, element("summary", { textContent: "Assumptions" }), ...assumed)),
    element("div", { className: "play-row", role: "group", label: "Common steps" }, ...quick),
    element("fieldset", {}, element("legend", { textContent: "Any step of the scenario format" }),
      element("label", {}, "operation", operation), fields, element("button", { type: "submit", textContent: "Perform" })),
    element("div", { className: "play-row" }, undo, button("Start over", () => begin()), save, share),
  );
}

const again = (changed) => {
  head = { ...head, ...changed };
  return begin(rows.map((row) => row.step));
};

// ---- from here: load, then whatever the address asks for

// The scenario that the address names: a vector, or a cell of the comparison, which stands in its policy's file.
async function published(asked) {
  const [id, policy] = [asked.get("scenario") ?? asked.get("cell"), asked.get("policy")];
  const path = asked.has("cell") ? `policies/${encodeURIComponent(policy)}` : `vectors/${encodeURIComponent(id)}`;
  const file = await fetch(new URL(`../${path}.json`, location.href));
  const found = file.ok ? await file.json() : undefined;
  const scenario = asked.has("cell") ? found?.[id] : found;
  if (!scenario) throw new Error(`there is no scenario ${id}`);
  return scenario;
}

async function go() {
  root.replaceChildren(state);
  say("Loading Python…");
  try {
    known = await python.call(MODULE, "choices", {});
    const asked = new URLSearchParams(location.hash.slice(1) || location.search);
    let answer;
    if (asked.has("scenario") || asked.has("cell")) {
      answer = await python.call(MODULE, "open_scenario", { scenario: await published(asked) });
      if (answer.head) head = { host: answer.head.host, variant: answer.head.variant, assume: answer.head.assume };
    } else {
      const { steps = [], ...rest } = asked.has("h") ? decoded(asked.get("h")) : {};
      head = { ...head, ...rest };
      answer = await python.call(MODULE, "start", { ...head, steps });
    }
    root.replaceChildren(form(), legend(), state, list);
    take(answer);
  } catch (error) {
    const anew = button("Begin with an empty history", () => {
      history.replaceState(null, "", location.pathname);
      go();
    });
    root.replaceChildren(element("p", { role: "alert" }, `The playground cannot begin with this address: ${error.message}. `), anew);
  }
}

if (root && about.megabytes) {
  const offer = button("Load and begin", go);
  root.replaceChildren(
    element("p", { className: "play-offer" }, `The emulator runs in this page. Python is loaded once, from this site: ${about.megabytes} MB. `, offer),
  );
  addEventListener("hashchange", () => known && /^#(scenario|cell)=/.test(location.hash) && go());
}
