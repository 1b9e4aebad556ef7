// What every test of the pages does: sign in, go somewhere, wait for what is there.
import { expect } from 'vitest';
import type { Page } from 'playwright-core';
import { picture, seen, violations } from './browser';
import { eventually } from './server';

/** Drives one page of the browser. */
export class Reader {
  /** Notices that tests have read already. */
  #read = 0;

  constructor(readonly page: Page) {}

  async offer(token: string) {
    await this.page.getByLabel('Admin token').fill(token);
    await this.page.getByRole('button', { name: 'Sign in' }).click();
  }

  async signIn(token: string) {
    await this.offer(token);
    await this.page.getByRole('navigation', { name: 'Pages' }).waitFor();
  }

  async go(address: string, title: string) {
    await this.page.evaluate((to) => (location.hash = `#/${to}`), address);
    await this.page.getByRole('heading', { level: 1, name: title, exact: true }).waitFor();
    // What loads above a button moves it while it is pressed.
    await this.loaded(title);
  }

  /** Everything the page asked for at first is there. */
  loaded = (title: string) =>
    eventually(`${title} has loaded`, async () => (await this.page.getByText('Loading…').count()) === 0 || undefined);

  /** What the page said about something that was done, since the last that was waited for; also when it is gone again. */
  async told(text: string | RegExp) {
    this.#read = await eventually(`the page says ${String(text)}`, async () => {
      const { told } = await seen(this.page);
      const at = told.findIndex(
        (one, place) => place >= this.#read && (typeof text === 'string' ? one.includes(text) : text.test(one)),
      );
      return at < 0 ? undefined : at + 1;
    });
  }

  button = (name: string | RegExp) => this.page.getByRole('button', { name });
  dialog = () => this.page.getByRole('dialog');

  /** Opens a window and looks at it in both colours and on a phone. */
  async opened(button: string | RegExp, title: string | RegExp, name: string) {
    await this.button(button).click();
    const dialog = this.dialog();
    await dialog.getByRole('heading', { name: title }).waitFor();
    await eventually('the window has loaded', async () => (await dialog.getByText('Loading…').count()) === 0 || undefined);
    for (const colorScheme of ['dark', 'light'] as const) {
      await this.page.emulateMedia({ colorScheme });
      expect(await violations(this.page), `${name} in ${colorScheme}`).toEqual([]);
      await picture(this.page, `${name}-${colorScheme}`);
    }
    await this.page.setViewportSize({ width: 375, height: 720 });
    await this.fits(name);
    await picture(this.page, `${name}-phone`);
    await this.page.setViewportSize({ width: 1280, height: 800 });
    return dialog;
  }

  /** Nothing is wider than the screen, nor than the window above it. */
  async fits(name: string) {
    const wider = await this.page.evaluate(() => {
      const sheets = [...document.querySelectorAll('dialog[open]')];
      const over = [document.documentElement, ...sheets].map((one) => one.scrollWidth - one.clientWidth);
      return Math.max(...over);
    });
    expect(wider, name).toBeLessThanOrEqual(0);
  }
}
