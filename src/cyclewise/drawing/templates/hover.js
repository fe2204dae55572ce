(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";

  // The same rule as cyclewise.drawing.axes.number.
  const number = (value) => {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-3 || size >= 1e6) {
      const [mantissa, exponent] = value.toExponential(3).split("e");
      return Number(mantissa) + "e" + Number(exponent);
    }
    const decimals = Number.isInteger(value) ? 0 : Math.max(0, 3 - Math.floor(Math.log10(size)));
    return value.toLocaleString("en-US", { maximumFractionDigits: decimals });
  };

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const shape = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    return made;
  };

  const fraction = (axis, value) => {
    const scale = axis.log ? Math.log10 : (same) => same;
    return (scale(value) - scale(axis.low)) / (scale(axis.high) - scale(axis.low));
  };

  const chart = (figure) => {
    const data = JSON.parse(figure.querySelector(".cw-data").textContent);
    const plot = figure.querySelector(".cw-plot");
    const svg = plot.querySelector("svg");
    const [left, top, width, height] = data.plot;
    const across = (x) => left + width * fraction(data.xAxis, x);
    const down = (y) => top + height * (1 - fraction(data.yAxis, y));

    // The name moves from <title>, which browsers show as a tooltip of their own, to where only assistants read it.
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent);
    title.remove();

    const lines = data.lines.map((line) => ({ ...line, points: [] }));
    const weights = new Map();
    for (const line of lines) {
      data.x[line.x].forEach((x, index) => {
        if (x === null || line.y[index] === null) return;
        line.points.push({ x, y: line.y[index], at: across(x) });
      });
      // A place weighs more the fewer points a line has: the pointer finds the one value per epoch among all the steps.
      for (const { x } of line.points) weights.set(x, (weights.get(x) || 0) + 1 / line.points.length);
    }
    const positions = [...weights.keys()].sort((a, b) => a - b);
    if (!positions.length) return;

    const nearest = (items, at, where) =>
      items.reduce((best, item, index) => (Math.abs(where(item) - at) < Math.abs(where(items[best]) - at) ? index : best), 0);

    const cross = shape("g", { "aria-hidden": "true", "pointer-events": "none" });
    const tip = element("div", "cw-tip");
    tip.setAttribute("role", "status");
    tip.hidden = true;
    svg.append(cross);
    plot.append(tip);

    let current = null;
    const hide = () => {
      cross.replaceChildren();
      tip.hidden = true;
    };
    const show = (index) => {
      current = Math.max(0, Math.min(index, positions.length - 1));
      const x = positions[current];
      const at = across(x);
      const head = element("div");
      head.append(element("span", "", data.label), element("b", "", number(x)));
      cross.replaceChildren(
        shape("path", { d: `M${at} ${top}V${top + height}`, stroke: "var(--cw-quiet)", "stroke-dasharray": "2 3" })
      );
      tip.replaceChildren(head);
      for (const line of lines) {
        if (!line.points.length) continue;
        const point = line.points[nearest(line.points, at, (item) => item.at)];
        if (Math.abs(point.at - at) > 2) continue;
        const row = element("div");
        const dot = element("i");
        dot.style.background = line.color;
        row.append(dot, element("span", "", line.name), element("b", "", number(point.y)));
        tip.append(row);
        const y = down(point.y);
        if (y < top - 4 || y > top + height + 4) continue;
        cross.append(shape("circle", { cx: at, cy: y, r: 4, fill: line.color, stroke: "var(--cw-background)", "stroke-width": 1.5 }));
      }
      const scale = svg.clientWidth / data.width;
      tip.hidden = false;
      tip.style.left = "0";
      // Beside the pointer where there is room; on a phone below the chart, which it would cover.
      const narrow = plot.clientWidth < 430;
      let beside = at > data.width / 2 ? (at - 12) * scale - tip.offsetWidth : (at + 12) * scale;
      if (narrow) beside = at * scale - tip.offsetWidth / 2;
      tip.style.left = `${Math.max(0, Math.min(beside, plot.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = narrow ? `${plot.clientHeight}px` : `${(top + 8) * scale}px`;
    };

    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) * data.width) / box.width;
      const closest = nearest(positions, at, across);
      let best = closest;
      positions.forEach((x, index) => {
        const near = Math.abs(across(x) - at) <= 5;
        if (near && weights.get(x) > weights.get(positions[best]) * 1.5) best = index;
      });
      show(best);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide();
    });

    svg.setAttribute("tabindex", "0");
    svg.addEventListener("focus", () => {
      if (current === null) current = data.start === null ? 0 : nearest(positions, across(data.start), across);
      if (svg.matches(":focus-visible")) show(current);
    });
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const stride = event.shiftKey ? 10 : 1;
      const targets = {
        ArrowLeft: current - stride,
        ArrowRight: current + stride,
        Home: 0,
        End: positions.length - 1,
      };
      if (event.key === "Escape") hide();
      if (!(event.key in targets) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      show(targets[event.key]);
    });
  };

  const table = (holder) => {
    const button = element("button", "cw-copy", "Copy table");
    button.type = "button";
    button.addEventListener("click", () => {
      const selection = getSelection();
      selection.selectAllChildren(holder.querySelector("table"));
      const copied = document.execCommand("copy");
      if (copied) selection.removeAllRanges();
      button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
      setTimeout(() => (button.textContent = "Copy table"), 2000);
    });
    holder.append(button);
  };

  // A notebook holds several fragments, each with this script: every figure is set up once.
  const each = (selector, prepare) =>
    document.querySelectorAll(`.cw ${selector}:not([data-cw])`).forEach((found) => {
      found.setAttribute("data-cw", "");
      prepare(found);
    });
  each(".cw-figure", chart);
  each(".cw-table", table);
})();
