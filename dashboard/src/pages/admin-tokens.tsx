// Who may come in here: admin tokens, made, listed, revoked.
import { useCallback, useState } from 'preact/hooks';
import { Action, Opens } from '../actions';
import { get, part, post, query, remove, type Role } from '../api';
import { useAllowed } from '../context';
import { moment } from '../format';
import { FormDialog, SecretDialog, Select, TextField } from '../forms';
import { usePolled } from '../hooks';
import type { AdminToken } from '../types';
import { Badge, Check, Notice, Pager, Table, usePages, Waiting, When } from '../ui';

interface Answer {
  admin_tokens: AdminToken[];
  next: string | null;
}

export function AdminTokens() {
  const { allowed, hint } = useAllowed('admin');
  return (
    <>
      <h1>Admin tokens</h1>
      {allowed ? <Tokens /> : <Notice tone="info">{hint}</Notice>}
    </>
  );
}

function Tokens() {
  const pages = usePages();
  const [past, setPast] = useState(false);
  const { after } = pages;
  const { data, error, again } = usePolled(
    useCallback((signal: AbortSignal) => get<Answer>(`/admin-tokens${query({ after, limit: 100 })}`, signal), [after]),
    5_000,
  );
  return (
    <>
      <p class="faint">
        One for each person and program, so that the audit log tells them apart. The node keeps a hash: a token is shown
        once.
      </p>
      <p class="line">
        <Opens label="Issue a token…" needs="admin">
          {(close) => <Issue close={close} done={again} />}
        </Opens>
        <Check label="with those that are over" checked={past} change={setPast} />
      </p>
      {data ? (
        <>
          <Table
            caption="Admin tokens"
            columns={[
              { head: 'Name', header: true, cell: ({ name }) => name },
              { head: 'Role', cell: ({ role }) => role },
              { head: 'Scope', class: 'why', cell: ({ scope }) => scope?.join(', ') ?? 'all the role allows' },
              { head: 'State', cell: (token) => <State token={token} /> },
              { head: 'Made', cell: (token) => <When at={token.created_ms} /> },
              { head: 'Good until', cell: (token) => moment(token.expires_ms) },
              {
                head: 'Actions',
                cell: (token) => (
                  <Action
                    label="Revoke"
                    about={token.name}
                    needs="admin"
                    danger
                    disabled={!token.good}
                    confirm={`Whoever uses it is signed out at once, and cannot come back with it.`}
                    run={async () => {
                      await remove(`/admin-tokens/${part(token.id)}`);
                      again();
                      return `The token of ${token.name} is revoked.`;
                    }}
                  />
                ),
              },
            ]}
            rows={data.admin_tokens.filter((token) => past || token.good)}
            name={(token) => token.id}
            empty="None: only the secret in the data directory opens this node."
          />
          <Pager pages={pages} next={data.next} />
        </>
      ) : (
        <Waiting error={error} />
      )}
    </>
  );
}

function State({ token }: { token: AdminToken }) {
  if (token.good) return <Badge tone="good">good</Badge>;
  return token.revoked_ms === null ? <Badge>expired</Badge> : <Badge tone="bad">revoked</Badge>;
}

const ROLES = [
  ['viewer', 'viewer'],
  ['operator', 'operator'],
  ['admin', 'admin'],
] as const;

const ROLE_HINTS: Record<Role, string> = {
  viewer: 'Looks at everything but the bodies of messages.',
  operator: 'Besides: disconnect, disable, revoke, restart, drain, replay, discard.',
  admin: 'Everything: users, their tokens and limits, purges, backups, admin tokens.',
};

const DAY_S = 86_400;
const TIMES = [
  [String(DAY_S), '1 day'],
  [String(7 * DAY_S), '7 days'],
  [String(30 * DAY_S), '30 days'],
  [String(90 * DAY_S), '90 days'],
  [String(365 * DAY_S), '1 year'],
] as const;

interface Issued {
  name: string;
  token: string;
  expires_ms: number;
}

function Issue({ close, done }: { close: () => void; done: () => void }) {
  const [name, setName] = useState('');
  const [role, setRole] = useState<Role>('viewer');
  const [ttl_s, setTtl] = useState(TIMES[2][0]);
  const [scope, setScope] = useState<readonly string[]>([]);
  const [issued, setIssued] = useState<Issued | null>(null);
  if (issued) {
    return (
      <SecretDialog title={`A token for ${issued.name}`} secret={issued.token} close={close}>
        <p>Good until {moment(issued.expires_ms)}. To be used at sign-in here, or as a bearer token.</p>
      </SecretDialog>
    );
  }
  const submit = async () => {
    const wanted = { name: name.trim(), role, ttl_s: Number(ttl_s), ...(scope.length > 0 && { scope }) };
    setIssued(await post<Issued>('/admin-tokens', wanted));
    done();
    return undefined;
  };
  return (
    <FormDialog title="Issue an admin token" verb="Issue" close={close} submit={submit} unready={name.trim() === ''}>
      <TextField
        label="Name"
        hint="Who it is for, as the audit log will name them: letters, digits, . _ - @ +"
        value={name}
        change={setName}
        required
        maxLength={64}
        autofocus
      />
      <Select label="Role" hint={ROLE_HINTS[role]} value={role} choices={ROLES} change={setRole} />
      <Select label="Good for" value={ttl_s} choices={TIMES} change={setTtl} />
      <Scope chosen={scope} choose={setScope} />
    </FormDialog>
  );
}

interface Document {
  paths: Record<string, Record<string, { 'x-action'?: string }>>;
}

/** Groups of actions, by the node's own description of what it can be asked. */
async function groups(signal: AbortSignal): Promise<string[]> {
  const { paths } = await get<Document>('/openapi.json', signal);
  const actions = Object.values(paths).flatMap((path) => Object.values(path).map((one) => one['x-action'] ?? ''));
  return [...new Set(actions.map((action) => action.split('.')[0] ?? ''))].filter((group) => group !== '').sort();
}

function Scope({ chosen, choose }: { chosen: readonly string[]; choose: (groups: readonly string[]) => void }) {
  const { data, error } = usePolled(groups, null);
  return (
    <fieldset>
      <legend>Only for</legend>
      <small>None chosen: all that the role allows.</small>
      {data ? (
        <div class="checks">
          {data.map((group) => (
            <Check
              key={group}
              label={<code>{group}</code>}
              checked={chosen.includes(group)}
              change={(checked) => choose(checked ? [...chosen, group] : chosen.filter((one) => one !== group))}
            />
          ))}
        </div>
      ) : (
        <Waiting error={error} />
      )}
    </fieldset>
  );
}
