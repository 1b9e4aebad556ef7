// The real server on free ports in a directory of its own, and what speaks to it beside the browser.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import WebSocket from 'ws';

const BINARY = process.env.STONECHAT_BIN ?? resolve('../target/debug/stonechat');
const DEADLINE_MS = 60_000;

/** Waits until something is there. */
export async function eventually<T>(what: string, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const end = Date.now() + DEADLINE_MS;
  let last: unknown;
  while (Date.now() < end) {
    try {
      const found = await look();
      if (found !== undefined) return found;
    } catch (error) {
      last = error;
    }
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`not in time: ${what}`, { cause: last });
}

export class Server {
  readonly dir = mkdtempSync(join(tmpdir(), 'stonechat-dashboard-'));
  readonly log = join(this.dir, 'node.log');
  #children: ChildProcess[] = [];
  #listen = '';
  admin = '';

  async start() {
    const log = openSync(this.log, 'a');
    const serve = ['serve', '--listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
    const settings = ['--set', 'admin.fault_injection=true'];
    this.#spawn([...serve, ...settings], log);
    const data = this.data();
    await eventually('the server listens', async () => {
      const node = JSON.parse(readFileSync(join(data, 'node.json'), 'utf8')) as Record<string, string>;
      this.#listen = node.listen ?? '';
      this.admin = `http://${node.admin_listen ?? ''}`;
      return (await fetch(`${this.admin}/readyz`)).ok || undefined;
    });
  }

  data = () => join(this.dir, 'data');
  secret = () => readFileSync(join(this.data(), 'admin.secret'), 'utf8').trim();

  #spawn(command: string[], log: number): ChildProcess {
    const environment = Object.entries(process.env).filter(([name]) => !/^(STONECHAT_|RUST_LOG)/.test(name));
    const child = spawn(BINARY, [...command, '--data-dir', this.data()], {
      cwd: this.dir,
      env: Object.fromEntries(environment),
      stdio: ['ignore', log, log],
    });
    this.#children.push(child);
    return child;
  }

  /** Simulated people who write to each other while the pages are looked at. */
  swarm(users: number, seconds: number) {
    const log = openSync(join(this.dir, 'swarm.log'), 'a');
    const load = ['--users', String(users), '--duration', String(seconds), '--keep-users'];
    return this.#spawn(['swarm', 'run', 'chatter', ...load], log);
  }

  async api<T = Record<string, unknown>>(method: string, path: string, body?: unknown): Promise<T> {
    const answer = await fetch(`${this.admin}/admin/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${this.secret()}` },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${text}`);
    return (text === '' ? undefined : JSON.parse(text)) as T;
  }

  /** What this build of the server can be asked, by its own document. */
  async paths(): Promise<Set<string>> {
    const { paths } = await this.api<{ paths: Record<string, unknown> }>('GET', '/openapi.json');
    return new Set(Object.keys(paths));
  }

  /** Whether this build can be asked so. */
  async offers(method: string, path: string): Promise<boolean> {
    const { paths } = await this.api<{ paths: Record<string, Record<string, unknown>> }>('GET', '/openapi.json');
    return paths[path]?.[method] !== undefined;
  }

  /** A device of a user, signed in. Acknowledges nothing by itself. */
  async device(user: string, device: string): Promise<Device> {
    await this.api('POST', '/users', { user });
    const { token } = await this.api<{ token: string }>('POST', `/users/${user}/tokens`, { device });
    return this.connect(token, device);
  }

  /** Whoever has this token. */
  async connect(token: string, device: string): Promise<Device> {
    const socket = new WebSocket(`ws://${this.#listen}/v1/ws`);
    const connected = new Device(socket);
    await new Promise((done, failed) => socket.once('open', done).once('error', failed));
    socket.send(JSON.stringify({ type: 'hello', token, device }));
    await connected.frame('welcome');
    return connected;
  }

  /** Lines of level ERROR that no test announced. */
  errors(expected: RegExp): string[] {
    const lines = readFileSync(this.log, 'utf8').split('\n');
    return lines.filter((line) => /ERROR/.test(line) && !expected.test(line));
  }

  async stop() {
    const over = async (child: ChildProcess) => {
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    };
    for (const child of this.#children) child.kill('SIGKILL');
    await Promise.all(this.#children.map(over));
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

interface Frame extends Record<string, unknown> {
  type: string;
}

export class Device {
  readonly frames: Frame[] = [];
  closed = false;

  constructor(readonly socket: WebSocket) {
    socket.on('message', (data: Buffer) => {
      this.frames.push(JSON.parse(data.toString()) as Frame);
    });
    socket.on('close', () => (this.closed = true));
  }

  frame = (type: string, fits: (frame: Frame) => boolean = () => true) =>
    eventually(`a frame ${type}`, () => this.frames.find((frame) => frame.type === type && fits(frame)));

  async send(id: string, to: string, body: unknown) {
    this.socket.send(JSON.stringify({ type: 'send', id, to: { user: to }, body }));
    await this.frame('accepted', (frame) => frame.id === id);
  }
}

let ids = 0;

/** A message id (UUIDv7); each higher than the one before. */
export function newId(): string {
  const time = Date.now().toString(16).padStart(12, '0');
  ids += 1;
  const low = ids.toString(16).padStart(3, '0');
  const rest = Math.floor(Math.random() * 2 ** 44).toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${low}-8000-${rest}`;
}
