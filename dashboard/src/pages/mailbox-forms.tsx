// What can be done to a mailbox: throw away what waits, take it out as a file, bring a file in.
import { useCallback, useEffect, useState } from 'preact/hooks';
import { Action, Opens, Reason } from '../actions';
import { download, get, part, post, upload } from '../api';
import { bytes, count } from '../format';
import { Field, FormDialog, TypeToConfirm } from '../forms';
import { usePolled } from '../hooks';
import { countLines, saveAs } from '../files';
import type { Mailbox } from '../types';
import { Notice, Waiting, When } from '../ui';

interface Props {
  user: string;
  /** What waits may be another now. */
  changed: () => void;
}

export function MailboxActions({ user, changed }: Props) {
  const path = `/users/${part(user)}/mailbox`;
  return (
    <span class="buttons">
      <Action
        label="Export"
        about={`mailbox of ${user}`}
        needs="admin"
        run={async () => {
          const file = await download(`${path}/export`);
          saveAs(file, `${user}.ndjson`);
          return `${count(await countLines(file))} messages of ${user}, ${bytes(file.size)}, bodies included.`;
        }}
      />
      <Opens label="Import…" about={`into the mailbox of ${user}`} needs="admin">
        {(close) => <Import user={user} close={close} changed={changed} />}
      </Opens>
      <Opens label="Purge…" about={`mailbox of ${user}`} needs="admin" danger>
        {(close) => <Purge user={user} close={close} changed={changed} />}
      </Opens>
    </span>
  );
}

interface WindowProps extends Props {
  close: () => void;
}

function Purge({ user, close, changed }: WindowProps) {
  const path = `/users/${part(user)}/mailbox`;
  const [reason, setReason] = useState('');
  const [typed, setTyped] = useState('');
  // Asked once: what is thrown away is what was shown, not what came while the name was typed.
  const { data, error } = usePolled(
    useCallback((signal: AbortSignal) => get<Mailbox>(path, signal), [path]),
    null,
  );
  const submit = async () => {
    const upto = { up_to_seq: data?.newest_seq ?? 0, reason: reason.trim() };
    const { purged_count } = await post<{ purged_count: number }>(`${path}/purge`, upto);
    changed();
    return `${count(purged_count)} messages to ${user} are thrown away.`;
  };
  const ready = data !== null && data.depth > 0 && typed === user && reason.trim() !== '';
  return (
    <FormDialog title={`Purge the mailbox of ${user}`} verb="Purge" danger close={close} submit={submit} unready={!ready}>
      {data ? (
        data.depth === 0 ? (
          <Notice tone="info">Nothing waits for {user}.</Notice>
        ) : (
          <Notice tone="warn">
            <b>
              {data.depth.toLocaleString('en')} messages ({bytes(data.bytes)})
            </b>{' '}
            are thrown away, the oldest accepted <When at={data.oldest_ms} />. Their senders are not told. What comes
            from now on is kept.
          </Notice>
        )
      ) : (
        <Waiting error={error} />
      )}
      <Reason value={reason} change={setReason} required />
      <TypeToConfirm name={user} value={typed} change={setTyped} />
    </FormDialog>
  );
}

function Import({ user, close, changed }: WindowProps) {
  const [file, setFile] = useState<File | null>(null);
  const [lines, setLines] = useState<number | null>(null);
  useEffect(() => {
    let current = true;
    setLines(null);
    if (file) void countLines(file).then((found) => current && setLines(found));
    return () => {
      current = false;
    };
  }, [file]);
  const submit = async () => {
    if (!file) return undefined;
    const path = `/users/${part(user)}/mailbox/import`;
    const { imported_count, skipped_count } = await upload<{ imported_count: number; skipped_count: number }>(path, file);
    changed();
    return `${count(imported_count)} messages are in ${user}’s mailbox; ${count(skipped_count)} were there or have expired.`;
  };
  return (
    <FormDialog title={`Import into the mailbox of ${user}`} verb="Import" close={close} submit={submit} unready={!file}>
      <p>What an export wrote. Messages that are there already are skipped, so it can be repeated.</p>
      <Field label="File" hint={file && lines !== null ? `${count(lines)} messages, ${bytes(file.size)}.` : 'One JSON object a line.'}>
        {(names) => (
          <input
            {...names}
            type="file"
            accept=".ndjson,.jsonl,application/x-ndjson"
            required
            onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)}
          />
        )}
      </Field>
    </FormDialog>
  );
}
