// Buttons that do something on the server: who may press them, what is asked before, how it went.
import type { ComponentChildren } from 'preact';
import { useContext, useId, useState } from 'preact/hooks';
import type { Role } from './api';
import { TellContext, useAllowed } from './context';
import { Dialog } from './dialog';
import { TextField } from './forms';
import { explain } from './hooks';

interface ButtonProps {
  label: string;
  /** The role it takes. */
  needs: Role;
  press: () => void;
  /** What it is done to, for those who hear the page and do not see it. */
  about?: string | undefined;
  danger?: boolean;
  disabled?: boolean;
  /** Something is under way: it stays where it is and keeps the focus, and does nothing. */
  busy?: boolean;
}

/** A button for some roles. For the others it can be reached, does nothing, and says why. */
export function RoleButton({ label, needs, press, about, danger, disabled, busy = false }: ButtonProps) {
  const tell = useContext(TellContext);
  const { allowed, hint } = useAllowed(needs);
  const id = useId();
  return (
    <>
      <button
        type="button"
        class={danger ? 'danger' : ''}
        disabled={allowed && disabled === true}
        aria-disabled={!allowed || busy}
        aria-describedby={allowed ? undefined : id}
        title={allowed ? undefined : hint}
        aria-label={about === undefined ? undefined : `${label} ${about}`}
        onClick={() => (!allowed ? tell(hint, true) : !busy && press())}
      >
        {busy ? `${label}…` : label}
      </button>
      {!allowed && (
        <span id={id} class="hidden">
          {hint}
        </span>
      )}
    </>
  );
}

interface OpensProps extends Omit<ButtonProps, 'press' | 'busy'> {
  /** The window it opens. */
  children: (close: () => void) => ComponentChildren;
}

/** A button that opens a window. */
export function Opens({ children, ...button }: OpensProps) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <RoleButton {...button} press={() => setOpen(true)} />
      {open && children(() => setOpen(false))}
    </>
  );
}

interface ActionProps extends Omit<ButtonProps, 'press' | 'busy'> {
  run: (reason: string) => Promise<string | undefined>;
  /** What is asked before it is done; without it nothing is asked. */
  confirm?: string;
  /** Whether a reason is asked for as well, and whether it must be given. */
  reason?: 'optional' | 'required';
}

/** A button that does something on the server and says how it went. */
export function Action({ run, confirm, reason, ...button }: ActionProps) {
  const tell = useContext(TellContext);
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const act = async (why: string) => {
    setBusy(true);
    try {
      const said = await run(why);
      if (said !== undefined) tell(said);
    } catch (failure) {
      tell(explain(failure), true);
    } finally {
      setBusy(false);
    }
  };
  const { label, about } = button;
  return (
    <>
      <RoleButton
        {...button}
        busy={busy}
        press={() => (confirm === undefined ? void act('') : setAsking(true))}
      />
      {asking && confirm !== undefined && (
        <Question
          title={about === undefined ? label : `${label} ${about}`}
          text={confirm}
          verb={label}
          reason={reason}
          danger={button.danger === true}
          close={() => setAsking(false)}
          yes={(why) => {
            setAsking(false);
            void act(why);
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
  return (
    <Dialog title={title} close={close}>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          yes(given.trim());
        }}
      >
        <p>{text}</p>
        {reason && <Reason value={given} change={setGiven} required={reason === 'required'} />}
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

/** Why something is done. */
export function Reason(props: { value: string; change: (text: string) => void; required: boolean }) {
  return (
    <TextField
      label={props.required ? 'Reason' : 'Reason (optional)'}
      hint="Kept in the audit log."
      value={props.value}
      change={props.change}
      required={props.required}
      maxLength={200}
      autofocus
    />
  );
}
