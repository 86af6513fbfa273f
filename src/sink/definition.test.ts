import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OperationalError } from '../runtime/errors.ts';
import { matchTopic } from '../runtime/patterns.ts';
import { readDefinition, tableOf } from './definition.ts';

const given = { file: '/x/millrace.yaml', references: { env: {}, cwd: '/' } };

test('what cannot be understood is told with file, key and what was expected', () => {
  for (const [name, definition, expected] of [
    ['orders', { topic: 'a' }, /sinks\.orders\.topic in .*millrace\.yaml is not a setting; did you mean topics\?/],
    [
      'Orders',
      { topics: ['a'] },
      /sinks\.Orders in .* has a name that a sink cannot have; give up to 61 small letters/,
    ],
    ['o', { topics: ['a'], columns: { id: 'x' } }, /sinks\.o\.columns\.id in .* is "x"; give key, key\.FIELD/],
    ['o', { topics: ['a'], columns: { id: { from: 'key', as: 'x' } } }, /columns\.id\.as in .* is "x"; give epoch_s/],
    ['o', { topics: ['a'], key: 'none' }, /sinks\.o\.key in .* is none; give record, .* needs a key/],
    ['o', { topics: ['a'], delete: true, key: 'value' }, /sinks\.o\.delete in .* is true; give mode upsert or update/],
    [
      'o',
      { topics: ['a'], source: { bootstrap: 'kafka' } },
      /sinks\.o\.source\.bootstrap\.0 in .* is not that; give host:port/,
    ],
    [
      'o',
      { topics: ['a'], source: { bootstrap: 'k:9', sasl: { mechanism: 'PLAIN', username: 'me', password: 'hush' } } },
      /sinks\.o\.source\.sasl\.password in .* is not that; give env:NAME or file:PATH/,
    ],
    [
      'o',
      {
        topics: ['a'],
        source: { bootstrap: 'k:9', sasl: { mechanism: 'PLAIN', username: 'me', password: 'env:NONE' } },
      },
      /sinks\.o\.source\.sasl\.password in .* refers to the environment variable NONE, which is not set/,
    ],
    ['o', { topics: ['a'], dailyPartitions: { keepDays: 3 } }, /sinks\.o\.dailyPartitions\.column in .* is missing/],
    ['o', { topics: ['a'], database: 'postgres://me:hush@db/x' }, /sinks\.o\.database in .* holds a password/],
  ] as const) {
    assert.throws(
      () => readDefinition(name, definition, given),
      (error: unknown) => error instanceof OperationalError && expected.test(error.sentence),
      String(expected),
    );
  }
});

test('tables are named by topics and what their patterns leave open', () => {
  const definition = readDefinition('o', { topics: ['shop.*.*', 'plain'], table: 'twin_{1}.{2}' });
  assert.deepEqual(tableOf(definition, 'shop.public.order.lines'), { schema: 'twin_public.order', name: 'lines' });
  assert.deepEqual(tableOf(readDefinition('o', { topics: ['a.b'] }), 'a.b'), { schema: 'public', name: 'a.b' });
  assert.equal(matchTopic(['a.*'], 'axb'), undefined);
});
