// Small parts that pages are made of. They know nothing of what they show and change nothing.
import type { ComponentChildren } from 'preact';
import { useId, useState } from 'preact/hooks';
import { useNow } from './hooks';
import { ago, moment } from './format';

export type Tone = 'good' | 'info' | 'warn' | 'bad' | 'plain';

/** A word with a colour; the word says it all, the colour only helps. */
export function Badge({ tone = 'plain', children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function Notice({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <div class={`notice ${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>
      {children}
    </div>
  );
}

/** What stands where data will be: that it is on its way, or why it is not coming. */
export function Waiting({ error }: { error: string | null }) {
  return error === null ? <p class="faint">Loading…</p> : <Notice tone="bad">{error}</Notice>;
}

/** A figure with its name. */
export function Stat(props: { name: string; children: ComponentChildren; note?: ComponentChildren; tone?: Tone }) {
  return (
    <div class={`stat ${props.tone ?? ''}`}>
      <dt>{props.name}</dt>
      <dd>
        {props.children}
        {props.note != null && <small>{props.note}</small>}
      </dd>
    </div>
  );
}

/** A moment, as how long ago, in full for those who point at it. */
export function When({ at }: { at: number | null | undefined }) {
  const now = useNow(5_000);
  return (
    <time title={moment(at)} dateTime={at ? new Date(at).toISOString() : ''}>
      {ago(at, now)}
    </time>
  );
}

/** What stands in one column of a table. */
export interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  /** Figures stand at the right. */
  number?: boolean;
  /** Names the row. */
  header?: boolean;
  class?: string;
}

interface TableProps<T> {
  caption: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  name: (row: T) => string | number;
  /** What to say instead of rows. */
  empty?: string;
}

export function Table<T>({ caption, columns, rows, name, empty }: TableProps<T>) {
  return (
    // Scrolls sideways on a narrow screen, so keys must reach it.
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="hidden">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.head} scope="col" class={column.number ? 'number' : ''}>
                {column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={name(row)}>
              {columns.map((column) => {
                const look = [column.number && 'number', column.class].filter(Boolean).join(' ');
                return column.header ? (
                  <th key={column.head} scope="row" class={look}>
                    {column.cell(row)}
                  </th>
                ) : (
                  <td key={column.head} class={look}>
                    {column.cell(row)}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length === 0 && empty !== undefined && <p class="faint empty">{empty}</p>}
    </div>
  );
}

/** Where a reader is in a list that the server gives page by page. */
export interface Pages {
  /** Where the page begins, as the server named it. */
  after: string | undefined;
  /** Whether it is the first. */
  first: boolean;
  back: () => void;
  on: (next: string) => void;
  /** Begins again, for another list. */
  reset: () => void;
}

export function usePages(): Pages {
  /** Where each page looked at so far began. */
  const [starts, setStarts] = useState<readonly string[]>([]);
  return {
    after: starts.at(-1),
    first: starts.length === 0,
    back: () => setStarts(starts.slice(0, -1)),
    on: (next) => setStarts([...starts, next]),
    reset: () => setStarts([]),
  };
}

interface PagerProps {
  pages: Pages;
  /** What the server gave as the beginning of the next page. */
  next: string | null;
  names?: readonly [string, string];
}

export function Pager({ pages, next, names: [back, on] = ['Previous', 'Next'] }: PagerProps) {
  if (pages.first && next === null) return null;
  return (
    <p class="buttons">
      <button type="button" disabled={pages.first} onClick={pages.back}>
        {back}
      </button>
      <button type="button" disabled={next === null} onClick={() => next !== null && pages.on(next)}>
        {on}
      </button>
    </p>
  );
}

/** One of a few: which list, in which order. */
export function Choice<T extends string>(props: {
  label: string;
  choices: readonly (readonly [T, string])[];
  chosen: T;
  choose: (value: T) => void;
}) {
  return (
    <span class="choice" role="group" aria-label={props.label}>
      {props.choices.map(([value, name]) => (
        <button key={value} type="button" aria-pressed={props.chosen === value} onClick={() => props.choose(value)}>
          {name}
        </button>
      ))}
    </span>
  );
}

/** Names and values, one under the other. */
export function Facts({ facts }: { facts: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** How much of something is used. */
export function Gauge({ share, label }: { share: number | null; label: string }) {
  if (share === null) return <span class="faint">–</span>;
  const tone = share >= 0.9 ? 'bad' : share >= 0.7 ? 'warn' : 'good';
  return <meter class={tone} min={0} max={1} low={0.7} high={0.9} optimum={0} value={Math.min(1, share)} aria-label={label} />;
}

/** Something to look for. */
export function Search(props: { label: string; value: string; change: (text: string) => void }) {
  const id = useId();
  return (
    <span class="search">
      <label for={id}>{props.label}</label>
      <input
        id={id}
        type="search"
        value={props.value}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => props.change(event.currentTarget.value)}
      />
    </span>
  );
}

/** A box to tick. */
export function Check(props: { label: ComponentChildren; checked: boolean; change: (checked: boolean) => void }) {
  return (
    <label class="check">
      <input type="checkbox" checked={props.checked} onChange={(event) => props.change(event.currentTarget.checked)} />
      {props.label}
    </label>
  );
}
