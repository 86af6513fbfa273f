// What /metrics tells of the groups. Gauges are counted when they are asked for.
import { Counter, Gauge, type Registry } from 'prom-client';
import { type Group, groupStates } from './group.ts';

export class GroupMetrics {
  readonly rebalances: Counter;
  readonly commits: Counter;
  readonly expired: Counter;

  constructor(registry: Registry, groups: () => Iterable<Group>) {
    const registers = [registry];
    this.rebalances = new Counter({
      name: 'millrace_group_rebalances_total',
      help: 'Rebalances of consumer groups that have ended with an assignment',
      registers,
    });
    this.commits = new Counter({
      name: 'millrace_offset_commits_total',
      help: 'Offsets committed, one per partition',
      registers,
    });
    this.expired = new Counter({
      name: 'millrace_offsets_expired_total',
      help: 'Committed offsets deleted because of offsets.retention.minutes',
      registers,
    });
    new Gauge({
      name: 'millrace_groups',
      help: 'Consumer groups with members or with members about to join, by state',
      labelNames: ['state'],
      registers,
      collect() {
        const counts = new Map<string, number>(groupStates.map(state => [state, 0]));
        counts.delete('Dead');
        for (const { state } of groups()) counts.set(state, counts.get(state)! + 1);
        for (const [state, count] of counts) this.set({ state }, count);
      },
    });
    new Gauge({
      name: 'millrace_group_members',
      help: 'Members of all consumer groups',
      registers,
      collect() {
        let members = 0;
        for (const { size } of groups()) members += size;
        this.set(members);
      },
    });
  }
}
