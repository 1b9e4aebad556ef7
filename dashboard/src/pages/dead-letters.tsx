// Messages whose handling kept failing: look at them, put them back, throw them away.
import { useCallback, useState } from 'preact/hooks';
import { get, post, query, remove } from '../api';
import { bytes, moment } from '../format';
import { usePolled } from '../hooks';
import { link } from '../router';
import type { DeadLetter } from '../types';
import { Action, Dialog, Facts, Table, Waiting, When } from '../ui';

interface Answer {
  dead_letters: DeadLetter[];
  next: string | null;
}

export function DeadLetters() {
  const [starts, setStarts] = useState<string[]>([]);
  const [shown, setShown] = useState<number | null>(null);
  const after = starts.at(-1);
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
        run={async () => {
          await remove(`/dead-letters/${letter.number}`);
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
            head={['Number#', 'To', 'From', 'Died', 'Size#', 'Why', 'Actions']}
            empty={data.dead_letters.length === 0 && 'There are none.'}
          >
            {data.dead_letters.map((letter) => (
              <tr key={letter.number}>
                <th scope="row" class="number">
                  <button type="button" class="as-link" onClick={() => setShown(letter.number)}>
                    {letter.number}
                  </button>
                </th>
                <td>
                  <a href={link('user', letter.user)}>{letter.user}</a>
                </td>
                <td>
                  {letter.from.user}/{letter.from.device}
                </td>
                <td>
                  <When at={letter.dead_ms} />
                </td>
                <td class="number">{bytes(letter.body_bytes)}</td>
                <td class="why">{letter.reason}</td>
                <td>{actions(letter, again)}</td>
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
