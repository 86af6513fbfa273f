// What may differ from Debezium's events. docs/capture.md tells each of them ("Coming from Debezium").
import { leftOut } from './column-values.ts';
import type { Deviation } from './comparison.ts';
import { type ExactNumber, isNumber } from './exact-json.ts';

const event = String.raw`^value\.(payload\.)?`;
const row = '(before|after)';
const names = leftOut.map(({ name }) => name).join('|');
const values = (columns: string): RegExp => new RegExp(`${event}${row}\\.(${columns})`);
const schemas = (columns: string): RegExp =>
  new RegExp(String.raw`^value\.schema\.fields\.${row}\.fields\.(${columns})(\.|$)`);
const leftOutValues = values(`(${names})(\\.|$)`);
const leftOutSchemas = schemas(`${names}|\\(order\\)`);

export const deviations: readonly Deviation[] = [
  {
    name: 'ts_ms, ts_us and ts_ns beside op: when an event was processed',
    allows: ({ path }) => new RegExp(`${event}ts_[mun]s$`).test(path),
  },
  {
    name: 'source.version is that of Millrace',
    allows: ({ path }) => new RegExp(`${event}source\\.version$`).test(path),
  },
  {
    name: 'headers commit_lsn, ordinal and unchanged',
    allows: ({ path, theirs }) => /^headers\.(commit_lsn|ordinal|unchanged)$/.test(path) && theirs === undefined,
  },
  {
    name: 'no headers of Debezium’s context',
    allows: ({ path, ours }) => path.startsWith('headers.__debezium.context.') && ours === undefined,
  },
  {
    name: 'nulls stay null where a column has a default (replace.null.with.default=false), but source.snapshot is there',
    allows: ({ path, theirs, ours }) =>
      new RegExp(`${event}source\\.snapshot$`).test(path) && theirs === null && ours === 'false',
  },
  {
    name: 'no tombstone after the deletion of a row without a key',
    allows: ({ path, ours }) => path === '(tombstone without a key)' && ours === undefined,
  },
  {
    name: 'types that Debezium leaves out or writes null for',
    allows: ({ path }) => leftOutValues.test(path) || leftOutSchemas.test(path),
  },
  {
    name: 'a numeric NaN is the string "NaN"',
    allows: ({ path, theirs, ours }) =>
      values('c_numeric$').test(path) && (theirs === null || theirs === 'NAN') && ours === 'NaN',
  },
  {
    name: 'arrays of arrays',
    allows: ({ path, theirs, ours }) =>
      values(String.raw`c_int4_array\.\d+$`).test(path) && theirs === null && Array.isArray(ours),
  },
  {
    name: 'floating-point numbers have as many digits as tell them apart',
    allows: ({ topic, path, theirs, ours }) => {
      const isFloat = /float/.test(path) || (topic.startsWith('doubles.') && /numeric|decimal|price/.test(path));
      if (!isFloat || !isNumber(theirs!) || !isNumber(ours!)) return false;
      const round = /float4/.test(path) ? Math.fround : (number: number) => number;
      return round(numberOf(theirs)) === round(numberOf(ours));
    },
  },
  {
    name: 'times in arrays have microseconds',
    allows: ({ path, theirs, ours }) =>
      values(String.raw`clocks\.\d+$`).test(path) &&
      isNumber(theirs!) &&
      isNumber(ours!) &&
      Math.floor(numberOf(ours) / 1000) * 1000 === numberOf(theirs),
  },
  {
    name: 'a default with a quotation mark is not cut off there',
    allows: ({ path, theirs, ours }) => path.endsWith('c_text.default') && theirs === 'it' && ours === "it's",
  },
  {
    name: 'the key is the replica identity’s index where it has one',
    allows: ({ topic, path }) => topic.endsWith('.by_index') && /^(key|headers\.__debezium\.(old|new)key)\b/.test(path),
  },
  {
    name: 'members of an hstore in the order in which PostgreSQL has them',
    allows: ({ path, theirs, ours }) =>
      values('c_hstore$').test(path) &&
      typeof theirs === 'string' &&
      typeof ours === 'string' &&
      sorted(theirs) === sorted(ours),
  },
  {
    name: 'a placeholder where Debezium writes null for a value that was not logged',
    allows: ({ topic, path, theirs, ours }) =>
      topic.endsWith('.public.large') &&
      values('').test(path) &&
      theirs === null &&
      JSON.stringify(ours).includes('__debezium_unavailable_value'),
  },
  {
    name: 'source of a row that is read: where its chunk comes into the stream',
    allows: ({ path, operation }) =>
      operation === 'r' && new RegExp(`${event}source\\.(ts_[mun]s|lsn|txId|sequence)$`).test(path),
  },
  {
    name: 'source.snapshot of a row that is read: true, and last, whichever table it is of',
    allows: ({ path, operation, theirs, ours }) =>
      operation === 'r' &&
      new RegExp(`${event}source\\.snapshot$`).test(path) &&
      /^(true|(first|last)(_in_data_collection)?)$/.test(String(theirs)) &&
      (ours === 'true' || ours === 'last'),
  },
  {
    name: 'generated columns are read where they are published, and streamed, alone',
    allows: ({ topic, operation, path, ours }) =>
      topic.endsWith('.public.computed') && operation === 'r' && /\.twice$/.test(path) && ours === undefined,
  },
  {
    name: 'dates before Christ, and infinite ones, that are read are those that are streamed',
    allows: ({ path, operation, theirs, ours }) =>
      operation === 'r' &&
      values('c_date$').test(path) &&
      isNumber(theirs!) &&
      isNumber(ours!) &&
      (numberOf(ours) < firstOfYear1 || numberOf(ours) > 2_147_000_000),
  },
  {
    name: 'source.sequence has the commit before the first transaction, too',
    allows: ({ path, theirs }) =>
      new RegExp(`${event}source\\.sequence$`).test(path) && String(theirs).startsWith('[null,'),
  },
  {
    name: 'logical messages of a transaction are counted together',
    allows: ({ path, operation, theirs }) =>
      path === 'value.payload.transaction.data_collection_order' && operation === 'm' && isNumber(theirs!),
  },
];

/** Days from 1970. */
const firstOfYear1 = -719_162;
const numberOf = ({ digits, exponent }: ExactNumber): number => Number(`${digits}e${exponent}`);

const sorted = (json: string): string => JSON.stringify(Object.entries(JSON.parse(json)).sort());
