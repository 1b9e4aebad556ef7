// The supervision tree, live: who supervises whom, whose inbox fills, who crashed just now.
import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { get, query } from '../api';
import type { Feed } from '../events';
import { count } from '../format';
import { explain, usePolled, useSettled } from '../hooks';
import { link, type Place } from '../router';
import { health, HEALTHS, NO_FOREST, plant, reborn, type Forest } from '../tree';
import { TreeList } from '../tree-list';
import type { Actor, TreeAnswer } from '../types';
import { Badge, Choice, Notice, Search, Waiting } from '../ui';
import { ActorPanel, userOf } from './actor';

interface Answer {
  actors: Actor[];
  next: string | number | null;
}

/** Children fetched at a time. */
const STEP = 200;
/** Children of one supervisor shown at most: beyond that, search. */
const SHOWN_MAX = 5_000;
const PAGE_MAX = 1_000;

const SORTS = [
  ['', 'Tree'],
  ['depth', 'By inbox'],
  ['depth_max', 'By fullest ever'],
  ['restarts', 'By restarts'],
  ['blocked_ms', 'By time blocked'],
  ['rate', 'By rate'],
] as const;

async function childrenOf(parent: number, wanted: number, signal: AbortSignal): Promise<Actor[]> {
  const found: Actor[] = [];
  let after: string | number | null = null;
  while (found.length < wanted) {
    const limit = Math.min(PAGE_MAX, wanted - found.length);
    const page: TreeAnswer = await get<TreeAnswer>(`/actors/tree${query({ under: parent, after, limit })}`, signal);
    found.push(...page.actors);
    after = page.next;
    if (after === null) break;
  }
  return found;
}

export function Actors({ place, feed }: { place: Place; feed: Feed }) {
  const [open, setOpen] = useState<ReadonlySet<number>>(new Set());
  /** Supervisors with many children that were opened, and how many of them are wanted. */
  const [wanted, setWanted] = useState<ReadonlyMap<number, number>>(new Map());
  const [q, setQ] = useState('');
  const [sort, setSort] = useState<(typeof SORTS)[number][0]>('');
  const [problem, setProblem] = useState<string | null>(null);
  const search = useSettled(q.trim());
  const flat = search !== '' || sort !== '';

  const ask = useCallback(
    async (signal: AbortSignal): Promise<Forest> => {
      if (search !== '' || sort !== '') {
        const found = await get<Answer>(`/actors${query({ q: search, sort: sort || 'id', limit: STEP })}`, signal);
        return plant(found.actors.map((actor) => ({ ...actor, parent: null, children: 0 })));
      }
      const tree = await get<TreeAnswer>('/actors/tree', signal);
      const known = new Set(tree.supervisors.map((supervisor) => supervisor.id));
      const more = [...wanted].filter(([parent]) => known.has(parent));
      const children = await Promise.all(more.map(([parent, most]) => childrenOf(parent, most, signal)));
      return plant([...tree.supervisors, ...tree.actors, ...children.flat()]);
    },
    [search, sort, wanted],
  );
  const total = [...wanted.values()].reduce((sum, most) => sum + most, 0);
  const { data, error, again } = usePolled(ask, total > PAGE_MAX ? 10_000 : 2_000);
  // While more of the same is fetched the tree stays; another list replaces it.
  const kept = useRef<{ flat: boolean; forest: Forest } | null>(null);
  if (data) kept.current = { flat, forest: data };
  const forest = data ?? (kept.current?.flat === flat ? kept.current.forest : null);

  // At first everything is open that the server told at once, before anyone sees or walks a closed tree.
  const opened = useRef(false);
  useLayoutEffect(() => {
    if (!data || flat || opened.current) return;
    opened.current = true;
    setOpen(new Set([...data.children.keys()].filter((id) => id !== null)));
  }, [data, flat]);
  // A crash is worth asking at once.
  useEffect(() => {
    if (feed.flashes.size > 0) again();
  }, [feed.flashes, again]);

  const toggle = useCallback(
    (id: number, to: boolean) => {
      setOpen((before) => {
        const next = new Set(before);
        if (to) next.add(id);
        else next.delete(id);
        return next;
      });
      const known = forest?.children.get(id)?.length ?? 0;
      const all = forest?.actors.get(id)?.children ?? 0;
      setWanted((before) => {
        if (to && known < all && !before.has(id)) return new Map(before).set(id, STEP);
        if (to || !before.has(id)) return before;
        const next = new Map(before);
        next.delete(id);
        return next;
      });
    },
    [forest],
  );
  const more = useCallback((parent: number) => {
    setWanted((before) => {
      const next = Math.min(SHOWN_MAX, (before.get(parent) ?? 0) * 4 || STEP);
      return new Map(before).set(parent, next);
    });
  }, []);

  const flashes = useFlashes(feed, data);
  const chosen = useChosen(place.subject, setProblem);
  const choose = useCallback((id: number) => {
    location.hash = link('actors', id);
  }, []);
  return (
    <>
      <h1>Actors</h1>
      <form class="line filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Search label="Find an actor" value={q} change={setQ} />
        <Choice label="Order" choices={SORTS} chosen={sort} choose={setSort} />
      </form>
      {forest && <Census forest={forest} />}
      {problem !== null && <Notice tone="bad">{problem}</Notice>}
      <div class={chosen === null ? 'split' : 'split two'}>
        {forest ? (
          <TreeList
            forest={forest}
            open={open}
            chosen={chosen}
            flashes={flashes}
            flat={flat}
            toggle={toggle}
            choose={choose}
            more={more}
          />
        ) : (
          <Waiting error={error} />
        )}
        {chosen !== null && (
          <ActorPanel
            key={chosen}
            id={chosen}
            feed={feed}
            changed={again}
            close={() => {
              location.hash = link('actors');
            }}
          />
        )}
      </div>
    </>
  );
}

/** Who flashes: those the node told of, and those seen to be of a later generation than before. */
function useFlashes(feed: Feed, forest: Forest | null): ReadonlyMap<number, number> {
  const before = useRef(NO_FOREST);
  const [seen, setSeen] = useState<ReadonlyMap<number, number>>(new Map());
  useEffect(() => {
    if (!forest) return;
    const found = reborn(before.current, forest);
    before.current = forest;
    if (found.length > 0) setSeen(new Map(found.map((id) => [id, Date.now()])));
  }, [forest]);
  return useMemo(() => new Map([...seen, ...feed.flashes]), [seen, feed.flashes]);
}

/** The actor the address names: by id, or by the user whose it is. */
function useChosen(subject: string | null, tell: (problem: string | null) => void): number | null {
  const [found, setFound] = useState<{ subject: string; id: number } | null>(null);
  useEffect(() => {
    tell(null);
    const user = subject === null ? null : userOf(subject);
    if (subject === null || user === null) return;
    const abort = new AbortController();
    get<Actor>(`/users/${encodeURIComponent(user)}/actor`, abort.signal).then(
      (actor) => setFound({ subject, id: actor.id }),
      (failure: unknown) => {
        if (!abort.signal.aborted) tell(explain(failure));
      },
    );
    return () => abort.abort();
  }, [subject, tell]);
  if (subject === null) return null;
  if (/^\d+$/.test(subject)) return Number(subject);
  return found?.subject === subject ? found.id : null;
}

const MEANINGS = {
  well: 'well',
  busy: 'a quarter of the inbox full',
  restarted: 'restarted before',
  pressed: 'inbox nearly full',
  failing: 'down',
} as const;

/** How many are how sick, which is the key to the colours as well. */
function Census({ forest }: { forest: Forest }) {
  const counts = useMemo(() => {
    const counts = new Map<string, number>();
    for (const actor of forest.actors.values()) {
      const state = health(actor);
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
    return counts;
  }, [forest]);
  return (
    <ul class="census" aria-label="Health of the actors shown">
      {HEALTHS.map((state) => (
        <li key={state}>
          <span class={`dot ${state}`} aria-hidden="true" /> {MEANINGS[state]} <Badge>{count(counts.get(state) ?? 0)}</Badge>
        </li>
      ))}
    </ul>
  );
}
