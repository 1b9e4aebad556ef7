// Every page in a real browser, against the real server, while people write to each other.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Page } from 'playwright-core';
import { Browser, picture, seen, violations } from './browser';
import { Reader } from './pages';
import { eventually, newId, Server, type Device } from './server';

const server = new Server();
const browser = new Browser();
let page: Page;
let reader: Reader;
let victim: Device;

let paths: Set<string>;

/** Address, heading, and what the page asks the server for. */
const PAGES: readonly (readonly [string, string, ...string[]])[] = [
  ['overview', 'Overview', '/history'],
  ['actors', 'Actors', '/actors/tree'],
  ['users', 'Users'],
  ['user/victim', 'victim'],
  ['mailboxes', 'Mailboxes', '/mailboxes/top'],
  ['dead-letters', 'Dead letters'],
  ['audit', 'Audit', '/audit'],
  ['node', 'Configuration and limits', '/node/limits', '/node/config', '/node/log'],
  ['maintenance', 'Maintenance', '/node/drain', '/node/backups', '/node/storage'],
  ['admin-tokens', 'Admin tokens', '/admin-tokens'],
];

/** Whether the server can be asked for all of these; says so when not. */
const can = (...wanted: string[]) => {
  const missing = wanted.filter((path) => !paths.has(path));
  if (missing.length > 0) console.log(`NOT RUN: this server has no ${missing.join(', ')}`);
  return missing.length === 0;
};

beforeAll(async () => {
  await server.start();
  paths = await server.paths();
  // For longer than the tests take; it ends with them.
  server.swarm(60, 600);
  victim = await server.device('victim', 'phone');
  page = await browser.open(`${server.admin}/`);
  reader = new Reader(page);
});

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') await picture(page, 'failed');
});

afterAll(async () => {
  await browser.close();
  await server.stop();
});

test('nobody gets in without a token, and with one the cookie is out of reach of scripts', async () => {
  expect(page.url()).toBe(`${server.admin}/dashboard/`);
  await page.getByRole('heading', { name: 'Stonechat' }).waitFor();
  expect(await violations(page)).toEqual([]);
  await picture(page, 'sign-in');
  await reader.offer('not a token');
  await page.getByRole('alert').waitFor();
  await reader.signIn(server.secret());
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  const [cookie] = await browser.cookies();
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Strict', path: '/admin' });
  expect(await page.evaluate(() => document.cookie)).toBe('');
  expect(await page.evaluate(() => JSON.stringify(localStorage))).not.toContain(server.secret());
});

test('the overview fills with figures and pictures of the last minutes', async () => {
  // Something counted and something drawn, which takes three samples.
  await page.locator('.stat', { hasText: 'Users connected' }).locator('dd', { hasText: /[1-9]/ }).waitFor();
  await eventually('a line in a chart', async () => {
    const paths = await page.locator('.chart').first().locator('path').first().getAttribute('d');
    return paths !== null && paths.split('L').length > 3 ? paths : undefined;
  });
  await page.locator('.stat', { hasText: 'Send to accepted, p99' }).locator('dd', { hasText: /^[\d.]+ m?s/ }).waitFor();
  await page.locator('.stat', { hasText: 'Descriptors' }).locator('dd', { hasText: /^\d+of / }).waitFor();
  if (can('/events')) await page.locator('.liveness.live').waitFor();
  const chart = page.getByRole('img', { name: /^Messages, last hour/ });
  expect(await chart.getAttribute('aria-label')).toMatch(/accepted: now \d/);
  await chart.focus();
  await page.keyboard.press('ArrowLeft');
  await page.locator('.chart .cursor').first().waitFor();
});

for (const scheme of ['light', 'dark'] as const) {
  test(`every page is there and accessible in ${scheme}`, async () => {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [address, title, ...asks] of PAGES) {
      if (!can(...asks)) continue;
      await reader.go(address, title);
      expect(await page.locator('main .notice.bad').allTextContents(), title).toEqual([]);
      expect(await violations(page), `${title} in ${scheme}`).toEqual([]);
      await picture(page, `${address.replace('/', '-')}-${scheme}`);
    }
  });
}

test('on a phone nothing is wider than the screen', async () => {
  await page.setViewportSize({ width: 375, height: 720 });
  for (const [address, title] of PAGES) {
    await reader.go(address, title);
    await reader.fits(title);
    await picture(page, `${address.replace('/', '-')}-phone`);
  }
  await page.setViewportSize({ width: 1280, height: 800 });
});

test('the tree can be walked by keys', async (context) => {
  if (!can('/actors/tree')) context.skip();
  await reader.go('actors', 'Actors');
  const tree = page.getByRole('tree');
  await tree.focus();
  await page.getByRole('treeitem').nth(1).waitFor();
  const at = () => tree.getAttribute('aria-activedescendant');
  const first = await at();
  await page.keyboard.press('ArrowDown');
  await eventually('the next row', async () => (await at()) !== first || undefined);
  await page.keyboard.press('Home');
  await eventually('the first row', async () => (await at()) === first || undefined);
  const root = page.getByRole('treeitem').first();
  expect(await root.getAttribute('aria-expanded')).toBe('true');
  await page.keyboard.press('ArrowLeft');
  await eventually('the root is closed', async () => (await root.getAttribute('aria-expanded')) === 'false' || undefined);
  expect(await page.getByRole('treeitem').count()).toBe(1);
  await page.keyboard.press('ArrowRight');
  await eventually('it is open again', async () => (await page.getByRole('treeitem').count()) > 1 || undefined);
});

test('a crash is seen: the row flashes, the panel tells the panic with its backtrace', async (context) => {
  if (!can('/actors/{id}', '/events')) context.skip();
  await page.emulateMedia({ colorScheme: 'light' });
  await page.evaluate(() => (location.hash = '#/actors/user:victim'));
  const panel = page.locator('.panel');
  await panel.getByText('session', { exact: true }).waitFor();
  await page.getByLabel('Find an actor').fill('victim');
  const row = page.getByRole('treeitem', { name: /victim/ });
  await row.waitFor();
  await server.api('POST', '/faults/panic', { target: 'session', user: 'victim' });
  await eventually('the row flashes', async () => {
    return (await seen(page)).flashed.some((row) => row.includes('victim')) || undefined;
  });
  await picture(page, 'crash');
  await panel.getByRole('heading', { name: 'Last crash' }).waitFor();
  await panel.getByText('Backtrace', { exact: true }).click();
  expect(await panel.getByLabel('Backtrace').textContent()).toMatch(/stonechat_broker/);
  await eventually('a later generation', async () => (await panel.textContent())?.includes('generation2') || undefined);
  expect(await violations(page)).toEqual([]);
  await picture(page, 'actor');
  expect(victim.closed).toBe(false);
});

test('an actor is restarted from the page, and its sockets stay', async (context) => {
  if (!can('/actors/{id}/restart')) context.skip();
  const panel = page.locator('.panel');
  const restart = panel.getByRole('button', { name: /^Restart/ });
  const dialog = page.getByRole('dialog');
  // Escape leaves the window, and the panel under it open.
  await restart.click();
  await dialog.waitFor();
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  await restart.click();
  expect(await violations(page)).toEqual([]);
  await dialog.getByLabel(/Reason/).fill('to see what happens');
  await dialog.getByRole('button', { name: 'Restart' }).click();
  await reader.told(/told to restart/);
  await eventually('the next generation', async () => (await panel.textContent())?.includes('generation3') || undefined);
  expect(victim.closed).toBe(false);
  // The button has the focus again, so keys reach the panel.
  await page.keyboard.press('Escape');
  await panel.waitFor({ state: 'detached' });
});

test('a user is found, disconnected, disabled and enabled', async () => {
  await reader.go('users', 'Users');
  await page.getByLabel('Find a user').fill('vict');
  await eventually('only the victim is listed', async () => (await page.locator('td a, th a').count()) === 1 || undefined);
  await page.getByRole('link', { name: 'victim' }).click();
  await page.getByRole('heading', { level: 1, name: 'victim' }).waitFor();
  await page.getByText('connected', { exact: true }).first().waitFor();
  await picture(page, 'user');
  await page.getByRole('button', { name: 'Disconnect phone' }).click();
  await reader.told(/1 connections? of phone closed/);
  await eventually('the device is gone', () => victim.closed || undefined);
  await page.getByRole('button', { name: 'Disable' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Disable' }).click();
  await reader.told('victim is disabled.');
  await page.getByRole('button', { name: 'Enable' }).click();
  await reader.told('victim is enabled.');
});

test('what is known of one user is never shown under the name of another', async () => {
  await server.api('POST', '/users', { user: 'carol' });
  await reader.go('user/victim', 'victim');
  await page.evaluate(() => {
    const look = () => {
      const name = document.querySelector('h1')?.textContent ?? '';
      const actor = document.querySelector('main .line a.button')?.getAttribute('href');
      if (actor && !actor.endsWith(encodeURIComponent(name))) Object.assign(globalThis, { mixed: `${name}: ${actor}` });
    };
    new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true });
  });
  await reader.go('user/carol', 'carol');
  expect(await page.locator('main .line a.button').getAttribute('href')).toMatch(/carol$/);
  expect(await page.evaluate(() => (globalThis as { mixed?: string }).mixed)).toBeUndefined();
});

test('a dead letter is looked at and replayed', async () => {
  const bob = await server.device('bob', 'phone');
  const alice = await server.device('alice', 'phone');
  const id = newId();
  await server.api('POST', '/faults/panic', { target: 'session', user: 'bob', on_id: id });
  await alice.send(id, 'bob', { poison: 'ivy' });
  await reader.go('dead-letters', 'Dead letters');
  await page.getByRole('link', { name: 'bob' }).waitFor();
  await picture(page, 'dead-letter');
  await page.getByRole('button', { name: '1', exact: true }).click();
  await page.getByRole('dialog').getByText('"poison": "ivy"').waitFor();
  expect(await violations(page)).toEqual([]);
  await page.keyboard.press('Escape');
  // The session that was poisoned is gone with its user; the message comes to the next one.
  bob.socket.close();
  await eventually('bob is away', async () => {
    const { connected } = await server.api<{ connected: boolean }>('GET', '/users/bob');
    return !connected || undefined;
  });
  await page.getByRole('button', { name: 'Replay dead letter 1' }).click();
  await reader.told(/is back in bob/);
  await page.getByText('There are none.').waitFor();
});

test('what was done is in the audit log', async () => {
  await reader.go('audit', 'Audit');
  const restarts = can('/actors/{id}/restart') ? ['actors.restart'] : [];
  for (const action of ['session.open', 'users.disconnect', 'dead_letters.replay', ...restarts]) {
    await page.getByRole('rowheader', { name: action, exact: true }).first().waitFor();
  }
  if (restarts.length > 0) await page.getByText('to see what happens').waitFor();
});

test('a backup is made while the node serves', async (context) => {
  if (!can('/node/backups')) context.skip();
  await reader.go('maintenance', 'Maintenance');
  await page.getByLabel('Name').fill('before-lunch');
  await page.getByRole('button', { name: 'Back up now' }).click();
  const row = page.getByRole('row', { name: /before-lunch/ });
  await row.getByText('done', { exact: true }).waitFor();
});

test('the node is drained and taken back', async (context) => {
  if (!can('/node/drain')) context.skip();
  await reader.go('maintenance', 'Maintenance');
  await page.getByRole('button', { name: 'Drain', exact: true }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
  await page.getByText('drained', { exact: true }).waitFor();
  expect((await fetch(`${server.admin}/readyz`)).status).toBe(503);
  await page.getByRole('button', { name: 'Undrain' }).click();
  await page.getByText('serving', { exact: true }).waitFor();
  expect((await fetch(`${server.admin}/readyz`)).status).toBe(200);
});

test('signed out, the cookie opens nothing any more', async () => {
  const before = await browser.cookies();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByText('You have signed out.').waitFor();
  const [cookie] = before;
  const answer = await fetch(`${server.admin}/admin/v1/whoami`, {
    headers: { cookie: `${cookie?.name ?? ''}=${cookie?.value ?? ''}` },
  });
  expect(answer.status).toBe(401);
});

test('whoever goes on the moment the pages are there gets there', async () => {
  // Before anything the frame does once it is on view: a listener that comes then hears of it too late.
  await page.evaluate(() => {
    const observer = new MutationObserver(() => {
      if (!document.querySelector('nav')) return;
      observer.disconnect();
      location.hash = '#/audit';
    });
    observer.observe(document, { subtree: true, childList: true });
  });
  await reader.signIn(server.secret());
  await page.getByRole('heading', { level: 1, name: 'Audit', exact: true }).waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByText('You have signed out.').waitFor();
});

test('a viewer sees all and can do nothing; a revoked token ends its session', async () => {
  const made = await server.api<{ id: string; token: string }>('POST', '/admin-tokens', {
    name: 'watcher',
    role: 'viewer',
    ttl_s: 600,
  });
  await reader.signIn(made.token);
  await reader.go('user/bob', 'bob');
  const revoke = page.getByRole('button', { name: 'Revoke all tokens' });
  await revoke.waitFor();
  expect(await revoke.isDisabled()).toBe(true);
  // It can be reached by keys, and says why it does nothing.
  await revoke.focus();
  await page.keyboard.press('Enter');
  await reader.told('This takes the role operator; yours is viewer.');
  expect(await page.getByRole('dialog').count()).toBe(0);
  expect(await violations(page)).toEqual([]);
  await reader.go('admin-tokens', 'Admin tokens');
  await page.getByText('This takes the role admin; yours is viewer.').waitFor();
  expect(await page.getByRole('table').count()).toBe(0);
  await server.api('DELETE', `/admin-tokens/${made.id}`);
  await page.getByText('The session has ended.').waitFor();
});

test('neither the browser nor the server complained', () => {
  expect(browser.complaints).toEqual([]);
  expect(server.errors(/injected|panick|crash/i)).toEqual([]);
});
