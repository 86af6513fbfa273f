// What docs/protocol.md and docs/deviations.md say of each API, from the handlers: their versions, the contract at the
// head of each file, and the error codes that the sources name. `npm run docs:protocol` writes it, and
// test/documents.test.ts finds a document that does not agree with the code.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { handlers } from '../src/broker/handlers/index.ts';
import { protocolErrors } from '../src/protocol/errors.ts';
import { kafkaApis, kafkaRelease } from './kafka-apis.ts';
import { replacePart } from './marked-part.ts';

const command = 'docs:protocol';
const source = fileURLToPath(new URL('../src/', import.meta.url));
const handlerFiles = readdirSync(join(source, 'broker/handlers')).filter(isCode);

/** docs/protocol.md with its tables made anew. */
export function replaceProtocol(document: string): string {
  const parts = { 'served APIs': servedApis, 'other APIs': otherApis, contracts, 'error codes': errorCodes };
  return Object.entries(parts).reduce((text, [part, render]) => replacePart(text, part, command, render()), document);
}

/** docs/deviations.md with its list by API made anew. */
export function replaceDeviations(document: string): string {
  const lines = handlers.flatMap(({ api }) => {
    const { deviations } = contractOf(api.key);
    return deviations === undefined ? [] : [`- **${api.name}:** ${deviations}`];
  });
  return replacePart(document, 'deviations by API', command, lines);
}

function servedApis(): string[] {
  const rows = handlers
    .toSorted((a, b) => a.api.key - b.api.key)
    .map(({ api, versions }) => {
      const kafka = kafkaApis.find(({ key }) => key === api.key);
      return `| ${api.key} | ${api.name} | ${range(versions)} | ${kafka ? range(kafka.versions) : 'not served'} |`;
    });
  return [`| Key | API | Millrace | Kafka ${kafkaRelease} |`, '|---|---|---|---|', ...rows];
}

function otherApis(): string[] {
  const served = new Set(handlers.map(({ api }) => api.key));
  const rows = kafkaApis
    .filter(({ key }) => !served.has(key))
    .map(({ key, name, versions, area }) => `| ${key} | ${name} | ${range(versions)} | ${area} |`);
  return [`| Key | API | Kafka ${kafkaRelease} | Belongs to |`, '|---|---|---|---|', ...rows];
}

function contracts(): string[] {
  return handlers.map(({ api }) => `- **${api.key} ${api.name}.** ${contractOf(api.key).contract}`);
}

/** Codes that the broker or the log name. */
function errorCodes(): string[] {
  const named = new Set<string>();
  for (const room of ['broker', 'storage']) {
    for (const file of readdirSync(join(source, room), { recursive: true }).map(String).filter(isCode)) {
      for (const [, name] of readFileSync(join(source, room, file), 'utf8').matchAll(/ErrorCode\.([A-Z_]+)/g)) {
        named.add(name!);
      }
    }
  }
  const rows = protocolErrors
    .filter(({ name }) => named.has(name))
    .toSorted((a, b) => a.code - b.code)
    .map(({ code, name, retriable, text }) => `| ${code} | ${name} | ${retriable ? 'yes' : 'no'} | ${text} |`);
  return ['| Code | Name | Clients try again | Meaning |', '|---|---|---|---|', ...rows];
}

/** The comment at the head of a handler's file, up to and from "Differs from Kafka". */
function contractOf(key: number): { contract: string; deviations: string | undefined } {
  const file = handlerFiles.find(name => Number.parseInt(name, 10) === key)!;
  const lines = readFileSync(join(source, 'broker/handlers', file), 'utf8').split('\n');
  const head = lines.slice(
    0,
    lines.findIndex(line => !line.startsWith('//')),
  );
  const text = head.map(line => line.slice(2).trim()).join(' ');
  const [contract, deviations] = text.split(' Differs from Kafka: ');
  return { contract: withoutName(contract!), deviations: deviations && capitalized(deviations) };
}

/** The head begins with the API's name, which the document gives already. */
const withoutName = (text: string): string => capitalized(text.replace(/^\w+, /, ''));
const capitalized = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
const range = ([first, last]: readonly [number, number]): string => (first === last ? `${first}` : `${first}–${last}`);

function isCode(file: string): boolean {
  return file.endsWith('.ts') && !file.endsWith('.test.ts');
}
