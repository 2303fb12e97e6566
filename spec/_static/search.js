// The search page, on top of Sphinx's: an excerpt is the passage that was found, and names the section where it stands;
// a heading that has every word of the search is found, in whatever order the words were typed; names of the package
// come after the pages, unless a dotted name was typed.
(() => {
const LENGTH = 240;
// What is the same on every page, or no text of it.
const SKIPPED = ".headerlink, script, style, .status-banner, .spec-permalink, .linenos, svg, .spec-fold, .spec-source-foot, .spec-backlinks";
const PASSAGES = "h1, h2, h3, h4, p, dt, dd, li, tr, pre";
const HEADING = /^H[1-4]$/;

const stemmer = new Stemmer();
const stems = (text) => splitQuery(text.toLowerCase()).map((word) => stemmer.stemWord(word));
const plain = (element) =>
  (element.tagName === "TR" ? [...element.cells].map((cell) => cell.textContent).join(" · ") : element.textContent).replace(/\s+/g, " ").trim();

// Every passage of a page in its order; of those in one another the innermost, and a row of a table whole.
function passages(main) {
  return [...main.querySelectorAll(PASSAGES)].filter((one) =>
    one.tagName === "TR" || !(one.parentElement.closest("tr, pre") || one.querySelector(PASSAGES)));
}

// From the sentence in which the first of the words stands.
function excerpt(text, words) {
  const low = text.toLowerCase();
  const first = Math.min(...words.map((word) => low.indexOf(word)).filter((at) => at >= 0));
  if (text.length <= LENGTH || first === Infinity) return text.length > LENGTH ? `${text.slice(0, LENGTH).replace(/\s\S*$/, "")} …` : text;
  const sentence = Math.max(...[". ", "; ", ": "].map((mark) => text.lastIndexOf(mark, first) + mark.length).filter((at) => at > 2), 0);
  const start = first - sentence < LENGTH / 2 ? sentence : text.indexOf(" ", first - LENGTH / 2) + 1;
  const cut = text.slice(start, start + LENGTH);
  return `${start ? "… " : ""}${start + LENGTH < text.length ? `${cut.replace(/\s\S*$/, "")} …` : cut}`;
}

Search.makeSearchSummary = (html, keywords, anchor) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  page.querySelectorAll(SKIPPED).forEach((part) => part.remove());
  const main = page.querySelector("[role=main]");
  if (!main) return null;
  const target = anchor ? page.getElementById(decodeURIComponent(anchor.slice(1))) : null;
  let all = passages(main);
  let words = [...keywords].map((word) => word.toLowerCase());
  if (target) { // the definition of a term, the first paragraph of a section; else the best of what follows in the section
    const after = (one) => target.compareDocumentPosition(one) & (Node.DOCUMENT_POSITION_FOLLOWING | Node.DOCUMENT_POSITION_CONTAINED_BY);
    all = all.filter((one) => after(one) && !HEADING.test(one.tagName));
    if (target.matches("dt, section")) {
      all = all.slice(0, 1);
      words = [];
    } else all = all.filter((one) => target.closest("section").contains(one));
  }
  // The most words; then headings before prose before code, and hardly a label.
  const worth = (one) => {
    const text = one.textContent.toLowerCase();
    const has = words.filter((word) => text.includes(word)).length;
    const isText = !HEADING.test(one.tagName) && one.tagName !== "PRE" && text.length >= 20;
    if (!has) return isText ? -1 : -2;
    return has + (HEADING.test(one.tagName) ? 0.6 : one.tagName === "PRE" ? -0.9 : isText ? 0.5 : 0);
  };
  let best = all.reduce((chosen, one) => (!chosen || worth(one) > worth(chosen) ? one : chosen), null);
  if (!best) return null;
  const section = best.closest("section[id]");
  if (HEADING.test(best.tagName)) best = all.slice(all.indexOf(best) + 1).find((one) => !HEADING.test(one.tagName)) ?? best;
  const summary = document.createElement("p");
  summary.className = "context";
  const heading = section?.querySelector("h2, h3, h4");
  if (!anchor && heading && heading.parentElement === section) {
    const link = Object.assign(document.createElement("a"), { className: "spec-found-in", textContent: plain(heading) });
    summary.append(link, ": ");
    queueMicrotask(() => { // by then Sphinx has put the excerpt below the link to the page
      const to = summary.parentElement?.querySelector("a")?.getAttribute("href");
      if (to) link.href = `${to}#${section.id}`;
    });
  }
  summary.append(excerpt(plain(best), words));
  return summary;
};

// A number is looked for in both spellings, the kernel's and the manual's.
const spelt = (query) => {
  const other = query.replace(/(?<![\w.])(?:0x([0-9a-f]+)|([0-9a-f]*\d[0-9a-f]*)h)(?![\w.])/gi, (_, kernel, manual) => (kernel ? `${kernel}H` : `0x${manual}`));
  return other === query ? [query] : [query, other];
};
// A rule is found by words of its sentence: those of the search, all of them, in any order; sentences.js has them.
const sentences = SENTENCES.map(([id, url, text]) => ({ id, url, text, words: new Set(stems(`${id} ${text}`)) }));
const TEXT = 15; // Sphinx's score for a word in a title, which no page can exceed by its text
const byPages = Search._performSearch;
Search._performSearch = (query, ...rest) => {
  const [asIs, other] = spelt(query);
  const found = byPages(asIs, ...rest);
  const has = new Set(found.map(([name, , anchor]) => name + anchor));
  if (other) found.push(...byPages(...Search._parseQuery(other)).filter(([name, , anchor]) => !has.has(name + anchor)));
  const asked = stems(query);
  const isName = ([, name, , , , , kind]) => kind === "object" && name.startsWith("specctrl.");
  if (!query.includes(".")) found.filter(isName).forEach((one) => (one[4] -= 2 * TEXT));
  found.filter(([, name, , , , , kind]) => kind === "object" && name === query.trim()).forEach((one) => (one[4] += 4 * TEXT)); // asked for by name
  if (asked.length < 2) return found.sort(_orderResultsByScoreThenName);
  const { alltitles, titles, docnames, filenames } = Search._index;
  const known = new Set(found.map(([name, , anchor]) => name + anchor));
  for (const [title, places] of Object.entries(alltitles)) {
    const words = new Set(stems(title));
    if (!asked.every((word) => words.has(word))) continue;
    for (const [file, id] of places) {
      const anchor = id === null ? "" : `#${id}`;
      if (known.has(docnames[file] + anchor)) continue;
      const name = titles[file] === title ? title : `${titles[file]} > ${title}`;
      found.push([docnames[file], name, anchor, null, TEXT + Math.round((TEXT * asked.length) / words.size), filenames[file], "title"]);
    }
  }
  for (const { id, url, text, words } of sentences) {
    const [page, anchor] = url.split("#");
    const file = docnames.indexOf(page.replace(/\.html$/, ""));
    if (file < 0 || known.has(`${docnames[file]}#${anchor}`) || !asked.every((word) => words.has(word))) continue;
    found.push([docnames[file], id, `#${anchor}`, text, TEXT + Math.round((2 * TEXT * asked.length) / words.size), filenames[file], "object"]);
  }
  return found.sort(_orderResultsByScoreThenName);
};
})();
