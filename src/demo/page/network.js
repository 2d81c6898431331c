"use strict";
// The forward pass of the network, and what explains its result. A tensor is {data: Float32Array, channels, height, width}; the
// layers, and the weights in their order, come from build_page.py.

// A layer's filters, of 3 x 3 or 1 x 1 weights, slide over its input.
function convolve(input, {out, kernel, padding}, weights) {
  const {data, channels, height, width} = padding ? addBorder(input) : input;
  const rows = height - kernel + 1, columns = width - kernel + 1, output = new Float32Array(out * rows * columns);
  const addProducts = kernel === 3 ? addNineProducts : addOneProduct;
  for (let o = 0; o < out; o++)
    for (let i = 0; i < channels; i++) {
      const filter = weights.subarray((o * channels + i) * kernel ** 2, (o * channels + i + 1) * kernel ** 2);
      for (let y = 0; y < rows; y++)
        addProducts(output, (o * rows + y) * columns, columns, data, (i * height + y) * width, width, filter);
    }
  return {data: output, channels: out, height: rows, width: columns};
}

// Add, along one row of the output, the products of the weights and the values below them. These loops take most of the time.
function addNineProducts(output, to, columns, data, from, width, filter) {
  const a = filter[0], b = filter[1], c = filter[2], d = filter[3], e = filter[4], f = filter[5];
  const g = filter[6], h = filter[7], i = filter[8];
  for (let end = to + columns; to < end; to++, from++) {
    const next = from + width, last = next + width;
    output[to] += a * data[from] + b * data[from + 1] + c * data[from + 2] +
      d * data[next] + e * data[next + 1] + f * data[next + 2] + g * data[last] + h * data[last + 1] + i * data[last + 2];
  }
}

function addOneProduct(output, to, columns, data, from, width, [weight]) {
  for (let end = to + columns; to < end; to++, from++) output[to] += weight * data[from];
}

// Zeros around each map, one pixel wide.
function addBorder({data, channels, height, width}) {
  const high = height + 2, wide = width + 2, output = new Float32Array(channels * high * wide);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < height; y++) {
      const row = data.subarray((c * height + y) * width, (c * height + y + 1) * width);
      output.set(row, (c * high + y + 1) * wide + 1);
    }
  return {data: output, channels, height: high, width: wide};
}

// ReLU, then batch normalisation: for each channel a factor and a shift, which hold its mean, variance, weight and bias.
function activate({data, channels, height, width}, factors, shifts) {
  const size = height * width, output = new Float32Array(data.length);
  for (let c = 0; c < channels; c++)
    for (let k = c * size; k < (c + 1) * size; k++) output[k] = Math.max(0, data[k]) * factors[c] + shifts[c];
  return {data: output, channels, height, width};
}

function maxPool({data, channels, height, width}) {
  const rows = height >> 1, columns = width >> 1, output = new Float32Array(channels * rows * columns);
  for (let c = 0; c < channels; c++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        const k = (c * height + 2 * y) * width + 2 * x;
        output[(c * rows + y) * columns + x] = Math.max(data[k], data[k + 1], data[k + width], data[k + width + 1]);
      }
  return {data: output, channels, height: rows, width: columns};
}

function average({data, channels, height, width}) {
  const size = height * width;
  return Array.from({length: channels}, (_, c) => {
    let total = 0;
    for (let k = c * size; k < (c + 1) * size; k++) total += data[k];
    return total / size;
  });
}

function logSoftmax(values) {
  const highest = Math.max(...values);
  const total = Math.log(values.reduce((sum, value) => sum + Math.exp(value - highest), 0)) + highest;
  return values.map(value => value - total);
}

// What the network makes of an image (784 values from 0, paper, to 1, ink): the feature maps of every convolution, the averages of
// the last ones, the weights of the linear layer, the ten logits and log-probabilities.
function forward({layers, mean, std}, weights, pixels) {
  let tensor = {data: Float32Array.from(pixels, value => (value - mean) / std), channels: 1, height: 28, width: 28};
  let position = 0, averages = null, matrix = null, bias = null;
  const maps = [], take = count => weights.subarray(position, position += count);
  for (const layer of layers) {
    if (layer.type === "convolution") {
      const input = tensor, filters = take(layer.out * input.channels * layer.kernel ** 2);
      const factors = take(layer.out), shifts = take(layer.out);
      tensor = activate(convolve(input, layer, filters), factors, shifts);
      maps.push({...tensor, input, filters, factors, shifts});
    } else if (layer.type === "max pool") {
      tensor = maxPool(tensor);
    } else {
      averages = average(tensor);
      matrix = take(10 * averages.length);
      bias = take(10);
    }
  }
  const width = averages.length;
  const logits = Array.from(bias, (shift, o) => averages.reduce((sum, value, i) => sum + value * matrix[o * width + i], shift));
  return {pixels, maps, averages, matrix, bias, logits, logProbabilities: logSoftmax(logits)};
}

// Why the logit of one digit is higher or lower than that of another: for each map its average, the two weights and the product of
// the average with their difference, largest first. The products and the difference of the biases add up to that of the logits.
function compareDigits({averages, matrix, bias, logits}, digit, rival) {
  const parts = averages.map((average, map) => {
    const weight = matrix[digit * averages.length + map], rivalWeight = matrix[rival * averages.length + map];
    return {map, average, weight, rivalWeight, product: average * (weight - rivalWeight)};
  });
  parts.sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  return {parts, bias: bias[digit] - bias[rival], difference: logits[digit] - logits[rival]};
}

// A copy of the image in which the 5 x 5 pixels around (x, y) are paper.
function emptyPatch(pixels, x, y) {
  const output = Float32Array.from(pixels);
  for (let row = Math.max(y - 2, 0); row <= Math.min(y + 2, 27); row++)
    output.fill(0, row * 28 + Math.max(x - 2, 0), row * 28 + Math.min(x + 2, 27) + 1);
  return output;
}

// The centres, two pixels apart, of the patches that hold ink.
function findPatches(pixels) {
  const centres = Array.from({length: 196}, (_, k) => ({x: 2 * (k % 14), y: 2 * Math.floor(k / 14)}));
  return centres.filter(({x, y}) => emptyPatch(pixels, x, y).some((value, k) => value !== pixels[k]));
}

// How far each pixel speaks for a digit and against its rival. `patches` are {x, y, logits}: the logits without the patch. A patch
// counts by what its removal takes from the difference of the two logits, and a pixel by the mean of the patches that hold it.
function weighPixels(patches, difference, digit, rival) {
  const total = new Float32Array(784), count = new Float32Array(784);
  for (const {x, y, logits} of patches)
    for (let row = Math.max(y - 2, 0); row <= Math.min(y + 2, 27); row++)
      for (let column = Math.max(x - 2, 0); column <= Math.min(x + 2, 27); column++) {
        total[row * 28 + column] += difference - (logits[digit] - logits[rival]);
        count[row * 28 + column]++;
      }
  return total.map((value, k) => value / Math.max(count[k], 1));
}

// One value of a feature map, step by step. `parts` has the weights and the values of each input map, and the sum of their products,
// largest first; values beyond the border are 0.
function explain({input, filters, factors, shifts}, {kernel, padding}, channel, x, y) {
  const parts = Array.from({length: input.channels}, (_, map) => {
    const start = (channel * input.channels + map) * kernel ** 2, weights = [...filters.subarray(start, start + kernel ** 2)];
    const values = weights.map((_, k) => {
      const row = y - padding + Math.floor(k / kernel), column = x - padding + k % kernel;
      const inside = row >= 0 && column >= 0 && row < input.height && column < input.width;
      return inside ? input.data[(map * input.height + row) * input.width + column] : 0;
    });
    return {map, weights, values, sum: weights.reduce((total, weight, k) => total + weight * values[k], 0)};
  });
  const sum = parts.reduce((total, part) => total + part.sum, 0), positive = Math.max(0, sum);
  parts.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  const factor = factors[channel], shift = shifts[channel];
  return {parts, sum, positive, factor, shift, value: positive * factor + shift};
}

// What one value of a feature map depends on: the corner and the size, in pixels of the image, of its receptive field.
function receptiveField(layers, convolution, x, y) {
  let size = 1, step = 1, start = 0, count = 0;
  for (const layer of layers) {
    const kernel = layer.kernel ?? 2;
    size += (kernel - 1) * step;
    start -= (layer.padding ?? 0) * step;
    if (layer.type === "max pool") step *= 2;
    else if (count++ === convolution) break;
  }
  return {left: start + x * step, top: start + y * step, size};
}
