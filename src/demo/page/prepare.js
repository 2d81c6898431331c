"use strict";
// A drawing or a picture becomes an image like MNIST's, step by step as in digits.py.

const MIN_CONTRAST = 0.1;  // between ink and paper, as a fraction of the range from black to white

// Scale the ink to 20 x 20 pixels and centre its mass in 28 x 28. `ink` holds width x height values from 0 to 1. Returns null if
// there is none, else the 784 pixels, and what was done: the box of the ink, its new size and where it was placed.
function normalizeSize(ink, width, height) {
  let top = height, bottom = -1, left = width, right = -1;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (ink[y * width + x] > 0) {
        top = Math.min(top, y); bottom = Math.max(bottom, y); left = Math.min(left, x); right = Math.max(right, x);
      }
  if (bottom < 0) return null;
  const w = right - left + 1, h = bottom - top + 1, longest = Math.max(w, h);
  const box = new Float32Array(w * h);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) box[y * w + x] = ink[(top + y) * width + left + x];
  const columns = Math.max(1, roundHalfToEven(20 * w / longest)), rows = Math.max(1, roundHalfToEven(20 * h / longest));
  const small = resize(resize(box, w, h, columns, longest > 20), h, columns, rows, longest > 20);  // each call transposes
  const highest = small.reduce((most, value) => Math.max(most, value), 0);
  let mass = 0, massX = 0, massY = 0;
  small.forEach((value, k) => { mass += value; massX += value * (k % columns); massY += value * Math.floor(k / columns); });
  const x0 = Math.min(Math.max(roundHalfToEven(14 - massX / mass), 0), 28 - columns);
  const y0 = Math.min(Math.max(roundHalfToEven(14 - massY / mass), 0), 28 - rows);
  const pixels = new Float32Array(784);
  small.forEach((value, k) => { pixels[(y0 + Math.floor(k / columns)) * 28 + x0 + k % columns] = value / highest; });
  return {pixels, box: {left, top, width: w, height: h}, size: {width: columns, height: rows}, place: {x: x0, y: y0}};
}

function roundHalfToEven(value) {  // as Python does
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + floor % 2 : Math.round(value);
}

// Resize the rows of an image, and transpose it. With the box filter, a pixel is the mean of those that it covers; else linear.
// The weights are those of Pillow.
function resize(data, width, height, size, box) {
  const scale = width / size, stretch = Math.max(scale, 1), support = (box ? 0.5 : 1) * stretch;
  const output = new Float32Array(height * size);
  for (let x = 0; x < size; x++) {
    const centre = (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5)), last = Math.min(width, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let k = first; k < last; k++) {
      const distance = (k + 0.5 - centre) / stretch;
      weights.push(box ? Number(distance > -0.5 && distance <= 0.5) : Math.max(0, 1 - Math.abs(distance)));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let y = 0; y < height; y++) {
      let value = 0;
      for (let k = first; k < last; k++) value += weights[k - first] * data[y * width + k];
      output[x * height + y] = value / total;
    }
  }
  return output;
}

function median(values) {
  const sorted = Float64Array.from(values).sort(), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function percentile(values, percent) {
  const sorted = Float64Array.from(values).sort(), position = (sorted.length - 1) * percent / 100, floor = Math.floor(position);
  return sorted[floor] + (position - floor) * (sorted[Math.min(floor + 1, sorted.length - 1)] - sorted[floor]);
}

// The ink in a picture, from 0 to 1: what stands out from the paper, a quadratic surface through most of its pixels.
// `grey` holds width x height values from 0, black, to 1, white.
function findInk(grey, width, height) {
  const terms = Array.from(grey, (_, k) => {
    const x = width > 1 ? 2 * (k % width) / (width - 1) - 1 : -1, y = height > 1 ? 2 * Math.floor(k / width) / (height - 1) - 1 : -1;
    return [1, x, y, x * y, x * x, y * y];
  });
  let paper = new Float64Array(grey.length).fill(median(grey)), near = null;
  for (let round = 0; round < 5; round++) {
    const distances = Array.from(grey, (value, k) => Math.abs(value - paper[k]));
    const limit = Math.max(2 * median(distances), MIN_CONTRAST / 2);
    near = distances.map(distance => distance <= limit);
    const surface = fit(terms.filter((_, k) => near[k]), Array.from(grey).filter((_, k) => near[k]));
    paper = terms.map(term => term.reduce((sum, value, i) => sum + value * surface[i], 0));
  }
  const differences = Array.from(grey, (value, k) => value - paper[k]);
  if (differences.reduce((sum, value) => sum + value, 0) <= 0)  // dark ink
    differences.forEach((value, k) => { differences[k] = -value; });
  const strongest = differences.length > 400 ? percentile(differences, 99.5) : Math.max(...differences);
  if (strongest < MIN_CONTRAST) return new Float32Array(grey.length);
  const noise = differences.reduce((sum, value, k) => near[k] ? sum + Math.abs(value) : sum, 0) / near.filter(Boolean).length;
  const lowest = Math.max(0.05, Math.min(0.4, 6 * noise / strongest));
  const ink = Float32Array.from(differences, value => { const part = Math.min(value / strongest, 1); return part < lowest ? 0 : part; });
  return Math.min(width, height) > 60 ? removeSpecks(ink, width, height) : ink;
}

// The coefficients of the least-squares fit, by Gaussian elimination of the normal equations.
function fit(terms, values) {
  const size = terms[0].length, rows = Array.from({length: size}, () => new Float64Array(size + 1));
  terms.forEach((term, k) => {
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) rows[i][j] += term[i] * term[j];
      rows[i][size] += term[i] * values[k];
    }
  });
  for (let i = 0; i < size; i++) {
    rows[i][i] += 1e-9;  // an image of one row or column leaves some terms undetermined
    for (let j = 0; j < size; j++) {
      if (j === i) continue;
      const factor = rows[j][i] / rows[i][i];
      for (let k = i; k <= size; k++) rows[j][k] -= factor * rows[i][k];
    }
  }
  return rows.map((row, i) => row[size] / row[i]);
}

// Remove pixels in whose neighbourhood the median is paper.
function removeSpecks(ink, width, height) {
  const window = (data, pick) => data.map((_, k) => {
    const values = [];
    for (let dy = -2; dy <= 2; dy++)
      for (let dx = -2; dx <= 2; dx++) {
        const y = Math.min(Math.max(Math.floor(k / width) + dy, 0), height - 1), x = Math.min(Math.max(k % width + dx, 0), width - 1);
        values.push(data[y * width + x]);
      }
    return pick(values);
  });
  const filtered = window(ink.map(value => Math.floor(255 * value)), values => values.sort((a, b) => a - b)[12]);
  if (!filtered.some(Boolean)) return ink;
  const kept = window(filtered, values => Math.max(...values));
  return ink.map((value, k) => kept[k] > 0 ? value : 0);
}
