/** So many per second, and as many at once as half a second brings, or `burstMin` (10) if that is more. */
import type { Clock } from './time.ts';

export class TokenBucket {
  readonly #clock: Clock;
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #last: number;

  constructor(clock: Clock, perSecond: number, burstMin = 10) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#burst = perSecond === 0 ? 0 : Math.max(burstMin, perSecond / 2);
    this.#tokens = this.#burst;
    this.#last = clock.now();
  }

  /** All of them or none. */
  take(count = 1): boolean {
    const now = this.#clock.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#last) / 1000) * this.#perSecond);
    this.#last = now;
    if (this.#tokens < count) return false;
    this.#tokens -= count;
    return true;
  }
}
