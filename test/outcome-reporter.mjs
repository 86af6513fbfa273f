// A reporter of node:test that writes one line for each test that was skipped or failed, as JSON: which, and why.
import { relative } from 'node:path';

const longest = 600;

export default async function* outcomes(events) {
  for await (const { type, data } of events) {
    const test = `${data?.file ? `${relative(process.cwd(), data.file)}: ` : ''}${data?.name}`;
    if (type === 'test:pass' && data.skip !== undefined) {
      const reason = typeof data.skip === 'string' && data.skip !== '' ? data.skip : 'no reason given';
      yield `${JSON.stringify({ outcome: 'skipped', test, reason })}\n`;
    }
    if (type === 'test:fail') {
      const { error } = data.details;
      const reason = String(error?.cause?.message ?? error?.message ?? error)
        .replace(/\s+/g, ' ')
        .slice(0, longest);
      yield `${JSON.stringify({ outcome: 'failed', test, reason })}\n`;
    }
  }
}
