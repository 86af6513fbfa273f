// What each suite needs before it can run: programs of this machine, and what they fetch or build into .cache/. A suite
// is ready as {command, args, env}, or skipped as {missing: why}.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));
export const cache = join(root, '.cache');
const compat = join(root, 'compat');

const has = program => !spawnSync(program, ['--version'], { stdio: 'ignore' }).error;

/** Its output, or undefined when it failed, having said on standard error why. */
function run(program, args, options = {}) {
  const result = spawnSync(program, args, { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', ...options });
  if (result.error) process.stderr.write(`${program}: ${result.error.message}\n`);
  return result.status === 0 ? result.stdout : undefined;
}

export const script = (file, ...args) => ({
  command: process.execPath,
  args: ['--import', 'tsx', join(compat, file), ...args],
});

export function kcat() {
  if (has('kcat')) return {};
  if (process.getuid?.() !== 0 || !has('apt-get')) return { missing: 'no kcat (apt-get install kcat)' };
  const quiet = { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
  const install = () => spawnSync('apt-get', ['install', '-y', '-qq', 'kcat'], quiet).status === 0;
  if (install()) return {};
  spawnSync('apt-get', ['update', '-qq'], quiet);
  return install() ? {} : { missing: 'apt-get could not install kcat' };
}

let javaIsReady;

/** Compiles compat/java; its class path, with the client's and the tools' jars. */
export function java() {
  javaIsReady ??= prepareJava();
  return javaIsReady;
}

function prepareJava() {
  for (const program of ['java', 'javac']) if (!has(program)) return { missing: `no ${program} (a JDK 17 or newer)` };
  if (!existsSync(join(cache, 'kafka-4.3.1')) && !has('mvn'))
    return { missing: 'no mvn to download the Java client with' };
  const { command, args } = script('kafka/main.ts', '--classpath');
  const jars = run(command, args)?.trim();
  if (!jars) return { missing: 'the Java client could not be downloaded' };
  const classes = join(cache, 'compat-java');
  mkdirSync(classes, { recursive: true });
  const sources = readdirSync(join(compat, 'java')).filter(name => name.endsWith('.java'));
  const files = sources.map(name => join(compat, 'java', name));
  if (run('javac', ['-d', classes, '-cp', jars, ...files]) === undefined)
    throw new Error('compat/java does not compile');
  const logging = `-Dlog4j2.configurationFile=file:${join(compat, 'java', 'log4j2.properties')}`;
  const options = ['-cp', `${classes}:${jars}`, logging];
  return { command: 'java', args: [...options, 'Compat'], options };
}

export function python() {
  const interpreter = ['python3', 'python'].find(has);
  if (!interpreter) return { missing: 'no python3' };
  const home = join(cache, 'python');
  const requirements = join(compat, 'python', 'requirements.txt');
  const stamp = join(home, '.requirements');
  const wanted = readFileSync(requirements, 'utf8');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    rmSync(home, { recursive: true, force: true });
    if (run(interpreter, ['-m', 'venv', home]) === undefined) return { missing: 'python3 cannot make a venv' };
    const pip = ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-r', requirements];
    if (run(join(home, 'bin/python'), pip) === undefined) return { missing: 'pip could not install confluent-kafka' };
    writeFileSync(stamp, wanted);
  }
  return { command: join(home, 'bin/python'), args: [join(compat, 'python', 'suite.py')] };
}

export function go() {
  const version = spawnSync('go', ['version'], { encoding: 'utf8' });
  if (version.status !== 0) return { missing: 'no go' };
  const program = join(cache, 'compat-franz-go');
  if (run('go', ['build', '-o', program, '.'], { cwd: join(compat, 'franz-go') }) === undefined) {
    return { missing: `${version.stdout.trim()} could not build it` };
  }
  return { command: program, args: [] };
}

/** The file for the lines suite: text, one record a line, a million lines or more, no empty ones (kcat sends none). */
export function lines() {
  const file = join(cache, 'lines.txt');
  if (existsSync(file) && statSync(file).size > 0) return { file };
  mkdirSync(cache, { recursive: true });
  const text = (readPackageIndex() || readDocumentation()).replaceAll(/\n\n+/g, '\n').replace(/^\n/, '');
  const count = text.split('\n').length - 1;
  // What has fewer lines is repeated until there are a million.
  writeFileSync(file, text.repeat(Math.ceil(1_000_000 / count)));
  return { file };
}

/** Debian's package index as apt has it. */
function readPackageIndex() {
  const index = spawnSync('apt-cache', ['dumpavail'], { encoding: 'utf8', maxBuffer: 2 ** 30 });
  return index.status === 0 ? index.stdout : '';
}

/** Elsewhere than on Debian: the documentation of the installed packages. */
function readDocumentation() {
  const modules = join(root, 'node_modules');
  const files = readdirSync(modules, { recursive: true }).filter(name => name.endsWith('.md'));
  return files
    .sort()
    .map(name => `${readFileSync(join(modules, name), 'utf8').trimEnd()}\n`)
    .join('');
}
