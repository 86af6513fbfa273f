// Authorized operations as the wire has them (KIP-430): a bit for each operation, by Kafka's code of the operation.
// Without ACLs everybody may do all that a resource knows.

const operation = {
  read: 3,
  write: 4,
  create: 5,
  delete: 6,
  alter: 7,
  describe: 8,
  clusterAction: 9,
  describeConfigs: 10,
  alterConfigs: 11,
  idempotentWrite: 12,
} as const;

function bits(...names: (keyof typeof operation)[]): number {
  return names.reduce((sum, name) => sum | (1 << operation[name]), 0);
}

/** The field's value where nobody asked. */
export const notAsked = -2_147_483_648;

export const topicOperations = bits(
  'read',
  'write',
  'create',
  'delete',
  'alter',
  'describe',
  'describeConfigs',
  'alterConfigs',
);

export const groupOperations = bits('read', 'delete', 'describe', 'describeConfigs', 'alterConfigs');

export const clusterOperations = bits(
  'create',
  'alter',
  'describe',
  'clusterAction',
  'describeConfigs',
  'alterConfigs',
  'idempotentWrite',
);
