"use strict";
(() => {
const $ = id => document.getElementById(id);
const D = JSON.parse($("data").textContent);
const NAMES = D.names, KINDS = D.kinds, FLAGS = D.flags, SIZES = D.sizes, COUNT = NAMES.length;
const GONE = 1, BAD = 2, ROW = 24, BINS = 120;
const parent = Int32Array.from(D.parents);
const first = new Int32Array(COUNT).fill(-1), next = new Int32Array(COUNT).fill(-1);
const total = Float64Array.from(SIZES);
const roots = [];
const flag = i => FLAGS.charCodeAt(i) - 48;
const isFolder = i => KINDS[i] === "d" || KINDS[i] === "V";
for (let i = COUNT - 1; i >= 0; i--) {
  const p = parent[i];
  if (isFolder(i)) total[i] -= SIZES[i];
  if (p < 0) { roots.unshift(i); continue; }
  next[i] = first[p]; first[p] = i;
  total[p] += total[i];
}
// What could steer the eye instead of being read is shown by its number.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const clean = text => text.replace(HIDDEN, c => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < 5) { bytes /= 1024; unit++; }
  return unit ? bytes.toFixed(1) + " " + UNITS[unit] : bytes === 1 ? "1 byte" : bytes + " bytes";
}
function path(i) {
  const parts = [];
  for (let at = i, n = 0; at >= 0 && n < 4096; at = parent[at], n++) parts.push(NAMES[at]);
  return parts.reverse().join("/");
}
function children(i) {
  const found = [];
  for (let at = first[i]; at >= 0; at = next[at]) found.push(at);
  return found.sort((a, b) => isFolder(b) - isFolder(a) || (NAMES[a] < NAMES[b] ? -1 : 1));
}
const when = (i, which) => {
  const base = D.times[0][i];
  if (which === 0) return base;
  const found = D.times[which][i];
  return found === null ? null : found + (base === null ? 0 : base);
};
const iso = seconds => {
  const date = new Date(seconds * 1000);
  return isNaN(date) ? String(seconds) : date.toISOString().replace(".000Z", "Z");
};

// The list: rows of a tree, or of what was searched; only those in sight are made.
let rows = [], chosen = 0, isTree = true;
const open = new Set(roots);
const list = $("files"), inner = document.createElement("div");
list.append(inner);
function flatten() {
  rows = [];
  const stack = roots.slice().reverse().map(i => [i, 0]);
  while (stack.length) {
    const [i, depth] = stack.pop();
    rows.push([i, depth]);
    if (open.has(i)) {
      const below = children(i);
      for (let n = below.length - 1; n >= 0; n--) stack.push([below[n], depth + 1]);
    }
  }
}
function draw() {
  inner.style.height = rows.length * ROW + "px";
  const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const to = Math.min(rows.length, from + Math.ceil(list.clientHeight / ROW) + 8);
  const made = [];
  for (let n = from; n < to; n++) {
    const [i, depth] = rows[n], row = document.createElement("div");
    row.className = "row" + (flag(i) & GONE ? " gone" : "") + (flag(i) & BAD ? " bad" : "");
    row.id = "r" + n;
    row.style.top = n * ROW + "px";
    row.style.paddingLeft = 8 + Math.min(depth, 40) * 16 + "px";
    row.setAttribute("role", "treeitem");
    row.setAttribute("aria-level", depth + 1);
    row.setAttribute("aria-selected", n === chosen);
    if (isFolder(i) && isTree) row.setAttribute("aria-expanded", open.has(i));
    const name = document.createElement("span"), bytes = document.createElement("span");
    const sign = !isTree ? "" : isFolder(i) ? (open.has(i) ? "▾ " : "▸ ") : "  ";
    name.className = "name"; bytes.className = "size";
    name.textContent = sign + clean(isTree ? NAMES[i] : path(i));
    bytes.textContent = size(isFolder(i) ? total[i] : SIZES[i]);
    row.append(name, bytes);
    made.push(row);
  }
  inner.replaceChildren(...made);
  list.setAttribute("aria-activedescendant", "r" + chosen);
  $("count").textContent = (isTree ? COUNT + " files and folders" : rows.length + " found");
}
function choose(n) {
  if (!rows.length) { draw(); return; }
  chosen = Math.max(0, Math.min(rows.length - 1, n));
  const top = chosen * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  draw(); facts(rows[chosen][0]);
}
function toggle(i, on) {
  if (on) open.add(i); else open.delete(i);
  flatten(); draw();
}
function reveal(i) {
  isTree = true; $("search").value = ""; $("kind").value = "";
  for (let at = parent[i], n = 0; at >= 0 && n < 4096; at = parent[at], n++) open.add(at);
  flatten();
  choose(rows.findIndex(row => row[0] === i));
}
list.addEventListener("scroll", draw);
list.addEventListener("click", event => {
  const row = event.target.closest(".row");
  if (!row) return;
  const n = Number(row.id.slice(1)), i = rows[n][0];
  choose(n);
  if (isTree && isFolder(i)) toggle(i, !open.has(i));
  if (isFolder(i)) show(i);
});
list.addEventListener("dblclick", () => rows.length && reveal(rows[chosen][0]));
list.addEventListener("keydown", event => {
  const page = Math.floor(list.clientHeight / ROW), i = rows.length ? rows[chosen][0] : -1;
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
  if (event.key in moves) choose(chosen + moves[event.key]);
  else if (event.key === "Home") choose(0);
  else if (event.key === "End") choose(rows.length - 1);
  else if (i >= 0 && event.key === "Enter") { isTree ? isFolder(i) && show(i) : reveal(i); }
  else if (i >= 0 && isTree && event.key === "ArrowRight" && isFolder(i)) toggle(i, true);
  else if (i >= 0 && isTree && event.key === "ArrowLeft") {
    if (open.has(i)) toggle(i, false);
    else if (parent[i] >= 0) choose(rows.findIndex(row => row[0] === parent[i]));
  } else return;
  event.preventDefault();
});
function facts(i) {
  const box = $("facts"), lines = [["path", clean(path(i))], ["size", size(SIZES[i]) + ` (${SIZES[i]})`]];
  D.words.forEach((word, which) => {
    const time = when(i, which);
    if (time !== null) lines.push([word, iso(time)]);
  });
  if (flag(i) & GONE) lines.push(["state", "deleted"]);
  if (flag(i) & BAD) lines.push(["error", clean(D.errors[i] || "it could not be read")]);
  box.replaceChildren(...lines.flatMap(([term, text]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term; dd.textContent = text;
    return [dt, dd];
  }));
}

// Search: of names, or of paths if it has a slash.
let lower = null, waiting = 0;
function search() {
  const text = $("search").value.toLowerCase(), kind = $("kind").value;
  isTree = !text && !kind;
  chosen = 0; list.scrollTop = 0;
  if (isTree) { flatten(); choose(0); return; }
  lower = lower || NAMES.map(name => name.toLowerCase());
  const isPath = text.includes("/");
  rows = [];
  for (let i = 0; i < COUNT; i++) {
    if (kind === "gone" ? !(flag(i) & GONE) : kind === "bad" ? !(flag(i) & BAD) : kind && KINDS[i] !== kind) continue;
    if ((isPath ? path(i).toLowerCase() : lower[i]).includes(text)) rows.push([i, 0]);
  }
  choose(0);
}
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 80); });
$("kind").addEventListener("change", search);

// Sizes: squarified, after Bruls, Huizing and van Wijk.
const MAP_MAX = 300;
let shown = -1;
function squarify(items, x, y, w, h, put) {
  let sum = items.reduce((all, item) => all + item.value, 0);
  let at = 0;
  while (at < items.length && w > 0 && h > 0) {
    const side = Math.min(w, h), scale = w * h / sum;
    let row = 0, n = at, worst = Infinity;
    while (n < items.length) {
      const value = row + items[n].value, thick = value * scale / side;
      const ratio = Math.max(thick * thick / (items[at].value * scale), items[n].value * scale / (thick * thick),
        items[at].value * scale / (thick * thick));
      if (ratio > worst) break;
      worst = ratio; row = value; n++;
    }
    const thick = row * scale / side;
    let along = 0;
    for (; at < n; at++) {
      const length = items[at].value * scale / thick;
      if (w >= h) put(items[at], x, y + along, thick, length);
      else put(items[at], x + along, y, length, thick);
      along += length;
    }
    if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
    sum -= row;
  }
}
function show(i) {
  shown = i;
  const below = i < 0 ? roots : children(i);
  const items = below.map(at => ({ at, value: isFolder(at) ? total[at] : SIZES[at] }))
    .filter(item => item.value > 0).sort((a, b) => b.value - a.value);
  const rest = items.splice(MAP_MAX).reduce((all, item) => all + item.value, 0);
  if (rest) { items.push({ at: -1, value: rest }); items.sort((a, b) => b.value - a.value); }
  const map = $("map"), made = [];
  squarify(items, 0, 0, map.clientWidth, map.clientHeight, (item, x, y, w, h) => {
    const box = document.createElement("button"), at = item.at;
    box.type = "button";
    box.className = at >= 0 && isFolder(at) ? "folder" : "file";
    box.style.left = x + "px"; box.style.top = y + "px";
    box.style.width = w + "px"; box.style.height = h + "px";
    const text = at < 0 ? "smaller ones" : clean(NAMES[at]);
    box.textContent = w > 30 && h > 14 ? text : "";
    box.title = text + ": " + size(item.value);
    box.setAttribute("aria-label", box.title);
    if (at >= 0) box.addEventListener("click", () => {
      if (isFolder(at)) { show(at); const to = map.querySelector("button"); if (to) to.focus(); } else reveal(at);
    });
    made.push(box);
  });
  map.replaceChildren(...made);
  $("place").textContent = i < 0 ? "all volumes" : clean(path(i)) + ", " + size(total[i]);
  $("up").disabled = i < 0 || (parent[i] < 0 && roots.length < 2);
}
$("up").addEventListener("click", () => show(parent[shown]));

// Times: how many files in each of a hundred parts of a range.
let low = 0, high = 1, sorted = [];
function ordered() {
  const which = Number($("which").value), found = [];
  for (let i = 0; i < COUNT; i++) { const time = when(i, which); if (time !== null) found.push(time); }
  sorted = Float64Array.from(found).sort();
}
function whole() {
  ordered();
  low = sorted.length ? sorted[0] : 0;
  high = sorted.length ? sorted[sorted.length - 1] + 1 : 1;
  plot();
}
function below(time) {
  let from = 0, to = sorted.length;
  while (from < to) { const middle = (from + to) >> 1; if (sorted[middle] < time) from = middle + 1; else to = middle; }
  return from;
}
const SVG = "http://www.w3.org/2000/svg";
function rect(x, y, w, h, name) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("x", x); made.setAttribute("y", y);
  made.setAttribute("width", Math.max(w, 0)); made.setAttribute("height", h);
  if (name) made.setAttribute("class", name);
  return made;
}
function plot() {
  const box = $("times"), counts = [], step = (high - low) / BINS;
  for (let n = 0; n < BINS; n++) counts.push(below(low + (n + 1) * step) - below(low + n * step));
  const most = Math.max(1, ...counts);
  box.setAttribute("viewBox", `0 0 ${BINS} 100`);
  box.setAttribute("preserveAspectRatio", "none");
  box.replaceChildren(...counts.flatMap((count, n) => {
    // By the square root: one day of installing would hide all other days.
    const height = 98 * Math.sqrt(count / most);
    if (!count) return [];
    const bar = rect(n + .05, 100 - height, .9, height), title = document.createElementNS(SVG, "title");
    title.textContent = iso(Math.floor(low + n * step)) + ": " + count;
    bar.append(title);
    return [bar];
  }));
  const inside = below(high) - below(low);
  $("span").textContent = `${iso(Math.floor(low))} to ${iso(Math.ceil(high))}: ${inside}`;
}
function zoom(factor, middle = (low + high) / 2) {
  const half = Math.max(1, (high - low) * factor / 2);
  low = middle - half; high = middle + half; plot();
}
function move(share) { const by = (high - low) * share; low += by; high += by; plot(); }
const box = $("times");
const timeAt = x => { const at = box.getBoundingClientRect(); return low + (high - low) * (x - at.left) / at.width; };
box.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") move(-.1);
  else if (event.key === "ArrowRight") move(.1);
  else if (event.key === "+" || event.key === "=") zoom(.5);
  else if (event.key === "-") zoom(2);
  else if (event.key === "Home") whole();
  else if (event.key === "Enter") those();
  else return;
  event.preventDefault();
});
box.addEventListener("wheel", event => {
  event.preventDefault(); zoom(event.deltaY < 0 ? .8 : 1.25, timeAt(event.clientX));
}, { passive: false });
let began = null;
box.addEventListener("pointerdown", event => { began = timeAt(event.clientX); box.setPointerCapture(event.pointerId); });
box.addEventListener("pointermove", event => {
  if (began === null) return;
  box.querySelectorAll(".range").forEach(old => old.remove());
  const now = timeAt(event.clientX), a = Math.min(began, now), b = Math.max(began, now), unit = BINS / (high - low);
  box.append(rect((a - low) * unit, 0, (b - a) * unit, 100, "range"));
});
box.addEventListener("pointerup", event => {
  const now = timeAt(event.clientX), a = Math.min(began, now), b = Math.max(began, now);
  began = null;
  const step = (high - low) / BINS, from = Math.floor((a - low) / step), to = Math.ceil((b - low) / step);
  if (to - from > 1) { high = low + to * step; low += from * step; }
  plot();
});
function those() {
  const which = Number($("which").value);
  isTree = false; rows = [];
  for (let i = 0; i < COUNT; i++) { const time = when(i, which); if (time !== null && time >= low && time < high) rows.push([i, 0]); }
  list.scrollTop = 0; choose(0);
}
$("in").addEventListener("click", () => zoom(.5));
$("out").addEventListener("click", () => zoom(2));
$("all").addEventListener("click", whole);
$("list").addEventListener("click", those);
$("which").addEventListener("change", whole);
let resizing = 0;
window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => { draw(); show(shown); }, 100); });

$("title").textContent = clean(D.image);
$("about").textContent = clean(D.about);
$("notes").replaceChildren(...D.notes.map(note => {
  const line = document.createElement("p");
  line.textContent = clean(note);
  return line;
}));
flatten(); choose(0); show(roots.length === 1 ? roots[0] : -1); whole();
document.documentElement.dataset.ready = "yes";
})();
