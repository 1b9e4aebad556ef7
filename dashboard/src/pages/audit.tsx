// Who changed what, from where, and how it ended. Newest first.
import { useCallback, useState } from 'preact/hooks';
import { get, query } from '../api';
import { moment } from '../format';
import { usePolled } from '../hooks';
import type { AuditEntry } from '../types';
import { Badge, Search, Table, Waiting } from '../ui';

interface Answer {
  entries: AuditEntry[];
  next: string | number | null;
}

export function Audit() {
  const [starts, setStarts] = useState<(string | number)[]>([]);
  const [q, setQ] = useState('');
  const after = starts.at(-1);
  const ask = useCallback(
    (signal: AbortSignal) => get<Answer>(`/audit${query({ after, limit: 200 })}`, signal),
    [after],
  );
  const { data, error } = usePolled(ask, 5_000);
  const wanted = q.trim().toLowerCase();
  const shown = data?.entries.filter((entry) =>
    [entry.who, entry.action, entry.target, entry.outcome, entry.from, entry.reason].some((text) =>
      (text ?? '').toLowerCase().includes(wanted),
    ),
  );
  return (
    <>
      <h1>Audit</h1>
      <div class="line filters">
        <Search label="Filter this page" value={q} change={setQ} />
      </div>
      {shown && data ? (
        <>
          <Table
            caption="Audit log, newest first"
            head={['When', 'Who', 'From', 'Action', 'Target', 'Outcome', 'Reason']}
            empty={shown.length === 0 && 'Nothing was changed.'}
          >
            {shown.map((entry) => (
              <tr key={entry.number}>
                <td>{moment(entry.at_ms)}</td>
                <td>
                  {entry.who} <small class="faint">{entry.role}</small>
                </td>
                <td>{entry.from ?? '–'}</td>
                <th scope="row">{entry.action}</th>
                <td>{entry.target ?? '–'}</td>
                <td>
                  <Badge tone={entry.outcome === 'ok' ? 'good' : 'bad'}>{entry.outcome}</Badge>
                </td>
                <td>{entry.reason ?? ''}</td>
              </tr>
            ))}
          </Table>
          <p class="buttons">
            <button type="button" disabled={starts.length === 0} onClick={() => setStarts(starts.slice(0, -1))}>
              Newer
            </button>
            <button
              type="button"
              disabled={data.next === null}
              onClick={() => data.next !== null && setStarts([...starts, data.next])}
            >
              Older
            </button>
          </p>
        </>
      ) : (
        <Waiting error={error} />
      )}
    </>
  );
}
