// The mailboxes that hold most: the full one is the first of them.
import { useCallback, useState } from 'preact/hooks';
import { get, query } from '../api';
import { bytes, count, percent } from '../format';
import { usePolled } from '../hooks';
import { link } from '../router';
import type { ConfigEntry } from '../types';
import { Choice, Gauge, Table, Waiting, When } from '../ui';

interface FullMailbox {
  user: string;
  depth: number;
  bytes: number;
  oldest_ms: number | null;
}

const ORDERS = [
  ['depth', 'Most messages'],
  ['bytes', 'Most bytes'],
  ['oldest', 'Oldest message'],
] as const;

const SHOWN = 100;
/** The node counts anew every ten seconds. */
const EVERY_MS = 10_000;

/** What a mailbox may hold when its user has no limit of their own. */
interface Quota {
  messages: number;
  bytes: number;
}

function quotaOf(config: readonly ConfigEntry[]): Quota {
  const number = (key: string) => Number(config.find((entry) => entry.key === key)?.value ?? 0);
  return { messages: number('storage.quota_messages'), bytes: number('storage.quota_bytes') };
}

function fullness(mailbox: FullMailbox, quota: Quota | null): number | null {
  if (!quota || quota.messages === 0 || quota.bytes === 0) return null;
  return Math.max(mailbox.depth / quota.messages, mailbox.bytes / quota.bytes);
}

export function Mailboxes() {
  const [by, setBy] = useState<(typeof ORDERS)[number][0]>('depth');
  const { data, error } = usePolled(
    useCallback(
      (signal: AbortSignal) => get<{ mailboxes: FullMailbox[] }>(`/mailboxes/top${query({ by, limit: SHOWN })}`, signal),
      [by],
    ),
    EVERY_MS,
  );
  const config = usePolled(
    useCallback((signal: AbortSignal) => get<{ config: ConfigEntry[] }>('/node/config', signal), []),
    null,
  );
  const quota = config.data && quotaOf(config.data.config);
  return (
    <>
      <h1>Mailboxes</h1>
      <p class="faint">
        Those that hold most, counted every ten seconds. A full one refuses its senders with <code>mailbox_full</code>; its
        user&apos;s page tells which device has not fetched it, and has limits, export and purge.
      </p>
      <p class="line">
        <Choice label="Order" choices={ORDERS} chosen={by} choose={setBy} />
      </p>
      {data ? (
        <Table
          caption="Fullest mailboxes"
          columns={[
            { head: 'User', header: true, cell: ({ user }) => <a href={link('user', user)}>{user}</a> },
            { head: 'Messages', number: true, cell: ({ depth }) => count(depth) },
            { head: 'Size', number: true, cell: (mailbox) => bytes(mailbox.bytes) },
            { head: 'Oldest accepted', cell: ({ oldest_ms }) => <When at={oldest_ms} /> },
            {
              head: 'Of the limit for everybody',
              cell: (mailbox) => {
                const share = fullness(mailbox, quota);
                return (
                  <>
                    <Gauge share={share} label={`Mailbox of ${mailbox.user}`} /> {share !== null && percent(share)}
                  </>
                );
              },
            },
          ]}
          rows={data.mailboxes}
          name={({ user }) => user}
          empty="Nothing waits for anybody."
        />
      ) : (
        <Waiting error={error} />
      )}
    </>
  );
}
