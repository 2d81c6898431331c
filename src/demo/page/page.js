"use strict";
// The page: drawing, pictures and test images; the prediction, the feature maps, and how one pixel of them was computed.

const byId = id => document.getElementById(id);
const weights = new Float32Array(Uint8Array.from(atob(DATA.weights), letter => letter.charCodeAt(0)).buffer);
const convolutions = DATA.network.layers.filter(layer => layer.type === "convolution");
const drawing = byId("drawing"), pen = drawing.getContext("2d", {willReadFrequently: true});
const SIDE = 200;         // of the drawing area, in its own units
const palette = {};       // the colours of the style sheet as [red, green, blue]
const testImages = [];    // each {canvas, pixels, text}
const past = [];          // what was on the drawing area before, for Undo
// What is on the drawing area: strokes, each {width, points: [{x, y}, ...]}, or a picture {canvas, found} or a test image {pixels, text};
// or nothing but a message.
let paper = {strokes: []};
let pointer = null;       // the one that draws: a second finger does not
let nextFrame = 0;        // the request to read the drawing before the next frame, or 0
let result = null;        // what the network makes of the input: its feature maps and log-probabilities; or null
let chosen = {layer: 1, channel: 2, x: 12, y: 12};  // a pixel of a feature map

// ---- colours and small pictures

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "frame"]) {
    const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
    palette[name] = (hex.length === 3 ? [...hex].map(digit => digit + digit) : hex.match(/../g)).map(digits => parseInt(digits, 16));
  }
}

const colour = name => `rgb(${palette[name]})`;

// Paint values from 0, paper, to 1, ink.
function paint(canvas, values, width, height) {
  const {paper, ink} = palette;
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  values.forEach((value, k) => {
    for (let i = 0; i < 3; i++) image.data[4 * k + i] = paper[i] + value * (ink[i] - paper[i]);
    image.data[4 * k + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// ---- what is shown

// Give the network these 784 pixels, and say how they were made.
function show(pixels, preparation, doubts = []) {
  result = forward(DATA.network, weights, pixels);
  const probabilities = result.logProbabilities.map(Math.exp);
  const [first, second] = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const next = probabilities[second] < 0.0005 ? "" : `, next ${second} (${percent(probabilities[second])})`;
  const doubt = doubts.length ? `. Doubtful: ${doubts.join(", ")}` : "";
  render(pixels, probabilities, first, `Prediction: ${first} (${percent(probabilities[first])})${next}${doubt}`, preparation);
}

// Show no image, and say why.
function showNothing(reason) {
  result = null;
  render(new Float32Array(784), [], "", reason, "");
}

function percent(value) {
  return `${value < 0.0005 ? "<\u00a00.1" : value > 0.9995 ? ">\u00a099.9" : (100 * value).toFixed(1)}\u00a0%`;
}

const formatted = value => value.toFixed(2).replace("-0.00", "0.00").replace("-", "−");

function make(tag, text = "", className = "") {
  return Object.assign(document.createElement(tag), {textContent: text, className});
}

function render(pixels, probabilities, digit, prediction, preparation) {
  byId("digit").textContent = digit;
  byId("prediction").textContent = prediction;
  byId("preparation").textContent = preparation;
  if (!past.length && document.activeElement === byId("undo")) byId("clear").focus();  // a disabled button loses the focus
  byId("undo").disabled = !past.length;
  byId("bars").replaceChildren(...Array.from({length: 10}, (_, k) => {
    const bar = make("div");
    bar.style.width = `${100 * (probabilities[k] ?? 0)}%`;
    return [make("span", k), bar, make("span", k in probabilities ? percent(probabilities[k]) : "")];
  }).flat());
  paint(byId("seen"), pixels, 28, 28);
  renderMaps();
}

function renderMaps() {
  document.querySelectorAll(".maps").forEach((row, layer) => {
    const {data, height, width} = result?.maps[layer] ?? {data: new Float32Array(row.children.length), height: 1, width: 1};
    [...row.children].forEach((canvas, channel) => {
      const values = data.subarray(channel * height * width, (channel + 1) * height * width);
      const low = -highest(values.map(value => -value)), high = highest(values);
      paint(canvas, values.map(value => high > low ? (value - low) / (high - low) : 0), width, height);
    });
  });
  renderChosen();
}

// ---- how the chosen pixel was computed

function renderChosen() {
  const {layer, channel, x, y} = chosen, {name, out} = convolutions[layer], id = `map-${layer}-${channel}`;
  byId("detail").hidden = !result;
  for (const canvas of document.querySelectorAll(".maps canvas")) mark(canvas, canvas.id === id);
  byId("layers").setAttribute("aria-activedescendant", id);
  if (!result) return;
  byId("about").textContent = `${name}, map ${channel + 1} of ${out}, row ${y + 1}, column ${x + 1}`;
  byId("caption").textContent = paintField(receptiveField(DATA.network.layers, layer, x, y));
  const steps = explain(result.maps[layer], convolutions[layer], channel, x, y);
  byId("sums").replaceChildren(...explanation(steps, layer));
}

function mark(option, selected) {
  option.classList.toggle("chosen", selected);
  option.setAttribute("aria-selected", selected);
}

// The image with a frame around the receptive field; returns its caption.
function paintField({left, top, size}) {
  const canvas = byId("field"), brush = canvas.getContext("2d"), scale = 10, line = 6, clip = value => Math.min(Math.max(value, 0), 28);
  const [x0, y0, x1, y1] = [left, top, left + size, top + size].map(clip);
  canvas.width = canvas.height = 28 * scale;
  brush.imageSmoothingEnabled = false;
  brush.drawImage(byId("seen"), 0, 0, 28 * scale, 28 * scale);
  brush.strokeStyle = colour("frame");
  brush.lineWidth = line;
  brush.strokeRect(x0 * scale + line / 2, y0 * scale + line / 2, (x1 - x0) * scale - line, (y1 - y0) * scale - line);
  return `Receptive field: it depends on these ${x1 - x0}\u00a0×\u00a0${y1 - y0} pixels of the image.`;
}

// The sum of weights times values, the largest contributions first; ReLU; batch normalisation.
function explanation({parts, sum, positive, factor, shift, value}, layer) {
  const source = layer === 0 ? "the image" : DATA.network.layers[layer].type === "max pool" ? "the maps after max pool" : "the maps before";
  const most = 3, rest = parts.slice(most), nodes = [make("p", `Weight × value, from ${source}:`)];
  for (const {map, weights, values, sum} of parts.slice(0, most)) {
    nodes.push(make("p", `${layer === 0 ? "Image" : `Map ${map + 1}`}: ${formatted(sum)}`), products(weights, values));
  }
  if (rest.length) {
    const sums = rest.map(part => formatted(part.sum)).join(", ");
    nodes.push(make("p", `The other ${rest.length} maps: ${formatted(rest.reduce((total, part) => total + part.sum, 0))} (${sums})`));
  }
  const signed = `${shift < 0 ? "−" : "+"} ${formatted(Math.abs(shift))}`;
  nodes.push(make("p", `Convolution, the sum: ${formatted(sum)}`), make("p", `ReLU: max(0, ${formatted(sum)}) = ${formatted(positive)}`),
    make("p", `Batch normalisation: ${formatted(positive)} × ${formatted(factor)} ${signed} = ${formatted(value)}, the value in the map`));
  return nodes;
}

function products(weights, values) {
  const table = make("table"), side = Math.sqrt(weights.length);
  for (let row = 0; row < side; row++) {
    const cells = weights.slice(row * side, (row + 1) * side).map((weight, k) => make("td",
      `${formatted(weight)} × ${formatted(values[row * side + k])}`));
    const line = make("tr");
    line.append(...cells);
    table.append(line);
  }
  return table;
}

// ---- the drawing area

function redraw() {
  pen.setTransform(drawing.width / SIDE, 0, 0, drawing.height / SIDE, 0, 0);
  pen.clearRect(0, 0, SIDE, SIDE);
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = colour("ink");
  for (const {width, points} of paper.strokes ?? []) {
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(points[0].x - 0.01, points[0].y);  // a line without length, a dot, would not be drawn
    points.forEach(({x, y}) => pen.lineTo(x, y));
    pen.stroke();
  }
  if (paper.canvas) drawPicture(paper);
  if (paper.pixels) {
    const image = make("canvas");
    paint(image, paper.pixels, 28, 28);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, 0, 0, SIDE, SIDE);
  }
}

// The picture, as large as it fits, with the box of the digit.
function drawPicture({canvas, found}) {
  const scale = SIDE / Math.max(canvas.width, canvas.height);
  const left = (SIDE - canvas.width * scale) / 2, top = (SIDE - canvas.height * scale) / 2;
  pen.imageSmoothingEnabled = true;
  pen.drawImage(canvas, left, top, canvas.width * scale, canvas.height * scale);
  if (!found) return;
  pen.strokeStyle = colour("frame");
  pen.lineWidth = 2;
  pen.strokeRect(left + found.box.left * scale - 1, top + found.box.top * scale - 1, found.box.width * scale + 2, found.box.height * scale + 2);
}

// Read what is on the drawing area.
function read() {
  redraw();
  if (paper.message) return showNothing(paper.message);
  if (paper.pixels) return show(paper.pixels, paper.text);
  if (paper.canvas && !paper.found) return showNothing("The picture shows no digit: its ink must stand out from its background.");
  const found = paper.found ?? readStrokes();
  if (!found) return showNothing("There is no ink yet: draw a digit, or pick a test image.");
  const {pixels, box, size, place, widened, doubts} = found;
  show(pixels, `The ink, ${box.width}\u00a0×\u00a0${box.height} pixels, ${widened ? "had its thin strokes widened, " : ""}was scaled to ${size.width}\u00a0×\u00a0${size.height}, and placed at ` +
    `column ${place.left + 1}, row ${place.top + 1}, so that its centre of mass is in the middle.`, doubts);
}

function readStrokes() {
  const {data} = pen.getImageData(0, 0, drawing.width, drawing.height);
  const ink = Float32Array.from({length: data.length / 4}, (_, k) => data[4 * k + 3] < 13 ? 0 : data[4 * k + 3] / 255);
  return normalizeInk(ink, drawing.width, drawing.height);
}

// Replace what is on the drawing area; Undo brings it back. A stroke that is being drawn ends.
function replace(next) {
  setPointer(null);
  past.push(paper);
  paper = next;
  read();
}

function undo() {
  if (!past.length) return;
  setPointer(null);
  paper = past.pop();
  read();
}

// While a stroke is drawn, a screen reader does not hear every prediction.
function setPointer(id) {
  pointer = id;
  cancelAnimationFrame(nextFrame);
  nextFrame = 0;
  byId("prediction").setAttribute("aria-live", id === null ? "polite" : "off");
}

function position(event) {
  const area = drawing.getBoundingClientRect();
  return {x: (event.clientX - area.left) / area.width * SIDE, y: (event.clientY - area.top) / area.height * SIDE};
}

function readSoon() {
  nextFrame ||= requestAnimationFrame(() => { nextFrame = 0; read(); });
}

drawing.addEventListener("pointerdown", event => {
  if (pointer !== null || event.button !== 0) return;
  const before = paper.example ? [] : paper.strokes ?? [];
  past.push(paper);
  paper = {strokes: [...before, {width: Number(byId("stroke").value), points: [position(event)]}]};
  setPointer(event.pointerId);
  drawing.setPointerCapture(pointer);
  readSoon();
});
drawing.addEventListener("pointermove", event => {
  if (event.pointerId !== pointer) return;
  paper.strokes.at(-1).points.push(...(event.getCoalescedEvents?.() ?? []).map(position), position(event));
  readSoon();
});
drawing.addEventListener("lostpointercapture", event => {
  if (event.pointerId !== pointer) return;
  setPointer(null);
  read();
});
byId("clear").addEventListener("click", () => replace({strokes: []}));
byId("undo").addEventListener("click", undo);
document.addEventListener("keydown", event => {
  if (event.key !== "z" || event.shiftKey || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  undo();
});

// ---- pictures

async function openPicture(file) {
  const mine = {message: "Reading the picture …"};
  replace(mine);
  let next;
  try {
    next = readPicture(await decode(file));
  } catch {
    next = {message: `${file.name || "The file"} is not an image that this browser can read.`};
  }
  if (paper === mine) paper = next;  // unless something newer is there
  else past.splice(past.indexOf(mine), 1, next);
  read();
}

async function decode(file) {
  if (file.type === "image/svg+xml") return decodeSVG(file);  // which createImageBitmap does not know
  const [start, end] = await Promise.all([file.slice(0, 8), file.slice(-64)].map(part => part.text()));
  if (start.includes("PNG") && !end.includes("IEND")) throw new Error("truncated");  // some browsers show the half of it
  return createImageBitmap(file, {colorSpaceConversion: "none"});
}

async function decodeSVG(file) {
  const image = new Image(), address = URL.createObjectURL(file);
  try {
    image.src = address;
    await image.decode();
    return image;
  } finally {
    URL.revokeObjectURL(address);
  }
}

// Reduce the picture, strip by strip because a canvas has a maximum size, and find its digit.
function readPicture(image) {
  const width = image.width || MAX_SIZE, height = image.height || MAX_SIZE;  // an SVG need not have a size
  const factor = Math.ceil(Math.max(width, height) / MAX_SIZE), step = factor * Math.max(1, Math.floor(2 ** 20 / (width * factor)));
  const strip = make("canvas"), strips = [];
  strip.width = width;
  for (let top = 0; top < height; top += step) {
    const rows = strip.height = Math.min(step, height - top), context = strip.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, -top, width, height);
    strips.push(readColours(context.getImageData(0, 0, width, rows).data, width, rows, factor));
  }
  const channels = [0, 1, 2, 3].map(k => Float32Array.from(strips.flatMap(strip => [...strip[k]])));
  const colours = fillTransparent(channels), columns = Math.ceil(width / factor), rows = Math.ceil(height / factor);
  const canvas = Object.assign(make("canvas"), {width: columns, height: rows}), shown = new ImageData(columns, rows);
  colours.forEach((channel, i) => channel.forEach((value, k) => { shown.data[4 * k + i] = 255 * value; shown.data[4 * k + 3] = 255; }));
  canvas.getContext("2d").putImageData(shown, 0, 0);
  return {canvas, found: readDigit(colours, columns, rows)};
}

byId("file").addEventListener("change", event => {
  if (event.target.files[0]) openPicture(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) openPicture(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => {
  if (event.clipboardData.files[0]) openPicture(event.clipboardData.files[0]);
});

// ---- test images: one below the other in one picture

const sprite = new Image();
sprite.addEventListener("load", () => {
  const canvas = make("canvas"), count = DATA.images.length;
  canvas.width = 28;
  canvas.height = 28 * count;
  const context = canvas.getContext("2d");
  context.drawImage(sprite, 0, 0);
  const {data} = context.getImageData(0, 0, 28, 28 * count);
  DATA.images.forEach(({index, label}, k) => {
    const small = make("canvas"), pixels = Float32Array.from({length: 784}, (_, i) => data[4 * (784 * k + i)] / 255);
    Object.assign(small, {id: `image-${k}`, title: `Test image ${index}, labelled ${label}`});
    small.setAttribute("role", "option");
    small.setAttribute("aria-label", small.title);
    small.addEventListener("click", () => pick(k));
    byId("images").append(small);
    testImages.push({canvas: small, pixels, text: `Test image ${index}, unchanged. Its label: ${label}.`});
  });
  paintTestImages();
});
sprite.src = `data:image/png;base64,${DATA.sprite}`;

function paintTestImages() {
  testImages.forEach(({canvas, pixels}) => paint(canvas, pixels, 28, 28));
}

function pick(number) {
  const {canvas, pixels, text} = testImages[number];
  testImages.forEach(image => mark(image.canvas, image.canvas === canvas));
  byId("images").setAttribute("aria-activedescendant", canvas.id);
  replace({pixels, text, number});
  if (byId("prediction").getBoundingClientRect().top < 0) byId("answer").scrollIntoView();
}

const ARROWS = {ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowUp: [0, -1]};

byId("images").addEventListener("keydown", event => {
  const [dx, dy] = ARROWS[event.key] ?? [0, 0];
  if (!dx && !dy) return;
  event.preventDefault();
  pick(((paper.number ?? (dx + dy > 0 ? -1 : 0)) + dx + dy + testImages.length) % testImages.length);
});

// ---- layers

function addLayer({name, kernel, out, size, parameters}, layer) {
  const section = make("div", "", "layer"), title = make("h3", `${name} `), row = make("div", "", "maps");
  const inputs = layer ? convolutions[layer - 1].out : 1;
  title.append(make("span", `${kernel} × ${kernel}, ${inputs} → ${out} channels, maps of ${size} × ${size}, ` +
    `${parameters.toLocaleString("en")} parameters`));
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", name);
  for (let channel = 0; channel < out; channel++) {
    const canvas = make("canvas");
    canvas.id = `map-${layer}-${channel}`;
    canvas.title = `map ${channel + 1}`;
    canvas.setAttribute("role", "option");
    canvas.setAttribute("aria-label", `${name}, map ${channel + 1} of ${out}`);
    const choose = event => {
      const area = canvas.getBoundingClientRect(), at = part => Math.min(Math.max(Math.floor(part * size), 0), size - 1);
      choosePixel({layer, channel, x: at((event.clientX - area.left) / area.width), y: at((event.clientY - area.top) / area.height)}, "off");
    };
    canvas.addEventListener("pointermove", event => { if (wide.matches && event.pointerType === "mouse") choose(event); });
    canvas.addEventListener("click", choose);
    row.append(canvas);
  }
  section.append(title, row);
  byId("layers").append(section);
  const {layers} = DATA.network, place = layers.indexOf(convolutions[layer]);
  if (layers[place + 1].type === "max pool")
    byId("layers").append(make("p", "Max pool keeps the largest of 2 × 2 values: height and width of the maps are halved.", "hint"));
}

const wide = matchMedia("(min-width: 60rem)");

// On a wide screen, the details stay beside the maps; on a narrow one, they follow the layer.
function choosePixel(pixel, live) {
  chosen = pixel;
  byId("about").setAttribute("aria-live", live);
  placeDetail();
  renderChosen();
}

function placeDetail() {
  if (wide.matches) byId("explorer").append(byId("detail"));
  else byId("layers").querySelectorAll(".layer")[chosen.layer].after(byId("detail"));
}

byId("layers").addEventListener("keydown", event => {
  const [dx, dy] = ARROWS[event.key] ?? [0, 0], {layer, channel, x, y} = chosen;
  if (!dx && !dy) return;
  event.preventDefault();
  const within = (value, size) => Math.min(Math.max(value, 0), size - 1), next = within(layer + dy, convolutions.length);
  const {out, size} = convolutions[next];
  if (event.shiftKey) choosePixel({layer, channel, x: within(x + dx, convolutions[layer].size), y: within(y + dy, convolutions[layer].size)}, "polite");
  else choosePixel({layer: next, channel: within(channel + dx, out), x: within(x, size), y: within(y, size)}, "polite");
  byId(`map-${chosen.layer}-${chosen.channel}`).scrollIntoView({block: "nearest"});
});

convolutions.forEach(addLayer);
byId("layers").append(make("p", "At the end, each map is averaged, and a linear layer with " +
  `${DATA.network.layers.at(-1).parameters} parameters turns the averages into the ten probabilities.`, "hint"));

// ---- the start

if (location.hostname.endsWith(".github.io")) {  // there, the README and the notebooks are on GitHub
  const repository = `https://github.com/${location.hostname.split(".")[0]}${location.pathname.match(/^\/[^/]*/)[0]}`;
  for (const link of document.querySelectorAll("a[href^='../']")) link.href = `${repository}/blob/HEAD/${link.getAttribute("href").slice(3)}`;
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readPalette();
  read();
  paintTestImages();
});
wide.addEventListener("change", placeDetail);
readPalette();
placeDetail();
const arc = (x, y, radius, from, to) => Array.from({length: 25}, (_, k) => (from + (to - from) * k / 24) * Math.PI / 180)
  .map(angle => ({x: x + 1.1 * radius * Math.cos(angle), y: y + radius * Math.sin(angle)}));
paper = {strokes: [{width: 16, points: [...arc(95, 68, 36, -150, 80), ...arc(97, 133, 40, -80, 150)]}], example: true};  // a 3
read();
