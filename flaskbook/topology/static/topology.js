// Draws the picture at data-source, again every second while the page is visible. No build step, no library.
"use strict";

(() => {
  const EVERY_MS = 1000;
  const PATIENCE_MS = 5000;
  const SVG = "http://www.w3.org/2000/svg";
  const BAD = new Set(["DOWN", "REMOVED"]);
  const GOOD = new Set(["PRIMARY", "SECONDARY", "ARBITER", "STANDALONE", "ROUTER"]);

  const byId = (id) => document.getElementById(`topology-${id}`);
  const root = document.getElementById("topology");
  const svg = byId("picture");
  const figure = svg.parentElement;
  let latest = null;

  const number = (value) => value.toLocaleString("en");
  const rate = (value) => (value === null ? "" : number(Math.round(value * 10) / 10));
  const lag = (member) =>
    member.lag === null || member.state === "PRIMARY" ? "" : `${number(Math.round(member.lag))} s`;
  const tone = (state) => (BAD.has(state) ? "bad" : GOOD.has(state) ? "good" : "warn");

  function setText(element, text) {
    // Unchanged text is left alone, so that screen readers speak of changes only.
    if (element.textContent !== text) element.textContent = text;
  }

  // --- The drawing: elements are kept by key from one picture to the next, so that bars move instead of jumping.

  class Drawing {
    constructor(parent) {
      this.parent = parent;
      this.kept = new Map();
      this.used = new Set();
    }

    put(key, tag, attributes, text) {
      let element = this.kept.get(key);
      if (!element || element.tagName !== tag) {
        element?.remove();
        element = document.createElementNS(SVG, tag);
        this.kept.set(key, element);
      }
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (text !== undefined) setText(element, text);
      this.parent.append(element); // in the order of drawing
      this.used.add(key);
    }

    finish() {
      for (const [key, element] of this.kept) {
        if (!this.used.has(key)) {
          element.remove();
          this.kept.delete(key);
        }
      }
      this.used.clear();
    }
  }

  const drawing = new Drawing(svg.querySelector("g"));
  const GAP = 20;
  const PAD = 14;
  const NODE_HEIGHT = 48;
  const BAR_HEIGHT = 44;

  const shortened = (text, width) => {
    const fits = Math.max(4, Math.floor(width / 7.2));
    return text.length <= fits ? text : `${text.slice(0, fits - 1)}…`;
  };
  const memberRows = (group, columns) => Math.ceil(group.members.length / columns) * (NODE_HEIGHT + 8);
  const heightOf = (group, columns) => 46 + memberRows(group, columns) + group.bars.length * BAR_HEIGHT;

  // Shards are compared with each other; where there are none, the largest collections are.
  function withBars(groups, collections) {
    const most = (name) => Math.max(0, ...groups.map((group) => group[name] ?? 0));
    const bars = (group) => {
      if (group.documents === null) return [];
      if (group.role === "shard") {
        return ["documents", "chunks"].filter((name) => most(name))
          .map((name) => ({ label: name, kind: name, value: group[name], share: group[name] / most(name) }));
      }
      const sizes = collections.map((each) => [each.name, each.amounts.reduce((sum, one) => sum + one.documents, 0)]);
      sizes.sort((one, other) => other[1] - one[1]);
      return sizes.slice(0, 4).map(([label, value]) =>
        ({ label: `documents in ${label}`, kind: "documents", value, share: value / (sizes[0][1] || 1) }));
    };
    return groups.map((group) => ({ ...group, bars: bars(group) }));
  }

  function mark(key, state, x, y) {
    if (BAD.has(state)) {
      drawing.put(key, "path", { class: "mark bad", d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10` });
    } else if (state === "PRIMARY" || state === "STANDALONE" || state === "ROUTER") {
      drawing.put(key, "circle", { class: "mark primary", cx: x, cy: y, r: 6 });
    } else if (state === "SECONDARY" || state === "ARBITER") {
      drawing.put(key, "circle", { class: "mark secondary", cx: x, cy: y, r: 6 });
    } else {
      drawing.put(key, "path", { class: "mark warn", d: `M${x} ${y - 6}l6 11h-12z` });
    }
  }

  function drawMember(key, member, x, y, width) {
    const kind = tone(member.state);
    drawing.put(`${key} box`, "rect", { class: `node ${kind}`, x, y, width, height: NODE_HEIGHT, rx: 7 });
    mark(`${key} mark ${kind}${member.state}`, member.state, x + 18, y + NODE_HEIGHT / 2);
    drawing.put(`${key} name`, "text", { x: x + 34, y: y + 20 }, shortened(member.name, width - 40));
    drawing.put(`${key} state`, "text", { class: `state ${kind}`, x: x + 34, y: y + 38 }, member.state);
    const more = [];
    if (lag(member)) more.push(`${lag(member)} behind`);
    if (member.operations !== null) more.push(`${rate(member.operations)} op/s`);
    if (member.note && kind !== "bad") more.push(member.note);
    drawing.put(`${key} more`, "text", { class: "small number end", x: x + width - 10, y: y + 38 },
      shortened(more.join(" · "), width - 44 - member.state.length * 8));
  }

  function drawBar(key, bar, x, y, width) {
    drawing.put(`${key} label`, "text", { class: "small", x, y: y + 14 }, shortened(bar.label, width - 70));
    drawing.put(`${key} value`, "text", { class: "number end", x: x + width, y: y + 14 }, number(bar.value));
    drawing.put(`${key} track`, "rect", { class: "track", x, y: y + 22, width, height: 10, rx: 5 });
    drawing.put(`${key} bar`, "rect",
      { class: `bar ${bar.kind}`, x, y: y + 22, width: bar.value ? Math.max(10, bar.share * width) : 0, height: 10, rx: 5 });
  }

  function drawGroup(group, x, y, width, height, columns) {
    const key = `${group.role} ${group.name}`;
    drawing.put(`${key} box`, "rect", { class: `box ${group.health}`, x, y, width, height, rx: 10 });
    const title = group.role === "routers" ? (group.members.length === 1 ? "Router" : "Routers")
      : group.role === "config servers" ? "Config servers" : group.name;
    const aside = group.role === "config servers" || group.role === "routers" ? group.name : group.role;
    drawing.put(`${key} title`, "text", { class: "title", x: x + PAD, y: y + 26 }, shortened(title, width * 0.6));
    drawing.put(`${key} role`, "text", { class: "small end", x: x + width - PAD, y: y + 26 },
      group.health === "down" ? "no primary" : shortened(aside, width * 0.4));
    const inner = (width - 2 * PAD - (columns - 1) * 8) / columns;
    group.members.forEach((member, i) => {
      drawMember(`${key} ${member.name}`, member, x + PAD + (i % columns) * (inner + 8),
        y + 38 + Math.floor(i / columns) * (NODE_HEIGHT + 8), inner);
    });
    const bottom = y + 38 + memberRows(group, columns);
    group.bars.forEach((bar, i) => {
      drawBar(`${key} ${bar.label}`, bar, x + PAD, bottom + i * BAR_HEIGHT, width - 2 * PAD);
    });
  }

  function link(key, x1, y1, x2, y2, down) {
    const middle = (y1 + y2) / 2;
    drawing.put(key, "path", { class: `link ${down ? "down" : ""}`, d: `M${x1} ${y1}V${middle}H${x2}V${y2}` });
  }

  // Returns where the row ends, and where each of its groups is.
  function rowOf(groups, top, width, least, from, isLinked) {
    // As many beside each other as fit; the rest below them.
    const across = Math.max(1, Math.min(groups.length, Math.floor((width + GAP) / (least + GAP))));
    const each = Math.min((width - (across - 1) * GAP) / across, groups.length === 1 ? width : 420);
    const left = (width - (each * across + GAP * (across - 1))) / 2;
    const places = [];
    let y = top;
    for (let i = 0; i < groups.length; i += across) {
      const row = groups.slice(i, i + across);
      const columns = Math.max(1, Math.min(Math.floor(each / 210), Math.max(...row.map((g) => g.members.length))));
      const height = Math.max(...row.map((g) => heightOf(g, columns)));
      row.forEach((group, j) => {
        const x = left + j * (each + GAP);
        if (i === 0 && isLinked(group)) {
          link(`link ${group.role} ${group.name}`, from.x, from.y, x + each / 2, y, group.health === "down");
        }
        drawGroup(group, x, y, each, height, columns);
        places.push({ left: x, right: x + each, top: y, bottom: y + height });
      });
      y += height + GAP;
    }
    return { bottom: y - GAP, places };
  }

  function draw(picture) {
    const width = Math.max(260, figure.clientWidth - 2 * parseFloat(getComputedStyle(figure).paddingLeft));
    const inFront = (group) => ["routers", "config servers"].includes(group.role);
    const front = withBars(picture.groups.filter(inFront), []);
    const sets = withBars(picture.groups.filter((group) => !inFront(group)), picture.collections);
    const app = { width: Math.min(280, width), height: 54 };
    const centre = width / 2;
    drawing.put("app box", "rect", { class: "box app", x: centre - app.width / 2, y: 1, width: app.width, height: app.height, rx: 10 });
    drawing.put("app name", "text", { class: "title middle", x: centre, y: 24 }, "This app");
    drawing.put("app more", "text", { class: "small number middle", x: centre, y: 43 },
      picture.operations === null ? `database ${shortened(picture.database, 170)}`
        : `database ${shortened(picture.database, 120)} · ${rate(picture.operations)} op/s`);
    let y = app.height + 2 + 2 * GAP;
    let from = { x: centre, y: app.height + 1 };
    if (front.length) {
      const row = rowOf(front, y, width, 300, from, (group) => group.role === "routers");
      const [routers, config] = row.places;
      if (config && config.top === routers.top) {
        // The routers read there which shard has what.
        const middle = (routers.top + routers.bottom) / 2;
        drawing.put("link config", "path", { class: "link", d: `M${routers.right} ${middle}H${config.left}` });
      }
      from = { x: (routers.left + routers.right) / 2, y: config && config.top > routers.top ? row.bottom : routers.bottom };
      y = row.bottom + 2 * GAP;
    }
    const bottom = sets.length ? rowOf(sets, y, width, 250, from, () => true).bottom : y;
    drawing.finish();
    svg.setAttribute("viewBox", `0 0 ${width} ${bottom + 2}`);
    svg.setAttribute("height", bottom + 2);
    setText(byId("picture-text"), `${picture.summary} The tables below say the same in words.`);
  }

  // --- Words

  function fill(body, rows) {
    // Cell by cell: a table that was replaced as a whole would lose a reader's place in it.
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach((cells, i) => {
      const row = body.rows[i] ?? body.insertRow();
      cells.forEach((cell, j) => {
        let element = row.cells[j];
        if (!element) {
          element = document.createElement(j === 0 ? "th" : "td");
          if (j === 0) element.scope = "row";
          row.append(element);
        }
        element.className = cell.class ?? "";
        setText(element, cell.text ?? cell);
      });
    });
  }

  const numeric = (text) => ({ text, class: "number" });

  function tell(picture) {
    setText(byId("summary"), picture.summary);
    fill(byId("nodes"), picture.groups.flatMap((group) => group.members.map((member) => [
      member.name,
      group.role === "shard" || group.role === "replica set" ? `${group.role} ${group.name}` : group.role,
      { text: member.note ? `${member.state} (${member.note})` : member.state, class: tone(member.state) },
      numeric(lag(member) || "–"),
      numeric(rate(member.operations) || "–"),
    ])));
    const held = picture.collections.flatMap((collection) => collection.amounts.map((amount) => [
      collection.name,
      amount.shard || picture.database,
      numeric(number(amount.documents)),
      numeric(amount.chunks === null ? "–" : number(amount.chunks)),
    ]));
    fill(byId("data"), held.length ? held : [
      [picture.data_age === null ? "not read yet" : "no collections yet", picture.database, numeric("–"), numeric("–")],
    ]);
    const notes = byId("notes");
    const wanted = picture.notes.join("\n");
    if (notes.dataset.told !== wanted) {
      notes.dataset.told = wanted;
      notes.replaceChildren(...picture.notes.map((note) => {
        const item = document.createElement("li");
        item.textContent = note;
        return item;
      }));
    }
  }

  function live(state, text) {
    byId("live").dataset.state = state;
    setText(byId("live"), text);
    figure.classList.toggle("stale", state === "lost");
  }

  // --- Asking

  async function ask() {
    try {
      const answer = await fetch(root.dataset.source, {
        headers: { Accept: "application/json" },
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      latest = await answer.json();
    } catch {
      return ["lost", "The app does not answer; trying again"];
    }
    draw(latest);
    tell(latest);
    return ["live", "live"];
  }

  let timer = null;
  let asking = false;

  async function turn() {
    timer = null;
    if (document.hidden || asking) return;
    const begun = performance.now();
    asking = true;
    const found = await ask();
    asking = false;
    if (document.hidden) return; // meanwhile it was paused, and says so
    live(...found);
    timer = setTimeout(turn, Math.max(0, EVERY_MS - (performance.now() - begun)));
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      timer = null;
      live("waiting", "paused");
    } else if (timer === null) {
      turn();
    }
  });
  new ResizeObserver(() => latest && draw(latest)).observe(figure);
  turn();

  // --- Sample people, without leaving the page

  byId("samples")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const button = form.querySelector("button");
    const told = byId("samples-answer");
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    setText(told, "Adding…");
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers: { Accept: "application/json" },
        body: new URLSearchParams(new FormData(form)),
      });
      const said = await answer.json();
      setText(told, answer.ok ? `${number(said.added)} people were added.` : said.error.message);
    } catch {
      setText(told, "The app does not answer. Nothing is known of the people.");
    }
    button.removeAttribute("aria-disabled");
  });
})();
