import { expect, test } from 'vitest';
import { countLines } from '../src/files';
import { bodyOf, namesOf } from '../src/message';

test('names are apart by whatever people put between them, each once', () => {
  expect(namesOf(' bob, carol\nbob;dan  ')).toEqual(['bob', 'carol', 'dan']);
  expect(namesOf(' \n')).toEqual([]);
});

test('a body is JSON, or a string', () => {
  expect(bodyOf('{"a": 1}')).toEqual({ a: 1 });
  expect(bodyOf('7')).toBe(7);
  expect(bodyOf('we move')).toBe('we move');
  expect(bodyOf('{"a": ')).toBe('{"a": ');
});

test('lines are counted without the empty ones, with or without an end', async () => {
  for (const [text, lines] of [
    ['', 0],
    ['a', 1],
    ['a\nb\n', 2],
    ['a\n\n\nb', 2],
  ] as const) {
    expect(await countLines(new Blob([text]))).toBe(lines);
  }
});
