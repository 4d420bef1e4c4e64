// The search page: sections, statements, claims and terms of SECTIONS (made by book/_ext/sections.py), the best first.

(() => {
  const SHOWN = 40;
  const escaped = (word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const startsWord = (word) => new RegExp(`(?<![\\p{L}\\p{N}])${escaped(word)}`, "giu");

  // All words must occur, in the title, the text or the page's title; titles count most, and whole titles first of all.
  function rank(query) {
    const wanted = query.trim().toLowerCase().replace(/\s+/g, " ");
    const words = [...new Set(wanted.split(" "))].filter(Boolean);
    if (!words.length) return [];
    const patterns = words.map(startsWord);
    const found = [];
    for (const [page, anchor, title, text] of SECTIONS.entries) {
      const [file, pageTitle] = SECTIONS.pages[page];
      const name = title.toLowerCase();
      const bare = name.replace(/^(claim )?/, "").replace(/^[\d.]+ /, "");
      let score = 0;
      for (const pattern of patterns) {
        const inTitle = (title.match(pattern) || []).length;
        const inText = (text.match(pattern) || []).length;
        if (!inTitle && !inText && !pageTitle.match(pattern)) {
          score = -1;
          break;
        }
        score += 12 * Math.min(inTitle, 1) + 2 * Math.min(inText, 5);
      }
      if (score <= 0) continue;
      if (bare === wanted || name === wanted || bare.startsWith(`${wanted}:`)) score += 200;
      else if (name.includes(`(${wanted})`) || name.startsWith(`${wanted} (`)) score += 180;
      else if (name.startsWith(wanted) || bare.startsWith(wanted)) score += 40;
      else if (name.includes(wanted)) score += 25;
      if (!anchor) score -= 6; // a place in a page says more than the page
      found.push([file, title, anchor && `#${anchor}`, snippet(text, patterns), score, pageTitle]);
    }
    return found.sort((a, b) => b[4] - a[4]);
  }

  // Some two lines of the text around the first word that was asked for.
  function snippet(text, patterns) {
    const places = patterns.map((pattern) => text.search(pattern)).filter((at) => at >= 0);
    const from = Math.max(0, Math.min(...(places.length ? places : [0])) - 70);
    const start = from && text.indexOf(" ", from) + 1;
    const cut = text.slice(start, start + 220);
    return `${start ? "… " : ""}${text.length > start + 220 ? `${cut.slice(0, cut.lastIndexOf(" "))} …` : cut}`;
  }

  // The words that were asked for, marked.
  function marked(text, patterns) {
    const line = document.createElement("p");
    const every = new RegExp(patterns.map((pattern) => `(?:${pattern.source})[\\p{L}\\p{N}]*`).join("|"), "giu");
    let at = 0;
    for (const match of text.matchAll(every)) {
      line.append(text.slice(at, match.index), Object.assign(document.createElement("mark"), { textContent: match[0] }));
      at = match.index + match[0].length;
    }
    line.append(text.slice(at));
    return line;
  }

  Search._performSearch = (query) => rank(query);
  Search.query = (query) => {
    const results = rank(query);
    const patterns = query.trim().split(/\s+/).filter(Boolean).map(startsWord);
    const root = document.documentElement.dataset.content_root || "./";
    for (const [file, title, anchor, text, , page] of results.slice(0, SHOWN)) {
      const link = Object.assign(document.createElement("a"), { href: `${root}${file}${anchor}`, textContent: title });
      const item = document.createElement("li");
      item.append(link);
      if (page !== title) item.append(Object.assign(document.createElement("span"), { className: "search-page", textContent: page }));
      if (text) item.append(marked(text, patterns));
      Search.output.append(item);
    }
    Search.stopPulse();
    Search.title.innerText = "Search results";
    const more = results.length > SHOWN ? `, the best ${SHOWN} shown` : "";
    Search.status.innerText = results.length ? `${results.length} places${more}.` : "Nothing found. All words of a search must occur in one section.";
  };
})();
