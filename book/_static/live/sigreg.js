// SIGReg in the reader's browser: value and gradient as in sigreg.sliced_sigreg, in double precision, and the clouds
// that the book tries it on. No page is touched here, so the same file runs in node for the tests.

const sigreg = (() => {
  // The statistic ---------------------------------------------------------------------------------------

  function makeGrid(knots = 17, tMax = 3) {
    const step = tMax / (knots - 1);
    const t = Float64Array.from({ length: knots }, (_, k) => k * step);
    const target = t.map((s) => Math.exp((-s * s) / 2)); // the characteristic function of N(0, 1), and the weight
    const weight = target.map((g, k) => g * step * (k === 0 || k === knots - 1 ? 1 : 2)); // doubled: an even integrand
    return { step, t, target, weight };
  }
  const GRID = makeGrid();

  // Epps and Pulley's statistic of the numbers x. Real and imaginary part of their characteristic function at the knots
  // go to `real` and `imaginary`, if given; the statistic's derivative in each number goes to `slope`.
  function eppsPulley(x, { grid = GRID, real = null, imaginary = null, slope = null } = {}) {
    const { step, t, target, weight } = grid;
    const n = x.length;
    const re = real || new Float64Array(t.length);
    const im = imaginary || new Float64Array(t.length);
    re.fill(0);
    im.fill(0);
    for (let i = 0; i < n; i++) {
      const c1 = Math.cos(step * x[i]);
      const s1 = Math.sin(step * x[i]);
      for (let k = 0, c = 1, s = 0; k < t.length; k++) {
        re[k] += c;
        im[k] += s;
        const next = c * c1 - s * s1; // one knot further around the circle
        s = s * c1 + c * s1;
        c = next;
      }
    }
    let value = 0;
    for (let k = 0; k < t.length; k++) {
      re[k] /= n;
      im[k] /= n;
      value += weight[k] * ((re[k] - target[k]) ** 2 + im[k] ** 2);
    }
    if (slope) {
      const onSine = t.map((s, k) => -2 * weight[k] * s * (re[k] - target[k]));
      const onCosine = t.map((s, k) => 2 * weight[k] * s * im[k]);
      for (let i = 0; i < n; i++) {
        const c1 = Math.cos(step * x[i]);
        const s1 = Math.sin(step * x[i]);
        let sum = 0;
        for (let k = 0, c = 1, s = 0; k < t.length; k++) {
          sum += onSine[k] * s + onCosine[k] * c;
          const next = c * c1 - s * s1;
          s = s * c1 + c * s1;
          c = next;
        }
        slope[i] = sum;
      }
    }
    return n * value;
  }

  // The numbers a . z_n of codes z (N * D, row after row) on direction number m of `directions` (M * D).
  function project(z, directions, m, dim, x) {
    for (let i = 0; i < x.length; i++) {
      let sum = 0;
      for (let d = 0; d < dim; d++) sum += z[i * dim + d] * directions[m * dim + d];
      x[i] = sum;
    }
    return x;
  }

  // The mean over directions; its gradient in the codes is written to `gradient`, if given.
  function slicedSigreg(z, directions, dim, { grid = GRID, gradient = null } = {}) {
    const n = z.length / dim;
    const m = directions.length / dim;
    const x = new Float64Array(n);
    const slope = gradient && new Float64Array(n);
    gradient?.fill(0);
    let total = 0;
    for (let j = 0; j < m; j++) {
      total += eppsPulley(project(z, directions, j, dim, x), { grid, slope });
      if (!gradient) continue;
      for (let i = 0; i < n; i++) {
        for (let d = 0; d < dim; d++) gradient[i * dim + d] += (slope[i] * directions[j * dim + d]) / m;
      }
    }
    return total / m;
  }

  const nullMean = (grid = GRID) => grid.weight.reduce((sum, w, k) => sum + w * (1 - grid.target[k] ** 2), 0);

  // Chance ------------------------------------------------------------------------------------------------

  // Uniform and normal numbers from a seed: the same clouds on every machine.
  function makeRandom(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let r = Math.imul(state ^ (state >>> 15), state | 1);
      r ^= r + Math.imul(r ^ (r >>> 7), r | 61);
      return ((r ^ (r >>> 14)) >>> 0) / 2 ** 32;
    };
    let kept = null;
    const normal = () => {
      if (kept !== null) {
        const value = kept;
        kept = null;
        return value;
      }
      const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
      const angle = 2 * Math.PI * uniform();
      kept = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    };
    return { uniform, normal };
  }

  function randomDirections(m, dim, random) {
    const rows = Float64Array.from({ length: m * dim }, random.normal);
    for (let j = 0; j < m; j++) {
      const row = rows.subarray(j * dim, (j + 1) * dim);
      const length = Math.hypot(...row);
      for (let d = 0; d < dim; d++) row[d] /= length;
    }
    return rows;
  }

  // Laws with mean 0; all but the collapsed ones have covariance I. Cube, heavy tails and two clusters are those of the
  // power study in Chapter 4.
  const LAWS = {
    "a Gaussian": (row, { normal }) => row.forEach((_, d) => (row[d] = normal())),
    "a sphere": (row, { normal }) => {
      row.forEach((_, d) => (row[d] = normal()));
      const length = Math.hypot(...row);
      row.forEach((_, d) => (row[d] *= Math.sqrt(row.length) / length));
    },
    "two clusters": (row, { uniform, normal }) => {
      row.forEach((_, d) => (row[d] = normal()));
      row[0] = (uniform() < 0.5 ? -0.95 : 0.95) + Math.sqrt(1 - 0.95 ** 2) * row[0];
    },
    "a cube": (row, { uniform }) => row.forEach((_, d) => (row[d] = Math.sqrt(3) * (2 * uniform() - 1))),
    "heavy tails": (row, { normal }) => {
      let chi2 = 0;
      for (let k = 0; k < 5; k++) chi2 += normal() ** 2;
      row.forEach((_, d) => (row[d] = normal() * Math.sqrt(3 / chi2)));
    },
    "one direction lost": (row, { normal }) => row.forEach((_, d) => (row[d] = d ? normal() : 0)),
    "all collapsed": (row, { normal }) => row.forEach((_, d) => (row[d] = 0.05 * normal())),
  };

  function cloud(law, n, dim, random) {
    const z = new Float64Array(n * dim);
    for (let i = 0; i < n; i++) LAWS[law](z.subarray(i * dim, (i + 1) * dim), random);
    return z;
  }

  // What slices do not show -----------------------------------------------------------------------------------

  // The mean kurtosis E x^4 / (E x^2)^2 of the coordinates that are not all 0: 3 for a Gaussian, 1.8 for a cube.
  function kurtosis(z, dim) {
    let sum = 0;
    let living = 0;
    for (let d = 0; d < dim; d++) {
      let two = 0;
      let four = 0;
      for (let i = d; i < z.length; i += dim) {
        const square = z[i] * z[i];
        two += square;
        four += square * square;
      }
      if (!two) continue;
      living += 1;
      sum += ((four / two / two) * z.length) / dim;
    }
    return sum / living;
  }

  // The lengths |z| against the law they would have: sigreg.radial_sigreg.
  function radialSigreg(z, dim, grid = GRID) {
    const n = z.length / dim;
    const x = new Float64Array(n);
    for (let i = 0; i < n; i++) x[i] = Math.SQRT2 * (Math.hypot(...z.subarray(i * dim, (i + 1) * dim)) - Math.sqrt(dim - 0.5));
    const real = new Float64Array(grid.t.length);
    const imaginary = new Float64Array(grid.t.length);
    eppsPulley(x, { grid, real, imaginary });
    const law = radiusLaw(dim, grid);
    return n * grid.weight.reduce((sum, w, k) => sum + w * ((real[k] - law.real[k]) ** 2 + (imaginary[k] - law.imaginary[k]) ** 2), 0);
  }

  // The characteristic function of x for a Gaussian code, by the substitution r = exp(u - exp(-u)): the integrand then
  // vanishes at both ends so fast that plain sums are exact to rounding.
  const radii = new Map();
  function radiusLaw(dim, grid) {
    if (grid === GRID && radii.has(dim)) return radii.get(dim);
    const nodes = 2000;
    const low = -3.7;
    const high = Math.log(Math.sqrt(dim) + 10);
    const top = ((dim - 1) * Math.log(Math.max(dim - 1, 1)) - (dim - 1)) / 2; // about the largest logarithm of the density
    const real = new Float64Array(grid.t.length);
    const imaginary = new Float64Array(grid.t.length);
    let mass = 0;
    for (let j = 0; j < nodes; j++) {
      const u = low + ((high - low) * j) / (nodes - 1);
      const logR = u - Math.exp(-u);
      const density = Math.exp(dim * logR - Math.exp(2 * logR) / 2 - top) * (1 + Math.exp(-u));
      const x = Math.SQRT2 * (Math.exp(logR) - Math.sqrt(dim - 0.5));
      mass += density;
      for (let k = 0; k < grid.t.length; k++) {
        real[k] += density * Math.cos(grid.t[k] * x);
        imaginary[k] += density * Math.sin(grid.t[k] * x);
      }
    }
    const law = { real: real.map((v) => v / mass), imaginary: imaginary.map((v) => v / mass) };
    if (grid === GRID) radii.set(dim, law);
    return law;
  }

  return { makeGrid, GRID, eppsPulley, project, slicedSigreg, nullMean, makeRandom, randomDirections, LAWS, cloud, kurtosis, radialSigreg };
})();

if (typeof module !== "undefined") module.exports = sigreg;
