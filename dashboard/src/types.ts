// The admin API's answers, as far as the dashboard reads them. docs/operations.md and
// /admin/v1/openapi.json describe them in full.

export interface NodeAnswer {
  version: string;
  uptime_s: number;
  started_ms?: number;
  draining: boolean;
  unavailable: string | null;
  connections: number;
  sessions: number;
  devices: number;
  panics: number;
  store: Record<string, number>;
  build?: Record<string, string | null>;
  /** The nearest first. */
  limits: Limit[];
}

export interface HistoryAnswer {
  step_s: number;
  at_ms: number[];
  series: Record<string, (number | null)[]>;
}

export interface Actor {
  id: number;
  parent: number | null;
  name: string;
  kind: string;
  phase: string;
  generation: number;
  restarts: number;
  last_exit: string | null;
  depth: number;
  depth_max: number;
  capacity: number;
  handled_count: number;
  rate_per_s: number;
  drain_ms: number | null;
  blocked_ms: number;
  started_ms: number;
  arbiter: string | null;
  strategy: string | null;
  /** A supervisor's children. */
  children: number;
}

/** A supervisor, with the actors directly below it summed up. */
export interface Branch extends Actor {
  depth_sum: number;
  not_running_count: number;
}

export interface TreeAnswer {
  supervisors: Branch[];
  actors: Actor[];
  next: string | null;
}

export interface Crash {
  number: number;
  actor: number | null;
  name: string;
  kind: string;
  generation: number;
  at_ms: number;
  reason: string;
  message_type: string | null;
  location: string | null;
}

export interface ActorAnswer extends Actor {
  state: unknown;
  /** Why there is no state. */
  state_missing: string | null;
  last_crash: Crash | null;
}

export interface User {
  user: string;
  created_ms: number;
  disabled: boolean;
  connected?: boolean;
}

export interface UserDevice {
  device: string;
  cursor: number;
  pending: number;
  connected: boolean;
  last_seen_ms: number;
}

export interface UserAnswer extends User {
  connected: boolean;
  devices: UserDevice[];
  mailbox: Record<string, number>;
  connections?: { device: string; peer?: string | null; since_ms?: number }[];
  limits?: UserLimits | null;
}

/** What holds for one user; `null`: as for everybody. */
export interface UserLimits {
  messages_per_s: number | null;
  mailbox_messages_max: number | null;
  mailbox_bytes_max: number | null;
}

/** A mailbox without its messages. */
export interface Mailbox {
  depth: number;
  bytes: number;
  oldest_ms: number | null;
  newest_seq: number;
}

export interface AdminToken {
  id: string;
  name: string;
  role: string;
  scope: string[] | null;
  created_ms: number;
  expires_ms: number;
  revoked_ms: number | null;
  good: boolean;
}

export interface DeadLetter {
  number: number;
  user: string;
  seq: number;
  id: string;
  from: { user: string; device: string };
  ts_ms: number;
  body_bytes: number;
  reason: string;
  dead_ms: number;
  body?: unknown;
}

export interface AuditEntry {
  number: number;
  at_ms: number;
  who: string;
  role: string;
  from: string | null;
  action: string;
  target: string | null;
  outcome: string;
  reason?: string | null;
}

export interface Limit {
  name: string;
  used: number;
  max: number;
  share: number;
}

export interface ConfigEntry {
  key: string;
  value: unknown;
  source: string;
  masked: boolean;
}

export interface Backup {
  name: string;
  state: 'running' | 'done' | 'failed' | 'interrupted';
  bytes: number;
  messages_count: number | null;
  started_ms: number | null;
  finished_ms: number | null;
  error: string | null;
}

export interface Drain {
  state: 'serving' | 'draining' | 'drained';
  connections_left: number;
}
