import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { get, session, signIn, signOut, whenSignedOut } from '../src/api';

/** What the node answers next, in this order, and when. */
let answers: (Response | Promise<Response>)[] = [];
const ended = vi.fn();

beforeEach(() => {
  answers = [];
  ended.mockReset();
  whenSignedOut(ended);
  vi.stubGlobal('fetch', () => Promise.resolve(answers.shift()));
});

afterEach(() => {
  vi.unstubAllGlobals();
});

const opened = (csrf = 'a') => Response.json({ csrf, name: 'ops', role: 'admin' });
const refused = () => Response.json({ code: 'unauthenticated', detail: 'Sign in first.' }, { status: 401 });

test('a refusal ends the session it was for', async () => {
  answers = [opened(), refused()];
  await signIn('token');
  await expect(get('/whoami')).rejects.toThrow('Sign in first.');
  expect(ended).toHaveBeenCalledOnce();
});

test('a question of a session that is over ends no later one', async () => {
  let answer: (late: Response) => void = () => undefined;
  answers = [opened('a'), new Promise((done) => (answer = done)), opened('b')];
  await signIn('token');
  const late = get('/whoami');
  await signIn('another');
  answer(refused());
  await expect(late).rejects.toThrow('Sign in first.');
  expect(ended).not.toHaveBeenCalled();
});

test('who has signed out is not told that the session has ended', async () => {
  answers = [opened(), new Response(null, { status: 204 }), refused()];
  await signIn('token');
  await signOut();
  // A page that has not noticed yet asks once more.
  await expect(get('/whoami')).rejects.toThrow('Sign in first.');
  expect(ended).not.toHaveBeenCalled();
});

test('nobody is signed in where the node knows of nobody', async () => {
  answers = [new Response(null, { status: 204 })];
  expect(await session()).toBeNull();
});
