// Figures and times as people read them. Pure functions; nothing here touches the page.

const EM_DASH = '–';

/** A number with at most three significant digits and a suffix: 1234567 is `1.23M`. */
export function count(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return EM_DASH;
  const size = Math.abs(value);
  if (size < 1_000) return trim(value, size < 10 && !Number.isInteger(value) ? 1 : 0);
  for (const [limit, unit, suffix] of [
    [999_500, 1e3, 'k'],
    [999_500_000, 1e6, 'M'],
    [Infinity, 1e9, 'G'],
  ] as const) {
    if (size < limit) return scaled(value / unit) + suffix;
  }
  return EM_DASH;
}

/** Bytes in binary units: 1536 is `1.5 KiB`. */
export function bytes(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return EM_DASH;
  let scaledValue = value;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (Math.abs(scaledValue) < 1023.5) return `${unit === 'B' ? trim(scaledValue, 0) : scaled(scaledValue)} ${unit}`;
    scaledValue /= 1024;
  }
  return `${scaled(scaledValue)} TiB`;
}

/** Milliseconds: `0.42 ms`, `35 ms`, `1.2 s`. */
export function millis(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return EM_DASH;
  if (value >= 1_000) return duration(value);
  return `${value < 10 ? trim(value, 2) : trim(value, 0)} ms`;
}

/** A length of time, its two largest units: `2 d 3 h`, `4 min 10 s`. */
export function duration(ms: number | null | undefined): string {
  if (ms == null || !Number.isFinite(ms)) return EM_DASH;
  const seconds = Math.max(0, ms) / 1_000;
  if (seconds < 10) return `${trim(seconds, 1)} s`;
  let rest = Math.round(seconds);
  const parts: string[] = [];
  for (const [unit, length] of [
    ['d', 86_400],
    ['h', 3_600],
    ['min', 60],
    ['s', 1],
  ] as const) {
    const whole = Math.floor(rest / length);
    rest -= whole * length;
    if (whole > 0) parts.push(`${whole} ${unit}`);
    // The unit after the first may be missing: `1 d`, not `1 d 0 h`, and never `1 d 5 s`.
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(' ');
}

/** How long ago, in one unit: `now`, `12 s ago`, `3 h ago`. */
export function ago(atMs: number | null | undefined, nowMs: number): string {
  if (atMs == null || atMs <= 0) return EM_DASH;
  const seconds = Math.round((nowMs - atMs) / 1_000);
  if (seconds < 2) return 'now';
  for (const [unit, length] of [
    ['d', 86_400],
    ['h', 3_600],
    ['min', 60],
  ] as const) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

/** A moment in full, in the reader's own time: `2026-11-22 08:15:30`. */
export function moment(atMs: number | null | undefined): string {
  if (atMs == null || atMs <= 0) return EM_DASH;
  const at = new Date(atMs);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(atMs)}`;
}

/** The time of day: `08:15:30`. */
export function clock(atMs: number): string {
  const at = new Date(atMs);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A share of one as per cent. */
export function percent(share: number | null | undefined): string {
  if (share == null || !Number.isFinite(share)) return EM_DASH;
  const value = share * 100;
  return `${trim(value, value < 10 && value > 0 ? 1 : 0)}%`;
}

/** `dead_letter` as `dead letter`. */
export function words(name: string): string {
  return name.replaceAll('_', ' ');
}

/** A name of figures without its unit, which the value tells: `free_bytes` as `free`. */
export function label(name: string): string {
  return words(name.replace(/(?<!_per)_(ms|s|bytes|count)$/, ''));
}

/** A name of figures (`recent_bytes`) with the value its unit asks for. */
export function figure(name: string, value: unknown): string {
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (value == null) return EM_DASH;
  if (typeof value !== 'number') return typeof value === 'string' ? value : JSON.stringify(value);
  if (name.endsWith('_bytes') || name === 'bytes' || name.includes('_bytes_')) return bytes(value);
  if (name.endsWith('_ms') && value > 1e11) return moment(value);
  if (name.endsWith('_ms')) return millis(value);
  if (name.endsWith('_s') && !name.endsWith('_per_s')) return duration(value * 1_000);
  return value.toLocaleString('en');
}

const two = (value: number) => String(value).padStart(2, '0');

function scaled(value: number): string {
  const size = Math.abs(value);
  return trim(value, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

/** Fixed digits without useless zeros at the end. */
function trim(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return digits > 0 ? text.replace(/\.?0+$/, '') : text;
}
