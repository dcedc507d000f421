"use strict";
(function () {
document.documentElement.classList.add("js");
var data = JSON.parse(document.getElementById("data").textContent);
var all = function (selector, root) { return Array.from((root || document).querySelectorAll(selector)); };

/* --- tables: a click on a head sorts ---------------------------------------------------------------------------- */

all("thead button").forEach(function (button) {
  button.addEventListener("click", function () {
    var head = button.parentNode, index = head.cellIndex, body = head.closest("table").tBodies[0];
    var down = head.getAttribute("aria-sort") === "ascending", rows = Array.from(body.rows);
    function key(row) {
      var cell = row.cells[index], v = cell.getAttribute("data-v");
      return v === null ? cell.textContent : v === "" ? NaN : Number(v);
    }
    rows.map(function (row, place) { return { row: row, place: place, key: key(row) }; }).sort(function (a, b) {
      var x = a.key, y = b.key, n = Number.isNaN(x) - Number.isNaN(y);
      if (n) return n;
      var order = typeof x === "number" && typeof y === "number" ? x - y || 0 : String(x).localeCompare(String(y));
      if (x === y || Number.isNaN(order)) order = 0;
      return (down ? -order : order) || a.place - b.place;
    }).forEach(function (item) { body.appendChild(item.row); });
    all("th", head.parentNode).forEach(function (th) { th.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
});

/* --- the name of an optimizer shows or hides it in all plots ---------------------------------------------------- */

var hidden = {};
all(".answer tbody tr[data-row]").forEach(function (line) {
  hidden[line.dataset.row] = false;
  var head = line.cells[0], button = document.createElement("button");
  button.type = "button";
  button.className = "toggle";
  button.setAttribute("aria-pressed", "true");
  button.title = "show or hide in all plots";
  while (head.firstChild) button.appendChild(head.firstChild);
  head.appendChild(button);
  button.addEventListener("click", function () {
    var hide = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!hide));
    hidden[line.dataset.row] = hide;
    all('.plot [data-row="' + line.dataset.row + '"]').forEach(function (part) { part.classList.toggle("gone", hide); });
    /* A part of several curves goes with the last of them that has a line here. */
    all(".plot [data-some]").forEach(function (part) {
      var rows = part.dataset.some.split(" ").filter(function (row) { return row in hidden; });
      part.classList.toggle("gone", rows.length > 0 && rows.every(function (row) { return hidden[row]; }));
    });
    leave();
  });
});

/* --- points ----------------------------------------------------------------------------------------------------- */

var REACH = 14;
var tip = document.createElement("div"), lines = [], plots = [];
tip.id = "tip";
tip.setAttribute("role", "status");
document.body.appendChild(tip);
var ring = document.createElementNS(document.querySelector("svg").namespaceURI, "circle");
ring.setAttribute("class", "ring");
ring.setAttribute("r", "5.5");

all(".plot svg").forEach(function (svg) {
  var points = [], panels = [];
  all("[data-runs],[data-rates]", svg).forEach(function (group) {
    var runs = group.dataset.runs, places = (runs || group.dataset.rates || "").split(" ").map(Number);
    var drawn = "lines" in group.dataset, marks = all(drawn ? "path" : "use", group);
    if (!marks.length) marks = Array.from(group.children).filter(function (one) { return one.tagName === "path"; });
    if (marks.length !== places.length) return;
    var row = Number(group.dataset.row), known = data.rows[row];
    if (!known || (runs && !known.runs)) return;
    if (panels.indexOf(group.parentNode) < 0) panels.push(group.parentNode);
    var panel = panels.indexOf(group.parentNode);
    marks.forEach(function (mark, number) {
      var run = runs ? places[number] : -1, rate = runs ? known.runs[run][0] : places[number];
      var one = { panel: panel, row: row, run: run, rate: rate, mark: mark, group: group, svg: svg };
      if (drawn) { lines.push(one); return; }
      points.push(one);
    });
  });
  if (!points.length) return;
  points.sort(function (a, b) { return a.panel - b.panel || a.row - b.row || a.rate - b.rate || a.run - b.run; });
  var plot = { svg: svg, points: points, at: -1 };
  plots.push(plot);
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "application");
  svg.setAttribute("aria-roledescription", "interactive plot");
  svg.setAttribute("aria-label", svg.getAttribute("aria-label") +
    " Left and right move between learning rates, up and down between curves and seeds, Enter goes to the loss curve.");
  svg.addEventListener("mousemove", function (event) { choose(plot, nearest(plot, event), event); });
  svg.addEventListener("mouseleave", leave);
  svg.addEventListener("click", function (event) { if (choose(plot, nearest(plot, event), event)) follow(plot); });
  svg.addEventListener("focus", function () { if (svg.matches(":focus-visible")) choose(plot, Math.max(plot.at, 0)); });
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", function (event) { pressed(plot, event); });
});

function place(point) {
  if (!point.xy) {
    var mark = point.mark, box = mark.tagName === "use" ? null : mark.getBBox();
    point.xy = box ? [box.x + box.width / 2, box.y + box.height / 2]
      : [Number(mark.getAttribute("x")), Number(mark.getAttribute("y"))];
  }
  return point.xy;
}

function shown(point) { return !point.group.closest(".gone"); }

function nearest(plot, event) {
  var matrix = plot.svg.getScreenCTM(), best = -1, reach = REACH;
  plot.points.forEach(function (point, number) {
    if (!shown(point)) return;
    var xy = place(point), x = matrix.a * xy[0] + matrix.e - event.clientX, y = matrix.d * xy[1] + matrix.f - event.clientY;
    var far = Math.hypot(x, y) - (point.run < 0 ? 1 : 0);
    if (far < reach) { reach = far; best = number; }
  });
  return best;
}

function choose(plot, number, event) {
  if (number < 0) { leave(); return false; }
  var point = plot.points[number], xy = place(point), matrix = plot.svg.getScreenCTM();
  plot.at = number;
  ring.setAttribute("cx", xy[0]);
  ring.setAttribute("cy", xy[1]);
  plot.svg.appendChild(ring);
  tip.textContent = said(point);
  var x = matrix.a * xy[0] + matrix.e, y = matrix.d * xy[1] + matrix.f, box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 12, window.innerWidth - box.width - 4)) + "px";
  tip.style.top = (y + 14 + box.height > window.innerHeight ? y - box.height - 12 : y + 14) + "px";
  light(point);
  return true;
}

function said(point) {
  var row = data.rows[point.row], rate = row.rates[point.rate];
  if (point.run < 0) return row.title + " · lr " + rate[0] + " · median " + data.objective + " " + rate[1] + " · " + rate[2];
  var run = row.runs[point.run];
  return row.title + " · lr " + rate[0] + " · seed " + run[1] + " · " + data.objective + " " + run[2] + " · " + run[3];
}

/* The loss curves of a run, or of all runs at a learning rate; of the rate where only its median is drawn. */
function curves(point) {
  var near = lines.filter(function (one) { return one.row === point.row && one.rate === point.rate; });
  var own = near.filter(function (one) { return point.run >= 0 && one.run === point.run; });
  return own.length ? own : near;
}

function light(point) {
  dark();
  curves(point).forEach(function (one) {
    one.mark.classList.add("on");
    one.svg.classList.add("lit");
  });
}

function dark() {
  all(".plot svg .on").forEach(function (one) { one.classList.remove("on"); });
  all(".plot svg.lit").forEach(function (svg) { svg.classList.remove("lit"); });
}

function leave() {
  ring.remove();
  tip.textContent = "";
  dark();
}

function follow(plot) {
  var found = curves(plot.points[plot.at]);
  if (found.length && found[0].svg !== plot.svg) found[0].mark.scrollIntoView({ block: "center", inline: "center" });
}

function pressed(plot, event) {
  var now = plot.points[plot.at], key = event.key;
  if (key === "Escape") { leave(); return; }
  if (key === "Enter" || key === " ") { if (now) follow(plot); event.preventDefault(); return; }
  var step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key], across = key === "ArrowRight" || key === "ArrowLeft";
  if (!step) return;
  event.preventDefault();
  /* Across: the same curve or seed at the next learning rate. Up and down: the next mark at this learning rate. */
  var order = plot.points.map(function (_, number) { return number; }).filter(function (number) {
    var one = plot.points[number];
    if (!shown(one)) return false;
    if (!now || number === plot.at) return true;
    if (!across) return lr(one) === lr(now);
    return one.panel === now.panel && one.row === now.row && seed(one) === seed(now);
  });
  var at = order.indexOf(plot.at) + step;
  if (at >= 0 && at < order.length) choose(plot, order[at]);
}

function lr(point) { return data.rows[point.row].rates[point.rate][0]; }

function seed(point) { return point.run < 0 ? -1 : data.rows[point.row].runs[point.run][1]; }

window.addEventListener("scroll", function () { if (tip.textContent && !document.activeElement.closest("svg")) leave(); }, { passive: true });
window.addEventListener("beforeprint", function () { all("details").forEach(function (one) { one.open = true; }); });
})();
