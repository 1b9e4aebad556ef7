import { expect, test } from 'vitest';
import { EMPTY, FLASH_MS, parse, reduce, sentence, type Feed, type Happening, type Kind } from '../src/events';

const event = (id: number, kind: Kind, data: Record<string, unknown> = {}): Happening => ({ id, kind, at_ms: id, data });
const happen = (feed: Feed, one: Happening, now_ms = 1_000) => reduce(feed, { type: 'happened', event: one, now_ms });

test('newest first, each once, also when the stream starts over', () => {
  let feed = reduce(EMPTY, { type: 'opened' });
  expect(feed.state).toBe('live');
  for (const id of [1, 2, 3]) feed = happen(feed, event(id, 'connected'));
  feed = reduce(feed, { type: 'lost' });
  expect(feed.state).toBe('lost');
  for (const id of [2, 3, 4]) feed = happen(feed, event(id, 'connected'));
  expect(feed.events.map((one) => one.id)).toEqual([4, 3, 2, 1]);
  expect(feed).toMatchObject({ state: 'live', last_id: 4 });
});

test('memory is bounded', () => {
  let feed: Feed = EMPTY;
  for (let id = 1; id <= 1_000; id += 1) feed = happen(feed, event(id, 'crash', { actor: id }), id * 10);
  expect(feed.events).toHaveLength(200);
  expect(feed.events[0]?.id).toBe(1_000);
  expect(feed.flashes.size).toBeLessThanOrEqual(FLASH_MS / 10);
});

test('crashes and restarts make their actor flash, for a while', () => {
  let feed = happen(EMPTY, event(1, 'crash', { actor: 7 }), 1_000);
  feed = happen(feed, event(2, 'connected', { actor: 8 }), 1_100);
  expect([...feed.flashes]).toEqual([[7, 1_000]]);
  feed = happen(feed, event(3, 'restart', { actor: 9 }), 1_000 + FLASH_MS);
  expect([...feed.flashes]).toEqual([[9, 1_000 + FLASH_MS]]);
});

test('what the server dropped is counted, not hidden', () => {
  let feed = happen(EMPTY, event(5, 'connected'));
  for (const count of [12, 3]) {
    const dropped = parse('dropped', '5', JSON.stringify({ kind: 'dropped', count }), 9);
    if (dropped) feed = happen(feed, dropped);
  }
  expect(feed.dropped_count).toBe(15);
  expect(feed.last_id).toBe(5);
});

test('what is no event is ignored', () => {
  expect(parse('crash', '3', '{"name":"x","at_ms":5}', 9)).toEqual({ id: 3, kind: 'crash', at_ms: 5, data: { name: 'x', at_ms: 5 } });
  expect(parse('crash', '', '{}', 9)).toMatchObject({ id: 0, at_ms: 9 });
  for (const text of ['', 'null', '[]', '7', '{']) expect(parse('crash', '3', text, 9)).toBeNull();
});

test('one line says who and why', () => {
  expect(sentence(event(1, 'disconnected', { user: 'bob', device: 'phone', reason: 'client_closed' }))).toBe('bob/phone: client_closed');
  expect(sentence(event(1, 'crash', { name: 'session:bob', reason: 'panicked' }))).toBe('session:bob: panicked');
  expect(sentence(event(1, 'limit', { limit: 'connections', detail: 'full' }))).toBe('connections: full');
  expect(sentence(event(1, 'node', {}))).toBe('');
});
