import { describe, expect, test } from 'vitest';
import { extend, highest, nearest, path, ticks, x, y, type Frame } from '../src/plot';
import { place } from '../src/router';

const frame: Frame = { left: 10, top: 0, width: 100, height: 50, from_ms: 0, to_ms: 100, most: 10 };

test.each([
  [0, [0, 1]],
  [NaN, [0, 1]],
  [1, [0, 0.25, 0.5, 0.75, 1]],
  [7, [0, 2, 4, 6, 8]],
  [100, [0, 25, 50, 75, 100]],
  [101, [0, 50, 100, 150]],
])('marks for %s', (most, marks) => expect(ticks(most)).toEqual(marks));

test('marks for bytes are round in binary units', () => {
  expect(ticks(50 * 1024 ** 2, true)).toEqual([0, 20, 40, 60].map((mark) => mark * 1024 ** 2));
  expect(ticks(0.5, true)).toEqual(ticks(0.5));
});

test('marks cover the highest value, few and rising', () => {
  for (let most = 0.001; most < 1e9; most *= 1.37) {
    const marks = ticks(most);
    expect(marks.at(-1)).toBeGreaterThanOrEqual(most * 0.999);
    expect(marks.length).toBeLessThanOrEqual(6);
    expect([...marks].sort((a, b) => a - b)).toEqual(marks);
  }
});

describe('paths', () => {
  test('values become places', () => {
    expect([x(frame, 0), x(frame, 100), y(frame, 0), y(frame, 10), y(frame, 99)]).toEqual([10, 110, 50, 0, 0]);
    expect(path(frame, [0, 50, 100], [0, 10, 5], 60)).toBe('M10.0 50.0h0L60.0 0.0L110.0 25.0');
  });

  test('a line breaks where values are missing and where the node was away', () => {
    expect(path(frame, [0, 50, 100], [0, null, 5], 200)).toBe('M10.0 50.0h0M110.0 25.0h0');
    expect(path(frame, [0, 100], [0, 5], 60)).toBe('M10.0 50.0h0M110.0 25.0h0');
  });

  test('the nearest sample to the pointer', () => {
    expect(nearest(frame, [0, 50, 100], 12)).toBe(0);
    expect(nearest(frame, [0, 50, 100], 70)).toBe(1);
    expect(nearest(frame, [0, 50, 100], 500)).toBe(2);
    expect(nearest(frame, [], 5)).toBe(0);
  });

  test('the highest skips what is missing', () => expect(highest([[1, null], [null, 4], []])).toBe(4));
});

describe('the hour is put together from its news', () => {
  const part = (at_ms: number[], base = 0) => ({ at_ms, series: { a: at_ms.map((at) => at + base) } });

  test('added, never twice, old ones leave', () => {
    const first = extend(null, part([1, 2, 3]));
    const second = extend(first, part([3, 4]));
    expect(second).toEqual(part([1, 2, 3, 4]));
    expect(extend(second, part([]))).toEqual(second);
    expect(extend(second, part([6]), 3)).toEqual(part([4, 6]));
    expect(extend(second, part([100]), 3)).toEqual(part([100]));
  });

  test('a series that is new starts with gaps', () => {
    const news = { at_ms: [3], series: { a: [3], b: [9] } };
    expect(extend({ at_ms: [1, 2], series: { a: [1, 2] } } as typeof news, news).series.b).toEqual([null, null, 9]);
  });
});

test('addresses name a page and what it is about', () => {
  expect(place('')).toEqual({ page: 'overview', subject: null });
  expect(place('#/user/bob%2F1')).toEqual({ page: 'user', subject: 'bob/1' });
  expect(place('#/user/%')).toEqual({ page: 'user', subject: null });
});
