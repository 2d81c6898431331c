// The page: drawing, pictures and test images; the prediction, and why it is made; the feature maps, and how one pixel is computed.

const byId = id => document.getElementById(id);
const DATA = JSON.parse(byId("data").textContent);
const decode64 = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const weights = new Float32Array(decode64(DATA.weights).buffer);
const convolutions = DATA.network.layers.filter(layer => layer.type === "convolution");
const last = convolutions.length - 1;
const SIDE = 280;             // of the drawing area: ten of its pixels for one that the network sees
const SURE = 0.95;            // a lower confidence is doubted
const VISIBLE = 0.1;          // the ink that one sees
const STEPS = 100;            // that can be undone
const BLANK = new Float32Array(784);
const drawing = byId("drawing");
const palette = {};           // the colours of the style sheet as [red, green, blue]
const shades = new Uint32Array(256);  // the colours from paper to ink, as an ImageData holds them
const testImages = [];        // each {canvas, pixels}
const mapCanvases = [];       // of each layer
const past = [], future = []; // what Undo and Redo bring back

// What is on the drawing area: {ink}, SIDE x SIDE values from 0, paper, to 1. The ink is scaled and centred before the network sees
// it, unless it is `exact`: an image of 28 x 28 pixels, enlarged. A picture also has {canvas, found}, a test image has its {number};
// `own` says that the reader drew or changed it. Or {message}: nothing but a line.
let paper;
let pointer = null;           // what draws now: {id, type, place}; a second finger does not
let nextFrame = 0;            // the request to read the drawing before the next frame, or 0
let result = null;            // what the network makes of the image, or null
let chosen = {layer: 1, channel: 2, x: 0, y: 0};  // a pixel of a feature map
let pinned = false;           // whether it was chosen for good; until then, the mouse previews
let cursor = {x: 14, y: 14};  // the pixel of the image that the keyboard switches

// ---- colours and small pictures

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "frame", "for", "against", "neutral"])
    palette[name] = style.getPropertyValue(`--${name}`).match(/[0-9a-f]{2}/gi).map(digits => parseInt(digits, 16));
  shades.forEach((_, k) => { shades[k] = pack(mix(palette.paper, palette.ink, k / 255)); });
}

const mix = (from, to, part) => from.map((value, i) => value + part * (to[i] - value));
const pack = ([red, green, blue]) => 0xff000000 | blue << 16 | green << 8 | red;

// Paint values from 0, paper, to 1, ink.
function paint(canvas, values, size) {
  const colours = coloursOf(canvas, size);
  for (let k = 0; k < colours.length; k++) colours[k] = shades[Math.round(255 * values[k])];
  canvas.getContext("2d").putImageData(canvas.image, 0, 0);
}

// The colours that the canvas shows next; they are kept, and so is its size.
function coloursOf(canvas, size) {
  if (canvas.image?.width !== size) {
    Object.assign(canvas, {width: size, height: size, image: new ImageData(size, size)});
    canvas.colours = new Uint32Array(canvas.image.data.buffer);
  }
  return canvas.colours;
}

const plain = make("canvas");

// Paint values enlarged, with a frame around a box of them, through which a single one is still seen.
function paintFramed(canvas, values, size, box) {
  const brush = canvas.getContext("2d"), scale = canvas.width / size;
  paint(plain, values, size);
  brush.imageSmoothingEnabled = false;
  brush.drawImage(plain, 0, 0, canvas.width, canvas.height);
  if (!box) return;
  const line = Math.min(6, box.width * scale / 4);
  brush.strokeStyle = `rgb(${palette.frame})`;
  brush.lineWidth = line;
  brush.strokeRect(box.left * scale + line / 2, box.top * scale + line / 2, box.width * scale - line, box.height * scale - line);
}

// The pixel of a canvas at which an event is.
function pixelAt(event, size) {
  const area = event.target.getBoundingClientRect(), border = event.target.clientLeft;
  const within = (place, length) => clamp(Math.floor((place - border) / (length - 2 * border) * size), size);
  return {x: within(event.clientX - area.left, area.width), y: within(event.clientY - area.top, area.height)};
}

const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);

// ---- texts

function make(tag, text = "", className = "") {
  return Object.assign(document.createElement(tag), {textContent: text, className});
}

function percent(value) {
  return `${value < 0.0005 ? "<\u00a00.1" : value > 0.9995 ? ">\u00a099.9" : (100 * value).toFixed(1)}\u00a0%`;
}

const formatted = value => value.toFixed(3).replace("-0.000", "0.000").replace("-", "−");
const rounded = value => value.toLocaleString("en", {maximumSignificantDigits: 4});
const bracketed = value => value < 0 ? `(${formatted(value)})` : formatted(value);
const added = value => `${value < 0 ? "−" : "+"} ${formatted(Math.abs(value))}`;

// ---- what is shown

// Why the reading may be wrong. Ink that touches the border counts only if the network is not sure.
function describeDoubts(confidence, doubts) {
  const sure = confidence >= SURE, reasons = doubts.filter(doubt => !sure || doubt !== "touches the border").join(", ");
  if (sure) return reasons && `. Doubtful: ${reasons}`;
  return reasons ? `. Not sure: ${reasons}` : ". Not sure";
}

// Give the network these 784 pixels, and say how they were made.
function show(pixels, preparation, doubts) {
  result = forward(DATA.network, weights, pixels);
  const probabilities = result.logProbabilities.map(Math.exp);
  const [first, second] = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  Object.assign(result, {probabilities, first, second});
  const next = probabilities[second] < 0.0005 ? "" : `, next ${second} (${percent(probabilities[second])})`;
  const label = paper.number === undefined ? "" : `. Its label: ${DATA.images[paper.number].label}`;
  const doubt = describeDoubts(probabilities[first], doubts);
  render(first, `Prediction: ${first} (${percent(probabilities[first])})${next}${label}${doubt}`, preparation);
  if (!pointer) studyPatches(result);
}

// Show no image, and say why.
function showNothing(reason) {
  result = null;
  render("", reason, "");
}

function render(digit, prediction, preparation) {
  byId("digit").textContent = digit;
  byId("prediction").textContent = prediction;
  byId("preparation").textContent = preparation;
  renderButton("undo", past);
  renderButton("redo", future);
  markTestImage();
  renderBars();
  renderSeen();
  renderMaps();
  if (!pointer) renderChosen();
  renderDecision();
  renderPatches();
}

function renderButton(id, steps) {
  if (!steps.length && document.activeElement === byId(id)) byId("clear").focus();  // a disabled button loses the focus
  byId(id).disabled = !steps.length;
}

function mark(option, selected) {
  option.classList.toggle("chosen", selected);
  option.setAttribute("aria-selected", selected);
}

function markTestImage() {
  const before = byId("images").querySelector(".chosen"), now = testImages[paper.number]?.canvas;
  if (before) mark(before, false);
  if (now) mark(now, true);
}

function renderBars() {
  [...byId("bars").tBodies[0].rows].forEach(({cells}, digit) => {
    cells[1].firstChild.style.width = `${100 * (result?.probabilities[digit] ?? 0)}%`;
    cells[2].textContent = result ? formatted(result.logits[digit]) : "";
    cells[3].textContent = result ? percent(result.probabilities[digit]) : "";
  });
}

// With a frame around the keyboard's pixel, and the ink of the pixel that was chosen last.
function renderSeen() {
  if (byId("pixel").textContent) describePixel();
  const focused = document.activeElement === byId("seen");
  paintFramed(byId("seen"), result?.pixels ?? BLANK, 28, focused && {left: cursor.x, top: cursor.y, width: 1, height: 1});
}

function renderMaps() {
  mapCanvases.forEach((canvases, layer) => canvases.forEach((canvas, channel) => {
    paint(canvas, shadeMap(layer, channel), convolutions[layer].size);
  }));
}

// The values of a map, from its lowest, 0, to its highest, 1.
function shadeMap(layer, channel) {
  const {size} = convolutions[layer], area = size ** 2, values = new Float32Array(area);
  if (!result) return values;
  values.set(result.maps[layer].data.subarray(channel * area, (channel + 1) * area));
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  for (let k = 0; k < area; k++) values[k] = high > low ? (values[k] - low) / (high - low) : 0;
  return values;
}

// ---- how it decides

// The two digits that are compared: the winner and the runner-up, unless the reader chooses others.
function comparedDigits() {
  const digit = chosenDigit("winner") ?? result.first;
  const rival = chosenDigit("rival");
  return [digit, rival === null || rival === digit ? usualRival(digit) : rival];
}

const chosenDigit = id => byId(id).value === "" ? null : Number(byId(id).value);

// The runner-up, or the winner for the runner-up itself.
const usualRival = digit => digit === result.second ? result.first : result.second;

function compareWinner() {
  for (const id of ["winner", "rival"]) byId(id).value = "";
}

function renderDecision() {
  byId("reasons").hidden = !result;
  if (!result) return;
  const {first, logits, probabilities} = result, [digit, rival] = comparedDigits(), usual = usualRival(digit);
  if (chosenDigit("rival") === digit) byId("rival").value = "";  // no digit is compared with itself
  byId("winner").options[0].text = `${first}, the winner`;
  byId("rival").options[0].text = `${usual}, the ${usual === first ? "winner" : "runner-up"}`;
  const {parts, bias, difference} = compareDigits(result, digit, rival);
  const longest = Math.abs(parts[0].product) || 1;
  for (const option of byId("winner").options) option.disabled = option.value === String(chosenDigit("rival"));
  for (const option of byId("rival").options) option.disabled = option.value === String(digit);
  byId("digits").textContent = `${digit} − its weight for ${rival}`;
  byId("for").textContent = `for ${digit} →`;
  byId("against").textContent = `← for ${rival}`;
  parts.forEach((part, place) => renderProduct(byId("products").children[place], part, longest));
  byId("total").textContent = `Sum of the products: ${formatted(difference - bias)}. Difference of the biases: ${formatted(bias)}. ` +
    `Together: ${formatted(difference)}, the logit of ${digit} (${formatted(logits[digit])}) minus that of ${rival} ` +
    `(${formatted(logits[rival])}). All numbers are rounded.`;
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  byId("softmax").replaceChildren(
    `For ${digit}: `, ...power(logits[digit]), ` divided by about ${rounded(total)}, or ${percent(probabilities[digit])}. `,
    `So ${digit} is `, ...power(difference), ` ≈ ${rounded(Math.exp(difference))} times as probable as ${rival}.`);
}

const power = exponent => ["e", make("sup", formatted(exponent))];

function renderProduct(row, {map, average, weight, rivalWeight, product}, longest) {
  const [canvas, name, bar, formula, value] = row.children;
  row.dataset.map = map;
  paint(canvas, shadeMap(last, map), convolutions[last].size);
  name.textContent = `Map ${map + 1}`;
  bar.className = product < 0 ? "against" : "for";
  bar.style.width = `${50 * Math.abs(product) / longest}%`;
  formula.textContent = `${formatted(average)} × (${formatted(weight)} − ${bracketed(rivalWeight)})`;
  value.textContent = `${product < 0 ? "" : "+"}${formatted(product)}`;
}

function addProduct() {
  const row = make("li");
  row.append(make("canvas"), make("span"), make("div"), make("small"), make("b"));
  row.addEventListener("click", () => {
    const channel = Number(row.dataset.map);
    pin({layer: last, channel, ...strongestPixel(last, channel)});
  });
  byId("products").append(row);
}

for (const [id, first] of [["winner", "the winner"], ["rival", "the runner-up"]]) {
  byId(id).append(new Option(first, ""), ...Array.from({length: 10}, (_, digit) => new Option(digit, digit)));
  byId(id).addEventListener("change", () => {
    renderDecision();
    renderPatches();
  });
}

// ---- which strokes count

const whenIdle = work => window.requestIdleCallback ? requestIdleCallback(work, {timeout: 100}) : setTimeout(work, 20);

// Empty one patch of the image after the other, and let the network read what is left. It stops when something newer is read.
function studyPatches(mine) {
  const centres = findPatches(mine.pixels), patches = [];
  const work = () => {
    const start = performance.now();
    while (centres.length && result === mine && performance.now() < start + 10) {
      const {x, y} = centres.pop();
      patches.push({x, y, logits: forward(DATA.network, weights, emptyPatch(mine.pixels, x, y)).logits});
    }
    if (result !== mine) return;
    if (centres.length) return whenIdle(work);
    mine.patches = patches;
    renderPatches();
  };
  whenIdle(work);
}

// Colour the ink by what it does to the difference of the two logits; grey until that is known.
function renderPatches() {
  const patches = result?.patches;
  byId("legend").replaceChildren(result ? "Computing …" : "");
  byId("patches").textContent = "";
  if (!patches) return paintEffects(new Float32Array(784));
  const [digit, rival] = comparedDigits(), difference = result.logits[digit] - result.logits[rival];
  paintEffects(weighPixels(patches, difference, digit, rival));
  byId("legend").replaceChildren(make("b", "Blue", "for"), ` speaks for ${digit}, `, make("b", "orange", "against"), ` for ${rival}.`);
  byId("patches").textContent = describePatches(patches, difference, digit, rival);
}

function paintEffects(effects) {
  const canvas = byId("strokes"), colours = coloursOf(canvas, 28), pixels = result?.pixels ?? BLANK;
  const strongest = effects.reduce((most, effect) => Math.max(most, Math.abs(effect)), 1);
  effects.forEach((effect, k) => {
    const ink = mix(palette.neutral, palette[effect < 0 ? "against" : "for"], Math.abs(effect) / strongest);
    colours[k] = pack(mix(palette.paper, ink, pixels[k]));
  });
  canvas.getContext("2d").putImageData(canvas.image, 0, 0);
}

// The patches whose removal changes the difference most, either way.
function describePatches(patches, difference, digit, rival) {
  const left = patches.map(({x, y, logits}) => ({x, y, difference: logits[digit] - logits[rival]}));
  left.sort((a, b) => a.difference - b.difference);
  const describe = ({x, y, difference}) => `around row ${y + 1}, column ${x + 1}, it is ${formatted(difference)}`;
  return `The difference of the two logits is ${formatted(difference)}. Without the 5 × 5 pixels ${describe(left[0])}; ` +
    `without those ${describe(left.at(-1))}. Below 0, ${rival} is ahead of ${digit}.`;
}

// ---- how the chosen pixel is computed

function renderChosen() {
  byId("detail").hidden = !result;
  byId("detail").classList.toggle("pinned", pinned);
  if (!result) return;
  const {layer, channel, x, y} = chosen, {name, out, size} = convolutions[layer];
  const {left, top, size: side} = receptiveField(DATA.network.layers, layer, x, y);
  const [x0, y0, x1, y1] = [left, top, left + side, top + side].map(value => clamp(value, 29));
  byId("about").textContent = `${name}, map ${channel + 1} of ${out}, row ${y + 1}, column ${x + 1}`;
  paintFramed(byId("enlarged"), shadeMap(layer, channel), size, {left: x, top: y, width: 1, height: 1});
  paintFramed(byId("field"), result.pixels, 28, {left: x0, top: y0, width: x1 - x0, height: y1 - y0});
  byId("caption").textContent = `Its receptive field: it depends on these ${x1 - x0}\u00a0×\u00a0${y1 - y0} pixels of the image.`;
  byId("sums").replaceChildren(...explanation(explain(result.maps[layer], convolutions[layer], channel, x, y), layer));
}

// The pixel of a map that ReLU leaves largest.
function strongestPixel(layer, channel) {
  const {size} = convolutions[layer], {data, shifts} = result.maps[layer], area = size ** 2;
  const heights = Array.from(data.subarray(channel * area, (channel + 1) * area), value => Math.abs(value - shifts[channel]));
  const place = heights.indexOf(Math.max(...heights));
  return {x: place % size, y: Math.floor(place / size)};
}

// The sum of weights times values, the largest contributions first; ReLU; batch normalisation.
function explanation({parts, sum, positive, factor, shift, value}, layer) {
  const most = 3, rest = parts.slice(most), total = rest.reduce((before, part) => before + part.sum, 0);
  const others = `The other ${rest.length} maps: ≈ ${formatted(total)} (${rest.map(part => formatted(part.sum)).join(", ")})`;
  return [
    make("p", `Weight × value, from ${describeInput(layer)} All numbers are rounded.`),
    ...parts.slice(0, most).map(part => products(layer === 0 ? "Image" : `Map ${part.map + 1}`, part)),
    ...rest.length ? [make("p", others)] : [],
    make("p", `Convolution, the sum of all: ≈ ${formatted(sum)}`),
    make("p", `ReLU: max(0, ${formatted(sum)}) = ${formatted(positive)}`),
    make("p", `Batch normalisation: ${formatted(positive)} × ${bracketed(factor)} ${added(shift)} ≈ ${formatted(value)}, ` +
      "the value in the map"),
  ];
}

function describeInput(layer) {
  const {mean, std, layers} = DATA.network, [paper, ink] = [0, 1].map(value => formatted((value - mean) / std));
  if (layer === 0) return `the image. It is normalised first: (ink − ${mean}) / ${std}, so that paper is ${paper} and full ink ${ink}.`;
  const before = layers[layers.indexOf(convolutions[layer]) - 1].type === "max pool" ? "maps after max pool" : "maps before";
  const border = convolutions[layer].padding ? " Beyond their border, values are 0: so the maps keep their size." : "";
  return `the ${before}.${border}`;
}

function products(name, {weights, values, sum}) {
  const table = make("table"), side = Math.sqrt(weights.length);
  table.append(make("caption", `${name}: the sum is ≈ ${formatted(sum)}`));
  for (let start = 0; start < weights.length; start += side) {
    const row = table.insertRow();
    for (let k = start; k < start + side; k++) row.insertCell().textContent = `${formatted(weights[k])}\n× ${formatted(values[k])}`;
  }
  return table;
}

// ---- the drawing area

// Which of the 784 pixels a place of the drawing area belongs to.
const pixelOf = k => Math.floor(k / SIDE / 10) * 28 + Math.floor(k % SIDE / 10);

// The image that the network sees, in the drawing area's size.
const enlarge = pixels => Float32Array.from({length: SIDE ** 2}, (_, k) => pixels[pixelOf(k)]);

// The reverse: each pixel is the mean of its 10 x 10 places.
function reduce(ink) {
  const pixels = new Float64Array(784);
  ink.forEach((value, k) => { pixels[pixelOf(k)] += value / 100; });
  return Float32Array.from(pixels);
}

// Draw or erase a straight line with round ends, `width` wide, in the ink.
function drawLine(ink, from, to, width, erase) {
  const radius = width / 2, dx = to.x - from.x, dy = to.y - from.y, square = dx * dx + dy * dy;
  const reach = (a, b) => [Math.min(a, b) - radius, Math.max(a, b) + radius].map(value => clamp(Math.round(value), SIDE));
  const [left, right] = reach(from.x, to.x), [top, bottom] = reach(from.y, to.y);
  for (let y = top; y <= bottom; y++)
    for (let x = left; x <= right; x++) {
      const u = x + 0.5 - from.x, v = y + 0.5 - from.y, part = square && Math.min(Math.max((u * dx + v * dy) / square, 0), 1);
      const distance = Math.sqrt((u - part * dx) ** 2 + (v - part * dy) ** 2);
      const cover = Math.min(Math.max(radius + 0.5 - distance, 0), 1), k = y * SIDE + x;
      ink[k] = erase ? Math.min(ink[k], 1 - cover) : Math.max(ink[k], cover);
    }
}

const erasing = () => byId("eraser").getAttribute("aria-pressed") === "true";

// With the eraser, a picture gives way to the image that the network sees of it.
function redraw() {
  if (paper.canvas && !(erasing() && paper.found)) drawPicture(paper);
  else paint(drawing, paper.ink ?? new Float32Array(SIDE ** 2), SIDE);
}

// The picture, as large as it fits, with the box of the digit.
function drawPicture({canvas, found}) {
  const scale = SIDE / Math.max(canvas.width, canvas.height), width = canvas.width * scale, height = canvas.height * scale;
  const left = (SIDE - width) / 2, top = (SIDE - height) / 2, brush = drawing.getContext("2d");
  brush.clearRect(0, 0, SIDE, SIDE);
  brush.drawImage(canvas, left, top, width, height);
  if (!found) return;
  brush.strokeStyle = `rgb(${palette.frame})`;
  brush.lineWidth = 2;
  const {box} = found;
  brush.strokeRect(left + box.left * scale - 1, top + box.top * scale - 1, box.width * scale + 2, box.height * scale + 2);
}

// Read what is on the drawing area.
function read() {
  redraw();
  if (paper.message) return showNothing(paper.message);
  if (paper.canvas && !paper.found) return showNothing("The picture shows no digit: its ink must stand out from its background.");
  const found = paper.found ?? prepareInk(paper);
  if (found) show(found.pixels, describePaper(paper), found.doubts);
  else showNothing("There is no ink yet: draw a digit, or pick a test image.");
}

// The image of what is drawn, and the reasons for doubt once the stroke has ended; null if there is no ink.
function prepareInk({ink, exact}) {
  const judge = (values, side) => pointer ? [] : judgeInk(values, side, side);
  if (exact) {
    const pixels = reduce(ink);
    return pixels.some(value => value > 0) ? {pixels, doubts: judge(pixels, 28)} : null;
  }
  const found = normalizeInk(ink, SIDE, SIDE);
  return found && {pixels: found.pixels, doubts: [...found.doubts, ...judge(ink, SIDE)]};
}

function describePaper({canvas, exact, number, own}) {
  const prepared = "is scaled to 20 × 20 pixels, and its centre of mass is put in the middle, as in MNIST. Thin strokes are widened.";
  if (canvas) return `The digit in the picture ${prepared}`;
  if (!exact) return `The drawing ${prepared}`;
  if (number === undefined) return "The image, changed here.";
  return `Test image ${DATA.images[number].index}, ${own ? "changed here" : "unchanged"}.`;
}

// Put something else on the drawing area; Undo brings back what was there. A stroke that is being drawn ends.
function put(next) {
  endStroke();
  if (!next.own) compareWinner();
  past.push(paper);
  if (past.length > STEPS) past.shift();
  future.length = 0;
  paper = next;
}

function replace(next) {
  put(next);
  read();
}

// Go one step back, or forward again.
function step(from, to) {
  if (!from.length) return;
  endStroke();
  to.push(paper);
  paper = from.pop();
  read();
}

const undo = () => step(past, future), redo = () => step(future, past);

// While a stroke is drawn, a screen reader does not hear every prediction.
function startStroke({id, type}) {
  pointer = {id, type};
  byId("prediction").setAttribute("aria-live", "off");
}

function endStroke() {
  pointer = null;
  cancelAnimationFrame(nextFrame);
  nextFrame = 0;
  byId("prediction").setAttribute("aria-live", "polite");
}

function readSoon() {
  nextFrame ||= requestAnimationFrame(() => { nextFrame = 0; read(); });
}

function position({clientX, clientY}) {
  const area = drawing.getBoundingClientRect();
  return {x: (clientX - area.left) / area.width * SIDE, y: (clientY - area.top) / area.height * SIDE};
}

function extendStroke(event) {
  const place = position(event);
  drawLine(paper.ink, pointer.place ?? place, place, Number(byId("stroke").value), erasing());
  pointer.place = place;
}

// What a stroke changes: a copy of what is there. It starts anew if nothing is there; the pen also if that is not the reader's own.
function copyPaper() {
  const {ink = new Float32Array(SIDE ** 2), exact, found, number, own} = paper;
  const blank = !ink.some(value => value > 0);
  if (blank || !own && !erasing()) return {ink: new Float32Array(SIDE ** 2), own: true};
  return {ink: ink.slice(), exact: exact || Boolean(found), number, own: true};
}

drawing.addEventListener("pointerdown", event => {
  if (event.button !== 0) return;
  if (pointer?.type === "touch" && event.pointerType === "pen") undo();  // the palm rested first
  if (pointer) return;
  put(copyPaper());
  startStroke({id: event.pointerId, type: event.pointerType});
  drawing.setPointerCapture(event.pointerId);
  extendStroke(event);
  readSoon();
});
drawing.addEventListener("pointermove", event => {
  if (event.pointerId !== pointer?.id) return;
  const events = event.getCoalescedEvents?.() ?? [];
  (events.length ? events : [event]).forEach(extendStroke);
  readSoon();
});
drawing.addEventListener("lostpointercapture", event => {
  if (event.pointerId !== pointer?.id) return;
  endStroke();
  read();
});
byId("clear").addEventListener("click", () => {
  byId("eraser").setAttribute("aria-pressed", false);
  compareWinner();
  if (paper.message || paper.canvas || paper.ink.some(value => value > 0)) replace({ink: new Float32Array(SIDE ** 2), own: true});
});
byId("eraser").addEventListener("click", () => {
  byId("eraser").setAttribute("aria-pressed", !erasing());
  redraw();
});
byId("undo").addEventListener("click", undo);
byId("redo").addEventListener("click", redo);
document.addEventListener("keydown", event => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  const key = /^[a-z]$/i.test(event.key) ? event.key.toUpperCase() : event.code.replace("Key", "");  // a layout may lack Latin letters
  if (key !== "Z" && key !== "Y") return;
  event.preventDefault();
  if (key === "Y" || event.shiftKey) redo();
  else undo();
});

// ---- the image that the network sees, pixel by pixel

function changePixels(pixels) {
  replace({ink: enlarge(pixels), exact: true, number: paper.number, own: true});
}

// Ink becomes paper, and paper ink. What is paler than VISIBLE counts as paper.
function switchPixel({x, y}) {
  cursor = {x, y};
  const pixels = Float32Array.from(result?.pixels ?? BLANK), k = y * 28 + x;
  pixels[k] = pixels[k] < VISIBLE ? 1 : 0;
  changePixels(pixels);
  describePixel();
}

function describePixel() {
  const {x, y} = cursor, ink = (result?.pixels ?? BLANK)[y * 28 + x];
  byId("pixel").textContent = `Row ${y + 1}, column ${x + 1}: ink ${ink.toFixed(2)}.`;
}

byId("seen").addEventListener("click", event => switchPixel(pixelAt(event, 28)));
byId("strokes").addEventListener("click", event => {
  const {x, y} = pixelAt(event, 28);
  if (result) changePixels(emptyPatch(result.pixels, x, y));
});
byId("seen").addEventListener("focus", renderSeen);
byId("seen").addEventListener("blur", renderSeen);
byId("seen").addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const [dx, dy] = ARROWS[event.key] ?? [0, 0];
  if (dx || dy) cursor = {x: clamp(cursor.x + dx, 28), y: clamp(cursor.y + dy, 28)};
  else if (event.key === " " || event.key === "Enter") switchPixel(cursor);
  else if (event.key === "Delete" && result) changePixels(emptyPatch(result.pixels, cursor.x, cursor.y));
  else return;
  event.preventDefault();
  renderSeen();
  describePixel();
});

// ---- pictures

async function openPicture(file) {
  const mine = {message: "Reading the picture …"};
  replace(mine);
  const next = await readFile(file);
  for (const steps of [past, future]) {  // something newer may be there, and Undo or Redo lead here
    const place = steps.indexOf(mine);
    if (place >= 0) steps[place] = next;
  }
  if (paper !== mine) return;
  paper = next;
  read();
}

const BLOCKED = "This browser does not let a page read pictures (its protection against fingerprinting). " +
  "Drawings and test images work.";

// What to put on the drawing area for a file, or for a drop or paste without one.
async function readFile(file) {
  if (!file) return {message: "That is no picture file: a link or a text cannot be read."};
  if (!canReadCanvas()) return {message: BLOCKED};
  try {
    return await readPicture(await decode(file));
  } catch {
    return {message: `${file.name || "The file"} is not an image that this browser can read.`};
  }
}

// Some browsers return other colours than were drawn.
function canReadCanvas() {
  const brush = make("canvas").getContext("2d"), image = new ImageData(8, 1);
  image.data.forEach((_, k) => { image.data[k] = k % 4 === 3 ? 255 : 8 * k; });
  brush.putImageData(image, 0, 0);
  return brush.getImageData(0, 0, 8, 1).data.every((value, k) => value === image.data[k]);
}

async function decode(file) {
  if (file.type === "image/svg+xml") return decodeSVG(file);  // which createImageBitmap does not know
  if (isTruncated(new Uint8Array(await file.arrayBuffer()))) throw new Error("truncated");  // some browsers show the half of it
  return createImageBitmap(file, {colorSpaceConversion: "none"});
}

// Whether a PNG or a JPEG lacks its end. A JPEG is a chain of segments up to its scan, which ends with FF D9.
function isTruncated(bytes) {
  if (bytes[0] === 0x89) return !new TextDecoder("latin1").decode(bytes.slice(-64)).includes("IEND");
  if (bytes[0] !== 0xff) return false;
  let place = 2;
  while (place + 4 <= bytes.length && bytes[place + 1] !== 0xda)
    place += bytes[place + 1] === 0xff ? 1 : 2 + 256 * bytes[place + 2] + bytes[place + 3];  // FF may be repeated before a marker
  while (place < bytes.length && !(bytes[place] === 0xff && bytes[place + 1] === 0xd9)) place++;
  return place >= bytes.length;
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

// Reduce the picture, strip by strip because a canvas has a maximum size, and find its digit. Between the strips, the page can react.
async function readPicture(image) {
  const width = image.width || MAX_SIZE, height = image.height || MAX_SIZE;  // an SVG need not have a size
  const factor = Math.ceil(Math.max(width, height) / MAX_SIZE), step = factor * Math.max(1, Math.floor(2 ** 20 / (width * factor)));
  const strip = make("canvas"), strips = [];
  strip.width = width;
  for (let top = 0; top < height; top += step) {
    const rows = strip.height = Math.min(step, height - top), context = strip.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, -top, width, height);
    strips.push(reduceImage(context.getImageData(0, 0, width, rows).data, width, rows, factor));
    await new Promise(resolve => setTimeout(resolve));
  }
  const channels = [0, 1, 2, 3].map(k => Float32Array.from(strips.flatMap(strip => [...strip[k]])));
  const colours = fillTransparent(channels), columns = Math.ceil(width / factor), rows = Math.ceil(height / factor);
  const canvas = Object.assign(make("canvas"), {width: columns, height: rows}), shown = new ImageData(columns, rows);
  colours.forEach((channel, i) => channel.forEach((value, k) => { shown.data[4 * k + i] = 255 * value; shown.data[4 * k + 3] = 255; }));
  canvas.getContext("2d").putImageData(shown, 0, 0);
  const found = readDigit(colours, columns, rows);
  return {canvas, found, ink: found ? enlarge(found.pixels) : new Float32Array(SIDE ** 2)};
}

byId("file").addEventListener("change", event => {
  if (event.target.files[0]) openPicture(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  openPicture(event.dataTransfer.files[0]);
});
document.addEventListener("paste", event => {
  const [file] = event.clipboardData.files;
  if (file) openPicture(file);  // on Linux, a middle click pastes, too: mostly nothing
});

// ---- test images

async function addTestImages() {
  const stream = new Blob([decode64(DATA.pixels)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const groups = ["Misread:", "At random:"].map(name => addGroup(byId("images"), name));
  DATA.images.forEach(({index, label}, number) => {
    const misread = number < DATA.misread, canvas = make("canvas");
    const pixels = Float32Array.from(bytes.subarray(784 * number, 784 * (number + 1)), value => value / 255);
    setOption(canvas, `image-${number}`, `Test image ${index}, labelled ${label}${misread ? ", misread" : ""}`);
    canvas.addEventListener("click", () => pick(number));
    groups[misread ? 0 : 1].append(canvas);
    testImages.push({canvas, pixels});
  });
  paintTestImages();
}

function paintTestImages() {
  testImages.forEach(({canvas, pixels}) => paint(canvas, pixels, 28));
}

// A group of options in a list box, named by a line.
function addGroup(list, name) {
  const group = make("div"), title = make("p", name);
  title.id = `${list.id}-${list.children.length}`;
  title.setAttribute("aria-hidden", true);  // a list box holds options and groups alone
  group.setAttribute("role", "group");
  group.setAttribute("aria-labelledby", title.id);
  group.append(title);
  list.append(group);
  return group;
}

function setOption(canvas, id, name) {
  Object.assign(canvas, {id, title: name});
  canvas.setAttribute("role", "option");
  canvas.setAttribute("aria-label", name);
  mark(canvas, false);
}

// Show a test image. Undo skips those that were only looked at.
function pick(number) {
  if (paper.number !== undefined && !paper.own && past.length) paper = past.pop();
  replace({ink: enlarge(testImages[number].pixels), exact: true, number});
  byId("images").setAttribute("aria-activedescendant", `image-${number}`);
  testImages[number].canvas.scrollIntoView({block: "nearest", inline: "nearest"});
}

const ARROWS = {ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowUp: [0, -1]};

byId("images").addEventListener("keydown", event => {
  const next = nextImage(event.key);
  if (next === null || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  pick(next);
});

// The test image to which a key leads, or null.
function nextImage(key) {
  const count = testImages.length, [dx, dy] = ARROWS[key] ?? [0, 0], current = paper.number;
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (!dx && !dy) return null;
  if (current === undefined) return 0;
  return dx ? clamp(current + dx, count) : imageInRow(current, dy);
}

// The test image above or below another, nearest to its column; the same one if there is no such row.
function imageInRow(number, direction) {
  const places = testImages.map(({canvas}) => canvas.getBoundingClientRect()), {left, top} = places[number];
  const below = places.filter(place => direction * (place.top - top) > 1);
  if (!below.length) return number;
  const row = direction * Math.min(...below.map(place => direction * place.top));
  const distances = places.map(place => Math.abs(place.top - row) > 1 ? Infinity : Math.abs(place.left - left));
  return distances.indexOf(Math.min(...distances));
}

// ---- layers

function addLayer({name, kernel, out, size, parameters}, layer) {
  const group = addGroup(byId("layers"), ""), title = group.firstChild, {layers} = DATA.network;
  const pooled = layers[layers.indexOf(convolutions[layer]) - 1]?.type === "max pool";
  const inputs = layer ? convolutions[layer - 1].out : 1;
  const sizes = `${kernel} × ${kernel}, ${inputs} → ${out} maps, ${size} × ${size}`;
  title.append(make("b", name), ` ${pooled ? "after max pool, " : ""}${sizes}`,
    make("span", `, ${parameters.toLocaleString("en")} parameters`, "wide"));
  group.className = "layer";
  mapCanvases.push(Array.from({length: out}, (_, channel) => {
    const canvas = make("canvas");
    setOption(canvas, `map-${layer}-${channel}`, `${name}, map ${channel + 1} of ${out}`);
    canvas.addEventListener("click", event => pin({layer, channel, ...pixelAt(event, size)}));
    canvas.addEventListener("pointermove", event => {
      if (!pinned && event.pointerType === "mouse") choose({layer, channel, ...pixelAt(event, size)});
    });
    group.append(canvas);
    return canvas;
  }));
}

function choose(pixel) {
  mark(mapCanvases[chosen.layer][chosen.channel], false);
  chosen = pixel;
  const canvas = mapCanvases[chosen.layer][chosen.channel];
  mark(canvas, true);
  byId("layers").setAttribute("aria-activedescendant", canvas.id);
  renderChosen();
}

// Choose a pixel for good, and show it.
function pin(pixel) {
  pinned = true;
  choose(pixel);
  byId("places").scrollIntoView({block: "nearest"});
}

byId("enlarged").addEventListener("click", event => pin({...chosen, ...pixelAt(event, convolutions[chosen.layer].size)}));
byId("layers").addEventListener("keydown", event => {
  const next = nextPixel(event.key, event.shiftKey);
  if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  pinned = true;
  choose(fit(next));
  mapCanvases[chosen.layer][chosen.channel].scrollIntoView({block: "nearest"});
});

// Where a key leads, or null: to another map, with Shift to another pixel of the same.
function nextPixel(key, shift) {
  const {layer, channel, x, y} = chosen, [dx, dy] = ARROWS[key] ?? [0, 0];
  if (key === "Home") return {...chosen, layer: 0, channel: 0};
  if (key === "End") return {...chosen, layer: last, channel: Infinity};
  if (!dx && !dy) return null;
  if (shift) return {layer, channel, x: x + dx, y: y + dy};
  return {layer: clamp(layer + dy, convolutions.length), channel: channel + dx, x, y};
}

// The nearest pixel that there is.
function fit({layer, channel, x, y}) {
  const {out, size} = convolutions[layer];
  return {layer, channel: clamp(channel, out), x: clamp(x, size), y: clamp(y, size)};
}

// ---- the start

function addBar(digit) {
  const row = byId("bars").tBodies[0].insertRow(), name = make("th", digit);
  name.scope = "row";
  row.append(name);
  row.insertCell().append(make("div"));
  row.insertCell();
  row.insertCell();
}

// A 3, as if somebody had drawn it.
function drawExample() {
  const ink = new Float32Array(SIDE ** 2);
  const arc = (x, y, radius, from, to) => Array.from({length: 25}, (_, k) => (from + (to - from) * k / 24) * Math.PI / 180)
    .map(angle => ({x: x + 1.1 * radius * Math.cos(angle), y: y + radius * Math.sin(angle)}));
  for (const points of [arc(133, 95, 50, -150, 80), arc(136, 186, 56, -80, 150)])
    points.slice(1).forEach((place, k) => drawLine(ink, points[k], place, 22, false));
  return {ink};
}

if (location.hostname.endsWith(".github.io")) {  // there, the README and the notebooks are on GitHub
  const repository = `https://github.com/${location.hostname.split(".")[0]}${location.pathname.match(/^\/[^/]*/)[0]}`;
  for (const link of document.querySelectorAll("a[href^='../']"))
    link.href = `${repository}/blob/HEAD/${link.getAttribute("href").slice(3)}`;
}
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(query).addEventListener("change", () => {
    const patches = result?.patches;  // of the same image; a printer does not wait for new ones
    readPalette();
    paintTestImages();
    read();
    if (result) result.patches = patches;
    renderPatches();
  });
}
readPalette();
for (let digit = 0; digit < 10; digit++) addBar(digit);
convolutions.forEach(addLayer);
for (let map = 0; map < convolutions[last].out; map++) addProduct();
paper = drawExample();
read();
choose({...chosen, ...strongestPixel(chosen.layer, chosen.channel)});
addTestImages();
