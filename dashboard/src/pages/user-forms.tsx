// Forms about one user: create, limits, tokens, removal.
import { useCallback, useState } from 'preact/hooks';
import { create, get, part, patch, post, remove } from '../api';
import { bytes, count, moment } from '../format';
import { FormDialog, NumberField, SecretDialog, Select, TextField, TypeToConfirm } from '../forms';
import { usePolled } from '../hooks';
import { link } from '../router';
import type { ConfigEntry, UserLimits } from '../types';
import { Check } from '../ui';

interface Closes {
  close: () => void;
}

interface Issued {
  user: string;
  id: string;
  token: string;
  expires_ms: number;
}

const DAY_S = 86_400;

/** How long a token may be wanted for. */
const TIMES = [
  ['', 'as the node is set'],
  [String(DAY_S / 24), '1 hour'],
  [String(DAY_S), '1 day'],
  [String(7 * DAY_S), '7 days'],
  [String(30 * DAY_S), '30 days'],
  [String(365 * DAY_S), '1 year'],
] as const;
type Time = (typeof TIMES)[number][0];

const issue = async (user: string, device: string, time: Time): Promise<Issued> => {
  const wanted = { ...(device !== '' && { device }), ...(time !== '' && { ttl_s: Number(time) }) };
  const made = await post<Omit<Issued, 'user'>>(`/users/${part(user)}/tokens`, wanted);
  return { user, ...made };
};

function TokenShown({ issued, close }: Closes & { issued: Issued }) {
  return (
    <SecretDialog title={`A token for ${issued.user}`} secret={issued.token} close={close}>
      <p>
        For <a href={link('user', issued.user)}>{issued.user}</a>, good until {moment(issued.expires_ms)}. Its id, to revoke
        this one: <code>{issued.id}</code>
      </p>
    </SecretDialog>
  );
}

function TokenFields(props: { device: string; setDevice: (text: string) => void; time: Time; setTime: (time: Time) => void }) {
  return (
    <>
      <TextField
        label="Device"
        hint="The only one the token is good for. Empty: any."
        value={props.device}
        change={props.setDevice}
        maxLength={64}
      />
      <Select label="Good for" value={props.time} choices={TIMES} change={props.setTime} />
    </>
  );
}

/** A new user, and if wanted the token to begin with. */
export function CreateUser({ close }: Closes) {
  const [name, setName] = useState('');
  const [withToken, setWithToken] = useState(true);
  const [device, setDevice] = useState('');
  const [time, setTime] = useState<Time>('');
  /** Whom this form has created; what came after that may have failed. */
  const [made, setMade] = useState<string | null>(null);
  const [issued, setIssued] = useState<Issued | null>(null);
  if (issued) return <TokenShown issued={issued} close={close} />;
  const submit = async () => {
    const user = name.trim();
    if (made !== user) {
      // Whoever is there already has tokens: another one is issued on their page, not by a slip here.
      if (!(await create('/users', { user }))) throw new Error(`There is a user ${user} already. Nothing was changed.`);
      setMade(user);
    }
    if (!withToken) return `${user} is created.`;
    setIssued(await issue(user, device.trim(), time));
    return undefined;
  };
  return (
    <FormDialog title="Create a user" verb="Create" close={close} submit={submit} unready={name.trim() === ''}>
      <TextField label="Name" value={name} change={setName} required maxLength={64} autofocus />
      <Check label="with a token to sign in with" checked={withToken} change={setWithToken} />
      {withToken && <TokenFields device={device} setDevice={setDevice} time={time} setTime={setTime} />}
      {made !== null && <p>{made} is created; the token is still to come.</p>}
    </FormDialog>
  );
}

/** One more token for a user. */
export function IssueToken({ user, close, done }: Closes & { user: string; done: () => void }) {
  const [device, setDevice] = useState('');
  const [time, setTime] = useState<Time>('');
  const [issued, setIssued] = useState<Issued | null>(null);
  if (issued) return <TokenShown issued={issued} close={close} />;
  const submit = async () => {
    setIssued(await issue(user, device.trim(), time));
    done();
    return undefined;
  };
  return (
    <FormDialog title={`Issue a token to ${user}`} verb="Issue" close={close} submit={submit}>
      <TokenFields device={device} setDevice={setDevice} time={time} setTime={setTime} />
    </FormDialog>
  );
}

/** One token, by the id that was told when it was issued. */
export function RevokeToken({ close, done }: Closes & { done: () => void }) {
  const [id, setId] = useState('');
  const submit = async () => {
    await remove(`/tokens/${part(id.trim())}`);
    done();
    return `The token ${id.trim()} is revoked.`;
  };
  return (
    <FormDialog title="Revoke one token" verb="Revoke" danger close={close} submit={submit} unready={id.trim() === ''}>
      <TextField
        label="Id of the token"
        hint="Told when it was issued, and part of what the log says of it. Connections made with it are closed."
        value={id}
        change={setId}
        required
        autofocus
      />
    </FormDialog>
  );
}

/** A limit, the setting that holds for those who have none of their own, and how it is read. */
const LIMITS: readonly {
  name: keyof UserLimits;
  label: string;
  key: string;
  min: number;
  read: (value: number) => string;
}[] = [
  { name: 'messages_per_s', label: 'Messages sent a second', key: 'limits.messages_per_s', min: 1, read: count },
  { name: 'mailbox_messages_max', label: 'Messages in the mailbox', key: 'storage.quota_messages', min: 0, read: count },
  { name: 'mailbox_bytes_max', label: 'Bytes in the mailbox', key: 'storage.quota_bytes', min: 0, read: bytes },
];

interface LimitsProps extends Closes {
  user: string;
  limits: UserLimits | null;
  done: () => void;
}

/** What holds for one user instead of what holds for all. */
export function SetLimits({ user, limits, close, done }: LimitsProps) {
  const [given, setGiven] = useState<Record<string, string>>(() =>
    Object.fromEntries(LIMITS.map(({ name }) => [name, limits?.[name]?.toString() ?? ''])),
  );
  const config = usePolled(
    useCallback((signal: AbortSignal) => get<{ config: ConfigEntry[] }>('/node/config', signal), []),
    null,
  );
  const usual = (key: string) => {
    const value = config.data?.config.find((entry) => entry.key === key)?.value;
    return typeof value === 'number' ? value : null;
  };
  const submit = async () => {
    const set = LIMITS.map(({ name }) => [name, given[name] === '' ? null : Number(given[name])] as const);
    const none = set.every(([, value]) => value === null);
    await patch(`/users/${part(user)}`, { limits: none ? null : Object.fromEntries(set) });
    done();
    return none ? `${user} has the limits of everybody.` : `The limits of ${user} hold from now on.`;
  };
  return (
    <FormDialog title={`Limits of ${user}`} verb="Set" close={close} submit={submit}>
      <p>An empty field: as for everybody. They hold at once, and over restarts.</p>
      {LIMITS.map(({ name, label, key, min, read }, place) => {
        const everybody = usual(key);
        const value = given[name] ?? '';
        return (
          <NumberField
            key={name}
            label={label}
            hint={
              <>
                {value !== '' && name === 'mailbox_bytes_max' && `${bytes(Number(value))}. `}
                For everybody: {everybody === null ? '–' : read(everybody)}.
              </>
            }
            min={min}
            value={value}
            change={(text) => setGiven({ ...given, [name]: text })}
            autofocus={place === 0}
          />
        );
      })}
      <p>
        <button
          type="button"
          disabled={Object.values(given).every((text) => text === '')}
          onClick={() => setGiven(Object.fromEntries(LIMITS.map(({ name }) => [name, ''])))}
        >
          Clear all
        </button>
      </p>
    </FormDialog>
  );
}

/** The end of an account. */
export function RemoveUser({ user, waiting, close }: Closes & { user: string; waiting: number }) {
  const [typed, setTyped] = useState('');
  const submit = async () => {
    await remove(`/users/${part(user)}`);
    location.hash = link('users');
    return `${user} is removed.`;
  };
  return (
    <FormDialog title={`Remove ${user}`} verb="Remove" danger close={close} submit={submit} unready={typed !== user}>
      <p>
        The account, its devices and tokens, and {count(waiting)} messages that wait in its mailbox are gone for good. To
        keep {user} out for a while, disable the account instead.
      </p>
      <TypeToConfirm name={user} value={typed} change={setTyped} />
    </FormDialog>
  );
}
