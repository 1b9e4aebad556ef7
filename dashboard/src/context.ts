// What every page knows: who is signed in, and how to tell them something.
import { createContext } from 'preact';
import { useContext } from 'preact/hooks';
import { may, type Role, type Session } from './api';

/** Who is signed in. */
export const SessionContext = createContext<Session>({ csrf: '', name: '', role: 'viewer' });
/** Tells the reader how something went. */
export const TellContext = createContext<(text: string, bad?: boolean) => void>(() => undefined);

/** Whether whoever is signed in has this role; if not, what to tell them. */
export function useAllowed(needs: Role): { allowed: boolean; hint: string } {
  const session = useContext(SessionContext);
  return { allowed: may(session.role, needs), hint: `This takes the role ${needs}; yours is ${session.role}.` };
}
