// DescribeLogDirs (KIP-113). 3 brings an error for the whole answer, 4 the volume's size (KIP-827), 5 cordoned
// directories (KIP-1066).
import { api, array, boolean, int16, int32, int64, string } from '../schema.ts';

export const DescribeLogDirs = api({
  key: 35,
  name: 'DescribeLogDirs',
  versions: [0, 5],
  flexibleSince: 2,
  request: { topics: array({ topic: string, partitions: array(int32) }).nullable() },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16.since(3),
    results: array({
      errorCode: int16,
      logDir: string,
      topics: array({
        name: string,
        partitions: array({ partitionIndex: int32, partitionSize: int64, offsetLag: int64, isFutureKey: boolean }),
      }),
      totalBytes: int64.since(4).default(-1n),
      usableBytes: int64.since(4).default(-1n),
      isCordoned: boolean.since(5),
    }),
  },
});
