// What the node runs with: build, limits and how near they are, log level, every setting in force.
import { useCallback, useId, useState } from 'preact/hooks';
import { get, put } from '../api';
import { count, duration, figure, label, moment, percent, words } from '../format';
import { usePolled } from '../hooks';
import type { ConfigEntry, Limit, NodeAnswer } from '../types';
import { Action, Badge, Facts, Gauge, Search, Table, Waiting } from '../ui';

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
        <Table caption="Limits" head={['Limit', 'Used#', 'At most#', 'Share#', '']}>
          {data.limits.map((limit) => (
            <tr key={limit.name}>
              <th scope="row">{limit.name.includes('.') ? <code>{limit.name}</code> : label(limit.name)}</th>
              <td class="number">{limit.used === null ? '–' : figure(limit.name, limit.used)}</td>
              <td class="number">{limit.max === null ? '–' : figure(limit.name, limit.max)}</td>
              <td class="number">{percent(limit.share)}</td>
              <td>
                <Gauge share={limit.share} label={words(limit.name)} />
              </td>
            </tr>
          ))}
        </Table>
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}

function LogFilter() {
  const { data, error, again } = usePolled(
    useCallback((signal: AbortSignal) => get<{ filter: string }>('/node/log', signal), []),
    null,
  );
  const [wanted, setWanted] = useState<string | null>(null);
  const id = useId();
  return (
    <section aria-labelledby="log">
      <h2 id="log">Log filter</h2>
      {data ? (
        <p class="line">
          <label for={id} class="hidden">
            Log filter
          </label>
          <input
            id={id}
            class="wide"
            spellcheck={false}
            value={wanted ?? data.filter}
            onInput={(event) => setWanted(event.currentTarget.value)}
          />
          <Action
            label="Apply"
            about="log filter"
            needs="operator"
            disabled={wanted === null || wanted === data.filter}
            run={async () => {
              await put('/node/log', { filter: wanted });
              setWanted(null);
              again();
              return 'The log filter is in force until the next start.';
            }}
          />
        </p>
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
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
        <Table caption="Settings in force" head={['Key', 'Value', 'Set by']} empty={shown.length === 0 && 'None fits.'}>
          {shown.map((entry) => (
            <tr key={entry.key}>
              <th scope="row">
                <code>{entry.key}</code>
              </th>
              <td>
                <code>{entry.masked ? '••••••' : typeof entry.value === 'string' ? entry.value : JSON.stringify(entry.value)}</code>
              </td>
              <td>{entry.source === 'default' ? 'default' : <Badge tone="info">{entry.source}</Badge>}</td>
            </tr>
          ))}
        </Table>
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}
