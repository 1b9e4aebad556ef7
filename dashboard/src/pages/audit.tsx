// Who changed what, from where, and how it ended. Newest first.
import { useCallback, useState } from 'preact/hooks';
import { get, query } from '../api';
import { moment } from '../format';
import { usePolled } from '../hooks';
import type { AuditEntry } from '../types';
import { Badge, Pager, Search, Table, usePages, Waiting } from '../ui';

interface Answer {
  entries: AuditEntry[];
  next: string | null;
}

export function Audit() {
  const pages = usePages();
  const [q, setQ] = useState('');
  const { after } = pages;
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
            columns={[
              { head: 'When', cell: (entry) => moment(entry.at_ms) },
              {
                head: 'Who',
                cell: (entry) => (
                  <>
                    {entry.who} <small class="faint">{entry.role}</small>
                  </>
                ),
              },
              { head: 'From', cell: (entry) => entry.from ?? '–' },
              { head: 'Action', header: true, cell: (entry) => entry.action },
              { head: 'Target', cell: (entry) => entry.target ?? '–' },
              {
                head: 'Outcome',
                cell: ({ outcome }) => <Badge tone={outcome === 'ok' ? 'good' : 'bad'}>{outcome}</Badge>,
              },
              { head: 'Reason', class: 'why', cell: (entry) => entry.reason },
            ]}
            rows={shown}
            name={(entry) => entry.number}
            empty="Nothing was changed."
          />
          <Pager pages={pages} next={data.next} names={['Newer', 'Older']} />
        </>
      ) : (
        <Waiting error={error} />
      )}
    </>
  );
}
