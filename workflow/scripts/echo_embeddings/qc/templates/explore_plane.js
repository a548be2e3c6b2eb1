// Points on a canvas: what is drawn where, and which point is meant. It knows nothing of the page around it.
const SYMBOLS = [
  (c, r) => c.arc(0, 0, r, 0, 2 * Math.PI),
  (c, r) => c.rect(-0.88 * r, -0.88 * r, 1.76 * r, 1.76 * r),
  (c, r) => outline(c, r, [[0, -1.25], [1.15, 0.85], [-1.15, 0.85]]),
  (c, r) => outline(c, r, [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]),
  (c, r) => outline(c, r, [[0, 1.25], [1.15, -0.85], [-1.15, -0.85]]),
  (c, r) => cross(c, r, 0),
  (c, r) => cross(c, r, Math.PI / 4),
  (c, r) => outline(c, r, [[-1.2, -1], [1.2, 1], [1.2, -1], [-1.2, 1]]),
];

function outline(c, r, corners) {
  corners.forEach(([x, y], i) => (i ? c.lineTo(x * r, y * r) : c.moveTo(x * r, y * r)));
  c.closePath();
}

function cross(c, r, turn) {
  const [a, b] = [0.42 * r, 1.25 * r];
  const corners = [[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a], [a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]];
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  outline(c, r, corners.map(([x, y]) => [(x * cos - y * sin) / r, (x * sin + y * cos) / r]));
}

// The symbol of a style {symbol, colour}, drawn once and then copied: `size` is its radius in CSS pixels.
function sprite(style, size, ratio) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.ceil(2 * ratio * (1.4 * size + 1));
  const c = canvas.getContext("2d");
  c.translate(canvas.width / 2, canvas.height / 2);
  c.scale(ratio, ratio);
  c.beginPath();
  SYMBOLS[style.symbol](c, style.hollow ? 0.7 * size : size);
  c.fillStyle = c.strokeStyle = style.colour;
  c.globalAlpha = style.hollow ? 1 : 0.82;
  if (style.hollow) c.stroke();
  else c.fill();
  return canvas;
}

class Plane {
  constructor(canvas) {
    this.canvas = canvas;
    this.marked = []; // points in a ring
    this.chosen = -1; // the point in a double ring, with lines to `linked`
    this.linked = [];
    this.path = []; // of the lasso, in CSS pixels
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  // Points: Float32Array of x and y in turn; the window: left, right, bottom, top.
  show(points, window, axes) {
    Object.assign(this, { points, home: window, axes });
    this.reset();
  }

  // The group of each point, the style of each group {symbol, colour, hollow}, and the groups that are hidden.
  group(groups, styles, hidden) {
    Object.assign(this, { groups, styles, hidden, sprites: null });
    this.draw();
  }

  reset() {
    const [left, right, bottom, top] = this.home;
    this.centre = [(left + right) / 2, (bottom + top) / 2];
    this.span = [1.06 * (right - left), 1.06 * (top - bottom)];
    this.draw();
  }

  zoom(factor, at = null) {
    const [x, y] = at ? this.behind(...at) : this.centre;
    this.centre = [x + (this.centre[0] - x) / factor, y + (this.centre[1] - y) / factor];
    this.span = this.span.map((span) => span / factor);
    this.draw();
  }

  // Move what is seen by CSS pixels.
  pan(x, y) {
    this.centre[0] -= (x / this.width) * this.span[0];
    this.centre[1] += (y / this.height) * this.span[1];
    this.draw();
  }

  get width() {
    return this.canvas.clientWidth;
  }

  get height() {
    return this.canvas.clientHeight;
  }

  // Where all points are, in CSS pixels, and which are seen: once after each change, not once a question.
  project() {
    const [n, width, height] = [this.points.length / 2, this.width, this.height];
    this.screen = new Float32Array(2 * n);
    this.seen = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      const x = ((this.points[2 * i] - this.centre[0]) / this.span[0] + 0.5) * width;
      const y = (0.5 - (this.points[2 * i + 1] - this.centre[1]) / this.span[1]) * height;
      this.screen[2 * i] = x;
      this.screen[2 * i + 1] = y;
      this.seen[i] = x >= 0 && y >= 0 && x <= width && y <= height && !this.hidden.has(this.groups[i]);
    }
    this.stale = false;
  }

  // Where a point is, in CSS pixels; and what lies behind such a place.
  place(i) {
    if (this.stale) this.project();
    return [this.screen[2 * i], this.screen[2 * i + 1]];
  }

  behind(x, y) {
    return [
      this.centre[0] + (x / this.width - 0.5) * this.span[0],
      this.centre[1] - (y / this.height - 0.5) * this.span[1],
    ];
  }

  visible(i) {
    if (this.stale) this.project();
    return this.seen[i] === 1;
  }

  // The point of least `cost(dx, dy)` from a place, -1 where that is infinite for all.
  least(x, y, cost, except = -1) {
    let [best, lowest] = [-1, Infinity];
    for (let i = 0; i < this.groups.length; i++) {
      if (i === except || !this.visible(i)) continue;
      const [px, py] = this.place(i);
      const value = cost(px - x, py - y);
      if (value < lowest) [best, lowest] = [i, value];
    }
    return best;
  }

  at(x, y, reach = 12) {
    return this.least(x, y, (dx, dy) => (dx * dx + dy * dy <= reach * reach ? dx * dx + dy * dy : Infinity));
  }

  // The next point from another one towards [1, 0], [0, -1] and so on, on the screen.
  towards(from, [ux, uy]) {
    const [x, y] = this.place(from);
    const cost = (dx, dy) => {
      const along = dx * ux + dy * uy;
      const aside = Math.abs(dx * uy - dy * ux);
      return along > 0.5 && aside <= along ? along + 2 * aside : Infinity;
    };
    return this.least(x, y, cost, from);
  }

  // The points inside the lasso.
  inside() {
    const found = [];
    for (let i = 0; i < this.groups.length; i++) {
      if (!this.visible(i)) continue;
      const [x, y] = this.place(i);
      let odd = false;
      for (let a = 0, b = this.path.length - 1; a < this.path.length; b = a++) {
        const [[ax, ay], [bx, by]] = [this.path[a], this.path[b]];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
      }
      if (odd) found.push(i);
    }
    return found;
  }

  draw() {
    this.stale = true;
    if (!this.points || !this.groups || this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  paint() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (!width || !height) return;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height];
    }
    const size = this.groups.length > 10000 ? 2.3 : this.groups.length > 4000 ? 3 : this.groups.length > 400 ? 4 : 6;
    this.sprites ??= this.styles.map((style) => sprite(style, size, ratio));
    const c = this.canvas.getContext("2d");
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, width, height);
    this.project();
    for (let i = 0; i < this.groups.length; i++) {
      if (!this.seen[i]) continue;
      const picture = this.sprites[this.groups[i]];
      const [x, y] = [this.screen[2 * i] * ratio, this.screen[2 * i + 1] * ratio];
      c.drawImage(picture, Math.round(x - picture.width / 2), Math.round(y - picture.height / 2));
    }
    c.scale(ratio, ratio);
    this.paintMarks(c, size);
    this.paintAxes(c);
  }

  paintMarks(c, size) {
    const style = getComputedStyle(this.canvas);
    c.strokeStyle = style.getPropertyValue("--ink");
    const ring = (i, radius) => {
      c.beginPath();
      c.arc(...this.place(i), radius, 0, 2 * Math.PI);
      c.stroke();
    };
    c.lineWidth = 1.2;
    for (const i of this.marked) if (this.visible(i)) ring(i, size + 3);
    if (this.chosen >= 0) {
      for (const other of this.linked) {
        c.beginPath();
        c.moveTo(...this.place(this.chosen));
        c.lineTo(...this.place(other));
        c.stroke();
        ring(other, size + 3);
      }
      c.lineWidth = 2.5;
      ring(this.chosen, size + 5);
    }
    if (this.path.length > 1) {
      c.lineWidth = 1.5;
      c.setLineDash([5, 3]);
      c.beginPath();
      this.path.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
      c.closePath();
      c.stroke();
      c.setLineDash([]);
    }
  }

  paintAxes(c) {
    c.fillStyle = getComputedStyle(this.canvas).getPropertyValue("--soft");
    c.font = "12px system-ui, sans-serif";
    c.textAlign = "right";
    c.fillText(this.axes[0], this.width - 8, this.height - 8);
    c.save();
    c.translate(16, 8);
    c.rotate(-Math.PI / 2);
    c.fillText(this.axes[1], 0, 0);
    c.restore();
  }
}
