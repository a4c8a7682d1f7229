/**
 * What is done to the database, in SQL. writer.ts calls it in its transactions; the tests call it directly.
 *
 * A change of state names the state, and the run, that it starts from, so that whoever comes second changes nothing: an
 * attempt that was given up cannot publish its result after all.
 */
import type { DatabaseSync } from 'node:sqlite';
import { limits } from '../../core/limits.ts';
import type { AcceptAnswer, EventEnd, EventFailure, NewEvent } from './event.ts';

const SCHEMA_VERSION = 1;

const SCHEMA = `
CREATE TABLE events (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  function TEXT NOT NULL,
  version TEXT,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  run TEXT,
  due INTEGER NOT NULL,
  accepted INTEGER NOT NULL,
  ended INTEGER,
  key TEXT,
  body TEXT NOT NULL,
  origin TEXT NOT NULL,
  event_bytes INTEGER NOT NULL,
  failure TEXT,
  evidence TEXT,
  raw INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Apart from their events: a change of state rewrites a row, and should not rewrite megabytes.
CREATE TABLE payloads (id TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE outputs (id TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX keys ON events (tenant, function, key) WHERE key IS NOT NULL;
CREATE INDEX waiting ON events (state, due);
CREATE INDEX ending ON events (state, ended);
`;

/** Thrown by an operation: it is undone, and its caller alone is told. */
export class Refused extends Error {
  readonly code: 'full' | 'version';

  constructor(code: Refused['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** `bytesMax`: of the database; a tenth of it is kept for results of what was accepted. */
export function prepareDatabase(db: DatabaseSync, bytesMax: number): void {
  db.exec(
    'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF',
  );
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (version !== 0 && version !== SCHEMA_VERSION) {
    throw new Refused('version', `it has version ${version}; this Mayfly knows version ${SCHEMA_VERSION}`);
  }
  if (version === 0) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`);
  const { page_size: pageBytes } = db.prepare('PRAGMA page_size').get() as { page_size: number };
  db.exec(`PRAGMA max_page_count = ${Math.floor(bytesMax / pageBytes)}`);
}

export interface Operations {
  /** All or none of them: with one conflict nothing is accepted. */
  accept(events: readonly NewEvent[]): AcceptAnswer[];
  /** False when it is not `queued` any more. */
  start(id: string, run: string): boolean;
  /** False when it is not `running` under this run any more. */
  end(id: string, run: string, end: EventEnd, nowMillis: number): boolean;
  /** From `failed` to `queued`, to be run with the version that is in use then. How many were. */
  retry(ids: readonly string[], nowMillis: number): number;
  /** Dead letters for good. How many were. */
  purge(ids: readonly string[]): number;
  /** What ended before these times goes. How many went; at most `sweepRowsMax` of each. */
  sweep(succeededBefore: number, failedBefore: number): number;
}

export function operationsOn(db: DatabaseSync, bytesMax: number): Operations {
  const known = db.prepare('SELECT id, body FROM events WHERE tenant = ? AND function = ? AND key = ?');
  const insert = db.prepare(`
    INSERT INTO events (id, tenant, function, version, state, due, accepted, key, body, origin, event_bytes)
    VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)`);
  const keep = db.prepare('INSERT INTO payloads (id, bytes) VALUES (?, ?)');
  const give = db.prepare('INSERT INTO outputs (id, bytes) VALUES (?, ?)');
  const drop = ['payloads', 'outputs'].map((table) => db.prepare(`DELETE FROM ${table} WHERE id = ?`));
  const start = db.prepare(`
    UPDATE events SET state = 'running', attempts = attempts + 1, run = ? WHERE id = ? AND state = 'queued'`);
  const succeed = db.prepare(`
    UPDATE events SET state = 'succeeded', ended = ?, raw = ?, evidence = ?, failure = NULL
    WHERE id = ? AND state = 'running' AND run = ?`);
  const fail = db.prepare(`
    UPDATE events SET state = 'failed', ended = ?, failure = ?, evidence = ?
    WHERE id = ? AND state = 'running' AND run = ?`);
  const again = db.prepare(`
    UPDATE events SET state = 'queued', due = ?, failure = ? WHERE id = ? AND state = 'running' AND run = ?`);
  const revive = db.prepare(`
    UPDATE events SET state = 'queued', due = ?, attempts = 0, version = NULL, ended = NULL
    WHERE id = ? AND state = 'failed'`);
  const purge = db.prepare("DELETE FROM events WHERE id = ? AND state = 'failed'");
  const expired = db.prepare('SELECT id FROM events WHERE state = ? AND ended < ? ORDER BY ended LIMIT ?');
  const remove = db.prepare('DELETE FROM events WHERE id = ?');
  const size = db.prepare(
    'SELECT (pc - fc) * ps AS bytes FROM (SELECT (SELECT page_count FROM pragma_page_count()) AS pc, ' +
      '(SELECT freelist_count FROM pragma_freelist_count()) AS fc, (SELECT page_size FROM pragma_page_size()) AS ps)',
  );

  const dropBytes = (id: string): void => {
    for (const each of drop) each.run(id);
  };
  const changed = (result: { readonly changes: number | bigint }): boolean => Number(result.changes) > 0;

  return {
    accept(events) {
      const answers = events.map(({ tenant, function: name, key, body, id }): AcceptAnswer => {
        const found =
          key === null ? undefined : (known.get(tenant, name, key) as { id: string; body: string } | undefined);
        if (found === undefined) return { is: 'fresh', id };
        return found.body === body ? { is: 'known', id: found.id } : { is: 'conflict' };
      });
      if (answers.some(({ is }) => is === 'conflict')) return answers;
      const fresh = events.filter((_, index) => answers[index]?.is === 'fresh');
      const wanted = fresh.reduce((sum, { event }) => sum + event.length, 0);
      const { bytes } = size.get() as { bytes: number };
      if (fresh.length > 0 && bytes + wanted > bytesMax * 0.9) {
        throw new Refused('full', `it has ${bytes} of ${bytesMax} bytes, and a tenth is kept for results`);
      }
      for (const one of fresh) {
        const { id, tenant, function: name, version, key, body, origin, acceptedMillis, event } = one;
        const from = JSON.stringify(origin);
        insert.run(id, tenant, name, version, acceptedMillis, acceptedMillis, key, body, from, event.length);
        keep.run(id, event);
      }
      return answers;
    },
    start: (id, run) => changed(start.run(run, id)),
    end(id, run, end, nowMillis) {
      if (end.state === 'succeeded') {
        if (!changed(succeed.run(nowMillis, end.raw ? 1 : 0, end.evidence, id, run))) return false;
        // The payload is kept only as long as it may be needed again.
        drop[0]?.run(id);
        give.run(id, end.output);
        return true;
      }
      const failure = encodeFailure(end.failure);
      if (end.state === 'failed') return changed(fail.run(nowMillis, failure, end.evidence, id, run));
      return changed(again.run(end.dueMillis, failure, id, run));
    },
    retry: (ids, nowMillis) => ids.filter((id) => changed(revive.run(nowMillis, id))).length,
    purge(ids) {
      const gone = ids.filter((id) => changed(purge.run(id)));
      for (const id of gone) dropBytes(id);
      return gone.length;
    },
    sweep(succeededBefore, failedBefore) {
      const ids = [['succeeded', succeededBefore], ['failed', failedBefore]].flatMap(([state = '', before = 0]) => {
        return expired.all(state, before, limits.sweepRowsMax).map(({ id }) => String(id));
      });
      for (const id of ids) {
        remove.run(id);
        dropBytes(id);
      }
      return ids.length;
    },
  };
}

function encodeFailure({ code, blame, message, remedy, detail }: EventFailure): string {
  return JSON.stringify({ code, blame, message, remedy, ...(detail === undefined ? {} : { detail }) });
}
