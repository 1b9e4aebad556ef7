// All users: look for one, see who is connected, go on to their page.
import { useCallback, useState } from 'preact/hooks';
import { get, post, query } from '../api';
import { usePolled, useSettled } from '../hooks';
import { link } from '../router';
import type { User } from '../types';
import { Action, Badge, Search, Table, Waiting, When } from '../ui';

interface Answer {
  users: User[];
  next: string | null;
}

const PAGE = 100;

export function Users() {
  const [q, setQ] = useState('');
  const [connected, setConnected] = useState(false);
  const [disabled, setDisabled] = useState(false);
  /** Where each page looked at so far started. */
  const [starts, setStarts] = useState<string[]>([]);
  const wanted = useSettled(q.trim().toLowerCase());
  const after = starts.at(-1);
  const ask = useCallback(
    (signal: AbortSignal) => {
      const filter = { q: wanted, connected: connected || null, disabled: disabled || null };
      return get<Answer>(`/users${query({ ...filter, after, limit: PAGE })}`, signal);
    },
    [wanted, connected, disabled, after],
  );
  const { data, error, again } = usePolled(ask, 5_000);
  const narrow = (then: () => void) => {
    setStarts([]);
    then();
  };
  return (
    <>
      <h1>Users</h1>
      <form class="line filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Search label="Find a user" value={q} change={(text) => narrow(() => setQ(text))} />
        <label class="check">
          <input
            type="checkbox"
            checked={connected}
            onChange={(event) => {
              const { checked } = event.currentTarget;
              narrow(() => setConnected(checked));
            }}
          />
          connected
        </label>
        <label class="check">
          <input
            type="checkbox"
            checked={disabled}
            onChange={(event) => {
              const { checked } = event.currentTarget;
              narrow(() => setDisabled(checked));
            }}
          />
          disabled
        </label>
      </form>
      {data ? (
        <>
          <Table
            caption="Users"
            head={['User', 'State', 'Created', 'Actions']}
            empty={data.users.length === 0 && 'Nobody fits.'}
          >
            {data.users.map((user) => (
              <tr key={user.user}>
                <th scope="row">
                  <a href={link('user', user.user)}>{user.user}</a>
                </th>
                <td>
                  <UserState user={user} />
                </td>
                <td>
                  <When at={user.created_ms} />
                </td>
                <td>
                  <Action
                    label="Disconnect"
                    about={user.user}
                    needs="operator"
                    disabled={user.connected === false}
                    run={async () => {
                      const { disconnected } = await post<{ disconnected: number }>(
                        `/users/${encodeURIComponent(user.user)}/disconnect`,
                      );
                      again();
                      return `${user.user}: ${disconnected} connections closed.`;
                    }}
                  />
                </td>
              </tr>
            ))}
          </Table>
          <p class="buttons">
            <button type="button" disabled={starts.length === 0} onClick={() => setStarts(starts.slice(0, -1))}>
              Previous
            </button>
            <button
              type="button"
              disabled={data.next === null}
              onClick={() => data.next !== null && setStarts([...starts, data.next])}
            >
              Next
            </button>
          </p>
        </>
      ) : (
        <Waiting error={error} />
      )}
    </>
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
