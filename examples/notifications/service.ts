// A service that has something to tell, and numbers what it tells each user.
import { type Notification, now } from './notification.ts';

const eventTypes = {
  jobs: ['job.recommended', 'job.applied', 'job.closed'],
  connections: ['connection.requested', 'connection.accepted', 'connection.birthday', 'connection.moved'],
  followers: ['follower.new', 'follower.posted', 'follower.milestone'],
} as const;

export type ServiceName = keyof typeof eventTypes;
export const services = Object.keys(eventTypes) as readonly ServiceName[];

export class Service {
  readonly #name: ServiceName;
  /** By user: how many it has been told. */
  readonly #numbers = new Map<number, number>();
  made = 0;

  constructor(name: ServiceName) {
    this.#name = name;
  }

  /** The next event, for `user`. */
  next(user: number): Notification {
    const n = this.#numbers.get(user) ?? 0;
    this.#numbers.set(user, n + 1);
    const types = eventTypes[this.#name];
    const { made } = this;
    this.made++;
    return {
      event_id: `${this.#name}-${user}-${n}`,
      event_type: types[made % types.length]!,
      priority: made % 10 === 0 ? 'HIGH' : made % 3 === 0 ? 'LOW' : 'MEDIUM',
      user_id: `user-${user}`,
      sent_at: now(),
      producer: this.#name,
      n,
      payload: { text: 'Somebody you know has done something that you may want to hear of.' },
    };
  }
}
