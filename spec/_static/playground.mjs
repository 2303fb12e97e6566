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
let undone = []; // steps that were taken back, the last of them last

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

// A number as a manual writes it, as the format does: 48H and 0b1 become 0x48 and 0x1.
function notation(text) {
  const manual = /^([0-9][0-9a-f_]*)h$/i.exec(text);
  if (manual) return `0x${manual[1].replaceAll("_", "").toLowerCase()}`;
  return /^0b[01_]+$/i.test(text) ? `0x${BigInt(text.replaceAll("_", "")).toString(16)}` : text;
}

// A value as it is typed: JSON where it is JSON, else the text itself; nothing where there is nothing.
function read(text) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return notation(text.trim());
  }
}

// What was typed without 0x and could have been meant in hexadecimal is said once, beside what the step did.
function decimals(step) {
  const typed = Object.entries(step).filter(([name, value]) => ["msr", "value"].includes(name) && typeof value === "number" && value > 9);
  return typed.map(([name, value]) => `${name} was read as decimal ${value}, that is 0x${value.toString(16)}. `).join("");
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
  const beside = row.beside?.vcpus;
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
      const ought = beside?.[number] && said(beside[number][name] ?? null);
      if (ought !== undefined && ought !== now) {
        cell.classList.add("play-wrong");
        cell.append(element("span", { className: "play-ought", textContent: ` ✗ ${ought} under spec` }));
      }
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

const pairs = (values) => Object.entries(values).map(([name, value]) => `${name}=${said(value)}`);
const asText = ({ op, ...given }) => [op, ...pairs(given)].join(" ");
const outcome = (seen) => pairs(seen).join(", ") || "success";

// Which properties a step violates, where that comes from, and what the specification shows instead.
function verdict(row) {
  const parts = (row.violated ?? []).map(({ property, text, causes }) => element("p", { className: "play-violated" },
    element("strong", { textContent: `✗ violates ${property}` }), `: ${text} `,
    ...(causes.length ? [`Gone with the specification's own ${causes.length > 1 ? "form of any of: " : ""}`,
      ...causes.flatMap(({ operation, defects }, at) => [at ? "; " : "", element("code", { textContent: operation }),
        ...defects.flatMap((name, nth) => [nth ? ", " : " (", element("a", { href: `defects.html#found-${name.toLowerCase()}`, textContent: name })]),
        defects.length ? ")" : ""]), "."] : ["No single operation of the posted code is the cause."])));
  if (row.beside === null) parts.push(element("p", { className: "play-seen", textContent: "Under spec this step cannot be asked: the two histories have gone different ways." }));
  else if (row.beside && outcome(row.beside.seen) !== outcome(row.seen)) {
    parts.push(element("p", { className: "play-ought", textContent: `under spec ⇒ ${outcome(row.beside.seen)}` }));
  }
  if (row.expect) {
    parts.push(element("p", { className: row.unmet.length ? "play-violated" : "play-met",
      textContent: row.unmet.length ? `✗ expected otherwise: ${row.unmet.join("; ")}` : `✓ as expected: ${outcome(row.expect)}` }));
  }
  return parts;
}

function shown(row, number) {
  const changed = row.changed.map(({ code, fields, rules }) => element("li", {},
    element("code", { textContent: code }), " changed ", element("code", { textContent: fields.join(", ") }),
    element("span", { className: "play-rules" }, ": ", ...links(rules))));
  const told = new Set(row.changed.flatMap((part) => part.rules));
  const others = row.rules.filter((id) => !told.has(id));
  const count = others.length === 1 ? "rule whose code ran" : "rules whose code ran";
  const rules = element("details", { className: "play-others" },
    element("summary", { textContent: told.size ? `${others.length} more ${count}` : `${others.length} ${count}; no field of a vCPU or the VM changed` }),
    element("p", { className: "play-rules" }, ...links(others)));
  const bad = row.violated?.length || row.unmet?.length;
  return element(
    "li",
    { value: number },
    element("details", { open: number === rows.length },
    element("summary", { className: "play-step" }, element("code", { textContent: asText(row.step) }), element("span", { className: bad ? "play-violated" : "", textContent: bad ? " ✗" : "" })),
    element("p", { className: "play-seen", textContent: `⇒ ${outcome(row.seen)}` }),
    ...verdict(row),
    element("div", { className: "play-scroll", tabIndex: 0, role: "group", label: `Registers after step ${number}` }, registers(row, rows[number - 2])),
    ...(changed.length ? [element("p", { className: "play-seen", textContent: "Code that changed something, and its rules:" }), element("ul", { className: "play-code" }, ...changed)] : []),
    ...(others.length ? [rules] : []),
    ),
  );
}

const list = element("ol", { className: "play-history" });
const undo = button("Undo", async () => {
  const { step, expect } = rows.at(-1);
  const kept = [...undone, expect ? { ...step, expect } : step];
  take(await python.call(MODULE, "undo", {}));
  undone = kept;
  draw();
});
const redo = button("Redo", async () => {
  const kept = undone.slice(0, -1);
  take(await python.call(MODULE, "perform", { step: undone.at(-1) }));
  undone = kept;
  draw();
});
const save = button("Save as a scenario", download);
const share = button("Copy address", async () => {
  await navigator.clipboard?.writeText(location.href).then(() => say("The address is copied."), () => say(location.href));
});

function draw() {
  list.replaceChildren(...rows.map((row, at) => shown(row, at + 1)).reverse());
  for (const one of [undo, save, share, over]) one.disabled = !rows.length;
  redo.disabled = !undone.length;
  history.replaceState(null, "", rows.length ? `${location.pathname}#h=${encoded()}` : location.pathname);
}

// Start over asks first: what was performed is gone then.
const over = button("Start over", () => {
  const count = `${rows.length} step${rows.length === 1 ? "" : "s"}`;
  state.replaceChildren(`Erase the history of ${count}? `, button("Erase", () => begin()), " ", button("Keep", () => say("")));
});

// The newest step, in one line that stays in sight.
function newest() {
  const row = rows.at(-1);
  if (!row) return "";
  const bad = row.violated?.length ? ` ✗ violates ${row.violated.map((one) => one.property).join(", ")}` : "";
  return `Step ${rows.length}: ${asText(row.step)} ⇒ ${outcome(row.seen)}${bad}`;
}

function take(answer, said = "") {
  undone = [];
  if (answer.rows) rows = answer.rows;
  else if (!answer.problem) rows.push(answer);
  say(answer.problem ? `Refused: ${answer.problem.replace(/[^.?!]$/, "$&.")}` : said + newest());
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
    take(await python.call(MODULE, "perform", { step }), decimals(step));
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
    element("div", { className: "play-row" }, undo, redo, over, save, share),
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

// What the address asks for, without Python: its steps as they will be performed.
async function preview() {
  const asked = new URLSearchParams(location.hash.slice(1) || location.search);
  let found;
  if (asked.has("scenario") || asked.has("cell")) found = await published(asked);
  else if (asked.has("h")) found = decoded(asked.get("h"));
  if (!found) return [];
  const { host, variant = found.profile ?? "spec", steps, title } = found;
  return [
    element("p", {}, `${title ? `${title}: ` : ""}${steps.length} step${steps.length === 1 ? "" : "s"} on ${said(host)} under ${variant}:`),
    element("ol", { className: "play-preview" }, ...steps.map(({ expect, ...step }) => element("li", {},
      element("code", { textContent: asText(step) }), expect ? ` expects ${outcome(expect)}` : ""))),
  ];
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
    root.replaceChildren(form(), state, list, legend());
    take(answer);
  } catch (error) {
    const anew = button("Begin with an empty history", () => {
      history.replaceState(null, "", location.pathname);
      go();
    });
    const why = error instanceof SyntaxError || error instanceof DOMException ? "its history is cut off, or was changed" : error.message;
    root.replaceChildren(element("p", { role: "alert" }, `The playground cannot begin with this address: ${why}. `), anew);
  }
}

if (root && about.megabytes) {
  const offer = button("Load and begin", go);
  root.replaceChildren(
    element("p", { className: "play-offer" }, `The emulator runs in this page. Python is loaded from this site: ${about.megabytes} MB. `, offer),
  );
  preview().then((steps) => root.querySelector(".play-offer")?.after(...steps), () => {}); // what is wrong with it is said on loading
  addEventListener("hashchange", () => known && /^#(scenario|cell)=/.test(location.hash) && go());
}
