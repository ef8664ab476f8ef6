// What moves on the page: values under the pointer in charts, and the sample browser. Text from models only ever enters as textContent.
"use strict";

for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const { box, series } = JSON.parse(svg.dataset.chart);
  const cursor = svg.querySelector(".cursor"), output = svg.parentElement.querySelector("output");
  const hide = () => { cursor.style.visibility = "hidden"; output.style.display = "none"; };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect(), scale = box.width / frame.width;
    const plot = box.width - box.left - box.right;
    const wanted = box.low + (((event.clientX - frame.left) * scale - box.left) / plot) * (box.high - box.low);
    const nearest = (points) => points.reduce((a, b) => (Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a));
    const found = series.map((line) => [line.name, nearest(line.points)]);
    const step = nearest(found.map(([, point]) => point))[0];
    const x = box.left + ((step - box.low) / (box.high - box.low)) * plot;
    cursor.setAttribute("x1", x); cursor.setAttribute("x2", x); cursor.style.visibility = "visible";
    const here = found.filter(([, point]) => point[0] === step || series.length === 1);
    output.textContent = `step ${Math.round(step)}\n` + here.map(([name, point]) => (series.length > 1 ? `${name}  ` : "") + point[1]).join("\n");
    output.style.display = "block";
    const at = x / scale;
    output.style.left = at > frame.width / 2 ? "auto" : `${at + 10}px`;
    output.style.right = at > frame.width / 2 ? `${frame.width - at + 10}px` : "auto";
  });
}

const store = document.getElementById("samples");
if (store) {
  const samples = JSON.parse(store.textContent), form = document.querySelector(".filters");
  const list = document.querySelector(".list"), panel = document.querySelector(".sample"), count = document.querySelector(".count");
  const MOST = 500;
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const promptText = (prompt) => (Array.isArray(prompt) ? prompt.map((m) => `${m.role}: ${text(m.content)}`).join("\n\n") : text(prompt ?? ""));
  const number = (value) => (typeof value === "number" ? String(+value.toPrecision(4)) : text(value ?? "-"));
  const make = (tag, content, name) => {
    const node = document.createElement(tag);
    if (content !== undefined) node.textContent = content;
    if (name) node.className = name;
    return node;
  };

  const completion = (row) => {  // the reasoning is set off from what follows it
    const block = make("pre"), whole = row.completion ?? "", end = whole.lastIndexOf("</think>");
    const cut = end < 0 ? 0 : end + "</think>".length;
    if (row.think_prefix) block.append(make("span", row.think_prefix === true ? "<think>\n" : row.think_prefix, "think"));
    if (cut) block.append(make("span", whole.slice(0, cut), "think"));
    block.append(document.createTextNode(whole.slice(cut)));
    return block;
  };

  const show = (row, button) => {
    for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button?.setAttribute("aria-current", "true");
    const facts = make("dl");
    const fact = (name, value) => {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", number(value)));
      facts.append(pair);
    };
    for (const name of ["run", "step", "id", "sample", "reward"]) if (row[name] !== undefined) fact(name, row[name]);
    for (const [name, value] of Object.entries(row.rewards ?? {})) fact(name, value);
    for (const name of ["advantage", "num_tokens", "finish_reason", "answer"]) if (row[name] !== undefined) fact(name.replace("_", " "), row[name]);
    panel.replaceChildren(facts, make("h3", "prompt"), make("pre", promptText(row.prompt)), make("h3", "completion"), completion(row));
  };

  const refresh = () => {
    const asked = new FormData(form), low = parseFloat(asked.get("low")), high = parseFloat(asked.get("high"));
    const from = parseFloat(asked.get("from")), to = parseFloat(asked.get("to")), words = (asked.get("words") ?? "").toLowerCase();
    const found = samples.filter((row) =>
      (!asked.get("run") || row.run === asked.get("run")) && !(row.step < from) && !(row.step > to) && !(row.reward < low) && !(row.reward > high) &&
      (!words || `${row.id}\n${promptText(row.prompt)}\n${row.completion}`.toLowerCase().includes(words)));
    count.textContent = `${found.length} of ${samples.length}` + (found.length > MOST ? `, the first ${MOST} are listed` : "");
    list.replaceChildren(...found.slice(0, MOST).map((row) => {
      const button = make("button");
      button.type = "button";
      button.append(make("span", row.step === undefined ? "" : `step ${row.step}`, "where"), make("span", promptText(row.prompt), "text"), make("span", number(row.reward), "reward"));
      button.addEventListener("click", () => show(row, button));
      return button;
    }));
    if (found.length) show(found[0], list.firstElementChild);
    else panel.replaceChildren(make("p", "no sample fits these filters", "note"));
  };
  form.addEventListener("input", refresh);
  form.addEventListener("submit", (event) => event.preventDefault());
  refresh();
}
