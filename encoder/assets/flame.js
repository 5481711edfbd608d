// The page around the graph: controls, search, keyboard, tooltip, table, and the state in the URL.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const make = (tag, text, properties) => Object.assign(document.createElement(tag), { textContent: text }, properties);

  const strings = data.strings;
  const keys = new Map();
  const frames = data.frames.map(([name, module, file, color, flags]) => {
    const id = `${name} ${module}`;
    if (!keys.has(id)) keys.set(id, keys.size);
    return { name: strings[name] || "(no name)", module: strings[module], file: strings[file], color, flags, key: keys.get(id) };
  });
  const rank = new Float64Array(frames.length);
  frames.map((frame, i) => [frame.name, i]).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] - b[1]))
    .forEach(([, i], place) => { rank[i] = place; });

  const whole = FlameTree.decode(data);
  const threads = FlameTree.threads(whole, frames);
  const MERGED = "*";
  const start = { q: "", thread: "", view: "top-down", value: data.value, orientation: "flame", at: 0 };
  const state = { ...start };
  let base = whole;          // top-down, of the chosen threads
  let tree = whole;          // what is drawn
  let functions = [];
  let sort = { by: "self", sign: -1 };
  let listed = 150;
  let hits = null;

  // The style chooses by family what a hit looks like.
  const families = { wall: "rose", heap: "green", allocs: "green", temporary: "green", mmap: "green", mutex: "purple", contention: "purple" };
  document.documentElement.dataset.family = families[data.kind] || "hot";
  const graph = new FlameCanvas(
    { scroll: element("scroll"), space: element("space"), canvas: element("canvas") }, frames,
    { light: data.light, dark: data.dark, text: data.text });

  // ---- numbers -------------------------------------------------------------------------------
  const whole_number = new Intl.NumberFormat("en-US");
  const NBSP = "\u00a0";

  function percent(part, of) {
    const value = of > 0 ? (100 * part) / of : 0;
    return `${value.toFixed(value >= 10 || value === 0 ? 1 : 2)}${NBSP}%`;
  }

  function scaled(value, steps) {
    const step = steps.find(([size]) => Math.abs(value) >= size) || steps[steps.length - 1];
    const number = value / step[0];
    return `${number.toFixed(number >= 100 || step[0] === 1 ? 0 : number >= 10 ? 1 : 2)}${NBSP}${step[1]}`;
  }

  function amount(value, type) {
    const unit = data.types[type][1];
    if (unit === "nanoseconds") return scaled(value, [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]]);
    if (unit === "bytes") return scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]]);
    const name = unit === "count" ? data.types[type][0].replace(/^.*_/, "") : unit;
    return `${whole_number.format(value)}${NBSP}${value === 1 ? name.replace(/s$/, "") : name}`;
  }

  // Where the type's name stands beside it.
  function bare(value, type) {
    return data.types[type][1] === "count" ? whole_number.format(value) : amount(value, type);
  }

  function typeName(type) {
    const [name, unit] = data.types[type];
    const known = { cpu: "CPU time", inuse_space: "In use", inuse_objects: "Live blocks", alloc_space: "Allocated", alloc_objects: "Allocations" };
    if (known[name]) return known[name];
    const text = name.replace(/_/g, " ");
    return text.charAt(0).toUpperCase() + text.slice(1) + (unit === "nanoseconds" && !/time|delay/.test(name) ? " time" : "");
  }

  // ---- head ----------------------------------------------------------------------------------
  function fact(name, text) {
    const row = make("div", "");
    row.append(make("dt", name), make("dd", text));
    element("facts").append(row);
  }

  function showHead() {
    element("title").textContent = data.title;
    document.title = data.title;
    if (data.duration_ns > 0) fact("Duration", scaled(data.duration_ns, [[1e9, "s"], [1e6, "ms"]]));
    for (let t = data.types.length - 1; t >= 0; t--) {
      const total = whole.total[t][0];
      const isCpu = data.types[t][0] === "cpu" && data.duration_ns > 0;
      const busy = isCpu ? ` (${(total / data.duration_ns).toFixed(2)} CPUs busy)` : "";
      fact(typeName(t), bare(total, t) + busy);
    }
    if (threads.length) fact("Threads", whole_number.format(threads.length));
    fact("Functions", whole_number.format(FlameTree.functions(whole, frames).length));
    if (data.time_ns > 0) fact("Recorded", new Date(data.time_ns / 1e6).toLocaleString("sv-SE"));
    const notes = element("notes");
    for (const comment of data.comments) {
      // Losses end in the name of their counter: "3 samples refused because ... (sample_nested)."
      const isLoss = /^\d.*\([a-z]+(_[a-z]+)+\)\.?$/.test(comment) || /\b(lost|dropped|truncated|missed)\b/i.test(comment);
      notes.append(make("li", comment, { className: isLoss ? "loss" : "" }));
      if (isLoss) notes.classList.add("has-loss");
    }
    notes.hidden = data.comments.length === 0;
  }

  function showControls() {
    const pick = element("thread"), type = start.value;
    pick.append(make("option", threads.length ? "All threads" : "All samples", { value: "" }));
    if (threads.length > 1) pick.append(make("option", "All threads, merged", { value: MERGED }));
    const total = whole.total[type];
    for (const node of [...threads].sort((a, b) => total[b] - total[a])) {
      const name = frames[whole.frame[node]].name;
      pick.append(make("option", `${name}  ${percent(total[node], total[0])}`, { value: name }));
    }
    for (let t = data.types.length - 1; t >= 0; t--) {
      const label = make("label", "");
      label.append(make("input", "", { type: "radio", name: "value", value: String(t) }), make("span", typeName(t)));
      element("types").append(label);
    }
    element("types").hidden = data.types.length < 2;
    element("tools").classList.toggle("many", data.types.length > 2);
  }

  // ---- state ---------------------------------------------------------------------------------
  function readUrl() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const known = (name, allowed) => (allowed.includes(asked.get(name)) ? asked.get(name) : start[name]);
    const number = (name, limit) => {
      const value = Number(asked.get(name) ?? start[name]);
      return Number.isInteger(value) && value >= 0 && value < limit ? value : start[name];
    };
    return {
      q: asked.get("q") || "", thread: asked.get("thread") || "",
      view: known("view", ["top-down", "bottom-up"]), orientation: known("orientation", ["flame", "icicle"]),
      value: number("value", data.types.length), at: number("at", 2 ** 31),
    };
  }

  function writeUrl(isStep) {
    const asked = new URLSearchParams();
    for (const name of Object.keys(start)) if (state[name] !== start[name]) asked.set(name, state[name]);
    const hash = asked.toString();
    if (hash === location.hash.slice(1)) return;
    try {
      history[isStep ? "pushState" : "replaceState"](null, "", hash ? `#${hash}` : location.pathname + location.search);
    } catch (error) { /* a sandboxed frame may not write its address: the page works without */ }
  }

  // Makes the page show `wanted`; only what differs is computed again.
  function apply(wanted, isFirst) {
    const before = { ...state };
    Object.assign(state, wanted);
    const isOtherThread = isFirst || before.thread !== state.thread;
    const isOtherTree = isOtherThread || before.view !== state.view ||
      (state.view === "bottom-up" && before.value !== state.value);
    if (isOtherThread) {
      const node = threads.find((thread) => frames[whole.frame[thread]].name === state.thread);
      if (node === undefined && state.thread !== MERGED) state.thread = "";
      base = state.thread === MERGED ? FlameTree.merged(whole, frames, rank)
        : node !== undefined ? FlameTree.only(whole, node) : whole;
      functions = FlameTree.functions(base, frames);
    }
    if (isOtherTree) tree = state.view === "bottom-up" ? FlameTree.inverted(base, rank, state.value) : base;
    if (state.at >= tree.count) state.at = 0;
    if (isFirst || before.q !== state.q) search();
    graph.isIcicle = state.orientation === "icicle";
    if (isOtherTree || before.value !== state.value) {
      graph.zoom = graph.focus = state.at;
      graph.show(tree, state.value, true);
    } else if (before.orientation !== state.orientation) graph.jump();
    else if (graph.zoom !== state.at) graph.zoomTo(state.at);
    showState();
  }

  function showState() {
    for (const input of element("tools").querySelectorAll("input[type=radio]")) {
      input.checked = input.value === String(state[input.name]);
    }
    if (element("search").value !== state.q) element("search").value = state.q;
    element("thread").value = state.thread;
    const isEmpty = !(tree.total[state.value][0] > 0);
    element("empty").hidden = !isEmpty;
    element("scroll").hidden = isEmpty;
    element("empty").textContent = data.kind === "cpu"
      ? "No samples: the program used no CPU time that was seen in this window."
      : "Nothing was recorded in this window.";
    showCrumbs();
    showFound();
    showRows();
    showFocus(graph.focus);
  }

  function change(part, isStep) {
    apply({ ...state, ...part });
    writeUrl(isStep);
  }

  function zoom(node) {
    if (node >= 0 && node !== state.at) change({ at: node }, true);
  }

  // ---- search --------------------------------------------------------------------------------
  function search() {
    const compiled = FlameTree.compile(state.q);
    element("search").setAttribute("aria-invalid", String(Boolean(compiled && compiled.error)));
    hits = compiled && compiled.test
      ? Uint8Array.from(frames, (frame, i) => Number(i !== whole.frame[0] && compiled.test(frame))) : null;
    graph.setHits(hits);
    listed = 150;
  }

  function showFound() {
    const found = element("found");
    found.replaceChildren();
    const compiled = FlameTree.compile(state.q);
    if (compiled && compiled.error) { found.textContent = compiled.error; return; }
    if (hits === null) return;
    const total = tree.total[state.value];
    const part = FlameTree.matched(tree, state.value, hits, 0);
    found.append(make("b", percent(part, total[0])), " matched");
    if (state.at === 0) return;
    const seen = FlameTree.matched(tree, state.value, hits, state.at);
    found.append(" · ", make("b", percent(seen, total[state.at])), " of view");
  }

  // ---- breadcrumb, detail, tooltip -----------------------------------------------------------
  function showCrumbs() {
    const path = [];
    for (let node = state.at; node >= 0; node = tree.parent[node]) path.unshift(node);
    const crumbs = element("crumbs");
    crumbs.replaceChildren();
    path.forEach((node, i) => {
      if (i > 0) crumbs.append(make("i", "›", { ariaHidden: "true" }));
      const button = make("button", frames[tree.frame[node]].name, { type: "button", title: frames[tree.frame[node]].name });
      if (node === state.at) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => zoom(node));
      crumbs.append(button);
    });
    crumbs.scrollLeft = crumbs.scrollWidth;
  }

  // Zoomed, and node is part of what was zoomed into rather than above it.
  const isInView = (node) => state.at !== 0 && node >= state.at && node < tree.end[state.at];

  // [what, value] for everything known of a node.
  function describe(node) {
    const type = state.value, total = tree.total[type], self = tree.self[type];
    const lines = [];
    for (let t = data.types.length - 1; t >= 0; t--) lines.push([typeName(t), bare(tree.total[t][node], t)]);
    lines.push(["Of total", percent(total[node], total[0])]);
    if (isInView(node)) lines.push(["Of view", percent(total[node], total[state.at])]);
    if (node > 0) lines.push([state.view === "bottom-up" ? "Of callee" : "Of caller", percent(total[node], total[tree.parent[node]])]);
    if (self[node] > 0 && state.view === "top-down") lines.push(["Self", `${amount(self[node], type)} (${percent(self[node], total[0])})`]);
    return lines;
  }

  function where(frame) {
    const inlined = frame.flags & 1 ? "inlined" : "";
    return [frame.module, frame.file, inlined].filter(Boolean).join(" · ");
  }

  function showDetail(node) {
    const detail = element("detail");
    const frame = frames[tree.frame[node]], total = tree.total[state.value];
    detail.replaceChildren(make("b", frame.name));
    if (frame.module) detail.append(make("span", frame.module));
    const named = (t) => (data.types.length > 2 ? `${typeName(t)} ${bare(tree.total[t][node], t)}` : amount(tree.total[t][node], t));
    for (let t = data.types.length - 1; t >= 0; t--) detail.append(make("span", named(t)));
    detail.append(make("span", `${percent(total[node], total[0])} of total`));
    if (isInView(node)) detail.append(make("span", `${percent(total[node], total[state.at])} of view`));
  }

  // The frame under the keyboard's cursor, also for those who hear the page.
  function showFocus(node) {
    const cursor = element("cursor"), total = tree.total[state.value];
    const around = siblings(node);
    cursor.textContent = `${frames[tree.frame[node]].name}, ${percent(total[node], total[0])} of total, ${amount(total[node], state.value)}`;
    cursor.setAttribute("aria-level", String(tree.depth[node] + 1));
    cursor.setAttribute("aria-setsize", String(around.length));
    cursor.setAttribute("aria-posinset", String(around.indexOf(node) + 1));
    if (tree.end[node] > node + 1) cursor.setAttribute("aria-expanded", "true");
    else cursor.removeAttribute("aria-expanded");
    showDetail(node);
  }

  function showTip(node, x, y) {
    const tip = element("tip");
    tip.hidden = node < 0;
    if (node < 0) return;
    const frame = frames[tree.frame[node]];
    const grid = make("div", "");
    for (const [name, value] of describe(node)) grid.append(make("span", name), make("span", value));
    tip.replaceChildren(make("b", frame.name), make("p", where(frame)), grid);
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 16 + width < innerWidth - 8 ? x + 16 : Math.max(8, x - 16 - width);
    const top = y + 18 + height < innerHeight - 8 ? y + 18 : Math.max(8, y - 14 - height);
    tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  // ---- table ---------------------------------------------------------------------------------
  function exactly(name) {
    return `^${name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")}$`;
  }

  function showRows() {
    const type = state.value, total = base.total[type][0];
    const value = { self: (f) => f.self[type], total: (f) => f.total[type], name: (f) => f.frame.name };
    const frameNumber = new Map(frames.map((frame, i) => [frame, i]));
    const used = functions.filter((f) => f.total[type] > 0);
    const shown = used.filter((f) => hits === null || hits[frameNumber.get(f.frame)] === 1);
    const by = value[sort.by];
    shown.sort((a, b) => {
      const [x, y] = [by(a), by(b)];
      return x === y ? (a.frame.name < b.frame.name ? -1 : 1) : x < y ? -sort.sign : sort.sign;
    });
    const rows = shown.slice(0, listed).map((f) => row(f, type, total));
    element("rows").replaceChildren(...rows);
    element("listed").textContent = hits === null ? whole_number.format(shown.length)
      : `${whole_number.format(shown.length)} of ${whole_number.format(used.length)}`;
    element("more").hidden = shown.length <= listed;
    element("more").textContent = `${whole_number.format(shown.length - listed)} more`;
  }

  function row(f, type, total) {
    const line = make("tr", "");
    for (const part of [f.self[type], f.total[type]]) {
      const cell = make("td", percent(part, total));
      cell.append(make("small", bare(part, type)));
      line.append(cell);
    }
    const cell = make("td", "", { className: "name" });
    const pattern = exactly(f.frame.name);
    const isChosen = state.q === pattern;
    const button = make("button", f.frame.name, { type: "button", title: f.frame.name });
    button.addEventListener("click", () => change({ q: isChosen ? "" : pattern }));
    cell.append(button, make("small", f.frame.module || "\u00a0"));
    line.append(cell);
    if (isChosen) line.setAttribute("aria-selected", "true");
    return line;
  }

  // ---- moving --------------------------------------------------------------------------------
  function siblings(node) {
    const parent = tree.parent[node];
    if (parent < 0) return [node];
    const list = [];
    for (let i = parent + 1; i < tree.end[parent]; i = tree.end[i]) list.push(i);
    return list;
  }

  const isSeen = (node) => {
    const box = graph.box(node);
    return box !== null && box.right - box.left >= 1;
  };

  function deeper(node) {
    let best = -1;
    for (let i = node + 1; i < tree.end[node]; i = tree.end[i]) {
      if (isSeen(i) && (best < 0 || tree.total[state.value][i] > tree.total[state.value][best])) best = i;
    }
    return best;
  }

  // The next frame of the same row that can be seen, whoever its parent is.
  function beside(node, sign) {
    const depth = tree.depth[node];
    for (let i = node + sign; i > 0 && i < tree.count; i += sign) {
      if (tree.depth[i] === depth && isSeen(i)) return i;
    }
    return -1;
  }

  function move(node) {
    if (node < 0) return;
    graph.setFocus(node);
    showFocus(node);
  }

  function up() {
    if (state.at !== 0) zoom(tree.parent[state.at]);
    else if (state.q !== "") change({ q: "" });
  }

  function reset() {
    change({ q: "", at: 0 }, true);
  }

  const graphKeys = {
    ArrowUp: () => move(state.orientation === "icicle" ? tree.parent[graph.focus] : deeper(graph.focus)),
    ArrowDown: () => move(state.orientation === "icicle" ? deeper(graph.focus) : tree.parent[graph.focus]),
    ArrowLeft: () => move(beside(graph.focus, -1)),
    ArrowRight: () => move(beside(graph.focus, 1)),
    Home: () => move(0),
    Enter: () => zoom(graph.focus),
  };
  const pageKeys = {
    "/": () => element("search").select(),
    "0": reset,
    b: () => change({ view: state.view === "bottom-up" ? "top-down" : "bottom-up", at: 0 }),
    i: () => change({ orientation: state.orientation === "icicle" ? "flame" : "icicle" }),
  };

  function onKey(event) {
    const isSearch = event.target === element("search");
    const isFind = (event.ctrlKey || event.metaKey) && event.key === "f";
    let action = null;
    if (isFind && !isSearch) action = pageKeys["/"]; // once more gives the browser's own search
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "Escape") {
      action = isSearch ? () => { change({ q: "" }); element("scroll").focus(); } : up;
    } else if (event.target === element("scroll") && graphKeys[event.key]) action = graphKeys[event.key];
    else if (!isSearch && event.target.tagName !== "SELECT") action = pageKeys[event.key];
    if (!action) return;
    event.preventDefault();
    showTip(-1);
    action();
  }

  function listen() {
    const canvas = element("canvas"), tools = element("tools");
    const under = (event) => {
      const box = canvas.getBoundingClientRect();
      return graph.hit(event.clientX - box.left, event.clientY - box.top);
    };
    canvas.addEventListener("mousemove", (event) => {
      const node = under(event);
      graph.setHover(node);
      showTip(node, event.clientX, event.clientY);
      canvas.style.cursor = node < 0 ? "default" : "pointer";
    });
    const leave = () => { graph.setHover(-1); showTip(-1); };
    canvas.addEventListener("mouseleave", leave);
    element("scroll").addEventListener("scroll", leave, { passive: true });
    canvas.addEventListener("click", (event) => {
      const node = under(event);
      if (node < 0) return;
      showTip(-1);
      if (node === state.at) move(node);
      else zoom(node);
    });
    for (const kind of ["focus", "blur"]) element("scroll").addEventListener(kind, () => graph.redraw());
    document.addEventListener("keydown", onKey);
    tools.addEventListener("submit", (event) => event.preventDefault());
    element("search").addEventListener("input", (event) => change({ q: event.target.value }));
    element("thread").addEventListener("change", (event) => change({ thread: event.target.value, at: 0 }));
    tools.addEventListener("change", (event) => {
      const { name, value, type } = event.target;
      if (type !== "radio") return;
      if (name === "value") change({ value: Number(value), at: state.view === "bottom-up" ? 0 : state.at });
      else change(name === "view" ? { view: value, at: 0 } : { orientation: value });
    });
    element("reset").addEventListener("click", reset);
    element("more").addEventListener("click", () => { listed += 500; showRows(); });
    for (const button of document.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => {
        const by = button.dataset.sort;
        sort = { by, sign: sort.by === by ? -sort.sign : by === "name" ? 1 : -1 };
        for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
        button.parentElement.setAttribute("aria-sort", sort.sign < 0 ? "descending" : "ascending");
        showRows();
      });
    }
    window.addEventListener("popstate", () => apply(readUrl()));
    window.addEventListener("hashchange", () => apply(readUrl()));
  }

  showHead();
  showControls();
  listen();
  apply(readUrl(), true);
})();
