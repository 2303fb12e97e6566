// The bit explorer: type or click a value of a register, see its fields. Opened by a button; nothing is loaded before.
// Values are BigInt throughout: a JavaScript number loses bits above 2^53.

const ALL = (1n << 64n) - 1n;

/** The 64-bit value that a text says, in hexadecimal (0x…), binary (0b…) or decimal; an Error says why it says none. */
export function parse(text) {
  let plain = text.trim().replaceAll("_", "").toLowerCase();
  if (plain === "") return 0n;
  const shift = /^1\s*<<\s*([0-9]+)$/.exec(plain);
  if (shift && Number(shift[1]) < 64) return 1n << BigInt(shift[1]);
  if (/^[0-9a-f]+h$/.test(plain)) plain = `0x${plain.slice(0, -1)}`;
  if (!/^(0x[0-9a-f]+|0b[01]+|[0-9]+)$/.test(plain)) throw new Error("not a number: write 0x401, 401H, 0b1, 1<<10 or 1025");
  const value = BigInt(plain);
  if (value > ALL) throw new Error("more than 64 bits");
  return value;
}

/** A value in hexadecimal. */
export const hex = (value) => `0x${value.toString(16)}`;

/** What each field holds, and the bits that no field has. */
export function decode(register, value) {
  const fields = register.fields.map((field) => ({
    ...field,
    value: (value >> BigInt(field.low)) & ((1n << BigInt(field.width)) - 1n),
  }));
  const defined = register.fields.reduce(
    (bits, field) => bits | (((1n << BigInt(field.width)) - 1n) << BigInt(field.low)), 0n);
  return { fields, reserved: value & ~defined & ALL };
}

/** What the processor holds when a guest with this view runs under this mask and value. */
export const merge = (view, mask, value) => ((view & ~mask) | (value & mask)) & ALL;

/** Why KVM_ENABLE_CAP refuses this pair on a part where these bits can be forced; "" if it does not, or nothing is forced. */
export function refusal(mask, value, supported) {
  if (!mask && !value) return "";
  if (!supported) return "EINVAL: nothing can be forced on this part (cap.enable.needs-support)";
  if (value & ~supported & ALL) return `EINVAL: ${hex(value & ~supported & ALL)} is not in the supported set ${hex(supported)} (cap.enable.value-supported)`;
  if (value & ~mask & ALL) return `EINVAL: value bits outside the mask: ${hex(value & ~mask & ALL)} (cap.enable.value-in-mask)`;
  return "";
}

/** What a guest's write comes to: what it reads back, what the processor holds, and the bits that make it fault. */
export function write(view, mask, value, writable) {
  const merged = merge(view, mask, value);
  const refused = merged & ~writable & ALL;
  return { reads: view, holds: merged, refused };
}

// ---- the page

const el = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

let loading;
const load = () => (loading ??= fetch(new URL("registers.json", import.meta.url)).then((answer) => answer.json()));

function wordInput(label, text, changed) {
  const input = el("input", { value: text, spellcheck: false, autocomplete: "off", size: 20 });
  const why = el("span", { className: "spec-bits-why", role: "status" });
  input.addEventListener("input", () => {
    try {
      changed(parse(input.value));
      why.textContent = "";
      input.removeAttribute("aria-invalid");
    } catch (error) {
      why.textContent = error.message;
      input.setAttribute("aria-invalid", "true");
      changed(null);
    }
  });
  return { input, row: el("label", { className: "spec-bits-word" }, el("span", { textContent: label }), input, why) };
}

// The bits, the highest first. One of them is a stop of the Tab key; from there arrows, Home and End move.
function grid(register, state, changed) {
  const box = el("div", { className: "spec-bits-grid", role: "group" });
  box.setAttribute("aria-label", "Bits, the highest first; arrow keys, Home and End move, space toggles");
  const nameOf = (bit) => register.fields.find((field) => bit >= field.low && bit < field.low + field.width)?.name;
  const buttons = [];
  for (let bit = register.width - 1; bit >= 0; bit -= 1) {
    const name = nameOf(bit);
    const says = `bit ${bit}${name ? `: ${name}` : ", reserved"}`;
    const parts = ["number", "digit", "forced"].map((part) => el("span", { className: `spec-bits-${part}` }));
    const button = el("button", { type: "button" }, ...parts);
    parts[0].textContent = bit;
    button.classList.toggle("spec-bits-named", Boolean(name));
    button.tabIndex = bit === 0 ? 0 : -1;
    button.addEventListener("click", () => changed(state.view ^ (1n << BigInt(bit))));
    buttons[bit] = { button, says, digit: parts[1], forced: parts[2] };
    box.append(button);
  }
  const all = [...box.children];
  box.addEventListener("focusin", (event) => all.forEach((one) => (one.tabIndex = one === event.target ? 0 : -1)));
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = all.indexOf(document.activeElement);
    const columns = getComputedStyle(box).gridTemplateColumns.split(" ").length;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    all[to]?.focus();
  });

  /** Show a value; of the bits in the mask also what they are forced to. */
  function show(view, mask, value) {
    const bitOf = (word, bit) => ((word >> BigInt(bit)) & 1n ? "1" : "0");
    buttons.forEach(({ button, says, digit, forced }, bit) => {
      const masked = bitOf(mask, bit) === "1";
      digit.textContent = bitOf(view, bit);
      forced.textContent = masked ? `=${bitOf(value, bit)}` : "";
      button.classList.toggle("spec-bits-masked", masked);
      button.setAttribute("aria-pressed", String(digit.textContent === "1"));
      button.title = masked ? `${says}, forced to ${bitOf(value, bit)}` : says;
      button.setAttribute("aria-label", button.title);
    });
  }
  return { box, show };
}

/** What the signs in the cells are; that of forced bits only where bits can be forced. */
function legend(forced) {
  const part = (sign, ...text) => el("li", {}, el("span", { className: `spec-bits-sign ${sign}`, ariaHidden: "true" }), ...text);
  return el("ul", { className: "spec-bits-legend" },
    el("li", {}, "small: the number of the bit"),
    part("spec-bits-named", "a field has it"),
    part("spec-bits-on", "set"),
    ...(forced ? [part("spec-bits-masked", "in the force mask: ", el("b", { textContent: "=" }), " what the processor holds there instead")] : []));
}

// The cells of the figure are switches too: a field of one bit is set and cleared there, and what follows is shown below.
function switches(layout, pressed) {
  const strip = layout.querySelector(".spec-strip");
  const cells = [...(strip?.querySelectorAll("[data-bit]") ?? [])].map((cell) => {
    const button = el("button", { type: "button", className: "spec-strip-bit" }, ...cell.childNodes);
    const bit = BigInt(cell.dataset.bit);
    button.addEventListener("click", () => pressed(bit));
    cell.replaceWith(button);
    return { button, bit };
  });
  if (cells.length) strip.setAttribute("role", "group");
  const show = (value) => cells.forEach(({ button, bit }) => {
    button.dataset.digit = (value >> bit) & 1n;
    button.setAttribute("aria-pressed", String(((value >> bit) & 1n) === 1n));
  });
  show(0n);
  return show;
}

function explorer(register, data, given, shown) {
  const state = { view: given.view ?? 0n, mask: given.mask ?? 0n, value: given.value ?? 0n, part: given.part ?? "sapphire-rapids" };
  const forced = register.name === "IA32_SPEC_CTRL";
  const out = el("div", { className: "spec-bits-out", role: "status" });
  const link = el("a", { textContent: "link to this value" });
  const wrong = new Set();
  const setter = (name) => (value) => {
    wrong[value === null ? "add" : "delete"](name);
    set(value === null ? {} : { [name]: value });
  };
  const word = wordInput(forced ? "The guest writes" : "Value", hex(state.view), setter("view"));
  const { box, show } = grid(register, state, (value) => set({ view: value }, true));
  box.classList.toggle("spec-bits-forces", forced);
  const body = el("div", { className: "spec-bits-body" }, word.row, box, legend(forced));
  if (forced) {
    const part = el("select", {}, ...Object.keys(data.parts).map((name) => el("option", { value: name, textContent: name })));
    part.value = state.part;
    part.addEventListener("change", () => set({ part: part.value }));
    body.append(
      wordInput("Force mask", hex(state.mask), setter("mask")).row,
      wordInput("Force value", hex(state.value), setter("value")).row,
      el("label", { className: "spec-bits-word" }, el("span", { textContent: "Processor" }), part),
    );
  }
  body.append(out, link);

  function set(change, rewrite = false) {
    Object.assign(state, change);
    if (rewrite) wrong.delete("view");
    if (rewrite) word.input.value = hex(state.view);
    draw();
  }

  function draw() {
    link.hidden = wrong.size > 0;
    if (wrong.size > 0) {
      out.replaceChildren();
      return;
    }
    show(state.view, state.mask, state.value & state.mask);
    shown(state.view);
    const { fields, reserved } = decode(register, state.view);
    const on = fields.filter((field) => field.value).map((field) => (field.width === 1 ? field.name : `${field.name}=${hex(field.value)}`));
    const lines = [`${hex(state.view)} = ${state.view}`, on.length ? `fields: ${on.join(", ")}` : "no field is set"];
    if (reserved) lines.push(`bits that no field has: ${hex(reserved)}`);
    if (forced) {
      const result = write(state.view, state.mask, state.value, BigInt(data.parts[state.part]));
      const refused = refusal(state.mask, state.value, BigInt(data.supported[state.part]));
      if (refused) lines.push(`KVM_ENABLE_CAP: ${refused}`);
      else if (result.refused) lines.push(`#GP: ${state.part} refuses ${hex(result.refused)} of the merged ${hex(result.holds)}; the guest keeps what it read before`);
      else lines.push(`the guest reads ${hex(result.reads)}`, `the processor holds ${hex(result.holds)} while it runs`);
    }
    out.replaceChildren(...lines.map((line) => el("p", { textContent: line })));
    link.href = `#${address(register, state, forced)}`;
  }
  draw();
  return { body, toggle: (bit) => set({ view: state.view ^ (1n << bit) }, true) };
}

const address = (register, state, forced) => {
  const words = { bits: register.name, value: hex(state.view) };
  if (forced) Object.assign(words, { mask: hex(state.mask), force: hex(state.value), part: state.part });
  return new URLSearchParams(words).toString();
};

/** What the address of the page asks to show, or null. */
function asked() {
  const words = new URLSearchParams(location.hash.slice(1));
  if (!words.has("bits")) return null;
  const number = (name) => {
    try {
      return parse(words.get(name) ?? "0");
    } catch {
      return 0n;
    }
  };
  return { name: words.get("bits"), view: number("value"), mask: number("mask"), value: number("force"), part: words.get("part") ?? undefined };
}

function attach() {
  const given = asked();
  for (const layout of document.querySelectorAll(".spec-layout")) {
    const name = layout.querySelector(".spec-layout-head code")?.textContent;
    const details = el("details", { className: "spec-bits" }, el("summary", { textContent: "Explore a value" }));
    let opened;
    const open = () => (opened ??= load().then((data) => {
      const start = given?.name === name ? given : {};
      if (start.part && !(start.part in data.parts)) delete start.part;
      const made = explorer(data.registers[name], data, start, shown);
      details.append(made.body);
      if (start === given) details.scrollIntoView({ block: "center" });
      return made;
    }));
    const shown = switches(layout, async (bit) => {
      details.open = true;
      (await open()).toggle(bit);
    });
    details.addEventListener("toggle", () => details.open && open());
    layout.append(details);
    if (given?.name === name) details.open = true;
  }
}

if (typeof document !== "undefined") attach();
