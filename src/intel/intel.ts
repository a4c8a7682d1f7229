/**
 * Threat intelligence of one MAYFLY_HOME as the rest of Mayfly uses it: the configured feeds, the snapshot in use,
 * and the assessment of an event. A reload replaces the snapshot when the next one is complete; nobody waits for it.
 */
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import type { Clock } from '../core/time.ts';
import { assess } from './assess.ts';
import type { Assessment } from './assess.ts';
import { parseConfig } from './config.ts';
import type { Feed, FeedsConfig } from './feed.ts';
import type { Hit } from './index.ts';
import { classify } from './indicator.ts';
import type { IndicatorKind } from './indicator.ts';
import { observe } from './observe.ts';
import type { ObserveInput, Observed } from './observe.ts';
import type { StoredIndicator } from './record.ts';
import { buildSnapshot } from './snapshot.ts';
import type { FeedStatus, IntelSnapshot } from './snapshot.ts';
import { openStore, readConfigText } from './store.ts';
import type { FeedStore } from './store.ts';
import { syncFeed } from './sync.ts';
import type { Synced } from './sync.ts';
import { scanWithYara } from './yara.ts';

export interface IntelOptions {
  /** MAYFLY_HOME/intel. */
  readonly folder: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  /** Value of an environment variable; credentials of feeds are named by `tokenEnv`. */
  environment(name: string): string | undefined;
}

export interface SyncOrder {
  /** Names of feeds; none: all. */
  readonly only: readonly string[];
  readonly accept: boolean;
  readonly signal: AbortSignal;
  progress?(feed: string, count: number): void;
  done?(synced: Synced): void;
}

export interface LookedUp {
  readonly kind: IndicatorKind;
  readonly value: string;
  readonly hits: readonly (Omit<Hit, 'source'> & { readonly source: string })[];
}

export interface AssessedEvent {
  readonly assessment: Assessment;
  readonly observed: Observed;
  /** What could not be done, each with its code. */
  readonly notes: readonly string[];
}

export class Intel {
  readonly #options: IntelOptions;
  readonly #store: FeedStore;
  #snapshot: Promise<IntelSnapshot> | undefined;

  constructor(options: IntelOptions) {
    this.#options = options;
    this.#store = openStore(options.folder, options.disk);
  }

  /** Rejects with E_INTEL_CONFIG. */
  async config(): Promise<FeedsConfig> {
    return parseConfig((await readConfigText(this.#options.folder)) ?? '', this.#options.folder);
  }

  /**
   * Pulls feeds one after another; resolves to what came of each. Rejects with E_INTEL_CONFIG, E_USAGE or
   * E_INTERRUPTED.
   */
  async sync(order: SyncOrder): Promise<Synced[]> {
    const { disk, folder, clock } = this.#options;
    const { feeds, protect } = await this.config();
    const chosen = order.only.length === 0 ? feeds : order.only.map((name) => feedNamed(feeds, name));
    if (chosen.length === 0) {
      throw new MayflyError('E_INTEL_CONFIG', `there are no feeds in ${join(folder, 'feeds.yaml')}`);
    }
    await disk.makeFolder(folder);
    const unlock = await disk.lock(join(folder, 'lock'), limits.intelLockMillisMax);
    const results: Synced[] = [];
    try {
      for (const feed of chosen) {
        const synced = await syncFeed({
          feed,
          protect,
          store: this.#store,
          nowSeconds: this.#now(),
          signal: order.signal,
          accept: order.accept,
          token: feed.auth === undefined ? undefined : this.#options.environment(feed.auth.tokenEnv),
          wait: (millis) => this.#wait(millis, clock, order.signal),
          progress: (count) => order.progress?.(feed.name, count),
        });
        order.done?.(synced);
        results.push(synced);
      }
    } finally {
      await unlock();
    }
    await this.reload();
    return results;
  }

  /** The snapshot in use; built when first asked for. */
  snapshot(): Promise<IntelSnapshot> {
    this.#snapshot ??= this.#build();
    return this.#snapshot;
  }

  /** Builds the next snapshot beside the one in use. */
  async reload(): Promise<void> {
    const next = await this.#build();
    this.#snapshot = Promise.resolve(next);
  }

  async status(): Promise<readonly FeedStatus[]> {
    const { config, store, nowSeconds } = { config: await this.config(), store: this.#store, nowSeconds: this.#now() };
    return (await buildSnapshot({ config, store, nowSeconds, seed: this.#seed() })).feeds;
  }

  /** Records of the good copies, as they stand in their files. */
  async *list(only: readonly string[]): AsyncGenerator<StoredIndicator & { readonly source: string }> {
    const { feeds } = await this.config();
    for (const { name } of only.length === 0 ? feeds : only.map((wanted) => feedNamed(feeds, wanted))) {
      const state = await this.#store.state(name);
      if (state === undefined || state.file === '') continue;
      for await (const records of this.#store.records(name, state)) {
        for (const record of records) yield { ...record, source: name };
      }
    }
  }

  /** Rejects with E_USAGE when the text is no value of any kind. */
  async lookup(text: string): Promise<LookedUp> {
    const found = classify(text);
    if (found === undefined) {
      const remedy = 'Give an address, a domain, a URL, an e-mail address or a hash in hex.';
      throw new MayflyError('E_USAGE', `${printableLine(text, 100)}: not a value that feeds list`, { remedy });
    }
    const { index, feeds } = await this.snapshot();
    const hits = index
      .lookup(found.kind, found.value)
      .map(({ source, ...hit }) => ({ ...hit, source: feeds[source]?.name ?? String(source) }));
    return { ...found, hits };
  }

  async assess(input: ObserveInput): Promise<AssessedEvent> {
    const { folder, disk, clock, random } = this.#options;
    const [snapshot, observed] = await Promise.all([this.snapshot(), observe(input)]);
    const scratch = join(folder, `scan-${random.bytes(8).toString('hex')}`);
    const yara = await scanWithYara({
      program: 'yara',
      rulesFolder: join(folder, 'yara'),
      scratch,
      attachments: observed.attachments,
      disk,
      clock,
    });
    const assessment = assess({ observed, snapshot, nowSeconds: this.#now(), yara: yara.hits });
    return { assessment, observed, notes: yara.notes };
  }

  async #build(): Promise<IntelSnapshot> {
    const config = await this.config();
    return await buildSnapshot({ config, store: this.#store, nowSeconds: this.#now(), seed: this.#seed() });
  }

  #now(): number {
    return Number(this.#options.clock.wallNanos() / 1_000_000_000n);
  }

  #seed(): number {
    return this.#options.random.bytes(4).readUInt32LE(0);
  }

  #wait(millis: number, clock: Clock, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const cancel = clock.after(millis, resolve);
      const stop = (): void => {
        cancel();
        resolve();
      };
      signal.addEventListener('abort', stop, { once: true });
    });
  }
}

function feedNamed(feeds: readonly Feed[], name: string): Feed {
  const feed = feeds.find((one) => one.name === name);
  if (feed !== undefined) return feed;
  const known = feeds.map((one) => one.name).join(', ');
  throw new MayflyError('E_USAGE', `there is no feed ${printableLine(name, 60)}; there are: ${known || 'none'}`);
}
