// What a chart has to compute: scales, ticks, paths. Pure; chart.tsx draws.

export type Values = readonly (number | null)[];

/** Round bounds and marks for values from 0 to `most`: at most five marks, the last not below `most`. */
export function ticks(most: number, binary = false): number[] {
  if (!(most > 0) || !Number.isFinite(most)) return [0, 1];
  if (binary) {
    const unit = 1024 ** Math.max(0, Math.floor(Math.log2(most) / 10));
    return ticks(most / unit).map((mark) => mark * unit);
  }
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough) ?? rough;
  const marks = [];
  for (let mark = 0; mark < most + step * 0.999; mark += step) marks.push(Number(mark.toPrecision(6)));
  return marks;
}

/** The highest of several series; 0 when there is none. */
export function highest(all: readonly Values[]): number {
  let most = 0;
  for (const values of all) for (const value of values) if (value !== null && value > most) most = value;
  return most;
}

export interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
  from_ms: number;
  to_ms: number;
  most: number;
}

export const x = (frame: Frame, at_ms: number) =>
  frame.left + ((at_ms - frame.from_ms) / Math.max(1, frame.to_ms - frame.from_ms)) * frame.width;
export const y = (frame: Frame, value: number) =>
  frame.top + frame.height - (Math.min(value, frame.most) / frame.most) * frame.height;

/** A line through the values; it breaks where one is missing or the node was away (`gap_ms`). */
export function path(frame: Frame, at: readonly number[], values: Values, gap_ms: number): string {
  let text = '';
  let last: number | null = null;
  for (const [place, at_ms] of at.entries()) {
    const value = values[place];
    if (value == null) {
      last = null;
      continue;
    }
    const joined = last !== null && at_ms - last <= gap_ms;
    text += `${joined ? 'L' : 'M'}${x(frame, at_ms).toFixed(1)} ${y(frame, value).toFixed(1)}`;
    // A lone value would not be seen: a line without length and round ends is a dot.
    if (!joined) text += 'h0';
    last = at_ms;
  }
  return text;
}

/** The sample nearest to a place on the screen. */
export function nearest(frame: Frame, at: readonly number[], screenX: number): number {
  const wanted = frame.from_ms + ((screenX - frame.left) / frame.width) * (frame.to_ms - frame.from_ms);
  let best = 0;
  for (const [place, at_ms] of at.entries()) {
    if (Math.abs(at_ms - wanted) < Math.abs((at[best] ?? Infinity) - wanted)) best = place;
  }
  return best;
}

/** New samples added to what is known, no more than an hour of them. */
export function extend<T extends { at_ms: number[]; series: Record<string, (number | null)[]> }>(
  known: T | null,
  news: T,
  kept_ms = 3_600_000,
): T {
  if (known === null) return news;
  const newest = known.at_ms.at(-1) ?? 0;
  const end = news.at_ms.at(-1) ?? newest;
  const keep = (at_ms: number) => at_ms > end - kept_ms;
  const from = known.at_ms.findIndex(keep);
  const start = from < 0 ? known.at_ms.length : from;
  const fresh = news.at_ms.findIndex((at_ms) => at_ms > newest);
  const added = fresh < 0 ? news.at_ms.length : fresh;
  const series: Record<string, (number | null)[]> = {};
  for (const name of Object.keys(news.series)) {
    const old = known.series[name] ?? known.at_ms.map(() => null);
    series[name] = [...old.slice(start), ...(news.series[name] ?? []).slice(added)];
  }
  return { ...news, at_ms: [...known.at_ms.slice(start), ...news.at_ms.slice(added)], series };
}
