// What /metrics tells of mirrors, read from their status when it is asked for.
import type { Registry } from 'prom-client';
import { statusMetrics } from '../runtime/status-metrics.ts';
import type { MirrorStatus } from './mirror.ts';
import type { CopyStatus } from './positions.ts';

interface Copied extends CopyStatus {
  readonly mirror: string;
}

export function observeMirrors(registry: Registry, read: () => readonly MirrorStatus[]): void {
  const ofMirror = statusMetrics(registry, { mirror: ({ name }: MirrorStatus) => name }, read);
  ofMirror.gauge('millrace_mirror_running', '1 while the mirror runs', ({ state }) => (state === 'running' ? 1 : 0));
  ofMirror.gauge(
    'millrace_mirror_held_bytes',
    'Bytes of batches on their way to the target',
    status => status.heldBytes,
  );
  ofMirror.gauge(
    'millrace_mirror_problem_topics',
    'Topics that cannot be copied as things are',
    s => s.problems.length,
  );
  const labels = {
    mirror: ({ mirror }: Copied) => mirror,
    topic: ({ topic }: Copied) => topic,
    partition: ({ partition }: Copied) => String(partition),
  };
  const { gauge, counter } = statusMetrics(registry, labels, () =>
    read().flatMap(({ name, partitions }) => partitions.map(partition => ({ mirror: name, ...partition }))),
  );
  gauge('millrace_mirror_lag_records', 'Records that are not in the target yet', ({ lag }) => Number(lag));
  gauge('millrace_mirror_lag_seconds', 'Age of the oldest record that is not in the target', s => s.lagMs / 1000);
  gauge('millrace_mirror_next_offset', 'The next offset to forward', ({ nextOffset }) => Number(nextOffset));
  gauge('millrace_mirror_target_offset', 'What the target has acknowledged ends before it', s =>
    Number(s.targetNextOffset),
  );
  counter('millrace_mirror_forwarded_total', 'Records that the target has acknowledged', s => Number(s.forwarded));
  counter('millrace_mirror_skipped_total', 'Records that were gone before they were copied', s => Number(s.skipped));
  counter('millrace_mirror_failed_total', 'Records that the target refused: in the dead letters', s =>
    Number(s.failed),
  );
  counter('millrace_mirror_withheld_total', 'Records that were not of the share', s => Number(s.withheld));
  counter('millrace_mirror_passed_on_total', 'Records of producers here that went to the target as their primary', s =>
    Number(s.passedOn ?? 0),
  );
  gauge('millrace_mirror_target_primary', '1 while the target takes what is produced here', ({ primary }) =>
    primary === 'target' ? 1 : 0,
  );
  gauge('millrace_mirror_records_per_second', 'Copied, over the last minute', s => s.recordsPerSecond);
  gauge('millrace_mirror_seconds_to_go', 'Until nothing is left at that rate', s => s.secondsToGo);
  counter('millrace_mirror_retried_total', 'Batches sent again', status => status.retried);
}
