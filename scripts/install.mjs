// Installs node_modules with `npm ci` where something of package-lock.json is missing from it. Plain JavaScript
// without dependencies: it runs before there are any.
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

export function ensureInstalled() {
  if (isInstalled()) return;
  process.stderr.write('millrace: installing dependencies (npm ci)\n');
  // --include: with NODE_ENV=production npm would leave out the compiler, with some settings PostgreSQL.
  const { status, error } = spawnSync('npm', ['ci', '--include=dev', '--include=optional', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status === 0) return;
  const reason = error ? error.message : 'npm ci failed, see above';
  process.stderr.write(`millrace: cannot install the dependencies (${reason}); is the npm registry reachable?\n`);
  process.exit(1);
}

/** npm keeps what it has installed in node_modules/.package-lock.json, in the form of package-lock.json. */
function isInstalled() {
  const wanted = `${root}package-lock.json`;
  const installed = `${root}node_modules/.package-lock.json`;
  const installedTime = statSync(installed, { throwIfNoEntry: false })?.mtimeMs;
  if (installedTime === undefined) return false;
  if (installedTime >= statSync(wanted).mtimeMs) return true;
  // A checkout touches the file without changing it, so a newer time is only a reason to look.
  const has = readPackages(installed);
  return Object.entries(readPackages(wanted)).every(
    ([path, { version, optional }]) => path === '' || optional || has[path]?.version === version,
  );
}

function readPackages(path) {
  return JSON.parse(readFileSync(path, 'utf8')).packages;
}
