// All users: look for one, see who is connected or who is noisy, go on to their page.
import { useCallback, useState } from 'preact/hooks';
import { Action, Opens } from '../actions';
import { get, part, post, query } from '../api';
import { count, duration, millis } from '../format';
import { usePolled, useSettled } from '../hooks';
import { link } from '../router';
import type { Actor, User } from '../types';
import { Badge, Check, Choice, Pager, Search, Table, usePages, Waiting, When, type Column } from '../ui';
import { ServiceMessage } from './service-message';
import { CreateUser } from './user-forms';

const ORDERS = [
  ['name', 'By name'],
  ['busiest', 'Busiest now'],
] as const;

export function Users() {
  const [order, setOrder] = useState<(typeof ORDERS)[number][0]>('name');
  return (
    <>
      <div class="line">
        <h1>Users</h1>
        <span class="buttons">
          <Opens label="Create a user…" needs="admin">
            {(close) => <CreateUser close={close} />}
          </Opens>
          <Opens label="Service message…" needs="operator">
            {(close) => <ServiceMessage close={close} />}
          </Opens>
        </span>
      </div>
      <p class="line">
        <Choice label="Order" choices={ORDERS} chosen={order} choose={setOrder} />
      </p>
      {order === 'name' ? <ByName /> : <Busiest />}
    </>
  );
}

const userColumn = <T,>(name: (row: T) => string): Column<T> => ({
  head: 'User',
  header: true,
  cell: (row) => <a href={link('user', name(row))}>{name(row)}</a>,
});

const disconnectColumn = <T,>(name: (row: T) => string, away: (row: T) => boolean, then: () => void): Column<T> => ({
  head: 'Actions',
  cell: (row) => (
    <Action
      label="Disconnect"
      about={name(row)}
      needs="operator"
      disabled={away(row)}
      run={async () => {
        const { disconnected } = await post<{ disconnected: number }>(`/users/${part(name(row))}/disconnect`);
        then();
        return `${name(row)}: ${disconnected} connections closed.`;
      }}
    />
  ),
});

interface Answer {
  users: User[];
  next: string | null;
}

const PAGE = 100;

function ByName() {
  const [q, setQ] = useState('');
  const [connected, setConnected] = useState(false);
  const [disabled, setDisabled] = useState(false);
  const pages = usePages();
  const wanted = useSettled(q.trim().toLowerCase());
  const { after, reset } = pages;
  const ask = useCallback(
    (signal: AbortSignal) => {
      const filter = { q: wanted, connected: connected || null, disabled: disabled || null };
      return get<Answer>(`/users${query({ ...filter, after, limit: PAGE })}`, signal);
    },
    [wanted, connected, disabled, after],
  );
  const { data, error, again } = usePolled(ask, 5_000);
  const narrow =
    <T,>(set: (value: T) => void) =>
    (value: T) => {
      reset();
      set(value);
    };
  const nameOf = (user: User) => user.user;
  return (
    <>
      <form class="line filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Search label="Find a user" value={q} change={narrow(setQ)} />
        <Check label="connected" checked={connected} change={narrow(setConnected)} />
        <Check label="disabled" checked={disabled} change={narrow(setDisabled)} />
      </form>
      {data ? (
        <>
          <Table
            caption="Users"
            columns={[
              userColumn(nameOf),
              { head: 'State', cell: (user) => <UserState user={user} /> },
              { head: 'Created', cell: (user) => <When at={user.created_ms} /> },
              disconnectColumn(nameOf, (user) => user.connected === false, again),
            ]}
            rows={data.users}
            name={nameOf}
            empty="Nobody fits."
          />
          <Pager pages={pages} next={data.next} />
        </>
      ) : (
        <Waiting error={error} />
      )}
    </>
  );
}

/** Connected users whose sessions have most to do: who floods the node is the first of them. */
function Busiest() {
  const ask = useCallback(
    (signal: AbortSignal) =>
      get<{ actors: Actor[] }>(`/actors${query({ kind: 'session', sort: 'rate', limit: 50 })}`, signal),
    [],
  );
  const { data, error, again } = usePolled(ask, 3_000);
  const nameOf = (actor: Actor) => actor.name;
  return data ? (
    <>
      <p class="faint">
        What a session handles is what its user sends, gets and acknowledges. Limits of one user are set on their page.
      </p>
      <Table
        caption="Busiest users"
        columns={[
          userColumn(nameOf),
          { head: 'Handled', number: true, cell: (actor) => `${count(actor.rate_per_s)}/s` },
          { head: 'In all', number: true, cell: (actor) => count(actor.handled_count) },
          { head: 'Inbox', number: true, cell: (actor) => count(actor.depth) },
          { head: 'Senders waited', number: true, cell: (actor) => millis(actor.blocked_ms) },
          { head: 'Since', cell: (actor) => duration(Date.now() - actor.started_ms) },
          disconnectColumn(nameOf, () => false, again),
        ]}
        rows={data.actors}
        name={(actor) => actor.id}
        empty="Nobody is connected."
      />
    </>
  ) : (
    <Waiting error={error} />
  );
}

export function UserState({ user }: { user: User }) {
  return (
    <>
      {user.disabled && <Badge tone="bad">disabled</Badge>}
      {user.connected === true && <Badge tone="good">connected</Badge>}
      {user.connected === false && !user.disabled && <Badge>away</Badge>}
      {user.connected === undefined && !user.disabled && <Badge>enabled</Badge>}
    </>
  );
}
