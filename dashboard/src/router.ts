// Where in the dashboard the reader is: kept in the address after `#`, so that pages can be
// bookmarked and the server has one page only.
import { useLayoutEffect, useState } from 'preact/hooks';

export interface Place {
  page: string;
  /** What the page is about: a user's name, an actor's id. */
  subject: string | null;
}

export function place(hash: string): Place {
  const [page, subject] = hash.replace(/^#\/?/, '').split('/');
  let name: string | null = null;
  try {
    name = subject ? decodeURIComponent(subject) : null;
  } catch {
    // Not written by us: as if there were none.
  }
  return { page: page === '' || page === undefined ? 'overview' : page, subject: name };
}

export const link = (page: string, subject?: string | number) =>
  subject === undefined ? `#/${page}` : `#/${page}/${encodeURIComponent(String(subject))}`;

export function usePlace(): Place {
  const [now, setNow] = useState(() => place(location.hash));
  // Before anything is on view: whoever goes on at once would not be heard by a listener that comes later.
  useLayoutEffect(() => {
    const moved = () => setNow(place(location.hash));
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  return now;
}
