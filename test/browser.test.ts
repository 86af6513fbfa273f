// The page of examples/ in a real browser: its own EventSource, another origin than the server's.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { chromium } from 'playwright-core';
import { openAccess, openDeliverRig } from './deliver-rig.ts';

const browsers = [process.env.MILLRACE_TEST_CHROMIUM ?? '', '/usr/bin/chromium', '/usr/bin/google-chrome'];
const executablePath = browsers.find(path => path !== '' && existsSync(path));
const skip = executablePath === undefined && 'no Chromium is installed (MILLRACE_TEST_CHROMIUM names one)';

test('a browser’s EventSource has everything once, over a restart of the server', {
  skip,
  timeout: 300_000,
}, async () => {
  const page = readFileSync(new URL('../examples/notifications.html', import.meta.url));
  const pages = createServer((_request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end(page);
  });
  await new Promise<void>(resolve => pages.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  const rig = await openDeliverRig();
  const browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox'] });
  try {
    const topic = await rig.createTopic('events');
    const access = { ...openAccess, corsOrigins: [origin] };
    let server = await rig.serve({ news: { topics: ['events'] } }, { access });
    await rig.send(
      topic,
      [0, 1, 2].map(n => ({ key: 'ada', value: `note ${n}` })),
    );
    const tab = await browser.newPage();
    await tab.goto(`${origin}/#server=${server.url}&subscriber=ada`);
    const shown = async (count: number): Promise<string[]> => {
      await tab.waitForFunction(`document.querySelectorAll('li').length >= ${count}`);
      return tab.locator('li').evaluateAll(items => items.map(item => item.firstChild!.textContent!).reverse());
    };
    assert.deepEqual(await shown(3), ['note 0', 'note 1', 'note 2']);
    const port = Number(new URL(server.url).port);
    await server.stop();
    await rig.send(
      topic,
      [3, 4].map(n => ({ key: 'ada', value: `note ${n}` })),
    );
    server = await rig.serve({ news: { topics: ['events'] } }, { access, port });
    assert.deepEqual(await shown(5), ['note 0', 'note 1', 'note 2', 'note 3', 'note 4']);
    await rig.send(topic, [{ key: 'ada', value: '<img src=x>' }]);
    assert.equal((await shown(6))[5], '<img src=x>');

    const stranger = await browser.newPage();
    await stranger.goto(`${origin.replace('127.0.0.1', 'localhost')}/#server=${server.url}&subscriber=ada`);
    await stranger.waitForFunction(`document.getElementById('state').textContent === 'lost'`);
    assert.equal(await stranger.locator('li').count(), 0, 'a page of another origin reads nothing');
  } finally {
    await browser.close();
    pages.closeAllConnections();
    pages.close();
    await rig.remove();
  }
});
