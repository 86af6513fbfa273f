// A group coordinator on a real database, with a clock that the test moves, and a broker for handlers to see it by.
import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { BrokerContext } from '../src/broker/context.ts';
import { GroupCoordinator } from '../src/broker/groups/coordinator.ts';
import type { Pool } from '../src/postgres/pool.ts';
import { settingsWith } from '../src/runtime/config.ts';
import type { Settings } from '../src/runtime/settings.ts';
import { GroupStore } from '../src/storage/groups.ts';
import { Offsets } from '../src/storage/offsets.ts';
import type { Topics } from '../src/storage/topics.ts';
import { topicBroker } from './handler-call.ts';
import { ManualClock } from './manual-clock.ts';

export class CoordinatorRig {
  readonly clock = new ManualClock();
  readonly registry = new Registry();
  readonly coordinator: GroupCoordinator;
  readonly broker: BrokerContext;

  constructor(pool: Pool, topics: Topics, settings: Partial<Settings> = {}) {
    const logger = pino({ level: 'silent' });
    const offsets = new Offsets({ pool, logger });
    this.coordinator = new GroupCoordinator({
      store: new GroupStore({ pool, logger }),
      offsets,
      topics,
      settings: settingsWith({ groupInitialRebalanceDelayMs: 0, ...settings }),
      logger,
      registry: this.registry,
      clock: this.clock,
    });
    this.broker = topicBroker(topics, settings, { groups: this.coordinator, offsets });
  }

  /** Lets `work` end, with timers that are due at once running on the way. */
  async finish<T>(work: Promise<T> | T): Promise<T> {
    let done = false;
    const ended = Promise.resolve(work).finally(() => {
      done = true;
    });
    ended.catch(() => {}); // the caller is told below
    while (!done) await this.clock.advance(0);
    return ended;
  }

  async until(condition: () => boolean | Promise<boolean>): Promise<void> {
    while (!(await condition())) await this.clock.advance(0);
  }

  /** The value of a metric, or of one of its labels. */
  async metric(name: string, label?: string): Promise<number> {
    const metric = await this.registry.getSingleMetric(name)!.get();
    const values = metric.values.filter(({ labels }) => label === undefined || Object.values(labels).includes(label));
    return values.reduce((sum, { value }) => sum + value, 0);
  }
}
