/** `mayfly dlq …`: events that have ended without a result. Works beside a service that runs, and without one. */
import { MayflyError } from '../core/errors.ts';
import { isRunId } from '../core/ids.ts';
import { limits } from '../core/limits.ts';
import { isoTime } from '../core/time.ts';
import type { StoredEvent } from '../serve/store/event.ts';
import type { Store } from '../serve/store/store.ts';
import { printJson } from './io.ts';
import type { Io } from './io.ts';
import { table } from './list.ts';
import { clean } from './log.ts';

export interface DlqOptions {
  readonly tenant?: string;
  readonly function?: string;
  readonly all?: boolean;
  readonly json?: boolean;
}

export async function list(io: Io, options: DlqOptions): Promise<number> {
  return await withStore(io, async (store) => {
    const found = store.list({ ...filter(options), state: 'failed', most: limits.eventsListedMax });
    if (options.json === true) printJson(io, found);
    else {
      const rows = found.map(({ id, tenant, function: name, attempts, failure, acceptedMillis }) => [
        id, `${tenant}/${name}`, String(attempts), failure?.code ?? '', failure?.blame ?? '', time(acceptedMillis),
      ]);
      io.out(table([['EVENT', 'FUNCTION', 'ATTEMPTS', 'CODE', 'BLAME', 'ACCEPTED'], ...rows]));
    }
    return 0;
  });
}

/** All about one, with its payload as it was accepted. */
export async function show(io: Io, id: string, { json }: DlqOptions): Promise<number> {
  return await withStore(io, async (store) => {
    const event = requireDead(store, id);
    const payload = store.payload(id);
    if (json === true) printJson(io, { ...event, event: payload.toString('utf8') });
    else {
      const { failure, ...rest } = event;
      io.out(`${JSON.stringify(rest, null, 2)}\n`);
      io.out(`${failure?.code}: ${clean(failure?.message ?? '')}\n${clean(failure?.detail ?? '')}\n`);
      io.out(io.outIsTerminal ? `${clean(payload.toString('utf8'))}\n` : Buffer.concat([payload, Buffer.from('\n')]));
    }
    return 0;
  });
}

/** They are run again with the version that is in use then; a service that runs sees them within a second. */
export async function retry(io: Io, ids: readonly string[], options: DlqOptions): Promise<number> {
  return await withStore(io, async (store) => {
    const count = await store.retry(chosen(store, ids, options), Number(io.wallNanos() / 1_000_000n));
    io.out(`${count} queued\n`);
    return 0;
  });
}

export async function purge(io: Io, ids: readonly string[], options: DlqOptions): Promise<number> {
  return await withStore(io, async (store) => {
    io.out(`${await store.purge(chosen(store, ids, options))} purged\n`);
    return 0;
  });
}

async function withStore(io: Io, work: (store: Store) => Promise<number>): Promise<number> {
  const store = await (await (await io.openApp()).places()).events();
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

function chosen(store: Store, ids: readonly string[], options: DlqOptions): readonly string[] {
  if (ids.length > 0) return ids.map((id) => requireDead(store, id).id);
  if (options.all !== true) {
    throw new MayflyError('E_USAGE', 'name events, or say --all', { remedy: 'See `mayfly dlq list`.' });
  }
  return store.list({ ...filter(options), state: 'failed', most: limits.eventsListedMax }).map(({ id }) => id);
}

function requireDead(store: Store, id: string): StoredEvent {
  const event = isRunId(id) ? store.find(id) : undefined;
  if (event?.state === 'failed') return event;
  throw new MayflyError('E_EVENT_UNKNOWN', `there is no dead letter ${id.slice(0, 40)}`);
}

function filter({ tenant, function: name }: DlqOptions): { tenant?: string; function?: string } {
  return { ...(tenant === undefined ? {} : { tenant }), ...(name === undefined ? {} : { function: name }) };
}

function time(millis: number): string {
  return isoTime(BigInt(millis) * 1_000_000n);
}
