// The way in: an admin token, or the secret of the data directory, for a cookie.
import { useState } from 'preact/hooks';
import { signIn, type Session } from '../api';
import { explain } from '../hooks';
import { Notice } from '../ui';

export function SignIn({ done, said }: { done: (session: Session) => void; said: string | null }) {
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const submit = async (form: HTMLFormElement) => {
    const token = new FormData(form).get('token');
    if (typeof token !== 'string' || token.trim() === '') return;
    setBusy(true);
    setError(null);
    try {
      done(await signIn(token.trim()));
    } catch (failure) {
      setError(explain(failure));
      setBusy(false);
    }
  };
  return (
    <main class="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit(event.currentTarget);
        }}
      >
        <img src="./icon.svg" alt="" width="56" height="56" />
        <h1>Stonechat</h1>
        {said !== null && error === null && <Notice tone="info">{said}</Notice>}
        {error !== null && <Notice tone="bad">{error}</Notice>}
        <label for="token">Admin token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required autofocus />
        <button type="submit" class="solid" disabled={busy}>
          {busy ? 'Signing in…' : 'Sign in'}
        </button>
        <p class="faint">
          The node&apos;s own secret works as well: it is in <code>admin.secret</code> in the data directory.
        </p>
      </form>
    </main>
  );
}
