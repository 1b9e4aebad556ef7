// One user: devices, connections, mailbox, limits, what happened to them lately, and what can be done.
import { useCallback } from 'preact/hooks';
import { Action, Opens } from '../actions';
import { get, part, patch, post, query, remove } from '../api';
import { actorOf, type Feed } from '../events';
import { bytes, count, figure, moment, words } from '../format';
import { usePolled } from '../hooks';
import { link, type Place } from '../router';
import type { Mailbox, UserAnswer, UserDevice } from '../types';
import { Badge, Facts, Table, Waiting, When, type Tone } from '../ui';
import { MailboxActions } from './mailbox-forms';
import { Recent } from './overview';
import { ServiceMessage } from './service-message';
import { IssueToken, RemoveUser, RevokeToken, SetLimits } from './user-forms';
import { UserState } from './users';

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
  const { data, error, again } = usePolled(
    useCallback((signal: AbortSignal) => get<UserAnswer>(path, signal), [path]),
    2_000,
  );
  if (!data) {
    return (
      <>
        <h1>{name}</h1>
        <Waiting error={error} />
      </>
    );
  }
  return (
    <>
      <p class="crumbs">
        <a href={link('users')}>Users</a>
      </p>
      <div class="line">
        <h1>{name}</h1>
        <UserState user={data} />
        <UserActions user={data} changed={again} />
      </div>
      <Devices user={data} changed={again} />
      <Tokens user={name} changed={again} />
      <section aria-labelledby="limits">
        <div class="line">
          <h2 id="limits">Limits</h2>
          <span class="buttons">
            <Opens label="Set limits…" about={`of ${name}`} needs="admin">
              {(close) => <SetLimits user={name} limits={data.limits ?? null} close={close} done={again} />}
            </Opens>
          </span>
        </div>
        {data.limits ? (
          <Facts
            facts={Object.entries(data.limits).map(
              ([key, value]) => [words(key), value === null ? 'as for everybody' : figure(key, value)] as const,
            )}
          />
        ) : (
          <p class="faint">As for everybody.</p>
        )}
      </section>
      <MailboxPart user={name} stats={data.mailbox} changed={again} />
      <Recent
        feed={feed}
        about={(event) => event.data.user === name || (event.data.name === name && actorOf(event) !== null)}
      />
    </>
  );
}

interface PartProps {
  user: UserAnswer;
  changed: () => void;
}

async function disconnect(user: string, changed: () => void, device?: string): Promise<string> {
  const body = device === undefined ? {} : { device };
  const { disconnected } = await post<{ disconnected: number }>(`/users/${part(user)}/disconnect`, body);
  changed();
  return `${disconnected} connections of ${device ?? user} closed.`;
}

function UserActions({ user: { user, disabled, connected, mailbox }, changed }: PartProps) {
  const turn = async (to: boolean) => {
    await patch(`/users/${part(user)}`, { disabled: to });
    changed();
    return `${user} is ${to ? 'disabled' : 'enabled'}.`;
  };
  return (
    <span class="buttons">
      <Action label="Disconnect" needs="operator" disabled={!connected} run={() => disconnect(user, changed)} />
      {disabled ? (
        <Action label="Enable" needs="operator" run={() => turn(false)} />
      ) : (
        <Action
          label="Disable"
          needs="operator"
          danger
          confirm={`${user} is disconnected and cannot sign in until enabled again. Messages to ${user} are kept.`}
          run={() => turn(true)}
        />
      )}
      <Opens label="Service message…" about={`to ${user}`} needs="operator">
        {(close) => <ServiceMessage user={user} close={close} />}
      </Opens>
      <Opens label="Remove…" about={user} needs="admin" danger>
        {(close) => <RemoveUser user={user} waiting={mailbox.messages ?? 0} close={close} />}
      </Opens>
      <a class="button" href={link('actors', `user:${user}`)}>
        Actor
      </a>
    </span>
  );
}

function Devices({ user: { user, devices, connections }, changed }: PartProps) {
  const open = new Map(connections?.map((connection) => [connection.device, connection]));
  return (
    <section aria-labelledby="devices">
      <h2 id="devices">Devices</h2>
      <Table<UserDevice>
        caption="Devices"
        columns={[
          { head: 'Device', header: true, cell: ({ device }) => device },
          { head: 'State', cell: ({ connected }) => (connected ? 'connected' : 'away') },
          {
            head: 'Since',
            cell: ({ device, last_seen_ms }) => <When at={open.get(device)?.since_ms ?? last_seen_ms} />,
          },
          { head: 'Waiting', number: true, cell: ({ pending }) => count(pending) },
          { head: 'Cursor', number: true, cell: ({ cursor }) => cursor },
          { head: 'Peer', cell: ({ device }) => open.get(device)?.peer ?? '–' },
          {
            head: 'Actions',
            cell: ({ device, connected }) => (
              <span class="buttons">
                <Action
                  label="Disconnect"
                  about={device}
                  needs="operator"
                  disabled={!connected}
                  run={() => disconnect(user, changed, device)}
                />
                <Action
                  label="Remove"
                  about={device}
                  needs="operator"
                  danger
                  confirm={`Messages no longer wait for ${device}. If it comes back it begins anew, with what comes from then on.`}
                  run={async () => {
                    await remove(`/users/${part(user)}/devices/${part(device)}`);
                    changed();
                    return `${device} is removed.`;
                  }}
                />
              </span>
            ),
          },
        ]}
        rows={devices}
        name={({ device }) => device}
        empty={`${user} has never signed in.`}
      />
    </section>
  );
}

interface UserToken {
  id: string;
  /** `null`: any. */
  device: string | null;
  issued_ms: number;
  expires_ms: number;
  state: 'good' | 'revoked' | 'expired';
}

const TOKEN_TONES: Record<UserToken['state'], Tone> = { good: 'good', revoked: 'bad', expired: 'plain' };

function Tokens({ user, changed }: { user: string; changed: () => void }) {
  const { data, error, again } = usePolled(
    useCallback(
      (signal: AbortSignal) => get<{ tokens: UserToken[] }>(`/users/${part(user)}/tokens`, signal),
      [user],
    ),
    5_000,
  );
  const done = () => {
    again();
    changed();
  };
  return (
    <section aria-labelledby="tokens">
      <div class="line">
        <h2 id="tokens">Tokens</h2>
        <span class="buttons">
          <Opens label="Issue a token…" about={`to ${user}`} needs="admin">
            {(close) => <IssueToken user={user} close={close} done={done} />}
          </Opens>
          <Opens label="Revoke a token…" needs="operator" danger>
            {(close) => <RevokeToken close={close} done={done} />}
          </Opens>
          <Action
            label="Revoke all tokens"
            needs="operator"
            danger
            confirm={`All of ${user}’s tokens stop working now and cannot be had back.`}
            run={async () => {
              await remove(`/users/${part(user)}/tokens`);
              done();
              return `The tokens of ${user} are revoked.`;
            }}
          />
        </span>
      </div>
      {!data && <Waiting error={error} />}
      {data && (
        <Table
          caption="Tokens, newest first"
          columns={[
            { head: 'Id', header: true, cell: ({ id }) => <code>{id}</code> },
            { head: 'Device', cell: ({ device }) => device ?? 'any' },
            { head: 'State', cell: ({ state }) => <Badge tone={TOKEN_TONES[state]}>{state}</Badge> },
            { head: 'Issued', cell: ({ issued_ms }) => <When at={issued_ms} /> },
            { head: 'Good until', cell: ({ expires_ms }) => moment(expires_ms) },
            {
              head: 'Actions',
              cell: ({ id, state }) => (
                <Action
                  label="Revoke"
                  about={id}
                  needs="operator"
                  danger
                  disabled={state !== 'good'}
                  confirm="It stops working now, and connections made with it are closed."
                  run={async () => {
                    await remove(`/tokens/${part(id)}`);
                    done();
                    return `The token ${id} is revoked.`;
                  }}
                />
              ),
            },
          ]}
          rows={data.tokens}
          name={({ id }) => id}
          empty="None is remembered."
        />
      )}
    </section>
  );
}

interface MailboxProps {
  user: string;
  stats: Record<string, number>;
  changed: () => void;
}

function MailboxPart({ user, stats, changed }: MailboxProps) {
  const path = `/users/${part(user)}/mailbox`;
  const mailbox = usePolled(
    useCallback((signal: AbortSignal) => get<Mailbox>(path, signal), [path]),
    5_000,
  );
  const messages = usePolled(
    useCallback(
      (signal: AbortSignal) => get<{ messages: Message[] }>(`${path}/messages${query({ limit: MESSAGES_SHOWN })}`, signal),
      [path],
    ),
    5_000,
  );
  const again = () => {
    changed();
    mailbox.again();
    messages.again();
  };
  return (
    <section aria-labelledby="mailbox">
      <div class="line">
        <h2 id="mailbox">Mailbox</h2>
        <MailboxActions user={user} changed={again} />
      </div>
      <Facts
        facts={[
          ...Object.entries(stats).map(([name, value]) => [words(name), figure(name, value)] as const),
          ['oldest', moment(mailbox.data?.oldest_ms)],
        ]}
      />
      {messages.data && messages.data.messages.length > 0 && (
        <Table
          caption="Oldest messages waiting, without their bodies"
          columns={[
            { head: 'Seq', number: true, cell: ({ seq }) => seq },
            { head: 'From', cell: ({ from }) => sender(from) },
            { head: 'Accepted', cell: ({ ts_ms }) => moment(ts_ms) },
            { head: 'Expires', cell: ({ expires_ms }) => moment(expires_ms) },
            { head: 'Size', number: true, cell: ({ body_bytes }) => bytes(body_bytes) },
            { head: 'Id', cell: ({ id }) => <code>{id}</code> },
          ]}
          rows={messages.data.messages}
          name={({ seq }) => seq}
        />
      )}
    </section>
  );
}

function sender(from: unknown): string {
  if (typeof from === 'string') return from;
  const { user, device } = (from ?? {}) as { user?: string; device?: string };
  return [user, device].filter(Boolean).join('/');
}
