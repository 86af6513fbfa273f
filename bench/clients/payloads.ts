// The record values, the same bytes for every system and client: a file with a value in each line, random letters as
// Kafka's own ProducerPerformance makes them.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const directory = fileURLToPath(new URL('../../.cache/bench', import.meta.url));
const values = 4096;

export function payloadFile(recordBytes: number): string {
  const path = join(directory, `payloads-${recordBytes}`);
  if (existsSync(path)) return path;
  mkdirSync(directory, { recursive: true });
  const next = xorshift(2463534242);
  const line = () =>
    Uint8Array.from({ length: recordBytes + 1 }, (_, i) => (i === recordBytes ? 10 : 65 + (next() % 26)));
  writeFileSync(path, Buffer.concat(Array.from({ length: values }, line)));
  return path;
}

/** Seeded, so that the file is the same on every machine. */
function xorshift(state: number): () => number {
  let x = state;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}
