// Every page in a real browser, against the real server, while people write to each other.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Page } from 'playwright-core';
import { Browser, picture, violations } from './browser';
import { eventually, newId, Server, type Device } from './server';

const server = new Server();
const browser = new Browser();
let page: Page;
let victim: Device;

let paths: Set<string>;

/** Address, heading, and what the page asks the server for. */
const PAGES: readonly (readonly [string, string, ...string[]])[] = [
  ['overview', 'Overview', '/history'],
  ['actors', 'Actors', '/actors/tree'],
  ['users', 'Users'],
  ['user/victim', 'victim'],
  ['dead-letters', 'Dead letters'],
  ['audit', 'Audit', '/audit'],
  ['node', 'Configuration and limits', '/node/limits', '/node/config', '/node/log'],
  ['maintenance', 'Maintenance', '/node/drain', '/node/backups', '/node/storage'],
];

/** Whether the server can be asked for all of these; says so when not. */
const can = (...wanted: string[]) => {
  const missing = wanted.filter((path) => !paths.has(path));
  if (missing.length > 0) console.log(`NOT RUN: this server has no ${missing.join(', ')}`);
  return missing.length === 0;
};

const go = async (address: string, title: string) => {
  await page.evaluate((to) => (location.hash = `#/${to}`), address);
  await page.getByRole('heading', { level: 1, name: title, exact: true }).waitFor();
};
/** What the page last said about something that was done. */
const told = (text: string | RegExp) => page.locator('.told').getByText(text).waitFor();
const signIn = async (token: string) => {
  await page.getByLabel('Admin token').fill(token);
  await page.getByRole('button', { name: 'Sign in' }).click();
};

beforeAll(async () => {
  await server.start();
  paths = await server.paths();
  server.swarm(60, 150);
  victim = await server.device('victim', 'phone');
  page = await browser.open(`${server.admin}/`);
});

afterAll(async () => {
  await browser.close();
  server.stop();
});

test('nobody gets in without a token, and with one the cookie is out of reach of scripts', async () => {
  expect(page.url()).toBe(`${server.admin}/dashboard/`);
  await page.getByRole('heading', { name: 'Stonechat' }).waitFor();
  expect(await violations(page)).toEqual([]);
  await picture(page, 'sign-in');
  await signIn('not a token');
  await page.getByRole('alert').waitFor();
  await signIn(server.secret());
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
      await go(address, title);
      await eventually(`${title} has loaded`, async () => {
        const waiting = await page.getByText('Loading…').count();
        return waiting === 0 || undefined;
      });
      expect(await page.locator('main .notice.bad').allTextContents(), title).toEqual([]);
      expect(await violations(page), `${title} in ${scheme}`).toEqual([]);
      await picture(page, `${address.replace('/', '-')}-${scheme}`);
    }
  });
}

test('on a phone nothing is wider than the screen', async () => {
  await page.setViewportSize({ width: 375, height: 720 });
  for (const [address, title] of PAGES) {
    await go(address, title);
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(wider, title).toBeLessThanOrEqual(0);
    await picture(page, `${address.replace('/', '-')}-phone`);
  }
  await page.setViewportSize({ width: 1280, height: 800 });
});

test('the tree can be walked by keys', async (context) => {
  if (!can('/actors/tree')) context.skip();
  await go('actors', 'Actors');
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
  await page.locator('.row.flash', { hasText: 'victim' }).waitFor();
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
  await panel.getByRole('button', { name: /^Restart/ }).click();
  const dialog = page.getByRole('dialog');
  expect(await violations(page)).toEqual([]);
  await dialog.getByLabel(/Reason/).fill('to see what happens');
  await dialog.getByRole('button', { name: 'Restart' }).click();
  await told(/told to restart/);
  await eventually('the next generation', async () => (await panel.textContent())?.includes('generation3') || undefined);
  expect(victim.closed).toBe(false);
  await page.keyboard.press('Escape');
});

test('a user is found, disconnected, disabled and enabled', async () => {
  await go('users', 'Users');
  await page.getByLabel('Find a user').fill('vict');
  await page.getByRole('link', { name: 'victim' }).click();
  await page.getByRole('heading', { level: 1, name: 'victim' }).waitFor();
  await page.getByText('connected', { exact: true }).first().waitFor();
  await picture(page, 'user');
  await page.getByRole('button', { name: 'Disconnect phone' }).click();
  await told(/1 connections? of phone closed/);
  await eventually('the device is gone', () => victim.closed || undefined);
  await page.getByRole('button', { name: 'Disable' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Disable' }).click();
  await told('victim is disabled.');
  await page.getByRole('button', { name: 'Enable' }).click();
  await told('victim is enabled.');
});

test('a dead letter is looked at and replayed', async () => {
  const bob = await server.device('bob', 'phone');
  const alice = await server.device('alice', 'phone');
  const id = newId();
  await server.api('POST', '/faults/panic', { target: 'session', user: 'bob', on_id: id });
  await alice.send(id, 'bob', { poison: 'ivy' });
  await go('dead-letters', 'Dead letters');
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
  await told(/is back in bob/);
  await page.getByText('There are none.').waitFor();
});

test('what was done is in the audit log', async () => {
  await go('audit', 'Audit');
  const restarts = can('/actors/{id}/restart') ? ['actors.restart'] : [];
  for (const action of ['session.open', 'users.disconnect', 'dead_letters.replay', ...restarts]) {
    await page.getByRole('rowheader', { name: action, exact: true }).first().waitFor();
  }
  if (restarts.length > 0) await page.getByText('to see what happens').waitFor();
});

test('a backup is made while the node serves', async (context) => {
  if (!can('/node/backups')) context.skip();
  await go('maintenance', 'Maintenance');
  await page.getByLabel('Name').fill('before-lunch');
  await page.getByRole('button', { name: 'Back up now' }).click();
  const row = page.getByRole('row', { name: /before-lunch/ });
  await row.getByText('done', { exact: true }).waitFor();
});

test('the node is drained and taken back', async (context) => {
  if (!can('/node/drain')) context.skip();
  await go('maintenance', 'Maintenance');
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

test('a viewer sees all and can do nothing; a revoked token ends its session', async () => {
  const made = await server.api<{ id: string; token: string }>('POST', '/admin-tokens', {
    name: 'watcher',
    role: 'viewer',
    ttl_s: 600,
  });
  await signIn(made.token);
  await go('user/bob', 'bob');
  await page.getByRole('button', { name: 'Revoke all tokens' }).waitFor();
  expect(await page.getByRole('button', { name: 'Revoke all tokens' }).isDisabled()).toBe(true);
  await server.api('DELETE', `/admin-tokens/${made.id}`);
  await page.getByText('The session has ended.').waitFor();
});

test('neither the browser nor the server complained', () => {
  expect(browser.complaints).toEqual([]);
  expect(server.errors(/injected|panick|crash/i)).toEqual([]);
});
