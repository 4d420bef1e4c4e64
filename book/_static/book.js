// Small repairs of the built page, for people who use the keyboard or a screen reader.

function repair() {
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
