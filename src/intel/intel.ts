/**
 * Threat intelligence of one MAYFLY_HOME as the rest of Mayfly uses it: the configured feeds, the snapshot in use,
 * and the assessment of an event. A reload replaces the snapshot when the next one is complete; nobody waits for it.
 */
import { join } from 'node:path';
import type { Disk } from '../core/disk.ts';
import { asMayflyError, MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import type { Clock } from '../core/time.ts';
import type { Denies } from '../egress/contract.ts';
import type { Event } from '../event/event.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import type { EventSource, Threat } from '../rules/context.ts';
import { assess } from './assess.ts';
import type { Assessment } from './assess.ts';
import { parseConfig } from './config.ts';
import { deniedDestination } from './deny.ts';
import type { Feed, FeedsConfig } from './feed.ts';
import type { Hit } from './index.ts';
import { classify } from './indicator.ts';
import type { IndicatorKind } from './indicator.ts';
import { observe } from './observe.ts';
import type { ObserveInput, Observed } from './observe.ts';
import type { StoredIndicator } from './record.ts';
import { buildParts, feedStates, snapshotOf } from './snapshot.ts';
import { buildInThread } from './snapshot-thread.ts';
import type { FeedStatus, IntelSnapshot } from './snapshot.ts';
import { openStore, readConfigText } from './store.ts';
import type { FeedStore } from './store.ts';
import { syncFeed } from './sync.ts';
import type { Synced } from './sync.ts';
import { dueAt } from './schedule.ts';
import { threatOf, unknownThreat } from './threat.ts';
import { scanWithYara } from './yara.ts';
import type { Scanned, YaraScan } from './yara.ts';

export interface IntelOptions {
  /** MAYFLY_HOME/intel. */
  readonly folder: string;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  /** Value of an environment variable; credentials of feeds are named by `tokenEnv`. */
  environment(name: string): string | undefined;
}

export interface WatchOrder {
  readonly signal: AbortSignal;
  /** After each feed that was pulled. */
  done(synced: Synced): void;
  /** A round could not be finished, by a code: the next one tries again. */
  failed(error: MayflyError): void;
}

export interface SyncOrder {
  /** Names of feeds; none: all. */
  readonly only: readonly string[];
  /** Leaves out feeds whose time has not come. */
  readonly due?: boolean;
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

/** Of an event that could not be looked at: somebody may have meant that. */
const UNKNOWN_LEVEL: ThreatLevel = 'elevated';

export class Intel {
  readonly #options: IntelOptions;
  readonly #store: FeedStore;
  #snapshot: Promise<IntelSnapshot> | undefined;
  #current: IntelSnapshot | undefined;
  #whenDegraded: ThreatLevel = 'guarded';

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
    const named = order.only.length === 0 ? feeds : order.only.map((name) => feedNamed(feeds, name));
    const chosen = order.due === true ? await this.#due(named) : named;
    if (named.length === 0) {
      throw new MayflyError('E_INTEL_CONFIG', `there are no feeds in ${join(folder, 'feeds.yaml')}`);
    }
    if (chosen.length === 0) return [];
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

  /**
   * Pulls each feed when its time has come, until the signal; the configuration is read anew each time. Rejects with
   * E_INTEL_CONFIG when it cannot be used from the start.
   */
  async watch({ signal, done, failed }: WatchOrder): Promise<void> {
    await this.config();
    while (!signal.aborted) {
      try {
        await this.sync({ only: [], due: true, accept: false, signal, done });
      } catch (thrown) {
        const error = asMayflyError(thrown);
        if (error.code === 'E_INTERNAL') throw thrown;
        if (!signal.aborted) failed(error);
      }
      if (!signal.aborted) await this.#wait(await this.#untilDue(), this.#options.clock, signal);
    }
  }

  /** Longest for what may change meanwhile, and never so short that a feed is pulled in a circle. */
  async #untilDue(): Promise<number> {
    const times = await this.config()
      .then(async ({ feeds }) => await Promise.all(feeds.map(async (feed) => await this.#dueAt(feed))))
      .catch(() => []);
    const millis = (Math.min(...times) - this.#now()) * 1000;
    return Math.min(limits.intelWatchMillisMax, Math.max(1000, millis));
  }

  async #due(feeds: readonly Feed[]): Promise<Feed[]> {
    const times = await Promise.all(feeds.map(async (feed) => await this.#dueAt(feed)));
    return feeds.filter((_, at) => (times[at] ?? 0) <= this.#now());
  }

  async #dueAt(feed: Feed): Promise<number> {
    return dueAt(feed, await this.#store.state(feed.name));
  }

  /** The snapshot in use; built when first asked for. */
  snapshot(): Promise<IntelSnapshot> {
    this.#snapshot ??= this.#build().then((built) => (this.#current = built));
    return this.#snapshot;
  }

  /** Undefined when there is no feeds.yaml: whoever wants no intelligence has none. Rejects with E_INTEL_CONFIG. */
  async ready(): Promise<this | undefined> {
    if ((await readConfigText(this.#options.folder)) === undefined) return undefined;
    this.#whenDegraded = (await this.config()).whenDegraded;
    await this.snapshot();
    return this;
  }

  /** What the event's profile is told. Never rejects. */
  async threat({ cloudEvent, bytes }: Event, { ip }: EventSource): Promise<Threat> {
    const source = ip === undefined ? {} : { sourceAddress: ip };
    const input = { value: cloudEvent, bytes: bytes.length, text: bytes, ...source };
    try {
      const { assessment, notes } = await this.assess(input);
      const denies = (name: string): boolean => this.#current?.feeds.find((feed) => feed.name === name)?.denies ?? true;
      return threatOf({ assessment, notes, whenDegraded: this.#whenDegraded, denies });
    } catch (thrown) {
      const { code, message } = asMayflyError(thrown);
      return unknownThreat(`${code}: the event could not be assessed: ${message}`, UNKNOWN_LEVEL);
    }
  }

  /** Against the snapshot in use at that moment. */
  readonly denies: Denies = (destination) => {
    return this.#current === undefined ? undefined : deniedDestination(this.#current, destination, this.#now());
  };

  /** Builds the next snapshot beside the one in use. */
  async reload(): Promise<void> {
    const next = await this.#build();
    this.#current = next;
    this.#snapshot = Promise.resolve(next);
  }

  async status(): Promise<readonly FeedStatus[]> {
    const store = this.#store;
    const known = await feedStates({ config: await this.config(), store, nowSeconds: this.#now() });
    return await Promise.all(known.map(async (feed) => {
      const state = await store.state(feed.name);
      if (state === undefined || state.file === '' || (await store.intact(feed.name, state))) return feed;
      return { ...feed, health: 'failing', notes: [...feed.notes, 'its copy is damaged'] };
    }));
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

  /** Applies the YARA rules of this home. */
  async scan(items: readonly Scanned[]): Promise<YaraScan> {
    const { folder, disk, clock, random } = this.#options;
    const scratch = join(folder, `scan-${random.bytes(8).toString('hex')}`);
    return await scanWithYara({
      program: 'yara', rulesFolder: join(folder, 'yara'), scratch, attachments: items, disk, clock,
    });
  }

  async assess(input: ObserveInput): Promise<AssessedEvent> {
    const [snapshot, observed] = await Promise.all([this.snapshot(), observe(input)]);
    const { text } = input;
    const whole = text === undefined ? [] : [{ where: 'event', content: text }];
    const yara = await this.scan([...observed.attachments, ...whole]);
    const assessment = assess({ observed, snapshot, nowSeconds: this.#now(), yara: yara.hits });
    return { assessment, observed, notes: yara.notes };
  }

  async #build(): Promise<IntelSnapshot> {
    const [config, store, nowSeconds, seed] = [await this.config(), this.#store, this.#now(), this.#seed()];
    const known = await feedStates({ config, store, nowSeconds });
    const rows = known.reduce((sum, { count }) => sum + count, 0);
    if (rows < limits.intelThreadRowsMin) return snapshotOf(await buildParts({ config, store, nowSeconds, seed }));
    const { folder, clock } = this.#options;
    return await buildInThread({ folder, config, nowSeconds, seed }, clock);
  }

  #now(): number {
    return Number(this.#options.clock.wallNanos() / 1_000_000_000n);
  }

  #seed(): number {
    return this.#options.random.bytes(4).readUInt32LE(0);
  }

  #wait(millis: number, clock: Clock, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const stop = (): void => {
        cancel();
        signal.removeEventListener('abort', stop);
        resolve();
      };
      const cancel = clock.after(millis, stop);
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
