// What forms are made of: fields with their hints, a window that asks and does, a secret shown once.
import type { ComponentChildren } from 'preact';
import { useContext, useEffect, useId, useRef, useState } from 'preact/hooks';
import { TellContext } from './context';
import { Dialog } from './dialog';
import { explain } from './hooks';
import { Notice } from './ui';

interface Labelled {
  label: string;
  hint?: ComponentChildren;
}

interface FieldProps extends Labelled {
  /** The control, which takes the name and the description. */
  children: (names: { id: string; 'aria-describedby': string | undefined }) => ComponentChildren;
}

/** A control under its label, with a word about what belongs in it. */
export function Field({ label, hint, children }: FieldProps) {
  const id = useId();
  const described = hint === undefined ? undefined : `${id}-hint`;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, 'aria-describedby': described })}
      {described !== undefined && <small id={described}>{hint}</small>}
    </div>
  );
}

interface TypedProps extends Labelled {
  value: string;
  change: (text: string) => void;
  required?: boolean;
  autofocus?: boolean;
}

interface TextFieldProps extends TypedProps {
  maxLength?: number;
}

export function TextField({ label, hint, change, ...rest }: TextFieldProps) {
  return (
    <Field label={label} hint={hint}>
      {(names) => (
        <input
          {...names}
          {...rest}
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => change(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

interface NumberFieldProps extends TypedProps {
  min: number;
}

/** A whole number, or nothing. */
export function NumberField({ label, hint, change, ...rest }: NumberFieldProps) {
  return (
    <Field label={label} hint={hint}>
      {(names) => (
        <input {...names} {...rest} type="number" step={1} onInput={(event) => change(event.currentTarget.value)} />
      )}
    </Field>
  );
}

interface SelectProps<T extends string> extends Labelled {
  value: T;
  choices: readonly (readonly [T, string])[];
  change: (value: T) => void;
}

export function Select<T extends string>({ label, hint, value, choices, change }: SelectProps<T>) {
  return (
    <Field label={label} hint={hint}>
      {(names) => (
        <select {...names} value={value} onChange={(event) => change(event.currentTarget.value as T)}>
          {choices.map(([one, name]) => (
            <option key={one} value={one}>
              {name}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface FormProps {
  title: string;
  /** What the button says. */
  verb: string;
  close: () => void;
  /** Does it. What it gives is told, and the window closes; `undefined` leaves it open. */
  submit: () => Promise<string | undefined>;
  /** Not everything that is needed is there yet. */
  unready?: boolean;
  danger?: boolean;
  /** To what was before it in the same window, rather than out of it. */
  back?: () => void;
  children: ComponentChildren;
}

/** A window with a form. What the server refuses is told in it, and what was typed stays. */
export function FormDialog({ title, verb, close, submit, unready = false, danger = false, back, children }: FormProps) {
  const tell = useContext(TellContext);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const send = async () => {
    setBusy(true);
    setError(null);
    try {
      const said = await submit();
      if (said === undefined) return;
      tell(said);
      close();
    } catch (failure) {
      setError(explain(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} close={close} firm>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy && !unready) void send();
        }}
      >
        {children}
        {error !== null && <Notice tone="bad">{error}</Notice>}
        <p class="buttons">
          <button type="submit" class={danger ? 'danger solid' : 'solid'} disabled={busy || unready}>
            {busy ? `${verb}…` : verb}
          </button>
          <button type="button" onClick={back ?? close}>
            {back ? 'Back' : 'Cancel'}
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** For what cannot be undone: its name has to be typed. */
export function TypeToConfirm(props: { name: string; value: string; change: (text: string) => void }) {
  return (
    <TextField
      label={`Type ${props.name} to confirm`}
      hint="It cannot be undone."
      value={props.value}
      change={props.change}
      required
    />
  );
}

/** A secret the server tells once, in a window of its own. */
export function SecretDialog(props: { title: string; secret: string; close: () => void; children?: ComponentChildren }) {
  const [said, setSaid] = useState('');
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current?.focus(), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(props.secret);
      setSaid('Copied.');
    } catch {
      // Browsers keep the clipboard from pages that came over plain HTTP from another machine.
      field.current?.select();
      setSaid('Selected; the browser lets you copy it by hand only.');
    }
  };
  return (
    <Dialog title={props.title} close={props.close} firm>
      <div class="form">
        <Notice tone="warn">It is shown now and never again. Keep it as you keep a password.</Notice>
        {props.children}
        <Field label="Token">
          {(names) => <textarea {...names} ref={field} class="secret" readOnly rows={6} value={props.secret} />}
        </Field>
        <p class="buttons">
          <button type="button" class="solid" onClick={() => void copy()}>
            Copy
          </button>
          <button type="button" onClick={props.close}>
            Done
          </button>
          <span role="status">{said}</span>
        </p>
      </div>
    </Dialog>
  );
}
