// Is the node well, how much does it do, what happened: at a glance.
import { useCallback, useMemo, useRef, useState } from 'preact/hooks';
import { get, query } from '../api';
import { Chart, type Line } from '../chart';
import { sentence, type Feed, type Happening } from '../events';
import { bytes, clock, count, duration, figure, label as named, millis, percent, words } from '../format';
import { usePolled } from '../hooks';
import { extend } from '../plot';
import { link } from '../router';
import type { HistoryAnswer, NodeAnswer } from '../types';
import { Badge, Check, Notice, Stat, Waiting, type Tone } from '../ui';

interface Picture {
  title: string;
  format: (value: number | null | undefined) => string;
  binary?: boolean;
  /** Label and series. */
  lines: readonly (readonly [string, string])[];
}

const rate = (value: number | null | undefined) => `${count(value)}/s`;
const cpu = (value: number | null | undefined) => `${count(value)}%`;

const PICTURES: readonly Picture[] = [
  {
    title: 'Messages',
    format: rate,
    lines: [
      ['received', 'received_per_s'],
      ['accepted', 'accepted_per_s'],
      ['delivered', 'delivered_per_s'],
    ],
  },
  {
    title: 'From a send to its “accepted”',
    format: millis,
    lines: [
      ['median', 'send_accepted_p50_ms'],
      ['99th percentile', 'send_accepted_p99_ms'],
    ],
  },
  {
    title: 'Said again, or refused',
    format: rate,
    lines: [
      ['redelivered', 'redelivered_per_s'],
      ['refused', 'refused_per_s'],
    ],
  },
  {
    title: 'Connected',
    format: count,
    lines: [
      ['users', 'users_count'],
      ['devices', 'devices_count'],
    ],
  },
  {
    title: 'Time of a commit’s data sync',
    format: millis,
    lines: [
      ['median', 'sync_p50_ms'],
      ['99th percentile', 'sync_p99_ms'],
    ],
  },
  {
    title: 'Messages in a commit',
    format: count,
    lines: [['mean', 'batch_messages']],
  },
  { title: 'Waiting in mailboxes', format: count, lines: [['messages', 'backlog_messages']] },
  { title: 'Processor, of one core', format: cpu, lines: [['used', 'cpu_percent']] },
  { title: 'Memory', format: bytes, binary: true, lines: [['resident', 'resident_bytes']] },
  { title: 'Descriptors', format: count, lines: [['open', 'descriptors_count']] },
  { title: 'Crashes', format: count, lines: [['in five seconds', 'crashes_count']] },
];

const STEP_MS = 5_000;
/** A limit of which so much is used is told where it is seen first. */
const NEAR_SHARE = 0.9;

export function Overview({ feed }: { feed: Feed }) {
  const node = usePolled(useCallback((signal: AbortSignal) => get<NodeAnswer>('/node', signal), []), 2_000);
  const known = useRef<HistoryAnswer | null>(null);
  // Only what is new is asked for; the hour is put together here.
  const ask = useCallback(async (signal: AbortSignal) => {
    const since_ms = known.current?.at_ms.at(-1) ?? 0;
    const news = await get<HistoryAnswer>(`/history${query({ since_ms })}`, signal);
    known.current = extend(known.current, news);
    return known.current;
  }, []);
  const history = usePolled(ask, STEP_MS);
  return (
    <>
      <h1>Overview</h1>
      {node.error !== null && <Notice tone="bad">{node.error}</Notice>}
      {node.data ? <Figures node={node.data} history={history.data} /> : <Waiting error={null} />}
      {history.data ? (
        history.data.at_ms.length > 0 ? (
          <Charts history={history.data} />
        ) : (
          <p class="faint">The first figures come a few seconds after the start.</p>
        )
      ) : (
        <Waiting error={history.error} />
      )}
      <Recent feed={feed} />
    </>
  );
}

function Figures({ node, history }: { node: NodeAnswer; history: HistoryAnswer | null }) {
  const last = (name: string) => history?.series[name]?.at(-1) ?? null;
  const descriptors = node.limits.find((limit) => limit.name === 'descriptors');
  const near = node.limits.filter((limit) => limit.share >= NEAR_SHARE);
  const crashes = (history?.series.crashes_count ?? []).reduce<number>((sum, one) => sum + (one ?? 0), 0);
  return (
    <>
      {node.unavailable !== null && (
        <Notice tone="bad">
          <b>No messages are accepted.</b> {node.unavailable}
        </Notice>
      )}
      {node.draining && (
        <Notice tone="warn">
          The node is draining: it takes no new connections. <a href={link('maintenance')}>Progress</a>
        </Notice>
      )}
      {near.length > 0 && (
        <Notice tone="warn">
          <b>Nearly at a limit:</b>{' '}
          {near
            .map(({ name, used, max, share }) => `${named(name)} ${figure(name, used)} of ${figure(name, max)} (${percent(share)})`)
            .join('; ')}
          . <a href={link('node')}>Limits</a>
        </Notice>
      )}
      <dl class="stats">
        <Stat name="Users connected" note={`${count(node.devices)} devices`}>
          {count(node.sessions)}
        </Stat>
        <Stat name="Accepted" note={`per second, of ${count(last('received_per_s'))} received`}>
          {count(last('accepted_per_s'))}
        </Stat>
        <Stat name="Send to accepted, p99" note={`p50 ${millis(last('send_accepted_p50_ms'))}`}>
          {millis(last('send_accepted_p99_ms'))}
        </Stat>
        <Stat name="Delivered" note={`per second; ${count(last('redelivered_per_s'))} said again`}>
          {count(last('delivered_per_s'))}
        </Stat>
        <Stat name="Waiting in mailboxes" note={bytes(node.store.bytes)}>
          <a href={link('mailboxes')}>{count(node.store.messages)}</a>
        </Stat>
        <Stat name="Data sync, p99" note={`p50 ${millis(last('sync_p50_ms'))}`}>
          {millis(last('sync_p99_ms'))}
        </Stat>
        <Stat name="Processor" note="of one core">
          {last('cpu_percent') === null ? '–' : cpu(last('cpu_percent'))}
        </Stat>
        <Stat name="Memory">{bytes(last('resident_bytes'))}</Stat>
        <Stat name="Descriptors" note={descriptors && `of ${count(descriptors.max)}`}>
          {count(descriptors?.used)}
        </Stat>
        <Stat name="Crashes" tone={crashes > 0 ? 'warn' : 'plain'} note={`last hour; ${count(node.panics)} since the start`}>
          {count(crashes)}
        </Stat>
        <Stat name="Dead letters" tone={(node.store.dead_letters ?? 0) > 0 ? 'warn' : 'plain'}>
          <a href={link('dead-letters')}>{count(node.store.dead_letters)}</a>
        </Stat>
        <Stat name="Up for" note={`version ${node.version}`}>
          {duration(node.uptime_s * 1_000)}
        </Stat>
      </dl>
    </>
  );
}

function Charts({ history }: { history: HistoryAnswer }) {
  const drawn = useMemo(
    () =>
      PICTURES.map((picture) => ({
        ...picture,
        lines: picture.lines.map(
          ([label, name]): Line => ({ label, values: history.series[name] ?? history.at_ms.map(() => null) }),
        ),
      })),
    [history],
  );
  return (
    <section aria-label="The last hour" class="charts">
      {drawn.map((picture) => (
        <Chart
          key={picture.title}
          title={picture.title}
          at={history.at_ms}
          step_ms={history.step_s * 1_000}
          lines={picture.lines}
          format={picture.format}
          binary={picture.binary === true}
        />
      ))}
    </section>
  );
}

const TONES: Partial<Record<Happening['kind'], Tone>> = {
  crash: 'bad',
  restart: 'warn',
  limit: 'warn',
  dead_letter: 'bad',
  security: 'warn',
  actor_ended: 'info',
};

const SHOWN_MAX = 40;

/** What happened lately. People who come and go are left out unless asked for: there are many. */
export function Recent({ feed, about }: { feed: Feed; about?: (event: Happening) => boolean }) {
  const [everything, setEverything] = useState(false);
  const shown = feed.events
    .filter((event) => about?.(event) ?? (everything || (event.kind !== 'connected' && event.kind !== 'disconnected')))
    .slice(0, SHOWN_MAX);
  return (
    <section aria-labelledby="recent">
      <div class="line">
        <h2 id="recent">Recent events</h2>
        {!about && (
          <Check label="with people who come and go" checked={everything} change={setEverything} />
        )}
        {feed.dropped_count > 0 && <Badge tone="warn">{feed.dropped_count} missed: this page was too slow</Badge>}
      </div>
      {shown.length === 0 ? (
        <p class="faint">Nothing so far.</p>
      ) : (
        <ol class="events" tabIndex={0} aria-labelledby="recent">
          {shown.map((event) => (
            <li key={`${event.id}-${event.at_ms}`}>
              <time>{clock(event.at_ms)}</time>
              <Badge tone={TONES[event.kind] ?? 'plain'}>{words(event.kind)}</Badge>
              <span>{sentence(event)}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}
