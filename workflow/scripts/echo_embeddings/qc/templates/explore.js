// The section "Explore": controls, legend, search, lasso and the panel of one clip, around a `Plane`.
function explore(root) {
  const data = JSON.parse(document.getElementById("explore-data").textContent);
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const element = (tag, text, properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);
  const counted = (n, noun = "clip") => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  const COLOURED = 8; // groups with a colour and a symbol of their own
  const FOUND = 50; // names in the list of what a search finds
  const NOT_KNOWN = 255;

  const { names, patients, patient, neighbours } = data;
  const near = unpack(data.near, Uint16Array);
  const cosines = unpack(data.cosines, Float32Array);
  const views = data.views.map((view) => ({ ...view, points: unpack(view.points, Float32Array) }));
  const colourings = data.colourings.map((one) => ({ ...one, codes: unpack(one.codes, Uint8Array) }));
  const canvas = part("canvas");
  const plane = new Plane(canvas);
  const hidden = new Set();
  let colouring = colourings[0];
  let found = [];
  let focus = -1; // the point that the keyboard is at

  const labelOf = (one, i) => (one.codes[i] === NOT_KNOWN ? "not known" : one.labels[one.codes[i]]);
  const say = (text) => (part("status").textContent = text);
  const describe = (i) => `${names[i]}, ${patients[patient[i]]}, ${colouring.name}: ${labelOf(colouring, i)}`;

  // --- colours and legend ---

  function regroup() {
    const shown = Math.min(colouring.labels.length, COLOURED);
    const groups = colouring.codes.map((code) => (code === NOT_KNOWN ? shown + 1 : Math.min(code, shown)));
    const labels = [...colouring.labels.slice(0, shown), `others (${colouring.labels.length - shown} values)`, "not known"];
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const styles = labels.map((_, i) => ({
      symbol: i < shown ? i : 0,
      colour: colour(i >= shown ? "--soft" : colouring.ordered ? `--part-${i}` : `--point-${i}`),
      hollow: i >= shown,
    }));
    plane.group(groups, styles, hidden);
    const counts = labels.map(() => 0);
    groups.forEach((group) => counts[group]++);
    const entries = labels.map((label, i) => (counts[i] ? legendEntry(i, label, counts[i], styles[i]) : null));
    part("legend").replaceChildren(...entries.filter(Boolean));
  }

  function legendEntry(group, label, count, style) {
    const button = element("button", "", { type: "button" });
    const picture = sprite(style, 6, 2);
    picture.setAttribute("aria-hidden", "true");
    button.append(picture, element("span", label), element("span", count.toLocaleString("en"), { className: "soft" }));
    const press = () => button.setAttribute("aria-pressed", String(!hidden.has(group)));
    button.addEventListener("click", () => {
      if (!hidden.delete(group)) hidden.add(group);
      press();
      plane.draw();
      say(`${label}: ${hidden.has(group) ? "hidden" : "shown"}, ${counted(count)}`);
    });
    press();
    const entry = element("li", "");
    entry.append(button);
    return entry;
  }

  // --- one clip ---

  function choose(i) {
    focus = plane.chosen = i;
    const places = i < 0 ? [] : Array.from({ length: neighbours }, (_, k) => i * neighbours + k);
    const known = places.filter((at) => !isNaN(cosines[at]));
    plane.linked = known.map((at) => near[at]);
    plane.draw();
    part("clip").hidden = i < 0;
    if (i < 0) return;
    part("name").textContent = names[i];
    part("patient").textContent = patients[patient[i]];
    const strip = data.strips[i];
    const picture = strip ? [element("img", "", { src: strip, alt: `Four frames of ${names[i]}` })] : [];
    part("strip").replaceChildren(...picture);
    part("facts").replaceChildren(
      ...colourings.flatMap((one) => [element("dt", one.name), element("dd", labelOf(one, i))]),
    );
    part("neighbours").replaceChildren(
      ...known.map((at) => {
        const other = near[at];
        const same = patient[other] === patient[i] && !patients[patient[i]].endsWith("not known");
        const entry = element("li", "");
        const said = `cosine ${cosines[at].toFixed(3)}${same ? ", same patient" : ""}`;
        entry.append(clipButton(other), element("span", said, { className: "soft" }));
        return entry;
      }),
    );
    say(`chosen: ${describe(i)}; ${counted(known.length, "neighbour")}`);
  }

  function clipButton(i) {
    const button = element("button", names[i], { type: "button", className: "clip-name" });
    button.addEventListener("click", () => choose(i));
    return button;
  }

  // --- search, lasso, list ---

  function search() {
    const text = part("search").value.trim().toLowerCase();
    const matches = (i) => names[i].toLowerCase().includes(text) || patients[patient[i]].toLowerCase().includes(text);
    found = text ? names.map((_, i) => i).filter(matches) : [];
    plane.marked = found;
    plane.draw();
    part("found").replaceChildren(
      ...found.slice(0, FOUND).map((i) => {
        const entry = element("li", "");
        entry.append(clipButton(i));
        return entry;
      }),
    );
    part("list-found").disabled = !found.length;
    const more = found.length > FOUND ? `, the first ${FOUND} are listed` : "";
    say(text ? `${counted(found.length)} found${more}` : "");
  }

  function list(points) {
    part("keys").value = points.map((i) => names[i]).join("\n");
    part("keys-count").textContent = counted(points.length);
    part("list").hidden = !points.length;
    plane.marked = points;
    plane.draw();
    say(`${counted(points.length)} in the list`);
  }

  async function copy() {
    part("keys").select();
    try {
      await navigator.clipboard.writeText(part("keys").value);
      say(`${part("keys-count").textContent} copied`);
    } catch {
      say("the browser does not let a page copy: the list is marked, press Ctrl+C");
    }
  }

  const lassoing = () => part("lasso").getAttribute("aria-pressed") === "true";
  function setLasso(on) {
    part("lasso").setAttribute("aria-pressed", String(on));
    canvas.classList.toggle("lasso", on);
    say(on ? "lasso: draw round the clips with the pointer held down" : "");
  }

  // --- pointer ---

  let pressed = null; // where the pointer went down, and whether it has moved since
  const where = (event) => [event.offsetX, event.offsetY];

  function hover(i, [x, y]) {
    const tip = part("tip");
    tip.hidden = i < 0;
    canvas.style.cursor = i < 0 ? "" : "pointer";
    if (i < 0) return;
    tip.textContent = describe(i);
    tip.style.left = `${Math.min(x + 14, Math.max(0, plane.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > plane.height ? y - tip.offsetHeight - 10 : y + 18}px`;
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pressed = { at: where(event), moved: false };
    if (lassoing()) plane.path = [where(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = where(event);
    if (!pressed) return hover(plane.at(x, y), [x, y]);
    if (Math.hypot(x - pressed.at[0], y - pressed.at[1]) > 3) pressed.moved = true;
    if (lassoing()) {
      plane.path.push([x, y]);
      plane.draw();
    } else if (pressed.moved) {
      plane.pan(x - pressed.at[0], y - pressed.at[1]);
      pressed.at = [x, y];
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const moved = pressed?.moved;
    pressed = null;
    if (lassoing() && moved) {
      const points = plane.inside();
      plane.path = [];
      list(points);
    } else if (!moved) choose(plane.at(...where(event)));
  });
  canvas.addEventListener("pointercancel", () => {
    pressed = null;
    plane.path = [];
    plane.draw();
  });
  canvas.addEventListener("pointerleave", () => hover(-1, [0, 0]));
  // The wheel scrolls the page until the canvas has been clicked.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    plane.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, where(event));
  });

  // --- keyboard ---

  const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function walk(direction) {
    const start = focus >= 0 && plane.visible(focus) ? focus : -1;
    const next = start < 0 ? plane.at(plane.width / 2, plane.height / 2, Infinity) : plane.towards(start, direction);
    if (next < 0) return;
    focus = next;
    hover(focus, plane.place(focus));
    plane.marked = [focus];
    plane.draw();
    say(describe(focus));
  }
  const KEYS = {
    Enter: () => choose(focus),
    Escape: () => {
      setLasso(false);
      hover(-1, [0, 0]);
      plane.marked = found;
      choose(-1);
    },
    "+": () => plane.zoom(1.5),
    "-": () => plane.zoom(1 / 1.5),
    0: () => plane.reset(),
  };
  canvas.addEventListener("keydown", (event) => {
    const act = DIRECTIONS[event.key] ? () => walk(DIRECTIONS[event.key]) : KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  // --- controls ---

  const options = (all, name) => all.map((one, i) => element("option", one[name], { value: i }));
  part("view").append(...options(views, "title"));
  part("colouring").append(...options(colourings, "name"));
  const showView = () => {
    const view = views[part("view").value];
    plane.show(view.points, view.window, view.axes);
  };
  part("view").addEventListener("change", showView);
  part("colouring").addEventListener("change", () => {
    colouring = colourings[part("colouring").value];
    hidden.clear();
    regroup();
  });
  part("search").addEventListener("input", search);
  part("list-found").addEventListener("click", () => list(found));
  part("copy").addEventListener("click", copy);
  part("lasso").addEventListener("click", () => setLasso(!lassoing()));
  part("in").addEventListener("click", () => plane.zoom(1.5));
  part("out").addEventListener("click", () => plane.zoom(1 / 1.5));
  part("reset").addEventListener("click", () => plane.reset());
  part("close").addEventListener("click", () => choose(-1));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", regroup);

  root.hidden = false;
  document.getElementById("explore-still").classList.add("paper-only");
  part("view").value = Math.max(0, views.findIndex((view) => view.title.includes("t-SNE")));
  showView();
  regroup();
  return { plane, names, choose }; // for whoever looks at the page from outside
}
window.explored = explore(document.getElementById("explorer"));
