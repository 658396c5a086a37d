// The four charts, drawn with uPlot from columns of numbers. Knows nothing of the server.
"use strict";

const Charts = (() => {
  const HEIGHT = 178;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const axis = (more) => ({
    stroke: colour("faint"),
    font: "11px system-ui, sans-serif",
    grid: { stroke: colour("line"), width: 1 },
    ticks: { show: false },
    ...more,
  });

  const clock = (at, withSeconds) => new Date(at * 1000).toLocaleTimeString([], {
    hour: "2-digit", minute: "2-digit", second: withSeconds ? "2-digit" : undefined, hourCycle: "h23",
  });

  // On a log scale only whole powers of ten get a line.
  const decades = (u, at) => at.map((v) => (Number.isInteger(Math.log10(v)) ? v : null));

  function options(width, scale, series, values, size) {
    const grid = { stroke: colour("line"), width: 1, ...(scale.distr === 3 && { filter: decades }) };
    return {
      width,
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      cursor: { y: false, points: { size: 6 } },
      legend: { markers: { width: 0, fill: (u, i) => u.series[i].legend ?? u.series[i].stroke() } },
      scales: { x: { time: true }, y: scale },
      axes: [
        axis({ values: (u, at, i, space, step) => at.map((v) => clock(v, step < 60)), space: 72, size: 24 }),
        axis({ values: (u, all) => all.map((v) => (v == null ? "" : values(v))), size, space: 34, grid }),
      ],
      series: [{ value: (u, at) => (at == null ? "–" : clock(at, true)), label: "at" }, ...series],
    };
  }

  const line = (label, name, show, more) => ({
    label, stroke: colour(name), width: 2, points: { size: 5 }, value: (u, v) => (v == null ? "–" : show(v)), ...more,
  });

  // One chart in `box`: `make(width, columns)` gives uPlot's options, `data(columns)` its data.
  function chart(box, make, data, isEmpty) {
    let plot = null;
    let last = null;
    const note = document.createElement("div");
    note.className = "none";
    note.textContent = "Nothing in this time";
    const width = () => Math.max(box.clientWidth, 200);
    const legendOfNow = () => plot && plot.setLegend({ idx: plot.data[0].length - 1 });
    function draw(columns) {
      last = columns;
      const rows = data(columns);
      if (plot) {
        plot.setData(rows);
      } else {
        plot = new uPlot(make(width(), columns, () => last), rows, box);
        plot.over.addEventListener("mouseleave", legendOfNow);
        box.append(note);
      }
      note.hidden = !isEmpty(columns);
      if (plot.cursor.idx == null) legendOfNow();
    }
    new ResizeObserver(() => plot && plot.width !== width() && plot.setSize({ width: width(), height: HEIGHT })).observe(box);
    // A change of the colour scheme redraws everything.
    const again = () => {
      if (!plot) return;
      plot.destroy();
      box.replaceChildren();
      plot = null;
      draw(last);
    };
    return { draw, again };
  }

  const STACK = [["exact", "exact"], ["semantic", "semantic"], ["coalesced", "coalesced"], ["model", "model"], ["error", "error"]];

  // Cumulative sums: the highest area is drawn first, the lower ones over it.
  function stacked(columns) {
    const sums = [];
    STACK.forEach(([name], i) => sums.push(columns[name].map((v, n) => v + (i ? sums[i - 1][n] : 0))));
    return [columns.at, ...sums.reverse()];
  }

  const nothing = (...names) => (columns) => names.every((name) => columns[name].every((v) => !v));
  const fromZero = (least) => ({ range: (u, low, high) => [0, Math.max(high ?? 0, least) * 1.08] });

  function all(format, slo) {
    const box = (id) => document.getElementById(id);
    const requests = chart(box("chart-requests"), (width, columns, last) => {
      const series = STACK.map(([name, shade]) => ({
        ...line(name, shade, () => "", {}), fill: colour(shade), width: 0, points: { show: false }, legend: colour(shade),
        value: (u, v, s, n) => (n == null ? "–" : format.rate(last()[name][n])),
      })).reverse();
      return options(width, fromZero(0.1), series, format.rate, 40);
    }, stacked, nothing("exact", "semantic", "coalesced", "model", "error"));

    const hits = chart(box("chart-hits"), (width) => options(
      width, { range: [0, 1] },
      [line("hit ratio", "accent", format.percent, { fill: colour("accent") + "22" })],
      (v) => `${Math.round(v * 100)} %`, 46,
    ), (c) => [c.at, c.hit_ratio], nothing("hit_ratio"));

    const money = chart(box("chart-money"), (width) => options(
      width, fromZero(0.0001),
      [
        line("hot tier for everything", "model", format.usd, { dash: [6, 4] }),
        line("spent", "error", format.usd, {}),
        line("saved", "coalesced", format.usd, { dash: [2, 2], width: 2.5 }),
      ],
      format.usd, 62,
    ), (c) => [c.at, c.hot_tier_usd, c.cost_usd, c.saved_usd], nothing("hot_tier_usd", "cost_usd", "saved_usd"));

    const wait = chart(box("chart-wait"), (width) => options(
      width, { distr: 3, range: (u, low, high) => [Math.min(low || 1, 1) * 0.5, Math.max(high || 1, slo()) * 2] },
      [
        line("p50", "exact", format.ms, {}),
        line("p99", "semantic", format.ms, { dash: [8, 3] }),
        line("objective", "error", format.ms, { dash: [3, 4], width: 1.5, points: { show: false } }),
      ],
      (v) => (v >= 1000 ? `${v / 1000} s` : `${v} ms`), 54,
    ), (c) => [c.at, c.wait_p50_ms, c.wait_p99_ms, c.at.map(() => slo())], nothing("wait_p50_ms"));

    const charts = [requests, hits, money, wait];
    return { draw: (columns) => charts.forEach((c) => c.draw(columns)), again: () => charts.forEach((c) => c.again()) };
  }

  return { all };
})();
