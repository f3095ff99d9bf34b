"use strict";
// Draws the map, and sorts and filters the tables. All text from data goes in by textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  // Okabe and Ito's colours, which the colour-blind tell apart; the last one is grey, legible on light and dark.
  const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8A8F98"];
  const SHAPES = ["circle", "square", "triangle", "diamond", "down"]; // a cross is an error
  const RIGHT = 1, WRONG = 0;

  const make = (tag, text, parent, name) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (name) element.className = name;
    if (parent) parent.appendChild(element);
    return element;
  };

  // ---- theme ----
  const THEMES = { auto: "as the system", light: "light", dark: "dark" };
  const theme = byId("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme || "auto") + 1) % names.length];
    document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${THEMES[next]}`;
    drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());

  // ---- what a point is coloured by ----
  const isRight = (row, model) => {
    const truth = data.against === "labels" ? row.label : row.answers.teacher[0];
    return truth === undefined ? RIGHT : Number(row.answers[model][0] === truth);
  };
  const ways = [["subclass", "subclass"]];
  if (data.groups) ways.push(["group", "group"]);
  for (const model of data.models) {
    if (data.against === "labels" || model !== "teacher") ways.push([`error:${model}`, `errors of ${model}`]);
  }
  let way = "subclass";
  let only = "";
  const valueOf = (row) => {
    if (way === "subclass") return row.subclass;
    if (way === "group") return row.group;
    return isRight(row, way.slice("error:".length));
  };
  const styleOf = (value) => {
    if (way.startsWith("error:")) return value === RIGHT ? { colour: "#8A8F98", shape: "circle" } : { colour: "#D55E00", shape: "cross" };
    const turn = Math.floor(value / COLOURS.length);
    return { colour: COLOURS[value % COLOURS.length], shape: SHAPES[(value + turn) % SHAPES.length] };
  };
  const nameOf = (value) => {
    if (way === "subclass") return `subclass ${value}`;
    if (way === "group") return data.groups[value];
    return value === RIGHT ? "right" : "wrong";
  };
  const valuesOf = () => {
    if (way === "subclass") return [...Array(data.num_subclasses).keys()];
    if (way === "group") return [...data.groups.keys()];
    return [RIGHT, WRONG];
  };

  const path = (context, shape, x, y, r) => {
    context.beginPath();
    if (shape === "circle") context.arc(x, y, r, 0, 7);
    else if (shape === "square") context.rect(x - r, y - r, 2 * r, 2 * r);
    else if (shape === "triangle") { context.moveTo(x, y - 1.2 * r); context.lineTo(x + 1.2 * r, y + r); context.lineTo(x - 1.2 * r, y + r); context.closePath(); }
    else if (shape === "diamond") { context.moveTo(x, y - 1.4 * r); context.lineTo(x + 1.4 * r, y); context.lineTo(x, y + 1.4 * r); context.lineTo(x - 1.4 * r, y); context.closePath(); }
    else if (shape === "down") { context.moveTo(x, y + 1.2 * r); context.lineTo(x + 1.2 * r, y - r); context.lineTo(x - 1.2 * r, y - r); context.closePath(); }
    else { context.moveTo(x - r, y - r); context.lineTo(x + r, y + r); context.moveTo(x + r, y - r); context.lineTo(x - r, y + r); }
  };
  const mark = (context, style, x, y, r, dark) => {
    path(context, style.shape, x, y, r);
    if (style.shape === "cross") { context.lineWidth = 2; context.strokeStyle = style.colour; context.stroke(); return; }
    context.fillStyle = style.colour;
    context.fill();
    context.lineWidth = 0.6; // yellow on white needs an edge
    context.strokeStyle = dark ? "rgba(0,0,0,.7)" : "rgba(0,0,0,.55)";
    context.stroke();
  };

  // ---- panels ----
  const tip = byId("tip");
  const panels = data.map.map((panel) => {
    const figure = make("figure", null, byId("panels"), "panel");
    const caption = make("figcaption", data.classes[panel.class], figure);
    make("span", ` ${panel.row.length < panel.of ? `${panel.row.length.toLocaleString("en")} of ${panel.of.toLocaleString("en")}` : panel.of.toLocaleString("en")} rows`, caption, "faint");
    const canvas = make("canvas", null, figure);
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `Map of ${data.classes[panel.class]}: ${panel.row.length} rows. Arrows move from row to row.`);
    const extent = (values) => {
      const sorted = [...values].sort((a, b) => a - b);
      if (!sorted.length) return [-1, 1];
      const low = sorted[Math.floor(0.002 * (sorted.length - 1))], high = sorted[Math.ceil(0.998 * (sorted.length - 1))];
      return high > low ? [low, high] : [low - 1, high + 1];
    };
    const own = { panel, canvas, x: extent(panel.x), y: extent(panel.y), chosen: -1, places: [] };
    canvas.addEventListener("mousemove", (event) => choose(own, nearest(own, event.offsetX, event.offsetY, 14)));
    canvas.addEventListener("mouseleave", () => choose(own, -1));
    canvas.addEventListener("blur", () => choose(own, -1));
    canvas.addEventListener("keydown", (event) => move(own, event));
    return own;
  });

  const visible = (own, index) => only === "" || String(valueOf(data.rows[own.panel.row[index]])) === only;

  const draw = (own) => {
    const { canvas, panel } = own;
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const css = getComputedStyle(document.documentElement);
    const dark = css.getPropertyValue("color-scheme").trim() === "dark";
    context.fillStyle = css.getPropertyValue("--faint");
    context.font = "12px system-ui, sans-serif";
    context.fillText("direction 1 →", 8, height - 6);
    context.save();
    context.translate(12, height - 24);
    context.rotate(-Math.PI / 2);
    context.fillText("direction 2 →", 0, 0);
    context.restore();
    const margin = 22, inside = (v, low, high) => Math.min(1, Math.max(0, (v - low) / (high - low)));
    const r = panel.row.length > 1500 ? 2.4 : panel.row.length > 300 ? 3.2 : 4.2;
    own.places = panel.row.map((_, i) => [
      margin + inside(panel.x[i], ...own.x) * (width - 2 * margin),
      height - margin - inside(panel.y[i], ...own.y) * (height - 2 * margin),
    ]);
    // What is not asked for stays as a faint ground; errors come last, on top.
    const order = panel.row.map((_, i) => i);
    if (way.startsWith("error:")) order.sort((a, b) => valueOf(data.rows[panel.row[b]]) - valueOf(data.rows[panel.row[a]]));
    for (const i of order) {
      const shown = visible(own, i);
      context.globalAlpha = shown ? (way.startsWith("error:") && valueOf(data.rows[panel.row[i]]) === RIGHT ? 0.45 : 0.9) : 0.08;
      mark(context, styleOf(valueOf(data.rows[panel.row[i]])), ...own.places[i], r, dark);
    }
    context.globalAlpha = 1;
    if (own.chosen >= 0) {
      context.lineWidth = 2;
      context.strokeStyle = css.getPropertyValue("--fore");
      path(context, "circle", ...own.places[own.chosen], r + 5);
      context.stroke();
    }
  };
  const drawAll = () => panels.forEach(draw);

  const nearest = (own, x, y, within) => {
    let best = -1, least = within * within;
    own.places.forEach(([px, py], i) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least && visible(own, i)) { least = distance; best = i; }
    });
    return best;
  };

  const describe = (number) => {
    const row = data.rows[number];
    tip.replaceChildren();
    if (data.thumbnails[number]) { const image = make("img", null, tip); image.src = data.thumbnails[number]; image.alt = `row ${number}`; }
    make("div", row.text !== undefined ? row.text : `row ${number}`, tip);
    const facts = [`subclass ${row.subclass}`];
    if (row.group !== undefined) facts.push(data.groups[row.group]);
    if (row.label !== undefined) facts.push(`label ${data.classes[row.label]}`);
    make("div", facts.join(" · "), tip, "faint");
    const answers = data.models.map((name) => `${name}: ${data.classes[row.answers[name][0]]} ${Math.round(100 * row.answers[name][1])}%`);
    make("div", answers.join(" · "), tip, "faint");
  };
  const choose = (own, index, spoken) => {
    if (own.chosen === index) return;
    own.chosen = index;
    draw(own);
    tip.hidden = index < 0;
    if (index < 0) return;
    describe(own.panel.row[index]);
    const box = own.canvas.getBoundingClientRect(), [x, y] = own.places[index];
    const left = box.left + scrollX + x, top = box.top + scrollY + y;
    tip.style.left = `${Math.max(8, Math.min(left + 14, scrollX + document.documentElement.clientWidth - tip.offsetWidth - 12))}px`;
    tip.style.top = `${box.top + y + tip.offsetHeight + 24 > innerHeight ? top - tip.offsetHeight - 14 : top + 14}px`;
    if (spoken) byId("spoken").textContent = tip.textContent;
  };
  const move = (own, event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") { choose(own, -1); return; }
    if (!step) return;
    event.preventDefault();
    if (own.chosen < 0) { choose(own, nearest(own, own.canvas.clientWidth / 2, own.canvas.clientHeight / 2, Infinity), true); return; }
    const [x, y] = own.places[own.chosen];
    let best = -1, least = Infinity;
    own.places.forEach(([px, py], i) => {
      const ahead = (px - x) * step[0] + (py - y) * step[1], beside = Math.abs((px - x) * step[1]) + Math.abs((py - y) * step[0]);
      if (i !== own.chosen && ahead > 0.5 && beside <= 2 * ahead && ahead + 2 * beside < least && visible(own, i)) { least = ahead + 2 * beside; best = i; }
    });
    if (best >= 0) choose(own, best, true);
  };

  // ---- controls of the map ----
  const colour = byId("colour"), onlyChoice = byId("only"), legend = byId("legend");
  for (const [value, text] of ways) make("option", text, colour).value = value;
  const setWay = () => {
    way = colour.value;
    only = "";
    onlyChoice.replaceChildren();
    make("option", "all", onlyChoice).value = "";
    legend.replaceChildren();
    const values = valuesOf();
    for (const value of values) make("option", nameOf(value), onlyChoice).value = String(value);
    for (const value of values.slice(0, 32)) {
      const item = make("span", null, legend);
      item.setAttribute("role", "listitem");
      const sample = make("canvas", null, item);
      sample.width = sample.height = 28;
      sample.style.width = sample.style.height = "14px";
      sample.style.verticalAlign = "-2px";
      const context = sample.getContext("2d");
      context.scale(2, 2);
      mark(context, styleOf(value), 7, 7, 4.2, false);
      item.append(` ${nameOf(value)}`);
    }
    if (values.length > 32) make("span", `and ${values.length - 32} more`, legend, "faint");
    drawAll();
  };
  colour.addEventListener("change", setWay);
  onlyChoice.addEventListener("change", () => { only = onlyChoice.value; drawAll(); });

  // ---- tables ----
  const text = (cell) => cell.dataset.value ?? cell.textContent.replaceAll(",", "").trim();
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const numeric = "number" in head.dataset;
        const rising = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
        const keyed = [...body.rows].map((row) => [numeric ? Number(text(row.cells[column])) : text(row.cells[column]), row]);
        keyed.sort((a, b) => (rising ? 1 : -1) * compare(a[0], b[0]));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }
  const filter = byId("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.querySelectorAll("#slices tbody tr")];
    for (const row of rows) row.classList.toggle("hidden", !words.every((word) => row.textContent.toLowerCase().includes(word)));
    byId("shown").textContent = words.length ? `${rows.filter((row) => !row.classList.contains("hidden")).length} of ${rows.length} slices` : "";
  });
  // A link to a subclass opens its card.
  const openTarget = () => { const card = byId(location.hash.slice(1)); if (card && card.tagName === "DETAILS") card.open = true; };
  addEventListener("hashchange", openTarget);

  document.querySelectorAll(".controls").forEach((controls) => { controls.hidden = false; });
  addEventListener("resize", drawAll);
  setWay();
  openTarget();
})();
