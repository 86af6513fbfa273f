// Reads the settings once, at start: flags over environment over millrace.yaml over defaults; and the definitions of
// pipelines, those of flags over those of the file. Whatever is not understood ends the start: a typing mistake in a setting must not become its default.
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type GivenDefinitions, givenIn } from './definition.ts';
import { codeOf, messageOf, OperationalError } from './errors.ts';
import { didYouMean } from './nearest.ts';
import { dereference, referredFile, refusePassword } from './references.ts';
import { BadValue } from './setting-types.ts';
import { flagOf, type SettingName, type Settings, settingNames, settingOf, variableOf } from './settings.ts';

export type { Address } from './setting-types.ts';
export type { Settings } from './settings.ts';

export interface Sources {
  /** Without the program's own name. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
}

/** A setting's text and where it was written, as a sentence names it. */
interface Written {
  readonly text: string;
  readonly where: string;
}
type WrittenSettings = Map<SettingName, Written>;

/** The parts of millrace.yaml that are not flat, and flags of their names. */
const parts = [
  { key: 'capture', setting: 'captures', document: 'docs/capture.md' },
  { key: 'sinks', setting: 'sinks', document: 'docs/sink.md' },
  { key: 'deliver', setting: 'inboxes', document: 'docs/delivery.md' },
  { key: 'mirror', setting: 'mirrors', document: 'docs/moving.md' },
] as const;
type Part = (typeof parts)[number];
type PartKey = Part['key'];
type WrittenDefinitions = Map<PartKey, GivenDefinitions>;

export const defaultConfigFile = 'millrace.yaml';
const configVariable = 'MILLRACE_CONFIG';
/** Set by the test runner, or by Kubernetes for a service that is called millrace; no settings of ours. */
const foreignVariable = /^MILLRACE_(TEST_|SERVICE_|PORT(_|$))/;

/** The defaults with some of them replaced. */
export function settingsWith(values: Partial<Settings>): Settings {
  const defaults = Object.fromEntries(settingNames.map(name => [name, settingOf(name).default]));
  return Object.freeze({
    captures: {},
    sinks: {},
    inboxes: {},
    mirrors: {},
    secretFiles: {},
    ...defaults,
    ...values,
  }) as Settings;
}

export async function readSettings(sources: Sources): Promise<Settings> {
  const flags = await readFlags(sources.argv);
  const variables = readVariables(sources.env);
  const file = await readFile(sources, flags.config);
  const values: Record<string, unknown> = {};
  const secretFiles: Partial<Record<SettingName, string>> = {};
  for (const name of settingNames) {
    const written = flags.settings.get(name) ?? variables.get(name) ?? file.settings.get(name);
    values[name] = written === undefined ? settingOf(name).default : parse(name, written, sources);
    const from = written && settingOf(name).secret ? referredFile(written.text, sources) : undefined;
    if (from !== undefined) secretFiles[name] = from;
  }
  const settings = settingsWith({ ...(values as Partial<Settings>), ...definitionsOf(file, flags), secretFiles });
  return Object.freeze({ ...settings, dataDir: resolve(sources.cwd, settings.dataDir) });
}

interface Flags {
  readonly settings: WrittenSettings;
  readonly config: string | undefined;
  readonly definitions: WrittenDefinitions;
}

async function readFlags(argv: readonly string[]): Promise<Flags> {
  const settings: WrittenSettings = new Map();
  const definitions: WrittenDefinitions = new Map();
  let config: string | undefined;
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at]!;
    if (!argument.startsWith('--')) {
      throw badSetting(`unexpected argument ${quote(argument)}`, 'flags begin with --; see --help');
    }
    const equals = argument.indexOf('=');
    const flag = equals < 0 ? argument : argument.slice(0, equals);
    const name = settingNames.find(candidate => flagOf(settingOf(candidate).key) === flag);
    const part = parts.find(({ key }) => flagOf(key) === flag);
    if (name === undefined && part === undefined && flag !== '--config') {
      const known = [
        '--config',
        ...parts.map(({ key }) => flagOf(key)),
        ...settingNames.map(candidate => flagOf(settingOf(candidate).key)),
      ];
      throw badSetting(`unknown flag ${flag}`, `${didYouMean(flag, known)}see --help`);
    }
    let text = equals < 0 ? undefined : argument.slice(equals + 1);
    if (text === undefined) {
      const next = argv[at + 1];
      const isSwitch = name !== undefined && typeof settingOf(name).default === 'boolean';
      if (isSwitch && next !== 'true' && next !== 'false') {
        text = 'true';
      } else if (next === undefined || next.startsWith('--')) {
        throw badSetting(`${flag} needs a value`, 'see --help');
      } else {
        text = next;
        at++;
      }
    }
    if (part !== undefined) put(definitions, part.key, await definitionIn(flag, text));
    else if (name === undefined) config = text;
    else settings.set(name, { text, where: flag });
  }
  return { settings, config, definitions };
}

/** `NAME=YAML`: what stands below the name in millrace.yaml, in YAML's flow style or JSON. */
async function definitionIn(flag: string, text: string): Promise<GivenDefinitions> {
  const [, name, yaml] = /^([^={]+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined || yaml === undefined) {
    throw badSetting(`${flag} is ${quote(text)}`, "give NAME=DEFINITION, such as 'a={topics: [a]}'");
  }
  const { parse: parseYaml } = await import('yaml');
  let written: unknown;
  try {
    written = parseYaml(yaml);
  } catch (error) {
    throw badSetting(`${flag} ${name} is not YAML: ${firstLine(error)}`, 'correct it');
  }
  return givenIn(`flag ${flag}`, { [name]: written });
}

/** A later one of the same name is it. */
function put(definitions: WrittenDefinitions, key: PartKey, given: GivenDefinitions): void {
  definitions.set(key, { ...definitions.get(key), ...given });
}

function definitionsOf(...given: readonly { readonly definitions: WrittenDefinitions }[]): Partial<Settings> {
  const all: WrittenDefinitions = new Map();
  for (const { definitions } of given) for (const [key, some] of definitions) put(all, key, some);
  return Object.fromEntries(parts.map(({ key, setting }) => [setting, Object.freeze(all.get(key) ?? {})]));
}

function readVariables(env: Sources['env']): WrittenSettings {
  const settings: WrittenSettings = new Map();
  const known = new Map(settingNames.map(name => [variableOf(settingOf(name).key), name]));
  for (const [variable, text] of Object.entries(env)) {
    if (!variable.startsWith('MILLRACE_') || variable === configVariable || text === undefined) continue;
    const name = known.get(variable);
    if (name !== undefined) settings.set(name, { text, where: `environment variable ${variable}` });
    else if (!foreignVariable.test(variable)) {
      const hint = `${didYouMean(variable, [...known.keys(), configVariable])}unset it, or see --help`;
      throw badSetting(`unknown environment variable ${variable}`, hint);
    }
  }
  return settings;
}

interface FileSettings {
  readonly settings: WrittenSettings;
  readonly definitions: WrittenDefinitions;
}

async function readFile(sources: Sources, flag: string | undefined): Promise<FileSettings> {
  const given = flag ?? sources.env[configVariable];
  const path = resolve(sources.cwd, given ?? defaultConfigFile);
  if (given === undefined && !existsSync(path)) return { settings: new Map(), definitions: new Map() };
  let source: string;
  try {
    source = readFileSync(path, 'utf8');
  } catch (error) {
    throw badSetting(
      `cannot read ${path} (${codeOf(error) ?? messageOf(error)})`,
      'give a file that can be read with --config',
    );
  }
  const { parse: parseYaml } = await import('yaml'); // only here: it costs a start without a file 30 ms
  let document: unknown;
  try {
    document = parseYaml(source) ?? {};
  } catch (error) {
    throw badSetting(`${path} is not YAML: ${firstLine(error)}`, 'correct it');
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw badSetting(`${path} does not hold "key: value" lines`, 'see docs/configuration.md');
  }
  const settings: WrittenSettings = new Map();
  const known = new Map(settingNames.map(name => [settingOf(name).key, name]));
  const definitions: WrittenDefinitions = new Map();
  for (const [key, value] of Object.entries(document)) {
    const part = parts.find(candidate => candidate.key === key);
    if (part !== undefined) {
      definitions.set(part.key, readDefinitions(part, value, path));
      continue;
    }
    const name = known.get(key);
    if (name === undefined) {
      throw badSetting(
        `unknown setting ${quote(key)} in ${path}`,
        `${didYouMean(key, [...known.keys(), ...parts.map(candidate => candidate.key)])}remove it or correct it`,
      );
    }
    settings.set(name, { text: yamlText(key, value, path), where: `${key} in ${path}` });
    if (settingOf(name).secret) refusePassword(settings.get(name)!.text, key, `${key} in ${path}`);
  }
  return { settings, definitions };
}

/** By name, as they are written. What is in them is checked where it is understood. */
function readDefinitions({ key, setting, document }: Part, value: unknown, path: string): GivenDefinitions {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw badSetting(`${key} in ${path} does not hold ${setting} by their names`, `see ${document}`);
  }
  return givenIn(path, { ...value });
}

function yamlText(key: string, value: unknown, path: string): string {
  if (Array.isArray(value)) return value.map(item => yamlText(key, item, path)).join(',');
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value);
  const hint = 'write a plain value; keys are flat, with dots in their names';
  throw badSetting(`${key} in ${path} has ${value === null ? 'no value' : 'a nested value'}`, hint);
}

function parse(name: SettingName, written: Written, sources: Sources): unknown {
  const { type, secret } = settingOf(name);
  const text = secret ? dereference(written.text, written.where, sources) : written.text;
  try {
    return type.parse(text);
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
    const shown = secret ? 'the value' : quote(text);
    throw badSetting(`${written.where} is ${shown}`, `give ${error.message}`);
  }
}

function badSetting(message: string, hint: string): OperationalError {
  return new OperationalError(message, { code: 'BAD_SETTING', hint });
}

const firstLine = (error: unknown): string => messageOf(error).split('\n')[0]!.replace(/:$/, '');
const quote = (value: string): string => JSON.stringify(value.length > 100 ? `${value.slice(0, 100)}…` : value);
