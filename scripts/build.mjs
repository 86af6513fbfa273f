// Builds dist/ where it is missing or stale, for `npm start` and for the processes that tests start.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './install.mjs';

const dist = join(root, 'dist');
const stamp = join(dist, '.built-from');

/** Returns whether dist/ is what the sources say; the compiler has said why not. */
export function build() {
  const sources = describeSources();
  if (readStamp() === sources) return true;
  process.stderr.write('millrace: building\n');
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist, { recursive: true });
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const { status } = spawnSync(process.execPath, [compiler, '-p', 'tsconfig.build.json'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (status !== 0) {
    process.stderr.write('millrace: the build failed, see above\n');
    return false;
  }
  writeFileSync(stamp, sources);
  return true;
}

function readStamp() {
  try {
    return readFileSync(stamp, 'utf8');
  } catch {
    return undefined;
  }
}

/** Names, sizes and times of everything the build reads. */
function describeSources() {
  const hash = createHash('sha256');
  const files = readdirSync(join(root, 'src'), { recursive: true }).filter(file => /(?<!\.test)\.ts$/.test(file));
  for (const file of [
    'tsconfig.json',
    'tsconfig.build.json',
    'package-lock.json',
    ...files.sort().map(file => join('src', file)),
  ]) {
    const { size, mtimeMs } = statSync(join(root, file));
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  }
  return hash.digest('hex');
}
