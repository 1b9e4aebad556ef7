// A chart of the last hour: hand-made SVG, read out by one sentence, with the figures of any
// moment under pointer or arrow keys.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { clock } from './format';
import { highest, nearest, path, ticks, x, y, type Frame, type Values } from './plot';

export interface Line {
  label: string;
  values: Values;
}

interface Props {
  title: string;
  at: readonly number[];
  step_ms: number;
  lines: readonly Line[];
  format: (value: number | null | undefined) => string;
  /** Marks at round numbers of KiB, MiB and so on. */
  binary?: boolean;
}

const HEIGHT = 132;
const AXIS = 54;
const SPAN_MS = 3_600_000;

export function Chart({ title, at, step_ms, lines, format, binary = false }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(360);
  const [at_place, setPlace] = useState<number | null>(null);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(([entry]) => {
      if (entry) setWidth(Math.max(200, Math.floor(entry.contentRect.width)));
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const { frame, marks, paths } = useMemo(() => {
    const marks = ticks(highest(lines.map((line) => line.values)), binary);
    const to_ms = at.at(-1) ?? 0;
    const frame: Frame = {
      left: AXIS,
      top: 8,
      width: width - AXIS - 6,
      height: HEIGHT - 28,
      // As much as there is, two minutes at least, so that a young node's picture is readable.
      from_ms: to_ms - Math.min(SPAN_MS, Math.max(120_000, to_ms - (at[0] ?? to_ms))),
      to_ms,
      most: marks.at(-1) ?? 1,
    };
    return { frame, marks, paths: lines.map((line) => path(frame, at, line.values, 3 * step_ms)) };
  }, [at, lines, width, step_ms, binary]);

  const shown = at_place ?? at.length - 1;
  const move = (to: number) => setPlace(Math.max(0, Math.min(at.length - 1, to)));
  const keyed = (event: KeyboardEvent) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12 }[event.key];
    if (by !== undefined) {
      event.preventDefault();
      move(shown + by);
    } else if (event.key === 'Escape') setPlace(null);
  };
  const summary = lines
    .map((line) => `${line.label}: now ${format(line.values.at(-1))}, at most ${format(highest([line.values]))}`)
    .join('; ');

  return (
    <figure class="chart" ref={box}>
      <figcaption>
        <h3>{title}</h3>
        <ul class="legend">
          {lines.map((line, place) => (
            <li key={line.label} class={`series-${place}`}>
              {line.label} <b>{format(line.values[shown])}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      <svg
        role="img"
        aria-label={`${title}, last hour. ${summary}. Arrow keys move through it.`}
        tabIndex={0}
        width={width}
        height={HEIGHT}
        onKeyDown={keyed}
        onBlur={() => setPlace(null)}
        onPointerMove={(event) => {
          const left = event.currentTarget.getBoundingClientRect().left;
          move(nearest(frame, at, event.clientX - left));
        }}
        onPointerLeave={() => setPlace(null)}
      >
        {marks.map((mark) => (
          <g key={mark} class="mark">
            <line x1={frame.left} x2={frame.left + frame.width} y1={y(frame, mark)} y2={y(frame, mark)} />
            <text x={AXIS - 6} y={y(frame, mark) + 4} text-anchor="end">
              {format(mark)}
            </text>
          </g>
        ))}
        {[0, 0.5, 1].map((share) => (
          <text
            key={share}
            class="time"
            x={frame.left + share * frame.width}
            y={HEIGHT - 4}
            text-anchor={share === 0 ? 'start' : share === 1 ? 'end' : 'middle'}
          >
            {at.length > 0 && clock(frame.from_ms + share * (frame.to_ms - frame.from_ms)).slice(0, 5)}
          </text>
        ))}
        {paths.map((d, place) => (
          <path key={place} d={d} class={`series-${place}`} />
        ))}
        {at_place !== null && at[at_place] !== undefined && (
          <g class="cursor">
            <line
              x1={x(frame, at[at_place])}
              x2={x(frame, at[at_place])}
              y1={frame.top}
              y2={frame.top + frame.height}
            />
            <text x={Math.min(x(frame, at[at_place]) + 4, width - 52)} y={frame.top + 10}>
              {clock(at[at_place])}
            </text>
          </g>
        )}
      </svg>
    </figure>
  );
}
