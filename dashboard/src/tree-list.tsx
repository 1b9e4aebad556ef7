// Draws the rows of the tree, only those in view, and lets keys walk through all of them.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { FLASH_MS } from './events';
import { count, words } from './format';
import { useNow } from './hooks';
import type { Branch } from './types';
import { fill, health, rows, step, visible, type Forest, type Row } from './tree';

interface Props {
  forest: Forest;
  open: ReadonlySet<number>;
  chosen: number | null;
  flashes: ReadonlyMap<number, number>;
  /** A plain list: nothing to open. */
  flat: boolean;
  toggle: (id: number, open: boolean) => void;
  choose: (id: number) => void;
  more: (parent: number) => void;
}

const ROW_HEIGHT = 34;

const keyOf = (row: Row) => (row.type === 'actor' ? `a${row.actor.id}` : `m${row.parent}`);

export function TreeList(props: Props) {
  const { forest, open, chosen, flashes, toggle, choose, more } = props;
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const [focused, setFocused] = useState<string | null>(null);
  const now = useNow();
  const all = useMemo(() => rows(forest, open), [forest, open]);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = () => setView({ top: element.scrollTop, height: element.clientHeight });
    look();
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener('scroll', look, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener('scroll', look);
    };
  }, []);

  const at = Math.max(0, focused === null ? 0 : all.findIndex((row) => keyOf(row) === focused));
  const { first, last } = visible(all.length, view.top, view.height, ROW_HEIGHT);

  const act = (row: Row) => {
    if (row.type === 'more') more(row.parent);
    else choose(row.actor.id);
  };
  const keyed = (event: KeyboardEvent) => {
    const row = all[at];
    if (!row) return;
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      act(row);
      return;
    }
    const led = step(all, at, event.key);
    if (!led) return;
    event.preventDefault();
    if (led.open !== undefined && row.type === 'actor') toggle(row.actor.id, led.open);
    const to = all[led.to];
    if (!to) return;
    setFocused(keyOf(to));
    reveal(led.to);
  };
  const reveal = (place: number) => {
    const element = box.current;
    if (!element) return;
    const top = place * ROW_HEIGHT;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + ROW_HEIGHT > element.scrollTop + element.clientHeight) {
      element.scrollTop = top + ROW_HEIGHT - element.clientHeight;
    }
  };
  const focusedRow = all[at];
  return (
    <div class="tree" ref={box}>
      <div class="tree-head" aria-hidden="true">
        <span>Name</span>
        <span>Inbox</span>
        <span class="number">Rate</span>
        <span class="number wide-only">Restarts</span>
        <span class="wide-only">State</span>
      </div>
      {all.length === 0 && <p class="faint empty">None fits.</p>}
      <ul
        role="tree"
        aria-label={props.flat ? 'Actors' : 'Supervision tree'}
        tabIndex={0}
        aria-activedescendant={focusedRow ? `row-${keyOf(focusedRow)}` : undefined}
        onKeyDown={keyed}
        onFocus={() => reveal(at)}
        style={{ height: `${all.length * ROW_HEIGHT}px` }}
      >
        {all.slice(first, last).map((row, place) => {
          const top = (first + place) * ROW_HEIGHT;
          const key = keyOf(row);
          const common = { id: `row-${key}`, role: 'treeitem' as const, 'aria-level': row.level };
          const mark = key === (focusedRow && keyOf(focusedRow)) ? ' at' : '';
          if (row.type === 'more') {
            return (
              <li key={key} {...common} class={`row more${mark}`} style={{ top: `${top}px` }} onClick={() => act(row)}>
                <span class="name" style={{ paddingInlineStart: indent(row.level) }}>
                  {count(row.missing)} more… <span class="faint">show</span>
                </span>
              </li>
            );
          }
          const { actor } = row;
          const flashed = now - (flashes.get(actor.id) ?? 0) < FLASH_MS;
          return (
            <li
              key={key}
              {...common}
              class={`row${mark}${actor.id === chosen ? ' chosen' : ''}${flashed ? ' flash' : ''}`}
              style={{ top: `${top}px` }}
              aria-expanded={row.open ?? undefined}
              aria-selected={actor.id === chosen}
              aria-posinset={row.position}
              aria-setsize={row.siblings}
              onClick={() => {
                setFocused(key);
                choose(actor.id);
              }}
            >
              <RowCells row={row} toggle={toggle} />
            </li>
          );
        })}
      </ul>
    </div>
  );
}

const indent = (level: number) => `${8 + (level - 1) * 18}px`;

function RowCells({ row, toggle }: { row: Row & { type: 'actor' }; toggle: Props['toggle'] }) {
  const { actor } = row;
  const state = health(actor);
  const waiting = (actor as Partial<Branch>).depth_sum ?? 0;
  return (
    <>
      <span class="name" style={{ paddingInlineStart: indent(row.level) }}>
        {row.open === null ? (
          <span class="twist" aria-hidden="true" />
        ) : (
          <span
            class="twist"
            aria-hidden="true"
            onClick={(event) => {
              event.stopPropagation();
              toggle(actor.id, !row.open);
            }}
          >
            {row.open ? '▾' : '▸'}
          </span>
        )}
        <span class={`dot ${state}`} />
        <span class="text">{actor.name}</span> <span class="hidden">{state}</span>
        <small class="faint">
          {actor.kind === 'supervisor' ? `${count(actor.children)} ${words(actor.strategy ?? '')}` : words(actor.kind)}
        </small>
      </span>
      <span class="inbox">
        {actor.kind === 'supervisor' ? (
          waiting > 0 && <small class="faint">{count(waiting)} below</small>
        ) : (
          <>
            <span class={`bar ${state}`}>
              <span style={{ width: `${(fill(actor.depth, actor.capacity) * 100).toFixed(1)}%` }} />
            </span>
            <b>{count(actor.depth)}</b> <span class="hidden">in the inbox</span>
          </>
        )}
      </span>
      <span class="number">{actor.kind !== 'supervisor' && `${count(actor.rate_per_s)}/s`}</span>
      <span class="number wide-only">{actor.restarts > 0 && (
          <>
            {count(actor.restarts)} <span class="hidden">restarts</span>
          </>
        )}
      </span>
      <span class="wide-only faint">{actor.phase}</span>
    </>
  );
}
