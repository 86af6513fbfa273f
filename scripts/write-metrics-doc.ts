// Writes the broker's metrics into docs/operations.md: npm run docs:metrics
import { readFileSync, writeFileSync } from 'node:fs';
import { replaceMetrics } from './metrics-doc.ts';

const path = new URL('../docs/operations.md', import.meta.url);
writeFileSync(path, await replaceMetrics(readFileSync(path, 'utf8')));
