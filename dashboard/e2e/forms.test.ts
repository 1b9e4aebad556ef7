// What an operator does at night, by the forms of the pages, against the real server.
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Page } from 'playwright-core';
import { Browser, picture, violations } from './browser';
import { Reader } from './pages';
import { eventually, newId, Server, type Device } from './server';

const server = new Server();
const browser = new Browser();
let page: Page;
let reader: Reader;
let ann: Device;
let token: string;

const depth = async (user: string) => (await server.api<{ depth: number }>('GET', `/users/${user}/mailbox`)).depth;
/** The form's own word on what was refused. */
const refusal = (text: string | RegExp) => reader.dialog().getByRole('alert').filter({ hasText: text }).waitFor();
const closed = () => eventually('no window is open', async () => (await reader.dialog().count()) === 0 || undefined);

beforeAll(async () => {
  await server.start();
  for (const user of ['bob', 'carol']) await server.api('POST', '/users', { user });
  page = await browser.open(`${server.admin}/`);
  reader = new Reader(page);
  await reader.signIn(server.secret());
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
});

afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') await picture(page, 'failed');
});

afterAll(async () => {
  await browser.close();
  await server.stop();
});

test('a user is created with a token that is shown once', async () => {
  await reader.go('users', 'Users');
  const dialog = await reader.opened('Create a user…', 'Create a user', 'form-create-user');
  const name = dialog.getByLabel('Name');
  expect(await name.evaluate((field) => field === document.activeElement)).toBe(true);
  expect(await dialog.getByRole('button', { name: 'Create' }).isDisabled()).toBe(true);
  await name.fill('not a name');
  await page.keyboard.press('Enter');
  await refusal(/./);
  expect(await violations(page)).toEqual([]);
  await name.fill('bob');
  await page.keyboard.press('Enter');
  await refusal('There is a user bob already. Nothing was changed.');
  await name.fill('ann');
  await dialog.getByLabel('Device').fill('phone');
  await dialog.getByLabel('Good for').selectOption({ label: '1 day' });
  await dialog.getByLabel('Device').press('Enter');
  const shown = dialog.getByLabel('Token', { exact: true });
  await shown.waitFor();
  token = await shown.inputValue();
  expect(await violations(page)).toEqual([]);
  await picture(page, 'form-token-shown');
  await dialog.getByRole('button', { name: 'Copy' }).click();
  await dialog.getByText('Copied.').waitFor();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(token);
  // A slip of the mouse does not take it away.
  await page.mouse.click(3, 400);
  expect(await shown.isVisible()).toBe(true);
  await dialog.getByRole('button', { name: 'Done' }).click();
  await closed();
  expect(await page.content()).not.toContain(token);
  expect(await page.evaluate(() => JSON.stringify([localStorage, sessionStorage]))).not.toContain(token);
  ann = await server.connect(token, 'phone');
});

test('a window that is left gives the focus back, and says nothing was done', async () => {
  await reader.go('user/ann', 'ann');
  const opener = reader.button(/^Set limits/);
  const focused = () => opener.evaluate((button) => button === document.activeElement || undefined);
  await opener.focus();
  await eventually('the button has the focus', focused);
  await page.keyboard.press('Enter');
  await reader.dialog().waitFor();
  await page.keyboard.press('Escape');
  await closed();
  await eventually('the button has the focus again', focused);
});

test('limits of one user are set, seen and cleared', async () => {
  await reader.go('user/ann', 'ann');
  let dialog = await reader.opened(/^Set limits/, 'Limits of ann', 'form-limits');
  await dialog.getByText('For everybody: 100k.').waitFor();
  await dialog.getByLabel('Messages in the mailbox').fill('20');
  await dialog.getByLabel('Messages sent a second').fill('7');
  await dialog.getByRole('button', { name: 'Set' }).click();
  await reader.told('The limits of ann hold from now on.');
  expect(await server.api('GET', '/users/ann')).toMatchObject({
    limits: { messages_per_s: 7, mailbox_messages_max: 20, mailbox_bytes_max: null },
  });
  await page.getByText('as for everybody', { exact: true }).waitFor();
  await reader.button(/^Set limits/).click();
  dialog = reader.dialog();
  expect(await dialog.getByLabel('Messages in the mailbox').inputValue()).toBe('20');
  await dialog.getByRole('button', { name: 'Clear all' }).click();
  await dialog.getByRole('button', { name: 'Set' }).click();
  await reader.told('ann has the limits of everybody.');
  expect(await server.api('GET', '/users/ann')).not.toHaveProperty('limits');
});

test('a message from the service goes out only after a look at whom it goes to', async () => {
  await reader.go('users', 'Users');
  const dialog = await reader.opened('Service message…', 'Message from the service', 'form-service-message');
  await dialog.getByLabel('To', { exact: true }).selectOption('some');
  await dialog.getByLabel('Users').fill('bob, carol\nbob nobody');
  await dialog.getByText('3 names.').waitFor();
  await dialog.getByLabel('Body').fill('{"note": "we move"}');
  await dialog.getByRole('button', { name: 'Preview' }).click();
  await dialog.getByText('bob, carol, nobody').waitFor();
  expect(await violations(page)).toEqual([]);
  await picture(page, 'form-service-message-preview');
  await dialog.getByRole('button', { name: 'Send to 3 users' }).click();
  // All of them or nobody.
  await refusal('there is no user nobody');
  expect(await depth('bob')).toBe(0);
  await dialog.getByRole('button', { name: 'Back' }).click();
  await dialog.getByLabel('To', { exact: true }).selectOption('all');
  expect(await dialog.getByLabel('Body').inputValue()).toBe('{"note": "we move"}');
  await dialog.getByRole('button', { name: 'Preview' }).click();
  await dialog.getByRole('button', { name: 'Send to all 3 users' }).click();
  await reader.told('The message is on its way to 3 users.');
  await eventually('it is there', async () => (await depth('carol')) === 1 || undefined);
  await ann.frame('message', (frame) => JSON.stringify(frame).includes('we move'));
});

test('the full mailbox is found, taken out, emptied and filled again', async () => {
  for (let n = 0; n < 11; n += 1) {
    await server.api('POST', '/service-messages', { to: { user: 'bob' }, body: { n } });
  }
  await reader.go('mailboxes', 'Mailboxes');
  const table = page.getByRole('table', { name: 'Fullest mailboxes' });
  // The node counts every ten seconds.
  await eventually('bob is the first', async () => {
    const first = await table.getByRole('row').nth(1).textContent();
    return first?.startsWith('bob12') || undefined;
  });
  await picture(page, 'mailboxes');
  await table.getByRole('link', { name: 'bob' }).click();
  await page.getByRole('heading', { level: 1, name: 'bob' }).waitFor();
  await reader.loaded('bob');
  const [file] = await Promise.all([page.waitForEvent('download'), reader.button('Export mailbox of bob').click()]);
  await reader.told('12 messages of bob');
  const exported = readFileSync(await file.path());
  expect(file.suggestedFilename()).toBe('bob.ndjson');
  expect(exported.toString().trim().split('\n').length).toBe(12);

  let dialog = await reader.opened('Purge… mailbox of bob', 'Purge the mailbox of bob', 'form-purge');
  await dialog.getByText('12 messages').waitFor();
  // What comes while the name is typed was not looked at, and stays.
  await server.api('POST', '/service-messages', { to: { user: 'bob' }, body: 'late' });
  const purge = dialog.getByRole('button', { name: 'Purge' });
  await dialog.getByLabel('Reason').fill('bob asked for it');
  await dialog.getByLabel('Type bob to confirm').fill('bo');
  expect(await purge.isDisabled()).toBe(true);
  await dialog.getByLabel('Type bob to confirm').fill('bob');
  await purge.click();
  await reader.told('12 messages to bob are thrown away.');
  expect(await depth('bob')).toBe(1);

  dialog = await reader.opened('Import… into the mailbox of bob', 'Import into the mailbox of bob', 'form-import');
  const upload = { name: 'bob.ndjson', mimeType: 'application/x-ndjson', buffer: exported };
  await dialog.getByLabel('File').setInputFiles({ ...upload, buffer: Buffer.from('{"id": 1}\n') });
  await dialog.getByRole('button', { name: 'Import' }).click();
  await refusal(/^line 1: /);
  await dialog.getByLabel('File').setInputFiles(upload);
  await dialog.getByText('12 messages,').waitFor();
  await dialog.getByRole('button', { name: 'Import' }).click();
  await reader.told('12 messages are in bob’s mailbox; 0 were there');
  expect(await depth('bob')).toBe(13);
});

test('the noisy user is found', async () => {
  for (let n = 0; n < 20; n += 1) await ann.send(newId(), 'carol', { n });
  await reader.go('users', 'Users');
  await reader.button('Busiest now').click();
  const table = page.getByRole('table', { name: 'Busiest users' });
  await table.getByRole('link', { name: 'ann' }).waitFor();
  expect(await violations(page)).toEqual([]);
  await reader.fits('busiest');
  await picture(page, 'busiest');
});

test('one token more, one revoked by its id, the device is out', async () => {
  await reader.go('user/ann', 'ann');
  const dialog = await reader.opened(/^Issue a token/, 'Issue a token to ann', 'form-issue-token');
  await dialog.getByLabel('Device').fill('desk');
  await dialog.getByRole('button', { name: 'Issue' }).click();
  const shown = dialog.getByLabel('Token', { exact: true });
  await shown.waitFor();
  const id = (await dialog.locator('code').textContent()) ?? '';
  const desk = await server.connect(await shown.inputValue(), 'desk');
  await dialog.getByRole('button', { name: 'Done' }).click();
  if (await server.offers('get', '/users/{user}/tokens')) {
    await page.getByRole('row', { name: new RegExp(`${id} desk good`) }).waitFor();
  }
  await reader.opened('Revoke a token…', 'Revoke one token', 'form-revoke-token');
  await reader.dialog().getByLabel('Id of the token').fill('nonsense');
  await page.keyboard.press('Enter');
  await refusal(/./);
  await reader.dialog().getByLabel('Id of the token').fill(id);
  await page.keyboard.press('Enter');
  await reader.told(`The token ${id} is revoked.`);
  await eventually('the desk is out', () => desk.closed || undefined);
  if (await server.offers('get', '/users/{user}/tokens')) {
    await page.getByRole('row', { name: new RegExp(`${id} desk revoked`) }).waitFor();
  }
  expect(ann.closed).toBe(false);
  await reader.button('Revoke all tokens').click();
  await reader.dialog().getByRole('button', { name: 'Revoke all tokens' }).click();
  await reader.told('The tokens of ann are revoked.');
  await eventually('ann is out', () => ann.closed || undefined);
});

test('an admin token is issued, limited, and revoked', async () => {
  await reader.go('admin-tokens', 'Admin tokens');
  const dialog = await reader.opened('Issue a token…', 'Issue an admin token', 'form-admin-token');
  await dialog.getByLabel('Name').fill('night');
  await dialog.getByLabel('Role').selectOption('operator');
  await dialog.getByLabel('Good for').selectOption({ label: '1 day' });
  await dialog.getByLabel('actors', { exact: true }).check();
  await dialog.getByLabel('access', { exact: true }).check();
  await dialog.getByRole('button', { name: 'Issue' }).click();
  const shown = dialog.getByLabel('Token', { exact: true });
  await shown.waitFor();
  const headers = { authorization: `Bearer ${await shown.inputValue()}` };
  const who = () => fetch(`${server.admin}/admin/v1/whoami`, { headers });
  expect(await (await who()).json()).toMatchObject({ name: 'night', role: 'operator', scope: ['actors', 'access'] });
  await dialog.getByRole('button', { name: 'Done' }).click();
  const row = page.getByRole('row', { name: /night/ });
  await row.getByText('good').waitFor();
  await picture(page, 'admin-tokens');

  await reader.button('Issue a token…').click();
  await dialog.getByLabel('Name').fill('night');
  await page.keyboard.press('Enter');
  await refusal(/there is a token named night already/);
  await page.keyboard.press('Escape');
  await closed();

  await reader.button('Revoke night').click();
  await dialog.getByRole('button', { name: 'Revoke' }).click();
  await reader.told('The token of night is revoked.');
  expect((await who()).status).toBe(401);
  await page.getByLabel('with those that are over').check();
  await row.getByText('revoked').waitFor();
});

test('a dead letter is discarded with a reason, which the audit log keeps', async () => {
  const dan = await server.device('dan', 'phone');
  const eve = await server.device('eve', 'phone');
  const id = newId();
  await server.api('POST', '/faults/panic', { target: 'session', user: 'dan', on_id: id });
  await eve.send(id, 'dan', 'poison');
  await reader.go('dead-letters', 'Dead letters');
  await reader.button(/^Discard dead letter/).click();
  const discard = reader.dialog().getByRole('button', { name: 'Discard' });
  await discard.click();
  // The browser asks for the reason; nothing has happened.
  await reader.dialog().getByLabel('Reason').fill('poisoned by hand');
  await discard.click();
  await reader.told(/is discarded/);
  await page.getByText('There are none.').waitFor();
  await reader.go('audit', 'Audit');
  await page.getByText('poisoned by hand').waitFor();
  await page.getByText('bob asked for it').waitFor();
  dan.socket.close();
});

test('the log filter is changed for a while', async () => {
  await reader.go('node', 'Configuration and limits');
  const filter = page.getByRole('textbox', { name: 'Log filter' });
  const before = await filter.inputValue();
  await filter.fill('no=such=filter');
  await reader.button('Apply log filter').click();
  await reader.told(/./);
  await filter.fill('debug');
  await page.getByLabel('How long').selectOption({ label: 'for 1 hour' });
  await reader.button('Apply log filter').click();
  await reader.told('The log filter is in force for 1 hour.');
  await page.getByText(`it is ${before} again.`).waitFor();
  expect(await server.api('GET', '/node/log')).toMatchObject({ filter: 'debug', back_to: before });
  await filter.fill(before);
  await page.getByLabel('How long').selectOption({ label: 'until the next start' });
  await reader.button('Apply log filter').click();
  await reader.told('The log filter is in force until the next start.');
});

test('a user is removed only by typing the name', async () => {
  await reader.go('user/carol', 'carol');
  const dialog = await reader.opened('Remove… carol', 'Remove carol', 'form-remove');
  const remove = dialog.getByRole('button', { name: 'Remove' });
  await dialog.getByLabel('Type carol to confirm').fill('Carol');
  expect(await remove.isDisabled()).toBe(true);
  await dialog.getByLabel('Type carol to confirm').fill('carol');
  await remove.click();
  await reader.told('carol is removed.');
  await page.getByRole('heading', { level: 1, name: 'Users' }).waitFor();
  await expect(server.api('GET', '/users/carol')).rejects.toThrow(/unknown_user/);
});

test('neither the browser nor the server complained', () => {
  expect(browser.complaints).toEqual([]);
  expect(server.errors(/injected|panick|crash/i)).toEqual([]);
});
