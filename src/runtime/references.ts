// Secrets are written by reference: env:NAME or file:PATH. What is committed, mailed, stored and shown holds the
// reference only; the value is looked up where it is needed.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { codeOf, OperationalError } from './errors.ts';

export interface ReferenceSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What relative paths are relative to. */
  readonly cwd: string;
}

export const isReference = (text: string): boolean => /^(env|file):/.test(text);

/** The text that `text` refers to, or itself. `where` names it in the error. */
export function dereference(text: string, where: string, { env, cwd }: ReferenceSources): string {
  const [, kind, target = ''] = /^(env|file):(.*)$/s.exec(text) ?? [];
  if (kind === 'env') {
    const value = env[target];
    if (value !== undefined && value !== '') return value;
    throw badReference(`${where} refers to the environment variable ${target}, which is not set`, 'set it');
  }
  if (kind === 'file') {
    const path = resolve(cwd, target);
    try {
      return readFileSync(path, 'utf8').trim();
    } catch (error) {
      throw badReference(
        `${where} refers to ${path}, which cannot be read (${codeOf(error)})`,
        'correct the path or its permissions',
      );
    }
  }
  return text;
}

/** The path of the file that `text` refers to; undefined where it refers to none. */
export function referredFile(text: string, { cwd }: ReferenceSources): string | undefined {
  return text.startsWith('file:') ? resolve(cwd, text.slice('file:'.length)) : undefined;
}

/** Throws for a URL with a password in it; `key` is what it was given for. */
export function refusePassword(text: string, key: string, where: string): void {
  if (isReference(text)) return;
  if (/^\w+:\/\/[^@?]*:[^?]*@/.test(text) || /[?&](ssl)?password=/.test(text)) {
    throw badReference(`${where} holds a password`, `write ${key}: env:NAME or ${key}: file:PATH instead`);
  }
}

function badReference(message: string, hint: string): OperationalError {
  return new OperationalError(message, { code: 'BAD_SETTING', hint });
}
