// Runs the page's code where it stands. A page is always run from its top: a result never depends on what was
// run before it, only on the text above it. A docstring is run by itself, among the names of its module.
import { Python } from "./python.mjs";
import { nodesOf } from "./safe.mjs";

const about = document.querySelector("script[data-megabytes], script[data-lacks]").dataset;
const python = new Python((about.archives ?? "").split(" "));
const AGREED = "specctrl-python-agreed";
let agreed = sessionStorage.getItem(AGREED) === "yes";
let busy = false;
let ran = []; // the texts that the namespace has seen, in order
let ranAt = ""; // and the docstring that they are from

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

// What is shown of an output, so that two can be compared: the scripts of this site add to what the build wrote.
function essence(box) {
  const copy = box.cloneNode(true);
  copy.querySelectorAll("wbr").forEach((mark) => mark.remove());
  for (const name of ["role", "aria-label", "tabindex"]) copy.querySelectorAll("[tabindex]").forEach((part) => part.removeAttribute(name));
  copy.normalize();
  return box.matches(".text_html") ? copy.innerHTML.trim() : copy.querySelector("pre").textContent.trimEnd();
}

function shown(outputs) {
  return outputs.map(({ kind, data }) => {
    const box = element("div", { className: kind === "html" ? "output text_html" : "output" });
    if (kind === "html") box.append(...nodesOf(data));
    else box.append(element("pre", { textContent: data }));
    return box;
  });
}

// What a docstring is about, by its dotted name; nothing for the code of a chapter.
function subject(box) {
  if (!box.matches(".doctest")) return "";
  const signature = box.closest("dl.py")?.querySelector(":scope > dt");
  if (signature?.id) return signature.id;
  const before = [...document.querySelectorAll("[id^='module-']")].filter(
    (mark) => mark.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING);
  return before.at(-1)?.id.slice("module-".length) ?? "";
}

// Why a block cannot be run in the page; "" if it can.
const barredBy = (box, text) => {
  if (box.matches(".tag_starts-a-program") || /# starts a process$/m.test(text)) return "it starts another program";
  return box.matches(".tag_reads-the-repository") ? "it reads files that only the repository has" : "";
};

class Block {
  constructor(box, number) {
    const isCell = box.matches(".cell");
    this.docstring = subject(box);
    this.name = `${isCell ? "cell" : "prompts"} ${number}`;
    this.listing = isCell ? box.querySelector(".cell_input .highlight") : box;
    this.pre = this.listing.querySelector("pre");
    this.text = this.pre.textContent.trimEnd();
    this.barred = barredBy(box, this.text);
    this.varies = box.matches(".tag_solver-chooses");
    this.built = isCell ? box.querySelector(".cell_output") : null;
    this.place = element("div", { className: "run-output", hidden: true });
    this.place.setAttribute("role", "group");
    this.place.setAttribute("aria-label", `Output of ${this.name}, run here`);
    this.state = element("span", { className: "run-state" });
    this.state.setAttribute("role", "status");
    this.bar = element("div", { className: "run-bar" });
    this.buttons = {
      run: this.button("Run", () => runUpTo(this)),
      edit: this.button("Edit", () => this.edit()),
      reset: this.button("Reset", () => this.reset()),
      resetAll: this.button("Reset page", () => blocks.forEach((block) => block.reset())),
    };
    if (this.barred) this.say(`Cannot be run in the page: ${this.barred}`);
    else this.bar.append(...Object.values(this.buttons));
    this.bar.append(this.state);
    (isCell ? box.querySelector(".cell_input") : box).after(this.bar);
    (isCell ? box : this.bar)[isCell ? "append" : "after"](this.place);
    this.refresh();
  }

  button(text, action) {
    const made = element("button", { type: "button", textContent: text, onclick: action });
    made.setAttribute("aria-label", `${text}${text === "Reset page" ? "" : ` ${this.name}`}`);
    return made;
  }

  get code() {
    return this.editor ? this.editor.value : this.text;
  }

  get edited() {
    return this.code !== this.text;
  }

  refresh() {
    this.buttons.edit.hidden = Boolean(this.editor);
    this.buttons.reset.hidden = !this.editor && this.place.hidden;
    this.buttons.resetAll.hidden = !this.edited || blocks.filter((block) => block.edited).length < 2;
  }

  edit() {
    this.editor = element("textarea", { className: "run-editor", value: this.text, spellcheck: false });
    this.editor.setAttribute("aria-label", `Code of ${this.name}`);
    this.editor.autocapitalize = "off";
    const fit = () => (this.editor.rows = this.editor.value.split("\n").length);
    this.editor.oninput = () => {
      fit();
      this.say(this.edited ? "Edited, not run" : "");
      blocks.forEach((block) => block.refresh());
    };
    this.editor.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        runUpTo(this);
      }
    };
    fit();
    this.listing.hidden = true;
    this.listing.before(this.editor);
    this.refresh();
    this.editor.focus();
  }

  reset() {
    if (this.editor === document.activeElement || this.bar.contains(document.activeElement)) this.buttons.run.focus();
    this.editor?.remove();
    this.editor = undefined;
    this.listing.hidden = false;
    this.place.hidden = true;
    this.place.replaceChildren();
    if (this.built) this.built.hidden = false;
    this.say("");
    blocks.forEach((block) => block.refresh());
  }

  say(text, ...more) {
    this.state.replaceChildren(text, ...more);
  }

  // Show what a run gave; what the build printed already is not shown twice.
  show({ outputs, error, same }) {
    const made = shown(outputs);
    const before = this.built ? [...this.built.querySelectorAll(":scope > .output")] : [];
    same ??= made.length === before.length && made.every((box, at) => essence(box) === essence(before[at]));
    const asBuilt = !this.edited && !error && same;
    const chosen = this.varies && !this.edited && !error && !same;
    if (error) {
      const report = element("div", { className: "run-error" }, element("p", { textContent: error.last }));
      if (error.where) report.append(element("p", { className: "run-where", textContent: error.where }));
      if (error.traceback) {
        const trace = element("pre", { textContent: error.traceback, tabIndex: 0 });
        report.append(element("details", {}, element("summary", { textContent: "Traceback" }), trace));
      }
      made.push(report);
    }
    this.place.replaceChildren(...(asBuilt ? [] : made));
    this.place.hidden = asBuilt || !made.length;
    if (this.built) this.built.hidden = !asBuilt;
    this.state.dataset.result = error ? "error" : asBuilt ? "same" : this.edited || chosen ? "other" : "differs";
    if (error) this.say("Raised an exception");
    else if (asBuilt) this.say("Same as built");
    else if (chosen) this.say("Z3 chose another example than in the build");
    else this.say(this.edited ? (made.length ? "Your code ran" : "Your code ran and printed nothing") : "Differs from what was built");
    for (const box of this.place.querySelectorAll("pre, .text_html")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
    this.refresh();
  }
}

// Say once a session what a run will load, and ask.
function agree(block) {
  if (agreed) return Promise.resolve(true);
  return new Promise((answer) => {
    const decide = (yes) => () => {
      agreed = yes;
      if (yes) sessionStorage.setItem(AGREED, "yes");
      block.say("");
      block.buttons.run.focus();
      answer(yes);
    };
    const yes = element("button", { type: "button", textContent: "Load and run", onclick: decide(true) });
    const no = element("button", { type: "button", textContent: "Not now", onclick: decide(false) });
    block.say(`Python runs in this page. It is loaded once, from this site: ${about.megabytes} MB. `, yes, no);
    yes.focus();
  });
}

async function runUpTo(block) {
  if (busy) return;
  busy = true;
  try {
    if (!(await agree(block))) return;
    const stop = element("button", { type: "button", textContent: "Stop", onclick: () => python.stop() });
    block.say(python.ready ? "Running… " : "Loading Python… ", stop);
    await python.start();
    block.say("Running… ", stop);
    const { docstring: place } = block;
    const above = blocks.slice(0, blocks.indexOf(block)).filter((one) => !one.barred && one.docstring === place);
    const current = ranAt === place && ran.length <= above.length && ran.every((code, at) => code === above[at].code);
    if (!current) ran = [];
    ranAt = place;
    for (const next of [...above.slice(ran.length), block]) {
      const { code } = next;
      const result = await python.call("specctrl.site.in_browser", "run", { code, name: next.name, fresh: !ran.length, place });
      next.show(result);
      if (result.error && next !== block) {
        block.say(`Not run: ${next.name}, above, raised ${result.error.last}`);
        ran = [];
        return;
      }
      ran.push(code);
      if (result.error) ran = [];
    }
  } catch (error) {
    ran = [];
    block.state.dataset.result = "stopped";
    block.say(error.message === "stopped" ? "Stopped" : `Python cannot run here: ${error.message}`);
  } finally {
    busy = false;
  }
}

const boxes = [...document.querySelectorAll("[role=main] div.cell, [role=main] div[class*='highlight-py'], [role=main] div.doctest")].filter(
  (box) => box.matches(".cell, .doctest") || (!box.closest(".cell, .spec-source, dl.py") && /^\s*>>> /m.test(box.textContent)),
);
const blocks = [];
if (about.lacks) {
  for (const box of boxes) box.append(element("p", { className: "run-lacks", textContent: `Cannot be run here: ${about.lacks}.` }));
} else {
  for (const box of boxes) blocks.push(new Block(box, blocks.length + 1));
}
