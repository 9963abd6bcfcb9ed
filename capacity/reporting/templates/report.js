"use strict";
// Tables sort, marks of figures speak, dials turn. The page says everything without this.

for (const head of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const column = head.cellIndex;
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.v);
    };
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (typeof x === "number" && typeof y === "number") return x - y;
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      return x < y ? -1 : x > y ? 1 : 0;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (up ? compare(a, b) : compare(b, a))));
  });
}

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll(".drawing g > title")) {
  const mark = title.parentNode;
  mark.dataset.tip = title.textContent;
  title.remove(); // or the browser would show its own beside
}
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest && event.target.closest("[data-tip]");
  for (const lit of document.querySelectorAll(".lit")) if (lit !== mark) lit.classList.remove("lit");
  tip.hidden = !mark;
  if (!mark) return;
  mark.classList.add("lit");
  tip.textContent = mark.dataset.tip;
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4)) + "px";
  tip.style.top = Math.max(4, event.clientY - height - 12) + "px";
});

for (const explorer of document.querySelectorAll(".explorer")) {
  const grid = JSON.parse(explorer.querySelector("script").textContent);
  const dials = [...explorer.querySelectorAll("input[type=range]")];
  const cells = [...explorer.querySelectorAll(".answer dd")];
  const turn = () => {
    dials.forEach((dial, place) => {
      const said = grid.dials[place].values[Number(dial.value)];
      dial.setAttribute("aria-valuetext", said);
      dial.parentNode.querySelector("output").textContent = said;
    });
    const answer = grid.answers[dials.map((dial) => dial.value).join(",")];
    cells.forEach((cell, place) => {
      const [value, spread] = answer ? answer[place] : ["–", ""];
      cell.querySelector(".value").textContent = value;
      cell.querySelector(".spread").textContent = spread;
    });
  };
  for (const dial of dials) dial.addEventListener("input", turn);
  explorer.querySelector(".dials").hidden = false;
  turn();
}

let shut = [];
addEventListener("beforeprint", () => {
  shut = [...document.querySelectorAll("details:not([open])")];
  for (const details of shut) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of shut) details.open = false;
});
