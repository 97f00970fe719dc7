"use strict";
// Nothing here draws the report: it adds a cursor with the time, links tables with bands, opens close-ups.
const NS = "http://www.w3.org/2000/svg";

function addCursor(picture) {
  const { start, length, left, width, top, bottom } = Object.fromEntries(
    Object.entries(picture.dataset).map(([name, value]) => [name, Number(value)]));
  const line = picture.appendChild(document.createElementNS(NS, "line"));
  const label = picture.appendChild(document.createElementNS(NS, "text"));
  line.setAttribute("class", "cursor");
  label.setAttribute("class", "cursor-time");
  const show = (shown) => [line, label].forEach((part) => { part.style.display = shown ? "" : "none"; });
  show(false);
  picture.addEventListener("pointerleave", () => show(false));
  picture.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    const inside = point.x >= left && point.x <= left + width && point.y <= bottom;
    show(inside);
    if (!inside) return;
    const late = point.x > left + width - 90;
    for (const [name, value] of [["x1", point.x], ["x2", point.x], ["y1", top], ["y2", bottom]]) line.setAttribute(name, value);
    label.setAttribute("x", point.x + (late ? -6 : 6));
    label.setAttribute("y", Math.max(point.y - 6, top + 10));
    label.setAttribute("text-anchor", late ? "end" : "start");
    label.textContent = (start + (point.x - left) / width * length).toFixed(length < 20 ? 4 : 3) + " s";
  });
}

function linkFaults() {
  const all = [...document.querySelectorAll("[data-fault]")];
  for (const part of all) {
    const same = all.filter((other) => other.dataset.fault === part.dataset.fault);
    part.addEventListener("pointerenter", () => same.forEach((other) => other.classList.add("on")));
    part.addEventListener("pointerleave", () => same.forEach((other) => other.classList.remove("on")));
  }
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

function addCopy(button) {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "copied";
  });
}

document.querySelectorAll("svg.timeline").forEach(addCursor);
document.querySelectorAll("button[data-copy]").forEach(addCopy);
linkFaults();
addEventListener("hashchange", openTarget);
openTarget();
