// What is measured of delivery: events from a topic to people who are connected, or to a receiver of webhooks.

/** backlog: as many events as there are, as fast as it goes. The others: at a rate, while something happens. */
export type DeliveryWork = 'rate' | 'backlog' | 'snapshot' | 'storm' | 'idle';

export interface DeliveryScenario {
  readonly name: string;
  readonly work: DeliveryWork;
  readonly to: 'streams' | 'receiver';
  /** Events a second that are sent, all of them to somebody who is connected. */
  readonly rate: number;
  /** Of a backlog. */
  readonly events: number;
  /** Users; each with a stream where there are streams. */
  readonly connections: number;
}

const streams = { to: 'streams', events: 0, connections: 1000 } as const;
const receiver = { to: 'receiver', events: 0, connections: 1000 } as const;

export const deliveryScenarios: readonly DeliveryScenario[] = [
  { name: 'deliver-1200', ...streams, work: 'rate', rate: 1200 },
  { name: 'deliver-12000', ...streams, work: 'rate', rate: 12_000 },
  { name: 'deliver-24000', ...streams, work: 'rate', rate: 24_000 },
  { name: 'deliver-backlog', ...streams, work: 'backlog', rate: 0, events: 300_000 },
  { name: 'deliver-snapshot', ...streams, work: 'snapshot', rate: 12_000 },
  { name: 'deliver-storm', ...streams, work: 'storm', rate: 1200 },
  { name: 'deliver-idle', ...streams, work: 'idle', rate: 0, connections: 10_000 },
  { name: 'deliver-webhooks', ...receiver, work: 'rate', rate: 1200 },
  { name: 'deliver-webhooks-backlog', ...receiver, work: 'backlog', rate: 0, events: 20_000 },
];

/** The word `delivery` stands for all of them, as a beginning does for those that begin with it. */
export function findDeliveryScenarios(asked: readonly string[]): DeliveryScenario[] {
  return deliveryScenarios.filter(({ name }) =>
    asked.some(word => word === 'delivery' || name === word || name.startsWith(`${word}-`)),
  );
}
