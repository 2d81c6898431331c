"use strict";
// The forward pass of the network. A tensor is {data: Float32Array, channels, height, width}; the layers, and the weights in their
// order, come from digits.py.

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
      const filters = take(layer.out * tensor.channels * layer.kernel ** 2);
      tensor = activate(convolve(tensor, layer, filters), take(layer.out), take(layer.out));
      maps.push({...tensor, filters});
    } else if (layer.type === "max pool") {
      tensor = maxPool(tensor);
    } else {
      const inputs = average(tensor), matrix = take(10 * inputs.length), bias = take(10);
      values = Array.from(bias, (shift, o) => inputs.reduce((sum, value, i) => sum + value * matrix[o * inputs.length + i], shift));
    }
  }
  return {maps, logProbabilities: logSoftmax(values)};
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
