// SIGReg alive: on the first page a cloud that the reader reshapes, in Chapter 4 what SIGReg says beside what is true.

// A cloud in the plane ------------------------------------------------------------------------------------

live.figure("fig-sigreg-alive", (box) => {
  const { make, slider, choices, button, chart, calm } = live;
  const POINTS = 240;
  const SLICES = 48;
  const REACH = 3.6; // half the width of what is shown
  const SHAPES = { "a ring": "a sphere", "two clusters": "two clusters", "a square": "a cube", "heavy tails": "heavy tails", collapsed: "all collapsed", "a Gaussian": "a Gaussian" };
  const healthy = sigreg.nullMean();

  const directions = new Float64Array(2 * SLICES); // evenly around half the circle
  for (let m = 0; m < SLICES; m++) {
    directions[2 * m] = Math.cos((Math.PI * m) / SLICES);
    directions[2 * m + 1] = Math.sin((Math.PI * m) / SLICES);
  }
  let z = new Float64Array(2 * POINTS);
  const gradient = new Float64Array(2 * POINTS);
  const shadow = new Float64Array(POINTS);
  const real = new Float64Array(sigreg.GRID.t.length);
  const imaginary = new Float64Array(sigreg.GRID.t.length);
  let degrees = 30;
  let drawn = 0; // clouds so far: each has a seed of its own
  let turning = !calm.matches;
  let descending = false;
  let seen = true;
  let brush = null; // where the pointer or the keyboard holds the cloud
  const RADIUS = 0.9;

  const canvas = make("canvas", {
    class: "live-cloud", tabindex: 0, role: "img",
    "aria-label": "A cloud of points in the plane, and a line through its middle that casts its shadow. Drag points with the pointer; or move the ring with the arrow keys, with Shift to drag what is in it.",
  });
  const pen = canvas.getContext("2d");
  const curve = chart({ height: 236 });
  const value = make("output", { class: "live-value", "aria-live": "off" });
  const scale = make("div", { class: "live-scale", "aria-hidden": "true" }, make("i", { class: "healthy" }), make("i", { class: "now" }));
  const verdict = live.says();
  const shapes = choices({ label: "Shape", options: Object.keys(SHAPES), value: "a ring", on: reshape });
  const angle = slider({ label: "Slice", values: Array.from({ length: 180 }, (_, k) => k), value: degrees, show: (v) => `${v}°`, on: (v) => {
    degrees = v;
    turn(false);
    show();
  } });
  const turnButton = button("", () => turn(!turning));
  const descend = button("", () => go(!descending));
  box.append(
    shapes,
    make("div", { class: "live-row" },
      make("div", {}, canvas, angle),
      make("div", {}, curve.box, make("div", { class: "live-reading" }, make("span", {}, "SIGReg"), value), scale, verdict,
        make("div", { class: "live-buttons" }, descend, turnButton))),
  );

  function turn(on) {
    turning = on;
    turnButton.textContent = on ? "Hold the slice" : "Turn the slice";
    if (on) step();
  }
  function go(on) {
    descending = on;
    descend.textContent = on ? "Stop" : "Descend the gradient";
    descend.classList.toggle("on", on);
    if (on) step();
  }
  function reshape(shape) {
    z = sigreg.cloud(SHAPES[shape], POINTS, 2, sigreg.makeRandom(++drawn));
    go(false);
    measure();
  }

  // Drawing ------------------------------------------------------------------------------------------------

  let total = 0; // of the cloud as it is
  function measure() {
    total = sigreg.slicedSigreg(z, directions, 2);
    show();
  }

  function show() {
    const a = [Math.cos((Math.PI * degrees) / 180), Math.sin((Math.PI * degrees) / 180)];
    for (let i = 0; i < POINTS; i++) shadow[i] = a[0] * z[2 * i] + a[1] * z[2 * i + 1];
    const here = sigreg.eppsPulley(shadow, { real, imaginary });
    drawCloud(a);
    const { t, target } = sigreg.GRID;
    const points = (values) => Array.from(values, (v, k) => [t[k], v]);
    curve.draw({
      alt: `Real part of the shadow's characteristic function against speed, beside that of a Gaussian. Their squared gap, weighted, is ${here.toFixed(1)}.`,
      x: { range: [0, 3], ticks: [0, 1, 2, 3], label: "speed t" },
      y: { range: [-1.05, 1.05], ticks: [-1, 0, 1], label: "" },
      right: 12,
      marks: [
        { area: [...points(real), ...points(target).reverse()], tone: "amber" },
        { line: points(target), tone: "grey", dashed: true },
        { line: points(imaginary), tone: "amber", faint: true },
        { line: points(real), tone: "blue" },
        { text: "a Gaussian's", at: [0.62, 0.93], tone: "grey" },
        { text: "faint: its imaginary part", at: [0.15, -0.68], tone: "amber" },
        { text: `this shadow's: T = ${here.toFixed(here < 10 ? 2 : 0)}`, at: [0.15, -0.9], tone: "blue" },
      ],
    });
    value.textContent = total.toFixed(total < 10 ? 2 : 0);
    const place = (v) => `${Math.min(100, Math.max(0, (100 * (Math.log10(v) + 2)) / 4.2))}%`; // from 0.01 to 160
    scale.children[0].style.left = place(healthy);
    scale.children[1].style.left = place(total);
    const words =
      total > 4 * healthy ? `Far from Gaussian: such a sample reads ${healthy.toFixed(2)} on average.`
      : total > 2 * healthy ? `Rare for a Gaussian sample, which reads ${healthy.toFixed(2)} on average.`
      : total > 0.3 * healthy ? `As a Gaussian sample would: ${healthy.toFixed(2)} on average, not 0.`
      : "More even than chance: a Gaussian sample hardly reads so low.";
    if (verdict.textContent !== words) verdict.textContent = words;
  }

  const pixels = () => Math.round((canvas.clientWidth || 320) * (devicePixelRatio || 1));
  function drawCloud(a) {
    const side = canvas.clientWidth || 320;
    const dense = devicePixelRatio || 1;
    if (canvas.width !== pixels()) canvas.width = canvas.height = pixels();
    const ink = getComputedStyle(box);
    const color = (name) => ink.getPropertyValue(`--book-${name}`).trim();
    const px = (x) => (side / 2) * (1 + x / REACH);
    const py = (y) => (side / 2) * (1 - y / REACH);
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, side, side);
    pen.lineWidth = 1;
    pen.strokeStyle = color("line");
    for (const r of [1, 2, 3]) {
      pen.beginPath();
      pen.arc(px(0), py(0), (side / 2) * (r / REACH), 0, 7);
      pen.stroke();
    }
    pen.strokeStyle = color("amber"); // the slice, and the shadow on it
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(px(-5 * a[0]), py(-5 * a[1]));
    pen.lineTo(px(5 * a[0]), py(5 * a[1]));
    pen.stroke();
    pen.globalAlpha = 0.55;
    pen.beginPath();
    for (const x of shadow) {
      pen.moveTo(px(x * a[0]) - 5 * a[1], py(x * a[1]) - 5 * a[0]);
      pen.lineTo(px(x * a[0]) + 5 * a[1], py(x * a[1]) + 5 * a[0]);
    }
    pen.stroke();
    pen.globalAlpha = 0.8;
    pen.fillStyle = color("blue");
    for (let i = 0; i < POINTS; i++) {
      pen.beginPath();
      pen.arc(px(z[2 * i]), py(z[2 * i + 1]), 2.6, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (brush && (brush.held || document.activeElement === canvas)) {
      pen.strokeStyle = color("grey");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(px(brush.x), py(brush.y), (side / 2) * (RADIUS / REACH), 0, 7);
      pen.stroke();
    }
  }

  // Time -----------------------------------------------------------------------------------------------------

  let waiting = false;
  let frames = 0;
  function step() {
    if (waiting || !seen || document.hidden || document.readyState !== "complete" || !(turning || descending)) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      frames += 1;
      if (!descending && frames % 2) return step(); // thirty pictures a second are enough to turn
      if (turning) {
        degrees = (degrees + 1) % 180;
        angle.set(Math.floor(degrees));
      }
      if (descending) {
        const before = sigreg.slicedSigreg(z, directions, 2, { gradient });
        for (let i = 0; i < z.length; i++) z[i] -= 0.25 * gradient[i];
        measure();
        if ((before >= healthy && total < healthy) || total < 0.02) go(false); // press again to go on
      } else show();
      step();
    });
  }
  new IntersectionObserver(([entry]) => {
    seen = entry.isIntersecting;
    step();
  }).observe(box);
  addEventListener("visibilitychange", step);
  addEventListener("load", step); // before, the page has other things to do
  new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  new ResizeObserver(() => canvas.width !== pixels() && show()).observe(canvas);

  // The hand ---------------------------------------------------------------------------------------------------

  // What is within the ring goes along, its middle most.
  function drag(dx, dy) {
    for (let i = 0; i < POINTS; i++) {
      const far = Math.hypot(z[2 * i] - brush.x, z[2 * i + 1] - brush.y) / RADIUS;
      if (far >= 1) continue;
      z[2 * i] += dx * (1 - far * far);
      z[2 * i + 1] += dy * (1 - far * far);
    }
  }
  const where = (event) => {
    const frame = canvas.getBoundingClientRect();
    return { x: REACH * ((2 * (event.clientX - frame.left)) / frame.width - 1), y: REACH * (1 - (2 * (event.clientY - frame.top)) / frame.height) };
  };
  const touches = ({ x, y }) => {
    for (let i = 0; i < POINTS; i++) if (Math.hypot(z[2 * i] - x, z[2 * i + 1] - y) < RADIUS) return true;
    return false;
  };
  // A finger on the cloud drags it; beside the cloud it scrolls the page.
  canvas.addEventListener("touchstart", (event) => touches(where(event.touches[0])) && event.preventDefault(), { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    brush = { ...where(event), held: touches(where(event)) };
    if (brush.held) canvas.setPointerCapture(event.pointerId);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!brush?.held) return;
    const { x, y } = where(event);
    drag(x - brush.x, y - brush.y);
    brush = { x, y, held: true };
    measure();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (brush) brush.held = false;
      show();
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const [dx, dy] = [0.15 * way[0], 0.15 * way[1]];
    if (event.shiftKey) drag(dx, dy);
    brush.x = Math.min(REACH, Math.max(-REACH, brush.x + dx));
    brush.y = Math.min(REACH, Math.max(-REACH, brush.y + dy));
    measure();
  });
  for (const event of ["focus", "blur"]) {
    canvas.addEventListener(event, () => {
      brush ||= { x: 0, y: 0, held: false };
      show();
    });
  }

  turn(turning);
  reshape("a ring");
});

// What SIGReg says, what is true ----------------------------------------------------------------------------

live.figure("fig-sigreg-says", (box) => {
  const { make, slider, choices, chart, says } = live;
  const GAUSSIANS = 40;
  const SAMPLES = 20;
  const TESTS = {
    SIGReg: { name: "SIGReg, along random slices", of: (z, s, random) => sigreg.slicedSigreg(z, sigreg.randomDirections(s.slices, s.dim, random), s.dim) },
    radius: { name: "the radial test, of the lengths", of: (z, s) => sigreg.radialSigreg(z, s.dim) },
    kurtosis: { name: "kurtosis along the axes", of: (z, s) => sigreg.kurtosis(z, s.dim) },
  };
  const now = { law: "a cube", dim: 2, n: 256, slices: 64 };
  const set = (name) => (v) => {
    now[name] = v;
    start();
  };
  const [truth, shadow] = [chart({ square: true }), chart({ square: true })];
  const strips = Object.keys(TESTS).map(() => chart({ height: 84 }));
  const verdict = says();
  const dims = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
  const picture = (of, text) => make("div", {}, of.box, make("p", {}, text));
  box.append(
    choices({ label: "The codes", options: ["a cube", "two clusters", "a sphere", "heavy tails", "a Gaussian"], value: now.law, on: set("law") }),
    slider({ label: "Dimension D", values: dims, value: now.dim, on: set("dim") }),
    make("div", { class: "live-sliders" },
      slider({ label: "Batch N", values: [64, 128, 256, 512], value: now.n, on: set("n") }),
      slider({ label: "Slices M", values: [16, 64, 256], value: now.slices, on: set("slices") })),
    make("div", { class: "live-row" },
      make("div", { class: "live-pair" }, picture(truth, "What is true: two of the D axes."), picture(shadow, "What a slice sees: a random plane.")),
      make("div", {}, ...strips.map((strip) => strip.box), verdict)),
  );

  const plane = (of, z, u, v) => {
    const points = [];
    for (let i = 0; i < Math.min(now.n, 256); i++) {
      let [a, b] = [0, 0];
      for (let d = 0; d < now.dim; d++) {
        a += u[d] * z[i * now.dim + d];
        b += v[d] * z[i * now.dim + d];
      }
      points.push([a, b]);
    }
    const axis = { range: [-3.6, 3.6], hidden: true, ticks: [0] };
    of.draw({ alt: `${now.n} codes seen ${of === truth ? "along two axes" : "in a random plane"}`, x: axis, y: axis, right: 8, marks: [{ dots: points, tone: "blue", size: 2.2 }] });
  };

  // How many values lie where some 5% of the Gaussian samples do: above all but one of them, or, where both ends count,
  // outside all of them.
  function noticed(gaussian, shape, bothEnds) {
    const sorted = [...gaussian].sort((a, b) => a - b);
    return shape.filter((v) => (bothEnds ? v < sorted[0] || v > sorted.at(-1) : v > sorted.at(-2))).length;
  }

  function strip(k, test, gaussian, shape, spread) {
    const every = [...gaussian, ...shape];
    const [low, high] = [Math.min(...every), Math.max(...every)];
    const log = test !== "kurtosis";
    const range = log ? [Math.min(0.3, low), Math.max(6, high) * 1.15] : [Math.min(1.6, low - 0.1), Math.max(4.6, high + 0.2)];
    const ticks = log ? [0.1, 0.3, 1, 3, 10, 30, 100, 300] : range[1] > 8 ? [3, 6, 9, 12] : [2, 3, 4, 5, 6];
    const row = (values, at) => values.map((v, i) => [v, at + 0.28 * (spread[i] - 0.5)]);
    strips[k].draw({
      alt: `${TESTS[test].name}: ${SAMPLES} samples of ${now.law} beside ${GAUSSIANS} of a Gaussian`,
      x: { range, log, ticks, label: "" }, y: { range: [0, 2.3], ticks: [], hidden: true }, right: 10,
      marks: [
        { dots: row(gaussian, 0.35), tone: "grey", size: 2.6 },
        { dots: row(shape, 0.95), tone: "blue", size: 2.6 },
        { text: TESTS[test].name, at: [range[0], 1.75], dx: 2, tone: "text" },
      ],
    });
  }

  let run = 0;
  function start() {
    const mine = ++run;
    const settings = { ...now };
    const random = sigreg.makeRandom(settings.dim * 1009 + settings.n);
    const found = Object.fromEntries(Object.keys(TESTS).map((test) => [test, { gaussian: [], shape: [] }]));
    const spread = Array.from({ length: GAUSSIANS }, random.uniform);
    let todo = [];
    for (let k = 0; k < GAUSSIANS; k++) todo.push("gaussian", ...(k % 2 ? ["shape"] : []));
    const first = sigreg.cloud(settings.law, settings.n, settings.dim, random);
    const axis = (k) => Float64Array.from({ length: settings.dim }, (_, d) => +(d === k));
    const [u, v] = [0, 1].map(() => sigreg.randomDirections(1, settings.dim, random));
    const along = u.reduce((sum, value, d) => sum + value * v[d], 0);
    const rest = v.map((value, d) => value - along * u[d]);
    const length = Math.hypot(...rest);
    plane(truth, first, axis(0), axis(1));
    plane(shadow, first, u, rest.map((value) => value / length));
    verdict.textContent = "Counting …";
    const work = () => {
      if (mine !== run) return;
      const until = performance.now() + 24;
      while (todo.length && performance.now() < until) {
        const which = todo.shift();
        const z = which === "gaussian" ? sigreg.cloud("a Gaussian", settings.n, settings.dim, random) : sigreg.cloud(settings.law, settings.n, settings.dim, random);
        for (const [test, { of }] of Object.entries(TESTS)) found[test][which].push(of(z, settings, random));
      }
      if (todo.length) return setTimeout(work);
      Object.keys(TESTS).forEach((test, k) => strip(k, test, found[test].gaussian, found[test].shape, spread));
      const counts = Object.entries(found).map(([test, { gaussian, shape }]) => noticed(gaussian, shape, test === "kurtosis"));
      const who = settings.law === "a Gaussian" ? "Gaussian samples" : `samples of ${settings.law}`;
      verdict.textContent = `Of ${SAMPLES} ${who} (blue) so many do not pass for Gaussian (grey) at level 5%: SIGReg ${counts[0]}, radial test ${counts[1]}, kurtosis ${counts[2]}.`;
    };
    setTimeout(work);
  }
  start();
});
