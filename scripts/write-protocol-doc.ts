// Writes what the handlers say of themselves into docs/protocol.md and docs/deviations.md: npm run docs:protocol
import { readFileSync, writeFileSync } from 'node:fs';
import { replaceDeviations, replaceProtocol } from './protocol-doc.ts';

for (const [name, replace] of [
  ['protocol', replaceProtocol],
  ['deviations', replaceDeviations],
] as const) {
  const path = new URL(`../docs/${name}.md`, import.meta.url);
  writeFileSync(path, replace(readFileSync(path, 'utf8')));
}
