/**
 * Events on the medium: SQLite, because its write-ahead log is the journal that acceptance needs (docs/decisions/0014).
 * Changes go to the writer's thread and resolve when they are durable; questions are answered here, at once.
 */
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { MessageChannel, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { MayflyError } from '../../core/errors.ts';
import { limits } from '../../core/limits.ts';
import type {
  AcceptAnswer, EventEnd, EventFailure, EventOrigin, EventState, NewEvent, StoredEvent,
} from './event.ts';
import { prepareDatabase } from './operations.ts';
import type { Operations } from './operations.ts';
import type { Answer, Call, Request, WriterData } from './writer.ts';

export interface StoreOptions {
  readonly path: string;
  /** Of the whole database. */
  readonly bytesMax: number;
}

interface Asked {
  resolve(value: unknown): void;
  reject(reason: MayflyError): void;
}

export interface ListQuery {
  readonly tenant?: string;
  readonly function?: string;
  readonly state: EventState;
  /** Older than this id, which sorts by time. */
  readonly before?: string;
  readonly most: number;
}

const COLUMNS =
  'id, tenant, function, version, state, attempts, run, due, accepted, ended, origin, failure, evidence, raw, '
  + 'event_bytes';

export class Store {
  readonly #db: DatabaseSync;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #asked = new Map<number, Asked>();
  #seq = 0;
  #dead: string | undefined;

  private constructor(db: DatabaseSync, worker: Worker, port: MessagePort) {
    this.#db = db;
    this.#worker = worker;
    this.#port = port;
    port.on('message', (answer: Answer) => this.#settle(answer));
    worker.on('error', (error: Error) => this.#fail(error.message));
    worker.on('exit', () => this.#fail('its writer has ended'));
  }

  /** Rejects with E_STORE_FAILED: damage is reported, never repaired by guessing. */
  static async open({ path, bytesMax }: StoreOptions): Promise<Store> {
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      const db = openChecked(path, bytesMax);
      const { port1, port2 } = new MessageChannel();
      const data: WriterData = { path, bytesMax, port: port2 };
      const worker = new Worker(new URL('./writer.ts', import.meta.url), { workerData: data, transferList: [port2] });
      const store = new Store(db, worker, port1);
      await new Promise<void>((resolve, reject) => {
        store.#asked.set(0, { resolve: () => resolve(), reject });
      });
      return store;
    } catch (cause) {
      if (cause instanceof MayflyError) throw cause;
      throw new MayflyError('E_STORE_FAILED', `${path}: ${(cause as Error).message}`, { cause });
    }
  }

  // ---- changes: durable when they resolve; reject with E_STORE_FULL and E_STORE_FAILED ------------------------------

  async accept(events: readonly NewEvent[]): Promise<AcceptAnswer[]> {
    return (await this.#ask('accept', events)) as AcceptAnswer[];
  }

  async start(id: string, run: string): Promise<boolean> {
    return (await this.#ask('start', id, run)) as boolean;
  }

  async end(id: string, run: string, end: EventEnd, nowMillis: number): Promise<boolean> {
    return (await this.#ask('end', id, run, end, nowMillis)) as boolean;
  }

  async retry(ids: readonly string[], nowMillis: number): Promise<number> {
    return (await this.#ask('retry', ids, nowMillis)) as number;
  }

  async purge(ids: readonly string[]): Promise<number> {
    return (await this.#ask('purge', ids)) as number;
  }

  async sweep(succeededBefore: number, failedBefore: number): Promise<number> {
    return (await this.#ask('sweep', succeededBefore, failedBefore)) as number;
  }

  // ---- questions ----------------------------------------------------------------------------------------------------

  find(id: string): StoredEvent | undefined {
    const row = this.#db.prepare(`SELECT ${COLUMNS} FROM events WHERE id = ?`).get(id);
    return row === undefined ? undefined : storedEvent(row as unknown as Row);
  }

  /** The CloudEvent; empty once it has succeeded. */
  payload(id: string): Buffer {
    return blob(this.#db.prepare('SELECT bytes FROM payloads WHERE id = ?').get(id));
  }

  output(id: string): Buffer {
    return blob(this.#db.prepare('SELECT bytes FROM outputs WHERE id = ?').get(id));
  }

  /** Newest first. */
  list({ tenant, function: name, state, before, most }: ListQuery): StoredEvent[] {
    const where = ['state = ?'];
    const values: string[] = [state];
    for (const [condition, value] of [['tenant = ?', tenant], ['function = ?', name], ['id < ?', before]] as const) {
      if (value === undefined) continue;
      where.push(condition);
      values.push(value);
    }
    const sql = `SELECT ${COLUMNS} FROM events WHERE ${where.join(' AND ')} ORDER BY id DESC LIMIT ?`;
    const rows = this.#db.prepare(sql).all(...values, Math.min(most, limits.eventsListedMax));
    return rows.map((row) => storedEvent(row as unknown as Row));
  }

  /** Those that are not at an end, oldest first: what a start has to take up again. */
  unfinished(state: 'queued' | 'running', most: number): StoredEvent[] {
    const sql = `SELECT ${COLUMNS} FROM events WHERE state = ? ORDER BY due, id LIMIT ?`;
    return this.#db.prepare(sql).all(state, most).map((row) => storedEvent(row as unknown as Row));
  }

  counts(): Readonly<Record<EventState, number>> {
    const counts = { queued: 0, running: 0, succeeded: 0, failed: 0 };
    for (const row of this.#db.prepare('SELECT state, count(*) AS n FROM events GROUP BY state').all()) {
      counts[row['state'] as EventState] = Number(row['n']);
    }
    return counts;
  }

  /** Changes when another process has changed something, or the writer has. */
  dataVersion(): number {
    return Number(this.#db.prepare('PRAGMA data_version').get()?.['data_version']);
  }

  /** Changes that are not durable yet. */
  get pending(): number {
    return this.#asked.size;
  }

  /** After everything that was asked for. */
  async close(): Promise<void> {
    if (this.#dead === undefined) await this.#send(['close']).catch(() => {});
    await this.#worker.terminate();
    this.#db.close();
  }

  #ask<Name extends keyof Operations>(name: Name, ...args: Parameters<Operations[Name]>): Promise<unknown> {
    if (this.#asked.size >= limits.storePendingMax) {
      return Promise.reject(new MayflyError('E_OVERLOADED', `${this.#asked.size} changes wait for the disk`));
    }
    return this.#send([name, ...args] as unknown as Call);
  }

  #send(call: Request['call']): Promise<unknown> {
    if (this.#dead !== undefined) return Promise.reject(new MayflyError('E_STORE_FAILED', this.#dead));
    const seq = ++this.#seq;
    return new Promise((resolve, reject) => {
      this.#asked.set(seq, { resolve, reject });
      this.#port.postMessage({ seq, call } satisfies Request);
    });
  }

  #settle(answer: Answer): void {
    const asked = this.#asked.get(answer.seq);
    this.#asked.delete(answer.seq);
    if (answer.ok) asked?.resolve(answer.value);
    else asked?.reject(new MayflyError(answer.full ? 'E_STORE_FULL' : 'E_STORE_FAILED', answer.message));
  }

  #fail(reason: string): void {
    this.#dead ??= reason;
    for (const asked of this.#asked.values()) asked.reject(new MayflyError('E_STORE_FAILED', reason));
    this.#asked.clear();
    this.#port.close();
  }
}

function openChecked(path: string, bytesMax: number): DatabaseSync {
  const db = new DatabaseSync(path);
  try {
    prepareDatabase(db, bytesMax);
    const { quick_check: verdict } = db.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
    if (verdict !== 'ok') throw new Error(`it is damaged: ${verdict}`);
    return db;
  } catch (thrown) {
    db.close();
    throw thrown;
  }
}

interface Row {
  readonly id: string;
  readonly tenant: string;
  readonly function: string;
  readonly version: string | null;
  readonly state: EventState;
  readonly attempts: number;
  readonly run: string | null;
  readonly due: number;
  readonly accepted: number;
  readonly ended: number | null;
  readonly origin: string;
  readonly failure: string | null;
  readonly evidence: string | null;
  readonly raw: number;
  readonly event_bytes: number;
}

function storedEvent({
  due,
  accepted,
  ended,
  origin,
  failure,
  raw,
  event_bytes: eventBytes,
  ...row
}: Row): StoredEvent {
  return {
    ...row, eventBytes, dueMillis: due, acceptedMillis: accepted, endedMillis: ended, raw: raw === 1,
    origin: JSON.parse(origin) as EventOrigin,
    failure: failure === null ? null : (JSON.parse(failure) as EventFailure),
  };
}

function blob(row: unknown): Buffer {
  const bytes = (row as { bytes: Uint8Array | null } | undefined)?.bytes;
  return bytes === null || bytes === undefined ? Buffer.alloc(0) : Buffer.from(bytes);
}
