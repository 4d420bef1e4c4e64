// Small repairs of the built page: formulas that nearly fit, and what the keyboard and screen readers need.

const SMALLEST = 0.8; // a formula is shrunk to this much of its size at most; a wider one scrolls

function fit() {
  const formulas = [...document.querySelectorAll("div.math")].filter((box) => box.clientWidth);
  for (const box of formulas) box.style.fontSize = "";
  const ratios = formulas.map((box) => box.clientWidth / box.scrollWidth);
  formulas.forEach((box, k) => {
    if (ratios[k] < 1) box.style.fontSize = `${Math.max(SMALLEST, ratios[k] - 0.005)}em`;
  });
}

function repair() {
  fit();
  // What scrolls sideways must be reachable with the Tab key; what does not scroll must not be a stop.
  for (const box of document.querySelectorAll("div.math, .pst-scrollable-table-container, div.highlight > pre")) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", box.matches("div.math") ? "Formula" : box.matches("pre") ? "Code" : "Table");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    }
  }
}

addEventListener("load", async () => {
  // A label that hides the words on a control misleads whoever hears it.
  for (const control of document.querySelectorAll("details.hide > summary, .search-button-field")) {
    control.removeAttribute("aria-label");
  }
  for (const entry of document.querySelectorAll(".citation-list, .citation")) entry.removeAttribute("role");
  if (window.MathJax?.startup) await MathJax.startup.promise;
  repair();
  document.addEventListener("toggle", repair, true);
  addEventListener("resize", repair);
});
