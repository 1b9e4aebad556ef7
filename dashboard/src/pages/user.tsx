// One user: devices, connections, mailbox, limits, what happened to them lately.
import { useCallback } from 'preact/hooks';
import { get, part, patch, post, query, remove } from '../api';
import { actorOf, type Feed } from '../events';
import { bytes, count, figure, moment, words } from '../format';
import { usePolled } from '../hooks';
import { link, type Place } from '../router';
import type { UserAnswer } from '../types';
import { Action, Facts, Table, Waiting, When } from '../ui';
import { Recent } from './overview';
import { UserState } from './users';

interface Mailbox {
  oldest_ms: number | null;
}

interface Message {
  seq: number;
  id: string;
  from: unknown;
  ts_ms: number;
  expires_ms: number | null;
  body_bytes: number;
}

const MESSAGES_SHOWN = 50;

export function UserPage({ place, feed }: { place: Place; feed: Feed }) {
  const name = place.subject ?? '';
  const path = `/users/${part(name)}`;
  const user = usePolled(
    useCallback((signal: AbortSignal) => get<UserAnswer>(path, signal), [path]),
    2_000,
  );
  if (!user.data) {
    return (
      <>
        <h1>{name}</h1>
        <Waiting error={user.error} />
      </>
    );
  }
  const { devices, disabled, connections, limits } = user.data;
  const disconnect = async (device?: string) => {
    const body = device === undefined ? {} : { device };
    const { disconnected } = await post<{ disconnected: number }>(`${path}/disconnect`, body);
    user.again();
    return `${disconnected} connections of ${device ?? name} closed.`;
  };
  const since = new Map(connections?.map((connection) => [connection.device, connection]));
  return (
    <>
      <p class="crumbs">
        <a href={link('users')}>Users</a>
      </p>
      <div class="line">
        <h1>{name}</h1>
        <UserState user={user.data} />
        <span class="buttons">
          <Action label="Disconnect" needs="operator" disabled={!user.data.connected} run={() => disconnect()} />
          {disabled ? (
            <Action
              label="Enable"
              needs="operator"
              run={async () => {
                await patch(path, { disabled: false });
                user.again();
                return `${name} is enabled.`;
              }}
            />
          ) : (
            <Action
              label="Disable"
              needs="operator"
              danger
              confirm={`${name} is disconnected and cannot sign in until enabled again. Messages to ${name} are kept.`}
              run={async () => {
                await patch(path, { disabled: true });
                user.again();
                return `${name} is disabled.`;
              }}
            />
          )}
          <Action
            label="Revoke all tokens"
            needs="operator"
            danger
            confirm={`All of ${name}’s tokens stop working now and cannot be had back.`}
            run={async () => {
              await remove(`${path}/tokens`);
              user.again();
              return `The tokens of ${name} are revoked.`;
            }}
          />
          <a class="button" href={link('actors', `user:${name}`)}>
            Actor
          </a>
        </span>
      </div>
      <h2>Devices</h2>
      <Table
        caption="Devices"
        head={['Device', 'State', 'Last seen', 'Waiting#', 'Cursor#', 'Peer', 'Actions']}
        empty={devices.length === 0 && `${name} has never signed in.`}
      >
        {devices.map((device) => (
          <tr key={device.device}>
            <th scope="row">{device.device}</th>
            <td>{device.connected ? 'connected' : 'away'}</td>
            <td>{device.connected ? 'now' : <When at={device.last_seen_ms} />}</td>
            <td class="number">{count(device.pending)}</td>
            <td class="number">{device.cursor}</td>
            <td>{since.get(device.device)?.peer ?? '–'}</td>
            <td>
              <Action
                label="Disconnect"
                about={device.device}
                needs="operator"
                disabled={!device.connected}
                run={() => disconnect(device.device)}
              />
            </td>
          </tr>
        ))}
      </Table>
      {limits && (
        <>
          <h2>Limits of their own</h2>
          <Facts facts={Object.entries(limits).map(([key, value]) => [words(key), figure(key, value)] as const)} />
        </>
      )}
      <MailboxPart path={path} stats={user.data.mailbox} />
      <Recent
        feed={feed}
        about={(event) => event.data.user === name || (event.data.name === name && actorOf(event) !== null)}
      />
    </>
  );
}

function MailboxPart({ path, stats }: { path: string; stats: Record<string, number> }) {
  const mailbox = usePolled(
    useCallback((signal: AbortSignal) => get<Mailbox>(`${path}/mailbox`, signal), [path]),
    5_000,
  );
  const messages = usePolled(
    useCallback(
      (signal: AbortSignal) =>
        get<{ messages: Message[] }>(`${path}/mailbox/messages${query({ limit: MESSAGES_SHOWN })}`, signal),
      [path],
    ),
    5_000,
  );
  return (
    <section aria-labelledby="mailbox">
      <h2 id="mailbox">Mailbox</h2>
      <Facts
        facts={[
          ...Object.entries(stats).map(([name, value]) => [words(name), figure(name, value)] as const),
          ['oldest', moment(mailbox.data?.oldest_ms)],
        ]}
      />
      {messages.data && messages.data.messages.length > 0 && (
        <Table caption="Oldest messages waiting, without their bodies" head={['Seq#', 'From', 'Accepted', 'Expires', 'Size#', 'Id']}>
          {messages.data.messages.map((message) => (
            <tr key={message.seq}>
              <td class="number">{message.seq}</td>
              <td>{sender(message.from)}</td>
              <td>{moment(message.ts_ms)}</td>
              <td>{moment(message.expires_ms)}</td>
              <td class="number">{bytes(message.body_bytes)}</td>
              <td>
                <code>{message.id}</code>
              </td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}

function sender(from: unknown): string {
  if (typeof from === 'string') return from;
  const { user, device } = (from ?? {}) as { user?: string; device?: string };
  return [user, device].filter(Boolean).join('/');
}
