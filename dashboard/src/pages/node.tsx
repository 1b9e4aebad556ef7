// What the node runs with: build, limits and how near they are, log level, every setting in force.
import { useCallback, useId, useState } from 'preact/hooks';
import { Action } from '../actions';
import { get, put } from '../api';
import { count, duration, figure, label, moment, percent, words } from '../format';
import { useNow, usePolled } from '../hooks';
import type { ConfigEntry, Limit, NodeAnswer } from '../types';
import { Badge, Facts, Gauge, Notice, Search, Table, Waiting } from '../ui';

export function Node() {
  return (
    <>
      <h1>Configuration and limits</h1>
      <Build />
      <Limits />
      <LogFilter />
      <Configuration />
      <p>
        <a href="/admin/v1/docs">The admin API, as this node documents it</a>
      </p>
    </>
  );
}

function Build() {
  const { data, error } = usePolled(
    useCallback((signal: AbortSignal) => get<NodeAnswer>('/node', signal), []),
    10_000,
  );
  if (!data) return <Waiting error={error} />;
  const build = Object.entries(data.build ?? {}).filter(([, value]) => value !== null && value !== '');
  return (
    <Facts
      facts={[
        ...(data.build?.version === undefined ? [['version', data.version] as const] : []),
        ...build.map(([name, value]) => [words(name), value] as const),
        ['started', data.started_ms ? moment(data.started_ms) : '–'],
        ['up for', duration(data.uptime_s * 1_000)],
      ]}
    />
  );
}

function Limits() {
  const { data, error } = usePolled(
    useCallback((signal: AbortSignal) => get<{ limits: Limit[] }>('/node/limits', signal), []),
    3_000,
  );
  return (
    <section aria-labelledby="limits">
      <h2 id="limits">Limits</h2>
      {data ? (
        <Table
          caption="Limits"
          columns={[
            {
              head: 'Limit',
              header: true,
              cell: ({ name }) => (name.includes('.') ? <code>{name}</code> : label(name)),
            },
            { head: 'Used', number: true, cell: ({ name, used }) => figure(name, used) },
            { head: 'At most', number: true, cell: ({ name, max }) => figure(name, max) },
            { head: 'Share', number: true, cell: ({ share }) => percent(share) },
            { head: '', cell: ({ name, share }) => <Gauge share={share} label={words(name)} /> },
          ]}
          rows={data.limits}
          name={(limit) => limit.name}
        />
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}

interface Log {
  filter: string;
  /** What will be logged again by itself, and when. */
  back_to: string | null;
  back_ms: number | null;
}

const WHILES = [
  ['600', 'for 10 minutes'],
  ['3600', 'for 1 hour'],
  ['28800', 'for 8 hours'],
  ['', 'until the next start'],
] as const;

function LogFilter() {
  const { data, error, again } = usePolled(
    useCallback((signal: AbortSignal) => get<Log>('/node/log', signal), []),
    5_000,
  );
  const [wanted, setWanted] = useState<string | null>(null);
  const [for_s, setFor] = useState<(typeof WHILES)[number][0]>('600');
  const now = useNow();
  const [filter, time] = [useId(), useId()];
  return (
    <section aria-labelledby="log">
      <h2 id="log">Log filter</h2>
      {data ? (
        <>
          <p class="line">
            <label for={filter} class="hidden">
              Log filter
            </label>
            <input
              id={filter}
              class="wide"
              spellcheck={false}
              value={wanted ?? data.filter}
              onInput={(event) => setWanted(event.currentTarget.value)}
            />
            <label for={time} class="hidden">
              How long
            </label>
            <select
              id={time}
              value={for_s}
              onChange={(event) => setFor(event.currentTarget.value as typeof for_s)}
            >
              {WHILES.map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
            <Action
              label="Apply"
              about="log filter"
              needs="operator"
              disabled={wanted === null || wanted === data.filter}
              run={async () => {
                await put('/node/log', { filter: wanted, ...(for_s !== '' && { for_s: Number(for_s) }) });
                setWanted(null);
                again();
                return `The log filter is in force ${WHILES.find(([value]) => value === for_s)?.[1] ?? ''}.`;
              }}
            />
          </p>
          {data.back_to !== null && data.back_ms !== null && (
            <Notice tone="info">
              In {duration(data.back_ms - now)} it is <code>{data.back_to}</code> again.
            </Notice>
          )}
        </>
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}

function shownValue({ masked, value }: ConfigEntry): string {
  if (masked) return '••••••';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function Configuration() {
  const [q, setQ] = useState('');
  const { data, error } = usePolled(
    useCallback((signal: AbortSignal) => get<{ config: ConfigEntry[] }>('/node/config', signal), []),
    null,
  );
  const wanted = q.trim().toLowerCase();
  const shown = data?.config.filter((entry) => entry.key.includes(wanted) || entry.source.includes(wanted));
  return (
    <section aria-labelledby="settings">
      <div class="line">
        <h2 id="settings">Settings in force</h2>
        {shown && data && <span class="faint">{count(shown.length)} of {count(data.config.length)}</span>}
      </div>
      <div class="line filters">
        <Search label="Find a setting" value={q} change={setQ} />
      </div>
      {shown ? (
        <Table
          caption="Settings in force"
          columns={[
            { head: 'Key', header: true, cell: ({ key }) => <code>{key}</code> },
            { head: 'Value', cell: (entry) => <code>{shownValue(entry)}</code> },
            {
              head: 'Set by',
              cell: ({ source }) => (source === 'default' ? source : <Badge tone="info">{source}</Badge>),
            },
          ]}
          rows={shown}
          name={(entry) => entry.key}
          empty="None fits."
        />
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}
