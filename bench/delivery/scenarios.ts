// What is measured of delivery: events from a topic to people who are connected.

export type DeliveryWork = 'rate' | 'snapshot' | 'storm' | 'idle';

export interface DeliveryScenario {
  readonly name: string;
  readonly work: DeliveryWork;
  /** Events a second that are sent, all of them to somebody who is connected. */
  readonly rate: number;
  readonly connections: number;
}

export const deliveryScenarios: readonly DeliveryScenario[] = [
  { name: 'deliver-1200', work: 'rate', rate: 1200, connections: 1000 },
  { name: 'deliver-12000', work: 'rate', rate: 12_000, connections: 1000 },
  { name: 'deliver-snapshot', work: 'snapshot', rate: 12_000, connections: 1000 },
  { name: 'deliver-storm', work: 'storm', rate: 1200, connections: 1000 },
  { name: 'deliver-idle', work: 'idle', rate: 0, connections: 10_000 },
];

/** The word `delivery` stands for all of them, as a beginning does for those that begin with it. */
export function findDeliveryScenarios(asked: readonly string[]): DeliveryScenario[] {
  return deliveryScenarios.filter(({ name }) =>
    asked.some(word => word === 'delivery' || name === word || name.startsWith(`${word}-`)),
  );
}
