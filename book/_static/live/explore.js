// Live figures: a still picture of the book becomes one that the reader moves. live.figure(name, start) waits for the
// figure of that name; `start` gets the box to fill and, where the page carries it, the stored grid. Controls are plain
// form elements, charts are SVG drawn at the size they are shown in, colours come from the style sheet.

const live = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function make(tag, attributes = {}, ...children) {
    const part = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) part.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) part.setAttribute(name, value === true ? "" : value);
    }
    part.append(...children.filter((child) => child !== null));
    return part;
  }

  // Figures -----------------------------------------------------------------------------------------------

  // The still stays for print and for readers without scripts.
  const waiting = [];
  function figure(name, start, caption = null) {
    const frame = document.getElementById(name)?.closest("figure");
    if (!frame) return;
    const grid = document.getElementById(`grid-${name}`);
    const box = make("div", { class: "live", role: "group", "aria-label": "A figure to move" });
    const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && begin(), { rootMargin: "600px" });
    const begin = () => {
      near.disconnect();
      if (box.isConnected) return;
      const data = grid && JSON.parse(grid.textContent);
      let still = frame.querySelector("img");
      while (still.parentElement !== frame) still = still.parentElement;
      still.before(box);
      still.classList.add("live-still");
      start(box, data);
      if (data?.source) box.append(make("p", { class: "live-source" }, data.source));
      const text = frame.querySelector("figcaption .caption-text"); // the still's caption tells of what is not shown now
      if (caption && text) text.textContent = caption;
    };
    if (frame.getBoundingClientRect().top < innerHeight) begin();
    else near.observe(frame); // far down the page nothing is computed before it is near
    waiting.push(begin);
  }
  const all = () => waiting.forEach((begin) => begin());

  // Controls ----------------------------------------------------------------------------------------------

  function slider({ label, values, value, show = String, on }) {
    const text = () => show(values[+input.value]);
    const input = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": label, autocomplete: "off" });
    const output = make("output", { "aria-live": "off" });
    const tell = () => {
      output.textContent = text();
      input.setAttribute("aria-valuetext", text());
    };
    input.value = Math.max(0, values.indexOf(value));
    input.addEventListener("input", () => {
      tell();
      on(values[+input.value]);
    });
    tell();
    const part = make("label", { class: "live-slider" }, make("span", {}, label), input, output);
    part.set = (wanted) => {
      input.value = values.indexOf(wanted);
      tell();
    };
    return part;
  }

  let groups = 0;
  function choices({ label, options, value, on, several = false }) {
    const name = `live-${++groups}`;
    const inputs = options.map((option) =>
      make("input", { type: several ? "checkbox" : "radio", name, value: option, checked: several ? value.includes(option) : option === value, autocomplete: "off",
        onchange: () => on(several ? inputs.filter((each) => each.checked).map((each) => each.value) : option) }),
    );
    const pills = options.map((option, k) => make("label", {}, inputs[k], make("span", {}, option)));
    const part = make("fieldset", { class: "live-choices" }, make("legend", {}, label), ...pills);
    part.set = (wanted) => inputs.forEach((input) => (input.checked = input.value === wanted));
    return part;
  }

  const button = (text, on) => make("button", { type: "button", class: "live-button", onclick: on }, text);

  // Charts ------------------------------------------------------------------------------------------------

  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const round = (v) => Math.round(v * 10) / 10;

  // One chart in a box. draw({ x, y, marks, alt }) draws it; an axis has a range, ticks, a label and perhaps log: true.
  // Marks: { line | area | dots: [[x, y], ...], tone, label, faint, dashed }, { across | along: value }, { text, at }.
  function chart({ height = 260, square = false } = {}) {
    const box = make("div", { class: "live-chart" });
    let last = null;
    let seen = 0; // the width that it was drawn for
    function draw(spec) {
      last = spec;
      seen = box.clientWidth;
      const width = seen || 320;
      const tall = square ? width : height;
      const { x, y, marks } = spec;
      const labelled = marks.filter((mark) => mark.label);
      const longest = Math.max(0, ...labelled.map((mark) => mark.label.length));
      const room = { left: y.hidden ? 8 : y.label ? 60 : 40, right: spec.right ?? Math.max(12, longest ? longest * 6.6 + 12 : 12), top: 10, bottom: x.hidden ? 8 : 40 };
      const scale = (axis, from, to) => {
        const go = axis.log ? Math.log : (v) => v;
        const [low, high] = axis.range.map(go);
        return (v) => from + ((go(v) - low) / (high - low)) * (to - from);
      };
      const px = scale(x, room.left, width - room.right);
      const py = scale(y, tall - room.bottom, room.top);
      const inside = (v, axis) => v >= axis.range[0] && v <= axis.range[1];
      const path = (points) => points.map(([a, b], k) => `${k ? "L" : "M"}${round(px(a))} ${round(py(b))}`).join("");
      const parts = [];
      let free = -Infinity; // no tick is written over another
      for (const tick of x.ticks || []) {
        if (!inside(tick, x)) continue;
        parts.push(`<path class="tick" d="M${round(px(tick))} ${room.top}V${tall - room.bottom}"/>`);
        const name = (x.show || String)(tick);
        if (x.hidden || px(tick) - 3.6 * name.length < free) continue;
        free = px(tick) + 3.6 * name.length + 4;
        parts.push(`<text x="${round(px(tick))}" y="${tall - room.bottom + 16}" text-anchor="middle">${escape(name)}</text>`);
      }
      for (const tick of y.ticks || []) {
        if (!inside(tick, y)) continue;
        parts.push(`<path class="tick" d="M${room.left} ${round(py(tick))}H${width - room.right}"/>`);
        if (!y.hidden) parts.push(`<text x="${room.left - 6}" y="${round(py(tick)) + 4}" text-anchor="end">${escape((y.show || String)(tick))}</text>`);
      }
      if (x.label) parts.push(`<text class="name" x="${(room.left + width - room.right) / 2}" y="${tall - 5}" text-anchor="middle">${escape(x.label)}</text>`);
      if (y.label) parts.push(`<text class="name" transform="translate(12 ${(room.top + tall - room.bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(y.label)}</text>`);
      for (const mark of marks) {
        const look = `tone-${mark.tone || "grey"}${mark.faint ? " faint" : ""}${mark.dashed ? " dashed" : ""}`;
        if (mark.area) parts.push(`<path class="area ${look}" d="${path(mark.area)}Z"/>`);
        if (mark.line) parts.push(`<path class="line ${look}" d="${path(mark.line)}"/>`);
        for (const [a, b, size] of mark.dots || []) parts.push(`<circle class="dot ${look}" cx="${round(px(a))}" cy="${round(py(b))}" r="${round((!mark.fixed && size) || mark.size || 3.5)}"/>`);
        if (mark.across !== undefined) parts.push(`<path class="line ${look}" d="M${room.left} ${round(py(mark.across))}H${width - room.right}"/>`);
        if (mark.along !== undefined) parts.push(`<path class="line ${look}" d="M${round(px(mark.along))} ${room.top}V${tall - room.bottom}"/>`);
        if (mark.text) parts.push(`<text class="said ${look}" x="${round(px(mark.at[0])) + (mark.dx || 0)}" y="${round(py(mark.at[1])) + (mark.dy || 0)}" text-anchor="${mark.anchor || "start"}">${escape(mark.text)}</text>`);
      }
      // Labels stand beside the ends of their lines, and make room for each other.
      const ends = labelled.map((mark) => ({ mark, y: py((mark.line || mark.dots).at(-1)[1]) })).sort((a, b) => a.y - b.y);
      ends.forEach((end, k) => (end.y = Math.max(end.y, k ? ends[k - 1].y + 14 : room.top + 4)));
      for (let k = ends.length - 1, bottom = tall - room.bottom; k >= 0; bottom = ends[k--].y - 14) ends[k].y = Math.min(ends[k].y, bottom);
      for (const { mark, y: at } of ends)
        parts.push(`<text class="said tone-${mark.tone || "grey"}" x="${width - room.right + 7}" y="${round(at) + 4}">${escape(mark.label)}</text>`);
      box.innerHTML = `<svg xmlns="${SVG}" width="${width}" height="${tall}" viewBox="0 0 ${width} ${tall}" role="img" aria-label="${escape(spec.alt).replace(/"/g, "&quot;")}">${parts.join("")}</svg>`;
    }
    new ResizeObserver(() => last && box.clientWidth !== seen && draw(last)).observe(box);
    return { box, draw };
  }

  const says = () => make("p", { class: "live-says", role: "status" });

  return { make, figure, all, slider, choices, button, chart, says, calm };
})();
