// Reads the nested parts of millrace.yaml, and the same given by a flag or over HTTP, by a zod schema. What does not fit is told
// as the flat settings are: the whole key, the file, what it is, and what was expected.
import { z } from 'zod';
import { OperationalError } from './errors.ts';
import { didYouMean } from './nearest.ts';

/** Of a pipeline that was given at the start, and not read yet. */
export interface GivenDefinition {
  readonly written: unknown;
  /** The file or flag that it was in, as a sentence names it. */
  readonly where: string;
}

/** By the pipelines' names. */
export type GivenDefinitions = Readonly<Record<string, GivenDefinition>>;

export function givenIn(where: string, definitions: Readonly<Record<string, unknown>>): GivenDefinitions {
  return Object.fromEntries(Object.entries(definitions).map(([name, written]) => [name, { written, where }]));
}

export interface DefinitionPlace {
  /** Keys from the file's top down to the definition: capture, shop. */
  readonly path: readonly string[];
  /** Or the flag. Undefined for one that was given over HTTP. */
  readonly file: string | undefined;
}

type Issue = z.core.$ZodIssue;

/** `capture.shop.tables in /etc/millrace.yaml`, for messages. */
export function keyIn({ path, file }: DefinitionPlace, ...more: readonly PropertyKey[]): string {
  const key = [...path, ...more].map(String).join('.');
  return file === undefined ? key : `${key} in ${file}`;
}

/** Throws an OperationalError for the first thing that does not fit. */
export function parseDefinition<T extends z.ZodType>(schema: T, value: unknown, place: DefinitionPlace): z.output<T> {
  const read = schema.safeParse(value);
  if (read.success) return read.data;
  const issues = read.error.issues.map(closest);
  // A mistyped key is often also a missing one.
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0]!;
  const where = keyIn(place, ...issue.path);
  if (issue.code === 'unrecognized_keys') {
    const wrong = issue.keys[0]!;
    const known = keysAt(schema, issue.path);
    const hint = `${known.length > 0 ? didYouMean(wrong, known) : ''}remove it or correct it`;
    throw badDefinition(`${keyIn(place, ...issue.path, wrong)} is not a setting`, hint);
  }
  const given = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value);
  if (issue.code === 'invalid_key') {
    throw badDefinition(`${where} has a wrong name`, `give ${expected(issue.issues[0]!)} as the key`);
  }
  throw badDefinition(
    `${where} ${given === undefined ? 'is missing' : `is ${shown(issue.path, given)}`}`,
    `give ${expected(issue)}`,
  );
}

/** Of several forms that a value may have, the one that it has by its kind: what is wrong in there says more. */
function closest(issue: Issue): Issue {
  if (issue.code !== 'invalid_union') return issue;
  const fitting = issue.errors.find(([first]) => first !== undefined && first.code !== 'invalid_type');
  const inner = fitting?.[0];
  return inner === undefined ? issue : closest({ ...inner, path: [...issue.path, ...inner.path] });
}

const kinds: Readonly<Record<string, string>> = {
  array: 'a list',
  boolean: 'true or false',
  int: 'a whole number',
  number: 'a number',
  object: 'settings by their keys',
  record: 'values by their keys',
  string: 'text',
};

function expected(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return kinds[issue.expected] ?? issue.expected;
    case 'invalid_value':
      return issue.values
        .map(String)
        .join(', ')
        .replace(/, ([^,]*)$/, ' or $1');
    case 'too_small':
      return issue.origin === 'array' || issue.origin === 'string'
        ? `at least ${issue.minimum} ${issue.origin === 'array' ? 'of them' : 'characters'}`
        : `a number ${issue.inclusive ? 'of at least' : 'above'} ${issue.minimum}`;
    case 'too_big':
      return issue.origin === 'string' ? `at most ${issue.maximum} characters` : `at most ${issue.maximum}`;
    default:
      return issue.message; // the schema's own words
  }
}

/** What may hold a secret is not shown. */
function shown(path: readonly PropertyKey[], value: unknown): string {
  if (path.some(key => /source|database|url|password|secret|username/i.test(String(key)))) return 'not that';
  if (value !== null && typeof value === 'object') return Array.isArray(value) ? 'a list' : 'a nested value';
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function keysAt(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let at = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as z.core.JSONSchema.BaseSchema | undefined;
  for (const key of path) {
    const next: unknown = at?.properties?.[String(key)] ?? at?.additionalProperties;
    at = typeof next === 'object' && next !== null ? (next as z.core.JSONSchema.BaseSchema) : undefined;
  }
  return Object.keys(at?.properties ?? {});
}

function badDefinition(message: string, hint: string): OperationalError {
  return new OperationalError(message, { code: 'BAD_SETTING', hint });
}
