// The call tree of a profile: decoding, threads, merging, inverting, searching, summing.
// A tree is a set of arrays over its nodes in preorder: node i's descendants are i+1 .. end[i]-1.
// self[t] and total[t] hold one number a node for each value type t. No document is touched here.
"use strict";

const FlameTree = (() => {
  const THREAD = 2; // flag of a frame that stands for a thread

  function make(count, types) {
    const sums = () => Array.from({ length: types }, () => new Float64Array(count));
    return {
      count, types,
      frame: new Int32Array(count), parent: new Int32Array(count).fill(-1),
      depth: new Int32Array(count), end: new Int32Array(count), deepest: new Int32Array(count),
      self: sums(), total: sums(),
    };
  }

  // Fills in what follows from frame, parent and self.
  function finish(tree) {
    const { parent, depth, end, deepest, self, total } = tree;
    for (let i = 1; i < tree.count; i++) depth[i] = depth[parent[i]] + 1;
    for (let t = 0; t < tree.types; t++) total[t].set(self[t]);
    deepest.set(depth);
    end.fill(0);
    for (let i = tree.count - 1; i >= 0; i--) {
      if (end[i] === 0) end[i] = i + 1;
      const up = parent[i];
      if (up < 0) continue;
      if (end[up] < end[i]) end[up] = end[i];
      if (deepest[up] < deepest[i]) deepest[up] = deepest[i];
      for (let t = 0; t < tree.types; t++) total[t][up] += total[t][i];
    }
    return tree;
  }

  // data.nodes: frame, number of children, own value of each type; for each node in preorder.
  function decode(data) {
    const nodes = data.nodes, types = data.types.length;
    const stride = 2 + types, tree = make(nodes.length / stride, types);
    const open = [], left = [];
    for (let i = 0; i < tree.count; i++) {
      while (left.length && left[left.length - 1] === 0) { left.pop(); open.pop(); }
      if (open.length) { tree.parent[i] = open[open.length - 1]; left[left.length - 1]--; }
      tree.frame[i] = nodes[stride * i];
      for (let t = 0; t < types; t++) tree.self[t][i] = Math.max(0, nodes[stride * i + 2 + t]);
      open.push(i);
      left.push(nodes[stride * i + 1]);
    }
    return finish(tree);
  }

  function isThread(tree, frames, node) {
    return (frames[tree.frame[node]].flags & THREAD) !== 0;
  }

  function threads(tree, frames) {
    const list = [];
    for (let i = 1; i < tree.count; i = tree.end[i]) if (isThread(tree, frames, i)) list.push(i);
    return list;
  }

  // The root and one of its children with everything below.
  function only(tree, child) {
    const size = tree.end[child] - child;
    const out = make(size + 1, tree.types);
    out.frame[0] = tree.frame[0];
    for (let i = 0; i < size; i++) {
      out.frame[i + 1] = tree.frame[child + i];
      out.parent[i + 1] = i === 0 ? 0 : tree.parent[child + i] - child + 1;
      for (let t = 0; t < tree.types; t++) out.self[t][i + 1] = tree.self[t][child + i];
    }
    return finish(out);
  }

  // A tree under construction: children are found by frame. Most nodes have one child, so a map
  // is made for the second.
  class Growing {
    constructor(types, frame) {
      this.types = types;
      this.nodes = [];
      this.root = this.add(null, frame);
    }
    add(parent, frame) {
      const node = { frame, parent, first: null, children: null, self: null, weight: 0 };
      this.nodes.push(node);
      if (parent === null) return node;
      if (parent.first === null) parent.first = node;
      else {
        if (parent.children === null) parent.children = new Map([[parent.first.frame, parent.first]]);
        parent.children.set(frame, node);
      }
      return node;
    }
    child(node, frame) {
      if (node.first !== null && node.first.frame === frame) return node.first;
      return (node.children !== null && node.children.get(frame)) || this.add(node, frame);
    }
    charge(node, tree, from) {
      if (node.self === null) node.self = new Array(this.types).fill(0);
      for (let t = 0; t < this.types; t++) node.self[t] += tree.self[t][from];
    }
    // Siblings stand in the order that compare gives; weight is a node's total of that type.
    done(compare, type) {
      for (let i = this.nodes.length - 1; i >= 0; i--) {
        const node = this.nodes[i];
        if (node.self !== null) node.weight += node.self[type];
        if (node.parent !== null) node.parent.weight += node.weight;
      }
      const out = make(this.nodes.length, this.types);
      const stack = [this.root], parents = [-1];
      for (let i = 0; stack.length; i++) {
        const node = stack.pop();
        out.frame[i] = node.frame;
        out.parent[i] = parents.pop();
        for (let t = 0; t < this.types && node.self !== null; t++) out.self[t][i] = node.self[t];
        const children = node.children !== null ? [...node.children.values()].sort((a, b) => compare(b, a))
          : node.first !== null ? [node.first] : [];
        for (const child of children) { stack.push(child); parents.push(i); }
      }
      return finish(out);
    }
  }

  // All threads as one: their level is left out.
  function merged(tree, frames, rank) {
    const out = new Growing(tree.types, tree.frame[0]);
    const place = [out.root];
    for (let i = 0; i < tree.count; i++) {
      if (i > 0) {
        const up = place[tree.parent[i]];
        place[i] = isThread(tree, frames, i) ? up : out.child(up, tree.frame[i]);
      }
      out.charge(place[i], tree, i);
    }
    return out.done((a, b) => rank[a.frame] - rank[b.frame], 0);
  }

  // Leaves first, the heaviest of that type on the left: each node's own value is carried by the
  // path from it to its thread.
  function inverted(tree, rank, type) {
    const out = new Growing(tree.types, tree.frame[0]);
    for (let i = 1; i < tree.count; i++) {
      let isUsed = false;
      for (let t = 0; t < tree.types; t++) isUsed = isUsed || tree.self[t][i] > 0;
      if (!isUsed) continue;
      let at = out.root;
      for (let up = i; up > 0; up = tree.parent[up]) at = out.child(at, tree.frame[up]);
      out.charge(at, tree, i);
    }
    return out.done((a, b) => b.weight - a.weight || rank[a.frame] - rank[b.frame], type);
  }

  // Where each node begins, in the unit of the value; children fill their parent from the left.
  function positions(tree, type) {
    const at = new Float64Array(tree.count), next = new Float64Array(tree.count);
    for (let i = 1; i < tree.count; i++) {
      at[i] = next[i] = next[tree.parent[i]];
      next[tree.parent[i]] += tree.total[type][i];
    }
    return at;
  }

  // {test(frame)} or {error}. "module:x" looks at modules; a pattern without capitals ignores case.
  function compile(text) {
    const byModule = text.startsWith("module:");
    const pattern = byModule ? text.slice(7) : text;
    if (pattern === "") return null;
    try {
      const regexp = new RegExp(pattern, /\p{Lu}/u.test(pattern.replace(/\\./g, "")) ? "" : "i");
      return { test: (frame) => regexp.test(byModule ? frame.module : frame.name) };
    } catch (error) {
      return { error: "not a valid expression" };
    }
  }

  // The value in node's subtree that lies in or below a frame that is hit; hits: one a frame.
  function matched(tree, type, hits, node) {
    for (let up = node; up >= 0; up = tree.parent[up]) {
      if (hits[tree.frame[up]]) return tree.total[type][node];
    }
    let sum = 0;
    for (let i = node; i < tree.end[node];) {
      if (!hits[tree.frame[i]]) { i++; continue; }
      sum += tree.total[type][i];
      i = tree.end[i];
    }
    return sum;
  }

  // Self and total of every function; a function that calls itself counts once.
  function functions(tree, frames) {
    const found = new Map(), path = [];
    for (let i = 0; i < tree.count; i++) {
      while (path.length && tree.end[path[path.length - 1].node] <= i) path.pop().entry.depth--;
      const frame = frames[tree.frame[i]];
      if (i === 0 || frame.flags & THREAD) continue;
      let entry = found.get(frame.key);
      if (!entry) {
        entry = { frame, depth: 0, self: new Array(tree.types).fill(0), total: new Array(tree.types).fill(0) };
        found.set(frame.key, entry);
      }
      for (let t = 0; t < tree.types; t++) {
        entry.self[t] += tree.self[t][i];
        if (entry.depth === 0) entry.total[t] += tree.total[t][i];
      }
      entry.depth++;
      path.push({ node: i, entry });
    }
    return [...found.values()];
  }

  return { THREAD, decode, threads, only, merged, inverted, positions, compile, matched, functions };
})();
