// A reporter of node:test that writes one line for each skipped test: its file, its name, its reason.
import { relative } from 'node:path';

export default async function* skips(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' || data.skip === undefined) continue;
    const reason = typeof data.skip === 'string' && data.skip !== '' ? data.skip : 'no reason given';
    yield `${data.file ? `${relative(process.cwd(), data.file)}: ` : ''}${data.name}: ${reason}\n`;
  }
}
