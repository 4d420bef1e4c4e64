// Figures that the reader moves over a stored grid. The grids are made by book/_tools/live.py from the package and the
// records; nothing is computed here but which row to show.

const percent = (share) => `${Math.round(100 * share)}%`;

// Chapter 1: words on the simplex and the point on the information curve, for each price beta ---------------------

live.figure("fig-information-curve", (box, { spiral, total, codes }) => {
  const { make, slider, chart, says } = live;
  const [plane, curve] = [chart({ square: true }), chart({ height: 300 })];
  const verdict = says();
  const last = codes.at(-1);
  const first = codes.reduce((best, code) => (Math.abs(code.beta - 4) < Math.abs(best.beta - 4) ? code : best));
  const births = codes.flatMap((code, k) => (k && code.words.length > codes[k - 1].words.length ? [[code.rate, code.relevance]] : []));
  const control = slider({ label: "Price β", values: codes.map((code) => code.beta), value: first.beta, show: (v) => v.toFixed(1), on: show });
  box.append(control, make("div", { class: "live-row" }, plane.box, curve.box), verdict);

  function show(beta) {
    const code = codes.find((each) => each.beta === beta);
    const count = code.words.length;
    plane.draw({
      alt: `Triangle of forecasts with a spiral of inputs and ${count} words as discs`,
      x: { range: [-0.06, 1.06], hidden: true }, y: { range: [-0.12, 1], hidden: true }, right: 8,
      marks: [
        { line: [[0, 0], [1, 0], [0.5, Math.sqrt(3) / 2], [0, 0]], tone: "grey", faint: true },
        { dots: spiral, tone: "grey", size: 2.5 },
        { dots: code.words.map(([x, y, share]) => [x, y, 3 + 22 * Math.sqrt(share)]), tone: "blue", faint: true },
        { dots: code.words, tone: "blue", size: 3.5, fixed: true },
      ],
    });
    const reach = 0.35;
    const slope = 1 / code.beta;
    curve.draw({
      alt: `Information curve with a tangent of slope one over ${code.beta.toFixed(1)} at rate ${code.rate.toFixed(2)}`,
      x: { range: [0, last.rate * 1.03], ticks: [0, 0.5, 1, 1.5, 2, 2.5, 3], label: "rate I(X;W) [nats]" },
      y: { range: [0, total * 1.08], ticks: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], label: "relevance I(W;Y) [nats]" },
      right: 14,
      marks: [
        { across: total, tone: "grey", dashed: true },
        { line: [[0, 0], ...codes.map((each) => [each.rate, each.relevance])], tone: "blue" },
        { dots: births, tone: "blue", size: 3 },
        { line: [-1, 1].map((side) => [code.rate + side * reach, code.relevance + side * reach * slope]).filter(([x]) => x > -reach), tone: "amber" },
        { dots: [[code.rate, code.relevance]], tone: "amber", size: 6 },
      ],
    });
    verdict.textContent =
      count === 1 ? `One word: at β = ${code.beta.toFixed(1)} nothing is worth its rate.`
      : `${count} words; ${code.rate.toFixed(2)} nats of rate keep ${percent(code.relevance / total)} of what can be known. Small dots: a word is born.`;
  }
  show(first.beta);
}, "Soft clusters and the information curve of the spiral. Discs are words, their area is their weight. At each code the tangent has slope 1/β.");

// Chapter 3: estimates of a known rate against batch and dimension ---------------------------------------------------------

live.figure("fig-estimates", (box, { batches, dims, sigmas, rates }) => {
  const { make, slider, choices, chart, says } = live;
  const now = { axis: "batch", dim: 2, batch: 64, sigma: 0.1 };
  const axes = { "batch B": "batch", "dimension D": "dim" };
  const set = (name) => (v) => {
    now[name] = v;
    show();
  };
  const plot = chart({ height: 320 });
  const verdict = says();
  const sliders = {
    dim: slider({ label: "Dimension D", values: dims, value: now.dim, on: set("dim") }),
    batch: slider({ label: "Batch B", values: batches, value: now.batch, on: set("batch") }),
  };
  box.append(
    choices({ label: "Against", options: Object.keys(axes), value: "batch B", on: (name) => set("axis")(axes[name]) }),
    make("div", { class: "live-sliders" }, sliders.dim, sliders.batch,
      slider({ label: "Noise σ", values: sigmas, value: now.sigma, on: set("sigma") })),
    plot.box, verdict,
  );
  const truth = (dim) => (dim / 2) * Math.log1p(now.sigma ** -2);
  // The part of a curve that lies below the top of the picture, up to the top.
  const below = (points, top) => points.flatMap(([x, y], k) => {
    const [a, b] = k ? points[k - 1] : [x, y];
    const crossing = [a * (x / a) ** ((top - b) / (y - b)), top];
    return (y > top) === (b > top) ? (y > top ? [] : [[x, y]]) : y > top ? [crossing] : [crossing, [x, y]];
  });
  function show() {
    const byBatch = now.axis === "batch";
    const here = rates[now.sigma];
    const at = (name) => here[now.dim][name][batches.indexOf(now.batch)];
    const along = byBatch ? batches : dims;
    const share = (dim) => (byBatch ? 1 : truth(dim)); // against dimension all is shown as a share of the truth
    const read = (name) => along.map((v, k) => [v, byBatch ? here[now.dim][name][k] : here[v][name][batches.indexOf(now.batch)] / share(v)]);
    const top = 2.2 * (byBatch ? truth(now.dim) : 1);
    const step = [0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100].find((width) => top / width <= 6);
    const curves = [
      { points: along.map((v) => [v, byBatch ? Math.log(v) : Math.log(now.batch) / share(v)]), label: "log B", tone: "grey", dashed: true },
      { points: along.map((v) => [v, byBatch ? truth(now.dim) : 1]), label: "truth", tone: "grey" },
      { points: read("closed"), tone: "green", dashed: true },
      { points: read("defensive"), label: "defensive", tone: "green" },
      { points: read("left_out"), label: "left out", tone: "amber" },
      { points: read("own"), label: "own sample", tone: "blue" },
    ].map(({ points, ...look }) => ({ line: below(points, top), ...look }));
    plot.draw({
      alt: `Four estimates of a known rate against ${byBatch ? "the batch size" : "the dimension"}; at B = ${now.batch}, D = ${now.dim} and σ = ${now.sigma} the own-sample estimate reads ${at("own").toPrecision(3)} nats of ${truth(now.dim).toPrecision(3)}`,
      x: { range: [along[0], along.at(-1)], log: true, ticks: along, label: byBatch ? "batch size B" : "dimension D" },
      y: { range: [0, top], ticks: Array.from({ length: Math.floor(top / step) + 1 }, (_, k) => +(k * step).toFixed(2)), label: byBatch ? "estimate [nats]" : "estimate / truth" },
      right: 92,
      marks: [{ along: now[now.axis], tone: "grey", faint: true }, ...curves.filter((curve) => curve.line.length)],
    });
    const nats = (v) => (v < 1000 ? v.toPrecision(3) : Math.round(v));
    verdict.textContent =
      `B = ${now.batch}, D = ${now.dim}, σ = ${now.sigma}: the truth is ${nats(truth(now.dim))} nats. With its own sample in, an estimate reads ${nats(at("own"))}, ` +
      `under a ceiling of ${nats(Math.log(now.batch))}; left out, ${nats(at("left_out"))}; defensive, ${nats(at("defensive"))}.`;
  }
  show();
}, "Estimates of a known rate. With the own sample in they stay under log B, left out they come from far above; the defensive one (its closed form dashed) keeps to the truth. The faint line is the setting that the words under the picture read.");

// Chapter 4: what each test of normality notices ----------------------------------------------------------------------

live.figure("fig-power", (box, { dims, sizes, slices, rates }) => {
  const { make, slider, choices, chart, says } = live;
  const laws = Object.keys(rates);
  const now = { law: "cube", n: 256, m: 64 };
  const set = (name) => (v) => {
    now[name] = v;
    show();
  };
  const plot = chart({ height: 320 });
  const verdict = says();
  box.append(
    choices({ label: "The codes", options: laws, value: now.law, on: set("law") }),
    make("div", { class: "live-sliders" },
      slider({ label: "Batch N", values: sizes, value: now.n, on: set("n") }),
      slider({ label: "Slices M", values: slices, value: now.m, on: set("m") })),
    plot.box, verdict,
  );
  function show() {
    const here = rates[now.law][now.n];
    const line = (test, label, tone, more = {}) => ({ line: dims.map((dim, k) => [dim, here[test][k]]), label, tone, ...more });
    plot.draw({
      alt: `Rejection rate of five tests against dimension for ${now.law}, ${now.n} codes, ${now.m} slices`,
      x: { range: [dims[0], dims.at(-1)], log: true, ticks: dims, label: "dimension D" },
      y: { range: [-0.02, 1.02], ticks: [0, 0.25, 0.5, 0.75, 1], show: percent, label: "samples noticed" },
      marks: [
        { across: 0.05, tone: "grey", dashed: true },
        line("moments", "moments", "teal"), line("energy", "energy", "amber"), line("henze_zirkler", "Henze–Zirkler", "violet"),
        line(`max_${now.m}`, "largest slice", "blue", { dashed: true }), line(`mean_${now.m}`, "SIGReg", "blue"),
      ],
    });
    const seen = dims.filter((dim, k) => here[`mean_${now.m}`][k] >= 0.5);
    const lost = dims.filter((dim, k) => here[`mean_${now.m}`][k] < 0.1);
    verdict.textContent =
      `${now.m} slices of ${now.n} codes notice this in at least half of the samples ${seen.length === dims.length ? "at every D" : seen.length ? `for D = ${seen.join(", ")}` : "at no D"}` +
      (lost.length ? `, and hardly more often than chance (5%) for D = ${lost.join(", ")}.` : ".");
  }
  show();
}, "How often a test at level 5% (dashed) notices that codes are not Gaussian. Where a curve lies on the dashed line, the test cannot tell them from a Gaussian.");

// Chapter 6: which directions SIGReg fills -------------------------------------------------------------------------------

live.figure("fig-water", (box, { share, weights, kept, per_weight }) => {
  const { make, slider, chart, says } = live;
  const plot = chart({ height: 300 });
  const verdict = says();
  const control = slider({ label: "Weight q*", values: weights, value: weights[20], show: (v) => v.toFixed(2), on: show });
  box.append(control, plot.box, verdict);
  function show(weight) {
    const row = kept[weights.indexOf(weight)];
    const dead = row.filter((v) => v < 1e-6).length;
    plot.draw({
      alt: `Variance kept by sixteen directions against their unshared part; ${dead} are empty`,
      x: { range: [0, 1], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], label: "unshared part q of the input" },
      y: { range: [-0.1, 3.4], ticks: [0, 1, 2, 3], label: "variance kept" },
      right: 14,
      marks: [
        { across: 1, tone: "grey", dashed: true },
        { line: share.map((q, k) => [q, row[k]]), tone: "blue" },
        { dots: share.map((q, k) => [q, row[k]]).filter(([, v]) => v >= 1e-6), tone: "blue", size: 5 },
        { dots: share.map((q, k) => [q, row[k]]).filter(([, v]) => v < 1e-6), tone: "red", size: 5 },
      ],
    });
    const lambda = (weight * per_weight) / 256;
    verdict.textContent =
      `At batches of 256 and σ = 1 this is λ = ${lambda.toPrecision(2)}. ` +
      (dead === 0 ? "All 16 directions live." : dead === row.length ? "All have collapsed." : `${dead} of 16 directions ${dead > 1 ? "are" : "is"} empty, the least predictable first; the missing variance lifts the others.`);
  }
  show(weights[20]);
}, "Variance that each of 16 inputs keeps in the code against its unshared part, by Proposition 6.7. Red: empty directions.");

// Chapter 8: stop-gradient, predictor, regularizer -----------------------------------------------------------------------------

live.figure("fig-cube", (box, { steps, seeds, names, cells }) => {
  const { make, choices, chart, says } = live;
  const now = { on: ["stop-gradient"], reading: "spread" };
  const plot = chart({ height: 300 });
  const verdict = says();
  box.append(
    choices({ label: "Beside the prediction loss", options: ["stop-gradient", "predictor", "regularizer"], value: now.on, several: true, on: (on) => {
      now.on = on;
      show();
    } }),
    choices({ label: "Reading", options: Object.values(names), value: names.spread, on: (name) => {
      now.reading = Object.keys(names).find((key) => names[key] === name);
      show();
    } }),
    plot.box, verdict,
  );
  function show() {
    const wanted = { stop_gradient: now.on.includes("stop-gradient"), predictor: now.on.includes("predictor"), regularizer: now.on.includes("regularizer") };
    const chosen = cells.find((cell) => Object.entries(wanted).every(([name, on]) => cell[name] === on));
    const points = (cell) => cell[now.reading].map((v, k) => [((k + 0.5) * steps) / cell[now.reading].length, v]);
    const top = Math.max(...cells.flatMap((cell) => cell[now.reading]));
    const step = top > 20 ? 10 : top > 4 ? 2 : top > 2 ? 1 : 0.5;
    const gone = chosen.spread.at(-1) < 0.5;
    plot.draw({
      alt: `${names[now.reading]} against training steps for eight combinations; ${chosen.cell} is marked`,
      x: { range: [0, steps], ticks: [0, steps / 4, steps / 2, (3 * steps) / 4, steps], label: "steps" },
      y: { range: [0, top * 1.06], ticks: Array.from({ length: Math.floor(top / step + 0.01) + 1 }, (_, k) => k * step), label: names[now.reading] },
      right: 14,
      marks: [
        ...cells.filter((cell) => cell !== chosen).map((cell) => ({ line: points(cell), tone: "grey", faint: true })),
        { line: points(chosen), tone: gone ? "red" : "green" },
      ],
    });
    verdict.textContent = `${chosen.cell[0].toUpperCase()}${chosen.cell.slice(1)}: spread ${chosen.spread.at(-1).toFixed(2)} at the end, ${gone ? "collapsed" : "alive"}; linear probe ${chosen.probe.toFixed(1)}%. Means over ${seeds} seeds.`;
  }
  show();
}, "The cube on FashionMNIST: the chosen combination in colour, green if its codes stay spread and red if they collapse; the other seven in grey.");
