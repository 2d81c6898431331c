"use strict";
// A drawing or a picture becomes an image like MNIST's, step for step and name for name as in ink.py and digits.py. An image is an
// array of width x height values, row by row.

const MAX_SIZE = 256;       // pixels: larger images are reduced first, by a whole factor
const MIN_CONTRAST = 0.06;  // between ink and paper, as a fraction of the range from black to white
const SMALL = 60;           // pixels: such images may be cropped to their ink, and show neither rules nor noise
const THIN = 0.03;          // of the square around the digit: the ink of a very thin pen
const PART = 0.3;           // of the strongest ink: the lowest contrast of a part of the digit
const STROKE = 2;           // pixels of 20, about as wide as most strokes of MNIST
const LUMINANCE = [0.299, 0.587, 0.114];

// The digit in a picture: its 784 pixels, its box in the picture, the reasons for doubt; null if there is none.
function readDigit(colours, width, height) {
  const grey = chooseChannel(colours);
  const [ink, doubts] = findInk(grey, width, height);
  return normalizeInk(ink, width, height, doubts);
}

// The same from ink, from 0 to 1, such as a drawing's.
function normalizeInk(ink, width, height, doubts = []) {
  if (highest(ink) <= PART) return null;  // empty, or what an eraser left over
  const box = findBox(ink, width, height);
  if (sum(ink) < THIN * Math.max(box.width, box.height) ** 2) doubts.push("very thin");
  const [wide, ...size] = widenStrokes(crop(ink, width, box), box.width, box.height);
  return {pixels: normalizeSize(wide, ...size), box, doubts};
}

// Red, green, blue and alpha from 0 to 1, the colours multiplied by alpha, from `data` with all four from 0 to 255: each the mean of
// factor x factor pixels. Returns four arrays of columns x rows values.
function reduceImage(data, width, height, factor) {
  const columns = Math.ceil(width / factor), rows = Math.ceil(height / factor);
  const [red, green, blue, alpha, count] = Array.from({length: 5}, () => new Float32Array(columns * rows));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const from = 4 * (y * width + x), to = Math.floor(y / factor) * columns + Math.floor(x / factor), part = data[from + 3] / 255;
      red[to] += data[from] * part;
      green[to] += data[from + 1] * part;
      blue[to] += data[from + 2] * part;
      alpha[to] += data[from + 3];
      count[to]++;
    }
  return [red, green, blue, alpha].map(channel => channel.map((value, k) => value / count[k] / 255));
}

// A transparent background becomes white behind dark strokes, black behind light ones.
function fillTransparent([red, green, blue, alpha]) {
  const paper = sum(luminance([red, green, blue])) > 0.5 * sum(alpha) ? 0 : 1;
  return [red, green, blue].map(channel => channel.map((value, k) => value + paper * (1 - alpha[k])));
}

const luminance = colours => colours[0].map((_, k) => LUMINANCE.reduce((total, part, i) => total + part * colours[i][k], 0));

// The luminance, unless red, green or blue varies much more: yellow on light blue.
function chooseChannel(colours) {
  const channels = [luminance(colours), ...colours], spreads = channels.map(deviation);
  const best = spreads.indexOf(Math.max(...spreads));
  return channels[spreads[best] > 1.5 * spreads[0] ? best : 0];
}

// The ink in each pixel, from 0 to 1, and the reasons for doubt; all 0 if there is no digit.
function findInk(grey, width, height) {
  const large = Math.max(width, height) > SMALL;
  if (!isPaperLight(grey, width, height)) grey = grey.map(value => 1 - value);
  let ink = findPaper(grey, width, height).map((value, k) => value - grey[k]);
  // First inside, where neither a frame nor the edge of the sheet is. Without ink, everywhere.
  const x = Math.floor(width / 8), y = Math.floor(height / 8);
  let strongest = percentile(crop(ink, width, {left: x, top: y, width: width - 2 * x, height: height - 2 * y}), 99.9);
  if (strongest < MIN_CONTRAST) strongest = percentile(ink, 99.9);
  const noise = percentile(ink, 50);  // of the paper: the closing finds its lightest grey
  const nothing = [new Float32Array(ink.length), []];
  if (strongest < MIN_CONTRAST || large && noise > strongest / 3 && noise < 2 * strongest / 3) return nothing;
  const lowest = Math.max(PART * strongest, Math.min(3 * noise, 0.4 * strongest));
  if (large) {
    const faint = (noise + lowest) / 2;
    ink = removeRules(ink, width, height, faint);
    ink = transpose(removeRules(transpose(ink, width, height), height, width, faint), height, width);
  }
  const mask = ink.map(value => Number(value > lowest));
  if (!mask.includes(1)) return nothing;
  const [parts, doubts] = chooseParts(mask, ink, width, height);
  if (strongest < 0.15) doubts.push("low contrast");
  const near = maximumFilter(parts, width, height, 3);  // with the soft edges of the strokes
  return [ink.map((value, k) => near[k] && value > 0.05 * strongest ? Math.min(value / strongest, 1) : 0), doubts];
}

// The side of a window wider than any stroke: an odd number of pixels, about a third of the longer side.
const windowSize = (width, height) => Math.floor(Math.max(width, height) / 6) * 2 + 3;

// Whether the pixels are mostly nearer to the lightest than to the darkest around them. Pixels at the border, without the outermost
// ones (a frame), count for those beyond it: in an image that is cropped to its ink, the corners are paper.
function isPaperLight(grey, width, height) {
  const window = windowSize(width, height);
  const x = Math.floor(width / 24), y = Math.floor(height / 24), box = {left: x, top: y, width: width - 2 * x, height: height - 2 * y};
  const margin = pad(crop(grey, width, box), box.width, box.height, window);
  const wide = box.width + 2 * window, high = box.height + 2 * window;
  const light = maximumFilter(margin, wide, high, window), dark = minimumFilter(margin, wide, high, window);
  return sum(margin.map((value, k) => (2 * value - light[k] - dark[k]) * (light[k] - dark[k]))) >= 0;
}

// The grey of the paper in each pixel. A closing fills all that is narrower than a window. A shadow or a sheet, which are wider, belong
// to the paper, with sharp edges.
function findPaper(grey, width, height) {
  const window = windowSize(width, height), wide = width + 2 * window, high = height + 2 * window;
  const inside = {left: window, top: window, width, height};
  let beyond = pad(grey, width, height, window, highest(grey));
  if (Math.max(width, height) > SMALL) {
    // Beyond the picture the paper goes on, in the light or the shadow at the border.
    beyond = pad(closing(grey, width, height, window), width, height, window);
    paste(beyond, wide, grey, inside);
  }
  return crop(closing(beyond, wide, high, window), wide, inside);
}

// Remove the horizontal lines of ruled or squared paper, but not the strokes that cross them. A rule is straight, has more than the
// lowest ink, and reaches from the left border to the right.
function removeRules(ink, width, height, lowest) {
  const wide = maximumFilter(ink.map(value => Number(value > lowest)), width, height, 1, 5);  // a rule may be a little tilted
  const labels = label(opening(wide, width, height, Math.floor(width / 4) * 2 + 1, 1), width, height);
  const rules = findParts(labels, width, height).map(part => {
    const reaches = part.left <= 0.02 * width && part.right >= 0.98 * width;
    const cropped = part.top === 0 || part.bottom === height;  // such as the top of a 7
    return reaches && !cropped;
  });
  const thickness = Math.floor(Math.max(width, height) / 80) * 2 + 1;  // pixels: more than a rule's, less than a stroke's
  const opened = opening(ink, width, height, 1, thickness);
  return ink.map((value, k) => labels[k] && rules[labels[k] - 1] ? opened[k] : value);
}

// The parts of the mask that make up the digit, and the reasons for doubt. That is the part which extends furthest; the extent of one
// that touches the border counts a fifth, and of one that lies along it a fiftieth: a shadow or a neighbour gives way to a digit.
// Others with a twentieth of its ink are added, unless they touch the border.
function chooseParts(mask, ink, width, height) {
  const reach = Math.max(width, height) > SMALL ? 3 : 1;  // closes the gaps of a broken stroke
  const labels = label(maximumFilter(mask, width, height, reach), width, height).map((value, k) => value * mask[k]);
  const parts = findParts(labels, width, height), mass = new Float64Array(parts.length);
  labels.forEach((value, k) => { if (value) mass[value - 1] += ink[k]; });
  const x = Math.floor(width / 32), y = Math.floor(height / 32);
  const touching = parts.map(p => Math.min(p.left - x, p.top - y, width - x - p.right, height - y - p.bottom) <= 0);
  const scores = parts.map((part, k) => {
    const extent = Math.max(part.right - part.left, part.bottom - part.top);
    // A frame or a desk lies along the border; a digit that is cut off crosses it.
    return extent * (part.contact > 0.8 * extent ? 0.02 : touching[k] ? 0.2 : 1);
  });
  const main = scores.indexOf(Math.max(...scores));
  const chosen = parts.map((_, k) => k === main || mass[k] >= mass[main] / 20 && !touching[k]);
  const reasons = {"touches the border": touching[main], "several parts": chosen.filter(Boolean).length > 1};
  return [labels.map(value => Number(value > 0 && chosen[value - 1])), Object.keys(reasons).filter(name => reasons[name])];
}

// Widen strokes that would be thinner than MNIST's after scaling. Their width is twice their area, divided by the length of their
// outline. Returns the ink with a margin of the added width, its width and its height.
function widenStrokes(ink, width, height) {
  const wide = width + 2, mask = pad(ink.map(value => Number(value > PART)), width, height, 1, 0);
  let outline = 0;
  for (let y = 1; y < height + 2; y++)
    for (let x = 1; x < wide; x++) {
      const k = y * wide + x, down = mask[k] - mask[k - wide], right = mask[k] - mask[k - 1];
      outline += Math.sqrt(down * down + right * right);
    }
  const radius = roundHalfToEven((STROKE * Math.max(width, height) / 20 - 2 * sum(mask) / outline) / 2);
  if (radius <= 0) return [ink, width, height];
  const size = [width + 2 * radius, height + 2 * radius];
  return [maximumFilter(pad(ink, width, height, radius, 0), ...size, 2 * radius + 1), ...size];
}

// Scale the ink to fit 20 x 20 pixels; centre its mass at pixel (14, 14), from 0, of 28 x 28.
function normalizeSize(ink, width, height) {
  const longest = Math.max(width, height), box = longest > 20;
  const columns = Math.max(1, roundHalfToEven(20 * width / longest)), rows = Math.max(1, roundHalfToEven(20 * height / longest));
  const small = resize(resize(ink, width, height, columns, box), height, columns, rows, box);  // each call transposes
  const most = highest(small), mass = sum(small);
  const centreX = sum(small.map((value, k) => value * (k % columns))) / mass;
  const centreY = sum(small.map((value, k) => value * Math.floor(k / columns))) / mass;
  const [left, top] = [[centreX, columns], [centreY, rows]].map(([centre, length]) => {
    const start = Math.round(1000 * (14 - centre)) / 1000;  // so that rounding errors do not decide a tie
    return Math.min(Math.max(roundHalfToEven(start), 0), 28 - length);
  });
  const pixels = new Float32Array(784);
  small.forEach((value, k) => { pixels[(top + Math.floor(k / columns)) * 28 + left + k % columns] = value / most; });
  return pixels;
}

// ---- what NumPy, SciPy and Pillow do in Python

// Plain loops: `reduce` of a typed array makes an object of every sum.
function sum(values) {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

function highest(values) {
  let most = -Infinity;
  for (const value of values) if (value > most) most = value;
  return most;
}

function deviation(values) {
  const mean = sum(values) / values.length;
  return Math.sqrt(values.reduce((total, value) => total + (value - mean) ** 2, 0) / values.length);
}

function percentile(values, percent) {
  const sorted = Float64Array.from(values).sort(), position = (sorted.length - 1) * percent / 100, floor = Math.floor(position);
  return sorted[floor] + (position - floor) * (sorted[Math.min(floor + 1, sorted.length - 1)] - sorted[floor]);
}

// The box around all values above 0, of which there is at least one.
function findBox(values, width, height) {
  let top = height, bottom = -1, left = width, right = -1;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] <= 0) continue;
      if (y < top) top = y;
      bottom = y;
      if (x < left) left = x;
      if (x > right) right = x;
    }
  return {left, top, width: right - left + 1, height: bottom - top + 1};
}

// The box of each numbered part, and how many of its pixels are on each side of the border, in all.
function findParts(labels, width, height) {
  const parts = [];
  labels.forEach((value, k) => {
    if (!value) return;
    const part = parts[value - 1] ??= {left: width, top: height, right: 0, bottom: 0, contact: 0};
    const x = k % width, y = Math.floor(k / width);
    part.left = Math.min(part.left, x); part.right = Math.max(part.right, x + 1);
    part.top = Math.min(part.top, y); part.bottom = Math.max(part.bottom, y + 1);
    part.contact += (x === 0) + (x === width - 1) + (y === 0) + (y === height - 1);
  });
  return parts;
}

function crop(data, width, box) {
  const output = new Float32Array(box.width * box.height);
  for (let y = 0; y < box.height; y++)
    output.set(data.subarray((box.top + y) * width + box.left, (box.top + y) * width + box.left + box.width), y * box.width);
  return output;
}

function paste(data, width, inner, box) {
  for (let y = 0; y < box.height; y++)
    data.set(inner.subarray(y * box.width, (y + 1) * box.width), (box.top + y) * width + box.left);
}

function transpose(data, width, height) {
  const output = new Float32Array(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) output[x * height + y] = data[y * width + x];
  return output;
}

// Add a margin: of this value, or else of the values at the border.
function pad(data, width, height, margin, value) {
  const wide = width + 2 * margin, clip = (k, size) => Math.min(Math.max(k - margin, 0), size - 1);
  const output = new Float32Array(wide * (height + 2 * margin)).fill(value);
  for (let y = 0; y < height + 2 * margin; y++)
    for (let x = 0; x < wide; x++) {
      const inside = x >= margin && y >= margin && x < margin + width && y < margin + height;
      if (inside || value === undefined) output[y * wide + x] = data[clip(y, height) * width + clip(x, width)];
    }
  return output;
}

// The highest value in a window of columns x rows (odd) around each pixel: along the rows, then along the columns.
function maximumFilter(data, width, height, columns, rows = columns) {
  return highestInRow(highestInRow(data, width, height, columns), height, width, rows);  // each call transposes
}

const minimumFilter = (data, ...sizes) => maximumFilter(data.map(value => -value), ...sizes).map(value => -value);

// Fill all that is darker than its surroundings and narrower than the window; or remove what is lighter.
const closing = (data, width, height, ...window) =>
  minimumFilter(maximumFilter(data, width, height, ...window), width, height, ...window);
const opening = (data, width, height, ...window) =>
  maximumFilter(minimumFilter(data, width, height, ...window), width, height, ...window);

function highestInRow(data, width, height, size) {
  const output = new Float32Array(width * height), half = size >> 1, row = new Float32Array(width + half);
  for (let y = 0; y < height; y++) {
    row.fill(-Infinity).set(data.subarray(y * width, (y + 1) * width), half);
    for (let reach = 1; reach < size;) {  // row[x] is the highest of `reach` values from x on
      const step = Math.min(reach, size - reach);
      for (let x = 0; x + step < row.length; x++) row[x] = Math.max(row[x], row[x + step]);
      reach += step;
    }
    for (let x = 0; x < width; x++) output[x * height + y] = row[x];
  }
  return output;
}

// Number the parts of a mask, from 1; pixels that share a side or a corner belong to the same part.
function label(mask, width, height) {
  const labels = new Int32Array(mask.length);
  let count = 0;
  mask.forEach((inside, start) => {
    if (!inside || labels[start]) return;
    labels[start] = ++count;
    for (const stack = [start]; stack.length;) {
      const k = stack.pop(), x = k % width, y = Math.floor(k / width);
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++)
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++)
          if (mask[v * width + u] && !labels[v * width + u]) {
            labels[v * width + u] = count;
            stack.push(v * width + u);
          }
    }
  });
  return labels;
}

function roundHalfToEven(value) {  // as Python does
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + Math.abs(floor % 2) : Math.round(value);
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

// ---- drawings

// The reasons for doubt in ink that is all meant, as in a drawing.
function judgeInk(ink, width, height) {
  const mask = ink.map(value => Number(value > PART)), box = findBox(mask, width, height);
  if (!box) return ["no digit?"];
  const [, doubts] = chooseParts(mask, ink, width, height);
  const [short, long] = [box.width, box.height].sort((a, b) => a - b);
  const isBlot = short > long / 2 && sum(mask) > 0.7 * short * long;
  return isBlot ? [...doubts, "no digit?"] : doubts;
}
