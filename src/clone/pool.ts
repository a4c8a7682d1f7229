/**
 * Clones that wait: made, found unique, limited and proved before there is an event, so that an event meets a machine
 * that only has to run it. Each is still used for exactly one event, and only for one whose own profile and function
 * are those that it was proved for: the shelf is chosen by the profile's digest and by the very function.
 *
 * One clone is made at a time, a moment after another one was taken: whoever took it has the processors first.
 */
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import type { Workload } from '../event/workload.ts';
import type { SealedProfile } from '../profile/profile.ts';
import type { Clone } from './clone.ts';

/** What a clone is to be ready for. */
export interface PoolOrder {
  readonly profile: SealedProfile;
  readonly workload: Workload;
}

export interface WaitingClone {
  readonly clone: Clone;
  /** It now is in a run's ledger: the pool's record of it goes. */
  handOver(): Promise<void>;
  /** Kills it, verified. Rejects with E_RELEASE_INCOMPLETE. */
  drop(): Promise<void>;
}

export interface PoolOptions {
  readonly clock: Clock;
  /** Makes one, and leaves nothing behind when it rejects. */
  readonly prime: (order: PoolOrder, signal: AbortSignal) => Promise<WaitingClone>;
  /** Asked before each clone is made: events that run have the processors first. `look` asks again. */
  readonly mayFill?: () => boolean;
}

interface Shelf {
  readonly order: PoolOrder;
  target: number;
  readonly waiting: { readonly waiting: WaitingClone; readonly since: number }[];
  /** In a row; at `poolFailuresMax` the shelf is given up until the next `keep`. */
  failures: number;
}

export class Pool {
  readonly #options: PoolOptions;
  readonly #shelves: Shelf[] = [];
  readonly #closing = new AbortController();
  /** Work that nobody awaits: `close` does. */
  readonly #background = new Set<Promise<void>>();
  #filling: Promise<void> | undefined;
  #lastFailure: unknown;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** From now on `target` clones wait for this order; 0 ends that. Throws E_LIMIT_INVALID over `poolTargetMax`. */
  keep(order: PoolOrder, target: number): void {
    const known = this.#find(order.profile.digest, order.workload);
    const others = this.#shelves.reduce((sum, shelf) => sum + (shelf === known ? 0 : shelf.target), 0);
    if (others + target > limits.poolTargetMax) {
      throw new MayflyError('E_LIMIT_INVALID', `at most ${limits.poolTargetMax} clones can wait`);
    }
    if (known === undefined) this.#shelves.push({ order, target, waiting: [], failures: 0 });
    else Object.assign(known, { target, failures: 0 });
    for (const shelf of this.#shelves) {
      for (const { waiting } of shelf.waiting.splice(shelf.target)) this.#inBackground(waiting.drop());
    }
    this.#fill();
  }

  /** A clone that is ready for this profile and function; it is the caller's from now on. */
  take(profileDigest: string, workload: Workload): WaitingClone | undefined {
    const { clock } = this.#options;
    const shelf = this.#find(profileDigest, workload);
    let taken: WaitingClone | undefined;
    while (shelf !== undefined && taken === undefined) {
      const next = shelf.waiting.shift();
      if (next === undefined) break;
      const fresh = clock.now() - next.since < limits.poolWaitMillisMax;
      if (fresh && isReady(next.waiting.clone)) taken = next.waiting;
      else this.#inBackground(next.waiting.drop());
    }
    if (shelf !== undefined) clock.after(limits.poolRefillMillis, () => this.#fill());
    return taken;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#shelves.reduce((sum, shelf) => sum + shelf.waiting.length, 0);
  }

  /** Called from time to time: what has waited too long goes, and what is missing is made. */
  look(): void {
    const stale = this.#options.clock.now() - limits.poolWaitMillisMax;
    for (const { waiting } of this.#shelves) {
      // The oldest come first.
      const count = waiting.filter(({ since }) => since <= stale).length;
      for (const each of waiting.splice(0, count)) this.#inBackground(each.waiting.drop());
    }
    this.#fill();
  }

  /** Done with the pool's own record of a clone that `take` has given away. */
  settle(taken: WaitingClone): void {
    this.#inBackground(taken.handOver());
  }

  /** Resolves when every shelf is full. Rejects with the reason why one cannot be filled. */
  async full(): Promise<void> {
    this.#fill();
    await this.#filling;
    if (this.#shelves.some((shelf) => shelf.waiting.length < shelf.target)) throw this.#lastFailure;
  }

  /** Ends what waits and what is being made. Rejects with E_RELEASE_INCOMPLETE when something is left. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#filling;
    const waiting = this.#shelves.splice(0).flatMap((shelf) => shelf.waiting.splice(0));
    const ended = await Promise.allSettled([...this.#background, ...waiting.map(({ waiting: each }) => each.drop())]);
    for (const end of ended) if (end.status === 'rejected') throw end.reason;
  }

  #find(profileDigest: string, workload: Workload): Shelf | undefined {
    return this.#shelves.find(({ order }) => order.profile.digest === profileDigest && order.workload === workload);
  }

  #fill(): void {
    if (this.#filling !== undefined || this.#closing.signal.aborted) return;
    this.#filling = this.#fillAll().finally(() => {
      this.#filling = undefined;
    });
  }

  /** Ends: each round adds a clone or a failure, and both are bounded. Never rejects. */
  async #fillAll(): Promise<void> {
    const { clock, prime, mayFill = () => true } = this.#options;
    const { signal } = this.#closing;
    for (let shelf = this.#wanting(); shelf !== undefined && !signal.aborted; shelf = this.#wanting()) {
      if (!mayFill()) return;
      try {
        const waiting = await prime(shelf.order, signal);
        shelf.waiting.push({ waiting, since: clock.now() });
        shelf.failures = 0;
      } catch (thrown) {
        shelf.failures++;
        this.#lastFailure = thrown;
      }
    }
  }

  #wanting(): Shelf | undefined {
    return this.#shelves.find(({ waiting, target, failures }) => {
      return waiting.length < target && failures < limits.poolFailuresMax;
    });
  }

  #inBackground(work: Promise<void>): void {
    this.#background.add(work);
    // A failure stays in the set: close() reports it.
    work.then(() => this.#background.delete(work), () => {});
  }
}

/** A function that could not be loaded has ended already: its event is told so. */
function isReady({ session }: Clone): boolean {
  const { state } = session.status;
  return state === 'proved' || state === 'started' || state === 'finished';
}
