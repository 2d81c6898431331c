"use strict";
// The page: drawing, pictures and test images; the prediction, the feature maps, and the filters of one of them.

const byId = id => document.getElementById(id);
const weights = new Float32Array(Uint8Array.from(atob(DATA.weights), letter => letter.charCodeAt(0)).buffer);
const convolutions = DATA.network.layers.filter(layer => layer.type === "convolution");
const drawing = byId("drawing"), pen = drawing.getContext("2d", {willReadFrequently: true});
let strokes = [];         // each {width, points: [{x, y}, ...]}
let current = null;       // the 784 pixels that the network gets, or null
let result = null;        // what the network makes of it
let chosen = null;        // the point of a feature map: {layer, channel, x, y}

// ---- colours and small pictures

let palette = {};         // the colours of the style sheet as [red, green, blue]

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "frame"]) {
    const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
    palette[name] = (hex.length === 3 ? [...hex].map(digit => digit + digit) : hex.match(/../g)).map(digits => parseInt(digits, 16));
  }
}

const colour = name => `rgb(${palette[name]})`;

// Paint values from 0, paper, to 1, ink; negative ones towards red.
function paint(canvas, values, width, height) {
  const {paper, ink, frame} = palette;
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, k) => {
    const to = value < 0 ? frame : ink, part = Math.min(Math.abs(value), 1);
    for (let i = 0; i < 3; i++) image.data[4 * k + i] = paper[i] + part * (to[i] - paper[i]);
    image.data[4 * k + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// ---- what is shown

function show(pixels, done) {
  current = pixels;
  result = pixels && forward(DATA.network, weights, pixels);
  byId("done").textContent = done;
  render();
}

function render() {
  const probabilities = result ? result.logProbabilities.map(Math.exp) : Array(10).fill(0);
  const [first, second] = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const a = digit => `${digit === 8 ? "an" : "a"} ${digit}`, percent = value => `${(100 * value).toFixed(1)}\u00a0%`;
  byId("prediction").textContent = !result ? "Draw a digit, or pick a test image." :
    `It reads ${a(first)} (${percent(probabilities[first])}), then ${a(second)} (${percent(probabilities[second])}).`;
  byId("bars").replaceChildren(...probabilities.flatMap((value, digit) => {
    const label = document.createElement("span"), bar = document.createElement("div"), number = document.createElement("span");
    label.textContent = digit;
    bar.style.width = `${100 * value}%`;
    number.textContent = result ? percent(value) : "";
    return [label, bar, number];
  }));
  document.querySelectorAll(".maps").forEach((row, layer) => {
    const {data, height, width, channels} = result?.maps[layer] ?? {channels: row.children.length, height: 1, width: 1};
    for (let c = 0; c < channels; c++) {
      const values = data ? data.subarray(c * height * width, (c + 1) * height * width) : Float32Array.of(0);
      const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
      paint(row.children[c], values.map(value => high > low ? (value - low) / (high - low) : 0), width, height);
    }
  });
  paint(byId("seen"), current ?? new Float32Array(784), 28, 28);
  renderChosen();
}

// The filters of the chosen map, and the image with its receptive field.
function renderChosen() {
  document.querySelectorAll(".maps canvas.chosen").forEach(canvas => canvas.classList.remove("chosen"));
  byId("detail").setAttribute("aria-hidden", !chosen || !result);
  if (!chosen || !result) return;
  const {layer, channel, x, y} = chosen, {kernel, out} = convolutions[layer], map = result.maps[layer];
  document.querySelectorAll(".maps")[layer].children[channel].classList.add("chosen");
  const field = receptiveField(DATA.network.layers, layer, x, y), inputs = layer ? convolutions[layer - 1].out : 1;
  const image = byId("field"), brush = image.getContext("2d"), scale = 10;
  image.width = image.height = 28 * scale;
  brush.imageSmoothingEnabled = false;
  brush.drawImage(byId("seen"), 0, 0, 28 * scale, 28 * scale);
  brush.strokeStyle = colour("frame");
  brush.lineWidth = 6;
  brush.strokeRect(field.left * scale, field.top * scale, field.size * scale, field.size * scale);
  const value = map.data[(channel * map.height + y) * map.width + x].toFixed(2).replace("-", "−");
  byId("about").textContent = `${convolutions[layer].name}, map ${channel + 1} of ${out}, row ${y + 1}, column ${x + 1}: ${value}. ` +
    `It depends on ${field.size}\u00a0×\u00a0${field.size} pixels. ` +
    `${inputs === 1 ? "Its filter" : `Its ${inputs} filters, one for each map of the layer above`} (red is negative):`;
  const size = inputs * kernel ** 2, filter = map.filters.subarray(channel * size, (channel + 1) * size);
  const highest = filter.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  const width = inputs * (kernel + 1) - 1, tiles = new Float32Array(kernel * width);
  filter.forEach((weight, k) => {
    const input = Math.floor(k / kernel ** 2), row = Math.floor(k / kernel) % kernel;
    tiles[row * width + input * (kernel + 1) + k % kernel] = weight / highest;
  });
  paint(byId("filters"), tiles, width, kernel);
}

// ---- drawing

function redraw() {
  pen.clearRect(0, 0, 200, 200);
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = colour("ink");
  for (const {width, points} of strokes) {
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(points[0].x - 0.01, points[0].y);  // a line without length, a dot, would not be drawn
    points.forEach(({x, y}) => pen.lineTo(x, y));
    pen.stroke();
  }
}

function readDrawing() {
  const {data} = pen.getImageData(0, 0, 200, 200);
  const ink = Float32Array.from({length: 40000}, (_, k) => data[4 * k + 3] / 255 < 0.05 ? 0 : data[4 * k + 3] / 255);
  prepareAndShow(ink, 200, 200, "There is no ink yet.");
}

function prepareAndShow(ink, width, height, otherwise) {
  const made = normalizeSize(ink, width, height);
  if (!made) return show(null, otherwise);
  const {box, size, place} = made;
  show(made.pixels, `The ink, ${box.width}\u00a0×\u00a0${box.height} pixels, was scaled to ${size.width}\u00a0×\u00a0${size.height}, and placed at column ` +
    `${place.x + 1}, row ${place.y + 1}, so that its centre of mass is in the middle.`);
}

// Start over with these strokes. A stroke or a picture that is still on its way is dropped.
function setStrokes(list) {
  active = null;
  version++;
  strokes = list;
  redraw();
}

function point(event) {
  const area = drawing.getBoundingClientRect();
  return {x: (event.clientX - area.left) / area.width * 200, y: (event.clientY - area.top) / area.height * 200};
}

let active = null;   // the pointer that draws: a second finger does not
let version = 0;     // changes with every new input
let frame = 0;       // the request to read the drawing before the next frame, or 0

function readSoon() {
  frame ||= requestAnimationFrame(() => { frame = 0; redraw(); readDrawing(); });
}

drawing.addEventListener("pointerdown", event => {
  if (active !== null || event.button !== 0) return;
  active = event.pointerId;
  version++;
  drawing.setPointerCapture(active);
  byId("prediction").setAttribute("aria-live", "off");  // a screen reader hears the result of the whole stroke
  strokes.push({width: Number(byId("stroke").value), points: [point(event)]});
  readSoon();
});
drawing.addEventListener("pointermove", event => {
  if (event.pointerId !== active) return;
  strokes.at(-1).points.push(...(event.getCoalescedEvents?.() ?? []).map(point), point(event));
  readSoon();
});
drawing.addEventListener("lostpointercapture", event => {
  if (event.pointerId !== active) return;
  active = null;
  cancelAnimationFrame(frame);
  frame = 0;
  redraw();
  byId("prediction").setAttribute("aria-live", "polite");
  readDrawing();
});
byId("clear").addEventListener("click", () => { setStrokes([]); readDrawing(); });
byId("undo").addEventListener("click", () => { if (strokes.length) { setStrokes(strokes.slice(0, -1)); readDrawing(); } });

// ---- pictures

async function openPicture(file) {
  setStrokes([]);
  const mine = version, image = new Image(), address = URL.createObjectURL(file);
  try {
    image.src = address;
    await image.decode();
    if (mine === version) readPicture(image);
  } catch {
    if (mine === version) show(null, `${file.name || "The file"} is not an image that this browser can read.`);
  } finally {
    URL.revokeObjectURL(address);
  }
}

function readPicture(image) {
  let width = image.naturalWidth || 200, height = image.naturalHeight || 200, source = image;
  const goal = Math.min(1, 200 / Math.max(width, height));
  const last = [Math.max(1, Math.round(width * goal)), Math.max(1, Math.round(height * goal))];
  do {  // by halves at most: browsers skip pixels otherwise, and lose thin strokes
    [width, height] = [Math.max(last[0], width >> 1), Math.max(last[1], height >> 1)];
    const smaller = document.createElement("canvas");
    [smaller.width, smaller.height] = [width, height];
    const context = smaller.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, width, height);
    source = smaller;
  } while (width > last[0] || height > last[1]);
  const {data} = source.getContext("2d").getImageData(0, 0, width, height);
  const light = [], alpha = [];
  for (let k = 0; k < data.length; k += 4) {
    alpha.push(data[k + 3] / 255);
    light.push((0.299 * data[k] + 0.587 * data[k + 1] + 0.114 * data[k + 2]) / 255 * data[k + 3] / 255);
  }
  const sum = values => values.reduce((total, value) => total + value, 0);
  const paper = sum(light) > 0.5 * sum(alpha) ? 0 : 1;  // behind transparent pixels
  const grey = light.map((value, k) => value + paper * (1 - alpha[k]));
  prepareAndShow(findInk(grey, width, height), width, height, "The picture shows no ink: the digit must stand out from its background.");
}

byId("file").addEventListener("change", event => { if (event.target.files[0]) openPicture(event.target.files[0]); event.target.value = ""; });
document.addEventListener("dragover", event => event.preventDefault());
for (const [kind, transfer] of [["drop", "dataTransfer"], ["paste", "clipboardData"]])
  document.addEventListener(kind, event => {
    event.preventDefault();
    const file = event[transfer].files[0];
    if (file) openPicture(file);
    else byId("done").textContent = "That was not a picture.";
  });

// ---- test images: one below the other in one picture

const sprite = new Image();
sprite.addEventListener("load", () => {
  const canvas = document.createElement("canvas"), count = DATA.images.length;
  canvas.width = 28;
  canvas.height = 28 * count;
  const context = canvas.getContext("2d");
  context.drawImage(sprite, 0, 0);
  const {data} = context.getImageData(0, 0, 28, 28 * count);
  DATA.images.forEach(({index, label, wrong}, k) => {
    const pixels = Float32Array.from({length: 784}, (_, i) => data[4 * (784 * k + i)] / 255);
    const button = document.createElement("button"), small = document.createElement("canvas");
    button.type = "button";
    button.title = `test image ${index}, labelled ${label}`;
    button.setAttribute("aria-label", button.title);
    button.append(small);
    button.pixels = pixels;
    paint(small, pixels, 28, 28);
    button.addEventListener("click", () => {
      setStrokes([]);
      show(pixels, `Test image ${index} as it is; its label is ${label}.`);
    });
    byId(wrong ? "wrong" : "random").append(button);
  });
});
sprite.src = `data:image/png;base64,${DATA.sprite}`;

// ---- layers

let inputs = 1;
convolutions.forEach(({name, kernel, out, size, parameters}, layer) => {
  const section = document.createElement("div"), title = document.createElement("h3"), row = document.createElement("div");
  section.className = "layer";
  title.innerHTML = `${name} <span>${kernel} × ${kernel}, ${inputs} → ${out} channels, maps of ${size} × ${size}, ` +
    `${parameters.toLocaleString("en")} parameters</span>`;
  row.className = "maps";
  row.tabIndex = 0;
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", `${name}: ${out} feature maps; arrow keys choose one`);
  for (let channel = 0; channel < out; channel++) {
    const canvas = document.createElement("canvas");
    const choose = event => {
      const area = canvas.getBoundingClientRect(), at = value => Math.min(Math.max(Math.floor(value * size), 0), size - 1);
      chosen = {layer, channel, x: at((event.clientX - area.left) / area.width), y: at((event.clientY - area.top) / area.height)};
      renderChosen();
    };
    canvas.addEventListener("pointermove", choose);
    canvas.addEventListener("pointerdown", choose);
    row.append(canvas);
  }
  row.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const channel = chosen?.layer === layer ? (chosen.channel + step + out) % out : 0;
    chosen = {layer, channel, x: size >> 1, y: size >> 1};
    renderChosen();
  });
  section.append(title, row);
  byId("layers").append(section);
  inputs = out;
});

// ---- the rest

if (location.hostname.endsWith(".github.io"))  // there, the README is on GitHub
  byId("readme").href = `https://github.com/${location.hostname.split(".")[0]}${location.pathname.match(/^\/[^/]*/)[0]}#readme`;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readPalette();
  redraw();
  render();
  document.querySelectorAll(".images button").forEach(button => paint(button.firstChild, button.pixels, 28, 28));
});
readPalette();
readDrawing();
