"use strict";
// The forward pass of the network. A tensor is {data: Float32Array, channels, height, width}; the layers, and the weights in their
// order, come from page.py.

function convolve({data, channels, height, width}, {out, kernel, padding}, weights) {
  const rows = height + 2 * padding - kernel + 1, columns = width + 2 * padding - kernel + 1;
  const output = new Float32Array(out * rows * columns);
  let index = 0;
  for (let o = 0; o < out; o++)
    for (let i = 0; i < channels; i++)
      for (let dy = -padding; dy < kernel - padding; dy++)
        for (let dx = -padding; dx < kernel - padding; dx++) {
          const weight = weights[index++];
          const left = Math.max(0, -dx), right = Math.min(columns, width - dx);
          for (let y = Math.max(0, -dy); y < Math.min(rows, height - dy); y++) {
            const to = (o * rows + y) * columns, from = (i * height + y + dy) * width + dx;
            for (let x = left; x < right; x++) output[to + x] += weight * data[from + x];
          }
        }
  return {data: output, channels: out, height: rows, width: columns};
}

// ReLU, then batch normalisation: for each channel a factor and a shift, which hold its mean, variance, weight and bias.
function activate({data, channels, height, width}, factors, shifts) {
  const size = height * width;
  const output = data.map((value, k) => Math.max(0, value) * factors[Math.floor(k / size)] + shifts[Math.floor(k / size)]);
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
  return Array.from({length: channels}, (_, c) => data.subarray(c * size, (c + 1) * size).reduce((sum, value) => sum + value, 0) / size);
}

function logSoftmax(values) {
  const highest = Math.max(...values);
  const total = Math.log(values.reduce((sum, value) => sum + Math.exp(value - highest), 0)) + highest;
  return values.map(value => value - total);
}

// The ten log-probabilities of an image (784 values from 0, paper, to 1, ink), and the feature maps of every convolution.
function forward({layers, mean, std}, weights, pixels) {
  let tensor = {data: Float32Array.from(pixels, value => (value - mean) / std), channels: 1, height: 28, width: 28};
  let position = 0, values = null;
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
      const inputs = average(tensor), matrix = take(10 * inputs.length), bias = take(10);
      values = Array.from(bias, (shift, o) => inputs.reduce((sum, value, i) => sum + value * matrix[o * inputs.length + i], shift));
    }
  }
  return {maps, logProbabilities: logSoftmax(values)};
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
