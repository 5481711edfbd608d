// The drawing of one call tree: a canvas as large as what can be seen, redrawn on every change.
// Zooming changes the window [from, to) of values that is shown, so ancestors stay and fill the
// width by themselves. Only frames that can be seen are looked at.
"use strict";

class FlameCanvas {
  static ROW = 20;
  static FONT = '12px ui-sans-serif, system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';
  static NARROWEST = 0.4; // pixels; narrower frames are not drawn

  // parts: {scroll, space, canvas}; frames: [{name, color}]; look: {light, dark, text}.
  constructor(parts, frames, look) {
    Object.assign(this, parts);
    this.frames = frames;
    this.look = look;
    this.context = this.canvas.getContext("2d");
    this.tree = null;
    this.isIcicle = false;
    this.zoom = 0;
    this.focus = 0;
    this.hover = -1;
    this.hits = null;
    this.labels = new Map();
    this.pending = 0;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.readTheme());
    new ResizeObserver(() => this.resize()).observe(this.scroll);
    this.scroll.addEventListener("scroll", () => this.redraw(), { passive: true });
    this.dark = dark;
    this.readTheme();
    this.resize();
  }

  // tree and value type; keepZoom when the tree is the same one.
  show(tree, type, keepZoom) {
    this.tree = tree;
    this.total = tree.total[type];
    this.at = FlameTree.positions(tree, type);
    if (!keepZoom) { this.zoom = 0; this.focus = 0; }
    this.hover = -1;
    this.jump();
  }

  setHits(hits) { this.hits = hits; this.redraw(); }
  setHover(node) { if (node !== this.hover) { this.hover = node; this.redraw(); } }
  setFocus(node) { this.focus = node; this.reveal(node); this.redraw(); }
  setIcicle(isIcicle) { this.isIcicle = isIcicle; this.jump(); }

  zoomTo(node) {
    const before = this.shown;
    this.zoom = this.focus = node;
    this.measure();
    this.reveal(node);
    const after = this.shown;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) { this.redraw(); return; }
    const start = performance.now();
    const step = (now) => {
      if (this.zoom !== node) return;
      const part = Math.min(1, Math.max(0, (now - start) / 160));
      const eased = 1 - (1 - part) ** 3;
      this.shown = part === 1 ? after : before.map((x, i) => x + (after[i] - x) * eased);
      this.draw();
      if (part < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  jump() {
    this.measure();
    this.scroll.scrollTop = this.isIcicle ? 0 : this.height;
    this.reveal(this.zoom);
    this.redraw();
  }

  // The window of values and the height that the zoomed subtree needs.
  measure() {
    if (!this.tree) return;
    const rows = this.tree.deepest[this.zoom] + 1;
    this.height = Math.max(this.scroll.clientHeight, rows * FlameCanvas.ROW + 2);
    this.space.style.height = `${this.height}px`;
    this.window = [this.at[this.zoom], this.at[this.zoom] + this.total[this.zoom]];
    this.shown = this.window; // what is drawn; on its way to the window while a zoom runs
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.scroll;
    const ratio = window.devicePixelRatio || 1;
    const wasAtRoot = !this.isIcicle && this.tree &&
      this.scroll.scrollTop + (this.seen || 0) >= this.height - 2;
    this.seen = height;
    this.width = width;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    this.measure();
    if (wasAtRoot) this.scroll.scrollTop = this.height;
    this.draw();
  }

  readTheme() {
    const style = getComputedStyle(document.documentElement);
    const css = (name) => style.getPropertyValue(name).trim();
    const colors = this.dark.matches ? this.look.dark : this.look.light;
    const fade = Number(css("--fade"));
    const panel = css("--panel");
    this.theme = {
      colors, faded: colors.map((color) => FlameCanvas.mix(color, panel, fade)),
      text: this.look.text[this.dark.matches ? 1 : 0],
      fadedText: css("--faded-text"), hit: css("--hit"), hitText: css("--hit-text"), ink: css("--ink"),
    };
    this.redraw();
  }

  static mix(color, back, part) {
    const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
    const mixed = [0, 1, 2].map((i) => Math.round(channel(color, i) * part + channel(back, i) * (1 - part)));
    return `rgb(${mixed.join(" ")})`;
  }

  top(depth) {
    const row = FlameCanvas.ROW;
    return (this.isIcicle ? depth * row : this.height - (depth + 1) * row) - this.scroll.scrollTop;
  }

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.draw(); });
  }

  draw() {
    if (!this.tree || !this.width) return;
    const { context, tree, total, at, width } = this;
    const ratio = window.devicePixelRatio || 1;
    const [from, to] = this.shown;
    const scale = to > from ? width / (to - from) : 0;
    const bottom = this.scroll.clientHeight, row = FlameCanvas.ROW;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, bottom);
    context.font = FlameCanvas.FONT;
    context.textBaseline = "middle";
    context.direction = "ltr";
    for (let i = 0; i < tree.count;) {
      const left = (at[i] - from) * scale, right = left + total[i] * scale;
      const y = this.top(tree.depth[i]);
      const isPast = this.isIcicle ? y >= bottom : y + row <= 0; // and so is all below it
      if (right <= 0 || left >= width || right - left < FlameCanvas.NARROWEST || isPast) {
        i = tree.end[i];
        continue;
      }
      if (y + row > 0 && y < bottom) this.drawFrame(i, Math.max(0, left), Math.min(width, right), y);
      i++;
    }
    this.outline(this.hover, 1.5);
    if (document.activeElement === this.scroll) this.outline(this.focus, 2);
  }

  drawFrame(node, left, right, y) {
    const { context, theme } = this;
    const frame = this.frames[this.tree.frame[node]];
    const isHit = this.hits !== null && this.hits[this.tree.frame[node]] === 1;
    const isFaded = !isHit && (this.hits !== null || this.tree.depth[node] < this.tree.depth[this.zoom]);
    const width = right - left;
    context.fillStyle = isHit ? theme.hit : (isFaded ? theme.faded : theme.colors)[frame.color];
    context.beginPath();
    if (width > 5) context.roundRect(left + 0.5, y + 0.5, width - 1, FlameCanvas.ROW - 1, 2.5);
    else context.rect(left, y + 0.5, width > 1.4 ? width - 0.5 : width, FlameCanvas.ROW - 1);
    context.fill();
    if (width < 26) return;
    const text = this.label(this.tree.frame[node], width - 11);
    if (text === "") return;
    context.fillStyle = isHit ? theme.hitText : isFaded ? theme.fadedText : theme.text;
    context.fillText(text, left + 6, y + FlameCanvas.ROW / 2 + 1);
  }

  outline(node, thickness) {
    const box = this.box(node, this.shown);
    if (box === null) return;
    this.context.strokeStyle = this.theme.ink;
    this.context.lineWidth = thickness;
    const inset = thickness / 2;
    this.context.beginPath();
    this.context.roundRect(box.left + inset, box.top + inset, Math.max(1, box.right - box.left - thickness),
      FlameCanvas.ROW + 1 - thickness, 2.5);
    this.context.stroke();
  }

  // Where a node is drawn inside the canvas, or null when the window does not show it.
  box(node, [from, to] = this.window) {
    if (!this.tree || node < 0 || node >= this.tree.count) return null;
    const scale = to > from ? this.width / (to - from) : 0;
    const left = (this.at[node] - from) * scale;
    const right = left + this.total[node] * scale;
    if (right <= 0 || left >= this.width) return null;
    return { left: Math.max(0, left), right: Math.min(this.width, right), top: this.top(this.tree.depth[node]) };
  }

  // The node at a point of the canvas, or -1.
  hit(x, y) {
    if (!this.tree) return -1;
    const inner = y + this.scroll.scrollTop;
    const depth = Math.floor((this.isIcicle ? inner : this.height - inner) / FlameCanvas.ROW);
    const [from, to] = this.window;
    const value = from + (x / this.width) * (to - from);
    for (let i = 0; i < this.tree.count;) {
      if (value < this.at[i] || value >= this.at[i] + this.total[i] || this.tree.depth[i] > depth) i = this.tree.end[i];
      else if (this.tree.depth[i] === depth) return i;
      else i++;
    }
    return -1;
  }

  reveal(node) {
    const y = this.top(this.tree.depth[node]), seen = this.scroll.clientHeight;
    if (y < 0) this.scroll.scrollTop += y - FlameCanvas.ROW;
    else if (y + FlameCanvas.ROW > seen) this.scroll.scrollTop += y + 2 * FlameCanvas.ROW - seen;
  }

  // As much of a frame's name as fits: all of it, or without arguments and template arguments,
  // or cut. Widths are measured once a name.
  label(frame, room) {
    let known = this.labels.get(frame);
    if (!known) {
      const full = [...this.frames[frame].name.slice(0, 400)].join("");
      known = [full, FlameCanvas.shorten(full)].map((text) => ({ text, width: this.context.measureText(text).width }));
      this.labels.set(frame, known);
    }
    for (const form of known) if (form.width <= room) return form.text;
    const { text, width } = known[1];
    const letters = [...text];
    let count = Math.floor((letters.length * room) / width);
    for (; count > 1; count--) {
      const cut = `${letters.slice(0, count).join("")}…`;
      if (this.context.measureText(cut).width <= room) return cut;
    }
    return "";
  }

  static shorten(name) {
    let out = "", depth = 0;
    for (let i = 0; i < name.length; i++) {
      const c = name[i];
      const isOperator = /operator[-<>=(]*$/.test(out.slice(-12));
      if ((c === "<" || c === "(") && depth === 0 && out !== "" && !isOperator && !name.startsWith("(anonymous", i)) {
        depth = 1;
        out += c === "<" ? "<…>" : "";
      } else if (depth > 0) {
        if (c === "<" || c === "(") depth++;
        if ((c === ">" && name[i - 1] !== "-") || c === ")") depth--;
      } else out += c;
    }
    return depth === 0 ? out : name;
  }
}
