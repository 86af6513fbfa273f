// Every declared message, for the tests that go through all of them.
import { readdirSync } from 'node:fs';
import type { Api } from '../src/protocol/schema.ts';

const messagesAt = new URL('../src/protocol/messages/', import.meta.url);

export async function everyApi(): Promise<Api[]> {
  const apis: Api[] = [];
  for (const file of readdirSync(messagesAt).sort()) {
    if (!/^\d\d-[a-z-]+\.ts$/.test(file)) continue;
    apis.push(...(Object.values(await import(new URL(file, messagesAt).href)) as Api[]));
  }
  return apis;
}
