// The supervision tree as rows of a list: which are shown, in which order, how sick each looks.
// Pure: the page asks and draws.
import type { Actor, Branch } from './types';

/** How an actor does; ordered from best to worst. */
export const HEALTHS = ['well', 'busy', 'restarted', 'pressed', 'failing'] as const;
export type Health = (typeof HEALTHS)[number];

const BUSY_SHARE = 0.25;
const PRESSED_SHARE = 0.75;

/** Judged by what an operator would look at first: is it up, does its inbox fill, did it crash. */
export function health(actor: Actor): Health {
  if ((actor as Partial<Branch>).not_running_count) return 'failing';
  if (actor.phase === 'backoff' || actor.phase === 'halted' || actor.phase === 'ended') return 'failing';
  const share = actor.capacity > 0 ? actor.depth / actor.capacity : 0;
  if (share >= PRESSED_SHARE) return 'pressed';
  if (actor.restarts > 0) return 'restarted';
  return share >= BUSY_SHARE ? 'busy' : 'well';
}

/** How long the bar of an inbox is, 0 to 1: by powers, so that 1 of 4096 is seen and 4096 fits. */
export function fill(depth: number, capacity: number): number {
  if (depth <= 0) return 0;
  const most = Math.max(capacity, depth, 2);
  return Math.min(1, Math.log2(1 + depth) / Math.log2(1 + most));
}

/** What is known of the tree. */
export interface Forest {
  actors: ReadonlyMap<number, Actor>;
  /** Children by parent, in the server's order; `null` holds the root. */
  children: ReadonlyMap<number | null, readonly number[]>;
}

export const NO_FOREST: Forest = { actors: new Map(), children: new Map() };

/** A forest of actors in any order. */
export function plant(actors: Iterable<Actor>): Forest {
  const known = new Map<number, Actor>();
  for (const actor of actors) known.set(actor.id, actor);
  const children = new Map<number | null, number[]>();
  for (const actor of known.values()) {
    // Whose supervisor is not known stands at the top: better seen there than not at all.
    const parent = actor.parent !== null && known.has(actor.parent) ? actor.parent : null;
    const siblings = children.get(parent);
    if (siblings) siblings.push(actor.id);
    else children.set(parent, [actor.id]);
  }
  return { actors: known, children };
}

export type Row =
  | { type: 'actor'; actor: Actor; level: number; open: boolean | null; position: number; siblings: number }
  | { type: 'more'; parent: number; level: number; missing: number };

const childrenCount = (actor: Actor, forest: Forest) =>
  Math.max(actor.children, forest.children.get(actor.id)?.length ?? 0);

/** The rows of what is open, from top to bottom. */
export function rows(forest: Forest, open: ReadonlySet<number>): Row[] {
  const shown: Row[] = [];
  // By hand, not by recursion: a deep tree must not end the page.
  const waiting: Row[] = [];
  const push = (parent: number | null, level: number) => {
    const ids = forest.children.get(parent) ?? [];
    const owner = parent === null ? undefined : forest.actors.get(parent);
    const siblings = owner ? childrenCount(owner, forest) : ids.length;
    if (owner && siblings > ids.length) {
      waiting.push({ type: 'more', parent: owner.id, level, missing: siblings - ids.length });
    }
    for (let place = ids.length - 1; place >= 0; place -= 1) {
      const actor = forest.actors.get(ids[place] ?? -1);
      if (!actor) continue;
      const leaf = childrenCount(actor, forest) === 0;
      const isOpen = leaf ? null : open.has(actor.id);
      waiting.push({ type: 'actor', actor, level, open: isOpen, position: place + 1, siblings });
    }
  };
  push(null, 1);
  for (let row = waiting.pop(); row; row = waiting.pop()) {
    shown.push(row);
    if (row.type === 'actor' && row.open) push(row.actor.id, row.level + 1);
  }
  return shown;
}

/** Actors that were restarted between two looks at them. */
export function reborn(before: Forest, after: Forest): number[] {
  return [...after.actors.values()]
    .filter((actor) => actor.generation > (before.actors.get(actor.id)?.generation ?? Infinity))
    .map((actor) => actor.id);
}

/** Which rows are near what is looked at: of thousands only these are drawn. */
export function visible(total: number, scrolled: number, height: number, rowHeight: number, spare = 8) {
  const first = Math.max(0, Math.min(total, Math.floor(scrolled / rowHeight) - spare));
  const last = Math.max(first, Math.min(total, Math.ceil((scrolled + height) / rowHeight) + spare));
  return { first, last };
}

/** Where a key leads in the tree; as the ARIA practices for trees have it. */
export function step(all: readonly Row[], at: number, key: string): { to: number; open?: boolean } | null {
  const row = all[at];
  if (!row) return null;
  switch (key) {
    case 'ArrowDown':
      return { to: Math.min(at + 1, all.length - 1) };
    case 'ArrowUp':
      return { to: Math.max(at - 1, 0) };
    case 'Home':
      return { to: 0 };
    case 'End':
      return { to: all.length - 1 };
    case 'ArrowRight':
      if (row.type === 'more' || row.open === null) return { to: at };
      return row.open ? { to: Math.min(at + 1, all.length - 1) } : { to: at, open: true };
    case 'ArrowLeft': {
      if (row.type === 'actor' && row.open === true) return { to: at, open: false };
      for (let above = at - 1; above >= 0; above -= 1) {
        if ((all[above]?.level ?? 0) < row.level) return { to: above };
      }
      return { to: at };
    }
    default:
      return null;
  }
}
