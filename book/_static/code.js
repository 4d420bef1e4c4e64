// The switch "Show all code" of a chapter. It is remembered for all chapters, and an address that leads into a fold
// opens it.

const KEY = "sigreg-show-code";
const folds = [...document.querySelectorAll("details.plumbing")];

function showAll(wanted) {
  for (const fold of folds) fold.open = wanted;
}

function remembered() {
  try {
    return localStorage.getItem(KEY) === "yes";
  } catch {
    return false; // storage may be forbidden
  }
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let fold = target?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  if (target?.closest("details")) target.scrollIntoView();
}

for (const place of document.querySelectorAll(".code-switch")) {
  const box = place.querySelector("input");
  const lines = folds.reduce((sum, fold) => sum + fold.textContent.trim().split("\n").length - 1, 0);
  place.querySelector(".code-switch-note").textContent = `${folds.length} cells, ${lines} lines are folded`;
  place.hidden = false;
  box.checked = remembered();
  box.addEventListener("change", () => {
    showAll(box.checked);
    try {
      localStorage.setItem(KEY, box.checked ? "yes" : "no");
    } catch {
      // then it is not remembered
    }
  });
  if (box.checked) showAll(true);
}

addEventListener("hashchange", reveal);
reveal();
