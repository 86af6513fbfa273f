import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Relation, type RelationColumn, Tuple, valueKind } from '../postgres/pgoutput.ts';
import { RowIdentity } from './row-identity.ts';
import { Table } from './table.ts';

const column = (name: string, isKey: boolean): RelationColumn => ({ isKey, name, typeOid: 25, typeModifier: -1 });

function identity(isKey: readonly boolean[], keyColumns: readonly string[]): RowIdentity {
  const columns = isKey.map((key, i) => column(`c${i}`, key));
  const relation: Relation = {
    kind: 'relation',
    xid: 0,
    id: 1,
    schema: 's',
    name: 't',
    replicaIdentity: 'full',
    columns,
  };
  const options = {
    types: () => undefined,
    keyColumns,
    excluded: new Set<string>(),
    masks: new Map<string, string>(),
    facts: new Map(),
  };
  return new RowIdentity(
    relation,
    new Table(relation, { ...options, style: { style: 'plain', decimals: 'string', binary: 'base64' } }),
  );
}

function row(...values: (string | null)[]): Tuple {
  const tuple = new Tuple();
  tuple.resize(values.length);
  tuple.bytes = Buffer.from(values.join(''));
  let at = 0;
  for (const [i, value] of values.entries()) {
    tuple.kinds[i] = value === null ? valueKind.null : valueKind.text;
    tuple.starts[i] = at;
    at += Buffer.byteLength(value ?? '');
    tuple.ends[i] = at;
  }
  return tuple;
}

test('with a key it is the key of the record', () => {
  assert.equal(identity([true, true], ['c1']).of(row('a', 'b')), '{"c1":"b"}');
});

test('without one it is the columns that a delete names, and each combination is another', () => {
  const whole = identity([true, true], []);
  const rows = [row('ab', 'c'), row('a', 'bc'), row('', null), row(null, ''), row('-', null), row('1:a', 'b')];
  assert.equal(new Set(rows.map(one => whole.of(one))).size, rows.length);
  assert.equal(whole.of(row('x', null)), whole.of(row('x', null)));
  assert.equal(identity([true, false], []).of(row('a', 'b')), identity([true, false], []).of(row('a', 'c')));
});

test('what nothing names has none', () => {
  assert.equal(identity([false], []).of(row('a')), undefined);
});
