// Speaks to the admin API with the session's cookie. Knows nothing of pages.

/** A refusal: problem details (RFC 9457), or a connection that failed. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

const BASE = '/admin/v1';

let csrf = '';
let onSignedOut: () => void = () => undefined;

/** What `GET /session` and `POST /session` tell. */
export interface Session {
  csrf: string;
  name: string;
  role: Role;
}

export type Role = 'viewer' | 'operator' | 'admin';

const RANKS: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether `role` may do what `needed` may. */
export const may = (role: Role, needed: Role) => RANKS[role] >= RANKS[needed];

/** Is told when the server says that nobody is signed in any more. */
export function whenSignedOut(then: () => void) {
  onSignedOut = then;
}

interface Sent {
  body?: BodyInit;
  kind?: string;
  signal?: AbortSignal | undefined;
}

const json = (body: unknown): Sent => ({ body: JSON.stringify(body), kind: 'application/json' });

/** Asks, and gives the answer when it is a good one. */
async function exchange(method: string, path: string, { body, kind, signal }: Sent): Promise<Response> {
  const session = csrf;
  const headers: Record<string, string> = {};
  if (method !== 'GET') headers['X-CSRF-Token'] = csrf;
  if (kind !== undefined) headers['Content-Type'] = kind;
  let answer: Response;
  try {
    answer = await fetch(BASE + path, {
      method,
      headers,
      credentials: 'same-origin',
      body: body ?? null,
      signal: signal ?? null,
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Refused(0, 'unreachable', 'The node does not answer. Is it running?');
  }
  if (answer.ok) return answer;
  const problem = parse(await answer.text()) as { code?: string; detail?: string } | undefined;
  // Unless there was none any more, or somebody has signed in since: then it is another session that is over.
  if (answer.status === 401 && path !== '/session' && session !== '' && csrf === session) onSignedOut();
  const detail = problem?.detail ?? `The node answered ${answer.status}.`;
  throw new Refused(answer.status, problem?.code ?? 'unknown', detail);
}

async function call(method: string, path: string, sent: Sent = {}): Promise<unknown> {
  const text = await (await exchange(method, path, sent)).text();
  return text === '' ? undefined : parse(text);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export const get = <T>(path: string, signal?: AbortSignal) => call('GET', path, { signal }) as Promise<T>;
export const post = <T>(path: string, body: unknown = {}) => call('POST', path, json(body)) as Promise<T>;
export const put = <T>(path: string, body: unknown) => call('PUT', path, json(body)) as Promise<T>;
export const patch = <T>(path: string, body: unknown) => call('PATCH', path, json(body)) as Promise<T>;
export const remove = (path: string) => call('DELETE', path);

/** Makes something; whether it is new, or was there already. */
export async function create(path: string, body: unknown): Promise<boolean> {
  return (await exchange('POST', path, json(body))).status === 201;
}
/** What there is, as a file. */
export async function download(path: string): Promise<Blob> {
  const answer = await exchange('GET', path, {});
  try {
    return await answer.blob();
  } catch {
    throw new Refused(0, 'cut_off', 'The node broke off before everything was there.');
  }
}
/** Sends a file of lines. */
export const upload = <T>(path: string, file: Blob) =>
  call('POST', path, { body: file, kind: 'application/x-ndjson' }) as Promise<T>;

/** Who is signed in; `null` when nobody is. */
export async function session(): Promise<Session | null> {
  const found = await get<Session | undefined>('/session');
  csrf = found?.csrf ?? '';
  return found ?? null;
}
export async function signIn(token: string): Promise<Session> {
  const opened = await post<Session>('/session', { token });
  csrf = opened.csrf;
  return opened;
}
export async function signOut() {
  await remove('/session');
  csrf = '';
}

/** A query string of what is set. */
export function query(values: Record<string, string | number | boolean | null | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value != null && value !== '') search.set(name, String(value));
  }
  const text = search.toString();
  return text === '' ? '' : `?${text}`;
}

/** A part of a path. */
export const part = (text: string | number) => encodeURIComponent(String(text));
