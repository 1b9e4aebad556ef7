import { describe, expect, test } from 'vitest';
import { ago, bytes, count, duration, figure, label, millis, percent } from '../src/format';

describe('numbers', () => {
  test.each([
    [0, '0'],
    [7, '7'],
    [0.25, '0.3'],
    [999, '999'],
    [1_000, '1k'],
    [1_234, '1.23k'],
    [99_960, '100k'],
    [999_499, '999k'],
    [999_500, '1M'],
    [414_000_000, '414M'],
    [2.5e9, '2.5G'],
    [-1_500, '-1.5k'],
    [null, '–'],
    [NaN, '–'],
  ])('count(%s) is %s', (value, text) => expect(count(value)).toBe(text));

  test.each([
    [0, '0 B'],
    [1_023, '1023 B'],
    [1_024, '1 KiB'],
    [1_536, '1.5 KiB'],
    [1_048_575, '1 MiB'],
    [5 * 1024 ** 4, '5 TiB'],
  ])('bytes(%s) is %s', (value, text) => expect(bytes(value)).toBe(text));

  test('shares', () => expect([0, 0.0042, 0.5, 1, null].map(percent)).toEqual(['0%', '0.4%', '50%', '100%', '–']));
});

describe('times', () => {
  test.each([
    [0, '0 ms'],
    [0.416, '0.42 ms'],
    [35.4, '35 ms'],
    [1_250, '1.3 s'],
  ])('millis(%s) is %s', (value, text) => expect(millis(value)).toBe(text));

  test.each([
    [0, '0 s'],
    [9_940, '9.9 s'],
    [59_700, '1 min'],
    [250_000, '4 min 10 s'],
    [86_400_000, '1 d'],
    [86_405_000, '1 d'],
    [97_200_000, '1 d 3 h'],
  ])('duration(%s) is %s', (value, text) => expect(duration(value)).toBe(text));

  test('ago', () => {
    const now = 1_800_000_000_000;
    const told = [0, 1, 30, 90, 7_200, 200_000].map((seconds) => ago(now - seconds * 1_000, now));
    expect(told).toEqual(['now', 'now', '30 s ago', '1 min ago', '2 h ago', '2 d ago']);
    expect(ago(null, now)).toBe('–');
    // A clock that is ahead of ours.
    expect(ago(now + 5_000, now)).toBe('now');
  });
});

test('figures are told by the unit their name ends with', () => {
  expect(figure('journal_bytes', 2_048)).toBe('2 KiB');
  expect(figure('uptime_s', 61)).toBe('1 min 1 s');
  expect(figure('sync_ms', 0.5)).toBe('0.5 ms');
  expect(figure('messages_per_s', 20)).toBe('20');
  expect(figure('connections', 19_000)).toBe('19,000');
  expect(figure('healthy', true)).toBe('yes');
  expect(figure('error', null)).toBe('–');
});

test('a name of figures loses its unit, but not a rate', () => {
  expect(['free_bytes', 'last_sync_ms', 'segments_count', 'messages_per_s'].map(label)).toEqual([
    'free',
    'last sync',
    'segments',
    'messages per s',
  ]);
});
