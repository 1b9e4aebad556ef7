// Headless Chromium as Debian ships it, and what is expected of every page in it.
import { createRequire } from 'node:module';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/**
 * What came and went on the page: notices that go by themselves, rows that flashed. A test that
 * looked for them on the screen would depend on when it looks.
 */
interface Seen {
  told: string[];
  flashed: string[];
}

/** Runs in the page before anything else does. */
const remember = () => {
  const seen: Seen = { told: [], flashed: [] };
  const known = new WeakSet();
  (globalThis as unknown as { seen: Seen }).seen = seen;
  const look = () => {
    for (const notice of document.querySelectorAll('.told .notice')) {
      if (!known.has(notice)) seen.told.push(notice.textContent);
      known.add(notice);
    }
    for (const row of document.querySelectorAll('.row.flash')) seen.flashed.push(row.textContent);
  };
  new MutationObserver(look).observe(document, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ['class'],
  });
};

export const seen = (page: Page): Promise<Seen> =>
  page.evaluate(() => (globalThis as unknown as { seen: Seen }).seen);

export const PICTURES = join(import.meta.dirname, 'out');
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export class Browser {
  #dir = mkdtempSync(join(tmpdir(), 'stonechat-browser-'));
  #context: BrowserContext | null = null;
  /** What the browser complained about: scripts that failed, what the content policy kept out. */
  readonly complaints: string[] = [];

  async open(url: string): Promise<Page> {
    this.#context = await chromium.launchPersistentContext(this.#dir, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: FLAGS,
      viewport: { width: 1280, height: 800 },
      timeout: 60_000,
    });
    this.#context.setDefaultTimeout(60_000);
    await this.#context.addInitScript(remember);
    await this.#context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = this.#context.pages()[0] ?? (await this.#context.newPage());
    page.on('pageerror', (error) => this.complaints.push(String(error)));
    page.on('console', (message) => {
      // A refused request is the server's answer, and the page's to show.
      const refused = message.text().startsWith('Failed to load resource');
      if (message.type() === 'error' && !refused) this.complaints.push(message.text());
    });
    await page.goto(url);
    return page;
  }

  cookies = async () => (await this.#context?.cookies()) ?? [];

  async close() {
    await this.#context?.close();
    // Processes of the browser may still write there.
    rmSync(this.#dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

interface Violation {
  id: string;
  impact: string | null;
  help: string;
  nodes: { target: string[]; failureSummary: string }[];
}

/** What axe finds serious or worse. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: { run: () => Promise<{ violations: Violation[] }> } };
    return (await axe.run()).violations;
  });
  return found
    .filter((one) => one.impact === 'serious' || one.impact === 'critical')
    .flatMap((one) => one.nodes.map((node) => `${one.id} (${one.help}) at ${node.target.join(' ')}: ${node.failureSummary}`));
}

/** A picture for those who look at the tests' results. */
export async function picture(page: Page, name: string) {
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`) });
}
