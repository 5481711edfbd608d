// Drives the flame graph's page as a person would: keys, clicks, pointer. Appended to a copy of the
// page; leaves "name: what the page showed" lines in an element that the shell script reads.
// The numbers are those of the profile in test/unit/test_flame.c.
"use strict";

(async () => {
  const get = (id) => document.getElementById(id);
  const plain = (text) => text.replace(/\u00a0/g, " ").replace(/\s+/g, " ").trim();
  const say = (name, value) => result.append(`\n${name}: ${plain(String(value))}\n`);
  const until = async (what) => { while (!what()) await new Promise((done) => setTimeout(done, 10)); };
  const settled = () => new Promise((done) => setTimeout(done, 400)); // the zoom's animation
  const key = (target, name, more) =>
    target.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true, ...more }));
  const choose = (name, value) => document.querySelector(`input[name="${name}"][value="${value}"]`).click();
  const found = () => get("found").textContent;
  const crumbs = () => [...get("crumbs").querySelectorAll("button")].map((b) => b.textContent).join(" > ");
  const tipName = () => (get("tip").hidden ? "" : get("tip").querySelector("b").textContent);

  function search(text) {
    get("search").value = text;
    get("search").dispatchEvent(new Event("input", { bubbles: true }));
  }

  function pick(thread) {
    get("thread").value = thread;
    get("thread").dispatchEvent(new Event("change", { bubbles: true }));
  }

  const point = (kind, x, y) => {
    const box = get("canvas").getBoundingClientRect();
    get("canvas").dispatchEvent(new MouseEvent(kind, { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
  };

  // Moves the pointer over every row until the tooltip has that name; [x, y] or null.
  function seek(name) {
    const { width, height } = get("canvas").getBoundingClientRect();
    for (const step of [24, 3]) {
      for (let y = height - 6; y > 0; y -= 20) { // the height of a row
        for (let x = 2; x < width; x += step) {
          point("mousemove", x, y);
          if (tipName() === name) return [x, y];
        }
      }
    }
    return null;
  }

  const tip = (what) => {
    const cells = [...get("tip").querySelectorAll("div span")].map((cell) => cell.textContent);
    return cells.includes(what) ? cells[cells.indexOf(what) + 1] : "none";
  };

  function firstRows(count) {
    return [...get("rows").rows].slice(0, count).map((line) =>
      `${line.cells[2].querySelector("button").textContent} ${line.cells[0].textContent.split("%")[0]}%`).join(", ");
  }

  // The lowest contrast among the colours of text and what they are written on.
  function contrast() {
    const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const light = (hex) => [0, 1, 2].map((i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0.05);
    const pairs = [["--ink", "--back"], ["--ink", "--panel"], ["--ink", "--soft"], ["--ink", "--raised"],
      ["--muted", "--back"], ["--muted", "--panel"], ["--muted", "--soft"], ["--muted", "--warn-back"],
      ["--accent", "--panel"], ["--accent", "--soft"], ["--warn", "--warn-back"], ["--hit", "--panel"], ["--hit-text", "--hit"]];
    return Math.min(...pairs.map(([a, b]) => {
      const [x, y] = [light(css(a)), light(css(b))];
      return Math.max(x, y) / Math.min(x, y);
    }));
  }

  async function drive() {
    say("title", get("title").textContent);
    say("facts", get("facts").textContent);
    say("notes", [...get("notes").children].map((note) => note.textContent).join(" | "));
    say("losses", get("notes").querySelectorAll(".loss").length);
    say("table", firstRows(3));
    say("contrast", contrast().toFixed(2));
    if (location.hash === "#colours") return;

    search("read");
    say("search", found());
    say("listed", get("listed").textContent);
    search("READ");
    say("search capital", found());
    search("module:libc");
    say("search module", found());
    search("(");
    say("search broken", `${found()} ${get("search").getAttribute("aria-invalid")}`);
    search("re.d|no such");

    point("click", ...seek("main"));
    await settled();
    say("zoom", crumbs());
    say("zoom search", found());
    say("zoom keeps ancestors", `${seek("all") !== null} ${seek("main (1)") !== null} ${seek("worker (2)") !== null}`);
    seek("parse");
    say("tooltip", `${tip("Of total")}, ${tip("Of view")}, ${tip("Of caller")}, ${tip("Self")}, ${tip("Samples")}`);
    seek("main (1)");
    say("tooltip above", tip("Of view"));
    const address = location.hash;
    key(get("scroll"), "Escape");
    await settled();
    say("up", crumbs());
    key(get("scroll"), "Escape");
    await settled();
    say("up again", `${crumbs()} [${get("search").value}]`);
    history.back();
    await until(() => crumbs() === "all > main (1)");
    history.back();
    await until(() => crumbs() === "all > main (1) > main");
    say("back", location.hash === address);
    key(document.body, "0");
    await settled();
    say("reset", `${crumbs()} [${get("search").value}] [${found()}]`);

    choose("view", "bottom-up");
    await settled();
    seek("read");
    say("bottom-up", `${tip("Of total")}, ${tip("CPU time")}`);
    choose("orientation", "icicle");
    await settled();
    point("mousemove", 20, 8);
    const top = tipName();
    point("mousemove", 20, 28);
    say("icicle", `${top}, ${tipName()}`);
    key(document.body, "i");
    key(document.body, "b");
    await settled();
    point("mousemove", 20, get("canvas").getBoundingClientRect().height - 8);
    say("flame", tipName());

    choose("value", "0");
    search("^read$");
    say("samples", found());
    choose("value", "1");
    pick("main (1)");
    say("thread", found());
    say("thread table", firstRows(3));
    pick("*");
    say("merged", `${found()} ${seek("worker (2)")}`);
    pick("");
    get("reset").click();

    get("scroll").focus();
    for (const name of ["ArrowUp", "ArrowUp", "ArrowUp"]) key(get("scroll"), name);
    say("cursor", `${get("cursor").textContent}, level ${get("cursor").getAttribute("aria-level")}`);
    key(get("scroll"), "ArrowRight");
    say("cursor right", get("cursor").textContent);
    key(get("scroll"), "ArrowLeft");
    key(get("scroll"), "Enter");
    await settled();
    say("enter", crumbs());
    get("reset").click();
    key(document.body, "f", { ctrlKey: true });
    say("ctrl-f", document.activeElement.id);
    [...get("rows").querySelectorAll("button")].find((b) => b.textContent.startsWith("<\/script>")).click();
    say("from the table", `${get("search").value} ${found()}`);

    say("long name found", (seek(`${"std::map<int, ".repeat(200).slice(0, 2048)}`) !== null));
    say("broken", typeof broken);
    say("scripts", document.querySelectorAll("body script").length);
    say("elements from names", document.querySelectorAll("main b b, #rows b, #crumbs script").length);
    say("fetched", performance.getEntriesByType("resource").length);
  }

  const result = document.createElement("pre");
  result.id = "result";
  document.body.append(result);
  addEventListener("error", (event) => say("error", event.message));
  try { await drive(); } catch (error) { say("error", error.stack); }
})();
