// What Kafka 4.3.1 serves: the answer of one KRaft node with default settings to ApiVersions. For docs/protocol.md, which
// shows it beside what is served here.

export const kafkaRelease = '4.3';

export interface KafkaApi {
  readonly key: number;
  readonly name: string;
  readonly versions: readonly [number, number];
  /** What it belongs to. */
  readonly area: string;
}

const log = 'the log';
const groups = 'classic consumer groups';
const administration = 'administration';
const security = 'SASL';
const transactions = 'transactions';
const acls = 'ACLs';
const tokens = 'delegation tokens';
const replicas = 'replicas';
const quotas = 'quotas';
const scram = 'SCRAM credentials';
const raft = 'the KRaft quorum';
const consumerGroups = 'consumer groups of KIP-848';
const shareGroups = 'share groups (KIP-932)';
const streamsGroups = 'streams groups (KIP-1071)';

const table: readonly (readonly [key: number, name: string, first: number, last: number, area: string])[] = [
  [0, 'Produce', 0, 13, log],
  [1, 'Fetch', 4, 18, log],
  [2, 'ListOffsets', 1, 11, log],
  [3, 'Metadata', 0, 13, log],
  [8, 'OffsetCommit', 2, 10, groups],
  [9, 'OffsetFetch', 1, 10, groups],
  [10, 'FindCoordinator', 0, 6, groups],
  [11, 'JoinGroup', 0, 9, groups],
  [12, 'Heartbeat', 0, 4, groups],
  [13, 'LeaveGroup', 0, 5, groups],
  [14, 'SyncGroup', 0, 5, groups],
  [15, 'DescribeGroups', 0, 6, groups],
  [16, 'ListGroups', 0, 5, groups],
  [17, 'SaslHandshake', 0, 1, security],
  [18, 'ApiVersions', 0, 4, administration],
  [19, 'CreateTopics', 2, 7, administration],
  [20, 'DeleteTopics', 1, 6, administration],
  [21, 'DeleteRecords', 0, 2, log],
  [22, 'InitProducerId', 0, 5, log],
  [23, 'OffsetForLeaderEpoch', 2, 4, log],
  [24, 'AddPartitionsToTxn', 0, 5, transactions],
  [25, 'AddOffsetsToTxn', 0, 4, transactions],
  [26, 'EndTxn', 0, 5, transactions],
  [27, 'WriteTxnMarkers', 1, 2, transactions],
  [28, 'TxnOffsetCommit', 0, 5, transactions],
  [29, 'DescribeAcls', 1, 3, acls],
  [30, 'CreateAcls', 1, 3, acls],
  [31, 'DeleteAcls', 1, 3, acls],
  [32, 'DescribeConfigs', 1, 4, administration],
  [33, 'AlterConfigs', 0, 2, administration],
  [34, 'AlterReplicaLogDirs', 1, 2, replicas],
  [35, 'DescribeLogDirs', 1, 5, administration],
  [36, 'SaslAuthenticate', 0, 2, security],
  [37, 'CreatePartitions', 0, 3, administration],
  [38, 'CreateDelegationToken', 1, 3, tokens],
  [39, 'RenewDelegationToken', 1, 2, tokens],
  [40, 'ExpireDelegationToken', 1, 2, tokens],
  [41, 'DescribeDelegationToken', 1, 3, tokens],
  [42, 'DeleteGroups', 0, 2, groups],
  [43, 'ElectLeaders', 0, 2, replicas],
  [44, 'IncrementalAlterConfigs', 0, 1, administration],
  [45, 'AlterPartitionReassignments', 0, 1, replicas],
  [46, 'ListPartitionReassignments', 0, 0, replicas],
  [47, 'OffsetDelete', 0, 0, groups],
  [48, 'DescribeClientQuotas', 0, 1, quotas],
  [49, 'AlterClientQuotas', 0, 1, quotas],
  [50, 'DescribeUserScramCredentials', 0, 0, scram],
  [51, 'AlterUserScramCredentials', 0, 0, scram],
  [55, 'DescribeQuorum', 0, 2, raft],
  [57, 'UpdateFeatures', 0, 2, raft],
  [60, 'DescribeCluster', 0, 2, administration],
  [61, 'DescribeProducers', 0, 0, transactions],
  [64, 'UnregisterBroker', 0, 0, raft],
  [65, 'DescribeTransactions', 0, 0, transactions],
  [66, 'ListTransactions', 0, 2, transactions],
  [68, 'ConsumerGroupHeartbeat', 0, 1, consumerGroups],
  [69, 'ConsumerGroupDescribe', 0, 1, consumerGroups],
  [74, 'ListConfigResources', 0, 1, administration],
  [75, 'DescribeTopicPartitions', 0, 0, administration],
  [76, 'ShareGroupHeartbeat', 1, 1, shareGroups],
  [77, 'ShareGroupDescribe', 1, 1, shareGroups],
  [78, 'ShareFetch', 1, 2, shareGroups],
  [79, 'ShareAcknowledge', 1, 2, shareGroups],
  [80, 'AddRaftVoter', 0, 1, raft],
  [81, 'RemoveRaftVoter', 0, 0, raft],
  [83, 'InitializeShareGroupState', 0, 0, shareGroups],
  [84, 'ReadShareGroupState', 0, 0, shareGroups],
  [85, 'WriteShareGroupState', 0, 1, shareGroups],
  [86, 'DeleteShareGroupState', 0, 0, shareGroups],
  [87, 'ReadShareGroupStateSummary', 0, 1, shareGroups],
  [88, 'StreamsGroupHeartbeat', 0, 0, streamsGroups],
  [89, 'StreamsGroupDescribe', 0, 0, streamsGroups],
  [90, 'DescribeShareGroupOffsets', 0, 1, shareGroups],
  [91, 'AlterShareGroupOffsets', 0, 0, shareGroups],
  [92, 'DeleteShareGroupOffsets', 0, 0, shareGroups],
];

export const kafkaApis: readonly KafkaApi[] = table.map(([key, name, first, last, area]) => ({
  key,
  name,
  versions: [first, last],
  area,
}));
