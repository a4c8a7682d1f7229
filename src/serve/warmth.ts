/**
 * How many clones wait for which function: what its manifest asks for, or what the rate of its events calls for, within
 * the memory that the service may spend on waiting. It decides; the pool makes and drops them.
 */
import { limits } from '../core/limits.ts';
import type { Clock } from '../core/time.ts';
import type { FunctionVersion } from '../function/version.ts';
import type { SealedProfile } from '../profile/profile.ts';
import type { Log, Runner } from './contract.ts';

export interface WarmthOptions {
  readonly runner: Pick<Runner, 'keep' | 'expect' | 'look'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Clones that may wait altogether. */
  readonly most: number;
}

interface Known {
  readonly tenant: string;
  version: FunctionVersion;
  profile: SealedProfile | undefined;
  /** Events per second, smoothed. */
  rate: number;
  /** Since the last look. */
  arrived: number;
  lastEvent: number;
  target: number;
}

/** To make a clone takes about this long, seconds: so many events must find one that waits. */
const REFILL_SECONDS = 1.5;
/** Weight of the last interval in the smoothed rate. */
const FRESH = 0.3;

export class Warmth {
  readonly #options: WarmthOptions;
  readonly #known = new Map<string, Known>();
  #lastLook: number;

  constructor(options: WarmthOptions) {
    this.#options = options;
    this.#lastLook = options.clock.now();
  }

  /** A version that is in use: at start, after a deployment, with each event. */
  use(tenant: string, version: FunctionVersion): void {
    const name = `${tenant}/${version.manifest.name}`;
    const known = this.#known.get(name);
    if (known === undefined) {
      if (this.#known.size >= limits.functionsMax) return;
      this.#known.set(name, {
        tenant, version, profile: undefined, rate: 0, arrived: 0, lastEvent: Number.NEGATIVE_INFINITY, target: 0,
      });
    } else if (known.version.workload !== version.workload) {
      this.#set(known, 0);
      Object.assign(known, { version, profile: undefined });
    }
  }

  arrived(tenant: string, version: FunctionVersion): void {
    this.use(tenant, version);
    const known = this.#known.get(`${tenant}/${version.manifest.name}`);
    if (known === undefined) return;
    known.arrived++;
    known.lastEvent = this.#options.clock.now();
  }

  /** The profile that an event of it was given: the next one is likely to get the same. */
  seen(tenant: string, version: FunctionVersion, profile: SealedProfile): void {
    const known = this.#known.get(`${tenant}/${version.manifest.name}`);
    if (known === undefined || known.version !== version || known.profile?.digest === profile.digest) return;
    this.#set(known, 0);
    known.profile = profile;
    this.#share();
  }

  /** Functions that are gone. */
  forget(exists: (tenant: string, name: string) => boolean): void {
    for (const [name, known] of this.#known) {
      if (exists(known.tenant, known.version.manifest.name)) continue;
      this.#set(known, 0);
      this.#known.delete(name);
    }
  }

  /** Called every few seconds. */
  async look(): Promise<void> {
    const { clock, runner, log } = this.#options;
    const now = clock.now();
    const seconds = Math.max(0.001, (now - this.#lastLook) / 1000);
    this.#lastLook = now;
    for (const known of this.#known.values()) {
      known.rate = known.rate * (1 - FRESH) + (known.arrived / seconds) * FRESH;
      known.arrived = 0;
      if (known.profile !== undefined || this.#wanted(known, now) === 0) continue;
      const { version, tenant } = known;
      try {
        const profile = await runner.expect(version, tenant);
        if (known.version === version) known.profile ??= profile;
      } catch (thrown) {
        log.warn(
          { tenant, function: version.manifest.name, code: (thrown as { code?: string }).code },
          'no clone can wait',
        );
      }
    }
    this.#share();
    runner.look();
  }

  #wanted({ version, rate, lastEvent }: Known, now: number): number {
    const asked = version.manifest.warm;
    if (asked !== null) return asked;
    if (now - lastEvent > limits.warmIdleMillis) return 0;
    return Math.min(limits.warmMax, Math.max(1, Math.ceil(rate * REFILL_SECONDS)));
  }

  /** What manifests ask for first, then the busiest. */
  #share(): void {
    const now = this.#options.clock.now();
    const order = [...this.#known.values()].filter(({ profile }) => profile !== undefined).sort((a, b) => {
      return Number(b.version.manifest.warm !== null) - Number(a.version.manifest.warm !== null) || b.rate - a.rate;
    });
    let left = Math.min(this.#options.most, limits.poolTargetMax);
    const targets = order.map((known) => {
      const target = Math.min(left, this.#wanted(known, now));
      left -= target;
      return [known, target] as const;
    });
    // Fewer first: the pool refuses a sum that is too large, also for a moment.
    for (const [known, target] of targets.toSorted(([a, x], [b, y]) => x - a.target - (y - b.target))) {
      this.#set(known, target);
    }
  }

  #set(known: Known, target: number): void {
    if (known.target === target || known.profile === undefined) return;
    known.target = target;
    this.#options.runner.keep(known.version, known.profile, target);
  }
}
