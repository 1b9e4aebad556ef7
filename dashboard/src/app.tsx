// The frame around the pages: who is signed in, where one can go, what was just said.
import type { FunctionComponent } from 'preact';
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { session as ask, signOut, whenSignedOut, type Session } from './api';
import { useFeed, type Feed } from './events';
import { explain } from './hooks';
import { SessionContext, TellContext } from './context';
import { Actors } from './pages/actors';
import { AdminTokens } from './pages/admin-tokens';
import { Audit } from './pages/audit';
import { DeadLetters } from './pages/dead-letters';
import { Mailboxes } from './pages/mailboxes';
import { Maintenance } from './pages/maintenance';
import { Node } from './pages/node';
import { Overview } from './pages/overview';
import { SignIn } from './pages/sign-in';
import { UserPage } from './pages/user';
import { Users } from './pages/users';
import { link, usePlace, type Place } from './router';
import { applyTheme, nextTheme, storedTheme, type Theme } from './theme';

const PAGES: readonly { page: string; title: string }[] = [
  { page: 'overview', title: 'Overview' },
  { page: 'actors', title: 'Actors' },
  { page: 'users', title: 'Users' },
  { page: 'mailboxes', title: 'Mailboxes' },
  { page: 'dead-letters', title: 'Dead letters' },
  { page: 'audit', title: 'Audit' },
  { page: 'node', title: 'Configuration' },
  { page: 'maintenance', title: 'Maintenance' },
  { page: 'admin-tokens', title: 'Admin tokens' },
];

export function App() {
  const [session, setSession] = useState<Session | null | undefined>(undefined);
  const [said, setSaid] = useState<string | null>(null);
  useEffect(() => {
    applyTheme(storedTheme());
    whenSignedOut(() => {
      setSaid('The session has ended. Please sign in again.');
      setSession(null);
    });
    ask().then(setSession, () => setSession(null));
  }, []);
  if (session === undefined) return null;
  if (session === null) {
    return (
      <SignIn
        said={said}
        done={(opened) => {
          setSaid(null);
          setSession(opened);
        }}
      />
    );
  }
  const leave = async () => {
    try {
      await signOut();
      setSaid('You have signed out.');
    } catch (failure) {
      setSaid(explain(failure));
    }
    setSession(null);
  };
  return (
    <SessionContext.Provider value={session}>
      <Frame session={session} leave={() => void leave()} />
    </SessionContext.Provider>
  );
}

interface Told {
  text: string;
  bad: boolean;
  number: number;
}

function Frame({ session, leave }: { session: Session; leave: () => void }) {
  const place = usePlace();
  const feed = useFeed();
  const [told, setTold] = useState<Told | null>(null);
  const [theme, setTheme] = useState<Theme>(storedTheme);
  const main = useRef<HTMLElement>(null);
  const pages = useRef<HTMLElement>(null);
  const tell = useCallback((text: string, bad = false) => {
    setTold((last) => ({ text, bad, number: (last?.number ?? 0) + 1 }));
  }, []);
  useEffect(() => {
    if (told === null || told.bad) return;
    const timer = setTimeout(() => setTold(null), 6_000);
    return () => clearTimeout(timer);
  }, [told]);
  const title = PAGES.find((one) => one.page === place.page)?.title ?? 'Not found';
  const first = useRef(true);
  useEffect(() => {
    document.title = `${place.subject ?? title} · Stonechat`;
  }, [title, place.subject]);
  // Before the page can be used: who has begun to type in it would lose the focus.
  useLayoutEffect(() => {
    // Someone who hears the page learns that it is another one.
    if (!first.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
    // Where there is room for some of the names only, this one is among them.
    pages.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' });
  }, [title, place.page]);
  const turn = () => {
    const next = nextTheme(theme);
    applyTheme(next);
    setTheme(next);
  };
  return (
    <TellContext.Provider value={tell}>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current?.focus(); }}>
        Skip to content
      </a>
      <header class="top">
        <a class="brand" href={link('overview')}>
          <img src="./icon.svg" alt="" width="28" height="28" />
          Stonechat
        </a>
        <nav aria-label="Pages" ref={pages}>
          <ul>
            {PAGES.map(({ page, title: name }) => (
              <li key={page}>
                <a href={link(page)} aria-current={page === (place.page === 'user' ? 'users' : place.page) ? 'page' : undefined}>
                  {name}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div class="who">
          <Liveness feed={feed} />
          <span class="name" title={`Signed in as ${session.name}, role ${session.role}`}>
            {session.name} <small>{session.role}</small>
          </span>
          <button type="button" class="quiet" onClick={turn} aria-label={`Colours: ${theme}. Change`}>
            {theme === 'light' ? '☀' : theme === 'dark' ? '☾' : '◐'}
          </button>
          <button type="button" class="quiet" onClick={leave}>
            Sign out
          </button>
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Page place={place} feed={feed} />
      </main>
      <div class="told" role="status" aria-live="polite">
        {told && (
          <div key={told.number} class={told.bad ? 'notice bad' : 'notice good'}>
            {told.text}
            <button type="button" class="quiet" aria-label="Dismiss" onClick={() => setTold(null)}>
              ✕
            </button>
          </div>
        )}
      </div>
    </TellContext.Provider>
  );
}

function Liveness({ feed }: { feed: Feed }) {
  const text = { connecting: 'connecting', live: 'live', lost: 'reconnecting' }[feed.state];
  return (
    <span class={`liveness ${feed.state}`} title="Events from the node">
      {text}
    </span>
  );
}

const ROUTES: Record<string, FunctionComponent<{ place: Place; feed: Feed }>> = {
  overview: Overview,
  actors: Actors,
  users: Users,
  user: UserPage,
  mailboxes: Mailboxes,
  'dead-letters': DeadLetters,
  audit: Audit,
  node: Node,
  maintenance: Maintenance,
  'admin-tokens': AdminTokens,
};

function Page({ place, feed }: { place: Place; feed: Feed }) {
  const Shown = ROUTES[place.page];
  if (!Shown) {
    return (
      <p>
        There is no such page. <a href={link('overview')}>Overview</a>
      </p>
    );
  }
  return <Shown place={place} feed={feed} />;
}
