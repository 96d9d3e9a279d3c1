"use strict";
(() => {
  const find = id => document.getElementById(id);
  const data = JSON.parse(find("lab-data").textContent);
  const given = {
    height: data.height, width: data.width, channels: data.channels,
    values: data.base64 === null
      ? Float64Array.from(data.values)
      : Float64Array.from(atob(data.base64), letter => letter.charCodeAt(0)),
  };
  const NUMBERED = 14, TINY = 64, UNIT = 40, TERMS = 25, SVG = "http://www.w3.org/2000/svg";
  const OWN = "own", NONE = "none";

  // What the page is told, and what follows from it. Arrays are { height, width, channels, values } by rows.
  const asked = {
    kernel: NONE, rows: null, name: "", summary: "", padding: data.padding, stride: data.stride,
    dilation: data.dilation, pool: data.pool ? data.pool[0] : "", size: data.pool ? data.pool[1] : 2,
    step: data.pool ? data.pool[2] : 2, channel: 0, row: data.row, column: data.column,
  };
  let made = null;

  // ---- arithmetic, as in convsmith/networks/kernels.py

  const spanOf = (taps, dilation) => dilation * (taps - 1) + 1;

  function marginsOf(size, taps) {
    const span = spanOf(taps, asked.dilation);
    let total = span - 1;
    if (asked.padding === "valid") total = 0;
    if (asked.padding === "same") total = Math.max((Math.ceil(size / asked.stride) - 1) * asked.stride + span - size, 0);
    const before = Math.floor(total / 2), after = total - before;
    const most = { reflect: size - 1, circular: size }[asked.padding];
    if (most !== undefined && after > most) {
      throw new Error(`Padding ${asked.padding} needs ${after} px of the picture on each side, and it has ${most} to give.`);
    }
    return [before, after];
  }

  // The pixel that a place shows, or -1 where that is a zero of the padding.
  function source(place, size) {
    if (place >= 0 && place < size) return place;
    if (asked.padding === "replicate") return place < 0 ? 0 : size - 1;
    if (asked.padding === "circular") return ((place % size) + size) % size;
    if (asked.padding === "reflect") return place < 0 ? -place : 2 * (size - 1) - place;
    return -1;
  }

  function padded(image, top, left, height, width) {
    const values = new Float64Array(height * width * image.channels);
    for (let row = 0, at = 0; row < height; row++) {
      const y = source(row - top, image.height);
      for (let column = 0; column < width; column++) {
        const x = source(column - left, image.width);
        for (let channel = 0; channel < image.channels; channel++, at++) {
          if (x >= 0 && y >= 0) values[at] = image.values[(y * image.width + x) * image.channels + channel];
        }
      }
    }
    return { height, width, channels: image.channels, values };
  }

  function convolved(image, rows) {
    const kh = rows.length, kw = rows[0].length, { stride, dilation } = asked, { channels } = image;
    const height = Math.floor((image.height - spanOf(kh, dilation)) / stride) + 1;
    const width = Math.floor((image.width - spanOf(kw, dilation)) / stride) + 1;
    const values = new Float64Array(height * width * channels);
    for (let i = 0; i < kh; i++) for (let j = 0; j < kw; j++) {
      const weight = rows[i][j];
      if (weight === 0) continue;
      for (let row = 0, at = 0; row < height; row++) {
        let from = ((row * stride + i * dilation) * image.width + j * dilation) * channels;
        for (let column = 0; column < width; column++, from += stride * channels) {
          for (let channel = 0; channel < channels; channel++, at++) values[at] += weight * image.values[from + channel];
        }
      }
    }
    return { height, width, channels, values };
  }

  const reduced = values => asked.pool === "max"
    ? Math.max(...values)
    : values.reduce((sum, value) => sum + value, 0) / values.length;

  function pooled(image) {
    const { size, step } = asked;
    if (size > Math.min(image.height, image.width)) {
      throw new Error(`A pooling window of ${size}x${size} is larger than what it pools, ${image.height}x${image.width}.`);
    }
    const height = Math.floor((image.height - size) / step) + 1, width = Math.floor((image.width - size) / step) + 1;
    const result = { height, width, channels: image.channels, values: new Float64Array(height * width * image.channels) };
    for (let row = 0, at = 0; row < height; row++) for (let column = 0; column < width; column++) {
      for (let channel = 0; channel < image.channels; channel++, at++) {
        result.values[at] = reduced(poolPatch(image, row, column, channel).flat());
      }
    }
    return result;
  }

  const value = (image, row, column, channel) => image.values[(row * image.width + column) * image.channels + channel];

  function poolPatch(image, row, column, channel) {
    const places = Array.from({ length: asked.size }, (_, place) => place);
    return places.map(i => places.map(j => value(image, asked.step * row + i, asked.step * column + j, channel)));
  }

  // ---- drawing, as in convsmith/reporting/kernel_drawings.py

  function scaleOf(output) {
    const numbers = asked.rows === null ? [1] : asked.rows.flat();
    const total = numbers.reduce((sum, number) => sum + number, 0);
    const strength = numbers.reduce((sum, number) => sum + Math.abs(number), 0);
    if (Math.abs(total) < 0.1 * strength || strength === 0) {
      const sizes = output.values.map(Math.abs).sort();
      const place = sizes.length <= 1000 ? sizes.length - 1 : Math.floor(0.995 * (sizes.length - 1));
      const most = sizes[place] || sizes[sizes.length - 1] || 1;
      return { low: -most, high: most, signed: true };
    }
    const [low, high] = [data.low * total, data.high * total].sort((a, b) => a - b);
    return { low, high, signed: false };
  }

  const clamp = share => Math.min(Math.max(share, 0), 1);
  const share = (number, scale) => clamp((number - scale.low) / (scale.high - scale.low || 1));
  const grey = (number, scale) => Math.floor(share(number, scale) * 255 + 0.5);

  function figure(number) {
    const size = Math.abs(number);
    if (size < 1e-9) return "0";
    if (Number.isInteger(number)) return String(number).replace("-", "−");
    return String(Number(size >= 0.1 ? number.toFixed(3) : number.toPrecision(3))).replaceAll("-", "−");
  }

  // A number that has to fit into a pixel.
  const brief = number => figure(Math.abs(number) >= 10 ? Number(number.toFixed(1)) : number);

  function says(output, scale) {
    let beyond = 0;
    for (const number of output.values) if (number < scale.low - 1e-9 || number > scale.high + 1e-9) beyond++;
    const cut = (100 * beyond / output.values.length).toFixed(1);
    const told = beyond ? ` ${cut}\u00a0% of the values lie beyond; only the drawing cuts them.` : "";
    return `Output: black is ${figure(scale.low)}, ${scale.signed ? "mid grey is 0, " : ""}white is ${figure(scale.high)}.${told}`;
  }

  function paint(key, image, scale) {
    const screen = find(`screen-${key}`);
    let canvas = screen.querySelector("canvas");
    if (!canvas) {
      canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      screen.querySelector("img").replaceWith(canvas);
    }
    canvas.width = image.width;
    canvas.height = image.height;
    const longer = Math.max(image.height, image.width);
    screen.classList.toggle("tiny", longer <= TINY);
    const wide = image.width > 1.2 * image.height, tall = image.height > 1.2 * image.width;
    screen.classList.remove("wide", "tall", "square");
    screen.classList.add(wide ? "wide" : tall ? "tall" : "square");
    canvas.setAttribute("aria-label", `the ${key === "input" ? "picture" : key}, ${image.height} rows and ${image.width} columns`);
    find(`size-${key}`).textContent = `${image.height} x ${image.width}`;
    const context = canvas.getContext("2d"), pixels = context.createImageData(image.width, image.height);
    for (let place = 0; place < image.height * image.width; place++) {
      for (let channel = 0; channel < 3; channel++) {
        const at = place * image.channels + (image.channels === 3 ? channel : 0);
        pixels.data[4 * place + channel] = grey(image.values[at], scale);
      }
      pixels.data[4 * place + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }

  function shape(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, setting] of Object.entries(attributes)) element.setAttribute(name, setting);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  const box = (kind, row, column, height, width) =>
    shape("rect", { class: kind, x: UNIT * column, y: UNIT * row, width: UNIT * width, height: UNIT * height });

  // What lies over a picture: its border, the window, and numbers where there is room for them.
  function overlay(key, image, scale, taps, outline) {
    const svg = find(`screen-${key}`).querySelector("svg");
    svg.setAttribute("viewBox", `0 0 ${UNIT * image.width} ${UNIT * image.height}`);
    const drawn = outline ? [box("edge-of", ...outline)] : [];
    if (taps.length) {
      const rows = taps.map(tap => tap[0]), columns = taps.map(tap => tap[1]);
      const top = Math.min(...rows), left = Math.min(...columns);
      const height = Math.max(...rows) - top + 1, width = Math.max(...columns) - left + 1;
      const longer = Math.max(image.height, image.width);
      if (longer <= TINY && taps.length < height * width) {
        for (const [row, column] of taps) drawn.push(box("tap", row, column, 1, 1));
      }
      const tall = Math.max(height, longer / 28), wide = Math.max(width, longer / 28);
      for (const kind of ["halo", "frame"]) {
        drawn.push(box(kind, top + (height - tall) / 2, left + (width - wide) / 2, tall, wide));
      }
    }
    if (Math.max(image.height, image.width) <= NUMBERED && image.channels === 1) {
      const all = Array.from(image.values, brief), size = Math.max(...all.map(words => words.length)) > 4 ? "long" : "short";
      const many = Math.max(image.height, image.width) > 6 ? " many" : "";
      image.values.forEach((number, place) => {
        const words = all[place], row = Math.floor(place / image.width), column = place % image.width;
        const kind = `${grey(number, scale) > 140 ? "dark" : "light"} ${size}${many}`;
        drawn.push(shape("text", { class: kind, x: UNIT * (column + 0.5), y: UNIT * (row + 0.5) }, words));
      });
    }
    svg.replaceChildren(...drawn);
  }

  function table(key, title, rows, kind) {
    const body = document.createElement("tbody");
    rows.forEach((row, i) => {
      const line = body.insertRow();
      row.forEach((number, j) => {
        const cell = line.insertCell();
        cell.textContent = figure(number);
        cell.className = kind(number, i, j);
      });
    });
    const made = document.createElement("table");
    made.className = rows[0].length > 5 ? "cells small" : "cells";
    made.id = `cells-${key}`;
    made.append(body);
    const scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.tabIndex = rows[0].length > 5 ? 0 : -1;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", title);
    scroll.append(made);
    const caption = document.createElement("figcaption"), whole = document.createElement("figure");
    caption.textContent = title;
    whole.className = "cells-of";
    whole.id = `box-${key}`;
    whole.append(caption, scroll);
    return whole;
  }

  // The kernel as a picture: one colour for positive numbers, another for negative ones.
  function tile(rows) {
    find("pane-kernel").hidden = rows === null;
    find("stage").classList.toggle("without", rows === null);
    if (rows === null) return;
    const most = largest(rows), height = rows.length, width = rows[0].length;
    const svg = shape("svg", { viewBox: `0 0 ${UNIT * width} ${UNIT * height}`, class: "tile", "aria-hidden": "true" });
    rows.forEach((row, i) => row.forEach((number, j) => {
      if (!number) return;
      const cell = box(number < 0 ? "minus" : "plus", i, j, 1, 1);
      cell.setAttribute("fill-opacity", (Math.abs(number) / most).toFixed(3));
      svg.append(cell);
    }));
    svg.append(box("outline", 0, 0, height, width));
    find("tile").replaceChildren(svg);
    find("size-kernel").textContent = `${height} x ${width}`;
  }

  const shade = number => `g${Math.floor(clamp((number - data.low) / (data.high - data.low || 1)) * 16 + 0.5)}`;
  const largest = rows => Math.max(...rows.flat().map(Math.abs)) || 1;

  function tint(number, most) {
    const level = Math.floor(8 * Math.min(Math.abs(number) / most, 1) + 0.5);
    return `${number < 0 && level ? "n" : "p"}${level}`;
  }

  // ---- the page

  function compute() {
    const rows = asked.rows ?? [[1]];
    let top = 0, left = 0, sides = [0, 0, 0, 0];
    if (asked.rows) {
      const [before, after] = marginsOf(given.height, rows.length), [start, end] = marginsOf(given.width, rows[0].length);
      [top, left, sides] = [before, start, [before, after, start, end]];
    }
    const height = given.height + sides[0] + sides[1], width = given.width + sides[2] + sides[3];
    if (asked.rows && (spanOf(rows.length, asked.dilation) > height || spanOf(rows[0].length, asked.dilation) > width)) {
      throw new Error(`The kernel spans ${spanOf(rows.length, asked.dilation)}x${spanOf(rows[0].length, asked.dilation)} px, `
        + `more than the picture's ${height}x${width}. Try padding zero, or less dilation.`);
    }
    const input = padded(given, top, left, height, width);
    const between = asked.rows ? convolved(input, rows) : input;
    const output = asked.pool ? pooled(between) : between;
    return { rows, top, left, input, between, output, scale: scaleOf(output) };
  }

  function change() {
    const trouble = find("trouble");
    try {
      made = compute();
      trouble.hidden = true;
    } catch (error) {
      trouble.textContent = error.message;
      trouble.hidden = false;
      return;
    }
    paint("input", made.input, { low: data.low, high: data.high });
    paint("output", made.output, made.scale);
    tile(asked.rows);
    find("says").textContent = says(made.output, made.scale);
    const name = asked.name.split(":")[0];
    find("headline").textContent = asked.rows === null
      ? (asked.pool ? `What ${asked.pool} pooling keeps` : "The picture as it is")
      : `What ${asked.kernel === OWN ? "your own kernel" : name} makes of the picture`;
    find("summary").textContent = asked.summary ? asked.summary[0].toUpperCase() + asked.summary.slice(1) + "." : "";
    find("how").textContent = asked.rows === null
      ? "A window without numbers: of the pixels under it one value is kept, and then it moves on."
      : "Each number of the kernel is multiplied with the pixel under it. The sum of the products is one pixel of the output; then the window moves on.";
    move();
  }

  const signed = words => words.startsWith("−") ? ` − ${words.slice(1)}` : ` + ${words}`;
  const span = places => {
    const [first, last] = [figure(places[0]), figure(places[places.length - 1])];
    return places.length > 1 ? `${first} to ${last}` : first;
  };

  function move() {
    const { input, between, output, rows, top, left } = made, { channel, stride, dilation } = asked;
    asked.row = Math.min(Math.max(asked.row, 0), output.height - 1);
    asked.column = Math.min(Math.max(asked.column, 0), output.width - 1);
    const { row, column } = asked, tables = [];
    let told = `Output row ${row}, column ${column}`, terms = "", taps = [];
    let [at, across] = [row, column];  // where the kernel stands, before pooling
    if (asked.pool) {
      const seen = poolPatch(between, row, column, channel);
      const best = asked.pool === "max" ? seen.flat().indexOf(Math.max(...seen.flat())) : 0;
      at = asked.step * row + Math.floor(best / asked.size);
      across = asked.step * column + best % asked.size;
      const drawn = asked.rows === null ? { low: data.low, high: data.high } : made.scale;
      const won = place => asked.pool === "max" && place === best ? " won" : "";
      tables.push(table("pool", "Pooling looks at", seen,
        (number, i, j) => `g${Math.round(grey(number, drawn) / 255 * 16)}${won(i * asked.size + j)}`));
      seen.forEach((line, i) => line.forEach((_, j) => taps.push([asked.step * row + i, asked.step * column + j])));
    }
    if (asked.rows !== null) {
      const down = rows.map((_, i) => stride * at + dilation * i), right = rows[0].map((_, j) => stride * across + dilation * j);
      const patch = down.map(y => right.map(x => value(input, y, x, channel)));
      const products = patch.map((line, i) => line.map((number, j) => number * rows[i][j]));
      const inside = (y, x) => y >= top && y < top + given.height && x >= left && x < left + given.width;
      const [most, product] = [largest(rows), largest(products)];
      tables.unshift(
        table("patch", "Patch", patch, (number, i, j) => shade(number) + (inside(down[i], right[j]) ? "" : " beyond")),
        table("kernel", "Kernel", rows, number => tint(number, most)),
        table("products", "Products", products, number => tint(number, product)),
      );
      taps = down.flatMap(y => right.map(x => [y, x]));
      const which = asked.pool ? `: the ${asked.pool === "max" ? "largest" : "first"} of them comes from` : ", from";
      told += `${which} rows ${span(down.map(y => y - top))}, columns ${span(right.map(x => x - left))} of the picture`;
      const flat = products.flat();
      if (flat.length <= TERMS) {
        const sum = figure(value(between, at, across, channel));
        terms = figure(flat[0]) + flat.slice(1).map(number => signed(figure(number))).join("") + ` = ${sum}`;
      }
    }
    const results = Array.from({ length: output.channels }, (_, each) => figure(value(output, row, column, each)));
    const result = document.createElement("div");
    result.className = "result";
    result.id = "result";
    result.append(...results.map(words => Object.assign(document.createElement("span"), { textContent: words })));
    find("equation").replaceChildren(...tables, result);
    find("where").textContent = `${told}.`;
    find("terms").textContent = terms;
    find("live").textContent = `Row ${row}, column ${column}: ${results.join(", ")}`;
    find("go-row").value = row;
    find("go-column").value = column;
    const framed = input.height !== given.height || input.width !== given.width;
    overlay("input", input, { low: data.low, high: data.high }, taps, framed ? [top, left, given.height, given.width] : null);
    overlay("output", output, made.scale, [[row, column]], null);
  }

  function readRows(text) {
    const rows = text.split(/[/\n]/).filter(line => line.trim()).map(line => line.trim().split(/[\s,]+/).map(Number));
    const right = rows.length && rows.every(row => row.length === rows[0].length && row.every(Number.isFinite));
    if (!right || rows.length > 31 || rows[0].length > 31) {
      throw new Error("Write rows of numbers with a slash between rows, as in: -1 0 1 / -2 0 2 / -1 0 1");
    }
    return rows;
  }

  function choose(kernel, typed) {
    const known = data.kernels[Number(kernel)];
    try {
      asked.rows = kernel === NONE ? null : kernel === OWN ? readRows(typed) : known.rows;
    } catch (error) {
      find("trouble").textContent = error.message;
      find("trouble").hidden = false;
      return;
    }
    asked.kernel = kernel;
    asked.name = kernel === OWN ? "your own" : known ? known.name : "";
    asked.summary = known && kernel !== OWN ? known.summary : "";
    find("choose-kernel").value = kernel;
    find("own").value = asked.rows ? asked.rows.map(row => row.map(number => Number(number.toPrecision(6))).join(" ")).join(" / ") : "";
    change();
  }

  function start() {
    const list = find("choose-kernel");
    const option = (words, setting) => list.append(new Option(words, setting));
    option("none, pooling only", NONE);
    const chosen = data.chosen;
    let first = NONE;
    if (chosen && !data.kernels.some(item => item.name === chosen.name)) data.kernels.push(chosen);
    data.kernels.forEach((item, place) => {
      if (item.name === "your own") return;
      option(item.name, String(place));
      if (chosen && item.name === chosen.name) first = String(place);
    });
    option("your own", OWN);
    if (chosen && chosen.name === "your own") first = OWN;
    for (const [id, key] of [["choose-padding", "padding"], ["choose-stride", "stride"], ["choose-dilation", "dilation"],
      ["choose-pool", "pool"], ["choose-size", "size"], ["choose-step", "step"], ["choose-channel", "channel"]]) {
      const field = find(id);
      field.value = asked[key];
      field.addEventListener("change", () => {
        if (!field.validity.valid || field.value === "" && field.type === "number") return;
        asked[key] = key === "padding" || key === "pool" ? field.value : Number(field.value);
        if (key === "size") asked.step = find("choose-step").value = asked.size;
        change();
      });
    }
    list.addEventListener("change", () => choose(list.value, find("own").value || "-1 0 1 / -2 0 2 / -1 0 1"));
    find("own").addEventListener("change", event => choose(OWN, event.target.value));
    for (const button of document.querySelectorAll(".use")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        choose(button.dataset.kernel, "");
        find("headline").scrollIntoView();
        find("stage").focus({ preventScroll: true });
      });
    }
    const by = (down, right) => { asked.row += down; asked.column += right; move(); };
    for (const button of document.querySelectorAll("[data-move]")) {
      const [down, right] = button.dataset.move.split(",").map(Number);
      button.addEventListener("click", () => by(down, right));
    }
    for (const [id, key] of [["go-row", "row"], ["go-column", "column"]]) {
      find(id).addEventListener("change", event => { asked[key] = Math.floor(Number(event.target.value)) || 0; move(); });
    }
    const stage = find("stage");
    stage.tabIndex = 0;
    stage.setAttribute("role", "application");
    stage.setAttribute("aria-label", "The window on the picture. The arrow keys move it.");
    stage.setAttribute("aria-describedby", "keys");
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    stage.addEventListener("keydown", event => {
      if (!steps[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      by(...steps[event.key].map(step => step * (event.shiftKey ? 10 : 1)));
    });
    for (const key of ["input", "output"]) {
      find(`screen-${key}`).addEventListener("click", event => {
        const area = find(`screen-${key}`).getBoundingClientRect(), image = key === "input" ? made.input : made.output;
        let row = Math.floor((event.clientY - area.top) / area.height * image.height);
        let column = Math.floor((event.clientX - area.left) / area.width * image.width);
        if (key === "input") {
          const step = asked.pool ? asked.step : 1;
          const half = asked.rows ? [spanOf(asked.rows.length, asked.dilation), spanOf(asked.rows[0].length, asked.dilation)] : [1, 1];
          const stride = asked.rows ? asked.stride : 1;
          row = Math.round((row - (half[0] - 1) / 2) / stride / step - (step - 1) / 2 / step);
          column = Math.round((column - (half[1] - 1) / 2) / stride / step - (step - 1) / 2 / step);
        }
        [asked.row, asked.column] = [row, column];
        move();
      });
    }
    find("channel-label").hidden = given.channels === 1;
    find("controls").hidden = find("moving").hidden = find("change-title").hidden = false;
    if (chosen) find("own").value = chosen.rows.map(row => row.join(" ")).join(" / ");
    choose(first, find("own").value);
    stage.focus({ preventScroll: true });
  }

  start();
})();
