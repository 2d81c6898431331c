"use strict";
// The page: drawing, pictures and test images; the prediction, the feature maps, and the filters of one of them.

const byId = id => document.getElementById(id);
const weights = new Float32Array(Uint8Array.from(atob(DATA.weights), letter => letter.charCodeAt(0)).buffer);
const convolutions = DATA.network.layers.filter(layer => layer.type === "convolution");
const drawing = byId("drawing"), pen = drawing.getContext("2d", {willReadFrequently: true});
const palette = {};       // the colours of the style sheet as [red, green, blue]
const testImages = [];    // each {canvas, pixels}
let strokes = [];         // each {width, points: [{x, y}, ...]}
let pointer = null;       // the one that draws: a second finger does not
let nextFrame = 0;        // the request to read the drawing before the next frame, or 0
let version = 0;          // changes with every new input, so that a picture that loads slowly does not replace a newer one
let input = null;         // the 784 pixels that the network gets, or null
let result = null;        // what the network makes of them
let chosen = null;        // a pixel of a feature map: {layer, channel, x, y}

// ---- colours and small pictures

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

// Give the network these pixels, and say how they were made.
function show(pixels, preparation) {
  input = pixels;
  result = forward(DATA.network, weights, pixels);
  const probabilities = result.logProbabilities.map(Math.exp);
  const [first, second] = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  render(probabilities, `Prediction: ${first} (${percent(probabilities[first])}). Next: ${second} (${percent(probabilities[second])}).`,
    preparation);
}

// Show no image, and say why.
function showNothing(reason) {
  input = result = chosen = null;
  render([], reason, "");
}

function percent(value) {
  return `${value < 0.0005 ? "<\u00a00.1" : value > 0.9995 ? ">\u00a099.9" : (100 * value).toFixed(1)}\u00a0%`;
}

function render(probabilities, prediction, preparation) {
  byId("prediction").textContent = prediction;
  byId("preparation").textContent = preparation;
  if (!strokes.length && document.activeElement === byId("undo")) byId("clear").focus();  // a disabled button loses the focus
  byId("undo").disabled = !strokes.length;
  byId("bars").replaceChildren(...Array.from({length: 10}, (_, digit) => {
    const label = document.createElement("span"), bar = document.createElement("div"), number = document.createElement("span");
    label.textContent = digit;
    bar.style.width = `${100 * (probabilities[digit] ?? 0)}%`;
    number.textContent = digit in probabilities ? percent(probabilities[digit]) : "";
    return [label, bar, number];
  }).flat());
  renderImages();
}

function renderImages() {
  paint(byId("seen"), input ?? new Float32Array(784), 28, 28);
  document.querySelectorAll(".maps").forEach((row, layer) => {
    const {data, height, width} = result?.maps[layer] ?? {data: new Float32Array(row.children.length), height: 1, width: 1};
    [...row.children].forEach((canvas, channel) => {
      const values = data.subarray(channel * height * width, (channel + 1) * height * width);
      const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
      paint(canvas, values.map(value => high > low ? (value - low) / (high - low) : 0), width, height);
    });
  });
  renderChosen();
}

// The filters of the chosen map, and the image with the receptive field of its chosen pixel.
function renderChosen() {
  byId("detail").hidden = !chosen || !result;
  document.querySelectorAll(".maps").forEach((row, layer) => {
    row.removeAttribute("aria-activedescendant");
    [...row.children].forEach((canvas, channel) => {
      const selected = chosen?.layer === layer && chosen.channel === channel;
      canvas.classList.toggle("chosen", selected);
      canvas.setAttribute("aria-selected", selected);
      if (selected) row.setAttribute("aria-activedescendant", canvas.id);
    });
  });
  if (!chosen || !result) return;
  const {layer, channel, x, y} = chosen, {name, kernel, out} = convolutions[layer], map = result.maps[layer];
  const {left, top, size} = receptiveField(DATA.network.layers, layer, x, y), clip = value => Math.min(Math.max(value, 0), 28);
  const field = {left: clip(left), top: clip(top), width: clip(left + size) - clip(left), height: clip(top + size) - clip(top)};
  const brush = byId("field").getContext("2d"), scale = 10, line = 6;
  byId("field").width = byId("field").height = 28 * scale;
  brush.imageSmoothingEnabled = false;
  brush.drawImage(byId("seen"), 0, 0, 28 * scale, 28 * scale);
  brush.strokeStyle = colour("frame");
  brush.lineWidth = line;
  brush.strokeRect(field.left * scale + line / 2, field.top * scale + line / 2, field.width * scale - line, field.height * scale - line);
  const value = map.data[(channel * map.height + y) * map.width + x].toFixed(2).replace("-", "−");
  const inputs = layer ? convolutions[layer - 1].out : 1;
  byId("about").textContent = `${name}, map ${channel + 1} of ${out}, row ${y + 1}, column ${x + 1}: ${value}. It depends on ` +
    `${field.width}\u00a0×\u00a0${field.height} pixels of the image. Beside it: ` +
    `${inputs === 1 ? "its filter" : `its ${inputs} filters, one for each map of the previous layer`} (red is negative).`;
  paintFilters(map.filters.subarray(channel * inputs * kernel ** 2, (channel + 1) * inputs * kernel ** 2), inputs, kernel);
}

// Filters of kernel x kernel weights, in rows of up to four, with a pixel between them.
function paintFilters(filters, count, kernel) {
  const columns = Math.min(count, 4), width = columns * (kernel + 1) - 1, height = Math.ceil(count / columns) * (kernel + 1) - 1;
  const highest = filters.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0), tiles = new Float32Array(width * height);
  filters.forEach((weight, k) => {
    const filter = Math.floor(k / kernel ** 2), row = Math.floor(k / kernel) % kernel;
    const top = Math.floor(filter / columns) * (kernel + 1), left = filter % columns * (kernel + 1);
    tiles[(top + row) * width + left + k % kernel] = weight / highest;
  });
  paint(byId("filters"), tiles, width, height);
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
  redraw();
  const {data} = pen.getImageData(0, 0, 200, 200);
  const ink = Float32Array.from({length: 40000}, (_, k) => data[4 * k + 3] / 255 < 0.05 ? 0 : data[4 * k + 3] / 255);
  prepareAndShow(ink, 200, 200, "There is no ink yet: draw a digit, or pick a test image.");
}

function prepareAndShow(ink, width, height, otherwise) {
  const made = normalizeSize(ink, width, height);
  if (!made) return showNothing(otherwise);
  const {box, size, place} = made;
  show(made.pixels, `The ink, ${box.width}\u00a0×\u00a0${box.height} pixels, was scaled to ${size.width}\u00a0×\u00a0${size.height}, and ` +
    `placed at column ${place.x + 1}, row ${place.y + 1}, so that its centre of mass is in the middle.`);
}

// While a stroke is drawn, a screen reader does not hear every prediction.
function setPointer(id) {
  pointer = id;
  cancelAnimationFrame(nextFrame);
  nextFrame = 0;
  for (const line of ["prediction", "preparation"]) byId(line).setAttribute("aria-live", id === null ? "polite" : "off");
}

// Start over with these strokes. A stroke or a picture that is still on its way is dropped.
function setStrokes(list) {
  setPointer(null);
  version++;
  strokes = list;
  redraw();
}

function position(event) {
  const area = drawing.getBoundingClientRect();
  return {x: (event.clientX - area.left) / area.width * 200, y: (event.clientY - area.top) / area.height * 200};
}

function readSoon() {
  nextFrame ||= requestAnimationFrame(() => { nextFrame = 0; readDrawing(); });
}

drawing.addEventListener("pointerdown", event => {
  if (pointer !== null || event.button !== 0) return;
  setPointer(event.pointerId);
  version++;
  drawing.setPointerCapture(pointer);
  strokes.push({width: Number(byId("stroke").value), points: [position(event)]});
  readSoon();
});
drawing.addEventListener("pointermove", event => {
  if (event.pointerId !== pointer) return;
  strokes.at(-1).points.push(...(event.getCoalescedEvents?.() ?? []).map(position), position(event));
  readSoon();
});
drawing.addEventListener("lostpointercapture", event => {
  if (event.pointerId !== pointer) return;
  setPointer(null);
  readDrawing();
});
byId("clear").addEventListener("click", () => { setStrokes([]); readDrawing(); });
byId("undo").addEventListener("click", () => { setStrokes(strokes.slice(0, -1)); readDrawing(); });

// ---- pictures

async function openPicture(file) {
  setStrokes([]);
  showNothing("Reading the picture …");
  const mine = version;
  try {
    const image = await decode(file);
    if (mine === version) readPicture(image);
  } catch {
    if (mine === version) showNothing(`${file.name || "The file"} is not an image that this browser can read.`);
  }
}

async function decode(file) {
  if (file.type !== "image/svg+xml") return createImageBitmap(file);  // which rejects damaged files, but knows no SVG
  const image = new Image(), address = URL.createObjectURL(file);
  try {
    image.src = address;
    await image.decode();
    return image;
  } finally {
    URL.revokeObjectURL(address);
  }
}

function readPicture(image) {
  let {width, height} = image, source = image;
  [width, height] = [width || 200, height || 200];  // an SVG need not have a size
  const factor = Math.min(1, 200 / Math.max(width, height));
  const target = [Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor))];
  do {  // by halves at most: browsers skip pixels otherwise, and lose thin strokes
    [width, height] = [Math.max(target[0], width >> 1), Math.max(target[1], height >> 1)];
    const smaller = document.createElement("canvas");
    [smaller.width, smaller.height] = [width, height];
    const context = smaller.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, width, height);
    source = smaller;
  } while (width > target[0] || height > target[1]);
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

byId("file").addEventListener("change", event => {
  if (event.target.files[0]) openPicture(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("dragover", event => event.preventDefault());
for (const [kind, transfer] of [["drop", "dataTransfer"], ["paste", "clipboardData"]])
  document.addEventListener(kind, event => {
    event.preventDefault();
    const file = event[transfer].files[0];
    if (file) openPicture(file);
    else byId("preparation").textContent = "That was not a picture.";
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
    button.addEventListener("click", () => {
      setStrokes([]);
      show(pixels, `Test image ${index}, unchanged. Its label: ${label}.`);
      scrollTo({top: 0});
    });
    byId(wrong ? "wrong" : "random").append(button);
    testImages.push({canvas: small, pixels});
  });
  paintTestImages();
});
sprite.src = `data:image/png;base64,${DATA.sprite}`;

function paintTestImages() {
  testImages.forEach(({canvas, pixels}) => paint(canvas, pixels, 28, 28));
}

// ---- layers

function addLayer({name, kernel, out, size, parameters}, layer) {
  const section = document.createElement("div"), title = document.createElement("h3"), row = document.createElement("div");
  const inputs = layer ? convolutions[layer - 1].out : 1, description = document.createElement("span");
  description.textContent = `${kernel} × ${kernel}, ${inputs} → ${out} channels, maps of ${size} × ${size}, ` +
    `${parameters.toLocaleString("en")} parameters`;
  title.append(`${name} `, description);
  section.className = "layer";
  row.className = "maps";
  row.tabIndex = 0;
  row.setAttribute("role", "listbox");
  row.setAttribute("aria-label", `${name}: ${out} feature maps`);
  for (let channel = 0; channel < out; channel++) {
    const canvas = document.createElement("canvas");
    canvas.id = `map-${layer}-${channel}`;
    canvas.setAttribute("role", "option");
    canvas.setAttribute("aria-label", `map ${channel + 1} of ${out}`);
    const choose = event => {
      const area = canvas.getBoundingClientRect(), at = part => Math.min(Math.max(Math.floor(part * size), 0), size - 1);
      chosen = {layer, channel, x: at((event.clientX - area.left) / area.width), y: at((event.clientY - area.top) / area.height)};
      byId("about").setAttribute("aria-live", "off");
      renderChosen();
    };
    canvas.addEventListener("pointermove", choose);
    canvas.addEventListener("pointerdown", choose);
    row.append(canvas);
  }
  row.addEventListener("keydown", event => {
    const move = {ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowUp: [0, -1]}[event.key];
    if (!move) return;
    event.preventDefault();
    const [dx, dy] = move, within = value => Math.min(Math.max(value, 0), size - 1);
    if (chosen?.layer !== layer) chosen = {layer, channel: 0, x: size >> 1, y: size >> 1};
    else if (event.shiftKey) chosen = {...chosen, x: within(chosen.x + dx), y: within(chosen.y + dy)};
    else chosen = {...chosen, channel: (chosen.channel + dx + dy + out) % out};
    byId("about").setAttribute("aria-live", "polite");
    renderChosen();
  });
  section.append(title, row);
  byId("layers").append(section);
}

convolutions.forEach(addLayer);
const {layers} = DATA.network, {parameters} = layers.at(-1), end = document.createElement("p");
end.className = "hint";
end.textContent = `After the layer “${layers[layers.findIndex(layer => layer.type === "max pool") - 1].name}”, a max pool halves the ` +
  `height and width of the maps. At the end, each map is averaged, and a linear layer with ${parameters} parameters turns the averages ` +
  "into the ten probabilities.";
byId("layers").append(end);

// ---- the rest

if (location.hostname.endsWith(".github.io"))  // there, the README is on GitHub
  byId("readme").href = `https://github.com/${location.hostname.split(".")[0]}${location.pathname.match(/^\/[^/]*/)[0]}#readme`;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readPalette();
  redraw();
  renderImages();
  paintTestImages();
});
readPalette();
readDrawing();
