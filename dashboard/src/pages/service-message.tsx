// A message from the service itself: written, looked at with how many it goes to, and only then sent.
import { useState } from 'preact/hooks';
import { get, post, query } from '../api';
import { count } from '../format';
import { Field, FormDialog, Select, TextField } from '../forms';
import { bodyOf, namesOf } from '../message';
import type { User } from '../types';
import { Notice } from '../ui';

type Whom = 'one' | 'some' | 'all';

const CHOICES = [
  ['one', 'one user'],
  ['some', 'some users'],
  ['all', 'every user'],
] as const;

/** Pages of a thousand looked at to say how many there are. */
const PAGES_MAX = 20;
const PAGE = 1_000;
/** Names shown before it is sent. */
const NAMES_SHOWN = 12;

interface Draft {
  to: { user: string } | { users: string[] } | { all: true };
  body: unknown;
  /** How many it goes to, in words. */
  audience: string;
  names: readonly string[];
}

/** How many users there are; `null`: more than is worth counting here. */
async function everybody(): Promise<number | null> {
  let found = 0;
  let after: string | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const { users, next } = await get<{ users: User[]; next: string | null }>(`/users${query({ after, limit: PAGE })}`);
    found += users.length;
    if (next === null) return found;
    after = next;
  }
  return null;
}

export function ServiceMessage({ user, close }: { user?: string; close: () => void }) {
  const [whom, setWhom] = useState<Whom>('one');
  const [one, setOne] = useState(user ?? '');
  const [some, setSome] = useState('');
  const [text, setText] = useState('');
  const [draft, setDraft] = useState<Draft | null>(null);
  const names = whom === 'all' ? [] : namesOf(whom === 'one' ? one : some);
  const preview = async () => {
    const body = bodyOf(text);
    const to = whom === 'all' ? { all: true as const } : whom === 'one' ? { user: names[0] ?? '' } : { users: names };
    let audience = names.length === 1 ? '1 user' : `${names.length.toLocaleString('en')} users`;
    if (whom === 'all') {
      const found = await everybody();
      audience = found === null ? `more than ${count(PAGES_MAX * PAGE)} users` : `all ${found.toLocaleString('en')} users`;
    }
    setDraft({ to, body, audience, names });
    return undefined;
  };
  const send = async ({ to, body }: Draft) => {
    const { recipients_count } = await post<{ recipients_count: number }>('/service-messages', { to, body });
    return `The message is on its way to ${recipients_count.toLocaleString('en')} users.`;
  };
  if (draft) {
    const more = draft.names.length - NAMES_SHOWN;
    return (
      <FormDialog
        key="preview"
        title="Send this message?"
        verb={`Send to ${draft.audience}`}
        close={close}
        back={() => setDraft(null)}
        submit={() => send(draft)}
      >
        <Notice tone={whom === 'all' ? 'warn' : 'info'}>
          It goes to <b>{draft.audience}</b>
          {draft.names.length > 0 && `: ${draft.names.slice(0, NAMES_SHOWN).join(', ')}${more > 0 ? ` and ${more} more` : ''}`}.
          It is kept for those who are away, and cannot be called back.
        </Notice>
        <pre tabIndex={0} aria-label="Body">
          {JSON.stringify(draft.body, null, 2)}
        </pre>
      </FormDialog>
    );
  }
  return (
    <FormDialog
      key="write"
      title="Message from the service"
      verb="Preview"
      close={close}
      submit={preview}
      unready={text.trim() === '' || (whom !== 'all' && names.length === 0)}
    >
      {user === undefined && <Select label="To" value={whom} choices={CHOICES} change={setWhom} />}
      {whom === 'one' && <TextField label="User" value={one} change={setOne} required autofocus={user === undefined} />}
      {whom === 'some' && (
        <Field
          label="Users"
          hint={names.length === 0 ? 'Names, apart by spaces, commas or lines. All must exist.' : `${count(names.length)} names.`}
        >
          {(ids) => (
            <textarea {...ids} rows={3} spellcheck={false} value={some} onInput={(event) => setSome(event.currentTarget.value)} />
          )}
        </Field>
      )}
      <Field label="Body" hint="Any JSON. What is not JSON is sent as a string.">
        {(ids) => <textarea {...ids} rows={4} value={text} onInput={(event) => setText(event.currentTarget.value)} />}
      </Field>
    </FormDialog>
  );
}
