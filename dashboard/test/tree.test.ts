import { describe, expect, test } from 'vitest';
import { fill, health, plant, reborn, rows, step, visible, type Row } from '../src/tree';
import type { Actor } from '../src/types';

function actor(id: number, parent: number | null, more: Partial<Actor> = {}): Actor {
  return {
    id,
    parent,
    name: `a${id}`,
    kind: 'session',
    phase: 'running',
    generation: 1,
    restarts: 0,
    last_exit: null,
    depth: 0,
    depth_max: 0,
    capacity: 100,
    handled_count: 0,
    rate_per_s: 0,
    drain_ms: null,
    blocked_ms: 0,
    arbiter: null,
    strategy: null,
    children: 0,
    started_ms: 0,
    ...more,
  };
}

const told = (shown: readonly Row[]) =>
  shown.map((row) => (row.type === 'actor' ? `${'.'.repeat(row.level)}${row.actor.id}` : `${'.'.repeat(row.level)}+${row.missing}`));

const forest = plant([
  actor(1, null, { children: 2 }),
  actor(2, 1, { children: 500 }),
  actor(3, 1),
  actor(4, 2),
  actor(5, 2),
]);

describe('rows', () => {
  test('what is closed hides what is below', () => {
    expect(told(rows(forest, new Set()))).toEqual(['.1']);
    expect(told(rows(forest, new Set([1])))).toEqual(['.1', '..2', '..3']);
    // Open below something closed does not show.
    expect(told(rows(forest, new Set([2])))).toEqual(['.1']);
  });

  test('children that were not sent are counted, in their place', () => {
    expect(told(rows(forest, new Set([1, 2])))).toEqual(['.1', '..2', '...4', '...5', '...+498', '..3']);
  });

  test('each knows its place among its siblings, the missing ones included', () => {
    const four = rows(forest, new Set([1, 2])).find((row) => row.type === 'actor' && row.actor.id === 4);
    expect(four).toMatchObject({ position: 1, siblings: 500, level: 3, open: null });
  });

  test('an actor whose supervisor is unknown is shown at the top', () => {
    expect(told(rows(plant([actor(9, 77)]), new Set()))).toEqual(['.9']);
  });

  test('ten thousand children are no trouble', () => {
    const many = plant([actor(0, null), ...Array.from({ length: 10_000 }, (_, place) => actor(place + 1, 0))]);
    expect(rows(many, new Set([0]))).toHaveLength(10_001);
  });
});

test('keys walk the tree', () => {
  const open = new Set([1, 2]);
  const shown = rows(forest, open); // 1 2 4 5 +498 3
  expect(step(shown, 0, 'ArrowDown')).toEqual({ to: 1 });
  expect(step(shown, 0, 'ArrowUp')).toEqual({ to: 0 });
  expect(step(shown, 5, 'ArrowDown')).toEqual({ to: 5 });
  expect(step(shown, 1, 'ArrowRight')).toEqual({ to: 2 });
  expect(step(shown, 1, 'ArrowLeft')).toEqual({ to: 1, open: false });
  expect(step(shown, 3, 'ArrowLeft')).toEqual({ to: 1 });
  expect(step(shown, 4, 'ArrowLeft')).toEqual({ to: 1 });
  expect(step(rows(forest, new Set([1])), 1, 'ArrowRight')).toEqual({ to: 1, open: true });
  expect(step(shown, 2, 'End')).toEqual({ to: 5 });
  expect(step(shown, 2, 'x')).toBeNull();
});

test('only rows in view are drawn', () => {
  expect(visible(10_000, 34_000, 600, 34, 8)).toEqual({ first: 992, last: 1026 });
  expect(visible(3, 0, 600, 34)).toEqual({ first: 0, last: 3 });
  // The list got shorter while it was scrolled far down.
  expect(visible(5, 90_000, 600, 34)).toEqual({ first: 5, last: 5 });
});

test('health tells the worst there is', () => {
  expect(health(actor(1, null))).toBe('well');
  expect(health(actor(1, null, { depth: 30 }))).toBe('busy');
  expect(health(actor(1, null, { depth: 30, restarts: 1 }))).toBe('restarted');
  expect(health(actor(1, null, { depth: 80, restarts: 1 }))).toBe('pressed');
  expect(health(actor(1, null, { phase: 'backoff', depth: 80 }))).toBe('failing');
  expect(health(actor(1, null, { capacity: 0 }))).toBe('well');
});

test('a bar grows with the inbox and never beyond', () => {
  expect(fill(0, 100)).toBe(0);
  expect(fill(1, 4_096)).toBeGreaterThan(0.05);
  expect(fill(10, 4_096)).toBeLessThan(fill(100, 4_096));
  expect(fill(4_096, 4_096)).toBe(1);
  expect(fill(9_000, 4_096)).toBe(1);
});

test('a restart between two looks is noticed, a newcomer is none', () => {
  const before = plant([actor(1, null), actor(2, 1), actor(3, 1, { generation: 4 })]);
  const after = plant([actor(1, null), actor(2, 1, { generation: 2 }), actor(3, 1, { generation: 4 }), actor(9, 1, { generation: 7 })]);
  expect(reborn(before, after)).toEqual([2]);
});
