// Scales and ticks of the frontier's axes: a function from values to pixels, and round values.

export function linear([low, high], [from, to]) {
  const scale = (value) => from + ((value - low) / (high - low)) * (to - from);
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= 0.7 * rough);
  scale.step = step;
  scale.ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) scale.ticks.push(tick);
  return scale;
}

export function logarithmic([low, high], [from, to]) {
  const span = Math.log(high / low);
  const scale = (value) => from + (Math.log(value / low) / span) * (to - from);
  const decades = Math.log10(high / low);
  const steps = decades > 3 ? [1] : decades > 1.6 ? [1, 3] : [1, 2, 5];
  scale.ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const step of steps) {
      const tick = step * 10 ** power;
      if (tick >= low && tick <= high) scale.ticks.push(tick);
    }
  }
  return scale;
}

// Where each label goes, tried right, left, above and below its point, so that none lies on
// another or on a point; one that finds no place is left out: the table has them all.
export function place(points, bounds) {
  const taken = points.map(({ x, y }) => ({ x: x - 5, y: y - 5, w: 10, h: 10 }));
  const free = (box) =>
    box.x >= bounds.x && box.x + box.w <= bounds.x + bounds.w && box.y >= bounds.y && box.y + box.h <= bounds.y + bounds.h &&
    !taken.some((other) => box.x < other.x + other.w && other.x < box.x + box.w && box.y < other.y + other.h && other.y < box.y + box.h);
  return points.map(({ x, y, text }) => {
    const w = text.length * 6.7 + 4;
    const tries = [
      { x: x + 8, y: y - 17, w, h: 14 }, { x: x + 8, y: y + 3, w, h: 14 },
      { x: x - 8 - w, y: y - 17, w, h: 14 }, { x: x - 8 - w, y: y + 3, w, h: 14 },
      { x: x - w / 2, y: y - 30, w, h: 14 }, { x: x - w / 2, y: y + 16, w, h: 14 },
      { x: x + 8, y: y - 32, w, h: 14 }, { x: x + 8, y: y + 18, w, h: 14 },
    ];
    const found = tries.find(free);
    if (found) taken.push(found);
    return found ?? null;
  });
}
