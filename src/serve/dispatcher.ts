/**
 * From the queue to the end: takes what may run, has it run, and puts what came of it on the medium before anybody is
 * told. Every event that was accepted is in the store; what is here can be lost and found there again.
 */
import { asMayflyError } from '../core/errors.ts';
import { newRunId } from '../core/ids.ts';
import { limits } from '../core/limits.ts';
import type { Random } from '../core/random.ts';
import type { Clock } from '../core/time.ts';
import type { FunctionVersion } from '../function/version.ts';
import type { Outcome } from '../stages.ts';
import { verdictOf } from '../validate/verdict.ts';
import type { Log, Runner } from './contract.ts';
import type { Metrics } from './metrics.ts';
import { decideEnd } from './plan.ts';
import type { Attempted } from './plan.ts';
import { FairQueue } from './queue.ts';
import type { Room, Waiting } from './queue.ts';
import type { EventEnd, StoredEvent } from './store/event.ts';
import type { Store } from './store/store.ts';
import type { Warmth } from './warmth.ts';

export interface DispatcherOptions {
  readonly store: Store;
  readonly runner: Runner;
  readonly warmth: Warmth;
  /** Rejects with E_FUNCTION_UNKNOWN and E_FUNCTION_CORRUPT. */
  readonly versionOf: (tenant: string, name: string, version: string | null) => Promise<FunctionVersion>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Events that run at a time, and that wait. */
  readonly concurrency: number;
  readonly queue: number;
}

/** A result that the disk does not take is offered again so often, and so much later, ms. */
const WRITE_TRIES = 5;
const WRITE_PAUSE = 1_000;

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #queue: FairQueue;
  /** Queued, delayed or running here. */
  readonly #known = new Set<string>();
  readonly #running = new Map<string, { readonly item: Waiting; readonly done: Promise<void> }>();
  readonly #delayed = new Map<string, () => void>();
  readonly #watchers = new Map<string, Set<() => void>>();
  /** Most events at a time of `tenant` and of `tenant/function`, as far as they are known. */
  readonly #caps = new Map<string, number>();
  readonly #halt = new AbortController();
  #watching = 0;
  #stopping = false;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#queue = new FairQueue({ most: options.queue });
    options.runner.mayFill = () => this.#running.size < options.concurrency;
  }

  get queued(): number {
    return this.#queue.length + this.#delayed.size;
  }

  get running(): number {
    return this.#running.size;
  }

  get full(): boolean {
    return this.queued >= this.#options.queue;
  }

  room(tenant: string, count: number, mostOfTenant: number): Room {
    return this.#queue.room(tenant, count + this.#delayed.size, mostOfTenant + this.#delayed.size);
  }

  /** `null`: as many as the service runs. */
  cap(name: string, most: number | null): void {
    if (most === null) this.#caps.delete(name);
    else this.#caps.set(name, most);
  }

  /** It is in the store, as `queued`. */
  add(item: Waiting, dueMillis = 0): void {
    if (this.#known.has(item.id) || this.#stopping) return;
    this.#known.add(item.id);
    this.#line(item, dueMillis);
    this.#pump();
  }

  /** Takes up what the store has and this process does not know: after a start, or when somebody else has added it. */
  takeUp(): void {
    const room = this.#options.queue - this.queued;
    if (room <= 0 || this.#stopping) return;
    const { store } = this.#options;
    for (const { id, tenant, function: name, dueMillis } of store.unfinished('queued', this.#known.size + room)) {
      this.add({ id, tenant, function: name }, dueMillis);
    }
  }

  /** Told when its state changes; the returned function ends that. Undefined when too many are told already. */
  watch(id: string, changed: () => void): (() => void) | undefined {
    if (this.#watching >= limits.waitersMax) return undefined;
    let watchers = this.#watchers.get(id);
    if (watchers === undefined) this.#watchers.set(id, (watchers = new Set()));
    watchers.add(changed);
    this.#watching++;
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#watching--;
      watchers.delete(changed);
      if (watchers.size === 0) this.#watchers.delete(id);
    };
  }

  /** Starts nothing any more; what runs has `drainMillis` to end, and is then interrupted and waited for. */
  async stop(drainMillis: number): Promise<void> {
    this.#stopping = true;
    for (const cancel of this.#delayed.values()) cancel();
    this.#delayed.clear();
    const cancel = this.#options.clock.after(drainMillis, () => this.#halt.abort());
    await this.#settled();
    cancel();
  }

  async #settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  #line(item: Waiting, dueMillis: number): void {
    const wait = dueMillis - this.#wallMillis();
    if (wait <= 0) return this.#queue.push(item);
    this.#delayed.set(item.id, this.#options.clock.after(wait, () => {
      this.#delayed.delete(item.id);
      this.#queue.push(item);
      this.#pump();
    }));
  }

  #pump(): void {
    while (!this.#stopping && this.#running.size < this.#options.concurrency) {
      const item = this.#queue.take((candidate) => this.#may(candidate));
      if (item === undefined) return;
      const done = this.#run(item)
        .catch((thrown: unknown) => {
          this.#options.log.error({ event: item.id, code: asMayflyError(thrown).code }, 'an event could not be run');
        })
        .finally(() => {
          this.#running.delete(item.id);
          this.#pump();
        });
      this.#running.set(item.id, { item, done });
    }
  }

  #may({ tenant, function: name }: Waiting): boolean {
    for (const [cap, counts] of [
      [this.#caps.get(tenant), ({ tenant: owner }: Waiting) => owner === tenant],
      [this.#caps.get(`${tenant}/${name}`), (other: Waiting) => other.tenant === tenant && other.function === name],
    ] as const) {
      if (cap === undefined) continue;
      let running = 0;
      for (const { item } of this.#running.values()) if (counts(item)) running++;
      if (running >= cap) return false;
    }
    return true;
  }

  async #run(item: Waiting): Promise<void> {
    const { store, clock, random } = this.#options;
    const runId = newRunId(clock, random);
    try {
      if (!(await store.start(item.id, runId))) return void this.#known.delete(item.id);
    } catch (thrown) {
      // Nothing was begun, and it is still `queued` on the medium.
      this.#options.log.error({ event: item.id, code: asMayflyError(thrown).code }, 'the store takes no start');
      if (!this.#stopping) this.#line(item, this.#wallMillis() + WRITE_PAUSE);
      return;
    }
    this.#tell(item.id);
    const event = store.find(item.id);
    if (event === undefined) return void this.#known.delete(item.id);
    const { attempted, version } = await this.#attempt(event, runId);
    const never = { attempts: 0, backoffMillis: 0, afterDelivery: false };
    const end = decideEnd(attempted, {
      attempts: event.attempts,
      retry: version?.manifest.retry ?? never,
      nowMillis: this.#wallMillis(),
      chance: random.bytes(1).readUInt8() / 256,
      stopping: this.#halt.signal.aborted,
    });
    this.#note(event, runId, end);
    const written = await this.#write(event.id, runId, end);
    this.#known.delete(event.id);
    if (written && end.state === 'queued' && !this.#stopping) this.add(item, end.dueMillis);
    this.#tell(event.id);
  }

  async #attempt(
    event: StoredEvent, runId: ReturnType<typeof newRunId>,
  ): Promise<{ attempted: Attempted; version: FunctionVersion | undefined }> {
    const { store, runner, warmth, versionOf, metrics } = this.#options;
    let version: FunctionVersion | undefined;
    try {
      version = await versionOf(event.tenant, event.function, event.version);
      const { workload } = version;
      const order = {
        tenant: event.tenant, version, origin: event.origin, event: store.payload(event.id), runId,
        signal: this.#halt.signal,
      };
      const outcome: Outcome = await runner.run(order, {
        stage: ({ stage, millis }) => metrics.stage(stage, millis),
      });
      if (outcome.profile !== undefined) warmth.seen(event.tenant, version, outcome.profile);
      const raw = workload.kind === 'executable' && workload.raw;
      metrics.ran(outcome.timeline.some(({ stage }) => stage === 'uniqueness'));
      return { attempted: { is: 'outcome', outcome, raw }, version };
    } catch (thrown) {
      return { attempted: { is: 'refused', verdict: verdictOf(asMayflyError(thrown)) }, version };
    }
  }

  async #write(id: string, runId: string, end: EventEnd): Promise<boolean> {
    const { store, clock, log } = this.#options;
    for (let tries = 1; ; tries++) {
      try {
        return await store.end(id, runId, end, this.#wallMillis());
      } catch (thrown) {
        const { code } = asMayflyError(thrown);
        log.error({ event: id, run: runId, code, tries }, 'the store does not take a result');
        // It stays `running` there: the next start finds it, and knows its run.
        if (tries >= WRITE_TRIES) return false;
        await new Promise<void>((resolve) => clock.after(WRITE_PAUSE, resolve));
      }
    }
  }

  #note(event: StoredEvent, run: string, end: EventEnd): void {
    const { log, metrics } = this.#options;
    const { id, tenant, function: name, attempts, acceptedMillis } = event;
    const millis = this.#wallMillis() - acceptedMillis;
    const code = end.state === 'succeeded' ? 'OK' : end.failure.code;
    log.info({ event: id, run, tenant, function: name, attempts, state: end.state, code, millis }, 'attempt ended');
    if (end.state === 'queued') metrics.retried(code);
    else metrics.ended(tenant, name, code, millis);
  }

  #tell(id: string): void {
    for (const changed of this.#watchers.get(id) ?? []) changed();
  }

  #wallMillis(): number {
    return Number(this.#options.clock.wallNanos() / 1_000_000n);
  }
}
