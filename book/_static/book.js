// Small repairs of the built page: formulas and tables that nearly fit, long lines of code, what the keyboard and
// screen readers need, and cards that show a statement where it is mentioned.

// Fit -----------------------------------------------------------------------------------------------------

const SMALLEST = 0.8; // a formula is shrunk to this much of its size at most; a wider one scrolls

function fit() {
  const formulas = [...document.querySelectorAll("div.math")].filter((box) => box.clientWidth);
  for (const box of formulas) box.style.fontSize = "";
  const ratios = formulas.map((box) => box.clientWidth / box.scrollWidth);
  formulas.forEach((box, k) => {
    if (ratios[k] < 1) box.style.fontSize = `${Math.max(SMALLEST, ratios[k] - 0.005)}em`;
  });
}

// A formula in a sentence is never broken: one that is wider than its column is set smaller, or scrolls. What the
// style sheet binds to a formula comes loose where the two together are too wide.
function fitInline() {
  const bound = [...document.querySelectorAll("article .bound")];
  const formulas = [...document.querySelectorAll("article span.math")];
  for (const part of bound) part.style.whiteSpace = "";
  for (const formula of formulas) {
    formula.style.fontSize = "";
    formula.classList.remove("long");
  }
  const ratio = (part) => {
    const block = part.closest("p, li, td, th, dd, dt, figcaption, h1, h2, h3");
    if (!block?.clientWidth || block.matches("td, th")) return 1;
    const { paddingLeft, paddingRight } = getComputedStyle(block);
    const mark = part.parentElement.matches(".bound") ? 8 : 0; // the full stop or comma after it
    const room = block.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight) - mark;
    const within = part.querySelectorAll("mjx-math"); // its frame is no wider than the column, whatever it holds
    const right = Math.max(...[part, ...within].map((each) => each.getBoundingClientRect().right));
    return room / Math.max(right - part.getBoundingClientRect().left, 1);
  };
  const loose = bound.filter((part) => ratio(part) < 1);
  const ratios = formulas.map(ratio);
  for (const part of loose) part.style.whiteSpace = "normal";
  formulas.forEach((formula, k) => {
    if (ratios[k] >= 1) return;
    formula.style.fontSize = `${Math.max(SMALLEST, ratios[k] - 0.01)}em`;
    formula.classList.toggle("long", ratios[k] < SMALLEST);
  });
}

// A table that nearly fits is set a little smaller and closer.
function tighten() {
  for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
    const table = box.querySelector("table");
    if (!table) continue; // the theme wraps what holds a table once more
    table.classList.remove("tight");
    if (box.clientWidth && box.scrollWidth > box.clientWidth) table.classList.add("tight");
  }
}

// A printed table that nearly fits is set smaller, like a formula; printed sentences that do not fit are broken.
const printsTable = (pre) => pre.textContent.split("\n").filter((line) => /\S {3,}\S/.test(line)).length > 1;

function fitOutputs() {
  for (const pre of document.querySelectorAll(".cell_output .output pre")) {
    if (!pre.clientWidth || !printsTable(pre)) continue;
    pre.style.fontSize = "";
    if (pre.scrollWidth <= pre.clientWidth) continue;
    const { fontSize, paddingLeft, paddingRight } = getComputedStyle(pre);
    const margins = parseFloat(paddingLeft) + parseFloat(paddingRight);
    const ratio = (pre.clientWidth - margins) / (pre.scrollWidth - margins);
    pre.style.fontSize = `${parseFloat(fontSize) * Math.max(SMALLEST, ratio - 0.005)}px`;
  }
}

// A block of code too wide for the column gets its lines apart, so that the style sheet can break the long ones and
// set what follows deeper than the line's own indentation. Spaces that line up remarks at the end of lines are
// drawn as two. The text, and so what is copied, stays the same.
function breakLines() {
  const wide = [...document.querySelectorAll("div.highlight > pre")].filter(
    (pre) =>
      !pre.querySelector(".code-line") && pre.scrollWidth > pre.clientWidth && !(pre.closest(".output") && printsTable(pre)),
  );
  for (const pre of wide) {
    const lines = pre.innerHTML.replace(/\n$/, "").split("\n");
    pre.innerHTML = lines
      .map((line) => {
        const indent = line.replace(/<[^>]*>/g, "").match(/^ */)[0].length;
        const close = line.replace(/(\S {2})( +)(?=<span class="c1">)/, '$1<span class="code-gap">$2</span>');
        return `<span class="code-line" style="--indent: ${indent}">${close}\n</span>`;
      })
      .join("");
  }
}

const SCROLLS = "div.math, span.math.long, .pst-scrollable-table-container, div.highlight > pre, .inked";
const LABELS = { ".math": "Formula", pre: "Code", ".inked": "Figure" };

function repair() {
  fit();
  fitInline();
  tighten();
  fitOutputs();
  breakLines();
  // What scrolls sideways must be reachable with the Tab key; what does not scroll must not be a stop.
  for (const box of document.querySelectorAll(SCROLLS)) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", LABELS[Object.keys(LABELS).find((kind) => box.matches(kind))] || "Table");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
    showMore(box);
  }
}

// Where something goes on beyond the right edge, it fades there.
function showMore(box) {
  box.toggleAttribute("data-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 4);
}

// Cards ---------------------------------------------------------------------------------------------------

const STATEMENT = /^#(definition|proposition|theorem|lemma|corollary|remark|example|algorithm|exercise)-\d+-\d+$/;
const SHOWN = /^#(claim-[pvs]\d+|fig-[\w-]+|term-[\w-]+)$/;
const OPEN_AFTER = 250; // milliseconds of rest
const CLOSE_AFTER = 200; // time to move the pointer into the card

const card = document.createElement("div");
card.id = "statement-card";
card.setAttribute("role", "tooltip");
card.hidden = true;

const kept = new Map(); // address -> promise of the page
let shownFor = null;
let timer = 0;

const root = () => new URL(document.documentElement.dataset.content_root || "./", location.href);

// Parts of another page have their pictures and links looked up from there.
function page(address) {
  if (!kept.has(address)) {
    const found = fetch(address)
      .then((answer) => (answer.ok ? answer.text() : Promise.reject(answer.status)))
      .then((text) => {
        const parsed = new DOMParser().parseFromString(text, "text/html");
        for (const image of parsed.images) image.src = new URL(image.getAttribute("src"), address).href;
        return parsed;
      });
    kept.set(address, found);
  }
  return kept.get(address);
}

// What a link is about: the box of a statement, a claim, a figure, a term, the entry of a source.
async function boxOf(link) {
  const name = decodeURIComponent(link.hash.slice(1));
  if (STATEMENT.test(link.hash)) {
    return document.importNode((await page(new URL(`_static/statements/${name}.html`, root()).href)).getElementById(name), true);
  }
  if (isSource(link)) return source(link);
  const found = (await page(link.href.split("#")[0])).getElementById(name);
  if (found.matches("dt")) {
    const term = document.createElement("div");
    term.className = "term";
    term.append(document.importNode(found, true), document.importNode(found.nextElementSibling, true));
    return term;
  }
  const copy = document.importNode(found.closest("figure") || found, true);
  if (copy.matches(".claim")) {
    const verdict = [...copy.querySelectorAll("dt")].find((part) => part.textContent.trim() === "Verdict")?.nextElementSibling;
    if (verdict) copy.querySelector("dl").before(...verdict.childNodes);
    for (const part of copy.querySelectorAll("dl, table")) part.remove();
  }
  return copy;
}

// Links out of the book that the list of references knows.
const isSource = (link) => link.origin !== location.origin && /arxiv|doi\.org|jmlr|neurips|openreview|proceedings/.test(link.href);
async function source(link) {
  const same = (address) => address.replace(/^https?:\/\/(www\.|dx\.)?/, "").replace(/\/$/, "");
  const references = await page(new URL("book/references.html", root()).href);
  const entry = [...references.querySelectorAll(".citation")].find((each) =>
    [...each.querySelectorAll("a")].some((known) => same(known.href) === same(link.href)),
  );
  return document.importNode(entry, true); // fails for an unknown one, as a missing box does
}

// A preview: nothing in it is a link, a stop of the Tab key, or the owner of an id.
function still(box) {
  const other = document.documentElement.dataset.theme === "dark" ? ".only-light" : ".only-dark";
  for (const part of box.querySelectorAll(`.headerlink, button, script, .live, .label, .controls, ${other}`)) part.remove();
  for (const link of box.querySelectorAll("a")) link.replaceWith(...link.childNodes);
  for (const part of box.querySelectorAll(".live-still")) part.classList.remove("live-still");
  for (const part of [box, ...box.querySelectorAll("[id], [tabindex]")]) {
    part.removeAttribute("id");
    part.removeAttribute("tabindex");
  }
  return box;
}

// On a page without MathJax short formulas are shown as they would be typed.
function plainFormulas(box) {
  for (const formula of box.querySelectorAll(".math")) {
    const signs = formula.textContent.replace(/\\[()[\]]|[{}]|\\(?:mathrm|mathcal|text)\b/g, "");
    formula.replaceWith(signs.replace(/\\mid\b/g, "|").replace(/\\([A-Za-z]+)/g, "$1").trim());
  }
}

function place(link) {
  const gap = 8;
  const at = link.getClientRects()[0] || link.getBoundingClientRect();
  const width = card.offsetWidth;
  const height = card.offsetHeight;
  const left = Math.min(Math.max(gap, at.left), document.documentElement.clientWidth - width - gap);
  const below = at.bottom + gap + height <= innerHeight || at.top < height + gap;
  card.style.left = `${left + scrollX}px`;
  card.style.top = `${(below ? at.bottom + gap : at.top - gap - height) + scrollY}px`;
}

// Whether there was something to show.
async function show(link, hint = "") {
  hide();
  shownFor = link;
  let box;
  try {
    box = still(await boxOf(link));
  } catch {
    if (shownFor === link) shownFor = null;
    return false; // without a server (file://) nothing can be fetched: the link keeps its title
  }
  if (shownFor !== link) return true;
  card.replaceChildren(box);
  if (hint) card.append(Object.assign(document.createElement("p"), { className: "hint", textContent: hint }));
  card.hidden = false;
  if (window.MathJax?.typesetPromise) await MathJax.typesetPromise([card]);
  else plainFormulas(card);
  if (shownFor !== link) return true;
  for (const part of card.querySelectorAll("[tabindex]")) part.removeAttribute("tabindex");
  link.dataset.title = link.title;
  link.removeAttribute("title"); // or the browser would lay its own card over this one
  link.setAttribute("aria-describedby", card.id);
  await Promise.all([...card.querySelectorAll("img")].map((image) => image.decode().catch(() => {})));
  place(link);
  return true;
}

function hide() {
  clearTimeout(timer);
  if (!card.hidden) card.hidden = true;
  if (shownFor?.dataset.title) shownFor.title = shownFor.dataset.title;
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
}

function later(action, delay) {
  clearTimeout(timer);
  timer = setTimeout(action, delay);
}

function prepareCards() {
  document.body.append(card);
  card.addEventListener("pointerenter", () => clearTimeout(timer));
  card.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && later(hide, CLOSE_AFTER));
  for (const link of document.querySelectorAll("article a.reference, article .claims-overview a, article .tile")) {
    if (!STATEMENT.test(link.hash) && !SHOWN.test(link.hash) && !isSource(link)) continue;
    let touched = false;
    link.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") shownFor === link ? clearTimeout(timer) : later(() => show(link), OPEN_AFTER);
    });
    link.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && later(hide, CLOSE_AFTER));
    link.addEventListener("pointerdown", (event) => (touched = event.pointerType !== "mouse"));
    link.addEventListener("focus", () => link.matches(":focus-visible") && !touched && show(link));
    link.addEventListener("blur", hide);
    link.addEventListener("click", (event) => {
      // A first tap shows the card, a second one follows the link.
      if (!touched || shownFor === link) return hide();
      touched = false;
      event.preventDefault();
      show(link, "Tap again to go there.").then((shown) => shown || location.assign(link.href));
    });
  }
  addEventListener("keydown", (event) => event.key === "Escape" && hide(), true); // before any control keeps the key
  addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" && !card.contains(event.target) && event.target.closest("a") !== shownFor) hide();
  });
}

// Copy ----------------------------------------------------------------------------------------------------

// A button that copies what stands elsewhere on the page; shown only where that can work.
function offerCopies() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const source = document.querySelector(button.dataset.copy);
    if (!source || !navigator.clipboard) continue;
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(source.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = label), 1500);
    });
  }
}

// Start ---------------------------------------------------------------------------------------------------

addEventListener("load", async () => {
  // A label that hides the words on a control misleads whoever hears it.
  for (const control of document.querySelectorAll("details.hide > summary, .search-button-field")) {
    control.removeAttribute("aria-label");
  }
  for (const entry of document.querySelectorAll(".citation-list, .citation")) entry.removeAttribute("role");
  prepareCards();
  offerCopies();
  if (window.MathJax?.startup) await MathJax.startup.promise;
  repair();
  document.addEventListener("toggle", repair, true);
  document.addEventListener("scroll", (event) => event.target.tabIndex === 0 && showMore(event.target), true);
  addEventListener("resize", repair);
});
