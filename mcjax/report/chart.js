// Shows the numbers at the pointer, the finger or the arrow keys, in all panels of a figure at once.
"use strict";
for (const figure of document.querySelectorAll("figure.chart")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const panels = [...figure.querySelectorAll(".panel")].map((node, i) => ({
    svg: node.querySelector("svg"),
    cursor: node.querySelector(".cursor"),
    place: node.querySelector("output"),
    values: [...node.querySelectorAll("li .value")],
    labels: [...node.querySelectorAll("li span:not(.value)")].map((span) => span.textContent),
    at: -1,
    ...data[i],
  }));

  const text = (value) => (value === null ? "–" : String(+value.toPrecision(5)));
  const nearest = (numbers, to) =>
    numbers.reduce((best, v, i) => (Math.abs(v - to) < Math.abs(numbers[best] - to) ? i : best), 0);

  function show(panel, i) {
    panel.at = i;
    panel.cursor.setAttribute("visibility", "visible");
    panel.cursor.firstChild.setAttribute("transform", `translate(${panel.px[i]},0)`);
    const dots = panel.cursor.querySelectorAll("circle");
    panel.y.forEach((line, k) => {
      const there = panel.py[k][i] !== null;
      dots[k].setAttribute("visibility", there ? "inherit" : "hidden");
      dots[k].setAttribute("cx", panel.px[i]);
      dots[k].setAttribute("cy", there ? panel.py[k][i] : 0);
      panel.values[k].textContent = text(line[i]);
    });
    panel.place.textContent = panel.names.length ? panel.names[i] : `${panel.name} = ${text(panel.x[i])}`;
    const told = panel.y.map((line, k) => `${panel.labels[k]} ${text(line[i])}`);
    panel.svg.setAttribute("aria-valuenow", i);
    panel.svg.setAttribute("aria-valuetext", [panel.place.textContent, ...told].join("; "));
  }

  function showAll(x) {
    for (const panel of panels) show(panel, nearest(panel.x, x));
  }

  function clear() {
    for (const panel of panels) {
      panel.at = -1;
      panel.cursor.setAttribute("visibility", "hidden");
      panel.place.textContent = "";
      panel.y.forEach((_, k) => (panel.values[k].textContent = ""));
    }
  }

  for (const panel of panels) {
    const last = panel.x.length - 1;
    const attributes = { tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuemax": last, "aria-valuenow": 0 };
    for (const [name, value] of Object.entries(attributes)) panel.svg.setAttribute(name, value);
    const point = (event) => {
      const box = panel.svg.getBoundingClientRect();
      const px = ((event.clientX - box.left) / box.width) * panel.svg.viewBox.baseVal.width;
      showAll(panel.x[nearest(panel.px, px)]);
    };
    panel.svg.addEventListener("pointermove", point);
    panel.svg.addEventListener("pointerdown", point);
    panel.svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && clear());
    panel.svg.addEventListener("blur", clear);
    panel.svg.addEventListener("keydown", (event) => {
      const to = {
        ArrowRight: panel.at + 1, ArrowUp: panel.at + 1, ArrowLeft: panel.at - 1, ArrowDown: panel.at - 1,
        PageUp: panel.at + 10, PageDown: panel.at - 10, Home: 0, End: last,
      }[event.key];
      if (event.key === "Escape") clear();
      if (to === undefined) return;
      event.preventDefault();
      showAll(panel.x[Math.min(last, Math.max(0, to))]);
    });
  }
}
