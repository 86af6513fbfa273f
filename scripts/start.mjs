// `npm start`: installs and builds what is missing or stale, then runs Millrace in this same process, so that
// signals reach it directly; package.json runs it by `exec`, because the shell in between would not pass them on.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureInstalled, root } from './install.mjs';

const minimumNode = [20, 11];
const dist = join(root, 'dist');
const stamp = join(dist, '.built-from');

checkNode();
ensureInstalled();
build();
await import(new URL('../dist/main.js', import.meta.url));

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > minimumNode[0] || (major === minimumNode[0] && minor >= minimumNode[1])) return;
  process.stderr.write(
    `millrace: Node ${process.versions.node} is too old; use Node ${minimumNode.join('.')} or newer\n`,
  );
  process.exit(1);
}

function build() {
  const sources = describeSources();
  if (readStamp() === sources) return;
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
    process.exit(1);
  }
  writeFileSync(stamp, sources);
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
