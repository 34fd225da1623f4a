// What the gateway kept of the last minutes, as the charts and the table want it.

// Arrays by step, oldest first: seconds since 1970, answers a second by variant, and the rest.
// The last step may still be running: it is left out.
export function series(history, model, nowMs) {
  const { step_s: step, from_ms: from } = history;
  const own = history.models[model.name] ?? { variants: {}, failed: {}, kept: [], missed: [], shed: [], broken: [], p99_ms: [] };
  const whole = Math.max(0, Math.min(history.queued.length, Math.floor((nowMs - from) / 1000 / step)));
  const every = Array.from({ length: whole }, (_, index) => index);
  const at = (list, index) => list?.[index] ?? 0;
  const failed = every.map((index) => Object.values(own.failed).reduce((sum, list) => sum + at(list, index), 0));
  const asked = every.map((index) => at(own.kept, index) + at(own.missed, index) + at(own.shed, index) + at(own.broken, index));
  const names = model.variants.map((one) => one.name).filter((name) => own.variants[name]?.some((n) => n > 0));
  return {
    step,
    times: every.map((index) => from / 1000 + index * step),
    variants: Object.fromEntries(names.map((name) => [name, every.map((index) => at(own.variants[name], index) / step)])),
    failed: failed.map((n) => n / step),
    attainment: every.map((index) => (asked[index] ? (100 * at(own.kept, index)) / asked[index] : null)),
    p99: every.map((index) => own.p99_ms?.[index] ?? null),
    queued: every.map((index) => at(history.queued, index)),
    busy: every.map((index) => at(history.busy, index)),
  };
}

// Of all answers in them, the share of each variant; {} where there was none.
export function shares(told) {
  const sums = Object.entries(told.variants).map(([name, list]) => [name, list.reduce((a, b) => a + b, 0)]);
  const all = sums.reduce((sum, [, n]) => sum + n, 0);
  return all ? Object.fromEntries(sums.map(([name, n]) => [name, n / all])) : {};
}

// The same minute by minute, newest first: [{time, answers: {V: n}, failed, attainment, p99, queued, busy}].
export function minutes(told) {
  const rows = new Map();
  told.times.forEach((time, index) => {
    const minute = Math.floor(time / 60) * 60;
    if (!rows.has(minute)) rows.set(minute, []);
    rows.get(minute).push(index);
  });
  const most = (list, indices) => Math.max(...indices.map((index) => list[index] ?? 0));
  return [...rows].reverse().map(([time, indices]) => {
    const kept = indices.map((index) => told.attainment[index]).filter((value) => value !== null);
    return {
      time,
      answers: Object.fromEntries(Object.entries(told.variants).map(([name, list]) =>
        [name, Math.round(indices.reduce((sum, index) => sum + list[index] * told.step, 0))])),
      failed: Math.round(indices.reduce((sum, index) => sum + told.failed[index] * told.step, 0)),
      attainment: kept.length ? Math.min(...kept) : null,
      p99: most(told.p99, indices) || null,
      queued: most(told.queued, indices),
      busy: most(told.busy, indices),
    };
  });
}
