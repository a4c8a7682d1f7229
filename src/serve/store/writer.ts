/**
 * The one that writes, in a thread of its own, because to make a transaction durable takes milliseconds in which
 * nothing else would happen. All that has come in while it wrote the last transaction becomes the next one: a group
 * commit. Whoever asked is answered after the commit, never before.
 */
import { DatabaseSync } from 'node:sqlite';
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { limits } from '../../core/limits.ts';
import { operationsOn, prepareDatabase, Refused } from './operations.ts';
import type { Operations } from './operations.ts';

export interface WriterData {
  readonly path: string;
  readonly bytesMax: number;
  readonly port: MessagePort;
}

export type Call = {
  readonly [Name in keyof Operations]: readonly [Name, ...Parameters<Operations[Name]>];
}[keyof Operations];

export interface Request {
  readonly seq: number;
  /** `close`: after everything before it. */
  readonly call: Call | readonly ['close'];
}

export type Answer =
  | { readonly seq: number; readonly ok: true; readonly value: unknown }
  | { readonly seq: number; readonly ok: false; readonly full: boolean; readonly message: string };

/** SQLite's result code for a database, or a disk, that is full. */
const SQLITE_FULL = 13;

function serve({ path, bytesMax, port }: WriterData): void {
  const db = new DatabaseSync(path);
  prepareDatabase(db, bytesMax);
  const operations = operationsOn(db, bytesMax);
  /** What a failed commit has left on the medium is not known: nothing may be acknowledged after it. */
  let broken: string | undefined;

  function perform({ seq, call }: Request): Answer {
    db.exec('SAVEPOINT one');
    try {
      const [name, ...args] = call as readonly [keyof Operations, ...unknown[]];
      const value = (operations[name] as (...given: unknown[]) => unknown)(...args);
      db.exec('RELEASE one');
      return { seq, ok: true, value };
    } catch (thrown) {
      // A full disk may have ended the whole transaction: then there is nothing to go back to.
      if (db.isTransaction) db.exec('ROLLBACK TO one; RELEASE one');
      else throw thrown;
      return { seq, ok: false, full: isFull(thrown), message: (thrown as Error).message };
    }
  }

  function commit(batch: readonly Request[]): Answer[] {
    if (broken !== undefined) return fail(batch, false, broken);
    try {
      db.exec('BEGIN IMMEDIATE');
      const answers = batch.map(perform);
      db.exec('COMMIT');
      return answers;
    } catch (thrown) {
      const { message } = thrown as Error;
      if (db.isTransaction) db.exec('ROLLBACK');
      if (!isFull(thrown) && !isBusy(thrown)) broken = `it failed before: ${message}`;
      return fail(batch, isFull(thrown), message);
    }
  }

  port.on('message', (first: Request) => {
    const batch = [first];
    while (batch.length < limits.storeBatchMax) {
      const next = receiveMessageOnPort(port) as { message: Request } | undefined;
      if (next === undefined) break;
      batch.push(next.message);
    }
    const closing = batch.find(({ call }) => call[0] === 'close');
    const work = batch.filter(({ call }) => call[0] !== 'close');
    const answers = work.length === 0 ? [] : commit(work);
    if (closing !== undefined) db.close();
    for (const answer of answers) port.postMessage(answer);
    if (closing === undefined) return;
    port.postMessage({ seq: closing.seq, ok: true, value: undefined } satisfies Answer);
    port.close();
  });
  port.postMessage({ seq: 0, ok: true, value: undefined } satisfies Answer);
}

function fail(batch: readonly Request[], full: boolean, message: string): Answer[] {
  return batch.map(({ seq }) => ({ seq, ok: false, full, message }));
}

function isFull(thrown: unknown): boolean {
  if (thrown instanceof Refused) return thrown.code === 'full';
  return resultCode(thrown) === SQLITE_FULL;
}

const SQLITE_BUSY = 5;

function isBusy(thrown: unknown): boolean {
  return resultCode(thrown) === SQLITE_BUSY;
}

/** Without its extension in the upper bytes. */
function resultCode(thrown: unknown): number {
  return thrown instanceof Error && 'errcode' in thrown ? Number(thrown.errcode) & 0xff : 0;
}

serve(workerData as WriterData);
