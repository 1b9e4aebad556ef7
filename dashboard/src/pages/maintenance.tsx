// Taking the node out of service and back, and backups, both with their progress.
import { useCallback, useId, useState } from 'preact/hooks';
import { Action } from '../actions';
import { get, post } from '../api';
import { bytes, count, duration, figure, label } from '../format';
import { useNow, usePolled } from '../hooks';
import type { Backup, Drain } from '../types';
import { Badge, Facts, Notice, Table, Waiting, When, type Tone } from '../ui';

export function Maintenance() {
  return (
    <>
      <h1>Maintenance</h1>
      <Draining />
      <Backups />
      <Storage />
    </>
  );
}

const STATES: Record<Drain['state'], { tone: Tone; text: string }> = {
  serving: { tone: 'good', text: 'The node serves.' },
  draining: { tone: 'warn', text: 'No new connections are taken; those there are asked to move.' },
  drained: { tone: 'info', text: 'Nobody is connected any more. The node can be stopped.' },
};

function Draining() {
  const { data, error, again } = usePolled(
    useCallback((signal: AbortSignal) => get<Drain>('/node/drain', signal), []),
    1_000,
  );
  const [most, setMost] = useState(0);
  if (data && data.state !== 'serving' && data.connections_left > most) setMost(data.connections_left);
  if (data?.state === 'serving' && most !== 0) setMost(0);
  return (
    <section aria-labelledby="drain">
      <h2 id="drain">Drain</h2>
      {data ? (
        <>
          <Notice tone={STATES[data.state].tone}>
            <b>{data.state}</b>: {STATES[data.state].text} {count(data.connections_left)} connections.
          </Notice>
          {data.state === 'draining' && (
            <progress aria-label="Connections gone" max={Math.max(1, most)} value={most - data.connections_left} />
          )}
          <p class="buttons">
            <Action
              label="Drain"
              needs="operator"
              danger
              disabled={data.state !== 'serving'}
              confirm="Every client is asked to go elsewhere and come back later; no new connections are taken until you undrain."
              run={async () => {
                await post('/node/drain');
                again();
                return 'The node is draining.';
              }}
            />
            <Action
              label="Undrain"
              needs="operator"
              disabled={data.state === 'serving'}
              run={async () => {
                await post('/node/undrain');
                again();
                return 'The node serves again.';
              }}
            />
          </p>
        </>
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}

const TONES: Record<Backup['state'], Tone> = { running: 'info', done: 'good', failed: 'bad', interrupted: 'bad' };

function took({ state, started_ms, finished_ms }: Backup, now: number): string {
  const end = finished_ms ?? (state === 'running' ? now : null);
  return duration(started_ms === null || end === null ? null : end - started_ms);
}

function Backups() {
  const [quick, setQuick] = useState(false);
  const { data, error, again } = usePolled(
    useCallback((signal: AbortSignal) => get<{ backups: Backup[] }>('/node/backups', signal), []),
    quick ? 1_000 : 5_000,
  );
  const now = useNow();
  const [name, setName] = useState('');
  const id = useId();
  const running = data?.backups.some((backup) => backup.state === 'running') ?? false;
  if (running !== quick) setQuick(running);
  const proposed = `backup-${new Date(now).toISOString().slice(0, 16).replaceAll(/[-:]/g, '').replace('T', '-')}`;
  return (
    <section aria-labelledby="backups">
      <h2 id="backups">Backups</h2>
      <p class="faint">
        Files in <code>backups</code> of the data directory. <code>stonechat restore</code> makes a new data directory of
        one; copy them to another machine.
      </p>
      <p class="line">
        <label for={id}>Name</label>
        <input
          id={id}
          value={name}
          placeholder={proposed}
          pattern="[A-Za-z0-9._\-]+"
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <Action
          label="Back up now"
          needs="admin"
          disabled={running}
          run={async () => {
            await post('/node/backups', { name: name.trim() === '' ? proposed : name.trim() });
            setName('');
            again();
            return 'The backup has begun. The node goes on serving.';
          }}
        />
      </p>
      {data ? (
        <Table
          caption="Backups"
          columns={[
            { head: 'Name', header: true, cell: (backup) => backup.name },
            {
              head: 'State',
              cell: (backup) => (
                <>
                  <Badge tone={TONES[backup.state]}>{backup.state}</Badge> {backup.error}
                  {backup.state === 'running' && <progress aria-label={`Backup ${backup.name}`} />}
                </>
              ),
            },
            { head: 'Finished', cell: (backup) => <When at={backup.finished_ms} /> },
            { head: 'Took', cell: (backup) => took(backup, now) },
            { head: 'Messages', number: true, cell: (backup) => count(backup.messages_count) },
            { head: 'Size', number: true, cell: (backup) => bytes(backup.bytes) },
          ]}
          rows={data.backups}
          name={(backup) => backup.name}
          empty="There are none in the data directory."
        />
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}

function Storage() {
  const { data, error } = usePolled(
    useCallback((signal: AbortSignal) => get<Record<string, unknown>>('/node/storage', signal), []),
    5_000,
  );
  return (
    <section aria-labelledby="storage">
      <h2 id="storage">Storage</h2>
      {data ? (
        <Facts facts={Object.entries(data).map(([name, value]) => [label(name), figure(name, value)] as const)} />
      ) : (
        <Waiting error={error} />
      )}
    </section>
  );
}
