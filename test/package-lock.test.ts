// npm leaves a package out of package-lock.json when the registry it asked did not have it, and `npm ci` then refuses
// the file: on every machine, even where the package is for another platform.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

interface Package {
  readonly dependencies?: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
}

test('package-lock.json holds every package’s dependencies, for all platforms', () => {
  const lock = readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8');
  const packages: Record<string, Package> = JSON.parse(lock).packages;
  const missing = Object.entries(packages).flatMap(([path, { dependencies, optionalDependencies }]) =>
    Object.keys({ ...dependencies, ...optionalDependencies })
      .filter(name => !placesToLook(path, name).some(place => place in packages))
      .map(name => `${name}, needed by ${path}`),
  );
  assert.deepEqual(missing, []);
});

/** Where Node finds `name` from `path`, nearest first. */
function placesToLook(path: string, name: string): string[] {
  const places: string[] = [];
  for (let at = path; ; ) {
    places.push(at === '' ? `node_modules/${name}` : `${at}/node_modules/${name}`);
    if (at === '') return places;
    const above = at.lastIndexOf('/node_modules/');
    at = above < 0 ? '' : at.slice(0, above);
  }
}
