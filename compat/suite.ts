// The common shape of the JavaScript suites: a table of named checks against the broker given as first argument (or in
// BOOTSTRAP). A second argument runs only the checks whose name contains it. Output, one line each, read by run.mjs:
// "1..N" first, then "ok NAME", "not ok NAME: reason" or "skip NAME: reason". Exit code 1 when a check failed.

import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

export interface Check {
  name: string;
  run: () => Promise<void>;
  /** Set when the client cannot express the check. */
  skip?: string;
}

export const bootstrap = process.argv[2] ?? process.env.BOOTSTRAP ?? '127.0.0.1:9092';
const only = process.argv[3] ?? '';
const run = `${Date.now().toString(36)}${process.pid.toString(36)}`;
let names = 0;

/** A topic or group name that no earlier run against the same broker has used. */
export function unique(word: string): string {
  names += 1;
  return `compat-${word}-${run}-${names}`;
}

export async function runSuite(checks: Check[], timeoutMs = 60_000): Promise<never> {
  const chosen = checks.filter(check => check.name.includes(only));
  console.log(`1..${chosen.length}`);
  let failures = 0;
  for (const check of chosen) {
    const startedAt = Date.now();
    try {
      if (!check.skip) await withTimeout(check.run(), timeoutMs);
      console.log(check.skip ? `skip ${check.name}: ${check.skip}` : `ok ${check.name}`);
    } catch (error) {
      failures += 1;
      console.log(`not ok ${check.name}: ${oneLine(error)}`);
    }
    if (process.env.COMPAT_TIMES) console.error(`# ${check.name} ${Date.now() - startedAt} ms`);
  }
  process.exit(failures > 0 ? 1 : 0);
}

function withTimeout(work: Promise<void>, timeoutMs: number): Promise<void> {
  const clock = new AbortController();
  const late = delay(timeoutMs, undefined, { signal: clock.signal }).then(() => {
    throw new Error(`no result after ${timeoutMs / 1000} s`);
  });
  late.catch(() => undefined);
  return Promise.race([work, late]).finally(() => clock.abort());
}

function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const causes = error instanceof AggregateError ? error.errors.map(oneLine).join('; ') : '';
  return `${text} ${causes}`.replaceAll(/\s+/g, ' ').trim().slice(0, 500);
}

/** Polls a condition the client library offers no event for. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, timeoutMs = 30_000) {
  const deadline = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs / 1000} s for: ${what}`);
    await delay(25);
  }
}

export interface Finished {
  status: number | null;
  stdout: Buffer;
  stderr: string;
}

/** Runs a program to its end with the given standard input. */
export function execute(command: string, args: string[], input?: Buffer | string): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', chunk => out.push(chunk));
    child.stderr.on('data', chunk => err.push(chunk));
    child.once('error', reject);
    child.once('close', status => {
      resolve({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() });
    });
    // A program that ends before it has read everything is judged by its status.
    child.stdin.once('error', () => undefined);
    child.stdin.end(input);
  });
}

/** Another process of the running suite, e.g. a group member to be killed; resolves when it prints the awaited word. */
export function startMember(script: string, args: string[], ready: string): Promise<ChildProcess> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let seen = '';
    child.once('error', reject);
    child.once('exit', code => reject(new Error(`member process ended with ${code}`)));
    child.stdout.on('data', chunk => {
      seen += chunk;
      if (seen.includes(ready)) resolve(child);
    });
  });
}
