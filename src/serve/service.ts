/**
 * The service without its doors: who may send how much, what is accepted, where it stands. server.ts puts HTTP in front
 * of it, and whatever else brings events comes in through `submit` as well.
 */
import { MayflyError } from '../core/errors.ts';
import type { ErrorCode } from '../core/errors.ts';
import { newRunId } from '../core/ids.ts';
import { digestOf } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import { TokenBucket } from '../core/rate.ts';
import type { Clock } from '../core/time.ts';
import type { Registry } from '../function/registry.ts';
import type { FunctionVersion } from '../function/version.ts';
import type { Tenants } from '../tenant/tenants.ts';
import type { Log, Runner } from './contract.ts';
import { Dispatcher } from './dispatcher.ts';
import { Metrics } from './metrics.ts';
import { planRecovery } from './plan.ts';
import type { Abandoned } from './plan.ts';
import type { EventOrigin, StoredEvent } from './store/event.ts';
import type { Store } from './store/store.ts';
import { Warmth } from './warmth.ts';

export interface ServiceSettings {
  /** Events that run at a time, and that wait. */
  readonly concurrency: number;
  readonly queue: number;
  /** Clones that may wait altogether. */
  readonly warm: number;
  readonly resultMillis: number;
  readonly deadLetterMillis: number;
  readonly drainMillis: number;
}

export interface ServiceOptions {
  readonly settings: ServiceSettings;
  readonly store: Store;
  readonly runner: Runner;
  readonly functions: Registry;
  readonly tenants: Tenants;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Free bytes of the file system that the store is on. */
  readonly freeBytes: () => Promise<number>;
}

export interface Submission {
  readonly tenant: string;
  readonly function: string;
  readonly origin: EventOrigin;
  /** Each a CloudEvent, UTF-8 JSON, that was checked. */
  readonly events: readonly Buffer[];
  readonly key: string | null;
  /** What the key stands for: the request as it came. */
  readonly body: Buffer;
}

export interface Submitted {
  readonly ids: readonly string[];
  /** The key was known: nothing new was accepted. */
  readonly replayed: boolean;
}

export class Service {
  readonly metrics = new Metrics();
  readonly #options: ServiceOptions;
  readonly #dispatcher: Dispatcher;
  readonly #warmth: Warmth;
  readonly #buckets = new Map<string, { readonly perSecond: number; readonly bucket: TokenBucket }>();
  /** On their way into the store: they have their place in the queue already. */
  readonly #coming = new Map<string, number>();
  #diskFull = false;
  #draining = false;
  #cancel = (): void => {};
  #dataVersion = -1;
  #lastSweep = 0;

  constructor(options: ServiceOptions) {
    this.#options = options;
    const { store, runner, clock, random, log, settings } = options;
    this.#warmth = new Warmth({ runner, clock, log, most: settings.warm });
    this.#dispatcher = new Dispatcher({
      store, runner, clock, random, log, warmth: this.#warmth, metrics: this.metrics,
      concurrency: settings.concurrency, queue: settings.queue,
      versionOf: (tenant, name, version) => this.#version(tenant, name, version ?? undefined),
    });
    const { metrics } = this;
    metrics.gauge('mayfly_events_waiting', 'Events that wait for a place.', () => this.#dispatcher.queued);
    metrics.gauge('mayfly_events_running', 'Events under way.', () => this.#dispatcher.running);
    metrics.gauge('mayfly_clones_waiting', 'Clones that wait for an event.', () => runner.waiting);
    metrics.gauge('mayfly_store_pending', 'Changes that are not durable yet.', () => store.pending);
    metrics.gauge('mayfly_dead_letters', 'Events that have ended without a result.', () => store.counts().failed);
    metrics.gauge('mayfly_ready', '1 while events are accepted.', () => (this.state === 'ok' ? 1 : 0));
  }

  /** `undelivered`: run ids that reclaim has ended and that no function has seen. */
  async start(undelivered: ReadonlySet<string>): Promise<void> {
    await this.#recover(undelivered);
    await this.#look();
    this.#tick();
  }

  get state(): 'ok' | 'draining' | 'full' {
    if (this.#draining) return 'draining';
    return this.#diskFull || this.#dispatcher.full ? 'full' : 'ok';
  }

  get random(): Random {
    return this.#options.random;
  }

  async functionsOf(tenant: string): Promise<{ name: string; version: string; deployedAt: string }[]> {
    const { functions } = this.#options;
    const found: { name: string; version: string; deployedAt: string }[] = [];
    for (const name of await functions.names(tenant)) {
      const current = (await functions.record(tenant, name)).deployments[0];
      if (current !== undefined) found.push({ name, version: current.version, deployedAt: current.at });
    }
    return found;
  }

  /** How long the queue is, seconds: what Retry-After says. */
  get queueSeconds(): number {
    return Math.min(60, Math.max(1, Math.ceil(this.#dispatcher.queued / this.#options.settings.concurrency)));
  }

  /**
   * Resolves when the events are on the medium. Rejects with E_DRAINING, E_FUNCTION_UNKNOWN, E_RATE_LIMITED,
   * E_OVERLOADED, E_IDEMPOTENCY_CONFLICT, E_STORE_*: then none of them was accepted.
   */
  async submit(submission: Submission): Promise<Submitted> {
    const { tenant, function: name, origin, events, key, body } = submission;
    if (this.#draining) throw new MayflyError('E_DRAINING', 'The service is about to stop.');
    const version = await this.#version(tenant, name, undefined);
    const { quota } = await this.#options.tenants.require(tenant);
    this.#dispatcher.cap(tenant, quota.concurrency);
    if (this.#diskFull) throw new MayflyError('E_STORE_FULL', 'The file system of MAYFLY_HOME is nearly full.');
    if (!this.#bucket(tenant, quota.eventsPerSecond).take(events.length)) {
      throw new MayflyError('E_RATE_LIMITED', `${tenant} may send ${quota.eventsPerSecond} events per second.`);
    }
    this.#reserve(tenant, events.length, quota.queued);
    try {
      const { store, clock, random } = this.#options;
      const acceptedMillis = this.#wallMillis();
      const digest = digestOf(body);
      const answers = await store.accept(events.map((event, index) => ({
        id: newRunId(clock, random), tenant, function: name, version: version.digest, origin, acceptedMillis, event,
        key: key === null ? null : events.length === 1 ? key : `${key} ${index}`, body: digest,
      })));
      const fresh = answers.filter(({ is }) => is === 'fresh').length;
      const ids = answers.map((answer) => {
        if (answer.is !== 'conflict') return answer.id;
        throw new MayflyError('E_IDEMPOTENCY_CONFLICT', 'The idempotency key stands for another request.');
      });
      this.metrics.accepted(tenant, name, fresh);
      for (let count = 0; count < fresh; count++) this.#warmth.arrived(tenant, version);
      for (const answer of answers) {
        if (answer.is === 'fresh') this.#dispatcher.add({ id: answer.id, tenant, function: name });
      }
      return { ids, replayed: fresh === 0 };
    } finally {
      this.#release(tenant, events.length);
    }
  }

  /** Rejects with E_EVENT_UNKNOWN: an event of another tenant is as unknown as one that never was. */
  find(tenant: string, id: string, principal?: string): StoredEvent {
    const event = this.#options.store.find(id);
    const own = event?.tenant === tenant && (principal === undefined || event.origin.principal === principal);
    if (event !== undefined && own) return event;
    throw new MayflyError('E_EVENT_UNKNOWN', `There is no event ${id}.`);
  }

  output(id: string): Buffer {
    return this.#options.store.output(id);
  }

  /** The event once it is at an end, or as it stands after `millis` or when the signal is aborted. */
  async settled(id: string, millis: number, signal: AbortSignal): Promise<StoredEvent | undefined> {
    const { store, clock } = this.#options;
    const over = (event: StoredEvent | undefined): boolean => event?.state === 'succeeded' || event?.state === 'failed';
    let event = store.find(id);
    if (over(event) || event === undefined || millis <= 0) return event;
    await new Promise<void>((resolve) => {
      const unwatch = this.watch(id, () => {
        event = store.find(id);
        if (over(event) || event === undefined) done();
      });
      const cancel = clock.after(millis, () => done());
      const done = (): void => {
        unwatch();
        cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      signal.addEventListener('abort', done);
      event = store.find(id);
      if (over(event) || signal.aborted) done();
    });
    return store.find(id);
  }

  /** Throws E_OVERLOADED when too many watch already. */
  watch(id: string, changed: () => void): () => void {
    const unwatch = this.#dispatcher.watch(id, changed);
    if (unwatch === undefined) throw new MayflyError('E_OVERLOADED', 'Too many clients wait for results.');
    return unwatch;
  }

  deadLetters(query: { readonly tenant: string; readonly before?: string; readonly most: number }): StoredEvent[] {
    return this.#options.store.list({ ...query, state: 'failed' });
  }

  async retry(tenant: string, id: string): Promise<void> {
    this.find(tenant, id);
    if ((await this.#options.store.retry([id], this.#wallMillis())) === 0) throw notDead(id);
    this.#dispatcher.takeUp();
  }

  async purge(tenant: string, id: string): Promise<void> {
    this.find(tenant, id);
    if ((await this.#options.store.purge([id])) === 0) throw notDead(id);
  }

  /** No new events; those that run end, or are interrupted and kept for the next start. */
  async stop(): Promise<void> {
    this.#draining = true;
    this.#cancel();
    await this.#dispatcher.stop(this.#options.settings.drainMillis);
    await this.#options.runner.close();
    await this.#options.store.close();
  }

  /** From now on nothing is accepted; what was accepted goes on. */
  drain(): void {
    this.#draining = true;
  }

  async #recover(undelivered: ReadonlySet<string>): Promise<void> {
    const { store, random, log } = this.#options;
    for (;;) {
      const found: Abandoned[] = [];
      for (const event of store.unfinished('running', limits.eventsListedMax)) {
        const version = await this.#version(event.tenant, event.function, event.version ?? undefined).catch(
          () => undefined,
        );
        found.push({ event, retry: version?.manifest.retry });
      }
      if (found.length === 0) break;
      const nowMillis = this.#wallMillis();
      const chance = (): number => random.bytes(1).readUInt8() / 256;
      const steps = planRecovery(found, { undelivered, nowMillis, chance });
      const ended = await Promise.all(steps.map(({ id, run, end }) => store.end(id, run, end, nowMillis)));
      for (const { id, run, end } of steps) log.warn({ event: id, run, state: end.state }, 'taken up after a crash');
      if (!ended.includes(true)) break;
    }
    this.#dispatcher.takeUp();
  }

  #tick(): void {
    this.#cancel = this.#options.clock.after(limits.storePollMillis, () => {
      void this.#look().finally(() => {
        if (!this.#draining) this.#tick();
      });
    });
  }

  /** Everything that has to be looked at from time to time. Never rejects. */
  async #look(): Promise<void> {
    const { store, settings, log, freeBytes } = this.#options;
    try {
      const before = this.#dataVersion;
      this.#dataVersion = store.dataVersion();
      if (before !== this.#dataVersion) this.#dispatcher.takeUp();
      this.#diskFull = (await freeBytes()) < limits.serviceDiskFloorBytes;
      await this.#useDeployed();
      await this.#warmth.look();
      const now = this.#wallMillis();
      if (Math.abs(now - this.#lastSweep) < limits.sweepMillis) return;
      this.#lastSweep = now;
      await store.sweep(now - settings.resultMillis, now - settings.deadLetterMillis);
    } catch (thrown) {
      log.error({ code: (thrown as { readonly code?: ErrorCode }).code ?? 'E_INTERNAL' }, 'a look around failed');
    }
  }

  /** Functions that want clones to wait before there was an event; those that are gone want none. */
  async #useDeployed(): Promise<void> {
    const { functions } = this.#options;
    const names = new Set<string>();
    for (const tenant of await functions.tenants()) {
      for (const name of await functions.names(tenant)) {
        const version = await this.#version(tenant, name, undefined).catch(() => undefined);
        if (version === undefined) continue;
        names.add(`${tenant}/${name}`);
        this.#warmth.use(tenant, version);
        if (names.size >= limits.versionsLoadedMax) return;
      }
    }
    this.#warmth.forget((tenant, name) => names.has(`${tenant}/${name}`));
  }

  async #version(tenant: string, name: string, digest: string | undefined): Promise<FunctionVersion> {
    const version = await this.#options.functions.load(tenant, name, digest);
    this.#dispatcher.cap(`${tenant}/${name}`, version.manifest.concurrency);
    return version;
  }

  #reserve(tenant: string, count: number, mostOfTenant: number): void {
    const coming = [...this.#coming.values()].reduce((sum, each) => sum + each, 0);
    const ofTenant = this.#coming.get(tenant) ?? 0;
    const room = this.#dispatcher.room(tenant, count, mostOfTenant - ofTenant);
    if (room !== 'room' || this.#dispatcher.queued + coming + count > this.#options.settings.queue) {
      const whose = room === 'tenant-full' ? `of ${tenant} ` : '';
      throw new MayflyError('E_OVERLOADED', `The queue ${whose}is full: ${this.#dispatcher.queued} events wait.`);
    }
    this.#coming.set(tenant, ofTenant + count);
  }

  #release(tenant: string, count: number): void {
    const left = (this.#coming.get(tenant) ?? 0) - count;
    if (left > 0) this.#coming.set(tenant, left);
    else this.#coming.delete(tenant);
  }

  #bucket(tenant: string, perSecond: number): TokenBucket {
    const known = this.#buckets.get(tenant);
    if (known?.perSecond === perSecond) return known.bucket;
    const bucket = new TokenBucket(this.#options.clock, perSecond, limits.batchEventsMax);
    this.#buckets.set(tenant, { perSecond, bucket });
    return bucket;
  }

  #wallMillis(): number {
    return Number(this.#options.clock.wallNanos() / 1_000_000n);
  }
}

function notDead(id: string): MayflyError {
  return new MayflyError('E_EVENT_UNKNOWN', `There is no dead letter ${id}.`);
}
