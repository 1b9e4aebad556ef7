// One actor, beside the tree: how it does, what it holds, why it crashed; restart or stop it and watch.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { Action } from '../actions';
import { get, post } from '../api';
import { Chart } from '../chart';
import { actorOf, type Feed } from '../events';
import { count, duration, millis, moment } from '../format';
import { usePolled } from '../hooks';
import { link } from '../router';
import { health } from '../tree';
import type { ActorAnswer, Crash } from '../types';
import { Badge, Facts, Notice, Waiting, type Tone } from '../ui';
import { Recent } from './overview';

const TONES: Record<ReturnType<typeof health>, Tone> = {
  well: 'good',
  busy: 'info',
  restarted: 'warn',
  pressed: 'warn',
  failing: 'bad',
};

/** The user in an address like `user:bob`. */
export const userOf = (subject: string) => (subject.startsWith('user:') ? subject.slice('user:'.length) : null);

interface Props {
  id: number;
  feed: Feed;
  changed: () => void;
  close: () => void;
}

/** Samples kept while the panel is open. */
const KEPT_MAX = 300;

interface Kept {
  at: number[];
  depth: number[];
}

export function ActorPanel({ id, feed, changed, close }: Props) {
  const [kept, setKept] = useState<Kept>({ at: [], depth: [] });
  const ask = useCallback(
    async (signal: AbortSignal) => {
      const actor = await get<ActorAnswer>(`/actors/${id}`, signal);
      setKept((before) => ({
        at: [...before.at, Date.now()].slice(-KEPT_MAX),
        depth: [...before.depth, actor.depth].slice(-KEPT_MAX),
      }));
      return actor;
    },
    [id],
  );
  const { data, error, again } = usePolled(ask, 1_000);
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus({ preventScroll: matchMedia('(min-width: 70rem)').matches }), []);
  const act = async (what: 'restart' | 'stop', reason: string) => {
    await post(`/actors/${id}/${what}`, reason === '' ? {} : { reason });
    again();
    changed();
    return `${data?.name ?? 'The actor'} was told to ${what}.`;
  };
  return (
    <aside
      class="panel"
      aria-labelledby="actor"
      // One in a window above it closes the window.
      onKeyDown={(event) => event.key === 'Escape' && !(event.target as Element).closest('dialog') && close()}
    >
      <header>
        <h2 id="actor" ref={heading} tabIndex={-1}>
          {data?.name ?? `Actor ${id}`}
        </h2>
        <button type="button" class="quiet" aria-label="Close" onClick={close}>
          ✕
        </button>
      </header>
      {error !== null && data && <Notice tone="warn">{error}</Notice>}
      {data ? <Body actor={data} kept={kept} feed={feed} act={act} /> : <Waiting error={error} />}
    </aside>
  );
}

interface BodyProps {
  actor: ActorAnswer;
  kept: Kept;
  feed: Feed;
  act: (what: 'restart' | 'stop', reason: string) => Promise<string>;
}

function Body({ actor, kept, feed, act }: BodyProps) {
  const state = health(actor);
  const supervisor = actor.kind === 'supervisor';
  return (
    <>
      <p class="line">
        <Badge tone={TONES[state]}>{state}</Badge>
        <Badge>{actor.phase}</Badge>
        <Badge>{actor.kind}</Badge>
        {actor.kind === 'session' && <a href={link('user', actor.name)}>user</a>}
      </p>
      {!supervisor && (
        <p class="buttons">
          <Action
            label="Restart"
            about={actor.name}
            needs="operator"
            confirm="Its state is thrown away and rebuilt from what is on disk; its inbox and its sockets stay. Let it crash?"
            reason="optional"
            run={(reason) => act('restart', reason)}
          />
          <Action
            label="Stop"
            about={actor.name}
            needs="operator"
            danger
            confirm="It ends, and what waits in its inbox with it. Whether it is started again is up to its supervisor."
            reason="optional"
            run={(reason) => act('stop', reason)}
          />
        </p>
      )}
      <Facts
        facts={[
          ['generation', actor.generation],
          ['restarts', count(actor.restarts)],
          ['running since', moment(actor.started_ms)],
          ['last exit', actor.last_exit ?? '–'],
          ...(supervisor
            ? [
                ['children', count(actor.children)] as const,
                ['strategy', actor.strategy ?? '–'] as const,
              ]
            : [
                ['inbox', `${count(actor.depth)} of ${count(actor.capacity)}, at most ${count(actor.depth_max)}`] as const,
                ['handled', `${count(actor.handled_count)}, ${count(actor.rate_per_s)}/s`] as const,
                ['empty in', actor.drain_ms === null ? '–' : duration(actor.drain_ms)] as const,
                ['senders waited', millis(actor.blocked_ms)] as const,
                ['thread', actor.arbiter ?? '–'] as const,
              ]),
        ]}
      />
      {!supervisor && (
        <Chart
          title="Inbox, while you watch"
          at={kept.at}
          step_ms={1_000}
          lines={[{ label: 'waiting', values: kept.depth }]}
          format={count}
        />
      )}
      {actor.last_crash && <LastCrash crash={actor.last_crash} />}
      {!supervisor && (
        <>
          <h3>State</h3>
          {actor.state == null ? (
            <p class="faint">{actor.state_missing ?? 'It tells nothing about its state.'}</p>
          ) : (
            <pre tabIndex={0} aria-label="State">
              {JSON.stringify(actor.state, null, 2)}
            </pre>
          )}
        </>
      )}
      <Recent feed={feed} about={(event) => actorOf(event) === actor.id} />
    </>
  );
}

function LastCrash({ crash }: { crash: Crash }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <h3>Last crash</h3>
      <Notice tone="bad">{crash.reason}</Notice>
      <Facts
        facts={[
          ['at', moment(crash.at_ms)],
          ['generation', crash.generation],
          ...(crash.message_type ? [['message', crash.message_type] as const] : []),
          ...(crash.location ? [['where', crash.location] as const] : []),
        ]}
      />
      <details onToggle={(event) => setOpen(event.currentTarget.open)}>
        <summary>Backtrace</summary>
        {open && <Backtrace number={crash.number} />}
      </details>
    </>
  );
}

function Backtrace({ number }: { number: number }) {
  const { data, error } = usePolled(
    useCallback((signal: AbortSignal) => get<{ backtrace: string | null }>(`/crashes/${number}`, signal), [number]),
    null,
  );
  if (!data) return <Waiting error={error} />;
  return (
    <pre tabIndex={0} aria-label="Backtrace">
      {data.backtrace ?? 'Not kept: there were too many crashes at a time.'}
    </pre>
  );
}
