// What pages share: asking again and again, and doing something with a word about how it went.
import { useCallback, useEffect, useState } from 'preact/hooks';
import { Refused } from './api';

export interface Polled<T> {
  data: T | null;
  error: string | null;
  /** Asks again now. */
  again: () => void;
}

/** What came of asking so far. */
interface Known<T> {
  ask: (signal: AbortSignal) => Promise<T>;
  data: T | null;
  error: string | null;
}

/**
 * Asks now and then every `everyMs`, never twice at a time, not while the page is hidden.
 * What was known stays on view while a later attempt fails, and is gone with the question: the answer to
 * another one is never shown for it.
 */
export function usePolled<T>(ask: (signal: AbortSignal) => Promise<T>, everyMs: number | null): Polled<T> {
  const [last, setLast] = useState<Known<T>>({ ask, data: null, error: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const step = async () => {
      if (!document.hidden || everyMs === null) {
        try {
          const answer = await ask(abort.signal);
          if (abort.signal.aborted) return;
          setLast({ ask, data: answer, error: null });
        } catch (failure) {
          if (abort.signal.aborted) return;
          setLast((before) => ({ ask, data: before.ask === ask ? before.data : null, error: explain(failure) }));
        }
      }
      if (everyMs !== null) timer = setTimeout(() => void step(), everyMs);
    };
    void step();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [ask, everyMs, round]);
  const again = useCallback(() => setRound((value) => value + 1), []);
  const { data, error } = last.ask === ask ? last : { data: null, error: null };
  return { data, error, again };
}

/** What to tell a person about a failure. */
export function explain(failure: unknown): string {
  if (failure instanceof Refused) return failure.message;
  return failure instanceof Error ? failure.message : String(failure);
}

/** The present time, told anew every so often. */
export function useNow(everyMs = 1_000): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}

/** A value that follows another once that has been still for a while. */
export function useSettled<T>(value: T, afterMs = 250): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), afterMs);
    return () => clearTimeout(timer);
  }, [value, afterMs]);
  return settled;
}
