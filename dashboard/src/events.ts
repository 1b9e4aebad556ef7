// What the node tells while it happens: the stream of events, and what the pages keep of it.
import { useEffect, useReducer } from 'preact/hooks';
import { get, query } from './api';

/** Kinds the server sends; each is a kind of event of its own to the browser as well. */
export const KINDS = [
  'connected',
  'disconnected',
  'crash',
  'restart',
  'actor_ended',
  'limit',
  'dead_letter',
  'security',
  'node',
  'dropped',
] as const;
export type Kind = (typeof KINDS)[number];

export interface Happening {
  id: number;
  kind: Kind;
  at_ms: number;
  /** What the event carries besides. */
  data: Record<string, unknown>;
}

export interface Feed {
  /** Newest first, at most [`KEPT_MAX`]. */
  events: Happening[];
  last_id: number;
  /** Actors that crashed or restarted, and when this page heard of it. */
  flashes: ReadonlyMap<number, number>;
  /** Events the server dropped because this reader was too slow. */
  dropped_count: number;
  state: 'connecting' | 'live' | 'lost';
}

export const EMPTY: Feed = {
  events: [],
  last_id: 0,
  flashes: new Map(),
  dropped_count: 0,
  state: 'connecting',
};

const KEPT_MAX = 200;
/** A stream that was refused is asked for again after this. */
const AGAIN_MS = 10_000;
/** For how long a restart is shown. */
export const FLASH_MS = 2_500;

export type Step =
  | { type: 'opened' }
  | { type: 'lost' }
  | { type: 'happened'; event: Happening; now_ms: number };

/** The next state of the feed. A repeated event (after a reconnect) changes nothing. */
export function reduce(feed: Feed, step: Step): Feed {
  if (step.type === 'opened') return { ...feed, state: 'live' };
  if (step.type === 'lost') return { ...feed, state: 'lost' };
  const { event, now_ms } = step;
  if (event.id !== 0 && event.id <= feed.last_id) return feed;
  const next: Feed = { ...feed, state: 'live', last_id: Math.max(feed.last_id, event.id) };
  if (event.kind === 'dropped') {
    const missed = event.data.count;
    next.dropped_count = feed.dropped_count + (typeof missed === 'number' ? missed : 1);
  }
  next.events = [event, ...feed.events].slice(0, KEPT_MAX);
  const actor = actorOf(event);
  if (actor !== null && (event.kind === 'crash' || event.kind === 'restart')) {
    const flashes = new Map([...feed.flashes].filter(([, at]) => now_ms - at < FLASH_MS));
    flashes.set(actor, now_ms);
    next.flashes = flashes;
  }
  return next;
}

/** The actor an event is about. */
export function actorOf(event: Happening): number | null {
  const id = event.data.actor;
  return typeof id === 'number' ? id : null;
}

/** Reads one event of the stream; `null` when it is none. */
export function parse(kind: Kind, id: string, text: string, now_ms: number): Happening | null {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return null;
  const record = data as Record<string, unknown>;
  const at = record.at_ms;
  // What was dropped has no number of its own: the browser repeats that of the event before.
  return { id: kind === 'dropped' ? 0 : Number(id) || 0, kind, at_ms: typeof at === 'number' ? at : now_ms, data: record };
}

/** One line about an event, for lists. */
export function sentence(event: Happening): string {
  const said = (name: string) => {
    const value = event.data[name];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : null;
  };
  const subject = said('user') ?? said('name') ?? said('limit') ?? said('what') ?? said('state');
  const device = said('device');
  const detail = said('reason') ?? said('detail');
  const who = subject === null ? null : device === null ? subject : `${subject}/${device}`;
  return [who, detail].filter((part) => part !== null && part !== '').join(': ');
}

/** The live feed, which goes on where it was when it was interrupted. */
export function useFeed(kinds?: readonly Kind[]): Feed {
  const [feed, step] = useReducer(reduce, EMPTY);
  const wanted = kinds?.join(',') ?? '';
  useEffect(() => {
    let source: EventSource;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let last_id: number | null = null;
    const open = () => {
      source = new EventSource(`/admin/v1/events${query({ kinds: wanted, after: last_id })}`);
      source.onopen = () => step({ type: 'opened' });
      source.onerror = () => {
        step({ type: 'lost' });
        if (source.readyState !== EventSource.CLOSED) return;
        // The browser comes back from a broken connection, but not from a refusal: there may be too many
        // streams, or nobody is signed in any more, which asking for anything else tells.
        get('/whoami').catch(() => undefined);
        timer = setTimeout(open, AGAIN_MS);
      };
      for (const kind of KINDS) {
        source.addEventListener(kind, (message: MessageEvent<string>) => {
          const now_ms = Date.now();
          const event = parse(kind, message.lastEventId, message.data, now_ms);
          if (event === null) return;
          if (event.id > 0) last_id = event.id;
          step({ type: 'happened', event, now_ms });
        });
      }
    };
    open();
    return () => {
      source.close();
      clearTimeout(timer);
    };
  }, [wanted]);
  return feed;
}
