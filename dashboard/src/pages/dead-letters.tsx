// Messages whose handling kept failing: look at them, put them back, throw them away.
import { useCallback, useState } from 'preact/hooks';
import { Action } from '../actions';
import { get, post, query, remove } from '../api';
import { Dialog } from '../dialog';
import { bytes, moment } from '../format';
import { usePolled } from '../hooks';
import { link } from '../router';
import type { DeadLetter } from '../types';
import { Facts, Pager, Table, usePages, Waiting, When } from '../ui';

interface Answer {
  dead_letters: DeadLetter[];
  next: string | null;
}

export function DeadLetters() {
  const pages = usePages();
  const [shown, setShown] = useState<number | null>(null);
  const { after } = pages;
  const ask = useCallback(
    (signal: AbortSignal) => get<Answer>(`/dead-letters${query({ after, limit: 100 })}`, signal),
    [after],
  );
  const { data, error, again } = usePolled(ask, 5_000);
  const actions = (letter: DeadLetter, then: () => void) => (
    <span class="buttons">
      <Action
        label="Replay"
        about={`dead letter ${letter.number}`}
        needs="operator"
        run={async () => {
          await post(`/dead-letters/${letter.number}/replay`);
          then();
          return `Dead letter ${letter.number} is back in ${letter.user}’s mailbox.`;
        }}
      />
      <Action
        label="Discard"
        about={`dead letter ${letter.number}`}
        needs="operator"
        danger
        confirm={`The message to ${letter.user} is gone for good. This cannot be undone.`}
        reason="required"
        run={async (reason) => {
          await remove(`/dead-letters/${letter.number}${query({ reason })}`);
          then();
          return `Dead letter ${letter.number} is discarded.`;
        }}
      />
    </span>
  );
  return (
    <>
      <h1>Dead letters</h1>
      <p class="faint">
        A message whose handling made its recipient&apos;s actor crash again and again is taken out of the mailbox, so
        that the others get through. Replay it when the cause is gone.
      </p>
      {data ? (
        <>
          <Table
            caption="Dead letters"
            columns={[
              {
                head: 'Number',
                header: true,
                number: true,
                cell: ({ number }) => (
                  <button type="button" class="as-link" onClick={() => setShown(number)}>
                    {number}
                  </button>
                ),
              },
              { head: 'To', cell: ({ user }) => <a href={link('user', user)}>{user}</a> },
              { head: 'From', cell: ({ from }) => `${from.user}/${from.device}` },
              { head: 'Died', cell: (letter) => <When at={letter.dead_ms} /> },
              { head: 'Size', number: true, cell: (letter) => bytes(letter.body_bytes) },
              { head: 'Why', class: 'why', cell: (letter) => letter.reason },
              { head: 'Actions', cell: (letter) => actions(letter, again) },
            ]}
            rows={data.dead_letters}
            name={(letter) => letter.number}
            empty="There are none."
          />
          <Pager pages={pages} next={data.next} />
        </>
      ) : (
        <Waiting error={error} />
      )}
      {shown !== null && (
        <Letter
          number={shown}
          close={() => setShown(null)}
          actions={(letter) =>
            actions(letter, () => {
              setShown(null);
              again();
            })
          }
        />
      )}
    </>
  );
}

interface LetterProps {
  number: number;
  close: () => void;
  actions: (letter: DeadLetter) => preact.ComponentChild;
}

function Letter({ number, close, actions }: LetterProps) {
  const letter = usePolled(
    useCallback((signal: AbortSignal) => get<DeadLetter>(`/dead-letters/${number}`, signal), [number]),
    null,
  );
  return (
    <Dialog title={`Dead letter ${number}`} close={close} side>
      {letter.data ? (
        <>
          <Facts
            facts={[
              ['to', letter.data.user],
              ['from', `${letter.data.from.user}/${letter.data.from.device}`],
              ['id', <code>{letter.data.id}</code>],
              ['seq', letter.data.seq],
              ['accepted', moment(letter.data.ts_ms)],
              ['died', moment(letter.data.dead_ms)],
            ]}
          />
          <h3>Why</h3>
          <p>{letter.data.reason}</p>
          <h3>Body, {bytes(letter.data.body_bytes)}</h3>
          <pre tabIndex={0}>{JSON.stringify(letter.data.body, null, 2)}</pre>
          {actions(letter.data)}
        </>
      ) : (
        <Waiting error={letter.error} />
      )}
    </Dialog>
  );
}
