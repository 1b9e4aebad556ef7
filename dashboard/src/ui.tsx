// Small parts that pages are made of. They know nothing of what they show.
import { createContext, type ComponentChildren } from 'preact';
import { useContext, useEffect, useId, useRef, useState } from 'preact/hooks';
import { may, type Role, type Session } from './api';
import { explain, useNow } from './hooks';
import { ago, moment } from './format';

/** Who is signed in. */
export const SessionContext = createContext<Session>({ csrf: '', name: '', role: 'viewer' });
/** Tells the reader how something went. */
export const TellContext = createContext<(text: string, bad?: boolean) => void>(() => undefined);

export type Tone = 'good' | 'info' | 'warn' | 'bad' | 'plain';

/** A word with a colour; the word says it all, the colour only helps. */
export function Badge({ tone = 'plain', children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function Notice({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <div class={`notice ${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>
      {children}
    </div>
  );
}

/** What stands where data will be: that it is on its way, or why it is not coming. */
export function Waiting({ error }: { error: string | null }) {
  return error === null ? <p class="faint">Loading…</p> : <Notice tone="bad">{error}</Notice>;
}

/** A figure with its name. */
export function Stat(props: { name: string; children: ComponentChildren; note?: ComponentChildren; tone?: Tone }) {
  return (
    <div class={`stat ${props.tone ?? ''}`}>
      <dt>{props.name}</dt>
      <dd>
        {props.children}
        {props.note != null && <small>{props.note}</small>}
      </dd>
    </div>
  );
}

/** A moment, as how long ago, in full for those who point at it. */
export function When({ at }: { at: number | null | undefined }) {
  const now = useNow(5_000);
  return (
    <time title={moment(at)} dateTime={at ? new Date(at).toISOString() : ''}>
      {ago(at, now)}
    </time>
  );
}

interface TableProps {
  caption: string;
  head: readonly string[];
  children: ComponentChildren;
  /** What to say instead of rows. */
  empty?: string | false;
}

export function Table({ caption, head, children, empty }: TableProps) {
  return (
    // Scrolls sideways on a narrow screen, so keys must reach it.
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="hidden">{caption}</caption>
        <thead>
          <tr>
            {head.map((name) => (
              <th key={name} scope="col" class={name.endsWith('#') ? 'number' : ''}>
                {name.replace('#', '')}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
      {empty && <p class="faint empty">{empty}</p>}
    </div>
  );
}

interface ActionProps {
  label: string;
  /** The role it takes. */
  needs: Role;
  run: (reason: string) => Promise<string | undefined>;
  /** What is asked before it is done; without it nothing is asked. */
  confirm?: string;
  /** Whether a reason is asked for as well, and whether it must be given. */
  reason?: 'optional' | 'required';
  danger?: boolean;
  disabled?: boolean;
  /** What it is done to, for those who hear the page and not see it. */
  about?: string;
}

/** A button that does something on the server and says how it went. */
export function Action(props: ActionProps) {
  const session = useContext(SessionContext);
  const tell = useContext(TellContext);
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const allowed = may(session.role, props.needs);
  const run = async (reason: string) => {
    setBusy(true);
    try {
      const said = await props.run(reason);
      if (said !== undefined) tell(said);
    } catch (failure) {
      tell(explain(failure), true);
    } finally {
      setBusy(false);
    }
  };
  const label = props.about === undefined ? undefined : `${props.label} ${props.about}`;
  return (
    <>
      <button
        type="button"
        class={props.danger ? 'danger' : ''}
        disabled={busy || !allowed || props.disabled === true}
        title={allowed ? undefined : `This takes the role ${props.needs}; yours is ${session.role}.`}
        aria-label={label}
        onClick={() => (props.confirm === undefined ? void run('') : setAsking(true))}
      >
        {busy ? `${props.label}…` : props.label}
      </button>
      {asking && props.confirm !== undefined && (
        <Question
          title={label ?? props.label}
          text={props.confirm}
          verb={props.label}
          reason={props.reason}
          danger={props.danger === true}
          close={() => setAsking(false)}
          yes={(reason) => {
            setAsking(false);
            void run(reason);
          }}
        />
      )}
    </>
  );
}

interface QuestionProps {
  title: string;
  text: string;
  verb: string;
  reason: 'optional' | 'required' | undefined;
  danger: boolean;
  yes: (reason: string) => void;
  close: () => void;
}

function Question({ title, text, verb, reason, danger, yes, close }: QuestionProps) {
  const [given, setGiven] = useState('');
  const id = useId();
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          yes(given.trim());
        }}
      >
        <p>{text}</p>
        {reason && (
          <p>
            <label for={id}>Reason{reason === 'optional' && ' (optional)'}, for the audit log</label>
            <input
              id={id}
              value={given}
              required={reason === 'required'}
              maxLength={200}
              onInput={(event) => setGiven(event.currentTarget.value)}
            />
          </p>
        )}
        <p class="buttons">
          <button type="submit" class={danger ? 'danger solid' : 'solid'}>
            {verb}
          </button>
          <button type="button" onClick={close}>
            Cancel
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** A window above the page. The browser keeps the focus in it and closes it by Escape. */
export function Dialog(props: { title: string; close: () => void; children: ComponentChildren; side?: boolean }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    if (dialog && !dialog.open) dialog.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={element}
      class={props.side ? 'side' : ''}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        props.close();
      }}
      // A click beside it lands on the dialog itself, one in it on what it holds.
      onClick={(event) => event.target === element.current && props.close()}
    >
      <div class="sheet">
        <header>
          <h2 id={id}>{props.title}</h2>
          <button type="button" class="quiet" aria-label="Close" onClick={props.close}>
            ✕
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

/** Names and values, one under the other. */
export function Facts({ facts }: { facts: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** How much of something is used. */
export function Gauge({ share, label }: { share: number | null; label: string }) {
  if (share === null) return <span class="faint">–</span>;
  const tone = share >= 0.9 ? 'bad' : share >= 0.7 ? 'warn' : 'good';
  return <meter class={tone} min={0} max={1} low={0.7} high={0.9} optimum={0} value={Math.min(1, share)} aria-label={label} />;
}

/** Something to look for. */
export function Search(props: { label: string; value: string; change: (text: string) => void }) {
  const id = useId();
  return (
    <span class="search">
      <label for={id}>{props.label}</label>
      <input
        id={id}
        type="search"
        value={props.value}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => props.change(event.currentTarget.value)}
      />
    </span>
  );
}
